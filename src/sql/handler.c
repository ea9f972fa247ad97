/*
 * handler.c
 *	  LANGUAGE chaincall: call handler, inline handler and validator.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/error.h"
#include "base/json.h"
#include "base/value.h"
#include "catalog/pg_type.h"
#include "chain/definition.h"
#include "chain/session.h"
#include "commands/event_trigger.h"
#include "commands/trigger.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(chaincall_call_handler);
PG_FUNCTION_INFO_V1(chaincall_inline_handler);
PG_FUNCTION_INFO_V1(chaincall_validator);

static const PlanOptions no_options = {NULL, NULL};

/* ---- results ---- */

/* What the function returns; found before the run, which it may not outlive. */
typedef struct ResultType
{
	Oid			type;
	TupleDesc	row;			/* of a RECORD; NULL: type says it */
	bool		is_row;
	const char *column;			/* the definition's */
} ResultType;

/* A RECORD takes its columns from the query. */
static TupleDesc
result_row(FunctionCallInfo fcinfo, Oid *type)
{
	TupleDesc	desc = NULL;

	switch (get_call_result_type(fcinfo, type, &desc))
	{
		case TYPEFUNC_COMPOSITE:
			/* named types are made by value_to_datum(), which is strict too */
			return *type == RECORDOID ? desc : NULL;
		case TYPEFUNC_RECORD:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("chain returning record called in a context that cannot accept type record"),
					 errhint("Call it in FROM with a column definition list.")));
			return NULL;
		default:
			return NULL;
	}
}

static void
find_result_type(FunctionCallInfo fcinfo, const Definition *definition,
				 ResultType *result)
{
	memset(result, 0, sizeof(ResultType));
	result->type = definition->result;
	if (result->type == VOIDOID)
		return;
	result->row = result_row(fcinfo, &result->type);
	result->is_row = result->row != NULL || type_is_rowtype(result->type);
	result->column = definition->column;
}

static Datum
make_value(Jsonb *value, Oid type, TupleDesc row, bool *isnull)
{
	*isnull = row != NULL && json_is_null(value);
	if (*isnull)
		return (Datum) 0;
	if (row != NULL)
		return HeapTupleGetDatum(value_to_tuple(value, BlessTupleDesc(row)));
	return value_to_datum(value, type, -1, isnull);
}

/* Puts each element of the output array into a tuplestore as a row. */
static Datum
return_set(FunctionCallInfo fcinfo, Jsonb *output, const ResultType *type)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext old = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);
	Tuplestorestate *store = tuplestore_begin_heap((rsinfo->allowedModes & SFRM_Materialize_Random) != 0,
												   false, work_mem);
	TupleDesc	desc;

	if (type->row != NULL)
		desc = CreateTupleDescCopy(type->row);
	else if (type->is_row)
		desc = lookup_rowtype_tupdesc_copy(getBaseType(type->type), -1);
	else
	{
		desc = CreateTemplateTupleDesc(1);
		TupleDescInitEntry(desc, 1, type->column ? type->column : "value",
						   type->type, -1, 0);
	}
	MemoryContextSwitchTo(old);

	for (int i = 0; i < json_count(output); i++)
	{
		Jsonb	   *element = definition_row(json_element(output, i),
											 type->column);
		bool		isnull;
		Datum		datum = make_value(element, type->type, type->row, &isnull);

		if (!type->is_row)
			tuplestore_putvalues(store, desc, &datum, &isnull);
		else if (isnull)
		{
			bool	   *nulls = palloc(desc->natts);
			Datum	   *values = palloc0(desc->natts * sizeof(Datum));

			memset(nulls, true, desc->natts);
			tuplestore_putvalues(store, desc, values, nulls);
		}
		else
		{
			HeapTupleHeader header = DatumGetHeapTupleHeader(datum);
			HeapTupleData tuple;

			tuple.t_len = HeapTupleHeaderGetDatumLength(header);
			ItemPointerSetInvalid(&tuple.t_self);
			tuple.t_tableOid = InvalidOid;
			tuple.t_data = header;
			tuplestore_puttuple(store, &tuple);
		}
	}
	rsinfo->returnMode = SFRM_Materialize;
	rsinfo->setResult = store;
	rsinfo->setDesc = desc;
	return (Datum) 0;
}

static Datum
return_output(FunctionCallInfo fcinfo, const Definition *definition,
			  const ResultType *type, Jsonb *output)
{
	Datum		datum;

	if (type->type == VOIDOID)
		PG_RETURN_VOID();
	if (definition->returns_set)
		return return_set(fcinfo, definition_rows(definition, output), type);
	datum = make_value(output, type->type, type->row, &fcinfo->isnull);
	return datum;
}

static void
check_set_context(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	if (rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) ||
		(rsinfo->allowedModes & SFRM_Materialize) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued chain called in a context that cannot accept a set"),
				 errhint("Call it in FROM.")));
}

static void
result_context(void *arg)
{
	const Definition *definition = arg;

	errcontext("chain %s, while its output becomes %s", definition->name,
			   format_type_be(definition->result));
}

/* ---- the language's three functions ---- */

Datum
chaincall_call_handler(PG_FUNCTION_ARGS)
{
	Definition *definition;
	volatile Datum result = (Datum) 0;

	if (CALLED_AS_TRIGGER(fcinfo) || CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a chain cannot be a trigger function"),
				 errhint("Call it from a trigger function in another language.")));
	definition = definition_of_function(fcinfo->flinfo->fn_oid);
	PG_TRY();
	{
		Jsonb	  **inputs = palloc(Max(definition->nargs, 1) *
									sizeof(Jsonb *));
		ResultType	type;
		Jsonb	   *output;
		ErrorContextCallback context;

		if (definition->returns_set)
			check_set_context(fcinfo);
		find_result_type(fcinfo, definition, &type);
		for (int i = 0; i < definition->nargs; i++)
			inputs[i] = definition_input(definition, i, PG_GETARG_DATUM(i),
										 PG_ARGISNULL(i));
		output = session_run(definition, inputs, &no_options);

		context.callback = result_context;
		context.arg = definition;
		context.previous = error_context_stack;
		error_context_stack = &context;
		result = return_output(fcinfo, definition, &type, output);
		error_context_stack = context.previous;
	}
	PG_FINALLY();
	{
		definition_release(definition);
	}
	PG_END_TRY();
	return result;
}

Datum
chaincall_inline_handler(PG_FUNCTION_ARGS)
{
	InlineCodeBlock *block = (InlineCodeBlock *) PG_GETARG_POINTER(0);
	Definition *definition = definition_compile("inline_code_block",
												block->source_text, 0, NULL,
												true);

	PG_TRY();
	{
		(void) session_run(definition, NULL, &no_options);
	}
	PG_FINALLY();
	{
		definition_drop(definition);
	}
	PG_END_TRY();
	PG_RETURN_VOID();
}

Datum
chaincall_validator(PG_FUNCTION_ARGS)
{
	Oid			function = PG_GETARG_OID(0);

	if (CheckFunctionValidatorAccess(fcinfo->flinfo->fn_oid, function))
		definition_validate_function(function, check_function_bodies);
	PG_RETURN_VOID();
}
