/*
 * trace.c
 *	  Keeps what a run did: a span for each attempt at each path.
 *
 * A session keeps the trace of its last run, failed or not, so that somebody
 * who wonders about an answer can look without having asked for a trace
 * beforehand.  A trace therefore lives in a context of its own under
 * TopMemoryContext: the error that ends a run must not take its trace along.
 *
 * Runs nest: a sql step may call another chain by SPI, which is a run and has
 * a trace of its own.  The open ones form a stack.  Only the outermost run
 * becomes the last one; a nested trace is no longer readable when its run has
 * ended.  What is no longer needed is freed by the next trace_begin(), not
 * before, because calls being torn down after an error still hold pointers
 * to spans.
 *
 * Spans are allocated in chunks that never move.  Beyond chaincall.max_spans
 * they are only counted: trace_span() then returns NULL, which every function
 * here takes for a span.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/settings.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "trace/trace.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define FIRST_CHUNK 8			/* spans; a run of one call stays small */
#define LARGEST_CHUNK 512
#define MAX_MESSAGE 300			/* bytes kept of a failure's message */

typedef struct SpanChunk
{
	struct SpanChunk *older;
	int			used;
	int			size;
	Span		spans[FLEXIBLE_ARRAY_MEMBER];
} SpanChunk;

/* A run's spans share few models and servers: each name is kept once. */
typedef struct SpanNames
{
	struct SpanNames *next;
	char	   *model;
	char	   *version;
	char	   *server;
} SpanNames;

static Trace *open_trace = NULL;	/* innermost */
static Trace *last_trace = NULL;	/* outermost run that ended last */
static Trace *done_traces = NULL;	/* to be freed, linked by outer */

/*
 * Whoever begins a trace ends it, errors included; this is for the error that
 * finds no handler on its way out, so that the stack is empty again.
 */
static void
end_forgotten(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_ABORT && event != XACT_EVENT_COMMIT)
		return;
	while (open_trace != NULL)
		trace_end(open_trace, CLASS_CANCELLED);
}

static void
free_done(void)
{
	while (done_traces != NULL)
	{
		Trace	   *trace = done_traces;

		done_traces = trace->outer;
		MemoryContextDelete(trace->context);
	}
}

/*
 * Begin the trace of a run of `chain` (its name as people know it) with the
 * id of the run.  It belongs to trace.c and stays until the run after has
 * begun.  End it with trace_end(), also when the run fails.
 */
Trace *
trace_begin(const char *chain, const pg_uuid_t *id)
{
	static bool registered = false;
	MemoryContext context;
	Trace	   *trace;

	if (!registered)
	{
		RegisterXactCallback(end_forgotten, NULL);
		registered = true;
	}
	free_done();
	context = AllocSetContextCreate(TopMemoryContext, "chaincall trace",
									ALLOCSET_DEFAULT_SIZES);
	trace = MemoryContextAllocZero(context, sizeof(Trace));
	trace->context = context;
	trace->id = *id;
	trace->role = GetUserId();
	trace->chain = MemoryContextStrdup(context, chain);
	trace->started_at = GetCurrentTimestamp();
	trace->started_us = clock_us();
	trace->outer = open_trace;
	open_trace = trace;
	return trace;
}

/*
 * A trace that keeps nothing: each span goes to the sink when it has ended.
 * It lives in a context of its own below parent, which the caller deletes; no
 * last_trace() sees it, and trace_end() is not for it.
 */
Trace *
trace_create(MemoryContext parent, const char *chain, const pg_uuid_t *id,
			 Oid role, TraceSink sink)
{
	MemoryContext context = AllocSetContextCreate(parent, "chaincall trace",
												  ALLOCSET_SMALL_SIZES);
	Trace	   *trace = MemoryContextAllocZero(context, sizeof(Trace));

	trace->context = context;
	trace->id = *id;
	trace->role = role;
	trace->chain = MemoryContextStrdup(context, chain);
	trace->started_at = GetCurrentTimestamp();
	trace->started_us = clock_us();
	trace->sink = sink;
	return trace;
}

/* For sinks: frees a span that they were given. */
void
trace_free_span(Trace *trace, Span *span)
{
	if (span->message)
		pfree(span->message);
	pfree(span->path);
	pfree(span);
}

/* The wall clock at a clock_us() of the trace's time; 0 for 0. */
TimestampTz
trace_time(const Trace *trace, int64 us)
{
	return us == 0 ? 0 : trace->started_at + (us - trace->started_us);
}

/*
 * A trace that is no run of this process, to be filled with what is stored of
 * one and to be read.  It is palloc'd, spans too, and is not to be ended; its
 * times are the caller's to set.
 */
Trace *
trace_make(const char *chain, const pg_uuid_t *id)
{
	Trace	   *trace = palloc0(sizeof(Trace));

	trace->context = CurrentMemoryContext;
	trace->id = *id;
	trace->role = GetUserId();
	trace->chain = pstrdup(chain);
	return trace;
}

static SpanChunk *
add_chunk(Trace *trace)
{
	SpanChunk  *chunk = trace->chunks;
	int			size = chunk == NULL ? FIRST_CHUNK :
		Min(chunk->size * 2, LARGEST_CHUNK);

	chunk = MemoryContextAlloc(trace->context,
							   offsetof(SpanChunk, spans) +
							   size * sizeof(Span));
	chunk->older = trace->chunks;
	chunk->used = 0;
	chunk->size = size;
	trace->chunks = chunk;
	return chunk;
}

