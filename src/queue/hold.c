/*
 * hold.c
 *	  Jobs that wait because somebody has paused their chain or a model that
 *	  they call, and are let go when it is resumed.
 *
 * What such a job waits on is in its row.  There are few different things to
 * wait on, however many jobs do, and one index probe finds the next of them.
 */
#include "postgres.h"

#include "base/clock.h"
#include "catalog/catalog.h"
#include "catalog/pg_type.h"
#include "chain/local.h"
#include "miscadmin.h"
#include "queue/queue.h"
#include "queue/upkeep.h"
#include "utils/builtins.h"

#define PART_US 200000

static const char held_sql[] =
"WITH RECURSIVE h AS ("
" (SELECT q.waits_on FROM chaincall.job q WHERE q.state = 'waiting' AND q.waits_on IS NOT NULL ORDER BY q.waits_on LIMIT 1)"
" UNION ALL"
" SELECT n.waits_on FROM h, LATERAL (SELECT q.waits_on FROM chaincall.job q"
"  WHERE q.state = 'waiting' AND q.waits_on > h.waits_on ORDER BY q.waits_on LIMIT 1) n)"
" SELECT h.waits_on FROM h";

static const char let_go_sql[] =
"WITH picked AS MATERIALIZED ("
" SELECT q.id FROM chaincall.job q WHERE q.state = 'waiting' AND q.waits_on = $1 LIMIT 1000 FOR UPDATE SKIP LOCKED),"
" moved AS (UPDATE chaincall.job u SET state = 'queued', waits_on = NULL, run_at = pg_catalog.clock_timestamp()"
"  FROM picked p WHERE u.id = p.id RETURNING u.owner, u.rank)"
" SELECT m.owner, pg_catalog.min(m.rank), pg_catalog.count(*) FROM moved m GROUP BY m.owner";

/* Is what the jobs wait on paused no more, or gone? */
static bool
may_go(const char *waits_on)
{
	const char *name;
	const ModelInfo *model;

	name = strchr(waits_on, ' ');
	if (name == NULL)
		return false;
	name++;
	if (strncmp(waits_on, "chain ", name - waits_on) == 0)
		return !catalog_chain_paused(name);
	if (strncmp(waits_on, "model ", name - waits_on) != 0)
		return false;
	model = catalog_model(name, true);
	return model == NULL || !model->paused;
}

/* What jobs wait on that they need not any more; of char *, in cxt. */
static List *
read_resumed(MemoryContext cxt)
{
	static SPIPlanPtr plan = NULL;
	List	   *resumed = NIL;
	SPITupleTable *table;
	uint64		n;

	queue_begin();
	if (SPI_execute_plan(local_plan(&plan, held_sql, 0, NULL), NULL, NULL,
						 false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for jobs that are held");
	table = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
	{
		MemoryContext old;
		char	   *waits_on = SPI_getvalue(table->vals[i], table->tupdesc, 1);

		if (!may_go(waits_on))
			continue;
		old = MemoryContextSwitchTo(cxt);
		resumed = lappend(resumed, pstrdup(waits_on));
		MemoryContextSwitchTo(old);
	}
	upkeep_commit(false, cxt);
	return resumed;
}

/* One batch; how many. */
static int
let_go_batch(const char *waits_on)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext cxt = CurrentMemoryContext;
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(waits_on)};
	List	   *owners;
	int			n;

	queue_begin();
	if (SPI_execute_plan(local_plan(&plan, let_go_sql, 1, types), values, NULL,
						 false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not let jobs go");
	n = upkeep_moved(3);
	owners = upkeep_owners(cxt);
	/* a crash takes nothing away: they would be let go again */
	upkeep_commit(false, cxt);
	upkeep_tell(owners);
	return n;
}

/*
 * Queues the jobs that wait on a chain or model which is not paused, for a
 * while; true: there are more, call again when others have had their turn.
 * Those that somebody has locked are left for the next time.
 */
bool
queue_let_go(void)
{
	int64		until_us = clock_us() + PART_US;
	List	   *resumed = read_resumed(CurrentMemoryContext);
	ListCell   *lc;

	foreach(lc, resumed)
	{
		while (let_go_batch(lfirst(lc)) == UPKEEP_BATCH)
		{
			CHECK_FOR_INTERRUPTS();
			if (clock_us() >= until_us)
				return true;
		}
	}
	return false;
}
