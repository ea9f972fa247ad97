/*
 * plan_limit.c
 *	  How long an item may take: `timeout`, also of a run that is taken down
 *	  and made anew.
 *
 * A deadline belongs to an item and is kept by the clock of this process.  A
 * driver that takes a run down for a while (a job that is parked) asks for the
 * deadlines by path and gives them to the plan that goes on: what is under way
 * ends at its first time.  Items that were late are remembered as well, with
 * no time at all: they fail again at once, or the run would do anew what it
 * has given up.
 *
 * A plan that goes on first catches up: what is stored is given back to it
 * while no deadline counts, so that what was done in time stays done, however
 * late the run goes on.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/value.h"
#include "catalog/pg_type.h"
#include "chain/plan_private.h"
#include "utils/timestamp.h"

/* Drivers stop statements by timers of whole milliseconds. */
#define TIMER_SLACK_US 1000

static int
compare_deadlines(const pairingheap_node *a, const pairingheap_node *b,
				  void *arg)
{
	int64		ta = pairingheap_const_container(ItemRun, deadline_node, a)->deadline_us;
	int64		tb = pairingheap_const_container(ItemRun, deadline_node, b)->deadline_us;

	return ta < tb ? 1 : ta > tb ? -1 : 0;
}

/* Makes what a new plan needs for deadlines; its options are set. */
void
plan_limit_init(ChainPlan *plan)
{
	plan->deadlines.ph_compare = compare_deadlines;
	plan->catching_up = plan->options.deadlines != NULL;
}

/* The nearest deadline of all that is around the run. */
int64
plan_limit_around(const StepRun *run)
{
	const ItemRun *around = plan_around(run);

	return around ? around->limit_us : CLOCK_NEVER;
}

/* When an earlier plan had the item end; DT_NOBEGIN: it was late, DT_NOEND: not known. */
static TimestampTz
inherited(const ChainPlan *plan, const ItemRun *item)
{
	StringInfoData path;
	Jsonb	   *time;
	bool		isnull;

	if (plan->options.deadlines == NULL)
		return DT_NOEND;
	initStringInfo(&path);
	path_of_deadline(&path, item);
	time = json_field(plan->options.deadlines, path.data);
	return time == NULL ? DT_NOEND :
		DatumGetTimestampTz(value_to_datum(time, TIMESTAMPTZOID, -1, &isnull));
}

/* Gives a new item its deadline, and the nearest one of those around it. */
void
plan_limit_item(ChainPlan *plan, ItemRun *item)
{
	const Step *step = item->run->step;
	TimestampTz time;

	item->deadline_us = CLOCK_NEVER;
	item->limit_us = plan_limit_around(item->run);
	if (step->timeout_ms == 0 || plan->options.untimed)
		return;
	time = inherited(plan, item);
	if (time == DT_NOBEGIN)
	{
		item->late = true;
		return;
	}
	item->deadline_us = clock_us() +
		(time == DT_NOEND ? step->timeout_ms * 1000 :
		 time - GetCurrentTimestamp());
	item->limit_us = Min(item->limit_us, item->deadline_us);
	pairingheap_add(&plan->deadlines, &item->deadline_node);
}

/* The item's timeout no longer counts. */
void
plan_drop_deadline(ChainPlan *plan, ItemRun *item)
{
	if (item->deadline_us == CLOCK_NEVER)
		return;
	pairingheap_remove(&plan->deadlines, &item->deadline_node);
	item->deadline_us = CLOCK_NEVER;
}

/* The item whose deadline comes first; NULL: none has one, or none counts yet. */
ItemRun *
plan_first_deadline(const ChainPlan *plan)
{
	if (plan->catching_up || pairingheap_is_empty(&plan->deadlines))
		return NULL;
	return pairingheap_container(ItemRun, deadline_node,
								 pairingheap_first(unconstify(pairingheap *, &plan->deadlines)));
}

/*
 * Is plan_tick() needed before anything else?  Only the driver knows whether
 * an answer has come in time, so nothing is judged here.
 */
bool
plan_is_overdue(const ChainPlan *plan)
{
	const ItemRun *item = plan_first_deadline(plan);

	return item != NULL && item->deadline_us <= clock_us();
}

/*
 * A plan with PlanOptions.deadlines has been given all that is stored: from now
 * on its deadlines count.
 */
void
plan_caught_up(ChainPlan *plan)
{
	plan->catching_up = false;
}

