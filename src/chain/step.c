/*
 * step.c
 *	  First pass of compilation: the keys of a YAML map become a Step.
 *
 * A step has exactly one kind and any modifiers (LANGUAGE.md).  Here only the
 * form is judged: which keys there are and what each holds.  What names mean
 * is resolve.c's business, what exists in the database bind.c's.
 */
#include "postgres.h"

#include "base/error.h"
#include "chain/definition.h"
#include "chain/hole.h"
#include "datatype/timestamp.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#define MAX_STEP_NESTING 50

/* Of an interval: 100 years, which as microseconds stays far from overflow. */
#define LONGEST_MS (100 * 365.25 * 24 * 3600 * 1000)

static const struct
{
	const char *key;
	StepKind	kind;
	const char *const *own;
}			kinds[] =
{
	{"model", STEP_MODEL, (const char *const[])
	{
		"prompt", "messages", "input", "request", "system", "images",
		"params", "extra", "returns", "schema", "reask", "tools",
		"max_turns", "fallback", "cache", "stream", NULL
	}},
	{"sql", STEP_SQL, (const char *const[]) {"returns", NULL}},
	{"function", STEP_FUNCTION, (const char *const[]) {"args", NULL}},
	{"steps", STEP_BLOCK, (const char *const[]) {"output", NULL}},
	{"switch", STEP_SWITCH, (const char *const[]) {NULL}},
	{"value", STEP_VALUE, (const char *const[]) {NULL}},
	{"wait", STEP_WAIT, (const char *const[]) {NULL}},
	{"ask", STEP_ASK, (const char *const[]) {"show", "to", "returns", NULL}},
};

static const char *const modifiers[] = {
	"when", "each", "as", "max_parallel", "until", "max", "after",
	"timeout", "retry", "on_error", NULL
};

static const char *const later[] = {
	"tools", "max_turns", "images", "cache", "stream", NULL
};

static Step *parse_step(Definition *definition, YamlNode *node,
						const char *name, int depth);

static bool
listed(const char *word, const char *const *list)
{
	for (int i = 0; list[i] != NULL; i++)
	{
		if (strcmp(word, list[i]) == 0)
			return true;
	}
	return false;
}

/*
 * Checks that map has only known keys (a NULL-terminated list); what names
 * the map in the message.
 */
void
step_check_keys(const YamlNode *map, const char *const *known,
				const char *what)
{
	for (int i = 0; i < map->count; i++)
	{
		StringInfoData hint;
		const char *nearest;

		if (listed(map->keys[i], known))
			continue;
		initStringInfo(&hint);
		nearest = yaml_nearest(map->keys[i], known);
		if (nearest != NULL)
			appendStringInfo(&hint, "Did you mean \"%s\"?", nearest);
		else
		{
			appendStringInfoString(&hint, "Known keys are ");
			for (int k = 0; known[k] != NULL; k++)
				appendStringInfo(&hint, "%s%s", k ? ", " : "", known[k]);
			appendStringInfoChar(&hint, '.');
		}
		definition_error(map->key_lines[i], ERRCODE_SYNTAX_ERROR, hint.data,
						 "unknown key \"%s\" in %s", map->keys[i], what);
	}
}

/* The source text of a scalar; raises when node is none or empty. */
const char *
step_text(const YamlNode *node, const char *key)
{
	if (node->type == YAML_MAP || node->type == YAML_LIST)
		definition_error(node->line, ERRCODE_SYNTAX_ERROR,
						 "Quote the text, or write it as a block behind \"|\".",
						 "\"%s\" takes a text, not a %s", key,
						 yaml_type_name(node));
	if (node->text == NULL || (node->plain && node->text[0] == '\0'))
		definition_error(node->line, ERRCODE_SYNTAX_ERROR,
						 "Write the value behind the colon, or leave the key out.",
						 "\"%s\" is empty", key);
	return node->text;
}

/* A whole number of at least `least`. */
int64
step_count(const YamlNode *node, const char *key, int64 least)
{
	char	   *end;
	long long	value;

	errno = 0;
	value = node->type == YAML_NUMBER ? strtoll(node->text, &end, 10) : 0;
	if (node->type != YAML_NUMBER || *end != '\0' || errno != 0 ||
		value < least || value > PG_INT32_MAX)
		definition_error(node->line, ERRCODE_SYNTAX_ERROR,
						 psprintf("Write a whole number of at least %lld.",
								  (long long) least),
						 "\"%s\" is not a valid number", key);
	return value;
}

