/*
 * trace.h
 *	  What a run did: a span for each attempt at each path.
 */
#ifndef CHAINCALL_TRACE_H
#define CHAINCALL_TRACE_H

#include "postgres.h"

#include "base/error.h"
#include "datatype/timestamp.h"
#include "utils/uuid.h"

/* One attempt at one path.  Times are clock_us(); 0: did not happen. */
typedef struct Span
{
	uint64		id;				/* the OpenTelemetry span id */
	char	   *path;
	int			attempt;		/* 1, 2, … at this path */
	const char *kind;			/* model, sql, function */
	char	   *model;			/* NULL where there is none */
	char	   *server;
	char	   *version;
	int64		started_us;
	int64		sent_us;
	int64		first_byte_us;
	int64		ended_us;
	int64		tokens_in;		/* -1: not told */
	int64		tokens_out;
	int			http_status;
	bool		reask;			/* asks again for an answer that fits */
	ErrorClass	cls;			/* CLASS_NONE: succeeded */
	char	   *message;		/* of a failure, cut */
	void	   *owner;			/* of whoever began it, for a sink */
} Span;

struct Trace;

/* Takes a span that has ended, which it frees with trace_free_span(). */
typedef void (*TraceSink) (struct Trace *trace, Span *span);


/* What one run did.  Read only outside of trace.c. */
typedef struct Trace
{
	pg_uuid_t	id;				/* the run's; W3C trace id */
	Oid			role;			/* whose run it is */
	char	   *chain;
	TimestampTz started_at;		/* the wall clock at started_us */
	int64		started_us;
	int64		ended_us;		/* 0: it runs */
	ErrorClass	cls;			/* CLASS_NONE: succeeded */
	int64		nspans;			/* kept */
	int64		dropped;		/* counted, not kept */

	/* trace.c's own */
	MemoryContext context;
	struct Trace *outer;		/* the run that this one was begun in */
	struct SpanChunk *chunks;	/* newest first */
	struct SpanNames *names;
	TraceSink	sink;			/* NULL: the trace keeps its spans */
} Trace;

extern Trace *trace_begin(const char *chain, const pg_uuid_t *id);
extern Trace *trace_create(MemoryContext parent, const char *chain,
						   const pg_uuid_t *id, Oid role, TraceSink sink);
extern void trace_free_span(Trace *trace, Span *span);
extern TimestampTz trace_time(const Trace *trace, int64 us);
extern Trace *trace_make(const char *chain, const pg_uuid_t *id);
extern Span *trace_span(Trace *trace, const char *path, const char *kind,
						int attempt);
extern void trace_name(Trace *trace, Span *span, const char *model,
					   const char *version, const char *server);
extern void trace_end_span(Trace *trace, Span *span, ErrorClass cls,
						   const char *message);
extern void trace_end(Trace *trace, ErrorClass cls);
extern const Trace *trace_last(void);
extern Span **trace_spans(const Trace *trace);
extern char *trace_waterfall(const Trace *trace, int width);

#endif							/* CHAINCALL_TRACE_H */
