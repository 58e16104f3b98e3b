/*
 * launch.cu
 *	  Launching a kernel, early where the GPU's code allows it.
 *
 * R1 What a device can is asked once after it is opened, of the first kernel
 *    that is launched on it: all have been compiled for the same. Code for 8.0
 *    that the driver translates for a later GPU waits for nothing, so it is the
 *    code that says, not the card.
 * R2 What the runtime refuses is not asked for again on that device. That is
 *    seen at the first, uncaptured launch.
 *
 * Two threads may launch, on streams of their own: what they find is the same.
 */
#include "common.cuh"

#include <cuda_runtime_api.h>

#define MAX_DEVICES 64

enum
{
	KNOWN = 1, /* the rest is */
	EARLY = 2, /* before what was launched before has ended */
	CLUSTERS = 4
};

static unsigned char abilities[MAX_DEVICES];

/* Where those of the current device are; NULL: there are no more than none. */
static unsigned char *
own_abilities(void)
{
	int device = 0;

	if (cudaGetDevice(&device) != cudaSuccess || device >= MAX_DEVICES)
		return NULL;
	return &abilities[device];
}

static unsigned
find_abilities(const void *kernel)
{
	unsigned char *own = own_abilities();
	unsigned found = own ? __atomic_load_n(own, __ATOMIC_RELAXED) : KNOWN;
	struct cudaFuncAttributes attributes;

	if (found & KNOWN)
		return found;
	if (cudaFuncGetAttributes(&attributes, kernel) != cudaSuccess)
	{
		(void) cudaGetLastError();
		return KNOWN; /* of this launch */
	}
	found = attributes.ptxVersion >= 90 ? KNOWN | EARLY | CLUSTERS : KNOWN;
	__atomic_store_n(own, (unsigned char) found, __ATOMIC_RELAXED);
	return found;
}

KERNEL_API void
kernel_open_device(void)
{
	unsigned char *own = own_abilities();

	if (own)
		__atomic_store_n(own, 0, __ATOMIC_RELAXED);
}

static void
forget_ability(unsigned which)
{
	unsigned char *own = own_abilities();

	if (own)
		__atomic_fetch_and(own, (unsigned char) ~which, __ATOMIC_RELAXED);
}

static int
launch_with(const void *kernel, KernelSize size, void *stream, const void *args, bool early)
{
	cudaLaunchConfig_t config = {};
	cudaLaunchAttribute attributes[2];
	void *list[] = { (void *) args };
	cudaError_t result;

	config.gridDim.x = size.x;
	config.gridDim.y = size.y;
	config.gridDim.z = size.z;
	config.blockDim.x = size.threads;
	config.blockDim.y = config.blockDim.z = 1;
	config.stream = (cudaStream_t) stream;
	config.attrs = attributes;
	if (early)
	{
		attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
		attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
	}
	if (size.cluster > 1)
	{
		attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
		attributes[config.numAttrs].val.clusterDim.x = 1;
		attributes[config.numAttrs].val.clusterDim.y = size.cluster;
		attributes[config.numAttrs++].val.clusterDim.z = 1;
	}
	result = cudaLaunchKernelExC(&config, kernel, list);
	if (result != cudaSuccess)
		(void) cudaGetLastError();
	return (int) result;
}

/* Whether an error says that what was asked for is not to be had. */
static bool
is_refusal(int result)
{
	return result == cudaErrorInvalidValue || result == cudaErrorInvalidConfiguration ||
		   result == cudaErrorNotSupported || result == cudaErrorInvalidClusterSize ||
		   result == cudaErrorLaunchOutOfResources;
}

KERNEL_API bool
kernel_clusters(const void *kernel)
{
	return (find_abilities(kernel) & CLUSTERS) != 0;
}

KERNEL_API int
kernel_launch(const void *kernel, KernelSize size, void *stream, const void *args)
{
	bool early = (find_abilities(kernel) & EARLY) != 0;
	int result = launch_with(kernel, size, stream, args, early);

	if (early && is_refusal(result))
	{
		result = launch_with(kernel, size, stream, args, false);
		if (result == 0)
			forget_ability(EARLY);
	}
	if (size.cluster > 1 && is_refusal(result))
		forget_ability(CLUSTERS);
	return result;
}
