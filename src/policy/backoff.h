/*
 * backoff.h
 *	  How long to wait before the next attempt.  Arithmetic only: no clock,
 *	  no I/O, no PostgreSQL.
 */
#ifndef CHAINCALL_BACKOFF_H
#define CHAINCALL_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

typedef struct RetryPolicy
{
	int			attempts;		/* in all, the first included */
	int64_t		first_ms;		/* bound of the first wait */
	double		factor;
	int64_t		max_ms;			/* bound of any wait */
} RetryPolicy;

#define RETRY_DEFAULT       \
	{                       \
		5, 1000, 2.0, 30000 \
	}

extern int64_t backoff_bound_ms(const RetryPolicy *policy, int failures);
extern int64_t backoff_wait_ms(const RetryPolicy *policy, int failures,
							   double uniform, int64_t retry_after_ms);
extern bool retry_after_ms(const char *header, int64_t now_unix_ms,
						   int64_t *wait_ms);

#endif							/* CHAINCALL_BACKOFF_H */
