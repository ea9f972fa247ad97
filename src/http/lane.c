/*
 * lane.c
 *	  libcurl's multi handles and their sockets.
 *
 * Every socket of every lane is watched by one epoll set.  libcurl asks for a
 * socket to be watched when an exchange begins and to be forgotten when it
 * ends; the next exchange on the same connection asks again.  Watching costs
 * a system call each time, so a forgotten socket is left in the set until it
 * says something nobody wants to hear, or is closed, when the kernel removes
 * it.  That needs to know which descriptors are ours: lane_open_socket() and
 * lane_close_socket() do.  libcurl's own (a look-up's) are removed at once.
 *
 * libcurl may start a thread whenever it runs, and a thread inherits the mask
 * of blocked signals: all are blocked meanwhile, or a handler of PostgreSQL's
 * might run in it.  No function here raises once that is so.
 */
#include "postgres.h"

#include <errno.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/settings.h"
#include "http/loop.h"
#include "http/network.h"

/* Connections of one lane, idle ones to other hosts included. */
#define LANE_CONNECTIONS (LANE_EXCHANGES + LANE_EXCHANGES / 2)

/* Lanes whose idle connections survive the end of all exchanges. */
#define LANES_KEPT 4

#define EVENTS_AT_ONCE 256

/* Sockets are looked at again after so many starts. */
#define LAUNCHES_AT_ONCE 512

typedef struct Watch
{
	uint8		registered;		/* CURL_POLL_IN, _OUT: known to epoll */
	uint8		wanted;			/* by libcurl */
	bool		ours;			/* we shall hear when it is closed */
	bool		multiplexed;	/* HTTP/2: may say something at any time */
} Watch;

/* The entry for a descriptor; NULL: out of memory. */
static Watch *
watch_of(int fd)
{
	if (fd >= http_loop.nwatches)
	{
		int			room = Max(fd + 1, http_loop.nwatches * 2);
		Watch	   *watches;

		watches = realloc(http_loop.watches, room * sizeof(Watch));
		if (watches == NULL)
			return NULL;
		memset(watches + http_loop.nwatches, 0,
			   (room - http_loop.nwatches) * sizeof(Watch));
		http_loop.watches = watches;
		http_loop.nwatches = room;
	}
	return &http_loop.watches[fd];
}

/* The exchange of an easy handle; NULL: it is one of libcurl's own. */
static HttpExchange *
exchange_of(CURL *easy)
{
	HttpExchange *exchange = NULL;

	curl_easy_getinfo(easy, CURLINFO_PRIVATE, &exchange);
	return exchange;
}

/* An exchange cannot go on: it is ended when libcurl has returned. */
static void
doom(HttpExchange *exchange, const char *message)
{
	if (exchange == NULL)
		return;
	exchange_fault(exchange, HTTP_NO_RESOURCE, message);
	exchange->doomed = true;
	http_loop.doomed = true;
}

static int
watch_change(const Lane *lane, int fd, Watch *watch, uint8 wanted)
{
	struct epoll_event event = {0};
	int			op;

	event.data.u64 = ((uint64) lane->index << 32) | (uint32) fd;
	if (wanted & CURL_POLL_IN)
		event.events |= EPOLLIN;
	if (wanted & CURL_POLL_OUT)
		event.events |= EPOLLOUT;

	if (wanted == 0)
		op = EPOLL_CTL_DEL;
	else
		op = watch->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	watch->registered = wanted;
	if (epoll_ctl(http_loop.epoll, op, fd, &event) == 0)
		return 0;

	/* what we remember may be of another socket with the same number */
	if (op == EPOLL_CTL_DEL)
		return 0;
	if (errno == ENOENT || errno == EEXIST)
	{
		op = (op == EPOLL_CTL_MOD) ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
		if (epoll_ctl(http_loop.epoll, op, fd, &event) == 0)
			return 0;
	}
	watch->registered = 0;
	return -1;
}

/* CURLMOPT_SOCKETFUNCTION: libcurl waits for `what` to happen to fd. */
static int
lane_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *unused)
{
	HttpExchange *exchange = exchange_of(easy);
	Watch	   *watch = watch_of(fd);

	if (watch == NULL)
	{
		doom(exchange, "out of memory");
		return 0;
	}
	if (what == CURL_POLL_REMOVE)
		what = 0;
	else if (exchange != NULL)
		exchange->socket = fd;
	watch->wanted = (uint8) what;
	if (watch->ours && (what == 0 || watch->registered == what))
		return 0;
	if (watch_change(arg, fd, watch, (uint8) what) != 0)
		doom(exchange, "could not watch a socket");
	return 0;
}

