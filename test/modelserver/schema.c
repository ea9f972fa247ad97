/*
 * schema.c: reading a JSON schema: references, merges, types, limits, and the
 * words that a field is called by.
 */
#include "label.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* Follow a JSON pointer such as #/$defs/line. */
static const json_t *
follow_pointer(const json_t *root, const char *pointer)
{
	const json_t *at = root;
	char	   *copy = mem_copy(pointer, strlen(pointer));
	char	   *rest = copy;
	char	   *step;

	strsep(&rest, "/");
	while (at && rest && (step = strsep(&rest, "/")) != NULL)
	{
		char	   *to = step;

		for (char *p = step; *p; p++)
		{
			if (p[0] == '~' && (p[1] == '0' || p[1] == '1'))
				*to++ = *++p == '0' ? '~' : '/';
			else
				*to++ = *p;
		}
		*to = '\0';
		at = json_is_array(at) ? json_array_get(at, (size_t) atoi(step)) : json_object_get(at, step);
	}
	free(copy);
	return at;
}

/*
 * Add to the schema what another one demands as well; what both say of one key
 * stays as it is, but properties and required are joined.
 */
void
schema_merge(json_t *schema, const json_t *other)
{
	const char *key;
	json_t	   *value;
	size_t		i;
	json_t	   *name;

	json_object_foreach((json_t *) other, key, value)
	{
		json_t	   *mine = json_object_get(schema, key);

		if (strcmp(key, "properties") == 0 && json_is_object(mine))
		{
			json_t	   *both = json_copy(mine);

			json_object_update_missing(both, value);
			json_object_set_new(schema, key, both);
		}
		else if (strcmp(key, "required") == 0 && json_is_array(mine))
		{
			json_t	   *both = json_copy(mine);

			json_array_foreach(value, i, name)
				json_array_append(both, name);
			json_object_set_new(schema, key, both);
		}
		else if (mine == NULL)
			json_object_set(schema, key, value);
	}
}

/*
 * The schema itself behind $ref and allOf; NULL when the reference leads nowhere.
 * Merged ones belong to f.
 */
const json_t *
schema_resolve(Filler *f, const json_t *schema)
{
	for (int i = 0; i < 16 && json_is_object(schema); i++)
	{
		const char *ref = json_string_value(json_object_get(schema, "$ref"));
		const json_t *all = json_object_get(schema, "allOf");
		json_t	   *merged;
		size_t		k;
		json_t	   *part;

		if (ref == NULL && !json_is_array(all))
			break;
		if (ref && json_object_size(schema) == 1)
		{
			schema = ref[0] == '#' ? follow_pointer(f->root, ref) : NULL;
			continue;
		}
		merged = json_copy((json_t *) schema);
		json_object_del(merged, "$ref");
		json_object_del(merged, "allOf");
		if (ref && ref[0] == '#')
			schema_merge(merged, follow_pointer(f->root, ref));
		json_array_foreach(all, k, part)
			schema_merge(merged, part);
		json_array_append_new(f->made, merged);
		schema = merged;
	}
	return schema;
}

/* May the value be of this type? */
bool
schema_has_type(const json_t *schema, const char *type)
{
	const json_t *t = json_object_get(schema, "type");
	size_t		i;
	json_t	   *one;

	if (json_is_string(t))
		return strcmp(json_string_value(t), type) == 0;
	json_array_foreach(t, i, one) if (json_is_string(one) && strcmp(json_string_value(one), type) == 0) return true;
	return false;
}

/* The type to fill: the first that is not null; what the keywords tell when none is given. */
const char *
schema_type(const json_t *schema)
{
	static const char *const types[] = {"object", "array", "string", "integer", "number", "boolean", "null"};
	const json_t *t = json_object_get(schema, "type");
	size_t		i;
	json_t	   *one;

	if (json_is_string(t))
		return json_string_value(t);
	json_array_foreach(t, i, one) for (size_t k = 0; k < 6; k++) if (json_is_string(one) && strcmp(json_string_value(one), types[k]) == 0) return types[k];
	if (json_is_array(t))
		return "null";
	if (json_object_get(schema, "properties") || json_object_get(schema, "required"))
		return "object";
	if (json_object_get(schema, "items") || json_object_get(schema, "prefixItems"))
		return "array";
	if (json_object_get(schema, "minimum") || json_object_get(schema, "maximum"))
		return "number";
	return "string";
}

