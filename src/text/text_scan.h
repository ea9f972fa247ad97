/*
 * text_scan.h
 *	  Reading a text by characters, tokens, lines, paragraphs and sentences:
 *	  what the text_*.c files share.
 *
 * Everything goes forward: in some encodings a character's start cannot be
 * found from behind.
 */
#ifndef CHAINCALL_TEXT_SCAN_H
#define CHAINCALL_TEXT_SCAN_H

#include "text/text.h"

/* How characters beyond ASCII are told apart. */
typedef enum TextFamily
{
	FAMILY_UNICODE,				/* UTF-8, and Latin-1 with its cousins */
	FAMILY_EUC,
	FAMILY_SINGLE				/* one byte each, known only to be letters */
} TextFamily;

typedef enum CharClass
{
	CHAR_SPACE,
	CHAR_LETTER,				/* of ASCII */
	CHAR_DIGIT,					/* of ASCII */
	CHAR_OTHER,					/* a letter beyond ASCII */
	CHAR_IDEOGRAPH,				/* written without spaces between words */
	CHAR_MARK					/* punctuation and symbols */
} CharClass;

typedef struct TextScan
{
	const char *text;
	int			len;
	int			encoding;
	TextFamily	family;
	TextPause	pause;
	void	   *arg;
	int			work;			/* bytes since the last pause */
} TextScan;

/* One line; offsets into the text. */
typedef struct TextLine
{
	int			start;
	int			text;			/* first character that is no space */
	int			text_end;		/* behind the last such; == text: blank */
	int			next;			/* start of the line behind it */
	int			indent;			/* columns before `text` */
	bool		page;			/* a form feed stands before it */
} TextLine;

/* One estimated token. */
typedef struct TextToken
{
	int			start;
	int			end;
	bool		loose;			/* a cut before it parts no word */
} TextToken;

extern void scan_begin(TextScan *scan, const char *text, int len,
					   TextPause pause, void *arg);
extern uint32 scan_wide_char(const TextScan *scan, int pos, int *len);
extern CharClass scan_wide_class(const TextScan *scan, uint32 c);
extern bool scan_is_upper(const TextScan *scan, uint32 c);
extern bool scan_is_lower(const TextScan *scan, uint32 c);
extern bool scan_is_section_sign(const TextScan *scan, uint32 c);
extern int	scan_skip_space(const TextScan *scan, int pos, int end);
extern bool scan_next_token(TextScan *scan, int *pos, int end,
							TextToken *token);
extern int	scan_count_tokens(TextScan *scan, int start, int end);
extern bool scan_next_line(TextScan *scan, int *pos, TextLine *line);
extern bool scan_next_paragraph(TextScan *scan, int *pos, int end,
								TextSpan *span);
extern bool scan_next_sentence(TextScan *scan, int *pos, int end,
							   TextSpan *span);
extern void scan_sections(TextScan *scan, TextSpans *out);
extern void spans_add(TextSpans *out, int start, int end);

extern const CharClass scan_ascii_class[128];

/* The character at pos, which must be inside the text, and its bytes. */
static inline uint32
scan_char(const TextScan *scan, int pos, int *len)
{
	unsigned char c = (unsigned char) scan->text[pos];

	if (c < 0x80)
	{
		*len = 1;
		return c;
	}
	return scan_wide_char(scan, pos, len);
}

static inline CharClass
scan_class(const TextScan *scan, uint32 c)
{
	return c < 0x80 ? scan_ascii_class[c] : scan_wide_class(scan, c);
}

/* Counts work done and now and then lets the caller look around. */
static inline void
scan_worked(TextScan *scan, int bytes)
{
	scan->work += bytes;
	if (scan->work > 65536)
	{
		scan->work = 0;
		if (scan->pause != NULL)
			scan->pause(scan->arg);
	}
}

#endif							/* CHAINCALL_TEXT_SCAN_H */
