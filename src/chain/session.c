/*
 * session.c
 *	  The driver that runs a chain at once, inside a backend.
 *
 * One process, one thread: model calls are in the air while statements run by
 * SPI.  So before SPI is entered every started call gets the chance to send
 * its whole request (at most SETTLE_MS), and after SPI the sockets are read
 * before any deadline is judged.  Statements run as the calling user in the
 * calling transaction; a subtransaction is made only where on_error, timeout
 * or a written retry may have to go on after an error.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/settings.h"
#include "chain/guard.h"
#include "chain/local.h"
#include "chain/session.h"
#include "miscadmin.h"
#include "trace/air.h"
#include "utils/memutils.h"

#define SETTLE_MS 50

typedef struct Session
{
	MemoryContext cxt;
	ChainPlan  *plan;
	CallGroup  *calls;
	CallRun		run;
	Trace	   *trace;
	AirEntry   *air;			/* the run as a whole */
	List	   *held;			/* of Definition *: nested chains */
	pairingheap waits;			/* of Wait, by due */
	const Task *doing;			/* what runs or is started just now */
	bool		unsettled;		/* calls were started since SPI was left */
} Session;

/* A wait step under way; in its task's context, as task->driver. */
typedef struct Wait
{
	Task	   *task;
	pairingheap_node node;
} Wait;

static int	running = 0;		/* runs that wait for each other */

static const char *const timeout_message = "step took longer than its timeout";
static const char *const timeout_hint =
	"Raise \"timeout\", or say with \"on_error\" what is to happen then.";

/* ---- what the plan asks for ---- */

static StepError *
session_evaluate(void *driver, void (*work) (void *), void *arg,
				 bool catchable, bool slow, int64 deadline_us)
{
	Guard		guard = {
		.catch = catchable,
		.deadline_us = slow ? deadline_us : CLOCK_NEVER,
		.overrun = CLASS_TIMEOUT,
		.message = timeout_message,
		.hint = timeout_hint
	};
	int64		inline_us = clock_us() +
		setting_inline_timeout * INT64CONST(1000);

	if (slow && setting_inline_timeout > 0 && inline_us < deadline_us)
	{
		guard.deadline_us = inline_us;
		guard.overrun = CLASS_LIMIT;
		guard.message = "an expression took too long";
		guard.hint = "Simplify the regular expression or filter, or raise chaincall.inline_timeout.";
	}
	return guard_run(&guard, work, arg);
}

static void
session_cancel(void *driver, Task *task)
{
	Session    *session = driver;

	if (task->driver == NULL)
		return;
	if (task->kind == TASK_WAIT)
		pairingheap_remove(&session->waits, &((Wait *) task->driver)->node);
	else
		call_cancel(task->driver);
}

static Definition *
session_nested(void *driver, const FunctionStep *function)
{
	Session    *session = driver;
	Definition *definition;
	MemoryContext old;

	if (compat_proc_aclcheck(function->oid, GetUserId(),
							 ACL_EXECUTE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_DENIED),
				 errmsg("permission denied for chain \"%s\"", function->name),
				 errhint("Ask its owner to GRANT EXECUTE on it.")));
	definition = definition_of_function(function->oid);
	old = MemoryContextSwitchTo(session->cxt);
	session->held = lappend(session->held, definition);
	MemoryContextSwitchTo(old);
	return definition;
}

static void
check_input_size(const Definition *definition, Jsonb **inputs)
{
	int64		bytes = 0;

	for (int i = 0; i < definition->nargs; i++)
		bytes += VARSIZE(inputs[i]);
	if (bytes > setting_max_input_kb * INT64CONST(1024))
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_LIMIT),
				 errmsg("input of chain \"%s\" is too large",
						definition->name),
				 errdetail("It has " INT64_FORMAT " kB, at most %d kB are allowed.",
						   (bytes + 1023) / 1024, setting_max_input_kb),
				 errhint("Raise chaincall.max_input, or pass a key and read the data in a sql step.")));
}