/* An interval in milliseconds, more than none. */
static int64
parse_interval(const YamlNode *node, const char *key)
{
	const char *text = step_text(node, key);
	MemoryContext cxt = CurrentMemoryContext;
	volatile double ms = 0;

	if (node->type == YAML_NUMBER ||
		(*text != '\0' && strspn(text, "0123456789. ") == strlen(text)))
		definition_error(node->line, ERRCODE_SYNTAX_ERROR,
						 psprintf("Write the unit: %s: %s ms, or %s s", key, text,
								  text),
						 "\"%s\" is a number without a unit", key);
	PG_TRY();
	{
		Interval   *interval;

		interval = DatumGetIntervalP(DirectFunctionCall3(interval_in,
														 CStringGetDatum(text),
														 ObjectIdGetDatum(InvalidOid),
														 Int32GetDatum(-1)));
		/* infinite ones are made of the largest numbers there are */
		ms = ((double) interval->time +
			  (double) interval->day * USECS_PER_DAY +
			  (double) interval->month * DAYS_PER_MONTH * USECS_PER_DAY) / 1000;
	}
	PG_CATCH();
	{
		/* goes on as an error in any case, so nothing needs undoing */
		MemoryContextSwitchTo(cxt);
		FlushErrorState();
		ms = 0;
	}
	PG_END_TRY();
	if (ms < 1)
		definition_error(node->line, ERRCODE_SYNTAX_ERROR,
						 "Write it like \"300 ms\" or \"2 min\".",
						 "\"%s\" is not an interval of at least 1 ms", key);
	if (ms > LONGEST_MS)
		definition_error(node->line, ERRCODE_SYNTAX_ERROR,
						 "Leave it out for no bound.",
						 "\"%s\" is longer than 100 years", key);
	return (int64) ms;
}

/* `retry`: repetitions, or {attempts, first, factor, max}. */
static RetryPolicy *
parse_retry(const YamlNode *node)
{
	static const char *const known[] = {"attempts", "first", "factor", "max",
	NULL};
	RetryPolicy *policy = palloc(sizeof(RetryPolicy));
	YamlNode   *part;

	*policy = (RetryPolicy) RETRY_DEFAULT;
	if (node->type != YAML_MAP)
	{
		policy->attempts = 1 + (int) Min(step_count(node, "retry", 0), 1000);
		return policy;
	}
	step_check_keys(node, known, "\"retry\"");
	if ((part = yaml_get(node, "attempts")) != NULL)
		policy->attempts = (int) step_count(part, "attempts", 1);
	if ((part = yaml_get(node, "first")) != NULL)
		policy->first_ms = parse_interval(part, "first");
	if ((part = yaml_get(node, "max")) != NULL)
		policy->max_ms = parse_interval(part, "max");
	if ((part = yaml_get(node, "factor")) != NULL)
	{
		policy->factor = part->type == YAML_NUMBER ? atof(part->text) : 0;
		if (!(policy->factor >= 1 && policy->factor <= 1000))
			definition_error(part->line, ERRCODE_SYNTAX_ERROR,
							 "Write a number from 1 to 1000.",
							 "\"factor\" is out of range");
	}
	return policy;
}

/* The text of a bare expression. */
static const char *
expression_text(const YamlNode *node, const char *key)
{
	const char *text;

	if (node->type == YAML_LIST || node->type == YAML_MAP)
		definition_error(node->line, ERRCODE_SYNTAX_ERROR,
						 "Name what holds it: an argument, or a value step.",
						 "\"%s\" takes an expression, not a %s", key,
						 yaml_type_name(node));
	text = step_text(node, key);
	if (strstr(text, "{{") != NULL)
		definition_error(node->line, ERRCODE_SYNTAX_ERROR,
						 psprintf("Write it bare: %s: rules.points > 3", key),
						 "\"%s\" takes an expression, without {{ }}", key);
	return text;
}

static Expression *
parse_expression(const YamlNode *node, const char *key)
{
	return expr_compile(expression_text(node, key), node->text_line);
}

static TemplateHole *
parse_each(const YamlNode *node)
{
	const char *text = expression_text(node, "each");

	return hole_compile(text, strlen(text), node->text_line);
}

