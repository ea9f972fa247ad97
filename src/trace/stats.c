/*
 * stats.c
 *	  Counters and histograms of models and endpoints, in shared memory.
 *
 * An entry per (database, model, version, server), found by the hash of these
 * in an open-addressed index of twice the size.  The way that every attempt
 * takes is the lock-free look into the index and the entry's spinlock; only a
 * new entry and a reset take the lock of the whole.  What the index says is a
 * hint: the entry's own hash, read under its spinlock, decides, and who finds
 * nothing looks again under the lock.
 *
 * An attempt holds its entry from begin to end by being counted in in_flight:
 * a reset frees only entries that nothing is in flight of.  Each process keeps
 * its own share of the in_flight of each entry and takes it back when it
 * exits, so that a process which ends in mid-call leaves nothing behind.  The
 * share need not be in shared memory: a process that cannot run its exit
 * callbacks takes the whole of shared memory along.
 *
 * When there is no free entry attempts count in a last one, "(other)".
 */
#include "postgres.h"

#include "base/settings.h"
#include "base/shared.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "policy/histogram.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "trace/stats.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define MODEL_LEN 256			/* bytes, with the zero; longer names are cut */
#define VERSION_LEN 64
#define SERVER_LEN NAMEDATALEN
#define CUT_MARK 10				/* "~" and eight digits of a hash, the zero */
#define RING 64					/* seconds, of which RATE_SECONDS count */
#define RATE_SECONDS 60
#define OTHER "(other)"

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

static Stats *stats = NULL;

/* This process's share of in_flight, by entry. */
static int *mine = NULL;
static bool left = false;		/* it has taken its share back, for good */

static int
index_slots(void)
{
	int			n = 32;

	while (n < setting_max_stats * 2)
		n *= 2;
	return n;
}

/* Bytes of this area; for shmem_request_hook. */
Size
stats_size(void)
{
	Size		size = MAXALIGN(sizeof(Stats));

	size = add_size(size, mul_size(index_slots(), sizeof(IndexSlot)));
	return add_size(size, mul_size(setting_max_stats + 1,
								   sizeof(StatsEntry)));
}

static void
init_entry(StatsEntry *entry)
{
	memset(entry, 0, sizeof(StatsEntry));
	SpinLockInit(&entry->mutex);
}

static void
init_other(StatsEntry *entry)
{
	entry->hash = 1;
	entry->database = InvalidOid;
	strlcpy(entry->model, OTHER, MODEL_LEN);
	strlcpy(entry->version, OTHER, VERSION_LEN);
	strlcpy(entry->server, OTHER, SERVER_LEN);
	entry->counters.since = GetCurrentTimestamp();
}

/* Makes or finds the area; under AddinShmemInitLock. */
void
stats_init(void)
{
	bool		found;
	char	   *area = ShmemInitStruct("chaincall stats", stats_size(), &found);

	stats = (Stats *) area;
	if (!found)
	{
		LWLockInitialize(&stats->lock, LWLockNewTrancheId());
		stats->nentries = setting_max_stats;
		stats->nslots = index_slots();
		pg_atomic_init_u32(&stats->nused, 0);
		stats->index = (IndexSlot *) (area + MAXALIGN(sizeof(Stats)));
		stats->entries = (StatsEntry *) (stats->index + stats->nslots);
		for (int i = 0; i < stats->nslots; i++)
		{
			pg_atomic_init_u64(&stats->index[i].hash, 0);
			pg_atomic_init_u32(&stats->index[i].entry, 0);
		}
		for (int i = 0; i <= stats->nentries; i++)
			init_entry(&stats->entries[i]);
		init_other(&stats->entries[stats->nentries]);
	}
	LWLockRegisterTranche(stats->lock.tranche, "chaincall_stats");
}

/* ---- finding and making entries ---- */

static uint64
hash_text(const char *text, uint64 seed)
{
	return hash_bytes_extended((const unsigned char *) text, strlen(text),
							   seed);
}

