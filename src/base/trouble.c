/*
 * trouble.c
 *	  Executors that could not start: for whom, why and since when.
 */
#include "postgres.h"

#include "base/shared.h"
#include "base/trouble.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#define MAX_TROUBLES 64			/* more are not remembered */

static Trouble *all;			/* guarded by shared->lock */

/* Bytes of this area; for shmem_request_hook. */
Size
trouble_size(void)
{
	return MAX_TROUBLES * sizeof(Trouble);
}

/* Makes or finds the area; under AddinShmemInitLock. */
void
trouble_init(void)
{
	bool		found;

	all = ShmemInitStruct("chaincall trouble", trouble_size(), &found);
	if (!found)
		memset(all, 0, trouble_size());
}

static Trouble *
find(Oid database, Oid role)
{
	for (int i = 0; i < MAX_TROUBLES; i++)
	{
		if (all[i].reason != TROUBLE_NONE && all[i].database == database &&
			all[i].role == role)
			return &all[i];
	}
	return NULL;
}

/* A free entry, or the one that was not noted for the longest time. */
static Trouble *
find_place(void)
{
	Trouble    *place = &all[0];

	for (int i = 0; i < MAX_TROUBLES; i++)
	{
		if (all[i].reason == TROUBLE_NONE)
			return &all[i];
		if (all[i].last < place->last)
			place = &all[i];
	}
	return place;
}

/* No executor could start for the role; true when that, or why, is news. */
bool
trouble_note(Oid database, Oid role, TroubleReason reason)
{
	TimestampTz now = GetCurrentTimestamp();
	Trouble    *trouble;
	bool		news;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	trouble = find(database, role);
	news = trouble == NULL || trouble->reason != reason;
	if (trouble == NULL)
	{
		trouble = find_place();
		trouble->database = database;
		trouble->role = role;
		trouble->since = now;
	}
	trouble->reason = reason;
	trouble->last = now;
	LWLockRelease(shared->lock);
	return news;
}

/* An executor has started for the role. */
void
trouble_clear(Oid database, Oid role)
{
	Trouble    *trouble;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	trouble = find(database, role);
	if (trouble != NULL)
		trouble->reason = TROUBLE_NONE;
	LWLockRelease(shared->lock);
}

/* When it was noted last; 0: never, or an executor has started since. */
TimestampTz
trouble_last(Oid database, Oid role)
{
	const Trouble *trouble;
	TimestampTz last;

	LWLockAcquire(shared->lock, LW_SHARED);
	trouble = find(database, role);
	last = trouble != NULL ? trouble->last : 0;
	LWLockRelease(shared->lock);
	return last;
}

/*
 * The troubles of a database; *troubles is a copy in the current memory
 * context.  Returns how many.
 */
int
trouble_list(Oid database, Trouble **troubles)
{
	int			n = 0;

	*troubles = palloc(trouble_size());
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < MAX_TROUBLES; i++)
	{
		if (all[i].reason != TROUBLE_NONE && all[i].database == database)
			(*troubles)[n++] = all[i];
	}
	LWLockRelease(shared->lock);
	return n;
}

/* What somebody can do about it; a constant. */
const char *
trouble_hint(TroubleReason reason)
{
	switch (reason)
	{
		case TROUBLE_NO_SLOT:
			return "Raise max_worker_processes and restart the server, or lower chaincall.max_executors.";
		case TROUBLE_NO_LOGIN:
			return "Grant the role LOGIN, which executors need before PostgreSQL 17.";
		case TROUBLE_NO_ROLE:
			return "The role was dropped: cancel its jobs.";
		case TROUBLE_NO_CONNECTION:
			return "The server's log has the reason: perhaps the role lacks CONNECT on the database, or a CONNECTION LIMIT is reached.";
		case TROUBLE_NONE:
			break;
	}
	return "";
}
