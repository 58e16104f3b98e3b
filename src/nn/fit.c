/*
 * fit.c
 *	  A fit: arrays of a method's networks on a device, one planned
 *	  iteration, and the number of those done.
 *
 * A fit owns its tables, its plan and what the device keeps for it, names of
 * the state's tensors, and a model for previews that is loaded from the current
 * weights when first asked for after a step.
 */
#include "nn/fit_private.h"
#include "nn/model_private.h"
#include "nn/params.h"
#include "common/invariant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int64_t
nn_fit_iteration(const NnFit *t)
{
	return t->iteration - t->open;
}

int64_t
nn_fit_iterations(const NnFit *t)
{
	return nn_run_iterations(&t->options, t->rows);
}

size_t
nn_fit_bytes(const NnFit *t)
{
	return t->training.plan.arena_elements *
			   nn_training_sizes(t->device, t->training.plan.precision).element +
		   t->training.plan.device_bytes;
}

NnTraining *
nn_fit_training(NnFit *t)
{
	return &t->training;
}

const NnParams *
nn_fit_params(const NnFit *t)
{
	return &t->params;
}

/* ---- Opening ------------------------------------------------------------- */

void
nn_fit_close(NnFit *t)
{
	if (!t)
		return;
	nn_model_free(t->preview);
	t->ops->release(t->device, &t->training);
	nn_plan_free(&t->training.plan);
	nn_iteration_free(&t->it);
	for (int i = 0; t->names && i < FIT_PARTS * t->params.n; i++)
		free(t->names[i]);
	free(t->names);
	free(t->bound);
	free(t->tracked);
	free(t->feed_memory);
	nn_params_free(&t->params);
	free(t);
}

NnPrecision
nn_train_precision(const NnDevice *device, const NnConfig *config, NnPrecision before)
{
	const NnTrainDevice *train = device->train;

	if (config->precision != NN_PRECISION_AUTO)
		return config->precision;
	if (before == NN_PRECISION_FP32 || !train)
		return NN_PRECISION_FP32;
	if (before == NN_PRECISION_BF16 && train->trains_in(device, before))
		return NN_PRECISION_BF16;
	return train->automatic(device);
}

static NnStatus
check_open(const NnDevice *device, const NnConfig *config, const NnTrainOptions *options,
		   NnPrecision precision, int64_t rows, NnError *error)
{
	NnStatus status = nn_train_options_check(config, options, error);

	if (status != NN_OK)
		return status;
	if (!device->train)
		return nn_fail(error, NN_EUNSUPPORTED, "device \"%s\" cannot train", device->name);
	if (!device->train->trains_in(device, precision))
	{
		nn_fail(error, NN_EUNSUPPORTED, "device \"%s\" cannot train in %s", device->name,
				nn_precision_name(precision));
		nn_hint(error, "Use precision fp32 or auto.");
		return NN_EUNSUPPORTED;
	}
	if (rows < options->batch_size)
	{
		nn_fail(error, NN_EINVAL, "%lld pairs are fewer than batch_size %d", (long long) rows,
				options->batch_size);
		nn_detail(error, "Incomplete batches are left out, so nothing would be learnt.");
		return NN_EINVAL;
	}
	return NN_OK;
}

/* Floats of G and E, which come first in the table. */
static size_t
averaged_floats(const NnParams *params)
{
	size_t end = 0;

	for (int i = 0; i < params->n; i++)
		if (params->list[i].network == NN_NET_G || params->list[i].network == NN_NET_E)
			end = params->list[i].offset + params->list[i].count;
	return end;
}

static NnStatus
make_names(NnFit *t, NnError *error)
{
	t->names = calloc((size_t) FIT_PARTS * t->params.n + 1, sizeof(char *));
	t->tracked = calloc(t->params.n + 1, sizeof(int64_t));
	if (!t->names || !t->tracked)
		return nn_no_memory(error, (size_t) FIT_PARTS * t->params.n * sizeof(char *));
	for (int part = 0; part < FIT_PARTS; part++)
		for (int i = 0; i < t->params.n; i++)
		{
			char name[512];

			snprintf(name, sizeof(name), "%s%s", fit_parts[part].prefix, t->params.list[i].name);
			t->names[part * t->params.n + i] = strdup(name);
			if (!t->names[part * t->params.n + i])
				return nn_no_memory(error, strlen(name));
		}
	return NN_OK;
}

