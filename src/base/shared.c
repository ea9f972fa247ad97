/*
 * shared.c
 *	  The part of shared memory that says who lives: workers and databases.
 */
#include "postgres.h"

#include <signal.h>

#include "base/ids.h"
#include "base/settings.h"
#include "base/shared.h"
#include "miscadmin.h"
#include "postmaster/bgworker_internals.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

SharedState *shared = NULL;
WorkerSlot *my_worker = NULL;

/* Bytes of this area; for shmem_request_hook. */
Size
shared_size(void)
{
	Size		size = MAXALIGN(sizeof(SharedState));

	size = add_size(size, mul_size(max_worker_processes, sizeof(WorkerSlot)));
	return add_size(size, mul_size(setting_max_databases,
								   sizeof(DatabaseSlot)));
}

static void
init_worker(WorkerSlot *slot)
{
	memset(slot, 0, sizeof(WorkerSlot));
	pg_atomic_init_u32(&slot->idle, 0);
	pg_atomic_init_u32(&slot->full, 0);
	pg_atomic_init_u32(&slot->stop, 0);
	pg_atomic_init_u64(&slot->jobs, 0);
	pg_atomic_init_u64(&slot->steps, 0);
	pg_atomic_init_u64(&slot->calls, 0);
	pg_atomic_init_u64(&slot->errors, 0);
	pg_atomic_init_u64(&slot->commits, 0);
	pg_atomic_init_u32(&slot->jobs_now, 0);
	pg_atomic_init_u32(&slot->calls_now, 0);
}

static void
init_database(DatabaseSlot *slot)
{
	memset(slot, 0, sizeof(DatabaseSlot));
	pg_atomic_init_u64(&slot->next_due, PG_INT64_MAX);
	pg_atomic_init_u32(&slot->look, 0);
	pg_atomic_init_u32(&slot->maintain, 0);
}

/* Makes or finds the area; under AddinShmemInitLock. */
void
shared_init(void)
{
	bool		found;
	char	   *area = ShmemInitStruct("chaincall shared", shared_size(), &found);

	shared = (SharedState *) area;
	if (found)
		return;
	shared->lock = &(GetNamedLWLockTranche("chaincall"))->lock;
	shared->changes = 0;
	shared->missed = false;
	shared->nworkers = max_worker_processes;
	shared->ndatabases = setting_max_databases;
	shared->workers = (WorkerSlot *) (area + MAXALIGN(sizeof(SharedState)));
	shared->databases = (DatabaseSlot *) (shared->workers + shared->nworkers);
	for (int i = 0; i < shared->nworkers; i++)
		init_worker(&shared->workers[i]);
	for (int i = 0; i < shared->ndatabases; i++)
		init_database(&shared->databases[i]);
}

/*
 * Raises unless the library was loaded at the server's start; what: the thing
 * that needs it, as a subject ("a job").
 */
void
shared_require(const char *what)
{
	if (shared != NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s needs chaincall's background workers, which are not running",
					what),
			 errdetail("The library was not loaded when the server started."),
			 errhint("Add to postgresql.conf and restart the server: shared_preload_libraries = 'chaincall'")));
}

/* ---- workers ---- */

static DatabaseSlot *find_database(Oid database);

/* Empties this process's slot; what it leaves behind is looked for at once. */
static void
worker_leave(int code, Datum arg)
{
	Oid			database = my_worker->database;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	init_worker(my_worker);
	my_worker = NULL;
	LWLockRelease(shared->lock);
	worker_wake_launcher();
	if (OidIsValid(database))
		database_look(database);
}

/*
 * May a worker of that kind come in now?  Asked under the lock, under which
 * databases are barred too, so that none slips in behind a bar.
 */
static bool
worker_admitted(WorkerKind kind, Oid database)
{
	const DatabaseSlot *slot;

	if (kind == WORKER_LAUNCHER)
		return true;
	slot = find_database(database);
	if (slot == NULL || slot->barred > 0 || slot->state == DATABASE_OFF)
		return false;
	if (kind != WORKER_MAINTAINER)
		return slot->state == DATABASE_ACTIVE;
	/* a launcher that was started anew may not know of the other one */
	for (int i = 0; i < shared->nworkers; i++)
	{
		if (shared->workers[i].kind == WORKER_MAINTAINER &&
			shared->workers[i].database == database)
			return false;
	}
	return true;
}

/*
 * Takes a slot for this process, with a new incarnation, until it exits.
 * False when the database wants no such worker (any more): it shall exit.
 * Raises insufficient_resources when there is no slot, which cannot happen as
 * long as there are not more workers than max_worker_processes.
 */
