/*
 * checkpoint.c
 *	  Rows of chaincall.span: what was done, and the outputs that are never
 *	  computed again.
 *
 * Rows are put into their partition directly, as PostgreSQL writes its own
 * catalogs: no SQL is parsed or planned, no trigger, operator or function of
 * anybody's can run, and a row costs a third of what INSERT does.  The primary
 * key (job, path, try) is what lets only one of two runs of a step commit.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/json.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "chain/local.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "queue/queue.h"
#include "queue/upkeep.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* Columns, in the order of CREATE TABLE. */
enum
{
	SPAN_JOB = 1, SPAN_PATH, SPAN_TRY, SPAN_ID, SPAN_OWNER, SPAN_KIND,
	SPAN_MODEL, SPAN_VERSION, SPAN_SERVER, SPAN_STARTED_AT, SPAN_SENT_AT,
	SPAN_FIRST_BYTE_AT, SPAN_ENDED_AT, SPAN_TOKENS_IN, SPAN_TOKENS_OUT,
	SPAN_HTTP_STATUS, SPAN_ATTEMPT, SPAN_REASK, SPAN_CLASS, SPAN_MESSAGE,
	SPAN_WORKER, SPAN_OUTPUT, SPAN_SHA256,
	SPAN_COLUMNS = SPAN_SHA256
};

/* ---- where a row goes ---- */

/* The partition for the job, by the bounds in the catalog; as ExecFindPartition. */
static Oid
partition_for(Relation parent, const pg_uuid_t *job)
{
	PartitionKey key = RelationGetPartitionKey(parent);
	PartitionDesc desc = RelationGetPartitionDesc(parent, true);
	PartitionBoundInfo bounds = desc->boundinfo;
	Datum		value = UUIDPGetDatum(job);
	int			index = -1;

	if (bounds != NULL && bounds->ndatums > 0)
	{
		bool		equal = false;
		int			at = partition_range_datum_bsearch(key->partsupfunc,
													   key->partcollation,
													   bounds, 1, &value,
													   &equal);

		index = bounds->indexes[at + 1];
	}
	if (index < 0 && bounds != NULL)
		index = bounds->default_index;
	if (index < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("chaincall.span has no partition for a job"),
				 errhint("Its default partition is missing: DROP EXTENSION and CREATE EXTENSION make a new one.")));
	return desc->oids[index];
}

static Relation
open_parent(void)
{
	Oid			schema = get_namespace_oid("chaincall", false);
	Oid			table = get_relname_relid("span", schema);

	if (!OidIsValid(table))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"chaincall.span\" does not exist")));
	return table_open(table, RowExclusiveLock);
}

/*
 * Opens the partition for the job.  While the lock was waited for its day may
 * have got a partition of its own: what went into the default one then would
 * never be found again.
 */
static Relation
open_partition(Relation parent, const pg_uuid_t *job, LOCKMODE mode)
{
	for (;;)
	{
		Relation	rel = table_open(partition_for(parent, job), mode);

		if (partition_for(parent, job) == RelationGetRelid(rel))
			return rel;
		table_close(rel, NoLock);
	}
}

/* ---- what a row is ---- */

static void
put_text(Datum *values, bool *nulls, int column, const char *text)
{
	nulls[column - 1] = text == NULL;
	if (text != NULL)
		values[column - 1] = CStringGetTextDatum(text);
}

static void
put_time(Datum *values, bool *nulls, int column, TimestampTz time)
{
	nulls[column - 1] = time == 0;
	values[column - 1] = TimestampTzGetDatum(time);
}

static void
put_count(Datum *values, bool *nulls, int column, int64 count)
{
	nulls[column - 1] = count < 0;
	values[column - 1] = Int64GetDatum(count);
}

