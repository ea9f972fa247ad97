/*
 * resolve.c
 *	  Second pass of compilation: what each name means.
 *
 * Scopes nest as LANGUAGE.md's modifiers do: around a step its block's names
 * are visible; inside its each the element; inside its until the round and
 * its own last output; inside a block the inner names.  A name is looked up
 * from the inside out.  Every NAME_STEP found becomes a need of the phase
 * that evaluates it and an edge between siblings of the block that owns it;
 * cycles and sinks are read off those edges.
 */
#include "postgres.h"

#include "chain/definition.h"
#include "chain/hole.h"
#include "miscadmin.h"

typedef enum ScopeKind
{
	SCOPE_INPUTS,
	SCOPE_BLOCK,
	SCOPE_ITEM,
	SCOPE_ROUND,
	SCOPE_ERROR
} ScopeKind;

typedef struct Scope
{
	const struct Scope *outer;
	ScopeKind	kind;
	const Step *step;
} Scope;

typedef struct Resolver
{
	Definition *definition;
	List	   *stack;			/* of Step *: the steps being walked */
} Resolver;

static void resolve_step(Resolver *resolver, Step *step, const Scope *scope);

static bool
same(const char *a, const char *b)
{
	return a != NULL && b != NULL && strcmp(a, b) == 0;
}

/* What name means in one scope alone. */
static bool
scope_find(const Resolver *resolver, const Scope *scope, const char *name,
		   NameRef *ref)
{
	const Step *step = scope->step;

	ref->owner = step;
	ref->slot = -1;
	switch (scope->kind)
	{
		case SCOPE_INPUTS:
			ref->kind = NAME_INPUT;
			for (int i = 0; i < resolver->definition->nargs; i++)
			{
				if (same(name, resolver->definition->args[i].name))
				{
					ref->slot = i;
					return true;
				}
			}
			return false;
		case SCOPE_BLOCK:
			ref->kind = NAME_STEP;
			for (int i = 0; i < step->nsteps; i++)
			{
				if (same(name, step->steps[i]->name))
				{
					ref->slot = i;
					return true;
				}
			}
			return false;
		case SCOPE_ITEM:
			ref->kind = same(name, "index") ? NAME_INDEX : NAME_ITEM;
			return same(name, "item") || same(name, "index") ||
				same(name, step->as);
		case SCOPE_ROUND:
			ref->kind = same(name, "round") ? NAME_ROUND : NAME_LAST;
			return same(name, "round") || same(name, step->name);
		case SCOPE_ERROR:
			ref->kind = NAME_ERROR;
			return same(name, "error");
	}
	return false;
}

/* The visible name nearest to one that is not there, as a hint. */
static const char *
unknown_name_hint(const Resolver *resolver, const Scope *scope,
				  const char *name)
{
	const char **known;
	int			n = 0;
	int			room = 16 + resolver->definition->nargs;
	const char *nearest;

	if (same(name, "item") || same(name, "index"))
		return "It is known inside a step with \"each\".";
	if (same(name, "round"))
		return "It is known inside a step with \"until\".";
	if (same(name, "error"))
		return "It is known inside a step under \"on_error\".";

	for (const Scope *s = scope; s != NULL; s = s->outer)
		room += s->kind == SCOPE_BLOCK ? s->step->nsteps : 2;
	known = palloc(room * sizeof(char *));
	for (const Scope *s = scope; s != NULL; s = s->outer)
	{
		if (s->kind == SCOPE_BLOCK)
		{
			for (int i = 0; i < s->step->nsteps; i++)
				known[n++] = s->step->steps[i]->name;
		}
		else if (s->kind == SCOPE_ITEM)
			known[n++] = s->step->as ? s->step->as : "item";
	}
	for (int i = 0; i < resolver->definition->nargs; i++)
		known[n++] = resolver->definition->args[i].name;
	known[n] = NULL;
	nearest = yaml_nearest(name, known);
	if (nearest != NULL)
		return psprintf("Did you mean \"%s\"?", nearest);
	return "Names are the chain's arguments, the steps around, and inside \"each\" item and index.";
}

/*
 * Notes that the step being walked names slot of the block owner.  An edge
 * joins siblings: from the step of owner that is being walked.
 */
static void
note_use(Resolver *resolver, const NameRef *ref, const char *name, int line)
{
	ListCell   *lc;

	foreach(lc, resolver->stack)
	{
		Step	   *step = lfirst(lc);

		if (step->block != ref->owner)
			continue;
		if (step->slot == ref->slot)
			definition_error(line, ERRCODE_INVALID_FUNCTION_DEFINITION,
							 "Only a step with \"until\" sees its own output, that of the last round.",
							 "step \"%s\" uses its own output", name);
		ref->owner->uses[step->slot] =
			bms_add_member(ref->owner->uses[step->slot], ref->slot);
		return;
	}
}

