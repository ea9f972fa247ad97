/*
 * handover.c
 *	  Steps on their way from callers to executors and back.
 *
 * A slot changes hands by its state, under one lock; whoever holds the slot
 * copies into and out of its blocks without the lock.  An answer is posted as
 * soon as its transaction has committed, and told to the caller only when that
 * commit has reached the disk (and the standbys that are waited for): the
 * executor flushes for many answers at once.  If meanwhile it is at a step
 * that takes long, the caller does it itself after a millisecond.
 *
 * Both ends undo in before_shmem_exit what they hold; a crash of the cluster
 * makes all of it anew.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xlog.h"
#include "base/settings.h"
#include "base/shared.h"
#include "miscadmin.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/executor.h"
#include "worker/handover_private.h"
#include "worker/handover_wire.h"

/* An answer that is posted waits for its executor's flush this long. */
#define FLUSH_WAIT_US 1000

/* A step that goes on after its cancel loses its executor. */
#define CANCEL_WAIT_MS 1000
#define CHECK_EVERY_MS 100

struct Ticket
{
	bool		live;
	uint64		serial;
	void	   *arg;
};

static Ticket *tickets = NULL;	/* a caller's, by slot */
static int	holding = -1;		/* the slot that this executor has taken */

/* latches of callers that have answers they do not know of; for a handler too */
static Latch **unnotified = NULL;
static volatile int n_unnotified = 0;

/* ---- callers ---- */

static void
caller_leaves(int code, Datum arg)
{
	LWLockAcquire(&handover->lock, LW_EXCLUSIVE);
	for (int i = 0; i < handover->nslots; i++)
	{
		OrderSlot  *order = &handover->slots[i];

		if (order->state == SLOT_FREE || !tickets[i].live ||
			order->serial != tickets[i].serial)
			continue;
		if (order->state == SLOT_TAKEN)
		{
			order->dropped = true;
			continue;
		}
		if (order->state == SLOT_OFFERED)
			owner_queue_unlink(i);
		slot_release(i);
	}
	handover->mailboxes[my_worker - shared->workers] = (Mailbox)
	{
		.head = -1,.tail = -1
	};
	LWLockRelease(&handover->lock);
}

static void
become_caller(void)
{
	if (tickets != NULL)
		return;
	tickets = MemoryContextAllocZero(TopMemoryContext,
									 handover->nslots * sizeof(Ticket));
	before_shmem_exit(caller_leaves, (Datum) 0);
}

/* The most that one order or one answer may take. */
static int
most_blocks(void)
{
	return handover->nblocks / 2;
}

static void
check_size(int bytes, const char *what)
{
	if (bytes <= most_blocks() * BLOCK_BYTES)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_LIMIT),
			 errmsg("%s of a step do not fit into shared memory", what),
			 errdetail("They take %d kB, there is room for %d kB.",
					   bytes / 1024, most_blocks() * (BLOCK_BYTES / 1024)),
			 errhint("Raise chaincall.step_memory (and restart the server), or let the step do with less.")));
}

/* A slot with blocks for the order; -1: not now. */
static int
reserve(const StepOrder *order, Size bytes, void *arg)
{
	int			slot = -1;

	LWLockAcquire(&handover->lock, LW_EXCLUSIVE);
	if (owner_queue_has_room(MyDatabaseId, order->owner,
							 (int) ((bytes + BLOCK_BYTES - 1) / BLOCK_BYTES)))
	{
		Blocks		blocks;

		if (blocks_take(&blocks, bytes))
		{
			OrderSlot  *mine;

			slot = handover->free_slot;
			mine = &handover->slots[slot];
			handover->free_slot = mine->next;
			handover->nfree_slots--;
			handover->order_blocks += blocks.count;
			memset(mine, 0, sizeof(OrderSlot));
			mine->state = SLOT_FILLING;
			mine->serial = ++handover->serial;
			mine->database = MyDatabaseId;
			mine->owner = order->owner;
			mine->caller = my_worker->incarnation;
			mine->mailbox = (int) (my_worker - shared->workers);
			mine->caller_latch = MyLatch;
			mine->blocks = blocks;
			tickets[slot] = (Ticket)
			{
				true, mine->serial, arg
			};
		}
	}
	LWLockRelease(&handover->lock);
	return slot;
}

/* Is there room for a small order of that owner?  It may be gone just after. */
bool
handover_has_room(Oid owner)
{
	bool		room;

	LWLockAcquire(&handover->lock, LW_SHARED);
	room = owner_queue_has_room(MyDatabaseId, owner, 1);
	LWLockRelease(&handover->lock);
	return room;
}

