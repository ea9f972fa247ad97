/*
 * window.c
 *	  The jobs that a caller has in hand: whose turn it is, and how many more
 *	  may be claimed.
 *
 * Owners take turns, one job's slice each, so that one owner's thousand jobs
 * do not keep another's one waiting.  The same holds for room: when there is
 * work of several owners, each is claimed for up to an equal share of the
 * window, less what it has in it; an owner who has nothing in it gets a few
 * jobs in even when it is full, because those who filled it came first, not
 * because they have a better right.  Owners with so few jobs in hand are also
 * served between the parts of a turn: see express() in caller.c.
 *
 * Jobs that only wait for executors take no room: a slow statement of one
 * role must not keep model calls of others from starting.  But an owner with
 * many of them is not claimed, or they would pile up without end.
 */
#include "postgres.h"

#include "base/settings.h"
#include "base/shared.h"
#include "utils/memutils.h"
#include "worker/caller.h"

/* Jobs of an owner that has none in a full window. */
#define NEWCOMERS 16

/* So many owners are looked at for one with a few jobs. */
#define LOOK_FOR_LIGHT 64

/* Jobs of an owner that only wait for executors, at most: a part of the window. */
#define WAITING_SHARE 2

/* Claimed at once for all owners together. */
#define CLAIM_BATCH 100

typedef struct JobEntry
{
	pg_uuid_t	id;				/* hash key */
	Job		   *job;
} JobEntry;

static int
compare_timers(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	int64		x = pairingheap_const_container(Job, timer, a)->timer_us;
	int64		y = pairingheap_const_container(Job, timer, b)->timer_us;

	return (x < y) - (x > y);	/* the heap's first is its largest */
}