#define FEED_ALIGN ((size_t) 256)

/* Places of the feeds, and memory if the device gives none. */
static NnStatus
lay_out_feeds(NnFit *t, NnError *error)
{
	size_t pixels = (size_t) t->config.size * t->config.size * t->options.batch_size;
	size_t images = (size_t) nn_iteration_codes(&t->it), codes = images * t->config.nz;
	bool varied = t->options.diff_augment != NN_DIFF_AUGMENT_NONE;
	size_t counts[NN_SOURCES] = { [NN_SOURCE_A] = nn_mul(pixels, t->config.input_nc),
								  [NN_SOURCE_B] = nn_mul(pixels, t->config.output_nc),
								  [NN_SOURCE_EPS] = codes,
								  [NN_SOURCE_Z] = codes,
								  [NN_SOURCE_AUGMENT] =
									  varied ? images * NN_EXHIBITS * NN_AUGMENT_NUMBERS : 0 };
	size_t bytes = 0;

	for (int i = 0; i < NN_SOURCES; i++)
	{
		t->feeds[i] = bytes;
		bytes =
			nn_sum(bytes, nn_sum(nn_mul(counts[i], nn_dtype_size(t->ops->dtype)), FEED_ALIGN - 1) /
							  FEED_ALIGN * FEED_ALIGN);
	}
	t->training.feed_bytes = bytes;
	t->bound = calloc((size_t) t->it.passes * t->it.ninputs + 1, sizeof(NnFeed));
	if (!t->bound)
		return nn_no_memory(error, (size_t) t->it.passes * t->it.ninputs * sizeof(NnFeed));
	if (t->ops->ahead)
		return NN_OK;
	t->feed_memory = bytes < SIZE_MAX ? malloc(bytes + 1) : NULL;
	return t->feed_memory ? NN_OK : nn_no_memory(error, bytes);
}

/* Where the next iteration takes a source from. */
static void *
feed_of(NnFit *t, NnSource source)
{
	char *memory = t->ops->ahead ? t->ops->ahead->feeds(t->device, &t->training) : t->feed_memory;

	return memory + t->feeds[source];
}

static NnStatus
plan_iteration(NnFit *t, NnPrecision precision, NnError *error)
{
	NnTraining *training = &t->training;
	NnStatus status;

	nn_iteration_build(&t->it, &t->config, &t->options, &t->params);
	training->schedule = t->it.schedule;
	training->plan = (NnPlan){ .graph = &t->it.graph,
							   .device = t->device,
							   .precision = precision,
							   .schedule = &training->schedule };
	training->params = &t->params;
	training->seed = t->options.seed;
	training->passes = t->it.passes;
	training->nema = t->options.ema > 0 ? averaged_floats(&t->params) : 0;
	status = nn_training_plan(training, error);
	if (status == NN_OK)
		status = lay_out_feeds(t, error);
	return status == NN_OK ? make_names(t, error) : status;
}

/* ---- Weights to start from ----------------------------------------------- */

static bool
has_tensors(NnNetwork network, const NnTensor *tensors, int ntensors)
{
	for (int i = 0; i < ntensors; i++)
		if (tensors[i].network == network)
			return true;
	return false;
}

/* Averages start from the weights; one after the other, as these. */
static NnStatus
begin_averages(NnFit *t, NnError *error)
{
	NnStatus status = NN_OK;

	for (int i = 0; status == NN_OK && i < t->params.n; i++)
	{
		const NnParam *p = &t->params.list[i];
		size_t bytes = p->count * nn_dtype_size(t->ops->dtype);
		void *values;

		if (p->offset >= t->training.nema)
			break;
		values = malloc(bytes + 1);
		if (!values)
			return nn_no_memory(error, bytes);
		status = t->ops->get(t->device, &t->training, NN_ARRAY_PARAM, p->offset, p->count, values,
							 error);
		if (status == NN_OK)
			status = t->ops->put(t->device, &t->training, NN_ARRAY_EMA, p->offset, p->count, values,
								 error);
		free(values);
	}
	return status;
}

