/*
 * crash.c
 *	  A function that crashes its backend, for tests of jobs that kill: SELECT
 *	  crash() after CREATE FUNCTION crash() RETURNS int LANGUAGE c AS 'FILE'.
 */
#include "postgres.h"

#include "fmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(crash);

Datum
crash(PG_FUNCTION_ARGS)
{
	volatile int *nothing = NULL;

	PG_RETURN_INT32(*nothing);
}
