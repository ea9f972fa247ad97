/*
 * pinload.c
 *	  A closure is compiled again, in a caller, and its chains' arguments and
 *	  results are taken as JSON.
 *
 * Nothing here reads a catalog or runs a user's code.
 */
#include "postgres.h"

#include "base/error.h"
#include "base/json.h"
#include "chain/pin_private.h"
#include "utils/memutils.h"

static void
corrupt(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("a pinned chain is damaged: %s", what),
			 errhint("Enqueue the job again.")));
}

static Jsonb *
need(const Jsonb *object, const char *key)
{
	Jsonb	   *value = json_field(object, key);

	if (value == NULL)
		corrupt(key);
	return value;
}

/* NULL for null. */
static const char *
need_text(const Jsonb *object, const char *key)
{
	Jsonb	   *value = need(object, key);
	JsonbValue	v;

	if (!json_scalar(value, &v) ||
		(v.type != jbvString && v.type != jbvNull))
		corrupt(key);
	return v.type == jbvNull ? NULL :
		pnstrdup(v.val.string.val, v.val.string.len);
}

static bool
need_flag(const Jsonb *object, const char *key)
{
	JsonbValue	v;

	if (!json_scalar(need(object, key), &v) || v.type != jbvBool)
		corrupt(key);
	return v.val.boolean;
}

static Jsonb *
need_list(const Jsonb *object, const char *key)
{
	Jsonb	   *value = need(object, key);

	if (!JB_ROOT_IS_ARRAY(value) || JB_ROOT_IS_SCALAR(value))
		corrupt(key);
	return value;
}

static ChainArg *
load_args(PinnedChain *chain, const Jsonb *pin, int *nargs)
{
	Jsonb	   *list = need_list(pin, "args");
	ChainArg   *args;

	*nargs = json_count(list);
	args = palloc0(Max(*nargs, 1) * sizeof(ChainArg));
	chain->arg_types = palloc0(Max(*nargs, 1) * sizeof(PlainType));
	chain->plain_inputs = true;
	for (int i = 0; i < *nargs; i++)
	{
		Jsonb	   *arg = json_element(list, i);

		args[i].name = need_text(arg, "name");
		args[i].type_name = need_text(arg, "type");
		args[i].has_default = need_flag(arg, "default");
		args[i].value = json_field(arg, "value");
		if (args[i].name == NULL || args[i].type_name == NULL)
			corrupt("args");
		chain->arg_types[i] = plain_type_named(args[i].type_name);
		if (!OidIsValid(chain->arg_types[i].type) ||
			(args[i].has_default && args[i].value == NULL))
			chain->plain_inputs = false;
	}
	return args;
}

static void
load_columns(PinnedChain *chain, const Jsonb *pin)
{
	Jsonb	   *list = need_list(pin, "columns");

	chain->ncolumns = json_count(list);
	chain->column_names = palloc(Max(chain->ncolumns, 1) * sizeof(char *));
	chain->column_types = palloc(Max(chain->ncolumns, 1) * sizeof(char *));
	for (int i = 0; i < chain->ncolumns; i++)
	{
		Jsonb	   *column = json_element(list, i);

		chain->column_names[i] = need_text(column, "name");
		chain->column_types[i] = need_text(column, "type");
	}
}

static void
load_result(PinnedChain *chain, const Jsonb *pin)
{
	chain->result_type = need_text(pin, "result");
	if (chain->result_type == NULL)
		corrupt("result");
	chain->result = plain_type_named(chain->result_type);
	chain->result_void = strcmp(chain->result_type, "pg_catalog.void") == 0 ||
		strcmp(chain->result_type, "void") == 0;
	chain->plain_result = chain->result_void ||
		OidIsValid(chain->result.type);
	load_columns(chain, pin);
}

static bool
runs_sql(const Step *step)
{
	if (step->kind == STEP_SQL ||
		(step->kind == STEP_FUNCTION && !step->function->is_chain &&
		 step->function->helper == NULL) ||
		(step->handler && runs_sql(step->handler)))
		return true;
	for (int i = 0; i < step->nsteps; i++)
	{
		if (runs_sql(step->steps[i]))
			return true;
	}
	return false;
}

static void
load_chain(PinnedChain *chain, const Jsonb *pin)
{
	PinSource	source = {need_list(pin, "functions"), need_list(pin, "shapes"), 0, 0};
	const char *name = need_text(pin, "name");
	const char *body = need_text(pin, "body");
	const char *column = need_text(pin, "column");
	ChainArg   *args;
	int			nargs;
	Definition *definition;

	chain->signature = need_text(pin, "signature");
	if (chain->signature == NULL || name == NULL || body == NULL)
		corrupt("signature");
	args = load_args(chain, pin, &nargs);
	load_result(chain, pin);
	definition = definition_compile_pinned(name, body, nargs, args, &source);
	definition->strict = need_flag(pin, "strict");
	definition->returns_set = need_flag(pin, "set");
	definition->column = unconstify(char *, column);
	chain->definition = definition;
	chain->has_steps = runs_sql(definition->body);
}