/* CURLMOPT_TIMERFUNCTION: libcurl wants to be called in so many ms. */
static int
lane_timer(CURLM *multi, long timeout_ms, void *arg)
{
	Lane	   *lane = arg;

	if (timeout_ms < 0)
		lane->timer_us = CLOCK_NEVER;
	else if (timeout_ms == 0)
		lane->timer_us = 0;
	else
		lane->timer_us = clock_us() + timeout_ms * INT64CONST(1000);
	return 0;
}

/*
 * CURLOPT_OPENSOCKETFUNCTION: refuses addresses that must not be called.
 */
curl_socket_t
lane_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	HttpExchange *exchange = arg;
	Watch	   *watch = NULL;
	int			fd;

	if (network_refused(&address->addr, setting_allowed_networks))
	{
		exchange_fault(exchange, HTTP_REFUSED_ADDRESS,
					   "address is link-local or a metadata service");
		return CURL_SOCKET_BAD;
	}

	fd = socket(address->family, address->socktype | SOCK_CLOEXEC,
				address->protocol);
	if (fd >= 0)
		watch = watch_of(fd);
	if (watch == NULL)
	{
		if (fd >= 0)
			close(fd);
		/* an address family that the machine does not have is no shortage */
		if (fd >= 0 || errno == EMFILE || errno == ENFILE ||
			errno == ENOMEM || errno == ENOBUFS)
			exchange_fault(exchange, HTTP_NO_RESOURCE,
						   (fd >= 0 || errno == ENOMEM) ? "out of memory" :
						   "out of file descriptors");
		return CURL_SOCKET_BAD;
	}
	watch->registered = 0;
	watch->wanted = 0;
	watch->ours = true;
	watch->multiplexed = false;
	http_loop.nopen++;

	/* a connection that was found again may turn out dead: a new one it is */
	if (exchange->connected)
	{
		exchange->connected = false;
		loop_connecting(exchange);
	}
	exchange->opened = true;
	host_opened(exchange);
	return fd;
}

/* CURLOPT_CLOSESOCKETFUNCTION */
int
lane_close_socket(void *arg, curl_socket_t fd)
{
	Watch	   *watch = watch_of(fd);

	if (watch != NULL)
		memset(watch, 0, sizeof(*watch));
	http_loop.nopen--;
	return close(fd);
}

/* One lane more, or NULL. */
static Lane *
lane_make(void)
{
	Lane	  **lanes;
	Lane	   *lane;

	lanes = realloc(http_loop.lanes, (http_loop.nlanes + 1) * sizeof(Lane *));
	if (lanes == NULL)
		return NULL;
	http_loop.lanes = lanes;

	lane = calloc(1, sizeof(Lane));
	if (lane == NULL)
		return NULL;
	lane->multi = curl_multi_init();
	if (lane->multi == NULL)
	{
		free(lane);
		return NULL;
	}
	lane->index = http_loop.nlanes;
	lane->timer_us = CLOCK_NEVER;
	curl_multi_setopt(lane->multi, CURLMOPT_SOCKETFUNCTION, lane_socket);
	curl_multi_setopt(lane->multi, CURLMOPT_SOCKETDATA, lane);
	curl_multi_setopt(lane->multi, CURLMOPT_TIMERFUNCTION, lane_timer);
	curl_multi_setopt(lane->multi, CURLMOPT_TIMERDATA, lane);
	curl_multi_setopt(lane->multi, CURLMOPT_PIPELINING, (long) CURLPIPE_MULTIPLEX);
	curl_multi_setopt(lane->multi, CURLMOPT_MAX_CONCURRENT_STREAMS,
					  (long) LANE_EXCHANGES);

	/*
	 * By default libcurl keeps four connections for each exchange that is
	 * left, and so closes most when a fan-out ends.  The second bound makes
	 * room for a new connection by closing an idle one; there always is one.
	 */
	curl_multi_setopt(lane->multi, CURLMOPT_MAXCONNECTS, (long) LANE_CONNECTIONS);
	curl_multi_setopt(lane->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS,
					  (long) LANE_CONNECTIONS);
#if LIBCURL_VERSION_NUM >= 0x081500
	curl_multi_setopt(lane->multi, CURLMOPT_QUICK_EXIT, 1L);
#endif
	http_loop.lanes[http_loop.nlanes++] = lane;
	return lane;
}

