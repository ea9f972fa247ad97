/*
 * summary.c: the models `extractive` and `keywords`.
 *
 * The summary is TextRank (Mihalcea and Tarau, 2004): sentences are nodes,
 * what two of them share is the weight of their edge, and PageRank over that
 * graph says which sentences the others speak about. The random surfer prefers
 * sentences near the instruction, so "List obligations and deadlines" finds
 * other sentences than "Summarise". Key phrases are runs of telling words,
 * scored as in RAKE (Rose and others, 2010).
 */
#include "text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NODES	 800 /* the graph is dense: longer texts are thinned first */
#define DAMPING		 0.85
#define ROUNDS		 30
#define WORDS_A_PAGE 400

typedef struct Posting
{
	uint64_t	stem;
	int			sentence;
	int			count;
} Posting;

typedef struct Graph
{
	Text		text;
	Posting    *postings;		/* sorted by stem, then sentence */
	int			npostings;
	double	   *idf;			/* one for each posting */
	double	   *centroid;		/* of each sentence: sum of tf × idf */
	int		   *node;			/* sentence number of each node */
	int			nnodes;
	double	   *match;			/* of each node: how much it answers to the instruction */
	double	   *bias;			/* of each node: what the surfer prefers */
	double	   *rank;			/* of each node */
} Graph;

static int
compare_postings(const void *a, const void *b)
{
	const Posting *x = a;
	const Posting *y = b;

	if (x->stem != y->stem)
		return x->stem < y->stem ? -1 : 1;
	return x->sentence - y->sentence;
}

/* One posting for each (stem, sentence), and how telling each stem is. */
static void
graph_index(Graph *g)
{
	const Text *t = &g->text;
	int			n = 0;

	g->postings = mem_alloc(sizeof(Posting) * (size_t) t->nwords);
	for (int i = 0; i < t->nwords; i++)
		if (!t->words[i].stop)
			g->postings[n++] = (Posting){
				t->words[i].stem, t->words[i].sentence, 1};
	qsort(g->postings, (size_t) n, sizeof(Posting), compare_postings);
	for (int i = 0; i < n; i++)
	{
		Posting    *last = &g->postings[g->npostings - 1];

		if (g->npostings > 0 && compare_postings(last, &g->postings[i]) == 0)
			last->count++;
		else
			g->postings[g->npostings++] = g->postings[i];
	}

	g->idf = mem_alloc(sizeof(double) * (size_t) g->npostings);
	g->centroid = mem_alloc(sizeof(double) * (size_t) t->nsentences);
	for (int i = 0, j; i < g->npostings; i = j)
	{
		for (j = i; j < g->npostings && g->postings[j].stem == g->postings[i].stem; j++)
			;
		for (int k = i; k < j; k++)
		{
			g->idf[k] = log(1.0 + (double) t->nsentences / (j - i));
			g->centroid[g->postings[k].sentence] += g->idf[k] * (j - i > 1);
		}
	}
}

static const double *sort_keys;

static int
compare_keys_down(const void *a, const void *b)
{
	double		x = sort_keys[*(const int *) a];
	double		y = sort_keys[*(const int *) b];

	if (x != y)
		return x > y ? -1 : 1;
	return *(const int *) a - *(const int *) b;
}

static int
compare_ints(const void *a, const void *b)
{
	return *(const int *) a - *(const int *) b;
}

/* Indexes 0 … n-1, largest key first. */
static int *
order_down(const double *keys, int n)
{
	int		   *order = mem_alloc(sizeof(int) * (size_t) n);

	for (int i = 0; i < n; i++)
		order[i] = i;
	sort_keys = keys;
	qsort(order, (size_t) n, sizeof(int), compare_keys_down);
	return order;
}

/* All sentences are nodes, or the MAX_NODES whose words recur most. */
static void
graph_choose_nodes(Graph *g)
{
	int			n = g->text.nsentences;

	g->node = order_down(g->centroid, n);
	g->nnodes = n < MAX_NODES ? n : MAX_NODES;
	qsort(g->node, (size_t) g->nnodes, sizeof(int), compare_ints);
}

/* How much a sentence answers to the words of the instruction: at least 1. */
static double
instruction_match(const Graph *g, const Sentence *sen, const Text *asked)
{
	double		match = 1;

	for (int i = 0; i < asked->nwords; i++)
	{
		int			kin = text_kin_of(asked->words[i].stem);

		for (int w = 0; w < sen->nwords && !asked->words[i].stop; w++)
		{
			uint64_t	stem = g->text.words[sen->first + w].stem;

			match += stem == asked->words[i].stem;
			match += 2 * text_is_kin(kin, stem);
		}
	}
	return match;
}

