/*
 * handover_private.h
 *	  What lies in shared memory between callers and executors; for the files
 *	  handover*.c only.
 *
 * Orders have slots.  What is of no fixed size lies in blocks of BLOCK_BYTES
 * that are chained by their numbers: nothing is ever fragmented, so whether
 * something fits is a matter of counting.  Orders may take half of the blocks
 * at most, answers the rest: however many orders wait, the answers that let
 * callers go on find room.
 */
#ifndef CHAINCALL_HANDOVER_PRIVATE_H
#define CHAINCALL_HANDOVER_PRIVATE_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/hsearch.h"
#include "utils/uuid.h"

#define BLOCK_BYTES 4096

typedef enum SlotState
{
	SLOT_FREE = 0,
	SLOT_FILLING,				/* its caller writes the order */
	SLOT_OFFERED,				/* in its owner's queue */
	SLOT_TAKEN,					/* an executor is at it */
	SLOT_DONE					/* in its caller's mailbox */
} SlotState;

/* A chain of blocks. */
typedef struct Blocks
{
	int			first;
	int			count;
	Size		bytes;			/* in use */
} Blocks;

typedef struct OrderSlot
{
	SlotState	state;
	uint64		serial;			/* tells an order from the slot's next one */
	Oid			database;
	Oid			owner;
	uint64		caller;			/* incarnation */
	int			mailbox;		/* index of the caller's */
	Latch	   *caller_latch;
	uint64		executor;		/* incarnation, from TAKEN on */
	int			executor_pid;
	TimestampTz at;				/* offered, taken, posted */
	/* nobody waits for the answer any more */
	bool		dropped;
	/* dropped, and the executor has been told; it reads this in a handler */
	volatile bool cancelled;
	bool		terminated;		/* told so that it cannot ignore it */
	TimestampTz terminate_at;
	bool		died;
	volatile bool overdue;		/* of it: it did not heed its timeout */
	bool		overlong;		/* or took longer than any step may */
	XLogRecPtr	lsn;			/* flushed before the answer is told */
	Blocks		blocks;			/* the order, later the answer */
	int			prev;			/* in a queue */
	int			next;			/* in a queue, a mailbox or the free list */
} OrderSlot;

typedef struct QueueKey
{
	Oid			database;
	Oid			owner;
} QueueKey;

/* The orders offered for an owner; it is there while there are some. */
typedef struct OwnerQueue
{
	QueueKey	key;
	int			head;
	int			tail;
	int			count;
	int			blocks;			/* that they take */
	int			asked;			/* executors that the launcher was asked for */
	TimestampTz asked_at;
	TimestampTz served_at;		/* when an executor last came or left */
} OwnerQueue;

/* Answers for a caller, in the order of their posting. */
typedef struct Mailbox
{
	int			head;
	int			tail;
	XLogRecPtr	lsn;			/* highest in it */
} Mailbox;

typedef struct Handover
{
	LWLock		lock;			/* of all but the atomics */
	int			tranche;
	int			nslots;
	int			nblocks;
	int			free_slot;
	int			nfree_slots;
	int			free_block;
	int			nfree;			/* blocks */
	int			order_blocks;	/* blocks that orders take */
	int			cancelling;		/* slots cancelled and still taken */
	uint64		serial;
	bool		look_asked;		/* the launcher shall look at the lines */
	bool		look_planned;	/* and will, unless it has not been woken yet */
	pg_atomic_uint64 synced;	/* LSN up to which answers may be told */
	OrderSlot  *slots;
	Mailbox    *mailboxes;		/* one for each WorkerSlot */
	int		   *next_block;
	char	   *blocks;
} Handover;

extern Handover *handover;
extern HTAB *handover_queues;

extern void slot_release(int slot);
extern void slot_post(int slot);
extern void slot_post_death(int slot);
extern bool blocks_take(Blocks *blocks, Size bytes);
extern void blocks_free(Blocks *blocks);
extern void blocks_write(const Blocks *blocks, const char *bytes);
extern char *blocks_read(const Blocks *blocks);

extern bool owner_queue_has_room(Oid database, Oid owner, int blocks);
extern void owner_queue_append(int slot);
extern void owner_queue_unlink(int slot);
extern int	owner_queue_pop(Oid database, Oid owner);
extern void owner_queue_wake(Oid database, Oid owner);
extern void owner_queue_served(Oid database, Oid owner, bool came);

#endif							/* CHAINCALL_HANDOVER_PRIVATE_H */
