/*
 * call_internal.h
 *	  What the files of src/call share: a call and its group.
 */
#ifndef CHAINCALL_CALL_INTERNAL_H
#define CHAINCALL_CALL_INTERNAL_H

#include "postgres.h"

#include "call/call.h"
#include "call/health.h"
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

/* What find_way() has found. */
typedef enum CallWay
{
	WAY_NOW,					/* route */
	WAY_LATER,					/* route, but not before wake_us */
	WAY_HELD,					/* none, until the model is resumed */
	WAY_NONE					/* stuck says why */
} CallWay;

/* How many calls this process has in the air at one server. */
typedef struct ServerSlots
{
	Oid			server;			/* hash key */
	int			in_flight;
	uint64		heard;			/* attempt_answers() when it answered last, or
								 * when nothing was in the air */
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
	pairingheap *deadlines;		/* those that have one, by due_us */
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

	/* who is asked: the models in the order in which they are tried */
	const char **models;
	int			nmodels;
	int			at;				/* which of them now */
	bool		entered;		/* it has been looked up */
	bool		held;			/* in BACKOFF: the model is paused */
	int			asked;			/* attempts at it */
	int			most_failures;	/* of `failures`: then its share is used up */
	int64		share_us;		/* its share of the time; CLOCK_NEVER: all */
	List	   *left;			/* of TriedModel: those before it */
	StepError  *first_left;		/* failure of the first of these */
	StepError  *last_asked;		/* failure of the last of these that was asked */
	const char *api;			/* a request in whose form; NULL: any takes it */

	/* what is asked */
	const char *model;
	char	   *path;
	ApiRequest	request;		/* but extra: chosen by api for each attempt */
	Jsonb	   *extra;
	Jsonb	   *params;			/* the step's own, for other models */
	Jsonb	   *messages;		/* as they were asked first */
	const AnswerShape *shape;
	int			reasks;			/* left */
	int			reasked;		/* so far */

	/* the budget */
	RetryPolicy retry;
	int			model_timeout_ms;	/* 0: the server's */
	int			budget_ms;		/* once it runs; 0: not yet */
	int64		step_deadline_us;
	int64		deadline_us;	/* the nearer of both */
	int64		due_us;			/* that, the share's end or the attempt's */
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
	CallWay		way;
	StepError  *stuck;
	char	   *rest_note;		/* of a rest that counts, for its span */
	Bitmapset  *tried;			/* the model's endpoints that failed */
	Bitmapset  *denied;			/* endpoints that refused our key */
	uint64		throttled_by;	/* endpoint that has throttled last */
	int64		rest_us;		/* not asked before by this call */

	/* the attempt in the air, or the last one */
	HttpExchange *exchange;
	char	   *body;
	Span	   *span;
	StatsEntry *stats;			/* while it is in the air */
	bool		is_weighed;		/* health_end() is to be told */
	uint32		epoch;			/* for it */
	int64		attempt_end_us; /* then it is given up; CLOCK_NEVER */
	char	   *within;			/* the time in which there was no answer */
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

/* A model's endpoints, as far as they matter to one call now. */
typedef struct Endpoints
{
	const ModelInfo *model;
	Bitmapset  *barred;			/* not for this call */
	Bitmapset  *unwell;			/* broken, cooling or refused */
	Bitmapset  *crowded;
	int			denied;			/* one without USAGE, or -1 */
	int			gone;			/* one without a server */
	int			foreign;		/* one of another api than the request is for */
	bool		spent;			/* some that refused this call's key */
	int			refused;		/* one whose key was refused of late, or -1 */
	int			soonest;		/* the first to be well again, or -1 */
	HealthView	view;			/* of that one */
	int		   *flying;			/* calls in the air at its server; -1: barred */
} Endpoints;

/* call_route.c */
extern RetryPolicy route_retry_policy(const Jsonb *retry);
extern bool route_takes_calls(const ModelInfo *model, int endpoint);
extern int	route_choose(const ModelInfo *model, const Bitmapset *except);
extern int	route_heaviest(const ModelInfo *model);
extern const char *route_heaviest_api(const ModelInfo *model);
extern ServerSlots *route_slots(Oid server);

/* call_endpoint.c */
extern HealthView endpoint_health(const Call *call, uint64 id, Oid mapping);
extern void endpoints_look(const Call *call, const ModelInfo *model,
						   Endpoints *ends);
extern void endpoints_forget(Endpoints *ends);
extern int	endpoints_choose(Call *call, const Endpoints *ends);
extern bool endpoints_ready(const Call *call, const ModelInfo *model);

/* call_way.c */
extern void way_find(void *arg);
extern bool way_more_models(const Call *call);
extern bool way_other_ready(Call *call);
extern void way_leave_model(Call *call, StepError *error);
extern void way_share_time(Call *call, int64 now_us);

/* call_attempt.c */
extern bool attempt_enter(Call *call);
extern bool attempt_key_refused(const Call *call);
extern void attempt_cool(Call *call, int64 until_us, bool refused);
extern void attempt_note_rest(Call *call, const char *message);
extern void attempt_send(Call *call);
extern void attempt_unsent(Call *call);
extern void attempt_abandon(Call *call, ErrorClass cls, const char *message,
							BreakerOutcome outcome);
extern void attempt_give_up(Call *call, char *within, bool blame);
extern int	attempt_in_flight(void);
extern uint64 attempt_answers(void);
extern int	attempt_most_in_flight(void);
extern bool attempt_slot_free(const Call *call);

/* call_wire.c */
extern void wire_request(const Route *route, const ApiRequest *request,
						   const Jsonb *extra, ApiWire *wire);
extern StepError *wire_encode(Call *call, ApiWire *wire);
extern const char **wire_headers(const Call *call, const ApiWire *wire);

/* call_error.c */
extern StepError *failure_of_attempt(const Call *call);
extern StepError *failure_of_deadline(const Call *call);
extern StepError *failure_of_model(const char *model, ErrorClass cls,
								   const char *message, const char *hint);
extern StepError *failure_of_health(const Call *call, const HealthView *view);
extern StepError *failure_of_encoding(const Call *call,
									  const ErrorData *edata);
extern StepError *failure_after_others(const Call *call, StepError *error);
extern char *failure_seconds(int64 ms);
extern const char *failure_seen(const Call *call);
extern char *failure_words(const Route *route, const char *words);
extern void failure_redact(StringInfo out, const char *text,
						   const char *secret);

/* call_reask.c */
extern Jsonb *reask_messages(const Jsonb *messages, const Jsonb *answer,
							 const char *why);

/* call_make.c */
extern void call_request(ApiRequest *request, const ModelInfo *model,
						 const CallSpec *spec);
extern Call *call_make(CallGroup *group, MemoryContext context,
					   const CallSpec *spec);

/* call.c: transitions */
extern void call_send(Call *call);
extern void call_answered(Call *call);
extern void call_refused(Call *call, StepError *error);
extern void call_judge(Call *call);
extern void call_wake(Call *call);
extern void call_late(Call *call);
extern void call_deliver(Call *call);

#endif							/* CHAINCALL_CALL_INTERNAL_H */
