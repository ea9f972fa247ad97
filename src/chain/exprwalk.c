/*
 * exprwalk.c
 *	  Simple paths, `name(.key|[n]|[*])*`, walked straight over jsonb.
 *
 * Nearly every expression of a chain is one.  A walk costs a tenth of what
 * jsonpath needs, copies nothing but its result (an item of a big array is
 * found in place), and knows the name of what is missing.  It does what
 * strict jsonpath would do.
 */
#include "postgres.h"

#include "base/json.h"
#include "chain/exprparse.h"
#include "chain/exprwalk.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#define MAX_KEYS_SHOWN 10
#define MAX_VALUE_SHOWN 60		/* characters */

typedef struct Walk
{
	const Expression *expr;
	ExprLookup	lookup;
	void	   *arg;
	int		   *elements;		/* of each [*]: where the walk is; or NULL */
	JsonbParseState *state;		/* the array being built, when there is [*] */
	Fault	   *fault;			/* NULL when nobody wants to know */
} Walk;

/*
 * value, unpacked; an array or object stays where it is.
 *
 * A scalar's single entry is read directly: JsonbExtractScalar() would set up
 * an iterator for it.
 */
void
jsonb_item(const Jsonb *value, JsonbValue *item)
{
	JsonbContainer *root = unconstify(JsonbContainer *, &value->root);
	JEntry		entry;

	if (!JsonContainerIsScalar(root))
	{
		item->type = jbvBinary;
		item->val.binary.data = root;
		item->val.binary.len = VARSIZE(value) - VARHDRSZ;
		return;
	}
	entry = root->children[0];
	if (JBE_ISSTRING(entry))
	{
		item->type = jbvString;
		item->val.string.val = (char *) &root->children[1];
		item->val.string.len = JBE_OFFLENFLD(entry);
	}
	else if (JBE_ISNUMERIC(entry))
	{
		item->type = jbvNumeric;
		item->val.numeric = (Numeric) &root->children[1];
	}
	else if (JBE_ISBOOL(entry))
	{
		item->type = jbvBool;
		item->val.boolean = JBE_ISBOOL_TRUE(entry);
	}
	else
		item->type = jbvNull;
}

/*
 * item as a Jsonb of its own, palloc'd.
 *
 * Byte for byte what JsonbValueToJsonb() makes, which for a scalar goes by
 * way of an array under construction and takes several times as long.
 */
Jsonb *
jsonb_from_item(JsonbValue *item)
{
	const char *data = NULL;
	uint32		len = 0;
	uint32		type;
	Jsonb	   *result;

	switch (item->type)
	{
		case jbvNull:
			type = JENTRY_ISNULL;
			break;
		case jbvBool:
			type = item->val.boolean ? JENTRY_ISBOOL_TRUE : JENTRY_ISBOOL_FALSE;
			break;
		case jbvString:
			type = JENTRY_ISSTRING;
			data = item->val.string.val;
			len = item->val.string.len;
			break;
		case jbvNumeric:
			type = JENTRY_ISNUMERIC;
			data = (const char *) item->val.numeric;
			len = VARSIZE_ANY(item->val.numeric);
			break;
		default:
			return JsonbValueToJsonb(item);
	}
	if (len > JENTRY_OFFLENMASK)
		return JsonbValueToJsonb(item);
	result = palloc(VARHDRSZ + sizeof(uint32) + sizeof(JEntry) + len);
	SET_VARSIZE(result, VARHDRSZ + sizeof(uint32) + sizeof(JEntry) + len);
	result->root.header = 1 | JB_FARRAY | JB_FSCALAR;
	result->root.children[0] = type | len | JENTRY_HAS_OFF;
	if (len > 0)
		memcpy(&result->root.children[1], data, len);
	return result;
}

/* item for a message: `"high" (string)`, `null`, `[1, 2] (array)`. */
char *
item_description(JsonbValue *item)
{
	Jsonb	   *value = jsonb_from_item(item);

	if (item->type == jbvNull || item->type == jbvBool)
		return json_excerpt(value, MAX_VALUE_SHOWN);
	return psprintf("%s (%s)", json_excerpt(value, MAX_VALUE_SHOWN),
					json_type_name(value));
}

static bool
is_object(const JsonbValue *item)
{
	return item->type == jbvBinary &&
		JsonContainerIsObject(item->val.binary.data);
}

static bool
is_array(const JsonbValue *item)
{
	return item->type == jbvBinary &&
		JsonContainerIsArray(item->val.binary.data);
}

static const char *
an_item(const JsonbValue *item)
{
	switch (item->type)
	{
		case jbvBool:
			return "a boolean";
		case jbvNumeric:
			return "a number";
		case jbvBinary:
			return is_array(item) ? "an array" : "an object";
		default:
			return "a string";
	}
}

