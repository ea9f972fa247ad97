/*
 * call_wire.c
 *	  What a call sends: the request as its api writes it, or a person has, and
 *	  the headers that the run and the attempt give it.
 */
#include "postgres.h"

#include "base/ids.h"
#include "base/json.h"
#include "call/call_internal.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#define KEY_BYTES 16			/* of the sha256 in an Idempotency-Key */

/* Sent unless the api has its own. */
#define CONTENT_TYPE "Content-Type: application/json"
#define ACCEPT "Accept: application/json"

/* Has the encoder given the header called as `header` is up to its colon? */
static bool
has_header(const List *headers, const char *header)
{
	size_t		len = strchr(header, ':') - header + 1;
	ListCell   *lc;

	foreach(lc, headers)
		if (pg_strncasecmp(lfirst(lc), header, len) == 0)
			return true;
	return false;
}

/*
 * A body that a person has given takes the place of the encoder's.  Which of
 * the model's endpoints it goes to is the route's to say, and so is the name
 * there, save where the chain itself writes the whole request.
 */
static void
put_given(const Route *route, const ApiRequest *request, ApiWire *wire)
{
	Jsonb	   *body = request->given;
	JsonbValue	model;
	char	   *utf8;

	if (strcmp(request->given_api, route->server.api) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("the input that was given is a request of api %s, but server \"%s\" has api %s",
						request->given_api, route->server.name,
						route->server.api),
				 errhint("Retry without an input, or resolve the step.")));
	if (strcmp(route->server.api, "http") != 0 &&
		(request->form != CALL_REQUEST || !json_get(body, "model", &model)))
	{
		JsonbParseState *state = NULL;

		(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		json_push_key(&state, "model");
		json_push(&state, WJB_VALUE, json_text(route->remote_name));
		body = json_merge(body, JsonbValueToJsonb(pushJsonbValue(&state,
																 WJB_END_OBJECT,
																 NULL)));
	}
	resetStringInfo(&wire->body);
	json_append(&wire->body, body);
	utf8 = pg_server_to_any(wire->body.data, wire->body.len, PG_UTF8);
	if (utf8 != wire->body.data)
	{
		resetStringInfo(&wire->body);
		appendStringInfoString(&wire->body, utf8);
	}
}

/*
 * Encode into wire, whose parts are made in the current memory context, the
 * headers complete but for those that a run gives.  `extra` maps apis to their
 * own fields.  Raises what the encoder raises.
 */
void
wire_request(const Route *route, const ApiRequest *request,
			   const Jsonb *extra, ApiWire *wire)
{
	const Api  *api = api_lookup(route->server.api);
	ApiRequest	own = *request;

	if (api == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("api \"%s\" of server \"%s\" is not known",
						route->server.api, route->server.name)));
	own.extra = extra ? json_field(extra, route->server.api) : NULL;
	initStringInfo(&wire->url);
	initStringInfo(&wire->body);
	wire->headers = NIL;
	api->encode(route, &own, wire);
	if (own.given != NULL)
		put_given(route, &own, wire);
	if (!has_header(wire->headers, CONTENT_TYPE))
		wire->headers = lappend(wire->headers, CONTENT_TYPE);
	if (!has_header(wire->headers, ACCEPT))
		wire->headers = lappend(wire->headers, ACCEPT);
}

/* Errors that are not the chain's author's and must not be kept. */
static bool
must_go_on(const ErrorData *edata)
{
	int			category = ERRCODE_TO_CATEGORY(edata->sqlerrcode);

	return category == ERRCODE_OPERATOR_INTERVENTION ||
		category == ERRCODE_INSUFFICIENT_RESOURCES ||
		category == ERRCODE_INTERNAL_ERROR;
}

/*
 * The failure when the encoder has raised, else NULL.  Catching without a
 * subtransaction is safe because an encoder does nothing but build text: it
 * looks nothing up and holds nothing that an abort would have to release.
 */
StepError *
wire_encode(Call *call, ApiWire *wire)
{
	MemoryContext context = CurrentMemoryContext;
	StepError  *volatile error = NULL;

	PG_TRY();
	{
		wire_request(call->route, &call->request, call->extra, wire);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(call->context);
		edata = CopyErrorData();
		if (must_go_on(edata))
			PG_RE_THROW();
		FlushErrorState();
		error = failure_of_encoding(call, edata);
		FreeErrorData(edata);
		MemoryContextSwitchTo(context);
	}
	PG_END_TRY();
	return error;
}

static void
sha256(pg_cryptohash_ctx *hash, const void *bytes, size_t len, uint8 *digest)
{
	if (hash == NULL || pg_cryptohash_init(hash) < 0 ||
		pg_cryptohash_update(hash, bytes, len) < 0 ||
		pg_cryptohash_final(hash, digest, PG_SHA256_DIGEST_LENGTH) < 0)
		elog(ERROR, "could not compute SHA-256: %s",
			 pg_cryptohash_error(hash));
}

static void
append_hex(StringInfo out, const uint8 *bytes, int n)
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < n; i++)
	{
		appendStringInfoCharMacro(out, digits[bytes[i] >> 4]);
		appendStringInfoCharMacro(out, digits[bytes[i] & 15]);
	}
}

/*
 * The same for every attempt at one request of one run, another for another
 * body: a service that honours it does the work once.  A question that is put
 * again wants another answer, so it has another key even where its body is
 * the same.
 */
static char *
idempotency_header(const Call *call, const ApiWire *wire)
{
	uint8		body[PG_SHA256_DIGEST_LENGTH];
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);
	StringInfoData named;
	StringInfoData out;

	sha256(hash, wire->body.data, wire->body.len, body);
	initStringInfo(&named);
	appendStringInfoString(&named, call->path);
	appendStringInfoChar(&named, '\n');
	if (call->reasked > 0)
		appendStringInfo(&named, "%d\n", call->reasked);
	appendBinaryStringInfo(&named, (char *) body, sizeof(body));
	sha256(hash, named.data, named.len, digest);
	pg_cryptohash_free(hash);

	initStringInfo(&out);
	appendStringInfoString(&out, "Idempotency-Key: ");
	appendStringInfoString(&out, call->run->text);
	appendStringInfoChar(&out, '-');
	append_hex(&out, digest, KEY_BYTES);
	return out.data;
}

/* W3C Trace Context, level 1: version 00, sampled. */
static char *
traceparent_header(const Call *call)
{
	uint64		span = call->span ? call->span->id : ids_span();
	uint8		bytes[8];
	StringInfoData out;

	for (int i = 0; i < 8; i++)
		bytes[i] = (uint8) (span >> (56 - 8 * i));
	initStringInfo(&out);
	appendStringInfoString(&out, "traceparent: 00-");
	appendStringInfoString(&out, call->run->trace_id);
	appendStringInfoChar(&out, '-');
	append_hex(&out, bytes, sizeof(bytes));
	appendStringInfoString(&out, "-01");
	return out.data;
}

/* The headers of the attempt, the run's own among them, ended by NULL. */
const char **
wire_headers(const Call *call, const ApiWire *wire)
{
	const char **headers = palloc((list_length(wire->headers) + 3) *
								  sizeof(char *));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, wire->headers)
		headers[n++] = lfirst(lc);
	headers[n++] = traceparent_header(call);
	headers[n++] = idempotency_header(call, wire);
	headers[n] = NULL;
	return headers;
}
