/*
 * conversation.c: reading messages as OpenAI and Anthropic define them.
 *
 * Both have roles and contents that are a text or a list of typed parts; they
 * differ in the names. What is wrong is refused as the services refuse it, so
 * that an encoder's mistake shows here and not first on the real service.
 */
#include "conversation.h"
#include "text.h"

#include <string.h>

static bool
one_of(const char *s, const char *const *list)
{
	while (*list && strcmp(*list, s) != 0)
		list++;
	return *list != NULL;
}

/* Append the texts of a content, one a line; false with the error when it is malformed. */
static bool
content_text(Buf *out, Request *r, const json_t *content, size_t number)
{
	static const char *const openai_parts[] = {"text", "image_url", "input_audio", "file", "refusal", NULL};
	static const char *const anthropic_parts[] = {"text", "image", "document", "tool_use", "tool_result", "thinking", NULL};
	bool		anthropic = r->endpoint == ENDPOINT_MESSAGES;
	size_t		i;
	json_t	   *part;

	if (json_is_string(content))
	{
		buf_append(out, json_string_value(content), json_string_length(content));
		return true;
	}
	if (!json_is_array(content) || json_array_size(content) == 0)
	{
		reply_error(r, 400, NULL, "messages.%zu.content: must be a text or a list of parts that is not empty", number);
		return false;
	}
	json_array_foreach(content, i, part)
	{
		const char *type = json_string_value(json_object_get(part, "type"));
		const json_t *text = json_object_get(part, "text");

		if (type == NULL || !one_of(type, anthropic ? anthropic_parts : openai_parts) ||
			(strcmp(type, "text") == 0 && !json_is_string(text)))
		{
			reply_error(r, 400, NULL, "messages.%zu.content.%zu: invalid part of type '%.40s'", number, i,
						type ? type : "");
			return false;
		}
		if (strcmp(type, "document") == 0)
			text = json_object_get(json_object_get(part, "source"), "data");
		if (json_is_string(text) && (strcmp(type, "text") == 0 || strcmp(type, "document") == 0))
		{
			if (out->len > 0)
				buf_putc(out, '\n');
			buf_append(out, json_string_value(text), json_string_length(text));
		}
	}
	return true;
}

/* Was this assistant message one that missed its schema on purpose? */
static bool
is_miss(const json_t *message)
{
	char	   *dump = json_dumps(message, JSON_ENCODE_ANY);
	bool		miss = dump && strstr(dump, "unfit-answer") != NULL;

	free(dump);
	return miss;
}

/*
 * The text to answer is the last user message's, but not a message that only
 * brings a tool's result, nor one that complains about an answer that missed
 * its schema: the question is then the one before.
 */
static bool
read_messages(Conversation *c, Request *r, const json_t *messages)
{
	static const char *const openai_roles[] = {"system", "developer", "user", "assistant", "tool", NULL};
	static const char *const anthropic_roles[] = {"user", "assistant", NULL};
	const char *const *roles = r->endpoint == ENDPOINT_MESSAGES ? anthropic_roles : openai_roles;
	Buf			first = {0};
	Buf			text = {0};
	bool		complaint = false;
	bool		ok = true;
	size_t		i;
	json_t	   *message;

	json_array_foreach(messages, i, message)
	{
		const char *role = json_string_value(json_object_get(message, "role"));
		const json_t *content = json_object_get(message, "content");

		buf_reset(&text);
		if (role == NULL || !one_of(role, roles))
		{
			reply_error(r, 400, NULL, "messages.%zu.role: '%.40s' is not a role", i, role ? role : "");
			ok = false;
			break;
		}
		if (content == NULL || json_is_null(content))
		{
			if (strcmp(role, "assistant") == 0 && r->endpoint == ENDPOINT_CHAT)
			{
				complaint = is_miss(message);
				continue;
			}
		}
		if (!(ok = content_text(&text, r, content, i)))
			break;
		c->tokens += text_count_words(text.data ? text.data : "", text.len);
		if (strcmp(role, "assistant") == 0)
			complaint = is_miss(message);
		else if (strcmp(role, "user") != 0)
		{
			if (strcmp(role, "tool") != 0)
			{
				buf_append(&c->system, text.data, text.len);
				buf_putc(&c->system, '\n');
			}
		}
		else if (text.len > 0 && !complaint)
		{
			buf_reset(&c->user);
			buf_append(&c->user, text.data, text.len);
			if (first.len == 0)
				buf_append(&first, text.data, text.len);
		}
	}
	if (ok && r->fault.miss > 0)
	{
		buf_printf(&first, " %s", r->model_name);
		r->fault.miss = count_key("miss", first.data, first.len) <= r->fault.miss;
	}
	buf_free(&first);
	buf_free(&text);
	return ok;
}

/*
 * Read the request's messages (and Anthropic's system) into c; false when an
 * error reply was made. Free with conversation_free either way.
 */
bool
conversation_read(Conversation *c, Request *r)
{
	const json_t *messages = json_object_get(r->json, "messages");
	const json_t *system = r->endpoint == ENDPOINT_MESSAGES ? json_object_get(r->json, "system") : NULL;

	memset(c, 0, sizeof(*c));
	buf_append(&c->user, "", 0);
	buf_append(&c->system, "", 0);
	if (!json_is_array(messages) || json_array_size(messages) == 0)
	{
		reply_error(r, 400, NULL, "messages: at least one message is required");
		return false;
	}
	if (system && !content_text(&c->system, r, system, 0))
		return false;
	c->tokens = text_count_words(c->system.data, c->system.len);
	return read_messages(c, r, messages);
}

/* Give back what conversation_read took. */
void
conversation_free(Conversation *c)
{
	buf_free(&c->user);
	buf_free(&c->system);
}

/*
 * Let the model answer the conversation, with a place for what the request's
 * fault puts into the answer. The caller frees a->text.
 */
void
conversation_answer(Answer *a, Request *r, const Conversation *c, const json_t *schema, long max_tokens)
{
	const Fault *f = &r->fault;

	model_answer(a, r, &c->user, &c->system, schema, max_tokens);
	if (f->broken >= BROKEN_NUL || f->size > 0)
	{
		if (!a->structured)
			buf_puts(&a->text, SPLICE_MARK);
		else if (f->broken == BROKEN_DEEPTEXT)
		{
			buf_reset(&a->text);
			buf_puts(&a->text, SPLICE_MARK);
		}
		else
		{
			/* into the first string that is a value, if there is one */
			char	   *at = strstr(a->text.data, ": \"");

			buf_splice(&a->text, at ? (size_t) (at - a->text.data) + 3 : a->text.len, 0,
					   SPLICE_MARK, strlen(SPLICE_MARK));
		}
	}
}
