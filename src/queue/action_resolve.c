/*
 * action_resolve.c
 *	  Outputs that people give: of a step that has failed, to a question.
 *
 * What is given becomes the step's checkpoint, so that whoever drives the job
 * finds it as it finds any other.  While a job has not failed only its asks can
 * be answered.  The job's row is locked before anything is looked at and until
 * the commit: its caller parks it only with that row locked, so either it sees
 * the answer or we see it waiting.
 */
#include "postgres.h"

#include "base/ids.h"
#include "base/shared.h"
#include "catalog/pg_type.h"
#include "chain/local.h"
#include "queue/action.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

static const char question_sql[] =
"SELECT q.to_role FROM chaincall.question q WHERE q.job = $1 AND q.path = $2";

/* IS NOT DISTINCT FROM keeps the planner off the index of all that wait for answers */
static const char wake_sql[] =
"UPDATE chaincall.job SET state = 'queued', waits_on = NULL, run_at = pg_catalog.clock_timestamp()"
" WHERE id = $1 AND state IS NOT DISTINCT FROM 'waiting' AND waits_on IS NOT DISTINCT FROM 'answer' RETURNING owner, rank";

static void
run_on_step(SPIPlanPtr plan, const Action *action)
{
	Datum		values[2];

	values[0] = UUIDPGetDatum(&action->subject);
	values[1] = CStringGetTextDatum(action->step);
	action_run(plan, values, NULL);
}

/* ---- the check of what is given ---- */

typedef struct CheckArg
{
	const Step *step;
	const Jsonb *output;
	Jsonb	   *fitting;		/* NULL: it does not fit */
	char	   *why;
} CheckArg;

static void
check_work(void *arg)
{
	CheckArg   *check = arg;

	check->fitting = plan_given_output(check->step, check->output, &check->why);
}

/*
 * The output in the form that it is stored in, or NULL and *why: it cannot be
 * the step's, or the step has one already.
 */
static Jsonb *
fitting_output(const Action *action, const Target *target, const Step *step,
			   char **why)
{
	CheckArg	check = {step, action->output, NULL, NULL};
	StepError  *error;

	if (!action_step_open(action, target))
	{
		/* its caller may have died between the answer and the end of the step */
		queue_unask(&action->subject, action->step);
		*why = psprintf(step->kind == STEP_ASK ? "step %s is answered already" :
						"step %s has succeeded already", action->step);
		return NULL;
	}
	error = queue_bounded(check_work, &check, true);
	/* what ran is given up: so is the subtransaction */
	if (error != NULL)
		step_error_throw(error);
	*why = check.why;
	return check.fitting;
}

/* ---- the checkpoint ---- */

static const char *
span_kind(const Step *step)
{
	switch (step->kind)
	{
		case STEP_MODEL:
			return "model";
		case STEP_SQL:
			return "sql";
		case STEP_ASK:
			return "ask";
		default:
			return "function";
	}
}

static void
store(const Action *action, const Target *target, const Step *step,
	  Jsonb *output)
{
	SpanRow		row = {0};
	SpanRow    *rows = &row;

	row.job = action->subject;
	row.owner = target->owner;
	row.path = action->step;
	row.id = ids_span();
	row.kind = span_kind(step);
	row.started_at = row.ended_at = GetCurrentTimestamp();
	row.tokens_in = row.tokens_out = -1;
	row.attempt = 1;
	row.message = psprintf("resolved by %s", action_author(action));
	row.output = output;
	queue_checkpoint(&rows, 1, my_worker->incarnation);
}

/* ---- a job that has failed ---- */

static bool
resolve_failed(const Action *action, const Target *target, Effects *effects)
{
	char	   *why;
	const Step *step = action_find_step(action, target, &why);
	Jsonb	   *output;
	Datum		letters;

	if (target->expires_at <= GetCurrentTimestamp())
		return action_refuse(action, action_time_is_up(target));
	if (step == NULL)
		return action_refuse(action, why);
	output = fitting_output(action, target, step, &why);
	if (output == NULL)
		return action_refuse(action, why);
	if (!action_lock_letters(&action->subject, &letters))
		return false;
	store(action, target, step, output);
	return action_requeue(action, target, letters, effects);
}

