/*
 * model_fixture.h
 *	  What the tests of whole models share: G and E of a configuration with
 *	  reproducible weights, ready to be loaded on any device.
 *
 * A ModelFixture owns its weights and tensors; model_fixture_free gives them
 * back. `error` is what the last call that failed has said.
 */
#ifndef BICYCLE_MODEL_FIXTURE_H
#define BICYCLE_MODEL_FIXTURE_H

#include "nn_fixture.h"

typedef struct ModelFixture
{
	NnConfig config;
	NnParams params;
	double *weights;
	NnTensor *tensors;
} ModelFixture;

static NnError error;

static ModelFixture
model_fixture(const char *json)
{
	ModelFixture f;

	nn_config_default(&f.config);
	if (nn_config_parse(&f.config, json, strlen(json), &error) != NN_OK ||
		nn_params_of(&f.config, 1u << NN_NET_G | 1u << NN_NET_E, &f.params, &error) != NN_OK)
		diag("%s: %s", json, error.message);
	f.weights = lcg_weights(&f.params, 1000);
	f.tensors = tensors_of(&f.params, f.weights);
	return f;
}

static void
model_fixture_free(ModelFixture *f)
{
	tensors_free(f->tensors, f->params.n);
	free(f->weights);
	nn_params_free(&f->params);
}

static NnModel *
model_fixture_load(NnDevice *device, const ModelFixture *f, NnPrecision precision)
{
	NnModel *model = NULL;

	if (nn_model_load(device, &f->config, precision, f->tensors, f->params.n, &model, &error) !=
		NN_OK)
		diag("%s: %s %s", error.message, error.detail, error.hint);
	return model;
}

#endif /* BICYCLE_MODEL_FIXTURE_H */
