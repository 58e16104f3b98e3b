/*
 * cuda_train_snapshot.c
 *	  Copies of a training's arrays within the card, which leave it while the
 *	  next iterations run.
 *
 * R1 A snapshot owns a block of the pool, a stream and pinned memory, from take
 *    to drop. It is filled on the stream of kernels, so with what all that was
 *    queued before has made, and read on its own, behind an event between them.
 * R2 It takes only what the card has free, and gives it back at once: it must
 *    not drive out what inference has there.
 * R3 take is the device's owner's. What follows is one other thread's, to which
 *    nothing else here belongs.
 */
#include "nn/cuda/cuda_train.h"

#include "common/invariant.h"

#include <stdlib.h>
#include <string.h>

/* Of pinned memory, through which numbers pass on their way to any other. */
#define CHUNK_BYTES ((size_t) 4 << 20)

typedef struct CudaSnapshot
{
	CudaBlock block;
	float *array[NN_ARRAYS]; /* NULL: it has none */
	size_t counts[NN_ARRAYS];
	cudaStream_t stream;
	cudaEvent_t taken;
	void *pinned;
} CudaSnapshot;

static size_t
snapshot_numbers(const NnTraining *training, NnArray array)
{
	return array == NN_ARRAY_GRAD  ? 0
		   : array == NN_ARRAY_EMA ? training->nema
								   : training->params->total;
}

static size_t
cuda_snapshot_bytes(const NnTraining *training)
{
	size_t bytes = 0;

	for (int i = 0; i < NN_ARRAYS; i++)
		bytes = nn_sum(bytes, cuda_aligned(nn_mul(snapshot_numbers(training, i), sizeof(float))));
	return bytes;
}

static void
cuda_snapshot_drop(NnDevice *base, void *snapshot_)
{
	CudaDevice *device = base->state;
	CudaSnapshot *s = snapshot_;
	NnError ignored;

	/* perhaps this thread's first on a GPU, which is to be this one */
	(void) cuda_use(device, &ignored);
	/* what fills the block, and then what waits for it */
	if (s->taken)
		(void) cudaEventSynchronize(s->taken);
	if (s->stream)
		(void) cudaStreamDestroy(s->stream);
	if (s->taken)
		(void) cudaEventDestroy(s->taken);
	if (s->pinned)
		(void) cudaFreeHost(s->pinned);
	cuda_give(device, &s->block);
	cuda_trim(base);
	free(s);
}

/* Memory of the card that nobody uses, and how it is to be read. */
static NnStatus
open_snapshot(NnDevice *base, CudaSnapshot *s, size_t bytes, NnError *error)
{
	CudaDevice *device = base->state;
	NnDeviceRoom room;
	NnStatus status;

	cuda_room(base, &room);
	if (bytes > room.free)
	{
		status = nn_fail(error, NN_ENOMEM, "out of GPU memory");
		nn_detail(error, "A copy of the training takes %zu bytes, and %zu are free.", bytes,
				  room.free);
		return status;
	}
	status = cuda_take(device, bytes, &s->block, error);
	if (status == NN_OK)
		status = cuda_pin_host(&s->pinned, CHUNK_BYTES, error);
	if (status == NN_OK)
		status = cuda_check(error, cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking),
							"create a stream");
	return status == NN_OK ? cuda_check(error, cudaEventCreateWithFlags(&s->taken, CUDA_EVENT),
										"create an event")
						   : status;
}

/* Queues the copies within the card. */
static NnStatus
fill_snapshot(CudaDevice *device, CudaSnapshot *s, const NnTraining *training, NnError *error)
{
	char *at = s->block.data;
	NnStatus status = NN_OK;

	for (int i = 0; status == NN_OK && i < NN_ARRAYS; i++)
	{
		size_t bytes = s->counts[i] * sizeof(float);

		if (bytes == 0)
			continue;
		s->array[i] = (float *) at;
		at += cuda_aligned(bytes);
		status = cuda_check(error,
							cudaMemcpyAsync(s->array[i], training->array[i].data, bytes,
											cudaMemcpyDeviceToDevice, device->compute),
							"copy numbers of a training");
	}
	if (status == NN_OK)
		status = cuda_check(error, cudaEventRecord(s->taken, device->compute), "mark a snapshot");
	return status == NN_OK ? cuda_check(error, cudaStreamWaitEvent(s->stream, s->taken, 0),
										"wait for a snapshot")
						   : status;
}

static NnStatus
cuda_snapshot_take(NnDevice *base, NnTraining *training, void **snapshot, NnError *error)
{
	CudaDevice *device = base->state;
	CudaSnapshot *s = calloc(1, sizeof(CudaSnapshot));
	NnStatus status;

	if (!s)
		return nn_no_memory(error, sizeof(CudaSnapshot));
	for (int i = 0; i < NN_ARRAYS; i++)
		s->counts[i] = snapshot_numbers(training, i);
	status = cuda_use(device, error);
	if (status == NN_OK)
		status = open_snapshot(base, s, cuda_snapshot_bytes(training), error);
	if (status == NN_OK)
		status = fill_snapshot(device, s, training, error);
	if (status == NN_OK)
	{
		*snapshot = s;
		return NN_OK;
	}
	/* what is queued may still write there */
	(void) cudaStreamSynchronize(device->compute);
	cuda_snapshot_drop(base, s);
	return status;
}

static NnStatus
give_chunk(const CudaSnapshot *s, const float *from, size_t bytes, void *to, NnError *error)
{
	cudaError_t result = cuda_fault(FAULT_COPY), ended;

	if (result == cudaSuccess)
		result = cudaMemcpyAsync(s->pinned, from, bytes, cudaMemcpyDeviceToHost, s->stream);
	/* in any case, as what is queued goes to memory that the next uses */
	ended = cudaStreamSynchronize(s->stream);
	if (result == cudaSuccess && ended == cudaSuccess)
		memcpy(to, s->pinned, bytes);
	return cuda_check(error, result != cudaSuccess ? result : ended, "give numbers of a training");
}

static NnStatus
cuda_snapshot_get(NnDevice *base, const void *snapshot, NnArray array, size_t offset, size_t count,
				  void *data, NnError *error)
{
	const size_t most = CHUNK_BYTES / sizeof(float);
	const CudaSnapshot *s = snapshot;
	NnStatus status = cuda_use(base->state, error);

	INVARIANT(offset <= s->counts[array] && count <= s->counts[array] - offset);
	for (size_t done = 0; status == NN_OK && done < count; done += most)
		status = give_chunk(s, s->array[array] + offset + done,
							(count - done < most ? count - done : most) * sizeof(float),
							(float *) data + done, error);
	return status;
}

const NnTrainSnapshots cuda_train_snapshots = { .bytes = cuda_snapshot_bytes,
												.take = cuda_snapshot_take,
												.get = cuda_snapshot_get,
												.drop = cuda_snapshot_drop };
