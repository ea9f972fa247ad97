/*
 * action.c
 *	  What people ask of jobs.
 *
 * A row of chaincall.action is pending until it is settled: applied, or refused
 * with the reason.  What a caller is told is only a hint (see message.h): a
 * cancel stays pending until the job's own row shows what came of it, so that
 * nothing depends on anything but the two rows, whoever is killed when.
 *
 * Nobody is waited for: what is locked is put off, and with it what was asked
 * of the same job later, so that what one person asks of a job is applied in
 * the order in which it was asked for.  Where a lock had to be waited for after
 * all (a key that an open transaction has inserted), the rest of what that author
 * asks is put off, and only that.  Cancels go before the others of other
 * jobs, both a slice at a time, and people take turns in each: neither thousands
 * of retries nor somebody else's thousands of cancels keep calls in the air.
 *
 *	action.c          batches, who may, cancel
 *	action_retry.c    failed jobs: retry, discard; alerts: acknowledge
 *	action_step.c     the step that an action names, in the pinned chain
 *	action_resolve.c  answers: of failed steps, of questions
 *	action_replace.c  submit(..., dedupe => 'replace')
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/clock.h"
#include "base/error.h"
#include "catalog/pg_type.h"
#include "chain/local.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "queue/action.h"
#include "queue/message.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#define BATCH 50				/* in a transaction */
#define MOST_OF_AUTHOR 5000		/* that are looked at in one go */
#define SLICE_US 50000			/* for what is settled, of cancels and of all */
#define LONGEST_US 1000000		/* with what is put off */
#define MOST_LOCKS 10			/* waited for in one go; then somebody has a table */
#define MAX_REASON 1000			/* bytes */

/* What a pass has done so far. */
typedef struct Outcome
{
	Effects		effects;		/* of this transaction */
	int64		began;			/* clock_us(), this slice */
	int64		settling_us;
	bool		time_is_up;
	HTAB	   *held;			/* subjects of which something is put off */
	HTAB	   *waiting;		/* authors of whose actions one met a lock */
	int			locks;			/* that were waited for */
	ErrorData  *error;			/* the first one; not of locks */
	MemoryContext cxt;
} Outcome;

static const char *const kind_names[] = {
	[ACTION_CANCEL] = "cancel",
	[ACTION_RETRY] = "retry",
	[ACTION_RESOLVE] = "resolve",
	[ACTION_DISCARD] = "discard",
	[ACTION_REPLACE] = "replace",
	[ACTION_ACKNOWLEDGE] = "acknowledge"
};

/*
 * Authors take turns: the first of each, then the second of each, and so on.
 */
#define PENDING_SQL(which, further) \
"WITH RECURSIVE authors AS (" \
" (SELECT a.author FROM chaincall.action a WHERE a.state = 'pending'" which " ORDER BY a.author LIMIT 1)" \
" UNION ALL" \
" SELECT n.author FROM authors p, LATERAL (SELECT a.author FROM chaincall.action a" \
"  WHERE a.state = 'pending'" which " AND a.author > p.author ORDER BY a.author LIMIT 1) n)" \
" SELECT t.id, t.subject, t.author, t.created_at, t.action FROM authors p, LATERAL (" \
"  SELECT f.id, f.subject, f.author, f.created_at, f.action, pg_catalog.row_number() OVER (ORDER BY f.created_at, f.id) AS turn" \
"  FROM (SELECT a.id, coalesce(a.job, a.alert) AS subject, a.author, a.created_at, a.action FROM chaincall.action a" \
"   WHERE a.state = 'pending'" which " AND a.author = p.author" further \
"   ORDER BY a.created_at, a.id LIMIT " CppAsString2(MOST_OF_AUTHOR) ") f) t" \
" ORDER BY t.turn, t.created_at, t.id LIMIT 100000"

/* those that are what their authors ask first of their jobs, by one probe of an index */
static const char cancels_sql[] =
PENDING_SQL(" AND a.action = 'cancel'", " AND a.id = (SELECT b.id FROM chaincall.action b"
			" WHERE b.job = a.job AND b.author = a.author AND b.state = 'pending' ORDER BY b.created_at, b.id LIMIT 1)");

/* then all: a cancel that is not the first has its place among the others */
static const char all_sql[] = PENDING_SQL("", "");

