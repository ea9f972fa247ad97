/*
 * lookup.h
 *	  An ExprLookup for tests: names are the keys of one JSON object.
 */
#ifndef CHAINCALL_TEST_LOOKUP_H
#define CHAINCALL_TEST_LOOKUP_H

#include "postgres.h"

#include "base/json.h"
#include "chain/expression.h"

static inline Jsonb *
lookup_in_object(void *arg, const Expression *expr, int i)
{
	Jsonb	   *value = json_field((Jsonb *) arg, expr->names[i]);

	if (value == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_PARAMETER),
				 errmsg("the test has no \"%s\"", expr->names[i])));
	return value;
}

#endif							/* CHAINCALL_TEST_LOOKUP_H */
