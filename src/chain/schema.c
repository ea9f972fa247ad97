/*
 * schema.c
 *	  Compiles a JSON Schema for checking.
 *
 * The keywords are those of draft 2020-12 that describe structure.  Any other
 * is refused when the chain is created: a keyword that is silently not checked
 * is a promise broken.  No C library for this is packaged by Debian (there is
 * one in C++, valijson), and all parts are at hand in PostgreSQL: jsonb to
 * hold the schema, numeric and its regular expressions to check with.
 *
 * A table gives for every keyword how its value is read and into which field
 * of Schema it goes.  Subschemas become pointers; so do references, which may
 * form circles, but not one that consumes nothing of the value.
 */
#include "postgres.h"

#include <stddef.h>

#include "base/compat.h"
#include "base/json.h"
#include "chain/schema.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

typedef struct Compiler
{
	JsonbValue	root;
	const YamlNode *source;		/* of the root; NULL: no lines known */
	List	   *targets;		/* of Target: what references point to */
	List	   *schemas;		/* of Schema: all of them */
} Compiler;

typedef struct Target
{
	const char *pointer;
	Schema	   *schema;
} Target;

/* One keyword's value, where it was written, and where it goes. */
typedef struct Keyword
{
	Compiler   *compiler;
	Schema	   *schema;
	const char *name;
	JsonbValue *value;
	const YamlNode *at;			/* the value in YAML; NULL: not known */
	int			line;			/* of the keyword; 0: not known */
	void	   *field;
} Keyword;

typedef void (*KeywordReader) (const Keyword *keyword);

typedef struct KeywordInfo
{
	const char *name;
	KeywordReader read;			/* NULL: an annotation */
	size_t		field;
	unsigned int group;
} KeywordInfo;

/* A keyword of other dialects and what to write in its place. */
typedef struct KeywordAdvice
{
	const char *name;
	const char *hint;
} KeywordAdvice;

static Schema *compile(Compiler *compiler, JsonbValue *value, const YamlNode *at);
static void compile_into(Compiler *compiler, Schema *schema, JsonbValue *value,
						 const YamlNode *at);
static void compile_keyword(Compiler *compiler, Schema *schema, const char *name,
							JsonbValue *value, const YamlNode *map);
static Schema *new_schema(Compiler *compiler);
static void read_types(const Keyword *keyword);
static void read_values(const Keyword *keyword);
static void read_constant(const Keyword *keyword);
static void read_number(const Keyword *keyword);
static void read_count(const Keyword *keyword);
static void read_pattern(const Keyword *keyword);
static void read_format(const Keyword *keyword);
static void read_flag(const Keyword *keyword);
static void read_schema(const Keyword *keyword);
static void read_schemas(const Keyword *keyword);
static void read_properties(const Keyword *keyword);
static void read_required(const Keyword *keyword);
static void read_patterns(const Keyword *keyword);
static void read_dependents(const Keyword *keyword);
static void read_definitions(const Keyword *keyword);
static void read_reference(const Keyword *keyword);
static Schema *resolve(const Keyword *keyword, const char *pointer);
static SchemaProperty *find_property(Schema *schema, const char *name, int len);
static void check_loops(Compiler *compiler);
static JsonbValue *string_elements(const Keyword *keyword, JsonbValue *array, int *count);
static JsonbValue *elements(JsonbValue *array, int *count);
static JsonbValue *pairs(JsonbValue *object, int *count);
static bool is_array(const JsonbValue *value);
static bool is_object(const JsonbValue *value);
static char *string_dup(const JsonbValue *value);
static const YamlNode *element_at(const YamlNode *list, int i);
static void keyword_fault(const Keyword *keyword, const char *expected)
	pg_attribute_noreturn();
static int	key_line(const YamlNode *map, const char *key);
static void fault(int line, int sqlstate, const char *message,
				  const char *hint) pg_attribute_noreturn();

#define FIELD(name) offsetof(Schema, name)

