/*
 * bind.c
 *	  Third pass of compilation: models, functions and SQL are looked up in
 *	  the catalogs, so that CREATE FUNCTION reports what is not there.
 *
 * Parameters of SQL take the types that PostgreSQL's own inference gives them
 * (parse_analyze_varparams, as PREPARE does).  Functions are called by named
 * arguments, through a statement built once.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/error.h"
#include "base/json.h"
#include "base/value.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "chain/definition.h"
#include "chain/hole.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

/* ---- model ---- */

static const ModelInfo *
find_model(const char *name, int line)
{
	const ModelInfo *model = catalog_model(name, true);

	if (model == NULL)
	{
		const char *nearest = catalog_nearest_model(name);

		definition_error(line, ERRCODE_UNDEFINED_OBJECT,
						 nearest ? psprintf("Did you mean \"%s\"?", nearest) :
						 "Add it first: INSERT INTO chaincall.model (name) VALUES (...)",
						 "unknown model \"%s\"", name);
	}
	return model;
}

/* What one model is asked another must understand. */
static void
bind_fallback(const ModelStep *step_model, const char *kind)
{
	for (int i = 0; step_model->fallback[i] != NULL; i++)
	{
		const ModelInfo *model = find_model(step_model->fallback[i],
											step_model->fallback_lines[i]);

		if (strcmp(model->kind, kind) != 0)
			definition_error(step_model->fallback_lines[i],
							 ERRCODE_INVALID_FUNCTION_DEFINITION,
							 psprintf("Name models of kind %s.", kind),
							 "model \"%s\" in \"fallback\" is of kind %s",
							 step_model->fallback[i], model->kind);
	}
}

static void
bind_model(const Step *step)
{
	const ModelStep *step_model = step->model;
	const ModelInfo *model = find_model(step_model->name, step_model->line);

	if (strcmp(model->kind, "image") == 0 || strcmp(model->kind, "audio") == 0)
		definition_error(step_model->line, ERRCODE_FEATURE_NOT_SUPPORTED,
						 "A later version will know it.",
						 "a step with a model of kind %s is not yet supported",
						 model->kind);
	if (step_model->form == CALL_MESSAGES &&
		(strcmp(model->kind, "embedding") == 0 ||
		 strcmp(model->kind, "rerank") == 0))
		definition_error(step_model->line, ERRCODE_INVALID_FUNCTION_DEFINITION,
						 "Use \"input\" in place of \"prompt\" or \"messages\".",
						 "model \"%s\" is of kind %s and takes no messages",
						 step_model->name, model->kind);
	if (step_model->form == CALL_INPUT && strcmp(model->kind, "chat") == 0)
		definition_error(step_model->line, ERRCODE_INVALID_FUNCTION_DEFINITION,
						 "Use \"prompt\" or \"messages\" in place of \"input\".",
						 "model \"%s\" is of kind chat and takes no \"input\"",
						 step_model->name);
	if (step_model->fallback != NULL)
		bind_fallback(step_model, pstrdup(model->kind));
}

/* ---- sql ---- */

/* The statements of a sql step; raises PostgreSQL's own syntax errors. */
List *
bind_parse_sql(const SqlStep *sql)
{
	return raw_parser(sql->text->sql, RAW_PARSE_DEFAULT);
}

static int
line_of_position(const SqlTemplate *text, int position)
{
	const char *p = text->sql;
	int			line = text->line;

	/* PostgreSQL counts characters from 1 */
	for (; position > 1 && *p != '\0'; position--)
	{
		if (*p == '\n')
			line++;
		p += pg_mblen(p);
	}
	return line;
}

/* Which columns a query gives, checked against what the step returns. */
static void
check_columns(const SqlStep *sql, const Query *query, int line)
{
	List	   *targets = query->commandType == CMD_SELECT ?
		query->targetList : query->returningList;
	int			columns = 0;
	ListCell   *lc;

	if (query->commandType == CMD_UTILITY)
		return;
	foreach(lc, targets)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (target->resjunk)
			continue;
		columns++;
		value_check_type_supported(exprType((Node *) target->expr),
								   psprintf("line %d: column \"%s\"", line,
											target->resname ? target->resname : "?column?"));
	}
	if (sql->returns == RETURNS_VALUE && columns != 1)
		definition_error(line, ERRCODE_INVALID_FUNCTION_DEFINITION,
						 "Select one column, or write returns: row.",
						 "\"returns: value\" takes one column, the statement gives %d",
						 columns);
	if (sql->returns == RETURNS_ROW && columns == 0)
		definition_error(line, ERRCODE_INVALID_FUNCTION_DEFINITION,
						 "Add RETURNING, or leave \"returns\" out.",
						 "\"returns: row\" needs a statement that gives columns");
}

