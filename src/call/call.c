/*
 * call.c
 *	  One model call, from what a step asks to its checked answer.
 *
 * A call is a state machine; an arrow is a function of this file.
 *
 *	 call_start
 *	     │ take_way
 *	     ▼       call_send             call_answered            succeed, fail
 *	  WAITING ─────────────► IN_FLIGHT ─────────────► ANSWERED ─────────────► DONE
 *	   │ ▲ ▲                     │                    │  │  │                 ▲ │
 *	   │ │ └── ask_again ────────┼────────────────────┘  │  └── retry ──┐     │ │
 *	   │ ├──── next_model ───────┼───────────────────────┘             ▼     │ │
 *	   │ └──── call_wake ────────┼───────────────────────────────── BACKOFF  │ │
 *	   └──── call_late ──────────┴── call_late ──────────────────────────────┘ │
 *	                                                                           ▼
 *	                                             call_deliver: the callback, GONE
 *
 * Which of the ways out of ANSWERED is taken is decided in call_judge().  Where
 * a call goes is call_way.c's to say: WAITING at an endpoint, or BACKOFF until
 * there is one.  At every arrow into WAITING it may be another model's.
 *
 * Time: a step's timeout counts from call_start(), because it is a promise to
 * whoever called the chain.  The model's or server's timeout counts from when
 * the call is first sent, because it is what we expect of the service, which
 * has no part in our waiting for a slot: of 5,000 calls at a server that
 * takes four at a time most would otherwise be late before they are asked.
 * Both bound all attempts, waits, re-asked answers and models together.  Within
 * them a model that has others behind it has a share, and an attempt the
 * server's attempt_timeout.  All are judged only when http_turn() finds nothing
 * more to hand over: an answer that lay in its socket while a query ran is not
 * late.
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
#include "policy/reset.h"
#include "utils/memutils.h"

/* A paused model is looked at so often. */
#define HELD_LOOK_US INT64CONST(1000000)

/* A key that was throttled is not used for so long at least. */
#define LEAST_COOL_MS 100

/* How long others do not use a key that was refused, if they need not. */
#define REFUSED_US INT64CONST(5000000)

/* A call's context: small from the start, but not many blocks for a long text. */
#define CALL_CONTEXT_SIZES \
	ALLOCSET_SMALL_MINSIZE, ALLOCSET_SMALL_INITSIZE, (64 * 1024)

static void expire(Call *call);

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

