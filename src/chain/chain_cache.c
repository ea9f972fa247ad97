/*
 * chain_cache.c
 *	  Functions in LANGUAGE chaincall, compiled once a session.
 *
 * A compiled chain is good while its pg_proc row is the same, nothing it may
 * have looked up has changed (any function, type, relation, schema or role:
 * told by invalidation messages, which are rare enough to drop everything), and
 * the same role sees the same search_path.  A run holds its definition: one that
 * became stale meanwhile goes when the last run ends.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/error.h"
#include "base/value.h"
#include "catalog/namespace.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "chain/definition.h"
#include "commands/proclang.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

typedef struct CachedChain
{
	Oid			function;		/* hash key */
	Definition *definition;
	TransactionId xmin;
	ItemPointerData tid;
	uint64		generation;
	Oid			role;
	char	   *search_path;
} CachedChain;

static HTAB *chains = NULL;
static uint64 generation = 0;

static void
forget_syscache(Datum arg, int cacheid, uint32 hashvalue)
{
	generation++;
}

static void
forget_relcache(Datum arg, Oid relid)
{
	generation++;
}

static void
create_cache(void)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(CachedChain);
	ctl.hcxt = TopMemoryContext;
	chains = hash_create("chaincall chains", 32, &ctl,
						 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterSyscacheCallback(PROCOID, forget_syscache, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, forget_syscache, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, forget_syscache, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, forget_syscache, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, forget_syscache,
								  (Datum) 0);
	CacheRegisterRelcacheCallback(forget_relcache, (Datum) 0);
}

/*
 * Changes whenever something that a compiled chain may depend on has changed:
 * functions, types, relations, schemas, roles and who may use them.
 */
uint64
definition_generation(void)
{
	if (chains == NULL)
		create_cache();
	return generation;
}

/* The language's oid; InvalidOid where the extension is not installed. */
Oid
definition_language(void)
{
	return get_language_oid("chaincall", true);
}

static void
free_plans(Step *step)
{
	if (step->sql && step->sql->plan)
		SPI_freeplan(step->sql->plan);
	if (step->function && step->function->plan)
		SPI_freeplan(step->function->plan);
	for (int i = 0; i < step->nsteps; i++)
		free_plans(step->steps[i]);
	if (step->handler)
		free_plans(step->handler);
}

/* Frees the definition, or has the last run that holds it do so. */
void
definition_drop(Definition *definition)
{
	definition->stale = true;
	if (definition->uses > 0)
		return;
	free_plans(definition->body);
	MemoryContextDelete(definition->cxt);
}

/* The caller no longer needs a definition that it held. */
void
definition_release(Definition *definition)
{
	Assert(definition->uses > 0);
	definition->uses--;
	if (definition->stale)
		definition_drop(definition);
}

/* ---- what a function in this language may be ---- */

static void
refuse_attribute(const char *name, const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
			 errmsg("chain \"%s\" cannot be %s", name, what),
			 errhint("%s", hint)));
}

static void
check_attributes(HeapTuple tuple)
{
	Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);
	const char *name = NameStr(proc->proname);
	bool		isnull;

	if (proc->prokind != PROKIND_FUNCTION)
		refuse_attribute(name, "a procedure, aggregate or window function",
						 "Use CREATE FUNCTION.");
	if (proc->prosecdef)
		refuse_attribute(name, "SECURITY DEFINER",
						 "A chain runs with the privileges of its caller; call SECURITY DEFINER functions from its steps.");
	(void) SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proconfig, &isnull);
	if (!isnull)
		refuse_attribute(name, "given SET clauses",
						 "Settings would not hold while calls are in the air; set them in the functions that steps call.");
	if (proc->provolatile != PROVOLATILE_VOLATILE)
		refuse_attribute(name, "IMMUTABLE or STABLE",
						 "A chain calls models: leave it VOLATILE.");
	if (proc->proparallel != PROPARALLEL_UNSAFE)
		refuse_attribute(name, "PARALLEL SAFE or RESTRICTED",
						 "Leave it PARALLEL UNSAFE.");
	if (proc->prorettype == TRIGGEROID || proc->prorettype == EVENT_TRIGGEROID)
		refuse_attribute(name, "a trigger function",
						 "Call the chain from a trigger function in another language.");
}

static void
check_type(Oid type, const char *name, const char *what)
{
	if (IsPolymorphicType(type) || type == ANYOID)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("%s of chain \"%s\" is of the polymorphic type %s",
						what, name, format_type_be(type)),
				 errhint("Use a definite type, such as jsonb.")));
	if (type != RECORDOID && type != VOIDOID &&
		get_typtype(type) == TYPTYPE_PSEUDO)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("%s of chain \"%s\" is of type %s", what, name,
						format_type_be(type)),
				 errhint("Use a definite type, such as jsonb.")));
	value_check_type_supported(type, psprintf("%s of chain \"%s\"", what,
											  name));
}

