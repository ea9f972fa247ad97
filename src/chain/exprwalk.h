/*
 * exprwalk.h
 *	  Simple paths, `name(.key|[n]|[*])*`, walked straight over jsonb.
 */
#ifndef CHAINCALL_EXPRWALK_H
#define CHAINCALL_EXPRWALK_H

#include "postgres.h"

#include "chain/expression.h"

typedef enum WalkResult
{
	WALK_FOUND,
	WALK_MISSING,				/* no such key or index, or null on the way */
	WALK_UNFIT					/* a value of a type that has no such thing */
} WalkResult;

/* Why a value is not there; phrases for a message. */
typedef struct Fault
{
	bool		missing;
	char	   *problem;		/* "no key "a" in x" */
	char	   *detail;			/* a sentence, or NULL */
	char	   *hint;			/* a sentence, or NULL */
} Fault;

extern WalkResult walk_simple(const Expression *expr, ExprLookup lookup, void *arg,
							  JsonbValue *item, Fault *fault);
extern WalkResult walk_fault_key(Fault *fault, const JsonbValue *value,
								 const char *where, const char *key);
extern WalkResult walk_fault_array(Fault *fault, const JsonbValue *value,
								   const char *where);
extern void jsonb_item(const Jsonb *value, JsonbValue *item);
extern Jsonb *jsonb_from_item(JsonbValue *item);
extern char *item_description(JsonbValue *item);

#endif							/* CHAINCALL_EXPRWALK_H */
