/*
 * waterfall.c
 *	  A trace as a picture in text, for a person with psql.
 *
 * A line a span in the order of their starts:
 *
 *	   points    deepseek-chat@deepseek  +12.3 ms  840.1 ms  812/64  ok  | ░░██ |
 *
 * The bar covers the whole run; its light part is the wait for the answer's
 * first byte, its dark part the reading of the answer.  A step that ran for
 * many items would drown the rest, so of spans whose paths differ only in
 * their item and round numbers the first ten and the last five are shown, and
 * between them one line that sums up.
 */
#include "postgres.h"

#include <math.h>

#include "base/clock.h"
#include "base/ids.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "trace/trace.h"

#define MIN_WIDTH 10
#define MAX_WIDTH 400
#define LONGEST_PATH 44			/* characters, attempt included */
#define LONGEST_NAME 200		/* bytes */
#define LONGEST_MESSAGE 100		/* bytes */
#define ALIKE_SHOWN 20			/* so many like spans are shown one by one */
#define ALIKE_FIRST 10			/* else these */
#define ALIKE_LAST 5

/* Spans whose paths are the same but for the numbers in brackets. */
typedef struct Alike
{
	char	   *pattern;		/* path with [*] for every [n] */
	int64		count;
	int64		seen;			/* so far while lines are chosen */
	bool		summed_up;
	int64		by_class[CLASS_CRASH + 1];
	int64	   *durations;		/* µs, of count spans */
} Alike;

typedef struct Line
{
	const Span *span;
	Alike	   *alike;
	char	   *pattern;
	char	   *columns[5];		/* path, what, start, duration, tokens */
} Line;

typedef struct Picture
{
	const Trace *trace;
	int64		ended_us;		/* of the trace; now, while it runs */
	int			width;			/* characters of a bar */
	bool		utf8;
	int64		nlines;
	Line	   *lines;
	int			column_width[5];
} Picture;

static char *
duration_text(int64 us)
{
	double		ms = us / 1000.0;

	if (ms < 10)
		return psprintf("%.2f ms", ms);
	if (ms < 1000)
		return psprintf("%.1f ms", ms);
	return psprintf("%.2f s", ms / 1000);
}

static char *
tokens_text(int64 in, int64 out)
{
	char	   *in_text = in < 0 ? "-" : psprintf(INT64_FORMAT, in);

	if (in < 0 && out < 0)
		return "";
	return psprintf("%s/%s", in_text,
					out < 0 ? "-" : psprintf(INT64_FORMAT, out));
}

/* Shorten to `max` characters by leaving out the middle. */
static char *
cut_middle(const Picture *picture, const char *text, int max)
{
	const char *gap = picture->utf8 ? "…" : "...";
	int			len = strlen(text);
	int			chars = pg_mbstrlen_with_len(text, len);
	int			kept = max - (picture->utf8 ? 1 : 3);
	int			head;
	int			skip;

	if (chars <= max)
		return pstrdup(text);
	head = pg_mbcharcliplen(text, len, kept / 2);
	skip = pg_mbcharcliplen(text, len, chars - (kept - kept / 2));
	return psprintf("%.*s%s%s", head, text, gap, text + skip);
}

static int
path_depth(const char *path)
{
	int			depth = 0;

	for (; *path != '\0'; path++)
		depth += *path == '/';
	return depth;
}

static char *
path_text(const Picture *picture, const Span *span)
{
	int			indent = 2 * Min(path_depth(span->path), 8);
	char	   *suffix = "";

	if (span->reask)
		suffix = psprintf(" #%d asked again", span->attempt);
	else if (span->attempt > 1)
		suffix = psprintf(" #%d", span->attempt);
	return psprintf("%*s%s%s", indent, "",
					cut_middle(picture, span->path,
							   LONGEST_PATH - indent - (int) strlen(suffix)),
					suffix);
}

static int64
span_end(const Picture *picture, const Span *span)
{
	return span->ended_us != 0 ? span->ended_us : picture->ended_us;
}

static char *
path_pattern(const char *path)
{
	char	   *pattern = palloc(strlen(path) + 1);
	char	   *p = pattern;

	while (*path != '\0')
	{
		*p++ = *path;
		if (*path++ == '[' && *path >= '0' && *path <= '9')
		{
			*p++ = '*';
			while (*path >= '0' && *path <= '9')
				path++;
		}
	}
	*p = '\0';
	return pattern;
}

static int
compare_starts(const void *a, const void *b)
{
	const Line *x = a;
	const Line *y = b;

	if (x->span->started_us != y->span->started_us)
		return x->span->started_us < y->span->started_us ? -1 : 1;
	if (strcmp(x->span->path, y->span->path) != 0)
		return strcmp(x->span->path, y->span->path);
	return x->span->attempt - y->span->attempt;
}

static int
compare_patterns(const void *a, const void *b)
{
	return strcmp((*(Line *const *) a)->pattern, (*(Line *const *) b)->pattern);
}

static int
compare_int64(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return (x > y) - (x < y);
}

