/*
 * asan-first.c
 *		Preloaded behind libasan, it starts AddressSanitizer before any library's constructor runs.
 *
 * AddressSanitizer starts at the first malloc if nothing started it before. Libraries that PostgreSQL is linked with
 * (libgpg-error, p11-kit) call bindtextdomain in their constructors, which allocates under gettext's lock; the start looks
 * up a symbol that is not there, which makes ld.so translate an error message, which takes and releases that same lock.
 * The lock is broken from then on, and the server waits for it forever in its own first bindtextdomain.
 * This file is linked with -z initfirst, so that the first malloc happens with no lock held.
 */
#include <stdlib.h>

extern void asan_first(void);

void
	__attribute__((constructor))
	asan_first(void)
{
	void	   *volatile p = malloc(1);

	free(p);
}
