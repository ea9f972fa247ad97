/*
 * definition.h
 *	  A chain as compiled from its body: steps, what they name, what they need.
 *
 * Compilation has three passes: parse (step.c: keys become Steps), resolve
 * (resolve.c: names become NameRefs; cycles, sinks) and bind (bind.c: models,
 * functions and SQL are looked up in the catalogs).  A compiled Definition is
 * read-only but for the plans that a driver keeps in it.
 */
#ifndef CHAINCALL_DEFINITION_H
#define CHAINCALL_DEFINITION_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "api/api.h"
#include "chain/expression.h"
#include "chain/shape.h"
#include "chain/template.h"
#include "chain/yaml.h"
#include "executor/spi.h"
#include "nodes/bitmapset.h"
#include "policy/backoff.h"

typedef struct Step Step;
typedef struct Definition Definition;

typedef enum StepKind
{
	STEP_MODEL,
	STEP_SQL,
	STEP_FUNCTION,
	STEP_BLOCK,
	STEP_SWITCH,
	STEP_VALUE,
	STEP_WAIT,
	STEP_ASK
} StepKind;

/* What a name in an expression means. */
typedef enum NameKind
{
	NAME_INPUT,					/* slot: argument of the chain */
	NAME_STEP,					/* slot: step of the block owner */
	NAME_ITEM,					/* element of owner's each */
	NAME_INDEX,
	NAME_ROUND,					/* round of owner's until */
	NAME_LAST,					/* owner's own output in the last round */
	NAME_ERROR					/* why owner's item failed */
} NameKind;

typedef struct NameRef
{
	NameKind	kind;
	const Step *owner;
	int			slot;
} NameRef;

/* The steps that must have ended before something can be evaluated. */
typedef struct Needs
{
	int			count;
	NameRef    *refs;			/* NAME_STEP only, distinct */
} Needs;

typedef enum OnError
{
	ON_ERROR_FAIL,
	ON_ERROR_SKIP,
	ON_ERROR_STEP
} OnError;

typedef enum RowsShape
{
	RETURNS_ROWS,
	RETURNS_ROW,
	RETURNS_VALUE
} RowsShape;

/* One entry of `messages`. */
typedef struct MessageStep
{
	JsonTemplate *splice;		/* an array of messages, else: */
	const char *role;
	Template  **texts;			/* content's parts */
	int			ntexts;
	bool		parts;			/* content was written as a list */
} MessageStep;

typedef struct ModelStep
{
	const char *name;
	int			line;			/* of the name */
	const char **fallback;		/* NULL-terminated; NULL: the model's own */
	int		   *fallback_lines;
	CallForm	form;
	Template   *prompt;
	MessageStep *messages;
	int			nmessages;
	Template   *system;
	JsonTemplate *body;			/* input or request */
	JsonTemplate *params;
	Jsonb	   *fixed_params;	/* of chaincall.call(), never a template */
	JsonTemplate *extra;
	Shape	   *shape;			/* NULL: text */
	int			reask;
} ModelStep;

typedef struct SqlStep
{
	SqlTemplate *text;
	RowsShape	returns;
	Oid		   *types;			/* of the parameters, inferred */
	SPIPlanPtr	plan;			/* kept by the driver; NULL until needed */
} SqlStep;

typedef struct FunctionStep
{
	const char *name;			/* as written */
	const char *signature;		/* of pinned chains: qualified */
	const char *result_type;	/* of pinned chains: SQL name */
	const char **arg_type_names;	/* of pinned chains */
	const char *helper;			/* of pinned chains: C helper it is, or NULL */
	int			line;			/* of the name */
	Oid			oid;
	bool		is_chain;
	bool		set;			/* returns a set */
	Oid			result;
	int			nargs;			/* of those given */
	const char **arg_names;
	const int  *arg_lines;
	JsonTemplate **args;
	Oid		   *arg_types;
	char	   *sql;			/* the call as a statement */
	SPIPlanPtr	plan;
} FunctionStep;

typedef struct WaitStep
{
	int64		ms;				/* a constant interval; 0: */
	Template   *text;			/* an interval or a time */
} WaitStep;

typedef struct AskStep
{
	Template   *question;
	JsonTemplate *show;			/* NULL: nothing */
	Template   *to;				/* name of a role; NULL: the owner */
	Shape	   *shape;			/* of the answer; NULL: text */
} AskStep;

/* What a run of it asks of whom. */
typedef struct AskSpec
{
	char	   *question;
	Jsonb	   *show;			/* NULL: nothing */
	char	   *to;				/* role; NULL: the owner */
} AskSpec;

struct Step
{
	const char *name;			/* NULL: body of the chain, arm, on_error */
	int			line;
	StepKind	kind;
	Step	   *block;			/* the block it is a step of, or NULL */
	int			slot;			/* in that block */
	Definition *definition;

	/* modifiers */
	Expression *when;
	struct TemplateHole *each;	/* written bare, filters allowed */
	const char *as;				/* NULL: only `item` */
	int			as_line;
	int			max_parallel;	/* 0: no bound */
	Expression *until;
	int			max;
	List	   *after;			/* of char * */
	int			after_line;
	int64		timeout_ms;		/* 0: none */
	RetryPolicy *retry;			/* NULL: not written */
	OnError		on_error;
	Step	   *handler;

