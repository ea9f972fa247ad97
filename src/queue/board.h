/*
 * board.h
 *	  Who has work: the owners with queued jobs, in shared memory.
 *
 * Per database and owner the board has a low-water mark (no queued job of that
 * owner has a smaller rank, save one that `pending` tells of), the smallest
 * rank of what wake-ups have told since it was last taken, and the number of
 * jobs that count against the owner's limit.  It is what keeps claims fast
 * whatever dead index entries or future jobs there are; it may be wrong in
 * both directions after a crash, a COMMIT PREPARED or a restore, which the
 * maintainer's look sets right.
 *
 *		INSERT ─ board_reserve(), board_announce() ─ commit ─► pending
 *		claimer: board_take() ─► snapshot, claim ─► board_settle()
 */
#ifndef CHAINCALL_BOARD_H
#define CHAINCALL_BOARD_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/uuid.h"

/*
 * A place in an owner's line: the order of the index that claims walk.  Jobs of
 * one INSERT have one rank, so it takes the id to say how far a claim has come.
 */
typedef struct BoardPlace
{
	TimestampTz rank;
	pg_uuid_t	id;
} BoardPlace;

static inline int
board_place_compare(const BoardPlace *a, const BoardPlace *b)
{
	if (a->rank != b->rank)
		return a->rank < b->rank ? -1 : 1;
	return memcmp(&a->id, &b->id, UUID_LEN);
}

/* One owner as a claimer sees it. */
typedef struct BoardClaim
{
	Oid			owner;
	BoardPlace	mark;			/* claim from this place on */
	uint64		generation;		/* for board_settle() */
	int			quota;			/* the claimer's to set */
} BoardClaim;

extern TimestampTz board_rank(TimestampTz run_at, int32 priority);

extern Size board_size(void);
extern void board_init(void);

/* In the session that enqueues; undone when its (sub)transaction aborts. */
extern void board_reserve(Oid owner);
extern void board_announce(Oid owner, TimestampTz rank);
extern void board_announce_due(TimestampTz run_at);
extern void board_announce_look(void);	/* an action was inserted */
extern void board_announce_maintenance(void);

/* At once, by workers of database MyDatabaseId. */
extern void board_tell(Oid owner, TimestampTz rank);
extern int	board_take(BoardClaim *claims, int max);
extern void board_settle(const BoardClaim *claim, bool exhausted,
						 const BoardPlace *last);
extern bool board_has_work(void);
extern uint64 board_news(void);
extern void board_started(Oid owner, int njobs);	/* no longer count */
extern int64 board_count(Oid owner);
extern void board_recount(Oid owner, int64 counted_before, int64 seen);
extern int	board_owners(Oid *owners, int64 *counts, int max);
extern void board_forget_database(Oid database);

/* result(): wait for the end of a job without looking at tables. */
extern bool waiter_begin(const pg_uuid_t *job); /* false: no room, poll */
extern void waiter_end(void);
extern void waiter_notify(const pg_uuid_t *jobs, int njobs);

#endif							/* CHAINCALL_BOARD_H */
