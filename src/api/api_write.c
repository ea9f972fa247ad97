/*
 * api_write.c
 *	  Writing requests: JSON straight into the body's buffer.
 *
 * The request of a call is written once and thrown away, so nothing of it is
 * built as jsonb.  Only where a step says `extra` is the body read back and
 * merged.
 */
#include "postgres.h"

#include "api/api_wire.h"
#include "base/json.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

/* Whether value is the string text. */
bool
value_is(const JsonbValue *value, const char *text)
{
	return value->type == jbvString &&
		value->val.string.len == (int) strlen(text) &&
		memcmp(value->val.string.val, text, value->val.string.len) == 0;
}

static void
put_escape(StringInfo buf, unsigned char c)
{
	switch (c)
	{
		case '"':
			appendBinaryStringInfo(buf, "\\\"", 2);
			break;
		case '\\':
			appendBinaryStringInfo(buf, "\\\\", 2);
			break;
		case '\n':
			appendBinaryStringInfo(buf, "\\n", 2);
			break;
		case '\r':
			appendBinaryStringInfo(buf, "\\r", 2);
			break;
		case '\t':
			appendBinaryStringInfo(buf, "\\t", 2);
			break;
		default:
			appendStringInfo(buf, "\\u%04x", c);
	}
}

/* Appends the inside of a JSON string: text of len bytes, escaped. */
static void
put_escaped(StringInfo buf, const char *text, int len)
{
	int			from = 0;

	enlargeStringInfo(buf, len + 2);
	for (int i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) text[i];

		if (c >= ' ' && c != '"' && c != '\\')
			continue;
		appendBinaryStringInfo(buf, text + from, i - from);
		put_escape(buf, c);
		from = i + 1;
	}
	appendBinaryStringInfo(buf, text + from, len - from);
}

/* Appends text of len bytes as a JSON string. */
void
api_put_string(StringInfo buf, const char *text, int len)
{
	appendStringInfoCharMacro(buf, '"');
	put_escaped(buf, text, len);
	appendStringInfoCharMacro(buf, '"');
}

/* Appends any value as JSON. */
void
api_put_value(StringInfo buf, const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			api_put_string(buf, value->val.string.val, value->val.string.len);
			break;
		case jbvNumeric:
			appendStringInfoString(buf,
								   DatumGetCString(DirectFunctionCall1(numeric_out,
																	   NumericGetDatum(value->val.numeric))));
			break;
		case jbvBool:
			appendStringInfoString(buf, value->val.boolean ? "true" : "false");
			break;
		case jbvBinary:
			(void) JsonbToCString(buf, value->val.binary.data,
								  value->val.binary.len);
			break;
		default:
			appendStringInfoString(buf, "null");
	}
}

/* Appends a further field of an object, unless value is null: then not sent. */
void
api_put_param(StringInfo buf, const char *name, const JsonbValue *value)
{
	if (value->type == jbvNull)
		return;
	appendStringInfo(buf, ",\"%s\":", name);
	api_put_value(buf, value);
}

static void
bad_message(int i, const char *fault)
{
	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_INPUT),
			 errmsg("message %d %s", i + 1, fault),
			 errhint("A message is {role, content}: role is user, assistant or tool, content a text or a list of {text}.")));
}

/* How many messages there are; raises where they are no array. */
int
api_message_count(const ApiRequest *request)
{
	if (request->messages == NULL || !JB_ROOT_IS_ARRAY(request->messages) ||
		JB_ROOT_IS_SCALAR(request->messages))
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("messages are not an array")));
	return json_count(request->messages);
}

/*
 * The i-th message's role (a string) and content (a string, or binary: an
 * array).  What was spliced in came from data, so it is checked here.
 */
void
api_message(const ApiRequest *request, int i, JsonbValue *role,
			JsonbValue *content, JsonbContainer **message)
{
	JsonbValue *v = getIthJsonbValueFromContainer(&request->messages->root, i);

	if (v == NULL || v->type != jbvBinary ||
		!JsonContainerIsObject(v->val.binary.data))
		bad_message(i, "is no object");
	*message = v->val.binary.data;
	if (getKeyJsonValueFromContainer(*message, "role", 4, role) == NULL ||
		!(value_is(role, "user") || value_is(role, "assistant") ||
		  value_is(role, "tool")))
		bad_message(i, "has no role that is known");
	if (getKeyJsonValueFromContainer(*message, "content", 7, content) == NULL ||
		!(content->type == jbvString ||
		  (content->type == jbvBinary &&
		   JsonContainerIsArray(content->val.binary.data))))
		bad_message(i, "has no content");
}

/* The text of the i-th part of a content that is a list. */
static void
content_part(const JsonbValue *content, int i, JsonbValue *text)
{
	JsonbValue *part = getIthJsonbValueFromContainer(content->val.binary.data,
													 i);

	if (part->type == jbvString)
		*text = *part;
	else if (part->type != jbvBinary ||
			 !JsonContainerIsObject(part->val.binary.data) ||
			 getKeyJsonValueFromContainer(part->val.binary.data, "text", 4,
										  text) == NULL ||
			 text->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("a part of a message's content is no text"),
				 errhint("Parts are {text}; pictures, files and sound are not yet supported.")));
}

/*
 * Appends a content as one JSON string, parts with an empty line between:
 * what every service takes, lists of parts being for some only.
 */
void
api_put_content(StringInfo buf, const JsonbValue *content)
{
	JsonbValue	text;
	int			n;

	if (content->type == jbvString)
	{
		api_put_value(buf, content);
		return;
	}
	n = JsonContainerSize(content->val.binary.data);
	appendStringInfoCharMacro(buf, '"');
	for (int i = 0; i < n; i++)
	{
		content_part(content, i, &text);
		if (i > 0)
			appendStringInfoString(buf, "\\n\\n");
		put_escaped(buf, text.val.string.val, text.val.string.len);
	}
	appendStringInfoCharMacro(buf, '"');
}

