/*
 * policy.c
 *	  pause(), resume() and set_ttl(): what holds for all jobs of a chain, and
 *	  whether a model is called.
 *
 * A model is a row of chaincall.model, and whoever may update that may pause
 * it.  A chain is a function: what holds for its jobs is its owner's to say,
 * who has no privilege on chaincall.chain_policy, so the row is written here
 * after that was checked.
 */
#include "postgres.h"

#include "catalog/catalog.h"
#include "catalog/pg_authid_d.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "chain/pin.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "sql/job.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/*
 * Bytes of a signature.  It becomes an entry of an index here, and of another
 * one as what held jobs wait on: there an error would end every claim.
 */
#define MAX_CHAIN 2000

PG_FUNCTION_INFO_V1(chaincall_pause);
PG_FUNCTION_INFO_V1(chaincall_resume);
PG_FUNCTION_INFO_V1(chaincall_set_ttl);
PG_FUNCTION_INFO_V1(chaincall_check_chain_policy);

static const char set_paused_sql[] =
"INSERT INTO chaincall.chain_policy AS p (chain, paused) VALUES ($1, $2)"
" ON CONFLICT (chain) DO UPDATE SET paused = EXCLUDED.paused"
" WHERE p.paused OPERATOR(pg_catalog.<>) EXCLUDED.paused";

static const char set_ttl_sql[] =
"INSERT INTO chaincall.chain_policy (chain, ttl) VALUES ($1, $2)"
" ON CONFLICT (chain) DO UPDATE SET ttl = EXCLUDED.ttl";

static const char set_model_sql[] =
"UPDATE chaincall.model SET paused = $2 WHERE name OPERATOR(pg_catalog.=) $1";

static uint64
execute(const char *sql, Oid second, const char *name, Datum value, bool isnull)
{
	Oid			types[] = {TEXTOID, second};
	Datum		values[] = {CStringGetTextDatum(name), value};
	uint64		n;
	int			result;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	result = SPI_execute_with_args(sql, 2, types, values, isnull ? " n" : NULL,
								   false, 0);
	if (result < 0)
		elog(ERROR, "a statement on policies failed: %s",
			 SPI_result_code_string(result));
	n = SPI_processed;
	SPI_finish();
	return n;
}

/* ---- chains ---- */

/* The signature of a chain that the current user owns. */
static char *
own_chain(const char *name)
{
	Oid			function = chain_find_known(name);
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid			owner = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
		ReleaseSysCache(tuple);
	}
	if (!OidIsValid(owner) || !has_privs_of_role(GetUserId(), owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of chain \"%s\"", name),
				 errhint("Ask its owner, or a superuser.")));
	return pin_signature(function);
}

/* As the superuser that owns the table; the statements name nothing of a user's. */
static void
set_policy(const char *sql, Oid type, const char *signature, Datum value,
		   bool isnull)
{
	Oid			userid;
	int			context;

	GetUserIdAndSecContext(&userid, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID,
						   context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	(void) execute(sql, type, signature, value, isnull);
	SetUserIdAndSecContext(userid, context);
}

static void
check_ttl(const Interval *ttl)
{
	static const Interval zero = {0};

	if (DatumGetBool(DirectFunctionCall2(interval_le, IntervalPGetDatum(ttl),
										 IntervalPGetDatum(&zero))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("jobs cannot expire before they may run"),
				 errhint("Give an interval longer than 0, or null for none.")));
}

/* ---- models ---- */

static void
set_model_paused(const char *name, bool paused)
{
	char	   *nearest;

	if (execute(set_model_sql, BOOLOID, name, BoolGetDatum(paused), false) > 0)
		return;
	nearest = catalog_nearest_model(name);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("model \"%s\" does not exist", name),
			 nearest ? errhint("Did you mean \"%s\"?", nearest) : 0));
}

/* ---- what SQL calls ---- */

static void
set_paused(FunctionCallInfo fcinfo, bool paused)
{
	char	   *kind = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(1));

	if (strcmp(kind, "model") == 0)
		set_model_paused(name, paused);
	else if (strcmp(kind, "chain") == 0)
		set_policy(set_paused_sql, BOOLOID, own_chain(name),
				   BoolGetDatum(paused), false);
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cannot pause or resume a \"%.*s\"",
						pg_mbcliplen(kind, strlen(kind), NAMEDATALEN), kind),
				 errhint("Known are chain and model.")));
}

/* pause(kind, name): jobs that need it wait until it is resumed */
Datum
chaincall_pause(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, true);
	PG_RETURN_VOID();
}

/* resume(kind, name) */
Datum
chaincall_resume(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, false);
	PG_RETURN_VOID();
}

/* set_ttl(chain, ttl): null: jobs live for ever */
Datum
chaincall_set_ttl(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("which chain?"),
				 errhint("Write chaincall.set_ttl('my_chain', '1 day').")));
	if (!PG_ARGISNULL(1))
		check_ttl(PG_GETARG_INTERVAL_P(1));
	set_policy(set_ttl_sql, INTERVALOID,
			   own_chain(text_to_cstring(PG_GETARG_TEXT_PP(0))),
			   PG_ARGISNULL(1) ? (Datum) 0 : PG_GETARG_DATUM(1),
			   PG_ARGISNULL(1));
	PG_RETURN_VOID();
}

static void
check_signature(const char *signature)
{
	if (strlen(signature) > MAX_CHAIN)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the signature of a chain is too long to be held up or given a time"),
				 errdetail("It has %zu bytes, at most %d are allowed.",
						   strlen(signature), MAX_CHAIN),
				 errhint("Give the chain fewer parameters, such as one of type jsonb.")));
}

/*
 * BEFORE INSERT OR UPDATE ON chain_policy: the chain as jobs name it.  A
 * signature that is none stays as it is: a restore may bring the row before
 * the chain.
 */
Datum
chaincall_check_chain_policy(PG_FUNCTION_ARGS)
{
	static const char *const columns[] = {"chain", "ttl", "paused"};
	static Oid	checked = InvalidOid;
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	tuple;
	char	   *name;
	Oid			function;
	Datum		signature;
	int			column = 1;
	bool		isnull;

	job_check_event(fcinfo, true);
	job_check_columns(trigger->tg_relation, columns, lengthof(columns), &checked);
	tuple = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
		trigger->tg_newtuple : trigger->tg_trigtuple;
	signature = heap_getattr(tuple, column,
							 RelationGetDescr(trigger->tg_relation), &isnull);
	if (isnull)
		return PointerGetDatum(tuple);	/* the constraint says it better */
	name = TextDatumGetCString(signature);
	check_signature(name);
	if (strchr(name, '(') == NULL)
		function = chain_find_known(name);
	else
		function = chain_find_signature(name);
	if (!OidIsValid(function))
		return PointerGetDatum(tuple);
	name = pin_signature(function);
	check_signature(name);
	signature = CStringGetTextDatum(name);
	isnull = false;
	return PointerGetDatum(heap_modify_tuple_by_cols(tuple,
													 RelationGetDescr(trigger->tg_relation),
													 1, &column, &signature,
													 &isnull));
}
