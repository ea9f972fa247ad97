/*
 * queue.h
 *	  The durable state of jobs: all of chaincall's own SQL on job and span.
 *
 * Every function here runs in a transaction of its own that queue_begin() has
 * begun and queue_commit() ends: a fixed search_path, READ COMMITTED, read
 * write, row security off for us, a lock_timeout, whatever the database's or
 * role's settings say.
 */
#ifndef CHAINCALL_QUEUE_H
#define CHAINCALL_QUEUE_H

#include "postgres.h"

#include "base/error.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "queue/board.h"
#include "trace/trace.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#define DEFINITION_HASH_LEN 32	/* sha256 */
#define MAX_DEATHS 3			/* of a job's own making; then it is dead */
#define MAX_SPAN_PATH 1500		/* bytes: it is part of an index entry */

/* ---- transactions (queue.c) ---- */

/*
 * Runs work(arg) for no more than chaincall.inline_timeout of CPU time; the
 * error as data, or NULL.  Set by the process that applies actions.
 */
extern StepError *(*queue_bounded) (void (*work) (void *), void *arg, bool slow);

extern void queue_settings_once(void);
extern void queue_begin(void);
extern void queue_commit(bool durable);
extern void queue_abort(void);

/* ---- a job as its caller gets it (claim.c) ---- */

typedef struct ClaimedJob
{
	pg_uuid_t	id;
	Oid			owner;
	TimestampTz rank;
	char	   *chain;			/* resolved signature */
	uint8		definition[DEFINITION_HASH_LEN];
	Jsonb	   *input;
	bool		held;			/* put aside: its chain is paused */
	bool		resumed;		/* was claimed before: may have checkpoints */
	int			deaths;
	TimestampTz created_at;
	TimestampTz expires_at;		/* DT_NOEND: never */
	Jsonb	   *deadlines;		/* of what was under way when it was parked;
								 * NULL: none */
	TimestampTz retried_at;		/* by a person, last; 0: never */
	List	   *given;			/* of GivenInput; set by who claims */
} ClaimedJob;

/* What a person has given as the input of a step. */
typedef struct GivenInput
{
	char	   *path;
	Jsonb	   *input;
} GivenInput;

extern List *queue_claim(const BoardClaim *claims, int nclaims,
						 uint64 incarnation, MemoryContext cxt);
extern Jsonb *queue_definition(const uint8 *hash, MemoryContext cxt);

/* ---- checkpoints (checkpoint.c) ---- */

/* One row of span. */
typedef struct SpanRow
{
	pg_uuid_t	job;
	Oid			owner;
	char	   *path;
	int			try;			/* 0: the success; 1, 2, … failures */
	uint64		id;
	const char *kind;			/* model, sql, function, wait, ask */
	char	   *model;
	char	   *version;
	char	   *server;
	TimestampTz started_at;
	TimestampTz sent_at;		/* 0: not known */
	TimestampTz first_byte_at;	/* 0: not known */
	TimestampTz ended_at;
	int64		tokens_in;		/* -1: not told */
	int64		tokens_out;
	int			http_status;
	int			attempt;
	bool		reask;
	ErrorClass	cls;			/* CLASS_NONE: succeeded */
	char	   *message;
	Jsonb	   *output;			/* of a success */
} SpanRow;

/* A checkpoint read back. */
typedef struct Checkpoint
{
	char	   *path;
	Jsonb	   *output;			/* NULL: no success yet */
	int			failures;		/* highest try */
	int			used;			/* of these, attempts that count as such: since
								 * a person had the job tried again */
	TimestampTz last_ended;
} Checkpoint;

extern void queue_checkpoint(SpanRow **rows, int nrows, uint64 incarnation);
extern Jsonb *queue_checkpoint_output(const pg_uuid_t *job, const char *path,
									  MemoryContext cxt);
extern List *queue_checkpoints(const pg_uuid_t *job, TimestampTz retried_at,
							   MemoryContext cxt);
extern List *queue_given(const pg_uuid_t *job, MemoryContext cxt);

/* ---- questions (question.c) ---- */

typedef struct QuestionRow
{
	pg_uuid_t	id;
	pg_uuid_t	job;
	char	   *path;
	Oid			owner;
	Oid			to_role;		/* InvalidOid: the owner's privileges count */
	char	   *question;
	Jsonb	   *show;			/* NULL: nothing */
	Jsonb	   *returns;		/* NULL: text */
	TimestampTz created_at;
	TimestampTz expires_at;		/* DT_NOEND: never */
	bool		opened;			/* set by queue_ask(): it was not there before */
	/* of an answer that is put aside */
	int			try;
	char	   *why;
} QuestionRow;

extern void queue_ask(QuestionRow *row);
extern void queue_unask(const pg_uuid_t *job, const char *path);
extern void queue_unask_jobs(const pg_uuid_t *jobs, int n);
extern void queue_refuse_answer(const pg_uuid_t *job, const char *path,
								int try, const char *why);
extern void queue_notify_questions(const pg_uuid_t *ids, int n);

/* ---- ends (finish.c) ---- */

typedef struct JobEnd
{
	pg_uuid_t	job;
	const char *state;			/* succeeded, failed, cancelled, waiting */
	Jsonb	   *output;
	Jsonb	   *error;
	Jsonb	   *input;			/* of the step that failed; NULL: not known */
	/* of waiting: */
	TimestampTz run_at;			/* DT_NOEND: time alone will not end it */
	const char *waits_on;		/* what it waits for beside time; NULL: nothing */
	Jsonb	   *deadlines;		/* of what is under way; NULL: none */
	char	  **asks;			/* paths of its open questions */
	int			nasks;
	bool		asked;			/* it has ended and may have questions open */
	int			deaths;			/* executors that died of it: it failed */
	bool		done;			/* set by queue_finish(): written */
	bool		requeued;		/* an answer had come: it is queued */
	TimestampTz rank;			/* of one requeued */
	bool		lost;			/* no longer ours, or gone */
} JobEnd;

extern void queue_finish(JobEnd **ends, int nends, uint64 incarnation);

/* ---- the maintainer's part (recover.c, action.c, hold.c, retain.c) ---- */

extern int	queue_recover(void);
extern void queue_look(void);
extern int	queue_promote(TimestampTz *next_due);
extern int	queue_expire(void);
extern bool queue_let_go(void);
extern bool queue_apply_actions(void);
extern void queue_make_partitions(void);
extern void queue_make_first_partitions(void);
extern void queue_retire_partitions(void);
extern bool queue_retain(void);
extern void queue_retain_definitions(void);
extern bool queue_maintenance_due(TimestampTz done);	/* maintenance.c */
extern void queue_recount(void);
extern bool queue_adopt_copy(void);

#endif							/* CHAINCALL_QUEUE_H */