/* IS NOT DISTINCT FROM keeps the planner off the indexes of all that is pending */
static const char lock_sql[] =
"SELECT a.step, a.input, a.output FROM chaincall.action a"
" WHERE a.id = $1 AND a.state IS NOT DISTINCT FROM 'pending' FOR UPDATE SKIP LOCKED";

#define TARGET_SQL \
"SELECT q.owner, q.state, q.worker, q.finished_at, q.expires_at, q.priority, q.chain, q.definition" \
" FROM chaincall.job q WHERE q.id = $1"

static const char target_sql[] = TARGET_SQL;
static const char lock_target_sql[] = TARGET_SQL " FOR UPDATE SKIP LOCKED";

static const char settle_sql[] =
"UPDATE chaincall.action a SET state = $2, reason = $3, applied_at = pg_catalog.clock_timestamp()"
" WHERE a.id = $1 AND a.state IS NOT DISTINCT FROM 'pending'";

static const char cancel_sql[] =
"WITH picked AS MATERIALIZED (SELECT q.id FROM chaincall.job q"
"  WHERE q.id = $1 AND q.state IN ('queued', 'waiting') FOR UPDATE SKIP LOCKED)"
" UPDATE chaincall.job u SET state = 'cancelled', error = $2, worker = NULL, waits_on = NULL,"
" finished_at = pg_catalog.clock_timestamp()"
" FROM picked p WHERE u.id = p.id RETURNING u.id, u.owner, u.started_at IS NULL";

/* Runs a statement by SPI. */
void
action_run(SPIPlanPtr plan, Datum *values, const char *nulls)
{
	int			result = SPI_execute_plan(plan, values, nulls, false, 0);

	if (result < 0)
		elog(ERROR, "could not run a statement: %s",
			 SPI_result_code_string(result));
}

/* ---- reading ---- */

static ActionKind
kind_of(const char *name)
{
	for (int i = 0; i < (int) lengthof(kind_names); i++)
	{
		if (strcmp(kind_names[i], name) == 0)
			return (ActionKind) i;
	}
	elog(ERROR, "unknown action \"%s\"", name);
	return ACTION_CANCEL;
}

static void
read_rows(Action *actions)
{
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Action	   *action = &actions[i];
		bool		isnull;

		action->id = *DatumGetUUIDP(upkeep_column(i, 1, &isnull));
		action->subject = *DatumGetUUIDP(upkeep_column(i, 2, &isnull));
		action->author = DatumGetObjectId(upkeep_column(i, 3, &isnull));
		action->created_at = DatumGetTimestampTz(upkeep_column(i, 4, &isnull));
		action->kind = kind_of(TextDatumGetCString(upkeep_column(i, 5, &isnull)));
	}
}

/* Pending ones in the order in which they are applied, in cxt. */
static int
read_pending(SPIPlanPtr *plan, const char *sql, Action **actions,
			 MemoryContext cxt)
{
	int			n;

	queue_begin();
	action_run(local_plan(plan, sql, 0, NULL), NULL, NULL);
	n = (int) SPI_processed;
	*actions = MemoryContextAllocZero(cxt, Max(n, 1) * sizeof(Action));
	read_rows(*actions);
	upkeep_commit(false, cxt);
	return n;
}

static Jsonb *
json_column(int column)
{
	bool		isnull;
	Datum		datum = upkeep_column(0, column, &isnull);

	return isnull ? NULL : DatumGetJsonbPCopy(datum);
}

/* Locks its row and reads the rest of it; false: somebody else has it. */
static bool
lock_action(Action *action)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDOID};
	Datum		values[] = {UUIDPGetDatum(&action->id)};
	bool		isnull;
	Datum		step;

	action_run(local_plan(&plan, lock_sql, 1, types), values, NULL);
	if (SPI_processed == 0)
		return false;
	step = upkeep_column(0, 1, &isnull);
	action->step = isnull ? NULL : TextDatumGetCString(step);
	action->input = json_column(2);
	action->output = json_column(3);
	/* they may be large, and the batch is long */
	SPI_freetuptable(SPI_tuptable);
	return true;
}

static TimestampTz
time_column(int column, TimestampTz none)
{
	bool		isnull;
	Datum		datum = upkeep_column(0, column, &isnull);

	return isnull ? none : DatumGetTimestampTz(datum);
}

/*
 * Reads a job's row; false: there is none or, where it shall be locked,
 * somebody else has locked it.
 */
