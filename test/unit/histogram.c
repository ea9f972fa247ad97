/*
 * histogram.c
 *	  Unit test of src/policy/histogram.c, in TAP.
 */
#include "policy/histogram.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUES 1000
#define LARGEST INT64_C(4294967295)	/* µs; longer ones share its bucket */

static int	tests;
static int	failed;

static void
ok(bool holds, const char *name)
{
	printf("%sok %d - %s\n", holds ? "" : "not ", ++tests, name);
	failed += !holds;
}

static double
relative_error(double got, double expected)
{
	return expected == 0 ? got : fabs(got - expected) / expected;
}

/* From 1 µs to 71 minutes, each magnitude as likely as another. */
static int64_t
random_us(void)
{
	return (int64_t) pow(2.0, 32 * drand48());
}

static void
test_layout(void)
{
	int			wrong = 0;
	int			before = -1;
	double		worst = 0;

	for (int bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++)
		if (histogram_bucket((int64_t) histogram_middle(bucket)) != bucket)
			wrong++;
	ok(wrong == 0, "a bucket's middle lies in it");

	wrong = 0;
	for (int64_t us = 0; us <= LARGEST; us += us / 1000 + 1)
	{
		int			bucket = histogram_bucket(us);

		if (bucket < before || bucket > before + 1)
			wrong++;
		before = bucket;
	}
	ok(wrong == 0, "buckets follow each other without a gap");
	ok(histogram_bucket(LARGEST) == HISTOGRAM_BUCKETS - 1, "the last is reached");
	ok(histogram_bucket(INT64_MAX) == HISTOGRAM_BUCKETS - 1, "and takes what is longer");
	ok(histogram_bucket(-5) == 0, "a negative duration is none");

	srand48(7);
	for (int i = 0; i < VALUES; i++)
	{
		int64_t		us = random_us();
		double		error = relative_error(histogram_middle(histogram_bucket(us)), us);

		if (error > worst)
			worst = error;
	}
	printf("# worst of %d values is off by %.2f %%\n", VALUES, 100 * worst);
	ok(worst <= 1 / 32.0, "no value is off by more than 1/32");
}

static int
compare(const void *a, const void *b)
{
	int64_t		x = *(const int64_t *) a;
	int64_t		y = *(const int64_t *) b;

	return (x > y) - (x < y);
}

static void
test_quantiles(void)
{
	static const double shares[] = {0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1};
	static Histogram histogram;
	static int64_t values[VALUES];
	double		worst = 0;
	double		before = -1;
	bool		grow = true;

	ok(histogram_quantile(&histogram, 0.5) < 0, "of nothing there is no quantile");
	srand48(42);
	for (int i = 0; i < VALUES; i++)
	{
		values[i] = random_us();
		histogram_add(&histogram, values[i]);
	}
	qsort(values, VALUES, sizeof(values[0]), compare);
	ok(histogram_total(&histogram) == VALUES, "every value is counted");
	for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++)
	{
		int			rank = (int) ceil(shares[i] * VALUES);
		double		exact = values[rank > 0 ? rank - 1 : 0];
		double		got = histogram_quantile(&histogram, shares[i]);

		if (relative_error(got, exact) > worst)
			worst = relative_error(got, exact);
		grow &= got >= before;
		before = got;
	}
	printf("# worst quantile of %d values is off by %.2f %%\n", VALUES, 100 * worst);
	ok(worst <= 1 / 32.0, "no quantile is off by more than 1/32");
	ok(grow, "quantiles grow with their share");
	ok(histogram_quantile(&histogram, NAN) == histogram_quantile(&histogram, 0), "a share that is none is 0");
	ok(histogram_quantile(&histogram, 7) == histogram_quantile(&histogram, 1), "a share over 1 is 1");
}

static void
test_merge(void)
{
	static Histogram a;
	static Histogram b;

	for (int i = 0; i < 100; i++)
		histogram_add(i < 50 ? &a : &b, 10 * (i + 1));
	histogram_merge(&a, &b);
	ok(histogram_total(&a) == 100, "merged ones count together");
	ok(relative_error(histogram_quantile(&a, 0.5), 500) <= 1 / 32.0, "and have a common median");
}

int
main(void)
{
	test_layout();
	test_quantiles();
	test_merge();
	printf("1..%d\n", tests);
	return failed != 0;
}
