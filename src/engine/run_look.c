/*
 * run_look.c
 *	  A look at what the networks of a fit make of one pair: samples under given
 *	  codes, the reconstruction, and what these are measured by. Validation
 *	  measures it.
 *
 * R1 The networks are those of nn_fit_weights, as at inference. Nothing that
 *    training reads or draws is changed.
 * R2 What is measured is in the networks' range, [-1, 1], and no multiple of a
 *    lambda.
 *
 * A RunLook owns its arrays.
 */
#include <math.h>
#include <stdlib.h>

#include "engine/run_look.h"

static size_t
look_pixels(const RunLook *look, int channels)
{
	return (size_t) look->config->size * (size_t) look->config->size * (size_t) channels;
}

bool
run_look_open(RunLook *look, const NnConfig *config, int samples, EngineError *error)
{
	size_t n = (size_t) samples, codes = n * (size_t) config->nz;

	look->config = config;
	look->samples = samples;
	look->a = calloc(n * look_pixels(look, config->input_nc), sizeof(float));
	look->b = calloc(look_pixels(look, config->output_nc), sizeof(float));
	look->out = calloc(n * look_pixels(look, config->output_nc), sizeof(float));
	look->mu = calloc(2 * codes + 1, sizeof(float));
	if (look->a != NULL && look->b != NULL && look->out != NULL && look->mu != NULL)
		return true;
	return error_memory(error, "samples of the networks in training");
}

void
run_look_free(RunLook *look)
{
	free(look->a);
	free(look->b);
	free(look->out);
	free(look->mu);
}

void
run_look_at(RunLook *look, const uint8_t *a, const uint8_t *b)
{
	size_t count = look_pixels(look, look->config->input_nc);

	for (int i = 0; i < look->samples; i++)
		nn_normalise(a, count, look->a + (size_t) i * count);
	nn_normalise(b, look_pixels(look, look->config->output_nc), look->b);
}

bool
run_look_sample(RunLook *look, NnFit *fit, const float *z, EngineError *error)
{
	NnError nn_error = { 0 };

	if (nn_fit_translate(fit, look->samples, look->a, z, look->out, &nn_error) == NN_OK)
		return true;
	return error_from_nn(error, &nn_error);
}

bool
run_look_reconstruct(RunLook *look, NnFit *fit, EngineError *error)
{
	float *logvar = look->mu + (size_t) look->samples * (size_t) look->config->nz;
	NnError nn_error = { 0 };

	if (nn_fit_encode(fit, 1, look->b, look->mu, logvar, &nn_error) == NN_OK &&
		nn_fit_translate(fit, 1, look->a, look->mu, look->out, &nn_error) == NN_OK)
		return true;
	return error_from_nn(error, &nn_error);
}

/* ---- What is measured ---------------------------------------------------- */

static double
look_difference(const float *x, const float *y, size_t count)
{
	double sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += fabs((double) x[i] - (double) y[i]);
	return sum / (double) count;
}

double
run_look_diversity(const RunLook *look)
{
	size_t count = look_pixels(look, look->config->output_nc);
	double sum = 0;
	int n = 0;

	for (int i = 0; i < look->samples; i++)
		for (int j = i + 1; j < look->samples; j++, n++)
			sum += look_difference(look->out + (size_t) i * count, look->out + (size_t) j * count,
								   count);
	INVARIANT(n > 0);
	return sum / n;
}

double
run_look_distance(const RunLook *look)
{
	return look_difference(look->out, look->b, look_pixels(look, look->config->output_nc));
}

bool
run_look_latent(RunLook *look, NnFit *fit, const float *z, double *distance, EngineError *error)
{
	size_t codes = (size_t) look->samples * (size_t) look->config->nz;
	NnError nn_error = { 0 };

	if (nn_fit_encode(fit, look->samples, look->out, look->mu, look->mu + codes, &nn_error) !=
		NN_OK)
		return error_from_nn(error, &nn_error);
	*distance = look_difference(look->mu, z, codes);
	return true;
}
