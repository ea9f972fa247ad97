/*
 * trace.c
 *	  Traces with fixed times, for their picture to be compared.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/settings.h"
#include "fmgr.h"
#include "trace/trace.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(chaincall_test_waterfall);
PG_FUNCTION_INFO_V1(chaincall_test_trace_nesting);
PG_FUNCTION_INFO_V1(chaincall_test_trace_forget);
PG_FUNCTION_INFO_V1(chaincall_test_trace_last);

#define BEGIN_US INT64CONST(5000000)

static pg_uuid_t run_id = {{0x01, 0x90, 0xa1, 0xb2, 0xc3, 0xd4, 0x70, 0x01,
0x80, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08}};

/* Times in µs from the begin of the run; first 0: no answer came. */
static Span *
add_span(Trace *trace, const char *path, int attempt, int64 start,
		 int64 first, int64 end, ErrorClass cls, const char *message)
{
	Span	   *span = trace_span(trace, path, "model", attempt);

	trace_name(trace, span, "writer", "1", "stub");
	trace_end_span(trace, span, cls, message);
	if (span == NULL)
		return NULL;
	span->started_us = BEGIN_US + start;
	span->first_byte_us = first != 0 ? BEGIN_US + first : 0;
	span->ended_us = BEGIN_US + end;
	if (cls == CLASS_NONE)
	{
		span->tokens_in = 12;
		span->tokens_out = 34;
	}
	return span;
}

static void
fill_steps(Trace *trace)
{
	Span	   *span;

	span = add_span(trace, "rules", 1, 0, 0, 100000, CLASS_NONE, NULL);
	span->kind = "sql";
	span->model = span->version = span->server = NULL;
	span->tokens_in = span->tokens_out = -1;

	/* as begun: the third is the earlier one */
	add_span(trace, "draft", 1, 100000, 300000, 350000, CLASS_THROTTLED,
			 "model \"writer\" at server \"stub\" answered 429:\nslow\tdown");
	add_span(trace, "draft", 2, 400000, 600000, 800000, CLASS_NONE, NULL);
	add_span(trace, "review", 1, 120000, 0, 700000, CLASS_TRANSIENT,
			 "connection refused");
	span = add_span(trace, "draft", 3, 800000, 850000, 900000, CLASS_NONE,
					NULL);
	span->reask = true;
	span->tokens_in = -1;

	/* at the very end, and too short for a character */
	add_span(trace, "merged[2]/text[17]", 1, 999998, 999999, 1000000,
			 CLASS_NONE, NULL);
	add_span(trace,
			 "a_quite_long_name_of_a_step[3]/and_a_block_inside[12]/the_end",
			 1, 900000, 950000, 1000000, CLASS_NONE, NULL);
}

static void
fill_items(Trace *trace, int count)
{
	char		path[64];

	for (int i = 0; i < count; i++)
	{
		int64		start = i * 1000;

		snprintf(path, sizeof(path), "summary[%d]", i);
		add_span(trace, path, 1, start, start + 500, start + 1000 * (i + 1),
				 i == 50 ? CLASS_PERMANENT : CLASS_NONE, NULL);
		if (i == 40)
			add_span(trace, "other", 1, start, start + 1, start + 1000,
					 CLASS_NONE, NULL);
	}
}

static void
fill_open(Trace *trace)
{
	Span	   *span = trace_span(trace, "never_answered", "model", 1);

	trace_name(trace, span, "writer", "1", "stub");
	span->started_us = BEGIN_US + 250000;
}

/*
 * The picture of the trace called `scene`: steps, items (100 of them), alike
 * (20), few (items with chaincall.max_spans in force), open, empty.
 */
Datum
chaincall_test_waterfall(PG_FUNCTION_ARGS)
{
	char	   *scene = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Trace	   *trace = trace_begin("contract_report", &run_id);
	char	   *picture;

	trace->started_us = BEGIN_US;
	if (strcmp(scene, "steps") == 0)
		fill_steps(trace);
	else if (strcmp(scene, "items") == 0)
		fill_items(trace, 100);
	else if (strcmp(scene, "alike") == 0)
		fill_items(trace, 20);
	else if (strcmp(scene, "open") == 0)
		fill_open(trace);
	else if (strcmp(scene, "empty") != 0)
		elog(ERROR, "no scene \"%s\"", scene);
	trace_end(trace, strcmp(scene, "empty") == 0 ? CLASS_INPUT : CLASS_NONE);
	if (strcmp(scene, "open") == 0)
		trace_spans(trace)[0]->ended_us = BEGIN_US + 500000;
	trace->ended_us = BEGIN_US + 1000000;
	picture = trace_waterfall(trace, PG_GETARG_INT32(1));
	PG_RETURN_TEXT_P(cstring_to_text(picture));
}

/*
 * Runs within runs: the last trace is the outermost one, whether the inner
 * ones were ended or forgotten.
 */
Datum
chaincall_test_trace_nesting(PG_FUNCTION_ARGS)
{
	Trace	   *outer = trace_begin("outer", &run_id);
	Span	   *span = trace_span(outer, "a", "sql", 1);
	Trace	   *inner = trace_begin("inner", &run_id);
	Trace	   *second;
	const Trace *before = trace_last();

	trace_end(inner, CLASS_NONE);
	if (trace_last() != before)
		elog(ERROR, "an inner run became the last one");
	second = trace_begin("second", &run_id);
	(void) trace_begin("forgotten", &run_id);
	trace_span(second, "b", "model", 1);
	trace_end(outer, CLASS_SQL);
	trace_end(outer, CLASS_NONE);	/* changes nothing */
	if (trace_last() != outer || outer->cls != CLASS_SQL)
		elog(ERROR, "the outermost run is not the last one");
	if (span->cls != CLASS_CANCELLED || span->ended_us == 0)
		elog(ERROR, "an open span was not ended");
	PG_RETURN_TEXT_P(cstring_to_text(trace_last()->chain));
}

/* Begins a run and, as if nobody caught it, raises. */
Datum
chaincall_test_trace_forget(PG_FUNCTION_ARGS)
{
	Trace	   *trace = trace_begin("forgotten", &run_id);

	trace_span(trace, "a", "sql", 1);
	elog(ERROR, "forgotten");
}

/* Chain, class and spans of the last run. */
Datum
chaincall_test_trace_last(PG_FUNCTION_ARGS)
{
	const Trace *trace = trace_last();

	if (trace == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%s %s %d+%d", trace->chain,
											  error_class_name(trace->cls),
											  (int) trace->nspans,
											  (int) trace->dropped)));
}
