/*
 * engines.c
 *	  What it costs to run each layer of the official generator by one of
 *	  cuDNN's engines at all batch sizes, so that an image's bits do not depend
 *	  on its batch.
 *
 * For every convolution and batch size: microseconds of the engine that is
 * chosen for that size, of the one chosen for one image, and of the one chosen
 * for 16 (BICYCLE_PIN_ENGINES; "-" where cuDNN does not take that engine, and
 * the size's own is counted). With BICYCLE_AUTOTUNE=N in the environment a
 * choice is the fastest of N. Each is the least of some runs over the same
 * buffers, so small layers find their weights in the cache: ratios count, not
 * sums.
 */
#include <stdio.h>

#ifndef HAVE_CUDNN
int
main(void)
{
	printf("no CUDA device in this build\n");
	return 0;
}
#else

#include "bench.h"
#include "nn/cuda/cuda_shape.h"
#include "nn/cuda/cuda_time.h"
#include "nn/cuda/cudnn.h"
#include "nn/nets.h"

#define MODES 3
#define SIZES 5

static const char *const pins[MODES] = { NULL, "1", "16" };
static const char *const names[MODES] = { "own", "of 1", "of 16" };

/* Microseconds; below 0 if the engine is not the pinned one. */
static double
measure(cudaStream_t stream, CudaConvs *convs, const CudaConvShape *shape, int pin)
{
	CudaConv *conv;
	NnError error;
	double us;

	if (cuda_conv_open(convs, shape, &conv, &error) != NN_OK)
		fail(&error);
	us = pin == 0 || pin == shape->n || cuda_conv_choice(conv)->pinned
			 ? cuda_time_conv(stream, convs, conv, shape) * 1e3
			 : -1;
	cuda_conv_close(conv);
	return us;
}

static void
print_row(const char *layer, const char *mode, const double us[SIZES])
{
	printf("engines %-44.44s %-6s", layer, mode);
	for (int b = 0; b < SIZES; b++)
		if (us[b] < 0)
			printf("%10s", "-");
		else
			printf("%10.1f", us[b]);
	printf("\n");
	fflush(stdout);
}

int
main(void)
{
	CudaConvs *convs[MODES];
	double sums[MODES][SIZES] = { { 0 } };
	cudaStream_t stream;
	struct cudaDeviceProp card;
	NnConfig config;
	NnParams params;
	NnGraph g;
	NnPlan plan = { .graph = &g, .precision = NN_PRECISION_BF16 };
	NnError error;
	int image;

	if (cudaGetDeviceProperties(&card, 0) != cudaSuccess ||
		cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess)
	{
		printf("no GPU here\n");
		return 1;
	}
	if (card.major < 8)
		plan.precision = NN_PRECISION_FP16;
	for (int m = 0; m < MODES; m++)
	{
		if (pins[m])
			setenv("BICYCLE_PIN_ENGINES", pins[m], 1);
		else
			unsetenv("BICYCLE_PIN_ENGINES");
		if (cuda_convs_open(stream, &convs[m], &error) != NN_OK)
			fail(&error);
	}
	nn_config_default(&config);
	if (nn_params_of(&config, 1u << NN_NET_G, &params, &error) != NN_OK)
		fail(&error);
	nn_graph_init(&g, &params);
	image = nn_input(&g, (NnShape){ 1, config.size, config.size, config.input_nc }, "image");
	nn_net_G(&g, &config, image, nn_input(&g, (NnShape){ 1, 1, 1, config.nz }, "z"), 0);
	printf("engines of %s, %s, on %s; microseconds of 1, 2, 4, 8 and 16 images\n",
		   cuda_convs_name(convs[0]), nn_precision_name(plan.precision), card.name);
	for (int i = 0; i < g.nnodes; i++)
	{
		double us[MODES][SIZES];

		if (!nn_ops[g.nodes[i].op].filters)
			continue;
		for (int m = 0; m < MODES; m++)
		{
			for (int b = 0; b < SIZES; b++)
			{
				CudaConvShape shape;

				cuda_conv_shape(&plan, &g.nodes[i], &shape);
				shape.n = 1 << b;
				us[m][b] = measure(stream, convs[m], &shape, pins[m] ? atoi(pins[m]) : 0);
				sums[m][b] += us[m][b] < 0 ? us[0][b] : us[m][b];
			}
			print_row(g.nodes[i].name, names[m], us[m]);
		}
	}
	for (int m = 0; m < MODES; m++)
		print_row("all layers", names[m], sums[m]);
	for (int m = 1; m < MODES; m++)
	{
		printf("engines one for all sizes, %-5s costs", names[m]);
		for (int b = 0; b < SIZES; b++)
			printf(" %+.1f %%", (sums[m][b] / sums[0][b] - 1) * 100);
		printf("\n");
	}
	for (int m = 0; m < MODES; m++)
		cuda_convs_close(convs[m]);
	nn_graph_free(&g);
	nn_params_free(&params);
	return 0;
}
#endif
