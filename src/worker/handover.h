/*
 * handover.h
 *	  Steps on their way from callers to executors and back, through shared
 *	  memory.
 *
 * A caller offers an order and gets a ticket.  An executor of the order's
 * owner takes it, runs it, commits, flushes, and answers.  The caller collects
 * answers.  Nothing is lost when either dies: an order whose executor has died
 * is offered again by its caller, orders of a dead caller are thrown away by
 * whoever finds them.
 *
 *		caller: handover_offer() ──► OFFERED ──► executor: handover_take()
 *		                                              TAKEN
 *		caller: handover_collect() ◄── DONE ◄── handover_answer()
 */
#ifndef CHAINCALL_HANDOVER_H
#define CHAINCALL_HANDOVER_H

#include "postgres.h"

#include "base/error.h"
#include "chain/definition.h"
#include "chain/plan.h"
#include "utils/uuid.h"

typedef enum OrderKind
{
	ORDER_SQL,					/* a statement; checkpoint under its path */
	ORDER_FUNCTION,				/* a function; checkpoint under its path */
	ORDER_INPUTS,				/* arguments of a nested chain become values */
	ORDER_RESULT				/* an output becomes the chain's result type */
} OrderKind;

/*
 * What is to be done.  Everything is plain data, so that it can be copied
 * through shared memory; sql, function and types come from the pinned closure.
 *
 * ORDER_INPUTS: params are the values given for the arguments of the chain
 * `function`, in its order, types and names theirs.  The output is the array
 * of the values as the chain sees them; whether a null keeps a STRICT chain
 * from running is the caller's to see.
 *
 * ORDER_RESULT: params[0] is the output, types[0] the result type of the chain
 * `function` and `set` whether it returns a set.  names[0], where not NULL, is
 * the only column of RETURNS TABLE.  Of a record with known columns (OUT
 * arguments, TABLE) these follow from 1 on, with params NULL.
 */
typedef struct StepOrder
{
	OrderKind	kind;
	pg_uuid_t	job;
	Oid			owner;
	const char *chain;			/* signature of the chain the step is of */
	const char *path;
	int			line;
	int			attempt;		/* from 1 */
	int			tries;			/* failures already stored at this path */
	const char *search_path;	/* the pinned one */
	const char *sql;			/* of ORDER_SQL, ORDER_FUNCTION: with $1 … */
	const char *function;		/* of ORDER_FUNCTION: signature, for messages */
	RowsShape	returns;		/* of ORDER_SQL */
	bool		set;			/* of ORDER_FUNCTION */
	int			nparams;
	Jsonb	  **params;			/* of ORDER_INPUTS: NULL asks for the DEFAULT */
	const char **types;			/* SQL type names, or NULL: inferred */
	const char **names;			/* of ORDER_INPUTS and ORDER_RESULT, or NULL */
	int64		timeout_ms;		/* of this attempt; 0: none */
} StepOrder;

/* What came of it; in the current memory context. */
typedef struct StepAnswer
{
	void	   *arg;			/* the offer's */
	Jsonb	   *output;			/* or NULL: */
	StepError  *error;
	bool		died;			/* its executor died: error is of class crash,
								 * or timeout where it was ended for that; no
								 * span tells of it */
	int			pid;			/* of that executor */
} StepAnswer;

typedef struct Ticket Ticket;	/* caller's side of an order */

extern Size handover_size(void);
extern void handover_init(void);

/* callers */
extern Ticket *handover_offer(const StepOrder *order, void *arg);
extern bool handover_has_room(Oid owner);
extern bool handover_collect(StepAnswer *answer);
extern void handover_cancel(Ticket *ticket);
extern void handover_end_overlong(void);	/* maintainers */
extern bool handover_check(void);	/* now and then, by anybody */
extern int handover_waiting(Oid owner); /* offered, not taken */

/* executors and the launcher are declared in worker/executor.h */

#endif							/* CHAINCALL_HANDOVER_H */
