/*
 * queue.c
 *	  Transactions of chaincall's own.
 *
 * A worker starts with the settings that non-superusers may choose for their
 * database (ALTER DATABASE / ROLE ... SET), so nothing is taken as it is found:
 * what decides which objects our SQL means, whether it may write, how long it
 * waits and whether its commit is durable is set here, in every transaction.
 * Setting a parameter costs microseconds, so it is done only where the value
 * is not the wanted one already.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "queue/alert.h"
#include "queue/queue.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

typedef struct Wanted
{
	const char *name;
	const char *value;
} Wanted;

StepError  *(*queue_bounded) (void (*work) (void *), void *arg, bool slow) = NULL;

/* In every transaction of a worker. */
static const Wanted wanted[] = {
	{"search_path", "pg_catalog, pg_temp"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"row_security", "on"},
	/* somebody's ALTER TABLE must not stop the calls in the air: tried again */
	{"lock_timeout", "200ms"},
	{"statement_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	{"transaction_timeout", "0"},
	{"session_replication_role", "origin"},
	{"check_function_bodies", "off"},
	/* plans for tables whose statistics say nothing of the next minute */
	{"plan_cache_mode", "force_generic_plan"},
	{"enable_seqscan", "off"},
	{"enable_bitmapscan", "off"},
	{"enable_hashjoin", "off"},
	{"enable_mergejoin", "off"},
	{"enable_indexscan", "on"},
	{"enable_indexonlyscan", "on"},
	{"enable_nestloop", "on"},
	{"enable_sort", "on"},
	{"enable_partition_pruning", "on"},
	{"jit", "off"},
	{"max_parallel_workers_per_gather", "0"},
};

/*
 * queue_commit() chooses durability by the variable alone; whether it waits for
 * standbys is what the setting has decided.
 */
static void
set_synchronous_commit(void)
{
	if (synchronous_commit == SYNCHRONOUS_COMMIT_OFF)
		(void) set_config_option("synchronous_commit", "on", PGC_SUSET,
								 PGC_S_SESSION, GUC_ACTION_SET, true, 0, false);
}

/*
 * Forces the settings that chaincall's own SQL relies on, for the rest of this
 * process's life or until somebody changes them.  For workers that run no
 * user's code; an executor sets its own around its checkpoints.
 */
static void
queue_settings(void)
{
	set_synchronous_commit();
	for (int i = 0; i < (int) lengthof(wanted); i++)
	{
		const char *now = GetConfigOption(wanted[i].name, true, false);

		if (now == NULL || strcmp(now, wanted[i].value) == 0)
			continue;
		(void) set_config_option(wanted[i].name, wanted[i].value,
								 PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SET,
								 true, 0, false);
	}
}

/*
 * The same, before the first transaction of a worker only.  Not in one: should
 * it fail, it would take the settings back, and all that follow would run with
 * those of the database's owner.
 */
void
queue_settings_once(void)
{
	static bool applied = false;

	/* nothing between two transactions of a worker can change them */
	if (applied)
		return;
	Assert(!IsTransactionState());
	queue_settings();
	applied = true;
}

/*
 * Begins a transaction with a snapshot and SPI connected; end it with
 * queue_commit(), after an error with queue_abort().
 */
void
queue_begin(void)
{
	queue_settings_once();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	XactIsoLevel = XACT_READ_COMMITTED;
	XactReadOnly = false;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	PushActiveSnapshot(GetTransactionSnapshot());
}

/*
 * Ends it.  durable: on return what was written has reached the disk, and the
 * standbys that are waited for; else it may be lost by a crash of the whole
 * cluster within the next moments.
 */
void
queue_commit(bool durable)
{
	int			configured = synchronous_commit;

	PopActiveSnapshot();
	SPI_finish();
	if (!durable)
		synchronous_commit = SYNCHRONOUS_COMMIT_OFF;
	else if (synchronous_commit == SYNCHRONOUS_COMMIT_OFF)
		synchronous_commit = SYNCHRONOUS_COMMIT_ON;
	CommitTransactionCommand();
	queue_alerts_told();
	/* remote_apply is as good a wish as on */
	synchronous_commit = configured;
	pgstat_report_stat(false);
}

/* Ends it after an error that has been caught. */
void
queue_abort(void)
{
	AbortCurrentTransaction();
	pgstat_report_stat(false);
}
