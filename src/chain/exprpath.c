/*
 * exprpath.c
 *	  Expressions that are more than a simple path, run as strict jsonpath by
 *	  PostgreSQL's own functions.
 *
 * Strict mode has to be asked with care: in its silent mode an error leaves
 * whatever was found before it.  So a value is only ever computed loudly, and
 * silence is used for one question alone, `exists`, whose answer in strict
 * mode is true or false when the whole path is free of errors, and unknown
 * when it is not.
 *
 * jsonpath is pure computation that holds nothing but memory; its errors
 * about the data are caught here, to be raised again in better words.
 */
#include "postgres.h"

#include "base/error.h"
#include "base/json.h"
#include "chain/exprparse.h"
#include "chain/exprpath.h"
#include "chain/exprwalk.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

/* jsonpath accepts what is inside the strings and numbers, or we say where. */
static JsonPath *
make_jsonpath(const char *text, const char *source, int line)
{
	MemoryContext context = CurrentMemoryContext;
	Datum volatile path = (Datum) 0;

	PG_TRY();
	{
		path = DirectFunctionCall1(jsonpath_in, CStringGetDatum(text));
	}
	PG_CATCH();
	{
		ErrorData  *error;

		if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_OPERATOR_INTERVENTION ||
			ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_INSUFFICIENT_RESOURCES)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line %d: %s in \"%s\"", line, error->message,
						expr_source_excerpt(source)),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 error->sqlerrcode == ERRCODE_INVALID_REGULAR_EXPRESSION ?
				 errhint("In a regular expression, write a backslash before a special character that stands for itself; inside quotes, two.") :
				 errhint(EXPR_HINT)));
	}
	PG_END_TRY();
	return DatumGetJsonPathP(path);
}

/* jsonb keeps an object's keys by length, then by bytes. */
static int
compare_keys(const char *a, const char *b)
{
	size_t		alen = strlen(a);
	size_t		blen = strlen(b);

	if (alen != blen)
		return alen < blen ? -1 : 1;
	return memcmp(a, b, alen);
}

/* Sets expr's var_order. */
static void
order_variables(Expression *expr)
{
	int			n = 0;

	expr->var_order = palloc(expr->nnames * sizeof(int) + 1);
	for (int i = 0; i < expr->nnames; i++)
	{
		int			j;

		if (i == expr->root)
			continue;
		for (j = n++; j > 0 &&
			 compare_keys(expr->names[i],
						  expr->names[expr->var_order[j - 1]]) < 0; j--)
			expr->var_order[j] = expr->var_order[j - 1];
		expr->var_order[j] = i;
	}
}

/*
 * Fills expr's path, exists and var_order from the jsonpath written for it.
 * Raises ERRCODE_SYNTAX_ERROR for what only jsonpath can judge.
 */
void
path_compile(Expression *expr, const char *jsonpath)
{
	expr->path = make_jsonpath(jsonpath, expr->source, expr->line);
	if (!expr->predicate)
		expr->exists = make_jsonpath(psprintf("strict exists (%s )",
											  jsonpath + strlen("strict")),
									 expr->source, expr->line);
	order_variables(expr);
}

/* What one value adds to an object under construction. */
static void
append_entry(StringInfo data, const Jsonb *value, JEntry *entry)
{
	const JsonbContainer *root = &value->root;
	int			start = data->len;
	JEntry		type = JENTRY_ISCONTAINER;
	const char *bytes = (const char *) root;
	uint32		len = VARSIZE(value) - VARHDRSZ;

	if (JsonContainerIsScalar(root))
	{
		type = root->children[0] & JENTRY_TYPEMASK;
		bytes = (const char *) &root->children[1];
		len = JBE_OFFLENFLD(root->children[0]);
	}
	if (type == JENTRY_ISCONTAINER || type == JENTRY_ISNUMERIC)
	{
		while (data->len % sizeof(uint32) != 0)
			appendStringInfoCharMacro(data, '\0');
	}
	appendBinaryStringInfo(data, bytes, len);
	*entry = type | (JEntry) (data->len - start);
}

/*
 * The object that jsonpath finds its variables in.  Written in jsonb's
 * stored form, with one memcpy a value: building it through JsonbValue would
 * take every value apart and put it together again.
 */
