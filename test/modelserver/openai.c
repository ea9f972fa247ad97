/*
 * openai.c: OpenAI's wire format: chat completions (also streamed), embeddings,
 * images, models, errors. Source: the API reference's pages of those names.
 */
#include "conversation.h"
#include "text.h"

#include <string.h>
#include <time.h>

#define MAX_DIMENSIONS 8192
#define MAX_INPUTS	   2048
#define MAX_PIXELS	   256

/* Append an error in OpenAI's form to the reply. */
void
openai_error(Reply *reply, int status, const char *code, const char *message)
{
	const char *type = status >= 500 ? "server_error" : status == 429 ? "requests"
																	  : "invalid_request_error";

	if (code == NULL && status == 429)
		code = "rate_limit_exceeded";
	buf_puts(&reply->body, "{\"error\": {\"message\": ");
	buf_json(&reply->body, message, strlen(message));
	buf_printf(&reply->body, ", \"type\": \"%s\", \"param\": null, \"code\": ", type);
	if (code)
		buf_printf(&reply->body, "\"%s\"}}\n", code);
	else
		buf_puts(&reply->body, "null}}\n");
}

static void
put_model(Buf *out, Request *r)
{
	buf_puts(out, "\"model\": ");
	buf_json(out, r->model_name, strlen(r->model_name));
}

/*
 * The short way of the model `fixed`: when the request asks for nothing special, set
 * r->fixed to the one prepared response and return true.
 */
bool
openai_fixed(Request *r)
{
	static const char body[] =
		"{\"id\": \"chatcmpl-fixed\", \"object\": \"chat.completion\", \"created\": 1700000000, \"model\": \"fixed\", "
		"\"choices\": [{\"index\": 0, \"message\": {\"role\": \"assistant\", \"content\": \"A fixed answer.\", "
		"\"refusal\": null}, \"logprobs\": null, \"finish_reason\": \"stop\"}], "
		"\"usage\": {\"prompt_tokens\": 3, \"completion_tokens\": 3, \"total_tokens\": 6}}\n";
	static struct MHD_Response *response;
	static const char *const special[] = {
		"stream", "response_format", "tools", "max_tokens", "max_completion_tokens", "n"};

	if ((r->model != MODEL_FIXED && r->model != MODEL_DELAY) || r->fault.active ||
		!json_is_array(json_object_get(r->json, "messages")))
		return false;
	for (size_t i = 0; i < sizeof(special) / sizeof(special[0]); i++)
		if (json_object_get(r->json, special[i]))
			return false;
	if (response == NULL)
	{
		response = MHD_create_response_from_buffer(strlen(body), (void *) body, MHD_RESPMEM_PERSISTENT);
		MHD_add_response_header(response, "Content-Type", "application/json");
	}
	r->fixed = response;
	r->reply.status = 200;
	return true;
}

typedef struct ChatOptions
{
	const json_t *schema;		/* of the answer or of the forced tool */
	const char *tool;			/* the forced tool's name */
	bool		json_object;
	long		max_tokens;		/* -1: no limit */
	bool		stream;
	bool		stream_usage;
} ChatOptions;

/* The schema of the answer, from response_format. */
static bool
read_response_format(ChatOptions *o, Request *r)
{
	const json_t *format = json_object_get(r->json, "response_format");
	const char *type = json_string_value(json_object_get(format, "type"));
	const json_t *json_schema = json_object_get(format, "json_schema");
	const char *fault;

	if (format == NULL || json_is_null(format))
		return true;
	if (type && strcmp(type, "text") == 0)
		return true;
	if (type && strcmp(type, "json_object") == 0)
		return o->json_object = true;
	if (type == NULL || strcmp(type, "json_schema") != 0)
	{
		reply_error(r, 400, NULL, "Invalid value for 'response_format.type': '%.40s'", type ? type : "");
		return false;
	}
	o->schema = json_object_get(json_schema, "schema");
	if (!json_is_string(json_object_get(json_schema, "name")) || !json_is_object(o->schema))
	{
		reply_error(r, 400, NULL, "Missing required parameter: 'response_format.json_schema.%s'",
					json_is_object(o->schema) ? "name" : "schema");
		return false;
	}
	if (json_is_true(json_object_get(json_schema, "strict")) && (fault = schema_strict_fault(o->schema, 0)) != NULL)
	{
		reply_error(r, 400, NULL, "Invalid schema for response_format '%.64s': %s",
					json_string_value(json_object_get(json_schema, "name")), fault);
		return false;
	}
	return true;
}

