/*
 * api_http.c
 *	  Any JSON service: path, headers, body and the place of the answer are
 *	  options of its server.
 *
 * The body's template knows no expressions, just names: input, model,
 * params.NAME, and for a call by prompt or messages system, prompt (the last
 * user's text) and messages.  A string that is nothing but {{name}} becomes
 * that JSON; inside a longer string it becomes text.  A member whose whole
 * value is not given ({{params.top_p}}, {{system}}) is left out.  What is put
 * in is never looked at again.  The key goes into headers only.
 */
#include "postgres.h"

#include "api/api_wire.h"
#include "base/json.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#define KEY_MARK "{{api_key}}"

/* Where a {{name}} in text of len bytes is; false: there is no further one. */
typedef struct Mark
{
	int			start;			/* of {{ */
	int			end;			/* behind }} */
	const char *name;
	int			name_len;
} Mark;

static const char *
find_in(const char *text, int len, const char *what)
{
	for (int i = 0; i + 1 < len; i++)
	{
		if (text[i] == what[0] && text[i + 1] == what[1])
			return text + i;
	}
	return NULL;
}

static bool
next_mark(const char *text, int len, int from, Mark *mark, bool *open)
{
	const char *start = find_in(text + from, len - from, "{{");
	const char *close;

	*open = false;
	if (start == NULL)
		return false;
	close = find_in(start + 2, len - (int) (start + 2 - text), "}}");
	if (close == NULL)
	{
		*open = true;
		return false;
	}
	mark->start = (int) (start - text);
	mark->end = (int) (close + 2 - text);
	mark->name = start + 2;
	mark->name_len = (int) (close - mark->name);
	while (mark->name_len > 0 && *mark->name == ' ')
		mark->name++, mark->name_len--;
	while (mark->name_len > 0 && mark->name[mark->name_len - 1] == ' ')
		mark->name_len--;
	return true;
}

static bool
name_is(const Mark *mark, const char *name)
{
	return mark->name_len == (int) strlen(name) &&
		strncmp(mark->name, name, mark->name_len) == 0;
}

/* The parameter that {{params.NAME}} means, palloc'd; NULL: it is none. */
static char *
param_name(const Mark *mark)
{
	if (mark->name_len <= 7 || strncmp(mark->name, "params.", 7) != 0)
		return NULL;
	return pnstrdup(mark->name + 7, mark->name_len - 7);
}

static const char *
mark_fault(const char *text, int len)
{
	Mark		mark;
	bool		open;
	int			from = 0;

	while (next_mark(text, len, from, &mark, &open))
	{
		char	   *param = param_name(&mark);

		if (name_is(&mark, "api_key"))
			return "the key goes into headers, not into the request";
		if (param != NULL && !api_param_known(param))
			return psprintf("there is no parameter \"%s\"", param);
		if (param == NULL && !name_is(&mark, "input") &&
			!name_is(&mark, "model") && !name_is(&mark, "system") &&
			!name_is(&mark, "prompt") && !name_is(&mark, "messages"))
			return psprintf("there is no name \"%.*s\"", mark.name_len,
							mark.name);
		from = mark.end;
	}
	return open ? "a {{ is not closed" : NULL;
}

/* NULL when the template of a body is sound, else what is wrong with it. */
const char *
api_request_fault(const Jsonb *request)
{
	JsonbIterator *it = JsonbIteratorInit(unconstify(JsonbContainer *,
													 &request->root));
	JsonbIteratorToken token;
	JsonbValue	v;

	while ((token = JsonbIteratorNext(&it, &v, false)) != WJB_DONE)
	{
		const char *fault;

		if ((token == WJB_ELEM || token == WJB_VALUE) && v.type == jbvString &&
			(fault = mark_fault(v.val.string.val, v.val.string.len)) != NULL)
			return fault;
	}
	return NULL;
}

static bool
header_name_valid(const JsonbValue *name)
{
	/* RFC 9110, 5.6.2: token */
	static const char *const others = "!#$%&'*+-.^_`|~";

	for (int i = 0; i < name->val.string.len; i++)
	{
		unsigned char c = (unsigned char) name->val.string.val[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			  (c >= '0' && c <= '9') || (c != '\0' && strchr(others, c))))
			return false;
	}
	return name->val.string.len > 0;
}

