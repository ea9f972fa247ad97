/*
 * network.c
 *	  Which addresses may be called.
 *
 * Link-local addresses and the few others where clouds serve a machine's own
 * credentials are refused, because a server's URL may be set by people who
 * must not read those.  The judgement is made on the address a socket is
 * about to connect to, not on the name: a name can resolve to anything.
 * Everything is compared as 16 bytes; an IPv4 address is written as its
 * IPv4-mapped form, and the other ways to wrap one into IPv6 are unwrapped
 * first, so that no spelling of an address gets around the list.
 *
 * These functions run inside libcurl's callbacks: they neither allocate nor
 * raise.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>

#include "http/network.h"

typedef struct Network
{
	uint8		prefix[16];
	int			bits;
} Network;

#define MAPPED 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff

static const Network refused_networks[] = {
	{{MAPPED, 169, 254, 0, 0}, 96 + 16},	/* IPv4 link-local, most clouds */
	{{MAPPED, 100, 100, 100, 200}, 128},	/* Alibaba Cloud */
	{{MAPPED, 168, 63, 129, 16}, 128},	/* Azure's wire server */
	{{MAPPED, 192, 0, 0, 192}, 128},	/* Oracle Cloud */
	{{0xfe, 0x80}, 10},			/* IPv6 link-local */
	{{0xfd, 0x00, 0x0e, 0xc2, [14] = 0x02, [15] = 0x54}, 128},	/* AWS */
	{{0xfd, 0x00, 0x0e, 0xc2, [15] = 0x23}, 128},	/* AWS, for pods */
	{{0xfd, 0x20, 0x00, 0xce, [14] = 0x02, [15] = 0x54}, 128},	/* Google */
};

/* Prefixes behind which an IPv4 address sits, and at which byte. */
static const struct
{
	Network		network;
	int			offset;
}			wrappers[] =
{
	{{{0}, 96}, 12},			/* IPv4-compatible, RFC 4291 */
	{{{0x00, 0x64, 0xff, 0x9b}, 96}, 12},	/* NAT64, RFC 6052 */
	{{{0x20, 0x02}, 16}, 2},	/* 6to4, RFC 3056 */
};

static bool
network_holds(const Network *network, const uint8 *address)
{
	int			whole = network->bits / 8;
	int			rest = network->bits % 8;

	if (memcmp(network->prefix, address, whole) != 0)
		return false;
	if (rest == 0)
		return true;
	return ((network->prefix[whole] ^ address[whole]) >> (8 - rest)) == 0;
}

static void
map_ipv4(const void *ipv4, uint8 *address)
{
	static const uint8 mapped[12] = {MAPPED};

	memcpy(address, mapped, 12);
	memcpy(address + 12, ipv4, 4);
}

/* Writes a socket address as 16 bytes; false: neither IPv4 nor IPv6. */
static bool
address_bytes(const struct sockaddr *address, uint8 *bytes)
{
	if (address->sa_family == AF_INET)
	{
		map_ipv4(&((const struct sockaddr_in *) address)->sin_addr, bytes);
		return true;
	}
	if (address->sa_family == AF_INET6)
	{
		memcpy(bytes, &((const struct sockaddr_in6 *) address)->sin6_addr, 16);
		for (int i = 0; i < (int) lengthof(wrappers); i++)
		{
			if (network_holds(&wrappers[i].network, bytes))
			{
				uint8		ipv4[4];

				memcpy(ipv4, bytes + wrappers[i].offset, 4);
				map_ipv4(ipv4, bytes);
				break;
			}
		}
		return true;
	}
	return false;
}

