/*
 * sqltemplate.c
 *	  Templates in SQL become bind parameters (LANGUAGE.md, rule T4).
 *
 * The statement is cut by the rules of PostgreSQL's own scanner, as far as
 * needed to know where text is quoted: a hole there would be part of a
 * string, which is the injection that parameters exist to prevent, so it is
 * refused; in comments braces mean nothing.  The scanner itself cannot be
 * asked, it stumbles over the braces.
 *
 * Line breaks inside a hole are kept behind its parameter, so a position in
 * the new text is on the same line as in the old one.
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/error.h"
#include "chain/exprparse.h"
#include "chain/hole.h"
#include "chain/template.h"
#include "lib/stringinfo.h"

typedef struct SqlReader
{
	const char *text;
	int			line;
	const char *s;				/* where it reads */
	StringInfoData out;
	SqlTemplate *template;
} SqlReader;

static bool
starts_identifier(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
		IS_HIGHBIT_SET(c);
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool
continues_identifier(char c)
{
	return starts_identifier(c) || is_digit(c) || c == '$';
}

static void
copy(SqlReader *reader, int n)
{
	appendBinaryStringInfo(&reader->out, reader->s, n);
	reader->s += n;
}

static int
line_here(SqlReader *reader)
{
	return expr_line_at(reader->text, reader->line, reader->s - reader->text);
}

static void pg_attribute_noreturn()
quoted_hole_error(SqlReader *reader, const char *quotes)
{
	const char *end = strstr(reader->s, "}}");
	int			len = end ? end + 2 - reader->s : strlen(reader->s);

	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("line %d: template inside %s: %s", line_here(reader),
					quotes,
					expr_source_excerpt(pnstrdup(reader->s, len))),
			 errdetail("A template in sql is a parameter, never text of the statement."),
			 errhint("Pass it bare: ... = {{x}}; to build text use ||: 'a ' || {{x}}; an array is written ARRAY[[1, 2], [3, 4]].")));
}

/*
 * Copies quoted text up to its closing quote; the opening one has been
 * copied.  A doubled quote needs no care: it closes and opens again.
 */
static void
copy_quoted(SqlReader *reader, char quote, bool backslashes,
			const char *quotes)
{
	while (*reader->s != '\0' && *reader->s != quote)
	{
		if (reader->s[0] == '{' && reader->s[1] == '{')
			quoted_hole_error(reader, quotes);
		copy(reader, backslashes && *reader->s == '\\' &&
			 reader->s[1] != '\0' ? 2 : 1);
	}
	if (*reader->s == quote)
		copy(reader, 1);
}

/*
 * Where a string continues on a later line, 'a' <line break> 'b': the length
 * of what lies between its parts, or 0 when it ends here.
 */
static int
continuation_length(const char *s)
{
	const char *start = s;
	bool		line_break = false;

	for (;;)
	{
		if (*s == '\n' || *s == '\r')
			line_break = true;
		else if (s[0] == '-' && s[1] == '-')
		{
			s += strcspn(s, "\r\n");
			continue;
		}
		else if (*s != ' ' && *s != '\t' && *s != '\f' && *s != '\v')
			break;
		s++;
	}
	return line_break && *s == '\'' ? s - start : 0;
}

/* E'...', whose later parts have backslash escapes as well. */
static void
copy_escape_string(SqlReader *reader)
{
	int			gap = 0;

	do
	{
		copy(reader, gap + 1);
		copy_quoted(reader, '\'', true, "quotes");
		while (*reader->s == '\'')
		{
			copy(reader, 1);
			copy_quoted(reader, '\'', true, "quotes");
		}
		gap = continuation_length(reader->s);
	} while (gap > 0);
}

/* The length of `$tag$` at s, or 0. */
static int
dollar_tag_length(const char *s)
{
	int			n = 1;

	if (starts_identifier(s[n]))
	{
		while (starts_identifier(s[n]) || is_digit(s[n]))
			n++;
	}
	return s[n] == '$' ? n + 1 : 0;
}

static void
copy_dollar_quoted(SqlReader *reader, int tag_len)
{
	char	   *tag = pnstrdup(reader->s, tag_len);

	copy(reader, tag_len);
	while (*reader->s != '\0' && strncmp(reader->s, tag, tag_len) != 0)
	{
		if (reader->s[0] == '{' && reader->s[1] == '{')
			quoted_hole_error(reader, psprintf("%s quotes", tag));
		copy(reader, 1);
	}
	if (*reader->s != '\0')
		copy(reader, tag_len);
}

static void
read_dollar(SqlReader *reader)
{
	int			tag_len = dollar_tag_length(reader->s);

	if (tag_len > 0)
		copy_dollar_quoted(reader, tag_len);
	else if (is_digit(reader->s[1]))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line %d: unexpected parameter $%.*s",
						line_here(reader),
						(int) Min(strspn(reader->s + 1, "0123456789"), 20),
						reader->s + 1),
				 errhint("Parameters are written {{name}}.")));
	else
		copy(reader, 1);
}

