/*
 * plan_path.c
 *	  Paths: how one run of a step is named.
 *
 * The names from the outside in, joined by `/`; after a name [i] for the item
 * (from 0), then [r] for the round (from 1) where the step has them;
 * /arm[k] and /on_error for what has no name.  The unnamed body of a chain is
 * `chain`; where it is a plain block its steps stand alone.
 */
#include "postgres.h"

#include "base/json.h"
#include "chain/plan_private.h"
#include "mb/pg_wchar.h"

#define PATH_SHOWN 1000			/* bytes of a path in an error */

static bool
is_plain_block(const Step *step)
{
	return step->kind == STEP_BLOCK && step->each == NULL &&
		step->until == NULL;
}

static void
append_name(StringInfo path, const char *name)
{
	if (path->len > 0)
		appendStringInfoChar(path, '/');
	appendStringInfoString(path, name);
}

/* Appends the path of a step's run, without item and round. */
void
path_of_run(StringInfo path, const StepRun *run)
{
	if (run->role == ROLE_BODY)
	{
		if (run->chain->parent != NULL)
			path_of_item(path, run->chain->parent);
		if (!is_plain_block(run->step))
			append_name(path, "chain");
		return;
	}
	if (run->role == ROLE_HANDLER)
	{
		const ItemRun *failed = run->parent;

		path_of_run(path, failed->run);
		if (failed->run->role == ROLE_BODY &&
			is_plain_block(failed->run->step))
			append_name(path, "chain");
		if (failed->index >= 0)
			appendStringInfo(path, "[%d]", failed->index);
		append_name(path, "on_error");
		return;
	}
	path_of_item(path, run->parent);
	if (run->role == ROLE_ARM)
		append_name(path, psprintf("arm[%d]", run->arm));
	else
		append_name(path, run->step->name);
}

/*
 * The path as people name the run, palloc'd; NULL for a called chain's block,
 * whose path is that of the function step around it.
 */
char *
path_name(const StepRun *run)
{
	StringInfoData path;

	if (run->role == ROLE_BODY && is_plain_block(run->step))
		return run->chain->parent == NULL ? pstrdup("chain") : NULL;
	initStringInfo(&path);
	path_of_run(&path, run);
	return path.data;
}

/* Appends the path of an item, with its round. */
void
path_of_item(StringInfo path, const ItemRun *item)
{
	path_of_run(path, item->run);
	if (item->index >= 0)
		appendStringInfo(path, "[%d]", item->index);
	if (item->run->step->until != NULL)
		appendStringInfo(path, "[%d]", item->round);
}

/*
 * Appends what an item's deadline is known by: all its rounds have one, and the
 * block that is a chain's body, whose path is that of what is around, has its own.
 */
void
path_of_deadline(StringInfo path, const ItemRun *item)
{
	const StepRun *run = item->run;

	path_of_run(path, run);
	if (item->index >= 0)
		appendStringInfo(path, "[%d]", item->index);
	if (run->role == ROLE_BODY && is_plain_block(run->step))
		appendStringInfoChar(path, '/');
}

/* Reads `[12]`; false where there is none. */
static bool
skip_index(const char **rest)
{
	const char *p = *rest;

	if (*p != '[')
		return false;
	do
		p++;
	while (*p >= '0' && *p <= '9');
	if (*p != ']' || p == *rest + 1)
		return false;
	*rest = p + 1;
	return true;
}

/*
 * Whether path is what somebody wanted: itself, or, where wanted names steps
 * without their items or rounds, any of those.
 */
bool
plan_path_matches(const char *path, const char *wanted)
{
	while (*path != '\0')
	{
		if (*path == '[' && *wanted != '[')
		{
			if (!skip_index(&path))
				return false;
		}
		else if (*path++ != *wanted++)
			return false;
	}
	return *wanted == '\0';
}

/*
 * The output that `mock` has for path: its own, else that of a path which
 * leaves items or rounds out.  NULL: it runs.
 */
Jsonb *
path_mocked(const ChainPlan *plan, const char *path)
{
	const Jsonb *mock = plan->options.mock;
	Jsonb	   *output = json_field(mock, path);
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;

	if (output != NULL || strchr(path, '[') == NULL)
		return output;
	it = JsonbIteratorInit(unconstify(JsonbContainer *, &mock->root));
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		char	   *key;

		if (token != WJB_KEY)
			continue;
		key = pnstrdup(v.val.string.val, v.val.string.len);
		if (plan_path_matches(path, key))
			return json_field(mock, key);
	}
	return NULL;
}

/* ---- does a path name a step of the definition? ---- */

static const Step *find_in_step(const Step *step, const char **rest);

static bool
skip_word(const char **rest, const char *word)
{
	size_t		len = strlen(word);
	const char *p = *rest;

	if (strncmp(p, word, len) != 0 ||
		(p[len] != '\0' && p[len] != '/' && p[len] != '['))
		return false;
	*rest = p + len;
	return true;
}

static const Step *
find_inside(const Step *step, const char **rest)
{
	if (step->kind == STEP_BLOCK)
	{
		for (int i = 0; i < step->nsteps; i++)
		{
			if (skip_word(rest, step->steps[i]->name))
				return find_in_step(step->steps[i], rest);
		}
	}
	if (step->kind == STEP_SWITCH && strncmp(*rest, "arm[", 4) == 0)
	{
		long		arm = strtol(*rest + 4, NULL, 10);	/* far out of range: LONG_MAX */
		const char *behind = *rest + 3;

		if (skip_index(&behind) && arm < step->nsteps)
		{
			*rest = behind;
			return find_in_step(step->steps[arm], rest);
		}
	}
	/* a nested chain is checked when it runs */
	if (step->kind == STEP_FUNCTION && step->function->is_chain)
		*rest += strlen(*rest);
	return step;
}

/* rest stands behind the step's own name. */
static const Step *
find_in_step(const Step *step, const char **rest)
{
	(void) (step->each != NULL && skip_index(rest));
	if (strncmp(*rest, "/on_error", 9) == 0 && step->handler)
	{
		*rest += 9;
		return find_in_step(step->handler, rest);
	}
	(void) (step->until != NULL && skip_index(rest));
	if (**rest == '/' && (*rest)[1] != '\0')
	{
		(*rest)++;
		return find_inside(step, rest);
	}
	return step;
}

/* Raises when path cannot name a step of the chain. */
void
plan_check_path(const Definition *definition, const char *path)
{
	const char *rest = path;
	const Step *body = definition->body;

	if (skip_word(&rest, "chain") &&
		(!is_plain_block(body) || *rest == '\0' ||
		 strncmp(rest, "/on_error", 9) == 0))
		(void) find_in_step(body, &rest);
	else if (is_plain_block(body))
	{
		rest = path;
		(void) find_inside(body, &rest);
	}
	if (*rest != '\0' || rest == path)
	{
		StringInfoData known;

		initStringInfo(&known);
		if (is_plain_block(body))
		{
			for (int i = 0; i < body->nsteps; i++)
				appendStringInfo(&known, "%s%s", i ? ", " : "",
								 body->steps[i]->name);
		}
		else
			appendStringInfoString(&known, "chain");
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("chain \"%s\" has no step \"%.*s\"", definition->name,
						pg_mbcliplen(path, strlen(path), PATH_SHOWN), path),
				 errhint("Steps are given by their path, such as merged[2]/text[17]; this chain's are %s.",
						 known.data)));
	}
}
