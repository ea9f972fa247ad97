/*
 * catalog_route.c
 *	  One way to reach a model, with the key that a role may spend there.
 *
 * The right to call is USAGE on the foreign server.  The key is that of the
 * role's own user mapping, else the PUBLIC one, else none.  A key in a file is
 * read with the server's rights, so whoever makes it readable must be allowed
 * to read server files: the mapping's role, and for PUBLIC, which only a
 * server's owner can map, that owner.  USAGE alone lets a role add a mapping
 * for itself, which is why the check at CREATE USER MAPPING is not enough.
 *
 * What was found is kept for a (server, role) until a server, a mapping, a
 * role or a membership changes.  A denial is not kept.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/error.h"
#include "catalog/catalog_cache.h"
#include "catalog/catalog_option.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

/* Larger than any key; a file beyond it is something else. */
#define MAX_KEY_FILE 16384

/* How old knowledge of a key's file may be: a new key is seen within it. */
#define KEY_FILE_CHECK_US 1000000

typedef struct KeyId
{
	Oid			server;
	Oid			role;
} KeyId;

typedef struct KeyEntry
{
	KeyId		id;
	Oid			mapping;		/* InvalidOid: none */
	char	   *api_key;		/* NULL: none */
	char	   *file;			/* NULL: the key is in the mapping */
	time_t		file_time;		/* when it was written, by its own account */
	time_t		file_changed;	/* and by the file system's */
	bool		file_settled;	/* a later change shows in these times */
	off_t		file_size;
	ino_t		file_inode;
	int64		file_checked_us;
} KeyEntry;

static void
key_file_error(const ServerInfo *server, const char *file, const char *what)
{
	/* the path is for those who may see the mapping */
	ereport(ERROR,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("the key file of server \"%s\" %s", server->name, what),
			 errdetail_log("The file is \"%s\".", file)));
}

/*
 * Up to MAX_KEY_FILE + 1 bytes of the file, and what it is.  It is opened
 * without waiting and looked at when it is open: whoever owns its directory
 * could put a FIFO in its place, which nobody ever writes to.
 */
static size_t
read_regular_file(const ServerInfo *server, const char *file, char *buf,
				  struct stat *st)
{
	int			fd = OpenTransientFile(file, O_RDONLY | O_NONBLOCK | PG_BINARY);
	size_t		len = 0;
	ssize_t		n = 0;

	if (fd < 0)
		key_file_error(server, file, "cannot be opened");
	if (fstat(fd, st) != 0 || !S_ISREG(st->st_mode))
		key_file_error(server, file, "is not a regular file");
	while (len < MAX_KEY_FILE + 1 &&
		   (n = read(fd, buf + len, MAX_KEY_FILE + 1 - len)) > 0)
		len += n;
	CloseTransientFile(fd);
	if (n < 0)
		key_file_error(server, file, "cannot be read");
	return len;
}

/* The file's text without surrounding white space, palloc'd. */
static char *
read_key_file(const ServerInfo *server, const char *file, struct stat *st)
{
	char		buf[MAX_KEY_FILE + 1];
	size_t		len = read_regular_file(server, file, buf, st);
	size_t		start = 0;
	char	   *key;

	if (len > MAX_KEY_FILE)
		key_file_error(server, file, "is too large for a key");

	while (len > 0 && strchr(" \t\r\n", buf[len - 1]) && buf[len - 1] != '\0')
		len--;
	while (start < len && strchr(" \t\r\n", buf[start]) && buf[start] != '\0')
		start++;
	if (start == len)
		key_file_error(server, file, "is empty");
	if (memchr(buf + start, '\0', len - start) != NULL)
		key_file_error(server, file, "holds a NUL byte");
	key = pnstrdup(buf + start, len - start);
	if (option_key_fault(key) != NULL)
		key_file_error(server, file, "holds a control character");
	return key;
}

/* Is the file what it was when its key was read? */
static bool
key_file_unchanged(const KeyEntry *entry, const struct stat *st)
{
	return entry->file_settled && st->st_mtime == entry->file_time &&
		st->st_ctime == entry->file_changed &&
		st->st_size == entry->file_size && st->st_ino == entry->file_inode;
}

