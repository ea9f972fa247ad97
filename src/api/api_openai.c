/*
 * api_openai.c
 *	  OpenAI's wire format, which most services speak: chat completions,
 *	  embeddings, and rerank as Cohere, Jina and vLLM have it beside them.
 *
 * Two details differ between services and are known by the host: OpenAI's own
 * models take max_completion_tokens and refuse max_tokens, which everybody
 * else knows; and DeepSeek has no JSON Schema, only "some JSON object", so
 * there the schema is put into words.  Anything else goes into a step's extra.
 *
 * Reference: the "Chat" and "Embeddings" chapters of OpenAI's API reference;
 * DeepSeek's guide "JSON output"; Cohere's and Jina's rerank reference.
 */
#include "postgres.h"

#include "api/api_wire.h"
#include "base/json.h"

static bool
host_is(const Route *route, const char *host)
{
	const char *at = strstr(route->server.url, "://");
	size_t		len = strlen(host);
	size_t		have;

	if (at == NULL)
		return false;
	at += 3;
	have = strcspn(at, ":/");
	/* a leading dot: any host below */
	if (host[0] == '.')
		return have > len && pg_strncasecmp(at + have - len, host, len) == 0;
	return have == len && pg_strncasecmp(at, host, len) == 0;
}

static const char *
max_tokens_name(const Route *route)
{
	return host_is(route, "api.openai.com") ||
		host_is(route, ".openai.azure.com")
		? "max_completion_tokens" : "max_tokens";
}

static bool
is_chat(const ApiRequest *request)
{
	return strcmp(request->kind, "chat") == 0;
}

static bool
is_embedding(const ApiRequest *request)
{
	return strcmp(request->kind, "embedding") == 0;
}

static bool
is_rerank(const ApiRequest *request)
{
	return strcmp(request->kind, "rerank") == 0;
}

static void
wrong_form(const Route *route, const ApiRequest *request)
{
	const char *hint;

	if (is_chat(request))
		hint = "A chat model is given a prompt or messages.";
	else if (is_embedding(request))
		hint = "An embedding model is given input: a text or an array of texts.";
	else if (is_rerank(request))
		hint = "A rerank model is given input: {query, documents}.";
	else if (strcmp(request->kind, "json") == 0)
		hint = "A model of kind json needs a server with api http.";
	else
		hint = "Pictures and sound are not yet supported.";
	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_INPUT),
			 errmsg("model \"%s\" of kind %s is not called this way by api openai",
					route->model, request->kind),
			 errhint("%s", hint)));
}

static void
put_params(StringInfo buf, const Route *route, const ApiRequest *request)
{
	ApiParams	params;

	if (request->params == NULL)
		return;
	api_params_read(request->params, &params);
	api_put_param(buf, "temperature", &params.temperature);
	api_put_param(buf, "top_p", &params.top_p);
	/* a limit that extra gives under its other name is the only one */
	if (params.max_tokens > 0 &&
		!(request->extra != NULL &&
		  json_field(request->extra, "max_completion_tokens") != NULL))
		appendStringInfo(buf, ",\"%s\":%d", max_tokens_name(route),
						 params.max_tokens);
	api_put_param(buf, "stop", &params.stop);
	api_put_param(buf, "seed", &params.seed);
	if (params.reasoning != REASONING_UNSET)
		appendStringInfo(buf, ",\"reasoning_effort\":\"%s\"",
						 api_reasoning_name(params.reasoning));
}

/* Whether the schema goes into response_format, or can only be told. */
static bool
schema_in_format(const Route *route, const ApiRequest *request)
{
	JsonbValue	format;
	JsonbValue	root;

	if (host_is(route, "api.deepseek.com"))
		return false;
	if (request->extra == NULL)
		return true;
	root = api_root(request->extra);
	if (!api_get(&root, "response_format", &format))
		return true;
	return api_get_text(&format, "type", &root) &&
		value_is(&root, "json_schema");
}

static void
put_schema(StringInfo buf, const Route *route, const ApiRequest *request)
{
	if (request->schema == NULL)
		return;
	if (!schema_in_format(route, request))
	{
		appendStringInfoString(buf,
							   ",\"response_format\":{\"type\":\"json_object\"}");
		return;
	}
	appendStringInfo(buf, ",\"response_format\":{\"type\":\"json_schema\","
					 "\"json_schema\":{\"name\":\"answer\",\"strict\":%s,\"schema\":",
					 request->strict ? "true" : "false");
	json_append(buf, request->schema);
	appendStringInfoString(buf, "}}");
}

