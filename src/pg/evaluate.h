/*
 * evaluate.h
 *	  What measures a model: its options, the inputs, what is asked of the
 *	  engine about them, and the numbers that come of it.
 *
 * doc/evaluation.md defines each metric. One process, no threads. An input and
 * all that belongs to it lie in the context of the wave that it is measured in.
 */
#ifndef BICYCLE_EVALUATE_H
#define BICYCLE_EVALUATE_H

#include "pg/bicycle.h"

#include "utils/tuplestore.h"

#include "pg/catalog.h"

/* ---- Metrics ------------------------------------------------------------- */

#define NEEDS_LPIPS 1
#define NEEDS_ENCODER 2
#define NEEDS_SAMPLES 4 /* two of an input at least, and so a latent code */
#define NEEDS_CODE 8    /* nz > 0 */
#define NEEDS_MODES 16  /* inputs of several truths */

/* In the order of the result's rows. */
#define EVALUATE_METRICS(METRIC)                                                    \
	METRIC(DIVERSITY_LPIPS, diversity_lpips, NEEDS_LPIPS | NEEDS_SAMPLES)           \
	METRIC(DIVERSITY_L1, diversity_l1, NEEDS_SAMPLES)                               \
	METRIC(COLLAPSE_SHARE, collapse_share, NEEDS_SAMPLES)                           \
	METRIC(RECONSTRUCTION_LPIPS, reconstruction_lpips, NEEDS_LPIPS | NEEDS_ENCODER) \
	METRIC(RECONSTRUCTION_L1, reconstruction_l1, NEEDS_ENCODER)                     \
	METRIC(LATENT_L1, latent_l1, NEEDS_ENCODER | NEEDS_CODE)                        \
	METRIC(LATENT_READ, latent_read, NEEDS_ENCODER | NEEDS_CODE)                    \
	METRIC(KL, kl, NEEDS_ENCODER | NEEDS_CODE)                                      \
	METRIC(BEST_LPIPS, best_lpips, NEEDS_LPIPS)                                     \
	METRIC(BEST_L1, best_l1, 0)                                                     \
	METRIC(COVERAGE_LPIPS, coverage_lpips, NEEDS_LPIPS | NEEDS_MODES)               \
	METRIC(PRECISION_LPIPS, precision_lpips, NEEDS_LPIPS | NEEDS_MODES)             \
	METRIC(COVERAGE_L1, coverage_l1, NEEDS_MODES)                                   \
	METRIC(PRECISION_L1, precision_l1, NEEDS_MODES)                                 \
	METRIC(REACHED_L1, reached_l1, NEEDS_MODES)                                     \
	METRIC(MMD, mmd, NEEDS_LPIPS)

#define METRIC_ID(ID, name, needs) METRIC_##ID,
typedef enum Metric
{
	EVALUATE_METRICS(METRIC_ID) METRICS
} Metric;
#undef METRIC_ID

typedef struct MetricKind
{
	const char *name;
	unsigned needs;
} MetricKind;

extern const MetricKind metric_kinds[METRICS];

/* How two images are compared. */
typedef enum Measure
{
	BY_L1,
	BY_LPIPS,
	MEASURES
} Measure;

/* ---- Options (evaluate_options.c) ---------------------------------------- */

typedef struct EvaluateOptions
{
	bool wants[METRICS];
	bool named;  /* by the option "metrics": what cannot be measured is an error */
	int inputs;  /* at most */
	int samples; /* of each */
	int64 seed;
	int version;     /* 0: the current one */
	const char *net; /* of LPIPS, and its version */
	const char *lpips;
	bool skip; /* bad pairs */
	bool side_by_side;
	bool numbers; /* of z, each in a row of its own */
} EvaluateOptions;

/* 22023, with the option's name. */
extern void evaluate_options_read(FunctionCallInfo fcinfo, int argument, EvaluateOptions *options);

/* ---- What is measured ---------------------------------------------------- */

/* What is not to be measured is NULL, or not set. */
typedef struct Truth
{
	const char *place; /* for errors */
	bytea *file;
	bool bad;                     /* it is left out */
	float *posterior;             /* mean and logarithm of variance, nz values each */
	bytea *image;                 /* of the samples' size and channels */
	bytea *reconstruction;        /* of that code */
	double apart[MEASURES];       /* from that */
	double *to_samples[MEASURES]; /* from each sample */
	double *to_truths[MEASURES];  /* from each truth of the input, where that comes later */
	float *features[2];           /* of the sample that stands for it, and its own */
	int nfeatures;
} Truth;

typedef struct Input
{
	int64 number; /* from 0 */
	bytea *file;
	bool bad;
	int ntruths;
	Truth *truths;
	float *z;                /* (samples, nz) */
	bytea **samples;         /* images */
	float **read;            /* of each sample, as Truth.posterior */
	double *steps[MEASURES]; /* from each sample to the next */
} Input;

typedef struct Evaluation
{
	EvaluateOptions options;
	Model *model;
	Model *lpips;   /* NULL: without */
	int samples;    /* of an input */
	int64 npairs;   /* looked at */
	int64 nskipped; /* of them */
	StringInfoData reasons;
	int nreasons;
	Size held;  /* bytes of images in this wave, and of what is asked about them */
	Size kept;  /* and of what stays until the end */
	Size limit; /* of both */
} Evaluation;

/* evaluation.c: whether a metric needs one of these, and is wanted. */
extern bool evaluation_wants(const Evaluation *e, unsigned needs);

/* Adds to held or kept. 54000 beyond the limit. */
extern void evaluation_hold(Evaluation *e, Size *count, Size bytes);

/* A pair is left out; its reason is told at the end. */
extern void evaluation_skip(Evaluation *e, const char *place, const char *message,
							const char *detail);

/* ---- Inputs (evaluate_inputs.c) ------------------------------------------ */

typedef struct Inputs Inputs;

/*
 * Runs the query as the caller, read-only, and keeps what it gives, in memory
 * up to work_mem and then on disk. 42601, 42804: pairs_query.h. 22004, 54000
 * for a pair that lacks an image, unless such are skipped.
 */
extern Inputs *inputs_open(Evaluation *e, const char *query);

/* The next one, in CurrentMemoryContext; NULL: there is none. */
extern Input *inputs_next(Inputs *inputs);
extern void inputs_close(Inputs *inputs);
extern int64 inputs_count(const Inputs *inputs);

/* ---- A wave (evaluate_wave.c) -------------------------------------------- */

/*
 * Has the engine make and compare everything about these inputs, in
 * CurrentMemoryContext. What cannot be used is an error, or marked as bad.
 */
extern void wave_run(Evaluation *e, Input **inputs, int n);

/* ---- Numbers (evaluate_numbers.c) ---------------------------------------- */

typedef struct Numbers Numbers;

/* In CurrentMemoryContext, as is what it comes to keep. */
extern Numbers *numbers_begin(Evaluation *e);
extern void numbers_add(Numbers *numbers, const Input *input);
extern void numbers_rows(Numbers *numbers, Tuplestorestate *store, TupleDesc desc);

#endif /* BICYCLE_EVALUATE_H */
