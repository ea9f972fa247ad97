/*
 * plan_eval.c
 *	  Values of a plan: what names stand for, conditions, fan-outs, and the
 *	  rendering of a task.
 *
 * Everything that may raise runs through plan_evaluate(), so that a driver
 * decides in one place how an error becomes data and how long an expression
 * may take.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/settings.h"
#include "base/value.h"
#include "catalog/pg_type.h"
#include "chain/hole.h"
#include "chain/plan_private.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

/* Where names are looked up: an item, or what is around a step. */
typedef struct Env
{
	ChainPlan  *plan;
	const ChainRun *chain;
	const ItemRun *item;
} Env;

/* One piece of work: its place, its inputs, its result. */
typedef struct Evaluation
{
	Env			env;
	const StepRun *run;
	void		(*work) (struct Evaluation *);
	const void *source;
	void	   *target;
	void	   *result;
	bool		flag;
} Evaluation;

static char *
describe_place(const StepRun *run, const ItemRun *item)
{
	StringInfoData path;

	initStringInfo(&path);
	if (item != NULL)
		path_of_item(&path, item);
	else
		path_of_run(&path, run);
	return psprintf("chain %s, step %s, line %d", run->chain->definition->name,
					path.len ? path.data : "chain", run->step->line);
}

static void
evaluation_context(void *arg)
{
	ChainPlan  *plan = arg;

	errcontext("%s", describe_place(plan->at_run, plan->at_item));
}

static void
evaluation_work(void *arg)
{
	Evaluation *evaluation = arg;
	MemoryContext old = MemoryContextSwitchTo(evaluation->env.plan->scratch);

	evaluation->work(evaluation);
	MemoryContextSwitchTo(old);
}

/* Fills in where the error happened, unless that is known. */
StepError *
plan_place_error(ChainPlan *plan, const StepRun *run, const ItemRun *item,
				 StepError *error)
{
	MemoryContext old = MemoryContextSwitchTo(plan->cxt);

	if (error->step == NULL)
	{
		StringInfoData path;

		initStringInfo(&path);
		if (item != NULL)
			path_of_item(&path, item);
		else
			path_of_run(&path, run);
		error->step = path.len ? path.data : pstrdup("chain");
	}
	if (error->context == NULL)
		error->context = describe_place(run, item);
	MemoryContextSwitchTo(old);
	return error;
}

/* A failure of the item, which lives as long as the plan. */
StepError *
plan_make_error(ChainPlan *plan, const ItemRun *item, ErrorClass cls,
				const char *message, const char *detail, const char *hint)
{
	MemoryContext old = MemoryContextSwitchTo(plan->cxt);
	StepError  *error = step_error_make(cls, message, detail, hint);

	MemoryContextSwitchTo(old);
	return plan_place_error(plan, item->run, item, error);
}

/*
 * The path of the step that ended the run, or whose evaluation raised an
 * error just now; NULL where there is none.  Palloc'd.
 */
char *
plan_failed_at(const ChainPlan *plan)
{
	StringInfoData path;

	if (plan->error != NULL)
		return pstrdup(plan->error->step);
	if (!plan->evaluating)
		return NULL;
	initStringInfo(&path);
	if (plan->at_item != NULL)
		path_of_item(&path, plan->at_item);
	else
		path_of_run(&path, plan->at_run);
	return path.len ? path.data : pstrdup("chain");
}

/*
 * Runs the evaluation, whose time is bounded where slow.  Returns NULL, or
 * where `catchable` the error as data; other errors are raised on.
 */
