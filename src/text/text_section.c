/*
 * text_section.c
 *	  Where the sections of a text begin.
 *
 * A section begins at a heading; in a text that has none, on a new page (behind
 * a form feed), because pages part what headings hold together.  What a heading
 * is can only be guessed from lines and what stands around them:
 *	  - Markdown's: one to six # and a space, outside of fenced code;
 *	  - a single line underlined by at least three = or -;
 *	  - a number as contracts and laws have it (1.  1.2  § 3  Section 4.
 *		Article IV  Clause 7) that begins a paragraph, however indented; the
 *		clause itself may follow on the line;
 *	  - a Roman number or a letter (IV.  B.) with a short title, alone;
 *	  - a line alone, either all in capitals or centred.
 * A box drawn around a heading is looked through.  A section needs a body: a
 * title directly before another heading is part of that one's section, and a
 * title with nothing after it belongs to the section before.  Text before the
 * first heading is a section of its own.
 */
#include "postgres.h"

#include "text/text_scan.h"

#define MAX_TITLE 100			/* bytes of a line that may be a title */
#define SHORT_TITLE 80
#define CENTRED_INDENT 10		/* columns */
#define MIN_RULE 3				/* marks that underline */

/* What a line is made of. */
typedef enum LineKind
{
	LINE_BLANK,
	LINE_RULE,					/* marks only: an underline, the edge of a box */
	LINE_TEXT
} LineKind;

typedef enum HeadingKind
{
	HEADING_NONE,
	HEADING_TITLE,				/* needs a body */
	HEADING_CLAUSE				/* may hold its body itself */
} HeadingKind;

/* A line as it looks without the box around it. */
typedef struct LineView
{
	TextLine	line;
	LineKind	kind;
	int			text;			/* of the contents */
	int			text_end;
} LineView;

/* A clause's number: its digits and the dots between them. */
typedef struct ClauseNumber
{
	int			start;
	int			len;			/* 0: none */
} ClauseNumber;

typedef struct SectionState
{
	TextScan   *scan;
	TextSpans  *out;
	LineView	before;			/* the lines around the current one */
	LineView	current;
	LineView	after;
	bool		has_after;
	bool		after_heading;	/* `before` was a title or its underline */
	char		fence;			/* of the code we are in, or '\0' */
	int			fence_len;
	int			start;			/* of the section, -1: none begun */
	int			end;			/* behind its last visible character */
	bool		has_body;
	bool		by_page;		/* pages begin sections */
	bool		page;			/* a form feed since the last visible line */
	bool		any_page;
	bool		any_heading;
	int			rules;			/* start of the rules just before, -1: none */
	int			rules_end;		/* `end` before them */
	ClauseNumber number;		/* of the last heading */
	bool		number_short;	/* it was one short line */
} SectionState;

static CharClass
class_at(const TextScan *scan, int pos)
{
	int			len;

	return scan_class(scan, scan_char(scan, pos, &len));
}

static bool
is_letter_at(const TextScan *scan, int pos, int end)
{
	CharClass	cls;

	if (pos >= end)
		return false;
	cls = class_at(scan, pos);
	return cls == CHAR_LETTER || cls == CHAR_OTHER || cls == CHAR_IDEOGRAPH;
}

static bool
is_lower_at(const TextScan *scan, int pos, int end)
{
	int			len;

	return pos < end && scan_is_lower(scan, scan_char(scan, pos, &len));
}

static bool
is_space_at(const TextScan *scan, int pos, int end)
{
	return pos >= end || class_at(scan, pos) == CHAR_SPACE;
}

/* Takes "*  contents  *" and "| contents |" as contents. */
static void
look_through_box(const TextScan *scan, LineView *view)
{
	const char *text = scan->text;
	int			last = view->text_end - 1;

	if (view->text_end - view->text < 5 ||
		(text[view->text] != '*' && text[view->text] != '|') ||
		text[last] != text[view->text] ||
		text[view->text + 1] != ' ' || text[last - 1] != ' ' ||
		memchr(text + view->text + 1, text[last], last - view->text - 1) != NULL)
		return;
	view->text = scan_skip_space(scan, view->text + 1, last);
	while (last > view->text && text[last - 1] == ' ')
		last--;
	view->text_end = Max(last, view->text);
}

static LineKind
line_kind(const TextScan *scan, const LineView *view)
{
	int			len;

	if (view->line.text == view->line.text_end)
		return LINE_BLANK;
	for (int p = view->text; p < view->text_end; p += len)
	{
		CharClass	cls = scan_class(scan, scan_char(scan, p, &len));

		if (cls != CHAR_MARK && cls != CHAR_SPACE)
			return LINE_TEXT;
	}
	return LINE_RULE;
}

