/*
 * executor_convert.c
 *	  Values of a chain's argument and result types, made as the job's owner.
 *
 * A type's input and output functions, domains' checks and defaults may be
 * anybody's code: callers have executors do it, save for plain types.
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "base/json.h"
#include "catalog/pg_type.h"
#include "chain/definition.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/regproc.h"
#include "worker/executor.h"

static Oid
type_by_name(const char *name)
{
	return DatumGetObjectId(DirectFunctionCall1(regtypein,
												CStringGetDatum(name)));
}

static bool
wants_default(const StepOrder *order)
{
	for (int i = 0; i < order->nparams; i++)
	{
		if (order->params[i] == NULL)
			return true;
	}
	return false;
}

/* As much of the chain's definition as its arguments need. */
static void
describe_arguments(const StepOrder *order, Definition *definition)
{
	memset(definition, 0, sizeof(Definition));
	definition->name = order->chain;
	definition->nargs = order->nparams;
	definition->args = palloc0(Max(order->nparams, 1) * sizeof(ChainArg));
	for (int i = 0; i < order->nparams; i++)
	{
		ChainArg   *arg = &definition->args[i];

		arg->name = order->names ? order->names[i] : psprintf("$%d", i + 1);
		arg->type = type_by_name(order->types[i]);
		arg->has_default = true;
	}
	if (wants_default(order))
		definition->function =
			DatumGetObjectId(DirectFunctionCall1(regprocedurein,
												 CStringGetDatum(order->function)));
}

static Jsonb *
convert_inputs(const StepOrder *order)
{
	Jsonb	  **values = palloc(Max(order->nparams, 1) * sizeof(Jsonb *));
	Definition	definition;

	describe_arguments(order, &definition);
	for (int i = 0; i < order->nparams; i++)
		values[i] = definition_argument(&definition, i, order->params[i]);
	return json_array(values, order->nparams);
}

/* The known columns of a record, or NULL. */
static TupleDesc
describe_columns(const StepOrder *order)
{
	TupleDesc	desc;

	if (order->nparams < 2)
		return NULL;
	desc = CreateTemplateTupleDesc(order->nparams - 1);
	for (int i = 1; i < order->nparams; i++)
		TupleDescInitEntry(desc, (AttrNumber) i, order->names[i],
						   type_by_name(order->types[i]), -1, 0);
	return BlessTupleDesc(desc);
}

static Jsonb *
convert_result(const StepOrder *order)
{
	Definition	definition = {
		.name = order->chain,
		.result = type_by_name(order->types[0]),
		.returns_set = order->set,
		.column = order->names ? unconstify(char *, order->names[0]) : NULL
	};

	if (definition.result == RECORDOID)
		definition.columns = describe_columns(order);
	return definition_result(&definition, order->params[0]);
}

/*
 * Does what an order of ORDER_INPUTS or ORDER_RESULT asks, as the current user
 * and by the current search_path, in the current transaction.
 */
Jsonb *
executor_convert(const StepOrder *order)
{
	return order->kind == ORDER_INPUTS ? convert_inputs(order) :
		convert_result(order);
}
