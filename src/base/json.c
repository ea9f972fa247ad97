/*
 * json.c
 *	  Small helpers around PostgreSQL's jsonb.
 *
 * A Jsonb is built through JsonbValue, PostgreSQL's unpacked form; these
 * helpers hide that detour where a value is made or taken apart piece by
 * piece.  json_parse_untrusted() is the only door through which bytes from a
 * network become jsonb: it checks beforehand whatever jsonb_in() would raise
 * an error about, because a caller may have no transaction to abort.
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/json.h"
#include "catalog/namespace.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

/* Deep enough for any real answer, shallow enough for any stack. */
#define MAX_NESTING 1000

/* numeric holds far more, but no service means such a number. */
#define MAX_NUMBER_LEN 1000
#define MAX_EXPONENT_DIGITS 4

/*
 * Below these PostgreSQL builds a jsonb without an error: 8.3 million members
 * make its largest allocation, and 256 MB the largest container.
 */
#define MAX_MEMBERS 8000000
#define MAX_BYTES ((size_t) 128 * 1024 * 1024)

/* JSON null. */
Jsonb *
json_null(void)
{
	JsonbValue	v;

	v.type = jbvNull;
	return JsonbValueToJsonb(&v);
}

/* true or false. */
Jsonb *
json_bool(bool value)
{
	JsonbValue	v;

	v.type = jbvBool;
	v.val.boolean = value;
	return JsonbValueToJsonb(&v);
}

/* A whole number. */
Jsonb *
json_int(int64 value)
{
	JsonbValue	v;

	v.type = jbvNumeric;
	v.val.numeric = int64_to_numeric(value);
	return JsonbValueToJsonb(&v);
}

/* text must be valid in the server's encoding. */
Jsonb *
json_text_len(const char *text, int len)
{
	JsonbValue	v;

	v.type = jbvString;
	v.val.string.val = unconstify(char *, text);
	v.val.string.len = len;
	return JsonbValueToJsonb(&v);
}

/* A string; text as json_text_len() takes it. */
Jsonb *
json_text(const char *text)
{
	return json_text_len(text, strlen(text));
}

/* A copy in cxt; NULL of NULL. */
Jsonb *
json_copy(MemoryContext cxt, const Jsonb *value)
{
	Jsonb	   *copy;

	if (value == NULL)
		return NULL;
	copy = MemoryContextAllocHuge(cxt, VARSIZE(value));
	memcpy(copy, value, VARSIZE(value));
	return copy;
}

/* Parses JSON of our own or of a user; raises what jsonb's input raises. */
Jsonb *
json_parse(const char *text)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
											  CStringGetDatum(text)));
}

/*
 * Looks for what jsonb_in() would raise or recurse on: nesting, numbers and
 * sheer number of members.  Syntax is the parser's business.
 */
static const char *
scan_bounds(const char *text, size_t len)
{
	int			depth = 0;
	int			commas = 0;
	size_t		i = 0;

	while (i < len)
	{
		char		c = text[i];

		if (c == '"')
		{
			for (i++; i < len && text[i] != '"'; i++)
			{
				if (text[i] == '\\')
					i++;
			}
			i++;
		}
		else if (c == '[' || c == '{')
		{
			if (++depth > MAX_NESTING)
				return "is nested too deeply";
			i++;
		}
		else if (c == ']' || c == '}')
		{
			depth--;
			i++;
		}
		else if (c == ',')
		{
			if (++commas > MAX_MEMBERS)
				return "has too many elements";
			i++;
		}
		else if (c >= '0' && c <= '9')
		{
			size_t		start = i;
			size_t		exponent = 0;

			for (; i < len && strchr("0123456789+-.eE", text[i]) &&
				 text[i] != '\0'; i++)
			{
				if (text[i] == 'e' || text[i] == 'E')
					exponent = i + 1;
			}
			if (i - start > MAX_NUMBER_LEN ||
				(exponent && i - exponent > MAX_EXPONENT_DIGITS))
				return "has a number out of range";
		}
		else
			i++;
	}
	return NULL;
}

