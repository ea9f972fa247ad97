/*
 * reset.c
 *	  When a service that has refused a request as too many takes requests
 *	  again, by the headers of its answer.
 *
 * Beside Retry-After, which backoff.c reads, services say it in ways of their
 * own: retry-after-ms (OpenAI, Azure); for each of several buckets what is
 * left and when it is full again (OpenAI's x-ratelimit-*: durations as Go
 * writes them; Anthropic's anthropic-ratelimit-*: RFC 3339); RateLimit-Reset
 * (draft-ietf-httpapi-ratelimit-headers) and x-ratelimit-reset, seconds from
 * now or the time itself.  Of buckets those count that are told to be empty:
 * the others' times say nothing about this request.
 *
 * Headers are written by somebody else: what is malformed counts as not sent,
 * and nothing is believed for more than an hour.
 */
#include "policy/reset.h"

#include <stddef.h>
#include <string.h>

#include "policy/scan.h"

#include "policy/backoff.h"

/* Where digits stop to matter; far from overflow when multiplied below. */
#define MOST_DIGITS_VALUE (INT64_C(1000000) * 1000000 * 1000)

static int64_t
clamp(int64_t ms)
{
	if (ms < 0)
		return 0;
	return ms > RESET_LONGEST_MS ? RESET_LONGEST_MS : ms;
}

/*
 * A decimal number, whole and thousandths (rounded up), behind which *p then
 * stands; false: there is none.  What is larger than matters is cut.
 */
static bool
take_decimal(const char **p, int64_t *whole, int *thousandths)
{
	int			unit = 100;
	bool		rest = false;

	*whole = 0;
	*thousandths = 0;
	if (!scan_is_digit(**p))
		return false;
	for (; scan_is_digit(**p); (*p)++)
		if (*whole < MOST_DIGITS_VALUE)
			*whole = *whole * 10 + (**p - '0');
	if (**p != '.' || !scan_is_digit((*p)[1]))
		return true;
	for ((*p)++; scan_is_digit(**p); (*p)++)
	{
		rest |= unit == 0 && **p != '0';
		*thousandths += unit * (**p - '0');
		unit /= 10;
	}
	*thousandths += rest;
	return true;
}

/* A number and nothing else. */
static bool
read_decimal(const char *text, int64_t *whole, int *thousandths)
{
	text = scan_blanks(text);
	return take_decimal(&text, whole, thousandths) &&
		*scan_blanks(text) == '\0';
}

/* Thousandths of a millisecond in a unit as Go writes it, and its length. */
static int64_t
unit_us(const char *p, int *len)
{
	static const struct
	{
		const char *name;
		int64_t		us;
	}			units[] =
	{
		/* longer names first */
		{"ms", 1000},
		{"us", 1},
		{"\xc2\xb5s", 1},
		{"\xce\xbcs", 1},
		{"ns", 0},
		{"s", 1000000},
		{"m", 60 * INT64_C(1000000)},
		{"h", 3600 * INT64_C(1000000)},
		{"d", 86400 * INT64_C(1000000)},
	};

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
	{
		*len = (int) strlen(units[i].name);
		if (strncmp(p, units[i].name, *len) == 0)
			return units[i].us;
	}
	return -1;
}

/*
 * Read a duration as Go writes it: "6m0s", "1.5s", "20ms", "1h2m3s".  *ms is
 * rounded up and at most an hour.  False, with *ms 0, for NULL and for
 * anything else.
 */
bool
reset_duration_ms(const char *text, int64_t *ms)
{
	int64_t		us = 0;
	int64_t		most = RESET_LONGEST_MS * 1000;
	bool		any = false;

	*ms = 0;
	if (text == NULL)
		return false;
	for (text = scan_blanks(text); scan_is_digit(*text); any = true)
	{
		int64_t		whole;
		int			thousandths;
		int			len;
		int64_t		unit;

		(void) take_decimal(&text, &whole, &thousandths);
		unit = unit_us(text, &len);
		if (unit < 0)
			return false;
		text += len;
		if (unit > 0 && whole >= most / unit)
			us = most;
		else
			us += whole * unit + (thousandths * unit + 999) / 1000;
		if (us > most)
			us = most;
	}
	if (!any || *scan_blanks(text) != '\0')
		return false;
	*ms = (us + 999) / 1000;
	return true;
}

