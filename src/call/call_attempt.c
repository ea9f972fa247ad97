/*
 * call_attempt.c
 *	  One attempt of a call: send, take the answer and say what it is.
 *
 * The answer is taken in http_turn(), which serves every exchange of the
 * process: also those of a run that waits while one of its steps runs another
 * chain.  So what happens here stays within the call: the answer is decoded
 * and classified, the slot is free again, and the call is put on its group's
 * list of answered ones.  What follows from the answer is decided when its
 * own group is turned.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/settings.h"
#include "base/touch.h"
#include "call/call_internal.h"
#include "policy/reset.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define RESERVE 10				/* a tenth */
#define REQUEST_ID_KEPT 100		/* bytes of the service's own request id */

/* For so long nobody else is let pass while a probe is in the air. */
#define PROBE_MS 30000

static int	in_flight = 0;		/* of this process */
static uint64 answers = 0;		/* that it has had so far */

/* Calls that this process has in the air. */
int
attempt_in_flight(void)
{
	return in_flight;
}

/* Attempts of this process that have ended by themselves, well or not. */
uint64
attempt_answers(void)
{
	return answers;
}

/*
 * How many calls a process of many runs may have in the air: a tenth more than
 * chaincall.max_in_flight, for servers that have few.  One that hangs can take
 * all the rest, and must stall its own calls only.
 */
int
attempt_most_in_flight(void)
{
	return setting_max_in_flight + setting_max_in_flight / RESERVE;
}

/*
 * May the call be sent now?  With nothing in the air it may always be: then
 * waiting would have no end, and if it cannot be sent the attempt says why.
 */
bool
attempt_slot_free(const Call *call)
{
	int			bound = call->route->server.max_in_flight;

	if (bound > 0 && call->queue->slots->in_flight >= bound)
		return false;
	if (in_flight == 0)
		return true;
	if (http_capacity() <= 0)
		return false;
	if (in_flight < setting_max_in_flight)
		return true;
	return call->group->guards.check != NULL &&
		in_flight < attempt_most_in_flight() &&
		call->queue->slots->in_flight < setting_max_in_flight / RESERVE;
}

static uint64
route_names(const Route *route)
{
	return stats_id(route->model, route->version, route->server.name);
}

/*
 * The call's next attempt is about to begin; false: it must not, because its
 * endpoint's circuit is open by now, or its key is cooling down there.
 */
bool
attempt_enter(Call *call)
{
	const Route *route = call->route;
	int			ms = route->server.attempt_timeout_ms > 0 ?
		route->server.attempt_timeout_ms : PROBE_MS;

	call->is_weighed = health_enter(route->endpoint_id, route->mapping,
									route_names(route),
									(int64) Min(ms, PROBE_MS) * 1000,
									&call->epoch);
	return call->is_weighed;
}

/* Tells how the attempt has fared, once. */
static void
weigh(Call *call, BreakerOutcome outcome)
{
	if (!call->is_weighed)
		return;
	call->is_weighed = false;
	health_end(call->route->endpoint_id, call->epoch, outcome,
			   outcome == BREAKER_FAILED ? failure_seen(call) : "");
}

/*
 * Nobody uses the call's key at its endpoint until then, or, when it was
 * refused, nobody who has another way.
 */
void
attempt_cool(Call *call, int64 until_us, bool refused)
{
	const Route *route = call->route;

	health_cool(route->endpoint_id, route->mapping, route_names(route),
				until_us, refused);
}

static void
free_slot(Call *call)
{
	Assert(in_flight > 0 && call->queue->slots->in_flight > 0);
	in_flight--;
	call->queue->slots->in_flight--;
	call->exchange = NULL;
	if (call->body != NULL)
		pfree(call->body);
	call->body = NULL;
}

static void
begin_span(Call *call)
{
	Trace	   *trace = call->run->trace;

	call->span = trace_span(trace, call->path, "model", call->attempts);
	trace_name(trace, call->span, call->model, call->route->version,
			   call->route->server.name);
	if (call->span != NULL)
	{
		call->span->reask = call->reasked > 0;
		call->span->owner = call->arg;
	}
}

