/*
 * job_calls.c
 *	  submit() and result(): how people give jobs and get what came of them.
 *
 * Both are what anybody could write by hand, run with the caller's own
 * privileges and under row security.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "base/compat.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/shared.h"
#include "catalog/pg_type.h"
#include "chain/pin.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "queue/board.h"
#include "sql/job.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* A worker may die between its commit and the word of it. */
#define LOOK_AGAIN_MS 30000
/* Where there is no room to wait properly. */
#define POLL_MS 200

PG_FUNCTION_INFO_V1(chaincall_submit);
PG_FUNCTION_INFO_V1(chaincall_result);

static void
connect_spi(void)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
}

/* Prepares once a session. */
static SPIPlanPtr
kept_plan(SPIPlanPtr *kept, const char *sql, int nargs, Oid *types)
{
	if (*kept == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(sql, nargs, types);

		if (plan == NULL)
			elog(ERROR, "could not prepare a statement: %s",
				 SPI_result_code_string(SPI_result));
		(void) SPI_keepplan(plan);
		*kept = plan;
	}
	return *kept;
}

static void
execute(SPIPlanPtr plan, Datum *values, const char *nulls, int expected)
{
	int			result = SPI_execute_plan(plan, values, nulls, false, 0);

	if (result != expected)
		elog(ERROR, "a statement on jobs failed: %s",
			 SPI_result_code_string(result));
}

/* The uuid in the first column of the first row; false when there is none. */
static bool
first_uuid(pg_uuid_t *id)
{
	bool		isnull;
	Datum		datum;

	if (SPI_processed == 0)
		return false;
	datum = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						  &isnull);
	if (isnull)
		return false;
	*id = *DatumGetUUIDP(datum);
	return true;
}

static Datum
uuid_datum(const pg_uuid_t *id)
{
	pg_uuid_t  *copy = palloc(sizeof(pg_uuid_t));

	*copy = *id;
	return UUIDPGetDatum(copy);
}

/* ---- submit ---- */

enum
{
	SUBMIT_CHAIN,
	SUBMIT_INPUT,
	SUBMIT_DEDUPE_KEY = 5,
	SUBMIT_COLUMNS = 8,			/* the arguments before are columns */
	SUBMIT_DEDUPE = SUBMIT_COLUMNS
};

static bool
insert_job(FunctionCallInfo fcinfo, bool skip, pg_uuid_t *id)
{
	static SPIPlanPtr plain = NULL;
	static SPIPlanPtr skipping = NULL;
	static const char *const sql =
		"INSERT INTO chaincall.job (chain, input, priority, run_at, expires_at, dedupe_key, labels, traceparent) "
		"VALUES ($1, $2, $3, $4, $5, $6, $7, $8)%s RETURNING id";
	Oid			types[SUBMIT_COLUMNS] = {
		TEXTOID, JSONBOID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID,
		JSONBOID, TEXTOID
	};
	Datum		values[SUBMIT_COLUMNS];
	char		nulls[SUBMIT_COLUMNS];

	for (int i = 0; i < SUBMIT_COLUMNS; i++)
	{
		values[i] = PG_ARGISNULL(i) ? (Datum) 0 : PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	execute(kept_plan(skip ? &skipping : &plain,
					  psprintf(sql, skip ? " ON CONFLICT DO NOTHING" : ""),
					  SUBMIT_COLUMNS, types),
			values, nulls, SPI_OK_INSERT_RETURNING);
	return first_uuid(id);
}

/* The job not yet started that has the key. */
static bool
find_duplicate(FunctionCallInfo fcinfo, pg_uuid_t *id)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {OIDOID, TEXTOID, TEXTOID};
	PinMade    *made = pin_make(chain_find(TextDatumGetCString(PG_GETARG_DATUM(SUBMIT_CHAIN))));
	Datum		values[] = {
		ObjectIdGetDatum(GetUserId()), CStringGetTextDatum(made->signature),
		PG_GETARG_DATUM(SUBMIT_DEDUPE_KEY)
	};

	execute(kept_plan(&plan,
					  "SELECT id FROM chaincall.job"
					  " WHERE owner OPERATOR(pg_catalog.=) $1 AND chain OPERATOR(pg_catalog.=) $2"
					  " AND dedupe_key OPERATOR(pg_catalog.=) $3 AND started_at IS NULL"
					  " AND state OPERATOR(pg_catalog.=) ANY (ARRAY['queued', 'waiting']::pg_catalog.text[])",
					  lengthof(types), types),
			values, NULL, SPI_OK_SELECT);
	return first_uuid(id);
}

