/*
 * message.h
 *	  What the maintainer tells callers of jobs that they are running.
 *
 * A message is a hint in shared memory and may get lost: with its caller, with
 * the cluster, or because the caller does not have the job in hand yet.  What
 * it is about stays in the tables until the job's row shows the end, so the
 * maintainer tells again, and saying a thing twice does no harm.
 */
#ifndef CHAINCALL_MESSAGE_H
#define CHAINCALL_MESSAGE_H

#include "postgres.h"

#include "utils/uuid.h"

typedef enum MessageKind
{
	MESSAGE_CANCEL,				/* somebody who may has cancelled the job */
	MESSAGE_EXPIRE,				/* its expires_at has passed */
	MESSAGE_ANSWER				/* the answer to an ask of it is stored */
} MessageKind;

extern Size message_size(void);
extern void message_init(void);

extern bool message_send(uint64 incarnation, const pg_uuid_t *job,
						 MessageKind kind);
extern bool message_take(pg_uuid_t *job, MessageKind *kind);

#endif							/* CHAINCALL_MESSAGE_H */
