/*
 * model.c: the models' names, and which of them answers what.
 */
#include "server.h"
#include "text.h"

#include <string.h>

static const char *const names[MODEL_COUNT] = {
	[MODEL_UNKNOWN] = "unknown",
	[MODEL_EXTRACTIVE] = "extractive",
	[MODEL_KEYWORDS] = "keywords",
	[MODEL_EMBEDDING] = "hash-embedding",
	[MODEL_LABELS] = "labels",
	[MODEL_ECHO] = "echo",
	[MODEL_FIXED] = "fixed",
	[MODEL_DELAY] = "delay",
	[MODEL_PICTURE] = "picture"};

/*
 * The model of this name, without any fault suffix; delay_ms is set for
 * "delay-MS", at most a day.
 */
Model
model_find(const char *name, size_t len, long *delay_ms)
{
	if (len > 6 && len <= 14 && memcmp(name, "delay-", 6) == 0)
	{
		long		ms = 0;

		for (size_t i = 6; i < len; i++)
		{
			if (name[i] < '0' || name[i] > '9')
				return MODEL_UNKNOWN;
			ms = ms * 10 + name[i] - '0';
		}
		*delay_ms = ms;
		return ms <= 86400000 ? MODEL_DELAY : MODEL_UNKNOWN;
	}
	for (int i = MODEL_UNKNOWN + 1; i < MODEL_COUNT; i++)
		if (i != MODEL_DELAY && strlen(names[i]) == len && memcmp(names[i], name, len) == 0)
			return (Model) i;
	return MODEL_UNKNOWN;
}

/* Its name, for the counts. */
const char *
model_name(Model model)
{
	return names[model];
}

/* The answer to a schema, as JSON text. */
static void
structured_answer(Answer *a, Request *r, const Buf *user, const json_t *schema)
{
	json_t	   *value = NULL;
	char	   *dump;

	if (r->model == MODEL_ECHO)
		value = json_loadb(user->data, user->len, JSON_DECODE_ANY, NULL);
	if (value != NULL && r->fault.miss == 0)
		buf_append(&a->text, user->data, user->len);
	else
	{
		if (value == NULL)
		{
			bool		reads = r->model != MODEL_FIXED && r->model != MODEL_DELAY;
			Prompt		p;

			text_split_prompt(&p, user->data, user->len);
			value = label_fill(schema, p.text, reads ? p.text_len : 0);
		}
		if (r->fault.miss > 0)
		{
			json_t	   *right = value;

			value = label_miss(right);
			json_decref(right);
		}
		dump = json_dumps(value, JSON_ENCODE_ANY);
		if (dump)
			buf_puts(&a->text, dump);
		free(dump);
	}
	json_decref(value);
	a->structured = true;
}

static void
plain_answer(Answer *a, Request *r, const Buf *user, const Buf *system)
{
	Prompt		p;

	switch (r->model)
	{
		case MODEL_EXTRACTIVE:
			text_split_prompt(&p, user->data, user->len);
			text_summarise(&a->text, &p, system->data, system->len);
			break;
		case MODEL_KEYWORDS:
			text_split_prompt(&p, user->data, user->len);
			text_keywords(&a->text, &p);
			break;
		case MODEL_ECHO:
			buf_append(&a->text, user->data, user->len);
			break;
		default:
			buf_puts(&a->text, "A fixed answer.");
	}
	if (r->fault.miss > 0)
	{
		buf_reset(&a->text);
		buf_puts(&a->text, "unfit-answer");
	}
}

/*
 * Fill a with the model's answer to the user's text: for a schema (may be NULL)
 * JSON that is valid against it, or on purpose is not while r->fault.miss says
 * so. max_tokens (negative: no limit) cuts it. The caller frees a->text.
 */
void
model_answer(Answer *a, Request *r, const Buf *user, const Buf *system, const json_t *schema, long max_tokens)
{
	memset(a, 0, sizeof(*a));
	buf_reserve(&a->text, 64);
	a->text.data[0] = '\0';
	if (schema != NULL)
		structured_answer(a, r, user, schema);
	else
		plain_answer(a, r, user, system);
	a->tokens = text_count_words(a->text.data, a->text.len);
	if (max_tokens >= 0 && a->tokens > max_tokens)
	{
		a->text.len = text_cut_words(a->text.data, a->text.len, (int) max_tokens);
		a->text.data[a->text.len] = '\0';
		a->tokens = (int) max_tokens;
		a->cut = true;
	}
}
