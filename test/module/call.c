/*
 * call.c
 *	  Model calls without a chain around them, at a real server.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/ids.h"
#include "base/json.h"
#include "call/call.h"
#include "chain/shape.h"
#include "fmgr.h"
#include "http/http.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

PG_FUNCTION_INFO_V1(chaincall_test_call);
PG_FUNCTION_INFO_V1(chaincall_test_call_leave);
PG_FUNCTION_INFO_V1(chaincall_test_call_nested);
PG_FUNCTION_INFO_V1(chaincall_test_call_late);
PG_FUNCTION_INFO_V1(chaincall_test_call_render);
PG_FUNCTION_INFO_V1(chaincall_test_call_speed);

/* What is asked for, and what has come so far. */
typedef struct CallTest
{
	CallGroup  *group;
	CallRun		run;
	CallSpec	spec;
	RetryPolicy retry;
	int			left;			/* callbacks to come */
	int			more;			/* calls that callbacks start */
	int			failed;
	List	   *results;		/* of Jsonb */
} CallTest;

static int
option_int(const Jsonb *options, const char *key, int otherwise)
{
	JsonbValue	v;

	if (!json_get(options, key, &v) || v.type != jbvNumeric)
		return otherwise;
	return DatumGetInt32(DirectFunctionCall1(numeric_int4,
											 NumericGetDatum(v.val.numeric)));
}

static char *
option_text(const Jsonb *options, const char *key)
{
	Jsonb	   *value = json_field(options, key);

	return value ? json_string_dup(value) : NULL;
}

static Shape *
option_shape(const Jsonb *options)
{
	Jsonb	   *schema = json_field(options, "schema");
	StringInfoData text;

	if (schema == NULL)
		return NULL;
	initStringInfo(&text);
	json_append(&text, schema);
	return shape_from_schema(yaml_parse(text.data));
}

