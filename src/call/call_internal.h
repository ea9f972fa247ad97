/*
 * call_internal.h
 *	  What the files of src/call share: a call and its group.
 */
#ifndef CHAINCALL_CALL_INTERNAL_H
#define CHAINCALL_CALL_INTERNAL_H

#include "postgres.h"

#include "call/call.h"
#include "http/http.h"
#include "lib/ilist.h"
#include "lib/pairingheap.h"
#include "nodes/bitmapset.h"
#include "trace/air.h"
#include "trace/stats.h"

/* The diagram is at the head of call.c. */
typedef enum CallState
{
	CALL_STARTING,				/* between two states; in no list */
	CALL_WAITING,				/* for a slot */
	CALL_IN_FLIGHT,
	CALL_ANSWERED,				/* not yet judged */
	CALL_BACKOFF,
	CALL_DONE,					/* callback not yet run */
	CALL_GONE					/* no longer its group's */
} CallState;

/* How many calls this process has in the air at one server. */
typedef struct ServerSlots
{
	Oid			server;			/* hash key */
	int			in_flight;
} ServerSlots;

/* A group's calls that wait for one server, in the order they came. */
typedef struct ServerQueue
{
	dlist_node	node;
	ServerSlots *slots;
	dlist_head	waiting;		/* of Call */
} ServerQueue;

struct CallGroup
{
	MemoryContext context;
	MemoryContext scratch;		/* of one attempt's encoding */
	CallGuards	guards;
	int			nlive;			/* calls whose callback has not run */
	int			nwaiting;
	int			nflying;
	dlist_head	queues;			/* of ServerQueue */
	dlist_head	flying;			/* lists of Call by state */
	dlist_head	answered;
	dlist_head	done;
	pairingheap *sleeping;		/* CALL_BACKOFF, by wake_us */
	pairingheap *deadlines;		/* those that have one, by deadline_us */
};

struct Call
{
	CallGroup  *group;
	const CallRun *run;
	MemoryContext context;		/* holds the call and all that is its own */
	MemoryContextCallback on_reset;
	CallState	state;
	dlist_node	node;			/* in the list of its state */
	CallDone	callback;
	void	   *arg;

	AirEntry   *air;

	/* what is asked */
	char	   *model;
	char	   *path;
	ApiRequest	request;		/* but extra: chosen by api for each attempt */
	Jsonb	   *extra;
	const AnswerShape *shape;
	int			reasks;			/* left */
	int			reasked;		/* so far */

	/* the budget */
	RetryPolicy retry;
	int			model_timeout_ms;	/* 0: the server's */
	int			budget_ms;		/* once it runs; 0: not yet */
	int64		step_deadline_us;
	int64		deadline_us;	/* the nearer of both */
	bool		has_deadline;	/* is in group->deadlines */
	pairingheap_node deadline_node;
	int			attempts;		/* requests sent, re-asked ones included */
	int			failures;		/* those that count against retry.attempts */
	int			throttles;
	int64		wake_us;
	pairingheap_node sleeping_node;

	/* the way */
	Route	   *route;
	ServerQueue *queue;
	Bitmapset  *tried;			/* endpoints that failed */
	Bitmapset  *denied;			/* endpoints that refused our key */

	/* the attempt in the air, or the last one */
	HttpExchange *exchange;
	char	   *body;
	Span	   *span;
	StatsEntry *stats;			/* while it is in the air */
	int64		begun_us;
	int64		first_byte_us;	/* since it was sent; -1: none */
	int64		tokens_in;		/* -1: not told */
	int64		tokens_out;
	bool		unfit;			/* an answer, but not of the shape asked for */
	HttpFault	fault;
	int			status;
	ErrorClass	cls;
	bool		cut_off;
	char	   *words;			/* the service's own or libcurl's, cut */
	char	   *request_id;
	int64		retry_after_ms;
	Jsonb	   *answer;

	/* the outcome */
	Jsonb	   *output;
	StepError  *error;
};

/* call_route.c */
extern RetryPolicy route_retry_policy(const Jsonb *retry);
extern int	route_choose(const ModelInfo *model, const Bitmapset *except);
extern int	route_other_server(const ModelInfo *model,
							   const Bitmapset *denied);
extern ServerSlots *route_slots(Oid server);

/* call_attempt.c */
extern void attempt_send(Call *call);
extern void attempt_unsent(Call *call);
extern void attempt_abandon(Call *call, ErrorClass cls, const char *message);
extern int	attempt_in_flight(void);
extern int	attempt_most_in_flight(void);
extern bool attempt_slot_free(const Call *call);
extern void attempt_encode(const Route *route, const ApiRequest *request,
						   const Jsonb *extra, ApiWire *wire);

/* call_error.c */
extern StepError *failure_of_attempt(const Call *call);
extern StepError *failure_of_deadline(const Call *call);
extern StepError *failure_of_model(const char *model, const char *message,
								   const char *hint);
extern StepError *failure_of_encoding(const Call *call,
									  const ErrorData *edata);
extern char *failure_words(const Route *route, const char *words);
extern void failure_redact(StringInfo out, const char *text,
						   const char *secret);

/* call.c: transitions */
extern void call_request(ApiRequest *request, const ModelInfo *model,
						 const CallSpec *spec);
extern void call_send(Call *call);
extern void call_answered(Call *call);
extern void call_refused(Call *call, StepError *error);
extern void call_judge(Call *call);
extern void call_wake(Call *call);
extern void call_expire(Call *call);
extern void call_deliver(Call *call);

#endif							/* CHAINCALL_CALL_INTERNAL_H */
