/*
 * webhook.c
 *	  Tells chaincall.alert_server of alerts.
 *
 * What is to be told is in the table (told_at is null, and nobody has
 * acknowledged it), so nothing is lost with this process: an alert that was
 * told and not yet marked is told twice.  A pass walks what there is from the
 * oldest on, a few requests in the air at a time; no transaction is open
 * meanwhile.
 *
 *		REST ─► the table is asked ─► posts in the air ─► told, marked ─┐
 *		 ▲            ▲ more                                            │
 *		 │            └─────────────────────────────────────────────────┤
 *		 └── nothing is left, or the server has failed: backoff ◄───────┘
 *
 * A server that fails (no connection, no answer, 5xx, 429) ends the pass: the
 * others would fare no better.  What it refuses (other statuses) is only
 * skipped, and comes again in the next pass.
 */
#include "postgres.h"

#include "access/xact.h"
#include "api/api.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/settings.h"
#include "catalog/catalog.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "http/http.h"
#include "miscadmin.h"
#include "policy/backoff.h"
#include "queue/alert.h"
#include "queue/queue.h"
#include "queue/upkeep.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/webhook.h"

#define MOST_POSTS 8			/* in the air */
#define LOOK_US 1000000			/* the table is asked so often */
#define LONGEST_MS 30000		/* for one request; a server's timeout may be less */
#define MAX_ANSWER (64 * 1024)
#define LOGGED_EVERY 20			/* of passes that fail one after the other */

typedef struct Post
{
	pg_uuid_t	alert;
	HttpExchange *exchange;		/* NULL: the entry is free */
	char	   *body;
	int64		deadline_us;
} Post;

static const RetryPolicy policy = {
	.attempts = PG_INT32_MAX, .first_ms = 1000, .factor = 2, .max_ms = 300000
};

static Post posts[MOST_POSTS];
static int	nposts = 0;
static pg_uuid_t told[MOST_POSTS];	/* delivered, not yet marked */
static int	ntold = 0;
static AlertPlace place;		/* how far the pass has come */
static bool at_start = true;
static char *server_name = NULL;	/* whom the pass is for; TopMemoryContext */

static bool server_failed = false;	/* in this pass */
static bool refused = false;	/* it has refused one */
static int64 asks_again_ms = 0; /* its Retry-After */
static char fault[200];			/* what the last one that failed was */
static int	failures = 0;		/* passes that failed, in a row */
static int64 not_before_us = 0;

/* ---- what came of a post ---- */

static void
free_post(Post *post)
{
	pfree(post->body);
	post->exchange = NULL;
	nposts--;
}

/* Will others that are told now fail as well? */
static bool
is_servers_fault(const HttpAnswer *answer)
{
	return answer->fault != HTTP_OK || answer->status >= 500 ||
		answer->status == 408 || answer->status == 425 ||
		answer->status == 429;
}

static void
note_failure(const char *words, bool servers)
{
	strlcpy(fault, words, sizeof(fault));
	if (servers)
		server_failed = true;
	else
		refused = true;
}

