/*
 * backoff.c
 *	  How long to wait before the next attempt.
 *
 * Exponential backoff with full jitter: the n-th wait is drawn evenly from
 * zero to a bound that grows by a factor and is capped.  Full jitter spreads
 * the calls that one outage failed at the same moment over the whole bound,
 * which fixed or half-jittered waits do not.  What the service itself asks
 * for (Retry-After, RFC 9110 section 10.2.3) wins when it is longer.
 *
 * Nothing here knows of PostgreSQL, so that it can be tested with plain cc;
 * the clock and the random number are arguments.
 */
#include "policy/backoff.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "policy/scan.h"

/* No wait is longer than a year: what asks for more is broken or hostile. */
#define LONGEST_MS (INT64_C(366) * 24 * 60 * 60 * 1000)

typedef struct HttpDate
{
	int			year;
	int			month;			/* 1 … 12 */
	int			day;
	int			hour;
	int			minute;
	int			second;
} HttpDate;

static const char month_names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

static int64_t
clamp_ms(double ms)
{
	if (!(ms > 0))				/* NaN too */
		return 0;
	if (ms >= (double) LONGEST_MS)
		return LONGEST_MS;
	return (int64_t) ms;
}

/*
 * Bound of the wait after `failures` failed attempts (1 after the first), in
 * ms: first × factor^(failures − 1), at most max and at most a year.  Never
 * negative, whatever the policy holds; a factor below 1 counts as 1.
 */
int64_t
backoff_bound_ms(const RetryPolicy *policy, int failures)
{
	double		factor = policy->factor > 1 ? policy->factor : 1;
	double		bound = (double) policy->first_ms;

	if (failures > 1)
		bound *= pow(factor, failures - 1); /* infinite at worst */
	if (!(bound < (double) policy->max_ms))
		bound = (double) policy->max_ms;
	return clamp_ms(bound);
}

/*
 * The wait itself, in ms: `uniform` (0 ≤ u < 1) of the bound, or
 * retry_after_ms when that is longer; retry_after_ms ≤ 0 means not told.
 */
int64_t
backoff_wait_ms(const RetryPolicy *policy, int failures, double uniform,
				int64_t retry_after_ms)
{
	int64_t		wait;

	if (!(uniform > 0))
		uniform = 0;
	if (uniform > 1)
		uniform = 1;
	wait = clamp_ms(uniform * (double) backoff_bound_ms(policy, failures));
	if (retry_after_ms > LONGEST_MS)
		retry_after_ms = LONGEST_MS;
	return retry_after_ms > wait ? retry_after_ms : wait;
}

static const char *
take_text(const char *p, const char *text)
{
	size_t		len = strlen(text);

	return p != NULL && strncmp(p, text, len) == 0 ? p + len : NULL;
}

static const char *
take_month(const char *p, int *month)
{
	if (p == NULL || strlen(p) < 3)
		return NULL;
	for (int i = 0; i < 12; i++)
		if (strncmp(p, month_names + 3 * i, 3) == 0)
		{
			*month = i + 1;
			return p + 3;
		}
	return NULL;
}

/* hour ":" minute ":" second */
static const char *
take_time(const char *p, HttpDate *date)
{
	p = scan_digits(p, 2, &date->hour);
	p = scan_digits(take_text(p, ":"), 2, &date->minute);
	return scan_digits(take_text(p, ":"), 2, &date->second);
}

static bool
at_end(const char *p)
{
	return p != NULL && *scan_blanks(p) == '\0';
}

/* Sun, 06 Nov 1994 08:49:37 GMT; p stands behind the comma */
static bool
read_imf_date(const char *p, HttpDate *date)
{
	p = scan_digits(take_text(p, " "), 2, &date->day);
	p = take_month(take_text(p, " "), &date->month);
	p = scan_digits(take_text(p, " "), 4, &date->year);
	p = take_time(take_text(p, " "), date);
	return at_end(take_text(p, " GMT"));
}

