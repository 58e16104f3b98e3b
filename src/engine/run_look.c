/*
 * run_look.c
 *	  A look at what the networks of a fit make of a few pairs: samples under
 *	  given codes, reconstructions, and what these are measured by. Validation
 *	  measures it, the watch on diversity too, and previews show it.
 *
 * R1 The networks are those of NN_FIT_VERSION, as at inference. Nothing that
 *    training reads or draws is changed.
 * R2 Images are bytes, as a session would get them. What is measured of them is
 *    in the networks' range, [-1, 1], and no multiple of a lambda.
 * R3 Pairs are looked at together because that is faster. On the CPU what is
 *    made of one does not depend on the others.
 * R4 The first image of each pair comes before the second of any: so what is
 *    made of each pair once lies in the same places as first samples.
 *
 * A RunLook owns its arrays.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/run_look.h"

/* Of samples of more pairs than one: as many as two of 256 x 256 have. */
#define LOOK_PIXELS ((size_t) 2 * 256 * 256)

static size_t
look_pixels(const RunLook *look, int channels)
{
	return (size_t) look->config->size * (size_t) look->config->size * (size_t) channels;
}

/* Where sample `sample` of pair i is among all. */
static size_t
look_place(const RunLook *look, int i, int sample)
{
	INVARIANT(i >= 0 && i < look->n && sample >= 0 && sample < look->samples);
	return (size_t) sample * (size_t) look->n + (size_t) i;
}

static const float *
look_code(const RunLook *look, const float *codes, int i, int sample)
{
	return codes + look_place(look, i, sample) * (size_t) look->config->nz;
}

int
run_look_images(const NnConfig *config, int samples)
{
	size_t most = LOOK_PIXELS / ((size_t) config->size * (size_t) config->size);

	return most > (size_t) samples ? (int) most : samples;
}

int
run_look_pairs(const NnConfig *config, int samples, int64_t pairs)
{
	size_t image = (size_t) config->size * (size_t) config->size;
	int64_t most = (int64_t) (LOOK_PIXELS / (image * (size_t) samples));

	if (most > pairs)
		most = pairs;
	return most < 1 ? 1 : (int) most;
}

bool
run_look_open(RunLook *look, const NnConfig *config, int samples, int64_t pairs, EngineError *error)
{
	size_t images, codes;

	look->config = config;
	look->samples = samples;
	look->most = run_look_pairs(config, samples, pairs);
	images = (size_t) look->most * (size_t) samples;
	codes = images * (size_t) config->nz;
	look->a = calloc(images, look_pixels(look, config->input_nc));
	look->b = calloc((size_t) look->most, look_pixels(look, config->output_nc));
	look->z = calloc(codes + 1, sizeof(float));
	look->out = calloc(images, look_pixels(look, config->output_nc));
	look->mu = calloc(2 * codes + 1, sizeof(float));
	if (look->a != NULL && look->b != NULL && look->z != NULL && look->out != NULL &&
		look->mu != NULL)
		return true;
	return error_memory(error, "samples of the networks in training");
}

void
run_look_free(RunLook *look)
{
	free(look->a);
	free(look->b);
	free(look->z);
	free(look->out);
	free(look->mu);
}

int
run_look_begin(RunLook *look, int64_t left)
{
	look->n = left < look->most ? (int) left : look->most;
	return look->n;
}

void
run_look_at(RunLook *look, int i, const uint8_t *a, const uint8_t *b)
{
	size_t bytes = look_pixels(look, look->config->input_nc);

	for (int sample = 0; sample < look->samples; sample++)
		memcpy(look->a + look_place(look, i, sample) * bytes, a, bytes);
	bytes = look_pixels(look, look->config->output_nc);
	memcpy(look->b + (size_t) i * bytes, b, bytes);
}

float *
run_look_code(RunLook *look, int i, int sample)
{
	return look->z + look_place(look, i, sample) * (size_t) look->config->nz;
}

const uint8_t *
run_look_image(const RunLook *look, int i, int sample)
{
	return look->out + look_place(look, i, sample) * look_pixels(look, look->config->output_nc);
}

const uint8_t *
run_look_target(const RunLook *look, int i)
{
	INVARIANT(i >= 0 && i < look->n);
	return look->b + (size_t) i * look_pixels(look, look->config->output_nc);
}

bool
run_look_sample(RunLook *look, NnFit *fit, EngineError *error)
{
	NnError nn_error = { 0 };

	if (nn_fit_translate_bytes(fit, look->n * look->samples, look->a, look->z, look->out,
							   &nn_error) == NN_OK)
		return true;
	return error_from_nn(error, &nn_error);
}

/* Of so many images: the logarithms of variances are not asked for. */
static float *
look_logvar(const RunLook *look, int images)
{
	return look->mu + (size_t) images * (size_t) look->config->nz;
}

bool
run_look_reconstruct(RunLook *look, NnFit *fit, EngineError *error)
{
	NnError nn_error = { 0 };

	if (nn_fit_encode_bytes(fit, look->n, look->b, look->mu, look_logvar(look, look->n),
							&nn_error) == NN_OK &&
		nn_fit_translate_bytes(fit, look->n, look->a, look->mu, look->out, &nn_error) == NN_OK)
		return true;
	return error_from_nn(error, &nn_error);
}

bool
run_look_read(RunLook *look, NnFit *fit, EngineError *error)
{
	int images = look->n * look->samples;
	NnError nn_error = { 0 };

	if (nn_fit_encode_bytes(fit, images, look->out, look->mu, look_logvar(look, images),
							&nn_error) == NN_OK)
		return true;
	return error_from_nn(error, &nn_error);
}

/* ---- What is measured ---------------------------------------------------- */

static double
look_difference(const RunLook *look, const uint8_t *x, const uint8_t *y)
{
	size_t bytes = look_pixels(look, look->config->output_nc);
	uint64_t sum = 0;

	for (size_t i = 0; i < bytes; i++)
		sum += (uint64_t) abs((int) x[i] - (int) y[i]);
	return (double) sum / 127.5 / (double) bytes;
}

double
run_look_diversity(const RunLook *look, int i)
{
	double sum = 0;
	int n = 0;

	for (int one = 0; one < look->samples; one++)
		for (int other = one + 1; other < look->samples; other++, n++)
			sum +=
				look_difference(look, run_look_image(look, i, one), run_look_image(look, i, other));
	INVARIANT(n > 0);
	return sum / n;
}

double
run_look_distance(const RunLook *look, int i)
{
	return look_difference(look, run_look_image(look, i, 0), run_look_target(look, i));
}

double
run_look_latent(const RunLook *look, int i)
{
	double sum = 0;

	for (int sample = 0; sample < look->samples; sample++)
	{
		const float *z = look_code(look, look->z, i, sample),
					*mu = look_code(look, look->mu, i, sample);

		for (int k = 0; k < look->config->nz; k++)
			sum += fabs((double) mu[k] - (double) z[k]);
	}
	return sum / look->samples / look->config->nz;
}
