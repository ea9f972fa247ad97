/*
 * step_model.c
 *	  The keys of a model step.
 */
#include "postgres.h"

#include "base/error.h"
#include "base/json.h"
#include "chain/definition.h"

static const char *const forms[] = {"prompt", "messages", "input", "request",
NULL};

static const char *const roles[] = {"user", "assistant", "system", "tool",
NULL};

static const char *
parse_role(const YamlNode *node)
{
	const char *role = step_text(node, "role");

	for (int i = 0; roles[i] != NULL; i++)
	{
		if (strcmp(role, roles[i]) == 0)
			return roles[i];
	}
	definition_error(node->line, ERRCODE_SYNTAX_ERROR,
					 "Roles are user, assistant, system and tool.",
					 "unknown role \"%s\"", role);
}

/* One part of a content list: {text: …}; pictures and sound come later. */
static Template *
parse_part(const YamlNode *node)
{
	static const char *const known[] = {"text", "image", "file", "audio",
	NULL};

	if (node->type != YAML_MAP)
		return template_compile(step_text(node, "content"),
								node->text_line);
	step_check_keys(node, known, "a part of \"content\"");
	if (node->count != 1)
		definition_error(node->line, ERRCODE_SYNTAX_ERROR,
						 "Write each part as an entry of its own: - text: ...",
						 "a part of \"content\" takes exactly one of text, image, file, audio");
	if (strcmp(node->keys[0], "text") != 0)
		definition_error(node->key_lines[0], ERRCODE_FEATURE_NOT_SUPPORTED,
						 "A later version will know it.",
						 "\"%s\" is not yet supported", node->keys[0]);
	return template_compile(step_text(node->items[0], "text"),
							node->items[0]->text_line);
}

static void
parse_message(MessageStep *message, const YamlNode *node)
{
	static const char *const known[] = {"role", "content", NULL};
	const YamlNode *role;
	const YamlNode *content;

	if (node->type == YAML_STRING)
	{
		message->splice = json_template_compile(node);
		return;
	}
	if (node->type != YAML_MAP)
		definition_error(node->line, ERRCODE_SYNTAX_ERROR,
						 "Write {role: user, content: \"...\"}, or a template that gives an array of such.",
						 "a message is neither a map nor a template");
	step_check_keys(node, known, "a message");
	role = yaml_get(node, "role");
	content = yaml_get(node, "content");
	if (role == NULL || content == NULL)
		definition_error(node->line, ERRCODE_SYNTAX_ERROR,
						 "Write {role: user, content: \"...\"}.",
						 "a message lacks \"%s\"",
						 role == NULL ? "role" : "content");
	message->role = parse_role(role);
	message->parts = content->type == YAML_LIST;
	message->ntexts = message->parts ? content->count : 1;
	if (message->ntexts == 0)
		definition_error(content->line, ERRCODE_SYNTAX_ERROR,
						 "Add a part: - text: ...", "\"content\" is empty");
	message->texts = palloc(message->ntexts * sizeof(Template *));
	if (!message->parts)
		message->texts[0] = template_compile(step_text(content, "content"),
											 content->text_line);
	else
	{
		for (int i = 0; i < content->count; i++)
			message->texts[i] = parse_part(content->items[i]);
	}
}

static void
parse_form(ModelStep *model, const YamlNode *node, int line)
{
	const YamlNode *part = NULL;
	const char *form = NULL;

	for (int i = 0; forms[i] != NULL; i++)
	{
		const YamlNode *here = yaml_get(node, forms[i]);

		if (here == NULL)
			continue;
		if (part != NULL)
			definition_error(here->line, ERRCODE_SYNTAX_ERROR,
							 "Use exactly one of prompt, messages, input and request.",
							 "model step has both \"%s\" and \"%s\"", form,
							 forms[i]);
		part = here;
		form = forms[i];
	}
	if (part == NULL)
		definition_error(line, ERRCODE_SYNTAX_ERROR,
						 "Add exactly one of prompt, messages, input and request.",
						 "model step has nothing to ask");

	if (strcmp(form, "prompt") == 0)
		model->prompt = template_compile(step_text(part, form),
										 part->text_line);
	else if (strcmp(form, "messages") == 0)
	{
		if (part->type != YAML_LIST || part->count == 0)
			definition_error(part->line, ERRCODE_SYNTAX_ERROR,
							 "Write - {role: user, content: \"...\"}",
							 "\"messages\" takes a list");
		model->nmessages = part->count;
		model->messages = palloc0(part->count * sizeof(MessageStep));
		for (int i = 0; i < part->count; i++)
			parse_message(&model->messages[i], part->items[i]);
	}
	else
	{
		model->form = strcmp(form, "input") == 0 ? CALL_INPUT : CALL_REQUEST;
		model->body = json_template_compile(part);
	}
}

/* params and extra: maps whose keys are checked. */
static void
parse_params(ModelStep *model, const YamlNode *node)
{
	const YamlNode *params = yaml_get(node, "params");
	const YamlNode *extra = yaml_get(node, "extra");

	if (params != NULL)
	{
		if (params->type != YAML_MAP)
			definition_error(params->line, ERRCODE_SYNTAX_ERROR,
							 "Write params: {temperature: 0}",
							 "\"params\" takes a map");
		for (int i = 0; i < params->count; i++)
		{
			if (!api_param_known(params->keys[i]))
				definition_error(params->key_lines[i], ERRCODE_SYNTAX_ERROR,
								 "Known are temperature, top_p, max_tokens, stop, seed and reasoning; a provider's own fields go into \"extra\".",
								 "unknown parameter \"%s\"", params->keys[i]);
		}
		model->params = json_template_compile(params);
	}
	if (extra != NULL)
	{
		if (extra->type != YAML_MAP)
			definition_error(extra->line, ERRCODE_SYNTAX_ERROR,
							 "Write extra: {openai: {...}}",
							 "\"extra\" takes a map from api to fields");
		step_check_keys(extra, api_names(), "\"extra\"");
		for (int i = 0; i < extra->count; i++)
		{
			if (extra->items[i]->type != YAML_MAP)
				definition_error(extra->items[i]->line, ERRCODE_SYNTAX_ERROR,
								 "Write extra: {openai: {...}}",
								 "\"%s\" in \"extra\" takes a map",
								 extra->keys[i]);
		}
		model->extra = json_template_compile(extra);
	}
}

