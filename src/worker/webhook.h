/*
 * webhook.h
 *	  Tells chaincall.alert_server of alerts: a duty of the maintainer's.
 */
#ifndef CHAINCALL_WEBHOOK_H
#define CHAINCALL_WEBHOOK_H

#include "postgres.h"

extern bool webhook_run(void);
extern bool webhook_in_flight(void);
extern int64 webhook_due(void);

#endif							/* CHAINCALL_WEBHOOK_H */
