/*
 * text.h: words and sentences of a text, shared by all the models.
 */
#ifndef MODELSERVER_TEXT_H
#define MODELSERVER_TEXT_H

#include "buf.h"

typedef struct Word
{
	size_t		off;			/* bytes from the start of the text */
	size_t		len;
	uint64_t	stem;			/* hash of the lower-case stem */
	int			sentence;
	bool		stop;			/* says nothing about the subject */
	bool		capital;
	bool		digit;			/* starts with a digit */
} Word;

typedef struct Sentence
{
	size_t		off;
	size_t		len;
	int			first;			/* its first word */
	int			nwords;
} Sentence;

typedef struct Text
{
	const char *s;				/* not owned */
	size_t		len;
	Word	   *words;
	int			nwords;
	Sentence   *sentences;
	int			nsentences;
} Text;

typedef struct Prompt
{
	const char *instruction;	/* points into the prompt; may be empty */
	size_t		instruction_len;
	const char *text;
	size_t		text_len;
} Prompt;

typedef enum Unit
{
	UNIT_NONE,
	UNIT_SENTENCE,
	UNIT_LINE,
	UNIT_PARAGRAPH,
	UNIT_PAGE,
	UNIT_WORD,
	UNIT_POINT
} Unit;

extern void text_parse(Text *t, const char *s, size_t len);
extern void text_free(Text *t);
extern uint64_t text_stem(const char *word, size_t len);
extern bool text_has_word(const char *s, size_t len, const char *word);
extern int	text_kin_of(uint64_t stem);
extern bool text_is_kin(int place, uint64_t stem);
extern void text_squeeze(Buf *out, const char *s, size_t len);
extern int	text_count_words(const char *s, size_t len);
extern size_t text_cut_words(const char *s, size_t len, int max_words);
extern void text_split_prompt(Prompt *p, const char *s, size_t len);
extern int	text_wanted_length(const char *s, size_t len, Unit *unit);

/* the models that read and write text */
extern void text_summarise(Buf *out, const Prompt *p, const char *hint, size_t hint_len);
extern void text_keywords(Buf *out, const Prompt *p);
extern void text_embed(const char *s, size_t len, int dimensions, float *out);

#endif
