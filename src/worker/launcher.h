/*
 * launcher.h
 *	  The launcher: which databases have workers, and how many.
 */
#ifndef CHAINCALL_LAUNCHER_H
#define CHAINCALL_LAUNCHER_H

#include "postgres.h"

/* one turn, in launcher.c; of one database, in scaling.c */
extern void scaling_callers(Oid database);
extern void scaling_executors(void);

extern bool launcher_start_executor(Oid database, Oid role);

#endif							/* CHAINCALL_LAUNCHER_H */
