/*
 * partition.c
 *	  Partitions of chaincall.span, one a day, made ahead of need.
 *
 * A job's id is a UUIDv7, whose first 48 bits are the milliseconds since 1970,
 * so bounds on ids are bounds on time.  A partition is made as a table, then
 * attached: that locks the parent against other ATTACHes only, but the default
 * partition against everybody, so it happens under a short lock_timeout and is
 * tried again later.  It belongs to the extension, or pg_dump would dump it and
 * the restore fail; and it has row security without a policy, because whoever
 * reads it directly goes past the parent's policies.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "queue/partition.h"
#include "queue/queue.h"
#include "queue/upkeep.h"
#include "base/ids.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#define DAYS_AHEAD 2
#define UNIX_EPOCH_US \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* ---- days ---- */

/* The day in UTC of a time not before 1970. */
Day
day_of(TimestampTz time)
{
	return (time + UNIX_EPOCH_US) / USECS_PER_DAY;
}

/* Its first microsecond. */
TimestampTz
day_start(Day day)
{
	return day * USECS_PER_DAY - UNIX_EPOCH_US;
}

/* "span_20261128", palloc'd. */
char *
day_name(Day day)
{
	int			year,
				month,
				mday;

	j2date((int) day + UNIX_EPOCH_JDATE, &year, &month, &mday);
	return psprintf(PARTITION_PREFIX "%04d%02d%02d", year, month, mday);
}

/* The day of a partition of that name; false if it is not such a name. */
bool
day_parse(const char *relname, Day *day)
{
	int			year,
				month,
				mday;
	int			end = 0;

	if (sscanf(relname, PARTITION_PREFIX "%4d%2d%2d%n", &year, &month, &mday,
			   &end) != 3 || relname[end] != '\0')
		return false;
	if (month < 1 || month > 12 || mday < 1 || mday > 31)
		return false;
	*day = date2j(year, month, mday) - UNIX_EPOCH_JDATE;
	return strcmp(day_name(*day), relname) == 0;
}

/* The smallest UUIDv7-like id of that time or later; times before 1970: zero. */
void
uuid_bound(TimestampTz time, pg_uuid_t *uuid)
{
	int64		ms = Max(time + UNIX_EPOCH_US, 0) / 1000;

	memset(uuid, 0, sizeof(pg_uuid_t));
	for (int i = 0; i < 6; i++)
		uuid->data[i] = (unsigned char) (ms >> (8 * (5 - i)));
}

/* ---- making one ---- */

static bool
table_exists(const char *name)
{
	return OidIsValid(get_relname_relid(name,
										get_namespace_oid("chaincall", false)));
}

/* Rows that came before the partition could be made. */
static bool
default_has_rows(const pg_uuid_t *from, const pg_uuid_t *to)
{
	Oid			types[] = {UUIDOID, UUIDOID};
	Datum		values[] = {UUIDPGetDatum(from), UUIDPGetDatum(to)};

	(void) SPI_execute_with_args("SELECT FROM chaincall.span_default d WHERE d.job >= $1 AND d.job < $2 LIMIT 1",
								 2, types, values, NULL, false, 1);
	return SPI_processed > 0;
}

static void
make_table(const char *name, const pg_uuid_t *from, const pg_uuid_t *to)
{
	upkeep_run(psprintf("CREATE TABLE chaincall.%s (LIKE chaincall.span INCLUDING ALL)",
						 name));
	upkeep_run(psprintf("REVOKE ALL ON TABLE chaincall.%s FROM PUBLIC", name));
	upkeep_run(psprintf("ALTER TABLE chaincall.%s ENABLE ROW LEVEL SECURITY",
						 name));
	upkeep_run(psprintf("ALTER TABLE chaincall.span ATTACH PARTITION chaincall.%s"
						 " FOR VALUES FROM ('%s') TO ('%s')", name,
						 ids_uuid_text(from), ids_uuid_text(to)));
	upkeep_run(psprintf("COMMENT ON TABLE chaincall.%s IS"
						 " 'Spans of the jobs that were enqueued on a day (UTC)'",
						 name));
	upkeep_run(psprintf("ALTER EXTENSION chaincall ADD TABLE chaincall.%s",
						 name));
}

/*
 * Where rows are in the default partition already they cannot get one of
 * their own without being moved, under a lock: they stay there.
 */
static void
make_day(Day day)
{
	MemoryContext cxt = CurrentMemoryContext;
	char	   *name = day_name(day);
	pg_uuid_t	from,
				to;

	uuid_bound(day_start(day), &from);
	uuid_bound(day_start(day + 1), &to);
	queue_begin();
	upkeep_set("lock_timeout", PARTITION_LOCK_TIMEOUT);
	if (table_exists(name))
		;
	else if (default_has_rows(&from, &to))
		queue_alert("partition", NULL, InvalidOid,
					psprintf("spans of jobs of %s (UTC) are in the default partition of chaincall.span",
							 name + strlen(PARTITION_PREFIX)),
					"They came before a partition for that day could be made, and leave one by one instead of all at once. Nothing needs to be done.");
	else
		make_table(name, &from, &to);
	upkeep_commit(false, cxt);
}

/*
 * Makes the partitions of today and the next days, where they are lacking.
 * Raises when a lock is not to be had: try again later.
 */
void
queue_make_partitions(void)
{
	Day			today = day_of(GetCurrentTimestamp());

	for (Day day = today; day <= today + DAYS_AHEAD; day++)
		make_day(day);
}

/*
 * The same before any caller runs, so that the first jobs' spans find their
 * partition.  An error is no reason not to begin: it is logged.
 */
void
queue_make_first_partitions(void)
{
	MemoryContext cxt = CurrentMemoryContext;

	PG_TRY();
	{
		queue_make_partitions();
	}
	PG_CATCH();
	{
		EmitErrorReport();
		FlushErrorState();
		queue_abort();
		MemoryContextSwitchTo(cxt);
	}
	PG_END_TRY();
}
