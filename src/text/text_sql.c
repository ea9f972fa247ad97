/*
 * text_sql.c
 *	  split_text(), join_text(), pack_text() and estimate_tokens() for SQL.
 *
 * The work itself is in the text_*.c files, which workers call without SQL.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "text/text.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(chaincall_split_text);
PG_FUNCTION_INFO_V1(chaincall_join_text);
PG_FUNCTION_INFO_V1(chaincall_pack_text);
PG_FUNCTION_INFO_V1(chaincall_estimate_tokens);

static void
look_for_interrupts(void *arg)
{
	CHECK_FOR_INTERRUPTS();
}

static ArrayType *
make_text_array(Datum *items, int nitems)
{
	return construct_array(items, nitems, TEXTOID, -1, false, TYPALIGN_INT);
}

/* The array's texts, without its nulls. */
static TextItem *
read_text_array(ArrayType *array, int *nitems)
{
	Datum	   *elements;
	bool	   *nulls;
	int			nelements;
	TextItem   *items;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &nelements);
	items = palloc_extended(sizeof(TextItem) * Max(nelements, 1),
							MCXT_ALLOC_HUGE);
	*nitems = 0;
	for (int i = 0; i < nelements; i++)
	{
		text	   *t;

		if (nulls[i])
			continue;
		t = DatumGetTextPP(elements[i]);
		items[*nitems].text = VARDATA_ANY(t);
		items[*nitems].len = VARSIZE_ANY_EXHDR(t);
		items[*nitems].number = i + 1;
		(*nitems)++;
	}
	return items;
}

/* Appends the items with the separator between them. */
static void
append_joined(StringInfo buf, const TextItem *items, int nitems,
			  const char *separator, int separator_len)
{
	for (int i = 0; i < nitems; i++)
	{
		if (i > 0)
			appendBinaryStringInfo(buf, separator, separator_len);
		appendBinaryStringInfo(buf, items[i].text, items[i].len);
	}
}

/* split_text(text, by, size, overlap) → text[] */
Datum
chaincall_split_text(PG_FUNCTION_ARGS)
{
	text	   *whole = PG_GETARG_TEXT_PP(0);
	text	   *by = PG_GETARG_TEXT_PP(1);
	const char *data = VARDATA_ANY(whole);
	TextSpans	pieces;
	Datum	   *items;

	pieces = text_split(data, VARSIZE_ANY_EXHDR(whole),
						text_split_by(VARDATA_ANY(by), VARSIZE_ANY_EXHDR(by)),
						PG_GETARG_INT32(2), PG_GETARG_INT32(3),
						look_for_interrupts, NULL);
	if (pieces.count == 0)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(TEXTOID));
	items = palloc_extended(sizeof(Datum) * pieces.count, MCXT_ALLOC_HUGE);
	for (int i = 0; i < pieces.count; i++)
	{
		TextSpan   *span = &pieces.spans[i];

		items[i] = PointerGetDatum(cstring_to_text_with_len(data + span->start,
															span->len));
	}
	PG_RETURN_ARRAYTYPE_P(make_text_array(items, pieces.count));
}

/* join_text(items, separator) → text */
Datum
chaincall_join_text(PG_FUNCTION_ARGS)
{
	text	   *separator = PG_GETARG_TEXT_PP(1);
	int			nitems;
	TextItem   *items = read_text_array(PG_GETARG_ARRAYTYPE_P(0), &nitems);
	StringInfoData buf;

	initStringInfo(&buf);
	append_joined(&buf, items, nitems, VARDATA_ANY(separator),
				  VARSIZE_ANY_EXHDR(separator));
	PG_RETURN_TEXT_P(cstring_to_text_with_len(buf.data, buf.len));
}

/* pack_text(items, tokens) → text[] */
Datum
chaincall_pack_text(PG_FUNCTION_ARGS)
{
	int			nitems;
	TextItem   *items = read_text_array(PG_GETARG_ARRAYTYPE_P(0), &nitems);
	int			npacks;
	int		   *ends = text_pack(items, nitems, PG_GETARG_INT32(1),
								 look_for_interrupts, NULL, &npacks);
	Datum	   *packs;
	StringInfoData buf;
	int			start = 0;

	if (npacks == 0)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(TEXTOID));
	packs = palloc_extended(sizeof(Datum) * npacks, MCXT_ALLOC_HUGE);
	initStringInfo(&buf);
	for (int i = 0; i < npacks; i++)
	{
		resetStringInfo(&buf);
		append_joined(&buf, items + start, ends[i] - start, "\n\n", 2);
		packs[i] = PointerGetDatum(cstring_to_text_with_len(buf.data, buf.len));
		start = ends[i];
	}
	PG_RETURN_ARRAYTYPE_P(make_text_array(packs, npacks));
}

/* estimate_tokens(text) → int */
Datum
chaincall_estimate_tokens(PG_FUNCTION_ARGS)
{
	text	   *t = PG_GETARG_TEXT_PP(0);

	PG_RETURN_INT32(text_estimate_tokens(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t),
										 look_for_interrupts, NULL));
}
