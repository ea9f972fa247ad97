/*
 * executor.c
 *	  The process that runs statements and functions of jobs as their owner.
 *
 * An executor is connected as one role and serves the orders for it, each in a
 * transaction of its own.  Answers are posted at once and told in batches
 * after one flush: when nothing more is in line, after FLUSH_STEPS steps or
 * FLUSH_US.  A step that takes longer than that is what the timer is for: it
 * wakes the callers, who flush for themselves.
 *
 * A step that goes on for a second after its timeout has been told loses its
 * process; a cancelled one too, which handover_check() sees to.
 *
 * It leaves when it has been idle for long, when its turn is over and another
 * role waits for its place, when it is told to, or when the role may no longer
 * be here.  A step that kills its session kills just this process.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/settings.h"
#include "base/shared.h"
#include "base/touch.h"
#include "catalog/namespace.h"
#include "commands/async.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "worker/executor.h"
#include "worker/worker.h"

#define FLUSH_STEPS 100
#define FLUSH_US 1000

/* Whether the role may still be here is asked this often. */
#define ROLE_CHECK_US 1000000

/* Whether another role waits is asked this often, once the turn is over. */
#define TURN_CHECK_US 10000

/* An idle executor gives up what the last job has left after this long. */
#define DISCARD_AFTER_MS 100

/* Answers that do not fit are tried again after this long. */
#define NO_ROOM_WAIT_MS 5

/* A step that does not heed its timeout is ended this much later. */
#define OVERDUE_MS 1000

static MemoryContext order_cxt;
static const TakenOrder *volatile running = NULL;
static pg_uuid_t last_job;		/* whose session state may be left */
static bool last_job_valid = false;

static XLogRecPtr unflushed = InvalidXLogRecPtr;
static int	posted = 0;			/* answers since the last flush */
static int64 first_posted_us;
static TimeoutId nudge_timer;
static TimeoutId overdue_timer;

static int64 turn_began_us;
static int64 turn_checked_us = 0;
static int64 role_checked_us = 0;

/* ---- signals ---- */

/*
 * A cancel is for an order; one that comes late, or from somebody else, must
 * not meet another.
 */
static void
handle_cancel(SIGNAL_ARGS)
{
	int			save_errno = errno;
	const TakenOrder *taken = running;

	if (taken != NULL && handover_cancelled(taken))
	{
		QueryCancelPending = true;
		InterruptPending = true;
	}
	SetLatch(MyLatch);
	errno = save_errno;
}

/* The step's timeout has passed, and it was told, to no avail. */
static void
handle_overdue(void)
{
	handover_overdue();
	touch_orderly();
	ProcDiePending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

/* ---- answers ---- */

/* All that is posted is flushed, and its callers are told. */
static void
settle(void)
{
	if (posted == 0)
		return;
	disable_timeout(nudge_timer, false);
	handover_sync(unflushed);
	handover_notify();
	posted = 0;
	pgstat_report_stat(false);
}

static void
post(const TakenOrder *taken, const Jsonb *output, const StepError *error,
	 XLogRecPtr lsn)
{
	while (!handover_answer(taken, output, error, lsn))
	{
		/* callers make room by collecting what is there */
		settle();
		worker_sleep(NO_ROOM_WAIT_MS);
		/* it is stored: when we leave, whoever takes the order reads it */
		CHECK_FOR_INTERRUPTS();
	}
	unflushed = Max(unflushed, lsn);
	if (posted++ == 0)
		first_posted_us = clock_us();
	if (posted >= FLUSH_STEPS || clock_us() - first_posted_us >= FLUSH_US)
		settle();
	else if (!get_timeout_active(nudge_timer))
		enable_timeout_after(nudge_timer, FLUSH_US / 1000);
}

/* ---- what a job leaves in the session ---- */

/*
 * DISCARD ALL, save that plans stay: they hold nothing of a job, and making
 * them anew costs more than most steps.  In a transaction of its own: dropping
 * temporary tables outside one crashes.
 */
static void
discard(void)
{
	/* a step's own settings are still in force, and must not stop this */
	if (GetConfigOption("transaction_timeout", true, false) != NULL)
		SetConfigOption("transaction_timeout", "0", PGC_SUSET, PGC_S_SESSION);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	XactIsoLevel = XACT_READ_COMMITTED;
	XactReadOnly = false;
	XactDeferrable = false;
	PortalHashTableDeleteAll();
	ResetAllOptions();
	DropAllPreparedStatements();
	Async_UnlistenAll();
	LockReleaseAll(USER_LOCKMETHOD, true);
	ResetTempTableNamespace();
	ResetSequenceCaches();
	CommitTransactionCommand();
	last_job_valid = false;
}

static void
discard_between_jobs(const pg_uuid_t *job)
{
	if (last_job_valid && memcmp(&last_job, job, sizeof(pg_uuid_t)) == 0)
		return;
	if (last_job_valid)
		discard();
	last_job = *job;
	last_job_valid = true;
}

/* ---- the loop ---- */

/* False: there was no memory for it, and it is time to leave what there is. */
static bool
serve_order(const TakenOrder *taken)
{
	Jsonb	   *output;
	StepError  *error;
	XLogRecPtr	lsn;
	bool		starved;

	discard_between_jobs(&taken->order.job);
	running = taken;
	/* a cancel may have come before the handler could know */
	if (handover_cancelled(taken))
		QueryCancelPending = InterruptPending = true;
	if (taken->order.timeout_ms > 0)
		enable_timeout_after(overdue_timer,
							 (int) Min(taken->order.timeout_ms + OVERDUE_MS,
									   PG_INT32_MAX));
	lsn = executor_run(taken, &output, &error);
	if (taken->order.timeout_ms > 0)
		disable_timeout(overdue_timer, false);
	running = NULL;
	pg_atomic_fetch_add_u64(&my_worker->steps, 1);
	pg_atomic_fetch_add_u64(&my_worker->commits, 1);
	if (error != NULL)
		pg_atomic_fetch_add_u64(&my_worker->errors, 1);
	starved = error != NULL && error->sqlstate == ERRCODE_OUT_OF_MEMORY;
	post(taken, output, error, lsn);
	return !starved;
}

static bool
place_is_wanted(void)
{
	return worker_count(WORKER_EXECUTOR, MyDatabaseId, InvalidOid) >=
		setting_max_executors &&
		handover_other_role_waits(MyDatabaseId, my_worker->role);
}

static bool
turn_is_over(void)
{
	int64		now = clock_us();

	if (now - turn_began_us < setting_executor_turn_ms * INT64CONST(1000) ||
		now - turn_checked_us < TURN_CHECK_US)
		return false;
	turn_checked_us = now;
	return place_is_wanted();
}

/* Whether the role may still connect here; asked about once a second. */
static bool
role_may_stay(void)
{
	int64		now = clock_us();
	bool		exists;
	bool		may;

	if (now - role_checked_us < ROLE_CHECK_US)
		return true;
	role_checked_us = now;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	exists = SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(my_worker->role));
	may = exists && compat_database_aclcheck(MyDatabaseId, my_worker->role,
											 ACL_CONNECT) == ACLCHECK_OK;
	CommitTransactionCommand();
	if (!exists)
		handover_refuse(MyDatabaseId, my_worker->role);
	return may;
}

