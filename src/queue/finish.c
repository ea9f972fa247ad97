/*
 * finish.c
 *	  A caller is done with jobs: they have ended, or wait for a later time.
 *
 * Nobody else changes the row of a running job, but somebody may have locked
 * it (pg_dump does not, SELECT ... FOR UPDATE by a superuser does).  A locked
 * row is skipped and its end written at a later time, so that one person's
 * transaction holds up one job.
 *
 * A job that waits for answers may get one while it is being parked.  Who
 * stores an answer locks the job's row, skipping it where it is locked; here
 * it is locked by the UPDATE.  So either that one has committed, which the next
 * statement sees, or it will find the job waiting.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "chain/local.h"
#include "executor/spi.h"
#include "queue/queue.h"
#include "queue/upkeep.h"
#include "utils/array.h"
#include "utils/builtins.h"

/*
 * worker is set while a job runs, and only then.  IS NOT DISTINCT FROM keeps
 * the planner off the index on it, which leads to all jobs of this worker.
 */
static const char finish_sql[] =
"WITH mine AS MATERIALIZED ("
" SELECT e.id, e.state, e.output, e.error, e.run_at, e.waits_on, e.deadlines"
" FROM unnest($1, $2, $3, $4, $5, $7, $8) AS e(id, state, output, error, run_at, waits_on, deadlines),"
" LATERAL (SELECT FROM chaincall.job q WHERE q.id = e.id AND q.worker IS NOT DISTINCT FROM $6"
"   FOR UPDATE SKIP LOCKED) j)"
" UPDATE chaincall.job u SET state = m.state, output = m.output, error = m.error, worker = NULL,"
" waits_on = m.waits_on, deadlines = m.deadlines,"
" run_at = CASE WHEN m.state = 'waiting' THEN m.run_at ELSE u.run_at END,"
" finished_at = CASE WHEN m.state IN ('waiting', 'queued') THEN NULL ELSE pg_catalog.clock_timestamp() END"
" FROM mine m WHERE u.id = m.id RETURNING u.id";

/*
 * Parked jobs for which an answer has come: it is stored, or its question gone.
 * That they are waiting is not said: it would lead the planner to all that wait.
 * LIMIT makes it look path by path; EXISTS would read all questions.
 */
static const char answered_sql[] =
"UPDATE chaincall.job u SET state = 'queued', waits_on = NULL, run_at = pg_catalog.clock_timestamp()"
" FROM (SELECT DISTINCT a.job FROM unnest($1, $2) AS a(job, path)"
"  LEFT JOIN LATERAL (SELECT true AS open FROM chaincall.question q WHERE q.job = a.job AND q.path = a.path LIMIT 1) q ON true"
"  LEFT JOIN LATERAL (SELECT true AS stored FROM chaincall.span s WHERE s.job = a.job AND s.path = a.path AND s.try = 0 LIMIT 1) s ON true"
"  WHERE q.open IS NULL OR s.stored) m"
" WHERE u.id = m.job RETURNING u.id, u.rank";

static const char still_sql[] =
"SELECT q.id FROM pg_catalog.unnest($1) AS e(id), chaincall.job q"
" WHERE q.id = e.id AND q.worker IS NOT DISTINCT FROM $2";

static const char dead_sql[] =
"UPDATE chaincall.job SET deaths = deaths + $2 WHERE id = $1";

typedef struct Column
{
	Datum	   *values;
	bool	   *nulls;
} Column;

static Column
column_make(int n)
{
	Column		column = {palloc(n * sizeof(Datum)), palloc0(n * sizeof(bool))};

	return column;
}

static Datum
column_array(const Column *column, int n, Oid type, int16 len, bool byval,
			 char align)
{
	int			lower = 1;

	return PointerGetDatum(construct_md_array(column->values, column->nulls,
											  1, &n, &lower, type, len, byval,
											  align));
}

static void
column_set_json(Column *column, int i, Jsonb *value)
{
	column->nulls[i] = value == NULL;
	column->values[i] = JsonbPGetDatum(value);
}

