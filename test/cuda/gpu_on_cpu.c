/*
 * gpu_on_cpu.c
 *	  An imitation of a GPU for tests: kernels run as coroutines. When they do
 *	  is decided by runtime_on_cpu.c.
 *
 * One kernel at a time, for which the caller holds a lock.
 */
#include "gpu_on_cpu.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#define WARP 32
#define STACK_BYTES (128 * 1024)

GpuIndex gpu_thread, gpu_block, gpu_block_size;

/* ---- Blocks -------------------------------------------------------------- */

typedef enum ThreadState
{
	READY,
	AT_BARRIER,
	AT_SHUFFLE,
	DONE
} ThreadState;

static struct
{
	ucontext_t context;
	ThreadState state;
	float value; /* that it gives to a shuffle */
} threads[GPU_MAX_THREADS];
static float exchanged[GPU_MAX_THREADS]; /* by the last shuffle of each warp */
static ucontext_t scheduler;
static char *stacks;
static GpuKernel running_kernel;
static const void *running_args;

void
gpu_die(const char *what)
{
	fprintf(stderr, "gpu_on_cpu: %s (block %u %u %u)\n", what, gpu_block.x, gpu_block.y,
			gpu_block.z);
	abort();
}

static void
thread_main(void)
{
	running_kernel(running_args);
	threads[gpu_thread.x].state = DONE;
}

static void
wait_in(ThreadState state)
{
	unsigned self = gpu_thread.x;

	threads[self].state = state;
	swapcontext(&threads[self].context, &scheduler);
}

void
gpu_barrier(void)
{
	wait_in(AT_BARRIER);
}

float
gpu_shuffle_xor(float value, int mask)
{
	threads[gpu_thread.x].value = value;
	wait_in(AT_SHUFFLE);
	return exchanged[gpu_thread.x ^ (unsigned) mask];
}

/* Lets threads that have all arrived go on.  False if all are done. */
static bool
release(unsigned n)
{
	unsigned count[DONE + 1] = { 0 };

	for (unsigned w = 0; w < n; w += WARP)
	{
		unsigned end = w + WARP < n ? w + WARP : n;
		unsigned shuffling = 0;

		for (unsigned t = w; t < end; t++)
			shuffling += threads[t].state == AT_SHUFFLE;
		if (shuffling > 0 && shuffling < WARP)
			gpu_die("a shuffle that not all lanes of a warp reach");
		for (unsigned t = w; t < end; t++)
		{
			if (shuffling > 0)
			{
				exchanged[t] = threads[t].value;
				threads[t].state = READY;
			}
			count[threads[t].state]++;
		}
	}
	if (count[READY] > 0)
		return true;
	if (count[AT_BARRIER] > 0 && count[AT_BARRIER] < n)
		gpu_die("a barrier that not all threads of a block reach");
	for (unsigned t = 0; t < n && count[AT_BARRIER] > 0; t++)
		threads[t].state = READY;
	return count[AT_BARRIER] > 0;
}

static void
make_thread(unsigned t)
{
	ucontext_t *context = &threads[t].context;

	getcontext(context);
	context->uc_stack.ss_sp = stacks + (size_t) t * STACK_BYTES;
	context->uc_stack.ss_size = STACK_BYTES;
	context->uc_link = &scheduler;
	makecontext(context, thread_main, 0);
	threads[t].state = READY;
}

static void
run_block(unsigned n)
{
	for (unsigned t = 0; t < n; t++)
		make_thread(t);
	do
	{
		bool backwards = gpu_chance(2) == 1;

		for (unsigned i = 0; i < n; i++)
		{
			unsigned t = backwards ? n - 1 - i : i;

			if (threads[t].state != READY)
				continue;
			gpu_thread = (GpuIndex){ t, 0, 0 };
			swapcontext(&scheduler, &threads[t].context);
		}
	} while (release(n));
}

void
gpu_run(GpuKernel kernel, GpuIndex grid, unsigned n, const void *args)
{
	bool backwards;

	if (!stacks && !(stacks = malloc((size_t) GPU_MAX_THREADS * STACK_BYTES)))
		gpu_die("out of memory");
	running_kernel = kernel;
	running_args = args;
	gpu_block_size = (GpuIndex){ n, 1, 1 };
	backwards = gpu_chance(2) == 1;
	for (unsigned z = 0; z < grid.z; z++)
		for (unsigned y = 0; y < grid.y; y++)
			for (unsigned x = 0; x < grid.x; x++)
			{
				gpu_block = backwards ? (GpuIndex){ grid.x - 1 - x, grid.y - 1 - y, grid.z - 1 - z }
									  : (GpuIndex){ x, y, z };
				run_block(n);
			}
}

/* ---- Half precision ------------------------------------------------------ */

float
__half2float(uint16_t bits)
{
	uint32_t sign = (uint32_t) (bits & 0x8000) << 16, exponent = bits >> 10 & 31,
			 mantissa = bits & 0x3ff, wide;
	float x;

	if (exponent == 0)
	{
		x = (float) mantissa * 0x1p-24f;
		return sign ? -x : x;
	}
	wide = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | mantissa << 13;
	memcpy(&x, &wide, sizeof(x));
	return x;
}

uint16_t
__float2half_rn(float x)
{
	uint32_t bits, magnitude;
	uint16_t sign;

	memcpy(&bits, &x, sizeof(bits));
	sign = (uint16_t) (bits >> 16 & 0x8000);
	magnitude = bits & 0x7fffffff;
	if (magnitude > 0x7f800000)
		return 0x7fff;
	if (magnitude >= 0x477ff000) /* rounds to 2^16 or more */
		return sign | 0x7c00;
	/*
	 * below 2^-14: a multiple of 2^-24, which adding a number of that spacing
	 * rounds to
	 */
	if (magnitude < 0x38800000)
	{
		float spaced;

		memcpy(&spaced, &magnitude, sizeof(spaced));
		spaced += 0.5f;
		memcpy(&magnitude, &spaced, sizeof(magnitude));
		return (uint16_t) (sign | (magnitude - 0x3f000000));
	}
	magnitude += 0xfff + (magnitude >> 13 & 1);
	return (uint16_t) (sign | (magnitude - 0x38000000) >> 13);
}
