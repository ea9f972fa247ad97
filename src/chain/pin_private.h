/*
 * pin_private.h
 *	  What pin.c, pin_build.c and pinload.c share.
 */
#ifndef CHAINCALL_PIN_PRIVATE_H
#define CHAINCALL_PIN_PRIVATE_H

#include "postgres.h"

#include "chain/pin.h"

#define PIN_FORMAT 1			/* of closures; changes with their meaning */

/* pin_build.c */
extern PinMade *pin_build(Oid function, MemoryContext cxt);

#endif							/* CHAINCALL_PIN_PRIVATE_H */
