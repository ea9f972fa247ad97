/*
 * restore.h
 *	  An endpoint that a parallel restore brings before its model.
 */
#ifndef CHAINCALL_RESTORE_H
#define CHAINCALL_RESTORE_H

#include "postgres.h"

extern void restore_wait_for_model(Datum model);

#endif							/* CHAINCALL_RESTORE_H */
