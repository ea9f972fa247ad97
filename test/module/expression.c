/*
 * expression.c
 *	  SQL functions over src/chain/expression.c and the templates.
 */
#include "postgres.h"

#include "base/json.h"
#include "chain/exprparse.h"
#include "chain/exprwalk.h"
#include "chain/expression.h"
#include "chain/hole.h"
#include "chain/template.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lookup.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#define TEST_LINE 7				/* the line that sources begin on */

PG_FUNCTION_INFO_V1(chaincall_test_expr);
PG_FUNCTION_INFO_V1(chaincall_test_expr_or_missing);
PG_FUNCTION_INFO_V1(chaincall_test_condition);
PG_FUNCTION_INFO_V1(chaincall_test_expr_info);
PG_FUNCTION_INFO_V1(chaincall_test_name);
PG_FUNCTION_INFO_V1(chaincall_test_template);
PG_FUNCTION_INFO_V1(chaincall_test_template_json);
PG_FUNCTION_INFO_V1(chaincall_test_template_names);
PG_FUNCTION_INFO_V1(chaincall_test_json_template);
PG_FUNCTION_INFO_V1(chaincall_test_sql_template);
PG_FUNCTION_INFO_V1(chaincall_test_sql_param);
PG_FUNCTION_INFO_V1(chaincall_test_scalar_form);
PG_FUNCTION_INFO_V1(chaincall_test_bench_expression);

Datum
chaincall_test_expr(PG_FUNCTION_ARGS)
{
	Expression *expr = expr_compile(text_to_cstring(PG_GETARG_TEXT_PP(0)),
									TEST_LINE);

	PG_RETURN_JSONB_P(expr_value(expr, lookup_in_object, PG_GETARG_JSONB_P(1)));
}

Datum
chaincall_test_expr_or_missing(PG_FUNCTION_ARGS)
{
	Expression *expr = expr_compile(text_to_cstring(PG_GETARG_TEXT_PP(0)),
									TEST_LINE);
	Jsonb	   *value = expr_value_or_missing(expr, lookup_in_object,
											  PG_GETARG_JSONB_P(1));

	if (value == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(value);
}

Datum
chaincall_test_condition(PG_FUNCTION_ARGS)
{
	Expression *expr = expr_compile(text_to_cstring(PG_GETARG_TEXT_PP(0)),
									TEST_LINE);

	PG_RETURN_BOOL(expr_condition(expr, lookup_in_object,
								  PG_GETARG_JSONB_P(1)));
}

/* Names and flags of an expression, `a b: many slow simple`. */
Datum
chaincall_test_expr_info(PG_FUNCTION_ARGS)
{
	Expression *expr = expr_compile(text_to_cstring(PG_GETARG_TEXT_PP(0)),
									TEST_LINE);
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < expr->nnames; i++)
		appendStringInfo(&buf, "%s%s", i == 0 ? "" : " ", expr->names[i]);
	appendStringInfo(&buf, ":%s%s%s%s", expr->many ? " many" : "",
					 expr->predicate ? " predicate" : "",
					 expr->slow ? " slow" : "",
					 expr->simple ? " simple" : "");
	PG_RETURN_TEXT_P(cstring_to_text(buf.data));
}

Datum
chaincall_test_name(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));

	PG_RETURN_TEXT_P(cstring_to_text(!expr_name_valid(name)	  ? "invalid" :
									 expr_name_reserved(name) ? "reserved" :
									 "free"));
}

Datum
chaincall_test_template(PG_FUNCTION_ARGS)
{
	Template   *template = template_compile(text_to_cstring(PG_GETARG_TEXT_PP(0)),
											TEST_LINE);

	PG_RETURN_TEXT_P(cstring_to_text(template_text(template, lookup_in_object,
												   PG_GETARG_JSONB_P(1))));
}

Datum
chaincall_test_template_json(PG_FUNCTION_ARGS)
{
	Template   *template = template_compile(text_to_cstring(PG_GETARG_TEXT_PP(0)),
											TEST_LINE);

	PG_RETURN_JSONB_P(template_json(template, lookup_in_object,
									PG_GETARG_JSONB_P(1)));
}

static void
append_names(StringInfo buf, List *exprs)
{
	ListCell   *cell;

	foreach(cell, exprs)
	{
		Expression *expr = lfirst(cell);

		for (int i = 0; i < expr->nnames; i++)
			appendStringInfo(buf, "%s%s", buf->len == 0 ? "" : " ",
							 expr->names[i]);
	}
}

/* The names in all expressions of a template, and whether it is constant. */
Datum
chaincall_test_template_names(PG_FUNCTION_ARGS)
{
	Template   *template = template_compile(text_to_cstring(PG_GETARG_TEXT_PP(0)),
											TEST_LINE);
	StringInfoData buf;

	initStringInfo(&buf);
	append_names(&buf, template_exprs(template));
	if (template_is_constant(template))
		appendStringInfoString(&buf, "constant");
	PG_RETURN_TEXT_P(cstring_to_text(buf.data));
}

