/*
 * Proves, on the imitated GPU, that engines are timed as they will run: each
 * time with other weights until more than the GPU's cache holds has been read,
 * replayed from a capture, launched where that is not to be; that what cannot
 * be run is never the fastest; and that no memory stays behind, whichever call
 * fails.
 */
#include "nn_fixture.h"

#include "nn/cuda/cuda_time.h"

#include "cuda_runtime_api.h"

#define MAX_RUNS 4096
#define CALLS 45                  /* of the runtime: a timer opened, and a first batch */
#define CACHE ((size_t) 80 << 20) /* of the imitated card */
#define WEIGHTS ((size_t) 5 << 20)

static struct
{
	char *weights[MAX_RUNS];
	char *others[3]; /* of all runs */
	int n;
	bool moved;    /* one of the others */
	int fail_from; /* the run that cannot be queued; 0: none */
	cudaStream_t stream;
} seen;

static bool
note_run(void *what, char *const buffers[4])
{
	char *others[3] = { buffers[0], buffers[2], buffers[3] };

	if (seen.fail_from > 0 && seen.n + 1 >= seen.fail_from)
		return false;
	seen.moved |= seen.n > 0 && memcmp(others, seen.others, sizeof(others)) != 0;
	memcpy(seen.others, others, sizeof(others));
	if (seen.n < MAX_RUNS)
		seen.weights[seen.n++] = buffers[1];
	/* something that can be captured */
	return cudaMemcpyAsync(buffers[2], buffers[1], 256, cudaMemcpyDeviceToDevice, seen.stream) ==
		   cudaSuccess;
}

static const size_t sizes[4] = { 4096, WEIGHTS - 100, 1024, 1 };

static void
test_rotation(void)
{
	CudaTimer *timer = cuda_timer_open(seen.stream, sizes, KERNEL_BF16);
	float ms = CUDA_TIME_NEVER;
	long replayed = gpu_graphs_run();
	int apart = 0, again = 0;
	bool aligned = true;

	for (int i = 0; timer && i < 4; i++)
		ms = cuda_timer_run(timer, note_run, NULL);
	for (int i = 1; i < seen.n; i++)
	{
		aligned &= (uintptr_t) seen.weights[i] % 256 == 0;
		if (again == 0 && seen.weights[i] == seen.weights[0])
			again = i;
		for (int k = 0; k < i && again == 0; k++)
			apart += labs(seen.weights[i] - seen.weights[k]) < (long) (WEIGHTS - 100);
	}
	ok(ms > 0 && ms < CUDA_TIME_NEVER && gpu_graphs_run() > replayed,
	   "runs are replayed: %ld batches of %d runs queued", gpu_graphs_run() - replayed, seen.n);
	ok(again * WEIGHTS > CACHE && apart == 0 && aligned && !seen.moved,
	   "weights come again after %d runs of %zu MB, the rest stays", again, WEIGHTS >> 20);
	cuda_timer_close(timer);
	ok(gpu_memory_used() == 0, "all memory is given back");
}

static void
test_what_cannot_run(void)
{
	CudaTimer *timer = cuda_timer_open(seen.stream, sizes, KERNEL_F32);
	bool never = true;

	/* the first by itself, one in the capture, and one launched without it */
	for (int from = 1; from <= 3; from++)
	{
		seen.n = 0;
		seen.fail_from = from;
		never &= timer && cuda_timer_run(timer, note_run, NULL) == CUDA_TIME_NEVER;
	}
	ok(never, "what cannot be queued takes for ever");
	seen.n = seen.fail_from = 0;
	ok(timer && cuda_timer_run(timer, note_run, NULL) < CUDA_TIME_NEVER,
	   "and what comes after it is timed as ever");
	cuda_timer_close(timer);
}

/* Each of the first calls of the runtime fails once. */
static void
test_failures(void)
{
	int opened = 0, timed = 0, failed = 0, clean = 0;

	for (int n = 1; n <= CALLS; n++)
	{
		CudaTimer *timer;

		seen.n = 0;
		gpu_settings->fail_in = n;
		timer = cuda_timer_open(seen.stream, sizes, KERNEL_F16);
		opened += timer != NULL;
		timed += timer && cuda_timer_run(timer, note_run, NULL) < CUDA_TIME_NEVER;
		failed += gpu_settings->fail_in == 0;
		gpu_settings->fail_in = 0;
		cuda_timer_close(timer);
		(void) cudaStreamSynchronize(seen.stream);
		clean += gpu_memory_used() == 0;
	}
	ok(failed == CALLS && clean == CALLS && opened > 10 && opened < CALLS && timed > 0,
	   "whichever of %d calls fails, no memory stays behind: %d timers, %d times", failed, opened,
	   timed);
}

int
main(void)
{
	if (cudaSetDevice(0) != cudaSuccess ||
		cudaStreamCreateWithFlags(&seen.stream, cudaStreamNonBlocking) != cudaSuccess)
		return 1;
	test_rotation();
	test_what_cannot_run();
	test_failures();
	(void) cudaStreamDestroy(seen.stream);
	return done_testing();
}
