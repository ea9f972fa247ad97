/*
 * api_anthropic.c
 *	  Anthropic's Messages API.
 *
 * A schema is asked for by a tool named "answer" that the model must call.
 * What a model takes has changed with its version, and a request that has too
 * much is refused, so the version is read from the name:
 *
 *	before 4.6	thinking has a budget, which must be below max_tokens
 *	from 4.6	thinking is adaptive, its depth said by output_config.effort
 *	from 4.7	temperature and top_p are refused
 *	from 5		thinking is on unless said otherwise
 *	after 5.0	and all of Fable and Mythos: no tool can be forced
 *
 * Whoever else speaks this format (the name holds no "claude") is taken to
 * speak it as it was before 4.6.  While a model thinks no tool can be forced
 * and nothing be sampled: then the tool is offered, the model told to use it,
 * and JSON written as text is taken too.  There is no seed; it is not sent.
 *
 * Reference: docs.anthropic.com, "Messages", "Thinking", "Effort", "Define
 * tools", and the migration guides of the versions named.
 */
#include "postgres.h"

#include "api/api_wire.h"
#include "base/json.h"

#define API_VERSION "2023-06-01"

/* Tokens of an answer where nobody says how many; the api demands a number. */
#define DEFAULT_MAX_TOKENS 4096

/* The least budget that the api takes. */
#define MIN_BUDGET 1024

#define TOOL "answer"

/* Tokens for thinking. */
static const int budgets[] = {
	[REASONING_UNSET] = 0,
	[REASONING_NONE] = 0,
	[REASONING_MINIMAL] = MIN_BUDGET,
	[REASONING_LOW] = 2048,
	[REASONING_MEDIUM] = 8192,
	[REASONING_HIGH] = 16384
};

typedef struct Abilities
{
	bool		adaptive;		/* effort instead of a budget */
	bool		samples;		/* takes temperature and top_p */
	bool		forces;			/* a tool can be forced */
	bool		thinks;			/* unless told not to */
} Abilities;

/* Version of a Claude model as 100 × major + minor; 0: the name has none. */
static int
version_in(const char *name)
{
	int			version = 0;

	for (const char *at = name; (at = strpbrk(at, "-_ ")) != NULL;)
	{
		size_t		digits;

		at++;
		digits = strspn(at, "0123456789");
		if (digits == 0)
			continue;
		if (digits > 2)			/* a date */
			break;
		version = atoi(at) * 100;
		at += digits;
		digits = strspn(at + (*at != '\0'), "0123456789");
		if ((*at == '-' || *at == '.') && digits > 0 && digits <= 2)
			version += atoi(at + 1);
		break;
	}
	return version;
}

static Abilities
abilities_of(const char *remote_name)
{
	Abilities	can = {.adaptive = false, .samples = true, .forces = true};
	const char *claude = strstr(remote_name, "claude");
	int			version;

	if (claude == NULL)
		return can;
	version = version_in(claude);
	if (version == 0)
		version = 9900;			/* "latest" and the like */
	can.adaptive = version >= 406;
	can.samples = version < 407;
	can.thinks = version >= 500;
	can.forces = version <= 500 && strstr(claude, "fable") == NULL &&
		strstr(claude, "mythos") == NULL;
	return can;
}

/* What is to be written about thinking, and what follows from it. */
typedef struct Thinking
{
	Abilities	can;
	bool		on;				/* asked for */
	int			budget;			/* tokens, where the model takes a budget */
	int			max_tokens;
} Thinking;

static Thinking
plan_thinking(const Route *route, const ApiParams *params)
{
	Thinking	t = {.can = abilities_of(route->remote_name)};
	int			wanted = budgets[params->reasoning];

	t.on = wanted > 0;
	t.max_tokens = params->max_tokens;
	if (t.max_tokens == 0)
		t.max_tokens = DEFAULT_MAX_TOKENS +
			(t.on ? wanted : t.can.thinks ? budgets[REASONING_MEDIUM] : 0);
	if (t.on && !t.can.adaptive)
	{
		/* at most half of what the answer has, or on top of it */
		t.budget = Min(wanted, t.max_tokens / 2);
		if (t.budget < MIN_BUDGET)
		{
			t.budget = MIN_BUDGET;
			t.max_tokens += MIN_BUDGET;
		}
	}
	return t;
}

