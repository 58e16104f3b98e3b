/*
 * cpu_memory.c
 *	  Memory of the CPU device: blocks, and what each thread of a team has of
 *	  its own (a stream, scratch memory, oneDNN's memory objects).
 *
 * R1 Streams and scratch belong to the device, memory objects to the plan.
 *    They are made and enlarged between runs only.
 */
#include "nn/cpu/cpu_run.h"

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

NnStatus
cpu_dnnl_fail(NnError *error, dnnl_status_t status, const char *what)
{
	NnStatus code = status == dnnl_unimplemented ? NN_EUNSUPPORTED : NN_EDEVICE;

	if (status == dnnl_out_of_memory)
		return nn_fail(error, NN_ENOMEM, "out of memory");
	nn_fail(error, code, "oneDNN could not %s", what);
	nn_detail(error, "Its status is %d.", (int) status);
	return code;
}

/* ---- Threads ------------------------------------------------------------- */

void
cpu_free_threads(CpuDevice *device)
{
	for (int i = 0; i < device->nthreads; i++)
	{
		if (device->threads[i].stream)
			dnnl_stream_destroy(device->threads[i].stream);
		free(device->threads[i].scratch);
	}
	free(device->threads);
	device->threads = NULL;
	device->nthreads = 0;
}

/* Makes a stream and scratch memory for each of the device's threads. */
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

		if (!thread->stream)
		{
			dnnl_status_t status =
				dnnl_stream_create(&thread->stream, device->engine, dnnl_stream_default_flags);

			if (status != dnnl_success)
				return cpu_dnnl_fail(error, status, "create a stream");
		}
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

/* ---- Memory objects ------------------------------------------------------ */

void
cpu_free_memories(CpuPlan *p)
{
	for (int i = 0; i < p->nthreads * p->nprimitives; i++)
	{
		dnnl_memory_destroy(p->memories[i].src);
		dnnl_memory_destroy(p->memories[i].dst);
		dnnl_memory_destroy(p->memories[i].scratch);
	}
	free(p->memories);
	p->memories = NULL;
	p->nthreads = 0;
}

static dnnl_status_t
create_memories(const CpuDevice *device, const CpuPrimitive *primitive, CpuMemories *m)
{
	DnnlDescRef scratch =
		dnnl_primitive_desc_query_md(primitive->desc, dnnl_query_scratchpad_md, 0);
	dnnl_status_t status = dnnl_memory_create(
		&m->src, dnnl_primitive_desc_query_md(primitive->desc, dnnl_query_src_md, 0),
		device->engine, DNNL_MEMORY_NONE);

	if (status == dnnl_success)
		status = dnnl_memory_create(
			&m->dst, dnnl_primitive_desc_query_md(primitive->desc, dnnl_query_dst_md, 0),
			device->engine, DNNL_MEMORY_NONE);
	if (status == dnnl_success)
		status = dnnl_memory_create(&m->scratch, scratch, device->engine, DNNL_MEMORY_NONE);
	return status;
}

/* For as many threads as the device has now; after an error there are none. */
NnStatus
cpu_ready_memories(CpuDevice *device, CpuPlan *p, NnError *error)
{
	const CpuLayers *layers = p->layers;
	int threads = device->base.threads;
	size_t n = (size_t) threads * layers->nprimitives;

	if (p->nthreads >= threads)
		return NN_OK;
	cpu_free_memories(p);
	p->memories = calloc(n + 1, sizeof(CpuMemories));
	if (!p->memories)
		return nn_no_memory(error, n * sizeof(CpuMemories));
	p->nthreads = threads;
	p->nprimitives = layers->nprimitives;
	for (int t = 0; t < threads; t++)
		for (int i = 0; i < layers->n; i++)
			for (int k = 0; k < layers->list[i].nprimitives; k++)
			{
				const CpuPrimitive *primitive = &layers->list[i].primitives[k];
				dnnl_status_t status =
					create_memories(device, primitive,
									&p->memories[(size_t) t * layers->nprimitives + primitive->id]);

				if (status != dnnl_success)
				{
					cpu_free_memories(p);
					return cpu_dnnl_fail(error, status, "describe memory");
				}
			}
	return NN_OK;
}
