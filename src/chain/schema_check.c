/*
 * schema_check.c
 *	  Checks a value against a compiled JSON Schema.
 *
 * Values come from models, so nothing here raises an error (but out of
 * memory) or looks into a catalog, depth and work are bounded, and what is
 * said of a misfit is written for a model to mend it: the place, what was
 * expected there, and what was seen.
 */
#include "postgres.h"

#include "base/json.h"
#include "chain/schema.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#define MAX_DEPTH 1000			/* schemas within schemas, references included */
#define MAX_WORK 4000000		/* values looked at, each time counted */
#define MAX_REASONS 3			/* alternatives whose reason is told */

typedef struct Checker
{
	SchemaVerdict *verdict;
	bool		quiet;			/* only fit or unfit matters here */
	int			depth;
	int64		work;
	bool		gave_up;		/* no alternative can help any more */
} Checker;

/* Nobody asks for reasons while alternatives are tried: then none is made up. */
#define UNFIT(c, ...) ((c)->quiet || (c)->gave_up ? false : unfit((c), __VA_ARGS__))

static bool check(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at);
static bool check_one(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at);
static bool check_type(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at);
static bool check_values(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at);
static bool check_number(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at);
static bool check_string(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at);
static bool check_array(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at);
static bool check_contains(Checker *c, const Schema *s, JsonbContainer *array, const SchemaPlace *at);
static bool check_unique(Checker *c, JsonbContainer *array, const SchemaPlace *at);
static bool check_object(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at);
static bool check_other_fields(Checker *c, const Schema *s, JsonbContainer *object, const SchemaPlace *at);
static bool check_dependents(Checker *c, const Schema *s, JsonbContainer *object, const SchemaPlace *at);
static bool check_logic(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at);
static bool check_any(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at);
static bool fits(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at);
static bool matches(Checker *c, const SchemaRegex *regex, const char *text, int len);
static bool give_up(Checker *c, const char *why);
static bool unfit(Checker *c, const SchemaPlace *at, const char *format, ...) pg_attribute_printf(3, 4);
static bool bound(Checker *c, const JsonbValue *v, const SchemaPlace *at, Numeric number,
				  PGFunction holds, const char *words);
static bool count_bounds(Checker *c, const SchemaPlace *at, int64 count, int64 min, int64 max,
						 const char *what);
static bool same_value(const JsonbValue *a, const JsonbValue *b);

/*
 * Does the value fit?  verdict is set either way; its message, palloc'd in the
 * current context, names the place as in `at lines[2].qty: expected integer,
 * got string "two"`, without it where the whole value is meant.  `field` is
 * the name under which the value was found, NULL if it stands for itself.
 */
bool
schema_check(const Schema *schema, const Jsonb *value, const char *field,
			 SchemaVerdict *verdict)
{
	Checker		checker = {0};
	JsonbValue	root;
	SchemaPlace place = {NULL, field, field ? strlen(field) : 0, 0};

	verdict->why = NULL;
	verdict->absent = false;
	checker.verdict = verdict;
	if (!json_scalar(value, &root))
	{
		root.type = jbvBinary;
		root.val.binary.data = unconstify(JsonbContainer *, &value->root);
		root.val.binary.len = VARSIZE(value) - VARHDRSZ;
	}
	return check(&checker, schema, &root, field ? &place : NULL);
}

static bool
check(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at)
{
	bool		fit;

	if (c->gave_up)
		return false;
	if (++c->work > MAX_WORK)
		return give_up(c, "checking it would take too long");
	if (c->depth >= MAX_DEPTH || stack_is_too_deep())
		return give_up(c, "nested too deeply");
	c->depth++;
	fit = check_one(c, s, v, at);
	c->depth--;
	return fit && !c->gave_up;
}

