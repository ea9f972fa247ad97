/*
 * alert.h
 *	  Rows of chaincall.alert: what a person should see.
 */
#ifndef CHAINCALL_ALERT_H
#define CHAINCALL_ALERT_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

/* A job that has failed; what else its alert says is in its row. */
typedef struct DeadLetter
{
	pg_uuid_t	job;
	Jsonb	   *input;			/* of the step that failed; NULL: not known */
} DeadLetter;

/* Where an alert stands in the order in which they are told. */
typedef struct AlertPlace
{
	TimestampTz created_at;
	pg_uuid_t	id;
} AlertPlace;

/* An open alert that chaincall.alert_server has not been told of. */
typedef struct UntoldAlert
{
	AlertPlace	place;
	bool		has_job;
	pg_uuid_t	job;
	char	   *kind;
} UntoldAlert;

extern void queue_alert(const char *kind, const pg_uuid_t *job, Oid owner,
						const char *message, const char *hint);
extern void queue_dead_letters(const DeadLetter *letters, int n);
extern void queue_close_alerts(const char *kind, const Oid *owners, int n);
extern void queue_alerts_told(void);
extern List *queue_untold(const AlertPlace *after, int most,
						  MemoryContext cxt);
extern void queue_mark_told(const pg_uuid_t *alerts, int n);

#endif							/* CHAINCALL_ALERT_H */
