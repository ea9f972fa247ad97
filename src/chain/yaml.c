/*
 * yaml.c
 *	  The body of a chain as a tree of nodes that remember their lines.
 *
 * libyaml scans and parses; this file builds the tree from its events and
 * holds to what LANGUAGE.md takes of YAML: 1.2's JSON types, and none of the
 * features by which a body could mean something other than what it looks like.
 * Everything libyaml allocates is given back on every way out.
 *
 * Each read_ function begins with the first event of its node as the current
 * one and ends with the last.
 */
#include "postgres.h"

#include <yaml.h>

#include "chain/yaml.h"
#include "chain/yaml_source.h"
#include "miscadmin.h"
#include "utils/hsearch.h"

#define MAX_DEPTH 100			/* lists and maps in one another */
#define MAX_ALIASED_NODES 10000 /* of a body with aliases, all of them expanded */
#define MAX_ANCHOR 64			/* bytes of an anchor's name, with its end */

typedef struct YamlReader
{
	yaml_parser_t parser;
	yaml_event_t event;			/* the current one */
	YamlSource *source;
	int			start;			/* byte at which the event begins */
	int			checked;		/* tabs have been looked for up to this byte */
	int			flow;			/* lists and maps in brackets around here */
	int			depth;			/* lists and maps around here */
	int			deepest;		/* deepest place since the last reset */
	int64		nodes;			/* so far, aliases expanded */
	bool		aliased;
	HTAB	   *anchors;		/* of Anchor; NULL until there is one */
} YamlReader;

typedef struct Anchor
{
	char		name[MAX_ANCHOR];	/* hash key */
	int			line;
	YamlNode   *node;			/* NULL while it is being read */
	int64		nodes;			/* in it, aliases expanded */
	int			height;			/* lists and maps in one another inside it */
} Anchor;

static YamlNode *read_document(YamlReader *reader);
static YamlNode *read_node(YamlReader *reader, const char *key);
static YamlNode *read_scalar(YamlReader *reader, const char *key);
static YamlNode *read_list(YamlReader *reader);
static YamlNode *read_map(YamlReader *reader);
static YamlNode *read_alias(YamlReader *reader);
static const char *read_key(YamlReader *reader);
static void next_event(YamlReader *reader);
static void check_tabs(YamlReader *reader);
static void check_tag(YamlReader *reader);
static void check_cut_text(YamlReader *reader, const char *key);
static void check_duplicate_keys(const YamlNode *map);
static void enter_collection(YamlReader *reader, bool flow);
static void leave_collection(YamlReader *reader, bool flow);
static void count_nodes(YamlReader *reader, int64 nodes);
static Anchor *anchor_begin(YamlReader *reader);
static YamlNode *make_node(YamlReader *reader, YamlType type);
static void append_child(YamlNode *node, YamlNode *child, const char *key,
						 int key_line);
static YamlType plain_type(const char *text);
static bool number_form(const char *text);
static int	event_line(const YamlReader *reader);

/* Keys whose value is text that people write freely. */
static const char *const free_text_keys[] = {
	"prompt", "system", "ask", "sql", "content", "text", NULL
};

/*
 * Parses a body, a NUL-terminated string in the server's encoding.  Returns
 * its root, of any type; the tree is palloc'd in the current context and may
 * share nodes where the body has aliases.  Whatever LANGUAGE.md refuses raises
 * an error whose message begins with "line N: ", N from 1 where the body
 * begins.
 */
YamlNode *
yaml_parse(const char *body)
{
	YamlReader *reader = palloc0(sizeof(YamlReader));
	YamlNode   *root = NULL;

	reader->source = yaml_source_open(body);
	if (!yaml_parser_initialize(&reader->parser))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("libyaml could not allocate a parser.")));
	PG_TRY();
	{
		yaml_parser_set_encoding(&reader->parser, YAML_UTF8_ENCODING);
		yaml_parser_set_input_string(&reader->parser,
									 (const unsigned char *) reader->source->text,
									 reader->source->len);
		root = read_document(reader);
	}
	PG_FINALLY();
	{
		yaml_event_delete(&reader->event);
		yaml_parser_delete(&reader->parser);
	}
	PG_END_TRY();
	return root;
}

