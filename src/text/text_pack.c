/*
 * text_pack.c
 *	  Packing consecutive texts together, as few packs as will do.
 *
 * Who reduces many texts to fewer by packs, again and again, must not go in
 * circles: every pack but the last has at least two items.  Filling each pack
 * as far as it goes can leave an item alone in the next that would have fitted
 * had the one before it gone there too, so it is first found out, from the
 * end, from which items on the rest can be packed.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "text/text.h"

#define EXCERPT_CHARACTERS 40

typedef struct Packing
{
	const TextItem *items;
	int			nitems;
	int			limit;
	int64	   *before;			/* tokens of all items before the i-th */
	int		   *next;			/* first item of the pack after i's; 0: none */
} Packing;

static void
count_tokens(Packing *packing, TextPause pause, void *arg)
{
	packing->before = palloc_extended(sizeof(int64) * (packing->nitems + 1),
									  MCXT_ALLOC_HUGE);
	packing->before[0] = 0;
	for (int i = 0; i < packing->nitems; i++)
	{
		const TextItem *item = &packing->items[i];

		packing->before[i + 1] = packing->before[i] +
			text_estimate_tokens(item->text, item->len, pause, arg);
	}
}

/*
 * For each item, where a pack that begins with it ends so that the rest can be
 * packed too: the last such place.  Both bounds only move down.
 */
static void
find_ends(Packing *packing)
{
	int			n = packing->nitems;
	int			last = n;

	packing->next = palloc_extended(sizeof(int) * (n + 1), MCXT_ALLOC_HUGE);
	packing->next[n] = n;		/* nothing left: packed */
	for (int i = n - 1; i >= 0; i--)
	{
		while (last > i + 1 &&
			   (packing->next[last] == 0 ||
				packing->before[last] - packing->before[i] > packing->limit))
			last--;
		if (last >= i + 2 ||
			(i == n - 1 &&
			 packing->before[n] - packing->before[i] <= packing->limit))
			packing->next[i] = last;
		else
			packing->next[i] = 0;
	}
}

static char *
excerpt(const TextItem *item)
{
	int			len = pg_mbcharcliplen(item->text, item->len,
									   EXCERPT_CHARACTERS);

	return psprintf("%.*s%s", len, item->text, len < item->len ? "..." : "");
}

/* Which item's fault it is: fills packs until one cannot be filled. */
static void
refuse_item(const Packing *packing)
{
	int			start = 0;
	int			end;
	int			culprit;
	int64		tokens;

	for (;;)
	{
		end = start;
		while (end < packing->nitems &&
			   packing->before[end + 1] - packing->before[start] <= packing->limit)
			end++;
		if (end < start + 2)
			break;
		start = end;
	}
	culprit = start;
	if (end > start &&
		packing->before[start + 2] - packing->before[start + 1] >
		packing->before[start + 1] - packing->before[start])
		culprit = start + 1;
	tokens = packing->before[culprit + 1] - packing->before[culprit];

	if (tokens > packing->limit)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("item %d is too long for a pack of at most %d tokens",
					   packing->items[culprit].number, packing->limit),
				errdetail("It has about %lld: \"%s\"", (long long) tokens,
						  excerpt(&packing->items[culprit])),
				errhint("Allow more tokens, or split or shorten the items first."));
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("item %d is too long to share a pack of at most %d tokens",
				   packing->items[culprit].number, packing->limit),
			errdetail("It has about %lld, too many beside its neighbour: \"%s\"",
					  (long long) tokens, excerpt(&packing->items[culprit])),
			errhint("Allow more tokens, or split or shorten the items first."));
}

/*
 * Packs consecutive items so that none has more than `tokens` estimated tokens
 * (at least 1) and every pack but the last has two items or more.  Returns for
 * each pack the index behind its last item, and their number in *npacks.
 * Raises invalid_parameter_value, naming the item, when that cannot be.
 */
int *
text_pack(const TextItem *items, int nitems, int tokens, TextPause pause,
		  void *arg, int *npacks)
{
	Packing		packing = {items, nitems, tokens, NULL, NULL};
	int		   *ends;
	int			count = 0;

	if (tokens < 1)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("a pack must be allowed at least 1 token"),
				errdetail("tokens is %d.", tokens),
				errhint("Say how much the model shall read at once, for example tokens => 4000."));
	count_tokens(&packing, pause, arg);
	find_ends(&packing);
	if (nitems > 0 && packing.next[0] == 0)
		refuse_item(&packing);

	ends = palloc_extended(sizeof(int) * (nitems + 1), MCXT_ALLOC_HUGE);
	for (int i = 0; i < nitems; i = packing.next[i])
		ends[count++] = packing.next[i];
	*npacks = count;
	return ends;
}
