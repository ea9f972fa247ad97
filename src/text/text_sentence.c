/*
 * text_sentence.c
 *	  Where sentences end.
 *
 * A sentence ends behind . ! ? or an ellipsis, with the quotes and brackets
 * that close after it, when white space follows and then anything but a small
 * letter or a mark that cannot begin a sentence.  The full stops of Chinese
 * and Japanese end one without white space.  A single full stop does not when
 * it belongs to an abbreviation, an initial or a number that counts
 * paragraphs; where that is in doubt two sentences stay one, which harms a
 * reader less than half a sentence.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "text/text_scan.h"

#define MAX_WORD 16

/* Never end a sentence. */
static const char *const abbreviations[] = {
	"mr", "mrs", "ms", "dr", "prof", "sr", "jr", "st", "messrs", "mme", "mlle",
	"hon", "rev", "gen", "col", "lt", "capt", "sgt", "gov", "sen", "rep",
	"v", "vs", "cf", "viz", "al", "inc", "ltd", "co", "corp", "llc", "plc",
	"bros", "dept", "univ", "assn", "approx", "ca", "resp", "incl", "excl",
	"ibid", "eds", "trans", "bzw", "vgl", "ggf", "evtl", "hr", "fr", "abk"
};

/* Do not end one when a number follows. */
static const char *const before_numbers[] = {
	"no", "nos", "nr", "art", "arts", "sec", "secs", "sect", "para", "paras",
	"pt", "ch", "chap", "cl", "p", "pp", "vol", "vols", "fig", "figs", "eq",
	"ex", "app", "sched", "abs", "ziff", "rz", "ed", "op", "jan", "feb", "mar",
	"apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec"
};

typedef enum MarkKind
{
	MARK_NONE,
	MARK_STOP,					/* the ASCII full stop */
	MARK_END,					/* ends a sentence before white space */
	MARK_WIDE_END,				/* ends one anyhow */
	MARK_CLOSE,					/* a closing quote or bracket */
	MARK_JOIN					/* begins no sentence */
} MarkKind;

static MarkKind
unicode_mark(uint32 c)
{
	switch (c)
	{
		case 0x2026:			/* ellipsis */
			return MARK_END;
		case 0x3002:			/* ideographic full stop */
		case 0xFF01:			/* fullwidth exclamation mark */
		case 0xFF1F:			/* fullwidth question mark */
		case 0xFF61:			/* halfwidth ideographic full stop */
			return MARK_WIDE_END;
		case 0x00BB:			/* right guillemet */
		case 0x2019:			/* right quotes */
		case 0x201D:
		case 0x3009:			/* brackets of East Asia */
		case 0x300B:
		case 0x300D:
		case 0x300F:
		case 0x3011:
		case 0xFF09:
			return MARK_CLOSE;
		default:
			return MARK_NONE;
	}
}

static MarkKind
euc_mark(const TextScan *scan, uint32 c)
{
	bool		japan = scan->encoding == PG_EUC_JP ||
		scan->encoding == PG_EUC_JIS_2004;

	switch (c)
	{
		case 0xA1A3:			/* ideographic full stop */
		case 0xA1A9:			/* Japan, Taiwan: ? and ! */
		case 0xA1AA:
		case 0xA3A1:			/* China, Korea: ! and ? */
		case 0xA3BF:
			return MARK_WIDE_END;
		case 0xA1C9:			/* right quote and brackets */
		case 0xA1CB:
		case 0xA1D7:
		case 0xA1D9:
			return japan ? MARK_CLOSE : MARK_NONE;
		case 0xA1B1:
		case 0xA1B9:
		case 0xA1BB:
			return japan ? MARK_NONE : MARK_CLOSE;
		default:
			return MARK_NONE;
	}
}

static MarkKind
mark_kind(const TextScan *scan, uint32 c)
{
	if (c >= 0x80)
	{
		if (scan->family == FAMILY_UNICODE)
			return unicode_mark(c);
		return scan->family == FAMILY_EUC ? euc_mark(scan, c) : MARK_NONE;
	}
	switch (c)
	{
		case '.':
			return MARK_STOP;
		case '!':
		case '?':
			return MARK_END;
		case '"':
		case '\'':
		case ')':
		case ']':
		case '}':
			return MARK_CLOSE;
		case ',':
		case ';':
		case ':':
			return MARK_JOIN;
		default:
			return MARK_NONE;
	}
}

static bool
in_list(const char *const *list, int nlist, const char *word)
{
	for (int i = 0; i < nlist; i++)
	{
		if (strcmp(list[i], word) == 0)
			return true;
	}
	return false;
}

/*
 * The ASCII letters, digits and full stops right before stop, in small
 * letters; *begin is where they start.  Empty when the word is longer than
 * any abbreviation or has other letters.
 */
