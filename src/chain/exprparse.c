/*
 * exprparse.c
 *	  The grammar of expressions.
 *
 * jsonpath's grammar has the last word: what is written here goes through
 * jsonpath_in() afterwards.  It is parsed here first for three reasons: the
 * leading names must be found and become variables; a message has to show
 * the line and the source as written and say what to write instead (many
 * who write a condition think in SQL); and the answers to "does it give an
 * array", "is it a condition", "may it take long" must not depend on the
 * inner form of a jsonpath, which grows from version to version.
 *
 * Precedence, loosest first: || && ! comparison + - * / % sign accessor.
 */
#include "postgres.h"

#include "base/compat.h"
#include "chain/expression.h"
#include "chain/exprparse.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"

typedef struct Parser
{
	const char *source;
	int			line;
	ExprToken  *tokens;
	int			pos;
	int			filters;		/* filters around the current token */
	int			subscripts;		/* subscripts around it */
	List	   *pinned;			/* indexes of names that must be variables */
	ExprParse  *result;
} Parser;

/* What a piece of the expression gives. */
typedef struct Piece
{
	int			start;			/* its first token */
	bool		predicate;		/* a condition; else a value */
	bool		delimited;		/* a condition in ( ) or an exists( ) */
	bool		many;			/* a value: any number of items */
} Piece;

static const char *const keywords[] = {
	"true", "false", "null", "exists", "is", "last", "to", "strict", "lax",
	"like_regex", "starts", "with", "flag", "unknown"
};

/* Mean something wherever they are in scope, so nobody may define them. */
static const char *const scope_words[] = {"item", "index", "round", "error"};

static const char *const methods[] = {
	"type", "size", "double", "ceiling", "floor", "abs", "keyvalue",
	"datetime"
};

static Piece parse_or(Parser *parser);
static Piece parse_accessors(Parser *parser);

static bool
word_in(const char *word, const char *const *list, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (strcmp(word, list[i]) == 0)
			return true;
	}
	return false;
}

/* Has name the form that inputs and steps must have: [a-z_][a-z0-9_]*? */
bool
expr_name_valid(const char *name)
{
	if (!((*name >= 'a' && *name <= 'z') || *name == '_'))
		return false;
	for (; *name != '\0'; name++)
	{
		if (!((*name >= 'a' && *name <= 'z') || *name == '_' ||
			  (*name >= '0' && *name <= '9')))
			return false;
	}
	return true;
}

/*
 * May no input, step or `as` have this name?  True for the key words of
 * expressions and for item, index, round and error, which expressions may
 * use but nobody may define.
 */
bool
expr_name_reserved(const char *name)
{
	return word_in(name, keywords, lengthof(keywords)) ||
		word_in(name, scope_words, lengthof(scope_words));
}

static ExprToken *
peek(Parser *parser)
{
	return &parser->tokens[parser->pos];
}

static ExprToken *
advance(Parser *parser)
{
	return &parser->tokens[parser->pos++];
}

static void pg_attribute_noreturn()
parse_error(Parser *parser, const ExprToken *token, const char *problem,
			const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("line %d: %s in \"%s\"",
					expr_line_at(parser->source, parser->line, token->start),
					problem, expr_source_excerpt(parser->source)),
			 errhint("%s", hint ? hint : EXPR_HINT)));
}

static char *
token_text(Parser *parser, const ExprToken *token)
{
	if (token->type == TOKEN_END)
		return pstrdup("end");
	return psprintf("\"%s\"",
					expr_source_excerpt(pnstrdup(parser->source + token->start,
												 token->end - token->start)));
}

static char *
piece_text(Parser *parser, Piece piece)
{
	int			start = parser->tokens[piece.start].start;
	int			end = parser->tokens[parser->pos - 1].end;

	return expr_source_excerpt(pnstrdup(parser->source + start, end - start));
}

