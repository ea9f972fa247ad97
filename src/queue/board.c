/*
 * board.c
 *	  Who has work: the owners with queued jobs, in shared memory.
 *
 * An array of entries found by a hash table of chains.  The lock is shared for
 * everything but entering, reusing and forgetting entries; what changes with
 * every job is guarded by the entry's spinlock.  Entries are never given back:
 * when all are used, one without work and count is taken over.
 *
 * Why no job is overlooked.  A job becomes visible before its rank gets into
 * `pending`.  board_take() moves `pending` into the mark before its caller
 * takes a snapshot, and renews the entry's generation when there was
 * something to move.  So whoever holds the present generation has a snapshot
 * that sees all that `pending` ever told of, and may raise the mark to what it
 * has seen; who holds an older one may not.  What comes later is in `pending`.
 * Two claimers of one generation differ only in jobs that `pending` still
 * tells of, and in rows that the other has locked and thereby claimed; one
 * that gives its rows back (its transaction aborts) tells the board.
 */
#include "postgres.h"

#include "base/error.h"
#include "base/settings.h"
#include "base/shared.h"
#include "common/hashfn.h"
#include "common/int.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "queue/board.h"
#include "queue/board_private.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"

#define NO_RANK PG_INT64_MAX	/* nothing */
#define NO_ENTRY (-1)

typedef struct BoardEntry
{
	/* guarded by the board's lock */
	Oid			database;
	Oid			owner;
	int			next;			/* of the same hash chain */
	/* guarded by the spinlock */
	slock_t		mutex;
	BoardPlace	mark;
	TimestampTz pending;
	uint64		generation;
	int64		open;			/* reserved by transactions under way */
	int64		count;			/* enqueued, not started */
} BoardEntry;

typedef struct Board
{
	LWLock	   *lock;
	pg_atomic_uint64 generation;
	pg_atomic_uint64 news;		/* counts what was told, of whomever */
	int			used;			/* entries from 0 on that have an owner */
	int			nentries;
	uint32		hash_mask;
	int		   *chains;
	BoardEntry *entries;
} Board;

static Board *board = NULL;

/* ---- shared memory ---- */

static uint32
chain_count(void)
{
	return pg_nextpower2_32((uint32) setting_max_owners);
}

/* A job's place in line: run_at less what the priority is worth, within bounds. */
TimestampTz
board_rank(TimestampTz run_at, int32 priority)
{
	int64		worth;
	int64		rank;

	worth = (int64) priority * setting_priority_interval_ms;
	if (pg_mul_s64_overflow(worth, 1000, &worth) ||
		pg_sub_s64_overflow(run_at, worth, &rank))
		rank = priority > 0 ? MIN_TIMESTAMP : END_TIMESTAMP - 1;
	return Min(Max(rank, MIN_TIMESTAMP), END_TIMESTAMP - 1);
}

/* Bytes of this area; for shmem_request_hook. */
Size
board_size(void)
{
	Size		size = MAXALIGN(sizeof(Board));

	size = add_size(size, MAXALIGN(mul_size(chain_count(), sizeof(int))));
	size = add_size(size, MAXALIGN(mul_size(setting_max_owners,
											sizeof(BoardEntry))));
	return add_size(size, waiter_size());
}

/* Makes or finds the area; under AddinShmemInitLock. */
void
board_init(void)
{
	bool		found;
	char	   *area = ShmemInitStruct("chaincall board", board_size(), &found);
	char	   *chains = area + MAXALIGN(sizeof(Board));
	char	   *entries = chains + MAXALIGN(mul_size(chain_count(), sizeof(int)));

	board = (Board *) area;
	waiter_init(entries + MAXALIGN(mul_size(setting_max_owners,
											sizeof(BoardEntry))),
				!found);
	if (found)
		return;
	board->lock = &(GetNamedLWLockTranche("chaincall_board"))->lock;
	pg_atomic_init_u64(&board->generation, 1);
	pg_atomic_init_u64(&board->news, 0);
	board->used = 0;
	board->nentries = setting_max_owners;
	board->hash_mask = chain_count() - 1;
	board->chains = (int *) chains;
	board->entries = (BoardEntry *) entries;
	for (uint32 i = 0; i <= board->hash_mask; i++)
		board->chains[i] = NO_ENTRY;
}

