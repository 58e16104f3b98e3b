/*
 * evaluate_numbers.c
 *	  What comes of distances and codes: the metrics, as doc/evaluation.md
 *	  defines them.
 *
 * R1 Each input counts once, however many truths and samples it has: a value is
 *    a mean over inputs of what each of them gives, and its standard error is
 *    that of this mean.
 * R2 Sums are in double, in the order of the inputs: the same numbers come of
 *    the same images.
 * R3 Only the features for MMD are kept of an input; they are counted.
 */
#include "pg/evaluate.h"

#include <math.h>

#include "common/limits.h"
#include "miscadmin.h"
#include "utils/builtins.h"

typedef struct MetricMean
{
	int64 n;
	double mean;
	double squares; /* sum of squared differences from it */
} MetricMean;

/* A number of z as it was drawn, and as it was found. */
typedef struct NumberRead
{
	int64 n;
	double mean[2];
	double squares[2];
	double products;
} NumberRead;

/* For MMD, of a truth. */
typedef struct Features
{
	int64 input;
	float *of[2]; /* sample, truth */
} Features;

struct Numbers
{
	Evaluation *e;
	MemoryContext memory;
	MetricMean metrics[METRICS];
	MetricMean *kl;   /* of each number of z */
	NumberRead *read; /* likewise */
	Features *features;
	int nfeatured, capacity;
	int dimensions; /* of the features */
};

/* ---- Means --------------------------------------------------------------- */

static void
mean_add(MetricMean *m, double value)
{
	double off = value - m->mean;

	m->n++;
	m->mean += off / m->n;
	m->squares += off * (value - m->mean);
}

static double
mean_error(const MetricMean *m)
{
	return m->n < 2 ? NAN : sqrt(m->squares / (m->n - 1) / m->n);
}

static void
read_add(NumberRead *c, double drawn, double found)
{
	double off[2] = { drawn - c->mean[0], found - c->mean[1] };

	c->n++;
	for (int i = 0; i < 2; i++)
		c->mean[i] += off[i] / c->n;
	c->squares[0] += off[0] * (drawn - c->mean[0]);
	c->squares[1] += off[1] * (found - c->mean[1]);
	c->products += off[0] * (found - c->mean[1]);
}

/* Squared; what does not vary tells nothing. */
static double
read_squared(const NumberRead *c)
{
	double squares = c->squares[0] * c->squares[1];

	return squares > 0 ? c->products * c->products / squares : 0;
}

static double
mean_of(const double *values, int n)
{
	double sum = 0;

	for (int i = 0; i < n; i++)
		sum += values[i];
	return sum / n;
}

/* ---- Modes --------------------------------------------------------------- */

/* Of the truths of an input, those that differ. */
typedef struct Modes
{
	int n;
	const Truth **truths;
	double *reach; /* half the way to the nearest other mode */
	int *hits;     /* samples within it */
	int placed;    /* samples within any */
} Modes;

static double
between(const Truth *a, const Truth *b, const Input *input, Measure by)
{
	return a < b ? a->to_truths[by][b - input->truths] : b->to_truths[by][a - input->truths];
}

static bool
is_new_mode(const Modes *modes, const Truth *truth, const Input *input, Measure by)
{
	for (int i = 0; i < modes->n; i++)
		if (between(modes->truths[i], truth, input, by) == 0)
			return false;
	return true;
}

static void
find_modes(Modes *modes, const Input *input, Measure by)
{
	modes->n = modes->placed = 0;
	modes->truths = palloc(input->ntruths * sizeof(Truth *));
	modes->reach = palloc(input->ntruths * sizeof(double));
	modes->hits = palloc0(input->ntruths * sizeof(int));
	for (int i = 0; i < input->ntruths; i++)
		if (!input->truths[i].bad && is_new_mode(modes, &input->truths[i], input, by))
			modes->truths[modes->n++] = &input->truths[i];
	for (int i = 0; i < modes->n; i++)
	{
		modes->reach[i] = INFINITY;
		for (int j = 0; j < modes->n; j++)
			if (j != i)
				modes->reach[i] = Min(modes->reach[i],
									  between(modes->truths[i], modes->truths[j], input, by) / 2);
	}
}