/* sha256 over the stored form of an output, palloc'd. */
static bytea *
output_hash(const Jsonb *output)
{
	bytea	   *hash = palloc(VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);

	SET_VARSIZE(hash, VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	if (ctx == NULL || pg_cryptohash_init(ctx) < 0 ||
		pg_cryptohash_update(ctx, (const uint8 *) &output->root,
							 VARSIZE(output) - VARHDRSZ) < 0 ||
		pg_cryptohash_final(ctx, (uint8 *) VARDATA(hash),
							PG_SHA256_DIGEST_LENGTH) < 0)
		elog(ERROR, "could not compute SHA-256: %s", pg_cryptohash_error(ctx));
	pg_cryptohash_free(ctx);
	return hash;
}

static HeapTuple
form_row(Relation rel, const SpanRow *row, uint64 incarnation)
{
	Datum		values[SPAN_COLUMNS];
	bool		nulls[SPAN_COLUMNS] = {0};

	if (strlen(row->path) > MAX_SPAN_PATH)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_LIMIT),
				 errmsg("the path of a step is longer than %d bytes", MAX_SPAN_PATH),
				 errhint("Nest less deeply, or give shorter names.")));
	values[SPAN_JOB - 1] = UUIDPGetDatum(&row->job);
	put_text(values, nulls, SPAN_PATH, row->path);
	values[SPAN_TRY - 1] = Int32GetDatum(row->try);
	values[SPAN_ID - 1] = Int64GetDatum((int64) row->id);
	values[SPAN_OWNER - 1] = ObjectIdGetDatum(row->owner);
	put_text(values, nulls, SPAN_KIND, row->kind);
	put_text(values, nulls, SPAN_MODEL, row->model);
	put_text(values, nulls, SPAN_VERSION, row->version);
	put_text(values, nulls, SPAN_SERVER, row->server);
	put_time(values, nulls, SPAN_STARTED_AT, row->started_at);
	put_time(values, nulls, SPAN_SENT_AT, row->sent_at);
	put_time(values, nulls, SPAN_FIRST_BYTE_AT, row->first_byte_at);
	put_time(values, nulls, SPAN_ENDED_AT, row->ended_at);
	put_count(values, nulls, SPAN_TOKENS_IN, row->tokens_in);
	put_count(values, nulls, SPAN_TOKENS_OUT, row->tokens_out);
	nulls[SPAN_HTTP_STATUS - 1] = row->http_status == 0;
	values[SPAN_HTTP_STATUS - 1] = Int32GetDatum(row->http_status);
	values[SPAN_ATTEMPT - 1] = Int32GetDatum(Max(row->attempt, 1));
	values[SPAN_REASK - 1] = BoolGetDatum(row->reask);
	put_text(values, nulls, SPAN_CLASS,
			 row->cls == CLASS_NONE ? NULL : error_class_name(row->cls));
	put_text(values, nulls, SPAN_MESSAGE, row->message);
	values[SPAN_WORKER - 1] = Int64GetDatum((int64) incarnation);
	nulls[SPAN_OUTPUT - 1] = nulls[SPAN_SHA256 - 1] = row->output == NULL;
	if (row->output != NULL)
	{
		values[SPAN_OUTPUT - 1] = JsonbPGetDatum(row->output);
		values[SPAN_SHA256 - 1] = PointerGetDatum(output_hash(row->output));
	}
	return heap_form_tuple(RelationGetDescr(rel), values, nulls);
}

/* ---- writing ---- */

/* A partition that is being written to. */
typedef struct Target
{
	Relation	rel;
	CatalogIndexState indexes;
} Target;

static void
target_open(Target *target, Relation parent, const pg_uuid_t *job)
{
	target->rel = open_partition(parent, job, RowExclusiveLock);
	if (RelationGetDescr(target->rel)->natts != SPAN_COLUMNS)
		elog(ERROR, "partition \"%s\" of chaincall.span has %d columns",
			 RelationGetRelationName(target->rel),
			 RelationGetDescr(target->rel)->natts);
	target->indexes = CatalogOpenIndexes(target->rel);
}

static void
target_close(Target *target)
{
	if (target->rel == NULL)
		return;
	CatalogCloseIndexes(target->indexes);
	table_close(target->rel, NoLock);
	target->rel = NULL;
}