/* UTF-8 to the database's encoding, or NULL where a character is not in it. */
static char *
to_server_encoding(const char *text, size_t len, size_t *out_len)
{
	static Oid	conversion = InvalidOid;
	char	   *out;
	int			done;

	if (GetDatabaseEncoding() == PG_UTF8 ||
		GetDatabaseEncoding() == PG_SQL_ASCII)
	{
		*out_len = len;
		return unconstify(char *, text);
	}
	if (!OidIsValid(conversion))
		conversion = FindDefaultConversionProc(PG_UTF8,
											   GetDatabaseEncoding());
	if (!OidIsValid(conversion))
		return NULL;
	out = palloc(len * MAX_CONVERSION_GROWTH + 1);
	done = pg_do_encoding_conversion_buf(conversion, PG_UTF8,
										 GetDatabaseEncoding(),
										 (unsigned char *) unconstify(char *, text),
										 (int) len,
										 (unsigned char *) out,
										 (int) (len * MAX_CONVERSION_GROWTH + 1),
										 true);
	if (done != (int) len)
		return NULL;
	*out_len = strlen(out);
	return out;
}

/* A Jsonb in the making, and the actions of the parser that make it. */
typedef struct Building
{
	JsonbParseState *state;
	JsonbValue *top;			/* what the last action gave */
	JsonbValue	scalar;			/* of a document that is one */
	int			depth;
} Building;

static COMPAT_JSON_ACTION
build_object_start(void *arg)
{
	Building   *building = arg;

	building->depth++;
	building->top = pushJsonbValue(&building->state, WJB_BEGIN_OBJECT, NULL);
	COMPAT_JSON_DONE;
}

static COMPAT_JSON_ACTION
build_object_end(void *arg)
{
	Building   *building = arg;

	building->depth--;
	building->top = pushJsonbValue(&building->state, WJB_END_OBJECT, NULL);
	COMPAT_JSON_DONE;
}

static COMPAT_JSON_ACTION
build_array_start(void *arg)
{
	Building   *building = arg;

	building->depth++;
	building->top = pushJsonbValue(&building->state, WJB_BEGIN_ARRAY, NULL);
	COMPAT_JSON_DONE;
}

static COMPAT_JSON_ACTION
build_array_end(void *arg)
{
	Building   *building = arg;

	building->depth--;
	building->top = pushJsonbValue(&building->state, WJB_END_ARRAY, NULL);
	COMPAT_JSON_DONE;
}

static COMPAT_JSON_ACTION
build_key(void *arg, char *name, bool isnull)
{
	Building   *building = arg;

	json_push_key(&building->state, name);
	COMPAT_JSON_DONE;
}

static COMPAT_JSON_ACTION
build_scalar(void *arg, char *token, JsonTokenType type)
{
	Building   *building = arg;
	JsonbValue	v;

	switch (type)
	{
		case JSON_TOKEN_STRING:
			v.type = jbvString;
			v.val.string.val = token;
			v.val.string.len = strlen(token);
			break;
		case JSON_TOKEN_NUMBER:
			v.type = jbvNumeric;
			v.val.numeric =
				DatumGetNumeric(DirectFunctionCall3(numeric_in,
													CStringGetDatum(token),
													ObjectIdGetDatum(InvalidOid),
													Int32GetDatum(-1)));
			break;
		case JSON_TOKEN_TRUE:
		case JSON_TOKEN_FALSE:
			v.type = jbvBool;
			v.val.boolean = type == JSON_TOKEN_TRUE;
			break;
		default:
			v.type = jbvNull;
			break;
	}
	if (building->depth == 0)
	{
		building->scalar = v;
		building->top = &building->scalar;
	}
	else
		building->top =
			pushJsonbValue(&building->state,
						   building->state->contVal.type == jbvArray ?
						   WJB_ELEM : WJB_VALUE, &v);
	COMPAT_JSON_DONE;
}