static void
place_samples(Modes *modes, int samples, Measure by)
{
	for (int s = 0; s < samples; s++)
	{
		bool placed = false;

		for (int i = 0; i < modes->n; i++)
			if (modes->truths[i]->to_samples[by][s] < modes->reach[i])
			{
				modes->hits[i]++;
				placed = true;
			}
		modes->placed += placed;
	}
}

/* NaN: it has not several modes. */
static double
share_of_modes(const Evaluation *e, const Input *input, Measure by, bool coverage)
{
	Modes modes;
	int hit = 0;

	find_modes(&modes, input, by);
	if (modes.n < 2)
		return NAN;
	place_samples(&modes, e->samples, by);
	for (int i = 0; i < modes.n; i++)
		hit += modes.hits[i] > 0;
	return coverage ? (double) hit / modes.n : (double) modes.placed / e->samples;
}

/* Likewise: of modes that are the nearest to a sample, however far it is. */
static double
share_of_nearest(const Evaluation *e, const Input *input, Measure by)
{
	Modes modes;
	int reached = 0;

	find_modes(&modes, input, by);
	if (modes.n < 2)
		return NAN;
	for (int s = 0; s < e->samples; s++)
	{
		int nearest = 0;

		for (int i = 1; i < modes.n; i++)
			if (modes.truths[i]->to_samples[by][s] < modes.truths[nearest]->to_samples[by][s])
				nearest = i;
		reached += modes.hits[nearest]++ == 0;
	}
	return (double) reached / modes.n;
}

/* ---- Of one input -------------------------------------------------------- */

static double
kl_of(const Evaluation *e, const Truth *truth, int d)
{
	double mean = truth->posterior[d];
	double logvar = truth->posterior[e->model->nz + d];

	return (mean * mean + expm1(logvar) - logvar) / 2;
}

/* The mean over its truths. */
static double
mean_kl(const Evaluation *e, const Input *input, int d)
{
	double sum = 0;
	int n = 0;

	for (int i = 0; i < input->ntruths; i++)
		if (!input->truths[i].bad)
		{
			sum += kl_of(e, &input->truths[i], d);
			n++;
		}
	return sum / n;
}

static double
total_kl(const Evaluation *e, const Input *input)
{
	double sum = 0;

	for (int d = 0; d < e->model->nz; d++)
		sum += mean_kl(e, input, d);
	return sum;
}

static double
latent_l1(const Evaluation *e, const Input *input)
{
	int nz = e->model->nz;
	double sum = 0;

	for (int s = 0; s < e->samples; s++)
		for (int d = 0; d < nz; d++)
			sum += fabs((double) input->z[(Size) s * nz + d] - input->read[s][d]);
	return sum / e->samples / nz;
}

/*
 * The mean over truths of a reconstruction's distance, or the nearest sample's.
 */
static double
mean_truth(const Evaluation *e, const Input *input, Measure by, bool best)
{
	double sum = 0;
	int n = 0;

	for (int i = 0; i < input->ntruths; i++)
	{
		const Truth *truth = &input->truths[i];
		double nearest = truth->apart[by];

		if (truth->bad)
			continue;
		if (best)
			nearest = truth->to_samples[by][0];
		for (int s = 1; best && s < e->samples; s++)
			nearest = Min(nearest, truth->to_samples[by][s]);
		sum += nearest;
		n++;
	}
	return sum / n;
}

