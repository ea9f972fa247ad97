/*
 * jobrun.c
 *	  One job in a caller's hands, from its claim to its end.
 *
 * A job lives in a memory context of its own: its plan, its trace, what it has
 * read back of an earlier life.  It is driven whenever something has come for
 * it (an answer, a time, an order's outcome, a committed checkpoint) and then
 * for one slice: so many starts, then others have their turn.
 *
 *	job_begin ─► RUNNING ─► the plan has ended ─► CONVERTING ─► job_end_as
 *	                │  its output is of a type that SQL must make │  ▲
 *	                └──────────── it is plain JSON ───────────────┼──┘
 *	                └── cancelled, expired, parked, broken ───────┘
 */
#include "postgres.h"

#include "base/error.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/settings.h"
#include "base/shared.h"
#include "base/touch.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "worker/caller.h"

/*
 * Statements and functions that a job has held or handed over at most: the
 * rest of a wide fan-out costs no memory until its turn comes.
 */
#define MOST_ORDERS 1000

/* A job with calls in the air is looked at so often, to see if it can be parked. */
#define SWEEP_US 1000000

/* Memory is weighed after so many starts and outcomes. */
#define WEIGH_EVERY 64

/* A job that waits for answers, or for a model to be resumed, is not parked for less. */
#define ASK_PARK_US INT64CONST(1000000)

/*
 * One that waits for both, or for two models, is told of one only and looks at
 * the other so often.
 */
#define HELD_LOOK_US (60 * USECS_PER_SEC)

#define KEPT_DEFINITIONS 256

/* ---- pinned definitions ---- */

typedef struct KnownDefinition
{
	uint8		hash[DEFINITION_HASH_LEN];	/* hash key */
	Pinned	   *pinned;			/* NULL: it cannot be loaded */
	StepError  *error;
	uint64		used;			/* clock of the last use */
} KnownDefinition;

static HTAB *definitions = NULL;
static uint64 definition_clock = 0;

