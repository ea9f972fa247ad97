/*
 * caller.c
 *	  The process that runs jobs: thousands of model calls at once, no user's
 *	  code at all.
 *
 * One loop, one thread:
 *
 *		claim ─► drive jobs, owner by owner ─► commit ─► let the network work
 *		  ▲       (in a short transaction        │           │
 *		  │        for look-ups only)            │           │
 *		  └──── wake-up, room ◄──────────────────┴── answers ┘
 *
 * No transaction is open and no snapshot is held while it lets the network
 * work or sleeps.  A job belongs to the caller that claimed it until its end
 * or its parking; what is durable is in chaincall.job and chaincall.span, so
 * dying here loses no more than answers that are not committed.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/clock.h"
#include "base/settings.h"
#include "base/shared.h"
#include "base/touch.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "libpq/pqsignal.h"
#include "postmaster/bgworker.h"
#include "queue/message.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timeout.h"
#include "worker/caller.h"
#include "worker/worker.h"

/* Jobs are driven so long before the network is looked at again. */
#define SLICE_US 1000
#define CROWDED_SLICE_US 250	/* where somebody with a few jobs waits */

/*
 * A claim costs a millisecond, whatever it finds: with so many jobs in hand
 * the next one waits a little, and longer where no owner may have more.
 */
#define CLAIM_JOBS 50
#define CLAIM_PAUSE_US 2000
#define CLAIM_FULL_PAUSE_US 5000

/*
 * Without a moment with nothing to do since the last claim there are never more
 * jobs in hand than this, and half as many before the next claim: where models
 * are fast it is this process that is the limit, and a fuller window would
 * only make every call dearer (libcurl's work grows with its connections: a
 * quarter more CPU a call with 400 in the air) and every owner's next job later.
 */
#define BUSY_JOBS 32

/* So long nothing comes in such a moment. */
#define REST_US 300

/* Without such a moment for so long another caller would help. */
#define SATURATED_US 10000

#define FAULT_PAUSE_US 1000000
#define ACTIVITY_US 100000
#define MAX_OWNERS_A_CLAIM 256

/* Whether a cancelled step has ended is looked at so often. */
#define CANCEL_LOOK_US 100000

/* Between faults that come one upon the other. */
#define FAULT_SLEEP_MS 100

/* Orders that found no room are offered again, at the latest after so long. */
#define OFFER_AGAIN_US 10000

PGDLLEXPORT void chaincall_caller_main(Datum arg);

Caller		caller;

static MemoryContext scratch;	/* reset each turn */

/* Holds what calls take for a moment outside transactions (a hash's state). */
static ResourceOwner between;
static int64 claim_after_us = 0;
static BoardClaim claims[MAX_OWNERS_A_CLAIM];
static int	nclaims = 0;		/* taken from the board and not settled */
static bool taking = false;		/* claimed jobs are not all in the window yet */
static bool rested = true;		/* since the last claim */
static uint64 seen_news = 0;	/* on the board, by the last claim */
static int64 rested_us = 0;		/* when it last had nothing to do */

/* ---- the turn's transaction ---- */

/* Begins a transaction for look-ups in the catalog, unless there is one. */
void
caller_transaction(void)
{
	if (caller.in_transaction)
		return;
	queue_settings_once();
	StartTransactionCommand();
	MemoryContextSwitchTo(scratch);
	caller.in_transaction = true;
}

/* Ends it. */
void
caller_transaction_end(void)
{
	if (!caller.in_transaction)
		return;
	caller.in_transaction = false;
	CommitTransactionCommand();
	CurrentResourceOwner = between;
	MemoryContextSwitchTo(scratch);
}

/* ---- claims ---- */

typedef struct Claimed
{
	List	   *jobs;			/* of ClaimedJob */
	List	   *checkpoints;	/* of List of Checkpoint, one a job */
	List	   *closures;		/* of ClosureRead: definitions not known yet */
} Claimed;

typedef struct ClosureRead
{
	uint8		hash[DEFINITION_HASH_LEN];
	pg_uuid_t	job;			/* one that needs it */
	Jsonb	   *closure;
} ClosureRead;

static bool
is_read(List *closures, const uint8 *hash)
{
	ListCell   *lc;

	foreach(lc, closures)
	{
		if (memcmp(((ClosureRead *) lfirst(lc))->hash, hash,
				   DEFINITION_HASH_LEN) == 0)
			return true;
	}
	return false;
}

