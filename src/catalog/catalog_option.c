/*
 * catalog_option.c
 *	  Texts of options and columns as numbers.
 *
 * Functions that return a bool or a phrase do not raise: whoever asks knows
 * which option of which object the fault belongs to and says so.
 */
#include "postgres.h"

#include <math.h>

#include "base/json.h"
#include "catalog/catalog_option.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/numeric.h"

/* Lengths that an int holds, as timers and libcurl take them: 24 days. */
#define MAX_MS ((int64) PG_INT32_MAX)

#define MAX_ATTEMPTS 100

/* A month counts 30 days, as in comparisons of intervals. */
int64
option_interval_ms(const Interval *interval)
{
	double		ms;

	ms = interval->time / 1000.0 +
		(interval->day + interval->month * (double) DAYS_PER_MONTH) *
		(double) SECS_PER_DAY * 1000.0;
	if (ms > (double) PG_INT64_MAX / 2)
		return PG_INT64_MAX / 2;
	if (ms < (double) PG_INT64_MIN / 2)
		return PG_INT64_MIN / 2;
	/* what is not zero must not become zero */
	return (int64) (ms > 0 ? ceil(ms) : floor(ms));
}

/*
 * Reads a length of time: an interval as PostgreSQL writes them, or a bare
 * number of milliseconds.  False when it is neither, or beyond 24 days.
 */
bool
option_milliseconds(const char *text, int64 *ms)
{
	char		work[256];
	char	   *fields[MAXDATEFIELDS];
	int			types[MAXDATEFIELDS];
	int			nfields;
	int			dtype;
	struct pg_itm_in itm;
	Interval	interval;

	if (text[0] != '\0' && strspn(text, "0123456789") == strlen(text))
	{
		errno = 0;
		*ms = strtoll(text, NULL, 10);
		return errno == 0 && *ms <= MAX_MS;
	}

	memset(&itm, 0, sizeof(itm));
	if (strlen(text) >= sizeof(work) ||
		ParseDateTime(text, work, sizeof(work), fields, types,
					  MAXDATEFIELDS, &nfields) != 0)
		return false;
	if (DecodeInterval(fields, types, nfields, INTERVAL_FULL_RANGE, &dtype,
					   &itm) != 0 &&
		DecodeISO8601Interval(unconstify(char *, text), &dtype, &itm) != 0)
		return false;
	if (dtype != DTK_DELTA || itmin2interval(&itm, &interval) != 0)
		return false;
	*ms = option_interval_ms(&interval);
	return *ms >= -MAX_MS && *ms <= MAX_MS;
}

/* Reads a size: a number of bytes, or with a unit (kB, MB, GB). */
bool
option_bytes(const char *text, int64 *bytes)
{
	int			n;

	if (!parse_int(text, &n, GUC_UNIT_BYTE, NULL))
		return false;
	*bytes = n;
	return true;
}

/* Reads a whole number from 0, written in digits. */
bool
option_count(const char *text, int *count)
{
	return text[0] != '\0' && strspn(text, "0123456789") == strlen(text) &&
		parse_int(text, count, 0, NULL);
}

/* Whether value is a whole number that an int holds, which it becomes. */
bool
option_whole(const JsonbValue *value, int *number)
{
	bool		range = false;

	if (value->type != jbvNumeric ||
		strchr(numeric_normalize(value->val.numeric), '.') != NULL)
		return false;
	*number = numeric_int4_opt_error(value->val.numeric, &range);
	return !range;
}

/* The URL without its trailing slashes, palloc'd. */
char *
option_url(const char *text)
{
	size_t		len = strlen(text);

	while (len > 0 && text[len - 1] == '/')
		len--;
	return pnstrdup(text, len);
}

/* NULL when host[:port] of len bytes is well formed, else what is wrong. */
static const char *
authority_fault(const char *text, size_t len)
{
	const char *end = text + len;
	const char *port = end;
	const char *host_end;

	if (memchr(text, '@', len) != NULL)
		return "it holds a user name or a password";
	if (len > 0 && text[0] == '[')
	{
		host_end = memchr(text, ']', len);
		if (host_end == NULL || host_end == text + 1)
			return "its IPv6 address is not closed by a bracket";
		port = ++host_end;
	}
	else
	{
		port = memchr(text, ':', len);
		if (port == NULL)
			port = end;
		host_end = port;
	}
	if (host_end == text)
		return "it names no host";
	if (port < end)
	{
		char	   *rest;
		long		number;

		if (*port != ':' || port + 1 == end || port[1] < '0' || port[1] > '9')
			return "its port is not a number";
		number = strtol(port + 1, &rest, 10);
		if (rest != end)
			return "its port is not a number";
		if (number < 1 || number > 65535)
			return "its port is out of range";
	}
	return NULL;
}

/*
 * NULL when text is a URL that calls may go to (or, for a proxy, through),
 * else a phrase that says what is wrong and does not repeat the text, which
 * may hold a password.
 */