/* Makes the empty window. */
void
window_make(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(pg_uuid_t);
	ctl.entrysize = sizeof(JobEntry);
	ctl.hcxt = caller.cxt;
	caller.jobs = hash_create("chaincall jobs", 1024, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(JobOwner);
	caller.owners = hash_create("chaincall owners", 64, &ctl,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	dlist_init(&caller.turns);
	dlist_init(&caller.holding);
	dlist_init(&caller.starved);
	caller.timers.ph_compare = compare_timers;
}

static JobOwner *
find_owner(Oid owner)
{
	bool		found;
	JobOwner   *entry = hash_search(caller.owners, &owner, HASH_ENTER, &found);

	if (!found)
	{
		entry->njobs = 0;
		entry->norders = 0;
		entry->ncalls = 0;
		entry->in_turn = false;
		entry->refused = 0;
		dlist_init(&entry->ready);
	}
	return entry;
}

static bool
is_light(const JobOwner *owner)
{
	return owner->njobs > 0 && owner->njobs <= NEWCOMERS;
}

static void
count_jobs(JobOwner *owner, int change)
{
	caller.nlight -= is_light(owner);
	owner->njobs += change;
	caller.njobs += change;
	caller.nlight += is_light(owner);
}

/* A new job. */
void
window_add(Job *job, Oid owner)
{
	JobEntry   *entry = hash_search(caller.jobs, &job->id, HASH_ENTER, NULL);

	entry->job = job;
	job->owner = find_owner(owner);
	count_jobs(job->owner, 1);
	pg_atomic_write_u32(&my_worker->jobs_now, caller.njobs);
}

/* The job with that id, or NULL. */
Job *
window_find(const pg_uuid_t *id)
{
	JobEntry   *entry = hash_search(caller.jobs, id, HASH_FIND, NULL);

	return entry ? entry->job : NULL;
}

static void
leave_turns(JobOwner *owner)
{
	if (owner->in_turn && dlist_is_empty(&owner->ready))
	{
		dlist_delete(&owner->turn);
		owner->in_turn = false;
	}
}

static void
count_as_waiting(Job *job, bool waiting)
{
	int			change = (int) waiting - (int) job->only_orders;

	job->only_orders = waiting;
	job->owner->norders += change;
	caller.nwaiting += change;
}

/* The job leaves; it must not be used with this file any more. */
void
window_remove(Job *job)
{
	JobOwner   *owner = job->owner;

	if (job->is_ready)
		dlist_delete(&job->ready);
	leave_turns(owner);
	window_unhold(job);
	window_starve(job, false);
	window_set_timer(job, CLOCK_NEVER);
	count_as_waiting(job, false);
	(void) hash_search(caller.jobs, &job->id, HASH_REMOVE, NULL);
	count_jobs(owner, -1);
	if (owner->njobs == 0)
		(void) hash_search(caller.owners, &owner->owner, HASH_REMOVE, NULL);
	pg_atomic_write_u32(&my_worker->jobs_now, caller.njobs);
}

/* ---- turns ---- */

/* The job has something to do. */
void
window_ready(Job *job)
{
	JobOwner   *owner = job->owner;

	if (job->is_ready)
		return;
	job->is_ready = true;
	dlist_push_tail(&owner->ready, &job->ready);
	if (!owner->in_turn)
	{
		owner->in_turn = true;
		dlist_push_tail(&caller.turns, &owner->turn);
	}
}

/* Is somebody with a few jobs here beside somebody with many? */
bool
window_crowded(void)
{
	return caller.nlight > 0 &&
		caller.nlight < hash_get_num_entries(caller.owners);
}

/* Whose turn it is; light: of those with a few jobs. */
static JobOwner *
next_owner(bool light)
{
	dlist_iter	iter;
	int			looked = 0;

	dlist_foreach(iter, &caller.turns)
	{
		JobOwner   *owner = dlist_container(JobOwner, turn, iter.cur);

		if (!light || is_light(owner))
			return owner;
		if (++looked == LOOK_FOR_LIGHT)
			break;
	}
	return NULL;
}

/*
 * The next job to be driven, no longer ready; NULL: none is.  light: only of
 * owners with a few jobs.
 */
Job *
window_next(bool light)
{
	JobOwner   *owner = next_owner(light);
	Job		   *job;

	if (owner == NULL)
		return NULL;
	dlist_delete(&owner->turn);
	job = dlist_container(Job, ready, dlist_pop_head_node(&owner->ready));
	job->is_ready = false;
	owner->in_turn = !dlist_is_empty(&owner->ready);
	if (owner->in_turn)
		dlist_push_tail(&caller.turns, &owner->turn);
	return job;
}

/* ---- calls ---- */

/*
 * How many calls the job may start of its share of the room: all its owner's
 * calls leave as much as they take, and each job's twice as much.  Calls at a
 * server that is slow or broken pile up, and must not keep those at others
 * from starting.
 */
static int
calls_left(const Job *job, int room)
{
	return Min(room - job->owner->ncalls,
			   room - (int) Min(2 * (int64) job->ncalls, PG_INT32_MAX));
}

/* May the job start one more call now? */
bool
window_may_call(const Job *job)
{
	return calls_left(job, call_room(caller.calls)) > 0;
}

/* The job has one call more in the air, or less. */
void
window_count_call(Job *job, int change)
{
	job->ncalls += change;
	job->owner->ncalls += change;
}

/* Whether the job wants to start calls for which there is no room. */
void
window_starve(Job *job, bool starved)
{
	if (starved == job->starved)
		return;
	job->starved = starved;
	if (starved)
		dlist_push_tail(&caller.starved, &job->hunger);
	else
		dlist_delete(&job->hunger);
}

/* Gives turns to jobs that wait for room, as far as there is some now. */
void
window_feed_starved(void)
{
	int			room;
	int			left;
	dlist_iter	iter;

	if (dlist_is_empty(&caller.starved))
		return;
	left = room = call_room(caller.calls);
	dlist_foreach(iter, &caller.starved)
	{
		Job		   *job = dlist_container(Job, hunger, iter.cur);

		if (left <= 0)
			break;
		if (calls_left(job, room) <= 0)
			continue;
		window_ready(job);
		left--;
	}
}

/* ---- timers ---- */

/* The job shall be driven then, clock_us(); CLOCK_NEVER: no timer. */
void
window_set_timer(Job *job, int64 when_us)
{
	if (job->has_timer)
		pairingheap_remove(&caller.timers, &job->timer);
	job->has_timer = when_us != CLOCK_NEVER;
	job->timer_us = when_us;
	if (job->has_timer)
		pairingheap_add(&caller.timers, &job->timer);
}

/* When the first timer is due; CLOCK_NEVER: there is none. */
int64
window_first_timer(void)
{
	if (pairingheap_is_empty(&caller.timers))
		return CLOCK_NEVER;
	return pairingheap_container(Job, timer,
								 pairingheap_first(&caller.timers))->timer_us;
}

/* Gives turns to the jobs whose timers are due. */
void
window_fire_timers(int64 now_us)
{
	while (window_first_timer() <= now_us)
	{
		Job		   *job = pairingheap_container(Job, timer,
												pairingheap_first(&caller.timers));

		window_set_timer(job, CLOCK_NEVER);
		window_ready(job);
	}
}

/* ---- orders ---- */

/* The job holds orders that are not handed over. */
void
window_hold(Job *job)
{
	if (job->is_holding)
		return;
	job->is_holding = true;
	dlist_push_tail(&caller.holding, &job->hold);
}

/* It holds none any more. */
void
window_unhold(Job *job)
{
	if (job->is_holding)
		dlist_delete(&job->hold);
	job->is_holding = false;
}

/*
 * Hands over what is held, first come first served within each owner, as far
 * as there is room: one owner's long line keeps nobody else's orders back.
 */
void
window_offer_held(void)
{
	static uint64 round = 0;
	dlist_mutable_iter iter;

	round++;
	dlist_foreach_modify(iter, &caller.holding)
	{
		Job		   *job = dlist_container(Job, hold, iter.cur);
		JobOwner   *owner = job->owner;

		if (job->unsaved > 0 || owner->refused == round)
			continue;
		if (!handover_has_room(owner->owner) || !joborder_offer_held(job))
			owner->refused = round;
	}
}

/* Is there an order that could be handed over if there were room? */
bool
window_holds(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &caller.holding)
	{
		if (dlist_container(Job, hold, iter.cur)->unsaved == 0)
			return true;
	}
	return false;
}

/* Does the job do nothing now but wait for executors? */
void
window_weigh_orders(Job *job)
{
	count_as_waiting(job, job->norders > 0 && job->ncalls == 0 &&
					 !job->is_ready && !job->starved);
}

/* ---- room ---- */

static int
room_left(void)
{
	return Max(setting_caller_window - (caller.njobs - caller.nwaiting), 0);
}

static int
owner_quota(Oid owner, int share)
{
	JobOwner   *entry = hash_search(caller.owners, &owner, HASH_FIND, NULL);

	if (entry == NULL)
		return Max(share, NEWCOMERS);
	if (entry->norders >= setting_caller_window / WAITING_SHARE)
		return 0;
	return Max(share - (entry->njobs - entry->norders), 0);
}

/*
 * Sets the quotas of owners with work: how many jobs to claim for each, and
 * about `most` for all.  Beginning each time behind those served the time
 * before.
 */
void
window_quotas(BoardClaim *claims, int n, int most)
{
	int			room = Min(Min(room_left(), CLAIM_BATCH), most);
	int			share = setting_caller_window / Max(n, 1);
	int			batch = Max(Min(CLAIM_BATCH, most) / Max(n, 1), 1);
	int			extra = CLAIM_BATCH;	/* for newcomers when there is no room */
	static uint32 first = 0;
	uint32		served = 0;

	for (int i = 0; i < n; i++)
	{
		BoardClaim *claim = &claims[(first + i) % n];
		bool		newcomer = hash_search(caller.owners, &claim->owner,
										   HASH_FIND, NULL) == NULL;
		int			quota = Min(owner_quota(claim->owner, Max(share, 1)),
								newcomer ? Max(batch, NEWCOMERS) : batch);

		if (room <= 0)
			quota = newcomer ? Min(quota, extra) : 0;
		claim->quota = quota;
		if (room <= 0)
			extra -= quota;
		room -= quota;
		served += quota > 0;
	}
	/* when there is not room for all, those come first who got nothing */
	first += served;
}
