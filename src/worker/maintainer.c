/*
 * maintainer.c
 *	  The worker that keeps a database's queue in order.
 *
 * One a database.  It has a list of duties, each with a time when it is due;
 * it sleeps until the nearest or until it is told of something.  A duty works
 * in small transactions of its own and holds nothing between them, so DROP
 * EXTENSION and an ALTER TABLE get in at once.  What a duty may cost is bounded
 * by letting it rest a multiple of the time that it took: a look that is slow
 * (dead rows that an old snapshot keeps) is made seldom.
 *
 * An error ends the duty's turn only: it is logged, and the duty tried again
 * after a pause that grows.  Everything that a duty does follows from the
 * tables and from what shared memory says, never from what the process
 * remembers, so it may be killed at any point.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/clock.h"
#include "base/shared.h"
#include "base/trouble.h"
#include "commands/extension.h"
#include "http/http.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "queue/queue.h"
#include "queue/upkeep.h"
#include "storage/ipc.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/caller.h"
#include "worker/handover.h"
#include "worker/webhook.h"
#include "worker/worker.h"

PGDLLEXPORT void chaincall_maintainer_main(Datum arg);

#define MS INT64CONST(1000)
#define SECOND (1000 * MS)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define LONGEST_SLEEP MINUTE
#define LONGEST_PAUSE MINUTE	/* after errors */
#define LONGEST_LOCK_PAUSE (2 * SECOND) /* after one about a lock */
#define LOCKS_LOGGED_AFTER 10

/* True: there is more to do, it comes back at once. */
typedef bool (*DutyRun) (void);

typedef struct Duty
{
	const char *name;			/* "is ..." in pg_stat_activity and the log */
	DutyRun		run;
	int64		first;			/* so long after the start */
	int64		period;			/* and then so long after its end */
	int			rest;			/* but so many times as long as it took */
	bool		told;			/* at once when DatabaseSlot.look says so */
	bool		asked;			/* or DatabaseSlot.maintain */
	/* clock_us() */
	int64		due;
	int64		rested;			/* not before */
	int			failures;		/* in a row */
} Duty;

static MemoryContext duty_context = NULL;
static int64 promote_not_before = 0;	/* what is due is locked */

/* ---- duties ---- */

/* Sets the database's next_due to that or keeps a nearer one. */
static void
lower_next_due(DatabaseSlot *slot, TimestampTz due)
{
	uint64		now = pg_atomic_read_u64(&slot->next_due);

	while ((TimestampTz) now > due &&
		   !pg_atomic_compare_exchange_u64(&slot->next_due, &now, (uint64) due))
		;
}

/*
 * next_due is taken before the snapshot: what is told of later is due in the
 * next round, what was told of before is seen in this one.
 */
static bool
promote(void)
{
	static bool known = false;
	DatabaseSlot *slot = database_slot(MyDatabaseId);
	TimestampTz told;
	TimestampTz due;
	int			n;

	if (slot == NULL)
		return false;
	told = (TimestampTz) pg_atomic_exchange_u64(&slot->next_due, PG_INT64_MAX);
	due = known ? told : DT_NOBEGIN;
	PG_TRY();
	{
		n = queue_promote(&due);
	}
	PG_CATCH();
	{
		lower_next_due(slot, told);
		PG_RE_THROW();
	}
	PG_END_TRY();
	known = true;
	lower_next_due(slot, due);
	promote_not_before = n == 0 && due <= GetCurrentTimestamp() ?
		clock_us() + SECOND : 0;
	return false;
}

static bool
apply_actions(void)
{
	return queue_apply_actions();
}

static bool
recover(void)
{
	(void) queue_recover();
	return false;
}

static bool
expire(void)
{
	return queue_expire() >= UPKEEP_BATCH;
}

static bool
let_go(void)
{
	return queue_let_go();
}

static bool
look(void)
{
	queue_look();
	return false;
}

static bool
recount(void)
{
	queue_recount();
	return false;
}

static bool
make_partitions(void)
{
	queue_make_partitions();
	return false;
}

/*
 * One of the duties that a schedule may have taken over; done: when it was done
 * last.
 */
static bool
maintain(TimestampTz *done, DutyRun run)
{
	TimestampTz began = GetCurrentTimestamp();
	bool		more;

	if (!queue_maintenance_due(*done))
		return false;
	more = run();
	/* asked for meanwhile: once more */
	if (!more)
		*done = began;
	return more;
}

static bool
retire_days(void)
{
	queue_retire_partitions();
	return false;
}

static bool
retire_partitions(void)
{
	static TimestampTz done = 0;

	return maintain(&done, retire_days);
}

static bool
retain_rows(void)
{
	static TimestampTz done = 0;

	return maintain(&done, queue_retain);
}