/*
 * Offers an order to the executors of its owner in this database; arg comes
 * back with the answer.  Returns NULL where there is no room just now: offer it
 * again when answers have come.  Raises ERRCODE_CHAIN_LIMIT for an order that
 * could never fit.
 */
Ticket *
handover_offer(const StepOrder *order, void *arg)
{
	StringInfoData bytes;
	int			slot;

	become_caller();
	initStringInfo(&bytes);
	wire_put_order(&bytes, order);
	check_size(bytes.len, "the arguments");
	slot = reserve(order, bytes.len, arg);
	if (slot >= 0)
	{
		OrderSlot  *mine = &handover->slots[slot];

		blocks_write(&mine->blocks, bytes.data);
		LWLockAcquire(&handover->lock, LW_EXCLUSIVE);
		mine->at = GetCurrentTimestamp();
		mine->state = SLOT_OFFERED;
		owner_queue_append(slot);
		LWLockRelease(&handover->lock);
		owner_queue_wake(MyDatabaseId, order->owner);
	}
	pfree(bytes.data);
	return slot >= 0 ? &tickets[slot] : NULL;
}

/*
 * Takes the mailbox's first answer that may be told; -1: there is none.  Where
 * one waits for a flush that its executor is late with, *late is set.
 */
static int
take_answer(Mailbox *mailbox, XLogRecPtr *late)
{
	XLogRecPtr	synced = pg_atomic_read_u64(&handover->synced);
	int			slot;

	*late = InvalidXLogRecPtr;
	LWLockAcquire(&handover->lock, LW_EXCLUSIVE);
	while ((slot = mailbox->head) >= 0)
	{
		OrderSlot  *order = &handover->slots[slot];

		if (!order->dropped && order->lsn > synced)
		{
			if (GetCurrentTimestamp() - order->at >= FLUSH_WAIT_US)
				*late = mailbox->lsn;
			slot = -1;
			break;
		}
		mailbox->head = order->next;
		if (!order->dropped)
			break;
		slot_release(slot);
	}
	LWLockRelease(&handover->lock);
	return slot;
}

static void
read_answer(int slot, StepAnswer *answer)
{
	OrderSlot  *order = &handover->slots[slot];

	memset(answer, 0, sizeof(StepAnswer));
	answer->arg = tickets[slot].arg;
	answer->died = order->died;
	answer->pid = order->executor_pid;
	if (order->died && order->overlong)
		answer->error = step_error_make(CLASS_TIMEOUT,
										"step took longer than any step may",
										psprintf("chaincall.step_timeout was %d s.",
												 setting_step_timeout_s),
										"Make it shorter, or raise chaincall.step_timeout.");
	else if (order->died && order->overdue)
		answer->error = step_error_make(CLASS_TIMEOUT,
										"step took longer than its timeout",
										"It did not heed its cancel and was terminated.",
										"Raise \"timeout\", or say with \"on_error\" what is to happen then.");
	else if (order->died)
		answer->error = step_error_make(CLASS_CRASH, "executor died", NULL,
										"See the server's log for what happened to it.");
	else
		wire_get_answer(blocks_read(&order->blocks), &answer->output,
						&answer->error);
	tickets[slot].live = false;
	LWLockAcquire(&handover->lock, LW_EXCLUSIVE);
	slot_release(slot);
	LWLockRelease(&handover->lock);
}

/*
 * The next answer to this process's orders, palloc'd in the current memory
 * context; false: none has come.  What it tells is safe on the disk.  May
 * flush WAL and wait for synchronous standbys; not in a transaction.
 */
bool
handover_collect(StepAnswer *answer)
{
	Mailbox    *mailbox = &handover->mailboxes[my_worker - shared->workers];
	XLogRecPtr	late;
	int			slot;

	(void) handover_check();
	if (tickets == NULL)
		return false;
	slot = take_answer(mailbox, &late);
	if (slot < 0 && !XLogRecPtrIsInvalid(late))
	{
		handover_sync(late);
		slot = take_answer(mailbox, &late);
	}
	if (slot < 0)
		return false;
	read_answer(slot, answer);
	return true;
}

static void
tell_executor(OrderSlot *order, int signal)
{
	/* the slot is taken and we have the lock: it is that process still */
	if (kill(order->executor_pid, signal) != 0)
		ereport(LOG,
				(errmsg("could not send signal %d to process %d: %m", signal,
						order->executor_pid)));
}

