/*
 * worker.c
 *	  What all background workers share: how they start, turn and leave.
 */
#include "postgres.h"

#include <signal.h>
#include <unistd.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/touch.h"
#include "base/trouble.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "queue/queue.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "worker/worker.h"

static volatile sig_atomic_t told = false;	/* by SIGTERM */
static bool connected = false;

/* ---- signals ---- */

/*
 * Somebody wants this worker gone: no job is to blame for that.  die() has
 * statements and lock waits end, which may happen in the midst of user code.
 */
static void
handle_sigterm(SIGNAL_ARGS)
{
	int			save_errno = errno;

	told = true;
	touch_orderly();
	die(postgres_signal_arg);
	errno = save_errno;
}

/*
 * Another process has crashed, or the server stops immediately: as PostgreSQL
 * has it nothing is cleaned up, but this worker's job is not to blame.
 */
static void
handle_sigquit(SIGNAL_ARGS)
{
	touch_clear();
	_exit(2);
}

static void
set_signals(WorkerKind kind)
{
	pqsignal(SIGTERM, handle_sigterm);
	pqsignal(SIGQUIT, handle_sigquit);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	/* nothing in the launcher can be cancelled */
	if (kind == WORKER_LAUNCHER)
		pqsignal(SIGINT, SIG_IGN);
	BackgroundWorkerUnblockSignals();
}

/* ---- start ---- */

/* An executor that did not get as far as its database says so at its exit. */
static void
note_trouble(int code, Datum arg)
{
	if (connected || code == 0 || told || my_worker->kind != WORKER_EXECUTOR)
		return;
	if (trouble_note(my_worker->database, my_worker->role,
					 TROUBLE_NO_CONNECTION))
		ereport(LOG,
				(errmsg("no executor can start for role %u in database %u: its jobs wait",
						my_worker->role, my_worker->database),
				 errhint("%s", trouble_hint(TROUBLE_NO_CONNECTION))));
}

static void
connect_database(WorkerKind kind, const WorkerOrders *orders)
{
	if (kind == WORKER_LAUNCHER)
		BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	else
		BackgroundWorkerInitializeConnectionByOid(orders->database,
												  orders->role,
												  kind == WORKER_EXECUTOR ?
												  COMPAT_BYPASS_ROLE_LOGIN : 0);
}

/*
 * Settings of the database or role that would end a worker or its transactions,
 * or have them wait for others', before its own are in force.
 */
static void
force_settings(void)
{
	static const char *const forced[][2] = {
		{"transaction_timeout", "0"},
		{"default_transaction_deferrable", "off"},
		{"exit_on_error", "off"},
	};

	for (int i = 0; i < (int) lengthof(forced); i++)
	{
		if (GetConfigOption(forced[i][0], true, false) != NULL)
			SetConfigOption(forced[i][0], forced[i][1], PGC_SUSET,
							PGC_S_OVERRIDE);
	}
}

/*
 * The owner of a database may have set "role" or "session_authorization" for
 * it, and a superuser's process may become anybody: back to who has connected.
 */
static void
be_who_connected(void)
{
	Oid			user = GetAuthenticatedUserId();

	if (GetUserId() == user && GetSessionUserId() == user)
		return;
	StartTransactionCommand();
	SetSessionAuthorization(user, superuser_arg(user));
	SetCurrentRoleId(InvalidOid, false);
	CommitTransactionCommand();
}

/*
 * Makes this process a worker of that kind: signals, a slot, an entry for
 * touch_job(), the connection to its database (the launcher: to none).  Exits
 * when its database does not want it any more; errors of the connection are
 * FATAL.
 */
void
worker_start(WorkerKind kind)
{
	WorkerOrders orders;

	memcpy(&orders, MyBgworkerEntry->bgw_extra, sizeof(orders));
	if (!worker_enter(kind, orders.database, orders.role))
		proc_exit(0);
	before_shmem_exit(note_trouble, (Datum) 0);
	set_signals(kind);
	touch_attach();
	connect_database(kind, &orders);
	connected = true;
	if (kind != WORKER_LAUNCHER)
	{
		force_settings();
		be_who_connected();
	}
	pgstat_report_appname(MyBgworkerEntry->bgw_type);
	pgstat_report_activity(STATE_IDLE, NULL);
	if (kind == WORKER_EXECUTOR)
		trouble_clear(orders.database, orders.role);
	/* it counts workers by their slots */
	if (kind != WORKER_LAUNCHER)
		worker_wake_launcher();
}