static Jsonb **
session_inputs(void *driver, Definition *definition, const Jsonb *args,
			   bool *null_for_strict)
{
	Jsonb	  **inputs = definition_inputs(definition, args, null_for_strict);

	check_input_size(definition, inputs);
	return inputs;
}

static Jsonb *
session_nested_result(void *driver, const Definition *definition,
					  Jsonb *output)
{
	return definition_result(definition, output);
}

static const PlanOps session_ops = {
	.evaluate = session_evaluate,
	.cancel = session_cancel,
	.nested = session_nested,
	.inputs = session_inputs,
	.result = session_nested_result
};

static void
show_progress(const Session *session)
{
	int64		known;
	int64		done;

	plan_progress(session->plan, &known, &done);
	air_progress(session->air, known, done);
}

/* ---- model calls ---- */

typedef struct CallArg
{
	Session    *session;
	Task	   *task;
} CallArg;

static void
call_done(void *arg, Jsonb *output, StepError *error)
{
	CallArg    *call = arg;
	ChainPlan  *plan = call->session->plan;
	Task	   *task = call->task;
	MemoryContext old;

	task->driver = NULL;
	if (error == NULL)
	{
		plan_succeed(plan, task, output);
		return;
	}
	old = MemoryContextSwitchTo(call->session->cxt);
	error = step_error_copy(error);
	MemoryContextSwitchTo(old);
	plan_fail(plan, task, error);
}

static void
start_call_work(void *arg)
{
	CallArg    *call = arg;

	call->task->driver = call_start(call->session->calls, &call->task->call,
									call_done, call);
}

static void
call_context(void *arg)
{
	const Task *task = arg;

	errcontext("chain %s, step %s, line %d", task->chain, task->path,
			   task->step->line);
}

static void
start_call(Session *session, Task *task)
{
	CallArg    *call = MemoryContextAlloc(task->cxt, sizeof(CallArg));
	Guard		guard = {.catch = task->catchable, .deadline_us = CLOCK_NEVER};
	StepError  *error;
	ErrorContextCallback context;
	MemoryContext old = MemoryContextSwitchTo(session->cxt);

	call->session = session;
	call->task = task;
	task->call.run = &session->run;
	context.callback = call_context;
	context.arg = task;
	context.previous = error_context_stack;
	error_context_stack = &context;
	session->doing = task;
	error = guard_run(&guard, start_call_work, call);
	session->doing = NULL;
	error_context_stack = context.previous;
	MemoryContextSwitchTo(old);
	session->unsettled = true;
	if (error != NULL)
	{
		plan_fail(session->plan, task, error);
	}
	else
		call_send_waiting(session->calls);
}

/* ---- statements and functions ---- */

typedef struct LocalArg
{
	const Task *task;
	MemoryContext cxt;
	Jsonb	   *output;
} LocalArg;

static void
local_work(void *arg)
{
	LocalArg   *local = arg;
	MemoryContext old = MemoryContextSwitchTo(local->cxt);

	local->output = local_execute(local->task);
	MemoryContextSwitchTo(old);
}

/* Ends the span of a statement whose error nothing in the chain catches. */
static void
end_span_as_raised(Session *session, Span *span)
{
	ErrorData  *edata;

	MemoryContextSwitchTo(session->cxt);
	edata = CopyErrorData();
	trace_end_span(session->trace, span, error_class_of(edata->sqlerrcode),
				   edata->message);
	FreeErrorData(edata);
}

