/*
 * plan.c
 *	  The transitions of a run: what can go on when something has ended.
 *
 * A chain's run is a tree.  A StepRun is one run of a step with its items, an
 * ItemRun one of those; inside an item there is a task (a leaf), the StepRuns
 * of a block, an arm, a handler, or the run of another chain.
 *
 *	StepRun   new ─► when ─► each ─► items ─────────────────► done
 *	ItemRun   new ─► body ─► ready ─► task ──► until ─► done
 *	               ▲   └───► inside ─► output ───┘ │
 *	               └──────── next round ◄──────────┘
 *	          a failure: backoff (retry) ─► body, else handler ─► done, else
 *	          the StepRun fails, and with it the item it belongs to
 *
 * Whoever needs an output that is not there yet leaves a Waiter with the step
 * and is put on the agenda when the last one it waits for has ended.  There is
 * no other order: items of one `each` run through the steps of a block each at
 * its own pace.  The agenda is a queue, not recursion, so that neither long
 * chains nor wide fan-outs use stack.
 *
 * Items are opened only when a driver asks for more than is ready, so a wide
 * fan-out costs memory for what runs, not for what waits.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/settings.h"
#include "chain/plan_private.h"
#include "common/pg_prng.h"
#include "utils/memutils.h"

static void start_body(ChainPlan *plan, ItemRun *item);
static void item_fail(ChainPlan *plan, ItemRun *item, StepError *error);
static void step_done(ChainPlan *plan, StepRun *run, Jsonb *output);
static void step_fail(ChainPlan *plan, StepRun *run, StepError *error);
static void abort_inside(ChainPlan *plan, ItemRun *item);

/* ---- agenda and waiting ---- */

static void
agenda_add(ChainPlan *plan, RunNode *node)
{
	if (node->on_agenda)
		return;
	node->on_agenda = true;
	dlist_push_tail(&plan->agenda, &node->agenda);
}

static void
stop_waiting(RunNode *node)
{
	for (int i = 0; i < node->nwaiters; i++)
	{
		if (node->waiters[i].link.next != NULL)
			dlist_delete(&node->waiters[i].link);
	}
	if (node->waiters)
		pfree(node->waiters);
	node->waiters = NULL;
	node->nwaiters = 0;
	node->missing = 0;
}

/*
 * True when all that is needed has ended; else the node waits and is put on
 * the agenda when it has.  item is where the look-up of names begins.
 */
static bool
have_needs(ChainPlan *plan, RunNode *node, const ItemRun *item,
		   const Needs *needs)
{
	stop_waiting(node);
	for (int i = 0; i < needs->count; i++)
	{
		const NameRef *ref = &needs->refs[i];
		const ItemRun *owner = item;
		StepRun    *step;
		Waiter	   *waiter;

		while (owner->run->step != ref->owner)
			owner = owner->run->parent;
		step = owner->children[ref->slot];
		if (step->phase == RUN_DONE)
			continue;
		if (node->waiters == NULL)
			node->waiters = MemoryContextAllocZero(plan->cxt,
												   needs->count *
												   sizeof(Waiter));
		waiter = &node->waiters[node->nwaiters++];
		waiter->node = node;
		dlist_push_tail(&step->waiters, &waiter->link);
		node->missing++;
	}
	return node->missing == 0;
}

static void
wake_waiters(ChainPlan *plan, StepRun *run)
{
	while (!dlist_is_empty(&run->waiters))
	{
		dlist_node *link = dlist_pop_head_node(&run->waiters);
		Waiter	   *waiter = dlist_container(Waiter, link, link);

		link->next = NULL;
		if (--waiter->node->missing == 0)
			agenda_add(plan, waiter->node);
	}
}

/* ---- timers ---- */