static List *
parse_names(const YamlNode *node, const char *key)
{
	List	   *names = NIL;

	if (node->type != YAML_LIST)
		return list_make1(unconstify(char *, step_text(node, key)));
	for (int i = 0; i < node->count; i++)
		names = lappend(names,
						unconstify(char *, step_text(node->items[i], key)));
	return names;
}

/* Names that people give: of steps, and by `as`. */
static void
check_name(const char *name, int line, const char *what)
{
	if (!expr_name_valid(name))
		definition_error(line, ERRCODE_INVALID_NAME,
						 "Names are lower-case letters, digits and _, and begin with a letter or _.",
						 "invalid name \"%s\" of %s", name, what);
	if (expr_name_reserved(name))
		definition_error(line, ERRCODE_RESERVED_NAME,
						 "Choose another name.",
						 "\"%s\" is a reserved word of the language", name);
}

static void
parse_on_error(Step *step, YamlNode *node, int depth)
{
	if (node->type == YAML_MAP)
	{
		step->on_error = ON_ERROR_STEP;
		step->handler = parse_step(step->definition, node, NULL, depth + 1);
	}
	else if (node->type == YAML_STRING && strcmp(node->text, "skip") == 0)
		step->on_error = ON_ERROR_SKIP;
	else if (node->type == YAML_STRING && strcmp(node->text, "fail") == 0)
		step->on_error = ON_ERROR_FAIL;
	else
		definition_error(node->line, ERRCODE_SYNTAX_ERROR,
						 "Write fail, skip, or a step that runs instead: on_error: {value: 0}",
						 "\"on_error\" is neither fail, skip nor a step");
}

static void
parse_modifiers(Step *step, const YamlNode *node, int depth)
{
	YamlNode   *part;

	if ((part = yaml_get(node, "when")) != NULL)
		step->when = parse_expression(part, "when");
	if ((part = yaml_get(node, "each")) != NULL)
		step->each = parse_each(part);
	if ((part = yaml_get(node, "as")) != NULL)
	{
		step->as = step_text(part, "as");
		step->as_line = part->line;
		check_name(step->as, part->line, "\"as\"");
	}
	if ((part = yaml_get(node, "max_parallel")) != NULL)
		step->max_parallel = (int) step_count(part, "max_parallel", 1);
	if ((step->as || step->max_parallel) && step->each == NULL)
		definition_error(yaml_get(node, step->as ? "as" : "max_parallel")->line,
						 ERRCODE_SYNTAX_ERROR,
						 "Add \"each\", or leave it out.",
						 "\"%s\" goes with \"each\"",
						 step->as ? "as" : "max_parallel");
	if ((part = yaml_get(node, "until")) != NULL)
		step->until = parse_expression(part, "until");
	step->max = 10;
	if ((part = yaml_get(node, "max")) != NULL)
	{
		if (step->until == NULL)
			definition_error(part->line, ERRCODE_SYNTAX_ERROR,
							 "Add \"until\", or leave \"max\" out.",
							 "\"max\" goes with \"until\"");
		step->max = (int) step_count(part, "max", 1);
	}
	if ((part = yaml_get(node, "after")) != NULL)
	{
		step->after = parse_names(part, "after");
		step->after_line = part->line;
	}
	if ((part = yaml_get(node, "timeout")) != NULL)
		step->timeout_ms = parse_interval(part, "timeout");
	if ((part = yaml_get(node, "retry")) != NULL)
	{
		if (step->kind != STEP_MODEL && step->kind != STEP_SQL &&
			step->kind != STEP_FUNCTION)
			definition_error(part->line, ERRCODE_SYNTAX_ERROR,
							 "Give it to the steps inside, or repeat with \"until\".",
							 "\"retry\" goes with model, sql and function steps");
		step->retry = parse_retry(part);
	}
	if ((part = yaml_get(node, "on_error")) != NULL)
		parse_on_error(step, part, depth);
}

/* Which kind the step is: exactly one of the kinds' keys must be there. */
static int
find_kind(const YamlNode *node)
{
	int			found = -1;

	for (int i = 0; i < lengthof(kinds); i++)
	{
		if (yaml_get(node, kinds[i].key) == NULL)
			continue;
		if (found >= 0)
			definition_error(node->line, ERRCODE_SYNTAX_ERROR,
							 "A step has exactly one kind; make two steps of it.",
							 "step is both \"%s\" and \"%s\"",
							 kinds[found].key, kinds[i].key);
		found = i;
	}
	return found;
}

