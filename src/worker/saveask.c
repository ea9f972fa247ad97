/*
 * saveask.c
 *	  What a caller has to write of questions, and who is told of them.
 *
 * It is gathered in its order and written with the batch of save.c.  NOTIFY
 * comes after the commit, in a transaction of its own that is not flushed:
 * PostgreSQL writes all notifications of a cluster under one lock, held to the
 * end of the transaction, so in the batch it would be held while the batch
 * waits for disk and standbys, and a queue that some listener lets run full
 * would fail the batch.  What cannot be told is told later, as long as this
 * process lives.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "worker/caller.h"

#define MAX_UNTOLD 100000		/* ids that wait for a NOTIFY */
#define TELL_AGAIN_US 1000000

typedef struct PendingAsk
{
	Job		   *job;			/* NULL: it has ended */
	AskOp		op;
	QuestionRow *row;
} PendingAsk;

static PendingAsk *asks = NULL;
static int	nasks = 0;
static int	asks_room = 0;

static pg_uuid_t *untold = NULL;
static int	nuntold = 0;
static int	untold_room = 0;
static int64 tell_not_before_us = 0;

/* The row is made in save_context(); counts in job->unsaved. */
void
saveask_put(Job *job, AskOp op, QuestionRow *row)
{
	if (nasks == asks_room)
	{
		asks_room = asks_room ? asks_room * 2 : 64;
		asks = asks ? repalloc_huge(asks, asks_room * sizeof(PendingAsk)) :
			MemoryContextAlloc(caller.cxt, asks_room * sizeof(PendingAsk));
	}
	asks[nasks].job = job;
	asks[nasks].op = op;
	asks[nasks++].row = row;
	job->unsaved++;
	save_note();
}

/* How many are not committed. */
int
saveask_count(void)
{
	return nasks;
}

static void
write_ask(const PendingAsk *ask)
{
	QuestionRow *row = ask->row;

	switch (ask->op)
	{
		case ASK_OPEN:
			queue_ask(row);
			break;
		case ASK_CLOSE:
			queue_unask(&row->job, row->path);
			break;
		case ASK_REFUSE:
			queue_refuse_answer(&row->job, row->path, row->try, row->why);
			break;
	}
}

/* Writes all, in the batch's transaction. */
void
saveask_write(void)
{
	for (int i = 0; i < nasks; i++)
		write_ask(&asks[i]);
}

static const PendingAsk *single;

static void
write_single(void)
{
	queue_begin();
	write_ask(single);
	queue_commit(true);
}

/*
 * Each in a transaction of its own; the job of a row that cannot be written
 * fails.  False: it is the database's fault, and all is to be tried again.
 */
bool
saveask_write_singly(void)
{
	for (int i = 0; i < nasks; i++)
	{
		StepError  *error;

		single = &asks[i];
		error = save_caught(write_single);
		if (error != NULL && !save_is_rows_fault(error->sqlstate))
			return false;
		if (error != NULL && asks[i].job != NULL)
		{
			error->step = asks[i].row->path;
			job_end_as(asks[i].job, "failed", error);
		}
	}
	return true;
}

static void
tell_later(const pg_uuid_t *id)
{
	if (nuntold >= MAX_UNTOLD)
	{
		ereport(LOG,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a new question was not notified of: too many wait for it"),
				 errhint("A session that listens does not take its notifications; see pg_notification_queue_usage().")));
		return;
	}
	if (nuntold == untold_room)
	{
		untold_room = untold_room ? untold_room * 2 : 64;
		untold = untold ? repalloc(untold, untold_room * sizeof(pg_uuid_t)) :
			MemoryContextAlloc(caller.cxt, untold_room * sizeof(pg_uuid_t));
	}
	untold[nuntold++] = *id;
}

/* All are committed; their rows are about to be freed. */
void
saveask_written(void)
{
	for (int i = 0; i < nasks; i++)
	{
		if (asks[i].op == ASK_OPEN && asks[i].row->opened)
			tell_later(&asks[i].row->id);
		if (asks[i].job != NULL)
			job_saved(asks[i].job, 1);
	}
	nasks = 0;
}

/* The job is about to be freed: what it asked is still written. */
void
saveask_orphan(Job *job)
{
	for (int i = 0; i < nasks; i++)
	{
		if (asks[i].job == job)
			asks[i].job = NULL;
	}
}

/* When saveask_tell() is to be called, clock_us(); CLOCK_NEVER: there is nothing. */
int64
saveask_due(void)
{
	return nuntold > 0 ? tell_not_before_us : CLOCK_NEVER;
}

static void
write_notifications(void)
{
	queue_begin();
	queue_notify_questions(untold, nuntold);
	queue_commit(false);
}

/* Tells who listens; on a fault it is tried again a while later. */
void
saveask_tell(void)
{
	if (saveask_due() > clock_us())
		return;
	if (save_caught(write_notifications) != NULL)
		tell_not_before_us = clock_us() + TELL_AGAIN_US;
	else
		nuntold = 0;
}
