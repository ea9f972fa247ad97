/*
 * recover.c
 *	  Jobs whose worker has died, and databases that are copies.
 *
 * A job belongs to the incarnation in its row; a dead one leaves it claimable
 * at once.  A worker that died while it was at a job's data has left that job's
 * id in its entry of the touch file: that is one death of the job's own making,
 * the third ends it.
 *
 * Each death is counted once whatever is killed in between.  The entry is
 * forgotten after the count is committed; a job that was counted keeps the dead
 * incarnation in `worker` while it is queued, so that an entry which is found
 * again says nothing new.
 */
#include "postgres.h"

#include <sys/stat.h>

#include "base/ids.h"
#include "base/shared.h"
#include "base/touch.h"
#include "catalog/pg_type.h"
#include "chain/local.h"
#include "miscadmin.h"
#include "queue/queue.h"
#include "queue/upkeep.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* one index probe a worker */
static const char workers_sql[] =
"WITH RECURSIVE w AS ("
" (SELECT q.worker FROM chaincall.job q WHERE q.state = 'running' ORDER BY q.worker LIMIT 1)"
" UNION ALL"
" SELECT n.worker FROM w, LATERAL (SELECT q.worker FROM chaincall.job q"
"  WHERE q.state = 'running' AND q.worker > w.worker ORDER BY q.worker LIMIT 1) n)"
" SELECT w.worker FROM w WHERE w.worker IS NOT NULL";

static const char orphans_sql[] =
"WITH picked AS MATERIALIZED ("
" SELECT q.id FROM chaincall.job q WHERE q.state = 'running' AND q.worker = $1 LIMIT 1000 FOR UPDATE SKIP LOCKED),"
" moved AS (UPDATE chaincall.job u SET state = 'queued', worker = NULL FROM picked p"
"  WHERE u.id = p.id RETURNING u.owner, u.rank)"
" SELECT m.owner, pg_catalog.min(m.rank), pg_catalog.count(*) FROM moved m GROUP BY m.owner";

static const char accused_sql[] =
"SELECT q.state, q.worker, q.deaths, q.owner, q.rank, q.started_at IS NULL FROM chaincall.job q WHERE q.id = $1";

/* ---- deaths of a job's own making ---- */

typedef struct Accused
{
	bool		here;			/* the job is in this database */
	bool		locked;			/* by somebody */
	char	   *state;
	uint64		worker;			/* 0: none */
	int			deaths;
	OwnerJobs	jobs;
} Accused;

static bool
read_accused(const pg_uuid_t *job, const char *lock, Accused *accused)
{
	Oid			types[] = {UUIDOID};
	Datum		values[] = {UUIDPGetDatum(job)};
	bool		isnull;

	(void) SPI_execute_with_args(psprintf("%s%s", accused_sql, lock), 1, types,
								 values, NULL, false, 1);
	if (SPI_processed == 0)
		return false;
	accused->state = TextDatumGetCString(upkeep_column(0, 1, &isnull));
	accused->worker = (uint64) DatumGetInt64(upkeep_column(0, 2, &isnull));
	if (isnull)
		accused->worker = 0;
	accused->deaths = DatumGetInt32(upkeep_column(0, 3, &isnull));
	accused->jobs.owner = DatumGetObjectId(upkeep_column(0, 4, &isnull));
	accused->jobs.rank = DatumGetTimestampTz(upkeep_column(0, 5, &isnull));
	accused->jobs.unstarted = DatumGetBool(upkeep_column(0, 6, &isnull));
	return true;
}

/*
 * Does the death count?  claimant: the worker that had the job, which is the
 * dead one itself or, of a dead executor, the caller whose order it ran.  It
 * counts if the claimant had the job and is dead too (one that lives counts its
 * executors' deaths itself), or if the job is queued: its claim was rolled back
 * with the worker, or it was recovered before the entry was seen.  Not if that
 * very death is counted already, nor if the job has gone on or ended since.
 */
static bool
is_guilty(const Accused *accused, uint64 claimant)
{
	if (strcmp(accused->state, "running") == 0)
		return accused->worker == claimant && !worker_alive(claimant);
	return strcmp(accused->state, "queued") == 0 &&
		accused->worker != claimant;
}

