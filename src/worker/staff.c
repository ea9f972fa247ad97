/*
 * staff.c
 *	  The workers that the launcher has started, from its point of view.
 *
 * A worker is known by its handle until it has a slot in shared memory, and by
 * both from then on; workers of an earlier life of the launcher have a slot
 * only.  So workers are counted as slots, and handles without one.  The
 * postmaster tells (by the latch) when one has started or ended.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "postmaster/bgworker.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/staff.h"
#include "worker/worker.h"

#define QUICK_MS 1000			/* who dies sooner died at its start */
#define FIRST_PAUSE_MS 100
#define MAX_PAUSE_MS 10000
#define SLOT_PAUSE_MS 5000		/* until max_worker_processes is tried again */
#define SLOT_LOG_MS 60000

/* One worker that was registered and has not ended. */
typedef struct Hired
{
	WorkerKind	kind;
	Oid			database;
	Oid			role;
	BackgroundWorkerHandle *handle;
	TimestampTz at;
	pid_t		pid;			/* 0: not started yet */
} Hired;

/* How often a database's workers of a kind died at their start, in a row. */
typedef struct Deaths
{
	WorkerKind	kind;
	Oid			database;
	int			quick;
	TimestampTz not_before;
} Deaths;

static List *hired = NIL;		/* in TopMemoryContext, as all here */
static List *deaths = NIL;
static TimestampTz turn_at = DT_NOEND;
static TimestampTz no_slot_until = 0;
static TimestampTz no_slot_logged = 0;

/* ---- when to turn ---- */

/* A turn of the launcher begins: nothing has asked for another yet. */
void
staff_turn_begins(void)
{
	turn_at = DT_NOEND;
}

/* The launcher shall not sleep longer than until then. */
void
staff_turn_at(TimestampTz when)
{
	turn_at = Min(turn_at, when);
}

/* Milliseconds until then; -1: nothing was asked for. */
long
staff_timeout_ms(void)
{
	if (turn_at == DT_NOEND)
		return -1;
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(), turn_at) + 1;
}

/* ---- deaths ---- */

static Deaths *
find_deaths(WorkerKind kind, Oid database)
{
	ListCell   *cell;

	foreach(cell, deaths)
	{
		Deaths	   *entry = lfirst(cell);

		if (entry->kind == kind && entry->database == database)
			return entry;
	}
	return NULL;
}

/*
 * A worker has ended.  Executors are left out: they come and go, and one that
 * cannot start is trouble (base/trouble.h).
 */
static void
note_death(const Hired *worker)
{
	TimestampTz now = GetCurrentTimestamp();
	Deaths	   *entry;

	if (worker->kind == WORKER_EXECUTOR)
		return;
	entry = find_deaths(worker->kind, worker->database);
	if (TimestampDifferenceExceeds(worker->at, now, QUICK_MS))
	{
		if (entry != NULL)
			entry->quick = 0;
		return;
	}
	if (entry == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		entry = palloc0(sizeof(Deaths));
		entry->kind = worker->kind;
		entry->database = worker->database;
		deaths = lappend(deaths, entry);
		MemoryContextSwitchTo(old);
	}
	entry->quick++;
	/* once is no pattern */
	if (entry->quick > 1)
	{
		int			doublings = Min(entry->quick - 2, 10);

		entry->not_before =
			TimestampTzPlusMilliseconds(now, Min(MAX_PAUSE_MS,
												 FIRST_PAUSE_MS << doublings));
	}
}

/* What happened in the database so far has no bearing on what comes. */
void
staff_forgive(Oid database)
{
	ListCell   *cell;

	foreach(cell, deaths)
	{
		Deaths	   *entry = lfirst(cell);

		if (entry->database == database)
		{
			deaths = foreach_delete_current(deaths, cell);
			pfree(entry);
		}
	}
}

/* Shall that worker not be started just now? */
static bool
pausing(WorkerKind kind, Oid database)
{
	TimestampTz now = GetCurrentTimestamp();
	const Deaths *entry = find_deaths(kind, database);
	TimestampTz until = no_slot_until;

	if (entry != NULL && entry->quick > 1)
		until = Max(until, entry->not_before);
	if (until <= now)
		return false;
	staff_turn_at(until);
	return true;
}

/* ---- who is there ---- */

static bool
has_slot(pid_t pid)
{
	bool		found = false;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers && !found; i++)
		found = shared->workers[i].kind != WORKER_NONE &&
			shared->workers[i].pid == pid;
	LWLockRelease(shared->lock);
	return found;
}

