/*
 * restore.c
 *	  An endpoint that a parallel restore brings before its model.
 *
 * pg_dump knows that endpoint refers to model, and writes model first; but it
 * does not write that into the archive, so that of the jobs of pg_restore -j one
 * may come to endpoint while another is at model, or at something that stands
 * before it.  The row waits then, holding no lock that the others want, for as
 * long as they are at work, and no longer than GRACE_MS where they are not: what
 * is in the dump without its model fails as it does elsewhere.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "sql/restore.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define LOOK_MS 20
#define GRACE_MS 3000

static const char model_sql[] =
"SELECT FROM chaincall.model m WHERE m.name OPERATOR(pg_catalog.=) $1";

/* the restore's other connections */
static const char others_sql[] =
"SELECT FROM pg_catalog.pg_stat_get_activity(NULL) a"
" WHERE a.datid OPERATOR(pg_catalog.=) $1 AND a.pid OPERATOR(pg_catalog.<>) $2"
" AND a.usesysid OPERATOR(pg_catalog.=) $3 AND a.state OPERATOR(pg_catalog.=) 'active'"
" AND a.application_name OPERATOR(pg_catalog.=) pg_catalog.current_setting('application_name')";

/* Does the statement find a row, by what is committed now? */
static bool
found(const char *sql, int nargs, Oid *types, Datum *values)
{
	SPIPlanPtr	plan = SPI_prepare(sql, nargs, types);

	if (plan == NULL ||
		SPI_execute_snapshot(plan, values, NULL, GetLatestSnapshot(),
							 InvalidSnapshot, true, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look for the model of an endpoint");
	SPI_freeplan(plan);
	return SPI_processed > 0;
}

static bool
others_at_work(void)
{
	Oid			types[] = {OIDOID, INT4OID, OIDOID};
	Datum		values[] = {
		ObjectIdGetDatum(MyDatabaseId), Int32GetDatum(MyProcPid),
		ObjectIdGetDatum(GetSessionUserId())
	};

	pgstat_clear_snapshot();
	return found(others_sql, 3, types, values);
}

static void
wait_for_model(Datum model)
{
	Oid			types[] = {TEXTOID};
	TimestampTz alone = GetCurrentTimestamp();

	while (!found(model_sql, 1, types, &model))
	{
		TimestampTz now = GetCurrentTimestamp();

		if (others_at_work())
			alone = now;
		else if (TimestampDifferenceExceeds(alone, now, GRACE_MS))
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOOK_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Before an endpoint is inserted: where a restore is under way, which is known
 * by check_function_bodies, waits until its model is there.  That it is, is for
 * the foreign key to see.
 */
void
restore_wait_for_model(Datum model)
{
	if (check_function_bodies)
		return;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	wait_for_model(model);
	SPI_finish();
}