/* ---- entries ---- */

static int *
chain_of(Oid database, Oid owner)
{
	return &board->chains[hash_combine(murmurhash32(database),
									   murmurhash32(owner)) &
						  board->hash_mask];
}

static BoardEntry *
find_entry(Oid database, Oid owner)
{
	for (int i = *chain_of(database, owner); i != NO_ENTRY;
		 i = board->entries[i].next)
	{
		if (board->entries[i].owner == owner &&
			board->entries[i].database == database)
			return &board->entries[i];
	}
	return NULL;
}

static void
link_entry(int index, Oid database, Oid owner)
{
	BoardEntry *entry = &board->entries[index];
	int		   *chain = chain_of(database, owner);

	entry->database = database;
	entry->owner = owner;
	entry->mark.rank = NO_RANK;
	entry->pending = NO_RANK;
	entry->generation = 0;
	entry->open = 0;
	entry->count = 0;
	entry->next = *chain;
	*chain = index;
}

static void
unlink_entry(int index)
{
	BoardEntry *entry = &board->entries[index];
	int		   *link = chain_of(entry->database, entry->owner);

	while (*link != index)
		link = &board->entries[*link].next;
	*link = entry->next;
	entry->database = InvalidOid;
	entry->owner = InvalidOid;
}

/* Under the exclusive lock nobody holds a spinlock. */
static bool
is_vacant(const BoardEntry *entry)
{
	return !OidIsValid(entry->owner) ||
		(entry->mark.rank == NO_RANK && entry->pending == NO_RANK &&
		 entry->open == 0 && entry->count == 0);
}

/* An entry for that owner; NULL when all are in use.  The lock is exclusive. */
static BoardEntry *
enter(Oid database, Oid owner)
{
	BoardEntry *entry = find_entry(database, owner);
	int			index;

	if (entry != NULL)
		return entry;
	if (board->used < board->nentries)
	{
		index = board->used++;
		SpinLockInit(&board->entries[index].mutex);
	}
	else
	{
		for (index = 0; index < board->nentries; index++)
		{
			if (is_vacant(&board->entries[index]))
				break;
		}
		if (index == board->nentries)
			return NULL;
		if (OidIsValid(board->entries[index].owner))
			unlink_entry(index);
	}
	link_entry(index, database, owner);
	return &board->entries[index];
}

/*
 * Finds or makes the entry of an owner in this database, and keeps the lock
 * (in either mode).  NULL when there is no room; the lock is held all the same.
 */
static BoardEntry *
lock_entry(Oid owner)
{
	BoardEntry *entry;

	LWLockAcquire(board->lock, LW_SHARED);
	entry = find_entry(MyDatabaseId, owner);
	if (entry != NULL)
		return entry;
	LWLockRelease(board->lock);
	LWLockAcquire(board->lock, LW_EXCLUSIVE);
	return enter(MyDatabaseId, owner);
}

/* ---- what transactions of sessions do; see board_session.c ---- */

/*
 * One more job of a transaction under way; false: beyond the limit (-1: none),
 * nothing was counted.  Raises when the board is full.
 */
bool
board_open(Oid owner, int64 limit)
{
	BoardEntry *entry = lock_entry(owner);
	bool		fits;

	if (entry == NULL)
	{
		LWLockRelease(board->lock);
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many roles have unfinished jobs"),
				 errdetail("At most %d are kept account of, over all databases.",
						   setting_max_owners),
				 errhint("Raise chaincall.max_owners and restart the server, or wait until jobs have ended.")));
	}
	SpinLockAcquire(&entry->mutex);
	fits = limit < 0 || entry->open + entry->count < limit;
	if (fits)
		entry->open++;
	SpinLockRelease(&entry->mutex);
	LWLockRelease(board->lock);
	return fits;
}

