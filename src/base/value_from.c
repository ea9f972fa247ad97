/*
 * value_from.c
 *	  SQL values as JSON.
 *
 * The common scalar types are written here directly, which is both quick and
 * deaf to the session's settings; whatever is not known is asked for its text.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/compat.h"
#include "base/error.h"
#include "base/json.h"
#include "base/value.h"
#include "base/value_type.h"
#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

static void push_datum(ValueRun *run, JsonbParseState **state,
					   JsonbIteratorToken token, Datum datum, Oid type);

static void
refuse_number(const char *name)
{
	ereport(ERROR,
			errcode(ERRCODE_CHAIN_INPUT),
			errmsg("%s has no form in JSON", name),
			errhint("Make it null, for example by nullif(x, '%s').", name));
}

static Numeric
numeric_from_text(char *text)
{
	return DatumGetNumeric(DirectFunctionCall3(numeric_in,
											   CStringGetDatum(text),
											   ObjectIdGetDatum(InvalidOid),
											   Int32GetDatum(-1)));
}

static Numeric
numeric_from_float(double number, bool single)
{
	char		text[Max(DOUBLE_SHORTEST_DECIMAL_LEN, FLOAT_SHORTEST_DECIMAL_LEN)];

	if (isnan(number))
		refuse_number("NaN");
	if (isinf(number))
		refuse_number(number > 0 ? "Infinity" : "-Infinity");

	/* whole numbers of up to 15 digits, the commonest, need no text */
	if (!single && number == rint(number) && fabs(number) < 1e15)
		return int64_to_numeric((int64) number);
	if (single)
		float_to_shortest_decimal_buf((float) number, text);
	else
		double_to_shortest_decimal_buf(number, text);
	return numeric_from_text(text);
}

static Numeric
checked_numeric(Numeric number)
{
	if (numeric_is_nan(number))
		refuse_number("NaN");
	if (numeric_is_inf(number))
		refuse_number(DatumGetCString(DirectFunctionCall1(numeric_out,
														  NumericGetDatum(number))));
	return number;
}

static char *
interval_text(const Interval *span)
{
	const char *infinity = compat_interval_infinity(span);
	char	   *text = palloc(MAXDATELEN + 1);
	struct pg_itm itm;

	if (infinity != NULL)
		return pstrdup(infinity);
	interval2itm(*span, &itm);
	EncodeInterval(&itm, INTSTYLE_ISO_8601, text);
	return text;
}

static void
set_string(JsonbValue *v, char *text)
{
	v->type = jbvString;
	v->val.string.val = text;
	v->val.string.len = strlen(text);
}

/* Unpacks a value of a VALUE_BUILTIN type; false for any other type. */
static bool
from_builtin(Datum datum, Oid type, JsonbValue *v)
{
	static const int utc = 0;
	text	   *t;

	v->type = jbvNumeric;
	switch (type)
	{
		case BOOLOID:
			v->type = jbvBool;
			v->val.boolean = DatumGetBool(datum);
			return true;
		case INT2OID:
			v->val.numeric = int64_to_numeric(DatumGetInt16(datum));
			return true;
		case INT4OID:
			v->val.numeric = int64_to_numeric(DatumGetInt32(datum));
			return true;
		case INT8OID:
			v->val.numeric = int64_to_numeric(DatumGetInt64(datum));
			return true;
		case FLOAT4OID:
			v->val.numeric = numeric_from_float(DatumGetFloat4(datum), true);
			return true;
		case FLOAT8OID:
			v->val.numeric = numeric_from_float(DatumGetFloat8(datum), false);
			return true;
		case NUMERICOID:
			v->val.numeric = checked_numeric(DatumGetNumeric(datum));
			return true;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			t = DatumGetTextPP(datum);
			v->type = jbvString;
			v->val.string.val = VARDATA_ANY(t);
			v->val.string.len = VARSIZE_ANY_EXHDR(t);
			return true;
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
			set_string(v, JsonEncodeDateTime(NULL, datum, type, NULL));
			return true;
		case TIMESTAMPTZOID:
			set_string(v, JsonEncodeDateTime(NULL, datum, type, &utc));
			return true;
		case INTERVALOID:
			set_string(v, interval_text(DatumGetIntervalP(datum)));
			return true;
		default:
			return false;
	}
}