static void
put_block(StringInfo buf, const JsonbValue *text)
{
	appendStringInfoString(buf, "{\"type\":\"text\",\"text\":");
	api_put_value(buf, text);
	appendStringInfoCharMacro(buf, '}');
}

/* Appends a content as text blocks, separated by commas, without brackets. */
void
api_put_content_blocks(StringInfo buf, const JsonbValue *content)
{
	JsonbValue	text;
	int			n;

	if (content->type == jbvString)
	{
		put_block(buf, content);
		return;
	}
	n = JsonContainerSize(content->val.binary.data);
	for (int i = 0; i < n; i++)
	{
		content_part(content, i, &text);
		if (i > 0)
			appendStringInfoCharMacro(buf, ',');
		put_block(buf, &text);
	}
}

/* Raises unless the body of a `request` is an object that does not stream. */
void
api_require_object(const ApiRequest *request)
{
	JsonbValue	v;

	if (request->body == NULL || !JB_ROOT_IS_OBJECT(request->body))
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("a request is no JSON object"),
				 errhint("Give the body that the provider's api takes: {\"messages\": [...]}.")));
	if (json_get(request->body, "stream", &v) && v.type == jbvBool &&
		v.val.boolean)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a request with \"stream\" is not yet supported")));
}

/* Appends the body of a `request`, the model filled in where it has none. */
void
api_put_request(StringInfo buf, const Route *route, const ApiRequest *request)
{
	JsonbValue	v;
	int			at = buf->len;

	api_require_object(request);
	json_append(buf, request->body);
	if (!json_get(request->body, "model", &v))
	{
		StringInfoData model;

		initStringInfo(&model);
		appendStringInfoString(&model, "{\"model\":");
		api_put_string(&model, route->remote_name, strlen(route->remote_name));
		if (json_count(request->body) > 0)
			appendStringInfoCharMacro(&model, ',');
		appendStringInfoString(&model, buf->data + at + 1);
		buf->len = at;
		appendBinaryStringInfo(buf, model.data, model.len);
	}
}

/* Whether over takes base's place instead of being merged into it. */
static bool
replaces(const JsonbValue *base, const JsonbValue *over)
{
	JsonbValue	was;
	JsonbValue	is;

	if (base->type != jbvBinary || over->type != jbvBinary ||
		!JsonContainerIsObject(base->val.binary.data) ||
		!JsonContainerIsObject(over->val.binary.data))
		return true;
	/* {type: json_object} over {type: json_schema, ...} means just itself */
	return getKeyJsonValueFromContainer(base->val.binary.data, "type", 4,
										&was) != NULL &&
		getKeyJsonValueFromContainer(over->val.binary.data, "type", 4,
									 &is) != NULL &&
		(was.type != jbvString || is.type != jbvString ||
		 was.val.string.len != is.val.string.len ||
		 memcmp(was.val.string.val, is.val.string.val,
				was.val.string.len) != 0);
}

/* base with extra's members; objects merge one level, null takes away. */
static Jsonb *
merge_extra(Jsonb *base, const Jsonb *extra)
{
	JsonbParseState *state = NULL;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;
	JsonbValue	was;
	List	   *removed = NIL;
	ListCell   *lc;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	it = JsonbIteratorInit(unconstify(JsonbContainer *, &extra->root));
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		char	   *key;

		if (token != WJB_KEY)
			continue;
		key = pnstrdup(v.val.string.val, v.val.string.len);
		(void) JsonbIteratorNext(&it, &v, true);
		if (v.type == jbvNull)
		{
			removed = lappend(removed, key);
			continue;
		}
		json_push_key(&state, key);
		if (json_get(base, key, &was) && !replaces(&was, &v))
			json_push(&state, WJB_VALUE,
					  json_merge(JsonbValueToJsonb(&was), JsonbValueToJsonb(&v)));
		else
			(void) pushJsonbValue(&state, WJB_VALUE, &v);
	}
	base = json_merge(base,
					  JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT,
													   NULL)));
	foreach(lc, removed)
		base = DatumGetJsonbP(DirectFunctionCall2(jsonb_delete,
												  JsonbPGetDatum(base),
												  CStringGetTextDatum(lfirst(lc))));
	return base;
}

/*
 * Completes a request: the step's extra fields over the body, and UTF-8
 * whatever the database's encoding is.
 */
void
api_finish(ApiWire *wire, const ApiRequest *request)
{
	char	   *utf8;

	if (request->extra != NULL && json_count(request->extra) > 0)
	{
		Jsonb	   *body = json_parse(wire->body.data);

		if (!JB_ROOT_IS_OBJECT(request->extra))
			ereport(ERROR,
					(errcode(ERRCODE_CHAIN_INPUT),
					 errmsg("the extra of an api must be an object, not of type %s",
							json_type_name(request->extra))));
		if (!JB_ROOT_IS_OBJECT(body))
			ereport(ERROR,
					(errcode(ERRCODE_CHAIN_INPUT),
					 errmsg("extra fields cannot be merged into a request of type %s",
							json_type_name(body))));
		resetStringInfo(&wire->body);
		json_append(&wire->body, merge_extra(body, request->extra));
	}
	utf8 = pg_server_to_any(wire->body.data, wire->body.len, PG_UTF8);
	if (utf8 != wire->body.data)
	{
		resetStringInfo(&wire->body);
		appendStringInfoString(&wire->body, utf8);
	}
}