static Jsonb *
make_variables(const Expression *expr, ExprLookup lookup, void *arg)
{
	int			n = expr->nnames - (expr->root >= 0 ? 1 : 0);
	Size		header = VARHDRSZ + sizeof(uint32) + 2 * n * sizeof(JEntry);
	JEntry	   *entries = palloc0(2 * n * sizeof(JEntry) + 1);
	StringInfoData data;
	Jsonb	   *result;

	initStringInfo(&data);
	for (int i = 0; i < n; i++)
	{
		const char *name = expr->names[expr->var_order[i]];

		appendStringInfoString(&data, name);
		entries[i] = JENTRY_ISSTRING | (JEntry) strlen(name);
	}
	for (int i = 0; i < n; i++)
		append_entry(&data, lookup(arg, expr, expr->var_order[i]),
					 &entries[n + i]);
	if (data.len > JENTRY_OFFLENMASK)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_LIMIT),
				 errmsg("%s: the values it combines are too large",
						expr_source_excerpt(expr->source)),
				 errdetail("They take %d bytes; at most %d can be combined.",
						   data.len, JENTRY_OFFLENMASK)));
	result = palloc(header + data.len);
	SET_VARSIZE(result, header + data.len);
	result->root.header = (uint32) n | JB_FOBJECT;
	memcpy(result->root.children, entries, 2 * n * sizeof(JEntry));
	memcpy((char *) result + header, data.data, data.len);
	pfree(data.data);
	pfree(entries);
	return result;
}

/* Looks up what path_sound() and path_value() of expr will see. */
void
path_scope(PathScope *scope, const Expression *expr, ExprLookup lookup,
		   void *arg)
{
	scope->root = expr->root >= 0 ? lookup(arg, expr, expr->root) :
		json_null();
	scope->variables = make_variables(expr, lookup, arg);
}

/* A jsonb_path_* function; NULL for SQL's NULL. */
static Datum
call_path(PGFunction function, const PathScope *scope, JsonPath *path,
		  bool silent, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 4);
	Datum		result;

	InitFunctionCallInfoData(*fcinfo, NULL, 4, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = JsonbPGetDatum(scope->root);
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = PointerGetDatum(path);
	fcinfo->args[1].isnull = false;
	fcinfo->args[2].value = JsonbPGetDatum(scope->variables);
	fcinfo->args[2].isnull = false;
	fcinfo->args[3].value = BoolGetDatum(silent);
	fcinfo->args[3].isnull = false;
	result = function(fcinfo);
	*isnull = fcinfo->isnull;
	return result;
}

/*
 * call_path() with an error about the data held back in *error.  Anything
 * else (a cancel, no memory) goes on its way.
 */
static Datum
try_call(PGFunction function, const PathScope *scope, JsonPath *path, bool silent,
		 bool *isnull, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	Datum volatile result = (Datum) 0;

	*isnull = true;
	*error = NULL;
	PG_TRY();
	{
		result = call_path(function, scope, path, silent, isnull);
	}
	PG_CATCH();
	{
		if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		*error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	return result;
}

/*
 * Does expr, no condition, evaluate without an error?  Nearly always true to
 * the fact: PostgreSQL loses some errors behind .**, so path_value() may fail
 * all the same.
 */
bool
path_sound(const Expression *expr, const PathScope *scope)
{
	ErrorData  *error;
	bool		isnull;

	/* some errors, as of a datetime template, are raised even in silence */
	(void) try_call(jsonb_path_match, scope, expr->exists, true, &isnull,
					&error);
	return !isnull;
}

/*
 * The value, palloc'd; or NULL, with *error set or because a condition is
 * unknown.
 */
Jsonb *
path_value(const Expression *expr, const PathScope *scope, ErrorData **error)
{
	Datum		result;
	bool		isnull;

	if (expr->predicate)
	{
		JsonbValue	item = {.type = jbvBool};

		result = try_call(jsonb_path_match, scope, expr->path, false, &isnull,
						  error);
		item.val.boolean = DatumGetBool(result);
		return isnull ? NULL : jsonb_from_item(&item);
	}
	result = try_call(expr->many ? jsonb_path_query_array :
					  jsonb_path_query_first, scope, expr->path, false,
					  &isnull, error);
	if (isnull && *error == NULL)
		elog(ERROR, "expression \"%s\" gave no item", expr->source);
	return isnull ? NULL : DatumGetJsonbP(result);
}