/* The names in full; neither 0 (free) nor 1 ("(other)"). */
static uint64
hash_names(const char *model, const char *version, const char *server)
{
	uint64		hash = hash_text(model, MyDatabaseId);

	hash = hash_text(version, hash);
	hash = hash_text(server, hash);
	return hash > 1 ? hash : hash + 2;
}

/* A name as far as it fits; cut, it ends in a hash of the whole. */
static void
keep_name(char *to, size_t size, const char *name)
{
	size_t		len = strlen(name);

	if (len < size)
	{
		memcpy(to, name, len + 1);
		return;
	}
	len = pg_mbcliplen(name, (int) Min(len, (size_t) INT_MAX),
					   (int) size - CUT_MARK);
	memcpy(to, name, len);
	snprintf(to + len, CUT_MARK, "~%08x", (uint32) hash_text(name, 0));
}

/* What the index has for the hash, or NULL. */
static StatsEntry *
find_entry(uint64 hash)
{
	uint32		at = (uint32) hash & (stats->nslots - 1);

	for (int i = 0; i < stats->nslots; i++)
	{
		IndexSlot  *slot = &stats->index[at];
		uint64		found = pg_atomic_read_u64(&slot->hash);

		if (found == hash)
			return &stats->entries[pg_atomic_read_u32(&slot->entry)];
		if (found == 0)
			return NULL;
		at = (at + 1) & (stats->nslots - 1);
	}
	return NULL;
}

/* Under the lock. */
static void
index_entry(const StatsEntry *entry)
{
	uint32		at = (uint32) entry->hash & (stats->nslots - 1);

	while (pg_atomic_read_u64(&stats->index[at].hash) != 0)
		at = (at + 1) & (stats->nslots - 1);
	pg_atomic_write_u32(&stats->index[at].entry,
						(uint32) (entry - stats->entries));
	pg_write_barrier();
	pg_atomic_write_u64(&stats->index[at].hash, entry->hash);
}

/* A free entry, not yet in the index, or NULL.  Under the lock. */
static StatsEntry *
take_free(void)
{
	if (pg_atomic_read_u32(&stats->nused) >= (uint32) stats->nentries)
		return NULL;
	for (int i = 0; i < stats->nentries; i++)
		if (stats->entries[i].hash == 0)
			return &stats->entries[i];
	return NULL;
}

/* Counts the attempt as begun; false: the entry is another's by now. */
static bool
enter(StatsEntry *entry, uint64 hash, TimestampTz now)
{
	bool		same;

	SpinLockAcquire(&entry->mutex);
	same = entry->hash == hash;
	if (same)
	{
		entry->in_flight++;
		entry->counters.last_begun_at = now;
	}
	SpinLockRelease(&entry->mutex);
	return same;
}

static StatsEntry *
enter_other(TimestampTz now)
{
	StatsEntry *entry = &stats->entries[stats->nentries];

	(void) enter(entry, 1, now);
	return entry;
}

/* Finds the entry or makes it, and enters it. */
static StatsEntry *
make_entry(uint64 hash, const char *model, const char *version,
		   const char *server, TimestampTz now)
{
	StatsEntry *entry;

	LWLockAcquire(&stats->lock, LW_EXCLUSIVE);
	entry = find_entry(hash);
	if (entry == NULL && (entry = take_free()) != NULL)
	{
		SpinLockAcquire(&entry->mutex);
		entry->hash = hash;
		entry->database = MyDatabaseId;
		SpinLockRelease(&entry->mutex);
		/* nobody else reads names without the lock */
		keep_name(entry->model, MODEL_LEN, model);
		keep_name(entry->version, VERSION_LEN, version);
		keep_name(entry->server, SERVER_LEN, server);
		entry->counters.since = now;
		pg_atomic_fetch_add_u32(&stats->nused, 1);
		index_entry(entry);
	}
	if (entry == NULL || !enter(entry, hash, now))
		entry = enter_other(now);
	LWLockRelease(&stats->lock);
	return entry;
}