static void
make_alike(const Picture *picture, Line **lines, int64 count)
{
	Alike	   *alike = palloc0(sizeof(Alike));

	alike->pattern = lines[0]->pattern;
	alike->count = count;
	alike->durations = palloc_extended(count * sizeof(int64),
									   MCXT_ALLOC_HUGE);
	for (int64 i = 0; i < count; i++)
	{
		const Span *span = lines[i]->span;

		lines[i]->alike = alike;
		alike->durations[i] = span_end(picture, span) - span->started_us;
		alike->by_class[span->cls]++;
	}
	qsort(alike->durations, count, sizeof(int64), compare_int64);
}

static void
group_lines(Picture *picture)
{
	int64		n = picture->nlines;
	Line	  **sorted = palloc_extended((n + 1) * sizeof(Line *),
										 MCXT_ALLOC_HUGE);
	int64		first = 0;

	for (int64 i = 0; i < n; i++)
	{
		picture->lines[i].pattern = path_pattern(picture->lines[i].span->path);
		sorted[i] = &picture->lines[i];
	}
	qsort(sorted, n, sizeof(Line *), compare_patterns);
	for (int64 i = 1; i <= n; i++)
	{
		if (i < n && compare_patterns(&sorted[i], &sorted[first]) == 0)
			continue;
		make_alike(picture, sorted + first, i - first);
		first = i;
	}
	pfree(sorted);
}

/* Counts the line; true if it is shown, not summed up. */
static bool
line_shown(Alike *alike)
{
	int64		seen = alike->seen++;

	return alike->count <= ALIKE_SHOWN || seen < ALIKE_FIRST ||
		seen >= alike->count - ALIKE_LAST;
}

/* At most max bytes of a text from outside, without its control characters. */
static char *
clean_text(const char *text, int max)
{
	int			len = pg_mbcliplen(text, strlen(text), max);
	char	   *clean = pnstrdup(text, len);

	for (char *p = clean; *p != '\0'; p++)
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			*p = ' ';
	return clean;
}

static void
make_columns(Picture *picture, Line *line)
{
	const Span *span = line->span;

	line->columns[0] = path_text(picture, span);
	line->columns[1] = clean_text(span->model == NULL ? span->kind :
								  psprintf("%s@%s", span->model,
										   span->server ? span->server : "?"),
								  LONGEST_NAME);
	line->columns[2] = psprintf("+%s", duration_text(span->started_us -
													 picture->trace->started_us));
	line->columns[3] = duration_text(span_end(picture, span) -
									 span->started_us);
	line->columns[4] = tokens_text(span->tokens_in, span->tokens_out);
	for (int c = 0; c < lengthof(line->columns); c++)
		picture->column_width[c] = Max(picture->column_width[c],
									   pg_mbstrlen(line->columns[c]));
}

static void
append_spaces(StringInfo out, int n)
{
	appendStringInfo(out, "%*s", Max(n, 0), "");
}

static void
append_column(StringInfo out, const char *text, int width, bool right)
{
	int			blanks = width - pg_mbstrlen(text);

	if (right)
		append_spaces(out, blanks);
	appendStringInfoString(out, text);
	if (!right)
		append_spaces(out, blanks);
	appendStringInfoString(out, "  ");
}

/* Where in the bar a time lies: 0 … width. */
static int
bar_position(const Picture *picture, int64 us)
{
	const Trace *trace = picture->trace;
	int64		total = Max(picture->ended_us - trace->started_us, 1);
	double		share = (double) (us - trace->started_us) / total;

	return (int) floor(Min(Max(share, 0), 1) * picture->width);
}

static void
append_bar(StringInfo out, const Picture *picture, const Span *span)
{
	const char *waiting = picture->utf8 ? "░" : ".";
	const char *reading = picture->utf8 ? "█" : "=";
	int			from = Min(bar_position(picture, span->started_us),
						   picture->width - 1);
	int			to = Max(bar_position(picture, span_end(picture, span)),
						 from + 1);
	int			turn;

	if (span->first_byte_us != 0)
		turn = Min(bar_position(picture, span->first_byte_us), to - 1);
	else
		turn = span->model != NULL ? to : from; /* no answer : no wait */
	appendStringInfoChar(out, '|');
	append_spaces(out, from);
	for (int i = from; i < to; i++)
		appendStringInfoString(out, i < turn ? waiting : reading);
	append_spaces(out, picture->width - to);
	appendStringInfoChar(out, '|');
}

static void
append_line(StringInfo out, const Picture *picture, const Line *line)
{
	const Span *span = line->span;

	for (int c = 0; c < lengthof(line->columns); c++)
		append_column(out, line->columns[c], picture->column_width[c], c >= 2);
	append_column(out, span->ended_us == 0 ? "open" :
				  error_class_name(span->cls), 9, false);
	append_bar(out, picture, span);
	if (span->message != NULL)
		appendStringInfo(out, "  %s",
						 clean_text(span->message, LONGEST_MESSAGE));
	appendStringInfoChar(out, '\n');
}

