/*
 * job.h
 *	  What the triggers of the runtime tables share.
 */
#ifndef CHAINCALL_JOB_H
#define CHAINCALL_JOB_H

#include "postgres.h"

#include "chain/pin.h"
#include "fmgr.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/uuid.h"

/* job_rows.c */
extern void job_check_event(FunctionCallInfo fcinfo, bool before);
extern void job_check_columns(Relation relation, const char *const *names,
							  int n, Oid *checked);
extern bool job_is_replicated(void);

/* job_actions.c */
extern void job_ask_replace(const pg_uuid_t *job, Jsonb *input);

/* job_definition.c */
extern void job_store_definition(PinMade *made);

#endif							/* CHAINCALL_JOB_H */