/* What submit() does about a job not yet started that has the same key. */
typedef enum Dedupe
{
	DEDUPE_REFUSE,
	DEDUPE_SKIP,
	DEDUPE_REPLACE
} Dedupe;

static Dedupe
read_dedupe(FunctionCallInfo fcinfo)
{
	char	   *dedupe;

	if (PG_ARGISNULL(SUBMIT_DEDUPE))
		return DEDUPE_REFUSE;
	dedupe = text_to_cstring(PG_GETARG_TEXT_PP(SUBMIT_DEDUPE));
	if (strcmp(dedupe, "skip") != 0 && strcmp(dedupe, "replace") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown value of dedupe: \"%.*s\"",
						pg_mbcliplen(dedupe, strlen(dedupe), NAMEDATALEN), dedupe),
				 errhint("Known are skip and replace.")));
	if (PG_ARGISNULL(SUBMIT_DEDUPE_KEY))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("dedupe without a dedupe_key"),
				 errhint("Say by dedupe_key which jobs are the same.")));
	return strcmp(dedupe, "skip") == 0 ? DEDUPE_SKIP : DEDUPE_REPLACE;
}

/* The job that is there shall have the input. */
static void
replace_input(FunctionCallInfo fcinfo, const pg_uuid_t *job)
{
	Oid			function = chain_find(TextDatumGetCString(PG_GETARG_DATUM(SUBMIT_CHAIN)));
	Jsonb	   *input = PG_ARGISNULL(SUBMIT_INPUT) ? json_parse("{}") :
		PG_GETARG_JSONB_P(SUBMIT_INPUT);

	job_ask_replace(job, pin_normalise(function, input));
}

/*
 * submit(chain, input, priority, run_at, expires_at, dedupe_key, labels,
 * traceparent, dedupe) → uuid: the new job's, or that of the one already there,
 * which with replace is given the new input unless it starts before
 */
Datum
chaincall_submit(PG_FUNCTION_ARGS)
{
	Dedupe		dedupe = read_dedupe(fcinfo);
	bool		skip = dedupe != DEDUPE_REFUSE;
	bool		inserted;
	pg_uuid_t	id;

	connect_spi();
	/* the one that is there may start while we look for it */
	while (!(inserted = insert_job(fcinfo, skip, &id)) &&
		   !(skip && find_duplicate(fcinfo, &id)))
	{
		if (job_is_replicated())
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the job was not stored"),
					 errdetail("With session_replication_role = replica rows are taken for another node's."),
					 errhint("RESET session_replication_role.")));
		if (!skip)
			elog(ERROR, "the job was not stored");
		if (IsolationUsesXactSnapshot())
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not serialize access due to a concurrent job with the same dedupe_key"),
					 errhint("Try the transaction again.")));
		CHECK_FOR_INTERRUPTS();
	}
	if (!inserted && dedupe == DEDUPE_REPLACE)
		replace_input(fcinfo, &id);
	SPI_finish();
	PG_RETURN_DATUM(uuid_datum(&id));
}

/* ---- result ---- */

typedef struct JobState
{
	char	   *state;			/* NULL: no such job */
	Jsonb	   *output;
	Jsonb	   *error;
	char	   *waits_on;
	bool		own;			/* this transaction inserted it */
	bool		asked;			/* of a failed one: somebody wants it to go on */
} JobState;