static bool
read_line(TextScan *scan, int *pos, LineView *view)
{
	if (!scan_next_line(scan, pos, &view->line))
		return false;
	view->text = view->line.text;
	view->text_end = view->line.text_end;
	look_through_box(scan, view);
	view->kind = line_kind(scan, view);
	return true;
}

/* Nothing, an empty line or only marks: what stands around a heading. */
static bool
stands_apart(const SectionState *state)
{
	return state->before.kind != LINE_TEXT || state->after_heading ||
		state->current.line.page;
}

static bool
stands_alone(const SectionState *state)
{
	return stands_apart(state) &&
		(!state->has_after || state->after.kind != LINE_TEXT ||
		 state->after.line.page);
}

/* Follows ``` and ~~~; true for every line that belongs to code. */
static bool
in_fence(SectionState *state)
{
	const LineView *view = &state->current;
	const char *text = state->scan->text + view->text;
	int			len = view->text_end - view->text;
	int			marks = 0;

	while (marks < len && (text[0] == '`' || text[0] == '~') &&
		   text[marks] == text[0])
		marks++;
	if (state->fence != '\0')
	{
		if (marks >= state->fence_len && text[0] == state->fence && marks == len)
			state->fence = '\0';
		return true;
	}
	if (marks < 3 || (text[0] == '~' && state->before.kind == LINE_TEXT) ||
		memchr(text + marks, text[0], len - marks) != NULL)
		return false;
	state->fence = text[0];
	state->fence_len = marks;
	return true;
}

static bool
is_markdown(const SectionState *state)
{
	const LineView *view = &state->current;
	int			p = view->text;

	while (p < view->text_end && state->scan->text[p] == '#')
		p++;
	return view->line.indent <= 3 && p > view->text && p - view->text <= 6 &&
		p < view->text_end && is_space_at(state->scan, p, view->text_end);
}

/* Is the next line an underline of this one? */
static bool
is_underlined(const SectionState *state)
{
	const LineView *under = &state->after;
	const char *text = state->scan->text;

	if (!state->has_after || under->kind != LINE_RULE || !stands_apart(state) ||
		state->current.text_end - state->current.text > MAX_TITLE ||
		under->text_end - under->text < MIN_RULE ||
		(text[under->text] != '=' && text[under->text] != '-'))
		return false;
	for (int p = under->text; p < under->text_end; p++)
	{
		if (text[p] != text[under->text])
			return false;
	}
	return true;
}

static bool
is_capitals(const SectionState *state)
{
	const LineView *view = &state->current;
	int			uppers = 0;
	int			len;

	/* a row of a table begins with a mark */
	if (view->text_end - view->text > MAX_TITLE ||
		(class_at(state->scan, view->text) == CHAR_MARK &&
		 state->scan->text[view->text] != '"'))
		return false;
	for (int p = view->text; p < view->text_end; p += len)
	{
		uint32		c = scan_char(state->scan, p, &len);

		if (scan_is_lower(state->scan, c))
			return false;
		if (scan_is_upper(state->scan, c))
			uppers++;
	}
	return uppers >= 4;
}

static bool
is_centred(const SectionState *state)
{
	const LineView *view = &state->current;

	return view->line.indent >= CENTRED_INDENT &&
		view->text_end - view->text <= SHORT_TITLE &&
		(is_letter_at(state->scan, view->text, view->text_end) ||
		 class_at(state->scan, view->text) == CHAR_DIGIT) &&
		!is_lower_at(state->scan, view->text, view->text_end) &&
		strchr(".,;:", state->scan->text[view->text_end - 1]) == NULL;
}

/* Goes over 1 or 1.2.3; false when there is no such number. */
static bool
read_number(const TextScan *scan, int *pos, int end, ClauseNumber *number,
			int *levels)
{
	int			p = *pos;
	int			stop = p;

	*levels = 0;
	for (;;)
	{
		int			digits = p;

		while (p < end && scan->text[p] >= '0' && scan->text[p] <= '9')
			p++;
		if (p == digits || p - digits > 3)
			break;
		stop = p;
		(*levels)++;
		if (p + 1 >= end || scan->text[p] != '.')
			break;
		p++;
	}
	if (*levels == 0 || (p > stop + 1))
		return false;
	number->start = *pos;
	number->len = stop - *pos;
	*pos = stop;
	return true;
}

/* Goes over a Roman number of capitals. */
static bool
read_roman(const TextScan *scan, int *pos, int end)
{
	int			p = *pos;

	while (p < end && strchr("IVXLC", scan->text[p]) != NULL)
		p++;
	if (p == *pos || is_letter_at(scan, p, end))
		return false;
	*pos = p;
	return true;
}

