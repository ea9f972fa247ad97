/*
 * shape.c
 *	  What `returns` and `schema` mean: a JSON Schema, and the check of an
 *	  answer against it.
 *
 * Everything that needs the catalog happens when a shape is made, at CREATE.
 * Checking an answer needs the shape alone, so that a process outside a
 * transaction can do it.
 *
 * A shape has two schemas.  The one that is checked says what is right; the
 * one that goes over the wire says it in the words that services take: its
 * root an object ({"value": ...} around anything else), and, where the schema
 * is ours to write, every field required, a field that may be left out
 * nullable instead (OpenAI's strict mode).
 */
#include "postgres.h"

#include "base/json.h"
#include "chain/schema.h"
#include "chain/shape.h"
#include "chain/shape_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#define WRAPPER "value"			/* the field of a wrapped root */

static Shape *make_shape(Jsonb *schema, Jsonb *wire, const YamlNode *source);
static Jsonb *check_answer(const AnswerShape *answer, const Jsonb *value, bool wired,
						   char **why);
static Jsonb *node_schema(const YamlNode *node, ShapeForm form, bool nullable);
static Jsonb *text_schema(const YamlNode *node, ShapeForm form, bool nullable);
static Jsonb *fields_schema(const YamlNode *map, ShapeForm form, bool nullable);
static Jsonb *list_schema(const YamlNode *list, ShapeForm form, bool nullable);
static Jsonb *labels_schema(const YamlNode *list, bool nullable);
static const char *field_name(const YamlNode *map, int i, bool *optional);
static char *split_description(const char *text, char **description);
static bool root_is_object(const Jsonb *schema);
static Jsonb *wrap(const Jsonb *schema);
static void check_wrappable(const Jsonb *schema, const YamlNode *source);
static Jsonb *unwrap(const Shape *shape, const Jsonb *answer);
static JsonbValue *push_filled(JsonbParseState **state, JsonbIteratorToken token,
							   const Schema *schema, JsonbValue *value);
static JsonbValue *push_filled_object(JsonbParseState **state, const Schema *schema,
									  JsonbContainer *object);
static const Schema *property_schema(const Schema *schema, const JsonbValue *key);
static Jsonb *fill(const Schema *schema, const Jsonb *value);

/*
 * The shape that the value of `returns` means: a type, a field map or a list.
 * Looks types up by the search_path.  Raises errors that begin with the line.
 */
Shape *
shape_from_returns(const YamlNode *returns)
{
	Jsonb	   *schema = node_schema(returns, FORM_CHECK, false);
	Jsonb	   *wire = node_schema(returns, FORM_WIRE, false);
	Shape	   *shape = make_shape(schema, wire, NULL);

	shape->fill = true;
	return shape;
}

/*
 * The shape of a JSON Schema as written.  Raises errors that begin with the
 * line, for every keyword that would not be checked among others.
 */
Shape *
shape_from_schema(const YamlNode *schema)
{
	Jsonb	   *json = yaml_json(schema);

	return make_shape(json, json, schema);
}

/*
 * The shape that shape_from_returns() has made before, from its two schemas:
 * looks nothing up.  Takes them over.
 */
Shape *
shape_from_pin(Jsonb *schema, Jsonb *wire)
{
	Shape	   *shape = palloc0(sizeof(Shape));

	if (schema == NULL || wire == NULL)
		elog(ERROR, "a pinned shape lacks its schema");
	shape->schema = schema;
	shape->compiled = schema_compile(schema, NULL);
	shape->wrapped = !root_is_object(schema);
	shape->fill = true;
	shape->answer.wire = wire;
	shape->answer.strict = schema_strict(schema_compile(wire, NULL));
	shape->answer.check = check_answer;
	return shape;
}

/*
 * The shape of an SQL type, for arguments and results of functions.  Raises an
 * error for one that JSON cannot hold.
 */
Shape *
shape_from_type(Oid type, int32 typmod)
{
	Shape	   *shape = make_shape(shape_type_schema(type, typmod, FORM_CHECK, false, NULL, 0),
								   shape_type_schema(type, typmod, FORM_WIRE, false, NULL, 0),
								   NULL);

	shape->fill = true;
	return shape;
}

/*
 * Checks an answer and returns the value in it: out of its wrapper, and for
 * `returns` with null for every field that was left out and whole numbers
 * written as such.  NULL when it does not fit; *why is then a message for the
 * model, palloc'd like the result.  Raises no error and needs no transaction;
 * a slow `pattern` makes it slow.
 */