/* Reads one "address" or "address/bits" of len bytes. */
static bool
network_parse(const char *text, size_t len, Network *network)
{
	char		copy[INET6_ADDRSTRLEN + 5];
	char	   *slash;
	struct in_addr ipv4;
	int			most;
	int			bits;

	if (len == 0 || len >= sizeof(copy))
		return false;
	memcpy(copy, text, len);
	copy[len] = '\0';

	slash = strchr(copy, '/');
	if (slash != NULL)
		*slash++ = '\0';

	if (inet_pton(AF_INET, copy, &ipv4) == 1)
	{
		map_ipv4(&ipv4, network->prefix);
		most = 32;
	}
	else if (inet_pton(AF_INET6, copy, network->prefix) == 1)
		most = 128;
	else
		return false;

	bits = most;
	if (slash != NULL)
	{
		size_t		digits = strspn(slash, "0123456789");

		if (digits == 0 || digits > 3 || slash[digits] != '\0')
			return false;
		bits = atoi(slash);
		if (bits > most)
			return false;
	}
	network->bits = bits + 128 - most;
	return true;
}

/*
 * Walks a comma-separated list: reads the entry at *list into network and
 * moves *list behind it.  False at the end, and with *bad at a wrong entry.
 */
static bool
network_next(const char **list, Network *network, bool *bad)
{
	const char *start = *list;
	const char *end;
	size_t		len;

	*bad = false;
	if (start == NULL)
		return false;

	end = strchr(start, ',');
	len = (end != NULL) ? (size_t) (end - start) : strlen(start);
	*list = (end != NULL) ? end + 1 : NULL;

	while (len > 0 && isspace((unsigned char) *start))
		start++, len--;
	while (len > 0 && isspace((unsigned char) start[len - 1]))
		len--;

	*bad = !network_parse(start, len, network);
	return !*bad;
}

static bool
list_empty(const char *list)
{
	return list == NULL || list[strspn(list, " \t\r\n")] == '\0';
}

/*
 * Is list (comma-separated addresses or networks in CIDR form, may be NULL
 * or empty) well-formed?  Raises nothing and allocates nothing: fit for the
 * check hook of a setting.
 */
bool
network_list_valid(const char *list)
{
	Network		network;
	bool		bad;

	if (list_empty(list))
		return true;
	while (network_next(&list, &network, &bad))
		;
	return !bad;
}

/*
 * Must no connection be made to address?  True for link-local and metadata
 * addresses that no network of the list allowed (as above) holds, and for
 * addresses that are neither IPv4 nor IPv6.
 */
bool
network_refused(const struct sockaddr *address, const char *allowed)
{
	uint8		bytes[16];
	bool		refused = false;
	Network		network;
	bool		bad;

	if (!address_bytes(address, bytes))
		return true;

	for (int i = 0; i < (int) lengthof(refused_networks); i++)
		refused |= network_holds(&refused_networks[i], bytes);

	if (!refused || list_empty(allowed))
		return refused;
	while (network_next(&allowed, &network, &bad))
	{
		if (network_holds(&network, bytes))
			return false;
	}
	return true;
}

/*
 * Is host an address rather than a name?  IPv6 may stand in brackets.  The
 * address is written to *address when that is so.
 */
bool
network_literal(const char *host, struct sockaddr_storage *address)
{
	char		copy[INET6_ADDRSTRLEN + 2];
	size_t		len = strlen(host);
	struct sockaddr_in *ipv4 = (struct sockaddr_in *) address;
	struct sockaddr_in6 *ipv6 = (struct sockaddr_in6 *) address;

	memset(address, 0, sizeof(*address));
	if (len == 0 || len >= sizeof(copy))
		return false;
	strcpy(copy, host);
	if (copy[0] == '[' && copy[len - 1] == ']')
	{
		copy[len - 1] = '\0';
		memmove(copy, copy + 1, len - 1);
	}

	if (inet_pton(AF_INET, copy, &ipv4->sin_addr) == 1)
	{
		ipv4->sin_family = AF_INET;
		return true;
	}
	if (inet_pton(AF_INET6, copy, &ipv6->sin6_addr) == 1)
	{
		ipv6->sin6_family = AF_INET6;
		return true;
	}
	return false;
}
