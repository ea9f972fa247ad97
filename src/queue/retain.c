/*
 * retain.c
 *	  What is old goes.
 *
 * Spans leave by whole days: their partition is dropped, after what jobs need
 * that have not ended, or have failed, was copied to the default partition.  That locks the
 * parent, behind which checkpoints queue up, so what is to be copied is found
 * before, the lock is waited for 50 ms only, and with too many rows the day
 * stays until more of its jobs have ended.
 *
 * Everything else leaves row by row, in small batches.
 */
#include "postgres.h"

#include "base/settings.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "queue/partition.h"
#include "queue/queue.h"
#include "queue/upkeep.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define MAX_KEPT_ROWS 10000		/* copied under the lock */

/* A definition that a session knows of may be named by a job that it inserts. */
#define KEEP_DEFINITIONS_US (2 * USECS_PER_DAY)

/* Of jobs that go on, or may: a person can have what has failed tried again. */
#define NEEDS_SPANS "state IN ('queued', 'running', 'waiting', 'failed')"

static const char partitions_sql[] =
"SELECT c.relname FROM pg_catalog.pg_inherits i, pg_catalog.pg_class c"
" WHERE i.inhparent = 'chaincall.span'::pg_catalog.regclass AND c.oid = i.inhrelid ORDER BY c.relname";

static const char needed_sql[] =
"SELECT q.id FROM chaincall.job q WHERE q.id >= $1 AND q.id < $2 AND q." NEEDS_SPANS " LIMIT 10001";

/* not those that failed and that nobody has seen to: they stay as long as their alerts do */
static const char jobs_sql[] =
"WITH old AS MATERIALIZED (SELECT q.id FROM chaincall.job q WHERE q.finished_at IS NOT NULL AND q.finished_at < $1"
"  AND NOT (q.state = 'failed' AND EXISTS (SELECT FROM chaincall.alert a WHERE a.job = q.id AND a.acknowledged_at IS NULL))"
"  ORDER BY q.finished_at LIMIT 1000 FOR UPDATE SKIP LOCKED)"
" DELETE FROM chaincall.job u USING old o WHERE u.id = o.id RETURNING u.id";

static const char job_spans_sql[] =
"DELETE FROM chaincall.span_default d USING pg_catalog.unnest($1) AS o(id) WHERE d.job = o.id";

static const char job_actions_sql[] =
"DELETE FROM chaincall.action a USING pg_catalog.unnest($1) AS o(id) WHERE a.job = o.id AND a.state <> 'pending'";

/* not NOT EXISTS, which would read all such jobs for each row where statistics know of few */
static const char spans_sql[] =
"WITH old AS MATERIALIZED (SELECT d.job, d.path, d.try FROM chaincall.span_default d WHERE d.job < $1"
"  AND (SELECT true FROM chaincall.job q WHERE q.id = d.job AND q." NEEDS_SPANS " LIMIT 1) IS NULL LIMIT 1000)"
" DELETE FROM chaincall.span_default u USING old o WHERE u.job = o.job AND u.path = o.path AND u.try = o.try";

/* of jobs that are gone, or never were */
static const char actions_sql[] =
"WITH old AS MATERIALIZED (SELECT a.id FROM chaincall.action a WHERE a.id < $1 AND a.state <> 'pending'"
"  AND a.applied_at < $2 AND NOT EXISTS (SELECT FROM chaincall.job q WHERE q.id = a.job) LIMIT 1000)"
" DELETE FROM chaincall.action u USING old o WHERE u.id = o.id";

static const char alerts_sql[] =
"WITH old AS MATERIALIZED (SELECT a.id FROM chaincall.alert a WHERE a.acknowledged_at < $1 LIMIT 1000 FOR UPDATE SKIP LOCKED)"
" DELETE FROM chaincall.alert u USING old o WHERE u.id = o.id";

static const char open_alerts_sql[] =
"WITH old AS MATERIALIZED (SELECT a.id FROM chaincall.alert a WHERE a.acknowledged_at IS NULL AND a.created_at < $1"
"  ORDER BY a.created_at LIMIT 1000 FOR UPDATE SKIP LOCKED)"
" DELETE FROM chaincall.alert u USING old o WHERE u.id = o.id";

/* somebody had locked them when their job ended */
static const char questions_sql[] =
"WITH old AS MATERIALIZED (SELECT n.job, n.path FROM chaincall.question n WHERE ("
"  SELECT true FROM chaincall.job q WHERE q.id = n.job AND q.finished_at IS NULL LIMIT 1) IS NULL LIMIT 1000 FOR UPDATE SKIP LOCKED)"
" DELETE FROM chaincall.question u USING old o WHERE u.job = o.job AND u.path = o.path";

/*
 * Rows that no job names, and those that a newer row with the same body has
 * taken the place of.
 */
