/*
 * schema_format.c
 *	  The formats of texts that a JSON Schema can name.
 *
 * Those are checked where that is cheap and where a wrong one would fail
 * later, in SQL, where nobody can ask the model again.  Dates and times follow
 * RFC 3339; local-date-time and local-time are chaincall's own, for
 * timestamp and time, which have no zone: there the offset may be left out.
 */
#include "postgres.h"

#include <arpa/inet.h>

#include "chain/schema.h"

static bool is_date(const char *text);
static bool is_time(const char *text);
static bool is_local_time(const char *text);
static bool is_date_time(const char *text);
static bool is_local_date_time(const char *text);
static bool is_uuid(const char *text);
static bool is_email(const char *text);
static bool is_uri(const char *text);
static bool is_ipv4(const char *text);
static bool is_ipv6(const char *text);
static bool read_date(const char **p);
static bool read_time(const char **p);
static bool read_offset(const char **p);
static bool read_digits(const char **p, int n, int low, int high, int *value);

static const SchemaFormat formats[] = {
	{"date", is_date, "a date as YYYY-MM-DD"},
	{"time", is_time, "a time as HH:MM:SS with Z or an offset as +HH:MM"},
	{"local-time", is_local_time, "a time as HH:MM:SS"},
	{"date-time", is_date_time, "a date and time as YYYY-MM-DDTHH:MM:SS with Z or an offset as +HH:MM"},
	{"local-date-time", is_local_date_time, "a date and time as YYYY-MM-DDTHH:MM:SS"},
	{"uuid", is_uuid, "a UUID"},
	{"email", is_email, "an e-mail address"},
	{"uri", is_uri, "a URI"},
	{"ipv4", is_ipv4, "an IPv4 address"},
	{"ipv6", is_ipv6, "an IPv6 address"},
};

/*
 * The format of this name; NULL when it is not one that is checked.
 */
const SchemaFormat *
schema_format(const char *name)
{
	for (int i = 0; i < lengthof(formats); i++)
		if (strcmp(formats[i].name, name) == 0)
			return &formats[i];
	return NULL;
}

static bool
is_date(const char *text)
{
	return read_date(&text) && *text == '\0';
}

static bool
is_time(const char *text)
{
	return read_time(&text) && read_offset(&text) && *text == '\0';
}

static bool
is_local_time(const char *text)
{
	return read_time(&text) && (*text == '\0' || (read_offset(&text) && *text == '\0'));
}

/* RFC 3339 lets a space stand for the T; so does PostgreSQL. */
static bool
is_date_time(const char *text)
{
	return read_date(&text) && *text != '\0' && strchr("Tt ", *text) != NULL &&
		is_time(text + 1);
}

static bool
is_local_date_time(const char *text)
{
	return read_date(&text) && *text != '\0' && strchr("Tt ", *text) != NULL &&
		is_local_time(text + 1);
}

static bool
is_uuid(const char *text)
{
	static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

	if (strlen(text) != sizeof(form) - 1)
		return false;
	for (int i = 0; form[i] != '\0'; i++)
		if (form[i] == '-' ? text[i] != '-' : !isxdigit((unsigned char) text[i]))
			return false;
	return true;
}

/* One @ between two parts without blanks; what is more, only mail can tell. */
static bool
is_email(const char *text)
{
	const char *at = strrchr(text, '@');

	return at != NULL && at > text && at[1] != '\0' && at[1] != '.' &&
		strchr(text, '@') == at && strpbrk(text, " \t\r\n<>") == NULL;
}

/* A scheme and something behind it, in the characters of RFC 3986. */
static bool
is_uri(const char *text)
{
	const char *colon = strchr(text, ':');

	if (colon == NULL || colon[1] == '\0' || !isalpha((unsigned char) text[0]))
		return false;
	for (const char *p = text; p < colon; p++)
		if (!isalnum((unsigned char) *p) && strchr("+-.", *p) == NULL)
			return false;
	for (const char *p = colon; *p != '\0'; p++)
		if ((unsigned char) *p <= ' ' || (unsigned char) *p >= 0x7F || strchr("\"<>\\^`{|}", *p) != NULL)
			return false;
	return true;
}

static bool
is_ipv4(const char *text)
{
	struct in_addr address;

	return inet_pton(AF_INET, text, &address) == 1;
}

static bool
is_ipv6(const char *text)
{
	struct in6_addr address;

	return inet_pton(AF_INET6, text, &address) == 1;
}

static bool
read_date(const char **p)
{
	static const int days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int			year;
	int			month;
	int			day;

	if (!read_digits(p, 4, 1, 9999, &year) || *(*p)++ != '-' ||
		!read_digits(p, 2, 1, 12, &month) || *(*p)++ != '-' ||
		!read_digits(p, 2, 1, days[month - 1], &day))
		return false;
	return month != 2 || day < 29 ||
		(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
}

/* A leap second passes: PostgreSQL takes 23:59:60. */
static bool
read_time(const char **p)
{
	int			ignored;

	if (!read_digits(p, 2, 0, 23, &ignored) || *(*p)++ != ':' ||
		!read_digits(p, 2, 0, 59, &ignored) || *(*p)++ != ':' ||
		!read_digits(p, 2, 0, 60, &ignored))
		return false;
	if (**p != '.')
		return true;
	(*p)++;
	if (!isdigit((unsigned char) **p))
		return false;
	while (isdigit((unsigned char) **p))
		(*p)++;
	return true;
}

static bool
read_offset(const char **p)
{
	int			ignored;

	if (**p == 'Z' || **p == 'z')
	{
		(*p)++;
		return true;
	}
	if (**p != '+' && **p != '-')
		return false;
	(*p)++;
	return read_digits(p, 2, 0, 23, &ignored) && *(*p)++ == ':' &&
		read_digits(p, 2, 0, 59, &ignored);
}

/* Exactly n digits whose number is between low and high. */
static bool
read_digits(const char **p, int n, int low, int high, int *value)
{
	*value = 0;
	for (int i = 0; i < n; i++)
	{
		char		c = **p;

		if (c < '0' || c > '9')
			return false;
		*value = 10 * *value + (c - '0');
		(*p)++;
	}
	return *value >= low && *value <= high;
}
