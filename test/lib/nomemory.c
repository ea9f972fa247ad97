/*
 * nomemory.c
 *	  A process without memory for tests: preloaded into a server, it refuses
 *	  all but small pieces to every process in whose name (its id) there is a file
 *	  in the directory named by NOMEMORY.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SMALL 1024				/* a machine at its end still has these */

/* glibc's own, under names that are not replaced */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t size);

static int
refused(size_t size)
{
	const char *directory;
	char		path[4096];
	int			save_errno = errno;
	int			found;

	if (size < SMALL || (directory = getenv("NOMEMORY")) == NULL)
		return 0;
	snprintf(path, sizeof(path), "%s/%d", directory, (int) getpid());
	found = access(path, F_OK) == 0;
	errno = found ? ENOMEM : save_errno;
	return found;
}

void *
malloc(size_t size)
{
	return refused(size) ? NULL : __libc_malloc(size);
}

void *
calloc(size_t n, size_t size)
{
	return refused(size > 0 && n > SIZE_MAX / size ? SIZE_MAX : n * size) ? NULL : __libc_calloc(n, size);
}

void *
realloc(void *old, size_t size)
{
	return refused(size) ? NULL : __libc_realloc(old, size);
}
