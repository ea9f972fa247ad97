/*
 * convert.h
 *	  Orders that make SQL values of what a called chain takes and gives.
 */
#ifndef CHAINCALL_CONVERT_H
#define CHAINCALL_CONVERT_H

#include "postgres.h"

#include "chain/pin.h"
#include "worker/handover.h"

extern void convert_inputs(const PinnedChain *chain, const Jsonb *args,
						   StepOrder *order);
extern void convert_result(const PinnedChain *chain, Jsonb *output,
						   StepOrder *order);
extern Jsonb *convert_strict(const PinnedChain *chain, Jsonb *inputs);

#endif							/* CHAINCALL_CONVERT_H */
