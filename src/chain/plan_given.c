/*
 * plan_given.c
 *	  What a person gives: the input of a step in place of the one that its
 *	  chain renders, its output in place of an answer.
 *
 * A step's input is what render() shows as body, params or args: of a model
 * step the request's body in the provider's words, of sql the array of
 * parameters, of a function the object of its arguments.
 */
#include "postgres.h"

#include "base/json.h"
#include "chain/plan_given.h"

static Jsonb *
arguments(const FunctionStep *function, Jsonb *const *params)
{
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < function->nargs; i++)
	{
		json_push_key(&state, function->arg_names[i]);
		json_push(&state, WJB_VALUE, params[i]);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* The input of a sql or function step's task; NULL of others. */
Jsonb *
plan_params(const Task *task)
{
	if (task->kind == TASK_SQL)
		return json_array(task->params, task->step->sql->text->nparams);
	if (task->kind == TASK_FUNCTION)
		return arguments(task->step->function, task->params);
	return NULL;
}

static char *
fault_of_arguments(const FunctionStep *function, const Jsonb *input)
{
	for (int i = 0; i < function->nargs; i++)
	{
		JsonbValue	v;

		if (!json_get(input, function->arg_names[i], &v))
			return psprintf("the input lacks the argument \"%s\"",
							function->arg_names[i]);
	}
	if (json_count(input) != function->nargs)
		return psprintf("the input has %d members, the step gives %d arguments",
						json_count(input), function->nargs);
	return NULL;
}

/* Why that cannot be the input of a run of the step, palloc'd; NULL: it can. */
char *
plan_input_fault(const Step *step, const Jsonb *input)
{
	bool		object = JB_ROOT_IS_OBJECT(input);
	int			n;

	switch (step->kind)
	{
		case STEP_MODEL:
			if (!object)
				return psprintf("the input of a model step is an object, the request's body, not %s",
								json_type_name(input));
			return NULL;
		case STEP_SQL:
			n = step->sql->text->nparams;
			if (!JB_ROOT_IS_ARRAY(input) || JB_ROOT_IS_SCALAR(input))
				return psprintf("the input of a sql step is an array, its parameters, not %s",
								json_type_name(input));
			if (json_count(input) != n)
				return psprintf("the input has %d elements, the statement has %d parameters",
								json_count(input), n);
			return NULL;
		case STEP_FUNCTION:
			if (step->function->is_chain)
				break;
			if (!object)
				return psprintf("the input of a function step is an object, its arguments, not %s",
								json_type_name(input));
			return fault_of_arguments(step->function, input);
		default:
			break;
	}
	return pstrdup("only model, sql and function steps have an input");
}

/*
 * The task asks that in place of what its chain has rendered.  Raises where it
 * does not fit.  input must live as long as the task.
 */
void
plan_give_input(Task *task, Jsonb *input)
{
	char	   *fault = plan_input_fault(task->step, input);
	MemoryContext old;

	if (fault != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("the input that was given does not fit: %s", fault)));
	old = MemoryContextSwitchTo(task->cxt);
	if (task->kind == TASK_MODEL)
		task->call.given = input;
	else if (task->kind == TASK_SQL)
	{
		for (int i = 0; i < task->step->sql->text->nparams; i++)
			task->params[i] = json_element(input, i);
	}
	else
	{
		for (int i = 0; i < task->step->function->nargs; i++)
			task->params[i] = json_field(input,
										 task->step->function->arg_names[i]);
	}
	MemoryContextSwitchTo(old);
}

static char *
fault_of_rows(RowsShape returns, const Jsonb *output)
{
	if (returns == RETURNS_ROWS &&
		(!JB_ROOT_IS_ARRAY(output) || JB_ROOT_IS_SCALAR(output)))
		return psprintf("the output of the step is an array of rows, not %s",
						json_type_name(output));
	if (returns == RETURNS_ROW && !JB_ROOT_IS_OBJECT(output) &&
		!json_is_null(output))
		return psprintf("the output of the step is a row, an object, not %s",
						json_type_name(output));
	return NULL;
}

/*
 * The output that a person gives for a run of the step, as the steps behind it
 * shall see it, or NULL and *why.  A slow `pattern` makes it slow; raises
 * nothing else.
 */
Jsonb *
plan_given_output(const Step *step, const Jsonb *output, char **why)
{
	Jsonb	   *fitting = unconstify(Jsonb *, output);

	*why = NULL;
	switch (step->kind)
	{
		case STEP_MODEL:
			if (step->model->shape != NULL)
			{
				fitting = shape_check(step->model->shape, output, why);
				if (fitting == NULL)
					*why = psprintf("the output does not fit: %s", *why);
			}
			else if (step->model->form == CALL_MESSAGES &&
					 json_string_dup(output) == NULL)
				*why = psprintf("the output does not fit: expected a text, not %s",
								json_type_name(output));
			break;
		case STEP_SQL:
			*why = fault_of_rows(step->sql->returns, output);
			break;
		case STEP_FUNCTION:
			if (step->function->is_chain)
				*why = pstrdup("the step calls a chain: name one of the steps in it");
			else if (step->function->set)
				*why = fault_of_rows(RETURNS_ROWS, output);
			break;
		case STEP_ASK:
			fitting = ask_check(step->ask->shape, fitting, why);
			if (fitting == NULL)
				*why = psprintf("the answer does not fit: %s", *why);
			break;
		default:
			*why = pstrdup("only model, sql, function and ask steps can be resolved");
			break;
	}
	return *why == NULL ? fitting : NULL;
}
