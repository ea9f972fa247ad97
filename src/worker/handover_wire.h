/*
 * handover_wire.h
 *	  Orders and answers as a run of bytes.
 */
#ifndef CHAINCALL_HANDOVER_WIRE_H
#define CHAINCALL_HANDOVER_WIRE_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "worker/handover.h"

extern void wire_put_order(StringInfo buf, const StepOrder *order);
extern void wire_get_order(char *bytes, StepOrder *order);
extern void wire_put_answer(StringInfo buf, const Jsonb *output,
							const StepError *error);
extern void wire_get_answer(char *bytes, Jsonb **output, StepError **error);

#endif							/* CHAINCALL_HANDOVER_WIRE_H */
