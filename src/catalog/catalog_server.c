/*
 * catalog_server.c
 *	  Foreign servers of the wrapper chaincall, their options read.
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/json.h"
#include "catalog/catalog_cache.h"
#include "catalog/catalog_option.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"

static void
bad_option(const char *server, const char *option)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("option \"%s\" of server \"%s\" is invalid", option, server),
			 errhint("ALTER SERVER ... OPTIONS (SET %s ...) says what is wrong with it.",
					 option)));
}

/* A length of time that validators have let pass. */
static int
read_milliseconds(const char *server, const char *option, const char *text)
{
	int64		ms;

	if (!option_milliseconds(text, &ms) || ms <= 0)
		bad_option(server, option);
	return (int) ms;
}

static void
read_option(ServerInfo *info, const char *option, const char *text)
{
	int64		bytes;

	if (strcmp(option, "api") == 0)
		info->api = pstrdup(text);
	else if (strcmp(option, "url") == 0)
		info->url = option_url(text);
	else if (strcmp(option, "timeout") == 0)
		info->timeout_ms = read_milliseconds(info->name, option, text);
	else if (strcmp(option, "connect_timeout") == 0)
		info->connect_timeout_ms = read_milliseconds(info->name, option, text);
	else if (strcmp(option, "attempt_timeout") == 0)
		info->attempt_timeout_ms = read_milliseconds(info->name, option, text);
	else if (strcmp(option, "max_in_flight") == 0)
	{
		if (!option_count(text, &info->max_in_flight) ||
			info->max_in_flight <= 0)
			bad_option(info->name, option);
	}
	else if (strcmp(option, "max_answer") == 0)
	{
		if (!option_bytes(text, &bytes) || bytes <= 0)
			bad_option(info->name, option);
		info->max_answer = (size_t) bytes;
	}
	else if (strcmp(option, "proxy") == 0)
		info->proxy = pstrdup(text);
	else if (strcmp(option, "ca_file") == 0)
		info->ca_file = pstrdup(text);
	else if (strcmp(option, "path") == 0)
		info->path = pstrdup(text);
	else if (strcmp(option, "headers") == 0)
		info->headers = json_parse(text);
	else if (strcmp(option, "request") == 0)
		info->request = json_parse(text);
	else if (strcmp(option, "answer") == 0)
		info->answer = option_jsonpath(text);
}

static void
read_server(ServerInfo *info, const ForeignServer *server)
{
	ListCell   *lc;

	info->oid = server->serverid;
	info->name = pstrdup(server->servername);
	info->timeout_ms = OPTION_DEFAULT_TIMEOUT_MS;
	info->connect_timeout_ms = OPTION_DEFAULT_CONNECT_TIMEOUT_MS;
	foreach(lc, server->options)
	{
		DefElem    *option = lfirst(lc);

		read_option(info, option->defname, defGetString(option));
	}
	if (info->api == NULL)
		bad_option(info->name, "api");
	if (info->url == NULL)
		bad_option(info->name, "url");
}

/* The server as cached, or NULL when the wrapper has none of that name. */
ServerEntry *
catalog_server_entry(const char *name)
{
	ServerEntry *entry;
	ForeignServer *server;
	ServerInfo	info = {0};
	MemoryContext context;
	MemoryContext old;

	(void) catalog_cache_enter(&catalog_servers);
	if (strlen(name) >= NAMEDATALEN)
		return NULL;
	if (catalog_servers.entries == NULL)
		catalog_servers.entries = catalog_cache_names(&catalog_servers,
													  "chaincall servers",
													  sizeof(ServerEntry));
	entry = hash_search(catalog_servers.entries, name, HASH_FIND, NULL);
	if (entry != NULL)
		return entry;

	server = GetForeignServerByName(name, true);
	if (server == NULL ||
		strcmp(GetForeignDataWrapper(server->fdwid)->fdwname, "chaincall") != 0)
		return NULL;
	context = AllocSetContextCreate(CurrentMemoryContext, "chaincall server",
									ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	read_server(&info, server);
	MemoryContextSwitchTo(old);

	entry = hash_search(catalog_servers.entries, name, HASH_ENTER, NULL);
	entry->info = info;
	entry->owner = server->owner;
	MemoryContextSetParent(context, catalog_servers.context);
	return entry;
}

/*
 * The server of that name.
 *
 * Without missing_ok raises ERRCODE_UNDEFINED_OBJECT when the wrapper has
 * none.  The result belongs to the cache and is good until the next call into
 * the catalog.  A name that is not cached needs a transaction.
 */
const ServerInfo *
catalog_server(const char *name, bool missing_ok)
{
	ServerEntry *entry = catalog_server_entry(name);

	if (entry == NULL && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 GetForeignServerByName(name, true) != NULL
				 ? errmsg("server \"%s\" is not of foreign-data wrapper \"chaincall\"", name)
				 : errmsg("server \"%s\" does not exist", name),
				 errhint("CREATE SERVER ... FOREIGN DATA WRAPPER chaincall")));
	return entry ? &entry->info : NULL;
}

static const char *
copy_text(const char *text)
{
	return text ? pstrdup(text) : NULL;
}

static void *
copy_varlena(const void *value)
{
	void	   *copy;

	if (value == NULL)
		return NULL;
	copy = palloc(VARSIZE(value));
	memcpy(copy, value, VARSIZE(value));
	return copy;
}

/* Copies all of a server into the current context. */
void
catalog_server_copy(ServerInfo *to, const ServerInfo *from)
{
	*to = *from;
	to->name = pstrdup(from->name);
	to->api = pstrdup(from->api);
	to->url = pstrdup(from->url);
	to->proxy = copy_text(from->proxy);
	to->ca_file = copy_text(from->ca_file);
	to->path = copy_text(from->path);
	to->headers = copy_varlena(from->headers);
	to->request = copy_varlena(from->request);
	to->answer = copy_varlena(from->answer);
}

static void
free_part(const void *part)
{
	if (part != NULL)
		pfree(unconstify(void *, part));
}

/* Frees what catalog_server_copy() has made. */
void
catalog_server_free(ServerInfo *server)
{
	free_part(server->name);
	free_part(server->api);
	free_part(server->url);
	free_part(server->proxy);
	free_part(server->ca_file);
	free_part(server->path);
	free_part(server->headers);
	free_part(server->request);
	free_part(server->answer);
}
