/*
 * yaml.c
 *	  Bodies of chains as JSON and as a listing of their nodes.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "chain/yaml.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(chaincall_test_yaml_json);
PG_FUNCTION_INFO_V1(chaincall_test_yaml_tree);
PG_FUNCTION_INFO_V1(chaincall_test_yaml_bytes);
PG_FUNCTION_INFO_V1(chaincall_test_yaml_nearest);

static void
list_node(StringInfo buf, const YamlNode *node, int indent)
{
	appendStringInfo(buf, "%s, line %d", yaml_type_name(node), node->line);
	if (node->text_line != node->line)
		appendStringInfo(buf, ", text from line %d", node->text_line);
	if (node->text != NULL)
		appendStringInfo(buf, ", %s<%s>", node->plain ? "plain " : "", node->text);
	appendStringInfoChar(buf, '\n');
	for (int i = 0; i < node->count; i++)
	{
		appendStringInfoSpaces(buf, 2 * indent + 2);
		if (node->type == YAML_MAP)
			appendStringInfo(buf, "%s (line %d): ", node->keys[i], node->key_lines[i]);
		else
			appendStringInfoString(buf, "- ");
		list_node(buf, node->items[i], indent + 1);
	}
}

Datum
chaincall_test_yaml_json(PG_FUNCTION_ARGS)
{
	PG_RETURN_JSONB_P(yaml_json(yaml_parse(text_to_cstring(PG_GETARG_TEXT_PP(0)))));
}

Datum
chaincall_test_yaml_tree(PG_FUNCTION_ARGS)
{
	StringInfoData buf;

	initStringInfo(&buf);
	list_node(&buf, yaml_parse(text_to_cstring(PG_GETARG_TEXT_PP(0))), 0);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(buf.data, buf.len));
}

/*
 * For bytes that are not valid in the server's encoding.
 */
Datum
chaincall_test_yaml_bytes(PG_FUNCTION_ARGS)
{
	PG_RETURN_JSONB_P(yaml_json(yaml_parse(text_to_cstring((text *) PG_GETARG_BYTEA_PP(0)))));
}

Datum
chaincall_test_yaml_nearest(PG_FUNCTION_ARGS)
{
	char	   *word = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Datum	   *elements;
	int			n;
	const char **known;
	const char *nearest;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, NULL, &n);
	known = palloc0((n + 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
		known[i] = TextDatumGetCString(elements[i]);
	nearest = yaml_nearest(word, known);
	if (nearest == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(nearest));
}