static char *
object_keys(JsonbContainer *object)
{
	StringInfoData buf;
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbValue	v;
	JsonbIteratorToken token;
	int			n = 0;

	initStringInfo(&buf);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		if (n++ == MAX_KEYS_SHOWN)
		{
			appendStringInfoString(&buf, ", ...");
			break;
		}
		appendStringInfo(&buf, "%s%.*s", n == 1 ? "" : ", ",
						 v.val.string.len, v.val.string.val);
	}
	return buf.data;
}

/* null on the way counts as missing: best.draft in the first round of best. */
static WalkResult
fault_null(Fault *fault, const char *where)
{
	if (fault)
	{
		fault->missing = true;
		fault->problem = psprintf("%s is null", where);
		fault->hint = psprintf("Use default() in a template, or ask for %s != null first.",
							   where);
	}
	return WALK_MISSING;
}

/*
 * Why value, whose path is `where`, gives no member `key`.  fault may be
 * NULL.
 */
WalkResult
walk_fault_key(Fault *fault, const JsonbValue *value, const char *where,
			   const char *key)
{
	if (value->type == jbvNull)
		return fault_null(fault, where);
	if (fault == NULL)
		return is_object(value) ? WALK_MISSING : WALK_UNFIT;
	if (is_object(value))
	{
		JsonbContainer *object = value->val.binary.data;

		fault->missing = true;
		fault->problem = psprintf("no key \"%s\" in %s", key, where);
		fault->detail = JsonContainerSize(object) == 0 ?
			psprintf("%s is an empty object.", where) :
			psprintf("%s has: %s.", where, object_keys(object));
		fault->hint = pstrdup("Use default() in a template where it may be missing.");
		return WALK_MISSING;
	}
	fault->problem = psprintf("%s is %s, not an object", where,
							  an_item(value));
	fault->detail = psprintf("%s is %s.", where,
							 item_description(unconstify(JsonbValue *, value)));
	if (is_array(value))
		fault->hint = psprintf("Of all elements: %s[*].%s.", where, key);
	return WALK_UNFIT;
}

/* Why value, whose path is `where`, has no elements. */
WalkResult
walk_fault_array(Fault *fault, const JsonbValue *value, const char *where)
{
	if (value->type == jbvNull)
		return fault_null(fault, where);
	if (fault)
	{
		fault->problem = psprintf("%s is %s, not an array", where,
								  an_item(value));
		fault->detail = psprintf("%s is %s.", where,
								 item_description(unconstify(JsonbValue *, value)));
	}
	return WALK_UNFIT;
}

static WalkResult
fault_index(Fault *fault, const char *where, int count, int64 index)
{
	if (fault)
	{
		fault->missing = true;
		fault->problem = psprintf("index out of range, %s has %d element%s",
								  where, count, count == 1 ? "" : "s");
		if (index <= PG_INT32_MAX)
			fault->detail = psprintf("The index is %d, the first element's is 0.",
									 (int) index);
		fault->hint = pstrdup("Use default() in a template where it may be missing.");
	}
	return WALK_MISSING;
}

/* The path so far, with the elements' numbers in place of [*]. */
static char *
path_text(Walk *walk, int nsteps)
{
	ExprSteps  *steps = walk->expr->simple;
	const char *source = walk->expr->source;
	int			start = steps->name_end;
	StringInfoData buf;

	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, source, start);
	for (int i = 0; i < nsteps; i++)
	{
		if (steps->steps[i].kind == STEP_ALL && walk->elements)
			appendStringInfo(&buf, "[%d]", walk->elements[i]);
		else
			appendBinaryStringInfo(&buf, source + start,
								   steps->steps[i].end - start);
		start = steps->steps[i].end;
	}
	return buf.data;
}

/* The number that a name in a subscript stands for, cut like jsonpath does. */
static WalkResult
named_index(Walk *walk, const ExprStep *step, int64 *index)
{
	JsonbValue	item;
	bool		fits;

	jsonb_item(walk->lookup(walk->arg, walk->expr, step->name), &item);
	if (item.type == jbvNull)
		return fault_null(walk->fault, walk->expr->names[step->name]);
	if (item.type == jbvNumeric)
	{
		Datum		number = DirectFunctionCall2(numeric_trunc,
												 NumericGetDatum(item.val.numeric),
												 Int32GetDatum(0));
		Datum		limit = NumericGetDatum(int64_to_numeric(PG_INT32_MAX));

		/* NaN is not in jsonb, and compares greater anyway */
		fits = DatumGetBool(DirectFunctionCall2(numeric_le,
												DirectFunctionCall1(numeric_abs, number),
												limit));
		*index = fits ? DatumGetInt32(DirectFunctionCall1(numeric_int4, number)) :
			PG_INT64_MAX / 2;
		*index += step->offset;
		return WALK_FOUND;
	}
	if (walk->fault)
	{
		walk->fault->problem = psprintf("%s is %s, not a number",
										walk->expr->names[step->name],
										an_item(&item));
		walk->fault->detail = psprintf("%s is %s.",
									   walk->expr->names[step->name],
									   item_description(&item));
	}
	return WALK_UNFIT;
}

