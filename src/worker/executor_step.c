/*
 * executor_step.c
 *	  One step of a job in a transaction of its own.
 *
 *		user's code, as the owner     statement, result to JSON, deferred
 *									  constraints
 *		C only, as the superuser      the checkpoint
 *		user's code, as the owner     what a commit may still run
 *
 * The owner's code cannot change the user (SECURITY_LOCAL_USERID_CHANGE), nor
 * end the transaction (SPI refuses), so what it wrote and the checkpoint commit
 * together or not at all.  The commit is asynchronous: handover.c has it
 * flushed before anybody hears of it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/settings.h"
#include "base/shared.h"
#include "base/touch.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "chain/guard.h"
#include "chain/local.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "jit/jit.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "queue/queue.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/executor.h"
#include "worker/executor_plan.h"

/* Bytes of an error's message, detail or hint that are kept. */
#define MAX_MESSAGE 8192

/* A disk that is full is tried again after this long. */
#define NO_ROOM_WAIT_MS 1000

/* A failure is not stored when so many numbers are taken. */
#define MAX_FAILURE_TRIES 10

/* How a run ended that did not succeed. */
typedef enum Outcome
{
	OUTCOME_FAILED,				/* the step's own error */
	OUTCOME_DONE_BEFORE,		/* another run has committed the checkpoint */
	OUTCOME_NO_ROOM				/* not its fault: again, a little later */
} Outcome;

typedef enum Phase
{
	PHASE_STEP,
	PHASE_CHECKPOINT,
	PHASE_COMMIT
} Phase;

typedef struct StepRun
{
	const TakenOrder *taken;
	const StepOrder *order;
	MemoryContext cxt;			/* of the order; outlives the transaction */
	TimestampTz started_at;
	volatile Phase phase;
	Jsonb	   *output;
	XLogRecPtr	lsn;
	const StepError *failure;	/* and under which number to store it */
	int			try;
} StepRun;

/* ---- users ---- */

static void
be_owner(const StepOrder *order)
{
	SetUserIdAndSecContext(order->owner, SECURITY_LOCAL_USERID_CHANGE);
}

static void
be_superuser(void)
{
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID,
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
}

/* ---- spans ---- */

static bool
has_span(const StepOrder *order)
{
	return order->kind == ORDER_SQL || order->kind == ORDER_FUNCTION;
}

/* Writes one row, as the superuser, whatever the step left behind. */
static void
write_span(const StepRun *run, SpanRow *row)
{
	const StepOrder *order = run->order;
	int			lock_timeout = LockTimeout;
	bool		read_only = XactReadOnly;

	row->job = order->job;
	row->owner = order->owner;
	row->path = unconstify(char *, order->path);
	row->id = ids_span();
	row->kind = order->kind == ORDER_SQL ? "sql" : "function";
	row->started_at = run->started_at;
	row->ended_at = GetCurrentTimestamp();
	row->tokens_in = row->tokens_out = -1;
	row->attempt = order->attempt;

	LockTimeout = 0;
	XactReadOnly = false;
	be_superuser();
	PG_TRY();
	{
		queue_checkpoint(&row, 1, my_worker->incarnation);
	}
	PG_FINALLY();
	{
		LockTimeout = lock_timeout;
		XactReadOnly = read_only;
		be_owner(order);
	}
	PG_END_TRY();
}

/* ---- the owner's part ---- */

static void
step_context(void *arg)
{
	const StepOrder *order = arg;

	errcontext("chain %s, step %s, line %d", order->chain, order->path,
			   order->line);
}

static Jsonb *
execute(const StepOrder *order, MemoryContext cxt)
{
	Oid		   *types;
	SPIPlanPtr	plan;
	Jsonb	   *output;

	if (!has_span(order))
		return json_copy(cxt, executor_convert(order));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	plan = executor_plan(order, &types);
	local_run(plan, order->nparams, types, order->params,
			  (Size) setting_max_answer_kb * 1024);
	output = order->kind == ORDER_SQL ? local_rows(order->returns) :
		local_values(order->set);
	output = json_copy(cxt, output);
	SPI_finish();
	return output;
}

static void
check_output(const Jsonb *output)
{
	handover_check_answer(output);
	if (VARSIZE(output) <= (Size) setting_max_answer_kb * 1024)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_LIMIT),
			 errmsg("the result is larger than %d kB", setting_max_answer_kb),
			 errhint("Select less, or raise chaincall.max_answer.")));
}

/* What is deferred runs now, while it is still the owner's. */
static void
run_deferred(void)
{
	ConstraintsSetStmt all = {
		.type = T_ConstraintsSetStmt,.constraints = NIL,.deferred = false
	};

	AfterTriggerSetState(&all);
}

