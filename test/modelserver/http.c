/*
 * http.c: requests in, replies out, on libmicrohttpd.
 *
 * One daemon in epoll mode without a thread of its own; loop.c turns it. A
 * request goes: headers → body → decide (which model, which fault) → maybe
 * wait → reply. The model `fixed` without any fault takes a short way: one
 * response object, made once, is queued for every such request.
 */
#include "server.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define MAX_BODY (64 * 1024 * 1024)
#define DRIP_MS	 100

static Request *free_requests;

static Request *
request_new(struct MHD_Connection *connection)
{
	Request    *r = free_requests;

	if (r)
		free_requests = r->next_free;
	else
		r = mem_alloc(sizeof(Request));
	r->connection = connection;
	r->heap_at = -1;
	r->fault.times = r->fault.percent = -1;
	return r;
}

/* Ready for the next request; the buffers' memory is kept. */
static void
request_free(Request *r)
{
	Buf			body = r->body;
	Buf			reply = r->reply.body;

	json_decref(r->json);
	buf_reset(&body);
	buf_reset(&reply);
	memset(r, 0, sizeof(*r));
	r->body = body;
	r->reply.body = reply;
	r->next_free = free_requests;
	free_requests = r;
}

/* An id such as "chatcmpl-00000000000000a7", unique in this process. */
void
reply_id(Buf *out, const char *prefix)
{
	static uint64_t last;

	buf_printf(out, "%s%016llx", prefix, (unsigned long long) ++last);
}

/*
 * Make the reply an error in the form of the request's provider. code is
 * OpenAI's machine-readable code, or NULL.
 */
void
reply_error(Request *r, int status, const char *code, const char *fmt, ...)
{
	char		message[1024];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	buf_reset(&r->reply.body);
	r->reply.status = status;
	r->reply.type = "application/json";
	r->reply.stream = false;
	if (r->endpoint == ENDPOINT_MESSAGES)
		anthropic_error(&r->reply, status, message);
	else
		openai_error(&r->reply, status, code, message);
}

static Endpoint
find_endpoint(const char *url)
{
	static const struct
	{
		const char *path;
		Endpoint	endpoint;
	} paths[] = {
		{"/v1/chat/completions", ENDPOINT_CHAT},
		{"/v1/embeddings", ENDPOINT_EMBEDDINGS},
		{"/v1/images/generations", ENDPOINT_IMAGES},
		{"/v1/messages", ENDPOINT_MESSAGES},
		{"/json", ENDPOINT_JSON}};

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		if (strcmp(url, paths[i].path) == 0)
			return paths[i].endpoint;
	return ENDPOINT_NONE;
}