/* The input arguments: named, of definite types. */
static ChainArg *
read_arguments(HeapTuple tuple, int *nargs)
{
	Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);
	const char *chain = NameStr(proc->proname);
	Oid		   *types;
	char	  **names;
	char	   *modes;
	int			n = get_func_arg_info(tuple, &types, &names, &modes);
	ChainArg   *args = palloc0(Max(n, 1) * sizeof(ChainArg));

	*nargs = 0;
	for (int i = 0; i < n; i++)
	{
		char		mode = modes ? modes[i] : PROARGMODE_IN;
		const char *name = names ? names[i] : "";

		if (mode == PROARGMODE_OUT || mode == PROARGMODE_TABLE)
		{
			check_type(types[i], chain, psprintf("column \"%s\"", name));
			continue;
		}
		if (!expr_name_valid(name) || expr_name_reserved(name))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
					 name[0] == '\0' ?
					 errmsg("argument %d of chain \"%s\" has no name",
							i + 1, chain) :
					 errmsg("argument %d of chain \"%s\" has the invalid name \"%s\"",
							i + 1, chain, name),
					 errhint("Arguments are the chain's inputs: name them in lower-case letters, digits and _, and not by a reserved word of the language.")));
		check_type(types[i], chain, psprintf("argument \"%s\"", name));
		args[*nargs].name = name;
		args[*nargs].type = types[i];
		(*nargs)++;
	}
	for (int i = *nargs - proc->pronargdefaults; i < *nargs; i++)
		args[i].has_default = true;
	return args;
}

static Definition *
compile_tuple(HeapTuple tuple)
{
	Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);
	ChainArg   *args;
	int			nargs;
	bool		isnull;
	Datum		source;
	Definition *definition;

	args = read_arguments(tuple, &nargs);
	check_type(proc->prorettype, NameStr(proc->proname), "the result");
	source = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull);
	definition = definition_compile(NameStr(proc->proname),
									TextDatumGetCString(source), nargs, args,
									true);
	definition->function = proc->oid;
	definition->result = proc->prorettype;
	definition->strict = proc->proisstrict;
	definition->returns_set = proc->proretset;
	definition_describe_result(definition);
	return definition;
}

static HeapTuple
fetch_function(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("chain with OID %u does not exist", function),
				 errhint("It was dropped meanwhile; create it again.")));
	return tuple;
}

/*
 * What the language's validator does: attributes always, the body where
 * check_function_bodies is on.
 */
void
definition_validate_function(Oid function, bool check_body)
{
	HeapTuple	tuple = fetch_function(function);

	if (check_body)
	{
		Definition *definition;

		check_attributes(tuple);
		definition = compile_tuple(tuple);
		MemoryContextDelete(definition->cxt);
	}
	ReleaseSysCache(tuple);
}

static bool
is_current(CachedChain *chain, HeapTuple tuple)
{
	return chain->generation == generation &&
		chain->xmin == HeapTupleHeaderGetRawXmin(tuple->t_data) &&
		ItemPointerEquals(&chain->tid, &tuple->t_self) &&
		chain->role == GetUserId() &&
		strcmp(chain->search_path, namespace_search_path) == 0;
}

/*
 * The compiled chain, held: call definition_release() when done with it.
 * Compiles it where that has not been done; raises what CREATE would.
 */
Definition *
definition_of_function(Oid function)
{
	HeapTuple	tuple = fetch_function(function);
	CachedChain *chain;
	Definition *definition;
	uint64		compiled_at;
	bool		found;

	if (chains == NULL)
		create_cache();
	chain = hash_search(chains, &function, HASH_FIND, NULL);
	if (chain != NULL && is_current(chain, tuple))
	{
		ReleaseSysCache(tuple);
		chain->definition->uses++;
		return chain->definition;
	}

	if (chain != NULL)
	{
		definition_drop(chain->definition);
		pfree(chain->search_path);
		(void) hash_search(chains, &function, HASH_REMOVE, NULL);
	}
	check_attributes(tuple);
	compiled_at = generation;
	definition = compile_tuple(tuple);
	MemoryContextSetParent(definition->cxt, TopMemoryContext);
	definition->uses = 1;

	/* compiling may have entered another chain's functions, never this one */
	chain = hash_search(chains, &function, HASH_ENTER, &found);
	Assert(!found);
	chain->definition = definition;
	chain->xmin = HeapTupleHeaderGetRawXmin(tuple->t_data);
	chain->tid = tuple->t_self;
	chain->generation = compiled_at;
	chain->role = GetUserId();
	chain->search_path = MemoryContextStrdup(TopMemoryContext,
											 namespace_search_path);
	ReleaseSysCache(tuple);
	return definition;
}
