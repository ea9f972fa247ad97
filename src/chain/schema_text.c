/*
 * schema_text.c
 *	  Values and places in the words of a message.
 *
 * The reader is a model that is to mend its answer, so what is long is cut and
 * what is listed is listed in part.  All results are palloc'd in the current
 * context.
 */
#include "postgres.h"

#include "base/json.h"
#include "chain/schema.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"

#define MAX_SEEN 60				/* characters of a text that are shown */
#define MAX_NAMED 20			/* values or names that are listed */

static void append_value(StringInfo buf, const JsonbValue *v);

/*
 * What was seen: a value's type, and the value itself if it is short.
 */
char *
schema_seen(const JsonbValue *v)
{
	StringInfoData buf;

	initStringInfo(&buf);
	switch (schema_type_of(v))
	{
		case SCHEMA_STRING:
			appendStringInfoString(&buf, "string ");
			break;
		case SCHEMA_NUMBER:
			appendStringInfoString(&buf, "number ");
			break;
		case SCHEMA_ARRAY:
			appendStringInfo(&buf, "array of %d", (int) JsonContainerSize(v->val.binary.data));
			return buf.data;
		case SCHEMA_OBJECT:
			appendStringInfoString(&buf, "object");
			return buf.data;
		default:
			break;
	}
	append_value(&buf, v);
	return buf.data;
}

static void
append_value(StringInfo buf, const JsonbValue *v)
{
	JsonbValue	copy = *v;
	int			len;

	switch (schema_type_of(v))
	{
		case SCHEMA_NULL:
			appendStringInfoString(buf, "null");
			break;
		case SCHEMA_BOOLEAN:
			appendStringInfoString(buf, v->val.boolean ? "true" : "false");
			break;
		case SCHEMA_NUMBER:
			appendStringInfoString(buf, schema_number_text(v->val.numeric));
			break;
		case SCHEMA_STRING:
			len = pg_mbcharcliplen(v->val.string.val, v->val.string.len, MAX_SEEN);
			escape_json(buf, pnstrdup(v->val.string.val, len));
			if (len < v->val.string.len)
				appendStringInfoString(buf, "...");
			break;
		default:
			appendStringInfoString(buf, json_excerpt(JsonbValueToJsonb(&copy), MAX_SEEN));
			break;
	}
}

/*
 * A number, cut when it is long.
 */
const char *
schema_number_text(Numeric number)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(number)));

	if (strlen(text) > MAX_SEEN)
		strcpy(text + MAX_SEEN - 3, "...");
	return text;
}

/*
 * The first of some values.
 */
char *
schema_value_list(const SchemaValues *values)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < values->count && i < MAX_NAMED; i++)
	{
		if (i > 0)
			appendStringInfoString(&buf, ", ");
		append_value(&buf, &values->items[i]);
	}
	if (values->count > MAX_NAMED)
		appendStringInfoString(&buf, ", ...");
	return buf.data;
}

/*
 * The types of a mask: "string or null".
 */
char *
schema_type_list(unsigned int types)
{
	static const char *const names[] = {
		"null", "boolean", "integer", "number", "string", "array", "object"
	};
	StringInfoData buf;

	initStringInfo(&buf);
	/* null last: "string or null" */
	for (int i = 1; i <= lengthof(names); i++)
	{
		int			bit = i % lengthof(names);

		if (types & (1 << bit))
			appendStringInfo(&buf, "%s%s", buf.len > 0 ? " or " : "", names[bit]);
	}
	return buf.data;
}

/*
 * The fields that an object may have, as the end of a message; empty when the
 * schema names none.
 */
char *
schema_field_list(const Schema *s)
{
	StringInfoData buf;
	int			n = 0;

	initStringInfo(&buf);
	for (int i = 0; i < s->nproperties; i++)
	{
		if (s->properties[i].schema == NULL || n++ >= MAX_NAMED)
			continue;
		appendStringInfo(&buf, "%s%s", n == 1 ? "; the fields are " : ", ", s->properties[i].name);
	}
	if (n > MAX_NAMED)
		appendStringInfoString(&buf, ", ...");
	return buf.data;
}

/*
 * Appends a place: lines[2].qty, or ["odd name"] where a name needs quotes.
 */
void
schema_append_place(StringInfo buf, const SchemaPlace *at)
{
	bool		plain = true;

	if (at->up != NULL)
		schema_append_place(buf, at->up);
	if (at->key == NULL)
	{
		appendStringInfo(buf, "[%d]", at->index);
		return;
	}
	for (int i = 0; i < at->len; i++)
		plain = plain && (isalnum((unsigned char) at->key[i]) || at->key[i] == '_' ||
						  IS_HIGHBIT_SET(at->key[i]));
	if (plain && at->len > 0)
		appendStringInfo(buf, "%s%.*s", at->up != NULL ? "." : "", at->len, at->key);
	else
	{
		appendStringInfoChar(buf, '[');
		escape_json(buf, pnstrdup(at->key, at->len));
		appendStringInfoChar(buf, ']');
	}
}
