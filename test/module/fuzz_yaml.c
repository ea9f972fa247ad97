/*
 * fuzz_yaml.c
 *	  Bodies of chains under mutation.
 *
 * Takes good bodies and nasty pieces apart and puts them together wrongly,
 * also with bytes that are no text.  What must hold: no crash (run it under
 * AddressSanitizer), every refusal begins with its line and is no internal
 * error, what is accepted becomes JSON or is refused as such, and libyaml's
 * memory is given back whatever happens.
 */
#include "postgres.h"

#include <malloc.h>

#include "chain/yaml.h"
#include "fmgr.h"
#include "fuzz.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(chaincall_test_fuzz_yaml);

#define MAX_BODY 8192
#define LEAK 4096			/* bytes; what is not lost varies by half as much */

static const char *const bodies[] = {
	"model: small\nprompt: \"Translate: {{text}}\"\n",
	"\nsteps:\n  intent:\n    model: small\n    prompt: |\n      What is this about? {{question}}\n    returns: {topic: [billing, technical, other]}\n"
	"  vector:\n    model: embed-small\n    input: \"{{question}}\"\n  hits:\n    sql: |\n      SELECT title, body FROM kb WHERE topic = {{intent.topic}}\n"
	"      ORDER BY embedding <=> {{vector}}::vector LIMIT 5\n  answer:\n    model: deepseek-chat\n    prompt: |\n      Answer from these articles only.\n"
	"      {{hits[*].body | default(\"(no article found)\")}}\n      Question: {{question}}\n",
	"output: {picture: \"{{styled}}\", copy: \"{{copy}}\"}\nsteps:\n  scene:\n    model: deepseek-chat\n    prompt: |\n      Describe one picture for this brief: {{brief}}\n"
	"  styled:\n    model: style-transfer\n    prompt: Redraw the first picture in the style of the second.\n    images: [\"{{image}}\", \"{{style}}\"]\n",
	"timeout: 300 ms\non_error:\n  value: {decision: review, why: \"{{error.class}}\"}\nsteps:\n  rules:\n"
	"    sql: SELECT coalesce(bool_or(blocks), false) AS block FROM rule_hits({{tx}})\n    returns: row\n  behaviour:\n    model: fraud-score\n"
	"    input: {amount: \"{{tx.amount}}\", card: \"{{tx.card}}\"}\n    returns: {score: real}\n    retry: 0\n    on_error: {value: {score: 0.5}}\n"
	"  decision:\n    switch:\n      - when: rules.block == true || behaviour.score >= 0.9\n        value: {decision: block, score: \"{{behaviour.score}}\"}\n"
	"      - value: {decision: allow}\n",
	"steps:\n  clauses:\n    function: chaincall.split_text\n    args: {text: \"{{document}}\", by: section}\n  summary:\n    each: clauses      # one call per clause\n"
	"    model: small\n    prompt: |\n      Summarise this clause:\n      {{item}}\n",
	"model: deepseek-chat\nsystem: You read contracts. What the text does not say is null.\nprompt: |\n  Extract the terms:\n  {{body}}\nreturns: contract_terms\nreask: 2\n",
	"model: deepseek-chat\ntools:\n  - {function: find_orders, args: {customer: \"{{customer}}\"}}      # fixed\n  - shop_policy\nmax_turns: 10\n",
	"output: \"{{best.draft}}\"\nsteps:\n  best:\n    until: review.score >= 8 || round == 3\n    output: {draft: \"{{draft}}\"}\n    steps:\n      review:\n        model: judge\n"
	"        prompt: |\n          Score from 1 to 10: {{draft}}\n        returns: {score: \"int, 1 to 10\", critique: text}\n",
	"messages:\n  - \"{{shots}}\"\n  - role: user\n    content:\n      - text: \"{{mail}}\"\n      - image: \"{{photo}}\"\nparams: {temperature: 0, max_tokens: 300}\n"
	"extra:\n  anthropic: {cache_control: {type: ephemeral}}\n",
	"{\"model\": \"small\", \"prompt\": \"a\\n\\u00e9\\\"\", \"params\": {\"temperature\": 1.5e-1, \"stop\": [\"x\", null, true]}}\n",
	"a: &x {b: 1}\nc: *x\nd: [*x, &y z, *y]\n? e\n: >-\n  folded\n  text\n\"f g\": 'it''s'\n",
	"a: |2-\n   x\n  y\n\nb: >+\n  c\n\n\nd: plain\n  text over\n\n  lines\n"
};