static const char definitions_sql[] =
"DELETE FROM chaincall.definition d WHERE d.created_at < $1 AND ("
" d.sha256 IN (SELECT o.sha256 FROM chaincall.definition o WHERE o.created_at < $1"
"  EXCEPT SELECT q.definition FROM chaincall.job q)"
" OR EXISTS (SELECT FROM chaincall.definition n WHERE n.sha256 = d.sha256 AND n.created_at > d.created_at))";

static const char oldest_sql[] =
"SELECT pg_catalog.min(a.xact_start), EXISTS (SELECT FROM pg_catalog.pg_prepared_xact() p WHERE p.dbid = $1)"
" FROM pg_catalog.pg_stat_get_activity(NULL) a WHERE a.datid = $1";

/* ---- helpers ---- */

static int
run(const char *sql, int nargs, Oid *types, Datum *values, int expected)
{
	int			result = SPI_execute_with_args(sql, nargs, types, values, NULL,
											   false, 0);

	if (result != expected)
		elog(ERROR, "unexpected result of a statement: %s",
			 SPI_result_code_string(result));
	return (int) SPI_processed;
}

/* False: they are kept for ever. */
static bool
cutoff(int keep_s, TimestampTz *before)
{
	*before = GetCurrentTimestamp() - (int64) keep_s * USECS_PER_SEC;
	return keep_s >= 0;
}

/* ---- whole days of spans ---- */

/*
 * The jobs of a day that have not ended, or have failed.  No other can come to need its spans
 * before the transaction ends: new ids are of today, and only the maintainer,
 * which is here, queues what had ended.  False: too many.
 */
static bool
list_needed(Day day, Datum *jobs, int *njobs)
{
	Oid			types[] = {UUIDOID, UUIDOID};
	pg_uuid_t	from,
				to;
	Datum		values[2];

	uuid_bound(day_start(day), &from);
	uuid_bound(day_start(day + 1), &to);
	values[0] = UUIDPGetDatum(&from);
	values[1] = UUIDPGetDatum(&to);
	*njobs = run(needed_sql, 2, types, values, SPI_OK_SELECT);
	*jobs = upkeep_id_array(upkeep_ids(1, CurrentMemoryContext), *njobs);
	return *njobs <= MAX_KEPT_ROWS;
}

static bool
few_rows(const char *name, Datum jobs)
{
	Oid			types[] = {UUIDARRAYOID};

	return run(psprintf("SELECT FROM chaincall.%s s, pg_catalog.unnest($1) AS o(id) WHERE s.job = o.id LIMIT %d",
						name, MAX_KEPT_ROWS + 1), 1, types, &jobs,
			   SPI_OK_SELECT) <= MAX_KEPT_ROWS;
}

static void
drop_day(const char *name, Datum jobs, int njobs)
{
	Oid			types[] = {UUIDARRAYOID};

	upkeep_set("lock_timeout", PARTITION_LOCK_TIMEOUT);
	upkeep_run("LOCK TABLE ONLY chaincall.span IN ACCESS EXCLUSIVE MODE");
	upkeep_run(psprintf("ALTER EXTENSION chaincall DROP TABLE chaincall.%s",
						 name));
	upkeep_run(psprintf("ALTER TABLE chaincall.span DETACH PARTITION chaincall.%s",
						 name));
	if (njobs > 0)
		(void) run(psprintf("INSERT INTO chaincall.span SELECT s.* FROM pg_catalog.unnest($1) AS o(id), chaincall.%s s"
							" WHERE s.job = o.id", name),
				   1, types, &jobs, SPI_OK_INSERT);
	upkeep_run(psprintf("DROP TABLE chaincall.%s", name));
}

/* False: too many of its rows are needed still. */
static bool
retire_day(Day day)
{
	MemoryContext cxt = CurrentMemoryContext;
	char	   *name = day_name(day);
	Datum		jobs;
	int			njobs;
	bool		few;

	queue_begin();
	few = list_needed(day, &jobs, &njobs) && few_rows(name, jobs);
	if (few)
		drop_day(name, jobs, njobs);
	upkeep_commit(false, cxt);
	return few;
}

/* The days that have a partition, in cxt. */
static int
list_days(Day **days)
{
	MemoryContext cxt = CurrentMemoryContext;
	int			n = 0;

	queue_begin();
	(void) run(partitions_sql, 0, NULL, NULL, SPI_OK_SELECT);
	*days = MemoryContextAlloc(cxt, Max(SPI_processed, 1) * sizeof(Day));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *name = SPI_getvalue(SPI_tuptable->vals[i],
										SPI_tuptable->tupdesc, 1);

		if (name != NULL && day_parse(name, &(*days)[n]))
			n++;
	}
	upkeep_commit(false, cxt);
	return n;
}

