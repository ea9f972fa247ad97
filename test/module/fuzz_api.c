/*
 * fuzz_api.c
 *	  Answers of every provider, mutated, into every decoder.
 *
 * A decoder must never raise and never crash, and what it returns must be
 * whole: a class without an error has an output, any other has a message that
 * the database can hold.  A fault is an ERROR with the seed that shows it.
 */
#include "postgres.h"

#include "api/api.h"
#include "base/json.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "test_api.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(chaincall_test_fuzz_api);

#define KEY "sk-fuzz-1"

static const char *const specs[] = {
	"{\"api\": \"openai\", \"key\": \"" KEY "\", \"messages\": []}",
	"{\"api\": \"openai\", \"key\": \"" KEY "\", \"messages\": [], \"schema\": {\"type\": \"object\"}, \"params\": {\"max_tokens\": 3}}",
	"{\"api\": \"openai\", \"key\": \"" KEY "\", \"form\": \"input\", \"kind\": \"embedding\", \"body\": [\"a\", \"b\"]}",
	"{\"api\": \"openai\", \"key\": \"" KEY "\", \"form\": \"input\", \"kind\": \"embedding\", \"body\": \"a\"}",
	"{\"api\": \"openai\", \"key\": \"" KEY "\", \"form\": \"input\", \"kind\": \"rerank\", \"body\": {\"query\": \"q\", \"documents\": [\"a\", \"b\"]}}",
	"{\"api\": \"openai\", \"key\": \"" KEY "\", \"form\": \"request\", \"body\": {}}",
	"{\"api\": \"anthropic\", \"key\": \"" KEY "\", \"messages\": []}",
	"{\"api\": \"anthropic\", \"key\": \"" KEY "\", \"messages\": [], \"schema\": {\"type\": \"object\"}}",
	"{\"api\": \"http\", \"key\": \"" KEY "\", \"form\": \"input\", \"kind\": \"json\", \"body\": {}, \"answer\": \"$.data[*] ? (@.index < 2).embedding\"}",
	"{\"api\": \"http\", \"key\": \"" KEY "\", \"form\": \"input\", \"kind\": \"embedding\", \"body\": [\"a\"], \"answer\": \"$.data[*].index.datetime() < \\\"2020-01-01 00:00:00+01\\\".datetime()\"}",
	"{\"api\": \"http\", \"key\": \"" KEY "\", \"messages\": [], \"schema\": {}, \"answer\": \"lax $.content.text\"}"
};

/* Answers, and which of the requests above each could be an answer to. */
static const struct
{
	int			spec;
	const char *text;
}			bodies[] =
{
	{0, "{\"id\":\"c1\",\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hello \\u00e9\\ud83d\\ude00\",\"refusal\":null},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}"},
	{1, "{\"choices\":[{\"message\":{\"content\":\"```json\\n{\\\"a\\\": [1, 2]}\\n```\"},\"finish_reason\":\"stop\"}]}"},
	{0, "{\"choices\":[{\"message\":{\"content\":[{\"type\":\"thinking\",\"thinking\":[]},{\"type\":\"text\",\"text\":\"x\"}]},\"finish_reason\":\"length\"}]}"},
	{0, "{\"choices\":[{\"message\":{\"content\":null,\"refusal\":\"No. " KEY "\"},\"finish_reason\":\"content_filter\"}]}"},
	{2, "{\"object\":\"list\",\"data\":[{\"index\":1,\"embedding\":[0.5,-1e-3]},{\"index\":0,\"embedding\":[1,2]}],\"usage\":{\"prompt_tokens\":5,\"total_tokens\":5}}"},
	{4, "{\"results\":[{\"index\":1,\"relevance_score\":0.9},{\"index\":0,\"relevance_score\":0.1}]}"},
	{6, "{\"type\":\"message\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\"},{\"type\":\"text\",\"text\":\"<think>x</think>{}\"}],\"stop_reason\":\"end_turn\",\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}"},
	{7, "{\"type\":\"message\",\"content\":[{\"type\":\"tool_use\",\"name\":\"answer\",\"input\":{\"a\":1}}],\"stop_reason\":\"max_tokens\",\"usage\":{\"output_tokens\":4}}"},
	{6, "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded " KEY "\"}}"},
	{5, "{\"error\":\"" KEY "\"}"},
	{0, "{\"error\":{\"message\":\"bad\",\"code\":\"content_filter\"}}"},
	{0, "{\"detail\":[{\"loc\":[\"body\"],\"msg\":\"field required\"}]}"},
	{8, "[{\"error\":{\"code\":400,\"message\":\"m\"}}]"},
	{0, "<!DOCTYPE html><html><head><title>502</title><style>p{}</style></head><body>Bad <b>gateway</b> " KEY "</body></html>"},
	{10, "\"just a text\""},
	{5, "null"},
	{8, "[]"},
	{10, "{}"},
	{0, ""},
	{0, "data: {\"choices\":[]}\n\n"}
};

/* Pieces that mutations put in. */
static const char *const pieces[] = {
	"null", "[]", "{}", "\"\"", "-1", "1e400", "99999999999999999999", "1e9999",
	"\\u0000", "\\ud800", "\"index\"", "\"message\"", "\"content\"", "\"error\"",
	"[[[[[[[[", "}}}}}}", "\xff\xfe", "\xe2\x82", "<script>", "```", "true", ",", ":", "\"", "\\"
};

