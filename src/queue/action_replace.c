/*
 * action_replace.c
 *	  submit(..., dedupe => 'replace'): a newer input for a job that has not
 *	  started.
 *
 * Which job has the key is looked at anew when the action is applied: the one
 * that submit() saw may have started since, and another been enqueued.  Where
 * none is left, one is enqueued as the first was, with the new input.
 */
#include "postgres.h"

#include "base/ids.h"
#include "catalog/pg_type.h"
#include "chain/local.h"
#include "chain/pin.h"
#include "queue/action.h"
#include "utils/acl.h"
#include "utils/builtins.h"

/*
 * The one with the key that has not started; a null: somebody has locked it.
 * LIMIT has it looked up in the index of keys, which a join would read whole.
 */
static const char find_sql[] =
"SELECT l.id, l.definition FROM chaincall.job o,"
" LATERAL (SELECT k.id FROM chaincall.job k WHERE k.owner = o.owner AND k.chain = o.chain AND k.dedupe_key = o.dedupe_key"
"  AND k.state IN ('queued', 'waiting') AND k.started_at IS NULL LIMIT 1) q"
" LEFT JOIN LATERAL (SELECT b.id, b.definition FROM chaincall.job b WHERE b.id = q.id FOR UPDATE SKIP LOCKED) l ON true"
" WHERE o.id = $1";

static const char has_key_sql[] =
"SELECT FROM chaincall.job q WHERE q.id = $1 AND q.dedupe_key IS NOT NULL";

static const char replace_sql[] =
"UPDATE chaincall.job SET input = $2 WHERE id = $1 AND started_at IS NULL AND state IN ('queued', 'waiting')";

/* what the trigger lets a worker say; see sql/job.c */
static const char insert_sql[] =
"INSERT INTO chaincall.job (chain, definition, input, priority, dedupe_key, labels, owner, traceparent)"
" SELECT q.chain, q.definition, $2, q.priority, q.dedupe_key, q.labels, q.owner, q.traceparent"
" FROM chaincall.job q WHERE q.id = $1 ON CONFLICT DO NOTHING RETURNING id";

/* Raises where the pinned chain cannot take the input. */
static void
check_input(const Action *action, const uint8 *definition)
{
	bool		null_for_strict;
	Pinned	   *pinned = action_pinned(definition);

	if (pinned == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("the definition of the job's chain is gone")));
	(void) pin_job_inputs(&pinned->chains[0], action->input, &null_for_strict);
}

static SPIPlanPtr
input_plan(SPIPlanPtr *kept, const char *sql)
{
	Oid			types[] = {UUIDOID, JSONBOID};

	return local_plan(kept, sql, 2, types);
}

static void
run_with_input(SPIPlanPtr plan, const pg_uuid_t *job, const Action *action)
{
	Datum		values[] = {UUIDPGetDatum(job), JsonbPGetDatum(action->input)};

	action_run(plan, values, NULL);
}

/* False: it has started before it was locked. */
static bool
replace_input(const Action *action, const pg_uuid_t *job)
{
	static SPIPlanPtr plan = NULL;

	run_with_input(input_plan(&plan, replace_sql), job, action);
	if (SPI_processed == 0)
		return false;
	return action_done(action, memcmp(job, &action->subject, UUID_LEN) == 0 ?
					   NULL : psprintf("given to job %s", ids_uuid_text(job)));
}

/* False: one with the key has come meanwhile. */
static bool
enqueue(const Action *action)
{
	static SPIPlanPtr plan = NULL;
	bool		isnull;

	run_with_input(input_plan(&plan, insert_sql), &action->subject, action);
	if (SPI_processed == 0)
		return false;
	return action_done(action, psprintf("the job had started: enqueued anew as %s",
										ids_uuid_text(DatumGetUUIDP(upkeep_column(0, 1, &isnull)))));
}

static bool
has_key(const Action *action)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDOID};
	Datum		values[] = {UUIDPGetDatum(&action->subject)};

	action_run(local_plan(&plan, has_key_sql, 1, types), values, NULL);
	return SPI_processed > 0;
}

/* replace(job, input), which submit() asks for */
bool
action_replace(const Action *action)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDOID};
	Datum		values[] = {UUIDPGetDatum(&action->subject)};
	Target		target;
	pg_uuid_t	job;
	uint8		hash[DEFINITION_HASH_LEN] = {0};
	bytea	   *definition;
	bool		isnull;
	Datum		id;

	if (!action_target(&action->subject, false, &target) ||
		!has_privs_of_role(action->author, target.owner))
		return action_no_job(action);
	if (!has_key(action))
		return action_refuse(action, "the job has no dedupe_key");
	action_run(local_plan(&plan, find_sql, 1, types), values, NULL);
	if (SPI_processed == 0)
	{
		check_input(action, target.definition);
		return enqueue(action);
	}
	id = upkeep_column(0, 1, &isnull);
	if (isnull)
		return false;
	job = *DatumGetUUIDP(id);
	definition = DatumGetByteaPP(upkeep_column(0, 2, &isnull));
	memcpy(hash, VARDATA_ANY(definition),
		   Min(VARSIZE_ANY_EXHDR(definition), DEFINITION_HASH_LEN));
	check_input(action, hash);
	return replace_input(action, &job);
}