/* The tool that the answer must call, if one is forced. */
static bool
read_tools(ChatOptions *o, Request *r)
{
	const json_t *tools = json_object_get(r->json, "tools");
	const json_t *choice = json_object_get(r->json, "tool_choice");
	const char *name = json_string_value(json_object_get(json_object_get(choice, "function"), "name"));
	bool		any = json_is_string(choice) && strcmp(json_string_value(choice), "required") == 0;
	size_t		i;
	json_t	   *tool;

	if (name == NULL && !any)
		return true;
	json_array_foreach(tools, i, tool)
	{
		const json_t *function = json_object_get(tool, "function");
		const char *its_name = json_string_value(json_object_get(function, "name"));

		if (its_name && (any || strcmp(its_name, name) == 0))
		{
			static json_t *nothing;

			o->tool = its_name;
			o->schema = json_object_get(function, "parameters");
			if (o->schema == NULL)
				o->schema = nothing ? nothing : (nothing = json_pack("{s:s}", "type", "object"));
			return true;
		}
	}
	reply_error(r, 400, NULL, "Tool choice '%.64s' not found in 'tools' parameter.", name ? name : "required");
	return false;
}

static bool
read_options(ChatOptions *o, Request *r)
{
	const json_t *max = json_object_get(r->json, "max_completion_tokens");
	const json_t *n = json_object_get(r->json, "n");

	memset(o, 0, sizeof(*o));
	o->max_tokens = -1;
	if (max == NULL)
		max = json_object_get(r->json, "max_tokens");
	if (max && !json_is_null(max))
	{
		o->max_tokens = json_is_integer(max) ? (long) json_integer_value(max) : 0;
		if (o->max_tokens < 1 || o->max_tokens > 100000000)
		{
			reply_error(r, 400, NULL, "Invalid 'max_tokens': it must be an integer of at least 1");
			return false;
		}
	}
	if (n && json_integer_value(n) != 1)
	{
		reply_error(r, 400, NULL, "Invalid 'n': this server gives one choice");
		return false;
	}
	o->stream = json_is_true(json_object_get(r->json, "stream"));
	o->stream_usage = json_is_true(json_object_get(json_object_get(r->json, "stream_options"), "include_usage"));
	return read_response_format(o, r) && read_tools(o, r);
}

static void
put_usage(Buf *out, int prompt, int completion)
{
	buf_printf(out, "\"usage\": {\"prompt_tokens\": %d, \"completion_tokens\": %d, \"total_tokens\": %d}",
			   prompt, completion, prompt + completion);
}

static const char *
finish_reason(const Request *r, const Answer *a)
{
	if (r->fault.refuse == REFUSE_FILTER)
		return "content_filter";
	return a->cut ? "length" : "stop";
}

#define REFUSAL "I'm sorry, I cannot help with that request."

static void
put_completion(Request *r, const ChatOptions *o, const Conversation *c, const Answer *a)
{
	Buf		   *out = &r->reply.body;

	buf_puts(out, "{\"id\": \"");
	reply_id(out, "chatcmpl-");
	buf_printf(out, "\", \"object\": \"chat.completion\", \"created\": %lld, ", (long long) time(NULL));
	put_model(out, r);
	buf_puts(out, ", \"choices\": [{\"index\": 0, \"message\": {\"role\": \"assistant\", \"content\": ");
	if (r->fault.refuse == REFUSE_REFUSAL)
		buf_puts(out, "null, \"refusal\": \"" REFUSAL "\"");
	else if (r->fault.refuse == REFUSE_FILTER)
		buf_puts(out, "\"\", \"refusal\": null");
	else if (o->tool)
	{
		buf_puts(out, "null, \"refusal\": null, \"tool_calls\": [{\"id\": \"");
		reply_id(out, "call_");
		buf_puts(out, "\", \"type\": \"function\", \"function\": {\"name\": ");
		buf_json(out, o->tool, strlen(o->tool));
		buf_puts(out, ", \"arguments\": ");
		buf_json(out, a->text.data, a->text.len);
		buf_puts(out, "}}]");
	}
	else
	{
		buf_json(out, a->text.data, a->text.len);
		buf_puts(out, ", \"refusal\": null");
	}
	buf_printf(out, "}, \"logprobs\": null, \"finish_reason\": \"%s\"}], ", finish_reason(r, a));
	put_usage(out, c->tokens, a->tokens);
	buf_puts(out, "}\n");
}

