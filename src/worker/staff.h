/*
 * staff.h
 *	  The workers that the launcher has started, from its point of view.
 */
#ifndef CHAINCALL_STAFF_H
#define CHAINCALL_STAFF_H

#include "postgres.h"

#include "base/shared.h"

extern bool staff_start(WorkerKind kind, Oid database, Oid role);
extern int	staff_count(WorkerKind kind, Oid database, Oid role);
extern void staff_reap(void);
extern void staff_forgive(Oid database);
extern void staff_register_launcher(void);

/* When the launcher shall turn again whatever happens; each turn anew. */
extern void staff_turn_begins(void);
extern void staff_turn_at(TimestampTz when);
extern long staff_timeout_ms(void);

#endif							/* CHAINCALL_STAFF_H */