static void
push_null(JsonbParseState **state, JsonbIteratorToken token)
{
	JsonbValue	v;

	v.type = jbvNull;
	(void) pushJsonbValue(state, token, &v);
}

/* json's text parsed, jsonb itself. */
static Jsonb *
from_json(Datum datum, Oid type)
{
	if (type == JSONOID)
		return json_parse(TextDatumGetCString(datum));
	return DatumGetJsonbP(datum);
}

/* Pushes one dimension and moves *next behind its last element. */
static JsonbValue *
push_dimension(ValueRun *run, JsonbParseState **state, ArrayType *array,
			   int dimension, const Datum *elements, const bool *nulls,
			   int *next)
{
	int			n = ARR_DIMS(array)[dimension];
	bool		innermost = dimension == ARR_NDIM(array) - 1;

	(void) pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < n; i++)
	{
		if (!innermost)
			(void) push_dimension(run, state, array, dimension + 1, elements,
								  nulls, next);
		else
		{
			if (nulls[*next])
				push_null(state, WJB_ELEM);
			else
				push_datum(run, state, WJB_ELEM, elements[*next],
						   ARR_ELEMTYPE(array));
			(*next)++;
		}
	}
	return pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

static JsonbValue *
push_array(ValueRun *run, JsonbParseState **state, Datum datum)
{
	ArrayType  *array = DatumGetArrayTypeP(datum);
	int16		typlen;
	bool		typbyval;
	char		typalign;
	Datum	   *elements;
	bool	   *nulls;
	int			nelements;
	int			next = 0;

	if (ARR_NDIM(array) == 0)
	{
		(void) pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
		return pushJsonbValue(state, WJB_END_ARRAY, NULL);
	}
	get_typlenbyvalalign(ARR_ELEMTYPE(array), &typlen, &typbyval, &typalign);
	deconstruct_array(array, ARR_ELEMTYPE(array), typlen, typbyval, typalign,
					  &elements, &nulls, &nelements);
	return push_dimension(run, state, array, 0, elements, nulls, &next);
}

static JsonbValue *
push_tuple(ValueRun *run, JsonbParseState **state, HeapTuple tuple,
		   TupleDesc desc)
{
	Datum	   *values = palloc(sizeof(Datum) * desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * desc->natts);

	heap_deform_tuple(tuple, desc, values, nulls);
	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped)
			continue;
		json_push_key(state, NameStr(att->attname));
		if (nulls[i])
			push_null(state, WJB_VALUE);
		else
			push_datum(run, state, WJB_VALUE, values[i], att->atttypid);
	}
	return pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static JsonbValue *
push_composite(ValueRun *run, JsonbParseState **state, Datum datum)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(datum);
	HeapTupleData tuple;
	TupleDesc	desc;
	JsonbValue *result;

	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header),
								  HeapTupleHeaderGetTypMod(header));
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	result = push_tuple(run, state, &tuple, desc);
	ReleaseTupleDesc(desc);
	return result;
}

static char *
output_text(ValueRun *run, ValueType *vt, Datum datum)
{
	value_settings_need(run, vt->out_settings);
	return OutputFunctionCall(value_type_output(vt), datum);
}

/* pgvector writes its vectors as JSON arrays; another "vector" may not. */
static Jsonb *
from_vector(ValueRun *run, ValueType *vt, Datum datum)
{
	char	   *text = output_text(run, vt, datum);

	return text[0] == '[' ? json_parse(text) : json_text(text);
}

/*
 * Pushes a value that is not null.  With a NULL *state, containers leave their
 * finished JsonbValue in *whole, everything else its Jsonb in *single.
 */