static const KeywordInfo keywords[] = {
	{"type", read_types, FIELD(types), 0},
	{"enum", read_values, FIELD(one_of_values), 0},
	{"const", read_constant, FIELD(constant), 0},

	{"minimum", read_number, FIELD(minimum), SCHEMA_HAS_NUMBER},
	{"maximum", read_number, FIELD(maximum), SCHEMA_HAS_NUMBER},
	{"exclusiveMinimum", read_number, FIELD(exclusive_minimum), SCHEMA_HAS_NUMBER},
	{"exclusiveMaximum", read_number, FIELD(exclusive_maximum), SCHEMA_HAS_NUMBER},
	{"multipleOf", read_number, FIELD(multiple_of), SCHEMA_HAS_NUMBER},

	{"minLength", read_count, FIELD(min_length), SCHEMA_HAS_STRING},
	{"maxLength", read_count, FIELD(max_length), SCHEMA_HAS_STRING},
	{"pattern", read_pattern, FIELD(pattern), SCHEMA_HAS_STRING},
	{"format", read_format, FIELD(format), SCHEMA_HAS_STRING},

	{"prefixItems", read_schemas, FIELD(prefix_items), SCHEMA_HAS_ARRAY},
	{"items", read_schema, FIELD(items), SCHEMA_HAS_ARRAY},
	{"contains", read_schema, FIELD(contains), SCHEMA_HAS_ARRAY},
	{"minContains", read_count, FIELD(min_contains), SCHEMA_HAS_ARRAY},
	{"maxContains", read_count, FIELD(max_contains), SCHEMA_HAS_ARRAY},
	{"minItems", read_count, FIELD(min_items), SCHEMA_HAS_ARRAY},
	{"maxItems", read_count, FIELD(max_items), SCHEMA_HAS_ARRAY},
	{"uniqueItems", read_flag, FIELD(unique_items), SCHEMA_HAS_ARRAY},

	{"properties", read_properties, 0, SCHEMA_HAS_OBJECT},
	{"required", read_required, 0, SCHEMA_HAS_OBJECT},
	{"patternProperties", read_patterns, 0, SCHEMA_HAS_OBJECT},
	{"additionalProperties", read_schema, FIELD(additional), SCHEMA_HAS_OBJECT},
	{"propertyNames", read_schema, FIELD(names), SCHEMA_HAS_OBJECT},
	{"minProperties", read_count, FIELD(min_properties), SCHEMA_HAS_OBJECT},
	{"maxProperties", read_count, FIELD(max_properties), SCHEMA_HAS_OBJECT},
	{"dependentRequired", read_dependents, 0, SCHEMA_HAS_OBJECT},

	{"$ref", read_reference, FIELD(ref), SCHEMA_HAS_LOGIC},
	{"allOf", read_schemas, FIELD(all_of), SCHEMA_HAS_LOGIC},
	{"anyOf", read_schemas, FIELD(any_of), SCHEMA_HAS_LOGIC},
	{"oneOf", read_schemas, FIELD(one_of), SCHEMA_HAS_LOGIC},
	{"not", read_schema, FIELD(not_schema), SCHEMA_HAS_LOGIC},
	{"if", read_schema, FIELD(if_schema), SCHEMA_HAS_LOGIC},
	{"then", read_schema, FIELD(then_schema), SCHEMA_HAS_LOGIC},
	{"else", read_schema, FIELD(else_schema), SCHEMA_HAS_LOGIC},

	{"$defs", read_definitions, 0, 0},
	{"definitions", read_definitions, 0, 0},

	{"title", NULL, 0, 0},
	{"description", NULL, 0, 0},
	{"default", NULL, 0, 0},
	{"examples", NULL, 0, 0},
	{"$schema", NULL, 0, 0},
	{"$id", NULL, 0, 0},
	{"$comment", NULL, 0, 0},
	{"deprecated", NULL, 0, 0},
	{"readOnly", NULL, 0, 0},
	{"writeOnly", NULL, 0, 0},
	{"contentEncoding", NULL, 0, 0},
	{"contentMediaType", NULL, 0, 0},
};

