/*
 * caller.h
 *	  What the files of a caller share.
 *
 *	caller.c   the loop: claims, turns, time
 *	window.c   the jobs in hand: whose turn it is, how many may be claimed
 *	jobrun.c   one job in hand, from its claim to its end
 *	jobtask.c  what its plan asks for, and what came of it: calls, waits
 *	joborder.c  what executors do for it
 *	jobask.c   what people are asked by it
 *	jobspan.c  its spans as rows
 *	jobops.c   what its plan and calls ask of their driver
 *	save.c, saveask.c  what is to be written, and its commits
 *	bounded.c  expressions and checks: errors caught, time bounded
 *
 * Nobody else includes this.
 */
#ifndef CHAINCALL_CALLER_H
#define CHAINCALL_CALLER_H

#include "postgres.h"

#include "base/clock.h"
#include "call/call.h"
#include "chain/pin.h"
#include "chain/plan.h"
#include "lib/ilist.h"
#include "lib/pairingheap.h"
#include "queue/queue.h"
#include "trace/air.h"
#include "trace/trace.h"
#include "utils/hsearch.h"
#include "worker/handover.h"

#define EXECUTOR_DEATHS MAX_DEATHS	/* of one step; then it is given up */

/* Tasks that a job may start, and outcomes it may take, before others' turn. */
#define JOB_SLICE 64

typedef struct Job Job;

/* Whose jobs this caller has in hand; owners take turns. */
typedef struct JobOwner
{
	Oid			owner;			/* hash key */
	int			njobs;			/* in the window */
	int			norders;		/* of these, jobs that only wait for executors */
	int			ncalls;			/* of all its jobs */
	dlist_head	ready;			/* Jobs with something to do */
	dlist_node	turn;			/* in caller.turns while ready is not empty */
	bool		in_turn;
	uint64		refused;		/* in which round there was no room for orders */
} JobOwner;

/* What a job's plan has asked for and has not been told the end of. */
typedef struct JobTask
{
	Job		   *job;
	Task	   *task;
	dlist_node	node;			/* in one of the job's lists */
	bool		listed;
	pairingheap_node wait;		/* in job->waits while waiting */
	bool		waiting;
	bool		asking;			/* in job->asks */
	Call	   *call;
	Ticket	   *ticket;
	AirEntry   *air;			/* of an order */
	int			stored;			/* highest try that is stored of this path */
	int			failures;		/* attempts that ended badly, this life's */
	int			deaths;			/* executors that died of it */
	SpanRow    *success;		/* of a model call, but for the output */
	Jsonb	   *output;			/* what came of it, in the task's context */
	StepError  *error;
} JobTask;

typedef enum JobPhase
{
	JOB_RUNNING,
	JOB_CONVERTING				/* its output becomes a value of its type */
} JobPhase;

struct Job
{
	pg_uuid_t	id;				/* hash key of caller.jobs, via JobEntry */
	JobPhase	phase;
	MemoryContext cxt;
	JobOwner   *owner;
	TimestampTz expires_at;
	Pinned	   *pinned;
	ChainPlan  *plan;
	Trace	   *trace;
	CallRun		run;
	HTAB	   *checkpoints;	/* path → Checkpoint; NULL: none */
	AirEntry   *air;
	dlist_node	ready;			/* in owner->ready */
	bool		is_ready;
	/* JobTasks; each is in one of these from its start on */
	pairingheap waits;			/* of wait steps, by due */
	dlist_head	calls;			/* in the air, backoffs included */
	dlist_head	held;			/* not yet handed over */
	dlist_head	orders;			/* handed over */
	dlist_head	ended;			/* whose end the plan shall be told */
	dlist_node	hold;			/* in caller.holding while held is not empty */
	bool		is_holding;
	int			nwaits;
	int			ncalls;
	int			norders;		/* handed over or held */
	bool		only_orders;	/* counted in caller.nwaiting */
	int			unsaved;		/* spans that are not committed */
	int			deaths;			/* executors that died of a step given up */
	dlist_head	asks;			/* questions that are not answered */
	int			nasks;
	int			unlooked;		/* of them, where an answer is to be looked for */
	int64		look_us;		/* when all are, for a message may get lost */
	bool		asked;			/* it may have rows of questions */
	bool		catching_up;	/* its plan is given what is stored */
	bool		leaving;		/* it ends, or is parked */
	bool		starved;		/* wants to start calls; there was no room */
	dlist_node	hunger;			/* in caller.starved while starved */
	int64		events;			/* tasks started and outcomes so far */
	int64		weigh_at;		/* events at which memory is looked at next */
	JobTask    *conversion;		/* of its output */
	Jsonb	   *output;			/* its end, once it has one */
	int64		wake_us;		/* its own next event */
	const char *held_by;		/* a paused model that a call waits for; NULL: none */
	/* when it is driven though nothing comes */
	int64		timer_us;
	bool		has_timer;
	pairingheap_node timer;
};

typedef struct Caller
{
	MemoryContext cxt;
	uint64		incarnation;
	MemoryContext plan_scratch; /* of all plans */
	CallGroup  *calls;
	HTAB	   *jobs;			/* id → Job */
	HTAB	   *owners;
	int			njobs;
	int			nlight;			/* owners with a few jobs */
	int			nwaiting;		/* of these, jobs that only wait for executors */
	dlist_head	turns;			/* JobOwners with ready jobs */
	dlist_head	holding;		/* Jobs with orders not yet handed over */
	dlist_head	starved;		/* Jobs that wait for room in the air */
	pairingheap timers;
	bool		in_transaction; /* the turn's, for the catalog */
} Caller;

