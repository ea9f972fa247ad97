/*
 * settings.c
 *	  chaincall's configuration parameters.
 */
#include "postgres.h"

#include <limits.h>

#include "base/settings.h"

int			setting_max_in_flight = 5000;
int			setting_max_input_kb = 16 * 1024;
int			setting_max_answer_kb = 16 * 1024;
int			setting_max_fan_out = 100000;
int			setting_max_depth = 16;
int			setting_max_spans = 20000;
int			setting_inline_timeout = 50;
char	   *setting_allowed_networks = NULL;

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
	MarkGUCPrefixReserved("chaincall");
}