static StepError *
plan_evaluate(ChainPlan *plan, Evaluation *evaluation, const StepRun *run,
			  const ItemRun *item, bool catchable, bool slow)
{
	ErrorContextCallback context;
	MemoryContext old = MemoryContextSwitchTo(plan->cxt);
	StepError  *error;

	evaluation->run = run;
	evaluation->env.plan = plan;
	evaluation->env.chain = run->chain;
	evaluation->env.item = item ? item : run->parent;
	plan->evaluating = true;
	plan->at_run = run;
	plan->at_item = item;
	context.callback = evaluation_context;
	context.arg = plan;
	context.previous = error_context_stack;
	error_context_stack = &context;
	error = plan->ops->evaluate(plan->driver, evaluation_work, evaluation,
								catchable, slow,
								item ? item->limit_us :
								plan_limit_around(run));
	error_context_stack = context.previous;
	plan->evaluating = false;
	MemoryContextSwitchTo(old);
	return error ? plan_place_error(plan, run, item, error) : NULL;
}

/* A copy of value that lives as long as the plan, or until it is freed. */
Jsonb *
plan_keep(ChainPlan *plan, const Jsonb *value)
{
	return json_copy(plan->cxt, value);
}

/* ---- names ---- */

static Jsonb *
lookup(void *arg, const Expression *expr, int i)
{
	const Env  *env = arg;
	const NameRef *ref = &expr->refs[i];
	const ItemRun *item;

	if (ref->kind == NAME_INPUT)
		return env->chain->inputs[ref->slot];

	for (item = env->item; item != NULL; item = item->run->parent)
	{
		if (item->run->step == ref->owner)
			break;
	}
	if (item == NULL)
		elog(ERROR, "name \"%s\" is out of its scope", expr->names[i]);
	switch (ref->kind)
	{
		case NAME_STEP:
			if (item->children[ref->slot]->phase != RUN_DONE)
				elog(ERROR, "step \"%s\" is used before it ended",
					 expr->names[i]);
			return item->children[ref->slot]->output;
		case NAME_ITEM:
			return item->element;
		case NAME_INDEX:
			return json_int(item->index);
		case NAME_ROUND:
			return json_int(item->round);
		case NAME_LAST:
			return item->last ? item->last : json_null();
		case NAME_ERROR:
			return step_error_json(item->error);
		case NAME_INPUT:
			break;
	}
	pg_unreachable();
}

/* ---- conditions, fan-outs, JSON ---- */

static void
work_condition(Evaluation *evaluation)
{
	evaluation->flag = expr_condition(evaluation->source, lookup,
									  &evaluation->env);
}

/* Evaluates when, until or an arm's when; item is NULL for a step's own. */
StepError *
plan_condition(ChainPlan *plan, const StepRun *run, const ItemRun *item,
			   const Expression *expr, bool catchable, bool slow,
			   bool *result)
{
	Evaluation	evaluation = {.work = work_condition, .source = expr};
	StepError  *error;

	error = plan_evaluate(plan, &evaluation, run, item, catchable, slow);
	*result = evaluation.flag;
	return error;
}

static void
raise_fan_out(const char *n)
{
	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_LIMIT),
			 errmsg("\"each\" has %s elements", n),
			 errdetail("At most %d are allowed.", setting_max_fan_out),
			 errhint("Raise chaincall.max_fan_out, or enqueue a job for each element.")));
}

static char *
numeric_text(Numeric number)
{
	return DatumGetCString(DirectFunctionCall1(numeric_out,
											   NumericGetDatum(number)));
}

static int
compare_numeric(Numeric number, int64 n)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp,
											 NumericGetDatum(number),
											 NumericGetDatum(int64_to_numeric(n))));
}

static int
elements_of_number(Numeric number, const char *source)
{
	int64		n = -1;

	if (compare_numeric(number, setting_max_fan_out) > 0)
		raise_fan_out(numeric_text(number));
	if (compare_numeric(number, 0) >= 0)
		n = DatumGetInt64(DirectFunctionCall1(numeric_int8,
											  NumericGetDatum(number)));
	if (n < 0 || compare_numeric(number, n) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("\"each\" takes a whole number of at least 0"),
				 errdetail("%s is %s.", source, numeric_text(number)),
				 errhint("A number n runs the step for 1 to n.")));
	return (int) n;
}

