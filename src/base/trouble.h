/*
 * trouble.h
 *	  Executors that could not start: for whom, why and since when, in shared
 *	  memory.
 *
 * The launcher and the workers themselves note it, who connects clears it, the
 * maintainer tells people.
 */
#ifndef CHAINCALL_TROUBLE_H
#define CHAINCALL_TROUBLE_H

#include "postgres.h"

#include "datatype/timestamp.h"

typedef enum TroubleReason
{
	TROUBLE_NONE = 0,			/* the entry is free */
	TROUBLE_NO_SLOT,			/* of max_worker_processes */
	TROUBLE_NO_LOGIN,			/* the role has no LOGIN (before 17) */
	TROUBLE_NO_ROLE,			/* it was dropped */
	TROUBLE_NO_CONNECTION		/* refused when it connected; the log has why */
} TroubleReason;

typedef struct Trouble
{
	Oid			database;
	Oid			role;
	TroubleReason reason;
	TimestampTz since;			/* first noted */
	TimestampTz last;			/* noted again */
} Trouble;

extern Size trouble_size(void);
extern void trouble_init(void);
extern bool trouble_note(Oid database, Oid role, TroubleReason reason);
extern void trouble_clear(Oid database, Oid role);
extern TimestampTz trouble_last(Oid database, Oid role);
extern int	trouble_list(Oid database, Trouble **troubles);
extern const char *trouble_hint(TroubleReason reason);

#endif							/* CHAINCALL_TROUBLE_H */
