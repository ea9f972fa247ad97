/*
 * template.c
 *	  Templates in text and in JSON (LANGUAGE.md, rules T1 to T3).
 *
 * A template is cut once, when its chain is compiled, into literal text and
 * holes; to expand it is to append one after the other.  What a hole gives
 * is appended and never looked at again, so whatever came in, `{{` included,
 * stays what it is.
 *
 * In JSON every part without a hole is built once and only copied later.
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/json.h"
#include "chain/exprparse.h"
#include "chain/exprwalk.h"
#include "chain/hole.h"
#include "chain/template.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"

typedef struct TemplatePart
{
	char	   *text;			/* literal, or NULL */
	int			len;
	TemplateHole *hole;
} TemplatePart;

struct Template
{
	int			nparts;
	TemplatePart *parts;
	int			literal_len;	/* of all literal text */
	int			nholes;
};

struct JsonTemplate
{
	Jsonb	   *constant;		/* no hole in it: the value */
	bool		is_constant;
	Template   *scalar;			/* a scalar with holes */
	YamlType	type;			/* YAML_LIST or YAML_MAP otherwise */
	int			count;
	JsonTemplate **items;
	const char **keys;
};

static void
add_part(Template *template, TemplatePart part)
{
	template->parts = template->nparts == 0 ? palloc(sizeof(TemplatePart)) :
		repalloc(template->parts,
				 (template->nparts + 1) * sizeof(TemplatePart));
	template->parts[template->nparts++] = part;
	template->literal_len += part.len;
	if (part.hole)
		template->nholes++;
}

static void
flush_literal(Template *template, StringInfo literal)
{
	TemplatePart part = {NULL, literal->len, NULL};

	if (literal->len == 0)
		return;
	part.text = pnstrdup(literal->data, literal->len);
	add_part(template, part);
	resetStringInfo(literal);
}

/*
 * Compiles a scalar whose text begins on `line` of the body.
 *
 * All of the result is palloc'd in the current context.  Raises
 * ERRCODE_SYNTAX_ERROR, "line N: ...".
 */
Template *
template_compile(const char *text, int line)
{
	Template   *template = palloc0(sizeof(Template));
	StringInfoData literal;
	const char *rest = text;
	const char *open;

	initStringInfo(&literal);
	while ((open = hole_next(rest)) != NULL)
	{
		const char *end = hole_end(text, open + 2, line);
		TemplatePart part = {0};

		appendBinaryStringInfo(&literal, rest, open - rest);
		part.hole = hole_compile(open + 2, end - open - 2,
								 expr_line_at(text, line, open - text));
		if (part.hole->literal)
			appendStringInfoString(&literal, part.hole->literal);
		else
		{
			flush_literal(template, &literal);
			add_part(template, part);
		}
		rest = end + 2;
	}
	appendStringInfoString(&literal, rest);
	flush_literal(template, &literal);
	pfree(literal.data);
	return template;
}

/* Is the text the same whatever the names stand for? */
bool
template_is_constant(const Template *template)
{
	return template->nholes == 0;
}

static void
expand(const Template *template, ExprLookup lookup, void *arg, StringInfo buf)
{
	initStringInfo(buf);
	enlargeStringInfo(buf, template->literal_len);
	for (int i = 0; i < template->nparts; i++)
	{
		const TemplatePart *part = &template->parts[i];

		if (part->hole)
			hole_append_text(part->hole, lookup, arg, buf);
		else
			appendBinaryStringInfo(buf, part->text, part->len);
	}
}

/*
 * The expanded text, palloc'd.  Raises ERRCODE_CHAIN_INPUT for what is
 * missing or null.
 */
char *
template_text(const Template *template, ExprLookup lookup, void *arg)
{
	StringInfoData buf;

	expand(template, lookup, arg, &buf);
	return buf.data;
}

static bool
is_one_hole(const Template *template)
{
	return template->nparts == 1 && template->parts[0].hole != NULL;
}

/*
 * The value under a key that takes JSON (rule T2): that of the hole when the
 * template is nothing but one hole, else the text as a JSON string.  Null is
 * allowed in the first case.  Palloc'd, or what lookup returned.
 */
Jsonb *
template_json(const Template *template, ExprLookup lookup, void *arg)
{
	StringInfoData buf;

	if (is_one_hole(template))
		return hole_value(template->parts[0].hole, lookup, arg);
	expand(template, lookup, arg, &buf);
	return json_text_len(buf.data, buf.len);
}

