/*
 * settings.c
 *	  chaincall's configuration parameters.
 */
#include "postgres.h"

#include <limits.h>

#include "base/settings.h"
#include "miscadmin.h"

int			setting_max_in_flight = 5000;
int			setting_max_input_kb = 16 * 1024;
int			setting_max_answer_kb = 16 * 1024;
int			setting_max_fan_out = 100000;
int			setting_max_depth = 16;
int			setting_max_spans = 20000;
int			setting_inline_timeout = 50;
char	   *setting_allowed_networks = NULL;
char	   *setting_alert_server = NULL;
int			setting_breaker_failures = 50;
int			setting_breaker_volume = 10;
int			setting_breaker_window_ms = 10000;
int			setting_breaker_patience_ms = 2000;
int			setting_breaker_rest_ms = 1000;
int			setting_max_databases = 64;
int			setting_max_owners = 4096;
int			setting_max_activity = 16384;
int			setting_max_steps = 1024;
int			setting_step_memory_kb = 64 * 1024;
int			setting_max_stats = 512;
bool		setting_workers = true;
int			setting_min_callers = 1;
int			setting_max_callers = 2;
int			setting_min_executors = 0;
int			setting_max_executors = 3;
int			setting_caller_window = 1000;
int			setting_job_memory_kb = 256 * 1024;
int			setting_executor_idle_ms = 10000;
int			setting_executor_turn_ms = 1000;
int			setting_step_timeout_s = 3600;
int			setting_park_after_ms = 10000;
int			setting_max_queued = 1000000;
int			setting_priority_interval_ms = 60000;
int			setting_keep_jobs_s = 7 * 24 * 3600;
int			setting_keep_spans_s = 7 * 24 * 3600;
int			setting_keep_alerts_s = 90 * 24 * 3600;

