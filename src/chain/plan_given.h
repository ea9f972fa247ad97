/*
 * plan_given.h
 *	  What a person gives: the input of a step in place of the one that its
 *	  chain renders, its output in place of an answer.
 */
#ifndef CHAINCALL_PLAN_GIVEN_H
#define CHAINCALL_PLAN_GIVEN_H

#include "postgres.h"

#include "chain/plan.h"

/* The definition of a chain that a function step calls; NULL: not known. */
typedef Definition *(*StepNested) (void *arg, const FunctionStep *function);

/* plan_find.c */
extern const Step *plan_find_step(const Definition *definition,
								  const char *path, StepNested nested,
								  void *arg, bool *item);

/* plan_given.c */
extern Jsonb *plan_params(const Task *task);
extern char *plan_input_fault(const Step *step, const Jsonb *input);
extern void plan_give_input(Task *task, Jsonb *input);
extern Jsonb *plan_given_output(const Step *step, const Jsonb *output,
								char **why);

#endif							/* CHAINCALL_PLAN_GIVEN_H */
