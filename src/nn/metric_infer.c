/*
 * metric_infer.c
 *	  Whether files hold the weights of LPIPS.
 *
 * Pure functions.
 */
#include "nn/nn_error.h"
#include "nn/params.h"

#include <stdlib.h>
#include <string.h>

static NnStatus
not_its_tensors(const NnConfig *config, NnError *error)
{
	nn_fail(error, NN_EINVAL, "tensors are not those of LPIPS with %s",
			config->metric == NN_METRIC_ALEX ? "AlexNet" : "VGG16");
	nn_hint(error,
			"Give the state_dict of torchvision's %s as the backbone, and that of the heads, "
			"weights/vVERSION/%s.pth of the lpips package.",
			config->metric == NN_METRIC_ALEX ? "alexnet" : "vgg16",
			config->metric == NN_METRIC_ALEX ? "alex" : "vgg");
	return NN_EINVAL;
}

/* What classifies is not needed; anything else would be another network. */
static NnStatus
check_known(const NnConfig *config, const NnParams *params, const NnTensor *t, bool *keep,
			NnError *error)
{
	int p = nn_params_find(params, NN_NET_L, t->name);

	*keep = p >= 0;
	if (p >= 0 && !nn_tensor_fits(t, &params->list[p]))
	{
		not_its_tensors(config, error);
		nn_detail(error, "Tensor \"%.100s\" has another shape or type.", t->name);
		return NN_EINVAL;
	}
	if (p < 0 && (strncmp(t->name, "features.", 9) == 0 || strncmp(t->name, "lin", 3) == 0))
	{
		not_its_tensors(config, error);
		nn_detail(error, "It has no tensor \"%.100s\".", t->name);
		return NN_EINVAL;
	}
	return NN_OK;
}

static NnStatus
check_all_there(const NnConfig *config, const NnParams *params, const NnTensor *tensors,
				int ntensors, NnError *error)
{
	for (int p = 0; p < params->n; p++)
		if (!nn_tensor_find(tensors, ntensors, &params->list[p]))
		{
			not_its_tensors(config, error);
			nn_detail(error, "There is no tensor \"%s\".", params->list[p].name);
			return NN_EINVAL;
		}
	return NN_OK;
}

/* A distance could be below 0 otherwise. */
static NnStatus
check_heads(const NnParams *params, const float *values, NnError *error)
{
	for (int p = 0; p < params->n; p++)
		for (size_t i = 0;
			 strncmp(params->list[p].name, "lin", 3) == 0 && i < params->list[p].count; i++)
			if (!(values[params->list[p].offset + i] >= 0))
			{
				nn_fail(error, NN_EINVAL, "heads of LPIPS are negative");
				nn_detail(error, "Tensor \"%s\" has an element of %g.", params->list[p].name,
						  values[params->list[p].offset + i]);
				return NN_EINVAL;
			}
	return NN_OK;
}

static NnStatus
check_values(const NnParams *params, const NnTensor *tensors, int ntensors, NnError *error)
{
	float *values = malloc(params->total * sizeof(float));
	NnStatus status = values ? nn_params_fill(params, tensors, ntensors, values, error)
							 : nn_no_memory(error, params->total * sizeof(float));

	if (status == NN_OK)
		status = check_heads(params, values, error);
	free(values);
	return status;
}

NnStatus
nn_metric_check(const NnConfig *config, const NnTensor *tensors, int ntensors, bool *keep,
				NnError *error)
{
	NnParams params;
	NnStatus status = nn_params_of(config, 1u << NN_NET_L, &params, error);

	for (int i = 0; status == NN_OK && i < ntensors; i++)
		status = check_known(config, &params, &tensors[i], &keep[i], error);
	if (status == NN_OK)
		status = check_all_there(config, &params, tensors, ntensors, error);
	if (status == NN_OK)
		status = check_values(&params, tensors, ntensors, error);
	nn_params_free(&params);
	return status;
}
