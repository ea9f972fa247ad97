/*
 * yaml_source.h
 *	  The text of a chain's body as its parser sees it: UTF-8, by lines, and
 *	  the errors that are told with a corrected line.
 *
 * Shared by yaml.c, yaml_source.c and yaml_fault.c only.
 */
#ifndef CHAINCALL_YAML_SOURCE_H
#define CHAINCALL_YAML_SOURCE_H

#include "postgres.h"

#include "base/compat.h"

typedef struct YamlSource
{
	const char *text;			/* UTF-8, NUL-terminated */
	int			len;			/* bytes */
	int			nlines;
	int		   *starts;			/* offset of each line's first byte */
	int			index;			/* characters before .. */
	int			offset;			/* .. this byte: where the last look-up ended */
} YamlSource;

struct yaml_parser_s;			/* libyaml's */

/* yaml_source.c */
extern YamlSource *yaml_source_open(const char *body);
extern int	yaml_source_seek(YamlSource *source, size_t index);
extern int	yaml_source_line(const YamlSource *source, int offset);
extern int	yaml_source_line_start(const YamlSource *source, int line);
extern int	yaml_source_line_end(const YamlSource *source, int line);
extern char *yaml_source_text(const char *text, int len, int line);
extern char *yaml_source_quoted(const YamlSource *source, int from, int to);
extern char *yaml_source_without_tabs(const YamlSource *source, int line);
extern int	yaml_source_find_tab(const YamlSource *source, int from, int to);
extern int	yaml_source_find_bare_template(const YamlSource *source, int line);
extern int	yaml_source_template_end(const YamlSource *source, int from,
									bool flow);
extern bool yaml_source_find_value(const YamlSource *source, int line,
								   int *from, int *to);

/* yaml_fault.c */
extern void yaml_fault(YamlSource *source,
					   const struct yaml_parser_s *parser)
	pg_attribute_noreturn();
extern void yaml_fault_tab(const YamlSource *source, int offset)
	pg_attribute_noreturn();
extern void yaml_fault_tag(const YamlSource *source, int offset)
	pg_attribute_noreturn();
extern void yaml_fault_directive(const YamlSource *source, int offset)
	pg_attribute_noreturn();
extern void yaml_fault_template(const YamlSource *source, int offset,
								bool flow) pg_attribute_noreturn();
extern void yaml_fault_comment(const YamlSource *source, int from, int cut,
							   const char *key) pg_attribute_noreturn();

#endif							/* CHAINCALL_YAML_SOURCE_H */