static YamlNode *
read_document(YamlReader *reader)
{
	YamlNode   *root;
	bool		empty;

	next_event(reader);			/* stream start */
	next_event(reader);
	if (reader->event.type == YAML_DOCUMENT_START_EVENT)
	{
		if (reader->event.data.document_start.version_directive != NULL ||
			reader->event.data.document_start.tag_directives.start !=
			reader->event.data.document_start.tag_directives.end)
			yaml_fault_directive(reader->source, reader->start);
		next_event(reader);
	}
	empty = reader->event.type == YAML_STREAM_END_EVENT ||
		(reader->event.type == YAML_SCALAR_EVENT &&
		 reader->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
		 reader->event.data.scalar.length == 0);
	if (empty)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line 1: body is empty"),
				 errhint("A body is one step: a key that says its kind, such as model, sql or steps, and others.")));

	root = read_node(reader, NULL);

	next_event(reader);			/* document end */
	next_event(reader);
	if (reader->event.type != YAML_STREAM_END_EVENT)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line %d: a second document begins", event_line(reader)),
				 errhint("A body is one document; leave out the line ---.")));
	return root;
}

/* Reads the value of `key`, or one that has none (NULL). */
static YamlNode *
read_node(YamlReader *reader, const char *key)
{
	YamlNode   *node;
	Anchor	   *anchor;
	int			deepest = reader->deepest;
	int64		nodes = reader->nodes;

	CHECK_FOR_INTERRUPTS();
	if (reader->event.type == YAML_ALIAS_EVENT)
		return read_alias(reader);

	check_tag(reader);
	anchor = anchor_begin(reader);
	count_nodes(reader, 1);
	reader->deepest = reader->depth;

	if (reader->event.type == YAML_SEQUENCE_START_EVENT)
		node = read_list(reader);
	else if (reader->event.type == YAML_MAPPING_START_EVENT)
		node = read_map(reader);
	else
		node = read_scalar(reader, key);

	if (anchor != NULL)
	{
		anchor->node = node;
		anchor->nodes = reader->nodes - nodes;
		anchor->height = reader->deepest - reader->depth;
	}
	reader->deepest = Max(reader->deepest, deepest);
	return node;
}

static YamlNode *
read_scalar(YamlReader *reader, const char *key)
{
	YamlNode   *node = make_node(reader, YAML_STRING);
	yaml_scalar_style_t style = reader->event.data.scalar.style;

	node->text = yaml_source_text((const char *) reader->event.data.scalar.value,
								  reader->event.data.scalar.length, node->line);
	if (style == YAML_PLAIN_SCALAR_STYLE)
	{
		node->plain = true;
		node->type = plain_type(node->text);
		check_cut_text(reader, key);
	}
	else if (style == YAML_LITERAL_SCALAR_STYLE || style == YAML_FOLDED_SCALAR_STYLE)
		node->text_line++;
	return node;
}

static YamlNode *
read_list(YamlReader *reader)
{
	YamlNode   *node = make_node(reader, YAML_LIST);
	bool		flow = reader->event.data.sequence_start.style == YAML_FLOW_SEQUENCE_STYLE;

	enter_collection(reader, flow);
	for (;;)
	{
		next_event(reader);
		if (reader->event.type == YAML_SEQUENCE_END_EVENT)
			break;
		append_child(node, read_node(reader, NULL), NULL, 0);
	}
	leave_collection(reader, flow);
	return node;
}

