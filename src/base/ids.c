/*
 * ids.c
 *	  UUIDv7 and random span ids.
 */
#include "postgres.h"

#include "base/ids.h"
#include "common/pg_prng.h"
#include "port/pg_bswap.h"
#include "utils/timestamp.h"

/*
 * A version 7 UUID (RFC 9562, 5.7): 48 bits of Unix milliseconds, then
 * random bits.  Ids of one process grow strictly: within a millisecond the
 * twelve bits behind the version count the microseconds' share of it and, when
 * the clock stands still, one more than before.
 */
void
ids_uuid7(pg_uuid_t *uuid)
{
	static uint64 last = 0;
	uint64		unix_us;
	uint64		stamp;

	if (!pg_strong_random(uuid->data, UUID_LEN))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));

	unix_us = (uint64) (GetCurrentTimestamp() +
						(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) *
						USECS_PER_DAY);
	/* milliseconds, then the microseconds within as a 12-bit fraction */
	stamp = ((unix_us / 1000) << 12) | ((unix_us % 1000) * 4096 / 1000);
	if (stamp <= last)
		stamp = last + 1;
	last = stamp;

	for (int i = 0; i < 6; i++)
		uuid->data[i] = (unsigned char) (stamp >> (12 + 8 * (5 - i)));
	uuid->data[6] = 0x70 | (unsigned char) ((stamp >> 8) & 0x0f);
	uuid->data[7] = (unsigned char) (stamp & 0xff);
	uuid->data[8] = 0x80 | (uuid->data[8] & 0x3f);
}

/* A random span id; never 0, which W3C trace context forbids. */
uint64
ids_span(void)
{
	uint64		id;

	do
		id = pg_prng_uint64(&pg_global_prng_state);
	while (id == 0);
	return id;
}

/* The usual text form, palloc'd. */
char *
ids_uuid_text(const pg_uuid_t *uuid)
{
	char	   *text = palloc(37);
	char	   *p = text;

	for (int i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		snprintf(p, 3, "%02x", uuid->data[i]);
		p += 2;
	}
	return text;
}
