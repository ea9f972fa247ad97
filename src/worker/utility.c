/*
 * utility.c
 *	  Commands that concern the workers, as sessions run them.
 *
 * DROP DATABASE, ALTER DATABASE (RENAME, SET TABLESPACE) and CREATE DATABASE …
 * TEMPLATE need a database that nobody is connected to, DROP EXTENSION locks
 * all its tables at once.  Before such a command, and only when its user may
 * run it, the database's workers are stopped; until the end of the transaction
 * it is held: none come in.  Should the session die in between, its
 * transaction is aborted, and with it the hold ends.
 *
 * Commits that gave a database the extension or took it away (in whatever way:
 * object_access_hook sees them all), and new or altered databases are told to
 * the launcher.
 */
#include "postgres.h"

#include <signal.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/compat.h"
#include "base/shared.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "worker/utility.h"

#define EXTENSION "chaincall"
#define POLITE_MS 1000			/* then SIGTERM, again after each such time */
#define PATIENCE_MS 30000
#define LOOK_MS 10

/* A database that this transaction holds. */
typedef struct Hold
{
	Oid			database;
	bool		held;			/* false: it had no slot to hold */
	bool		changed;
} Hold;

static ProcessUtility_hook_type next_utility = NULL;
static object_access_hook_type next_access = NULL;
static List *holds = NIL;		/* in TopMemoryContext, until the end */
static bool databases_changed = false;
static bool extension_changed = false;	/* here: cannot be prepared */

/* ---- holds ---- */

static Hold *
find_hold(Oid database)
{
	ListCell   *cell;

	foreach(cell, holds)
	{
		Hold	   *hold = lfirst(cell);

		if (hold->database == database)
			return hold;
	}
	return NULL;
}

/* Keeps workers out of the database until the transaction ends. */
static Hold *
hold_database(Oid database, bool make)
{
	Hold	   *hold = find_hold(database);
	MemoryContext old;

	if (hold == NULL)
	{
		old = MemoryContextSwitchTo(TopMemoryContext);
		hold = palloc0(sizeof(Hold));
		hold->database = database;
		holds = lappend(holds, hold);
		MemoryContextSwitchTo(old);
	}
	if (!hold->held)
		hold->held = database_hold(database, make);
	return hold;
}

static void
end_holds(bool committed)
{
	ListCell   *cell;

	foreach(cell, holds)
	{
		Hold	   *hold = lfirst(cell);

		if (hold->held)
			database_release(hold->database, committed && hold->changed);
		else if (committed && hold->changed)
			database_missed();
		pfree(hold);
	}
	list_free(holds);
	holds = NIL;
	if (databases_changed && committed)
		database_changes();
	databases_changed = false;
	extension_changed = false;
}

static void
transaction_ends(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			end_holds(true);
			break;
		case XACT_EVENT_ABORT:
			end_holds(false);
			break;
		case XACT_EVENT_PRE_PREPARE:
			/* nothing would tell the launcher when it commits */
			if (extension_changed)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has created, updated or dropped extension \"%s\"",
								EXTENSION)));
			break;
		default:
			break;
	}
}

/* ---- waiting until nobody is there ---- */

/* Pids of the workers in a database but this process; palloc'ed. */
static List *
list_workers(Oid database)
{
	List	   *pids = NIL;
	int			npids = 0;
	int		   *array = palloc(shared->nworkers * sizeof(int));

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers; i++)
	{
		const WorkerSlot *slot = &shared->workers[i];

		if (slot->kind != WORKER_NONE && slot->database == database &&
			slot != my_worker)
			array[npids++] = slot->pid;
	}
	LWLockRelease(shared->lock);
	for (int i = 0; i < npids; i++)
		pids = lappend_int(pids, array[i]);
	pfree(array);
	return pids;
}

/* Is one of them connected still?  A worker leaves its slot before that. */
static bool
any_connected(List *pids, Oid database)
{
	ListCell   *cell;

	foreach(cell, pids)
	{
		PGPROC	   *proc = BackendPidGetProc(lfirst_int(cell));

		if (proc != NULL && proc->databaseId == database)
			return true;
	}
	return false;
}

