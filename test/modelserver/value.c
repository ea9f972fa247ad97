/*
 * value.c: one number, text or boolean for a field, from the words around its name.
 */
#include "label.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define NEAR 12 /* words between a field's name and its value */

/* How well a word of the text fits what the field is called: 0 … 1. */
double
value_term_weight(const Terms *terms, const Word *w)
{
	double		best = 0;

	for (int i = 0; i < terms->n && best < 1; i++)
	{
		double		weight = i < terms->own ? 1 : 0.5;

		if (terms->stems[i] == w->stem && !(w->stop && i >= terms->own))
			best = weight > best ? weight : best;
		else if (i < terms->own && text_is_kin(terms->kin[i], w->stem))
			best = best > 0.6 ? best : 0.6;
	}
	return best;
}

/* How far a place in the text is from a word of the field's name: in words, a large number when there is none. */
static double
distance(const Filler *f, const Terms *terms, Scope scope, int word)
{
	double		best = 1000;

	for (int w = word - NEAR * 2 > scope.lo ? word - NEAR * 2 : scope.lo; w < scope.hi && w <= word + NEAR; w++)
	{
		double		weight = value_term_weight(terms, &f->text.words[w]);
		double		apart = w <= word ? word - w : (w - word) * 1.5 + 0.5;

		if (weight > 0)
		{
			if (f->text.words[w].sentence != f->text.words[word < f->text.nwords ? word : f->text.nwords - 1].sentence)
				apart += 6;
			if (apart / weight < best)
				best = apart / weight;
		}
	}
	return best;
}

/* Does a number keep the schema's limits? */
bool
value_number_fits(const json_t *schema, double v, bool whole_wanted)
{
	double		step = schema_limit(schema, "multipleOf", 0);

	if (whole_wanted && (v != floor(v) || fabs(v) > 9e15))
		return false;
	if (step > 0 && fabs(remainder(v, step)) > 1e-9 * fabs(v) + 1e-12)
		return false;
	return v >= schema_limit(schema, "minimum", -HUGE_VAL) && v <= schema_limit(schema, "maximum", HUGE_VAL) &&
		   v > schema_limit(schema, "exclusiveMinimum", -HUGE_VAL) && v < schema_limit(schema, "exclusiveMaximum", HUGE_VAL);
}

/* A range told in the description, as in "1 to 10". */
static bool
described_range(const json_t *schema, double *lo, double *hi)
{
	const char *s = json_string_value(json_object_get(schema, "description"));

	for (; s && *s; s++)
		if (isdigit((unsigned char) *s))
		{
			char	   *end;

			*lo = strtod(s, &end);
			while (*end == ' ' || *end == '-')
				end++;
			if (strncmp(end, "to ", 3) == 0)
				end += 3;
			else if (strncmp(end, "\xe2\x80\xa6", 3) == 0 || strncmp(end, "\xe2\x80\x93", 3) == 0)
				end += 3;
			while (*end == ' ')
				end++;
			*hi = isdigit((unsigned char) *end) ? strtod(end, NULL) : *lo;
			return *hi > *lo;
		}
	return false;
}

/* A number within the limits that depends on the text, for a field that found none. */
static double
number_within(const Filler *f, const json_t *schema, bool whole)
{
	double		step = schema_limit(schema, "multipleOf", whole ? 1 : 0);
	double		lo = schema_limit(schema, "minimum", schema_limit(schema, "exclusiveMinimum", 0));
	double		hi = schema_limit(schema, "maximum", schema_limit(schema, "exclusiveMaximum", 0));
	double		part = (double) (hash_bytes(f->s, f->text.len, 17) % 1000) / 1000;
	double		v;

	if (json_object_get(schema, "maximum") == NULL && json_object_get(schema, "exclusiveMaximum") == NULL &&
		!described_range(schema, &lo, &hi))
		hi = lo + (lo > 0 ? 10 : 0);
	else if (json_object_get(schema, "minimum") == NULL && json_object_get(schema, "exclusiveMinimum") == NULL && lo > hi)
		lo = hi - 10;
	v = lo + part * (hi - lo);
	if (step > 0)
		v = ceil(lo / step) * step + floor(part * (floor(hi / step) - ceil(lo / step)) + 0.5) * step;
	for (int i = 0; i < 3 && !value_number_fits(schema, v, whole); i++)
		v = i == 0 ? (step > 0 ? v + step : (lo + hi) / 2) : i == 1 ? v - 2 * step
																	: lo;
	return v;
}

