/*
 * plain.c
 *	  Types whose values are the same as JSON and as SQL.
 */
#include "postgres.h"

#include "base/json.h"
#include "base/plain.h"
#include "base/value.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

/* Names as format_type_extended(FORMAT_TYPE_FORCE_QUALIFY) writes them. */
static const struct
{
	Oid			type;
	Oid			array;
	const char *name;
}			plain_types[] =
{
	{TEXTOID, TEXTARRAYOID, "pg_catalog.text"},
	{JSONBOID, JSONBARRAYOID, "pg_catalog.jsonb"},
	{JSONOID, JSONARRAYOID, "pg_catalog.json"},
	{JSONOID, JSONARRAYOID, "json"},
	{BOOLOID, BOOLARRAYOID, "boolean"},
	{INT2OID, INT2ARRAYOID, "smallint"},
	{INT4OID, INT4ARRAYOID, "integer"},
	{INT8OID, INT8ARRAYOID, "bigint"},
	{NUMERICOID, NUMERICARRAYOID, "numeric"},
	{FLOAT4OID, FLOAT4ARRAYOID, "real"},
	{FLOAT8OID, FLOAT8ARRAYOID, "double precision"},
};

/* The type as a plain one, or one with type = InvalidOid. */
PlainType
plain_type(Oid type)
{
	for (int i = 0; i < (int) lengthof(plain_types); i++)
	{
		if (plain_types[i].type == type || plain_types[i].array == type)
			return (PlainType)
		{
			plain_types[i].type, plain_types[i].array == type
		};
	}
	return (PlainType)
	{
		InvalidOid, false
	};
}

/* The same by the qualified name that a pinned chain has. */
PlainType
plain_type_named(const char *name)
{
	for (int i = 0; i < (int) lengthof(plain_types); i++)
	{
		size_t		len = strlen(plain_types[i].name);

		if (strncmp(name, plain_types[i].name, len) != 0)
			continue;
		if (name[len] == '\0' || strcmp(name + len, "[]") == 0)
			return (PlainType)
		{
			plain_types[i].type, name[len] != '\0'
		};
	}
	return (PlainType)
	{
		InvalidOid, false
	};
}

static bool
whole_fits(Numeric number, int64 least, int64 most)
{
	char	   *text;
	bool		fits = false;
	char	   *end;
	long long	value;

	text = DatumGetCString(DirectFunctionCall1(numeric_out,
											   NumericGetDatum(number)));
	if (strspn(text, "-0123456789") == strlen(text) && strlen(text) < 21)
	{
		errno = 0;
		value = strtoll(text, &end, 10);
		fits = errno == 0 && value >= least && value <= most;
	}
	pfree(text);
	return fits;
}

/*
 * Is the value, as it is, what its type would make of it?  Only says yes where
 * that is sure and quickly found out.
 */
bool
plain_fits(const JsonbValue *value, PlainType type)
{
	if (!OidIsValid(type.type))
		return false;
	if (value->type == jbvNull)
		return true;
	if (type.array)
		return false;
	switch (type.type)
	{
		case JSONBOID:
		case JSONOID:
			return true;
		case TEXTOID:
			return value->type == jbvString;
		case BOOLOID:
			return value->type == jbvBool;
		case NUMERICOID:
			return value->type == jbvNumeric;
		case INT2OID:
			return value->type == jbvNumeric &&
				whole_fits(value->val.numeric, PG_INT16_MIN, PG_INT16_MAX);
		case INT4OID:
			return value->type == jbvNumeric &&
				whole_fits(value->val.numeric, PG_INT32_MIN, PG_INT32_MAX);
		case INT8OID:
			return value->type == jbvNumeric &&
				whole_fits(value->val.numeric, PG_INT64_MIN, PG_INT64_MAX);
		default:
			return false;
	}
}

/* Strings as they are, everything else as JSON. */
static char *
json_or_string(const Jsonb *value)
{
	JsonbValue	v;

	if (json_scalar(value, &v) && v.type == jbvString)
		return pnstrdup(v.val.string.val, v.val.string.len);
	return JsonbToCString(NULL, unconstify(JsonbContainer *, &value->root),
						  VARSIZE(value));
}

static Datum
number_from_text(char *text, Oid type)
{
	switch (type)
	{
		case BOOLOID:
			return DirectFunctionCall1(boolin, CStringGetDatum(text));
		case INT2OID:
			return DirectFunctionCall1(int2in, CStringGetDatum(text));
		case INT4OID:
			return DirectFunctionCall1(int4in, CStringGetDatum(text));
		case INT8OID:
			return DirectFunctionCall1(int8in, CStringGetDatum(text));
		case FLOAT4OID:
			return DirectFunctionCall1(float4in, CStringGetDatum(text));
		case FLOAT8OID:
			return DirectFunctionCall1(float8in, CStringGetDatum(text));
		default:
			return DirectFunctionCall3(numeric_in, CStringGetDatum(text),
									   ObjectIdGetDatum(InvalidOid),
									   Int32GetDatum(-1));
	}
}

/* 3.0 is an integer, as JSON Schema says. */
static char *
whole_text(Numeric number, char *text)
{
	Datum		whole = DirectFunctionCall2(numeric_trunc,
											NumericGetDatum(number),
											Int32GetDatum(0));

	if (!DatumGetBool(DirectFunctionCall2(numeric_eq, NumericGetDatum(number),
										  whole)))
		return text;
	return DatumGetCString(DirectFunctionCall1(numeric_out, whole));
}

static Jsonb *
convert_scalar(const Jsonb *value, Oid type)
{
	PlainType	plain = {type, false};
	JsonbValue	v;
	bool		scalar = json_scalar(value, &v);
	char	   *text;

	if (type == JSONBOID || type == JSONOID || (scalar && plain_fits(&v, plain)))
		return unconstify(Jsonb *, value);
	text = json_or_string(value);
	if (type == TEXTOID)
		return json_text(text);
	if (scalar && v.type == jbvNumeric && type == INT8OID)
		(void) DirectFunctionCall1(numeric_int8,	/* out of range? */
								   NumericGetDatum(v.val.numeric));
	if (scalar && v.type == jbvNumeric &&
		(type == INT2OID || type == INT4OID || type == INT8OID))
		text = whole_text(v.val.numeric, text);
	/* a built-in type is its own canonical form, which needs no look-up */
	return value_from_datum(number_from_text(text, type), false, type);
}

/*
 * The value as the plain type makes it, in the current memory context; raises
 * what the type's input function does.  NULL where it needs more than this: an
 * array that is none, or of arrays.
 */
Jsonb *
plain_convert(const Jsonb *value, PlainType type)
{
	Jsonb	  **items;
	int			n;

	if (!type.array)
		return convert_scalar(value, type.type);
	if (json_is_null(value))
		return unconstify(Jsonb *, value);
	if (!JB_ROOT_IS_ARRAY(value) || JB_ROOT_IS_SCALAR(value))
		return NULL;
	n = json_count(value);
	items = palloc(Max(n, 1) * sizeof(Jsonb *));
	for (int i = 0; i < n; i++)
	{
		Jsonb	   *item = json_element(value, i);

		if (JB_ROOT_IS_ARRAY(item) && !JB_ROOT_IS_SCALAR(item) &&
			type.type != JSONBOID && type.type != JSONOID)
			return NULL;
		items[i] = convert_scalar(item, type.type);
	}
	return json_array(items, n);
}
