/*
 * service.c: a JSON service that is no language model, such as a fraud score.
 */
#include "server.h"

#include <math.h>
#include <string.h>

/* The sum of the absolute values of all numbers in the request. */
static double
sum_numbers(const json_t *value, int *count)
{
	const char *key;
	json_t	   *v;
	size_t		i;
	double		sum = 0;

	if (json_is_number(value))
	{
		(*count)++;
		return fabs(json_number_value(value));
	}
	if (json_is_object(value))
	{
		json_object_foreach((json_t *) value, key, v) if (strcmp(key, "fault") != 0)
			sum += sum_numbers(v, count);
	}
	else
		json_array_foreach(value, i, v)
			sum += sum_numbers(v, count);
	return sum;
}

/*
 * Answer POST /json with {"echo": the request, "score": s / (s + 1000)}, where s
 * is the sum of the request's numbers: 9000 scores 0.9. Without a number the score
 * comes from the hash of the body. With ?only=score the echo is left out.
 */
void
service_json(Request *r)
{
	const char *only = MHD_lookup_connection_value(r->connection, MHD_GET_ARGUMENT_KIND, "only");
	Buf		   *out = &r->reply.body;
	int			count = 0;
	double		sum = sum_numbers(r->json, &count);
	double		score = isfinite(sum) ? sum / (sum + 1000) : 1;

	if (count == 0)
		score = (double) (hash_bytes(r->body.data, r->body.len, 0) % 10001) / 10000;
	buf_putc(out, '{');
	if (only == NULL || strcmp(only, "score") != 0)
	{
		buf_puts(out, "\"echo\": ");
		if (r->fault.broken == BROKEN_TYPE || r->fault.broken == BROKEN_DEEP)
			buf_puts(out, "\"" SPLICE_MARK "\"");
		else
			buf_append(out, r->body.data, r->body.len);
		buf_puts(out, ", ");
	}
	if (r->fault.miss > 0)
	{
		r->fault.miss = count_key("miss", r->body.data, r->body.len) <= r->fault.miss;
		buf_printf(out, r->fault.miss ? "\"score\": \"unfit-answer\"" : "\"score\": %.4f", score);
	}
	else
		buf_printf(out, "\"score\": %.4f", score);
	if (r->fault.active)
		buf_puts(out, ", \"note\": \"" SPLICE_MARK "\"");
	buf_puts(out, "}\n");
}