/*
 * The shape of `returns`, whose types are looked up, or were when the chain
 * was pinned.
 */
Shape *
step_returns(Definition *definition, const YamlNode *node)
{
	PinSource  *pins = definition->pins;
	Shape	   *shape;

	if (pins == NULL)
		shape = shape_from_returns(node);
	else
	{
		Jsonb	   *pin = json_element(pins->shapes, pins->next_shape++);

		if (pin == NULL)
			elog(ERROR, "pinned chain \"%s\" lacks a shape", definition->name);
		shape = shape_from_pin(json_field(pin, "schema"),
							   json_field(pin, "wire"));
	}
	definition->shapes = lappend(definition->shapes, shape);
	return shape;
}

static void
add_fallback(ModelStep *model, const YamlNode *node, int at)
{
	const char *name = step_text(node, "fallback");
	bool		twice = strcmp(name, model->name) == 0;

	for (int i = 0; i < at && !twice; i++)
		twice = strcmp(name, model->fallback[i]) == 0;
	if (twice)
		definition_error(node->line, ERRCODE_SYNTAX_ERROR,
						 "Leave it out: no model is tried twice.",
						 "\"fallback\" names \"%s\" again", name);
	model->fallback[at] = name;
	model->fallback_lines[at] = node->line;
}

/* `fallback`: the name of a model, or a list of such. */
static void
parse_fallback(ModelStep *model, const YamlNode *node)
{
	int			n = node->type == YAML_LIST ? node->count : 1;

	model->fallback = palloc0((n + 1) * sizeof(char *));
	model->fallback_lines = palloc0((n + 1) * sizeof(int));
	if (node->type != YAML_LIST)
	{
		add_fallback(model, node, 0);
		return;
	}
	for (int i = 0; i < n; i++)
		add_fallback(model, node->items[i], i);
}

/* Parses the own keys of a model step; line is the step's. */
ModelStep *
model_step_parse(Definition *definition, const YamlNode *node, int line)
{
	static const char *const excluded[] = {"system", "params", "extra",
		"returns", "schema", "reask", "fallback", NULL
	};
	ModelStep  *model = palloc0(sizeof(ModelStep));
	const YamlNode *part;

	part = yaml_get(node, "model");
	model->name = step_text(part, "model");
	model->line = part->line;
	parse_form(model, node, line);
	if ((part = yaml_get(node, "fallback")) != NULL &&
		model->form != CALL_REQUEST)
		parse_fallback(model, part);
	if (model->form == CALL_REQUEST)
	{
		for (int i = 0; excluded[i] != NULL; i++)
		{
			if ((part = yaml_get(node, excluded[i])) != NULL)
				definition_error(part->line, ERRCODE_SYNTAX_ERROR,
								 strcmp(excluded[i], "fallback") == 0 ?
								 "Models of the same api can be named in the model's own column fallback." :
								 "Put it into the request as the provider wants it.",
								 "\"request\" excludes \"%s\"", excluded[i]);
		}
	}
	if ((part = yaml_get(node, "system")) != NULL)
	{
		if (model->form == CALL_INPUT)
			definition_error(part->line, ERRCODE_SYNTAX_ERROR,
							 "Leave it out, or use prompt or messages.",
							 "\"system\" does not go with \"input\"");
		model->system = template_compile(step_text(part, "system"),
										 part->text_line);
	}
	parse_params(model, node);

	if ((part = yaml_get(node, "returns")) != NULL)
	{
		model->shape = step_returns(definition, part);
		if (yaml_get(node, "schema") != NULL)
			definition_error(part->line, ERRCODE_SYNTAX_ERROR,
							 "Use one of the two.",
							 "model step has both \"returns\" and \"schema\"");
	}
	else if ((part = yaml_get(node, "schema")) != NULL)
		model->shape = shape_from_schema(part);

	model->reask = 1;
	if ((part = yaml_get(node, "reask")) != NULL)
	{
		if (model->shape == NULL)
			definition_error(part->line, ERRCODE_SYNTAX_ERROR,
							 "Add \"returns\" or \"schema\".",
							 "\"reask\" goes with \"returns\" or \"schema\"");
		model->reask = (int) step_count(part, "reask", 0);
	}
	return model;
}

/* All expressions in the step's keys. */
List *
model_step_exprs(const ModelStep *model)
{
	List	   *exprs = NIL;

	if (model->prompt)
		exprs = list_concat(exprs, template_exprs(model->prompt));
	if (model->system)
		exprs = list_concat(exprs, template_exprs(model->system));
	for (int i = 0; i < model->nmessages; i++)
	{
		MessageStep *message = &model->messages[i];

		if (message->splice)
			exprs = list_concat(exprs, json_template_exprs(message->splice));
		for (int k = 0; k < message->ntexts; k++)
			exprs = list_concat(exprs, template_exprs(message->texts[k]));
	}
	if (model->body)
		exprs = list_concat(exprs, json_template_exprs(model->body));
	if (model->params)
		exprs = list_concat(exprs, json_template_exprs(model->params));
	if (model->extra)
		exprs = list_concat(exprs, json_template_exprs(model->extra));
	return exprs;
}
