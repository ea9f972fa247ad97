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

/* Calls in the air at a server from which on it is compared with others. */
#define CROWD 64

/* And how many times as many, for its weight, and a few more, are too many. */
#define CROWDED 2
#define FEW 8

/* Calls in the air at a server from which on its silence tells something. */
#define SILENT 16

/* Bounds of the jitter behind a cool-down or a rest, in µs. */
#define LEAST_JITTER_US 100000
#define MOST_JITTER_US 5000000

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
int64
way_deadline(const Call *call, int64 now_us)
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
								"Somebody has paused it; UPDATE chaincall.model SET paused = false lets it go on.");
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

/* ---- endpoints ---- */

/* Is it at a server that has refused this call's key? */
static bool
is_spent(const Call *call, const ModelInfo *model, int endpoint)
{
	for (int d = -1; (d = bms_next_member(call->denied, d)) >= 0;)
		if (d < model->nendpoints &&
			strcmp(model->endpoints[endpoint].server,
				   model->endpoints[d].server) == 0)
			return true;
	return false;
}

static bool
fits_api(const Call *call, const ServerInfo *server)
{
	return call->api == NULL || strcmp(server->api, call->api) == 0;
}

/* How the endpoint fares, also by what this call has been told itself. */
static HealthView
look_at_health(const Call *call, uint64 id, Oid mapping)
{
	HealthView	view = health_look(id, mapping);

	if (id == call->throttled_by && view.verdict != HEALTH_BROKEN &&
		call->rest_us > clock_us() &&
		(view.verdict != HEALTH_COOLING || view.until_us < call->rest_us))
	{
		view.verdict = HEALTH_COOLING;
		view.until_us = call->rest_us;
	}
	return view;
}

static void
note_unwell(Endpoints *ends, int endpoint, const HealthView *view)
{
	ends->unwell = bms_add_member(ends->unwell, endpoint);
	if (view->verdict == HEALTH_REFUSED)
		ends->refused = endpoint;
	else if (ends->soonest < 0 || view->until_us < ends->view.until_us)
	{
		ends->soonest = endpoint;
		ends->view = *view;
	}
}

/*
 * Has the server said nothing while others have answered more calls than it
 * has in the air?  It may be slow, or hang: it has enough for now.
 */
static bool
is_silent(const ServerSlots *slots)
{
	return slots->in_flight >= SILENT &&
		attempt_answers() - slots->heard > (uint64) slots->in_flight + SILENT;
}

static void
look_at_endpoint(const Call *call, Endpoints *ends, int i)
{
	const EndpointInfo *endpoint = &ends->model->endpoints[i];
	const ServerInfo *server;
	Reach		reach;
	HealthView	view;
	ServerSlots *slots;
	Oid			mapping;
	int			flying;

	ends->flying[i] = -1;
	ends->barred = bms_add_member(ends->barred, i);
	if (!route_takes_calls(ends->model, i))
		return;
	reach = catalog_reach(ends->model, i, call->run->userid, &mapping,
						  &server);
	if (reach == REACH_DENIED)
		ends->denied = i;
	else if (reach == REACH_NO_SERVER)
		ends->gone = i;
	else if (!fits_api(call, server))
		ends->foreign = i;
	else if (is_spent(call, ends->model, i))
		ends->spent = true;
	else
	{
		ends->barred = bms_del_member(ends->barred, i);
		view = look_at_health(call, endpoint->id, mapping);
		slots = route_slots(server->oid);
		flying = slots->in_flight;
		ends->flying[i] = flying;
		if (view.verdict != HEALTH_WELL)
			note_unwell(ends, i, &view);
		else if ((server->max_in_flight > 0 && flying >= server->max_in_flight) ||
				 is_silent(slots))
			ends->crowded = bms_add_member(ends->crowded, i);
	}
}

/* Calls in the air at the endpoint's server for the weight that it has. */
static double
load_of(const Endpoints *ends, int endpoint)
{
	const EndpointInfo *all = ends->model->endpoints;
	double		weight = 0;

	for (int i = 0; i < ends->model->nendpoints; i++)
		if (strcmp(all[i].server, all[endpoint].server) == 0)
			weight += all[i].weight;
	return ends->flying[endpoint] / (weight > 0 ? weight : 1);
}

static double
least_load(const Endpoints *ends)
{
	double		least = -1;

	for (int i = 0; i < ends->model->nendpoints; i++)
	{
		double		load;

		if (ends->flying[i] < 0 || bms_is_member(i, ends->unwell))
			continue;
		load = load_of(ends, i);
		if (least < 0 || load < least)
			least = load;
	}
	return least;
}

