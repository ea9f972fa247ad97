/*
 * scaling.c
 *	  How many callers and executors a database has: the launcher's decisions.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/settings.h"
#include "base/trouble.h"
#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "worker/executor.h"
#include "worker/launcher.h"
#include "worker/staff.h"

#define SURPLUS_MS 60000		/* a caller above the minimum may idle */
#define TROUBLE_MS 3000			/* until a start is tried again */
#define LOOK_AGAIN_MS 1100		/* whether those have come that were started */
#define MAX_WANTED 64			/* roles looked at in a turn */

/* Since when a caller has had nothing to do. */
typedef struct Idling
{
	uint64		incarnation;
	uint64		jobs;			/* that it had claimed then */
	TimestampTz since;
} Idling;

static Idling *idling = NULL;	/* by slot */

/* ---- callers ---- */

/* Do all callers of the database say that they have more than they can do? */
static bool
all_full(Oid database)
{
	bool		full = true;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers && full; i++)
	{
		WorkerSlot *slot = &shared->workers[i];

		if (slot->kind == WORKER_CALLER && slot->database == database)
			full = pg_atomic_read_u32(&slot->full) != 0;
	}
	LWLockRelease(shared->lock);
	return full;
}

/*
 * Has so many callers leave, those included that have been asked before.  Who
 * has nothing in hand goes first.
 */
static void
stop_callers(Oid database, int n)
{
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers; i++)
	{
		WorkerSlot *slot = &shared->workers[i];

		if (slot->kind == WORKER_CALLER && slot->database == database &&
			pg_atomic_read_u32(&slot->stop) != 0)
			n--;
	}
	for (int i = 0; i < 2 * shared->nworkers && n > 0; i++)
	{
		WorkerSlot *slot = &shared->workers[i % shared->nworkers];

		if (slot->kind != WORKER_CALLER || slot->database != database ||
			pg_atomic_read_u32(&slot->stop) != 0 ||
			(i < shared->nworkers &&
			 pg_atomic_read_u32(&slot->jobs_now) > 0))
			continue;
		pg_atomic_write_u32(&slot->stop, 1);
		SetLatch(slot->latch);
		n--;
	}
	LWLockRelease(shared->lock);
}

/* Has it been idle for so long that it can go? */
static bool
idled_long(int index, WorkerSlot *slot, TimestampTz now)
{
	Idling	   *entry = &idling[index];
	uint64		jobs = pg_atomic_read_u64(&slot->jobs);

	if (entry->incarnation != slot->incarnation || entry->jobs != jobs ||
		pg_atomic_read_u32(&slot->jobs_now) > 0)
	{
		entry->incarnation = slot->incarnation;
		entry->jobs = jobs;
		entry->since = now;
	}
	if (TimestampDifferenceExceeds(entry->since, now, SURPLUS_MS))
		return true;
	staff_turn_at(TimestampTzPlusMilliseconds(entry->since, SURPLUS_MS));
	return false;
}

/* Has callers above the minimum leave when they have nothing to do. */
static void
release_idle_callers(Oid database, int surplus)
{
	TimestampTz now = GetCurrentTimestamp();

	if (idling == NULL)
		idling = MemoryContextAllocZero(TopMemoryContext,
										shared->nworkers * sizeof(Idling));
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers && surplus > 0; i++)
	{
		WorkerSlot *slot = &shared->workers[i];

		if (slot->kind != WORKER_CALLER || slot->database != database)
			continue;
		if (pg_atomic_read_u32(&slot->stop) != 0)
			surplus--;
		else if (idled_long(i, slot, now))
		{
			pg_atomic_write_u32(&slot->stop, 1);
			SetLatch(slot->latch);
			surplus--;
		}
	}
	LWLockRelease(shared->lock);
}

