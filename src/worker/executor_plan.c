/*
 * executor_plan.c
 *	  Plans of steps' statements, kept from step to step.
 *
 * What a statement means depends on its text, the search_path and the types
 * of its parameters; PostgreSQL's plan cache sees to the rest.  Types that were
 * inferred once may be wrong when a table has changed, so a statement that
 * fails for what it names is inferred anew the next time.
 */
#include "postgres.h"

#include "chain/definition.h"
#include "chain/local.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "worker/executor_plan.h"

/* Plans kept at most; then all of them are forgotten. */
#define MAX_PLANS 512

typedef struct KeptPlan
{
	uint64		hash;			/* of text */
	MemoryContext cxt;
	char	   *text;			/* all that makes the statement what it is */
	int			nparams;
	Oid		   *types;
	SPIPlanPtr	plan;			/* NULL until prepared */
} KeptPlan;

static HTAB *plans = NULL;
static uint64 last_used = 0;	/* hash of the plan that is in use */

static void
forget(KeptPlan *kept)
{
	if (kept->plan != NULL)
		SPI_freeplan(kept->plan);
	if (kept->cxt != NULL)
		MemoryContextDelete(kept->cxt);
	(void) hash_search(plans, &kept->hash, HASH_REMOVE, NULL);
}

static void
forget_all(void)
{
	HASH_SEQ_STATUS seq;
	KeptPlan   *kept;

	hash_seq_init(&seq, plans);
	while ((kept = hash_seq_search(&seq)) != NULL)
		forget(kept);
}

static char *
key_of(const StepOrder *order)
{
	StringInfoData key;

	initStringInfo(&key);
	appendStringInfo(&key, "%d %d %d\n%s\n", order->kind,
					 order->kind == ORDER_SQL ? order->returns : 0,
					 order->nparams, order->search_path);
	for (int i = 0; order->types != NULL && i < order->nparams; i++)
		appendStringInfo(&key, "%s\n", order->types[i]);
	appendStringInfoString(&key, order->sql);
	return key.data;
}

static Oid *
named_types(const StepOrder *order)
{
	Oid		   *types = palloc(Max(order->nparams, 1) * sizeof(Oid));

	for (int i = 0; i < order->nparams; i++)
		types[i] = DatumGetObjectId(DirectFunctionCall1(regtypein,
														CStringGetDatum(order->types[i])));
	return types;
}

static Oid *
inferred_types(const StepOrder *order)
{
	SqlTemplate text = {
		.sql = unconstify(char *, order->sql),
		.line = order->line,
		.nparams = order->nparams
	};
	SqlStep		sql = {.text = &text,.returns = order->returns};

	bind_sql(&sql, order->line);
	return sql.types;
}

static KeptPlan *
keep(const char *text, uint64 hash, const StepOrder *order)
{
	Oid		   *types = order->types ? named_types(order) :
		inferred_types(order);
	KeptPlan   *kept = hash_search(plans, &hash, HASH_ENTER, NULL);

	/* harmless to find again if what follows fails */
	kept->plan = NULL;
	kept->text = NULL;
	kept->cxt = NULL;
	kept->cxt = AllocSetContextCreate(TopMemoryContext, "chaincall plan",
									  ALLOCSET_SMALL_SIZES);
	kept->nparams = order->nparams;
	kept->types = MemoryContextAlloc(kept->cxt,
									 Max(order->nparams, 1) * sizeof(Oid));
	memcpy(kept->types, types, order->nparams * sizeof(Oid));
	kept->text = MemoryContextStrdup(kept->cxt, text);
	return kept;
}

/*
 * The plan of the order's statement, prepared by the current search_path as
 * the current user, and the types of its parameters.  In SPI.
 */
SPIPlanPtr
executor_plan(const StepOrder *order, Oid **types)
{
	char	   *text = key_of(order);
	uint64		hash = hash_bytes_extended((const unsigned char *) text,
										   (int) strlen(text), 0);
	KeptPlan   *kept = NULL;

	if (plans == NULL)
	{
		HASHCTL		ctl = {
			.keysize = sizeof(uint64),
			.entrysize = sizeof(KeptPlan),
			.hcxt = TopMemoryContext
		};

		plans = hash_create("chaincall plans", MAX_PLANS, &ctl,
							HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	else
		kept = hash_search(plans, &hash, HASH_FIND, NULL);
	if (kept != NULL && (kept->text == NULL || strcmp(kept->text, text) != 0))
	{
		forget(kept);
		kept = NULL;
	}
	if (kept == NULL)
	{
		if (hash_get_num_entries(plans) >= MAX_PLANS)
			forget_all();
		kept = keep(text, hash, order);
	}
	last_used = hash;
	*types = kept->types;
	return local_plan(&kept->plan, order->sql, kept->nparams, kept->types);
}

/* The statement last asked for failed for what it names. */
void
executor_plan_forget(void)
{
	KeptPlan   *kept = plans == NULL ? NULL :
		hash_search(plans, &last_used, HASH_FIND, NULL);

	if (kept != NULL)
		forget(kept);
}
