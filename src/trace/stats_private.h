/*
 * stats_private.h
 *	  What the files of the statistics share: how they lie in shared memory.
 */
#ifndef CHAINCALL_STATS_PRIVATE_H
#define CHAINCALL_STATS_PRIVATE_H

#include "postgres.h"

#include "policy/histogram.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "trace/stats.h"

#define MODEL_LEN 256			/* bytes, with the zero; longer names are cut */
#define VERSION_LEN 64
#define SERVER_LEN NAMEDATALEN
#define RING 64					/* seconds of the rate's memory */

/* Attempts that ended in one second. */
typedef struct Second
{
	int64		second;			/* of PostgreSQL's epoch */
	int64		attempts;
} Second;

/* What a reset sets to zero. */
typedef struct Counters
{
	TimestampTz since;
	TimestampTz last_begun_at;
	TimestampTz last_failed_at;
	ErrorClass	last_failure;
	int64		by_class[CLASS_CRASH + 1];
	int64		tokens_in;
	int64		tokens_out;
	int64		sum_us;			/* of what is in `latency` */
	Second		ring[RING];
	Histogram	latency;
	Histogram	first_byte;
} Counters;

struct StatsEntry
{
	slock_t		mutex;			/* guards what follows */
	uint64		hash;			/* 0: free */
	Oid			database;		/* InvalidOid: "(other)" */
	char		model[MODEL_LEN];
	char		version[VERSION_LEN];
	char		server[SERVER_LEN];
	int64		in_flight;
	Counters	counters;
};

typedef struct IndexSlot
{
	pg_atomic_uint64 hash;		/* 0: none */
	pg_atomic_uint32 entry;
} IndexSlot;

typedef struct Stats
{
	LWLock		lock;			/* to make and free entries */
	int			nentries;		/* without "(other)", the last one */
	int			nslots;			/* a power of two */
	pg_atomic_uint32 nused;
	IndexSlot  *index;
	StatsEntry *entries;
} Stats;

extern Stats *stats_area;		/* NULL: no shared memory */

#endif							/* CHAINCALL_STATS_PRIVATE_H */
