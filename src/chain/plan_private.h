/*
 * plan_private.h
 *	  The tree behind a ChainPlan, shared by plan.c (agenda, timers, what
 *	  drivers call), plan_step.c (transitions), plan_limit.c (timeouts),
 *	  plan_eval.c (values) and plan_path.c (names).
 */
#ifndef CHAINCALL_PLAN_PRIVATE_H
#define CHAINCALL_PLAN_PRIVATE_H

#include "postgres.h"

#include "chain/plan.h"
#include "lib/ilist.h"
#include "lib/pairingheap.h"

typedef struct StepRun StepRun;
typedef struct ItemRun ItemRun;

/* What a StepRun and an ItemRun share: they wait, and they take turns. */
typedef struct RunNode
{
	bool		is_item;
	bool		on_agenda;
	dlist_node	agenda;
	struct Waiter *waiters;		/* one a step that is waited for */
	int			nwaiters;
	int			missing;		/* of those, how many have not ended */
} RunNode;

typedef struct Waiter
{
	dlist_node	link;			/* in the StepRun's list; unlinked: next NULL */
	RunNode    *node;
} Waiter;

/* One run of a chain: the outermost, or one called by a function step. */
typedef struct ChainRun
{
	Definition *definition;
	Jsonb	  **inputs;
	ItemRun    *parent;			/* the function step's item; NULL: outermost */
	int			depth;
	StepRun    *body;
} ChainRun;

typedef enum RunRole
{
	ROLE_BODY,					/* of a chain */
	ROLE_CHILD,					/* of a block */
	ROLE_ARM,					/* of a switch */
	ROLE_HANDLER				/* of on_error */
} RunRole;

typedef enum RunPhase
{
	RUN_NEW,
	RUN_WHEN,
	RUN_EACH,
	RUN_ITEMS,
	RUN_DONE
} RunPhase;

/* One run of a step with all its items. */
struct StepRun
{
	RunNode		node;
	const Step *step;
	RunRole		role;
	int			arm;			/* of a switch */
	ItemRun    *parent;			/* NULL: body of chain */
	ChainRun   *chain;
	RunPhase	phase;
	bool		catchable;		/* something around it catches its failure */
	dlist_head	waiters;		/* who waits for its end */
	Jsonb	   *output;			/* when RUN_DONE */
	/* the fan-out */
	Jsonb	   *elements;		/* NULL: numbers, or no each */
	int			nitems;
	int			opened;
	int			finished;
	int			active;
	Jsonb	  **outputs;
	dlist_head	items;			/* active ItemRuns */
	bool		opening;		/* in plan->openers */
	dlist_node	opener;
};

typedef enum ItemPhase
{
	ITEM_NEW,
	ITEM_BODY,					/* waits for what its body names */
	ITEM_READY,					/* in a ready queue */
	ITEM_TASK,					/* a driver has it */
	ITEM_SWITCH,				/* looks for its arm */
	ITEM_INSIDE,				/* steps inside run */
	ITEM_OUTPUT,				/* a block's output waits for outer steps */
	ITEM_UNTIL,
	ITEM_BACKOFF,
	ITEM_HANDLER
} ItemPhase;

/* One item of a step (its only one, where there is no each). */
struct ItemRun
{
	RunNode		node;
	StepRun    *run;
	dlist_node	link;			/* in run->items */
	dlist_node	ready;
	int			index;			/* -1: no each */
	int			round;			/* from 1 */
	int			attempt;		/* of the body, from 1 */
	ItemPhase	phase;
	bool		catchable;		/* its own on_error and retry count too */
	bool		late;			/* it was, in the run that this goes on with */
	Jsonb	   *element;
	Jsonb	   *last;			/* output of the last round */
	StepError  *error;			/* under on_error */
	int64		deadline_us;	/* its own timeout */
	int64		limit_us;		/* and of all around it */
	pairingheap_node deadline_node;
	int64		retry_us;
	pairingheap_node retry_node;
	/* what is inside, by kind of step */
	Task	   *task;
	StepRun   **children;		/* of a block */
	int			pending;		/* of them */
	StepRun    *inner;			/* arm or handler */
	int			arm;
	ChainRun   *nested;
	/* a conversion for the chain called, which the driver does */
	Jsonb	   *converting;		/* what is converted; NULL: none */
	bool		leaving;		/* the chain's output, not its arguments */
};

