/*
 * network.h
 *	  Which addresses may be called.
 */
#ifndef CHAINCALL_NETWORK_H
#define CHAINCALL_NETWORK_H

#include "postgres.h"

#include <sys/socket.h>

extern bool network_list_valid(const char *list);
extern bool network_refused(const struct sockaddr *address,
							const char *allowed);
extern bool network_literal(const char *host, struct sockaddr_storage *address);

#endif							/* CHAINCALL_NETWORK_H */
