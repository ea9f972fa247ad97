/*
 * exchange.c
 *	  One HTTP exchange, and how a request becomes libcurl's options.
 *
 * An exchange and its easy handle stay together and are used again: most
 * options are set once, when the handle is made, and only what differs between
 * requests is set for each.  Everything here is malloc'd, because libcurl's
 * callbacks must not raise, and because an exchange outlives the memory
 * contexts of whoever started it.
 *
 * libcurl gets no time-outs for a transfer: they would count the time in which
 * a session does something else.  Whoever waits judges what is late, after
 * http_turn() has read all that had arrived.  The one for connecting is needed
 * to try a host's next address; see lane.c for when it strikes wrongly.
 */
#include "postgres.h"

#include <ctype.h>

#include "base/settings.h"
#include "http/loop.h"
#include "http/network.h"

/*
 * Bytes of an exchange's receive buffer, held while it waits for its answer.
 * libcurl's 16 kB cost 80 MB for 5,000 exchanges.
 */
#define RECEIVE_BUFFER 4096L

/* Through TLS: a record, and a frame of HTTP/2, are 16 kB. */
#define RECEIVE_BUFFER_TLS 16384L

/* Through TLS libcurl keeps an upload buffer as well; this is its least. */
#define UPLOAD_BUFFER 16384L

/* Body from which on libcurl would ask first, and wait a second. */
#define EXPECT_FROM (64 * 1024)

/*
 * libcurl's time for connecting: later than ours, which strikes first, but not
 * so late that a dead address leaves none for the next, which comes at half.
 */
#define LATER_MS 1000L
#define FAR_AWAY_MS (24 * 3600 * 1000L)

/* Exchanges kept for use, beyond those in flight. */
#define IDLE_KEPT 256

/* Of these, how many are looked at for one with the same proxy and ca_file. */
#define IDLE_LOOKED_AT 16

/*
 * Notes what an exchange has failed of, or will have if its result says so.
 * message is cut, anything but printable ASCII replaced; what follows a
 * question mark, where a URL's query would be, is left out.
 */
void
exchange_fault(HttpExchange *exchange, HttpFault fault, const char *message)
{
	size_t		len = 0;

	exchange->fault = fault;
	while (message[len] != '\0' && message[len] != '?' &&
		   len < sizeof(exchange->message) - 1)
	{
		unsigned char c = (unsigned char) message[len];

		exchange->message[len++] = (c >= 0x20 && c < 0x7f) ? c : ' ';
	}
	while (len > 0 && (exchange->message[len - 1] == ' ' ||
					   exchange->message[len - 1] == '.'))
		len--;
	exchange->message[len] = '\0';
}

/* CURLOPT_PREREQFUNCTION: the connection stands; libcurl writes the request next. */
static int
before_request(void *arg, char *remote_ip, char *local_ip, int remote_port,
			   int local_port)
{
	HttpExchange *exchange = arg;

	exchange->connected = true;
	exchange->sent_us = clock_us();
	loop_sending(exchange);
	host_connected(exchange);
	return CURL_PREREQFUNC_OK;
}

/* Setting up */

/* A new exchange with an easy handle; NULL: out of memory. */
static HttpExchange *
exchange_make(void)
{
	HttpExchange *exchange = calloc(1, sizeof(HttpExchange));
	CURL	   *easy = curl_easy_init();
	CURLcode	result = CURLE_OK;

	if (exchange == NULL || easy == NULL)
	{
		curl_easy_cleanup(easy);
		free(exchange);
		return NULL;
	}
	exchange->easy = easy;
	exchange->connect_timeout_us = CLOCK_NEVER;

#define SET(option, value) \
	do { \
		if (result == CURLE_OK) \
			result = curl_easy_setopt(easy, (option), (value)); \
	} while (0)

	SET(CURLOPT_PRIVATE, exchange);
	SET(CURLOPT_SHARE, http_loop.share);
	SET(CURLOPT_ERRORBUFFER, exchange->curl_message);

	/* threads and signals */
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_QUICK_EXIT, 1L);
	SET(CURLOPT_DNS_CACHE_TIMEOUT, -1L);

	/* where it may go, and how */
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_NOPROXY, "");	/* lest no_proxy go around a server's own */
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);

	/*
	 * The system's authorities come as a file and, often, as a folder with the
	 * same in it.  Only without the folder does libcurl keep them in memory; it
	 * takes some 18 ms to read them, for each connection.
	 */
	if (curl_version_info(CURLVERSION_NOW)->cainfo != NULL)
		SET(CURLOPT_CAPATH, NULL);

	SET(CURLOPT_OPENSOCKETFUNCTION, lane_open_socket);
	SET(CURLOPT_OPENSOCKETDATA, exchange);
	SET(CURLOPT_CLOSESOCKETFUNCTION, lane_close_socket);

	/* connections */
	SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_TCP_NODELAY, 1L);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_TCP_KEEPIDLE, 30L);
	SET(CURLOPT_TCP_KEEPINTVL, 15L);
	SET(CURLOPT_BUFFERSIZE, RECEIVE_BUFFER);
	SET(CURLOPT_UPLOAD_BUFFERSIZE, UPLOAD_BUFFER);

	/* request and answer */
	SET(CURLOPT_USERAGENT, "chaincall/" CHAINCALL_VERSION);
	SET(CURLOPT_ACCEPT_ENCODING, "");
	SET(CURLOPT_HTTP09_ALLOWED, 0L);
	SET(CURLOPT_PREREQFUNCTION, before_request);
	SET(CURLOPT_PREREQDATA, exchange);
	SET(CURLOPT_HEADERFUNCTION, answer_header);
	SET(CURLOPT_HEADERDATA, exchange);
	SET(CURLOPT_WRITEFUNCTION, answer_body);
	SET(CURLOPT_WRITEDATA, exchange);