static YamlNode *
read_map(YamlReader *reader)
{
	YamlNode   *node = make_node(reader, YAML_MAP);
	bool		flow = reader->event.data.mapping_start.style == YAML_FLOW_MAPPING_STYLE;

	if (flow && strncmp(reader->source->text + reader->start, "{{", 2) == 0)
		yaml_fault_template(reader->source, reader->start, reader->flow > 0);

	enter_collection(reader, flow);
	for (;;)
	{
		const char *key;
		int			key_line;

		next_event(reader);
		if (reader->event.type == YAML_MAPPING_END_EVENT)
			break;
		key_line = event_line(reader);
		key = read_key(reader);
		next_event(reader);
		append_child(node, read_node(reader, key), key, key_line);
	}
	leave_collection(reader, flow);
	check_duplicate_keys(node);
	return node;
}

/* The node that an alias names; it is shared, not copied. */
static YamlNode *
read_alias(YamlReader *reader)
{
	const char *name = (const char *) reader->event.data.alias.anchor;
	Anchor	   *anchor = NULL;
	char		key[MAX_ANCHOR] = "";

	if (reader->anchors != NULL && strlen(name) < MAX_ANCHOR)
	{
		strlcpy(key, name, sizeof(key));
		anchor = hash_search(reader->anchors, key, HASH_FIND, NULL);
	}
	if (anchor == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line %d: alias *%s has no anchor before it", event_line(reader), name),
				 errhint("Quote a text that begins with an asterisk.")));
	if (anchor->node == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line %d: alias *%s stands inside what it names", event_line(reader), name),
				 errdetail("The anchor is on line %d.", anchor->line),
				 errhint("An alias repeats a value that has ended; write the value out.")));

	reader->aliased = true;
	count_nodes(reader, anchor->nodes);
	reader->deepest = Max(reader->deepest, reader->depth + anchor->height);
	if (reader->deepest > MAX_DEPTH)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("line %d: nesting deeper than %d levels", event_line(reader), MAX_DEPTH),
				 errdetail("Alias *%s adds %d levels.", name, anchor->height),
				 errhint("Make a chain of its own of the inner steps.")));
	return anchor->node;
}

/* The key that the current event is, in the server's encoding. */
static const char *
read_key(YamlReader *reader)
{
	int			line = event_line(reader);
	const char *text;

	if (reader->event.type == YAML_MAPPING_START_EVENT &&
		strncmp(reader->source->text + reader->start, "{{", 2) == 0)
		yaml_fault_template(reader->source, reader->start, reader->flow > 1);
	if (reader->event.type != YAML_SCALAR_EVENT)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line %d: a key must be text", line),
				 errdetail("It is %s.",
						   reader->event.type == YAML_ALIAS_EVENT ? "an alias" :
						   reader->event.type == YAML_MAPPING_START_EVENT ? "a map" : "a list"),
				 errhint("Quote a text that begins with this character.")));
	check_tag(reader);
	if (reader->event.data.scalar.anchor != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line %d: a key cannot have an anchor", line),
				 errhint("Give it to the value; quote a text that begins with &.")));
	text = yaml_source_text((const char *) reader->event.data.scalar.value,
							reader->event.data.scalar.length, line);
	if (text[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line %d: a key is empty", line),
				 errhint("Quote a text that begins with a colon.")));
	if (strcmp(text, "<<") == 0 &&
		reader->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line %d: merge keys (<<) are not allowed", line),
				 errhint("Write the keys out, or give an alias as the value of a key.")));
	return text;
}

static void
next_event(YamlReader *reader)
{
	yaml_event_delete(&reader->event);
	if (!yaml_parser_parse(&reader->parser, &reader->event))
		yaml_fault(reader->source, &reader->parser);
	reader->start = yaml_source_seek(reader->source, reader->event.start_mark.index);
	check_tabs(reader);
}

/*
 * Looks for tabs between the last event and this one.  Only quoted text and
 * blocks may hold them: libyaml takes some of the others for separators.
 */