static void
run_local(Session *session, Task *task)
{
	LocalArg	local = {task, task->cxt, NULL};
	Guard		guard = {
		.catch = task->catchable,
		.deadline_us = task->deadline_us,
		.overrun = CLASS_TIMEOUT,
		.message = timeout_message,
		.hint = timeout_hint
	};
	AirEntry   *air;
	Span	   *span;
	StepError  *volatile error = NULL;
	MemoryContext old = MemoryContextSwitchTo(session->cxt);

	span = trace_span(session->trace, task->path,
					  task->kind == TASK_SQL ? "sql" : "function",
					  task->attempt);
	air = air_enter(AIR_STEP, &session->run.id, GetUserId(), task->path,
					task->kind == TASK_SQL ? "sql" : task->step->function->name,
					NULL);
	session->doing = task;
	show_progress(session);
	PG_TRY();
	{
		error = guard_run(&guard, local_work, &local);
	}
	PG_CATCH();
	{
		air_leave(air);
		end_span_as_raised(session, span);
		PG_RE_THROW();
	}
	PG_END_TRY();
	air_leave(air);
	session->doing = NULL;
	trace_end_span(session->trace, span, error ? error->cls : CLASS_NONE,
				   error ? error->message : NULL);
	MemoryContextSwitchTo(old);
	if (error != NULL)
		plan_fail(session->plan, task, error);
	else
		plan_succeed(session->plan, task, local.output);
}

/* ---- waits ---- */

static int
compare_waits(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	TimestampTz x = pairingheap_const_container(Wait, node, a)->task->due;
	TimestampTz y = pairingheap_const_container(Wait, node, b)->task->due;

	return (x < y) - (x > y);	/* the heap's first is its largest */
}

static void
start_wait(Session *session, Task *task)
{
	Wait	   *wait = MemoryContextAlloc(task->cxt, sizeof(Wait));

	wait->task = task;
	task->driver = wait;
	pairingheap_add(&session->waits, &wait->node);
}

/* Ends the waits whose time has come; when the next one does, clock_us(). */
static int64
end_waits(Session *session)
{
	TimestampTz now = GetCurrentTimestamp();

	/* what follows from one may cancel others: the first is looked for anew */
	while (!pairingheap_is_empty(&session->waits))
	{
		Wait	   *wait = pairingheap_container(Wait, node,
												 pairingheap_first(&session->waits));
		Task	   *task = wait->task;

		if (task->due > now)
		{
			int64		clock = clock_us();

			return task->due - now < CLOCK_NEVER - clock ?
				clock + (task->due - now) : CLOCK_NEVER;
		}
		CHECK_FOR_INTERRUPTS();
		pairingheap_remove_first(&session->waits);
		task->driver = NULL;
		plan_succeed(session->plan, task, task->params[0]);
	}
	return CLOCK_NEVER;
}

/* ---- questions ---- */

/*
 * There is nobody whom a session could ask while it waits.  Nothing in the chain
 * catches that: it would take the wrong way of calling it for an answer.
 */
static void
refuse_ask(const Task *task)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("step %s: \"ask\" works in jobs only", task->path),
			 errhint("Enqueue the chain: SELECT chaincall.submit(...); or give the answer in \"mock\"."),
			 errcontext("chain %s, step %s, line %d", task->chain, task->path,
						task->step->line)));
}

/* ---- the loop ---- */

static void
run_loop(Session *session)
{
	ChainPlan  *plan = session->plan;

	for (;;)
	{
		Task	   *task;
		int64		waits_us = end_waits(session);

		while (call_capacity(session->calls) > 0 &&
			   (task = plan_next(plan, true)) != NULL)
			start_call(session, task);
		task = plan_next(plan, false);
		if (plan_ended(plan))
			return;
		show_progress(session);
		if (task != NULL && task->kind == TASK_WAIT)
			start_wait(session, task);
		else if (task != NULL && task->kind == TASK_ASK)
			refuse_ask(task);
		else if (task != NULL)
		{
			if (session->unsettled)
				call_settle(session->calls, clock_us() + SETTLE_MS * 1000);
			session->unsettled = false;
			run_local(session, task);
			(void) call_turn(session->calls, 0);
		}
		else
		{
			if (call_live(session->calls) == 0 &&
				pairingheap_is_empty(&session->waits) &&
				plan_due(plan) == CLOCK_NEVER)
				elog(ERROR, "the chain cannot go on");
			(void) call_turn(session->calls, Min(plan_due(plan), waits_us));
		}
		CHECK_FOR_INTERRUPTS();
		plan_tick(plan, clock_us());
	}
}

