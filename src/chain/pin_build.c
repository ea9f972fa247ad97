/*
 * pin_build.c
 *	  What a closure is made of.
 *
 *	  {format, search_path, chains: [{signature, name, body, args: [{name, type,
 *	  default, value}], result, set, strict, column, columns: [{name, type}],
 *	  functions: [{function, chain, set, result, sql, types, helper}],
 *	  shapes: [{schema, wire}]}]}
 * The first chain is the job's, the others are those that it calls, each once.
 * Types are qualified SQL names.  functions and shapes stand in the order in
 * which compilation comes upon them.
 */
#include "postgres.h"

#include "base/error.h"
#include "base/json.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "chain/pin_private.h"
#include "commands/extension.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* A closure in the making. */
typedef struct PinBuild
{
	List	   *functions;		/* oids: chains found, in order */
	bool		needs_executor;
} PinBuild;

/* ---- names ---- */

static char *
type_text(Oid type)
{
	return format_type_extended(type, -1, FORMAT_TYPE_FORCE_QUALIFY);
}

static char *
signature_text(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	StringInfoData text;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u was dropped", function),
				 errhint("Create it again.")));
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	initStringInfo(&text);
	appendStringInfo(&text, "%s(",
					 quote_qualified_identifier(get_namespace_name(proc->pronamespace),
												NameStr(proc->proname)));
	for (int i = 0; i < proc->pronargs; i++)
	{
		char	   *name = type_text(proc->proargtypes.values[i]);

		if (strncmp(name, "pg_catalog.", strlen("pg_catalog.")) == 0)
			name += strlen("pg_catalog.");
		appendStringInfo(&text, "%s%s", i ? ", " : "", name);
	}
	appendStringInfoChar(&text, ')');
	ReleaseSysCache(tuple);
	return text.data;
}

/* As it is written however the session has quote_all_identifiers. */
static char *
plainly_quoted(char *(*write) (Oid object), Oid object)
{
	bool		quote_all = quote_all_identifiers;
	char	   *volatile text = NULL;

	quote_all_identifiers = false;
	PG_TRY();
	{
		text = write(object);
	}
	PG_FINALLY();
	{
		quote_all_identifiers = quote_all;
	}
	PG_END_TRY();
	return text;
}

static const char *
type_name(Oid type)
{
	return plainly_quoted(type_text, type);
}

/*
 * The function as schema.name(types), types of pg_catalog without it, palloc'd.
 * Raises where it was dropped.  It is how jobs, policies and dedupe_keys name a
 * chain, so it must be the same in all sessions.
 */
char *
pin_signature(Oid function)
{
	return plainly_quoted(signature_text, function);
}

/* The path as it is now: "$user" and schemas that do not exist are resolved. */
static char *
current_path(void)
{
	List	   *schemas = fetch_search_path(false);
	StringInfoData text;
	ListCell   *lc;

	initStringInfo(&text);
	foreach(lc, schemas)
	{
		Oid			schema = lfirst_oid(lc);
		char	   *name = isTempNamespace(schema) ? pstrdup("pg_temp") :
			get_namespace_name(schema);

		if (name != NULL)
			appendStringInfo(&text, "%s%s", text.len ? ", " : "",
							 quote_identifier(name));
	}
	return text.data;
}

/*
 * The name of chaincall's own C function that callers run themselves, or NULL.
 */
static const char *
helper_name(Oid function)
{
	static const char *const helpers[] = {
		"split_text", "join_text", "pack_text", "estimate_tokens"
	};
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	const char *found = NULL;

	if (!HeapTupleIsValid(tuple))
		return NULL;
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	for (int i = 0; i < (int) lengthof(helpers) && found == NULL; i++)
	{
		if (proc->prolang == ClanguageId &&
			strcmp(NameStr(proc->proname), helpers[i]) == 0)
			found = helpers[i];
	}
	ReleaseSysCache(tuple);
	if (found != NULL &&
		getExtensionOfObject(ProcedureRelationId,
							 function) != get_extension_oid("chaincall", true))
		found = NULL;
	return found;
}

/* ---- building ---- */

static void
put_json(JsonbParseState **state, const char *key, const Jsonb *value)
{
	json_push_key(state, key);
	json_push(state, WJB_VALUE, value);
}

static void
put_text(JsonbParseState **state, const char *key, const char *text)
{
	put_json(state, key, text ? json_text(text) : json_null());
}

static void
put_bool(JsonbParseState **state, const char *key, bool value)
{
	put_json(state, key, json_bool(value));
}

static void
begin_list(JsonbParseState **state, const char *key)
{
	json_push_key(state, key);
	(void) pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
}