static int
compare_deadlines(const pairingheap_node *a, const pairingheap_node *b,
				  void *arg)
{
	int64		ta = pairingheap_const_container(ItemRun, deadline_node, a)->deadline_us;
	int64		tb = pairingheap_const_container(ItemRun, deadline_node, b)->deadline_us;

	return ta < tb ? 1 : ta > tb ? -1 : 0;
}

static int
compare_retries(const pairingheap_node *a, const pairingheap_node *b,
				void *arg)
{
	int64		ta = pairingheap_const_container(ItemRun, retry_node, a)->retry_us;
	int64		tb = pairingheap_const_container(ItemRun, retry_node, b)->retry_us;

	return ta < tb ? 1 : ta > tb ? -1 : 0;
}

static void
drop_deadline(ChainPlan *plan, ItemRun *item)
{
	if (item->deadline_us == CLOCK_NEVER)
		return;
	pairingheap_remove(&plan->deadlines, &item->deadline_node);
	item->deadline_us = CLOCK_NEVER;
}

static int64
limit_around(const StepRun *run)
{
	const ItemRun *around = run->parent ? run->parent : run->chain->parent;

	return around ? around->limit_us : CLOCK_NEVER;
}

/* ---- making and freeing ---- */

static StepRun *
make_run(ChainPlan *plan, const Step *step, RunRole role, ItemRun *parent,
		 ChainRun *chain)
{
	StepRun    *run = MemoryContextAllocZero(plan->cxt, sizeof(StepRun));
	ItemRun    *around = parent ? parent : chain->parent;

	run->step = step;
	run->role = role;
	run->parent = parent;
	run->chain = chain;
	dlist_init(&run->waiters);
	dlist_init(&run->items);
	if (around == NULL)
		run->catchable = false;
	else if (role == ROLE_HANDLER)
		run->catchable = around->run->catchable;
	else
		run->catchable = around->catchable;
	agenda_add(plan, &run->node);
	return run;
}

static void
free_run(ChainPlan *plan, StepRun *run)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &run->items)
	{
		ItemRun    *item = dlist_container(ItemRun, link, iter.cur);

		abort_inside(plan, item);
		drop_deadline(plan, item);
		dlist_delete(&item->link);
		pfree(item);
	}
	stop_waiting(&run->node);
	if (run->node.on_agenda)
		dlist_delete(&run->node.agenda);
	if (run->opening)
		dlist_delete(&run->opener);
	if (run->outputs)
		pfree(run->outputs);
	if (run->elements)
		pfree(run->elements);
	if (run->output)
		pfree(run->output);
	pfree(run);
}

/* Stops and frees whatever is inside the item; the item itself stays. */
static void
abort_inside(ChainPlan *plan, ItemRun *item)
{
	stop_waiting(&item->node);
	if (item->node.on_agenda)
	{
		dlist_delete(&item->node.agenda);
		item->node.on_agenda = false;
	}
	if (item->phase == ITEM_READY)
		dlist_delete(&item->ready);
	if (item->phase == ITEM_BACKOFF)
		pairingheap_remove(&plan->retries, &item->retry_node);
	if (item->task)
	{
		plan->ops->cancel(plan->driver, item->task);
		MemoryContextDelete(item->task->cxt);
		item->task = NULL;
	}
	if (item->children)
	{
		for (int i = 0; i < item->run->step->nsteps; i++)
			free_run(plan, item->children[i]);
		pfree(item->children);
		item->children = NULL;
	}
	if (item->inner)
	{
		free_run(plan, item->inner);
		item->inner = NULL;
	}
	if (item->nested)
	{
		free_run(plan, item->nested->body);
		for (int i = 0; i < item->nested->definition->nargs; i++)
			pfree(item->nested->inputs[i]);
		pfree(item->nested->inputs);
		pfree(item->nested);
		item->nested = NULL;
	}
	item->phase = ITEM_NEW;
}

/* ---- the end of things ---- */

