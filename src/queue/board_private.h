/*
 * board_private.h
 *	  What board.c, board_session.c and waiter.c share.
 */
#ifndef CHAINCALL_BOARD_PRIVATE_H
#define CHAINCALL_BOARD_PRIVATE_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* board.c */
extern bool board_open(Oid owner, int64 limit);
extern void board_close(Oid owner, int64 njobs, bool kept);
extern bool board_pend(Oid owner, TimestampTz rank);

/* waiter.c */
extern Size waiter_size(void);
extern void waiter_init(char *area, bool fresh);

#endif							/* CHAINCALL_BOARD_PRIVATE_H */