static void
add_need(Needs *needs, const NameRef *ref)
{
	for (int i = 0; i < needs->count; i++)
	{
		if (needs->refs[i].owner == ref->owner &&
			needs->refs[i].slot == ref->slot)
			return;
	}
	needs->refs = needs->refs ?
		repalloc(needs->refs, (needs->count + 1) * sizeof(NameRef)) :
		palloc(sizeof(NameRef));
	needs->refs[needs->count++] = *ref;
}

static void
resolve_name(Resolver *resolver, const Scope *scope, const char *name,
			 int line, NameRef *ref, Needs *needs)
{
	for (const Scope *s = scope; s != NULL; s = s->outer)
	{
		if (!scope_find(resolver, s, name, ref))
			continue;
		if (ref->kind == NAME_STEP)
		{
			note_use(resolver, ref, name, line);
			add_need(needs, ref);
		}
		return;
	}
	definition_error(line, ERRCODE_UNDEFINED_COLUMN,
					 unknown_name_hint(resolver, scope, name),
					 "unknown name \"%s\"", name);
}

static void
resolve_expression(Resolver *resolver, const Scope *scope,
				   Expression *expr, Needs *needs)
{
	if (expr->slow)
		((Step *) linitial(resolver->stack))->slow = true;
	expr->refs = palloc(Max(expr->nnames, 1) * sizeof(NameRef));
	for (int i = 0; i < expr->nnames; i++)
		resolve_name(resolver, scope, expr->names[i], expr->line,
					 &expr->refs[i], needs);
}

static void
resolve_list(Resolver *resolver, const Scope *scope, List *exprs,
			 Needs *needs)
{
	ListCell   *lc;

	foreach(lc, exprs)
		resolve_expression(resolver, scope, lfirst(lc), needs);
}

static void
resolve_after(Resolver *resolver, Step *step, const Scope *scope)
{
	ListCell   *lc;

	foreach(lc, step->after)
	{
		NameRef		ref;

		resolve_name(resolver, scope, lfirst(lc), step->after_line, &ref,
					 &step->when_needs);
		if (ref.kind != NAME_STEP)
			definition_error(step->after_line, ERRCODE_INVALID_FUNCTION_DEFINITION,
							 "Name steps to wait for.",
							 "\"after\" names \"%s\", which is no step",
							 (char *) lfirst(lc));
	}
}

/* A name may not hide one that is visible around it. */
static void
check_not_visible(const Resolver *resolver, const Scope *scope,
				  const char *name, int line)
{
	for (const Scope *s = scope; s != NULL; s = s->outer)
	{
		NameRef		ref;

		if (s->kind != SCOPE_ROUND && scope_find(resolver, s, name, &ref))
			definition_error(line, ERRCODE_DUPLICATE_ALIAS,
							 "Give one of them another name.",
							 "the name \"%s\" is already used around this step",
							 name);
	}
}

static void
report_cycle(const Step *block, const int *path, int depth, int slot)
{
	StringInfoData text;
	int			start = 0;

	while (path[start] != slot)
		start++;
	initStringInfo(&text);
	for (int i = start; i < depth; i++)
		appendStringInfo(&text, "%s needs ", block->steps[path[i]]->name);
	appendStringInfoString(&text, block->steps[slot]->name);
	definition_error(block->steps[slot]->line,
					 ERRCODE_INVALID_FUNCTION_DEFINITION,
					 "Remove one of the references, or repeat a block with \"until\".",
					 "the steps form a cycle: %s", text.data);
}

/* Depth-first: state is 0 new, 1 on the path, 2 done. */
static void
visit(const Step *block, int slot, char *state, int *path, int depth)
{
	int			used = -1;

	check_stack_depth();
	state[slot] = 1;
	path[depth] = slot;
	while ((used = bms_next_member(block->uses[slot], used)) >= 0)
	{
		if (state[used] == 1)
			report_cycle(block, path, depth + 1, used);
		if (state[used] == 0)
			visit(block, used, state, path, depth + 1);
	}
	state[slot] = 2;
}