/* Claims jobs and reads what is stored for them, in one transaction. */
static void
read_claim(Claimed *claimed)
{
	ListCell   *lc;
	MemoryContext old;

	queue_begin();
	claimed->jobs = queue_claim(claims, nclaims, caller.incarnation, scratch);
	foreach(lc, claimed->jobs)
	{
		ClaimedJob *job = lfirst(lc);
		List	   *checkpoints = NIL;

		if (job->held)
			continue;
		if (job->resumed)
			checkpoints = queue_checkpoints(&job->id, job->retried_at, scratch);
		if (job->retried_at != 0)
			job->given = queue_given(&job->id, scratch);
		old = MemoryContextSwitchTo(scratch);
		claimed->checkpoints = lappend(claimed->checkpoints, checkpoints);
		MemoryContextSwitchTo(old);
		if (!job_knows_definition(job->definition) &&
			!is_read(claimed->closures, job->definition))
		{
			ClosureRead *read = MemoryContextAlloc(scratch,
												   sizeof(ClosureRead));

			memcpy(read->hash, job->definition, DEFINITION_HASH_LEN);
			read->job = job->id;
			read->closure = queue_definition(job->definition, scratch);
			old = MemoryContextSwitchTo(scratch);
			claimed->closures = lappend(claimed->closures, read);
			MemoryContextSwitchTo(old);
		}
	}
	/* if a crash forgets the claim, the job is queued as it was */
	taking = true;
	queue_commit(false);
	MemoryContextSwitchTo(scratch);
}

/* Tells the board what was found of each owner. */
static void
settle_claim(const Claimed *claimed)
{
	for (int i = 0; i < nclaims; i++)
	{
		int			n = 0;
		int			started = 0;
		BoardPlace	last = claims[i].mark;
		ListCell   *lc;

		foreach(lc, claimed->jobs)
		{
			const ClaimedJob *job = lfirst(lc);
			BoardPlace	place;

			if (job->owner != claims[i].owner)
				continue;
			n++;
			started += !job->resumed && !job->held;
			place = (BoardPlace){job->rank, job->id};
			if (board_place_compare(&place, &last) > 0)
				last = place;
		}
		board_settle(&claims[i], n < claims[i].quota, &last);
		if (started > 0)
			board_started(claims[i].owner, started);
	}
	nclaims = 0;
}

/*
 * A claim has failed.  Another caller may have found our rows locked and taken
 * the owner for exhausted: the board hears of them again.
 */
static void
give_back_claim(void)
{
	int			n = nclaims;

	nclaims = 0;
	for (int i = 0; i < n; i++)
		board_tell(claims[i].owner, claims[i].mark.rank);
}

/* Those that are ours now; jobs of paused chains were only put aside. */
static List *
running_jobs(List *jobs)
{
	ListCell   *lc;

	foreach(lc, jobs)
	{
		if (((ClaimedJob *) lfirst(lc))->held)
			jobs = foreach_delete_current(jobs, lc);
	}
	return jobs;
}

static void
begin_claimed(Claimed *claimed)
{
	ListCell   *lc;
	ListCell   *checkpoints;

	caller_transaction();
	foreach(lc, claimed->closures)
	{
		ClosureRead *read = lfirst(lc);

		touch_job(&read->job);
		job_keep_definition(read->hash, read->closure);
		touch_clear();
	}
	forboth(lc, claimed->jobs, checkpoints, claimed->checkpoints)
		job_begin(lfirst(lc), lfirst(checkpoints));
	job_trim_definitions();
	taking = false;
	pg_atomic_fetch_add_u64(&my_worker->jobs, list_length(claimed->jobs));
}

/* The owners with a quota, moved to the front; how many there are. */
static int
pack_claims(int n)
{
	int			kept = 0;

	for (int i = 0; i < n; i++)
	{
		if (claims[i].quota > 0)
			claims[kept++] = claims[i];
	}
	return kept;
}

/* How many jobs it is good to claim now. */
static int
claim_room(void)
{
	int			in_hand = caller.njobs - caller.nwaiting;

	if (clock_us() < claim_after_us)
		return 0;
	if (rested)
		return Max(BUSY_JOBS, in_hand);
	return in_hand > BUSY_JOBS / 2 ? 0 : BUSY_JOBS - in_hand;
}

/* Claims what there is room for. */
static void
claim(void)
{
	Claimed		claimed = {NIL};
	uint64		news = board_news();
	int			most;
	int			n;

	if (save_in_trouble() || !board_has_work())
		return;
	most = claim_room();
	/* what is new may be of an owner who has nothing here: he need not wait */
	if (most == 0 && news == seen_news)
		return;
	seen_news = news;
	n = board_take(claims, MAX_OWNERS_A_CLAIM);
	window_quotas(claims, n, most);
	n = pack_claims(n);
	if (n == 0)
	{
		if (most > 0)
			claim_after_us = clock_us() + CLAIM_FULL_PAUSE_US;
		return;
	}
	rested = false;
	caller_transaction_end();
	nclaims = n;
	read_claim(&claimed);
	settle_claim(&claimed);
	claimed.jobs = running_jobs(claimed.jobs);
	/* what is left is for whoever has nothing to do */
	if (board_has_work())
		worker_wake_idle_caller(MyDatabaseId);
	if (claimed.jobs == NIL || caller.njobs >= CLAIM_JOBS)
		claim_after_us = clock_us() + CLAIM_PAUSE_US;
	begin_claimed(&claimed);
	caller_transaction_end();
}

