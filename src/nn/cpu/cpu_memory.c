/*
 * cpu_memory.c
 *	  Memory of the CPU device: blocks, and the scratch memory that each thread
 *	  of a team has of its own. It belongs to the device, and is made and
 *	  enlarged between runs only.
 */
#include "nn/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t) 2 << 20)

void *
cpu_alloc(size_t bytes)
{
	size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : 64;
	void *p;

	if (bytes > SIZE_MAX - align || fault_point(FAULT_ALLOCATION))
		return NULL;
	bytes = (bytes + align - 1) / align * align;
	p = aligned_alloc(align, bytes ? bytes : align);
	if (p && align == HUGE_PAGE)
		(void) madvise(p, bytes, MADV_HUGEPAGE);
	return p;
}

/* ---- Threads ------------------------------------------------------------- */

void
cpu_free_threads(CpuDevice *device)
{
	for (int i = 0; i < device->nthreads; i++)
		free(device->threads[i].scratch);
	free(device->threads);
	device->threads = NULL;
	device->nthreads = 0;
}

/* Makes scratch memory for each of the device's threads. */
NnStatus
cpu_ready_threads(CpuDevice *device, size_t scratch_bytes, NnError *error)
{
	if (device->nthreads < device->base.threads)
	{
		CpuThread *threads = realloc(device->threads, device->base.threads * sizeof(CpuThread));

		if (!threads)
			return nn_no_memory(error, device->base.threads * sizeof(CpuThread));
		memset(threads + device->nthreads, 0,
			   (device->base.threads - device->nthreads) * sizeof(CpuThread));
		device->threads = threads;
		device->nthreads = device->base.threads;
	}
	for (int i = 0; i < device->base.threads; i++)
	{
		CpuThread *thread = &device->threads[i];

		if (thread->scratch_bytes < scratch_bytes)
		{
			void *scratch = cpu_alloc(scratch_bytes);

			if (!scratch)
				return nn_no_memory(error, scratch_bytes);
			free(thread->scratch);
			thread->scratch = scratch;
			thread->scratch_bytes = scratch_bytes;
		}
	}
	return NN_OK;
}
