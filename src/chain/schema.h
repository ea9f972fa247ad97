/*
 * schema.h
 *	  A JSON Schema compiled for checking.
 *
 * Shared by schema.c (compiles), schema_check.c (checks) and shape.c only.
 */
#ifndef CHAINCALL_SCHEMA_H
#define CHAINCALL_SCHEMA_H

#include "postgres.h"

#include "chain/yaml.h"
#include "lib/stringinfo.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

/* Bits of Schema.types. */
#define SCHEMA_NULL		(1 << 0)
#define SCHEMA_BOOLEAN	(1 << 1)
#define SCHEMA_INTEGER	(1 << 2)
#define SCHEMA_NUMBER	(1 << 3)
#define SCHEMA_STRING	(1 << 4)
#define SCHEMA_ARRAY	(1 << 5)
#define SCHEMA_OBJECT	(1 << 6)

/* Bits of Schema.groups: which kinds of keywords it has. */
#define SCHEMA_HAS_NUMBER	(1 << 0)
#define SCHEMA_HAS_STRING	(1 << 1)
#define SCHEMA_HAS_ARRAY	(1 << 2)
#define SCHEMA_HAS_OBJECT	(1 << 3)
#define SCHEMA_HAS_LOGIC	(1 << 4)

#define SCHEMA_NO_COUNT INT64CONST(-1)

typedef struct Schema Schema;

typedef struct SchemaList
{
	int			count;
	Schema	  **items;
} SchemaList;

typedef struct SchemaValues
{
	int			count;
	JsonbValue *items;
} SchemaValues;

typedef struct SchemaRegex
{
	const char *source;			/* as written */
	text	   *regex;			/* in PostgreSQL's flavour */
} SchemaRegex;

typedef struct SchemaProperty
{
	const char *name;
	int			len;			/* bytes */
	bool		required;
	Schema	   *schema;			/* NULL: only required */
} SchemaProperty;

typedef struct SchemaPattern
{
	SchemaRegex regex;
	Schema	   *schema;
} SchemaPattern;

/* dependentRequired: where `name` is, all of `needs` must be. */
typedef struct SchemaDependent
{
	const char *name;
	int			nneeds;
	const char **needs;
} SchemaDependent;

typedef bool (*SchemaFormatCheck) (const char *text);

typedef struct SchemaFormat
{
	const char *name;
	SchemaFormatCheck check;	/* text: NUL-terminated */
	const char *expected;		/* for messages: "date (YYYY-MM-DD)" */
} SchemaFormat;

/* NULL, empty or SCHEMA_NO_COUNT: the keyword is not there. */
struct Schema
{
	bool		never;			/* the schema false */
	unsigned char color;		/* of walks over all schemas */
	unsigned int types;			/* 0: any */
	unsigned int groups;
	SchemaValues one_of_values; /* enum */
	JsonbValue *constant;

	Numeric		minimum;
	Numeric		maximum;
	Numeric		exclusive_minimum;
	Numeric		exclusive_maximum;
	Numeric		multiple_of;

	int64		min_length;		/* characters */
	int64		max_length;
	SchemaRegex *pattern;
	const SchemaFormat *format;

	SchemaList	prefix_items;
	Schema	   *items;
	Schema	   *contains;
	int64		min_contains;
	int64		max_contains;
	int64		min_items;
	int64		max_items;
	bool		unique_items;

	int			nproperties;
	SchemaProperty *properties;
	int			npatterns;
	SchemaPattern *patterns;
	Schema	   *additional;
	Schema	   *names;			/* propertyNames */
	int64		min_properties;
	int64		max_properties;
	int			ndependents;
	SchemaDependent *dependents;

	Schema	   *ref;
	SchemaList	all_of;
	SchemaList	any_of;
	SchemaList	one_of;
	Schema	   *not_schema;
	Schema	   *if_schema;
	Schema	   *then_schema;
	Schema	   *else_schema;
};

/* What a check found beside fit or unfit. */
typedef struct SchemaVerdict
{
	char	   *why;			/* unfit: palloc'd message */
	bool		absent;			/* fit: a property that need not be there is not,
								 * or an integer is written with a fraction */
} SchemaVerdict;

/* Where in a value: an element of `up`, or a field of it if key is set. */
typedef struct SchemaPlace
{
	const struct SchemaPlace *up;	/* NULL: the value itself */
	const char *key;
	int			len;			/* bytes of key */
	int			index;
} SchemaPlace;

/* schema.c */
extern Schema *schema_compile(const Jsonb *json, const YamlNode *source);
extern bool schema_integral(Numeric number);

/* schema_check.c */
extern bool schema_check(const Schema *schema, const Jsonb *value,
						 const char *field, SchemaVerdict *verdict);
extern unsigned int schema_type_of(const JsonbValue *v);

/* schema_text.c */
extern char *schema_seen(const JsonbValue *v);
extern char *schema_value_list(const SchemaValues *values);
extern char *schema_type_list(unsigned int types);
extern char *schema_field_list(const Schema *s);
extern void schema_append_place(StringInfo buf, const SchemaPlace *at);
extern const char *schema_number_text(Numeric number);

/* schema_format.c */
extern const SchemaFormat *schema_format(const char *name);

/* schema_regex.c */
extern void schema_regex_compile(SchemaRegex *regex, const char *source, int line);
extern bool schema_regex_match(const SchemaRegex *regex, const char *text,
							   int len, bool *matches);

/* schema_walk.c */
extern bool schema_loops(Schema *schema);
extern bool schema_strict(Schema *schema);

#endif							/* CHAINCALL_SCHEMA_H */