/* What shared memory is made for: fixed at the server's start. */
static void
define_shared(void)
{
	/* later they would have no effect, and PostgreSQL refuses to define them */
	if (!process_shared_preload_libraries_in_progress)
		return;
	DefineCustomIntVariable("chaincall.max_databases",
							"Databases of the cluster that may have the extension.",
							NULL, &setting_max_databases, 64, 1, 100000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.max_owners",
							"Roles that may have unfinished jobs at once, over all databases.",
							NULL, &setting_max_owners, 4096, 16, 1000000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.max_activity",
							"Jobs, calls and steps at work that chaincall.activity can show.",
							NULL, &setting_max_activity, 16384, 64, 1000000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.max_steps",
							"Steps that may be on their way between callers and executors.",
							NULL, &setting_max_steps, 1024, 16, 100000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.step_memory",
							"Shared memory for the arguments and results of those steps.",
							NULL, &setting_step_memory_kb, 64 * 1024, 1024,
							MAX_KILOBYTES, PGC_POSTMASTER, GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.max_stats",
							"Models and endpoints that statistics are kept of.",
							NULL, &setting_max_stats, 512, 16, 100000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
}

/* All processes must judge alike, so these are the whole server's. */
static void
define_breakers(void)
{
	DefineCustomIntVariable("chaincall.breaker_failures",
							"Percent of failures that takes an endpoint out of use for a rest.",
							"0 turns circuit breakers off.",
							&setting_breaker_failures, 50, 0, 100,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.breaker_volume",
							"Attempts that must have ended before an endpoint can be judged.",
							NULL, &setting_breaker_volume, 10, 1, 1000000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.breaker_window",
							"How long the outcome of an attempt counts for its endpoint.",
							NULL, &setting_breaker_window_ms, 10000, 100,
							3600 * 1000, PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.breaker_patience",
							"How long nothing must have succeeded at an endpoint that is taken out of use.",
							"What succeeds now and then is a matter of retries.",
							&setting_breaker_patience_ms, 2000, 0,
							3600 * 1000, PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.breaker_rest",
							"First rest of an endpoint that fails.",
							"Each failed probe doubles it, up to ten times as long.",
							&setting_breaker_rest_ms, 1000, 10, 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
}

static void
define_workers(void)
{
	DefineCustomBoolVariable("chaincall.workers",
							 "Whether background workers run jobs.",
							 NULL, &setting_workers, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.min_callers",
							"Callers that each database has at least.",
							NULL, &setting_min_callers, 1, 1, 1000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.max_callers",
							"Callers that each database has at most.",
							NULL, &setting_max_callers, 2, 1, 1000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.min_executors",
							"Executors that stay when they are idle, in each database.",
							NULL, &setting_min_executors, 0, 0, 1000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.max_executors",
							"Executors that each database has at most.",
							NULL, &setting_max_executors, 3, 1, 1000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.caller_window",
							"Jobs that one caller has in hand at once.",
							NULL, &setting_caller_window, 1000, 500, 1000000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.job_memory",
							"Memory that one job may take in its caller.",
							"A job that needs more fails.",
							&setting_job_memory_kb, 256 * 1024, 1024,
							MAX_KILOBYTES, PGC_SIGHUP, GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.executor_idle",
							"How long an executor waits for another step before it leaves.",
							NULL, &setting_executor_idle_ms, 10000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.executor_turn",
							"How long an executor serves its role while another role waits.",
							NULL, &setting_executor_turn_ms, 1000, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.step_timeout",
							"Longest time that a sql or function step of a job may take.",
							"0 turns the bound off.",
							&setting_step_timeout_s, 3600, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.park_after",
							"Waits longer than this leave the caller's memory.",
							NULL, &setting_park_after_ms, 10000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
}

static void
define_jobs(void)
{
	DefineCustomIntVariable("chaincall.max_queued",
							"Jobs that one role may have enqueued that have not started.",
							"-1 turns the bound off.",
							&setting_max_queued, 1000000, -1, INT_MAX,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.priority_interval",
							"How much earlier one more point of priority makes a job's place in line.",
							NULL, &setting_priority_interval_ms, 60000, 0,
							INT_MAX, PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomStringVariable("chaincall.alert_server",
							   "Foreign server with api http that is told of alerts.",
							   "Empty: none.",
							   &setting_alert_server, "", PGC_SIGHUP,
							   0, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.keep_jobs",
							"How long finished jobs are kept.",
							"-1 keeps them for ever.",
							&setting_keep_jobs_s, 7 * 24 * 3600, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.keep_spans",
							"How long spans of finished jobs are kept.",
							"They go by whole days; -1 keeps them for ever.",
							&setting_keep_spans_s, 7 * 24 * 3600, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.keep_alerts",
							"How long alerts are kept that nobody acknowledges.",
							"Acknowledged ones go with keep_jobs; -1 keeps them for ever.",
							&setting_keep_alerts_s, 90 * 24 * 3600, -1,
							INT_MAX, PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
}

/*
 * Defines the parameters; once, from _PG_init().  check_networks judges
 * chaincall.allowed_networks.
 */
void
settings_define(GucStringCheckHook check_networks)
{
	DefineCustomIntVariable("chaincall.max_in_flight",
							"Model calls that one process has in the air at once.",
							NULL, &setting_max_in_flight, 5000, 1, 100000,
							PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.max_input",
							"Largest input of a chain.",
							NULL, &setting_max_input_kb, 16 * 1024, 1,
							128 * 1024, PGC_SUSET, GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.max_answer",
							"Largest answer of a model that is read.",
							"A server's option max_answer takes its place.",
							&setting_max_answer_kb, 16 * 1024, 1,
							128 * 1024, PGC_SUSET, GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.max_fan_out",
							"Most elements that one \"each\" may have.",
							NULL, &setting_max_fan_out, 100000, 1, INT_MAX,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.max_depth",
							"How deep chains may be nested in chains.",
							NULL, &setting_max_depth, 16, 1, 1000,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.max_spans",
							"Spans that a session keeps of its last run.",
							"Further ones are counted, not kept.",
							&setting_max_spans, 20000, 0, 10000000,
							PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("chaincall.inline_timeout",
							"Longest time that one expression may take.",
							"A regular expression can be slow; 0 turns the bound off.",
							&setting_inline_timeout, 50, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable("chaincall.allowed_networks",
							   "Link-local and metadata networks that may be called all the same.",
							   "A comma-separated list of addresses in CIDR form.",
							   &setting_allowed_networks, "", PGC_SUSET,
							   GUC_LIST_INPUT | GUC_SUPERUSER_ONLY,
							   check_networks, NULL, NULL);
	define_shared();
	define_breakers();
	define_workers();
	define_jobs();
	MarkGUCPrefixReserved("chaincall");
}
