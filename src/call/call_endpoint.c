/*
 * call_endpoint.c
 *	  Which of a model's endpoints a call may go to now, and to which it does.
 *
 * It may go where its role has USAGE, where the circuit is not open and the
 * key not cooling down.  Of these it goes to one that has not failed it yet
 * and that is not crowded, by the turn that call_route.c keeps.  Crowded is
 * where all slots are taken, where far more calls are in the air than at the
 * others, or where nothing is heard from while others answer: what hangs
 * stalls only its own calls.
 */
#include "postgres.h"

#include "base/clock.h"
#include "call/call_internal.h"

/* Calls in the air at a server from which on it is compared with others. */
#define CROWD 64

/* And how many times as many, for its weight, and a few more, are too many. */
#define CROWDED 2
#define FEW 8

/* Calls in the air at a server from which on its silence tells something. */
#define SILENT 16

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
HealthView
endpoint_health(const Call *call, uint64 id, Oid mapping)
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
		view = endpoint_health(call, endpoint->id, mapping);
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

/* What there is for the call at the model, which stays good. */
void
endpoints_look(const Call *call, const ModelInfo *model, Endpoints *ends)
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

/* Frees what endpoints_look() has made. */
void
endpoints_forget(Endpoints *ends)
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
int
endpoints_choose(Call *call, const Endpoints *ends)
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
bool
endpoints_ready(const Call *call, const ModelInfo *model)
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
