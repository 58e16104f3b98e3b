/*
 * Proves of the streaming kernel, on the imitated GPU: its results are a plain
 * sum's, for every shape of small map, plain and with quads; weights of taps
 * that are outside the image everywhere are not read; an image's bits do not
 * depend on how many others there are; and nothing is written but what is
 * inside.
 */
#include "nn_fixture.h"

#include "kernels.h"

#include "cuda_runtime_api.h"

#define UNTOUCHED 1234.5f

typedef struct Data
{
	KernelStream s;
	float *x, *filter, *y; /* the imitated GPU's memory is the host's */
	size_t nx, nfilter, ny;
} Data;

static cudaStream_t stream;

static float *
numbers(uint32_t seed, size_t n)
{
	float *data = NULL;
	double *made = malloc(n * sizeof(double));

	if (cudaMalloc((void **) &data, n * sizeof(float)) != cudaSuccess)
		exit(1);
	lcg_fill(seed, 1, n, made);
	for (size_t i = 0; i < n; i++)
		data[i] = (float) made[i];
	free(made);
	return data;
}

static Data
make_data(KernelStream s)
{
	Data d = { .s = s };

	d.nx = (size_t) s.n * s.h * s.w * s.c;
	d.nfilter = (size_t) s.k * s.kernel * s.kernel * s.c;
	d.ny = (size_t) s.n * s.oh * s.ow * s.k;
	d.s.x = d.x = numbers(1, d.nx);
	d.s.filter = d.filter = numbers(2, d.nfilter);
	d.s.y = d.y = numbers(3, d.ny);
	for (size_t i = 0; i < d.ny; i++)
		d.y[i] = UNTOUCHED;
	return d;
}

static void
free_data(Data *d)
{
	(void) cudaFree(d->x);
	(void) cudaFree(d->filter);
	(void) cudaFree(d->y);
}

/* Whether channel k of pixel (oy, ox) is inside the map that is meant. */
static bool
is_inside(const KernelStream *s, int k, int oy, int ox)
{
	int y = 2 * oy - 1 + (s->quad > 0 ? k / s->quad / 2 : 0),
		x = 2 * ox - 1 + (s->quad > 0 ? k / s->quad % 2 : 0);

	return s->quad == 0 || (y >= 0 && y < 2 * s->h && x >= 0 && x < 2 * s->w);
}

/* The sum for element `at` of y; marks the weights that it uses. */
static double
plain_sum(const Data *d, size_t at, bool *used)
{
	const KernelStream *s = &d->s;
	int k = at % s->k, ox = at / s->k % s->ow, oy = at / s->k / s->ow % s->oh,
		n = at / s->k / s->ow / s->oh;
	double sum = 0;

	for (int tap = 0; tap < s->kernel * s->kernel; tap++)
		for (int c = 0; c < s->c; c++)
		{
			int y = oy * s->stride - s->pad + tap / s->kernel,
				x = ox * s->stride - s->pad + tap % s->kernel;
			size_t w = ((size_t) k * s->kernel * s->kernel + tap) * s->c + c;

			if (y < 0 || y >= s->h || x < 0 || x >= s->w)
				continue;
			used[w] = true;
			sum += (double) d->filter[w] * d->x[(((size_t) n * s->h + y) * s->w + x) * s->c + c];
		}
	return sum;
}

static bool
run(const Data *d)
{
	return kernel_stream_conv(stream, &d->s, NULL, false) == 0 &&
		   cudaStreamSynchronize(stream) == cudaSuccess;
}

