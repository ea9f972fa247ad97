/*
 * pin.h
 *	  A chain with everything it names, frozen when a job is inserted.
 *
 * The closure is JSON (stored once in chaincall.definition under its sha256):
 * the chain, the chains it calls, each with body, arguments, result, resolved
 * functions (signatures and the statement that calls each), the schemas that
 * `returns` compiled to, and the inserting session's search_path.
 *
 * pin_make() runs in the session that inserts, as the inserting role; it may
 * look everything up.  pin_load() runs in a caller, a superuser's process: it
 * compiles the bodies and takes from the closure what compilation would have
 * looked up, so that no user's code or type is touched.
 */
#ifndef CHAINCALL_PIN_H
#define CHAINCALL_PIN_H

#include "postgres.h"

#include "chain/definition.h"

/* A loaded closure; read-only. */
typedef struct PinnedChain
{
	Definition *definition;
	const char *signature;		/* schema.name(types), qualified */
	/*
	 * Whether arguments and result can be taken as JSON without SQL: only
	 * jsonb, text, boolean, integers, numeric, floats and arrays of them, where
	 * a value of the right JSON type is its own canonical form.  Else an
	 * executor converts them.
	 */
	bool		plain_inputs;
	bool		plain_result;
	bool		has_steps;		/* sql or function steps, for executors */
} PinnedChain;

typedef struct Pinned
{
	MemoryContext cxt;
	const char *search_path;
	int			nchains;		/* the first is the job's */
	PinnedChain *chains;
	int			uses;			/* jobs that hold it */
} Pinned;

extern Jsonb *pin_make(Oid function, char **signature, Jsonb **input,
					   bool *null_for_strict, bool *needs_executor);
extern Pinned *pin_load(const Jsonb *closure);
extern PinnedChain *pin_find(Pinned *pinned, const char *signature);
extern Jsonb **pin_inputs(const PinnedChain *chain, const Jsonb *args,
						  bool *null_for_strict);
extern Oid	chain_find(const char *name);

#endif							/* CHAINCALL_PIN_H */
