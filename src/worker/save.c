/*
 * save.c
 *	  What a caller has to write: checkpoints, questions (saveask.c) and the
 *	  ends of jobs.
 *
 * Both are gathered and committed together, when SAVE_ITEMS have come or the
 * oldest has waited SAVE_US, and at once when nothing else is going on.  An
 * end is in the same transaction as the checkpoints before it.
 *
 * A batch that fails is kept.  Where the fault is in a row (somebody has
 * already written that checkpoint, or an output that no row can hold) the
 * batch is written row by row, and the job of a bad row fails; where it is in
 * the database (no room on the disk, no new transactions) it is tried again
 * until it goes through: nothing is lost meanwhile, and nothing is claimed.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/json.h"
#include "base/shared.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "worker/caller.h"

#define SAVE_ITEMS 100
#define SAVE_US 1000
#define LOCKED_US 20000			/* before a locked row is tried again */
#define FAULT_US 1000000		/* before a batch is tried again */

typedef struct PendingSpan
{
	Job		   *job;			/* NULL: it has ended */
	pg_uuid_t	id;
	SpanRow    *row;
} PendingSpan;

typedef struct PendingEnd
{
	dlist_node	node;
	Oid			owner;
	JobEnd		end;
	bool		settled;		/* committed singly: done and lost hold */
	MemoryContext cxt;			/* holds all of it */
} PendingEnd;

static MemoryContext span_cxt = NULL;	/* rows, until they are committed */
static PendingSpan *spans = NULL;
static int	nspans = 0;
static int	spans_room = 0;
static dlist_head ends = DLIST_STATIC_INIT(ends);
static int	nends = 0;			/* that have not been tried */
static int	nlocked = 0;
static int64 oldest_us = 0;		/* when the oldest item came; 0: none */
static int64 not_before_us = 0; /* after a fault, or for locked rows */
static bool in_trouble = false;

/* Something has come that is to be written. */
void
save_note(void)
{
	if (oldest_us == 0)
		oldest_us = clock_us();
}

/* Where a row for save_span() and all it points at is made. */
MemoryContext
save_context(void)
{
	if (span_cxt == NULL)
		span_cxt = AllocSetContextCreate(caller.cxt, "chaincall spans",
										 ALLOCSET_DEFAULT_SIZES);
	return span_cxt;
}

/* A row to be written, made in save_context(); counts in job->unsaved. */
void
save_span(Job *job, SpanRow *row)
{
	if (nspans == spans_room)
	{
		spans_room = spans_room ? spans_room * 2 : 2 * SAVE_ITEMS;
		spans = spans ? repalloc_huge(spans, spans_room * sizeof(PendingSpan)) :
			MemoryContextAlloc(caller.cxt, spans_room * sizeof(PendingSpan));
	}
	spans[nspans].job = job;
	spans[nspans].id = row->job;
	spans[nspans++].row = row;
	job->unsaved++;
	save_note();
}

/* The end of a job, which is copied. */
void
save_end(JobEnd *end, Oid owner)
{
	MemoryContext cxt = AllocSetContextCreate(caller.cxt, "chaincall end",
											  ALLOCSET_SMALL_SIZES);
	PendingEnd *pending = MemoryContextAllocZero(cxt, sizeof(PendingEnd));
	MemoryContext old = MemoryContextSwitchTo(cxt);

	pending->cxt = cxt;
	pending->owner = owner;
	pending->end = *end;
	if (end->output)
		pending->end.output = json_copy(cxt, end->output);
	if (end->error)
		pending->end.error = json_copy(cxt, end->error);
	pending->end.deadlines = json_copy(cxt, end->deadlines);
	if (end->nasks > 0)
	{
		pending->end.asks = palloc(end->nasks * sizeof(char *));
		for (int i = 0; i < end->nasks; i++)
			pending->end.asks[i] = pstrdup(end->asks[i]);
	}
	pending->end.input = json_copy(cxt, end->input);
	MemoryContextSwitchTo(old);
	dlist_push_tail(&ends, &pending->node);
	nends++;
	save_note();
}

