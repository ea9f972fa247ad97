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
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "trace/stats_private.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define CUT_MARK 10				/* "~" and eight digits of a hash, the zero */
#define OTHER "(other)"

Stats	   *stats_area = NULL;

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

	stats_area = (Stats *) area;
	if (!found)
	{
		LWLockInitialize(&stats_area->lock, LWLockNewTrancheId());
		stats_area->nentries = setting_max_stats;
		stats_area->nslots = index_slots();
		pg_atomic_init_u32(&stats_area->nused, 0);
		stats_area->index = (IndexSlot *) (area + MAXALIGN(sizeof(Stats)));
		stats_area->entries = (StatsEntry *) (stats_area->index + stats_area->nslots);
		for (int i = 0; i < stats_area->nslots; i++)
		{
			pg_atomic_init_u64(&stats_area->index[i].hash, 0);
			pg_atomic_init_u32(&stats_area->index[i].entry, 0);
		}
		for (int i = 0; i <= stats_area->nentries; i++)
			init_entry(&stats_area->entries[i]);
		init_other(&stats_area->entries[stats_area->nentries]);
	}
	LWLockRegisterTranche(stats_area->lock.tranche, "chaincall_stats");
}

/* ---- finding and making entries ---- */

static uint64
hash_text(const char *text, uint64 seed)
{
	return hash_bytes_extended((const unsigned char *) text, strlen(text),
							   seed);
}

/*
 * What an endpoint's names in full are known by, in this database; neither 0
 * (free) nor 1 ("(other)").
 */
uint64
stats_id(const char *model, const char *version, const char *server)
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
	uint32		at = (uint32) hash & (stats_area->nslots - 1);

	for (int i = 0; i < stats_area->nslots; i++)
	{
		IndexSlot  *slot = &stats_area->index[at];
		uint64		found = pg_atomic_read_u64(&slot->hash);

		if (found == hash)
			return &stats_area->entries[pg_atomic_read_u32(&slot->entry)];
		if (found == 0)
			return NULL;
		at = (at + 1) & (stats_area->nslots - 1);
	}
	return NULL;
}

/* Under the lock. */
static void
index_entry(const StatsEntry *entry)
{
	uint32		at = (uint32) entry->hash & (stats_area->nslots - 1);

	while (pg_atomic_read_u64(&stats_area->index[at].hash) != 0)
		at = (at + 1) & (stats_area->nslots - 1);
	pg_atomic_write_u32(&stats_area->index[at].entry,
						(uint32) (entry - stats_area->entries));
	pg_write_barrier();
	pg_atomic_write_u64(&stats_area->index[at].hash, entry->hash);
}

/* A free entry, not yet in the index, or NULL.  Under the lock. */
static StatsEntry *
take_free(void)
{
	if (pg_atomic_read_u32(&stats_area->nused) >= (uint32) stats_area->nentries)
		return NULL;
	for (int i = 0; i < stats_area->nentries; i++)
		if (stats_area->entries[i].hash == 0)
			return &stats_area->entries[i];
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
	StatsEntry *entry = &stats_area->entries[stats_area->nentries];

	(void) enter(entry, 1, now);
	return entry;
}

/* Finds the entry or makes it, and enters it. */
static StatsEntry *
make_entry(uint64 hash, const char *model, const char *version,
		   const char *server, TimestampTz now)
{
	StatsEntry *entry;

	LWLockAcquire(&stats_area->lock, LW_EXCLUSIVE);
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
		pg_atomic_fetch_add_u32(&stats_area->nused, 1);
		index_entry(entry);
	}
	if (entry == NULL || !enter(entry, hash, now))
		entry = enter_other(now);
	LWLockRelease(&stats_area->lock);
	return entry;
}

/* ---- counting ---- */

/* Takes back this process's share; what was in the air counts as cancelled. */
static void
leave(int code, Datum arg)
{
	left = true;
	for (int i = 0; i <= stats_area->nentries; i++)
	{
		StatsEntry *entry = &stats_area->entries[i];

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
									  (stats_area->nentries + 1) * sizeof(int),
									  MCXT_ALLOC_NO_OOM | MCXT_ALLOC_ZERO);
	if (mine == NULL)
		return false;
	before_shmem_exit(leave, (Datum) 0);
	return true;
}

/*
 * An attempt at the endpoint begins, now.  Raises nothing.  The result goes to
 * stats_attempt_end(), once; when the process exits before, that is done for
 * it.
 */
StatsEntry *
stats_attempt_begin(const char *model, const char *version, const char *server)
{
	TimestampTz now;
	StatsEntry *entry;
	uint64		hash;

	if (stats_area == NULL || left || (mine == NULL && !join()))
		return NULL;
	now = GetCurrentTimestamp();
	hash = stats_id(model, version, server);
	entry = find_entry(hash);
	if (entry == NULL &&
		pg_atomic_read_u32(&stats_area->nused) >= (uint32) stats_area->nentries)
		entry = enter_other(now);
	else if (entry == NULL || !enter(entry, hash, now))
		entry = make_entry(hash, model, version, server, now);
	mine[entry - stats_area->entries]++;
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
	Assert(mine[entry - stats_area->entries] > 0);
	mine[entry - stats_area->entries]--;
	SpinLockAcquire(&entry->mutex);
	entry->in_flight--;
	count(&entry->counters, attempt, now);
	SpinLockRelease(&entry->mutex);
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
	for (int i = 0; i < stats_area->nslots; i++)
		pg_atomic_write_u64(&stats_area->index[i].hash, 0);
	for (int i = 0; i < stats_area->nentries; i++)
		if (stats_area->entries[i].hash != 0)
			index_entry(&stats_area->entries[i]);
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

	if (stats_area == NULL)
		return;
	LWLockAcquire(&stats_area->lock, LW_EXCLUSIVE);
	for (int i = 0; i < stats_area->nentries; i++)
	{
		StatsEntry *entry = &stats_area->entries[i];

		if (entry->hash != 0 && entry->database == database)
			freed += reset_entry(entry, now);
	}
	if (database == MyDatabaseId)
		(void) reset_entry(&stats_area->entries[stats_area->nentries], now);
	if (freed > 0)
	{
		pg_atomic_fetch_sub_u32(&stats_area->nused, freed);
		rebuild_index();
	}
	LWLockRelease(&stats_area->lock);
}
