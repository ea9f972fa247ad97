/*
 * host.c
 *	  What is known of the hosts that exchanges go to, and who finds it out.
 *
 * libcurl starts a thread for each look-up of a name, and opens a connection
 * for each exchange that finds none free.  So of many first exchanges with a
 * host one leads and the others are held:
 *
 * - until the name is looked up, or every one would start a thread of its own
 *   (2,000 first calls: 2,001 threads).  A look-up is good for a minute; the
 *   cache itself keeps it for ever, so that an entry leaves the cache only by
 *   a leader that distrusts it, never under the feet of a thousand others.
 * - with https, until the first connection stands, and then until a second
 *   exchange has shown whether it shares that connection (HTTP/2) or opens
 *   its own.  libcurl does not tell what was negotiated before the first
 *   answer is in, and a model takes seconds.  The price is one handshake more
 *   before a first fan-out to a host that speaks only HTTP/1.1; the gain, for
 *   all others, is one handshake instead of one for each call.
 *
 * Once HTTP/2 is known CURLOPT_PIPEWAIT does the same for later connections.
 * It must not be set before: with HTTP/1.1 it makes libcurl open connections
 * one after the other.
 *
 * host_opened() and host_connected() run inside libcurl's callbacks.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "datatype/timestamp.h"
#include "http/loop.h"
#include "http/network.h"

#define LOOKUP_GOOD_US (60 * USECS_PER_SEC)

/*
 * A leader that found a connection did not look the name up.  The address is
 * alive, so nobody needs to lead again soon.
 */
#define LOOKUP_REUSED_US (5 * USECS_PER_SEC)

/* Hosts that nobody uses are forgotten beyond this number. */
#define HOSTS_KEPT 256

/* Length of "scheme://authority" at the start of a URL. */
static size_t
origin_length(const char *url)
{
	const char *authority = strstr(url, "://");

	authority = (authority != NULL) ? authority + 3 : url;
	return (authority - url) + strcspn(authority, "/?#\\");
}

static bool
ends_with(const char *text, const char *end)
{
	size_t		text_len = strlen(text);
	size_t		end_len = strlen(end);

	return text_len >= end_len &&
		pg_strcasecmp(text + text_len - end_len, end) == 0;
}

/* Does libcurl answer for this name itself (RFC 6761, 6.3)? */
static bool
is_localhost(const char *name)
{
	return pg_strcasecmp(name, "localhost") == 0 ||
		pg_strcasecmp(name, "localhost.") == 0 ||
		ends_with(name, ".localhost") || ends_with(name, ".localhost.");
}

/*
 * Takes scheme and host out of a URL.  What libcurl cannot parse counts as an
 * address: it will say so itself, at once.
 */
static void
inspect_url(const char *url, bool *https, bool *named,
			struct sockaddr_storage *address)
{
	CURLU	   *parsed = curl_url();
	char	   *scheme = NULL;
	char	   *name = NULL;

	*https = false;
	*named = false;
	memset(address, 0, sizeof(*address));
	if (parsed != NULL &&
		curl_url_set(parsed, CURLUPART_URL, url, CURLU_GUESS_SCHEME) == CURLUE_OK &&
		curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
		curl_url_get(parsed, CURLUPART_HOST, &name, 0) == CURLUE_OK)
	{
		*https = (pg_strcasecmp(scheme, "https") == 0);
		*named = !network_literal(name, address) && !is_localhost(name);
	}
	curl_free(scheme);
	curl_free(name);
	curl_url_cleanup(parsed);
}

static void
host_inspect(Host *host, const char *url, const char *proxy)
{
	struct sockaddr_storage address;
	bool		proxy_https;

	inspect_url(url, &host->https, &host->named, &host->address);
	if (proxy != NULL)
	{
		/* the address is the proxy's to look up, unless it is written out */
		host->literal = (host->address.ss_family != 0);
		inspect_url(proxy, &proxy_https, &host->named, &address);
	}
}

