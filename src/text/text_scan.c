/*
 * text_scan.c
 *	  Characters, tokens, lines and paragraphs of a text.
 *
 * How many tokens a text has depends on the model, whose tokenizer is not
 * here.  The estimate follows what byte-pair encodings of today do to plain
 * prose, and leans to the high side.  One token is
 *	  - up to 6 ASCII letters of a word,
 *	  - up to 3 digits of a number,
 *	  - up to 2 letters of any other script,
 *	  - one ideograph, kana or hangul syllable,
 *	  - up to 4 equal punctuation marks or symbols in a row;
 * white space is none, so that the tokens of pieces add up to those of the
 * whole.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "text/text_scan.h"

#define S CHAR_SPACE
#define L CHAR_LETTER
#define D CHAR_DIGIT
#define M CHAR_MARK

const CharClass scan_ascii_class[128] = {
	M, M, M, M, M, M, M, M, M, S, S, S, S, S, M, M,
	M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
	S, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
	D, D, D, D, D, D, D, D, D, D, M, M, M, M, M, M,
	M, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L,
	L, L, L, L, L, L, L, L, L, L, L, M, M, M, M, M,
	M, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L,
	L, L, L, L, L, L, L, L, L, L, L, M, M, M, M, M
};

#undef S
#undef L
#undef D
#undef M

typedef struct CharRange
{
	uint32		first;
	uint32		last;
	CharClass	cls;
} CharRange;

/* Unicode beyond ASCII, sorted; what no range holds is CHAR_OTHER. */
static const CharRange unicode_ranges[] = {
	{0x0080, 0x0084, CHAR_MARK}, {0x0085, 0x0085, CHAR_SPACE}, {0x0086, 0x009F, CHAR_MARK},
	{0x00A0, 0x00A0, CHAR_SPACE}, {0x00A1, 0x00A9, CHAR_MARK}, {0x00AB, 0x00B4, CHAR_MARK},
	{0x00B6, 0x00B9, CHAR_MARK}, {0x00BB, 0x00BF, CHAR_MARK}, {0x00D7, 0x00D7, CHAR_MARK},
	{0x00F7, 0x00F7, CHAR_MARK}, {0x1100, 0x11FF, CHAR_IDEOGRAPH}, {0x1680, 0x1680, CHAR_SPACE},
	{0x2000, 0x200A, CHAR_SPACE}, {0x200B, 0x2027, CHAR_MARK}, {0x2028, 0x2029, CHAR_SPACE},
	{0x202A, 0x202E, CHAR_MARK}, {0x202F, 0x202F, CHAR_SPACE}, {0x2030, 0x205E, CHAR_MARK},
	{0x205F, 0x205F, CHAR_SPACE}, {0x2060, 0x2070, CHAR_MARK}, {0x2072, 0x207E, CHAR_MARK},
	{0x2080, 0x208E, CHAR_MARK}, {0x20A0, 0x20CF, CHAR_MARK}, {0x2100, 0x2BFF, CHAR_MARK},
	{0x2E00, 0x2E7F, CHAR_MARK}, {0x2E80, 0x2FFF, CHAR_IDEOGRAPH}, {0x3000, 0x3000, CHAR_SPACE},
	{0x3001, 0x3004, CHAR_MARK}, {0x3005, 0x3007, CHAR_IDEOGRAPH}, {0x3008, 0x3020, CHAR_MARK},
	{0x3021, 0x3029, CHAR_IDEOGRAPH}, {0x302A, 0x3030, CHAR_MARK}, {0x3031, 0x303C, CHAR_IDEOGRAPH},
	{0x303D, 0x303F, CHAR_MARK}, {0x3040, 0x31FF, CHAR_IDEOGRAPH}, {0x3200, 0x33FF, CHAR_MARK},
	{0x3400, 0x4DBF, CHAR_IDEOGRAPH}, {0x4DC0, 0x4DFF, CHAR_MARK}, {0x4E00, 0xA4CF, CHAR_IDEOGRAPH},
	{0xA960, 0xA97F, CHAR_IDEOGRAPH}, {0xAC00, 0xD7FF, CHAR_IDEOGRAPH}, {0xE000, 0xF8FF, CHAR_MARK},
	{0xF900, 0xFAFF, CHAR_IDEOGRAPH}, {0xFE00, 0xFE6F, CHAR_MARK}, {0xFEFF, 0xFEFF, CHAR_MARK},
	{0xFF01, 0xFF0F, CHAR_MARK}, {0xFF1A, 0xFF20, CHAR_MARK}, {0xFF3B, 0xFF40, CHAR_MARK},
	{0xFF5B, 0xFF65, CHAR_MARK}, {0xFF66, 0xFFDC, CHAR_IDEOGRAPH}, {0xFFE0, 0xFFFF, CHAR_MARK},
	{0x1D000, 0x1D3FF, CHAR_MARK}, {0x1F000, 0x1FAFF, CHAR_MARK}, {0x20000, 0x3FFFF, CHAR_IDEOGRAPH}
};

