/*
 * guard.c
 *	  Running a piece of a chain so that its errors and its time are bounded.
 *
 * Errors are caught in a subtransaction, as PL/pgSQL does, because whatever
 * ran may hold locks, buffers or half a write.  Time is bounded by one of
 * PostgreSQL's timers, whose handler asks for a cancel: the only way to stop
 * a statement or a regular expression.  Guards nest (a statement may call
 * another chain), so the timer is set for the nearest deadline, and a cancel
 * belongs to the guard whose deadline has passed.  Any other cancel is the
 * user's, or statement_timeout's: no on_error catches it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/clock.h"
#include "chain/guard.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/resowner.h"
#include "utils/timeout.h"

typedef struct ActiveGuard
{
	const Guard *guard;
	struct ActiveGuard *outer;
} ActiveGuard;

static TimeoutId timer;
static bool timer_registered = false;
static ActiveGuard *innermost = NULL;
static volatile sig_atomic_t timer_fired = false;

static void
fire(void)
{
	/* somebody else's cancel stays theirs */
	if (!QueryCancelPending)
		timer_fired = true;
	QueryCancelPending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

/* Sets the timer for the nearest deadline there is. */
static void
set_timer(void)
{
	int64		nearest = CLOCK_NEVER;

	if (!timer_registered)
	{
		timer = RegisterTimeout(USER_TIMEOUT, fire);
		timer_registered = true;
	}
	disable_timeout(timer, false);
	for (ActiveGuard *active = innermost; active; active = active->outer)
		nearest = Min(nearest, active->guard->deadline_us);
	if (nearest != CLOCK_NEVER)
	{
		int64		wait_us = nearest - clock_us();

		enable_timeout_after(timer, (int) Min(Max(wait_us / 1000, 1),
											  PG_INT32_MAX));
	}
}

static void
enter(ActiveGuard *active, const Guard *guard)
{
	active->guard = guard;
	active->outer = innermost;
	innermost = active;
	if (guard->deadline_us != CLOCK_NEVER)
		set_timer();
}

static bool
is_over(const Guard *guard)
{
	/* the timer counts whole milliseconds */
	return guard->deadline_us != CLOCK_NEVER &&
		clock_us() >= guard->deadline_us - 1000;
}

/*
 * Takes the guard off; the timer goes on for those around it.  Where it has
 * fired for one of them its cancel is under way: once is enough, another would
 * still be pending when that one has caught the first.
 */
static void
leave(ActiveGuard *active)
{
	innermost = active->outer;
	if (active->guard->deadline_us == CLOCK_NEVER)
		return;
	if (innermost == NULL)
	{
		disable_timeout(timer, false);
		timer_fired = false;
	}
	else if (!timer_fired)
		set_timer();
}

/*
 * The work has ended, or failed in another way: a cancel by this guard's timer
 * that nobody has noticed must not stop what follows.
 */
static void
forget_timer(const Guard *guard)
{
	if (timer_fired && is_over(guard))
	{
		timer_fired = false;
		QueryCancelPending = false;
	}
}

/*
 * Whether the error is this guard's own timer.  PostgreSQL words a cancel by
 * the timer like one by the user; its own time-outs have words of their own.
 */
static bool
overran(const Guard *guard, const ErrorData *edata)
{
	return timer_fired && is_over(guard) &&
		edata->sqlerrcode == ERRCODE_QUERY_CANCELED &&
		edata->message_id != NULL &&
		strcmp(edata->message_id,
			   "canceling statement due to user request") == 0;
}

/* Raises the overrun in the cancel's place, which keeps the cancel's context. */
static void pg_attribute_noreturn()
throw_overrun(const Guard *guard, ErrorData *edata)
{
	edata->sqlerrcode = error_class_sqlstate(guard->overrun);
	edata->message = unconstify(char *, guard->message);
	edata->detail = NULL;
	edata->hint = unconstify(char *, guard->hint);
	ReThrowError(edata);
	pg_unreachable();
}

/* What to do with a caught error, once everything is undone. */
static StepError *
judge(const Guard *guard, ErrorData *edata, bool overrun)
{
	StepError  *error;

	if (!overrun &&
		(!guard->catch || edata->sqlerrcode == ERRCODE_QUERY_CANCELED))
	{
		ReThrowError(edata);
		pg_unreachable();
	}
	if (overrun && !guard->catch)
		throw_overrun(guard, edata);
	error = overrun ?
		step_error_make(guard->overrun, guard->message, NULL, guard->hint) :
		step_error_from(edata);
	FreeErrorData(edata);
	return error;
}

/*
 * Runs work(arg).  Returns NULL, or, where the guard catches, the error as
 * data in the current memory context; else raises it.  An overrun deadline is
 * an error of the guard's class, cancels by others are always raised.
 */
StepError *
guard_run(const Guard *guard, void (*work) (void *), void *arg)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ActiveGuard active;
	ErrorData  *volatile edata = NULL;
	volatile bool overrun = false;

	if (!guard->catch && guard->deadline_us == CLOCK_NEVER)
	{
		work(arg);
		return NULL;
	}

	if (guard->catch)
	{
		BeginInternalSubTransaction(NULL);
		MemoryContextSwitchTo(cxt);
	}
	enter(&active, guard);
	PG_TRY();
	{
		work(arg);
		forget_timer(guard);
		leave(&active);
		if (guard->catch)
			ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		FlushErrorState();
		if (innermost == &active)
		{
			overrun = overran(guard, edata);
			forget_timer(guard);
			leave(&active);
		}
		if (guard->catch)
			RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return edata ? judge(guard, edata, overrun) : NULL;
}