/* NaN: there is nothing of it here. */
static double
value_of(const Evaluation *e, const Input *input, Metric metric)
{
	switch (metric)
	{
		case METRIC_DIVERSITY_LPIPS:
			return mean_of(input->steps[BY_LPIPS], e->samples - 1);
		case METRIC_DIVERSITY_L1:
			return mean_of(input->steps[BY_L1], e->samples - 1);
		case METRIC_COLLAPSE_SHARE:
			return mean_of(input->steps[BY_L1], e->samples - 1) < BICYCLE_COLLAPSE;
		case METRIC_RECONSTRUCTION_LPIPS:
			return mean_truth(e, input, BY_LPIPS, false);
		case METRIC_RECONSTRUCTION_L1:
			return mean_truth(e, input, BY_L1, false);
		case METRIC_LATENT_L1:
			return latent_l1(e, input);
		case METRIC_KL:
			return total_kl(e, input);
		case METRIC_BEST_LPIPS:
			return mean_truth(e, input, BY_LPIPS, true);
		case METRIC_BEST_L1:
			return mean_truth(e, input, BY_L1, true);
		case METRIC_COVERAGE_LPIPS:
			return share_of_modes(e, input, BY_LPIPS, true);
		case METRIC_PRECISION_LPIPS:
			return share_of_modes(e, input, BY_LPIPS, false);
		case METRIC_COVERAGE_L1:
			return share_of_modes(e, input, BY_L1, true);
		case METRIC_PRECISION_L1:
			return share_of_modes(e, input, BY_L1, false);
		case METRIC_REACHED_L1:
			return share_of_nearest(e, input, BY_L1);
		case METRIC_LATENT_READ:
		case METRIC_MMD:
		case METRICS:
			break;
	}
	return 0; /* of all inputs together */
}

static void
add_read(Numbers *numbers, const Input *input)
{
	int nz = numbers->e->model->nz;

	for (int s = 0; s < numbers->e->samples; s++)
		for (int d = 0; d < nz; d++)
			read_add(&numbers->read[d], input->z[(Size) s * nz + d], input->read[s][d]);
}

static void
add_features(Numbers *numbers, const Input *input, const Truth *truth)
{
	Evaluation *e = numbers->e;
	Size bytes = truth->nfeatures * sizeof(float);
	Features *features;

	numbers->dimensions = truth->nfeatures;
	evaluation_hold(e, &e->kept, sizeof(Features) + 2 * bytes);
	if (numbers->nfeatured == numbers->capacity)
	{
		numbers->capacity *= 2;
		numbers->features =
			repalloc_huge(numbers->features, (Size) numbers->capacity * sizeof(Features));
	}
	features = &numbers->features[numbers->nfeatured++];
	features->input = input->number;
	for (int i = 0; i < 2; i++)
	{
		features->of[i] = MemoryContextAlloc(numbers->memory, Max(bytes, 1));
		memcpy(features->of[i], truth->features[i], bytes);
	}
}

Numbers *
numbers_begin(Evaluation *e)
{
	Numbers *numbers = palloc0(sizeof(Numbers));

	numbers->e = e;
	numbers->memory = CurrentMemoryContext;
	numbers->kl = palloc0(Max(e->model->nz, 1) * sizeof(MetricMean));
	numbers->read = palloc0(Max(e->model->nz, 1) * sizeof(NumberRead));
	numbers->capacity = 64;
	numbers->features = palloc(numbers->capacity * sizeof(Features));
	return numbers;
}

void
numbers_add(Numbers *numbers, const Input *input)
{
	Evaluation *e = numbers->e;
	const bool *wants = e->options.wants;

	for (int metric = 0; metric < METRICS; metric++)
	{
		double value = wants[metric] ? value_of(e, input, metric) : NAN;

		if (!isnan(value))
			mean_add(&numbers->metrics[metric], value);
	}
	if (wants[METRIC_LATENT_READ])
		add_read(numbers, input);
	for (int d = 0; wants[METRIC_KL] && d < e->model->nz; d++)
		mean_add(&numbers->kl[d], mean_kl(e, input, d));
	for (int i = 0; wants[METRIC_MMD] && i < input->ntruths; i++)
		if (!input->truths[i].bad)
			add_features(numbers, input, &input->truths[i]);
}

/* ---- MMD ----------------------------------------------------------------- */

/* The kernel of KID. */
static double
kernel(const float *x, const float *y, int n)
{
	double dot = 0;

	for (int i = 0; i < n; i++)
		dot += (double) x[i] * y[i];
	dot = dot / n + 1;
	return dot * dot * dot;
}

typedef struct PairSum
{
	double sum;
	int64 n;
} PairSum;