static const KeywordAdvice advice[] = {
	{"nullable", "Write the type as a list, such as type: [string, \"null\"]."},
	{"additionalItems", "Use prefixItems for the first elements and items for the others."},
	{"unevaluatedItems", "Use items."},
	{"unevaluatedProperties", "Use additionalProperties."},
	{"dependencies", "Use dependentRequired."},
	{"dependentSchemas", "Use if and then."},
	{"$anchor", "Use $ref to #/$defs/NAME."},
	{"$dynamicRef", "Use $ref to #/$defs/NAME."},
	{"$dynamicAnchor", "Use $ref to #/$defs/NAME."},
	{"$recursiveRef", "Use $ref to #/$defs/NAME."},
	{"contentSchema", "Ask for the JSON itself instead of a text that holds it."},
};

static const char *const type_names[] = {
	"null", "boolean", "integer", "number", "string", "array", "object", NULL
};

/*
 * Compiles a schema, palloc'd in the current context; it points into json,
 * which must live as long.  `source` is the YAML it
 * was made of, for the lines in messages, or NULL.  A keyword that would not
 * be checked, or one with a value of the wrong form, raises an error.
 */
Schema *
schema_compile(const Jsonb *json, const YamlNode *source)
{
	Compiler	compiler = {0};
	Schema	   *schema;
	Target	   *root = palloc(sizeof(Target));

	compiler.source = source;
	if (!json_scalar(json, &compiler.root))
	{
		compiler.root.type = jbvBinary;
		compiler.root.val.binary.data = unconstify(JsonbContainer *, &json->root);
		compiler.root.val.binary.len = VARSIZE(json) - VARHDRSZ;
	}

	schema = new_schema(&compiler);
	root->pointer = "#";
	root->schema = schema;
	compiler.targets = list_make1(root);
	compile_into(&compiler, schema, &compiler.root, source);
	check_loops(&compiler);
	return schema;
}

/*
 * Is it a whole number?  3.0 is one.
 */
bool
schema_integral(Numeric number)
{
	Datum		datum = NumericGetDatum(number);
	Datum		whole;

	if (DatumGetInt32(DirectFunctionCall1(numeric_scale, datum)) == 0)
		return true;
	whole = DirectFunctionCall2(numeric_trunc, datum, Int32GetDatum(0));
	return DatumGetBool(DirectFunctionCall2(numeric_eq, datum, whole));
}

static Schema *
compile(Compiler *compiler, JsonbValue *value, const YamlNode *at)
{
	Schema	   *schema = new_schema(compiler);

	compile_into(compiler, schema, value, at);
	return schema;
}

static void
compile_into(Compiler *compiler, Schema *schema, JsonbValue *value, const YamlNode *at)
{
	JsonbValue *items;
	int			count;

	check_stack_depth();
	if (value->type == jbvBool)
	{
		schema->never = !value->val.boolean;
		return;
	}
	if (!is_object(value))
		fault(at == NULL ? 0 : at->line, ERRCODE_SYNTAX_ERROR, "a schema must be a map, true or false", NULL);

	items = pairs(value, &count);
	for (int i = 0; i < count; i++)
		compile_keyword(compiler, schema, string_dup(&items[2 * i]), &items[2 * i + 1], at);
}