/* Very short and very long sentences make poor summaries, and so do headings. */
static double
form_weight(const Text *t, const Sentence *sen)
{
	int			capitals = 0;

	for (int i = 0; i < sen->nwords; i++)
		capitals += t->words[sen->first + i].capital || t->words[sen->first + i].digit;
	if (sen->nwords < 5 || (sen->nwords < 12 && capitals * 5 > sen->nwords * 3))
		return 0.2;
	return sen->nwords > 60 ? 0.6 : 1;
}

static void
graph_bias(Graph *g, const Text *asked)
{
	double		sum = 0;

	g->match = mem_alloc(sizeof(double) * (size_t) g->nnodes);
	g->bias = mem_alloc(sizeof(double) * (size_t) g->nnodes);
	for (int i = 0; i < g->nnodes; i++)
	{
		const Sentence *sen = &g->text.sentences[g->node[i]];

		g->match[i] = instruction_match(g, sen, asked);
		g->bias[i] = g->match[i] * form_weight(&g->text, sen) * (g->node[i] == 0 ? 1.5 : 1);
		sum += g->bias[i];
	}
	for (int i = 0; i < g->nnodes; i++)
		g->bias[i] /= sum;
}

/* The weight of every edge, each row divided by its sum. */
static float *
graph_edges(const Graph *g, bool *isolated)
{
	size_t		n = (size_t) g->nnodes;
	float	   *edge = mem_alloc(sizeof(float) * n * n);
	int		   *node_of = mem_alloc(sizeof(int) * (size_t) g->text.nsentences);

	memset(node_of, -1, sizeof(int) * (size_t) g->text.nsentences);
	for (size_t i = 0; i < n; i++)
		node_of[g->node[i]] = (int) i;
	for (int i = 0, j; i < g->npostings; i = j)
	{
		for (j = i; j < g->npostings && g->postings[j].stem == g->postings[i].stem; j++)
			;
		if (n > 40 && j - i > (int) n / 3)
			continue; /* in every third sentence: not telling */
		for (int a = i; a < j; a++)
			for (int b = a + 1; b < j; b++)
			{
				int			x = node_of[g->postings[a].sentence];
				int			y = node_of[g->postings[b].sentence];

				if (x < 0 || y < 0)
					continue;
				edge[(size_t) x * n + (size_t) y] += (float) g->idf[a];
				edge[(size_t) y * n + (size_t) x] += (float) g->idf[a];
			}
	}
	free(node_of);

	for (size_t x = 0; x < n; x++)
	{
		double		sum = 0;

		for (size_t y = 0; y < n; y++)
		{
			int			words = g->text.sentences[g->node[x]].nwords + g->text.sentences[g->node[y]].nwords;

			edge[x * n + y] /= (float) log(2.0 + words);
			sum += edge[x * n + y];
		}
		isolated[x] = sum <= 0;
		for (size_t y = 0; y < n && sum > 0; y++)
			edge[x * n + y] /= (float) sum;
	}
	return edge;
}

/* PageRank by power iteration, with the bias as the place to jump to. */
static void
graph_rank(Graph *g)
{
	size_t		n = (size_t) g->nnodes;
	bool	   *isolated = mem_alloc(n);
	float	   *edge = graph_edges(g, isolated);
	double	   *next = mem_alloc(sizeof(double) * n);

	g->rank = mem_alloc(sizeof(double) * n);
	for (size_t i = 0; i < n; i++)
		g->rank[i] = 1.0 / (double) n;
	for (int round = 0; round < ROUNDS; round++)
	{
		double		loose = 0;
		double	   *swap;

		memset(next, 0, sizeof(double) * n);
		for (size_t x = 0; x < n; x++)
		{
			if (isolated[x])
				loose += g->rank[x];
			else
				for (size_t y = 0; y < n; y++)
					next[y] += edge[x * n + y] * g->rank[x];
		}
		for (size_t y = 0; y < n; y++)
			next[y] = (1 - DAMPING) * g->bias[y] + DAMPING * (next[y] + loose * g->bias[y]);
		swap = g->rank;
		g->rank = next;
		next = swap;
	}
	for (size_t i = 0; i < n; i++)
		g->rank[i] *= sqrt(g->match[i]) * form_weight(&g->text, &g->text.sentences[g->node[i]]);
	free(isolated);
	free(edge);
	free(next);
}

