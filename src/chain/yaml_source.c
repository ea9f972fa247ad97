/*
 * yaml_source.c
 *	  The text of a chain's body by lines, and small readings of it.
 *
 * libyaml tells where something stands, not what stands there, and it drops
 * some of what has to be refused: a comment that cut a text, a tab between a
 * key and its value.  Those are looked for in the source itself.  What is read
 * here never decides what a body means, only how an error is told.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "chain/yaml_source.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#define MAX_BODY (1024 * 1024)	/* bytes, as UTF-8 */
#define MAX_HINT_LINE 200		/* a corrected line longer than that is no help */

static void index_lines(YamlSource *source);
static void check_characters(const YamlSource *source);
static int	line_break(const char *p);
static bool blank(char c);
static int	skip_quoted(const char *text, int from, int to);
static bool flow_before(const YamlSource *source, int line_start, int offset);
static void append_quoted(StringInfo buf, const char *text, int len);

/*
 * Takes a body, a NUL-terminated string in the server's encoding, for parsing.
 * Raises an error when it is too long, holds bytes that are no text, or line
 * separators that YAML 1.1 and 1.2 read differently.  The result is palloc'd.
 */
YamlSource *
yaml_source_open(const char *body)
{
	YamlSource *source = palloc0(sizeof(YamlSource));
	size_t		len = strlen(body);
	int			encoding = GetDatabaseEncoding();

	if (len > MAX_BODY)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("line 1: body is larger than %d bytes", MAX_BODY),
				 errdetail("It has %zu bytes.", len),
				 errhint("Pass large texts as arguments, or read them in a sql step.")));

	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		source->text = pstrdup(body);
	else
		source->text = pg_server_to_any(body, (int) len, PG_UTF8);
	source->len = strlen(source->text);

	index_lines(source);
	check_characters(source);
	return source;
}

/*
 * Byte offset of the character number `index`, as libyaml counts them.  Marks
 * come nearly in order, so the search goes on from where the last one ended.
 */
int
yaml_source_seek(YamlSource *source, size_t index)
{
	while (source->index < index && source->offset < source->len)
	{
		source->offset += pg_utf_mblen((const unsigned char *) source->text + source->offset);
		source->index++;
	}
	while (source->index > index && source->offset > 0)
	{
		do
			source->offset--;
		while (source->offset > 0 && (source->text[source->offset] & 0xC0) == 0x80);
		source->index--;
	}
	return source->offset;
}

/*
 * The line, from 1, on which a byte stands.
 */
int
yaml_source_line(const YamlSource *source, int offset)
{
	int			low = 0;
	int			high = source->nlines;

	while (high - low > 1)
	{
		int			middle = (low + high) / 2;

		if (source->starts[middle] <= offset)
			low = middle;
		else
			high = middle;
	}
	return low + 1;
}

/*
 * Offset of the first byte of a line.
 */
int
yaml_source_line_start(const YamlSource *source, int line)
{
	return line > source->nlines ? source->len : source->starts[line - 1];
}

/*
 * Offset behind the last byte of a line, line break and blanks at its end left
 * out.
 */
int
yaml_source_line_end(const YamlSource *source, int line)
{
	int			start = yaml_source_line_start(source, line);
	int			end = start;

	while (end < source->len && line_break(source->text + end) == 0)
		end++;
	while (end > start && blank(source->text[end - 1]))
		end--;
	return end;
}

/*
 * Text that libyaml gave, in the server's encoding, palloc'd.  Escapes can
 * name characters which that encoding, or any text, lacks: an error.
 */
char *
yaml_source_text(const char *text, int len, int line)
{
	int			encoding = GetDatabaseEncoding();
	Oid			proc;
	unsigned char *result;
	int			done;

	if (memchr(text, '\0', len) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("line %d: text holds the character U+0000", line),
				 errhint("PostgreSQL cannot store it.")));
	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return pnstrdup(text, len);

	proc = FindDefaultConversionProc(PG_UTF8, encoding);
	if (!OidIsValid(proc))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("line %d: no conversion from UTF8 to %s", line,
						pg_encoding_to_char(encoding)),
				 errhint("Use a database with encoding UTF8.")));
	result = palloc((Size) len * MAX_CONVERSION_GROWTH + 1);
	done = pg_do_encoding_conversion_buf(proc, PG_UTF8, encoding,
										 (unsigned char *) unconstify(char *, text),
										 len, result,
										 len * MAX_CONVERSION_GROWTH + 1, true);
	if (done < len)
		ereport(ERROR,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("line %d: text holds a character that encoding %s lacks",
						line, pg_encoding_to_char(encoding)),
				 errhint("Use a database with encoding UTF8.")));
	return (char *) result;
}