/*
 * The number nearest to the field's name that keeps its limits, else one within
 * them; found says which it was. whole: an integer.
 */
json_t *
value_number(Filler *f, const json_t *schema, const Terms *terms, Scope scope, bool whole, bool *found)
{
	bool		money = CALLED(terms, "amount", "price", "total", "cost", "fee", "sum", "value", "rent", "salary");
	bool		year = CALLED(terms, "year");
	double		lo;
	double		hi;
	bool		ranged = described_range(schema, &lo, &hi);
	Found	   *best = NULL;
	double		best_apart = 0;
	double		v;

	for (int i = 0; i < f->found.n; i++)
	{
		Found	   *x = &f->found.items[i];
		double		apart;

		if (x->kind != FOUND_NUMBER || x->word < scope.lo || x->word >= scope.hi ||
			!value_number_fits(schema, x->number, whole) || (ranged && (x->number < lo || x->number > hi)) ||
			(year && (x->number < 1000 || x->number > 2999)))
			continue;
		apart = distance(f, terms, scope, x->word) + 30 * x->used - (x->money ? (money ? 8 : -3) : 0);
		if (best == NULL || apart < best_apart)
		{
			best = x;
			best_apart = apart;
		}
	}
	*found = best && best_apart < NEAR * 2;
	if (best == NULL || (!*found && ranged))
		v = number_within(f, schema, whole);
	else
	{
		v = best->number;
		best->used = true;
	}
	return whole ? json_integer((json_int_t) v) : json_real(v);
}

/* The thing of one kind nearest to the field's name. */
static Found *
nearest(Filler *f, FoundKind kind, const Terms *terms, Scope scope, double *apart)
{
	Found	   *best = NULL;

	for (int i = 0; i < f->found.n; i++)
	{
		Found	   *x = &f->found.items[i];
		double		d;

		if (x->kind != kind || x->word < scope.lo || x->word >= scope.hi)
			continue;
		d = distance(f, terms, scope, x->word) + 1000 * x->used;
		if (best == NULL || d < *apart)
		{
			best = x;
			*apart = d;
		}
	}
	return best;
}

static bool
take_found(Filler *f, Buf *out, FoundKind kind, const Terms *terms, Scope scope)
{
	double		apart;
	Found	   *x = nearest(f, kind, terms, scope, &apart);

	if (x == NULL || x->used)
		return false;
	x->used = true;
	if (x->iso[0])
		buf_puts(out, x->iso);
	else
		text_squeeze(out, f->s + x->off, x->len);
	return true;
}

/* The value of a line such as "Party A: Acme Ltd". */
static bool
take_labelled(Filler *f, Buf *out, const Terms *terms, Scope scope)
{
	for (int w = scope.lo; terms->own > 0 && w + terms->own <= scope.hi; w++)
	{
		int			k = 0;
		const Word *last = &f->text.words[w + terms->own - 1];
		size_t		at = last->off + last->len;
		size_t		end;

		while (k < terms->own && f->text.words[w + k].stem == terms->stems[k])
			k++;
		if (k < terms->own || at >= f->text.len || f->s[at] != ':')
			continue;
		at++;
		for (end = at; end < f->text.len && f->s[end] != '\n' && f->s[end] != ';' && end - at < 200; end++)
			if (f->s[end] == '.' && (end + 1 == f->text.len || isspace((unsigned char) f->s[end + 1])))
				break;
		text_squeeze(out, f->s + at, end - at);
		if (out->len > 0)
			return true;
	}
	return false;
}

/* The sentence of the scope with most words that go with the field. */
static bool
take_sentence(Filler *f, Buf *out, const Terms *terms, Scope scope)
{
	int			best = -1;
	double		best_score = 0;
	double		score = 0;

	for (int w = scope.lo; w < scope.hi; w++)
	{
		int			sentence = f->text.words[w].sentence;

		if (w == scope.lo || f->text.words[w - 1].sentence != sentence)
			score = 0;
		score += value_term_weight(terms, &f->text.words[w]);
		if (score > best_score)
		{
			best_score = score;
			best = sentence;
		}
	}
	if (best >= 0)
		text_squeeze(out, f->s + f->text.sentences[best].off, f->text.sentences[best].len);
	return best >= 0;
}

