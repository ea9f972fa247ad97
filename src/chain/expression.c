/*
 * expression.c
 *	  Compiles and evaluates expressions (LANGUAGE.md, rules E1 to E3).
 *
 * Simple paths are walked by exprwalk.c, anything else is a jsonpath run by
 * exprpath.c.  jsonpath's errors know neither our names nor what "missing"
 * means.  So when an evaluation fails, the chains of accessors in it are
 * retraced from the left, prefix by prefix, until the one that fails is
 * found: that gives the name of what is missing, and tells default() whether
 * it applies.
 */
#include "postgres.h"

#include <ctype.h>

#include "base/compat.h"
#include "base/error.h"
#include "chain/expression.h"
#include "chain/exprparse.h"
#include "chain/exprpath.h"
#include "chain/exprwalk.h"
#include "lib/stringinfo.h"

/* The text without surrounding white space; *line moves to its first line. */
static char *
trim(const char *source, int *line)
{
	const char *end = source + strlen(source);
	const char *start = source;

	while (*start == ' ' || (*start >= '\t' && *start <= '\r'))
		start++;
	while (end > start && (end[-1] == ' ' ||
						   (end[-1] >= '\t' && end[-1] <= '\r')))
		end--;
	*line = expr_line_at(source, *line, start - source);
	return pnstrdup(start, end - start);
}

/*
 * Compiles one expression whose text begins on `line` of the body.
 *
 * The result and all of it is palloc'd in the current context.  Raises
 * ERRCODE_SYNTAX_ERROR, "line N: ...", with the source as written.
 */
Expression *
expr_compile(const char *source, int line)
{
	Expression *expr = palloc0(sizeof(Expression));
	ExprParse  *parse;

	expr->source = trim(source, &line);
	expr->line = line;
	parse = expr_parse(expr->source, line);
	expr->nnames = parse->nnames;
	expr->names = parse->names;
	expr->many = parse->many;
	expr->predicate = parse->predicate;
	expr->slow = parse->slow;
	expr->simple = parse->steps;
	expr->root = parse->root;
	expr->chains = parse->chains;
	if (!expr->simple)
		path_compile(expr, parse->jsonpath);
	return expr;
}

/* Looking up the names of a part of expr means looking them up in expr. */
typedef struct PartLookup
{
	const Expression *whole;
	ExprLookup	lookup;
	void	   *arg;
} PartLookup;

static Jsonb *
lookup_for_part(void *arg, const Expression *part, int i)
{
	PartLookup *p = arg;

	for (int j = 0; j < p->whole->nnames; j++)
	{
		if (strcmp(p->whole->names[j], part->names[i]) == 0)
			return p->lookup(p->arg, p->whole, j);
	}
	elog(ERROR, "name \"%s\" is not in expression \"%s\"", part->names[i],
		 p->whole->source);
	return NULL;
}

/* The k-th accessor of a chain as it is written, from its first character. */
static char *
accessor_text(const Expression *expr, const ExprChain *chain, int k)
{
	int			start = chain->ends[k - 1];

	while (isspace((unsigned char) expr->source[start]))
		start++;
	return pnstrdup(expr->source + start, chain->ends[k] - start);
}

/* The k-th prefix of a chain as an expression of its own. */
static Expression *
chain_prefix(const Expression *expr, const ExprChain *chain, int k)
{
	return expr_compile(pnstrdup(expr->source + chain->start,
								 chain->ends[k] - chain->start), expr->line);
}

/* The first item that the accessor `text` cannot be applied to. */
static WalkResult
blame_item(Fault *fault, JsonbValue *item, const char *where,
		   const char *text)
{
	if (text[0] == '.' && text[1] != '*')
	{
		int			ntokens;
		ExprToken  *tokens = expr_tokens(text, 1, &ntokens);

		if (ntokens == 2)
		{
			JsonbValue	member;

			if (item->type == jbvBinary &&
				JsonContainerIsObject(item->val.binary.data) &&
				getKeyJsonValueFromContainer(item->val.binary.data,
											 tokens[1].text,
											 strlen(tokens[1].text), &member))
				return WALK_FOUND;
			return walk_fault_key(fault, item, where, tokens[1].text);
		}
	}
	if (item->type == jbvNull)
		return walk_fault_array(fault, item, where);
	if (text[0] == '[' && (item->type != jbvBinary ||
						   !JsonContainerIsArray(item->val.binary.data)))
		return walk_fault_array(fault, item, where);
	return WALK_FOUND;
}

/*
 * The accessor `text` fails on what prefix gives: says why.  An index that is
 * out of range is known by nothing else being wrong.
 */