static void
step_in_transaction(void *arg)
{
	StepRun    *run = arg;
	const StepOrder *order = run->order;
	ErrorContextCallback context = {
		.callback = step_context,
		.arg = unconstify(StepOrder *, order),
		.previous = error_context_stack
	};

	error_context_stack = &context;
	StartTransactionCommand();
	synchronous_commit = SYNCHRONOUS_COMMIT_ON;
	be_owner(order);
	PushActiveSnapshot(GetTransactionSnapshot());
	run->output = execute(order, run->cxt);
	run_deferred();
	check_output(run->output);
	if (handover_cancelled(run->taken))
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_CANCELLED),
				 errmsg("canceling statement due to user request")));
	if (has_span(order))
	{
		SpanRow		row = {.try = 0, .cls = CLASS_NONE, .output = run->output};

		run->phase = PHASE_CHECKPOINT;
		write_span(run, &row);
	}
	run->phase = PHASE_COMMIT;
	PopActiveSnapshot();
	synchronous_commit = SYNCHRONOUS_COMMIT_OFF;
	CommitTransactionCommand();
	error_context_stack = context.previous;
}

/* ---- what became of it ---- */

static char *
clip(char *text)
{
	int			len = text ? (int) strlen(text) : 0;

	if (len > MAX_MESSAGE)
		text[pg_mbcliplen(text, len, MAX_MESSAGE)] = '\0';
	return text;
}

/* Leaves the failed transaction and everything of it. */
static void
clean_up(void)
{
	HOLD_INTERRUPTS();
	QueryCancelPending = false;
	AbortCurrentTransaction();
	PortalErrorCleanup();
	jit_reset_after_error();
	RESUME_INTERRUPTS();
	/* an error in code that was not the owner's is no reason to be it */
	SetUserIdAndSecContext(GetSessionUserId(), 0);
}

static bool
no_room(const ErrorData *edata, Phase phase)
{
	/* a step may raise what it likes, but then it is PL/pgSQL that does */
	if (phase == PHASE_STEP && edata->filename != NULL &&
		strcmp(edata->filename, "pl_exec.c") == 0)
		return false;
	return edata->sqlerrcode == ERRCODE_DISK_FULL;
}

static Outcome
judge(const StepRun *run, ErrorData *edata, StepError **error)
{
	if (no_room(edata, run->phase))
		return OUTCOME_NO_ROOM;
	if (run->phase == PHASE_CHECKPOINT &&
		edata->sqlerrcode == ERRCODE_UNIQUE_VIOLATION)
		return OUTCOME_DONE_BEFORE;
	if (run->phase == PHASE_STEP &&
		ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION)
		executor_plan_forget();
	*error = step_error_from(edata);
	/* whoever can raise that has not killed anybody */
	if ((*error)->cls == CLASS_CRASH)
		(*error)->cls = CLASS_SQL;
	clip((*error)->message);
	clip((*error)->detail);
	clip((*error)->hint);
	return OUTCOME_FAILED;
}

/*
 * Runs work(run); false: it raised, and the error is in *edata, everything
 * else is undone.
 */
static bool
attempt(void (*work) (void *), StepRun *run, const Guard *guard,
		ErrorData **edata)
{
	volatile bool succeeded = true;

	run->phase = PHASE_STEP;
	PG_TRY();
	{
		(void) guard_run(guard, work, run);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(run->cxt);
		*edata = CopyErrorData();
		FlushErrorState();
		clean_up();
		succeeded = false;
	}
	PG_END_TRY();
	SetUserIdAndSecContext(GetSessionUserId(), 0);
	MemoryContextSwitchTo(run->cxt);
	return succeeded;
}

/* ---- the second transaction, where there is one ---- */

