/*
 * Proves what kernel.h says of every kernel of products: each that this
 * processor can run, and the emulations of those that it may not have, give the
 * sums that double gives, to the rounding of their chains; they write nothing
 * outside m x n, and no number depends on m, n or its place. Kernels that add
 * in the same way have the same bits, on any machine those that are written
 * here. Where AMX or BFMMLA is, it gives its emulation's bits for numbers of
 * all sizes, subnormal ones, infinities and NaN among them. BICYCLE_TEST_SMALL,
 * for slow tools, leaves of emulations but the bits.
 */
#include "nn/cpu/cpu_kernels.h"
#include "emulated.h"
#include "tap.h"

#include <math.h>
#include <stdlib.h>

/* ---- Blocks -------------------------------------------------------------- */

#define TAPS 3
#define LDA 640
#define LDC 40
#define MOST_K 512

static const float guard = 12345.0f;

/* A product as numbers, and as a kernel reads it. */
typedef struct Product
{
	CpuTap taps[TAPS];
	int k; /* of all taps */
	float a[CPU_KERNEL_ROWS + 1][LDA];
	float b[MOST_K][CPU_KERNEL_COLUMNS];
	uint32_t packed_a[(CPU_KERNEL_ROWS + 1) * LDA];
	uint32_t packed_b[MOST_K * CPU_KERNEL_COLUMNS];
} Product;

static uint32_t random_state;

static uint32_t
random_bits(void)
{
	random_state = random_state * 1664525u + 1013904223u;
	return random_state >> 8 ^ random_state << 24;
}

/* Sizes of numbers: exponents around 2^centre. */
typedef struct Sizes
{
	int centre, spread;
} Sizes;

/* Of a kernel's type. */
static float
random_number(const CpuKernel *kernel, Sizes sizes)
{
	int exponent = 127 + sizes.centre + (int) (random_bits() % (2 * (uint32_t) sizes.spread + 1)) -
				   sizes.spread;
	uint32_t bits = (random_bits() & (kernel->bytes == 2 ? 0x807f0000u : 0x807fffffu)) |
					(uint32_t) exponent << 23;
	float x;

	memcpy(&x, &bits, sizeof(x));
	return x;
}

static uint16_t
upper_half(float x)
{
	uint32_t bits;

	memcpy(&bits, &x, sizeof(bits));
	return (uint16_t) (bits >> 16);
}

/* k of a tap: of bfloat16 in steps of 32, which all kernels can take. */
static void
make_product(const CpuKernel *kernel, Product *p, uint32_t seed, Sizes sizes)
{
	random_state = seed;
	p->k = 0;
	for (int t = 0; t < TAPS; t++)
	{
		p->taps[t] = (CpuTap){ t * 160, 32 * (1 + (int) (seed + t) % 4) };
		p->k += p->taps[t].k;
	}
	for (int i = 0; i <= CPU_KERNEL_ROWS; i++)
		for (int k = 0; k < LDA; k++)
			p->a[i][k] = random_number(kernel, sizes);
	for (int k = 0; k < p->k; k++)
		for (int n = 0; n < CPU_KERNEL_COLUMNS; n++)
			p->b[k][n] = random_number(kernel, sizes);
}

/* Columns from n on are zeros. */
static void
pack_product(const CpuKernel *kernel, Product *p, int n)
{
	uint16_t *half = (uint16_t *) p->packed_b;
	size_t at = 0;

	for (int i = 0; i <= CPU_KERNEL_ROWS; i++)
		for (int k = 0; k < LDA; k++)
		{
			if (kernel->bytes == 2)
				((uint16_t *) p->packed_a)[i * LDA + k] = upper_half(p->a[i][k]);
			else
				((float *) p->packed_a)[i * LDA + k] = p->a[i][k];
		}
	for (int k = 0; k < p->k; k += kernel->pair)
		for (int column = 0; column < kernel->columns; column++)
			for (int i = k; i < k + kernel->pair; i++, at++)
			{
				float x = column < n ? p->b[i][column] : 0;

				if (kernel->bytes == 2)
					half[at] = upper_half(x);
				else
					((float *) p->packed_b)[at] = x;
			}
}

static void
run_block(const CpuKernel *kernel, const Product *p, int row, int m, int n, bool add, float *c)
{
	CpuBlock block = { .m = m,
					   .n = n,
					   .a = (const char *) p->packed_a + (size_t) row * LDA * kernel->bytes,
					   .lda = LDA,
					   .taps = p->taps,
					   .ntaps = TAPS,
					   .b = p->packed_b,
					   .c = c,
					   .ldc = LDC,
					   .add = add,
					   .next = (const char *) p->packed_b,
					   .ahead = 128 };

	kernel->multiply(&block);
}

