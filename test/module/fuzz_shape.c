/*
 * fuzz_shape.c
 *	  Random schemas and shapes against random answers.
 *
 * What must hold: no crash; a shape is made or refused with the line; a check
 * never raises an error and gives a value or a reason; equivalent schemas
 * agree ({"not": S} on the opposite); and a value that fits a `returns` shape
 * fits it again unchanged, and fits what was sent to the model.
 */
#include "postgres.h"

#include "base/json.h"
#include "chain/schema.h"
#include "chain/shape.h"
#include "fmgr.h"
#include "fuzz.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(chaincall_test_fuzz_shape);

typedef struct Input
{
	pg_prng_state *random;
	char	   *schema;			/* as JSON */
	char	   *returns;		/* as YAML */
	char	   *answer;			/* as JSON */
	int			fit;			/* answers that did */
} Input;

static const char *const names[] = {"a", "b", "c", "ab", "value", "é", ""};
static const char *const texts[] = {"", "a", "ab", "abc", "2024-02-29", "10:00:00Z", "2024-05-01T10:00:00Z", "x@y.z", "é", "\\\"", "\\n", "0190"};
static const char *const numbers[] = {"0", "1", "-1", "2", "3", "3.0", "2.5", "1e3", "0.1", "1e300", "-0.000001", "123456789012345678901234567890"};
static const char *const types[] = {"null", "boolean", "integer", "number", "string", "array", "object"};
static const char *const regexes[] = {"^a", "b$", "[ab]+", "^(a|b)*$", "\\\\bab\\\\b", ".", "(", "[[:alpha:]]{2,}", "^[^a]*$", "a*?b"};
static const char *const formats[] = {"date", "time", "date-time", "uuid", "email", "uri", "ipv4", "ipv6", "local-time", "other"};
static const char *const sql_types[] = {"int", "text", "numeric(10,2)", "boolean", "jsonb", "text[]", "real[]", "varchar(2)", "date", "\"int, how many\"", "uuid", "nosuch", "bytea"};

#define PICK(random, list) ((list)[fuzz_below((random), lengthof(list))])

static void
put_value(StringInfo buf, pg_prng_state *random, int depth)
{
	int			kind = fuzz_below(random, depth > 4 ? 5 : 8);
	int			n = fuzz_below(random, 4);

	if (kind == 0)
		appendStringInfoString(buf, "null");
	else if (kind == 1)
		appendStringInfoString(buf, fuzz_below(random, 2) ? "true" : "false");
	else if (kind <= 3)
		appendStringInfoString(buf, PICK(random, numbers));
	else if (kind == 4)
		appendStringInfo(buf, "\"%s\"", PICK(random, texts));
	else if (kind == 5)
	{
		appendStringInfoChar(buf, '[');
		for (int i = 0; i < n; i++)
		{
			appendStringInfoString(buf, i > 0 ? ", " : "");
			put_value(buf, random, depth + 1);
		}
		appendStringInfoChar(buf, ']');
	}
	else
	{
		appendStringInfoChar(buf, '{');
		for (int i = 0; i < n; i++)
		{
			appendStringInfo(buf, "%s\"%s\": ", i > 0 ? ", " : "", names[(i * 2 + kind) % lengthof(names)]);
			put_value(buf, random, depth + 1);
		}
		appendStringInfoChar(buf, '}');
	}
}

static void put_schema(StringInfo buf, pg_prng_state *random, int depth);

static void
put_schemas(StringInfo buf, pg_prng_state *random, int depth)
{
	int			n = 1 + fuzz_below(random, 3);

	appendStringInfoChar(buf, '[');
	for (int i = 0; i < n; i++)
	{
		appendStringInfoString(buf, i > 0 ? ", " : "");
		put_schema(buf, random, depth + 1);
	}
	appendStringInfoChar(buf, ']');
}