static void
put_system(StringInfo buf, const Route *route, const ApiRequest *request)
{
	StringInfoData text;

	if (request->schema == NULL || schema_in_format(route, request))
	{
		if (request->system == NULL)
			return;
		appendStringInfoString(buf, "{\"role\":\"system\",\"content\":");
		api_put_string(buf, request->system, strlen(request->system));
		appendStringInfoString(buf, "},");
		return;
	}
	initStringInfo(&text);
	if (request->system != NULL)
		appendStringInfo(&text, "%s\n\n", request->system);
	appendStringInfoString(&text,
						   "Answer with one JSON object, and nothing else, that fits this JSON Schema:\n");
	json_append(&text, request->schema);
	appendStringInfoString(buf, "{\"role\":\"system\",\"content\":");
	api_put_string(buf, text.data, text.len);
	appendStringInfoString(buf, "},");
}

static void
put_chat(StringInfo buf, const Route *route, const ApiRequest *request)
{
	int			n = api_message_count(request);

	appendStringInfoString(buf, "{\"model\":");
	api_put_string(buf, route->remote_name, strlen(route->remote_name));
	appendStringInfoString(buf, ",\"messages\":[");
	put_system(buf, route, request);
	for (int i = 0; i < n; i++)
	{
		JsonbContainer *message;
		JsonbValue	role;
		JsonbValue	content;
		JsonbValue	id;

		api_message(request, i, &role, &content, &message);
		appendStringInfoString(buf, "{\"role\":");
		api_put_value(buf, &role);
		appendStringInfoString(buf, ",\"content\":");
		api_put_content(buf, &content);
		if (getKeyJsonValueFromContainer(message, "tool_call_id", 12, &id) &&
			id.type == jbvString)
		{
			appendStringInfoString(buf, ",\"tool_call_id\":");
			api_put_value(buf, &id);
		}
		appendStringInfoString(buf, "},");
	}
	if (buf->data[buf->len - 1] == ',')
		buf->len--;
	appendStringInfoChar(buf, ']');
	put_params(buf, route, request);
	put_schema(buf, route, request);
	appendStringInfoChar(buf, '}');
}

static bool
all_texts(const JsonbValue *array)
{
	int			n = api_length(array);
	JsonbValue	v;

	for (int i = 0; i < n; i++)
	{
		if (!api_element(array, i, &v) || v.type != jbvString)
			return false;
	}
	return n > 0;
}

static void
bad_input(const char *fault, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_INPUT),
			 errmsg("%s", fault),
			 errhint("%s", hint)));
}

static void
put_embedding(StringInfo buf, const Route *route, const ApiRequest *request)
{
	JsonbValue	input = api_root(request->body);

	if (input.type != jbvString && !all_texts(&input))
		bad_input("the input of an embedding model is neither a text nor an array of texts",
				  "Give one text, or an array with at least one.");
	appendStringInfoString(buf, "{\"model\":");
	api_put_string(buf, route->remote_name, strlen(route->remote_name));
	appendStringInfoString(buf, ",\"input\":");
	api_put_value(buf, &input);
	appendStringInfoChar(buf, '}');
}

static void
put_rerank(StringInfo buf, const Route *route, const ApiRequest *request)
{
	JsonbValue	input = api_root(request->body);
	JsonbValue	query;
	JsonbValue	documents;

	if (!api_get_text(&input, "query", &query) ||
		!api_get(&input, "documents", &documents) || !all_texts(&documents))
		bad_input("the input of a rerank model is not {query, documents}",
				  "query is a text, documents an array with at least one text.");
	appendStringInfoString(buf, "{\"model\":");
	api_put_string(buf, route->remote_name, strlen(route->remote_name));
	appendStringInfoString(buf, ",\"query\":");
	api_put_value(buf, &query);
	appendStringInfoString(buf, ",\"documents\":");
	api_put_value(buf, &documents);
	appendStringInfoChar(buf, '}');
}

static const char *
path_of(const ApiRequest *request)
{
	static const struct
	{
		const char *kind;
		const char *path;
	}			paths[] =
	{
		{"chat", "/chat/completions"},
		{"embedding", "/embeddings"},
		{"rerank", "/rerank"},
		{"image", "/images/generations"},
		{"audio", "/audio/transcriptions"},
	};

	for (int i = 0; i < (int) lengthof(paths); i++)
	{
		if (strcmp(paths[i].kind, request->kind) == 0)
			return paths[i].path;
	}
	return NULL;
}