static void
work_elements(Evaluation *evaluation)
{
	StepRun    *run = evaluation->target;
	const TemplateHole *each = run->step->each;
	const char *source = each->expr->source;
	Jsonb	   *value = hole_value(each, lookup, &evaluation->env);
	JsonbValue	scalar;

	if (JB_ROOT_IS_ARRAY(value) && !JB_ROOT_IS_SCALAR(value))
	{
		if (json_count(value) > setting_max_fan_out)
			raise_fan_out(psprintf("%d", json_count(value)));
		run->elements = plan_keep(evaluation->env.plan, value);
		run->nitems = json_count(value);
	}
	else if (json_is_null(value))
		run->nitems = 0;
	else if (json_scalar(value, &scalar) && scalar.type == jbvNumeric)
		run->nitems = elements_of_number(scalar.val.numeric, source);
	else
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("\"each\" takes an array, a number or null, not %s",
						json_type_name(value)),
				 errdetail("%s is %s.", source, json_excerpt(value, 100)),
				 errhint("Name an array, or a number n to run the step for 1 to n.")));
}

/* Sets elements and nitems of a run with `each`. */
StepError *
plan_elements(ChainPlan *plan, StepRun *run)
{
	Evaluation	evaluation = {.work = work_elements, .target = run};

	return plan_evaluate(plan, &evaluation, run, NULL, run->catchable,
						 run->step->slow);
}

static void
work_json(Evaluation *evaluation)
{
	evaluation->result = plan_keep(evaluation->env.plan,
								   json_template_value(evaluation->source,
													   lookup,
													   &evaluation->env));
}

/* A value step's value or a block's output; kept. */
StepError *
plan_json(ChainPlan *plan, const ItemRun *item, const JsonTemplate *template,
		  Jsonb **result)
{
	Evaluation	evaluation = {.work = work_json, .source = template};
	StepError  *error;

	error = plan_evaluate(plan, &evaluation, item->run, item,
						  item->catchable, item->run->step->slow);
	*result = evaluation.result;
	return error;
}

/* ---- model tasks ---- */

static void
push_field(JsonbParseState **state, const char *key, const Jsonb *value)
{
	json_push_key(state, key);
	json_push(state, WJB_VALUE, value);
}

static void
push_message(JsonbParseState **state, const char *role, const Jsonb *content)
{
	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_field(state, "role", json_text(role));
	push_field(state, "content", content);
	(void) pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static void
refuse_message(const Jsonb *message, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_INPUT),
			 errmsg("a spliced message %s", why),
			 errdetail("It is %s.", json_excerpt(message, 100)),
			 errhint("Messages look like {\"role\": \"user\", \"content\": \"...\"}; roles are user, assistant and tool.")));
}

/* Splices an array of messages; data may speak as user, assistant or tool. */
static void
push_spliced(JsonbParseState **state, const Jsonb *messages)
{
	if (json_is_null(messages))
		return;
	if (!JB_ROOT_IS_ARRAY(messages) || JB_ROOT_IS_SCALAR(messages))
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("an entry of \"messages\" must be an array of messages, not %s",
						json_type_name(messages)),
				 errhint("Write {role: user, content: \"{{...}}\"} for a single text.")));
	for (int i = 0; i < json_count(messages); i++)
	{
		Jsonb	   *message = json_element(messages, i);
		Jsonb	   *content = json_field(message, "content");
		Jsonb	   *role = json_field(message, "role");
		char	   *name = role ? json_string_dup(role) : NULL;

		if (name == NULL || content == NULL)
			refuse_message(message, "lacks a role or content");
		if (strcmp(name, "user") != 0 && strcmp(name, "assistant") != 0 &&
			strcmp(name, "tool") != 0)
			refuse_message(message, psprintf("has the role \"%s\"", name));
		if (json_string_dup(content) == NULL &&
			(!JB_ROOT_IS_ARRAY(content) || JB_ROOT_IS_SCALAR(content)))
			refuse_message(message, "has a content that is neither text nor a list");
		json_push(state, WJB_ELEM, message);
	}
}