bool
action_target(const pg_uuid_t *job, bool lock, Target *target)
{
	static SPIPlanPtr plan = NULL;
	static SPIPlanPtr lock_plan = NULL;
	Oid			types[] = {UUIDOID};
	Datum		values[] = {UUIDPGetDatum(job)};
	bool		isnull;
	bytea	   *hash;

	action_run(lock ? local_plan(&lock_plan, lock_target_sql, 1, types) :
			   local_plan(&plan, target_sql, 1, types), values, NULL);
	if (SPI_processed == 0)
		return false;
	target->owner = DatumGetObjectId(upkeep_column(0, 1, &isnull));
	target->state = TextDatumGetCString(upkeep_column(0, 2, &isnull));
	target->worker = (uint64) DatumGetInt64(upkeep_column(0, 3, &isnull));
	target->finished_at = time_column(4, DT_NOBEGIN);
	target->expires_at = time_column(5, DT_NOEND);
	target->priority = DatumGetInt32(upkeep_column(0, 6, &isnull));
	target->chain = TextDatumGetCString(upkeep_column(0, 7, &isnull));
	hash = DatumGetByteaPP(upkeep_column(0, 8, &isnull));
	memset(target->definition, 0, DEFINITION_HASH_LEN);
	memcpy(target->definition, VARDATA_ANY(hash),
		   Min(VARSIZE_ANY_EXHDR(hash), DEFINITION_HASH_LEN));
	return true;
}

/* ---- settling ---- */

static bool
settle(const Action *action, const char *state, const char *reason)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDOID, TEXTOID, TEXTOID};
	Datum		values[3];

	values[0] = UUIDPGetDatum(&action->id);
	values[1] = CStringGetTextDatum(state);
	values[2] = (Datum) 0;
	if (reason != NULL)
	{
		int			len = pg_mbcliplen(reason, strlen(reason), MAX_REASON);

		values[2] = PointerGetDatum(cstring_to_text_with_len(reason, len));
	}
	action_run(local_plan(&plan, settle_sql, 3, types), values,
			   reason ? NULL : "  n");
	return true;
}

/* It has been applied; note: what came of it, or NULL.  True, for callers. */
bool
action_done(const Action *action, const char *note)
{
	return settle(action, "applied", note);
}

/* It cannot be applied, for that reason.  True, for callers. */
bool
action_refuse(const Action *action, const char *reason)
{
	return settle(action, "refused", reason);
}

/* The same words whether there is no such job or it is none of the author's. */
bool
action_no_job(const Action *action)
{
	return action_refuse(action, action->kind == ACTION_ACKNOWLEDGE ?
						 "there is no such alert" : "there is no such job");
}

bool
action_has_ended(const Target *target)
{
	return target->finished_at != DT_NOBEGIN;
}

/* The job has ended, in another way than the action needs. */
bool
action_refuse_ended(const Action *action, const Target *target)
{
	return action_refuse(action, psprintf("the job has already ended: %s",
										  target->state));
}

/* The author's name, quoted for messages; palloc'd. */
char *
action_author(const Action *action)
{
	char	   *name = GetUserNameFromId(action->author, true);

	return name ? psprintf("role \"%s\"", name) :
		psprintf("role %u", action->author);
}

/* A job of the owner is queued again, with that rank. */
void
action_queued(Effects *effects, Oid owner, TimestampTz rank)
{
	OwnerJobs  *jobs = palloc0(sizeof(OwnerJobs));

	jobs->owner = owner;
	jobs->rank = rank;
	effects->queued = lappend(effects->queued, jobs);
}

/* ---- cancel ---- */

/* False: somebody has locked the job, or a caller has just claimed it. */
static bool
cancel_queued(const Action *action, Effects *effects)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDOID, JSONBOID};
	Datum		values[2];
	char	   *author = GetUserNameFromId(action->author, true);

	values[0] = UUIDPGetDatum(&action->subject);
	values[1] = upkeep_error(CLASS_CANCELLED, "the job was cancelled",
							 author ? psprintf("By role \"%s\".", author) : NULL,
							 NULL);
	action_run(local_plan(&plan, cancel_sql, 2, types), values, NULL);
	if (SPI_processed == 0)
		return false;
	upkeep_ended(&effects->ended, CurrentMemoryContext);
	return action_done(action, NULL);
}

