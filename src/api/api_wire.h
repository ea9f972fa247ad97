/*
 * api_wire.h
 *	  What the encoders and decoders of all apis share.
 */
#ifndef CHAINCALL_API_WIRE_H
#define CHAINCALL_API_WIRE_H

#include "postgres.h"

#include "api/api.h"

extern const Api api_openai;
extern const Api api_anthropic;
extern const Api api_http;

typedef enum Reasoning
{
	REASONING_UNSET,
	REASONING_NONE,
	REASONING_MINIMAL,
	REASONING_LOW,
	REASONING_MEDIUM,
	REASONING_HIGH
} Reasoning;

/* The neutral parameters, checked.  Unset: jbvNull, 0, REASONING_UNSET. */
typedef struct ApiParams
{
	JsonbValue	temperature;	/* number */
	JsonbValue	top_p;			/* number */
	JsonbValue	seed;			/* whole number */
	JsonbValue	stop;			/* string, or binary: array of strings */
	int			max_tokens;
	Reasoning	reasoning;
} ApiParams;

extern void api_params_read(const Jsonb *params, ApiParams *out);
extern const char *api_reasoning_name(Reasoning reasoning);

/* api_write.c: encoding */
extern void api_put_string(StringInfo buf, const char *text, int len);
extern void api_put_value(StringInfo buf, const JsonbValue *value);
extern void api_put_param(StringInfo buf, const char *name,
						  const JsonbValue *value);
extern int	api_message_count(const ApiRequest *request);
extern void api_message(const ApiRequest *request, int i, JsonbValue *role,
						JsonbValue *content, JsonbContainer **message);
extern void api_put_content(StringInfo buf, const JsonbValue *content);
extern void api_put_content_blocks(StringInfo buf, const JsonbValue *content);
extern void api_put_request(StringInfo buf, const Route *route,
							const ApiRequest *request);
extern void api_require_object(const ApiRequest *request);
extern void api_finish(ApiWire *wire, const ApiRequest *request);
extern bool value_is(const JsonbValue *value, const char *text);

/* api_read.c: decoding */
extern void api_fail(ApiAnswer *answer, ErrorClass cls, char *message);
extern Jsonb *api_read_body(const Route *route, int status,
							const char *content_type, const char *body,
							size_t len, ApiAnswer *answer);
extern char *api_clean(const Route *route, const char *text, size_t len);
extern void api_refuse(const Route *route, ApiAnswer *answer,
					   const JsonbValue *reason);
extern void api_cut_off(const ApiRequest *request, ApiAnswer *answer);
extern void api_text_answer(const Route *route, const ApiRequest *request,
							const char *text, int len, ApiAnswer *answer);
extern bool api_get(const JsonbValue *object, const char *key,
					JsonbValue *value);
extern bool api_get_text(const JsonbValue *object, const char *key,
						 JsonbValue *value);
extern bool api_element(const JsonbValue *array, int i, JsonbValue *value);
extern int	api_length(const JsonbValue *array);
extern int64 api_get_int(const JsonbValue *object, const char *key);
extern JsonbValue api_root(const Jsonb *json);

#endif							/* CHAINCALL_API_WIRE_H */
