/*
 * claim.c
 *	  A caller takes jobs.
 *
 * One statement claims for many owners: for each it walks (owner, rank, id) of the
 * queued jobs from the owner's mark on and skips what another claimer has
 * locked.  Where the mark comes from and how it moves is board.h's.
 *
 * Jobs of a paused chain that have not started are not skipped, each claim would
 * have to walk past them again: they are put aside as `waiting`, until the maintainer finds the
 * chain resumed (hold.c).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/catalog.h"
#include "catalog/pg_type.h"
#include "chain/local.h"
#include "executor/spi.h"
#include "queue/queue.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/*
 * The jobs that are next, and what becomes of them.  Whether their chains are
 * paused is looked at one by one: anybody may have a thousand of them paused.
 */
#define PICKED(held, policies) \
	"WITH picked AS MATERIALIZED (" \
	" SELECT j.id, j.started_at" held " FROM unnest($1, $2, $3, $4) AS o(owner, mark, after, quota)" \
	" CROSS JOIN LATERAL (SELECT q.id, q.started_at, q.chain FROM chaincall.job q" \
	"   WHERE q.owner = o.owner AND q.state = 'queued' AND (q.rank, q.id) >= (o.mark, o.after)" \
	"   AND (q.expires_at IS NULL OR q.expires_at > pg_catalog.clock_timestamp())" \
	"   ORDER BY q.rank, q.id LIMIT o.quota FOR UPDATE SKIP LOCKED) j" policies ")" \
	" UPDATE chaincall.job u SET "
#define CLAIMED \
	" FROM picked p WHERE u.id = p.id" \
	" RETURNING u.id, u.owner, u.rank, u.chain, u.definition, u.input, p.started_at IS NOT NULL," \
	" u.deaths, u.created_at, u.expires_at, u.state = 'waiting', u.retried_at, u.deadlines"

static const char claim_sql[] =
PICKED("", "")
"state = 'running', worker = $5, started_at = coalesce(u.started_at, pg_catalog.clock_timestamp())" CLAIMED;

/* the same, where some chains are paused */
static const char claim_unpaused_sql[] =
PICKED(", j.started_at IS NULL AND c.chain IS NOT NULL AS held", " LEFT JOIN chaincall.chain_policy c ON c.chain = j.chain AND c.paused")
"state = CASE WHEN p.held THEN 'waiting' ELSE 'running' END,"
" worker = CASE WHEN p.held THEN NULL ELSE $5 END,"
" waits_on = CASE WHEN p.held THEN 'chain ' || u.chain END,"
" run_at = CASE WHEN p.held THEN 'infinity' ELSE u.run_at END,"
" started_at = CASE WHEN p.held THEN NULL ELSE coalesce(u.started_at, pg_catalog.clock_timestamp()) END" CLAIMED;

static const char definition_sql[] =
"SELECT body FROM chaincall.definition WHERE sha256 = $1 LIMIT 1";

