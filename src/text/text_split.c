/*
 * text_split.c
 *	  The pieces of a text: by section, paragraph, sentence, tokens or
 *	  characters.
 *
 * A piece that has more tokens than `size` is cut by the next finer division
 * (section, paragraph, sentence, tokens) into pieces that are as full as size
 * allows.  Every division leaves nothing but white space between its pieces,
 * and white space has no tokens, so the tokens of neighbours add up.  Time is
 * linear in the text; windows that overlap take time by what they give.
 */
#include "postgres.h"

#include "base/error.h"
#include "mb/pg_wchar.h"
#include "text/text_scan.h"
#include "utils/memutils.h"

static const char *const split_names[] = {
	[SPLIT_SECTION] = "section",
	[SPLIT_PARAGRAPH] = "paragraph",
	[SPLIT_SENTENCE] = "sentence",
	[SPLIT_TOKENS] = "tokens",
	[SPLIT_CHARACTERS] = "characters"
};

/* The tokens of a window, and one more. */
typedef struct Window
{
	TextToken  *tokens;
	int			count;
	int			allocated;
} Window;

/* Raises invalid_parameter_value for an unknown name. */
SplitBy
text_split_by(const char *name, int len)
{
	for (int i = 0; i < lengthof(split_names); i++)
	{
		if (strlen(split_names[i]) == len &&
			memcmp(split_names[i], name, len) == 0)
			return (SplitBy) i;
	}
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("cannot split a text by \"%.*s\"",
				   pg_mbcliplen(name, len, NAMEDATALEN), name),
			errhint("Split it by section, paragraph, sentence, tokens or characters."));
}

/* Beside its bytes, in whatever holds the pieces. */
#define PIECE_OVERHEAD 4

Size		text_most_bytes = MaxAllocSize;

/* Adds the piece from start to end; raises when all would be too large. */
void
spans_add(TextSpans *out, int start, int end)
{
	if (out->count == out->allocated)
	{
		out->allocated = Max(64, out->allocated * 2);
		out->spans = out->spans == NULL ?
			palloc(sizeof(TextSpan) * out->allocated) :
			repalloc_huge(out->spans, sizeof(TextSpan) * out->allocated);
	}
	out->spans[out->count].start = start;
	out->spans[out->count].len = end - start;
	out->count++;
	out->bytes += end - start;
	if (out->bytes > MaxAllocSize)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("the pieces of the text would be larger than 1 GB together"),
				errhint("Let them overlap less."));
	if ((Size) out->bytes + (Size) out->count * PIECE_OVERHEAD > text_most_bytes)
		ereport(ERROR,
				errcode(ERRCODE_CHAIN_LIMIT),
				errmsg("the result is larger than %zu kB", text_most_bytes / 1024),
				errhint("Let the pieces overlap less or be longer, or raise chaincall.max_answer."));
}

/* Reads tokens until the window holds one more than size; false at the end. */
static bool
fill_window(TextScan *scan, Window *window, int *pos, int end, int size)
{
	while (window->count <= size)
	{
		if (window->count == window->allocated)
		{
			window->allocated = Max(256, window->allocated * 2);
			window->tokens = window->tokens == NULL ?
				palloc(sizeof(TextToken) * window->allocated) :
				repalloc_huge(window->tokens,
							  sizeof(TextToken) * window->allocated);
		}
		if (!scan_next_token(scan, pos, end, &window->tokens[window->count]))
			return false;
		window->count++;
	}
	return true;
}

/*
 * How many of the window's size tokens make the piece: so many that no word is
 * parted, if more than `least` can be had that way.
 */
static int
cut_window(const Window *window, int size, int least)
{
	for (int n = size; n > least; n--)
	{
		if (window->tokens[n].loose)
			return n;
	}
	return size;
}

/* Where the next window begins: overlap tokens before n, or fewer. */
static int
next_window(const Window *window, int n, int overlap)
{
	for (int start = n - overlap; start < n; start++)
	{
		if (window->tokens[start].loose)
			return start;
	}
	return n - overlap;
}

/* Windows of size tokens; each holds at least one that none before it held. */
static void
split_tokens(TextScan *scan, int start, int end, int size, int overlap,
			 TextSpans *out)
{
	Window		window = {0};
	int			pos = start;
	int			seen = 0;		/* tokens at the front that were in a piece */

	while (fill_window(scan, &window, &pos, end, size))
	{
		int			n = cut_window(&window, size, Max(seen, overlap));
		int			next = next_window(&window, n, overlap);

		spans_add(out, window.tokens[0].start, window.tokens[n - 1].end);
		seen = n - next;
		window.count -= next;
		memmove(window.tokens, window.tokens + next,
				sizeof(TextToken) * window.count);
		scan_worked(scan, window.count);
	}
	if (window.count > seen)
		spans_add(out, window.tokens[0].start,
				  window.tokens[window.count - 1].end);
	if (window.tokens != NULL)
		pfree(window.tokens);
}

/* Goes n characters forward, at most to the end. */
static int
skip_characters(TextScan *scan, int pos, int n)
{
	int			start = pos;
	int			len;

	for (; n > 0 && pos < scan->len; n--)
	{
		(void) scan_char(scan, pos, &len);
		pos += len;
	}
	scan_worked(scan, pos - start);
	return pos;
}