static Datum
id_array(JobEnd **ends, int n)
{
	Column		ids = column_make(n);

	for (int i = 0; i < n; i++)
		ids.values[i] = UUIDPGetDatum(&ends[i]->job);
	return column_array(&ids, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR);
}

/* Sets a flag of the ends whose ids the last statement gave. */
static void
mark_ends(JobEnd **ends, int n, bool *(*flag) (JobEnd *end))
{
	SPITupleTable *table = SPI_tuptable;

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		pg_uuid_t  *id = DatumGetUUIDP(SPI_getbinval(table->vals[i],
													  table->tupdesc, 1,
													  &isnull));

		for (int k = 0; k < n; k++)
		{
			/* rows come in the order of the array, or nearly */
			int			at = (int) ((i + k) % n);

			if (memcmp(id, &ends[at]->job, UUID_LEN) == 0)
			{
				*flag(ends[at]) = true;
				break;
			}
		}
	}
	SPI_freetuptable(table);
}

static bool *
flag_done(JobEnd *end)
{
	return &end->done;
}

static bool *
flag_lost(JobEnd *end)
{
	return &end->lost;
}

/* Whose row is not locked, but no longer ours or no longer there? */
static void
find_lost(JobEnd **ends, int n, uint64 incarnation)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDARRAYOID, INT8OID};
	Datum		values[] = {id_array(ends, n), Int64GetDatum((int64) incarnation)};

	for (int i = 0; i < n; i++)
		ends[i]->lost = false;
	if (SPI_execute_plan(local_plan(&plan, still_sql, 2, types), values, NULL,
						 false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for jobs");
	/* those that are found are locked; the rest is lost */
	mark_ends(ends, n, flag_lost);
	for (int i = 0; i < n; i++)
		ends[i]->lost = !ends[i]->lost && !ends[i]->done;
}

/* A job that has ended because its executors died of it: they are counted. */
static void
add_deaths(const JobEnd *end)
{
	Oid			types[] = {UUIDOID, INT4OID};
	Datum		values[] = {UUIDPGetDatum(&end->job), Int32GetDatum(end->deaths)};

	if (SPI_execute_with_args(dead_sql, 2, types, values, NULL, false,
							  0) != SPI_OK_UPDATE ||
		SPI_processed != 1)
		elog(ERROR, "could not count deaths of a job");
}

/* What a person shall see of those that are written. */
static void
tell_failures(JobEnd **ends, int n)
{
	DeadLetter *letters = palloc(n * sizeof(DeadLetter));
	int			nletters = 0;

	for (int i = 0; i < n; i++)
	{
		if (!ends[i]->done || strcmp(ends[i]->state, "failed") != 0)
			continue;
		letters[nletters].job = ends[i]->job;
		letters[nletters++].input = ends[i]->input;
	}
	queue_dead_letters(letters, nletters);
}

/* Jobs that have ended need no answers. */
static void
drop_questions(JobEnd **ends, int n)
{
	pg_uuid_t  *jobs = palloc(n * sizeof(pg_uuid_t));
	int			njobs = 0;

	for (int i = 0; i < n; i++)
	{
		if (ends[i]->done && ends[i]->asked)
			jobs[njobs++] = ends[i]->job;
	}
	queue_unask_jobs(jobs, njobs);
	pfree(jobs);
}

static JobEnd *
end_of(JobEnd **ends, int n, const pg_uuid_t *job)
{
	for (int i = 0; i < n; i++)
	{
		if (memcmp(&ends[i]->job, job, UUID_LEN) == 0)
			return ends[i];
	}
	return NULL;
}

/* Those that wait for answers, one of which is there, are queued. */
static void
requeue_answered(JobEnd **ends, int n)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDARRAYOID, TEXTARRAYOID};
	Datum		values[2];
	Column		jobs;
	Column		paths;
	int			nasks = 0;
	int			at = 0;

	for (int i = 0; i < n; i++)
		nasks += ends[i]->done ? ends[i]->nasks : 0;
	if (nasks == 0)
		return;
	jobs = column_make(nasks);
	paths = column_make(nasks);
	for (int i = 0; i < n; i++)
	{
		for (int k = 0; ends[i]->done && k < ends[i]->nasks; k++)
		{
			jobs.values[at] = UUIDPGetDatum(&ends[i]->job);
			paths.values[at++] = CStringGetTextDatum(ends[i]->asks[k]);
		}
	}
	values[0] = column_array(&jobs, nasks, UUIDOID, UUID_LEN, false,
							 TYPALIGN_CHAR);
	values[1] = column_array(&paths, nasks, TEXTOID, -1, false, TYPALIGN_INT);
	if (SPI_execute_plan(local_plan(&plan, answered_sql, 2, types), values,
						 NULL, false, 0) != SPI_OK_UPDATE_RETURNING)
		elog(ERROR, "could not look for answers");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		JobEnd	   *end = end_of(ends, n,
								 DatumGetUUIDP(upkeep_column(i, 1, &isnull)));

		if (end == NULL)
			continue;
		end->requeued = true;
		end->rank = DatumGetTimestampTz(upkeep_column(i, 2, &isnull));
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * Writes the ends of jobs that the incarnation owns, in a transaction of
 * queue_begin().  Sets done of those that were written, lost of those that
 * are not ours any more; the others are locked by somebody: try again later.
 * Each that has failed has its alert in the same transaction.
 */
