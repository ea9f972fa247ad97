/*
 * catalog_option.h
 *	  Texts of options and columns as numbers: the same reading where they are
 *	  checked (CREATE SERVER, INSERT) and where they are used.
 */
#ifndef CHAINCALL_CATALOG_OPTION_H
#define CHAINCALL_CATALOG_OPTION_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/jsonb.h"
#include "utils/jsonpath.h"

/* The largest answer that PostgreSQL can hold in one piece. */
#define OPTION_MAX_ANSWER ((int64) 1024 * 1024 * 1024 - 1)

#define OPTION_DEFAULT_TIMEOUT_MS 300000
#define OPTION_DEFAULT_CONNECT_TIMEOUT_MS 10000

extern bool option_milliseconds(const char *text, int64 *ms);
extern int64 option_interval_ms(const Interval *interval);
extern bool option_bytes(const char *text, int64 *bytes);
extern bool option_count(const char *text, int *count);
extern bool option_whole(const JsonbValue *value, int *number);
extern char *option_url(const char *text);
extern const char *option_url_fault(const char *text, bool proxy);
extern JsonPath *option_jsonpath(const char *text);
extern Jsonb *option_retry(const Jsonb *retry);
extern const char *option_key_fault(const char *key);

#endif							/* CHAINCALL_CATALOG_OPTION_H */
