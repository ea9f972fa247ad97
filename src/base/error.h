/*
 * error.h
 *	  The classes of failure that chains know, and a failure as data.
 *
 * An error crosses the code in one of two forms: raised with ereport() where
 * nothing of a chain can catch it, or as a StepError where on_error, retry, a
 * trace or (in workers) a job's row must hold it.  Both carry the same class.
 */
#ifndef CHAINCALL_ERROR_H
#define CHAINCALL_ERROR_H

#include "postgres.h"

#include "base/compat.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

typedef enum ErrorClass
{
	CLASS_NONE = 0,				/* no error */
	CLASS_TRANSIENT,			/* connect, time-out, 408/409/425/5xx */
	CLASS_THROTTLED,			/* 429, 503 with Retry-After */
	CLASS_PERMANENT,			/* other 4xx */
	CLASS_INVALID,				/* the answer is not what the api promises */
	CLASS_CONTENT,				/* refused by the model or its provider */
	CLASS_CANCELLED,
	CLASS_LIMIT,				/* a bound of ours: max, size, depth, CPU */
	CLASS_TIMEOUT,				/* a step's timeout */
	CLASS_INPUT,				/* missing, null or of a wrong type */
	CLASS_SQL,					/* a statement's own error and SQLSTATE */
	CLASS_DENIED,				/* a privilege is lacking */
	CLASS_CRASH					/* a process died of the step */
} ErrorClass;

/* One SQLSTATE a class; CLASS_SQL has the statement's own. */
#define ERRCODE_CHAIN_TRANSIENT MAKE_SQLSTATE('M', 'C', '0', '0', '1')
#define ERRCODE_CHAIN_THROTTLED MAKE_SQLSTATE('M', 'C', '0', '0', '2')
#define ERRCODE_CHAIN_PERMANENT MAKE_SQLSTATE('M', 'C', '0', '0', '3')
#define ERRCODE_CHAIN_INVALID MAKE_SQLSTATE('M', 'C', '0', '0', '4')
#define ERRCODE_CHAIN_CONTENT MAKE_SQLSTATE('M', 'C', '0', '0', '5')
#define ERRCODE_CHAIN_LIMIT MAKE_SQLSTATE('M', 'C', '0', '0', '6')
#define ERRCODE_CHAIN_TIMEOUT MAKE_SQLSTATE('M', 'C', '0', '0', '7')
#define ERRCODE_CHAIN_INPUT MAKE_SQLSTATE('M', 'C', '0', '0', '8')
#define ERRCODE_CHAIN_CRASH MAKE_SQLSTATE('M', 'C', '0', '0', '9')
#define ERRCODE_CHAIN_DENIED ERRCODE_INSUFFICIENT_PRIVILEGE
#define ERRCODE_CHAIN_CANCELLED ERRCODE_QUERY_CANCELED

/* A failure as data.  All text is palloc'd; NULL where there is none. */
typedef struct StepError
{
	ErrorClass	cls;
	int			sqlstate;
	char	   *message;		/* lower case, no full stop */
	char	   *detail;
	char	   *hint;
	char	   *step;			/* path of the step that failed */
	char	   *context;		/* "chain f, step a[3], line 12" */
	List	   *tried;			/* of TriedModel */
	Jsonb	   *input;			/* what the step was asked, for a person; NULL: not
								 * known.  No chain sees it */
} StepError;

/* One model that a call has tried, for error.tried. */
typedef struct TriedModel
{
	char	   *model;
	ErrorClass	cls;
	char	   *message;
} TriedModel;

extern const char *error_class_name(ErrorClass cls);
extern int	error_class_sqlstate(ErrorClass cls);
extern ErrorClass error_class_of(int sqlstate);

extern StepError *step_error_make(ErrorClass cls, const char *message,
								  const char *detail, const char *hint);
extern StepError *step_error_copy(const StepError *error);
extern StepError *step_error_from(const ErrorData *edata);
extern void step_error_throw(const StepError *error) pg_attribute_noreturn();
extern Jsonb *step_error_json(const StepError *error);

#endif							/* CHAINCALL_ERROR_H */
