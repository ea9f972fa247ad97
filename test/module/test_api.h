/*
 * test_api.h
 *	  What the tests of the apis share.
 */
#ifndef CHAINCALL_TEST_API_H
#define CHAINCALL_TEST_API_H

#include "api/api.h"

extern void test_api_read_spec(const Jsonb *spec, Route *route,
							   ApiRequest *request);

#endif							/* CHAINCALL_TEST_API_H */
