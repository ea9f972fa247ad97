/*
 * resolver.c
 *	  Names for tests: preloaded into a server, it answers for the domain
 *	  "test" in the place of the system's resolver.
 *
 *	local.test		127.0.0.1
 *	metadata.test	169.254.169.254
 *	gone.test		does not exist
 *	slow.test		127.0.0.1, once the file named by RESOLVER_RELEASE exists
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef int (*Resolver) (const char *, const char *, const struct addrinfo *,
						 struct addrinfo **);

static void
wait_for_release(void)
{
	const char *file = getenv("RESOLVER_RELEASE");
	const struct timespec moment = {0, 2000000};

	while (file != NULL && access(file, F_OK) != 0)
		nanosleep(&moment, NULL);
}

int
getaddrinfo(const char *node, const char *service,
			const struct addrinfo *hints, struct addrinfo **result)
{
	Resolver	real = (Resolver) dlsym(RTLD_NEXT, "getaddrinfo");

	if (node != NULL && strcmp(node, "gone.test") == 0)
		return EAI_NONAME;
	if (node != NULL && strcmp(node, "metadata.test") == 0)
		return real("169.254.169.254", service, hints, result);
	if (node != NULL && strcmp(node, "slow.test") == 0)
	{
		wait_for_release();
		node = "127.0.0.1";
	}
	if (node != NULL && strcmp(node, "local.test") == 0)
		node = "127.0.0.1";
	return real(node, service, hints, result);
}