/* ---- turns ---- */

/* Shall this worker leave in good order? */
bool
worker_leaving(void)
{
	return told || pg_atomic_read_u32(&my_worker->stop) != 0;
}

/*
 * Once in each turn of a worker's loop, outside a transaction: reads the
 * configuration when that was asked for; false when the worker shall leave.
 */
bool
worker_turn(void)
{
	if (worker_leaving())
		return false;
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	return true;
}

/* Waits for the latch; timeout_ms: at most that long, -1 for ever. */
void
worker_sleep(long timeout_ms)
{
	int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

	if (timeout_ms >= 0)
		events |= WL_TIMEOUT;
	if (WaitLatch(MyLatch, events, timeout_ms, worker_wait_event()) & WL_LATCH_SET)
		ResetLatch(MyLatch);
}

/* What pg_stat_activity shows of a worker that waits for something to do. */
uint32
worker_wait_event(void)
{
	static uint32 event = 0;

	if (event == 0)
	{
		static const char *const names[] = {
			[WORKER_NONE] = "ChaincallNone",
			[WORKER_LAUNCHER] = "ChaincallLauncherMain",
			[WORKER_CALLER] = "ChaincallCallerMain",
			[WORKER_EXECUTOR] = "ChaincallExecutorMain",
			[WORKER_MAINTAINER] = "ChaincallMaintainerMain"
		};

		event = compat_wait_event(names[my_worker->kind]);
	}
	return event;
}

/*
 * A caller says whether its window is full while the board has work: when all
 * of a database say so, the launcher starts one more.  Cheap when unchanged.
 */
void
worker_set_full(bool full)
{
	if ((pg_atomic_read_u32(&my_worker->full) != 0) == full)
		return;
	pg_atomic_write_u32(&my_worker->full, full);
	if (full)
		worker_wake_launcher();
}

/* ---- the extension ---- */

/* The version of the extension in this database, or NULL. */
static char *
installed_version(void)
{
	Relation	extensions = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *version = NULL;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum("chaincall"));
	scan = systable_beginscan(extensions, ExtensionNameIndexId, true, NULL, 1,
							  &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, Anum_pg_extension_extversion,
										 RelationGetDescr(extensions), &isnull);

		version = isnull ? pstrdup("") : TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(extensions, AccessShareLock);
	return version;
}

/*
 * Does this database have the extension, in the version of this library?
 * Logs what is to be done where the versions differ.  In a transaction of its
 * own.
 */
bool
worker_extension_usable(void)
{
	char	   *version;
	bool		usable;

	StartTransactionCommand();
	version = installed_version();
	usable = version != NULL && strcmp(version, CHAINCALL_VERSION) == 0;
	if (version != NULL && !usable)
		ereport(LOG,
				(errmsg("database \"%s\" has chaincall %s, but the library is %s: its jobs wait",
						get_database_name(MyDatabaseId), version,
						CHAINCALL_VERSION),
				 errhint("Run in that database: ALTER EXTENSION chaincall UPDATE.")));
	CommitTransactionCommand();
	return usable;
}

/*
 * The first thing that a maintainer does: looks whether there is work for it
 * in its database, and has callers started where there is.  When it returns
 * false the maintainer exits.
 */
bool
worker_probe(void)
{
	bool		usable;

	pgstat_report_activity(STATE_RUNNING, "looking for the extension");
	usable = worker_extension_usable();
	/* before anything runs: what was copied from elsewhere is not ours to do */
	if (usable)
	{
		queue_adopt_copy();
		queue_make_first_partitions();
	}
	database_set_state(MyDatabaseId, usable ? DATABASE_ACTIVE : DATABASE_OFF);
	pgstat_report_activity(STATE_IDLE, NULL);
	return usable;
}
