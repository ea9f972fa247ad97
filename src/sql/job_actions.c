/*
 * job_actions.c
 *	  What people ask of jobs: cancel(), retry(), resolve(), discard(),
 *	  acknowledge().
 *
 * Each inserts a row into chaincall.action, as anybody could write by hand,
 * with the caller's own privileges and under row security; the trigger checks
 * its shape, a worker applies it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "chain/local.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "sql/job.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(chaincall_cancel);
PG_FUNCTION_INFO_V1(chaincall_retry);
PG_FUNCTION_INFO_V1(chaincall_resolve);
PG_FUNCTION_INFO_V1(chaincall_discard);
PG_FUNCTION_INFO_V1(chaincall_acknowledge);

/* Parameters of the statement. */
enum
{
	ASK_ACTION,
	ASK_JOB,
	ASK_STEP,
	ASK_INPUT,
	ASK_OUTPUT,
	ASK_ALERT,
	ASK_PARAMS
};

static const char ask_sql[] =
"INSERT INTO chaincall.action (action, job, step, input, output, alert)"
" VALUES ($1, $2, $3, $4, $5, $6) RETURNING id";

/*
 * Stores an action, SPI being connected, and gives its id, palloc'd.  values
 * and nulls have ASK_PARAMS entries; the first is filled in.
 */
static pg_uuid_t *
ask(const char *action, Datum *values, char *nulls, MemoryContext cxt)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[ASK_PARAMS] = {
		TEXTOID, UUIDOID, TEXTOID, JSONBOID, JSONBOID, UUIDOID
	};
	pg_uuid_t  *id = MemoryContextAlloc(cxt, sizeof(pg_uuid_t));
	bool		isnull;

	values[ASK_ACTION] = CStringGetTextDatum(action);
	nulls[ASK_ACTION] = ' ';
	if (SPI_execute_plan(local_plan(&plan, ask_sql, ASK_PARAMS, types), values,
						 nulls, false, 0) != SPI_OK_INSERT_RETURNING ||
		SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the action was not stored"),
				 errdetail("With session_replication_role = replica rows are taken for another node's."),
				 errhint("RESET session_replication_role.")));
	*id = *DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 1, &isnull));
	return id;
}

/* An action whose parameters are the function's arguments, in that order. */
static Datum
ask_with(FunctionCallInfo fcinfo, const char *action, const int *params)
{
	MemoryContext cxt = CurrentMemoryContext;
	Datum		values[ASK_PARAMS] = {0};
	char		nulls[ASK_PARAMS];
	pg_uuid_t  *id;

	memset(nulls, 'n', sizeof(nulls));
	for (int i = 0; i < PG_NARGS(); i++)
	{
		values[params[i]] = PG_ARGISNULL(i) ? (Datum) 0 : PG_GETARG_DATUM(i);
		nulls[params[i]] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	id = ask(action, values, nulls, cxt);
	SPI_finish();
	PG_RETURN_UUID_P(id);
}

static void
require(FunctionCallInfo fcinfo, int arg, const char *name)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" is null", name),
				 errhint("Give a value; JSON's null is 'null'.")));
}

/*
 * replace: a newer input, whole, for the job that has the dedupe_key of that
 * one; asked for by submit().  SPI is connected.
 */
void
job_ask_replace(const pg_uuid_t *job, Jsonb *input)
{
	Datum		values[ASK_PARAMS] = {0};
	char		nulls[ASK_PARAMS];

	memset(nulls, 'n', sizeof(nulls));
	values[ASK_JOB] = UUIDPGetDatum(job);
	values[ASK_INPUT] = JsonbPGetDatum(input);
	nulls[ASK_JOB] = nulls[ASK_INPUT] = ' ';
	(void) ask("replace", values, nulls, CurrentMemoryContext);
}

/* cancel(job) → uuid of the action */
Datum
chaincall_cancel(PG_FUNCTION_ARGS)
{
	static const int params[] = {ASK_JOB};

	return ask_with(fcinfo, "cancel", params);
}

/* retry(job), retry(job, step, input) → uuid of the action */
Datum
chaincall_retry(PG_FUNCTION_ARGS)
{
	static const int params[] = {ASK_JOB, ASK_STEP, ASK_INPUT};

	if (PG_NARGS() > 1)
	{
		require(fcinfo, 0, "job");
		require(fcinfo, 1, "step");
		require(fcinfo, 2, "input");
	}
	return ask_with(fcinfo, "retry", params);
}

/* resolve(job, step, output) → uuid of the action */
Datum
chaincall_resolve(PG_FUNCTION_ARGS)
{
	static const int params[] = {ASK_JOB, ASK_STEP, ASK_OUTPUT};

	require(fcinfo, 0, "job");
	require(fcinfo, 1, "step");
	require(fcinfo, 2, "output");
	return ask_with(fcinfo, "resolve", params);
}

/* discard(job) → uuid of the action */
Datum
chaincall_discard(PG_FUNCTION_ARGS)
{
	static const int params[] = {ASK_JOB};

	return ask_with(fcinfo, "discard", params);
}

/* acknowledge(alert) → uuid of the action */
Datum
chaincall_acknowledge(PG_FUNCTION_ARGS)
{
	static const int params[] = {ASK_ALERT};

	return ask_with(fcinfo, "acknowledge", params);
}