/*
 * The order is no longer wanted: no answer to it will come.  If an executor is
 * at it, it is asked to stop, and made to stop if it goes on.
 */
void
handover_cancel(Ticket *ticket)
{
	int			slot = (int) (ticket - tickets);
	OrderSlot  *order = &handover->slots[slot];

	if (!ticket->live)
		return;
	ticket->live = false;
	LWLockAcquire(&handover->lock, LW_EXCLUSIVE);
	order->dropped = true;
	if (order->state == SLOT_OFFERED)
	{
		owner_queue_unlink(slot);
		slot_release(slot);
	}
	else if (order->state == SLOT_TAKEN)
	{
		order->terminate_at = GetCurrentTimestamp() +
			CANCEL_WAIT_MS * INT64CONST(1000);
		order->cancelled = true;
		handover->cancelling++;
		tell_executor(order, SIGINT);
	}
	LWLockRelease(&handover->lock);
}

/*
 * Ends executors of this database with steps that take longer than
 * chaincall.step_timeout, whatever timeout they have of their own: one role
 * shall not have all executors for ever.
 */
void
handover_end_overlong(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (setting_step_timeout_s == 0)
		return;
	LWLockAcquire(&handover->lock, LW_EXCLUSIVE);
	for (int i = 0; i < handover->nslots; i++)
	{
		OrderSlot  *order = &handover->slots[i];

		if (order->state != SLOT_TAKEN || order->database != MyDatabaseId ||
			order->terminated ||
			now - order->at < setting_step_timeout_s * USECS_PER_SEC)
			continue;
		order->terminated = order->overlong = true;
		ereport(LOG,
				(errmsg("terminating executor with PID %d: its step took longer than chaincall.step_timeout",
						order->executor_pid)));
		tell_executor(order, SIGTERM);
	}
	LWLockRelease(&handover->lock);
}

/*
 * Ends executors that have gone on with a cancelled step for too long.  Cheap;
 * collecting does it too, but a caller may sleep.  True: there are some that
 * have been asked to stop, look again soon.
 */
bool
handover_check(void)
{
	static TimestampTz checked = 0;
	TimestampTz now;

	if (handover->cancelling == 0)
		return false;
	now = GetCurrentTimestamp();
	if (now - checked < CHECK_EVERY_MS * INT64CONST(1000))
		return true;
	checked = now;
	LWLockAcquire(&handover->lock, LW_EXCLUSIVE);
	for (int i = 0; i < handover->nslots; i++)
	{
		OrderSlot  *order = &handover->slots[i];

		if (order->state != SLOT_TAKEN || !order->cancelled ||
			order->terminated || order->terminate_at > now)
			continue;
		order->terminated = true;
		ereport(LOG,
				(errmsg("terminating executor with PID %d: its step did not heed a cancel",
						order->executor_pid)));
		tell_executor(order, SIGTERM);
	}
	LWLockRelease(&handover->lock);
	return true;
}

/* ---- executors ---- */

static void
executor_leaves(int code, Datum arg)
{
	handover_notify();
	LWLockAcquire(&handover->lock, LW_EXCLUSIVE);
	owner_queue_served(my_worker->database, my_worker->role, false);
	if (holding >= 0)
		slot_post_death(holding);
	holding = -1;
	LWLockRelease(&handover->lock);
}

/* This process serves its role from now on. */
void
handover_serve(void)
{
	unnotified = MemoryContextAllocZero(TopMemoryContext,
										shared->nworkers * sizeof(Latch *));
	before_shmem_exit(executor_leaves, (Datum) 0);
	LWLockAcquire(&handover->lock, LW_EXCLUSIVE);
	owner_queue_served(my_worker->database, my_worker->role, true);
	LWLockRelease(&handover->lock);
}

/*
 * Takes the next order for this executor's role, palloc'd in the current
 * memory context; NULL: there is none.
 */
TakenOrder *
handover_take(void)
{
	TakenOrder *taken;
	OrderSlot  *order;
	char	   *bytes;

	Assert(holding < 0);
	LWLockAcquire(&handover->lock, LW_EXCLUSIVE);
	holding = owner_queue_pop(my_worker->database, my_worker->role);
	if (holding < 0)
	{
		LWLockRelease(&handover->lock);
		return NULL;
	}
	order = &handover->slots[holding];
	handover->order_blocks -= order->blocks.count;
	order->state = SLOT_TAKEN;
	order->at = GetCurrentTimestamp();
	order->executor = my_worker->incarnation;
	order->executor_pid = MyProcPid;
	LWLockRelease(&handover->lock);

	taken = palloc(sizeof(TakenOrder));
	taken->slot = holding;
	taken->caller = order->caller;
	bytes = blocks_read(&order->blocks);
	wire_get_order(bytes, &taken->order);
	/* an order that waits for its executor must not keep others out */
	LWLockAcquire(&handover->lock, LW_EXCLUSIVE);
	blocks_free(&order->blocks);
	LWLockRelease(&handover->lock);
	return taken;
}

