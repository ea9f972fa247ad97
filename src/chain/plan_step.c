/*
 * plan_step.c
 *	  The transitions of steps and items: see the diagram in plan.c.
 *
 * A function here may end the node that it was called for, and with it
 * everything around; so nothing is touched after a call that ends something.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/json.h"
#include "chain/plan_private.h"
#include "common/pg_prng.h"
#include "utils/memutils.h"

static void start_body(ChainPlan *plan, ItemRun *item);
static void step_done(ChainPlan *plan, StepRun *run, Jsonb *output);
static void step_fail(ChainPlan *plan, StepRun *run, StepError *error);

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
	json_push_key(&plan->outputs, pstrdup(path));
	json_push(&plan->outputs, WJB_VALUE, plan_keep(plan, output));
	if (plan_path_matches(path, plan->options.stop_after))
		plan->ended = true;
	MemoryContextSwitchTo(old);
}

/* How many [n] a path ends in. */
static int
indexes_behind(const char *path)
{
	const char *p = path + strlen(path);
	int			n = 0;

	while (p > path && p[-1] == ']')
	{
		while (p > path && *--p != '[')
			;
		n++;
	}
	return n;
}

/* Ends the run when stop_after names the item, or its round, by number. */
static void
stop_behind(ChainPlan *plan, const ItemRun *item, bool round,
			const Jsonb *output)
{
	StringInfoData path;

	if (plan->options.stop_after == NULL)
		return;
	initStringInfo(&path);
	if (round)
		path_of_item(&path, item);
	else
	{
		path_of_run(&path, item->run);
		appendStringInfo(&path, "[%d]", item->index);
	}
	if (indexes_behind(path.data) == indexes_behind(plan->options.stop_after) &&
		plan_path_matches(path.data, plan->options.stop_after))
		note_output(plan, path.data, output);
}

/* Does the step do something that progress counts? */
static bool
is_counted(const Step *step)
{
	return step->kind == STEP_MODEL || step->kind == STEP_SQL ||
		step->kind == STEP_WAIT || step->kind == STEP_ASK ||
		(step->kind == STEP_FUNCTION && !step->function->is_chain);
}

/* An item has its output, which it owns no longer. */
static void
item_done(ChainPlan *plan, ItemRun *item, Jsonb *output)
{
	StepRun    *run = item->run;

	plan->done += is_counted(run->step);

	if (item->index >= 0)
	{
		stop_behind(plan, item, false, output);
		if (plan->ended)
			return;
	}
	run->outputs[Max(item->index, 0)] = output;
	run->finished++;
	run->active--;
	plan_abort_inside(plan, item);
	plan_drop_deadline(plan, item);
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

/* The body of an item has given output, which is the plan's from now on. */
void
plan_body_done(ChainPlan *plan, ItemRun *item, Jsonb *output)
{
	if (item->run->step->until == NULL)
	{
		item_done(plan, item, output);
		return;
	}
	stop_behind(plan, item, true, output);
	if (plan->ended)
		return;
	if (item->last)
		pfree(item->last);
	item->last = output;
	item->phase = ITEM_UNTIL;
	plan_agenda_add(plan, &item->node);
}

/* A called chain has given a value of its result type. */
static void
nested_done(ChainPlan *plan, ItemRun *item, Jsonb *output)
{
	if (item->run->step->until == NULL)
	{
		item_done(plan, item, output);
		return;
	}
	plan_abort_inside(plan, item);
	plan_body_done(plan, item, output);
}

/* Has the driver convert the value, which is the plan's. */
static void
put_off(ChainPlan *plan, ItemRun *item, Jsonb *value, bool leaving)
{
	item->converting = value;
	item->leaving = leaving;
	item->phase = ITEM_READY;
	dlist_push_tail(&plan->ready_local, &item->ready);
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
			plan_agenda_add(plan, &item->node);
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
			plan_item_fail(plan, item, error);
			return;
		}
		if (result == NULL)
		{
			put_off(plan, item, output, true);
			return;
		}
		pfree(output);
		output = result;
	}
	nested_done(plan, item, output);
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
		char	   *path = path_name(run);

		if (path != NULL)
			note_output(plan, path, output);
		if (plan->ended)
			return;
	}
	plan_wake_waiters(plan, run);
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
	ItemRun    *around = plan_around(run);

	if (around)
		plan_item_fail(plan, around, error);
	else
	{
		plan->error = error;
		plan->ended = true;
	}
}