static bool
check_one(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at)
{
	if (s->never)
		return UNFIT(c, at, "nothing is allowed here, got %s", schema_seen(v));
	/* a list of what is right says more than a type */
	if (!check_values(c, s, v, at) || !check_type(c, s, v, at))
		return false;
	if ((s->groups & SCHEMA_HAS_NUMBER) && v->type == jbvNumeric &&
		!check_number(c, s, v, at))
		return false;
	if ((s->groups & SCHEMA_HAS_STRING) && v->type == jbvString &&
		!check_string(c, s, v, at))
		return false;
	if ((s->groups & SCHEMA_HAS_ARRAY) && schema_type_of(v) == SCHEMA_ARRAY &&
		!check_array(c, s, v, at))
		return false;
	if ((s->groups & SCHEMA_HAS_OBJECT) && schema_type_of(v) == SCHEMA_OBJECT &&
		!check_object(c, s, v, at))
		return false;
	return !(s->groups & SCHEMA_HAS_LOGIC) || check_logic(c, s, v, at);
}

static bool
check_type(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at)
{
	if (s->types == 0)
		return true;
	if (v->type == jbvNumeric && !(s->types & SCHEMA_NUMBER))
	{
		if (!(s->types & SCHEMA_INTEGER) || !schema_integral(v->val.numeric))
			return UNFIT(c, at, "expected %s, got %s", schema_type_list(s->types), schema_seen(v));
		if (DatumGetInt32(DirectFunctionCall1(numeric_scale,
											  NumericGetDatum(v->val.numeric))) > 0)
			c->verdict->absent = true;
		return true;
	}
	return (schema_type_of(v) & s->types) != 0 ||
		UNFIT(c, at, "expected %s, got %s", schema_type_list(s->types), schema_seen(v));
}

static bool
check_values(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at)
{
	const SchemaValues *values = &s->one_of_values;
	int			i;

	if (s->constant != NULL && !same_value(s->constant, v))
	{
		SchemaValues one = {1, s->constant};

		return UNFIT(c, at, "expected %s, got %s", schema_value_list(&one), schema_seen(v));
	}
	if (values->count == 0)
		return true;
	c->work += values->count;
	for (i = 0; i < values->count; i++)
		if (same_value(&values->items[i], v))
			return true;
	return UNFIT(c, at, "expected %s%s, got %s", values->count > 1 ? "one of " : "",
				 schema_value_list(values), schema_seen(v));
}

static bool
check_number(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at)
{
	if (!bound(c, v, at, s->minimum, numeric_ge, "at least") ||
		!bound(c, v, at, s->maximum, numeric_le, "at most") ||
		!bound(c, v, at, s->exclusive_minimum, numeric_gt, "more than") ||
		!bound(c, v, at, s->exclusive_maximum, numeric_lt, "less than"))
		return false;
	if (s->multiple_of != NULL)
	{
		Datum		rest = DirectFunctionCall2(numeric_mod, NumericGetDatum(v->val.numeric),
											   NumericGetDatum(s->multiple_of));

		if (!DatumGetBool(DirectFunctionCall2(numeric_eq, rest,
											  NumericGetDatum(int64_to_numeric(0)))))
			return UNFIT(c, at, "expected a multiple of %s, got %s",
						 schema_number_text(s->multiple_of), schema_seen(v));
	}
	return true;
}

static bool
check_string(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at)
{
	const char *text = v->val.string.val;
	int			len = v->val.string.len;

	if (s->min_length >= 0 || s->max_length >= 0)
	{
		int64		chars = pg_mbstrlen_with_len(text, len);

		if (!count_bounds(c, at, chars, s->min_length, s->max_length, "characters"))
			return false;
	}
	if (s->pattern != NULL && !matches(c, s->pattern, text, len))
		return UNFIT(c, at, "expected text that matches %s, got %s", s->pattern->source, schema_seen(v));
	if (s->format != NULL)
	{
		char	   *copy = pnstrdup(text, len);
		bool		fit = s->format->check(copy);

		pfree(copy);
		if (!fit)
			return UNFIT(c, at, "expected %s, got %s", s->format->expected, schema_seen(v));
	}
	return true;
}