/*
 * Stops the workers of a database that is held and waits until they are gone;
 * can be cancelled.  Raises object_in_use when they do not go.
 */
static void
empty_database(Oid database)
{
	List	   *pids = list_workers(database);
	TimestampTz begun = GetCurrentTimestamp();
	TimestampTz asked = begun;
	int			signo = 0;

	while (worker_stop(WORKER_NONE, database, signo) > 0 ||
		   any_connected(pids, database))
	{
		TimestampTz now;

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOOK_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		now = GetCurrentTimestamp();
		if (TimestampDifferenceExceeds(begun, now, PATIENCE_MS))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("chaincall's workers do not leave database \"%s\"",
							get_database_name(database)),
					 errhint("Set chaincall.workers to off, reload, and try again when they are gone.")));
		signo = 0;
		if (TimestampDifferenceExceeds(asked, now, POLITE_MS))
		{
			/* busy with something that only an interrupt ends */
			signo = SIGTERM;
			asked = now;
		}
	}
	list_free(pids);
}

static bool
is_template(Oid database)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID,
										ObjectIdGetDatum(database));
	bool		template;

	if (!HeapTupleIsValid(tuple))
		return false;
	template = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return template;
}

/*
 * Has the database without workers until the transaction ends.  changed: the
 * launcher shall look at it anew then.
 */
static void
clear_database(Oid database, bool changed)
{
	Hold	   *hold;

	if (!OidIsValid(database))
		return;
	/* a place is needed only where workers might come */
	hold = hold_database(database, !is_template(database));
	hold->changed |= changed;
	if (hold->held)
		empty_database(database);
}

/* ---- the extension ---- */

/* The commit of this transaction gives or takes this database's extension. */
static void
note_extension(void)
{
	Hold	   *hold = hold_database(MyDatabaseId, true);

	hold->changed = true;
	extension_changed = true;
	if (!hold->held)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no jobs will run in this database: chaincall runs in as many as it may"),
				 errhint("Raise chaincall.max_databases and restart the server.")));
}

/* Is that extension, whose row this command has just inserted, ours? */
static bool
is_new_extension(Oid extension)
{
	Relation	extensions = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		ours = false;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(extensions, ExtensionOidIndexId, true,
							  SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		ours = strcmp(NameStr(((Form_pg_extension) GETSTRUCT(tuple))->extname),
					  EXTENSION) == 0;
	systable_endscan(scan);
	table_close(extensions, AccessShareLock);
	return ours;
}

static void
access_object(ObjectAccessType access, Oid class, Oid object, int sub,
			  void *arg)
{
	if (next_access)
		next_access(access, class, object, sub, arg);
	if (class != ExtensionRelationId)
		return;
	if (access == OAT_POST_CREATE && is_new_extension(object))
		note_extension();
	else if (access == OAT_DROP)
	{
		char	   *name = get_extension_name(object);

		if (name != NULL && strcmp(name, EXTENSION) == 0)
			note_extension();
	}
}

/*
 * Before the extension is dropped or updated: no worker shall be between the
 * locks that this takes, or they could wait for each other.
 */
static void
clear_for_extension(const char *name)
{
	Oid			extension;

	if (strcmp(name, EXTENSION) != 0)
		return;
	extension = get_extension_oid(EXTENSION, true);
	if (OidIsValid(extension) &&
		compat_extension_ownercheck(extension, GetUserId()))
		clear_database(MyDatabaseId, false);
}

static void
before_drop(const DropStmt *drop)
{
	ListCell   *cell;

	if (drop->removeType != OBJECT_EXTENSION)
		return;
	foreach(cell, drop->objects)
		clear_for_extension(strVal(lfirst(cell)));
}

/* ---- databases ---- */

/* The database of that name if its owner asks and it is not this one. */
static Oid
own_database(const char *name)
{
	Oid			database = get_database_oid(name, true);

	if (!OidIsValid(database) || database == MyDatabaseId ||
		!compat_database_ownercheck(database, GetUserId()))
		return InvalidOid;
	return database;
}

static const DefElem *
find_option(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		const DefElem *option = lfirst(cell);

		if (strcmp(option->defname, name) == 0)
			return option;
	}
	return NULL;
}

