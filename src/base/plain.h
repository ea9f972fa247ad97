/*
 * plain.h
 *	  Types whose values are the same as JSON and as SQL: jsonb, text, boolean,
 *	  numbers, and arrays of them.
 *
 * Their values are converted by PostgreSQL's own built-in functions alone: no
 * catalog is read and nobody's code runs, so a process outside a transaction
 * may do it.  The results are those of value_to_datum() and value_from_datum().
 */
#ifndef CHAINCALL_PLAIN_H
#define CHAINCALL_PLAIN_H

#include "postgres.h"

#include "utils/jsonb.h"

typedef struct PlainType
{
	Oid			type;			/* InvalidOid: not plain; of an element */
	bool		array;
} PlainType;

extern PlainType plain_type(Oid type);
extern PlainType plain_type_named(const char *name);
extern bool plain_fits(const JsonbValue *value, PlainType type);
extern Jsonb *plain_convert(const Jsonb *value, PlainType type);

#endif							/* CHAINCALL_PLAIN_H */