/* What somebody who thinks in SQL or another language should write here. */
static const char *
habit_hint(const ExprToken *token)
{
	static const struct
	{
		const char *word;
		const char *hint;
	}			habits[] = {
		{"and", "And is written &&."},
		{"or", "Or is written ||."},
		{"not", "Not is written !( ... )."},
		{"is", "Whether a value is null is asked with == null or != null."},
		{"in", "Write a == 1 || a == 2, or like_regex."},
		{"like", "Write starts with \"...\" or like_regex \"...\"."},
		{"ilike", "Write like_regex \"...\" flag \"i\"."},
		{"between", "Write a >= 1 && a <= 2."},
		{"startswith", "Write starts with \"...\"."}
	};

	if (token->type == '|')
		return "Filters belong into {{ }}; or is written ||.";
	if (token->type == '$')
		return "Names are written without $.";
	if (token->type == TOKEN_NUMBER)
		return "An element of an array is x[1], a key that is no name x.\"1\".";
	if (token->type == TOKEN_WORD)
	{
		for (int i = 0; i < lengthof(habits); i++)
		{
			if (pg_strcasecmp(token->text, habits[i].word) == 0)
				return habits[i].hint;
		}
	}
	return NULL;
}

static void pg_attribute_noreturn()
unexpected(Parser *parser, const char *wanted)
{
	ExprToken  *token = peek(parser);
	const char *hint = habit_hint(token);

	/* `not x` fails behind the word that is wrong */
	if (parser->pos > 0 && token[-1].type == TOKEN_WORD &&
		pg_strcasecmp(token[-1].text, "not") == 0)
		hint = habit_hint(token - 1);

	parse_error(parser, token,
				wanted ? psprintf("%s expected instead of %s", wanted,
								  token_text(parser, token)) :
				psprintf("unexpected %s", token_text(parser, token)), hint);
}

static bool
accept(Parser *parser, int type)
{
	if (peek(parser)->type != type)
		return false;
	parser->pos++;
	return true;
}

static void
expect(Parser *parser, int type, const char *wanted)
{
	if (!accept(parser, type))
		unexpected(parser, wanted);
}

/* Is token this key word?  In jsonpath capitals make no difference. */
bool
expr_token_is(const ExprToken *token, const char *word)
{
	return token->type == TOKEN_WORD && token->role == ROLE_PLAIN &&
		pg_strcasecmp(token->text, word) == 0;
}

static bool
accept_word(Parser *parser, const char *word)
{
	if (!expr_token_is(peek(parser), word))
		return false;
	parser->pos++;
	return true;
}

static void
require_value(Parser *parser, Piece piece)
{
	if (piece.predicate)
		parse_error(parser, &parser->tokens[piece.start],
					psprintf("a value expected, but \"%s\" is a condition",
							 piece_text(parser, piece)), NULL);
}

static void
require_predicate(Parser *parser, Piece piece)
{
	char	   *text;

	if (piece.predicate)
		return;
	text = piece_text(parser, piece);
	parse_error(parser, &parser->tokens[piece.start],
				psprintf("a condition expected, but \"%s\" is a value", text),
				psprintf("Compare it: %s == true, or %s != null.", text, text));
}

static int
name_index(ExprParse *result, const char *name)
{
	int			i;

	for (i = 0; i < result->nnames; i++)
	{
		if (strcmp(result->names[i], name) == 0)
			return i;
	}
	if (result->nnames == 0)
		result->names = palloc(sizeof(char *));
	else
		result->names = repalloc(result->names,
								 (result->nnames + 1) * sizeof(char *));
	result->names[result->nnames++] = name;
	return i;
}

static void pg_attribute_noreturn()
function_error(Parser *parser, ExprToken *token)
{
	const char *hint = habit_hint(token);

	if (hint == NULL && word_in(token->text, methods, lengthof(methods)))
		hint = psprintf("Methods follow what they are of: x.%s().",
						token->text);
	else if (hint == NULL)
		hint = "Expressions have no functions; use a filter, x | default(...), or a sql step.";
	parse_error(parser, token, psprintf("unknown function \"%s\"", token->text),
				hint);
}

static void
parse_name(Parser *parser)
{
	ExprToken  *token = advance(parser);

	if (!expr_name_valid(token->text))
	{
		if (pg_strcasecmp(token->text, "true") == 0 ||
			pg_strcasecmp(token->text, "false") == 0 ||
			pg_strcasecmp(token->text, "null") == 0)
			parse_error(parser, token,
						psprintf("unexpected \"%s\"", token->text),
						"true, false and null are written in lower case.");
		parse_error(parser, token,
					psprintf("\"%s\" is not a name", token->text),
					"Names consist of a to z, 0 to 9 and _; strings are quoted.");
	}
	if (peek(parser)->type == '(')
		function_error(parser, token);
	token->role = ROLE_NAME;
	token->name = name_index(parser->result, token->text);
}

