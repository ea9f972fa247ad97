/*
 * scan.h
 *	  What the parsers of headers have in common.
 */
#ifndef CHAINCALL_SCAN_H
#define CHAINCALL_SCAN_H

#include <stdbool.h>
#include <stddef.h>

/* Whatever the locale says. */
static inline bool
scan_is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Behind spaces and tabs. */
static inline const char *
scan_blanks(const char *p)
{
	while (*p == ' ' || *p == '\t')
		p++;
	return p;
}

/* Behind exactly so many digits, their *value; NULL if they are not there. */
static inline const char *
scan_digits(const char *p, int digits, int *value)
{
	*value = 0;
	for (int i = 0; i < digits; i++)
	{
		if (p == NULL || !scan_is_digit(p[i]))
			return NULL;
		*value = *value * 10 + (p[i] - '0');
	}
	return p == NULL ? NULL : p + digits;
}

#endif							/* CHAINCALL_SCAN_H */
