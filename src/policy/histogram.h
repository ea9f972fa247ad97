/*
 * histogram.h
 *	  Log-linear histograms of durations.  Arithmetic only: no clock, no I/O,
 *	  no PostgreSQL.
 *
 * Below 16 µs a bucket is a microsecond; above, each octave has 16 buckets, so
 * that the middle of a value's bucket is off by at most 1/32 (3.2 %) of it.
 * The last octave ends at 2^32 µs (71 minutes); what is longer counts there.
 */
#ifndef CHAINCALL_HISTOGRAM_H
#define CHAINCALL_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BUCKETS 464

typedef struct Histogram
{
	uint64_t	counts[HISTOGRAM_BUCKETS];
} Histogram;

extern int	histogram_bucket(int64_t us);
extern double histogram_middle(int bucket);
extern void histogram_merge(Histogram *into, const Histogram *from);
extern uint64_t histogram_total(const Histogram *histogram);
extern double histogram_quantile(const Histogram *histogram, double share);

static inline void
histogram_add(Histogram *histogram, int64_t us)
{
	histogram->counts[histogram_bucket(us)]++;
}

#endif							/* CHAINCALL_HISTOGRAM_H */