/* HttpDone: no transaction is open, and none is begun here. */
static void
post_done(HttpExchange *exchange, const HttpAnswer *answer, void *arg)
{
	Post	   *post = arg;
	int64		unix_ms = (GetCurrentTimestamp() +
						   (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY) / 1000;

	/* how long the answer is does not matter */
	if (answer->status >= 200 && answer->status < 300 &&
		(answer->fault == HTTP_OK || answer->fault == HTTP_TOO_LARGE))
		told[ntold++] = post->alert;
	else if (answer->fault != HTTP_OK)
		note_failure(answer->message ? answer->message : "no answer", true);
	else
	{
		char		words[40];

		snprintf(words, sizeof(words), "it answered %d", answer->status);
		note_failure(words, is_servers_fault(answer));
		if (answer->retry_after != NULL)
			(void) retry_after_ms(answer->retry_after, unix_ms, &asks_again_ms);
	}
	free_post(post);
}

/* Hangs up those that take too long. */
static void
end_late(int64 now_us)
{
	for (int i = 0; i < MOST_POSTS; i++)
	{
		if (posts[i].exchange == NULL || posts[i].deadline_us > now_us)
			continue;
		http_cancel(posts[i].exchange);
		free_post(&posts[i]);
		note_failure("no answer in time", true);
	}
}

static void
hang_up(void)
{
	for (int i = 0; i < MOST_POSTS; i++)
	{
		if (posts[i].exchange == NULL)
			continue;
		http_cancel(posts[i].exchange);
		free_post(&posts[i]);
	}
}

/* ---- posts ---- */

/* {"alert", "job", "kind", "created_at"}: nothing of what a chain works on. */
static Jsonb *
make_body(const UntoldAlert *alert)
{
	JsonbParseState *state = NULL;
	char		time[MAXDATELEN + 1];

	/* the database's owner may have set another DateStyle */
	JsonEncodeDateTime(time, TimestampTzGetDatum(alert->place.created_at),
					   TIMESTAMPTZOID, NULL);
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	json_push_key(&state, "alert");
	json_push(&state, WJB_VALUE, json_text(ids_uuid_text(&alert->place.id)));
	json_push_key(&state, "job");
	json_push(&state, WJB_VALUE, alert->has_job ?
			  json_text(ids_uuid_text(&alert->job)) : json_null());
	json_push_key(&state, "kind");
	json_push(&state, WJB_VALUE, json_text(alert->kind));
	json_push_key(&state, "created_at");
	json_push(&state, WJB_VALUE, json_text(time));
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static Post *
free_entry(void)
{
	for (int i = 0; i < MOST_POSTS; i++)
	{
		if (posts[i].exchange == NULL)
			return &posts[i];
	}
	elog(ERROR, "no room for a request");
	return NULL;
}

static const char **
make_headers(const ApiWire *wire, const UntoldAlert *alert)
{
	const char **headers = palloc((list_length(wire->headers) + 3) * sizeof(char *));
	bool		typed = false;
	int			n = 0;
	ListCell   *lc;

	foreach(lc, wire->headers)
	{
		headers[n++] = lfirst(lc);
		typed = typed || pg_strncasecmp(lfirst(lc), "content-type:", 13) == 0;
	}
	if (!typed)
		headers[n++] = "Content-Type: application/json";
	/* the same however often it is told */
	headers[n++] = psprintf("Idempotency-Key: %s",
							ids_uuid_text(&alert->place.id));
	headers[n] = NULL;
	return headers;
}

static void
start_post(const Route *route, const UntoldAlert *alert)
{
	const ServerInfo *server = &route->server;
	ApiRequest	request = {.form = CALL_INPUT, .kind = "json"};
	ApiWire		wire;
	HttpRequest http = {0};
	Post	   *post = free_entry();

	request.body = make_body(alert);
	initStringInfo(&wire.url);
	initStringInfo(&wire.body);
	wire.headers = NIL;
	api_lookup(server->api)->encode(route, &request, &wire);
	post->body = MemoryContextStrdup(TopMemoryContext, wire.body.data);
	post->alert = alert->place.id;
	post->deadline_us = clock_us() +
		INT64CONST(1000) * Min(LONGEST_MS, server->timeout_ms > 0 ?
							   server->timeout_ms : LONGEST_MS);
	http.method = "POST";
	http.url = wire.url.data;
	http.headers = make_headers(&wire, alert);
	http.body = post->body;
	http.body_len = wire.body.len;
	http.max_answer = MAX_ANSWER;
	http.connect_timeout_ms = Min(server->connect_timeout_ms, LONGEST_MS);
	http.proxy = server->proxy;
	http.ca_file = server->ca_file;
	post->exchange = http_start(&http, post_done, post);
	nposts++;
}

/* ---- passes ---- */

/* The way to the server; raises where there is none.  In a transaction. */
static Route *
find_route(void)
{
	Route	   *route = catalog_server_route(server_name, GetUserId());

	if (strcmp(route->server.api, "http") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("server \"%s\" of chaincall.alert_server has api %s",
						server_name, route->server.api),
				 errhint("Alerts are told to a server with api 'http'.")));
	return route;
}

/* One transaction: marks what was told, reads what is next.  In cxt. */
static List *
next_alerts(int most, Route **route, MemoryContext cxt)
{
	List	   *alerts = NIL;

	queue_begin();
	if (ntold > 0)
		queue_mark_told(told, ntold);
	if (most > 0)
		alerts = queue_untold(at_start ? NULL : &place, most, cxt);
	if (alerts != NIL)
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);

		*route = find_route();
		MemoryContextSwitchTo(old);
	}
	upkeep_commit(false, cxt);
	ntold = 0;
	return alerts;
}

