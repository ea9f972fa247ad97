/*
 * descriptors.c
 *	  How many connections this process may have.
 *
 * Sockets are not counted with AcquireExternalFD(), which stops at a third of
 * max_files_per_process.  Instead the soft limit is raised so far that
 * PostgreSQL keeps all it may use, once there is a need.
 */
#include "postgres.h"

#include <sys/resource.h>

#include "base/clock.h"
#include "base/settings.h"
#include "http/loop.h"
#include "storage/fd.h"

/* Sockets for each hundred exchanges: idle ones, second addresses. */
#define SOCKETS_PER_CENT 160

/* Look-ups, multi handles' own, and whatever else the process opens. */
#define SOCKETS_BESIDE 64

/* Somebody else may change the limit (prlimit); seen after this time. */
#define LOOK_AGAIN_US 100000

/* Below this the limit is raised. */
#define ROOM_WANTED 64

static int64
exchanges_within(int64 files)
{
	int64		sockets;

	/*
	 * Where PostgreSQL may use nearly everything a third is taken all the
	 * same, as AcquireExternalFD() would: it closes files when it must.
	 */
	sockets = Max(files - max_files_per_process, files / 3);
	return Max(1, (sockets - SOCKETS_BESIDE) * 100 / SOCKETS_PER_CENT);
}

static int64
files_for(int64 exchanges)
{
	return max_files_per_process + SOCKETS_BESIDE +
		exchanges * SOCKETS_PER_CENT / 100 + 1;
}

/* Raises the soft limit for `wanted` exchanges; returns for how many it is. */
static int64
limit_raise(int64 wanted, struct rlimit *limit)
{
	static bool told = false;
	static int64 tried = 0;
	rlim_t		needed = (rlim_t) files_for(wanted);
	int64		granted;

	if (limit->rlim_cur < needed && wanted > tried)
	{
		struct rlimit raised = *limit;

		raised.rlim_cur = Min(needed, limit->rlim_max);
		if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
			*limit = raised;
		tried = wanted;
	}

	granted = exchanges_within((int64) Min(limit->rlim_cur,
										   (rlim_t) PG_INT32_MAX));
	if (granted < wanted && !told)
	{
		told = true;
		ereport(LOG,
				(errmsg("at most %d model calls can be in the air at once in this process",
						(int) granted),
				 errdetail("The process may open %llu files, of which PostgreSQL may use %d.",
						   (unsigned long long) limit->rlim_cur,
						   max_files_per_process),
				 errhint("Raise the limit of open files (RLIMIT_NOFILE) that PostgreSQL is started with.")));
	}
	return granted;
}

/*
 * How many exchanges more may run beside in_flight ones, within
 * chaincall.max_in_flight and what the operating system allows; never below
 * 0.  Raises the soft limit of open files when it is short.
 */
int
descriptors_capacity(int in_flight)
{
	static struct rlimit limit;
	static int64 looked_us = 0;
	static bool known = false;
	int64		wanted = setting_max_in_flight;
	int64		granted;

	/* asked for every call: a system call each time would be felt */
	if (looked_us == 0 || clock_us() - looked_us > LOOK_AGAIN_US)
	{
		known = getrlimit(RLIMIT_NOFILE, &limit) == 0;
		looked_us = clock_us();
	}
	if (!known)
		granted = wanted;
	else
	{
		granted = exchanges_within((int64) Min(limit.rlim_cur,
											   (rlim_t) PG_INT32_MAX));
		if (granted < wanted && granted - in_flight < ROOM_WANTED)
			granted = limit_raise(wanted, &limit);
	}
	return (int) Max(0, Min(granted, wanted) - in_flight);
}