static void
parse_keyword_operand(Parser *parser)
{
	ExprToken  *token = peek(parser);

	if (expr_token_is(token, "last"))
	{
		if (parser->subscripts == 0)
			parse_error(parser, token, "\"last\" outside of a subscript",
						"The last element of x is x[last].");
	}
	else if (expr_token_is(token, "strict") || expr_token_is(token, "lax"))
		parse_error(parser, token,
					psprintf("unexpected \"%s\"", token->text),
					"Expressions are always strict.");
	else if (strcmp(token->text, "true") != 0 &&
			 strcmp(token->text, "false") != 0 &&
			 strcmp(token->text, "null") != 0)
		unexpected(parser, "a value");
	parser->pos++;
}

static bool
is_keyword(const ExprToken *token)
{
	char		lower[16];

	if (token->type != TOKEN_WORD || token->end - token->start >= sizeof(lower))
		return false;
	for (int i = 0; i <= token->end - token->start; i++)
		lower[i] = pg_ascii_tolower((unsigned char) token->text[i]);
	if (strcmp(lower, "true") == 0 || strcmp(lower, "false") == 0 ||
		strcmp(lower, "null") == 0)
		return strcmp(lower, token->text) == 0;
	return word_in(lower, keywords, lengthof(keywords));
}

static Piece
parse_parenthesis(Parser *parser)
{
	int			start = parser->pos;
	Piece		piece;

	expect(parser, '(', "(");
	piece = parse_or(parser);
	expect(parser, ')', ")");
	piece.start = start;
	piece.delimited = piece.predicate;
	return piece;
}

static Piece
parse_exists(Parser *parser)
{
	Piece		piece = {parser->pos, true, true, false};
	Piece		inner;

	parser->pos++;
	expect(parser, '(', "(");
	inner = parse_or(parser);
	require_value(parser, inner);
	expect(parser, ')', ")");
	return piece;
}

static Piece
parse_primary(Parser *parser)
{
	ExprToken  *token = peek(parser);
	Piece		piece = {parser->pos, false, false, false};

	switch (token->type)
	{
		case '(':
			return parse_parenthesis(parser);
		case TOKEN_STRING:
		case TOKEN_NUMBER:
			parser->pos++;
			break;
		case '@':
			if (parser->filters == 0)
				parse_error(parser, token, "@ outside of a filter",
							"@ is the element that a filter ? ( ... ) looks at.");
			parser->pos++;
			break;
		case '$':
			parse_error(parser, token, "unexpected $",
						"Names are written without $.");
		case TOKEN_WORD:
			if (expr_token_is(token, "exists"))
				return parse_exists(parser);
			if (is_keyword(token))
				parse_keyword_operand(parser);
			else
				parse_name(parser);
			break;
		default:
			unexpected(parser, "a value");
	}
	return piece;
}

static void
parse_method(Parser *parser, Piece *piece)
{
	ExprToken  *token = advance(parser);

	if (!word_in(token->text, methods, lengthof(methods)))
		parse_error(parser, token,
					psprintf("unknown method \"%s()\"", token->text),
					"Methods are type, size, double, ceiling, floor, abs, keyvalue, datetime.");
	expect(parser, '(', "(");
	if (strcmp(token->text, "datetime") == 0)
		(void) accept(parser, TOKEN_STRING);
	expect(parser, ')', ")");
	if (strcmp(token->text, "keyvalue") == 0)
		piece->many = true;
}

static void
parse_level(Parser *parser)
{
	if (!accept_word(parser, "last"))
		expect(parser, TOKEN_NUMBER, "a level");
}

static void
parse_member(Parser *parser, Piece *piece)
{
	ExprToken  *token = peek(parser);

	if (accept(parser, '*'))
		piece->many = true;
	else if (accept(parser, TOKEN_ANY))
	{
		piece->many = true;
		parser->result->slow = true;
		if (accept(parser, '{'))
		{
			parse_level(parser);
			if (accept_word(parser, "to"))
				parse_level(parser);
			expect(parser, '}', "}");
		}
	}
	else if (token->type == TOKEN_WORD && token[1].type == '(')
		parse_method(parser, piece);
	else if (token->type == TOKEN_WORD || token->type == TOKEN_STRING)
	{
		token->role = ROLE_KEY;
		parser->pos++;
	}
	else if (token->type == '$')
		parse_error(parser, token, "unexpected $",
					"A key that is no name is quoted: x.\"$ref\".");
	else
		unexpected(parser, "a key");
}