/*
 * Starts a walk over len bytes of text in the server's encoding.  pause, or
 * NULL, is called with arg now and then, so that long texts can be interrupted.
 */
void
scan_begin(TextScan *scan, const char *text, int len, TextPause pause,
		   void *arg)
{
	scan->text = text;
	scan->len = len;
	scan->encoding = GetDatabaseEncoding();
	scan->pause = pause;
	scan->arg = arg;
	scan->work = 0;
	switch (scan->encoding)
	{
		case PG_UTF8:
		case PG_LATIN1:
		case PG_LATIN9:
		case PG_WIN1252:
			scan->family = FAMILY_UNICODE;
			break;
		case PG_EUC_JP:
		case PG_EUC_CN:
		case PG_EUC_KR:
		case PG_EUC_TW:
		case PG_EUC_JIS_2004:
			scan->family = FAMILY_EUC;
			break;
		default:
			scan->family = FAMILY_SINGLE;
			break;
	}
}

/* scan_char() for a character beyond ASCII; bytes cut off count as given. */
uint32
scan_wide_char(const TextScan *scan, int pos, int *len)
{
	const unsigned char *p = (const unsigned char *) scan->text + pos;
	int			n = 1;
	uint32		c;

	if (pg_encoding_max_length(scan->encoding) > 1)
		n = pg_encoding_mblen(scan->encoding, (const char *) p);
	n = Max(1, Min(n, scan->len - pos));
	*len = n;

	if (scan->encoding == PG_UTF8)
	{
		if (n == 2)
			return ((p[0] & 0x1F) << 6) | (p[1] & 0x3F);
		if (n == 3)
			return ((p[0] & 0x0F) << 12) | ((p[1] & 0x3F) << 6) | (p[2] & 0x3F);
		if (n == 4)
			return ((p[0] & 0x07) << 18) | ((p[1] & 0x3F) << 12) |
				((p[2] & 0x3F) << 6) | (p[3] & 0x3F);
		return p[0];
	}
	c = p[0];
	for (int i = 1; i < n; i++)
		c = (c << 8) | p[i];
	return c;
}

static CharClass
unicode_class(uint32 c)
{
	int			low = 0;
	int			high = lengthof(unicode_ranges) - 1;

	while (low <= high)
	{
		int			middle = (low + high) / 2;

		if (c < unicode_ranges[middle].first)
			high = middle - 1;
		else if (c > unicode_ranges[middle].last)
			low = middle + 1;
		else
			return unicode_ranges[middle].cls;
	}
	return CHAR_OTHER;
}

/* What kind of character c is, as scan_char() gave it; for c beyond ASCII. */
CharClass
scan_wide_class(const TextScan *scan, uint32 c)
{
	if (scan->family == FAMILY_UNICODE)
		return unicode_class(c);
	if (scan->family == FAMILY_SINGLE)
		return c == 0xA0 && scan->encoding != PG_SQL_ASCII ?
			CHAR_SPACE : CHAR_OTHER;

	/* rows 1 and 2 of every EUC set are punctuation and symbols */
	if (c == 0xA1A1)
		return CHAR_SPACE;
	if ((c >= 0xA1A2 && c <= 0xA2FF) || c == 0xA3A1 || c == 0xA3BF)
		return CHAR_MARK;
	return CHAR_IDEOGRAPH;
}

/* Case where it is known: Latin, Greek, Cyrillic, Armenian. */
bool
scan_is_upper(const TextScan *scan, uint32 c)
{
	if (c < 0x80)
		return c >= 'A' && c <= 'Z';
	if (scan->family != FAMILY_UNICODE)
		return false;
	if (c < 0x100)
		return c >= 0xC0 && c <= 0xDE && c != 0xD7;
	if (c < 0x180)
		return ((c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17E)) ?
			c % 2 == 1 : c % 2 == 0;
	return (c >= 0x386 && c <= 0x3AB && c != 0x390) ||
		(c >= 0x400 && c <= 0x42F) ||
		(c >= 0x460 && c <= 0x52F && c % 2 == 0) ||
		(c >= 0x531 && c <= 0x556);
}