static void
openai_encode(const Route *route, const ApiRequest *request, ApiWire *wire)
{
	const char *path = path_of(request);

	if (path == NULL)
		wrong_form(route, request);
	if (request->form == CALL_REQUEST)
		api_put_request(&wire->body, route, request);
	else if (request->form == CALL_MESSAGES && is_chat(request))
		put_chat(&wire->body, route, request);
	else if (request->form == CALL_INPUT && is_embedding(request))
		put_embedding(&wire->body, route, request);
	else if (request->form == CALL_INPUT && is_rerank(request))
		put_rerank(&wire->body, route, request);
	else
		wrong_form(route, request);
	appendStringInfoString(&wire->url, route->server.url);
	appendStringInfoString(&wire->url, path);
	wire->headers = lappend(wire->headers,
							pstrdup("Content-Type: application/json"));
	if (route->api_key != NULL)
		wire->headers = lappend(wire->headers,
								psprintf("Authorization: Bearer %s",
										 route->api_key));
	api_finish(wire, request);
}

static void
read_usage(const JsonbValue *root, ApiAnswer *answer)
{
	JsonbValue	usage;

	if (!api_get(root, "usage", &usage))
		return;
	answer->tokens_in = api_get_int(&usage, "prompt_tokens");
	if (answer->tokens_in < 0)
		answer->tokens_in = api_get_int(&usage, "total_tokens");
	answer->tokens_out = api_get_int(&usage, "completion_tokens");
}

/* The text of a content that is a list of parts; thoughts are no text. */
static bool
join_parts(const JsonbValue *content, StringInfo text)
{
	int			n = api_length(content);
	bool		found = false;

	for (int i = 0; i < n; i++)
	{
		JsonbValue	part;
		JsonbValue	v;

		if (!api_element(content, i, &part) ||
			(api_get_text(&part, "type", &v) && !value_is(&v, "text") &&
			 !value_is(&v, "output_text")) ||
			!api_get_text(&part, "text", &v))
			continue;
		appendBinaryStringInfo(text, v.val.string.val, v.val.string.len);
		found = true;
	}
	return found;
}

static void
decode_message(const Route *route, const ApiRequest *request,
			   const JsonbValue *message, ApiAnswer *answer)
{
	JsonbValue	content;
	JsonbValue	v;
	StringInfoData text;

	if (api_get_text(message, "refusal", &v) && v.val.string.len > 0)
		api_refuse(route, answer, &v);
	else if (!api_get(message, "content", &content) || content.type == jbvNull)
		api_fail(answer, CLASS_INVALID,
				 api_get(message, "tool_calls", &v) && api_length(&v) > 0
				 ? "the model called a tool that it was not given"
				 : "the answer's message has no content");
	else if (content.type == jbvString)
		api_text_answer(route, request, content.val.string.val,
						content.val.string.len, answer);
	else
	{
		initStringInfo(&text);
		if (join_parts(&content, &text))
			api_text_answer(route, request, text.data, text.len, answer);
		else
			api_fail(answer, CLASS_INVALID,
					 "the content of the answer's message is no text");
	}
}

static void
decode_chat(const Route *route, const ApiRequest *request,
			const JsonbValue *root, ApiAnswer *answer)
{
	JsonbValue	choices;
	JsonbValue	choice;
	JsonbValue	message;
	JsonbValue	finish;

	read_usage(root, answer);
	if (!api_get(root, "choices", &choices) ||
		!api_element(&choices, 0, &choice))
	{
		api_fail(answer, CLASS_INVALID, "the answer has no choices");
		return;
	}
	if (api_get_text(&choice, "finish_reason", &finish))
	{
		if (value_is(&finish, "length") || value_is(&finish, "max_tokens"))
		{
			api_cut_off(request, answer);
			return;
		}
		if (value_is(&finish, "content_filter"))
		{
			api_refuse(route, answer, NULL);
			return;
		}
		if (value_is(&finish, "error"))
		{
			JsonbValue	error;
			JsonbValue	text;
			char	   *message = NULL;

			if (api_get(&choice, "error", &error) &&
				api_get_text(&error, "message", &text))
				message = api_clean(route, text.val.string.val,
									text.val.string.len);
			api_fail(answer, CLASS_TRANSIENT,
					 message != NULL && message[0] != '\0' ? message
					 : "the service ended the answer with an error");
			return;
		}
	}
	if (!api_get(&choice, "message", &message))
		api_fail(answer, CLASS_INVALID, "the answer's first choice has no message");
	else
		decode_message(route, request, &message, answer);
}

