/*
 * handover_queue.c
 *	  Orders in line for executors, by database and owner, and how many
 *	  executors they need.
 *
 * First come, first served within an owner.  Which owner gets an executor is
 * the launcher's matter: handover_wanted() names the one that waits longest
 * and has none, then those whose lines are long.
 */
#include "postgres.h"

#include "base/settings.h"
#include "base/shared.h"
#include "miscadmin.h"
#include "utils/timestamp.h"
#include "worker/executor.h"
#include "worker/handover_private.h"
#include "worker/handover_wire.h"

/*
 * A role gets one more executor when this many orders an executor are in line
 * and the first has waited for LONG_WAIT_MS, or when it has waited for longer
 * than ANY_WAIT_MS: steps are slow then.
 */
#define LONG_LINE 8
#define LONG_WAIT_MS 10
#define ANY_WAIT_MS 100

/* An executor that was asked for and has not come is asked for again. */
#define ASK_AGAIN_MS 1000

/* ---- the lines; under the lock ---- */

/*
 * May the owner have one more order, of so many blocks, in line?  An owner's
 * line leaves as many slots and as much memory to others as it takes itself,
 * so that however many have long lines there is room for who comes next.
 */
bool
owner_queue_has_room(Oid database, Oid owner, int blocks)
{
	QueueKey	key = {database, owner};
	int			free_blocks = handover->nblocks / 2 - handover->order_blocks;
	OwnerQueue *queue = hash_search(handover_queues, &key, HASH_FIND, NULL);

	if (handover->nfree_slots == 0 || blocks > free_blocks)
		return false;
	return queue == NULL ||
		(queue->count < handover->nfree_slots &&
		 queue->blocks + blocks <= free_blocks - blocks);
}

/* Puts the slot at the end of its owner's line. */
void
owner_queue_append(int slot)
{
	OrderSlot  *order = &handover->slots[slot];
	QueueKey	key = {order->database, order->owner};
	bool		found;
	OwnerQueue *queue = hash_search(handover_queues, &key, HASH_ENTER, &found);

	if (!found)
	{
		queue->head = queue->tail = -1;
		queue->count = queue->blocks = queue->asked = 0;
		queue->asked_at = queue->served_at = 0;
	}
	order->prev = queue->tail;
	order->next = -1;
	if (queue->tail < 0)
		queue->head = slot;
	else
		handover->slots[queue->tail].next = slot;
	queue->tail = slot;
	queue->count++;
	queue->blocks += order->blocks.count;
}

/* Takes the slot out of its owner's line. */
void
owner_queue_unlink(int slot)
{
	OrderSlot  *order = &handover->slots[slot];
	QueueKey	key = {order->database, order->owner};
	OwnerQueue *queue = hash_search(handover_queues, &key, HASH_FIND, NULL);

	if (order->prev >= 0)
		handover->slots[order->prev].next = order->next;
	else
		queue->head = order->next;
	if (order->next >= 0)
		handover->slots[order->next].prev = order->prev;
	else
		queue->tail = order->prev;
	queue->blocks -= order->blocks.count;
	if (--queue->count == 0)
		(void) hash_search(handover_queues, &key, HASH_REMOVE, NULL);
}

/* Takes the first slot of the owner's line; -1: there is none. */
int
owner_queue_pop(Oid database, Oid owner)
{
	QueueKey	key = {database, owner};
	OwnerQueue *queue = hash_search(handover_queues, &key, HASH_FIND, NULL);
	int			slot;

	if (queue == NULL)
		return -1;
	slot = queue->head;
	owner_queue_unlink(slot);
	return slot;
}

/*
 * An executor of that role has come, or left: then those of other roles come
 * first.
 */
void
owner_queue_served(Oid database, Oid owner, bool came)
{
	QueueKey	key = {database, owner};
	OwnerQueue *queue = hash_search(handover_queues, &key, HASH_FIND, NULL);

	if (queue == NULL)
		return;
	queue->served_at = GetCurrentTimestamp();
	if (came && queue->asked > 0)
		queue->asked--;
}

/* ---- waking; not under the lock ---- */

