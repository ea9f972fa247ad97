/*
 * catalog_policy.c
 *	  What holds for all jobs of a chain: rows of chaincall.chain_policy.
 *
 * There are few of them, and most chains have none; so all are kept, in the
 * order of their signatures, and read again when one has changed.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/catalog_cache.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Columns, in the order of CREATE TABLE. */
enum
{
	POLICY_CHAIN = 1, POLICY_TTL, POLICY_PAUSED
};

typedef struct ChainPolicy
{
	const char *chain;			/* signature */
	Interval   *ttl;			/* NULL: none */
	bool		paused;
} ChainPolicy;

static ChainPolicy *policies = NULL;	/* in the cache's context */
static int	npolicies = 0;
static bool any_paused = false;

static int
compare_policies(const void *a, const void *b)
{
	return strcmp(((const ChainPolicy *) a)->chain,
				  ((const ChainPolicy *) b)->chain);
}

static void
read_policy(ChainPolicy *policy, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		ttl = heap_getattr(tuple, POLICY_TTL, desc, &isnull);

	policy->ttl = NULL;
	if (!isnull)
	{
		policy->ttl = palloc(sizeof(Interval));
		*policy->ttl = *DatumGetIntervalP(ttl);
	}
	policy->chain = TextDatumGetCString(heap_getattr(tuple, POLICY_CHAIN, desc,
													 &isnull));
	policy->paused = DatumGetBool(heap_getattr(tuple, POLICY_PAUSED, desc,
											   &isnull));
}

/* All rows, in the current memory context; sets *n. */
static ChainPolicy *
read_policies(int *n)
{
	Relation	rel = catalog_table_open(CATALOG_CHAIN_POLICY);
	SysScanDesc scan = catalog_table_scan(CATALOG_CHAIN_POLICY, rel, NULL);
	int			room = 8;
	ChainPolicy *found = palloc(room * sizeof(ChainPolicy));
	HeapTuple	tuple;

	*n = 0;
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		if (*n == room)
		{
			room *= 2;
			found = repalloc_huge(found, room * sizeof(ChainPolicy));
		}
		read_policy(&found[(*n)++], tuple, RelationGetDescr(rel));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	qsort(found, *n, sizeof(ChainPolicy), compare_policies);
	return found;
}

static void
keep_policies(ChainPolicy *found, int n)
{
	policies = found;
	npolicies = n;
	any_paused = false;
	for (int i = 0; i < n && !any_paused; i++)
		any_paused = found[i].paused;
}

/* Has the policies at hand.  Needs a transaction when one has changed. */
static void
refresh(void)
{
	MemoryContext context;
	MemoryContext old;
	ChainPolicy *found;
	int			n;

	if (catalog_cache_enter(&catalog_policies))
		policies = NULL;
	if (policies != NULL)
		return;
	/* hung into the cache when it is complete */
	context = AllocSetContextCreate(CurrentMemoryContext,
									"chaincall chain policies",
									ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	found = read_policies(&n);
	MemoryContextSetParent(context, catalog_policies.context);
	keep_policies(found, n);
	MemoryContextSwitchTo(old);
}

static const ChainPolicy *
find_policy(const char *signature)
{
	ChainPolicy key = {signature};

	refresh();
	return npolicies == 0 ? NULL :
		bsearch(&key, policies, npolicies, sizeof(ChainPolicy),
				compare_policies);
}

/*
 * How long jobs of the chain may live that say nothing of it; NULL: for ever.
 * Good until the next call into the catalog.
 */
const Interval *
catalog_chain_ttl(const char *signature)
{
	const ChainPolicy *policy = find_policy(signature);

	return policy ? policy->ttl : NULL;
}

/* Is the chain one whose jobs are not to be claimed? */
bool
catalog_chain_paused(const char *signature)
{
	const ChainPolicy *policy = find_policy(signature);

	return policy != NULL && policy->paused;
}

/* Is any chain paused? */
bool
catalog_any_chain_paused(void)
{
	refresh();
	return any_paused;
}
