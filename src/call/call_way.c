/*
 * call_way.c
 *	  Where a call goes: to which of its models, and to which of that one's
 *	  endpoints.
 *
 * A call has a list of models, the step's and its fallbacks, and asks one
 * after the other, none twice.  They have one budget: each may use an even
 * share of the attempts and of the time that are left when its turn comes, and
 * one attempt at least.  What a model leaves goes to those behind it.
 *
 * Of a model's endpoints those count that the role may use, whose circuit is
 * not open and where its key is not cooling down.  When there is none the call
 * waits for the first to come back, or goes on to the next model: at once from
 * a broken one when another is ready, else when the wait would take more than
 * half of the time that is left to the model.
 *
 * Calls of jobs wait for a model that somebody has paused, unless another is
 * ready; in a session, where somebody waits for them, they fail.
 *
 * All this is catalog work: it runs in a transaction and may raise.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/settings.h"
#include "call/call_internal.h"
#include "common/pg_prng.h"
#include "utils/builtins.h"

/* Bounds of the jitter behind a cool-down or a rest, in µs. */
#define LEAST_JITTER_US 100000
#define MOST_JITTER_US 5000000

/* Are there models behind the one that is asked now? */
bool
way_more_models(const Call *call)
{
	return call->at + 1 < call->nmodels;
}

/*
 * The call's deadline, or, where its time has not begun to run, what it would
 * be if it began now on its route.
 */
static int64
deadline_if_begun(const Call *call, int64 now_us)
{
	int			ms = call->model_timeout_ms;

	if (call->budget_ms != 0 || call->route == NULL)
		return call->deadline_us;
	if (ms <= 0)
		ms = call->route->server.timeout_ms;
	if (ms <= 0)
		return call->deadline_us;
	return Min(call->deadline_us, now_us + (int64) ms * 1000);
}

/* Gives the model that is asked its share of the time that is left. */
void
way_share_time(Call *call, int64 now_us)
{
	int			models = call->nmodels - call->at;
	int64		left = Max(call->deadline_us - now_us, 0);

	call->share_us = models <= 1 || call->deadline_us == CLOCK_NEVER ?
		CLOCK_NEVER : now_us + Max(left / models, 1000);
}

/* ---- models ---- */

/* Why the model takes no calls at all, or NULL. */
static StepError *
model_fault(const ModelInfo *model)
{
	if (model->paused)
		return failure_of_model(model->name, CLASS_PERMANENT,
								psprintf("model \"%s\" is paused", model->name),
								"Somebody has paused it: chaincall.resume('model', ...) lets it go on.");
	if (model->nendpoints == 0)
		return failure_of_model(model->name, CLASS_PERMANENT,
								psprintf("model \"%s\" has no endpoint",
										 model->name),
								"Say which server has it: INSERT INTO chaincall.endpoint (model, server).");
	return NULL;
}

/* Why a fallback cannot take this call, or NULL. */
static StepError *
fallback_fault(const Call *call, const ModelInfo *model, const char *name)
{
	if (model == NULL)
		return failure_of_model(name, CLASS_PERMANENT,
								psprintf("model \"%s\" does not exist", name),
								"Correct the fallback that names it, or add the model.");
	if (strcmp(model->kind, call->request.kind) != 0)
		return failure_of_model(name, CLASS_PERMANENT,
								psprintf("model \"%s\" is of kind %s, not %s",
										 name, model->kind, call->request.kind),
								"Name a fallback of the same kind.");
	return model_fault(model);
}

/*
 * The model's turn begins: its parameters under the step's, the first
 * question anew, its share of what is left.
 */
static StepError *
enter_model(Call *call, const ModelInfo *model)
{
	int			models = call->nmodels - call->at;
	int			attempts = call->retry.attempts - call->failures;
	StepError  *error;

	error = call->at == 0 ? model_fault(model) :
		fallback_fault(call, model, call->model);
	if (error != NULL)
		return error;
	if (call->at > 0)
	{
		call->request.messages = call->messages;
		call->request.params = model->params != NULL && call->params != NULL ?
			json_merge(model->params, call->params) :
			json_copy(CurrentMemoryContext,
					  call->params ? call->params : model->params);
	}
	call->most_failures = call->failures +
		Max((attempts + models - 1) / models, 1);
	way_share_time(call, clock_us());
	call->entered = true;
	return NULL;
}

/*
 * The model is given up with that error, which is in the call's context; the
 * next one's turn comes with way_find().  There must be one.
 */
