/*
 * label.c: the model `labels`, which fills a JSON schema from a text.
 *
 * Each field looks for a value of its kind near the words of its name and
 * description: the number nearest to "amount", the date nearest to a word that
 * goes with "ends", the label whose words the text has most of. What the
 * schema demands is kept whatever the text says: a field that finds nothing is
 * null where it may be, left out where it may be, else a plain value within
 * its limits. (Not kept: dependentRequired, if/then/else, not.)
 */
#include "label.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_TEXT   (64 * 1024)
#define MAX_DEPTH  40
#define MAX_NODES  5000
#define TEXT_DEPTH 12 /* deeper than this, and after MAX_WORK, fields are filled without the text */
#define MAX_WORK   2000000
#define MAX_ITEMS  20

static json_t *fill(Filler *f, const json_t *schema, const char *name, Scope scope, bool *found);

/* How much of two words' three-letter pieces is the same: 0 … 1. */
static double
likeness(const char *a, size_t la, const char *b, size_t lb)
{
	int			same = 0;

	if (la < 3 || lb < 3 || la > 40 || lb > 40)
		return 0;
	for (size_t i = 0; i + 3 <= la; i++)
		for (size_t k = 0; k + 3 <= lb; k++)
			if (strncasecmp(a + i, b + k, 3) == 0)
			{
				same++;
				break;
			}
	return 2.0 * same / (double) (la + lb - 4);
}

/* How much the scope speaks of a label. */
static double
label_score(const Filler *f, const char *label, Scope scope)
{
	Terms		terms = {.name = label};
	double		score = 0;

	schema_add_terms(&terms, label);
	terms.own = terms.n;
	for (int w = scope.lo; w < scope.hi; w++)
	{
		const Word *word = &f->text.words[w];
		double		weight = value_term_weight(&terms, word);
		double		like = weight == 0 && !word->stop ? likeness(label, strlen(label), f->s + word->off, word->len) : 0;

		score += weight >= 1 ? 3 : weight > 0 ? 1
							   : like > 0.5	  ? like
											  : 0;
	}
	return score;
}

/* Has the array this value already? */
static bool
has_item(const json_t *array, const json_t *value)
{
	size_t		i;
	json_t	   *item;

	json_array_foreach(array, i, item) if (json_equal(item, value)) return true;
	return false;
}

static json_t *
fill_enum(Filler *f, const json_t *choices, Scope scope, bool *found)
{
	static const char *const others[] = {"other", "unknown", "none", "neutral", "general", NULL};
	const json_t *best = NULL;
	double		best_score = 0;
	size_t		i;
	json_t	   *choice;

	json_array_foreach(choices, i, choice)
	{
		double		score = 0;

		if (json_is_string(choice))
			score = label_score(f, json_string_value(choice), scope);
		else if (json_is_number(choice))
			for (int k = 0; k < f->found.n; k++)
				score += f->found.items[k].kind == FOUND_NUMBER && f->found.items[k].word >= scope.lo &&
						 f->found.items[k].word < scope.hi && f->found.items[k].number == json_number_value(choice);
		if (score > best_score)
		{
			best_score = score;
			best = choice;
		}
	}
	*found = best != NULL;
	for (const char *const *other = others; best == NULL && *other; other++)
		json_array_foreach(choices, i, choice) if (best == NULL && json_is_string(choice) && strcasecmp(json_string_value(choice), *other) == 0)
			best = choice;
	if (best == NULL && has_item(choices, json_null()))
		best = json_null();
	if (best == NULL)
		best = json_array_get(choices, 0);
	return json_deep_copy(best);
}

/* Append unless it is there already and may not be twice. */
static void
append_item(json_t *array, json_t *value, bool unique)
{
	if (value && !(unique && has_item(array, value)))
		json_array_append_new(array, value);
	else
		json_decref(value);
}

/* Where the line or sentence that starts at word w ends. */
static int
segment_end(const Filler *f, Scope scope, int w, bool lines)
{
	int			end = w + 1;

	while (end < scope.hi)
	{
		size_t		gap = f->text.words[end - 1].off + f->text.words[end - 1].len;
		bool		line = memchr(f->s + gap, '\n', f->text.words[end].off - gap) != NULL;

		if (lines ? line : f->text.words[end].sentence != f->text.words[w].sentence)
			break;
		end++;
	}
	return end;
}