static Jsonb *
message_content(const MessageStep *message, Env *env)
{
	JsonbParseState *state = NULL;

	if (!message->parts)
		return json_text(template_text(message->texts[0], lookup, env));
	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < message->ntexts; i++)
	{
		(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		push_field(&state, "text",
				   json_text(template_text(message->texts[i], lookup, env)));
		(void) pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

/* Written system messages join the system text, which every api knows. */
static void
render_messages(const ModelStep *model, CallSpec *call, Env *env)
{
	JsonbParseState *state = NULL;
	StringInfoData system;

	initStringInfo(&system);
	if (model->system)
		appendStringInfoString(&system,
							   template_text(model->system, lookup, env));
	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	if (model->prompt)
		push_message(&state, "user",
					 json_text(template_text(model->prompt, lookup, env)));
	for (int i = 0; i < model->nmessages; i++)
	{
		const MessageStep *message = &model->messages[i];

		if (message->splice)
			push_spliced(&state, json_template_value(message->splice, lookup,
													 env));
		else if (strcmp(message->role, "system") == 0)
		{
			for (int k = 0; k < message->ntexts; k++)
				appendStringInfo(&system, "%s%s", system.len ? "\n\n" : "",
								 template_text(message->texts[k], lookup,
											   env));
		}
		else
			push_message(&state, message->role,
						 message_content(message, env));
	}
	call->messages = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY,
													  NULL));
	if (json_count(call->messages) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("there are no messages to send"),
				 errhint("Add one with role user.")));
	call->system = system.len ? system.data : NULL;
}

static void
render_model(const Step *step, Task *task, Env *env)
{
	const ModelStep *model = step->model;
	CallSpec   *call = &task->call;

	call->model = model->name;
	call->fallback = model->fallback;
	call->path = task->path;
	call->form = model->form;
	if (model->form == CALL_MESSAGES)
		render_messages(model, call, env);
	else
		call->body = json_template_value(model->body, lookup, env);
	call->params = model->fixed_params;
	if (model->params)
		call->params = json_template_value(model->params, lookup, env);
	if (model->extra)
		call->extra = json_template_value(model->extra, lookup, env);
	call->shape = model->shape ? &model->shape->answer : NULL;
	call->reask = model->reask;
	call->retry = step->retry;
	call->deadline_us = task->deadline_us;
}

/* ---- statements and functions ---- */

/* Rendering leaves garbage behind; only what was made moves to the task. */
static void
move_to_task(Task *task, int nparams)
{
	CallSpec   *call = &task->call;
	Jsonb	  **params = task->params;

	if (task->kind == TASK_MODEL)
	{
		call->messages = json_copy(task->cxt, call->messages);
		call->body = json_copy(task->cxt, call->body);
		call->params = json_copy(task->cxt, call->params);
		call->extra = json_copy(task->cxt, call->extra);
		if (call->system)
			call->system = MemoryContextStrdup(task->cxt, call->system);
		return;
	}
	if (task->kind == TASK_ASK)
	{
		AskSpec    *ask = &task->ask;

		ask->question = MemoryContextStrdup(task->cxt, ask->question);
		ask->show = json_copy(task->cxt, ask->show);
		if (ask->to)
			ask->to = MemoryContextStrdup(task->cxt, ask->to);
		return;
	}
	task->params = MemoryContextAlloc(task->cxt,
									  Max(nparams, 1) * sizeof(Jsonb *));
	for (int i = 0; i < nparams; i++)
		task->params[i] = json_copy(task->cxt, params[i]);
}

/* The time that a wait's text means; an interval counts from now. */
static TimestampTz
wait_time(const char *text)
{
	Interval   *interval;

	/* a date begins with its year, no interval has such a dash */
	if (strspn(text, "0123456789") >= 4 &&
		text[strspn(text, "0123456789")] == '-')
	{
		bool		isnull;

		return DatumGetTimestampTz(value_to_datum(json_text(text),
												  TIMESTAMPTZOID, -1,
												  &isnull));
	}
	interval = DatumGetIntervalP(DirectFunctionCall3(interval_in,
													 CStringGetDatum(text),
													 ObjectIdGetDatum(InvalidOid),
													 Int32GetDatum(-1)));
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(GetCurrentTimestamp()),
												   IntervalPGetDatum(interval)));
}

