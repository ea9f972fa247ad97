/*
 * pin.c
 *	  A chain with everything it names becomes a closure, in the session that
 *	  inserts a job.
 *
 * Closures are kept for the session; one is good as long as the chain cache's
 * generation, the role and the search_path are the same.
 */
#include "postgres.h"

#include "base/error.h"
#include "base/json.h"
#include "base/settings.h"
#include "catalog/namespace.h"
#include "chain/pin_private.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

typedef struct CachedPin
{
	Oid			function;		/* hash key */
	MemoryContext cxt;
	PinMade    *made;
	uint64		generation;
	Oid			role;
	char	   *search_path;
} CachedPin;

static HTAB *pins = NULL;

/* ---- the cache ---- */

static void
create_cache(void)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(CachedPin);
	ctl.hcxt = TopMemoryContext;
	pins = hash_create("chaincall pins", 32, &ctl,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static bool
is_current(const CachedPin *pin)
{
	return pin->generation == definition_generation() &&
		pin->role == GetUserId() &&
		strcmp(pin->search_path, namespace_search_path) == 0;
}

/*
 * The closure of a chain, as the current user and by the session's search_path;
 * made where the session has none that is still right.  Raises what compiling
 * the chains in it does.  It is good until the next call.
 */
PinMade *
pin_make(Oid function)
{
	CachedPin  *pin;
	MemoryContext cxt;
	PinMade    *made;
	uint64		generation;
	char	   *search_path;

	if (pins == NULL)
		create_cache();
	pin = hash_search(pins, &function, HASH_FIND, NULL);
	if (pin != NULL && is_current(pin))
		return pin->made;

	generation = definition_generation();
	cxt = AllocSetContextCreate(CurrentMemoryContext, "chaincall closure",
								ALLOCSET_SMALL_SIZES);
	made = pin_build(function, cxt);
	search_path = MemoryContextStrdup(cxt, namespace_search_path);
	pin = hash_search(pins, &function, HASH_FIND, NULL);
	if (pin != NULL)
		MemoryContextDelete(pin->cxt);
	else
		pin = hash_search(pins, &function, HASH_ENTER, NULL);
	MemoryContextSetParent(cxt, TopMemoryContext);
	pin->cxt = cxt;
	pin->made = made;
	pin->generation = generation;
	pin->role = GetUserId();
	pin->search_path = search_path;
	return made;
}

/* ---- input ---- */

/* Is the input, as it is, what conversion would make of it? */
static bool
input_fits(const Definition *definition, Jsonb *input)
{
	if (!JB_ROOT_IS_OBJECT(input) ||
		JB_ROOT_COUNT(input) != (uint32) definition->nargs)
		return false;
	for (int i = 0; i < definition->nargs; i++)
	{
		const ChainArg *arg = &definition->args[i];
		JsonbValue	value;

		if (!json_get(input, arg->name, &value) ||
			!plain_fits(&value, plain_type(arg->type)))
			return false;
	}
	return true;
}

static Jsonb *
converted_input(Definition *definition, const Jsonb *input)
{
	bool		null_for_strict;
	Jsonb	  **values = definition_inputs(definition, input,
										   &null_for_strict);
	JsonbParseState *state = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < definition->nargs; i++)
	{
		json_push_key(&state, definition->args[i].name);
		json_push(&state, WJB_VALUE, values[i]);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static void
check_size(const Definition *definition, const Jsonb *input)
{
	if (VARSIZE(input) <= setting_max_input_kb * UINT64CONST(1024))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_LIMIT),
			 errmsg("input of chain \"%s\" is too large", definition->name),
			 errdetail("It has %zu kB, at most %d kB are allowed.",
					   ((size_t) VARSIZE(input) + 1023) / 1024,
					   setting_max_input_kb),
			 errhint("Raise chaincall.max_input, or pass a key and read the data in a sql step.")));
}

/*
 * The input as a job of the chain keeps it: an object of all arguments, DEFAULTs filled
 * in, each as its type makes it.  Raises for what does not fit, is missing, is
 * unknown or is too large.  DEFAULTs and domains may run any code, pin_make()
 * of the same chain too.  In the current memory context; input itself where
 * nothing changes.
 */
Jsonb *
pin_normalise(Oid function, Jsonb *input)
{
	Definition *definition = definition_of_function(function);
	Jsonb	   *volatile result = input;

	PG_TRY();
	{
		check_size(definition, input);
		if (!input_fits(definition, input))
		{
			result = converted_input(definition, input);
			check_size(definition, result);
		}
	}
	PG_FINALLY();
	{
		definition_release(definition);
	}
	PG_END_TRY();
	return result;
}