static void
analyze_statements(SqlStep *sql, int line)
{
	List	   *statements = bind_parse_sql(sql);
	int			ntypes = sql->text->nparams;
	Oid		   *types = palloc0(Max(ntypes, 1) * sizeof(Oid));
	ListCell   *lc;

	if (statements == NIL)
		definition_error(line, ERRCODE_SYNTAX_ERROR,
						 "Write a statement.", "\"sql\" has no statement");
	foreach(lc, statements)
	{
		RawStmt    *raw = lfirst_node(RawStmt, lc);
		Query	   *query;

		if (IsA(raw->stmt, TransactionStmt))
			definition_error(line, ERRCODE_FEATURE_NOT_SUPPORTED,
							 "A step runs inside the transaction of its caller.",
							 "transaction commands are not allowed in a chain");
		query = parse_analyze_varparams(raw, sql->text->sql, &types, &ntypes,
										NULL);
		if (lnext(statements, lc) == NULL)
			check_columns(sql, query, line);
	}

	/* those of which the statement says nothing are text */
	sql->types = palloc(Max(sql->text->nparams, 1) * sizeof(Oid));
	for (int i = 0; i < sql->text->nparams; i++)
	{
		sql->types[i] = OidIsValid(types[i]) && types[i] != UNKNOWNOID ?
			types[i] : TEXTOID;
		value_check_type_supported(sql->types[i],
								   sql->text->params ?
								   psprintf("line %d: parameter {{%s}}", line,
											sql->text->params[i]->expr->source) :
								   psprintf("line %d: parameter $%d", line,
											i + 1));
	}
}

/* Where in a statement an error is. */
typedef struct Position
{
	const char *sql;
	int			offset;			/* in characters from 1; 0: unknown */
} Position;

/*
 * Turns the error's position into one in the step's statement.  Comes before
 * the callbacks around it, which would take it for one in the statement that
 * creates or calls the chain.
 */
static void
position_context(void *arg)
{
	Position   *position = arg;

	if (geterrposition() <= 0)
		return;
	position->offset = geterrposition();
	(void) internalerrposition(position->offset);
	(void) internalerrquery(position->sql);
	(void) errposition(0);
}

/*
 * Parses and analyses a sql step and sets the types of its parameters; the
 * text's params may be NULL where only the statement is known.
 * PostgreSQL's errors keep their SQLSTATE and gain the line of the chain.
 */
void
bind_sql(SqlStep *sql, int line)
{
	MemoryContext cxt = CurrentMemoryContext;
	Position	position = {sql->text->sql, 0};
	ErrorContextCallback context;

	context.callback = position_context;
	context.arg = &position;
	context.previous = error_context_stack;
	PG_TRY();
	{
		error_context_stack = &context;
		analyze_statements(sql, line);
		error_context_stack = context.previous;
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		FlushErrorState();
		if (edata->sqlerrcode != ERRCODE_QUERY_CANCELED &&
			strncmp(edata->message, "line ", 5) != 0)
		{
			edata->message = psprintf("line %d: %s",
									  line_of_position(sql->text, position.offset),
									  edata->message);
			if (edata->hint == NULL)
				edata->hint = pstrdup("The statement is checked when the chain is created; with check_function_bodies = off, when it is first used.");
		}
		ReThrowError(edata);
	}
	PG_END_TRY();
}

/* ---- function ---- */

typedef struct Signature
{
	int			nargs;			/* input arguments */
	const char **names;			/* "" without a name */
	Oid		   *types;
	char	   *modes;			/* NULL: all IN */
	int			ndefaults;
} Signature;