/* "1. ", "1.2 Title", "1.2. text" */
static bool
is_numbered(const SectionState *state, ClauseNumber *number)
{
	const TextScan *scan = state->scan;
	int			end = state->current.text_end;
	int			p = state->current.text;
	int			levels;
	bool		dot;

	if (!read_number(scan, &p, end, number, &levels))
		return false;
	dot = p < end && scan->text[p] == '.';
	if (dot)
		p++;
	if (!is_space_at(scan, p, end) || (!dot && levels == 1))
		return false;
	p = scan_skip_space(scan, p, end);

	/* "3.5 million" begins a sentence, "3.5 Notices" a clause */
	return dot || !is_lower_at(scan, p, end);
}

/* "IV. Title" and "B. Title", alone and short */
static bool
is_lettered(const SectionState *state)
{
	const TextScan *scan = state->scan;
	int			end = state->current.text_end;
	int			p = state->current.text;

	if (end - p > SHORT_TITLE || scan->text[end - 1] == '.' ||
		!stands_alone(state))
		return false;
	if (!read_roman(scan, &p, end))
	{
		if (scan->text[p] < 'A' || scan->text[p] > 'Z')
			return false;
		p++;
	}
	if (p >= end || scan->text[p] != '.' || !is_space_at(scan, p + 1, end))
		return false;
	p = scan_skip_space(scan, p + 1, end);
	return is_letter_at(scan, p, end) && !is_lower_at(scan, p, end);
}

/* Goes over "Section", "Art.", a section sign and the like. */
static bool
read_keyword(const TextScan *scan, int *pos, int end, bool *annex)
{
	static const struct
	{
		const char *word;
		bool		annex;		/* needs no number */
	}			keywords[] =
	{
		{"section", false}, {"sec.", false}, {"article", false},
		{"art.", false}, {"clause", false}, {"chapter", false},
		{"part", false}, {"title", false}, {"artikel", false},
		{"abschnitt", false}, {"kapitel", false}, {"chapitre", false},
		{"appendix", true}, {"annex", true}, {"exhibit", true},
		{"schedule", true}, {"anlage", true}, {"anhang", true},
		{"annexe", true}
	};
	int			len;

	*annex = false;
	if (scan_is_section_sign(scan, scan_char(scan, *pos, &len)))
	{
		while (*pos < end &&
			   scan_is_section_sign(scan, scan_char(scan, *pos, &len)))
			*pos += len;
		*pos = scan_skip_space(scan, *pos, end);
		return true;
	}
	if (is_lower_at(scan, *pos, end))
		return false;
	for (int i = 0; i < lengthof(keywords); i++)
	{
		int			p = *pos + strlen(keywords[i].word);

		if (p <= end &&
			pg_strncasecmp(scan->text + *pos, keywords[i].word,
						   strlen(keywords[i].word)) == 0 &&
			(is_space_at(scan, p, end) || (keywords[i].annex && scan->text[p] == ':')))
		{
			*annex = keywords[i].annex;
			*pos = scan_skip_space(scan, p, end);
			return true;
		}
	}
	return false;
}

/* "Section 4.", "Article IV - Title", "§ 3 Title", "Appendix: title" */
static bool
is_keyword(const SectionState *state, ClauseNumber *number)
{
	const TextScan *scan = state->scan;
	int			end = state->current.text_end;
	int			p = state->current.text;
	int			levels;
	bool		annex;
	int			label;

	if (!read_keyword(scan, &p, end, &annex))
		return false;
	label = p;
	if (!read_number(scan, &p, end, number, &levels) &&
		!read_roman(scan, &p, end))
	{
		/* a letter, "Exhibit B", or for what is annexed nothing */
		if (p + 1 <= end && scan->text[p] >= 'A' && scan->text[p] <= 'Z' &&
			!is_letter_at(scan, p + 1, end))
			p++;
		else if (!annex || !(p == end || scan->text[p] == ':'))
			return false;
	}
	if (p == end)
		return true;
	if (p > label && scan->text[p] >= 'a' && scan->text[p] <= 'z' &&
		is_space_at(scan, p + 1, end))
		p++;					/* § 3a */
	if (p == end || strchr(".:)-", scan->text[p]) != NULL)
		return true;
	if (!is_space_at(scan, p, end))
		return false;

	/* "Section 4 of this Agreement" begins a sentence */
	return !is_lower_at(scan, scan_skip_space(scan, p, end), end);
}

/* Is the line short and no sentence? */
static bool
looks_like_title(const SectionState *state)
{
	const LineView *view = &state->current;

	return view->text_end - view->text <= SHORT_TITLE &&
		state->scan->text[view->text_end - 1] != '.';
}