static void
end_pass(int64 now_us)
{
	bool		failed = server_failed || refused;
	int64		wait_ms = 0;

	if (failed)
	{
		failures = Min(failures + 1, 1000);
		wait_ms = backoff_wait_ms(&policy, failures,
								  pg_prng_double(&pg_global_prng_state),
								  asks_again_ms);
		if (failures % LOGGED_EVERY == 1)
			ereport(LOG,
					(errmsg("chaincall: server \"%s\" cannot be told of alerts, and is tried again: %s",
							server_name, fault)));
	}
	else
		failures = 0;
	not_before_us = now_us + Max(wait_ms * 1000, LOOK_US);
	at_start = true;
	server_failed = refused = false;
	asks_again_ms = 0;
}

/* Is there anybody to tell?  A pass for somebody else is given up. */
static bool
take_setting(void)
{
	const char *wanted = setting_alert_server ? setting_alert_server : "";

	if (server_name == NULL || strcmp(server_name, wanted) != 0)
	{
		hang_up();
		if (server_name != NULL)
			pfree(server_name);
		server_name = MemoryContextStrdup(TopMemoryContext, wanted);
		at_start = true;
		server_failed = refused = false;
		failures = 0;
		not_before_us = 0;
	}
	return server_name[0] != '\0';
}

/*
 * Tells some of what there is to tell, and marks what was told.  Returns
 * without waiting; see webhook_due().  Raises where the server's definition is
 * of no use.
 */
bool
webhook_run(void)
{
	MemoryContext cxt = CurrentMemoryContext;
	int64		now = clock_us();
	Route	   *route = NULL;
	List	   *alerts;
	ListCell   *lc;
	int			most;

	if (!take_setting())
		return false;
	end_late(now);
	most = server_failed || now < not_before_us ? 0 :
		Min(MOST_POSTS - nposts, http_capacity());
	if (ntold == 0 && most <= 0)
	{
		if (server_failed && nposts == 0)
			end_pass(now);
		else if (nposts == 0)
			not_before_us = Max(not_before_us, now + LOOK_US);
		return false;
	}
	alerts = next_alerts(most, &route, cxt);
	foreach(lc, alerts)
	{
		UntoldAlert *alert = lfirst(lc);

		start_post(route, alert);
		place = alert->place;
		at_start = false;
	}
	if (nposts == 0 && (server_failed || (most > 0 && alerts == NIL)))
		end_pass(now);
	return false;
}

/* Does it wait for answers?  Then http_turn() is the way to sleep. */
bool
webhook_in_flight(void)
{
	return nposts > 0;
}

/* When webhook_run() has something to do, clock_us(). */
int64
webhook_due(void)
{
	int64		due = not_before_us;

	if (setting_alert_server == NULL || setting_alert_server[0] == '\0')
		return server_name == NULL || server_name[0] == '\0' ? CLOCK_NEVER : 0;
	if (server_name == NULL || strcmp(server_name, setting_alert_server) != 0)
		return 0;
	if (ntold > 0)
		return 0;
	if (nposts == 0)
		return due;
	/* the table is asked for more as they come back */
	due = CLOCK_NEVER;
	for (int i = 0; i < MOST_POSTS; i++)
	{
		if (posts[i].exchange != NULL)
			due = Min(due, posts[i].deadline_us);
	}
	return due;
}
