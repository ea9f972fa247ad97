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
 * The name of the only column of RETURNS TABLE (x ...), for definition_row();
 * NULL where rows are not scalars, or JSON, which an object is too.
 */
char *
definition_column(const Definition *definition)
{
	if (!definition->returns_set || definition->result == RECORDOID ||
		definition->result == JSONBOID || definition->result == JSONOID ||
		type_is_rowtype(definition->result))
		return NULL;
	return get_func_result_name(definition->function);
}

/*
 * A row written as {"x": ...} is the value of the only column x, so that rows
 * of a sql step fit; column: of definition_column().
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

/* The columns of OUT arguments and RETURNS TABLE; NULL where there are none. */
static TupleDesc
output_columns(const Definition *definition)
{
	TupleDesc	desc = NULL;

	if (definition->result != RECORDOID ||
		get_func_result_type(definition->function, NULL,
							 &desc) != TYPEFUNC_COMPOSITE)
		return NULL;
	return desc;
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
	TupleDesc	columns;
	ErrorContextCallback context;

	if (type == VOIDOID)
		return json_null();
	if (!OidIsValid(type))
		return output;

	context.callback = result_context;
	context.arg = unconstify(Definition *, definition);
	context.previous = error_context_stack;
	error_context_stack = &context;
	columns = output_columns(definition);
	if (definition->returns_set)
	{
		Jsonb	   *rows = definition_rows(definition, output);
		const char *column = definition_column(definition);
		int			n = json_count(rows);
		Jsonb	  **items = palloc(Max(n, 1) * sizeof(Jsonb *));

		for (int i = 0; i < n; i++)
			items[i] = convert(definition_row(json_element(rows, i), column),
							   type, columns);
		output = json_array(items, n);
	}
	else
		output = convert(output, type, columns);
	error_context_stack = context.previous;
	return output;
}