/* One item for each line (or sentence, in a text of one line) that has something to fill it with. */
static void
fill_segments(Filler *f, json_t *array, const json_t *items, const char *name, Scope scope, size_t max, bool unique)
{
	size_t		len;
	const char *s = value_scope_text(f, scope, &len);
	bool		lines = memchr(s, '\n', len) != NULL;

	for (int w = scope.lo; w < scope.hi && json_array_size(array) < max;)
	{
		Scope		part = {w, segment_end(f, scope, w, lines)};
		bool		found = false;
		json_t	   *item = fill(f, items, name, part, &found);

		append_item(array, found ? item : NULL, unique);
		if (!found)
			json_decref(item);
		w = part.hi;
	}
}

/* The key phrases of the scope as texts. */
static void
fill_phrases(Filler *f, json_t *array, const json_t *items, Scope scope, size_t max, bool unique)
{
	size_t		len;
	const char *s = value_scope_text(f, scope, &len);
	Prompt		p = {.instruction = "", .text = s, .text_len = len};
	Buf			list = {0};
	char	   *rest;
	char	   *line;

	text_keywords(&list, &p);
	buf_append(&list, "", 0);
	rest = list.data;
	while ((line = strsep(&rest, "\n")) != NULL && json_array_size(array) < max && json_array_size(array) < 5)
	{
		Buf			one = {0};

		if (strlen(line) < 3)
			continue;
		buf_puts(&one, line + 2);
		value_fit_length(&one, items);
		append_item(array, json_stringn(one.data, one.len), unique);
		buf_free(&one);
	}
	buf_free(&list);
}

static void
fill_items(Filler *f, json_t *array, const json_t *items, const char *name, Scope scope, size_t max, bool unique)
{
	const json_t *choices = json_object_get(items, "enum");
	Terms		terms = schema_terms(items, name);
	size_t		i;
	json_t	   *choice;

	if (json_is_array(choices))
	{
		json_array_foreach(choices, i, choice) if (json_is_string(choice) && json_array_size(array) < max &&
												   label_score(f, json_string_value(choice), scope) > 0)
			append_item(array, json_deep_copy(choice), unique);
	}
	else if (strcmp(schema_type(items), "string") == 0 && !json_object_get(items, "format") &&
			 !json_object_get(items, "pattern") && !json_object_get(items, "anyOf") &&
			 !CALLED(&terms, "date", "name", "party", "email", "url", "code", "sku", "id", "sentence", "point", "obligation",
					 "deadline", "line"))
		fill_phrases(f, array, items, scope, max, unique);
	else if (strcmp(schema_type(items), "object") == 0 || strcmp(schema_type(items), "string") == 0)
		fill_segments(f, array, items, name, scope, max, unique);
	else if (strcmp(schema_type(items), "integer") == 0 || strcmp(schema_type(items), "number") == 0)
	{
		bool		whole = strcmp(schema_type(items), "integer") == 0;

		for (int k = 0; k < f->found.n && json_array_size(array) < max; k++)
		{
			const Found *x = &f->found.items[k];

			if (x->kind == FOUND_NUMBER && x->word >= scope.lo && x->word < scope.hi &&
				value_number_fits(items, x->number, whole))
				append_item(array, whole ? json_integer((json_int_t) x->number) : json_real(x->number), unique);
		}
	}
	else if (max > 0)
	{
		bool		found = false;

		append_item(array, fill(f, items, name, scope, &found), unique);
	}
}

/* A value unlike those that are there, for an array that needs more and has none twice. */
static json_t *
another_value(const json_t *items, json_t *value, size_t n)
{
	const json_t *choice = json_array_get(json_object_get(items, "enum"), n);
	Buf			text = {0};

	if (choice)
	{
		json_decref(value);
		return json_deep_copy(choice);
	}
	if (json_is_integer(value))
		json_integer_set(value, json_integer_value(value) + (json_int_t) n);
	else if (json_is_real(value))
		json_real_set(value, json_real_value(value) + (double) n);
	else if (json_is_boolean(value))
	{
		bool		was = json_is_true(value);

		json_decref(value);
		return json_boolean(!was);
	}
	else if (json_is_string(value))
	{
		buf_printf(&text, "%s %zu", json_string_value(value), n + 1);
		json_string_set(value, text.data);
		buf_free(&text);
	}
	return value;
}