static bool
end_overlong(void)
{
	handover_end_overlong();
	return false;
}

static bool
delete_definitions(void)
{
	queue_retain_definitions();
	return false;
}

static bool
retain_definitions(void)
{
	static TimestampTz done = 0;

	return maintain(&done, delete_definitions);
}

/* Executors that cannot start. */
static void
alert_trouble(const Trouble *trouble)
{
	char	   *role = GetUserNameFromId(trouble->role, true);

	queue_alert("executor", NULL, trouble->role,
				psprintf("no executor can start for role \"%s\": its sql and function steps wait",
						 role ? role : psprintf("%u", trouble->role)),
				trouble_hint(trouble->reason));
}

/* Those that stand open about other roles: their cause is gone. */
static void
close_troubles(const Trouble *troubles, int n)
{
	MemoryContext cxt = CurrentMemoryContext;
	Oid		   *roles = palloc(Max(n, 1) * sizeof(Oid));

	for (int i = 0; i < n; i++)
		roles[i] = troubles[i].role;
	queue_begin();
	queue_close_alerts("executor", roles, n);
	upkeep_commit(false, cxt);
}

static bool
tell_troubles(void)
{
	static Trouble *told = NULL;
	static int	ntold = 0;
	MemoryContext cxt = CurrentMemoryContext;
	Trouble    *troubles;
	int			n = trouble_list(MyDatabaseId, &troubles);
	int			news = 0;

	for (int i = 0; i < n; i++)
	{
		bool		known = false;

		for (int k = 0; k < ntold && !known; k++)
			known = told[k].role == troubles[i].role &&
				told[k].reason == troubles[i].reason &&
				told[k].since == troubles[i].since;
		if (known)
			continue;
		if (news++ == 0)
			queue_begin();
		alert_trouble(&troubles[i]);
	}
	if (news > 0)
		upkeep_commit(true, cxt);
	/* also the first time: what the last life has told may be over */
	if (told == NULL || n < ntold + news)
		close_troubles(troubles, n);
	if (told != NULL)
		pfree(told);
	told = MemoryContextAlloc(TopMemoryContext, Max(n, 1) * sizeof(Trouble));
	if (n > 0)
		memcpy(told, troubles, n * sizeof(Trouble));
	ntold = n;
	return false;
}

/* promote's turns come from next_due, telling's from webhook.c; see due_at(). */
enum
{
	DUTY_PROMOTE = 0,
	DUTY_TELL = 1
};

static Duty duties[] = {
	[DUTY_PROMOTE] = {"queueing jobs that are due", promote, 0, 0, 0, false},
	[DUTY_TELL] = {"telling of alerts", webhook_run, 0, 0, 0, false},
	{"recovering jobs of dead workers", recover, 0, MINUTE, 20, true},
	{"applying actions", apply_actions, 0, SECOND, 2, true},
	{"letting go of jobs that were held", let_go, 0, SECOND, 2, true},
	{"making partitions", make_partitions, 0, HOUR, 20, false},
	{"counting queued jobs", recount, 0, 10 * MINUTE, 100, false},
	{"looking for queued jobs", look, 0, SECOND, 20, false},
	{"ending expired jobs", expire, 0, SECOND, 20, false},
	{"ending steps that take too long", end_overlong, SECOND, SECOND, 20, false},
	{"telling of executors that cannot start", tell_troubles, SECOND, 2 * SECOND, 20, false},
	{"dropping old partitions", retire_partitions, 2 * SECOND, HOUR, 20, false, true},
	{"deleting old rows", retain_rows, 3 * SECOND, HOUR, 4, false, true},
	{"deleting old definitions", retain_definitions, 10 * SECOND, 24 * HOUR, 100, false, true},
};

/* ---- turns ---- */