/* Whoever wants a run no more ends its process. */
static bool
show_progress(void *device)
{
	nn_progress(device);
	return true;
}

static NnStatus
put_fresh(NnFit *t, int index, NnError *error)
{
	const NnParam *p = &t->params.list[index];
	NnFresh fresh = { .init = t->options.init_type,
					  .gain = (float) t->options.init_gain,
					  .seed = t->options.seed,
					  .threads = t->device->threads,
					  .wanted = show_progress,
					  .arg = t->device };
	float *values = malloc(p->count * sizeof(float) + 1);
	NnStatus status;

	if (!values)
		return nn_no_memory(error, p->count * sizeof(float));
	status = nn_param_init(&t->params, index, &fresh, values, error);
	if (status == NN_OK)
		status = fit_put_floats(t, NN_ARRAY_PARAM, p->offset, p->count, values, error);
	free(values);
	return status;
}

/*
 * The tensors of networks of which there are any, and fresh weights of the
 * others; one after the other, to need no second copy of all.
 */
static NnStatus
begin_weights(NnFit *t, const NnTensor *tensors, int ntensors, NnError *error)
{
	NnStatus status = NN_OK;

	for (int i = 0; status == NN_OK && i < t->params.n; i++)
	{
		if (has_tensors(t->params.list[i].network, tensors, ntensors))
			status = fit_restore_tensor(t, NN_ARRAY_PARAM, i, t->params.list[i].name, tensors,
										ntensors, error);
		else
			status = put_fresh(t, i, error);
	}
	return status == NN_OK ? begin_averages(t, error) : status;
}

/* A fit that is laid out and has no memory of the device yet. */
static NnStatus
lay_out_fit(NnDevice *device, const NnConfig *config, const NnTrainOptions *options,
			NnPrecision precision, int64_t rows, NnFit **fit, NnError *error)
{
	NnFit *t = calloc(1, sizeof(NnFit));
	NnStatus status;

	if (!t)
		return nn_no_memory(error, sizeof(NnFit));
	t->device = device;
	t->ops = device->train;
	t->config = *config;
	t->options = *options;
	t->rows = rows;
	status = nn_params_of(config, nn_train_networks(config, options), &t->params, error);
	if (status == NN_OK)
		status = plan_iteration(t, precision, error);
	if (status != NN_OK)
	{
		nn_fit_close(t);
		return status;
	}
	*fit = t;
	return NN_OK;
}

/* What previews are computed in: on a GPU as fast as an iteration. */
static NnPrecision
preview_precision(const NnTrainDevice *ops, NnPrecision precision)
{
	return ops->repack ? precision : NN_PRECISION_FP32;
}

static NnStatus
add_looks(NnDevice *device, const NnConfig *config, NnPrecision precision, const NnFitLooks *looks,
		  NnFitNeeds *needs, NnError *error)
{
	NnExtent extent = { config->size, config->size };
	size_t preview = model_most_bytes(device, config, preview_precision(device->train, precision),
									  extent, looks->images, error),
		   metric = 0;

	if (preview > 0 && looks->metric)
		metric =
			model_most_bytes(device, looks->metric, NN_PRECISION_FP32, extent, looks->pairs, error);
	if (preview == 0 || (looks->metric && metric == 0))
		return error && error->code != NN_OK ? error->code : nn_no_memory(error, sizeof(NnFit));
	needs->bytes = nn_sum(needs->bytes, nn_sum(preview, metric));
	return NN_OK;
}

static size_t
state_bytes(const NnFit *t, size_t numbers)
{
	return nn_mul(numbers, nn_dtype_size(t->ops->dtype));
}

