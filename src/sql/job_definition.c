/*
 * job_definition.c
 *	  Closures get into chaincall.definition.
 *
 * The row is written by C code with the catalogs' means: the user who enqueues
 * needs no privilege on the table, and no trigger, rule or policy runs.  Two
 * sessions may store the same closure at once; nothing is unique, so none waits.
 *
 * The maintainer throws away rows that no job names and that were more than a
 * day old when the oldest open transaction began.  A session builds only on
 * rows younger than half a day, else it stores another: so the row is still
 * there when the job that it inserts is committed.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "sql/job.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define ROW_USED_FOR (10 * USECS_PER_HOUR)	/* after it was made */
#define LOOK_AGAIN_AFTER USECS_PER_HOUR

enum
{
	DEFINITION_SHA256 = 1,
	DEFINITION_BODY,
	DEFINITION_CREATED_AT,
	DEFINITION_COLUMNS = DEFINITION_CREATED_AT
};

/*
 * Counts ends of transactions and aborts of subtransactions: what this session
 * has stored itself is there until one of them.
 */
static uint64 epoch = 1;

static void
transaction_callback(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_PRE_COMMIT && event != XACT_EVENT_PRE_PREPARE)
		epoch++;
}

static void
subtransaction_callback(SubXactEvent event, SubTransactionId sub,
						SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		epoch++;
}

static void
register_callbacks(void)
{
	static bool registered = false;

	if (registered)
		return;
	RegisterXactCallback(transaction_callback, NULL);
	RegisterSubXactCallback(subtransaction_callback, NULL);
	registered = true;
}

static Relation
open_definitions(void)
{
	Oid			schema = get_namespace_oid("chaincall", false);
	Oid			table = get_relname_relid("definition", schema);

	if (!OidIsValid(table))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table chaincall.definition does not exist"),
				 errhint("Create the extension again.")));
	return table_open(table, RowExclusiveLock);
}

/*
 * Is there a row that this session may build on?  Notes in made whether it is
 * committed or this transaction's own.
 */
static bool
find_row(Relation definitions, Oid index, bytea *sha256, PinMade *made)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TimestampTz oldest = GetCurrentTimestamp() - ROW_USED_FOR;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		committed = false;
	bool		own = false;

	ScanKeyInit(&key, DEFINITION_SHA256, BTEqualStrategyNumber, F_BYTEAEQ,
				PointerGetDatum(sha256));
	scan = systable_beginscan(definitions, index, OidIsValid(index), snapshot,
							  1, &key);
	while (!committed && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		created = heap_getattr(tuple, DEFINITION_CREATED_AT,
										   RelationGetDescr(definitions),
										   &isnull);

		if (isnull || DatumGetTimestampTz(created) <= oldest)
			continue;
		if (TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data)))
			own = true;
		else
			committed = true;
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	if (committed)
		made->seen_at = GetCurrentTimestamp();
	else if (own)
		made->stored_in = epoch;
	return committed || own;
}

static void
insert_row(Relation definitions, const PinMade *made, bytea *sha256)
{
	Datum		values[DEFINITION_COLUMNS];
	bool		nulls[DEFINITION_COLUMNS] = {false};
	HeapTuple	tuple;

	values[DEFINITION_SHA256 - 1] = PointerGetDatum(sha256);
	values[DEFINITION_BODY - 1] = JsonbPGetDatum(made->closure);
	values[DEFINITION_CREATED_AT - 1] =
		TimestampTzGetDatum(GetCurrentTimestamp());
	tuple = heap_form_tuple(RelationGetDescr(definitions), values, nulls);
	CatalogTupleInsert(definitions, tuple);
	heap_freetuple(tuple);
}

static Oid
hash_index(Relation definitions)
{
	return get_relname_relid("definition_sha256",
							 RelationGetNamespace(definitions));
}

/*
 * Sees to it that the table has the closure when this transaction commits.
 * Cheap when the session has done so before.
 */
void
job_store_definition(PinMade *made)
{
	Relation	definitions;
	bytea	   *sha256;

	if (made->stored_in == epoch ||
		(made->seen_at != 0 &&
		 GetCurrentTimestamp() - made->seen_at < LOOK_AGAIN_AFTER))
		return;

	register_callbacks();
	sha256 = (bytea *) palloc(VARHDRSZ + PIN_HASH_LEN);
	SET_VARSIZE(sha256, VARHDRSZ + PIN_HASH_LEN);
	memcpy(VARDATA(sha256), made->sha256, PIN_HASH_LEN);
	definitions = open_definitions();
	if (!find_row(definitions, hash_index(definitions), sha256, made))
	{
		insert_row(definitions, made, sha256);
		made->stored_in = epoch;
	}
	table_close(definitions, NoLock);
}
