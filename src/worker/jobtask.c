/*
 * jobtask.c
 *	  What the plan of a job asks for: model calls, orders for executors,
 *	  waits; and what came of them.
 *
 * A task of a path whose checkpoint was read back ends at once.  A model call
 * starts as soon as the plan asks for it.  Statements and functions are
 * handed over when everything that the job has done so far is committed: so
 * that a statement never builds on an output which a crash would take away.
 *
 * Nothing is told to a plan from within a callback: what comes is put on
 * job->ended, and the plan hears of it when the job has its turn.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/settings.h"
#include "base/shared.h"
#include "base/value.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "text/helper.h"
#include "utils/timestamp.h"
#include "worker/caller.h"
#include "worker/convert.h"

/* ---- checkpoints of an earlier life ---- */

/* HashValueFunc and HashCompareFunc of keys that point at a path. */
uint32
jobtask_path_hash(const void *key, Size size)
{
	const char *path = *(char *const *) key;

	return hash_bytes((const unsigned char *) path, strlen(path));
}

int
jobtask_path_match(const void *a, const void *b, Size size)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

static JobCheckpoint *
find_checkpoint(Job *job, const char *path)
{
	if (job->checkpoints == NULL)
		return NULL;
	return hash_search(job->checkpoints, &path, HASH_FIND, NULL);
}

static PinnedChain *
pinned_of(Job *job, const Definition *definition)
{
	for (int i = 0; i < job->pinned->nchains; i++)
	{
		if (job->pinned->chains[i].definition == definition)
			return &job->pinned->chains[i];
	}
	elog(ERROR, "a chain is not of this job");
	return NULL;
}

/* ---- lists ---- */

static void
unlist(JobTask *jt)
{
	if (jt->listed)
		dlist_delete(&jt->node);
	jt->listed = false;
	if (jt->waiting)
	{
		pairingheap_remove(&jt->job->waits, &jt->wait);
		jt->job->nwaits--;
	}
	jt->waiting = false;
}

static void
list(JobTask *jt, dlist_head *head)
{
	unlist(jt);
	dlist_push_tail(head, &jt->node);
	jt->listed = true;
}

/* Something came of the task: the job has its turn soon. */
static void
ended(JobTask *jt)
{
	list(jt, &jt->job->ended);
	window_ready(jt->job);
}

/* ---- spans ---- */

static char *
copy_text(const char *text)
{
	return text ? pstrdup(text) : NULL;
}

/* The span as a row, in the current memory context. */
static SpanRow *
span_row(const Trace *trace, const Span *span, Oid owner)
{
	SpanRow    *row = palloc0(sizeof(SpanRow));

	row->job = trace->id;
	row->owner = owner;
	row->path = pstrdup(span->path);
	row->id = span->id;
	row->kind = span->kind;
	row->model = copy_text(span->model);
	row->version = copy_text(span->version);
	row->server = copy_text(span->server);
	row->started_at = trace_time(trace, span->started_us);
	row->sent_at = trace_time(trace, span->sent_us);
	row->first_byte_at = trace_time(trace, span->first_byte_us);
	row->ended_at = trace_time(trace, span->ended_us);
	row->tokens_in = span->tokens_in;
	row->tokens_out = span->tokens_out;
	row->http_status = span->http_status;
	row->attempt = span->attempt;
	row->reask = span->reask;
	row->cls = span->cls;
	row->message = copy_text(span->message);
	return row;
}

/* A row that stays until it is committed. */
static SpanRow *
keep_row(const SpanRow *row)
{
	SpanRow    *kept = palloc(sizeof(SpanRow));

	*kept = *row;
	kept->path = pstrdup(row->path);
	kept->model = copy_text(row->model);
	kept->version = copy_text(row->version);
	kept->server = copy_text(row->server);
	kept->message = copy_text(row->message);
	kept->output = json_copy(CurrentMemoryContext, row->output);
	return kept;
}

/*
 * TraceSink: an attempt of a model call is over.  A failure is written; a
 * success waits for its output, which the call has not delivered yet.
 */
