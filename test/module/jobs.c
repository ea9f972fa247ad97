/*
 * jobs.c
 *		The board and pinned chains, as workers use them.
 */
#include "postgres.h"

#include "base/json.h"
#include "chain/pin.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "queue/board.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(chaincall_test_board_tell);
PG_FUNCTION_INFO_V1(chaincall_test_board_take);
PG_FUNCTION_INFO_V1(chaincall_test_board_settle);
PG_FUNCTION_INFO_V1(chaincall_test_board_has_work);
PG_FUNCTION_INFO_V1(chaincall_test_board_count);
PG_FUNCTION_INFO_V1(chaincall_test_board_started);
PG_FUNCTION_INFO_V1(chaincall_test_board_recount);
PG_FUNCTION_INFO_V1(chaincall_test_board_reserve);
PG_FUNCTION_INFO_V1(chaincall_test_board_announce);
PG_FUNCTION_INFO_V1(chaincall_test_board_forget);
PG_FUNCTION_INFO_V1(chaincall_test_waiter);
PG_FUNCTION_INFO_V1(chaincall_test_pin_load);

Datum
chaincall_test_board_tell(PG_FUNCTION_ARGS)
{
	board_tell(PG_GETARG_OID(0), PG_GETARG_INT64(1));
	PG_RETURN_VOID();
}

/* Owners with work as rows (owner, mark, generation); ranks are numbers here. */
Datum
chaincall_test_board_take(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			max = PG_GETARG_INT32(0);
	BoardClaim *claims = palloc(Max(max, 1) * sizeof(BoardClaim));
	int			n = board_take(claims, max);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
	{
		Datum		values[3] = {
			ObjectIdGetDatum(claims[i].owner), Int64GetDatum(claims[i].mark.rank),
			Int64GetDatum((int64) claims[i].generation)
		};
		bool		nulls[3] = {false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
chaincall_test_board_settle(PG_FUNCTION_ARGS)
{
	BoardClaim	claim = {
		.owner = PG_GETARG_OID(0),
		.generation = (uint64) PG_GETARG_INT64(1)
	};

	BoardPlace	last = {.rank = PG_GETARG_INT64(3)};

	board_settle(&claim, PG_GETARG_BOOL(2), &last);
	PG_RETURN_VOID();
}

Datum
chaincall_test_board_has_work(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(board_has_work());
}

Datum
chaincall_test_board_count(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(board_count(PG_GETARG_OID(0)));
}

Datum
chaincall_test_board_started(PG_FUNCTION_ARGS)
{
	board_started(PG_GETARG_OID(0), PG_GETARG_INT32(1));
	PG_RETURN_VOID();
}

Datum
chaincall_test_board_recount(PG_FUNCTION_ARGS)
{
	board_recount(PG_GETARG_OID(0), PG_GETARG_INT64(1), PG_GETARG_INT64(2));
	PG_RETURN_VOID();
}

Datum
chaincall_test_board_reserve(PG_FUNCTION_ARGS)
{
	board_reserve(PG_GETARG_OID(0));
	PG_RETURN_VOID();
}

Datum
chaincall_test_board_announce(PG_FUNCTION_ARGS)
{
	board_announce(PG_GETARG_OID(0), PG_GETARG_INT64(1));
	PG_RETURN_VOID();
}

Datum
chaincall_test_board_forget(PG_FUNCTION_ARGS)
{
	board_forget_database(MyDatabaseId);
	PG_RETURN_VOID();
}

/* Is a waiter for the one job woken when the other ends? */
Datum
chaincall_test_waiter(PG_FUNCTION_ARGS)
{
	bool		woken;

	if (!waiter_begin(PG_GETARG_UUID_P(0)))
		PG_RETURN_NULL();
	ResetLatch(MyLatch);
	waiter_notify(PG_GETARG_UUID_P(1), 1);
	woken = MyLatch->is_set;
	waiter_end();
	waiter_notify(PG_GETARG_UUID_P(1), 1);
	PG_RETURN_BOOL(woken);
}

static void
put(JsonbParseState **state, const char *key, const Jsonb *value)
{
	json_push_key(state, key);
	json_push(state, WJB_VALUE, value ? value : json_text("executor"));
}

/*
 * What a caller sees of the chain of that place in a closure: its nature, its
 * arguments from args and its result from output; "executor" where one must
 * make them.
 */
Datum
chaincall_test_pin_load(PG_FUNCTION_ARGS)
{
	Pinned	   *pinned = pin_load(PG_GETARG_JSONB_P(0));
	int			at = PG_GETARG_INT32(1);
	JsonbParseState *state = NULL;
	PinnedChain *chain;
	Jsonb	   *seen;
	ListCell   *lc;

	if (at >= pinned->nchains)
		PG_RETURN_NULL();
	chain = &pinned->chains[at];
	if (pin_find(pinned, chain->signature) != chain)
		elog(ERROR, "pin_find() finds another");
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	put(&state, "search_path", json_text(pinned->search_path));
	put(&state, "signature", json_text(chain->signature));
	put(&state, "plain_inputs", json_bool(chain->plain_inputs));
	put(&state, "plain_result", json_bool(chain->plain_result));
	put(&state, "has_steps", json_bool(chain->has_steps));
	put(&state, "result_type", json_text(chain->result_type));
	put(&state, "columns", json_int(chain->ncolumns));
	put(&state, "shapes", json_int(list_length(chain->definition->shapes)));
	json_push_key(&state, "functions");
	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	foreach(lc, chain->definition->functions)
	{
		FunctionStep *function = lfirst(lc);

		json_push(&state, WJB_ELEM,
				  json_text(psprintf("%s%s%s", function->signature,
									 function->is_chain ? " chain" : "",
									 function->helper ? " helper" : "")));
	}
	(void) pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	if (!PG_ARGISNULL(2))
	{
		bool		null_for_strict;
		Jsonb	  **inputs = pin_inputs(chain, PG_GETARG_JSONB_P(2),
										&null_for_strict);

		put(&state, "inputs", inputs ?
			json_array(inputs, chain->definition->nargs) : NULL);
		if (inputs)
			put(&state, "null_for_strict", json_bool(null_for_strict));
	}
	if (!PG_ARGISNULL(3))
		put(&state, "result", pin_result(chain, PG_GETARG_JSONB_P(3)));
	seen = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	pin_free(pinned);
	PG_RETURN_JSONB_P(seen);
}