/*
 * The lane for an exchange: its host's pioneer's, whose connection it might
 * share, else the first that has room, so that few exchanges stay together
 * and find the connections of those before.
 */
static Lane *
lane_choose(const HttpExchange *exchange)
{
	const HttpExchange *pioneer = exchange->host->pioneer;

	if (exchange->leading && pioneer != NULL &&
		pioneer->lane->running < LANE_EXCHANGES)
		return pioneer->lane;
	for (int i = 0; i < http_loop.nlanes; i++)
	{
		if (http_loop.lanes[i]->running < LANE_EXCHANGES)
			return http_loop.lanes[i];
	}
	return lane_make();
}

/*
 * Of hosts that speak HTTP/2, each lane needs one connection: the exchanges
 * that come while it is made wait for it.
 */
static void
set_pipewait(HttpExchange *exchange)
{
	bool		pipewait = exchange->host->protocol == PROTOCOL_TWO;

	if (pipewait == exchange->pipewait)
		return;
	curl_easy_setopt(exchange->easy, CURLOPT_PIPEWAIT, pipewait ? 1L : 0L);
	exchange->pipewait = pipewait;
}

static void
lane_add(HttpExchange *exchange)
{
	Lane	   *lane = lane_choose(exchange);

	set_pipewait(exchange);
	if (lane == NULL ||
		curl_multi_add_handle(lane->multi, exchange->easy) != CURLM_OK)
	{
		exchange_fault(exchange, HTTP_NO_RESOURCE, "out of memory");
		host_left(exchange, false);
		loop_finish(exchange);
		return;
	}
	exchange->lane = lane;
	exchange->state = EXCHANGE_RUNNING;
	dlist_push_tail(&http_loop.running, &exchange->node);
	lane->running++;
}

/* Takes a running exchange out of its lane; whatever it was at is broken off. */
void
lane_remove(HttpExchange *exchange)
{
	Assert(exchange->state == EXCHANGE_RUNNING);
	curl_multi_remove_handle(exchange->lane->multi, exchange->easy);
	exchange->lane->running--;
	if (exchange->partial)
		exchange->lane->partial--;
	exchange->partial = false;
	dlist_delete(&exchange->node);
}

/* The answer of a running exchange begins. */
void
lane_partial(HttpExchange *exchange)
{
	if (exchange->host->protocol != PROTOCOL_TWO || exchange->partial)
		return;
	exchange->partial = true;
	exchange->lane->partial++;
}

/* Starts what is queued, or holds it. */
static void
launch(void)
{
	for (int i = 0; i < LAUNCHES_AT_ONCE; i++)
	{
		HttpExchange *exchange;

		if (dlist_is_empty(&http_loop.queue))
			break;
		exchange = dlist_container(HttpExchange, node,
								   dlist_pop_head_node(&http_loop.queue));
		if (host_admit(exchange))
			lane_add(exchange);
		else
		{
			exchange->state = EXCHANGE_HELD;
			dlist_push_tail(&exchange->host->held, &exchange->node);
		}
	}
}

/* Lets libcurl act on a socket, or on its timer. */
static void
lane_act(Lane *lane, curl_socket_t fd, int what)
{
	CURLMcode	result;
	int			running;
	dlist_iter	iter;

	result = curl_multi_socket_action(lane->multi, fd, what, &running);
	lane->touched = true;
	if (result == CURLM_OK || result == CURLM_BAD_SOCKET)
		return;

	/* out of memory, which leaves exchanges that nobody would wake */
	dlist_foreach(iter, &http_loop.running)
	{
		HttpExchange *exchange = dlist_container(HttpExchange, node, iter.cur);

		if (exchange->lane == lane)
			doom(exchange, curl_multi_strerror(result));
	}
}

/*
 * An idle connection has said something: that it is closed, or an answer that
 * nobody asked for, which must not become that of the next exchange.  libcurl
 * before 8.1 would use a connection again that has something to read, so there
 * must be nothing but its end; what arrives behind our end is refused.
 */
static void
retire(int fd)
{
	char		waste[4096];

	shutdown(fd, SHUT_RDWR);
	while (recv(fd, waste, sizeof(waste), MSG_DONTWAIT) > 0)
		;
}