static Jsonb *
collect_items(ChainPlan *plan, StepRun *run)
{
	MemoryContext old = MemoryContextSwitchTo(plan->scratch);
	Jsonb	   *array = json_array(run->outputs, run->nitems);

	MemoryContextSwitchTo(old);
	for (int i = 0; i < run->nitems; i++)
	{
		if (run->outputs[i])
			pfree(run->outputs[i]);
	}
	pfree(run->outputs);
	run->outputs = NULL;
	return plan_keep(plan, array);
}

static void
note_output(ChainPlan *plan, const char *path, const Jsonb *output)
{
	MemoryContext old = MemoryContextSwitchTo(plan->cxt);

	if (plan->outputs == NULL)
		(void) pushJsonbValue(&plan->outputs, WJB_BEGIN_OBJECT, NULL);
	json_push_key(&plan->outputs, pstrdup(path[0] ? path : "chain"));
	json_push(&plan->outputs, WJB_VALUE, plan_keep(plan, output));
	if (strcmp(path[0] ? path : "chain", plan->options.stop_after) == 0)
	{
		plan->stopped = true;
		plan->ended = true;
	}
	MemoryContextSwitchTo(old);
}

/* An item has its output, which it owns no longer. */
static void
item_done(ChainPlan *plan, ItemRun *item, Jsonb *output)
{
	StepRun    *run = item->run;

	if (plan->options.stop_after && item->index >= 0)
	{
		StringInfoData path;

		initStringInfo(&path);
		path_of_item(&path, item);
		if (strcmp(path.data, plan->options.stop_after) == 0)
			note_output(plan, path.data, output);
	}
	run->outputs[Max(item->index, 0)] = output;
	run->finished++;
	run->active--;
	abort_inside(plan, item);
	drop_deadline(plan, item);
	dlist_delete(&item->link);
	if (item->last)
		pfree(item->last);
	if (item->element)
		pfree(item->element);
	pfree(item);

	if (run->finished == run->nitems)
	{
		if (run->step->each)
			step_done(plan, run, collect_items(plan, run));
		else
			step_done(plan, run, run->outputs[0]);
	}
	else if (!run->opening && run->opened < run->nitems)
	{
		run->opening = true;
		dlist_push_tail(&plan->openers, &run->opener);
	}
}

static void
body_done(ChainPlan *plan, ItemRun *item, Jsonb *output)
{
	if (item->run->step->until == NULL)
	{
		item_done(plan, item, output);
		return;
	}
	if (item->last)
		pfree(item->last);
	item->last = output;
	item->phase = ITEM_UNTIL;
	agenda_add(plan, &item->node);
}

/* All that is inside an item has ended; its outputs are still there. */
static void
inside_done(ChainPlan *plan, ItemRun *item, StepRun *ended)
{
	Jsonb	   *output;
	StepError  *error;

	if (item->children)
	{
		if (--item->pending == 0)
		{
			item->phase = ITEM_OUTPUT;
			agenda_add(plan, &item->node);
		}
		return;
	}

	output = ended->output;
	ended->output = NULL;
	if (item->phase == ITEM_HANDLER)
	{
		item_done(plan, item, output);
		return;
	}
	if (item->nested)
	{
		Jsonb	   *result;

		error = plan_leave_chain(plan, item, output, &result);
		if (error != NULL)
		{
			item_fail(plan, item, error);
			return;
		}
		pfree(output);
		output = result;
	}
	if (item->run->step->until == NULL)
	{
		item_done(plan, item, output);
		return;
	}
	abort_inside(plan, item);
	body_done(plan, item, output);
}

static void
step_done(ChainPlan *plan, StepRun *run, Jsonb *output)
{
	run->phase = RUN_DONE;
	run->output = output;
	if (run->opening)
	{
		dlist_delete(&run->opener);
		run->opening = false;
	}
	if (plan->options.stop_after)
	{
		StringInfoData path;

		initStringInfo(&path);
		path_of_run(&path, run);
		note_output(plan, path.data, output);
	}
	wake_waiters(plan, run);
	if (run->parent)
		inside_done(plan, run->parent, run);
	else if (run->chain->parent)
		inside_done(plan, run->chain->parent, run);
	else
	{
		plan->output = output;
		plan->ended = true;
	}
}