/* Weights that no sum uses become NaN before it runs. */
static void
test_sums(const char *what, KernelStream s)
{
	Data d = make_data(s);
	double *expected = malloc(d.ny * sizeof(double)), worst = 0;
	bool *used = calloc(d.nfilter, sizeof(bool));
	size_t dead = 0, spoilt = 0;

	for (size_t i = 0; i < d.ny; i++)
		if (is_inside(&s, i % s.k, i / s.k / s.ow % s.oh, i / s.k % s.ow))
			expected[i] = plain_sum(&d, i, used);
	for (size_t i = 0; i < d.nfilter; i++)
		if (!used[i])
		{
			d.filter[i] = NAN;
			dead++;
		}
	if (!run(&d))
		worst = INFINITY;
	for (size_t i = 0; i < d.ny; i++)
		if (!is_inside(&s, i % s.k, i / s.k / s.ow % s.oh, i / s.k % s.ow))
			spoilt += d.y[i] != UNTOUCHED;
		else if (!(fabs(d.y[i] - expected[i]) <= worst))
			worst = fabs(d.y[i] - expected[i]);
	ok(worst < 1e-4 && spoilt == 0, "%s: sums within %.1e, %zu of %zu weights are not read", what,
	   worst, dead, d.nfilter);
	free(used);
	free(expected);
	free_data(&d);
}

/* Of images that are alike, each has the bits of the one alone. */
static void
test_bits(const char *what, KernelStream s, int images)
{
	Data one = make_data(s), many;
	size_t image = one.nx, result = one.ny;
	bool same;

	s.n = images;
	many = make_data(s);
	for (int i = 0; i < images; i++)
		memcpy(many.x + i * image, one.x, image * sizeof(float));
	same = run(&one) && run(&many);
	for (int i = 0; i < images; i++)
		same &= memcmp(many.y + i * result, one.y, result * sizeof(float)) == 0;
	ok(same, "%s: %d images have the bits of one", what, images);
	free_data(&one);
	free_data(&many);
}

#define PLAIN(n_, h_, w_, c_, k_, kernel_, stride_, pad_)                                  \
	(KernelStream)                                                                         \
	{                                                                                      \
		.n = n_, .h = h_, .w = w_, .c = c_, .oh = (h_ + 2 * pad_ - kernel_) / stride_ + 1, \
		.ow = (w_ + 2 * pad_ - kernel_) / stride_ + 1, .k = k_, .kernel = kernel_,         \
		.stride = stride_, .pad = pad_, .type = KERNEL_F32                                 \
	}
#define QUADS(n_, h_, w_, c_, quad_)                                                    \
	(KernelStream)                                                                      \
	{                                                                                   \
		.n = n_, .h = h_, .w = w_, .c = c_, .oh = h_ + 1, .ow = w_ + 1, .k = 4 * quad_, \
		.kernel = 2, .stride = 1, .pad = 1, .quad = quad_, .type = KERNEL_F32           \
	}

int
main(void)
{
	if (cudaSetDevice(0) != cudaSuccess ||
		cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess)
		return 1;
	test_sums("4x4, stride 2, to one pixel", PLAIN(1, 2, 2, 64, 16, 4, 2, 1));
	test_sums("of 16 images", PLAIN(16, 2, 2, 16, 8, 4, 2, 1));
	test_sums("to 4x4", PLAIN(1, 8, 8, 24, 8, 4, 2, 1));
	test_sums("wide", PLAIN(3, 2, 10, 8, 8, 4, 2, 1));
	test_sums("3x3 on one pixel", PLAIN(2, 1, 1, 16, 8, 3, 1, 1));
	test_sums("3x3 without padding", PLAIN(1, 5, 6, 8, 8, 3, 1, 0));
	test_sums("1x1, stride 2", PLAIN(1, 5, 5, 8, 8, 1, 2, 0));
	test_sums("4x4 with more channels than a block has threads", PLAIN(1, 4, 4, 264, 8, 4, 2, 1));
	test_sums("quads of one pixel", QUADS(1, 1, 1, 64, 8));
	test_sums("quads of 2x2", QUADS(1, 2, 2, 16, 4));
	test_sums("quads of 4x4", QUADS(1, 4, 4, 8, 16));
	test_sums("quads, wide, of three images", QUADS(3, 1, 5, 8, 8));
	test_bits("one pixel", PLAIN(1, 2, 2, 64, 8, 4, 2, 1), 16);
	test_bits("2x2", PLAIN(1, 4, 4, 40, 8, 4, 2, 1), 4);
	test_bits("quads", QUADS(1, 2, 1, 40, 8), 8);
	(void) cudaStreamDestroy(stream);
	ok(gpu_memory_used() == 0, "all memory is given back");
	return done_testing();
}
