/*
 * call.c
 *	  One model call, from what a step asks to its checked answer.
 *
 * A call is a state machine; an arrow is a function of this file.
 *
 *	 call_start
 *	     │ enqueue
 *	     ▼       call_send             call_answered            succeed, fail
 *	  WAITING ─────────────► IN_FLIGHT ─────────────► ANSWERED ─────────────► DONE
 *	   │ ▲ ▲                     │                    │  │  │                 ▲ │
 *	   │ │ └── ask_again ────────┼────────────────────┘  │  └── retry ──┐     │ │
 *	   │ │     try_other_server ─┼───────────────────────┘             ▼     │ │
 *	   │ └──── call_wake ────────┼───────────────────────────────── BACKOFF  │ │
 *	   └──── call_expire ────────┴── call_expire ────────────────────────────┘ │
 *	                                                                           ▼
 *	                                             call_deliver: the callback, GONE
 *
 * Which of the ways out of ANSWERED is taken is decided in call_judge().
 *
 * Time: a step's timeout counts from call_start(), because it is a promise to
 * whoever called the chain.  The model's or server's timeout counts from when
 * the call is first sent, because it is what we expect of the service, which
 * has no part in our waiting for a slot: of 5,000 calls at a server that
 * takes four at a time most would otherwise be late before they are asked.
 * Both bound all attempts, waits and re-asked answers together, and both are
 * judged only when http_turn() finds nothing more to hand over: an answer that
 * lay in its socket while a query ran is not late.
 *
 * Memory: a context per call, deleted when its callback has returned.  A call
 * that waits holds its text once as jsonb; the encoded body exists only while
 * the call is in flight.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/json.h"
#include "call/call_internal.h"
#include "common/pg_prng.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

/* Bytes of an unfit answer that go back to the model. */
#define MAX_ANSWER_BACK (32 * 1024)

/* A call's context: small from the start, but not many blocks for a long text. */
#define CALL_CONTEXT_SIZES \
	ALLOCSET_SMALL_MINSIZE, ALLOCSET_SMALL_INITSIZE, (64 * 1024)

static ServerQueue *
find_queue(CallGroup *group, Oid server)
{
	ServerSlots *slots = route_slots(server);
	ServerQueue *queue;
	dlist_iter	iter;

	dlist_foreach(iter, &group->queues)
	{
		queue = dlist_container(ServerQueue, node, iter.cur);
		if (queue->slots == slots)
			return queue;
	}
	queue = MemoryContextAlloc(group->context, sizeof(ServerQueue));
	queue->slots = slots;
	dlist_init(&queue->waiting);
	dlist_push_tail(&group->queues, &queue->node);
	return queue;
}

static void
forget_deadline(Call *call)
{
	if (call->has_deadline)
		pairingheap_remove(call->group->deadlines, &call->deadline_node);
	call->has_deadline = false;
}

static void
set_deadline(Call *call, int64 deadline_us)
{
	forget_deadline(call);
	call->deadline_us = deadline_us;
	if (deadline_us == CLOCK_NEVER)
		return;
	pairingheap_add(call->group->deadlines, &call->deadline_node);
	call->has_deadline = true;
}

/* Take the call out of what its state has it in. */
static void
leave_state(Call *call, ErrorClass cls, const char *message)
{
	CallGroup  *group = call->group;

	switch (call->state)
	{
		case CALL_STARTING:
		case CALL_GONE:
			break;
		case CALL_WAITING:
			dlist_delete(&call->node);
			group->nwaiting--;
			break;
		case CALL_IN_FLIGHT:
			dlist_delete(&call->node);
			group->nflying--;
			if (call->exchange != NULL)
				attempt_abandon(call, cls, message);
			break;
		case CALL_BACKOFF:
			pairingheap_remove(group->sleeping, &call->sleeping_node);
			break;
		case CALL_ANSWERED:
		case CALL_DONE:
			dlist_delete(&call->node);
			break;
	}
	call->state = CALL_STARTING;
}

