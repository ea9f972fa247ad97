/*
 * action.c
 *	  What people ask of jobs.
 *
 * A row of chaincall.action is pending until the job's own row shows what came
 * of it.  What a caller is told is only a hint (see message.h): if it dies
 * between being told and ending the job, the job is recovered, and the action,
 * still pending, is applied to the queued job.  So nothing depends on anything
 * but the two rows, whoever is killed when.
 *
 * Nobody is waited for: what is locked is put off.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "chain/local.h"
#include "miscadmin.h"
#include "queue/message.h"
#include "queue/queue.h"
#include "queue/upkeep.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#define MAX_PENDING 100000		/* that are looked at in one go */
#define BATCH 100				/* of them in a transaction */

typedef struct Action
{
	pg_uuid_t	id;
	pg_uuid_t	job;
	Oid			author;
	TimestampTz created_at;
	bool		is_cancel;
} Action;

/* The job of an action. */
typedef struct Target
{
	Oid			owner;
	char	   *state;
	uint64		worker;
	TimestampTz finished_at;
} Target;

/* What a transaction has done, for after its commit. */
typedef struct Outcome
{
	EndedJobs	ended;
	int			put_off;
	ErrorData  *error;			/* the first one; not of locks */
	bool		locked;			/* somebody holds a table or a row */
	MemoryContext cxt;
} Outcome;

static const char pending_sql[] =
"SELECT a.id, a.job, a.author, a.created_at, a.action = 'cancel' FROM chaincall.action a"
" WHERE a.state = 'pending' ORDER BY a.created_at, a.id LIMIT 100000";

static const char target_sql[] =
"SELECT q.owner, q.state, q.worker, q.finished_at FROM chaincall.job q WHERE q.id = $1";

static const char settle_sql[] =
"UPDATE chaincall.action a SET state = $2, reason = $3, applied_at = pg_catalog.clock_timestamp()"
" WHERE a.id = $1 AND a.state = 'pending'";

static const char cancel_sql[] =
"WITH picked AS MATERIALIZED (SELECT q.id FROM chaincall.job q"
"  WHERE q.id = $1 AND q.state IN ('queued', 'waiting') FOR UPDATE SKIP LOCKED)"
" UPDATE chaincall.job u SET state = 'cancelled', error = $2, worker = NULL, waits_on = NULL, finished_at = pg_catalog.clock_timestamp()"
" FROM picked p WHERE u.id = p.id RETURNING u.id, u.owner, u.started_at IS NULL";

static void
run_plan(SPIPlanPtr plan, Datum *values, const char *nulls)
{
	int			result = SPI_execute_plan(plan, values, nulls, false, 0);

	if (result < 0)
		elog(ERROR, "could not run a statement: %s",
			 SPI_result_code_string(result));
}

/* ---- reading ---- */

/* The pending ones in their order, in cxt. */
static int
read_pending(Action **actions, MemoryContext cxt)
{
	static SPIPlanPtr plan = NULL;
	int			n;

	queue_begin();
	run_plan(local_plan(&plan, pending_sql, 0, NULL), NULL, NULL);
	n = (int) SPI_processed;
	*actions = MemoryContextAlloc(cxt, Max(n, 1) * sizeof(Action));
	for (int i = 0; i < n; i++)
	{
		Action	   *action = &(*actions)[i];
		bool		isnull;

		action->id = *DatumGetUUIDP(upkeep_column(i, 1, &isnull));
		action->job = *DatumGetUUIDP(upkeep_column(i, 2, &isnull));
		action->author = DatumGetObjectId(upkeep_column(i, 3, &isnull));
		action->created_at = DatumGetTimestampTz(upkeep_column(i, 4, &isnull));
		action->is_cancel = DatumGetBool(upkeep_column(i, 5, &isnull));
	}
	upkeep_commit(false, cxt);
	return n;
}

static bool
read_target(const pg_uuid_t *job, Target *target)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDOID};
	Datum		values[] = {UUIDPGetDatum(job)};
	bool		isnull;

	run_plan(local_plan(&plan, target_sql, 1, types), values, NULL);
	if (SPI_processed == 0)
		return false;
	target->owner = DatumGetObjectId(upkeep_column(0, 1, &isnull));
	target->state = TextDatumGetCString(upkeep_column(0, 2, &isnull));
	target->worker = (uint64) DatumGetInt64(upkeep_column(0, 3, &isnull));
	target->finished_at = DatumGetTimestampTz(upkeep_column(0, 4, &isnull));
	if (isnull)
		target->finished_at = DT_NOBEGIN;
	return true;
}

/* ---- applying ---- */

static void
settle(const Action *action, const char *state, const char *reason)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDOID, TEXTOID, TEXTOID};
	Datum		values[3];

	values[0] = UUIDPGetDatum(&action->id);
	values[1] = CStringGetTextDatum(state);
	values[2] = reason ? CStringGetTextDatum(reason) : (Datum) 0;
	run_plan(local_plan(&plan, settle_sql, 3, types), values,
			 reason ? NULL : "  n");
}

