/*
 * label.h: what the parts of the model `labels` share: label.c walks the
 * schema, schema.c reads it, value.c fills a scalar, found.c knows what the text
 * holds, pattern.c knows regular expressions.
 */
#ifndef MODELSERVER_LABEL_H
#define MODELSERVER_LABEL_H

#include "server.h"
#include "text.h"

typedef enum FoundKind
{
	FOUND_NUMBER,
	FOUND_DATE,
	FOUND_TIME,
	FOUND_EMAIL,
	FOUND_URL,
	FOUND_CURRENCY,
	FOUND_CODE,
	FOUND_NAME
} FoundKind;

/* Something in the text that could be a field's value. */
typedef struct Found
{
	FoundKind	kind;
	size_t		off;
	size_t		len;
	int			word;			/* the word it stands at */
	double		number;
	bool		whole;			/* a number without a fraction */
	bool		money;			/* a number beside a currency */
	bool		used;
	char		iso[24];		/* a date, time or currency in its standard form */
} Found;

typedef struct FoundList
{
	Found	   *items;
	int			n;
	int			room;
	unsigned char *map;			/* for each byte of the text: 0, or 1 + the kind found there */
} FoundList;

#define MAX_TERMS 24

typedef struct Filler
{
	const json_t *root;
	const char *s;
	Text		text;
	FoundList	found;
	json_t	   *made;			/* schemas merged on the way, freed at the end */
	Buf			summary;		/* of the scope below; asked for by many fields */
	int			summary_lo;
	int			summary_hi;
	int			depth;
	int			nodes;
	long		work;			/* words looked at, about */
} Filler;

/* The part of the text that a value may come from. */
typedef struct Scope
{
	int			lo;				/* words lo … hi - 1 */
	int			hi;
} Scope;

/* What a field is called: the words to look for. */
typedef struct Terms
{
	const char *name;
	uint64_t	stems[MAX_TERMS];
	int			kin[MAX_TERMS]; /* their places in the table of kin.c */
	int			own;			/* so many come from the name, the rest from the description */
	int			n;
} Terms;

/* Is the field called one of these? */
#define CALLED(terms, ...) schema_called((terms), (const char *const[]){__VA_ARGS__, NULL})

extern const json_t *schema_resolve(Filler *f, const json_t *schema);
extern void schema_merge(json_t *schema, const json_t *other);
extern bool schema_has_type(const json_t *schema, const char *type);
extern const char *schema_type(const json_t *schema);
extern double schema_limit(const json_t *schema, const char *key, double otherwise);
extern bool schema_requires(const json_t *schema, const char *name);
extern Terms schema_terms(const json_t *schema, const char *name);
extern void schema_add_terms(Terms *terms, const char *s);
extern bool schema_called(const Terms *terms, const char *const *names);

extern double value_term_weight(const Terms *terms, const Word *w);
extern bool value_number_fits(const json_t *schema, double v, bool whole_wanted);
extern const char *value_scope_text(const Filler *f, Scope scope, size_t *len);
extern void value_fit_length(Buf *out, const json_t *schema);
extern json_t *value_number(Filler *f, const json_t *schema, const Terms *terms, Scope scope, bool whole, bool *found);
extern json_t *value_string(Filler *f, const json_t *schema, const Terms *terms, Scope scope, bool *found);
extern json_t *value_boolean(Filler *f, const Terms *terms, Scope scope, bool *found);

extern void found_scan(FoundList *list, const Text *t);
extern void found_free(FoundList *list);
extern bool pattern_fits(const char *pattern, const char *s);
extern bool pattern_example(Buf *out, const char *pattern);

#endif
