/*
 * stats.h
 *	  Counters and histograms of models and endpoints, in shared memory.
 *
 * The histograms are log-linear: 16 buckets an octave of microseconds, so that
 * a quantile is off by at most 1/32 (3.2 %), from 1 µs to 71 minutes.  All
 * processes of the cluster write to the same counters, sessions as well as
 * workers.  Without shared_preload_libraries everything here does nothing.
 */
#ifndef CHAINCALL_STATS_H
#define CHAINCALL_STATS_H

#include "postgres.h"

#include "base/error.h"

/* What is known of one attempt when it is over. */
typedef struct AttemptStats
{
	const char *model;
	const char *version;
	const char *server;
	ErrorClass	cls;			/* CLASS_NONE: succeeded */
	int64		us;				/* from begin to end */
	int64		first_byte_us;	/* from sent to the first byte; -1: none */
	int64		tokens_in;		/* -1: not told */
	int64		tokens_out;
	int			http_status;
} AttemptStats;

extern Size stats_size(void);
extern void stats_init(void);
extern void stats_attempt_begin(const char *model, const char *version,
								const char *server);
extern void stats_attempt_end(const AttemptStats *attempt);

#endif							/* CHAINCALL_STATS_H */