static Jsonb *
one_message(const char *prompt)
{
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	json_push_key(&state, "role");
	json_push(&state, WJB_VALUE, json_text("user"));
	json_push_key(&state, "content");
	json_push(&state, WJB_VALUE, json_text(prompt));
	(void) pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

/*
 * From model, prompt or input or request, params, extra, schema, reask,
 * attempts, first (ms), timeout (ms).
 */
static void
read_spec(CallTest *test, const Jsonb *options)
{
	RetryPolicy retry = RETRY_DEFAULT;
	Shape	   *shape;
	CallSpec   *spec = &test->spec;
	int			timeout = option_int(options, "timeout", 0);

	spec->model = option_text(options, "model");
	spec->path = "step[0]";
	spec->system = option_text(options, "system");
	spec->params = json_field(options, "params");
	spec->extra = json_field(options, "extra");
	if ((spec->body = json_field(options, "input")) != NULL)
		spec->form = CALL_INPUT;
	else if ((spec->body = json_field(options, "request")) != NULL)
		spec->form = CALL_REQUEST;
	else
		spec->messages = one_message(option_text(options, "prompt"));
	shape = option_shape(options);
	spec->shape = shape ? &shape->answer : NULL;
	spec->reask = option_int(options, "reask", 1);
	retry.attempts = option_int(options, "attempts", retry.attempts);
	retry.first_ms = option_int(options, "first", 10);
	test->retry = retry;
	if (option_int(options, "attempts", 0) >= 0)
		spec->retry = &test->retry;
	spec->deadline_us = timeout > 0 ? clock_us() + (int64) timeout * 1000 :
		CLOCK_NEVER;
}

static void
count_result(void *arg, Jsonb *output, StepError *error)
{
	CallTest   *test = arg;

	test->left--;
	test->failed += error != NULL;
	if (test->more > 0)
	{
		test->more--;
		test->left++;
		call_start(test->group, &test->spec, count_result, test);
	}
}

static void
keep_result(void *arg, Jsonb *output, StepError *error)
{
	CallTest   *test = arg;
	JsonbParseState *state = NULL;

	test->left--;
	if ((output == NULL) == (error == NULL))
		elog(ERROR, "a call is neither answered nor failed");
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	json_push_key(&state, output ? "output" : "error");
	json_push(&state, WJB_VALUE, output ? output : step_error_json(error));
	test->results = lappend(test->results,
							JsonbValueToJsonb(pushJsonbValue(&state,
															 WJB_END_OBJECT,
															 NULL)));
}

static Jsonb *
spans_json(const Trace *trace)
{
	Span	  **spans = trace_spans(trace);
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int64 i = 0; i < trace->nspans; i++)
	{
		const Span *span = spans[i];
		bool		in_order = span->started_us <= span->ended_us &&
			(span->sent_us == 0 || (span->started_us <= span->sent_us &&
									span->sent_us <= span->ended_us)) &&
			(span->first_byte_us == 0 ||
			 (span->sent_us <= span->first_byte_us &&
			  span->first_byte_us <= span->ended_us));

		json_push(&state, WJB_ELEM,
				  json_text(psprintf("#%d %s %d at %s%s%s", span->attempt,
									 error_class_name(span->cls),
									 span->http_status, span->server,
									 span->reask ? ", asked again" : "",
									 in_order ? "" : ", times out of order")));
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

/* The largest number of spans that overlap. */
static int
most_at_once(const Trace *trace)
{
	Span	  **spans = trace_spans(trace);
	int			most = 0;

	for (int64 i = 0; i < trace->nspans; i++)
	{
		int			now = 0;

		for (int64 k = 0; k < trace->nspans; k++)
			now += spans[k]->started_us <= spans[i]->started_us &&
				spans[i]->started_us < spans[k]->ended_us;
		most = Max(most, now);
	}
	return most;
}

static CallTest *
begin_test(const Jsonb *options, Trace **trace)
{
	CallTest   *test = palloc0(sizeof(CallTest));
	pg_uuid_t	run;

	ids_uuid7(&run);
	*trace = trace_begin("test", &run);
	call_run_init(&test->run, GetUserId(), &run, *trace);
	test->group = call_group_create(NULL);
	read_spec(test, options);
	test->spec.run = &test->run;
	return test;
}

static void
start_calls(CallTest *test, int n)
{
	for (int i = 0; i < n; i++)
	{
		test->left++;
		call_start(test->group, &test->spec, keep_result, test);
	}
}

/* Waits for all calls and ends the run; what came of them and their spans. */
static Jsonb *
finish_test(CallTest *test, Trace *trace)
{
	JsonbParseState *state = NULL;
	ListCell   *lc;

	while (test->left > 0)
		call_turn(test->group, CLOCK_NEVER);
	call_group_destroy(test->group);
	trace_end(trace, CLASS_NONE);

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	json_push_key(&state, "results");
	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	foreach(lc, test->results)
		json_push(&state, WJB_ELEM, lfirst(lc));
	(void) pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	json_push_key(&state, "spans");
	json_push(&state, WJB_VALUE, spans_json(trace));
	json_push_key(&state, "at_once");
	json_push(&state, WJB_VALUE, json_int(most_at_once(trace)));
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* Makes n calls; what came of them, their spans, how many at once. */
Datum
chaincall_test_call(PG_FUNCTION_ARGS)
{
	Jsonb	   *options = PG_GETARG_JSONB_P(0);
	Trace	   *trace;
	CallTest   *test = begin_test(options, &trace);

	start_calls(test, option_int(options, "n", 1));
	PG_RETURN_JSONB_P(finish_test(test, trace));
}

/*
 * A run within a run: the first's calls are in the air while the second's are
 * made.  No callback of the first may run before its own turn.
 */
Datum
chaincall_test_call_nested(PG_FUNCTION_ARGS)
{
	Jsonb	   *outer_options = PG_GETARG_JSONB_P(0);
	Jsonb	   *inner_options = PG_GETARG_JSONB_P(1);
	Trace	   *outer_trace;
	Trace	   *inner_trace;
	CallTest   *outer = begin_test(outer_options, &outer_trace);
	CallTest   *inner;
	Jsonb	   *both[2];

	start_calls(outer, option_int(outer_options, "n", 1));
	inner = begin_test(inner_options, &inner_trace);
	start_calls(inner, option_int(inner_options, "n", 1));
	both[0] = finish_test(inner, inner_trace);
	if (outer->results != NIL)
		elog(ERROR, "the outer run's callbacks ran in the inner one's turn");
	both[1] = finish_test(outer, outer_trace);
	PG_RETURN_JSONB_P(json_array(both, 2));
}

/*
 * One call, sent, and not looked at until `busy` ms have passed, as when a
 * query runs meanwhile.
 */
Datum
chaincall_test_call_late(PG_FUNCTION_ARGS)
{
	Jsonb	   *options = PG_GETARG_JSONB_P(0);
	Trace	   *trace;
	CallTest   *test = begin_test(options, &trace);
	int64		busy_until;

	start_calls(test, 1);
	busy_until = clock_us() + option_int(options, "busy", 0) * 1000;
	call_settle(test->group, busy_until);
	while (clock_us() < busy_until)
		CHECK_FOR_INTERRUPTS();
	PG_RETURN_JSONB_P(finish_test(test, trace));
}

/*
 * Starts n calls, cancels the first, turns for `turn` ms, and leaves the
 * others as `how` says: destroy, forget (the group's memory goes) or error.
 * The spans that are left behind.
 */
Datum
chaincall_test_call_leave(PG_FUNCTION_ARGS)
{
	Jsonb	   *options = PG_GETARG_JSONB_P(0);
	char	   *how = text_to_cstring(PG_GETARG_TEXT_PP(1));
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "test",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Trace	   *trace;
	CallTest   *test = begin_test(options, &trace);
	Call	   *first;

	first = call_start(test->group, &test->spec, keep_result, test);
	for (int i = option_int(options, "n", 1); i > 1; i--)
		call_start(test->group, &test->spec, keep_result, test);
	call_send_waiting(test->group);
	call_cancel(first);
	call_turn(test->group,
			  clock_us() + option_int(options, "turn", 1) * 1000);
	MemoryContextSwitchTo(old);

	if (strcmp(how, "error") == 0)
		elog(ERROR, "left");
	if (strcmp(how, "destroy") == 0)
		call_group_destroy(test->group);
	MemoryContextDelete(context);
	if (http_in_flight() != 0)
		elog(ERROR, "%d exchanges are still in the air", http_in_flight());
	trace_end(trace, CLASS_NONE);
	PG_RETURN_JSONB_P(spans_json(trace));
}

/* The request that would be sent. */
Datum
chaincall_test_call_render(PG_FUNCTION_ARGS)
{
	CallTest	test = {0};

	read_spec(&test, PG_GETARG_JSONB_P(0));
	PG_RETURN_JSONB_P(call_render(GetUserId(), &test.spec));
}

/*
 * Makes n calls, `in_flight` at once: µs each, bytes of memory for each while
 * they are in the air.  For a person; no test looks at the numbers.
 */
Datum
chaincall_test_call_speed(PG_FUNCTION_ARGS)
{
	Jsonb	   *options = PG_GETARG_JSONB_P(0);
	int			n = option_int(options, "n", 1);
	int			in_flight = Min(option_int(options, "in_flight", 64), n);
	Trace	   *trace;
	CallTest   *test = begin_test(options, &trace);
	int64		begin_us = clock_us();
	Size		before = MemoryContextMemAllocated(CurrentMemoryContext, true);
	Size		after;

	test->left = in_flight;
	test->more = n - in_flight;
	for (int i = 0; i < in_flight; i++)
		call_start(test->group, &test->spec, count_result, test);
	after = MemoryContextMemAllocated(CurrentMemoryContext, true);
	while (test->left > 0)
		call_turn(test->group, CLOCK_NEVER);
	call_group_destroy(test->group);
	trace_end(trace, CLASS_NONE);
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%.2f us, %zu bytes, %d failed",
											  (double) (clock_us() - begin_us) / n,
											  (after - before) / in_flight,
											  test->failed)));
}
