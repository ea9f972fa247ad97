/*
 * maintenance.c
 *	  When what is too old is dropped and deleted: once an hour, or when somebody
 *	  has it done by maintain().
 *
 * Who calls maintain(scheduled => true) has taken it over: as long as he comes
 * back within SCHEDULE_LOST_US, the maintainer waits for him.  So a pg_cron that
 * was taken away fills no disk.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "queue/queue.h"
#include "queue/upkeep.h"
#include "utils/timestamp.h"

#define SCHEDULE_LOST_US (8 * USECS_PER_DAY)	/* it may be a weekly one */

/* What a maintainer that has died may have left undone. */
#define ASKED_BEFORE_US USECS_PER_HOUR

static const char asked_sql[] =
"SELECT m.asked_at, m.scheduled_at FROM chaincall.maintenance m";

/*
 * Is it time?  done: when this process began to do it last, 0 when it has not
 * done it yet.  In a transaction of its own.
 */
bool
queue_maintenance_due(TimestampTz done)
{
	MemoryContext cxt = CurrentMemoryContext;
	TimestampTz asked = 0;
	TimestampTz scheduled = 0;
	bool		waited_for = false;

	queue_begin();
	if (SPI_execute(asked_sql, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read when maintenance was asked for");
	if (SPI_processed > 0)
	{
		bool		unscheduled;
		bool		isnull;

		asked = DatumGetTimestampTz(upkeep_column(0, 1, &isnull));
		scheduled = DatumGetTimestampTz(upkeep_column(0, 2, &unscheduled));
		waited_for = !unscheduled &&
			scheduled > GetCurrentTimestamp() - SCHEDULE_LOST_US;
	}
	upkeep_commit(false, cxt);
	if (!waited_for)
		return true;
	return asked > (done != 0 ? done : MyStartTimestamp - ASKED_BEFORE_US);
}