struct ChainPlan
{
	MemoryContext cxt;
	MemoryContext scratch;		/* reset each turn of the agenda */
	const PlanOps *ops;
	void	   *driver;
	PlanOptions options;
	ChainRun   *root;
	dlist_head	agenda;			/* Nodes that can go on */
	dlist_head	openers;		/* StepRuns with items to open */
	dlist_head	ready_models;
	dlist_head	ready_local;
	pairingheap deadlines;
	bool		catching_up;	/* none of them counts yet */
	List	   *late;			/* of char *: items that took too long */
	pairingheap retries;
	bool		ended;
	int64		known;			/* items of steps that do something */
	int64		done;			/* of these, ended */
	Jsonb	   *output;
	StepError  *error;
	JsonbParseState *outputs;	/* with stop_after: what there is so far */
	/* what is being evaluated, for error contexts */
	bool		evaluating;
	const StepRun *at_run;
	const ItemRun *at_item;
};

/* plan.c */
extern void plan_agenda_add(ChainPlan *plan, RunNode *node);
extern void plan_stop_waiting(RunNode *node);
extern bool plan_have_needs(ChainPlan *plan, RunNode *node,
							const ItemRun *item, const Needs *needs);
extern void plan_wake_waiters(ChainPlan *plan, StepRun *run);
extern ItemRun *plan_around(const StepRun *run);
extern StepRun *plan_make_run(ChainPlan *plan, const Step *step,
							  RunRole role, ItemRun *parent,
							  ChainRun *chain);
extern void plan_note_input(ChainPlan *plan, const Task *task,
							const ItemRun *item, StepError *error);
extern void plan_abort_inside(ChainPlan *plan, ItemRun *item);

/* plan_limit.c */
extern void plan_limit_init(ChainPlan *plan);
extern int64 plan_limit_around(const StepRun *run);
extern void plan_limit_item(ChainPlan *plan, ItemRun *item);
extern void plan_drop_deadline(ChainPlan *plan, ItemRun *item);
extern ItemRun *plan_first_deadline(const ChainPlan *plan);
extern bool plan_is_overdue(const ChainPlan *plan);
extern void plan_time_out(ChainPlan *plan, ItemRun *item, int64 now_us);
extern ItemRun *plan_late_item(ChainPlan *plan, ItemRun *item);

/* plan_step.c */
extern void plan_advance_run(ChainPlan *plan, StepRun *run);
extern void plan_advance_item(ChainPlan *plan, ItemRun *item);
extern void plan_open_item(ChainPlan *plan, StepRun *run);
extern void plan_body_done(ChainPlan *plan, ItemRun *item, Jsonb *output);
extern void plan_item_fail(ChainPlan *plan, ItemRun *item, StepError *error);
extern void plan_converted(ChainPlan *plan, ItemRun *item, Jsonb *output);

/* plan_eval.c */
extern StepError *plan_condition(ChainPlan *plan, const StepRun *run,
								 const ItemRun *item, const Expression *expr,
								 bool catchable, bool slow, bool *result);
extern StepError *plan_elements(ChainPlan *plan, StepRun *run);
extern StepError *plan_json(ChainPlan *plan, const ItemRun *item,
							const JsonTemplate *template, Jsonb **result);
extern StepError *plan_render(ChainPlan *plan, ItemRun *item, Task **task);
extern Task *plan_conversion(ChainPlan *plan, ItemRun *item);
extern void plan_set_inputs(ChainPlan *plan, ChainRun *chain,
							Jsonb **inputs);
extern StepError *plan_enter_chain(ChainPlan *plan, ItemRun *item,
								   ChainRun **chain, bool *null_for_strict,
								   Jsonb **put_off);
extern StepError *plan_leave_chain(ChainPlan *plan, ItemRun *item,
								   Jsonb *output, Jsonb **result);
extern Jsonb *plan_keep(ChainPlan *plan, const Jsonb *value);
extern StepError *plan_place_error(ChainPlan *plan, const StepRun *run,
								   const ItemRun *item, StepError *error);
extern StepError *plan_make_error(ChainPlan *plan, const ItemRun *item,
								  ErrorClass cls, const char *message,
								  const char *detail, const char *hint);

/* plan_path.c */
extern void path_of_run(StringInfo path, const StepRun *run);
extern void path_of_item(StringInfo path, const ItemRun *item);
extern void path_of_deadline(StringInfo path, const ItemRun *item);
extern char *path_name(const StepRun *run);
extern Jsonb *path_mocked(const ChainPlan *plan, const char *path);

#endif							/* CHAINCALL_PLAN_PRIVATE_H */