/*
 * Drops the partitions whose days are over for longer than
 * chaincall.keep_spans.  Raises when a lock is not to be had: try again later.
 */
void
queue_retire_partitions(void)
{
	TimestampTz before;
	Day		   *days;
	int			n;

	if (!cutoff(setting_keep_spans_s, &before))
		return;
	n = list_days(&days);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (day_start(days[i] + 1) <= before)
			(void) retire_day(days[i]);
	}
}

/* ---- rows ---- */

/* Jobs that ended before, with their spans in the default partition. */
static int
delete_jobs(TimestampTz before)
{
	MemoryContext cxt = CurrentMemoryContext;
	Oid			types[] = {TIMESTAMPTZOID};
	Oid			array_types[] = {UUIDARRAYOID};
	Datum		values[] = {TimestampTzGetDatum(before)};
	Datum		ids;
	int			n;

	queue_begin();
	n = run(jobs_sql, 1, types, values, SPI_OK_DELETE_RETURNING);
	ids = upkeep_id_array(upkeep_ids(1, CurrentMemoryContext), n);
	if (n > 0)
	{
		(void) run(job_spans_sql, 1, array_types, &ids, SPI_OK_DELETE);
		(void) run(job_actions_sql, 1, array_types, &ids, SPI_OK_DELETE);
	}
	upkeep_commit(false, cxt);
	return n;
}

/* One statement in a transaction of its own; the rows it deleted. */
static int
delete_rows(const char *sql, int nargs, Oid *types, Datum *values)
{
	MemoryContext cxt = CurrentMemoryContext;
	int			n;

	queue_begin();
	n = run(sql, nargs, types, values, SPI_OK_DELETE);
	upkeep_commit(false, cxt);
	return n;
}

static int
delete_by_id(const char *sql, int nargs, TimestampTz before)
{
	Oid			types[] = {UUIDOID, TIMESTAMPTZOID};
	pg_uuid_t	bound;
	Datum		values[] = {UUIDPGetDatum(&bound), TimestampTzGetDatum(before)};

	uuid_bound(before, &bound);
	return delete_rows(sql, nargs, types, values);
}

/*
 * Deletes one batch of each: finished jobs, spans in the default partition,
 * answered actions, alerts that were acknowledged or are older still, questions
 * of jobs that have ended.  True: there may be more.
 */
bool
queue_retain(void)
{
	Oid			types[] = {TIMESTAMPTZOID};
	TimestampTz before;
	Datum		values[1];
	int			most = delete_rows(questions_sql, 0, NULL, NULL);

	if (cutoff(setting_keep_jobs_s, &before))
	{
		values[0] = TimestampTzGetDatum(before);
		most = Max(most, delete_jobs(before));
		most = Max(most, delete_by_id(actions_sql, 2, before));
		most = Max(most, delete_rows(alerts_sql, 1, types, values));
	}
	if (cutoff(setting_keep_alerts_s, &before))
	{
		values[0] = TimestampTzGetDatum(before);
		most = Max(most, delete_rows(open_alerts_sql, 1, types, values));
	}
	if (cutoff(setting_keep_spans_s, &before))
		most = Max(most, delete_by_id(spans_sql, 1, before));
	return most >= UPKEEP_BATCH;
}

/* ---- definitions ---- */

/*
 * No transaction under way in this database began before *began; false when
 * that is not known.
 */
static bool
oldest_transaction(TimestampTz *began)
{
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(MyDatabaseId)};
	bool		isnull;
	bool		prepared;

	(void) run(oldest_sql, 1, types, values, SPI_OK_SELECT);
	prepared = DatumGetBool(upkeep_column(0, 2, &isnull));
	*began = DatumGetTimestampTz(upkeep_column(0, 1, &isnull));
	if (isnull)
		*began = GetCurrentTimestamp();
	/* when a prepared transaction began is not to be found out */
	return !prepared;
}

/*
 * Deletes pinned chains that no job names.  A transaction may be about to
 * insert a job that names an old row which its session knows, so sessions build
 * only on rows younger than a day (sql/job_definition.c), and here those stay
 * that were younger than two when the oldest transaction began.  Reads the whole
 * of job: to be called rarely.
 */
void
queue_retain_definitions(void)
{
	MemoryContext cxt = CurrentMemoryContext;
	Oid			types[] = {TIMESTAMPTZOID};
	TimestampTz began;

	queue_begin();
	if (oldest_transaction(&began))
	{
		Datum		values[] = {TimestampTzGetDatum(began - KEEP_DEFINITIONS_US)};

		upkeep_set("enable_seqscan", "on");
		upkeep_set("enable_hashjoin", "on");
		(void) run(definitions_sql, 1, types, values, SPI_OK_DELETE);
	}
	upkeep_commit(false, cxt);
}
