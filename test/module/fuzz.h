/*
 * fuzz.h
 *	  What fuzz runs share: chance, splicing, and an attempt that may fail.
 */
#ifndef CHAINCALL_TEST_FUZZ_H
#define CHAINCALL_TEST_FUZZ_H

#include "postgres.h"

#include "common/pg_prng.h"
#include "lib/stringinfo.h"

typedef struct FuzzRun
{
	MemoryContext scratch;		/* of one attempt */
	int			good;
	int			refused;
} FuzzRun;

extern void fuzz_begin(FuzzRun *run);
extern bool fuzz_try(FuzzRun *run, void (*attempt) (void *arg), void *arg,
					 const char *source, const char *prefix);
extern void fuzz_end(FuzzRun *run);
extern int	fuzz_below(pg_prng_state *random, int n);
extern void fuzz_replace(StringInfo buf, int at, int len, const char *text, int text_len);

#endif							/* CHAINCALL_TEST_FUZZ_H */
