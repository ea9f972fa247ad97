/*
 * local.h
 *	  Statements and functions that run in this process by SPI.
 */
#ifndef CHAINCALL_LOCAL_H
#define CHAINCALL_LOCAL_H

#include "postgres.h"

#include "chain/plan.h"

extern SPIPlanPtr local_plan(SPIPlanPtr *kept, const char *sql, int nparams,
							 Oid *types);
extern void local_run(SPIPlanPtr plan, int nparams, const Oid *types,
					  Jsonb *const *params, Size most);
extern Jsonb *local_rows(RowsShape returns);
extern Jsonb *local_values(bool set);
extern Jsonb *local_execute(const Task *task);

#endif							/* CHAINCALL_LOCAL_H */
