/*
 * call_make.c
 *	  A call as it begins: whom it may ask, and what.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/json.h"
#include "call/call_internal.h"

/*
 * What the model is asked, in neutral words: a copy in the current memory
 * context, but for the shape's schema.
 */
void
call_request(ApiRequest *request, const ModelInfo *model, const CallSpec *spec)
{
	memset(request, 0, sizeof(ApiRequest));
	request->form = spec->form;
	request->kind = pstrdup(model->kind);
	request->system = spec->system ? pstrdup(spec->system) : NULL;
	request->messages = json_copy(CurrentMemoryContext, spec->messages);
	request->body = json_copy(CurrentMemoryContext, spec->body);
	if (model->params != NULL && spec->params != NULL)
		request->params = json_merge(model->params, spec->params);
	else
		request->params = json_copy(CurrentMemoryContext, spec->params ? spec->params : model->params);
	if (spec->shape != NULL && spec->form == CALL_MESSAGES)
	{
		request->schema = spec->shape->wire;
		request->strict = spec->shape->strict;
	}
	request->given = json_copy(CurrentMemoryContext, spec->given);
	if (spec->given != NULL)
		request->given_api = pstrdup(route_heaviest_api(model));
}

static bool
is_listed(const char *name, const char **names, int n)
{
	for (int i = 0; i < n; i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return false;
}

/* The model and those behind it, each once; the current context's. */
static void
list_models(Call *call, const ModelInfo *model, const CallSpec *spec)
{
	const char *const *more = spec->fallback;
	int			n = 0;

	if (more == NULL)
	{
		more = (const char *const *) model->fallback;
		n = model->nfallback;
	}
	else
		while (more[n] != NULL)
			n++;
	call->models = palloc((n + 1) * sizeof(char *));
	call->models[0] = pstrdup(model->name);
	call->nmodels = 1;
	for (int i = 0; i < n; i++)
		if (!is_listed(more[i], call->models, call->nmodels))
			call->models[call->nmodels++] = pstrdup(more[i]);
	call->model = call->models[0];
}

/* The api that a request in a provider's own form is for; NULL: any. */
static char *
form_api(const ModelInfo *model, const CallSpec *spec)
{
	const ServerInfo *server;

	if (spec->given != NULL)
		return pstrdup(route_heaviest_api(model));
	if (spec->form != CALL_REQUEST || model->nendpoints == 0)
		return NULL;
	server = catalog_server(model->endpoints[0].server, true);
	return server ? pstrdup(server->api) : NULL;
}

/*
 * A call as it begins, with its way, in the context, which is current.  Raises
 * what call_start() raises.
 */
Call *
call_make(CallGroup *group, MemoryContext context, const CallSpec *spec)
{
	const ModelInfo *model = catalog_model(spec->model, false);
	Call	   *call = palloc0(sizeof(Call));

	call->group = group;
	call->run = spec->run;
	call->context = context;
	call->state = CALL_STARTING;
	list_models(call, model, spec);
	call->path = pstrdup(spec->path);
	call->retry = spec->retry ? *spec->retry : route_retry_policy(model->retry);
	call->failures = spec->failed;
	call->model_timeout_ms = model->timeout_ms;
	call->step_deadline_us = spec->deadline_us;
	call->deadline_us = spec->deadline_us;
	call->share_us = CLOCK_NEVER;
	call->attempt_end_us = CLOCK_NEVER;
	call_request(&call->request, model, spec);
	call->extra = json_copy(CurrentMemoryContext, spec->extra);
	if (call->nmodels > 1)
	{
		call->params = json_copy(CurrentMemoryContext, spec->params);
		call->messages = call->request.messages;
	}
	if (call->nmodels > 1 || spec->given != NULL)
		call->api = form_api(model, spec);
	call->shape = spec->shape;
	call->reasks = spec->reask;
	way_find(call);
	return call;
}