static void
check_tabs(YamlReader *reader)
{
	YamlSource *source = reader->source;
	int			from = reader->checked;
	int			to = reader->start;
	int			tab;

	if (reader->event.type == YAML_SCALAR_EVENT &&
		reader->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
	{
		reader->checked = yaml_source_seek(source, reader->event.end_mark.index);
		if (reader->event.data.scalar.style == YAML_LITERAL_SCALAR_STYLE ||
			reader->event.data.scalar.style == YAML_FOLDED_SCALAR_STYLE)
			to = yaml_source_line_start(source, yaml_source_line(source, to) + 1);
	}
	else
		reader->checked = Max(from, to);

	tab = yaml_source_find_tab(source, from, to);
	if (tab >= 0)
		yaml_fault_tab(source, tab);
}

/*
 * Refuses a tag.  The source is asked, because libyaml drops the tag "!".
 */
static void
check_tag(YamlReader *reader)
{
	const char *text = reader->source->text;
	int			i = reader->start;

	if (text[i] == '&')
	{
		i += strcspn(text + i, " \t\r\n");
		i += strspn(text + i, " \t\r\n");
	}
	if (text[i] == '!')
		yaml_fault_tag(reader->source, i);
}

/*
 * Refuses an unquoted value of a free-text key that a comment follows: the
 * comment was meant to be text.
 */
static void
check_cut_text(YamlReader *reader, const char *key)
{
	const char *text = reader->source->text;
	int			end;
	bool		known = false;

	for (int i = 0; key != NULL && free_text_keys[i] != NULL; i++)
		known = known || strcmp(key, free_text_keys[i]) == 0;
	if (!known)
		return;
	end = yaml_source_seek(reader->source, reader->event.end_mark.index);
	end += strspn(text + end, " \t");
	if (text[end] == '#')
		yaml_fault_comment(reader->source,
						   reader->event.data.scalar.length == 0 ? end : reader->start,
						   end, key);
}

static int
compare_keys(const void *a, const void *b, void *arg)
{
	const YamlNode *map = arg;
	int			i = *(const int *) a;
	int			k = *(const int *) b;
	int			order = strcmp(map->keys[i], map->keys[k]);

	return order != 0 ? order : i - k;
}

static void
check_duplicate_keys(const YamlNode *map)
{
	int		   *order = palloc(sizeof(int) * Max(map->count, 1));

	for (int i = 0; i < map->count; i++)
		order[i] = i;
	qsort_arg(order, map->count, sizeof(int), compare_keys, unconstify(YamlNode *, map));
	for (int i = 1; i < map->count; i++)
	{
		int			first = order[i - 1];
		int			second = order[i];

		if (strcmp(map->keys[first], map->keys[second]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("line %d: key \"%s\" is there twice",
							map->key_lines[second], map->keys[second]),
					 errdetail("The first is on line %d.", map->key_lines[first]),
					 errhint("Leave one of them out, or give it another name.")));
	}
	pfree(order);
}

static void
enter_collection(YamlReader *reader, bool flow)
{
	reader->flow += flow;
	reader->depth++;
	reader->deepest = Max(reader->deepest, reader->depth);
	if (reader->depth > MAX_DEPTH)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("line %d: nesting deeper than %d levels", event_line(reader), MAX_DEPTH),
				 errhint("Make a chain of its own of the inner steps.")));
}

static void
leave_collection(YamlReader *reader, bool flow)
{
	reader->flow -= flow;
	reader->depth--;
}

/* A body may be long by itself, but not by few words. */
static void
count_nodes(YamlReader *reader, int64 nodes)
{
	reader->nodes += nodes;
	if (reader->aliased && reader->nodes > MAX_ALIASED_NODES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("line %d: aliases make this body larger than %d nodes",
						event_line(reader), MAX_ALIASED_NODES),
				 errhint("Pass large values as arguments, or read them in a sql step.")));
}

