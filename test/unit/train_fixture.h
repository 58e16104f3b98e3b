/*
 * train_fixture.h
 *	  What the tests of training share: a fit with reproducible weights,
 *	  batches and codes.
 *
 * Weights, images and codes are those of nn_fixture.h's generator, the same as
 * test/gen/training.py makes for the official code: G from 1000, E from 2000, D
 * from 3000, D2 from 4000; A from 11, B from 22; codes from 100 on, two an
 * iteration.
 */
#ifndef BICYCLE_TRAIN_FIXTURE_H
#define BICYCLE_TRAIN_FIXTURE_H

#include "nn_fixture.h"
#include "nn/fit_private.h"

typedef struct Run
{
	NnDevice *device;
	NnConfig config;
	NnTrainOptions options;
	NnFit *fit;
	double *a, /* (batch_size, S, S, C) */
		*b;
	NnLosses losses; /* of the last step */
	int step;        /* of the next one, for its codes */
} Run;

static NnError train_error;

__attribute__((unused)) static bool
went_well(NnStatus status)
{
	if (status != NN_OK)
		diag("%s: %s %s", train_error.message, train_error.detail, train_error.hint);
	return status == NN_OK;
}

/* The tensors of all networks in double; free with tensors_free. */
__attribute__((unused)) static NnTensor *
lcg_tensors(const NnConfig *config, unsigned mask, NnParams tables[NN_NETWORKS], int *n)
{
	NnTensor *all = NULL;

	*n = 0;
	for (int network = 0; network < NN_NETWORKS; network++)
	{
		NnParams *params = &tables[network];
		double *weights;

		memset(params, 0, sizeof(*params));
		if (!(mask & 1u << network))
			continue;
		if (nn_params_of(config, 1u << network, params, &train_error) != NN_OK)
			continue;
		weights = lcg_weights(params, 1000 * (network + 1));
		all = realloc(all, (*n + params->n) * sizeof(NnTensor));
		for (int i = 0; i < params->n; i++)
		{
			const NnParam *p = &params->list[i];
			NnTensor *t = &all[(*n)++];
			double *data = calloc(p->count, sizeof(double));

			*t = (NnTensor){ .name = p->name,
							 .network = p->network,
							 .dtype = p->integer ? NN_I64 : NN_F64,
							 .ndim = p->ndim,
							 .data = data };
			memcpy(t->shape, p->shape, sizeof(p->shape));
			t->nbytes = p->count * sizeof(double);
			for (size_t k = 0; k < p->count; k++)
				if (!p->buffer)
					data[k] = weights[p->offset + k];
				else if (strstr(p->name, "running_var"))
					data[k] = 1;
		}
		free(weights);
	}
	return all;
}

/*
 * device may be shared. json holds the options. false, with a diagnosis, on
 * failure; run_close is due in either case.
 */
__attribute__((unused)) static bool
run_open(Run *run, NnDevice *device, const char *json, int64_t rows)
{
	NnParams tables[NN_NETWORKS];
	NnTensor *tensors;
	NnShape shape;
	NnStatus status;
	int n;

	memset(run, 0, sizeof(*run));
	run->device = device;
	if (!went_well(
			nn_train_options_parse(&run->config, &run->options, json, strlen(json), &train_error)))
		return false;
	tensors = lcg_tensors(&run->config, nn_train_networks(&run->config, &run->options), tables, &n);
	status = nn_fit_open(device, &run->config, &run->options, NN_PRECISION_FP32, rows, tensors, n,
						 &run->fit, &train_error);
	tensors_free(tensors, n);
	for (int i = 0; i < NN_NETWORKS; i++)
		nn_params_free(&tables[i]);
	shape = (NnShape){ run->options.batch_size, run->config.size, run->config.size,
					   run->config.input_nc };
	run->a = lcg_images(11, 1, shape);
	shape.c = run->config.output_nc;
	run->b = lcg_images(22, 1, shape);
	return went_well(status);
}

__attribute__((unused)) static void
run_close(Run *run)
{
	nn_fit_close(run->fit);
	free(run->a);
	free(run->b);
	memset(run, 0, sizeof(*run));
}