/* ---- counting ---- */

/* Takes back this process's share; what was in the air counts as cancelled. */
static void
leave(int code, Datum arg)
{
	left = true;
	for (int i = 0; i <= stats->nentries; i++)
	{
		StatsEntry *entry = &stats->entries[i];

		if (mine[i] == 0)
			continue;
		SpinLockAcquire(&entry->mutex);
		entry->in_flight -= mine[i];
		entry->counters.by_class[CLASS_CANCELLED] += mine[i];
		SpinLockRelease(&entry->mutex);
	}
}

static bool
join(void)
{
	mine = MemoryContextAllocExtended(TopMemoryContext,
									  (stats->nentries + 1) * sizeof(int),
									  MCXT_ALLOC_NO_OOM | MCXT_ALLOC_ZERO);
	if (mine == NULL)
		return false;
	before_shmem_exit(leave, (Datum) 0);
	return true;
}

static void
count_worker(int step, bool error)
{
	if (my_worker == NULL)
		return;
	/* only this process writes */
	pg_atomic_write_u32(&my_worker->calls_now,
						pg_atomic_read_u32(&my_worker->calls_now) + step);
	if (step > 0)
		pg_atomic_write_u64(&my_worker->calls,
							pg_atomic_read_u64(&my_worker->calls) + 1);
	if (error)
		pg_atomic_write_u64(&my_worker->errors,
							pg_atomic_read_u64(&my_worker->errors) + 1);
}

/*
 * An attempt at the endpoint begins, now.  Raises nothing.  The result goes to
 * stats_attempt_end(), once; when the process exits before, that is done for
 * it.  In a worker its slot counts too.
 */
StatsEntry *
stats_attempt_begin(const char *model, const char *version, const char *server)
{
	TimestampTz now;
	StatsEntry *entry;
	uint64		hash;

	if (stats == NULL || left || (mine == NULL && !join()))
		return NULL;
	now = GetCurrentTimestamp();
	hash = hash_names(model, version, server);
	entry = find_entry(hash);
	if (entry == NULL &&
		pg_atomic_read_u32(&stats->nused) >= (uint32) stats->nentries)
		entry = enter_other(now);
	else if (entry == NULL || !enter(entry, hash, now))
		entry = make_entry(hash, model, version, server, now);
	mine[entry - stats->entries]++;
	count_worker(1, false);
	return entry;
}

/* Under the entry's spinlock: nothing here calls, waits or raises. */
static void
count(Counters *counters, const AttemptStats *attempt, TimestampTz now)
{
	int64		second = now / USECS_PER_SEC;
	Second	   *slot = &counters->ring[(uint64) second % RING];

	if (slot->second != second)
	{
		slot->second = second;
		slot->attempts = 0;
	}
	slot->attempts++;
	counters->by_class[attempt->cls]++;
	counters->tokens_in += Max(attempt->tokens_in, 0);
	counters->tokens_out += Max(attempt->tokens_out, 0);
	if (attempt->first_byte_us >= 0)
		histogram_add(&counters->first_byte, attempt->first_byte_us);
	if (attempt->cls == CLASS_CANCELLED)
		return;					/* how long it took was not the service's doing */
	histogram_add(&counters->latency, attempt->us);
	counters->sum_us += Max(attempt->us, 0);
	if (attempt->cls != CLASS_NONE)
	{
		counters->last_failed_at = now;
		counters->last_failure = attempt->cls;
	}
}

/*
 * The attempt is over, now; entry is what its begin gave, or NULL.  Raises
 * nothing and allocates nothing, so that it may be called in any clean-up.
 */
