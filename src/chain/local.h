/*
 * local.h
 *	  Tasks that run in this process by SPI: statements and functions.
 */
#ifndef CHAINCALL_LOCAL_H
#define CHAINCALL_LOCAL_H

#include "postgres.h"

#include "chain/plan.h"

extern Jsonb *local_execute(const Task *task);

#endif							/* CHAINCALL_LOCAL_H */