/* One step with the codes of its number. */
__attribute__((unused)) static bool
run_step(Run *run)
{
	size_t count = (size_t) run->options.batch_size * run->config.nz;
	double *eps = malloc((count + 1) * sizeof(double)), *z = malloc((count + 1) * sizeof(double));
	NnStatus status;

	lcg_fill(100 + 2 * run->step, 1.5, count, eps);
	lcg_fill(101 + 2 * run->step, 1.5, count, z);
	status =
		nn_fit_step_typed(run->fit, NN_F64, run->a, run->b, eps, z, &run->losses, &train_error);
	run->step++;
	free(eps);
	free(z);
	return went_well(status);
}

/* n steps, each of its number's codes. */
__attribute__((unused)) static bool
run_steps(Run *run, int n)
{
	for (int i = 0; i < n; i++)
		if (!run_step(run))
			return false;
	return true;
}

/*
 * A part of the fit as tensors with data, in one allocation; of a version G and
 * E alone. Names are the fit's.
 */
__attribute__((unused)) static NnStatus
fit_tensors(NnFit *fit, NnFitPart part, NnTensor **tensors, int *ntensors, NnError *error)
{
	NnFitSnapshot *view;
	NnStatus status = nn_fit_view(fit, part, &view, error);
	const NnTensor *list;
	NnTensor *made;
	size_t bytes = 0;
	char *at;
	int n;

	if (status != NN_OK)
		return status;
	list = nn_snapshot_tensors(view, &n);
	for (int i = 0; i < n; i++)
		bytes += (list[i].nbytes + 15) / 16 * 16;
	made = malloc((n + 1) * sizeof(NnTensor) + 16 + bytes);
	if (!made)
	{
		nn_snapshot_free(view);
		return nn_no_memory(error, bytes);
	}
	at = (char *) (((uintptr_t) (made + n + 1) + 15) / 16 * 16);
	*ntensors = 0;
	for (int i = 0; status == NN_OK && i < n; i++)
	{
		if (part == NN_FIT_VERSION && list[i].network != NN_NET_G && list[i].network != NN_NET_E)
			continue;
		made[*ntensors] = list[i];
		made[(*ntensors)++].data = at;
		status = nn_snapshot_read(view, i, at, error);
		at += (list[i].nbytes + 15) / 16 * 16;
	}
	nn_snapshot_free(view);
	if (status == NN_OK)
		*tensors = made;
	else
		free(made);
	return status;
}

__attribute__((unused)) static NnStatus
fit_state(NnFit *fit, NnTensor **tensors, int *ntensors, NnError *error)
{
	return fit_tensors(fit, NN_FIT_STATE, tensors, ntensors, error);
}

__attribute__((unused)) static NnStatus
fit_weights(NnFit *fit, NnTensor **tensors, int *ntensors, NnError *error)
{
	return fit_tensors(fit, NN_FIT_VERSION, tensors, ntensors, error);
}

/* An array of the fit in double, in the checkpoint's layout; malloc'ed. */
__attribute__((unused)) static double *
array_of(const Run *run, NnArray array)
{
	NnTraining *t = nn_fit_training(run->fit);
	size_t total = array == NN_ARRAY_EMA ? t->nema : t->params->total;
	double *values = calloc(total + 1, sizeof(double));
	float *floats = calloc(total + 1, sizeof(float));
	bool single = run->device->train->dtype == NN_F32;

	(void) run->device->train->get(run->device, t, array, 0, total,
								   single ? (void *) floats : values, &train_error);
	for (size_t i = 0; single && i < total; i++)
		values[i] = floats[i];
	free(floats);
	return values;
}

/*
 * The sum of absolute values of a network's parameters or gradients, buffers
 * excluded.
 */
__attribute__((unused)) static double
network_sum(const Run *run, NnNetwork network, NnArray array)
{
	const NnParams *params = nn_fit_params(run->fit);
	double *values = array_of(run, array);
	double sum = 0;

	for (int i = 0; i < params->n; i++)
	{
		const NnParam *p = &params->list[i];

		if (p->network == network && !p->buffer)
			for (size_t k = 0; k < p->count; k++)
				sum += fabs(values[p->offset + k]);
	}
	free(values);
	return sum;
}

#endif /* BICYCLE_TRAIN_FIXTURE_H */
