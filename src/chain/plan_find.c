/*
 * plan_find.c
 *	  Which step of a pinned chain a path names.
 *
 * The path is the whole one of one run, items, rounds and called chains
 * included, as plan_path.c writes it: what a checkpoint has.  plan_check_path()
 * is for what people write, which may leave numbers out.
 */
#include "postgres.h"

#include "chain/plan_given.h"
#include "common/int.h"
#include "miscadmin.h"

typedef struct Walk
{
	const char *rest;			/* of the path */
	bool		item;			/* one of an each has been named */
	StepNested	nested;
	void	   *arg;
} Walk;

static const Step *walk_step(Walk *walk, const Step *step);

/* Reads `[12]`, a number as path_of_item() writes it; false: there is none. */
static bool
take_index(Walk *walk, int *index)
{
	const char *p = walk->rest;
	int			n = 0;

	if (*p++ != '[' || *p < '0' || *p > '9' || (*p == '0' && p[1] != ']'))
		return false;
	for (; *p >= '0' && *p <= '9'; p++)
	{
		if (pg_mul_s32_overflow(n, 10, &n) || pg_add_s32_overflow(n, *p - '0', &n))
			return false;
	}
	if (*p != ']')
		return false;
	walk->rest = p + 1;
	*index = n;
	return true;
}

/* Reads a name that ends there. */
static bool
take_word(Walk *walk, const char *word)
{
	size_t		len = strlen(word);
	char		next;

	if (strncmp(walk->rest, word, len) != 0)
		return false;
	next = walk->rest[len];
	if (next != '\0' && next != '/' && next != '[')
		return false;
	walk->rest += len;
	return true;
}

static const Step *
walk_children(Walk *walk, const Step *block)
{
	for (int i = 0; i < block->nsteps; i++)
	{
		if (take_word(walk, block->steps[i]->name))
			return walk_step(walk, block->steps[i]);
	}
	return NULL;
}

static bool
is_plain_block(const Step *step)
{
	return step->kind == STEP_BLOCK && step->each == NULL &&
		step->until == NULL;
}

/* The path goes on with the body of a chain. */
static const Step *
walk_chain(Walk *walk, const Definition *definition)
{
	const Step *body = definition->body;
	Walk		aside = *walk;

	check_stack_depth();
	if (!is_plain_block(body))
		return take_word(walk, "chain") ? walk_step(walk, body) : NULL;
	/* a plain block's own name is written only where its handler is meant */
	if (body->handler != NULL && take_word(&aside, "chain") &&
		strncmp(aside.rest, "/on_error", 9) == 0)
	{
		*walk = aside;
		return walk_step(walk, body);
	}
	return walk_children(walk, body);
}

static const Step *
walk_arm(Walk *walk, const Step *step)
{
	int			arm;

	if (strncmp(walk->rest, "arm", 3) != 0)
		return NULL;
	walk->rest += 3;
	return take_index(walk, &arm) && arm < step->nsteps ?
		walk_step(walk, step->steps[arm]) : NULL;
}

static const Step *
walk_inside(Walk *walk, const Step *step)
{
	Definition *called;

	if (*walk->rest == '\0')
		return step;
	if (*walk->rest++ != '/')
		return NULL;
	switch (step->kind)
	{
		case STEP_BLOCK:
			return walk_children(walk, step);
		case STEP_SWITCH:
			return walk_arm(walk, step);
		case STEP_FUNCTION:
			called = step->function->is_chain ?
				walk->nested(walk->arg, step->function) : NULL;
			return called ? walk_chain(walk, called) : NULL;
		default:
			return NULL;
	}
}

/* The path stands behind the step's own name. */
static const Step *
walk_step(Walk *walk, const Step *step)
{
	int			number;

	if (step->each != NULL)
	{
		if (!take_index(walk, &number))
			return NULL;
		walk->item = true;
	}
	if (step->handler != NULL && strncmp(walk->rest, "/on_error", 9) == 0)
	{
		walk->rest += 9;
		return walk_step(walk, step->handler);
	}
	if (step->until != NULL &&
		(!take_index(walk, &number) || number < 1 || number > step->max))
		return NULL;
	return walk_inside(walk, step);
}

/*
 * The step that a run of that path is of, or NULL: no run of the chain can have
 * it.  nested(arg, ...) gives the chains that are called.  *item: the path is of
 * one item of an each, and a job need not come to have as many.
 */
const Step *
plan_find_step(const Definition *definition, const char *path,
			   StepNested nested, void *arg, bool *item)
{
	Walk		walk = {path, false, nested, arg};
	const Step *step = walk_chain(&walk, definition);

	*item = walk.item;
	return step;
}
