/*
 * value.c
 *	  Types as chaincall sees them, and a value as text.
 *
 * Three files turn SQL values into JSON and back: value_from.c and value_to.c
 * go the two ways, this one holds what both need.
 *
 * What a type needs is looked up once per backend and forgotten when its
 * pg_type row changes.  An entry may be in use further up the stack when that
 * happens (a domain's CHECK can run anything, a chain included), so the
 * invalidation only marks it, and what hangs below it is freed when no
 * conversion is under way.
 *
 * Input and output functions obey settings that any session may change.  The
 * common types are written without them; before any other is called, those
 * settings it obeys and that differ from ours are changed under a nest level,
 * which is gone when the outermost conversion ends, also by an error.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/error.h"
#include "base/json.h"
#include "base/value.h"
#include "base/value_type.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* What a date in a JSON text is read under: ISO, and month before day. */
static const struct
{
	int			flag;
	const char *name;
	const char *value;
}			our_settings[] =
{
	{SETTING_DATESTYLE, "datestyle", "ISO, MDY"},
	{SETTING_INTERVAL, "intervalstyle", "iso_8601"},
	{SETTING_TIMEZONE, "timezone", "UTC"},
	{SETTING_FLOAT, "extra_float_digits", "1"},
	{SETTING_MONETARY, "lc_monetary", "C"},
	{SETTING_PATH, "search_path", "pg_catalog"}
};

static HTAB *value_types = NULL;
static bool any_stale = false;

/* Conversions under way in this backend, one inside the other. */
static int	run_depth = 0;

/* Parent of what refilled entries left behind while it may be in use. */
static MemoryContext graveyard = NULL;

static void
mark_stale(Datum arg, int cacheid, uint32 hashvalue)
{
	HASH_SEQ_STATUS scan;
	ValueType  *vt;

	hash_seq_init(&scan, value_types);
	while ((vt = hash_seq_search(&scan)) != NULL)
	{
		if (hashvalue == 0 || vt->hash == hashvalue)
		{
			vt->stale = true;
			any_stale = true;
		}
	}
}

static void
create_type_table(void)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(ValueType);
	ctl.hcxt = TopMemoryContext;
	graveyard = AllocSetContextCreate(TopMemoryContext,
									  "chaincall types in use",
									  ALLOCSET_SMALL_SIZES);
	value_types = hash_create("chaincall types", 64, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterSyscacheCallback(TYPEOID, mark_stale, (Datum) 0);
}

/* Frees what stale entries hold; only when no conversion is under way. */
static void
sweep_types(void)
{
	HASH_SEQ_STATUS scan;
	ValueType  *vt;

	any_stale = false;
	MemoryContextDeleteChildren(graveyard);
	hash_seq_init(&scan, value_types);
	while ((vt = hash_seq_search(&scan)) != NULL)
	{
		if (!vt->stale)
			continue;
		if (vt->context != NULL)
			MemoryContextDelete(vt->context);
		(void) hash_search(value_types, &vt->type, HASH_REMOVE, NULL);
	}
}

/* The settings that a built-in type's functions obey. */
static void
builtin_settings(ValueType *vt)
{
	switch (vt->type)
	{
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			vt->in_settings = SETTING_DATESTYLE | SETTING_TIMEZONE;
			break;
		case INTERVALOID:
			vt->in_settings = SETTING_INTERVAL;
			break;
		case POINTOID:
		case LSEGOID:
		case PATHOID:
		case BOXOID:
		case POLYGONOID:
		case LINEOID:
		case CIRCLEOID:
			vt->out_settings = SETTING_FLOAT;
			break;
		case CASHOID:
			vt->in_settings = vt->out_settings = SETTING_MONETARY;
			break;
		case REGCLASSOID:
		case REGCOLLATIONOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
		case REGNAMESPACEOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGROLEOID:
		case REGTYPEOID:
			vt->out_settings = SETTING_PATH;	/* names always qualified */
			break;
		default:
			break;
	}
}

