/*
 * bounded.c
 *	  Expressions and checks in a caller: errors become data, time is bounded.
 *
 * What runs here is chaincall's own code over JSON: it writes nothing.  So
 * there is no subtransaction.  The turn's transaction exists for look-ups in
 * the catalog alone; after an error it is aborted as a whole, which gives back
 * whatever was held, and begun anew.
 *
 * The bound is CPU time of this thread, because a regular expression that is
 * slow is so by itself, and an honest one must not fail because the machine is
 * busy.  A timer asks for a cancel; what it interrupts looks for one.
 */
#include "postgres.h"

#include <time.h>

#include "access/xact.h"
#include "base/clock.h"
#include "base/settings.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timeout.h"
#include "worker/caller.h"

static TimeoutId timer;
static bool timer_made = false;
static volatile sig_atomic_t armed = false;
static volatile sig_atomic_t fired = false;
static volatile int64 cpu_end_us;

static int64
cpu_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (int64) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Every few milliseconds of wall time: is the CPU time used up? */
static void
tick(void)
{
	if (!armed || cpu_us() < cpu_end_us)
		return;
	armed = false;
	fired = true;
	QueryCancelPending = true;
	InterruptPending = true;
}

static void
arm(void)
{
	int			ms = Max(setting_inline_timeout, 1);

	if (!timer_made)
	{
		timer = RegisterTimeout(USER_TIMEOUT, tick);
		timer_made = true;
	}
	fired = false;
	cpu_end_us = cpu_us() + ms * INT64CONST(1000);
	armed = true;
	enable_timeout_every(timer,
						 GetCurrentTimestamp() + ms * INT64CONST(1000),
						 Max(ms / 4, 1));
}

static void
disarm(void)
{
	armed = false;
	disable_timeout(timer, false);
	if (fired)
		QueryCancelPending = false;
}

/* Errors that say that this process, not the job, is in trouble. */
static bool
must_go_on(const ErrorData *edata)
{
	int			category = ERRCODE_TO_CATEGORY(edata->sqlerrcode);

	return edata->elevel > ERROR ||
		edata->sqlerrcode == ERRCODE_OUT_OF_MEMORY ||
		(category == ERRCODE_OPERATOR_INTERVENTION &&
		 edata->sqlerrcode != ERRCODE_QUERY_CANCELED);
}

static StepError *
judge(ErrorData *edata, bool overrun)
{
	if (overrun && edata->sqlerrcode == ERRCODE_QUERY_CANCELED)
		return step_error_make(CLASS_LIMIT, "an expression took too long",
							   NULL,
							   "Simplify the regular expression or filter, or raise chaincall.inline_timeout.");
	return step_error_from(edata);
}

/*
 * Runs work(arg), in the turn's transaction where there is one.  slow: for no
 * more than chaincall.inline_timeout of CPU time.  NULL, or the error as data
 * in the current memory context; the transaction is a new one then.
 */
StepError *
bounded_run(void (*work) (void *), void *arg, bool slow)
{
	MemoryContext cxt = CurrentMemoryContext;
	ErrorContextCallback *context = error_context_stack;
	const volatile bool timed = slow && setting_inline_timeout > 0;
	StepError  *volatile error = NULL;

	if (timed)
		arm();
	PG_TRY();
	{
		work(arg);
		if (timed)
			disarm();
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		if (timed)
			disarm();
		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		if (must_go_on(edata))
			PG_RE_THROW();
		FlushErrorState();
		error = judge(edata, timed && fired);
		FreeErrorData(edata);
		if (caller.in_transaction)
		{
			AbortCurrentTransaction();
			caller.in_transaction = false;
			caller_transaction();
			MemoryContextSwitchTo(cxt);
		}
		error_context_stack = context;
	}
	PG_END_TRY();
	return error;
}

/*
 * In PG_CATCH(), for an error that is nobody's to catch but must not end this
 * process: logs it and aborts what is open.  The error, in cxt, which is
 * current afterwards.  Raises on what asks the process to end, and out of
 * memory: there is more when it has ended, and others go on with its jobs.  A
 * job that takes all there is is found out by the deaths of its workers.
 */
ErrorData *
bounded_caught(MemoryContext cxt)
{
	ErrorData  *edata;

	MemoryContextSwitchTo(cxt);
	edata = CopyErrorData();
	if (edata->elevel > ERROR ||
		edata->sqlerrcode == ERRCODE_OUT_OF_MEMORY ||
		ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
		PG_RE_THROW();
	EmitErrorReport();
	FlushErrorState();
	AbortCurrentTransaction();
	caller.in_transaction = false;
	MemoryContextSwitchTo(cxt);
	return edata;
}