NnStatus
nn_fit_estimate(NnDevice *device, const NnConfig *config, const NnTrainOptions *options,
				NnPrecision precision, const NnFitLooks *looks, NnFitNeeds *needs, NnError *error)
{
	NnStatus status;
	NnFit *t;

	if (precision == NN_PRECISION_AUTO)
		precision = nn_train_precision(device, config, NN_PRECISION_AUTO);
	status = check_open(device, config, options, precision, options->batch_size, error);
	if (status == NN_OK)
		status = lay_out_fit(device, config, options, precision, options->batch_size, &t, error);
	if (status != NN_OK)
		return status;
	*needs =
		(NnFitNeeds){ .bytes = t->ops->bytes(device, &t->training),
					  .state = state_bytes(t, nn_sum(nn_mul(3, t->params.total), t->training.nema)),
					  .version = state_bytes(t, t->params.total) };
	needs->fit = needs->bytes;
	if (t->ops->snapshots)
		needs->copy = t->ops->snapshots->bytes(&t->training);
	nn_fit_close(t);
	return add_looks(device, config, precision, looks, needs, error);
}

NnStatus
nn_fit_open(NnDevice *device, const NnConfig *config, const NnTrainOptions *options,
			NnPrecision precision, int64_t rows, const NnTensor *tensors, int ntensors, NnFit **fit,
			NnError *error)
{
	NnStatus status;
	NnFit *t;

	if (precision == NN_PRECISION_AUTO)
		precision = nn_train_precision(device, config, NN_PRECISION_AUTO);
	status = check_open(device, config, options, precision, rows, error);
	if (status == NN_OK)
		status = lay_out_fit(device, config, options, precision, rows, &t, error);
	if (status != NN_OK)
		return status;
	status = t->ops->prepare(device, &t->training, error);
	if (status == NN_OK)
		status = begin_weights(t, tensors, ntensors, error);
	if (status != NN_OK)
	{
		nn_fit_close(t);
		return status;
	}
	*fit = t;
	return NN_OK;
}

/* ---- Steps --------------------------------------------------------------- */

/* The codes given, or those of the iteration, in the device's type. */
static NnStatus
fill_codes(NnFit *t, NnSource source, NnDtype dtype, const void *given, NnError *error)
{
	int codes = nn_iteration_codes(&t->it);
	size_t count = (size_t) codes * t->config.nz;
	float *drawn;

	if (given)
	{
		fit_convert_numbers(t->ops->dtype, feed_of(t, source), dtype, given, count);
		return NN_OK;
	}
	drawn = malloc(count * sizeof(float) + 1);
	if (!drawn)
		return nn_no_memory(error, count * sizeof(float));
	nn_train_codes(t->options.seed, t->iteration, source == NN_SOURCE_Z, codes, t->config.nz,
				   drawn);
	fit_convert_numbers(t->ops->dtype, feed_of(t, source), NN_F32, drawn, count);
	free(drawn);
	return NN_OK;
}

/* How discriminators see the images of the iteration. */
static NnStatus
fill_augment(NnFit *t, NnError *error)
{
	int images = nn_iteration_codes(&t->it);
	size_t count = (size_t) images * NN_AUGMENT_NUMBERS;
	float *drawn;

	if (t->options.diff_augment == NN_DIFF_AUGMENT_NONE)
		return NN_OK;
	drawn = malloc(NN_EXHIBITS * count * sizeof(float) + 1);
	if (!drawn)
		return nn_no_memory(error, NN_EXHIBITS * count * sizeof(float));
	for (int which = 0; which < NN_EXHIBITS; which++)
		nn_train_augment(t->options.seed, t->iteration, which, images, t->config.size,
						 t->options.diff_augment, drawn + (size_t) which * count);
	fit_convert_numbers(t->ops->dtype, feed_of(t, NN_SOURCE_AUGMENT), NN_F32, drawn,
						NN_EXHIBITS * count);
	free(drawn);
	return NN_OK;
}

/* Where each input of the graph begins in its source, of each pass. */
static void
bind_pass(NnFit *t, int pass, NnFeed *feeds)
{
	for (int i = 0; i < t->it.ninputs; i++)
	{
		const NnInput *input = &t->it.inputs[i];
		NnShape shape = t->it.graph.values[input->value].shape;
		size_t image = (size_t) shape.h * shape.w * shape.c * nn_dtype_size(t->ops->dtype);

		size_t first = nn_input_first(&t->it, input, pass);

		feeds[i] = (NnFeed){ input->value, (char *) feed_of(t, input->source) + first * image };
	}
}