static bool
cancel(const Action *action, Effects *effects)
{
	Target		target;

	if (!action_target(&action->subject, false, &target) ||
		!has_privs_of_role(action->author, target.owner))
		return action_no_job(action);
	if (strcmp(target.state, "running") == 0)
	{
		(void) message_send(target.worker, &action->subject, MESSAGE_CANCEL);
		return false;
	}
	if (!action_has_ended(&target))
		return cancel_queued(action, effects);
	/* as was asked, if it was cancelled after that; else it was too late */
	if (strcmp(target.state, "cancelled") == 0 &&
		target.finished_at >= action->created_at)
		return action_done(action, NULL);
	return action_refuse_ended(action, &target);
}

/* ---- one action ---- */

/* Applies an action or refuses it; false: it is put off. */
static bool
apply(Action *action, Effects *effects)
{
	if (!lock_action(action))
		return false;
	switch (action->kind)
	{
		case ACTION_CANCEL:
			return cancel(action, effects);
		case ACTION_RETRY:
			return action_retry(action, effects);
		case ACTION_RESOLVE:
			return action_resolve(action, effects);
		case ACTION_DISCARD:
			return action_discard(action);
		case ACTION_REPLACE:
			return action_replace(action);
		case ACTION_ACKNOWLEDGE:
			return action_acknowledge(action);
	}
	return false;
}

static void
add_effects(Outcome *outcome, const Effects *effects)
{
	Effects    *all = &outcome->effects;
	MemoryContext old = MemoryContextSwitchTo(outcome->cxt);
	ListCell   *lc;

	for (int i = 0; i < effects->ended.n; i++)
		all->ended.ids[all->ended.n++] = effects->ended.ids[i];
	foreach(lc, effects->ended.owners)
	{
		OwnerJobs  *jobs = palloc(sizeof(OwnerJobs));

		*jobs = *(OwnerJobs *) lfirst(lc);
		all->ended.owners = lappend(all->ended.owners, jobs);
	}
	foreach(lc, effects->queued)
	{
		OwnerJobs  *jobs = lfirst(lc);

		action_queued(all, jobs->owner, jobs->rank);
	}
	foreach(lc, effects->answers)
	{
		AnswerFor  *answer = palloc(sizeof(AnswerFor));

		*answer = *(AnswerFor *) lfirst(lc);
		all->answers = lappend(all->answers, answer);
	}
	MemoryContextSwitchTo(old);
}

/* Is that the fault of what was asked, and would be the next time too? */
static bool
is_actions_fault(const ErrorData *error)
{
	int			category = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	return error_class_of(error->sqlerrcode) == CLASS_INPUT ||
		error_class_of(error->sqlerrcode) == CLASS_LIMIT ||
		error->sqlerrcode == ERRCODE_FEATURE_NOT_SUPPORTED ||
		category == ERRCODE_DATA_EXCEPTION ||
		category == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION ||
		category == ERRCODE_PROGRAM_LIMIT_EXCEEDED;
}

/* The error just caught; gives why the action is refused, in cxt, or NULL. */
static char *
note_error(Outcome *outcome, MemoryContext cxt)
{
	ErrorData  *error;
	char	   *reason = NULL;

	MemoryContextSwitchTo(outcome->cxt);
	error = CopyErrorData();
	MemoryContextSwitchTo(cxt);
	FlushErrorState();
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	if (is_actions_fault(error))
		reason = error->detail ? psprintf("%s (%s)", error->message, error->detail) :
			pstrdup(error->message);
	else if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		outcome->locks++;
	else if (outcome->error == NULL)
	{
		outcome->error = error;
		return NULL;
	}
	FreeErrorData(error);
	return reason;
}

/*
 * In a subtransaction: applies the action, or refuses it for that reason.  An
 * error puts it off, or gives in *reason why it is to be refused.
 */
static bool
run_alone(Action *action, char **reason, Outcome *outcome)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(old, "chaincall action",
												  ALLOCSET_DEFAULT_SIZES);
	ResourceOwner owner = CurrentResourceOwner;
	Effects		effects = {{NULL, 0, NIL}, NIL, NIL};
	char	   *volatile refused = NULL;
	volatile bool done = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(scratch);
	PG_TRY();
	{
		done = *reason != NULL ? action_refuse(action, *reason) :
			apply(action, &effects);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(old);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		refused = note_error(outcome, old);
		done = false;
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(old);
		CurrentResourceOwner = owner;
	}
	PG_END_TRY();
	if (done)
		add_effects(outcome, &effects);
	MemoryContextDelete(scratch);
	*reason = refused;
	return done;
}