#undef SET

	if (result != CURLE_OK)
	{
		curl_easy_cleanup(easy);
		free(exchange);
		return NULL;
	}
	return exchange;
}

static void
exchange_destroy(HttpExchange *exchange)
{
	curl_easy_cleanup(exchange->easy);
	free(exchange->headers);
	free(exchange->proxy);
	free(exchange->ca_file);
	free(exchange);
}

static bool
same_text(const char *one, const char *other)
{
	if (one == NULL || other == NULL)
		return one == other;
	return strcmp(one, other) == 0;
}

/*
 * Takes an exchange into use: a new one, or one whose easy handle has the proxy
 * and authorities asked for.  NULL: out of memory.
 */
static HttpExchange *
exchange_acquire(const char *proxy, const char *ca_file)
{
	dlist_iter	iter;
	int			looked_at = 0;

	dlist_foreach(iter, &http_loop.idle)
	{
		HttpExchange *exchange = dlist_container(HttpExchange, node, iter.cur);

		if (same_text(exchange->proxy, proxy) &&
			same_text(exchange->ca_file, ca_file))
		{
			dlist_delete(&exchange->node);
			http_loop.nidle--;
			return exchange;
		}
		if (++looked_at == IDLE_LOOKED_AT)
			break;
	}
	return exchange_make();
}

/* Memory of answer and request goes; the rest waits for the next request. */
void
exchange_release(HttpExchange *exchange)
{
	free(exchange->body);
	exchange->body = NULL;
	http_loop.body_bytes -= exchange->body_room;
	exchange->received = 0;
	exchange->body_room = 0;
	exchange->host->exchanges--;
	exchange->host = NULL;
	http_loop.nexchanges--;

	/* of one that could not be set up nobody knows what is set */
	if (exchange->fault == HTTP_BAD_REQUEST ||
		exchange->fault == HTTP_NO_RESOURCE)
	{
		exchange_destroy(exchange);
		return;
	}
	exchange->state = EXCHANGE_IDLE;
	dlist_push_head(&http_loop.idle, &exchange->node);
	http_loop.nidle++;

	while (http_loop.nidle > IDLE_KEPT + http_loop.nexchanges)
	{
		dlist_node *node = dlist_tail_node(&http_loop.idle);

		dlist_delete(node);
		http_loop.nidle--;
		exchange_destroy(dlist_container(HttpExchange, node, node));
	}
}

/* Is it a token (RFC 9110, 5.6.2)? */
static bool
method_valid(const char *method)
{
	const char *c = method;

	while (isalnum((unsigned char) *c) || (*c != '\0' && strchr("!#$%&'*+-.^_`|~", *c)))
		c++;
	return c != method && *c == '\0';
}

static CURLcode
set_method(HttpExchange *exchange, const HttpRequest *request)
{
	CURL	   *easy = exchange->easy;
	bool		posts = request->body != NULL ||
		strcmp(request->method, "POST") == 0;
	bool		head = !posts && strcmp(request->method, "HEAD") == 0;
	bool		custom;
	CURLcode	result = CURLE_OK;

	/* after these libcurl expects no body where none comes */
	if (head || exchange->head)
		result = curl_easy_setopt(easy, CURLOPT_NOBODY, head ? 1L : 0L);
	exchange->head = head;

	if (posts)
	{
		if (result == CURLE_OK)
			result = curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
									  (curl_off_t) exchange->body_len);
		if (result == CURLE_OK)
			result = curl_easy_setopt(easy, CURLOPT_POSTFIELDS,
									  request->body ? request->body : "");
		custom = strcmp(request->method, "POST") != 0;
	}
	else
	{
		if (result == CURLE_OK && !head)
			result = curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
		custom = !head && strcmp(request->method, "GET") != 0;
	}

	if (result == CURLE_OK && (custom || exchange->custom_method))
		result = curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST,
								  custom ? request->method : NULL);
	exchange->custom_method = custom;
	return result;
}