static void
push_or_make(ValueRun *run, JsonbParseState **state, JsonbIteratorToken token,
			 Datum datum, Oid type, JsonbValue **whole, Jsonb **single)
{
	ValueType  *vt;
	JsonbValue	v;
	Jsonb	   *made = NULL;

	check_stack_depth();
	if (from_builtin(datum, type, &v))
	{
		if (*state != NULL)
			(void) pushJsonbValue(state, token, &v);
		else
			*single = JsonbValueToJsonb(&v);
		return;
	}

	vt = value_type_lookup(type);
	switch (vt->kind)
	{
		case VALUE_ARRAY:
			*whole = push_array(run, state, datum);
			return;
		case VALUE_COMPOSITE:
			*whole = push_composite(run, state, datum);
			return;
		case VALUE_DOMAIN:
			push_or_make(run, state, token, datum, vt->element, whole, single);
			return;
		case VALUE_JSON:
			made = from_json(datum, type);
			break;
		case VALUE_VECTOR:
			made = from_vector(run, vt, datum);
			break;
		case VALUE_BYTEA:
			value_refuse_bytea();
			break;
		case VALUE_VOID:
			made = json_null();
			break;
		default:
			made = json_text(output_text(run, vt, datum));
			break;
	}
	if (*state != NULL)
		json_push(state, token, made);
	else
		*single = made;
}

static void
push_datum(ValueRun *run, JsonbParseState **state, JsonbIteratorToken token,
		   Datum datum, Oid type)
{
	JsonbValue *whole;
	Jsonb	   *single;

	push_or_make(run, state, token, datum, type, &whole, &single);
}

/* The way for everything that has parts or needs the type's own functions. */
static Jsonb *
from_any(Datum datum, Oid type)
{
	ValueRun	run;
	Jsonb	   *volatile result = NULL;

	value_run_begin(&run);
	PG_TRY();
	{
		JsonbParseState *state = NULL;
		JsonbValue *whole = NULL;
		Jsonb	   *single = NULL;

		push_or_make(&run, &state, WJB_DONE, datum, type, &whole, &single);
		MemoryContextSwitchTo(run.caller);
		if (whole != NULL)
			result = JsonbValueToJsonb(whole);
		else
		{
			result = palloc(VARSIZE(single));
			memcpy(result, single, VARSIZE(single));
		}
	}
	PG_FINALLY();
	{
		value_run_end(&run);
	}
	PG_END_TRY();
	return result;
}

/*
 * A SQL value as JSON.  NULL and void become null.
 *
 * Raises ERRCODE_CHAIN_INPUT for NaN and the infinities of numbers,
 * feature_not_supported for bytea, and what json's parser and a type's output
 * function raise.  The result is the caller's, in the current context.
 */
Jsonb *
value_from_datum(Datum datum, bool isnull, Oid type)
{
	JsonbValue	v;

	if (isnull || type == VOIDOID)
		return json_null();
	if (type == JSONBOID)
		return DatumGetJsonbPCopy(datum);
	if (from_builtin(datum, type, &v))
		return JsonbValueToJsonb(&v);
	return from_any(datum, type);
}

/*
 * A row, for example SPI's, as an object: names of desc's columns as keys (of
 * equal names the last counts), dropped columns left out.  Raises what
 * value_from_datum() does; the result is in the current context.
 */
Jsonb *
value_from_tuple(HeapTuple tuple, TupleDesc desc)
{
	ValueRun	run;
	Jsonb	   *volatile result = NULL;

	value_run_begin(&run);
	PG_TRY();
	{
		JsonbParseState *state = NULL;
		JsonbValue *whole = push_tuple(&run, &state, tuple, desc);

		MemoryContextSwitchTo(run.caller);
		result = JsonbValueToJsonb(whole);
	}
	PG_FINALLY();
	{
		value_run_end(&run);
	}
	PG_END_TRY();
	return result;
}
