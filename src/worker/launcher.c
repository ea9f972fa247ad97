/*
 * launcher.c
 *	  The one process that starts and stops all others of chaincall.
 *
 * It is connected to no database.  It reads pg_database once, has each
 * database that takes connections and is no template looked at by a maintainer
 * started there, and is told of everything that changes (worker/utility.c), by
 * its latch: it does not poll.
 *
 *				     todo
 *				      │ a slot is free
 *				      ▼
 *		 ┌───────► UNKNOWN ──► PROBING ──► ACTIVE   maintainer, callers,
 *		 │                        │          │      executors
 *		 │                        ▼          │
 *		 │ generation changed    OFF ──► the slot is given back
 *		 └────────────────────────┴──────────┘  (all workers are gone first)
 *
 * The states are in shared memory, so that a launcher that was started anew
 * goes on where the one before it was; its workers outlive it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/settings.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "queue/board.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/launcher.h"
#include "worker/staff.h"
#include "worker/worker.h"

#define MAX_PROBES 4			/* databases looked at at once */
#define FULL_LOG_MS 3600000

PGDLLEXPORT void chaincall_launcher_main(Datum arg);

static List *known = NIL;		/* databases that may have workers */
static List *todo = NIL;		/* those not looked at since the start */
static uint64 read_changes = UINT64_MAX;	/* shared->changes at the reading */
static TimestampTz full_logged = 0;

/* ---- pg_database ---- */

/* Oids of databases that may have workers; in the current memory context. */
static List *
list_databases(void)
{
	Relation	databases = table_open(DatabaseRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(databases, InvalidOid, false, NULL, 0,
										  NULL);
	List	   *list = NIL;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		/* -2: a DROP DATABASE that did not come to its end */
		if (database->datallowconn && !database->datistemplate &&
			database->datconnlimit != -2)
			list = lappend_oid(list, database->oid);
	}
	systable_endscan(scan);
	table_close(databases, AccessShareLock);
	return list;
}

static void
read_databases(void)
{
	MemoryContext keep = TopMemoryContext;
	MemoryContext old;
	List	   *list;
	List	   *gone;
	bool		missed;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	read_changes = shared->changes;
	missed = shared->missed;
	shared->missed = false;
	LWLockRelease(shared->lock);
	if (missed)
	{
		list_free(known);
		known = NIL;
	}

	StartTransactionCommand();
	old = MemoryContextSwitchTo(keep);
	list = list_databases();
	MemoryContextSwitchTo(old);
	CommitTransactionCommand();

	old = MemoryContextSwitchTo(keep);
	gone = list_difference_oid(todo, list);
	todo = list_concat_unique_oid(list_difference_oid(todo, gone),
								  list_difference_oid(list, known));
	list_free(known);
	known = list;
	MemoryContextSwitchTo(old);
}

static bool
databases_changed(void)
{
	bool		changed;

	LWLockAcquire(shared->lock, LW_SHARED);
	changed = shared->changes != read_changes;
	LWLockRelease(shared->lock);
	return changed;
}

/* ---- databases ---- */

static int
count_probes(void)
{
	int			n = 0;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->ndatabases; i++)
	{
		if (OidIsValid(shared->databases[i].oid) &&
			(shared->databases[i].state == DATABASE_PROBING ||
			 shared->databases[i].state == DATABASE_UNKNOWN))
			n++;
	}
	LWLockRelease(shared->lock);
	return n;
}

static void
log_all_taken(void)
{
	TimestampTz now = GetCurrentTimestamp();

	/* when a slot is given back it is this process that does it */
	if (full_logged != 0 && !TimestampDifferenceExceeds(full_logged, now, FULL_LOG_MS))
		return;
	full_logged = now;
	ereport(LOG,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no jobs run in up to %d databases: chaincall runs in as many as it may",
					list_length(todo)),
			 errhint("Raise chaincall.max_databases (%d now) and restart the server.",
					 setting_max_databases)));
}

/*
 * Gives slots to databases that were not looked at yet, a few at a time; true
 * when there were any.
 */
