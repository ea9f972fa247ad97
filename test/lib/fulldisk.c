/*
 * fulldisk.c
 *	  A disk without room for tests: preloaded into a server, it refuses to make
 *	  files of its databases larger while the file named by FULLDISK exists.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* Would writing up to there make a file of a database larger, on a full disk? */
static int
refused(int fd, off_t end)
{
	const char *flag = getenv("FULLDISK");
	char		link[64];
	char		path[4096];
	struct stat st;
	ssize_t		n;

	if (flag == NULL || access(flag, F_OK) != 0 || fstat(fd, &st) != 0 ||
		end <= st.st_size)
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n <= 0)
		return 0;
	path[n] = '\0';
	return strstr(path, "/base/") != NULL;
}

static off_t
vector_size(const struct iovec *iov, int n)
{
	off_t		size = 0;

	for (int i = 0; i < n; i++)
		size += iov[i].iov_len;
	return size;
}

#define NO_ROOM(fd, end) \
	if (refused(fd, end)) \
	{ \
		errno = ENOSPC; \
		return -1; \
	}

ssize_t
pwrite(int fd, const void *bytes, size_t n, off_t at)
{
	static ssize_t (*next) (int, const void *, size_t, off_t);

	NO_ROOM(fd, at + (off_t) n);
	if (next == NULL)
		next = dlsym(RTLD_NEXT, "pwrite");
	return next(fd, bytes, n, at);
}

ssize_t
pwrite64(int fd, const void *bytes, size_t n, off64_t at)
{
	return pwrite(fd, bytes, n, at);
}

ssize_t
pwritev(int fd, const struct iovec *iov, int count, off_t at)
{
	static ssize_t (*next) (int, const struct iovec *, int, off_t);

	NO_ROOM(fd, at + vector_size(iov, count));
	if (next == NULL)
		next = dlsym(RTLD_NEXT, "pwritev");
	return next(fd, iov, count, at);
}

ssize_t
pwritev64(int fd, const struct iovec *iov, int count, off64_t at)
{
	return pwritev(fd, iov, count, at);
}

int
posix_fallocate(int fd, off_t at, off_t n)
{
	static int	(*next) (int, off_t, off_t);

	if (refused(fd, at + n))
		return ENOSPC;
	if (next == NULL)
		next = dlsym(RTLD_NEXT, "posix_fallocate");
	return next(fd, at, n);
}

int
posix_fallocate64(int fd, off64_t at, off64_t n)
{
	return posix_fallocate(fd, at, n);
}