void
queue_finish(JobEnd **ends, int n, uint64 incarnation)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {
		UUIDARRAYOID, TEXTARRAYOID, JSONBARRAYOID, JSONBARRAYOID,
		TIMESTAMPTZARRAYOID, INT8OID, TEXTARRAYOID, JSONBARRAYOID
	};
	Datum		values[8];
	Column		states = column_make(n);
	Column		outputs = column_make(n);
	Column		errors = column_make(n);
	Column		times = column_make(n);
	Column		waits = column_make(n);
	Column		deadlines = column_make(n);

	for (int i = 0; i < n; i++)
	{
		ends[i]->done = ends[i]->lost = ends[i]->requeued = false;
		states.values[i] = CStringGetTextDatum(ends[i]->state);
		column_set_json(&outputs, i, ends[i]->output);
		column_set_json(&errors, i, ends[i]->error);
		times.nulls[i] = ends[i]->run_at == 0;
		times.values[i] = TimestampTzGetDatum(ends[i]->run_at);
		waits.nulls[i] = ends[i]->waits_on == NULL;
		if (ends[i]->waits_on)
			waits.values[i] = CStringGetTextDatum(ends[i]->waits_on);
		column_set_json(&deadlines, i, ends[i]->deadlines);
	}
	values[0] = id_array(ends, n);
	values[1] = column_array(&states, n, TEXTOID, -1, false, TYPALIGN_INT);
	values[2] = column_array(&outputs, n, JSONBOID, -1, false, TYPALIGN_INT);
	values[3] = column_array(&errors, n, JSONBOID, -1, false, TYPALIGN_INT);
	values[4] = column_array(&times, n, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL,
							 TYPALIGN_DOUBLE);
	values[5] = Int64GetDatum((int64) incarnation);
	values[6] = column_array(&waits, n, TEXTOID, -1, false, TYPALIGN_INT);
	values[7] = column_array(&deadlines, n, JSONBOID, -1, false, TYPALIGN_INT);
	if (SPI_execute_plan(local_plan(&plan, finish_sql, 8, types), values, NULL,
						 false, 0) != SPI_OK_UPDATE_RETURNING)
		elog(ERROR, "could not finish jobs");
	if (SPI_processed < (uint64) n)
	{
		mark_ends(ends, n, flag_done);
		find_lost(ends, n, incarnation);
	}
	else
	{
		SPI_freetuptable(SPI_tuptable);
		for (int i = 0; i < n; i++)
			ends[i]->done = true;
	}
	for (int i = 0; i < n; i++)
	{
		if (ends[i]->done && ends[i]->deaths > 0)
			add_deaths(ends[i]);
	}
	drop_questions(ends, n);
	requeue_answered(ends, n);
	tell_failures(ends, n);
}
