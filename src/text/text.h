/*
 * text.h
 *	  Cutting texts into pieces and packing pieces together.
 *
 * What split_text(), pack_text() and estimate_tokens() do, for callers in C:
 * nothing here needs a transaction or looks anything up.  Texts are in the
 * server's encoding.  Long work calls `pause` after every 64 kB or so, which
 * may raise: a session passes one that checks for interrupts, a worker one
 * that looks at its own clock and latch, NULL is for neither.
 */
#ifndef CHAINCALL_TEXT_H
#define CHAINCALL_TEXT_H

#include "postgres.h"

typedef void (*TextPause) (void *arg);

typedef enum SplitBy
{
	SPLIT_SECTION,
	SPLIT_PARAGRAPH,
	SPLIT_SENTENCE,
	SPLIT_TOKENS,
	SPLIT_CHARACTERS
} SplitBy;

/* A piece of a text, in bytes. */
typedef struct TextSpan
{
	int			start;
	int			len;
} TextSpan;

typedef struct TextSpans
{
	TextSpan   *spans;			/* palloc'd; NULL when there is none */
	int			count;
	int			allocated;
	int64		bytes;			/* of all spans together */
} TextSpans;

/* One item to be packed. */
typedef struct TextItem
{
	const char *text;
	int			len;
	int			number;			/* from 1, for messages */
} TextItem;

/* What the pieces of a text may have together; 1 GB, unless somebody sets less. */
extern Size text_most_bytes;

extern SplitBy text_split_by(const char *name, int len);
extern TextSpans text_split(const char *text, int len, SplitBy by, int size,
							int overlap, TextPause pause, void *arg);
extern int	text_estimate_tokens(const char *text, int len, TextPause pause,
								 void *arg);
extern int *text_pack(const TextItem *items, int nitems, int tokens,
					  TextPause pause, void *arg, int *npacks);

#endif							/* CHAINCALL_TEXT_H */