static void
put_schema_map(StringInfo buf, pg_prng_state *random, int depth, bool patterns)
{
	int			n = fuzz_below(random, 4);
	int			first = fuzz_below(random, 5);

	appendStringInfoChar(buf, '{');
	for (int i = 0; i < n; i++)
	{
		appendStringInfo(buf, "%s\"%s\": ", i > 0 ? ", " : "",
						 patterns ? regexes[(first + i) % lengthof(regexes)] : names[(first + i) % lengthof(names)]);
		put_schema(buf, random, depth + 1);
	}
	appendStringInfoChar(buf, '}');
}

static void
put_name_list(StringInfo buf, pg_prng_state *random)
{
	int			first = fuzz_below(random, lengthof(names));
	int			n = fuzz_below(random, 3);

	appendStringInfoChar(buf, '[');
	for (int i = 0; i < n; i++)
		appendStringInfo(buf, "%s\"%s\"", i > 0 ? ", " : "", names[(first + i) % lengthof(names)]);
	appendStringInfoChar(buf, ']');
}

/* One keyword of a schema; group decides which, so that none is there twice. */
static void
put_keyword(StringInfo buf, pg_prng_state *random, int depth, int group)
{
	static const char *const bounds[] = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"};
	static const char *const counts[] = {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains"};
	static const char *const one[] = {"items", "contains", "additionalProperties", "propertyNames", "not", "if"};
	static const char *const many[] = {"anyOf", "allOf", "oneOf", "prefixItems"};

	switch (group)
	{
		case 0:
			appendStringInfo(buf, "\"type\": \"%s\"", PICK(random, types));
			break;
		case 1:
			appendStringInfo(buf, "\"%s\": %s", PICK(random, bounds), PICK(random, numbers));
			break;
		case 2:
			appendStringInfo(buf, "\"%s\": %d", PICK(random, counts), fuzz_below(random, 4));
			break;
		case 3:
			appendStringInfo(buf, "\"%s\": ", PICK(random, one));
			put_schema(buf, random, depth + 1);
			break;
		case 4:
			appendStringInfo(buf, "\"%s\": ", PICK(random, many));
			put_schemas(buf, random, depth);
			break;
		case 5:
			appendStringInfoString(buf, "\"properties\": ");
			put_schema_map(buf, random, depth, false);
			break;
		case 6:
			appendStringInfoString(buf, "\"patternProperties\": ");
			put_schema_map(buf, random, depth, true);
			break;
		case 7:
			appendStringInfoString(buf, "\"required\": ");
			put_name_list(buf, random);
			break;
		case 8:
			appendStringInfo(buf, "\"pattern\": \"%s\"", PICK(random, regexes));
			break;
		case 9:
			appendStringInfo(buf, "\"format\": \"%s\"", PICK(random, formats));
			break;
		case 10:
			appendStringInfoString(buf, "\"const\": ");
			put_value(buf, random, 3);
			break;
		case 11:
			appendStringInfoString(buf, "\"enum\": [1, \"a\", ");
			put_value(buf, random, 3);
			appendStringInfoChar(buf, ']');
			break;
		case 12:
			appendStringInfoString(buf, "\"uniqueItems\": true");
			break;
		case 13:
			appendStringInfoString(buf, "\"dependentRequired\": {\"a\": ");
			put_name_list(buf, random);
			appendStringInfoChar(buf, '}');
			break;
		case 14:
			appendStringInfo(buf, "\"then\": {\"type\": \"%s\"}", PICK(random, types));
			break;
		default:
			/* what is to be refused */
			appendStringInfo(buf, "\"%s\": 1", fuzz_below(random, 40) == 0 ? "nullable" : "title");
			break;
	}
}

static void
put_schema(StringInfo buf, pg_prng_state *random, int depth)
{
	int			group = fuzz_below(random, 5);
	bool		first = true;

	if (depth > 3 || fuzz_below(random, 12) == 0)
	{
		appendStringInfoString(buf, fuzz_below(random, 5) == 0 ? "false" : "true");
		return;
	}
	appendStringInfoChar(buf, '{');
	for (; group < 17; group += 1 + fuzz_below(random, 9))
	{
		appendStringInfoString(buf, first ? "" : ", ");
		put_keyword(buf, random, depth, group);
		first = false;
	}
	appendStringInfoChar(buf, '}');
}

static void
put_shape(StringInfo buf, pg_prng_state *random, int depth)
{
	int			kind = fuzz_below(random, depth > 3 ? 4 : 8);
	int			n = 1 + fuzz_below(random, 3);
	int			first = fuzz_below(random, 4);

	if (kind < 4)
	{
		const char *type = sql_types[fuzz_below(random, fuzz_below(random, 20) == 0 ? lengthof(sql_types) : lengthof(sql_types) - 2)];

		appendStringInfo(buf, type[0] == '"' ? "%s" : "\"%s\"", type);
	}
	else if (kind == 4)
		appendStringInfoString(buf, fuzz_below(random, 2) ? "[a, ab]" : "[1, 2.5, a]");
	else
	{
		appendStringInfoString(buf, kind == 5 ? "[{" : "{");
		for (int i = 0; i < n; i++)
		{
			appendStringInfo(buf, "%s\"%s%s\": ", i > 0 ? ", " : "", names[first + i], fuzz_below(random, 2) ? "?" : "");
			put_shape(buf, random, depth + 1);
		}
		appendStringInfoString(buf, kind == 5 ? "}]" : "}");
	}
}

/* An answer that a shape's wire schema nearly describes. */
static void
put_answer(StringInfo buf, pg_prng_state *random, const Schema *schema, int depth)
{
	unsigned int type;

	if (fuzz_below(random, 12) == 0 || schema->types == 0 || depth > 8)
	{
		put_value(buf, random, 3);
		return;
	}
	if (schema->one_of_values.count > 0)
	{
		json_append(buf, JsonbValueToJsonb(&schema->one_of_values.items[fuzz_below(random, schema->one_of_values.count)]));
		return;
	}
	do
		type = schema->types & (1u << fuzz_below(random, 7));
	while (type == 0);
	if (type == SCHEMA_OBJECT)
	{
		bool		first = true;

		appendStringInfoChar(buf, '{');
		for (int i = 0; i < schema->nproperties; i++)
		{
			if (schema->properties[i].schema == NULL || fuzz_below(random, 5) == 0)
				continue;
			appendStringInfo(buf, "%s\"%s\": ", first ? "" : ", ", schema->properties[i].name);
			put_answer(buf, random, schema->properties[i].schema, depth + 1);
			first = false;
		}
		appendStringInfoChar(buf, '}');
	}
	else if (type == SCHEMA_ARRAY && schema->items != NULL)
	{
		int			n = fuzz_below(random, 3);

		appendStringInfoChar(buf, '[');
		for (int i = 0; i < n; i++)
		{
			appendStringInfoString(buf, i > 0 ? ", " : "");
			put_answer(buf, random, schema->items, depth + 1);
		}
		appendStringInfoChar(buf, ']');
	}
	else if (type == SCHEMA_STRING)
		appendStringInfo(buf, "\"%s\"", PICK(random, texts));
	else if (type == SCHEMA_INTEGER || type == SCHEMA_NUMBER)
		appendStringInfoString(buf, PICK(random, numbers));
	else
		appendStringInfoString(buf, type == SCHEMA_NULL ? "null" : "true");
}

static bool
fits(const char *format, const char *schema, const Jsonb *value)
{
	SchemaVerdict verdict;
	bool		fit = schema_check(schema_compile(json_parse(psprintf(format, schema, schema)), NULL),
								   value, NULL, &verdict);

	if (fit == (verdict.why != NULL))
		elog(ERROR, "a check gave a value and a reason, or neither");
	return fit;
}

static void
try_schema(void *arg)
{
	Input	   *input = arg;
	Shape	   *shape = shape_from_schema(yaml_parse(input->schema));
	Jsonb	   *answer = json_parse(input->answer);
	char	   *why;
	bool		fit = fits("%s", input->schema, answer);

	if ((shape_check(shape, answer, &why) != NULL) != (why == NULL))
		elog(ERROR, "shape_check gave a value and a reason, or neither");
	input->fit += fit;
	if (fits("{\"not\": %s}", input->schema, answer) == fit)
		elog(ERROR, "not disagrees");
	if (fits("{\"anyOf\": [%s, false]}", input->schema, answer) != fit)
		elog(ERROR, "anyOf disagrees");
	if (fits("{\"allOf\": [%s, %s]}", input->schema, answer) != fit)
		elog(ERROR, "allOf disagrees");
	if (fits("{\"oneOf\": [false, %s]}", input->schema, answer) != fit)
		elog(ERROR, "oneOf disagrees");
	if (fits("{\"$ref\": \"#/$defs/s\", \"$defs\": {\"s\": %s}}", input->schema, answer) != fit)
		elog(ERROR, "$ref disagrees");
	if (fits("{\"if\": %s, \"else\": false}", input->schema, answer) != fit)
		elog(ERROR, "if disagrees");
}

static void
try_returns(void *arg)
{
	Input	   *input = arg;
	Shape	   *shape = shape_from_returns(yaml_parse(input->returns));
	Schema	   *wire = schema_compile(shape->answer.wire, NULL);
	StringInfoData answer;
	Jsonb	   *value;
	Jsonb	   *again;
	char	   *why;
	SchemaVerdict verdict;

	if (!shape->answer.strict && strstr(input->returns, "jsonb") == NULL)
		elog(ERROR, "a shape that strict modes would refuse");
	initStringInfo(&answer);
	put_answer(&answer, input->random, shape->wrapped && fuzz_below(input->random, 2) ? shape->compiled : wire, 0);
	value = shape_check(shape, json_parse(answer.data), &why);
	if ((value != NULL) != (why == NULL))
		elog(ERROR, "shape_check gave a value and a reason, or neither");
	if (value == NULL)
		return;
	input->fit++;

	if (shape->wrapped)
	{
		JsonbParseState *state = NULL;

		pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		json_push_key(&state, "value");
		json_push(&state, WJB_VALUE, value);
		again = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	}
	else
		again = value;
	if (!schema_check(wire, again, NULL, &verdict))
		elog(ERROR, "%s fits %s but not what was sent: %s", answer.data, input->returns, verdict.why);
	again = shape_check(shape, again, &why);
	if (again == NULL)
		elog(ERROR, "%s fits %s once: %s", answer.data, input->returns, why);
	if (compareJsonbContainers(&again->root, &value->root) != 0)
		elog(ERROR, "%s is filled twice by %s", answer.data, input->returns);
}

/*
 * Makes n schemas, n shapes and answers for each from a seed.
 */
Datum
chaincall_test_fuzz_shape(PG_FUNCTION_ARGS)
{
	int			n = PG_GETARG_INT32(1);
	pg_prng_state random;
	FuzzRun		run = {0};
	Input		input = {&random};

	pg_prng_seed(&random, PG_GETARG_INT32(0));
	fuzz_begin(&run);
	for (int i = 0; i < n; i++)
	{
		StringInfoData schema;
		StringInfoData returns;
		StringInfoData answer;

		initStringInfo(&schema);
		put_schema(&schema, &random, 0);
		initStringInfo(&returns);
		put_shape(&returns, &random, 0);
		initStringInfo(&answer);
		put_value(&answer, &random, 0);
		input.schema = schema.data;
		input.returns = returns.data;
		input.answer = answer.data;

		fuzz_try(&run, try_schema, &input, psprintf("%s, answer %s", schema.data, answer.data), "line ");
		fuzz_try(&run, try_returns, &input, returns.data, "line ");
		pfree(schema.data);
		pfree(returns.data);
		pfree(answer.data);
	}
	fuzz_end(&run);
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%d shapes: %d made, %d refused; %d answers fit", 2 * n, run.good, run.refused, input.fit)));
}
