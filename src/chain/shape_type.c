/*
 * shape_type.c
 *	  SQL types as JSON Schema.
 *
 * The schema says what the type's input function would take, as far as a
 * schema can: what it cannot say (CHECKs of domains, ranges of numbers) is
 * found when the value becomes SQL.  The form that is sent differs from the
 * one that is checked: services refuse keywords and formats that they do not
 * know, and their strict modes want every field of an object required.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "base/compat.h"
#include "base/json.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "chain/shape_type.h"
#include "chain/yaml.h"
#include "miscadmin.h"
#include "parser/parse_type.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/formatting.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* JSON type and formats of a base type; what is not listed is a string. */
typedef struct BaseType
{
	Oid			type;
	const char *json;
	const char *format;			/* NULL: none */
	const char *wire_format;
	int64		min;			/* of integers */
	int64		max;
} BaseType;

/* What people write who come from other languages. */
typedef struct ForeignName
{
	const char *name;
	const char *hint;
} ForeignName;

/* What the schema of a type has to say beside the type. */
typedef struct TypeUse
{
	ShapeForm	form;
	bool		nullable;
	const char *description;	/* NULL: none */
	int			line;			/* 0: not from a body */
} TypeUse;

static Type look_up(const char *name, int32 *typmod);
static void unknown_type(const char *name, int line) pg_attribute_noreturn();
static Jsonb *type_schema(Oid type, int32 typmod, const TypeUse *use);
static Jsonb *base_schema(Oid type, int32 typmod, const TypeUse *use);
static Jsonb *array_schema(Oid element, int32 typmod, const TypeUse *use);
static Jsonb *composite_schema(Oid type, int32 typmod, const TypeUse *use);
static Jsonb *enum_schema(Oid type, const TypeUse *use);
static bool is_vector(Oid type);
static const char *line_prefix(int line);

static const BaseType base_types[] = {
	{BOOLOID, "boolean", NULL, NULL},
	{INT2OID, "integer", NULL, NULL, PG_INT16_MIN, PG_INT16_MAX},
	{INT4OID, "integer", NULL, NULL, PG_INT32_MIN, PG_INT32_MAX},
	{INT8OID, "integer", NULL, NULL, PG_INT64_MIN, PG_INT64_MAX},
	{OIDOID, "integer", NULL, NULL, 0, OID_MAX},
	{FLOAT4OID, "number", NULL, NULL},
	{FLOAT8OID, "number", NULL, NULL},
	{NUMERICOID, "number", NULL, NULL},
	{DATEOID, "string", "date", "date"},
	{TIMESTAMPTZOID, "string", "date-time", "date-time"},
	{TIMESTAMPOID, "string", "local-date-time", "date-time"},
	{TIMETZOID, "string", "time", "time"},
	{TIMEOID, "string", "local-time", "time"},
	{UUIDOID, "string", "uuid", "uuid"},
};

static const ForeignName foreign_names[] = {
	{"string", "Perhaps you meant \"text\"."},
	{"str", "Perhaps you meant \"text\"."},
	{"number", "Perhaps you meant \"numeric\"."},
	{"long", "Perhaps you meant \"bigint\"."},
	{"double", "Perhaps you meant \"double precision\"."},
	{"datetime", "Perhaps you meant \"timestamptz\"."},
	{"any", "Perhaps you meant \"jsonb\"."},
	{"object", "Write its fields, such as {name: text}."},
	{"map", "Write its fields, such as {name: text}."},
	{"array", "Write the type of its elements and [], such as text[]."},
	{"list", "Write the type of its elements and [], such as text[]."},
	{"enum", "Write its labels, such as [yes, no]."},
};

static const char *const common_types[] = {
	"text", "int", "integer", "smallint", "bigint", "numeric", "real", "float",
	"double precision", "boolean", "bool", "date", "time", "timestamp", "timestamptz",
	"interval", "uuid", "json", "jsonb", "varchar", "char", NULL
};

/*
 * Finds the type of a name as SQL writes it, such as numeric(10,2) or
 * invoice_line[]; schema-qualified or by the search_path.  Errors begin with
 * the line.
 */
