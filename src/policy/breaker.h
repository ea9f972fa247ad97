/*
 * breaker.h
 *	  A circuit breaker.  Arithmetic only: no clock, no I/O, no PostgreSQL.
 */
#ifndef CHAINCALL_BREAKER_H
#define CHAINCALL_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#define BREAKER_SLICES 10

typedef enum BreakerState
{
	BREAKER_CLOSED = 0,			/* attempts pass */
	BREAKER_OPEN,				/* none does */
	BREAKER_HALF_OPEN			/* one does, to see how it fares: the probe */
} BreakerState;

typedef enum BreakerOutcome
{
	BREAKER_HEALTHY,
	BREAKER_FAILED,
	BREAKER_UNKNOWN				/* given up for reasons of the caller's own */
} BreakerOutcome;

typedef struct BreakerRules
{
	int			failures;		/* percent of failures that opens it; 0: off */
	int			volume;			/* attempts in the window, at least */
	int64_t		window_us;		/* that they are counted over */
	int64_t		patience_us;	/* and none has succeeded for so long */
	int64_t		rest_us;		/* the first rest; each failed probe doubles it */
	int64_t		max_rest_us;
} BreakerRules;

/* Attempts that ended in one slice of the window. */
typedef struct BreakerSlice
{
	int64_t		number;
	uint32_t	ended;
	uint32_t	failed;
} BreakerSlice;

/* All zeroes: closed, nothing seen. */
typedef struct Breaker
{
	BreakerState state;
	uint32_t	epoch;			/* changes of state so far */
	uint32_t	opened;			/* epoch of the last change to open from closed */
	int64_t		since_us;		/* it is not closed since; closed: when it closed */
	int64_t		rest_us;		/* of this rest, without jitter */
	int64_t		until_us;		/* end of the rest, or of the wait for the probe */
	int64_t		probed_us;		/* when the last probe began */
	int64_t		failing_us;		/* first failure since the last success; 0: none */
	int64_t		failed_us;		/* the last failure */
	BreakerSlice slices[BREAKER_SLICES];
} Breaker;

extern BreakerState breaker_state(const Breaker *breaker,
								  const BreakerRules *rules, int64_t now_us,
								  int64_t *until_us);
extern int64_t breaker_next_look(const Breaker *breaker, int64_t now_us);
extern bool breaker_enter(Breaker *breaker, const BreakerRules *rules,
						  int64_t now_us, int64_t probe_us, uint32_t *epoch);
extern bool breaker_end(Breaker *breaker, const BreakerRules *rules,
						int64_t now_us, uint32_t epoch,
						BreakerOutcome outcome, double jitter);

#endif							/* CHAINCALL_BREAKER_H */
