/*
 * jobask.c
 *	  What a job asks people and other systems, and what they have answered.
 *
 * An answer is a checkpoint that somebody else has written: the maintainer,
 * when it applies a resolve().  It may be there before the step begins, so the
 * step looks once.  After that the caller is told (MESSAGE_ANSWER), and where
 * the message got lost a look now and then finds it, or the parking of the job
 * does (see finish.c).  An answer that does not fit is put aside as a failed
 * try and the question is put again.
 *
 *		start ─► stored? ─► fits ─► done
 *		            │ no      │ no: put aside
 *		            ▼         ▼
 *		           open (question) ─► told, looked ─► fits ─► done
 */
#include "postgres.h"

#include "base/error.h"
#include "base/ids.h"
#include "base/json.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/caller.h"

/* A message may get lost: the answers to a job in hand are looked for so often. */
#define LOOK_US 5000000

/* ---- what is stored ---- */

typedef struct LookArg
{
	JobTask    *jt;
	Jsonb	   *output;
} LookArg;

static void
look_work(void *arg)
{
	LookArg    *look = arg;
	Task	   *task = look->jt->task;

	look->output = queue_checkpoint_output(&look->jt->job->id, task->path,
										   task->cxt);
}

typedef struct CheckArg
{
	const Shape *shape;
	Jsonb	   *answer;
	Jsonb	   *value;
	char	   *why;
} CheckArg;

static void
check_work(void *arg)
{
	CheckArg   *check = arg;

	check->value = ask_check(check->shape, check->answer, &check->why);
}

/* ---- questions ---- */

static QuestionRow *
make_row(const JobTask *jt)
{
	QuestionRow *row = palloc0(sizeof(QuestionRow));

	row->job = jt->job->id;
	row->path = pstrdup(jt->task->path);
	return row;
}

/* The stored answer is put aside. */
static void
refuse(JobTask *jt, const char *why)
{
	MemoryContext old = MemoryContextSwitchTo(save_context());
	QuestionRow *row = make_row(jt);

	row->try = jt->stored + ++jt->failures;
	row->why = pstrdup(why);
	MemoryContextSwitchTo(old);
	saveask_put(jt->job, ASK_REFUSE, row);
}

/* When nobody needs an answer any more. */
static TimestampTz
expiry(const JobTask *jt, TimestampTz now)
{
	TimestampTz expires_at = jt->job->expires_at;
	int64		deadline_us = jt->task->deadline_us;

	if (deadline_us != CLOCK_NEVER)
		expires_at = Min(expires_at, now + (deadline_us - clock_us()));
	return expires_at;
}

static void
put_question(JobTask *jt, Oid role)
{
	Job		   *job = jt->job;
	const AskSpec *ask = &jt->task->ask;
	MemoryContext cxt = save_context();
	MemoryContext old = MemoryContextSwitchTo(cxt);
	QuestionRow *row = make_row(jt);

	ids_uuid7(&row->id);
	row->owner = job->owner->owner;
	row->to_role = role;
	row->question = pstrdup(ask->question);
	row->show = json_copy(cxt, ask->show);
	row->returns = json_copy(cxt, ask_schema(jt->task->step->ask->shape));
	row->created_at = GetCurrentTimestamp();
	row->expires_at = expiry(jt, row->created_at);
	MemoryContextSwitchTo(old);
	saveask_put(job, ASK_OPEN, row);
}

typedef struct RoleArg
{
	Job		   *job;
	const char *name;			/* NULL: the owner's privileges are needed */
	Oid			role;
} RoleArg;

static void
role_work(void *arg)
{
	RoleArg    *role = arg;

	jobops_check_owner(role->job);
	if (role->name == NULL)
		return;
	role->role = get_role_oid(role->name, true);
	if (!OidIsValid(role->role))
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("role \"%.*s\" does not exist", NAMEDATALEN - 1,
						role->name),
				 errdetail("It is who \"to\" of the step names."),
				 errhint("Create the role, or name another one.")));
}

/* Nobody needs an answer any more; the row may be an earlier life's. */
static void
close_question(JobTask *jt)
{
	MemoryContext old = MemoryContextSwitchTo(save_context());
	QuestionRow *row = make_row(jt);

	MemoryContextSwitchTo(old);
	saveask_put(jt->job, ASK_CLOSE, row);
}

/*
 * The step is about to end.  Who answers deletes the question's row, but may
 * have done so before we wrote it.
 */
static void
end_ask(JobTask *jt)
{
	if (jt->asking)
		close_question(jt);
	jobtask_unlist(jt);
}

static void
fail(JobTask *jt, StepError *error)
{
	SpanRow		row = jobspan_own(jt, "ask");

	jobspan_fail(jt, &row, error);
	jobtask_remember(jt, NULL);
	end_ask(jt);
	plan_fail(jt->job->plan, jt->task, error);
}

