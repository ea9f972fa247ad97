/*
 * value.c
 *	  Calls of base/value.h, for test/module/sql/value.sql.
 */
#include "postgres.h"

#include "base/value.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "parser/parse_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(chaincall_test_value_from);
PG_FUNCTION_INFO_V1(chaincall_test_value_from_query);
PG_FUNCTION_INFO_V1(chaincall_test_value_to);
PG_FUNCTION_INFO_V1(chaincall_test_value_round);
PG_FUNCTION_INFO_V1(chaincall_test_value_to_row);
PG_FUNCTION_INFO_V1(chaincall_test_value_text);
PG_FUNCTION_INFO_V1(chaincall_test_value_check);

Datum
chaincall_test_value_from(PG_FUNCTION_ARGS)
{
	PG_RETURN_JSONB_P(value_from_datum(PG_ARGISNULL(0) ? (Datum) 0 : PG_GETARG_DATUM(0),
									   PG_ARGISNULL(0),
									   get_fn_expr_argtype(fcinfo->flinfo, 0)));
}

/* The rows of a query as an array of objects. */
Datum
chaincall_test_value_from_query(PG_FUNCTION_ARGS)
{
	char	   *query = text_to_cstring(PG_GETARG_TEXT_PP(0));
	MemoryContext caller = CurrentMemoryContext;
	ArrayBuildState *rows = initArrayResult(JSONBOID, caller, false);

	SPI_connect();
	if (SPI_execute(query, false, 0) < 0)
		elog(ERROR, "query failed");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Jsonb	   *row = value_from_tuple(SPI_tuptable->vals[i],
										   SPI_tuptable->tupdesc);

		rows = accumArrayResult(rows, JsonbPGetDatum(row), false, JSONBOID, caller);
	}
	SPI_finish();
	PG_RETURN_DATUM(makeArrayResult(rows, caller));
}

/* What became of a JSON value, as its text under the session's settings. */
Datum
chaincall_test_value_to(PG_FUNCTION_ARGS)
{
	Oid			type;
	int32		typmod;
	Oid			output;
	bool		varlena;
	bool		isnull;
	Datum		datum;

	parseTypeString(text_to_cstring(PG_GETARG_TEXT_PP(1)), &type, &typmod, false);
	datum = value_to_datum(PG_GETARG_JSONB_P(0), type, typmod, &isnull);
	if (isnull)
		PG_RETURN_NULL();
	getTypeOutputInfo(type, &output, &varlena);
	PG_RETURN_TEXT_P(cstring_to_text(OidOutputFunctionCall(output, datum)));
}

/* There and back, so that the session's settings must not show. */
Datum
chaincall_test_value_round(PG_FUNCTION_ARGS)
{
	Oid			type;
	int32		typmod;
	bool		isnull;
	Datum		datum;

	parseTypeString(text_to_cstring(PG_GETARG_TEXT_PP(1)), &type, &typmod, false);
	datum = value_to_datum(PG_GETARG_JSONB_P(0), type, typmod, &isnull);
	PG_RETURN_JSONB_P(value_from_datum(datum, isnull, type));
}

/* A row of the columns that the caller names. */
Datum
chaincall_test_value_to_row(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "no row type");
	desc = BlessTupleDesc(desc);
	PG_RETURN_DATUM(HeapTupleGetDatum(value_to_tuple(PG_GETARG_JSONB_P(0), desc)));
}

Datum
chaincall_test_value_text(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(value_to_text(PG_GETARG_JSONB_P(0))));
}

Datum
chaincall_test_value_check(PG_FUNCTION_ARGS)
{
	Oid			type;
	int32		typmod;

	parseTypeString(text_to_cstring(PG_GETARG_TEXT_PP(0)), &type, &typmod, false);
	value_check_type_supported(type, "argument \"x\"");
	PG_RETURN_BOOL(true);
}
