/*
 * expression.h
 *	  Expressions: PostgreSQL's strict jsonpath whose leading names are
 *	  inputs and steps (LANGUAGE.md, rules E1 to E3).
 */
#ifndef CHAINCALL_EXPRESSION_H
#define CHAINCALL_EXPRESSION_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/jsonpath.h"

struct NameRef;					/* what a name means: chain/definition.h */
struct ExprSteps;				/* chain/exprparse.h */

/* Immutable once its definition has set refs; all of it in one context. */
typedef struct Expression
{
	const char *source;			/* as written, for messages */
	int			line;
	int			nnames;			/* distinct leading names */
	const char **names;
	struct NameRef *refs;		/* one a name, set by the definition */
	bool		many;			/* gives an array, always */
	bool		predicate;		/* a comparison or the like: true or false */
	bool		slow;			/* may run longer than its input is long:
								 * like_regex, .**, filters, products */
	struct ExprSteps *simple;	/* name(.key|[n])*, walked without jsonpath */
	JsonPath   *path;			/* anything else */
	JsonPath   *exists;			/* `exists (path)`, when path is no condition */
	int			root;			/* the name that is $ in path, or -1 */
	int		   *var_order;		/* the other names, as jsonb sorts keys */
	List	   *chains;			/* of ExprChain, for messages */
} Expression;

/* Value of names[i] of expr; never NULL (JSON null for null). */
typedef Jsonb *(*ExprLookup) (void *arg, const Expression *expr, int i);

extern Expression *expr_compile(const char *source, int line);
extern Jsonb *expr_value(const Expression *expr, ExprLookup lookup, void *arg);
extern Jsonb *expr_value_or_missing(const Expression *expr, ExprLookup lookup,
									void *arg);
extern bool expr_item(const Expression *expr, ExprLookup lookup, void *arg,
					  bool missing_ok, JsonbValue *item);
extern bool expr_condition(const Expression *expr, ExprLookup lookup,
						   void *arg);
extern bool expr_name_valid(const char *name);
extern bool expr_name_reserved(const char *name);

#endif							/* CHAINCALL_EXPRESSION_H */
