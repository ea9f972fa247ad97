/*
 * api_read.c
 *	  Reading answers: bytes from a network, of which nothing is believed.
 *
 * Nothing here raises (but for lack of memory): what does not fit becomes a
 * class and a message.  Messages carry the service's own words, stripped of
 * control characters and of the key, and cut.
 */
#include "postgres.h"

#include "api/api_wire.h"
#include "base/json.h"
#include "mb/pg_wchar.h"
#include "utils/numeric.h"

/* Characters of a service's message that are kept. */
#define MAX_MESSAGE 500

/* Characters of an unfit answer that are shown. */
#define MAX_EXCERPT 200

/* Bytes of an answer that are searched for a message. */
#define MAX_SCANNED 65536

/* Makes the answer a failure of class cls; message is palloc'd, already cut. */
void
api_fail(ApiAnswer *answer, ErrorClass cls, char *message)
{
	answer->cls = cls;
	answer->message = message;
	answer->output = NULL;
}

/* The whole of json as a value that api_get() and api_element() take. */
JsonbValue
api_root(const Jsonb *json)
{
	JsonbValue	v;

	if (!json_scalar(json, &v))
	{
		v.type = jbvBinary;
		v.val.binary.data = unconstify(JsonbContainer *, &json->root);
		v.val.binary.len = VARSIZE(json) - VARHDRSZ;
	}
	return v;
}

/* A member of an object; false where it is absent, or object is none. */
bool
api_get(const JsonbValue *object, const char *key, JsonbValue *value)
{
	return object->type == jbvBinary &&
		JsonContainerIsObject(object->val.binary.data) &&
		getKeyJsonValueFromContainer(object->val.binary.data, key,
									 strlen(key), value) != NULL;
}

/* A member that is a string; false for anything else. */
bool
api_get_text(const JsonbValue *object, const char *key, JsonbValue *value)
{
	return api_get(object, key, value) && value->type == jbvString;
}

/* Elements of an array; -1 when it is none. */
int
api_length(const JsonbValue *array)
{
	if (array->type != jbvBinary ||
		!JsonContainerIsArray(array->val.binary.data))
		return -1;
	return JsonContainerSize(array->val.binary.data);
}

/* Element i of an array; false where there is none. */
bool
api_element(const JsonbValue *array, int i, JsonbValue *value)
{
	JsonbValue *v;

	if (i >= api_length(array))
		return false;
	v = getIthJsonbValueFromContainer(array->val.binary.data, i);
	if (v == NULL)
		return false;
	*value = *v;
	pfree(v);
	return true;
}

/* A member as a number from 0; -1 when it is none or out of range. */
int64
api_get_int(const JsonbValue *object, const char *key)
{
	JsonbValue	v;
	bool		range = false;
	int32		n;

	if (!api_get(object, key, &v) || v.type != jbvNumeric)
		return -1;
	n = numeric_int4_opt_error(v.val.numeric, &range);
	return range || n < 0 ? -1 : n;
}

/* Bytes of unknown encoding as text that the database can hold, palloc'd. */
static char *
to_text(const char *bytes, size_t len)
{
	char	   *text = pnstrdup(bytes, len);	/* ends at a NUL */

	if (GetDatabaseEncoding() == PG_UTF8 &&
		pg_verify_mbstr(PG_UTF8, text, strlen(text), true))
		return text;
	for (char *c = text; *c != '\0'; c++)
	{
		if (IS_HIGHBIT_SET(*c))
			*c = '?';
	}
	return text;
}

static void
redact(char *text, const char *key)
{
	size_t		len = key ? strlen(key) : 0;
	char	   *found = text;

	if (len == 0)
		return;
	while ((found = strstr(found, key)) != NULL)
	{
		size_t		stars = Min(len, 3);

		memset(found, '*', stars);
		memmove(found + stars, found + len, strlen(found + len) + 1);
		found += stars;
	}
}

/* Control characters become blanks, runs of blanks one. */
static void
squeeze(char *text)
{
	char	   *to = text;

	for (char *from = text; *from != '\0'; from++)
	{
		char		c = *from;

		if ((unsigned char) c < ' ' || c == 0x7f)
			c = ' ';
		if (c == ' ' && (to == text || to[-1] == ' '))
			continue;
		*to++ = c;
	}
	while (to > text && to[-1] == ' ')
		to--;
	*to = '\0';
}

static char *
clean_cut(const Route *route, char *text, int max_chars)
{
	int			len;
	int			keep;

	redact(text, route->api_key);
	squeeze(text);
	redact(text, route->api_key);
	len = strlen(text);
	keep = pg_mbcharcliplen(text, len, max_chars);
	if (keep < len)
		return psprintf("%.*s...", keep, text);
	return text;
}

/*
 * The service's words fit for a message: without control characters and the
 * key, at most 500 characters.  Any bytes will do; palloc'd.
 */
char *
api_clean(const Route *route, const char *text, size_t len)
{
	size_t		scanned = Min(len, MAX_SCANNED);

	/* a key that the bound cuts in two would not be recognised */
	if (scanned < len && route->api_key != NULL)
		scanned -= Min(scanned, strlen(route->api_key));
	while (scanned > 0 && scanned < len && (text[scanned] & 0xC0) == 0x80)
		scanned--;
	return clean_cut(route, to_text(text, scanned), MAX_MESSAGE);
}