/* ---- being late ---- */

/*
 * Who fails when item is late: the outermost of those around it whose time is
 * up as well, or an inner on_error would go on in a chain that is over.
 */
static ItemRun *
late_around(ItemRun *item, int64 now_us)
{
	ItemRun    *late = item;

	while (item != NULL)
	{
		if (item->deadline_us <= now_us)
			late = item;
		item = plan_around(item->run);
	}
	return late;
}

/* A job that is taken down must not do again what has taken too long. */
static void
note_late(ChainPlan *plan, const ItemRun *item)
{
	StringInfoData path;
	MemoryContext old;

	if (!plan->options.job)
		return;
	old = MemoryContextSwitchTo(plan->cxt);
	initStringInfo(&path);
	path_of_deadline(&path, item);
	plan->late = lappend(plan->late, pstrdup(path.data));
	pfree(path.data);
	MemoryContextSwitchTo(old);
}

/* The item has taken too long: it, or what around it has too, fails. */
void
plan_time_out(ChainPlan *plan, ItemRun *item, int64 now_us)
{
	StepError  *error;

	item = late_around(item, now_us);
	if (!item->late)
		note_late(plan, item);
	error = plan_make_error(plan, item, CLASS_TIMEOUT,
							psprintf("step took longer than %lld ms",
									 (long long) item->run->step->timeout_ms),
							NULL,
							"Raise \"timeout\", or say with \"on_error\" what is to happen then.");
	if (item->task != NULL)
		plan_note_input(plan, item->task, item, error);
	plan_item_fail(plan, item, error);
}

/* A driver's task has failed because of a timeout; who fails by it. */
ItemRun *
plan_late_item(ChainPlan *plan, ItemRun *item)
{
	int64		now_us = clock_us() + TIMER_SLACK_US;

	item = late_around(item, now_us);
	if (item->deadline_us <= now_us)
		note_late(plan, item);
	return item;
}

/* ---- for the plan that goes on ---- */

static void
push_time(JsonbParseState **state, const char *path, TimestampTz time)
{
	json_push_key(state, path);
	json_push(state, WJB_VALUE,
			  value_from_datum(TimestampTzGetDatum(time), false,
							   TIMESTAMPTZOID));
}

/* Those that were late before this plan was made. */
static bool
push_inherited(JsonbParseState **state, const Jsonb *deadlines)
{
	JsonbIterator *it = JsonbIteratorInit(unconstify(JsonbContainer *, &deadlines->root));
	JsonbIteratorToken token;
	JsonbValue	key;
	JsonbValue	value;
	bool		any = false;

	while ((token = JsonbIteratorNext(&it, &key, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &value, true);
		if (value.type != jbvString || value.val.string.len == 0 ||
			value.val.string.val[0] != '-')
			continue;
		push_time(state, pnstrdup(key.val.string.val, key.val.string.len),
				  DT_NOBEGIN);
		any = true;
	}
	return any;
}

static void
push_running(JsonbParseState **state, StepRun *run, bool *any)
{
	dlist_iter	iter;

	dlist_foreach(iter, &run->items)
	{
		const ItemRun *item = dlist_container(ItemRun, link, iter.cur);

		if (item->deadline_us != CLOCK_NEVER)
		{
			StringInfoData path;

			initStringInfo(&path);
			path_of_deadline(&path, item);
			push_time(state, path.data,
					  GetCurrentTimestamp() + (item->deadline_us - clock_us()));
			*any = true;
		}
		for (int i = 0; item->children != NULL && i < run->step->nsteps; i++)
			push_running(state, item->children[i], any);
		if (item->inner)
			push_running(state, item->inner, any);
		if (item->nested && item->nested->body)
			push_running(state, item->nested->body, any);
	}
}

/*
 * What PlanOptions.deadlines of a plan that goes on with this run should be:
 * an object of path → time, palloc'd; NULL: nothing has, or had, a timeout.
 */
Jsonb *
plan_deadlines(const ChainPlan *plan)
{
	JsonbParseState *state = NULL;
	bool		any = plan->late != NIL;
	ListCell   *lc;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (plan->options.deadlines != NULL)
		any |= push_inherited(&state, plan->options.deadlines);
	foreach(lc, plan->late)
		push_time(&state, lfirst(lc), DT_NOBEGIN);
	push_running(&state, plan->root->body, &any);
	return any ? JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)) :
		NULL;
}