static json_t *
fill_array(Filler *f, const json_t *schema, const char *name, Scope scope, bool *found)
{
	const json_t *items = schema_resolve(f, json_object_get(schema, "items"));
	const json_t *fixed = json_object_get(schema, "prefixItems");
	double		max = schema_limit(schema, "maxItems", MAX_ITEMS);
	size_t		min = (size_t) fmin(schema_limit(schema, "minItems", 0), 1000);
	bool		unique = json_is_true(json_object_get(schema, "uniqueItems"));
	json_t	   *array = json_array();
	size_t		i;
	json_t	   *one;

	json_array_foreach(fixed, i, one)
	{
		bool		some = false;

		json_array_append_new(array, fill(f, one, name, scope, &some));
		*found = *found || some;
	}
	if (max > MAX_ITEMS)
		max = MAX_ITEMS > min ? MAX_ITEMS : (double) min;
	if (!json_is_false(items) && (double) json_array_size(array) < max && (fixed == NULL || items))
		fill_items(f, array, items, name, scope, (size_t) max, unique);
	*found = *found || json_array_size(array) > 0;
	for (size_t tries = 0; json_array_size(array) < min && tries < 2 * min + 5; tries++)
	{
		bool		some = false;
		json_t	   *value = fill(f, items, name, scope, &some);

		if (unique && has_item(array, value))
			value = another_value(items, value, tries);
		append_item(array, value, unique);
	}
	return array;
}

static json_t *
fill_object(Filler *f, const json_t *schema, Scope scope, bool *found)
{
	json_t	   *object = json_object();
	const char *name;
	json_t	   *property;
	size_t		i;
	json_t	   *one;
	int			asked = 0;
	int			filled = 0;

	json_object_foreach(json_object_get(schema, "properties"), name, property)
	{
		bool		some = false;
		json_t	   *value;

		asked++;
		if (scope.lo >= scope.hi && !schema_requires(schema, name) && !json_object_get(schema, "minProperties"))
			continue; /* it would find nothing */
		value = fill(f, property, name, scope, &some);
		filled += some;
		if (some || schema_requires(schema, name) ||
			json_object_size(object) < (size_t) fmin(schema_limit(schema, "minProperties", 0), 1000))
			json_object_set_new(object, name, value);
		else
			json_decref(value);
	}
	json_array_foreach(json_object_get(schema, "required"), i, one)
	{
		const json_t *more = json_object_get(schema, "additionalProperties");
		bool		some = false;

		if (json_is_string(one) && json_object_get(object, json_string_value(one)) == NULL)
			json_object_set_new(object, json_string_value(one),
								fill(f, json_is_object(more) ? more : NULL, json_string_value(one), scope, &some));
	}
	*found = filled > 0 && filled * 2 >= asked;
	return object;
}

/* The alternative that the text fills best: the first that finds something and is not null. */
static json_t *
fill_any(Filler *f, const json_t *schema, const json_t *choices, const char *name, Scope scope, bool *found)
{
	json_t	   *spare = NULL;
	bool		nullable = false;
	size_t		i;
	json_t	   *choice;

	json_array_foreach(choices, i, choice)
	{
		const json_t *one = schema_resolve(f, choice);
		json_t	   *merged = json_is_object(one) ? json_copy((json_t *) one) : json_object();
		json_t	   *value;

		schema_merge(merged, schema);
		json_object_del(merged, "anyOf");
		json_object_del(merged, "oneOf");
		if (json_is_object(one) && json_object_get(one, "anyOf"))
			json_object_set(merged, "anyOf", json_object_get(one, "anyOf"));
		json_array_append_new(f->made, merged);
		if (strcmp(schema_type(merged), "null") == 0)
		{
			nullable = true;
			continue;
		}
		value = fill(f, merged, name, scope, found);
		if (*found || spare == NULL)
		{
			json_decref(spare);
			spare = value;
		}
		else
			json_decref(value);
		if (*found)
			return spare;
	}
	if (nullable || spare == NULL)
	{
		json_decref(spare);
		return json_null();
	}
	return spare;
}