void
stats_attempt_end(StatsEntry *entry, const AttemptStats *attempt)
{
	TimestampTz now;

	if (entry == NULL || left)
		return;
	now = GetCurrentTimestamp();
	Assert(mine[entry - stats->entries] > 0);
	mine[entry - stats->entries]--;
	SpinLockAcquire(&entry->mutex);
	entry->in_flight--;
	count(&entry->counters, attempt, now);
	SpinLockRelease(&entry->mutex);
	count_worker(-1, attempt->cls != CLASS_NONE &&
				 attempt->cls != CLASS_CANCELLED);
}

/* ---- reading ---- */

/* A model's sum over its endpoints. */
typedef struct ModelSum
{
	char		model[MODEL_LEN];	/* hash key */
	StatsEntry	sum;
} ModelSum;

/* Attempts a second over the last minute's whole seconds, or since `since`. */
static double
rate_of(const Counters *counters, TimestampTz now)
{
	int64		second = now / USECS_PER_SEC;
	int64		age = second - counters->since / USECS_PER_SEC;
	int64		attempts = 0;

	for (int i = 0; i < RING; i++)
	{
		const Second *slot = &counters->ring[i];

		if (slot->second >= second - RATE_SECONDS && slot->second < second)
			attempts += slot->attempts;
	}
	return (double) attempts / Min(Max(age, 1), RATE_SECONDS);
}

static StatsRow *
make_row(const StatsEntry *entry, bool by_model, TimestampTz now)
{
	const Counters *counters = &entry->counters;
	StatsRow   *row = palloc0(sizeof(StatsRow));
	uint64		timed = histogram_total(&counters->latency);

	row->model = pstrdup(entry->model);
	if (!by_model)
	{
		row->version = pstrdup(entry->version);
		row->server = pstrdup(entry->server);
	}
	memcpy(row->by_class, counters->by_class, sizeof(row->by_class));
	row->in_flight = entry->in_flight;
	row->tokens_in = counters->tokens_in;
	row->tokens_out = counters->tokens_out;
	row->rate = rate_of(counters, now);
	row->mean_us = timed ? (double) counters->sum_us / timed : -1;
	row->p50_us = histogram_quantile(&counters->latency, 0.50);
	row->p99_us = histogram_quantile(&counters->latency, 0.99);
	row->first_p50_us = histogram_quantile(&counters->first_byte, 0.50);
	row->first_p99_us = histogram_quantile(&counters->first_byte, 0.99);
	row->since = counters->since;
	row->last_begun_at = counters->last_begun_at;
	row->last_failed_at = counters->last_failed_at;
	row->last_failure = counters->last_failure;
	return row;
}

static void
merge_seconds(Second *into, const Second *from)
{
	for (int i = 0; i < RING; i++)
	{
		if (into[i].second == from[i].second)
			into[i].attempts += from[i].attempts;
		else if (into[i].second < from[i].second)
			into[i] = from[i];
	}
}

static void
merge_counters(Counters *into, const Counters *from)
{
	into->since = Min(into->since, from->since);
	into->last_begun_at = Max(into->last_begun_at, from->last_begun_at);
	if (from->last_failed_at > into->last_failed_at)
	{
		into->last_failed_at = from->last_failed_at;
		into->last_failure = from->last_failure;
	}
	for (int i = 0; i < (int) lengthof(into->by_class); i++)
		into->by_class[i] += from->by_class[i];
	into->tokens_in += from->tokens_in;
	into->tokens_out += from->tokens_out;
	into->sum_us += from->sum_us;
	merge_seconds(into->ring, from->ring);
	histogram_merge(&into->latency, &from->latency);
	histogram_merge(&into->first_byte, &from->first_byte);
}

static void
add_to_model(HTAB *models, const StatsEntry *entry)
{
	bool		found;
	ModelSum   *model = hash_search(models, entry->model, HASH_ENTER, &found);

	if (!found)
		model->sum = *entry;
	else
	{
		model->sum.in_flight += entry->in_flight;
		merge_counters(&model->sum.counters, &entry->counters);
	}
}

