/*
 * call_render.c
 *	  The request that a call would send, to be looked at.
 *
 * It is made by the same encoder on the same route; only what secret it would
 * carry is left out.
 */
#include "postgres.h"

#include "base/json.h"
#include "call/call_internal.h"
#include "mb/pg_wchar.h"

/* Headers that carry a secret whether or not it is the mapping's key. */
static const char *const secret_headers[] = {
	"authorization", "proxy-authorization", "x-api-key", "api-key", "cookie",
	NULL
};

static bool
is_secret(const char *name)
{
	for (int i = 0; secret_headers[i] != NULL; i++)
		if (pg_strcasecmp(secret_headers[i], name) == 0)
			return true;
	return false;
}

static void
push_text(JsonbParseState **state, const char *key, const char *text)
{
	json_push_key(state, key);
	json_push(state, WJB_VALUE, json_text(text));
}

/* "Name: value" as a member, its key as ***. */
static void
push_header(JsonbParseState **state, const Route *route, const char *header)
{
	const char *colon = strchr(header, ':');
	const char *value;
	char	   *name;
	StringInfoData shown;

	if (colon == NULL)
		return;
	name = pnstrdup(header, colon - header);
	value = colon + 1;
	while (*value == ' ')
		value++;
	initStringInfo(&shown);
	failure_redact(&shown, value, route->api_key);
	if (is_secret(name) && strcmp(shown.data, value) == 0)
	{
		resetStringInfo(&shown);
		appendStringInfoString(&shown, "***");
	}
	push_text(state, name, shown.data);
}

static void
push_headers(JsonbParseState **state, const Route *route, const List *headers)
{
	ListCell   *lc;

	json_push_key(state, "headers");
	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	foreach(lc, headers)
		push_header(state, route, lfirst(lc));
	(void) pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/* The models that would be tried next. */
static void
push_fallback(JsonbParseState **state, const ModelInfo *model,
			  const CallSpec *spec)
{
	const char *const *names = spec->fallback;
	int			n = 0;

	if (names == NULL)
	{
		names = (const char *const *) model->fallback;
		n = model->nfallback;
	}
	else
		while (names[n] != NULL)
			n++;
	if (n == 0)
		return;
	json_push_key(state, "fallback");
	(void) pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < n; i++)
		json_push(state, WJB_ELEM, json_text(names[i]));
	(void) pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

static Jsonb *
request_json(const Route *route, const ApiWire *wire, const ModelInfo *model,
			 const CallSpec *spec)
{
	JsonbParseState *state = NULL;
	StringInfoData url;

	initStringInfo(&url);
	failure_redact(&url, wire->url.data, route->api_key);
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_text(&state, "model", route->model);
	push_fallback(&state, model, spec);
	push_text(&state, "server", route->server.name);
	push_text(&state, "method", "POST");
	push_text(&state, "url", url.data);
	push_headers(&state, route, wire->headers);
	json_push_key(&state, "body");
	/* what is sent is UTF-8, whatever the database's encoding is */
	json_push(&state, WJB_VALUE,
			  json_parse(pg_any_to_server(wire->body.data, wire->body.len,
										  PG_UTF8)));
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/*
 * The request of a call by `userid`, not sent: {model, fallback, server,
 * method, url, headers, body}, keys as ***; fallback where there is one.  traceparent and Idempotency-Key are missing;
 * a run gives them.  Palloc'd.  Raises what call_start() raises, and what the
 * encoder does.
 */
Jsonb *
call_render(Oid userid, const CallSpec *spec)
{
	const ModelInfo *model = catalog_model(spec->model, false);
	ApiRequest	request;
	ApiWire		wire;
	Route	   *route;

	call_request(&request, model, spec);
	/* a model without endpoints is the catalog's to complain about */
	route = catalog_route(model, route_heaviest(model), userid);
	wire_request(route, &request, spec->extra, &wire);
	return request_json(route, &wire, model, spec);
}