/* What an earlier life has left at a path, or an earlier attempt around it. */
typedef struct JobCheckpoint
{
	char	   *path;			/* hash key */
	Jsonb	   *output;			/* NULL: no success */
	int			failures;		/* highest try stored */
	int			used;			/* attempts used up */
	Jsonb	   *given;			/* its input by a person; NULL: as rendered */
} JobCheckpoint;

extern Caller caller;

/* window.c */
extern void window_make(void);
extern void window_add(Job *job, Oid owner);
extern Job *window_find(const pg_uuid_t *id);
extern void window_remove(Job *job);
extern void window_ready(Job *job);
extern bool window_crowded(void);
extern Job *window_next(bool light);
extern void window_set_timer(Job *job, int64 when_us);
extern int64 window_first_timer(void);
extern void window_fire_timers(int64 now_us);
extern void window_hold(Job *job);
extern void window_unhold(Job *job);
extern void window_weigh_orders(Job *job);
extern bool window_may_call(const Job *job);
extern void window_count_call(Job *job, int change);
extern void window_starve(Job *job, bool starved);
extern void window_feed_starved(void);
extern void window_offer_held(void);
extern bool window_holds(void);
extern void window_quotas(BoardClaim *claims, int n, int most);

/* caller.c */
extern void caller_transaction(void);
extern void caller_transaction_end(void);

/* jobrun.c */
extern void job_begin(ClaimedJob *claimed, List *checkpoints);
extern bool job_knows_definition(const uint8 *hash);
extern void job_keep_definition(const uint8 *hash, Jsonb *closure);
extern void job_trim_definitions(void);
extern void job_drive(Job *job);
extern void job_end_as(Job *job, const char *state, StepError *error);
extern void job_interrupt(const pg_uuid_t *id, bool expired);
extern void job_saved(Job *job, int spans);

/* jobtask.c */
extern void jobtask_start(Job *job, Task *task);
extern bool jobtask_tell(Job *job);
extern void jobtask_keep_checkpoints(Job *job, List *checkpoints);
extern void jobtask_keep_given(Job *job, List *given);
extern PinnedChain *jobtask_pinned(Job *job, const Definition *definition);
extern void jobtask_list(JobTask *jt, dlist_head *head);
extern void jobtask_unlist(JobTask *jt);
extern void jobtask_remember(JobTask *jt, const Jsonb *output);
extern void jobtask_ended(JobTask *jt);
extern int	jobtask_compare_waits(const pairingheap_node *a,
								  const pairingheap_node *b, void *arg);
extern void jobtask_end_waits(Job *job);
extern int64 jobtask_next_wait(Job *job);
extern void jobtask_drop(JobTask *jt);

/* jobspan.c */
extern void jobspan_sink(Trace *trace, Span *span);
extern SpanRow jobspan_own(const JobTask *jt, const char *kind);
extern void jobspan_save(JobTask *jt, SpanRow *row, Jsonb *output);
extern void jobspan_fail(JobTask *jt, SpanRow *row, const StepError *error);

/* joborder.c */
extern void joborder_hold(JobTask *jt);
extern bool joborder_offer_held(Job *job);
extern void joborder_answer(const StepAnswer *answer);
extern void joborder_convert_output(Job *job);

/* jobask.c */
extern void jobask_start(JobTask *jt, Jsonb *stored);
extern void jobask_answered(const pg_uuid_t *id);
extern void jobask_look(Job *job);
extern void jobask_drop(JobTask *jt);
extern char **jobask_paths(const Job *job);

/* jobops.c */
extern const CallGuards job_guards;
extern const PlanOps job_plan_ops;
extern void jobops_check_owner(void *arg);
extern void jobops_check_execute(Job *job, PinnedChain *chain);

/* save.c */
extern void save_span(Job *job, SpanRow *row);
extern MemoryContext save_context(void);
extern void save_note(void);
extern StepError *save_caught(void (*work) (void));
extern bool save_is_rows_fault(int sqlstate);
extern void save_end(JobEnd *end, Oid owner);
extern bool save_pending(void);
extern bool save_in_trouble(void);
extern int64 save_due(bool busy);
extern void save_commit(void);
extern void save_orphan(Job *job);

/* saveask.c */
typedef enum AskOp
{
	ASK_OPEN,					/* a question */
	ASK_CLOSE,					/* nobody needs its answer any more */
	ASK_REFUSE					/* its stored answer is put aside */
} AskOp;

extern void saveask_put(Job *job, AskOp op, QuestionRow *row);
extern int	saveask_count(void);
extern void saveask_write(void);
extern bool saveask_write_singly(void);
extern void saveask_written(void);
extern void saveask_orphan(Job *job);
extern int64 saveask_due(void);
extern void saveask_tell(void);

/* bounded.c */
extern StepError *bounded_run(void (*work) (void *), void *arg, bool slow);
extern ErrorData *bounded_caught(MemoryContext cxt);

#endif							/* CHAINCALL_CALLER_H */
