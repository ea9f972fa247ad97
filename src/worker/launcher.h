/*
 * launcher.h
 *	  The launcher: which databases have workers, and how many.
 */
#ifndef CHAINCALL_LAUNCHER_H
#define CHAINCALL_LAUNCHER_H

#include "postgres.h"

/* scaling.c: in each turn of the launcher */
extern void scaling_callers(Oid database);
extern void scaling_executors(void);

#endif							/* CHAINCALL_LAUNCHER_H */
