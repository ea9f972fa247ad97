/*
 * local.c
 *	  Tasks that run in this process by SPI: statements and functions.
 *
 * Plans are kept with the compiled chain, so PostgreSQL's plan cache sees to
 * them when tables change.  Nothing here knows of subtransactions or time:
 * that is guard.c's.
 */
#include "postgres.h"

#include "base/error.h"
#include "base/json.h"
#include "base/value.h"
#include "catalog/pg_type.h"
#include "chain/local.h"
#include "executor/spi.h"

static void
local_context(void *arg)
{
	const Task *task = arg;

	errcontext("chain %s, step %s, line %d", task->chain, task->path,
			   task->step->line);
}

static SPIPlanPtr
keep_plan(SPIPlanPtr *kept, const char *sql, int nparams, Oid *types)
{
	if (*kept == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(sql, nparams, types);

		if (plan == NULL)
			elog(ERROR, "could not prepare a statement: %s",
				 SPI_result_code_string(SPI_result));
		(void) SPI_keepplan(plan);
		*kept = plan;
	}
	return *kept;
}

static void
execute_plan(SPIPlanPtr plan, const Task *task, int nparams,
			 const Oid *types)
{
	Datum	   *values = palloc(Max(nparams, 1) * sizeof(Datum));
	char	   *nulls = palloc(Max(nparams, 1));
	int			result;

	for (int i = 0; i < nparams; i++)
	{
		bool		isnull;

		values[i] = value_to_datum(task->params[i], types[i], -1, &isnull);
		nulls[i] = isnull ? 'n' : ' ';
	}
	result = SPI_execute_plan(plan, values, nulls, false, 0);
	if (result == SPI_ERROR_TRANSACTION)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("transaction commands are not allowed in a chain"),
				 errhint("A step runs inside the transaction of its caller.")));
	if (result < 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the statement cannot run in a chain: %s",
						SPI_result_code_string(result)),
				 errhint("Use a query, INSERT, UPDATE, DELETE or a utility command.")));
}

static Jsonb *
column_value(HeapTuple tuple, TupleDesc desc, int column)
{
	bool		isnull;
	Datum		datum = SPI_getbinval(tuple, desc, column, &isnull);

	return value_from_datum(datum, isnull,
							TupleDescAttr(desc, column - 1)->atttypid);
}

/* Pushes a row as an object; gives the object where nothing is around it. */
static JsonbValue *
push_row(JsonbParseState **state, HeapTuple tuple, TupleDesc desc)
{
	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 1; i <= desc->natts; i++)
	{
		json_push_key(state, NameStr(TupleDescAttr(desc, i - 1)->attname));
		json_push(state, WJB_VALUE, column_value(tuple, desc, i));
	}
	return pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static void
refuse_rows(uint64 rows, const char *returns)
{
	ereport(ERROR,
			(errcode(ERRCODE_CARDINALITY_VIOLATION),
			 errmsg("\"returns: %s\" takes one row at most, the statement gave "
					UINT64_FORMAT, returns, rows),
			 errhint("Add LIMIT 1, or write returns: rows.")));
}

static void
refuse_columns(int columns)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("\"returns: value\" takes one column, the statement gave %d",
					columns),
			 errhint("Select one column, or write returns: row.")));
}

/* The last statement's rows in the shape that the step asks for. */
static Jsonb *
statement_result(RowsShape returns)
{
	SPITupleTable *table = SPI_tuptable;
	uint64		rows = table ? table->numvals : 0;
	JsonbParseState *state = NULL;

	if (returns == RETURNS_ROWS)
	{
		(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
		for (uint64 i = 0; i < rows; i++)
			(void) push_row(&state, table->vals[i], table->tupdesc);
		return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
	}
	if (rows > 1)
		refuse_rows(rows, returns == RETURNS_ROW ? "row" : "value");
	if (rows == 0)
		return json_null();
	if (returns == RETURNS_ROW)
		return JsonbValueToJsonb(push_row(&state, table->vals[0],
										  table->tupdesc));
	if (table->tupdesc->natts != 1)
		refuse_columns(table->tupdesc->natts);
	return column_value(table->vals[0], table->tupdesc, 1);
}

/* A function's value, or the array of a set-returning one's. */
static Jsonb *
function_result(bool set)
{
	SPITupleTable *table = SPI_tuptable;
	uint64		rows = table ? table->numvals : 0;
	Jsonb	  **values;

	if (!set)
		return rows ? column_value(table->vals[0], table->tupdesc, 1) :
			json_null();
	values = palloc(Max(rows, 1) * sizeof(Jsonb *));
	for (uint64 i = 0; i < rows; i++)
		values[i] = column_value(table->vals[i], table->tupdesc, 1);
	return json_array(values, (int) rows);
}

/*
 * Runs the task as the current user in the current transaction.  The output
 * is palloc'd in the current memory context; PostgreSQL's errors are raised.
 */
Jsonb *
local_execute(const Task *task)
{
	MemoryContext cxt = CurrentMemoryContext;
	ErrorContextCallback context;
	Jsonb	   *output;
	Jsonb	   *copy;

	context.callback = local_context;
	context.arg = unconstify(Task *, task);
	context.previous = error_context_stack;
	error_context_stack = &context;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (task->kind == TASK_SQL)
	{
		SqlStep    *sql = task->step->sql;

		execute_plan(keep_plan(&sql->plan, sql->text->sql,
							   sql->text->nparams, sql->types),
					 task, sql->text->nparams, sql->types);
		output = statement_result(sql->returns);
	}
	else
	{
		FunctionStep *function = task->step->function;

		execute_plan(keep_plan(&function->plan, function->sql,
							   function->nargs, function->arg_types),
					 task, function->nargs, function->arg_types);
		output = function_result(function->set);
	}
	copy = json_copy(cxt, output);
	SPI_finish();
	error_context_stack = context.previous;
	return copy;
}
