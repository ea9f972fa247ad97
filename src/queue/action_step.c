/*
 * action_step.c
 *	  The step of a job that an action names.
 *
 * It is looked for in the chain as it was pinned when the job was inserted:
 * loading that looks nothing up and runs nothing of a user's.  The last one is
 * kept for the rest of the pass, since what is asked in bulk is mostly about
 * jobs of one chain.
 */
#include "postgres.h"

#include "base/json.h"
#include "catalog/pg_type.h"
#include "chain/local.h"
#include "mb/pg_wchar.h"
#include "queue/action.h"
#include "utils/builtins.h"

#define PATH_SHOWN 200			/* bytes of a path in a reason */

static Pinned *kept = NULL;
static uint8 kept_hash[DEFINITION_HASH_LEN];

static const char open_sql[] =
"SELECT FROM chaincall.span s WHERE s.job = $1 AND s.path = $2 AND s.try = 0";

static const char given_sql[] =
"SELECT DISTINCT ON (a.step) a.step, a.input FROM chaincall.action a"
" WHERE a.job = $1 AND a.action = 'retry' AND a.state = 'applied' AND a.step IS NOT NULL AND a.input IS NOT NULL"
" ORDER BY a.step, a.applied_at DESC, a.id DESC";

/* The pass is over: definitions are read anew in the next. */
void
action_forget_definition(void)
{
	if (kept != NULL)
		pin_free(kept);
	kept = NULL;
}

/* The chain pinned under that hash, good for this action; NULL: it is gone. */
Pinned *
action_pinned(const uint8 *hash)
{
	Jsonb	   *closure;

	if (kept != NULL && memcmp(kept_hash, hash, DEFINITION_HASH_LEN) == 0)
		return kept;
	action_forget_definition();
	closure = queue_definition(hash, CurrentMemoryContext);
	if (closure == NULL)
		return NULL;
	kept = pin_load(closure);
	memcpy(kept_hash, hash, DEFINITION_HASH_LEN);
	return kept;
}

static Definition *
nested(void *arg, const FunctionStep *function)
{
	PinnedChain *chain = pin_find(arg, function->signature);

	return chain ? chain->definition : NULL;
}

/*
 * The step of the action's path, in the job's pinned chain, good for the rest
 * of the pass; NULL, and *why, palloc'd: there is none.  *item: see
 * plan_find_step().
 */
const Step *
action_find_item(const Action *action, const Target *target, char **why,
				 bool *item)
{
	Pinned	   *pinned = action_pinned(target->definition);
	const Step *step;

	*why = pstrdup("the definition of the job's chain is gone");
	*item = false;
	if (pinned == NULL)
		return NULL;
	step = plan_find_step(pinned->chains[0].definition, action->step, nested,
						  pinned, item);
	if (step == NULL)
		*why = psprintf("chain %s has no step \"%.*s\"; a step is named by its path as dead_letter and trace show it, items and rounds included",
						target->chain,
						pg_mbcliplen(action->step, strlen(action->step),
									 PATH_SHOWN), action->step);
	return step;
}

/* The same, whether of an item or not. */
const Step *
action_find_step(const Action *action, const Target *target, char **why)
{
	bool		item;

	return action_find_item(action, target, why, &item);
}

/* Has the action's step no output yet? */
bool
action_step_open(const Action *action, const Target *target)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDOID, TEXTOID};
	Datum		values[2];

	values[0] = UUIDPGetDatum(&action->subject);
	values[1] = CStringGetTextDatum(action->step);
	action_run(local_plan(&plan, open_sql, 2, types), values, NULL);
	return SPI_processed == 0;
}

/* Why the action's step cannot be tried with the action's input, or NULL. */
const char *
action_input_fault(const Action *action, const Target *target)
{
	char	   *why;
	const Step *step = action_find_step(action, target, &why);

	if (step == NULL)
		return why;
	if (!action_step_open(action, target))
		return psprintf("step %s has succeeded already", action->step);
	return plan_input_fault(step, action->input);
}

/*
 * What people have given as inputs of a job's steps, the last of each: a List
 * of GivenInput in cxt.  In a transaction of queue_begin().
 */
List *
queue_given(const pg_uuid_t *job, MemoryContext cxt)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDOID};
	Datum		values[] = {UUIDPGetDatum(job)};
	List	   *given = NIL;
	MemoryContext old;

	action_run(local_plan(&plan, given_sql, 1, types), values, NULL);
	old = MemoryContextSwitchTo(cxt);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		GivenInput *one = palloc(sizeof(GivenInput));
		bool		isnull;

		one->path = TextDatumGetCString(upkeep_column(i, 1, &isnull));
		one->input = DatumGetJsonbPCopy(upkeep_column(i, 2, &isnull));
		given = lappend(given, one);
	}
	MemoryContextSwitchTo(old);
	SPI_freetuptable(SPI_tuptable);
	return given;
}
