/*
 * job_rows.c
 *	  Triggers of the other runtime tables: an action notes who asks, and rows
 *	  that come by replication are dropped, for they are the other node's work.
 *
 * All of them are ENABLE ALWAYS, as those of job: replication fires no others.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/xact.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/settings.h"
#include "base/shared.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "queue/board.h"
#include "replication/logicalworker.h"
#include "sql/job.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "utils/varlena.h"

PG_FUNCTION_INFO_V1(chaincall_action_insert);
PG_FUNCTION_INFO_V1(chaincall_drop_replicated);
PG_FUNCTION_INFO_V1(chaincall_maintenance_asked);

/* Columns in their order; see sql/parts/60_jobs.sql. */
enum
{
	ACTION_ID,
	ACTION_JOB,
	ACTION_ACTION,
	ACTION_STEP,
	ACTION_INPUT,
	ACTION_OUTPUT,
	ACTION_AUTHOR,
	ACTION_CREATED_AT,
	ACTION_STATE,
	ACTION_REASON,
	ACTION_APPLIED_AT,
	ACTION_ALERT,
	ACTION_COLUMNS
};

static const char *const action_columns[] = {
	"id", "job", "action", "step", "input", "output", "author",
	"created_at", "state", "reason", "applied_at", "alert"
};

/* ---- what all triggers share ---- */

/* Raises unless this is a trigger that fires then for each row. */
void
job_check_event(FunctionCallInfo fcinfo, bool before)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		(before ? !TRIGGER_FIRED_BEFORE(trigger->tg_event) :
		 !TRIGGER_FIRED_AFTER(trigger->tg_event)))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function is a trigger of chaincall's own tables")));
}

/*
 * Raises unless the table has these columns.  Their names are checked once a
 * table, their number each time: rows are taken apart into arrays of that size.
 */
void
job_check_columns(Relation relation, const char *const *names, int n, Oid *checked)
{
	TupleDesc	desc = RelationGetDescr(relation);

	if (*checked == RelationGetRelid(relation) && desc->natts == n)
		return;
	for (int i = 0; i < Min(n, desc->natts); i++)
	{
		if (strcmp(NameStr(TupleDescAttr(desc, i)->attname), names[i]) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
					 errmsg("this function is a trigger of chaincall's own tables"),
					 errdetail("Table \"%s\" lacks the column \"%s\".",
							   RelationGetRelationName(relation), names[i])));
	}
	/* new columns come last */
	if (desc->natts != n)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is of another version than the library",
						RelationGetRelationName(relation)),
				 errhint("Run ALTER EXTENSION chaincall UPDATE, or restart the server.")));
	*checked = RelationGetRelid(relation);
}

/*
 * Does the row come from another node, by logical replication or the like?
 * What our own workers write does not, whatever settings they were given.
 */
bool
job_is_replicated(void)
{
	return my_worker == NULL &&
		(IsLogicalWorker() ||
		 SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA);
}

/* BEFORE any change of a runtime table: the other node's rows are not ours. */
Datum
chaincall_drop_replicated(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	job_check_event(fcinfo, true);
	if (job_is_replicated())
		return PointerGetDatum(NULL);
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
						   trigger->tg_newtuple : trigger->tg_trigtuple);
}

/* ---- action ---- */

/* Bytes of a path; it becomes part of an index entry. */
#define MAX_PATH 1500

/* What an action takes beside its name: 'm' must be there, 'b' both or none. */
typedef struct ActionForm
{
	const char *name;
	char		job;
	char		step;
	char		input;
	char		output;
	char		alert;
	const char *takes;
} ActionForm;

static const ActionForm forms[] = {
	{"cancel", 'm', 0, 0, 0, 0, "a job"},
	{"retry", 'm', 'b', 'b', 0, 0, "a job, or a job, a step and its input"},
	{"resolve", 'm', 'm', 0, 'm', 0, "a job, a step and its output"},
	{"discard", 'm', 0, 0, 0, 0, "a job"},
	{"acknowledge", 0, 0, 0, 0, 'm', "an alert"},
	{"replace", 'm', 0, 'm', 0, 0, "a job and its input"}
};

static void
unknown_action(const char *name)
{
	const char *nearest = NULL;
	int			distance = 4;
	int			len = (int) strlen(name);

	for (int i = 0; i < (int) lengthof(forms) && len < NAMEDATALEN; i++)
	{
		int			d = varstr_levenshtein_less_equal(name, len, forms[i].name,
													  (int) strlen(forms[i].name),
													  1, 1, 1, distance, true);

		if (d < distance)
		{
			distance = d;
			nearest = forms[i].name;
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown action \"%.*s\"", pg_mbcliplen(name, len, NAMEDATALEN),
					name),
			 nearest ? errhint("Perhaps you meant %s.", nearest) :
			 errhint("Known are cancel, retry, resolve, discard, acknowledge and replace.")));
}