/*
 * The line around [from, to) with that part in quotes, for a hint; without
 * its indentation.  NULL when it is too long to help.
 */
char *
yaml_source_quoted(const YamlSource *source, int from, int to)
{
	int			line = yaml_source_line(source, from);
	int			start = yaml_source_line_start(source, line);
	int			end = yaml_source_line_end(source, line);
	StringInfoData buf;

	while (start < from && blank(source->text[start]))
		start++;
	if (to > end)
		to = end;
	if (end - start > MAX_HINT_LINE)
		return NULL;

	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, source->text + start, from - start);
	append_quoted(&buf, source->text + from, to - from);
	appendBinaryStringInfo(&buf, source->text + to, end - to);
	return yaml_source_text(buf.data, buf.len, line);
}

/*
 * The line with a space for each run of tabs and blanks around one, for a
 * hint.  NULL when a tab indents it (only its author knows how deep it should
 * be), when it has quotes, where a tab may stand, or when it is too long.
 */
char *
yaml_source_without_tabs(const YamlSource *source, int line)
{
	int			start = yaml_source_line_start(source, line);
	int			end = yaml_source_line_end(source, line);
	StringInfoData buf;

	while (start < end && source->text[start] == ' ')
		start++;
	if (start == end || end - start > MAX_HINT_LINE || source->text[start] == '\t' ||
		memchr(source->text + start, '"', end - start) != NULL ||
		memchr(source->text + start, '\'', end - start) != NULL)
		return NULL;

	initStringInfo(&buf);
	while (start < end)
	{
		int			blanks = 0;
		bool		tab = false;

		for (; start + blanks < end && blank(source->text[start + blanks]); blanks++)
			tab = tab || source->text[start + blanks] == '\t';
		if (tab)
			appendStringInfoChar(&buf, ' ');
		else
			appendBinaryStringInfo(&buf, source->text + start, blanks);
		start += blanks;
		if (start < end)
			appendStringInfoChar(&buf, source->text[start++]);
	}
	return yaml_source_text(buf.data, buf.len, line);
}

/*
 * Offset of the first tab in [from, to) that is not in a comment, or -1.  The
 * range holds no quoted text and no block.
 */
int
yaml_source_find_tab(const YamlSource *source, int from, int to)
{
	bool		comment = false;

	for (int i = from; i < to; i++)
	{
		char		c = source->text[i];

		if (c == '\n' || c == '\r')
			comment = false;
		else if (c == '#' && (i == 0 || isspace((unsigned char) source->text[i - 1])))
			comment = true;
		else if (c == '\t' && !comment)
			return i;
	}
	return -1;
}

/*
 * Offset of a value on this line that begins with {{ and has no quotes, or -1.
 */
int
yaml_source_find_bare_template(const YamlSource *source, int line)
{
	const char *text = source->text;
	int			end = yaml_source_line_end(source, line);
	bool		begins = true;	/* a value may begin here */

	for (int i = yaml_source_line_start(source, line); i < end; i++)
	{
		if (blank(text[i]))
			continue;
		if (begins && text[i] == '{' && text[i + 1] == '{')
			return i;
		if (begins && (text[i] == '"' || text[i] == '\''))
			i = skip_quoted(text, i, end) - 1;
		begins = strchr("[{,", text[i]) != NULL ||
			(strchr(":-?", text[i]) != NULL && (i + 1 >= end || blank(text[i + 1])));
	}
	return -1;
}

/*
 * Where the unquoted value that begins with {{ at `from` was meant to end: at
 * the end of its line, or inside brackets (flow) where its element ends.
 */
int
yaml_source_template_end(const YamlSource *source, int from, bool flow)
{
	const char *text = source->text;
	int			line = yaml_source_line(source, from);
	int			end = yaml_source_line_end(source, line);
	int			braces = 0;
	int			i;

	flow = flow || flow_before(source, yaml_source_line_start(source, line), from);
	for (i = from; i < end; i++)
	{
		char		c = text[i];

		if (braces > 0 && (c == '"' || c == '\''))
			i = skip_quoted(text, i, end) - 1;
		else if (c == '{')
			braces++;
		else if (c == '}' && braces > 0)
			braces--;
		else if (braces == 0 && flow && strchr(",]}", c) != NULL)
			break;
		else if (braces == 0 && c == '#' && blank(text[i - 1]))
			break;
	}
	if (i > end)
		i = end;
	while (i > from && blank(text[i - 1]))
		i--;
	return i;
}