static NnStatus
collect_losses(const NnFit *t, const double *values, NnLosses *losses, NnError *error)
{
	memset(losses, 0, sizeof(*losses));
	for (int i = 0; i < t->it.nterms; i++)
	{
		NnLoss loss = t->it.terms[i].loss;

		losses->value[loss] += values[i];
		losses->present[loss] = true;
	}
	for (int i = 0; i < NN_LOSSES; i++)
		if (!isfinite(losses->value[i]))
		{
			fit_diverged(nn_fit_iteration(t) + 1, error);
			nn_detail(error, "The loss %s is not finite.", nn_loss_name((NnLoss) i));
			return NN_EINVAL;
		}
	return NN_OK;
}

/* Batch norms count the batches that their statistics took in. */
static void
count_batches(NnFit *t)
{
	const NnSchedule *s = &t->training.schedule;

	for (int i = 0; i < s->nsteps; i++)
		if (s->steps[i].kind == NN_STEP_STATISTICS)
		{
			/* num_batches_tracked, which follows running_var in the table */
			int param = t->it.graph.nodes[s->steps[i].node].norm.var + 1;

			INVARIANT(param < t->params.n && t->params.list[param].integer);
			t->tracked[param] += t->it.passes;
		}
}

/* Images that are not in the feeds yet. */
static void
take_images(NnFit *t, NnSource source, NnDtype dtype, const void *images, int channels)
{
	size_t pixels = (size_t) t->config.size * t->config.size * t->options.batch_size;
	void *to = feed_of(t, source);

	if (images != to)
		fit_convert_numbers(t->ops->dtype, to, dtype, images, pixels * channels);
}

static const NnFeed *
bind_inputs(NnFit *t)
{
	for (int pass = 0; pass < t->it.passes; pass++)
		bind_pass(t, pass, t->bound + (size_t) pass * t->it.ninputs);
	return t->bound;
}

static NnStatus
start_typed(NnFit *t, NnDtype dtype, const void *a, const void *b, const void *eps, const void *z,
			NnError *error)
{
	int terms[NN_MAX_TERMS];
	NnIterate it = { .nfeeds = t->it.ninputs,
					 .passes = t->it.passes,
					 .losses = terms,
					 .nlosses = t->it.nterms,
					 .adam = { .lr = nn_learning_rate(&t->options, t->rows, t->iteration),
							   .beta1 = t->options.beta1,
							   .beta2 = 0.999,
							   .epsilon = 1e-8,
							   .t = t->iteration + 1,
							   .ema = t->options.ema } };
	NnStatus status;

	INVARIANT(t->open < NN_STARTS);
	take_images(t, NN_SOURCE_A, dtype, a, t->config.input_nc);
	take_images(t, NN_SOURCE_B, dtype, b, t->config.output_nc);
	status = fill_codes(t, NN_SOURCE_EPS, dtype, eps, error);
	if (status == NN_OK)
		status = fill_codes(t, NN_SOURCE_Z, dtype, z, error);
	if (status == NN_OK)
		status = fill_augment(t, error);
	if (status != NN_OK)
		return status;
	it.feeds = bind_inputs(t);
	for (int i = 0; i < t->it.nterms; i++)
		terms[i] = t->it.terms[i].value;
	t->training.iteration = (int64_t) ((uint64_t) t->iteration * t->it.passes);
	status = nn_training_start(t->device, &t->training, &it, error);
	if (status != NN_OK)
		return status;
	t->iteration++;
	t->open++;
	return NN_OK;
}

NnStatus
nn_fit_finish(NnFit *t, NnLosses *losses, NnError *error)
{
	double values[NN_MAX_TERMS];
	NnStatus status;

	INVARIANT(t->open > 0);
	status = nn_training_finish(t->device, &t->training, t->it.nterms, values, error);
	if (status == NN_OK)
		status = collect_losses(t, values, losses, error);
	if (status == NN_OK)
	{
		count_batches(t);
		t->open--;
		return NN_OK;
	}
	/* those after it have changed nothing either */
	t->iteration -= t->open;
	for (; t->open > 1; t->open--)
		(void) nn_training_finish(t->device, &t->training, t->it.nterms, values, NULL);
	t->open = 0;
	return status;
}