void
way_leave_model(Call *call, StepError *error)
{
	MemoryContext old = MemoryContextSwitchTo(call->context);

	Assert(way_more_models(call));
	call->left = list_concat(call->left, error->tried);
	if (call->first_left == NULL)
		call->first_left = error;
	if (call->asked > 0)
		call->last_asked = error;
	call->model = call->models[++call->at];
	call->entered = false;
	call->asked = 0;
	if (call->route != NULL)
		catalog_route_free(call->route);
	call->route = NULL;
	call->tried = NULL;
	call->denied = NULL;
	call->throttled_by = 0;
	call->rest_note = NULL;
	MemoryContextSwitchTo(old);
}

/*
 * Is one of the models behind this one ready?  What catalog_model() has given
 * is good no more.
 */
bool
way_other_ready(Call *call)
{
	for (int i = call->at + 1; i < call->nmodels; i++)
	{
		const ModelInfo *model = catalog_model(call->models[i], true);

		if (fallback_fault(call, model, call->models[i]) == NULL &&
			endpoints_ready(call, model))
			return true;
	}
	return false;
}

/* ---- the way ---- */

static void
set_route(Call *call, const ModelInfo *model, int endpoint)
{
	Route	   *before = call->route;

	call->route = catalog_route(model, endpoint, call->run->userid);
	if (before != NULL)
		catalog_route_free(before);
}

/* A call may wait for long, and look at its endpoint once a second. */
static void
keep_route(Call *call, const ModelInfo *model, int endpoint)
{
	if (call->route == NULL ||
		call->route->endpoint_id != model->endpoints[endpoint].id)
		set_route(call, model, endpoint);
}

static bool
none(Call *call, StepError *error)
{
	call->way = WAY_NONE;
	call->stuck = error;
	return false;
}

/* No endpoint is for this call: why. */
static StepError *
barred_fault(Call *call, const ModelInfo *model, const Endpoints *ends)
{
	int			barred = Max(ends->denied, ends->gone);
	const char *server;

	if (ends->spent)
		return failure_of_attempt(call);
	if (ends->foreign >= 0)
		return failure_of_model(model->name, CLASS_PERMANENT,
								psprintf("model \"%s\" does not take requests in the form of api %s",
										 model->name, call->api),
								"Name a fallback whose server has the same api.");
	/* a model without others: the catalog says it best */
	if (call->nmodels == 1)
		set_route(call, model, Max(barred, 0));
	server = model->endpoints[Max(barred, 0)].server;
	if (ends->denied >= 0)
		return failure_of_model(model->name, CLASS_DENIED,
								psprintf("permission denied for model \"%s\"",
										 model->name),
								psprintf("GRANT USAGE ON FOREIGN SERVER %s to the role that calls.",
										 quote_identifier(server)));
	return failure_of_model(model->name, CLASS_PERMANENT,
							psprintf("server \"%s\" of model \"%s\" does not exist",
									 server, model->name),
							"Create it, or change the model's rows in chaincall.endpoint.");
}

/* When the time of the model that is asked is up, as far as it is known. */
static int64
time_here(const Call *call, int64 now_us)
{
	int64		deadline = deadline_if_begun(call, now_us);

	if (deadline == CLOCK_NEVER || !way_more_models(call))
		return deadline;
	return Min(call->share_us,
			   now_us + (deadline - now_us) / (call->nmodels - call->at));
}

/*
 * Waits until view->until_us if there is time for that; the jitter lets not
 * all calls that wait for the same thing come at once.
 */
static bool
wait_until(Call *call, const HealthView *view)
{
	int64		now = clock_us();
	int64		jitter = Min(Max((view->until_us - now) / 4, LEAST_JITTER_US),
							 MOST_JITTER_US);
	int64		limit = call->share_us != CLOCK_NEVER ?
		Min(call->share_us, call->deadline_us) : time_here(call, now);

	jitter = (int64) (jitter * pg_prng_double(&pg_global_prng_state));
	if (view->until_us >= limit)
		return false;
	call->wake_us = view->until_us + jitter < limit ?
		view->until_us + jitter : view->until_us;
	call->way = WAY_LATER;
	return true;
}

/*
 * A circuit is open, and the call would wait for it.  What waits in a session
 * keeps somebody waiting, and a job that is parked comes back with its time
 * anew: there a rest is as good as a failed attempt, or it would have no end.
 * True: the model's attempts are used up.
 */