/* All expressions in the template: a fresh List of Expression *. */
List *
template_exprs(const Template *template)
{
	List	   *exprs = NIL;

	for (int i = 0; i < template->nparts; i++)
	{
		if (template->parts[i].hole)
			exprs = hole_exprs(exprs, template->parts[i].hole);
	}
	return exprs;
}

static void
check_key(const YamlNode *node, int i)
{
	if (strstr(node->keys[i], "{{") != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line %d: a key cannot hold a template: \"%s\"",
						node->key_lines[i],
						expr_source_excerpt(node->keys[i])),
				 errhint("Templates stand in values; an object with computed keys is made in a sql step, by jsonb_build_object().")));
}

static JsonTemplate *
compile_node(const YamlNode *node)
{
	JsonTemplate *template = palloc0(sizeof(JsonTemplate));

	check_stack_depth();
	template->type = node->type;
	template->is_constant = true;
	if (node->type == YAML_STRING && hole_next(node->text) != NULL)
	{
		template->scalar = template_compile(node->text, node->text_line);
		template->is_constant = template_is_constant(template->scalar);
		return template;
	}
	if (node->type != YAML_LIST && node->type != YAML_MAP)
	{
		template->constant = yaml_json(node);
		return template;
	}
	template->count = node->count;
	template->keys = node->keys;
	template->items = palloc(node->count * sizeof(JsonTemplate *) + 1);
	for (int i = 0; i < node->count; i++)
	{
		if (node->type == YAML_MAP)
			check_key(node, i);
		template->items[i] = compile_node(node->items[i]);
		template->is_constant &= template->items[i]->is_constant;
	}
	return template;
}

static void push_template(JsonbParseState **state, JsonbIteratorToken token,
						  const JsonTemplate *template, ExprLookup lookup,
						  void *arg);

static JsonbValue *
push_container(JsonbParseState **state, const JsonTemplate *template,
			   ExprLookup lookup, void *arg)
{
	bool		map = template->type == YAML_MAP;

	(void) pushJsonbValue(state, map ? WJB_BEGIN_OBJECT : WJB_BEGIN_ARRAY,
						  NULL);
	for (int i = 0; i < template->count; i++)
	{
		if (map)
			json_push_key(state, template->keys[i]);
		push_template(state, map ? WJB_VALUE : WJB_ELEM, template->items[i],
					  lookup, arg);
	}
	return pushJsonbValue(state, map ? WJB_END_OBJECT : WJB_END_ARRAY, NULL);
}

static void
push_template(JsonbParseState **state, JsonbIteratorToken token,
			  const JsonTemplate *template, ExprLookup lookup, void *arg)
{
	if (template->constant)
		json_push(state, token, template->constant);
	else if (template->scalar && is_one_hole(template->scalar))
	{
		JsonbValue	item;

		hole_item(template->scalar->parts[0].hole, lookup, arg, &item);
		(void) pushJsonbValue(state, token, &item);
	}
	else if (template->scalar)
		json_push(state, token, template_json(template->scalar, lookup, arg));
	else
		(void) push_container(state, template, lookup, arg);
}

static Jsonb *
build(const JsonTemplate *template, ExprLookup lookup, void *arg)
{
	JsonbParseState *state = NULL;

	if (template->constant)
		return template->constant;
	if (template->scalar)
		return template_json(template->scalar, lookup, arg);
	return JsonbValueToJsonb(push_container(&state, template, lookup, arg));
}

/* Builds every largest part without a hole. */
static void
fold(JsonTemplate *template)
{
	if (template->is_constant)
		template->constant = build(template, NULL, NULL);
	else
	{
		for (int i = 0; i < template->count; i++)
			fold(template->items[i]);
	}
}

/*
 * Compiles a part of the body that is JSON with templates in its strings.
 *
 * The result is palloc'd in the current context and refers to node's keys.
 * Raises ERRCODE_SYNTAX_ERROR, "line N: ...".
 */
JsonTemplate *
json_template_compile(const YamlNode *node)
{
	JsonTemplate *template = compile_node(node);

	fold(template);
	return template;
}

/*
 * The value, palloc'd in the current context, or part of the template (when
 * it is constant), or what lookup returned: do not change it.
 */
Jsonb *
json_template_value(const JsonTemplate *template, ExprLookup lookup,
					void *arg)
{
	return build(template, lookup, arg);
}

/* All expressions in the template: a fresh List of Expression *. */
List *
json_template_exprs(const JsonTemplate *template)
{
	List	   *exprs = NIL;

	if (template->scalar)
		exprs = template_exprs(template->scalar);
	for (int i = 0; i < template->count; i++)
		exprs = list_concat(exprs, json_template_exprs(template->items[i]));
	return exprs;
}
