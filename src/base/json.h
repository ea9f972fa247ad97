/*
 * json.h
 *	  Small helpers around PostgreSQL's jsonb, chaincall's one value type.
 *
 * Every value that flows through a chain is a Jsonb (a scalar is jsonb's raw
 * scalar form).  Results are palloc'd in the current
 * memory context unless said otherwise.
 */
#ifndef CHAINCALL_JSON_H
#define CHAINCALL_JSON_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

extern Jsonb *json_null(void);
extern Jsonb *json_bool(bool value);
extern Jsonb *json_int(int64 value);
extern Jsonb *json_text(const char *text);
extern Jsonb *json_text_len(const char *text, int len);
extern Jsonb *json_parse(const char *text);
extern Jsonb *json_copy(MemoryContext cxt, const Jsonb *value);

extern bool json_parse_untrusted(const char *text, size_t len, Jsonb **value,
								 char **fault);

extern bool json_is_null(const Jsonb *value);
extern const char *json_type_name(const Jsonb *value);
extern bool json_scalar(const Jsonb *value, JsonbValue *scalar);
extern char *json_string_dup(const Jsonb *value);
extern bool json_get(const Jsonb *object, const char *key, JsonbValue *value);
extern Jsonb *json_field(const Jsonb *object, const char *key);
extern Jsonb *json_element(const Jsonb *array, int64 index);
extern int	json_count(const Jsonb *value);
extern Jsonb *json_array(Jsonb *const *items, int nitems);
extern void json_push(JsonbParseState **state, JsonbIteratorToken token,
					  const Jsonb *value);
extern void json_push_key(JsonbParseState **state, const char *key);
extern Jsonb *json_merge(const Jsonb *base, const Jsonb *over);
extern void json_append(StringInfo buf, const Jsonb *value);
extern char *json_excerpt(const Jsonb *value, int max_chars);

#endif							/* CHAINCALL_JSON_H */
