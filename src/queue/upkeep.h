/*
 * upkeep.h
 *	  What the duties of the maintainer have in common.
 *
 * Each function that queue.h calls the maintainer's part goes through its
 * work in batches, each in a transaction of its own: begun by queue_begin(),
 * ended by upkeep_commit(), and what others must be told of is told after
 * that.  An error leaves through them; the maintainer aborts and tries again
 * later, from what the tables say.
 */
#ifndef CHAINCALL_UPKEEP_H
#define CHAINCALL_UPKEEP_H

#include "postgres.h"

#include "base/error.h"
#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "nodes/pg_list.h"
#include "queue/alert.h"
#include "utils/uuid.h"

#define UPKEEP_BATCH 1000

/* Jobs of one owner that a statement has changed. */
typedef struct OwnerJobs
{
	Oid			owner;
	TimestampTz rank;			/* the smallest */
	int			unstarted;		/* so many of them had counted */
} OwnerJobs;

/* Jobs that have ended. */
typedef struct EndedJobs
{
	pg_uuid_t  *ids;
	int			n;
	List	   *owners;			/* of OwnerJobs; rank is not set */
} EndedJobs;

extern void upkeep_set(const char *name, const char *value);
extern void upkeep_run(const char *sql);
extern void upkeep_commit(bool durable, MemoryContext cxt);
extern Datum upkeep_column(uint64 row, int column, bool *isnull);
extern pg_uuid_t *upkeep_ids(int column, MemoryContext cxt);
extern Datum upkeep_id_array(const pg_uuid_t *ids, int n);

extern List *upkeep_owners(MemoryContext cxt);
extern int	upkeep_moved(int column);
extern void upkeep_tell(List *owners);

extern void upkeep_ended(EndedJobs *ended, MemoryContext cxt);
extern void upkeep_tell_ended(const EndedJobs *ended);

extern Datum upkeep_error(ErrorClass cls, const char *message,
						  const char *detail, const char *hint);

#endif							/* CHAINCALL_UPKEEP_H */
