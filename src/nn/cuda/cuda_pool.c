/*
 * cuda_pool.c
 *	  A GPU's memory, CUDA's errors, and how the device waits.
 *
 * R1 Packed weights and plans own the blocks that they took, and give them
 *    back. What lies in the pool beyond that is spare.
 * R2 `taken` counts every byte that the pool has of CUDA: blocks that are in
 *    use, and spare ones. It exceeds `limit` only after that was lowered.
 *
 * The pool's lock is the device's only one; all here may be called from any
 * thread.
 */
#include "nn/cuda/cuda.h"

#include "common/invariant.h"

#include <stdlib.h>
#include <time.h>

#define RESERVE 8    /* the part of the card that is left alone without a limit */
#define AWAKE 300000 /* ns of a wait */
#define SECOND 1000000000

NnStatus
cuda_check(NnError *error, cudaError_t result, const char *what)
{
	if (result == cudaSuccess)
		return NN_OK;
	/* CUDA keeps it for whoever asks next: not to be taken for a kernel's */
	(void) cudaGetLastError();
	if (result == cudaErrorMemoryAllocation)
	{
		nn_fail(error, NN_ENOMEM, "out of GPU memory");
		nn_detail(error, "CUDA could not %s.", what);
		return NN_ENOMEM;
	}
	nn_fail(error, NN_EDEVICE, "GPU could not %s", what);
	nn_detail(error, "CUDA reported: %s.", cudaGetErrorString(result));
	return NN_EDEVICE;
}

static int64_t
clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t) t.tv_sec * SECOND + t.tv_nsec;
}

NnStatus
cuda_await(cudaEvent_t event, const char *what, NnError *error)
{
	int64_t end = clock_ns() + AWAKE;
	cudaError_t result;

	while ((result = cudaEventQuery(event)) == cudaErrorNotReady && clock_ns() < end)
		;
	if (result == cudaErrorNotReady)
	{
		(void) cudaGetLastError(); /* which it is not */
		result = cudaEventSynchronize(event);
	}
	return cuda_check(error, result, what);
}

NnStatus
cuda_use(const CudaDevice *device, NnError *error)
{
	return cuda_check(error, cudaSetDevice(device->index), "be chosen");
}

void
cuda_drop_spares(CudaPool *pool)
{
	while (pool->nspare > 0)
	{
		CudaBlock *b = &pool->spare[--pool->nspare];

		INVARIANT(pool->taken >= b->bytes);
		(void) cudaFree(b->data);
		pool->taken -= b->bytes;
	}
}

/* A spare block of that size: a larger one wastes memory. Lock held. */
static bool
take_spare(CudaPool *pool, size_t bytes, CudaBlock *block)
{
	for (int i = 0; i < pool->nspare; i++)
		if (pool->spare[i].bytes == bytes)
		{
			*block = pool->spare[i];
			pool->spare[i] = pool->spare[--pool->nspare];
			return true;
		}
	return false;
}

static NnStatus
take_new(CudaPool *pool, size_t bytes, CudaBlock *block, NnError *error)
{
	cudaError_t result = cudaErrorMemoryAllocation;
	NnStatus status;

	if (bytes <= pool->limit && pool->taken <= pool->limit - bytes)
		result = cuda_fault(FAULT_ALLOCATION) == cudaSuccess ? cudaMalloc(&block->data, bytes)
															 : cudaErrorMemoryAllocation;
	if (result == cudaErrorMemoryAllocation && pool->nspare > 0)
	{
		(void) cudaGetLastError();
		cuda_drop_spares(pool);
		return take_new(pool, bytes, block, error);
	}
	status = cuda_check(error, result, "allocate it");
	if (status == NN_ENOMEM)
	{
		nn_detail(error, "%zu bytes are wanted, %zu are in use, and the limit is %zu.", bytes,
				  (size_t) pool->taken, (size_t) pool->limit);
		nn_hint(error, "Raise the setting \"bicycle.gpu_memory\", or free memory of the GPU that "
					   "other processes hold.");
	}
	if (status != NN_OK)
		return status;
	block->bytes = bytes;
	pool->taken += bytes;
	return NN_OK;
}

NnStatus
cuda_take(CudaDevice *device, size_t bytes, CudaBlock *block, NnError *error)
{
	NnStatus status = NN_OK;

	*block = (CudaBlock){ 0 };
	bytes = cuda_aligned(bytes > 0 ? bytes : 1);
	pthread_mutex_lock(&device->pool.lock);
	if (!take_spare(&device->pool, bytes, block))
		status = take_new(&device->pool, bytes, block, error);
	pthread_mutex_unlock(&device->pool.lock);
	return status;
}

void
cuda_give(CudaDevice *device, CudaBlock *block)
{
	CudaPool *pool = &device->pool;

	if (!block->data)
		return;
	pthread_mutex_lock(&pool->lock);
	if (pool->nspare < CUDA_FREE_BLOCKS && pool->taken <= pool->limit)
		pool->spare[pool->nspare++] = *block;
	else
	{
		INVARIANT(pool->taken >= block->bytes);
		(void) cudaFree(block->data);
		pool->taken -= block->bytes;
	}
	pthread_mutex_unlock(&pool->lock);
	*block = (CudaBlock){ 0 };
}