Jsonb *
shape_check(const Shape *shape, const Jsonb *answer, char **why)
{
	Jsonb	   *value = unwrap(shape, answer);
	SchemaVerdict verdict;

	if (!schema_check(shape->compiled, value, value == answer ? NULL : WRAPPER, &verdict))
	{
		*why = verdict.why;
		if (shape->wrapped && value == answer && JB_ROOT_IS_OBJECT(answer) &&
			shape->compiled->types != 0 && !(shape->compiled->types & SCHEMA_OBJECT))
			*why = psprintf("expected an object with the only field \"%s\"; %s",
							WRAPPER, verdict.why);
		return NULL;
	}
	*why = NULL;
	return shape->fill && verdict.absent ? fill(shape->compiled, value) : value;
}

/*
 * The same for a value that is no model's answer: it is never in a wrapper.
 */
Jsonb *
shape_check_value(const Shape *shape, const Jsonb *value, char **why)
{
	SchemaVerdict verdict;

	*why = NULL;
	if (!schema_check(shape->compiled, value, NULL, &verdict))
	{
		*why = verdict.why;
		return NULL;
	}
	return shape->fill && verdict.absent ? fill(shape->compiled, value) :
		unconstify(Jsonb *, value);
}

/*
 * Pushes a value without the fields that a field map or type does not name.
 * The value need not fit otherwise.
 */
static JsonbValue *
push_named(JsonbParseState **state, JsonbIteratorToken token,
		   const Schema *schema, JsonbValue *value)
{
	JsonbIterator *it;
	JsonbValue	item;
	bool		object;

	if (value->type != jbvBinary || schema == NULL ||
		(schema->items == NULL && schema->nproperties == 0))
		return pushJsonbValue(state, token, value);

	object = JsonContainerIsObject(value->val.binary.data);
	pushJsonbValue(state, object ? WJB_BEGIN_OBJECT : WJB_BEGIN_ARRAY, NULL);
	it = JsonbIteratorInit(value->val.binary.data);
	(void) JsonbIteratorNext(&it, &item, true);
	if (!object)
	{
		while (JsonbIteratorNext(&it, &item, true) == WJB_ELEM)
			push_named(state, WJB_ELEM, schema->items, &item);
		return pushJsonbValue(state, WJB_END_ARRAY, NULL);
	}
	while (JsonbIteratorNext(&it, &item, true) == WJB_KEY)
	{
		const Schema *property = property_schema(schema, &item);
		JsonbValue	field;

		(void) JsonbIteratorNext(&it, &field, true);
		if (property == NULL && schema->nproperties > 0)
			continue;
		pushJsonbValue(state, WJB_KEY, &item);
		push_named(state, WJB_VALUE, property, &field);
	}
	return pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/*
 * shape_check() for calls.  Only words are asked for in the wire form, to the
 * letter.  A service of another kind answers as it always does: of its
 * fields those that `returns` names are taken.
 */
static Jsonb *
check_answer(const AnswerShape *answer, const Jsonb *value, bool wired,
			 char **why)
{
	Shape		shape = *(const Shape *) answer;

	if (!wired)
	{
		shape.wrapped = false;
		if (shape.fill && !JB_ROOT_IS_SCALAR(value))
		{
			JsonbParseState *state = NULL;
			JsonbValue	root;

			root.type = jbvBinary;
			root.val.binary.data = unconstify(JsonbContainer *, &value->root);
			root.val.binary.len = VARSIZE(value) - VARHDRSZ;
			value = JsonbValueToJsonb(push_named(&state, WJB_ELEM,
												 shape.compiled, &root));
		}
	}
	return shape_check(&shape, value, why);
}

/* source: the YAML of a schema that somebody wrote; NULL: we did. */
static Shape *
make_shape(Jsonb *schema, Jsonb *wire, const YamlNode *source)
{
	Shape	   *shape = palloc0(sizeof(Shape));

	shape->schema = schema;
	shape->compiled = schema_compile(schema, source);
	shape->wrapped = !root_is_object(schema);
	if (shape->wrapped)
	{
		check_wrappable(wire, source);
		wire = wrap(wire);
	}
	shape->answer.wire = wire;
	shape->answer.strict = schema_strict(schema_compile(wire, NULL));
	shape->answer.check = check_answer;
	return shape;
}

static Jsonb *
node_schema(const YamlNode *node, ShapeForm form, bool nullable)
{
	switch (node->type)
	{
		case YAML_STRING:
			return text_schema(node, form, nullable);
		case YAML_LIST:
			return list_schema(node, form, nullable);
		case YAML_MAP:
			return fields_schema(node, form, nullable);
		default:
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("line %d: expected a type, a map of fields or a list of labels",
							node->line),
					 errdetail("It is %s.", node->type == YAML_NULL ? "empty" :
							   psprintf("the %s %s", yaml_type_name(node), node->text)),
					 errhint("Write score: int, label: [a, b] or party: {name: text}.")));
	}
	pg_unreachable();
}