static void
step_fail(ChainPlan *plan, StepRun *run, StepError *error)
{
	ItemRun    *around = run->parent ? run->parent : run->chain->parent;

	if (around)
		item_fail(plan, around, error);
	else
	{
		plan->error = error;
		plan->ended = true;
	}
}

/* Whether a written `retry` has attempts left for such a failure. */
static bool
may_retry(const ItemRun *item, const StepError *error, int64 *wait_us)
{
	const Step *step = item->run->step;
	int64		wait_ms;

	if (step->retry == NULL || step->kind == STEP_MODEL ||
		item->phase == ITEM_HANDLER ||
		item->attempt >= step->retry->attempts ||
		error->cls == CLASS_CANCELLED || error->cls == CLASS_DENIED ||
		error->cls == CLASS_TIMEOUT || error->cls == CLASS_LIMIT)
		return false;
	wait_ms = backoff_wait_ms(step->retry, item->attempt,
							  pg_prng_double(&pg_global_prng_state), 0);
	*wait_us = wait_ms * 1000;
	return item->limit_us == CLOCK_NEVER ||
		clock_us() + *wait_us < item->limit_us;
}

static void
item_fail(ChainPlan *plan, ItemRun *item, StepError *error)
{
	const Step *step = item->run->step;
	bool		handled = item->phase != ITEM_HANDLER;
	int64		wait_us;

	if (may_retry(item, error, &wait_us))
	{
		abort_inside(plan, item);
		item->attempt++;
		item->phase = ITEM_BACKOFF;
		item->retry_us = clock_us() + wait_us;
		pairingheap_add(&plan->retries, &item->retry_node);
		return;
	}

	abort_inside(plan, item);
	drop_deadline(plan, item);
	if (handled && step->on_error == ON_ERROR_SKIP)
		item_done(plan, item, plan_keep(plan, json_null()));
	else if (handled && step->on_error == ON_ERROR_STEP)
	{
		item->error = error;
		item->limit_us = limit_around(item->run);
		item->phase = ITEM_HANDLER;
		item->inner = make_run(plan, step->handler, ROLE_HANDLER, item,
							   item->run->chain);
	}
	else
		step_fail(plan, item->run, error);
}

/* ---- an item goes on ---- */

static void
start_block(ChainPlan *plan, ItemRun *item)
{
	const Step *step = item->run->step;

	item->phase = ITEM_INSIDE;
	item->pending = step->nsteps;
	item->children = MemoryContextAlloc(plan->cxt,
										step->nsteps * sizeof(StepRun *));
	for (int i = 0; i < step->nsteps; i++)
		item->children[i] = make_run(plan, step->steps[i], ROLE_CHILD, item,
									 item->run->chain);
}

/* Looks for the first arm that holds, as far as its names are known. */
static void
find_arm(ChainPlan *plan, ItemRun *item)
{
	const Step *step = item->run->step;

	item->phase = ITEM_SWITCH;
	for (; item->arm < step->nsteps; item->arm++)
	{
		const Step *arm = step->steps[item->arm];
		bool		holds = true;

		if (!have_needs(plan, &item->node, item, &arm->when_needs))
			return;
		if (arm->when)
		{
			StepError  *error = plan_condition(plan, item->run, item,
											   arm->when, item->catchable,
											   arm->slow, &holds);

			if (error != NULL)
			{
				item_fail(plan, item, error);
				return;
			}
		}
		if (!holds)
			continue;
		item->phase = ITEM_INSIDE;
		item->inner = make_run(plan, arm, ROLE_ARM, item, item->run->chain);
		item->inner->arm = item->arm;
		return;
	}
	body_done(plan, item, plan_keep(plan, json_null()));
}

