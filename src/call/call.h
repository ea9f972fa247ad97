/*
 * call.h
 *	  One model call, from rendered step to checked answer: admission, route,
 *	  attempts, backoff, re-asking.
 *
 * Calls belong to a CallRun, which says whose they are, and to a CallGroup, the
 * calls that are turned together: those of one run (a session's) or of one
 * process (a worker's).  The owner starts calls and turns the group; `done`
 * is called from call_turn(), never from call_start().
 */
#ifndef CHAINCALL_CALL_H
#define CHAINCALL_CALL_H

#include "postgres.h"

#include "api/api.h"
#include "base/error.h"
#include "policy/backoff.h"
#include "trace/trace.h"
#include "utils/uuid.h"

/*
 * What an answer must be, as far as a call needs to know: what is sent along,
 * and the check of whoever asks (chain/shape.c).
 */
typedef struct AnswerShape AnswerShape;
struct AnswerShape
{
	Jsonb	   *wire;			/* JSON Schema, root an object */
	bool		strict;			/* OpenAI's strict mode takes it */

	/*
	 * The value in an answer that fits, or NULL and *why.  wired: the answer
	 * was asked for in the form of wire.  Raises no error.
	 */
	Jsonb	   *(*check) (const AnswerShape *shape, const Jsonb *answer,
						  bool wired, char **why);
};

/* Whose calls: one run of a chain.  Must outlive its calls. */
typedef struct CallRun
{
	Oid			userid;			/* calls are made as */
	pg_uuid_t	id;				/* of the run: trace id, in Idempotency-Key */
	char		text[37];		/* the id as text */
	char		trace_id[33];	/* the same without hyphens */
	Trace	   *trace;			/* where spans go; NULL: nowhere */
} CallRun;

typedef struct CallSpec
{
	const CallRun *run;
	const char *model;			/* logical name */
	const char *const *fallback;	/* models tried next, NULL-terminated; NULL:
									 * the model's own */
	const char *path;			/* the step's run, for spans and the key */
	CallForm	form;
	const char *system;
	Jsonb	   *messages;
	Jsonb	   *body;
	Jsonb	   *params;			/* the step's own; NULL: none */
	Jsonb	   *extra;			/* map api → fields; NULL: none */
	const AnswerShape *shape;	/* NULL: text */
	int			reask;
	const RetryPolicy *retry;	/* NULL: the model's */
	Jsonb	   *given;			/* the request's body, of a person's making; NULL:
								 * as api encodes */
	int			failed;			/* attempts that an earlier life has used up */
	int64		deadline_us;	/* clock_us(); CLOCK_NEVER: the server's
								 * timeout only */
} CallSpec;

typedef struct Call Call;
typedef struct CallGroup CallGroup;

/*
 * How a group's owner wants some things done; a NULL member: they are just
 * done, as in a session, where errors may be raised.
 */
typedef struct CallGuards
{
	/* Runs work(arg), which looks into the catalog, in a transaction. */
	StepError  *(*catalog) (void (*work) (void *), void *arg);
	/* Runs work(arg), the check of an answer, for a bounded time. */
	StepError  *(*check) (void (*work) (void *), void *arg);
} CallGuards;

/*
 * What came of a call.  Exactly one of output and error is set; both live in
 * the group's context until the callback returns: copy what is kept.
 */
typedef void (*CallDone) (void *arg, Jsonb *output, StepError *error);

extern void call_run_init(CallRun *run, Oid userid, const pg_uuid_t *id,
						  Trace *trace);
extern CallGroup *call_group_create(const CallGuards *guards);
extern void call_group_destroy(CallGroup *group);
extern Call *call_start(CallGroup *group, const CallSpec *spec,
						CallDone done, void *arg);
extern void call_cancel(Call *call);
extern void call_send_waiting(CallGroup *group);
extern bool call_turn(CallGroup *group, int64 wait_until_us);
extern void call_settle(CallGroup *group, int64 wait_until_us);
extern int	call_capacity(CallGroup *group);
extern int	call_room(const CallGroup *group);
extern int	call_live(const CallGroup *group);
extern int64 call_sleeps_until(const Call *call);
extern const char *call_held_by(const Call *call);
extern Jsonb *call_render(Oid userid, const CallSpec *spec);

#endif							/* CHAINCALL_CALL_H */