static WalkResult
walk_subscript(Walk *walk, JsonbValue *item, int i)
{
	const ExprStep *step = &walk->expr->simple->steps[i];
	WalkResult	result = WALK_FOUND;
	JsonbValue *element;
	int64		index = step->offset;
	int			count;

	if (!is_array(item))
		return walk_fault_array(walk->fault, item,
								walk->fault ? path_text(walk, i) : NULL);
	count = JsonContainerSize(item->val.binary.data);
	if (step->kind == STEP_LAST)
		index += count - 1;
	else if (step->kind == STEP_NAME)
		result = named_index(walk, step, &index);
	if (result != WALK_FOUND)
		return result;
	if (index < 0 || index >= count)
		return fault_index(walk->fault,
						   walk->fault ? path_text(walk, i) : NULL,
						   count, index);
	element = getIthJsonbValueFromContainer(item->val.binary.data,
											(uint32) index);
	*item = *element;
	pfree(element);
	return WALK_FOUND;
}

static WalkResult
walk_key(Walk *walk, JsonbValue *item, int i)
{
	const ExprStep *step = &walk->expr->simple->steps[i];
	JsonbValue	member;

	if (is_object(item) &&
		getKeyJsonValueFromContainer(item->val.binary.data, step->key,
									 step->keylen, &member) != NULL)
	{
		*item = member;
		return WALK_FOUND;
	}
	return walk_fault_key(walk->fault, item,
						  walk->fault ? path_text(walk, i) : NULL, step->key);
}

static WalkResult walk_elements(Walk *walk, JsonbValue *array, int i);

/* Takes the steps from i on.  With a [*] among them items go to walk->state. */
static WalkResult
walk_steps(Walk *walk, JsonbValue *item, int i)
{
	ExprSteps  *steps = walk->expr->simple;

	for (; i < steps->nsteps; i++)
	{
		WalkResult	result;

		if (steps->steps[i].kind == STEP_ALL)
			return walk_elements(walk, item, i);
		if (steps->steps[i].kind == STEP_KEY)
			result = walk_key(walk, item, i);
		else
			result = walk_subscript(walk, item, i);
		if (result != WALK_FOUND)
			return result;
	}
	if (walk->elements)
		(void) pushJsonbValue(&walk->state, WJB_ELEM, item);
	return WALK_FOUND;
}

static WalkResult
walk_elements(Walk *walk, JsonbValue *array, int i)
{
	JsonbIterator *it;
	JsonbValue	element;
	JsonbIteratorToken token;

	if (!is_array(array))
		return walk_fault_array(walk->fault, array,
								walk->fault ? path_text(walk, i) : NULL);
	it = JsonbIteratorInit(array->val.binary.data);
	walk->elements[i] = 0;
	while ((token = JsonbIteratorNext(&it, &element, true)) != WJB_DONE)
	{
		WalkResult	result;

		if (token != WJB_ELEM)
			continue;
		result = walk_steps(walk, &element, i + 1);
		if (result != WALK_FOUND)
			return result;
		walk->elements[i]++;
	}
	return WALK_FOUND;
}

/*
 * The value of expr, which must be simple, into *item; arrays and objects
 * are pointed at where they are, inside what lookup returned, save for the
 * array that [*] makes.  On failure *fault, unless NULL, is filled.
 */
WalkResult
walk_simple(const Expression *expr, ExprLookup lookup, void *arg, JsonbValue *item,
			Fault *fault)
{
	Walk		walk = {expr, lookup, arg, NULL, NULL, fault};
	WalkResult	result;
	Jsonb	   *array;

	if (fault)
		memset(fault, 0, sizeof(Fault));
	jsonb_item(lookup(arg, expr, 0), item);
	if (!expr->many)
		return walk_steps(&walk, item, 0);

	walk.elements = palloc0(expr->simple->nsteps * sizeof(int));
	(void) pushJsonbValue(&walk.state, WJB_BEGIN_ARRAY, NULL);
	result = walk_steps(&walk, item, 0);
	if (result == WALK_FOUND)
	{
		array = JsonbValueToJsonb(pushJsonbValue(&walk.state, WJB_END_ARRAY,
												 NULL));
		jsonb_item(array, item);
	}
	return result;
}
