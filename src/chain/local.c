/*
 * local.c
 *	  Statements and functions that run in this process by SPI.
 *
 * Sessions run tasks of their plans here, executors the steps of jobs.  Plans are kept with the compiled chain, so PostgreSQL's plan cache sees to
 * them when tables change.  Nothing here knows of subtransactions or time:
 * that is guard.c's.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/printtup.h"
#include "base/error.h"
#include "base/json.h"
#include "base/value.h"
#include "catalog/pg_type.h"
#include "chain/local.h"
#include "executor/spi.h"
#include "executor/tuptable.h"

static void
local_context(void *arg)
{
	const Task *task = arg;

	errcontext("chain %s, step %s, line %d", task->chain, task->path,
			   task->step->line);
}

/* ---- rows that are bounded ---- */

/* Hands rows on to SPI as long as they are not too many bytes. */
typedef struct BoundedReceiver
{
	DestReceiver pub;
	Size		bytes;
	Size		most;
} BoundedReceiver;

static Size
row_bytes(TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	Size		bytes = SizeofHeapTupleHeader;

	slot_getallattrs(slot);
	for (int i = 0; i < desc->natts; i++)
	{
		int			len = TupleDescAttr(desc, i)->attlen;

		if (slot->tts_isnull[i])
			continue;
		if (len == -1)
			bytes += toast_raw_datum_size(slot->tts_values[i]);
		else
			bytes += len > 0 ? len : strlen(DatumGetCString(slot->tts_values[i]));
	}
	return bytes;
}

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	BoundedReceiver *receiver = (BoundedReceiver *) self;

	receiver->bytes += row_bytes(slot);
	if (receiver->bytes > receiver->most)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_LIMIT),
				 errmsg("the result is larger than %d kB",
						(int) (receiver->most / 1024)),
				 errhint("Select less, or raise chaincall.max_answer.")));
	return spi_printtup(slot, self);
}

static void
end_rows(DestReceiver *self)
{
}

/* ---- running ---- */

static ParamListInfo
convert_params(int nparams, const Oid *types, Jsonb *const *params)
{
	ParamListInfo list = makeParamList(nparams);

	for (int i = 0; i < nparams; i++)
	{
		ParamExternData *param = &list->params[i];

		param->value = value_to_datum(params[i], types[i], -1,
									  &param->isnull);
		param->pflags = PARAM_FLAG_CONST;
		param->ptype = types[i];
	}
	return list;
}

/*
 * Prepares a statement once: *kept is the plan, NULL before.  In SPI; the plan
 * lives until SPI_freeplan().
 */
SPIPlanPtr
local_plan(SPIPlanPtr *kept, const char *sql, int nparams, Oid *types)
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

/*
 * Runs the plan, in SPI, which has the rows then; local_rows() and
 * local_values() shape them.  most: bytes of rows that are too many, then
 * ERRCODE_CHAIN_LIMIT is raised; 0: no bound.
 */
void
local_run(SPIPlanPtr plan, int nparams, const Oid *types,
		  Jsonb *const *params, Size most)
{
	BoundedReceiver receiver = {
		.pub = {receive_row, spi_dest_startup, end_rows, end_rows, DestNone},
		.most = most
	};
	SPIExecuteOptions options = {
		.params = convert_params(nparams, types, params),
		.dest = most > 0 ? &receiver.pub : NULL
	};
	int			result = SPI_execute_plan_extended(plan, &options);

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

/* ---- results ---- */

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

/* The last statement's rows in the shape that the step asks for; in SPI. */
Jsonb *
local_rows(RowsShape returns)
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

/* A function's value, or the array of a set-returning one's; in SPI. */
Jsonb *
local_values(bool set)
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

		local_run(local_plan(&sql->plan, sql->text->sql, sql->text->nparams,
							 sql->types),
				  sql->text->nparams, sql->types, task->params, 0);
		output = local_rows(sql->returns);
	}
	else
	{
		FunctionStep *function = task->step->function;

		local_run(local_plan(&function->plan, function->sql, function->nargs,
							 function->arg_types),
				  function->nargs, function->arg_types, task->params, 0);
		output = local_values(function->set);
	}
	copy = json_copy(cxt, output);
	SPI_finish();
	error_context_stack = context.previous;
	return copy;
}
