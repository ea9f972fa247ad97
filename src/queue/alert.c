/*
 * alert.c
 *	  What a person should see: dead letters and notices.
 *
 * The row is the truth; NOTIFY chaincall_alert in the same transaction is a
 * hint that it is there, and must cost no job its end.  PostgreSQL refuses the
 * commit of who notifies when the queue of notifications is full (a session
 * that listens and does not end its transaction fills it), and lets who
 * notifies wait for the commits of others who do, longer than our
 * lock_timeout.  So nothing is told while the queue is nearly full, nor in the
 * transaction after one that had something to tell and failed, whatever it
 * failed of: it is mostly the same one, tried again.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/ids.h"
#include "catalog/pg_type.h"
#include "chain/local.h"
#include "commands/async.h"
#include "executor/spi.h"
#include "queue/alert.h"
#include "queue/upkeep.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#define CHANNEL "chaincall_alert"

/* Of the queue of notifications; the rest is for others and for races. */
#define FULL_SHARE 0.9

/* The queue is complained of once in so many seconds. */
#define COMPLAIN_MS 600000

/* Messages of errors have no bound; the whole one is in the job's row. */
#define MAX_MESSAGE "1000"

static const char alert_sql[] =
"INSERT INTO chaincall.alert (id, kind, job, owner, message, hint, created_at)"
" SELECT $1, $2, $3, $4, pg_catalog.left($5, " MAX_MESSAGE "), $6, pg_catalog.clock_timestamp()"
" WHERE $3 IS NOT NULL OR NOT EXISTS (SELECT FROM chaincall.alert a"
"  WHERE a.acknowledged_at IS NULL AND a.kind = $2 AND a.job IS NULL"
"  AND a.owner IS NOT DISTINCT FROM $4 AND a.message = pg_catalog.left($5, " MAX_MESSAGE "))";

static const char letters_sql[] =
"INSERT INTO chaincall.alert (id, kind, job, owner, message, hint, created_at, step, input)"
" SELECT e.id, 'dead_letter', q.id, q.owner, pg_catalog.left(q.chain || ': ' || (q.error ->> 'message'), " MAX_MESSAGE "),"
" q.error ->> 'hint', pg_catalog.clock_timestamp(), q.error ->> 'step', e.input"
" FROM unnest($1, $2, $3) AS e(id, job, input), chaincall.job q WHERE q.id = e.job";

static const char close_sql[] =
"DELETE FROM chaincall.alert a WHERE a.acknowledged_at IS NULL AND a.kind = $1 AND a.job IS NULL"
" AND a.owner <> ALL ($2)";

static const char untold_sql[] =
"SELECT a.id, a.created_at, a.job, a.kind FROM chaincall.alert a"
" WHERE a.told_at IS NULL AND a.acknowledged_at IS NULL AND (a.created_at, a.id) > ($1, $2)"
" ORDER BY a.created_at, a.id LIMIT $3";

static const char mark_sql[] =
"UPDATE chaincall.alert u SET told_at = pg_catalog.clock_timestamp()"
" FROM pg_catalog.unnest($1) AS e(id), LATERAL (SELECT a.id FROM chaincall.alert a WHERE a.id = e.id FOR UPDATE SKIP LOCKED) l"
" WHERE u.id = l.id";

/* The transaction that has something to tell, by its start; 0: none. */
static TimestampTz telling_since = 0;

/* ---- NOTIFY ---- */

static bool
queue_is_full(void)
{
	static TimestampTz complained_at = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (DatumGetFloat8(DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0)) < FULL_SHARE)
		return false;
	if (TimestampDifferenceExceeds(complained_at, now, COMPLAIN_MS))
	{
		complained_at = now;
		ereport(LOG,
				(errmsg("chaincall: alerts are not told by NOTIFY, whose queue is nearly full"),
				 errhint("The rows of chaincall.alert are there. A session that listens is in a transaction that does not end: see pg_stat_activity.")));
	}
	return true;
}

/* May this transaction tell? */
static bool
may_tell(void)
{
	bool		failed = telling_since != 0 &&
		telling_since != GetCurrentTransactionStartTimestamp();

	telling_since = 0;
	return !failed && !queue_is_full();
}

static void
tell(const pg_uuid_t *alert, const pg_uuid_t *job)
{
	char	   *payload = job == NULL ?
		psprintf("{\"alert\": \"%s\"}", ids_uuid_text(alert)) :
		psprintf("{\"alert\": \"%s\", \"job\": \"%s\"}",
				 ids_uuid_text(alert), ids_uuid_text(job));

	Async_Notify(CHANNEL, payload);
	telling_since = GetCurrentTransactionStartTimestamp();
}

/* A transaction was committed: what it had to tell, if anything, is told. */
void
queue_alerts_told(void)
{
	if (telling_since == GetCurrentTransactionStartTimestamp())
		telling_since = 0;
}

/* ---- rows ---- */

/*
 * Writes an alert, in the caller's transaction of queue_begin().  job: or
 * NULL; owner: InvalidOid where it concerns the installation; hint: or NULL.
 * One about no single job is not written while the same stands open.
 */
