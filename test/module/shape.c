/*
 * shape.c
 *	  Shapes by what they are made of, and answers checked against them.
 */
#include "postgres.h"

#include "base/json.h"
#include "chain/shape.h"
#include "fmgr.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(chaincall_test_shape);
PG_FUNCTION_INFO_V1(chaincall_test_shape_of_type);
PG_FUNCTION_INFO_V1(chaincall_test_shape_check);

static Shape *
make(const char *key, const char *yaml)
{
	YamlNode   *node = yaml_parse(yaml);

	return strcmp(key, "returns") == 0 ? shape_from_returns(node) : shape_from_schema(node);
}

static Datum
described(const Shape *shape)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	json_push_key(&state, "schema");
	json_push(&state, WJB_VALUE, shape->schema);
	json_push_key(&state, "wire");
	json_push(&state, WJB_VALUE, shape->answer.wire);
	json_push_key(&state, "wrapped");
	json_push(&state, WJB_VALUE, json_bool(shape->wrapped));
	json_push_key(&state, "strict");
	json_push(&state, WJB_VALUE, json_bool(shape->answer.strict));
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

/* key ("returns" or "schema"), its value as YAML */
Datum
chaincall_test_shape(PG_FUNCTION_ARGS)
{
	return described(make(text_to_cstring(PG_GETARG_TEXT_PP(0)),
						  text_to_cstring(PG_GETARG_TEXT_PP(1))));
}

Datum
chaincall_test_shape_of_type(PG_FUNCTION_ARGS)
{
	return described(shape_from_type(PG_GETARG_OID(0), PG_GETARG_INT32(1)));
}

/* The value that came of an answer, or why it does not fit. */
Datum
chaincall_test_shape_check(PG_FUNCTION_ARGS)
{
	Shape	   *shape = make(text_to_cstring(PG_GETARG_TEXT_PP(0)),
							 text_to_cstring(PG_GETARG_TEXT_PP(1)));
	char	   *why = NULL;
	Jsonb	   *value = shape_check(shape, PG_GETARG_JSONB_P(2), &why);
	StringInfoData buf;

	if ((value == NULL) != (why != NULL))
		elog(ERROR, "shape_check gave a value and a reason, or neither");
	initStringInfo(&buf);
	if (value != NULL)
		json_append(&buf, value);
	else
		appendStringInfo(&buf, "NO: %s", why);
	PG_RETURN_TEXT_P(cstring_to_text(buf.data));
}