/* `int`, `numeric(10,2), in euros` */
static Jsonb *
text_schema(const YamlNode *node, ShapeForm form, bool nullable)
{
	char	   *description;
	char	   *name = split_description(node->text, &description);
	Oid			type;
	int32		typmod;

	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line %d: a type is missing", node->line),
				 errhint("Write a type of SQL, such as text.")));
	shape_type_lookup(name, node->line, &type, &typmod);
	return shape_type_schema(type, typmod, form, nullable, description, node->line);
}

static Jsonb *
fields_schema(const YamlNode *map, ShapeForm form, bool nullable)
{
	JsonbParseState *state = NULL;
	JsonbParseState *fields = NULL;
	Jsonb	  **required = palloc(Max(map->count, 1) * sizeof(Jsonb *));
	int			nrequired = 0;

	if (map->count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line %d: a map of fields has no field", map->line),
				 errhint("Write jsonb for JSON of any shape.")));

	pushJsonbValue(&fields, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < map->count; i++)
	{
		bool		optional;
		const char *name = field_name(map, i, &optional);

		if (map->items[i]->type == YAML_NULL)
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("line %d: field \"%s\" has no type", map->key_lines[i], name),
					 errhint("Write \"%s: text\"; in {...} quote a type that holds a comma or brackets.", name)));
		if (!optional || form == FORM_WIRE)
			required[nrequired++] = json_text(name);
		shape_put(&fields, name, node_schema(map->items[i], form, optional));
	}

	shape_begin(&state, "object", nullable);
	shape_put(&state, "properties", shape_end(&fields, NULL));
	shape_put(&state, "required", json_array(required, nrequired));
	shape_put(&state, "additionalProperties", json_bool(false));
	return shape_end(&state, NULL);
}

/* `[{sku: text, qty: int}]`, or labels */
static Jsonb *
list_schema(const YamlNode *list, ShapeForm form, bool nullable)
{
	JsonbParseState *state = NULL;

	if (list->count != 1 || list->items[0]->type != YAML_MAP)
		return labels_schema(list, nullable);
	shape_begin(&state, "array", nullable);
	shape_put(&state, "items", fields_schema(list->items[0], form, false));
	return shape_end(&state, NULL);
}

/* The name of a type where a label is expected: what was meant is an array. */
static void
check_not_array(const YamlNode *label)
{
	static const char *const types[] = {
		"text", "int", "integer", "smallint", "bigint", "numeric", "real", "float", "boolean",
		"bool", "date", "time", "timestamp", "timestamptz", "uuid", "json", "jsonb"
	};

	for (int i = 0; i < lengthof(types); i++)
		if (label->plain && strcmp(label->text, types[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("line %d: a list of one label, \"%s\"", label->line, label->text),
					 errdetail("A list means that the answer is one of its labels."),
					 errhint("For an array write \"%s[]\".", label->text)));
}

static Jsonb *
labels_schema(const YamlNode *list, bool nullable)
{
	static const struct
	{
		YamlType	yaml;
		const char *json;
	}			types[] = {
		{YAML_STRING, "string"}, {YAML_NUMBER, "number"}, {YAML_BOOL, "boolean"}, {YAML_NULL, "null"}
	};
	JsonbParseState *state = NULL;
	Jsonb	  **labels = palloc((list->count + 1) * sizeof(Jsonb *));
	Jsonb	   *names[lengthof(types)];
	int			nnames = 0;
	int			nlabels = 0;

	if (list->count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line %d: a list of labels is empty", list->line),
				 errhint("Write the labels: [billing, technical].")));
	if (list->count == 1)
		check_not_array(list->items[0]);

	for (int i = 0; i < list->count; i++)
	{
		const YamlNode *label = list->items[i];

		if (label->type == YAML_LIST || label->type == YAML_MAP)
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("line %d: expected a label, got a %s", label->line, yaml_type_name(label)),
					 errhint("A list holds labels, of which the answer is one, or a single map of fields for an array of objects.")));
		labels[nlabels] = yaml_json(label);
		for (int k = 0; k < nlabels; k++)
			if (compareJsonbContainers(&labels[k]->root, &labels[nlabels]->root) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_SYNTAX_ERROR),
						 errmsg("line %d: label \"%s\" is there twice", label->line, label->text),
						 errhint("Leave one of them out.")));
		nullable = nullable || label->type == YAML_NULL;
		if (label->type != YAML_NULL)
			nlabels++;
	}
	if (nullable)
		labels[nlabels++] = json_null();

	for (int i = 0; i < lengthof(types); i++)
	{
		bool		found = nullable && types[i].yaml == YAML_NULL;

		for (int k = 0; k < list->count; k++)
			found = found || list->items[k]->type == types[i].yaml;
		if (found)
			names[nnames++] = json_text(types[i].json);
	}

	shape_begin(&state, NULL, false);
	shape_put(&state, "type", nnames == 1 ? names[0] : json_array(names, nnames));
	shape_put(&state, "enum", json_array(labels, nlabels));
	return shape_end(&state, NULL);
}