/* The bytes of the scope; *len is set to their number. */
const char *
value_scope_text(const Filler *f, Scope scope, size_t *len)
{
	const Word *first;
	const Word *last;
	size_t		end;

	*len = 0;
	if (scope.lo >= scope.hi)
		return "";
	first = &f->text.words[scope.lo];
	last = &f->text.words[scope.hi - 1];
	end = last->off + last->len;
	if (scope.hi == f->text.nwords)
		end = f->text.len;
	else if (end < f->text.len && strchr(".!?)", f->s[end]))
		end++;
	*len = end - first->off;
	return f->s + first->off;
}

static void
summarise_scope(Filler *f, Buf *out, Scope scope)
{
	size_t		len;
	const char *s = value_scope_text(f, scope, &len);
	Prompt		p = {.instruction = "in one sentence", .instruction_len = 15, .text = s, .text_len = len};

	if (f->summary.data == NULL || f->summary_lo != scope.lo || f->summary_hi != scope.hi)
	{
		buf_reset(&f->summary);
		text_summarise(&f->summary, &p, "", 0);
		f->summary_lo = scope.lo;
		f->summary_hi = scope.hi;
	}
	buf_append(out, f->summary.data, f->summary.len);
}

/* A text in the form that `format` names; false when it names none we know. */
static bool
fill_format(Filler *f, Buf *out, const char *format, const Terms *terms, Scope scope, bool *found)
{
	static const struct
	{
		const char *format;
		FoundKind	kind;
		const char *otherwise;
		const char *tail;
	} formats[] = {
		{"date", FOUND_DATE, "2000-01-01", ""},
		{"date-time", FOUND_DATE, "2000-01-01", "T00:00:00Z"},
		{"time", FOUND_TIME, "00:00:00", "Z"},
		{"email", FOUND_EMAIL, "nobody@example.com", ""},
		{"uri", FOUND_URL, "https://example.com/", ""},
		{"uuid", FOUND_CODE, NULL, ""},
		{"ipv4", FOUND_CODE, NULL, ""},
		{"ipv6", FOUND_CODE, NULL, ""},
		{"hostname", FOUND_CODE, NULL, ""},
		{"duration", FOUND_CODE, NULL, ""}};
	static const char *const plain[] = {"00000000-0000-4000-8000-000000000000", "127.0.0.1", "::1", "localhost", "P1D"};

	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
	{
		if (strcmp(formats[i].format, format) != 0)
			continue;
		if (formats[i].otherwise == NULL)
			buf_puts(out, plain[i - 5]);
		else
		{
			*found = take_found(f, out, formats[i].kind, terms, scope);
			if (!*found)
				buf_puts(out, formats[i].otherwise);
			buf_puts(out, formats[i].tail);
		}
		return true;
	}
	return false;
}

/* A text that fits a pattern: one from the text, else one made up. */
static void
fill_pattern(Filler *f, Buf *out, const char *pattern, Scope scope, bool *found)
{
	for (int w = scope.lo; w < scope.hi && w < scope.lo + 300 && !*found; w++)
	{
		size_t		from = f->text.words[w].off;
		size_t		end = from;
		char	   *word;

		while (end < f->text.len && !isspace((unsigned char) f->s[end]))
			end++;
		while (end > from && strchr(".,;:!?", f->s[end - 1]))
			end--;
		word = mem_copy(f->s + from, end - from);
		*found = pattern_fits(pattern, word);
		if (*found)
			buf_puts(out, word);
		free(word);
	}
	if (!*found)
	{
		Buf			example = {0};

		if (pattern_example(&example, pattern))
			buf_append(out, example.data, example.len);
		buf_free(&example);
	}
}