static void
check_step_keys(const YamlNode *node, int kind)
{
	const char *known[lengthof(kinds) + lengthof(modifiers) + 24];
	int			n = 0;

	for (int i = 0; i < node->count; i++)
	{
		if (listed(node->keys[i], later))
			definition_error(node->key_lines[i], ERRCODE_FEATURE_NOT_SUPPORTED,
							 "A later version will know it.",
							 "\"%s\" is not yet supported", node->keys[i]);
	}
	if (kind < 0)
	{
		for (int i = 0; i < lengthof(kinds); i++)
		{
			known[n++] = kinds[i].key;
			for (int k = 0; kinds[i].own[k] != NULL && n < lengthof(known) - lengthof(modifiers); k++)
			{
				if (i != 0)
					known[n++] = kinds[i].own[k];
			}
		}
	}
	else
	{
		known[n++] = kinds[kind].key;
		for (int k = 0; kinds[kind].own[k] != NULL; k++)
			known[n++] = kinds[kind].own[k];
	}
	for (int i = 0; modifiers[i] != NULL; i++)
		known[n++] = modifiers[i];
	known[n] = NULL;

	if (kind >= 0)
	{
		step_check_keys(node, known,
						psprintf("%s %s step",
								 kinds[kind].kind == STEP_ASK ? "an" : "a",
								 strcmp(kinds[kind].key, "steps") == 0 ?
								 "block" : kinds[kind].key));
		return;
	}
	for (int i = 0; i < node->count; i++)
	{
		const char *nearest = listed(node->keys[i], known) ? NULL :
			yaml_nearest(node->keys[i], known);

		if (nearest != NULL)
			definition_error(node->key_lines[i], ERRCODE_SYNTAX_ERROR,
							 psprintf("Did you mean \"%s\"?", nearest),
							 "unknown key \"%s\" in a step", node->keys[i]);
	}
	definition_error(node->line, ERRCODE_SYNTAX_ERROR,
					 "Give it one of model, sql, function, steps, switch, value, wait or ask.",
					 "step has no kind");
}

static void
parse_sql_step(Step *step, const YamlNode *node)
{
	const YamlNode *text = yaml_get(node, "sql");
	const YamlNode *returns = yaml_get(node, "returns");

	step->sql = palloc0(sizeof(SqlStep));
	step->sql->text = sql_template_compile(step_text(text, "sql"),
										   text->text_line);
	if (returns == NULL)
		return;
	if (returns->type == YAML_STRING && strcmp(returns->text, "rows") == 0)
		step->sql->returns = RETURNS_ROWS;
	else if (returns->type == YAML_STRING && strcmp(returns->text, "row") == 0)
		step->sql->returns = RETURNS_ROW;
	else if (returns->type == YAML_STRING && strcmp(returns->text, "value") == 0)
		step->sql->returns = RETURNS_VALUE;
	else
		definition_error(returns->line, ERRCODE_SYNTAX_ERROR,
						 "Write rows, row or value.",
						 "\"returns\" of a sql step is not one of rows, row, value");
}

static void
parse_function_step(Step *step, const YamlNode *node)
{
	FunctionStep *function = palloc0(sizeof(FunctionStep));
	const YamlNode *name = yaml_get(node, "function");
	const YamlNode *args = yaml_get(node, "args");

	step->function = function;
	function->name = step_text(name, "function");
	function->line = name->line;
	if (args == NULL || args->type == YAML_NULL)
		return;
	if (args->type != YAML_MAP)
		definition_error(args->line, ERRCODE_SYNTAX_ERROR,
						 "Arguments are given by name: args: {text: \"{{document}}\"}",
						 "\"args\" takes a map, not a %s",
						 yaml_type_name(args));
	function->nargs = args->count;
	function->arg_names = args->keys;
	function->arg_lines = args->key_lines;
	function->args = palloc(args->count * sizeof(JsonTemplate *));
	for (int i = 0; i < args->count; i++)
		function->args[i] = json_template_compile(args->items[i]);
}

