/*
 * modelserver: a stand-in for the services that chains call.
 *
 * It speaks their wire formats on the loopback interface, its models do real but
 * small work without weights, and it does wrong what a request asks it to do
 * wrong. README.md has the whole of it.
 */
#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define SPARE_FILES 64

Options		options = {.max_connections = 20000};

static void
die(const char *what)
{
	fprintf(stderr, "modelserver: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void
usage(FILE *to)
{
	fputs("usage: modelserver [--port N] [--port-file FILE] [--tls CERT KEY] [--api-key KEY]\n"
		  "                   [--max-connections N] [--log FILE] [--exit-with-stdin]\n",
		  to);
}

static int
parse_number(const char *s, int min, int max)
{
	char	   *end;
	long		n = strtol(s, &end, 10);

	if (*s == '\0' || *end != '\0' || n < min || n > max)
	{
		fprintf(stderr, "modelserver: \"%s\" is not a number from %d to %d\n", s, min, max);
		exit(2);
	}
	return (int) n;
}

static void
parse_options(int argc, char **argv)
{
	static const struct option names[] = {
		{"port", required_argument, NULL, 'p'},
		{"port-file", required_argument, NULL, 'f'},
		{"tls", required_argument, NULL, 't'},
		{"api-key", required_argument, NULL, 'k'},
		{"max-connections", required_argument, NULL, 'm'},
		{"log", required_argument, NULL, 'l'},
		{"exit-with-stdin", no_argument, NULL, 'x'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	int			c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1)
	{
		if (c == 'p')
			options.port = parse_number(optarg, 0, 65535);
		else if (c == 'f')
			options.port_file = optarg;
		else if (c == 'k')
			options.api_key = optarg;
		else if (c == 'l')
			options.log_file = optarg;
		else if (c == 'm')
			options.max_connections = parse_number(optarg, 1, 1000000);
		else if (c == 'x')
			options.exit_with_stdin = true;
		else if (c == 't' && optind < argc)
		{
			options.cert_file = optarg;
			options.key_file = argv[optind++];
		}
		else
		{
			usage(c == 'h' ? stdout : stderr);
			exit(c == 'h' ? 0 : 2);
		}
	}
	if (optind < argc)
	{
		usage(stderr);
		exit(2);
	}
}

/* As many files as the kernel allows us; connections are capped by what we got. */
static void
raise_file_limit(void)
{
	struct rlimit limit;
	rlim_t		want = (rlim_t) options.max_connections + SPARE_FILES;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		die("getrlimit");
	if (limit.rlim_cur < want)
	{
		struct rlimit more = {want, limit.rlim_max < want ? want : limit.rlim_max};

		if (setrlimit(RLIMIT_NOFILE, &more) != 0)
		{
			limit.rlim_cur = limit.rlim_max;
			setrlimit(RLIMIT_NOFILE, &limit);
		}
		getrlimit(RLIMIT_NOFILE, &limit);
	}
	if (limit.rlim_cur < want)
		options.max_connections = limit.rlim_cur > 2 * SPARE_FILES ? (int) (limit.rlim_cur - SPARE_FILES) : SPARE_FILES;
}

/* A listening socket on the loopback interface; *port is set to the one it got. */
static int
listen_on(int *port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t) *port)};
	socklen_t	len = sizeof(address);
	int			fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int			on = 1;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *) &address, sizeof(address)) != 0)
		die("bind");
	if (listen(fd, 65535) != 0)
		die("listen");
	getsockname(fd, (struct sockaddr *) &address, &len);
	*port = ntohs(address.sin_port);
	return fd;
}

static char *
read_file(const char *path)
{
	FILE	   *f = path ? fopen(path, "r") : NULL;
	Buf			b = {0};
	char		some[4096];
	size_t		n;

	if (path == NULL)
		return NULL;
	if (f == NULL)
		die(path);
	while ((n = fread(some, 1, sizeof(some), f)) > 0)
		buf_append(&b, some, n);
	fclose(f);
	buf_append(&b, "", 0);
	return b.data;
}

/* Say where we listen: whoever finds the file finds it complete. */
static void
announce(int port)
{
	Buf			temporary = {0};
	FILE	   *f;

	if (options.port_file == NULL)
	{
		printf("listening on %d\n", port);
		fflush(stdout);
		return;
	}
	buf_printf(&temporary, "%s.%d", options.port_file, (int) getpid());
	f = fopen(temporary.data, "w");
	if (f == NULL || fprintf(f, "%d\n", port) < 0 || fclose(f) != 0 ||
		rename(temporary.data, options.port_file) != 0)
		die(options.port_file);
	buf_free(&temporary);
}

int
main(int argc, char **argv)
{
	struct MHD_Daemon *daemon;
	sigset_t	signals;
	char	   *cert;
	char	   *key;
	int			port;
	int			fd;
	int			code;

	parse_options(argc, argv);
	raise_file_limit();
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);

	if (options.log_file && !count_open_log(options.log_file))
		die(options.log_file);
	port = options.port;
	fd = listen_on(&port);
	cert = read_file(options.cert_file);
	key = read_file(options.key_file);
	daemon = http_start(fd, cert, key);
	if (daemon == NULL)
	{
		fputs("modelserver: libmicrohttpd could not start\n", stderr);
		return 1;
	}
	announce(port);
	code = loop_run(daemon);
	http_stop(daemon);
	count_reset();
	free(cert);
	free(key);
	return code;
}
