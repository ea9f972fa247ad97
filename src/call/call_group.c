/*
 * call_group.c
 *	  The calls of one run, and the turns that bring them on.
 *
 * A turn does, in this order: what needs neither network nor clock; one look
 * at the network, which may wait; what follows from it; and last what is
 * late.  Nothing here walks over all calls: queues are lists, what waits for
 * a time is in a heap.
 *
 * The slots that calls wait for are the process's, but a group sends its own
 * calls only, first come, first served for each server.  Groups nest (a step
 * of a running chain runs another chain) and only the innermost is turned: if
 * it had to let calls of an outer group go first, both would wait for ever.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/ids.h"
#include "base/settings.h"
#include "call/call_internal.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* Calls that wait, sleep or fly, at most: this many times max_in_flight. */
#define LIVE_FACTOR 4

static int
compare_deadlines(const pairingheap_node *a, const pairingheap_node *b,
				  void *arg)
{
	int64		x = pairingheap_const_container(Call, deadline_node, a)->due_us;
	int64		y = pairingheap_const_container(Call, deadline_node, b)->due_us;

	return (x < y) - (x > y);	/* the heap's first is its largest */
}

static int
compare_wakes(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	int64		x = pairingheap_const_container(Call, sleeping_node, a)->wake_us;
	int64		y = pairingheap_const_container(Call, sleeping_node, b)->wake_us;

	return (x < y) - (x > y);
}

/*
 * WAITING → IN_FLIGHT for whatever finds a slot, of each server in turn.
 * Raises out of memory and the like.
 */
void
call_send_waiting(CallGroup *group)
{
	dlist_iter	iter;

	if (group->nwaiting == 0)
		return;
	dlist_foreach(iter, &group->queues)
	{
		ServerQueue *queue = dlist_container(ServerQueue, node, iter.cur);

		while (!dlist_is_empty(&queue->waiting))
		{
			Call	   *call = dlist_head_element(Call, node, &queue->waiting);

			if (!attempt_slot_free(call))
				break;
			call_send(call);
		}
	}
}

static void
judge_answered(CallGroup *group)
{
	while (!dlist_is_empty(&group->answered))
		call_judge(dlist_head_element(Call, node, &group->answered));
}

static void
wake_due(CallGroup *group)
{
	int64		now;

	if (pairingheap_is_empty(group->sleeping))
		return;
	now = clock_us();
	while (!pairingheap_is_empty(group->sleeping))
	{
		Call	   *call = pairingheap_container(Call, sleeping_node,
												 pairingheap_first(group->sleeping));

		if (call->wake_us > now)
			break;
		call_wake(call);
	}
}

/* Everything that can go on without waiting for the network or the clock. */
static void
advance(CallGroup *group)
{
	judge_answered(group);
	wake_due(group);
	call_send_waiting(group);
}

static Call *
first_deadline(CallGroup *group)
{
	if (pairingheap_is_empty(group->deadlines))
		return NULL;
	return pairingheap_container(Call, deadline_node,
								 pairingheap_first(group->deadlines));
}

/* Runs the callbacks of what is done; true if there was any. */
static bool
deliver_done(CallGroup *group)
{
	bool		any = false;

	while (!dlist_is_empty(&group->done))
	{
		CHECK_FOR_INTERRUPTS();
		call_deliver(dlist_head_element(Call, node, &group->done));
		any = true;
	}
	return any;
}

/*
 * Ends what is late, once the sockets have been emptied: as long as a look at
 * them brings answers there may be one for a call that seems late.
 */
static void
expire_late(CallGroup *group)
{
	Call	   *call = first_deadline(group);
	int64		now;

	if (call == NULL || call->due_us > clock_us())
		return;
	while (http_turn(0) > 0)
		CHECK_FOR_INTERRUPTS();
	judge_answered(group);
	now = clock_us();
	while ((call = first_deadline(group)) != NULL && call->due_us <= now)
		call_late(call);
	judge_answered(group);
}

static int64
next_event(CallGroup *group, int64 limit_us)
{
	Call	   *call = first_deadline(group);

	if (call != NULL)
		limit_us = Min(limit_us, call->due_us);
	if (!pairingheap_is_empty(group->sleeping))
		limit_us = Min(limit_us,
					   pairingheap_container(Call, sleeping_node,
											 pairingheap_first(group->sleeping))->wake_us);
	return limit_us;
}