static void
start_nested(ChainPlan *plan, ItemRun *item)
{
	ChainRun   *chain;
	bool		null_for_strict;
	StepError  *error;

	error = plan_enter_chain(plan, item, &chain, &null_for_strict);
	if (error != NULL)
	{
		item_fail(plan, item, error);
		return;
	}
	if (null_for_strict)
	{
		pfree(chain);
		body_done(plan, item, plan_keep(plan, json_null()));
		return;
	}
	item->phase = ITEM_INSIDE;
	item->nested = chain;
	chain->body = make_run(plan, chain->definition->body, ROLE_BODY, NULL,
						   chain);
}

static void
make_ready(ItemRun *item, dlist_head *queue)
{
	item->phase = ITEM_READY;
	dlist_push_tail(queue, &item->ready);
}

static void
start_value(ChainPlan *plan, ItemRun *item)
{
	Jsonb	   *output;
	StepError  *error = plan_json(plan, item, item->run->step->value,
								  &output);

	if (error != NULL)
		item_fail(plan, item, error);
	else
		body_done(plan, item, output);
}

/* Starts the body of a round or attempt: at once, or when it has its names. */
static void
start_body(ChainPlan *plan, ItemRun *item)
{
	const Step *step = item->run->step;

	item->phase = ITEM_BODY;
	if (!have_needs(plan, &item->node, item, &step->body_needs))
		return;
	switch (step->kind)
	{
		case STEP_MODEL:
			make_ready(item, &plan->ready_models);
			break;
		case STEP_SQL:
			make_ready(item, &plan->ready_local);
			break;
		case STEP_FUNCTION:
			if (step->function->is_chain)
				start_nested(plan, item);
			else
				make_ready(item, &plan->ready_local);
			break;
		case STEP_VALUE:
			start_value(plan, item);
			break;
		case STEP_BLOCK:
			start_block(plan, item);
			break;
		case STEP_SWITCH:
			item->arm = 0;
			find_arm(plan, item);
			break;
	}
}

/* A round begins; a mocked one ends at once. */
static void
start_round(ChainPlan *plan, ItemRun *item)
{
	item->attempt = 1;
	if (plan->options.mock)
	{
		StringInfoData path;
		Jsonb	   *mocked;

		initStringInfo(&path);
		path_of_item(&path, item);
		mocked = path_mocked(plan, path.data);
		if (mocked)
		{
			body_done(plan, item, plan_keep(plan, mocked));
			return;
		}
	}
	start_body(plan, item);
}

static void
finish_block(ChainPlan *plan, ItemRun *item)
{
	const Step *step = item->run->step;
	Jsonb	   *output;
	StepError  *error;

	if (!have_needs(plan, &item->node, item, &step->output_needs))
		return;
	if (step->output == NULL)
		output = plan_keep(plan, item->children[step->sink]->output);
	else
	{
		error = plan_json(plan, item, step->output, &output);
		if (error != NULL)
		{
			item_fail(plan, item, error);
			return;
		}
	}
	body_done(plan, item, output);
}

static void
finish_round(ChainPlan *plan, ItemRun *item)
{
	const Step *step = item->run->step;
	bool		enough;
	StepError  *error;

	if (!have_needs(plan, &item->node, item, &step->until_needs))
		return;
	error = plan_condition(plan, item->run, item, step->until,
						   item->catchable, step->slow, &enough);
	if (error != NULL)
	{
		item_fail(plan, item, error);
		return;
	}
	if (enough)
	{
		Jsonb	   *output = item->last;

		item->last = NULL;
		item_done(plan, item, output);
		return;
	}
	if (item->round >= step->max)
	{
		error = step_error_make(CLASS_LIMIT,
								psprintf("\"until\" did not hold after %d rounds",
										 item->round),
								psprintf("The condition is %s.",
										 step->until->source),
								psprintf("Raise \"max\", or accept the last round: %s || round == %d",
										 step->until->source, step->max));
		item_fail(plan, item, plan_place_error(plan, item->run, item, error));
		return;
	}
	abort_inside(plan, item);
	item->round++;
	start_round(plan, item);
}

