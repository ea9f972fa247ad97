/*
 * jobspan.c
 *	  The spans of a job's steps, as rows to be written.
 *
 * Of a model call's attempts trace.c tells; what a caller does itself (waits,
 * helpers) it makes rows of its own for.  Executors write theirs themselves.
 */
#include "postgres.h"

#include "base/ids.h"
#include "base/json.h"
#include "base/shared.h"
#include "utils/timestamp.h"
#include "worker/caller.h"

static char *
copy_text(const char *text)
{
	return text ? pstrdup(text) : NULL;
}

/* The span as a row, in the current memory context. */
static SpanRow *
span_row(const Trace *trace, const Span *span, Oid owner)
{
	SpanRow    *row = palloc0(sizeof(SpanRow));

	row->job = trace->id;
	row->owner = owner;
	row->path = pstrdup(span->path);
	row->id = span->id;
	row->kind = span->kind;
	row->model = copy_text(span->model);
	row->version = copy_text(span->version);
	row->server = copy_text(span->server);
	row->started_at = trace_time(trace, span->started_us);
	row->sent_at = trace_time(trace, span->sent_us);
	row->first_byte_at = trace_time(trace, span->first_byte_us);
	row->ended_at = trace_time(trace, span->ended_us);
	row->tokens_in = span->tokens_in;
	row->tokens_out = span->tokens_out;
	row->http_status = span->http_status;
	row->attempt = span->attempt;
	row->reask = span->reask;
	row->cls = span->cls;
	row->message = copy_text(span->message);
	return row;
}

/* A row that stays until it is committed. */
static SpanRow *
keep_row(const SpanRow *row)
{
	SpanRow    *kept = palloc(sizeof(SpanRow));

	*kept = *row;
	kept->path = pstrdup(row->path);
	kept->model = copy_text(row->model);
	kept->version = copy_text(row->version);
	kept->server = copy_text(row->server);
	kept->message = copy_text(row->message);
	kept->output = json_copy(CurrentMemoryContext, row->output);
	return kept;
}

/*
 * TraceSink: an attempt of a model call is over.  A failure is written; a
 * success waits for its output, which the call has not delivered yet.
 */
void
jobspan_sink(Trace *trace, Span *span)
{
	JobTask    *jt = span->owner;
	MemoryContext old;

	if (jt != NULL && span->cls == CLASS_NONE)
	{
		old = MemoryContextSwitchTo(jt->task->cxt);
		jt->success = span_row(trace, span, trace->role);
		MemoryContextSwitchTo(old);
	}
	else if (jt != NULL)
	{
		SpanRow    *row;

		old = MemoryContextSwitchTo(save_context());
		row = span_row(trace, span, trace->role);
		row->try = jt->stored + ++jt->failures;
		MemoryContextSwitchTo(old);
		save_span(jt->job, row);
		pg_atomic_fetch_add_u64(&my_worker->errors, 1);
	}
	trace_free_span(trace, span);
}

/* Writes a row of a step; with output its checkpoint. */
void
jobspan_save(JobTask *jt, SpanRow *row, Jsonb *output)
{
	MemoryContext old = MemoryContextSwitchTo(save_context());

	row->output = output;
	save_span(jt->job, keep_row(row));
	MemoryContextSwitchTo(old);
}

/* The row of a step that this process has seen to itself, begun now. */
SpanRow
jobspan_own(const JobTask *jt, const char *kind)
{
	SpanRow		row = {0};

	row.job = jt->job->id;
	row.owner = jt->job->owner->owner;
	row.path = unconstify(char *, jt->task->path);
	row.id = ids_span();
	row.kind = kind;
	row.started_at = row.ended_at = GetCurrentTimestamp();
	row.tokens_in = row.tokens_out = -1;
	row.attempt = jt->task->attempt;
	return row;
}

/* Writes the failure of such a step. */
void
jobspan_fail(JobTask *jt, SpanRow *row, const StepError *error)
{
	row->cls = error->cls;
	row->message = error->message;
	row->try = jt->stored + ++jt->failures;
	jobspan_save(jt, row, NULL);
}
