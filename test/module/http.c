/*
 * http.c
 *	  src/http from inside a server: real exchanges with a real server, and
 *	  the ways they end.
 */
#include "postgres.h"

#include <dirent.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "fmgr.h"
#include "funcapi.h"
#include "http/http.h"
#include "http/loop.h"
#include "http/network.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(chaincall_test_http);
PG_FUNCTION_INFO_V1(chaincall_test_http_cancel);
PG_FUNCTION_INFO_V1(chaincall_test_http_settle);
PG_FUNCTION_INFO_V1(chaincall_test_http_raise);
PG_FUNCTION_INFO_V1(chaincall_test_http_bench);
PG_FUNCTION_INFO_V1(chaincall_test_http_state);
PG_FUNCTION_INFO_V1(chaincall_test_network_refused);
PG_FUNCTION_INFO_V1(chaincall_test_network_list);

#define MAX_TRIALS 20000

typedef struct Trial Trial;

/* Exchanges of one test function, and what came of them. */
typedef struct Trials
{
	HttpRequest request;
	int			count;
	int			left;
	Trial	   *trial;
	ReturnSetInfo *rsinfo;		/* answers go here, unless NULL */
	int64		started_us;
	int			bad;			/* not 200 */
	int			again;			/* still to be started by answers */
	int			raise;			/* this callback raises; -1: none */
	int			cancel;			/* callbacks cancel their next so many */
} Trials;

struct Trial
{
	Trials	   *all;
	int			index;
	HttpExchange *exchange;		/* NULL: over */
};

static const char *
fault_name(HttpFault fault)
{
	switch (fault)
	{
		case HTTP_OK:
			return "ok";
		case HTTP_BAD_REQUEST:
			return "bad request";
		case HTTP_RESOLVE:
			return "resolve";
		case HTTP_REFUSED_ADDRESS:
			return "refused address";
		case HTTP_CONNECT:
			return "connect";
		case HTTP_TLS:
			return "tls";
		case HTTP_BROKEN:
			return "broken";
		case HTTP_TOO_LARGE:
			return "too large";
		case HTTP_NO_RESOURCE:
			return "no resource";
	}
	return "?";
}

/* Text as far as it is ASCII: what a server sends may be anything. */
static Datum
ascii_datum(const char *text, size_t len)
{
	char	   *copy = palloc(len + 1);

	for (size_t i = 0; i < len; i++)
		copy[i] = ((text[i] >= ' ' && text[i] <= '~') || text[i] == '\n') ? text[i] : '.';
	copy[len] = '\0';
	return CStringGetTextDatum(copy);
}

static void
put_text(Datum *value, bool *isnull, const char *text)
{
	*isnull = (text == NULL);
	if (text != NULL)
		*value = ascii_datum(text, strlen(text));
}

static void
put_ms(Datum *value, bool *isnull, int64 us, int64 since_us)
{
	*isnull = (us == 0);
	*value = Float8GetDatum((us - since_us) / 1000.0);
}

static void
put_answer(Trials *all, const Trial *trial, const HttpAnswer *answer)
{
	Datum		values[13];
	bool		nulls[13] = {0};

	values[0] = Int32GetDatum(trial->index + 1);
	put_text(&values[1], &nulls[1], fault_name(answer->fault));
	put_text(&values[2], &nulls[2], answer->message);
	values[3] = Int32GetDatum(answer->status);
	values[4] = Int64GetDatum((int64) answer->body_len);
	values[5] = ascii_datum(answer->body, Min(answer->body_len, 4000));
	put_text(&values[6], &nulls[6], answer->content_type);
	put_text(&values[7], &nulls[7], answer->retry_after);
	put_text(&values[8], &nulls[8], answer->request_id);
	values[9] = Int32GetDatum(answer->http_version);
	put_ms(&values[10], &nulls[10], answer->sent_us, all->started_us);
	put_ms(&values[11], &nulls[11], answer->first_byte_us, all->started_us);
	put_ms(&values[12], &nulls[12], clock_us(), all->started_us);
	tuplestore_putvalues(all->rsinfo->setResult, all->rsinfo->setDesc, values,
						 nulls);
}