static void
read_signature(HeapTuple tuple, Signature *signature)
{
	Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);
	Oid		   *types;
	char	  **names;
	char	   *modes;
	int			n = get_func_arg_info(tuple, &types, &names, &modes);

	signature->nargs = 0;
	signature->names = palloc((n + 1) * sizeof(char *));
	signature->types = palloc((n + 1) * sizeof(Oid));
	signature->modes = palloc(n + 1);
	signature->ndefaults = proc->pronargdefaults;
	for (int i = 0; i < n; i++)
	{
		char		mode = modes ? modes[i] : PROARGMODE_IN;

		if (mode == PROARGMODE_OUT || mode == PROARGMODE_TABLE)
			continue;
		signature->names[signature->nargs] = names ? names[i] : "";
		signature->types[signature->nargs] = types[i];
		signature->modes[signature->nargs++] = mode;
	}
}

static int
find_argument(const Signature *signature, const char *name)
{
	for (int i = 0; i < signature->nargs; i++)
	{
		if (strcmp(signature->names[i], name) == 0)
			return i;
	}
	return -1;
}

/* Why the arguments given do not fit a function. */
typedef struct Misfit
{
	const char *why;			/* NULL: they do */
	const char *hint;
	int			line;
} Misfit;

static char *
list_arguments(const Signature *signature)
{
	StringInfoData list;

	if (signature->nargs == 0)
		return "It takes no arguments.";
	initStringInfo(&list);
	for (int i = 0; i < signature->nargs; i++)
		appendStringInfo(&list, "%s%s%s%s", i ? ", " : "",
						 signature->names[i],
						 signature->names[i][0] ? " " : "",
						 format_type_be(signature->types[i]));
	return psprintf("Its arguments are (%s).", list.data);
}

static Misfit
arguments_misfit(const FunctionStep *function, const Signature *signature)
{
	Misfit		misfit = {NULL, list_arguments(signature), function->line};

	for (int i = 0; i < function->nargs; i++)
	{
		if (find_argument(signature, function->arg_names[i]) >= 0)
			continue;
		misfit.why = psprintf("has no argument \"%s\"",
							  function->arg_names[i]);
		misfit.line = function->arg_lines[i];
		return misfit;
	}
	for (int i = 0; i < signature->nargs; i++)
	{
		bool		given = false;

		/* a call by names must give a variadic array, which has no default */
		if (i >= signature->nargs - signature->ndefaults &&
			(signature->modes[i] != PROARGMODE_VARIADIC ||
			 function->nargs == 0))
			continue;

		for (int k = 0; k < function->nargs && !given; k++)
			given = strcmp(signature->names[i], function->arg_names[k]) == 0;
		if (given)
			continue;
		misfit.why = psprintf("needs the argument \"%s\"",
							  signature->names[i]);
		if (signature->names[i][0] == '\0')
		{
			misfit.why = "has arguments without names";
			misfit.hint = "Call it in a sql step.";
		}
		return misfit;
	}
	return misfit;
}

static void pg_attribute_noreturn()
refuse_misfit(Oid oid, const Misfit *misfit)
{
	definition_error(misfit->line, ERRCODE_UNDEFINED_FUNCTION, misfit->hint,
					 "function %s %s", format_procedure(oid), misfit->why);
}

/* The one function of that name which the arguments fit. */
static Oid
choose_candidate(const FunctionStep *function)
{
	List	   *name = textToQualifiedNameList(cstring_to_text(function->name));
	FuncCandidateList candidates;
	Oid			found = InvalidOid;
	Oid			unfit = InvalidOid;
	bool		other = false;	/* something else has that name */
	int			fitting = 0;
	int			seen = 0;
	Misfit		misfit = {0};

	candidates = FuncnameGetCandidates(name, -1, NIL, false, false, false,
									   true);
	for (; candidates != NULL; candidates = candidates->next)
	{
		HeapTuple	tuple = SearchSysCache1(PROCOID,
											ObjectIdGetDatum(candidates->oid));
		Signature	signature;
		Misfit		here;

		if (!HeapTupleIsValid(tuple))
			continue;
		if (((Form_pg_proc) GETSTRUCT(tuple))->prokind != PROKIND_FUNCTION)
			other = true;
		else
		{
			seen++;
			read_signature(tuple, &signature);
			here = arguments_misfit(function, &signature);
			if (here.why == NULL)
			{
				fitting++;
				found = candidates->oid;
			}
			else
			{
				unfit = candidates->oid;
				misfit = here;
			}
		}
		ReleaseSysCache(tuple);
	}

	if (fitting == 1)
		return found;
	if (fitting > 1)
		definition_error(function->line, ERRCODE_AMBIGUOUS_FUNCTION,
						 psprintf("Write the signature: function: %s",
								  format_procedure(found)),
						 "function \"%s\" is not unique", function->name);
	if (seen == 0 && other)
		definition_error(function->line, ERRCODE_WRONG_OBJECT_TYPE,
						 "Call it in a sql step.",
						 "\"%s\" is not a plain function",
						 function->name);
	if (seen == 0)
		definition_error(function->line, ERRCODE_UNDEFINED_FUNCTION,
						 "Check the name and search_path; write schema.name where it is not on the path.",
						 "unknown function \"%s\"", function->name);
	if (seen == 1)
		refuse_misfit(unfit, &misfit);
	definition_error(function->line, ERRCODE_UNDEFINED_FUNCTION,
					 "Write the signature, and give each argument by its name.",
					 "no function \"%s\" takes these arguments",
					 function->name);
}