/* Files the call under the first of its times. */
static void
set_due(Call *call)
{
	int64		due = Min(call->deadline_us,
						  Min(call->share_us, call->attempt_end_us));

	if (call->has_deadline && call->due_us == due)
		return;
	forget_deadline(call);
	call->due_us = due;
	if (due == CLOCK_NEVER)
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
				attempt_abandon(call, cls, message,
								cls == CLASS_TRANSIENT ? BREAKER_FAILED :
								BREAKER_UNKNOWN);
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
	call->error = failure_after_others(call, error);
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

/* → BACKOFF */
static void
sleep_until(Call *call, int64 wake_us)
{
	Assert(call->state == CALL_STARTING);
	call->wake_us = wake_us;
	call->state = CALL_BACKOFF;
	pairingheap_add(call->group->sleeping, &call->sleeping_node);
}

/*
 * WAITING → DONE: the encoder has refused; called by attempt_send().  What a
 * fallback's api has not is no matter where there is another one.
 */
void
call_refused(Call *call, StepError *error)
{
	Assert(call->state == CALL_STARTING);
	if (call->at > 0 && way_more_models(call))
	{
		way_leave_model(call, error);
		sleep_until(call, clock_us());
	}
	else
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
	call->deadline_us = Min(deadline, call->step_deadline_us);
	way_share_time(call, now_us);
	set_due(call);
}

/*
 * WAITING → IN_FLIGHT (DONE, when it is late or the encoder refuses; BACKOFF,
 * when its way is barred by now).  When sending raises (out of memory) the call is ANSWERED, to be tried again: the
 * error may be caught by whoever started another one.
 */
void
call_send(Call *call)
{
	int64		now = clock_us();

	Assert(call->state == CALL_WAITING);
	if (now >= call->deadline_us)
	{
		expire(call);
		return;
	}
	leave_state(call, CLASS_NONE, NULL);
	if (!attempt_enter(call))
	{
		sleep_until(call, now);
		return;
	}
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
	if (call->state != CALL_STARTING)
		return;					/* it was refused */
	set_due(call);
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

/* A fault of the catalog, as a failure of the call's; in its context. */
static StepError *
own_error(Call *call, const StepError *error)
{
	MemoryContext old = MemoryContextSwitchTo(call->context);
	StepError  *own = step_error_copy(error);

	if (own->step == NULL)
		own->step = pstrdup(call->path);
	if (own->tried == NIL)
		own->tried = failure_of_model(call->model, own->cls, own->message,
									  NULL)->tried;
	MemoryContextSwitchTo(old);
	return own;
}

/*
 * Looks for the call's way.  A fault of the catalog is a failure of the model
 * where the group's owner wants errors as data; else it is raised.
 */
static void
find_way(Call *call)
{
	StepError  *error;

	if (call->group->guards.catalog == NULL)
	{
		way_find(call);
		return;
	}
	while ((error = call->group->guards.catalog(way_find, call)) != NULL)
	{
		error = own_error(call, error);
		if (!way_more_models(call))
		{
			call->way = WAY_NONE;
			call->stuck = error;
			return;
		}
		way_leave_model(call, error);
	}
}

/* STARTING → WAITING, BACKOFF or DONE, as way_find() has found */
static void
take_way(Call *call)
{
	switch (call->way)
	{
		case WAY_NOW:
			set_due(call);
			enqueue(call);
			break;
		case WAY_LATER:
			start_budget(call, clock_us());
			set_due(call);
			air_where(call->air, call->route->server.name);
			if (call->rest_note != NULL)
				attempt_note_rest(call, call->rest_note);
			call->rest_note = NULL;
			sleep_until(call, call->wake_us);
			break;
		case WAY_HELD:
			set_due(call);
			call->held = true;
			sleep_until(call, clock_us() + HELD_LOOK_US);
			break;
		case WAY_NONE:
			fail(call, call->stuck);
			break;
	}
}

/* → WAITING, BACKOFF or DONE, wherever there is a way now */
static void
go_on(Call *call)
{
	find_way(call);
	air_what(call->air, call->model);
	take_way(call);
}

/* The model is given up: the next one's turn, or DONE with its failure. */
static void
next_model(Call *call, StepError *error)
{
	if (way_more_models(call))
	{
		way_leave_model(call, error);
		go_on(call);
	}
	else
		fail(call, error);
}

/* ANSWERED → another model, or DONE */
static void
give_up_model(Call *call)
{
	MemoryContext old = MemoryContextSwitchTo(call->context);
	StepError  *error = failure_of_attempt(call);

	MemoryContextSwitchTo(old);
	next_model(call, error);
}

/*
 * The service takes no more requests with this key for now: no process sends
 * any before it does again.  Where it does not say when, the backoff does; but
 * a step that wants to wait for a day waits alone: others share the key.  One
 * that wants no wait waits a little, for this uses up no attempt.
 */
static void
cool_down(Call *call)
{
	static const RetryPolicy usual = RETRY_DEFAULT;
	int			n = call->failures + call->throttles;
	int64		draw_ms = backoff_wait_ms(&call->retry, n,
										  pg_prng_double(&pg_global_prng_state),
										  call->retry_after_ms);
	int64		all_ms = Min(call->retry_after_ms, RESET_LONGEST_MS);
	int64		now = clock_us();

	if (all_ms <= 0)
		all_ms = Max(Min(backoff_bound_ms(&call->retry, n),
						 backoff_bound_ms(&usual, n)), LEAST_COOL_MS);
	call->throttled_by = call->route->endpoint_id;
	call->rest_us = now + draw_ms * 1000;
	attempt_cool(call, now + all_ms * 1000, false);
}

/*
 * Is the backoff not worth its time?  It passes the budget, or takes more than
 * half of the model's time while another model is ready.
 */
static void
check_backoff(void *arg)
{
	Call	   *call = arg;
	int64		now = clock_us();

	call->way = WAY_LATER;
	if (call->wake_us >= Min(call->deadline_us, call->share_us) ||
		(way_more_models(call) &&
		 call->wake_us - now > (call->share_us - now) / 2 &&
		 way_other_ready(call)))
		call->way = WAY_NONE;
}

static bool
worth_waiting(Call *call)
{
	if (call->group->guards.catalog != NULL && way_more_models(call))
		return call->group->guards.catalog(check_backoff, call) == NULL &&
			call->way == WAY_LATER;
	check_backoff(call);
	return call->way == WAY_LATER;
}

/* ANSWERED → BACKOFF, or another model, when attempts or time are used up */
static void
back_off(Call *call)
{
	int64		wait_ms;

	wait_ms = backoff_wait_ms(&call->retry, call->failures + call->throttles,
							  pg_prng_double(&pg_global_prng_state),
							  call->retry_after_ms);
	call->wake_us = clock_us() + wait_ms * 1000;
	if (worth_waiting(call))
		sleep_until(call, call->wake_us);
	else
		give_up_model(call);
}

/*
 * ANSWERED → another server at once, or else BACKOFF.  So it goes with a call's
 * first failure, which says nothing about other servers, and with an attempt
 * that was given up, which has waited long enough.
 */
static void
try_elsewhere(Call *call)
{
	Oid			before = call->route->server.oid;

	find_way(call);
	if (call->way == WAY_NOW && call->route->server.oid == before)
		back_off(call);
	else
		take_way(call);
}

/*
 * ANSWERED → BACKOFF, another endpoint or another model.  Being throttled uses
 * up no attempt, but a step that wants no retry at all wants none of this kind
 * either.
 */
static void
retry(Call *call)
{
	bool		throttled = call->cls == CLASS_THROTTLED;

	if (throttled)
	{
		call->throttles++;
		cool_down(call);
	}
	else
		call->failures++;
	if ((throttled && call->retry.attempts <= 1) ||
		call->failures >= call->most_failures)
		give_up_model(call);
	else if (throttled)
		go_on(call);
	else if (call->within != NULL || call->failures == 1)
		try_elsewhere(call);
	else
		back_off(call);
}

/* BACKOFF → WAITING, BACKOFF again, or DONE */
void
call_wake(Call *call)
{
	leave_state(call, CLASS_NONE, NULL);
	call->held = false;
	go_on(call);
}

/* The paused model that a call waits for, or NULL. */
const char *
call_held_by(const Call *call)
{
	return call->state == CALL_BACKOFF && call->held ? call->model : NULL;
}

/* When a call in backoff is tried again, clock_us(); 0: it is not in backoff. */
int64
call_sleeps_until(const Call *call)
{
	return call->state == CALL_BACKOFF ? call->wake_us : 0;
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
		call->request.messages = reask_messages(call->request.messages,
												call->answer, call->words);
	MemoryContextSwitchTo(old);
	enqueue(call);
}

/* Would another model refuse the request as well? */
static bool
faults_request(const Call *call)
{
	switch (call->status)
	{
		case 400:
		case 413:
		case 414:
		case 415:
		case 422:
		case 431:
			return true;
		default:
			return false;
	}
}

/*
 * ANSWERED → another server, another model or DONE.  For some seconds others
 * who spend the same key go elsewhere, if they can.
 */
static void
leave_server(Call *call)
{
	MemoryContext old = MemoryContextSwitchTo(call->context);

	call->denied = bms_add_member(call->denied, call->route->endpoint);
	MemoryContextSwitchTo(old);
	attempt_cool(call, clock_us() + REFUSED_US, true);
	go_on(call);
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
			break;
		case CLASS_PERMANENT:
			if (attempt_key_refused(call))
				leave_server(call);
			else if (faults_request(call))
				fail_as_answered(call);
			else
				give_up_model(call);
			break;
		case CLASS_INVALID:
			if (call->shape != NULL && !call->cut_off && call->reasks > 0 &&
				clock_us() < call->deadline_us)
				ask_again(call);
			else
				give_up_model(call);
			break;
		default:
			fail_as_answered(call);
			break;
	}
}

/* WAITING, IN_FLIGHT or BACKOFF → DONE: the time is up */
static void
expire(Call *call)
{
	MemoryContext old = MemoryContextSwitchTo(call->context);
	StepError  *error = failure_of_deadline(call);

	leave_state(call, error->cls, error->message);
	fail(call, error);
	MemoryContextSwitchTo(old);
}

/*
 * WAITING, IN_FLIGHT or BACKOFF → another model: this one's share of the time
 * is up.  That is no endpoint's fault where the time was the step's own.
 */
static void
end_share(Call *call)
{
	MemoryContext old = MemoryContextSwitchTo(call->context);
	bool		own = call->deadline_us == call->step_deadline_us;
	StepError  *error;

	if (call->state == CALL_IN_FLIGHT)
		attempt_give_up(call, "its share of the time", !own);
	leave_state(call, CLASS_NONE, NULL);
	error = call->asked > 0 ? failure_of_attempt(call) :
		failure_of_model(call->model, CLASS_TRANSIENT,
						 psprintf("model \"%s\" had no free slot within its share of the time",
								  call->model), NULL);
	MemoryContextSwitchTo(old);
	next_model(call, error);
}

/* IN_FLIGHT → ANSWERED, as one that failed for the moment */
static void
end_attempt_late(Call *call)
{
	MemoryContext old = MemoryContextSwitchTo(call->context);

	attempt_give_up(call, failure_seconds(call->route->server.attempt_timeout_ms),
					true);
	MemoryContextSwitchTo(old);
	call_answered(call);
}

/* One of the call's times has come, or had before it was moved. */
void
call_late(Call *call)
{
	int64		now = clock_us();

	if (now >= call->deadline_us)
		expire(call);
	else if (now >= call->share_us)
		end_share(call);
	else if (now >= call->attempt_end_us && call->state == CALL_IN_FLIGHT)
		end_attempt_late(call);
	else
	{
		if (call->state != CALL_IN_FLIGHT)
			call->attempt_end_us = CLOCK_NEVER;
		set_due(call);
	}
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
 * Start a call.  It is sent by call_send_waiting() or the next turn, not here:
 * who catches what is wrong with this call must not catch what sending raises,
 * which may be about another one.
 *
 * What spec points at is copied, save shape, which must live as long as the
 * call.  `done` is called once, from call_turn(), unless the
 * call is cancelled or its group destroyed.  The call is good until then.
 *
 * Raises what is wrong before anything is asked: no such model
 * (ERRCODE_UNDEFINED_OBJECT), no right to use any of its servers, where there
 * is no fallback (ERRCODE_CHAIN_DENIED), or another fault of the catalog.
 * Needs a transaction where the catalog does.  Everything else, a paused model
 * included, is told to done.
 */
Call *
call_start(CallGroup *group, const CallSpec *spec, CallDone done, void *arg)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "chaincall call",
												  CALL_CONTEXT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Call	   *call = call_make(group, context, spec);

	MemoryContextSwitchTo(old);
	/* complete: nothing more can raise that would leave it behind */
	MemoryContextSetParent(context, group->context);
	call->callback = done;
	call->arg = arg;
	call->on_reset.func = release;
	call->on_reset.arg = call;
	MemoryContextRegisterResetCallback(context, &call->on_reset);
	group->nlive++;
	if (call->way != WAY_NONE)
		call->air = air_enter(AIR_CALL, &spec->run->id, spec->run->userid,
							  call->path, call->model, NULL);
	take_way(call);
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
