/*
 * memory_on_cpu.c
 *	  Memory of the imitated card, pinned memory of the host, and copies, for
 *	  tests.
 *
 * Blocks are the heap's, each behind a header that lists it. As strict as
 * runtime_on_cpu.c, which runs the copies.
 */
#include "runtime_on_cpu.h"

#include <stdlib.h>

/* Before each block of the GPU's memory, and each of pinned memory. */
typedef struct Header
{
	struct Header *next;
	size_t bytes;
} Header;

#define HEADER 256 /* keeps cudaMalloc's alignment */

static Header *blocks, *pinned;

size_t
gpu_memory_used(void)
{
	return gpu_settings->used;
}

static void *
allocate(Header **list, size_t bytes)
{
	Header *header;

	if (posix_memalign((void **) &header, HEADER, HEADER + bytes) != 0)
		gpu_die("out of memory");
	*header = (Header){ *list, bytes };
	*list = header;
	/* what was not written must not look like zeros, if anything is read */
	if (!gpu_settings->idle)
		memset((char *) header + HEADER, 0xff, bytes);
	return (char *) header + HEADER;
}

/*
 * Whether [p, p + bytes) lies in a block of the list; with `touches` whether
 * any of it does.
 */
static bool
lies_in(const Header *header, const void *p, size_t bytes, bool touches)
{
	const char *begin = (const char *) header + HEADER, *end = begin + header->bytes, *at = p;

	return touches ? at < end && begin < at + bytes
				   : at >= begin && at <= end && bytes <= (size_t) (end - at);
}

static bool
is_in(const Header *list, const void *p, size_t bytes)
{
	for (const Header *h = list; h; h = h->next)
		if (lies_in(h, p, bytes, false))
			return true;
	return false;
}

/* Returns the bytes of what is freed. */
static size_t
release_block(Header **list, void *p)
{
	Header *header = (Header *) ((char *) p - HEADER);
	Header **h = list;
	size_t bytes;

	while (*h && *h != header)
		h = &(*h)->next;
	if (!*h)
		gpu_die("memory is freed that was not allocated");
	for (cudaStream_t s = gpu_streams; s; s = s->next)
		for (const GpuOp *op = s->queue.first; op; op = op->next)
			if (op->kind == OP_COPY && (lies_in(header, op->from, op->bytes, true) ||
										lies_in(header, op->to, op->bytes, true)))
				gpu_die("memory is freed before a copy of it has run");
	*h = header->next;
	bytes = header->bytes;
	if (!gpu_settings->idle)
		memset((char *) header + HEADER, 0xff, bytes);
	free(header);
	return bytes;
}

bool
gpu_is_pinned(const void *p, size_t bytes)
{
	return is_in(pinned, p, bytes);
}

cudaError_t
cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
	GpuOp op = { .kind = OP_COPY,
				 .to = to,
				 .from = from,
				 .bytes = bytes,
				 .crosses = kind != cudaMemcpyDeviceToDevice };
	RUNTIME;

	if ((kind != cudaMemcpyDeviceToHost) != is_in(blocks, to, bytes) ||
		(kind != cudaMemcpyHostToDevice) != is_in(blocks, from, bytes))
		gpu_die("a copy that is not of its kind, or beyond a block");
	if (kind != cudaMemcpyDeviceToDevice &&
		!gpu_is_pinned(kind == cudaMemcpyHostToDevice ? from : to, bytes))
		gpu_not_in_capture("a copy of memory that is not pinned");
	if (gpu_fails())
		return gpu_failure(cudaErrorInvalidValue);
	gpu_put(stream, &op);
	return cudaSuccess;
}

/* Bytes of the card that nobody has. */
static size_t
left(void)
{
	size_t taken = gpu_settings->used + gpu_settings->others;

	return taken < gpu_settings->memory ? gpu_settings->memory - taken : 0;
}

cudaError_t
cudaMalloc(void **p, size_t bytes)
{
	RUNTIME;

	gpu_not_in_capture("cudaMalloc");
	if (gpu_fails())
		return gpu_failure(cudaErrorMemoryAllocation);
	if (bytes > left())
		return gpu_report(cudaErrorMemoryAllocation);
	*p = allocate(&blocks, bytes);
	gpu_settings->used += bytes;
	return cudaSuccess;
}

cudaError_t
cudaFree(void *p)
{
	RUNTIME;

	gpu_not_in_capture("cudaFree");
	if (p)
		gpu_settings->used -= release_block(&blocks, p);
	return cudaSuccess;
}

cudaError_t
cudaMemGetInfo(size_t *free, size_t *total)
{
	RUNTIME;

	gpu_not_in_capture("cudaMemGetInfo");
	if (gpu_fails())
		return gpu_failure(cudaErrorLaunchFailure);
	*total = gpu_settings->memory;
	*free = left();
	return cudaSuccess;
}

cudaError_t
cudaMallocHost(void **p, size_t bytes)
{
	RUNTIME;

	gpu_not_in_capture("cudaMallocHost");
	if (gpu_fails())
		return gpu_failure(cudaErrorMemoryAllocation);
	*p = allocate(&pinned, bytes);
	return cudaSuccess;
}

cudaError_t
cudaFreeHost(void *p)
{
	RUNTIME;

	gpu_not_in_capture("cudaFreeHost");
	if (p)
		release_block(&pinned, p);
	return cudaSuccess;
}