void
shape_type_lookup(const char *name, int line, Oid *type, int32 *typmod)
{
	MemoryContext context = CurrentMemoryContext;
	Type		tuple = NULL;
	bool		defined;

	PG_TRY();
	{
		tuple = look_up(name, typmod);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
			error->sqlerrcode == ERRCODE_OUT_OF_MEMORY)
			PG_RE_THROW();
		FlushErrorState();
		ereport(ERROR,
				(errcode(error->sqlerrcode),
				 errmsg("line %d: \"%s\" is not the name of a type: %s", line, name, error->message),
				 errhint("Write a type of SQL, such as text or numeric(10,2); in {...} quote one that holds a comma or brackets.")));
	}
	PG_END_TRY();

	if (tuple == NULL)
		unknown_type(name, line);
	*type = typeTypeId(tuple);
	defined = ((Form_pg_type) GETSTRUCT(tuple))->typisdefined;
	ReleaseSysCache(tuple);
	if (!defined)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("line %d: type \"%s\" is only a shell", line, name),
				 errhint("Define it by CREATE TYPE.")));
}

/*
 * JSON Schema of a type, palloc'd in the current context.  nullable: null fits
 * too.  line: for errors, 0 when there is none.
 */
Jsonb *
shape_type_schema(Oid type, int32 typmod, ShapeForm form, bool nullable,
				  const char *description, int line)
{
	TypeUse		use = {form, nullable, description, line};

	return type_schema(type, typmod, &use);
}

/*
 * Begins a schema with its type; NULL: any.
 */
void
shape_begin(JsonbParseState **state, const char *type, bool nullable)
{
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	if (type != NULL && nullable)
	{
		Jsonb	   *types[2] = {json_text(type), json_text("null")};

		shape_put(state, "type", json_array(types, 2));
	}
	else if (type != NULL)
		shape_put_text(state, "type", type);
}

/*
 * Adds a keyword; the key must outlive the building.
 */
void
shape_put(JsonbParseState **state, const char *key, const Jsonb *value)
{
	json_push_key(state, key);
	json_push(state, WJB_VALUE, value);
}

/*
 * Adds a keyword whose value is a text.
 */
void
shape_put_text(JsonbParseState **state, const char *key, const char *text)
{
	shape_put(state, key, json_text(text));
}

/*
 * Ends a schema, with its description unless that is NULL.
 */
Jsonb *
shape_end(JsonbParseState **state, const char *description)
{
	if (description != NULL)
		shape_put_text(state, "description", description);
	return JsonbValueToJsonb(pushJsonbValue(state, WJB_END_OBJECT, NULL));
}

/* PostgreSQL's own reading of a type's name; NULL: no such type. */
static Type
look_up(const char *name, int32 *typmod)
{
	List	   *parsed = raw_parser(name, RAW_PARSE_TYPE_NAME);
	TypeName   *type = linitial_node(TypeName, parsed);

	if (type->setof || type->pct_type)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("SETOF and %%TYPE have no place here")));
	return LookupTypeName(NULL, type, typmod, true);
}

static void
unknown_type(const char *name, int line)
{
	const char *lower = asc_tolower(name, strlen(name));
	const char *nearest = yaml_nearest(lower, common_types);
	const char *hint = nearest == NULL ? NULL : psprintf("Perhaps you meant \"%s\".", nearest);

	for (int i = 0; i < lengthof(foreign_names); i++)
	{
		const char *const foreign[] = {foreign_names[i].name, NULL};

		if (strcmp(foreign[0], lower) == 0 ||
			(hint == NULL && yaml_nearest(lower, foreign) != NULL))
			hint = foreign_names[i].hint;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("line %d: type \"%s\" does not exist", line, name),
			 errhint("%s", hint ? hint : "Check its name and search_path; a list of labels is written [a, b].")));
	pg_unreachable();
}

static Jsonb *
type_schema(Oid type, int32 typmod, const TypeUse *use)
{
	Oid			element;

	check_stack_depth();
	type = getBaseTypeAndTypmod(type, &typmod);
	element = get_element_type(type);
	if (OidIsValid(element))
		return array_schema(element, typmod, use);

	switch (get_typtype(type))
	{
		case TYPTYPE_COMPOSITE:
			return composite_schema(type, typmod, use);
		case TYPTYPE_ENUM:
			return enum_schema(type, use);
		default:
			return base_schema(type, typmod, use);
	}
}

