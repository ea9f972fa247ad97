/*
 * module.c
 *		Start of the test module, and what a test needs to know about the way it was built.
 *
 * The module is linked with chaincall.so, so loading it loads that too; but only PostgreSQL's own loader runs
 * chaincall's _PG_init, which defines the settings that the code under test reads. Hence the load_file here.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(chaincall_test_version);
PG_FUNCTION_INFO_V1(chaincall_test_sanitized);

void		_PG_init(void);

void
_PG_init(void)
{
	load_file("$libdir/chaincall", false);
}

/*
 * The PostgreSQL version that the module was compiled for.
 */
Datum
chaincall_test_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(PG_VERSION));
}

/*
 * Was the module compiled with AddressSanitizer? A run that should be and is not would pass without looking.
 */
Datum
chaincall_test_sanitized(PG_FUNCTION_ARGS)
{
#if defined(__SANITIZE_ADDRESS__)
	PG_RETURN_BOOL(true);
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
	PG_RETURN_BOOL(true);
#else
	PG_RETURN_BOOL(false);
#endif
#else
	PG_RETURN_BOOL(false);
#endif
}
