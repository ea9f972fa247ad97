/*
 * job_trace.c
 *	  trace(): a stored job as a waterfall.
 *
 * The job and its spans are read as the caller, whose row security decides
 * what there is.  Times in tables are of the wall clock; a Trace has those of
 * the monotonic one, so all are moved by the difference of both, now.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/settings.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "trace/air.h"
#include "trace/trace.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#define BAR_WIDTH 40

PG_FUNCTION_INFO_V1(chaincall_trace);

#define JOB_SQL \
	"SELECT chain, state, created_at, started_at, finished_at," \
	" error OPERATOR(pg_catalog.->>) 'class'" \
	" FROM chaincall.job WHERE id OPERATOR(pg_catalog.=) $1"

/* Of more spans than are kept, those that began first. */
#define SPANS_SQL \
	"SELECT path, kind, attempt, model, version, server, started_at, sent_at," \
	" first_byte_at, ended_at, tokens_in, tokens_out, http_status, reask," \
	" class, message FROM chaincall.span" \
	" WHERE job OPERATOR(pg_catalog.=) $1 ORDER BY started_at LIMIT $2"

#define COUNT_SQL \
	"SELECT pg_catalog.count(*) FROM chaincall.span" \
	" WHERE job OPERATOR(pg_catalog.=) $1"

static void
query(const char *sql, const pg_uuid_t *job, int64 limit)
{
	Oid			types[2] = {UUIDOID, INT8OID};
	Datum		values[2] = {UUIDPGetDatum(job), Int64GetDatum(limit)};

	if (SPI_execute_with_args(sql, limit >= 0 ? 2 : 1, types, values, NULL,
							  true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the job: %s", SPI_result_code_string(SPI_result));
}

static Datum
column(int row, int n, bool *null)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, n,
						 null);
}

static char *
column_text(int row, int n)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, n);
}

static int64
column_int64(int row, int n, int64 otherwise)
{
	bool		null;
	Datum		value = column(row, n, &null);

	return null ? otherwise : DatumGetInt64(value);
}

static int
column_int(int row, int n)
{
	bool		null;
	Datum		value = column(row, n, &null);

	return null ? 0 : DatumGetInt32(value);
}

/* A time on the monotonic clock; 0 for none. */
static int64
column_us(int row, int n, int64 shift)
{
	bool		null;
	Datum		value = column(row, n, &null);

	return null ? 0 : DatumGetTimestampTz(value) + shift;
}

static ErrorClass
class_of_name(const char *name)
{
	for (int cls = CLASS_NONE; name != NULL && cls <= CLASS_CRASH; cls++)
		if (strcmp(error_class_name(cls), name) == 0)
			return cls;
	return CLASS_NONE;
}

/* How the job ended, in the words of a run. */
static ErrorClass
class_of_job(const char *state, const char *error_class)
{
	ErrorClass	cls = class_of_name(error_class);

	if (strcmp(state, "succeeded") == 0)
		return CLASS_NONE;
	if (strcmp(state, "expired") == 0)
		return CLASS_TIMEOUT;
	if (strcmp(state, "cancelled") == 0 || cls == CLASS_NONE)
		return CLASS_CANCELLED;
	return cls;
}

static Trace *
load_job(const pg_uuid_t *job, int64 shift)
{
	Trace	   *trace;

	query(JOB_SQL, job, -1);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("job %s does not exist", ids_uuid_text(job)),
				 errdetail("It is not there any more, never was, or belongs to another role."),
				 errhint("Look into chaincall.job_status; what ran in a session is in chaincall.last_trace().")));
	trace = trace_make(column_text(0, 1), job);
	trace->started_us = column_us(0, 4, shift);
	if (trace->started_us == 0)
		trace->started_us = column_us(0, 3, shift);
	trace->ended_us = column_us(0, 5, shift);
	if (trace->ended_us != 0)
		trace->cls = class_of_job(column_text(0, 2), column_text(0, 6));
	return trace;
}

/*
 * Ends a span as it is stored.  A wait is stored when it begins, with the time
 * when it will end: it may be under way, or the job has ended before that.
 */
static void
end_stored(Trace *trace, Span *span, ErrorClass cls, const char *message,
		   int64 ended_us)
{
	bool		is_wait = strcmp(span->kind, "wait") == 0;

	if (is_wait && trace->ended_us == 0 && ended_us > clock_us())
		return;
	if (is_wait && trace->ended_us != 0 && ended_us > trace->ended_us)
	{
		cls = CLASS_CANCELLED;
		ended_us = trace->ended_us;
	}
	trace_end_span(trace, span, cls, message);
	span->ended_us = ended_us;
}

static void
load_span(Trace *trace, int row, int64 shift)
{
	char	   *path = column_text(row, 1);
	Span	   *span = trace_span(trace, path, column_text(row, 2),
								  column_int(row, 3));
	char	   *message = column_text(row, 16);

	if (span == NULL)
		return;
	trace_name(trace, span, column_text(row, 4), column_text(row, 5),
			   column_text(row, 6));
	span->tokens_in = column_int64(row, 11, -1);
	span->tokens_out = column_int64(row, 12, -1);
	span->http_status = column_int(row, 13);
	span->reask = column_text(row, 14)[0] == 't';
	end_stored(trace, span, class_of_name(column_text(row, 15)), message,
			   column_us(row, 10, shift));
	span->started_us = column_us(row, 7, shift);
	span->sent_us = column_us(row, 8, shift);
	span->first_byte_us = column_us(row, 9, shift);
	/* what a clock that was set back says of a run's begin */
	trace->started_us = Min(trace->started_us, span->started_us);
}

/* The job row was visible: so is what is going on for it. */
static void
load_air(Trace *trace, int64 shift)
{
	int			count;
	AirView    *views = air_read(&trace->id, &count);

	for (int i = 0; i < count; i++)
	{
		const AirView *view = &views[i];
		Span	   *span;

		/* between two attempts nothing of a call is open */
		if (view->kind == AIR_JOB ||
			(view->kind == AIR_CALL && view->known == 0))
			continue;
		span = trace_span(trace, view->path,
						  view->kind == AIR_CALL ? "model" : view->what,
						  Max(view->done, 1));
		if (span == NULL)
			continue;
		if (view->kind == AIR_CALL)
			trace_name(trace, span, view->what, NULL, view->where);
		span->started_us = view->since + shift;
	}
}

static void
load_spans(Trace *trace, int64 shift)
{
	query(SPANS_SQL, &trace->id, setting_max_spans);
	for (uint64 row = 0; row < SPI_tuptable->numvals; row++)
		load_span(trace, row, shift);
	if (trace->nspans >= setting_max_spans)
	{
		query(COUNT_SQL, &trace->id, -1);
		trace->dropped = column_int64(0, 1, 0) - trace->nspans;
	}
}

/* trace(job uuid) → text */
Datum
chaincall_trace(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *job = PG_GETARG_UUID_P(0);
	int64		shift = clock_us() - GetCurrentTimestamp();
	MemoryContext caller = CurrentMemoryContext;
	Trace	   *trace;
	char	   *picture;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	trace = load_job(job, shift);
	load_spans(trace, shift);
	if (trace->ended_us == 0)
		load_air(trace, shift);
	picture = MemoryContextStrdup(caller, trace_waterfall(trace, BAR_WIDTH));
	SPI_finish();
	PG_RETURN_TEXT_P(cstring_to_text(picture));
}