static void
count_death(const pg_uuid_t *job, uint64 claimant)
{
	Oid			types[] = {UUIDOID, INT8OID};
	Datum		values[] = {UUIDPGetDatum(job), Int64GetDatum((int64) claimant)};

	(void) SPI_execute_with_args("UPDATE chaincall.job SET state = 'queued', worker = $2, deaths = deaths + 1 WHERE id = $1",
								 2, types, values, NULL, false, 0);
}

static void
bury(const pg_uuid_t *job, const Accused *accused)
{
	Oid			types[] = {UUIDOID, JSONBOID};
	Datum		values[2];
	DeadLetter	letter = {{{0}}};
	char	   *message = psprintf("a step of the job has killed its worker %d times",
								   accused->deaths + 1);

	values[0] = UUIDPGetDatum(job);
	values[1] = upkeep_error(CLASS_CRASH, message,
							 "Each time a background worker died while it was at the job's data.",
							 "The server's log says how the workers died.");
	(void) SPI_execute_with_args("UPDATE chaincall.job SET state = 'failed', worker = NULL, deaths = deaths + 1, error = $2,"
								 " finished_at = pg_catalog.clock_timestamp() WHERE id = $1",
								 2, types, values, NULL, false, 0);
	queue_unask_jobs(job, 1);
	letter.job = *job;
	queue_dead_letters(&letter, 1);
}

/* Judges an entry; false: somebody has locked the job, try again later. */
static bool
judge(const TouchEntry *entry)
{
	MemoryContext cxt = CurrentMemoryContext;
	Accused		accused = {0};
	bool		guilty = false;
	bool		dead = false;

	queue_begin();
	accused.here = read_accused(&entry->job, "", &accused);
	accused.locked = accused.here &&
		!read_accused(&entry->job, " FOR UPDATE SKIP LOCKED", &accused);
	if (accused.here && !accused.locked)
	{
		guilty = is_guilty(&accused, entry->claimant);
		dead = guilty && accused.deaths + 1 >= MAX_DEATHS;
		if (dead)
			bury(&entry->job, &accused);
		else if (guilty)
			count_death(&entry->job, entry->claimant);
	}
	upkeep_commit(guilty, cxt);
	if (dead)
	{
		if (accused.jobs.unstarted)
			board_started(accused.jobs.owner, 1);
		waiter_notify(&entry->job, 1);
	}
	else if (guilty)
		board_tell(accused.jobs.owner, accused.jobs.rank);
	return !accused.locked;
}

static void
judge_all(void)
{
	TouchEntry *entries;
	int			n = touch_left(&entries);

	for (int i = 0; i < n; i++)
	{
		/* a caller that lives counts deaths of its executors itself */
		bool		told = entries[i].claimant != entries[i].incarnation &&
			worker_alive(entries[i].claimant);

		if (told || judge(&entries[i]))
			touch_forget(entries[i].incarnation);
	}
}

/* ---- orphans ---- */

/* The incarnations that running jobs name. */
static int
read_workers(uint64 **workers)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext cxt = CurrentMemoryContext;
	int			n;

	queue_begin();
	if (SPI_execute_plan(local_plan(&plan, workers_sql, 0, NULL), NULL, NULL,
						 false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for workers of jobs");
	n = (int) SPI_processed;
	*workers = MemoryContextAlloc(cxt, Max(n, 1) * sizeof(uint64));
	for (int i = 0; i < n; i++)
	{
		bool		isnull;

		(*workers)[i] = (uint64) DatumGetInt64(upkeep_column(i, 1, &isnull));
	}
	upkeep_commit(false, cxt);
	return n;
}

/* One batch of a dead worker's jobs; how many. */
static int
free_batch(uint64 incarnation)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext cxt = CurrentMemoryContext;
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum((int64) incarnation)};
	List	   *owners;
	int			n;

	queue_begin();
	if (SPI_execute_plan(local_plan(&plan, orphans_sql, 1, types), values,
						 NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not free jobs of a dead worker");
	owners = upkeep_owners(cxt);
	n = upkeep_moved(3);
	/* a crash takes nothing away: the worker is as dead as before */
	upkeep_commit(false, cxt);
	upkeep_tell(owners);
	return n;
}

/*
 * Queues the jobs of dead workers again, and counts deaths of the jobs' own
 * making.  The rows are read first and liveness second: a worker that claims
 * in between is seen alive, one that dies in between is found the next time.
 * Gives how many jobs were freed.  Jobs that somebody has locked are left for
 * the next time.
 */
int
queue_recover(void)
{
	uint64	   *workers;
	int			nworkers = read_workers(&workers);
	int			freed = 0;

	judge_all();
	for (int i = 0; i < nworkers; i++)
	{
		int			n = UPKEEP_BATCH;

		if (worker_alive(workers[i]))
			continue;
		while (n == UPKEEP_BATCH)
		{
			CHECK_FOR_INTERRUPTS();
			n = free_batch(workers[i]);
			freed += n;
		}
	}
	return freed;
}

/* ---- copies ---- */

static bool
is_origin(void)
{
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(MyDatabaseId)};

	(void) SPI_execute_with_args("SELECT FROM chaincall.origin WHERE database = $1",
								 1, types, values, NULL, false, 1);
	return SPI_processed > 0;
}