static void
fill_settings(ValueType *vt, Form_pg_type form)
{
	Oid			bound = InvalidOid;

	if (form->typtype == TYPTYPE_RANGE)
		bound = get_range_subtype(vt->type);
	else if (form->typtype == TYPTYPE_MULTIRANGE)
		bound = get_range_subtype(get_multirange_range(vt->type));

	if (bound != InvalidOid)
	{
		ValueType  *subtype = value_type_lookup(bound);

		/* what the builder writes without settings, the range does not */
		vt->in_settings = vt->out_settings =
			subtype->in_settings | subtype->out_settings;
		if (bound == FLOAT8OID || bound == FLOAT4OID)
			vt->out_settings |= SETTING_FLOAT;
	}
	else if (vt->type < FirstGenbkiObjectId)
		builtin_settings(vt);
	else if (form->typtype != TYPTYPE_ENUM &&
			 form->typcategory != TYPCATEGORY_STRING)
		vt->in_settings = vt->out_settings =
			SETTING_DATESTYLE | SETTING_INTERVAL | SETTING_TIMEZONE |
			SETTING_FLOAT;
}

static ValueKind
kind_of(ValueType *vt, Form_pg_type form)
{
	switch (vt->type)
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case INTERVALOID:
			return VALUE_BUILTIN;
		case JSONOID:
		case JSONBOID:
			return VALUE_JSON;
		case BYTEAOID:
			return VALUE_BYTEA;
		case VOIDOID:
			return VALUE_VOID;
		case RECORDOID:
			return VALUE_COMPOSITE;
		case ANYARRAYOID:
		case RECORDARRAYOID:
			return VALUE_ARRAY;
		case INT2VECTOROID:
		case OIDVECTOROID:
			return VALUE_PLAIN;
		default:
			break;
	}
	if (form->typtype == TYPTYPE_COMPOSITE)
		return VALUE_COMPOSITE;
	if (form->typtype == TYPTYPE_DOMAIN)
		return VALUE_DOMAIN;
	if (form->typtype == TYPTYPE_PSEUDO)
		return VALUE_PSEUDO;
	if (IsTrueArrayType(form))
		return VALUE_ARRAY;
	if (form->typtype == TYPTYPE_BASE &&
		(strcmp(NameStr(form->typname), "vector") == 0 ||
		 strcmp(NameStr(form->typname), "halfvec") == 0))
		return VALUE_VECTOR;
	return VALUE_PLAIN;
}

static void
fill_type(ValueType *vt)
{
	Oid			type = vt->type;
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	Form_pg_type form;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				errcode(ERRCODE_UNDEFINED_OBJECT),
				errmsg("type with OID %u does not exist", type));
	form = (Form_pg_type) GETSTRUCT(tuple);

	vt->hash = GetSysCacheHashValue1(TYPEOID, ObjectIdGetDatum(type));
	vt->kind = kind_of(vt, form);
	vt->typlen = form->typlen;
	vt->typbyval = form->typbyval;
	vt->element = InvalidOid;
	vt->base_typmod = -1;
	if (vt->kind == VALUE_ARRAY && form->typtype != TYPTYPE_PSEUDO)
		vt->element = form->typelem;
	else if (vt->kind == VALUE_DOMAIN)
		vt->element = getBaseTypeAndTypmod(type, &vt->base_typmod);
	vt->has_out = vt->has_in = false;
	vt->out_settings = vt->in_settings = 0;
	vt->domain_state = NULL;
	vt->domain_busy = false;
	fill_settings(vt, form);
	ReleaseSysCache(tuple);
}

/*
 * The entry of a type.  It stays where it is at least until the outermost
 * conversion ends.  Raises undefined_object when there is no such type.
 */
ValueType *
value_type_lookup(Oid type)
{
	ValueType  *vt;
	bool		found;

	if (value_types == NULL)
		create_type_table();
	vt = hash_search(value_types, &type, HASH_ENTER, &found);
	if (!found)
	{
		vt->filled = false;
		vt->hash = 0;
		vt->context = NULL;
	}
	else if (vt->filled && !vt->stale)
		return vt;

	if (vt->context != NULL)
		MemoryContextSetParent(vt->context, graveyard);
	vt->context = NULL;
	vt->filled = false;
	vt->stale = false;
	fill_type(vt);
	vt->context = AllocSetContextCreate(TopMemoryContext, "chaincall type",
										ALLOCSET_SMALL_SIZES);
	vt->filled = true;
	return vt;
}