static void
serve_event(const struct epoll_event *event)
{
	int			fd = (int) (event->data.u64 & 0xffffffff);
	int			index = (int) (event->data.u64 >> 32);
	Watch	   *watch = &http_loop.watches[fd];
	Lane	   *lane;
	int			what = 0;

	if (index >= http_loop.nlanes)
		return;
	lane = http_loop.lanes[index];
	if (watch->wanted == 0)
	{
		/* that it could be written to says nothing */
		bool		silent = (event->events & ~EPOLLOUT) == 0;

		if (watch->ours && !watch->multiplexed && !silent)
			retire(fd);
		if (watch->registered != 0)
			watch_change(lane, fd, watch,
						 watch->ours && silent ? CURL_POLL_IN : 0);
		return;
	}
	if (event->events & EPOLLIN)
		what |= CURL_CSELECT_IN;
	if (event->events & EPOLLOUT)
		what |= CURL_CSELECT_OUT;
	if (event->events & (EPOLLERR | EPOLLHUP))
		what |= CURL_CSELECT_ERR;
	lane_act(lane, fd, what);
	lane->nudge = true;
}

/*
 * libcurl 7.88 can forget what it has read: data of an HTTP/2 stream whose
 * buffer is full stays in the connection's, and where all are driven by events
 * nothing calls for it until a timer does, seconds later.  So, before we wait,
 * the sockets of answers that have begun are served once more, and again while
 * that brings anything.
 */
static void
nudge_lane(Lane *lane)
{
	dlist_iter	iter;
	curl_socket_t served = CURL_SOCKET_BAD;

	lane->nudge = false;
	dlist_foreach(iter, &http_loop.running)
	{
		HttpExchange *exchange = dlist_container(HttpExchange, node, iter.cur);

		if (exchange->lane != lane || !exchange->partial ||
			exchange->socket == served)
			continue;
		served = exchange->socket;
		lane_act(lane, served, CURL_CSELECT_IN);
	}
}

static void
nudge_lanes(void)
{
	for (int i = 0; i < http_loop.nlanes; i++)
	{
		Lane	   *lane = http_loop.lanes[i];

		if (lane->nudge && lane->partial > 0)
			nudge_lane(lane);
	}
}

static void
serve_timers(void)
{
	int64		now_us = 0;

	for (int i = 0; i < http_loop.nlanes; i++)
	{
		Lane	   *lane = http_loop.lanes[i];

		if (lane->timer_us == CLOCK_NEVER)
			continue;
		if (lane->timer_us > 0 && now_us == 0)
			now_us = clock_us();
		if (lane->timer_us > now_us)
			continue;
		lane->timer_us = CLOCK_NEVER;
		lane_act(lane, CURL_SOCKET_TIMEOUT, 0);
	}
}

/*
 * libcurl's time for connecting has run while nobody turned the loop, or was
 * used up by an address before the last: by our count there is some left.
 */
static bool
may_connect_again(const HttpExchange *exchange, CURLcode result)
{
	return result == CURLE_OPERATION_TIMEDOUT && !exchange->connected &&
		loop_attended_us() < exchange->connect_until_us;
}

/*
 * A connection that was kept turns out dead before an answer begins: the
 * server had closed it meanwhile, which is no fault of this exchange.  libcurl
 * mostly finds out by itself, but newer ones not when sending fails.  Each time
 * costs a connection that was kept, so there is an end to it.
 */
static bool
connection_was_stale(const HttpExchange *exchange, CURLcode result)
{
	return (result == CURLE_SEND_ERROR || result == CURLE_RECV_ERROR ||
			result == CURLE_GOT_NOTHING) &&
		exchange->connected && !exchange->opened &&
		exchange->first_byte_us == 0 && exchange->fault == HTTP_OK;
}

static void
connect_anew(HttpExchange *exchange)
{
	host_left(exchange, true);
	exchange->connected = false;
	exchange->sent_us = 0;
	exchange->curl_message[0] = '\0';
	loop_connecting(exchange);
	loop_queue(exchange);
}

static void
note_protocol(const HttpExchange *exchange)
{
	Watch	   *watch;

	if (exchange->socket == CURL_SOCKET_BAD)
		return;
	watch = watch_of(exchange->socket);
	if (watch != NULL && exchange->http_version > 0)
		watch->multiplexed = exchange->http_version >= 20;
}

