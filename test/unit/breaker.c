/*
 * breaker.c
 *	  Unit test of src/policy/breaker.c, in TAP.
 *
 * cc -Isrc test/unit/breaker.c src/policy/breaker.c -lm -o breaker && ./breaker
 */
#include "policy/breaker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define S INT64_C(1000000)
#define PROBE (20 * S)

static int	tests;
static int	failed;

static const BreakerRules rules = {
	.failures = 50, .volume = 10, .window_us = 10 * S, .rest_us = S,
	.max_rest_us = 30 * S
};

static void
ok(bool holds, const char *name)
{
	printf("%sok %d - %s\n", holds ? "" : "not ", ++tests, name);
	failed += !holds;
}

static BreakerState
state(const Breaker *breaker, int64_t now)
{
	int64_t		until;

	return breaker_state(breaker, &rules, now, &until);
}

/* One attempt that takes no time; jitter such that a rest is rest_us. */
static bool
attempt(Breaker *breaker, int64_t now, BreakerOutcome outcome)
{
	uint32_t	epoch;

	return breaker_enter(breaker, &rules, now, PROBE, &epoch) &&
		breaker_end(breaker, &rules, now, epoch, outcome, 0.5);
}

static void
attempts(Breaker *breaker, int n, int64_t now, BreakerOutcome outcome)
{
	for (int i = 0; i < n; i++)
		(void) attempt(breaker, now, outcome);
}

static Breaker
opened(int64_t now)
{
	Breaker		breaker = {0};

	attempts(&breaker, 10, now, BREAKER_FAILED);
	return breaker;
}

static void
test_opening(void)
{
	Breaker		breaker = {0};
	int64_t		now = 1000 * S;
	int64_t		until;

	ok(state(&breaker, now) == BREAKER_CLOSED, "closed at first");
	attempts(&breaker, 9, now, BREAKER_FAILED);
	ok(state(&breaker, now) == BREAKER_CLOSED, "nine failures are too few");
	ok(attempt(&breaker, now, BREAKER_FAILED), "the tenth opens it");
	ok(breaker_state(&breaker, &rules, now, &until) == BREAKER_OPEN &&
	   until == now + S && breaker_next_look(&breaker, now) == until, "it rests for a second");
	ok(breaker.since_us == now, "and says since when");

	breaker = (Breaker){0};
	attempts(&breaker, 6, now, BREAKER_HEALTHY);
	attempts(&breaker, 5, now, BREAKER_FAILED);
	ok(state(&breaker, now) == BREAKER_CLOSED, "5 of 11 are less than half");
	attempts(&breaker, 1, now, BREAKER_FAILED);
	ok(state(&breaker, now) == BREAKER_OPEN, "6 of 12 are half");

	breaker = (Breaker){0};
	attempts(&breaker, 100, now, BREAKER_UNKNOWN);
	attempts(&breaker, 9, now, BREAKER_FAILED);
	ok(state(&breaker, now) == BREAKER_CLOSED, "what is not known does not count");

	breaker = (Breaker){0};
	attempts(&breaker, 9, now, BREAKER_FAILED);
	attempts(&breaker, 9, now + 11 * S, BREAKER_FAILED);
	ok(state(&breaker, now + 11 * S) == BREAKER_CLOSED, "old failures are forgotten");
	attempts(&breaker, 1, now + 15 * S, BREAKER_FAILED);
	ok(state(&breaker, now + 15 * S) == BREAKER_OPEN, "those of ten seconds are not");

	breaker = (Breaker){0};
	attempts(&breaker, 100, now, BREAKER_HEALTHY);
	attempts(&breaker, 10, now + 9 * S, BREAKER_FAILED);
	ok(state(&breaker, now + 9 * S) == BREAKER_CLOSED, "a few failures among many answers");
	attempts(&breaker, 1, now + 10 * S, BREAKER_FAILED);
	ok(state(&breaker, now + 10 * S) == BREAKER_OPEN, "until those are old");
}

