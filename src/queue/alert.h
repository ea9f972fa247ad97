/*
 * alert.h
 *	  Rows of chaincall.alert: what a person should see.
 */
#ifndef CHAINCALL_ALERT_H
#define CHAINCALL_ALERT_H

#include "postgres.h"

#include "utils/jsonb.h"
#include "utils/uuid.h"

/* A job that has failed; what else its alert says is in its row. */
typedef struct DeadLetter
{
	pg_uuid_t	job;
	Jsonb	   *input;			/* of the step that failed; NULL: not known */
} DeadLetter;

extern void queue_alert(const char *kind, const pg_uuid_t *job, Oid owner,
						const char *message, const char *hint);
extern void queue_dead_letters(const DeadLetter *letters, int n);
extern void queue_close_alerts(const char *kind, const Oid *owners, int n);
extern void queue_alerts_told(void);

#endif							/* CHAINCALL_ALERT_H */