/*
 * The call is no longer its group's.  Also the reset callback of its context,
 * so that whoever frees that, or one above it, takes the call out of the air.
 */
static void
release(void *arg)
{
	Call	   *call = arg;

	if (call->state == CALL_GONE)
		return;
	leave_state(call, CLASS_CANCELLED, NULL);
	forget_deadline(call);
	call->group->nlive--;
	call->state = CALL_GONE;
	air_leave(call->air);
}

static void
finish(Call *call)
{
	Assert(call->state == CALL_STARTING);
	Assert((call->output == NULL) != (call->error == NULL));
	forget_deadline(call);
	call->state = CALL_DONE;
	dlist_push_tail(&call->group->done, &call->node);
}

/* ANSWERED → DONE */
static void
succeed(Call *call)
{
	call->error = NULL;
	finish(call);
}

/* any state → DONE; error is in the call's context */
static void
fail(Call *call, StepError *error)
{
	call->output = NULL;
	call->error = error;
	finish(call);
}

/* ANSWERED → DONE, with what the last attempt has shown */
static void
fail_as_answered(Call *call)
{
	MemoryContext old = MemoryContextSwitchTo(call->context);

	fail(call, failure_of_attempt(call));
	MemoryContextSwitchTo(old);
}

/* WAITING → DONE: the encoder has refused; called by attempt_send() */
void
call_refused(Call *call, StepError *error)
{
	Assert(call->state == CALL_STARTING);
	fail(call, error);
}

/* → WAITING, at the end of the server's queue */
static void
enqueue(Call *call)
{
	Assert(call->state == CALL_STARTING);
	call->queue = find_queue(call->group, call->route->server.oid);
	air_where(call->air, call->route->server.name);
	call->state = CALL_WAITING;
	call->group->nwaiting++;
	dlist_push_tail(&call->queue->waiting, &call->node);
}

/* The service's time begins to run. */
static void
start_budget(Call *call, int64 now_us)
{
	int64		deadline;

	if (call->budget_ms != 0)
		return;
	call->budget_ms = call->model_timeout_ms > 0 ? call->model_timeout_ms :
		call->route->server.timeout_ms;
	if (call->budget_ms <= 0)
		return;
	deadline = now_us + (int64) call->budget_ms * 1000;
	if (deadline < call->step_deadline_us)
		set_deadline(call, deadline);
}

/*
 * WAITING → IN_FLIGHT (or DONE, when it is late or the encoder refuses).  When
 * sending raises (out of memory) the call is ANSWERED, to be tried again: the
 * error may be caught by whoever started another one.
 */