const char *
option_url_fault(const char *text, bool proxy)
{
	static const char *const schemes[] = {"https://", "http://", NULL};
	const char *rest = NULL;
	size_t		len;
	const char *fault;

	for (int i = 0; schemes[i] != NULL; i++)
	{
		if (pg_strncasecmp(text, schemes[i], strlen(schemes[i])) == 0)
			rest = text + strlen(schemes[i]);
	}
	if (rest == NULL)
		return "it begins with neither https:// nor http://";
	for (const char *c = text; *c != '\0'; c++)
	{
		if ((unsigned char) *c <= ' ' || (unsigned char) *c >= 0x7f || *c == '\\')
			return "it holds a character that no URL has";
	}
	len = strcspn(rest, "/?#");
	if ((fault = authority_fault(rest, len)) != NULL)
		return fault;
	if (strpbrk(rest + len, "?#") != NULL)
		return "it has a query or a fragment";
	if (proxy && rest[len] != '\0' && strcmp(rest + len, "/") != 0)
		return "a proxy has no path";
	return NULL;
}

/* Compiles a path, strict unless it says lax; raises what is wrong. */
JsonPath *
option_jsonpath(const char *text)
{
	char	   *path = pstrdup(text);
	char	   *word = path + strspn(path, " \t\r\n");

	if (pg_strncasecmp(word, "strict", 6) != 0 &&
		pg_strncasecmp(word, "lax", 3) != 0)
		path = psprintf("strict %s", path);
	return DatumGetJsonPathP(DirectFunctionCall1(jsonpath_in,
												 CStringGetDatum(path)));
}

/* NULL when the key can go into a header, else what is wrong with it. */
const char *
option_key_fault(const char *key)
{
	if (key[0] == '\0')
		return "the key is empty";
	for (const char *c = key; *c != '\0'; c++)
	{
		if ((unsigned char) *c < ' ' || *c == 0x7f)
			return "the key holds a control character";
	}
	return NULL;
}

static void
retry_fault(const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid retry policy: %s", what),
			 errhint("%s", hint)));
}

/* A member of the policy as milliseconds: a number of them or an interval. */
static int64
retry_milliseconds(const char *key, const JsonbValue *value)
{
	int64		ms = -1;
	int			number;
	bool		ok = false;

	if (value->type == jbvString)
		ok = option_milliseconds(pnstrdup(value->val.string.val,
										  value->val.string.len), &ms);
	else if (option_whole(value, &number))
	{
		ms = number;
		ok = true;
	}
	if (!ok || ms < 0)
		retry_fault(psprintf("\"%s\" is no length of time", key),
					"Give an interval such as '2 seconds', or a number of milliseconds.");
	return ms;
}

static int
retry_attempts(const JsonbValue *value, int least)
{
	int			n;

	if (!option_whole(value, &n) || n < least || n > MAX_ATTEMPTS)
		retry_fault(least == 0 ? "the number of repetitions is out of range"
					: "\"attempts\" is out of range",
					psprintf("Give a whole number from %d to %d.", least,
							 MAX_ATTEMPTS));
	return n;
}

static double
retry_factor(const JsonbValue *value)
{
	double		factor = 0;

	/* by text: the cast's function raises where a double overflows */
	if (value->type == jbvNumeric)
		factor = strtod(numeric_normalize(value->val.numeric), NULL);
	if (!(factor >= 1 && factor <= 1000))
		retry_fault("\"factor\" is out of range",
					"Give a number from 1 to 1000.");
	return factor;
}

static void
push_number(JsonbParseState **state, const char *key, int64 value)
{
	json_push_key(state, key);
	json_push(state, WJB_VALUE, json_int(value));
}

/*
 * Checks a retry policy and brings it into one form.
 *
 * It is a number of repetitions or an object {attempts, first, factor, max};
 * the result is that object with the members that were given, attempts
 * counting the first one too and times in milliseconds.  Raises
 * ERRCODE_INVALID_PARAMETER_VALUE.
 */
Jsonb *
option_retry(const Jsonb *retry)
{
	JsonbParseState *state = NULL;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (json_scalar(retry, &v) && v.type == jbvNumeric)
		push_number(&state, "attempts", retry_attempts(&v, 0) + 1);
	else if (!JB_ROOT_IS_OBJECT(retry))
		retry_fault(psprintf("it is of type %s", json_type_name(retry)),
					"Give a number of repetitions or an object with attempts, first, factor and max.");
	else
	{
		it = JsonbIteratorInit(unconstify(JsonbContainer *, &retry->root));
		while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
		{
			char	   *key;

			if (token != WJB_KEY)
				continue;
			key = pnstrdup(v.val.string.val, v.val.string.len);
			(void) JsonbIteratorNext(&it, &v, true);
			if (strcmp(key, "attempts") == 0)
				push_number(&state, key, retry_attempts(&v, 1));
			else if (strcmp(key, "first") == 0 || strcmp(key, "max") == 0)
				push_number(&state, key, retry_milliseconds(key, &v));
			else if (strcmp(key, "factor") == 0)
			{
				(void) retry_factor(&v);
				json_push_key(&state, key);
				(void) pushJsonbValue(&state, WJB_VALUE, &v);
			}
			else
				retry_fault(psprintf("unknown key \"%s\"", key),
							"Known keys: attempts, first, factor, max.");
		}
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}
