/*
 * shape_type.h
 *	  SQL types as JSON Schema.
 *
 * Shared by shape.c and shape_type.c only.
 */
#ifndef CHAINCALL_SHAPE_TYPE_H
#define CHAINCALL_SHAPE_TYPE_H

#include "postgres.h"

#include "utils/jsonb.h"

/* How a schema is going to be used. */
typedef enum ShapeForm
{
	FORM_CHECK,					/* answers are checked against it */
	FORM_WIRE					/* sent to a model: OpenAI's strict mode */
} ShapeForm;

extern void shape_type_lookup(const char *name, int line, Oid *type, int32 *typmod);
extern Jsonb *shape_type_schema(Oid type, int32 typmod, ShapeForm form,
								bool nullable, const char *description, int line);

/* Building schemas: shape_type.c's, used by shape.c too. */
extern void shape_begin(JsonbParseState **state, const char *type, bool nullable);
extern void shape_put(JsonbParseState **state, const char *key, const Jsonb *value);
extern void shape_put_text(JsonbParseState **state, const char *key, const char *text);
extern Jsonb *shape_end(JsonbParseState **state, const char *description);

#endif							/* CHAINCALL_SHAPE_TYPE_H */
