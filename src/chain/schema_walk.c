/*
 * schema_walk.c
 *	  Questions about a compiled schema as a whole.
 *
 * Schemas form a graph that references may close to circles, so each walk
 * colours what it has seen.
 */
#include "postgres.h"

#include "chain/schema.h"
#include "miscadmin.h"

/* Values of Schema.color: how far a walk over the schemas has come with one. */
enum
{
	UNSEEN = 0,
	LOOP_ON_THE_WAY,
	LOOP_DONE,
	STRICT_SEEN
};

static bool any_loops(const SchemaList *list);

/*
 * Does the schema lead back to itself for the same value?  Depth first over
 * what looks at that value; all schemas of one compilation must be asked.
 */
bool
schema_loops(Schema *schema)
{
	bool		found;

	check_stack_depth();
	if (schema == NULL || schema->color == LOOP_DONE)
		return false;
	if (schema->color == LOOP_ON_THE_WAY)
		return true;
	schema->color = LOOP_ON_THE_WAY;
	found = schema_loops(schema->ref) || any_loops(&schema->all_of) ||
		any_loops(&schema->any_of) || any_loops(&schema->one_of) ||
		schema_loops(schema->not_schema) || schema_loops(schema->if_schema) ||
		schema_loops(schema->then_schema) || schema_loops(schema->else_schema);
	schema->color = LOOP_DONE;
	return found;
}

/*
 * Would OpenAI's strict mode take it?  There every schema has a type, every
 * object is closed and requires all its properties, and only some keywords are
 * known (OpenAI API, "Structured model outputs", supported schemas).
 */
bool
schema_strict(Schema *schema)
{
	if (schema == NULL || schema->color == STRICT_SEEN)
		return true;
	schema->color = STRICT_SEEN;

	if (schema->never || schema->min_length >= 0 || schema->max_length >= 0 ||
		schema->prefix_items.count > 0 || schema->contains != NULL || schema->unique_items ||
		schema->npatterns > 0 || schema->names != NULL || schema->ndependents > 0 ||
		schema->min_properties >= 0 || schema->max_properties >= 0 ||
		schema->all_of.count > 0 || schema->one_of.count > 0 ||
		schema->not_schema != NULL || schema->if_schema != NULL)
		return false;
	if (schema->types == 0 && schema->ref == NULL && schema->any_of.count == 0)
		return false;
	if ((schema->types & SCHEMA_ARRAY) && schema->items == NULL)
		return false;
	if ((schema->types & SCHEMA_OBJECT) &&
		(schema->additional == NULL || !schema->additional->never))
		return false;
	for (int i = 0; i < schema->nproperties; i++)
	{
		SchemaProperty *property = &schema->properties[i];

		if (!property->required || property->schema == NULL || !schema_strict(property->schema))
			return false;
	}
	for (int i = 0; i < schema->any_of.count; i++)
		if (!schema_strict(schema->any_of.items[i]))
			return false;
	return schema_strict(schema->items) && schema_strict(schema->ref);
}

static bool
any_loops(const SchemaList *list)
{
	for (int i = 0; i < list->count; i++)
		if (schema_loops(list->items[i]))
			return true;
	return false;
}
