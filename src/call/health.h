/*
 * health.h
 *	  How endpoints fare, for all processes of the cluster: a circuit breaker
 *	  for each, and until when a key is not to be used there.
 *
 * An endpoint is known by a 64-bit hash (EndpointInfo.id), a pair by that and
 * the user mapping whose key is spent (InvalidOid: none).  Where there is no
 * room what is longest unused is forgotten, which makes calls less clever and
 * breaks nothing.  Without shared_preload_libraries a process knows what it
 * has seen itself.
 */
#ifndef CHAINCALL_HEALTH_H
#define CHAINCALL_HEALTH_H

#include "postgres.h"

#include "policy/breaker.h"

typedef enum HealthVerdict
{
	HEALTH_WELL,				/* or nothing is known */
	HEALTH_REFUSED,				/* the key was refused a moment ago */
	HEALTH_COOLING,				/* throttled: not before until_us */
	HEALTH_BROKEN				/* its circuit is open: not before until_us */
} HealthVerdict;

typedef struct HealthView
{
	HealthVerdict verdict;
	int64		until_us;		/* clock_us() */
	bool		probing;		/* broken, but that may change before then */
} HealthView;

#define HEALTH_SEEN_LEN 80

/* Why a circuit is open. */
typedef struct HealthTrouble
{
	int64		since_us;		/* clock_us(); 0: it is closed by now */
	char		seen[HEALTH_SEEN_LEN];	/* of the last failure */
} HealthTrouble;

/* What stat_endpoint shows: of an endpoint, or of one and a key. */
typedef struct HealthRow
{
	uint64		endpoint;
	uint64		names;			/* stats_id() of its model, version, server */
	BreakerState state;
	int64		since_us;		/* 0: closed since ever */
	int64		cooling_until_us;	/* 0: none */
} HealthRow;

extern Size health_size(void);
extern void health_init(void);
extern HealthView health_look(uint64 endpoint, Oid mapping);
extern bool health_enter(uint64 endpoint, Oid mapping, uint64 names,
						 int64 probe_us, uint32 *epoch);
extern void health_end(uint64 endpoint, uint32 epoch, BreakerOutcome outcome,
					   const char *seen);
extern void health_cool(uint64 endpoint, Oid mapping, uint64 names,
						int64 until_us, bool refused);
extern HealthTrouble health_trouble(uint64 endpoint);
extern HealthRow *health_read(int *count);

#endif							/* CHAINCALL_HEALTH_H */