static void trial_done(HttpExchange *exchange, const HttpAnswer *answer,
					   void *arg);

static void
trial_start(Trial *trial)
{
	Trials	   *all = trial->all;

	trial->exchange = http_start(&all->request, trial_done, trial);
	all->left++;
}

static void
trial_cancel(Trial *trial)
{
	if (trial->exchange == NULL)
		return;
	http_cancel(trial->exchange);
	trial->exchange = NULL;
	trial->all->left--;
}

static void
trial_done(HttpExchange *exchange, const HttpAnswer *answer, void *arg)
{
	Trial	   *trial = arg;
	Trials	   *all = trial->all;

	if (trial->exchange != exchange)
		elog(ERROR, "callback for an exchange that is over");

	/* harmless in its own callback */
	http_cancel(exchange);
	trial->exchange = NULL;
	all->left--;
	if (answer->fault != HTTP_OK || answer->status != 200)
		all->bad++;
	if (answer->body[answer->body_len] != '\0')
		elog(ERROR, "no NUL behind the body");
	if (all->rsinfo != NULL)
		put_answer(all, trial, answer);
	if (all->raise == trial->index)
		elog(ERROR, "raised by callback %d", trial->index + 1);
	for (; all->cancel > 0 && trial->index + 1 < all->count; all->cancel--)
		trial_cancel(&all->trial[(trial->index + all->cancel) % all->count]);
	if (all->again > 0)
	{
		all->again--;
		trial_start(trial);
	}
}

static const char *
text_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static const char *const *
header_argument(FunctionCallInfo fcinfo, int n)
{
	Datum	   *texts;
	int			count;
	const char **headers;

	if (PG_ARGISNULL(n))
		return NULL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(n), TEXTOID, -1, false,
					  TYPALIGN_INT, &texts, NULL, &count);
	headers = palloc0((count + 1) * sizeof(char *));
	for (int i = 0; i < count; i++)
		headers[i] = TextDatumGetCString(texts[i]);
	return headers;
}

static Trials *
trials_make(int count)
{
	Trials	   *all = palloc0(sizeof(Trials));

	if (count < 0 || count > MAX_TRIALS)
		elog(ERROR, "too many");
	all->count = count;
	all->raise = -1;
	all->trial = palloc0(Max(count, 1) * sizeof(Trial));
	for (int i = 0; i < count; i++)
	{
		all->trial[i].all = all;
		all->trial[i].index = i;
	}
	all->request.method = "POST";
	all->request.max_answer = 1024 * 1024;
	all->request.connect_timeout_ms = 10000;
	all->started_us = clock_us();
	return all;
}

static void
trials_cancel(Trials *all)
{
	for (int i = 0; i < all->count; i++)
		trial_cancel(&all->trial[i]);
}

static void
trials_start(Trials *all)
{
	for (int i = 0; i < all->count; i++)
		trial_start(&all->trial[i]);
}

/* What an owner does: whatever is raised, nothing stays in the air. */
#define TRIALS_BEGIN(all) PG_TRY()
#define TRIALS_END(all) \
	PG_FINALLY(); \
	{ \
		trials_cancel(all); \
	} \
	PG_END_TRY()

/*
 * chaincall_test_http(url, body, method, headers, times, max_answer,
 * connect_timeout, ca_file, proxy): a row for each of so many exchanges, all
 * started at once, in the order in which they ended.
 */
Datum
chaincall_test_http(PG_FUNCTION_ARGS)
{
	Trials	   *all = trials_make(PG_GETARG_INT32(4));

	InitMaterializedSRF(fcinfo, 0);
	all->rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	all->request.url = text_argument(fcinfo, 0);
	all->request.body = text_argument(fcinfo, 1);
	all->request.body_len = all->request.body ? strlen(all->request.body) : 0;
	all->request.method = text_argument(fcinfo, 2);
	all->request.headers = header_argument(fcinfo, 3);
	all->request.max_answer = PG_GETARG_INT32(5);
	all->request.connect_timeout_ms = PG_GETARG_INT32(6);
	all->request.ca_file = text_argument(fcinfo, 7);
	all->request.proxy = text_argument(fcinfo, 8);

	TRIALS_BEGIN(all);
	{
		trials_start(all);
		while (all->left > 0)
			http_turn(CLOCK_NEVER);
	}
	TRIALS_END(all);
	return (Datum) 0;
}

