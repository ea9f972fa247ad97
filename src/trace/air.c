/*
 * air.c
 *	  What is going on just now, in shared memory.
 *
 * Entries are taken from a shared free list in chunks and kept by the process
 * for its next calls, so that the list's lock is taken once in many calls.  A
 * process has the entries it uses in a list of its own, whose links only it
 * touches, and gives all of them back when it exits.
 *
 * Only the owner writes to an entry.  It makes its change counter odd before
 * and even after; a reader that has seen the same even number before and
 * after its copy has a consistent one.
 */
#include "postgres.h"

#include "base/settings.h"
#include "lib/ilist.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "trace/air.h"
#include "utils/timestamp.h"

#define PATH_LEN 160			/* bytes, with the zero; longer ones are cut */
#define WHAT_LEN 96
#define WHERE_LEN NAMEDATALEN
#define CHUNK 16				/* entries taken or given back at once */
#define KEEP (2 * CHUNK)		/* free ones that a process keeps at most */
#define MAX_TRIES 100			/* to get a consistent copy */

/* What a reader copies. */
typedef struct AirData
{
	AirKind		kind;
	Oid			database;
	Oid			owner;
	int			pid;
	pg_uuid_t	job;
	TimestampTz since;
	int64		known;
	int64		done;
	char		path[PATH_LEN];
	char		what[WHAT_LEN];
	char		where[WHERE_LEN];
} AirData;

struct AirEntry
{
	pg_atomic_uint32 change;	/* odd: being written */
	AirData		data;
	AirEntry   *next_free;		/* in the shared list or the process's */
	dlist_node	node;			/* in the process's list of used ones */
};

typedef struct Air
{
	slock_t		mutex;			/* guards the free list */
	AirEntry   *free;
	int			nentries;
	AirEntry   *entries;
} Air;

static Air *air = NULL;

static AirEntry *own_free = NULL;
static int	own_nfree = 0;
static dlist_head own_used = DLIST_STATIC_INIT(own_used);
static bool joined = false;
static bool left = false;		/* everything is given back, for good */

/* Bytes of this area; for shmem_request_hook. */
Size
air_size(void)
{
	return add_size(MAXALIGN(sizeof(Air)),
					mul_size(setting_max_activity, sizeof(AirEntry)));
}

/* Makes or finds the area; under AddinShmemInitLock. */
void
air_init(void)
{
	bool		found;
	char	   *area = ShmemInitStruct("chaincall activity", air_size(), &found);

	air = (Air *) area;
	if (found)
		return;
	SpinLockInit(&air->mutex);
	air->nentries = setting_max_activity;
	air->entries = (AirEntry *) (area + MAXALIGN(sizeof(Air)));
	air->free = NULL;
	for (int i = air->nentries; i-- > 0;)
	{
		AirEntry   *entry = &air->entries[i];

		memset(entry, 0, sizeof(AirEntry));
		pg_atomic_init_u32(&entry->change, 0);
		entry->next_free = air->free;
		air->free = entry;
	}
}

/* ---- free entries ---- */

static void
take_chunk(void)
{
	SpinLockAcquire(&air->mutex);
	while (own_nfree < CHUNK && air->free != NULL)
	{
		AirEntry   *entry = air->free;

		air->free = entry->next_free;
		entry->next_free = own_free;
		own_free = entry;
		own_nfree++;
	}
	SpinLockRelease(&air->mutex);
}

/* Gives back free entries until the process has `keep` of them. */
static void
give_back(int keep)
{
	SpinLockAcquire(&air->mutex);
	while (own_nfree > keep)
	{
		AirEntry   *entry = own_free;

		own_free = entry->next_free;
		own_nfree--;
		entry->next_free = air->free;
		air->free = entry;
	}
	SpinLockRelease(&air->mutex);
}

static void
begin_change(AirEntry *entry)
{
	pg_atomic_write_u32(&entry->change,
						pg_atomic_read_u32(&entry->change) + 1);
	pg_write_barrier();
}

static void
end_change(AirEntry *entry)
{
	pg_write_barrier();
	pg_atomic_write_u32(&entry->change,
						pg_atomic_read_u32(&entry->change) + 1);
}

static void
release_entry(AirEntry *entry)
{
	begin_change(entry);
	entry->data.kind = AIR_FREE;
	end_change(entry);
	dlist_delete(&entry->node);
	entry->next_free = own_free;
	own_free = entry;
	own_nfree++;
}

static void
leave_all(int code, Datum arg)
{
	while (!dlist_is_empty(&own_used))
		release_entry(dlist_head_element(AirEntry, node, &own_used));
	give_back(0);
	left = true;
}

/* ---- what the owner does ---- */

