/*
 * call_reask.c
 *	  What a model is told about an answer that does not fit.
 */
#include "postgres.h"

#include "base/json.h"
#include "call/call_internal.h"
#include "mb/pg_wchar.h"

/* Bytes of an unfit answer that go back to the model. */
#define MAX_ANSWER_BACK (32 * 1024)

static void
push_message(JsonbParseState **state, const char *role, const char *content)
{
	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	json_push_key(state, "role");
	json_push(state, WJB_VALUE, json_text(role));
	json_push_key(state, "content");
	json_push(state, WJB_VALUE, json_text(content));
	(void) pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/* The answer's text as the model may be shown it, cut to a sane length. */
static char *
answer_text(const Jsonb *answer)
{
	char	   *text = json_string_dup(answer);
	StringInfoData out;

	if (text == NULL)
	{
		initStringInfo(&out);
		json_append(&out, answer);
		text = out.data;
	}
	text[pg_mbcliplen(text, strlen(text), MAX_ANSWER_BACK)] = '\0';
	return text;
}

/*
 * The conversation so far, the answer that does not fit, and why (NULL: its
 * form).  Palloc'd.
 */
Jsonb *
reask_messages(const Jsonb *messages, const Jsonb *answer, const char *why)
{
	JsonbParseState *state = NULL;
	int			n = json_count(messages);

	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < n; i++)
		json_push(&state, WJB_ELEM, json_element(messages, i));
	push_message(&state, "assistant", answer_text(answer));
	push_message(&state, "user",
				 psprintf("Your answer does not fit: %s. Answer again, with nothing but JSON of the form that was asked for.",
						  why ? why : "it has another form"));
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}
