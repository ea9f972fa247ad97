/*
 * catalog_model.c
 *	  Models and their endpoints, as the tables have them.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "base/json.h"
#include "catalog/catalog_cache.h"
#include "catalog/catalog_option.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

/* Columns, in the order of CREATE TABLE. */
enum
{
	MODEL_NAME = 1, MODEL_KIND, MODEL_PARAMS, MODEL_RETRY, MODEL_TIMEOUT,
	MODEL_FALLBACK, MODEL_PAUSED
};
enum
{
	ENDPOINT_MODEL = 1, ENDPOINT_VERSION, ENDPOINT_SERVER,
	ENDPOINT_REMOTE_NAME, ENDPOINT_WEIGHT
};

typedef struct ModelEntry
{
	char		name[CATALOG_NAME_SIZE];
	const ModelInfo *info;
} ModelEntry;

static char *
text_column(HeapTuple tuple, TupleDesc desc, int attno)
{
	bool		isnull;
	Datum		datum = heap_getattr(tuple, attno, desc, &isnull);

	return isnull ? NULL : TextDatumGetCString(datum);
}

static Jsonb *
jsonb_column(HeapTuple tuple, TupleDesc desc, int attno)
{
	bool		isnull;
	Datum		datum = heap_getattr(tuple, attno, desc, &isnull);

	return isnull ? NULL : DatumGetJsonbPCopy(datum);
}

static void
read_fallback(ModelInfo *model, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		datum = heap_getattr(tuple, MODEL_FALLBACK, desc, &isnull);
	Datum	   *names;

	if (isnull)
		return;
	deconstruct_array(DatumGetArrayTypeP(datum), TEXTOID, -1, false,
					  TYPALIGN_INT, &names, NULL, &model->nfallback);
	model->fallback = palloc(Max(model->nfallback, 1) * sizeof(char *));
	for (int i = 0; i < model->nfallback; i++)
		model->fallback[i] = TextDatumGetCString(names[i]);
}

static ModelInfo *
model_from_tuple(HeapTuple tuple, TupleDesc desc)
{
	ModelInfo  *model = palloc0(sizeof(ModelInfo));
	Jsonb	   *retry = jsonb_column(tuple, desc, MODEL_RETRY);
	Datum		datum;
	bool		isnull;

	model->name = text_column(tuple, desc, MODEL_NAME);
	model->kind = text_column(tuple, desc, MODEL_KIND);
	model->params = jsonb_column(tuple, desc, MODEL_PARAMS);
	model->retry = retry ? option_retry(retry) : NULL;
	datum = heap_getattr(tuple, MODEL_TIMEOUT, desc, &isnull);
	if (!isnull)
		model->timeout_ms = (int) Min(option_interval_ms(DatumGetIntervalP(datum)),
									  PG_INT32_MAX);
	read_fallback(model, tuple, desc);
	datum = heap_getattr(tuple, MODEL_PAUSED, desc, &isnull);
	model->paused = !isnull && DatumGetBool(datum);
	return model;
}

static uint64
hash_text(const char *text, uint64 seed)
{
	return hash_bytes_extended((const unsigned char *) text, strlen(text),
							   seed);
}

/* Never 0. */
static uint64
endpoint_id(const ModelInfo *model, const EndpointInfo *endpoint)
{
	uint64		hash = hash_text(model->name, MyDatabaseId);

	hash = hash_text(endpoint->version, hash);
	hash = hash_text(endpoint->server, hash);
	hash = hash_text(endpoint->remote_name, hash);
	return hash != 0 ? hash : 1;
}

