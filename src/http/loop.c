/*
 * loop.c
 *	  The loop of a process: waiting, turning, delivering.
 *
 * The process waits in one WaitEventSet of three: its latch, the postmaster's
 * death, and an epoll set that holds all of libcurl's sockets.  Before it
 * waits it looks whether anything has arrived, so a busy loop never enters
 * the WaitEventSet at all, and an idle one leaves it within the time the
 * kernel needs.  libcurl's timers are kept in variables and bound the wait.
 *
 * Nothing here is made before the first exchange.  PostgreSQL's errors leave
 * only from places where libcurl is not running and all lists are whole: while
 * waiting, between two passes, and out of an exchange's callback.  Exchanges
 * then stay as they are until their owner cancels them.
 */
#include "postgres.h"

#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/compat.h"
#include "http/loop.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

/* CURLOPT_QUICK_EXIT came with it. */
#define OLDEST_CURL 0x075700
#define OLDEST_CURL_NAME "7.87.0"

/* Sockets are read to the end before a deadline is judged, for so long. */
#define DRAIN_US (100 * INT64CONST(1000))

Loop		http_loop = {.epoll = -1};

/* Making the loop */

/*
 * The process leaves: servers need not work on for it while it cleans up.
 * The rest is the kernel's.
 */
static void
loop_exit(int code, Datum arg)
{
	lanes_abandon();
}

static void
curl_check(void)
{
	curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);

	if (info->version_num < OLDEST_CURL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("libcurl is too old"),
				 errdetail("Version %s is loaded, %s or later is needed.",
						   info->version, OLDEST_CURL_NAME)));
	if ((info->features & CURL_VERSION_ASYNCHDNS) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("libcurl was built without asynchronous look-ups"),
				 errdetail("A slow name server would make a session deaf to cancel requests.")));
}

static void
curl_make(void)
{
	sigset_t	all;
	sigset_t	before;
	CURLcode	result;

	if (http_loop.curl_ready)
		return;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	result = curl_global_init(CURL_GLOBAL_DEFAULT);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (result != CURLE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not initialize libcurl: %s",
						curl_easy_strerror(result))));
	curl_check();

	dlist_init(&http_loop.queue);
	dlist_init(&http_loop.running);
	dlist_init(&http_loop.finished);
	dlist_init(&http_loop.idle);
	dlist_init(&http_loop.unconnected);
	dlist_init(&http_loop.unsent);
	for (int i = 0; i < HOST_BUCKETS; i++)
		dlist_init(&http_loop.hosts[i]);
	http_loop.first_connect_until_us = CLOCK_NEVER;
	http_loop.left_us = clock_us();
	before_shmem_exit(loop_exit, (Datum) 0);
	http_loop.curl_ready = true;
}

static void
share_make(void)
{
	if (http_loop.share != NULL)
		return;
	http_loop.share = curl_share_init();
	if (http_loop.share == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Failed while preparing for model calls.")));
	/* one thread uses it: no locks */
	curl_share_setopt(http_loop.share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
	curl_share_setopt(http_loop.share, CURLSHOPT_SHARE,
					  CURL_LOCK_DATA_SSL_SESSION);
}

static void
epoll_make(void)
{
	if (http_loop.epoll >= 0)
		return;
	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("out of file descriptors for model calls"),
				 errhint("Raise \"max_files_per_process\".")));
	http_loop.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (http_loop.epoll < 0)
	{
		ReleaseExternalFD();
		ereport(ERROR,
				(errcode_for_socket_access(),
				 errmsg("could not create an epoll set: %m")));
	}
}

static void
wait_set_make(void)
{
	WaitEventSet *set = compat_create_wait_event_set(3);

	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(set, WL_SOCKET_READABLE, http_loop.epoll, NULL, NULL);
	http_loop.wait_event = compat_wait_event("ChaincallHttp");
	http_loop.wait_set = set;
}

/*
 * Makes what the loop needs, unless it is there.  Raises
 * insufficient_resources, out_of_memory, feature_not_supported (libcurl);
 * what was made by then serves the next try.
 */
void
loop_ready(void)
{
	if (http_loop.wait_set != NULL)
		return;
	curl_make();
	share_make();
	epoll_make();
	wait_set_make();
}

/* Lists */

static void
pending_clear(HttpExchange *exchange)
{
	if (exchange->is_pending)
		dlist_delete(&exchange->pending);
	exchange->is_pending = false;
}

static void
pending_set(HttpExchange *exchange, dlist_head *list)
{
	pending_clear(exchange);
	dlist_push_tail(list, &exchange->pending);
	exchange->is_pending = true;
}