static const ActionForm *
find_form(const char *name)
{
	for (int i = 0; i < (int) lengthof(forms); i++)
	{
		if (strcmp(forms[i].name, name) == 0)
			return &forms[i];
	}
	unknown_action(name);
	return NULL;
}

static void
check_form(const ActionForm *form, const bool *nulls)
{
	static const int columns[] = {
		ACTION_JOB, ACTION_STEP, ACTION_INPUT, ACTION_OUTPUT, ACTION_ALERT
	};
	const char	wants[] = {form->job, form->step, form->input, form->output, form->alert};

	for (int i = 0; i < (int) lengthof(columns); i++)
	{
		bool		given = !nulls[columns[i]];
		bool		fits = wants[i] == 'm' ? given : wants[i] == 'b' ?
			nulls[ACTION_STEP] == nulls[ACTION_INPUT] : !given;

		if (fits)
			continue;
		ereport(ERROR,
				(errcode(!given ? ERRCODE_NULL_VALUE_NOT_ALLOWED :
						 ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("action \"%s\" takes %s, and nothing else",
						form->name, form->takes),
				 given && wants[i] != 'b' ?
				 errhint("Leave \"%s\" out.", action_columns[columns[i]]) :
				 errhint("Give \"%s\".", action_columns[nulls[columns[i]] ? columns[i] :
														 columns[i] == ACTION_STEP ? ACTION_INPUT : ACTION_STEP])));
	}
}

static void
check_sizes(const Datum *values, const bool *nulls)
{
	static const int columns[] = {ACTION_INPUT, ACTION_OUTPUT};

	if (!nulls[ACTION_STEP] &&
		VARSIZE_ANY_EXHDR(DatumGetTextPP(values[ACTION_STEP])) > MAX_PATH)
		ereport(ERROR,
				(errcode(ERRCODE_CHAIN_LIMIT),
				 errmsg("the path of a step is longer than %d bytes", MAX_PATH),
				 errhint("No step of a job has such a path; chaincall.dead_letter shows the one that failed.")));
	for (int i = 0; i < (int) lengthof(columns); i++)
	{
		Size		size;

		if (nulls[columns[i]])
			continue;
		size = toast_raw_datum_size(values[columns[i]]);
		if (size > setting_max_input_kb * UINT64CONST(1024))
			ereport(ERROR,
					(errcode(ERRCODE_CHAIN_LIMIT),
					 errmsg("%s of an action is too large",
							action_columns[columns[i]]),
					 errdetail("It has %zu kB, at most %d kB are allowed.",
							   (size + 1023) / 1024, setting_max_input_kb),
					 errhint("Raise chaincall.max_input.")));
	}
}

static void
check_action(const Datum *values, const bool *nulls)
{
	if (nulls[ACTION_ACTION] || (nulls[ACTION_JOB] && nulls[ACTION_ALERT]))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("an action needs a name, and a job or an alert"),
				 errhint("Write INSERT INTO chaincall.action (job, action) VALUES ('...', 'cancel').")));
	check_form(find_form(TextDatumGetCString(values[ACTION_ACTION])), nulls);
	check_sizes(values, nulls);
}

/* BEFORE INSERT ON action: who asks, when; a worker sees to the rest. */
Datum
chaincall_action_insert(PG_FUNCTION_ARGS)
{
	static Oid	checked = InvalidOid;
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Oid			author = GetUserId();
	TupleDesc	desc;
	Datum		values[ACTION_COLUMNS];
	bool		nulls[ACTION_COLUMNS];
	pg_uuid_t	id;

	job_check_event(fcinfo, true);
	if (job_is_replicated())
		return PointerGetDatum(NULL);
	shared_require("an action");
	job_check_columns(trigger->tg_relation, action_columns, ACTION_COLUMNS,
				  &checked);
	desc = RelationGetDescr(trigger->tg_relation);
	heap_deform_tuple(trigger->tg_trigtuple, desc, values, nulls);
	check_action(values, nulls);

	ids_uuid7(&id);
	values[ACTION_ID] = UUIDPGetDatum(&id);
	values[ACTION_AUTHOR] = ObjectIdGetDatum(author);
	values[ACTION_CREATED_AT] =
		TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	values[ACTION_STATE] = CStringGetTextDatum("pending");
	nulls[ACTION_ID] = nulls[ACTION_AUTHOR] = nulls[ACTION_CREATED_AT] =
		nulls[ACTION_STATE] = false;
	nulls[ACTION_REASON] = nulls[ACTION_APPLIED_AT] = true;
	board_announce_look();
	return PointerGetDatum(heap_form_tuple(desc, values, nulls));
}

/* ---- maintenance ---- */

/* AFTER any change of maintenance: the maintainer looks at it at commit. */
Datum
chaincall_maintenance_asked(PG_FUNCTION_ARGS)
{
	job_check_event(fcinfo, false);
	shared_require("maintenance");
	board_announce_maintenance();
	return PointerGetDatum(NULL);
}