/* False: somebody has locked the job, or a caller has just claimed it. */
static bool
cancel_queued(const Action *action, EndedJobs *ended)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDOID, JSONBOID};
	Datum		values[2];
	char	   *author = GetUserNameFromId(action->author, true);

	values[0] = UUIDPGetDatum(&action->job);
	values[1] = upkeep_error(CLASS_CANCELLED, "the job was cancelled",
							 author ? psprintf("By role \"%s\".", author) : NULL,
							 NULL);
	run_plan(local_plan(&plan, cancel_sql, 2, types), values, NULL);
	if (SPI_processed == 0)
		return false;
	upkeep_ended(ended, CurrentMemoryContext);
	settle(action, "applied", NULL);
	return true;
}

/*
 * A job that has ended: as was asked, if it was cancelled after that, else it
 * was too late.
 */
static void
cancel_ended(const Action *action, const Target *target)
{
	if (strcmp(target->state, "cancelled") == 0 &&
		target->finished_at >= action->created_at)
		settle(action, "applied", NULL);
	else
		settle(action, "refused",
			   psprintf("the job has already ended: %s", target->state));
}

/* Applies an action or refuses it; false: it is put off. */
static bool
apply(const Action *action, EndedJobs *ended)
{
	Target		target;

	if (!read_target(&action->job, &target) ||
		!has_privs_of_role(action->author, target.owner))
		settle(action, "refused", "there is no such job");
	else if (!action->is_cancel)
		settle(action, "refused", "this version can only cancel jobs");
	else if (strcmp(target.state, "running") == 0)
	{
		(void) message_send(target.worker, &action->job, MESSAGE_CANCEL);
		return false;
	}
	else if (strcmp(target.state, "queued") == 0 ||
			 strcmp(target.state, "waiting") == 0)
		return cancel_queued(action, ended);
	else
		cancel_ended(action, &target);
	return true;
}

/* ---- batches ---- */

static void
add_ended(Outcome *outcome, const EndedJobs *ended)
{
	EndedJobs  *all = &outcome->ended;
	MemoryContext old = MemoryContextSwitchTo(outcome->cxt);
	ListCell   *lc;

	for (int i = 0; i < ended->n; i++)
		all->ids[all->n++] = ended->ids[i];
	foreach(lc, ended->owners)
	{
		OwnerJobs  *jobs = palloc(sizeof(OwnerJobs));

		*jobs = *(OwnerJobs *) lfirst(lc);
		all->owners = lappend(all->owners, jobs);
	}
	MemoryContextSwitchTo(old);
}

static void
note_error(Outcome *outcome)
{
	ErrorData  *error;

	MemoryContextSwitchTo(outcome->cxt);
	error = CopyErrorData();
	FlushErrorState();
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		outcome->locked = true;
	else if (outcome->error == NULL)
		outcome->error = error;
}

/* One action in a subtransaction: an error puts it off. */
static void
apply_alone(const Action *action, Outcome *outcome)
{
	MemoryContext old = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	EndedJobs	ended = {NULL, 0, NIL};
	volatile bool done = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(old);
	PG_TRY();
	{
		done = apply(action, &ended);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(old);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		note_error(outcome);
		done = false;
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(old);
		CurrentResourceOwner = owner;
	}
	PG_END_TRY();
	if (done)
		add_ended(outcome, &ended);
	else
		outcome->put_off++;
}

/* Gives false when a lock was met: it would be met again. */
static bool
apply_batch(const Action *actions, int n, Outcome *outcome)
{
	outcome->ended.n = 0;
	outcome->ended.owners = NIL;
	queue_begin();
	upkeep_set("lock_timeout", "100ms");
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (outcome->locked)
			outcome->put_off++;
		else
			apply_alone(&actions[i], outcome);
	}
	upkeep_commit(true, outcome->cxt);
	upkeep_tell_ended(&outcome->ended);
	return !outcome->locked;
}

/*
 * Applies the pending actions that can be applied.  Gives how many are put
 * off: because of a lock, or until a caller has ended the job; call again
 * within a second while there are any.  Raises an error that one of them met,
 * after the others.
 */
int
queue_apply_actions(void)
{
	Outcome		outcome = {.cxt = CurrentMemoryContext};
	Action	   *actions;
	int			n = read_pending(&actions, outcome.cxt);
	int			i = 0;

	outcome.ended.ids = palloc(BATCH * sizeof(pg_uuid_t));
	while (i < n && !outcome.locked)
	{
		int			batch = Min(n - i, BATCH);

		(void) apply_batch(&actions[i], batch, &outcome);
		i += batch;
	}
	if (outcome.error != NULL)
		ReThrowError(outcome.error);
	return outcome.put_off + (n - i);
}