/* Whether c is a lower-case letter, as far as the encoding tells. */
bool
scan_is_lower(const TextScan *scan, uint32 c)
{
	if (c < 0x80)
		return c >= 'a' && c <= 'z';
	if (scan->family != FAMILY_UNICODE)
		return false;
	if (c < 0x100)
		return c >= 0xDF && c != 0xF7;
	if (c < 0x180)
		return !scan_is_upper(scan, c);
	return (c >= 0x3AC && c <= 0x3CE) || c == 0x390 ||
		(c >= 0x430 && c <= 0x45F) ||
		(c >= 0x461 && c <= 0x52F && c % 2 == 1) ||
		(c >= 0x561 && c <= 0x587);
}

/* The sign of a section or paragraph of a law. */
bool
scan_is_section_sign(const TextScan *scan, uint32 c)
{
	if (c != 0xA7 || scan->family == FAMILY_EUC)
		return false;
	return scan->encoding != PG_KOI8R && scan->encoding != PG_KOI8U &&
		scan->encoding != PG_WIN866 && scan->encoding != PG_WIN874 &&
		scan->encoding != PG_SQL_ASCII;
}

/* The first position from pos on, at most end, that is no white space. */
int
scan_skip_space(const TextScan *scan, int pos, int end)
{
	int			len;

	while (pos < end &&
		   scan_class(scan, scan_char(scan, pos, &len)) == CHAR_SPACE)
		pos += len;
	return pos;
}

/* How many characters of a class make one token. */
static int
token_length(CharClass cls)
{
	switch (cls)
	{
		case CHAR_LETTER:
			return 6;
		case CHAR_DIGIT:
			return 3;
		case CHAR_OTHER:
			return 2;
		case CHAR_MARK:
			return 4;
		default:
			return 1;
	}
}

/*
 * The next estimated token between *pos and end; moves *pos behind it.  False
 * when only white space is left.
 */
bool
scan_next_token(TextScan *scan, int *pos, int end, TextToken *token)
{
	int			start = scan_skip_space(scan, *pos, end);
	int			len;
	int			p;
	uint32		first;
	CharClass	cls;

	scan_worked(scan, start - *pos);
	if (start >= end)
	{
		*pos = end;
		return false;
	}
	first = scan_char(scan, start, &len);
	cls = scan_class(scan, first);
	token->loose = start > *pos || cls == CHAR_IDEOGRAPH;

	p = start + len;
	for (int left = token_length(cls) - 1; left > 0 && p < end; left--)
	{
		uint32		c = scan_char(scan, p, &len);

		if (scan_class(scan, c) != cls || (cls == CHAR_MARK && c != first))
			break;
		p += len;
	}
	scan_worked(scan, p - start);
	token->start = start;
	token->end = p;
	*pos = p;
	return true;
}

/* The estimated tokens between two byte positions. */
int
scan_count_tokens(TextScan *scan, int start, int end)
{
	TextToken	token;
	int			count = 0;

	while (scan_next_token(scan, &start, end, &token))
		count++;
	return count;
}

/*
 * The line at *pos, which ends with LF, CR LF, CR, a form feed or the text;
 * moves *pos to the one behind it.  False at the text's end.
 */
bool
scan_next_line(TextScan *scan, int *pos, TextLine *line)
{
	int			p = *pos;
	int			len;

	if (p >= scan->len)
		return false;
	line->start = p;
	line->page = p > 0 && scan->text[p - 1] == '\f';
	line->indent = 0;
	line->text = -1;
	line->text_end = -1;
	for (; p < scan->len; p += len)
	{
		uint32		c = scan_char(scan, p, &len);

		if (c == '\n' || c == '\r' || c == '\f')
			break;
		if (scan_class(scan, c) != CHAR_SPACE)
		{
			if (line->text < 0)
				line->text = p;
			line->text_end = p + len;
		}
		else if (line->text < 0)
			line->indent += c == '\t' ? 8 - line->indent % 8 : 1;
	}
	if (line->text < 0)
		line->text = line->text_end = p;
	line->next = Min(p + 1, scan->len);
	if (p + 1 < scan->len && scan->text[p] == '\r' && scan->text[p + 1] == '\n')
		line->next = p + 2;
	scan_worked(scan, line->next - line->start);
	*pos = line->next;
	return true;
}

/*
 * The next paragraph between *pos and end: lines up to one that is empty, has
 * only white space, or begins a page.  Without white space at its ends.
 */
bool
scan_next_paragraph(TextScan *scan, int *pos, int end, TextSpan *span)
{
	TextLine	line;
	int			start = -1;
	int			stop = -1;

	while (*pos < end)
	{
		int			line_start = *pos;

		(void) scan_next_line(scan, pos, &line);
		if (start >= 0 && (line.text == line.text_end || line.page))
		{
			*pos = line_start;
			break;
		}
		if (line.text == line.text_end)
			continue;
		if (start < 0)
			start = line.text;
		stop = Min(line.text_end, end);
	}
	if (start < 0)
		return false;
	span->start = start;
	span->len = stop - start;
	return true;
}