static char *
clean_value(const Route *route, const JsonbValue *value)
{
	return api_clean(route, value->val.string.val, value->val.string.len);
}

/* A page's text: what stands outside of tags, scripts and styles. */
static char *
strip_tags(const char *html, size_t len)
{
	char	   *out = palloc(len + 1);
	char	   *to = out;
	size_t		i = 0;

	while (i < len)
	{
		const char *skip_to = NULL;

		if (html[i] != '<')
		{
			*to++ = html[i++];
			continue;
		}
		if (len - i > 7 && pg_strncasecmp(html + i, "<script", 7) == 0)
			skip_to = "</script";
		else if (len - i > 6 && pg_strncasecmp(html + i, "<style", 6) == 0)
			skip_to = "</style";
		for (; skip_to != NULL && i < len; i++)
		{
			if (len - i >= strlen(skip_to) &&
				pg_strncasecmp(html + i, skip_to, strlen(skip_to)) == 0)
				break;
		}
		while (i < len && html[i] != '>')
			i++;
		i++;
		*to++ = ' ';
	}
	*to = '\0';
	return out;
}

static bool
looks_like_html(const char *content_type, const char *body, size_t len)
{
	size_t		i = 0;

	if (content_type != NULL && strstr(content_type, "html") != NULL)
		return true;
	while (i < len && body[i] != '\0' && strchr(" \t\r\n", body[i]))
		i++;
	return i < len && body[i] == '<';
}

/* What bytes that are no JSON say, for a message; empty when nothing. */
static char *
raw_message(const Route *route, const char *content_type, const char *body,
			size_t len)
{
	size_t		scanned = Min(len, MAX_SCANNED);

	if (looks_like_html(content_type, body, len))
	{
		char	   *text = strip_tags(body, scanned);

		return api_clean(route, text, strlen(text));
	}
	return api_clean(route, body, len);
}

/* Where the known services put a message; false when nowhere. */
static bool
find_message(const JsonbValue *root, JsonbValue *message)
{
	JsonbValue	error;
	JsonbValue	first;

	if (root->type == jbvString)
	{
		*message = *root;
		return true;
	}
	if (api_get(root, "error", &error))
	{
		if (error.type == jbvString)
		{
			*message = error;
			return true;
		}
		if (api_get_text(&error, "message", message))
			return true;
	}
	if (api_get_text(root, "message", message) ||
		api_get_text(root, "detail", message) ||
		api_get_text(root, "error_msg", message))
		return true;
	if ((api_get(root, "detail", &error) || api_get(root, "errors", &error) ||
		 (root->type == jbvBinary && (error = *root, true))) &&
		api_element(&error, 0, &first))
	{
		if (first.type == jbvString)
		{
			*message = first;
			return true;
		}
		if (api_get_text(&first, "msg", message) ||
			api_get_text(&first, "message", message) ||
			(api_get(&first, "error", &error) &&
			 api_get_text(&error, "message", message)))
			return true;
	}
	return false;
}

/* Whether an error says that content was refused, not that the call was bad. */
static bool
is_refusal(const JsonbValue *root)
{
	static const char *const codes[] = {
		"content_filter", "content_policy_violation", "responsible_ai_policy_violation"
	};
	JsonbValue	error;
	JsonbValue	v;

	if (!api_get(root, "error", &error))
		return false;
	if (api_get_text(&error, "code", &v) || api_get_text(&error, "type", &v))
	{
		for (int i = 0; i < (int) lengthof(codes); i++)
		{
			if (value_is(&v, codes[i]))
				return true;
		}
	}
	return api_get_text(&error, "message", &v) &&
		strstr(pnstrdup(v.val.string.val, v.val.string.len),
			   "content filtering policy") != NULL;
}

/* An answer whose status is no success. */
static void
read_failure(const Route *route, int status, const char *content_type,
			 const char *body, size_t len, ApiAnswer *answer)
{
	ErrorClass	cls = api_status_class(status, false);
	char	   *message = NULL;
	char	   *fault;
	Jsonb	   *json;

	if (status >= 300 && status < 400)
	{
		api_fail(answer, cls, "redirects are not followed");
		return;
	}
	if (json_parse_untrusted(body, len, &json, &fault))
	{
		JsonbValue	root = api_root(json);
		JsonbValue	text;

		if (find_message(&root, &text))
			message = clean_value(route, &text);
		if (cls == CLASS_PERMANENT && is_refusal(&root))
			cls = CLASS_CONTENT;
	}
	if (message == NULL || message[0] == '\0')
		message = raw_message(route, content_type, body, len);
	if (message[0] == '\0')
		message = psprintf("status %d without a message", status);
	api_fail(answer, cls, message);
}