/* Brings the callers of an active database to the number that it needs. */
void
scaling_callers(Oid database)
{
	int			n = staff_count(WORKER_CALLER, database, InvalidOid);
	int			most = Max(setting_min_callers, setting_max_callers);

	if (n > most)
		stop_callers(database, n - most);
	else if (n < setting_min_callers)
	{
		while (n < setting_min_callers &&
			   staff_start(WORKER_CALLER, database, InvalidOid))
			n++;
	}
	else if (n < most && all_full(database) &&
			 n == worker_count(WORKER_CALLER, database, InvalidOid))
		staff_start(WORKER_CALLER, database, InvalidOid);
	else if (n > setting_min_callers)
		release_idle_callers(database, n - setting_min_callers);
}

/* ---- executors ---- */

/* May an executor connect as that role? */
static TroubleReason
judge_role(Oid role)
{
	TroubleReason reason = TROUBLE_NONE;
	HeapTuple	tuple;

	StartTransactionCommand();
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	if (!HeapTupleIsValid(tuple))
		reason = TROUBLE_NO_ROLE;
	else
	{
		if (!((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin &&
			COMPAT_BYPASS_ROLE_LOGIN == 0)
			reason = TROUBLE_NO_LOGIN;
		ReleaseSysCache(tuple);
	}
	CommitTransactionCommand();
	return reason;
}

/* Notes, and logs once, that no executor can start for the role. */
static void
tell_trouble(Oid database, Oid role, TroubleReason reason)
{
	const char *role_name;
	const char *database_name;

	if (!trouble_note(database, role, reason))
		return;
	StartTransactionCommand();
	role_name = GetUserNameFromId(role, true);
	database_name = get_database_name(database);
	ereport(LOG,
			(errmsg("no executor can start for role \"%s\" in database \"%s\": its jobs wait",
					role_name ? role_name : psprintf("%u", role),
					database_name ? database_name : psprintf("%u", database)),
			 errhint("%s", trouble_hint(reason))));
	CommitTransactionCommand();
}

/*
 * Starts an executor for the role unless the database has as many as it may
 * have or a start has failed a moment ago; what is in the way can be read by
 * trouble_list().  True when one was started.  When it is false, the launcher
 * turns again as soon as that can have changed.
 */
static bool
start_executor(Oid database, Oid role)
{
	const DatabaseSlot *slot = database_slot(database);
	TroubleReason reason;
	TimestampTz again;

	if (!setting_workers || slot == NULL || slot->barred > 0 ||
		slot->state != DATABASE_ACTIVE)
		return false;
	if (staff_count(WORKER_EXECUTOR, database, InvalidOid) >=
		Max(setting_min_executors, setting_max_executors))
		return false;
	again = TimestampTzPlusMilliseconds(trouble_last(database, role),
										TROUBLE_MS);
	if (again > GetCurrentTimestamp())
	{
		staff_turn_at(again);
		return false;
	}
	reason = judge_role(role);
	if (reason == TROUBLE_NO_ROLE)
	{
		handover_refuse(database, role);
		return false;
	}
	if (reason == TROUBLE_NONE &&
		!staff_start(WORKER_EXECUTOR, database, role))
		reason = TROUBLE_NO_SLOT;
	if (reason != TROUBLE_NONE)
	{
		tell_trouble(database, role, reason);
		staff_turn_at(TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  TROUBLE_MS));
	}
	return reason == TROUBLE_NONE;
}

/* Starts executors for roles with steps that nobody takes. */
void
scaling_executors(void)
{
	Oid			databases[MAX_WANTED];
	Oid			roles[MAX_WANTED];
	int			nrefused = 0;
	TimestampTz now = GetCurrentTimestamp();
	static TimestampTz look_again = 0;

	while (nrefused < MAX_WANTED &&
		   handover_wanted(&databases[nrefused], &roles[nrefused]))
	{
		if (!start_executor(databases[nrefused], roles[nrefused]))
			nrefused++;
		else
			look_again = TimestampTzPlusMilliseconds(now, LOOK_AGAIN_MS);
	}
	/* one that has died at its start counts as on its way for a while */
	if (look_again > now)
		staff_turn_at(look_again);
	/* not before now, or the same would be asked for for ever */
	while (--nrefused >= 0)
		handover_unasked(databases[nrefused], roles[nrefused]);
	staff_turn_at(handover_look_at());
}
