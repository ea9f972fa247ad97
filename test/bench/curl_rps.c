/*
 * curl_rps: the yardstick. A bare libcurl client that posts the same small body
 * again and again to one address, so that the figures of chaincall can be read
 * against what the machine and libcurl can do at all.
 *
 *   curl_rps URL [requests] [in_flight] [body-file]
 *       one thread, one multi handle driven by curl_multi_socket_action and
 *       epoll, keep-alive, in_flight requests in the air (64 unless given)
 *   curl_rps --latency URL [requests]
 *       one connection, one request after the other
 *
 * A URL without a path gets /v1/chat/completions. Figures go to standard output
 * as "figure NAME VALUE UNIT", the rest to standard error. Any request that does
 * not come back with status 200 makes it fail.
 */
#include <curl/curl.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MAX_EVENTS 256
#define WARM_UP	   50

typedef struct Client
{
	CURLM	   *multi;
	int			epoll;
	long		timeout_ms;		/* libcurl's timer; -1: none */
	double		timer_start;
	long		to_start;
	long		to_finish;
	long		failed;
	char		failure[CURL_ERROR_SIZE + 32];
} Client;

static const char *body = "{\"model\": \"fixed\", \"messages\": [{\"role\": \"user\", \"content\": \"Say hello\"}]}";
static long body_len;
static struct curl_slist *headers;
static char *url;

static void __attribute__((noreturn))
die(const char *what)
{
	fprintf(stderr, "curl_rps: %s\n", what);
	exit(1);
}

static double
now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

/* CPU time of this process, user and system, in seconds. */
static double
cpu_s(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double) (u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
		   (double) (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static size_t
swallow(char *data, size_t size, size_t n, void *cls)
{
	(void) data;
	(void) cls;
	return size * n;
}

static CURL *
new_request(void)
{
	CURL	   *easy = curl_easy_init();

	if (easy == NULL)
		die("curl_easy_init failed");
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, body_len);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, swallow);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_TIMEOUT, 60L);
	return easy;
}

/* NULL when the request came back as it should, else what went wrong. */
static const char *
failure_of(CURL *easy, CURLcode result)
{
	static char text[CURL_ERROR_SIZE + 32];
	long		status = 0;

	if (result != CURLE_OK)
		return curl_easy_strerror(result);
	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	if (status == 200)
		return NULL;
	snprintf(text, sizeof(text), "status %ld", status);
	return text;
}

/* libcurl wants a socket watched, or no more. */
static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *cls, void *known)
{
	Client	   *c = cls;
	struct epoll_event ev = {.data.fd = fd};

	(void) easy;
	if (what == CURL_POLL_REMOVE)
	{
		epoll_ctl(c->epoll, EPOLL_CTL_DEL, fd, NULL);
		curl_multi_assign(c->multi, fd, NULL);
		return 0;
	}
	ev.events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
	epoll_ctl(c->epoll, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev);
	if (known == NULL)
		curl_multi_assign(c->multi, fd, c);
	return 0;
}

static int
on_timer(CURLM *multi, long timeout_ms, void *cls)
{
	Client	   *c = cls;

	(void) multi;
	c->timeout_ms = timeout_ms;
	c->timer_start = timeout_ms > 0 ? now_s() : 0;
	return 0;
}

static void
start(Client *c, CURL *easy)
{
	if (c->to_start == 0)
		return;
	c->to_start--;
	if (curl_multi_add_handle(c->multi, easy) != CURLM_OK)
		die("curl_multi_add_handle failed");
}

/* Take what is finished and start others in its place. */
static void
collect(Client *c)
{
	CURLMsg    *msg;
	int			left;

	while ((msg = curl_multi_info_read(c->multi, &left)) != NULL)
	{
		CURL	   *easy = msg->easy_handle;
		const char *failure = failure_of(easy, msg->data.result);

		if (failure && c->failed++ == 0)
			snprintf(c->failure, sizeof(c->failure), "%s", failure);
		c->to_finish--;
		curl_multi_remove_handle(c->multi, easy);
		start(c, easy);
	}
}

/* How long epoll may wait for libcurl's timer's sake, in ms. */
static int
wait_ms(const Client *c)
{
	double		passed;

	if (c->timeout_ms <= 0)
		return (int) c->timeout_ms;
	passed = (now_s() - c->timer_start) * 1000;
	return passed >= (double) c->timeout_ms ? 0 : (int) ((double) c->timeout_ms - passed) + 1;
}

