/*
 * job.c
 *	  Triggers of the table job: what a job is when it is inserted.
 *
 * The first is BEFORE INSERT.  It also reserves the job in the board, save for
 * rows with a dedupe_key: those alone can meet ON CONFLICT DO NOTHING after the
 * trigger has run, so they are reserved by a trigger AFTER INSERT, which fires
 * only for rows that are there.  All others go without one, which would cost a
 * million rows a queue of a million events.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/settings.h"
#include "base/shared.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "queue/board.h"
#include "sql/job.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#define MAX_DEDUPE_KEY 1000		/* bytes; it goes into an index */

PG_FUNCTION_INFO_V1(chaincall_job_insert);
PG_FUNCTION_INFO_V1(chaincall_job_inserted);

/* Columns in their order; see sql/parts/60_jobs.sql. */
enum
{
	JOB_ID,
	JOB_CHAIN,
	JOB_DEFINITION,
	JOB_INPUT,
	JOB_STATE,
	JOB_OUTPUT,
	JOB_ERROR,
	JOB_PRIORITY,
	JOB_RUN_AT,
	JOB_RANK,
	JOB_EXPIRES_AT,
	JOB_DEDUPE_KEY,
	JOB_LABELS,
	JOB_OWNER,
	JOB_TRACEPARENT,
	JOB_WORKER,
	JOB_DEATHS,
	JOB_CREATED_AT,
	JOB_STARTED_AT,
	JOB_FINISHED_AT,
	JOB_WAITS_ON,
	JOB_DEADLINES,
	JOB_RETRIED_AT,
	JOB_COLUMNS
};

static const char *const job_columns[] = {
	"id", "chain", "definition", "input", "state", "output", "error",
	"priority", "run_at", "rank", "expires_at", "dedupe_key", "labels",
	"owner", "traceparent", "worker", "deaths", "created_at", "started_at",
	"finished_at", "waits_on", "deadlines", "retried_at"
};

/* A row under the trigger's hands. */
typedef struct JobRow
{
	Datum		values[JOB_COLUMNS];
	bool		nulls[JOB_COLUMNS];
	Oid			owner;
} JobRow;

/* ---- which chain ---- */

/* The last chain that was looked for: an INSERT of many rows names one. */
typedef struct FoundChain
{
	char	   *name;			/* in TopMemoryContext */
	int			len;
	Oid			function;
	uint64		generation;
	Oid			role;
	char	   *search_path;	/* in TopMemoryContext */
} FoundChain;

static FoundChain found_chain = {NULL};

static bool
is_found_chain(const char *name, int len)
{
	return found_chain.name != NULL &&
		found_chain.len == len &&
		memcmp(found_chain.name, name, len) == 0 &&
		found_chain.generation == definition_generation() &&
		found_chain.role == GetUserId() &&
		strcmp(found_chain.search_path, namespace_search_path) == 0;
}

static void
remember_chain(const char *name, int len, Oid function, uint64 generation)
{
	char	   *kept = MemoryContextAlloc(TopMemoryContext, len + 1);
	char	   *path = MemoryContextStrdup(TopMemoryContext,
										   namespace_search_path);

	if (found_chain.name != NULL)
	{
		pfree(found_chain.name);
		pfree(found_chain.search_path);
	}
	memcpy(kept, name, len);
	kept[len] = '\0';
	found_chain.name = kept;
	found_chain.len = len;
	found_chain.function = function;
	found_chain.generation = generation;
	found_chain.role = GetUserId();
	found_chain.search_path = path;
}

static Oid
find_chain(const text *chain)
{
	const char *name = VARDATA_ANY(chain);
	int			len = VARSIZE_ANY_EXHDR(chain);
	uint64		generation;
	Oid			function;

	if (is_found_chain(name, len))
		return found_chain.function;
	generation = definition_generation();
	function = chain_find(pnstrdup(name, len));
	remember_chain(name, len, function, generation);
	return function;
}

static void
set_value(JobRow *row, int column, Datum value)
{
	row->values[column] = value;
	row->nulls[column] = false;
}

/* An executor connects as the owner, which not every server lets it. */
static void
check_login(Oid owner)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(owner));
	bool		can_login = false;

	if (HeapTupleIsValid(tuple))
	{
		can_login = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
		ReleaseSysCache(tuple);
	}
	if (!can_login)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("role \"%s\" cannot run statements in jobs",
						GetUserNameFromId(owner, false)),
				 errdetail("The chain has sql or function steps, or types, for which a worker must connect as the job's owner, a role without LOGIN."),
				 errhint("ALTER ROLE ... LOGIN (a password is not needed), enqueue the job as another role, or use PostgreSQL 17 or later.")));
}