/* Windows of size characters, white space and all. */
static void
split_characters(TextScan *scan, int size, int overlap, TextSpans *out)
{
	int			start = 0;
	int			end = skip_characters(scan, 0, size);

	while (start < scan->len)
	{
		spans_add(out, start, end);
		if (end == scan->len)
			break;
		start = skip_characters(scan, start, size - overlap);
		end = skip_characters(scan, end, size - overlap);
	}
}

static bool
next_part(TextScan *scan, SplitBy by, int *pos, int end, TextSpan *part)
{
	return by == SPLIT_PARAGRAPH ? scan_next_paragraph(scan, pos, end, part) :
		scan_next_sentence(scan, pos, end, part);
}

/*
 * Adds the whole, or where it has too many tokens as few parts of it as will
 * do, cut by the division `by` and finer ones.  A paragraph that is too long
 * is cut together with what was gathered before it, lest a heading be left to
 * itself.
 */
static void
add_fitting(TextScan *scan, TextSpan whole, SplitBy by, int size,
			TextSpans *out)
{
	int			end = whole.start + whole.len;
	int			pos = whole.start;
	int			first = -1;		/* start of the parts gathered */
	int			last = -1;
	int			gathered = 0;	/* their tokens */
	TextSpan	part;

	if (size == 0 || scan_count_tokens(scan, whole.start, end) <= size)
	{
		spans_add(out, whole.start, end);
		return;
	}
	if (by == SPLIT_TOKENS)
	{
		split_tokens(scan, whole.start, end, size, 0, out);
		return;
	}
	while (next_part(scan, by, &pos, end, &part))
	{
		int			tokens = scan_count_tokens(scan, part.start,
											   part.start + part.len);

		if (first >= 0 && tokens > size && by == SPLIT_PARAGRAPH)
		{
			part.len += part.start - first;
			part.start = first;
			first = -1;
		}
		if (first >= 0 && (int64) gathered + tokens > size)
		{
			spans_add(out, first, last);
			first = -1;
		}
		if (tokens > size)
			add_fitting(scan, part, by + 1, size, out);
		else
		{
			gathered = first < 0 ? tokens : gathered + tokens;
			first = first < 0 ? part.start : first;
			last = part.start + part.len;
		}
	}
	if (first >= 0)
		spans_add(out, first, last);
}

static void
split_sections(TextScan *scan, int size, TextSpans *out)
{
	TextSpans	sections = {0};

	scan_sections(scan, &sections);
	for (int i = 0; i < sections.count; i++)
		add_fitting(scan, sections.spans[i], SPLIT_PARAGRAPH, size, out);
	if (sections.spans != NULL)
		pfree(sections.spans);
}

static void
split_paragraphs(TextScan *scan, SplitBy by, int size, TextSpans *out)
{
	int			pos = 0;
	TextSpan	paragraph;
	TextSpan	sentence;

	while (scan_next_paragraph(scan, &pos, scan->len, &paragraph))
	{
		int			end = paragraph.start + paragraph.len;
		int			p = paragraph.start;

		if (by == SPLIT_PARAGRAPH)
			add_fitting(scan, paragraph, SPLIT_SENTENCE, size, out);
		else
		{
			while (scan_next_sentence(scan, &p, end, &sentence))
				add_fitting(scan, sentence, SPLIT_TOKENS, size, out);
		}
	}
}

static void
check_bounds(SplitBy by, int size, int overlap)
{
	bool		windows = by == SPLIT_TOKENS || by == SPLIT_CHARACTERS;

	if (windows && size < 1)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("splitting by %s needs a size of at least 1",
					   split_names[by]),
				errhint("Say how many %s a piece may have, for example size => 500.",
						split_names[by]));
	if (size < 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("size must not be negative"),
				errdetail("It is %d.", size),
				errhint("It is the largest number of tokens of a piece; 0 means any."));
	if (!windows && overlap != 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("pieces by %s cannot overlap", split_names[by]),
				errhint("Split by tokens or characters to have an overlap."));
	if (windows && (overlap < 0 || overlap >= size))
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("overlap must be at least 0 and less than size"),
				errdetail("It is %d, and size is %d.", overlap, size),
				errhint("A tenth of size is usual."));
}

/*
 * Cuts a text of len bytes.  size is in characters for SPLIT_CHARACTERS, else
 * in estimated tokens; 0 means any where it may be left out.  overlap is in
 * the same unit.  Raises invalid_parameter_value for wrong bounds and
 * program_limit_exceeded when the pieces have more than 1 GB, ERRCODE_CHAIN_LIMIT
 * when they have more than text_most_bytes.  The spans are
 * in the current memory context.
 */
TextSpans
text_split(const char *text, int len, SplitBy by, int size, int overlap,
		   TextPause pause, void *arg)
{
	TextScan	scan;
	TextSpans	out = {0};

	check_bounds(by, size, overlap);
	scan_begin(&scan, text, len, pause, arg);
	switch (by)
	{
		case SPLIT_SECTION:
			split_sections(&scan, size, &out);
			break;
		case SPLIT_PARAGRAPH:
		case SPLIT_SENTENCE:
			split_paragraphs(&scan, by, size, &out);
			break;
		case SPLIT_TOKENS:
			split_tokens(&scan, 0, len, size, overlap, &out);
			break;
		case SPLIT_CHARACTERS:
			split_characters(&scan, size, overlap, &out);
			break;
	}
	return out;
}

/* The estimated number of tokens of a text (text_scan.c says how). */
int
text_estimate_tokens(const char *text, int len, TextPause pause, void *arg)
{
	TextScan	scan;

	scan_begin(&scan, text, len, pause, arg);
	return scan_count_tokens(&scan, 0, len);
}