static void
load_endpoints(ModelInfo *model)
{
	Relation	rel = catalog_table_open(CATALOG_ENDPOINT);
	TupleDesc	desc = RelationGetDescr(rel);
	SysScanDesc scan = catalog_table_scan(CATALOG_ENDPOINT, rel, model->name);
	HeapTuple	tuple;
	int			room = 0;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		EndpointInfo *endpoint;
		bool		isnull;

		if (model->nendpoints == room)
		{
			room = room ? room * 2 : 2;
			model->endpoints = model->endpoints
				? repalloc(model->endpoints, room * sizeof(EndpointInfo))
				: palloc(room * sizeof(EndpointInfo));
		}
		endpoint = &model->endpoints[model->nendpoints++];
		endpoint->version = text_column(tuple, desc, ENDPOINT_VERSION);
		endpoint->server = text_column(tuple, desc, ENDPOINT_SERVER);
		endpoint->remote_name = text_column(tuple, desc, ENDPOINT_REMOTE_NAME);
		endpoint->weight = DatumGetFloat8(heap_getattr(tuple, ENDPOINT_WEIGHT,
													   desc, &isnull));
		endpoint->id = endpoint_id(model, endpoint);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

static ModelInfo *
load_model(const char *name)
{
	Relation	rel = catalog_table_open(CATALOG_MODEL);
	SysScanDesc scan = catalog_table_scan(CATALOG_MODEL, rel, name);
	HeapTuple	tuple = systable_getnext(scan);
	ModelInfo  *model = NULL;

	if (HeapTupleIsValid(tuple))
		model = model_from_tuple(tuple, RelationGetDescr(rel));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (model != NULL)
		load_endpoints(model);
	return model;
}

static void
model_missing(const char *name)
{
	char	   *nearest = catalog_nearest_model(name);

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("model \"%s\" does not exist", name),
			 nearest ? errhint("Did you mean \"%s\"?", nearest)
			 : errhint("INSERT INTO chaincall.model (name) VALUES (%s), and a row into chaincall.endpoint that names its server.",
					   quote_literal_cstr(name))));
}

/*
 * The model of that name with its endpoints.
 *
 * Without missing_ok raises ERRCODE_UNDEFINED_OBJECT when there is none.  The
 * result belongs to the cache and is good until the next catalog_model().  A
 * name that is not cached needs a transaction.
 */
const ModelInfo *
catalog_model(const char *name, bool missing_ok)
{
	ModelEntry *entry = NULL;
	ModelInfo  *model = NULL;
	bool		found;

	(void) catalog_cache_enter(&catalog_models);
	if (strlen(name) < CATALOG_NAME_SIZE)
	{
		MemoryContext context;
		MemoryContext old;

		if (catalog_models.entries == NULL)
			catalog_models.entries = catalog_cache_names(&catalog_models,
														 "chaincall models",
														 sizeof(ModelEntry));
		entry = hash_search(catalog_models.entries, name, HASH_FIND, NULL);
		if (entry != NULL)
			return entry->info;

		/* hung into the cache when it is complete */
		context = AllocSetContextCreate(CurrentMemoryContext,
										"chaincall model",
										ALLOCSET_SMALL_SIZES);
		old = MemoryContextSwitchTo(context);
		model = load_model(name);
		MemoryContextSwitchTo(old);
		if (model != NULL)
		{
			entry = hash_search(catalog_models.entries, name, HASH_ENTER,
								&found);
			entry->info = model;
			MemoryContextSetParent(context, catalog_models.context);
		}
		else
			MemoryContextDelete(context);
	}
	if (model == NULL && !missing_ok)
		model_missing(name);
	return model;
}

/* Edits by which a name may miss the one that was meant. */
static int
tolerance(const char *name)
{
	return Max(2, (int) strlen(name) / 4);
}

/* The model whose name is nearest to what was typed, palloc'd, or NULL. */
char *
catalog_nearest_model(const char *name)
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *nearest = NULL;
	int			least = tolerance(name) + 1;

	if (strlen(name) >= CATALOG_NAME_SIZE)
		return NULL;
	rel = catalog_table_open(CATALOG_MODEL);
	scan = catalog_table_scan(CATALOG_MODEL, rel, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		char	   *known = text_column(tuple, RelationGetDescr(rel),
										MODEL_NAME);
		int			distance;

		distance = varstr_levenshtein_less_equal(name, strlen(name),
												 known, strlen(known),
												 1, 1, 1, least - 1, true);
		if (distance < least && distance < (int) strlen(name))
		{
			least = distance;
			nearest = known;
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return nearest;
}
