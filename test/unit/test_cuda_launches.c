/*
 * Proves how the CUDA device launches kernels, on the imitated GPU of
 * test/cuda: how many an image takes at most, by the official layers at their
 * size; that all of ours are launched early and wait, where the GPU's code does
 * that, in captured plans too; that code for older GPUs is launched plainly;
 * and that what the runtime refuses is done without.
 */
#include "model_fixture.h"
#include "nn/cuda/module.h"

#include "gpu_on_cpu.h"
#include "launch.cuh"

#include "cuda_runtime_api.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * At 256 x 256: 16 convolutions and what follows each, but three that do it
 * themselves, the image made ready, the latent code's part; and without
 * clusters a second kernel for the norms of the five largest maps.
 */
#define MOST_KERNELS 31
#define MOST_WITHOUT_CLUSTERS 36
#define CLUSTERED 5

#define PIXELS (256 * 256)

extern const NnCudaModule bicycle_cuda_module;

static uint8_t image[PIXELS * 3], result[PIXELS * 3];
static const float z[8] = { 1 };

/* What an image takes from its third time on; nothing is computed. */
static GpuCounts
count_kernels(int index, const ModelFixture *f)
{
	GpuCounts before = { 0 }, after = { 0 };
	NnDevice *device = NULL;
	NnModel *model = NULL;

	if (bicycle_cuda_module.open(index, 1, &device, &error) == NN_OK)
		model = model_fixture_load(device, f, NN_PRECISION_BF16);
	gpu_settings->idle = 1;
	for (int run = 0; model && run < 5; run++)
	{
		before = gpu_counts();
		if (nn_model_translate(model, 1, image, z, result, &error) != NN_OK)
			diag("%s: %s", error.message, error.detail);
		after = gpu_counts();
	}
	nn_model_free(model);
	nn_device_close(device);
	gpu_settings->idle = 0;
	return (GpuCounts){ after.kernels - before.kernels, after.early - before.early,
						after.clusters - before.clusters };
}

/* Each on a card of its own: what one can is remembered. */
static void
test_counts(const ModelFixture *f)
{
	long graphs = gpu_graphs_run();
	GpuCounts n = count_kernels(0, f);

	ok(n.kernels > 20 && n.kernels <= MOST_KERNELS, "an image takes %ld kernels", n.kernels);
	ok(n.early == n.kernels && gpu_graphs_run() > graphs,
	   "all are launched early, in a captured plan: %ld", n.early);
	ok(n.clusters == CLUSTERED, "norms in clusters: %ld", n.clusters);
	gpu_settings->code = 80;
	n = count_kernels(1, f);
	gpu_settings->code = 0;
	ok(n.kernels > 20 && n.kernels <= MOST_WITHOUT_CLUSTERS && n.early == 0 && n.clusters == 0,
	   "code for older GPUs takes %ld, none of them early", n.kernels);
	gpu_settings->no_early = cudaErrorNotSupported;
	n = count_kernels(2, f);
	gpu_settings->no_early = 0;
	ok(n.kernels > 20 && n.kernels <= MOST_KERNELS && n.early == 0 && n.clusters == CLUSTERED,
	   "a runtime that launches none early is not asked again");
	gpu_settings->no_clusters = cudaErrorInvalidClusterSize;
	n = count_kernels(3, f);
	gpu_settings->no_clusters = 0;
	ok(n.kernels > 20 && n.kernels <= MOST_WITHOUT_CLUSTERS && n.early == n.kernels &&
		   n.clusters == 0,
	   "nor one that has no clusters: %ld kernels", n.kernels);
}

/* ---- The imitation is strict --------------------------------------------- */

typedef struct Nothing
{
	int nothing;
} Nothing;

KERNEL_GLOBAL(impatient, Nothing)
{
}

/* A cluster that only its first block waits for. */
KERNEL(lonely, Nothing)
{
	if (blockIdx.y == 0)
		kernel_meet();
}

KERNEL(sociable, Nothing)
{
	kernel_meet();
}

/* Whether a launch of a kernel in clusters of two ends the program. */
static bool
is_deadly(const void *kernel)
{
	KernelSize size = kernel_size(1, 2, 1, 32);
	Nothing args = { 0 };
	int how = 0;
	pid_t child = fork();

	if (child == 0)
	{
		cudaStream_t stream;

		if (!freopen("/dev/null", "w", stderr))
			_exit(1);
		signal(SIGABRT, SIG_DFL);
		size.cluster = 2;
		if (cudaStreamCreateWithFlags(&stream, 0) == cudaSuccess &&
			kernel_launch(kernel, size, stream, &args) == 0)
			(void) cudaStreamSynchronize(stream);
		_exit(0);
	}
	waitpid(child, &how, 0);
	return WIFSIGNALED(how) && WTERMSIG(how) == SIGABRT;
}

int
main(void)
{
	ModelFixture f = model_fixture("{\"ngf\":8,\"nef\":8}");

	gpu_settings->devices = 4;
	test_counts(&f);
	model_fixture_free(&f);
	ok(gpu_memory_used() == 0, "all memory of the GPU was given back");
	ok(!is_deadly(KERNEL_OF(sociable)), "a kernel that waits and meets runs");
	ok(is_deadly(KERNEL_OF(impatient)), "one that does not wait is found");
	ok(is_deadly(KERNEL_OF(lonely)), "and one that not all come to meet in");
	return done_testing();
}
