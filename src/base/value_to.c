/*
 * value_to.c
 *	  JSON as SQL values.
 *
 * json and jsonb take the JSON itself, arrays and composites are built from
 * their parts, everything else goes through the type's input function; the
 * commonest scalars have a short cut that gives what that function would.
 * Dates and times without a zone are read in UTC, month before day, whatever
 * the session says; a domain's CHECK runs under the session's own settings.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/error.h"
#include "base/json.h"
#include "base/value.h"
#include "base/value_type.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/typcache.h"
#include "utils/varlena.h"

/* The way from the whole down to the part being converted, for errors. */
typedef struct PathPart
{
	const struct PathPart *parent;
	const char *field;			/* or NULL: */
	int			index;
} PathPart;

typedef struct Conversion
{
	ValueRun	run;
	const PathPart *path;		/* NULL at the top */
} Conversion;

/* The elements of an array as they are found. */
typedef struct ElementList
{
	Oid			array_type;
	Oid			element;
	int32		typmod;
	int			ndim;
	int			dims[MAXDIM];
	Datum	   *values;
	bool	   *nulls;
	int			count;
	int			allocated;
} ElementList;

static Datum to_datum(Conversion *conv, JsonbValue *v, Oid type,
					  int32 typmod, bool *isnull);

static void
append_path(StringInfo buf, const PathPart *path)
{
	if (path == NULL)
		return;
	append_path(buf, path->parent);
	if (path->field == NULL)
		appendStringInfo(buf, "[%d]", path->index);
	else
		appendStringInfo(buf, "%s%s", buf->len > 0 ? "." : "", path->field);
}

static void
path_context(void *arg)
{
	StringInfoData buf;

	if (((Conversion *) arg)->path == NULL)
		return;
	initStringInfo(&buf);
	append_path(&buf, ((Conversion *) arg)->path);
	errcontext("value of %s", buf.data);
}

static const char *
kind_of(const JsonbValue *v)
{
	switch (v->type)
	{
		case jbvNull:
			return "null";
		case jbvString:
			return "a string";
		case jbvNumeric:
			return "a number";
		case jbvBool:
			return "a boolean";
		default:
			return JsonContainerIsObject(v->val.binary.data) ?
				"an object" : "an array";
	}
}

static void
refuse_kind(const JsonbValue *v, const char *type, const char *needs)
{
	ereport(ERROR,
			errcode(ERRCODE_CHAIN_INPUT),
			errmsg("%s is made from a JSON %s, not from %s",
				   type, needs, kind_of(v)),
			strcmp(needs, "array") == 0 ?
			errhint("Give its elements: [...].") :
			errhint("Give its fields by name: {\"...\": ...}."));
}

/* Strings as they are, everything else as JSON text. */
static char *
text_of(const JsonbValue *v)
{
	switch (v->type)
	{
		case jbvString:
			return pnstrdup(v->val.string.val, v->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(v->val.numeric)));
		case jbvBool:
			return pstrdup(v->val.boolean ? "true" : "false");
		default:
			return JsonbToCString(NULL, v->val.binary.data, v->val.binary.len);
	}
}

static bool
to_integer(Numeric number, Oid type, Datum *datum)
{
	int64		n;

	if (type == INT8OID)
		n = DatumGetInt64(DirectFunctionCall1(numeric_int8,
											  NumericGetDatum(number)));
	else
	{
		bool		failed = false;

		n = numeric_int4_opt_error(number, &failed);
		if (failed || (type == INT2OID && (n < PG_INT16_MIN || n > PG_INT16_MAX)))
			return false;
	}
	if (!DatumGetBool(DirectFunctionCall2(numeric_eq, NumericGetDatum(number),
										  NumericGetDatum(int64_to_numeric(n)))))
		return false;
	*datum = type == INT8OID ? Int64GetDatum(n) :
		type == INT4OID ? Int32GetDatum((int32) n) : Int16GetDatum((int16) n);
	return true;
}

