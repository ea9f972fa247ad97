/*
 * hole.c
 *	  One `{{ expression | filter | filter }}`: its syntax and its value.
 *
 * Filters run from left to right.  What is missing or null passes through
 * them untouched until a default() takes its place, so that default() may
 * stand behind first() or join(); only json makes something of null.
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/error.h"
#include "base/json.h"
#include "base/value.h"
#include "chain/exprparse.h"
#include "chain/exprwalk.h"
#include "chain/hole.h"
#include "chain/yaml.h"
#include "mb/pg_wchar.h"

#define FILTER_LIST \
	"The filters are default(x), join(\"separator\"), json, truncate(n), first(n)."

/* In the order of FilterKind. */
static const char *const filter_names[] = {
	"default", "join", "json", "truncate", "first", NULL
};

/* The next `{{` in text, or NULL. */
const char *
hole_next(const char *text)
{
	return strstr(text, "{{");
}

/*
 * The `}}` that closes the hole whose inside begins at `open`: outside of
 * strings and of braces opened inside.  text, which holds it, begins on
 * `line`.  Raises a syntax error when there is none.
 */
const char *
hole_end(const char *text, const char *open, int line)
{
	const char *s = open;
	bool		in_string = false;
	int			braces = 0;

	for (; *s != '\0'; s++)
	{
		if (in_string)
		{
			if (*s == '\\' && s[1] != '\0')
				s++;
			else if (*s == '"')
				in_string = false;
		}
		else if (*s == '"')
			in_string = true;
		else if (*s == '{')
			braces++;
		else if (*s == '}' && braces > 0)
			braces--;
		else if (*s == '}' && s[1] == '}')
			return s;
	}
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("line %d: \"{{\" is not closed by \"}}\"",
					expr_line_at(text, line, open - text)),
			 errdetail("It begins \"{{%s\".", expr_source_excerpt(open)),
			 in_string ? errhint("A double quote inside it is not closed.") :
			 errhint("A literal {{ is written {{\"{{\"}}.")));
}

/* What the cutting of one hole into expression and filters works on. */
typedef struct HoleReader
{
	const char *source;
	int			line;
	ExprToken  *tokens;
	int			ntokens;
} HoleReader;

static void pg_attribute_noreturn()
filter_error(HoleReader *reader, const ExprToken *token, const char *problem,
			 const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("line %d: %s in \"{{%s}}\"",
					expr_line_at(reader->source, reader->line, token->start),
					problem, expr_source_excerpt(reader->source)),
			 errhint("%s", hint ? hint : FILTER_LIST)));
}

/* The first token from i on that is a | outside of brackets, or the end. */
static int
segment_end(HoleReader *reader, int i)
{
	int			depth = 0;

	for (; i < reader->ntokens; i++)
	{
		int			type = reader->tokens[i].type;

		if (type == '(' || type == '[' || type == '{')
			depth++;
		else if (type == ')' || type == ']' || type == '}')
			depth--;
		else if (type == '|' && depth == 0)
			break;
	}
	return i;
}

static Expression *
compile_segment(HoleReader *reader, int from, int to)
{
	int			start = reader->tokens[from].start;
	int			end = to > from ? reader->tokens[to - 1].end : start;

	return expr_compile(pnstrdup(reader->source + start, end - start),
						expr_line_at(reader->source, reader->line, start));
}

static FilterKind
filter_kind(HoleReader *reader, const ExprToken *token)
{
	const char *nearest;

	if (token->type != TOKEN_WORD)
		filter_error(reader, token, "name of a filter expected after |",
					 "A filter follows |; or is written ||.");
	for (int i = 0; filter_names[i] != NULL; i++)
	{
		if (strcmp(token->text, filter_names[i]) == 0)
			return (FilterKind) i;
	}
	nearest = yaml_nearest(token->text, filter_names);
	filter_error(reader, token,
				 psprintf("unknown filter \"%s\"", token->text),
				 nearest ? psprintf("Did you mean %s? %s", nearest, FILTER_LIST) :
				 psprintf("%s Or is written ||.", FILTER_LIST));
}

static int
count_argument(HoleReader *reader, const ExprToken *token)
{
	if (token->type != TOKEN_NUMBER || strlen(token->text) > 9 ||
		strspn(token->text, "0123456789") != strlen(token->text))
		return -1;
	return atoi(token->text);
}

