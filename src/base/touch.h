/*
 * touch.h
 *	  Which job's data a worker is at just now, told so that it outlives a
 *	  crash of the whole cluster: how a job that kills is found out.
 *
 * Each worker has an entry (by the index of its WorkerSlot) in a file in
 * pg_stat_tmp that all of them map.  touch_job() is a plain store.  An entry
 * that is still set when its worker is dead accuses the job in it, until
 * touch_forget().
 *
 * What leaves the entry set is a crash of the worker itself, or a FATAL error
 * of its own.  Who is told to leave, who exits with 0, who loses his postmaster
 * and who gets SIGQUIT because another process crashed clears it.
 */
#ifndef CHAINCALL_TOUCH_H
#define CHAINCALL_TOUCH_H

#include "postgres.h"

#include "port/atomics.h"
#include "utils/uuid.h"

typedef struct TouchEntry
{
	uint64		incarnation;	/* 0: never used */
	uint64		claimant;		/* whom the job says it is with */
	Oid			database;		/* that the job is in */
	pg_uuid_t	job;
	volatile uint32 set;		/* job is being touched */
} TouchEntry;

/* Where this process's entry is; a dummy in processes that are no workers. */
extern TouchEntry *my_touch;

extern void touch_attach(void);
extern int	touch_left(TouchEntry **entries);
extern void touch_forget(uint64 incarnation);
extern void touch_orderly(void);

/* The worker is about to work on the data of a job that claimant has. */
static inline void
touch_job_of(const pg_uuid_t *job, uint64 claimant)
{
	my_touch->job = *job;
	my_touch->claimant = claimant;
	pg_compiler_barrier();
	my_touch->set = 1;
}

/* The same of a job of its own. */
static inline void
touch_job(const pg_uuid_t *job)
{
	touch_job_of(job, my_touch->incarnation);
}

/* It has left the job's data; safe in signal handlers. */
static inline void
touch_clear(void)
{
	my_touch->set = 0;
}

#endif							/* CHAINCALL_TOUCH_H */