/* How long to wait for an order, ms; 0: it is time to leave. */
static long
idle_time_left(int64 idle_since_us)
{
	int64		left = setting_executor_idle_ms -
		(clock_us() - idle_since_us) / 1000;

	if (place_is_wanted())
		return 0;
	if (worker_count(WORKER_EXECUTOR, MyDatabaseId, InvalidOid) <=
		setting_min_executors)
		return Max(left, 10000);
	return (long) Max(left, 0);
}

/*
 * Sleeps.  What the last job has left (locks, say) stays no longer than a
 * moment when no more of it comes.
 */
static void
sleep_idly(int64 idle_since_us, long ms)
{
	if (last_job_valid &&
		clock_us() - idle_since_us >= DISCARD_AFTER_MS * INT64CONST(1000))
		discard();
	worker_sleep(last_job_valid ? Min(ms, DISCARD_AFTER_MS) : ms);
}

/* Waits for an order; false: it is time to leave. */
static bool
wait_for_order(void)
{
	int64		idle_since_us = clock_us();

	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
	for (;;)
	{
		long		ms;

		pg_atomic_write_u32(&my_worker->idle, 1);
		if (handover_waiting(my_worker->role) > 0)
			break;
		ms = idle_time_left(idle_since_us);
		if (ms == 0 || !worker_turn())
			return false;
		sleep_idly(idle_since_us, ms);
	}
	pg_atomic_write_u32(&my_worker->idle, 0);
	return true;
}

static void
serve(void)
{
	turn_began_us = clock_us();
	while (worker_turn() && !turn_is_over())
	{
		TakenOrder *taken;

		if (!role_may_stay())
			break;
		MemoryContextReset(order_cxt);
		MemoryContextSwitchTo(order_cxt);
		taken = handover_take();
		if (taken != NULL)
		{
			if (!serve_order(taken))
				break;
			continue;
		}
		settle();
		if (!wait_for_order())
			break;
	}
	settle();
}

/* ---- start ---- */

/*
 * Settings that the owner's are not to decide: they become what RESET goes
 * back to.
 */
static void
force_settings(void)
{
	static const char *const forced[][2] = {
		{"role", "none"},
		{"synchronous_commit", "on"},
		{"default_transaction_deferrable", "off"},
		{"transaction_timeout", "0"},
	};

	for (int i = 0; i < (int) lengthof(forced); i++)
	{
		if (GetConfigOption(forced[i][0], true, false) != NULL)
			SetConfigOption(forced[i][0], forced[i][1], PGC_SUSET,
							PGC_S_OVERRIDE);
	}
}

/* Main function of an executor. */
void
chaincall_executor_main(Datum arg)
{
	worker_start(WORKER_EXECUTOR);
	pqsignal(SIGINT, handle_cancel);
	handover_serve();
	/* who has looked before that has counted this one twice */
	worker_wake_launcher();
	/* those that are idle have not left while this place was free */
	if (place_is_wanted())
		worker_wake(WORKER_EXECUTOR, MyDatabaseId);
	pg_atomic_fetch_add_u64(&my_worker->jobs, 1);
	nudge_timer = RegisterTimeout(USER_TIMEOUT, handover_nudge);
	overdue_timer = RegisterTimeout(USER_TIMEOUT, handle_overdue);
	force_settings();
	order_cxt = AllocSetContextCreate(TopMemoryContext, "chaincall order",
									  ALLOCSET_DEFAULT_SIZES);
	serve();
	proc_exit(0);
}
