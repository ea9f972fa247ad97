/*
 * chaincall.c
 *	  Module start.
 */
#include "postgres.h"

#include "base/settings.h"
#include "fmgr.h"
#include "http/network.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static bool
check_networks(char **value, void **extra, GucSource source)
{
	if (*value == NULL || network_list_valid(*value))
		return true;
	GUC_check_errcode(ERRCODE_INVALID_PARAMETER_VALUE);
	GUC_check_errdetail("Not a comma-separated list of networks.");
	GUC_check_errhint("Write it like \"169.254.10.0/24, fe80::/64\".");
	return false;
}

void
_PG_init(void)
{
	settings_define(check_networks);
}
