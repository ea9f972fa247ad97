/*
 * definition.c
 *	  A chain's body becomes a Definition, in three passes.
 *
 *	  body ── yaml.c ──► nodes ── step.c ──► steps ── resolve.c ──► names
 *	       ── bind.c ──► models, functions, types of parameters
 *
 * All of it lives in one memory context of its own, which a failed
 * compilation leaves to the surrounding one to clean up.
 */
#include "postgres.h"

#include "base/error.h"
#include "chain/definition.h"
#include "utils/memutils.h"

/*
 * Raises an error of the chain's author: "line N: …", always with a hint.
 */
void
definition_error(int line, int sqlstate, const char *hint,
				 const char *fmt,...)
{
	StringInfoData text;

	initStringInfo(&text);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, fmt);
		needed = appendStringInfoVA(&text, fmt, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&text, needed);
	}
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg_internal("line %d: %s", line, text.data),
			 errhint("%s", hint)));
	pg_unreachable();
}

static void
compile_context(void *arg)
{
	errcontext("chain \"%s\"", (const char *) arg);
}

static Definition *
compile(const char *name, const char *body, int nargs, ChainArg *args,
		bool bind, PinSource *pins)
{
	MemoryContext cxt;
	MemoryContext old;
	Definition *definition;
	ErrorContextCallback context;

	cxt = AllocSetContextCreate(CurrentMemoryContext, "chaincall definition",
								ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(cxt);
	definition = palloc0(sizeof(Definition));
	definition->cxt = cxt;
	definition->name = pstrdup(name);
	MemoryContextSetIdentifier(cxt, definition->name);
	definition->pins = pins;
	definition->nargs = nargs;
	definition->args = palloc(Max(nargs, 1) * sizeof(ChainArg));
	for (int i = 0; i < nargs; i++)
	{
		definition->args[i] = args[i];
		definition->args[i].name = pstrdup(args[i].name);
	}

	context.callback = compile_context;
	context.arg = unconstify(char *, definition->name);
	context.previous = error_context_stack;
	error_context_stack = &context;

	definition->body = step_parse_body(definition, yaml_parse(body));
	definition_resolve(definition);
	if (bind)
		definition_bind(definition);

	error_context_stack = context.previous;
	definition->pins = NULL;
	MemoryContextSwitchTo(old);
	return definition;
}

/*
 * Compiles a body.  name is for messages; args are copied.  With bind, what
 * the chain names in the database must exist.  The result lives in a context
 * of its own below the current one; the caller moves it to where it is kept.
 */
Definition *
definition_compile(const char *name, const char *body, int nargs,
				   ChainArg *args, bool bind)
{
	return compile(name, body, nargs, args, bind, NULL);
}

/*
 * Compiles a body with what was looked up when it was pinned: no catalog is
 * read (save for the database's encoding, where that is not UTF8) and models
 * are not looked for.  Else as definition_compile().
 */
Definition *
definition_compile_pinned(const char *name, const char *body, int nargs,
						  ChainArg *args, PinSource *pins)
{
	return compile(name, body, nargs, args, true, pins);
}

/*
 * The definition of a single call: one model step whose prompt, input or
 * request is the only argument, `input`.  params: an object, or NULL.  In the
 * current memory context.
 */
Definition *
definition_of_call(const char *model, CallForm form, Jsonb *params)
{
	Definition *definition = palloc0(sizeof(Definition));
	Step	   *step = palloc0(sizeof(Step));
	YamlNode	input = {.type = YAML_STRING, .line = 1, .text = "{{input}}"};

	definition->cxt = CurrentMemoryContext;
	definition->name = model;
	definition->single = true;
	definition->nargs = 1;
	definition->args = palloc0(sizeof(ChainArg));
	definition->args[0].name = "input";
	definition->body = step;
	step->definition = definition;
	step->line = 1;
	step->kind = STEP_MODEL;
	step->slot = -1;
	step->model = palloc0(sizeof(ModelStep));
	step->model->name = model;
	step->model->form = form;
	step->model->fixed_params = params;
	if (form == CALL_MESSAGES)
		step->model->prompt = template_compile(input.text, 1);
	else
		step->model->body = json_template_compile(&input);
	definition_resolve(definition);
	return definition;
}