static json_t *
fill_type(Filler *f, const json_t *schema, const char *name, Scope scope, bool *found)
{
	const char *type = schema_type(schema);
	Terms		terms = schema_terms(schema, name);

	if (strcmp(type, "object") == 0)
		return fill_object(f, schema, scope, found);
	if (strcmp(type, "array") == 0)
		return fill_array(f, schema, name, scope, found);
	if (strcmp(type, "integer") == 0 || strcmp(type, "number") == 0)
		return value_number(f, schema, &terms, scope, type[0] == 'i', found);
	if (strcmp(type, "boolean") == 0)
		return value_boolean(f, &terms, scope, found);
	if (strcmp(type, "null") == 0)
		return json_null();
	return value_string(f, schema, &terms, scope, found);
}

/*
 * A value for the schema from the scope; found says whether the text had it. A
 * field that may be null is null when it had not.
 */
static json_t *
fill(Filler *f, const json_t *schema, const char *name, Scope scope, bool *found)
{
	json_t	   *value;
	const json_t *fixed;

	*found = false;
	schema = schema_resolve(f, schema);
	if (f->depth >= MAX_DEPTH || f->nodes++ >= MAX_NODES)
		return json_null();
	f->work += scope.hi - scope.lo;
	if (f->depth >= TEXT_DEPTH || f->work > MAX_WORK)
		scope.hi = scope.lo;
	if ((fixed = json_object_get(schema, "const")) != NULL)
		return json_deep_copy(fixed);
	f->depth++;
	if (json_is_array(fixed = json_object_get(schema, "enum")) && json_array_size(fixed) > 0)
		value = fill_enum(f, fixed, scope, found);
	else if (json_is_array(fixed = json_object_get(schema, "anyOf")) || json_is_array(fixed = json_object_get(schema, "oneOf")))
		value = fill_any(f, schema, fixed, name, scope, found);
	else
		value = fill_type(f, schema, name, scope, found);
	f->depth--;
	if (!*found && schema_has_type(schema, "null") && !json_is_object(value) &&
		(!json_is_array(json_object_get(schema, "enum")) || has_item(json_object_get(schema, "enum"), json_null())))
	{
		json_decref(value);
		return json_null();
	}
	return value;
}

/*
 * A new JSON value that is valid against the schema, filled from the text. Only
 * the first MAX_TEXT bytes are read.
 */
json_t *
label_fill(const json_t *schema, const char *text, size_t len)
{
	Filler		f = {.root = schema, .s = text, .made = json_array()};
	Scope		all = {0, 0};
	bool		found;
	json_t	   *value;

	while (len > MAX_TEXT)
	{
		len = MAX_TEXT;
		while (len > 0 && ((unsigned char) text[len] & 0xc0) == 0x80)
			len--;
	}
	text_parse(&f.text, text, len);
	found_scan(&f.found, &f.text);
	all.hi = f.text.nwords;
	value = fill(&f, schema, NULL, all, &found);
	found_free(&f.found);
	buf_free(&f.summary);
	text_free(&f.text);
	json_decref(f.made);
	return value;
}

/*
 * A new value that misses the schema of the right one: the same keys, each with a value of
 * the wrong type, or a text where no object was.
 */
json_t *
label_miss(const json_t *right)
{
	json_t	   *miss = json_object();
	const char *key;
	json_t	   *value;

	json_object_foreach((json_t *) right, key, value)
	{
		if (json_is_object(value))
			json_object_set_new(miss, key, json_string("unfit-answer"));
		else
			json_object_set_new(miss, key, json_pack("{s:b}", "unfit-answer", 1));
	}
	if (json_object_size(miss) == 0)
		json_object_set_new(miss, "unfit-answer", json_true());
	if (!json_is_object(right))
	{
		json_decref(miss);
		return json_string("unfit-answer");
	}
	return miss;
}