/*
 * chaincall_test_http_cancel(url, body, times, after_ms, in_callback): so
 * many are started, after so long half of those left are cancelled from
 * outside; the callback of the first answer cancels so many more.  Returns
 * how many were answered.
 */
Datum
chaincall_test_http_cancel(PG_FUNCTION_ARGS)
{
	Trials	   *all = trials_make(PG_GETARG_INT32(2));
	int64		until_us = clock_us() + PG_GETARG_INT32(3) * INT64CONST(1000);
	volatile int answered = 0;

	all->request.url = text_argument(fcinfo, 0);
	all->request.body = text_argument(fcinfo, 1);
	all->request.body_len = strlen(all->request.body);
	all->cancel = PG_GETARG_INT32(4);
	TRIALS_BEGIN(all);
	{
		trials_start(all);
		while (clock_us() < until_us)
			answered += http_turn(until_us);
		for (int i = 0; i < all->count; i += 2)
			trial_cancel(&all->trial[i]);
		while (all->left > 0)
			answered += http_turn(CLOCK_NEVER);
	}
	TRIALS_END(all);
	PG_RETURN_INT32(answered);
}

/*
 * chaincall_test_http_settle(url, body, times, settle_ms, busy_ms,
 * connect_timeout, ca_file, bytes): starts, settles, is busy without turning
 * the loop, then turns it.  The body is repeated up to so many bytes.
 */
Datum
chaincall_test_http_settle(PG_FUNCTION_ARGS)
{
	Trials	   *all = trials_make(PG_GETARG_INT32(2));
	TupleDesc	desc;
	Datum		values[5];
	bool		nulls[5] = {0};
	const char *body = text_argument(fcinfo, 1);
	int			bytes = PG_GETARG_INT32(7);
	char	   *padded = palloc(strlen(body) + bytes + 1);
	volatile bool settled = false;
	volatile int delivered = 0;
	volatile int64 settled_us = 0;
	int64		busy_us;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "no row type");
	strcpy(padded, body);
	memset(padded + strlen(body), ' ', bytes);
	all->request.url = text_argument(fcinfo, 0);
	all->request.body = padded;
	all->request.body_len = strlen(body) + bytes;
	all->request.connect_timeout_ms = PG_GETARG_INT32(5);
	all->request.ca_file = text_argument(fcinfo, 6);

	TRIALS_BEGIN(all);
	{
		trials_start(all);
		settled = http_settle(clock_us() + PG_GETARG_INT32(3) * INT64CONST(1000));
		settled_us = clock_us();
		delivered = all->count - all->left;
		busy_us = clock_us() + PG_GETARG_INT32(4) * INT64CONST(1000);
		while (clock_us() < busy_us)
			pg_usleep(1000);
		while (all->left > 0)
			http_turn(CLOCK_NEVER);
	}
	TRIALS_END(all);

	values[0] = BoolGetDatum(settled);
	values[1] = Float8GetDatum((settled_us - all->started_us) / 1000.0);
	values[2] = Int32GetDatum(delivered);
	values[3] = Int32GetDatum(all->bad);
	values[4] = Float8GetDatum((clock_us() - all->started_us) / 1000.0);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/* One turn of the loop; did a callback raise? */
static bool
turn_raises(void)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool raised = false;

	PG_TRY();
	{
		http_turn(CLOCK_NEVER);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();
		raised = true;
	}
	PG_END_TRY();
	return raised;
}

/*
 * chaincall_test_http_raise(url, body, times, which): the callback of one
 * raises.  Returns how many callbacks were called in all.
 */