static const char *
header(Request *r, const char *name)
{
	return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

static const char *
argument(Request *r, const char *name)
{
	return MHD_lookup_connection_value(r->connection, MHD_GET_ARGUMENT_KIND, name);
}

static bool
key_fits(Request *r)
{
	const char *bearer = header(r, "Authorization");
	const char *key = header(r, "x-api-key");

	if (options.api_key == NULL)
		return true;
	if (r->endpoint != ENDPOINT_MESSAGES && bearer && strncasecmp(bearer, "Bearer ", 7) == 0)
		return strcmp(bearer + 7, options.api_key) == 0;
	return key && r->endpoint != ENDPOINT_CHAT && strcmp(key, options.api_key) == 0;
}

/* The body as JSON; numbers too big for an integer become reals. */
static bool
parse_body(Request *r)
{
	json_error_t error;

	r->json = json_loadb(r->body.data ? r->body.data : "", r->body.len, 0, &error);
	if (r->json == NULL && json_error_code(&error) == json_error_numeric_overflow)
		r->json = json_loadb(r->body.data, r->body.len, JSON_DECODE_INT_AS_REAL, &error);
	if (r->json != NULL && json_is_object(r->json))
		return true;
	reply_error(r, 400, NULL, "We could not parse the JSON body of your request: %s",
				r->json ? "it is not an object" : error.text);
	return false;
}

/* Which model and which fault; false when the reply is already made. */
static bool
parse_model_and_fault(Request *r)
{
	const json_t *model = json_object_get(r->json, "model");
	const json_t *body_fault = json_object_get(r->json, "fault");
	const char *header_fault = header(r, "X-Fault");
	Buf			error = {0};
	bool		ok = true;

	if (json_is_string(model))
	{
		const char *name = json_string_value(model);
		const char *query = strchr(name, '?');
		size_t		len = query ? (size_t) (query - name) : strlen(name);

		r->model_name = name;
		r->model = model_find(name, len, &r->wait_ms);
		if (query)
			ok = fault_parse(&r->fault, query + 1, strlen(query + 1), &error);
	}
	if (ok && body_fault)
		ok = fault_parse_json(&r->fault, body_fault, &error);
	if (ok && header_fault)
		ok = fault_parse(&r->fault, header_fault, strlen(header_fault), &error);
	if (r->model_name)
		count_model(r->model);
	if (!ok)
	{
		r->fault.active = false;
		reply_error(r, 400, "bad_fault", "%s", error.data);
	}
	else if (r->endpoint != ENDPOINT_JSON && !json_is_string(model))
	{
		ok = false;
		reply_error(r, 400, NULL, "you must provide a model parameter");
	}
	buf_free(&error);
	return ok;
}

static void
answer_by_endpoint(Request *r)
{
	r->reply.status = 200;
	r->reply.type = "application/json";
	switch (r->endpoint)
	{
		case ENDPOINT_CHAT:
			openai_chat(r);
			break;
		case ENDPOINT_EMBEDDINGS:
			openai_embeddings(r);
			break;
		case ENDPOINT_IMAGES:
			openai_images(r);
			break;
		case ENDPOINT_MESSAGES:
			anthropic_messages(r);
			break;
		default:
			service_json(r);
	}
}

/*
 * Everything that is known once the body is in: the reply, unless the fault
 * wants another one, or none.
 */
static void
decide(Request *r, const char *method, const char *url)
{
	Fault	   *f = &r->fault;
	bool		parsed;

	r->decided = true;
	r->idempotency_key = header(r, "Idempotency-Key");
	parsed = !r->too_large && parse_body(r);
	count_start(r, method, url);
	if (r->too_large)
		reply_error(r, 413, NULL, "the request is larger than %d bytes", MAX_BODY);
	else if (!key_fits(r))
		reply_error(r, 401, "invalid_api_key", "Incorrect API key provided");
	if (!parsed || r->reply.status != 0 || !parse_model_and_fault(r))
		return;
	if (r->endpoint != ENDPOINT_JSON && r->model == MODEL_UNKNOWN)
	{
		reply_error(r, 404, "model_not_found", "The model `%.200s` does not exist or you do not have access to it.",
					r->model_name);
		return;
	}
	fault_decide(r);
	r->wait_ms += f->delay_ms;
	if (f->redirect[0])
	{
		reply_error(r, f->status ? f->status : 302, NULL, "moved to %s", f->redirect);
		return;
	}
	if (f->status >= 400)
		reply_error(r, f->status, NULL, "%s", f->message[0] ? f->message : "This error was asked for.");
	else if (!(r->endpoint == ENDPOINT_CHAT && openai_fixed(r)))
		answer_by_endpoint(r);
	if (f->status != 0 && r->reply.status == 200)
		r->reply.status = f->status;
	fault_break(r);
}

/*
 * Close the client's connection by a reset instead of an orderly end: on Linux,
 * dissolving a TCP association sends RST at once.
 */
static void
reset_connection(Request *r)
{
	int			fd = MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
	struct sockaddr none = {.sa_family = AF_UNSPEC};

	connect(fd, &none, sizeof(none));
}

/* Copy bytes from..from+n of the body with its padding in place. */
static void
copy_padded(const Reply *reply, size_t from, char *to, size_t n)
{
	const char *body = reply->body.data;

	while (n > 0)
	{
		size_t		some;

		if (from < reply->pad_at)
		{
			some = reply->pad_at - from < n ? reply->pad_at - from : n;
			memcpy(to, body + from, some);
		}
		else if (from < reply->pad_at + reply->pad_len)
		{
			some = reply->pad_at + reply->pad_len - from;
			some = some < n ? some : n;
			for (size_t i = 0; i < some; i++)
				to[i] = (from + i) % 8 == 7 ? ' ' : 'x';
		}
		else
		{
			some = n;
			memcpy(to, body + (from - reply->pad_len), some);
		}
		from += some;
		to += some;
		n -= some;
	}
}

/* How many bytes may go out now: an event of a stream, a drop of a drip, up to the break. */
static size_t
next_piece(const Request *r, size_t total, size_t max)
{
	const Reply *reply = &r->reply;
	size_t		n = total - r->sent;

	if (r->fault.reset == RESET_MID && n > total / 2 - r->sent)
		n = total / 2 - r->sent;
	if (r->fault.drip > 0 && n > (size_t) r->fault.drip)
		n = (size_t) r->fault.drip;
	if (reply->stream && reply->pad_len == 0)
	{
		const char *from = reply->body.data + r->sent;
		const char *event = memmem(from, reply->body.len - r->sent, "\n\n", 2);

		if (event && (size_t) (event + 2 - from) < n)
			n = (size_t) (event + 2 - from);
	}
	return n < max ? n : max;
}

static ssize_t
send_piece(void *cls, uint64_t pos, char *to, size_t max)
{
	Request    *r = cls;
	size_t		total = r->reply.body.len + r->reply.pad_len;
	long		pause = r->fault.drip > 0 ? DRIP_MS : r->reply.stream ? r->fault.pace_ms :
																 0;
	size_t		n;

	(void) pos;
	if (r->gone || (r->fault.reset == RESET_MID && r->sent >= total / 2))
	{
		/*
		 * Not END_WITH_ERROR: in epoll mode libmicrohttpd would then keep the
		 * connection until its socket's next event, which never comes when the
		 * client has gone. A byte that cannot be sent ends it at once.
		 */
		reset_connection(r);
		*to = ' ';
		return 1;
	}
	if (r->sent >= total)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (pause > 0 && r->sent > 0 && !r->paused)
	{
		r->paused = true;
		loop_park(r, pause);
		return 0;
	}
	r->paused = false;
	n = next_piece(r, total, max);
	copy_padded(&r->reply, r->sent, to, n);
	r->sent += n;
	return (ssize_t) n;
}

static enum MHD_Result
send_reply(Request *r)
{
	Reply	   *reply = &r->reply;
	Fault	   *f = &r->fault;
	size_t		total = reply->body.len + reply->pad_len;
	struct MHD_Response *response;
	enum MHD_Result result;

	if (reply->stream || reply->pad_len > 0 || f->drip > 0 || f->reset == RESET_MID)
		response = MHD_create_response_from_callback(reply->stream ? MHD_SIZE_UNKNOWN : total,
													 16 * 1024, send_piece, r, NULL);
	else
		response = MHD_create_response_from_buffer(total, reply->body.data, MHD_RESPMEM_PERSISTENT);
	if (response == NULL)
		return MHD_NO;
	MHD_add_response_header(response, "Content-Type", reply->type);
	if (f->gzip && reply->pad_len == 0)
		MHD_add_response_header(response, "Content-Encoding", "gzip");
	if (f->retry_after[0])
		MHD_add_response_header(response, "Retry-After", f->retry_after);
	if (f->redirect[0])
		MHD_add_response_header(response, "Location", f->redirect);
	if (reply->status == 405)
		MHD_add_response_header(response, "Allow", r->endpoint == ENDPOINT_NONE ? "GET" : "POST");
	result = MHD_queue_response(r->connection, (unsigned int) reply->status, response);
	MHD_destroy_response(response);
	return result;
}

/* The paths that are about the server itself, and those that do not exist. */
static void
answer_about_server(Request *r, const char *method, const char *url)
{
	Buf		   *out = &r->reply.body;
	const char *n = argument(r, "n");

	r->reply.status = 200;
	r->reply.type = "application/json";
	if (r->endpoint != ENDPOINT_NONE)
		reply_error(r, 405, NULL, "Not allowed to %.16s on %.200s (HINT: perhaps you meant to use POST)", method, url);
	else if (strcmp(url, "/reset") == 0 && strcmp(method, "POST") == 0)
	{
		count_reset();
		buf_puts(out, "{}\n");
	}
	else if (strcmp(method, "GET") != 0)
		reply_error(r, strcmp(url, "/stats") == 0 ? 405 : 404, NULL, "Unknown request URL: %.16s %.200s", method, url);
	else if (strcmp(url, "/stats") == 0)
		count_stats(out, argument(r, "key"));
	else if (strcmp(url, "/keys") == 0)
		count_keys(out);
	else if (strcmp(url, "/last") == 0)
		count_last(out, n ? atoi(n) : 0);
	else if (strcmp(url, "/v1/models") == 0)
		openai_models(out);
	else
		reply_error(r, 404, NULL, "Unknown request URL: %.16s %.200s", method, url);
}

static void
take_body(Request *r, const char *data, size_t len)
{
	if (r->body.len + len > MAX_BODY)
		r->too_large = true;
	if (!r->too_large)
		buf_append(&r->body, data, len);
}

/* libmicrohttpd's callback: once for the headers, then for the body's pieces, then to answer. */
static enum MHD_Result
on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
		   const char *version, const char *upload, size_t *upload_len, void **con_cls)
{
	Request    *r = *con_cls;

	(void) cls;
	(void) version;
	if (r == NULL)
	{
		r = request_new(connection);
		r->endpoint = find_endpoint(url);
		*con_cls = r;
		return MHD_YES;
	}
	if (*upload_len > 0)
	{
		take_body(r, upload, *upload_len);
		*upload_len = 0;
		return MHD_YES;
	}
	if (!r->decided)
	{
		if (r->endpoint == ENDPOINT_NONE || strcmp(method, "POST") != 0)
		{
			r->decided = true;
			answer_about_server(r, method, url);
		}
		else
			decide(r, method, url);
	}
	if (r->gone)
		return MHD_NO;
	if (!r->waited && (r->wait_ms > 0 || r->fault.hang))
	{
		r->waited = true;
		loop_park(r, r->fault.hang ? -1 : r->wait_ms);
		return MHD_YES;
	}
	if (r->fault.hang)
		return MHD_NO; /* only when the server stops */
	if (r->fault.reset == RESET_HEAD)
	{
		reset_connection(r);
		return MHD_NO;
	}
	if (r->fixed)
		return MHD_queue_response(connection, 200, r->fixed);
	return send_reply(r);
}

