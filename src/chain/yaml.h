/*
 * yaml.h
 *	  The body of a chain as a tree of nodes that remember their lines.
 */
#ifndef CHAINCALL_YAML_H
#define CHAINCALL_YAML_H

#include "postgres.h"

#include "utils/jsonb.h"

typedef enum YamlType
{
	YAML_NULL,
	YAML_BOOL,
	YAML_NUMBER,
	YAML_STRING,
	YAML_LIST,
	YAML_MAP
} YamlType;

typedef struct YamlNode
{
	YamlType	type;
	int			line;			/* 1 is the line of the opening quote */
	int			text_line;		/* of a scalar: where its text begins; behind
								 * `line` in a block (| or >) */
	bool		plain;			/* a scalar without quotes or block marker */
	const char *text;			/* a scalar's source text, escapes resolved */
	int			count;			/* of a list or map */
	struct YamlNode **items;	/* elements, or values of a map */
	const char **keys;			/* of a map */
	int		   *key_lines;
} YamlNode;

extern YamlNode *yaml_parse(const char *body);
extern YamlNode *yaml_get(const YamlNode *map, const char *key);
extern Jsonb *yaml_json(const YamlNode *node);
extern const char *yaml_type_name(const YamlNode *node);
extern const char *yaml_nearest(const char *word, const char *const *known);

#endif							/* CHAINCALL_YAML_H */
