/*
 * histogram.c
 *	  Log-linear histograms of durations.
 *
 * The layout is that of HdrHistogram (G. Tene, hdrhistogram.org) with four
 * bits of a value kept below its highest.
 */
#include "policy/histogram.h"

#include <math.h>

#define SUB_BITS 4				/* 16 buckets an octave */
#define SUB_BUCKETS (1 << SUB_BITS)

/* The bucket of a duration in µs; a negative one is none. */
int
histogram_bucket(int64_t us)
{
	int			octave;

	if (us < SUB_BUCKETS)
		return us < 0 ? 0 : (int) us;
	if (us > UINT32_MAX)
		return HISTOGRAM_BUCKETS - 1;
	octave = 31 - __builtin_clz((uint32_t) us);
	return ((octave - SUB_BITS + 1) << SUB_BITS) +
		(int) ((us >> (octave - SUB_BITS)) & (SUB_BUCKETS - 1));
}

/* The middle of the durations (µs) that the bucket counts. */
double
histogram_middle(int bucket)
{
	int			shift;
	int64_t		low;

	if (bucket < SUB_BUCKETS)
		return bucket;
	shift = (bucket >> SUB_BITS) - 1;
	low = (int64_t) (SUB_BUCKETS + (bucket & (SUB_BUCKETS - 1))) << shift;
	return low + (((int64_t) 1 << shift) - 1) / 2.0;
}

/* Adds what `from` has counted. */
void
histogram_merge(Histogram *into, const Histogram *from)
{
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
		into->counts[i] += from->counts[i];
}

/* How many durations it has counted. */
uint64_t
histogram_total(const Histogram *histogram)
{
	uint64_t	total = 0;

	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
		total += histogram->counts[i];
	return total;
}

/*
 * The duration in µs that `share` (0 … 1) of all do not exceed, by nearest
 * rank, off by at most 1/32; negative when none was counted.
 */
double
histogram_quantile(const Histogram *histogram, double share)
{
	uint64_t	total = histogram_total(histogram);
	double		rank = ceil(share * (double) total);
	uint64_t	seen = 0;
	int			last = -1;

	if (!(rank >= 1))
		rank = 1;
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
	{
		if (histogram->counts[i] == 0)
			continue;
		last = i;
		seen += histogram->counts[i];
		if ((double) seen >= rank)
			break;
	}
	return last < 0 ? -1 : histogram_middle(last);
}