/* A column of the row that SPI has found, copied out of it; NULL for null. */
static Jsonb *
json_column(MemoryContext cxt, int column)
{
	bool		isnull;
	Datum		datum = SPI_getbinval(SPI_tuptable->vals[0],
									  SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? NULL : json_copy(cxt, DatumGetJsonbP(datum));
}

/* The job as a fresh snapshot shows it to the caller. */
static JobState
read_job(const pg_uuid_t *id)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext cxt = CurrentMemoryContext;
	Oid			types[] = {UUIDOID};
	Datum		values[] = {UUIDPGetDatum(id)};
	JobState	job = {NULL};

	connect_spi();
	execute(kept_plan(&plan,
					  "SELECT j.state, j.output, j.error, j.xmin, j.waits_on, CASE WHEN j.state OPERATOR(pg_catalog.=) 'failed' THEN EXISTS ("
					  " SELECT FROM chaincall.action a WHERE a.job OPERATOR(pg_catalog.=) $1 AND a.state OPERATOR(pg_catalog.=) 'pending'"
					  " AND a.action OPERATOR(pg_catalog.=) ANY (ARRAY['retry', 'resolve', 'discard']::pg_catalog.text[])) ELSE false END"
					  " FROM chaincall.job j WHERE j.id OPERATOR(pg_catalog.=) $1",
					  lengthof(types), types),
			values, NULL, SPI_OK_SELECT);
	if (SPI_processed > 0)
	{
		bool		isnull;
		Datum		xmin = SPI_getbinval(SPI_tuptable->vals[0],
										 SPI_tuptable->tupdesc, 4, &isnull);

		job.state = MemoryContextStrdup(cxt,
										SPI_getvalue(SPI_tuptable->vals[0],
													 SPI_tuptable->tupdesc, 1));
		job.waits_on = SPI_getvalue(SPI_tuptable->vals[0],
									SPI_tuptable->tupdesc, 5);
		if (job.waits_on != NULL)
			job.waits_on = MemoryContextStrdup(cxt, job.waits_on);
		job.asked = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0],
											   SPI_tuptable->tupdesc, 6,
											   &isnull));
		job.output = json_column(cxt, 2);
		job.error = json_column(cxt, 3);
		job.own = !isnull &&
			TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin));
	}
	SPI_finish();
	return job;
}

static char *
error_field(const Jsonb *error, const char *name)
{
	JsonbValue	v;

	if (error == NULL || !JB_ROOT_IS_OBJECT(error) ||
		!json_get(error, name, &v) || v.type != jbvString)
		return NULL;
	return pnstrdup(v.val.string.val, v.val.string.len);
}

/* That of the job's error; one that a caller can catch and that is an error. */
static int
error_sqlstate(const Jsonb *error)
{
	char	   *state = error_field(error, "sqlstate");
	int			code;

	if (state == NULL || strlen(state) != 5 ||
		strspn(state, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") != 5)
		return ERRCODE_INTERNAL_ERROR;
	code = MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]);
	if (code == ERRCODE_QUERY_CANCELED)
		return ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	if (ERRCODE_TO_CATEGORY(code) == ERRCODE_SUCCESSFUL_COMPLETION ||
		ERRCODE_TO_CATEGORY(code) == ERRCODE_WARNING ||
		ERRCODE_TO_CATEGORY(code) == ERRCODE_NO_DATA)
		return ERRCODE_INTERNAL_ERROR;
	return code;
}

/* Raises the error that ended the job, as a chain in a session would have. */
static void
raise_failure(const pg_uuid_t *id, const Jsonb *error)
{
	char	   *message = error_field(error, "message");
	char	   *detail = error_field(error, "detail");
	char	   *hint = error_field(error, "hint");
	char	   *step = error_field(error, "step");

	ereport(ERROR,
			(errcode(error_sqlstate(error)),
			 step ? errmsg_internal("step %s: %s", step,
									message ? message : "failed") :
			 errmsg_internal("%s", message ? message : "the job failed"),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0,
			 errcontext("job %s", ids_uuid_text(id))));
}

