/*
 * convert.c
 *	  Orders that make SQL values of what a called chain takes and gives.
 *
 * Types may have code of their own (domains, DEFAULTs), which only an executor
 * runs, as the job's owner.
 */
#include "postgres.h"

#include "base/json.h"
#include "worker/convert.h"

/*
 * The arguments of a chain, from an object of them, as an order whose parts are
 * palloc'd.  Raises for unknown members and missing arguments.
 */
void
convert_inputs(const PinnedChain *chain, const Jsonb *args, StepOrder *order)
{
	const Definition *definition = chain->definition;
	int			n = definition->nargs;

	definition_check_members(definition, args);
	order->kind = ORDER_INPUTS;
	order->function = chain->signature;
	order->nparams = n;
	order->params = palloc(Max(n, 1) * sizeof(Jsonb *));
	order->names = palloc(Max(n, 1) * sizeof(char *));
	order->types = palloc(Max(n, 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
	{
		order->params[i] = json_field(args, definition->args[i].name);
		if (order->params[i] == NULL && !definition->args[i].has_default)
			definition_lacks(definition, i);
		order->names[i] = definition->args[i].name;
		order->types[i] = definition->args[i].type_name;
	}
}

/* The output of a chain as its result type, as an order whose parts are palloc'd. */
void
convert_result(const PinnedChain *chain, Jsonb *output, StepOrder *order)
{
	int			n = 1 + chain->ncolumns;

	order->kind = ORDER_RESULT;
	order->function = chain->signature;
	order->set = chain->definition->returns_set;
	order->nparams = n;
	order->params = palloc0(n * sizeof(Jsonb *));
	order->names = palloc0(n * sizeof(char *));
	order->types = palloc0(n * sizeof(char *));
	order->params[0] = output;
	order->names[0] = chain->definition->column;
	order->types[0] = chain->result_type;
	for (int i = 0; i < chain->ncolumns; i++)
	{
		order->names[i + 1] = chain->column_names[i];
		order->types[i + 1] = chain->column_types[i];
	}
}

/* The arguments as converted, or null where a null keeps the chain from running. */
Jsonb *
convert_strict(const PinnedChain *chain, Jsonb *inputs)
{
	for (int i = 0; chain->definition->strict && i < json_count(inputs); i++)
	{
		if (json_is_null(json_element(inputs, i)))
			return json_null();
	}
	return inputs;
}
