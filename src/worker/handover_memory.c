/*
 * handover_memory.c
 *	  The shared memory of the handover: slots, blocks and mailboxes.
 */
#include "postgres.h"

#include "base/settings.h"
#include "base/shared.h"
#include "miscadmin.h"
#include "storage/shmem.h"
#include "worker/handover.h"
#include "worker/handover_private.h"

Handover   *handover = NULL;
HTAB	   *handover_queues = NULL;

static int
block_count(void)
{
	return setting_step_memory_kb / (BLOCK_BYTES / 1024);
}

static Size
area_size(void)
{
	Size		size = MAXALIGN(sizeof(Handover));

	size = add_size(size, MAXALIGN(mul_size(setting_max_steps,
											sizeof(OrderSlot))));
	size = add_size(size, MAXALIGN(mul_size(max_worker_processes,
											sizeof(Mailbox))));
	size = add_size(size, MAXALIGN(mul_size(block_count(), sizeof(int))));
	return add_size(size, mul_size(block_count(), BLOCK_BYTES));
}

/* Bytes of this area; for shmem_request_hook. */
Size
handover_size(void)
{
	return add_size(area_size(), hash_estimate_size(setting_max_steps,
													sizeof(OwnerQueue)));
}

static void
init_area(void)
{
	char	   *at = (char *) handover + MAXALIGN(sizeof(Handover));

	memset(handover, 0, sizeof(Handover));
	handover->tranche = LWLockNewTrancheId();
	LWLockInitialize(&handover->lock, handover->tranche);
	handover->nslots = handover->nfree_slots = setting_max_steps;
	handover->nblocks = block_count();
	handover->nfree = handover->nblocks;
	pg_atomic_init_u64(&handover->synced, 0);
	handover->slots = (OrderSlot *) at;
	at += MAXALIGN(handover->nslots * sizeof(OrderSlot));
	handover->mailboxes = (Mailbox *) at;
	at += MAXALIGN(max_worker_processes * sizeof(Mailbox));
	handover->next_block = (int *) at;
	at += MAXALIGN(handover->nblocks * sizeof(int));
	handover->blocks = at;

	for (int i = 0; i < handover->nslots; i++)
	{
		memset(&handover->slots[i], 0, sizeof(OrderSlot));
		handover->slots[i].next = i + 1 < handover->nslots ? i + 1 : -1;
	}
	for (int i = 0; i < max_worker_processes; i++)
		handover->mailboxes[i] = (Mailbox)
	{
		.head = -1,.tail = -1
	};
	for (int i = 0; i < handover->nblocks; i++)
		handover->next_block[i] = i + 1 < handover->nblocks ? i + 1 : -1;
}

/* Makes or finds the area; under AddinShmemInitLock. */
void
handover_init(void)
{
	HASHCTL		ctl = {
		.keysize = sizeof(QueueKey),
		.entrysize = sizeof(OwnerQueue)
	};
	bool		found;

	handover = ShmemInitStruct("chaincall steps", area_size(), &found);
	if (!found)
		init_area();
	LWLockRegisterTranche(handover->tranche, "chaincall_steps");
	handover_queues = ShmemInitHash("chaincall step queues",
									setting_max_steps, setting_max_steps, &ctl,
									HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
}

/* ---- blocks; taking and freeing under the lock ---- */

/* Takes blocks for as many bytes; false: not now. */
bool
blocks_take(Blocks *blocks, Size bytes)
{
	Size		count = (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
	int			last;

	if (count > (Size) handover->nfree)
		return false;
	blocks->first = last = handover->free_block;
	blocks->count = (int) count;
	blocks->bytes = bytes;
	for (Size i = 1; i < count; i++)
		last = handover->next_block[last];
	handover->free_block = handover->next_block[last];
	handover->next_block[last] = -1;
	handover->nfree -= (int) count;
	return true;
}

void
blocks_free(Blocks *blocks)
{
	int			last = blocks->first;

	if (blocks->count == 0)
		return;
	for (int i = 1; i < blocks->count; i++)
		last = handover->next_block[last];
	handover->next_block[last] = handover->free_block;
	handover->free_block = blocks->first;
	handover->nfree += blocks->count;
	memset(blocks, 0, sizeof(Blocks));
}

/* Copies bytes into the blocks, whose owner the process must be. */
void
blocks_write(const Blocks *blocks, const char *bytes)
{
	Size		left = blocks->bytes;

	for (int block = blocks->first; left > 0;
		 block = handover->next_block[block])
	{
		Size		part = Min(left, BLOCK_BYTES);

		memcpy(handover->blocks + (Size) block * BLOCK_BYTES, bytes, part);
		bytes += part;
		left -= part;
	}
}

/* What is in the blocks, in one piece, palloc'd. */
char *
blocks_read(const Blocks *blocks)
{
	char	   *bytes = MemoryContextAllocHuge(CurrentMemoryContext,
											   Max(blocks->bytes, 1));
	Size		done = 0;

	for (int block = blocks->first; done < blocks->bytes;
		 block = handover->next_block[block])
	{
		Size		part = Min(blocks->bytes - done, BLOCK_BYTES);

		memcpy(bytes + done, handover->blocks + (Size) block * BLOCK_BYTES,
			   part);
		done += part;
	}
	return bytes;
}

/* ---- slots; under the lock ---- */

/* Frees the slot, which is in no list, and its blocks. */
void
slot_release(int slot)
{
	OrderSlot  *order = &handover->slots[slot];

	if (order->state == SLOT_FILLING || order->state == SLOT_OFFERED)
		handover->order_blocks -= order->blocks.count;
	if (order->state == SLOT_TAKEN && order->cancelled)
		handover->cancelling--;
	blocks_free(&order->blocks);
	order->cancelled = false;
	order->state = SLOT_FREE;
	order->next = handover->free_slot;
	handover->free_slot = slot;
	handover->nfree_slots++;
}

/* Puts the answer that is in the slot into its caller's mailbox. */
void
slot_post(int slot)
{
	OrderSlot  *order = &handover->slots[slot];
	Mailbox    *mailbox = &handover->mailboxes[order->mailbox];

	order->state = SLOT_DONE;
	order->next = -1;
	if (mailbox->head < 0)
	{
		mailbox->head = slot;
		mailbox->lsn = 0;
	}
	else
		handover->slots[mailbox->tail].next = slot;
	mailbox->tail = slot;
	mailbox->lsn = Max(mailbox->lsn, order->lsn);
}

/* The executor of a taken order is gone: its caller is told. */
void
slot_post_death(int slot)
{
	OrderSlot  *order = &handover->slots[slot];

	if (order->dropped)
	{
		slot_release(slot);
		return;
	}
	blocks_free(&order->blocks);
	order->died = true;
	order->lsn = 0;
	slot_post(slot);
	SetLatch(order->caller_latch);
}
