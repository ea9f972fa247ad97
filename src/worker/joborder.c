/*
 * joborder.c
 *	  What a job has executors do: statements, functions, and values of types
 *	  that only SQL can make.
 *
 * Orders are held until everything that the job has done so far is committed,
 * so that a statement never builds on an output which a crash would take away,
 * and until there is room for them.
 */
#include "postgres.h"

#include "base/json.h"
#include "base/shared.h"
#include "utils/memutils.h"
#include "worker/caller.h"
#include "worker/convert.h"

/* The task is one for an executor; it is handed over when it may be. */
void
joborder_hold(JobTask *jt)
{
	Job		   *job = jt->job;

	jobtask_list(jt, &job->held);
	job->norders++;
	window_hold(job);
}

/* Fills in what the pinned chain says of the step. */
static void
describe_step(StepOrder *order, const Task *task)
{
	const Step *step = task->step;

	if (task->kind == TASK_SQL)
	{
		order->kind = ORDER_SQL;
		order->sql = step->sql->text->sql;
		order->returns = step->sql->returns;
		order->nparams = step->sql->text->nparams;
	}
	else
	{
		order->kind = ORDER_FUNCTION;
		order->sql = step->function->sql;
		order->function = step->function->signature;
		order->set = step->function->set;
		order->nparams = step->function->nargs;
		order->types = step->function->arg_type_names;
	}
	order->params = task->params;
}

static StepOrder
make_order(JobTask *jt)
{
	Job		   *job = jt->job;
	Task	   *task = jt->task;
	StepOrder	order = {0};

	order.job = job->id;
	order.owner = job->owner->owner;
	order.chain = task->chain;
	order.path = task->path;
	order.line = task->step ? task->step->line : 1;
	order.attempt = task->attempt;
	order.tries = jt->stored + jt->failures;
	order.search_path = job->pinned->search_path;
	if (task->deadline_us != CLOCK_NEVER)
		order.timeout_ms = Max((task->deadline_us - clock_us()) / 1000, 1);
	if (task->kind == TASK_INPUTS)
		convert_inputs(jobtask_pinned(job, task->definition), task->params[0],
					   &order);
	else if (task->kind == TASK_RESULT)
		convert_result(jobtask_pinned(job, task->definition), task->params[0],
					   &order);
	else
		describe_step(&order, task);
	return order;
}

typedef struct OfferArg
{
	JobTask    *jt;
	Ticket	   *ticket;
} OfferArg;

static void
offer_work(void *arg)
{
	OfferArg   *offer = arg;
	StepOrder	order = make_order(offer->jt);

	offer->ticket = handover_offer(&order, offer->jt);
}

/* Hands a task over; false: there is no room just now. */
static bool
hand_over(JobTask *jt)
{
	OfferArg	offer = {jt, NULL};
	MemoryContext old = MemoryContextSwitchTo(jt->task->cxt);
	StepError  *error = bounded_run(offer_work, &offer, false);

	MemoryContextSwitchTo(old);
	if (error != NULL)
	{
		jt->error = error;
		jt->job->norders--;
		jobtask_ended(jt);
		return true;
	}
	if (offer.ticket == NULL)
		return false;
	jt->ticket = offer.ticket;
	if (jt->air == NULL && jt->task->step != NULL)
		jt->air = air_enter(AIR_STEP, &jt->job->id, jt->job->owner->owner,
							jt->task->path,
							jt->task->kind == TASK_SQL ? "sql" : "function",
							NULL);
	jobtask_list(jt, &jt->job->orders);
	return true;
}

/*
 * Hands over what the job holds, when all it has done is committed.  False:
 * something is still held.
 */
bool
joborder_offer_held(Job *job)
{
	if (job->unsaved > 0)
		return dlist_is_empty(&job->held);
	while (!dlist_is_empty(&job->held))
	{
		if (!hand_over(dlist_head_element(JobTask, node, &job->held)))
			return false;
	}
	window_unhold(job);
	return true;
}

/* An executor has answered. */
void
joborder_answer(const StepAnswer *answer)
{
	JobTask    *jt = answer->arg;
	MemoryContext old;

	jt->ticket = NULL;
	if (answer->died && answer->error->cls == CLASS_CRASH &&
		++jt->deaths < EXECUTOR_DEATHS)
	{
		jobtask_list(jt, &jt->job->held);
		window_hold(jt->job);
		window_ready(jt->job);
		return;
	}
	if (answer->died)
		jt->job->deaths = Max(jt->job->deaths, jt->deaths);
	jt->job->norders--;
	air_leave(jt->air);
	jt->air = NULL;
	old = MemoryContextSwitchTo(jt->task->cxt);
	if (answer->error != NULL)
		jt->error = step_error_copy(answer->error);
	else if (jt->task->kind == TASK_INPUTS)
		jt->output = json_copy(jt->task->cxt,
							   convert_strict(jobtask_pinned(jt->job, jt->task->definition),
											  answer->output));
	else
		jt->output = json_copy(jt->task->cxt, answer->output);
	MemoryContextSwitchTo(old);
	if (answer->died &&
		(jt->task->kind == TASK_SQL || jt->task->kind == TASK_FUNCTION))
	{
		SpanRow		row = jobspan_own(jt, jt->task->kind == TASK_SQL ? "sql" :
								  "function");

		jobspan_fail(jt, &row, jt->error);
	}
	jobtask_ended(jt);
}

/* An order is made for the output of the job to become a value of its type. */
void
joborder_convert_output(Job *job)
{
	MemoryContext cxt = AllocSetContextCreate(job->cxt, "chaincall task",
											  ALLOCSET_SMALL_SIZES);
	Task	   *task = MemoryContextAllocZero(cxt, sizeof(Task));
	JobTask    *jt = MemoryContextAllocZero(cxt, sizeof(JobTask));

	task->cxt = cxt;
	task->kind = TASK_RESULT;
	task->chain = job->pinned->chains[0].definition->name;
	task->path = "chain";
	task->attempt = 1;
	task->deadline_us = CLOCK_NEVER;
	task->definition = job->pinned->chains[0].definition;
	task->params = MemoryContextAlloc(cxt, sizeof(Jsonb *));
	task->params[0] = job->output;
	jt->job = job;
	jt->task = task;
	job->conversion = jt;
	joborder_hold(jt);
	(void) joborder_offer_held(job);
}