/*
 * pg_parse_json(), which in a database that is not UTF-8 raises an error about
 * an escape (\u20ac) that its encoding lacks; nothing is held while it runs.
 */
static JsonParseErrorType
parse_without_error(JsonLexContext *lex, JsonSemAction *actions)
{
	MemoryContext context = CurrentMemoryContext;
	volatile JsonParseErrorType result = JSON_UNICODE_HIGH_ESCAPE;

	if (GetDatabaseEncoding() == PG_UTF8)
		return pg_parse_json(lex, actions);
	PG_TRY();
	{
		result = pg_parse_json(lex, actions);
	}
	PG_CATCH();
	{
		int			code = geterrcode();

		if (code != ERRCODE_UNTRANSLATABLE_CHARACTER &&
			code != ERRCODE_FEATURE_NOT_SUPPORTED)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
	return result;
}

/*
 * Parses len bytes that came from elsewhere.
 *
 * Returns true and sets *value, or false and sets *fault to a phrase that
 * follows "the answer" ("is not UTF-8").  Raises nothing but out of memory;
 * needs no transaction in a UTF-8 database.  The text must be NUL-terminated
 * behind len.
 */
bool
json_parse_untrusted(const char *text, size_t len, Jsonb **value,
					 char **fault)
{
	Building	building = {0};
	JsonSemAction actions = {
		.semstate = &building,
		.object_start = build_object_start,
		.object_end = build_object_end,
		.array_start = build_array_start,
		.array_end = build_array_end,
		.object_field_start = build_key,
		.scalar = build_scalar
	};
	JsonLexContext *lex;
	JsonParseErrorType result;
	const char *bounds;
	char	   *server_text;
	size_t		server_len;

	*value = NULL;
	if (len == 0)
		*fault = "is empty";
	else if (len > MAX_BYTES)
		*fault = "is too large";
	else if (memchr(text, '\0', len) != NULL)
		*fault = "contains a NUL byte";
	else if (!pg_verify_mbstr(PG_UTF8, text, (int) len, true))
		*fault = "is not valid UTF-8";
	else if ((bounds = scan_bounds(text, len)) != NULL)
		*fault = unconstify(char *, bounds);
	else if ((server_text = to_server_encoding(text, len, &server_len)) == NULL)
		*fault = "has characters that the database's encoding lacks";
	else
	{
		lex = compat_json_lexer(server_text, server_len, true);
		result = parse_without_error(lex, &actions);
		if (result == JSON_SUCCESS)
		{
			*value = JsonbValueToJsonb(building.top);
			return true;
		}
		if (result == JSON_UNICODE_CODE_POINT_ZERO)
			*fault = "contains the character \\u0000";
		else if (result == JSON_EXPECTED_MORE)
			*fault = "ends in the middle of its JSON";
		else if (result == JSON_UNICODE_HIGH_ESCAPE)
			*fault = "has characters that the database's encoding lacks";
		else
			*fault = "is not JSON";
	}
	return false;
}

/* The value of a raw scalar; false for arrays and objects. */
bool
json_scalar(const Jsonb *value, JsonbValue *scalar)
{
	if (!JB_ROOT_IS_SCALAR(value))
		return false;
	return JsonbExtractScalar(unconstify(JsonbContainer *, &value->root),
							  scalar);
}

/* Whether value is JSON null. */
bool
json_is_null(const Jsonb *value)
{
	JsonbValue	v;

	return json_scalar(value, &v) && v.type == jbvNull;
}

/* The words that messages use: null, boolean, number, string, array, object. */
const char *
json_type_name(const Jsonb *value)
{
	JsonbValue	v;

	if (!json_scalar(value, &v))
		return JB_ROOT_IS_ARRAY(value) ? "array" : "object";
	switch (v.type)
	{
		case jbvNull:
			return "null";
		case jbvBool:
			return "boolean";
		case jbvNumeric:
			return "number";
		default:
			return "string";
	}
}

/* The text of a JSON string; NULL for anything else. */
char *
json_string_dup(const Jsonb *value)
{
	JsonbValue	v;

	if (!json_scalar(value, &v) || v.type != jbvString)
		return NULL;
	return pnstrdup(v.val.string.val, v.val.string.len);
}

/* A member of an object, unpacked; false when it is absent or no object. */
bool
json_get(const Jsonb *object, const char *key, JsonbValue *value)
{
	if (!JB_ROOT_IS_OBJECT(object))
		return false;
	return getKeyJsonValueFromContainer(unconstify(JsonbContainer *,
												   &object->root),
										key, strlen(key), value) != NULL;
}

/* A member of an object as a Jsonb of its own; NULL when absent. */
Jsonb *
json_field(const Jsonb *object, const char *key)
{
	JsonbValue	v;

	return json_get(object, key, &v) ? JsonbValueToJsonb(&v) : NULL;
}

/* An array's element from 0; NULL when out of range. */
Jsonb *
json_element(const Jsonb *array, int64 index)
{
	JsonbValue *v;

	if (!JB_ROOT_IS_ARRAY(array) || JB_ROOT_IS_SCALAR(array) ||
		index < 0 || index >= JB_ROOT_COUNT(array))
		return NULL;
	v = getIthJsonbValueFromContainer(unconstify(JsonbContainer *,
												 &array->root),
									  (uint32) index);
	return v ? JsonbValueToJsonb(v) : NULL;
}

/* Elements of an array or members of an object; 0 for scalars. */
int
json_count(const Jsonb *value)
{
	return JB_ROOT_IS_SCALAR(value) ? 0 : (int) JB_ROOT_COUNT(value);
}

/* Adds value to what is being built: token is WJB_ELEM or WJB_VALUE. */
void
json_push(JsonbParseState **state, JsonbIteratorToken token,
		  const Jsonb *value)
{
	JsonbValue	v;

	if (!json_scalar(value, &v))
	{
		v.type = jbvBinary;
		v.val.binary.data = unconstify(JsonbContainer *, &value->root);
		v.val.binary.len = VARSIZE(value) - VARHDRSZ;
	}
	(void) pushJsonbValue(state, token, &v);
}

/* The key must outlive the building. */
void
json_push_key(JsonbParseState **state, const char *key)
{
	JsonbValue	v;

	v.type = jbvString;
	v.val.string.val = unconstify(char *, key);
	v.val.string.len = strlen(key);
	(void) pushJsonbValue(state, WJB_KEY, &v);
}

/* An array of the items; a NULL pointer among them becomes null. */
Jsonb *
json_array(Jsonb *const *items, int nitems)
{
	JsonbParseState *state = NULL;
	Jsonb	   *null = NULL;

	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < nitems; i++)
	{
		if (items[i] == NULL && null == NULL)
			null = json_null();
		json_push(&state, WJB_ELEM, items[i] ? items[i] : null);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

/* base with over's members in place of its own; either may be NULL. */
Jsonb *
json_merge(const Jsonb *base, const Jsonb *over)
{
	if (base == NULL || over == NULL)
		return unconstify(Jsonb *, base ? base : over);
	return DatumGetJsonbP(DirectFunctionCall2(jsonb_concat,
											  JsonbPGetDatum(base),
											  JsonbPGetDatum(over)));
}

/* Appends value's JSON text. */
void
json_append(StringInfo buf, const Jsonb *value)
{
	(void) JsonbToCString(buf, unconstify(JsonbContainer *, &value->root),
						  VARSIZE(value));
}

/* value's JSON text, cut to max_chars characters, for messages. */
char *
json_excerpt(const Jsonb *value, int max_chars)
{
	StringInfoData buf;
	int			len;

	initStringInfo(&buf);
	json_append(&buf, value);
	len = pg_mbcharcliplen(buf.data, buf.len, max_chars);
	if (len < buf.len)
	{
		buf.len = len;
		buf.data[len] = '\0';
		appendStringInfoString(&buf, "...");
	}
	return buf.data;
}