/*
 * Copies the headers into one block, as libcurl's list.  False, with the
 * fault noted, if one holds a line break or memory is out.
 */
static bool
copy_headers(HttpExchange *exchange, const HttpRequest *request)
{
	static const char *const none[] = {NULL};
	const char *const *headers = request->headers ? request->headers : none;
	bool		no_expect = exchange->body_len >= EXPECT_FROM;
	size_t		count = 0;
	size_t		bytes = 0;
	struct curl_slist *list;
	char	   *text;

	for (; headers[count] != NULL; count++)
		bytes += strlen(headers[count]) + 1;
	if (no_expect)
		bytes += sizeof("Expect:");
	bytes += (count + 1) * sizeof(struct curl_slist);

	if (bytes > exchange->header_room)
	{
		free(exchange->headers);
		exchange->header_room = 0;
		exchange->headers = malloc(bytes);
		if (exchange->headers == NULL)
		{
			exchange_fault(exchange, HTTP_NO_RESOURCE, "out of memory");
			return false;
		}
		exchange->header_room = bytes;
	}

	list = exchange->headers;
	text = (char *) (list + count + 1);
	for (size_t i = 0; i < count + no_expect; i++)
	{
		const char *header = (i < count) ? headers[i] : "Expect:";
		size_t		len = strlen(header);

		if (strpbrk(header, "\r\n") != NULL)
		{
			exchange_fault(exchange, HTTP_BAD_REQUEST,
						   "a header of the request holds a line break");
			return false;
		}
		memcpy(text, header, len + 1);
		list[i].data = text;
		list[i].next = &list[i + 1];
		text += len + 1;
	}
	if (count + no_expect > 0)
		list[count + no_expect - 1].next = NULL;

	curl_easy_setopt(exchange->easy, CURLOPT_HTTPHEADER,
					 (count + no_expect > 0) ? list : NULL);
	return true;
}

/* Sets proxy and authorities of a handle that has none. */
static CURLcode
set_way(HttpExchange *exchange, const HttpRequest *request)
{
	CURLcode	result = CURLE_OK;

	if (request->proxy != NULL && exchange->proxy == NULL)
	{
		exchange->proxy = strdup(request->proxy);
		if (exchange->proxy == NULL)
			return CURLE_OUT_OF_MEMORY;
		result = curl_easy_setopt(exchange->easy, CURLOPT_PROXY,
								  request->proxy);
	}
	if (result == CURLE_OK &&
		request->ca_file != NULL && exchange->ca_file == NULL)
	{
		exchange->ca_file = strdup(request->ca_file);
		if (exchange->ca_file == NULL)
			return CURLE_OUT_OF_MEMORY;
		result = curl_easy_setopt(exchange->easy, CURLOPT_CAINFO,
								  request->ca_file);
		/* only these authorities, not the system's as well */
		if (result == CURLE_OK)
			result = curl_easy_setopt(exchange->easy, CURLOPT_CAPATH, NULL);
	}
	return result;
}

static CURLcode
set_connection(HttpExchange *exchange, const HttpRequest *request)
{
	const Host *host = exchange->host;
	int64		timeout_us = (request->connect_timeout_ms > 0) ?
		request->connect_timeout_ms * INT64CONST(1000) : CLOCK_NEVER;
	CURLcode	result = CURLE_OK;

	if (host->https != exchange->https)
	{
		result = curl_easy_setopt(exchange->easy, CURLOPT_HTTP_VERSION,
								  host->https ? (long) CURL_HTTP_VERSION_2TLS :
								  (long) CURL_HTTP_VERSION_1_1);
		if (result == CURLE_OK)
			result = curl_easy_setopt(exchange->easy, CURLOPT_BUFFERSIZE,
									  host->https ? RECEIVE_BUFFER_TLS :
									  RECEIVE_BUFFER);
		exchange->https = host->https;
	}
	if (result == CURLE_OK && timeout_us != exchange->connect_timeout_us)
	{
		result = curl_easy_setopt(exchange->easy, CURLOPT_CONNECTTIMEOUT_MS,
								  timeout_us == CLOCK_NEVER ? FAR_AWAY_MS :
								  request->connect_timeout_ms + LATER_MS);
		exchange->connect_timeout_us = timeout_us;
	}
	return result;
}