/*
 * One turn: let the network work until wait_until_us (clock_us(); 0: only
 * look), or until an answer, a backoff or a deadline calls for something, and
 * run the callbacks of the calls that are done.  True if a callback ran.
 * Without calls it waits all the same, but not for ever.
 *
 * Raises what callbacks and interrupts raise, and without a guard an error of
 * the catalog when a call that is tried again has lost its way meanwhile (its
 * server was dropped, or the right to use it).  Callbacks run in the memory context of
 * the caller and may start and cancel calls of the group.
 */
bool
call_turn(CallGroup *group, int64 wait_until_us)
{
	bool		ran;

	advance(group);
	ran = deliver_done(group);
	if (group->nlive == 0 && (ran || wait_until_us == CLOCK_NEVER ||
							  wait_until_us <= clock_us()))
		return ran;				/* nothing to wait for */

	(void) http_turn(ran ? 0 : next_event(group, wait_until_us));
	advance(group);
	expire_late(group);
	call_send_waiting(group);
	return deliver_done(group) || ran;
}

/* How many calls have been started whose callback has not run. */
int
call_live(const CallGroup *group)
{
	return group->nlive;
}

/*
 * Let the network work until every call that has a slot has sent its whole
 * request or failed, or until wait_until_us; before something that keeps this
 * process from turning the group.  No callback runs.
 */
void
call_settle(CallGroup *group, int64 wait_until_us)
{
	call_send_waiting(group);
	if (group->nflying > 0)
		(void) http_settle(wait_until_us);
}

/*
 * How many calls more may be started now without their piling up: never
 * negative, and positive when the group has none, so that it goes on even
 * while an outer run holds every slot.
 */
int
call_capacity(CallGroup *group)
{
	int			room = setting_max_in_flight - attempt_in_flight() -
		group->nwaiting;

	room = Min(room, http_capacity() - group->nwaiting);
	if (setting_max_in_flight <= PG_INT32_MAX / LIVE_FACTOR)
		room = Min(room, setting_max_in_flight * LIVE_FACTOR - group->nlive);
	if (group->nlive == 0)
		return Max(room, 1);
	return Max(room, 0);
}

/*
 * The same for a group of many runs, which shares it out among them: calls that
 * wait for their own server's slots take room, but not that of slots which are
 * free.  0 while all slots are taken.
 */
int
call_room(const CallGroup *group)
{
	int			most = setting_max_in_flight <= PG_INT32_MAX / LIVE_FACTOR ?
		setting_max_in_flight * LIVE_FACTOR : PG_INT32_MAX;

	if (group->nlive == 0)
		return most;
	if (attempt_in_flight() >= attempt_most_in_flight() || http_capacity() <= 0)
		return 0;
	return Max(most - group->nlive, 0);
}

/* Says whose the calls of a run are; trace must outlive it, or is NULL. */
void
call_run_init(CallRun *run, Oid userid, const pg_uuid_t *id, Trace *trace)
{
	char	   *to = run->trace_id;
	char	   *text = ids_uuid_text(id);

	run->userid = userid;
	run->id = *id;
	run->trace = trace;
	memcpy(run->text, text, sizeof(run->text));
	pfree(text);
	for (const char *from = run->text; *from != '\0'; from++)
		if (*from != '-')
			*to++ = *from;
	*to = '\0';
}

/*
 * A group of calls, empty; guards: NULL, or copied.  It is a child of the
 * current memory context and is taken down with it, calls in the air included,
 * when nobody has destroyed it before.
 */
CallGroup *
call_group_create(const CallGuards *guards)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "chaincall calls",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	CallGroup  *group = palloc0(sizeof(CallGroup));

	group->context = context;
	/* the first block is kept at a reset: large enough for most answers */
	group->scratch = AllocSetContextCreate(context, "chaincall request",
										   0, 32 * 1024,
										   ALLOCSET_DEFAULT_MAXSIZE);
	if (guards != NULL)
		group->guards = *guards;
	dlist_init(&group->queues);
	dlist_init(&group->flying);
	dlist_init(&group->answered);
	dlist_init(&group->done);
	group->sleeping = pairingheap_allocate(compare_wakes, NULL);
	group->deadlines = pairingheap_allocate(compare_deadlines, NULL);
	MemoryContextSwitchTo(old);
	return group;
}

/*
 * Cancel what is in the air and free the group with all its calls; their
 * callbacks do not run.  Raises nothing: it may be called while an error is
 * being handled.  Not from a callback.
 */
void
call_group_destroy(CallGroup *group)
{
	MemoryContextDelete(group->context);
}
