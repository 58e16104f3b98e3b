/*
 * metric.c
 *	  The configuration of models that compare two images, LPIPS.
 *
 * Pure functions. The network is in nets.c.
 */
#include "nn/config.h"
#include "nn/nn_error.h"

#include <stdio.h>
#include <string.h>

#define OWN_SIZE 64 /* that weights are packed for: samples are often small */

static const char *const nets[] = { [NN_METRIC_ALEX] = "alex", [NN_METRIC_VGG] = "vgg" };
static const char *const versions[] = { "0.1", "0.0" }; /* by `unscaled` */

/* ---- Configuration ------------------------------------------------------- */

NnStatus
nn_metric_config(NnConfig *config, const char *net, const char *version, NnError *error)
{
	NnConfig made = { .size = OWN_SIZE,
					  .input_nc = 3,
					  .output_nc = 3,
					  .net_e = NN_ENCODER_NONE,
					  .fit = NN_SIZING_INPUT,
					  .precision = NN_PRECISION_FP32 };

	for (int i = NN_METRIC_ALEX; i <= NN_METRIC_VGG; i++)
		if (strcmp(net, nets[i]) == 0)
			made.metric = (NnMetric) i;
	for (int i = 0; i < 2; i++)
		if (strcmp(version, versions[i]) == 0)
			made.unscaled = i == 1;
	if (made.metric == NN_METRIC_NONE || strcmp(version, versions[made.unscaled]) != 0)
	{
		nn_fail(error, NN_EINVAL, "there is no LPIPS of net \"%.20s\" and version \"%.20s\"", net,
				version);
		nn_hint(error, "Nets are alex and vgg, versions 0.0 and 0.1.");
		return NN_EINVAL;
	}
	*config = made;
	return NN_OK;
}

void
nn_metric_print(const NnConfig *config, char text[NN_METRIC_TEXT])
{
	snprintf(text, NN_METRIC_TEXT, "{\"lpips\":\"%s\",\"net\":\"%s\"}", versions[config->unscaled],
			 nets[config->metric]);
}

NnStatus
nn_metric_read(NnConfig *config, const json_t *object, NnError *error)
{
	const char *net = json_string_value(json_object_get(object, "net")),
			   *version = json_string_value(json_object_get(object, "lpips"));

	if (!net || !version || json_object_size(object) != 2)
		return nn_fail(error, NN_EINVAL, "configuration of LPIPS is not well-formed");
	return nn_metric_config(config, net, version, error);
}

/*
 * AlexNet: 31 become 7 behind the first convolution, 3 and 1 behind the pools.
 * VGG16 halves four times.
 */
int
nn_metric_least(const NnConfig *config)
{
	return config->metric == NN_METRIC_ALEX ? 31 : 16;
}

/* VGG16 makes 122 numbers of a pixel, and they are to be counted by an int. */
int
nn_metric_most(const NnConfig *config)
{
	return config->metric == NN_METRIC_ALEX ? NN_MAX_AREA : 1 << 24;
}
