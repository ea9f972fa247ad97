/*
 * answer.c
 *	  What comes back: libcurl's callbacks for an answer, and what its result
 *	  means.
 *
 * The callbacks run inside libcurl, so they neither raise nor palloc; what
 * they find wrong they note in the exchange and let the transfer fail.
 */
#include "postgres.h"

#include "http/loop.h"

/* Of an answer's header in all, beside what libcurl bounds. */
#define MAX_HEADER_BYTES (256 * 1024)

/* Space for an answer that does not tell its length. */
#define FIRST_BODY_ROOM 4096

/* What an answer that tells its length is believed before it has come. */
#define BELIEVED_BODY_ROOM (64 * 1024)

/*
 * Of all answers that this process is reading: thousands at once, each within
 * its bound, must not take the machine's memory.  No bound of one is higher.
 */
#define MAX_BODY_BYTES ((size_t) 1024 * 1024 * 1024)

static void
fault_too_large(HttpExchange *exchange)
{
	char		message[80];

	snprintf(message, sizeof(message), "answer is larger than %zu bytes",
			 exchange->max_answer);
	exchange_fault(exchange, HTTP_TOO_LARGE, message);
}

/*
 * Makes room for len bytes more and the NUL.  False, with the fault noted: out
 * of memory, or the answers under way, of which each is within its bound, are
 * too large together.
 */
static bool
body_reserve(HttpExchange *exchange, size_t len)
{
	size_t		needed = exchange->received + len + 1;
	size_t		room = exchange->body_room;
	char	   *body;

	if (needed <= room)
		return true;
	if (room == 0)
	{
		curl_off_t	told = -1;

		curl_easy_getinfo(exchange->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T,
						  &told);
		room = (told > 0) ? Min(told, BELIEVED_BODY_ROOM) + 1 : FIRST_BODY_ROOM;
	}
	while (room < needed)
		room *= 2;
	room = Min(room, exchange->max_answer + 1);

	if (http_loop.body_bytes - exchange->body_room + room > MAX_BODY_BYTES)
	{
		exchange_fault(exchange, HTTP_NO_RESOURCE,
					   "the answers under way take more than 1 GB together");
		return false;
	}
	body = realloc(exchange->body, room);
	if (body == NULL)
	{
		exchange_fault(exchange, HTTP_NO_RESOURCE, "out of memory");
		return false;
	}
	http_loop.body_bytes += room - exchange->body_room;
	exchange->body = body;
	exchange->body_room = room;
	return true;
}

/* CURLOPT_WRITEFUNCTION */
size_t
answer_body(char *data, size_t size, size_t count, void *arg)
{
	HttpExchange *exchange = arg;
	size_t		len = size * count;

	if (len > exchange->max_answer - exchange->received)
	{
		fault_too_large(exchange);
		return 0;
	}
	if (len == 0)
		return 0;
	if (!body_reserve(exchange, len))
		return 0;
	memcpy(exchange->body + exchange->received, data, len);
	exchange->received += len;
	if (exchange->partial)
		exchange->lane->nudge = true;
	return len;
}

/* CURLOPT_HEADERFUNCTION: one line, the status line and the last included. */
size_t
answer_header(char *data, size_t size, size_t count, void *arg)
{
	HttpExchange *exchange = arg;
	size_t		len = size * count;

	if (exchange->first_byte_us == 0)
	{
		exchange->first_byte_us = clock_us();
		lane_partial(exchange);
	}
	if (len > 5 && memcmp(data, "HTTP/", 5) == 0)
		exchange->header_ended = false;
	else if (data[0] == '\r' || data[0] == '\n')
		exchange->header_ended = true;
	exchange->header_bytes += len;
	if (exchange->header_bytes > MAX_HEADER_BYTES)
	{
		exchange_fault(exchange, HTTP_TOO_LARGE, "header of the answer is too large");
		return 0;
	}
	return len;
}

static HttpFault
fault_of(const HttpExchange *exchange, CURLcode result)
{
	switch (result)
	{
		case CURLE_OK:
			return HTTP_OK;

		case CURLE_URL_MALFORMAT:
		case CURLE_UNSUPPORTED_PROTOCOL:
		case CURLE_BAD_FUNCTION_ARGUMENT:
		case CURLE_UNKNOWN_OPTION:
		case CURLE_NOT_BUILT_IN:
			return HTTP_BAD_REQUEST;

		case CURLE_COULDNT_RESOLVE_HOST:
		case CURLE_COULDNT_RESOLVE_PROXY:
			return HTTP_RESOLVE;

		case CURLE_COULDNT_CONNECT:
		case CURLE_OPERATION_TIMEDOUT:
		case CURLE_PROXY:
			return HTTP_CONNECT;

		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SSL_CERTPROBLEM:
		case CURLE_SSL_CIPHER:
		case CURLE_SSL_CACERT_BADFILE:
		case CURLE_SSL_CRL_BADFILE:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_SSL_INVALIDCERTSTATUS:
		case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
		case CURLE_SSL_ENGINE_NOTFOUND:
		case CURLE_SSL_ENGINE_SETFAILED:
		case CURLE_SSL_ENGINE_INITFAILED:
		case CURLE_USE_SSL_FAILED:
			return HTTP_TLS;

		case CURLE_FILESIZE_EXCEEDED:
			return HTTP_TOO_LARGE;

		case CURLE_OUT_OF_MEMORY:
		case CURLE_FAILED_INIT:
			return HTTP_NO_RESOURCE;

		default:
			return exchange->connected ? HTTP_BROKEN : HTTP_CONNECT;
	}
}