/* Reads `name`, `name()` or `name(argument)`, tokens from to to. */
static void
compile_filter(HoleReader *reader, int from, int to, Filter *filter)
{
	ExprToken  *token = &reader->tokens[from];
	int			nargs;			/* tokens between the parentheses */

	filter->kind = filter_kind(reader, token);
	if (to > from + 1 && (token[1].type != '(' ||
						  reader->tokens[to - 1].type != ')'))
		filter_error(reader, &token[1],
					 psprintf("unexpected text after filter \"%s\"",
							  token->text),
					 "Filters are joined by |.");
	nargs = to > from + 1 ? to - from - 3 : 0;
	switch (filter->kind)
	{
		case FILTER_DEFAULT:
			if (nargs == 0)
				filter_error(reader, token, "default() takes one argument",
							 "Write default(\"...\"), default(0), default(null) or default(name).");
			filter->expr = compile_segment(reader, from + 2, to - 1);
			break;
		case FILTER_JOIN:
			if (nargs != 1 || token[2].type != TOKEN_STRING)
				filter_error(reader, token, "join() takes one string",
							 "Write join(\", \").");
			filter->separator = token[2].text;
			break;
		case FILTER_JSON:
			if (nargs != 0)
				filter_error(reader, token, "json takes no argument",
							 "Write {{ ... | json }}.");
			break;
		case FILTER_TRUNCATE:
		case FILTER_FIRST:
			filter->count = nargs == 1 ? count_argument(reader, &token[2]) : -1;
			if (filter->count < 0)
				filter_error(reader, token,
							 psprintf("%s() takes one whole number, 0 or more",
									  token->text),
							 psprintf("Write %s(100).", token->text));
			break;
	}
}

static void
add_filter(TemplateHole *hole, const Filter *filter)
{
	hole->filters = hole->nfilters == 0 ? palloc(sizeof(Filter)) :
		repalloc(hole->filters, (hole->nfilters + 1) * sizeof(Filter));
	hole->filters[hole->nfilters++] = *filter;
}

/* Anything before a default may be missing. */
static void
note_defaults(TemplateHole *hole)
{
	for (int i = hole->nfilters - 1; i >= 0; i--)
	{
		if (hole->filters[i].kind != FILTER_DEFAULT)
			continue;
		hole->filters[i].missing_ok = hole->missing_ok;
		hole->missing_ok = true;
	}
}

/*
 * Compiles the inside of a hole: len bytes at text, which begin on `line`.
 * Palloc'd in the current context.  Raises ERRCODE_SYNTAX_ERROR.
 */
TemplateHole *
hole_compile(const char *text, int len, int line)
{
	TemplateHole *hole = palloc0(sizeof(TemplateHole));
	HoleReader	reader = {pnstrdup(text, len), line};
	int			end;

	reader.tokens = expr_tokens(reader.source, line, &reader.ntokens);
	end = segment_end(&reader, 0);
	if (end == 0)
		filter_error(&reader, &reader.tokens[0], "no expression",
					 "Name an input or a step between {{ and }}.");
	hole->expr = compile_segment(&reader, 0, end);
	if (end == 1 && reader.ntokens == 1 &&
		reader.tokens[0].type == TOKEN_STRING)
		hole->literal = reader.tokens[0].text;
	while (end < reader.ntokens)
	{
		int			from = end + 1;
		Filter		filter = {0};

		end = segment_end(&reader, from);
		compile_filter(&reader, from, end, &filter);
		add_filter(hole, &filter);
	}
	note_defaults(hole);
	return hole;
}

static void
set_string(JsonbValue *item, char *text, int len)
{
	item->type = jbvString;
	item->val.string.val = text;
	item->val.string.len = len;
}

static bool
is_array(const JsonbValue *item)
{
	return item->type == jbvBinary &&
		JsonContainerIsArray(item->val.binary.data);
}

static void pg_attribute_noreturn()
null_text_error(const TemplateHole *hole, int element)
{
	char	   *source = expr_source_excerpt(hole->expr->source);

	if (element >= 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("%s: element %d is null and cannot become text",
						source, element),
				 errhint("Leave such elements out: %s[*] ? (@ != null).",
						 source)));
	ereport(ERROR,
			(errcode(ERRCODE_CHAIN_INPUT),
			 errmsg("%s is null and cannot become text", source),
			 errhint("Say what stands in its place: {{%s | default(\"\")}}.",
					 source)));
}

/* Errors about a null in text name the expression, so they are made here. */
static void
refuse_null(const TemplateHole *hole, JsonbValue *item)
{
	JsonbIterator *it;
	JsonbValue	element;
	JsonbIteratorToken token;
	int			n = 0;

	if (item->type == jbvNull)
		null_text_error(hole, -1);
	if (!is_array(item))
		return;
	it = JsonbIteratorInit(item->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &element, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (element.type == jbvNull)
			null_text_error(hole, n);
		n++;
	}
}

/* item as text (rule T3), appended. */
static void
append_text(const TemplateHole *hole, JsonbValue *item, StringInfo buf)
{
	if (item->type == jbvString)
	{
		appendBinaryStringInfo(buf, item->val.string.val,
							   item->val.string.len);
		return;
	}
	refuse_null(hole, item);
	appendStringInfoString(buf, value_to_text(jsonb_from_item(item)));
}