/* A keyword that is a number, or otherwise. */
double
schema_limit(const json_t *schema, const char *key, double otherwise)
{
	const json_t *v = json_object_get(schema, key);

	return json_is_number(v) ? json_number_value(v) : otherwise;
}

/* Must an object have this property? */
bool
schema_requires(const json_t *schema, const char *name)
{
	size_t		i;
	json_t	   *one;

	json_array_foreach(json_object_get(schema, "required"), i, one) if (json_is_string(one) && strcmp(json_string_value(one), name) == 0) return true;
	return false;
}

/* Add the words of s, which may be camelCase or snake_case. */
void
schema_add_terms(Terms *terms, const char *s)
{
	size_t		len = s ? strlen(s) : 0;

	for (size_t i = 0; i < len;)
	{
		size_t		from = i;

		while (i < len && (isalnum((unsigned char) s[i]) || (unsigned char) s[i] >= 0x80) &&
			   !(i > from && isupper((unsigned char) s[i]) && islower((unsigned char) s[i - 1])))
			i++;
		if (i - from > 1 && terms->n < MAX_TERMS)
		{
			terms->stems[terms->n] = text_stem(s + from, i - from);
			terms->kin[terms->n] = text_kin_of(terms->stems[terms->n]);
			terms->n++;
		}
		else if (i == from)
			i++;
	}
}

/* The words of a field's name, title and description. */
Terms
schema_terms(const json_t *schema, const char *name)
{
	Terms		terms = {.name = name ? name : ""};

	schema_add_terms(&terms, name);
	terms.own = terms.n;
	schema_add_terms(&terms, json_string_value(json_object_get(schema, "title")));
	schema_add_terms(&terms, json_string_value(json_object_get(schema, "description")));
	return terms;
}

/* Is one of these names a word of the field's own name? See CALLED. */
bool
schema_called(const Terms *terms, const char *const *names)
{
	for (; *names; names++)
	{
		uint64_t	stem = text_stem(*names, strlen(*names));

		for (int i = 0; i < terms->own; i++)
			if (terms->stems[i] == stem)
				return true;
	}
	return false;
}

/*
 * What keeps the schema from OpenAI's strict mode: every object must list all its
 * properties as required and allow no others. NULL when nothing does. The text is
 * static.
 */
const char *
schema_strict_fault(const json_t *schema, int depth)
{
	const json_t *properties = json_object_get(schema, "properties");
	const char *key;
	json_t	   *value;
	size_t		i;
	const char *fault = NULL;

	if (depth > 50)
		return "it is nested too deep";
	if (json_is_array(schema))
	{
		json_array_foreach(schema, i, value) if ((fault = schema_strict_fault(value, depth + 1)) != NULL) return fault;
		return NULL;
	}
	if (!json_is_object(schema))
		return NULL;
	if (schema_has_type(schema, "object") && !json_is_false(json_object_get(schema, "additionalProperties")))
		return "'additionalProperties' is required to be supplied and to be false";
	json_object_foreach((json_t *) properties, key, value)
	{
		if (!schema_requires(schema, key))
			return "'required' is required to be supplied and to be an array including every key in properties";
		if ((fault = schema_strict_fault(value, depth + 1)) != NULL)
			return fault;
	}
	json_object_foreach((json_t *) schema, key, value) if (fault == NULL && (strcmp(key, "items") == 0 || strcmp(key, "anyOf") == 0 || strcmp(key, "$defs") == 0))
	{
		const char *name;
		json_t *one;

			if (strcmp(key, "$defs") != 0)
				fault = schema_strict_fault(value, depth + 1);
			else
				json_object_foreach(value, name, one)
					fault = fault ? fault : schema_strict_fault(one, depth + 1);
		}
	return fault;
}
