/*
 * look.c
 *	  What time does to jobs, and what no wake-up told.
 *
 * Promotion and expiry walk their partial indexes from the smallest time on,
 * in batches.  The look finds queued jobs that the board does not know (COMMIT
 * PREPARED, a restore, a crash), the recount sets the board's counts right.
 */
#include "postgres.h"

#include "base/settings.h"
#include "base/shared.h"
#include "catalog/pg_type.h"
#include "chain/local.h"
#include "miscadmin.h"
#include "queue/message.h"
#include "queue/queue.h"
#include "queue/upkeep.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

static const char promote_sql[] =
"WITH picked AS MATERIALIZED ("
" SELECT q.id FROM chaincall.job q WHERE q.state = 'waiting' AND q.run_at >= $1 AND q.run_at <= $2"
" ORDER BY q.run_at LIMIT 1000 FOR UPDATE SKIP LOCKED),"
" moved AS (UPDATE chaincall.job u SET state = 'queued', waits_on = NULL FROM picked p WHERE u.id = p.id RETURNING u.owner, u.rank)"
" SELECT m.owner, min(m.rank), count(*) FROM moved m GROUP BY m.owner";

static const char next_due_sql[] =
"SELECT q.run_at FROM chaincall.job q WHERE q.state = 'waiting' AND q.run_at >= $1"
" ORDER BY q.run_at LIMIT 1";

#define EXPIRING "expires_at IS NOT NULL AND q.state IN ('queued', 'waiting', 'running')"

static const char expire_sql[] =
"WITH picked AS MATERIALIZED ("
" SELECT q.id FROM chaincall.job q WHERE q." EXPIRING " AND q.state <> 'running' AND q.expires_at <= $1"
" ORDER BY q.expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED)"
" UPDATE chaincall.job u SET state = 'expired', error = $2, worker = NULL, waits_on = NULL, finished_at = pg_catalog.clock_timestamp()"
" FROM picked p WHERE u.id = p.id RETURNING u.id, u.owner, u.started_at IS NULL";

static const char overdue_sql[] =
"SELECT q.id, q.worker FROM chaincall.job q"
" WHERE q." EXPIRING " AND q.state = 'running' AND q.expires_at <= $1 ORDER BY q.expires_at LIMIT 1000";

/* the smallest rank of each owner with queued jobs, one index probe an owner */
static const char look_sql[] =
"WITH RECURSIVE o AS ("
" (SELECT q.owner, q.rank FROM chaincall.job q WHERE q.state = 'queued' ORDER BY q.owner, q.rank LIMIT 1)"
" UNION ALL"
" SELECT n.owner, n.rank FROM o, LATERAL (SELECT q.owner, q.rank FROM chaincall.job q"
"  WHERE q.state = 'queued' AND q.owner > o.owner ORDER BY q.owner, q.rank LIMIT 1) n)"
" SELECT o.owner, o.rank FROM o";

static const char count_sql[] =
"SELECT c.owner, pg_catalog.sum(c.n)::pg_catalog.int8 FROM ("
" SELECT q.owner, pg_catalog.count(*) AS n FROM chaincall.job q WHERE q.state = 'queued' AND q.started_at IS NULL GROUP BY q.owner"
" UNION ALL"
" SELECT q.owner, pg_catalog.count(*) FROM chaincall.job q WHERE q.state = 'waiting' AND q.started_at IS NULL GROUP BY q.owner) c"
" GROUP BY c.owner";

static void
run_plan(SPIPlanPtr plan, Datum *values, int expected)
{
	int			result = SPI_execute_plan(plan, values, NULL, false, 0);

	if (result != expected)
		elog(ERROR, "unexpected result of a statement: %s",
			 SPI_result_code_string(result));
}

/* ---- promotion ---- */

static TimestampTz
first_due(TimestampTz from)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {TIMESTAMPTZOID};
	Datum		values[] = {TimestampTzGetDatum(from)};
	bool		isnull;

	run_plan(local_plan(&plan, next_due_sql, 1, types), values, SPI_OK_SELECT);
	return SPI_processed == 0 ? DT_NOEND :
		DatumGetTimestampTz(upkeep_column(0, 1, &isnull));
}

/*
 * Queues one batch of the jobs that waited for a time that has come.
 * *next_due: no waiting job is due before (DT_NOBEGIN: not known), so that the
 * walk need not pass the dead rows of what was promoted before; on return when
 * the first of those left is due, DT_NOEND: nothing waits.  Gives how many jobs
 * were queued: where that is 0, what is due is locked by somebody.
 */