static void
read_results(Lane *lane)
{
	CURLMsg    *message;
	int			left;

	while ((message = curl_multi_info_read(lane->multi, &left)) != NULL)
	{
		HttpExchange *exchange = exchange_of(message->easy_handle);
		CURLcode	result = message->data.result;

		if (message->msg != CURLMSG_DONE)
			continue;
		lane_remove(exchange);
		if (may_connect_again(exchange, result))
		{
			host_left(exchange, true);
			exchange->opened = false;
			loop_queue(exchange);
			continue;
		}
		if (connection_was_stale(exchange, result))
		{
			connect_anew(exchange);
			continue;
		}
		answer_conclude(exchange, result);
		note_protocol(exchange);
		host_left(exchange, false);
		loop_finish(exchange);
	}
	lane->touched = false;
}

static void
end_doomed(void)
{
	dlist_mutable_iter iter;

	http_loop.doomed = false;
	dlist_foreach_modify(iter, &http_loop.running)
	{
		HttpExchange *exchange = dlist_container(HttpExchange, node, iter.cur);

		if (!exchange->doomed)
			continue;
		lane_remove(exchange);
		host_left(exchange, false);
		loop_finish(exchange);
	}
}

/* Strikes off the exchanges whose request has been written. */
static void
note_sent(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &http_loop.unsent)
	{
		HttpExchange *exchange = dlist_container(HttpExchange, pending, iter.cur);

		if (exchange_sent(exchange))
		{
			dlist_delete(&exchange->pending);
			exchange->is_pending = false;
		}
	}
}

static bool
timers_due(void)
{
	int64		timer_us = lanes_timer_us();

	return timer_us == 0 || (timer_us != CLOCK_NEVER && timer_us <= clock_us());
}

/* Is there an answer under way of which libcurl may have forgotten a part? */
static bool
nudge_wanted(void)
{
	for (int i = 0; i < http_loop.nlanes; i++)
	{
		if (http_loop.lanes[i]->nudge && http_loop.lanes[i]->partial > 0)
			return true;
	}
	return false;
}

/* Concludes what has ended, and notes which requests are written. */
static void
take_stock(void)
{
	for (int i = 0; i < http_loop.nlanes; i++)
	{
		if (http_loop.lanes[i]->touched)
			read_results(http_loop.lanes[i]);
	}
	if (http_loop.doomed)
		end_doomed();
	note_sent();
}

/*
 * One pass: libcurl gets what has arrived, what is queued and what is due;
 * finished exchanges are concluded.  Does not wait.  False: there was nothing.
 */
bool
lanes_run(void)
{
	struct epoll_event events[EVENTS_AT_ONCE];
	int			nevents;
	bool		idle;
	sigset_t	all;
	sigset_t	before;

	nevents = epoll_wait(http_loop.epoll, events, EVENTS_AT_ONCE, 0);
	idle = nevents <= 0 && dlist_is_empty(&http_loop.queue) && !timers_due();
	if (idle && !nudge_wanted())
		return false;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (int i = 0; i < nevents; i++)
		serve_event(&events[i]);
	if (idle)
		nudge_lanes();
	else
	{
		launch();
		serve_timers();
	}
	take_stock();
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return true;
}

/* Breaks off all connections that are in use, without libcurl. */
void
lanes_abandon(void)
{
	for (int fd = 0; fd < http_loop.nwatches; fd++)
	{
		if (http_loop.watches[fd].ours && http_loop.watches[fd].wanted != 0)
			shutdown(fd, SHUT_RDWR);
	}
}

/* When libcurl wants to run next: clock_us(), 0: at once, CLOCK_NEVER. */
int64
lanes_timer_us(void)
{
	int64		timer_us = CLOCK_NEVER;

	for (int i = 0; i < http_loop.nlanes; i++)
		timer_us = Min(timer_us, http_loop.lanes[i]->timer_us);
	return timer_us;
}

/*
 * Closes what a large fan-out has left: its lanes with their idle connections,
 * but the first few; the memory goes back to the operating system.  Only when
 * no exchange is running.
 */
void
lanes_trim(void)
{
	if (http_loop.nlanes <= LANES_KEPT)
		return;
	while (http_loop.nlanes > LANES_KEPT)
	{
		Lane	   *lane = http_loop.lanes[--http_loop.nlanes];

		Assert(lane->running == 0);
		curl_multi_cleanup(lane->multi);
		free(lane);
	}
#ifdef __GLIBC__
	malloc_trim(0);
#endif
}