/* The name of a map's i-th field without the mark of one that may be left out. */
static const char *
field_name(const YamlNode *map, int i, bool *optional)
{
	const char *key = map->keys[i];
	int			len = strlen(key);
	char	   *name;

	*optional = len > 0 && key[len - 1] == '?';
	if (!*optional)
		return key;
	name = pnstrdup(key, len - 1);
	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line %d: a field has no name", map->key_lines[i]),
				 errhint("Write its name before the ?: note?: text.")));
	if (yaml_get(map, name) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line %d: field \"%s\" is there twice", map->key_lines[i], name),
				 errdetail("Once it may be left out and once not."),
				 errhint("Leave one of them out.")));
	return name;
}

/*
 * The type in "type, description": up to the first comma outside parentheses
 * and quoted names.  *description is NULL when there is none.
 */
static char *
split_description(const char *text, char **description)
{
	const char *comma = NULL;
	int			depth = 0;
	bool		quoted = false;
	char	   *name;

	for (const char *p = text; *p != '\0' && comma == NULL; p++)
	{
		if (*p == '"')
			quoted = !quoted;
		else if (!quoted)
		{
			depth += (*p == '(') - (*p == ')');
			if (*p == ',' && depth == 0)
				comma = p;
		}
	}

	*description = NULL;
	name = comma == NULL ? pstrdup(text) : pnstrdup(text, comma - text);
	if (comma != NULL)
	{
		comma += 1 + strspn(comma + 1, " \n");
		if (*comma != '\0')
			*description = pstrdup(comma);
	}
	name += strspn(name, " \n");
	while (name[0] != '\0' && strchr(" \n", name[strlen(name) - 1]) != NULL)
		name[strlen(name) - 1] = '\0';
	return name;
}

static bool
root_is_object(const Jsonb *schema)
{
	JsonbValue	type;

	return JB_ROOT_IS_OBJECT(schema) && json_get(schema, "type", &type) &&
		type.type == jbvString && type.val.string.len == strlen("object") &&
		memcmp(type.val.string.val, "object", strlen("object")) == 0;
}

/* {"value": schema}; definitions move to the new root, where references look. */
static Jsonb *
wrap(const Jsonb *schema)
{
	static const char *const definitions[] = {"$defs", "definitions"};
	JsonbParseState *state = NULL;
	JsonbParseState *properties = NULL;
	Jsonb	   *required = json_text(WRAPPER);
	Jsonb	   *inner = unconstify(Jsonb *, schema);

	shape_begin(&state, "object", false);
	for (int i = 0; i < lengthof(definitions); i++)
	{
		Jsonb	   *moved = JB_ROOT_IS_OBJECT(schema) ? json_field(schema, definitions[i]) : NULL;

		if (moved == NULL)
			continue;
		shape_put(&state, definitions[i], moved);
		inner = DatumGetJsonbP(DirectFunctionCall2(jsonb_delete, JsonbPGetDatum(inner),
												   CStringGetTextDatum(definitions[i])));
	}
	pushJsonbValue(&properties, WJB_BEGIN_OBJECT, NULL);
	shape_put(&properties, WRAPPER, inner);
	shape_put(&state, "properties", shape_end(&properties, NULL));
	shape_put(&state, "required", json_array(&required, 1));
	shape_put(&state, "additionalProperties", json_bool(false));
	return shape_end(&state, NULL);
}

