/*
 * board_session.c
 *	  What a session's transaction has reserved in the board and will tell it.
 *
 * Counts go into shared memory at once, so that a role's limit holds over all
 * its open transactions; they are given back when their (sub)transaction
 * aborts.  What there is to tell is remembered and told when the transaction
 * has committed and its rows are visible.  The callbacks allocate nothing and
 * raise nothing.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/error.h"
#include "base/settings.h"
#include "base/shared.h"
#include "miscadmin.h"
#include "queue/board.h"
#include "queue/board_private.h"
#include "utils/memutils.h"

#define NOTHING PG_INT64_MAX

/* One owner in one level of nested transactions; a list, deepest level first. */
typedef struct Told
{
	struct Told *next;
	int			level;
	Oid			owner;			/* InvalidOid: rank is a run_at */
	int64		reserved;
	TimestampTz rank;			/* NOTHING: none */
	bool		look;
	bool		maintain;
} Told;

static Told *told = NULL;		/* in TopTransactionContext */

static Told *
find_told(Told *from, int level, Oid owner)
{
	for (Told *t = from; t != NULL && t->level == level; t = t->next)
	{
		if (t->owner == owner)
			return t;
	}
	return NULL;
}

static void
end_transaction(bool kept, bool tell)
{
	bool		wake = false;

	for (Told *t = told; t != NULL; t = t->next)
	{
		if (OidIsValid(t->owner))
		{
			bool		pended = tell && t->rank != NOTHING;

			if (t->reserved > 0)
				board_close(t->owner, t->reserved, kept);
			if (pended && !board_pend(t->owner, t->rank))
				database_look(MyDatabaseId);
			wake = wake || pended;
		}
		else if (tell)
		{
			if (t->rank != NOTHING)
				database_due(MyDatabaseId, t->rank);
			if (t->look)
				database_look(MyDatabaseId);
			if (t->maintain)
				database_maintain(MyDatabaseId);
		}
	}
	told = NULL;
	if (wake)
		worker_wake_idle_caller(MyDatabaseId);
}

static void
transaction_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			end_transaction(true, true);
			break;
		case XACT_EVENT_ABORT:
			end_transaction(false, false);
			break;
		case XACT_EVENT_PREPARE:
			/* the maintainer finds what COMMIT PREPARED makes visible */
			end_transaction(true, false);
			break;
		default:
			break;
	}
}

/* What the deepest level has becomes its parent's. */
static void
merge_level(int level)
{
	while (told != NULL && told->level >= level)
	{
		Told	   *t = told;
		Told	   *below = t->next;
		Told	   *parent;

		/* the parent's entries stand behind all of this level's */
		while (below != NULL && below->level >= level)
			below = below->next;
		parent = find_told(below, level - 1, t->owner);
		if (parent == NULL)
			break;
		parent->reserved += t->reserved;
		parent->rank = Min(parent->rank, t->rank);
		parent->look = parent->look || t->look;
		parent->maintain = parent->maintain || t->maintain;
		told = t->next;
		pfree(t);
	}
	for (Told *t = told; t != NULL && t->level >= level; t = t->next)
		t->level = level - 1;
}

static void
abort_level(int level)
{
	while (told != NULL && told->level >= level)
	{
		Told	   *t = told;

		if (OidIsValid(t->owner) && t->reserved > 0)
			board_close(t->owner, t->reserved, false);
		told = t->next;
		pfree(t);
	}
}

static void
subtransaction_callback(SubXactEvent event, SubTransactionId sub,
						SubTransactionId parent, void *arg)
{
	if (told == NULL)
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		merge_level(GetCurrentTransactionNestLevel());
	else if (event == SUBXACT_EVENT_ABORT_SUB)
		abort_level(GetCurrentTransactionNestLevel());
}

/* What this level has of the owner, made where there is none. */
static Told *
get_told(Oid owner)
{
	static bool registered = false;
	int			level = GetCurrentTransactionNestLevel();
	Told	   *t = find_told(told, level, owner);

	if (t != NULL)
		return t;
	if (!registered)
	{
		RegisterXactCallback(transaction_callback, NULL);
		RegisterSubXactCallback(subtransaction_callback, NULL);
		registered = true;
	}
	t = MemoryContextAllocZero(TopTransactionContext, sizeof(Told));
	t->level = level;
	t->owner = owner;
	t->rank = NOTHING;
	t->next = told;
	told = t;
	return t;
}

/*
 * One more job of the owner, in shared memory at once; given back when the
 * current (sub)transaction aborts.  Raises ERRCODE_CHAIN_LIMIT beyond
 * chaincall.max_queued.
 */
void
board_reserve(Oid owner)
{
	Told	   *t = get_told(owner);

	if (!board_open(owner, setting_max_queued))
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_LIMIT),
				 errmsg("role \"%s\" has too many queued jobs",
						GetUserNameFromId(owner, false)),
				 errdetail("At most %d may be enqueued that have not started.",
						   setting_max_queued),
				 errhint("Enqueue more when some have started, or have an administrator raise chaincall.max_queued.")));
	t->reserved++;
}

/* At commit a caller is told of a queued job of that rank. */
void
board_announce(Oid owner, TimestampTz rank)
{
	Told	   *t = get_told(owner);

	t->rank = Min(t->rank, rank);
}

/* At commit the maintainer is told of a job that waits until then. */
void
board_announce_due(TimestampTz run_at)
{
	Told	   *t = get_told(InvalidOid);

	t->rank = Min(t->rank, run_at);
}

/* At commit the maintainer is told to look at once. */
void
board_announce_look(void)
{
	get_told(InvalidOid)->look = true;
}

/* At commit the maintainer is told to see to what is too old. */
void
board_announce_maintenance(void)
{
	get_told(InvalidOid)->maintain = true;
}