static void
set_definition(JobRow *row, PinMade *made)
{
	bytea	   *sha256 = (bytea *) palloc(VARHDRSZ + PIN_HASH_LEN);

	SET_VARSIZE(sha256, VARHDRSZ + PIN_HASH_LEN);
	memcpy(VARDATA(sha256), made->sha256, PIN_HASH_LEN);
	set_value(row, JOB_DEFINITION, PointerGetDatum(sha256));
	set_value(row, JOB_CHAIN, CStringGetTextDatum(made->signature));
	job_store_definition(made);
}

/* The chain by the session's search_path, its closure and the whole input. */
static void
pin_row(JobRow *row)
{
	Oid			function;
	PinMade    *made;
	Jsonb	   *input;

	if (row->nulls[JOB_CHAIN])
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("a job needs a chain"),
				 errhint("Name a function in LANGUAGE chaincall in the column \"chain\".")));
	function = find_chain(DatumGetTextPP(row->values[JOB_CHAIN]));
	made = pin_make(function);
	if (COMPAT_WORKERS_NEED_LOGIN && made->needs_executor)
		check_login(row->owner);
	set_definition(row, made);

	/* may run a user's code, after which the closure may be gone */
	input = row->nulls[JOB_INPUT] ? json_parse("{}") :
		DatumGetJsonbP(row->values[JOB_INPUT]);
	set_value(row, JOB_INPUT, JsonbPGetDatum(pin_normalise(function, input)));
}

/* ---- when ---- */

static void
set_times(JobRow *row)
{
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	TimestampTz run_at = row->nulls[JOB_RUN_AT] ? now :
		DatumGetTimestampTz(row->values[JOB_RUN_AT]);
	bool		future = run_at > now && run_at > GetCurrentTimestamp();

	if (TIMESTAMP_NOT_FINITE(run_at))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("run_at of a job is infinite"),
				 errhint("Give a time, or leave it out: the job runs as soon as may be.")));
	if (row->nulls[JOB_PRIORITY])
		set_value(row, JOB_PRIORITY, Int32GetDatum(0));
	if (!row->nulls[JOB_EXPIRES_AT] &&
		DatumGetTimestampTz(row->values[JOB_EXPIRES_AT]) <= Max(run_at, now))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a job cannot expire before it may run"),
				 errdetail("It may run from %s on, and would expire at %s.",
						   timestamptz_to_str(Max(run_at, now)),
						   pstrdup(timestamptz_to_str(DatumGetTimestampTz(row->values[JOB_EXPIRES_AT])))),
				 errhint("Give a later expires_at, or leave it out.")));
	set_value(row, JOB_CREATED_AT, TimestampTzGetDatum(now));
	set_value(row, JOB_RUN_AT, TimestampTzGetDatum(run_at));
	set_value(row, JOB_RANK,
			  TimestampTzGetDatum(board_rank(run_at,
											 DatumGetInt32(row->values[JOB_PRIORITY]))));
	set_value(row, JOB_STATE,
			  CStringGetTextDatum(future ? "waiting" : "queued"));
}

/* A job that says nothing of its end lives as long as its chain's jobs do. */
static void
set_default_ttl(JobRow *row)
{
	const Interval *ttl;

	if (!row->nulls[JOB_EXPIRES_AT])
		return;
	ttl = catalog_chain_ttl(TextDatumGetCString(row->values[JOB_CHAIN]));
	if (ttl != NULL)
		set_value(row, JOB_EXPIRES_AT,
				  DirectFunctionCall2(timestamptz_pl_interval,
									  row->values[JOB_RUN_AT],
									  PointerGetDatum(ttl)));
}

/* ---- labels, keys, trace context ---- */

static bool
is_hex(const char *s, int len, bool *zero)
{
	*zero = true;
	for (int i = 0; i < len; i++)
	{
		if (!((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f')))
			return false;
		*zero = *zero && s[i] == '0';
	}
	return true;
}

/* W3C Trace Context, 3.2: version-traceid-parentid-flags in lower-case hex. */
static bool
is_traceparent(const char *s, int len)
{
	bool		zero;

	if (len < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-')
		return false;
	if (!is_hex(s, 2, &zero) || strncmp(s, "ff", 2) == 0)
		return false;
	/* later versions may append more */
	if (len > 55 && (zero || s[55] != '-'))
		return false;
	return is_hex(s + 3, 32, &zero) && !zero &&
		is_hex(s + 36, 16, &zero) && !zero && is_hex(s + 53, 2, &zero);
}

static void
check_traceparent(const JobRow *row)
{
	text	   *value;

	if (row->nulls[JOB_TRACEPARENT])
		return;
	value = DatumGetTextPP(row->values[JOB_TRACEPARENT]);
	if (VARSIZE_ANY_EXHDR(value) > 512 ||
		!is_traceparent(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid traceparent of a job"),
				 errhint("Write it as W3C Trace Context does: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.")));
}

static void
check_labels(JobRow *row)
{
	Jsonb	   *labels;

	if (row->nulls[JOB_LABELS])
	{
		set_value(row, JOB_LABELS, JsonbPGetDatum(json_parse("{}")));
		return;
	}
	labels = DatumGetJsonbP(row->values[JOB_LABELS]);
	if (!JB_ROOT_IS_OBJECT(labels))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("labels of a job must be an object, not %s",
						json_type_name(labels)),
				 errhint("Write '{\"customer\": 7}'.")));
	if (VARSIZE(labels) > setting_max_input_kb * UINT64CONST(1024))
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_LIMIT),
				 errmsg("labels of a job are too large"),
				 errhint("Labels are for finding jobs; put data into the input.")));
}

