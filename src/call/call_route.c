/*
 * call_route.c
 *	  Which of a model's endpoints a call goes to, and how many go to a server
 *	  at once.
 *
 * Smooth weighted round robin: each choice adds every endpoint's weight to
 * its credit, takes the endpoint with most credit and takes the sum of the
 * weights from it.  Weights 5, 1, 1 give a a b a c a a, not a a a a a b c.
 *
 * Credits belong to the process, not to a run, or a thousand runs of one call
 * each would all go to the first endpoint.  They are kept by a hash of the
 * model's name: a collision makes two models share credits, which skews their
 * balance a little and breaks nothing.
 */
#include "postgres.h"

#include <math.h>

#include "base/json.h"
#include "call/call_internal.h"
#include "common/hashfn.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

typedef struct Balance
{
	uint64		model;			/* hash key: hash of the name */
	int			nendpoints;
	double	   *credits;
} Balance;

/* The member of a normalised policy as a number, if it is there. */
static bool
policy_number(const Jsonb *retry, const char *key, double *number)
{
	JsonbValue	v;

	if (!json_get(retry, key, &v) || v.type != jbvNumeric)
		return false;
	*number = DatumGetFloat8(DirectFunctionCall1(numeric_float8,
												 NumericGetDatum(v.val.numeric)));
	return true;
}

/*
 * A model's `retry` as the catalog gives it (numbers, times in ms; NULL:
 * none), defaults filled in.
 */
RetryPolicy
route_retry_policy(const Jsonb *retry)
{
	RetryPolicy policy = RETRY_DEFAULT;
	double		number;

	if (retry == NULL)
		return policy;
	if (policy_number(retry, "attempts", &number))
		policy.attempts = (int) Min(Max(number, 1), PG_INT32_MAX);
	if (policy_number(retry, "first", &number))
		policy.first_ms = (int64) Min(Max(number, 0), PG_INT32_MAX);
	if (policy_number(retry, "factor", &number))
		policy.factor = number;
	if (policy_number(retry, "max", &number))
		policy.max_ms = (int64) Min(Max(number, 0), PG_INT32_MAX);
	return policy;
}

static Balance *
find_balance(const ModelInfo *model)
{
	static HTAB *balances = NULL;
	uint64		key;
	Balance    *balance;
	bool		found;

	if (balances == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(uint64);
		ctl.entrysize = sizeof(Balance);
		ctl.hcxt = TopMemoryContext;
		balances = hash_create("chaincall balance", 32, &ctl,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	key = hash_bytes_extended((const unsigned char *) model->name,
							  strlen(model->name), 0);
	balance = hash_search(balances, &key, HASH_ENTER, &found);
	if (!found)
	{
		balance->nendpoints = 0;
		balance->credits = NULL;
	}
	if (balance->nendpoints != model->nendpoints)
	{
		if (balance->credits != NULL)
			pfree(balance->credits);
		balance->credits = NULL;
		balance->nendpoints = 0;
		balance->credits = MemoryContextAllocZero(TopMemoryContext,
												  model->nendpoints *
												  sizeof(double));
		balance->nendpoints = model->nendpoints;
	}
	return balance;
}

/*
 * An endpoint of weight 0 takes no calls, unless none has a weight, which
 * makes them alike.
 */
static double
weight_of(const ModelInfo *model, int endpoint, bool weighted)
{
	double		weight = model->endpoints[endpoint].weight;

	if (!weighted)
		return 1;
	return weight > 0 && !isinf(weight) ? weight : 0;
}

static bool
any_weight(const ModelInfo *model)
{
	for (int i = 0; i < model->nendpoints; i++)
		if (weight_of(model, i, true) > 0)
			return true;
	return false;
}

/* The next endpoint in turn that is not in `except`; -1: none. */
static int
choose_except(const ModelInfo *model, const Bitmapset *except)
{
	bool		weighted = any_weight(model);
	Balance    *balance = find_balance(model);
	double		total = 0;
	int			best = -1;

	for (int i = 0; i < model->nendpoints; i++)
	{
		double		weight = weight_of(model, i, weighted);

		if (weight == 0 || bms_is_member(i, except))
			continue;
		total += weight;
		balance->credits[i] += weight;
		if (best < 0 || balance->credits[i] > balance->credits[best])
			best = i;
	}
	if (best >= 0)
		balance->credits[best] -= total;
	return best;
}

/*
 * The endpoint whose turn it is among those not in `except`; -1: none.  An
 * only endpoint is chosen without being counted.
 */
int
route_choose(const ModelInfo *model, const Bitmapset *except)
{
	if (model->nendpoints <= 1)
		return bms_is_member(0, except) ? -1 : model->nendpoints - 1;
	return choose_except(model, except);
}

/* Is the endpoint one that calls are sent to at all? */
bool
route_takes_calls(const ModelInfo *model, int endpoint)
{
	return weight_of(model, endpoint, any_weight(model)) > 0;
}

/*
 * The count of calls in the air at a server.  It is the process's: a chain
 * called by a step of another chain shares the slots of that one.  Good for
 * the life of the process.
 */
ServerSlots *
route_slots(Oid server)
{
	static HTAB *servers = NULL;
	ServerSlots *slots;
	bool		found;

	if (servers == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(ServerSlots);
		ctl.hcxt = TopMemoryContext;
		servers = hash_create("chaincall slots", 32, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	slots = hash_search(servers, &server, HASH_ENTER, &found);
	if (!found)
	{
		slots->in_flight = 0;
		slots->heard = 0;
	}
	return slots;
}

/* The endpoint that most calls go to: what is rendered is rendered for it. */
int
route_heaviest(const ModelInfo *model)
{
	int			heaviest = 0;

	for (int i = 1; i < model->nendpoints; i++)
		if (model->endpoints[i].weight > model->endpoints[heaviest].weight)
			heaviest = i;
	return heaviest;
}

/*
 * Its api; "" where the model has no endpoint or the server is gone.  Good as
 * long as the model is.
 */
const char *
route_heaviest_api(const ModelInfo *model)
{
	const ServerInfo *server;

	if (model->nendpoints == 0)
		return "";
	server = catalog_server(model->endpoints[route_heaviest(model)].server,
							true);
	return server ? server->api : "";
}