static void
copy_block_comment(SqlReader *reader)
{
	int			depth = 0;

	do
	{
		if (reader->s[0] == '/' && reader->s[1] == '*')
		{
			depth++;
			copy(reader, 2);
		}
		else if (reader->s[0] == '*' && reader->s[1] == '/')
		{
			depth--;
			copy(reader, 2);
		}
		else
			copy(reader, 1);
	} while (depth > 0 && *reader->s != '\0');
}

static void
read_identifier(SqlReader *reader)
{
	int			n = 0;

	if ((*reader->s == 'e' || *reader->s == 'E') && reader->s[1] == '\'')
	{
		copy(reader, 1);
		copy_escape_string(reader);
		return;
	}
	while (continues_identifier(reader->s[n]))
		n++;
	copy(reader, n);
}

/* 1.5e3 and the like; an E here opens no string. */
static void
read_number(SqlReader *reader)
{
	int			n = 0;

	while (starts_identifier(reader->s[n]) || is_digit(reader->s[n]) ||
		   reader->s[n] == '.')
		n++;
	copy(reader, n);
}

/*
 * A parameter must not grow together with its neighbours: {{x}}5 is not
 * $15, and a{{x}} not an identifier.
 */
static void
write_parameter(SqlReader *reader, const char *end)
{
	SqlTemplate *template = reader->template;
	StringInfo	out = &reader->out;

	if (out->len > 0 && continues_identifier(out->data[out->len - 1]))
		appendStringInfoChar(out, ' ');
	template->positions[template->nparams] = out->len;
	appendStringInfo(out, "$%d", ++template->nparams);
	for (const char *s = reader->s; s < end; s++)
	{
		if (*s == '\n')
			appendStringInfoChar(out, '\n');
	}
	if (continues_identifier(*end))
		appendStringInfoChar(out, ' ');
}

static void
read_hole(SqlReader *reader)
{
	SqlTemplate *template = reader->template;
	const char *open = reader->s + 2;
	const char *end = hole_end(reader->text, open, reader->line);
	int			n = template->nparams + 1;

	if (n > PG_INT16_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("line %d: too many templates in one sql step",
						line_here(reader)),
				 errdetail("At most %d can become parameters.", PG_INT16_MAX)));
	template->params = n == 1 ? palloc(sizeof(TemplateHole *)) :
		repalloc(template->params, n * sizeof(TemplateHole *));
	template->positions = n == 1 ? palloc(sizeof(int)) :
		repalloc(template->positions, n * sizeof(int));
	template->params[n - 1] = hole_compile(open, end - open,
										   line_here(reader));
	write_parameter(reader, end + 2);
	reader->s = end + 2;
}

static void
read_piece(SqlReader *reader)
{
	const char *s = reader->s;

	if (s[0] == '{' && s[1] == '{')
		read_hole(reader);
	else if (*s == '\'' || *s == '"')
	{
		copy(reader, 1);
		copy_quoted(reader, *s, false,
					*s == '"' ? "double quotes" : "quotes");
	}
	else if (*s == '$')
		read_dollar(reader);
	else if (s[0] == '-' && s[1] == '-')
		copy(reader, strcspn(s, "\r\n"));
	else if (s[0] == '/' && s[1] == '*')
		copy_block_comment(reader);
	else if (starts_identifier(*s))
		read_identifier(reader);
	else if (is_digit(*s))
		read_number(reader);
	else
		copy(reader, 1);
}

/*
 * Compiles the text of a sql step, which begins on `line` of the body.
 *
 * All of the result is palloc'd in the current context; its statement takes
 * one parameter for each template, in order.  Raises ERRCODE_SYNTAX_ERROR,
 * "line N: ...", for templates in quotes, parameters written as $1, and bad
 * expressions; whether the SQL itself is good is for PostgreSQL to say.
 */
SqlTemplate *
sql_template_compile(const char *text, int line)
{
	SqlTemplate *template = palloc0(sizeof(SqlTemplate));
	SqlReader	reader = {text, line, text};

	reader.template = template;
	initStringInfo(&reader.out);
	while (*reader.s != '\0')
		read_piece(&reader);
	template->sql = reader.out.data;
	template->line = line;
	return template;
}

/*
 * The value of parameter $(i + 1); JSON null for SQL's NULL.  Raises
 * ERRCODE_CHAIN_INPUT for what is missing.  Palloc'd in the current context,
 * or what lookup returned.
 */
Jsonb *
sql_template_param(const SqlTemplate *template, int i, ExprLookup lookup,
				   void *arg)
{
	Assert(i >= 0 && i < template->nparams);
	return hole_value(template->params[i], lookup, arg);
}

/* All expressions in the statement: a fresh List of Expression *. */
List *
sql_template_exprs(const SqlTemplate *template)
{
	List	   *exprs = NIL;

	for (int i = 0; i < template->nparams; i++)
		exprs = hole_exprs(exprs, template->params[i]);
	return exprs;
}
