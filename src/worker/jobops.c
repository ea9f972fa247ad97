/*
 * jobops.c
 *	  What the plan and the calls of a job ask their driver for: evaluation,
 *	  chains that are called, whether the owner may.
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/error.h"
#include "base/json.h"
#include "base/settings.h"
#include "chain/plan_given.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "worker/caller.h"

/* Bytes of a failed step's input that are kept for people. */
#define MAX_INPUT_KEPT (256 * 1024)

/* Raises when the job's owner has been dropped. */
void
jobops_check_owner(void *arg)
{
	Job		   *job = arg;

	if (SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(job->owner->owner)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_DENIED),
			 errmsg("the job's owner, role %u, no longer exists",
					job->owner->owner),
			 errhint("Enqueue the job again as another role.")));
}

/* ---- PlanOps ---- */

static StepError *
op_evaluate(void *driver, void (*work) (void *), void *arg, bool catchable,
			bool slow, int64 deadline_us)
{
	Job		   *job = driver;

	/*
	 * One outcome may lead to any number of evaluations, each in each, before
	 * the job as a whole is weighed; this is the plan's own context.
	 */
	if (MemoryContextMemAllocated(CurrentMemoryContext, false) / 1024 >
		(Size) setting_job_memory_kb)
	{
		job->weigh_at = job->events;
		return step_error_make(CLASS_LIMIT, "the job needs too much memory",
							   psprintf("At most %d MB are allowed.",
										setting_job_memory_kb / 1024),
							   "Raise chaincall.job_memory, or enqueue smaller jobs.");
	}
	return bounded_run(work, arg, slow);
}

static void
op_cancel(void *driver, Task *task)
{
	if (task->driver != NULL)
		jobtask_drop(task->driver);
}

/* Raises unless the owner may call the chain, which must be there. */
static void
check_execute(Job *job, const char *signature)
{
	Oid			function = chain_find_signature(signature);

	jobops_check_owner(job);
	if (!OidIsValid(function))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("chain %s does not exist", signature),
				 errdetail("It was dropped since the job was enqueued."),
				 errhint("Create it again and enqueue the job again.")));
	if (compat_proc_aclcheck(function, job->owner->owner,
							 ACL_EXECUTE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_DENIED),
				 errmsg("permission denied for chain %s", signature),
				 errdetail("The job's owner may not execute it."),
				 errhint("GRANT EXECUTE on it to the owner of the job.")));
}

/* The same for a chain of the job; what was found is kept while it holds. */
void
jobops_check_execute(Job *job, PinnedChain *chain)
{
	Oid			owner = job->owner->owner;
	uint64		generation = definition_generation();
	MemoryContext old;

	if (chain->allowed == owner && chain->allowed_in == generation)
		return;
	old = MemoryContextSwitchTo(caller.plan_scratch);
	check_execute(job, chain->signature);
	MemoryContextSwitchTo(old);
	chain->allowed = owner;
	chain->allowed_in = generation;
}

static Definition *
op_nested(void *driver, const FunctionStep *function)
{
	Job		   *job = driver;
	PinnedChain *chain = pin_find(job->pinned, function->signature);

	jobops_check_execute(job, chain);
	return chain->definition;
}

static Jsonb **
op_inputs(void *driver, Definition *definition, const Jsonb *args,
		  bool *null_for_strict)
{
	*null_for_strict = false;
	return pin_inputs(jobtask_pinned(driver, definition), args, null_for_strict);
}

static Jsonb *
op_result(void *driver, const Definition *definition, Jsonb *output)
{
	return pin_result(jobtask_pinned(driver, definition), output);
}

typedef struct AskedArg
{
	const Job  *job;
	const Task *task;
	Jsonb	   *input;
} AskedArg;

static void
asked_work(void *arg)
{
	AskedArg   *asked = arg;

	if (asked->task->kind == TASK_MODEL)
		asked->input = json_field(call_render(asked->job->owner->owner,
											  &asked->task->call), "body");
	else
		asked->input = plan_params(asked->task);
}

/* What cannot be rendered, or is larger than people look at, is not kept. */
static Jsonb *
op_asked(void *driver, const Task *task)
{
	AskedArg	asked = {driver, task, NULL};

	if (bounded_run(asked_work, &asked, false) != NULL ||
		asked.input == NULL || VARSIZE(asked.input) > MAX_INPUT_KEPT)
		return NULL;
	return asked.input;
}

const PlanOps job_plan_ops = {
	.evaluate = op_evaluate,
	.cancel = op_cancel,
	.nested = op_nested,
	.inputs = op_inputs,
	.result = op_result,
	.asked = op_asked
};

/* ---- CallGuards ---- */

static StepError *
guard_catalog(void (*work) (void *), void *arg)
{
	bool		own = !caller.in_transaction;
	StepError  *error;

	if (own)
		caller_transaction();
	error = bounded_run(work, arg, false);
	if (own)
		caller_transaction_end();
	return error;
}

static StepError *
guard_check(void (*work) (void *), void *arg)
{
	return bounded_run(work, arg, true);
}

const CallGuards job_guards = {
	.catalog = guard_catalog,
	.check = guard_check
};
