/*
 * found.c: what a text holds that could fill a field: numbers, dates, times,
 * addresses, currencies, codes and names, each with the place it stands at.
 */
#include "label.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static Found *
add_found(FoundList *list, FoundKind kind, size_t off, size_t len)
{
	Found	   *f;

	if (list->n == list->room)
	{
		list->room = list->room ? list->room * 2 : 32;
		list->items = mem_resize(list->items, sizeof(Found) * (size_t) list->room);
	}
	f = &list->items[list->n++];
	memset(f, 0, sizeof(*f));
	f->kind = kind;
	f->off = off;
	f->len = len;
	memset(list->map + off, kind + 1, len);
	return f;
}

/* The word at or behind an offset. */
static int
word_at(const Text *t, size_t off)
{
	int			lo = 0;
	int			hi = t->nwords;

	while (lo < hi)
	{
		int			mid = (lo + hi) / 2;

		if (t->words[mid].off + t->words[mid].len <= off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* 1 … 12 for a month's English name or its first three letters, else 0. */
static int
month_of(const char *s, size_t len)
{
	static const char *const names[] = {
		"january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
		"november", "december"};

	for (int i = 0; i < 12; i++)
		if ((len == 3 || len == strlen(names[i])) && strncasecmp(names[i], s, len) == 0)
			return i + 1;
	return 0;
}

static bool
is_date(int y, int m, int d)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool		leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;

	return y >= 1000 && y <= 9999 && m >= 1 && m <= 12 && d >= 1 && d <= days[m - 1] + (m == 2 && leap);
}

/* A number of one to max digits at p; how many digits it has. */
static int
digits(const char *p, const char *end, int max, int *n)
{
	int			len = 0;

	*n = 0;
	while (p + len < end && len < max && isdigit((unsigned char) p[len]))
		*n = *n * 10 + p[len++] - '0';
	return len;
}

/* 2024-03-12, 12.03.2024 or 03/12/2024 at p: its length, or 0. */
static size_t
numeric_date(const char *p, const char *end, int *y, int *m, int *d)
{
	int			a,
		b,
		c;
	int			la = digits(p, end, 4, &a);
	int			lb;
	int			lc;
	char		sep;

	if (la == 0 || la == 3 || p + la >= end || !strchr("-/.", p[la]))
		return 0;
	sep = p[la];
	lb = digits(p + la + 1, end, 2, &b);
	if (lb == 0 || p + la + 1 + lb >= end || p[la + 1 + lb] != sep)
		return 0;
	lc = digits(p + la + lb + 2, end, 4, &c);
	if (la == 4 && lc >= 1 && lc <= 2)
		*y = a, *m = b, *d = c;
	else if (la <= 2 && lc == 4 && (sep == '.' || a > 12))
		*y = c, *m = b, *d = a;
	else if (la <= 2 && lc == 4)
		*y = c, *m = a, *d = b;
	else
		return 0;
	return is_date(*y, *m, *d) ? (size_t) (la + lb + lc + 2) : 0;
}

/* "12 March 2024", "March 12, 2024" and the like from word w on: how many words, or 0. */
static int
written_date(const Text *t, int w, int *y, int *m, int *d)
{
	int			at[3];
	int			n = 0;
	int			month = 0;
	int			month_at = -1;

	for (int i = w; i < t->nwords && i < w + 4 && n < 3; i++)
	{
		const Word *word = &t->words[i];
		const char *s = t->s + word->off;

		if (month_at < 0 && !word->digit && (month = month_of(s, word->len)) > 0)
			month_at = n;
		else if (!word->digit && !(word->len == 2 && strncasecmp(s, "of", 2) == 0 && i > w))
			return 0;
		if (word->digit || month_at == n)
			at[n++] = i;
	}
	if (n != 3 || month_at < 0 || month_at > 1)
		return 0;
	*m = month;
	*d = atoi(t->s + t->words[at[month_at == 0 ? 1 : 0]].off);
	*y = atoi(t->s + t->words[at[2]].off);
	return t->words[at[2]].len == 4 && is_date(*y, *m, *d) ? at[2] - w + 1 : 0;
}

/* Is the place inside something already found? */
static bool
is_covered(const FoundList *list, size_t off)
{
	return list->map[off] != 0;
}

static void
scan_dates(FoundList *list, const Text *t)
{
	int			y,
		m,
		d;

	for (int w = 0; w < t->nwords; w++)
	{
		const Word *word = &t->words[w];
		const char *p = t->s + word->off;
		size_t		len = word->digit ? numeric_date(p, t->s + t->len, &y, &m, &d) : 0;
		int			n = len == 0 ? written_date(t, w, &y, &m, &d) : 0;

		if (n > 0)
			len = t->words[w + n - 1].off + t->words[w + n - 1].len - word->off;
		if (len == 0 || is_covered(list, word->off))
			continue;
		snprintf(add_found(list, FOUND_DATE, word->off, len)->iso, 24, "%04d-%02d-%02d", y, m, d);
	}
}

static void
scan_times(FoundList *list, const Text *t)
{
	const char *end = t->s + t->len;

	for (int w = 0; w < t->nwords; w++)
	{
		const char *p = t->s + t->words[w].off;
		int			h,
			m;
		int			lh = t->words[w].digit ? digits(p, end, 2, &h) : 0;

		if (lh > 0 && p + lh + 2 < end + 0 && p[lh] == ':' && digits(p + lh + 1, end, 2, &m) == 2 && h < 24 && m < 60)
			snprintf(add_found(list, FOUND_TIME, t->words[w].off, (size_t) lh + 3)->iso, 24, "%02d:%02d:00", h, m);
	}
}

/* Runs without white space that hold an @ or ://. */
static void
scan_addresses(FoundList *list, const Text *t)
{
	for (size_t i = 0; i < t->len;)
	{
		size_t		from = i;
		const char *p = t->s + i;
		const char *at;
		size_t		len;

		while (i < t->len && !isspace((unsigned char) t->s[i]) && !strchr("<>()\",;", t->s[i]))
			i++;
		len = i - from;
		if (len == 0)
		{
			i++;
			continue;
		}
		while (len > 0 && strchr(".:!?'", p[len - 1]))
			len--;
		at = memchr(p, '@', len);
		if (at && at > p && memchr(at, '.', (size_t) (p + len - at)))
			add_found(list, FOUND_EMAIL, from, len);
		else if (len > 8 && (strncmp(p, "http://", 7) == 0 || strncmp(p, "https://", 8) == 0))
			add_found(list, FOUND_URL, from, len);
	}
}

static void
scan_currencies(FoundList *list, const Text *t)
{
	static const struct
	{
		const char *mark;
		const char *code;
	} marks[] = {
		{"$", "USD"}, {"\xe2\x82\xac", "EUR"}, {"\xc2\xa3", "GBP"}, {"\xc2\xa5", "JPY"}, {"EUR", "EUR"}, {"USD", "USD"}, {"GBP", "GBP"}, {"CHF", "CHF"}, {"JPY", "JPY"}, {"SEK", "SEK"}, {"DKK", "DKK"}, {"NOK", "NOK"}, {"PLN", "PLN"}, {"CAD", "CAD"}, {"AUD", "AUD"}, {"CNY", "CNY"}, {"INR", "INR"}, {"euro", "EUR"}, {"dollar", "USD"}};

	for (size_t i = 0; i < t->len; i++)
	{
		if (i > 0 && isalpha((unsigned char) t->s[i - 1]) && isalpha((unsigned char) t->s[i]))
			continue;
		for (size_t k = 0; k < sizeof(marks) / sizeof(marks[0]); k++)
		{
			size_t		len = strlen(marks[k].mark);

			if (i + len <= t->len && memcmp(t->s + i, marks[k].mark, len) == 0)
			{
				strcpy(add_found(list, FOUND_CURRENCY, i, len)->iso, marks[k].code);
				break;
			}
		}
	}
}

/* A number such as -1,250.50 at offset i: its length, or 0. */
static size_t
number_at(const Text *t, size_t i, double *value, bool *whole)
{
	char		plain[64];
	size_t		n = 0;
	size_t		k = i;

	*whole = true;
	if (t->s[k] == '-')
		plain[n++] = t->s[k++];
	while (k < t->len && n < sizeof(plain) - 1)
	{
		bool		digit = isdigit((unsigned char) t->s[k]);
		bool		more = k + 1 < t->len && isdigit((unsigned char) t->s[k + 1]);

		if (t->s[k] == ',' && k + 3 < t->len && more && isdigit((unsigned char) t->s[k + 2]) &&
			isdigit((unsigned char) t->s[k + 3]) && *whole)
		{
			k++;
			continue;
		}
		if (t->s[k] == '.' && more && *whole)
			*whole = false;
		else if (!digit)
			break;
		plain[n++] = t->s[k++];
	}
	plain[n] = '\0';
	*value = strtod(plain, NULL);
	if (k < t->len && isalpha((unsigned char) t->s[k]))
		return 0; /* part of a code */
	return k - i;
}

/* Does a currency stand right before or after, or one space away? */
static bool
money_beside(const FoundList *list, size_t len, size_t off, size_t end)
{
	for (size_t i = off > 2 ? off - 2 : 0; i < end + 2 && i < len; i++)
		if (list->map[i] == FOUND_CURRENCY + 1)
			return true;
	return false;
}

static void
scan_numbers(FoundList *list, const Text *t)
{
	for (size_t i = 0; i < t->len; i++)
	{
		char		before = i > 0 ? t->s[i - 1] : ' ';
		bool		minus = t->s[i] == '-' && i + 1 < t->len && isdigit((unsigned char) t->s[i + 1]) && isspace((unsigned char) before);
		double		value;
		bool		whole;
		size_t		len;
		Found	   *f;

		if (!isdigit((unsigned char) t->s[i]) && !minus)
			continue;
		if (isalnum((unsigned char) before) || (before == '-' && i > 1 && isalnum((unsigned char) t->s[i - 2])) ||
			before == '_' || is_covered(list, i) || (len = number_at(t, i, &value, &whole)) == 0)
		{
			while (i + 1 < t->len && isdigit((unsigned char) t->s[i + 1]))
				i++;
			continue;
		}
		if (isfinite(value))
		{
			bool		money = money_beside(list, t->len, i, i + len);

			f = add_found(list, FOUND_NUMBER, i, len);
			f->number = value;
			f->whole = whole;
			f->money = money;
		}
		i += len - 1;
	}
}

/* Codes: runs of letters, digits and hyphens that mix them. */
static void
scan_codes(FoundList *list, const Text *t)
{
	for (size_t i = 0; i < t->len;)
	{
		size_t		from = i;
		bool		digit = false;
		bool		letter = false;

		while (i < t->len && (isalnum((unsigned char) t->s[i]) || (strchr("-_/", t->s[i]) && t->s[i] && i > from)))
		{
			digit = digit || isdigit((unsigned char) t->s[i]);
			letter = letter || isupper((unsigned char) t->s[i]);
			i++;
		}
		if (digit && letter && !is_covered(list, from))
			add_found(list, FOUND_CODE, from, i - from);
		i = i > from ? i : i + 1;
	}
}

/* Names: runs of capitalised words; one alone at a sentence's start is none. */
static void
scan_names(FoundList *list, const Text *t)
{
	for (int w = 0; w < t->nwords;)
	{
		int			first = w;
		const Word *last;
		size_t		end;

		while (w < t->nwords && w < first + 6 && t->words[w].capital && !(t->words[w].stop && t->words[w].len > 1) &&
			   t->words[w].sentence == t->words[first].sentence &&
			   month_of(t->s + t->words[w].off, t->words[w].len) == 0 &&
			   (w == first || (t->words[w].off - t->words[w - 1].off - t->words[w - 1].len <= 2 &&
							   !memchr(t->s + t->words[w].off - 1, '\n', 1) &&
							   !memchr(t->s + t->words[w - 1].off + t->words[w - 1].len, ',', 1) &&
							   !memchr(t->s + t->words[w - 1].off + t->words[w - 1].len, ':', 1))))
			w++;
		if (w == first || (w == first + 1 && t->sentences[t->words[first].sentence].first == first))
		{
			w = w == first ? w + 1 : w;
			continue;
		}
		last = &t->words[w - 1];
		end = last->off + last->len;
		add_found(list, FOUND_NAME, t->words[first].off, end - t->words[first].off);
	}
}

static int
compare_found(const void *a, const void *b)
{
	const Found *x = a;
	const Found *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

/* Fill the list with all that the text holds, in its order. Free with found_free. */
void
found_scan(FoundList *list, const Text *t)
{
	memset(list, 0, sizeof(*list));
	list->map = mem_alloc(t->len);
	scan_dates(list, t);
	scan_times(list, t);
	scan_addresses(list, t);
	scan_currencies(list, t);
	scan_numbers(list, t);
	scan_codes(list, t);
	scan_names(list, t);
	if (list->n > 0)
		qsort(list->items, (size_t) list->n, sizeof(Found), compare_found);
	for (int i = 0; i < list->n; i++)
		list->items[i].word = word_at(t, list->items[i].off);
}

/* Give back what found_scan took. */
void
found_free(FoundList *list)
{
	free(list->items);
	free(list->map);
	memset(list, 0, sizeof(*list));
}
