/*
 * chain_find.c
 *	  Chains by the name that somebody wrote.
 */
#include "postgres.h"

#include "base/error.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "chain/definition.h"
#include "chain/pin.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#define NAME_SHOWN 1000			/* bytes of a name in an error */

static bool
is_chain(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_proc) GETSTRUCT(tuple))->prolang ==
		definition_language();
	ReleaseSysCache(tuple);
	return result;
}

/* The only chain of that name; InvalidOid when there is none. */
static Oid
find_by_name(const char *name)
{
	List	   *parts = textToQualifiedNameList(cstring_to_text(name));
	FuncCandidateList candidates;
	StringInfoData signatures;
	Oid			found = InvalidOid;
	int			n = 0;

	initStringInfo(&signatures);
	candidates = FuncnameGetCandidates(parts, -1, NIL, false, false, false,
									   true);
	for (; candidates != NULL; candidates = candidates->next)
	{
		if (!is_chain(candidates->oid))
			continue;
		found = candidates->oid;
		appendStringInfo(&signatures, "%s%s", n++ ? " or " : "",
						 format_procedure(found));
	}
	if (n > 1)
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_FUNCTION),
				 errmsg("chain \"%s\" is not unique", name),
				 errhint("Write the signature: %s.", signatures.data)));
	return found;
}

/*
 * The chain of that name or signature, found by the search_path.  Raises when
 * there is none and when a name is ambiguous.
 */
Oid
chain_find_known(const char *name)
{
	Oid			found;

	if (strchr(name, '(') != NULL)
		found = DatumGetObjectId(DirectFunctionCall1(regprocedurein,
													 CStringGetDatum(name)));
	else
		found = find_by_name(name);
	if (!OidIsValid(found) || !is_chain(found))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("chain \"%.*s\" does not exist",
						pg_mbcliplen(name, strlen(name), NAME_SHOWN), name),
				 errhint("A chain is a function in LANGUAGE chaincall; check its name and search_path.")));
	return found;
}

/* The same, and raises when the current user may not execute it. */
Oid
chain_find(const char *name)
{
	Oid			found = chain_find_known(name);

	if (compat_proc_aclcheck(found, GetUserId(), ACL_EXECUTE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_DENIED),
				 errmsg("permission denied for chain \"%s\"", name),
				 errhint("Ask its owner to GRANT EXECUTE on it.")));
	return found;
}

/*
 * The function of a pinned signature; InvalidOid when it was dropped.  The
 * search_path must begin with pg_catalog.  A type that is gone may raise.
 */
Oid
chain_find_signature(const char *signature)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		found;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = CStringGetTextDatum(signature);
	fcinfo->args[0].isnull = false;
	found = to_regprocedure(fcinfo);
	return fcinfo->isnull ? InvalidOid : DatumGetObjectId(found);
}