static HTAB *
make_models(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = MODEL_LEN;
	ctl.entrysize = sizeof(ModelSum);
	ctl.hcxt = CurrentMemoryContext;
	return hash_create("chaincall model statistics", 64, &ctl,
					   HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

/* Of this database, or "(other)", if anything was ever counted there. */
static bool
is_ours(const StatsEntry *entry)
{
	if (entry->hash == 0)
		return false;
	if (OidIsValid(entry->database))
		return entry->database == MyDatabaseId;
	return entry->counters.last_begun_at != 0;
}

/*
 * A consistent copy, if the entry is ours; under the lock, so that it is not
 * made or freed meanwhile.
 */
static bool
copy_entry(const StatsEntry *entry, StatsEntry *copy)
{
	StatsEntry *locked = unconstify(StatsEntry *, entry);

	if (!is_ours(entry))
		return false;
	SpinLockAcquire(&locked->mutex);
	memcpy(copy, entry, sizeof(StatsEntry));
	SpinLockRelease(&locked->mutex);
	return true;
}

/*
 * What was counted for the endpoints of this database, or for its models: a
 * list of StatsRow, palloc'd, in no order.  Empty without shared memory.
 */
List *
stats_read(bool by_model)
{
	TimestampTz now = GetCurrentTimestamp();
	HTAB	   *models = NULL;
	StatsEntry *copy;
	List	   *rows = NIL;

	if (stats == NULL)
		return NIL;
	copy = palloc(sizeof(StatsEntry));
	if (by_model)
		models = make_models();
	LWLockAcquire(&stats->lock, LW_SHARED);
	for (int i = 0; i <= stats->nentries; i++)
	{
		if (!copy_entry(&stats->entries[i], copy))
			continue;
		if (by_model)
			add_to_model(models, copy);
		else
			rows = lappend(rows, make_row(copy, false, now));
	}
	LWLockRelease(&stats->lock);
	pfree(copy);
	if (by_model)
	{
		HASH_SEQ_STATUS all;
		ModelSum   *model;

		hash_seq_init(&all, models);
		while ((model = hash_seq_search(&all)) != NULL)
			rows = lappend(rows, make_row(&model->sum, true, now));
		hash_destroy(models);
	}
	return rows;
}

/* ---- reset ---- */

/* Zeroes the entry; true: nothing is in flight of it, it is free now. */
static bool
reset_entry(StatsEntry *entry, TimestampTz now)
{
	bool		freed;

	SpinLockAcquire(&entry->mutex);
	memset(&entry->counters, 0, sizeof(Counters));
	entry->counters.since = now;
	freed = OidIsValid(entry->database) && entry->in_flight == 0;
	if (freed)
		entry->hash = 0;
	SpinLockRelease(&entry->mutex);
	return freed;
}

/* The index of what is left; who looks into it meanwhile may miss something. */
static void
rebuild_index(void)
{
	for (int i = 0; i < stats->nslots; i++)
		pg_atomic_write_u64(&stats->index[i].hash, 0);
	for (int i = 0; i < stats->nentries; i++)
		if (stats->entries[i].hash != 0)
			index_entry(&stats->entries[i]);
}

/*
 * Begins to count anew in a database: its own one's with what "(other)" has,
 * or a dropped one's, whose entries become free.
 */
void
stats_reset(Oid database)
{
	TimestampTz now = GetCurrentTimestamp();
	uint32		freed = 0;

	if (stats == NULL)
		return;
	LWLockAcquire(&stats->lock, LW_EXCLUSIVE);
	for (int i = 0; i < stats->nentries; i++)
	{
		StatsEntry *entry = &stats->entries[i];

		if (entry->hash != 0 && entry->database == database)
			freed += reset_entry(entry, now);
	}
	if (database == MyDatabaseId)
		(void) reset_entry(&stats->entries[stats->nentries], now);
	if (freed > 0)
	{
		pg_atomic_fetch_sub_u32(&stats->nused, freed);
		rebuild_index();
	}
	LWLockRelease(&stats->lock);
}