/* The share of sentence a's telling words that b has too. */
static double
overlap(const Text *t, const Sentence *a, const Sentence *b)
{
	int			telling = 0;
	int			shared = 0;

	for (int i = 0; i < a->nwords; i++)
	{
		const Word *w = &t->words[a->first + i];

		if (w->stop)
			continue;
		telling++;
		for (int j = 0; j < b->nwords; j++)
			if (t->words[b->first + j].stem == w->stem)
			{
				shared++;
				break;
			}
	}
	return telling == 0 ? 1 : (double) shared / telling;
}

/*
 * Take the best sentences until there are max_sentences, or max_words words,
 * leaving out what says again what was said. Returns their number; chosen holds
 * node numbers in the order of the text.
 */
static int
graph_pick(const Graph *g, int max_sentences, int max_words, int *chosen)
{
	int		   *order = order_down(g->rank, g->nnodes);
	int			n = 0;
	int			words = 0;

	for (int i = 0; i < g->nnodes && n < max_sentences; i++)
	{
		const Sentence *sen = &g->text.sentences[g->node[order[i]]];
		bool		again = false;

		for (int k = 0; k < n && !again; k++)
			again = overlap(&g->text, sen, &g->text.sentences[g->node[chosen[k]]]) > 0.7;
		if (again || (n > 0 && words + sen->nwords > max_words))
			continue;
		chosen[n++] = order[i];
		words += sen->nwords;
	}
	qsort(chosen, (size_t) n, sizeof(int), compare_ints);
	free(order);
	return n;
}

typedef struct Shape
{
	int			sentences;
	int			words;
	int			a_block;		/* sentences in a paragraph; 0: all in one */
	bool		list;			/* one "- " line for each */
	bool		lines;			/* one line for each */
} Shape;

static Shape
wanted_shape(const Prompt *p, const char *hint, size_t hint_len, int nsentences)
{
	Shape		shape = {.sentences = nsentences < 8 ? 2 : 3, .words = 1000000};
	Unit		unit;
	int			n = text_wanted_length(p->instruction, p->instruction_len, &unit);

	if (unit == UNIT_NONE)
		n = text_wanted_length(hint, hint_len, &unit);
	shape.list = unit == UNIT_POINT || text_has_word(p->instruction, p->instruction_len, "list");
	if (unit == UNIT_NONE && shape.list)
		shape.sentences = 8;
	if (unit == UNIT_SENTENCE || unit == UNIT_LINE || unit == UNIT_POINT)
		shape.sentences = n;
	if (unit == UNIT_PARAGRAPH)
		shape.sentences = n > 1000 ? 5000 : n * 5;
	if (unit == UNIT_PAGE || unit == UNIT_WORD)
	{
		shape.sentences = nsentences;
		shape.words = n > 1000000 / WORDS_A_PAGE ? 1000000 : unit == UNIT_PAGE ? n * WORDS_A_PAGE
																			   : n;
	}
	if (unit == UNIT_PAGE || unit == UNIT_PARAGRAPH)
		shape.a_block = unit == UNIT_PAGE ? 4 : 5;
	shape.lines = unit == UNIT_LINE || shape.list;
	return shape;
}

/*
 * Append the extractive summary of the prompt's text. Its length is what the
 * instruction, else hint (the system message), asks for; else 2 or 3 sentences.
 */
void
text_summarise(Buf *out, const Prompt *p, const char *hint, size_t hint_len)
{
	Graph		g = {0};
	Text		asked;
	Shape		shape;
	int		   *chosen;
	int			n;

	text_parse(&g.text, p->text, p->text_len);
	if (g.text.nwords == 0)
	{
		text_squeeze(out, p->text, p->text_len);
		text_free(&g.text);
		return;
	}
	text_parse(&asked, p->instruction, p->instruction_len);
	shape = wanted_shape(p, hint, hint_len, g.text.nsentences);
	graph_index(&g);
	graph_choose_nodes(&g);
	graph_bias(&g, &asked);
	graph_rank(&g);
	chosen = mem_alloc(sizeof(int) * (size_t) g.nnodes);
	n = graph_pick(&g, shape.sentences, shape.words, chosen);
	for (int i = 0; i < n; i++)
	{
		const Sentence *sen = &g.text.sentences[g.node[chosen[i]]];

		if (i > 0)
			buf_puts(out, shape.lines ? "\n" : shape.a_block && i % shape.a_block == 0 ? "\n\n"
																					   : " ");
		if (shape.list)
			buf_puts(out, "- ");
		text_squeeze(out, g.text.s + sen->off, sen->len);
	}
	free(chosen);
	free(g.postings);
	free(g.idf);
	free(g.centroid);
	free(g.node);
	free(g.match);
	free(g.bias);
	free(g.rank);
	text_free(&asked);
	text_free(&g.text);
}

