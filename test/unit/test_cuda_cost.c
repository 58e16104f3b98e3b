/*
 * Proves that the trace of the CUDA device holds steps against the right work:
 * arithmetic and bytes of every layer of the official generator are what its
 * definition says, counted here from channels and extents alone. As notes it
 * prints what follows for a card of 800 TFLOP/s and 3000 GB/s,
 * doc/performance.md's table.
 */
#include "nn_fixture.h"

#include "nn/cuda/cuda_shape.h"

#define PEAK_FLOP 800e12
#define PEAK_BYTES 3000e9

/*
 * The official unet_256, outside in and out again. MFLOP with the latent code's
 * eight channels, which the definition convolves in every layer down.
 */
static const struct
{
	const char *name;
	int in, out, /* channels, without the latent code's */
		extent;  /* of the result */
	bool up;
	double mflop; /* an image */
	/*
	 * maps that are written of the result: an activation each for the next
	 * layer down and for the one back up
	 */
	int readers;
} layers[] = {
	{ "down 128", 3, 64, 128, false, 369.1, 2 },   { "down 64", 64, 128, 64, false, 1208.0, 2 },
	{ "down 32", 128, 256, 32, false, 1140.9, 2 }, { "down 16", 256, 512, 16, false, 1107.3, 2 },
	{ "down 8", 512, 512, 8, false, 545.3, 2 },    { "down 4", 512, 512, 4, false, 136.3, 2 },
	{ "down 2", 512, 512, 2, false, 34.1, 2 },     { "down 1", 512, 512, 1, false, 8.5, 1 },
	{ "up 2", 512, 512, 2, true, 8.4, 1 },         { "up 4", 1024, 512, 4, true, 67.1, 1 },
	{ "up 8", 1024, 512, 8, true, 268.4, 1 },      { "up 16", 1024, 512, 16, true, 1073.7, 1 },
	{ "up 32", 1024, 256, 32, true, 2147.5, 1 },   { "up 64", 512, 128, 64, true, 2147.5, 1 },
	{ "up 128", 256, 64, 128, true, 2147.5, 1 },   { "up 256", 128, 3, 256, true, 201.3, 1 },
};

#define NLAYERS ((int) (sizeof(layers) / sizeof(layers[0])))

static NnConfig config;
static NnParams params;
static NnError error;

/* Fills costs with those of the generator's steps in bf16; their number. */
static int
count(int batch, CudaCost costs[NLAYERS])
{
	NnGraph g;
	NnPlan plan = { .graph = &g, .precision = NN_PRECISION_BF16 };
	int image, n = 0;

	nn_graph_init(&g, &params);
	image = nn_input(&g, (NnShape){ batch, 256, 256, 3 }, "image");
	nn_output(&g, nn_net_G(&g, &config, image, nn_input(&g, (NnShape){ batch, 1, 1, 8 }, "z"), 0));
	for (int i = 0; i < g.nnodes; i++)
	{
		if (g.nodes[i].op == NN_OP_INPUT)
			continue;
		if (n < NLAYERS)
			cuda_step_cost(&plan, i, &costs[n]);
		n++;
		i = cuda_step_end(&g, i);
	}
	nn_graph_free(&g);
	return n;
}

static bool
near(double a, double b)
{
	return fabs(a - b) <= 1e-3 * fabs(b);
}

static void
test_layer(int i, const CudaCost *cost)
{
	int before = layers[i].up ? layers[i].extent / 2 : layers[i].extent * 2;
	bool z = !layers[i].up;
	double latent = z ? 8 * sizeof(float) : 0,
		   reads = (double) before * before * layers[i].in * (i == 0 ? 1 : 2) + latent,
		   writes = (double) layers[i].extent * layers[i].extent * layers[i].out *
					(i == NLAYERS - 1 ? 1 : 2 * layers[i].readers),
		   mflop = cost->flop * 1e-6 * (z ? layers[i].in + 8.0 : layers[i].in) / layers[i].in;

	ok(fabs(mflop - layers[i].mflop) < 0.06 &&
		   cost->weights == 2.0 * 16 * layers[i].in * layers[i].out && cost->reads == reads &&
		   cost->writes == writes,
	   "%s: %.1f MFLOP with the latent code, %.0f bytes of weights, %.0f read, %.0f written",
	   layers[i].name, mflop, cost->weights, cost->reads, cost->writes);
	if (fabs(mflop - layers[i].mflop) >= 0.06 || cost->reads != reads || cost->writes != writes)
		diag("expected %.1f MFLOP, %.0f read, %.0f written", layers[i].mflop, reads, writes);
}

/* What bounds each layer, in microseconds, at three batch sizes. */
static void
print_table(void)
{
	static const int batches[] = { 1, 16, 64 };
	CudaCost costs[3][NLAYERS];
	double sums[3] = { 0 };

	for (int b = 0; b < 3; b++)
		count(batches[b], costs[b]);
	for (int i = 0; i < NLAYERS; i++)
	{
		char line[200];
		int length = snprintf(line, sizeof(line), "| %s | %d to %d | %.1f | %.2f |", layers[i].name,
							  layers[i].in, layers[i].out, costs[0][i].flop * 1e-6,
							  costs[0][i].weights * 1e-6);

		for (int b = 0; b < 3; b++)
		{
			const CudaCost *c = &costs[b][i];
			double bytes = c->weights + c->reads + c->writes, arithmetic = c->flop / PEAK_FLOP,
				   memory = bytes / PEAK_BYTES;

			sums[b] += fmax(arithmetic, memory);
			length += snprintf(line + length, sizeof(line) - length, " %.2f %s |",
							   1e6 * fmax(arithmetic, memory),
							   arithmetic > memory      ? "A"
							   : 2 * c->weights > bytes ? "W"
														: "M");
		}
		diag("%s", line);
	}
	diag("| sum | | | | %.1f | %.1f | %.1f |", 1e6 * sums[0], 1e6 * sums[1], 1e6 * sums[2]);
}

int
main(void)
{
	CudaCost one[NLAYERS], more[NLAYERS];
	CudaCost sum = { 0 };
	int n;

	nn_config_default(&config);
	if (nn_params_of(&config, 1u << NN_NET_G, &params, &error) != NN_OK)
		diag("%s", error.message);
	n = count(1, one);
	if (!ok(n == NLAYERS, "a step a layer: %d", n))
		return done_testing();
	count(16, more);
	for (int i = 0; i < NLAYERS; i++)
	{
		test_layer(i, &one[i]);
		sum = (CudaCost){ sum.flop + one[i].flop, sum.weights + one[i].weights,
						  sum.reads + one[i].reads, sum.writes + one[i].writes };
	}
	n = 0;
	for (int i = 0; i < NLAYERS; i++)
		n += more[i].flop == 16 * one[i].flop && more[i].weights == one[i].weights &&
			 more[i].reads == 16 * one[i].reads && more[i].writes == 16 * one[i].writes;
	ok(n == NLAYERS, "sixteen images are sixteen times the work with the same weights");
	ok(near(sum.weights, 108.81e6),
	   "weights: %.2f MB, the official 54.8 M parameters without the latent code's and biases",
	   sum.weights * 1e-6);
	print_table();
	nn_params_free(&params);
	return done_testing();
}