static void
compile_keyword(Compiler *compiler, Schema *schema, const char *name,
				JsonbValue *value, const YamlNode *map)
{
	Keyword		keyword = {
		.compiler = compiler,
		.schema = schema,
		.name = name,
		.value = value,
		.at = yaml_get(map, name),
		.line = key_line(map, name),
	};
	const char *known[lengthof(keywords) + 1];
	const char *nearest;
	const char *hint = NULL;

	for (int i = 0; i < lengthof(keywords); i++)
	{
		if (strcmp(keywords[i].name, name) == 0)
		{
			if (keywords[i].read == NULL)
				return;
			schema->groups |= keywords[i].group;
			keyword.field = (char *) schema + keywords[i].field;
			keywords[i].read(&keyword);
			return;
		}
		known[i] = keywords[i].name;
	}

	known[lengthof(keywords)] = NULL;
	nearest = yaml_nearest(name, known);
	if (nearest != NULL)
		hint = psprintf("Perhaps you meant \"%s\".", nearest);
	for (int i = 0; i < lengthof(advice); i++)
		if (strcmp(advice[i].name, name) == 0)
			hint = advice[i].hint;
	fault(keyword.line, ERRCODE_FEATURE_NOT_SUPPORTED,
		  psprintf("keyword \"%s\" of a schema would not be checked", name), hint);
}

static Schema *
new_schema(Compiler *compiler)
{
	Schema	   *schema = palloc0(sizeof(Schema));

	schema->min_length = schema->max_length = SCHEMA_NO_COUNT;
	schema->min_items = schema->max_items = SCHEMA_NO_COUNT;
	schema->min_contains = schema->max_contains = SCHEMA_NO_COUNT;
	schema->min_properties = schema->max_properties = SCHEMA_NO_COUNT;
	compiler->schemas = lappend(compiler->schemas, schema);
	return schema;
}

static void
read_types(const Keyword *keyword)
{
	JsonbValue *names = keyword->value;
	int			count = 1;

	if (is_array(keyword->value))
		names = string_elements(keyword, keyword->value, &count);
	if (count == 0 || names->type != jbvString)
		keyword_fault(keyword, "the name of a type or a list of them");

	for (int i = 0; i < count; i++)
	{
		const char *name = string_dup(&names[i]);
		unsigned int bit = 0;

		for (int k = 0; type_names[k] != NULL; k++)
			if (strcmp(type_names[k], name) == 0)
				bit = 1 << k;
		if (bit == 0)
		{
			const char *nearest = yaml_nearest(name, type_names);

			fault(keyword->line, ERRCODE_UNDEFINED_OBJECT,
				  psprintf("type \"%s\" does not exist in JSON Schema", name),
				  nearest ? psprintf("Perhaps you meant \"%s\".", nearest) :
				  "The types are null, boolean, integer, number, string, array and object.");
		}
		keyword->schema->types |= bit;
	}
}

static void
read_values(const Keyword *keyword)
{
	SchemaValues *values = keyword->field;

	if (!is_array(keyword->value))
		keyword_fault(keyword, "a list of values");
	values->items = elements(keyword->value, &values->count);
	if (values->count == 0)
		keyword_fault(keyword, "a list of at least one value");
}

static void
read_constant(const Keyword *keyword)
{
	JsonbValue **constant = keyword->field;

	*constant = palloc(sizeof(JsonbValue));
	**constant = *keyword->value;
}

static void
read_number(const Keyword *keyword)
{
	Numeric    *number = keyword->field;

	if (keyword->value->type != jbvNumeric)
		keyword_fault(keyword, "a number");
	*number = keyword->value->val.numeric;
	if (number == &keyword->schema->multiple_of &&
		!DatumGetBool(DirectFunctionCall2(numeric_gt, NumericGetDatum(*number),
										  NumericGetDatum(int64_to_numeric(0)))))
		keyword_fault(keyword, "a number greater than 0");
}

static void
read_count(const Keyword *keyword)
{
	int64	   *count = keyword->field;
	Numeric		number = keyword->value->val.numeric;
	Numeric		bound = int64_to_numeric(PG_INT32_MAX);

	if (keyword->value->type != jbvNumeric || !schema_integral(number) ||
		!DatumGetBool(DirectFunctionCall2(numeric_ge, NumericGetDatum(number),
										  NumericGetDatum(int64_to_numeric(0)))))
		keyword_fault(keyword, "a whole number, 0 or more");

	/* no answer is as large as that, so that a larger bound means the same */
	if (DatumGetBool(DirectFunctionCall2(numeric_gt, NumericGetDatum(number),
										 NumericGetDatum(bound))))
		number = bound;
	*count = DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(number)));
}

