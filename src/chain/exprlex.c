/*
 * exprlex.c
 *	  The tokens of expressions.
 *
 * jsonpath's own scanner is not exported and differs from version to version
 * of PostgreSQL (hexadecimal numbers, underscores in numbers, new methods).
 * A chain must mean the same on all of them, so expressions are cut into
 * tokens here, by the rules of PostgreSQL 15, and jsonpath only ever sees
 * what was written anew from these tokens.
 *
 * Stricter than jsonpath in two things that it would accept silently: an
 * escape it does not know ("\d" means "d" there, a trap in regular
 * expressions) and comments.
 */
#include "postgres.h"

#include "base/compat.h"
#include "chain/exprparse.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#define MAX_EXCERPT 100			/* characters of source in a message */

typedef struct Lexer
{
	const char *source;
	int			line;
	int			pos;
} Lexer;

/* The line of source's byte `position`, when source begins on `line`. */
int
expr_line_at(const char *source, int line, int position)
{
	for (int i = 0; i < position && source[i] != '\0'; i++)
	{
		if (source[i] == '\n')
			line++;
	}
	return line;
}

/* source as messages show it: cut to a sane length.  Palloc'd. */
char *
expr_source_excerpt(const char *source)
{
	int			len = strlen(source);
	int			clip = pg_mbcharcliplen(source, len, MAX_EXCERPT);

	return clip < len ? psprintf("%.*s...", clip, source) : pstrdup(source);
}

static void pg_attribute_noreturn()
lexer_error(Lexer *lexer, int position, const char *problem, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("line %d: %s in \"%s\"",
					expr_line_at(lexer->source, lexer->line, position),
					problem, expr_source_excerpt(lexer->source)),
			 errhint("%s", hint ? hint : EXPR_HINT)));
}

