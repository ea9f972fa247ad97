/*
 * backoff.c
 *	  Unit test of src/policy/backoff.c, in TAP.
 *
 * cc -Isrc test/unit/backoff.c src/policy/backoff.c -lm -o backoff && ./backoff
 */
#include "policy/backoff.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Sun, 06 Nov 1994 08:49:37 GMT, the date RFC 9110 uses as its example */
#define EXAMPLE_MS (INT64_C(784111777) * 1000)
#define YEAR_MS (INT64_C(366) * 24 * 60 * 60 * 1000)

static int	tests;
static int	failed;

static void
ok(bool holds, const char *name)
{
	printf("%sok %d - %s\n", holds ? "" : "not ", ++tests, name);
	failed += !holds;
}

static void
is(int64_t got, int64_t expected, const char *name)
{
	ok(got == expected, name);
	if (got != expected)
		printf("# got %lld, expected %lld\n", (long long) got,
			   (long long) expected);
}

/* Reading fails and leaves no wait. */
static void
refuses(const char *header)
{
	int64_t		wait = 77;
	bool		read = retry_after_ms(header, EXAMPLE_MS, &wait);
	char		name[120];

	snprintf(name, sizeof(name), "\"%s\" is no Retry-After",
			 header ? header : "(null)");
	ok(!read && wait == 0, name);
}

static void
reads(const char *header, int64_t now, int64_t expected)
{
	int64_t		wait = 77;
	bool		read = retry_after_ms(header, now, &wait);
	char		name[120];

	snprintf(name, sizeof(name), "Retry-After \"%.60s\"", header);
	ok(read && wait == expected, name);
	if (!read || wait != expected)
		printf("# read %d, got %lld, expected %lld\n", read, (long long) wait,
			   (long long) expected);
}

static void
test_bounds(void)
{
	RetryPolicy policy = RETRY_DEFAULT;
	RetryPolicy flat = {5, 250, 1.0, 30000};
	RetryPolicy shrinking = {5, 250, 0.1, 30000};
	RetryPolicy huge = {INT_MAX, INT64_MAX, 1e300, INT64_MAX};
	RetryPolicy negative = {3, -5, -2.0, -1};
	RetryPolicy odd = {3, 1000, NAN, 30000};

	is(backoff_bound_ms(&policy, 1), 1000, "first bound is first_ms");
	is(backoff_bound_ms(&policy, 2), 2000, "second is factor times as long");
	is(backoff_bound_ms(&policy, 5), 16000, "fifth");
	is(backoff_bound_ms(&policy, 6), 30000, "sixth is capped");
	is(backoff_bound_ms(&policy, INT_MAX), 30000, "and so is the last of all");
	is(backoff_bound_ms(&policy, 0), 1000, "no failure yet counts as one");
	is(backoff_bound_ms(&policy, -7), 1000, "nor does less");
	is(backoff_bound_ms(&flat, INT_MAX), 250, "factor 1 does not grow");
	is(backoff_bound_ms(&shrinking, 4), 250, "factor below 1 does not shrink");
	is(backoff_bound_ms(&huge, INT_MAX), YEAR_MS, "overflow ends at a year");
	is(backoff_bound_ms(&negative, 2), 0, "negative policy waits nothing");
	is(backoff_bound_ms(&odd, 3), 1000, "factor NaN counts as 1");
}

/*
 * 1,000 waits after so many failures: all within the bound, their mean half of
 * it, and no part of it left out.
 */
static void
test_draws(const RetryPolicy *policy, int failures, int64_t bound)
{
	int			out_of_bounds = 0;
	int			quarters[4] = {0};
	double		sum = 0;
	char		name[80];

	srand48(42 + failures);
	for (int i = 0; i < 1000; i++)
	{
		int64_t		wait = backoff_wait_ms(policy, failures, drand48(), 0);

		if (wait < 0 || wait >= bound)
			out_of_bounds++;
		else
			quarters[wait * 4 / bound]++;
		sum += wait;
	}
	snprintf(name, sizeof(name), "1000 waits after %d failures: in [0, %d)",
			 failures, (int) bound);
	is(out_of_bounds, 0, name);

	/* five times the deviation of the mean of so many even draws */
	ok(fabs(sum / 1000 - bound / 2.0) < 5 * bound / sqrt(12.0 * 1000),
	   "their mean is half the bound");
	for (int i = 0; i < 4; i++)
		ok(quarters[i] > 180 && quarters[i] < 320, "each quarter has its share");
}

