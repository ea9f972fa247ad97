/*
 * executor_plan.h
 *	  Plans of steps' statements, kept from step to step.
 */
#ifndef CHAINCALL_EXECUTOR_PLAN_H
#define CHAINCALL_EXECUTOR_PLAN_H

#include "postgres.h"

#include "executor/spi.h"
#include "worker/handover.h"

extern SPIPlanPtr executor_plan(const StepOrder *order, Oid **types);
extern void executor_plan_forget(void);

#endif							/* CHAINCALL_EXECUTOR_PLAN_H */