/*
 * Workers of a kind (WORKER_NONE: of all but the launcher) that are there or
 * on their way; InvalidOid for role means any.
 */
int
staff_count(WorkerKind kind, Oid database, Oid role)
{
	ListCell   *cell;
	int			n = 0;

	if (kind == WORKER_NONE)
		return staff_count(WORKER_CALLER, database, role) +
			staff_count(WORKER_EXECUTOR, database, role) +
			staff_count(WORKER_MAINTAINER, database, role);
	foreach(cell, hired)
	{
		const Hired *worker = lfirst(cell);

		if (worker->kind == kind && worker->database == database &&
			(!OidIsValid(role) || worker->role == role) &&
			(worker->pid == 0 || !has_slot(worker->pid)))
			n++;
	}
	return n + worker_count(kind, database, role);
}

/* Takes note of what has started and ended since the last time. */
void
staff_reap(void)
{
	ListCell   *cell;

	foreach(cell, hired)
	{
		Hired	   *worker = lfirst(cell);
		BgwHandleStatus status = GetBackgroundWorkerPid(worker->handle,
														&worker->pid);

		if (status == BGWH_STARTED)
			continue;
		worker->pid = 0;
		if (status == BGWH_NOT_YET_STARTED)
			continue;
		note_death(worker);
		hired = foreach_delete_current(hired, cell);
		pfree(worker->handle);
		pfree(worker);
	}
}

/* ---- starting ---- */

static void
describe(BackgroundWorker *worker, WorkerKind kind, Oid database)
{
	const char *name = worker_kind_name(kind);

	memset(worker, 0, sizeof(BackgroundWorker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	/* not in recovery: none of them can do anything there */
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
	snprintf(worker->bgw_library_name, sizeof(worker->bgw_library_name),
			 "chaincall");
	snprintf(worker->bgw_function_name, sizeof(worker->bgw_function_name),
			 "chaincall_%s_main", name);
	snprintf(worker->bgw_type, sizeof(worker->bgw_type), "chaincall %s", name);
	if (OidIsValid(database))
		snprintf(worker->bgw_name, sizeof(worker->bgw_name),
				 "chaincall %s of database %u", name, database);
	else
		snprintf(worker->bgw_name, sizeof(worker->bgw_name), "chaincall %s",
				 name);
}

/* In _PG_init(), when the library is preloaded: the server runs a launcher. */
void
staff_register_launcher(void)
{
	BackgroundWorker worker;

	describe(&worker, WORKER_LAUNCHER, InvalidOid);
	worker.bgw_restart_time = 1;
	RegisterBackgroundWorker(&worker);
}

static void
log_no_slot(WorkerKind kind, Oid database)
{
	TimestampTz now = GetCurrentTimestamp();

	no_slot_until = TimestampTzPlusMilliseconds(now, SLOT_PAUSE_MS);
	staff_turn_at(no_slot_until);
	if (!TimestampDifferenceExceeds(no_slot_logged, now, SLOT_LOG_MS))
		return;
	no_slot_logged = now;
	ereport(LOG,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("could not start a chaincall %s: all background worker slots are taken",
					worker_kind_name(kind)),
			 errdetail("It is for the database with OID %u.", database),
			 errhint("Raise max_worker_processes (%d now) and restart the server.",
					 max_worker_processes)));
}

/*
 * Starts a worker, unless its kind dies at its start in that database over and
 * over, or no slot is free: then the launcher turns again when it is time.
 * True when it is on its way.
 */
bool
staff_start(WorkerKind kind, Oid database, Oid role)
{
	BackgroundWorker worker;
	WorkerOrders orders = {.database = database, .role = role};
	MemoryContext old;
	Hired	   *one;

	StaticAssertStmt(sizeof(orders) <= BGW_EXTRALEN, "orders fit");
	if (pausing(kind, database))
		return false;
	describe(&worker, kind, database);
	worker.bgw_notify_pid = MyProcPid;
	memcpy(worker.bgw_extra, &orders, sizeof(orders));

	old = MemoryContextSwitchTo(TopMemoryContext);
	one = palloc0(sizeof(Hired));
	one->kind = kind;
	one->database = database;
	one->role = role;
	one->at = GetCurrentTimestamp();
	if (RegisterDynamicBackgroundWorker(&worker, &one->handle))
		hired = lappend(hired, one);
	else
	{
		pfree(one);
		one = NULL;
	}
	MemoryContextSwitchTo(old);
	if (one == NULL)
		log_no_slot(kind, database);
	return one != NULL;
}
