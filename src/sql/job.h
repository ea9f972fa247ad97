/*
 * job.h
 *	  What job.c and job_calls.c share: definitions in the table.
 */
#ifndef CHAINCALL_JOB_H
#define CHAINCALL_JOB_H

#include "postgres.h"

#include "chain/pin.h"

extern void job_store_definition(PinMade *made);

#endif							/* CHAINCALL_JOB_H */