static bool
count_rest(Call *call, const HealthView *view, int64 now_us)
{
	if (call->group->guards.catalog != NULL)
	{
		if (view->until_us - now_us <= setting_park_after_ms * INT64CONST(1000))
			return false;
		call->rest_note = failure_of_health(call, view)->message;
	}
	else if (view->probing && call->failures + 1 < call->most_failures)
		return false;			/* not a rest: it may be well in no time */
	return ++call->failures >= call->most_failures;
}

/*
 * Is it better not to wait?  From a broken model the call goes to another that
 * is ready, from one that is cooling down when that takes half of its time.
 */
static bool
rather_not_wait(Call *call, const HealthView *view)
{
	int64		now = clock_us();

	if (way_more_models(call) &&
		(view->verdict == HEALTH_BROKEN ||
		 view->until_us - now > (time_here(call, now) - now) / 2) &&
		way_other_ready(call))
		return true;
	return view->verdict == HEALTH_BROKEN && count_rest(call, view, now);
}

/* All endpoints are unwell. */
static bool
wait_for_health(Call *call, const HealthView *view)
{
	if (!rather_not_wait(call, view) && wait_until(call, view))
		return true;
	return none(call, view->verdict == HEALTH_COOLING && call->asked > 0 ?
				failure_of_attempt(call) : failure_of_health(call, view));
}

/* The key was refused of late, and there is no other endpoint. */
static bool
ask_all_the_same(Call *call, const ModelInfo *model, int endpoint)
{
	HealthView	view = {HEALTH_REFUSED, 0, false};

	set_route(call, model, endpoint);
	if (way_more_models(call) && way_other_ready(call))
		return none(call, failure_of_health(call, &view));
	call->way = WAY_NOW;
	return true;
}

/* The way to the model, which has been entered. */
static bool
find_endpoint(Call *call, const ModelInfo *model)
{
	Endpoints	ends;
	int			endpoint;
	StepError  *error = NULL;

	endpoints_look(call, model, &ends);
	endpoint = endpoints_choose(call, &ends);
	if (endpoint >= 0)
		set_route(call, model, endpoint);
	else if (ends.refused < 0 && ends.soonest < 0)
		error = barred_fault(call, model, &ends);
	else if (ends.refused < 0)
		keep_route(call, model, ends.soonest);
	endpoints_forget(&ends);
	if (endpoint >= 0)
		return true;
	if (error != NULL)
		return none(call, error);
	return ends.refused >= 0 ? ask_all_the_same(call, model, ends.refused) :
		wait_for_health(call, &ends.view);
}

/*
 * The model, or the last of its endpoints, was dropped while it was asked: the
 * way that the call has is as good as any, as long as it is one.
 */
static bool
keep_way(Call *call)
{
	const Route *route = call->route;
	HealthView	view;

	if (bms_is_member(route->endpoint, call->denied))
		return none(call, failure_of_attempt(call));
	view = endpoint_health(call, route->endpoint_id, route->mapping);
	return view.verdict == HEALTH_WELL || view.verdict == HEALTH_REFUSED ||
		wait_for_health(call, &view);
}

/*
 * Does the call wait until the paused model whose turn it is is resumed?  What
 * catalog_model() has given is good no more.
 */
static bool
waits_for_resume(Call *call)
{
	return call->group->guards.catalog != NULL &&
		!(way_more_models(call) && way_other_ready(call));
}

/* The way that the current model offers; false: none. */
static bool
find_here(Call *call)
{
	const ModelInfo *model = catalog_model(call->model, true);
	StepError  *error;

	call->way = WAY_NOW;
	if (call->entered)
		return model == NULL || model->nendpoints == 0 ? keep_way(call) :
			find_endpoint(call, model);
	if (model != NULL && model->paused)
	{
		if (waits_for_resume(call))
		{
			call->way = WAY_HELD;
			return true;
		}
		model = catalog_model(call->model, true);
	}
	error = enter_model(call, model);
	return error != NULL ? none(call, error) : find_endpoint(call, model);
}

/*
 * Looks for the call's way: at the model that is asked now, or at the first
 * behind it that has one.  Sets way, and route, wake_us or stuck.  Raises what
 * catalog_route() raises.
 */
void
way_find(void *arg)
{
	Call	   *call = arg;
	MemoryContext old = MemoryContextSwitchTo(call->context);

	while (!find_here(call) && way_more_models(call))
		way_leave_model(call, call->stuck);
	MemoryContextSwitchTo(old);
}
