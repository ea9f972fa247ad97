/*
 * yaml_fault.c
 *	  What is wrong with a body, in words that help.
 *
 * libyaml's own messages name its grammar ("did not find expected key").  A
 * chain's author needs to know which text wants quotes, so each is told in the
 * language's words, with the corrected line where there is one.
 */
#include "postgres.h"

#include <yaml.h>

#include "chain/yaml_source.h"

typedef enum FaultPlace
{
	AT_PROBLEM,					/* where libyaml stopped */
	AT_CONTEXT					/* where what it was reading began */
} FaultPlace;

typedef struct FaultText
{
	const char *problem;		/* libyaml's words, or their beginning */
	FaultPlace	place;
	bool		quote;			/* quoting the line's value would help */
	const char *message;		/* %c: the character that stands there */
	const char *hint;
} FaultText;

#define FLOW_HINT "Inside [...] and {...} quote a text that holds , [ ] { or }, a template included."
#define BEGIN_HINT "Quote a text that begins with this character, or write it as a block (|)."

static const FaultText faults[] = {
	{"mapping values are not allowed", AT_PROBLEM, true,
	 "a colon followed by a space in a text without quotes",
	 "Quote the text, or write it as a block (|); the keys of a map stand in one column."},
	{"found unexpected ':'", AT_PROBLEM, false,
	 "a colon in a text without quotes", FLOW_HINT},
	{"block sequence entries are not allowed", AT_PROBLEM, true,
	 "a list cannot begin here",
	 "Begin a list on a line of its own; quote a text that begins with a dash."},
	{"mapping keys are not allowed", AT_PROBLEM, true,
	 "a text without quotes cannot begin with \"%c\"", BEGIN_HINT},
	{"found character that cannot start any token", AT_PROBLEM, true,
	 "a text without quotes cannot begin with \"%c\"", BEGIN_HINT},
	{"did not find expected alphabetic or numeric character", AT_CONTEXT, true,
	 "a text without quotes cannot begin with \"%c\"", BEGIN_HINT},
	{"could not find expected ':'", AT_CONTEXT, false,
	 "a line that is neither \"key: value\" nor part of a text",
	 "Write a colon and a space behind a key; indent the lines of a block (|) deeper than its key."},
	{"found unexpected end of stream", AT_CONTEXT, false,
	 "quoted text that begins here does not end",
	 "Close the quotes; inside single quotes write an apostrophe twice."},
	{"found unexpected document indicator", AT_CONTEXT, false,
	 "quoted text that begins here does not end before a document marker",
	 "Close the quotes."},
	{"found unknown escape character", AT_PROBLEM, false,
	 "unknown escape in double-quoted text",
	 "Write a backslash twice, or use single quotes or a block (|)."},
	{"did not find expected hexdecimal number", AT_PROBLEM, false,
	 "escape in double-quoted text lacks hexadecimal digits",
	 "Write a backslash twice, or use single quotes or a block (|)."},
	{"found invalid Unicode character escape code", AT_PROBLEM, false,
	 "escape in double-quoted text names no Unicode character",
	 "Write the character itself, or \\U and eight digits; surrogate pairs are not joined."},
	{"did not find expected comment or line break", AT_PROBLEM, false,
	 "text behind the marker of a block",
	 "The text of a block begins on the next line; quote a text that begins with | or >."},
	{"found an indentation indicator equal to 0", AT_PROBLEM, false,
	 "a block cannot be indented by 0",
	 "Leave the number out."},
	{"did not find expected ',' or ']'", AT_PROBLEM, false,
	 "expected \",\" or \"]\" in a list in brackets", FLOW_HINT},
	{"did not find expected ',' or '}'", AT_PROBLEM, false,
	 "expected \",\" or \"}\" in a map in braces", FLOW_HINT},
	{"did not find expected key", AT_PROBLEM, false,
	 "expected a key",
	 "The keys of a map stand in one column, and nothing follows a quoted text on its line."},
	{"did not find expected '-' indicator", AT_PROBLEM, false,
	 "expected a dash",
	 "The elements of a list begin with \"- \" in one column."},
	{"did not find expected node content", AT_PROBLEM, false,
	 "expected a value", FLOW_HINT},
	{"did not find expected <document start>", AT_PROBLEM, false,
	 "text behind the end of the body",
	 "A body is one map of keys and values."},
};

static void check_bare_template(const YamlSource *source, int offset);
static void reader_fault(const YamlSource *source, const yaml_parser_t *parser)
	pg_attribute_noreturn();
static void known_fault(const YamlSource *source, const FaultText *fault,
						int problem, int offset) pg_attribute_noreturn();

/*
 * Raises the error that made libyaml stop.
 */
void
yaml_fault(YamlSource *source, const yaml_parser_t *parser)
{
	int			problem;
	int			context;

	if (parser->error == YAML_MEMORY_ERROR)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("libyaml could not allocate memory.")));
	if (parser->error == YAML_READER_ERROR)
		reader_fault(source, parser);

	problem = yaml_source_seek(source, parser->problem_mark.index);
	context = parser->context == NULL ? problem :
		yaml_source_seek(source, parser->context_mark.index);

	if (source->text[problem] == '\t' || strstr(parser->problem, "found a tab") != NULL)
		yaml_fault_tab(source, problem);

	check_bare_template(source, problem);
	check_bare_template(source, context);

	if (parser->context != NULL && strstr(parser->context, "directive") != NULL)
		yaml_fault_directive(source, context);
	if (strstr(parser->problem, "tag handle") != NULL ||
		(parser->context != NULL && strstr(parser->context, "ing a tag") != NULL))
		yaml_fault_tag(source, context);

	for (int i = 0; i < lengthof(faults); i++)
	{
		const FaultText *fault = &faults[i];

		if (strncmp(parser->problem, fault->problem, strlen(fault->problem)) == 0)
			known_fault(source, fault, problem,
						fault->place == AT_CONTEXT ? context : problem);
	}
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("line %d: %s", yaml_source_line(source, problem), parser->problem),
			 parser->context ? errdetail("It happened %s.", parser->context) : 0));
	pg_unreachable();
}

