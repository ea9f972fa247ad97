/*
 * action.h
 *	  What the files that apply actions share: see action.c.
 *
 * A function that applies one settles it, by action_done() or action_refuse(),
 * or puts it off before it has changed anything.  It runs in a subtransaction
 * of the maintainer's; what others must be told of after the commit goes into
 * the Effects.  An error of the action's own making refuses it.
 */
#ifndef CHAINCALL_ACTION_H
#define CHAINCALL_ACTION_H

#include "postgres.h"

#include "chain/pin.h"
#include "chain/plan_given.h"
#include "queue/queue.h"
#include "queue/upkeep.h"
#include "utils/jsonb.h"

typedef enum ActionKind
{
	ACTION_CANCEL,
	ACTION_RETRY,
	ACTION_RESOLVE,
	ACTION_DISCARD,
	ACTION_REPLACE,
	ACTION_ACKNOWLEDGE
} ActionKind;

typedef struct Action
{
	pg_uuid_t	id;
	pg_uuid_t	subject;		/* a job; of acknowledge an alert */
	Oid			author;
	TimestampTz created_at;
	ActionKind	kind;
	/* once it is locked */
	char	   *step;			/* NULL: none */
	Jsonb	   *input;
	Jsonb	   *output;
} Action;

/* The job of an action. */
typedef struct Target
{
	Oid			owner;
	char	   *state;
	uint64		worker;			/* of a running one */
	TimestampTz finished_at;	/* DT_NOBEGIN: it has not ended */
	TimestampTz expires_at;		/* DT_NOEND: never */
	int32		priority;
	char	   *chain;			/* signature */
	uint8		definition[DEFINITION_HASH_LEN];
} Target;

/* Who is told of an answer. */
typedef struct AnswerFor
{
	uint64		worker;
	pg_uuid_t	job;
} AnswerFor;

/* What an action has done, for after the commit. */
typedef struct Effects
{
	EndedJobs	ended;
	List	   *queued;			/* of OwnerJobs */
	List	   *answers;		/* of AnswerFor */
} Effects;

/* action.c */
extern void action_run(SPIPlanPtr plan, Datum *values, const char *nulls);
extern bool action_target(const pg_uuid_t *job, bool lock, Target *target);
extern bool action_done(const Action *action, const char *note);
extern bool action_refuse(const Action *action, const char *reason);
extern bool action_no_job(const Action *action);
extern bool action_has_ended(const Target *target);
extern bool action_refuse_ended(const Action *action, const Target *target);
extern void action_queued(Effects *effects, Oid owner, TimestampTz rank);
extern char *action_author(const Action *action);

/* action_retry.c */
extern bool action_lock_letters(const pg_uuid_t *job, Datum *letters);
extern char *action_time_is_up(const Target *target);
extern bool action_requeue(const Action *action, const Target *target,
						   Datum letters, Effects *effects);
extern bool action_retry(const Action *action, Effects *effects);
extern bool action_discard(const Action *action);
extern bool action_acknowledge(const Action *action);

/* action_step.c */
extern const Step *action_find_item(const Action *action,
									const Target *target, char **why,
									bool *item);
extern const Step *action_find_step(const Action *action,
									const Target *target, char **why);
extern bool action_step_open(const Action *action, const Target *target);
extern const char *action_input_fault(const Action *action,
									  const Target *target);
extern Pinned *action_pinned(const uint8 *hash);
extern void action_forget_definition(void);

/* action_resolve.c */
extern bool action_resolve(const Action *action, Effects *effects);

/* action_replace.c */
extern bool action_replace(const Action *action);

#endif							/* CHAINCALL_ACTION_H */