static bool
take_by_name(Filler *f, Buf *out, const Terms *terms, Scope scope)
{
	if (CALLED(terms, "date", "due", "starts", "ends", "deadline", "day", "begins", "expires"))
		if (take_found(f, out, FOUND_DATE, terms, scope))
			return true;
	if (CALLED(terms, "currency"))
		return take_found(f, out, FOUND_CURRENCY, terms, scope);
	if (CALLED(terms, "email", "mail"))
		return take_found(f, out, FOUND_EMAIL, terms, scope);
	if (CALLED(terms, "url", "link", "website"))
		return take_found(f, out, FOUND_URL, terms, scope);
	if (CALLED(terms, "sku", "code", "id", "iban", "reference", "ref", "product"))
		if (take_found(f, out, FOUND_CODE, terms, scope))
			return true;
	if (CALLED(terms, "name", "party", "person", "company", "customer", "vendor", "merchant", "author", "seller",
			   "buyer", "supplier", "city", "country", "client", "tenant", "landlord", "employer", "title"))
		if (take_found(f, out, FOUND_NAME, terms, scope))
			return true;
	return false;
}

static size_t
count_characters(const char *s, size_t len)
{
	size_t		n = 0;

	for (size_t i = 0; i < len; i++)
		n += ((unsigned char) s[i] & 0xc0) != 0x80;
	return n;
}

/* Cut or fill up to the length that the schema allows, in characters. */
void
value_fit_length(Buf *out, const json_t *schema)
{
	double		max = schema_limit(schema, "maxLength", HUGE_VAL);
	double		min = schema_limit(schema, "minLength", 0);
	size_t		n = 0;

	for (size_t i = 0; i < out->len; i++)
	{
		n += ((unsigned char) out->data[i] & 0xc0) != 0x80;
		if ((double) n > max)
		{
			out->len = i;
			break;
		}
	}
	for (n = count_characters(out->data, out->len); (double) n < min && n < 1000000; n++)
		buf_putc(out, '-');
	out->data[out->len] = '\0';
}

/*
 * A text for the field: in its format or pattern, what stands behind its name
 * and a colon, something of the kind its name tells, a sentence about it.
 */
json_t *
value_string(Filler *f, const json_t *schema, const Terms *terms, Scope scope, bool *found)
{
	const char *format = json_string_value(json_object_get(schema, "format"));
	const char *pattern = json_string_value(json_object_get(schema, "pattern"));
	Buf			out = {0};
	json_t	   *value;

	buf_append(&out, "", 0);
	if (pattern)
		fill_pattern(f, &out, pattern, scope, found);
	else if (format && fill_format(f, &out, format, terms, scope, found))
		;
	else if (take_labelled(f, &out, terms, scope) || take_by_name(f, &out, terms, scope))
		*found = true;
	else if (CALLED(terms, "summary", "critique", "comment", "reason", "explanation", "description", "note", "answer",
					"text", "why", "body", "abstract", "message"))
	{
		summarise_scope(f, &out, scope);
		*found = out.len > 0;
	}
	else if (!(*found = take_sentence(f, &out, terms, scope)))
		summarise_scope(f, &out, scope);
	if (out.len == 0 && pattern == NULL)
		buf_puts(&out, "none");
	if (pattern == NULL || !pattern_fits(pattern, out.data))
		value_fit_length(&out, schema);
	value = json_stringn(out.data, out.len);
	buf_free(&out);
	return value ? value : json_string("none");
}

/* "yes" or "no" behind the field's name, else whether the text speaks of it. */
json_t *
value_boolean(Filler *f, const Terms *terms, Scope scope, bool *found)
{
	static const char *const no_words[] = {"no", "not", "never", "without", "don't", "doesn't", "isn't", "cannot", NULL};
	Buf			said = {0};
	bool		value = false;

	if (take_labelled(f, &said, terms, scope))
	{
		*found = true;
		value = strncasecmp(said.data, "yes", 3) == 0 || strncasecmp(said.data, "true", 4) == 0;
		buf_free(&said);
		return json_boolean(value);
	}
	for (int w = scope.lo; w < scope.hi && !value; w++)
	{
		if (value_term_weight(terms, &f->text.words[w]) < 0.6)
			continue;
		*found = value = true;
		for (int k = w > scope.lo + 2 ? w - 2 : scope.lo; k < w; k++)
			for (const char *const *no = no_words; *no; no++)
				if (f->text.words[k].len == strlen(*no) &&
					strncasecmp(f->s + f->text.words[k].off, *no, strlen(*no)) == 0)
					value = false;
	}
	buf_free(&said);
	return json_boolean(value);
}
