/*
 * shared.h
 *	  The part of shared memory that says who lives: workers and databases.
 *
 * One LWLock guards both arrays; they are small and change rarely.  Other
 * modules keep their own areas (queue/board, worker/handover, trace/air,
 * trace/stats) and announce them through the same two hooks, in chaincall.c.
 *
 * A worker is known by its incarnation, a random number that no other life of
 * any worker has.  It stands in job.worker while the worker owns the job; the
 * slot is emptied in before_shmem_exit, and a crash of the cluster empties all
 * of them, so "not in a slot" means dead.
 */
#ifndef CHAINCALL_SHARED_H
#define CHAINCALL_SHARED_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

typedef enum WorkerKind
{
	WORKER_NONE = 0,			/* the slot is free */
	WORKER_LAUNCHER,
	WORKER_CALLER,
	WORKER_EXECUTOR,
	WORKER_MAINTAINER
} WorkerKind;

/* One worker.  Fields are guarded by shared->lock, atomics are the worker's. */
typedef struct WorkerSlot
{
	WorkerKind	kind;
	Oid			database;		/* InvalidOid: the launcher */
	Oid			role;			/* of an executor, else InvalidOid */
	uint64		incarnation;
	pid_t		pid;
	Latch	   *latch;			/* its PGPROC's */
	TimestampTz started_at;
	pg_atomic_uint32 idle;		/* a caller that could take more jobs */
	pg_atomic_uint32 full;		/* a caller with a full window, and more to do */
	pg_atomic_uint32 stop;		/* it shall leave in good order */
	/* what it did in this life, for stat_worker; only it writes */
	pg_atomic_uint64 jobs;		/* claimed; executors: roles' turns */
	pg_atomic_uint64 steps;		/* checkpoints written */
	pg_atomic_uint64 calls;		/* model attempts begun */
	pg_atomic_uint64 errors;	/* steps and attempts that failed */
	pg_atomic_uint64 commits;
	pg_atomic_uint32 jobs_now;	/* in its window */
	pg_atomic_uint32 calls_now; /* in the air */
} WorkerSlot;

typedef enum DatabaseState
{
	DATABASE_UNKNOWN = 0,		/* not looked at since the start */
	DATABASE_PROBING,			/* its maintainer looks for the extension */
	DATABASE_ACTIVE,			/* has the extension: callers may run */
	DATABASE_OFF				/* has none, or must not run here */
} DatabaseState;

/* One database that may have the extension. */
typedef struct DatabaseSlot
{
	Oid			oid;			/* InvalidOid: free */
	DatabaseState state;
	int			barred;			/* commands that need it without workers */
	uint64		generation;		/* counts CREATE and DROP EXTENSION */
	uint64		probed;			/* the generation that state speaks of */
	/* nearest run_at of waiting jobs, microseconds; PG_INT64_MAX: none */
	pg_atomic_uint64 next_due;
	pg_atomic_uint32 look;		/* the maintainer shall look at once */
	pg_atomic_uint32 maintain;	/* and drop and delete what is too old */
} DatabaseSlot;

typedef struct SharedState
{
	LWLock	   *lock;
	uint64		changes;		/* of databases that the launcher looks at */
	bool		missed;			/* one of them found no slot */
	int			nworkers;
	int			ndatabases;
	WorkerSlot *workers;
	DatabaseSlot *databases;
} SharedState;

extern SharedState *shared;		/* NULL: not in shared_preload_libraries */
extern WorkerSlot *my_worker;	/* NULL: not a worker */

extern Size shared_size(void);
extern void shared_init(void);
extern void shared_require(const char *what);

/* workers */
extern bool worker_enter(WorkerKind kind, Oid database, Oid role);
extern bool worker_alive(uint64 incarnation);
extern int	worker_count(WorkerKind kind, Oid database, Oid role);
extern void worker_wake(WorkerKind kind, Oid database);
extern void worker_wake_idle_caller(Oid database);
extern void worker_wake_incarnation(uint64 incarnation);
extern void worker_wake_launcher(void);
extern int	worker_stop(WorkerKind kind, Oid database, int signo);
extern const char *worker_kind_name(WorkerKind kind);

/* databases */
extern DatabaseSlot *database_slot(Oid database);
extern DatabaseSlot *database_slot_make(Oid database);
extern bool database_hold(Oid database, bool make);
extern void database_release(Oid database, bool changed);
extern void database_changes(void);
extern void database_missed(void);
extern void database_probe(Oid database);
extern void database_set_state(Oid database, DatabaseState state);
extern bool database_free(Oid database, uint64 generation);
extern void database_due(Oid database, TimestampTz due);
extern void database_look(Oid database);
extern void database_maintain(Oid database);

#endif							/* CHAINCALL_SHARED_H */
