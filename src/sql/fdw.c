/*
 * fdw.c
 *	  The foreign data wrapper's option validator.
 *
 * The wrapper exists for its servers and user mappings: where models live and
 * who may use them are then plain PostgreSQL objects, with GRANT, pg_dump and
 * \des+.  It has no handler; there is nothing to SELECT from.
 *
 * PostgreSQL calls the validator with all options an object would have after
 * the command, so what belongs together is checked together.  Messages never
 * repeat what may be a secret.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "api/api.h"
#include "base/compat.h"
#include "base/json.h"
#include "catalog/catalog_option.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_user_mapping.h"
#include "chain/yaml.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(chaincall_fdw_validator);

typedef void (*OptionCheck) (const char *name, const char *value);

typedef struct OptionRule
{
	const char *name;
	Oid			context;
	bool		http;			/* only of servers with api http */
	OptionCheck check;
} OptionRule;

/* Of a value that may be shown. */
static void
bad_value(const char *name, const char *value, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for option \"%s\": \"%s\"", name, value),
			 errhint("%s", hint)));
}

/* Of a value that may hold a secret. */
static void
bad_hidden_value(const char *name, const char *fault, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for option \"%s\": %s", name, fault),
			 hint ? errhint("%s", hint) : 0));
}

static void
check_api(const char *name, const char *value)
{
	const char *const *apis = api_names();
	StringInfoData list;

	if (api_lookup(value) != NULL)
		return;
	initStringInfo(&list);
	appendStringInfoString(&list, "Valid values: ");
	for (int i = 0; apis[i] != NULL; i++)
		appendStringInfo(&list, "%s%s", i ? ", " : "", apis[i]);
	appendStringInfoChar(&list, '.');
	bad_value(name, value, list.data);
}

static void
check_url(const char *name, const char *value)
{
	const char *fault = option_url_fault(value, false);

	if (fault != NULL)
		bad_hidden_value(name, fault,
						 "Give scheme, host and perhaps a port and a path, such as https://api.example.com/v1.");
}

static void
check_proxy(const char *name, const char *value)
{
	const char *fault = option_url_fault(value, true);

	if (fault != NULL)
		bad_hidden_value(name, fault,
						 "Give scheme, host and port, such as http://proxy.example.com:3128.");
}

static void
check_milliseconds(const char *name, const char *value)
{
	int64		ms;

	if (!option_milliseconds(value, &ms) || ms <= 0)
		bad_value(name, value,
				  "Give an interval above zero and of at most 24 days, such as '30 seconds', or a number of milliseconds.");
}

static void
check_max_in_flight(const char *name, const char *value)
{
	int			n;

	if (!option_count(value, &n) || n <= 0)
		bad_value(name, value, "Give a whole number above zero.");
}

static void
check_max_answer(const char *name, const char *value)
{
	int64		bytes;

	if (!option_bytes(value, &bytes) || bytes <= 0 || bytes > OPTION_MAX_ANSWER)
		bad_value(name, value,
				  "Give a size above zero and below 1GB, such as 500kB or 16MB.");
}

/* A file that the server will read for whoever defines the object. */
static void
check_file(const char *name, const char *value)
{
	if (!is_absolute_path(value))
		bad_value(name, value, "Give an absolute path.");
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\"", name),
				 errdetail("Only roles with privileges of the \"%s\" role may name files that the server reads.",
						   "pg_read_server_files")));
}

static void
check_path(const char *name, const char *value)
{
	if (value[0] != '/')
		bad_value(name, value,
				  "Give a path that begins with a slash; it is appended to the url.");
	for (const char *c = value; *c != '\0'; c++)
	{
		if ((unsigned char) *c <= ' ' || (unsigned char) *c >= 0x7f ||
			*c == '#' || *c == '\\')
			bad_value(name, value, "Write special characters as %XX.");
	}
}

static Jsonb *
option_json(const char *name, const char *value)
{
	char	   *utf8 = pg_server_to_any(value, strlen(value), PG_UTF8);
	Jsonb	   *json;
	char	   *fault;

	if (!json_parse_untrusted(utf8, strlen(utf8), &json, &fault))
		bad_hidden_value(name, psprintf("it %s", fault), NULL);
	return json;
}

static void
check_headers(const char *name, const char *value)
{
	Jsonb	   *headers = option_json(name, value);
	const char *fault = api_headers_fault(headers);

	if (fault != NULL)
		bad_hidden_value(name, fault,
						 "Give a JSON object of texts, such as {\"X-Api-Key\": \"{{api_key}}\"}.");
}

static void
check_request(const char *name, const char *value)
{
	Jsonb	   *request = option_json(name, value);
	const char *fault = api_request_fault(request);

	if (fault != NULL)
		bad_hidden_value(name, fault,
						 "Known names: {{input}}, {{model}}, {{params.NAME}}, {{system}}, {{prompt}}, {{messages}}.");
}