static const char *const pieces[] = {
	"{{", "}}", "{{x}}", " #", " # c", "#", "\t", " \t", "\n", "\r\n", "\r", "  ", "\n  ", "\n- ", "- ", ": ", ":", "? ", "&a ", "*a ", "&", "*", "!!str ", "!x ", "! ", "!<",
	"|", ">", "|\n", "|-\n", ">2\n", "|0\n", "[", "]", "{", "}", ",", ", ", "\"", "'", "\"\\", "\\u0000", "\\ud800", "\\x", "\\", "---\n", "...\n", "--- ", "%YAML 1.2\n---\n", "%TAG ! x\n",
	"%", "@", "`", "<<: ", "<<", "~", "null", "true", "0777", "1e999999", "-0", "1.5", ".", "prompt: ", "text: ", "sql: ", "prompt:", "\xC2\x85", "\xE2\x80\xA8", "\xEF\xBB\xBF", "\xFF", "\xC3", "\xED\xA0\x80",
	"\xF0\x9F\x98\x80", "\x01", "\x7F", "é", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "- - - - - - - - - - - - - - - - ", "{a: {a: {a: {a: ", "[*a, *a, *a, *a]"
};

/* AddressSanitizer's own count, where it is loaded: it has taken malloc over. */
extern size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static size_t
allocated_bytes(void)
{
	if (__sanitizer_get_current_allocated_bytes != NULL)
		return __sanitizer_get_current_allocated_bytes();
	return mallinfo2().uordblks;
}

static void
mutate(StringInfo body, pg_prng_state *random)
{
	const char *piece = pieces[fuzz_below(random, lengthof(pieces))];
	const char *other = bodies[fuzz_below(random, lengthof(bodies))];
	int			at = fuzz_below(random, body->len + 1);
	int			len = fuzz_below(random, Min(body->len - at, 64) + 1);
	int			from = fuzz_below(random, strlen(other));
	int			splice = fuzz_below(random, Min(strlen(other) - from, 200) + 1);

	switch (fuzz_below(random, 8))
	{
		case 0:
			fuzz_replace(body, at, len, "", 0);
			break;
		case 1:
			fuzz_replace(body, at, 0, body->data + at, len);
			break;
		case 2:
			fuzz_replace(body, at, len, piece, strlen(piece));
			break;
		case 3:
			fuzz_replace(body, at, 0, other + from, splice);
			break;
		case 4:
			if (at < body->len)
				body->data[at] = 1 + fuzz_below(random, fuzz_below(random, 8) == 0 ? 255 : 127);
			break;
		case 5:
			/* the end is where parsers look beyond */
			body->len = at;
			body->data[at] = '\0';
			break;
		default:
			fuzz_replace(body, at, 0, piece, strlen(piece));
			break;
	}
}

static char *
make_body(pg_prng_state *random)
{
	StringInfoData body;
	int			rounds = 1 + fuzz_below(random, 6);

	initStringInfo(&body);
	appendStringInfoString(&body, bodies[fuzz_below(random, lengthof(bodies))]);
	for (int i = 0; i < rounds; i++)
		mutate(&body, random);
	if (body.len > MAX_BODY)
		body.data[MAX_BODY] = '\0';
	return body.data;
}

static void
parse(void *body)
{
	(void) yaml_json(yaml_parse(body));
}

/*
 * Parses n bodies made of a seed and says how many were good.
 */
Datum
chaincall_test_fuzz_yaml(PG_FUNCTION_ARGS)
{
	int			n = PG_GETARG_INT32(1);
	pg_prng_state random;
	FuzzRun		run = {0};
	size_t		allocated = 0;

	pg_prng_seed(&random, PG_GETARG_INT32(0));
	fuzz_begin(&run);
	for (int i = 0; i < n; i++)
	{
		char	   *body = make_body(&random);

		/* the first ones fill what is kept for good */
		if (i == n / 2)
			allocated = allocated_bytes();
		fuzz_try(&run, parse, body, body, "line ");
		pfree(body);
	}
	if (n >= 20 && allocated_bytes() > allocated + LEAK)
		elog(ERROR, "%d bodies left " UINT64_FORMAT " bytes behind", n - n / 2,
			 (uint64) (allocated_bytes() - allocated));
	fuzz_end(&run);
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%d bodies: %d good, %d refused", n, run.good, run.refused)));
}
