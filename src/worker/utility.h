/*
 * utility.h
 *	  Commands that concern the workers, as sessions run them.
 */
#ifndef CHAINCALL_UTILITY_H
#define CHAINCALL_UTILITY_H

#include "postgres.h"

extern void utility_init(void);

#endif							/* CHAINCALL_UTILITY_H */