/* ---- What every kernel must do ------------------------------------------- */

/* Error of a sum in units of its chain's rounding. */
static double
error_of(const Product *p, int row, int column, double start, float got)
{
	double sum = start, size = fabs(start);
	int k = 0;

	for (int t = 0; t < TAPS; t++)
		for (int i = 0; i < p->taps[t].k; i++, k++)
		{
			double product = (double) p->a[row][p->taps[t].at + i] * p->b[k][column];

			sum += product;
			size += fabs(product);
		}
	return fabs(got - sum) / (size * 0x1p-24);
}

static void
test_kernel(const CpuKernel *kernel, Product *p)
{
	double worst = 0;
	bool inside = true, same = true;
	float whole[CPU_KERNEL_ROWS * LDC];

	kernel->start();
	for (int test = 0; test < 3 * kernel->rows; test++)
	{
		int m = 1 + test % kernel->rows, n = 1 + test * 7 % kernel->columns;
		bool add = test % 2;
		float c[CPU_KERNEL_ROWS * LDC];

		if (test % 3 == 0)
			n = kernel->columns;
		make_product(kernel, p, (uint32_t) test, (Sizes){ 0, test % 8 });
		pack_product(kernel, p, kernel->columns);
		for (int i = 0; i < CPU_KERNEL_ROWS * LDC; i++)
			c[i] = whole[i] = add ? (float) (i % 17) - 8 : guard;
		run_block(kernel, p, 0, kernel->rows, kernel->columns, add, whole);
		if (n < kernel->columns)
			pack_product(kernel, p, n);
		run_block(kernel, p, 0, m, n, add, c);
		for (int i = 0; i < CPU_KERNEL_ROWS; i++)
			for (int j = 0; j < LDC; j++)
			{
				float before = add ? (float) ((i * LDC + j) % 17) - 8 : guard;

				if (i < m && j < n)
				{
					worst = fmax(worst, error_of(p, i, j, add ? before : 0, c[i * LDC + j]));
					same &= memcmp(&c[i * LDC + j], &whole[i * LDC + j], sizeof(float)) == 0;
				}
				else
					inside &= c[i * LDC + j] == before;
			}
		/* what was row 1 is row 0 of a block that begins there */
		if (m > 1)
		{
			run_block(kernel, p, 1, 1, n, false, c);
			run_block(kernel, p, 0, m, n, false, whole);
			same &= memcmp(c, whole + LDC, n * sizeof(float)) == 0;
		}
	}
	kernel->stop();
	/*
	 * sums of up to 384 numbers in one chain, in practice far below a number
	 * each
	 */
	ok(worst <= 64, "%s: sums are right to %.1f roundings", kernel->name, worst);
	ok(inside, "%s: nothing is written outside the block", kernel->name);
	ok(same, "%s: no number depends on the block or its place there", kernel->name);
}

/* ---- Bits ---------------------------------------------------------------- */

/*
 * The digest of 20 products' bits, 6 rows and 8 columns each, which every
 * kernel has; NaN as one number.
 */
static uint64_t
digest(const CpuKernel *kernel, Product *p, Sizes sizes)
{
	uint64_t hash = 14695981039346656037u;

	kernel->start();
	for (int test = 0; test < 20; test++)
	{
		float c[CPU_KERNEL_ROWS * LDC] = { 0 };

		make_product(kernel, p, 1000 + (uint32_t) test, sizes);
		pack_product(kernel, p, 8);
		c[test] = 1;
		run_block(kernel, p, 0, 6, 8, test % 2, c);
		for (int i = 0; i < 6; i++)
			for (int j = 0; j < 8; j++)
			{
				uint32_t bits = 0x7fc00000;

				if (!isnan(c[i * LDC + j]))
					memcpy(&bits, &c[i * LDC + j], sizeof(bits));
				hash = (hash ^ bits) * 1099511628211u;
			}
	}
	kernel->stop();
	return hash;
}

/* Numbers near 1, of sizes that pass the largest, and the least normal. */
static void
test_bits(const CpuKernel *kernel, Product *p, uint64_t near, uint64_t large, uint64_t small)
{
	static const Sizes sizes[] = { { 0, 6 }, { 30, 38 }, { -63, 4 } };
	static const char *const names[] = { "numbers near 1", "infinite sums", "subnormal sums" };
	uint64_t wanted[] = { near, large, small };

	for (int i = 0; i < 3; i++)
	{
		uint64_t got = digest(kernel, p, sizes[i]);

		ok(got == wanted[i], "%s: bits of %s (%016llx)", kernel->name, names[i],
		   (unsigned long long) got);
	}
}

