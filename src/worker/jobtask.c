/*
 * jobtask.c
 *	  What the plan of a job asks for, and what came of it.
 *
 * A task of a path whose checkpoint was read back ends at once.  A model call
 * starts as soon as the plan asks for it; statements and functions go to
 * joborder.c, questions to jobask.c; waits and chaincall's own helpers are seen
 * to here.
 *
 * Nothing is told to a plan from within a callback: what comes is put on
 * job->ended, and the plan hears of it when the job has its turn.
 */
#include "postgres.h"

#include "base/error.h"
#include "base/json.h"
#include "base/shared.h"
#include "base/value.h"
#include "catalog/pg_type.h"
#include "chain/plan_given.h"
#include "common/hashfn.h"
#include "text/helper.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/caller.h"

/* ---- checkpoints of an earlier life ---- */

/* HashValueFunc and HashCompareFunc of keys that point at a path. */
static uint32
path_hash(const void *key, Size size)
{
	const char *path = *(char *const *) key;

	return hash_bytes((const unsigned char *) path, strlen(path));
}

static int
path_match(const void *a, const void *b, Size size)
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

static void
make_checkpoints(Job *job, int n)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(char *);
	ctl.entrysize = sizeof(JobCheckpoint);
	ctl.hash = path_hash;
	ctl.match = path_match;
	ctl.hcxt = job->cxt;
	job->checkpoints = hash_create("chaincall checkpoints", n, &ctl,
								   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE |
								   HASH_CONTEXT);
}

/* The checkpoint of a path, made where there is none; n: how many will come. */
static JobCheckpoint *
need_checkpoint(Job *job, const char *path, int n)
{
	JobCheckpoint *kept = find_checkpoint(job, path);
	char	   *own;

	if (kept != NULL)
		return kept;
	if (job->checkpoints == NULL)
		make_checkpoints(job, n);
	own = MemoryContextStrdup(job->cxt, path);
	kept = hash_search(job->checkpoints, &own, HASH_ENTER, NULL);
	kept->output = NULL;
	kept->given = NULL;
	kept->failures = kept->used = 0;
	return kept;
}

/* Keeps what is stored of an earlier life, a List of Checkpoint. */
void
jobtask_keep_checkpoints(Job *job, List *checkpoints)
{
	ListCell   *lc;

	foreach(lc, checkpoints)
	{
		const Checkpoint *from = lfirst(lc);
		JobCheckpoint *kept = need_checkpoint(job, from->path,
											  list_length(checkpoints));

		kept->output = json_copy(job->cxt, from->output);
		kept->failures = from->failures;
		kept->used = from->used;
	}
}

/* Keeps what a person has given as inputs, a List of GivenInput. */
void
jobtask_keep_given(Job *job, List *given)
{
	ListCell   *lc;

	foreach(lc, given)
	{
		const GivenInput *from = lfirst(lc);

		need_checkpoint(job, from->path, list_length(given))->given =
			json_copy(job->cxt, from->input);
	}
}

/*
 * What came of a task whose path may come again in this life: what is done is
 * not done again then.
 */
void
jobtask_remember(JobTask *jt, const Jsonb *output)
{
	JobCheckpoint *kept;

	if (!jt->task->repeatable)
		return;
	kept = need_checkpoint(jt->job, jt->task->path, 16);
	kept->failures = Max(kept->failures, jt->stored + jt->failures);
	kept->used = 0;
	if (output != NULL)
		kept->output = json_copy(jt->job->cxt, output);
}

/* The job's chain with that definition. */
PinnedChain *
jobtask_pinned(Job *job, const Definition *definition)
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

/* The task is in no list of its job's any more. */
void
jobtask_unlist(JobTask *jt)
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
	if (jt->asking)
		jt->job->nasks--;
	jt->asking = false;
}

/* The task is in that list of its job's, and in no other any more. */
void
jobtask_list(JobTask *jt, dlist_head *head)
{
	jobtask_unlist(jt);
	dlist_push_tail(head, &jt->node);
	jt->listed = true;
}

/* Something came of the task: the job has its turn soon. */
void
jobtask_ended(JobTask *jt)
{
	jobtask_list(jt, &jt->job->ended);
	window_ready(jt->job);
}

/* ---- model calls ---- */

