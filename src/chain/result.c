/*
 * result.c
 *	  A chain's output as its result type makes it.
 *
 * Whoever gets the output as JSON, by run() or as a function step, sees what
 * a caller of the function would see: values of the declared types.
 */
#include "postgres.h"

#include "base/json.h"
#include "base/value.h"
#include "catalog/pg_type.h"
#include "chain/definition.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/*
 * The rows of a set-returning chain's output: the array that it is; none for
 * null.  Raises ERRCODE_DATATYPE_MISMATCH for anything else.
 */
Jsonb *
definition_rows(const Definition *definition, Jsonb *output)
{
	if (json_is_null(output))
		return json_array(NULL, 0);
	if (!JB_ROOT_IS_ARRAY(output) || JB_ROOT_IS_SCALAR(output))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("chain \"%s\" returns a set, but its output is %s",
						definition->name, json_type_name(output)),
				 errhint("Give an array: each element becomes a row.")));
	return output;
}

/*
 * Notes what the result's columns are, while the function is surely there: it
 * may be dropped during a run.  Sets column and columns.
 */
void
definition_describe_result(Definition *definition)
{
	MemoryContext old = MemoryContextSwitchTo(definition->cxt);
	TupleDesc	desc = NULL;

	if (definition->result == RECORDOID)
	{
		if (get_func_result_type(definition->function, NULL,
								 &desc) == TYPEFUNC_COMPOSITE)
			definition->columns = desc;
	}
	else if (definition->returns_set && definition->result != JSONBOID &&
			 definition->result != JSONOID &&
			 !type_is_rowtype(definition->result))
		definition->column = get_func_result_name(definition->function);
	MemoryContextSwitchTo(old);
}

/*
 * A row written as {"x": ...} is the value of the only column x, so that rows
 * of a sql step fit; column: the definition's.
 */
Jsonb *
definition_row(Jsonb *element, const char *column)
{
	Jsonb	   *field;

	if (column == NULL || !JB_ROOT_IS_OBJECT(element) ||
		json_count(element) != 1)
		return element;
	field = json_field(element, column);
	return field ? field : element;
}

static Jsonb *
convert(Jsonb *value, Oid type, TupleDesc columns)
{
	bool		isnull;
	Datum		datum;

	if (type == JSONBOID || type == JSONOID)
		return value;
	if (type == RECORDOID)
		return columns == NULL || json_is_null(value) ? value :
			value_from_tuple(value_to_tuple(value, columns), columns);
	datum = value_to_datum(value, type, -1, &isnull);
	return value_from_datum(datum, isnull, type);
}

static void
result_context(void *arg)
{
	const Definition *definition = arg;

	errcontext("chain %s, while its output becomes %s", definition->name,
			   format_type_be(definition->result));
}

/*
 * The output as a value of the chain's result type, sets as arrays.  Raises
 * what the type's input function does.
 */
Jsonb *
definition_result(const Definition *definition, Jsonb *output)
{
	Oid			type = definition->result;
	ErrorContextCallback context;

	if (type == VOIDOID)
		return json_null();
	if (!OidIsValid(type))
		return output;

	context.callback = result_context;
	context.arg = unconstify(Definition *, definition);
	context.previous = error_context_stack;
	error_context_stack = &context;
	if (definition->returns_set)
	{
		Jsonb	   *rows = definition_rows(definition, output);
		int			n = json_count(rows);
		Jsonb	  **items = palloc(Max(n, 1) * sizeof(Jsonb *));

		for (int i = 0; i < n; i++)
			items[i] = convert(definition_row(json_element(rows, i),
											  definition->column),
							   type, definition->columns);
		output = json_array(items, n);
	}
	else
		output = convert(output, type, definition->columns);
	error_context_stack = context.previous;
	return output;
}