static const int statuses[] = {
	200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200,
	200, 200, 200, 200, 200, 200, 200, 200, 201, 204, 302, 400, 401, 429, 500, 503, 529, 0, 100, 999
};

/* xorshift64*: the same run for the same seed, everywhere. */
static uint64
next_random(uint64 *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64CONST(2685821657736338717);
}

static int
below(uint64 *state, int n)
{
	return (int) (next_random(state) % (uint64) n);
}

static void
insert_at(StringInfo buf, int at, const char *text, int len)
{
	enlargeStringInfo(buf, len);
	memmove(buf->data + at + len, buf->data + at, buf->len - at + 1);
	memcpy(buf->data + at, text, len);
	buf->len += len;
}

static void
remove_at(StringInfo buf, int at, int len)
{
	memmove(buf->data + at, buf->data + at + len, buf->len - at - len + 1);
	buf->len -= len;
}

static void
mutate(StringInfo buf, uint64 *random)
{
	int			at = below(random, buf->len + 1);
	const char *piece = pieces[below(random, lengthof(pieces))];
	int			len;

	switch (below(random, 6))
	{
		case 0:
			insert_at(buf, at, piece, strlen(piece));
			break;
		case 1:
			if (at < buf->len)
				buf->data[at] = (char) below(random, 256);
			break;
		case 2:
			len = below(random, 20);
			len = Min(len, buf->len - at);
			remove_at(buf, at, len);
			break;
		case 3:
			remove_at(buf, at, buf->len - at);
			break;
		case 4:
			/* something in place of what stands between two commas or colons */
			len = (int) strcspn(buf->data + at, ",:}]");
			len = Min(len, buf->len - at);
			remove_at(buf, at, len);
			insert_at(buf, at, piece, strlen(piece));
			break;
		default:
			len = below(random, 40);
			len = Min(len, buf->len - at);
			piece = pnstrdup(buf->data + at, len);
			insert_at(buf, at, piece, strlen(piece));
	}
}

static void
check(const ApiAnswer *answer, uint64 seed)
{
	if (answer->cls == CLASS_NONE ? answer->output == NULL
		: answer->message == NULL || answer->message[0] == '\0' ||
		(answer->output != NULL && answer->cls != CLASS_INVALID))
		elog(ERROR, "seed " UINT64_FORMAT ": an answer that is neither whole nor a failure",
			 seed);
	if (answer->output != NULL)
	{
		StringInfoData text;

		initStringInfo(&text);
		json_append(&text, answer->output);
	}
	if (answer->cls == CLASS_NONE)
		return;
	if (strstr(answer->message, KEY) != NULL)
		elog(ERROR, "seed " UINT64_FORMAT ": a message holds the key", seed);
	if (!pg_verifymbstr(answer->message, strlen(answer->message), true) ||
		pg_mbstrlen(answer->message) > 900)
		elog(ERROR, "seed " UINT64_FORMAT ": a message that cannot be shown",
			 seed);
}

/* A decoder that raises: the error, with the seed that shows it. */
static void
decode(const Route *route, const ApiRequest *request, int status,
	   const char *content_type, const StringInfo body, ApiAnswer *answer,
	   uint64 seed)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		api_lookup(route->server.api)->decode(route, request, status,
											  content_type, body->data,
											  body->len, answer);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		elog(ERROR, "seed " UINT64_FORMAT ": a decoder raised \"%s\"", seed,
			 error->message);
	}
	PG_END_TRY();
}

/* One mutated answer; whether it was taken for an answer. */
static bool
fuzz_one(uint64 seed)
{
	uint64		random = seed * UINT64CONST(0x9E3779B97F4A7C15) + 1;
	Route		route;
	ApiRequest	request;
	ApiAnswer	answer;
	StringInfoData body;
	int			answered;
	int			spec;
	int			times;

	answered = below(&random, lengthof(bodies));
	spec = below(&random, 4) ? bodies[answered].spec
		: below(&random, lengthof(specs));
	test_api_read_spec(json_parse(specs[spec]), &route, &request);
	initStringInfo(&body);
	appendStringInfoString(&body, bodies[answered].text);
	times = below(&random, 5);
	for (int i = 0; i < times; i++)
		mutate(&body, &random);
	decode(&route, &request, statuses[below(&random, lengthof(statuses))],
		   below(&random, 2) ? "text/html" : NULL, &body, &answer, seed);
	check(&answer, seed);
	return answer.cls == CLASS_NONE;
}

/*
 * Decodes n mutated answers; returns how many were taken for an answer.  What
 * a message calls a seed is 1000000 times the argument plus the input's number.
 */
Datum
chaincall_test_fuzz_api(PG_FUNCTION_ARGS)
{
	uint64		first = (uint64) PG_GETARG_INT64(0);
	int			n = PG_GETARG_INT32(1);
	int64		taken = 0;
	MemoryContext old = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(old, "fuzz",
												  ALLOCSET_DEFAULT_SIZES);

	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(scratch);
		taken += fuzz_one(first * 1000000 + i);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	PG_RETURN_INT64(taken);
}
