/*
 * anthropic.c: Anthropic's wire format: messages (also streamed) and errors.
 * Source: the API reference's pages Messages, Streaming and Errors.
 */
#include "conversation.h"
#include "text.h"

#include <string.h>

/* Append an error in Anthropic's form to the reply. */
void
anthropic_error(Reply *reply, int status, const char *message)
{
	static const struct
	{
		int			status;
		const char *type;
	} types[] = {
		{400, "invalid_request_error"}, {401, "authentication_error"}, {403, "permission_error"}, {404, "not_found_error"}, {413, "request_too_large"}, {429, "rate_limit_error"}, {504, "timeout_error"}, {529, "overloaded_error"}};
	const char *type = status >= 500 ? "api_error" : "invalid_request_error";

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (types[i].status == status)
			type = types[i].type;
	buf_printf(&reply->body, "{\"type\": \"error\", \"error\": {\"type\": \"%s\", \"message\": ", type);
	buf_json(&reply->body, message, strlen(message));
	buf_puts(&reply->body, "}, \"request_id\": \"");
	reply_id(&reply->body, "req_");
	buf_puts(&reply->body, "\"}\n");
}

typedef struct MessageOptions
{
	const json_t *schema;		/* of the answer or of the forced tool */
	const char *tool;			/* the forced tool's name */
	long		max_tokens;
	bool		stream;
} MessageOptions;

/* The tool that the answer must use, if one is forced. */
static bool
read_tools(MessageOptions *o, Request *r)
{
	const json_t *tools = json_object_get(r->json, "tools");
	const json_t *choice = json_object_get(r->json, "tool_choice");
	const char *type = json_string_value(json_object_get(choice, "type"));
	const char *name = json_string_value(json_object_get(choice, "name"));
	bool		any = type && strcmp(type, "any") == 0;
	size_t		i;
	json_t	   *tool;

	json_array_foreach(tools, i, tool)
	{
		const char *its_name = json_string_value(json_object_get(tool, "name"));
		const json_t *schema = json_object_get(tool, "input_schema");
		const char *its_type = json_string_value(json_object_get(schema, "type"));

		if (its_name == NULL || its_type == NULL || strcmp(its_type, "object") != 0)
		{
			reply_error(r, 400, NULL, "tools.%zu.%s", i,
						its_name ? "input_schema.type: Input should be 'object'" : "name: Field required");
			return false;
		}
		if (o->tool == NULL && (any || (type && strcmp(type, "tool") == 0 && name && strcmp(name, its_name) == 0)))
		{
			o->tool = its_name;
			o->schema = schema;
		}
	}
	if (o->tool == NULL && (any || (type && strcmp(type, "tool") == 0)))
	{
		reply_error(r, 400, NULL, "Tool '%.64s' not found in provided tools", name ? name : "");
		return false;
	}
	return true;
}

/* The schema of output_config.format, or of the older output_format. */
static const json_t *
output_schema(const json_t *body)
{
	const json_t *format = json_object_get(json_object_get(body, "output_config"), "format");
	const char *type;

	if (format == NULL)
		format = json_object_get(body, "output_format");
	type = json_string_value(json_object_get(format, "type"));
	return type && strcmp(type, "json_schema") == 0 ? json_object_get(format, "schema") : NULL;
}

static bool
read_options(MessageOptions *o, Request *r)
{
	const json_t *max = json_object_get(r->json, "max_tokens");

	memset(o, 0, sizeof(*o));
	o->max_tokens = json_is_integer(max) ? (long) json_integer_value(max) : 0;
	o->stream = json_is_true(json_object_get(r->json, "stream"));
	o->schema = output_schema(r->json);
	if (MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, "anthropic-version") == NULL)
		reply_error(r, 400, NULL, "anthropic-version: header is required");
	else if (max == NULL)
		reply_error(r, 400, NULL, "max_tokens: Field required");
	else if (o->max_tokens < 1)
		reply_error(r, 400, NULL, "max_tokens: Input should be greater than or equal to 1");
	else
		return read_tools(o, r);
	return false;
}

static const char *
stop_reason(const Request *r, const MessageOptions *o, const Answer *a)
{
	if (r->fault.refuse != REFUSE_NONE)
		return "refusal";
	if (a->cut)
		return "max_tokens";
	return o->tool ? "tool_use" : "end_turn";
}

/* Is the answer's text an object, as a tool's input must be? A cut one is not. */
static const char *
tool_input(const Answer *a)
{
	return a->text.len > 0 && a->text.data[0] == '{' && !a->cut ? a->text.data : NULL;
}

static void
put_head(Buf *out, Request *r)
{
	buf_puts(out, "\"id\": \"");
	reply_id(out, "msg_");
	buf_puts(out, "\", \"type\": \"message\", \"role\": \"assistant\", \"model\": ");
	buf_json(out, r->model_name, strlen(r->model_name));
}

