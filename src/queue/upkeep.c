/*
 * upkeep.c
 *	  What the duties of the maintainer have in common.
 */
#include "postgres.h"

#include "base/shared.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "queue/queue.h"
#include "queue/upkeep.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

/* A setting for the rest of this transaction. */
void
upkeep_set(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

/* Runs a statement without arguments, whatever it gives. */
void
upkeep_run(const char *sql)
{
	int			result = SPI_execute(sql, false, 0);

	if (result < 0)
		elog(ERROR, "could not run a statement: %s",
			 SPI_result_code_string(result));
}

/* queue_commit(), then back to the memory context cxt. */
void
upkeep_commit(bool durable, MemoryContext cxt)
{
	queue_commit(durable);
	MemoryContextSwitchTo(cxt);
}

/* A column (from 1) of a row (from 0) of what the last statement gave. */
Datum
upkeep_column(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
						 column, isnull);
}

/* The uuids of a column of what the last statement gave, in cxt. */
pg_uuid_t *
upkeep_ids(int column, MemoryContext cxt)
{
	pg_uuid_t  *ids = MemoryContextAllocHuge(cxt, Max(SPI_processed, 1) *
											 sizeof(pg_uuid_t));

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;

		ids[i] = *DatumGetUUIDP(upkeep_column(i, column, &isnull));
	}
	return ids;
}

/* A uuid[] in the current memory context. */
Datum
upkeep_id_array(const pg_uuid_t *ids, int n)
{
	Datum	   *values = palloc(Max(n, 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
		values[i] = UUIDPGetDatum(&ids[i]);
	return PointerGetDatum(construct_array(values, n, UUIDOID, UUID_LEN, false,
										   TYPALIGN_CHAR));
}

/* ---- jobs that are queued again ---- */

/*
 * Rows (owner, rank) of the last statement, one an owner, as a List of
 * OwnerJobs in cxt.
 */
List *
upkeep_owners(MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	List	   *owners = NIL;

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		OwnerJobs  *jobs = palloc0(sizeof(OwnerJobs));
		bool		isnull;

		jobs->owner = DatumGetObjectId(upkeep_column(i, 1, &isnull));
		jobs->rank = DatumGetTimestampTz(upkeep_column(i, 2, &isnull));
		owners = lappend(owners, jobs);
	}
	MemoryContextSwitchTo(old);
	return owners;
}

/* The sum of a column of counts over the rows of the last statement. */
int
upkeep_moved(int column)
{
	int			n = 0;

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;

		n += (int) DatumGetInt64(upkeep_column(i, column, &isnull));
	}
	return n;
}

/* After the commit: those owners have queued jobs from that rank on. */
void
upkeep_tell(List *owners)
{
	ListCell   *lc;

	foreach(lc, owners)
	{
		const OwnerJobs *jobs = lfirst(lc);

		board_tell(jobs->owner, jobs->rank);
	}
}

/* ---- jobs that have ended ---- */

static OwnerJobs *
find_owner(List *owners, Oid owner)
{
	ListCell   *lc;

	foreach(lc, owners)
	{
		OwnerJobs  *jobs = lfirst(lc);

		if (jobs->owner == owner)
			return jobs;
	}
	return NULL;
}

/*
 * Rows (id, owner, counted until now) of the last statement, in cxt.  Nobody
 * needs an answer for them any more.
 */
void
upkeep_ended(EndedJobs *ended, MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);

	ended->ids = upkeep_ids(1, cxt);
	ended->n = (int) SPI_processed;
	ended->owners = NIL;
	for (int i = 0; i < ended->n; i++)
	{
		bool		isnull;
		Oid			owner = DatumGetObjectId(upkeep_column(i, 2, &isnull));
		OwnerJobs  *jobs = find_owner(ended->owners, owner);

		if (jobs == NULL)
		{
			jobs = palloc0(sizeof(OwnerJobs));
			jobs->owner = owner;
			ended->owners = lappend(ended->owners, jobs);
		}
		if (DatumGetBool(upkeep_column(i, 3, &isnull)))
			jobs->unstarted++;
	}
	queue_unask_jobs(ended->ids, ended->n);
	MemoryContextSwitchTo(old);
}

/* After the commit: those jobs have ended. */
void
upkeep_tell_ended(const EndedJobs *ended)
{
	ListCell   *lc;

	foreach(lc, ended->owners)
	{
		const OwnerJobs *jobs = lfirst(lc);

		if (jobs->unstarted > 0)
			board_started(jobs->owner, jobs->unstarted);
	}
	if (ended->n > 0)
		waiter_notify(ended->ids, ended->n);
}

/* A job's error, as a value for SQL. */
Datum
upkeep_error(ErrorClass cls, const char *message, const char *detail,
			 const char *hint)
{
	return JsonbPGetDatum(step_error_json(step_error_make(cls, message, detail,
														  hint)));
}