static bool
header_reserved(const JsonbValue *name)
{
	static const char *const reserved[] = {
		"Host", "Content-Length", "Transfer-Encoding", "Connection",
		"Idempotency-Key", "traceparent"
	};

	for (int i = 0; i < (int) lengthof(reserved); i++)
	{
		if (name->val.string.len == (int) strlen(reserved[i]) &&
			pg_strncasecmp(name->val.string.val, reserved[i],
						   name->val.string.len) == 0)
			return true;
	}
	return false;
}

/*
 * Is it a header whose value is a secret?  That belongs into a user mapping:
 * the options of a server are readable to every user.
 */
static bool
header_secret(const JsonbValue *name)
{
	static const char *const secret[] = {
		"Authorization", "Proxy-Authorization", "X-Api-Key", "Api-Key",
		"X-Goog-Api-Key", "X-Auth-Token", "Cookie"
	};

	for (int i = 0; i < (int) lengthof(secret); i++)
	{
		if (name->val.string.len == (int) strlen(secret[i]) &&
			pg_strncasecmp(name->val.string.val, secret[i],
						   name->val.string.len) == 0)
			return true;
	}
	return false;
}

static const char *
header_value_fault(const JsonbValue *value, bool secret)
{
	Mark		mark;
	bool		open;
	int			from = 0;

	if (value->type != jbvString)
		return "a header's value is no text";
	for (int i = 0; i < value->val.string.len; i++)
	{
		unsigned char c = (unsigned char) value->val.string.val[i];

		if (c < ' ' || c == 0x7f)
			return "a header's value holds a control character";
	}
	while (next_mark(value->val.string.val, value->val.string.len, from, &mark,
					 &open))
	{
		if (!name_is(&mark, "api_key"))
			return "a header may hold {{api_key}} and no other name";
		from = mark.end;
	}
	if (secret && from == 0 && value->val.string.len > 0)
		return "a header that is a secret needs {{api_key}}: every user can read the options of servers";
	return open ? "a {{ is not closed" : NULL;
}

/* NULL when headers are an object of sound headers, else what is wrong. */
const char *
api_headers_fault(const Jsonb *headers)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;

	if (!JB_ROOT_IS_OBJECT(headers))
		return "it is no JSON object";
	it = JsonbIteratorInit(unconstify(JsonbContainer *, &headers->root));
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		const char *fault;
		bool		secret;

		if (token != WJB_KEY)
			continue;
		if (!header_name_valid(&v))
			return "a header's name holds a character that names do not have";
		if (header_reserved(&v))
			return psprintf("header \"%.*s\" is set by chaincall",
							v.val.string.len, v.val.string.val);
		secret = header_secret(&v);
		(void) JsonbIteratorNext(&it, &v, true);
		if ((fault = header_value_fault(&v, secret)) != NULL)
			return fault;
	}
	return NULL;
}

/* The last user's text, joined; NULL when there is none. */
static char *
last_prompt(const ApiRequest *request)
{
	for (int i = api_message_count(request) - 1; i >= 0; i--)
	{
		JsonbContainer *message;
		JsonbValue	role;
		JsonbValue	content;
		StringInfoData json;

		api_message(request, i, &role, &content, &message);
		if (!value_is(&role, "user"))
			continue;
		initStringInfo(&json);
		api_put_content(&json, &content);
		return json_string_dup(json_parse(json.data));
	}
	return NULL;
}

static void
not_this_way(const Route *route, const char *name, bool messages)
{
	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_INPUT),
			 errmsg("server \"%s\" is not called with %s",
					route->server.name,
					messages ? "a prompt or messages" : "input"),
			 name ? errdetail("The request of this server uses {{%s}}.", name)
			 : errdetail("This server has no request template, so only input can be its body."),
			 errhint("%s", messages
					 ? "Give the model input instead, or the server a request with {{prompt}} or {{messages}}."
					 : "Give the model a prompt or messages instead.")));
}

/* What a name stands for, as a Jsonb; NULL: not given. */
static Jsonb *
mark_value(const Mark *mark, const Route *route, const ApiRequest *request)
{
	char	   *param = param_name(mark);
	Jsonb	   *value;
	bool		messages = request->form == CALL_MESSAGES;

	if (param != NULL)
	{
		value = request->params ? json_field(request->params, param) : NULL;
		return value != NULL && json_is_null(value) ? NULL : value;
	}
	if (name_is(mark, "model"))
		return json_text(route->remote_name);
	if (name_is(mark, "input"))
	{
		if (messages)
			not_this_way(route, "input", true);
		return request->body;
	}
	if (!messages)
		not_this_way(route, pnstrdup(mark->name, mark->name_len), false);
	if (name_is(mark, "messages"))
		return request->messages;
	if (name_is(mark, "system"))
		return request->system ? json_text(request->system) : NULL;
	if (name_is(mark, "prompt"))
	{
		char	   *prompt = last_prompt(request);

		return prompt ? json_text(prompt) : NULL;
	}
	return NULL;
}