/* The type's output function, looked up at first use; lives as long as vt. */
FmgrInfo *
value_type_output(ValueType *vt)
{
	if (!vt->has_out)
	{
		Oid			function;
		bool		varlena;

		getTypeOutputInfo(vt->type, &function, &varlena);
		fmgr_info_cxt(function, &vt->out, vt->context);
		vt->has_out = true;
	}
	return &vt->out;
}

/* Also sets vt->ioparam. */
FmgrInfo *
value_type_input(ValueType *vt)
{
	if (!vt->has_in)
	{
		Oid			function;

		getTypeInputInfo(vt->type, &function, &vt->ioparam);
		fmgr_info_cxt(function, &vt->in, vt->context);
		vt->has_in = true;
	}
	return &vt->in;
}

/* Where a bytea turns up at run time; CREATE refuses what it can see. */
void
value_refuse_bytea(void)
{
	ereport(ERROR,
			errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			errmsg("a bytea value in a chain is not yet supported"),
			errhint("Use encode(value, 'base64') where the model takes text."));
}

/*
 * Begins a conversion: what it allocates goes to run->scratch, now current.
 * Pair with value_run_end() in PG_FINALLY.
 */
void
value_run_begin(ValueRun *run)
{
	if (run_depth == 0 && any_stale)
		sweep_types();
	run->nest_level = 0;
	run->settings = 0;
	run->caller = CurrentMemoryContext;
	run->scratch = AllocSetContextCreate(CurrentMemoryContext,
										 "chaincall value",
										 ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(run->scratch);
	run_depth++;
}

/* The current context must no longer be run->scratch. */
void
value_run_end(ValueRun *run)
{
	run_depth--;
	value_settings_leave(run);
	MemoryContextDelete(run->scratch);
}

static bool
setting_differs(int flag)
{
	switch (flag)
	{
		case SETTING_DATESTYLE:
			return DateStyle != USE_ISO_DATES || DateOrder != DATEORDER_MDY;
		case SETTING_INTERVAL:
			return IntervalStyle != INTSTYLE_ISO_8601;
		case SETTING_TIMEZONE:
			return strcmp(pg_get_timezone_name(session_timezone), "UTC") != 0 &&
				strcmp(pg_get_timezone_name(session_timezone), "Etc/UTC") != 0;
		case SETTING_FLOAT:
			return extra_float_digits < 1;
		case SETTING_MONETARY:
			return strcmp(GetConfigOption("lc_monetary", false, false), "C") != 0;
		default:
			return true;
	}
}

/* Sees to it that the settings (SETTING_*) are ours until the run's end. */
void
value_settings_need(ValueRun *run, int settings)
{
	settings &= ~run->settings;
	if (settings == 0)
		return;
	for (int i = 0; i < lengthof(our_settings); i++)
	{
		if ((our_settings[i].flag & settings) == 0 ||
			!setting_differs(our_settings[i].flag))
			continue;
		if (run->nest_level == 0)
			run->nest_level = NewGUCNestLevel();
		(void) set_config_option(our_settings[i].name, our_settings[i].value,
								 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
	}
	run->settings |= settings;
}

/* Gives the session its own settings back: before code of a user runs. */
void
value_settings_leave(ValueRun *run)
{
	if (run->nest_level != 0)
		AtEOXact_GUC(true, run->nest_level);
	run->nest_level = 0;
	run->settings = 0;
}

static void refuse_type(Oid type, Oid whole, const char *what);

static void
refuse_columns(Oid type, Oid whole, const char *what)
{
	TupleDesc	desc = lookup_rowtype_tupdesc_copy(type, -1);

	for (int i = 0; i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped)
			refuse_type(TupleDescAttr(desc, i)->atttypid, whole, what);
	}
	FreeTupleDesc(desc);
}

static void
refuse_pseudo_type(Oid type, Oid whole, const char *what)
{
	ereport(ERROR,
			errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			errmsg("%s has type %s, which a chain cannot handle",
				   what, format_type_be(whole)),
			type != whole ?
			errdetail("It contains the pseudo-type %s.", format_type_be(type)) : 0,
			errhint("Give it a type of its own, for example jsonb."));
}

/* Looks into type, a part of whole. */
static void
refuse_type(Oid type, Oid whole, const char *what)
{
	ValueType  *vt = value_type_lookup(type);

	check_stack_depth();
	switch (vt->kind)
	{
		case VALUE_BYTEA:
			ereport(ERROR,
					errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("%s has type %s, which is not yet supported",
						   what, format_type_be(whole)),
					type != whole ? errdetail("It contains bytea.") : 0,
					errhint("Use text with encode(value, 'base64') for now."));
			break;
		case VALUE_ARRAY:
			if (vt->element == InvalidOid)
				refuse_pseudo_type(type, whole, what);
			refuse_type(vt->element, whole, what);
			break;
		case VALUE_DOMAIN:
			refuse_type(vt->element, whole, what);
			break;
		case VALUE_COMPOSITE:
			if (type != RECORDOID)
				refuse_columns(type, whole, what);
			else if (whole != RECORDOID)
				refuse_pseudo_type(type, whole, what);
			break;
		case VALUE_VOID:
			if (type != whole)
				refuse_pseudo_type(type, whole, what);
			break;
		case VALUE_PSEUDO:
			refuse_pseudo_type(type, whole, what);
			break;
		default:
			if (type_is_range(type))
				refuse_type(get_range_subtype(type), whole, what);
			else if (type_is_multirange(type))
				refuse_type(get_range_subtype(get_multirange_range(type)),
							whole, what);
			break;
	}
}

/*
 * Raises feature_not_supported when a chain cannot take or give a type: bytea,
 * also inside arrays, composites, domains and ranges, and every pseudo-type
 * but void and record.  what begins the message: "argument \"x\"".
 */
void
value_check_type_supported(Oid type, const char *what)
{
	refuse_type(type, type, what);
}

/* Appends the text of one value; name says where it is in the whole. */
static void
append_text(StringInfo buf, JsonbValue *value, const char *name)
{
	JsonbIterator *it;
	JsonbValue	v;
	int			index = 0;

	check_stack_depth();
	switch (value->type)
	{
		case jbvNull:
			ereport(ERROR,
					errcode(ERRCODE_CHAIN_INPUT),
					name[0] == '\0' ?
					errmsg("null has no text") :
					errmsg("element %s is null and has no text", name),
					name[0] == '\0' ?
					errhint("Say what to write instead: {{ ... | default(\"-\")}}.") :
					errhint("Filter it, for example {{summary[*] ? (@ != null)}}, or give it a default()."));
			break;
		case jbvString:
			appendBinaryStringInfo(buf, value->val.string.val,
								   value->val.string.len);
			break;
		case jbvNumeric:
			appendStringInfoString(buf,
								   DatumGetCString(DirectFunctionCall1(numeric_out,
																	   NumericGetDatum(value->val.numeric))));
			break;
		case jbvBool:
			appendStringInfoString(buf, value->val.boolean ? "true" : "false");
			break;
		case jbvBinary:
			if (JsonContainerIsObject(value->val.binary.data))
			{
				(void) JsonbToCString(buf, value->val.binary.data,
									  value->val.binary.len);
				break;
			}
			it = JsonbIteratorInit(value->val.binary.data);
			(void) JsonbIteratorNext(&it, &v, true);
			while (JsonbIteratorNext(&it, &v, true) == WJB_ELEM)
			{
				char	   *element = psprintf("%s[%d]", name, index);

				if (index++ > 0)
					appendStringInfoString(buf, "\n\n");
				append_text(buf, &v, element);
				pfree(element);
			}
			break;
		default:
			elog(ERROR, "unexpected kind of JSON value: %d", value->type);
	}
}

/*
 * A value as it goes into text (rule T3): text as it is, numbers and booleans
 * as JSON, an array as its elements' texts with an empty line between, an
 * object as JSON.  Raises ERRCODE_CHAIN_INPUT for null, also as an element.
 * Looks nothing up: callable outside a transaction.
 */
char *
value_to_text(const Jsonb *value)
{
	StringInfoData buf;
	JsonbValue	v;

	if (json_scalar(value, &v) && v.type == jbvString)
		return pnstrdup(v.val.string.val, v.val.string.len);
	if (!JB_ROOT_IS_SCALAR(value))
	{
		v.type = jbvBinary;
		v.val.binary.data = unconstify(JsonbContainer *, &value->root);
		v.val.binary.len = VARSIZE(value) - VARHDRSZ;
	}
	initStringInfo(&buf);
	append_text(&buf, &v, "");
	return buf.data;
}