static void
make_text(const TemplateHole *hole, JsonbValue *item)
{
	StringInfoData buf;

	if (item->type == jbvString)
		return;
	initStringInfo(&buf);
	append_text(hole, item, &buf);
	set_string(item, buf.data, buf.len);
}

static void
require_array(const TemplateHole *hole, JsonbValue *item, const char *filter,
			  const char *hint)
{
	if (!is_array(item))
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_INPUT),
				 errmsg("%s: %s() takes an array, not %s",
						expr_source_excerpt(hole->expr->source), filter,
						item_description(item)),
				 errhint("%s", hint)));
}

static void
apply_join(const TemplateHole *hole, const char *separator, JsonbValue *item)
{
	StringInfoData buf;
	JsonbIterator *it;
	JsonbValue	element;
	JsonbIteratorToken token;
	int			n = 0;

	require_array(hole, item, "join", "A text stands without it.");
	refuse_null(hole, item);
	initStringInfo(&buf);
	it = JsonbIteratorInit(item->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &element, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (n++ > 0)
			appendStringInfoString(&buf, separator);
		append_text(hole, &element, &buf);
	}
	set_string(item, buf.data, buf.len);
}

static void
apply_first(const TemplateHole *hole, int count, JsonbValue *item)
{
	JsonbParseState *state = NULL;
	JsonbIterator *it;
	JsonbValue	element;
	JsonbIteratorToken token;

	require_array(hole, item, "first", "Of a text, truncate(n) is the beginning.");
	if (JsonContainerSize(item->val.binary.data) <= count)
		return;
	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	it = JsonbIteratorInit(item->val.binary.data);
	while (count > 0 &&
		   (token = JsonbIteratorNext(&it, &element, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		(void) pushJsonbValue(&state, WJB_ELEM, &element);
		count--;
	}
	jsonb_item(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL)),
			   item);
}

static bool
wants_default(bool found, const JsonbValue *item)
{
	return !found || item->type == jbvNull ||
		(is_array(item) && JsonContainerSize(item->val.binary.data) == 0);
}

static void
apply_json(JsonbValue *item)
{
	StringInfoData buf;

	initStringInfo(&buf);
	json_append(&buf, jsonb_from_item(item));
	set_string(item, buf.data, buf.len);
}

/* Returns whether there is a value now. */
static bool
apply_filter(const TemplateHole *hole, const Filter *filter,
			 ExprLookup lookup, void *arg, bool found, JsonbValue *item)
{
	if (filter->kind == FILTER_DEFAULT)
		return wants_default(found, item) ?
			expr_item(filter->expr, lookup, arg, filter->missing_ok, item) :
			true;
	if (!found)
		return false;
	if (filter->kind == FILTER_JSON)
		apply_json(item);
	else if (item->type == jbvNull)
		return true;
	else if (filter->kind == FILTER_JOIN)
		apply_join(hole, filter->separator, item);
	else if (filter->kind == FILTER_FIRST)
		apply_first(hole, filter->count, item);
	else
	{
		make_text(hole, item);
		item->val.string.len = pg_mbcharcliplen(item->val.string.val,
												item->val.string.len,
												filter->count);
	}
	return true;
}

/*
 * The hole's value, unpacked into *item; it may point into what lookup
 * returned.  Null is a value; what is missing raises ERRCODE_CHAIN_INPUT.
 */
void
hole_item(const TemplateHole *hole, ExprLookup lookup, void *arg,
		  JsonbValue *item)
{
	bool		found = expr_item(hole->expr, lookup, arg, hole->missing_ok,
								  item);

	for (int i = 0; i < hole->nfilters; i++)
		found = apply_filter(hole, &hole->filters[i], lookup, arg, found, item);
	Assert(found);
}

/* The same as a Jsonb, for a bare name the very one that lookup returned. */
Jsonb *
hole_value(const TemplateHole *hole, ExprLookup lookup, void *arg)
{
	JsonbValue	item;

	if (hole->nfilters == 0)
		return expr_value(hole->expr, lookup, arg);
	hole_item(hole, lookup, arg, &item);
	return jsonb_from_item(&item);
}

/* The same as text (rule T3), appended to buf; null is an error. */
void
hole_append_text(const TemplateHole *hole, ExprLookup lookup, void *arg,
				 StringInfo buf)
{
	JsonbValue	item;

	hole_item(hole, lookup, arg, &item);
	append_text(hole, &item, buf);
}

/* exprs with the hole's expression and those of its filters at the end. */
List *
hole_exprs(List *exprs, const TemplateHole *hole)
{
	exprs = lappend(exprs, hole->expr);
	for (int i = 0; i < hole->nfilters; i++)
	{
		if (hole->filters[i].expr)
			exprs = lappend(exprs, hole->filters[i].expr);
	}
	return exprs;
}
