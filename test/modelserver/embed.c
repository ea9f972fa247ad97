/*
 * embed.c: the model `hash-embedding`.
 *
 * Feature hashing (Weinberger and others, 2009): each word, pair of words and
 * three-letter piece adds +1 or -1, by its hash, to one of the dimensions, and
 * the vector is scaled to unit length. Texts that share words are near, so
 * search by distance does something sensible without any weights.
 */
#include "text.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

static void
add_feature(float *out, int dimensions, uint64_t hash, float weight)
{
	out[(hash >> 1) % (uint64_t) dimensions] += hash & 1 ? weight : -weight;
}

/* Fill out with the text's vector: dimensions floats of unit length. */
void
text_embed(const char *s, size_t len, int dimensions, float *out)
{
	Text		t;
	uint64_t	last = 0;
	double		sum = 0;

	memset(out, 0, sizeof(float) * (size_t) dimensions);
	text_parse(&t, s, len);
	for (int i = 0; i < t.nwords; i++)
	{
		const Word *w = &t.words[i];

		if (w->stop)
			continue;
		add_feature(out, dimensions, w->stem, 1);
		if (last)
			add_feature(out, dimensions, hash_bytes(&w->stem, sizeof(w->stem), last), 0.5f);
		last = w->stem;
		for (size_t k = 0; k + 3 <= w->len && k < 32; k++)
		{
			char		piece[3];

			for (int c = 0; c < 3; c++)
				piece[c] = (char) tolower((unsigned char) s[w->off + k + (size_t) c]);
			add_feature(out, dimensions, hash_bytes(piece, 3, 3), 0.2f);
		}
	}
	if (t.nwords == 0 || last == 0)
		add_feature(out, dimensions, hash_bytes(s, len, 7), 1);
	text_free(&t);

	for (int i = 0; i < dimensions; i++)
		sum += (double) out[i] * out[i];
	if (sum <= 0)				/* features cancelled each other out */
	{
		out[0] = 1;
		return;
	}
	for (int i = 0; i < dimensions; i++)
		out[i] = (float) (out[i] / sqrt(sum));
}
