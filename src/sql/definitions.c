/*
 * definitions.c
 *	  Triggers of the tables model and endpoint.
 *
 * What a CHECK could not say with a hint is checked by row triggers.  They run
 * as ordinary ones, so that rows which arrive by logical replication are
 * taken as they are.  The trigger that tells all sessions of a change is
 * ENABLE ALWAYS: it must see those too.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "api/api.h"
#include "base/json.h"
#include "catalog/catalog.h"
#include "catalog/catalog_option.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "queue/board.h"
#include "sql/restore.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(chaincall_check_model);
PG_FUNCTION_INFO_V1(chaincall_check_endpoint);
PG_FUNCTION_INFO_V1(chaincall_definitions_changed);

static TriggerData *
row_trigger(FunctionCallInfo fcinfo)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function checks rows of chaincall's own tables before they are written")));
	return trigger;
}

static HeapTuple
new_row(TriggerData *trigger)
{
	return TRIGGER_FIRED_BY_UPDATE(trigger->tg_event)
		? trigger->tg_newtuple : trigger->tg_trigtuple;
}

/* A column's value; it is of that type where the table is one of ours. */
static Datum
row_column(TriggerData *trigger, const char *name, Oid type, bool *isnull)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	int			attno = SPI_fnumber(desc, name);

	if (attno <= 0 || SPI_gettypeid(desc, attno) != type)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function checks rows of chaincall's own tables before they are written"),
				 errdetail("Table \"%s\" has no column \"%s\" of type %s.",
						   RelationGetRelationName(trigger->tg_relation), name,
						   format_type_be(type))));
	return heap_getattr(new_row(trigger), attno, desc, isnull);
}

static void
check_kind(const char *kind)
{
	static const char *const kinds[] = {
		"chat", "embedding", "rerank", "image", "audio", "json"
	};

	for (int i = 0; i < (int) lengthof(kinds); i++)
	{
		if (strcmp(kinds[i], kind) == 0)
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid kind of a model: \"%s\"", kind),
			 errhint("Known kinds: chat, embedding, rerank, image, audio, json.")));
}

/* chaincall.model: kind, params, retry and timeout mean something. */
Datum
chaincall_check_model(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = row_trigger(fcinfo);
	Datum		datum;
	bool		isnull;

	datum = row_column(trigger, "kind", TEXTOID, &isnull);
	if (!isnull)
		check_kind(TextDatumGetCString(datum));
	datum = row_column(trigger, "params", JSONBOID, &isnull);
	if (!isnull)
	{
		char	   *hint = NULL;
		char	   *fault = api_params_fault(DatumGetJsonbP(datum), &hint);

		if (fault != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid params of a model: %s", fault),
					 hint ? errhint("%s", hint) : 0));
	}
	datum = row_column(trigger, "retry", JSONBOID, &isnull);
	if (!isnull)
		(void) option_retry(DatumGetJsonbP(datum));
	datum = row_column(trigger, "timeout", INTERVALOID, &isnull);
	if (!isnull)
	{
		int64		ms = option_interval_ms(DatumGetIntervalP(datum));

		if (ms <= 0 || ms > PG_INT32_MAX)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid timeout of a model"),
					 errhint("Give an interval above zero and of at most 24 days.")));
	}
	return PointerGetDatum(new_row(trigger));
}

/* chaincall.endpoint: the server exists; remote_name is the model's own. */
Datum
chaincall_check_endpoint(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = row_trigger(fcinfo);
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	HeapTuple	row = new_row(trigger);
	Datum		datum;
	bool		isnull;

	datum = row_column(trigger, "server", TEXTOID, &isnull);
	if (!isnull)
		(void) catalog_server(TextDatumGetCString(datum), false);
	datum = row_column(trigger, "model", TEXTOID, &isnull);
	if (!isnull)
		restore_wait_for_model(datum);
	datum = row_column(trigger, "remote_name", TEXTOID, &isnull);
	if (isnull)
	{
		int			attno = SPI_fnumber(desc, "remote_name");

		datum = row_column(trigger, "model", TEXTOID, &isnull);
		row = heap_modify_tuple_by_cols(row, desc, 1, &attno, &datum, &isnull);
	}
	return PointerGetDatum(row);
}

/* After any change: every session forgets what it has cached, at commit. */
Datum
chaincall_definitions_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function is called after changes of chaincall's own tables")));
	CacheInvalidateRelcache(trigger->tg_relation);
	/* jobs may wait for what was paused */
	board_announce_look();
	return PointerGetDatum(NULL);
}