/* Reads the key's file when it is new or has changed. */
static void
refresh_key_file(KeyEntry *entry, const ServerInfo *server)
{
	int64		now = clock_us();
	struct stat st;
	char	   *key;

	if (entry->api_key != NULL &&
		now - entry->file_checked_us < KEY_FILE_CHECK_US)
		return;
	if (stat(entry->file, &st) != 0)
		key_file_error(server, entry->file, "cannot be opened");
	if (!S_ISREG(st.st_mode))
		key_file_error(server, entry->file, "is not a regular file");
	if (entry->api_key == NULL || !key_file_unchanged(entry, &st))
	{
		key = MemoryContextStrdup(catalog_servers.context,
								  read_key_file(server, entry->file, &st));
		if (entry->api_key != NULL)
			pfree(entry->api_key);
		entry->api_key = key;
		entry->file_time = st.st_mtime;
		entry->file_changed = st.st_ctime;
		entry->file_size = st.st_size;
		entry->file_inode = st.st_ino;
		/* what is written in the same second again would look the same */
		entry->file_settled = st.st_ctime < time(NULL) - 1;
	}
	entry->file_checked_us = now;
}

/* Whose right to read server files a mapping's key file rests on. */
static void
check_key_file_allowed(const ServerEntry *server, Oid mapped)
{
	Oid			role = OidIsValid(mapped) ? mapped : server->owner;

	if (!has_privs_of_role(role, ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for the key file of server \"%s\"",
						server->info.name),
				 errdetail("Role \"%s\", %s, is no member of pg_read_server_files.",
						   GetUserNameFromId(role, false),
						   OidIsValid(mapped) ? "whose user mapping names the file"
						   : "who owns the server and with it the mapping for PUBLIC"),
				 errhint("Give the key itself as option api_key, or let a superuser own the server.")));
}

/* Takes the key's options from a mapping, if there is one for that role. */
static bool
read_mapping(KeyEntry *entry, const ServerEntry *server, Oid role)
{
	HeapTuple	tuple;
	Datum		options;
	bool		isnull;
	ListCell   *lc;

	tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(role),
							ObjectIdGetDatum(server->info.oid));
	if (!HeapTupleIsValid(tuple))
		return false;
	entry->mapping = ((Form_pg_user_mapping) GETSTRUCT(tuple))->oid;
	options = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple,
							  Anum_pg_user_mapping_umoptions, &isnull);
	foreach(lc, isnull ? NIL : untransformRelOptions(options))
	{
		DefElem    *option = lfirst(lc);

		if (strcmp(option->defname, "api_key") == 0)
			entry->api_key = defGetString(option);
		else if (strcmp(option->defname, "api_key_file") == 0)
			entry->file = defGetString(option);
	}
	ReleaseSysCache(tuple);
	if (entry->file != NULL)
		check_key_file_allowed(server, role);
	return true;
}

static bool
has_usage(const ServerEntry *server, Oid role)
{
	return compat_server_aclcheck(server->info.oid, role,
								  ACL_USAGE) == ACLCHECK_OK;
}

static void
check_usage(const ServerEntry *server, const char *model, Oid role)
{
	char	   *name;

	if (has_usage(server, role))
		return;
	name = GetUserNameFromId(role, true);
	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_DENIED),
				 errmsg("permission denied for model \"%s\"", model),
				 errdetail("The role that the job belongs to was dropped.")));
	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_DENIED),
			 errmsg("permission denied for model \"%s\"", model),
			 errdetail("Role \"%s\" has no USAGE on its server \"%s\".",
					   name, server->info.name),
			 errhint("GRANT USAGE ON FOREIGN SERVER %s TO %s",
					 quote_identifier(server->info.name),
					 quote_identifier(name))));
}

