/*
 * call_error.c
 *	  A failed call in words: what went wrong first, then what was seen, then
 *	  what to do.
 *
 * A service's own words are shown, because nothing explains a 400 better, but
 * cut, and without the key: some services repeat a key that they refuse.
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/json.h"
#include "call/call_internal.h"
#include "mb/pg_wchar.h"
#include "utils/timestamp.h"

#define WORDS_KEPT 1000			/* bytes of the service's words */
#define WORDS_IN_MESSAGE 200	/* bytes of them in a message */
#define ANSWER_SHOWN 300		/* characters of an unfit answer */

/* Appends text with every occurrence of secret (NULL: none) as ***. */
void
failure_redact(StringInfo out, const char *text, const char *secret)
{
	size_t		len = secret ? strlen(secret) : 0;
	const char *hit;

	while (len > 0 && (hit = strstr(text, secret)) != NULL)
	{
		appendBinaryStringInfo(out, text, hit - text);
		appendStringInfoString(out, "***");
		text = hit + len;
	}
	appendStringInfoString(out, text);
}

/* The query of the server's path, which may be as good as a key. */
static const char *
path_query(const Route *route)
{
	const char *query = route->server.path ?
		strchr(route->server.path, '?') : NULL;

	return query != NULL && query[1] != '\0' ? query + 1 : NULL;
}

/*
 * Words of a service or of libcurl as they may be shown: without key, query
 * and control characters, cut.  NULL stays NULL; palloc'd.
 */
char *
failure_words(const Route *route, const char *words)
{
	StringInfoData without_key;
	StringInfoData out;

	if (words == NULL || words[0] == '\0')
		return NULL;
	initStringInfo(&without_key);
	failure_redact(&without_key, words, route->api_key);
	initStringInfo(&out);
	failure_redact(&out, without_key.data, path_query(route));
	pfree(without_key.data);
	out.data[pg_mbcliplen(out.data, out.len, WORDS_KEPT)] = '\0';
	for (char *p = out.data; *p != '\0'; p++)
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			*p = ' ';
	return out.data;
}

/* ": words" as a message ends, or nothing. */
static char *
words_behind(const char *words)
{
	if (words == NULL)
		return "";
	return psprintf(": %.*s", pg_mbcliplen(words, strlen(words),
										   WORDS_IN_MESSAGE), words);
}

static char *
fault_message(const Call *call, const char *who)
{
	const char *words = words_behind(call->words);

	switch (call->fault)
	{
		case HTTP_BAD_REQUEST:
			return psprintf("%s cannot be asked%s", who, words);
		case HTTP_RESOLVE:
			return psprintf("%s cannot be reached: its name does not resolve%s",
							who, words);
		case HTTP_REFUSED_ADDRESS:
			return psprintf("%s may not be called: its address is refused%s",
							who, words);
		case HTTP_CONNECT:
			return psprintf("%s cannot be reached%s", who, words);
		case HTTP_TLS:
			return psprintf("%s cannot be reached: no secure connection%s",
							who, words);
		case HTTP_BROKEN:
			return psprintf("%s broke off its answer%s", who, words);
		case HTTP_TOO_LARGE:
			return psprintf("%s gave an answer that is too large%s", who,
							words);
		case HTTP_NO_RESOURCE:
			return psprintf("%s could not be asked for want of memory or file descriptors%s",
							who, words);
		case HTTP_OK:
			break;
	}
	return psprintf("%s failed%s", who, words);
}

static char *
message_of(const Call *call)
{
	const char *words = words_behind(call->words);
	char	   *who = psprintf("model \"%s\" at server \"%s\"",
							   call->model, call->route->server.name);

	if (call->within != NULL)
		return psprintf("%s gave no answer within %s", who, call->within);
	if (call->fault != HTTP_OK)
		return fault_message(call, who);
	if (call->status >= 300)
		return psprintf("%s answered %d%s", who, call->status, words);
	if (call->unfit)
		return psprintf("answer of %s does not fit%s", who, words);
	if (call->cls == CLASS_CONTENT)
		return psprintf("%s refused to answer%s", who, words);
	if (call->cls == CLASS_INVALID)
		return psprintf("%s gave an invalid answer%s", who, words);
	return psprintf("%s failed%s", who, words);
}

static char *
detail_of(const Call *call)
{
	StringInfoData detail;

	initStringInfo(&detail);
	appendStringInfo(&detail, "model %s, server %s, ", call->model,
					 call->route->server.name);
	if (call->status != 0)
		appendStringInfo(&detail, "HTTP %d, ", call->status);
	appendStringInfo(&detail, "class %s, attempts %d",
					 error_class_name(call->cls), call->attempts);
	if (call->request_id != NULL)
		appendStringInfo(&detail, ", request %s", call->request_id);
	if (call->words != NULL)
		appendStringInfo(&detail, "; %s: %s",
						 call->status >= 300 || call->cls == CLASS_CONTENT ?
						 "the service said" : "seen",
						 call->words);
	/* an answer that is no JSON is in the words already */
	if (call->unfit && json_string_dup(call->answer) == NULL)
		appendStringInfo(&detail, "; answered: %s",
						 json_excerpt(call->answer, ANSWER_SHOWN));
	return detail.data;
}