/*
 * What jobs do about serialization failures, deadlocks and want of memory of
 * statements.
 */
static const RetryPolicy passing_policy = {
	.attempts = 10, .first_ms = 20, .factor = 2, .max_ms = 1000
};

/*
 * Whether a written `retry`, or the one that jobs have for what passes, has
 * attempts left for such a failure.
 */
static bool
may_retry(const ChainPlan *plan, const ItemRun *item, const StepError *error,
		  int64 *wait_us)
{
	const Step *step = item->run->step;
	const RetryPolicy *policy = step->retry;
	int64		wait_ms;

	/* a called chain's statements have had their attempts inside it */
	if (policy == NULL && plan->options.job &&
		!(step->kind == STEP_FUNCTION && step->function->is_chain) &&
		(error->sqlstate == ERRCODE_T_R_SERIALIZATION_FAILURE ||
		 error->sqlstate == ERRCODE_T_R_DEADLOCK_DETECTED ||
		 error->sqlstate == ERRCODE_OUT_OF_MEMORY))
		policy = &passing_policy;
	if (policy == NULL ||
		(step->kind != STEP_SQL && step->kind != STEP_FUNCTION) ||
		item->phase == ITEM_HANDLER ||
		item->attempt >= policy->attempts ||
		error->cls == CLASS_CANCELLED || error->cls == CLASS_DENIED ||
		error->cls == CLASS_TIMEOUT || error->cls == CLASS_LIMIT)
		return false;
	wait_ms = backoff_wait_ms(policy, item->attempt,
							  pg_prng_double(&pg_global_prng_state), 0);
	*wait_us = wait_ms * 1000;
	return item->limit_us == CLOCK_NEVER ||
		clock_us() + *wait_us < item->limit_us;
}

/*
 * Something in the item has failed: it is tried again, or its handler runs, or
 * its step fails.  error is in the plan's context.
 */