/* What is known of the role's key at the server, or NULL. */
static KeyEntry *
known_key(const ServerEntry *server, Oid role)
{
	KeyId		id = {server->info.oid, role};

	if (catalog_servers.keys == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(KeyId);
		ctl.entrysize = sizeof(KeyEntry);
		ctl.hcxt = catalog_servers.context;
		catalog_servers.keys = hash_create("chaincall keys", 64, &ctl,
										   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	return hash_search(catalog_servers.keys, &id, HASH_FIND, NULL);
}

/* What the role may spend at the server; raises where it may not call it. */
static KeyEntry *
key_entry(const ServerEntry *server, const char *model, Oid role)
{
	KeyId		id = {server->info.oid, role};
	KeyEntry	found = {{0}};
	KeyEntry   *entry = known_key(server, role);

	if (entry != NULL)
		return entry;

	check_usage(server, model, role);
	if (!read_mapping(&found, server, role))
		(void) read_mapping(&found, server, InvalidOid);
	found.id = id;
	if (found.api_key != NULL)
		found.api_key = MemoryContextStrdup(catalog_servers.context,
											found.api_key);
	if (found.file != NULL)
		found.file = MemoryContextStrdup(catalog_servers.context, found.file);
	entry = hash_search(catalog_servers.keys, &id, HASH_ENTER, NULL);
	*entry = found;
	return entry;
}

static const ServerEntry *
endpoint_server(const ModelInfo *model, int endpoint)
{
	const ServerEntry *server;

	if (model->nendpoints == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("model \"%s\" has no endpoint", model->name),
				 errhint("INSERT INTO chaincall.endpoint (model, server) VALUES (%s, ...)",
						 quote_literal_cstr(model->name))));
	if (endpoint < 0 || endpoint >= model->nendpoints)
		elog(ERROR, "model \"%s\" has no endpoint %d", model->name, endpoint);
	server = catalog_server_entry(model->endpoints[endpoint].server);
	if (server == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" of model \"%s\" does not exist",
						model->endpoints[endpoint].server, model->name),
				 errhint("CREATE SERVER %s FOREIGN DATA WRAPPER chaincall, or change the model's rows in chaincall.endpoint.",
						 quote_identifier(model->endpoints[endpoint].server))));
	return server;
}

/*
 * The way to one endpoint of a model for a role, copied into the current
 * memory context.
 *
 * Raises ERRCODE_CHAIN_DENIED where the role lacks USAGE on the server, and
 * an error where the model has no endpoint, its server is gone or its key's
 * file cannot be read.  What is not cached needs a transaction.  The model
 * stays good.
 */
Route *
catalog_route(const ModelInfo *model, int endpoint, Oid userid)
{
	const ServerEntry *server = endpoint_server(model, endpoint);
	const EndpointInfo *way = &model->endpoints[endpoint];
	KeyEntry   *key = key_entry(server, model->name, userid);
	Route	   *route = palloc0(sizeof(Route));

	if (key->file != NULL)
		refresh_key_file(key, &server->info);
	catalog_server_copy(&route->server, &server->info);
	route->model = pstrdup(model->name);
	route->version = pstrdup(way->version);
	route->remote_name = pstrdup(way->remote_name);
	route->mapping = key->mapping;
	route->api_key = key->api_key ? pstrdup(key->api_key) : NULL;
	route->endpoint = endpoint;
	route->endpoint_id = way->id;
	return route;
}

/*
 * The way to a server that is asked for no model's sake, otherwise as
 * catalog_route().
 */
Route *
catalog_server_route(const char *name, Oid userid)
{
	const ServerEntry *server = catalog_server_entry(name);
	KeyEntry   *key;
	Route	   *route;

	if (server == NULL)
		(void) catalog_server(name, false); /* which says so */
	key = key_entry(server, "", userid);
	if (key->file != NULL)
		refresh_key_file(key, &server->info);
	route = palloc0(sizeof(Route));
	catalog_server_copy(&route->server, &server->info);
	route->model = pstrdup("");
	route->version = pstrdup("");
	route->remote_name = pstrdup("");
	route->mapping = key->mapping;
	route->api_key = key->api_key ? pstrdup(key->api_key) : NULL;
	return route;
}

/* Frees what catalog_route() has given. */
void
catalog_route_free(Route *route)
{
	catalog_server_free(&route->server);
	pfree(route->model);
	pfree(route->version);
	pfree(route->remote_name);
	if (route->api_key != NULL)
		pfree(route->api_key);
	pfree(route);
}

/*
 * Whether the role can go to the endpoint, which must be one of the model's.
 * Then also the user mapping that it would spend (InvalidOid: none) and the
 * server, which belongs to the cache.  Raises, as catalog_route() does, only
 * where it may go there but its key is of no use.
 */
Reach
catalog_reach(const ModelInfo *model, int endpoint, Oid userid, Oid *mapping,
			  const ServerInfo **server)
{
	const ServerEntry *entry;

	entry = catalog_server_entry(model->endpoints[endpoint].server);
	if (entry == NULL)
		return REACH_NO_SERVER;
	if (known_key(entry, userid) == NULL && !has_usage(entry, userid))
		return REACH_DENIED;
	*mapping = key_entry(entry, model->name, userid)->mapping;
	*server = &entry->info;
	return REACH_YES;
}