static bool
check_array(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at)
{
	JsonbContainer *array = v->val.binary.data;
	JsonbIterator *it;
	JsonbValue	item;
	SchemaPlace place = {at, NULL, 0, 0};

	if (!count_bounds(c, at, JsonContainerSize(array), s->min_items, s->max_items, "elements"))
		return false;
	if (s->prefix_items.count > 0 || s->items != NULL)
	{
		it = JsonbIteratorInit(array);
		(void) JsonbIteratorNext(&it, &item, true);
		while (JsonbIteratorNext(&it, &item, true) == WJB_ELEM)
		{
			const Schema *schema = place.index < s->prefix_items.count ?
				s->prefix_items.items[place.index] : s->items;

			if (schema != NULL && !check(c, schema, &item, &place))
				return false;
			place.index++;
		}
	}
	return (s->contains == NULL || check_contains(c, s, array, at)) &&
		(!s->unique_items || check_unique(c, array, at));
}

static bool
check_contains(Checker *c, const Schema *s, JsonbContainer *array, const SchemaPlace *at)
{
	JsonbIterator *it = JsonbIteratorInit(array);
	JsonbValue	item;
	SchemaPlace place = {at, NULL, 0, 0};
	int64		count = 0;

	(void) JsonbIteratorNext(&it, &item, true);
	while (JsonbIteratorNext(&it, &item, true) == WJB_ELEM)
	{
		count += fits(c, s->contains, &item, &place);
		place.index++;
	}
	return count_bounds(c, at, count, s->min_contains >= 0 ? s->min_contains : 1,
						s->max_contains, "elements that \"contains\" describes");
}

typedef struct Element
{
	Jsonb	   *value;
	int			index;
} Element;

static int
compare_elements(const void *a, const void *b)
{
	const Element *x = a;
	const Element *y = b;
	int			order = compareJsonbContainers(&x->value->root, &y->value->root);

	return order != 0 ? order : x->index - y->index;
}

static bool
check_unique(Checker *c, JsonbContainer *array, const SchemaPlace *at)
{
	int			n = JsonContainerSize(array);
	Element    *items = palloc(Max(n, 1) * sizeof(Element));
	JsonbIterator *it = JsonbIteratorInit(array);
	JsonbValue	item;

	c->work += n;
	(void) JsonbIteratorNext(&it, &item, true);
	for (int i = 0; i < n && JsonbIteratorNext(&it, &item, true) == WJB_ELEM; i++)
	{
		items[i].value = JsonbValueToJsonb(&item);
		items[i].index = i;
	}
	qsort(items, n, sizeof(Element), compare_elements);
	for (int i = 1; i < n; i++)
		if (compareJsonbContainers(&items[i - 1].value->root, &items[i].value->root) == 0)
			return UNFIT(c, at, "elements [%d] and [%d] are equal",
						 items[i - 1].index, items[i].index);
	return true;
}

static bool
check_object(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at)
{
	JsonbContainer *object = v->val.binary.data;
	int			size = JsonContainerSize(object);
	int			known = 0;

	for (int i = 0; i < s->nproperties; i++)
	{
		const SchemaProperty *property = &s->properties[i];
		JsonbValue	value;
		SchemaPlace place = {at, property->name, property->len, 0};

		if (getKeyJsonValueFromContainer(object, property->name, property->len, &value) == NULL)
		{
			if (property->required)
				return UNFIT(c, at, "field \"%s\" is missing", property->name);
			c->verdict->absent = true;
		}
		else if (property->schema != NULL)
		{
			known++;
			if (!check(c, property->schema, &value, &place))
				return false;
		}
	}
	c->work += s->nproperties;
	if (!count_bounds(c, at, size, s->min_properties, s->max_properties, "fields"))
		return false;
	if ((s->npatterns > 0 || s->names != NULL || (s->additional != NULL && known < size)) &&
		!check_other_fields(c, s, object, at))
		return false;
	return s->ndependents == 0 || check_dependents(c, s, object, at);
}

static bool
is_property(const Schema *s, const JsonbValue *key)
{
	for (int i = 0; i < s->nproperties; i++)
	{
		const SchemaProperty *property = &s->properties[i];

		if (property->schema != NULL && property->len == key->val.string.len &&
			memcmp(property->name, key->val.string.val, property->len) == 0)
			return true;
	}
	return false;
}