/* True when the job has succeeded; raises when it has ended otherwise. */
static bool
has_succeeded(const pg_uuid_t *id, const JobState *job)
{
	if (job->state == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("job %s does not exist", ids_uuid_text(id)),
				 errhint("It was never committed, was thrown away since, or belongs to another role.")));
	if (strcmp(job->state, "succeeded") == 0)
		return true;
	/* what was asked of it before is seen to first */
	if (strcmp(job->state, "failed") == 0 && !job->asked)
		raise_failure(id, job->error);
	if (strcmp(job->state, "cancelled") == 0 ||
		strcmp(job->state, "expired") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg(job->state[0] == 'c' ? "job %s was cancelled" :
						"job %s has expired", ids_uuid_text(id)),
				 errhint("Enqueue it again.")));
	return false;
}

/* Raises when waiting cannot end. */
static void
check_waiting(const pg_uuid_t *id, const JobState *job)
{
	if (job->own)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("job %s was enqueued by this transaction",
						ids_uuid_text(id)),
				 errdetail("It starts when the transaction has committed."),
				 errhint("Commit, then ask for the result.")));
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the end of job %s cannot be waited for in this transaction",
						ids_uuid_text(id)),
				 errdetail("Its isolation level never shows what was committed since it began."),
				 errhint("Use READ COMMITTED.")));
}

/* When to stop waiting: DT_NOEND for never. */
static TimestampTz
wait_until(const Interval *timeout)
{
	TimestampTz until;

	if (timeout == NULL || compat_interval_infinity(timeout) != NULL)
		return DT_NOEND;
	until = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													TimestampTzGetDatum(GetCurrentTimestamp()),
													IntervalPGetDatum(timeout)));
	return until;
}

static void
wait_for_word(bool told, TimestampTz until)
{
	static uint32 event = 0;
	long		ms = told ? LOOK_AGAIN_MS : POLL_MS;

	if (event == 0)
		event = compat_wait_event("ChaincallResult");
	if (until != DT_NOEND)
		ms = Min(ms, TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
													 until) + 1);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 ms, event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* What an unfinished job waits for, in words. */
static char *
describe_waiting(const JobState *job)
{
	if (strcmp(job->state, "waiting") == 0 && job->waits_on != NULL)
		return strcmp(job->waits_on, "answer") == 0 ?
			"It is waiting for an answer." :
			psprintf("It is waiting for %s to be resumed.", job->waits_on);
	return psprintf("It is %s.", job->state);
}

/* The time that the caller gives is over. */
static void
raise_late(const pg_uuid_t *id, const JobState *job)
{
	bool		alone = !RecoveryInProgress() &&
		worker_count(WORKER_CALLER, MyDatabaseId, InvalidOid) == 0;

	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_TIMEOUT),
			 errmsg("job %s has not ended yet", ids_uuid_text(id)),
			 errdetail_internal("%s", describe_waiting(job)),
			 alone ?
			 errhint("No worker runs jobs in this database: look at chaincall.workers and max_worker_processes, and into the server's log.") :
			 errhint("Give more time, or ask again later; the job goes on.")));
}

static Jsonb *
wait_for_output(const pg_uuid_t *id, const Interval *timeout)
{
	TimestampTz until = wait_until(timeout);

	/* a standby gets no word of what the primary's workers do */
	bool		told = !RecoveryInProgress() && waiter_begin(id);

	for (;;)
	{
		JobState	job = read_job(id);

		if (has_succeeded(id, &job))
			return job.output ? job.output : json_null();
		check_waiting(id, &job);
		if (GetCurrentTimestamp() >= until)
			raise_late(id, &job);
		wait_for_word(told, until);
	}
}

/* result(job, timeout) → jsonb: waits until the job has ended */
Datum
chaincall_result(PG_FUNCTION_ARGS)
{
	pg_uuid_t	id;
	Interval   *timeout = PG_ARGISNULL(1) ? NULL : PG_GETARG_INTERVAL_P(1);
	Jsonb	   *volatile output = NULL;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	shared_require("the result of a job");
	id = *PG_GETARG_UUID_P(0);
	PG_TRY();
	{
		output = wait_for_output(&id, timeout);
	}
	PG_FINALLY();
	{
		waiter_end();
	}
	PG_END_TRY();
	PG_RETURN_JSONB_P(output);
}
