/*
 * http.h
 *	  Many HTTP exchanges at once in one process: libcurl's multi interface
 *	  driven by a WaitEventSet.
 *
 * The caller starts exchanges, then turns the loop; finished exchanges are
 * handed to their callback from http_turn(), after libcurl has returned, so a
 * callback may ereport() and may start or cancel exchanges.
 */
#ifndef CHAINCALL_HTTP_H
#define CHAINCALL_HTTP_H

#include "postgres.h"

typedef enum HttpFault
{
	HTTP_OK = 0,				/* a complete answer of any status */
	HTTP_BAD_REQUEST,			/* URL or option that libcurl refuses */
	HTTP_RESOLVE,				/* name does not resolve */
	HTTP_REFUSED_ADDRESS,		/* link-local or metadata address */
	HTTP_CONNECT,				/* no connection, or not within the time */
	HTTP_TLS,					/* handshake or certificate */
	HTTP_BROKEN,				/* connection ended before the answer did */
	HTTP_TOO_LARGE,				/* answer over max_answer bytes */
	HTTP_NO_RESOURCE			/* out of memory or file descriptors */
} HttpFault;

/*
 * What to ask.  Everything is copied or used up before http_start() returns,
 * save body, which must stay until the exchange is over.
 */
typedef struct HttpRequest
{
	const char *method;			/* "POST", "GET" */
	const char *url;
	const char *const *headers; /* "Name: value", NULL-terminated */
	const char *body;			/* NULL: none */
	size_t		body_len;		/* bytes */
	size_t		max_answer;		/* bytes of the decoded answer */
	int			connect_timeout_ms; /* look-up, TCP and TLS together */
	const char *proxy;			/* NULL: none, whatever the environment says */
	const char *ca_file;		/* NULL: the system's authorities */
} HttpRequest;

/* What came of it.  Valid during the callback only. */
typedef struct HttpAnswer
{
	HttpFault	fault;
	const char *message;		/* of a fault: libcurl's words; never a key */
	int			status;			/* HTTP status; 0 without an answer */
	const char *body;			/* NUL-terminated behind body_len */
	size_t		body_len;
	const char *content_type;	/* NULL: not sent */
	const char *retry_after;	/* raw header value, NULL: not sent */
	const char *request_id;		/* x-request-id or request-id */
	int64		sent_us;		/* clock_us() when the request was written, 0 */
	int64		first_byte_us;	/* clock_us() of the answer's first byte, 0 */
	int			http_version;	/* 10, 11, 20, 30 */
	void	   *source;			/* of http_answer_header() */
} HttpAnswer;

typedef struct HttpExchange HttpExchange;
typedef void (*HttpDone) (HttpExchange *exchange, const HttpAnswer *answer,
						  void *arg);

extern HttpExchange *http_start(const HttpRequest *request, HttpDone done,
								void *arg);
extern const char *http_answer_header(const HttpAnswer *answer,
									  const char *name);
extern void http_cancel(HttpExchange *exchange);
extern int	http_turn(int64 wait_until_us);
extern bool http_settle(int64 wait_until_us);
extern int	http_in_flight(void);
extern int	http_capacity(void);

#endif							/* CHAINCALL_HTTP_H */