static void
read_stored(void *arg)
{
	StepRun    *run = arg;

	StartTransactionCommand();
	be_superuser();
	PushActiveSnapshot(GetTransactionSnapshot());
	run->output = queue_checkpoint_output(&run->order->job, run->order->path,
										  run->cxt);
	if (run->output != NULL)
		handover_check_answer(run->output);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

static void
store_failure(void *arg)
{
	StepRun    *run = arg;
	SpanRow		row = {
		.try = run->try,
		.cls = run->failure->cls,
		.message = run->failure->message
	};

	StartTransactionCommand();
	write_span(run, &row);
	synchronous_commit = SYNCHRONOUS_COMMIT_OFF;
	CommitTransactionCommand();
}

/*
 * The failure becomes a span.  One that another run has written under the same
 * number stays; ours takes the next.  What cannot be written for another
 * reason is logged: the answer tells of the failure all the same.
 */
static void
record_failure(StepRun *run, const StepError *failure)
{
	const Guard unguarded = {.deadline_us = CLOCK_NEVER};
	ErrorData  *edata;

	run->failure = failure;
	run->try = run->order->tries;
	for (int i = 0; i < MAX_FAILURE_TRIES; i++)
	{
		run->try++;
		SetCurrentStatementStartTimestamp();
		if (attempt(store_failure, run, &unguarded, &edata))
		{
			run->lsn = XactLastCommitEnd;
			return;
		}
		if (edata->sqlerrcode != ERRCODE_UNIQUE_VIOLATION)
			break;
	}
	ereport(LOG,
			(errcode(edata->sqlerrcode),
			 errmsg("could not store the failure of step \"%s\": %s",
					run->order->path, edata->message)));
}

/* ---- one order ---- */

/*
 * The pinned search_path, as a setting that RESET goes back to, whatever an
 * earlier step of the job has set.
 */
static void
set_search_path(void *arg)
{
	const StepRun *run = arg;
	const char *path = run->order->search_path;

	if (path == NULL || strcmp(namespace_search_path, path) == 0)
		return;
	SetConfigOption("search_path", path, PGC_USERSET, PGC_S_OVERRIDE);
	if (strcmp(namespace_search_path, path) != 0)
		SetConfigOption("search_path", path, PGC_USERSET, PGC_S_SESSION);
}

static void
whole_step(void *arg)
{
	set_search_path(arg);
	step_in_transaction(arg);
}

static void
wait_for_room(ErrorData *edata)
{
	ereport(LOG,
			(errcode(edata->sqlerrcode),
			 errmsg("a step waits for room: %s", edata->message)));
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 NO_ROOM_WAIT_MS, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static Guard
guard_of(const StepOrder *order)
{
	return (Guard)
	{
		.catch = false,
		.deadline_us = order->timeout_ms > 0 ?
			clock_us() + order->timeout_ms * INT64CONST(1000) : CLOCK_NEVER,
		.overrun = CLASS_TIMEOUT,
		.message = "step took longer than its timeout",
		.hint = "Raise \"timeout\", or say with \"on_error\" what is to happen then."
	};
}

static void
report_activity(const StepOrder *order)
{
	char		activity[1024];

	snprintf(activity, sizeof(activity), "chaincall: chain %s, step %s",
			 order->chain, order->path);
	pgstat_report_activity(STATE_RUNNING, activity);
}

/*
 * Until it has succeeded or failed.  The error is NULL where the output, ours
 * or that of another run, is there.
 */
static StepError *
run_to_its_end(StepRun *run)
{
	const Guard guard = guard_of(run->order);
	const Guard unguarded = {.deadline_us = CLOCK_NEVER};

	for (;;)
	{
		StepError  *error = NULL;
		ErrorData  *edata;
		Outcome		outcome;

		SetCurrentStatementStartTimestamp();
		if (attempt(whole_step, run, &guard, &edata))
		{
			run->lsn = has_span(run->order) ? XactLastCommitEnd : 0;
			return NULL;
		}
		run->output = NULL;
		outcome = judge(run, edata, &error);
		if (outcome == OUTCOME_DONE_BEFORE)
		{
			if (!attempt(read_stored, run, &unguarded, &edata))
				return step_error_from(edata);
			/* it may have been put aside meanwhile: again */
			if (run->output != NULL)
			{
				/* its commit may not have been flushed */
				run->lsn = GetXLogInsertRecPtr();
				return NULL;
			}
		}
		else if (outcome == OUTCOME_NO_ROOM)
			wait_for_room(edata);
		else
			return error;
		if (handover_cancelled(run->taken))
			return step_error_make(CLASS_CANCELLED, "cancelled", NULL, NULL);
	}
}

/*
 * Runs the order, with its checkpoint or, when it fails, its failed span.
 * Sets *output or *error, in the current memory context, and returns what must
 * reach the disk before that is told.
 */
XLogRecPtr
executor_run(const TakenOrder *taken, Jsonb **output, StepError **error)
{
	const StepOrder *order = &taken->order;
	StepRun		run = {
		.taken = taken,
		.order = order,
		.cxt = CurrentMemoryContext,
		.started_at = GetCurrentTimestamp()
	};

	report_activity(order);
	touch_job_of(&order->job, taken->caller);
	*error = run_to_its_end(&run);
	*output = run.output;
	touch_clear();
	/* a cancel for this order must not meet the next one */
	QueryCancelPending = false;
	if (*error != NULL && has_span(order) && !handover_cancelled(taken))
		record_failure(&run, *error);
	return run.lsn;
}