/*
 * A transaction has ended: its jobs no longer are under way, and count from
 * now on if it kept them.  Does not raise.
 */
void
board_close(Oid owner, int64 njobs, bool kept)
{
	BoardEntry *entry;

	LWLockAcquire(board->lock, LW_SHARED);
	entry = find_entry(MyDatabaseId, owner);
	if (entry != NULL)
	{
		SpinLockAcquire(&entry->mutex);
		entry->open = Max(entry->open - njobs, 0);
		if (kept)
			entry->count += njobs;
		SpinLockRelease(&entry->mutex);
	}
	LWLockRelease(board->lock);
}

/*
 * Tells of a job of that rank and no smaller one, which is visible by now.
 * Does not raise; false: no room, the maintainer has to look.
 */
bool
board_pend(Oid owner, TimestampTz rank)
{
	BoardEntry *entry = lock_entry(owner);

	if (entry != NULL)
	{
		SpinLockAcquire(&entry->mutex);
		entry->pending = Min(entry->pending, rank);
		SpinLockRelease(&entry->mutex);
		pg_atomic_fetch_add_u64(&board->news, 1);
	}
	LWLockRelease(board->lock);
	return entry != NULL;
}

/* Changes whenever something is told, of whatever owner and database. */
uint64
board_news(void)
{
	return pg_atomic_read_u64(&board->news);
}

/* ---- what workers do ---- */

/*
 * A job of that rank is queued (promoted, recovered, given back) and
 * committed: puts it into pending and wakes a caller.  Nothing happens when the
 * board is full; the maintainer's next look tells again.
 */
void
board_tell(Oid owner, TimestampTz rank)
{
	if (board_pend(owner, Min(rank, NO_RANK - 1)))
		worker_wake_idle_caller(MyDatabaseId);
}

static bool
take_entry(BoardEntry *entry, BoardClaim *claim)
{
	bool		has_work;

	SpinLockAcquire(&entry->mutex);
	if (entry->pending != NO_RANK)
	{
		/* what it tells of may be anywhere in that rank */
		if (entry->pending <= entry->mark.rank)
			entry->mark = (BoardPlace) {entry->pending};
		entry->pending = NO_RANK;
		entry->generation = pg_atomic_add_fetch_u64(&board->generation, 1);
	}
	has_work = entry->mark.rank != NO_RANK;
	claim->mark = entry->mark;
	claim->generation = entry->generation;
	SpinLockRelease(&entry->mutex);
	claim->owner = entry->owner;
	claim->quota = 0;
	return has_work;
}

/*
 * At most max owners of this database that have work, each time beginning
 * behind the last one of the time before.  Takes their pending ranks, so the
 * snapshot to claim with must be taken afterwards, and board_settle() be called
 * for each, or board_tell() when the claim failed.
 */
int
board_take(BoardClaim *claims, int max)
{
	static int	start = 0;
	int			n = 0;
	int			last = -1;

	LWLockAcquire(board->lock, LW_SHARED);
	if (start >= board->used)
		start = 0;
	for (int i = 0; i < board->used && n < max; i++)
	{
		int			index = (start + i) % board->used;
		BoardEntry *entry = &board->entries[index];

		if (entry->database != MyDatabaseId ||
			!take_entry(entry, &claims[n]))
			continue;
		last = index;
		n++;
	}
	if (last >= 0)
		start = last + 1;
	LWLockRelease(board->lock);
	return n;
}

/*
 * What a claim whose transaction has committed has seen: all of the owner's
 * queued jobs (exhausted), or those up to the place last.  Raises the mark, unless
 * pending was taken by somebody with a later snapshot.  A claim that has
 * looked at nothing of the owner need not be settled.
 */
