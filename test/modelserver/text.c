/*
 * text.c: from bytes to words and sentences.
 *
 * Enough of a reader for a stand-in: words are runs of letters, digits and
 * bytes above 127, stems lose the commonest English endings, sentences end at
 * punctuation that is not an abbreviation's, at an empty line or at a list
 * mark. A prompt is taken apart into its instruction and the text it is about,
 * because a model that summarises the words "Summarise this" is of no use.
 */
#include "text.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const stop_words[] = {
	"a", "about", "above", "after", "again", "against", "all", "also", "am", "an", "and", "any", "are",
	"as", "at", "be", "because", "been", "before", "being", "below", "between", "both", "but", "by",
	"can", "cannot", "could", "did", "do", "does", "doing", "down", "during", "each", "either", "etc",
	"few", "for", "from", "further", "had", "has", "have", "having", "he", "her", "here", "hers", "him",
	"his", "how", "i", "if", "in", "into", "is", "it", "its", "itself", "just", "may", "me", "might",
	"more", "most", "must", "my", "no", "nor", "not", "now", "of", "off", "on", "once", "only", "or",
	"other", "our", "ours", "out", "over", "own", "per", "same", "shall", "she", "should", "so", "some",
	"such", "than", "that", "the", "their", "theirs", "them", "then", "there", "these", "they", "this",
	"those", "through", "to", "too", "under", "until", "up", "upon", "very", "was", "we", "were", "what",
	"when", "where", "whether", "which", "while", "who", "whom", "why", "will", "with", "within",
	"without", "would", "you", "your", "yours"};

static const char *const abbreviations[] = {
	"approx", "apr", "art", "aug", "cf", "co", "corp", "dec", "dept", "dr", "e.g", "est", "etc",
	"feb", "fig", "i.e", "inc", "jan", "jul", "jun", "ltd", "mar", "mr", "mrs", "ms", "nov", "oct",
	"p", "pp", "sec", "sep", "sept", "st", "vs"};

/* Verbs that open an instruction to a model. */
static const char *const imperatives[] = {
	"answer", "classify", "condense", "create", "describe", "draft", "explain", "extract", "find", "give",
	"identify", "label", "list", "merge", "name", "outline", "please", "rank", "rate", "read", "rewrite",
	"score", "shorten", "summarise", "summarize", "tell", "translate", "what", "which", "write", "you"};

static bool
is_word_byte(unsigned char c)
{
	return isalnum(c) || c >= 0x80;
}

static int
compare_name(const void *a, const void *b)
{
	return strcmp((const char *) a, *(const char *const *) b);
}

/* Is the lower-case form of the word in the sorted list? */
static bool
in_list(const char *s, size_t len, const char *const *list, size_t n)
{
	char		lower[16];

	if (len >= sizeof(lower))
		return false;
	for (size_t i = 0; i < len; i++)
		lower[i] = (char) tolower((unsigned char) s[i]);
	lower[len] = '\0';
	return bsearch(lower, list, n, sizeof(*list), compare_name) != NULL;
}

#define LIST(l) (l), sizeof(l) / sizeof((l)[0])

/* Hash of the word's stem: lower case, without a plural's, -ing or -ed ending. */
uint64_t
text_stem(const char *word, size_t len)
{
	char		w[64];
	size_t		n = len < sizeof(w) ? len : sizeof(w);

	for (size_t i = 0; i < n; i++)
		w[i] = (char) tolower((unsigned char) word[i]);
	if (n > 4 && memcmp(w + n - 3, "ies", 3) == 0)
	{
		n -= 2;
		w[n - 1] = 'y';
	}
	else if (n > 3 && w[n - 1] == 's' && w[n - 2] != 's' && w[n - 2] != 'u' && w[n - 2] != 'i')
		n--;
	if (n > 5 && memcmp(w + n - 3, "ing", 3) == 0)
		n -= 3;
	else if (n > 4 && memcmp(w + n - 2, "ed", 2) == 0)
		n -= 2;
	if (n > 3 && w[n - 1] == 'e')
		n--;
	return hash_bytes(w, n, 0);
}

/* Does the text contain the word (its stem), whatever its case? */
bool
text_has_word(const char *s, size_t len, const char *word)
{
	uint64_t	stem = text_stem(word, strlen(word));

	for (size_t i = 0; i < len;)
	{
		size_t		from = i;

		while (i < len && is_word_byte((unsigned char) s[i]))
			i++;
		if (i > from && text_stem(s + from, i - from) == stem)
			return true;
		if (i == from)
			i++;
	}
	return false;
}

/*
 * Does a sentence end after position i? Looks at what stands before the mark
 * (an abbreviation or a section number does not end one) and after it.
 */