Datum
chaincall_test_http_raise(PG_FUNCTION_ARGS)
{
	Trials	   *all = trials_make(PG_GETARG_INT32(2));
	volatile int raised = 0;

	all->request.url = text_argument(fcinfo, 0);
	all->request.body = text_argument(fcinfo, 1);
	all->request.body_len = strlen(all->request.body);
	all->raise = PG_GETARG_INT32(3) - 1;
	TRIALS_BEGIN(all);
	{
		trials_start(all);
		while (all->left > 0)
			raised += turn_raises();
	}
	TRIALS_END(all);
	PG_RETURN_INT32(all->count * 10 + raised);
}

static int64
status_kb(const char *name)
{
	FILE	   *file = fopen("/proc/self/status", "r");
	char		line[200];
	int64		kb = -1;

	if (file == NULL)
		return -1;
	while (fgets(line, sizeof(line), file) != NULL)
	{
		if (strncmp(line, name, strlen(name)) == 0)
			kb = atol(line + strlen(name) + 1);
	}
	fclose(file);
	return kb;
}

static int
entries(const char *path)
{
	DIR		   *dir = opendir(path);
	int			count = -3;		/* ., .. and the folder itself, open */

	if (dir == NULL)
		return -1;
	while (readdir(dir) != NULL)
		count++;
	closedir(dir);
	return count;
}

static double
cpu_us(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
		usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

/*
 * chaincall_test_http_bench(url, body, times, in_flight): so many exchanges,
 * so many at once.
 */
Datum
chaincall_test_http_bench(PG_FUNCTION_ARGS)
{
	static const char *const headers[] = {"Content-Type: application/json", NULL};
	int			times = PG_GETARG_INT32(2);
	Trials	   *all = trials_make(Min(times, PG_GETARG_INT32(3)));
	TupleDesc	desc;
	Datum		values[6];
	bool		nulls[6] = {0};
	double		cpu = cpu_us();
	double		seconds;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "no row type");
	all->request.url = text_argument(fcinfo, 0);
	all->request.body = text_argument(fcinfo, 1);
	all->request.body_len = strlen(all->request.body);
	all->request.headers = headers;
	all->again = times - all->count;

	TRIALS_BEGIN(all);
	{
		trials_start(all);
		while (all->left > 0)
			http_turn(CLOCK_NEVER);
	}
	TRIALS_END(all);

	seconds = (clock_us() - all->started_us) / 1e6;
	values[0] = Float8GetDatum(seconds);
	values[1] = Float8GetDatum(times / seconds);
	values[2] = Float8GetDatum((cpu_us() - cpu) / times);
	values[3] = Int32GetDatum(all->bad);
	values[4] = Int64GetDatum(status_kb("VmHWM:"));
	values[5] = Int64GetDatum(status_kb("VmRSS:"));
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/*
 * chaincall_test_http_state(): what is there now: exchanges, lanes, sockets of
 * ours, threads, open files, capacity.
 */
Datum
chaincall_test_http_state(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[6];
	bool		nulls[6] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "no row type");
	values[0] = Int32GetDatum(http_in_flight());
	values[1] = Int32GetDatum(http_loop.nlanes);
	values[2] = Int32GetDatum(http_loop.nopen);
	values[3] = Int32GetDatum(entries("/proc/self/task") + 1);
	values[4] = Int32GetDatum(entries("/proc/self/fd"));
	values[5] = Int32GetDatum(http_capacity());
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/* chaincall_test_network_refused(address, allowed) */
Datum
chaincall_test_network_refused(PG_FUNCTION_ARGS)
{
	struct sockaddr_storage address;

	if (!network_literal(text_argument(fcinfo, 0), &address))
		PG_RETURN_NULL();
	PG_RETURN_BOOL(network_refused((struct sockaddr *) &address,
								   text_argument(fcinfo, 1)));
}

/* chaincall_test_network_list(list) */
Datum
chaincall_test_network_list(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(network_list_valid(text_argument(fcinfo, 0)));
}