static WalkResult
blame_accessor(const Expression *prefix, ExprLookup lookup, void *arg,
			   const char *text, Fault *fault)
{
	Jsonb	   *value = expr_value(prefix, lookup, arg);
	JsonbValue	item;
	WalkResult	result = WALK_FOUND;

	if (prefix->many)
	{
		JsonbIterator *it = JsonbIteratorInit(&value->root);
		JsonbIteratorToken token;
		int			n = 0;

		while (result == WALK_FOUND &&
			   (token = JsonbIteratorNext(&it, &item, true)) != WJB_DONE)
		{
			if (token == WJB_ELEM)
				result = blame_item(fault, &item,
									psprintf("(%s)[%d]", prefix->source, n++),
									text);
		}
	}
	else
	{
		jsonb_item(value, &item);
		result = blame_item(fault, &item, prefix->source, text);
	}
	if (result == WALK_FOUND && text[0] == '[' && text[1] != '*')
	{
		fault->missing = true;
		fault->problem = psprintf("index out of range in %s%s",
								  prefix->source, text);
		return WALK_MISSING;
	}
	return result;
}

static bool
part_is_sound(const Expression *part, PartLookup *lookup, Fault *fault,
			  WalkResult *result)
{
	JsonbValue	item;
	PathScope	scope;

	*result = WALK_FOUND;
	if (part->simple)
		*result = walk_simple(part, lookup_for_part, lookup, &item, fault);
	if (part->simple || part->predicate)
		return *result == WALK_FOUND;
	path_scope(&scope, part, lookup_for_part, lookup);
	return path_sound(part, &scope);
}

static WalkResult
diagnose_chain(const Expression *expr, const ExprChain *chain, PartLookup *lookup,
			   Fault *fault)
{
	Expression *before = NULL;

	for (int k = 0; k < chain->nends; k++)
	{
		Expression *part = chain_prefix(expr, chain, k);
		WalkResult	result;

		if (!part_is_sound(part, lookup, fault, &result))
		{
			if (result != WALK_FOUND || before == NULL)
				return result;
			return blame_accessor(before, lookup_for_part, lookup,
								  accessor_text(expr, chain, k),
								  fault);
		}
		before = part;
	}
	return WALK_FOUND;
}

/*
 * Why expr failed, as far as a missing or unfit value explains it; chains
 * inside others come first in the list, as they fail first.
 */
static WalkResult
diagnose(const Expression *expr, ExprLookup lookup, void *arg, Fault *fault)
{
	PartLookup	part_lookup = {expr, lookup, arg};
	ListCell   *cell;

	foreach(cell, expr->chains)
	{
		WalkResult	result;

		memset(fault, 0, sizeof(Fault));
		result = diagnose_chain(expr, lfirst(cell), &part_lookup, fault);
		if (result != WALK_FOUND)
			return result;
	}
	memset(fault, 0, sizeof(Fault));
	return WALK_FOUND;
}

static void pg_attribute_noreturn()
raise_fault(const Expression *expr, const Fault *fault)
{
	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_INPUT),
			 errmsg("%s: %s", expr_source_excerpt(expr->source),
					fault->problem),
			 fault->detail ? errdetail_internal("%s", fault->detail) : 0,
			 fault->hint ? errhint("%s", fault->hint) : 0));
}

static bool
listed(List *parts, const Expression *part)
{
	ListCell   *cell;

	foreach(cell, parts)
	{
		if (strcmp(((Expression *) lfirst(cell))->source, part->source) == 0)
			return true;
	}
	return false;
}

/* The part's value for a message; false when it has none. */
static bool
part_item(const Expression *part, PartLookup *lookup, JsonbValue *item)
{
	PathScope	scope;
	ErrorData  *error;
	Jsonb	   *value;

	if (part->simple)
		return walk_simple(part, lookup_for_part, lookup, item, NULL) ==
			WALK_FOUND;
	if (part->predicate)
		return false;
	path_scope(&scope, part, lookup_for_part, lookup);
	value = path_value(part, &scope, &error);
	if (value)
		jsonb_item(value, item);
	return value != NULL;
}

/*
 * `score is "high" (string), limit is 8 (number)`; NULL when nothing can be
 * said.
 */
static char *
describe_operands(const Expression *expr, ExprLookup lookup, void *arg)
{
	PartLookup	part_lookup = {expr, lookup, arg};
	List	   *shown = NIL;
	StringInfoData buf;
	ListCell   *cell;

	initStringInfo(&buf);
	foreach(cell, expr->chains)
	{
		ExprChain  *chain = lfirst(cell);
		Expression *part = chain_prefix(expr, chain, chain->nends - 1);
		JsonbValue	item;

		if (listed(shown, part) || !part_item(part, &part_lookup, &item))
			continue;
		appendStringInfo(&buf, "%s%s is %s", shown ? ", " : "",
						 expr_source_excerpt(part->source),
						 item_description(&item));
		shown = lappend(shown, part);
	}
	return shown ? buf.data : NULL;
}