/* A success that tells of an error in its body, as gateways do. */
static bool
read_error_member(const Route *route, const Jsonb *json, ApiAnswer *answer)
{
	JsonbValue	root = api_root(json);
	JsonbValue	error;
	JsonbValue	text;
	ErrorClass	cls = CLASS_INVALID;
	int64		code;
	char	   *message;

	if (!api_get(&root, "error", &error) || error.type == jbvNull ||
		(error.type == jbvBool && !error.val.boolean) ||
		!find_message(&root, &text))
		return false;
	code = api_get_int(&error, "code");
	if (code >= 400 && code < 600)
		cls = api_status_class((int) code, false);
	if (is_refusal(&root))
		cls = CLASS_CONTENT;
	message = clean_value(route, &text);
	api_fail(answer, cls, message[0] != '\0' ? message
			 : "the answer is an error without a message");
	return true;
}

/* An answer that is not what the api promises, and how it begins. */
static void
unfit(const Route *route, ApiAnswer *answer, char *fault, char *seen)
{
	seen = clean_cut(route, seen, MAX_EXCERPT);
	api_fail(answer, CLASS_INVALID,
			 seen[0] != '\0' ? psprintf("%s: %s", fault, seen) : fault);
}

/*
 * The JSON of a successful answer, or NULL with the failure in answer.  Starts
 * the answer: without tokens, without output.
 */
Jsonb *
api_read_body(const Route *route, int status, const char *content_type,
			  const char *body, size_t len, ApiAnswer *answer)
{
	Jsonb	   *json;
	char	   *fault;

	memset(answer, 0, sizeof(ApiAnswer));
	answer->tokens_in = answer->tokens_out = -1;
	if (status < 200 || status >= 300)
	{
		read_failure(route, status, content_type, body, len, answer);
		return NULL;
	}
	if (!json_parse_untrusted(body, len, &json, &fault))
	{
		unfit(route, answer, psprintf("the answer %s", fault),
			  raw_message(route, content_type, body, len));
		return NULL;
	}
	if (read_error_member(route, json, answer))
		return NULL;
	return json;
}

/* The model or its provider would not answer; reason may be of any type. */
void
api_refuse(const Route *route, ApiAnswer *answer, const JsonbValue *reason)
{
	char	   *why = NULL;

	if (reason != NULL && reason->type == jbvString)
		why = clean_value(route, reason);
	api_fail(answer, CLASS_CONTENT,
			 why != NULL && why[0] != '\0' ? why
			 : "the answer was withheld by a content filter");
}

/* The answer ended at max_tokens; tokens_out is known by now, or is not. */
void
api_cut_off(const ApiRequest *request, ApiAnswer *answer)
{
	JsonbValue	v;
	int64		tokens = answer->tokens_out;
	bool		range = false;

	if (tokens < 0 && request->params != NULL &&
		json_get(request->params, "max_tokens", &v) && v.type == jbvNumeric)
		tokens = numeric_int4_opt_error(v.val.numeric, &range);
	api_fail(answer, CLASS_INVALID,
			 tokens > 0
			 ? psprintf("cut off after " INT64_FORMAT " tokens; raise params.max_tokens",
						tokens)
			 : "cut off; raise params.max_tokens");
	answer->cut_off = true;
}

/* text as UTF-8, which json_parse_untrusted() takes; NULL: it cannot be. */
static char *
to_utf8(char *text)
{
	if (GetDatabaseEncoding() == PG_UTF8 ||
		GetDatabaseEncoding() == PG_SQL_ASCII)
		return text;
	return pg_server_to_any(text, strlen(text), PG_UTF8);
}

/*
 * The JSON inside of what a model wrote: without the thoughts that some
 * services leave in front of it, and without a Markdown fence.
 */
static char *
unwrap_json(const char *text, int len)
{
	char	   *copy = pnstrdup(text, len);
	char	   *start = copy + strspn(copy, " \t\r\n");
	char	   *end;

	if (strncmp(start, "<think>", 7) == 0 &&
		(end = strstr(start, "</think>")) != NULL)
	{
		start = end + 8;
		start += strspn(start, " \t\r\n");
	}
	if (strncmp(start, "```", 3) == 0)
	{
		start += strcspn(start, "\n");
		end = start + strlen(start);
		while (end > start && strchr(" \t\r\n", end[-1]))
			end--;
		if (end - start >= 3 && strncmp(end - 3, "```", 3) == 0)
			end[-3] = '\0';
	}
	return start;
}

/*
 * Takes what the model wrote as the output: as text, or, where a schema was
 * asked for, as the JSON it must be.  Words that are no JSON stay the output
 * of an invalid answer: with them the model can be asked again.
 */
void
api_text_answer(const Route *route, const ApiRequest *request,
				const char *text, int len, ApiAnswer *answer)
{
	char	   *inner;
	char	   *fault;

	if (request->schema == NULL)
	{
		answer->output = json_text_len(text, len);
		return;
	}
	inner = to_utf8(unwrap_json(text, len));
	if (json_parse_untrusted(inner, strlen(inner), &answer->output, &fault))
		return;
	unfit(route, answer, psprintf("the model's answer %s", fault),
		  pnstrdup(text, pg_mbcliplen(text, len, 4096)));
	answer->output = json_text_len(text, len);
}
