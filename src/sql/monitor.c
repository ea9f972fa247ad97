/*
 * monitor.c
 *	  The rows behind the views that show what goes on: statistics of models,
 *	  workers, and what is in the air.
 *
 * Whether somebody may call these functions at all is a matter of EXECUTE.
 * What is in the air has an owner: others' is for members of pg_monitor.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/shared.h"
#include "call/health.h"
#include "catalog/catalog.h"
#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "trace/air.h"
#include "trace/stats.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(chaincall_stat_entries);
PG_FUNCTION_INFO_V1(chaincall_health_entries);
PG_FUNCTION_INFO_V1(chaincall_stat_reset);
PG_FUNCTION_INFO_V1(chaincall_activity_entries);
PG_FUNCTION_INFO_V1(chaincall_worker_entries);

#define MAX_COLUMNS 32

/* A row that grows from left to right. */
typedef struct Row
{
	int			n;
	Datum		values[MAX_COLUMNS];
	bool		nulls[MAX_COLUMNS];
} Row;

static void
put(Row *row, Datum value, bool null)
{
	Assert(row->n < MAX_COLUMNS);
	row->values[row->n] = null ? (Datum) 0 : value;
	row->nulls[row->n] = null;
	row->n++;
}

static void
put_text(Row *row, const char *text)
{
	put(row, text ? CStringGetTextDatum(text) : (Datum) 0, text == NULL);
}

/* A text that is empty where there is none. */
static void
put_some_text(Row *row, const char *text)
{
	put_text(row, text[0] != '\0' ? text : NULL);
}

static void
put_count(Row *row, int64 count)
{
	put(row, Int64GetDatum(count), count < 0);
}

/* µs, in ms for people; negative: none. */
static void
put_ms(Row *row, double us)
{
	put(row, Float8GetDatum(us / 1000), us < 0);
}

static void
put_time(Row *row, TimestampTz time)
{
	put(row, TimestampTzGetDatum(time), time == 0);
}

static void
put_oid(Row *row, Oid oid)
{
	put(row, ObjectIdGetDatum(oid), !OidIsValid(oid));
}

static void
emit(ReturnSetInfo *result, Row *row)
{
	if (row->n != result->setDesc->natts)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("the library of chaincall does not fit its SQL objects"),
				 errhint("ALTER EXTENSION chaincall UPDATE.")));
	tuplestore_putvalues(result->setResult, result->setDesc, row->values,
						 row->nulls);
}

/* ---- models and endpoints ---- */

/* What a service did not do is no class of its failures. */
static const ErrorClass counted_classes[] = {
	CLASS_NONE, CLASS_TRANSIENT, CLASS_THROTTLED, CLASS_PERMANENT,
	CLASS_INVALID, CLASS_CONTENT, CLASS_LIMIT, CLASS_TIMEOUT, CLASS_CANCELLED
};

static void
emit_stats(ReturnSetInfo *result, const StatsRow *stats)
{
	Row			row = {0};
	int64		ended = 0;

	for (int i = 0; i < (int) lengthof(stats->by_class); i++)
		ended += stats->by_class[i];
	put_text(&row, stats->model);
	put_text(&row, stats->version);
	put_text(&row, stats->server);
	put_count(&row, ended + stats->in_flight);
	put_count(&row, stats->in_flight);
	put(&row, Float8GetDatum(stats->rate), false);
	for (int i = 0; i < (int) lengthof(counted_classes); i++)
		put_count(&row, stats->by_class[counted_classes[i]]);
	put_ms(&row, stats->mean_us);
	put_ms(&row, stats->p50_us);
	put_ms(&row, stats->p99_us);
	put_ms(&row, stats->first_p50_us);
	put_ms(&row, stats->first_p99_us);
	put_count(&row, stats->tokens_in);
	put_count(&row, stats->tokens_out);
	put_time(&row, stats->last_begun_at);
	put_time(&row, stats->last_failed_at);
	put_text(&row, stats->last_failed_at != 0 ?
			 error_class_name(stats->last_failure) : NULL);
	put_time(&row, stats->since);
	emit(result, &row);
}

/* stat_entries(by_model boolean) → setof record */
Datum
chaincall_stat_entries(PG_FUNCTION_ARGS)
{
	List	   *rows = stats_read(PG_GETARG_BOOL(0));
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, rows)
		emit_stats((ReturnSetInfo *) fcinfo->resultinfo, lfirst(lc));
	return (Datum) 0;
}

/* ---- how endpoints fare ---- */

static const char *
breaker_name(BreakerState state)
{
	switch (state)
	{
		case BREAKER_OPEN:
			return "open";
		case BREAKER_HALF_OPEN:
			return "half-open";
		case BREAKER_CLOSED:
			break;
	}
	return "closed";
}

/* Open before half-open before closed. */
static int
severity(BreakerState state)
{
	return state == BREAKER_OPEN ? 2 : state == BREAKER_HALF_OPEN;
}

/* The wall clock at clock_us(); 0: never. */
static TimestampTz
wall_time(int64 us)
{
	return us == 0 ? 0 : GetCurrentTimestamp() + (us - clock_us());
}

/* What was dropped or changed is known for a while yet. */
static bool
has_endpoint(const ModelInfo *model, uint64 id)
{
	for (int i = 0; model != NULL && i < model->nendpoints; i++)
		if (model->endpoints[i].id == id)
			return true;
	return false;
}

