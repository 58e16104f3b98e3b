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
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define WARP 32
#define STACK_BYTES (128 * 1024)

GpuIndex gpu_thread, gpu_block, gpu_block_size;

/* ---- Stacks -------------------------------------------------------------- */

/*
 * Changing to another stack is most of what an imitated kernel costs:
 * swapcontext asks the kernel for the mask of signals, and AddressSanitizer
 * then clears what it knows of the stack. It is told here instead.
 * ThreadSanitizer knows no other.
 */
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
typedef struct Context
{
	void *top;
	void *fake; /* AddressSanitizer's */
	const void *stack;
	size_t bytes;
} Context;

extern void gpu_change_stacks(void **from, void *to) __attribute__((visibility("hidden")));

__asm__(".text\n"
		".type gpu_change_stacks, @function\n"
		"gpu_change_stacks:\n"
		"pushq %rbp\n"
		"pushq %rbx\n"
		"pushq %r12\n"
		"pushq %r13\n"
		"pushq %r14\n"
		"pushq %r15\n"
		"movq %rsp, (%rdi)\n"
		"movq %rsi, %rsp\n"
		"popq %r15\n"
		"popq %r14\n"
		"popq %r13\n"
		"popq %r12\n"
		"popq %rbx\n"
		"popq %rbp\n"
		"ret\n"
		".size gpu_change_stacks, . - gpu_change_stacks\n");

/* from: NULL if nobody will come back to it. */
static void
change(Context *from, const Context *to)
{
	Context gone;
	Context *left = from ? from : &gone;

#ifdef __SANITIZE_ADDRESS__
	__sanitizer_start_switch_fiber(from ? &from->fake : NULL, to->stack, to->bytes);
#endif
	gpu_change_stacks(&left->top, to->top);
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_finish_switch_fiber(left->fake, NULL, NULL);
#endif
}

/* What begins there never returns, and calls arrive_from() first. */
static void
prepare_stack(Context *context, char *stack, size_t bytes, void (*begin)(void))
{
	void **top = (void **) (stack + bytes / 16 * 16);

#ifdef __SANITIZE_ADDRESS__
	__asan_unpoison_memory_region(stack, bytes); /* what began there before never returned */
#endif
	*--top = NULL; /* where it would return to */
	*--top = (void *) begin;
	for (int i = 0; i < 6; i++)
		*--top = NULL;
	*context = (Context){ .top = top, .stack = stack, .bytes = bytes };
}

static void
arrive_from(Context *context)
{
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_finish_switch_fiber(NULL, &context->stack, &context->bytes);
#endif
}
#else
typedef ucontext_t Context;

static void
change(Context *from, const Context *to)
{
	Context gone;

	swapcontext(from ? from : &gone, to);
}

static void
prepare_stack(Context *context, char *stack, size_t bytes, void (*begin)(void))
{
	getcontext(context);
	context->uc_stack.ss_sp = stack;
	context->uc_stack.ss_size = bytes;
	context->uc_link = NULL;
	makecontext(context, begin, 0);
}

static void
arrive_from(Context *context)
{
}
#endif

/* ---- Threads ------------------------------------------------------------- */

typedef enum ThreadState
{
	FRESH,
	READY, /* to go on where it waited */
	AT_BARRIER,
	AT_SHUFFLE,
	AT_MEETING,
	DONE
} ThreadState;

typedef struct Thread
{
	Context context; /* of one that has waited */
	ThreadState state;
	bool left;   /* has waited: a stack is its own */
	bool waited; /* for what was launched before */
	float value; /* that it gives to a shuffle */
} Thread;

static Thread threads[GPU_MAX_CLUSTER * GPU_MAX_THREADS]; /* of a cluster, block after block */
static float exchanged[GPU_MAX_THREADS];                  /* by the last shuffle of each warp */
static Thread *block_threads;                             /* those of the block that runs */
static Context scheduler;
static char *stacks;
static unsigned nstacks, nused;
static unsigned next_thread; /* of the block, in the order of this round */
static bool backwards;
static const GpuKernel *running_kernel;
static const GpuGrid *running_grid;
static const void *running_args;

void
gpu_die(const char *what)
{
	fprintf(stderr, "gpu_on_cpu: %s (block %u %u %u)\n", what, gpu_block.x, gpu_block.y,
			gpu_block.z);
	abort();
}

static unsigned
thread_at(unsigned place)
{
	return backwards ? running_grid->threads - 1 - place : place;
}

/*
 * Runs fresh threads one after the other on one stack, until one of them waits,
 * which then keeps it: a kernel without barriers costs no change of stacks.
 */
static void
run_fresh(void)
{
	arrive_from(&scheduler);
	while (next_thread < running_grid->threads &&
		   block_threads[thread_at(next_thread)].state == FRESH)
	{
		unsigned t = thread_at(next_thread++);
		Thread *self = &block_threads[t];

		gpu_thread = (GpuIndex){ t, 0, 0 };
		running_kernel->run(running_args);
		if (running_grid->early && !self->waited)
			gpu_die("a kernel that does not wait for what was launched before it");
		self->state = DONE;
		if (self->left)
			change(NULL, &scheduler);
	}
	nused--; /* the stack, of which nobody has made his own */
	change(NULL, &scheduler);
}