/* The entry of the current event's anchor, to be completed; NULL: it has none. */
static Anchor *
anchor_begin(YamlReader *reader)
{
	const yaml_event_t *event = &reader->event;
	const char *name = (const char *)
		(event->type == YAML_SCALAR_EVENT ? event->data.scalar.anchor :
		 event->type == YAML_SEQUENCE_START_EVENT ? event->data.sequence_start.anchor :
		 event->data.mapping_start.anchor);
	char		key[MAX_ANCHOR] = "";
	Anchor	   *anchor;
	bool		found;

	if (name == NULL)
		return NULL;
	if (strlen(name) >= MAX_ANCHOR)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("line %d: name of an anchor is longer than %d bytes",
						event_line(reader), MAX_ANCHOR - 1),
				 errhint("Give it a shorter name.")));
	if (reader->anchors == NULL)
	{
		HASHCTL		control = {0};

		control.keysize = MAX_ANCHOR;
		control.entrysize = sizeof(Anchor);
		control.hcxt = CurrentMemoryContext;
		reader->anchors = hash_create("chaincall yaml anchors", 32, &control,
									  HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	}
	strlcpy(key, name, sizeof(key));
	anchor = hash_search(reader->anchors, key, HASH_ENTER, &found);
	if (found)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("line %d: anchor &%s is there twice", event_line(reader), name),
				 errdetail("The first is on line %d.", anchor->line),
				 errhint("Give one of them another name.")));
	anchor->line = event_line(reader);
	anchor->node = NULL;
	return anchor;
}

static YamlNode *
make_node(YamlReader *reader, YamlType type)
{
	YamlNode   *node = palloc0(sizeof(YamlNode));

	node->type = type;
	node->line = event_line(reader);
	node->text_line = node->line;
	return node;
}

/* Appends to a list (key NULL) or map; the arrays double when full. */
static void
append_child(YamlNode *node, YamlNode *child, const char *key, int key_line)
{
	int			n = node->count;
	bool		full = n >= 4 && (n & (n - 1)) == 0;

	if (n == 0)
	{
		node->items = palloc(4 * sizeof(YamlNode *));
		if (key != NULL)
		{
			node->keys = palloc(4 * sizeof(char *));
			node->key_lines = palloc(4 * sizeof(int));
		}
	}
	else if (full)
	{
		node->items = repalloc(node->items, 2 * n * sizeof(YamlNode *));
		if (key != NULL)
		{
			node->keys = repalloc(node->keys, 2 * n * sizeof(char *));
			node->key_lines = repalloc(node->key_lines, 2 * n * sizeof(int));
		}
	}
	node->items[n] = child;
	if (key != NULL)
	{
		node->keys[n] = key;
		node->key_lines[n] = key_line;
	}
	node->count++;
}

/* YAML 1.2's JSON schema, with ~ and nothing for null as its core schema has them. */
static YamlType
plain_type(const char *text)
{
	if (text[0] == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0)
		return YAML_NULL;
	if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
		return YAML_BOOL;
	return number_form(text) ? YAML_NUMBER : YAML_STRING;
}

/* -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)? */
static bool
number_form(const char *text)
{
	const char *digits = "0123456789";
	const char *p = text;
	size_t		n;

	if (*p == '-')
		p++;
	n = strspn(p, digits);
	if (n == 0 || (n > 1 && *p == '0'))
		return false;
	p += n;
	if (*p == '.')
	{
		n = strspn(++p, digits);
		if (n == 0)
			return false;
		p += n;
	}
	if (*p == 'e' || *p == 'E')
	{
		p++;
		if (*p == '+' || *p == '-')
			p++;
		n = strspn(p, digits);
		if (n == 0)
			return false;
		p += n;
	}
	return *p == '\0';
}

static int
event_line(const YamlReader *reader)
{
	return yaml_source_line(reader->source, reader->start);
}
