/*
 * expression.h
 *	  Expressions: PostgreSQL's strict jsonpath whose leading names are
 *	  inputs and steps (LANGUAGE.md, rules E1 to E3).
 */
#ifndef CHAINCALL_EXPRESSION_H
#define CHAINCALL_EXPRESSION_H

#include "postgres.h"

#include "utils/jsonb.h"
#include "utils/jsonpath.h"

struct NameRef;					/* what a name means: chain/definition.h */

typedef struct Expression
{
	const char *source;			/* as written, for messages */
	int			line;
	int			nnames;			/* distinct leading names */
	const char **names;
	struct NameRef *refs;		/* one a name, set by the definition */
	bool		many;			/* gives an array, always */
	bool		predicate;		/* a comparison or the like: true or false */
	bool		slow;			/* holds like_regex or .**: bound its time */
	struct ExprSteps *simple;	/* name(.key|[n])*, walked without jsonpath */
	JsonPath   *path;			/* anything else */
} Expression;

/* Value of names[i] of expr; never NULL (JSON null for null). */
typedef Jsonb *(*ExprLookup) (void *arg, const Expression *expr, int i);

extern Expression *expr_compile(const char *source, int line);
extern Jsonb *expr_value(const Expression *expr, ExprLookup lookup, void *arg);
extern Jsonb *expr_value_or_missing(const Expression *expr, ExprLookup lookup,
									void *arg);
extern bool expr_condition(const Expression *expr, ExprLookup lookup, void *arg);
extern bool expr_name_valid(const char *name);
extern bool expr_name_reserved(const char *name);

#endif							/* CHAINCALL_EXPRESSION_H */
