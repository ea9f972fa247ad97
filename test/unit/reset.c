/*
 * reset.c
 *	  Unit test of src/policy/reset.c, in TAP.
 *
 * cc -Isrc test/unit/reset.c src/policy/reset.c src/policy/backoff.c -lm -o reset && ./reset
 */
#include "policy/reset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* 2026-01-31T23:59:50Z */
#define NOW (INT64_C(1769903990) * 1000)
#define HOUR INT64_C(3600000)

static int	tests;
static int	failed;

static void
ok(bool holds, const char *name)
{
	printf("%sok %d - %s\n", holds ? "" : "not ", ++tests, name);
	failed += !holds;
}

static void
lasts(const char *text, int64_t expected)
{
	int64_t		ms = 77;
	bool		read = reset_duration_ms(text, &ms);
	char		name[120];

	snprintf(name, sizeof(name), "duration \"%.60s\"", text ? text : "(null)");
	ok(expected < 0 ? !read && ms == 0 : read && ms == expected, name);
	if (failed)
		printf("# read %d, got %lld\n", read, (long long) ms);
}

static void
is_time(const char *text, int64_t expected)
{
	int64_t		ms = 77;
	bool		read = reset_timestamp_ms(text, &ms);
	char		name[120];

	snprintf(name, sizeof(name), "time \"%.60s\"", text ? text : "(null)");
	ok(expected < 0 ? !read && ms == 0 : read && ms == expected, name);
}

static const char *
lookup(void *arg, const char *name)
{
	const char *const *headers = arg;

	for (; headers[0] != NULL; headers += 2)
		if (strcmp(headers[0], name) == 0)
			return headers[1];
	return NULL;
}

/* Headers by name and value, up to NULL; expected -1: they do not say. */
static void
waits(const char *name, int64_t expected, const char *const *headers)
{
	int64_t		ms = 77;
	bool		read = reset_wait_ms(lookup, (void *) headers, NOW, &ms);

	ok(expected < 0 ? !read && ms == 0 : read && ms == expected, name);
	if (expected < 0 ? read : ms != expected)
		printf("# read %d, got %lld\n", read, (long long) ms);
}

#define HEADERS(...) ((const char *const[]) {__VA_ARGS__, NULL, NULL})

static void
test_durations(void)
{
	lasts("6m0s", 360000);
	lasts("20ms", 20);
	lasts("1.5s", 1500);
	lasts(" 1h0m0s ", HOUR);
	lasts("59m59.9991s", 3600000);
	lasts("2h", HOUR);
	lasts("1d", HOUR);
	lasts("500us", 1);
	lasts("500\xc2\xb5s", 1);
	lasts("999999999ns", 0);
	lasts("0s", 0);
	lasts("99999999999999999999999999999999h", HOUR);
	lasts("99999999999999999999999999999999ms1s", HOUR);
	lasts("0.00000000000000000000000000001s", 1);
	lasts(NULL, -1);
	lasts("", -1);
	lasts("5", -1);
	lasts("-5s", -1);
	lasts("5s-", -1);
	lasts("5 s", -1);
	lasts("s", -1);
	lasts("5x", -1);
	lasts("1e9s", -1);
	lasts("0x10s", -1);
	lasts("5.s", -1);
}

static void
test_times(void)
{
	is_time("2026-01-31T23:59:50Z", NOW);
	is_time("2026-02-01t01:59:50.25+02:00", NOW + 250);
	is_time("2026-01-31 18:59:50-05:00", NOW);
	is_time("1970-01-01T00:00:00Z", 0);
	is_time("9999-12-31T23:59:60Z", INT64_C(253402300800) * 1000);
	is_time("2026-01-31T23:59:50.9999999999999999999Z", NOW + 999);
	is_time(NULL, -1);
	is_time("", -1);
	is_time("2026", -1);
	is_time("2026-01-31T23:59:50", -1);
	is_time("2026-13-31T23:59:50Z", -1);
	is_time("2026-01-31T24:59:50Z", -1);
	is_time("2026-01-31T23:59:50.Z", -1);
	is_time("2026-01-31T23:59:50Zjunk", -1);
	is_time("2026-01-31T23:59:50+2", -1);
	is_time("-026-01-31T23:59:50Z", -1);
}

