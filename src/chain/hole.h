/*
 * hole.h
 *	  One `{{ expression | filter | filter }}`; shared by templates of text,
 *	  JSON and SQL.
 */
#ifndef CHAINCALL_HOLE_H
#define CHAINCALL_HOLE_H

#include "postgres.h"

#include "chain/expression.h"
#include "lib/stringinfo.h"

typedef enum FilterKind
{
	FILTER_DEFAULT,
	FILTER_JOIN,
	FILTER_JSON,
	FILTER_TRUNCATE,
	FILTER_FIRST
} FilterKind;

typedef struct Filter
{
	FilterKind	kind;
	bool		missing_ok;		/* of default: another default follows */
	Expression *expr;			/* of default */
	char	   *separator;		/* of join */
	int			count;			/* of truncate and first */
} Filter;

typedef struct TemplateHole
{
	Expression *expr;
	const char *literal;		/* it is just a string: the string */
	bool		missing_ok;		/* there is a default */
	int			nfilters;
	Filter	   *filters;
} TemplateHole;

extern const char *hole_next(const char *text);
extern const char *hole_end(const char *text, const char *open, int line);
extern TemplateHole *hole_compile(const char *text, int len, int line);
extern void hole_item(const TemplateHole *hole, ExprLookup lookup, void *arg,
					  JsonbValue *item);
extern Jsonb *hole_value(const TemplateHole *hole, ExprLookup lookup,
						 void *arg);
extern void hole_append_text(const TemplateHole *hole, ExprLookup lookup,
							 void *arg, StringInfo buf);
extern List *hole_exprs(List *exprs, const TemplateHole *hole);

#endif							/* CHAINCALL_HOLE_H */
