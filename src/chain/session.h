/*
 * session.h
 *	  The driver that runs a chain at once, inside a backend.
 */
#ifndef CHAINCALL_SESSION_H
#define CHAINCALL_SESSION_H

#include "postgres.h"

#include "chain/plan.h"

extern Jsonb *session_run(Definition *definition, Jsonb **inputs,
						  const PlanOptions *options);
extern Jsonb *session_render(Definition *definition, Jsonb **inputs,
							 const char *path, const Jsonb *mock);

#endif							/* CHAINCALL_SESSION_H */