static void
advance_item(ChainPlan *plan, ItemRun *item)
{
	switch (item->phase)
	{
		case ITEM_NEW:
			start_round(plan, item);
			break;
		case ITEM_BODY:
			start_body(plan, item);
			break;
		case ITEM_SWITCH:
			find_arm(plan, item);
			break;
		case ITEM_OUTPUT:
			finish_block(plan, item);
			break;
		case ITEM_UNTIL:
			finish_round(plan, item);
			break;
		case ITEM_READY:
		case ITEM_TASK:
		case ITEM_INSIDE:
		case ITEM_BACKOFF:
		case ITEM_HANDLER:
			break;
	}
}

/* ---- a step's run goes on ---- */

static void
open_item(ChainPlan *plan, StepRun *run)
{
	ItemRun    *item = MemoryContextAllocZero(plan->cxt, sizeof(ItemRun));
	const Step *step = run->step;
	int			n = run->opened++;

	item->node.is_item = true;
	item->run = run;
	item->index = step->each ? n : -1;
	item->round = 1;
	item->attempt = 1;
	item->deadline_us = CLOCK_NEVER;
	item->limit_us = limit_around(run);
	item->catchable = run->catchable || step->on_error != ON_ERROR_FAIL;
	run->active++;
	dlist_push_tail(&run->items, &item->link);
	if (step->each)
	{
		MemoryContext old = MemoryContextSwitchTo(plan->cxt);

		item->element = run->elements ? json_element(run->elements, n) :
			json_int(n + 1);
		MemoryContextSwitchTo(old);
	}
	if (step->timeout_ms > 0)
	{
		item->deadline_us = clock_us() + step->timeout_ms * 1000;
		item->limit_us = Min(item->limit_us, item->deadline_us);
		pairingheap_add(&plan->deadlines, &item->deadline_node);
	}
	agenda_add(plan, &item->node);
}

static void
start_items(ChainPlan *plan, StepRun *run)
{
	StepError  *error;

	if (run->step->each)
	{
		error = plan_elements(plan, run);
		if (error != NULL)
		{
			step_fail(plan, run, error);
			return;
		}
	}
	else
		run->nitems = 1;

	run->phase = RUN_ITEMS;
	run->outputs = MemoryContextAllocHuge(plan->cxt, Max(run->nitems, 1) *
										  sizeof(Jsonb *));
	memset(run->outputs, 0, Max(run->nitems, 1) * sizeof(Jsonb *));
	if (run->nitems == 0)
		step_done(plan, run, collect_items(plan, run));
	else if (run->step->each == NULL)
		open_item(plan, run);
	else
	{
		run->opening = true;
		dlist_push_tail(&plan->openers, &run->opener);
	}
}

static bool
mocked_run(ChainPlan *plan, StepRun *run)
{
	StringInfoData path;
	Jsonb	   *mocked;

	if (plan->options.mock == NULL)
		return false;
	initStringInfo(&path);
	path_of_run(&path, run);
	mocked = path_mocked(plan, path.data);
	if (mocked == NULL)
		return false;
	step_done(plan, run, plan_keep(plan, mocked));
	return true;
}