static void
read_pattern(const Keyword *keyword)
{
	SchemaRegex **regex = keyword->field;

	if (keyword->value->type != jbvString)
		keyword_fault(keyword, "a regular expression");
	*regex = palloc(sizeof(SchemaRegex));
	schema_regex_compile(*regex, string_dup(keyword->value), keyword->line);
}

/* A format that is not known is an annotation, as the specification has it. */
static void
read_format(const Keyword *keyword)
{
	const SchemaFormat **format = keyword->field;

	if (keyword->value->type != jbvString)
		keyword_fault(keyword, "the name of a format");
	*format = schema_format(string_dup(keyword->value));
}

static void
read_flag(const Keyword *keyword)
{
	bool	   *flag = keyword->field;

	if (keyword->value->type != jbvBool)
		keyword_fault(keyword, "true or false");
	*flag = keyword->value->val.boolean;
}

static void
read_schema(const Keyword *keyword)
{
	Schema	  **schema = keyword->field;

	if (strcmp(keyword->name, "items") == 0 && is_array(keyword->value))
		fault(keyword->line, ERRCODE_SYNTAX_ERROR, "\"items\" must be one schema",
			  "Use prefixItems for a schema of each of the first elements.");
	*schema = compile(keyword->compiler, keyword->value, keyword->at);
}

static void
read_schemas(const Keyword *keyword)
{
	SchemaList *list = keyword->field;
	JsonbValue *items;

	if (!is_array(keyword->value))
		keyword_fault(keyword, "a list of schemas");
	items = elements(keyword->value, &list->count);
	if (list->count == 0)
		keyword_fault(keyword, "a list of at least one schema");
	list->items = palloc(list->count * sizeof(Schema *));
	for (int i = 0; i < list->count; i++)
		list->items[i] = compile(keyword->compiler, &items[i], element_at(keyword->at, i));
}

static void
read_properties(const Keyword *keyword)
{
	JsonbValue *items;
	int			count;

	if (!is_object(keyword->value))
		keyword_fault(keyword, "a map of schemas");
	items = pairs(keyword->value, &count);
	for (int i = 0; i < count; i++)
	{
		char	   *name = string_dup(&items[2 * i]);
		SchemaProperty *property = find_property(keyword->schema, name, items[2 * i].val.string.len);
		Schema	   *schema = compile(keyword->compiler, &items[2 * i + 1],
									 yaml_get(keyword->at, name));

		property->schema = schema;
	}
}

static void
read_required(const Keyword *keyword)
{
	JsonbValue *names;
	int			count;

	if (!is_array(keyword->value))
		keyword_fault(keyword, "a list of names");
	names = string_elements(keyword, keyword->value, &count);
	for (int i = 0; i < count; i++)
		find_property(keyword->schema, string_dup(&names[i]),
					  names[i].val.string.len)->required = true;
}

static void
read_patterns(const Keyword *keyword)
{
	Schema	   *schema = keyword->schema;
	JsonbValue *items;

	if (!is_object(keyword->value))
		keyword_fault(keyword, "a map of schemas");
	items = pairs(keyword->value, &schema->npatterns);
	schema->patterns = palloc0(schema->npatterns * sizeof(SchemaPattern));
	for (int i = 0; i < schema->npatterns; i++)
	{
		char	   *source = string_dup(&items[2 * i]);

		schema_regex_compile(&schema->patterns[i].regex, source, keyword->line);
		schema->patterns[i].schema = compile(keyword->compiler, &items[2 * i + 1],
											 yaml_get(keyword->at, source));
	}
}