static void
wait_in(ThreadState state)
{
	Thread *self = &block_threads[gpu_thread.x];

	self->state = state;
	self->left = true;
	change(&self->context, &scheduler);
}

void
gpu_barrier(void)
{
	wait_in(AT_BARRIER);
}

void
gpu_meet(void)
{
	wait_in(AT_MEETING);
}

void
gpu_await(void)
{
	block_threads[gpu_thread.x].waited = true;
}

float
gpu_shuffle_xor(float value, int mask)
{
	block_threads[gpu_thread.x].value = value;
	wait_in(AT_SHUFFLE);
	return exchanged[gpu_thread.x ^ (unsigned) mask];
}

/* ---- Blocks -------------------------------------------------------------- */

/*
 * Lets threads that have all arrived go on. False if all are done, or wait for
 * other blocks.
 */
static bool
release(unsigned n)
{
	unsigned count[DONE + 1] = { 0 };

	for (unsigned w = 0; w < n; w += WARP)
	{
		unsigned end = w + WARP < n ? w + WARP : n;
		unsigned shuffling = 0;

		for (unsigned t = w; t < end; t++)
			shuffling += block_threads[t].state == AT_SHUFFLE;
		if (shuffling > 0 && shuffling < WARP)
			gpu_die("a shuffle that not all lanes of a warp reach");
		for (unsigned t = w; t < end; t++)
		{
			if (shuffling > 0)
			{
				exchanged[t] = block_threads[t].value;
				block_threads[t].state = READY;
			}
			count[block_threads[t].state]++;
		}
	}
	if (count[READY] > 0)
		return true;
	if (count[AT_BARRIER] > 0 && count[AT_BARRIER] < n)
		gpu_die("a barrier that not all threads of a block reach");
	for (unsigned t = 0; t < n && count[AT_BARRIER] > 0; t++)
		block_threads[t].state = READY;
	return count[AT_BARRIER] > 0;
}

static void
begin_fresh(void)
{
	static Context context;
	char *stack = stacks + (size_t) nused++ * STACK_BYTES;

	prepare_stack(&context, stack, STACK_BYTES, run_fresh);
	change(&scheduler, &context);
}

/* Until its threads are done or meet others. */
static void
run_block(unsigned n)
{
	do
	{
		backwards = gpu_chance(2) == 1;
		next_thread = 0;
		while (next_thread < n)
		{
			unsigned t = thread_at(next_thread);

			if (block_threads[t].state == FRESH)
			{
				begin_fresh();
				continue;
			}
			next_thread++;
			gpu_thread = (GpuIndex){ t, 0, 0 };
			if (block_threads[t].state == READY)
				change(&scheduler, &block_threads[t].context);
		}
	} while (release(n));
}

/* Lets a cluster whose threads have all met go on. False if all are done. */
static bool
end_meeting(unsigned n)
{
	unsigned met = 0;

	for (unsigned t = 0; t < n; t++)
		met += threads[t].state == AT_MEETING;
	if (met > 0 && met < n)
		gpu_die("a meeting that not all threads of a cluster come to");
	for (unsigned t = 0; t < n && met > 0; t++)
		threads[t].state = READY;
	return met > 0;
}

/* The blocks from `first` on, along y. */
static void
run_cluster(GpuIndex first)
{
	unsigned n = running_grid->threads, all = n * running_grid->cluster;

	nused = 0;
	for (unsigned t = 0; t < all; t++)
	{
		threads[t].state = FRESH;
		threads[t].waited = threads[t].left = false;
	}
	do
		for (unsigned b = 0; b < running_grid->cluster; b++)
		{
			gpu_block = (GpuIndex){ first.x, first.y + b, first.z };
			block_threads = threads + (size_t) b * n;
			run_block(n);
		}
	while (end_meeting(all));
}

/* Stacks for so many threads; nothing runs. */
static void
make_stacks(unsigned n)
{
	if (n <= nstacks)
		return;
	free(stacks);
	nstacks = n > GPU_MAX_THREADS ? n : GPU_MAX_THREADS;
	stacks = malloc((size_t) nstacks * STACK_BYTES);
	if (!stacks)
		gpu_die("out of memory");
}

void
gpu_run(const GpuKernel *kernel, const GpuGrid *grid, const void *args)
{
	GpuIndex n = grid->blocks;
	bool from_the_end;

	make_stacks(grid->threads * grid->cluster);
	running_kernel = kernel;
	running_grid = grid;
	running_args = args;
	gpu_block_size = (GpuIndex){ grid->threads, 1, 1 };
	from_the_end = gpu_chance(2) == 1;
	for (unsigned z = 0; z < n.z; z++)
		for (unsigned y = 0; y < n.y; y += grid->cluster)
			for (unsigned x = 0; x < n.x; x++)
				run_cluster(from_the_end
								? (GpuIndex){ n.x - 1 - x, n.y - grid->cluster - y, n.z - 1 - z }
								: (GpuIndex){ x, y, z });
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