static void
forget_unused_hosts(void)
{
	for (int i = 0; i < HOST_BUCKETS; i++)
	{
		dlist_mutable_iter iter;

		dlist_foreach_modify(iter, &http_loop.hosts[i])
		{
			Host	   *host = dlist_container(Host, node, iter.cur);

			if (host->exchanges == 0)
			{
				dlist_delete(&host->node);
				free(host);
				http_loop.nhosts--;
			}
		}
	}
}

/*
 * The host that url is at, reached by proxy (NULL: directly); it counts one
 * exchange more.  NULL: out of memory.
 */
Host *
host_find(const char *url, const char *proxy)
{
	size_t		origin_len = origin_length(url);
	size_t		proxy_len = (proxy != NULL) ? strlen(proxy) : 0;
	uint32		hash;
	dlist_head *bucket;
	dlist_iter	iter;
	Host	   *host;

	hash = hash_bytes((const unsigned char *) url, (int) origin_len);
	bucket = &http_loop.hosts[hash % HOST_BUCKETS];
	dlist_foreach(iter, bucket)
	{
		host = dlist_container(Host, node, iter.cur);
		if (strncmp(host->key, url, origin_len) == 0 &&
			host->key[origin_len] == '\n' &&
			strcmp(host->key + origin_len + 1, proxy ? proxy : "") == 0)
		{
			host->exchanges++;
			return host;
		}
	}

	if (http_loop.nhosts >= HOSTS_KEPT)
		forget_unused_hosts();

	host = calloc(1, offsetof(Host, key) + origin_len + proxy_len + 2);
	if (host == NULL)
		return NULL;
	memcpy(host->key, url, origin_len);
	host->key[origin_len] = '\n';
	if (proxy_len > 0)
		memcpy(host->key + origin_len + 1, proxy, proxy_len);
	dlist_init(&host->held);
	host_inspect(host, url, proxy);
	dlist_push_head(bucket, &host->node);
	http_loop.nhosts++;
	host->exchanges = 1;
	return host;
}

static bool
lookup_wanted(const Host *host)
{
	return host->named && clock_us() >= host->fresh_until_us;
}

static bool
protocol_wanted(const Host *host)
{
	return host->https && host->protocol == PROTOCOL_UNKNOWN;
}

/* From here on the exchange believes the cache of look-ups. */
static void
trust_cache(HttpExchange *exchange)
{
	if (exchange->looks_up)
	{
		curl_easy_setopt(exchange->easy, CURLOPT_DNS_CACHE_TIMEOUT, -1L);
		curl_easy_setopt(exchange->easy, CURLOPT_FRESH_CONNECT, 0L);
		exchange->looks_up = false;
	}
}

/* Sends those held back to the head of the queue, in their order. */
static void
release_held(Host *host, bool unled)
{
	while (!dlist_is_empty(&host->held))
	{
		dlist_node *node = dlist_tail_node(&host->held);
		HttpExchange *exchange = dlist_container(HttpExchange, node, node);

		dlist_delete(node);
		exchange->unled |= unled;
		exchange->state = EXCHANGE_QUEUED;
		dlist_push_head(&http_loop.queue, node);
	}
}

static void
stop_leading(HttpExchange *exchange)
{
	Assert(exchange->host->leader == exchange);
	exchange->host->leader = NULL;
	exchange->leading = false;
}

/*
 * May a queued exchange start now?  If not, the caller puts it into the
 * host's list `held`.  One that may is perhaps made the leader.
 */
bool
host_admit(HttpExchange *exchange)
{
	Host	   *host = exchange->host;

	if (exchange->unled)
		return true;
	if (host->leader != NULL)
		return false;

	if (lookup_wanted(host))
	{
		/*
		 * The shortest time but 0, which would have the entry leave the cache
		 * as soon as it came.
		 */
		curl_easy_setopt(exchange->easy, CURLOPT_DNS_CACHE_TIMEOUT, 1L);
		curl_easy_setopt(exchange->easy, CURLOPT_FRESH_CONNECT,
						 host->stale ? 1L : 0L);
		exchange->looks_up = true;
		exchange->leading = true;
	}
	if (protocol_wanted(host))
		exchange->leading = true;
	if (exchange->leading)
		host->leader = exchange;
	return true;
}

