/*
 * api.c
 *	  The known apis, the neutral parameters and the meaning of a status.
 */
#include "postgres.h"

#include "api/api_wire.h"
#include "base/json.h"
#include "catalog/catalog_option.h"
#include "utils/numeric.h"

static const Api *const apis[] = {&api_openai, &api_anthropic, &api_http};

static const char *const names[] = {"openai", "anthropic", "http", NULL};

static const char *const param_names[] = {
	"temperature", "top_p", "max_tokens", "stop", "seed", "reasoning", NULL
};

static const char *const reasoning_names[] = {
	[REASONING_UNSET] = "",
	[REASONING_NONE] = "none",
	[REASONING_MINIMAL] = "minimal",
	[REASONING_LOW] = "low",
	[REASONING_MEDIUM] = "medium",
	[REASONING_HIGH] = "high"
};

/* The api of that name, or NULL. */
const Api *
api_lookup(const char *name)
{
	for (int i = 0; i < (int) lengthof(apis); i++)
	{
		if (strcmp(apis[i]->name, name) == 0)
			return apis[i];
	}
	return NULL;
}

/* All apis' names, NULL-terminated. */
const char *const *
api_names(void)
{
	return names;
}

/* Whether name is one of the neutral parameters. */
bool
api_param_known(const char *name)
{
	for (int i = 0; param_names[i] != NULL; i++)
	{
		if (strcmp(param_names[i], name) == 0)
			return true;
	}
	return false;
}

/* The neutral word for a degree of reasoning; a constant. */
const char *
api_reasoning_name(Reasoning reasoning)
{
	return reasoning_names[reasoning];
}

static char *
param_text(const JsonbValue *value)
{
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/* NULL, or what is wrong with stop. */
static const char *
stop_fault(const JsonbValue *value)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;

	if (value->type == jbvString)
		return NULL;
	if (value->type != jbvBinary ||
		!JsonContainerIsArray(value->val.binary.data))
		return "stop must be a text or an array of texts";
	it = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_ELEM && v.type != jbvString)
			return "stop must be a text or an array of texts";
	}
	return NULL;
}

static bool
read_reasoning(const JsonbValue *value, Reasoning *out)
{
	if (value->type != jbvString)
		return false;
	for (int i = REASONING_NONE; i <= REASONING_HIGH; i++)
	{
		if (value_is(value, reasoning_names[i]))
		{
			*out = (Reasoning) i;
			return true;
		}
	}
	return false;
}

/* Takes one parameter; NULL, or what is wrong with it. */
static const char *
read_param(const char *name, const JsonbValue *value, ApiParams *out)
{
	if (value->type == jbvNull)
		return NULL;			/* never sent */
	if (strcmp(name, "temperature") == 0 || strcmp(name, "top_p") == 0)
	{
		if (value->type != jbvNumeric || numeric_is_nan(value->val.numeric))
			return psprintf("%s must be a number", name);
		if (name[1] == 'e')
			out->temperature = *value;
		else
			out->top_p = *value;
	}
	else if (strcmp(name, "max_tokens") == 0)
	{
		if (!option_whole(value, &out->max_tokens) || out->max_tokens <= 0)
			return "max_tokens must be a whole number above zero";
	}
	else if (strcmp(name, "seed") == 0)
	{
		if (value->type != jbvNumeric ||
			strchr(numeric_normalize(value->val.numeric), '.') != NULL)
			return "seed must be a whole number";
		out->seed = *value;
	}
	else if (strcmp(name, "stop") == 0)
	{
		out->stop = *value;
		return stop_fault(value);
	}
	else if (!read_reasoning(value, &out->reasoning))
		return "reasoning must be one of none, minimal, low, medium, high";
	return NULL;
}

/* Reads params; NULL, or what is wrong, with a hint where there is one. */
static char *
read_params(const Jsonb *params, ApiParams *out, char **hint)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;
	const char *fault;

	memset(out, 0, sizeof(ApiParams));	/* jbvNull is zero */
	if (params == NULL)
		return NULL;
	if (!JB_ROOT_IS_OBJECT(params))
		return psprintf("params must be an object, not of type %s",
						json_type_name(params));
	it = JsonbIteratorInit(unconstify(JsonbContainer *, &params->root));
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		char	   *name;

		if (token != WJB_KEY)
			continue;
		name = param_text(&v);
		(void) JsonbIteratorNext(&it, &v, true);
		if (!api_param_known(name))
		{
			*hint = "Known names: temperature, top_p, max_tokens, stop, seed, reasoning. What only one api has goes into a step's extra.";
			return psprintf("unknown name \"%s\"", name);
		}
		if ((fault = read_param(name, &v, out)) != NULL)
			return pstrdup(fault);
	}
	return NULL;
}

/*
 * NULL when params is an object of neutral parameters with fitting values,
 * else what is wrong (palloc'd) and, set only then, a hint.
 */
char *
api_params_fault(const Jsonb *params, char **hint)
{
	ApiParams	out;

	*hint = NULL;
	return read_params(params, &out, hint);
}

/* Reads the parameters of a call; raises ERRCODE_CHAIN_INPUT. */
void
api_params_read(const Jsonb *params, ApiParams *out)
{
	char	   *hint = NULL;
	char	   *fault = read_params(params, out, &hint);

	if (fault != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("invalid params: %s", fault),
				 errhint("%s", hint ? hint : "They come from the step's params and the model's; null takes one of the model's away.")));
}

/*
 * The class of an HTTP status.  503 is throttling where the service says when
 * to come back, which decoders do not see: retry_after is the caller's to say.
 */
ErrorClass
api_status_class(int status, bool retry_after)
{
	if (status >= 200 && status < 300)
		return CLASS_NONE;
	if (status == 429 || (status == 503 && retry_after))
		return CLASS_THROTTLED;
	if (status == 408 || status == 409 || status == 425 || status >= 500)
		return CLASS_TRANSIENT;
	if (status >= 300)
		return CLASS_PERMANENT;
	return CLASS_INVALID;		/* 1xx is no answer */
}