static void
word_before(const TextScan *scan, int start, int stop, char *word, int *begin)
{
	int			p = stop;

	word[0] = '\0';
	while (p > start && stop - p < MAX_WORD)
	{
		unsigned char c = (unsigned char) scan->text[p - 1];

		if (c >= 0x80)
			return;
		if (scan_ascii_class[c] != CHAR_LETTER &&
			scan_ascii_class[c] != CHAR_DIGIT && c != '.')
			break;
		p--;
	}
	if (stop - p >= MAX_WORD)
		return;
	for (int i = 0; i < stop - p; i++)
		word[i] = pg_ascii_tolower((unsigned char) scan->text[p + i]);
	word[stop - p] = '\0';
	*begin = p;
}

/* Does a number, or what stands for one, follow? */
static bool
number_follows(const TextScan *scan, int next, int end)
{
	unsigned char c = (unsigned char) scan->text[next];
	int			p = next;
	int			len;

	if (scan_is_section_sign(scan, scan_char(scan, next, &len)))
		return true;
	if ((c >= '0' && c <= '9') || c == '(' || c == '#')
		return true;
	while (p < end && strchr("IVXLC", scan->text[p]) != NULL)
		p++;
	return p > next &&
		(p == end || scan_ascii_class[scan->text[p] & 0x7F] != CHAR_LETTER);
}

/* "1", "2.1", "iv", "b": what counts paragraphs at a sentence's beginning. */
static bool
is_enumerator(const char *word)
{
	return word[0] != '\0' &&
		(strspn(word, "0123456789.") == strlen(word) ||
		 strspn(word, "ivxlc") == strlen(word) ||
		 word[1] == '\0');
}

/* "e.g", "u.s", "z.b": letters one by one; but "p.m" may end a sentence. */
static bool
is_dotted(const char *word)
{
	int			letters = 0;

	if (strchr(word, '.') == NULL || strcmp(word, "a.m") == 0 ||
		strcmp(word, "p.m") == 0)
		return false;
	for (; *word != '\0'; word++)
	{
		if (*word == '.')
			letters = 0;
		else if (++letters > 2 || (*word >= '0' && *word <= '9'))
			return false;
	}
	return true;
}

/* Does the full stop at `stop` only shorten a word?  next: what follows. */
static bool
is_abbreviation(const TextScan *scan, int start, int stop, int next, int end)
{
	char		word[MAX_WORD + 1];
	int			begin = stop;

	word_before(scan, start, stop, word, &begin);
	if (word[0] == '\0')
		return false;
	if (begin == start && is_enumerator(word))
		return true;
	if (word[1] == '\0' && word[0] >= 'a' && word[0] <= 'z')
		return true;
	return is_dotted(word) ||
		in_list(abbreviations, lengthof(abbreviations), word) ||
		(in_list(before_numbers, lengthof(before_numbers), word) &&
		 number_follows(scan, next, end));
}

/* Goes over the marks that end a sentence and those that close after them. */
static int
skip_ending(const TextScan *scan, int pos, int end, bool *wide, int *marks)
{
	bool		closed = false;

	*wide = false;
	*marks = 0;
	while (pos < end)
	{
		int			len;
		MarkKind	kind = mark_kind(scan, scan_char(scan, pos, &len));

		if (kind == MARK_CLOSE)
			closed = true;
		else if (closed || kind == MARK_NONE || kind == MARK_JOIN)
			break;
		else
			(*marks)++;
		if (kind == MARK_WIDE_END)
			*wide = true;
		pos += len;
	}
	return pos;
}

/*
 * The next sentence between *pos and end, which is one paragraph or less;
 * moves *pos behind it.  Without white space at its ends.
 */
bool
scan_next_sentence(TextScan *scan, int *pos, int end, TextSpan *span)
{
	int			start = scan_skip_space(scan, *pos, end);
	int			p = start;

	while (p < end)
	{
		int			len;
		uint32		c = scan_char(scan, p, &len);
		MarkKind	kind = mark_kind(scan, c);
		int			behind;
		int			next;
		bool		wide;
		int			marks;

		if (kind != MARK_STOP && kind != MARK_END && kind != MARK_WIDE_END)
		{
			p += len;
			scan_worked(scan, len);
			continue;
		}
		behind = skip_ending(scan, p, end, &wide, &marks);
		next = scan_skip_space(scan, behind, end);
		if (wide || next == end)
		{
			p = behind;
			break;
		}
		c = scan_char(scan, next, &len);
		if (next > behind && !scan_is_lower(scan, c) &&
			mark_kind(scan, c) != MARK_JOIN &&
			!(kind == MARK_STOP && marks == 1 &&
			  is_abbreviation(scan, start, p, next, end)))
		{
			p = behind;
			break;
		}
		scan_worked(scan, next - p);
		p = behind;
	}
	if (start >= end)
	{
		*pos = end;
		return false;
	}
	span->start = start;
	span->len = p - start;
	*pos = p;
	return true;
}