/* Wakes an idle executor of the role; returns how many there are, -1: woken. */
static int
wake_executor(Oid database, Oid role)
{
	int			n = 0;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers; i++)
	{
		WorkerSlot *worker = &shared->workers[i];

		if (worker->kind != WORKER_EXECUTOR || worker->database != database ||
			worker->role != role)
			continue;
		n++;
		if (pg_atomic_read_u32(&worker->idle) != 0 &&
			pg_atomic_exchange_u32(&worker->idle, 0) != 0)
		{
			SetLatch(worker->latch);
			n = -1;
			break;
		}
	}
	LWLockRelease(shared->lock);
	return n;
}

/*
 * All executors of a role are busy: the launcher shall look at the lines after
 * a while.  While it has a look planned it need not be woken.
 */
static void
ask_for_look(void)
{
	bool		planned;

	if (handover->look_asked)
		return;
	LWLockAcquire(&handover->lock, LW_EXCLUSIVE);
	planned = handover->look_planned;
	handover->look_asked = handover->look_planned = true;
	LWLockRelease(&handover->lock);
	if (!planned)
		worker_wake_launcher();
}

/*
 * An order was offered: somebody has to take it.  Idle executors of other
 * roles are woken where there is none of its own: they may be in its place.
 */
void
owner_queue_wake(Oid database, Oid owner)
{
	int			executors = wake_executor(database, owner);

	if (executors == 0)
	{
		worker_wake_launcher();
		worker_wake(WORKER_EXECUTOR, database);
	}
	else if (executors > 0 && executors < setting_max_executors)
		ask_for_look();
}

/* ---- what the launcher asks ---- */

/* When a line with so many executors wants one more. */
static TimestampTz
long_from(const OwnerQueue *queue, int executors)
{
	TimestampTz since = handover->slots[queue->head].at;

	if (executors == 0)
		return since;
	return TimestampTzPlusMilliseconds(since,
									   queue->count > executors * LONG_LINE ?
									   LONG_WAIT_MS : ANY_WAIT_MS);
}

static int
executors_of(OwnerQueue *queue, TimestampTz now)
{
	if (TimestampDifferenceExceeds(queue->asked_at, now, ASK_AGAIN_MS))
		queue->asked = 0;
	return queue->asked + worker_count(WORKER_EXECUTOR, queue->key.database,
									   queue->key.owner);
}

/* May the database have one more executor, those asked for included? */
static bool
has_place(Oid database)
{
	int			n = worker_count(WORKER_EXECUTOR, database, InvalidOid);
	OwnerQueue *queue;
	HASH_SEQ_STATUS seq;

	hash_seq_init(&seq, handover_queues);
	while ((queue = hash_seq_search(&seq)) != NULL)
	{
		if (queue->key.database == database)
			n += queue->asked;
	}
	return n < setting_max_executors;
}

/*
 * The database and role that most need one more executor, where there is a
 * place for one; false: none does.  It counts as asked for, until it comes or a
 * second has passed: whoever cannot start it just calls again then.
 */
bool
handover_wanted(Oid *database, Oid *role)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz longest = 0;
	bool		longest_has = false;
	OwnerQueue *best = NULL;
	OwnerQueue *queue;
	HASH_SEQ_STATUS seq;

	LWLockAcquire(&handover->lock, LW_EXCLUSIVE);
	hash_seq_init(&seq, handover_queues);
	while ((queue = hash_seq_search(&seq)) != NULL)
	{
		TimestampTz since = Max(handover->slots[queue->head].at,
								queue->served_at);
		int			executors = executors_of(queue, now);
		bool		has = executors > 0;

		if (long_from(queue, executors) > now ||
			!has_place(queue->key.database))
			continue;
		if (best != NULL && (has > longest_has ||
							 (has == longest_has && since >= longest)))
			continue;
		best = queue;
		longest = since;
		longest_has = has;
	}
	if (best != NULL)
	{
		*database = best->key.database;
		*role = best->key.owner;
		best->asked++;
		best->asked_at = now;
	}
	LWLockRelease(&handover->lock);
	return best != NULL;
}

/*
 * What handover_wanted() has asked for cannot be had now: it is asked for
 * again as soon as the launcher looks again.
 */