/* Something that succeeds now and then is not broken. */
static void
test_patience(void)
{
	BreakerRules patient = rules;
	Breaker		breaker = {0};
	uint32_t	epoch = 0;
	bool		opens = false;
	int64_t		now = 1000 * S;

	patient.patience_us = 2 * S;
	for (int i = 0; i < 100; i++, now += S / 10)
		opens |= breaker_end(&breaker, &patient, now, epoch,
							 i % 10 == 0 ? BREAKER_HEALTHY : BREAKER_FAILED, 0.5);
	ok(!opens, "nine of ten fail, but one a second succeeds");
	for (int i = 0; i < 12; i++, now += S / 10)
		opens |= breaker_end(&breaker, &patient, now, epoch, BREAKER_FAILED, 0.5);
	ok(opens, "two seconds without one open it");

	breaker = (Breaker){0};
	for (int i = 0; i < 100; i++)
		opens = breaker_end(&breaker, &patient, now, epoch, BREAKER_FAILED, 0.5);
	ok(!opens, "many failures at once do not");
	ok(breaker_end(&breaker, &patient, now + 2 * S, epoch, BREAKER_FAILED, 0.5), "those of two seconds do");

	breaker = (Breaker){0};
	(void) breaker_end(&breaker, &patient, now, epoch, BREAKER_FAILED, 0.5);
	opens = false;
	for (int i = 0; i < 100; i++)
		opens |= breaker_end(&breaker, &patient, now + 3600 * S, epoch, BREAKER_FAILED, 0.5);
	ok(!opens, "one of an hour ago is no beginning");
}

static void
test_probe(void)
{
	int64_t		now = 1000 * S;
	Breaker		breaker = opened(now);
	uint32_t	probe;
	uint32_t	other;
	int64_t		until;

	ok(!breaker_enter(&breaker, &rules, now + S - 1, PROBE, &other), "nothing passes while it rests");
	ok(state(&breaker, now + S) == BREAKER_HALF_OPEN, "then the next is a probe");
	ok(breaker_enter(&breaker, &rules, now + S, PROBE, &probe), "which passes");
	ok(!breaker_enter(&breaker, &rules, now + S, PROBE, &other), "alone");
	ok(breaker_state(&breaker, &rules, now + S, &until) == BREAKER_OPEN &&
	   until == now + S + PROBE, "others are told until when");
	ok(breaker_next_look(&breaker, now + S) < now + 2 * S, "but look for the outcome before");
	ok(breaker_next_look(&breaker, now + 3 * S) == now + 5 * S, "the longer it takes the less often");
	ok(breaker_next_look(&breaker, now + S + PROBE - 1) == now + S + PROBE, "until then at most");
	ok(!breaker_end(&breaker, &rules, now + 2 * S, probe, BREAKER_HEALTHY, 0.5) &&
	   state(&breaker, now + 2 * S) == BREAKER_CLOSED, "its success closes it");
	attempts(&breaker, 9, now + 2 * S, BREAKER_FAILED);
	ok(state(&breaker, now + 2 * S) == BREAKER_CLOSED, "and all is forgotten");

	breaker = opened(now);
	(void) breaker_enter(&breaker, &rules, now + S, PROBE, &probe);
	ok(!breaker_end(&breaker, &rules, now + S, probe, BREAKER_UNKNOWN, 0.5) &&
	   breaker_enter(&breaker, &rules, now + S, PROBE, &other), "a probe that was called off is replaced at once");

	breaker = opened(now);
	(void) breaker_enter(&breaker, &rules, now + S, PROBE, &probe);
	ok(breaker_enter(&breaker, &rules, now + S + PROBE, PROBE, &other), "and a lost one in time");
	ok(!breaker_end(&breaker, &rules, now + S + PROBE, probe, BREAKER_FAILED, 0.5) &&
	   breaker.state == BREAKER_HALF_OPEN, "the failure of the lost one is old");
	(void) breaker_end(&breaker, &rules, now + S + PROBE, probe, BREAKER_HEALTHY, 0.5);
	ok(breaker.state == BREAKER_CLOSED, "its success is not");
	ok(!breaker_end(&breaker, &rules, now + 2 * PROBE, other, BREAKER_FAILED, 0.5) &&
	   breaker.state == BREAKER_CLOSED, "the other's failure is old then");
}

static void
test_rests(void)
{
	int64_t		now = 1000 * S;
	Breaker		breaker = opened(now);
	static const int64_t expected[] = {2, 4, 8, 16, 30, 30, 30};
	int64_t		until;

	for (int i = 0; i < 7; i++)
	{
		char		name[80];
		bool		again;

		(void) breaker_state(&breaker, &rules, now, &until);
		now = until;
		again = attempt(&breaker, now, BREAKER_FAILED);
		(void) breaker_state(&breaker, &rules, now, &until);
		snprintf(name, sizeof(name), "rest after %d failed probes", i + 1);
		ok(again && until - now == expected[i] * S, name);
	}
	ok(breaker.since_us == 1000 * S, "since when it is broken stays");
	now = until;
	(void) attempt(&breaker, now, BREAKER_HEALTHY);
	attempts(&breaker, 10, now, BREAKER_FAILED);
	(void) breaker_state(&breaker, &rules, now, &until);
	ok(until - now == S, "the next time the first rest is short again");

	for (int i = 0; i <= 10; i++)
	{
		uint32_t	epoch;

		breaker = (Breaker){0};
		attempts(&breaker, 9, now, BREAKER_FAILED);
		(void) breaker_enter(&breaker, &rules, now, PROBE, &epoch);
		(void) breaker_end(&breaker, &rules, now, epoch, BREAKER_FAILED, i / 10.0);
		(void) breaker_state(&breaker, &rules, now, &until);
		if (until - now < 3 * S / 4 || until - now > 5 * S / 4)
			break;
		if (i == 10)
			ok(true, "jitter: from 3/4 to 5/4");
	}
}

