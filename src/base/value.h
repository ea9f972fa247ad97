/*
 * value.h
 *	  SQL values as JSON and back (LANGUAGE.md, "Types").
 *
 * The same whatever DateStyle, IntervalStyle, TimeZone, extra_float_digits
 * and lc_monetary the session has: the JSON goes into cache keys.  All but
 * value_to_text() look types up, so they need a transaction.
 */
#ifndef CHAINCALL_VALUE_H
#define CHAINCALL_VALUE_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "utils/jsonb.h"

extern Jsonb *value_from_datum(Datum datum, bool isnull, Oid type);
extern Jsonb *value_from_tuple(HeapTuple tuple, TupleDesc desc);
extern Datum value_to_datum(const Jsonb *value, Oid type, int32 typmod,
							bool *isnull);
extern HeapTuple value_to_tuple(const Jsonb *value, TupleDesc desc);
extern char *value_to_text(const Jsonb *value);
extern void value_check_type_supported(Oid type, const char *what);

#endif							/* CHAINCALL_VALUE_H */