static void
parse_subscripts(Parser *parser, Piece *piece)
{
	Piece		subscript;

	if (accept(parser, '*'))
	{
		piece->many = true;
		expect(parser, ']', "]");
		return;
	}
	if (peek(parser)->type == TOKEN_STRING && peek(parser)[1].type == ']')
		parse_error(parser, peek(parser), "string as a subscript",
					"A member of an object is x.\"key\".");
	parser->subscripts++;
	for (;;)
	{
		subscript = parse_or(parser);
		require_value(parser, subscript);
		if (accept_word(parser, "to"))
		{
			piece->many = true;
			subscript = parse_or(parser);
			require_value(parser, subscript);
		}
		if (!accept(parser, ','))
			break;
		piece->many = true;
	}
	parser->subscripts--;
	expect(parser, ']', "]");
}

static void
parse_filter(Parser *parser, Piece *piece)
{
	Piece		condition;

	expect(parser, '(', "(");
	parser->filters++;
	condition = parse_or(parser);
	require_predicate(parser, condition);
	parser->filters--;
	expect(parser, ')', ")");
	piece->many = true;
	parser->result->slow = true;
}

static void
chain_add_end(ExprChain *chain, int end)
{
	chain->ends = chain->nends == 0 ? palloc(sizeof(int)) :
		repalloc(chain->ends, (chain->nends + 1) * sizeof(int));
	chain->ends[chain->nends++] = end;
}

/* Chains outside of filters are kept: a message can show their values. */
static ExprChain *
begin_chain(Parser *parser, int start)
{
	ExprToken  *token = &parser->tokens[start];
	ExprChain  *chain;

	if (parser->filters > 0 ||
		(token->role != ROLE_NAME && token->type != '('))
		return NULL;
	chain = palloc0(sizeof(ExprChain));
	chain->start = token->start;
	chain_add_end(chain, parser->tokens[parser->pos - 1].end);
	return chain;
}

static bool
parse_accessor(Parser *parser, Piece *piece)
{
	if (accept(parser, '.'))
		parse_member(parser, piece);
	else if (accept(parser, '['))
		parse_subscripts(parser, piece);
	else if (accept(parser, '?'))
		parse_filter(parser, piece);
	else
		return false;
	return true;
}

static Piece
parse_accessors(Parser *parser)
{
	int			start = parser->pos;
	Piece		piece = parse_primary(parser);
	ExprChain  *chain = begin_chain(parser, start);
	int			naccessors = 0;

	if (parser->tokens[start].type == TOKEN_WORD &&
		expr_token_is(&parser->tokens[start], "exists"))
		return piece;
	while (parse_accessor(parser, &piece))
	{
		naccessors++;
		if (chain)
			chain_add_end(chain, parser->tokens[parser->pos - 1].end);
	}
	if (naccessors > 0)
		piece.predicate = piece.delimited = false;
	if (chain && (naccessors > 0 || parser->tokens[start].type != '('))
		parser->result->chains = lappend(parser->result->chains, chain);
	return piece;
}

static Piece
parse_sign(Parser *parser)
{
	int			start = parser->pos;
	Piece		piece;

	check_stack_depth();
	if (!accept(parser, '+') && !accept(parser, '-'))
		return parse_accessors(parser);
	piece = parse_sign(parser);
	require_value(parser, piece);
	piece.start = start;
	return piece;
}

static Piece
parse_product(Parser *parser)
{
	Piece		piece = parse_sign(parser);

	for (;;)
	{
		int			type = peek(parser)->type;
		Piece		right;

		if (type != '*' && type != '/' && type != '%')
			return piece;
		require_value(parser, piece);
		parser->pos++;
		right = parse_sign(parser);
		require_value(parser, right);
		piece.many = false;
		/* numbers may have a hundred thousand digits */
		parser->result->slow = true;
	}
}

static Piece
parse_sum(Parser *parser)
{
	Piece		piece = parse_product(parser);

	for (;;)
	{
		Piece		right;

		if (peek(parser)->type != '+' && peek(parser)->type != '-')
			return piece;
		require_value(parser, piece);
		parser->pos++;
		right = parse_product(parser);
		require_value(parser, right);
		piece.many = false;
	}
}

static bool
is_comparison(int type)
{
	return type == TOKEN_EQUAL || type == TOKEN_NOT_EQUAL || type == '<' ||
		type == '>' || type == TOKEN_LESS_EQUAL || type == TOKEN_GREATER_EQUAL;
}

