/*
 * count.c: what happened, for the tests that ask afterwards.
 *
 * Everything is counted where it happens, in plain memory (there is one
 * thread): a few additions, one look-up in a hash table by Idempotency-Key and
 * a copy of the request's headers and body into a ring of the last RING
 * requests, about a microsecond in all. The same table counts tries for the
 * faults that hold for the first n requests only.
 */
#include "server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RING	  100
#define RING_BODY (1024 * 1024) /* longer bodies are kept cut, as text */

typedef struct Entry
{
	uint64_t	hash;
	long		count;			/* 0: free */
	size_t		len;
	char	   *key;
	const char *kind;			/* the caller's literal */
} Entry;

typedef struct Seen
{
	char		method[16];
	Buf			path;
	Buf			headers;		/* name, value, name, value, each NUL-terminated */
	Buf			body;
	size_t		body_len;		/* as received */
	bool		is_json;
} Seen;

static struct
{
	long		requests;
	long		answered;
	long		in_flight;
	long		max_in_flight;
	long		keys;			/* distinct Idempotency-Keys */
	long		repeated;		/* requests whose key had been seen */
	long		no_key;
	long		by_model[MODEL_COUNT];
	long		by_status[1000];
} total;

static long connections,
	connections_total,
	max_connections; /* not reset to 0: they are still open */

static FILE *request_log;

static Entry *table;
static size_t table_size;
static size_t table_used;
static Seen ring[RING];
static long ring_next;

/* Write a line for each request from now on; false: errno says why not. */
bool
count_open_log(const char *file)
{
	request_log = fopen(file, "ae");
	return request_log != NULL;
}

/* A connection was opened or closed. */
void
count_connection(bool opened)
{
	connections += opened ? 1 : -1;
	connections_total += opened;
	if (connections > max_connections)
		max_connections = connections;
}

static Entry *
table_find(const char *kind, const char *key, size_t len, uint64_t hash)
{
	size_t		at = hash & (table_size - 1);

	while (table[at].count != 0 &&
		   !(table[at].hash == hash && table[at].len == len && table[at].kind[0] == kind[0] &&
			 memcmp(table[at].key, key, len) == 0))
		at = (at + 1) & (table_size - 1);
	return &table[at];
}

static void
table_grow(void)
{
	Entry	   *old = table;
	size_t		old_size = table_size;

	table_size = old_size ? old_size * 2 : 4096;
	table = mem_alloc(sizeof(Entry) * table_size);
	for (size_t i = 0; i < old_size; i++)
		if (old[i].count != 0)
			*table_find(old[i].kind, old[i].key, old[i].len, old[i].hash) = old[i];
	free(old);
}

/*
 * Count one more of this key and return the new count. kind is a literal
 * whose first letter keeps apart what is counted for different reasons.
 */
long
count_key(const char *kind, const char *key, size_t len)
{
	uint64_t	hash = hash_bytes(key, len, (uint64_t) kind[0]);
	Entry	   *e;

	if (table_used * 2 >= table_size)
		table_grow();
	e = table_find(kind, key, len, hash);
	if (e->count == 0)
	{
		e->hash = hash;
		e->kind = kind;
		e->len = len;
		e->key = mem_copy(key, len);
		table_used++;
	}
	return ++e->count;
}

static enum MHD_Result
keep_header(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	Buf		   *headers = cls;

	(void) kind;
	buf_append(headers, name, strlen(name) + 1);
	buf_append(headers, value ? value : "", value ? strlen(value) + 1 : 1);
	return MHD_YES;
}

/* Append s as a JSON string, whatever bytes it holds. */
static void
put_text(Buf *out, const char *s, size_t len)
{
	json_t	   *text = json_stringn(s, len);

	if (text == NULL)			/* not UTF-8 */
	{
		char	   *copy = mem_copy(s, len);

		for (size_t i = 0; i < len; i++)
			if ((unsigned char) copy[i] >= 0x80)
				copy[i] = '?';
		buf_json(out, copy, len);
		free(copy);
	}
	else
		buf_json(out, s, len);
	json_decref(text);
}

/* Append a member, null where there is no text. */
static void
put_member(Buf *out, const char *name, const char *text)
{
	buf_printf(out, ", \"%s\": ", name);
	if (text)
		put_text(out, text, strlen(text));
	else
		buf_puts(out, "null");
}

/* The first message of a conversation that is a text by the user, or NULL. */
static const char *
first_user_text(const json_t *body)
{
	size_t		i;
	json_t	   *message;

	json_array_foreach(json_object_get(body, "messages"), i, message)
	{
		const char *role = json_string_value(json_object_get(message, "role"));

		if (role && strcmp(role, "user") == 0)
			return json_string_value(json_object_get(message, "content"));
	}
	return NULL;
}

/* One line, written at once: whoever reads the log has all that has arrived. */
static void
log_request(const Request *r)
{
	Buf			line = {0};
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	buf_printf(&line, "{\"at\": %lld.%06ld", (long long) now.tv_sec, now.tv_nsec / 1000);
	put_member(&line, "key", r->idempotency_key);
	put_member(&line, "traceparent", MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, "traceparent"));
	put_member(&line, "model", json_string_value(json_object_get(r->json, "model")));
	put_member(&line, "user", first_user_text(r->json));
	buf_puts(&line, "}\n");
	fwrite(line.data, 1, line.len, request_log);
	fflush(request_log);
	buf_free(&line);
}