/* Does the fault that a callback of ours has noted explain this result? */
static bool
fault_explains(const HttpExchange *exchange, CURLcode result)
{
	switch (exchange->fault)
	{
		case HTTP_OK:
			return false;
		case HTTP_TOO_LARGE:
			return result == CURLE_WRITE_ERROR;
		case HTTP_REFUSED_ADDRESS:
			return result == CURLE_COULDNT_CONNECT && !exchange->opened;
		case HTTP_NO_RESOURCE:
			return result == CURLE_WRITE_ERROR ||
				(result == CURLE_COULDNT_CONNECT && !exchange->opened);
		default:
			return true;
	}
}

/*
 * Is it a line of the header that libcurl found too long (100 kB)?  It calls
 * that want of memory, which it is hardly ever at this point, or, since 8.6,
 * by its name.
 */
static bool
header_too_large(const HttpExchange *exchange, CURLcode result)
{
#if LIBCURL_VERSION_NUM >= 0x080600
	if (result == CURLE_TOO_LARGE)
		return exchange->connected && !exchange->header_ended;
#endif
	return result == CURLE_OUT_OF_MEMORY && exchange->connected &&
		!exchange->header_ended;
}

/* Turns libcurl's result, with the handle out of its lane, into a fault. */
void
answer_conclude(HttpExchange *exchange, CURLcode result)
{
	long		version = 0;
	HttpFault	fault;
	const char *message;

	curl_easy_getinfo(exchange->easy, CURLINFO_HTTP_VERSION, &version);
	switch (version)
	{
		case CURL_HTTP_VERSION_1_0:
			exchange->http_version = 10;
			break;
		case CURL_HTTP_VERSION_1_1:
			exchange->http_version = 11;
			break;
		case CURL_HTTP_VERSION_2_0:
			exchange->http_version = 20;
			break;
		case CURL_HTTP_VERSION_3:
			exchange->http_version = 30;
			break;
		default:
			break;
	}

	if (fault_explains(exchange, result))
		return;
	fault = fault_of(exchange, result);
	if (fault == HTTP_OK && !exchange->header_ended)
	{
		/* to libcurl that is an answer without a body */
		exchange_fault(exchange, HTTP_BROKEN,
					   "connection ended within the header of the answer");
		return;
	}
	if (fault == HTTP_OK)
	{
		exchange->fault = HTTP_OK;
		return;
	}

	if (header_too_large(exchange, result))
	{
		exchange_fault(exchange, HTTP_TOO_LARGE,
					   "header of the answer is too large");
		return;
	}

	message = exchange->curl_message;
	if (message[0] == '\0')
		message = curl_easy_strerror(result);

	if (fault == HTTP_TOO_LARGE)
	{
		fault_too_large(exchange);
		return;
	}

	/* no thread, or no sockets to hear of it: nothing is wrong with the name */
	if (fault == HTTP_RESOLVE && strstr(message, "failed to start") != NULL)
		fault = HTTP_NO_RESOURCE;
	exchange_fault(exchange, fault, message);
}

static const char *
header_value(CURL *easy, const char *name)
{
	struct curl_header *header;

	if (curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK)
		return NULL;
	return header->value;
}

/* Fills what an exchange's callback is told; it points into the exchange. */
void
answer_tell(HttpExchange *exchange, HttpAnswer *answer)
{
	CURL	   *easy = exchange->easy;
	long		status = 0;

	memset(answer, 0, sizeof(*answer));
	answer->fault = exchange->fault;
	answer->message = (exchange->fault != HTTP_OK) ? exchange->message : NULL;
	answer->sent_us = exchange->sent_us;
	answer->first_byte_us = exchange->first_byte_us;
	answer->http_version = exchange->http_version;
	answer->body = "";
	if (exchange->first_byte_us == 0)
		return;

	answer->source = easy;
	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	answer->status = (int) status;
	answer->content_type = header_value(easy, "Content-Type");
	answer->retry_after = header_value(easy, "Retry-After");
	answer->request_id = header_value(easy, "X-Request-Id");
	if (answer->request_id == NULL)
		answer->request_id = header_value(easy, "Request-Id");
	if (exchange->received > 0)
	{
		exchange->body[exchange->received] = '\0';
		answer->body = exchange->body;
		answer->body_len = exchange->received;
	}
}

/*
 * The value of the answer's header of that name, whatever the case; NULL: it
 * has none.  Raw bytes of the service's, good during the callback.
 */
const char *
http_answer_header(const HttpAnswer *answer, const char *name)
{
	return answer->source ? header_value(answer->source, name) : NULL;
}
