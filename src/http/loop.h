/*
 * loop.h
 *	  What the files of src/http share: the loop, its lanes, its hosts and its
 *	  exchanges.  Nobody else includes this.
 *
 * An exchange moves through these states; in each it is in exactly one list
 * by its `node`, and it is in loop.unconnected by `pending` until its
 * connection stands:
 *
 *	 http_start
 *	     │ bad option ────────────────────────────────┐
 *	     ▼              first calls of a host          │
 *	  QUEUED ──────────► HELD ──┐                      │
 *	     ▲ │                    │                      ▼
 *	     └─┼────────────────────┘ leader got through   FINISHED ─► DELIVERING
 *	       └────────────► RUNNING ────────────────────►
 *	       in a lane              answered or failed
 *
 * http_cancel() takes it out of any of them.
 */
#ifndef CHAINCALL_HTTP_LOOP_H
#define CHAINCALL_HTTP_LOOP_H

#include "postgres.h"

#include <curl/curl.h>

#include "base/clock.h"
#include "http/http.h"
#include "lib/ilist.h"

/*
 * Exchanges that one multi handle drives.  What libcurl does at the start and
 * at the end of a transfer grows with the connections of its multi handle, so
 * many small ones serve thousands of calls better than one; below this number
 * all are in the first, where connections are found again.
 */
#define LANE_EXCHANGES 96

/* One multi handle. */
typedef struct Lane
{
	CURLM	   *multi;
	int			index;			/* in loop.lanes */
	int			running;		/* exchanges in it */
	int64		timer_us;		/* when libcurl wants to be called */
	int			partial;		/* of these, answers begun over HTTP/2 */
	bool		touched;		/* has run since its messages were read */
	bool		nudge;			/* something has come since nudge_lanes() */
} Lane;

typedef enum HostProtocol
{
	PROTOCOL_UNKNOWN = 0,
	PROTOCOL_ONE,				/* a connection carries one exchange */
	PROTOCOL_TWO				/* a connection carries many */
} HostProtocol;

/* Where exchanges go: scheme, host, port and proxy. */
typedef struct Host
{
	dlist_node	node;			/* in loop.hosts[] */
	int			exchanges;		/* that point here */
	bool		https;
	bool		named;			/* connecting needs a look-up */
	bool		literal;		/* the URL holds an address, and a proxy is used */
	struct sockaddr_storage address;	/* that address */
	HostProtocol protocol;
	int64		fresh_until_us; /* no look-up before then; 0: never was one */
	int64		looked_up_us;	/* when the last was answered */
	bool		stale;			/* connections are opened to an old answer */
	HttpExchange *leader;		/* finds out what is not known; others wait */
	HttpExchange *pioneer;		/* has a connection of its own, not answered */
	dlist_head	held;			/* exchanges waiting for the leader */
	char		key[FLEXIBLE_ARRAY_MEMBER];
} Host;

typedef enum ExchangeState
{
	EXCHANGE_QUEUED,			/* loop.queue */
	EXCHANGE_HELD,				/* host.held */
	EXCHANGE_RUNNING,			/* loop.running */
	EXCHANGE_FINISHED,			/* loop.finished */
	EXCHANGE_DELIVERING,		/* its callback runs */
	EXCHANGE_IDLE				/* loop.idle: to be used again */
} ExchangeState;

struct HttpExchange
{
	dlist_node	node;
	dlist_node	pending;		/* in loop.unconnected or loop.unsent */
	bool		is_pending;
	ExchangeState state;
	HttpDone	done;
	void	   *arg;
	Host	   *host;
	Lane	   *lane;			/* while running */
	curl_socket_t socket;		/* the last one that libcurl waited for */
	CURL	   *easy;

	/* the request */
	size_t		body_len;
	size_t		max_answer;
	int64		connect_timeout_us; /* CLOCK_NEVER: none */
	int64		connect_until_us;	/* in the loop's attended time */
	struct curl_slist *headers; /* one block, with room for header_room bytes */
	size_t		header_room;