/* Null below the first argument: the names; else the value. */
Datum
chaincall_test_json_template(PG_FUNCTION_ARGS)
{
	YamlNode   *node = yaml_parse(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	JsonTemplate *template = json_template_compile(node);
	StringInfoData buf;

	if (!PG_ARGISNULL(1))
		PG_RETURN_JSONB_P(json_template_value(template, lookup_in_object,
											  PG_GETARG_JSONB_P(1)));
	initStringInfo(&buf);
	append_names(&buf, json_template_exprs(template));
	PG_RETURN_JSONB_P(json_text(buf.data));
}

/* The statement, and below it each parameter: its names and its position. */
Datum
chaincall_test_sql_template(PG_FUNCTION_ARGS)
{
	SqlTemplate *template = sql_template_compile(text_to_cstring(PG_GETARG_TEXT_PP(0)),
												 TEST_LINE);
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, template->sql);
	for (int i = 0; i < template->nparams; i++)
	{
		const TemplateHole *hole = template->params[i];

		if (template->sql[template->positions[i]] != '$' ||
			atoi(template->sql + template->positions[i] + 1) != i + 1)
			elog(ERROR, "position of parameter %d is wrong", i + 1);
		appendStringInfo(&buf, "\n  $%d = %s", i + 1, hole->expr->source);
	}
	if (list_length(sql_template_exprs(template)) < template->nparams)
		elog(ERROR, "expressions are missing");
	PG_RETURN_TEXT_P(cstring_to_text(buf.data));
}

Datum
chaincall_test_sql_param(PG_FUNCTION_ARGS)
{
	SqlTemplate *template = sql_template_compile(text_to_cstring(PG_GETARG_TEXT_PP(0)),
												 TEST_LINE);

	PG_RETURN_JSONB_P(sql_template_param(template, 0, lookup_in_object,
										 PG_GETARG_JSONB_P(1)));
}

/* Is what jsonb_from_item() makes the same, byte for byte, as PostgreSQL's? */
Datum
chaincall_test_scalar_form(PG_FUNCTION_ARGS)
{
	Jsonb	   *value = PG_GETARG_JSONB_P(0);
	JsonbValue	item;
	Jsonb	   *ours;
	Jsonb	   *theirs;

	jsonb_item(value, &item);
	ours = jsonb_from_item(&item);
	theirs = JsonbValueToJsonb(&item);
	PG_RETURN_BOOL(VARSIZE(ours) == VARSIZE(theirs) &&
				   memcmp(ours, theirs, VARSIZE(ours)) == 0);
}

/* Values without a search for their name, as the plan has them. */
static Jsonb *
lookup_by_number(void *arg, const Expression *expr, int i)
{
	return ((Jsonb **) arg)[i];
}

static Jsonb *
lookup_by_letter(void *arg, const Expression *expr, int i)
{
	return ((Jsonb **) arg)[expr->names[i][0] - 'a'];
}

typedef void (*BenchBody) (void *subject, void *arg);

static void
bench_value(void *subject, void *arg)
{
	(void) expr_value(subject, lookup_by_number, arg);
}

static void
bench_condition(void *subject, void *arg)
{
	(void) expr_condition(subject, lookup_by_number, arg);
}

static void
bench_text(void *subject, void *arg)
{
	(void) template_text(subject, lookup_by_letter, arg);
}

static double
microseconds(BenchBody body, void *subject, void *arg, int n)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext,
												  "bench", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	instr_time	start;
	instr_time	end;

	INSTR_TIME_SET_CURRENT(start);
	for (int i = 0; i < n; i++)
	{
		body(subject, arg);
		if (i % 1000 == 999)
			MemoryContextReset(scratch);
	}
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	return INSTR_TIME_GET_DOUBLE(end) * 1000000.0 / n;
}

/* Microseconds an evaluation, for a person to read. */
Datum
chaincall_test_bench_expression(PG_FUNCTION_ARGS)
{
	int			n = PG_GETARG_INT32(0);
	Jsonb	   *x = json_parse("{\"topic\": \"billing\", \"score\": 8, \"n\": {\"text\": \"some text\"}}");
	Jsonb	   *letters[] = {json_text("How do I pay?"), x};
	Jsonb	   *values[] = {x};
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "x.topic %.3f, ",
					 microseconds(bench_value, expr_compile("x.topic", 1), values, n));
	appendStringInfo(&buf, "x.n.text %.3f, ",
					 microseconds(bench_value, expr_compile("x.n.text", 1), values, n));
	appendStringInfo(&buf, "x.score >= 8 %.3f, ",
					 microseconds(bench_condition, expr_compile("x.score >= 8", 1), values, n));
	appendStringInfo(&buf, "two holes %.3f",
					 microseconds(bench_text, template_compile("What is this about? {{a}}\nTopic: {{b.topic}}\n", 1), letters, n));
	PG_RETURN_TEXT_P(cstring_to_text(buf.data));
}
