/*
 * breaker.c
 *	  A circuit breaker.
 *
 *	            enough attempts failed              the rest is over: the probe
 *	 CLOSED ──────────────────────────────► OPEN ──────────────────────► HALF_OPEN
 *	   ▲                                      ▲                            │ │  ▲ │
 *	   │                                      └─── failed: rests twice as ─┘ │  └─┘ no outcome
 *	   └──────────────────────── succeeded ──────────────── long ────────────┘   in its time
 *
 * An attempt is entered and ended; what it is told when it enters, the epoch,
 * comes back with its outcome.  Each change of state begins a new epoch, so
 * that the outcomes of attempts which were sent before it, a minute ago
 * perhaps, say nothing about now.  The probe is the one attempt of its epoch.
 * It does not open while something still succeeds: a service that refuses the
 * first attempt of every call, and takes the second, is what retries are for.
 *
 * A probe that is given up for lost is replaced, by turns of the time it was
 * waited for; its success is good news all the same when it comes at last.
 *
 * The idea is M. Nygard's (Release It!, 2007); the window with a least volume
 * and a share of failures is as in Hystrix and resilience4j.
 *
 * Nothing here knows of PostgreSQL, so that it can be tested with plain cc;
 * the clock and the random number are arguments.
 */
#include "policy/breaker.h"

/* After what time it is worth asking what has become of a probe. */
#define FIRST_LOOK_US INT64_C(100000)

static void
change(Breaker *breaker, BreakerState state)
{
	breaker->state = state;
	breaker->epoch++;
}

static int64_t
slice_number(const BreakerRules *rules, int64_t now_us)
{
	int64_t		length = rules->window_us / BREAKER_SLICES;

	return now_us / (length > 0 ? length : 1);
}

static void
count(Breaker *breaker, const BreakerRules *rules, int64_t now_us, bool failed)
{
	int64_t		number = slice_number(rules, now_us);
	BreakerSlice *slice = &breaker->slices[(uint64_t) number % BREAKER_SLICES];

	if (slice->number != number)
	{
		slice->number = number;
		slice->ended = 0;
		slice->failed = 0;
	}
	slice->ended++;
	slice->failed += failed;
}

/* How long nothing but failures has come, of which none is older than the window. */
static int64_t
failing_for(Breaker *breaker, const BreakerRules *rules, int64_t now_us)
{
	if (breaker->failing_us == 0 ||
		now_us - breaker->failed_us > rules->window_us)
		breaker->failing_us = now_us;
	breaker->failed_us = now_us;
	return now_us - breaker->failing_us;
}

static bool
too_many_failed(const Breaker *breaker, const BreakerRules *rules,
				int64_t now_us)
{
	int64_t		newest = slice_number(rules, now_us);
	uint64_t	ended = 0;
	uint64_t	failed = 0;

	for (int i = 0; i < BREAKER_SLICES; i++)
	{
		const BreakerSlice *slice = &breaker->slices[i];

		if (slice->number > newest || slice->number <= newest - BREAKER_SLICES)
			continue;
		ended += slice->ended;
		failed += slice->failed;
	}
	return ended > 0 && ended >= (uint64_t) rules->volume &&
		failed * 100 >= ended * (uint64_t) rules->failures;
}

/* Rests: between three quarters and five quarters of rest_us. */
static void
rest(Breaker *breaker, int64_t now_us, double jitter)
{
	if (!(jitter > 0))
		jitter = 0;
	if (jitter > 1)
		jitter = 1;
	breaker->until_us = now_us +
		(int64_t) ((double) breaker->rest_us * (0.75 + jitter / 2));
	change(breaker, BREAKER_OPEN);
}

static void
open_it(Breaker *breaker, const BreakerRules *rules, int64_t now_us,
		double jitter)
{
	breaker->since_us = now_us;
	breaker->rest_us = rules->rest_us;
	breaker->opened = breaker->epoch + 1;
	rest(breaker, now_us, jitter);
}

static void
close_it(Breaker *breaker, int64_t now_us)
{
	for (int i = 0; i < BREAKER_SLICES; i++)
		breaker->slices[i] = (BreakerSlice)
	{
		0
	};
	breaker->since_us = now_us;
	breaker->failing_us = 0;
	change(breaker, BREAKER_CLOSED);
}