static void
render_wait(const WaitStep *wait, Task *task, Env *env)
{
	if (wait->text == NULL)
		task->due = GetCurrentTimestamp() + wait->ms * 1000;
	else
		task->due = wait_time(template_text(wait->text, lookup, env));
	task->params = palloc(sizeof(Jsonb *));
	task->params[0] = value_from_datum(TimestampTzGetDatum(task->due), false,
									   TIMESTAMPTZOID);
}

static void
work_render(Evaluation *evaluation)
{
	Task	   *task = evaluation->target;
	const Step *step = task->step;
	int			n = 0;

	if (step->kind == STEP_MODEL)
		render_model(step, task, &evaluation->env);
	else if (step->kind == STEP_WAIT)
	{
		n = 1;
		render_wait(step->wait, task, &evaluation->env);
	}
	else if (step->kind == STEP_ASK)
		ask_step_render(step->ask, &task->ask, lookup, &evaluation->env);
	else if (step->kind == STEP_SQL)
	{
		n = step->sql->text->nparams;
		task->params = palloc(Max(n, 1) * sizeof(Jsonb *));
		for (int i = 0; i < n; i++)
			task->params[i] = sql_template_param(step->sql->text, i, lookup,
												 &evaluation->env);
	}
	else
	{
		n = step->function->nargs;
		task->params = palloc(Max(n, 1) * sizeof(Jsonb *));
		for (int i = 0; i < n; i++)
			task->params[i] = json_template_value(step->function->args[i],
												  lookup, &evaluation->env);
	}
	move_to_task(task, n);
}

/* May a function step around the item run its chain again? */
static bool
is_repeatable(const ItemRun *item)
{
	const ItemRun *caller;

	while ((caller = item->run->chain->parent) != NULL)
	{
		const RetryPolicy *retry = caller->run->step->retry;

		if (retry != NULL && retry->attempts > 1)
			return true;
		item = caller;
	}
	return false;
}

/* Makes the task of an item that is ready, everything rendered. */
StepError *
plan_render(ChainPlan *plan, ItemRun *item, Task **result)
{
	Evaluation	evaluation = {.work = work_render};
	const Step *step = item->run->step;
	MemoryContext cxt;
	MemoryContext old = MemoryContextSwitchTo(plan->scratch);
	StringInfoData path;
	Task	   *task;
	StepError  *error;

	cxt = AllocSetContextCreate(plan->cxt, "chaincall task",
								ALLOCSET_SMALL_SIZES);
	initStringInfo(&path);
	path_of_item(&path, item);
	task = MemoryContextAllocZero(cxt, sizeof(Task));
	task->cxt = cxt;
	task->kind = step->kind == STEP_MODEL ? TASK_MODEL :
		step->kind == STEP_SQL ? TASK_SQL :
		step->kind == STEP_WAIT ? TASK_WAIT :
		step->kind == STEP_ASK ? TASK_ASK : TASK_FUNCTION;
	task->step = step;
	task->chain = item->run->chain->definition->name;
	task->path = MemoryContextStrdup(cxt, path.data);
	task->attempt = item->attempt;
	task->deadline_us = item->limit_us;
	task->catchable = item->catchable;
	task->repeatable = is_repeatable(item);
	task->item = item;
	MemoryContextSwitchTo(old);

	evaluation.target = task;
	error = plan_evaluate(plan, &evaluation, item->run, item,
						  item->catchable, item->run->step->slow);
	if (error != NULL)
	{
		MemoryContextDelete(cxt);
		return error;
	}
	*result = task;
	return NULL;
}