/*
 * When this database's files were made: what its sessions enqueue is newer.
 * DT_NOEND where that is not known.
 */
static TimestampTz
database_made_at(void)
{
	struct stat st;
	char	   *file = psprintf("%s/PG_VERSION", DatabasePath);

	if (stat(file, &st) != 0)
		return DT_NOEND;
	/* the clock of files may be a tick late */
	return time_t_to_timestamptz(st.st_mtime) +
		st.st_mtim.tv_nsec / 1000 + INT64CONST(10000);
}

/*
 * If this database is a copy of another (CREATE DATABASE ... TEMPLATE; dumps
 * do not have jobs, pg_upgrade and promotion keep the oid), its unfinished jobs
 * are the other one's work: they are cancelled, with what was asked of them, and
 * the database's oid is noted.  True if it was one.  To be called before any
 * caller runs here.
 */
bool
queue_adopt_copy(void)
{
	MemoryContext cxt = CurrentMemoryContext;
	Oid			types[] = {OIDOID, JSONBOID, TIMESTAMPTZOID, TEXTOID};
	Datum		values[4];
	uint64		cancelled = 0;
	bool		copy;

	queue_begin();
	copy = !is_origin();
	if (copy)
	{
		values[0] = ObjectIdGetDatum(MyDatabaseId);
		values[1] = upkeep_error(CLASS_CANCELLED,
								 "the job was cancelled because its database is a copy",
								 "The job itself is in the database that this one was copied from.",
								 NULL);
		values[2] = TimestampTzGetDatum(database_made_at());
		values[3] = CStringGetTextDatum("the database is a copy");
		(void) SPI_execute_with_args("UPDATE chaincall.job SET state = 'cancelled', error = $2, worker = NULL, waits_on = NULL,"
									 " finished_at = pg_catalog.clock_timestamp()"
									 " WHERE state IN ('queued', 'running', 'waiting') AND created_at <= $3",
									 3, types, values, NULL, false, 0);
		cancelled = SPI_processed;
		(void) SPI_execute_with_args("DELETE FROM chaincall.question WHERE created_at <= $3",
									 3, types, values, NULL, false, 0);
		(void) SPI_execute_with_args("UPDATE chaincall.action SET state = 'refused', reason = $4,"
									 " applied_at = pg_catalog.clock_timestamp()"
									 " WHERE state = 'pending' AND created_at <= $3",
									 4, types, values, NULL, false, 0);
		(void) SPI_execute("DELETE FROM chaincall.origin", false, 0);
		/* no schedule is the copy's */
		(void) SPI_execute("DELETE FROM chaincall.maintenance", false, 0);
		(void) SPI_execute_with_args("INSERT INTO chaincall.origin VALUES ($1)", 1,
									 types, values, NULL, false, 0);
	}
	upkeep_commit(copy, cxt);
	if (copy)
		ereport(LOG,
				(errmsg("chaincall: this database is a copy of another one; %llu unfinished jobs were cancelled in it",
						(unsigned long long) cancelled)));
	return copy;
}
