/*
 * Proves the backward of each operator: on the reference device against central
 * differences in double, along a random direction of each parameter and of all
 * together; on other devices against the reference device. A parameter stands
 * before each operator, so that the gradients of inputs are proved as well.
 *
 * In bf16 devices agree as well, on any machine: without hardware for it the
 * same products are made another way. The CPU device agrees with each family of
 * kernels that is here or emulated, with convolutions of many stretches, panels
 * and groups of images as well, which have the same bits on any number of
 * threads; and precision auto is bf16 for AMX alone.
 */
#include "emulated.h"
#include "nn/cpu/cpu.h"
#include "op_backward.h"

/* ---- Against central differences ----------------------------------------- */

/*
 * The derivative along `direction` in the numbers [first, end), by differences
 * and by the gradient.
 */
static bool
same_slope(Trained *s, const double *params, const double *gradients, const double *direction,
		   size_t first, size_t end, const char *what)
{
	const double h = 1e-5;
	double *moved = malloc((s->params.total + 1) * sizeof(double));
	double difference, expected = 0, size = 0;

	memcpy(moved, params, s->params.total * sizeof(double));
	for (size_t i = first; i < end; i++)
	{
		moved[i] = params[i] + h * direction[i];
		expected += gradients[i] * direction[i];
		size += fabs(gradients[i] * direction[i]);
	}
	difference = run(s, moved);
	for (size_t i = first; i < end; i++)
		moved[i] = params[i] - h * direction[i];
	difference = (difference - run(s, moved)) / (2 * h);
	free(moved);
	if (fabs(difference - expected) <= 1e-7 * size + 1e-9)
		return true;
	diag("along %s the slope is %.10g, not %.10g", what, difference, expected);
	return false;
}

static void
test_differences(NnDevice *ref, const Tried *c)
{
	Trained s;
	bool good = trained_init(&s, ref, c, NN_PRECISION_FP32);
	double *params = random_values(&s, 9), *direction = random_values(&s, 10);
	double *gradients;

	good = good && isfinite(run(&s, params));
	gradients = gradients_of(&s);
	for (int i = 0; good && i < s.params.n; i++)
	{
		const NnParam *p = &s.params.list[i];

		/* a bias that a norm takes away is not trained, and has no slope */
		good = p->buffer || same_slope(&s, params, gradients, direction, p->offset,
									   p->offset + p->count, p->name);
	}
	good = good && same_slope(&s, params, gradients, direction, 0, s.params.total, "all");
	ok(good, "%s: gradients are slopes", c->name);
	free(params);
	free(direction);
	free(gradients);
	trained_free(&s);
}

/* ---- Device against device ----------------------------------------------- */

/* What two gradients differ by, as a share of the second's squared norm. */
typedef struct Agreement
{
	double loss, gradients;
} Agreement;

/* Whether the losses and gradients of two runs agree. */
static bool
agree(Trained *a, Trained *b, const Agreement *limit)
{
	double *params = random_values(a, 9);
	double expected = run(a, params), got = run(b, params);
	double *x = gradients_of(a), *y = gradients_of(b);
	bool good = fabs(got - expected) <= limit->loss * fabs(expected);

	if (!good)
		diag("loss %.9g, not %.9g", got, expected);
	for (int i = 0; i < a->params.n; i++)
	{
		const NnParam *p = &a->params.list[i];
		double difference = 0, norm = 0;

		for (size_t k = p->offset; k < p->offset + p->count; k++)
		{
			difference += (x[k] - y[k]) * (x[k] - y[k]);
			norm += x[k] * x[k];
		}
		if (!(difference <= limit->gradients * norm))
		{
			diag("gradient of %s: normalised square error %.3g", p->name, difference / norm);
			good = false;
		}
	}
	free(params);
	free(x);
	free(y);
	return good;
}

static void
test_agreement(NnDevice *one, NnPrecision first, NnDevice *other, NnPrecision second,
			   const Tried *c, const Agreement *limit)
{
	Trained a, b;
	bool good = trained_init(&a, one, c, first) & trained_init(&b, other, c, second);

	good = good && agree(&a, &b, limit);
	ok(good, "%s: %s in %s agrees with %s in %s", c->name, other->name, nn_precision_name(second),
	   one->name, nn_precision_name(first));
	trained_free(&a);
	trained_free(&b);
}