static void
put_sampling(StringInfo buf, const ApiParams *params, const Thinking *thinking)
{
	JsonbValue	v;

	/* hints, which a model that thinks refuses */
	if (thinking->can.samples && !thinking->on)
	{
		api_put_param(buf, "temperature", &params->temperature);
		api_put_param(buf, "top_p", &params->top_p);
	}
	v = params->stop;
	if (v.type == jbvString)
	{
		appendStringInfoString(buf, ",\"stop_sequences\":[");
		api_put_value(buf, &v);
		appendStringInfoChar(buf, ']');
	}
	else if (v.type != jbvNull)
	{
		appendStringInfoString(buf, ",\"stop_sequences\":");
		api_put_value(buf, &v);
	}
}

static void
put_thinking(StringInfo buf, const ApiParams *params, const Thinking *thinking)
{
	if (!thinking->can.adaptive)
	{
		if (thinking->on)
			appendStringInfo(buf,
							 ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":%d}",
							 thinking->budget);
		return;
	}
	if (thinking->on)
		appendStringInfo(buf,
						 ",\"thinking\":{\"type\":\"adaptive\"},\"output_config\":{\"effort\":\"%s\"}",
						 params->reasoning <= REASONING_LOW ? "low"
						 : api_reasoning_name(params->reasoning));
	else if (params->reasoning == REASONING_NONE && thinking->can.thinks)
		/* some cannot be told not to think at all */
		appendStringInfoString(buf, ",\"output_config\":{\"effort\":\"low\"}");
}

static void
put_tool(StringInfo buf, const ApiRequest *request, const Thinking *thinking)
{
	if (request->schema == NULL)
		return;
	appendStringInfoString(buf, ",\"tools\":[{\"name\":\"" TOOL "\","
						   "\"description\":\"Takes the final answer. Always answer by calling it, once.\","
						   "\"input_schema\":");
	json_append(buf, request->schema);
	appendStringInfoString(buf, "}],\"tool_choice\":");
	appendStringInfoString(buf,
						   thinking->can.forces && !thinking->on
						   ? "{\"type\":\"tool\",\"name\":\"" TOOL "\"}"
						   : "{\"type\":\"auto\"}");
}

/* The messages, those of one role in a row as one. */
static void
put_messages(StringInfo buf, const ApiRequest *request)
{
	int			n = api_message_count(request);
	JsonbValue	before = {.type = jbvNull};

	appendStringInfoString(buf, ",\"messages\":[");
	for (int i = 0; i < n; i++)
	{
		JsonbContainer *message;
		JsonbValue	role;
		JsonbValue	content;

		api_message(request, i, &role, &content, &message);
		if (value_is(&role, "tool"))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("messages of role tool are not yet supported by api anthropic")));
		if (before.type != jbvNull &&
			role.val.string.len == before.val.string.len)
			appendStringInfoChar(buf, ',');
		else
		{
			if (before.type != jbvNull)
				appendStringInfoString(buf, "]},");
			appendStringInfoString(buf, "{\"role\":");
			api_put_value(buf, &role);
			appendStringInfoString(buf, ",\"content\":[");
		}
		api_put_content_blocks(buf, &content);
		before = role;
	}
	appendStringInfoString(buf, before.type == jbvNull ? "]" : "]}]");
}

static void
put_call(StringInfo buf, const Route *route, const ApiRequest *request)
{
	ApiParams	params;
	Thinking	thinking;

	api_params_read(request->params, &params);
	thinking = plan_thinking(route, &params);
	appendStringInfoString(buf, "{\"model\":");
	api_put_string(buf, route->remote_name, strlen(route->remote_name));
	appendStringInfo(buf, ",\"max_tokens\":%d", thinking.max_tokens);
	if (request->system != NULL && request->system[0] != '\0')
	{
		appendStringInfoString(buf, ",\"system\":");
		api_put_string(buf, request->system, strlen(request->system));
	}
	put_messages(buf, request);
	put_sampling(buf, &params, &thinking);
	put_thinking(buf, &params, &thinking);
	put_tool(buf, request, &thinking);
	appendStringInfoChar(buf, '}');
}