/* As PostgreSQL's have_createdb_privilege(), which not every release shows. */
static bool
may_create_databases(void)
{
	HeapTuple	role;
	bool		may;

	if (superuser())
		return true;
	role = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (!HeapTupleIsValid(role))
		return false;
	may = ((Form_pg_authid) GETSTRUCT(role))->rolcreatedb;
	ReleaseSysCache(role);
	return may;
}

static void
before_create_database(const CreatedbStmt *create)
{
	const DefElem *option = find_option(create->options, "template");
	Oid			template;

	/* template1, unless somebody has made it an ordinary database */
	template = get_database_oid(option != NULL && option->arg != NULL ?
								defGetString(unconstify(DefElem *, option)) :
								"template1", true);
	if (!OidIsValid(template) || !may_create_databases())
		return;
	if (is_template(template) ||
		compat_database_ownercheck(template, GetUserId()))
		clear_database(template, false);
}

/* What PostgreSQL refuses in a transaction block stops no workers. */
static bool
runs_alone(ProcessUtilityContext context)
{
	return context == PROCESS_UTILITY_TOPLEVEL && !IsTransactionBlock();
}

static void
before_rename(const RenameStmt *rename)
{
	if (rename->renameType == OBJECT_DATABASE && may_create_databases())
		clear_database(own_database(rename->subname), false);
}

/* Stops workers that would be in the command's way. */
static void
before_command(Node *command, ProcessUtilityContext context)
{
	switch (nodeTag(command))
	{
		case T_DropStmt:
			before_drop((DropStmt *) command);
			break;
		case T_AlterExtensionStmt:
			clear_for_extension(((AlterExtensionStmt *) command)->extname);
			break;
		case T_RenameStmt:
			before_rename((RenameStmt *) command);
			break;
		case T_DropdbStmt:
			if (runs_alone(context))
				clear_database(own_database(((DropdbStmt *) command)->dbname),
							   true);
			break;
		case T_AlterDatabaseStmt:
			if (runs_alone(context) &&
				find_option(((AlterDatabaseStmt *) command)->options,
							"tablespace") != NULL)
				clear_database(own_database(((AlterDatabaseStmt *) command)->dbname),
							   false);
			break;
		case T_CreatedbStmt:
			if (runs_alone(context))
				before_create_database((CreatedbStmt *) command);
			break;
		default:
			break;
	}
}

/* Notes what the command's commit is to tell the launcher. */
static void
after_command(Node *command)
{
	switch (nodeTag(command))
	{
		case T_AlterExtensionStmt:
			if (strcmp(((AlterExtensionStmt *) command)->extname, EXTENSION) == 0)
				note_extension();
			break;
		case T_CreatedbStmt:
		case T_DropdbStmt:
		case T_AlterDatabaseStmt:
			databases_changed = true;
			break;
		default:
			break;
	}
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *environment, DestReceiver *dest,
				QueryCompletion *completion)
{
	Node	   *command = pstmt->utilityStmt;
	bool		watched = IsTransactionState() && !RecoveryInProgress();

	if (watched)
		before_command(command, context);
	if (next_utility)
		next_utility(pstmt, query, read_only, context, params, environment,
					 dest, completion);
	else
		standard_ProcessUtility(pstmt, query, read_only, context, params,
								environment, dest, completion);
	if (watched && IsTransactionState())
		after_command(command);
}

/* Sets the hooks; from _PG_init() when the library is preloaded. */
void
utility_init(void)
{
	next_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	next_access = object_access_hook;
	object_access_hook = access_object;
	RegisterXactCallback(transaction_ends, NULL);
}