/* `when` is decided once, before `each`; a switch has decided it for its arm. */
static void
advance_run(ChainPlan *plan, StepRun *run)
{
	const Step *step = run->step;

	if (run->phase == RUN_NEW)
	{
		if (mocked_run(plan, run))
			return;
		run->phase = RUN_WHEN;
	}
	if (run->phase == RUN_WHEN)
	{
		bool		holds = true;

		if (!have_needs(plan, &run->node, run->parent, &step->when_needs))
			return;
		if (step->when && run->role != ROLE_ARM)
		{
			StepError  *error = plan_condition(plan, run, NULL, step->when,
											   run->catchable, step->slow,
											   &holds);

			if (error != NULL)
			{
				step_fail(plan, run, error);
				return;
			}
		}
		if (!holds)
		{
			step_done(plan, run, plan_keep(plan, json_null()));
			return;
		}
		run->phase = RUN_EACH;
	}
	if (run->phase == RUN_EACH &&
		have_needs(plan, &run->node, run->parent, &step->each_needs))
		start_items(plan, run);
}

static void
run_agenda(ChainPlan *plan)
{
	while (!plan->ended && !dlist_is_empty(&plan->agenda))
	{
		RunNode    *node = dlist_container(RunNode, agenda,
										   dlist_pop_head_node(&plan->agenda));
		MemoryContext old = MemoryContextSwitchTo(plan->scratch);

		node->on_agenda = false;
		if (node->is_item)
			advance_item(plan, (ItemRun *) node);
		else
			advance_run(plan, (StepRun *) node);
		MemoryContextSwitchTo(old);
		MemoryContextReset(plan->scratch);
	}
}

/* Opens one more item somewhere; false when there is none to open. */
static bool
open_more(ChainPlan *plan, bool model)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &plan->openers)
	{
		StepRun    *run = dlist_container(StepRun, opener, iter.cur);

		/* such an item is no work for who asks for statements */
		if (!model && run->step->kind == STEP_MODEL)
			continue;
		open_item(plan, run);
		if (run->opened == run->nitems ||
			(run->step->max_parallel > 0 &&
			 run->active >= run->step->max_parallel))
		{
			dlist_delete(&run->opener);
			run->opening = false;
		}
		return true;
	}
	return false;
}

/* ---- what drivers call ---- */

/*
 * Makes the plan of one run.  inputs are the chain's arguments in order; they,
 * the definition and the options must outlive the plan, which lives in a
 * context of its own below the current one.
 */
ChainPlan *
plan_create(Definition *definition, Jsonb **inputs,
			const PlanOptions *options, const PlanOps *ops, void *driver)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext,
											  "chaincall plan",
											  ALLOCSET_DEFAULT_SIZES);
	ChainPlan  *plan = MemoryContextAllocZero(cxt, sizeof(ChainPlan));

	plan->cxt = cxt;
	plan->scratch = AllocSetContextCreate(cxt, "chaincall scratch",
										  ALLOCSET_DEFAULT_SIZES);
	plan->ops = ops;
	plan->driver = driver;
	plan->options = *options;
	dlist_init(&plan->agenda);
	dlist_init(&plan->openers);
	dlist_init(&plan->ready_models);
	dlist_init(&plan->ready_local);
	plan->deadlines.ph_compare = compare_deadlines;
	plan->retries.ph_compare = compare_retries;
	plan->root = MemoryContextAllocZero(cxt, sizeof(ChainRun));
	plan->root->definition = definition;
	plan->root->inputs = inputs;
	plan->root->depth = 1;
	plan->root->body = make_run(plan, definition->body, ROLE_BODY, NULL,
								plan->root);
	return plan;
}

/*
 * The next task: a model call, or (model false) a statement or function call.
 * NULL when nothing of the kind can run now.  The driver ends it with
 * plan_succeed() or plan_fail(), which free it.
 */
Task *
plan_next(ChainPlan *plan, bool model)
{
	dlist_head *ready = model ? &plan->ready_models : &plan->ready_local;

	for (;;)
	{
		ItemRun    *item;
		StepError  *error;

		run_agenda(plan);
		if (plan->ended)
			return NULL;
		if (dlist_is_empty(ready))
		{
			if (!open_more(plan, model))
				return NULL;
			continue;
		}
		item = dlist_container(ItemRun, ready, dlist_pop_head_node(ready));
		item->phase = ITEM_TASK;
		error = plan_render(plan, item, &item->task);
		MemoryContextReset(plan->scratch);
		if (error == NULL)
			return item->task;
		item_fail(plan, item, error);
	}
}

