/*
 * picture.c: a small PNG drawn from a prompt, and the gzip form of a reply.
 *
 * Both need deflate; its "stored" blocks (RFC 1951, 3.2.4) hold the bytes as
 * they are, so no compression library is needed.
 */
#include "server.h"

#include <string.h>

static uint32_t
crc32_of(const void *data, size_t len, uint32_t crc)
{
	const unsigned char *p = data;

	crc = ~crc;
	while (len-- > 0)
	{
		crc ^= *p++;
		for (int k = 0; k < 8; k++)
			crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
	}
	return ~crc;
}

static void
put_be32(Buf *out, uint32_t v)
{
	unsigned char b[4] = {(unsigned char) (v >> 24), (unsigned char) (v >> 16), (unsigned char) (v >> 8), (unsigned char) v};

	buf_append(out, b, 4);
}

/* Append data as stored deflate blocks. */
static void
put_stored(Buf *out, const char *data, size_t len)
{
	do
	{
		size_t		n = len < 65535 ? len : 65535;
		unsigned char head[5] = {n == len, (unsigned char) n, (unsigned char) (n >> 8),
								 (unsigned char) ~n, (unsigned char) (~n >> 8)};

		buf_append(out, head, 5);
		buf_append(out, data, n);
		data += n;
		len -= n;
	} while (len > 0);
}

static void
put_chunk(Buf *out, const char *type, const Buf *data)
{
	size_t		from = out->len + 4;

	put_be32(out, (uint32_t) data->len);
	buf_append(out, type, 4);
	buf_append(out, data->data, data->len);
	put_be32(out, crc32_of(out->data + from, out->len - from, 0));
}

/* Append the zlib form (RFC 1950) of data. */
static void
put_zlib(Buf *out, const Buf *data)
{
	uint32_t	a = 1;
	uint32_t	b = 0;

	for (size_t i = 0; i < data->len; i++)
	{
		a = (a + (unsigned char) data->data[i]) % 65521;
		b = (b + a) % 65521;
	}
	buf_append(out, "\x78\x01", 2);
	put_stored(out, data->data, data->len);
	put_be32(out, b << 16 | a);
}

/*
 * Append an RGB picture: squares mirrored left to right, in two colours, all
 * taken from the prompt's hash and the picture's number.
 */
void
picture_png(Buf *out, const char *prompt, size_t len, int width, int height, int number)
{
	uint64_t	seed = hash_bytes(prompt, len, (uint64_t) number);
	Buf			part = {0};
	Buf			rows = {0};

	for (int y = 0; y < height; y++)
	{
		buf_putc(&rows, '\0');	/* no filter */
		for (int x = 0; x < width; x++)
		{
			int			column = x * 8 / width;
			int			row = y * 8 / height;
			uint64_t	cell = (uint64_t) (row * 4 + (column < 4 ? column : 7 - column));
			uint64_t	colour = seed >> cell % 61 & 1 ? seed : ~seed >> 7;

			buf_append(&rows, &colour, 3);
		}
	}
	buf_append(out, "\x89PNG\r\n\x1a\n", 8);
	put_be32(&part, (uint32_t) width);
	put_be32(&part, (uint32_t) height);
	buf_append(&part, "\x08\x02\x00\x00\x00", 5);	/* 8 bits, RGB */
	put_chunk(out, "IHDR", &part);
	buf_reset(&part);
	put_zlib(&part, &rows);
	put_chunk(out, "IDAT", &part);
	buf_reset(&part);
	buf_append(&part, "", 0);
	put_chunk(out, "IEND", &part);
	buf_free(&part);
	buf_free(&rows);
}

/* Replace b by its gzip form (RFC 1952). */
void
gzip_stored(Buf *b)
{
	Buf			out = {0};
	uint32_t	crc = crc32_of(b->data, b->len, 0);
	uint32_t	size = (uint32_t) b->len;
	unsigned char tail[8];

	buf_append(&out, "\x1f\x8b\x08\0\0\0\0\0\0\xff", 10);
	put_stored(&out, b->data, b->len);
	for (int i = 0; i < 4; i++)
	{
		tail[i] = (unsigned char) (crc >> 8 * i);
		tail[i + 4] = (unsigned char) (size >> 8 * i);
	}
	buf_append(&out, tail, 8);
	buf_free(b);
	*b = out;
}
