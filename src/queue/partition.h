/*
 * partition.h
 *	  The days that chaincall.span is divided into.
 */
#ifndef CHAINCALL_PARTITION_H
#define CHAINCALL_PARTITION_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/uuid.h"

/* Days since 1970-01-01, UTC. */
typedef int64 Day;

#define PARTITION_PREFIX "span_"
#define PARTITION_LOCK_TIMEOUT "50ms"

extern Day	day_of(TimestampTz time);
extern TimestampTz day_start(Day day);
extern char *day_name(Day day);
extern bool day_parse(const char *relname, Day *day);
extern void uuid_bound(TimestampTz time, pg_uuid_t *uuid);

#endif							/* CHAINCALL_PARTITION_H */
