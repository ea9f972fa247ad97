/*
 * job_rows.c
 *	  Triggers of the other runtime tables: an action notes who asks, and rows
 *	  that come by replication are dropped, for they are the other node's work.
 *
 * All of them are ENABLE ALWAYS, as those of job: replication fires no others.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/shared.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "queue/board.h"
#include "replication/logicalworker.h"
#include "sql/job.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

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
	for (int i = 0; i < n; i++)
	{
		if (i >= desc->natts ||
			strcmp(NameStr(TupleDescAttr(desc, i)->attname), names[i]) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
					 errmsg("this function is a trigger of chaincall's own tables"),
					 errdetail("Table \"%s\" lacks the column \"%s\".",
							   RelationGetRelationName(relation), names[i])));
	}
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

static void
check_action(const Datum *values, const bool *nulls)
{
	static const char *const later[] = {"retry", "resolve", "discard"};
	char	   *name;

	if (nulls[ACTION_JOB] || nulls[ACTION_ACTION])
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("an action needs a job and a name"),
				 errhint("Write INSERT INTO chaincall.action (job, action) VALUES ('...', 'cancel').")));
	name = TextDatumGetCString(values[ACTION_ACTION]);
	for (int i = 0; i < (int) lengthof(later); i++)
	{
		if (strcmp(name, later[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("action \"%s\" is not yet supported", name),
					 errhint("A later version will know it.")));
	}
	if (strcmp(name, "cancel") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown action \"%s\"", name),
				 errhint("Known is cancel.")));
	if (!nulls[ACTION_STEP] || !nulls[ACTION_INPUT] || !nulls[ACTION_OUTPUT])
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("action \"cancel\" takes a job and nothing else"),
				 errhint("Leave step, input and output out.")));
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
