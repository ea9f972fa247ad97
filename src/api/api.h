/*
 * api.h
 *	  What chaincall asks of a model, in neutral words, and its translation
 *	  into and out of each provider's wire format.
 *
 * An encoder may ereport() (its input is the chain's author's); a decoder
 * never does, whatever the bytes are: it classifies.
 */
#ifndef CHAINCALL_API_H
#define CHAINCALL_API_H

#include "postgres.h"

#include "base/error.h"
#include "catalog/catalog.h"
#include "lib/stringinfo.h"
#include "utils/jsonb.h"

typedef enum CallForm
{
	CALL_MESSAGES,				/* prompt or messages: an answer in words */
	CALL_INPUT,					/* input: embeddings, rerank, any JSON service */
	CALL_REQUEST				/* request: the provider's own body */
} CallForm;

typedef struct ApiRequest
{
	CallForm	form;
	const char *kind;			/* the model's kind */
	const char *system;			/* NULL: none */
	Jsonb	   *messages;		/* CALL_MESSAGES: array of {role, content} */
	Jsonb	   *body;			/* CALL_INPUT: the input; CALL_REQUEST: the body */
	Jsonb	   *params;			/* merged model and step params; NULL: none */
	Jsonb	   *extra;			/* this api's own fields; NULL: none */
	Jsonb	   *schema;			/* JSON Schema, root an object; NULL: text */
	bool		strict;			/* OpenAI's strict mode takes it */

	/* in place of what the encoder makes; it knows nothing of them */
	Jsonb	   *given;			/* the body; NULL: as encoded */
	const char *given_api;		/* that it is written for */
} ApiRequest;

typedef struct ApiWire
{
	StringInfoData url;
	StringInfoData body;
	List	   *headers;		/* of char *: "Name: value"; may hold the key */
} ApiWire;

typedef struct ApiAnswer
{
	ErrorClass	cls;			/* CLASS_NONE: output is set */
	Jsonb	   *output;			/* text as a JSON string; for a schema, input
								 * and request the JSON.  With cls invalid:
								 * the model's words where they are not the
								 * JSON that the schema asked for, or NULL */
	char	   *message;		/* of a failure: the service's own words, cut */
	bool		cut_off;		/* answer ended at max_tokens (cls invalid) */
	int64		tokens_in;		/* -1: not told */
	int64		tokens_out;
} ApiAnswer;

typedef struct Api
{
	const char *name;
	void		(*encode) (const Route *route, const ApiRequest *request,
						   ApiWire *wire);
	void		(*decode) (const Route *route, const ApiRequest *request,
						   int status, const char *content_type,
						   const char *body, size_t body_len,
						   ApiAnswer *answer);
} Api;

extern const Api *api_lookup(const char *name);
extern const char *const *api_names(void);

extern bool api_param_known(const char *name);
extern char *api_params_fault(const Jsonb *params, char **hint);
extern ErrorClass api_status_class(int status, bool retry_after);

/* What a server with api http is given as options. */
extern const char *api_headers_fault(const Jsonb *headers);
extern const char *api_request_fault(const Jsonb *request);

#endif							/* CHAINCALL_API_H */