/* A string of the template with names inside of text. */
static void
put_mixed(StringInfo buf, const JsonbValue *string, const Route *route,
		  const ApiRequest *request)
{
	const char *text = string->val.string.val;
	int			len = string->val.string.len;
	StringInfoData out;
	Mark		mark;
	bool		open;
	int			from = 0;

	initStringInfo(&out);
	while (next_mark(text, len, from, &mark, &open))
	{
		Jsonb	   *value = mark_value(&mark, route, request);
		JsonbValue	v;

		if (value == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_CHAIN_INPUT),
					 errmsg("the request of server \"%s\" needs {{%.*s}}, which this call does not give",
							route->server.name, mark.name_len, mark.name)));
		appendBinaryStringInfo(&out, text + from, mark.start - from);
		if (json_scalar(value, &v) && v.type == jbvString)
			appendBinaryStringInfo(&out, v.val.string.val, v.val.string.len);
		else
			json_append(&out, value);
		from = mark.end;
	}
	appendBinaryStringInfo(&out, text + from, len - from);
	api_put_string(buf, out.data, out.len);
}

/* Appends a value of the template; false when its whole value is not given. */
static bool
put_template(StringInfo buf, const JsonbValue *value, const Route *route,
			 const ApiRequest *request)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;
	bool		object;
	bool		first = true;

	check_stack_depth();
	if (value->type == jbvString)
	{
		Mark		mark;
		bool		open;
		Jsonb	   *whole;

		if (!next_mark(value->val.string.val, value->val.string.len, 0, &mark,
					   &open) ||
			mark.start != 0 || mark.end != value->val.string.len)
			put_mixed(buf, value, route, request);
		else if ((whole = mark_value(&mark, route, request)) == NULL)
			return false;
		else
			json_append(buf, whole);
		return true;
	}
	if (value->type != jbvBinary)
	{
		api_put_value(buf, value);
		return true;
	}

	object = JsonContainerIsObject(value->val.binary.data);
	appendStringInfoChar(buf, object ? '{' : '[');
	it = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		int			undo = buf->len;

		if (token != WJB_KEY && token != WJB_ELEM)
			continue;
		if (!first)
			appendStringInfoChar(buf, ',');
		if (token == WJB_KEY)
		{
			api_put_value(buf, &v);
			appendStringInfoChar(buf, ':');
			(void) JsonbIteratorNext(&it, &v, true);
		}
		if (put_template(buf, &v, route, request))
			first = false;
		else if (object)
		{
			buf->len = undo;
			buf->data[undo] = '\0';
		}
		else
		{
			appendStringInfoString(buf, "null");
			first = false;
		}
	}
	appendStringInfoChar(buf, object ? '}' : ']');
	return true;
}

/* A header's value with the key in its place. */
static char *
render_header(const Route *route, const JsonbValue *name,
			  const JsonbValue *value)
{
	const char *text = value->val.string.val;
	int			len = value->val.string.len;
	StringInfoData buf;
	Mark		mark;
	bool		open;
	int			from = 0;

	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, name->val.string.val, name->val.string.len);
	appendStringInfoString(&buf, ": ");
	while (next_mark(text, len, from, &mark, &open))
	{
		if (route->api_key == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_CHAIN_DENIED),
					 errmsg("no key for server \"%s\"", route->server.name),
					 errdetail("Its header \"%.*s\" holds {{api_key}}, and there is no user mapping with a key.",
							   name->val.string.len, name->val.string.val),
					 errhint("CREATE USER MAPPING FOR ... SERVER %s OPTIONS (api_key '...')",
							 quote_identifier(route->server.name))));
		appendBinaryStringInfo(&buf, text + from, mark.start - from);
		appendStringInfoString(&buf, route->api_key);
		from = mark.end;
	}
	appendBinaryStringInfo(&buf, text + from, len - from);
	return buf.data;
}

