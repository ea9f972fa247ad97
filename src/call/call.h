/*
 * call.h
 *	  One model call, from rendered step to checked answer: admission, route,
 *	  attempts, backoff, re-asking.
 *
 * Calls belong to a CallGroup, the calls of one run (a session's) or of one
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

typedef struct CallSpec
{
	const char *model;			/* logical name */
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
	int64		deadline_us;	/* clock_us(); CLOCK_NEVER: the server's
								 * timeout only */
} CallSpec;

typedef struct Call Call;
typedef struct CallGroup CallGroup;

/*
 * What came of a call.  Exactly one of output and error is set; both live in
 * the group's context until the callback returns: copy what is kept.
 */
typedef void (*CallDone) (void *arg, Jsonb *output, StepError *error);

extern CallGroup *call_group_create(Oid userid, const pg_uuid_t *run,
									Trace *trace);
extern void call_group_destroy(CallGroup *group);
extern Call *call_start(CallGroup *group, const CallSpec *spec,
						CallDone done, void *arg);
extern void call_cancel(Call *call);
extern void call_send_waiting(CallGroup *group);
extern bool call_turn(CallGroup *group, int64 wait_until_us);
extern void call_settle(CallGroup *group, int64 wait_until_us);
extern int	call_capacity(CallGroup *group);
extern int	call_live(const CallGroup *group);
extern Jsonb *call_render(Oid userid, const CallSpec *spec);

#endif							/* CHAINCALL_CALL_H */