void
handover_unasked(Oid database, Oid role)
{
	QueueKey	key = {database, role};
	OwnerQueue *queue;

	LWLockAcquire(&handover->lock, LW_EXCLUSIVE);
	queue = hash_search(handover_queues, &key, HASH_FIND, NULL);
	if (queue != NULL && queue->asked > 0)
		queue->asked--;
	LWLockRelease(&handover->lock);
}

/*
 * For the launcher, once handover_wanted() has named all: when to look again,
 * DT_NOEND for not before it is woken.
 */
TimestampTz
handover_look_at(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = DT_NOEND;
	OwnerQueue *queue;
	HASH_SEQ_STATUS seq;

	LWLockAcquire(&handover->lock, LW_EXCLUSIVE);
	if (handover->look_asked)
		next = TimestampTzPlusMilliseconds(now, ANY_WAIT_MS);
	hash_seq_init(&seq, handover_queues);
	while ((queue = hash_seq_search(&seq)) != NULL)
	{
		int			executors = executors_of(queue, now);

		/* who asked may have died before they came, and what it knew */
		if (queue->asked > 0)
			next = Min(next, TimestampTzPlusMilliseconds(queue->asked_at,
														 ASK_AGAIN_MS + 1));
		/* a place that becomes free wakes the launcher */
		if (executors > 0 && has_place(queue->key.database))
			next = Min(next, Max(long_from(queue, executors),
								 TimestampTzPlusMilliseconds(now, LONG_WAIT_MS)));
	}
	handover->look_asked = false;
	handover->look_planned = next != DT_NOEND;
	LWLockRelease(&handover->lock);
	return next;
}

/* Does another role of the database have orders and no executor? */
bool
handover_other_role_waits(Oid database, Oid role)
{
	bool		waits = false;
	OwnerQueue *queue;
	HASH_SEQ_STATUS seq;

	LWLockAcquire(&handover->lock, LW_SHARED);
	hash_seq_init(&seq, handover_queues);
	while ((queue = hash_seq_search(&seq)) != NULL)
	{
		if (queue->key.database != database || queue->key.owner == role ||
			worker_count(WORKER_EXECUTOR, database, queue->key.owner) > 0)
			continue;
		waits = true;
		hash_seq_term(&seq);
		break;
	}
	LWLockRelease(&handover->lock);
	return waits;
}

/* Orders of the owner in this database that nobody has taken yet. */
int
handover_waiting(Oid owner)
{
	QueueKey	key = {MyDatabaseId, owner};
	OwnerQueue *queue;
	int			count;

	LWLockAcquire(&handover->lock, LW_SHARED);
	queue = hash_search(handover_queues, &key, HASH_FIND, NULL);
	count = queue ? queue->count : 0;
	LWLockRelease(&handover->lock);
	return count;
}

/* The oldest order in line gets the error for an answer; false: none is there. */
static bool
refuse_one(Oid database, Oid role, const StringInfo bytes)
{
	Blocks		blocks;
	int			slot = -1;

	LWLockAcquire(&handover->lock, LW_EXCLUSIVE);
	if (blocks_take(&blocks, bytes->len))
	{
		slot = owner_queue_pop(database, role);
		if (slot < 0)
			blocks_free(&blocks);
	}
	if (slot >= 0)
	{
		OrderSlot  *order = &handover->slots[slot];

		handover->order_blocks -= order->blocks.count;
		blocks_free(&order->blocks);
		order->blocks = blocks;
		blocks_write(&order->blocks, bytes->data);
		order->lsn = 0;
		slot_post(slot);
		SetLatch(order->caller_latch);
	}
	LWLockRelease(&handover->lock);
	return slot >= 0;
}

/*
 * Answers all orders in line of a role that no longer exists: nobody will ever
 * run them.  Where memory is short some stay: call it again.
 */
void
handover_refuse(Oid database, Oid role)
{
	StepError  *error =
		step_error_make(CLASS_DENIED,
						psprintf("the job's owner, role %u, no longer exists",
								 role),
						NULL, "Enqueue the job again as another role.");
	StringInfoData bytes;

	initStringInfo(&bytes);
	wire_put_answer(&bytes, NULL, error);
	while (refuse_one(database, role, &bytes))
		CHECK_FOR_INTERRUPTS();
	pfree(bytes.data);
}
