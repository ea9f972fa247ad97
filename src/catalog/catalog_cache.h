/*
 * catalog_cache.h
 *	  What the files of this folder share: two caches and how they are
 *	  dropped, and the extension's own tables.
 */
#ifndef CHAINCALL_CATALOG_CACHE_H
#define CHAINCALL_CATALOG_CACHE_H

#include "postgres.h"

#include "access/genam.h"
#include "catalog/catalog.h"
#include "utils/hsearch.h"
#include "utils/rel.h"

/* Longest name of a model in bytes, with the NUL; a CHECK on the table. */
#define CATALOG_NAME_SIZE 256

/*
 * Models hold pointers that callers keep until their next catalog_model(), so
 * they are dropped apart from servers and keys.
 */
typedef struct CatalogCache
{
	MemoryContext context;		/* everything of this cache */
	HTAB	   *entries;
	HTAB	   *keys;			/* of servers: what a role may spend there */
	bool		stale;			/* dropped when it is next entered */
} CatalogCache;

typedef enum CatalogTable
{
	CATALOG_MODEL,
	CATALOG_ENDPOINT,
	CATALOG_CHAIN_POLICY
} CatalogTable;

extern CatalogCache catalog_models;
extern CatalogCache catalog_servers;
extern CatalogCache catalog_policies;

extern bool catalog_cache_enter(CatalogCache *cache);
extern HTAB *catalog_cache_names(CatalogCache *cache, const char *title,
								 Size entry_size);
extern Relation catalog_table_open(CatalogTable which);
extern SysScanDesc catalog_table_scan(CatalogTable which, Relation rel,
									  const char *name);

/* catalog_server.c */
typedef struct ServerEntry
{
	char		name[CATALOG_NAME_SIZE];
	Oid			owner;
	ServerInfo	info;
} ServerEntry;

extern ServerEntry *catalog_server_entry(const char *name);
extern void catalog_server_copy(ServerInfo *to, const ServerInfo *from);
extern void catalog_server_free(ServerInfo *server);

#endif							/* CHAINCALL_CATALOG_CACHE_H */
