/*
 * health.c
 *	  How endpoints fare, for all processes of the cluster.
 *
 * Two tables of buckets; a hash says which bucket, and its few slots are
 * searched under its spinlock.  There is no index, no list and nothing to be
 * freed: a slot is taken from whom nobody has used for longest, so that what
 * was dropped goes by itself.  Every attempt takes the spinlock of its
 * endpoint's bucket when it is routed, when it begins and when it ends, for a
 * hundred nanoseconds each; that of a pair only while any pair at all is cool.
 *
 * Times are clock_us(), which on one machine is one clock for all processes.
 * All is gone after a crash: an endpoint that still fails is found out again
 * by ten attempts.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/settings.h"
#include "call/health.h"
#include "common/hashfn.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/memutils.h"

#define WAYS 8					/* slots of a bucket */
#define ROOM 2					/* slots for each of chaincall.max_stats */
#define LONGEST_REST 10			/* times the first one */

typedef struct Endpoint
{
	uint64		id;				/* 0: free */
	uint64		names;
	Oid			database;
	int64		used_us;
	Breaker		breaker;
	char		seen[HEALTH_SEEN_LEN];	/* of the last failure */
} Endpoint;

typedef struct Pair
{
	uint64		endpoint;
	Oid			mapping;
	bool		refused;
	uint64		names;
	Oid			database;
	int64		until_us;		/* past: free */
} Pair;

typedef struct EndpointBucket
{
	slock_t		mutex;
	Endpoint	slots[WAYS];
} EndpointBucket;

typedef struct PairBucket
{
	slock_t		mutex;
	Pair		slots[WAYS];
} PairBucket;

typedef struct Health
{
	int			nbuckets;		/* of each table; a power of two */
	pg_atomic_uint64 cool_until_us; /* no pair is cool after this */
	EndpointBucket *endpoints;
	PairBucket *pairs;
} Health;

static Health *health = NULL;

static int
bucket_count(void)
{
	int			n = 4;

	while (n * WAYS < setting_max_stats * ROOM)
		n *= 2;
	return n;
}

/* Bytes of this area; for shmem_request_hook. */
Size
health_size(void)
{
	return MAXALIGN(sizeof(Health)) +
		mul_size(bucket_count(), MAXALIGN(sizeof(EndpointBucket)) +
				 MAXALIGN(sizeof(PairBucket)));
}

static void
set_up(char *area)
{
	Health	   *made = (Health *) area;

	memset(area, 0, health_size());
	made->nbuckets = bucket_count();
	pg_atomic_init_u64(&made->cool_until_us, 0);
	area += MAXALIGN(sizeof(Health));
	made->endpoints = (EndpointBucket *) area;
	area += made->nbuckets * MAXALIGN(sizeof(EndpointBucket));
	made->pairs = (PairBucket *) area;
	for (int i = 0; i < made->nbuckets; i++)
	{
		SpinLockInit(&made->endpoints[i].mutex);
		SpinLockInit(&made->pairs[i].mutex);
	}
}

/* Makes or finds the area; under AddinShmemInitLock. */
void
health_init(void)
{
	bool		found;
	char	   *area = ShmemInitStruct("chaincall health", health_size(),
									   &found);

	if (!found)
		set_up(area);
	health = (Health *) area;
}

/* There is an area: this process's own, where there is no shared one. */
static bool
ready(void)
{
	char	   *area;

	if (health != NULL)
		return true;
	area = MemoryContextAllocExtended(TopMemoryContext, health_size(),
									  MCXT_ALLOC_NO_OOM);
	if (area == NULL)
		return false;
	set_up(area);
	health = (Health *) area;
	return true;
}

/* The settings as rules; read where they are used, so that a reload counts. */
static BreakerRules
current_rules(void)
{
	BreakerRules rules;

	rules.failures = setting_breaker_failures;
	rules.volume = setting_breaker_volume;
	rules.window_us = setting_breaker_window_ms * INT64CONST(1000);
	rules.patience_us = setting_breaker_patience_ms * INT64CONST(1000);
	rules.rest_us = setting_breaker_rest_ms * INT64CONST(1000);
	rules.max_rest_us = rules.rest_us * LONGEST_REST;
	return rules;
}

/* ---- endpoints ---- */

static EndpointBucket *
endpoint_bucket(uint64 id)
{
	return &health->endpoints[id & (health->nbuckets - 1)];
}

/* The endpoint's slot, or NULL; under the bucket's mutex. */
static Endpoint *
find_endpoint(EndpointBucket *bucket, uint64 id)
{
	for (int i = 0; i < WAYS; i++)
		if (bucket->slots[i].id == id)
			return &bucket->slots[i];
	return NULL;
}