static void
read_dependents(const Keyword *keyword)
{
	Schema	   *schema = keyword->schema;
	JsonbValue *items;

	if (!is_object(keyword->value))
		keyword_fault(keyword, "a map of lists of names");
	items = pairs(keyword->value, &schema->ndependents);
	schema->dependents = palloc0(schema->ndependents * sizeof(SchemaDependent));
	for (int i = 0; i < schema->ndependents; i++)
	{
		SchemaDependent *dependent = &schema->dependents[i];
		JsonbValue *names;

		if (!is_array(&items[2 * i + 1]))
			keyword_fault(keyword, "a map of lists of names");
		names = string_elements(keyword, &items[2 * i + 1], &dependent->nneeds);
		dependent->name = string_dup(&items[2 * i]);
		dependent->needs = palloc(dependent->nneeds * sizeof(char *));
		for (int k = 0; k < dependent->nneeds; k++)
			dependent->needs[k] = string_dup(&names[k]);
	}
}

/* Compiled even where nothing refers to them: they must be right. */
static void
read_definitions(const Keyword *keyword)
{
	Target	   *root = linitial(keyword->compiler->targets);
	JsonbValue *items;
	int			count;

	if (!is_object(keyword->value))
		keyword_fault(keyword, "a map of schemas");
	items = pairs(keyword->value, &count);
	for (int i = 0; i < count; i++)
	{
		char	   *name = string_dup(&items[2 * i]);

		if (keyword->schema == root->schema)
			resolve(keyword, psprintf("#/%s/%s", keyword->name, name));
		else
			compile(keyword->compiler, &items[2 * i + 1], yaml_get(keyword->at, name));
	}
}

static void
read_reference(const Keyword *keyword)
{
	Schema	  **schema = keyword->field;
	char	   *pointer;
	StringInfoData plain;

	if (keyword->value->type != jbvString)
		keyword_fault(keyword, "a text");
	pointer = string_dup(keyword->value);

	/* ~1 and ~0 are / and ~ in a JSON pointer (RFC 6901) */
	initStringInfo(&plain);
	for (char *p = pointer; *p != '\0'; p++)
	{
		if (p[0] == '~' && (p[1] == '0' || p[1] == '1'))
			appendStringInfoChar(&plain, *++p == '0' ? '~' : '/');
		else
			appendStringInfoChar(&plain, *p);
	}
	*schema = resolve(keyword, plain.data);
}

/* The schema that "#", "#/$defs/NAME" or "#/definitions/NAME" points to. */
static Schema *
resolve(const Keyword *keyword, const char *pointer)
{
	Compiler   *compiler = keyword->compiler;
	static const char *const maps[] = {"$defs", "definitions"};
	ListCell   *cell;

	foreach(cell, compiler->targets)
	{
		Target	   *target = lfirst(cell);

		if (strcmp(target->pointer, pointer) == 0)
			return target->schema;
	}

	for (int i = 0; i < lengthof(maps); i++)
	{
		char	   *prefix = psprintf("#/%s/", maps[i]);
		const char *name = pointer + strlen(prefix);
		JsonbValue	map;
		JsonbValue	value;
		Target	   *target;

		if (strncmp(pointer, prefix, strlen(prefix)) != 0 || !is_object(&compiler->root))
			continue;
		if (getKeyJsonValueFromContainer(compiler->root.val.binary.data, maps[i],
										 strlen(maps[i]), &map) == NULL || !is_object(&map) ||
			getKeyJsonValueFromContainer(map.val.binary.data, name, strlen(name), &value) == NULL)
			break;
		target = palloc(sizeof(Target));
		target->pointer = pointer;
		target->schema = new_schema(compiler);
		compiler->targets = lappend(compiler->targets, target);
		compile_into(compiler, target->schema, &value,
					 yaml_get(yaml_get(compiler->source, maps[i]), name));
		return target->schema;
	}
	fault(keyword->line, ERRCODE_UNDEFINED_OBJECT,
		  psprintf("reference \"%s\" of a schema leads nowhere", pointer),
		  "A reference is #/$defs/NAME or #/definitions/NAME, defined at the top of the schema, or # for all of it.");
}

