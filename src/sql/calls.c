/*
 * calls.c
 *	  What SQL calls besides chains themselves: single model calls, run(),
 *	  render() and last_trace().
 *
 * A single call is a chain of one step, so that it is routed, retried and
 * traced by the same code.
 */
#include "postgres.h"

#include "api/api.h"
#include "base/compat.h"
#include "base/error.h"
#include "base/json.h"
#include "base/value.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "chain/definition.h"
#include "chain/pin.h"
#include "chain/session.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "trace/trace.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#define BAR_WIDTH 40

PG_FUNCTION_INFO_V1(chaincall_call);
PG_FUNCTION_INFO_V1(chaincall_request);
PG_FUNCTION_INFO_V1(chaincall_embed);
PG_FUNCTION_INFO_V1(chaincall_run);
PG_FUNCTION_INFO_V1(chaincall_render);
PG_FUNCTION_INFO_V1(chaincall_last_trace);

/* ---- single calls ---- */

static void
check_params(const Jsonb *params)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;

	if (!JB_ROOT_IS_OBJECT(params))
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("\"params\" must be an object, not %s",
						json_type_name(params)),
				 errhint("Write '{\"temperature\": 0}'.")));
	it = JsonbIteratorInit(unconstify(JsonbContainer *, &params->root));
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		char	   *name;

		if (token != WJB_KEY)
			continue;
		name = pnstrdup(v.val.string.val, v.val.string.len);
		if (!api_param_known(name))
			ereport(ERROR,
					(errcode(ERRCODE_CHAIN_INPUT),
					 errmsg("unknown parameter \"%s\"", name),
					 errhint("Known are temperature, top_p, max_tokens, stop, seed and reasoning; for a provider's own fields use chaincall.request().")));
	}
}

static Jsonb *
run_single(const char *model, CallForm form, Jsonb *params, Jsonb *input)
{
	PlanOptions options = {NULL, NULL};

	return session_run(definition_of_call(model, form, params), &input,
					   &options);
}

/* call(model text, prompt text, params jsonb) → text */
Datum
chaincall_call(PG_FUNCTION_ARGS)
{
	char	   *model = text_to_cstring(PG_GETARG_TEXT_PP(0));
	text	   *prompt = PG_GETARG_TEXT_PP(1);
	Jsonb	   *params = PG_GETARG_JSONB_P(2);
	Jsonb	   *output;

	check_params(params);
	output = run_single(model, CALL_MESSAGES, params,
						json_text_len(VARDATA_ANY(prompt),
									  VARSIZE_ANY_EXHDR(prompt)));
	PG_RETURN_TEXT_P(cstring_to_text(value_to_text(output)));
}

/* request(model text, request jsonb) → jsonb */
Datum
chaincall_request(PG_FUNCTION_ARGS)
{
	char	   *model = text_to_cstring(PG_GETARG_TEXT_PP(0));

	PG_RETURN_JSONB_P(run_single(model, CALL_REQUEST, NULL,
								 PG_GETARG_JSONB_P(1)));
}

/* embed(model text, texts text[]) → setof real[], one a text, in order */
Datum
chaincall_embed(PG_FUNCTION_ARGS)
{
	char	   *model = text_to_cstring(PG_GETARG_TEXT_PP(0));
	ArrayType  *texts = PG_GETARG_ARRAYTYPE_P(1);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Jsonb	   *vectors;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (array_contains_nulls(texts))
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("a text to embed is null"),
				 errhint("Leave nulls out, or replace them: coalesce(body, '').")));
	if (ArrayGetNItems(ARR_NDIM(texts), ARR_DIMS(texts)) == 0)
		return (Datum) 0;
	vectors = run_single(model, CALL_INPUT, NULL,
						 value_from_datum(PointerGetDatum(texts), false,
										  TEXTARRAYOID));
	for (int i = 0; i < json_count(vectors); i++)
	{
		bool		isnull;
		Datum		vector = value_to_datum(json_element(vectors, i),
											FLOAT4ARRAYOID, -1, &isnull);

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &vector,
							 &isnull);
	}
	return (Datum) 0;
}

/* ---- chains by name ---- */

static void
require(FunctionCallInfo fcinfo, int arg, const char *name)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" is null", name),
				 errhint("Give a value.")));
}

/* run(chain text, input jsonb, mock jsonb, stop_after text) → jsonb */
Datum
chaincall_run(PG_FUNCTION_ARGS)
{
	PlanOptions options = {NULL, NULL};
	Definition *definition;
	Jsonb	   *volatile output = NULL;

	require(fcinfo, 0, "chain");
	require(fcinfo, 1, "input");
	if (!PG_ARGISNULL(2))
		options.mock = PG_GETARG_JSONB_P(2);
	if (!PG_ARGISNULL(3))
		options.stop_after = text_to_cstring(PG_GETARG_TEXT_PP(3));

	definition = definition_of_function(chain_find(text_to_cstring(PG_GETARG_TEXT_PP(0))));
	PG_TRY();
	{
		bool		null_for_strict;
		Jsonb	  **inputs = definition_inputs(definition,
											   PG_GETARG_JSONB_P(1),
											   &null_for_strict);

		if (!null_for_strict)
		{
			output = session_run(definition, inputs, &options);
			if (options.stop_after == NULL)
				output = definition_result(definition, output);
		}
	}
	PG_FINALLY();
	{
		definition_release(definition);
	}
	PG_END_TRY();
	if (output == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(output);
}

/* render(chain text, step text, input jsonb, mock jsonb) → jsonb */
Datum
chaincall_render(PG_FUNCTION_ARGS)
{
	Definition *definition;
	Jsonb	   *volatile result = NULL;

	require(fcinfo, 0, "chain");
	require(fcinfo, 1, "step");
	require(fcinfo, 2, "input");
	definition = definition_of_function(chain_find(text_to_cstring(PG_GETARG_TEXT_PP(0))));
	PG_TRY();
	{
		bool		null_for_strict;
		Jsonb	  **inputs = definition_inputs(definition,
											   PG_GETARG_JSONB_P(2),
											   &null_for_strict);

		if (!null_for_strict)
			result = session_render(definition, inputs,
									text_to_cstring(PG_GETARG_TEXT_PP(1)),
									PG_ARGISNULL(3) ? NULL :
									PG_GETARG_JSONB_P(3));
	}
	PG_FINALLY();
	{
		definition_release(definition);
	}
	PG_END_TRY();
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(result);
}

/*
 * last_trace() → text: the session's last run as a waterfall, for the role
 * that ran it.  It holds words of services, which may be about anything, and a
 * session changes hands: SET ROLE, a pooler, a SECURITY DEFINER function.
 */
Datum
chaincall_last_trace(PG_FUNCTION_ARGS)
{
	const Trace *trace = trace_last();

	if (trace == NULL || !has_privs_of_role(GetUserId(), trace->role))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(trace_waterfall(trace, BAR_WIDTH)));
}