/* A request for a model has come in whole; url is its path. */
void
count_start(Request *r, const char *method, const char *url)
{
	Seen	   *seen = &ring[ring_next++ % RING];

	r->counted = true;
	total.requests++;
	if (++total.in_flight > total.max_in_flight)
		total.max_in_flight = total.in_flight;
	if (r->idempotency_key)
	{
		if (count_key("key", r->idempotency_key, strlen(r->idempotency_key)) == 1)
			total.keys++;
		else
			total.repeated++;
	}
	else
		total.no_key++;
	if (request_log)
		log_request(r);

	strncpy(seen->method, method, sizeof(seen->method) - 1);
	buf_reset(&seen->path);
	buf_puts(&seen->path, url);
	buf_reset(&seen->headers);
	MHD_get_connection_values(r->connection, MHD_HEADER_KIND, keep_header, &seen->headers);
	buf_reset(&seen->body);
	buf_append(&seen->body, r->body.data, r->body.len < RING_BODY ? r->body.len : RING_BODY);
	seen->body_len = r->body.len;
	seen->is_json = r->json != NULL && r->body.len <= RING_BODY;
}

/* It asks for this model. */
void
count_model(Model model)
{
	total.by_model[model]++;
}

/* The request is over: answered whole, or broken off by either side. */
void
count_end(const Request *r, bool answered)
{
	if (!r->counted)
		return;
	total.in_flight--;
	if (answered)
	{
		total.answered++;
		if (r->reply.status > 0 && r->reply.status < 1000)
			total.by_status[r->reply.status]++;
	}
}

/* Append the counts as JSON; with a key, only how often that key came. */
void
count_stats(Buf *out, const char *key)
{
	const char *comma = "";

	if (key)
	{
		size_t		len = strlen(key);
		long		n = table ? table_find("key", key, len, hash_bytes(key, len, 'k'))->count : 0;

		buf_printf(out, "{\"count\": %ld}\n", n);
		return;
	}
	buf_printf(out, "{\"requests\": %ld, \"answered\": %ld, \"in_flight\": %ld, \"max_in_flight\": %ld, "
					"\"connections\": %ld, \"max_connections\": %ld, \"connections_total\": %ld, "
					"\"keys\": {\"distinct\": %ld, \"repeated\": %ld, \"missing\": %ld}, \"by_model\": {",
			   total.requests, total.answered, total.in_flight, total.max_in_flight,
			   connections, max_connections, connections_total, total.keys, total.repeated, total.no_key);
	for (int i = 0; i < MODEL_COUNT; i++)
		if (total.by_model[i] > 0)
		{
			buf_printf(out, "%s\"%s\": %ld", comma, model_name((Model) i), total.by_model[i]);
			comma = ", ";
		}
	buf_puts(out, "}, \"by_status\": {");
	comma = "";
	for (int i = 0; i < 1000; i++)
		if (total.by_status[i] > 0)
		{
			buf_printf(out, "%s\"%d\": %ld", comma, i, total.by_status[i]);
			comma = ", ";
		}
	buf_puts(out, "}}\n");
}

/* Append an object: Idempotency-Key → how often it came. */
void
count_keys(Buf *out)
{
	const char *comma = "";

	buf_putc(out, '{');
	for (size_t i = 0; i < table_size; i++)
		if (table[i].count != 0 && table[i].kind[0] == 'k')
		{
			buf_puts(out, comma);
			put_text(out, table[i].key, table[i].len);
			buf_printf(out, ": %ld", table[i].count);
			comma = ",\n";
		}
	buf_puts(out, "}\n");
}

static void
put_seen(Buf *out, const Seen *seen)
{
	const char *p = seen->headers.data;
	const char *end = p + seen->headers.len;
	const char *comma = "";

	buf_puts(out, "{\"method\": ");
	put_text(out, seen->method, strlen(seen->method));
	buf_puts(out, ", \"path\": ");
	put_text(out, seen->path.data, seen->path.len);
	buf_puts(out, ", \"headers\": {");
	while (p < end)
	{
		const char *value = p + strlen(p) + 1;
		char	   *name = mem_copy(p, strlen(p));

		for (char *c = name; *c; c++)
			if (*c >= 'A' && *c <= 'Z')
				*c = (char) (*c + 32);
		buf_puts(out, comma);
		put_text(out, name, strlen(name));
		buf_puts(out, ": ");
		put_text(out, value, strlen(value));
		free(name);
		comma = ", ";
		p = value + strlen(value) + 1;
	}
	buf_printf(out, "}, \"body_bytes\": %zu, \"body\": ", seen->body_len);
	if (seen->is_json)
		buf_append(out, seen->body.data, seen->body.len);
	else
		put_text(out, seen->body.data ? seen->body.data : "", seen->body.len);
	buf_putc(out, '}');
}

/*
 * Append the last request, or null; with n > 0 an array of the last n (at most
 * RING), newest first.
 */
void
count_last(Buf *out, int n)
{
	long		have = ring_next < RING ? ring_next : RING;

	if (n == 0 && have == 0)
		buf_puts(out, "null");
	else if (n == 0)
		put_seen(out, &ring[(ring_next - 1) % RING]);
	else
	{
		buf_putc(out, '[');
		for (long i = 0; i < n && i < have; i++)
		{
			buf_puts(out, i > 0 ? ",\n" : "");
			put_seen(out, &ring[(ring_next - 1 - i) % RING]);
		}
		buf_putc(out, ']');
	}
	buf_putc(out, '\n');
}

/* Forget everything but what is going on now. */
void
count_reset(void)
{
	long		in_flight = total.in_flight;

	memset(&total, 0, sizeof(total));
	total.in_flight = total.max_in_flight = in_flight;
	connections_total = max_connections = connections;
	for (size_t i = 0; i < table_size; i++)
		free(table[i].key);
	free(table);
	table = NULL;
	table_size = table_used = 0;
	for (int i = 0; i < RING; i++)
	{
		buf_free(&ring[i].path);
		buf_free(&ring[i].headers);
		buf_free(&ring[i].body);
	}
	ring_next = 0;
}