static Oid
find_function(const FunctionStep *function)
{
	MemoryContext cxt = CurrentMemoryContext;
	Oid			oid = InvalidOid;

	if (strchr(function->name, '(') == NULL)
		return choose_candidate(function);

	PG_TRY();
	{
		oid = DatumGetObjectId(DirectFunctionCall1(regprocedurein,
												   CStringGetDatum(function->name)));
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		FlushErrorState();
		definition_error(function->line, edata->sqlerrcode,
						 "Write it like name(integer, text).",
						 "%s", edata->message);
	}
	PG_END_TRY();
	return oid;
}

static bool
type_is_polymorphic(Oid type)
{
	return IsPolymorphicType(type) || type == ANYOID;
}

static void
check_function(const FunctionStep *function, Form_pg_proc proc,
			   const Signature *signature)
{
	int			line = function->line;

	if (proc->prokind != PROKIND_FUNCTION)
		definition_error(line, ERRCODE_WRONG_OBJECT_TYPE,
						 "Call it in a sql step.",
						 "%s is not a plain function",
						 format_procedure(function->oid));
	if (proc->prorettype == RECORDOID && !proc->proretset &&
		get_func_result_type(function->oid, NULL, NULL) == TYPEFUNC_RECORD)
		definition_error(line, ERRCODE_FEATURE_NOT_SUPPORTED,
						 "Call it in a sql step, with a column definition list.",
						 "function %s returns a record of unknown columns",
						 format_procedure(function->oid));
	if (proc->prorettype != RECORDOID && proc->prorettype != VOIDOID)
	{
		if (type_is_polymorphic(proc->prorettype) ||
			get_typtype(proc->prorettype) == TYPTYPE_PSEUDO)
			definition_error(line, ERRCODE_FEATURE_NOT_SUPPORTED,
							 "Call it in a sql step.",
							 "function %s returns %s",
							 format_procedure(function->oid),
							 format_type_be(proc->prorettype));
		value_check_type_supported(proc->prorettype,
								   psprintf("line %d: the result of %s", line,
											format_procedure(function->oid)));
	}
	for (int i = 0; i < function->nargs; i++)
	{
		int			at = find_argument(signature, function->arg_names[i]);

		if (at < 0)
			continue;
		if (get_typtype(signature->types[at]) == TYPTYPE_PSEUDO)
			definition_error(line, ERRCODE_FEATURE_NOT_SUPPORTED,
							 "Call it in a sql step.",
							 "argument \"%s\" of %s is of type %s",
							 function->arg_names[i],
							 format_procedure(function->oid),
							 format_type_be(signature->types[at]));
		value_check_type_supported(signature->types[at],
								   psprintf("line %d: argument \"%s\"", line,
											function->arg_names[i]));
	}
}

/* SELECT r FROM schema.f(a => $1, …) AS r: a row or a value a result. */
static char *
build_call(const FunctionStep *function, Form_pg_proc proc,
		   const Signature *signature)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT chaincall_result FROM %s(",
					 quote_qualified_identifier(get_namespace_name(proc->pronamespace),
												NameStr(proc->proname)));
	for (int i = 0; i < function->nargs; i++)
	{
		int			at = find_argument(signature, function->arg_names[i]);

		appendStringInfo(&sql, "%s%s%s => $%d", i ? ", " : "",
						 signature->modes[at] == PROARGMODE_VARIADIC ?
						 "VARIADIC " : "",
						 quote_identifier(function->arg_names[i]), i + 1);
	}
	appendStringInfoString(&sql, ") AS chaincall_result");
	return sql.data;
}

