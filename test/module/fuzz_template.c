/*
 * fuzz_template.c
 *	  Expressions, templates and SQL templates under mutation.
 *
 * Takes good sources apart and puts them together wrongly, compiles what
 * comes out and evaluates it on a fixed set of values.  Three things must
 * hold: no crash (run it under AddressSanitizer); every error is one of the
 * language's own, never an internal one; and a path that is walked directly
 * gives what strict jsonpath gives, or fails where that fails.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/error.h"
#include "base/json.h"
#include "chain/exprparse.h"
#include "chain/expression.h"
#include "chain/template.h"
#include "common/pg_prng.h"
#include "fmgr.h"
#include "fuzz.h"
#include "lib/stringinfo.h"
#include "lookup.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

PG_FUNCTION_INFO_V1(chaincall_test_fuzz_template);

static const char *const sources[] = {
	"a.b.c", "a[0].b[last - 1].c", "list[*].x", "list[index + 1].x", "a.\"k e y\"[*]", "nested[*][*]", "nested[0][index]",
	"list[*] ? (@.x > 1 && @.y starts with \"t\").x", "a.b >= 8 || n == null && !(t == \"text\")", "exists(list[*] ? (@.x == i))",
	"(a.x == 1) is unknown", "t like_regex \"^t.*[a-z]{2}\" flag \"i\"", "-list[*].x + i * 2 / 3 % 4", "list.size() - nested[0].type()",
	"a.** ? (@.type() == \"number\")", "a.**{1 to last}", "list[0 to last].x", "list[0, 1].x", "a.keyvalue().key", "\"2024-05-01\".datetime() < t.datetime()",
	"Dear {{t}}, {{a.b | default(\"none\")}} and {{list[*].x | join(\", \") | truncate(5)}}", "{{\"{{\"}}{{list | first(1) | json}}",
	"{{n | default(a.x) | default(list[*] ? (@.x > 0).y)}}", "{{ a.b }}\n{{\n i > 2 || n != null }}",
	"SELECT {{t}}::text, '{', \"q\", $$d$$ /* {{c}} */ -- {{c}}\n WHERE a$1 = {{i}}", "SELECT E'\\'' || {{t}} || U&'x' || $tag$ ' $tag$, x.{{i}}"
};

static const char *const pieces[] = {
	"a", "b", "x", "list", "nested", "n", "t", "i", "index", "last", "to", "is", "null", "true", "exists", "starts with", "like_regex", "flag", "unknown", "strict",
	".", "..", ".*", ".**", "[", "]", "[*]", "[0]", "[last]", "[-1]", "[99999999999]", "(", ")", "{", "}", "{{", "}}", "|", "||", "&&", "!", "?", "@", "$", "$1", "$$", "$x$", "==", "=", "!=", "<>", "<", ">=",
	"+", "-", "*", "/", "%", ",", ":", "::", ";", "\"", "\\", "\\\"", "\"a\"", "'", "E'", "U&\"", "--", "/*", "*/", "\n", " ", "0", "1", "1.5e3", ".5", "1e400000", "0x1", "1_0", "\"\\u00e9\"", "\"\\ud83d\"", "\"\\u0000\"", "é", "€", "😀",
	"| default(", "| join(\",\")", "| json", "| truncate(2)", "| first(1)", ".size()", ".type()", ".double()", ".abs()", ".keyvalue()", ".datetime()", ".floor()"
};

static const char *const values =
"{\"a\": {\"b\": {\"c\": 1}, \"x\": 1, \"k e y\": [1, \"two\"]}, \"b\": 9, \"c\": \"{{t}}\", \"x\": [], \"y\": {},"
" \"list\": [{\"x\": 1, \"y\": \"text\"}, {\"x\": 2.5, \"y\": null}], \"nested\": [[1, 2], [3], []], \"n\": null, \"t\": \"tëxt\", \"i\": 3, \"index\": 0, \"e\": 1}";