/* The same, made from the slot longest unused if need be. */
static Endpoint *
make_endpoint(EndpointBucket *bucket, uint64 id, uint64 names)
{
	Endpoint   *endpoint = find_endpoint(bucket, id);

	if (endpoint != NULL)
		return endpoint;
	endpoint = &bucket->slots[0];
	for (int i = 1; i < WAYS; i++)
		if (bucket->slots[i].used_us < endpoint->used_us)
			endpoint = &bucket->slots[i];
	memset(endpoint, 0, sizeof(Endpoint));
	endpoint->id = id;
	endpoint->names = names;
	endpoint->database = MyDatabaseId;
	return endpoint;
}

/* ---- pairs ---- */

static PairBucket *
pair_bucket(uint64 endpoint, Oid mapping)
{
	return &health->pairs[hash_combine64(endpoint, murmurhash32(mapping)) &
						  (health->nbuckets - 1)];
}

static bool
is_pair(const Pair *pair, uint64 endpoint, Oid mapping)
{
	return pair->endpoint == endpoint && pair->mapping == mapping;
}

/* Until when the pair is cool, and how; false: it is not. */
static bool
look_at_pair(uint64 endpoint, Oid mapping, int64 now, HealthView *view)
{
	PairBucket *bucket;
	bool		found = false;

	if ((int64) pg_atomic_read_u64(&health->cool_until_us) <= now)
		return false;
	bucket = pair_bucket(endpoint, mapping);
	SpinLockAcquire(&bucket->mutex);
	for (int i = 0; i < WAYS && !found; i++)
	{
		const Pair *pair = &bucket->slots[i];

		if (!is_pair(pair, endpoint, mapping) || pair->until_us <= now)
			continue;
		view->verdict = pair->refused ? HEALTH_REFUSED : HEALTH_COOLING;
		view->until_us = pair->until_us;
		found = true;
	}
	SpinLockRelease(&bucket->mutex);
	return found;
}

/* Its own slot, else the one that is free soonest. */
static Pair *
choose_pair(PairBucket *bucket, uint64 endpoint, Oid mapping)
{
	Pair	   *chosen = &bucket->slots[0];

	for (int i = 0; i < WAYS; i++)
	{
		Pair	   *pair = &bucket->slots[i];

		if (is_pair(pair, endpoint, mapping))
			return pair;
		if (pair->until_us < chosen->until_us)
			chosen = pair;
	}
	return chosen;
}

static void
note_cool_until(int64 until_us)
{
	uint64		known = pg_atomic_read_u64(&health->cool_until_us);

	while (until_us > (int64) known &&
		   !pg_atomic_compare_exchange_u64(&health->cool_until_us, &known,
										   until_us))
		;
}

/*
 * The key is not to be used at the endpoint until then, unless it is so for
 * longer already.  refused: not because of too many requests but because the
 * service does not take the key: who has no other way may ask all the same.
 */
void
health_cool(uint64 endpoint, Oid mapping, uint64 names, int64 until_us,
			bool refused)
{
	PairBucket *bucket;
	Pair	   *pair;

	if (!ready())
		return;
	bucket = pair_bucket(endpoint, mapping);
	SpinLockAcquire(&bucket->mutex);
	pair = choose_pair(bucket, endpoint, mapping);
	if (!is_pair(pair, endpoint, mapping) || pair->refused ||
		pair->until_us < until_us)
	{
		pair->endpoint = endpoint;
		pair->mapping = mapping;
		pair->refused = refused;
		pair->names = names;
		pair->database = MyDatabaseId;
		pair->until_us = until_us;
	}
	SpinLockRelease(&bucket->mutex);
	note_cool_until(until_us);
}

/* ---- attempts ---- */

/* How an attempt would fare that began now.  Raises nothing. */
HealthView
health_look(uint64 endpoint, Oid mapping)
{
	HealthView	view = {HEALTH_WELL, 0, false};
	BreakerRules rules = current_rules();
	int64		now = clock_us();
	EndpointBucket *bucket;
	Endpoint   *slot;

	if (!ready())
		return view;
	bucket = endpoint_bucket(endpoint);
	SpinLockAcquire(&bucket->mutex);
	slot = find_endpoint(bucket, endpoint);
	if (slot != NULL &&
		breaker_state(&slot->breaker, &rules, now,
					  &view.until_us) == BREAKER_OPEN)
	{
		view.verdict = HEALTH_BROKEN;
		view.until_us = breaker_next_look(&slot->breaker, now);
		view.probing = slot->breaker.state == BREAKER_HALF_OPEN;
	}
	SpinLockRelease(&bucket->mutex);
	if (view.verdict == HEALTH_WELL)
		(void) look_at_pair(endpoint, mapping, now, &view);
	return view;
}

/*
 * An attempt begins; false: it must not.  When it is a probe nobody else is
 * let pass for probe_us.  A refused key is no hindrance here.  *epoch goes to
 * health_end().  Raises nothing.
 */