static void
check_dedupe_key(const JobRow *row)
{
	if (!row->nulls[JOB_DEDUPE_KEY] &&
		VARSIZE_ANY_EXHDR(DatumGetTextPP(row->values[JOB_DEDUPE_KEY])) >
		MAX_DEDUPE_KEY)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_LIMIT),
				 errmsg("dedupe_key of a job is too long"),
				 errdetail("At most %d bytes are allowed.", MAX_DEDUPE_KEY),
				 errhint("Use a hash of it.")));
}

/* ---- the board ---- */

/* Counts the job against its owner's limit and has it told of at commit. */
static void
put_on_board(Oid owner, bool queued, TimestampTz rank, TimestampTz run_at)
{
	board_reserve(owner);
	if (queued)
		board_announce(owner, rank);
	else
		board_announce_due(run_at);
}

static bool
is_queued(Datum state)
{
	text	   *t = DatumGetTextPP(state);

	return VARSIZE_ANY_EXHDR(t) == strlen("queued");
}

/* ---- job ---- */

static void
clear_worker_columns(JobRow *row)
{
	static const int columns[] = {
		JOB_OUTPUT, JOB_ERROR, JOB_WORKER, JOB_STARTED_AT, JOB_FINISHED_AT,
		JOB_WAITS_ON, JOB_DEADLINES, JOB_RETRIED_AT
	};

	for (int i = 0; i < (int) lengthof(columns); i++)
		row->nulls[columns[i]] = true;
	set_value(row, JOB_DEATHS, Int32GetDatum(0));
}

/*
 * Is it the maintainer that inserts a job in the place of one that has
 * started?  It says itself whose it is and what it is pinned to.
 */
static bool
is_maintainer(void)
{
	return my_worker != NULL && my_worker->kind == WORKER_MAINTAINER;
}

/* BEFORE INSERT ON job: makes of what a user may give a whole job. */
Datum
chaincall_job_insert(PG_FUNCTION_ARGS)
{
	static Oid	checked = InvalidOid;
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	JobRow		row = {.owner = GetUserId()};
	bool		pinned = is_maintainer();
	pg_uuid_t	id;

	job_check_event(fcinfo, true);
	if (job_is_replicated())
		return PointerGetDatum(NULL);
	shared_require("a job");
	job_check_columns(trigger->tg_relation, job_columns, JOB_COLUMNS, &checked);
	desc = RelationGetDescr(trigger->tg_relation);
	heap_deform_tuple(trigger->tg_trigtuple, desc, row.values, row.nulls);

	clear_worker_columns(&row);
	if (pinned)
		row.owner = DatumGetObjectId(row.values[JOB_OWNER]);
	set_value(&row, JOB_OWNER, ObjectIdGetDatum(row.owner));
	ids_uuid7(&id);
	set_value(&row, JOB_ID, UUIDPGetDatum(&id));
	set_times(&row);
	check_traceparent(&row);
	check_labels(&row);
	check_dedupe_key(&row);
	if (!pinned)
		pin_row(&row);
	set_default_ttl(&row);
	if (row.nulls[JOB_DEDUPE_KEY])
		put_on_board(row.owner, is_queued(row.values[JOB_STATE]),
					 DatumGetTimestampTz(row.values[JOB_RANK]),
					 DatumGetTimestampTz(row.values[JOB_RUN_AT]));
	return PointerGetDatum(heap_form_tuple(desc, row.values, row.nulls));
}

/* AFTER INSERT ON job, for rows with a dedupe_key: they are there now. */
Datum
chaincall_job_inserted(PG_FUNCTION_ARGS)
{
	static Oid	checked = InvalidOid;
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Datum		values[JOB_COLUMNS];
	bool		nulls[JOB_COLUMNS];

	job_check_event(fcinfo, false);
	job_check_columns(trigger->tg_relation, job_columns, JOB_COLUMNS, &checked);
	heap_deform_tuple(trigger->tg_trigtuple,
					  RelationGetDescr(trigger->tg_relation), values, nulls);
	put_on_board(DatumGetObjectId(values[JOB_OWNER]),
				 is_queued(values[JOB_STATE]),
				 DatumGetTimestampTz(values[JOB_RANK]),
				 DatumGetTimestampTz(values[JOB_RUN_AT]));
	return PointerGetDatum(NULL);
}