static void
parse_wait_step(Step *step, const YamlNode *node)
{
	const YamlNode *wait = yaml_get(node, "wait");
	Template   *text = template_compile(step_text(wait, "wait"),
										wait->text_line);

	step->wait = palloc0(sizeof(WaitStep));
	if (template_is_constant(text))
		step->wait->ms = parse_interval(wait, "wait");
	else
		step->wait->text = text;
}

static void
parse_block(Step *step, const YamlNode *node, int depth)
{
	const YamlNode *steps = yaml_get(node, "steps");
	const YamlNode *output = yaml_get(node, "output");

	if (steps->type != YAML_MAP || steps->count == 0)
		definition_error(steps->line, ERRCODE_SYNTAX_ERROR,
						 "Write \"name:\" and below it, indented, the step.",
						 "\"steps\" takes a map of named steps");
	step->nsteps = steps->count;
	step->steps = palloc(steps->count * sizeof(Step *));
	for (int i = 0; i < steps->count; i++)
	{
		check_name(steps->keys[i], steps->key_lines[i], "a step");
		step->steps[i] = parse_step(step->definition, steps->items[i],
									steps->keys[i], depth + 1);
		step->steps[i]->line = steps->key_lines[i];
		step->steps[i]->block = step;
		step->steps[i]->slot = i;
	}
	if (output != NULL)
		step->output = json_template_compile(output);
}

static void
parse_switch(Step *step, const YamlNode *node, int depth)
{
	const YamlNode *arms = yaml_get(node, "switch");

	if (arms->type != YAML_LIST || arms->count == 0)
		definition_error(arms->line, ERRCODE_SYNTAX_ERROR,
						 "Write a list of steps, each with \"when\"; one without is the else.",
						 "\"switch\" takes a list of steps");
	step->nsteps = arms->count;
	step->steps = palloc(arms->count * sizeof(Step *));
	for (int i = 0; i < arms->count; i++)
	{
		step->steps[i] = parse_step(step->definition, arms->items[i], NULL,
									depth + 1);
		if (step->steps[i]->when == NULL && i + 1 < arms->count)
			definition_error(arms->items[i]->line, ERRCODE_SYNTAX_ERROR,
							 "Put the arm without \"when\" last.",
							 "the arms behind one without \"when\" never run");
	}
}

static void
step_context(void *arg)
{
	const char *name = arg;

	if (name != NULL)
		errcontext("step \"%s\"", name);
}

static Step *
parse_step(Definition *definition, YamlNode *node, const char *name,
		   int depth)
{
	Step	   *step;
	int			kind;
	ErrorContextCallback context;

	context.callback = step_context;
	context.arg = unconstify(char *, name);
	context.previous = error_context_stack;
	error_context_stack = &context;

	if (depth > MAX_STEP_NESTING)
		definition_error(node->line, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
						 "Make a chain of its own of the inner steps.",
						 "steps are nested more than %d deep",
						 MAX_STEP_NESTING);
	if (node->type != YAML_MAP)
		definition_error(node->line, ERRCODE_SYNTAX_ERROR,
						 "A step is a map with one of model, sql, function, steps, switch, value, wait or ask.",
						 "a step must be a map, not a %s",
						 yaml_type_name(node));

	kind = find_kind(node);
	check_step_keys(node, kind);
	step = palloc0(sizeof(Step));
	step->definition = definition;
	step->name = name;
	step->line = node->line;
	step->kind = kinds[kind].kind;
	step->slot = -1;
	step->sink = -1;
	parse_modifiers(step, node, depth);

	switch (step->kind)
	{
		case STEP_MODEL:
			step->model = model_step_parse(definition, node, step->line);
			break;
		case STEP_SQL:
			parse_sql_step(step, node);
			break;
		case STEP_FUNCTION:
			parse_function_step(step, node);
			break;
		case STEP_BLOCK:
			parse_block(step, node, depth);
			break;
		case STEP_SWITCH:
			parse_switch(step, node, depth);
			break;
		case STEP_VALUE:
			step->value = json_template_compile(yaml_get(node, "value"));
			break;
		case STEP_WAIT:
			parse_wait_step(step, node);
			break;
		case STEP_ASK:
			step->ask = ask_step_parse(definition, node);
			break;
	}
	error_context_stack = context.previous;
	return step;
}

/* Parses the body of a chain: one step without a name. */
Step *
step_parse_body(Definition *definition, YamlNode *node)
{
	return parse_step(definition, node, NULL, 0);
}