static Jsonb *
base_schema(Oid type, int32 typmod, const TypeUse *use)
{
	JsonbParseState *state = NULL;
	const BaseType *base = NULL;
	const char *json = "string";
	const char *format = NULL;

	if (get_typtype(type) == TYPTYPE_PSEUDO)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%spseudo-type %s has no values in JSON", line_prefix(use->line),
						format_type_be(type)),
				 errhint("Use a type with values, such as text or jsonb.")));
	if (type == BYTEAOID)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%stype bytea is not yet supported", line_prefix(use->line)),
				 errhint("Ask for text for now.")));
	if (type == JSONOID || type == JSONBOID)
		json = NULL;
	if (is_vector(type))
		return array_schema(FLOAT4OID, -1, use);

	for (int i = 0; i < lengthof(base_types); i++)
	{
		if (base_types[i].type != type)
			continue;
		base = &base_types[i];
		json = base->json;
		format = use->form == FORM_WIRE ? base->wire_format : base->format;
	}

	shape_begin(&state, json, use->nullable);
	if (format != NULL)
		shape_put_text(&state, "format", format);
	/* strict modes do not know bounds, nor maxLength */
	if (base != NULL && base->max != 0 && use->form == FORM_CHECK)
	{
		shape_put(&state, "minimum", json_int(base->min));
		shape_put(&state, "maximum", json_int(base->max));
	}
	if ((type == VARCHAROID || type == BPCHAROID) && typmod >= (int32) VARHDRSZ &&
		use->form == FORM_CHECK)
		shape_put(&state, "maxLength", json_int(typmod - VARHDRSZ));
	return shape_end(&state, use->description);
}

static Jsonb *
array_schema(Oid element, int32 typmod, const TypeUse *use)
{
	JsonbParseState *state = NULL;
	TypeUse		inner = {use->form, false, NULL, use->line};

	shape_begin(&state, "array", use->nullable);
	shape_put(&state, "items", type_schema(element, typmod, &inner));
	return shape_end(&state, use->description);
}

/* All columns may be null, and so be left out where nothing forces them in. */
static Jsonb *
composite_schema(Oid type, int32 typmod, const TypeUse *use)
{
	JsonbParseState *state = NULL;
	JsonbParseState *columns = NULL;
	TupleDesc	desc = lookup_rowtype_tupdesc_copy(type, typmod);
	Jsonb	  **names = palloc(Max(desc->natts, 1) * sizeof(Jsonb *));
	int			n = 0;
	TypeUse		inner = {use->form, true, NULL, use->line};

	pushJsonbValue(&columns, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (column->attisdropped)
			continue;
		names[n++] = json_text(NameStr(column->attname));
		shape_put(&columns, NameStr(column->attname),
				  type_schema(column->atttypid, column->atttypmod, &inner));
	}

	shape_begin(&state, "object", use->nullable);
	shape_put(&state, "properties", shape_end(&columns, NULL));
	if (use->form == FORM_WIRE)
		shape_put(&state, "required", json_array(names, n));
	shape_put(&state, "additionalProperties", json_bool(false));
	return shape_end(&state, use->description);
}

static Jsonb *
enum_schema(Oid type, const TypeUse *use)
{
	JsonbParseState *state = NULL;
	JsonbParseState *labels = NULL;
	Relation	relation = table_open(EnumRelationId, AccessShareLock);
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_enum_enumtypid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(type));
	scan = systable_beginscan(relation, EnumTypIdSortOrderIndexId, true, NULL, 1, &key);
	pushJsonbValue(&labels, WJB_BEGIN_ARRAY, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		json_push(&labels, WJB_ELEM,
				  json_text(NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel)));
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	if (use->nullable)
		json_push(&labels, WJB_ELEM, json_null());

	shape_begin(&state, "string", use->nullable);
	shape_put(&state, "enum", JsonbValueToJsonb(pushJsonbValue(&labels, WJB_END_ARRAY, NULL)));
	return shape_end(&state, use->description);
}

/* pgvector's types, whose text form is a JSON array of numbers. */
static bool
is_vector(Oid type)
{
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	bool		found = false;

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_type form = (Form_pg_type) GETSTRUCT(tuple);

		found = form->typtype == TYPTYPE_BASE && type >= FirstNormalObjectId &&
			(strcmp(NameStr(form->typname), "vector") == 0 ||
			 strcmp(NameStr(form->typname), "halfvec") == 0);
		ReleaseSysCache(tuple);
	}
	return found;
}

static const char *
line_prefix(int line)
{
	return line > 0 ? psprintf("line %d: ", line) : "";
}
