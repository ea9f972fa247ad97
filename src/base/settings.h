/*
 * settings.h
 *	  chaincall's configuration parameters.
 */
#ifndef CHAINCALL_SETTINGS_H
#define CHAINCALL_SETTINGS_H

#include "postgres.h"

#include "utils/guc.h"

extern int	setting_max_in_flight;	/* calls at once in one process */
extern int	setting_max_input_kb;	/* a chain's input, kilobytes */
extern int	setting_max_answer_kb;	/* a model's answer, kilobytes */
extern int	setting_max_fan_out;	/* elements of one each */
extern int	setting_max_depth;	/* chains nested in chains */
extern int	setting_max_spans;	/* spans kept of a run in a session */
extern int	setting_inline_timeout; /* ms of one expression's evaluation */
extern char *setting_allowed_networks;	/* exceptions to refused addresses */

extern void settings_define(GucStringCheckHook check_networks);

#endif							/* CHAINCALL_SETTINGS_H */