static bool
is_off(const BreakerRules *rules)
{
	return rules->failures <= 0;
}

/*
 * What an attempt would find now: CLOSED: it passes.  HALF_OPEN: it would be
 * the probe.  OPEN: it would not pass before *until_us, at the earliest.
 */
BreakerState
breaker_state(const Breaker *breaker, const BreakerRules *rules,
			  int64_t now_us, int64_t *until_us)
{
	*until_us = breaker->until_us;
	if (is_off(rules) || breaker->state == BREAKER_CLOSED)
		return BREAKER_CLOSED;
	return now_us >= breaker->until_us ? BREAKER_HALF_OPEN : BREAKER_OPEN;
}

/*
 * When an attempt that must not pass now asks again: at the end of the rest.
 * What becomes of a probe may be known at any moment, so then it is after as
 * long as that has been in the air already: who waits for a service that has
 * come back loses as much again at most, and asks a few times only.
 */
int64_t
breaker_next_look(const Breaker *breaker, int64_t now_us)
{
	int64_t		flown = now_us - breaker->probed_us;
	int64_t		look = now_us + (flown > FIRST_LOOK_US ? flown : FIRST_LOOK_US);

	return breaker->state == BREAKER_HALF_OPEN && look < breaker->until_us ?
		look : breaker->until_us;
}

/*
 * An attempt begins.  False: it must not.  When it would be the probe it is,
 * and others are kept out for probe_us or until its outcome is told.  *epoch
 * goes to breaker_end().
 */
bool
breaker_enter(Breaker *breaker, const BreakerRules *rules, int64_t now_us,
			  int64_t probe_us, uint32_t *epoch)
{
	int64_t		until_us;

	switch (breaker_state(breaker, rules, now_us, &until_us))
	{
		case BREAKER_OPEN:
			return false;
		case BREAKER_HALF_OPEN:
			breaker->probed_us = now_us;
			breaker->until_us = now_us + probe_us;
			change(breaker, BREAKER_HALF_OPEN);
			break;
		case BREAKER_CLOSED:
			break;
	}
	*epoch = breaker->epoch;
	return true;
}

/* The epoch is later than when it opened: it was a probe's. */
static bool
was_probe(const Breaker *breaker, uint32_t epoch)
{
	return (int32_t) (epoch - breaker->opened) > 0 &&
		(int32_t) (breaker->epoch - epoch) >= 0;
}

static void
end_probe(Breaker *breaker, const BreakerRules *rules, int64_t now_us,
		  BreakerOutcome outcome, double jitter)
{
	if (outcome == BREAKER_FAILED)
	{
		breaker->rest_us = breaker->rest_us < rules->max_rest_us / 2 ?
			breaker->rest_us * 2 : rules->max_rest_us;
		rest(breaker, now_us, jitter);
	}
	else
	{
		/* nothing was learnt: the next attempt is a probe too */
		breaker->until_us = now_us;
		change(breaker, BREAKER_OPEN);
	}
}

/*
 * An attempt that breaker_enter() has let pass is over.  jitter: 0 … 1, drawn
 * evenly.  True: the breaker has opened, or opened again.
 */
bool
breaker_end(Breaker *breaker, const BreakerRules *rules, int64_t now_us,
			uint32_t epoch, BreakerOutcome outcome, double jitter)
{
	if (is_off(rules))
		return false;
	if (breaker->state != BREAKER_CLOSED)
	{
		if (outcome == BREAKER_HEALTHY && was_probe(breaker, epoch))
			close_it(breaker, now_us);
		else if (breaker->state == BREAKER_HALF_OPEN &&
				 epoch == breaker->epoch)
			end_probe(breaker, rules, now_us, outcome, jitter);
		return breaker->state == BREAKER_OPEN && outcome == BREAKER_FAILED &&
			breaker->epoch == epoch + 1;
	}
	if (epoch != breaker->epoch || outcome == BREAKER_UNKNOWN)
		return false;
	count(breaker, rules, now_us, outcome == BREAKER_FAILED);
	if (outcome != BREAKER_FAILED)
	{
		breaker->failing_us = 0;
		return false;
	}
	if (failing_for(breaker, rules, now_us) < rules->patience_us ||
		!too_many_failed(breaker, rules, now_us))
		return false;
	open_it(breaker, rules, now_us, jitter);
	return true;
}