/* The text (NULL: none) as far as it fits, whole characters. */
static void
keep_text(char *to, size_t size, const char *text)
{
	size_t		len = text ? strlen(text) : 0;

	if (len >= size)
		len = pg_mbcliplen(text, (int) Min(len, (size_t) INT_MAX),
						   (int) size - 1);
	if (len > 0)
		memcpy(to, text, len);
	to[len] = '\0';
}

/*
 * Shows something from now on, until air_leave() or the process's end.  path,
 * what and where are copied, and cut where they are long; NULL for none.
 * Raises nothing.
 */
AirEntry *
air_enter(AirKind kind, const pg_uuid_t *job, Oid owner, const char *path,
		  const char *what, const char *where)
{
	AirEntry   *entry;
	AirData    *data;

	if (air == NULL || left)
		return NULL;
	if (!joined)
	{
		before_shmem_exit(leave_all, (Datum) 0);
		joined = true;
	}
	if (own_free == NULL)
		take_chunk();
	if (own_free == NULL)
		return NULL;
	entry = own_free;
	own_free = entry->next_free;
	own_nfree--;
	dlist_push_head(&own_used, &entry->node);

	data = &entry->data;
	begin_change(entry);
	data->kind = kind;
	data->database = MyDatabaseId;
	data->owner = owner;
	data->pid = MyProcPid;
	data->job = *job;
	data->since = GetCurrentTimestamp();
	data->known = -1;
	data->done = 0;
	keep_text(data->path, PATH_LEN, path);
	keep_text(data->what, WHAT_LEN, what);
	keep_text(data->where, WHERE_LEN, where);
	end_change(entry);
	return entry;
}

/* It goes on with another model. */
void
air_what(AirEntry *entry, const char *what)
{
	if (entry == NULL || left ||
		strncmp(entry->data.what, what, WHAT_LEN - 1) == 0)
		return;
	begin_change(entry);
	keep_text(entry->data.what, WHAT_LEN, what);
	end_change(entry);
}

/* It goes on elsewhere. */
void
air_where(AirEntry *entry, const char *where)
{
	if (entry == NULL || left)
		return;
	begin_change(entry);
	keep_text(entry->data.where, WHERE_LEN, where);
	end_change(entry);
}

/*
 * How far it is: steps and items known so far (-1: not known) and done; of a
 * call, `done` is the number of attempts begun, and `known` whether the last of
 * them is under way (1) or not (0).
 */
void
air_progress(AirEntry *entry, int64 known, int64 done)
{
	if (entry == NULL || left ||
		(entry->data.known == known && entry->data.done == done))
		return;
	begin_change(entry);
	entry->data.known = known;
	entry->data.done = done;
	end_change(entry);
}

/* It is over.  Raises nothing; each entry once. */
void
air_leave(AirEntry *entry)
{
	if (entry == NULL || left)
		return;
	release_entry(entry);
	if (own_nfree > KEEP)
		give_back(CHUNK);
}

/* ---- reading ---- */

/* A consistent copy; false: the entry is free, or changes all the time. */
static bool
copy_entry(AirEntry *entry, AirData *copy)
{
	for (int i = 0; i < MAX_TRIES; i++)
	{
		uint32		before = pg_atomic_read_u32(&entry->change);

		if (before % 2 != 0)
			continue;
		pg_read_barrier();
		if (entry->data.kind == AIR_FREE)
			return false;
		memcpy(copy, &entry->data, sizeof(AirData));
		pg_read_barrier();
		if (pg_atomic_read_u32(&entry->change) == before)
			return copy->kind != AIR_FREE;
	}
	return false;
}

static void
fill_view(AirView *view, const AirData *data)
{
	view->kind = data->kind;
	view->owner = data->owner;
	view->pid = data->pid;
	view->job = data->job;
	view->path = pstrdup(data->path);
	view->what = pstrdup(data->what);
	view->where = pstrdup(data->where);
	view->since = data->since;
	view->known = data->known;
	view->done = data->done;
}

/*
 * What goes on in this database, of one job or (NULL) of all: an array,
 * palloc'd, of *count.  Whose it is the caller has to look at.
 */
AirView *
air_read(const pg_uuid_t *job, int *count)
{
	int			size = 64;
	AirView    *views = palloc(size * sizeof(AirView));
	AirData		data;

	*count = 0;
	for (int i = 0; air != NULL && i < air->nentries; i++)
	{
		if (!copy_entry(&air->entries[i], &data) ||
			data.database != MyDatabaseId ||
			(job != NULL && memcmp(&data.job, job, sizeof(pg_uuid_t)) != 0))
			continue;
		if (*count == size)
		{
			size *= 2;
			views = repalloc_huge(views, size * sizeof(AirView));
		}
		fill_view(&views[(*count)++], &data);
	}
	return views;
}
