/*
 * question.c
 *	  What ask steps want to know: rows of chaincall.question.
 *
 * A row is there as long as an answer is of use.  The caller that comes to the
 * step writes it; it goes when the answer is applied, when the step is given up
 * and when the job ends.  One that somebody has locked just then is skipped, and
 * goes with the job's other questions or when old rows are deleted (retain.c).
 * A job that comes back asks again what it has asked before: the first row
 * holds.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "chain/local.h"
#include "commands/async.h"
#include "executor/spi.h"
#include "queue/queue.h"
#include "queue/upkeep.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

static const char ask_sql[] =
"INSERT INTO chaincall.question (id, job, path, owner, to_role, question, show, returns, created_at, expires_at)"
" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (job, path) DO NOTHING";

static const char unask_sql[] =
"WITH old AS MATERIALIZED (SELECT q.job, q.path FROM chaincall.question q WHERE q.job = $1 AND q.path = $2 FOR UPDATE SKIP LOCKED)"
" DELETE FROM chaincall.question u USING old o WHERE u.job = o.job AND u.path = o.path";

static const char unask_jobs_sql[] =
"WITH old AS MATERIALIZED (SELECT l.job, l.path FROM pg_catalog.unnest($1) AS e(id),"
"  LATERAL (SELECT q.job, q.path FROM chaincall.question q WHERE q.job = e.id FOR UPDATE SKIP LOCKED) l)"
" DELETE FROM chaincall.question u USING old o WHERE u.job = o.job AND u.path = o.path";

static const char refuse_sql[] =
"UPDATE chaincall.span SET try = $3, class = 'invalid', message = $4"
" WHERE job = $1 AND path = $2 AND try = 0 AND kind = 'ask'";

static void
run_plan(SPIPlanPtr plan, Datum *values, const char *nulls)
{
	int			result = SPI_execute_plan(plan, values, nulls, false, 0);

	if (result < 0)
		elog(ERROR, "could not write a question: %s",
			 SPI_result_code_string(result));
}

/*
 * Writes a question; sets opened, unless one of that path was there already.
 * In a transaction of queue_begin(), as all here.
 */
void
queue_ask(QuestionRow *row)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {
		UUIDOID, UUIDOID, TEXTOID, OIDOID, OIDOID, TEXTOID, JSONBOID,
		JSONBOID, TIMESTAMPTZOID, TIMESTAMPTZOID
	};
	Datum		values[10];
	char		nulls[] = "          ";

	values[0] = UUIDPGetDatum(&row->id);
	values[1] = UUIDPGetDatum(&row->job);
	values[2] = CStringGetTextDatum(row->path);
	values[3] = ObjectIdGetDatum(row->owner);
	values[4] = ObjectIdGetDatum(row->to_role);
	values[5] = CStringGetTextDatum(row->question);
	values[6] = JsonbPGetDatum(row->show);
	values[7] = JsonbPGetDatum(row->returns);
	values[8] = TimestampTzGetDatum(row->created_at);
	values[9] = TimestampTzGetDatum(row->expires_at);
	nulls[4] = OidIsValid(row->to_role) ? ' ' : 'n';
	nulls[6] = row->show ? ' ' : 'n';
	nulls[7] = row->returns ? ' ' : 'n';
	nulls[9] = row->expires_at == DT_NOEND ? 'n' : ' ';
	run_plan(local_plan(&plan, ask_sql, 10, types), values, nulls);
	/* a try that was rolled back, or written before a fault, counts as well */
	row->opened |= SPI_processed > 0;
}

/* Nobody needs an answer of that path any more. */
void
queue_unask(const pg_uuid_t *job, const char *path)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDOID, TEXTOID};
	Datum		values[] = {UUIDPGetDatum(job), CStringGetTextDatum(path)};

	run_plan(local_plan(&plan, unask_sql, 2, types), values, NULL);
}

/* Those jobs have ended: nobody needs an answer for them any more. */
void
queue_unask_jobs(const pg_uuid_t *jobs, int n)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDARRAYOID};
	Datum		values[1];

	if (n == 0)
		return;
	values[0] = upkeep_id_array(jobs, n);
	run_plan(local_plan(&plan, unask_jobs_sql, 1, types), values, NULL);
}

/*
 * Puts the stored answer of a path aside: it counts as a failure, which makes
 * room for another one.  try: its number among them.
 */
void
queue_refuse_answer(const pg_uuid_t *job, const char *path, int try,
					const char *why)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDOID, TEXTOID, INT4OID, TEXTOID};
	Datum		values[] = {
		UUIDPGetDatum(job), CStringGetTextDatum(path), Int32GetDatum(try),
		CStringGetTextDatum(why)
	};

	run_plan(local_plan(&plan, refuse_sql, 4, types), values, NULL);
}

/*
 * Tells who listens of new questions, by their ids alone, when the transaction
 * commits.  That takes a lock under which all of the cluster's notifications
 * are written one transaction after the other, and fails where the queue is
 * full of what some listener has not taken: write nothing else with it.
 */
void
queue_notify_questions(const pg_uuid_t *ids, int n)
{
	for (int i = 0; i < n; i++)
		Async_Notify("chaincall_question",
					 DatumGetCString(DirectFunctionCall1(uuid_out,
														 UUIDPGetDatum(&ids[i]))));
}