typedef struct Fuzz
{
	pg_prng_state random;
	Jsonb	   *values;
	int			compiled;
	int			evaluated;
	int			refused;
	int			compared;
	uint32		digest;			/* of all results */
} Fuzz;

static int
pick(Fuzz *fuzz, int n)
{
	return fuzz_below(&fuzz->random, n);
}

static const char *
pick_source(Fuzz *fuzz)
{
	return sources[pick(fuzz, lengthof(sources))];
}

static void
mutate(Fuzz *fuzz, StringInfo buf)
{
	int			from = pick(fuzz, buf->len + 1);
	int			to = from + pick(fuzz, Min(buf->len - from, 8) + 1);
	const char *text = pieces[pick(fuzz, lengthof(pieces))];

	switch (pick(fuzz, 5))
	{
		case 0:
			fuzz_replace(buf, from, to - from, "", 0);
			break;
		case 1:
			fuzz_replace(buf, from, 0, text, strlen(text));
			break;
		case 2:
			fuzz_replace(buf, from, to - from, text, strlen(text));
			break;
		case 3:
			fuzz_replace(buf, pick(fuzz, buf->len + 1), 0, buf->data + from,
						 to - from);
			break;
		default:
			text = pick_source(fuzz);
			text += pick(fuzz, strlen(text));
			fuzz_replace(buf, from, buf->len - from, text, strlen(text));
			break;
	}
}

/* A mutated source that is valid in the database's encoding. */
static char *
make_source(Fuzz *fuzz)
{
	StringInfoData buf;

	do
	{
		initStringInfo(&buf);
		appendStringInfoString(&buf, pick_source(fuzz));
		for (int n = pick(fuzz, 4); n > 0 && buf.len < 1000; n--)
			mutate(fuzz, &buf);
	} while (!pg_verifymbstr(buf.data, buf.len, true));
	return buf.data;
}

static void
note(Fuzz *fuzz, const char *text)
{
	for (; *text != '\0'; text++)
		fuzz->digest = fuzz->digest * 31 + (unsigned char) *text;
}

static void
note_json(Fuzz *fuzz, const Jsonb *value)
{
	StringInfoData buf;

	initStringInfo(&buf);
	json_append(&buf, value);
	note(fuzz, buf.data);
	fuzz->evaluated++;
}

typedef struct Attempt
{
	Fuzz	   *fuzz;
	char	   *source;
	void		(*body) (struct Attempt *attempt);
	Expression *expr;
	Jsonb	   *walked;
	Jsonb	   *by_jsonpath;
} Attempt;

static bool
is_expected(int sqlstate)
{
	return sqlstate == ERRCODE_SYNTAX_ERROR || sqlstate == ERRCODE_CHAIN_INPUT ||
		sqlstate == ERRCODE_UNDEFINED_PARAMETER;
}

/* Runs attempt->body; false when it raised an error of the kinds allowed. */
static bool
try(Attempt *attempt, bool any_data_error)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		attempt->body(attempt);
		ReleaseCurrentSubTransaction();
		done = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (!is_expected(error->sqlerrcode) &&
			!(any_data_error &&
			  ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_DATA_EXCEPTION))
			ereport(ERROR,
					(errmsg("unexpected error %s \"%s\" of source: %s",
							unpack_sql_state(error->sqlerrcode),
							error->message, attempt->source)));
		note(attempt->fuzz, error->message);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return done;
}

static void
body_expression(Attempt *attempt)
{
	Expression *expr = expr_compile(attempt->source, 1);
	Jsonb	   *value;

	attempt->fuzz->compiled++;
	if (expr->simple)
		attempt->expr = expr;
	value = expr_value_or_missing(expr, lookup_in_object, attempt->fuzz->values);
	if (value)
		note_json(attempt->fuzz, value);
	value = expr_value(expr, lookup_in_object, attempt->fuzz->values);
	if (expr->simple)
		attempt->walked = value;
	note_json(attempt->fuzz, value);
}