/* The order taken is overdue; should we die of it, tell so.  For a handler. */
void
handover_overdue(void)
{
	if (holding >= 0)
		handover->slots[holding].overdue = true;
}

/* Has its caller cancelled it?  Safe in signal handlers. */
bool
handover_cancelled(const TakenOrder *taken)
{
	return holding == taken->slot && handover->slots[taken->slot].cancelled;
}

/* Raises ERRCODE_CHAIN_LIMIT for an output that could never be answered with. */
void
handover_check_answer(const Jsonb *output)
{
	check_size(Min(VARSIZE(output), MaxAllocSize / 2) + 64, "the results");
}

static void
notify_later(Latch *latch)
{
	for (int i = 0; i < n_unnotified; i++)
	{
		if (unnotified[i] == latch)
			return;
	}
	if (n_unnotified == shared->nworkers)
		handover_notify();
	unnotified[n_unnotified] = latch;
	pg_compiler_barrier();
	n_unnotified++;
}

/*
 * Posts the answer: output, or error.  lsn: what must reach the disk before it
 * is told, 0 for nothing.  Returns false where there is no room just now: try
 * again.  Raises ERRCODE_CHAIN_LIMIT where there never is.
 */
bool
handover_answer(const TakenOrder *taken, const Jsonb *output,
				const StepError *error, XLogRecPtr lsn)
{
	OrderSlot  *order = &handover->slots[taken->slot];
	StringInfoData bytes;
	Blocks		blocks;
	bool		taken_blocks;

	initStringInfo(&bytes);
	wire_put_answer(&bytes, output, error);
	check_size(bytes.len, "the results");
	LWLockAcquire(&handover->lock, LW_EXCLUSIVE);
	taken_blocks = !order->dropped && blocks_take(&blocks, bytes.len);
	if (taken_blocks)
		order->blocks = blocks;
	LWLockRelease(&handover->lock);
	if (taken_blocks)
		blocks_write(&order->blocks, bytes.data);
	pfree(bytes.data);

	LWLockAcquire(&handover->lock, LW_EXCLUSIVE);
	if (order->dropped)
		slot_release(taken->slot);
	else if (taken_blocks)
	{
		order->at = GetCurrentTimestamp();
		order->lsn = lsn;
		slot_post(taken->slot);
		notify_later(order->caller_latch);
	}
	else
	{
		LWLockRelease(&handover->lock);
		return false;
	}
	holding = -1;
	LWLockRelease(&handover->lock);
	return true;
}

/*
 * Wakes the callers that answers were posted for, so that they see to those
 * that are late; for a timer's handler.
 */
void
handover_nudge(void)
{
	for (int i = 0; i < n_unnotified; i++)
		SetLatch(unnotified[i]);
}

/* Wakes the callers that answers were posted for: they can collect them. */
void
handover_notify(void)
{
	handover_nudge();
	n_unnotified = 0;
}

/*
 * Sees to it that all up to lsn has reached the disk and the standbys that are
 * waited for, whatever synchronous_commit says here, so that answers can be
 * told.  Not in a transaction.
 */
void
handover_sync(XLogRecPtr lsn)
{
	uint64		synced = pg_atomic_read_u64(&handover->synced);

	if (lsn <= synced)
		return;
	XLogFlush(lsn);
	if (max_wal_senders > 0 && SyncRepStandbyNames != NULL &&
		SyncRepStandbyNames[0] != '\0')
	{
		if (synchronous_commit != SYNCHRONOUS_COMMIT_REMOTE_APPLY)
			SetConfigOption("synchronous_commit", "on", PGC_SUSET,
							PGC_S_SESSION);
		HOLD_INTERRUPTS();
		SyncRepWaitForLSN(lsn, true);
		RESUME_INTERRUPTS();
		/* it gives up when this process must end: then nothing is told */
		if (ProcDiePending)
			return;
	}
	while (synced < lsn &&
		   !pg_atomic_compare_exchange_u64(&handover->synced, &synced, lsn))
		;
}