	/* how the easy handle is set; see exchange_start() */
	char	   *proxy;
	char	   *ca_file;
	bool		custom_method;
	bool		head;
	bool		https;
	bool		pipewait;
	bool		looks_up;		/* does not trust the cache of look-ups */

	/* how far it is */
	bool		leading;
	bool		unled;			/* neither waits for a leader nor becomes one */
	bool		opened;			/* a connection of its own */
	bool		connected;
	bool		partial;		/* counted in lane.partial */
	bool		doomed;			/* fault is set: to be ended after libcurl */

	/* the answer */
	HttpFault	fault;			/* may be set before it is known to matter */
	int			http_version;
	char	   *body;			/* malloc'd */
	size_t		received;
	size_t		body_room;
	size_t		header_bytes;
	bool		header_ended;	/* its empty line has come */
	int64		sent_us;
	int64		first_byte_us;
	char		message[160];
	char		curl_message[CURL_ERROR_SIZE];
};

#define HOST_BUCKETS 64

typedef struct Loop
{
	bool		curl_ready;
	CURLSH	   *share;
	int			epoll;			/* curl's sockets; -1: none yet */
	struct WaitEventSet *wait_set;
	uint32		wait_event;

	Lane	  **lanes;
	int			nlanes;
	struct Watch *watches;		/* by file descriptor */
	int			nwatches;

	dlist_head	queue;
	dlist_head	running;
	dlist_head	finished;
	dlist_head	idle;
	dlist_head	unconnected;
	dlist_head	unsent;			/* connected, request not yet written */
	int			nidle;
	int			nexchanges;		/* not idle */
	int			nfinished;
	int			nopen;			/* sockets */
	size_t		body_bytes;		/* room for the answers of all exchanges */
	bool		doomed;			/* some exchange is */

	dlist_head	hosts[HOST_BUCKETS];
	int			nhosts;

	/*
	 * Attended time is clock_us() less the time in which nobody turned the
	 * loop: a connection must not be late because the session was busy.
	 */
	int64		absent_us;
	int64		left_us;		/* when the loop was last left */
	int64		first_connect_until_us; /* no later than any deadline */
} Loop;

extern Loop http_loop;

/* loop.c */
extern void loop_ready(void);
extern void loop_attend(void);
extern int64 loop_attended_us(void);
extern void loop_queue(HttpExchange *exchange);
extern void loop_connecting(HttpExchange *exchange);
extern void loop_sending(HttpExchange *exchange);
extern void loop_finish(HttpExchange *exchange);

/* lane.c */
extern bool lanes_run(void);
extern int64 lanes_timer_us(void);
extern void lanes_trim(void);
extern void lanes_abandon(void);
extern void lane_remove(HttpExchange *exchange);
extern void lane_partial(HttpExchange *exchange);
extern curl_socket_t lane_open_socket(void *arg, curlsocktype purpose,
									  struct curl_sockaddr *address);
extern int	lane_close_socket(void *arg, curl_socket_t fd);

/* exchange.c */
extern void exchange_fault(HttpExchange *exchange, HttpFault fault,
						   const char *message);
extern bool exchange_sent(HttpExchange *exchange);
extern void exchange_release(HttpExchange *exchange);

/* answer.c */
extern size_t answer_body(char *data, size_t size, size_t count, void *arg);
extern size_t answer_header(char *data, size_t size, size_t count, void *arg);
extern void answer_conclude(HttpExchange *exchange, CURLcode result);
extern void answer_tell(HttpExchange *exchange, HttpAnswer *answer);

/* host.c */
extern Host *host_find(const char *url, const char *proxy);
extern bool host_admit(HttpExchange *exchange);
extern void host_opened(HttpExchange *exchange);
extern void host_connected(HttpExchange *exchange);
extern void host_left(HttpExchange *exchange, bool cancelled);

/* descriptors.c */
extern int	descriptors_capacity(int in_flight);

#endif							/* CHAINCALL_HTTP_LOOP_H */