static const char *
pinned_text(const Jsonb *pin, const char *key)
{
	Jsonb	   *value = json_field(pin, key);

	return value == NULL || json_is_null(value) ? NULL :
		json_string_dup(value);
}

static bool
pinned_flag(const Jsonb *pin, const char *key)
{
	JsonbValue	v;

	return json_get(pin, key, &v) && v.type == jbvBool && v.val.boolean;
}

/* What bind_function() found when the chain was pinned. */
static void
bind_pinned_function(Definition *definition, FunctionStep *function)
{
	PinSource  *pins = definition->pins;
	Jsonb	   *pin = json_element(pins->functions, pins->next_function++);
	Jsonb	   *types = pin ? json_field(pin, "types") : NULL;

	if (types == NULL || json_count(types) != function->nargs)
		elog(ERROR, "pinned chain \"%s\" lacks the function \"%s\"",
			 definition->name, function->name);
	function->signature = pinned_text(pin, "function");
	function->result_type = pinned_text(pin, "result");
	function->helper = pinned_text(pin, "helper");
	function->sql = unconstify(char *, pinned_text(pin, "sql"));
	function->is_chain = pinned_flag(pin, "chain");
	function->set = pinned_flag(pin, "set");
	function->arg_type_names = palloc(Max(function->nargs, 1) * sizeof(char *));
	for (int i = 0; i < function->nargs; i++)
		function->arg_type_names[i] = json_string_dup(json_element(types, i));
}

static void
bind_function(Step *step)
{
	FunctionStep *function = step->function;
	HeapTuple	tuple;
	Form_pg_proc proc;
	Signature	signature;
	Misfit		misfit;

	step->definition->functions = lappend(step->definition->functions,
										  function);
	if (step->definition->pins != NULL)
	{
		bind_pinned_function(step->definition, function);
		return;
	}
	function->oid = find_function(function);
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function->oid));
	if (!HeapTupleIsValid(tuple))
		definition_error(function->line, ERRCODE_UNDEFINED_FUNCTION,
						 "Try again.", "function \"%s\" was dropped", function->name);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	read_signature(tuple, &signature);
	misfit = arguments_misfit(function, &signature);
	if (misfit.why != NULL)
		refuse_misfit(function->oid, &misfit);
	check_function(function, proc, &signature);

	function->is_chain = proc->prolang == definition_language();
	function->set = proc->proretset;
	function->result = proc->prorettype;
	function->arg_types = palloc(Max(function->nargs, 1) * sizeof(Oid));
	for (int i = 0; i < function->nargs; i++)
		function->arg_types[i] =
			signature.types[find_argument(&signature, function->arg_names[i])];
	function->sql = build_call(function, proc, &signature);
	ReleaseSysCache(tuple);
}

/* ---- the walk ---- */

static void
bind_context(void *arg)
{
	const Step *step = arg;

	if (step->name != NULL)
		errcontext("step \"%s\"", step->name);
}

static void
bind_step(Step *step)
{
	ErrorContextCallback context;

	context.callback = bind_context;
	context.arg = step;
	context.previous = error_context_stack;
	error_context_stack = &context;
	switch (step->kind)
	{
		case STEP_MODEL:
			/* a pinned chain's are looked up when the call starts */
			if (step->definition->pins == NULL)
				bind_model(step);
			break;
		case STEP_SQL:
			if (step->definition->pins == NULL)
				bind_sql(step->sql, step->sql->text->line);
			break;
		case STEP_FUNCTION:
			bind_function(step);
			break;
		case STEP_VALUE:
		case STEP_WAIT:
		case STEP_ASK:
			break;
		case STEP_BLOCK:
		case STEP_SWITCH:
			for (int i = 0; i < step->nsteps; i++)
				bind_step(step->steps[i]);
			break;
	}
	if (step->handler)
		bind_step(step->handler);
	error_context_stack = context.previous;
}

/* Looks up all that the definition names in the database. */
void
definition_bind(Definition *definition)
{
	bind_step(definition->body);
}