static const char *
take_char(const char *p, const char *chars)
{
	return p != NULL && *p != '\0' && strchr(chars, *p) ? p + 1 : NULL;
}

/* "Z" or "+02:00", as minutes to take off. */
static const char *
take_offset(const char *p, int *minutes)
{
	const char *digits;
	int			hour;
	int			minute;

	*minutes = 0;
	if (take_char(p, "Zz"))
		return p + 1;
	digits = take_char(p, "+-");
	if (digits == NULL)
		return NULL;
	digits = scan_digits(digits, 2, &hour);
	digits = scan_digits(take_char(digits, ":"), 2, &minute);
	if (digits == NULL || hour > 23 || minute > 59)
		return NULL;
	*minutes = (hour * 60 + minute) * (*p == '-' ? -1 : 1);
	return digits;
}

/* Days from 1970-01-01 to a date of the proleptic Gregorian calendar. */
static int64_t
days_since_epoch(int year, int month, int day)
{
	int64_t		y = month > 2 ? year : year - 1;	/* years start in March */
	int64_t		m = (month + 9) % 12;

	return 365 * y + y / 4 - y / 100 + y / 400 + (m * 306 + 5) / 10 + day -
		1 - 719468;
}

/*
 * Read a time as RFC 3339 has it ("2026-01-31T23:59:59.5Z", "…+02:00") as ms
 * since 1970 UTC.  False, with *unix_ms 0, for NULL and for anything else.
 */
bool
reset_timestamp_ms(const char *text, int64_t *unix_ms)
{
	int			year;
	int			month;
	int			day;
	int			hour;
	int			minute;
	int			second;
	int			offset;
	int			thousandths = 0;
	const char *p;

	*unix_ms = 0;
	if (text == NULL)
		return false;
	p = scan_digits(scan_blanks(text), 4, &year);
	p = scan_digits(take_char(p, "-"), 2, &month);
	p = scan_digits(take_char(p, "-"), 2, &day);
	p = scan_digits(take_char(p, "Tt "), 2, &hour);
	p = scan_digits(take_char(p, ":"), 2, &minute);
	p = scan_digits(take_char(p, ":"), 2, &second);
	if (p != NULL && *p == '.')
	{
		int			unit = 100;

		if (!scan_is_digit(p[1]))
			return false;
		for (p++; scan_is_digit(*p); p++, unit /= 10)
			thousandths += unit * (*p - '0');
	}
	p = take_offset(p, &offset);
	if (p == NULL || *scan_blanks(p) != '\0' || month < 1 || month > 12 ||
		day < 1 || day > 31 || hour > 23 || minute > 59 || second > 60)
		return false;
	*unix_ms = ((days_since_epoch(year, month, day) * 1440 + hour * 60 +
				 minute - offset) * 60 + second) * 1000 + thousandths;
	return true;
}

typedef struct Headers
{
	ResetHeader header;
	void	   *arg;
	int64_t		now_unix_ms;
} Headers;

/* The header called prefix + middle + suffix. */
static const char *
find(const Headers *headers, const char *prefix, const char *middle,
	 const char *suffix)
{
	char		name[80];
	size_t		len = 0;
	const char *parts[3] = {prefix, middle, suffix};

	for (int i = 0; i < 3; i++)
	{
		size_t		n = strlen(parts[i]);

		memcpy(name + len, parts[i], n);
		len += n;
	}
	name[len] = '\0';
	return headers->header(headers->arg, name);
}

/* Is there a number, and is it 0? */
static bool
is_none(const char *remaining)
{
	int64_t		whole;
	int			thousandths;

	return remaining != NULL &&
		read_decimal(remaining, &whole, &thousandths) && whole == 0 &&
		thousandths == 0;
}

/*
 * Seconds from now, or a time since 1970 in seconds or, as some write it, in
 * milliseconds: there is no service that is full again in thirty years.
 */