static void pg_attribute_noreturn()
raise_unknown(const Expression *expr, ExprLookup lookup, void *arg)
{
	char	   *operands = describe_operands(expr, lookup, arg);

	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_INPUT),
			 errmsg("%s is neither true nor false%s%s",
					expr_source_excerpt(expr->source),
					operands ? ": " : "", operands ? operands : ""),
			 errhint("Only values of one type can be compared; null equals nothing but null.")));
}

static void pg_attribute_noreturn()
raise_path_error(const Expression *expr, ExprLookup lookup, void *arg,
				 const ErrorData *error)
{
	char	   *operands = describe_operands(expr, lookup, arg);

	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_INPUT),
			 errmsg("%s: %s", expr_source_excerpt(expr->source),
					error->message),
			 operands ? errdetail_internal("%s.", operands) : 0));
}

/* The value by jsonpath; NULL where it is missing and that is allowed. */
static Jsonb *
evaluate_path(const Expression *expr, ExprLookup lookup, void *arg, bool missing_ok)
{
	PathScope	scope;
	ErrorData  *error = NULL;
	Jsonb	   *value = NULL;
	Fault		fault;

	path_scope(&scope, expr, lookup, arg);
	if (!missing_ok || expr->predicate || path_sound(expr, &scope))
		value = path_value(expr, &scope, &error);
	if (value)
		return value;

	if (diagnose(expr, lookup, arg, &fault) != WALK_FOUND)
	{
		if (missing_ok && fault.missing)
			return NULL;
		raise_fault(expr, &fault);
	}
	if (error == NULL && !expr->predicate)
		value = path_value(expr, &scope, &error);
	if (error)
		raise_path_error(expr, lookup, arg, error);
	if (value == NULL)
		raise_unknown(expr, lookup, arg);
	return value;
}

/*
 * The value of expr into *item, which may point into what lookup returned.
 *
 * Returns false when it is missing (no such key or index, or null on the way
 * to it) and missing_ok; else that is an error of class input, as is every
 * other failure.  A null that is there is a value.
 */
bool
expr_item(const Expression *expr, ExprLookup lookup, void *arg, bool missing_ok,
		  JsonbValue *item)
{
	Jsonb	   *value;
	WalkResult	result;
	Fault		fault;

	if (!expr->simple)
	{
		value = evaluate_path(expr, lookup, arg, missing_ok);
		if (value)
			jsonb_item(value, item);
		return value != NULL;
	}
	result = walk_simple(expr, lookup, arg, item, NULL);
	if (result == WALK_FOUND)
		return true;
	if (result == WALK_MISSING && missing_ok)
		return false;
	(void) walk_simple(expr, lookup, arg, item, &fault);
	raise_fault(expr, &fault);
}

/* A bare name is its value, not a copy of it. */
static Jsonb *
evaluate(const Expression *expr, ExprLookup lookup, void *arg, bool missing_ok)
{
	JsonbValue	item;

	if (!expr->simple)
		return evaluate_path(expr, lookup, arg, missing_ok);
	if (expr->simple->nsteps == 0)
		return lookup(arg, expr, 0);
	if (!expr_item(expr, lookup, arg, missing_ok, &item))
		return NULL;
	return jsonb_from_item(&item);
}

/*
 * The value of expr: an array if expr->many, true or false if
 * expr->predicate.
 *
 * Raises ERRCODE_CHAIN_INPUT for what is missing, of a wrong type, or neither
 * true nor false.  The result is palloc'd in the current context or, for a
 * bare name, the very Jsonb that lookup gave: do not change it.
 */
Jsonb *
expr_value(const Expression *expr, ExprLookup lookup, void *arg)
{
	return evaluate(expr, lookup, arg, false);
}

/*
 * The same, but NULL where a key or index is missing, or something on the
 * way to it is null.  A null found at the end is JSON null.
 */
Jsonb *
expr_value_or_missing(const Expression *expr, ExprLookup lookup, void *arg)
{
	return evaluate(expr, lookup, arg, true);
}

/*
 * Is the condition true?  Raises ERRCODE_CHAIN_INPUT when it is unknown, or
 * no boolean.
 */
bool
expr_condition(const Expression *expr, ExprLookup lookup, void *arg)
{
	JsonbValue	item;

	(void) expr_item(expr, lookup, arg, false, &item);
	if (item.type == jbvBool)
		return item.val.boolean;
	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_INPUT),
			 errmsg("%s is %s, not true or false",
					expr_source_excerpt(expr->source),
					item_description(&item)),
			 errhint("Compare it, for instance: %s != null.",
					 expr_source_excerpt(expr->source))));
}