/*
 * Sunday, 06-Nov-94 08:49:37 GMT; p stands behind the comma.  The two-digit
 * year is the one nearest to `this_year`, at most 50 years ahead.
 */
static bool
read_rfc850_date(const char *p, int this_year, HttpDate *date)
{
	p = scan_digits(take_text(p, " "), 2, &date->day);
	p = take_month(take_text(p, "-"), &date->month);
	p = scan_digits(take_text(p, "-"), 2, &date->year);
	p = take_time(take_text(p, " "), date);
	if (!at_end(take_text(p, " GMT")))
		return false;
	date->year += this_year / 100 * 100;
	if (date->year > this_year + 50)
		date->year -= 100;
	return true;
}

/* Sun Nov  6 08:49:37 1994; p stands behind the day's name */
static bool
read_asctime_date(const char *p, HttpDate *date)
{
	p = take_text(take_month(take_text(p, " "), &date->month), " ");
	if (p != NULL && *p == ' ')
		p = scan_digits(p + 1, 1, &date->day);
	else
		p = scan_digits(p, 2, &date->day);
	p = take_time(take_text(p, " "), date);
	return at_end(scan_digits(take_text(p, " "), 4, &date->year));
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

static bool
date_valid(const HttpDate *date)
{
	return date->day >= 1 && date->day <= 31 && date->hour <= 23 &&
		date->minute <= 59 && date->second <= 60;	/* a leap second */
}

/* All three forms of HTTP-date (RFC 9110 section 5.6.7). */
static bool
read_http_date(const char *text, int64_t now_unix_ms, int64_t *unix_ms)
{
	/* exact enough for choosing a century */
	int			this_year = 1970 +
		(int) (now_unix_ms / (INT64_C(1000) * 31556952));
	const char *comma = strchr(text, ',');
	HttpDate	date = {0};
	bool		read;

	if (comma == NULL)
		read = strlen(text) > 3 && read_asctime_date(text + 3, &date);
	else
		read = read_imf_date(comma + 1, &date) ||
			read_rfc850_date(comma + 1, this_year, &date);
	if (!read || !date_valid(&date))
		return false;
	*unix_ms = 1000 *
		(days_since_epoch(date.year, date.month, date.day) * 86400 +
		 date.hour * 3600 + date.minute * 60 + date.second);
	return true;
}

/*
 * Seconds, as RFC 9110 has them; some services send a fraction, which is
 * rounded up to the next ms.
 */
static bool
read_seconds(const char *text, int64_t *ms)
{
	int64_t		whole = 0;
	int			thousandths = 0;
	int			unit = 100;
	bool		rest = false;

	for (; scan_is_digit(*text); text++)
		if (whole <= LONGEST_MS)	/* beyond it the digits do not matter */
			whole = whole * 10 + (*text - '0');
	if (*text == '.' && scan_is_digit(text[1]))
		for (text++; scan_is_digit(*text); text++)
		{
			rest |= unit == 0 && *text != '0';
			thousandths += unit * (*text - '0');
			unit /= 10;
		}
	if (!at_end(text))
		return false;
	*ms = whole > LONGEST_MS / 1000 ? LONGEST_MS :
		whole * 1000 + thousandths + rest;
	return true;
}

/*
 * Read a Retry-After header's value: seconds or an HTTP-date (then relative
 * to now_unix_ms, ms since 1970 UTC).  *wait_ms is at least 0 (a date that is
 * past) and at most a year.  False, with *wait_ms 0, for NULL and for
 * anything that is neither form.
 */
bool
retry_after_ms(const char *header, int64_t now_unix_ms, int64_t *wait_ms)
{
	int64_t		when;

	*wait_ms = 0;
	if (header == NULL)
		return false;
	header = scan_blanks(header);
	if (scan_is_digit(*header))
		return read_seconds(header, wait_ms);
	if (!read_http_date(header, now_unix_ms, &when))
		return false;
	if (when > now_unix_ms)
		*wait_ms = when - now_unix_ms > LONGEST_MS ? LONGEST_MS :
			when - now_unix_ms;
	return true;
}
