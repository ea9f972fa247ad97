/*
 * stats.h
 *	  Counters and histograms of models and endpoints, in shared memory.
 *
 * The histograms (policy/histogram.h) are log-linear: 16 buckets an octave of
 * microseconds, so that a quantile is off by at most 1/32 (3.2 %), from 1 µs
 * to 71 minutes.  All processes of the cluster write to the same counters,
 * sessions as well as workers.  Without shared_preload_libraries everything
 * here does nothing.
 */
#ifndef CHAINCALL_STATS_H
#define CHAINCALL_STATS_H

#include "postgres.h"

#include "base/error.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

/* Where attempts at one endpoint are counted; NULL: nowhere. */
typedef struct StatsEntry StatsEntry;

/* What is known of one attempt when it is over. */
typedef struct AttemptStats
{
	ErrorClass	cls;			/* CLASS_NONE: succeeded */
	int64		us;				/* from begin to end */
	int64		first_byte_us;	/* from sent to the first byte; -1: none */
	int64		tokens_in;		/* -1: not told */
	int64		tokens_out;
} AttemptStats;

/* An endpoint, or a model over all its endpoints.  Quantiles: -1: none. */
typedef struct StatsRow
{
	const char *model;
	const char *version;		/* NULL: a model's row */
	const char *server;
	uint64		id;				/* stats_id() of these; 0: a model's row */
	int64		by_class[CLASS_CRASH + 1];	/* attempts that are over */
	int64		in_flight;
	int64		tokens_in;
	int64		tokens_out;
	double		rate;			/* a second, over the last minute */
	double		mean_us;
	double		p50_us;
	double		p99_us;
	double		first_p50_us;
	double		first_p99_us;
	TimestampTz since;			/* when counting began */
	TimestampTz last_begun_at;
	TimestampTz last_failed_at; /* 0: never */
	ErrorClass	last_failure;
} StatsRow;

extern Size stats_size(void);
extern void stats_init(void);
extern uint64 stats_id(const char *model, const char *version,
					   const char *server);
extern StatsEntry *stats_attempt_begin(const char *model, const char *version,
									   const char *server);
extern void stats_attempt_end(StatsEntry *entry, const AttemptStats *attempt);
extern List *stats_read(bool by_model);
extern void stats_reset(Oid database);

#endif							/* CHAINCALL_STATS_H */