void
jobtask_sink(Trace *trace, Span *span)
{
	JobTask    *jt = span->owner;
	MemoryContext old;

	if (jt != NULL && span->cls == CLASS_NONE)
	{
		old = MemoryContextSwitchTo(jt->task->cxt);
		jt->success = span_row(trace, span, trace->role);
		MemoryContextSwitchTo(old);
	}
	else if (jt != NULL)
	{
		SpanRow    *row;

		old = MemoryContextSwitchTo(save_context());
		row = span_row(trace, span, trace->role);
		row->try = jt->stored + ++jt->failures;
		MemoryContextSwitchTo(old);
		save_span(jt->job, row);
		pg_atomic_fetch_add_u64(&my_worker->errors, 1);
	}
	trace_free_span(trace, span);
}

/* Writes a row of a step; with output its checkpoint. */
static void
save_row(JobTask *jt, SpanRow *row, Jsonb *output)
{
	MemoryContext old = MemoryContextSwitchTo(save_context());

	row->output = output;
	save_span(jt->job, keep_row(row));
	MemoryContextSwitchTo(old);
}

/* The row of a step that this process has seen to itself, begun now. */
static SpanRow
own_row(const JobTask *jt, const char *kind)
{
	SpanRow		row = {0};

	row.job = jt->job->id;
	row.owner = jt->job->owner->owner;
	row.path = unconstify(char *, jt->task->path);
	row.id = ids_span();
	row.kind = kind;
	row.started_at = row.ended_at = GetCurrentTimestamp();
	row.tokens_in = row.tokens_out = -1;
	row.attempt = jt->task->attempt;
	return row;
}

/* Writes the failure of such a step. */
static void
save_failure(JobTask *jt, SpanRow *row, const StepError *error)
{
	row->cls = error->cls;
	row->message = error->message;
	row->try = jt->stored + ++jt->failures;
	save_row(jt, row, NULL);
}

/* ---- model calls ---- */

static void
call_done(void *arg, Jsonb *output, StepError *error)
{
	JobTask    *jt = arg;
	MemoryContext old = MemoryContextSwitchTo(jt->task->cxt);

	jt->call = NULL;
	jt->job->ncalls--;
	if (error != NULL)
		jt->error = step_error_copy(error);
	else
		jt->output = json_copy(jt->task->cxt, output);
	MemoryContextSwitchTo(old);
	ended(jt);
}

static void
call_work(void *arg)
{
	JobTask    *jt = arg;

	jt->call = call_start(caller.calls, &jt->task->call, call_done, jt);
}

/* What it raises may be about another job's call, which is tried again. */
static void
send_work(void *arg)
{
	call_send_waiting(caller.calls);
}

static void
start_call(JobTask *jt, const JobCheckpoint *before)
{
	Job		   *job = jt->job;
	StepError  *error;
	MemoryContext old = MemoryContextSwitchTo(job->cxt);

	jt->task->call.run = &job->run;
	jt->task->call.failed = before ? before->used : 0;
	error = bounded_run(call_work, jt, false);
	MemoryContextSwitchTo(old);
	if (error != NULL)
	{
		plan_fail(job->plan, jt->task, error);
		return;
	}
	job->ncalls++;
	list(jt, &job->calls);
	pg_atomic_fetch_add_u64(&my_worker->calls, 1);
	error = bounded_run(send_work, NULL, false);
	if (error != NULL)
		ereport(LOG,
				(errcode(error->sqlstate),
				 errmsg("could not send a model call: %s", error->message)));
}

/* ---- waits ---- */

/* The time that a wait's checkpoint names. */
static TimestampTz
stored_due(const Jsonb *output)
{
	bool		isnull;

	return DatumGetTimestampTz(value_to_datum(output, TIMESTAMPTZOID, -1,
											  &isnull));
}

/* A wait is checkpointed when it begins: its time must not move. */
static void
start_wait(JobTask *jt, const JobCheckpoint *before)
{
	Task	   *task = jt->task;

	if (before != NULL && before->output != NULL)
	{
		task->due = stored_due(before->output);
		task->params[0] = json_copy(task->cxt, before->output);
	}
	else
	{
		SpanRow		row = own_row(jt, "wait");

		row.ended_at = Max(task->due, row.started_at);
		save_row(jt, &row, task->params[0]);
	}
	pairingheap_add(&jt->job->waits, &jt->wait);
	jt->waiting = true;
	jt->job->nwaits++;
}

/* Order of job->waits: the heap's first is its largest. */
int
jobtask_compare_waits(const pairingheap_node *a, const pairingheap_node *b,
					  void *arg)
{
	TimestampTz x = pairingheap_const_container(JobTask, wait, a)->task->due;
	TimestampTz y = pairingheap_const_container(JobTask, wait, b)->task->due;

	return (x < y) - (x > y);
}

