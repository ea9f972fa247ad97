/*
 * exprparse.h
 *	  The syntax of expressions: tokens, grammar, translation to jsonpath.
 *
 * Shared by expression.c, which evaluates, and template.c, which cuts
 * `expression | filter` at the same tokens.
 */
#ifndef CHAINCALL_EXPRPARSE_H
#define CHAINCALL_EXPRPARSE_H

#include "postgres.h"

#include "nodes/pg_list.h"

/* What to do about an expression of which nothing better can be said. */
#define EXPR_HINT \
	"An expression is a path such as x.a, x[0] or x[*].b, or compares and calculates with such."

/* A token's type is its own character, or one of these. */
typedef enum ExprTokenType
{
	TOKEN_END = 256,
	TOKEN_WORD,
	TOKEN_STRING,
	TOKEN_NUMBER,
	TOKEN_AND,					/* && */
	TOKEN_OR,					/* || */
	TOKEN_EQUAL,				/* == */
	TOKEN_NOT_EQUAL,			/* != and <> */
	TOKEN_LESS_EQUAL,
	TOKEN_GREATER_EQUAL,
	TOKEN_ANY					/* ** */
} ExprTokenType;

/* What the grammar found a word or string to be. */
typedef enum ExprTokenRole
{
	ROLE_PLAIN,					/* literal, operator, key word, method */
	ROLE_NAME,					/* a leading name: an input or a step */
	ROLE_KEY					/* a member of an object */
} ExprTokenRole;

typedef struct ExprToken
{
	int			type;
	int			start;			/* bytes of the source, end excluded */
	int			end;
	char	   *text;			/* a word, number, or string without quotes */
	ExprTokenRole role;
	int			name;			/* of ROLE_NAME: index into names */
} ExprToken;

/* A chain of accessors outside of filters, `a.b[0].c`, for diagnosis. */
typedef struct ExprChain
{
	int			start;			/* byte of the source */
	int			nends;
	int		   *ends;			/* end of the primary and of each accessor */
} ExprChain;

/* One accessor of a path that needs no jsonpath. */
typedef enum ExprStepKind
{
	STEP_KEY,					/* .key */
	STEP_INDEX,					/* [offset] */
	STEP_LAST,					/* [last + offset] */
	STEP_NAME,					/* [name + offset] */
	STEP_ALL					/* [*] */
} ExprStepKind;

typedef struct ExprStep
{
	ExprStepKind kind;
	const char *key;
	int			keylen;
	int			name;			/* index into names */
	int			offset;
	int			end;			/* byte of the source behind it */
} ExprStep;

typedef struct ExprSteps
{
	int			name_end;		/* byte of the source behind the name */
	int			nsteps;
	ExprStep	steps[FLEXIBLE_ARRAY_MEMBER];
} ExprSteps;

typedef struct ExprParse
{
	int			nnames;
	const char **names;			/* in order of appearance */
	bool		many;
	bool		predicate;
	bool		slow;
	int			root;			/* the name that became $, or -1 */
	List	   *chains;			/* of ExprChain */
	ExprSteps  *steps;			/* NULL when jsonpath has to do it */
	char	   *jsonpath;
} ExprParse;

extern ExprToken *expr_tokens(const char *source, int line, int *ntokens);
extern ExprParse *expr_parse(const char *source, int line);
extern bool expr_token_is(const ExprToken *token, const char *word);
extern void expr_translate(const char *source, const ExprToken *tokens,
						   int ntokens, List *pinned, ExprParse *result);
extern int	expr_line_at(const char *source, int line, int position);
extern char *expr_source_excerpt(const char *source);

#endif							/* CHAINCALL_EXPRPARSE_H */
