/*
 * step_ask.c
 *	  Ask steps: their keys, what a run asks, and whether an answer fits.
 *
 * Whether the role in `to` exists is looked at when a job asks: roles are no
 * part of a dump, and may come later than the chain.
 */
#include "postgres.h"

#include "base/error.h"
#include "base/json.h"
#include "base/settings.h"
#include "chain/definition.h"

#define MAX_QUESTION (64 * 1024)	/* bytes: somebody is to read it */

/* Parses the own keys of an ask step. */
AskStep *
ask_step_parse(Definition *definition, const YamlNode *node)
{
	AskStep    *ask = palloc0(sizeof(AskStep));
	const YamlNode *part = yaml_get(node, "ask");
	const char *text = step_text(part, "ask");

	if (text[strspn(text, " \t\r\n")] == '\0')
		definition_error(part->line, ERRCODE_SYNTAX_ERROR,
						 "Write what somebody is to answer.",
						 "\"ask\" is empty");
	ask->question = template_compile(text, part->text_line);
	if ((part = yaml_get(node, "show")) != NULL)
		ask->show = json_template_compile(part);
	if ((part = yaml_get(node, "to")) != NULL)
	{
		text = step_text(part, "to");
		if (text[0] == '\0')
			definition_error(part->line, ERRCODE_SYNTAX_ERROR,
							 "Name a role, or leave the key out: then only who has the privileges of the job's owner may answer.",
							 "\"to\" is empty");
		ask->to = template_compile(text, part->text_line);
	}
	if ((part = yaml_get(node, "returns")) != NULL)
		ask->shape = step_returns(definition, part);
	return ask;
}

/* All expressions in the step's keys. */
List *
ask_step_exprs(const AskStep *ask)
{
	List	   *exprs = template_exprs(ask->question);

	if (ask->show)
		exprs = list_concat(exprs, json_template_exprs(ask->show));
	if (ask->to)
		exprs = list_concat(exprs, template_exprs(ask->to));
	return exprs;
}

static void
check_question(const AskSpec *spec)
{
	size_t		bytes = strlen(spec->question);

	if (spec->question[strspn(spec->question, " \t\r\n")] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("the question is empty")));
	if (bytes > MAX_QUESTION)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_LIMIT),
				 errmsg("the question is too long"),
				 errdetail("It has %zu bytes, at most %d are allowed.", bytes,
						   MAX_QUESTION),
				 errhint("Put what somebody needs to know for the answer into \"show\".")));
}

static void
check_show(const Jsonb *show)
{
	if (VARSIZE(show) <= setting_max_input_kb * UINT64CONST(1024))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_LIMIT),
			 errmsg("what \"show\" gives is too large"),
			 errdetail("It has %zu kB, at most %d kB are allowed.",
					   ((size_t) VARSIZE(show) + 1023) / 1024,
					   setting_max_input_kb),
			 errhint("Show a part of it, or raise chaincall.max_input.")));
}

/*
 * Renders what a run asks, palloc'd.  Raises what templates do, and where the
 * question is empty, too long, or shows too much.
 */
void
ask_step_render(const AskStep *ask, AskSpec *spec, ExprLookup lookup,
				void *arg)
{
	spec->question = template_text(ask->question, lookup, arg);
	check_question(spec);
	spec->show = NULL;
	spec->to = NULL;
	if (ask->show)
	{
		spec->show = json_template_value(ask->show, lookup, arg);
		check_show(spec->show);
	}
	if (ask->to)
		spec->to = template_text(ask->to, lookup, arg);
}

/*
 * The value that an answer gives the step (shape NULL: a text): null for each
 * field that was left out.  NULL when it does not fit; *why is then a message,
 * palloc'd as the result.  Slow where `returns` has a pattern.
 */
Jsonb *
ask_check(const Shape *shape, Jsonb *answer, char **why)
{
	*why = NULL;
	if (shape != NULL)
		return shape_check_value(shape, answer, why);
	if (json_string_dup(answer) != NULL)
		return answer;
	*why = psprintf("expected a text, not %s", json_type_name(answer));
	return NULL;
}

/* The JSON Schema that an answer must fit; NULL: it must be a text. */
Jsonb *
ask_schema(const Shape *shape)
{
	return shape ? shape->schema : NULL;
}