static void
drive(Client *c)
{
	struct epoll_event events[MAX_EVENTS];
	int			running;

	while (c->to_finish > 0)
	{
		int			wait = wait_ms(c);
		int			n = epoll_wait(c->epoll, events, MAX_EVENTS, wait);

		if (wait == 0 || n == 0)
		{
			c->timeout_ms = -1;
			curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
		}
		for (int i = 0; i < n; i++)
			curl_multi_socket_action(c->multi, events[i].data.fd,
									 (events[i].events & EPOLLIN ? CURL_CSELECT_IN : 0) |
										 (events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
										 (events[i].events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0),
									 &running);
		collect(c);
	}
}

static int
measure_rate(long requests, long in_flight)
{
	Client		c = {.timeout_ms = -1, .to_start = requests, .to_finish = requests};
	CURL	  **easy = calloc((size_t) in_flight, sizeof(*easy));
	double		start_s;
	double		start_cpu;
	double		took;
	double		cpu;

	c.multi = curl_multi_init();
	c.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (c.multi == NULL || c.epoll < 0 || easy == NULL)
		die("cannot set up");
	curl_multi_setopt(c.multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(c.multi, CURLMOPT_SOCKETDATA, &c);
	curl_multi_setopt(c.multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(c.multi, CURLMOPT_TIMERDATA, &c);
	curl_multi_setopt(c.multi, CURLMOPT_MAXCONNECTS, in_flight);
	for (long i = 0; i < in_flight; i++)
		easy[i] = new_request();

	start_s = now_s();
	start_cpu = cpu_s();
	for (long i = 0; i < in_flight; i++)
		start(&c, easy[i]);
	drive(&c);
	took = now_s() - start_s;
	cpu = cpu_s() - start_cpu;

	for (long i = 0; i < in_flight; i++)
		curl_easy_cleanup(easy[i]);
	curl_multi_cleanup(c.multi);
	close(c.epoll);
	free(easy);
	if (c.failed > 0)
	{
		fprintf(stderr, "curl_rps: %ld of %ld requests failed, first: %s\n", c.failed, requests, c.failure);
		return 1;
	}
	printf("figure curl_rps %.0f req/s\n", (double) requests / took);
	fprintf(stderr, "%ld requests, %ld in flight: %.3f s, %.1f us CPU each\n",
			requests, in_flight, took, cpu * 1e6 / (double) requests);
	return 0;
}

static int
compare_doubles(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return x < y ? -1 : x > y;
}

static int
measure_latency(long requests)
{
	CURL	   *easy = new_request();
	double	   *ms = calloc((size_t) requests, sizeof(double));

	if (ms == NULL)
		die("cannot set up");
	for (long i = -WARM_UP; i < requests; i++)
	{
		double		start_s = now_s();
		const char *failure = failure_of(easy, curl_easy_perform(easy));

		if (failure)
			die(failure);
		if (i >= 0)
			ms[i] = (now_s() - start_s) * 1000;
	}
	qsort(ms, (size_t) requests, sizeof(double), compare_doubles);
	printf("figure bare_p50_ms %.4f ms\n", ms[requests / 2]);
	printf("figure bare_p99_ms %.4f ms\n", ms[requests * 99 / 100]);
	curl_easy_cleanup(easy);
	free(ms);
	return 0;
}

static void
read_body(const char *path)
{
	FILE	   *f = fopen(path, "rb");
	long		size;
	char	   *data;

	if (f == NULL || fseek(f, 0, SEEK_END) != 0 || (size = ftell(f)) < 0)
		die("cannot read the body file");
	rewind(f);
	data = malloc((size_t) size + 1);
	if (data == NULL || fread(data, 1, (size_t) size, f) != (size_t) size)
		die("cannot read the body file");
	fclose(f);
	body = data;
	body_len = size;
}

static void __attribute__((noreturn))
usage(void)
{
	die("usage: curl_rps URL [requests] [in_flight] [body-file], or curl_rps --latency URL [requests]");
}

static long
number_argument(int argc, char **argv, int at, long otherwise)
{
	long		n = at < argc ? atol(argv[at]) : otherwise;

	if (n < 1)
		usage();
	return n;
}

static void
set_url(const char *given)
{
	const char *host = strstr(given, "://");
	bool		bare = strchr(host ? host + 3 : given, '/') == NULL;

	url = malloc(strlen(given) + 32);
	if (url == NULL)
		die("out of memory");
	sprintf(url, "%s%s", given, bare ? "/v1/chat/completions" : "");
}

int
main(int argc, char **argv)
{
	bool		latency = argc > 1 && strcmp(argv[1], "--latency") == 0;
	int			first = latency ? 2 : 1;
	int			code;

	if (argc <= first)
		usage();
	set_url(argv[first]);
	body_len = (long) strlen(body);
	curl_global_init(CURL_GLOBAL_ALL);
	headers = curl_slist_append(NULL, "Content-Type: application/json");
	headers = curl_slist_append(headers, "Expect:");
	if (latency)
		code = measure_latency(number_argument(argc, argv, 3, 2000));
	else
	{
		long		requests = number_argument(argc, argv, 2, 100000);
		long		in_flight = number_argument(argc, argv, 3, 64);

		if (argc > 4)
			read_body(argv[4]);
		code = measure_rate(requests, in_flight);
	}
	curl_slist_free_all(headers);
	curl_global_cleanup();
	free(url);
	return code;
}
