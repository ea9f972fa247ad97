/*
 * pin.h
 *	  A chain with everything it names, frozen when a job is inserted.
 *
 * The closure is JSON (stored once in chaincall.definition under the sha256 of
 * its text): the chain, the chains it calls, each with body, arguments, result,
 * resolved functions (signatures and the statement that calls each), the
 * schemas that `returns` compiled to, and the inserting session's search_path.
 *
 * pin_make() runs in the session that inserts, as the inserting role; it may
 * look everything up.  pin_load() runs in a caller, a superuser's process: it
 * compiles the bodies and takes from the closure what compilation would have
 * looked up, so that no user's code or type is touched.
 */
#ifndef CHAINCALL_PIN_H
#define CHAINCALL_PIN_H

#include "postgres.h"

#include "base/plain.h"
#include "chain/definition.h"
#include "datatype/timestamp.h"

#define PIN_HASH_LEN 32			/* sha256 */

/* A closure as made in a session, good until pin_make() is called again. */
typedef struct PinMade
{
	Oid			function;
	const char *signature;		/* schema.name(types), qualified */
	Jsonb	   *closure;
	uint8		sha256[PIN_HASH_LEN];
	bool		needs_executor; /* has to run or convert something by SQL */
	/* for whoever stores it; 0 at first */
	TimestampTz seen_at;		/* when a committed row of it was seen */
	uint64		stored_in;		/* in which epoch this session stored it */
} PinMade;

/* One chain of a loaded closure. */
typedef struct PinnedChain
{
	Definition *definition;
	const char *signature;

	/*
	 * Whether arguments and result can be taken as JSON without SQL: only
	 * plain types (base/plain.h).  Else an executor converts them, save a
	 * job's own input, which was converted when it was inserted.
	 */
	bool		plain_inputs;
	bool		plain_result;
	PlainType  *arg_types;
	PlainType	result;
	const char *result_type;	/* SQL name, qualified; NULL: none */
	bool		result_void;
	/* of a result of type record: its columns */
	int			ncolumns;
	const char **column_names;
	const char **column_types;
	bool		has_steps;		/* sql or function steps, for executors */
	/* who was last found to have EXECUTE, in which definition_generation() */
	Oid			allowed;
	uint64		allowed_in;
} PinnedChain;

typedef struct Pinned
{
	MemoryContext cxt;
	const char *search_path;
	int			nchains;		/* the first is the job's */
	PinnedChain *chains;
	int			uses;			/* jobs that hold it */
} Pinned;

/* chain/chain_find.c */
extern Oid	chain_find(const char *name);
extern Oid	chain_find_known(const char *name);
extern Oid	chain_find_signature(const char *signature);

/* chain/pin_build.c */
extern char *pin_signature(Oid function);

/* chain/pin.c: in sessions */
extern PinMade *pin_make(Oid function);
extern Jsonb *pin_normalise(Oid function, Jsonb *input);

/* chain/pinload.c: in callers */
extern Pinned *pin_load(const Jsonb *closure);
extern void pin_free(Pinned *pinned);
extern PinnedChain *pin_find(const Pinned *pinned, const char *signature);
extern Jsonb **pin_inputs(const PinnedChain *chain, const Jsonb *args,
						  bool *null_for_strict);
extern Jsonb **pin_job_inputs(const PinnedChain *chain, const Jsonb *input,
							  bool *null_for_strict);
extern Jsonb *pin_result(const PinnedChain *chain, Jsonb *output);

#endif							/* CHAINCALL_PIN_H */