/*
 * Writes rows in the current transaction, which may be anybody's: nothing but
 * C runs.  Raises unique_violation where one is there already.  Jobs of a
 * batch are mostly of one day, so the partition stays open from row to row.
 */
void
queue_checkpoint(SpanRow **rows, int nrows, uint64 incarnation)
{
	Relation	parent = open_parent();
	Target		target = {NULL};

	for (int i = 0; i < nrows; i++)
	{
		Oid			partition = partition_for(parent, &rows[i]->job);

		if (target.rel == NULL || RelationGetRelid(target.rel) != partition)
		{
			target_close(&target);
			target_open(&target, parent, &rows[i]->job);
		}
		CatalogTupleInsertWithInfo(target.rel,
								   form_row(target.rel, rows[i], incarnation),
								   target.indexes);
	}
	target_close(&target);
	table_close(parent, NoLock);
	CommandCounterIncrement();
}

/* ---- reading back ---- */

static const char checkpoints_sql[] =
"SELECT path, try, output, sha256, ended_at, class"
" FROM chaincall.span WHERE job = $1 ORDER BY path, try";

static bool
hash_fits(const Jsonb *output, const bytea *hash)
{
	bytea	   *computed = output_hash(output);

	return VARSIZE_ANY_EXHDR(hash) == PG_SHA256_DIGEST_LENGTH &&
		memcmp(VARDATA_ANY(hash), VARDATA(computed),
			   PG_SHA256_DIGEST_LENGTH) == 0;
}

/* The output in a span's row, in cxt; raises where it is corrupt. */
static Jsonb *
checked_output(Relation rel, HeapTuple tuple, const char *path,
			   MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	bool		no_output;
	bool		no_hash;
	Datum		output = heap_getattr(tuple, SPAN_OUTPUT,
									  RelationGetDescr(rel), &no_output);
	Datum		hash = heap_getattr(tuple, SPAN_SHA256,
									RelationGetDescr(rel), &no_hash);
	Jsonb	   *copy = no_output ? NULL : DatumGetJsonbPCopy(output);

	if (copy == NULL || no_hash || !hash_fits(copy, DatumGetByteaPP(hash)))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the stored output of step \"%s\" of a job is corrupt",
						path)));
	MemoryContextSwitchTo(old);
	return copy;
}

/*
 * The output stored for a step, in cxt; NULL: there is none.  As
 * queue_checkpoint() it runs nothing but C, in any transaction.  Raises
 * ERRCODE_DATA_CORRUPTED for one that is not what was stored.
 */
Jsonb *
queue_checkpoint_output(const pg_uuid_t *job, const char *path,
						MemoryContext cxt)
{
	Relation	parent = open_parent();
	Relation	rel = open_partition(parent, job, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	Jsonb	   *output = NULL;
	ScanKeyData keys[3];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], SPAN_JOB, BTEqualStrategyNumber, F_UUID_EQ,
				UUIDPGetDatum(job));
	ScanKeyInit(&keys[1], SPAN_PATH, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(path));
	ScanKeyInit(&keys[2], SPAN_TRY, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(0));
	/* fills in rd_pkindex */
	list_free(RelationGetIndexList(rel));
	scan = systable_beginscan(rel, rel->rd_pkindex,
							  OidIsValid(rel->rd_pkindex), snapshot, 3, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		output = checked_output(rel, tuple, path, cxt);
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	table_close(parent, NoLock);
	return output;
}

/*
 * A success whose output is not what was stored counts as one more failure:
 * it makes room for the step's next success.
 */
static void
renumber_corrupt(const pg_uuid_t *job, const char *path, int try)
{
	Oid			types[] = {UUIDOID, TEXTOID, INT4OID};
	Datum		values[] = {
		UUIDPGetDatum(job), CStringGetTextDatum(path), Int32GetDatum(try)
	};

	bool		isnull;

	if (SPI_execute_with_args("UPDATE chaincall.span SET try = $3, class = 'invalid', message = 'the stored output is corrupt'"
							  " WHERE job = $1 AND path = $2 AND try = 0 RETURNING owner",
							  3, types, values, NULL, false, 0) == SPI_OK_UPDATE_RETURNING &&
		SPI_processed == 1)
		queue_alert("corrupt_checkpoint", job,
					DatumGetObjectId(upkeep_column(0, 1, &isnull)),
					psprintf("the stored output of step %s was corrupt; the step runs again",
							 path),
					"Look for faults of the disk or of memory, and whether anybody has changed chaincall.span.");
	ereport(WARNING,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("the stored output of step \"%s\" of a job is corrupt; the step runs again",
					path)));
}