static void
on_completed(void *cls, struct MHD_Connection *connection, void **con_cls, enum MHD_RequestTerminationCode code)
{
	Request    *r = *con_cls;

	(void) cls;
	(void) connection;
	if (r == NULL)
		return;
	*con_cls = NULL;
	count_end(r, code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
	request_free(r);
}

static void
on_connection(void *cls, struct MHD_Connection *connection, void **socket_cls, enum MHD_ConnectionNotificationCode code)
{
	(void) cls;
	(void) connection;
	(void) socket_cls;
	count_connection(code == MHD_CONNECTION_NOTIFY_STARTED);
}

/* libmicrohttpd would print what broken clients send it. */
static void
on_log(void *cls, const char *fmt, va_list args)
{
	(void) cls;
	(void) fmt;
	(void) args;
}

/*
 * Start the daemon on a listening socket, with https when cert and key (PEM
 * texts) are given. NULL when it cannot start.
 */
struct MHD_Daemon *
http_start(int listen_fd, const char *cert, const char *key)
{
	unsigned int flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
	struct MHD_OptionItem tls[] = {
		{MHD_OPTION_HTTPS_MEM_CERT, 0, (void *) cert},
		{MHD_OPTION_HTTPS_MEM_KEY, 0, (void *) key},
		{MHD_OPTION_END, 0, NULL}};

	return MHD_start_daemon(flags | (cert ? MHD_USE_TLS : 0), 0, NULL, NULL, on_request, NULL,
							MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
							MHD_OPTION_LISTEN_SOCKET, listen_fd,
							MHD_OPTION_CONNECTION_LIMIT, (unsigned int) options.max_connections,
							MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) 32 * 1024,
							MHD_OPTION_CONNECTION_TIMEOUT, 0u,
							MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
							MHD_OPTION_NOTIFY_CONNECTION, on_connection, NULL,
							MHD_OPTION_ARRAY, cert ? tls : tls + 2,
							MHD_OPTION_END);
}

/* Stop it; every parked request must have been let go. */
void
http_stop(struct MHD_Daemon *daemon)
{
	MHD_stop_daemon(daemon);
	while (free_requests)
	{
		Request    *r = free_requests;

		free_requests = r->next_free;
		buf_free(&r->body);
		buf_free(&r->reply.body);
		free(r);
	}
}
