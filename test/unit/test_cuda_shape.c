/*
 * Proves, from shapes alone, that a transposed convolution as the CUDA device
 * computes it, plain and with four pixels of the result in one, has every
 * product of the definition once and no other; that filters of plain ones keep
 * every weight; which layers of the official generator its streaming kernel
 * takes; and how many images of them are computed at a time, so that a GPU's
 * cache has what lies between a convolution and what follows it.
 */
#include "nn_fixture.h"

#include "nn/cuda/cuda_shape.h"

typedef struct Products
{
	int h, w, in, out; /* of the input, and channels */
	int *target;       /* output element + 1 of each (weight, input pixel) */
	long twice, wrong, outside, missing;
} Products;

static int
weight_at(const Products *p, int i, int o, int y, int x)
{
	return ((i * p->out + o) * 4 + y) * 4 + x;
}

/* The element that the definition says, or -1. */
static int
defined_target(const Products *p, int o, int ky, int kx, int pixel)
{
	int y = pixel / p->w * 2 - 1 + ky, x = pixel % p->w * 2 - 1 + kx;

	return y < 0 || y >= 2 * p->h || x < 0 || x >= 2 * p->w ? -1 : (y * 2 * p->w + x) * p->out + o;
}

/* Notes the products of row o of the filter at pixel (Y, X) of the result. */
static void
note_products(Products *p, const CudaConvShape *s, const KernelRows *f, int o, int Y, int X)
{
	int y = 2 * Y - 1 + o / f->quad / 2, x = 2 * X - 1 + o / f->quad % 2;

	if (y < 0 || y >= 2 * p->h || x < 0 || x >= 2 * p->w)
		return; /* no pixel of the map is there */
	for (int tap = 0; tap < s->kernel * s->kernel; tap++)
	{
		int iy = Y * s->stride - s->pad + tap / s->kernel,
			ix = X * s->stride - s->pad + tap % s->kernel;
		int64_t step, base = kernel_filter_row(f, o, tap, &step);

		if (iy < 0 || iy >= p->h || ix < 0 || ix >= p->w || base < 0)
			continue;
		for (int i = 0; i < p->in; i++)
		{
			int *target = &p->target[(base + i * step) * p->h * p->w + iy * p->w + ix];

			p->twice += *target != 0;
			*target = (y * 2 * p->w + x) * p->out + o % f->quad + 1;
		}
	}
}

static void
test_products(int h, int w, int in, int out)
{
	Products p = { .h = h, .w = w, .in = in, .out = out };
	NnNode node = { .op = NN_OP_CONVT, .conv = { .kernel = 4, .stride = 2, .pad = 1 } };
	NnValue values[2] = { { .shape = { 1, h, w, in } }, { .shape = { 1, 2 * h, 2 * w, out } } };
	NnGraph g = { .values = values, .nvalues = 2 };
	NnPlan plan = { .graph = &g, .precision = NN_PRECISION_BF16 };
	KernelRows f = cuda_filter(&node, in, out, 0);
	CudaConvShape s;
	long products = 0;

	node.in[0] = 0;
	node.out[0] = 1;
	cuda_conv_shape(&plan, &node, &s);
	p.target = calloc((size_t) in * out * 16 * h * w, sizeof(int));
	for (int o = 0; o < s.k; o++)
		for (int Y = 0; Y < s.oh; Y++)
			for (int X = 0; X < s.ow; X++)
				note_products(&p, &s, &f, o, Y, X);
	for (int i = 0; i < in; i++)
		for (int o = 0; o < out; o++)
			for (int tap = 0; tap < 16; tap++)
				for (int pixel = 0; pixel < h * w; pixel++)
				{
					int expected = defined_target(&p, o, tap / 4, tap % 4, pixel),
						got = p.target[(size_t) weight_at(&p, i, o, tap / 4, tap % 4) * h * w +
									   pixel];

					products += expected >= 0;
					p.missing += expected >= 0 && got == 0;
					p.outside += expected < 0 && got != 0;
					p.wrong += expected >= 0 && got != 0 && got != expected + 1;
				}
	ok(s.oh == h + 1 && s.ow == w + 1 && s.k == f.k && s.k % 8 == 0 && s.kernel == 2 &&
		   s.stride == 1 && p.twice + p.missing + p.outside + p.wrong == 0,
	   "transposed (%d,%d,%d) to %d channels: each of %ld products once", h, w, in, out, products);
	if (p.twice + p.missing + p.outside + p.wrong > 0)
		diag("%ld twice, %ld missing, %ld outside, %ld elsewhere", p.twice, p.missing, p.outside,
			 p.wrong);
	free(p.target);
}