static ItemRun *
take_task(Task *task)
{
	ItemRun    *item = task->item;

	Assert(item->task == task);
	item->task = NULL;
	return item;
}

/* The task has given output, which is copied; frees the task. */
void
plan_succeed(ChainPlan *plan, Task *task, const Jsonb *output)
{
	ItemRun    *item = take_task(task);
	Jsonb	   *kept = plan_keep(plan, output);

	MemoryContextDelete(task->cxt);
	body_done(plan, item, kept);
	MemoryContextReset(plan->scratch);
}

/* The task has failed; error must live as long as the plan.  Frees the task. */
void
plan_fail(ChainPlan *plan, Task *task, StepError *error)
{
	ItemRun    *item = take_task(task);

	MemoryContextDelete(task->cxt);
	item_fail(plan, item, plan_place_error(plan, item->run, item, error));
}

/* When plan_tick() has something to do: clock_us(), or CLOCK_NEVER. */
int64
plan_due(const ChainPlan *plan)
{
	int64		due = CLOCK_NEVER;

	if (!pairingheap_is_empty(&plan->deadlines))
		due = pairingheap_container(ItemRun, deadline_node,
									pairingheap_first(unconstify(pairingheap *, &plan->deadlines)))->deadline_us;
	if (!pairingheap_is_empty(&plan->retries))
		due = Min(due,
				  pairingheap_container(ItemRun, retry_node,
										pairingheap_first(unconstify(pairingheap *, &plan->retries)))->retry_us);
	return due;
}

/* Starts what has waited long enough, fails what took too long. */
void
plan_tick(ChainPlan *plan, int64 now_us)
{
	run_agenda(plan);
	while (!plan->ended && !pairingheap_is_empty(&plan->retries))
	{
		ItemRun    *item = pairingheap_container(ItemRun, retry_node,
												 pairingheap_first(&plan->retries));

		if (item->retry_us > now_us)
			break;
		pairingheap_remove_first(&plan->retries);
		item->phase = ITEM_BODY;
		agenda_add(plan, &item->node);
	}
	while (!plan->ended && !pairingheap_is_empty(&plan->deadlines))
	{
		ItemRun    *item = pairingheap_container(ItemRun, deadline_node,
												 pairingheap_first(&plan->deadlines));
		MemoryContext old;
		StepError  *error;

		if (item->deadline_us > now_us)
			break;
		old = MemoryContextSwitchTo(plan->cxt);
		error = step_error_make(CLASS_TIMEOUT,
								psprintf("step took longer than %lld ms",
										 (long long) item->run->step->timeout_ms),
								NULL,
								"Raise \"timeout\", or say with \"on_error\" what is to happen then.");
		MemoryContextSwitchTo(old);
		plan_place_error(plan, item->run, item, error);
		item_fail(plan, item, error);
	}
}

bool
plan_ended(const ChainPlan *plan)
{
	return plan->ended;
}

/* Why the run failed; NULL when it did not. */
StepError *
plan_error(const ChainPlan *plan)
{
	return plan->error;
}

/* The chain's output, in the plan's context; NULL while there is none. */
Jsonb *
plan_output(const ChainPlan *plan)
{
	return plan->output;
}

/* Whether the run ended at stop_after. */
bool
plan_stopped(const ChainPlan *plan)
{
	return plan->stopped;
}

/* With stop_after: an object of path → output of all steps that have ended. */
Jsonb *
plan_outputs(const ChainPlan *plan)
{
	JsonbParseState *state = plan->outputs;

	if (state == NULL)
		return json_parse("{}");
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}