/* Puts the question, or the step fails. */
static void
ask(JobTask *jt)
{
	Job		   *job = jt->job;
	RoleArg		role = {job, jt->task->ask.to, InvalidOid};
	MemoryContext old = MemoryContextSwitchTo(job->cxt);
	StepError  *error = bounded_run(role_work, &role, false);

	if (error == NULL && strlen(jt->task->path) > MAX_SPAN_PATH)
		error = step_error_make(CLASS_LIMIT, "the path of a step is too long",
								psprintf("It has %zu bytes, at most %d are allowed.",
										 strlen(jt->task->path), MAX_SPAN_PATH),
								"Nest less deeply, or give shorter names.");
	MemoryContextSwitchTo(old);
	if (error != NULL)
	{
		fail(jt, error);
		return;
	}
	put_question(jt, role.role);
	job->asked = true;
}

/* ---- answers ---- */

/*
 * What becomes of the stored answer: true when the step has ended by it, and
 * the task is gone; else it did not fit and is put aside.
 */
static bool
take(JobTask *jt, Jsonb *answer)
{
	Job		   *job = jt->job;
	CheckArg	check = {jt->task->step->ask->shape, answer, NULL, NULL};
	StepError  *error;
	/* what it makes goes with the task */
	MemoryContext old = MemoryContextSwitchTo(jt->task->cxt);

	error = bounded_run(check_work, &check, true);
	MemoryContextSwitchTo(job->cxt);
	if (error != NULL)
		error = step_error_copy(error);
	MemoryContextSwitchTo(old);
	if (error != NULL)
	{
		end_ask(jt);
		plan_fail(job->plan, jt->task, error);
		return true;
	}
	if (check.value != NULL)
	{
		jobtask_remember(jt, check.value);
		end_ask(jt);
		plan_succeed(job->plan, jt->task, check.value);
		return true;
	}
	refuse(jt, check.why);
	return false;
}

typedef enum Found
{
	FOUND_NOTHING,
	FOUND_ANSWER,				/* the step has ended by it */
	FOUND_UNFIT					/* it is put aside */
} Found;

/* Looks whether an answer has been stored. */
static Found
look(JobTask *jt)
{
	LookArg		arg = {jt, NULL};
	MemoryContext old = MemoryContextSwitchTo(jt->task->cxt);
	StepError  *error = bounded_run(look_work, &arg, false);

	MemoryContextSwitchTo(old);
	if (error != NULL && error->sqlstate != ERRCODE_DATA_CORRUPTED)
	{
		old = MemoryContextSwitchTo(jt->job->cxt);
		error = step_error_copy(error);
		MemoryContextSwitchTo(old);
		end_ask(jt);
		plan_fail(jt->job->plan, jt->task, error);
		return FOUND_ANSWER;
	}
	if (error != NULL)
	{
		refuse(jt, "the stored output is corrupt");
		return FOUND_UNFIT;
	}
	if (arg.output == NULL)
		return FOUND_NOTHING;
	return take(jt, arg.output) ? FOUND_ANSWER : FOUND_UNFIT;
}

/*
 * An ask step begins; stored: the answer that was read back with the job, or
 * NULL.  Where its time is up only a stored answer counts: the plan gives the
 * task up next.
 */
void
jobask_start(JobTask *jt, Jsonb *stored)
{
	Job		   *job = jt->job;

	if (stored != NULL ? take(jt, stored) : look(jt) == FOUND_ANSWER)
		return;
	jobtask_list(jt, &job->asks);
	jt->asking = true;
	job->nasks++;
	if (jt->task->deadline_us > clock_us())
		ask(jt);
}

/* The maintainer has stored an answer to some ask of the job. */
void
jobask_answered(const pg_uuid_t *id)
{
	Job		   *job = window_find(id);

	if (job == NULL || job->nasks == 0)
		return;
	job->unlooked = job->nasks;
	window_ready(job);
}

/* Looks for answers to the open asks, a slice of them. */
void
jobask_look(Job *job)
{
	int64		now = clock_us();

	if (job->nasks == 0)
		return;
	if (now >= job->look_us)
	{
		if (job->look_us > 0)
			job->unlooked = job->nasks;
		job->look_us = now + LOOK_US;
	}
	/* what follows from an answer may end other asks */
	for (int n = 0; job->unlooked > 0 && job->nasks > 0 && n < JOB_SLICE; n++)
	{
		JobTask    *jt = dlist_head_element(JobTask, node, &job->asks);

		job->unlooked--;
		dlist_delete(&jt->node);
		dlist_push_tail(&job->asks, &jt->node);
		if (look(jt) == FOUND_UNFIT)
			ask(jt);
	}
	if (job->nasks == 0)
		job->unlooked = 0;
	if (job->unlooked > 0)
		window_ready(job);
}

/* The step is given up: nobody needs its answer any more. */
void
jobask_drop(JobTask *jt)
{
	/* a job that leaves takes its questions with it, or lets them stay */
	if (!jt->job->leaving && jt->asking)
		close_question(jt);
}

/* The paths of the open asks, nasks of them, palloc'd. */
char **
jobask_paths(const Job *job)
{
	char	  **paths = palloc(Max(job->nasks, 1) * sizeof(char *));
	int			n = 0;
	dlist_iter	iter;

	dlist_foreach(iter, unconstify(dlist_head *, &job->asks))
		paths[n++] = pstrdup(dlist_container(JobTask, node, iter.cur)->task->path);
	return paths;
}
