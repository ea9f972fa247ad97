/*
 * loop.c: the one thread of the server.
 *
 * An outer epoll set holds libmicrohttpd's own epoll descriptor, a timer, the
 * signals, standard input when we are to end with it, and the sockets of
 * requests that wait. A request that waits (a slow model, a drip, a hang) is
 * suspended in libmicrohttpd and kept in a heap by the time it is due, so ten
 * thousand of them cost memory but no thread. Their sockets are watched, since
 * libmicrohttpd does not look at a suspended connection: a client that gives
 * up must be seen at once, or tests of cancellation would see it still there.
 *
 * libmicrohttpd walks all suspended connections whenever one is resumed, so
 * times are rounded up to a tick that grows with their number.
 */
#include "server.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static int	outer = -1;
static int	timer = -1;
static int64_t timer_set;		/* what the timer is armed for; 0: nothing */

static Request **heap;			/* by due_us, smallest first */
static int	heap_len;
static int	heap_size;
static Request **forever;		/* parked without a time */
static int	nforever;
static int	forever_size;

/* Monotonic time in microseconds. */
int64_t
loop_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static void
heap_put(int at, Request *r)
{
	heap[at] = r;
	r->heap_at = at;
}

static void
heap_up(int at)
{
	Request    *r = heap[at];

	while (at > 0 && heap[(at - 1) / 2]->due_us > r->due_us)
	{
		heap_put(at, heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	heap_put(at, r);
}

static void
heap_down(int at)
{
	Request    *r = heap[at];

	for (;;)
	{
		int			child = at * 2 + 1;

		if (child + 1 < heap_len && heap[child + 1]->due_us < heap[child]->due_us)
			child++;
		if (child >= heap_len || heap[child]->due_us >= r->due_us)
			break;
		heap_put(at, heap[child]);
		at = child;
	}
	heap_put(at, r);
}

static void
heap_remove(Request *r)
{
	int			at = r->heap_at;

	r->heap_at = -1;
	heap_len--;
	if (at == heap_len)
		return;
	heap_put(at, heap[heap_len]);
	heap_up(at);
	heap_down(heap[at]->heap_at);
}

static int
request_socket(Request *r)
{
	return MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
}

/*
 * Suspend the request's connection for ms milliseconds (negative: for ever).
 * Called from a libmicrohttpd callback that then returns without having made
 * progress; libmicrohttpd calls it again when the time has come or when the client
 * has gone, which sets r->gone.
 */
void
loop_park(Request *r, long ms)
{
	struct epoll_event ev = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = r};
	int64_t		tick = 500 + heap_len / 4;

	r->parked = true;
	if (ms < 0)
	{
		if (nforever == forever_size)
		{
			forever_size = forever_size ? forever_size * 2 : 64;
			forever = mem_resize(forever, sizeof(*forever) * (size_t) forever_size);
		}
		r->heap_at = nforever;
		r->due_us = 0;
		forever[nforever++] = r;
	}
	else
	{
		if (heap_len == heap_size)
		{
			heap_size = heap_size ? heap_size * 2 : 256;
			heap = mem_resize(heap, sizeof(*heap) * (size_t) heap_size);
		}
		r->due_us = (loop_now_us() + (int64_t) ms * 1000 + tick - 1) / tick * tick;
		heap[heap_len++] = r;
		heap_up(heap_len - 1);
	}
	epoll_ctl(outer, EPOLL_CTL_ADD, request_socket(r), &ev);
	MHD_suspend_connection(r->connection);
}

/* Let the request go on. */
static void
unpark(Request *r)
{
	if (!r->parked)
		return;
	r->parked = false;
	if (r->due_us > 0)
		heap_remove(r);
	else
	{
		forever[r->heap_at] = forever[--nforever];
		forever[r->heap_at]->heap_at = r->heap_at;
		r->heap_at = -1;
	}
	epoll_ctl(outer, EPOLL_CTL_DEL, request_socket(r), NULL);
	MHD_resume_connection(r->connection);
}

static void
arm_timer(void)
{
	struct itimerspec spec = {0};
	int64_t		due = heap_len > 0 ? heap[0]->due_us : 0;

	if (due == timer_set)
		return;
	timer_set = due;
	spec.it_value.tv_sec = due / 1000000;
	spec.it_value.tv_nsec = due % 1000000 * 1000;
	timerfd_settime(timer, TFD_TIMER_ABSTIME, &spec, NULL);
}

/* The timer has fired: let go whoever is due. */
static void
wake_due(void)
{
	uint64_t	fired;
	int64_t		now = loop_now_us();

	if (read(timer, &fired, sizeof(fired)) == sizeof(fired))
		timer_set = 0;
	while (heap_len > 0 && heap[0]->due_us <= now)
		unpark(heap[0]);
}

static void
watch(int fd, void *tag)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = tag};

	if (epoll_ctl(outer, EPOLL_CTL_ADD, fd, &ev) != 0)
	{
		perror("modelserver: epoll_ctl");
		exit(1);
	}
}

/* Is standard input at its end? Whatever comes in on it is thrown away. */
static bool
stdin_closed(void)
{
	char		waste[256];
	ssize_t		n = read(STDIN_FILENO, waste, sizeof(waste));

	return n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN);
}

/*
 * Serve until SIGTERM, SIGINT or the end of standard input. Returns the exit
 * code. SIGTERM and SIGINT must be blocked already.
 */
int
loop_run(struct MHD_Daemon *daemon)
{
	static char tag_http,
		tag_timer,
		tag_signal,
		tag_stdin;
	struct epoll_event events[256];
	sigset_t	signals;
	bool		stop = false;

	outer = epoll_create1(EPOLL_CLOEXEC);
	timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	watch(MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd, &tag_http);
	watch(timer, &tag_timer);
	watch(signalfd(-1, &signals, SFD_CLOEXEC), &tag_signal);
	if (options.exit_with_stdin)
		watch(STDIN_FILENO, &tag_stdin);

	while (!stop)
	{
		MHD_UNSIGNED_LONG_LONG ms;
		bool		due = false;
		int			timeout = -1;
		int			n;

		arm_timer();
		if (MHD_get_timeout(daemon, &ms) == MHD_YES)
			timeout = ms > 60000 ? 60000 : (int) ms;
		n = epoll_wait(outer, events, 256, timeout);
		for (int i = 0; i < n; i++)
		{
			void	   *tag = events[i].data.ptr;

			if (tag == &tag_http)
				continue;
			if (tag == &tag_timer)
				due = true;
			else if (tag == &tag_signal)
				stop = true;
			else if (tag == &tag_stdin)
				stop = stop || stdin_closed();
			else
			{
				((Request *) tag)->gone = true;
				unpark(tag);
			}
		}
		if (due)
			wake_due();
		MHD_run(daemon);
	}

	while (heap_len > 0)
		unpark(heap[0]);
	while (nforever > 0)
		unpark(forever[0]);
	return 0;
}