/* A rest that counts as an attempt: nothing was sent, but the trace has it. */
void
attempt_note_rest(Call *call, const char *message)
{
	call->attempts++;
	begin_span(call);
	trace_end_span(call->run->trace, call->span, CLASS_TRANSIENT, message);
	call->span = NULL;
}

/* What the call knows of its last attempt, before the next. */
static void
forget_attempt(Call *call)
{
	call->unfit = false;
	call->cut_off = false;
	call->within = NULL;
	call->fault = HTTP_OK;
	call->status = 0;
	call->cls = CLASS_NONE;
	call->words = NULL;
	call->request_id = NULL;
	call->retry_after_ms = 0;
	call->answer = NULL;
	call->first_byte_us = -1;
	call->tokens_in = -1;
	call->tokens_out = -1;
}

static int64
unix_ms(void)
{
	return (GetCurrentTimestamp() +
			(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY) / 1000;
}

static void
check_work(void *arg)
{
	Call	   *call = arg;
	Jsonb	   *fitting;
	char	   *why = NULL;

	/* only answers in words were asked for in the wrapped form */
	fitting = call->shape->check(call->shape, call->answer,
								 call->request.form == CALL_MESSAGES, &why);
	if (fitting != NULL)
		call->output = fitting;
	else
	{
		call->cls = CLASS_INVALID;
		call->unfit = true;
		call->words = why;
	}
}

/* An answer of status 2xx that the api understood: is it what was asked for? */
static void
check_shape(Call *call)
{
	StepError  *error = NULL;

	if (call->shape == NULL)
	{
		call->output = call->answer;
		return;
	}
	if (call->group->guards.check == NULL)
		check_work(call);
	else
		error = call->group->guards.check(check_work, call);
	if (error != NULL)
	{
		call->output = NULL;
		call->cls = error->cls;
		call->words = error->message;
	}
}

static ErrorClass
fault_class(HttpFault fault)
{
	switch (fault)
	{
		case HTTP_BAD_REQUEST:
		case HTTP_REFUSED_ADDRESS:
			return CLASS_PERMANENT;
		case HTTP_TOO_LARGE:
			return CLASS_LIMIT;
		default:
			return CLASS_TRANSIENT;
	}
}

static void
decode(Call *call, const HttpAnswer *http)
{
	const Api  *api = api_lookup(call->route->server.api);
	MemoryContext scratch = call->group->scratch;
	MemoryContext old = MemoryContextSwitchTo(scratch);
	ApiAnswer	answer = {CLASS_NONE};

	answer.tokens_in = -1;
	answer.tokens_out = -1;
	api->decode(call->route, &call->request, http->status,
				http->content_type, http->body, http->body_len, &answer);
	MemoryContextSwitchTo(old);
	call->cls = answer.cls;
	call->cut_off = answer.cut_off;
	call->answer = json_copy(CurrentMemoryContext, answer.output);
	call->words = failure_words(call->route, answer.message);
	MemoryContextReset(scratch);
	call->tokens_in = answer.tokens_in;
	call->tokens_out = answer.tokens_out;
	if (call->span != NULL)
	{
		call->span->tokens_in = answer.tokens_in;
		call->span->tokens_out = answer.tokens_out;
	}
	if (call->cls == CLASS_NONE)
		check_shape(call);
	/* words that came back, but not as the JSON that was asked for */
	else if (call->cls == CLASS_INVALID && call->shape != NULL &&
			 call->answer != NULL && !call->cut_off)
		call->unfit = true;
	if (call->cls == CLASS_TRANSIENT && http->status == 503 &&
		(http->retry_after != NULL ||
		 http_answer_header(http, "retry-after-ms") != NULL))
		call->cls = CLASS_THROTTLED;
}

/* ResetHeader */
static const char *
answer_header(void *arg, const char *name)
{
	return http_answer_header(arg, name);
}

/* When the service wants to be asked again, as far as it says so. */
static void
read_reset(Call *call, const HttpAnswer *http)
{
	if (call->cls == CLASS_THROTTLED)
		(void) reset_wait_ms(answer_header, unconstify(HttpAnswer *, http),
							 unix_ms(), &call->retry_after_ms);
	else if (http->retry_after != NULL)
		(void) retry_after_ms(http->retry_after, unix_ms(),
							  &call->retry_after_ms);
}

/*
 * A header's value is bytes: keep what every encoding has, NULL for nothing.
 * It is the service's own words too, so not the key, should it hold that.
 */
static char *
request_id(const Route *route, const char *header)
{
	StringInfoData id;

	if (header == NULL || header[0] == '\0')
		return NULL;
	initStringInfo(&id);
	failure_redact(&id, header, route->api_key);
	if (id.len > REQUEST_ID_KEPT)
		id.data[REQUEST_ID_KEPT] = '\0';
	for (char *p = id.data; *p != '\0'; p++)
		if ((unsigned char) *p <= ' ' || (unsigned char) *p >= 0x7f)
			*p = '?';
	return id.data;
}

static void
take_answer(Call *call, const HttpAnswer *http)
{
	call->fault = http->fault;
	call->status = http->status;
	call->request_id = request_id(call->route, http->request_id);
	if (http->fault == HTTP_OK)
		decode(call, http);
	else
	{
		call->cls = fault_class(http->fault);
		call->words = failure_words(call->route, http->message);
	}
	read_reset(call, http);
}

/* Has the service refused the key, or the account behind it? */
bool
attempt_key_refused(const Call *call)
{
	return call->cls == CLASS_PERMANENT &&
		(call->status == 401 || call->status == 402 || call->status == 403);
}

/*
 * What the answer, or the lack of one, says of the endpoint.  A key is refused
 * at the door: whoever has a wrong one does not know how it is inside.
 */
static BreakerOutcome
outcome_of(const Call *call)
{
	switch (call->fault)
	{
		case HTTP_BAD_REQUEST:
		case HTTP_REFUSED_ADDRESS:
		case HTTP_NO_RESOURCE:
			return BREAKER_UNKNOWN; /* it was not asked */
		default:
			if (attempt_key_refused(call))
				return BREAKER_UNKNOWN;
			return call->cls == CLASS_TRANSIENT ? BREAKER_FAILED :
				BREAKER_HEALTHY;
	}
}

/* The attempt is over: its span ends, and it is counted.  Raises nothing. */
static void
end_attempt(Call *call, ErrorClass cls, const char *words,
			BreakerOutcome outcome)
{
	AttemptStats attempt = {
		.cls = cls,
		.us = clock_us() - call->begun_us,
		.first_byte_us = call->first_byte_us,
		.tokens_in = call->tokens_in,
		.tokens_out = call->tokens_out
	};

	weigh(call, outcome);
	air_progress(call->air, 0, call->attempts);
	stats_attempt_end(call->stats, &attempt);
	call->stats = NULL;
	trace_end_span(call->run->trace, call->span, cls, words);
	call->span = NULL;
}

/*
 * Out of memory, or a cancel while a schema's regular expression ran.  The
 * call may belong to another group than the one that is turned, so it is
 * left as one that may be tried again, not as one that waits for ever.
 */
static void
lose_answer(Call *call)
{
	forget_attempt(call);
	call->output = NULL;
	call->cls = CLASS_TRANSIENT;
	call->words = "its answer could not be read";
	end_attempt(call, call->cls, call->words, BREAKER_UNKNOWN);
	call_answered(call);
}

/* HttpDone */
static void
exchange_done(HttpExchange *exchange, const HttpAnswer *http, void *arg)
{
	Call	   *call = arg;
	MemoryContext old = MemoryContextSwitchTo(call->context);

	/* in a step of an executor that one's job is being touched already */
	if (call->group->guards.check != NULL)
		touch_job(&call->run->id);
	free_slot(call);
	call->queue->slots->heard = ++answers;
	if (http->sent_us != 0 && http->first_byte_us != 0)
		call->first_byte_us = http->first_byte_us - http->sent_us;
	if (call->span != NULL)
	{
		call->span->sent_us = http->sent_us;
		call->span->first_byte_us = http->first_byte_us;
		call->span->http_status = http->status;
	}
	PG_TRY();
	{
		take_answer(call, http);
	}
	PG_CATCH();
	{
		lose_answer(call);
		PG_RE_THROW();
	}
	PG_END_TRY();
	end_attempt(call, call->cls, call->words, outcome_of(call));
	call_answered(call);
	if (call->group->guards.check != NULL)
		touch_clear();
	MemoryContextSwitchTo(old);
}

static void
start_exchange(Call *call, const ApiWire *wire)
{
	const ServerInfo *server = &call->route->server;
	HttpRequest http = {0};

	call->body = MemoryContextAllocHuge(call->context, wire->body.len + 1);
	memcpy(call->body, wire->body.data, wire->body.len);
	http.method = "POST";
	http.url = wire->url.data;
	http.headers = wire_headers(call, wire);
	http.body = call->body;
	http.body_len = wire->body.len;
	http.max_answer = server->max_answer != 0 ? server->max_answer :
		(size_t) setting_max_answer_kb * 1024;
	http.connect_timeout_ms = server->connect_timeout_ms;
	http.proxy = server->proxy;
	http.ca_file = server->ca_file;
	call->exchange = http_start(&http, exchange_done, call);
	in_flight++;
	if (call->queue->slots->in_flight++ == 0)
		call->queue->slots->heard = answers;
	call->begun_us = clock_us();
	call->attempt_end_us = server->attempt_timeout_ms > 0 ?
		call->begun_us + (int64) server->attempt_timeout_ms * 1000 :
		CLOCK_NEVER;
	call->stats = stats_attempt_begin(call->model, call->route->version,
									  server->name);
	air_progress(call->air, 1, call->attempts);
}

/*
 * Send the call's next attempt on its route, whose slot the caller has found
 * free.  The call is in flight afterwards, or done with the failure of its
 * encoding.
 */
void
attempt_send(Call *call)
{
	MemoryContext old = MemoryContextSwitchTo(call->group->scratch);
	ApiWire		wire;
	StepError  *error;

	forget_attempt(call);
	error = wire_encode(call, &wire);
	if (error == NULL)
	{
		call->attempts++;
		call->asked++;
		begin_span(call);
		start_exchange(call, &wire);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(call->group->scratch);
	if (error != NULL)
	{
		weigh(call, BREAKER_UNKNOWN);
		call_refused(call, error);
	}
}

/*
 * attempt_send() has raised: what it had begun is undone, and the attempt is
 * one that failed.  Raises nothing.
 */
void
attempt_unsent(Call *call)
{
	if (call->exchange != NULL)
	{
		http_cancel(call->exchange);
		free_slot(call);
	}
	forget_attempt(call);
	call->cls = CLASS_TRANSIENT;
	call->words = "it could not be sent";
	call->begun_us = clock_us();
	end_attempt(call, call->cls, call->words, BREAKER_UNKNOWN);
}

/* Give up the attempt in the air: the exchange is cancelled, the span ended. */
void
attempt_abandon(Call *call, ErrorClass cls, const char *message,
				BreakerOutcome outcome)
{
	http_cancel(call->exchange);
	free_slot(call);
	end_attempt(call, cls, message, outcome);
}

/*
 * Give up the attempt in the air, as one that has failed for the moment: there
 * was no answer within that time.  blame: that is its endpoint's fault.
 */
void
attempt_give_up(Call *call, char *within, bool blame)
{
	forget_attempt(call);
	call->cls = CLASS_TRANSIENT;
	call->within = within;
	attempt_abandon(call, CLASS_TRANSIENT,
					psprintf("no answer within %s", within),
					blame ? BREAKER_FAILED : BREAKER_UNKNOWN);
}
