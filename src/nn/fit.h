/*
 * fit.h
 *	  Training of the six systems of the paper: what the engine calls to train a
 *	  model on a device.
 *
 * R1 The state of a run is flat arrays (parameters, Adam's moments, averages if
 *    asked for), batch norms' counts and one integer: random numbers are a
 *    function of (options.seed, iteration), and which images come is the
 *    caller's affair.
 * R2 A fit is called by its device's owner, and closed before the device.
 *
 * Source: the official code's models/bicycle_gan_model.py, whose HEAD is
 * followed step by step (generator and encoder first, then the discriminators
 * on the same fakes); for the other systems the definitions of doc/training.md.
 */
#ifndef BICYCLE_NN_FIT_H
#define BICYCLE_NN_FIT_H

#include "nn/nn.h"

typedef enum NnMethod
{
#define ROW(id, name) NN_METHOD_##id,
	BICYCLE_METHODS(ROW)
#undef ROW
} NnMethod;

typedef enum NnGanMode
{
	NN_GAN_LSGAN,
	NN_GAN_VANILLA
} NnGanMode;

typedef enum NnLrPolicy
{
	NN_LR_LINEAR,
	NN_LR_STEP,
	NN_LR_COSINE
} NnLrPolicy;

/* What the model gets: the last weights, or those that were measured best. */
typedef enum NnKeep
{
	NN_KEEP_LAST,
	NN_KEEP_BEST
} NnKeep;

typedef enum NnMeasure
{
#define ROW(id, name) NN_MEASURE_##id,
	BICYCLE_MEASURES(ROW)
#undef ROW
	NN_MEASURES
} NnMeasure;

/* What of an image discriminators see varied: a sum of these. */
typedef enum NnDiffAugment
{
	NN_DIFF_AUGMENT_NONE,
	NN_DIFF_AUGMENT_COLOR = 1,
	NN_DIFF_AUGMENT_TRANSLATION = 2,
	NN_DIFF_AUGMENT_CUTOUT = 4
} NnDiffAugment;

#define NN_MAX_QUERY 8000 /* bytes of one that is an option */

typedef enum NnBadPairs
{
	NN_BAD_PAIRS_ERROR,
	NN_BAD_PAIRS_SKIP
} NnBadPairs;

/*
 * The options of a run; those that shape the networks are in NnConfig. Both are
 * filled from one JSON object by one table (config.c).
 */
typedef struct NnTrainOptions
{
	NnMethod method;
	NnGanMode gan_mode;
	bool same_d;  /* one discriminator for both branches */
	bool dropout; /* in the up path of G, as the official scripts have it */
	double lambda_l1, lambda_gan, lambda_gan2, lambda_z, lambda_kl;
	double lr, beta1;
	NnLrPolicy lr_policy;
	int epochs,         /* at the full rate */
		epochs_decay;   /* of linear decay after them */
	int64_t iterations; /* of the whole run; 0: by epochs */
	int batch_size;
	int load_size; /* images are resized to this and cropped to config.size */
	bool flip;
	NnInit init_type;
	double init_gain;
	uint64_t seed;
	double ema;               /* decay of the averaged weights; 0: none */
	int64_t checkpoint_every, /* iterations; 0: by time alone */
		preview_every;
	NnBadPairs bad_pairs;
	bool side_by_side; /* A and B are halves of one image */
	int accumulate;    /* parts in which a batch is computed */
	char validation[NN_MAX_QUERY + 1];
	int64_t validate_every; /* iterations; 0: an epoch */
	NnKeep keep;
	NnMeasure keep_metric;
	int patience;  /* validations without a better one that end the run; 0: none do */
	double jitter; /* colours of B, and of A too with jitter_both */
	bool jitter_both;
	double rotate, /* degrees, at most */
		scale;     /* at most, of 1 */
	NnDiffAugment diff_augment;
} NnTrainOptions;

/*
 * Reads options of both kinds from JSON over the defaults of the method (its
 * preset is applied first, what the object says overrides it). Unknown keys,
 * wrong types, values out of range, and combinations that make no sense or
 * leave a network without gradient are NN_EINVAL.
 */