static JobTask *
first_wait(Job *job)
{
	if (pairingheap_is_empty(&job->waits))
		return NULL;
	return pairingheap_container(JobTask, wait, pairingheap_first(&job->waits));
}

/* Ends the waits whose time has come, a slice of them. */
void
jobtask_end_waits(Job *job)
{
	TimestampTz now = GetCurrentTimestamp();
	JobTask    *jt;

	/* what follows from one may cancel others: look anew each time */
	for (int n = 0; (jt = first_wait(job)) != NULL && jt->task->due <= now; n++)
	{
		if (n >= JOB_SLICE)
		{
			window_ready(job);
			return;
		}
		unlist(jt);
		plan_succeed(job->plan, jt->task, jt->task->params[0]);
	}
}

/* When the first of the waits ends, clock_us(); CLOCK_NEVER: there is none. */
int64
jobtask_next_wait(Job *job)
{
	JobTask    *jt = first_wait(job);
	TimestampTz now = GetCurrentTimestamp();
	int64		clock = clock_us();

	if (jt == NULL)
		return CLOCK_NEVER;
	if (jt->task->due <= now)	/* -infinity has no difference */
		return clock;
	return jt->task->due - now < CLOCK_NEVER - clock ?
		clock + (jt->task->due - now) : CLOCK_NEVER;
}

/* ---- orders ---- */

static void
hold(JobTask *jt)
{
	Job		   *job = jt->job;

	list(jt, &job->held);
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
		convert_inputs(pinned_of(job, task->definition), task->params[0],
					   &order);
	else if (task->kind == TASK_RESULT)
		convert_result(pinned_of(job, task->definition), task->params[0],
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
		ended(jt);
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
	list(jt, &jt->job->orders);
	return true;
}

/*
 * Hands over what the job holds, when all it has done is committed.  False:
 * something is still held.
 */
bool
jobtask_offer_held(Job *job)
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
jobtask_answer(const StepAnswer *answer)
{
	JobTask    *jt = answer->arg;
	MemoryContext old;

	jt->ticket = NULL;
	if (answer->died && answer->error->cls == CLASS_CRASH &&
		++jt->deaths < EXECUTOR_DEATHS)
	{
		list(jt, &jt->job->held);
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
							   convert_strict(pinned_of(jt->job, jt->task->definition),
											  answer->output));
	else
		jt->output = json_copy(jt->task->cxt, answer->output);
	MemoryContextSwitchTo(old);
	if (answer->died &&
		(jt->task->kind == TASK_SQL || jt->task->kind == TASK_FUNCTION))
	{
		SpanRow		row = own_row(jt, jt->task->kind == TASK_SQL ? "sql" :
								  "function");

		save_failure(jt, &row, jt->error);
	}
	ended(jt);
}

/* The output of the job becomes a value of its chain's type. */
void
jobtask_convert_output(Job *job)
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
	hold(jt);
	(void) jobtask_offer_held(job);
}

/* ---- chaincall's own helpers ---- */

typedef struct HelperArg
{
	JobTask    *jt;
	Jsonb	   *output;
} HelperArg;

static void
helper_work(void *arg)
{
	HelperArg  *helper = arg;
	Task	   *task = helper->jt->task;

	helper->output = helper_call(task->step->function->helper,
								 task->step->function->nargs,
								 task->step->function->arg_names,
								 task->params);
}

static void
run_helper(JobTask *jt)
{
	HelperArg	helper = {jt, NULL};
	Job		   *job = jt->job;
	SpanRow		row = own_row(jt, "function");
	StepError  *error;
	MemoryContext old = MemoryContextSwitchTo(job->cxt);
	MemoryContext scratch = AllocSetContextCreate(job->cxt, "chaincall helper",
												  ALLOCSET_DEFAULT_SIZES);

	MemoryContextSwitchTo(scratch);
	error = bounded_run(helper_work, &helper, false);
	MemoryContextSwitchTo(old);
	row.ended_at = GetCurrentTimestamp();
	if (error == NULL)
	{
		save_row(jt, &row, helper.output);
		plan_succeed(job->plan, jt->task, helper.output);
	}
	else
	{
		old = MemoryContextSwitchTo(job->cxt);
		error = step_error_copy(error);
		MemoryContextSwitchTo(old);
		save_failure(jt, &row, error);
		plan_fail(job->plan, jt->task, error);
	}
	MemoryContextDelete(scratch);
}