/* Queues a new exchange, or one that is to connect once more in its time. */
void
loop_queue(HttpExchange *exchange)
{
	bool		again = exchange->is_pending;

	exchange->state = EXCHANGE_QUEUED;
	dlist_push_tail(&http_loop.queue, &exchange->node);
	if (!again)
		loop_connecting(exchange);
}

/* The exchange's time to connect begins. */
void
loop_connecting(HttpExchange *exchange)
{
	exchange->connect_until_us = CLOCK_NEVER;
	if (exchange->connect_timeout_us != CLOCK_NEVER)
		exchange->connect_until_us = loop_attended_us() +
			exchange->connect_timeout_us;
	http_loop.first_connect_until_us =
		Min(http_loop.first_connect_until_us, exchange->connect_until_us);
	pending_set(exchange, &http_loop.unconnected);
}

/* The exchange has a connection and begins to write. */
void
loop_sending(HttpExchange *exchange)
{
	pending_set(exchange, &http_loop.unsent);
}

/* The exchange, in no list now, awaits its delivery. */
void
loop_finish(HttpExchange *exchange)
{
	pending_clear(exchange);
	exchange->state = EXCHANGE_FINISHED;
	dlist_push_tail(&http_loop.finished, &exchange->node);
	http_loop.nfinished++;
}

/* Time */

/*
 * Time that passes while nobody turns the loop is left out of the time to
 * connect.  Called when the loop is entered, and before an exchange starts.
 */
void
loop_attend(void)
{
	int64		now_us = clock_us();

	http_loop.absent_us += now_us - http_loop.left_us;
	http_loop.left_us = now_us;
}

/* The loop has been turned up to now. */
static void
attended(void)
{
	http_loop.left_us = clock_us();
}

/*
 * The clock by which connecting is judged: clock_us() less the time in which
 * nobody turned the loop.
 */
int64
loop_attended_us(void)
{
	return clock_us() - http_loop.absent_us;
}

/* What to say of one whose time to connect is over. */
static void
fault_late(HttpExchange *exchange)
{
	const Host *host = exchange->host;
	bool		lookup = exchange->looks_up ||
		(host->named && host->fresh_until_us == 0);
	char		message[80];

	snprintf(message, sizeof(message), "%s within " INT64_FORMAT " ms",
			 lookup ? "name was not looked up" : "no connection",
			 exchange->connect_timeout_us / 1000);
	exchange_fault(exchange, HTTP_CONNECT, message);
}

/* Fails the exchanges whose time to connect is over. */
static void
judge_connecting(void)
{
	int64		now_us;
	dlist_mutable_iter iter;

	if (http_loop.first_connect_until_us == CLOCK_NEVER)
		return;
	now_us = loop_attended_us();
	if (now_us < http_loop.first_connect_until_us)
		return;

	http_loop.first_connect_until_us = CLOCK_NEVER;
	dlist_foreach_modify(iter, &http_loop.unconnected)
	{
		HttpExchange *exchange = dlist_container(HttpExchange, pending, iter.cur);

		if (now_us < exchange->connect_until_us)
		{
			http_loop.first_connect_until_us =
				Min(http_loop.first_connect_until_us,
					exchange->connect_until_us);
			continue;
		}
		fault_late(exchange);
		if (exchange->state == EXCHANGE_RUNNING)
		{
			lane_remove(exchange);
			host_left(exchange, false);
		}
		else
			dlist_delete(&exchange->node);
		loop_finish(exchange);
	}
}

/* Turning */

/*
 * Lets libcurl do all there is to do without waiting, and then judges who is
 * late.  Handles interrupts, so may raise.
 */
static void
drain(void)
{
	int64		end_us = 0;

	while (lanes_run())
	{
		CHECK_FOR_INTERRUPTS();
		if (end_us == 0)
			end_us = clock_us() + DRAIN_US;
		else if (clock_us() >= end_us)
			break;
	}
	judge_connecting();
}

static int64
wait_end_us(int64 until_us)
{
	int64		end_us = Min(until_us, lanes_timer_us());

	if (http_loop.first_connect_until_us != CLOCK_NEVER)
		end_us = Min(end_us, http_loop.first_connect_until_us +
					 http_loop.absent_us);
	return end_us;
}

/*
 * Waits for a socket, libcurl's timer, a deadline, the latch, or until_us.
 * True: the latch was set.  Handles interrupts, so may raise.
 */
