/*
 * exprtranslate.c
 *	  From the tokens of a parsed expression to what is evaluated: a jsonpath
 *	  and, for a simple path, the steps of a walk.
 */
#include "postgres.h"

#include "chain/exprparse.h"
#include "lib/stringinfo.h"
#include "utils/json.h"

/*
 * One name becomes $, the document that jsonpath looks into: it is not
 * copied then, as a variable has to be.  After `starts with` the grammar
 * knows variables only.
 */
static int
choose_root(int nnames, List *pinned)
{
	for (int i = 0; i < nnames; i++)
	{
		if (!list_member_int(pinned, i))
			return i;
	}
	return -1;
}

/* Every token with space around it: nothing can grow together. */
static char *
write_jsonpath(const char *source, const ExprToken *token, int root)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "strict");
	for (; token->type != TOKEN_END; token++)
	{
		appendStringInfoChar(&buf, ' ');
		if (token->role == ROLE_NAME && token->name == root)
			appendStringInfoChar(&buf, '$');
		else if (token->role == ROLE_NAME)
			appendStringInfo(&buf, "$\"%s\"", token->text);
		else if (token->role == ROLE_KEY || token->type == TOKEN_STRING)
			escape_json(&buf, token->text);
		else
			appendBinaryStringInfo(&buf, source + token->start,
								   token->end - token->start);
	}
	return buf.data;
}

/* An integer constant that fits; -1 when the token is anything else. */
static int
constant_index(const ExprToken *token)
{
	if (token->type != TOKEN_NUMBER || strlen(token->text) > 9 ||
		strspn(token->text, "0123456789") != strlen(token->text))
		return -1;
	return atoi(token->text);
}

/* Reads [*], [3], [last - 1] or [name + 1] behind the bracket. */
static const ExprToken *
read_simple_subscript(const ExprToken *token, ExprStep *step)
{
	int			sign;

	if (token->type == '*')
	{
		step->kind = STEP_ALL;
		return token + 1;
	}
	if (token->type == TOKEN_NUMBER)
	{
		step->kind = STEP_INDEX;
		step->offset = constant_index(token);
		return step->offset >= 0 ? token + 1 : NULL;
	}
	if (token->role == ROLE_NAME)
	{
		step->kind = STEP_NAME;
		step->name = token->name;
	}
	else if (expr_token_is(token, "last"))
		step->kind = STEP_LAST;
	else
		return NULL;
	token++;
	if (token->type != '+' && token->type != '-')
		return token;
	sign = token->type == '+' ? 1 : -1;
	step->offset = constant_index(token + 1);
	if (step->offset < 0)
		return NULL;
	step->offset *= sign;
	return token + 2;
}

/* The steps of `name(.key|[subscript])*`; NULL for any other form. */
static ExprSteps *
simple_steps(const ExprToken *token, int ntokens)
{
	ExprSteps  *steps;

	if (token->role != ROLE_NAME)
		return NULL;
	steps = palloc0(offsetof(ExprSteps, steps) + ntokens * sizeof(ExprStep));
	steps->name_end = token->end;
	token++;
	while (token->type != TOKEN_END)
	{
		ExprStep   *step = &steps->steps[steps->nsteps++];

		if (token->type == '.' && token[1].role == ROLE_KEY)
		{
			step->kind = STEP_KEY;
			step->key = token[1].text;
			step->keylen = strlen(step->key);
			token += 2;
		}
		else if (token->type == '[')
		{
			token = read_simple_subscript(token + 1, step);
			if (token == NULL || token->type != ']')
				return NULL;
			token++;
		}
		else
			return NULL;
		step->end = token[-1].end;
	}
	return steps;
}

/*
 * Fills result's root, steps and jsonpath from tokens whose roles the grammar
 * has set.  pinned: indexes of names that cannot be the root.
 */
void
expr_translate(const char *source, const ExprToken *tokens, int ntokens,
			   List *pinned, ExprParse *result)
{
	result->root = choose_root(result->nnames, pinned);
	result->steps = simple_steps(tokens, ntokens);
	result->jsonpath = write_jsonpath(source, tokens, result->root);
}