static const char *
fault_hint(HttpFault fault)
{
	switch (fault)
	{
		case HTTP_BAD_REQUEST:
			return "Check the options of the server.";
		case HTTP_RESOLVE:
		case HTTP_CONNECT:
			return "Check that the service runs and that the server's option url names it.";
		case HTTP_REFUSED_ADDRESS:
			return "Link-local and metadata addresses are refused; a superuser can allow them in chaincall.allowed_networks.";
		case HTTP_TLS:
			return "Check the service's certificate, or name its authority in the server's option ca_file.";
		case HTTP_TOO_LARGE:
			return "Ask for less, or raise the server's option max_answer or the setting chaincall.max_answer.";
		case HTTP_NO_RESOURCE:
			return "Lower chaincall.max_in_flight, or raise the limit on open files.";
		case HTTP_BROKEN:
		case HTTP_OK:
			break;
	}
	return "Try again later; the service or something on the way to it fails.";
}

static const char *
permanent_hint(int status)
{
	switch (status)
	{
		case 401:
		case 403:
			return "Check the api_key in the user mapping for the server and what it is allowed to do.";
		case 402:
			return "Check the account that the api_key belongs to.";
		case 404:
		case 405:
			return "Check the server's option url and the remote_name in chaincall.endpoint.";
		case 413:
			return "Send less: the service takes no request of this size.";
		default:
			break;
	}
	if (status >= 300 && status < 400)
		return "Redirects are not followed: name the final address in the server's option url.";
	return "Check the step's params and extra and the server's option api against what the service said.";
}

static const char *
hint_of(const Call *call)
{
	if (call->fault != HTTP_OK)
		return fault_hint(call->fault);
	switch (call->cls)
	{
		case CLASS_THROTTLED:
			return "Try again later, lower the server's option max_in_flight, or ask the service for a higher rate.";
		case CLASS_PERMANENT:
			return permanent_hint(call->status);
		case CLASS_INVALID:
			if (call->cut_off)
				return "Raise max_tokens in params, or ask for less.";
			if (call->unfit)
				return "Say in the prompt what is wanted, describe the fields, or raise reask.";
			return "Check that the server's options api and url belong together.";
		case CLASS_CONTENT:
			return "The model or its provider does not answer this; change the prompt or use another model.";
		default:
			return fault_hint(HTTP_OK);
	}
}

static List *
list_tried(const char *model, const StepError *error)
{
	TriedModel *tried = palloc(sizeof(TriedModel));

	tried->model = pstrdup(model);
	tried->cls = error->cls;
	tried->message = error->message;
	return list_make1(tried);
}

static StepError *
make_error(const Call *call, ErrorClass cls, const char *message,
		   const char *detail, const char *hint)
{
	StepError  *error = step_error_make(cls, message, detail, hint);

	error->tried = list_tried(call->model, error);
	error->step = pstrdup(call->path);
	return error;
}

/* The failure of a call whose last attempt has failed for good. */
StepError *
failure_of_attempt(const Call *call)
{
	return make_error(call, call->cls, message_of(call), detail_of(call),
					  hint_of(call));
}

/* The failure of a call that an encoder has refused. */
StepError *
failure_of_encoding(const Call *call, const ErrorData *edata)
{
	StepError  *raised = step_error_from(edata);
	StepError  *error = make_error(call, raised->cls, raised->message,
								   raised->detail, raised->hint);

	error->sqlstate = raised->sqlstate;
	return error;
}

/* A time in words, palloc'd. */
char *
failure_seconds(int64 ms)
{
	return ms % 1000 == 0 ? psprintf(INT64_FORMAT " s", ms / 1000) :
		psprintf(INT64_FORMAT " ms", ms);
}

/*
 * The failure of a call whose time is up: CLASS_TIMEOUT when that was the
 * step's, CLASS_TRANSIENT when it was the model's or server's.
 */
StepError *
failure_of_deadline(const Call *call)
{
	bool		own = call->deadline_us == call->step_deadline_us;
	ErrorClass	cls = own ? CLASS_TIMEOUT : CLASS_TRANSIENT;
	char	   *who;
	char	   *limit = own ? "the step's timeout" :
		failure_seconds(call->budget_ms);
	char	   *message;
	char	   *detail;

	if (call->route == NULL)
		return failure_of_model(call->model, cls,
								psprintf("model \"%s\" is paused, and was not resumed within %s",
										 call->model, limit),
								"SELECT chaincall.resume('model', ...) lets it go on.");
	who = psprintf("model \"%s\" at server \"%s\"", call->model,
				   call->route->server.name);
	if (call->state == CALL_WAITING && call->attempts == 0)
		message = psprintf("%s had no free slot within %s", who, limit);
	else
		message = psprintf("%s gave no answer within %s", who, limit);
	detail = psprintf("model %s, server %s, class %s, attempts %d",
					  call->model, call->route->server.name,
					  error_class_name(cls), call->attempts);
	return make_error(call, cls, message, detail,
					  own ? "Give the step a longer timeout, or the model less to do." :
					  "Raise the timeout of the model or server, or give the model less to do.");
}