/*
 * A server that answers late or never collects calls: while others have room
 * it gets no more than twice as many as they have.
 */
static void
find_crowds(Endpoints *ends)
{
	double		least = -1;

	for (int i = 0; i < ends->model->nendpoints; i++)
	{
		if (ends->flying[i] < CROWD)
			continue;
		if (least < 0)
			least = least_load(ends);
		if (load_of(ends, i) > CROWDED * (least + FEW))
			ends->crowded = bms_add_member(ends->crowded, i);
	}
}

static void
look_at_endpoints(const Call *call, const ModelInfo *model, Endpoints *ends)
{
	memset(ends, 0, sizeof(Endpoints));
	ends->model = model;
	ends->denied = ends->gone = ends->foreign = -1;
	ends->refused = ends->soonest = -1;
	ends->flying = palloc(model->nendpoints * sizeof(int));
	for (int i = 0; i < model->nendpoints; i++)
		look_at_endpoint(call, ends, i);
	if (model->nendpoints > 1)
		find_crowds(ends);
}

static void
forget_endpoints(Endpoints *ends)
{
	bms_free(ends->barred);
	bms_free(ends->unwell);
	bms_free(ends->crowded);
	pfree(ends->flying);
}

static int
choose_without(const Endpoints *ends, const Bitmapset *a, const Bitmapset *b)
{
	Bitmapset  *except = bms_union(ends->barred, ends->unwell);
	int			endpoint;

	except = bms_add_members(except, a);
	except = bms_add_members(except, b);
	endpoint = route_choose(ends->model, except);
	bms_free(except);
	return endpoint;
}

/*
 * An endpoint that this call has not failed at, with room if there is one;
 * when it has at all of them, any but the last; else that one.  -1: none is
 * well.
 */
static int
choose_endpoint(Call *call, const Endpoints *ends)
{
	int			endpoint = choose_without(ends, call->tried, ends->crowded);

	if (endpoint < 0)
		endpoint = choose_without(ends, call->tried, NULL);
	if (endpoint < 0 && call->route != NULL)
	{
		bms_free(call->tried);
		call->tried = bms_make_singleton(call->route->endpoint);
		endpoint = choose_without(ends, call->tried, NULL);
	}
	return endpoint < 0 ? choose_without(ends, NULL, NULL) : endpoint;
}

/* Is an endpoint of the model ready for the call? */
static bool
model_ready(const Call *call, const ModelInfo *model)
{
	for (int i = 0; i < model->nendpoints; i++)
	{
		const ServerInfo *server;
		Oid			mapping;

		if (route_takes_calls(model, i) &&
			catalog_reach(model, i, call->run->userid, &mapping,
						  &server) == REACH_YES &&
			fits_api(call, server) &&
			health_look(model->endpoints[i].id, mapping).verdict == HEALTH_WELL)
			return true;
	}
	return false;
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
			model_ready(call, model))
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
	int64		deadline = way_deadline(call, now_us);

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

	look_at_endpoints(call, model, &ends);
	endpoint = choose_endpoint(call, &ends);
	if (endpoint >= 0)
		set_route(call, model, endpoint);
	else if (ends.refused < 0 && ends.soonest < 0)
		error = barred_fault(call, model, &ends);
	else if (ends.refused < 0)
		keep_route(call, model, ends.soonest);
	forget_endpoints(&ends);
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
	view = look_at_health(call, route->endpoint_id, route->mapping);
	return view.verdict == HEALTH_WELL || view.verdict == HEALTH_REFUSED ||
		wait_for_health(call, &view);
}

/* The way that the current model offers; false: none. */
static bool
find_here(Call *call)
{
	const ModelInfo *model = catalog_model(call->model, true);
	StepError  *error = NULL;

	call->way = WAY_NOW;
	if (!call->entered)
		error = enter_model(call, model);
	else if (model == NULL || model->nendpoints == 0)
		return keep_way(call);
	return error != NULL ? none(call, error) : find_endpoint(call, model);
}

/* Does the call wait until the model whose turn it is is resumed? */
static bool
is_held(Call *call)
{
	const ModelInfo *model;

	if (call->entered || call->group->guards.catalog == NULL)
		return false;
	model = catalog_model(call->model, true);
	return model != NULL && model->paused &&
		!(way_more_models(call) && way_other_ready(call));
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

	do
	{
		if (is_held(call))
		{
			call->way = WAY_HELD;
			break;
		}
		if (find_here(call) || !way_more_models(call))
			break;
		way_leave_model(call, call->stuck);
	} while (true);
	MemoryContextSwitchTo(old);
}
