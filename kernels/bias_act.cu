/*
 * bias_act.cu
 *	  Latent code, scale and shift a channel, and activations, for one or two
 *	  readers.
 *
 * Traffic: each element is read once and written once a reader; scale, shift
 * and latents (some KiB an image) stay in L1 and L2. A thread takes vectors of
 * the same eight channels of up to four pixels, far from each other in the same
 * image, whose loads are all under way before the first is used; its neighbours
 * take neighbouring vectors of the same pixel and then the next pixel, so a
 * warp reads and writes whole 128-byte lines wherever maps are dense. There is
 * nothing to share between threads, hence no shared memory.
 */
#include "finish.cuh"

/*
 * From so many vectors on a thread takes several: all of an H100's threads, at
 * half occupancy, have one then.
 */
#define MANY_VECTORS (132 * 4 * KERNEL_THREADS)

typedef struct BiasAct
{
	KernelFinish f;
	FinishInside inside;
	KernelDivisor chunks;
	unsigned pixels; /* of an image */
	unsigned rows;   /* from a thread's pixel to its next */
} BiasAct;

/* Grid: vectors of the first `rows` pixels of an image, images. */
KERNEL_TYPED(bias_act, BiasAct)
{
	const KernelFinish *f = &a.f;
	unsigned first = blockIdx.x * blockDim.x + threadIdx.x, at = quotient(a.chunks, first);
	int n = (int) blockIdx.y, c0 = (int) (first - at * a.chunks.by) * KERNEL_VECTOR;
	KernelRaw raw[FINISH_FLIGHT];

	if (at >= a.rows)
		return;
#pragma unroll
	for (int k = 0; k < FINISH_FLIGHT; k++)
		if (at + k * a.rows < a.pixels)
			raw[k] = finish_load(f, access, a.inside.width, n, at + k * a.rows, c0);
#pragma unroll 1
	for (; at < a.pixels; at += a.rows)
	{
		float v[KERNEL_VECTOR], numbers[KERNEL_VECTOR];

		unpack_raw(access, &raw[0], v);
		if (f->latent)
			add_latent(f, access, &a.inside, n, at, c0, v);
		if (f->scale)
		{
			load_numbers(access, f->scale + c0, f->c - c0, numbers);
#pragma unroll
			for (int i = 0; i < KERNEL_VECTOR; i++)
				v[i] *= numbers[i];
		}
		if (f->shift)
		{
			load_numbers(access, f->shift + c0, f->c - c0, numbers);
#pragma unroll
			for (int i = 0; i < KERNEL_VECTOR; i++)
				v[i] += numbers[i];
		}
		store_outputs(f, access, (unsigned) n * a.pixels + at, c0, v);
		/*
		 * the loop has one body for all, as an index must be known to be in
		 * registers
		 */
#pragma unroll
		for (int k = 0; k + 1 < FINISH_FLIGHT; k++)
			raw[k] = raw[k + 1];
	}
}

KERNEL_API int
kernel_bias_act(void *stream, const KernelFinish *finish)
{
	KernelGrid grid = kernel_grid((size_t) finish->h * finish->w, finish->c);
	bool many = (size_t) grid.vectors * finish->n >= MANY_VECTORS;
	unsigned pixels = (unsigned) finish->h * (unsigned) finish->w,
			 rows = many ? (pixels + FINISH_FLIGHT - 1) / FINISH_FLIGHT : pixels,
			 threads = rows * grid.chunks;
	BiasAct a = { *finish, finish_inside(finish), grid.divide, pixels, rows };
	unsigned block = threads < KERNEL_THREADS
						 ? (threads + KERNEL_WARP - 1) / KERNEL_WARP * KERNEL_WARP
						 : KERNEL_THREADS;

	if (grid.vectors == 0 || finish->n > 65535 || !finish_fits(finish))
		return KERNEL_TOO_LARGE;
	return kernel_launch(KERNEL_FOR(bias_act, finish_access(finish)),
						 kernel_size((threads + block - 1) / block, (unsigned) finish->n, 1, block),
						 stream, &a);
}
