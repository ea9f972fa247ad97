/*
 * compat.h
 *	  The differences between PostgreSQL 15 to 18 that chaincall meets.
 *
 * The only file that looks at PG_VERSION_NUM: everything else is written
 * once, against the names below.
 */
#ifndef CHAINCALL_COMPAT_H
#define CHAINCALL_COMPAT_H

#include "postgres.h"

#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_proc.h"
#include "common/jsonapi.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "postmaster/bgworker.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/timestamp.h"

#include "utils/wait_event.h"

#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif

/* 18 dropped it for pg_noreturn, which stands in front */
#if PG_VERSION_NUM >= 180000
#define pg_attribute_noreturn() __attribute__((noreturn))
#endif

/* 16 replaced the pg_xxx_aclcheck() family by object_aclcheck() */
#if PG_VERSION_NUM >= 160000
#define compat_server_aclcheck(oid, role, mode) \
	object_aclcheck(ForeignServerRelationId, (oid), (role), (mode))
#define compat_database_aclcheck(oid, role, mode) \
	object_aclcheck(DatabaseRelationId, (oid), (role), (mode))
#define compat_proc_aclcheck(oid, role, mode) \
	object_aclcheck(ProcedureRelationId, (oid), (role), (mode))
#else
#define compat_server_aclcheck(oid, role, mode) \
	pg_foreign_server_aclcheck((oid), (role), (mode))
#define compat_database_aclcheck(oid, role, mode) \
	pg_database_aclcheck((oid), (role), (mode))
#define compat_proc_aclcheck(oid, role, mode) \
	pg_proc_aclcheck((oid), (role), (mode))
#endif

/* 17 lets a background worker connect as a role that cannot log in */
#if PG_VERSION_NUM >= 170000
#define COMPAT_WORKERS_NEED_LOGIN false
#else
#define COMPAT_WORKERS_NEED_LOGIN true
#endif

/* and the pg_xxx_ownercheck() family by object_ownercheck() */
#if PG_VERSION_NUM >= 160000
#define compat_database_ownercheck(oid, role) \
	object_ownercheck(DatabaseRelationId, (oid), (role))
#define compat_extension_ownercheck(oid, role) \
	object_ownercheck(ExtensionRelationId, (oid), (role))
#else
#define compat_database_ownercheck(oid, role) \
	pg_database_ownercheck((oid), (role))
#define compat_extension_ownercheck(oid, role) \
	pg_extension_ownercheck((oid), (role))
#endif

/* 17 lets a background worker be a role without LOGIN */
#if PG_VERSION_NUM >= 170000
#define COMPAT_BYPASS_ROLE_LOGIN BGWORKER_BYPASS_ROLELOGINCHECK
#else
#define COMPAT_BYPASS_ROLE_LOGIN 0
#endif

/* 17 made a wait event set belong to a resource owner */
#if PG_VERSION_NUM >= 170000
#define compat_create_wait_event_set(nevents) \
	CreateWaitEventSet(NULL, (nevents))
#else
#define compat_create_wait_event_set(nevents) \
	CreateWaitEventSet(TopMemoryContext, (nevents))
#endif

/* 17 lets extensions name their wait events */
#if PG_VERSION_NUM >= 170000
#define compat_wait_event(name) WaitEventExtensionNew(name)
#else
#define compat_wait_event(name) ((void) (name), (uint32) PG_WAIT_EXTENSION)
#endif

/* 16 gave the actions of the JSON parser a result */
#if PG_VERSION_NUM >= 160000
#define COMPAT_JSON_ACTION JsonParseErrorType
#define COMPAT_JSON_DONE return JSON_SUCCESS
#else
#define COMPAT_JSON_ACTION void
#define COMPAT_JSON_DONE return
#endif

/* 17 lets the caller own the lexer */
static inline JsonLexContext *
compat_json_lexer(const char *json, size_t len, bool need_escapes)
{
#if PG_VERSION_NUM >= 170000
	return makeJsonLexContextCstringLen(NULL, json, len,
										GetDatabaseEncoding(), need_escapes);
#else
	return makeJsonLexContextCstringLen(unconstify(char *, json), (int) len,
										GetDatabaseEncoding(), need_escapes);
#endif
}

/* 17 has infinite intervals: their name, or NULL for a finite one */
static inline const char *
compat_interval_infinity(const Interval *span)
{
#if PG_VERSION_NUM >= 170000
	if (INTERVAL_IS_NOBEGIN(span))
		return "-infinity";
	if (INTERVAL_IS_NOEND(span))
		return "infinity";
#endif
	return NULL;
}

#endif							/* CHAINCALL_COMPAT_H */
