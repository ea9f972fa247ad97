/*
 * message.c
 *	  What the maintainer tells callers of jobs that they are running.
 *
 * One small array for the whole cluster, in no order: a caller takes whatever
 * is for it.  No recipient may fill more than a quarter, and what is for a
 * worker that has died makes room when room is needed.
 */
#include "postgres.h"

#include "base/shared.h"
#include "port/atomics.h"
#include "queue/message.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#define MAX_MESSAGES 1024
#define MAX_FOR_ONE (MAX_MESSAGES / 4)

typedef struct Message
{
	uint64		to;				/* incarnation */
	pg_uuid_t	job;
	MessageKind kind;
} Message;

typedef struct MessageBox
{
	LWLock		lock;
	int			tranche;
	pg_atomic_uint32 count;		/* changed under the lock, read without */
	Message		messages[MAX_MESSAGES];
} MessageBox;

static MessageBox *box = NULL;

/* Bytes of this area; for shmem_request_hook. */
Size
message_size(void)
{
	return MAXALIGN(sizeof(MessageBox));
}

/* Makes or finds the area; under AddinShmemInitLock. */
void
message_init(void)
{
	bool		found;

	box = ShmemInitStruct("chaincall messages", message_size(), &found);
	if (!found)
	{
		box->tranche = LWLockNewTrancheId();
		LWLockInitialize(&box->lock, box->tranche);
		pg_atomic_init_u32(&box->count, 0);
	}
	LWLockRegisterTranche(box->tranche, "chaincall_messages");
}

/* The lock is exclusive in what follows. */

static void
remove_message(int i)
{
	uint32		last = pg_atomic_read_u32(&box->count) - 1;

	box->messages[i] = box->messages[last];
	pg_atomic_write_u32(&box->count, last);
}

static void
drop_for_the_dead(void)
{
	for (int i = (int) pg_atomic_read_u32(&box->count) - 1; i >= 0; i--)
	{
		if (!worker_alive(box->messages[i].to))
			remove_message(i);
	}
}

/* Is that very message there?  Counts those for the same recipient. */
static bool
is_there(const Message *message, int *for_one)
{
	int			n = (int) pg_atomic_read_u32(&box->count);

	*for_one = 0;
	for (int i = 0; i < n; i++)
	{
		const Message *other = &box->messages[i];

		if (other->to != message->to)
			continue;
		(*for_one)++;
		if (other->kind == message->kind &&
			memcmp(&other->job, &message->job, UUID_LEN) == 0)
			return true;
	}
	return false;
}

static bool
put(const Message *message)
{
	int			for_one;
	uint32		n;

	if (is_there(message, &for_one))
		return true;
	if (for_one >= MAX_FOR_ONE)
		return false;
	if (pg_atomic_read_u32(&box->count) >= MAX_MESSAGES)
		drop_for_the_dead();
	n = pg_atomic_read_u32(&box->count);
	if (n >= MAX_MESSAGES)
		return false;
	box->messages[n] = *message;
	pg_atomic_write_u32(&box->count, n + 1);
	return true;
}

/*
 * Tells the worker with that incarnation about a job and wakes it.  The same
 * message is not kept twice.  False: there is no room, or the worker is dead.
 */
bool
message_send(uint64 incarnation, const pg_uuid_t *job, MessageKind kind)
{
	Message		message = {incarnation, *job, kind};
	bool		sent;

	if (!worker_alive(incarnation))
		return false;
	LWLockAcquire(&box->lock, LW_EXCLUSIVE);
	sent = put(&message);
	LWLockRelease(&box->lock);
	worker_wake_incarnation(incarnation);
	return sent;
}

/*
 * Takes a message for this worker; false when there is none, which costs one
 * look at shared memory.  About a job that is not in hand nothing needs to be
 * done: if it still matters the message comes again.
 */
bool
message_take(pg_uuid_t *job, MessageKind *kind)
{
	bool		taken = false;

	if (my_worker == NULL || pg_atomic_read_u32(&box->count) == 0)
		return false;
	LWLockAcquire(&box->lock, LW_EXCLUSIVE);
	for (int i = 0; i < (int) pg_atomic_read_u32(&box->count) && !taken; i++)
	{
		if (box->messages[i].to != my_worker->incarnation)
			continue;
		*job = box->messages[i].job;
		*kind = box->messages[i].kind;
		remove_message(i);
		taken = true;
	}
	LWLockRelease(&box->lock);
	return taken;
}
