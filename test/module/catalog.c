/*
 * catalog.c
 *	  What the catalog finds: models, and the way to an endpoint for a role.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/json.h"
#include "catalog/catalog.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(chaincall_test_model);
PG_FUNCTION_INFO_V1(chaincall_test_route);
PG_FUNCTION_INFO_V1(chaincall_test_time_route);

static void
push(JsonbParseState **state, const char *key, const Jsonb *value)
{
	if (value == NULL)
		return;
	json_push_key(state, key);
	json_push(state, WJB_VALUE, value);
}

static void
push_text(JsonbParseState **state, const char *key, const char *text)
{
	push(state, key, text ? json_text(text) : NULL);
}

Datum
chaincall_test_model(PG_FUNCTION_ARGS)
{
	const ModelInfo *model = catalog_model(text_to_cstring(PG_GETARG_TEXT_PP(0)),
										   false);
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_text(&state, "name", model->name);
	push_text(&state, "kind", model->kind);
	push(&state, "params", model->params);
	push(&state, "retry", model->retry);
	push(&state, "timeout_ms", json_int(model->timeout_ms));
	push(&state, "paused", json_bool(model->paused));
	json_push_key(&state, "endpoints");
	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < model->nendpoints; i++)
		json_push(&state, WJB_ELEM,
				  json_text(psprintf("%s@%s version %s weight %g",
									 model->endpoints[i].remote_name,
									 model->endpoints[i].server,
									 model->endpoints[i].version,
									 model->endpoints[i].weight)));
	(void) pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	PG_RETURN_JSONB_P(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT,
													   NULL)));
}

Datum
chaincall_test_route(PG_FUNCTION_ARGS)
{
	const ModelInfo *model = catalog_model(text_to_cstring(PG_GETARG_TEXT_PP(0)),
										   false);
	Route	   *route = catalog_route(model, PG_GETARG_INT32(1),
									  PG_GETARG_OID(2));
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_text(&state, "server", route->server.name);
	push_text(&state, "api", route->server.api);
	push_text(&state, "url", route->server.url);
	push(&state, "timeout_ms", json_int(route->server.timeout_ms));
	push(&state, "connect_timeout_ms",
		 json_int(route->server.connect_timeout_ms));
	push(&state, "max_in_flight", json_int(route->server.max_in_flight));
	push(&state, "max_answer", json_int(route->server.max_answer));
	push_text(&state, "proxy", route->server.proxy);
	push_text(&state, "path", route->server.path);
	push(&state, "headers", route->server.headers);
	push(&state, "request", route->server.request);
	push_text(&state, "model", route->model);
	push_text(&state, "version", route->version);
	push_text(&state, "remote_name", route->remote_name);
	push_text(&state, "key", route->api_key);
	push(&state, "mapped", json_bool(OidIsValid(route->mapping)));
	PG_RETURN_JSONB_P(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT,
													   NULL)));
}

/* Microseconds that finding a model and its route takes. */
Datum
chaincall_test_time_route(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int			n = PG_GETARG_INT32(1);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "time",
												  ALLOCSET_DEFAULT_SIZES);
	int64		start = clock_us();

	for (int i = 0; i < n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(scratch);

		(void) catalog_route(catalog_model(name, false), 0, PG_GETARG_OID(2));
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
	}
	PG_RETURN_FLOAT8((double) (clock_us() - start) / n);
}