static void
parse_starts_with(Parser *parser)
{
	ExprToken  *token;

	if (!accept_word(parser, "with"))
		unexpected(parser, "with");
	token = peek(parser);
	if (token->type == TOKEN_WORD && !is_keyword(token))
	{
		parse_name(parser);
		parser->pinned = lappend_int(parser->pinned, token->name);
		if (peek(parser)->type == '.' || peek(parser)->type == '[')
			parse_error(parser, peek(parser),
						"starts with takes a string or a bare name",
						"Give the value a name of its own with a value step.");
	}
	else
		expect(parser, TOKEN_STRING, "a string or a name");
}

static void
parse_like_regex(Parser *parser)
{
	expect(parser, TOKEN_STRING, "a string");
	if (accept_word(parser, "flag"))
		expect(parser, TOKEN_STRING, "a string");
	parser->result->slow = true;
}

static Piece
parse_comparison(Parser *parser)
{
	Piece		piece = parse_sum(parser);
	ExprToken  *token = peek(parser);

	if (is_comparison(token->type))
	{
		Piece		right;

		require_value(parser, piece);
		parser->pos++;
		right = parse_sum(parser);
		require_value(parser, right);
		/* every item of one side meets every item of the other */
		if (piece.many && right.many)
			parser->result->slow = true;
		if (is_comparison(peek(parser)->type))
			parse_error(parser, peek(parser), "chained comparison",
						"Join two comparisons with &&.");
	}
	else if (expr_token_is(token, "starts"))
	{
		require_value(parser, piece);
		parser->pos++;
		parse_starts_with(parser);
	}
	else if (expr_token_is(token, "like_regex"))
	{
		require_value(parser, piece);
		parser->pos++;
		parse_like_regex(parser);
	}
	else if (expr_token_is(token, "is") && piece.delimited)
	{
		parser->pos++;
		if (!accept_word(parser, "unknown"))
			unexpected(parser, "unknown");
	}
	else
		return piece;
	piece.predicate = true;
	piece.delimited = piece.many = false;
	return piece;
}

static Piece
parse_not(Parser *parser)
{
	Piece		piece = {parser->pos, true, false, false};
	Piece		inner;

	check_stack_depth();
	if (!accept(parser, '!'))
		return parse_comparison(parser);
	if (expr_token_is(peek(parser), "exists"))
		(void) parse_exists(parser);
	else if (peek(parser)->type == '(')
	{
		inner = parse_parenthesis(parser);
		require_predicate(parser, inner);
	}
	else
		parse_error(parser, peek(parser), "! without parentheses",
					"Write !( condition ).");
	return piece;
}

static Piece
parse_and(Parser *parser)
{
	Piece		piece = parse_not(parser);

	while (peek(parser)->type == TOKEN_AND)
	{
		Piece		right;

		require_predicate(parser, piece);
		parser->pos++;
		right = parse_not(parser);
		require_predicate(parser, right);
		piece.delimited = false;
	}
	return piece;
}

static Piece
parse_or(Parser *parser)
{
	Piece		piece = parse_and(parser);

	while (peek(parser)->type == TOKEN_OR)
	{
		Piece		right;

		require_predicate(parser, piece);
		parser->pos++;
		right = parse_and(parser);
		require_predicate(parser, right);
		piece.delimited = false;
	}
	return piece;
}

/*
 * Parses one expression that begins on `line`.  Raises ERRCODE_SYNTAX_ERROR,
 * "line N: ...".  Whether jsonpath accepts what is inside its strings
 * (regular expressions, their flags) and its numbers remains to be asked.
 */
ExprParse *
expr_parse(const char *source, int line)
{
	ExprParse  *result = palloc0(sizeof(ExprParse));
	Parser		parser = {0};
	int			ntokens;
	Piece		piece;

	parser.source = source;
	parser.line = line;
	parser.result = result;
	parser.tokens = expr_tokens(source, line, &ntokens);
	if (ntokens == 0)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line %d: empty expression", line),
				 errhint(EXPR_HINT)));
	piece = parse_or(&parser);
	if (peek(&parser)->type != TOKEN_END)
		unexpected(&parser, NULL);
	result->many = piece.many;
	result->predicate = piece.predicate;
	expr_translate(source, parser.tokens, ntokens, parser.pinned, result);
	return result;
}
