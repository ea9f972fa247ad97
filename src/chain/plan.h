/*
 * plan.h
 *	  What of a chain can run next.
 *
 * A ChainPlan is one run of a chain as a tree of step runs, items and rounds.  It
 * knows nothing of sessions, jobs, sockets or SPI: a driver asks it for tasks
 * (a model call, a statement, a function call, with everything rendered),
 * runs them as it likes and tells what came of each.
 *
 *		plan_next() ──► Task ──► driver ──► plan_succeed() / plan_fail()
 */
#ifndef CHAINCALL_PLAN_H
#define CHAINCALL_PLAN_H

#include "postgres.h"

#include "base/error.h"
#include "call/call.h"
#include "chain/definition.h"

typedef struct ChainPlan ChainPlan;

typedef enum TaskKind
{
	TASK_MODEL,
	TASK_SQL,
	TASK_FUNCTION,
	TASK_WAIT,					/* until due; its output is params[0] */
	TASK_ASK,					/* until somebody has answered */
	/* only where a driver's ops put them off: */
	TASK_INPUTS,				/* params[0], an object, becomes the arguments of
								 * a called chain; output: their array, or null
								 * for a null under STRICT */
	TASK_RESULT					/* params[0], a called chain's output, becomes a
								 * value of its result type */
} TaskKind;

/* One attempt at one path, handed to the driver until it says what came of it. */
typedef struct Task
{
	TaskKind	kind;
	const Step *step;
	const char *chain;			/* name, for error contexts */
	const char *path;
	int			attempt;		/* of sql and function steps, from 1 */
	int64		deadline_us;	/* clock_us(), or CLOCK_NEVER */
	bool		catchable;		/* the chain goes on when it fails */
	bool		repeatable;		/* in a called chain that may be tried again as a
								 * whole: the same path may come again */
	MemoryContext cxt;			/* owns all of it */
	CallSpec	call;			/* of a model */
	Jsonb	  **params;			/* of a statement or function */
	TimestampTz due;			/* of a wait */
	AskSpec		ask;
	Definition *definition;		/* of the chain called, for inputs and result */
	struct ItemRun *item;
	void	   *driver;			/* the driver's own */
} Task;

/* What a plan needs of its driver. */
typedef struct PlanOps
{
	/*
	 * Runs work(arg), which evaluates expressions and may raise.  Where
	 * catchable, an error is returned as data; else it may be raised on.
	 * slow: the time it takes must be bounded, at the latest by deadline_us,
	 * when the time of the steps around is up.
	 */
	StepError  *(*evaluate) (void *driver, void (*work) (void *), void *arg,
							 bool catchable, bool slow,
							 int64 deadline_us);
	/* The task is no longer wanted; the plan frees it. */
	void		(*cancel) (void *driver, Task *task);
	/*
	 * The definition of a chain called by a function step, and its values.
	 * NULL of inputs (*null_for_strict false) and of result: a task for it
	 * shall be made.
	 */
	Definition *(*nested) (void *driver, const FunctionStep *function);
	Jsonb	  **(*inputs) (void *driver, Definition *definition,
						   const Jsonb *args, bool *null_for_strict);
	Jsonb	   *(*result) (void *driver, const Definition *definition,
						   Jsonb *output);

	/*
	 * What the task asks, for the error of a run that nothing catches (NULL:
	 * not known), in the current memory context.  NULL: nobody wants it.
	 */
	Jsonb	   *(*asked) (void *driver, const Task *task);
} PlanOps;

typedef struct PlanOptions
{
	const Jsonb *mock;			/* object path → output; NULL: none */
	const char *stop_after;		/* path; NULL: run to the end */
	const Jsonb *deadlines;		/* of the run that this one goes on with: see
								 * plan_deadlines(); NULL: it begins */
	bool		untimed;		/* no timeouts: nothing is run */
	bool		job;			/* statements are tried again after a deadlock
								 * or serialization failure */
	MemoryContext scratch;		/* of a driver of many plans, which are never
								 * entered at once; NULL: the plan's own */
} PlanOptions;

extern MemoryContext plan_scratch_create(MemoryContext parent);
extern ChainPlan *plan_create(Definition *definition, Jsonb **inputs,
						 const PlanOptions *options, const PlanOps *ops,
						 void *driver);
extern Task *plan_next(ChainPlan *plan, bool model);
extern void plan_succeed(ChainPlan *plan, Task *task, const Jsonb *output);
extern void plan_fail(ChainPlan *plan, Task *task, StepError *error);
extern int64 plan_due(const ChainPlan *plan);
extern void plan_tick(ChainPlan *plan, int64 now_us);
extern bool plan_ended(const ChainPlan *plan);
extern StepError *plan_error(const ChainPlan *plan);
extern char *plan_failed_at(const ChainPlan *plan);
extern Jsonb *plan_output(const ChainPlan *plan);
extern Jsonb *plan_outputs(const ChainPlan *plan);
extern void plan_progress(const ChainPlan *plan, int64 *known, int64 *done);
extern void plan_abandon(ChainPlan *plan);

/* of a run that is taken down and gone on with (plan_limit.c) */
extern Jsonb *plan_deadlines(const ChainPlan *plan);
extern void plan_caught_up(ChainPlan *plan);

extern void plan_check_path(const Definition *definition, const char *path);
extern bool plan_path_matches(const char *path, const char *wanted);

#endif							/* CHAINCALL_PLAN_H */