static bool
read_seconds_or_time(const Headers *headers, const char *text,
					 int64_t *wait_ms)
{
	int64_t		whole;
	int			thousandths;

	if (text == NULL || !read_decimal(text, &whole, &thousandths))
		return false;
	if (whole >= INT64_C(100000000000))
		*wait_ms = clamp(whole - headers->now_unix_ms);
	else if (whole >= 1000000000)
		*wait_ms = clamp(whole * 1000 + thousandths - headers->now_unix_ms);
	else
		*wait_ms = clamp(whole * 1000 + thousandths);
	return true;
}

/* A duration, a time in words, or a number. */
static bool
read_reset(const Headers *headers, const char *text, int64_t *wait_ms)
{
	int64_t		when;

	if (reset_duration_ms(text, wait_ms))
		return true;
	if (reset_timestamp_ms(text, &when))
	{
		*wait_ms = clamp(when - headers->now_unix_ms);
		return true;
	}
	return read_seconds_or_time(headers, text, wait_ms);
}

/* The longest wait among the buckets that are empty. */
static bool
empty_buckets(const Headers *headers, int64_t *wait_ms)
{
	static const struct
	{
		const char *before;		/* the bucket's name */
		const char *remaining;	/* what follows it */
		const char *reset_before;
		const char *reset;
	}			styles[] =
	{
		{"x-ratelimit-remaining-", "", "x-ratelimit-reset-", ""},
		{"anthropic-ratelimit-", "-remaining", "anthropic-ratelimit-", "-reset"},
	};
	static const char *const buckets[] = {
		"requests", "tokens", "input-tokens", "output-tokens"
	};
	bool		any = false;

	*wait_ms = 0;
	for (size_t s = 0; s < sizeof(styles) / sizeof(styles[0]); s++)
		for (size_t b = 0; b < sizeof(buckets) / sizeof(buckets[0]); b++)
		{
			int64_t		wait;

			if (!is_none(find(headers, styles[s].before, buckets[b],
							  styles[s].remaining)) ||
				!read_reset(headers, find(headers, styles[s].reset_before,
										  buckets[b], styles[s].reset),
							&wait))
				continue;
			any = true;
			if (wait > *wait_ms)
				*wait_ms = wait;
		}
	return any;
}

/* A service with one bucket. */
static bool
only_bucket(const Headers *headers, const char *reset_name,
			const char *remaining_name, int64_t *wait_ms)
{
	const char *remaining = headers->header(headers->arg, remaining_name);

	if (remaining != NULL && !is_none(remaining))
		return false;
	return read_reset(headers, headers->header(headers->arg, reset_name),
					  wait_ms);
}

static bool
retry_after_in_ms(const Headers *headers, int64_t *wait_ms)
{
	const char *text = headers->header(headers->arg, "retry-after-ms");
	int64_t		whole;
	int			thousandths;

	if (text == NULL || !read_decimal(text, &whole, &thousandths))
		return false;
	*wait_ms = clamp(whole + (thousandths > 0));
	return true;
}

/*
 * How long a service that has answered "too many" does not want to be asked,
 * in ms from now_unix_ms (ms since 1970 UTC): by retry-after-ms, Retry-After
 * (which alone may be longer than an hour), or the time at which the bucket
 * that is empty is full again.  False, with *wait_ms 0: it does not say.
 */
bool
reset_wait_ms(ResetHeader header, void *arg, int64_t now_unix_ms,
			  int64_t *wait_ms)
{
	Headers		headers = {header, arg, now_unix_ms};

	if (retry_after_in_ms(&headers, wait_ms) ||
		retry_after_ms(header(arg, "retry-after"), now_unix_ms, wait_ms) ||
		empty_buckets(&headers, wait_ms) ||
		only_bucket(&headers, "ratelimit-reset", "ratelimit-remaining", wait_ms) ||
		only_bucket(&headers, "x-ratelimit-reset", "x-ratelimit-remaining",
					wait_ms))
		return true;
	*wait_ms = 0;
	return false;
}
