/*
 * handover_wire.c
 *	  Orders and answers as a run of bytes.
 *
 * Both ends are processes of one server with one library, so the form is the
 * plain structs followed by what their pointers point to, in a fixed order.
 * Each piece is aligned: jsonb is read where it lies.
 */
#include "postgres.h"

#include "worker/handover_wire.h"

/* ---- pieces: a length, -1 for NULL, and as many bytes ---- */

static void
put_piece(StringInfo buf, const void *bytes, Size len)
{
	int64		head = bytes ? (int64) len : -1;
	static const char padding[MAXIMUM_ALIGNOF] = {0};

	appendBinaryStringInfo(buf, (const char *) &head, sizeof(head));
	if (bytes == NULL)
		return;
	appendBinaryStringInfo(buf, bytes, (int) len);
	appendBinaryStringInfo(buf, padding, (int) (MAXALIGN(len) - len));
}

static void *
get_piece(char **at)
{
	int64		len = *(int64 *) *at;
	char	   *bytes = *at + sizeof(int64);

	*at = bytes;
	if (len < 0)
		return NULL;
	*at += MAXALIGN(len);
	return bytes;
}

static void
put_text(StringInfo buf, const char *text)
{
	put_piece(buf, text, text ? strlen(text) + 1 : 0);
}

static void
put_json(StringInfo buf, const Jsonb *value)
{
	put_piece(buf, value, value ? VARSIZE(value) : 0);
}

static void
put_texts(StringInfo buf, const char *const *texts, int n)
{
	if (texts == NULL)
		return;
	for (int i = 0; i < n; i++)
		put_text(buf, texts[i]);
}

static const char **
get_texts(char **at, const char *const *texts, int n)
{
	const char **result;

	if (texts == NULL)
		return NULL;
	result = palloc(Max(n, 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
		result[i] = get_piece(at);
	return result;
}

/* ---- orders ---- */

/* Appends the order. */
void
wire_put_order(StringInfo buf, const StepOrder *order)
{
	put_piece(buf, order, sizeof(StepOrder));
	put_text(buf, order->chain);
	put_text(buf, order->path);
	put_text(buf, order->search_path);
	put_text(buf, order->sql);
	put_text(buf, order->function);
	for (int i = 0; i < order->nparams; i++)
		put_json(buf, order->params[i]);
	put_texts(buf, order->types, order->nparams);
	put_texts(buf, order->names, order->nparams);
}

/* Reads it back; its texts and values stay in bytes. */
void
wire_get_order(char *bytes, StepOrder *order)
{
	char	   *at = bytes;

	memcpy(order, get_piece(&at), sizeof(StepOrder));
	order->chain = get_piece(&at);
	order->path = get_piece(&at);
	order->search_path = get_piece(&at);
	order->sql = get_piece(&at);
	order->function = get_piece(&at);
	order->params = palloc(Max(order->nparams, 1) * sizeof(Jsonb *));
	for (int i = 0; i < order->nparams; i++)
		order->params[i] = get_piece(&at);
	order->types = get_texts(&at, order->types, order->nparams);
	order->names = get_texts(&at, order->names, order->nparams);
}

/* ---- answers ---- */

static void
put_tried(StringInfo buf, const List *tried)
{
	int64		n = list_length(tried);
	ListCell   *lc;

	put_piece(buf, &n, sizeof(n));
	foreach(lc, tried)
	{
		const TriedModel *model = lfirst(lc);

		put_piece(buf, &model->cls, sizeof(model->cls));
		put_text(buf, model->model);
		put_text(buf, model->message);
	}
}

static List *
get_tried(char **at)
{
	int64		n = *(int64 *) get_piece(at);
	List	   *tried = NIL;

	for (int64 i = 0; i < n; i++)
	{
		TriedModel *model = palloc(sizeof(TriedModel));

		model->cls = *(ErrorClass *) get_piece(at);
		model->model = get_piece(at);
		model->message = get_piece(at);
		tried = lappend(tried, model);
	}
	return tried;
}

/* Appends an answer: an output, or why there is none. */
void
wire_put_answer(StringInfo buf, const Jsonb *output, const StepError *error)
{
	put_json(buf, output);
	put_piece(buf, error, sizeof(StepError));
	if (error == NULL)
		return;
	put_text(buf, error->message);
	put_text(buf, error->detail);
	put_text(buf, error->hint);
	put_text(buf, error->step);
	put_text(buf, error->context);
	put_tried(buf, error->tried);
}

/* Reads it back; its texts and values stay in bytes. */
void
wire_get_answer(char *bytes, Jsonb **output, StepError **error)
{
	char	   *at = bytes;

	*output = get_piece(&at);
	*error = get_piece(&at);
	if (*error == NULL)
		return;
	(*error)->message = get_piece(&at);
	(*error)->detail = get_piece(&at);
	(*error)->hint = get_piece(&at);
	(*error)->step = get_piece(&at);
	(*error)->context = get_piece(&at);
	(*error)->tried = get_tried(&at);
}
