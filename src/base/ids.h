/*
 * ids.h
 *	  Identities that are unique across nodes: UUIDv7 for runs and jobs,
 *	  random 64 bits for spans.
 */
#ifndef CHAINCALL_IDS_H
#define CHAINCALL_IDS_H

#include "postgres.h"

#include "utils/uuid.h"

extern void ids_uuid7(pg_uuid_t *uuid);
extern uint64 ids_span(void);
extern char *ids_uuid_text(const pg_uuid_t *uuid);

#endif							/* CHAINCALL_IDS_H */