/* Is there anything that is not committed? */
bool
save_pending(void)
{
	return nspans > 0 || saveask_count() > 0 || !dlist_is_empty(&ends);
}

/*
 * When save_commit() is to be called, clock_us(); CLOCK_NEVER: there is
 * nothing.  busy: other work is at hand.
 */
int64
save_due(bool busy)
{
	int			nitems = nspans + saveask_count() + nends;
	int64		due;

	if (!save_pending())
		return saveask_due();
	if (nitems == 0)
		return not_before_us;	/* locked ones only */
	due = !busy || nitems >= SAVE_ITEMS ? 0 : oldest_us + SAVE_US;
	return Max(due, not_before_us);
}

/* Is the database not able to take what is pending? */
bool
save_in_trouble(void)
{
	return in_trouble;
}

/* ---- writing ---- */

static int
gather_ends(JobEnd ***list)
{
	int			n = 0;
	dlist_iter	iter;

	*list = palloc((nends + nlocked + 1) * sizeof(JobEnd *));
	dlist_foreach(iter, &ends)
	{
		PendingEnd *pending = dlist_container(PendingEnd, node, iter.cur);

		if (!pending->settled)
			(*list)[n++] = &pending->end;
	}
	return n;
}

static void
write_batch(void)
{
	queue_begin();
	if (nspans > 0)
	{
		SpanRow   **rows = palloc(nspans * sizeof(SpanRow *));

		for (int i = 0; i < nspans; i++)
			rows[i] = spans[i].row;
		queue_checkpoint(rows, nspans, caller.incarnation);
	}
	saveask_write();
	if (!dlist_is_empty(&ends))
	{
		JobEnd	  **list;
		int			n = gather_ends(&list);

		if (n > 0)
			queue_finish(list, n, caller.incarnation);
	}
	queue_commit(true);
	pg_atomic_fetch_add_u64(&my_worker->commits, 1);
}

/* Whether the fault is in what we write, not in the database's state. */
bool
save_is_rows_fault(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION:
		case ERRCODE_DATA_EXCEPTION:
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
			return true;
		default:
			return sqlstate == ERRCODE_CHAIN_LIMIT;
	}
}

/*
 * Runs work; the error as data after an abort, or NULL.  The memory context is
 * the same afterwards, which a commit leaves for TopMemoryContext.
 */
StepError *
save_caught(void (*work) (void))
{
	MemoryContext cxt = CurrentMemoryContext;
	StepError  *volatile error = NULL;

	PG_TRY();
	{
		work();
		MemoryContextSwitchTo(cxt);
	}
	PG_CATCH();
	{
		ErrorData  *edata = bounded_caught(cxt);

		pgstat_report_stat(false);
		error = step_error_from(edata);
		FreeErrorData(edata);
	}
	PG_END_TRY();
	return error;
}

static void
drop_saved_spans(int n)
{
	for (int i = 0; i < n; i++)
	{
		if (spans[i].job != NULL)
			job_saved(spans[i].job, 1);
	}
	pg_atomic_fetch_add_u64(&my_worker->steps, n);
	nspans = 0;
	saveask_written();
	MemoryContextReset(save_context());
}

/* After a commit: who waits for a result is told, rows locked stay. */
static void
settle_ends(void)
{
	pg_uuid_t  *done = palloc((nends + nlocked + 1) * sizeof(pg_uuid_t));
	int			ndone = 0;
	dlist_mutable_iter iter;

	nends = nlocked = 0;
	dlist_foreach_modify(iter, &ends)
	{
		PendingEnd *pending = dlist_container(PendingEnd, node, iter.cur);

		if (!pending->end.done && !pending->end.lost)
		{
			nlocked++;
			continue;
		}
		if (pending->end.done)
		{
			if (pending->end.requeued)
				board_tell(pending->owner, pending->end.rank);
			else if (strcmp(pending->end.state, "waiting") == 0)
				database_due(MyDatabaseId, pending->end.run_at);
			else
				done[ndone++] = pending->end.job;
		}
		else
			ereport(LOG,
					(errmsg("a job was taken from this worker before its end was written")));
		dlist_delete(&pending->node);
		MemoryContextDelete(pending->cxt);
	}
	if (ndone > 0)
		waiter_notify(done, ndone);
	pfree(done);
	not_before_us = nlocked > 0 ? clock_us() + LOCKED_US : 0;
	oldest_us = 0;
}