static double
pair_term(const Numbers *numbers, const Features *i, const Features *j)
{
	int n = numbers->dimensions;

	return kernel(i->of[0], j->of[0], n) + kernel(i->of[1], j->of[1], n) -
		   kernel(i->of[0], j->of[1], n) - kernel(i->of[1], j->of[0], n);
}

/*
 * Squared MMD over pairs of different inputs, without bias; its error by
 * leaving out one input after the other.
 */
static double
mmd_of(const Numbers *numbers, double *error)
{
	int64 ninputs = numbers->metrics[METRIC_MMD].n;
	PairSum all = { 0 };
	PairSum *of = palloc0(Max(ninputs, 1) * sizeof(PairSum)); /* that have one end in an input */
	int *place = palloc(Max(numbers->nfeatured, 1) * sizeof(int));
	MetricMean left = { 0 };

	for (int i = 0, at = -1; i < numbers->nfeatured; i++)
		place[i] =
			i > 0 && numbers->features[i].input == numbers->features[i - 1].input ? at : ++at;
	for (int i = 0; i < numbers->nfeatured; i++)
	{
		CHECK_FOR_INTERRUPTS();
		for (int j = i + 1; j < numbers->nfeatured; j++)
		{
			PairSum *sums[3] = { &all, &of[place[i]], &of[place[j]] };
			double term;

			if (place[i] == place[j])
				continue;
			term = pair_term(numbers, &numbers->features[i], &numbers->features[j]);
			for (int k = 0; k < 3; k++)
			{
				sums[k]->sum += term;
				sums[k]->n++;
			}
		}
	}
	for (int64 i = 0; ninputs > 2 && i < ninputs; i++)
		mean_add(&left, (all.sum - of[i].sum) / (all.n - of[i].n));
	*error = ninputs > 2 ? sqrt(left.squares * (ninputs - 1) / ninputs) : NAN;
	return all.n > 0 ? all.sum / all.n : NAN;
}

/* ---- Rows ---------------------------------------------------------------- */

static void
put_metric(Tuplestorestate *store, TupleDesc desc, const char *name, double value, double error,
		   int64 n)
{
	Datum values[4] = { CStringGetTextDatum(name), Float8GetDatum(value), Float8GetDatum(error),
						Int64GetDatum(n) };
	bool nulls[4] = { false, n == 0 || isnan(value), n == 0 || isnan(error), false };

	tuplestore_putvalues(store, desc, values, nulls);
}

static void
put_numbers(const Numbers *numbers, Metric metric, Tuplestorestate *store, TupleDesc desc)
{
	for (int d = 0; d < numbers->e->model->nz; d++)
	{
		const char *name = psprintf("%s_%d", metric_kinds[metric].name, d + 1);

		if (metric == METRIC_KL)
			put_metric(store, desc, name, numbers->kl[d].mean, mean_error(&numbers->kl[d]),
					   numbers->kl[d].n);
		else if (metric == METRIC_LATENT_READ)
			put_metric(store, desc, name, read_squared(&numbers->read[d]), NAN,
					   numbers->metrics[metric].n);
	}
}

static double
sum_of_read(const Numbers *numbers)
{
	double sum = 0;

	for (int d = 0; d < numbers->e->model->nz; d++)
		sum += read_squared(&numbers->read[d]);
	return sum;
}

/* What has nothing to tell of has a row if it was asked for by name. */
void
numbers_rows(Numbers *numbers, Tuplestorestate *store, TupleDesc desc)
{
	const EvaluateOptions *options = &numbers->e->options;

	for (int metric = 0; metric < METRICS; metric++)
	{
		const MetricMean *m = &numbers->metrics[metric];
		double value = m->mean;
		double error = mean_error(m);

		if (!options->wants[metric] || (m->n == 0 && !options->named))
			continue;
		if (metric == METRIC_MMD)
			value = mmd_of(numbers, &error);
		else if (metric == METRIC_LATENT_READ)
		{
			value = sum_of_read(numbers);
			error = NAN;
		}
		put_metric(store, desc, metric_kinds[metric].name, value, error, m->n);
		if (options->numbers)
			put_numbers(numbers, metric, store, desc);
	}
}