/* Nearest rank: the smallest value that `share` of all do not exceed. */
static int64
percentile(const Alike *alike, double share)
{
	int64		rank = (int64) ceil(share * alike->count);

	return alike->durations[Min(Max(rank, 1), alike->count) - 1];
}

static void
append_summary(StringInfo out, const Picture *picture, const Alike *alike)
{
	const char *separator = "";

	appendStringInfo(out, "%s " INT64_FORMAT " more of %s; all " INT64_FORMAT ": ",
					 picture->utf8 ? "…" : "...",
					 alike->count - ALIKE_FIRST - ALIKE_LAST,
					 cut_middle(picture, alike->pattern, LONGEST_PATH),
					 alike->count);
	for (int cls = 0; cls < lengthof(alike->by_class); cls++)
		if (alike->by_class[cls] > 0)
		{
			appendStringInfo(out, "%s" INT64_FORMAT " %s", separator,
							 alike->by_class[cls], error_class_name(cls));
			separator = ", ";
		}
	appendStringInfo(out, ", p50 %s, p99 %s, max %s\n",
					 duration_text(percentile(alike, 0.50)),
					 duration_text(percentile(alike, 0.99)),
					 duration_text(alike->durations[alike->count - 1]));
}

static void
append_header(StringInfo out, const Picture *picture)
{
	const Trace *trace = picture->trace;

	appendStringInfo(out, "trace %s  %s  %s  %s\n", ids_uuid_text(&trace->id),
					 clean_text(trace->chain, LONGEST_NAME),
					 duration_text(picture->ended_us - trace->started_us),
					 trace->ended_us == 0 ? "open" :
					 error_class_name(trace->cls));
}

static void
append_lines(StringInfo out, Picture *picture)
{
	bool	   *shown = palloc_extended(picture->nlines + 1, MCXT_ALLOC_HUGE);

	for (int64 i = 0; i < picture->nlines; i++)
	{
		shown[i] = line_shown(picture->lines[i].alike);
		if (shown[i])
			make_columns(picture, &picture->lines[i]);
	}
	for (int64 i = 0; i < picture->nlines; i++)
	{
		Line	   *line = &picture->lines[i];

		if (shown[i])
			append_line(out, picture, line);
		else if (!line->alike->summed_up)
		{
			append_summary(out, picture, line->alike);
			line->alike->summed_up = true;
		}
	}
	pfree(shown);
}

static const char *
plural(int64 n)
{
	return n == 1 ? "" : "s";
}

static void
append_footer(StringInfo out, const Picture *picture)
{
	int64		calls = 0;
	int64		retries = 0;
	int64		reasks = 0;
	int64		in = 0;
	int64		tokens_out = 0;
	int64		sum = 0;

	for (int64 i = 0; i < picture->nlines; i++)
	{
		const Span *span = picture->lines[i].span;

		sum += span_end(picture, span) - span->started_us;
		if (span->model == NULL)
			continue;
		calls++;
		reasks += span->reask;
		retries += span->attempt > 1 && !span->reask;
		in += Max(span->tokens_in, 0);
		tokens_out += Max(span->tokens_out, 0);
	}
	appendStringInfo(out, INT64_FORMAT " call%s, " INT64_FORMAT " retr%s, "
					 INT64_FORMAT " asked again, tokens " INT64_FORMAT " in "
					 INT64_FORMAT " out, %s in all steps",
					 calls, plural(calls), retries, retries == 1 ? "y" : "ies",
					 reasks, in, tokens_out, duration_text(sum));
	if (picture->trace->dropped > 0)
		appendStringInfo(out, ", " INT64_FORMAT " span%s not kept (chaincall.max_spans)",
						 picture->trace->dropped,
						 plural(picture->trace->dropped));
}

static void
load_lines(Picture *picture)
{
	Span	  **spans = trace_spans(picture->trace);

	picture->nlines = picture->trace->nspans;
	picture->lines = palloc_extended((picture->nlines + 1) * sizeof(Line),
									 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int64 i = 0; i < picture->nlines; i++)
		picture->lines[i].span = spans[i];
	pfree(spans);
	qsort(picture->lines, picture->nlines, sizeof(Line), compare_starts);
	group_lines(picture);
}

/*
 * The trace as text with line ends (none at the very end), palloc'd.  `width`
 * is that of the bars in characters; it is brought into 10 … 400.
 */
char *
trace_waterfall(const Trace *trace, int width)
{
	StringInfoData out;
	Picture		picture = {0};

	picture.trace = trace;
	picture.ended_us = trace->ended_us != 0 ? trace->ended_us : clock_us();
	picture.width = Min(Max(width, MIN_WIDTH), MAX_WIDTH);
	picture.utf8 = GetDatabaseEncoding() == PG_UTF8;
	load_lines(&picture);

	initStringInfo(&out);
	append_header(&out, &picture);
	append_lines(&out, &picture);
	append_footer(&out, &picture);
	return out.data;
}