NnStatus
nn_fit_step_typed(NnFit *t, NnDtype dtype, const void *a, const void *b, const void *eps,
				  const void *z, NnLosses *losses, NnError *error)
{
	NnStatus status = start_typed(t, dtype, a, b, eps, z, error);

	return status == NN_OK ? nn_fit_finish(t, losses, error) : status;
}

NnStatus
nn_fit_start(NnFit *t, const float *a, const float *b, const NnNoise *noise, NnError *error)
{
	return start_typed(t, NN_F32, a, b, noise ? noise->eps : NULL, noise ? noise->z : NULL, error);
}

int
nn_fit_ahead(const NnFit *t)
{
	return t->ops->ahead ? NN_STARTS - 1 : 0;
}

int
nn_fit_open_steps(const NnFit *t)
{
	return t->open;
}

bool
nn_fit_feeds(NnFit *t, float **a, float **b)
{
	if (t->ops->dtype != NN_F32)
		return false;
	*a = feed_of(t, NN_SOURCE_A);
	*b = feed_of(t, NN_SOURCE_B);
	return true;
}

NnStatus
nn_fit_step(NnFit *t, const float *a, const float *b, const NnNoise *noise, NnLosses *losses,
			NnError *error)
{
	return nn_fit_step_typed(t, NN_F32, a, b, noise ? noise->eps : NULL, noise ? noise->z : NULL,
							 losses, error);
}

/* ---- Previews ------------------------------------------------------------ */

/* A model, with plans to come, of the weights as they are. */
static NnStatus
open_preview(NnFit *t, NnError *error)
{
	NnPrecision precision = preview_precision(t->ops, t->training.plan.precision);

	return model_load(t->device, &t->config, precision, fit_fill_model, t, &t->preview, error);
}

/* On the device, where model and plans stay. */
static NnStatus
renew_preview(NnFit *t, NnError *error)
{
	NnArray array = t->training.nema > 0 ? NN_ARRAY_EMA : NN_ARRAY_PARAM;
	bool finite;
	NnStatus status =
		t->ops->finite(t->device, &t->training, array, averaged_floats(&t->params), &finite, error);

	if (status == NN_OK && !finite)
		return fit_diverged(t->iteration, error);
	return status == NN_OK ? model_repack(t->preview, &t->training, array, error) : status;
}

static NnStatus
load_preview(NnFit *t, NnError *error)
{
	NnStatus status = NN_OK;

	if (t->preview && t->preview_at == t->iteration)
		return NN_OK;
	if (!t->ops->repack)
	{
		nn_model_free(t->preview);
		t->preview = NULL;
	}
	if (!t->preview)
		status = open_preview(t, error);
	/* the first ones, too: by the same arithmetic as all others */
	if (status == NN_OK && t->ops->repack)
		status = renew_preview(t, error);
	t->preview_at = status == NN_OK ? t->iteration : -1;
	return status;
}

NnStatus
nn_fit_translate(NnFit *t, int n, const float *a, const float *z, float *out, NnError *error)
{
	NnStatus status = load_preview(t, error);

	return status == NN_OK ? nn_model_translate_float(t->preview, n, a, z, out, error) : status;
}

NnStatus
nn_fit_translate_bytes(NnFit *t, int n, const uint8_t *a, const float *z, uint8_t *out,
					   NnError *error)
{
	NnStatus status = load_preview(t, error);

	return status == NN_OK ? nn_model_translate(t->preview, n, a, z, out, error) : status;
}

NnStatus
nn_fit_encode_bytes(NnFit *t, int n, const uint8_t *b, float *mu, float *logvar, NnError *error)
{
	NnStatus status = load_preview(t, error);

	return status == NN_OK ? nn_model_encode(t->preview, n, b, mu, logvar, error) : status;
}

NnStatus
nn_fit_encode(NnFit *t, int n, const float *b, float *mu, float *logvar, NnError *error)
{
	NnStatus status = load_preview(t, error);

	return status == NN_OK ? nn_model_encode_float(t->preview, n, b, mu, logvar, error) : status;
}