/* An error's report, when the transaction is over. */
static void
report(const Duty *duty, const ErrorData *error, int64 pause)
{
	/* that somebody holds a lock is no fault, unless he does so for long */
	int			level = error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE &&
		duty->failures % LOCKS_LOGGED_AFTER != 0 ? DEBUG1 : LOG;

	ereport(level,
			(errcode(error->sqlerrcode),
			 errmsg("chaincall maintainer: %s failed, and is tried again in %lld ms: %s",
					duty->name, (long long) (pause / MS), error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0,
			 error->context ? errcontext("%s", error->context) : 0));
}

static void
fail_duty(Duty *duty)
{
	ErrorData  *error;
	int64		pause;

	MemoryContextSwitchTo(duty_context);
	error = CopyErrorData();
	/* a new process has some */
	if (error->sqlerrcode == ERRCODE_OUT_OF_MEMORY)
		PG_RE_THROW();
	FlushErrorState();
	queue_abort();
	MemoryContextSwitchTo(duty_context);
	duty->failures++;
	pause = Min(SECOND << Min(duty->failures - 1, 6),
				error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ?
				LONGEST_LOCK_PAUSE : LONGEST_PAUSE);
	report(duty, error, pause);
	duty->rested = clock_us() + pause;
	duty->due = duty->rested;
	pg_atomic_fetch_add_u64(&my_worker->errors, 1);
}

static void
run_duty(Duty *duty)
{
	int64		began = clock_us();
	bool		more = false;

	pgstat_report_activity(STATE_RUNNING, duty->name);
	MemoryContextSwitchTo(duty_context);
	PG_TRY();
	{
		int64		now;

		more = duty->run();
		now = clock_us();
		duty->failures = 0;
		duty->rested = now + duty->rest * (now - began);
		duty->due = more ? duty->rested : Max(now + duty->period, duty->rested);
	}
	PG_CATCH();
	{
		fail_duty(duty);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(duty_context);
}

/* When promotion is due, by the wall clock, as clock_us(). */
static int64
promotion_due(const Duty *duty, int64 now)
{
	const DatabaseSlot *slot = database_slot(MyDatabaseId);
	TimestampTz next = slot == NULL ? DT_NOEND :
		(TimestampTz) pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, &slot->next_due));
	TimestampTz wall = GetCurrentTimestamp();

	if (duty->due == 0)
		return now;				/* the first time: from the table */
	if (next == DT_NOEND || next - wall > LONGEST_SLEEP)
		return now + LONGEST_SLEEP;
	return Max(Max(now + Max(next - wall, 0), duty->rested),
			   promote_not_before);
}

static int64
due_at(const Duty *duty, int64 now)
{
	if (duty == &duties[DUTY_PROMOTE])
		return promotion_due(duty, now);
	if (duty == &duties[DUTY_TELL])
		return Max(webhook_due(), duty->rested);
	return duty->due;
}

/* Somebody wants the duties that can be told of; they rest first. */
static void
take_look(void)
{
	DatabaseSlot *slot = database_slot(MyDatabaseId);
	int64		now = clock_us();
	bool		look;
	bool		maintain;

	if (slot == NULL)
		return;
	look = pg_atomic_exchange_u32(&slot->look, 0) != 0;
	maintain = pg_atomic_exchange_u32(&slot->maintain, 0) != 0;
	for (int i = 0; i < (int) lengthof(duties); i++)
	{
		if ((look && duties[i].told) || (maintain && duties[i].asked))
			duties[i].due = Min(duties[i].due, Max(now, duties[i].rested));
	}
}

static bool
extension_is_gone(void)
{
	bool		gone;

	StartTransactionCommand();
	gone = !OidIsValid(get_extension_oid("chaincall", true));
	CommitTransactionCommand();
	return gone;
}

/* Runs what is due; false: the extension has gone. */
static bool
run_due(void)
{
	for (int i = 0; i < (int) lengthof(duties); i++)
	{
		Duty	   *duty = &duties[i];
		int64		now = clock_us();

		if (due_at(duty, now) > now)
			continue;
		if (!worker_turn())
			return true;
		run_duty(duty);
		if (duty->failures > 0 && extension_is_gone())
			return false;
	}
	return true;
}

/* Milliseconds until the next thing is due. */
static long
sleep_ms(void)
{
	int64		now = clock_us();
	int64		nearest = now + LONGEST_SLEEP;

	for (int i = 0; i < (int) lengthof(duties); i++)
		nearest = Min(nearest, due_at(&duties[i], now));
	return (long) (Max(nearest - now, 0) + MS - 1) / MS;
}

/* Sleeps while answers to the webhook's requests may come. */
static void
wait_for_answers(void)
{
	MemoryContextSwitchTo(duty_context);
	(void) http_turn(clock_us() + sleep_ms() * MS);
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(duty_context);
}

/* The maintainer of a database; bgw_main. */
void
chaincall_maintainer_main(Datum arg)
{
	worker_start(WORKER_MAINTAINER);
	if (!worker_probe())
		proc_exit(0);
	/* one table that somebody has locked is not to hold up what needs another */
	SetConfigOption("lock_timeout", "100ms", PGC_SUSET, PGC_S_SESSION);
	queue_bounded = bounded_run;
	duty_context = AllocSetContextCreate(TopMemoryContext,
										 "chaincall maintainer",
										 ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < (int) lengthof(duties); i++)
		duties[i].due = clock_us() + duties[i].first;
	duties[DUTY_PROMOTE].due = 0;
	while (worker_turn())
	{
		take_look();
		if (!run_due())
			break;
		pgstat_report_activity(STATE_IDLE, NULL);
		if (webhook_in_flight())
			wait_for_answers();
		else
			worker_sleep(sleep_ms());
	}
	proc_exit(0);
}