static void
end_session(Session *session, ErrorClass cls)
{
	ListCell   *lc;

	if (session->calls)
		call_group_destroy(session->calls);
	session->calls = NULL;
	if (session->trace)
		trace_end(session->trace, cls);
	air_leave(session->air);
	session->air = NULL;
	foreach(lc, session->held)
		definition_release(lfirst(lc));
	session->held = NIL;
}

static void
check_options(const Definition *definition, const PlanOptions *options)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;

	if (options->stop_after)
		plan_check_path(definition, options->stop_after);
	if (options->mock == NULL)
		return;
	if (!JB_ROOT_IS_OBJECT(options->mock))
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("\"mock\" must be an object, not %s",
						json_type_name(options->mock)),
				 errhint("Give outputs by the paths of their steps: {\"summary\": [\"...\"]}.")));
	it = JsonbIteratorInit(unconstify(JsonbContainer *, &options->mock->root));
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			plan_check_path(definition, pnstrdup(v.val.string.val,
												 v.val.string.len));
	}
}

/* Statements may call chains, whose depth no plan sees. */
static void
check_depth(void)
{
	if (running >= setting_max_depth)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_LIMIT),
				 errmsg("chains are nested more than %d deep",
						setting_max_depth),
				 errdetail("Each is called by a statement or function of the one before."),
				 errhint("Raise chaincall.max_depth, or end the recursion.")));
}

/*
 * Ends the session and raises the error that ended it, with the step's path
 * in its message.  A cancel keeps PostgreSQL's words.
 */
static void
rethrow(Session *session, const Definition *definition, MemoryContext cxt)
{
	ErrorData  *edata;
	char	   *path = NULL;

	MemoryContextSwitchTo(cxt);
	edata = CopyErrorData();
	FlushErrorState();
	if (session->doing != NULL)
		path = pstrdup(session->doing->path);
	else if (session->plan != NULL)
		path = plan_failed_at(session->plan);
	end_session(session, error_class_of(edata->sqlerrcode));
	if (path != NULL && !definition->single &&
		edata->sqlerrcode != ERRCODE_QUERY_CANCELED)
		edata->message = psprintf("step %s: %s", path, edata->message);
	ReThrowError(edata);
}

/*
 * Runs the chain to its end and gives its output, palloc'd in the current
 * memory context; with stop_after, an object of path → output, of all steps
 * when that one is never reached.  A failure
 * that nothing in the chain catches is raised.  The run's trace stays, also
 * of a failed run.
 */
