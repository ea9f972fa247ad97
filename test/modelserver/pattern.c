/*
 * pattern.c: the `pattern` of a JSON schema: does a text fit, and a text that does.
 *
 * Patterns are ECMA-262's; the part that schemas use is translated to POSIX
 * extended expressions. Look-around is not known: such a pattern fits nothing.
 */
#include "label.h"

#include <ctype.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PATTERN 200
#define MAX_REPEAT	1000 /* product of all counts: the C library's matcher unrolls them */
#define MAX_DEPTH	20

/* Is it small enough to be compiled? */
static bool
is_tame(const char *pattern)
{
	double		repeat = 1;

	for (const char *p = pattern; *p; p++)
		if (*p == '{' && isdigit((unsigned char) p[1]))
		{
			const char *comma = p + strspn(p + 1, "0123456789") + 1;
			double		n = atof(p + 1);
			double		m = *comma == ',' ? atof(comma + 1) : 0;

			repeat *= n > m ? n + 1 : m + 1;
		}
	return strlen(pattern) <= MAX_PATTERN && repeat <= MAX_REPEAT;
}

static const char *
class_of(char c, bool inside)
{
	switch (c)
	{
		case 'd':
			return inside ? "0-9" : "[0-9]";
		case 'w':
			return inside ? "A-Za-z0-9_" : "[A-Za-z0-9_]";
		case 's':
			return inside ? "[:space:]" : "[[:space:]]";
		case 'D':
			return inside ? NULL : "[^0-9]";
		case 'W':
			return inside ? NULL : "[^A-Za-z0-9_]";
		case 'S':
			return inside ? NULL : "[^[:space:]]";
		default:
			return NULL;
	}
}

static void
translate(Buf *out, const char *pattern)
{
	bool		inside = false;

	for (const char *p = pattern; *p; p++)
	{
		const char *class = *p == '\\' && p[1] ? class_of(p[1], inside) : NULL;

		if (class)
		{
			buf_puts(out, class);
			p++;
		}
		else if (*p == '\\' && p[1])
		{
			if (!inside)
				buf_putc(out, '\\');
			buf_putc(out, *++p);
		}
		else if (!inside && strncmp(p, "(?:", 3) == 0)
		{
			buf_putc(out, '(');
			p += 2;
		}
		else
		{
			if (*p == '[')
				inside = true;
			else if (*p == ']')
				inside = false;
			buf_putc(out, *p);
		}
	}
}

/*
 * Does s match the pattern? False too for a pattern that cannot be used. The last
 * pattern is kept compiled, since one is tried on many words.
 */
bool
pattern_fits(const char *pattern, const char *s)
{
	static regex_t regex;
	static bool usable;
	static Buf	compiled;		/* the pattern that regex was made from */

	if (compiled.data == NULL || strcmp(compiled.data, pattern) != 0)
	{
		Buf			posix = {0};

		if (usable)
			regfree(&regex);
		buf_reset(&compiled);
		buf_puts(&compiled, pattern);
		translate(&posix, pattern);
		buf_append(&posix, "", 0);
		usable = is_tame(pattern) && regcomp(&regex, posix.data, REG_EXTENDED | REG_NOSUB) == 0;
		buf_free(&posix);
	}
	return usable && regexec(&regex, s, 0, NULL, 0) == 0;
}

static const char *example_branch(Buf *out, const char *p, int depth);

/* The first character a class like [^a-z_] allows; returns the end of the class. */
static const char *
example_class(Buf *out, const char *p)
{
	static const char tries[] = "aA0 -_.z9Z:/@#+";
	const char *from = ++p;
	bool		negated = *p == '^';
	Buf			class = {0};

	if (negated)
		p++;
	if (*p == ']')
		p++;
	while (*p && *p != ']')
		p += *p == '\\' && p[1] ? 2 : 1;
	buf_putc(&class, '[');
	buf_append(&class, from, (size_t) (p - from));
	buf_putc(&class, ']');
	for (size_t i = 0; i < sizeof(tries) - 1 + 94; i++)
	{
		char		s[2] = {i < sizeof(tries) - 1 ? tries[i] : (char) (33 + i - (sizeof(tries) - 1)), '\0'};

		if (pattern_fits(class.data, s))
		{
			buf_putc(out, s[0]);
			break;
		}
	}
	buf_free(&class);
	return *p ? p + 1 : p;
}

static const char *
example_escape(Buf *out, const char *p)
{
	const char *known = "dwsDWSntb";
	const char *gives = "0a a-a\n\t";
	const char *at = strchr(known, *p);

	if (*p == 'b' || *p == 'B')
		return p + 1;
	if (*p)
		buf_putc(out, at ? gives[at - known] : *p);
	return *p ? p + 1 : p;
}

/* One atom with its quantifier, repeated as little as it may. */
static const char *
example_atom(Buf *out, const char *p, int depth)
{
	size_t		from = out->len;
	size_t		len;
	long		repeat = 1;
	char	   *atom;

	if (*p == '(')
	{
		p++;
		if (strncmp(p, "?:", 2) == 0)
			p += 2;
		p = example_branch(out, p, depth + 1);
		if (*p == ')')
			p++;
	}
	else if (*p == '[')
		p = example_class(out, p);
	else if (*p == '\\')
		p = example_escape(out, p + 1);
	else if (*p == '^' || *p == '$')
		return p + 1;
	else
	{
		buf_putc(out, *p == '.' ? 'a' : *p);
		p++;
	}

	if (*p == '*' || *p == '?')
		repeat = 0;
	else if (*p == '{' && isdigit((unsigned char) p[1]))
		repeat = atol(p + 1);
	if (*p == '{' && strchr(p, '}'))
		p = strchr(p, '}') + 1;
	else if (*p == '*' || *p == '?' || *p == '+')
		p++;
	if (*p == '?')
		p++;
	len = out->len - from;
	atom = mem_copy(out->data ? out->data + from : "", len);
	out->len = from;
	for (long i = 0; i < repeat && i < MAX_REPEAT && out->len < 100000; i++)
		buf_append(out, atom, len);
	free(atom);
	return p;
}

/* The first alternative of a group or of the whole pattern; returns the group's end. */
static const char *
example_branch(Buf *out, const char *p, int depth)
{
	size_t		keep;

	while (*p && *p != '|' && *p != ')' && depth < MAX_DEPTH)
		p = example_atom(out, p, depth);
	keep = out->len;
	while (*p && *p != ')' && depth < MAX_DEPTH)
		p = *p == '|' ? p + 1 : example_atom(out, p, depth);
	out->len = keep;
	while (*p && depth >= MAX_DEPTH)
		p++;
	return p;
}

/* Append a text that fits the pattern; false when none was found. */
bool
pattern_example(Buf *out, const char *pattern)
{
	size_t		from = out->len;

	if (!is_tame(pattern))
		return false;
	buf_append(out, "", 0);
	for (const char *p = pattern; *p;)
	{
		p = example_branch(out, p, 0);
		if (*p == ')')
			p++; /* a stray one */
	}
	out->data[out->len] = '\0';
	return pattern_fits(pattern, out->data + from);
}
