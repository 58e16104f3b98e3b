/*
 * Proves that the trace of the CUDA device holds steps against the right work:
 * arithmetic and bytes of every layer of the official generator are what its
 * definition says, counted here from channels and extents alone; and that by a
 * model of an H200 the ways in which layers are run are worth it, parts of
 * large maps among them, and a look of the watch on diversity costs next to
 * nothing. As notes it prints them by layers.
 */
#include "nn_fixture.h"

#include "nn/cuda/cuda_shape.h"

/* Measured on an H200: products of bf16, and copies. */
#define PEAK_FLOP 790e12
#define PEAK_BYTES 4300e9

#define CACHE ((size_t) 60 << 20) /* its second-level one */

/*
 * Instructions for eight channels of a pixel, counted in the code for sm_90 by
 * test/cuda/sass.pl: of a norm, its two passes; of what has none.
 */
#define NORM_INSTRUCTIONS (94 + 136)
#define PLAIN_INSTRUCTIONS 85

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

/*
 * Fills costs with those of the generator's steps in bf16, for images of 256
 * times `scale`, and parts, if it is there, with how many images of each are
 * computed at a time; their number.
 */
static int
count_scaled(int batch, int scale, CudaCost costs[NLAYERS], int *parts)
{
	NnGraph g;
	NnPlan plan = { .graph = &g, .precision = NN_PRECISION_BF16 };
	int image, n = 0;

	nn_graph_init(&g, &params);
	image = nn_input(&g, (NnShape){ batch, 256 * scale, 256 * scale, 3 }, "image");
	nn_output(&g, nn_net_G(&g, &config, image, nn_input(&g, (NnShape){ batch, 1, 1, 8 }, "z"), 0));
	for (int i = 0; i < g.nnodes; i++)
	{
		if (g.nodes[i].op == NN_OP_INPUT)
			continue;
		if (n < NLAYERS)
			cuda_step_cost(&plan, i, &costs[n]);
		if (n < NLAYERS && parts)
			parts[n] = cuda_part_images(&plan, i, CACHE);
		n++;
		i = cuda_step_end(&g, i);
	}
	nn_graph_free(&g);
	return n;
}