/* ---- what the plan is told ---- */

/* Raises when the job's owner has been dropped. */
static void
check_owner(void *arg)
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

/* Starts the task, or ends it by what an earlier life has left. */
void
jobtask_start(Job *job, Task *task)
{
	JobTask    *jt = MemoryContextAllocZero(task->cxt, sizeof(JobTask));
	JobCheckpoint *before = find_checkpoint(job, task->path);
	StepError  *error;

	jt->job = job;
	jt->task = task;
	jt->stored = before ? before->failures : 0;
	/* each attempt before has failed and is stored */
	jt->stored += task->attempt - 1;
	task->driver = jt;
	job->events++;
	if (task->kind == TASK_WAIT)
	{
		start_wait(jt, before);
		return;
	}
	if (before != NULL && before->output != NULL &&
		(task->kind == TASK_MODEL || task->kind == TASK_SQL ||
		 task->kind == TASK_FUNCTION))
	{
		plan_succeed(job->plan, task, before->output);
		return;
	}
	error = bounded_run(check_owner, job, false);
	if (error != NULL)
		plan_fail(job->plan, task, error);
	else if (task->kind == TASK_MODEL)
		start_call(jt, before);
	else if (task->kind == TASK_FUNCTION && task->step->function->helper)
		run_helper(jt);
	else
		hold(jt);
}

static void
tell(Job *job, JobTask *jt)
{
	StepError  *error = jt->error;

	job->events++;
	if (error != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(job->cxt);

		error = step_error_copy(error);
		MemoryContextSwitchTo(old);
		plan_fail(job->plan, jt->task, error);
		return;
	}
	if (jt->success != NULL)
		save_row(jt, jt->success, jt->output);
	plan_succeed(job->plan, jt->task, jt->output);
}

/*
 * Tells the plan what has come of its tasks, a slice of it.  False: it was the
 * conversion of the job's output, and the job has ended.
 */
bool
jobtask_tell(Job *job)
{
	for (int n = 0; !dlist_is_empty(&job->ended); n++)
	{
		JobTask    *jt = dlist_head_element(JobTask, node, &job->ended);

		if (n >= JOB_SLICE && !plan_ended(job->plan))
		{
			window_ready(job);
			break;
		}
		unlist(jt);
		if (jt != job->conversion)
		{
			tell(job, jt);
			continue;
		}
		job->output = jt->output;
		job_end_as(job, jt->error ? "failed" : "succeeded", jt->error);
		return false;
	}
	return true;
}

/*
 * Whatever the task does, it does no longer.  An answer that the plan has not
 * been told of is a checkpoint all the same: should the job be tried again, it
 * is not paid for twice.
 */
void
jobtask_drop(JobTask *jt)
{
	Job		   *job = jt->job;

	if (jt->success != NULL && jt->output != NULL)
		save_row(jt, jt->success, jt->output);
	jt->success = NULL;
	if (jt->call != NULL)
	{
		call_cancel(jt->call);
		job->ncalls--;
	}
	else if (jt->ticket != NULL)
	{
		handover_cancel(jt->ticket);
		job->norders--;
	}
	else if (jt->listed && jt->task->kind != TASK_WAIT &&
			 jt->output == NULL && jt->error == NULL)
		job->norders--;			/* held */
	jt->call = NULL;
	jt->ticket = NULL;
	air_leave(jt->air);
	jt->air = NULL;
	unlist(jt);
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

	check_owner(job);
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
jobtask_check_execute(Job *job, PinnedChain *chain)
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

	jobtask_check_execute(job, chain);
	return chain->definition;
}

static Jsonb **
op_inputs(void *driver, Definition *definition, const Jsonb *args,
		  bool *null_for_strict)
{
	*null_for_strict = false;
	return pin_inputs(pinned_of(driver, definition), args, null_for_strict);
}

static Jsonb *
op_result(void *driver, const Definition *definition, Jsonb *output)
{
	return pin_result(pinned_of(driver, definition), output);
}

const PlanOps job_plan_ops = {
	.evaluate = op_evaluate,
	.cancel = op_cancel,
	.nested = op_nested,
	.inputs = op_inputs,
	.result = op_result
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