static void
put_args(PinBuild *build, JsonbParseState **state,
		 const Definition *definition, bool nested)
{
	begin_list(state, "args");
	for (int i = 0; i < definition->nargs; i++)
	{
		const ChainArg *arg = &definition->args[i];
		Jsonb	   *value = arg->has_default ?
			definition_constant_default(definition, i) : NULL;

		(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
		put_text(state, "name", arg->name);
		put_text(state, "type", type_name(arg->type));
		put_bool(state, "default", arg->has_default);
		if (value != NULL)
			put_json(state, "value", value);
		(void) pushJsonbValue(state, WJB_END_OBJECT, NULL);
		if (nested && (!OidIsValid(plain_type(arg->type).type) ||
					   (arg->has_default && value == NULL)))
			build->needs_executor = true;
	}
	(void) pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

static void
put_result(PinBuild *build, JsonbParseState **state,
		   const Definition *definition)
{
	TupleDesc	columns = definition->columns;

	put_text(state, "result", type_name(definition->result));
	put_bool(state, "set", definition->returns_set);
	put_bool(state, "strict", definition->strict);
	put_text(state, "column", definition->column);
	begin_list(state, "columns");
	for (int i = 0; columns != NULL && i < columns->natts; i++)
	{
		(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
		put_text(state, "name", NameStr(TupleDescAttr(columns, i)->attname));
		put_text(state, "type", type_name(TupleDescAttr(columns, i)->atttypid));
		(void) pushJsonbValue(state, WJB_END_OBJECT, NULL);
	}
	(void) pushJsonbValue(state, WJB_END_ARRAY, NULL);
	if (definition->result != VOIDOID &&
		!OidIsValid(plain_type(definition->result).type))
		build->needs_executor = true;
}

static void
put_function(PinBuild *build, JsonbParseState **state,
			 const FunctionStep *function)
{
	const char *helper = helper_name(function->oid);

	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	put_text(state, "function", pin_signature(function->oid));
	put_bool(state, "chain", function->is_chain);
	put_bool(state, "set", function->set);
	put_text(state, "result", type_name(function->result));
	put_text(state, "sql", function->sql);
	put_text(state, "helper", helper);
	begin_list(state, "types");
	for (int i = 0; i < function->nargs; i++)
		json_push(state, WJB_ELEM, json_text(type_name(function->arg_types[i])));
	(void) pushJsonbValue(state, WJB_END_ARRAY, NULL);
	(void) pushJsonbValue(state, WJB_END_OBJECT, NULL);
	if (function->is_chain)
		build->functions = list_append_unique_oid(build->functions,
												  function->oid);
	else if (helper == NULL)
		build->needs_executor = true;
}

static void
put_shapes(JsonbParseState **state, const Definition *definition)
{
	ListCell   *lc;

	begin_list(state, "shapes");
	foreach(lc, definition->shapes)
	{
		const Shape *shape = lfirst(lc);

		(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
		put_json(state, "schema", shape->schema);
		put_json(state, "wire", shape->answer.wire);
		(void) pushJsonbValue(state, WJB_END_OBJECT, NULL);
	}
	(void) pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

static bool
has_sql(const Step *step)
{
	if (step->kind == STEP_SQL || (step->handler && has_sql(step->handler)))
		return true;
	for (int i = 0; i < step->nsteps; i++)
	{
		if (has_sql(step->steps[i]))
			return true;
	}
	return false;
}

static char *
body_of(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool		isnull;
	char	   *body;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("chain with OID %u was dropped", function),
				 errhint("Create it again.")));
	body = TextDatumGetCString(SysCacheGetAttr(PROCOID, tuple,
											   Anum_pg_proc_prosrc, &isnull));
	ReleaseSysCache(tuple);
	return body;
}

static void
put_chain(PinBuild *build, JsonbParseState **state,
		  const Definition *definition)
{
	bool		nested = definition->function != linitial_oid(build->functions);
	ListCell   *lc;

	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	put_text(state, "signature", pin_signature(definition->function));
	put_text(state, "name", definition->name);
	put_text(state, "body", body_of(definition->function));
	put_args(build, state, definition, nested);
	put_result(build, state, definition);
	begin_list(state, "functions");
	foreach(lc, definition->functions)
		put_function(build, state, lfirst(lc));
	(void) pushJsonbValue(state, WJB_END_ARRAY, NULL);
	put_shapes(state, definition);
	(void) pushJsonbValue(state, WJB_END_OBJECT, NULL);
	if (has_sql(definition->body))
		build->needs_executor = true;
}

/* Adds the chain, held while it is looked at. */
static void
add_chain(PinBuild *build, JsonbParseState **state, Oid function)
{
	Definition *definition = definition_of_function(function);

	PG_TRY();
	{
		put_chain(build, state, definition);
	}
	PG_FINALLY();
	{
		definition_release(definition);
	}
	PG_END_TRY();
}

static Jsonb *
build_closure(PinBuild *build)
{
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	put_json(&state, "format", json_int(PIN_FORMAT));
	put_text(&state, "search_path", current_path());
	begin_list(&state, "chains");
	/* the list grows as chains are found in it */
	for (int i = 0; i < list_length(build->functions); i++)
	{
		CHECK_FOR_INTERRUPTS();
		add_chain(build, &state, list_nth_oid(build->functions, i));
	}
	(void) pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static void
hash_closure(PinMade *made)
{
	char	   *text = JsonbToCString(NULL, &made->closure->root,
									  VARSIZE(made->closure));
	pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);

	if (hash == NULL || pg_cryptohash_init(hash) < 0 ||
		pg_cryptohash_update(hash, (const uint8 *) text, strlen(text)) < 0 ||
		pg_cryptohash_final(hash, made->sha256, PIN_HASH_LEN) < 0)
		elog(ERROR, "could not compute sha256");
	pg_cryptohash_free(hash);
	pfree(text);
}

/*
 * Makes the closure of a chain, as the current user and by the session's
 * search_path, in cxt; see pin_make().
 */
PinMade *
pin_build(Oid function, MemoryContext cxt)
{
	PinBuild	build = {list_make1_oid(function), false};
	Jsonb	   *closure = build_closure(&build);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	PinMade    *made = palloc0(sizeof(PinMade));

	made->function = function;
	made->signature = pin_signature(function);
	made->closure = json_copy(cxt, closure);
	made->needs_executor = build.needs_executor;
	hash_closure(made);
	MemoryContextSwitchTo(old);
	return made;
}
