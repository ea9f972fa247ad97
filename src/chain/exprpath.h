/*
 * exprpath.h
 *	  Expressions that are more than a simple path, run as strict jsonpath.
 */
#ifndef CHAINCALL_EXPRPATH_H
#define CHAINCALL_EXPRPATH_H

#include "postgres.h"

#include "chain/expression.h"

/* The values that one evaluation asks several questions of. */
typedef struct PathScope
{
	Jsonb	   *root;			/* what $ is */
	Jsonb	   *variables;
} PathScope;

extern void path_compile(Expression *expr, const char *jsonpath);
extern void path_scope(PathScope *scope, const Expression *expr,
					   ExprLookup lookup, void *arg);
extern bool path_sound(const Expression *expr, const PathScope *scope);
extern Jsonb *path_value(const Expression *expr, const PathScope *scope,
						 ErrorData **error);

#endif							/* CHAINCALL_EXPRPATH_H */