/* Finds cycles among a block's steps, and its sink where it has no output. */
static void
check_block(Step *block)
{
	char	   *state = palloc0(block->nsteps);
	int		   *path = palloc((block->nsteps + 1) * sizeof(int));
	Bitmapset  *named = NULL;
	int			sinks = 0;
	StringInfoData names;

	for (int i = 0; i < block->nsteps; i++)
	{
		if (state[i] == 0)
			visit(block, i, state, path, 0);
		named = bms_add_members(named, block->uses[i]);
	}
	if (block->output != NULL)
		return;

	initStringInfo(&names);
	for (int i = 0; i < block->nsteps; i++)
	{
		if (bms_is_member(i, named))
			continue;
		appendStringInfo(&names, "%s%s", sinks++ ? ", " : "",
						 block->steps[i]->name);
		block->sink = i;
	}
	if (sinks != 1)
		definition_error(block->line, ERRCODE_INVALID_FUNCTION_DEFINITION,
						 psprintf("Say which it is, for instance output: \"{{%s}}\"",
								  block->steps[block->sink]->name),
						 "several steps are named by no other, so the output is not clear: %s",
						 names.data);
}

static void
resolve_block(Resolver *resolver, Step *block, const Scope *scope)
{
	Scope		inner = {scope, SCOPE_BLOCK, block};

	block->uses = palloc0(block->nsteps * sizeof(Bitmapset *));
	for (int i = 0; i < block->nsteps; i++)
		check_not_visible(resolver, scope, block->steps[i]->name,
						  block->steps[i]->line);
	for (int i = 0; i < block->nsteps; i++)
		resolve_step(resolver, block->steps[i], &inner);
	if (block->output)
		resolve_list(resolver, &inner, json_template_exprs(block->output),
					 &block->output_needs);
	if (block->until)
		resolve_expression(resolver, &inner, block->until,
						   &block->until_needs);
	check_block(block);
}

static void
resolve_body(Resolver *resolver, Step *step, const Scope *scope)
{
	List	   *exprs = NIL;

	switch (step->kind)
	{
		case STEP_MODEL:
			exprs = model_step_exprs(step->model);
			break;
		case STEP_SQL:
			exprs = sql_template_exprs(step->sql->text);
			break;
		case STEP_FUNCTION:
			for (int i = 0; i < step->function->nargs; i++)
				exprs = list_concat(exprs,
									json_template_exprs(step->function->args[i]));
			break;
		case STEP_VALUE:
			exprs = json_template_exprs(step->value);
			break;
		case STEP_WAIT:
			if (step->wait->text != NULL)
				exprs = template_exprs(step->wait->text);
			break;
		case STEP_ASK:
			exprs = ask_step_exprs(step->ask);
			break;
		case STEP_BLOCK:
			resolve_block(resolver, step, scope);
			return;
		case STEP_SWITCH:
			for (int i = 0; i < step->nsteps; i++)
				resolve_step(resolver, step->steps[i], scope);
			break;
	}
	resolve_list(resolver, scope, exprs, &step->body_needs);
	if (step->until)
		resolve_expression(resolver, scope, step->until,
						   &step->until_needs);
}

static void
resolve_context(void *arg)
{
	const Step *step = arg;

	if (step->name != NULL)
		errcontext("step \"%s\"", step->name);
}

static void
resolve_step(Resolver *resolver, Step *step, const Scope *scope)
{
	Scope		item = {scope, SCOPE_ITEM, step};
	Scope		round;
	Scope		error;
	ErrorContextCallback context;

	context.callback = resolve_context;
	context.arg = step;
	context.previous = error_context_stack;
	error_context_stack = &context;
	resolver->stack = lcons(step, resolver->stack);

	resolve_after(resolver, step, scope);
	if (step->when)
		resolve_expression(resolver, scope, step->when, &step->when_needs);
	if (step->each)
		resolve_list(resolver, scope, hole_exprs(NIL, step->each),
					 &step->each_needs);
	if (step->as)
		check_not_visible(resolver, scope, step->as, step->as_line);
	if (step->each)
		scope = &item;
	if (step->handler)
	{
		error = (Scope)
		{
			scope, SCOPE_ERROR, step
		};
		resolve_step(resolver, step->handler, &error);
	}
	if (step->until)
	{
		round = (Scope)
		{
			scope, SCOPE_ROUND, step
		};
		scope = &round;
	}
	resolve_body(resolver, step, scope);

	resolver->stack = list_delete_first(resolver->stack);
	error_context_stack = context.previous;
}

/* Gives every expression of the definition its NameRefs. */
void
definition_resolve(Definition *definition)
{
	Resolver	resolver = {definition, NIL};
	Scope		inputs = {NULL, SCOPE_INPUTS, NULL};

	resolve_step(&resolver, definition->body, &inputs);
}