static void
make_definitions(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = DEFINITION_HASH_LEN;
	ctl.entrysize = sizeof(KnownDefinition);
	ctl.hcxt = caller.cxt;
	definitions = hash_create("chaincall definitions", 64, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Is the definition loaded? */
bool
job_knows_definition(const uint8 *hash)
{
	return definitions != NULL &&
		hash_search(definitions, hash, HASH_FIND, NULL) != NULL;
}

static void
drop_definition(KnownDefinition *known)
{
	if (known->pinned != NULL)
		pin_free(known->pinned);
	(void) hash_search(definitions, known->hash, HASH_REMOVE, NULL);
}

/* Frees the definition that nobody has used for longest; false: all are in use. */
static bool
drop_oldest(void)
{
	HASH_SEQ_STATUS seq;
	KnownDefinition *known;
	KnownDefinition *oldest = NULL;

	hash_seq_init(&seq, definitions);
	while ((known = hash_seq_search(&seq)) != NULL)
	{
		if (known->pinned->uses == 0 &&
			(oldest == NULL || known->used < oldest->used))
			oldest = known;
	}
	if (oldest == NULL)
		return false;
	drop_definition(oldest);
	return true;
}

/*
 * Once the jobs of a claim have begun: no definition may go before, or a job
 * claimed together with others would not find its own.  One that could not be
 * loaded is not kept: it may be there, or memory enough, the next time.
 */
void
job_trim_definitions(void)
{
	HASH_SEQ_STATUS seq;
	KnownDefinition *known;

	if (definitions == NULL)
		return;
	hash_seq_init(&seq, definitions);
	while ((known = hash_seq_search(&seq)) != NULL)
	{
		if (known->pinned == NULL)
			drop_definition(known);
	}
	while (hash_get_num_entries(definitions) > KEPT_DEFINITIONS)
	{
		if (!drop_oldest())
			break;
	}
}

typedef struct LoadArg
{
	const Jsonb *closure;
	Pinned	   *pinned;
} LoadArg;

static void
load_work(void *arg)
{
	LoadArg    *load = arg;

	load->pinned = pin_load(load->closure);
}

/*
 * Loads a closure for the jobs of this claim; NULL: chaincall.definition does
 * not have it.  An error is kept in the current memory context.
 */
void
job_keep_definition(const uint8 *hash, Jsonb *closure)
{
	LoadArg		load = {closure, NULL};
	KnownDefinition *known;
	StepError  *error;

	if (definitions == NULL)
		make_definitions();
	if (closure == NULL)
		error = step_error_make(CLASS_INPUT, "the definition of the job's chain is gone",
								NULL, "Enqueue the job again.");
	else
		error = bounded_run(load_work, &load, false);
	known = hash_search(definitions, hash, HASH_ENTER, NULL);
	known->pinned = load.pinned;
	known->error = error;
	known->used = ++definition_clock;
}

/* ---- the beginning ---- */

static Job *
make_job(const ClaimedJob *claimed)
{
	MemoryContext cxt = AllocSetContextCreate(caller.cxt, "chaincall job",
											  ALLOCSET_START_SMALL_SIZES);
	Job		   *job = MemoryContextAllocZero(cxt, sizeof(Job));

	job->cxt = cxt;
	job->id = claimed->id;
	job->expires_at = claimed->expires_at;
	/* an earlier life may have left some */
	job->asked = claimed->resumed;
	job->catching_up = claimed->deadlines != NULL;
	job->wake_us = CLOCK_NEVER;
	job->weigh_at = WEIGH_EVERY;
	job->waits.ph_compare = jobtask_compare_waits;
	dlist_init(&job->calls);
	dlist_init(&job->held);
	dlist_init(&job->orders);
	dlist_init(&job->asks);
	dlist_init(&job->ended);
	window_add(job, claimed->owner);
	return job;
}

typedef struct BeginArg
{
	Job		   *job;
	const ClaimedJob *claimed;
	bool		null_for_strict;
} BeginArg;

static void
begin_work(void *arg)
{
	BeginArg   *begin = arg;
	Job		   *job = begin->job;
	PinnedChain *chain = &job->pinned->chains[0];
	PlanOptions options = {.job = true, .scratch = caller.plan_scratch};
	int			n = chain->definition->nargs;
	MemoryContext old = MemoryContextSwitchTo(caller.plan_scratch);
	Jsonb	  **given;
	Jsonb	  **inputs;

	jobops_check_execute(job, chain);
	given = pin_job_inputs(chain, begin->claimed->input,
						   &begin->null_for_strict);
	MemoryContextSwitchTo(job->cxt);
	options.deadlines = json_copy(job->cxt, begin->claimed->deadlines);
	inputs = palloc(Max(n, 1) * sizeof(Jsonb *));
	for (int i = 0; i < n; i++)
		inputs[i] = json_copy(job->cxt, given[i]);
	if (!begin->null_for_strict)
		job->plan = plan_create(chain->definition, inputs, &options,
								&job_plan_ops, job);
	MemoryContextSwitchTo(old);
	MemoryContextReset(caller.plan_scratch);
}

/*
 * Takes a claimed job into the window; checkpoints: of an earlier life.  Its
 * definition has been kept.  In the turn's transaction.
 */
void
job_begin(ClaimedJob *claimed, List *checkpoints)
{
	Job		   *job = make_job(claimed);
	BeginArg	begin = {job, claimed, false};
	KnownDefinition *known = hash_search(definitions, claimed->definition,
										 HASH_FIND, NULL);
	StepError  *error = known->error;

	touch_job(&job->id);
	known->used = ++definition_clock;
	job->air = air_enter(AIR_JOB, &job->id, claimed->owner, NULL,
						 claimed->chain, NULL);
	jobtask_keep_checkpoints(job, checkpoints);
	jobtask_keep_given(job, claimed->given);
	if (error == NULL)
	{
		job->pinned = known->pinned;
		job->pinned->uses++;
		job->trace = trace_create(job->cxt, claimed->chain, &job->id,
								  claimed->owner, jobspan_sink);
		call_run_init(&job->run, claimed->owner, &job->id, job->trace);
		error = bounded_run(begin_work, &begin, false);
	}
	if (error != NULL)
		job_end_as(job, "failed", error);
	else if (begin.null_for_strict)
	{
		job->output = json_null();
		job_end_as(job, "succeeded", NULL);
	}
	else
		window_ready(job);
	touch_clear();
}

/* ---- the end ---- */

/* What a job that is parked waits for, and until when at most. */
static void
describe_waiting(const Job *job, JobEnd *end)
{
	int64		left_us = job->wake_us == CLOCK_NEVER ? CLOCK_NEVER :
		Max(job->wake_us - clock_us(), 0);
	TimestampTz now = GetCurrentTimestamp();

	end->run_at = left_us < DT_NOEND - now ? now + left_us : DT_NOEND;
	end->deadlines = plan_deadlines(job->plan);
	if (job->nasks == 0)
	{
		if (job->held_by != NULL)
			end->waits_on = psprintf("model %s", job->held_by);
		return;
	}
	if (job->held_by != NULL)
		end->run_at = Min(end->run_at, now + HELD_LOOK_US);
	end->waits_on = "answer";
	end->asks = jobask_paths(job);
	end->nasks = job->nasks;
}

/*
 * The job leaves this caller in the state given, with job->output or error
 * (NULL where there is none); what still runs is cancelled.  The job is gone
 * afterwards.
 */
void
job_end_as(Job *job, const char *state, StepError *error)
{
	JobEnd		end = {.job = job->id, .state = state};

	if (error != NULL)
	{
		end.error = step_error_json(error);
		end.input = error->input;
	}
	else
		end.output = job->output;
	/* a step may raise the SQLSTATE of that class itself */
	if (error != NULL && error->cls == CLASS_CRASH)
		end.deaths = job->deaths;
	if (strcmp(state, "waiting") == 0)
		describe_waiting(job, &end);
	else
		end.asked = job->asked;
	job->leaving = true;
	if (job->plan != NULL)
		plan_abandon(job->plan);
	if (job->conversion != NULL)
		jobtask_drop(job->conversion);
	save_orphan(job);
	save_end(&end, job->owner->owner);
	air_leave(job->air);
	if (job->pinned != NULL)
		job->pinned->uses--;
	window_remove(job);
	MemoryContextDelete(job->cxt);
}

typedef struct ResultArg
{
	Job		   *job;
	Jsonb	   *result;
} ResultArg;

static void
result_work(void *arg)
{
	ResultArg  *result = arg;

	result->result = pin_result(&result->job->pinned->chains[0],
								result->job->output);
}

/*
 * The plan is through: the output is made a value of the chain's type.  True:
 * an executor is to do that; else the job is gone.
 */
static bool
finish_plan(Job *job)
{
	StepError  *error = plan_error(job->plan);
	ResultArg	result = {job, NULL};
	MemoryContext old;

	if (error != NULL)
	{
		job_end_as(job, "failed", error);
		return false;
	}
	job->phase = JOB_CONVERTING;
	job->output = json_copy(job->cxt, plan_output(job->plan));
	plan_abandon(job->plan);
	job->plan = NULL;
	old = MemoryContextSwitchTo(job->cxt);
	error = bounded_run(result_work, &result, false);
	MemoryContextSwitchTo(old);
	if (error == NULL && result.result == NULL)
	{
		joborder_convert_output(job);
		return true;
	}
	job->output = result.result;
	job_end_as(job, error ? "failed" : "succeeded", error);
	return false;
}

/* Cancelled by somebody, or its time (TTL) is up; not here: no matter. */
void
job_interrupt(const pg_uuid_t *id, bool expired)
{
	Job		   *job = window_find(id);

	if (job == NULL)
		return;
	if (expired)
		job_end_as(job, "expired",
				   step_error_make(CLASS_TIMEOUT, "the job's time is up", NULL,
								   "Give it a later expires_at."));
	else
		job_end_as(job, "cancelled",
				   step_error_make(CLASS_CANCELLED, "the job was cancelled",
								   NULL, NULL));
}

/*
 * Is that event so far off that a job which only waits is parked?  Nobody knows
 * when answers come or models are resumed, so those who wait for them are as
 * soon as they can be.
 */
static bool
is_far(const Job *job, int64 event_us)
{
	int64		far_us = setting_park_after_ms * INT64CONST(1000);

	if (job->nasks > 0 || job->held_by != NULL)
		far_us = Min(far_us, ASK_PARK_US);
	else if (job->nwaits == 0 && event_us == CLOCK_NEVER)
		return false;			/* it waits for nothing that time brings */
	return event_us - clock_us() > far_us;
}

/* Has it nothing to do but to wait, and for so long that it can be parked? */
static bool
waits_long(const Job *job)
{
	return job->ncalls == 0 && job->norders == 0 && is_far(job, job->wake_us);
}

/* Spans of the job have been committed: what waited for that can go on. */
void
job_saved(Job *job, int nspans)
{
	job->unsaved -= nspans;
	if (job->unsaved == 0 && (job->is_holding || waits_long(job)))
		window_ready(job);
}

/* ---- a slice ---- */

/* A job that takes too much memory ends; true: it has. */
static bool
is_too_heavy(Job *job)
{
	Size		bytes;

	if (job->events < job->weigh_at)
		return false;
	bytes = MemoryContextMemAllocated(job->cxt, true);
	/* it looks at every task that is under way */
	job->weigh_at = job->events + WEIGH_EVERY +
		(job->ncalls + job->norders + job->nwaits) / 4;
	if (bytes / 1024 <= (Size) setting_job_memory_kb)
		return false;
	job_end_as(job, "failed",
			   step_error_make(CLASS_LIMIT, "the job needs too much memory",
							   psprintf("It takes %zu MB, at most %d MB are allowed.",
										bytes / (1024 * 1024),
										setting_job_memory_kb / 1024),
							   "Raise chaincall.job_memory, or enqueue smaller jobs."));
	return true;
}

static Task *
next_local(Job *job)
{
	return job->norders < MOST_ORDERS ? plan_next(job->plan, false) : NULL;
}

static void
start_tasks(Job *job)
{
	Task	   *task;
	int			n = 0;

	window_starve(job, false);
	while (n < JOB_SLICE)
	{
		/* what ends at once may have made statements ready, or calls */
		task = next_local(job);
		if (task == NULL && window_may_call(job))
			task = plan_next(job->plan, true);
		if (task == NULL)
			break;
		jobtask_start(job, task);
		n++;
	}
	if (n >= JOB_SLICE)
		window_ready(job);
	else if (!plan_ended(job->plan) && !window_may_call(job))
		window_starve(job, true);
}

/*
 * All that is stored has been given to the plan: its deadlines count.  A wait
 * whose time has come is over first, and what is stored behind it.
 */
static void
catch_up(Job *job)
{
	if (!job->catching_up || job->is_ready || job->starved ||
		jobtask_next_wait(job) <= clock_us())
		return;
	job->catching_up = false;
	plan_caught_up(job->plan);
}

/*
 * When the job's next event is without anything coming; *parkable: it may wait
 * for it outside of memory.
 */
static int64
next_event(Job *job, bool *parkable)
{
	int64		next = Min(jobtask_next_wait(job),
						   job->plan ? plan_due(job->plan) : CLOCK_NEVER);
	dlist_iter	iter;

	job->held_by = NULL;
	*parkable = job->plan != NULL && job->norders == 0 && job->unsaved == 0 &&
		!job->is_ready && !job->starved && !job->catching_up;
	if (!*parkable || job->ncalls == 0)
		return next;
	dlist_foreach(iter, &job->calls)
	{
		JobTask    *jt = dlist_container(JobTask, node, iter.cur);
		int64		wakes_us = jt->call ? call_sleeps_until(jt->call) : 0;

		if (wakes_us == 0)
		{
			*parkable = false;
			return next;
		}
		if (call_held_by(jt->call) == NULL)
			next = Min(next, wakes_us);
		else if (job->held_by == NULL)
			job->held_by = call_held_by(jt->call);
		else if (strcmp(job->held_by, call_held_by(jt->call)) != 0)
			next = Min(next, clock_us() + HELD_LOOK_US);
	}
	return next;
}

/* Sets the timer, or parks the job, which is gone then. */
static void
rest(Job *job)
{
	int64		now = clock_us();
	bool		parkable;
	int64		next = next_event(job, &parkable);

	job->wake_us = next;
	if (parkable && is_far(job, next))
	{
		job_end_as(job, "waiting", NULL);
		return;
	}
	if (job->ncalls > 0)
		next = Min(next, now + SWEEP_US);
	if (job->nasks > 0)
		next = Min(next, job->look_us);
	if (!TIMESTAMP_NOT_FINITE(job->expires_at))
		next = Min(next, now + Max(job->expires_at - GetCurrentTimestamp(), 0));
	window_set_timer(job, next);
}

/*
 * Brings the job on: tells its plan what has come, starts what can start.  In
 * the turn's transaction.  The job may be gone afterwards.
 */
void
job_drive(Job *job)
{
	int64		known;
	int64		done;

	if (job->expires_at <= GetCurrentTimestamp())
	{
		job_interrupt(&job->id, true);
		return;
	}
	if (!jobtask_tell(job))
		return;					/* its output is converted: it has ended */
	if (job->phase == JOB_RUNNING)
	{
		if (is_too_heavy(job))
			return;
		jobtask_end_waits(job);
		jobask_look(job);
		if (plan_due(job->plan) <= clock_us())
			plan_tick(job->plan, clock_us());
		start_tasks(job);
		catch_up(job);
		plan_progress(job->plan, &known, &done);
		air_progress(job->air, known, done);
		if (plan_ended(job->plan) && !finish_plan(job))
			return;
	}
	(void) joborder_offer_held(job);
	window_weigh_orders(job);
	rest(job);
}