bool
worker_enter(WorkerKind kind, Oid database, Oid role)
{
	uint64		incarnation = ids_span();
	WorkerSlot *slot = NULL;

	Assert(my_worker == NULL);
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (!worker_admitted(kind, database))
	{
		LWLockRelease(shared->lock);
		return false;
	}
	for (int i = 0; i < shared->nworkers && slot == NULL; i++)
	{
		if (shared->workers[i].kind == WORKER_NONE)
			slot = &shared->workers[i];
	}
	if (slot == NULL)
	{
		LWLockRelease(shared->lock);
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("no slot for a %s", worker_kind_name(kind))));
	}
	init_worker(slot);
	slot->kind = kind;
	slot->database = database;
	slot->role = role;
	slot->incarnation = incarnation;
	slot->pid = MyProcPid;
	slot->latch = MyLatch;
	slot->started_at = GetCurrentTimestamp();
	my_worker = slot;
	LWLockRelease(shared->lock);
	before_shmem_exit(worker_leave, (Datum) 0);
	return true;
}

/* Is the worker with that incarnation there? */
bool
worker_alive(uint64 incarnation)
{
	bool		alive = false;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers && !alive; i++)
		alive = shared->workers[i].kind != WORKER_NONE &&
			shared->workers[i].incarnation == incarnation;
	LWLockRelease(shared->lock);
	return alive;
}

/* Workers of a kind; InvalidOid for database or role means any. */
int
worker_count(WorkerKind kind, Oid database, Oid role)
{
	int			n = 0;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers; i++)
	{
		const WorkerSlot *slot = &shared->workers[i];

		if (slot->kind == kind &&
			(!OidIsValid(database) || slot->database == database) &&
			(!OidIsValid(role) || slot->role == role))
			n++;
	}
	LWLockRelease(shared->lock);
	return n;
}

/* Wakes all workers of a kind in a database (InvalidOid: in all). */
void
worker_wake(WorkerKind kind, Oid database)
{
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers; i++)
	{
		const WorkerSlot *slot = &shared->workers[i];

		if (slot->kind == kind &&
			(!OidIsValid(database) || slot->database == database))
			SetLatch(slot->latch);
	}
	LWLockRelease(shared->lock);
}

/*
 * Wakes one caller that could take more jobs, the first that says so.  Where
 * all are busy none needs to be woken: each looks again when it has room.
 */
void
worker_wake_idle_caller(Oid database)
{
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers; i++)
	{
		WorkerSlot *slot = &shared->workers[i];

		if (slot->kind == WORKER_CALLER && slot->database == database &&
			pg_atomic_exchange_u32(&slot->idle, 0) != 0)
		{
			SetLatch(slot->latch);
			break;
		}
	}
	LWLockRelease(shared->lock);
}

/* Wakes the worker with that incarnation, if it is there. */
void
worker_wake_incarnation(uint64 incarnation)
{
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers; i++)
	{
		if (shared->workers[i].kind != WORKER_NONE &&
			shared->workers[i].incarnation == incarnation)
			SetLatch(shared->workers[i].latch);
	}
	LWLockRelease(shared->lock);
}

/* Wakes the launcher. */
void
worker_wake_launcher(void)
{
	worker_wake(WORKER_LAUNCHER, InvalidOid);
}

/*
 * Asks the workers of a kind (WORKER_NONE: of all) in a database to leave in
 * good order, and sends them that signal unless it is 0.  The process itself
 * is left out.  Returns how many there are.
 */
int
worker_stop(WorkerKind kind, Oid database, int signo)
{
	int			n = 0;

	/* a slot is emptied before its process ends: the pid is still its */
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers; i++)
	{
		WorkerSlot *slot = &shared->workers[i];

		if (slot->kind == WORKER_NONE || slot->database != database ||
			(kind != WORKER_NONE && slot->kind != kind) ||
			slot == my_worker)
			continue;
		n++;
		if (pg_atomic_exchange_u32(&slot->stop, 1) == 0)
			SetLatch(slot->latch);
		if (signo != 0)
			kill(slot->pid, signo);
	}
	LWLockRelease(shared->lock);
	return n;
}

/* "caller" and so on; a constant. */
const char *
worker_kind_name(WorkerKind kind)
{
	switch (kind)
	{
		case WORKER_LAUNCHER:
			return "launcher";
		case WORKER_CALLER:
			return "caller";
		case WORKER_EXECUTOR:
			return "executor";
		case WORKER_MAINTAINER:
			return "maintainer";
		case WORKER_NONE:
			break;
	}
	return "none";
}

/* ---- databases ---- */

