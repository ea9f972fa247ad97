/*
 * buf.h: a growable byte string.
 *
 * The server runs out of memory only when the machine does, so every function
 * here ends the process in that case instead of returning an error that each
 * caller would have to pass on.
 */
#ifndef MODELSERVER_BUF_H
#define MODELSERVER_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Buf
{
	char	   *data;			/* always NUL-terminated once something is in it */
	size_t		len;
	size_t		size;
} Buf;

extern void *mem_alloc(size_t size);
extern void *mem_resize(void *p, size_t size);
extern char *mem_copy(const char *s, size_t len);

extern void buf_reserve(Buf *b, size_t more);
extern void buf_append(Buf *b, const void *data, size_t len);
extern void buf_puts(Buf *b, const char *s);
extern void buf_putc(Buf *b, char c);
extern void buf_printf(Buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
extern void buf_json(Buf *b, const char *s, size_t len);
extern void buf_base64(Buf *b, const void *data, size_t len);
extern void buf_splice(Buf *b, size_t at, size_t cut, const void *data, size_t len);
extern void buf_reset(Buf *b);
extern void buf_free(Buf *b);

extern uint64_t hash_bytes(const void *data, size_t len, uint64_t seed);

#endif