/* ---- what comes from others ---- */

static void
take_messages(void)
{
	pg_uuid_t	id;
	MessageKind kind;

	while (message_take(&id, &kind))
	{
		if (kind == MESSAGE_ANSWER)
			jobask_answered(&id);
		else
			job_interrupt(&id, kind == MESSAGE_EXPIRE);
	}
}

static void
take_answers(void)
{
	StepAnswer	answer;

	while (handover_collect(&answer))
		joborder_answer(&answer);
}

/* ---- driving ---- */

/* A job whose driving has failed in a way that no plan knows of. */
static void
fail_driven(pg_uuid_t *id, ErrorData *edata)
{
	Job		   *job = window_find(id);
	StepError  *error = step_error_from(edata);

	if (job != NULL)
		job_end_as(job, "failed", error);
}

static void
drive(Job *job)
{
	pg_uuid_t	id = job->id;

	touch_job(&id);
	PG_TRY();
	{
		job_drive(job);
	}
	PG_CATCH();
	{
		ErrorData  *edata = bounded_caught(scratch);

		caller_transaction();
		fail_driven(&id, edata);
	}
	PG_END_TRY();
	touch_clear();
}

/*
 * Drives jobs that have something to do, owner by owner, for a slice; light:
 * only those of owners with a few jobs.  True: there were some.
 */
static bool
drive_ready(bool light)
{
	int64		until_us = clock_us() +
		(window_crowded() ? CROWDED_SLICE_US : SLICE_US);
	bool		any = false;
	Job		   *job;

	while ((job = window_next(light)) != NULL)
	{
		any = true;
		caller_transaction();
		drive(job);
		CHECK_FOR_INTERRUPTS();
		if (clock_us() >= until_us)
			break;
	}
	caller_transaction_end();
	return any;
}

/*
 * Where one owner has filled the window a turn takes milliseconds, and a step
 * of somebody else's job a turn.  So between the parts of a turn there is a look
 * for what has come for those with a few jobs.
 */
static void
express(void)
{
	if (board_news() != seen_news)
		claim();
	if (!window_crowded())
		return;
	CurrentResourceOwner = between;
	(void) call_turn(caller.calls, 0);
	if (drive_ready(true))
	{
		CurrentResourceOwner = between;
		(void) call_turn(caller.calls, 0);
	}
}

/* ---- the loop ---- */

static bool
has_ready(void)
{
	return !dlist_is_empty(&caller.turns);
}

/* Is anything going on that is worth waiting for before a commit? */
static bool
is_busy(void)
{
	return has_ready() || call_live(caller.calls) > 0;
}

/* Says whether a wake-up should come here, and whether more callers would help. */
static void
tell_room(void)
{
	int			njobs = caller.njobs - caller.nwaiting;
	bool		room = njobs < setting_caller_window;
	bool		saturated = njobs >= BUSY_JOBS / 2 &&
		clock_us() - rested_us > SATURATED_US;

	(void) pg_atomic_exchange_u32(&my_worker->idle, room ? 1 : 0);
	worker_set_full((!room || saturated) && board_has_work());
}

/* What pg_stat_activity shows of this process. */
static void
show_activity(void)
{
	static int64 shown_us = 0;
	static int	njobs = -1;
	static int	ncalls = -1;
	int			now_calls = call_live(caller.calls);
	char		text[80];

	if ((njobs == caller.njobs && ncalls == now_calls) ||
		(caller.njobs > 0 && clock_us() - shown_us < ACTIVITY_US))
		return;
	shown_us = clock_us();
	njobs = caller.njobs;
	ncalls = now_calls;
	snprintf(text, sizeof(text), "chaincall: jobs %d, calls %d", njobs, ncalls);
	pgstat_report_activity(njobs > 0 ? STATE_RUNNING : STATE_IDLE, text);
}

/* There is nothing to do just now. */
static void
rest(void)
{
	rested = true;
	rested_us = clock_us();
}

