/*
 * template.h
 *	  `{{ expression | filter }}` in text, in JSON and in SQL (LANGUAGE.md,
 *	  rules T1 to T4).
 */
#ifndef CHAINCALL_TEMPLATE_H
#define CHAINCALL_TEMPLATE_H

#include "postgres.h"

#include "chain/expression.h"
#include "chain/yaml.h"
#include "nodes/pg_list.h"

typedef struct Template Template;	/* one scalar */
typedef struct JsonTemplate JsonTemplate;	/* JSON with templates in it */

/* A statement whose templates became bind parameters $1 … $n. */
typedef struct SqlTemplate
{
	char	   *sql;
	int			line;			/* of the statement's first line */
	int			nparams;
	struct TemplateHole **params;
	int		   *positions;		/* byte of each $n in sql, for messages */
} SqlTemplate;

extern Template *template_compile(const char *text, int line);
extern bool template_is_constant(const Template *template);
extern char *template_text(const Template *template, ExprLookup lookup,
						   void *arg);
extern Jsonb *template_json(const Template *template, ExprLookup lookup,
							void *arg);

extern JsonTemplate *json_template_compile(const YamlNode *node);
extern Jsonb *json_template_value(const JsonTemplate *template,
								  ExprLookup lookup, void *arg);

extern SqlTemplate *sql_template_compile(const char *text, int line);
extern Jsonb *sql_template_param(const SqlTemplate *template, int i,
								 ExprLookup lookup, void *arg);

/* All expressions in it, filters' arguments included: a List of Expression *. */
extern List *template_exprs(const Template *template);
extern List *json_template_exprs(const JsonTemplate *template);
extern List *sql_template_exprs(const SqlTemplate *template);

#endif							/* CHAINCALL_TEMPLATE_H */