void
queue_alert(const char *kind, const pg_uuid_t *job, Oid owner,
			const char *message, const char *hint)
{
	Oid			types[] = {UUIDOID, TEXTOID, UUIDOID, OIDOID, TEXTOID, TEXTOID};
	Datum		values[6];
	char		nulls[] = "      ";
	pg_uuid_t	id;

	ids_uuid7(&id);
	values[0] = UUIDPGetDatum(&id);
	values[1] = CStringGetTextDatum(kind);
	values[2] = UUIDPGetDatum(job);
	values[3] = ObjectIdGetDatum(owner);
	values[4] = CStringGetTextDatum(message);
	values[5] = hint ? CStringGetTextDatum(hint) : (Datum) 0;
	nulls[2] = job ? ' ' : 'n';
	nulls[3] = OidIsValid(owner) ? ' ' : 'n';
	nulls[5] = hint ? ' ' : 'n';
	if (SPI_execute_with_args(alert_sql, 6, types, values, nulls, false,
							  0) != SPI_OK_INSERT)
		elog(ERROR, "could not write an alert");
	if (SPI_processed > 0 && may_tell())
		tell(&id, job);
}

static Datum
input_array(const DeadLetter *letters, int n)
{
	Datum	   *values = palloc(n * sizeof(Datum));
	bool	   *nulls = palloc(n * sizeof(bool));
	int			lower = 1;

	for (int i = 0; i < n; i++)
	{
		nulls[i] = letters[i].input == NULL;
		values[i] = JsonbPGetDatum(letters[i].input);
	}
	return PointerGetDatum(construct_md_array(values, nulls, 1, &n, &lower,
											  JSONBOID, -1, false,
											  TYPALIGN_INT));
}

/*
 * Writes the alerts of jobs that have failed, whose rows say so already in the
 * caller's transaction of queue_begin().
 */
void
queue_dead_letters(const DeadLetter *letters, int n)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDARRAYOID, UUIDARRAYOID, JSONBARRAYOID};
	pg_uuid_t  *ids;
	pg_uuid_t  *jobs;
	Datum		values[3];

	if (n == 0)
		return;
	ids = palloc(n * sizeof(pg_uuid_t));
	jobs = palloc(n * sizeof(pg_uuid_t));
	for (int i = 0; i < n; i++)
	{
		ids_uuid7(&ids[i]);
		jobs[i] = letters[i].job;
	}
	values[0] = upkeep_id_array(ids, n);
	values[1] = upkeep_id_array(jobs, n);
	values[2] = input_array(letters, n);
	if (SPI_execute_plan(local_plan(&plan, letters_sql, 3, types), values, NULL,
						 false, 0) != SPI_OK_INSERT ||
		SPI_processed != (uint64) n)
		elog(ERROR, "could not write the alerts of failed jobs");
	if (!may_tell())
		return;
	for (int i = 0; i < n; i++)
		tell(&ids[i], &jobs[i]);
}

/*
 * Deletes the open alerts of that kind about other roles than these: their
 * cause is gone.  In the caller's transaction of queue_begin().
 */
void
queue_close_alerts(const char *kind, const Oid *owners, int n)
{
	Oid			types[] = {TEXTOID, OIDARRAYOID};
	Datum	   *oids = palloc(Max(n, 1) * sizeof(Datum));
	Datum		values[2];

	for (int i = 0; i < n; i++)
		oids[i] = ObjectIdGetDatum(owners[i]);
	values[0] = CStringGetTextDatum(kind);
	values[1] = PointerGetDatum(construct_array(oids, n, OIDOID, sizeof(Oid),
												true, TYPALIGN_INT));
	if (SPI_execute_with_args(close_sql, 2, types, values, NULL, false,
							  0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete alerts");
}

/* ---- chaincall.alert_server ---- */

/*
 * The next alerts to be told, at most so many behind that place (NULL: from
 * the oldest on): a List of UntoldAlert in cxt.  In the caller's transaction
 * of queue_begin(), as the next.
 */
List *
queue_untold(const AlertPlace *after, int most, MemoryContext cxt)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {TIMESTAMPTZOID, UUIDOID, INT4OID};
	AlertPlace	start = {DT_NOBEGIN, {{0}}};
	Datum		values[3];
	List	   *alerts = NIL;
	MemoryContext old;

	if (after == NULL)
		after = &start;
	values[0] = TimestampTzGetDatum(after->created_at);
	values[1] = UUIDPGetDatum(&after->id);
	values[2] = Int32GetDatum(most);
	if (SPI_execute_plan(local_plan(&plan, untold_sql, 3, types), values, NULL,
						 false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for alerts");
	old = MemoryContextSwitchTo(cxt);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		UntoldAlert *alert = palloc0(sizeof(UntoldAlert));
		bool		isnull;
		Datum		job;

		alert->place.id = *DatumGetUUIDP(upkeep_column(i, 1, &isnull));
		alert->place.created_at = DatumGetTimestampTz(upkeep_column(i, 2, &isnull));
		job = upkeep_column(i, 3, &isnull);
		alert->has_job = !isnull;
		if (!isnull)
			alert->job = *DatumGetUUIDP(job);
		alert->kind = TextDatumGetCString(upkeep_column(i, 4, &isnull));
		alerts = lappend(alerts, alert);
	}
	MemoryContextSwitchTo(old);
	return alerts;
}

/* Notes that those are told; one that somebody has locked is told again. */
void
queue_mark_told(const pg_uuid_t *alerts, int n)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDARRAYOID};
	Datum		values[] = {upkeep_id_array(alerts, n)};

	if (SPI_execute_plan(local_plan(&plan, mark_sql, 1, types), values, NULL,
						 false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not mark alerts");
}