static Datum
claim_arrays(const BoardClaim *claims, int n, Datum *marks, Datum *ids,
			 Datum *quotas)
{
	Datum	   *id = palloc(n * sizeof(Datum));
	Datum	   *owner = palloc(n * sizeof(Datum));
	Datum	   *mark = palloc(n * sizeof(Datum));
	Datum	   *quota = palloc(n * sizeof(Datum));

	for (int i = 0; i < n; i++)
	{
		owner[i] = ObjectIdGetDatum(claims[i].owner);
		mark[i] = TimestampTzGetDatum(claims[i].mark.rank);
		id[i] = UUIDPGetDatum(&claims[i].mark.id);
		quota[i] = Int32GetDatum(claims[i].quota);
	}
	*marks = PointerGetDatum(construct_array(mark, n, TIMESTAMPTZOID, 8,
											 FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	*ids = PointerGetDatum(construct_array(id, n, UUIDOID, UUID_LEN, false,
										   TYPALIGN_CHAR));
	*quotas = PointerGetDatum(construct_array(quota, n, INT4OID, 4, true,
											  TYPALIGN_INT));
	return PointerGetDatum(construct_array(owner, n, OIDOID, 4, true,
										   TYPALIGN_INT));
}

/* A claimed row, copied into the current memory context. */
static ClaimedJob *
read_job(HeapTuple tuple, TupleDesc desc)
{
	ClaimedJob *job = palloc0(sizeof(ClaimedJob));
	bytea	   *hash;
	Datum		deadlines;
	bool		isnull;

	job->id = *DatumGetUUIDP(SPI_getbinval(tuple, desc, 1, &isnull));
	job->owner = DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull));
	job->rank = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 3, &isnull));
	job->chain = TextDatumGetCString(SPI_getbinval(tuple, desc, 4, &isnull));
	hash = DatumGetByteaPP(SPI_getbinval(tuple, desc, 5, &isnull));
	memcpy(job->definition, VARDATA_ANY(hash),
		   Min(VARSIZE_ANY_EXHDR(hash), DEFINITION_HASH_LEN));
	job->input = DatumGetJsonbPCopy(SPI_getbinval(tuple, desc, 6, &isnull));
	job->resumed = DatumGetBool(SPI_getbinval(tuple, desc, 7, &isnull));
	job->deaths = DatumGetInt32(SPI_getbinval(tuple, desc, 8, &isnull));
	job->created_at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 9, &isnull));
	job->expires_at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 10, &isnull));
	if (isnull)
		job->expires_at = DT_NOEND;
	job->held = DatumGetBool(SPI_getbinval(tuple, desc, 11, &isnull));
	job->retried_at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 12, &isnull));
	if (isnull)
		job->retried_at = 0;
	deadlines = SPI_getbinval(tuple, desc, 13, &isnull);
	if (!isnull)
		job->deadlines = DatumGetJsonbPCopy(deadlines);
	return job;
}

/*
 * Claims up to `quota` jobs for each of the owners, in a transaction of
 * queue_begin(): they are `running` under the incarnation when that commits,
 * but for those that are held.  A List of ClaimedJob in cxt, in no order.
 */
List *
queue_claim(const BoardClaim *claims, int nclaims, uint64 incarnation,
			MemoryContext cxt)
{
	static SPIPlanPtr claim_plan = NULL;
	static SPIPlanPtr unpaused_plan = NULL;
	Oid			types[] = {OIDARRAYOID, TIMESTAMPTZARRAYOID, UUIDARRAYOID, INT4ARRAYOID, INT8OID};
	Datum		values[5];
	SPIPlanPtr	plan;
	List	   *jobs = NIL;
	MemoryContext old;

	values[0] = claim_arrays(claims, nclaims, &values[1], &values[2],
							 &values[3]);
	values[4] = Int64GetDatum((int64) incarnation);
	plan = catalog_any_chain_paused() ?
		local_plan(&unpaused_plan, claim_unpaused_sql, 5, types) :
		local_plan(&claim_plan, claim_sql, 5, types);
	if (SPI_execute_plan(plan, values, NULL, false, 0) != SPI_OK_UPDATE_RETURNING)
		elog(ERROR, "could not claim jobs");
	old = MemoryContextSwitchTo(cxt);
	for (uint64 i = 0; i < SPI_processed; i++)
		jobs = lappend(jobs, read_job(SPI_tuptable->vals[i],
									  SPI_tuptable->tupdesc));
	MemoryContextSwitchTo(old);
	SPI_freetuptable(SPI_tuptable);
	return jobs;
}

/*
 * The pinned closure with that sha256, in cxt; NULL when it is gone.  In a
 * transaction of queue_begin().
 */
Jsonb *
queue_definition(const uint8 *hash, MemoryContext cxt)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {BYTEAOID};
	bytea	   *key = palloc(VARHDRSZ + DEFINITION_HASH_LEN);
	Datum		values[] = {PointerGetDatum(key)};
	Jsonb	   *body = NULL;
	bool		isnull;

	SET_VARSIZE(key, VARHDRSZ + DEFINITION_HASH_LEN);
	memcpy(VARDATA(key), hash, DEFINITION_HASH_LEN);
	if (SPI_execute_plan(local_plan(&plan, definition_sql, 1, types), values,
						 NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read a definition");
	if (SPI_processed > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);

		body = DatumGetJsonbPCopy(SPI_getbinval(SPI_tuptable->vals[0],
												SPI_tuptable->tupdesc, 1,
												&isnull));
		MemoryContextSwitchTo(old);
	}
	SPI_freetuptable(SPI_tuptable);
	return body;
}