void
board_settle(const BoardClaim *claim, bool exhausted, const BoardPlace *last)
{
	BoardEntry *entry;

	LWLockAcquire(board->lock, LW_SHARED);
	entry = find_entry(MyDatabaseId, claim->owner);
	if (entry != NULL)
	{
		SpinLockAcquire(&entry->mutex);
		if (entry->generation == claim->generation)
		{
			if (exhausted)
				entry->mark.rank = NO_RANK;
			else if (board_place_compare(last, &entry->mark) > 0)
				entry->mark = *last;
		}
		SpinLockRelease(&entry->mutex);
	}
	LWLockRelease(board->lock);
}

/* Does any owner of this database have work? */
bool
board_has_work(void)
{
	bool		found = false;

	LWLockAcquire(board->lock, LW_SHARED);
	for (int i = 0; i < board->used && !found; i++)
	{
		BoardEntry *entry = &board->entries[i];

		if (entry->database != MyDatabaseId)
			continue;
		SpinLockAcquire(&entry->mutex);
		found = entry->mark.rank != NO_RANK || entry->pending != NO_RANK;
		SpinLockRelease(&entry->mutex);
	}
	LWLockRelease(board->lock);
	return found;
}

/*
 * So many jobs of the owner, which counted, were started, or ended without (they
 * expired, were cancelled): they count no longer.
 */
void
board_started(Oid owner, int njobs)
{
	BoardEntry *entry;

	LWLockAcquire(board->lock, LW_SHARED);
	entry = find_entry(MyDatabaseId, owner);
	if (entry != NULL)
	{
		SpinLockAcquire(&entry->mutex);
		entry->count = Max(entry->count - njobs, 0);
		SpinLockRelease(&entry->mutex);
	}
	LWLockRelease(board->lock);
}

/* The owner's jobs that count, without those of transactions under way. */
int64
board_count(Oid owner)
{
	BoardEntry *entry;
	int64		count = 0;

	LWLockAcquire(board->lock, LW_SHARED);
	entry = find_entry(MyDatabaseId, owner);
	if (entry != NULL)
	{
		SpinLockAcquire(&entry->mutex);
		count = entry->count;
		SpinLockRelease(&entry->mutex);
	}
	LWLockRelease(board->lock);
	return count;
}

/*
 * Sets the count right: seen is what a snapshot shows of jobs not started,
 * counted_before what board_count() said before that snapshot was taken.  What
 * came or went since is kept.  Owners whom the board has and the table has not
 * are to be given with seen = 0: see board_owners().
 */
void
board_recount(Oid owner, int64 counted_before, int64 seen)
{
	BoardEntry *entry = seen > 0 ? lock_entry(owner) : NULL;

	if (seen <= 0)
	{
		LWLockAcquire(board->lock, LW_SHARED);
		entry = find_entry(MyDatabaseId, owner);
	}
	if (entry != NULL)
	{
		SpinLockAcquire(&entry->mutex);
		entry->count = Max(seen + entry->count - counted_before, 0);
		SpinLockRelease(&entry->mutex);
	}
	LWLockRelease(board->lock);
}

/* The owners in this database that have a count, at most max of them. */
int
board_owners(Oid *owners, int64 *counts, int max)
{
	int			n = 0;

	LWLockAcquire(board->lock, LW_SHARED);
	for (int i = 0; i < board->used && n < max; i++)
	{
		BoardEntry *entry = &board->entries[i];

		if (entry->database != MyDatabaseId)
			continue;
		SpinLockAcquire(&entry->mutex);
		counts[n] = entry->count;
		SpinLockRelease(&entry->mutex);
		if (counts[n] > 0)
			owners[n++] = entry->owner;
	}
	LWLockRelease(board->lock);
	return n;
}

/* The database, or the extension in it, is gone. */
void
board_forget_database(Oid database)
{
	LWLockAcquire(board->lock, LW_EXCLUSIVE);
	for (int i = 0; i < board->used; i++)
	{
		if (board->entries[i].database == database)
			unlink_entry(i);
	}
	LWLockRelease(board->lock);
}