/* One product tells bf16 from fp32: 1 + 2^-9 is not a bfloat16 number. */
static void
test_rounding(void)
{
	ok(nn_bf16(1 + 0x1p-9f) == 1 && nn_bf16(1 + 3 * 0x1p-9f) == 1 + 0x1p-7f &&
		   nn_bf16(1 + 0x1p-8f) == 1 && nn_bf16(1 + 3 * 0x1p-8f) == 1 + 0x1p-6f &&
		   nn_bf16(-1 - 0x1.1p-8f) == -1 - 0x1p-7f && nn_bf16(0) == 0 && isinf(nn_bf16(INFINITY)) &&
		   isnan(nn_bf16(NAN)),
	   "bfloat16 rounds to nearest, ties to even");
}

static void
test_tried(NnDevice *ref, NnDevice *cpu, const Tried *c)
{
	test_differences(ref, c);
	test_agreement(ref, NN_PRECISION_FP32, cpu, NN_PRECISION_FP32, c, &(Agreement){ 1e-5, 1e-10 });
	/*
	 * a number may lie so near the middle of two of bfloat16's that the
	 * devices' own rounding decides
	 */
	test_agreement(ref, NN_PRECISION_BF16, cpu, NN_PRECISION_BF16, c, &(Agreement){ 1e-5, 1e-8 });
	test_agreement(ref, NN_PRECISION_FP32, ref, NN_PRECISION_BF16, c, &(Agreement){ 2e-2, 1e-3 });
}

/* ---- Families of kernels ------------------------------------------------- */

/* Convolutions beyond one stretch of k, panel, band, group or unit. */
static const Case large[] = {
	{ CONV(3, 8, 8, 64, 72, 4, 2, 1) },
	{ CONV(2, 2, 2, 64, 40, 4, 2, 1) },
	{ CONV(2, 10, 12, 40, 7, 4, 2, 1), Z(3, LRELU) },
	{ CONV(1, 40, 36, 33, 17, 3, 1, 1) },
	{ CONV(5, 16, 16, 6, 8, 3, 1, 1) },
	{ CONV(2, 6, 5, 34, 1, 4, 1, 1) },
	{ CONVT(2, 1, 1, 64, 96) },
	{ CONVT(2, 7, 5, 96, 33) },
	{ CONVT(1, 24, 20, 32, 3) },
	{ CONV(3, 9, 9, 32, 36, 3, 1, 1), THEN(BATCH, RELU), SLICES },
	/* minimal filtering of each kind, few tiles and many, in both directions */
	{ CONV(1, 66, 64, 17, 24, 4, 2, 1) },
	{ CONV(2, 64, 66, 64, 16, 4, 2, 1), Z(3, LRELU) },
	{ CONV(1, 98, 96, 16, 20, 4, 2, 1), SLICES },
	{ CONV(2, 37, 33, 18, 16, 4, 2, 1) },
	{ CONV(2, 18, 21, 20, 35, 4, 1, 1) },
	{ CONV(1, 50, 52, 16, 17, 4, 1, 1), Z(2, NONE), SLICES },
	{ CONVT(2, 17, 16, 24, 21) },
	{ CONVT(2, 33, 32, 16, 64), SLICES },
};

#define LARGE ((int) (sizeof(large) / sizeof(large[0])))

/* Under a sanitizer only this machine's vectors are tried. */
#if defined(__SANITIZE_ADDRESS__)
#define SLOW 1
#else
#define SLOW 0
#endif

/* Whether gradients are the same on one thread and on three. */
static bool
same_on_threads(NnDevice *cpu, NnPrecision precision, const Tried *c)
{
	double *gradients[2] = { NULL };
	size_t total = 0;
	bool good = true;

	for (int i = 0; i < 2; i++)
	{
		Trained s;
		double *params;

		cpu->set_threads(cpu, i == 0 ? 1 : 3);
		good &= trained_init(&s, cpu, c, precision);
		params = random_values(&s, 9);
		good = good && isfinite(run(&s, params));
		gradients[i] = gradients_of(&s);
		total = s.params.total;
		free(params);
		trained_free(&s);
	}
	good = good && memcmp(gradients[0], gradients[1], total * sizeof(double)) == 0;
	free(gradients[0]);
	free(gradients[1]);
	return good;
}