/* Has what was asked before to be settled first? */
static bool
must_wait(const Action *action, const Outcome *outcome)
{
	return hash_search(outcome->held, &action->subject, HASH_FIND, NULL) != NULL ||
		hash_search(outcome->waiting, &action->author, HASH_FIND, NULL) != NULL;
}

static void
put_off(const Action *action, Outcome *outcome)
{
	(void) hash_search(outcome->held, &action->subject, HASH_ENTER, NULL);
}

static bool
apply_alone(Action *action, Outcome *outcome)
{
	int			locks = outcome->locks;
	int64		began = clock_us();
	int64		now;
	char	   *reason = NULL;
	bool		done;

	if (must_wait(action, outcome))
	{
		put_off(action, outcome);
		return false;
	}
	done = run_alone(action, &reason, outcome);
	if (!done && reason != NULL)
		done = run_alone(action, &reason, outcome);
	now = clock_us();
	if (done)
		outcome->settling_us += now - began;
	else
		put_off(action, outcome);
	if (outcome->locks > locks)
		(void) hash_search(outcome->waiting, &action->author, HASH_ENTER, NULL);
	outcome->time_is_up = outcome->settling_us > SLICE_US ||
		now - outcome->began > LONGEST_US;
	return done;
}

/* ---- batches ---- */

static void
tell(const Effects *effects)
{
	ListCell   *lc;

	upkeep_tell_ended(&effects->ended);
	upkeep_tell(effects->queued);
	foreach(lc, effects->answers)
	{
		AnswerFor  *answer = lfirst(lc);

		(void) message_send(answer->worker, &answer->job, MESSAGE_ANSWER);
	}
}

static void
apply_batch(Action *actions, int n, Outcome *outcome)
{
	Effects    *effects = &outcome->effects;
	pg_uuid_t	settled[BATCH];
	int			nsettled = 0;

	effects->ended.n = 0;
	effects->ended.owners = NIL;
	effects->queued = NIL;
	effects->answers = NIL;
	queue_begin();
	upkeep_set("lock_timeout", "100ms");
	for (int i = 0; i < n && outcome->locks < MOST_LOCKS && !outcome->time_is_up; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (apply_alone(&actions[i], outcome))
			settled[nsettled++] = actions[i].subject;
	}
	upkeep_commit(true, outcome->cxt);
	tell(effects);
	/* result() waits for what was asked of a job that has failed */
	waiter_notify(settled, nsettled);
}

static HTAB *
make_set(const char *name, Size keysize, MemoryContext cxt)
{
	HASHCTL		ctl = {0};

	ctl.keysize = keysize;
	ctl.entrysize = keysize;
	ctl.hcxt = cxt;
	return hash_create(name, 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Applies what there is, a slice of it; true: there may be more to do. */
static bool
apply_slice(SPIPlanPtr *plan, const char *sql, Outcome *outcome)
{
	Action	   *actions;
	int			n = read_pending(plan, sql, &actions, outcome->cxt);

	outcome->began = clock_us();
	outcome->settling_us = 0;
	outcome->time_is_up = false;
	for (int i = 0; i < n && outcome->locks < MOST_LOCKS && !outcome->time_is_up; i += BATCH)
		apply_batch(&actions[i], Min(n - i, BATCH), outcome);
	/* what is settled may have been in the way of more, such as of a cancel */
	return outcome->settling_us > 0 && outcome->locks < MOST_LOCKS;
}

/*
 * Applies pending actions that can be applied.  True: call again soon, there
 * is more to do; else within a second, what was put off (because of a lock, or
 * until a caller has ended the job) is tried again.  Raises an error that one
 * of them met, after the others.
 */
bool
queue_apply_actions(void)
{
	static SPIPlanPtr cancels = NULL;
	static SPIPlanPtr all = NULL;
	Outcome		outcome = {.cxt = CurrentMemoryContext};
	bool		more;

	outcome.effects.ended.ids = palloc(BATCH * sizeof(pg_uuid_t));
	outcome.held = make_set("chaincall actions put off", sizeof(pg_uuid_t),
							outcome.cxt);
	outcome.waiting = make_set("chaincall authors of actions", sizeof(Oid),
							   outcome.cxt);
	more = apply_slice(&cancels, cancels_sql, &outcome);
	if (outcome.locks < MOST_LOCKS && apply_slice(&all, all_sql, &outcome))
		more = true;
	action_forget_definition();
	if (outcome.error != NULL)
		ReThrowError(outcome.error);
	return more;
}
