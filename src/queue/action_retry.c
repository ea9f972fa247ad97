/*
 * action_retry.c
 *	  What is done about jobs that have failed, and about alerts.
 *
 * A job that is tried again stands in line as if it were enqueued now: a
 * person who has thousands tried again must not push aside what has come
 * since.  Its checkpoints hold, its attempts and deaths count anew.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "chain/local.h"
#include "miscadmin.h"
#include "queue/action.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* started_at stays, or is set: what has failed no longer counts as enqueued */
static const char requeue_sql[] =
"UPDATE chaincall.job SET state = 'queued', error = NULL, output = NULL, worker = NULL, deaths = 0,"
" finished_at = NULL, waits_on = NULL, deadlines = NULL, rank = $2,"
" started_at = coalesce(started_at, pg_catalog.clock_timestamp()), retried_at = pg_catalog.clock_timestamp()"
" WHERE id = $1";

static const char discard_sql[] =
"UPDATE chaincall.job SET state = 'cancelled' WHERE id = $1";

/*
 * acknowledged_at IS NULL, in words that keep the planner off the index of all
 * alerts that are open.
 */
#define IS_OPEN "coalesce(a.acknowledged_at, 'infinity') = 'infinity'"

/* a null for each that somebody has locked */
static const char letters_sql[] =
"SELECT l.id FROM chaincall.alert a LEFT JOIN LATERAL (SELECT b.id FROM chaincall.alert b WHERE b.id = a.id"
"  FOR UPDATE SKIP LOCKED) l ON true"
" WHERE a.job = $1 AND a.kind = 'dead_letter' AND " IS_OPEN;

static const char alert_sql[] =
"SELECT a.owner, a.acknowledged_at IS NOT NULL FROM chaincall.alert a WHERE a.id = $1";

static const char lock_alert_sql[] =
"SELECT a.id FROM chaincall.alert a WHERE a.id = $1 AND " IS_OPEN " FOR UPDATE SKIP LOCKED";

static const char acknowledge_sql[] =
"UPDATE chaincall.alert a SET acknowledged_by = $2, acknowledged_at = pg_catalog.clock_timestamp()"
" FROM pg_catalog.unnest($1) AS e(id) WHERE a.id = e.id AND " IS_OPEN;

/* ---- alerts ---- */

/* Locks the open dead letters of a job; false: somebody has one of them. */
bool
action_lock_letters(const pg_uuid_t *job, Datum *letters)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDOID};
	Datum		values[] = {UUIDPGetDatum(job)};

	action_run(local_plan(&plan, letters_sql, 1, types), values, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;

		(void) upkeep_column(i, 1, &isnull);
		if (isnull)
			return false;
	}
	*letters = upkeep_id_array(upkeep_ids(1, CurrentMemoryContext),
							   (int) SPI_processed);
	return true;
}

static void
acknowledge(const Action *action, Datum alerts)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDARRAYOID, OIDOID};
	Datum		values[] = {alerts, ObjectIdGetDatum(action->author)};

	action_run(local_plan(&plan, acknowledge_sql, 2, types), values, NULL);
}

/*
 * acknowledge(alert): the author has seen it.  One that belongs to nobody is a
 * superuser's.
 */
bool
action_acknowledge(const Action *action)
{
	static SPIPlanPtr plan = NULL;
	static SPIPlanPtr lock_plan = NULL;
	Oid			types[] = {UUIDOID};
	Datum		values[] = {UUIDPGetDatum(&action->subject)};
	bool		isnull;
	Oid			owner;

	action_run(local_plan(&plan, alert_sql, 1, types), values, NULL);
	if (SPI_processed == 0)
		return action_no_job(action);
	owner = DatumGetObjectId(upkeep_column(0, 1, &isnull));
	if (isnull ? !superuser_arg(action->author) :
		!has_privs_of_role(action->author, owner))
		return action_no_job(action);
	if (DatumGetBool(upkeep_column(0, 2, &isnull)))
		return action_refuse(action, "the alert is acknowledged already");
	action_run(local_plan(&lock_plan, lock_alert_sql, 1, types), values, NULL);
	if (SPI_processed == 0)
		return false;
	acknowledge(action, upkeep_id_array(&action->subject, 1));
	return action_done(action, NULL);
}

/* ---- failed jobs ---- */

/*
 * Reads and locks the failed job of an action.  False: there is nothing more to
 * do, and *settled says whether the action is settled or put off.
 */
static bool
take_failed(const Action *action, Target *target, Datum *letters,
			bool *settled)
{
	const pg_uuid_t *job = &action->subject;

	*settled = true;
	if (!action_target(job, false, target) ||
		!has_privs_of_role(action->author, target->owner))
		(void) action_no_job(action);
	else if (!action_has_ended(target))
		(void) action_refuse(action, psprintf("the job has not failed: it is %s",
											  target->state));
	else if (strcmp(target->state, "failed") != 0)
		(void) action_refuse_ended(action, target);
	/* only this process changes what has ended, so it is still the same */
	else if (!action_target(job, true, target) || !action_lock_letters(job, letters))
		*settled = false;
	else
		return true;
	return false;
}

static void
run_on_job(SPIPlanPtr plan, const pg_uuid_t *job, TimestampTz rank)
{
	Datum		values[] = {UUIDPGetDatum(job), TimestampTzGetDatum(rank)};

	action_run(plan, values, NULL);
	if (SPI_processed != 1)
		elog(ERROR, "a failed job is gone");
}

/*
 * The failed job, whose row and dead letters are the transaction's, is queued
 * again, and its dead letters are settled.
 */
bool
action_requeue(const Action *action, const Target *target, Datum letters,
			   Effects *effects)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDOID, TIMESTAMPTZOID};
	TimestampTz rank = board_rank(GetCurrentTimestamp(), target->priority);

	run_on_job(local_plan(&plan, requeue_sql, 2, types), &action->subject, rank);
	acknowledge(action, letters);
	action_queued(effects, target->owner, rank);
	return action_done(action, NULL);
}

/* Why a job whose expires_at has passed goes on no more. */
char *
action_time_is_up(const Target *target)
{
	return psprintf("the job's time was up at %s",
					timestamptz_to_str(target->expires_at));
}

/* Why a failed job cannot be tried again, or NULL. */
static const char *
why_not_again(const Target *target)
{
	if (target->expires_at <= GetCurrentTimestamp())
		return action_time_is_up(target);
	if (queue_definition(target->definition, CurrentMemoryContext) == NULL)
		return "the definition of the job's chain is gone";
	return NULL;
}

/* retry(job) and retry(job, step, input) */
bool
action_retry(const Action *action, Effects *effects)
{
	Target		target;
	Datum		letters;
	bool		settled;
	const char *why;

	if (!take_failed(action, &target, &letters, &settled))
		return settled;
	why = why_not_again(&target);
	if (why == NULL && action->step != NULL)
		why = action_input_fault(action, &target);
	if (why != NULL)
		return action_refuse(action, why);
	return action_requeue(action, &target, letters, effects);
}

/* discard(job): nobody will try it again. */
bool
action_discard(const Action *action)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDOID, TIMESTAMPTZOID};
	Target		target;
	Datum		letters;
	bool		settled;

	if (!take_failed(action, &target, &letters, &settled))
		return settled;
	run_on_job(local_plan(&plan, discard_sql, 2, types), &action->subject, 0);
	acknowledge(action, letters);
	return action_done(action, NULL);
}
