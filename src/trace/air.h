/*
 * air.h
 *	  What is going on just now: jobs in windows, calls and steps in the air,
 *	  in shared memory, for the views activity and job_status.
 *
 * An entry belongs to the process that entered it and goes with it.  NULL (no
 * shared memory, no room) is a good entry everywhere.
 */
#ifndef CHAINCALL_AIR_H
#define CHAINCALL_AIR_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/uuid.h"

typedef enum AirKind
{
	AIR_FREE = 0,
	AIR_JOB,					/* a job in a caller's window, or a session's run */
	AIR_CALL,					/* a model call, from its start to its delivery */
	AIR_STEP					/* a statement or function */
} AirKind;

typedef struct AirEntry AirEntry;

/* A consistent copy of one entry.  Texts are cut and never NULL. */
typedef struct AirView
{
	AirKind		kind;
	Oid			owner;
	int			pid;
	pg_uuid_t	job;
	char	   *path;			/* "": of a job as a whole */
	char	   *what;			/* model, chain, "sql", a function */
	char	   *where;			/* server; "": none */
	TimestampTz since;
	int64		known;			/* steps and items known so far, or -1; of a
								 * call: 0 between two attempts */
	int64		done;			/* of these; of a call: attempts begun */
} AirView;

extern Size air_size(void);
extern void air_init(void);
extern AirEntry *air_enter(AirKind kind, const pg_uuid_t *job, Oid owner,
						   const char *path, const char *what,
						   const char *where);
extern void air_what(AirEntry *entry, const char *what);
extern void air_where(AirEntry *entry, const char *where);
extern void air_progress(AirEntry *entry, int64 known, int64 done);
extern void air_leave(AirEntry *entry);
extern AirView *air_read(const pg_uuid_t *job, int *count);

#endif							/* CHAINCALL_AIR_H */