/* The failure of a call that a model cannot take at all; hint: or NULL. */
StepError *
failure_of_model(const char *model, ErrorClass cls, const char *message,
				 const char *hint)
{
	StepError  *error = step_error_make(cls, message,
										psprintf("model %s, class %s, attempts 0",
												 model, error_class_name(cls)),
										hint);

	error->tried = list_tried(model, error);
	return error;
}

/* The wall clock at clock_us(), for people. */
static const char *
time_text(int64 us)
{
	return timestamptz_to_str(GetCurrentTimestamp() + (us - clock_us()));
}

static char *
circuit_message(const Call *call, const char *who)
{
	HealthTrouble trouble = health_trouble(call->route->endpoint_id);

	if (trouble.since_us == 0)
		return psprintf("%s is not asked: its circuit was open", who);
	return psprintf("%s is not asked: its circuit is open since %s (last failure: %s)",
					who, time_text(trouble.since_us), trouble.seen);
}

/* The failure of a call whose endpoint is not to be asked now. */
StepError *
failure_of_health(const Call *call, const HealthView *view)
{
	char	   *who = psprintf("model \"%s\" at server \"%s\"",
							   call->model, call->route->server.name);
	char	   *message;
	const char *hint;
	ErrorClass	cls;

	switch (view->verdict)
	{
		case HEALTH_BROKEN:
			cls = CLASS_TRANSIENT;
			message = circuit_message(call, who);
			hint = "The service fails; one call at a time is let pass to see whether it answers again. See chaincall.stat_endpoint.";
			break;
		case HEALTH_COOLING:
			cls = CLASS_THROTTLED;
			message = psprintf("%s is not asked before %s: it takes no more requests with this key for now",
							   who, time_text(view->until_us));
			hint = "Try again later, or ask the service for a higher rate.";
			break;
		default:
			cls = CLASS_PERMANENT;
			message = psprintf("%s is not asked: it has refused the key a moment ago",
							   who);
			hint = permanent_hint(401);
			break;
	}
	return make_error(call, cls, message,
					  psprintf("model %s, server %s, class %s, attempts %d",
							   call->model, call->route->server.name,
							   error_class_name(cls), call->attempts), hint);
}

/*
 * How the last attempt failed, in words of ours: everybody who is told why a
 * circuit is open sees them, so they hold nothing of the service's.
 */
const char *
failure_seen(const Call *call)
{
	static char seen[HEALTH_SEEN_LEN];

	if (call->within != NULL)
		snprintf(seen, sizeof(seen), "no answer within %s", call->within);
	else if (call->status >= 300)
		snprintf(seen, sizeof(seen), "answered %d", call->status);
	else if (call->fault == HTTP_RESOLVE)
		return "its name does not resolve";
	else if (call->fault == HTTP_CONNECT)
		return "it cannot be reached";
	else if (call->fault == HTTP_TLS)
		return "no secure connection";
	else if (call->fault == HTTP_BROKEN)
		return "it broke off its answer";
	else if (call->cls == CLASS_NONE)
		return "no answer in time";
	else
		return "it failed";
	return seen;
}

static void
append_tried(StringInfo detail, const List *tried)
{
	ListCell   *lc;

	appendStringInfoString(detail, "; models tried:");
	foreach(lc, tried)
	{
		const TriedModel *model = lfirst(lc);

		appendStringInfo(detail, "%s %s (%s: %s)", foreach_current_index(lc) ? "," : "",
						 model->model, error_class_name(model->cls),
						 model->message);
	}
}

/*
 * The failure of a call that has tried other models before: it names them all.
 * When the last of them was not even asked, the failure is of the last that
 * was, or of the first where none was, unless the time is up.  Without others,
 * the error as it is.
 */
StepError *
failure_after_others(const Call *call, StepError *error)
{
	MemoryContext old;
	StepError  *told;
	List	   *last = error->tried;
	StringInfoData detail;

	if (call->left == NIL)
	{
		if (error->step == NULL)
			error->step = MemoryContextStrdup(call->context, call->path);
		return error;
	}
	old = MemoryContextSwitchTo(call->context);
	if (call->asked == 0 && error->cls != CLASS_TIMEOUT)
		error = call->last_asked != NULL ? call->last_asked : call->first_left;
	told = step_error_copy(error);
	told->tried = list_concat_copy(call->left, last);
	if (told->step == NULL)
		told->step = pstrdup(call->path);
	initStringInfo(&detail);
	if (told->detail != NULL)
		appendStringInfoString(&detail, told->detail);
	append_tried(&detail, told->tried);
	told->detail = detail.data;
	MemoryContextSwitchTo(old);
	return told;
}