/* Whether value is a vector; its length is remembered and must not change. */
static bool
is_vector(const JsonbValue *value, int *length)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;
	int			n = api_length(value);

	if (n <= 0 || (*length > 0 && n != *length))
		return false;
	*length = n;
	it = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_ELEM && v.type != jbvNumeric)
			return false;
	}
	return true;
}

/*
 * Puts the elements of data, each with its index, into places; each place must
 * be taken once.  Without an index an element's place is where it stands.
 */
static bool
by_index(const JsonbValue *data, JsonbValue *places, int n)
{
	bool	   *taken = palloc0(n * sizeof(bool));

	if (api_length(data) != n)
		return false;
	for (int i = 0; i < n; i++)
	{
		JsonbValue	element;
		JsonbValue	v;
		int64		index = i;

		if (!api_element(data, i, &element))
			return false;
		if (api_get(&element, "index", &v))
			index = api_get_int(&element, "index");
		if (index < 0 || index >= n || taken[index])
			return false;
		taken[index] = true;
		places[index] = element;
	}
	return true;
}

static void
decode_embedding(const ApiRequest *request, const JsonbValue *root,
				 ApiAnswer *answer)
{
	JsonbValue	input = api_root(request->body);
	bool		many = api_length(&input) >= 0;
	int			n = many ? api_length(&input) : 1;
	JsonbValue	data;
	JsonbValue *places = palloc(n * sizeof(JsonbValue));
	JsonbParseState *state = NULL;
	int			length = 0;

	read_usage(root, answer);
	if (!api_get(root, "data", &data) || !by_index(&data, places, n))
	{
		api_fail(answer, CLASS_INVALID,
				 psprintf("the answer does not hold one vector for each of %d texts",
						  n));
		return;
	}
	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < n; i++)
	{
		JsonbValue	vector;

		if (!api_get(&places[i], "embedding", &vector) ||
			!is_vector(&vector, &length))
		{
			api_fail(answer, CLASS_INVALID,
					 psprintf("vector %d of the answer is no array of %s", i + 1,
							  length > 0 ? psprintf("%d numbers", length)
							  : "numbers"));
			return;
		}
		if (!many)
		{
			answer->output = JsonbValueToJsonb(&vector);
			return;
		}
		(void) pushJsonbValue(&state, WJB_ELEM, &vector);
	}
	answer->output = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY,
													  NULL));
}

static void
decode_rerank(const ApiRequest *request, const JsonbValue *root,
			  ApiAnswer *answer)
{
	JsonbValue	input = api_root(request->body);
	JsonbValue	documents;
	JsonbValue	results;
	JsonbValue *places;
	JsonbParseState *state = NULL;
	int			n = 0;

	read_usage(root, answer);
	if (api_get(&input, "documents", &documents))
		n = Max(api_length(&documents), 0);
	places = palloc(Max(n, 1) * sizeof(JsonbValue));
	if (!(api_get(root, "results", &results) ||
		  api_get(root, "data", &results)) ||
		!by_index(&results, places, n))
	{
		api_fail(answer, CLASS_INVALID,
				 psprintf("the answer does not hold one score for each of %d documents",
						  n));
		return;
	}
	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < n; i++)
	{
		JsonbValue	score;

		if (!(api_get(&places[i], "relevance_score", &score) ||
			  api_get(&places[i], "score", &score)) ||
			score.type != jbvNumeric)
		{
			api_fail(answer, CLASS_INVALID,
					 psprintf("the score of document %d is no number", i + 1));
			return;
		}
		(void) pushJsonbValue(&state, WJB_ELEM, &score);
	}
	answer->output = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY,
													  NULL));
}

static void
openai_decode(const Route *route, const ApiRequest *request, int status,
			  const char *content_type, const char *body, size_t body_len,
			  ApiAnswer *answer)
{
	Jsonb	   *json = api_read_body(route, status, content_type, body,
									 body_len, answer);
	JsonbValue	root;

	if (json == NULL)
		return;
	root = api_root(json);
	if (request->form == CALL_REQUEST)
	{
		read_usage(&root, answer);
		answer->output = json;
	}
	else if (request->form == CALL_MESSAGES)
		decode_chat(route, request, &root, answer);
	else if (is_rerank(request))
		decode_rerank(request, &root, answer);
	else
		decode_embedding(request, &root, answer);
}

const Api	api_openai = {"openai", openai_encode, openai_decode};