static bool
way_allowed(HttpExchange *exchange, const HttpRequest *request)
{
	const Host *host = exchange->host;

	if (request->proxy == NULL)
		return true;
	if (pg_strncasecmp(request->proxy, "http://", 7) != 0 &&
		pg_strncasecmp(request->proxy, "https://", 8) != 0)
	{
		exchange_fault(exchange, HTTP_BAD_REQUEST,
					   "proxy is neither http:// nor https://");
		return false;
	}
	if (host->literal &&
		network_refused((const struct sockaddr *) &host->address,
						setting_allowed_networks))
	{
		exchange_fault(exchange, HTTP_REFUSED_ADDRESS,
					   "address is link-local or a metadata service");
		return false;
	}
	return true;
}

/* Sets the easy handle for request; false, with the fault noted, if not so. */
static bool
exchange_set(HttpExchange *exchange, const HttpRequest *request)
{
	CURLcode	result;

	if (!way_allowed(exchange, request))
		return false;
	if (!method_valid(request->method))
	{
		exchange_fault(exchange, HTTP_BAD_REQUEST, "method is not a token");
		return false;
	}
	if (!copy_headers(exchange, request))
		return false;

	result = curl_easy_setopt(exchange->easy, CURLOPT_URL, request->url);
	if (result == CURLE_OK)
		result = curl_easy_setopt(exchange->easy, CURLOPT_MAXFILESIZE_LARGE,
								  (curl_off_t) exchange->max_answer);
	if (result == CURLE_OK)
		result = set_method(exchange, request);
	if (result == CURLE_OK)
		result = set_way(exchange, request);
	if (result == CURLE_OK)
		result = set_connection(exchange, request);
	if (result == CURLE_OK)
		return true;

	exchange_fault(exchange, result == CURLE_OUT_OF_MEMORY ?
				   HTTP_NO_RESOURCE : HTTP_BAD_REQUEST,
				   curl_easy_strerror(result));
	return false;
}

/*
 * Starts an exchange; its request leaves with the next http_turn() or
 * http_settle().  done is called once, from http_turn(), with arg, unless
 * http_cancel() comes first; a request that cannot be sent is told that way
 * too.  The result is good until done returns or http_cancel() is called.
 *
 * Raises out_of_memory, and when the process's loop cannot be made
 * insufficient_resources or feature_not_supported.  Needs no transaction and
 * no memory context.
 */
HttpExchange *
http_start(const HttpRequest *request, HttpDone done, void *arg)
{
	HttpExchange *exchange;
	Host	   *host;

	loop_ready();
	loop_attend();
	exchange = exchange_acquire(request->proxy, request->ca_file);
	host = host_find(request->url, request->proxy);
	if (exchange == NULL || host == NULL)
	{
		if (exchange != NULL)
			exchange_destroy(exchange);
		if (host != NULL)
			host->exchanges--;
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Failed while starting a model call.")));
	}

	exchange->done = done;
	exchange->arg = arg;
	exchange->host = host;
	exchange->lane = NULL;
	exchange->socket = CURL_SOCKET_BAD;
	exchange->body_len = (request->body != NULL) ? request->body_len : 0;
	exchange->max_answer = Max(request->max_answer, 1);
	exchange->is_pending = false;
	exchange->leading = false;
	exchange->unled = false;
	exchange->opened = false;
	exchange->connected = false;
	exchange->partial = false;
	exchange->doomed = false;
	exchange->fault = HTTP_OK;
	exchange->http_version = 0;
	exchange->header_bytes = 0;
	exchange->header_ended = false;
	exchange->sent_us = 0;
	exchange->first_byte_us = 0;
	exchange->message[0] = '\0';
	exchange->curl_message[0] = '\0';
	http_loop.nexchanges++;

	if (exchange_set(exchange, request))
		loop_queue(exchange);
	else
		loop_finish(exchange);
	return exchange;
}

/*
 * Has libcurl written the whole request of a connected exchange?  The first
 * time it is asked is right after it began to write: a body that fits into the
 * socket's buffer was sent when it began, any other is when this turns true.
 */
bool
exchange_sent(HttpExchange *exchange)
{
	curl_off_t	written = 0;

	if (exchange->body_len > 0)
		curl_easy_getinfo(exchange->easy, CURLINFO_SIZE_UPLOAD_T, &written);
	if ((size_t) written < exchange->body_len)
	{
		exchange->sent_us = 0;
		return false;
	}
	if (exchange->sent_us == 0)
		exchange->sent_us = clock_us();
	return true;
}