/* One event: the delta (JSON), or none at the end with the reason. */
static void
put_chunk(Request *r, const char *id, const char *delta, const char *reason, const char *tail)
{
	Buf		   *out = &r->reply.body;

	buf_printf(out, "data: {\"id\": \"%s\", \"object\": \"chat.completion.chunk\", \"created\": %lld, ",
			   id, (long long) time(NULL));
	put_model(out, r);
	if (delta)
		buf_printf(out, ", \"choices\": [{\"index\": 0, \"delta\": %s, \"logprobs\": null, \"finish_reason\": %s}]",
				   delta, reason);
	else
		buf_puts(out, ", \"choices\": []");
	buf_printf(out, "%s}\n\n", tail);
}

/* The answer word by word, as server-sent events. */
static void
put_stream(Request *r, const ChatOptions *o, const Conversation *c, const Answer *a)
{
	const char *tail = o->stream_usage ? ", \"usage\": null" : "";
	bool		refused = r->fault.refuse == REFUSE_REFUSAL;
	const char *text = refused ? REFUSAL : a->text.data;
	size_t		len = r->fault.refuse == REFUSE_FILTER ? 0 : refused ? strlen(REFUSAL) :
																  a->text.len;
	Buf			id = {0};
	Buf			delta = {0};
	char		reason[32];

	r->reply.stream = true;
	r->reply.type = "text/event-stream";
	reply_id(&id, "chatcmpl-");
	if (o->tool && r->fault.refuse == REFUSE_NONE)
	{
		buf_puts(&delta, "{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"index\": 0, \"id\": \"");
		reply_id(&delta, "call_");
		buf_puts(&delta, "\", \"type\": \"function\", \"function\": {\"name\": ");
		buf_json(&delta, o->tool, strlen(o->tool));
		buf_puts(&delta, ", \"arguments\": \"\"}}]}");
	}
	else
		buf_puts(&delta, "{\"role\": \"assistant\", \"content\": \"\"}");
	put_chunk(r, id.data, delta.data, "null", tail);
	for (size_t at = 0; at < len;)
	{
		size_t		n = text_cut_words(text + at, len - at, 1);
		bool		tool = o->tool && r->fault.refuse == REFUSE_NONE;

		buf_reset(&delta);
		buf_puts(&delta, tool ? "{\"tool_calls\": [{\"index\": 0, \"function\": {\"arguments\": " : refused ? "{\"refusal\": "
																											: "{\"content\": ");
		buf_json(&delta, text + at, n);
		buf_puts(&delta, tool ? "}}]}" : "}");
		put_chunk(r, id.data, delta.data, "null", tail);
		at += n;
	}
	snprintf(reason, sizeof(reason), "\"%s\"", finish_reason(r, a));
	put_chunk(r, id.data, "{}", reason, tail);
	if (o->stream_usage)
	{
		buf_reset(&delta);
		buf_puts(&delta, ", ");
		put_usage(&delta, c->tokens, a->tokens);
		put_chunk(r, id.data, NULL, NULL, delta.data);
	}
	buf_puts(&r->reply.body, "data: [DONE]\n\n");
	buf_free(&id);
	buf_free(&delta);
}

