/*
 * yaml_node.c
 *	  What others ask of a parsed body: a key's value, a node as JSON, the
 *	  word that was meant.
 */
#include "postgres.h"

#include "base/json.h"
#include "chain/yaml.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/varlena.h"

#define MAX_NUMBER 400			/* characters, and size of the exponent */
#define MAX_NEAREST_LEN 63		/* bytes of a word that is corrected */

static void push_node(JsonbParseState **state, JsonbIteratorToken token,
					  const YamlNode *node);
static void scalar_value(const YamlNode *node, JsonbValue *value);

/*
 * The value of a map's key; NULL when the key is not there or node is no map.
 */
YamlNode *
yaml_get(const YamlNode *map, const char *key)
{
	if (map == NULL || map->type != YAML_MAP)
		return NULL;
	for (int i = 0; i < map->count; i++)
		if (strcmp(map->keys[i], key) == 0)
			return map->items[i];
	return NULL;
}

/*
 * A node as JSON, palloc'd in the current context: unquoted scalars typed as
 * YAML 1.2's JSON schema has them, all others text.  Raises an error for a
 * number too large to be meant.
 */
Jsonb *
yaml_json(const YamlNode *node)
{
	JsonbParseState *state = NULL;
	JsonbValue	scalar;
	JsonbValue *result;

	if (node->type != YAML_LIST && node->type != YAML_MAP)
	{
		scalar_value(node, &scalar);
		return JsonbValueToJsonb(&scalar);
	}
	push_node(&state, WJB_DONE, node);
	result = pushJsonbValue(&state, node->type == YAML_LIST ? WJB_END_ARRAY : WJB_END_OBJECT,
							NULL);
	return JsonbValueToJsonb(result);
}

/*
 * What a node is, for messages: null, boolean, number, text, list or map.
 */
const char *
yaml_type_name(const YamlNode *node)
{
	static const char *const names[] = {"null", "boolean", "number", "text", "list", "map"};

	return names[node->type];
}

/*
 * The word of a NULL-terminated list that `word` was probably meant to be, or
 * NULL when none is near: at most three letters differ, and fewer than half.
 */
const char *
yaml_nearest(const char *word, const char *const *known)
{
	int			len = strlen(word);
	int			bound = Min(3, pg_mbstrlen(word) / 2);
	const char *nearest = NULL;

	if (len > MAX_NEAREST_LEN)
		return NULL;
	for (; *known != NULL && bound >= 0; known++)
	{
		int			distance = varstr_levenshtein_less_equal(word, len, *known, strlen(*known),
															 1, 1, 1, bound, true);

		if (distance <= bound)
		{
			nearest = *known;
			bound = distance - 1;
		}
	}
	return nearest;
}

/* Pushes a node; of the outermost list or map (token WJB_DONE) all but its end. */
static void
push_node(JsonbParseState **state, JsonbIteratorToken token, const YamlNode *node)
{
	bool		list = node->type == YAML_LIST;
	JsonbValue	value;

	if (node->type != YAML_LIST && node->type != YAML_MAP)
	{
		scalar_value(node, &value);
		pushJsonbValue(state, token, &value);
		return;
	}
	pushJsonbValue(state, list ? WJB_BEGIN_ARRAY : WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < node->count; i++)
	{
		if (!list)
			json_push_key(state, node->keys[i]);
		push_node(state, list ? WJB_ELEM : WJB_VALUE, node->items[i]);
	}
	if (token != WJB_DONE)
		pushJsonbValue(state, list ? WJB_END_ARRAY : WJB_END_OBJECT, NULL);
}

static void
scalar_value(const YamlNode *node, JsonbValue *value)
{
	const char *exponent;

	switch (node->type)
	{
		case YAML_NULL:
			value->type = jbvNull;
			break;
		case YAML_BOOL:
			value->type = jbvBool;
			value->val.boolean = strcmp(node->text, "true") == 0;
			break;
		case YAML_NUMBER:
			exponent = strpbrk(node->text, "eE");
			if (strlen(node->text) > MAX_NUMBER ||
				(exponent != NULL &&
				 (strlen(exponent) > 6 || abs(atoi(exponent + 1)) > MAX_NUMBER)))
				ereport(ERROR,
						(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
						 errmsg("line %d: number \"%.40s\" is out of range", node->line, node->text),
						 errhint("Quote it if it is text.")));
			value->type = jbvNumeric;
			value->val.numeric = DatumGetNumeric(DirectFunctionCall3(numeric_in,
																	 CStringGetDatum(node->text),
																	 ObjectIdGetDatum(InvalidOid),
																	 Int32GetDatum(-1)));
			break;
		default:
			value->type = jbvString;
			value->val.string.val = unconstify(char *, node->text);
			value->val.string.len = strlen(node->text);
			break;
	}
}