static void
call_done(void *arg, Jsonb *output, StepError *error)
{
	JobTask    *jt = arg;
	MemoryContext old = MemoryContextSwitchTo(jt->task->cxt);

	jt->call = NULL;
	window_count_call(jt->job, -1);
	if (error != NULL)
		jt->error = step_error_copy(error);
	else
		jt->output = json_copy(jt->task->cxt, output);
	MemoryContextSwitchTo(old);
	jobtask_ended(jt);
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
	window_count_call(job, 1);
	jobtask_list(jt, &job->calls);
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
		SpanRow		row = jobspan_own(jt, "wait");

		row.ended_at = Max(task->due, row.started_at);
		jobspan_save(jt, &row, task->params[0]);
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
		jobtask_unlist(jt);
		jobtask_remember(jt, jt->task->params[0]);
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
	SpanRow		row = jobspan_own(jt, "function");
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
		jobspan_save(jt, &row, helper.output);
		jobtask_remember(jt, helper.output);
		plan_succeed(job->plan, jt->task, helper.output);
	}
	else
	{
		old = MemoryContextSwitchTo(job->cxt);
		error = step_error_copy(error);
		MemoryContextSwitchTo(old);
		jobspan_fail(jt, &row, error);
		jobtask_remember(jt, NULL);
		plan_fail(job->plan, jt->task, error);
	}
	MemoryContextDelete(scratch);
}

/* ---- what the plan is told ---- */

typedef struct PrepareArg
{
	Job		   *job;
	Task	   *task;
	Jsonb	   *given;			/* by a person; NULL: as rendered */
} PrepareArg;

static void
prepare_work(void *arg)
{
	PrepareArg *prepare = arg;

	jobops_check_owner(prepare->job);
	if (prepare->given != NULL)
		plan_give_input(prepare->task, prepare->given);
}

static StepError *
prepare(Job *job, Task *task, const JobCheckpoint *before)
{
	PrepareArg	arg = {job, task, before ? before->given : NULL};
	MemoryContext old = MemoryContextSwitchTo(job->cxt);
	StepError  *error = bounded_run(prepare_work, &arg, false);

	MemoryContextSwitchTo(old);
	return error;
}

/* A step that does something, rather than a wait or a conversion. */
static bool
has_input(const Task *task)
{
	return task->kind == TASK_MODEL || task->kind == TASK_SQL ||
		task->kind == TASK_FUNCTION;
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
	/* each attempt before has failed and is stored, or remembered */
	if (!task->repeatable)
		jt->stored += task->attempt - 1;
	task->driver = jt;
	job->events++;
	if (task->kind == TASK_WAIT)
	{
		start_wait(jt, before);
		return;
	}
	if (before != NULL && before->output != NULL && has_input(task))
	{
		plan_succeed(job->plan, task, before->output);
		return;
	}
	if (task->kind == TASK_ASK)
	{
		jobask_start(jt, before ? before->output : NULL);
		return;
	}
	/* too late, and nothing of it is stored: the plan gives it up next */
	if (job->catching_up && task->deadline_us <= clock_us())
		return;
	error = prepare(job, task, has_input(task) ? before : NULL);
	if (error != NULL)
		plan_fail(job->plan, task, error);
	else if (task->kind == TASK_MODEL)
		start_call(jt, before);
	else if (task->kind == TASK_FUNCTION && task->step->function->helper)
		run_helper(jt);
	else
		joborder_hold(jt);
}

static void
tell(Job *job, JobTask *jt)
{
	StepError  *error = jt->error;

	job->events++;
	jobtask_remember(jt, error == NULL ? jt->output : NULL);
	if (error != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(job->cxt);

		error = step_error_copy(error);
		MemoryContextSwitchTo(old);
		plan_fail(job->plan, jt->task, error);
		return;
	}
	if (jt->success != NULL)
		jobspan_save(jt, jt->success, jt->output);
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
		jobtask_unlist(jt);
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
	{
		jobspan_save(jt, jt->success, jt->output);
		jobtask_remember(jt, jt->output);
	}
	jt->success = NULL;
	if (jt->call != NULL)
	{
		call_cancel(jt->call);
		window_count_call(job, -1);
	}
	else if (jt->ticket != NULL)
	{
		handover_cancel(jt->ticket);
		job->norders--;
	}
	else if (jt->task->kind == TASK_ASK)
		jobask_drop(jt);
	else if (jt->listed && jt->task->kind != TASK_WAIT &&
			 jt->output == NULL && jt->error == NULL)
		job->norders--;			/* held */
	jt->call = NULL;
	jt->ticket = NULL;
	air_leave(jt->air);
	jt->air = NULL;
	jobtask_unlist(jt);
}