static bool
ends_sentence(const char *s, size_t len, size_t start, size_t i)
{
	size_t		from = i;
	size_t		next = i + 1;

	while (next < len && (s[next] == '"' || s[next] == '\'' || s[next] == ')' || s[next] == ']'))
		next++;
	if (next < len && !isspace((unsigned char) s[next]))
		return false;
	if (s[i] != '.')
		return true;
	while (from > start && (is_word_byte((unsigned char) s[from - 1]) || s[from - 1] == '.'))
		from--;
	if (i - from == 1 && isalpha((unsigned char) s[from]))
		return false; /* an initial, or "a." in a list */
	if (in_list(s + from, i - from, LIST(abbreviations)))
		return false;
	if (from == start || (from > 0 && s[from - 1] == '\n'))
	{
		size_t		k = from;

		while (k < i && (isdigit((unsigned char) s[k]) || s[k] == '.'))
			k++;
		if (k == i && k > from)
			return false; /* "12." at the start of a line numbers it */
	}
	while (next < len && isspace((unsigned char) s[next]))
		next++;
	if (i - from == 2 && strncasecmp(s + from, "no", 2) == 0 && next < len && isdigit((unsigned char) s[next]))
		return false;
	return next >= len || !islower((unsigned char) s[next]);
}

/* Is this newline the end of what stands before it: an empty line or a list mark follows? */
static bool
ends_block(const char *s, size_t len, size_t i)
{
	size_t		k = i + 1;

	while (k < len && (s[k] == ' ' || s[k] == '\t' || s[k] == '\r'))
		k++;
	if (k >= len || s[k] == '\n')
		return true;
	return (s[k] == '-' || s[k] == '*') && k + 1 < len && s[k + 1] == ' ';
}

/* The full stops of Chinese and Japanese: U+3002, U+FF01, U+FF1F. */
static bool
is_wide_stop(const char *s, size_t len, size_t i)
{
	return i + 2 < len && (memcmp(s + i, "\xe3\x80\x82", 3) == 0 ||
						   memcmp(s + i, "\xef\xbc\x81", 3) == 0 ||
						   memcmp(s + i, "\xef\xbc\x9f", 3) == 0);
}

static void
add_sentence(Text *t, size_t from, size_t to, int *room)
{
	const char *s = t->s;

	while (from < to && isspace((unsigned char) s[from]))
		from++;
	while (to > from && isspace((unsigned char) s[to - 1]))
		to--;
	if (to - from > 2 && (s[from] == '-' || s[from] == '*') && s[from + 1] == ' ')
		from += 2;
	if (to == from)
		return;
	if (t->nsentences == *room)
	{
		*room = *room ? *room * 2 : 32;
		t->sentences = mem_resize(t->sentences, sizeof(Sentence) * (size_t) *room);
	}
	t->sentences[t->nsentences++] = (Sentence){.off = from, .len = to - from};
}

static void
split_sentences(Text *t)
{
	size_t		start = 0;
	int			room = 0;

	for (size_t i = 0; i < t->len; i++)
	{
		char		c = t->s[i];
		bool		wide = is_wide_stop(t->s, t->len, i);

		if (((c == '.' || c == '!' || c == '?') && ends_sentence(t->s, t->len, start, i)) || wide)
		{
			if (wide)
				i += 2;
			while (i + 1 < t->len && (t->s[i + 1] == '"' || t->s[i + 1] == ')'))
				i++;
		}
		else if (!(c == '\n' && ends_block(t->s, t->len, i)))
			continue;
		add_sentence(t, start, i + 1, &room);
		start = i + 1;
	}
	add_sentence(t, start, t->len, &room);
}

static void
split_words(Text *t)
{
	int			room = 0;

	for (int n = 0; n < t->nsentences; n++)
	{
		Sentence   *sen = &t->sentences[n];
		size_t		end = sen->off + sen->len;

		sen->first = t->nwords;
		for (size_t i = sen->off; i < end;)
		{
			size_t		from = i;

			while (i < end && (is_word_byte((unsigned char) t->s[i]) ||
							   (i > from && t->s[i] == '\'' && i + 1 < end && isalpha((unsigned char) t->s[i + 1]))))
				i++;
			if (i == from)
			{
				i++;
				continue;
			}
			if (t->nwords == room)
			{
				room = room ? room * 2 : 256;
				t->words = mem_resize(t->words, sizeof(Word) * (size_t) room);
			}
			t->words[t->nwords++] = (Word){
				.off = from, .len = i - from, .sentence = n, .stem = text_stem(t->s + from, i - from), .stop = i - from == 1 || in_list(t->s + from, i - from, LIST(stop_words)), .capital = isupper((unsigned char) t->s[from]), .digit = isdigit((unsigned char) t->s[from])};
		}
		sen->nwords = t->nwords - sen->first;
	}
}

/* Split s (which must outlive t) into sentences and words; free with text_free. */
void
text_parse(Text *t, const char *s, size_t len)
{
	memset(t, 0, sizeof(*t));
	t->s = s;
	t->len = len;
	split_sentences(t);
	split_words(t);
}

/* Give back what text_parse took. */
void
text_free(Text *t)
{
	free(t->words);
	free(t->sentences);
	memset(t, 0, sizeof(*t));
}