static void
anthropic_encode(const Route *route, const ApiRequest *request, ApiWire *wire)
{
	const char *url = route->server.url;
	size_t		len = strlen(url);

	if (request->form == CALL_REQUEST)
		api_put_request(&wire->body, route, request);
	else if (request->form == CALL_MESSAGES &&
			 strcmp(request->kind, "chat") == 0)
		put_call(&wire->body, route, request);
	else
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("model \"%s\" of kind %s is not called this way by api anthropic",
						route->model, request->kind),
				 errhint("This api has chat models only, which are given a prompt or messages.")));
	appendStringInfoString(&wire->url, url);
	if (len < 3 || strcmp(url + len - 3, "/v1") != 0)
		appendStringInfoString(&wire->url, "/v1");
	appendStringInfoString(&wire->url, "/messages");
	wire->headers = lappend(wire->headers,
							pstrdup("Content-Type: application/json"));
	wire->headers = lappend(wire->headers,
							pstrdup("anthropic-version: " API_VERSION));
	if (route->api_key != NULL)
		wire->headers = lappend(wire->headers,
								psprintf("x-api-key: %s", route->api_key));
	api_finish(wire, request);
}

/* What went in: read anew, and written to and read from the prompt cache. */
static void
read_usage(const JsonbValue *root, ApiAnswer *answer)
{
	JsonbValue	usage;

	if (!api_get(root, "usage", &usage))
		return;
	answer->tokens_out = api_get_int(&usage, "output_tokens");
	answer->tokens_in = api_get_int(&usage, "input_tokens");
	if (answer->tokens_in >= 0)
		answer->tokens_in +=
			Max(api_get_int(&usage, "cache_creation_input_tokens"), 0) +
			Max(api_get_int(&usage, "cache_read_input_tokens"), 0);
}

/* Takes the tool's input, else all text blocks together. */
static void
decode_content(const Route *route, const ApiRequest *request,
			   const JsonbValue *content, ApiAnswer *answer)
{
	int			n = api_length(content);
	StringInfoData text;
	bool		any = false;

	initStringInfo(&text);
	for (int i = 0; i < n; i++)
	{
		JsonbValue	block;
		JsonbValue	type;
		JsonbValue	v;

		if (!api_element(content, i, &block) ||
			!api_get_text(&block, "type", &type))
			continue;
		if (value_is(&type, "tool_use") && request->schema != NULL &&
			api_get(&block, "input", &v))
		{
			answer->output = JsonbValueToJsonb(&v);
			return;
		}
		if (value_is(&type, "text") && api_get_text(&block, "text", &v))
		{
			appendBinaryStringInfo(&text, v.val.string.val, v.val.string.len);
			any = true;
		}
	}
	if (any)
		api_text_answer(route, request, text.data, text.len, answer);
	else
		api_fail(answer, CLASS_INVALID, "the answer's content holds no text");
}

static void
anthropic_decode(const Route *route, const ApiRequest *request, int status,
				 const char *content_type, const char *body, size_t body_len,
				 ApiAnswer *answer)
{
	Jsonb	   *json = api_read_body(route, status, content_type, body,
									 body_len, answer);
	JsonbValue	root;
	JsonbValue	reason;
	JsonbValue	content;

	if (json == NULL)
		return;
	root = api_root(json);
	read_usage(&root, answer);
	if (request->form == CALL_REQUEST)
		answer->output = json;
	else if (api_get_text(&root, "stop_reason", &reason) &&
			 (value_is(&reason, "max_tokens") ||
			  value_is(&reason, "model_context_window_exceeded")))
		api_cut_off(request, answer);
	else if (api_get_text(&root, "stop_reason", &reason) &&
			 value_is(&reason, "refusal"))
		api_refuse(route, answer, NULL);
	else if (!api_get(&root, "content", &content) || api_length(&content) < 0)
		api_fail(answer, CLASS_INVALID, "the answer has no content");
	else
		decode_content(route, request, &content, answer);
}

const Api	api_anthropic = {"anthropic", anthropic_encode, anthropic_decode};