static int
count(int batch, CudaCost costs[NLAYERS])
{
	return count_scaled(batch, 1, costs, NULL);
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

/* ---- A model of microseconds --------------------------------------------- */

/*
 * What a card does besides its peaks, from published figures and guesses of
 * what kernels reach of them; whoever measures may better them.
 */
#define SMS 132
#define LANES (SMS * 128 * 1.755e9) /* instructions, or products in float, a second */
#define STREAM_SHARE 0.7            /* of LANES that multiply-adds get, the rest unpacks */
#define BLOCK_BYTES 90e9            /* that one block reads a second */
#define START 2e-6                  /* of a kernel, and its end, that nothing hides */
#define GAP 1.1e-6                  /* between two that depend on each other */
#define HELD_MAP (128 * 128)        /* pixels of the largest that a norm reads once */

/* The ways there are to run a network. */
typedef struct Ways
{
	bool quads, streams, splits;
	double norm, plain, /* instructions of a finishing kernel, for eight channels of a pixel */
		slots;          /* of the card's that they get */
	int latents;        /* kernels of a layer with a latent code */
	int most;           /* images of a plan; more are several plans */
	bool parts,         /* large maps are computed some images at a time */
		cached;         /* a result that the cache holds is finished there */
} Ways;

static const Ways before = { .norm = 550, .plain = 550, .slots = 0.42, .latents = 1, .most = 64 };
static const Ways now = { .quads = true,
						  .streams = true,
						  .splits = true,
						  .norm = NORM_INSTRUCTIONS,
						  .plain = PLAIN_INSTRUCTIONS,
						  .slots = 0.6,
						  .most = CUDA_MOST_IMAGES,
						  .parts = true,
						  .cached = true };

/* A convolution by tensor cores: m pixels, k channels, sums of `depth`. */
static double
dense_time(double m, double k, double depth, double bytes, double share, bool splits)
{
	static const struct
	{
		double m, k, share; /* of the peak that large ones of such tiles reach */
	} tiles[] = { { 128, 128, 1 }, { 128, 64, 0.8 }, { 64, 64, 0.6 } };
	double best = INFINITY;

	for (int t = 0; t < 3; t++)
		for (int split = 1; split <= (splits ? 16 : 1); split *= 2)
		{
			double blocks = ceil(m / tiles[t].m) * ceil(k / tiles[t].k) * split,
				   waves = ceil(blocks / SMS),
				   flop = waves * 2 * tiles[t].m * tiles[t].k * depth / split /
						  (PEAK_FLOP / SMS * share * tiles[t].share),
				   weights = waves * 2 * tiles[t].k * depth / split / BLOCK_BYTES,
				   merge = split > 1 ? 1e-6 + 8 * split * m * k / PEAK_BYTES : 0,
				   time = fmax(fmax(flop, weights), bytes / PEAK_BYTES) + merge;

			best = fmin(best, time);
		}
	return START + best;
}

/* Pairs of a tap and a position along one axis that meet the image. */
static int
live_pairs(int from, int to, int kernel, int stride, int pad, bool taps[4])
{
	int pairs = 0;

	for (int at = 0; at < to; at++)
		for (int tap = 0; tap < kernel; tap++)
		{
			int x = at * stride - pad + tap;

			pairs += x >= 0 && x < from;
			taps[tap] |= x >= 0 && x < from;
		}
	return pairs;
}

/* Images of a layer that are computed at a time. */
typedef struct Part
{
	int layer, images, extent; /* of the result */
	CudaCost cost;
	double result; /* bytes that pass from the convolution through memory; 0: none */
} Part;

/* By the streaming kernel; square maps: both axes are alike. */
static double
stream_time(const Part *p)
{
	bool up = layers[p->layer].up;
	int to = p->extent, from = up ? to / 2 : to * 2, pairs, live = 0;
	bool taps[4] = { false };
	double channels = (double) layers[p->layer].in * layers[p->layer].out, products, weights;

	/* of a transposed one input and result change places */
	pairs = up ? live_pairs(to, from, 4, 2, 1, taps) : live_pairs(from, to, 4, 2, 1, taps);
	for (int k = 0; k < 4; k++)
		live += taps[k];
	products = (double) p->images * pairs * pairs * channels;
	weights = 2.0 * live * live * channels;
	return START + fmax(products / (LANES * STREAM_SHARE), weights / (PEAK_BYTES * 0.85));
}

static double
conv_time(const Part *p, const Ways *ways)
{
	bool up = layers[p->layer].up, quads = up && ways->quads;
	double extent = p->extent, h = extent / 2 + 1, in = layers[p->layer].in,
		   out = layers[p->layer].out, bytes = p->cost.weights + p->cost.reads + p->result;
	int sites = up ? p->extent * p->extent / 4 : p->extent * p->extent;

	if (ways->streams && p->images * sites <= KERNEL_STREAM_SITES)
		return stream_time(p);
	if (quads)
		return dense_time(p->images * h * h, 4 * fmax(out, 4), 4.0 * in, bytes, 0.62, ways->splits);
	if (up) /* each of four parities by itself, padded to a tile's channels */
		return dense_time(p->images * extent * extent, out, 4.0 * in, bytes, 0.52, false);
	return dense_time(p->images * extent * extent, out, 16.0 * fmax(in, 8), bytes, 0.62,
					  ways->splits);
}

/* The norm, activations, what is added: one kernel, or two for large maps. */
static double
finish_time(const Part *p, const Ways *ways, int *kernels)
{
	bool norm = p->layer != 0 && p->layer != 7 && p->layer != NLAYERS - 1;
	double pixels = (double) p->extent * p->extent,
		   vectors = p->images * pixels * ceil(layers[p->layer].out / 8.0),
		   work = vectors * (norm ? ways->norm : ways->plain) / (LANES * ways->slots),
		   bytes = p->cost.writes + p->result * (norm && pixels > HELD_MAP ? 2 : 1);

	*kernels = norm && pixels > 512 ? 2 : 1;
	return *kernels * START / 2 + fmax(work, bytes / PEAK_BYTES);
}

/* Microseconds of a layer: convolution and what follows, in *parts; all. */
static double
layer_time(int i, int batch, int scale, const Ways *ways, double parts[2])
{
	int n = batch < ways->most ? batch : ways->most, kernels;
	Part p = { .layer = i, .extent = layers[i].extent * scale };
	CudaCost costs[NLAYERS];
	int images[NLAYERS];
	double times;

	count_scaled(n, scale, costs, images);
	p.images = ways->parts ? images[i] : n;
	times = (double) batch / p.images;
	count_scaled(p.images, scale, costs, NULL);
	p.cost = costs[i];
	p.result = (double) p.images * p.extent * p.extent * layers[i].out * 2;
	if (ways->cached && p.result <= CACHE - CACHE / 3)
		p.result = 0;
	parts[0] = 1e6 * conv_time(&p, ways) * times;
	parts[1] = 1e6 * finish_time(&p, ways, &kernels) * times;
	if (!layers[i].up)
		kernels += ways->latents;
	return parts[0] + parts[1] + 1e6 * GAP * (1 + kernels) * times;
}

static double
network_time(int batch, int scale, const Ways *ways)
{
	double sum = 0, parts[2];

	for (int i = 0; i < NLAYERS; i++)
		sum += layer_time(i, batch, scale, ways, parts);
	return sum;
}

/* What parts are worth; and larger plans, which would hide fewer copies. */
static void
test_parts(void)
{
	Ways whole = now, large = now;
	double with = network_time(16, 2, &now), without;

	whole.parts = false;
	without = network_time(16, 2, &whole);
	ok(with < without,
	   "16 images of 512 x 512 take %.0f microseconds in parts, and %.0f all at once", with,
	   without);
	large.most = 64;
	diag(
		"64 images of 256 x 256: %.0f microseconds in plans of %d, %.0f in one of 64, %.0f without "
		"parts",
		network_time(64, 1, &now), now.most, network_time(64, 1, &large),
		(large.parts = false, network_time(64, 1, &large)));
	ok(network_time(16, 1, &now) == network_time(16, 1, &whole),
	   "16 of 256 x 256 are in the cache as they are");
}

/* Before and now, at three batch sizes; what was measured stands beside it. */
static void
print_model(void)
{
	static const int batches[] = { 1, 16, 64 };
	double sums[3][2] = { { 0 } }, floors[3] = { 0 };
	int faster = 0;

	for (int i = 0; i < NLAYERS; i++)
	{
		char line[400];
		int length = snprintf(line, sizeof(line), "| %s |", layers[i].name);

		for (int b = 0; b < 3; b++)
		{
			CudaCost costs[NLAYERS];
			double old[2], new[2], times[2];

			count(batches[b], costs);
			times[0] = layer_time(i, batches[b], 1, &before, old);
			times[1] = layer_time(i, batches[b], 1, &now, new);
			for (int k = 0; k < 2; k++)
				sums[b][k] += times[k];
			floors[b] +=
				1e6 * fmax(costs[i].flop / PEAK_FLOP,
						   (costs[i].weights + costs[i].reads + costs[i].writes) / PEAK_BYTES);
			length += snprintf(line + length, sizeof(line) - length, " %.1f + %.1f | %.1f + %.1f |",
							   old[0], old[1], new[0], new[1]);
		}
		diag("%s", line);
	}
	for (int b = 0; b < 3; b++)
	{
		diag("%d images: floor %.0f, before %.0f, now %.0f microseconds with the gaps", batches[b],
			 floors[b], sums[b][0], sums[b][1]);
		faster += floors[b] < sums[b][1] && sums[b][1] < 0.7 * sums[b][0];
	}
	ok(faster == 3, "by the model networks take less than 0.7 of their time before: %d of 3 sizes",
	   faster);
}

/* ---- The watch on diversity ---------------------------------------------- */

#define WATCH_EVERY 250 /* as run_preview.c has it */
#define WATCH_IMAGES 16
#define STEP_KERNELS 780 /* of an iteration at batch 2 (test_cuda_traffic) */
#define KERNEL_TIME 2e-6 /* that one of them takes at least */
#define WATCH_SHARE 0.5  /* of the peak, for four images at a time */
#define HOST_BYTES 4e9   /* that a core copies, or compares, in a second */
#define BUS_BYTES 10e9

/* What a look takes next to the iterations before it, by the model. */
static void
test_watch(double flop, double weights)
{
	/*
	 * parameters are looked at, and read; what is made of them is half of that
	 */
	double image = 256 * 256 * 3, pairs = 6 * 4,
		   card = WATCH_IMAGES * flop / (PEAK_FLOP * WATCH_SHARE) + 5 * weights / PEAK_BYTES,
		   host =
			   WATCH_IMAGES * image * (2 / BUS_BYTES + 3 / HOST_BYTES) + pairs * image / HOST_BYTES,
		   share = (card + host) / (WATCH_EVERY * STEP_KERNELS * KERNEL_TIME);

	ok(share < 0.02,
	   "by the model a look takes %.1f ms of the card and %.1f of the host, %.1f %% of %d "
	   "iterations",
	   1e3 * card, 1e3 * host, 100 * share, WATCH_EVERY);
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
	print_model();
	test_parts();
	test_watch(sum.flop, sum.weights);
	nn_params_free(&params);
	return done_testing();
}
