/*
 * executor.c
 *	  A backend in a caller's place: it offers orders and collects answers;
 *	  the launcher sees to executors.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/shared.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"
#include "worker/executor.h"

PG_FUNCTION_INFO_V1(chaincall_test_executor_offer);
PG_FUNCTION_INFO_V1(chaincall_test_executor_cancel);
PG_FUNCTION_INFO_V1(chaincall_test_executor_collect);
PG_FUNCTION_INFO_V1(chaincall_test_executor_bench);

#define MAX_OFFERS 1000

static Ticket *offered[MAX_OFFERS];
static int	noffered = 0;

static void
be_caller(void)
{
	if (my_worker == NULL && !worker_enter(WORKER_CALLER, MyDatabaseId, InvalidOid))
		elog(ERROR, "this database wants no callers");
}

static char *
text_field(Jsonb *object, const char *key)
{
	Jsonb	   *value = json_field(object, key);

	return value == NULL || json_is_null(value) ? NULL : json_string_dup(value);
}

static int
int_field(Jsonb *object, const char *key, int otherwise)
{
	Jsonb	   *value = json_field(object, key);

	return value ? atoi(JsonbToCString(NULL, &value->root, VARSIZE(value))) : otherwise;
}

static const char **
texts_field(Jsonb *object, const char *key)
{
	Jsonb	   *value = json_field(object, key);
	const char **texts;

	if (value == NULL)
		return NULL;
	texts = palloc(Max(json_count(value), 1) * sizeof(char *));
	for (int i = 0; i < json_count(value); i++)
	{
		Jsonb	   *text = json_element(value, i);

		texts[i] = json_is_null(text) ? NULL : json_string_dup(text);
	}
	return texts;
}

/* Offers the order that an object describes; its number, or -1 for no room. */
Datum
chaincall_test_executor_offer(PG_FUNCTION_ARGS)
{
	Jsonb	   *object = PG_GETARG_JSONB_P(1);
	Jsonb	   *params = json_field(object, "params");
	char	   *kind = text_field(object, "kind");
	char	   *returns = text_field(object, "returns");
	char	   *job = text_field(object, "job");
	StepOrder	order = {
		.kind = kind == NULL ? ORDER_SQL : atoi(kind),
		.owner = PG_GETARG_OID(0),
		.chain = "test_chain",
		.path = text_field(object, "path"),
		.line = 3,
		.attempt = 1,
		.tries = int_field(object, "tries", 0),
		.search_path = text_field(object, "search_path"),
		.sql = text_field(object, "sql"),
		.function = text_field(object, "function"),
		.returns = returns == NULL || strcmp(returns, "value") == 0 ?
		RETURNS_VALUE : strcmp(returns, "row") == 0 ? RETURNS_ROW : RETURNS_ROWS,
		.set = json_field(object, "set") != NULL,
		.types = texts_field(object, "types"),
		.names = texts_field(object, "names"),
		.timeout_ms = int_field(object, "timeout", 0)
	};
	Ticket	   *ticket;

	be_caller();
	if (order.search_path == NULL)
		order.search_path = "public";
	if (order.path == NULL)
		order.path = "step";
	if (job != NULL)
		order.job = *DatumGetUUIDP(DirectFunctionCall1(uuid_in, CStringGetDatum(job)));
	else
		ids_uuid7(&order.job);
	order.nparams = params ? json_count(params) : 0;
	order.params = palloc(Max(order.nparams, 1) * sizeof(Jsonb *));
	for (int i = 0; i < order.nparams; i++)
	{
		Jsonb	   *param = json_element(params, i);
		char	   *text = json_is_null(param) ? NULL : JsonbToCString(NULL, &param->root, VARSIZE(param));

		order.params[i] = text && strcmp(text, "\"default\"") == 0 ? NULL : param;
	}
	if (noffered == MAX_OFFERS)
		noffered = 0;
	ticket = handover_offer(&order, (void *) (intptr_t) noffered);
	if (ticket == NULL)
		PG_RETURN_INT32(-1);
	offered[noffered] = ticket;
	PG_RETURN_INT32(noffered++);
}

Datum
chaincall_test_executor_cancel(PG_FUNCTION_ARGS)
{
	handover_cancel(offered[PG_GETARG_INT32(0)]);
	PG_RETURN_VOID();
}

/* The next answer, waited for so many ms; NULL: none. */
Datum
chaincall_test_executor_collect(PG_FUNCTION_ARGS)
{
	int64		deadline = clock_us() + PG_GETARG_INT32(0) * INT64CONST(1000);
	StepAnswer	answer;
	JsonbParseState *state = NULL;

	be_caller();
	while (!handover_collect(&answer))
	{
		int64		left = (deadline - clock_us()) / 1000;

		if (left <= 0)
			PG_RETURN_NULL();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(left, 100), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	json_push_key(&state, "order");
	json_push(&state, WJB_VALUE, json_int((intptr_t) answer.arg));
	json_push_key(&state, answer.output ? "output" : "error");
	json_push(&state, WJB_VALUE, answer.output ? answer.output : step_error_json(answer.error));
	if (answer.died)
	{
		json_push_key(&state, "died");
		json_push(&state, WJB_VALUE, json_bool(true));
	}
	PG_RETURN_JSONB_P(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

/* Steps a second: n one-statement jobs, at most `window` offered at once. */
Datum
chaincall_test_executor_bench(PG_FUNCTION_ARGS)
{
	Oid			owner = PG_GETARG_OID(0);
	int			n = PG_GETARG_INT32(1);
	int			window = PG_GETARG_INT32(2);
	char	   *sql = text_to_cstring(PG_GETARG_TEXT_PP(3));
	int			per_job = PG_GETARG_INT32(4);
	int			sent = 0;
	int			done = 0;
	pg_uuid_t	job;
	int64		begin;
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "bench", ALLOCSET_DEFAULT_SIZES);

	be_caller();
	begin = clock_us();
	while (done < n)
	{
		StepAnswer	answer;
		MemoryContext old = MemoryContextSwitchTo(cxt);

		while (sent < n && sent - done < window)
		{
			Jsonb	   *param = json_int(sent % 10000 + 1);
			StepOrder	order = {
				.owner = owner,.chain = "bench",
				.path = psprintf("step[%d]", sent % per_job),
				.line = 1,.attempt = 1,.search_path = "public",.sql = sql,
				.returns = RETURNS_VALUE,.nparams = 1,.params = &param
			};

			if (sent % per_job == 0)
				ids_uuid7(&job);
			order.job = job;
			if (handover_offer(&order, NULL) == NULL)
				break;
			sent++;
		}
		if (!handover_collect(&answer))
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 10, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
		else
		{
			do
			{
				if (answer.error != NULL)
					step_error_throw(answer.error);
				done++;
			} while (handover_collect(&answer));
		}
		MemoryContextSwitchTo(old);
		MemoryContextReset(cxt);
	}
	PG_RETURN_FLOAT8(n * 1e6 / (clock_us() - begin));
}