static void
test_large(NnDevice *ref, NnDevice *cpu, NnPrecision precision, const CpuKernel *kernel)
{
	/*
	 * BFMMLA rounds sums to odd, twice a step. So of 9,240 gradients of outputs
	 * some six fall to another bfloat16, each of which moves a whole row of the
	 * weights' gradient by 2^-8 of its part.
	 */
	const double bf16 = kernel == &kernel_bfmmla ? 1e-6 : 1e-8;
	const Agreement limit = { 1e-5, precision == NN_PRECISION_FP32 ? 1e-10 : bf16 };

	diag("%s", kernel->name);
	for (int i = 0; i < LARGE; i++)
	{
		Tried c = { case_name(&large[i]), &large[i] };

		cpu->set_threads(cpu, 2);
		test_agreement(ref, precision, cpu, precision, &c, &limit);
		ok(same_on_threads(cpu, precision, &c), "%s: the same bits on three threads", c.name);
	}
	cpu->set_threads(cpu, 2);
}

/* Vectors of an instruction set, fp32 and bf16 by them. */
static void
test_vectors(NnDevice *ref, NnDevice *cpu, const CpuKernels *kernels)
{
	CpuDevice *device = cpu->state;

	device->kernels = kernels;
	device->bf16 = kernels->bf16;
	test_large(ref, cpu, NN_PRECISION_FP32, kernels->fp32);
	test_large(ref, cpu, NN_PRECISION_BF16, kernels->bf16);
}

static void
test_families(NnDevice *ref, NnDevice *cpu)
{
	CpuDevice *device = cpu->state, before = *device;

	test_vectors(ref, cpu, device->kernels);
	if (!SLOW && device->kernels != &cpu_kernels_base)
		test_vectors(ref, cpu, &cpu_kernels_base);
	for (int i = 0; i < EMULATED; i++)
	{
		/* blocks have whole vectors, which AVX-512 in C has not of AVX-512's */
		bool whole = emulated[i]->columns % before.kernels->lanes == 0;
		CpuKernels kernels = whole ? *before.kernels : cpu_kernels_base;
		NnPrecision precision = emulated[i]->bytes == 4 ? NN_PRECISION_FP32 : NN_PRECISION_BF16;

		kernels.fp32 = kernels.bf16 = device->bf16 = emulated[i];
		device->kernels = &kernels;
		if (!SLOW)
			test_large(ref, cpu, precision, emulated[i]);
		ok((cpu->train->automatic(cpu) == NN_PRECISION_BF16) == (emulated[i] == &kernel_amx),
		   "precision auto with %s", emulated[i]->name);
	}
	device->kernels = before.kernels;
	device->bf16 = NULL;
	ok(cpu->train->automatic(cpu) == NN_PRECISION_FP32, "precision auto is fp32 without bf16");
	device->bf16 = before.bf16;
}

int
main(void)
{
	bool has_case[NN_OPS] = { false };
	NnDevice *ref, *cpu;

	if (nn_device_open("ref", 1, &ref, &error) != NN_OK ||
		nn_device_open("cpu", 2, &cpu, &error) != NN_OK)
		return 1;
	for (size_t i = 0; i < CASES; i++)
		if (cases[i].when != INFERENCE)
		{
			has_case[cases[i].op] = true;
			test_tried(ref, cpu, &(Tried){ case_name(&cases[i]), &cases[i] });
		}
	for (size_t i = 0; i < sizeof(graphs) / sizeof(graphs[0]); i++)
		test_tried(ref, cpu, &graphs[i]);
	for (int op = 0; op < NN_OPS; op++)
		ok(has_case[op] || op == NN_OP_INPUT || nn_ops[op].inference,
		   "%s has a case with its backward", nn_ops[op].name);
	test_rounding();
	test_families(ref, cpu);
	nn_device_close(ref);
	nn_device_close(cpu);
	return done_testing();
}
