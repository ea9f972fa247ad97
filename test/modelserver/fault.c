/*
 * fault.c: what goes wrong, by request.
 *
 * A fault is asked for in three equal ways, which may be mixed: as a query
 * behind the model's name, as field `fault` of the body, as header X-Fault.
 * The keys are in README.md. An unknown key is an error: a test that
 * misspells its fault must not pass because nothing went wrong.
 */
#include "server.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEEP	 100000
#define MAX_SIZE (200L * 1024 * 1024)

/* What fault mix does: all that a client should get over by asking again. */
static const char *const passing[] = {
	"status=408", "status=409", "status=425", "status=429", "status=429&retry_after=1", "status=500", "status=502", "status=503",
	"status=503&retry_after=1", "status=504", "status=529", "reset=head", "reset=mid", "broken=json", "broken=html", "broken=empty",
	"broken=nul", "broken=unul", "broken=utf8", "broken=deep", "broken=deeptext", "broken=type"};

/* And one in LASTING times of what ends a call. A refused key is not here: it is no matter of one call. */
#define LASTING 50
static const char *const lasting[] = {
	"status=400", "status=404", "status=413", "status=422", "redirect=http://127.0.0.1:1/", "refuse=1", "refuse=filter", "hang=1", "size=40000000"};

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

typedef struct Choice
{
	const char *name;
	int			value;
} Choice;

static const Choice resets[] = {{"head", RESET_HEAD}, {"mid", RESET_MID}, {NULL, 0}};
static const Choice refusals[] = {{"1", REFUSE_REFUSAL}, {"true", REFUSE_REFUSAL}, {"refusal", REFUSE_REFUSAL}, {"filter", REFUSE_FILTER}, {NULL, 0}};
static const Choice flags[] = {{"1", 1}, {"true", 1}, {"0", 0}, {"false", 0}, {NULL, 0}};
static const Choice breaks[] = {{"json", BROKEN_JSON}, {"html", BROKEN_HTML}, {"empty", BROKEN_EMPTY}, {"nul", BROKEN_NUL}, {"unul", BROKEN_UNUL}, {"utf8", BROKEN_UTF8}, {"deep", BROKEN_DEEP}, {"deeptext", BROKEN_DEEPTEXT}, {"type", BROKEN_TYPE}, {NULL, 0}};

static bool
bad_value(const char *key, const char *value, const char *wanted, Buf *error)
{
	buf_printf(error, "fault %s cannot be \"%.40s\": %s", key, value, wanted);
	return false;
}

static bool
set_number(const char *key, const char *value, long min, long max, long *to, Buf *error)
{
	char	   *end;
	long		n;

	errno = 0;
	n = strtol(value, &end, 10);
	if (end == value || *end != '\0' || errno != 0 || n < min || n > max)
	{
		char		wanted[80];

		snprintf(wanted, sizeof(wanted), "it takes a number from %ld to %ld", min, max);
		return bad_value(key, value, wanted, error);
	}
	*to = n;
	return true;
}

static bool
set_choice(const char *key, const char *value, const Choice *choices, int *to, Buf *error)
{
	Buf			wanted = {0};

	for (const Choice *c = choices; c->name; c++)
		if (strcmp(c->name, value) == 0)
		{
			*to = c->value;
			return true;
		}
	for (const Choice *c = choices; c->name; c++)
		buf_printf(&wanted, "%s%s", wanted.len ? ", " : "it takes one of ", c->name);
	bad_value(key, value, wanted.data, error);
	buf_free(&wanted);
	return false;
}

static bool
set_text(const char *key, const char *value, char *to, size_t size, Buf *error)
{
	for (const char *c = value; *c; c++)
		if (iscntrl((unsigned char) *c))
			return bad_value(key, value, "control characters are not allowed", error);
	if (strlen(value) >= size)
		return bad_value(key, value, "it is too long", error);
	strcpy(to, value);
	return true;
}

