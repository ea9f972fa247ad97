/*
 * api.c
 *	  Encoders and decoders of the apis, called with a route and a request
 *	  that a test describes as JSON.
 */
#include "postgres.h"

#include "api/api.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"
#include "catalog/catalog_option.h"
#include "fmgr.h"
#include "test_api.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(chaincall_test_encode);
PG_FUNCTION_INFO_V1(chaincall_test_decode);
PG_FUNCTION_INFO_V1(chaincall_test_status_class);
PG_FUNCTION_INFO_V1(chaincall_test_time_api);

static char *
spec_text(const Jsonb *spec, const char *key)
{
	Jsonb	   *field = json_field(spec, key);

	return field ? json_string_dup(field) : NULL;
}

/*
 * Reads {api, url, path, headers, request, answer, name, key, form, kind,
 * system, messages, body, params, extra, schema}.
 */
void
test_api_read_spec(const Jsonb *spec, Route *route, ApiRequest *request)
{
	char	   *form = spec_text(spec, "form");
	char	   *answer = spec_text(spec, "answer");

	memset(route, 0, sizeof(Route));
	memset(request, 0, sizeof(ApiRequest));
	route->server.name = "stub";
	route->server.api = spec_text(spec, "api");
	route->server.url = spec_text(spec, "url");
	if (route->server.url == NULL)
		route->server.url = "http://stub/v1";
	route->server.path = spec_text(spec, "path");
	route->server.headers = json_field(spec, "headers");
	route->server.request = json_field(spec, "request");
	route->server.answer = answer ? option_jsonpath(answer) : NULL;
	route->model = "model";
	route->version = "1";
	route->remote_name = spec_text(spec, "name");
	if (route->remote_name == NULL)
		route->remote_name = "remote";
	route->api_key = spec_text(spec, "key");
	request->form = form == NULL ? CALL_MESSAGES
		: strcmp(form, "input") == 0 ? CALL_INPUT : CALL_REQUEST;
	request->kind = spec_text(spec, "kind");
	if (request->kind == NULL)
		request->kind = "chat";
	request->system = spec_text(spec, "system");
	request->messages = json_field(spec, "messages");
	request->body = json_field(spec, "body");
	request->params = json_field(spec, "params");
	request->extra = json_field(spec, "extra");
	request->schema = json_field(spec, "schema");
	request->strict = request->schema != NULL;
}

static void
push(JsonbParseState **state, const char *key, const Jsonb *value)
{
	json_push_key(state, key);
	json_push(state, WJB_VALUE, value ? value : json_null());
}

static void
encode(const Route *route, const ApiRequest *request, ApiWire *wire)
{
	initStringInfo(&wire->url);
	initStringInfo(&wire->body);
	wire->headers = NIL;
	api_lookup(route->server.api)->encode(route, request, wire);
}

Datum
chaincall_test_encode(PG_FUNCTION_ARGS)
{
	Route		route;
	ApiRequest	request;
	ApiWire		wire;
	JsonbParseState *state = NULL;
	ListCell   *lc;

	test_api_read_spec(PG_GETARG_JSONB_P(0), &route, &request);
	encode(&route, &request, &wire);
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push(&state, "url", json_text(wire.url.data));
	push(&state, "body", json_parse(wire.body.data));
	json_push_key(&state, "headers");
	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	foreach(lc, wire.headers)
		json_push(&state, WJB_ELEM, json_text(lfirst(lc)));
	(void) pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	PG_RETURN_JSONB_P(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT,
													   NULL)));
}

static void
push_tokens(JsonbParseState **state, const char *key, int64 tokens)
{
	if (tokens >= 0)
		push(state, key, json_int(tokens));
}

/* The answer as {class, output, message, cut_off, in, out}, without defaults. */
Datum
chaincall_test_decode(PG_FUNCTION_ARGS)
{
	bytea	   *bytes = PG_GETARG_BYTEA_PP(2);
	char	   *body;
	size_t		len = VARSIZE_ANY_EXHDR(bytes);
	Route		route;
	ApiRequest	request;
	ApiAnswer	answer;
	JsonbParseState *state = NULL;

	body = palloc(len + 1);
	memcpy(body, VARDATA_ANY(bytes), len);
	body[len] = '\0';
	test_api_read_spec(PG_GETARG_JSONB_P(0), &route, &request);
	api_lookup(route.server.api)->decode(&route, &request, PG_GETARG_INT32(1),
										 PG_ARGISNULL(3) ? NULL
										 : text_to_cstring(PG_GETARG_TEXT_PP(3)),
										 body, len, &answer);
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push(&state, "class", json_text(error_class_name(answer.cls)));
	if (answer.output != NULL)
		push(&state, "output", answer.output);
	if (answer.message != NULL)
		push(&state, "message", json_text(answer.message));
	if (answer.cut_off)
		push(&state, "cut_off", json_bool(true));
	push_tokens(&state, "in", answer.tokens_in);
	push_tokens(&state, "out", answer.tokens_out);
	PG_RETURN_JSONB_P(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT,
													   NULL)));
}

Datum
chaincall_test_status_class(PG_FUNCTION_ARGS)
{
	ErrorClass	cls = api_status_class(PG_GETARG_INT32(0), PG_GETARG_BOOL(1));

	PG_RETURN_TEXT_P(cstring_to_text(error_class_name(cls)));
}

/* Microseconds that encoding and decoding take together. */
Datum
chaincall_test_time_api(PG_FUNCTION_ARGS)
{
	char	   *body = text_to_cstring(PG_GETARG_TEXT_PP(1));
	int			n = PG_GETARG_INT32(2);
	size_t		len = strlen(body);
	Route		route;
	ApiRequest	request;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "time",
												  ALLOCSET_DEFAULT_SIZES);
	int64		start;

	test_api_read_spec(PG_GETARG_JSONB_P(0), &route, &request);
	start = clock_us();
	for (int i = 0; i < n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(scratch);
		ApiWire		wire;
		ApiAnswer	answer;

		encode(&route, &request, &wire);
		api_lookup(route.server.api)->decode(&route, &request, 200,
											 "application/json", body, len,
											 &answer);
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
	}
	PG_RETURN_FLOAT8((double) (clock_us() - start) / n);
}