bool
health_enter(uint64 endpoint, Oid mapping, uint64 names, int64 probe_us,
			 uint32 *epoch)
{
	BreakerRules rules = current_rules();
	int64		now = clock_us();
	HealthView	view;
	EndpointBucket *bucket;
	Endpoint   *slot;
	bool		passes;

	*epoch = 0;
	if (!ready())
		return true;
	if (look_at_pair(endpoint, mapping, now, &view) &&
		view.verdict == HEALTH_COOLING)
		return false;
	bucket = endpoint_bucket(endpoint);
	SpinLockAcquire(&bucket->mutex);
	slot = make_endpoint(bucket, endpoint, names);
	slot->used_us = now;
	passes = breaker_enter(&slot->breaker, &rules, now, probe_us, epoch);
	SpinLockRelease(&bucket->mutex);
	return passes;
}

/*
 * An attempt that health_enter() has let pass is over.  seen: of a failure, in
 * words of ours, which anybody may read.  Raises nothing and allocates
 * nothing.
 */
void
health_end(uint64 endpoint, uint32 epoch, BreakerOutcome outcome,
		   const char *seen)
{
	BreakerRules rules = current_rules();
	double		jitter = pg_prng_double(&pg_global_prng_state);
	int64		now = clock_us();
	EndpointBucket *bucket;
	Endpoint   *slot;

	if (health == NULL)
		return;
	bucket = endpoint_bucket(endpoint);
	SpinLockAcquire(&bucket->mutex);
	slot = find_endpoint(bucket, endpoint);
	if (slot != NULL)
	{
		(void) breaker_end(&slot->breaker, &rules, now, epoch, outcome,
						   jitter);
		if (outcome == BREAKER_FAILED)
			strlcpy(slot->seen, seen, HEALTH_SEEN_LEN);
	}
	SpinLockRelease(&bucket->mutex);
}

/* Why the endpoint's circuit is open. */
HealthTrouble
health_trouble(uint64 endpoint)
{
	HealthTrouble trouble = {0};
	EndpointBucket *bucket;
	const Endpoint *slot;

	if (health == NULL)
		return trouble;
	bucket = endpoint_bucket(endpoint);
	SpinLockAcquire(&bucket->mutex);
	slot = find_endpoint(bucket, endpoint);
	if (slot != NULL && slot->breaker.state != BREAKER_CLOSED)
	{
		trouble.since_us = slot->breaker.since_us;
		memcpy(trouble.seen, slot->seen, HEALTH_SEEN_LEN);
	}
	SpinLockRelease(&bucket->mutex);
	return trouble;
}

/* ---- what is shown ---- */

typedef struct Rows
{
	HealthRow  *rows;
	int			count;
} Rows;

/* A bucket's contents, so that rows are made without its mutex. */
static void
add_endpoints(Rows *rows, EndpointBucket *bucket, int64 now)
{
	BreakerRules rules = current_rules();
	Endpoint	copies[WAYS];

	SpinLockAcquire(&bucket->mutex);
	memcpy(copies, bucket->slots, sizeof(copies));
	SpinLockRelease(&bucket->mutex);
	for (int i = 0; i < WAYS; i++)
	{
		const Breaker *breaker = &copies[i].breaker;
		HealthRow  *row = &rows->rows[rows->count];
		int64		until_us;

		if (copies[i].id == 0 || copies[i].database != MyDatabaseId)
			continue;
		row->endpoint = copies[i].id;
		row->names = copies[i].names;
		row->state = breaker_state(breaker, &rules, now, &until_us);
		/* while the probe is in the air nothing else passes */
		if (row->state == BREAKER_OPEN &&
			breaker->state == BREAKER_HALF_OPEN)
			row->state = BREAKER_HALF_OPEN;
		row->since_us = breaker->since_us;
		row->cooling_until_us = 0;
		rows->count++;
	}
}

static void
add_pairs(Rows *rows, PairBucket *bucket, int64 now)
{
	Pair		copies[WAYS];

	SpinLockAcquire(&bucket->mutex);
	memcpy(copies, bucket->slots, sizeof(copies));
	SpinLockRelease(&bucket->mutex);
	for (int i = 0; i < WAYS; i++)
	{
		HealthRow  *row = &rows->rows[rows->count];

		if (copies[i].until_us <= now || copies[i].database != MyDatabaseId)
			continue;
		row->endpoint = copies[i].endpoint;
		row->names = copies[i].names;
		row->state = BREAKER_CLOSED;
		row->since_us = 0;
		row->cooling_until_us = copies[i].until_us;
		rows->count++;
	}
}

/*
 * What is known of this database's endpoints and pairs, a row each; palloc'd.
 */
HealthRow *
health_read(int *count)
{
	Rows		rows = {NULL, 0};
	int64		now = clock_us();

	*count = 0;
	if (health == NULL)
		return NULL;
	rows.rows = palloc(health->nbuckets * WAYS * 2 * sizeof(HealthRow));
	for (int i = 0; i < health->nbuckets; i++)
	{
		add_endpoints(&rows, &health->endpoints[i], now);
		add_pairs(&rows, &health->pairs[i], now);
	}
	*count = rows.count;
	return rows.rows;
}