/* Append the text on one line: every run of white space becomes one space. */
void
text_squeeze(Buf *out, const char *s, size_t len)
{
	bool		space = false;
	size_t		start = out->len;

	for (size_t i = 0; i < len; i++)
	{
		if (isspace((unsigned char) s[i]))
			space = out->len > start;
		else
		{
			if (space)
				buf_putc(out, ' ');
			space = false;
			buf_putc(out, s[i]);
		}
	}
}

/* Number of words between white space: the server's estimate of tokens. */
int
text_count_words(const char *s, size_t len)
{
	int			n = 0;
	bool		inside = false;

	for (size_t i = 0; i < len; i++)
	{
		bool		word = !isspace((unsigned char) s[i]);

		n += word && !inside;
		inside = word;
	}
	return n;
}

/* Length in bytes of the first max_words words of s. */
size_t
text_cut_words(const char *s, size_t len, int max_words)
{
	int			n = 0;
	size_t		i = 0;

	while (i < len && n < max_words)
	{
		while (i < len && isspace((unsigned char) s[i]))
			i++;
		while (i < len && !isspace((unsigned char) s[i]))
			i++;
		n++;
	}
	return i;
}

static const char *
skip_space(const char *s, const char *end)
{
	while (s < end && isspace((unsigned char) *s))
		s++;
	return s;
}

/*
 * Split a prompt into its instruction and the text it is about. The first line
 * is an instruction when it ends in a colon, or opens with a verb such as
 * "list" while more follows; "Classify: text" on one line is split at the colon.
 */
void
text_split_prompt(Prompt *p, const char *s, size_t len)
{
	const char *end = s + len;
	const char *line = skip_space(s, end);
	const char *stop = memchr(line, '\n', (size_t) (end - line));
	const char *word = line;
	const char *last;
	const char *rest;
	const char *colon;
	bool		command;

	if (stop == NULL)
		stop = end;
	rest = skip_space(stop, end);
	last = stop;
	while (last > line && isspace((unsigned char) last[-1]))
		last--;
	while (word < last && isalpha((unsigned char) *word))
		word++;
	command = word > line && in_list(line, (size_t) (word - line), LIST(imperatives));

	*p = (Prompt){.instruction = line, .text = line, .text_len = (size_t) (end - line)};
	colon = memchr(line, ':', (size_t) (last - line));
	if (rest < end && last > line && last - line <= 1000 && (last[-1] == ':' || command))
	{
		p->instruction_len = (size_t) (last - line);
		p->text = rest;
	}
	else if (command && colon != NULL && colon - line <= 120 && skip_space(colon + 1, end) < end)
	{
		p->instruction_len = (size_t) (colon + 1 - line);
		p->text = skip_space(colon + 1, end);
	}
	p->text_len = (size_t) (end - p->text);
	while (p->text_len > 0 && isspace((unsigned char) p->text[p->text_len - 1]))
		p->text_len--;
}

/* The number a word says: "two", "a", "3"; 0 if it says none. */
static int
number_word(const char *s, size_t len)
{
	static const char *const names[] = {
		"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"};

	if (len > 0 && len <= 6 && isdigit((unsigned char) s[0]))
		return atoi(s);
	for (int i = 1; i <= 12; i++)
		if (strlen(names[i]) == len && strncasecmp(names[i], s, len) == 0)
			return i;
	if ((len == 1 && tolower((unsigned char) s[0]) == 'a') || (len == 6 && strncasecmp(s, "single", 6) == 0))
		return 1;
	return 0;
}

/*
 * How long an answer the instruction asks for: "in two sentences", "one-page",
 * "three lines", "at most 40 words". Returns the number and sets its unit;
 * UNIT_NONE when it does not say.
 */
int
text_wanted_length(const char *s, size_t len, Unit *unit)
{
	static const struct
	{
		const char *name;
		Unit		unit;
	} units[] = {
		{"sentence", UNIT_SENTENCE}, {"line", UNIT_LINE}, {"paragraph", UNIT_PARAGRAPH}, {"page", UNIT_PAGE}, {"word", UNIT_WORD}, {"point", UNIT_POINT}, {"bullet", UNIT_POINT}, {"phrase", UNIT_POINT}, {"keyword", UNIT_POINT}, {"item", UNIT_POINT}};
	Text		t;
	int			n = 0;

	*unit = UNIT_NONE;
	text_parse(&t, s, len);
	for (int i = 1; i < t.nwords && *unit == UNIT_NONE; i++)
	{
		for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++)
		{
			if (t.words[i].stem != text_stem(units[u].name, strlen(units[u].name)))
				continue;
			n = number_word(s + t.words[i - 1].off, t.words[i - 1].len);
			if (n == 0 && i > 1 && number_word(s + t.words[i - 2].off, t.words[i - 2].len) > 0)
				n = number_word(s + t.words[i - 2].off, t.words[i - 2].len);
			if (n > 0)
			{
				*unit = units[u].unit;
				break;
			}
		}
	}
	text_free(&t);
	return n;
}