/* "#" would mean the wrapper. */
static void
check_wrappable(const Jsonb *schema, const YamlNode *source)
{
	JsonbIterator *it = JsonbIteratorInit(unconstify(JsonbContainer *, &schema->root));
	JsonbIteratorToken token;
	JsonbValue	v;
	bool		reference = false;

	while ((token = JsonbIteratorNext(&it, &v, false)) != WJB_DONE)
	{
		if (reference && token == WJB_VALUE && v.type == jbvString &&
			v.val.string.len == 1 && v.val.string.val[0] == '#')
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("line %d: a reference to \"#\" needs a schema of type object",
							source == NULL ? 1 : source->line),
					 errhint("Move the schema into $defs and refer to it by name.")));
		reference = token == WJB_KEY && v.val.string.len == strlen("$ref") &&
			memcmp(v.val.string.val, "$ref", strlen("$ref")) == 0;
	}
}

/* The value in {"value": ...} of a wrapped shape; any other answer itself. */
static Jsonb *
unwrap(const Shape *shape, const Jsonb *answer)
{
	Jsonb	   *value = NULL;

	if (shape->wrapped && JB_ROOT_IS_OBJECT(answer) && JB_ROOT_COUNT(answer) == 1)
		value = json_field(answer, WRAPPER);
	return value != NULL ? value : unconstify(Jsonb *, answer);
}

static Jsonb *
fill(const Schema *schema, const Jsonb *value)
{
	JsonbParseState *state = NULL;
	JsonbValue	root;

	if (json_scalar(value, &root))
	{
		/* only a number can be what is to be changed */
		if (root.type == jbvNumeric && (schema->types & SCHEMA_INTEGER))
			root.val.numeric = DatumGetNumeric(DirectFunctionCall2(numeric_trunc,
																   NumericGetDatum(root.val.numeric),
																   Int32GetDatum(0)));
		return JsonbValueToJsonb(&root);
	}
	Assert(schema->items != NULL || schema->nproperties > 0);
	root.type = jbvBinary;
	root.val.binary.data = unconstify(JsonbContainer *, &value->root);
	root.val.binary.len = VARSIZE(value) - VARHDRSZ;
	return JsonbValueToJsonb(push_filled(&state, WJB_ELEM, schema, &root));
}

/*
 * Pushes a value that fits the schema, filled in.  Schemas made from types and
 * field maps know no alternatives, so the value and its schema go hand in hand.
 */
static JsonbValue *
push_filled(JsonbParseState **state, JsonbIteratorToken token, const Schema *schema,
			JsonbValue *value)
{
	JsonbIterator *it;
	JsonbValue	item;

	if (value->type == jbvNumeric && schema != NULL && (schema->types & SCHEMA_INTEGER))
	{
		item = *value;
		item.val.numeric = DatumGetNumeric(DirectFunctionCall2(numeric_trunc,
															   NumericGetDatum(value->val.numeric),
															   Int32GetDatum(0)));
		return pushJsonbValue(state, token, &item);
	}
	if (value->type != jbvBinary || schema == NULL ||
		(schema->items == NULL && schema->nproperties == 0))
		return pushJsonbValue(state, token, value);
	if (JsonContainerIsObject(value->val.binary.data))
		return push_filled_object(state, schema, value->val.binary.data);

	pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	it = JsonbIteratorInit(value->val.binary.data);
	(void) JsonbIteratorNext(&it, &item, true);
	while (JsonbIteratorNext(&it, &item, true) == WJB_ELEM)
		push_filled(state, WJB_ELEM, schema->items, &item);
	return pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

static JsonbValue *
push_filled_object(JsonbParseState **state, const Schema *schema, JsonbContainer *object)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbValue	key;
	JsonbValue	value;

	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	(void) JsonbIteratorNext(&it, &key, true);
	while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&it, &value, true);
		pushJsonbValue(state, WJB_KEY, &key);
		push_filled(state, WJB_VALUE, property_schema(schema, &key), &value);
	}
	for (int i = 0; i < schema->nproperties; i++)
	{
		const SchemaProperty *property = &schema->properties[i];

		if (getKeyJsonValueFromContainer(object, property->name, property->len, &value) != NULL)
			continue;
		json_push_key(state, property->name);
		value.type = jbvNull;
		pushJsonbValue(state, WJB_VALUE, &value);
	}
	return pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static const Schema *
property_schema(const Schema *schema, const JsonbValue *key)
{
	for (int i = 0; i < schema->nproperties; i++)
	{
		const SchemaProperty *property = &schema->properties[i];

		if (property->len == key->val.string.len &&
			memcmp(property->name, key->val.string.val, property->len) == 0)
			return property->schema;
	}
	return NULL;
}