static bool
to_number(Numeric number, Oid type, int32 typmod, Datum *datum)
{
	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
			return to_integer(number, type, datum);
		case FLOAT4OID:
			*datum = DirectFunctionCall1(numeric_float4, NumericGetDatum(number));
			return true;
		case FLOAT8OID:
			*datum = DirectFunctionCall1(numeric_float8, NumericGetDatum(number));
			return true;
		case NUMERICOID:
			*datum = DirectFunctionCall2(numeric, NumericGetDatum(number),
										 Int32GetDatum(typmod));
			return true;
		default:
			return false;
	}
}

/*
 * The short cuts: true when the value was made, in the current context.
 * A fraction for an integer is left to the input function's own error; 3.0 is
 * an integer, as JSON Schema says.
 */
static bool
to_builtin(const JsonbValue *v, Oid type, int32 typmod, Datum *datum)
{
	if (v->type == jbvNull)
		return false;
	if (type == JSONBOID)
	{
		JsonbValue	copy = *v;

		*datum = JsonbPGetDatum(JsonbValueToJsonb(&copy));
		return true;
	}
	if (type == TEXTOID || (type == VARCHAROID && typmod < 0))
	{
		*datum = v->type == jbvString ?
			PointerGetDatum(cstring_to_text_with_len(v->val.string.val,
													 v->val.string.len)) :
			CStringGetTextDatum(text_of(v));
		return true;
	}
	if (v->type == jbvBool && type == BOOLOID)
	{
		*datum = BoolGetDatum(v->val.boolean);
		return true;
	}
	return v->type == jbvNumeric &&
		to_number(v->val.numeric, type, typmod, datum);
}

static Datum
to_input(Conversion *conv, ValueType *vt, const JsonbValue *v, int32 typmod)
{
	FmgrInfo   *input = value_type_input(vt);
	int			settings = vt->in_settings;

	/* only sql_standard makes interval's input differ */
	if (vt->type == INTERVALOID && IntervalStyle != INTSTYLE_SQL_STANDARD)
		settings = 0;
	value_settings_need(&conv->run, settings);
	return InputFunctionCall(input, text_of(v), vt->ioparam, typmod);
}

static void
check_domain(Conversion *conv, ValueType *vt, Datum datum, bool isnull)
{
	value_settings_leave(&conv->run);

	/* a CHECK that converts values of its own domain must not share state */
	if (vt->domain_busy)
	{
		void	   *state = NULL;

		domain_check(datum, isnull, vt->type, &state, CurrentMemoryContext);
		return;
	}
	vt->domain_busy = true;
	PG_TRY();
	{
		domain_check(datum, isnull, vt->type, &vt->domain_state, vt->context);
	}
	PG_FINALLY();
	{
		vt->domain_busy = false;
	}
	PG_END_TRY();
}

/* The container's first element when that is an array, else NULL. */
static JsonbContainer *
first_array(JsonbContainer *array)
{
	JsonbValue *first = JsonContainerSize(array) > 0 ?
		getIthJsonbValueFromContainer(array, 0) : NULL;

	if (first != NULL && first->type == jbvBinary &&
		JsonContainerIsArray(first->val.binary.data))
		return first->val.binary.data;
	return NULL;
}

/* Does a JSON array make one value of the type, not a dimension of it? */
static bool
takes_array(Oid type)
{
	ValueType  *vt = value_type_lookup(type);

	if (vt->kind == VALUE_DOMAIN)
		vt = value_type_lookup(vt->element);
	return vt->kind == VALUE_ARRAY || vt->kind == VALUE_JSON ||
		vt->kind == VALUE_VECTOR;
}

static void
measure(ElementList *list, JsonbContainer *array)
{
	list->ndim = 0;
	while (array != NULL)
	{
		if (list->ndim == MAXDIM)
			ereport(ERROR,
					errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					errmsg("number of array dimensions exceeds the maximum allowed (%d)",
						   MAXDIM));
		list->dims[list->ndim++] = JsonContainerSize(array);
		array = takes_array(list->element) ? NULL : first_array(array);
	}
}