/* Lets the network work, or sleeps, until there is something to do. */
static void
wait_for_work(void)
{
	int64		until_us = Min(window_first_timer(), save_due(is_busy()));
	int64		now = clock_us();

	/* a wake-up comes here from now on; what came before shows on the board */
	tell_room();
	if (board_has_work() && !save_in_trouble())
		until_us = Min(until_us, claim_room() > 0 ? now :
					   Max(claim_after_us, now + REST_US));
	/* other callers' orders may be in the way: nobody tells when they go */
	if (window_holds())
		until_us = Min(until_us, now + OFFER_AGAIN_US);
	if (handover_check())
		until_us = Min(until_us, now + CANCEL_LOOK_US);
	if (has_ready() || until_us <= now)
		until_us = 0;
	show_activity();
	touch_clear();
	if (call_live(caller.calls) > 0)
	{
		CurrentResourceOwner = between;
		if (!call_turn(caller.calls, 0) && !has_ready())
		{
			(void) call_turn(caller.calls, until_us);
			if (clock_us() - now >= REST_US)
				rest();
		}
	}
	else if (!has_ready())
	{
		/* jobs may do nothing but wait: there is time for others then */
		rest();
		if (until_us > 0)
			worker_sleep(until_us == CLOCK_NEVER ? -1 :
						 (long) Min((until_us - now + 999) / 1000, 60000));
	}
	pg_atomic_write_u32(&my_worker->idle, 0);
	pg_atomic_write_u32(&my_worker->calls_now, call_live(caller.calls));
}

static void
turn(void)
{
	MemoryContextReset(scratch);
	MemoryContextSwitchTo(scratch);
	take_messages();
	take_answers();
	claim();
	express();
	window_fire_timers(clock_us());
	window_feed_starved();
	(void) drive_ready(false);
	express();
	if (save_due(is_busy()) <= clock_us())
		save_commit();
	window_offer_held();
	express();
	MemoryContextSwitchTo(scratch);
	wait_for_work();
}

/* Does the error say that the extension is not there any more? */
static bool
is_gone(int sqlstate)
{
	return (sqlstate == ERRCODE_UNDEFINED_TABLE ||
			sqlstate == ERRCODE_UNDEFINED_SCHEMA ||
			sqlstate == ERRCODE_UNDEFINED_OBJECT ||
			sqlstate == ERRCODE_UNDEFINED_COLUMN) &&
		!worker_extension_usable();
}

/*
 * After an error that no job is to blame for: what was open is closed, and the
 * loop goes on a while later.  Where the extension is gone, so are we.
 */
static void
recover(void)
{
	static int64 last_us = 0;
	ErrorData  *edata = bounded_caught(scratch);

	LWLockReleaseAll();
	pgstat_report_wait_end();
	touch_clear();
	/* nobody would drive them, as long as this worker lives */
	if (taking)
		ereport(FATAL,
				(errcode(edata->sqlerrcode),
				 errmsg("a caller gives back the jobs that it has just claimed")));
	give_back_claim();
	claim_after_us = clock_us() + FAULT_PAUSE_US;
	if (is_gone(edata->sqlerrcode))
		proc_exit(0);
	/* the same may come in each turn, and fill the log */
	if (clock_us() - last_us < FAULT_PAUSE_US)
		worker_sleep(FAULT_SLEEP_MS);
	last_us = clock_us();
}

static void
guarded_turn(void)
{
	PG_TRY();
	{
		turn();
	}
	PG_CATCH();
	{
		recover();
	}
	PG_END_TRY();
}

/*
 * SIGINT is what PostgreSQL's lock_timeout sends to its own process: a claim or
 * a commit ends by it and is tried again.  Nobody else's counts: a cancel would
 * meet any job's expression, and jobs have chaincall.cancel().  Look-ups wait:
 * their failure would be a job's.
 */
static void
handle_sigint(SIGNAL_ARGS)
{
	int			save_errno = errno;

	if (!caller.in_transaction && get_timeout_indicator(LOCK_TIMEOUT, false))
		StatementCancelHandler(postgres_signal_arg);
	errno = save_errno;
}

/* Main function of a caller. */
void
chaincall_caller_main(Datum arg)
{
	worker_start(WORKER_CALLER);
	pqsignal(SIGINT, handle_sigint);
	caller.cxt = AllocSetContextCreate(TopMemoryContext, "chaincall caller",
									   ALLOCSET_DEFAULT_SIZES);
	scratch = AllocSetContextCreate(caller.cxt, "chaincall turn",
									ALLOCSET_DEFAULT_SIZES);
	between = ResourceOwnerCreate(NULL, "chaincall caller");
	caller.incarnation = my_worker->incarnation;
	MemoryContextSwitchTo(caller.cxt);
	caller.plan_scratch = plan_scratch_create(caller.cxt);
	caller.calls = call_group_create(&job_guards);
	window_make();
	while (worker_turn())
		guarded_turn();

	/* its jobs are recovered by the maintainer, at once */
	caller_transaction_end();
	if (save_pending() || saveask_due() != CLOCK_NEVER)
		save_commit();
	proc_exit(0);
}