/* A JSON object was asked for, without a schema: the text in a field, unless it is an object. */
static void
wrap_in_object(Answer *a)
{
	json_t	   *value = json_loadb(a->text.data, a->text.len, 0, NULL);
	Buf			out = {0};

	if (!json_is_object(value))
	{
		buf_puts(&out, "{\"answer\": ");
		buf_json(&out, a->text.data, a->text.len);
		buf_puts(&out, "}");
		buf_free(&a->text);
		a->text = out;
	}
	json_decref(value);
}

static bool
refuse_model(Request *r, const ChatOptions *o)
{
	if (r->model == MODEL_EMBEDDING || r->model == MODEL_PICTURE)
		reply_error(r, 400, NULL, "%s is not a chat model", model_name(r->model));
	else if (r->model == MODEL_LABELS && o->schema == NULL)
		reply_error(r, 400, NULL, "the model labels needs a JSON schema (response_format or a forced tool)");
	else
		return false;
	return true;
}

/* Answer POST /v1/chat/completions. */
void
openai_chat(Request *r)
{
	ChatOptions o;
	Conversation c;
	Answer		a;

	if (!read_options(&o, r) || refuse_model(r, &o))
		return;
	if (conversation_read(&c, r))
	{
		conversation_answer(&a, r, &c, o.schema, o.max_tokens);
		if (o.json_object && !a.cut)
			wrap_in_object(&a);
		if (o.stream)
			put_stream(r, &o, &c, &a);
		else
			put_completion(r, &o, &c, &a);
		buf_free(&a.text);
	}
	conversation_free(&c);
}

static void
put_vector(Buf *out, const float *v, int dimensions, bool base64)
{
	if (base64)
	{
		buf_putc(out, '"');
		buf_base64(out, v, sizeof(float) * (size_t) dimensions);
		buf_putc(out, '"');
		return;
	}
	for (int i = 0; i < dimensions; i++)
		buf_printf(out, "%s%.7g", i > 0 ? ", " : "[", (double) v[i]);
	buf_putc(out, ']');
}

/* One input: a text, or an array of token numbers, which is hashed as it is. */
static bool
embed_input(Request *r, const json_t *input, size_t number, int dimensions, float *vector, int *tokens)
{
	char	   *dump;

	if (json_is_string(input) && json_string_length(input) > 0)
	{
		text_embed(json_string_value(input), json_string_length(input), dimensions, vector);
		*tokens += text_count_words(json_string_value(input), json_string_length(input));
		return true;
	}
	if (json_is_array(input) && json_array_size(input) > 0 && json_is_integer(json_array_get(input, 0)))
	{
		dump = json_dumps(input, 0);
		if (dump)
			text_embed(dump, strlen(dump), dimensions, vector);
		free(dump);
		*tokens += (int) json_array_size(input);
		return true;
	}
	reply_error(r, 400, NULL, "Invalid 'input[%zu]': it must be a text that is not empty or a list of tokens", number);
	return false;
}

static void
put_embedding(Buf *out, size_t number, const float *vector, int dimensions, bool base64)
{
	buf_printf(out, "%s{\"object\": \"embedding\", \"index\": %zu, \"embedding\": ", number > 0 ? ", " : "", number);
	put_vector(out, vector, dimensions, base64);
	buf_putc(out, '}');
}