static bool
wait_for_events(int64 until_us)
{
	WaitEvent	events[3];
	int64		end_us = wait_end_us(until_us);
	long		timeout_ms = -1;
	int			nevents;
	bool		latched = false;

	if (end_us != CLOCK_NEVER)
	{
		int64		left_us = Max(0, end_us - clock_us());

		timeout_ms = (long) Min((left_us + 999) / 1000, PG_INT32_MAX / 2);
	}
	nevents = WaitEventSetWait(http_loop.wait_set, timeout_ms, events,
							   lengthof(events), http_loop.wait_event);
	for (int i = 0; i < nevents; i++)
		latched |= (events[i].events & WL_LATCH_SET) != 0;
	attended();
	if (latched)
		ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	return latched;
}

/*
 * Hands the exchanges that have finished by now to their callbacks.  One that
 * raises is released all the same; those behind it wait for the next turn.
 */
static int
deliver(void)
{
	int			count = http_loop.nfinished;
	volatile int delivered = 0;
	HttpExchange *volatile exchange = NULL;

	PG_TRY();
	{
		/* a callback may turn the loop, and so find some delivered */
		while (delivered < count && !dlist_is_empty(&http_loop.finished))
		{
			HttpAnswer	answer;

			exchange = dlist_container(HttpExchange, node,
									   dlist_pop_head_node(&http_loop.finished));
			http_loop.nfinished--;
			exchange->state = EXCHANGE_DELIVERING;
			answer_tell(exchange, &answer);
			exchange->done(exchange, &answer, exchange->arg);
			exchange_release(exchange);
			exchange = NULL;
			delivered++;
		}
	}
	PG_CATCH();
	{
		if (exchange != NULL)
			exchange_release(exchange);
		PG_RE_THROW();
	}
	PG_END_TRY();

	if (http_loop.nexchanges == 0)
		lanes_trim();
	return delivered;
}

/*
 * Turns the loop: sends what was started, reads what has come, and hands
 * finished exchanges to their callbacks.  Waits for the first that finishes,
 * until wait_until_us (clock_us(); 0: does not wait; CLOCK_NEVER: without
 * end), and no longer than until the process's latch is set; with no exchange
 * in flight it just waits.  Returns how many were delivered.
 *
 * Handles interrupts (a cancel request raises query_canceled) and lets errors
 * of callbacks pass; both leave the loop sound.
 */
int
http_turn(int64 wait_until_us)
{
	loop_ready();
	loop_attend();
	for (;;)
	{
		drain();
		if (http_loop.nfinished > 0 || wait_until_us == 0 ||
			clock_us() >= wait_until_us)
			break;
		if (wait_for_events(wait_until_us))
			wait_until_us = 0;
	}
	attended();
	return deliver();
}

static bool
all_sent(void)
{
	return dlist_is_empty(&http_loop.unconnected) &&
		dlist_is_empty(&http_loop.unsent);
}

/*
 * Turns the loop until every exchange has written its whole request or
 * failed, but no longer than wait_until_us (clock_us()).  Calls no callback:
 * what finishes meanwhile is for the next http_turn().  True: all is sent.
 * Handles interrupts.
 */
bool
http_settle(int64 wait_until_us)
{
	if (http_in_flight() == 0)
		return true;

	loop_attend();
	for (;;)
	{
		drain();
		if (all_sent() || clock_us() >= wait_until_us)
			break;
		wait_for_events(wait_until_us);
	}
	attended();
	return all_sent();
}

/*
 * Ends an exchange without a callback: a request that is being written or
 * answered is broken off.  Of an exchange whose callback is running nothing
 * is left to end.  Raises nothing.
 */
void
http_cancel(HttpExchange *exchange)
{
	switch (exchange->state)
	{
		case EXCHANGE_RUNNING:
			lane_remove(exchange);
			host_left(exchange, true);
			break;
		case EXCHANGE_FINISHED:
			http_loop.nfinished--;
			dlist_delete(&exchange->node);
			break;
		case EXCHANGE_QUEUED:
		case EXCHANGE_HELD:
			dlist_delete(&exchange->node);
			break;
		case EXCHANGE_DELIVERING:
		case EXCHANGE_IDLE:
			return;
	}
	pending_clear(exchange);
	exchange_release(exchange);
	if (http_loop.nexchanges == 0)
		lanes_trim();
}

/* How many exchanges are started and neither delivered nor cancelled. */
int
http_in_flight(void)
{
	return http_loop.nexchanges;
}

/*
 * How many exchanges more may be started now, within chaincall.max_in_flight
 * and the limit of open files; 0: none before one has ended.
 */
int
http_capacity(void)
{
	return descriptors_capacity(http_loop.nexchanges);
}