/* The checkpoint of a path, made where there is none; rows come by path. */
static Checkpoint *
find_path(List **found, const char *path)
{
	Checkpoint *last = *found == NIL ? NULL : llast(*found);

	if (last != NULL && strcmp(last->path, path) == 0)
		return last;
	last = palloc0(sizeof(Checkpoint));
	last->path = pstrdup(path);
	*found = lappend(*found, last);
	return last;
}

/* Being throttled or cancelled uses up no attempt. */
static bool
uses_attempt(const char *cls)
{
	return strcmp(cls, error_class_name(CLASS_THROTTLED)) != 0 &&
		strcmp(cls, error_class_name(CLASS_CANCELLED)) != 0;
}

typedef struct StoredRow
{
	HeapTuple	tuple;
	TupleDesc	desc;
} StoredRow;

static Datum
stored(const StoredRow *row, int column, bool *isnull)
{
	return SPI_getbinval(row->tuple, row->desc, column, isnull);
}

/* A row's part in its path's checkpoint; true: its output is corrupt. */
static bool
take_row(Checkpoint *checkpoint, const StoredRow *row, TimestampTz retried_at)
{
	bool		isnull;
	int			try = DatumGetInt32(stored(row, 2, &isnull));
	Datum		datum;

	checkpoint->last_ended = DatumGetTimestampTz(stored(row, 5, &isnull));
	if (try > 0)
	{
		checkpoint->failures = Max(checkpoint->failures, try);
		datum = stored(row, 6, &isnull);
		if (checkpoint->last_ended >= retried_at)
			checkpoint->used += isnull ||
				uses_attempt(TextDatumGetCString(datum));
		return false;
	}
	datum = stored(row, 3, &isnull);
	if (!isnull)
		checkpoint->output = DatumGetJsonbPCopy(datum);
	datum = stored(row, 4, &isnull);
	if (checkpoint->output != NULL && !isnull &&
		hash_fits(checkpoint->output, DatumGetByteaPP(datum)))
		return false;
	checkpoint->output = NULL;
	return true;
}

/*
 * What is stored of a job: a List of Checkpoint in cxt, one a path.  In a
 * transaction of queue_begin().  A corrupt output is put aside, with a
 * warning.  retried_at: failures before that use up no attempts.
 */
List *
queue_checkpoints(const pg_uuid_t *job, TimestampTz retried_at,
				  MemoryContext cxt)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDOID};
	Datum		values[] = {UUIDPGetDatum(job)};
	List	   *found = NIL;
	List	   *corrupt = NIL;
	SPITupleTable *table;
	uint64		rows;
	MemoryContext old;
	ListCell   *lc;

	if (SPI_execute_plan(local_plan(&plan, checkpoints_sql, 1, types), values,
						 NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read checkpoints");
	table = SPI_tuptable;
	rows = SPI_processed;
	old = MemoryContextSwitchTo(cxt);
	for (uint64 i = 0; i < rows; i++)
	{
		StoredRow	row = {table->vals[i], table->tupdesc};
		bool		isnull;
		Checkpoint *checkpoint = find_path(&found, TextDatumGetCString(stored(&row, 1, &isnull)));

		if (take_row(checkpoint, &row, retried_at))
			corrupt = lappend(corrupt, checkpoint);
	}
	MemoryContextSwitchTo(old);
	SPI_freetuptable(table);
	foreach(lc, corrupt)
	{
		Checkpoint *checkpoint = lfirst(lc);

		renumber_corrupt(job, checkpoint->path, ++checkpoint->failures);
	}
	return found;
}
