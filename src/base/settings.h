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
extern char *setting_alert_server;	/* told of alerts; "": nobody */

/* circuit breakers */
extern int	setting_breaker_failures;	/* percent that opens one; 0: off */
extern int	setting_breaker_volume; /* of so many attempts at least */
extern int	setting_breaker_window_ms;	/* that ended within this */
extern int	setting_breaker_patience_ms;	/* without a success among them */
extern int	setting_breaker_rest_ms;	/* the first rest */

/* shared memory, fixed at the server's start */
extern int	setting_max_databases;	/* with the extension */
extern int	setting_max_owners; /* roles with unfinished jobs, all databases */
extern int	setting_max_activity;	/* jobs, calls and steps that activity shows */
extern int	setting_max_steps;	/* steps on their way to executors */
extern int	setting_step_memory_kb; /* for their arguments and results */
extern int	setting_max_stats;	/* models and endpoints with statistics */

/* workers */
extern bool setting_workers;	/* run them at all */
extern int	setting_min_callers;	/* per database */
extern int	setting_max_callers;
extern int	setting_min_executors;
extern int	setting_max_executors;
extern int	setting_caller_window;	/* jobs that one caller has in hand */
extern int	setting_job_memory_kb;	/* of one job in its caller */
extern int	setting_executor_idle_ms;	/* then it leaves */
extern int	setting_executor_turn_ms;	/* when another role waits */
extern int	setting_step_timeout_s; /* of a job's; 0: none */
extern int	setting_park_after_ms;	/* longer waits leave the caller */

/* jobs */
extern int	setting_max_queued; /* per role; -1: no bound */
extern int	setting_priority_interval_ms;	/* one priority is worth */
extern int	setting_keep_jobs_s;	/* finished ones; -1: for ever */
extern int	setting_keep_spans_s;
extern int	setting_keep_alerts_s;

extern void settings_define(GucStringCheckHook check_networks);

#endif							/* CHAINCALL_SETTINGS_H */
