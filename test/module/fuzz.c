/*
 * fuzz.c
 *	  What fuzz runs share: chance, splicing, and an attempt that may fail.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fuzz.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

/*
 * Makes the context in which attempts run.
 */
void
fuzz_begin(FuzzRun *run)
{
	run->scratch = AllocSetContextCreate(CurrentMemoryContext, "fuzz",
										 ALLOCSET_DEFAULT_SIZES);
}

/*
 * Calls attempt in a subtransaction and counts how it went.  An error must
 * begin with prefix and must not be an internal one, else it is raised, with
 * the source.  What was palloc'd in the scratch context goes.
 */
bool
fuzz_try(FuzzRun *run, void (*attempt) (void *arg), void *arg,
		 const char *source, const char *prefix)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool good = true;

	CHECK_FOR_INTERRUPTS();
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(run->scratch);
	PG_TRY();
	{
		attempt(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(run->scratch);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (error->sqlerrcode == ERRCODE_INTERNAL_ERROR ||
			error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
			strncmp(error->message, prefix, strlen(prefix)) != 0)
		{
			MemoryContextSwitchTo(context);
			ereport(ERROR,
					(errcode(error->sqlerrcode),
					 errmsg("fuzzing found: %s", error->message),
					 errdetail("Source: %s", source)));
		}
		good = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	MemoryContextReset(run->scratch);
	if (good)
		run->good++;
	else
		run->refused++;
	return good;
}

/*
 * Gives the context back.
 */
void
fuzz_end(FuzzRun *run)
{
	MemoryContextDelete(run->scratch);
}

/*
 * A number from 0 to n - 1.
 */
int
fuzz_below(pg_prng_state *random, int n)
{
	return (int) pg_prng_uint64_range(random, 0, n - 1);
}

/*
 * Puts text in the place of len bytes at `at`; it may be part of buf.
 */
void
fuzz_replace(StringInfo buf, int at, int len, const char *text, int text_len)
{
	char	   *inserted = pnstrdup(text, text_len);
	char	   *tail = pnstrdup(buf->data + at + len, buf->len - at - len);
	int			tail_len = buf->len - at - len;

	buf->len = at;
	appendBinaryStringInfo(buf, inserted, text_len);
	appendBinaryStringInfo(buf, tail, tail_len);
	pfree(inserted);
	pfree(tail);
}
