/*
 * value_type.h
 *	  What value.c, value_from.c and value_to.c share: how a type is
 *	  converted, remembered per backend, and the settings to do it under.
 */
#ifndef CHAINCALL_VALUE_TYPE_H
#define CHAINCALL_VALUE_TYPE_H

#include "postgres.h"

#include "fmgr.h"

/* How values of a type become JSON and are made from it. */
typedef enum ValueKind
{
	VALUE_PLAIN,				/* by the type's input and output functions */
	VALUE_BUILTIN,				/* a type that from_builtin() writes itself */
	VALUE_JSON,					/* takes the JSON itself: json and jsonb */
	VALUE_ARRAY,
	VALUE_COMPOSITE,			/* record too */
	VALUE_DOMAIN,
	VALUE_VECTOR,				/* pgvector's types: text is a JSON array */
	VALUE_BYTEA,
	VALUE_VOID,
	VALUE_PSEUDO
} ValueKind;

/* Settings that input and output functions obey, as a set. */
#define SETTING_DATESTYLE	0x01
#define SETTING_INTERVAL	0x02
#define SETTING_TIMEZONE	0x04
#define SETTING_FLOAT		0x08
#define SETTING_MONETARY	0x10
#define SETTING_PATH		0x20

/* One type; lives in a hash table of the backend. */
typedef struct ValueType
{
	Oid			type;			/* hash key */
	uint32		hash;			/* of the type's syscache entry */
	bool		filled;
	bool		stale;			/* its pg_type row changed */
	ValueKind	kind;
	Oid			element;		/* of an array; base type of a domain */
	int32		base_typmod;	/* of a domain */
	int16		typlen;
	bool		typbyval;
	bool		has_out;		/* is `out` filled? */
	bool		has_in;
	int			out_settings;	/* SETTING_*, before out and in are called */
	int			in_settings;
	FmgrInfo	out;
	FmgrInfo	in;
	Oid			ioparam;
	void	   *domain_state;	/* domain_check()'s */
	bool		domain_busy;	/* domain_state is in use further up */
	MemoryContext context;		/* of what hangs below the entry */
} ValueType;

/* One conversion from top to bottom. */
typedef struct ValueRun
{
	int			nest_level;		/* of the settings changed, 0: none */
	int			settings;		/* those seen to */
	MemoryContext caller;		/* where the result goes */
	MemoryContext scratch;		/* everything else */
} ValueRun;

extern ValueType *value_type_lookup(Oid type);
extern FmgrInfo *value_type_output(ValueType *vt);
extern FmgrInfo *value_type_input(ValueType *vt);
extern void value_refuse_bytea(void) pg_attribute_noreturn();

extern void value_run_begin(ValueRun *run);
extern void value_run_end(ValueRun *run);
extern void value_settings_need(ValueRun *run, int settings);
extern void value_settings_leave(ValueRun *run);

#endif							/* CHAINCALL_VALUE_TYPE_H */