void
call_send(Call *call)
{
	int64		now = clock_us();

	Assert(call->state == CALL_WAITING);
	if (now >= call->deadline_us)
	{
		call_expire(call);
		return;
	}
	leave_state(call, CLASS_NONE, NULL);
	start_budget(call, now);
	PG_TRY();
	{
		attempt_send(call);
	}
	PG_CATCH();
	{
		attempt_unsent(call);
		call->state = CALL_ANSWERED;
		dlist_push_tail(&call->group->answered, &call->node);
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (call->state == CALL_DONE)
		return;
	call->state = CALL_IN_FLIGHT;
	call->group->nflying++;
	dlist_push_tail(&call->group->flying, &call->node);
}

/* IN_FLIGHT → ANSWERED; called in http_turn(), whichever group is turned */
void
call_answered(Call *call)
{
	Assert(call->state == CALL_IN_FLIGHT && call->exchange == NULL);
	leave_state(call, CLASS_NONE, NULL);
	call->state = CALL_ANSWERED;
	dlist_push_tail(&call->group->answered, &call->node);
}

/*
 * An endpoint that this call has not failed at; when it has at all of them,
 * any but the last; else that one.
 */
static int
next_endpoint(Call *call, const ModelInfo *model)
{
	int			endpoint = route_choose(model, call->tried);

	if (endpoint < 0)
	{
		bms_free(call->tried);
		call->tried = bms_make_singleton(call->route->endpoint);
		endpoint = route_choose(model, call->tried);
	}
	return endpoint < 0 ? route_choose(model, NULL) : endpoint;
}

/*
 * Does work(call), which looks into the catalog.  A fault of the catalog is
 * the failure of the call where the group's owner wants errors as data; else
 * it is raised.  False: the call is DONE with it.
 */
static bool
look_up(Call *call, void (*work) (void *))
{
	StepError  *error = NULL;
	MemoryContext old;

	if (call->group->guards.catalog == NULL)
		work(call);
	else
		error = call->group->guards.catalog(work, call);
	if (error == NULL)
		return true;
	old = MemoryContextSwitchTo(call->context);
	error = step_error_copy(error);
	if (error->step == NULL)
		error->step = pstrdup(call->path);
	MemoryContextSwitchTo(old);
	fail(call, error);
	return false;
}

/* Another endpoint, if the model has one. */
static void
reroute(void *arg)
{
	Call	   *call = arg;
	const ModelInfo *model = catalog_model(call->model, true);
	MemoryContext old;

	if (model == NULL || model->nendpoints <= 1)
		return;					/* the way we have is as good as any */
	old = MemoryContextSwitchTo(call->context);
	call->route = catalog_route(model, next_endpoint(call, model),
								call->run->userid);
	MemoryContextSwitchTo(old);
}

/* A server that has not refused the key, if the model has one. */
static void
leave_server(void *arg)
{
	Call	   *call = arg;
	const ModelInfo *model = catalog_model(call->model, true);
	MemoryContext old = MemoryContextSwitchTo(call->context);
	int			endpoint = -1;

	call->denied = bms_add_member(call->denied, call->route->endpoint);
	if (model != NULL && model->nendpoints > 1 &&
		call->failures < call->retry.attempts)
		endpoint = route_other_server(model, call->denied);
	if (endpoint >= 0)
		call->route = catalog_route(model, endpoint, call->run->userid);
	MemoryContextSwitchTo(old);
}

/*
 * ANSWERED (401, 403) → WAITING for another server, or DONE with a fault of
 * the catalog; false: there is no other
 */
static bool
try_other_server(Call *call)
{
	const Route *before = call->route;

	if (!look_up(call, leave_server))
		return true;
	if (call->route == before)
		return false;
	enqueue(call);
	return true;
}

/*
 * ANSWERED → BACKOFF, or DONE when attempts or time are used up.  Being
 * throttled uses up no attempt, but a step that wants no retry at all wants
 * none of this kind either.
 */
static void
retry(Call *call)
{
	int64		wait_ms;
	int64		wake_us;

	if (call->cls == CLASS_THROTTLED)
		call->throttles++;
	else
		call->failures++;
	wait_ms = backoff_wait_ms(&call->retry, call->failures + call->throttles,
							  pg_prng_double(&pg_global_prng_state),
							  call->retry_after_ms);
	wake_us = clock_us() + wait_ms * 1000;
	if (call->retry.attempts <= 1 || call->failures >= call->retry.attempts ||
		wake_us >= call->deadline_us)
	{
		fail_as_answered(call);
		return;
	}
	call->wake_us = wake_us;
	call->state = CALL_BACKOFF;
	pairingheap_add(call->group->sleeping, &call->sleeping_node);
}

/* BACKOFF → WAITING, or DONE with a fault of the catalog */
void
call_wake(Call *call)
{
	leave_state(call, CLASS_NONE, NULL);
	if (look_up(call, reroute))
		enqueue(call);
}

/* When a call in backoff is tried again, clock_us(); 0: it is not in backoff. */
int64
call_sleeps_until(const Call *call)
{
	return call->state == CALL_BACKOFF ? call->wake_us : 0;
}

static void
push_message(JsonbParseState **state, const char *role, const char *content)
{
	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	json_push_key(state, "role");
	json_push(state, WJB_VALUE, json_text(role));
	json_push_key(state, "content");
	json_push(state, WJB_VALUE, json_text(content));
	(void) pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/* The answer's text as the model may be shown it, cut to a sane length. */
static char *
answer_text(const Jsonb *answer)
{
	char	   *text = json_string_dup(answer);
	StringInfoData out;

	if (text == NULL)
	{
		initStringInfo(&out);
		json_append(&out, answer);
		text = out.data;
	}
	text[pg_mbcliplen(text, strlen(text), MAX_ANSWER_BACK)] = '\0';
	return text;
}

/* The conversation so far, the answer that does not fit, and why. */
static Jsonb *
messages_with_answer(const Jsonb *messages, const Jsonb *answer,
					 const char *why)
{
	JsonbParseState *state = NULL;
	int			n = json_count(messages);

	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < n; i++)
		json_push(&state, WJB_ELEM, json_element(messages, i));
	push_message(&state, "assistant", answer_text(answer));
	push_message(&state, "user",
				 psprintf("Your answer does not fit: %s. Answer again, with nothing but JSON of the form that was asked for.",
						  why ? why : "it has another form"));
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

/*
 * ANSWERED → WAITING, with the answer and what is wrong with it.  Where there
 * is no conversation to continue the question is just put again.
 */
static void
ask_again(Call *call)
{
	MemoryContext old = MemoryContextSwitchTo(call->context);

	call->reasks--;
	call->reasked++;
	if (call->request.form == CALL_MESSAGES && call->request.messages != NULL &&
		call->answer != NULL)
		call->request.messages = messages_with_answer(call->request.messages,
													  call->answer,
													  call->words);
	MemoryContextSwitchTo(old);
	enqueue(call);
}

/* ANSWERED → whatever follows from the answer's class */
void
call_judge(Call *call)
{
	MemoryContext old;

	leave_state(call, CLASS_NONE, NULL);
	if (call->cls == CLASS_NONE)
	{
		succeed(call);
		return;
	}
	old = MemoryContextSwitchTo(call->context);
	call->tried = bms_add_member(call->tried, call->route->endpoint);
	MemoryContextSwitchTo(old);

	switch (call->cls)
	{
		case CLASS_TRANSIENT:
		case CLASS_THROTTLED:
			retry(call);
			return;
		case CLASS_PERMANENT:
			if ((call->status == 401 || call->status == 403) &&
				try_other_server(call))
				return;
			break;
		case CLASS_INVALID:
			if (call->shape != NULL && !call->cut_off && call->reasks > 0 &&
				clock_us() < call->deadline_us)
			{
				ask_again(call);
				return;
			}
			break;
		default:
			break;
	}
	fail_as_answered(call);
}

/* WAITING or IN_FLIGHT → DONE: the time is up */
void
call_expire(Call *call)
{
	MemoryContext old = MemoryContextSwitchTo(call->context);
	StepError  *error = failure_of_deadline(call);

	leave_state(call, error->cls, error->message);
	fail(call, error);
	MemoryContextSwitchTo(old);
}

/* DONE → gone */
void
call_deliver(Call *call)
{
	MemoryContext context = call->context;

	release(call);
	call->callback(call->arg, call->output, call->error);
	MemoryContextDelete(context);
}

/*
 * What the model is asked, in neutral words: a copy in the current memory
 * context, but for the shape's schema.
 */
void
call_request(ApiRequest *request, const ModelInfo *model, const CallSpec *spec)
{
	memset(request, 0, sizeof(ApiRequest));
	request->form = spec->form;
	request->kind = pstrdup(model->kind);
	request->system = spec->system ? pstrdup(spec->system) : NULL;
	request->messages = json_copy(CurrentMemoryContext, spec->messages);
	request->body = json_copy(CurrentMemoryContext, spec->body);
	if (model->params != NULL && spec->params != NULL)
		request->params = json_merge(model->params, spec->params);
	else
		request->params = json_copy(CurrentMemoryContext, spec->params ? spec->params : model->params);
	if (spec->shape != NULL && spec->form == CALL_MESSAGES)
	{
		request->schema = spec->shape->wire;
		request->strict = spec->shape->strict;
	}
}

/* Why the model takes no calls at all, or NULL. */
static StepError *
model_fault(const ModelInfo *model)
{
	if (model->paused)
		return failure_of_model(model->name,
								psprintf("model \"%s\" is paused", model->name),
								"Somebody has paused it; UPDATE chaincall.model SET paused = false lets it go on.");
	if (model->nendpoints == 0)
		return failure_of_model(model->name,
								psprintf("model \"%s\" has no endpoint",
										 model->name),
								"Say which server has it: INSERT INTO chaincall.endpoint (model, server).");
	return NULL;
}

static Call *
make_call(CallGroup *group, MemoryContext context, const CallSpec *spec)
{
	const ModelInfo *model = catalog_model(spec->model, false);
	Call	   *call = palloc0(sizeof(Call));

	call->group = group;
	call->run = spec->run;
	call->context = context;
	call->state = CALL_STARTING;
	call->model = pstrdup(model->name);
	call->path = pstrdup(spec->path);
	call->retry = spec->retry ? *spec->retry : route_retry_policy(model->retry);
	call->failures = spec->failed;
	call->model_timeout_ms = model->timeout_ms;
	call->step_deadline_us = spec->deadline_us;
	call->deadline_us = CLOCK_NEVER;
	call_request(&call->request, model, spec);
	call->extra = json_copy(CurrentMemoryContext, spec->extra);
	call->shape = spec->shape;
	call->reasks = spec->reask;
	call->error = model_fault(model);
	if (call->error != NULL)
		call->error->step = pstrdup(call->path);
	else
		call->route = catalog_route(model, route_choose(model, NULL),
									spec->run->userid);
	return call;
}

/*
 * Start a call.  It is sent by call_send_waiting() or the next turn, not here:
 * who catches what is wrong with this call must not catch what sending raises,
 * which may be about another one.
 *
 * What spec points at is copied, save shape, which must live as long as the
 * call.  `done` is called once, from call_turn(), unless the
 * call is cancelled or its group destroyed.  The call is good until then.
 *
 * Raises what is wrong before anything is asked: no such model
 * (ERRCODE_UNDEFINED_OBJECT), no right to use its server
 * (ERRCODE_CHAIN_DENIED) or another fault of the catalog.  Needs a
 * transaction where the catalog does.  Everything else, a paused model
 * included, is told to done.
 */
Call *
call_start(CallGroup *group, const CallSpec *spec, CallDone done, void *arg)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "chaincall call",
												  CALL_CONTEXT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Call	   *call = make_call(group, context, spec);

	MemoryContextSwitchTo(old);
	/* complete: nothing more can raise that would leave it behind */
	MemoryContextSetParent(context, group->context);
	call->callback = done;
	call->arg = arg;
	call->on_reset.func = release;
	call->on_reset.arg = call;
	MemoryContextRegisterResetCallback(context, &call->on_reset);
	group->nlive++;
	if (call->error != NULL)
	{
		finish(call);
		return call;
	}
	set_deadline(call, call->step_deadline_us);
	call->air = air_enter(AIR_CALL, &spec->run->id, spec->run->userid, call->path,
						  call->model, NULL);
	enqueue(call);
	return call;
}

/*
 * Forget about the call, whatever it is doing; its callback does not run.
 * Raises nothing.  The call must be one whose callback has not run.
 */
void
call_cancel(Call *call)
{
	MemoryContextDelete(call->context);
}