static SpanRow *single_span;
static JobEnd *single_end;

static void
write_span(void)
{
	queue_begin();
	queue_checkpoint(&single_span, 1, caller.incarnation);
	queue_commit(true);
}

static void
write_end(void)
{
	queue_begin();
	queue_finish(&single_end, 1, caller.incarnation);
	queue_commit(true);
}

/* Has the job of a span that cannot be written fail. */
static void
refuse_span(PendingSpan *span, StepError *error)
{
	Job		   *job = span->job;

	if (job == NULL || error->sqlstate == ERRCODE_UNIQUE_VIOLATION)
		return;					/* a duplicate is as good as ours */
	error->step = span->row->path;
	job_end_as(job, "failed", error);
}

/* An end that cannot be written becomes one that can. */
static void
refuse_end(PendingEnd *pending, StepError *error)
{
	MemoryContext old = MemoryContextSwitchTo(pending->cxt);

	pending->end.state = "failed";
	pending->end.output = NULL;
	pending->end.waits_on = NULL;
	pending->end.deadlines = NULL;
	pending->end.nasks = 0;
	pending->end.asked = true;
	pending->end.input = NULL;
	pending->end.error = step_error_json(error);
	MemoryContextSwitchTo(old);
}

/*
 * Each row in a transaction of its own.  False: it is the database's fault
 * after all; spans that have been written will be found to be there at the next
 * try, and ends are not written again: they would seem to be lost.
 */
static bool
write_singly(void)
{
	dlist_iter	iter;

	/* first: a job that fails by one may leave spans behind */
	if (!saveask_write_singly())
		return false;
	for (int i = 0; i < nspans; i++)
	{
		StepError  *error;

		single_span = spans[i].row;
		error = save_caught(write_span);
		if (error != NULL && !save_is_rows_fault(error->sqlstate))
			return false;
		if (error != NULL)
			refuse_span(&spans[i], error);
	}
	dlist_foreach(iter, &ends)
	{
		PendingEnd *pending = dlist_container(PendingEnd, node, iter.cur);
		StepError  *error;

		if (pending->settled)
			continue;
		single_end = &pending->end;
		error = save_caught(write_end);
		if (error != NULL && save_is_rows_fault(error->sqlstate))
		{
			refuse_end(pending, error);
			error = save_caught(write_end);
		}
		if (error != NULL && save_is_rows_fault(error->sqlstate))
		{
			/* one job's row must not hold up all others */
			ereport(LOG,
					(errcode(error->sqlstate),
					 errmsg("the end of a job cannot be written: %s",
							error->message),
					 errdetail("It stays running until this worker ends.")));
			pending->end.lost = true;
		}
		else if (error != NULL)
			return false;
		pending->settled = pending->end.done || pending->end.lost;
	}
	return true;
}

/*
 * Commits all that is pending.  On a fault of the database everything is kept
 * and save_due() is a while later.
 */
void
save_commit(void)
{
	StepError  *error;

	Assert(!caller.in_transaction);
	if (!save_pending())
	{
		saveask_tell();
		return;
	}
	error = save_caught(write_batch);
	if (error != NULL &&
		!(save_is_rows_fault(error->sqlstate) && write_singly()))
	{
		not_before_us = clock_us() + FAULT_US;
		in_trouble = true;
		return;
	}
	in_trouble = false;
	drop_saved_spans(nspans);
	settle_ends();
	saveask_tell();
}

/* The job is about to be freed: its spans are still written. */
void
save_orphan(Job *job)
{
	for (int i = 0; i < nspans; i++)
	{
		if (spans[i].job == job)
			spans[i].job = NULL;
	}
	saveask_orphan(job);
}