	bool		slow;			/* one of its expressions may run long */

	/* needs of each phase, in the order in which they come */
	Needs		when_needs;		/* `after` among them */
	Needs		each_needs;
	Needs		body_needs;		/* a block: none; its steps wait themselves */
	Needs		until_needs;
	Needs		output_needs;

	/* by kind */
	ModelStep  *model;
	SqlStep    *sql;
	FunctionStep *function;
	JsonTemplate *value;
	WaitStep   *wait;
	AskStep    *ask;
	Step	  **steps;			/* of a block, or arms of a switch */
	int			nsteps;
	JsonTemplate *output;		/* of a block; NULL: the sink */
	int			sink;			/* slot of the only sink, or -1 */
	Bitmapset **uses;			/* of each step of a block: slots it names */
};

typedef struct ChainArg
{
	const char *name;
	Oid			type;
	bool		has_default;
	const char *type_name;		/* of pinned chains: SQL name, qualified */
	Jsonb	   *value;			/* of pinned chains: a constant DEFAULT */
} ChainArg;

/*
 * What compilation takes in place of catalogs: what the same passes found
 * when the chain was pinned, in the order in which they come upon it.
 */
typedef struct PinSource
{
	Jsonb	   *functions;
	Jsonb	   *shapes;
	int			next_function;
	int			next_shape;
} PinSource;

struct Definition
{
	MemoryContext cxt;
	const char *name;			/* of the chain, for messages */
	Oid			function;		/* InvalidOid for DO */
	Oid			result;			/* InvalidOid for DO */
	bool		strict;
	bool		returns_set;
	char	   *column;			/* the only one of RETURNS TABLE, or NULL */
	TupleDesc	columns;		/* of OUT arguments and TABLE, or NULL */
	int			nargs;
	ChainArg   *args;
	Step	   *body;
	List	   *shapes;			/* of Shape *: what `returns` say, as parsed */
	List	   *functions;		/* of FunctionStep *, as bound */
	PinSource  *pins;			/* NULL: catalogs are looked at */
	int			uses;			/* runs that hold it */
	bool		single;			/* of chaincall.call() and the like: no chain */
	bool		stale;			/* dropped when uses is 0 */
};

/* chain/definition.c */
extern void definition_error(int line, int sqlstate, const char *hint,
							 const char *fmt,...)
			pg_attribute_printf(4, 5) pg_attribute_noreturn();
extern Definition *definition_of_call(const char *model, CallForm form,
									  Jsonb *params);
extern Definition *definition_compile(const char *name, const char *body,
									  int nargs, ChainArg *args,
									  bool bind);
extern Definition *definition_compile_pinned(const char *name,
											 const char *body, int nargs,
											 ChainArg *args, PinSource *pins);

/* chain/chain_cache.c */
extern Definition *definition_of_function(Oid function);
extern void definition_drop(Definition *definition);
extern void definition_release(Definition *definition);
extern void definition_validate_function(Oid function, bool check_body);
extern Oid	definition_language(void);
extern uint64 definition_generation(void);

/* chain/input.c */
extern Jsonb *definition_input(const Definition *definition, int arg,
							   Datum datum, bool isnull);
extern Jsonb *definition_argument(const Definition *definition, int arg,
								  const Jsonb *given);
extern Jsonb **definition_inputs(Definition *definition, const Jsonb *input,
								 bool *null_for_strict);
extern Jsonb *definition_constant_default(const Definition *definition, int arg);
extern void definition_check_members(const Definition *definition,
									 const Jsonb *input);
extern void definition_lacks(const Definition *definition,
							 int arg) pg_attribute_noreturn();

/* chain/result.c */
extern Jsonb *definition_rows(const Definition *definition, Jsonb *output);
extern void definition_describe_result(Definition *definition);
extern Jsonb *definition_row(Jsonb *element, const char *column);
extern Jsonb *definition_result(const Definition *definition, Jsonb *output);

/* chain/step.c: first pass */
extern Step *step_parse_body(Definition *definition, YamlNode *node);
extern const char *step_text(const YamlNode *node, const char *key);
extern void step_check_keys(const YamlNode *map, const char *const *known,
							const char *what);
extern int64 step_count(const YamlNode *node, const char *key, int64 least);

/* chain/step_model.c */
extern ModelStep *model_step_parse(Definition *definition,
								   const YamlNode *node, int line);
extern List *model_step_exprs(const ModelStep *model);
extern Shape *step_returns(Definition *definition, const YamlNode *node);

/* chain/step_ask.c */
extern AskStep *ask_step_parse(Definition *definition, const YamlNode *node);
extern List *ask_step_exprs(const AskStep *ask);
extern void ask_step_render(const AskStep *ask, AskSpec *spec,
							ExprLookup lookup, void *arg);
extern Jsonb *ask_check(const Shape *shape, Jsonb *answer, char **why);
extern Jsonb *ask_schema(const Shape *shape);

/* chain/resolve.c: second pass */
extern void definition_resolve(Definition *definition);

/* chain/bind.c: third pass */
extern void definition_bind(Definition *definition);
extern void bind_sql(SqlStep *sql, int line);
extern List *bind_parse_sql(const SqlStep *sql);

#endif							/* CHAINCALL_DEFINITION_H */