/* patternProperties, additionalProperties, propertyNames */
static bool
check_other_fields(Checker *c, const Schema *s, JsonbContainer *object, const SchemaPlace *at)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbValue	key;
	JsonbValue	value;

	(void) JsonbIteratorNext(&it, &key, true);
	while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
	{
		const char *name = key.val.string.val;
		int			len = key.val.string.len;
		SchemaPlace place = {at, name, len, 0};
		bool		known = is_property(s, &key);

		(void) JsonbIteratorNext(&it, &value, true);
		c->work += s->nproperties + s->npatterns;
		if (s->names != NULL && !fits(c, s->names, &key, at))
			return UNFIT(c, at, "the name of field \"%.*s\" is not allowed", len, name);
		for (int i = 0; i < s->npatterns; i++)
		{
			if (!matches(c, &s->patterns[i].regex, name, len))
				continue;
			known = true;
			if (!check(c, s->patterns[i].schema, &value, &place))
				return false;
		}
		if (known || s->additional == NULL)
			continue;
		if (s->additional->never)
			return UNFIT(c, at, "field \"%.*s\" is not allowed%s", len, name, schema_field_list(s));
		if (!check(c, s->additional, &value, &place))
			return false;
	}
	return true;
}

static bool
check_dependents(Checker *c, const Schema *s, JsonbContainer *object, const SchemaPlace *at)
{
	JsonbValue	value;

	for (int i = 0; i < s->ndependents; i++)
	{
		const SchemaDependent *dependent = &s->dependents[i];

		c->work += 1 + dependent->nneeds;
		if (getKeyJsonValueFromContainer(object, dependent->name, strlen(dependent->name),
										 &value) == NULL)
			continue;
		for (int k = 0; k < dependent->nneeds; k++)
			if (getKeyJsonValueFromContainer(object, dependent->needs[k],
											 strlen(dependent->needs[k]), &value) == NULL)
				return UNFIT(c, at, "field \"%s\" is missing, which \"%s\" needs",
							 dependent->needs[k], dependent->name);
	}
	return true;
}

static bool
check_logic(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at)
{
	int			count = 0;

	if (s->ref != NULL && !check(c, s->ref, v, at))
		return false;
	for (int i = 0; i < s->all_of.count; i++)
		if (!check(c, s->all_of.items[i], v, at))
			return false;
	if (s->any_of.count > 0 && !check_any(c, s, v, at))
		return false;
	if (s->one_of.count > 0)
	{
		for (int i = 0; i < s->one_of.count; i++)
			count += fits(c, s->one_of.items[i], v, at);
		if (count > 1)
			return UNFIT(c, at, "%d alternatives of \"oneOf\" fit %s, expected one", count, schema_seen(v));
		if (count == 0)
			return UNFIT(c, at, "no alternative of \"oneOf\" fits %s", schema_seen(v));
	}
	if (s->not_schema != NULL && fits(c, s->not_schema, v, at))
		return UNFIT(c, at, "\"not\" excludes %s", schema_seen(v));
	if (s->if_schema != NULL)
	{
		const Schema *branch = fits(c, s->if_schema, v, at) ? s->then_schema : s->else_schema;

		if (branch != NULL && !check(c, branch, v, at))
			return false;
	}
	return !c->gave_up;
}

/* Tries quietly; only when none fits, and somebody wants to know, again for the reasons. */
static bool
check_any(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at)
{
	StringInfoData reasons;

	for (int i = 0; i < s->any_of.count; i++)
		if (fits(c, s->any_of.items[i], v, at))
			return true;
	if (c->quiet || c->gave_up)
		return false;

	initStringInfo(&reasons);
	for (int i = 0; i < s->any_of.count && i < MAX_REASONS; i++)
	{
		(void) check(c, s->any_of.items[i], v, at);
		appendStringInfo(&reasons, "%s(%d) %s", i > 0 ? "; " : "", i + 1,
						 c->verdict->why ? c->verdict->why : "");
	}
	if (c->gave_up)
		return false;
	return UNFIT(c, at, "no alternative of \"anyOf\" fits: %s%s", reasons.data,
				 s->any_of.count > MAX_REASONS ? "; ..." : "");
}

