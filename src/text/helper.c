/*
 * helper.c
 *	  chaincall's own text functions as steps of a chain that no SQL runs for.
 *
 * The same C functions that SQL calls, with the same defaults and STRICT, over
 * JSON arguments; nothing is looked up in a catalog.
 */
#include "postgres.h"

#include "base/error.h"
#include "base/json.h"
#include "base/plain.h"
#include "base/settings.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "text/helper.h"
#include "text/text.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#define MAX_ARGS 4

extern Datum chaincall_split_text(PG_FUNCTION_ARGS);
extern Datum chaincall_join_text(PG_FUNCTION_ARGS);
extern Datum chaincall_pack_text(PG_FUNCTION_ARGS);
extern Datum chaincall_estimate_tokens(PG_FUNCTION_ARGS);

typedef struct HelperParam
{
	const char *name;
	Oid			type;			/* TEXTOID, TEXTARRAYOID or INT4OID */
	const char *text;			/* default; NULL: it must be given */
	int32		number;
} HelperParam;

typedef struct Helper
{
	const char *name;
	PGFunction	function;
	Oid			result;
	int			nparams;
	HelperParam params[MAX_ARGS];
} Helper;

/* As sql/parts/30_text.sql declares them. */
static const Helper helpers[] = {
	{"split_text", chaincall_split_text, TEXTARRAYOID, 4,
		{{"text", TEXTOID}, {"by", TEXTOID}, {"size", INT4OID, "", 0},
	{"overlap", INT4OID, "", 0}}},
	{"join_text", chaincall_join_text, TEXTOID, 2,
	{{"items", TEXTARRAYOID}, {"separator", TEXTOID, "\n\n"}}},
	{"pack_text", chaincall_pack_text, TEXTARRAYOID, 2,
	{{"items", TEXTARRAYOID}, {"tokens", INT4OID}}},
	{"estimate_tokens", chaincall_estimate_tokens, INT4OID, 1,
	{{"text", TEXTOID}}},
};

static const Helper *
find_helper(const char *name)
{
	for (int i = 0; i < (int) lengthof(helpers); i++)
	{
		if (strcmp(helpers[i].name, name) == 0)
			return &helpers[i];
	}
	elog(ERROR, "no helper is called \"%s\"", name);
	return NULL;
}

static Datum
text_datum(const Jsonb *value)
{
	return CStringGetTextDatum(json_string_dup(value));
}

static Datum
array_datum(const Jsonb *value)
{
	int			n = json_count(value);
	int			lower = 1;
	Datum	   *items = palloc_extended(Max(n, 1) * sizeof(Datum),
										MCXT_ALLOC_HUGE);
	bool	   *nulls = palloc0(Max(n, 1) * sizeof(bool));

	if (n == 0)
		return PointerGetDatum(construct_empty_array(TEXTOID));
	for (int i = 0; i < n; i++)
	{
		Jsonb	   *item = json_element(value, i);

		nulls[i] = json_is_null(item);
		if (!nulls[i])
			items[i] = text_datum(item);
	}
	return PointerGetDatum(construct_md_array(items, nulls, 1, &n, &lower,
											  TEXTOID, -1, false,
											  TYPALIGN_INT));
}

static Datum
number_datum(const Jsonb *value)
{
	JsonbValue	scalar;

	(void) json_scalar(value, &scalar);
	return DirectFunctionCall1(numeric_int4,
							   NumericGetDatum(scalar.val.numeric));
}

static PlainType
plain_of(Oid type)
{
	PlainType	plain = {type == TEXTARRAYOID ? TEXTOID : type,
	type == TEXTARRAYOID};

	return plain;
}

/* An argument's value; *isnull: SQL's NULL was given. */
static Datum
param_datum(const HelperParam *param, const Jsonb *given, bool *isnull)
{
	Jsonb	   *value;

	*isnull = false;
	if (given == NULL)
		return param->type == INT4OID ? Int32GetDatum(param->number) :
			CStringGetTextDatum(param->text);
	value = plain_convert(given, plain_of(param->type));
	*isnull = json_is_null(value);
	if (*isnull)
		return (Datum) 0;
	return param->type == INT4OID ? number_datum(value) :
		param->type == TEXTOID ? text_datum(value) : array_datum(value);
}

static Jsonb *
array_json(ArrayType *array)
{
	Datum	   *items;
	int			n;
	Jsonb	  **values;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &items, NULL, &n);
	values = palloc_extended(Max(n, 1) * sizeof(Jsonb *), MCXT_ALLOC_HUGE);
	for (int i = 0; i < n; i++)
	{
		text	   *item = DatumGetTextPP(items[i]);

		values[i] = json_text_len(VARDATA_ANY(item), VARSIZE_ANY_EXHDR(item));
	}
	return json_array(values, n);
}

static Jsonb *
result_json(Datum result, Oid type)
{
	text	   *value;

	if (type == INT4OID)
		return json_int(DatumGetInt32(result));
	if (type == TEXTARRAYOID)
		return array_json(DatumGetArrayTypeP(result));
	value = DatumGetTextPP(result);
	return json_text_len(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

/* As of any step's output; and the caller has many jobs to hold. */
static Jsonb *
checked_size(Jsonb *output)
{
	if (VARSIZE(output) > (Size) setting_max_answer_kb * 1024)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_LIMIT),
				 errmsg("the result is larger than %d kB",
						setting_max_answer_kb),
				 errhint("Let the step do with less, or raise chaincall.max_answer.")));
	return output;
}

/*
 * Calls the helper of that name with arguments by name, as a function step
 * does.  The output, palloc'd; null for a null argument.  Raises what the
 * function raises, and ERRCODE_CHAIN_LIMIT for an output larger than
 * chaincall.max_answer.  For processes that do nothing else with texts: they
 * have that bound from then on.
 */
Jsonb *
helper_call(const char *name, int nargs, const char *const *arg_names,
			Jsonb *const *args)
{
	const Helper *helper = find_helper(name);
	LOCAL_FCINFO(fcinfo, MAX_ARGS);
	Datum		result;

	InitFunctionCallInfoData(*fcinfo, NULL, helper->nparams, InvalidOid, NULL,
							 NULL);
	for (int i = 0; i < helper->nparams; i++)
	{
		const Jsonb *given = NULL;

		for (int k = 0; k < nargs; k++)
		{
			if (strcmp(arg_names[k], helper->params[i].name) == 0)
				given = args[k];
		}
		fcinfo->args[i].value = param_datum(&helper->params[i], given,
											&fcinfo->args[i].isnull);
		if (fcinfo->args[i].isnull)
			return json_null();
	}
	/* before overlapping pieces have a thousand times the text's size */
	text_most_bytes = (Size) setting_max_answer_kb * 1024;
	result = helper->function(fcinfo);
	return checked_size(result_json(result, helper->result));
}
