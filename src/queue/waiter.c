/*
 * waiter.c
 *	  Sessions that wait for the end of a job, in shared memory.
 *
 * A slot a backend, so there is always room.  Whoever ends jobs looks at one
 * number when nobody waits.  The waiter enters before it reads the job's row,
 * the worker looks after its commit: one of them sees the other.
 */
#include "postgres.h"

#include "base/shared.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "queue/board.h"
#include "queue/board_private.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

typedef struct Waiter
{
	Latch	   *latch;			/* NULL: free */
	pg_uuid_t	job;
} Waiter;

typedef struct Waiters
{
	LWLock	   *lock;
	pg_atomic_uint32 count;
	int			nslots;
	Waiter		slots[FLEXIBLE_ARRAY_MEMBER];
} Waiters;

static Waiters *waiters = NULL;
static Waiter *mine = NULL;

/* Bytes of this area. */
Size
waiter_size(void)
{
	return MAXALIGN(add_size(offsetof(Waiters, slots),
							 mul_size(MaxBackends, sizeof(Waiter))));
}

/* Makes (fresh) or finds the area. */
void
waiter_init(char *area, bool fresh)
{
	waiters = (Waiters *) area;
	if (!fresh)
		return;
	waiters->lock = &(GetNamedLWLockTranche("chaincall_waiters"))->lock;
	pg_atomic_init_u32(&waiters->count, 0);
	waiters->nslots = MaxBackends;
	for (int i = 0; i < waiters->nslots; i++)
		waiters->slots[i].latch = NULL;
}

static void
leave_at_exit(int code, Datum arg)
{
	waiter_end();
}

/*
 * From now on this backend's latch is set when the job has ended.  Read the
 * job's row after this, and after each wake-up.  False: no room (or no shared
 * memory), so look from time to time.
 */
bool
waiter_begin(const pg_uuid_t *job)
{
	static bool registered = false;

	if (waiters == NULL)
		return false;
	if (!registered)
	{
		before_shmem_exit(leave_at_exit, (Datum) 0);
		registered = true;
	}
	waiter_end();
	LWLockAcquire(waiters->lock, LW_EXCLUSIVE);
	for (int i = 0; i < waiters->nslots && mine == NULL; i++)
	{
		if (waiters->slots[i].latch == NULL)
			mine = &waiters->slots[i];
	}
	if (mine != NULL)
	{
		mine->job = *job;
		mine->latch = MyLatch;
		pg_atomic_fetch_add_u32(&waiters->count, 1);
	}
	LWLockRelease(waiters->lock);
	return mine != NULL;
}

/* This backend no longer waits; harmless when it did not. */
void
waiter_end(void)
{
	if (mine == NULL)
		return;
	LWLockAcquire(waiters->lock, LW_EXCLUSIVE);
	mine->latch = NULL;
	mine = NULL;
	pg_atomic_fetch_sub_u32(&waiters->count, 1);
	LWLockRelease(waiters->lock);
}

/*
 * These jobs have ended, whichever way; call it after that has committed.
 * Costs nothing when nobody waits.
 */
void
waiter_notify(const pg_uuid_t *jobs, int njobs)
{
	pg_memory_barrier();
	if (waiters == NULL || njobs == 0 ||
		pg_atomic_read_u32(&waiters->count) == 0)
		return;
	LWLockAcquire(waiters->lock, LW_SHARED);
	for (int i = 0; i < waiters->nslots; i++)
	{
		const Waiter *waiter = &waiters->slots[i];

		for (int k = 0; waiter->latch != NULL && k < njobs; k++)
		{
			if (memcmp(&waiter->job, &jobs[k], sizeof(pg_uuid_t)) != 0)
				continue;
			SetLatch(waiter->latch);
			break;
		}
	}
	LWLockRelease(waiters->lock);
}