/* Is exchange in a position to meet the connection of the pioneer? */
static bool
beside_pioneer(const HttpExchange *exchange)
{
	const Host *host = exchange->host;

	return host->pioneer != NULL && host->pioneer != exchange &&
		host->pioneer->lane == exchange->lane;
}

/* Somebody opens a connection to an address that was looked up long ago. */
static void
notice_stale(Host *host)
{
	if (host->named && !host->stale &&
		clock_us() - host->looked_up_us > LOOKUP_GOOD_US)
	{
		host->stale = true;
		host->fresh_until_us = 0;
	}
}

/* A socket is being opened for an exchange: its name is looked up. */
void
host_opened(HttpExchange *exchange)
{
	Host	   *host = exchange->host;

	if (exchange->looks_up)
	{
		trust_cache(exchange);
		host->looked_up_us = clock_us();
		host->fresh_until_us = host->looked_up_us + LOOKUP_GOOD_US;
		host->stale = false;
	}
	else
		notice_stale(host);
	if (!exchange->leading)
		return;
	if (protocol_wanted(host) && beside_pioneer(exchange))
		host->protocol = PROTOCOL_ONE;
	if (!protocol_wanted(host))
	{
		stop_leading(exchange);
		release_held(host, false);
	}
}

/* A leader has a connection, of its own or another's. */
void
host_connected(HttpExchange *exchange)
{
	Host	   *host = exchange->host;

	if (!exchange->leading)
		return;
	if (exchange->looks_up)
	{
		trust_cache(exchange);
		host->fresh_until_us = clock_us() + LOOKUP_REUSED_US;
	}
	if (protocol_wanted(host))
	{
		if (exchange->opened)
			host->pioneer = exchange;
		else if (beside_pioneer(exchange))
			host->protocol = PROTOCOL_TWO;
	}
	stop_leading(exchange);
	release_held(host, false);
}

/* A leader's distrust has emptied the cache: everybody looks up anew. */
static void
forget_lookups(void)
{
	for (int i = 0; i < HOST_BUCKETS; i++)
	{
		dlist_iter	iter;

		dlist_foreach(iter, &http_loop.hosts[i])
			dlist_container(Host, node, iter.cur)->fresh_until_us = 0;
	}
}

/* Those held for a look-up fail with it. */
static void
fail_held(Host *host, const HttpExchange *leader)
{
	while (!dlist_is_empty(&host->held))
	{
		dlist_node *node = dlist_pop_head_node(&host->held);
		HttpExchange *exchange = dlist_container(HttpExchange, node, node);

		exchange_fault(exchange, leader->fault, leader->message);
		loop_finish(exchange);
	}
}

/*
 * A running exchange has left its lane, concluded or (cancelled) not.  Called
 * outside libcurl.
 */
void
host_left(HttpExchange *exchange, bool cancelled)
{
	Host	   *host = exchange->host;
	bool		looked_up = !exchange->looks_up;

	if (host->pioneer == exchange)
		host->pioneer = NULL;
	if (!cancelled && host->https && exchange->http_version > 0)
		host->protocol = (exchange->http_version >= 20) ?
			PROTOCOL_TWO : PROTOCOL_ONE;

	if (!looked_up)
	{
		trust_cache(exchange);
		forget_lookups();
	}
	if (exchange->leading)
	{
		stop_leading(exchange);
		if (!cancelled && exchange->fault == HTTP_RESOLVE)
			fail_held(host, exchange);
		else
		{
			/*
			 * If the name is known and yet the leader failed, the others need
			 * not fail one after the other.
			 */
			release_held(host, looked_up && !cancelled);
		}
	}
}