/* The task that converts a value for a called chain; see item->converting. */
Task *
plan_conversion(ChainPlan *plan, ItemRun *item)
{
	MemoryContext cxt = AllocSetContextCreate(plan->cxt, "chaincall task",
											  ALLOCSET_SMALL_SIZES);
	Task	   *task = MemoryContextAllocZero(cxt, sizeof(Task));
	StringInfoData path;

	initStringInfo(&path);
	path_of_item(&path, item);
	task->cxt = cxt;
	task->kind = item->leaving ? TASK_RESULT : TASK_INPUTS;
	task->step = item->run->step;
	task->chain = item->run->chain->definition->name;
	task->path = MemoryContextStrdup(cxt, path.data);
	task->attempt = item->attempt;
	task->deadline_us = item->limit_us;
	task->catchable = item->catchable;
	task->item = item;
	task->definition = item->nested->definition;
	task->params = MemoryContextAlloc(cxt, sizeof(Jsonb *));
	task->params[0] = json_copy(cxt, item->converting);
	pfree(path.data);
	return task;
}

/* ---- nested chains ---- */

static void
work_enter(Evaluation *evaluation)
{
	ChainPlan  *plan = evaluation->env.plan;
	const FunctionStep *function = evaluation->run->step->function;
	ChainRun   *chain = evaluation->target;
	JsonbParseState *state = NULL;
	Jsonb	   *args;
	Jsonb	  **inputs;

	if (chain->depth > setting_max_depth)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_LIMIT),
				 errmsg("chains are nested more than %d deep",
						setting_max_depth),
				 errhint("Raise chaincall.max_depth, or end the recursion with \"when\".")));
	chain->definition = plan->ops->nested(plan->driver, function);
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < function->nargs; i++)
		push_field(&state, function->arg_names[i],
				   json_template_value(function->args[i], lookup,
									   &evaluation->env));
	args = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	inputs = plan->ops->inputs(plan->driver, chain->definition, args,
							   &evaluation->flag);
	if (inputs != NULL)
		plan_set_inputs(plan, chain, inputs);
	else if (!evaluation->flag)
		evaluation->result = plan_keep(plan, args);
}

/* Gives the chain's run its arguments, which are copied. */
void
plan_set_inputs(ChainPlan *plan, ChainRun *chain, Jsonb **inputs)
{
	int			n = chain->definition->nargs;

	chain->inputs = MemoryContextAllocZero(plan->cxt,
										   Max(n, 1) * sizeof(Jsonb *));
	for (int i = 0; i < n; i++)
		chain->inputs[i] = plan_keep(plan, inputs[i]);
}

/*
 * Makes the run of the chain that a function step calls.  *put_off: arguments
 * that the driver shall convert before the run has its inputs; NULL: it has.
 */
StepError *
plan_enter_chain(ChainPlan *plan, ItemRun *item, ChainRun **chain,
				 bool *null_for_strict, Jsonb **put_off)
{
	Evaluation	evaluation = {.work = work_enter};
	StepError  *error;

	*chain = MemoryContextAllocZero(plan->cxt, sizeof(ChainRun));
	(*chain)->parent = item;
	(*chain)->depth = item->run->chain->depth + 1;
	evaluation.target = *chain;
	error = plan_evaluate(plan, &evaluation, item->run, item,
						  item->catchable, item->run->step->slow);
	*null_for_strict = evaluation.flag;
	*put_off = evaluation.result;
	return error;
}

static void
work_leave(Evaluation *evaluation)
{
	ChainPlan  *plan = evaluation->env.plan;
	const ItemRun *item = evaluation->env.item;
	Jsonb	   *result = plan->ops->result(plan->driver,
										   item->nested->definition,
										   evaluation->target);

	evaluation->result = result ? plan_keep(plan, result) : NULL;
}

/*
 * A nested chain's output as a value of its result type; kept.  NULL: the
 * driver puts it off.
 */
StepError *
plan_leave_chain(ChainPlan *plan, ItemRun *item, Jsonb *output,
				 Jsonb **result)
{
	Evaluation	evaluation = {.work = work_leave, .target = output};
	StepError  *error;

	error = plan_evaluate(plan, &evaluation, item->run, item,
						  item->catchable, item->run->step->slow);
	*result = evaluation.result;
	return error;
}
