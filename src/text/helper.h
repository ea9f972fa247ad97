/*
 * helper.h
 *	  chaincall's own text functions as steps of a chain that no SQL runs for.
 */
#ifndef CHAINCALL_HELPER_H
#define CHAINCALL_HELPER_H

#include "postgres.h"

#include "utils/jsonb.h"

extern Jsonb *helper_call(const char *name, int nargs,
						  const char *const *arg_names, Jsonb *const *args);

#endif							/* CHAINCALL_HELPER_H */