static bool
take_from_todo(void)
{
	int			probes = count_probes();
	bool		taken = false;

	while (todo != NIL && probes < MAX_PROBES)
	{
		DatabaseSlot *slot = database_slot_make(linitial_oid(todo));

		if (slot == NULL)
		{
			if (probes == 0)
				log_all_taken();
			break;
		}
		/* OFF: somebody holds it, but nobody has looked */
		LWLockAcquire(shared->lock, LW_EXCLUSIVE);
		if (slot->state == DATABASE_OFF)
			slot->state = DATABASE_UNKNOWN;
		LWLockRelease(shared->lock);
		todo = list_delete_first(todo);
		probes++;
		taken = true;
	}
	return taken;
}

/* A database has no workers and is to have none: its slot is given back. */
static void
forget_database(const DatabaseSlot *database)
{
	if (!database_free(database->oid, database->generation))
		return;
	board_forget_database(database->oid);
	staff_forgive(database->oid);
}

/* The workers that a database shall have now; all of its are of today. */
static void
man_database(const DatabaseSlot *database)
{
	switch (database->state)
	{
		case DATABASE_UNKNOWN:
			break;
		case DATABASE_PROBING:
		case DATABASE_ACTIVE:
			if (staff_count(WORKER_MAINTAINER, database->oid, InvalidOid) == 0)
				staff_start(WORKER_MAINTAINER, database->oid, InvalidOid);
			if (database->state == DATABASE_ACTIVE)
				scaling_callers(database->oid);
			break;
		case DATABASE_OFF:
			if (staff_count(WORKER_NONE, database->oid, InvalidOid) == 0)
				forget_database(database);
			break;
	}
}

/* One turn of one database, as it is now. */
static void
turn_database(DatabaseSlot database)
{
	bool		exists = list_member_oid(known, database.oid);
	bool		fresh = database.state != DATABASE_UNKNOWN &&
		database.generation == database.probed;

	if (exists && fresh && setting_workers && database.barred == 0)
	{
		man_database(&database);
		return;
	}
	/* nobody stays who came under other circumstances; they wake us */
	if (staff_count(WORKER_NONE, database.oid, InvalidOid) > 0)
	{
		worker_stop(WORKER_NONE, database.oid, 0);
		return;
	}
	if (!exists || (fresh && database.state == DATABASE_OFF))
		forget_database(&database);
	else if (!fresh && setting_workers && database.barred == 0)
	{
		database_probe(database.oid);
		staff_forgive(database.oid);
		staff_start(WORKER_MAINTAINER, database.oid, InvalidOid);
	}
}

/* ---- the loop ---- */

static void
launcher_turn(void)
{
	staff_turn_begins();
	staff_reap();
	if (databases_changed())
		read_databases();
	for (int i = 0; i < shared->ndatabases; i++)
	{
		DatabaseSlot database;

		LWLockAcquire(shared->lock, LW_SHARED);
		database.oid = shared->databases[i].oid;
		database.state = shared->databases[i].state;
		database.barred = shared->databases[i].barred;
		database.generation = shared->databases[i].generation;
		database.probed = shared->databases[i].probed;
		LWLockRelease(shared->lock);
		if (OidIsValid(database.oid))
			turn_database(database);
	}
	if (setting_workers)
		scaling_executors();
	/* last, because slots were given back meanwhile */
	if (setting_workers && take_from_todo())
		staff_turn_at(GetCurrentTimestamp());
}

/*
 * The launcher.  When it leaves, the postmaster starts it again, which is why
 * it does not exit with 0.
 */
void
chaincall_launcher_main(Datum arg)
{
	MemoryContext turn;

	worker_start(WORKER_LAUNCHER);
	turn = AllocSetContextCreate(TopMemoryContext, "chaincall launcher",
								 ALLOCSET_DEFAULT_SIZES);
	while (worker_turn())
	{
		MemoryContextSwitchTo(turn);
		launcher_turn();
		MemoryContextReset(turn);
		worker_sleep(staff_timeout_ms());
	}
	proc_exit(1);
}