/*
 * Compiles a closure.  Everything lives in a context of its own below
 * TopMemoryContext; pin_free() when nobody uses it.  Raises for a damaged
 * closure and one of a later version's format.
 */
Pinned *
pin_load(const Jsonb *closure)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext,
											  "chaincall pinned chain",
											  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	Pinned	   *pinned = palloc0(sizeof(Pinned));
	Jsonb	   *chains;

	if (!JB_ROOT_IS_OBJECT(closure))
		corrupt("no object");
	if (compareJsonbContainers(&need(closure, "format")->root,
							   &json_int(PIN_FORMAT)->root) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a pinned chain has a format that this version of chaincall does not know"),
				 errhint("Install the version that has enqueued the job, or a later one, and restart the server.")));
	pinned->cxt = cxt;
	pinned->search_path = need_text(closure, "search_path");
	chains = need_list(closure, "chains");
	pinned->nchains = json_count(chains);
	if (pinned->nchains == 0 || pinned->search_path == NULL)
		corrupt("chains");
	pinned->chains = palloc0(pinned->nchains * sizeof(PinnedChain));
	for (int i = 0; i < pinned->nchains; i++)
		load_chain(&pinned->chains[i], json_element(chains, i));
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(cxt, TopMemoryContext);
	return pinned;
}

/* Frees it with all that hangs on it. */
void
pin_free(Pinned *pinned)
{
	Assert(pinned->uses == 0);
	MemoryContextDelete(pinned->cxt);
}

/* The chain of that signature (a FunctionStep's), or NULL. */
PinnedChain *
pin_find(const Pinned *pinned, const char *signature)
{
	for (int i = 0; i < pinned->nchains; i++)
	{
		if (strcmp(pinned->chains[i].signature, signature) == 0)
			return &pinned->chains[i];
	}
	return NULL;
}

/*
 * The arguments of a nested chain, in order, from an object of them, as
 * definition_inputs() gives them in a session: unknown members, missing
 * arguments and values that do not fit raise.  NULL when an executor must make
 * them: a type that is not plain, a DEFAULT that is no constant.
 */
Jsonb **
pin_inputs(const PinnedChain *chain, const Jsonb *args, bool *null_for_strict)
{
	const Definition *definition = chain->definition;
	Jsonb	  **values = palloc(Max(definition->nargs, 1) * sizeof(Jsonb *));

	definition_check_members(definition, args);
	*null_for_strict = false;
	for (int i = 0; i < definition->nargs; i++)
	{
		const ChainArg *arg = &definition->args[i];
		Jsonb	   *given = json_field(args, arg->name);

		if (given == NULL && !arg->has_default)
			definition_lacks(definition, i);
		if (given == NULL)
			values[i] = arg->value;
		else if (OidIsValid(chain->arg_types[i].type))
			values[i] = plain_convert(given, chain->arg_types[i]);
		else
			values[i] = NULL;
		if (values[i] == NULL)
			return NULL;
		if (definition->strict && json_is_null(values[i]))
			*null_for_strict = true;
	}
	return values;
}

/*
 * The arguments of a job's own chain from job.input, which pin_normalise() has
 * made: taken as they are, whatever their types.
 */
Jsonb **
pin_job_inputs(const PinnedChain *chain, const Jsonb *input,
			   bool *null_for_strict)
{
	const Definition *definition = chain->definition;
	Jsonb	  **values = palloc(Max(definition->nargs, 1) * sizeof(Jsonb *));

	definition_check_members(definition, input);
	*null_for_strict = false;
	for (int i = 0; i < definition->nargs; i++)
	{
		values[i] = json_field(input, definition->args[i].name);
		if (values[i] == NULL)
			definition_lacks(definition, i);
		if (definition->strict && json_is_null(values[i]))
			*null_for_strict = true;
	}
	return values;
}

/*
 * The output as the chain's result type makes it, as definition_result() does
 * in a session; raises for what does not fit.  NULL when an executor must make
 * it.
 */
Jsonb *
pin_result(const PinnedChain *chain, Jsonb *output)
{
	Jsonb	   *rows;
	Jsonb	  **items;
	int			n;

	if (chain->result_void)
		return json_null();
	if (!chain->plain_result)
		return NULL;
	if (!chain->definition->returns_set)
		return plain_convert(output, chain->result);
	rows = definition_rows(chain->definition, output);
	n = json_count(rows);
	items = palloc(Max(n, 1) * sizeof(Jsonb *));
	for (int i = 0; i < n; i++)
	{
		items[i] = plain_convert(definition_row(json_element(rows, i),
												chain->definition->column),
								 chain->result);
		if (items[i] == NULL)
			return NULL;
	}
	return json_array(items, n);
}