extern NnStatus nn_train_options_parse(NnConfig *config, NnTrainOptions *options, const char *json,
									   size_t length, NnError *error);

/* The same of bicycle_create's: a model's, and init_type, init_gain, seed. */
extern NnStatus nn_create_options_parse(NnConfig *config, NnTrainOptions *options, const char *json,
										size_t length, NnError *error);

/* All as canonical JSON, which parses to the same; malloc'ed, or NULL. */
extern char *nn_train_options_print(const NnConfig *config, const NnTrainOptions *options);

/* Whether the networks are such that there is that to be measured. */
extern bool nn_measure_exists(const NnConfig *config, NnMeasure metric);

/* Whether one value of it is better than another. */
extern bool nn_measure_better(NnMeasure metric, double value, double than);

/* Which networks the method trains: a mask of 1 << NN_NET_G ... */
extern unsigned nn_train_networks(const NnConfig *config, const NnTrainOptions *options);

typedef enum NnLoss
{
#define ROW(id, name) NN_LOSS_##id,
	BICYCLE_LOSSES(ROW)
#undef ROW
	NN_LOSSES
} NnLoss;

static inline const char *
nn_loss_name(NnLoss loss)
{
	return bicycle_loss_names[loss];
}

typedef struct NnLosses
{
	double value[NN_LOSSES];
	bool present[NN_LOSSES]; /* terms that the method and its lambdas have */
} NnLosses;

/*
 * Random numbers for one step given by the caller instead of drawn; for tests.
 * Each (n, nz) of the branch it is for; NULL: drawn.
 */
typedef struct NnNoise
{
	const float *eps;
	const float *z;
} NnNoise;

typedef struct NnFit NnFit;

/*
 * What a run trains in: what config says. With "auto" it is `before`, what an
 * earlier run of the same job took, where the device can; with
 * NN_PRECISION_AUTO for `before`, what is faster on the device.
 */
extern NnPrecision nn_train_precision(const NnDevice *device, const NnConfig *config,
									  NnPrecision before);

/*
 * tensors: weights to start from, of any of the method's networks; networks of
 * which no tensor is given start from options->init_type and seed. `rows` is
 * the number of pairs, from which the learning rate knows its epochs (at least
 * batch_size). With bf16 weights, inputs and gradients of outputs are rounded
 * for the products of convolutions and linear layers; sums, weights, moments
 * and all else stay in fp32.
 */
extern NnStatus nn_fit_open(NnDevice *device, const NnConfig *config, const NnTrainOptions *options,
							NnPrecision precision, int64_t rows, const NnTensor *tensors,
							int ntensors, NnFit **fit, NnError *error);
extern void nn_fit_close(NnFit *fit);

/*
 * What looks at a fit while it trains: previews and validation at up to
 * `images` of its own images at a time; and what compares those with targets, a
 * model of `pairs` at a time, at the networks' size.
 */
typedef struct NnFitLooks
{
	int images;
	const NnConfig *metric; /* NULL: none */
	int pairs;
} NnFitLooks;

/*
 * What a fit will take of the device's memory, before any is taken; at most, as
 * work space of libraries is counted by its limit. Of the caller's memory only
 * the numbers of what is read from it are told: on a GPU what else looks take
 * there, images on their way, is not.
 */
typedef struct NnFitNeeds
{
	size_t bytes, /* of the fit and of what looks at it */
		fit,      /* of these the fit's */
		copy;     /* besides: of a snapshot, which it can do without */
	size_t state, /* of the caller's memory: of NN_FIT_STATE, */
		version;  /* and of NN_FIT_VERSION */
} NnFitNeeds;

extern NnStatus nn_fit_estimate(NnDevice *device, const NnConfig *config,
								const NnTrainOptions *options, NnPrecision precision,
								const NnFitLooks *looks, NnFitNeeds *needs, NnError *error);

/* What it has taken. */
extern size_t nn_fit_bytes(const NnFit *fit);

/* Iterations done; those of the whole run. */
extern int64_t nn_fit_iteration(const NnFit *fit);
extern int64_t nn_fit_iterations(const NnFit *fit);

