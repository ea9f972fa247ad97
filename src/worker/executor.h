/*
 * executor.h
 *	  The executors' side of the handover, and what the launcher asks of it.
 */
#ifndef CHAINCALL_EXECUTOR_H
#define CHAINCALL_EXECUTOR_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "worker/handover.h"

/* An order that this executor has taken. */
typedef struct TakenOrder
{
	StepOrder	order;
	int			slot;
	uint64		caller;			/* incarnation */
} TakenOrder;

/* worker/handover.c: executors */
extern void handover_serve(void);
extern TakenOrder *handover_take(void);
extern bool handover_cancelled(const TakenOrder *taken);
extern void handover_overdue(void);
extern void handover_check_answer(const Jsonb *output);
extern bool handover_answer(const TakenOrder *taken, const Jsonb *output,
							const StepError *error, XLogRecPtr lsn);
extern void handover_sync(XLogRecPtr lsn);
extern void handover_nudge(void);
extern void handover_notify(void);

/* worker/handover_queue.c: executors and the launcher */
extern bool handover_wanted(Oid *database, Oid *role);
extern void handover_unasked(Oid database, Oid role);
extern TimestampTz handover_look_at(void);
extern bool handover_other_role_waits(Oid database, Oid role);
extern void handover_refuse(Oid database, Oid role);

/* worker/executor_step.c */
extern XLogRecPtr executor_run(const TakenOrder *taken, Jsonb **output,
							   StepError **error);

/* worker/executor_convert.c */
extern Jsonb *executor_convert(const StepOrder *order);

/* worker/executor.c */
extern PGDLLEXPORT void chaincall_executor_main(Datum arg);

#endif							/* CHAINCALL_EXECUTOR_H */
