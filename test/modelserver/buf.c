/*
 * buf.c: a growable byte string, its JSON and base64 forms, and the one hash
 * function of the server.
 */
#include "buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
out_of_memory(void)
{
	fputs("modelserver: out of memory\n", stderr);
	abort();
}

/* size zeroed bytes from malloc; the caller frees them. */
void *
mem_alloc(size_t size)
{
	void	   *p = calloc(1, size ? size : 1);

	if (p == NULL)
		out_of_memory();
	return p;
}

/* realloc that does not fail; what is added is not zeroed. */
void *
mem_resize(void *p, size_t size)
{
	p = realloc(p, size ? size : 1);
	if (p == NULL)
		out_of_memory();
	return p;
}

/* A NUL-terminated copy of len bytes; the caller frees it. */
char *
mem_copy(const char *s, size_t len)
{
	char	   *p = mem_alloc(len + 1);

	if (len > 0)
		memcpy(p, s, len);
	return p;
}

/* Make room for more bytes and the closing NUL. */
void
buf_reserve(Buf *b, size_t more)
{
	size_t		need = b->len + more + 1;

	if (need <= b->size)
		return;
	if (need < b->size * 2)
		need = b->size * 2;
	if (need < 256)
		need = 256;
	b->data = mem_resize(b->data, need);
	b->size = need;
}

/* Append len bytes. */
void
buf_append(Buf *b, const void *data, size_t len)
{
	buf_reserve(b, len);
	if (len > 0)
		memcpy(b->data + b->len, data, len);
	b->len += len;
	b->data[b->len] = '\0';
}

/* Append a C string. */
void
buf_puts(Buf *b, const char *s)
{
	buf_append(b, s, strlen(s));
}

/* Append one byte. */
void
buf_putc(Buf *b, char c)
{
	buf_append(b, &c, 1);
}

/* Append what printf would print. */
void
buf_printf(Buf *b, const char *fmt, ...)
{
	va_list		args;
	int			n;

	for (;;)
	{
		size_t		room = b->size - b->len;

		va_start(args, fmt);
		n = vsnprintf(b->data ? b->data + b->len : NULL, b->data ? room : 0, fmt, args);
		va_end(args);
		if (n < 0)
			return;
		if (b->data != NULL && (size_t) n < room)
			break;
		buf_reserve(b, (size_t) n);
	}
	b->len += (size_t) n;
}

/*
 * Append s as a quoted JSON string. The bytes are taken as they are: whoever
 * wants valid JSON gives valid UTF-8.
 */
void
buf_json(Buf *b, const char *s, size_t len)
{
	size_t		from = 0;

	buf_reserve(b, len + 2);
	buf_putc(b, '"');
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) s[i];

		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		buf_append(b, s + from, i - from);
		from = i + 1;
		if (c == '"' || c == '\\')
		{
			buf_putc(b, '\\');
			buf_putc(b, (char) c);
		}
		else if (c == '\n')
			buf_append(b, "\\n", 2);
		else
			buf_printf(b, "\\u%04x", c);
	}
	buf_append(b, s + from, len - from);
	buf_putc(b, '"');
}

/* Append the base64 form (RFC 4648, with padding) of len bytes. */
void
buf_base64(Buf *b, const void *data, size_t len)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *p = data;

	buf_reserve(b, (len + 2) / 3 * 4);
	for (size_t i = 0; i < len; i += 3)
	{
		size_t		have = len - i;
		uint32_t	v = (uint32_t) p[i] << 16;
		char		out[4];

		if (have > 1)
			v |= (uint32_t) p[i + 1] << 8;
		if (have > 2)
			v |= p[i + 2];
		out[0] = digits[v >> 18];
		out[1] = digits[v >> 12 & 63];
		out[2] = have > 1 ? digits[v >> 6 & 63] : '=';
		out[3] = have > 2 ? digits[v & 63] : '=';
		buf_append(b, out, 4);
	}
}

/* Put len bytes in the place of the cut bytes at offset at. */
void
buf_splice(Buf *b, size_t at, size_t cut, const void *data, size_t len)
{
	if (at > b->len)
		at = b->len;
	if (cut > b->len - at)
		cut = b->len - at;
	buf_reserve(b, len);
	memmove(b->data + at + len, b->data + at + cut, b->len - at - cut);
	if (len > 0)
		memcpy(b->data + at, data, len);
	b->len = b->len - cut + len;
	b->data[b->len] = '\0';
}

/* Empty it; memory is kept for the next use unless it is a lot. */
void
buf_reset(Buf *b)
{
	if (b->size > 64 * 1024)
		buf_free(b);
	b->len = 0;
	if (b->data)
		b->data[0] = '\0';
}

/* Give its memory back. */
void
buf_free(Buf *b)
{
	free(b->data);
	memset(b, 0, sizeof(*b));
}

/* 64-bit FNV-1a with a final mix, so that the low bits can be used. */
uint64_t
hash_bytes(const void *data, size_t len, uint64_t seed)
{
	const unsigned char *p = data;
	uint64_t	h = 0xcbf29ce484222325u ^ seed;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x100000001b3u;
	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93u;
	h ^= h >> 32;
	return h;
}
