/*
 * clock.h
 *	  Monotonic time for deadlines and durations.
 */
#ifndef CHAINCALL_CLOCK_H
#define CHAINCALL_CLOCK_H

#include "postgres.h"

#include "portability/instr_time.h"

#define CLOCK_NEVER PG_INT64_MAX

/*
 * Microseconds of the monotonic clock; comparable between all processes of the
 * machine until it is started anew.
 */
static inline int64
clock_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

#endif							/* CHAINCALL_CLOCK_H */
