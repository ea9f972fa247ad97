/*
 * guard.h
 *	  Running a piece of a chain so that its errors and its time are bounded.
 */
#ifndef CHAINCALL_GUARD_H
#define CHAINCALL_GUARD_H

#include "postgres.h"

#include "base/error.h"

typedef struct Guard
{
	bool		catch;			/* in a subtransaction; the error is returned */
	int64		deadline_us;	/* clock_us(), or CLOCK_NEVER */
	ErrorClass	overrun;		/* what passing the deadline is */
	const char *message;		/* and how it is said */
	const char *hint;
} Guard;

extern StepError *guard_run(const Guard *guard, void (*work) (void *),
							void *arg);

#endif							/* CHAINCALL_GUARD_H */
