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
#include "base/json.h"
#include "chain/plan_private.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* ---- agenda and waiting ---- */

/* Has the node go on at the agenda's next turn. */
void
plan_agenda_add(ChainPlan *plan, RunNode *node)
{
	if (node->on_agenda)
		return;
	node->on_agenda = true;
	dlist_push_tail(&plan->agenda, &node->agenda);
}

/* Takes the node's waiters off the steps that it waits for. */
void
plan_stop_waiting(RunNode *node)
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
bool
plan_have_needs(ChainPlan *plan, RunNode *node, const ItemRun *item,
		   const Needs *needs)
{
	plan_stop_waiting(node);
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

/* The run has ended: those that wait for nothing else go on. */
void
plan_wake_waiters(ChainPlan *plan, StepRun *run)
{
	while (!dlist_is_empty(&run->waiters))
	{
		dlist_node *link = dlist_pop_head_node(&run->waiters);
		Waiter	   *waiter = dlist_container(Waiter, link, link);

		link->next = NULL;
		if (--waiter->node->missing == 0)
			plan_agenda_add(plan, waiter->node);
	}
}

/* ---- timers ---- */

static int
compare_retries(const pairingheap_node *a, const pairingheap_node *b,
				void *arg)
{
	int64		ta = pairingheap_const_container(ItemRun, retry_node, a)->retry_us;
	int64		tb = pairingheap_const_container(ItemRun, retry_node, b)->retry_us;

	return ta < tb ? 1 : ta > tb ? -1 : 0;
}

/* The item that the run is inside of; NULL for the outermost chain's body. */
ItemRun *
plan_around(const StepRun *run)
{
	return run->parent ? run->parent : run->chain->parent;
}

/* ---- making and freeing ---- */

/* Makes a run and puts it on the agenda; parent is NULL for a chain's body. */
StepRun *
plan_make_run(ChainPlan *plan, const Step *step, RunRole role, ItemRun *parent,
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
	plan_agenda_add(plan, &run->node);
	return run;
}

static void
free_run(ChainPlan *plan, StepRun *run)
{
	dlist_mutable_iter iter;

	/* they are about to be freed too, and must not look for this list then */
	while (!dlist_is_empty(&run->waiters))
		dlist_pop_head_node(&run->waiters)->next = NULL;
	dlist_foreach_modify(iter, &run->items)
	{
		ItemRun    *item = dlist_container(ItemRun, link, iter.cur);

		plan_abort_inside(plan, item);
		plan_drop_deadline(plan, item);
		dlist_delete(&item->link);
		pfree(item);
	}
	plan_stop_waiting(&run->node);
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
void
plan_abort_inside(ChainPlan *plan, ItemRun *item)
{
	plan_stop_waiting(&item->node);
	if (item->node.on_agenda)
	{
		dlist_delete(&item->node.agenda);
		item->node.on_agenda = false;
	}
	if (item->phase == ITEM_READY)
		dlist_delete(&item->ready);
	if (item->phase == ITEM_BACKOFF)
		pairingheap_remove(&plan->retries, &item->retry_node);
	if (item->converting)
	{
		pfree(item->converting);
		item->converting = NULL;
	}
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
		if (item->nested->body)
			free_run(plan, item->nested->body);
		if (item->nested->inputs)
		{
			for (int i = 0; i < item->nested->definition->nargs; i++)
			{
				/* memory may have run out between two of them */
				if (item->nested->inputs[i])
					pfree(item->nested->inputs[i]);
			}
			pfree(item->nested->inputs);
		}
		pfree(item->nested);
		item->nested = NULL;
	}
	item->phase = ITEM_NEW;
}

/* ---- what drivers call ---- */

static void
run_agenda(ChainPlan *plan)
{
	while (!plan->ended && !dlist_is_empty(&plan->agenda) &&
		   !plan_is_overdue(plan))
	{
		RunNode    *node;
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		node = dlist_container(RunNode, agenda,
							   dlist_pop_head_node(&plan->agenda));
		old = MemoryContextSwitchTo(plan->scratch);
		node->on_agenda = false;
		if (node->is_item)
			plan_advance_item(plan, (ItemRun *) node);
		else
			plan_advance_run(plan, (StepRun *) node);
		MemoryContextSwitchTo(old);
		MemoryContextReset(plan->scratch);
	}
}

/* Can an item of the step be work for who asks for models, or statements? */
static bool
may_give(const Step *step, bool model)
{
	switch (step->kind)
	{
		case STEP_MODEL:
			return model;
		case STEP_SQL:
		case STEP_WAIT:
		case STEP_ASK:
			return !model;
		case STEP_FUNCTION:
			return !model || step->function->is_chain;
		default:
			return true;
	}
}

/*
 * Opens one more item somewhere; false when there is none to open.  For
 * statements none is opened while model calls are ready that the driver has no
 * room for: what is inside may begin with more of them, without end.
 */
static bool
open_more(ChainPlan *plan, bool model)
{
	dlist_mutable_iter iter;

	if (!model && !dlist_is_empty(&plan->ready_models))
		return false;
	dlist_foreach_modify(iter, &plan->openers)
	{
		StepRun    *run = dlist_container(StepRun, opener, iter.cur);

		if (!may_give(run->step, model))
			continue;
		plan_open_item(plan, run);
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


/* A context for PlanOptions.scratch, below parent. */
MemoryContext
plan_scratch_create(MemoryContext parent)
{
	/* the first block is kept at a reset: large enough for most steps */
	return AllocSetContextCreate(parent, "chaincall scratch",
								 0, 32 * 1024, ALLOCSET_DEFAULT_MAXSIZE);
}

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
											  ALLOCSET_START_SMALL_SIZES);
	ChainPlan  *plan = MemoryContextAllocZero(cxt, sizeof(ChainPlan));

	plan->cxt = cxt;
	plan->scratch = options->scratch ? options->scratch :
		plan_scratch_create(cxt);
	plan->ops = ops;
	plan->driver = driver;
	plan->options = *options;
	dlist_init(&plan->agenda);
	dlist_init(&plan->openers);
	dlist_init(&plan->ready_models);
	dlist_init(&plan->ready_local);
	plan_limit_init(plan);
	plan->retries.ph_compare = compare_retries;
	plan->root = MemoryContextAllocZero(cxt, sizeof(ChainRun));
	plan->root->definition = definition;
	plan->root->inputs = inputs;
	plan->root->depth = 1;
	plan->root->body = plan_make_run(plan, definition->body, ROLE_BODY, NULL,
								plan->root);
	return plan;
}

/*
 * The next task: a model call, or (model false) a statement or function call.
 * NULL when nothing of the kind can run now, or plan_tick() is due.  The
 * driver ends it with plan_succeed() or plan_fail(), which free it.
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
		if (plan->ended || plan_is_overdue(plan))
			return NULL;
		if (dlist_is_empty(ready))
		{
			if (!open_more(plan, model))
				return NULL;
			continue;
		}
		item = dlist_container(ItemRun, ready, dlist_pop_head_node(ready));
		item->phase = ITEM_TASK;
		if (item->converting)
			return item->task = plan_conversion(plan, item);
		error = plan_render(plan, item, &item->task);
		MemoryContextReset(plan->scratch);
		if (error == NULL)
			return item->task;
		plan_item_fail(plan, item, error);
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
	if (item->converting)
		plan_converted(plan, item, kept);
	else
		plan_body_done(plan, item, kept);
	MemoryContextReset(plan->scratch);
}

/* Does an on_error of the item, or of what is around it, catch its failures? */
static bool
is_caught(const ItemRun *item)
{
	for (; item != NULL; item = plan_around(item->run))
	{
		if (item->phase != ITEM_HANDLER &&
			item->run->step->on_error != ON_ERROR_FAIL)
			return true;
	}
	return false;
}

/* What the task asks goes with an error that a person may come to see. */
void
plan_note_input(ChainPlan *plan, const Task *task, const ItemRun *item,
				StepError *error)
{
	MemoryContext old;
	Jsonb	   *input;

	if (plan->ops->asked == NULL || error->input != NULL || is_caught(item))
		return;
	old = MemoryContextSwitchTo(plan->scratch);
	input = plan->ops->asked(plan->driver, task);
	if (input != NULL)
		error->input = plan_keep(plan, input);
	MemoryContextSwitchTo(old);
	MemoryContextReset(plan->scratch);
}

/* The task has failed; error must live as long as the plan.  Frees the task. */
void
plan_fail(ChainPlan *plan, Task *task, StepError *error)
{
	ItemRun    *item = take_task(task);

	plan_note_input(plan, task, item, error);
	MemoryContextDelete(task->cxt);
	error = plan_place_error(plan, item->run, item, error);
	if (error->cls == CLASS_TIMEOUT)
		item = plan_late_item(plan, item);
	plan_item_fail(plan, item, error);
}

/* When plan_tick() has something to do: clock_us(), or CLOCK_NEVER. */
int64
plan_due(const ChainPlan *plan)
{
	const ItemRun *item = plan_first_deadline(plan);
	int64		due = item ? item->deadline_us : CLOCK_NEVER;

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
	ItemRun    *item;

	run_agenda(plan);
	while (!plan->ended && !pairingheap_is_empty(&plan->retries))
	{
		item = pairingheap_container(ItemRun, retry_node,
									 pairingheap_first(&plan->retries));
		if (item->retry_us > now_us)
			break;
		pairingheap_remove_first(&plan->retries);
		item->phase = ITEM_BODY;
		plan_agenda_add(plan, &item->node);
	}
	while (!plan->ended && (item = plan_first_deadline(plan)) != NULL &&
		   item->deadline_us <= now_us)
		plan_time_out(plan, item, now_us);
}

/*
 * How far the run is: items of steps that do something (model, sql, function,
 * wait, ask) that are known by now, and how many of them have ended.
 */
void
plan_progress(const ChainPlan *plan, int64 *known, int64 *done)
{
	*known = plan->known;
	*done = plan->done;
}

/*
 * Takes down what still runs, by the driver's cancel; the plan must not be used
 * afterwards, and its output is gone.
 */
void
plan_abandon(ChainPlan *plan)
{
	if (plan->root->body == NULL)
		return;
	plan->ended = true;
	free_run(plan, plan->root->body);
	plan->root->body = NULL;
}

/* Whether the run is over: it has an output, an error, or came to stop_after. */
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

/* With stop_after: an object of path → output of all steps that have ended. */
Jsonb *
plan_outputs(const ChainPlan *plan)
{
	JsonbParseState *state = plan->outputs;

	if (state == NULL)
		return json_parse("{}");
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}