static bool
starts_word(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
		IS_HIGHBIT_SET(c);
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static int
hex_digit(char c)
{
	if (is_digit(c))
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/*
 * Reads between min and max hexadecimal digits at *s and moves it behind
 * them; -1 when there are fewer.
 */
static int
read_hex(const char **s, int min, int max)
{
	int			value = 0;
	int			n = 0;

	while (n < max && hex_digit(**s) >= 0)
	{
		value = value * 16 + hex_digit(**s);
		(*s)++;
		n++;
	}
	return n < min ? -1 : value;
}

/* What follows "\u": XXXX or {X...}; -1 when it is neither. */
static int
read_unicode(const char **s)
{
	int			value;

	if (**s != '{')
		return read_hex(s, 4, 4);
	(*s)++;
	value = read_hex(s, 1, 6);
	if (value < 0 || **s != '}')
		return -1;
	(*s)++;
	return value;
}

static void
append_code_point(Lexer *lexer, int position, StringInfo buf, int c)
{
	unsigned char bytes[MAX_UNICODE_EQUIVALENT_STRING + 1];

	if (c <= 0 || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
		lexer_error(lexer, position, "escape of no valid character", NULL);
	if (c < 0x80)
		appendStringInfoChar(buf, (char) c);
	else
	{
		pg_unicode_to_server((pg_wchar) c, bytes);
		appendStringInfoString(buf, (char *) bytes);
	}
}

/* Decodes the escape behind a backslash; returns what follows it. */
static const char *
read_escape(Lexer *lexer, const char *s, StringInfo buf)
{
	int			position = s - lexer->source - 1;
	int			c;

	switch (*s++)
	{
		case '"':
		case '\\':
		case '/':
		case '\'':
			appendStringInfoChar(buf, s[-1]);
			break;
		case 'b':
			appendStringInfoChar(buf, '\b');
			break;
		case 'f':
			appendStringInfoChar(buf, '\f');
			break;
		case 'n':
			appendStringInfoChar(buf, '\n');
			break;
		case 'r':
			appendStringInfoChar(buf, '\r');
			break;
		case 't':
			appendStringInfoChar(buf, '\t');
			break;
		case 'v':
			appendStringInfoChar(buf, '\v');
			break;
		case 'x':
			append_code_point(lexer, position, buf, read_hex(&s, 2, 2));
			break;
		case 'u':
			c = read_unicode(&s);
			if (c >= 0xD800 && c <= 0xDBFF && s[0] == '\\' && s[1] == 'u')
			{
				int			low;

				s += 2;
				low = read_unicode(&s);
				c = low >= 0xDC00 && low <= 0xDFFF ?
					0x10000 + ((c & 0x3FF) << 10) + (low & 0x3FF) : -1;
			}
			append_code_point(lexer, position, buf, c);
			break;
		case '\0':
			lexer_error(lexer, position, "unclosed string",
						"A string ends with a double quote.");
		default:
			lexer_error(lexer, position, "unknown escape",
						"A backslash itself is written \\\\.");
	}
	return s;
}

static void
read_string(Lexer *lexer, ExprToken *token)
{
	const char *s = lexer->source + token->start + 1;
	StringInfoData buf;

	initStringInfo(&buf);
	while (*s != '"')
	{
		if (*s == '\0')
			lexer_error(lexer, token->start, "unclosed string",
						"A string ends with a double quote.");
		if (*s == '\\')
			s = read_escape(lexer, s + 1, &buf);
		else
			appendStringInfoChar(&buf, *s++);
	}
	token->type = TOKEN_STRING;
	token->text = buf.data;
	token->end = s + 1 - lexer->source;
}

/*
 * Numbers of PostgreSQL 15's jsonpath: 12, 1.5, 1., .5, 1e-3.  What it does
 * not know (0x1F, 1_000, 007, 12abc) is refused on every version.
 */
static void
read_number(Lexer *lexer, ExprToken *token)
{
	const char *start = lexer->source + token->start;
	const char *s = start;

	while (is_digit(*s))
		s++;
	if (s - start > 1 && *start == '0')
		lexer_error(lexer, token->start, "number with leading zeros", NULL);
	if (*s == '.')
	{
		s++;
		while (is_digit(*s))
			s++;
	}
	if (*s == 'e' || *s == 'E')
	{
		const char *exponent = s + 1;

		if (*exponent == '+' || *exponent == '-')
			exponent++;
		if (is_digit(*exponent))
		{
			s = exponent;
			while (is_digit(*s))
				s++;
		}
	}
	if (starts_word(*s) || is_digit(*s))
		lexer_error(lexer, token->start, "malformed number",
					"Numbers are decimal, as in 12, 0.5 or 1e-3.");
	token->type = TOKEN_NUMBER;
	token->end = s - lexer->source;
	token->text = pnstrdup(start, s - start);
}

static void
read_word(Lexer *lexer, ExprToken *token)
{
	const char *start = lexer->source + token->start;
	const char *s = start;

	while (starts_word(*s) || is_digit(*s))
		s++;
	token->type = TOKEN_WORD;
	token->end = s - lexer->source;
	token->text = pnstrdup(start, s - start);
}

static int
two_character_operator(const char *s)
{
	static const struct
	{
		const char *text;
		int			type;
	}			operators[] = {
		{"&&", TOKEN_AND},
		{"||", TOKEN_OR},
		{"==", TOKEN_EQUAL},
		{"!=", TOKEN_NOT_EQUAL},
		{"<>", TOKEN_NOT_EQUAL},
		{"<=", TOKEN_LESS_EQUAL},
		{">=", TOKEN_GREATER_EQUAL},
		{"**", TOKEN_ANY}
	};

	for (int i = 0; i < lengthof(operators); i++)
	{
		if (strncmp(s, operators[i].text, 2) == 0)
			return operators[i].type;
	}
	return 0;
}

static void
read_operator(Lexer *lexer, ExprToken *token)
{
	const char *s = lexer->source + token->start;

	token->type = two_character_operator(s);
	if (token->type != 0)
	{
		token->end = token->start + 2;
		return;
	}
	if (*s == '\'')
		lexer_error(lexer, token->start, "single quote",
					"Strings are written in double quotes.");
	if (s[0] == ':' && s[1] == ':')
		lexer_error(lexer, token->start, "cast",
					"Expressions have no casts; in sql write {{name}}::type.");
	if (*s == '=')
		lexer_error(lexer, token->start, "single =",
					"Equality is written ==.");
	if (*s == '&')
		lexer_error(lexer, token->start, "single &", "And is written &&.");
	if (strchr("$@.[]{}()?!<>+-*/%,|", *s) == NULL)
		lexer_error(lexer, token->start,
					psprintf("unexpected character \"%c\"", *s), NULL);
	token->type = *s;
	token->end = token->start + 1;
}

static void
read_token(Lexer *lexer, ExprToken *token)
{
	const char *s = lexer->source;
	char		c;

	while (s[lexer->pos] == ' ' || (s[lexer->pos] >= '\t' &&
									s[lexer->pos] <= '\r'))
		lexer->pos++;
	memset(token, 0, sizeof(ExprToken));
	token->start = token->end = lexer->pos;
	c = s[lexer->pos];
	if (c == '\0')
		token->type = TOKEN_END;
	else if (c == '"')
		read_string(lexer, token);
	else if (is_digit(c) || (c == '.' && is_digit(s[lexer->pos + 1])))
		read_number(lexer, token);
	else if (starts_word(c))
		read_word(lexer, token);
	else
		read_operator(lexer, token);
	lexer->pos = token->end;
}

/*
 * Cuts source, which begins on `line`, into tokens; the last one is
 * TOKEN_END and not counted.  Raises a syntax error that names the line.
 */
ExprToken *
expr_tokens(const char *source, int line, int *ntokens)
{
	Lexer		lexer = {source, line, 0};
	int			size = 16;
	int			n = 0;
	ExprToken  *tokens = palloc(size * sizeof(ExprToken));

	for (;;)
	{
		if (n == size)
		{
			size *= 2;
			tokens = repalloc(tokens, size * sizeof(ExprToken));
		}
		read_token(&lexer, &tokens[n]);
		if (tokens[n].type == TOKEN_END)
			break;
		n++;
	}
	*ntokens = n;
	return tokens;
}