/*
 * One iteration; its parts, if options->accumulate is above 1, add up to the
 * batch's losses and gradients. a: (batch_size, size, size, input_nc), b:
 * (batch_size, size, size, output_nc), in [-1, 1]. noise may be NULL. NN_EINVAL
 * if a loss is not finite: the run cannot go on from this state under these
 * options.
 */
extern NnStatus nn_fit_step(NnFit *fit, const float *a, const float *b, const NnNoise *noise,
							NnLosses *losses, NnError *error);

/*
 * The same in two halves. At most nn_fit_ahead() iterations may be open when
 * one is started: of a device that works beside the caller 1, else 0. They are
 * finished in order, and nothing else may be asked of the fit but what it has
 * counted while one is open. If one has diverged, none of those after it count.
 */
extern NnStatus nn_fit_start(NnFit *fit, const float *a, const float *b, const NnNoise *noise,
							 NnError *error);
extern NnStatus nn_fit_finish(NnFit *fit, NnLosses *losses, NnError *error);
extern int nn_fit_ahead(const NnFit *fit);
extern int nn_fit_open_steps(const NnFit *fit);

/*
 * Where the next iteration reads a and b, for the caller to fill in place of
 * arrays of its own; false if they must be converted.
 */
extern bool nn_fit_feeds(NnFit *fit, float **a, float **b);

/* What there is to be read of a fit. */
typedef enum NnFitPart
{
	/*
	 * parameters and buffers under their names, and with a prefix "m.", "v."
	 * and "ema." the moments and averages
	 */
	NN_FIT_STATE,
	/* G and E, averaged with ema, and discriminators; in the hash's order */
	NN_FIT_VERSION
} NnFitPart;

/*
 * Tensors to be read one by one, by nn_snapshot_read, which copies the numbers
 * of one to the caller: NN_EINVAL if one is not finite. Their names are the
 * fit's, and their data does not count. No iteration is open when it is made.
 *
 * A view is of the fit as it is, and to be read and freed before anything else
 * is asked of that. A snapshot is the state as it is now, on a device that
 * copies it within its memory and gives it away while the fit goes on; it may
 * be read and freed by another thread, before the fit is closed. NN_ENOMEM:
 * there is no room for a copy.
 */
typedef struct NnFitSnapshot NnFitSnapshot;

extern NnStatus nn_fit_view(NnFit *fit, NnFitPart part, NnFitSnapshot **view, NnError *error);

extern bool nn_fit_has_snapshots(const NnFit *fit);
extern NnStatus nn_fit_snapshot(NnFit *fit, NnFitSnapshot **snapshot, NnError *error);
extern int64_t nn_snapshot_iteration(const NnFitSnapshot *snapshot);
extern const NnTensor *nn_snapshot_tensors(const NnFitSnapshot *snapshot, int *ntensors);
extern NnStatus nn_snapshot_read(const NnFitSnapshot *snapshot, int tensor, void *data,
								 NnError *error);
extern void nn_snapshot_free(NnFitSnapshot *snapshot); /* NULL: nothing */

/* Puts a whole state back. The next step is that of `iteration` + 1. */
extern NnStatus nn_fit_restore(NnFit *fit, const NnTensor *tensors, int ntensors, int64_t iteration,
							   NnError *error);

/*
 * The networks as at inference (no dropout, running statistics), with the
 * weights of NN_FIT_VERSION, in fp32; on a GPU, which they do not leave, in the
 * fit's precision. For previews, validation and the watch on diversity.
 */
extern NnStatus nn_fit_translate(NnFit *fit, int n, const float *a, const float *z, float *out,
								 NnError *error);
extern NnStatus nn_fit_encode(NnFit *fit, int n, const float *b, float *mu, float *logvar,
							  NnError *error);
/* The same of bytes, as nn_model_translate and nn_model_encode. */
extern NnStatus nn_fit_translate_bytes(NnFit *fit, int n, const uint8_t *a, const float *z,
									   uint8_t *out, NnError *error);
extern NnStatus nn_fit_encode_bytes(NnFit *fit, int n, const uint8_t *b, float *mu, float *logvar,
									NnError *error);

#endif /* BICYCLE_NN_FIT_H */