int
queue_promote(TimestampTz *next_due)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext cxt = CurrentMemoryContext;
	Oid			types[] = {TIMESTAMPTZOID, TIMESTAMPTZOID};
	TimestampTz now = GetCurrentTimestamp();
	Datum		values[] = {TimestampTzGetDatum(*next_due), TimestampTzGetDatum(now)};
	List	   *owners;
	int			n;

	queue_begin();
	run_plan(local_plan(&plan, promote_sql, 2, types), values, SPI_OK_SELECT);
	owners = upkeep_owners(cxt);
	n = upkeep_moved(3);
	*next_due = first_due(*next_due);
	/* a crash takes nothing away: the jobs would be due again */
	upkeep_commit(false, cxt);
	upkeep_tell(owners);
	return n;
}

/* ---- expiry ---- */

/* The callers of jobs whose time is over; they are told until they have ended. */
static void
tell_overdue(TimestampTz now)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {TIMESTAMPTZOID};
	Datum		values[] = {TimestampTzGetDatum(now)};

	run_plan(local_plan(&plan, overdue_sql, 1, types), values, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		pg_uuid_t  *id = DatumGetUUIDP(upkeep_column(i, 1, &isnull));
		uint64		worker = (uint64) DatumGetInt64(upkeep_column(i, 2, &isnull));

		if (!isnull)
			(void) message_send(worker, id, MESSAGE_EXPIRE);
	}
}

/*
 * Ends one batch of the jobs whose expires_at has passed; who runs one is
 * told.  Gives how many have ended here: UPKEEP_BATCH when there may be more.
 */
int
queue_expire(void)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext cxt = CurrentMemoryContext;
	Oid			types[] = {TIMESTAMPTZOID, JSONBOID};
	TimestampTz now = GetCurrentTimestamp();
	Datum		values[2];
	EndedJobs	ended;

	values[0] = TimestampTzGetDatum(now);
	values[1] = upkeep_error(CLASS_TIMEOUT, "the job has expired",
							 "Its expires_at had passed before it ended.", NULL);
	queue_begin();
	run_plan(local_plan(&plan, expire_sql, 2, types), values,
			 SPI_OK_UPDATE_RETURNING);
	upkeep_ended(&ended, cxt);
	tell_overdue(now);
	upkeep_commit(ended.n > 0, cxt);
	upkeep_tell_ended(&ended);
	return ended.n;
}

/* ---- what no wake-up told ---- */

/*
 * Tells the board of all owners with queued jobs, and this database's
 * next_due of the first waiting one.
 */
void
queue_look(void)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext cxt = CurrentMemoryContext;
	List	   *owners;
	TimestampTz due;

	queue_begin();
	run_plan(local_plan(&plan, look_sql, 0, NULL), NULL, SPI_OK_SELECT);
	owners = upkeep_owners(cxt);
	due = first_due(DT_NOBEGIN);
	upkeep_commit(false, cxt);
	upkeep_tell(owners);
	if (due != DT_NOEND)
		database_due(MyDatabaseId, due);
}

/* ---- counts ---- */

/* What the table has, then what only the board has. */
static void
correct_counts(const Oid *owners, const int64 *counts, int n)
{
	bool	   *seen = palloc0(Max(n, 1) * sizeof(bool));

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Oid			owner = DatumGetObjectId(upkeep_column(i, 1, &isnull));
		int64		before = 0;

		for (int k = 0; k < n; k++)
		{
			if (owners[k] != owner)
				continue;
			before = counts[k];
			seen[k] = true;
			break;
		}
		board_recount(owner, before,
					  DatumGetInt64(upkeep_column(i, 2, &isnull)));
	}
	for (int k = 0; k < n; k++)
	{
		if (!seen[k])
			board_recount(owners[k], counts[k], 0);
	}
}

/* Sets the board's counts of jobs not started right, from the table. */
void
queue_recount(void)
{
	MemoryContext cxt = CurrentMemoryContext;
	Oid		   *owners = palloc(setting_max_owners * sizeof(Oid));
	int64	   *counts = palloc(setting_max_owners * sizeof(int64));
	int			n = board_owners(owners, counts, setting_max_owners);

	queue_begin();
	if (SPI_execute(count_sql, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not count jobs");
	correct_counts(owners, counts, n);
	upkeep_commit(false, cxt);
}
