/*
 * stats_read.c
 *	  The statistics of models and endpoints as rows.
 *
 * Under the shared lock no entry is made or freed; each is copied under its
 * spinlock, and what takes longer is done with the copy.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "trace/stats_private.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define RATE_SECONDS 60

/* A model's sum over its endpoints. */
typedef struct ModelSum
{
	char		model[MODEL_LEN];	/* hash key */
	StatsEntry	sum;
} ModelSum;

/* Attempts a second over the last minute's whole seconds, or since `since`. */
static double
rate_of(const Counters *counters, TimestampTz now)
{
	int64		second = now / USECS_PER_SEC;
	int64		age = second - counters->since / USECS_PER_SEC;
	int64		attempts = 0;

	for (int i = 0; i < RING; i++)
	{
		const Second *slot = &counters->ring[i];

		if (slot->second >= second - RATE_SECONDS && slot->second < second)
			attempts += slot->attempts;
	}
	return (double) attempts / Min(Max(age, 1), RATE_SECONDS);
}

static StatsRow *
make_row(const StatsEntry *entry, bool by_model, TimestampTz now)
{
	const Counters *counters = &entry->counters;
	StatsRow   *row = palloc0(sizeof(StatsRow));
	uint64		timed = histogram_total(&counters->latency);

	row->model = pstrdup(entry->model);
	if (!by_model)
	{
		row->version = pstrdup(entry->version);
		row->server = pstrdup(entry->server);
		row->id = entry->hash;
	}
	memcpy(row->by_class, counters->by_class, sizeof(row->by_class));
	row->in_flight = entry->in_flight;
	row->tokens_in = counters->tokens_in;
	row->tokens_out = counters->tokens_out;
	row->rate = rate_of(counters, now);
	row->mean_us = timed ? (double) counters->sum_us / timed : -1;
	row->p50_us = histogram_quantile(&counters->latency, 0.50);
	row->p99_us = histogram_quantile(&counters->latency, 0.99);
	row->first_p50_us = histogram_quantile(&counters->first_byte, 0.50);
	row->first_p99_us = histogram_quantile(&counters->first_byte, 0.99);
	row->since = counters->since;
	row->last_begun_at = counters->last_begun_at;
	row->last_failed_at = counters->last_failed_at;
	row->last_failure = counters->last_failure;
	return row;
}

static void
merge_seconds(Second *into, const Second *from)
{
	for (int i = 0; i < RING; i++)
	{
		if (into[i].second == from[i].second)
			into[i].attempts += from[i].attempts;
		else if (into[i].second < from[i].second)
			into[i] = from[i];
	}
}

static void
merge_counters(Counters *into, const Counters *from)
{
	into->since = Min(into->since, from->since);
	into->last_begun_at = Max(into->last_begun_at, from->last_begun_at);
	if (from->last_failed_at > into->last_failed_at)
	{
		into->last_failed_at = from->last_failed_at;
		into->last_failure = from->last_failure;
	}
	for (int i = 0; i < (int) lengthof(into->by_class); i++)
		into->by_class[i] += from->by_class[i];
	into->tokens_in += from->tokens_in;
	into->tokens_out += from->tokens_out;
	into->sum_us += from->sum_us;
	merge_seconds(into->ring, from->ring);
	histogram_merge(&into->latency, &from->latency);
	histogram_merge(&into->first_byte, &from->first_byte);
}

static void
add_to_model(HTAB *models, const StatsEntry *entry)
{
	bool		found;
	ModelSum   *model = hash_search(models, entry->model, HASH_ENTER, &found);

	if (!found)
		model->sum = *entry;
	else
	{
		model->sum.in_flight += entry->in_flight;
		merge_counters(&model->sum.counters, &entry->counters);
	}
}

static HTAB *
make_models(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = MODEL_LEN;
	ctl.entrysize = sizeof(ModelSum);
	ctl.hcxt = CurrentMemoryContext;
	return hash_create("chaincall model statistics", 64, &ctl,
					   HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

/* Of this database, or "(other)", if anything was ever counted there. */
static bool
is_ours(const StatsEntry *entry)
{
	if (entry->hash == 0)
		return false;
	if (OidIsValid(entry->database))
		return entry->database == MyDatabaseId;
	return entry->counters.last_begun_at != 0;
}

/*
 * A consistent copy, if the entry is ours; under the lock, so that it is not
 * made or freed meanwhile.
 */
static bool
copy_entry(const StatsEntry *entry, StatsEntry *copy)
{
	StatsEntry *locked = unconstify(StatsEntry *, entry);

	if (!is_ours(entry))
		return false;
	SpinLockAcquire(&locked->mutex);
	memcpy(copy, entry, sizeof(StatsEntry));
	SpinLockRelease(&locked->mutex);
	return true;
}

/*
 * What was counted for the endpoints of this database, or for its models: a
 * list of StatsRow, palloc'd, in no order.  Empty without shared memory.
 */
List *
stats_read(bool by_model)
{
	TimestampTz now = GetCurrentTimestamp();
	HTAB	   *models = NULL;
	StatsEntry *copy;
	List	   *rows = NIL;

	if (stats_area == NULL)
		return NIL;
	copy = palloc(sizeof(StatsEntry));
	if (by_model)
		models = make_models();
	LWLockAcquire(&stats_area->lock, LW_SHARED);
	for (int i = 0; i <= stats_area->nentries; i++)
	{
		if (!copy_entry(&stats_area->entries[i], copy))
			continue;
		if (by_model)
			add_to_model(models, copy);
		else
			rows = lappend(rows, make_row(copy, false, now));
	}
	LWLockRelease(&stats_area->lock);
	pfree(copy);
	if (by_model)
	{
		HASH_SEQ_STATUS all;
		ModelSum   *model;

		hash_seq_init(&all, models);
		while ((model = hash_seq_search(&all)) != NULL)
			rows = lappend(rows, make_row(&model->sum, true, now));
		hash_destroy(models);
	}
	return rows;
}