/* The rule: 1 s, twice as long each time, at most 30 s; and another one. */
static void
test_all_draws(void)
{
	static const int64_t bounds[] = {1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000};
	RetryPolicy policy = RETRY_DEFAULT;
	RetryPolicy other = {10, 100, 3.0, 2000};

	ok(policy.attempts == 5, "five attempts");
	for (int i = 0; i < 8; i++)
		test_draws(&policy, i + 1, bounds[i]);
	test_draws(&other, 1, 100);
	test_draws(&other, 3, 900);
	test_draws(&other, 4, 2000);
}

static void
test_waits(void)
{
	RetryPolicy policy = RETRY_DEFAULT;

	is(backoff_wait_ms(&policy, 1, 0.5, 0), 500, "half the bound");
	is(backoff_wait_ms(&policy, 1, 0.0, 0), 0, "none of it");
	is(backoff_wait_ms(&policy, 1, 7.0, 0), 1000, "a draw over 1 is 1");
	is(backoff_wait_ms(&policy, 1, -7.0, 0), 0, "a draw below 0 is 0");
	is(backoff_wait_ms(&policy, 1, NAN, 0), 0, "a draw that is none is 0");
	is(backoff_wait_ms(&policy, 1, 0.5, 499), 500, "shorter Retry-After loses");
	is(backoff_wait_ms(&policy, 1, 0.5, 501), 501, "longer Retry-After wins");
	is(backoff_wait_ms(&policy, 1, 0.5, 90000), 90000, "even over max");
	is(backoff_wait_ms(&policy, 1, 0.5, -1), 500, "none told");
	is(backoff_wait_ms(&policy, 1, 0.5, INT64_MAX), YEAR_MS, "at most a year");
}

static void
test_seconds(void)
{
	reads("0", EXAMPLE_MS, 0);
	reads("120", EXAMPLE_MS, 120000);
	reads(" \t 3 ", EXAMPLE_MS, 3000);
	reads("007", EXAMPLE_MS, 7000);
	reads("1.5", EXAMPLE_MS, 1500);
	reads("0.0001", EXAMPLE_MS, 1);
	reads("2.0000", EXAMPLE_MS, 2000);
	reads("99999999999999999999999999999999", EXAMPLE_MS, YEAR_MS);
	refuses(NULL);
	refuses("");
	refuses("soon");
	refuses("-5");
	refuses("+5");
	refuses("5 s");
	refuses("5.");
	refuses("0x10");
	refuses("1e3");
}

static void
test_dates(void)
{
	const int64_t in_2026 = INT64_C(1785542400) * 1000; /* 2026-08-01 */

	reads("Sun, 06 Nov 1994 08:49:37 GMT", EXAMPLE_MS - 5000, 5000);
	reads("Sun, 06 Nov 1994 08:49:37 GMT", EXAMPLE_MS, 0);
	reads("Sun, 06 Nov 1994 08:49:37 GMT", EXAMPLE_MS + 5000, 0);
	reads("Sunday, 06-Nov-94 08:49:37 GMT", EXAMPLE_MS - 1, 1);
	reads("Sun Nov  6 08:49:37 1994", EXAMPLE_MS - 1, 1);
	reads("Wed Nov 16 08:49:37 1994", EXAMPLE_MS, 10 * 86400000);
	reads("Saturday, 01-Aug-26 00:01:00 GMT", in_2026, 60000);
	reads("Saturday, 01-Aug-98 00:01:00 GMT", in_2026, 0);	/* 1998 */
	reads("Thu, 29 Feb 2024 00:00:00 GMT",
		  INT64_C(1709164800) * 1000 - 250, 250);
	reads("Fri, 01 Mar 2024 00:00:00 GMT",
		  INT64_C(1709164800) * 1000, 86400000);
	reads("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0);
	reads("Fri, 31 Dec 9999 23:59:59 GMT", EXAMPLE_MS, YEAR_MS);
	refuses("Sun, 06 Nov 1994");
	refuses("Sun, 06 Nov 1994 08:49:37");
	refuses("Sun, 06 Nov 1994 08:49:37 CET");
	refuses("Sun, 06 Non 1994 08:49:37 GMT");
	refuses("Sun, 36 Nov 1994 08:49:37 GMT");
	refuses("Sun, 06 Nov 1994 25:49:37 GMT");
	refuses("Sun, 06 Nov 1994 08:49:37 GMT, 5");
	refuses("Sun");
	refuses(",");
	refuses("Sun,");
	refuses("Sun Nov");
}

int
main(void)
{
	test_bounds();
	test_all_draws();
	test_waits();
	test_seconds();
	test_dates();
	printf("1..%d\n", tests);
	return failed != 0;
}