/* What the processor makes beside what its emulation does. */
static void
test_beside(const CpuKernel *kernel, const CpuKernel *emulation, Product *p)
{
	int different = 0;

	kernel->start();
	for (int test = 0; test < 200; test++)
	{
		float c[2][CPU_KERNEL_ROWS * LDC];

		make_product(kernel, p, 5000 + (uint32_t) test,
					 (Sizes){ test % 3 ? 0 : -60, test % 5 * 15 });
		for (int i = 0; i < 20; i++)
		{
			static const float odd[] = { INFINITY, -INFINITY, NAN, 0x1p-130f, -0x1p-133f };

			p->a[random_bits() % 32][random_bits() % LDA] = odd[test % 2 ? i % 5 : 3 + i % 2];
		}
		pack_product(kernel, p, kernel->columns);
		for (int i = 0; i < CPU_KERNEL_ROWS * LDC; i++)
			c[0][i] = c[1][i] = test % 7 ? (float) (i % 17) - 8 : (float) (i % 17 - 8) * 0x1p-128f;
		run_block(kernel, p, 0, 1 + test % kernel->rows, kernel->columns, test % 3, c[0]);
		run_block(emulation, p, 0, 1 + test % kernel->rows, kernel->columns, test % 3, c[1]);
		for (int i = 0; i < CPU_KERNEL_ROWS * LDC; i++)
			different += memcmp(&c[0][i], &c[1][i], sizeof(float)) != 0 &&
						 !(isnan(c[0][i]) && isnan(c[1][i]));
	}
	kernel->stop();
	ok(different == 0, "%s gives the emulation's bits; %d numbers differ", kernel->name, different);
}

/* fp32, one rounding a product */
#define CHAIN 0x2fdcaf160fc12a74, 0x0f26f65f8be8be34, 0xc81c8365d06b1555
/* fp32, two */
#define TWO_ROUNDINGS 0x410e425382df9ff8, 0x492a53803e33d95c, 0xa8d136be56066359
/* AVX512-BF16 */
#define DOTS 0xab1b701f7983999a, 0x62dd9906fb92aee3, 0x29f15adf2a7e6964
/* AMX */
#define TILES 0xb5cf4783902f285e, 0x4339cd903e7af85a, 0x00585c19a847441e
/* BFMMLA */
#define ODD_SUMS 0x51ef889b9b9adb0d, 0x6089f8136211304b, 0xf7a6e4475512104f

int
main(void)
{
	Product *p = malloc(sizeof(Product));
	const CpuKernel *amx = cpu_amx(), *bfmmla = cpu_bfmmla();
	bool avx2 = false, avx512 = false, avx512bf16 = false;

#if defined(__x86_64__)
	avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
	avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
			 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
	avx512bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
#endif
	test_kernel(cpu_kernels_base.fp32, p);
	test_kernel(cpu_kernels_base.bf16, p);
	test_bits(cpu_kernels_base.fp32, p, TWO_ROUNDINGS);
	for (int i = 0; !getenv("BICYCLE_TEST_SMALL") && i < EMULATED; i++)
		test_kernel(emulated[i], p);
	test_bits(&kernel_fp32, p, CHAIN);
	test_bits(&kernel_bf16, p, DOTS);
	test_bits(&kernel_amx, p, TILES);
	test_bits(&kernel_bfmmla, p, ODD_SUMS);
#if defined(__aarch64__)
	test_kernel(cpu_kernels_neon.fp32, p);
	test_kernel(cpu_kernels_neon.bf16, p);
	test_bits(cpu_kernels_neon.fp32, p, CHAIN);
#endif
	if (avx2)
	{
		test_kernel(cpu_kernels_avx2.fp32, p);
		test_kernel(cpu_kernels_avx2.bf16, p);
		test_bits(cpu_kernels_avx2.fp32, p, CHAIN);
	}
	if (avx512)
	{
		test_kernel(cpu_kernels_avx512.fp32, p);
		test_bits(cpu_kernels_avx512.fp32, p, CHAIN);
	}
	if (avx512bf16)
	{
		test_kernel(cpu_kernels_avx512bf16.bf16, p);
		test_bits(cpu_kernels_avx512bf16.bf16, p, DOTS);
	}
	if (amx)
	{
		test_kernel(amx, p);
		test_bits(amx, p, TILES);
		test_beside(amx, &kernel_amx, p);
	}
	if (bfmmla)
	{
		test_kernel(bfmmla, p);
		test_bits(bfmmla, p, ODD_SUMS);
		test_beside(bfmmla, &kernel_bfmmla, p);
	}
	diag("%s", amx ? "AMX is here" : bfmmla ? "BFMMLA is here" : "neither AMX nor BFMMLA is here");
	free(p);
	return done_testing();
}
