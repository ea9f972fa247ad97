/*
 * catalog_cache.c
 *	  Caches of models, servers and chain policies, and when they are dropped.
 *
 * A call needs its model, server and key within two microseconds, so all
 * three are kept per process.  Changes of our tables reach every session as
 * relcache invalidations, which the trigger on them sends; changes of
 * servers, mappings and roles as the syscache's own.  A callback may come at
 * any moment, even while an entry is being built, so it only marks the cache;
 * what is marked is thrown away when the cache is next entered.  An entry that
 * was built from what has changed meanwhile lives for that one use.
 *
 * The tables are read by direct scans under a catalog snapshot: no SPI, no
 * privilege on the tables, and what has just been committed is seen.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/catalog_cache.h"
#include "catalog/dependency.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

static const struct
{
	const char *name;
	const char *index;			/* begins with the name */
	AttrNumber	attno;			/* of the name: the model's, the chain's */
}			tables[] =
{
	[CATALOG_MODEL] = {"model", "model_pkey", 1},
	[CATALOG_ENDPOINT] = {"endpoint", "endpoint_pkey", 1},
	[CATALOG_CHAIN_POLICY] = {"chain_policy", "chain_policy_pkey", 1},
};

#define NTABLES ((int) lengthof(tables))

CatalogCache catalog_models;
CatalogCache catalog_servers;
CatalogCache catalog_policies;

static Oid	table_oids[NTABLES];
static Oid	index_oids[NTABLES];

static void
forget_tables(void)
{
	memset(table_oids, 0, sizeof(table_oids));
	memset(index_oids, 0, sizeof(index_oids));
}

static void
relation_changed(Datum arg, Oid relid)
{
	for (int i = 0; i < NTABLES; i++)
	{
		if (relid == InvalidOid || relid == table_oids[i])
		{
			catalog_models.stale = true;
			catalog_policies.stale = true;
			forget_tables();
			return;
		}
	}
}

static void
server_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	catalog_servers.stale = true;
}

static void
register_callbacks(void)
{
	static bool registered = false;
	static const int caches[] = {
		FOREIGNSERVEROID, FOREIGNDATAWRAPPEROID, USERMAPPINGOID,
		AUTHOID, AUTHMEMROLEMEM,
		DATABASEOID				/* its owner is in pg_database_owner */
	};

	if (registered)
		return;
	for (int i = 0; i < (int) lengthof(caches); i++)
		CacheRegisterSyscacheCallback(caches[i], server_changed, (Datum) 0);
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	registered = true;
}

/*
 * To be called before anything is looked up in the cache: takes in what other
 * sessions have committed, and drops what that has made stale.  True: it has
 * nothing that was kept before.
 */
bool
catalog_cache_enter(CatalogCache *cache)
{
	bool		dropped = cache->context == NULL;

	register_callbacks();
	if (IsTransactionState())
		AcceptInvalidationMessages();
	if (cache->context == NULL)
		cache->context = AllocSetContextCreate(CacheMemoryContext,
											   "chaincall catalog",
											   ALLOCSET_SMALL_SIZES);
	else if (cache->stale)
	{
		cache->entries = NULL;
		cache->keys = NULL;
		MemoryContextReset(cache->context);
		dropped = true;
	}
	cache->stale = false;
	return dropped;
}

/* A hash table by name that goes when the cache is dropped. */
HTAB *
catalog_cache_names(CatalogCache *cache, const char *title, Size entry_size)
{
	HASHCTL		ctl = {0};

	ctl.keysize = CATALOG_NAME_SIZE;
	ctl.entrysize = entry_size;
	ctl.hcxt = cache->context;
	return hash_create(title, 64, &ctl,
					   HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

/* Where the tables are; an older version of the extension may lack one. */
static void
find_tables(void)
{
	Oid			extension = get_extension_oid("chaincall", true);
	Oid			schema;

	if (!OidIsValid(extension))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"chaincall\" does not exist in this database"),
				 errhint("CREATE EXTENSION chaincall")));
	schema = get_namespace_oid("chaincall", true);
	for (int i = 0; i < NTABLES; i++)
	{
		Oid			table = get_relname_relid(tables[i].name, schema);
		Oid			index = get_relname_relid(tables[i].index, schema);

		if (!OidIsValid(table) || !OidIsValid(index) ||
			getExtensionOfObject(RelationRelationId, table) != extension)
			continue;
		table_oids[i] = table;
		index_oids[i] = index;
	}
}

/*
 * Opens one of the extension's tables; close it with AccessShareLock.  While
 * we wait for the lock the extension may be dropped and created anew.
 */
Relation
catalog_table_open(CatalogTable which)
{
	for (;;)
	{
		Relation	rel;

		CHECK_FOR_INTERRUPTS();
		if (!OidIsValid(table_oids[which]))
			find_tables();
		if (!OidIsValid(table_oids[which]))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("table \"chaincall.%s\" of the extension or its primary key does not exist",
							tables[which].name),
					 errhint("If the extension is of an older version, run ALTER EXTENSION chaincall UPDATE.")));
		rel = try_table_open(table_oids[which], AccessShareLock);
		if (rel != NULL)
			return rel;
		forget_tables();
	}
}

/*
 * Starts a scan of the rows of one name in the order of the primary key, or
 * of all rows where name is NULL, of what catalog_table_open(which) gave.  End
 * it with systable_endscan().
 */
SysScanDesc
catalog_table_scan(CatalogTable which, Relation rel, const char *name)
{
	AttrNumber	attno = tables[which].attno;
	ScanKeyData key;
	Oid			index;

	if (name == NULL)
		return systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);

	/* opening the table may have made us forget its index */
	if (!OidIsValid(index_oids[which]))
		find_tables();
	index = index_oids[which];
	/* a scan by another table's index would mark that one's entries dead */
	if (IndexGetRelation(index, true) != RelationGetRelid(rel))
		elog(ERROR, "index \"%s\" is not of table \"chaincall.%s\"",
			 tables[which].index, tables[which].name);
	ScanKeyEntryInitialize(&key, 0, attno, BTEqualStrategyNumber, InvalidOid,
						   TupleDescAttr(RelationGetDescr(rel), attno - 1)->attcollation,
						   F_TEXTEQ, CStringGetTextDatum(name));
	return systable_beginscan(rel, index, true, NULL, 1, &key);
}