static HeadingKind
heading_kind(const SectionState *state, ClauseNumber *number)
{
	bool		clause;

	number->len = 0;
	if (state->current.kind != LINE_TEXT)
		return HEADING_NONE;
	if (is_markdown(state))
		return HEADING_TITLE;
	if (!stands_apart(state))
		return HEADING_NONE;
	clause = is_numbered(state, number);
	if (is_underlined(state))
		return HEADING_TITLE;
	if (clause)
		return HEADING_CLAUSE;
	number->len = 0;
	if (is_keyword(state, number))
		return looks_like_title(state) ? HEADING_TITLE : HEADING_CLAUSE;
	number->len = 0;
	if (is_lettered(state) ||
		(stands_alone(state) && (is_capitals(state) || is_centred(state))))
		return HEADING_TITLE;
	return HEADING_NONE;
}

/* Is the number one of those below the last heading's, as 1.2 is below 1? */
static bool
is_below(const SectionState *state, ClauseNumber number)
{
	const char *text = state->scan->text;
	ClauseNumber above = state->number;

	return above.len > 0 && number.len > above.len &&
		memcmp(text + number.start, text + above.start, above.len) == 0 &&
		text[number.start + above.len] == '.';
}

static void
begin_section(SectionState *state, int start)
{
	if (state->start >= 0)
		spans_add(state->out, state->start, state->end);
	state->start = start;
	state->has_body = false;
	state->number.len = 0;
	state->number_short = false;
}

static void
take_heading(SectionState *state, HeadingKind kind, ClauseNumber number)
{
	const LineView *view = &state->current;
	bool		alone_above = state->has_body ?
		state->number_short && is_below(state, number) : true;

	if (state->start < 0 || !alone_above)
	{
		if (state->rules >= 0)
			state->end = state->rules_end;
		begin_section(state, state->rules >= 0 ? state->rules : view->line.text);
	}
	state->any_heading = true;
	state->number = number;
	state->number_short = kind == HEADING_CLAUSE && stands_alone(state) &&
		view->text_end - view->text <= SHORT_TITLE;
	state->has_body = kind == HEADING_CLAUSE;
	state->after_heading = kind == HEADING_TITLE;
}

static void
take_text(SectionState *state)
{
	const LineView *view = &state->current;

	if (state->start < 0 || (state->by_page && state->page && state->has_body))
		begin_section(state, view->line.text);
	if (view->kind == LINE_TEXT)
	{
		state->has_body = true;
		state->number_short = false;
		state->after_heading = false;
	}
}

static void
take_line(SectionState *state)
{
	const LineView *view = &state->current;
	ClauseNumber number;
	HeadingKind kind;

	if (view->line.page)
		state->page = state->any_page = true;
	if (view->kind == LINE_BLANK)
	{
		state->rules = -1;
		state->after_heading = false;
		return;
	}
	kind = in_fence(state) ? HEADING_NONE : heading_kind(state, &number);
	if (kind != HEADING_NONE)
		take_heading(state, kind, number);
	else
		take_text(state);
	if (view->kind == LINE_TEXT)
		state->rules = -1;
	else if (state->rules < 0 && !state->after_heading)
	{
		state->rules = view->line.text;
		state->rules_end = state->end;
	}
	state->end = view->line.text_end;
	state->page = false;
}

/* Adds the last section; a title that nothing follows is the end of another. */
static void
finish(SectionState *state)
{
	TextSpans  *out = state->out;

	if (state->start < 0)
		return;
	if (!state->has_body && out->count > 0)
	{
		TextSpan   *last = &out->spans[out->count - 1];

		out->bytes += state->end - last->start - last->len;
		last->len = state->end - last->start;
	}
	else
		spans_add(out, state->start, state->end);
}

/* Returns true when pages had better begin sections, as no heading does. */
static bool
find_sections(TextScan *scan, bool by_page, TextSpans *out)
{
	SectionState state = {0};
	int			pos = 0;

	state.scan = scan;
	state.out = out;
	state.by_page = by_page;
	state.before.kind = LINE_BLANK;
	state.start = -1;
	state.rules = -1;
	state.has_after = read_line(scan, &pos, &state.after);
	while (state.has_after)
	{
		state.current = state.after;
		state.has_after = read_line(scan, &pos, &state.after);
		take_line(&state);
		state.before = state.current;
	}
	finish(&state);
	return !by_page && state.any_page && !state.any_heading;
}

/*
 * Adds the text's sections to out, which is empty: one after the other,
 * without white space at their ends, and nothing but white space between them.
 */
void
scan_sections(TextScan *scan, TextSpans *out)
{
	if (find_sections(scan, false, out))
	{
		out->count = 0;
		out->bytes = 0;
		(void) find_sections(scan, true, out);
	}
}