static void
begin_span(Trace *trace, Span *span, const char *path, const char *kind,
		   int attempt)
{
	memset(span, 0, sizeof(Span));
	span->path = MemoryContextStrdup(trace->context, path);
	span->id = ids_span();
	span->kind = kind;
	span->attempt = attempt;
	span->started_us = clock_us();
	span->tokens_in = -1;
	span->tokens_out = -1;
}

/*
 * A span for attempt number `attempt` (from 1) at `path`, started now; kind
 * is a constant string (model, sql, function).  NULL when the trace is full
 * or NULL.  The span lives as long as the trace; its times, tokens, status
 * and reask are the caller's to set until trace_end_span().
 */
Span *
trace_span(Trace *trace, const char *path, const char *kind, int attempt)
{
	SpanChunk  *chunk;
	Span	   *span;

	if (trace == NULL)
		return NULL;
	if (trace->sink != NULL)
	{
		span = MemoryContextAlloc(trace->context, sizeof(Span));
		begin_span(trace, span, path, kind, attempt);
		return span;
	}
	if (trace->nspans >= setting_max_spans)
	{
		trace->dropped++;
		return NULL;
	}
	chunk = trace->chunks;
	if (chunk == NULL || chunk->used == chunk->size)
		chunk = add_chunk(trace);
	span = &chunk->spans[chunk->used];
	begin_span(trace, span, path, kind, attempt);
	chunk->used++;				/* only now: the copy above may have raised */
	trace->nspans++;
	return span;
}

static bool
same_name(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static char *
keep_name(Trace *trace, const char *name)
{
	return name ? MemoryContextStrdup(trace->context, name) : NULL;
}

/* Say what the span calls; each name is copied, NULL for none. */
void
trace_name(Trace *trace, Span *span, const char *model, const char *version,
		   const char *server)
{
	SpanNames  *names;

	if (trace == NULL || span == NULL)
		return;
	for (names = trace->names; names != NULL; names = names->next)
		if (same_name(names->model, model) &&
			same_name(names->server, server) &&
			same_name(names->version, version))
			break;
	if (names == NULL)
	{
		names = MemoryContextAlloc(trace->context, sizeof(SpanNames));
		names->model = keep_name(trace, model);
		names->version = keep_name(trace, version);
		names->server = keep_name(trace, server);
		names->next = trace->names;
		trace->names = names;
	}
	span->model = names->model;
	span->version = names->version;
	span->server = names->server;
}

/*
 * The attempt is over, now; message (of a failure, or NULL) is copied and
 * cut.  A span that has ended stays as it is, so tearing down twice is safe;
 * but that of a trace with a sink is the sink's from then on.
 */
void
trace_end_span(Trace *trace, Span *span, ErrorClass cls, const char *message)
{
	if (trace == NULL || span == NULL || span->ended_us != 0)
		return;
	span->ended_us = clock_us();
	span->cls = cls;
	if (message != NULL)
	{
		int			len = pg_mbcliplen(message, strlen(message), MAX_MESSAGE);

		span->message = MemoryContextAlloc(trace->context, len + 1);
		memcpy(span->message, message, len);
		span->message[len] = '\0';
	}
	if (trace->sink != NULL)
		trace->sink(trace, span);
}

static void
end_open_spans(Trace *trace)
{
	for (SpanChunk *chunk = trace->chunks; chunk != NULL; chunk = chunk->older)
		for (int i = 0; i < chunk->used; i++)
			trace_end_span(trace, &chunk->spans[i], CLASS_CANCELLED, NULL);
}

static void
discard(Trace *trace)
{
	trace->outer = done_traces;
	done_traces = trace;
}

/*
 * The run is over.  Spans still open are ended as cancelled, and so are runs
 * begun inside this one that nobody has ended.  Does nothing for NULL and for
 * a trace that has ended; raises nothing, so it may be called after an error.
 */
void
trace_end(Trace *trace, ErrorClass cls)
{
	if (trace == NULL || trace->ended_us != 0)
		return;
	while (open_trace != trace)
		trace_end(open_trace, CLASS_CANCELLED);
	open_trace = trace->outer;

	trace->ended_us = clock_us();
	trace->cls = cls;
	end_open_spans(trace);
	if (open_trace != NULL)
		discard(trace);
	else
	{
		if (last_trace != NULL)
			discard(last_trace);
		last_trace = trace;
		trace->outer = NULL;
	}
}

/*
 * The trace of the outermost run that ended last in this process, or NULL;
 * good until the next trace_begin() or trace_end().
 */
const Trace *
trace_last(void)
{
	return last_trace;
}

/*
 * The trace's spans in the order in which they were begun: an array of
 * nspans pointers, palloc'd.
 */
Span **
trace_spans(const Trace *trace)
{
	Span	  **spans = MemoryContextAllocHuge(CurrentMemoryContext,
											   sizeof(Span *) *
											   (trace->nspans + 1));
	int64		i = trace->nspans;

	for (SpanChunk *chunk = trace->chunks; chunk != NULL; chunk = chunk->older)
		for (int k = chunk->used; k-- > 0;)
			spans[--i] = &chunk->spans[k];
	Assert(i == 0);
	return spans;
}
