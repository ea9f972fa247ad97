/*
 * chaincall.c
 *	  Module start: settings, and, where the library is preloaded, shared
 *	  memory, hooks and the launcher.
 */
#include "postgres.h"

#include "base/settings.h"
#include "base/shared.h"
#include "base/trouble.h"
#include "call/health.h"
#include "fmgr.h"
#include "http/network.h"
#include "miscadmin.h"
#include "queue/board.h"
#include "queue/message.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "trace/air.h"
#include "trace/stats.h"
#include "worker/handover.h"
#include "worker/staff.h"
#include "worker/utility.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static shmem_request_hook_type next_shmem_request = NULL;
static shmem_startup_hook_type next_shmem_startup = NULL;

/* The areas of shared memory: each module says how large and makes its own. */
static const struct
{
	Size		(*size) (void);
	void		(*init) (void);
}			areas[] =
{
	{shared_size, shared_init},
	{board_size, board_init},
	{message_size, message_init},
	{trouble_size, trouble_init},
	{handover_size, handover_init},
	{stats_size, stats_init},
	{health_size, health_init},
	{air_size, air_init},
};

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

static void
request_shared_memory(void)
{
	if (next_shmem_request)
		next_shmem_request();
	for (int i = 0; i < (int) lengthof(areas); i++)
		RequestAddinShmemSpace(areas[i].size());
	RequestNamedLWLockTranche("chaincall", 1);
	RequestNamedLWLockTranche("chaincall_board", 1);
	RequestNamedLWLockTranche("chaincall_waiters", 1);
}

static void
make_shared_memory(void)
{
	if (next_shmem_startup)
		next_shmem_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (int i = 0; i < (int) lengthof(areas); i++)
		areas[i].init();
	LWLockRelease(AddinShmemInitLock);
}

void
_PG_init(void)
{
	settings_define(check_networks);
	if (!process_shared_preload_libraries_in_progress)
		return;
	next_shmem_request = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	next_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = make_shared_memory;
	if (IsBinaryUpgrade)
		return;
	utility_init();
	staff_register_launcher();
}