/*
 * Raises the error about a tab at this byte.
 */
void
yaml_fault_tab(const YamlSource *source, int offset)
{
	int			line = yaml_source_line(source, offset);
	char	   *corrected = yaml_source_without_tabs(source, line);

	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("line %d: tab character", line),
			 corrected ? errhint("Write: %s", corrected) :
			 errhint("Indent and separate with spaces; a tab that belongs to a text needs quotes or a block (|).")));
}

/*
 * Raises the error about a tag whose "!" stands at this byte.
 */
void
yaml_fault_tag(const YamlSource *source, int offset)
{
	int			line = yaml_source_line(source, offset);
	int			from;
	int			to;
	char	   *corrected = NULL;

	if (yaml_source_find_value(source, line, &from, &to) && from == offset)
		corrected = yaml_source_quoted(source, from, to);
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("line %d: tags are not allowed", line),
			 errdetail("An exclamation mark at the beginning of a text without quotes makes a tag of it."),
			 corrected ? errhint("Write: %s", corrected) :
			 errhint("Leave the tag out, or quote the text.")));
}

/*
 * Raises the error about a line that begins with % at this byte.
 */
void
yaml_fault_directive(const YamlSource *source, int offset)
{
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("line %d: directives are not allowed", yaml_source_line(source, offset)),
			 errhint("Leave out the line that begins with %%, or indent it if it is text.")));
}

/*
 * Raises the error about an unquoted value that begins with {{ at this byte;
 * flow says that it is an element of a list or map in brackets.
 */
void
yaml_fault_template(const YamlSource *source, int offset, bool flow)
{
	char	   *corrected = yaml_source_quoted(source, offset,
											   yaml_source_template_end(source, offset, flow));

	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("line %d: a value that begins with {{ must be quoted",
					yaml_source_line(source, offset)),
			 errdetail("Without quotes, YAML reads { as the beginning of a map."),
			 corrected ? errhint("Write: %s", corrected) :
			 errhint("Put the value between quotes, or write it as a block (|).")));
}

/*
 * Raises the error about the value of a free-text key that begins at `from`
 * and is cut by a comment at `cut`.
 */
void
yaml_fault_comment(const YamlSource *source, int from, int cut, const char *key)
{
	int			line = yaml_source_line(source, from);
	int			end = yaml_source_line_end(source, line);
	char	   *corrected = cut > end ? NULL : yaml_source_quoted(source, from, end);

	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("line %d: the text of \"%s\" is cut by a comment", line, key),
			 errdetail("Without quotes, what follows \" #\" is a comment and no part of the text."),
			 corrected ? errhint("Write: %s", corrected) :
			 errhint("Quote the text, or write it as a block (|).")));
}

/*
 * An unquoted value that begins with {{ may have led libyaml astray anywhere
 * in its line, but not when it stands inside another unquoted text.
 */
static void
check_bare_template(const YamlSource *source, int offset)
{
	int			line = yaml_source_line(source, offset);
	int			template = yaml_source_find_bare_template(source, line);
	int			from;
	int			to;

	if (template >= 0 &&
		!(yaml_source_find_value(source, line, &from, &to) && from < template))
		yaml_fault_template(source, template, false);
}

/* A character that YAML does not admit; invalid UTF-8 was found before. */
static void
reader_fault(const YamlSource *source, const yaml_parser_t *parser)
{
	int			line = yaml_source_line(source, (int) parser->problem_offset);

	if (parser->problem_value < 0)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line %d: %s", line, parser->problem)));
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("line %d: character U+%04X is not allowed", line,
					(unsigned int) parser->problem_value),
			 errhint("Write it as \\U%08X between double quotes.",
					 (unsigned int) parser->problem_value)));
	pg_unreachable();
}

/* Raises a fault of the table that stands at `offset`. */
static void
known_fault(const YamlSource *source, const FaultText *fault, int problem,
			int offset)
{
	int			line = yaml_source_line(source, offset);
	int			from;
	int			to;
	char	   *corrected = NULL;
	const char *percent = strstr(fault->message, "%c");
	char	   *message;

	/* all characters with which libyaml finds such fault are ASCII */
	message = percent == NULL ? pstrdup(fault->message) :
		psprintf("%.*s%c%s", (int) (percent - fault->message), fault->message,
				 source->text[offset], percent + 2);

	/* quoting helps only if what is wrong stands inside the value */
	if (fault->quote && yaml_source_find_value(source, line, &from, &to) &&
		from <= problem)
		corrected = yaml_source_quoted(source, from, to);

	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("line %d: %s", line, message),
			 corrected ? errhint("Write: %s", corrected) :
			 errhint("%s", fault->hint)));
	pg_unreachable();
}
