/*
 * error.c
 *	  The classes of failure, and failures as data.
 */
#include "postgres.h"

#include "base/error.h"
#include "base/json.h"
#include "utils/elog.h"

static const struct
{
	const char *name;
	int			sqlstate;
}			classes[] =
{
	[CLASS_NONE] = {"ok", ERRCODE_SUCCESSFUL_COMPLETION},
	[CLASS_TRANSIENT] = {"transient", ERRCODE_CHAIN_TRANSIENT},
	[CLASS_THROTTLED] = {"throttled", ERRCODE_CHAIN_THROTTLED},
	[CLASS_PERMANENT] = {"permanent", ERRCODE_CHAIN_PERMANENT},
	[CLASS_INVALID] = {"invalid", ERRCODE_CHAIN_INVALID},
	[CLASS_CONTENT] = {"content", ERRCODE_CHAIN_CONTENT},
	[CLASS_CANCELLED] = {"cancelled", ERRCODE_CHAIN_CANCELLED},
	[CLASS_LIMIT] = {"limit", ERRCODE_CHAIN_LIMIT},
	[CLASS_TIMEOUT] = {"timeout", ERRCODE_CHAIN_TIMEOUT},
	[CLASS_INPUT] = {"input", ERRCODE_CHAIN_INPUT},
	[CLASS_SQL] = {"sql", ERRCODE_INTERNAL_ERROR},
	[CLASS_DENIED] = {"denied", ERRCODE_CHAIN_DENIED},
	[CLASS_CRASH] = {"crash", ERRCODE_CHAIN_CRASH},
};

/* The word for a class, as messages and error.class have it; a constant. */
const char *
error_class_name(ErrorClass cls)
{
	return classes[cls].name;
}

/* The SQLSTATE of a class; for CLASS_SQL one of last resort. */
int
error_class_sqlstate(ErrorClass cls)
{
	return classes[cls].sqlstate;
}

/* The class an error with this SQLSTATE has: CLASS_SQL unless it is ours. */
ErrorClass
error_class_of(int sqlstate)
{
	for (int i = CLASS_TRANSIENT; i <= CLASS_CRASH; i++)
	{
		if (i != CLASS_SQL && classes[i].sqlstate == sqlstate)
			return (ErrorClass) i;
	}
	return CLASS_SQL;
}

/* Texts are copied into the current memory context; detail, hint: or NULL. */
StepError *
step_error_make(ErrorClass cls, const char *message, const char *detail,
				const char *hint)
{
	StepError  *error = palloc0(sizeof(StepError));

	error->cls = cls;
	error->sqlstate = classes[cls].sqlstate;
	error->message = pstrdup(message);
	error->detail = detail ? pstrdup(detail) : NULL;
	error->hint = hint ? pstrdup(hint) : NULL;
	return error;
}

static char *
copy_text(const char *text)
{
	return text ? pstrdup(text) : NULL;
}

/* A deep copy in the current memory context. */
StepError *
step_error_copy(const StepError *error)
{
	StepError  *copy = palloc(sizeof(StepError));
	ListCell   *lc;

	*copy = *error;
	copy->message = copy_text(error->message);
	copy->detail = copy_text(error->detail);
	copy->hint = copy_text(error->hint);
	copy->step = copy_text(error->step);
	copy->context = copy_text(error->context);
	copy->input = json_copy(CurrentMemoryContext, error->input);
	copy->tried = NIL;
	foreach(lc, error->tried)
	{
		const TriedModel *tried = lfirst(lc);
		TriedModel *mine = palloc(sizeof(TriedModel));

		mine->model = copy_text(tried->model);
		mine->cls = tried->cls;
		mine->message = copy_text(tried->message);
		copy->tried = lappend(copy->tried, mine);
	}
	return copy;
}

/* A caught error as data, copied into the current memory context. */
StepError *
step_error_from(const ErrorData *edata)
{
	StepError  *error;

	error = step_error_make(error_class_of(edata->sqlerrcode),
							edata->message ? edata->message : "",
							edata->detail, edata->hint);
	error->sqlstate = edata->sqlerrcode;
	return error;
}

/* Raises the failure; what nothing in the chain has caught. */
void
step_error_throw(const StepError *error)
{
	ereport(ERROR,
			(errcode(error->sqlstate),
			 errmsg_internal("%s", error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0,
			 error->context ? errcontext("%s", error->context) : 0));
	pg_unreachable();
}

static void
push_text(JsonbParseState **state, const char *key, const char *text)
{
	json_push_key(state, key);
	json_push(state, WJB_VALUE, text ? json_text(text) : json_null());
}

/*
 * The failure as chains see it under on_error and as a job's error shows it:
 * class, message, detail, hint, step, sqlstate, tried.
 */
Jsonb *
step_error_json(const StepError *error)
{
	JsonbParseState *state = NULL;
	ListCell   *lc;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_text(&state, "class", classes[error->cls].name);
	push_text(&state, "message", error->message);
	push_text(&state, "detail", error->detail);
	push_text(&state, "hint", error->hint);
	push_text(&state, "step", error->step);
	push_text(&state, "sqlstate", unpack_sql_state(error->sqlstate));
	json_push_key(&state, "tried");
	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	foreach(lc, error->tried)
	{
		TriedModel *tried = lfirst(lc);

		(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		push_text(&state, "model", tried->model);
		push_text(&state, "class", classes[tried->cls].name);
		push_text(&state, "message", tried->message);
		(void) pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	(void) pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}
