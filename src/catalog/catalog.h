/*
 * catalog.h
 *	  Models, endpoints, servers and keys as the call code sees them.
 *
 * Entries are cached per process and dropped by invalidation messages, so a
 * pointer is good until the next call into the catalog or the next chance to
 * accept invalidations; copy what must live longer (catalog_route() does).
 */
#ifndef CHAINCALL_CATALOG_H
#define CHAINCALL_CATALOG_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/jsonb.h"
#include "utils/jsonpath.h"

typedef struct ServerInfo
{
	Oid			oid;
	const char *name;
	const char *api;			/* openai, anthropic, http */
	const char *url;			/* base URL, no trailing slash */
	int			timeout_ms;		/* a call with all its attempts; default 300 s */
	int			connect_timeout_ms; /* default 10 s */
	int			attempt_timeout_ms; /* of one attempt; 0: no bound */
	int			max_in_flight;	/* calls at once; 0: no bound */
	size_t		max_answer;		/* bytes; 0: the setting */
	const char *proxy;			/* NULL: none */
	const char *ca_file;		/* NULL: the system's */
	/* of api http only */
	const char *path;			/* appended to url; NULL: none */
	Jsonb	   *headers;		/* object name → value, may hold {{api_key}} */
	Jsonb	   *request;		/* body with "{{input}}", "{{model}}", "{{params.x}}"; NULL: the
								 * input itself */
	JsonPath   *answer;			/* jsonpath to the answer; NULL: all of it */
} ServerInfo;

typedef struct EndpointInfo
{
	const char *version;
	const char *server;
	const char *remote_name;	/* what the service calls the model */
	double		weight;
	uint64		id;				/* hash of all that names it, with the database */
} EndpointInfo;

typedef struct ModelInfo
{
	const char *name;
	const char *kind;			/* chat, embedding, rerank, image, audio, json */
	Jsonb	   *params;			/* object */
	Jsonb	   *retry;			/* object as a step's retry, or NULL */
	int			timeout_ms;		/* 0: the server's */
	bool		paused;
	int			nfallback;
	char	  **fallback;		/* names of the models tried next, unchecked */
	int			nendpoints;
	EndpointInfo *endpoints;
} ModelInfo;

/* One way to reach a model, chosen and copied for one attempt. */
typedef struct Route
{
	ServerInfo	server;
	char	   *model;
	char	   *version;
	char	   *remote_name;
	Oid			mapping;		/* user mapping used, InvalidOid: none */
	char	   *api_key;		/* NULL: none */
	int			endpoint;		/* index into the model's endpoints */
	uint64		endpoint_id;	/* EndpointInfo.id */
} Route;

/* Whether a role can go to an endpoint at all. */
typedef enum Reach
{
	REACH_YES,
	REACH_DENIED,				/* no USAGE on its server */
	REACH_NO_SERVER
} Reach;

extern const ModelInfo *catalog_model(const char *name, bool missing_ok);
extern const ServerInfo *catalog_server(const char *name, bool missing_ok);
extern Route *catalog_route(const ModelInfo *model, int endpoint, Oid userid);
extern Route *catalog_server_route(const char *name, Oid userid);
extern void catalog_route_free(Route *route);
extern Reach catalog_reach(const ModelInfo *model, int endpoint, Oid userid,
						   Oid *mapping, const ServerInfo **server);
extern char *catalog_nearest_model(const char *name);

/* catalog_policy.c */
extern const Interval *catalog_chain_ttl(const char *signature);
extern bool catalog_chain_paused(const char *signature);
extern bool catalog_any_chain_paused(void);

#endif							/* CHAINCALL_CATALOG_H */