static void
name_option(void *name)
{
	errcontext("option \"%s\"", (const char *) name);
}

static void
check_answer(const char *name, const char *value)
{
	ErrorContextCallback context;

	/* jsonpath raises its errors itself */
	context.callback = name_option;
	context.arg = unconstify(char *, name);
	context.previous = error_context_stack;
	error_context_stack = &context;
	(void) option_jsonpath(value);
	error_context_stack = context.previous;
}

static void
check_key(const char *name, const char *value)
{
	const char *fault = option_key_fault(value);

	if (fault != NULL)
		bad_hidden_value(name, fault, NULL);
}

static const OptionRule rules[] = {
	{"api", ForeignServerRelationId, false, check_api},
	{"url", ForeignServerRelationId, false, check_url},
	{"timeout", ForeignServerRelationId, false, check_milliseconds},
	{"connect_timeout", ForeignServerRelationId, false, check_milliseconds},
	{"attempt_timeout", ForeignServerRelationId, false, check_milliseconds},
	{"max_in_flight", ForeignServerRelationId, false, check_max_in_flight},
	{"max_answer", ForeignServerRelationId, false, check_max_answer},
	{"proxy", ForeignServerRelationId, false, check_proxy},
	{"ca_file", ForeignServerRelationId, false, check_file},
	{"path", ForeignServerRelationId, true, check_path},
	{"headers", ForeignServerRelationId, true, check_headers},
	{"request", ForeignServerRelationId, true, check_request},
	{"answer", ForeignServerRelationId, true, check_answer},
	{"api_key", UserMappingRelationId, false, check_key},
	{"api_key_file", UserMappingRelationId, false, check_file},
};

static void
unknown_option(const char *name, Oid context)
{
	const char *known[lengthof(rules) + 1];
	int			nknown = 0;
	StringInfoData list;
	const char *nearest;

	initStringInfo(&list);
	for (int i = 0; i < (int) lengthof(rules); i++)
	{
		if (rules[i].context != context)
			continue;
		appendStringInfo(&list, "%s%s", nknown ? ", " : "", rules[i].name);
		known[nknown++] = rules[i].name;
	}
	known[nknown] = NULL;
	nearest = nknown ? yaml_nearest(name, known) : NULL;
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("invalid option \"%s\"", name),
			 nknown == 0 ? errhint("There are no valid options in this context.")
			 : nearest ? errhint("Did you mean \"%s\"? Valid options in this context are: %s.",
								 nearest, list.data)
			 : errhint("Valid options in this context are: %s.", list.data)));
}

static const OptionRule *
find_rule(const char *name, Oid context)
{
	for (int i = 0; i < (int) lengthof(rules); i++)
	{
		if (rules[i].context == context && strcmp(rules[i].name, name) == 0)
			return &rules[i];
	}
	unknown_option(name, context);
	return NULL;
}

static const char *
option_value(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *option = lfirst(lc);

		if (strcmp(option->defname, name) == 0)
			return defGetString(option);
	}
	return NULL;
}

static void
require_option(List *options, const char *name, const char *hint)
{
	if (option_value(options, name) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
				 errmsg("option \"%s\" is required", name),
				 errhint("%s", hint)));
}

/* What the options of a server demand of each other. */
static void
check_server(List *options)
{
	const char *api;
	ListCell   *lc;

	require_option(options, "api", "Such as OPTIONS (api 'openai', url 'https://api.example.com/v1').");
	require_option(options, "url", "Such as OPTIONS (api 'openai', url 'https://api.example.com/v1').");
	api = option_value(options, "api");
	foreach(lc, options)
	{
		DefElem    *option = lfirst(lc);

		if (find_rule(option->defname, ForeignServerRelationId)->http &&
			strcmp(api, "http") != 0)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("option \"%s\" is only for servers with api http",
							option->defname),
					 errdetail("The api of this server is %s, which has its own.",
							   api)));
	}
}

static void
check_mapping(List *options)
{
	if (option_value(options, "api_key") != NULL &&
		option_value(options, "api_key_file") != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("options \"api_key\" and \"api_key_file\" exclude each other")));
}

Datum
chaincall_fdw_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			context = PG_GETARG_OID(1);
	ListCell   *lc;

	if (context == ForeignTableRelationId || context == AttributeRelationId)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("foreign-data wrapper \"chaincall\" has no foreign tables"),
				 errhint("A model on this server is called through chaincall.call() or a function in LANGUAGE chaincall.")));

	foreach(lc, options)
	{
		DefElem    *option = lfirst(lc);

		find_rule(option->defname, context)->check(option->defname,
												   defGetString(option));
	}
	if (context == ForeignServerRelationId)
		check_server(options);
	else if (context == UserMappingRelationId)
		check_mapping(options);
	PG_RETURN_VOID();
}