static void
test_headers(void)
{
	waits("no header", -1, HEADERS("content-type", "text/plain"));
	waits("Retry-After", 7000, HEADERS("retry-after", "7"));
	waits("Retry-After of a day is believed", 24 * HOUR, HEADERS("retry-after", "86400"));
	waits("retry-after-ms before it", 250, HEADERS("retry-after", "7", "retry-after-ms", "250"));
	waits("with a fraction", 251, HEADERS("retry-after-ms", "250.5"));
	waits("of a year", HOUR, HEADERS("retry-after-ms", "31536000000"));
	waits("that is none", 7000, HEADERS("retry-after", "7", "retry-after-ms", "soon"));
	waits("negative", -1, HEADERS("retry-after-ms", "-5"));
	waits("OpenAI: the empty bucket", 360000,
		  HEADERS("x-ratelimit-remaining-requests", "0", "x-ratelimit-reset-requests", "6m0s",
				  "x-ratelimit-remaining-tokens", "149984", "x-ratelimit-reset-tokens", "20m0s"));
	waits("OpenAI: both", 1200000,
		  HEADERS("x-ratelimit-remaining-requests", "0", "x-ratelimit-reset-requests", "6m0s",
				  "x-ratelimit-remaining-tokens", "0", "x-ratelimit-reset-tokens", "20m0s"));
	waits("OpenAI: none is told to be empty", -1,
		  HEADERS("x-ratelimit-remaining-requests", "5", "x-ratelimit-reset-requests", "6m0s",
				  "x-ratelimit-reset-tokens", "20m0s"));
	waits("OpenAI: malformed", -1,
		  HEADERS("x-ratelimit-remaining-requests", "0", "x-ratelimit-reset-requests", "\xff\xfe"));
	waits("seconds, as Groq's and others'", 7660,
		  HEADERS("x-ratelimit-remaining-tokens", "0", "x-ratelimit-reset-tokens", "7.66"));
	waits("Anthropic", 10000,
		  HEADERS("anthropic-ratelimit-output-tokens-remaining", "0", "anthropic-ratelimit-output-tokens-reset", "2026-02-01T00:00:00Z",
				  "anthropic-ratelimit-requests-remaining", "49", "anthropic-ratelimit-requests-reset", "2026-02-01T00:30:00Z"));
	waits("a time that is past", 0,
		  HEADERS("anthropic-ratelimit-tokens-remaining", "0", "anthropic-ratelimit-tokens-reset", "2020-02-01T00:00:00Z"));
	waits("a time in a thousand years", HOUR,
		  HEADERS("anthropic-ratelimit-tokens-remaining", "0", "anthropic-ratelimit-tokens-reset", "3020-02-01T00:00:00Z"));
	waits("RateLimit-Reset", 30000, HEADERS("ratelimit-reset", "30"));
	waits("RateLimit-Reset of a bucket with something in it", -1, HEADERS("ratelimit-reset", "30", "ratelimit-remaining", "4"));
	waits("x-ratelimit-reset as a time", 10000, HEADERS("x-ratelimit-reset", "1769904000", "x-ratelimit-remaining", "0"));
	waits("in milliseconds", 10000, HEADERS("x-ratelimit-reset", "1769904000000"));
	waits("as far too many digits", HOUR, HEADERS("x-ratelimit-reset", "99999999999999999999999999999999999999"));
	waits("empty", -1, HEADERS("x-ratelimit-reset", "", "retry-after", "", "retry-after-ms", ""));
}

/* Whatever bytes come: no wait beyond the bound, no read beyond the text. */
static void
test_noise(void)
{
	static const char alphabet[] = "0123456789.:-+TZhmsund \xc2\xb5\xff";
	bool		good = true;

	srand(3);
	for (int i = 0; i < 200000 && good; i++)
	{
		int			len = rand() % 24;
		char	   *text = malloc(len + 1);
		int64_t		ms;

		for (int k = 0; k < len; k++)
			text[k] = alphabet[rand() % (sizeof(alphabet) - 1)];
		text[len] = '\0';
		(void) reset_duration_ms(text, &ms);
		good &= ms >= 0 && ms <= RESET_LONGEST_MS;
		(void) reset_timestamp_ms(text, &ms);
		(void) reset_wait_ms(lookup, (void *) HEADERS("x-ratelimit-reset", text), NOW, &ms);
		good &= ms >= 0 && ms <= RESET_LONGEST_MS;
		free(text);
	}
	ok(good, "noise");
}

int
main(void)
{
	test_durations();
	test_times();
	test_headers();
	test_noise();
	printf("1..%d\n", tests);
	return failed != 0;
}