typedef struct Phrase
{
	int			first;			/* its first word */
	int			nwords;
	uint64_t	id;				/* hash of its stems */
	int			count;
	double		score;
} Phrase;

static int
compare_phrase_ids(const void *a, const void *b)
{
	const Phrase *x = a;
	const Phrase *y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	return x->first - y->first;
}

static int
compare_phrases(const void *a, const void *b)
{
	const Phrase *x = a;
	const Phrase *y = b;

	if (x->score != y->score)
		return x->score > y->score ? -1 : 1;
	return x->first - y->first;
}

/* Is word b the one right behind word a, with nothing but a space or hyphen between? */
static bool
adjacent(const Text *t, const Word *a, const Word *b)
{
	const char *gap = t->s + a->off + a->len;

	for (const char *p = gap; p < t->s + b->off; p++)
		if (*p != ' ' && *p != '-' && *p != '\n' && *p != '\t' && *p != '\r')
			return false;
	return a->sentence == b->sentence;
}

/* All runs of at most three telling words; equal ones counted together. */
static int
find_phrases(const Text *t, Phrase *phrases)
{
	int			n = 0;
	int			distinct = 0;

	for (int i = 0; i < t->nwords;)
	{
		Phrase		p = {.first = i, .count = 1};

		while (i < t->nwords && p.nwords < 3 && !t->words[i].stop && !t->words[i].digit &&
			   (p.nwords == 0 || adjacent(t, &t->words[i - 1], &t->words[i])))
		{
			p.id = hash_bytes(&t->words[i].stem, sizeof(uint64_t), p.id);
			p.nwords++;
			i++;
		}
		if (p.nwords > 0)
			phrases[n++] = p;
		else
			i++;
	}
	qsort(phrases, (size_t) n, sizeof(Phrase), compare_phrase_ids);
	for (int i = 0; i < n; i++)
	{
		if (distinct > 0 && phrases[distinct - 1].id == phrases[i].id)
			phrases[distinct - 1].count++;
		else
			phrases[distinct++] = phrases[i];
	}
	return distinct;
}

static int
compare_stems(const void *a, const void *b)
{
	uint64_t	x = *(const uint64_t *) a;
	uint64_t	y = *(const uint64_t *) b;

	return x < y ? -1 : x > y;
}

/* How often the stem occurs in a sorted list of stems. */
static int
stem_count(const uint64_t *stems, int n, uint64_t stem)
{
	int			lo = 0;
	int			hi = n;
	int			count = 0;

	while (lo < hi)
	{
		int			mid = (lo + hi) / 2;

		if (stems[mid] < stem)
			lo = mid + 1;
		else
			hi = mid;
	}
	while (lo < n && stems[lo++] == stem)
		count++;
	return count;
}

/* Append the key phrases of the prompt's text as a list, 8 unless it asks for another number. */
void
text_keywords(Buf *out, const Prompt *p)
{
	Text		t;
	Phrase	   *phrases;
	uint64_t   *stems;
	Unit		unit;
	int			want = text_wanted_length(p->instruction, p->instruction_len, &unit);
	int			n;

	text_parse(&t, p->text, p->text_len);
	phrases = mem_alloc(sizeof(Phrase) * (size_t) t.nwords);
	n = find_phrases(&t, phrases);
	stems = mem_alloc(sizeof(uint64_t) * (size_t) t.nwords);
	for (int i = 0; i < t.nwords; i++)
		stems[i] = t.words[i].stem;
	qsort(stems, (size_t) t.nwords, sizeof(uint64_t), compare_stems);
	for (int i = 0; i < n; i++)
	{
		for (int w = 0; w < phrases[i].nwords; w++)
			phrases[i].score += log(1.0 + stem_count(stems, t.nwords, t.words[phrases[i].first + w].stem));
		phrases[i].score *= phrases[i].count * (1 + phrases[i].nwords);
	}
	qsort(phrases, (size_t) n, sizeof(Phrase), compare_phrases);
	if (unit != UNIT_POINT || want < 1)
		want = 8;
	for (int i = 0; i < n && i < want; i++)
	{
		const Word *a = &t.words[phrases[i].first];
		const Word *z = &t.words[phrases[i].first + phrases[i].nwords - 1];

		buf_puts(out, i > 0 ? "\n- " : "- ");
		text_squeeze(out, t.s + a->off, z->off + z->len - a->off);
	}
	free(stems);
	free(phrases);
	text_free(&t);
}