static void
put_message(Request *r, const MessageOptions *o, const Conversation *c, const Answer *a)
{
	Buf		   *out = &r->reply.body;

	buf_putc(out, '{');
	put_head(out, r);
	buf_puts(out, ", \"content\": [");
	if (r->fault.refuse != REFUSE_NONE)
		; /* a refusal comes without content */
	else if (o->tool)
	{
		const char *input = tool_input(a);

		buf_puts(out, "{\"type\": \"tool_use\", \"id\": \"");
		reply_id(out, "toolu_");
		buf_puts(out, "\", \"name\": ");
		buf_json(out, o->tool, strlen(o->tool));
		buf_puts(out, ", \"input\": ");
		if (input)
			buf_puts(out, input);
		else if (strstr(a->text.data, SPLICE_MARK))
			buf_puts(out, "\"" SPLICE_MARK "\"");
		else
			buf_puts(out, a->cut ? "{}" : a->text.data);
		buf_putc(out, '}');
	}
	else
	{
		buf_puts(out, "{\"type\": \"text\", \"text\": ");
		buf_json(out, a->text.data, a->text.len);
		buf_putc(out, '}');
	}
	buf_printf(out, "], \"stop_reason\": \"%s\", \"stop_sequence\": null, "
					"\"usage\": {\"input_tokens\": %d, \"output_tokens\": %d}}\n",
			   stop_reason(r, o, a), c->tokens, a->tokens);
}

static void
put_event(Buf *out, const char *type, const char *rest)
{
	buf_printf(out, "event: %s\ndata: {\"type\": \"%s\"%s}\n\n", type, type, rest);
}

/* The content block word by word. */
static void
put_block_events(Buf *out, const MessageOptions *o, const Answer *a)
{
	Buf			data = {0};

	if (o->tool)
	{
		buf_puts(&data, ", \"index\": 0, \"content_block\": {\"type\": \"tool_use\", \"id\": \"");
		reply_id(&data, "toolu_");
		buf_puts(&data, "\", \"name\": ");
		buf_json(&data, o->tool, strlen(o->tool));
		buf_puts(&data, ", \"input\": {}}");
	}
	else
		buf_puts(&data, ", \"index\": 0, \"content_block\": {\"type\": \"text\", \"text\": \"\"}");
	put_event(out, "content_block_start", data.data);
	put_event(out, "ping", "");
	for (size_t at = 0; at < a->text.len;)
	{
		size_t		n = text_cut_words(a->text.data + at, a->text.len - at, 1);

		buf_reset(&data);
		buf_printf(&data, ", \"index\": 0, \"delta\": {\"type\": \"%s\": ",
				   o->tool ? "input_json_delta\", \"partial_json" : "text_delta\", \"text");
		buf_json(&data, a->text.data + at, n);
		buf_putc(&data, '}');
		put_event(out, "content_block_delta", data.data);
		at += n;
	}
	put_event(out, "content_block_stop", ", \"index\": 0");
	buf_free(&data);
}

static void
put_stream(Request *r, const MessageOptions *o, const Conversation *c, const Answer *a)
{
	Buf		   *out = &r->reply.body;
	Buf			data = {0};

	r->reply.stream = true;
	r->reply.type = "text/event-stream";
	buf_puts(&data, ", \"message\": {");
	put_head(&data, r);
	buf_printf(&data, ", \"content\": [], \"stop_reason\": null, \"stop_sequence\": null, "
					  "\"usage\": {\"input_tokens\": %d, \"output_tokens\": 1}}",
			   c->tokens);
	put_event(out, "message_start", data.data);
	if (r->fault.refuse == REFUSE_NONE)
		put_block_events(out, o, a);
	buf_reset(&data);
	buf_printf(&data, ", \"delta\": {\"stop_reason\": \"%s\", \"stop_sequence\": null}, \"usage\": {\"output_tokens\": %d}",
			   stop_reason(r, o, a), a->tokens);
	put_event(out, "message_delta", data.data);
	put_event(out, "message_stop", "");
	buf_free(&data);
}

/* Answer POST /v1/messages. */
void
anthropic_messages(Request *r)
{
	MessageOptions o;
	Conversation c;
	Answer		a;

	if (!read_options(&o, r))
		return;
	if (r->model == MODEL_EMBEDDING || r->model == MODEL_PICTURE)
		reply_error(r, 400, NULL, "%s is not a chat model", model_name(r->model));
	else if (r->model == MODEL_LABELS && o.schema == NULL)
		reply_error(r, 400, NULL, "the model labels needs a JSON schema (a forced tool's input_schema)");
	if (r->reply.status != 200)
		return;
	if (conversation_read(&c, r))
	{
		conversation_answer(&a, r, &c, o.schema, o.max_tokens);
		if (o.stream)
			put_stream(r, &o, &c, &a);
		else
			put_message(r, &o, &c, &a);
		buf_free(&a.text);
	}
	conversation_free(&c);
}