Jsonb *
session_run(Definition *definition, Jsonb **inputs,
			const PlanOptions *options)
{
	MemoryContext cxt = CurrentMemoryContext;
	Session    *session;
	pg_uuid_t	id;
	Jsonb	   *output;

	check_options(definition, options);
	check_input_size(definition, inputs);
	check_depth();
	session = palloc0(sizeof(Session));
	session->cxt = AllocSetContextCreate(cxt, "chaincall run",
										 ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(session->cxt);
	ids_uuid7(&id);
	running++;
	PG_TRY();
	{
		StepError  *error;

		session->air = air_enter(AIR_JOB, &id, GetUserId(), NULL,
								 definition->name, NULL);
		session->trace = trace_begin(definition->name, &id);
		call_run_init(&session->run, GetUserId(), &id, session->trace);
		session->calls = call_group_create(NULL);
		session->waits.ph_compare = compare_waits;
		session->plan = plan_create(definition, inputs, options,
									&session_ops, session);
		run_loop(session);

		MemoryContextSwitchTo(cxt);
		error = plan_error(session->plan);
		if (error != NULL)
			step_error_throw(error);
		output = options->stop_after ? plan_outputs(session->plan) :
			json_copy(cxt, plan_output(session->plan));
	}
	PG_CATCH();
	{
		running--;
		rethrow(session, definition, cxt);
	}
	PG_END_TRY();
	running--;
	end_session(session, CLASS_NONE);
	MemoryContextDelete(session->cxt);
	pfree(session);
	return output;
}

/* ---- rendering ---- */

/* What the table of questions would hold. */
static void
render_ask(JsonbParseState **state, const Task *task)
{
	const AskSpec *ask = &task->ask;
	Jsonb	   *schema = ask_schema(task->step->ask->shape);

	json_push_key(state, "ask");
	json_push(state, WJB_VALUE, json_text(ask->question));
	if (ask->show)
	{
		json_push_key(state, "show");
		json_push(state, WJB_VALUE, ask->show);
	}
	if (ask->to)
	{
		json_push_key(state, "to");
		json_push(state, WJB_VALUE, json_text(ask->to));
	}
	if (schema)
	{
		json_push_key(state, "returns");
		json_push(state, WJB_VALUE, schema);
	}
}

static Jsonb *
render_local(const Task *task)
{
	const Step *step = task->step;
	int			n = task->kind == TASK_SQL ? step->sql->text->nparams :
		task->kind == TASK_FUNCTION ? step->function->nargs : 1;
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (task->kind == TASK_WAIT)
	{
		json_push_key(&state, "wait");
		json_push(&state, WJB_VALUE, task->params[0]);
	}
	else if (task->kind == TASK_ASK)
		render_ask(&state, task);
	else if (task->kind == TASK_SQL)
	{
		json_push_key(&state, "sql");
		json_push(&state, WJB_VALUE, json_text(step->sql->text->sql));
		json_push_key(&state, "params");
		json_push(&state, WJB_VALUE, json_array(task->params, n));
	}
	else
	{
		json_push_key(&state, "function");
		json_push(&state, WJB_VALUE, json_text(step->function->name));
		json_push_key(&state, "args");
		(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		for (int i = 0; i < n; i++)
		{
			json_push_key(&state, step->function->arg_names[i]);
			json_push(&state, WJB_VALUE, task->params[i]);
		}
		(void) pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* The request of a model step, whose encoder may raise. */
static Jsonb *
render_call(Task *task)
{
	ErrorContextCallback context;
	Jsonb	   *request;

	context.callback = call_context;
	context.arg = task;
	context.previous = error_context_stack;
	error_context_stack = &context;
	request = call_render(GetUserId(), &task->call);
	error_context_stack = context.previous;
	return request;
}

/* Asks the plan for tasks until the one at path comes; none is run. */
static Jsonb *
render_loop(Session *session, const char *path, StringInfo waiting)
{
	bool		model = true;

	for (;;)
	{
		Task	   *task = plan_next(session->plan, model);

		if (task == NULL && !model)
			return NULL;
		if (task == NULL)
			model = false;
		else if (plan_path_matches(task->path, path))
			return task->kind == TASK_MODEL ?
				render_call(task) : render_local(task);
		else if (waiting->len < 1000)
			appendStringInfo(waiting, "%s%s", waiting->len ? ", " : "",
							 task->path);
	}
}

/*
 * The exact request that the step at path would send, which is not sent.
 * Nothing runs: outputs that the step needs must be in mock.  The result is
 * in the current memory context.
 */
Jsonb *
session_render(Definition *definition, Jsonb **inputs, const char *path,
			   const Jsonb *mock)
{
	PlanOptions options = {.mock = mock, .untimed = true};
	Session		session = {.cxt = CurrentMemoryContext};
	StringInfoData waiting;
	Jsonb	   *volatile result = NULL;

	check_options(definition, &options);
	plan_check_path(definition, path);
	initStringInfo(&waiting);
	PG_TRY();
	{
		session.plan = plan_create(definition, inputs, &options, &session_ops,
								   &session);
		result = render_loop(&session, path, &waiting);
	}
	PG_FINALLY();
	{
		end_session(&session, CLASS_NONE);
	}
	PG_END_TRY();

	if (result != NULL)
		return result;
	if (plan_error(session.plan))
		step_error_throw(plan_error(session.plan));
	if (waiting.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("step \"%s\" cannot be rendered yet", path),
				 errdetail("Outputs are missing of %s.", waiting.data),
				 errhint("Give them by path in \"mock\".")));
	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_INPUT),
			 errmsg("step \"%s\" sends no request", path),
			 errhint("Name a model, sql, function or ask step that this input reaches.")));
}