/*
 * Finds the unquoted one-line value of a line `key: value` or `- value` of a
 * block.  False when there is none, or it has a marker of its own.
 */
bool
yaml_source_find_value(const YamlSource *source, int line, int *from, int *to)
{
	const char *text = source->text;
	int			i = yaml_source_line_start(source, line);
	int			end = yaml_source_line_end(source, line);
	int			item = -1;

	while (i < end && blank(text[i]))
		i++;
	while (i < end && text[i] == '-' && blank(text[i + 1]))
	{
		i++;
		while (i < end && blank(text[i]))
			i++;
		item = i;
	}
	if (i < end && (text[i] == '"' || text[i] == '\''))
		i = skip_quoted(text, i, end);
	while (i < end && !(text[i] == ':' && (blank(text[i + 1]) || i + 1 == end)))
		i++;
	if (i < end)
	{
		i++;
		while (i < end && blank(text[i]))
			i++;
	}
	else
		i = item;
	if (i < 0 || i >= end || strchr("\"'[{|>", text[i]) != NULL)
		return false;
	*from = i;
	*to = end;
	return true;
}

static void
index_lines(YamlSource *source)
{
	int			allocated = 64;
	const char *p = source->text;

	source->starts = palloc(allocated * sizeof(int));
	source->starts[0] = 0;
	source->nlines = 1;
	while (*p != '\0')
	{
		int			len = line_break(p);

		if (len == 0)
		{
			p++;
			continue;
		}
		p += len;
		if (source->nlines == allocated)
		{
			allocated *= 2;
			source->starts = repalloc(source->starts, allocated * sizeof(int));
		}
		source->starts[source->nlines++] = p - source->text;
	}
}

/*
 * NEL, LS and PS end a line for libyaml, which reads YAML 1.1, and are text in
 * YAML 1.2: a text with one in it would change silently.
 */
static void
check_characters(const YamlSource *source)
{
	const unsigned char *text = (const unsigned char *) source->text;
	int			valid = pg_encoding_verifymbstr(PG_UTF8, source->text, source->len);

	if (valid < source->len)
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("line %d: body is not valid UTF-8",
						yaml_source_line(source, valid)),
				 errdetail("The first invalid byte is 0x%02x.", text[valid]),
				 errhint("Write the body in the encoding that client_encoding names.")));

	for (const unsigned char *p = text; *p != '\0'; p++)
	{
		unsigned int code;

		if (p[0] == 0xC2 && p[1] == 0x85)
			code = 0x85;
		else if (p[0] == 0xE2 && p[1] == 0x80 && (p[2] == 0xA8 || p[2] == 0xA9))
			code = 0x2028 + p[2] - 0xA8;
		else
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line %d: Unicode line separator U+%04X",
						yaml_source_line(source, p - text), code),
				 errhint("Write it as \\u%04X between double quotes, or use an ordinary line break.",
						 code)));
	}
}

/* Bytes of the line break at p, 0 if there is none. */
static int
line_break(const char *p)
{
	if (*p == '\n')
		return 1;
	if (*p == '\r')
		return p[1] == '\n' ? 2 : 1;
	return 0;
}

static bool
blank(char c)
{
	return c == ' ' || c == '\t';
}

/* Offset behind the quoted text that begins at `from`; `to` if it is open. */
static int
skip_quoted(const char *text, int from, int to)
{
	char		quote = text[from];

	for (int i = from + 1; i < to; i++)
	{
		if (text[i] == '\\' && quote == '"')
			i++;
		else if (text[i] == quote)
			return i + 1;
	}
	return to;
}

/* Has a bracket been opened on the line before this byte? */
static bool
flow_before(const YamlSource *source, int line_start, int offset)
{
	int			open = 0;

	for (int i = line_start; i < offset; i++)
	{
		if (source->text[i] == '"' || source->text[i] == '\'')
			i = skip_quoted(source->text, i, offset) - 1;
		else if (source->text[i] == '[' || source->text[i] == '{')
			open++;
		else if (source->text[i] == ']' || source->text[i] == '}')
			open--;
	}
	return open > 0;
}

/* In double quotes where nothing needs an escape, else in single ones. */
static void
append_quoted(StringInfo buf, const char *text, int len)
{
	bool		single = memchr(text, '"', len) != NULL || memchr(text, '\\', len) != NULL;
	char		quote = single ? '\'' : '"';

	appendStringInfoChar(buf, quote);
	for (int i = 0; i < len; i++)
	{
		if (single && text[i] == '\'')
			appendStringInfoChar(buf, '\'');
		appendStringInfoChar(buf, text[i]);
	}
	appendStringInfoChar(buf, quote);
}
