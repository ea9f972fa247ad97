/*
 * worker.h
 *	  What all background workers share: how they start, turn and leave.
 *
 *		void chaincall_caller_main(Datum arg)
 *		{
 *			worker_start(WORKER_CALLER);
 *			while (worker_turn())
 *			{
 *				... one round of work ...
 *				worker_sleep(timeout);
 *			}
 *			... let go of what it has ...
 *			proc_exit(0);
 *		}
 *
 * SIGTERM and WorkerSlot.stop are told by worker_turn(); SIGTERM also
 * interrupts statements and lock waits (CHECK_FOR_INTERRUPTS() ends the
 * process), stop does not.
 */
#ifndef CHAINCALL_WORKER_H
#define CHAINCALL_WORKER_H

#include "postgres.h"

#include "base/shared.h"

/* What the launcher gives a worker to know, in bgw_extra. */
typedef struct WorkerOrders
{
	Oid			database;
	Oid			role;			/* of executors */
} WorkerOrders;

extern void worker_start(WorkerKind kind);
extern bool worker_turn(void);
extern bool worker_leaving(void);
extern void worker_sleep(long timeout_ms);
extern uint32 worker_wait_event(void);
extern void worker_set_full(bool full);
extern bool worker_probe(void);
extern bool worker_extension_usable(void);

#endif							/* CHAINCALL_WORKER_H */