static void
body_condition(Attempt *attempt)
{
	Expression *expr = expr_compile(attempt->source, 1);

	note(attempt->fuzz, expr_condition(expr, lookup_in_object,
									   attempt->fuzz->values) ? "true" : "false");
}

static void
body_text(Attempt *attempt)
{
	Template   *template = template_compile(attempt->source, 1);

	attempt->fuzz->compiled++;
	note_json(attempt->fuzz, template_json(template, lookup_in_object,
										   attempt->fuzz->values));
	note(attempt->fuzz, template_text(template, lookup_in_object,
									  attempt->fuzz->values));
	(void) template_exprs(template);
}

static void
body_sql(Attempt *attempt)
{
	SqlTemplate *template = sql_template_compile(attempt->source, 1);

	attempt->fuzz->compiled++;
	note(attempt->fuzz, template->sql);
	for (int i = 0; i < template->nparams; i++)
	{
		if (template->sql[template->positions[i]] != '$')
			elog(ERROR, "wrong position");
		note_json(attempt->fuzz, sql_template_param(template, i, lookup_in_object,
													attempt->fuzz->values));
	}
}

/* The same path by jsonpath itself, from a root and variables. */
static void
body_jsonpath(Attempt *attempt)
{
	ExprParse  *parse = expr_parse(attempt->expr->source, 1);
	Datum		path = DirectFunctionCall1(jsonpath_in,
										   CStringGetDatum(parse->jsonpath));

	attempt->by_jsonpath =
		DatumGetJsonbP(DirectFunctionCall4(jsonb_path_query_array,
										   JsonbPGetDatum(json_field(attempt->fuzz->values,
																	 parse->names[parse->root])),
										   path,
										   JsonbPGetDatum(attempt->fuzz->values),
										   BoolGetDatum(false)));
}

static bool
same(const Jsonb *a, const Jsonb *b)
{
	return compareJsonbContainers(&unconstify(Jsonb *, a)->root,
								  &unconstify(Jsonb *, b)->root) == 0;
}

static void
compare_with_jsonpath(Attempt *attempt)
{
	Jsonb	   *expected = NULL;

	for (int i = 0; i < attempt->expr->nnames; i++)
	{
		if (json_field(attempt->fuzz->values, attempt->expr->names[i]) == NULL)
			return;
	}
	attempt->body = body_jsonpath;
	if (try(attempt, true))
		expected = attempt->expr->many ? attempt->by_jsonpath :
			json_element(attempt->by_jsonpath, 0);
	attempt->fuzz->compared++;
	if ((expected == NULL) != (attempt->walked == NULL) ||
		(expected && !same(expected, attempt->walked)))
		ereport(ERROR,
				(errmsg("walked: %s, by jsonpath: %s, source: %s",
						attempt->walked ? json_excerpt(attempt->walked, 200) : "error",
						expected ? json_excerpt(expected, 200) : "error",
						attempt->source)));
}

static void
fuzz_once(Fuzz *fuzz)
{
	Attempt		attempt = {fuzz, make_source(fuzz)};

	attempt.body = body_expression;
	if (!try(&attempt, false))
		fuzz->refused++;
	if (attempt.expr)
		compare_with_jsonpath(&attempt);
	attempt.body = body_condition;
	(void) try(&attempt, false);
	attempt.body = body_text;
	(void) try(&attempt, false);
	attempt.body = body_sql;
	(void) try(&attempt, false);
}

Datum
chaincall_test_fuzz_template(PG_FUNCTION_ARGS)
{
	Fuzz		fuzz = {0};
	int			n = PG_GETARG_INT32(1);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "fuzz",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;

	pg_prng_seed(&fuzz.random, PG_GETARG_INT32(0));
	fuzz.values = json_parse(values);
	old = MemoryContextSwitchTo(scratch);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		fuzz_once(&fuzz);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(old);
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%d compiled, %d evaluated, %d refused, %d compared, digest %u",
											  fuzz.compiled, fuzz.evaluated,
											  fuzz.refused, fuzz.compared,
											  fuzz.digest)));
}