static void
refuse_ragged(const ElementList *list)
{
	ereport(ERROR,
			errcode(ERRCODE_CHAIN_INPUT),
			errmsg("nested JSON arrays of different lengths do not make %s",
				   format_type_be(list->array_type)),
			errhint("Use jsonb, or fill the shorter ones with null."));
}

static void
add_element(ElementList *list, Datum value, bool isnull)
{
	if (list->count == list->allocated)
	{
		list->allocated = Max(64, list->allocated * 2);
		list->values = list->values == NULL ?
			palloc(sizeof(Datum) * list->allocated) :
			repalloc_huge(list->values, sizeof(Datum) * list->allocated);
		list->nulls = list->nulls == NULL ?
			palloc(sizeof(bool) * list->allocated) :
			repalloc_huge(list->nulls, sizeof(bool) * list->allocated);
	}
	list->values[list->count] = value;
	list->nulls[list->count] = isnull;
	list->count++;
}

static void
collect(Conversion *conv, ElementList *list, JsonbContainer *array,
		int dimension)
{
	PathPart	part = {conv->path, NULL, 0};
	JsonbIterator *it = JsonbIteratorInit(array);
	JsonbValue	v;

	if (JsonContainerSize(array) != list->dims[dimension])
		refuse_ragged(list);
	(void) JsonbIteratorNext(&it, &v, true);
	conv->path = &part;
	for (; JsonbIteratorNext(&it, &v, true) == WJB_ELEM; part.index++)
	{
		bool		nested = v.type == jbvBinary &&
			JsonContainerIsArray(v.val.binary.data);

		if (dimension < list->ndim - 1)
		{
			if (!nested)
				refuse_ragged(list);
			collect(conv, list, v.val.binary.data, dimension + 1);
		}
		else
		{
			bool		isnull;
			Datum		value;

			if (nested && !takes_array(list->element))
				refuse_ragged(list);
			value = to_datum(conv, &v, list->element, list->typmod, &isnull);
			add_element(list, value, isnull);
		}
	}
	conv->path = part.parent;
}

static Datum
to_array(Conversion *conv, ValueType *vt, JsonbValue *v, int32 typmod)
{
	ElementList list = {0};
	int			bounds[MAXDIM];
	int16		typlen;
	bool		typbyval;
	char		typalign;

	if (vt->element == InvalidOid)
		ereport(ERROR,
				errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("cannot make a value of the pseudo-type %s",
					   format_type_be(vt->type)));
	if (v->type != jbvBinary || !JsonContainerIsArray(v->val.binary.data))
		refuse_kind(v, format_type_be(vt->type), "array");

	list.array_type = vt->type;
	list.element = vt->element;
	list.typmod = typmod;
	measure(&list, v->val.binary.data);
	collect(conv, &list, v->val.binary.data, 0);
	if (list.count == 0)
		return PointerGetDatum(construct_empty_array(list.element));

	for (int i = 0; i < list.ndim; i++)
		bounds[i] = 1;
	get_typlenbyvalalign(list.element, &typlen, &typbyval, &typalign);
	return PointerGetDatum(construct_md_array(list.values, list.nulls,
											  list.ndim, list.dims, bounds,
											  list.element, typlen, typbyval,
											  typalign));
}

static bool
has_column(TupleDesc desc, const char *name, int len)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && strlen(NameStr(att->attname)) == len &&
			memcmp(NameStr(att->attname), name, len) == 0)
			return true;
	}
	return false;
}