void
plan_item_fail(ChainPlan *plan, ItemRun *item, StepError *error)
{
	const Step *step = item->run->step;
	bool		handled = item->phase != ITEM_HANDLER;
	int64		wait_us;

	if (may_retry(plan, item, error, &wait_us))
	{
		plan_abort_inside(plan, item);
		item->attempt++;
		item->phase = ITEM_BACKOFF;
		item->retry_us = clock_us() + wait_us;
		pairingheap_add(&plan->retries, &item->retry_node);
		return;
	}

	plan_abort_inside(plan, item);
	plan_drop_deadline(plan, item);
	if (handled && step->on_error == ON_ERROR_SKIP)
		item_done(plan, item, plan_keep(plan, json_null()));
	else if (handled && step->on_error == ON_ERROR_STEP)
	{
		item->error = error;
		item->limit_us = plan_limit_around(item->run);
		item->phase = ITEM_HANDLER;
		item->inner = plan_make_run(plan, step->handler, ROLE_HANDLER, item,
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
		item->children[i] = plan_make_run(plan, step->steps[i], ROLE_CHILD, item,
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

		if (!plan_have_needs(plan, &item->node, item, &arm->when_needs))
			return;
		if (arm->when)
		{
			StepError  *error = plan_condition(plan, item->run, item,
											   arm->when, item->catchable,
											   arm->slow, &holds);

			if (error != NULL)
			{
				plan_item_fail(plan, item, error);
				return;
			}
		}
		if (!holds)
			continue;
		item->phase = ITEM_INSIDE;
		item->inner = plan_make_run(plan, arm, ROLE_ARM, item, item->run->chain);
		item->inner->arm = item->arm;
		return;
	}
	plan_body_done(plan, item, plan_keep(plan, json_null()));
}

static void
run_nested(ChainPlan *plan, ItemRun *item)
{
	ChainRun   *chain = item->nested;

	item->phase = ITEM_INSIDE;
	chain->body = plan_make_run(plan, chain->definition->body, ROLE_BODY, NULL,
								chain);
}

static void
start_nested(ChainPlan *plan, ItemRun *item)
{
	ChainRun   *chain;
	bool		null_for_strict;
	Jsonb	   *args;
	StepError  *error;

	error = plan_enter_chain(plan, item, &chain, &null_for_strict, &args);
	if (error != NULL)
	{
		plan_item_fail(plan, item, error);
		return;
	}
	if (null_for_strict)
	{
		pfree(chain);
		plan_body_done(plan, item, plan_keep(plan, json_null()));
		return;
	}
	item->nested = chain;
	if (args != NULL)
		put_off(plan, item, args, false);
	else
		run_nested(plan, item);
}

/*
 * The driver has converted: the called chain's result, or its arguments (an
 * array; null for a null under STRICT).  output is the plan's.
 */
void
plan_converted(ChainPlan *plan, ItemRun *item, Jsonb *output)
{
	ChainRun   *chain = item->nested;
	int			n = chain->definition->nargs;
	Jsonb	  **inputs;

	pfree(item->converting);
	item->converting = NULL;
	if (item->leaving)
	{
		nested_done(plan, item, output);
		return;
	}
	if (json_is_null(output))
	{
		plan_abort_inside(plan, item);
		plan_body_done(plan, item, output);
		return;
	}
	inputs = palloc(Max(n, 1) * sizeof(Jsonb *));
	for (int i = 0; i < n; i++)
		inputs[i] = json_element(output, i);
	plan_set_inputs(plan, chain, inputs);
	pfree(output);
	run_nested(plan, item);
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
		plan_item_fail(plan, item, error);
	else
		plan_body_done(plan, item, output);
}

/* Starts the body of a round or attempt: at once, or when it has its names. */
static void
start_body(ChainPlan *plan, ItemRun *item)
{
	const Step *step = item->run->step;

	item->phase = ITEM_BODY;
	if (!plan_have_needs(plan, &item->node, item, &step->body_needs))
		return;
	switch (step->kind)
	{
		case STEP_MODEL:
			make_ready(item, &plan->ready_models);
			break;
		case STEP_SQL:
		case STEP_WAIT:
		case STEP_ASK:
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

/* An item whose rounds are not told apart in `mock` ends at once. */
static bool
mocked_item(ChainPlan *plan, ItemRun *item)
{
	StringInfoData path;
	Jsonb	   *mocked;

	if (plan->options.mock == NULL || item->index < 0 ||
		item->run->step->until == NULL)
		return false;
	initStringInfo(&path);
	path_of_run(&path, item->run);
	appendStringInfo(&path, "[%d]", item->index);
	mocked = path_mocked(plan, path.data);
	if (mocked == NULL)
		return false;
	item_done(plan, item, plan_keep(plan, mocked));
	return true;
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
			plan_body_done(plan, item, plan_keep(plan, mocked));
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

	if (!plan_have_needs(plan, &item->node, item, &step->output_needs))
		return;
	if (step->output == NULL)
		output = plan_keep(plan, item->children[step->sink]->output);
	else
	{
		error = plan_json(plan, item, step->output, &output);
		if (error != NULL)
		{
			plan_item_fail(plan, item, error);
			return;
		}
	}
	plan_body_done(plan, item, output);
}

/* A mocked block has no steps inside, which its condition may ask for. */
static bool
asks_for_inner(const ItemRun *item)
{
	const Needs *needs = &item->run->step->until_needs;

	if (item->children)
		return false;
	for (int i = 0; i < needs->count; i++)
	{
		if (needs->refs[i].owner == item->run->step)
			return true;
	}
	return false;
}

static void
finish_round(ChainPlan *plan, ItemRun *item)
{
	const Step *step = item->run->step;
	bool		enough;
	StepError  *error;

	if (asks_for_inner(item))
	{
		error = plan_make_error(plan, item, CLASS_INPUT,
								"\"until\" needs steps inside a round that \"mock\" has an output for",
								psprintf("The condition is %s.",
										 step->until->source),
								"Mock the steps inside the round, or the whole step.");
		plan_item_fail(plan, item, error);
		return;
	}
	if (!plan_have_needs(plan, &item->node, item, &step->until_needs))
		return;
	error = plan_condition(plan, item->run, item, step->until,
						   item->catchable, step->slow, &enough);
	if (error != NULL)
	{
		plan_item_fail(plan, item, error);
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
		error = plan_make_error(plan, item, CLASS_LIMIT,
								psprintf("\"until\" did not hold after %d rounds",
										 item->round),
								psprintf("The condition is %s.",
										 step->until->source),
								psprintf("Raise \"max\", or accept the last round: %s || round == %d",
										 step->until->source, step->max));
		plan_item_fail(plan, item, error);
		return;
	}
	plan_abort_inside(plan, item);
	item->round++;
	start_round(plan, item);
}

/* An item's turn on the agenda. */
void
plan_advance_item(ChainPlan *plan, ItemRun *item)
{
	switch (item->phase)
	{
		case ITEM_NEW:
			if (item->late)
				plan_time_out(plan, item, 0);
			else if (!mocked_item(plan, item))
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

/* Opens the next item of a run. */
void
plan_open_item(ChainPlan *plan, StepRun *run)
{
	ItemRun    *item = MemoryContextAllocZero(plan->cxt, sizeof(ItemRun));
	const Step *step = run->step;
	int			n = run->opened++;

	item->node.is_item = true;
	item->run = run;
	item->index = step->each ? n : -1;
	item->round = 1;
	item->attempt = 1;
	item->catchable = run->catchable || step->on_error != ON_ERROR_FAIL ||
		(step->kind != STEP_MODEL && step->retry != NULL &&
		 step->retry->attempts > 1);
	run->active++;
	dlist_push_tail(&run->items, &item->link);
	if (step->each)
	{
		MemoryContext old = MemoryContextSwitchTo(plan->cxt);

		item->element = run->elements ? json_element(run->elements, n) :
			json_int(n + 1);
		MemoryContextSwitchTo(old);
	}
	plan_limit_item(plan, item);
	plan_agenda_add(plan, &item->node);
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
	if (is_counted(run->step))
		plan->known += run->nitems;
	run->outputs = MemoryContextAllocHuge(plan->cxt, Max(run->nitems, 1) *
										  sizeof(Jsonb *));
	memset(run->outputs, 0, Max(run->nitems, 1) * sizeof(Jsonb *));
	if (run->nitems == 0)
		step_done(plan, run, collect_items(plan, run));
	else if (run->step->each == NULL)
		plan_open_item(plan, run);
	else
	{
		run->opening = true;
		dlist_push_tail(&plan->openers, &run->opener);
	}
}

static bool
mocked_run(ChainPlan *plan, StepRun *run)
{
	char	   *path;
	Jsonb	   *mocked;

	if (plan->options.mock == NULL)
		return false;
	path = path_name(run);
	mocked = path ? path_mocked(plan, path) : NULL;
	if (mocked == NULL)
		return false;
	step_done(plan, run, plan_keep(plan, mocked));
	return true;
}

/* `when` is decided once, before `each`; a switch has decided it for its arm. */
void
plan_advance_run(ChainPlan *plan, StepRun *run)
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

		if (!plan_have_needs(plan, &run->node, run->parent, &step->when_needs))
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
		plan_have_needs(plan, &run->node, run->parent, &step->each_needs))
		start_items(plan, run);
}