/* Set one key; false and an error text when the key or its value is wrong. */
static bool
fault_set(Fault *f, const char *key, const char *value, Buf *error)
{
	long		n = 0;
	int			c = 0;
	bool		ok;

#define KEY(name) (strcmp(key, name) == 0)
	if (KEY("status"))
		ok = set_number(key, value, 200, 599, &n, error), f->status = (int) n;
	else if (KEY("times"))
		ok = set_number(key, value, 0, 1000000000, &f->times, error);
	else if (KEY("percent"))
		ok = set_number(key, value, 0, 100, &n, error), f->percent = (int) n;
	else if (KEY("mix"))
		ok = set_number(key, value, 0, 100, &n, error), f->mix = (int) n;
	else if (KEY("delay"))
		ok = set_number(key, value, 0, 86400000, &f->delay_ms, error);
	else if (KEY("pace"))
		ok = set_number(key, value, 0, 86400000, &f->pace_ms, error);
	else if (KEY("drip"))
		ok = set_number(key, value, 1, 1000000000, &f->drip, error);
	else if (KEY("size"))
		ok = set_number(key, value, 1, MAX_SIZE, &f->size, error);
	else if (KEY("miss"))
		ok = set_number(key, value, 0, 1000000000, &f->miss, error);
	else if (KEY("reset"))
		ok = set_choice(key, value, resets, &c, error), f->reset = (Reset) c;
	else if (KEY("broken"))
		ok = set_choice(key, value, breaks, &c, error), f->broken = (Broken) c;
	else if (KEY("refuse"))
		ok = set_choice(key, value, refusals, &c, error), f->refuse = (Refuse) c;
	else if (KEY("hang"))
		ok = set_choice(key, value, flags, &c, error), f->hang = c;
	else if (KEY("gzip"))
		ok = set_choice(key, value, flags, &c, error), f->gzip = c;
	else if (KEY("message"))
		ok = set_text(key, value, f->message, sizeof(f->message), error);
	else if (KEY("retry_after"))
		ok = set_text(key, value, f->retry_after, sizeof(f->retry_after), error);
	else if (KEY("redirect"))
		ok = set_text(key, value, f->redirect, sizeof(f->redirect), error);
	else
	{
		buf_printf(error, "unknown fault key \"%.40s\"", key);
		return false;
	}
#undef KEY
	f->active = true;
	return ok;
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Undo %XX and + in place. A %00 ends the string. */
static void
url_decode(char *s)
{
	char	   *to = s;

	for (; *s; s++)
	{
		if (*s == '%' && hex_digit(s[1]) >= 0 && hex_digit(s[2]) >= 0)
		{
			*to++ = (char) (hex_digit(s[1]) * 16 + hex_digit(s[2]));
			s += 2;
		}
		else
			*to++ = *s == '+' ? ' ' : *s;
	}
	*to = '\0';
}

/*
 * Add what "status=503&times=2" says to f. Returns false and appends the
 * reason to error when it is wrong.
 */
bool
fault_parse(Fault *f, const char *text, size_t len, Buf *error)
{
	char	   *copy = mem_copy(text, len);
	char	   *rest = copy;
	char	   *pair;
	bool		ok = true;

	while (ok && (pair = strsep(&rest, "&")) != NULL)
	{
		char	   *value = strchr(pair, '=');

		if (*pair == '\0')
			continue;
		if (value)
			*value++ = '\0';
		else
			value = pair + strlen(pair);
		url_decode(value);
		ok = fault_set(f, pair, value, error);
	}
	free(copy);
	return ok;
}

/* The same for the field `fault`: an object, or a string as in the header. */
bool
fault_parse_json(Fault *f, const json_t *value, Buf *error)
{
	const char *key;
	json_t	   *v;

	if (json_is_string(value))
		return fault_parse(f, json_string_value(value), json_string_length(value), error);
	if (!json_is_object(value))
	{
		buf_puts(error, "fault must be an object or a string");
		return false;
	}
	json_object_foreach((json_t *) value, key, v)
	{
		char		number[32];
		const char *text = number;

		if (json_is_string(v))
			text = json_string_value(v);
		else if (json_is_integer(v))
			snprintf(number, sizeof(number), "%lld", (long long) json_integer_value(v));
		else if (json_is_boolean(v))
			text = json_is_true(v) ? "1" : "0";
		else
			text = "(not a scalar)";
		if (!fault_set(f, key, text, error))
			return false;
	}
	return true;
}

/* Add one of the faults of the mix, or none. */
static void
fault_mix(Fault *f, uint64_t hash)
{
	const char *way;
	Buf			error = {0};

	if ((int) (hash % 100) >= f->mix)
		return;
	hash /= 100;
	if (hash % LASTING == 0)
		way = lasting[hash / LASTING % LENGTH(lasting)];
	else
		way = passing[hash / LASTING % LENGTH(passing)];
	fault_parse(f, way, strlen(way), &error);
	buf_free(&error);
}

/*
 * Does the fault hold for this request? Counts a try of its key (or, without
 * one, of its body) together with the model's name: a fallback to another model
 * under the same key has tries of its own. Clears the fault if not.
 */
void
fault_decide(Request *r)
{
	Fault	   *f = &r->fault;
	Buf			key = {0};
	long		try;
	bool		holds;

	if (!f->active || (f->times < 0 && f->percent < 0 && f->mix == 0))
		return;
	if (r->idempotency_key)
		buf_puts(&key, r->idempotency_key);
	else
		buf_printf(&key, "body %016llx", (unsigned long long) hash_bytes(r->body.data, r->body.len, 0));
	buf_printf(&key, " %d %s", (int) r->endpoint, r->model_name ? r->model_name : "");
	try = count_key("try", key.data, key.len);
	holds = f->times < 0 || try <= f->times;
	buf_printf(&key, " %ld", try);
	if (f->percent >= 0)
		holds = holds && (int) (hash_bytes(key.data, key.len, 0) % 100) < f->percent;
	if (!holds)
	{
		memset(f, 0, sizeof(*f));
		f->times = f->percent = -1;
	}
	else if (f->mix > 0)
		fault_mix(f, hash_bytes(key.data, key.len, 1));
	buf_free(&key);
}

static void
put_deep(Buf *b, size_t at, size_t cut)
{
	char	   *deep = mem_alloc(2 * DEEP);

	memset(deep, '[', DEEP);
	memset(deep + DEEP, ']', DEEP);
	buf_splice(b, at, cut, deep, 2 * DEEP);
	free(deep);
}

/* The quoted string that holds the mark: where it starts and how long it is. */
static size_t
whole_string(const Buf *b, size_t mark, size_t *len)
{
	size_t		from = mark;
	size_t		to = mark;

	while (from > 0 && !(b->data[from] == '"' && (from < 1 || b->data[from - 1] != '\\')))
		from--;
	while (to < b->len && !(b->data[to] == '"' && b->data[to - 1] != '\\'))
		to++;
	*len = to + 1 - from;
	return from;
}

/* Put what the fault wants into the place of the mark, or just take the mark out. */
static void
break_at_mark(Reply *reply, const Fault *f, size_t at)
{
	const size_t mark = strlen(SPLICE_MARK);
	size_t		len;
	size_t		from;

	switch (f->broken)
	{
		case BROKEN_NUL:
			buf_splice(&reply->body, at, mark, "\0", 1);
			return;
		case BROKEN_UNUL:
			buf_splice(&reply->body, at, mark, "\\u0000", 6);
			return;
		case BROKEN_UTF8:
			buf_splice(&reply->body, at, mark, "\xff\xc0\xaf", 3);
			return;
		case BROKEN_DEEPTEXT:
			put_deep(&reply->body, at, mark);
			return;
		case BROKEN_DEEP:
			from = whole_string(&reply->body, at, &len);
			put_deep(&reply->body, from, len);
			return;
		case BROKEN_TYPE:
			from = whole_string(&reply->body, at, &len);
			buf_splice(&reply->body, from, len, "42", 2);
			return;
		default:
			buf_splice(&reply->body, at, mark, NULL, 0);
			reply->pad_at = at;
	}
}

/*
 * Make the finished reply what the fault wants it to be. The wire formats leave
 * SPLICE_MARK in the answer's text when the fault needs a place in it.
 */
void
fault_break(Request *r)
{
	static const char html[] = "<html><head><title>502 Bad Gateway</title></head>\n"
							   "<body><h1>502 Bad Gateway</h1></body></html>\n";
	Reply	   *reply = &r->reply;
	const Fault *f = &r->fault;
	char	   *mark;

	if (!f->active)
		return;
	reply->pad_at = reply->body.len;
	while ((mark = memmem(reply->body.data, reply->body.len, SPLICE_MARK, strlen(SPLICE_MARK))) != NULL)
		break_at_mark(reply, f, (size_t) (mark - reply->body.data));
	if (f->broken == BROKEN_JSON)
		reply->body.len /= 2;
	if (f->broken == BROKEN_EMPTY)
		reply->body.len = 0;
	if (f->broken == BROKEN_HTML)
	{
		buf_reset(&reply->body);
		buf_puts(&reply->body, html);
		reply->type = "text/html";
	}
	if (reply->pad_at > reply->body.len)
		reply->pad_at = reply->body.len;
	if ((size_t) f->size > reply->body.len)
		reply->pad_len = (size_t) f->size - reply->body.len;
	if (f->gzip && reply->pad_len == 0)
		gzip_stored(&reply->body);
}