/* Fit or not, without a message. */
static bool
fits(Checker *c, const Schema *s, const JsonbValue *v, const SchemaPlace *at)
{
	bool		quiet = c->quiet;
	bool		fit;

	c->quiet = true;
	fit = check(c, s, v, at);
	c->quiet = quiet;
	return fit;
}

static bool
matches(Checker *c, const SchemaRegex *regex, const char *text, int len)
{
	bool		matched;

	return schema_regex_match(regex, text, len, &matched) ? matched :
		give_up(c, "a regular expression could not be applied to it");
}

/* Ends the check whatever alternatives there are. */
static bool
give_up(Checker *c, const char *why)
{
	c->gave_up = true;
	c->verdict->why = pstrdup(why);
	return false;
}

/* Notes why; returns false for the caller to return. */
static bool
unfit(Checker *c, const SchemaPlace *at, const char *format, ...)
{
	StringInfoData buf;
	va_list		args;
	int			needed;

	initStringInfo(&buf);
	if (at != NULL)
	{
		appendStringInfoString(&buf, "at ");
		schema_append_place(&buf, at);
		appendStringInfoString(&buf, ": ");
	}
	for (;;)
	{
		va_start(args, format);
		needed = appendStringInfoVA(&buf, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&buf, needed);
	}
	c->verdict->why = buf.data;
	return false;
}

static bool
bound(Checker *c, const JsonbValue *v, const SchemaPlace *at, Numeric number,
	  PGFunction holds, const char *words)
{
	if (number == NULL ||
		DatumGetBool(DirectFunctionCall2(holds, NumericGetDatum(v->val.numeric),
										 NumericGetDatum(number))))
		return true;
	return UNFIT(c, at, "expected %s %s, got %s", words, schema_number_text(number), schema_seen(v));
}

static bool
count_bounds(Checker *c, const SchemaPlace *at, int64 count, int64 min, int64 max, const char *what)
{
	if (min >= 0 && count < min)
		return UNFIT(c, at, "expected at least " INT64_FORMAT " %s, got " INT64_FORMAT,
					 min, what, count);
	if (max >= 0 && count > max)
		return UNFIT(c, at, "expected at most " INT64_FORMAT " %s, got " INT64_FORMAT,
					 max, what, count);
	return true;
}

/* As JSON Schema has it: numbers by value, objects whatever their order. */
static bool
same_value(const JsonbValue *a, const JsonbValue *b)
{
	if (a->type != b->type)
		return false;
	switch (a->type)
	{
		case jbvNull:
			return true;
		case jbvBool:
			return a->val.boolean == b->val.boolean;
		case jbvNumeric:
			return DatumGetBool(DirectFunctionCall2(numeric_eq, NumericGetDatum(a->val.numeric),
													NumericGetDatum(b->val.numeric)));
		case jbvString:
			return a->val.string.len == b->val.string.len &&
				memcmp(a->val.string.val, b->val.string.val, a->val.string.len) == 0;
		case jbvBinary:
			return schema_type_of(a) == schema_type_of(b) &&
				compareJsonbContainers(a->val.binary.data, b->val.binary.data) == 0;
		default:
			return false;
	}
}

/*
 * The bit of a value's type; a number's is SCHEMA_NUMBER, whole or not.
 */
unsigned int
schema_type_of(const JsonbValue *v)
{
	switch (v->type)
	{
		case jbvNull:
			return SCHEMA_NULL;
		case jbvBool:
			return SCHEMA_BOOLEAN;
		case jbvNumeric:
			return SCHEMA_NUMBER;
		case jbvString:
			return SCHEMA_STRING;
		default:
			return JsonContainerIsArray(v->val.binary.data) ? SCHEMA_ARRAY : SCHEMA_OBJECT;
	}
}