static DatabaseSlot *
find_database(Oid database)
{
	for (int i = 0; i < shared->ndatabases; i++)
	{
		if (shared->databases[i].oid == database)
			return &shared->databases[i];
	}
	return NULL;
}

/*
 * The database's slot, or NULL, also where the library was not preloaded.
 * Slots do not move; oid may be set free.
 */
DatabaseSlot *
database_slot(Oid database)
{
	DatabaseSlot *slot;

	if (shared == NULL)
		return NULL;
	LWLockAcquire(shared->lock, LW_SHARED);
	slot = find_database(database);
	LWLockRelease(shared->lock);
	return slot;
}

/* The database's slot, made where there is none; NULL when all are taken. */
DatabaseSlot *
database_slot_make(Oid database)
{
	DatabaseSlot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_database(database);
	if (slot == NULL)
	{
		slot = find_database(InvalidOid);
		if (slot != NULL)
		{
			init_database(slot);
			slot->oid = database;
		}
	}
	LWLockRelease(shared->lock);
	return slot;
}

/*
 * Keeps workers out of the database until database_release().  Those that are
 * there stay: worker_stop().  False when the database has no slot and make is
 * false or all are taken: then it has no workers either.
 */
bool
database_hold(Oid database, bool make)
{
	DatabaseSlot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_database(database);
	if (slot == NULL && make)
	{
		slot = find_database(InvalidOid);
		if (slot != NULL)
		{
			init_database(slot);
			slot->oid = database;
			slot->state = DATABASE_OFF;
		}
	}
	if (slot != NULL)
		slot->barred++;
	LWLockRelease(shared->lock);
	return slot != NULL;
}

/*
 * Ends database_hold().  changed: the database may have got or lost the
 * extension, or be gone; the launcher finds out.  Safe in commit callbacks.
 */
void
database_release(Oid database, bool changed)
{
	DatabaseSlot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_database(database);
	if (slot != NULL)
	{
		slot->barred--;
		if (changed)
			slot->generation++;
	}
	if (changed)
		shared->changes++;
	LWLockRelease(shared->lock);
	worker_wake_launcher();
}

/* Databases came, went or changed: the launcher shall read pg_database. */
void
database_changes(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->changes++;
	LWLockRelease(shared->lock);
	worker_wake_launcher();
}

/*
 * The launcher has the database looked at; the state that is found will speak
 * of the generation that is now.
 */
void
database_probe(Oid database)
{
	DatabaseSlot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_database(database);
	if (slot != NULL)
	{
		slot->state = DATABASE_PROBING;
		slot->probed = slot->generation;
	}
	LWLockRelease(shared->lock);
}

/*
 * A database has got the extension and found no slot: the launcher looks at all
 * databases when there is one.
 */
void
database_missed(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->missed = true;
	shared->changes++;
	LWLockRelease(shared->lock);
	worker_wake_launcher();
}

/* Sets what is known of the database, and tells the launcher. */
void
database_set_state(Oid database, DatabaseState state)
{
	DatabaseSlot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_database(database);
	if (slot != NULL)
		slot->state = state;
	LWLockRelease(shared->lock);
	worker_wake_launcher();
}

/*
 * Gives the slot of a database back, unless somebody holds it or it is past
 * that generation; true when it is free now.
 */
bool
database_free(Oid database, uint64 generation)
{
	DatabaseSlot *slot;
	bool		freed = false;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_database(database);
	if (slot != NULL && slot->barred == 0 &&
		slot->generation == generation)
	{
		init_database(slot);
		freed = true;
	}
	LWLockRelease(shared->lock);
	return freed;
}

/* A waiting job becomes due then: its maintainer shall not sleep longer. */
void
database_due(Oid database, TimestampTz due)
{
	DatabaseSlot *slot = database_slot(database);
	uint64		next;

	if (slot == NULL)
		return;
	next = pg_atomic_read_u64(&slot->next_due);
	while (due < (TimestampTz) next)
	{
		if (pg_atomic_compare_exchange_u64(&slot->next_due, &next,
										   (uint64) due))
		{
			worker_wake(WORKER_MAINTAINER, database);
			break;
		}
	}
}

/* Has the database's maintainer look at everything now. */
void
database_look(Oid database)
{
	DatabaseSlot *slot = database_slot(database);

	if (slot == NULL)
		return;
	pg_atomic_write_u32(&slot->look, 1);
	worker_wake(WORKER_MAINTAINER, database);
}

/* Has the database's maintainer see to what is too old, now. */
void
database_maintain(Oid database)
{
	DatabaseSlot *slot = database_slot(database);

	if (slot == NULL)
		return;
	pg_atomic_write_u32(&slot->maintain, 1);
	worker_wake(WORKER_MAINTAINER, database);
}
