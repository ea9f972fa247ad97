/*
 * touch.c
 *	  Which job's data a worker is at just now, in a file that outlives a
 *	  crash of the whole cluster.
 *
 * The file has two halves of as many entries as there are worker slots.  A
 * worker writes into the entry of its slot only; who gets a slot whose entry
 * still accuses a job first moves the accusation to the second half, where
 * recovery finds it.  Should that be full, an old accusation is lost: a job
 * then gets one more try than it should have, which is the lesser evil.
 *
 * The file says nothing after a reboot of the machine (what was written when
 * is anybody's guess then) and in a base backup (pg_stat_tmp is left out).
 * Where it cannot be had, workers run without it, and say so.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/shared.h"
#include "base/touch.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"

#define TOUCH_FILE PG_STAT_TMP_DIR "/chaincall.touch"
#define TOUCH_MAGIC 0x43635431	/* "CcT1" */
#define BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"
#define BOOT_ID_LEN 40

typedef struct TouchFile
{
	uint32		magic;
	uint32		nslots;			/* half of the entries */
	char		boot[BOOT_ID_LEN];	/* of the machine that wrote it */
	TouchEntry	entries[FLEXIBLE_ARRAY_MEMBER];
} TouchFile;

static TouchEntry nowhere;
TouchEntry *my_touch = &nowhere;

static TouchFile *touch_file = NULL;	/* NULL: not to be had */
static bool orderly = false;

static Size
file_size(void)
{
	return offsetof(TouchFile, entries) +
		mul_size(2 * (Size) shared->nworkers, sizeof(TouchEntry));
}

/* This run of the machine, as far as the system tells. */
static void
read_boot_id(char *boot)
{
	int			fd;

	memset(boot, 0, BOOT_ID_LEN);
	fd = BasicOpenFile(BOOT_ID_FILE, O_RDONLY);
	if (fd < 0)
		return;
	if (read(fd, boot, BOOT_ID_LEN - 1) < 0)
		memset(boot, 0, BOOT_ID_LEN);
	close(fd);
}

/* Writes the file anew; what is mapped of an old one stays as it is. */
static bool
make_file(const TouchFile *head)
{
	const char *temporary = TOUCH_FILE ".new";
	Size		size = file_size();
	char	   *zeroed = palloc0(size);
	bool		written;
	int			fd;

	memcpy(zeroed, head, offsetof(TouchFile, entries));
	fd = BasicOpenFilePerm(temporary, O_RDWR | O_CREAT | O_TRUNC | PG_BINARY,
						   0600);
	if (fd < 0)
		return false;
	errno = 0;
	/* all of it: a store into a hole of a full disk would be a SIGBUS */
	written = write(fd, zeroed, size) == (ssize_t) size;
	if (!written && errno == 0)
		errno = ENOSPC;
	pfree(zeroed);
	return close(fd) == 0 && written && rename(temporary, TOUCH_FILE) == 0;
}

/* Maps the file if it is what it should be; else NULL. */
static TouchFile *
map_file(const TouchFile *head)
{
	Size		size = file_size();
	struct stat st;
	void	   *mapped = MAP_FAILED;
	int			fd = BasicOpenFile(TOUCH_FILE, O_RDWR | PG_BINARY);

	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
		st.st_size == (off_t) size)
		mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (mapped == MAP_FAILED)
		return NULL;
	if (memcmp(mapped, head, offsetof(TouchFile, entries)) == 0)
		return mapped;
	munmap(mapped, size);
	return NULL;
}

/* Maps the file, made where there is none; under shared->lock. */
static TouchFile *
open_file(void)
{
	TouchFile	head;
	TouchFile  *mapped;

	memset(&head, 0, sizeof(head));
	head.magic = TOUCH_MAGIC;
	head.nslots = shared->nworkers;
	read_boot_id(head.boot);
	mapped = map_file(&head);
	if (mapped == NULL && make_file(&head))
		mapped = map_file(&head);
	return mapped;
}

static bool
alive(uint64 incarnation)
{
	for (int i = 0; i < shared->nworkers; i++)
	{
		if (shared->workers[i].kind != WORKER_NONE &&
			shared->workers[i].incarnation == incarnation)
			return true;
	}
	return false;
}

/* Takes an accusation out of a slot's entry; under shared->lock. */
static void
keep_accusation(const TouchEntry *entry, int slot)
{
	TouchEntry *kept = &touch_file->entries[shared->nworkers];
	int			to = slot;

	for (int i = 0; i < shared->nworkers; i++)
	{
		if (!kept[i].set)
		{
			to = i;
			break;
		}
	}
	kept[to] = *entry;
}

/* Worker exit, while its slot still says that it lives. */
static void
touch_leave(int code, Datum arg)
{
	if (code == 0 || orderly || !PostmasterIsAlive())
		touch_clear();
	my_touch = &nowhere;
}

/*
 * Gives this worker its entry; after worker_enter().  Never raises: without
 * the file nothing is accused.
 */
void
touch_attach(void)
{
	int			slot = my_worker - shared->workers;
	TouchEntry *entry;
	int			saved_errno;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (touch_file == NULL)
		touch_file = open_file();
	saved_errno = errno;
	if (touch_file == NULL)
	{
		LWLockRelease(shared->lock);
		/* one of a database says it for all */
		if (my_worker->kind != WORKER_MAINTAINER)
			return;
		errno = saved_errno;
		ereport(WARNING,
				(errcode_for_file_access(),
				 errmsg("could not make file \"%s\": %m", TOUCH_FILE),
				 errdetail("Jobs that crash their worker will not be found out.")));
		return;
	}
	entry = &touch_file->entries[slot];
	if (entry->set)
		keep_accusation(entry, slot);
	entry->set = 0;
	entry->incarnation = my_worker->incarnation;
	entry->database = my_worker->database;
	my_touch = entry;
	LWLockRelease(shared->lock);
	before_shmem_exit(touch_leave, (Datum) 0);
}

/* This process leaves because it was told to: no job is to blame. */
void
touch_orderly(void)
{
	orderly = true;
}

/*
 * The accusations against jobs of this database: entries that dead workers
 * have left set.  Returns how many; *entries is a copy in the current memory
 * context.  Each stands until touch_forget().
 */
int
touch_left(TouchEntry **entries)
{
	int			n = 0;

	*entries = NULL;
	if (touch_file == NULL)
		return 0;
	*entries = palloc(2 * shared->nworkers * sizeof(TouchEntry));
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < 2 * shared->nworkers; i++)
	{
		const TouchEntry *entry = &touch_file->entries[i];

		if (entry->set && entry->database == MyDatabaseId &&
			!alive(entry->incarnation))
			(*entries)[n++] = *entry;
	}
	LWLockRelease(shared->lock);
	return n;
}

/* What that dead worker has accused is dealt with. */
void
touch_forget(uint64 incarnation)
{
	if (touch_file == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < 2 * shared->nworkers; i++)
	{
		TouchEntry *entry = &touch_file->entries[i];

		if (entry->set && entry->incarnation == incarnation &&
			!alive(incarnation))
			entry->set = 0;
	}
	LWLockRelease(shared->lock);
}
