/*
 * shape.h
 *	  What `returns` and `schema` mean: a JSON Schema, and the check of an
 *	  answer against it.
 */
#ifndef CHAINCALL_SHAPE_H
#define CHAINCALL_SHAPE_H

#include "postgres.h"

#include "call/call.h"
#include "chain/yaml.h"
#include "utils/jsonb.h"

typedef struct Shape
{
	AnswerShape answer;			/* first: what a call sees of it */
	Jsonb	   *schema;			/* what is checked */
	bool		wrapped;		/* the wire form is {"value": schema} */
	bool		fill;			/* absent fields become null */
	struct Schema *compiled;	/* schema, for checking */
} Shape;

extern Shape *shape_from_returns(const YamlNode *returns);
extern Shape *shape_from_schema(const YamlNode *schema);
extern Shape *shape_from_pin(Jsonb *schema, Jsonb *wire);
extern Shape *shape_from_type(Oid type, int32 typmod);
extern Jsonb *shape_check(const Shape *shape, const Jsonb *answer,
						  char **why);
extern Jsonb *shape_check_value(const Shape *shape, const Jsonb *value,
								char **why);

#endif							/* CHAINCALL_SHAPE_H */