static void
test_stragglers(void)
{
	int64_t		now = 1000 * S;
	Breaker		breaker = {0};
	uint32_t	old[20];

	for (int i = 0; i < 20; i++)
		(void) breaker_enter(&breaker, &rules, now, PROBE, &old[i]);
	for (int i = 0; i < 10; i++)
		(void) breaker_end(&breaker, &rules, now, old[i], BREAKER_FAILED, 0.5);
	ok(breaker.state == BREAKER_OPEN, "ten of twenty in the air have failed");
	(void) breaker_end(&breaker, &rules, now, old[10], BREAKER_HEALTHY, 0.5);
	ok(breaker.state == BREAKER_OPEN, "an answer to what was asked before does not close it");
	(void) attempt(&breaker, now + S, BREAKER_HEALTHY);
	for (int i = 11; i < 20; i++)
		(void) breaker_end(&breaker, &rules, now + S, old[i], BREAKER_FAILED, 0.5);
	attempts(&breaker, 1, now + S, BREAKER_FAILED);
	ok(breaker.state == BREAKER_CLOSED, "nor do old failures open it again");
}

static void
test_rules(void)
{
	BreakerRules off = rules;
	BreakerRules odd = {.failures = 100, .volume = 0, .window_us = 0, .rest_us = 0, .max_rest_us = 0};
	Breaker		breaker = opened(S);
	uint32_t	epoch = 0;
	int64_t		until;

	off.failures = 0;
	ok(breaker_state(&breaker, &off, S, &until) == BREAKER_CLOSED &&
	   breaker_enter(&breaker, &off, S, PROBE, &epoch) &&
	   !breaker_end(&breaker, &off, S, epoch, BREAKER_FAILED, 0.5), "off: everything passes");
	breaker = (Breaker) {0};
	ok(breaker_enter(&breaker, &odd, S, PROBE, &epoch) &&
	   breaker_end(&breaker, &odd, S, epoch, BREAKER_FAILED, 2) &&
	   breaker_enter(&breaker, &odd, S, 0, &epoch), "rules of zeroes: no rest, no harm");

	breaker = (Breaker){.epoch = UINT32_MAX - 1};
	attempts(&breaker, 10, S, BREAKER_FAILED);
	(void) attempt(&breaker, 2 * S, BREAKER_FAILED);
	(void) attempt(&breaker, 4 * S, BREAKER_HEALTHY);
	ok(breaker.state == BREAKER_CLOSED && breaker.epoch < 10, "epochs begin anew");
}

/* Two random drivers of one breaker never have two probes in the air. */
static void
test_random(void)
{
	Breaker		breaker = {0};
	int64_t		now = S;
	int			probes = 0;
	uint32_t	epochs[8];
	bool		flying[8] = {false};
	bool		good = true;

	srand(7);
	for (int i = 0; i < 200000 && good; i++)
	{
		int			at = rand() % 8;
		bool		was_closed = breaker.state == BREAKER_CLOSED;

		now += rand() % (S / 4);
		if (flying[at])
		{
			(void) breaker_end(&breaker, &rules, now, epochs[at], rand() % 3, rand() / (double) RAND_MAX);
			flying[at] = false;
		}
		else if ((flying[at] = breaker_enter(&breaker, &rules, now, INT64_C(1) << 60, &epochs[at])) && !was_closed)
		{
			probes++;
			for (int k = 0; k < 8; k++)
				good &= k == at || !flying[k] || epochs[k] != epochs[at];
		}
		good &= breaker.rest_us <= rules.max_rest_us;
	}
	ok(good && probes > 100, "one probe at a time, whatever happens");
}

int
main(void)
{
	test_opening();
	test_patience();
	test_probe();
	test_rests();
	test_stragglers();
	test_rules();
	test_random();
	printf("1..%d\n", tests);
	return failed != 0;
}