static void
add_headers(ApiWire *wire, const Route *route)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	value;
	bool		typed = false;

	if (route->server.headers != NULL)
	{
		it = JsonbIteratorInit(&route->server.headers->root);
		while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
		{
			if (token != WJB_KEY)
				continue;
			(void) JsonbIteratorNext(&it, &value, true);
			if (name.val.string.len == 12 &&
				pg_strncasecmp(name.val.string.val, "Content-Type", 12) == 0)
				typed = true;
			wire->headers = lappend(wire->headers,
									render_header(route, &name, &value));
		}
	}
	else if (route->api_key != NULL)
		wire->headers = lappend(wire->headers,
								psprintf("Authorization: Bearer %s",
										 route->api_key));
	if (!typed)
		wire->headers = lappend(wire->headers,
								pstrdup("Content-Type: application/json"));
}

static void
put_default_body(StringInfo buf, const Route *route, const ApiRequest *request)
{
	if (request->form == CALL_MESSAGES)
		not_this_way(route, NULL, true);
	json_append(buf, request->body);
}

static void
http_encode(const Route *route, const ApiRequest *request, ApiWire *wire)
{
	if (request->params != NULL)
	{
		ApiParams	checked;

		api_params_read(request->params, &checked);
	}
	if (request->form == CALL_REQUEST)
	{
		api_require_object(request);
		json_append(&wire->body, request->body);
	}
	else if (route->server.request == NULL)
		put_default_body(&wire->body, route, request);
	else
	{
		JsonbValue	root = api_root(route->server.request);

		if (!put_template(&wire->body, &root, route, request))
			appendStringInfoString(&wire->body, "null");
	}
	appendStringInfoString(&wire->url, route->server.url);
	if (route->server.path != NULL)
		appendStringInfoString(&wire->url, route->server.path);
	add_headers(wire, route);
	api_finish(wire, request);
}

/*
 * The first thing that the path finds, NULL when it finds nothing.  Structural
 * faults are silent; the few errors that jsonpath raises all the same (a
 * comparison of times that needs a time zone) count as nothing found.
 */
static Jsonb *
find_answer(const Jsonb *json, JsonPath *path)
{
	MemoryContext context = CurrentMemoryContext;
	Jsonb	   *volatile found = NULL;

	PG_TRY();
	{
		Jsonb	   *vars = json_parse("{}");
		Datum		all;

		all = DirectFunctionCall4(jsonb_path_query_array, JsonbPGetDatum(json),
								  PointerGetDatum(path),
								  JsonbPGetDatum(vars), BoolGetDatum(true));
		found = json_element(DatumGetJsonbP(all), 0);
	}
	PG_CATCH();
	{
		int			code = geterrcode();

		if (ERRCODE_TO_CATEGORY(code) != ERRCODE_DATA_EXCEPTION &&
			ERRCODE_TO_CATEGORY(code) != ERRCODE_FEATURE_NOT_SUPPORTED)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
	return found;
}

/* An answer to embedding models: as many vectors as there were texts. */
static bool
embeddings_fit(const ApiRequest *request, const Jsonb *output)
{
	JsonbValue	input = api_root(request->body);
	JsonbValue	vectors = api_root(output);

	if (strcmp(request->kind, "embedding") != 0)
		return true;
	if (api_length(&input) < 0)
		return api_length(&vectors) > 0;
	return api_length(&vectors) == api_length(&input);
}

static void
http_decode(const Route *route, const ApiRequest *request, int status,
			const char *content_type, const char *body, size_t body_len,
			ApiAnswer *answer)
{
	Jsonb	   *json = api_read_body(route, status, content_type, body,
									 body_len, answer);
	JsonbValue	text;

	if (json == NULL)
		return;
	if (request->form == CALL_REQUEST)
	{
		answer->output = json;
		return;
	}
	if (route->server.answer != NULL)
		json = find_answer(json, route->server.answer);
	if (json == NULL)
		api_fail(answer, CLASS_INVALID,
				 "the answer has nothing where the server's option answer looks");
	else if (request->form == CALL_INPUT && !embeddings_fit(request, json))
		api_fail(answer, CLASS_INVALID,
				 "the answer does not hold one vector for each text");
	else if (request->form == CALL_INPUT ||
			 (request->schema != NULL && !JB_ROOT_IS_SCALAR(json)))
		answer->output = json;
	else if (json_scalar(json, &text) && text.type == jbvString)
		api_text_answer(route, request, text.val.string.val,
						text.val.string.len, answer);
	else
		api_fail(answer, CLASS_INVALID,
				 psprintf("the answer is of type %s, not a text",
						  json_type_name(json)));
}

const Api	api_http = {"http", http_encode, http_decode};