/* The column whose name is close enough to be what was meant, or NULL. */
static const char *
nearest_column(TupleDesc desc, const char *name, int len)
{
	const char *nearest = NULL;
	int			least = 3;

	if (len >= NAMEDATALEN)
		return NULL;
	for (int i = 0; i < desc->natts; i++)
	{
		const char *column = NameStr(TupleDescAttr(desc, i)->attname);
		int			distance;

		if (TupleDescAttr(desc, i)->attisdropped)
			continue;
		distance = varstr_levenshtein_less_equal(name, len, column,
												 strlen(column), 1, 1, 1,
												 least - 1, true);
		if (distance < least && distance * 2 <= len)
		{
			least = distance;
			nearest = column;
		}
	}
	return nearest;
}

static char *
column_list(TupleDesc desc)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped)
			appendStringInfo(&buf, "%s%s", buf.len > 0 ? ", " : "",
							 NameStr(TupleDescAttr(desc, i)->attname));
	}
	return buf.data;
}

/* Raises the error about the first member that is no column. */
static void
refuse_unknown_fields(JsonbContainer *object, TupleDesc desc, const char *type)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	v;
	const char *nearest;

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token != WJB_KEY ||
			has_column(desc, v.val.string.val, v.val.string.len))
			continue;
		nearest = nearest_column(desc, v.val.string.val, v.val.string.len);
		ereport(ERROR,
				errcode(ERRCODE_CHAIN_INPUT),
				errmsg("%s has no field \"%.*s\"", type,
					   pg_mbcliplen(v.val.string.val, v.val.string.len,
									2 * NAMEDATALEN), v.val.string.val),
				nearest != NULL ?
				errhint("Perhaps \"%s\" is meant.", nearest) :
				errhint("Its fields are: %s.", column_list(desc)));
	}
}

static HeapTuple
to_tuple(Conversion *conv, JsonbValue *v, TupleDesc desc, const char *type)
{
	Datum	   *values = palloc0(sizeof(Datum) * desc->natts);
	bool	   *nulls = palloc0(sizeof(bool) * desc->natts);
	PathPart	part = {conv->path, NULL, 0};
	JsonbContainer *object;
	int			found = 0;

	if (v->type != jbvBinary || !JsonContainerIsObject(v->val.binary.data))
		refuse_kind(v, type, "object");
	object = v->val.binary.data;
	conv->path = &part;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		JsonbValue	field;

		nulls[i] = true;
		if (att->attisdropped)
			continue;
		part.field = NameStr(att->attname);
		if (getKeyJsonValueFromContainer(object, part.field,
										 strlen(part.field), &field) != NULL)
			found++;
		else
			field.type = jbvNull;
		values[i] = to_datum(conv, &field, att->atttypid, att->atttypmod,
							 &nulls[i]);
	}
	conv->path = part.parent;
	if (found < JsonContainerSize(object))
		refuse_unknown_fields(object, desc, type);
	return heap_form_tuple(desc, values, nulls);
}

static Datum
to_composite(Conversion *conv, ValueType *vt, JsonbValue *v, int32 typmod)
{
	TupleDesc	desc;
	Datum		result;

	if (vt->type == RECORDOID && typmod < 0)
		ereport(ERROR,
				errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("cannot make a record whose columns are not known"),
				errhint("Name a composite type, or the columns."));
	desc = lookup_rowtype_tupdesc(vt->type, typmod);
	result = HeapTupleGetDatum(to_tuple(conv, v, desc,
										format_type_be(vt->type)));
	ReleaseTupleDesc(desc);
	return result;
}

static Datum
to_domain(Conversion *conv, ValueType *vt, JsonbValue *v, bool *isnull)
{
	Datum		datum = to_datum(conv, v, vt->element, vt->base_typmod, isnull);

	check_domain(conv, vt, datum, *isnull);
	return datum;
}