/* ---- Pinned memory of the host ------------------------------------------- */

typedef struct CudaPinned
{
	struct CudaPinned *next;
	char *data;
	size_t bytes;
} CudaPinned;

NnStatus
cuda_pin_host(void **memory, size_t bytes, NnError *error)
{
	cudaError_t result = cuda_fault(FAULT_ALLOCATION);

	if (result == cudaSuccess)
		result = cudaMallocHost(memory, bytes);
	return cuda_check(error, result, "pin memory of the host");
}

void *
cuda_pin(NnDevice *base, size_t bytes)
{
	CudaDevice *device = base->state;
	CudaPinned *pinned = calloc(1, sizeof(CudaPinned));
	NnError ignored;
	NnStatus status = pinned ? cuda_use(device, &ignored) : NN_ENOMEM;

	if (status == NN_OK)
		status = cuda_pin_host((void **) &pinned->data, bytes, &ignored);
	if (status != NN_OK)
	{
		free(pinned);
		return NULL;
	}
	pinned->bytes = bytes;
	pthread_mutex_lock(&device->pool.lock);
	pinned->next = device->pinned;
	device->pinned = pinned;
	pthread_mutex_unlock(&device->pool.lock);
	return pinned->data;
}

void
cuda_unpin(NnDevice *base, void *memory)
{
	CudaDevice *device = base->state;
	CudaPinned **at, *pinned;
	NnError ignored;

	pthread_mutex_lock(&device->pool.lock);
	for (at = &device->pinned; *at && (*at)->data != memory;)
		at = &(*at)->next;
	pinned = *at;
	INVARIANT(pinned);
	*at = pinned->next;
	pthread_mutex_unlock(&device->pool.lock);
	(void) cuda_use(device, &ignored);
	(void) cudaFreeHost(memory);
	free(pinned);
}

bool
cuda_is_pinned(CudaDevice *device, const void *memory, size_t bytes)
{
	const char *at = memory;
	bool found = false;

	pthread_mutex_lock(&device->pool.lock);
	for (const CudaPinned *p = device->pinned; p && !found; p = p->next)
		found = at >= p->data && bytes <= p->bytes && (size_t) (at - p->data) <= p->bytes - bytes;
	pthread_mutex_unlock(&device->pool.lock);
	return found;
}

/* ---- Limits -------------------------------------------------------------- */

void
cuda_set_memory(NnDevice *base, size_t bytes)
{
	CudaDevice *device = base->state;
	CudaPool *pool = &device->pool;
	NnError ignored;

	pthread_mutex_lock(&pool->lock);
	pool->limit = bytes > 0 && bytes < device->card_bytes ? bytes
				  : bytes > 0                             ? device->card_bytes
							  : device->card_bytes - device->card_bytes / RESERVE;
	if (pool->taken > pool->limit && cuda_use(device, &ignored) == NN_OK)
		cuda_drop_spares(pool);
	pthread_mutex_unlock(&pool->lock);
}

void
cuda_room(NnDevice *base, NnDeviceRoom *room)
{
	CudaDevice *device = base->state;
	CudaPool *pool = &device->pool;
	size_t has = device->card_bytes, all, library = cuda_conv_library_bytes(device->card_bytes);
	NnError ignored;

	if (cuda_use(device, &ignored) == NN_OK)
		(void) cuda_check(&ignored, cudaMemGetInfo(&has, &all), "be asked for its memory");
	pthread_mutex_lock(&pool->lock);
	*room = (NnDeviceRoom){ .card = device->card_bytes, .most = pool->limit };
	room->free = pool->taken < pool->limit ? pool->limit - pool->taken : 0;
	pthread_mutex_unlock(&pool->lock);
	has = has > library ? has - library : 0;
	if (has < room->free)
		room->free = has;
}

/* False if nothing was spare. */
static bool
drop_spares(CudaDevice *device)
{
	NnError ignored;
	bool some;

	pthread_mutex_lock(&device->pool.lock);
	some = device->pool.nspare > 0 && cuda_use(device, &ignored) == NN_OK;
	if (some)
		cuda_drop_spares(&device->pool);
	pthread_mutex_unlock(&device->pool.lock);
	return some;
}

void
cuda_trim(NnDevice *base)
{
	(void) drop_spares(base->state);
}

NnStatus
cuda_open_conv(CudaDevice *device, const CudaConvShape *shape, CudaConv **conv, NnError *error)
{
	NnStatus status = cuda_conv_open(device->convs, shape, conv, error);

	if (status == NN_ENOMEM && drop_spares(device))
		status = cuda_conv_open(device->convs, shape, conv, error);
	return status;
}

NnStatus
cuda_prove_conv(CudaDevice *device, CudaConv *conv, const void *x, void *filter, void *y,
				void *workspace, size_t bytes, NnError *error)
{
	NnStatus status = cuda_conv_prove(device->convs, conv, x, filter, y, workspace, bytes, error);

	if (status == NN_ENOMEM && drop_spares(device))
		status = cuda_conv_prove(device->convs, conv, x, filter, y, workspace, bytes, error);
	return status;
}

void
cuda_memory(const NnDevice *base, NnDeviceMemory *memory)
{
	const CudaDevice *device = base->state;

	*memory = (NnDeviceMemory){ .limit = device->pool.limit, .used = device->pool.taken };
}