/* ---- a question ---- */

/* Whom the open question of the action's path is for; false: there is none. */
static bool
read_question(const Action *action, Oid *role)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDOID, TEXTOID};
	bool		isnull;
	Datum		datum;

	run_on_step(local_plan(&plan, question_sql, 2, types), action);
	if (SPI_processed == 0)
		return false;
	datum = upkeep_column(0, 1, &isnull);
	*role = isnull ? InvalidOid : DatumGetObjectId(datum);
	return true;
}

/*
 * Whom the step asks, come to or not, as far as its chain says so outright.
 * Items of an each are answered when they ask, not before: nobody knows how
 * many there will be, and a stranger could fill the job with answers.
 */
static Oid
asked_role(const Action *action, const Target *target)
{
	char	   *why;
	bool		item;
	const Step *step = action_find_item(action, target, &why, &item);

	if (step == NULL || item || step->kind != STEP_ASK ||
		step->ask->to == NULL || !template_is_constant(step->ask->to))
		return InvalidOid;
	return get_role_oid(template_text(step->ask->to, NULL, NULL), true);
}

/* May the author answer though the job is none of his? */
static bool
is_asked(const Action *action, const Target *target)
{
	Oid			role;

	if (!read_question(action, &role))
		role = asked_role(action, target);
	return OidIsValid(role) && has_privs_of_role(action->author, role);
}

/* The job goes on: who runs it is told, or it is queued. */
static void
wake(const Action *action, const Target *target, Effects *effects)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDOID};
	Datum		values[] = {UUIDPGetDatum(&action->subject)};
	bool		isnull;

	if (strcmp(target->state, "running") == 0)
	{
		AnswerFor  *answer = palloc(sizeof(AnswerFor));

		answer->worker = target->worker;
		answer->job = action->subject;
		effects->answers = lappend(effects->answers, answer);
		return;
	}
	action_run(local_plan(&plan, wake_sql, 1, types), values, NULL);
	if (SPI_processed > 0)
		action_queued(effects, DatumGetObjectId(upkeep_column(0, 1, &isnull)),
					  DatumGetTimestampTz(upkeep_column(0, 2, &isnull)));
}

/*
 * Of a job that has not ended only asks can be answered, those too that it has
 * not come to yet.
 */
static bool
resolve_unfinished(const Action *action, const Target *target,
				   Effects *effects)
{
	char	   *why;
	const Step *step = action_find_step(action, target, &why);
	Jsonb	   *output;

	if (step == NULL)
		return action_refuse(action, why);
	if (step->kind != STEP_ASK)
		return action_refuse(action, psprintf("the job has not failed: it is %s, and only asks of it can be answered",
											  target->state));
	output = fitting_output(action, target, step, &why);
	if (output == NULL)
		return action_refuse(action, why);
	store(action, target, step, output);
	queue_unask(&action->subject, action->step);
	wake(action, target, effects);
	return action_done(action, NULL);
}

/* resolve(job, step, output) */
bool
action_resolve(const Action *action, Effects *effects)
{
	const pg_uuid_t *job = &action->subject;
	Target		target;

	if (!action_target(job, false, &target))
		return action_no_job(action);
	if (!action_target(job, true, &target))
		return false;
	if (!has_privs_of_role(action->author, target.owner) &&
		(action_has_ended(&target) || !is_asked(action, &target)))
		return action_no_job(action);
	if (!action_has_ended(&target))
		return resolve_unfinished(action, &target, effects);
	if (strcmp(target.state, "failed") != 0)
		return action_refuse_ended(action, &target);
	return resolve_failed(action, &target, effects);
}
