/*
 * input.c
 *	  A JSON object becomes the arguments of a chain.
 *
 * Each value passes through its argument's type, so that a chain sees the
 * same JSON whether it is called as a function or with an object.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/error.h"
#include "base/json.h"
#include "base/value.h"
#include "catalog/pg_proc.h"
#include "chain/definition.h"
#include "executor/executor.h"
#include "nodes/pg_list.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

static char *
argument_names(const Definition *definition)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < definition->nargs; i++)
		appendStringInfo(&names, "%s%s", i ? ", " : "",
						 definition->args[i].name);
	return names.data;
}

static int
find_argument(const Definition *definition, const char *name, int len)
{
	for (int i = 0; i < definition->nargs; i++)
	{
		if (strlen(definition->args[i].name) == len &&
			memcmp(definition->args[i].name, name, len) == 0)
			return i;
	}
	return -1;
}

/* Raises when input has a member that is no argument, or is no object. */
void
definition_check_members(const Definition *definition, const Jsonb *input)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;

	if (!JB_ROOT_IS_OBJECT(input))
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("input of chain \"%s\" must be an object, not %s",
						definition->name, json_type_name(input)),
				 errhint("Give the arguments by name: {\"%s\": ...}",
						 definition->nargs ? definition->args[0].name : "")));
	it = JsonbIteratorInit(unconstify(JsonbContainer *, &input->root));
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token != WJB_KEY ||
			find_argument(definition, v.val.string.val, v.val.string.len) >= 0)
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("chain \"%s\" has no argument \"%.*s\"",
						definition->name, v.val.string.len,
						v.val.string.val),
				 definition->nargs ?
				 errhint("Its arguments are %s.", argument_names(definition)) :
				 errhint("It takes no arguments.")));
	}
}

typedef struct ArgumentPlace
{
	const Definition *definition;
	int			arg;
} ArgumentPlace;

static void
argument_context(void *arg)
{
	const ArgumentPlace *place = arg;

	errcontext("chain %s, argument %s", place->definition->name,
			   place->definition->args[place->arg].name);
}

/*
 * An argument's value as the chain sees it; given, if not NULL, is the JSON to
 * be made a value of the argument's type first.
 */
static Jsonb *
argument_value(const Definition *definition, int arg, const Jsonb *given,
			   Datum datum, bool isnull)
{
	Oid			type = definition->args[arg].type;
	ArgumentPlace place = {definition, arg};
	ErrorContextCallback context;
	Jsonb	   *value;

	context.callback = argument_context;
	context.arg = &place;
	context.previous = error_context_stack;
	error_context_stack = &context;
	if (given != NULL)
		datum = value_to_datum(given, type, -1, &isnull);
	value = value_from_datum(datum, isnull, type);
	error_context_stack = context.previous;
	return value;
}

/*
 * The argument's value as the chain sees it.  Raises ERRCODE_CHAIN_INPUT for
 * what has no form in JSON, such as NaN.
 */
Jsonb *
definition_input(const Definition *definition, int arg, Datum datum,
				 bool isnull)
{
	return argument_value(definition, arg, NULL, datum, isnull);
}

/* An argument's DEFAULT. */
static Expr *
default_expression(const Definition *definition, int arg)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID,
										ObjectIdGetDatum(definition->function));
	Datum		source;
	bool		isnull = true;
	List	   *defaults;
	int			place;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("chain \"%s\" was dropped", definition->name),
				 errhint("Create it again.")));
	source = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proargdefaults,
							 &isnull);
	defaults = isnull ? NIL :
		(List *) stringToNode(TextDatumGetCString(source));
	ReleaseSysCache(tuple);
	place = arg - definition->nargs + list_length(defaults);
	if (place < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("chain \"%s\" has lost the DEFAULT of its argument \"%s\"",
						definition->name, definition->args[arg].name),
				 errhint("Give the argument.")));
	return list_nth(defaults, place);
}

/*
 * The value of an argument's DEFAULT where that is a constant; NULL for one
 * that must be evaluated each time.
 */
Jsonb *
definition_constant_default(const Definition *definition, int arg)
{
	Expr	   *expr = expression_planner(default_expression(definition, arg));

	if (!IsA(expr, Const))
		return NULL;
	return definition_input(definition, arg, ((Const *) expr)->constvalue,
							((Const *) expr)->constisnull);
}

static Jsonb *
evaluate_default(const Definition *definition, int arg)
{
	bool		isnull;
	EState	   *estate;
	ExprState  *state;
	Datum		value;
	Jsonb	   *result;

	estate = CreateExecutorState();
	state = ExecPrepareExpr(default_expression(definition, arg), estate);
	value = ExecEvalExprSwitchContext(state, GetPerTupleExprContext(estate),
									  &isnull);
	result = definition_input(definition, arg, value, isnull);
	FreeExecutorState(estate);
	return result;
}

/* Raises: the input has no value for an argument without DEFAULT. */
void
definition_lacks(const Definition *definition, int arg)
{
	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_INPUT),
			 errmsg("input of chain \"%s\" lacks the argument \"%s\"",
					definition->name, definition->args[arg].name),
			 errhint("Its arguments are %s.", argument_names(definition))));
	pg_unreachable();
}

/*
 * The argument's value as the chain sees it, from the JSON given for it; given
 * NULL: its DEFAULT, which is looked up in the function.
 */
Jsonb *
definition_argument(const Definition *definition, int arg,
					const Jsonb *given)
{
	return given != NULL ?
		argument_value(definition, arg, given, (Datum) 0, true) :
		evaluate_default(definition, arg);
}

/*
 * The chain's arguments, in order, from an object of them: unknown members
 * and missing arguments without a DEFAULT are errors.  Sets *null_for_strict
 * when the chain is STRICT and an argument is null, so that nothing runs.
 */
Jsonb **
definition_inputs(Definition *definition, const Jsonb *input,
				  bool *null_for_strict)
{
	Jsonb	  **values = palloc(Max(definition->nargs, 1) * sizeof(Jsonb *));

	definition_check_members(definition, input);
	*null_for_strict = false;
	for (int i = 0; i < definition->nargs; i++)
	{
		const ChainArg *arg = &definition->args[i];
		Jsonb	   *given = json_field(input, arg->name);

		if (given != NULL || arg->has_default)
			values[i] = definition_argument(definition, i, given);
		else
			definition_lacks(definition, i);
		if (definition->strict && json_is_null(values[i]))
			*null_for_strict = true;
	}
	return values;
}