static Datum
to_datum(Conversion *conv, JsonbValue *v, Oid type, int32 typmod, bool *isnull)
{
	ValueType  *vt;
	Datum		datum;

	check_stack_depth();
	*isnull = false;
	if (to_builtin(v, type, typmod, &datum))
		return datum;

	vt = value_type_lookup(type);
	if (vt->kind == VALUE_DOMAIN)
		return to_domain(conv, vt, v, isnull);
	if (v->type == jbvNull || vt->kind == VALUE_VOID)
	{
		*isnull = true;
		return (Datum) 0;
	}
	switch (vt->kind)
	{
		case VALUE_ARRAY:
			return to_array(conv, vt, v, typmod);
		case VALUE_COMPOSITE:
			return to_composite(conv, vt, v, typmod);
		case VALUE_JSON:		/* jsonb was a short cut */
		{
			JsonbValue	copy = *v;
			Jsonb	   *json = JsonbValueToJsonb(&copy);

			return CStringGetTextDatum(JsonbToCString(NULL, &json->root,
													  VARSIZE(json)));
		}
		case VALUE_BYTEA:
			value_refuse_bytea();
			break;
		case VALUE_PSEUDO:
			ereport(ERROR,
					errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("cannot make a value of the pseudo-type %s",
						   format_type_be(type)));
			break;
		default:
			break;
	}
	return to_input(conv, vt, v, typmod);
}

/* The value as JsonbValue; containers stay where they are. */
static void
unpack(const Jsonb *value, JsonbValue *v)
{
	if (json_scalar(value, v))
		return;
	v->type = jbvBinary;
	v->val.binary.data = unconstify(JsonbContainer *, &value->root);
	v->val.binary.len = VARSIZE(value) - VARHDRSZ;
}

static void
begin_conversion(Conversion *conv, ErrorContextCallback *callback)
{
	conv->path = NULL;
	callback->callback = path_context;
	callback->arg = conv;
	callback->previous = error_context_stack;
	error_context_stack = callback;
	value_run_begin(&conv->run);
}

/*
 * A SQL value from JSON, to be handed to a parameter, argument or column of
 * the type (typmod -1: none).
 *
 * null becomes NULL, which sets *isnull (a domain may refuse it); json and
 * jsonb take the JSON itself; arrays need an array, composites an object whose
 * missing fields are null; any other type is given its input text.  Raises
 * ERRCODE_CHAIN_INPUT for a wrong kind of JSON, an unknown field and ragged
 * arrays, feature_not_supported for bytea and pseudo-types, and what input
 * functions and domains raise, with the part's place as context.  The result
 * is the caller's, in the current context.
 */
Datum
value_to_datum(const Jsonb *value, Oid type, int32 typmod, bool *isnull)
{
	Conversion	conv;
	ErrorContextCallback callback;
	volatile Datum result = (Datum) 0;
	Datum		datum;
	JsonbValue	v;

	*isnull = false;
	unpack(value, &v);
	if (to_builtin(&v, type, typmod, &datum))
		return datum;

	begin_conversion(&conv, &callback);
	PG_TRY();
	{
		ValueType  *vt;

		datum = to_datum(&conv, &v, type, typmod, isnull);
		MemoryContextSwitchTo(conv.run.caller);
		vt = value_type_lookup(type);
		if (!*isnull)
			result = datumCopy(datum, vt->typbyval, vt->typlen);
	}
	PG_FINALLY();
	{
		value_run_end(&conv.run);
	}
	PG_END_TRY();
	error_context_stack = callback.previous;
	return result;
}

/*
 * A row of desc from a JSON object, for functions that return records: as
 * value_to_datum() makes a composite, and raising the same.
 */
HeapTuple
value_to_tuple(const Jsonb *value, TupleDesc desc)
{
	Conversion	conv;
	ErrorContextCallback callback;
	HeapTuple volatile result = NULL;
	JsonbValue	v;

	unpack(value, &v);
	begin_conversion(&conv, &callback);
	PG_TRY();
	{
		HeapTuple	tuple = to_tuple(&conv, &v, desc,
									 format_type_be(desc->tdtypeid));

		MemoryContextSwitchTo(conv.run.caller);
		result = heap_copytuple(tuple);
	}
	PG_FINALLY();
	{
		value_run_end(&conv.run);
	}
	PG_END_TRY();
	error_context_stack = callback.previous;
	return result;
}