/* Answer POST /v1/embeddings. */
void
openai_embeddings(Request *r)
{
	const json_t *input = json_object_get(r->json, "input");
	const json_t *wanted = json_object_get(r->json, "dimensions");
	const char *format = json_string_value(json_object_get(r->json, "encoding_format"));
	bool		base64 = format && strcmp(format, "base64") == 0;
	json_int_t	dimensions = wanted && !json_is_null(wanted) ? json_integer_value(wanted) : 64;
	bool		many = json_is_array(input) && !json_is_integer(json_array_get(input, 0));
	size_t		n = many ? json_array_size(input) : 1;
	Buf		   *out = &r->reply.body;
	float	   *vector;
	int			tokens = 0;

	if (r->model != MODEL_EMBEDDING && r->model != MODEL_FIXED && r->model != MODEL_DELAY)
		reply_error(r, 400, NULL, "%s is not an embedding model", model_name(r->model));
	else if (dimensions < 1 || dimensions > MAX_DIMENSIONS)
		reply_error(r, 400, NULL, "Invalid 'dimensions': it must be from 1 to %d", MAX_DIMENSIONS);
	else if (input == NULL || n == 0 || n > MAX_INPUTS)
		reply_error(r, 400, NULL, "Invalid 'input': it must be a text or a list of 1 to %d texts", MAX_INPUTS);
	if (r->reply.status != 200)
		return;
	vector = mem_alloc(sizeof(float) * (size_t) dimensions);
	buf_puts(out, "{\"object\": \"list\", \"data\": [");
	for (size_t i = 0; i < n; i++)
	{
		if (!embed_input(r, many ? json_array_get(input, i) : input, i, (int) dimensions, vector, &tokens))
			break;
		put_embedding(out, i, vector, (int) dimensions, base64);
	}
	free(vector);
	if (r->reply.status != 200)
		return;
	buf_puts(out, "], ");
	put_model(out, r);
	buf_printf(out, ", \"usage\": {\"prompt_tokens\": %d, \"total_tokens\": %d}", tokens, tokens);
	if (r->fault.active)
		buf_puts(out, ", \"note\": \"" SPLICE_MARK "\"");
	buf_puts(out, "}\n");
}

/* Answer POST /v1/images/generations. */
void
openai_images(Request *r)
{
	const json_t *prompt = json_object_get(r->json, "prompt");
	const json_t *number = json_object_get(r->json, "n");
	const char *size = json_string_value(json_object_get(r->json, "size"));
	json_int_t	n = number && !json_is_null(number) ? json_integer_value(number) : 1;
	int			width = 64;
	int			height = 64;
	Buf		   *out = &r->reply.body;
	Buf			png = {0};

	if (size && strcmp(size, "auto") != 0 &&
		(sscanf(size, "%4dx%4d", &width, &height) != 2 || width < 1 || height < 1))
		reply_error(r, 400, NULL, "Invalid 'size': '%.20s'", size);
	else if (!json_is_string(prompt) || json_string_length(prompt) == 0)
		reply_error(r, 400, NULL, "Missing required parameter: 'prompt'");
	else if (n < 1 || n > 10)
		reply_error(r, 400, NULL, "Invalid 'n': it must be from 1 to 10");
	if (r->reply.status != 200)
		return;
	width = width < MAX_PIXELS ? width : MAX_PIXELS;
	height = height < MAX_PIXELS ? height : MAX_PIXELS;
	buf_printf(out, "{\"created\": %lld, \"data\": [", (long long) time(NULL));
	for (int i = 0; i < (int) n; i++)
	{
		buf_reset(&png);
		picture_png(&png, json_string_value(prompt), json_string_length(prompt), width, height, i);
		buf_puts(out, i > 0 ? ", {\"b64_json\": \"" : "{\"b64_json\": \"");
		buf_base64(out, png.data, png.len);
		buf_puts(out, "\"}");
	}
	buf_printf(out, "], \"usage\": {\"input_tokens\": %d, \"output_tokens\": %d, \"total_tokens\": %d}",
			   text_count_words(json_string_value(prompt), json_string_length(prompt)), (int) n,
			   text_count_words(json_string_value(prompt), json_string_length(prompt)) + (int) n);
	if (r->fault.active)
		buf_puts(out, ", \"note\": \"" SPLICE_MARK "\"");
	buf_puts(out, "}\n");
	buf_free(&png);
}

/* Append the list of models. */
void
openai_models(Buf *out)
{
	buf_puts(out, "{\"object\": \"list\", \"data\": [");
	for (int i = MODEL_UNKNOWN + 1; i < MODEL_COUNT; i++)
		buf_printf(out, "%s{\"id\": \"%s\", \"object\": \"model\", \"created\": 1700000000, \"owned_by\": \"modelserver\"}",
				   i > MODEL_UNKNOWN + 1 ? ", " : "", i == MODEL_DELAY ? "delay-1000" : model_name((Model) i));
	buf_puts(out, "]}\n");
}
