/*
 * reset.h
 *	  When a service that has refused a request as too many takes requests
 *	  again, by the headers of its answer.  Arithmetic only: no clock, no I/O,
 *	  no PostgreSQL.
 */
#ifndef CHAINCALL_RESET_H
#define CHAINCALL_RESET_H

#include <stdbool.h>
#include <stdint.h>

/* No header of this kind is believed for longer. */
#define RESET_LONGEST_MS (INT64_C(60) * 60 * 1000)

/* The value of the answer's header of that name, NULL: it has none. */
typedef const char *(*ResetHeader) (void *arg, const char *name);

extern bool reset_wait_ms(ResetHeader header, void *arg, int64_t now_unix_ms,
						  int64_t *wait_ms);
extern bool reset_duration_ms(const char *text, int64_t *ms);
extern bool reset_timestamp_ms(const char *text, int64_t *unix_ms);

#endif							/* CHAINCALL_RESET_H */