/* Of a plain convolution that also has a latent's channels, which stay out. */
static void
test_plain_filter(void)
{
	NnNode node = { .op = NN_OP_CONV, .conv = { .kernel = 3, .stride = 1, .pad = 1 } };
	KernelRows f = cuda_filter(&node, 5, 6, 2);
	int good = 0, padding = 0;

	for (int o = 0; o < f.k; o++)
		for (int tap = 0; tap < 9; tap++)
		{
			int64_t step, base = kernel_filter_row(&f, o, tap, &step);

			padding += o >= 6 && base < 0;
			for (int i = 0; o < 6 && i < f.c; i++)
				good += base + i * step == (o * 7 + i) * 9 + tap;
		}
	ok(f.k == 8 && f.kernel == 3 && f.c == 5 && good == 6 * 9 * 5 && padding == 2 * 9,
	   "a plain filter has each weight of the image's channels at its place, and padding");
}

/* The official generator for images of a size, in bf16. */
typedef struct Official
{
	NnParams params;
	NnGraph g;
	NnPlan plan;
} Official;

static void
official_begin(Official *o, int batch, int size)
{
	NnConfig config;
	NnError error;
	int image;

	nn_config_default(&config);
	if (nn_params_of(&config, 1u << NN_NET_G, &o->params, &error) != NN_OK)
		diag("%s", error.message);
	nn_graph_init(&o->g, &o->params);
	image = nn_input(&o->g, (NnShape){ batch, size, size, 3 }, "image");
	nn_net_G(&o->g, &config, image, nn_input(&o->g, (NnShape){ batch, 1, 1, 8 }, "z"), 0);
	o->plan = (NnPlan){ .graph = &o->g, .precision = NN_PRECISION_BF16 };
}

static void
official_end(Official *o)
{
	nn_graph_free(&o->g);
	nn_params_free(&o->params);
}

/* Layers that are streamed, as letters: down 128 to down 1, up 2 to up 256. */
static void
streamed_layers(int batch, const char *expected)
{
	char got[40] = "";
	Official o;

	official_begin(&o, batch, 256);
	for (int i = 0; i < o.g.nnodes; i++)
	{
		const NnNode *node = &o.g.nodes[i];
		CudaConvShape s;

		if (!nn_ops[node->op].filters)
			continue;
		cuda_conv_shape(&o.plan, node, &s);
		strcat(got,
			   cuda_is_streamed(&s, cuda_quad(node, o.g.values[node->out[0]].shape.c)) ? "x" : ".");
	}
	ok(strcmp(got, expected) == 0, "%d images: %s are streamed", batch, got);
	official_end(&o);
}

/*
 * Images of each layer at a time, by a cache of so many MiB: most of it is what
 * the result takes, or all images are.
 */
static void
part_images(int batch, int size, int mib, const char *expected)
{
	char got[80] = "";
	size_t cache = (size_t) mib << 20;
	bool good = true;
	Official o;

	official_begin(&o, batch, size);
	for (int i = 0; i < o.g.nnodes; i++)
	{
		CudaConvShape s;
		size_t image;
		int images;

		if (!nn_ops[o.g.nodes[i].op].filters)
			continue;
		cuda_conv_shape(&o.plan, &o.g.nodes[i], &s);
		images = cuda_part_images(&o.plan, i, cache);
		image = (size_t) s.oh * s.ow * s.k * 2;
		good &= batch % images == 0 &&
				(images == batch ||
				 (images * image <= cache - cache / 3 && 2 * images * image > cache - cache / 3));
		snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%d", got[0] ? " " : "", images);
	}
	ok(good && strcmp(got, expected) == 0,
	   "%d images of %d pixels, a cache of %d MiB: %s at a time", batch, size, mib, got);
	official_end(&o);
}

int
main(void)
{
	test_products(1, 1, 3, 5);
	test_products(3, 2, 4, 3);
	test_products(2, 4, 3, 8);
	test_products(5, 1, 2, 12);
	test_plain_filter();
	streamed_layers(1, ".....xxxxxx.....");
	streamed_layers(4, "......xxxx......");
	streamed_layers(16, ".......xx.......");
	streamed_layers(32, "................");
	part_images(16, 256, 50, "16 16 16 16 16 16 16 16 16 16 16 16 16 16 16 16");
	part_images(64, 256, 50, "16 64 64 64 64 64 64 64 64 64 64 64 64 64 64 64");
	part_images(16, 512, 50, "4 16 16 16 16 16 16 16 16 16 16 16 16 16 16 16");
	part_images(16, 256, 40, "8 16 16 16 16 16 16 16 16 16 16 16 16 16 16 16");
	part_images(1, 1024, 4, "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1");
	return done_testing();
}