/* How the endpoints fare that a row counts. */
static HealthRow
sum_health(const StatsRow *stats, const HealthRow *healths, int count)
{
	const ModelInfo *model = catalog_model(stats->model, true);
	HealthRow	sum = {0};

	for (int i = 0; i < count; i++)
	{
		const HealthRow *health = &healths[i];

		if (health->names != stats->id || !has_endpoint(model, health->endpoint))
			continue;
		if (severity(health->state) > severity(sum.state) ||
			(health->state == sum.state && health->since_us > sum.since_us))
		{
			sum.state = health->state;
			sum.since_us = health->since_us;
		}
		sum.cooling_until_us = Max(sum.cooling_until_us,
								   health->cooling_until_us);
	}
	return sum;
}

static void
emit_health(ReturnSetInfo *result, const StatsRow *stats,
			const HealthRow *healths, int nhealths)
{
	HealthRow	sum = sum_health(stats, healths, nhealths);
	Row			row = {0};

	put_text(&row, stats->model);
	put_text(&row, stats->version);
	put_text(&row, stats->server);
	put_text(&row, breaker_name(sum.state));
	put_time(&row, wall_time(sum.since_us));
	put_time(&row, wall_time(sum.cooling_until_us));
	emit(result, &row);
}

/* health_entries(): of each endpoint that stat_entries(false) has by its names */
Datum
chaincall_health_entries(PG_FUNCTION_ARGS)
{
	List	   *rows = stats_read(false);
	int			nhealths;
	HealthRow  *healths = health_read(&nhealths);
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, rows)
	{
		const StatsRow *stats = lfirst(lc);

		if (stats->id > 1)		/* not "(other)" */
			emit_health((ReturnSetInfo *) fcinfo->resultinfo, stats, healths,
						nhealths);
	}
	return (Datum) 0;
}

/* stat_reset(): count anew in this database */
Datum
chaincall_stat_reset(PG_FUNCTION_ARGS)
{
	stats_reset(MyDatabaseId);
	PG_RETURN_VOID();
}

/* ---- what is in the air ---- */

static const char *
air_kind_name(AirKind kind)
{
	switch (kind)
	{
		case AIR_JOB:
			return "job";
		case AIR_CALL:
			return "call";
		case AIR_STEP:
			return "step";
		case AIR_FREE:
			break;
	}
	return NULL;
}

static void
emit_activity(ReturnSetInfo *result, const AirView *view)
{
	Row			row = {0};

	put_text(&row, air_kind_name(view->kind));
	put(&row, UUIDPGetDatum(&view->job), false);
	put_oid(&row, view->owner);
	put(&row, Int32GetDatum(view->pid), false);
	put_some_text(&row, view->path);
	put_some_text(&row, view->what);
	put_some_text(&row, view->where);
	put_time(&row, view->since);
	put_count(&row, view->kind == AIR_CALL ? view->done : -1);
	put_count(&row, view->kind == AIR_JOB && view->known >= 0 ?
			  view->done : -1);
	put_count(&row, view->kind == AIR_JOB ? view->known : -1);
	emit(result, &row);
}

/*
 * activity_entries() → setof record: of the current user's own roles; all of
 * the database for members of pg_monitor.
 */
Datum
chaincall_activity_entries(PG_FUNCTION_ARGS)
{
	Oid			user = GetUserId();
	bool		all = has_privs_of_role(user, ROLE_PG_MONITOR);
	int			count;
	AirView    *views = air_read(NULL, &count);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < count; i++)
	{
		if (all || has_privs_of_role(user, views[i].owner))
			emit_activity((ReturnSetInfo *) fcinfo->resultinfo, &views[i]);
	}
	return (Datum) 0;
}

/* ---- workers ---- */

/* A copy of the slots in use, so that rows are made without the lock. */
static WorkerSlot *
copy_workers(int *count)
{
	WorkerSlot *copies = palloc(shared->nworkers * sizeof(WorkerSlot));

	*count = 0;
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers; i++)
	{
		if (shared->workers[i].kind != WORKER_NONE)
			copies[(*count)++] = shared->workers[i];
	}
	LWLockRelease(shared->lock);
	return copies;
}

static void
emit_worker(ReturnSetInfo *result, WorkerSlot *slot)
{
	Row			row = {0};

	put_text(&row, worker_kind_name(slot->kind));
	put(&row, Int32GetDatum(slot->pid), false);
	put_oid(&row, slot->database);
	put_oid(&row, slot->role);
	put_time(&row, slot->started_at);
	put_count(&row, pg_atomic_read_u64(&slot->jobs));
	put_count(&row, pg_atomic_read_u64(&slot->steps));
	put_count(&row, pg_atomic_read_u64(&slot->calls));
	put_count(&row, pg_atomic_read_u64(&slot->errors));
	put_count(&row, pg_atomic_read_u64(&slot->commits));
	put_count(&row, pg_atomic_read_u32(&slot->jobs_now));
	put_count(&row, pg_atomic_read_u32(&slot->calls_now));
	emit(result, &row);
}

/* worker_entries() → setof record: all workers of the cluster */
Datum
chaincall_worker_entries(PG_FUNCTION_ARGS)
{
	WorkerSlot *slots;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	if (shared == NULL)
		return (Datum) 0;
	slots = copy_workers(&count);
	for (int i = 0; i < count; i++)
		emit_worker((ReturnSetInfo *) fcinfo->resultinfo, &slots[i]);
	return (Datum) 0;
}