/* The entry of a property, made where it is not there yet. */
static SchemaProperty *
find_property(Schema *schema, const char *name, int len)
{
	SchemaProperty *property;
	int			n = schema->nproperties;

	CHECK_FOR_INTERRUPTS();
	for (int i = 0; i < n; i++)
	{
		property = &schema->properties[i];
		if (property->len == len && memcmp(property->name, name, len) == 0)
			return property;
	}
	if (n == 0)
		schema->properties = palloc(8 * sizeof(SchemaProperty));
	else if (n >= 8 && (n & (n - 1)) == 0)
		schema->properties = repalloc(schema->properties, 2 * n * sizeof(SchemaProperty));
	property = &schema->properties[schema->nproperties++];
	property->name = name;
	property->len = len;
	property->required = false;
	property->schema = NULL;
	return property;
}

/* A schema that leads back to itself for the same value says nothing. */
static void
check_loops(Compiler *compiler)
{
	ListCell   *cell;

	foreach(cell, compiler->schemas)
	{
		if (schema_loops(lfirst(cell)))
			fault(compiler->source == NULL ? 0 : compiler->source->line, ERRCODE_SYNTAX_ERROR,
				  "a reference of the schema leads back to itself", NULL);
	}
}

/* The elements of an array that must be texts, each of them once. */
static JsonbValue *
string_elements(const Keyword *keyword, JsonbValue *array, int *count)
{
	JsonbValue *items = elements(array, count);

	for (int i = 0; i < *count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (items[i].type != jbvString)
			keyword_fault(keyword, "a list of names");
		for (int k = 0; k < i; k++)
			if (items[i].val.string.len == items[k].val.string.len &&
				memcmp(items[i].val.string.val, items[k].val.string.val,
					   items[i].val.string.len) == 0)
				keyword_fault(keyword, "a list that holds each name once");
	}
	return items;
}

static JsonbValue *
elements(JsonbValue *array, int *count)
{
	JsonbContainer *container = array->val.binary.data;
	JsonbValue *items;

	*count = JsonContainerSize(container);
	items = palloc(Max(*count, 1) * sizeof(JsonbValue));
	for (int i = 0; i < *count; i++)
		items[i] = *getIthJsonbValueFromContainer(container, i);
	return items;
}

/* Keys and values of an object, by turns. */
static JsonbValue *
pairs(JsonbValue *object, int *count)
{
	JsonbIterator *it = JsonbIteratorInit(object->val.binary.data);
	JsonbIteratorToken token;
	JsonbValue	value;
	JsonbValue *items = palloc(Max(2 * JsonContainerSize(object->val.binary.data), 1) *
							   sizeof(JsonbValue));
	int			n = 0;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
		if (token == WJB_KEY || token == WJB_VALUE)
			items[n++] = value;
	*count = n / 2;
	return items;
}

static bool
is_array(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data);
}

static bool
is_object(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
}

static char *
string_dup(const JsonbValue *value)
{
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static const YamlNode *
element_at(const YamlNode *list, int i)
{
	return list != NULL && list->type == YAML_LIST && i < list->count ? list->items[i] : NULL;
}

static int
key_line(const YamlNode *map, const char *key)
{
	for (int i = 0; map != NULL && i < map->count; i++)
		if (map->type == YAML_MAP && strcmp(map->keys[i], key) == 0)
			return map->key_lines[i];
	return 0;
}

static void
keyword_fault(const Keyword *keyword, const char *expected)
{
	fault(keyword->line, ERRCODE_SYNTAX_ERROR,
		  psprintf("\"%s\" of a schema must be %s", keyword->name, expected), NULL);
}

static void
fault(int line, int sqlstate, const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 line > 0 ? errmsg("line %d: %s", line, message) : errmsg("%s", message),
			 hint ? errhint("%s", hint) : 0));
	pg_unreachable();
}
