/*
 * cuda_train.c
 *	  Training on the GPU: primitives, updates, and the arrays' way in and out.
 *
 * R1 Work is queued on the device's stream of kernels, in order; `number`,
 *    `get` and `put` wait for it.
 * R2 Called by the device's owner.
 */
#include "nn/cuda/cuda_train.h"

#include "common/invariant.h"

/* ---- Primitives ---------------------------------------------------------- */

/*
 * The step's number on the card becomes what is pinned, which nothing that is
 * queued may still read.
 */
static NnStatus
send_step(const CudaTraining *state, NnError *error)
{
	return cuda_check(error,
					  cudaMemcpyAsync(state->sent, state->pinned, sizeof(KernelStep),
									  cudaMemcpyHostToDevice, state->stream),
					  "take the number of an iteration");
}

static NnStatus
cuda_train_begin(NnDevice *base, NnTraining *training, NnError *error)
{
	CudaTraining *state = training->plan.device_state;
	NnStatus status = cuda_use(state->device, error);

	if (status == NN_OK)
		status = cuda_train_drain(state, error);
	if (status != NN_OK)
		return status;
	state->step = (const KernelStep *) state->sent;
	*state->pinned = cuda_train_step_of(training, NULL, 0, 0);
	status = send_step(state, error);
	return status == NN_OK ? cuda_train_renew_filters(state, training, error) : status;
}

static NnStatus
cuda_train_zero(NnDevice *base, const NnTraining *training, const NnMap *map, NnError *error)
{
	const CudaTraining *state = training->plan.device_state;
	KernelMap to = cuda_train_map(state, map);

	return cuda_launched(error, kernel_zero(state->stream, &to, nn_map_pixels(map), map->shape.c));
}

static NnStatus
cuda_train_feed(NnDevice *base, const NnTraining *training, const NnMap *map, const void *data,
				NnError *error)
{
	const CudaTraining *state = training->plan.device_state;
	KernelMap from = kernel_map(state->fed, KERNEL_F32, map->shape.c),
			  to = cuda_train_map(state, map);
	NnStatus status =
		cuda_check(error,
				   cudaMemcpyAsync(state->fed, data, nn_map_count(map) * sizeof(float),
								   cudaMemcpyHostToDevice, state->stream),
				   "take an input");

	if (status == NN_OK)
		status = cuda_launched(error, kernel_convert(state->stream, &from, &to, nn_map_pixels(map),
													 map->shape.c, map->shape.c));
	/* the caller's memory is its own again */
	return status == NN_OK ? cuda_train_drain(state, error) : status;
}

static NnStatus
cuda_train_number(NnDevice *base, const NnTraining *training, const NnMap *map, double *value,
				  NnError *error)
{
	CudaTraining *state = training->plan.device_state;
	NnStatus status = cuda_check(error,
								 cudaMemcpyAsync(state->seen->losses, map->data, sizeof(float),
												 cudaMemcpyDeviceToHost, state->stream),
								 "give a loss");

	INVARIANT(map->wide);
	if (status == NN_OK)
		status = cuda_train_drain(state, error);
	*value = state->seen->losses[0];
	return status;
}

static NnStatus
cuda_train_follow(NnDevice *device, const NnTraining *training, NnNumbers to, NnNumbers base,
				  NnNumbers from, size_t n, double share, double numerator, double denominator,
				  NnError *error)
{
	const CudaTraining *state = training->plan.device_state;

	return cuda_launched(error, kernel_follow(state->stream, to.f32, base.f32, from.f32, (int) n,
											  (float) share, (float) (numerator / denominator)));
}

static NnStatus
cuda_train_update(NnDevice *base, NnTraining *training, const NnAdam *adam, double step,
				  double root, NnError *error)
{
	CudaTraining *state = training->plan.device_state;
	KernelUpdate update = cuda_train_update_of(training, true);
	NnStatus status = cuda_use(state->device, error);

	if (status == NN_OK)
		status = cuda_train_drain(state, error);
	if (status != NN_OK)
		return status;
	*state->pinned = cuda_train_step_of(training, adam, step, root);
	status = send_step(state, error);
	return status == NN_OK ? cuda_launched(error, kernel_update(state->stream, &update)) : status;
}

/* ---- Arrays in and out --------------------------------------------------- */

static NnStatus
cuda_train_get(NnDevice *base, NnTraining *training, NnArray array, size_t offset, size_t count,
			   void *data, NnError *error)
{
	CudaTraining *state = training->plan.device_state;
	NnStatus status = cuda_use(state->device, error);

	if (status == NN_OK && count > 0)
		status = cuda_check(error, cuda_fault(FAULT_COPY), "give numbers of a training");
	if (status == NN_OK && count > 0)
		status = cuda_check(error,
							cudaMemcpyAsync(data, training->array[array].f32 + offset,
											count * sizeof(float), cudaMemcpyDeviceToHost,
											state->stream),
							"give numbers of a training");
	/* in any case, as what is queued goes to memory that may end */
	if (state->stream)
	{
		NnStatus ended = cuda_train_drain(state, status == NN_OK ? error : &(NnError){ 0 });

		status = status == NN_OK ? ended : status;
	}
	return status;
}

static NnStatus
cuda_train_put(NnDevice *base, NnTraining *training, NnArray array, size_t offset, size_t count,
			   const void *data, NnError *error)
{
	CudaTraining *state = training->plan.device_state;
	NnStatus status = cuda_use(state->device, error);

	state->stale |= array == NN_ARRAY_PARAM;
	if (status == NN_OK && count > 0)
		status = cuda_check(error, cuda_fault(FAULT_COPY), "take numbers of a training");
	if (status == NN_OK && count > 0)
		status = cuda_check(error,
							cudaMemcpyAsync(training->array[array].f32 + offset, data,
											count * sizeof(float), cudaMemcpyHostToDevice,
											state->stream),
							"take numbers of a training");
	return status == NN_OK ? cuda_train_drain(state, error) : status;
}

static NnStatus
cuda_train_finite(NnDevice *base, const NnTraining *training, NnArray array, size_t count,
				  bool *finite, NnError *error)
{
	CudaTraining *state = training->plan.device_state;
	KernelMap flag = kernel_map(state->fed, KERNEL_F32, KERNEL_VECTOR);
	NnStatus status = cuda_use(state->device, error);

	if (status == NN_OK)
		status = cuda_launched(error, kernel_zero(state->stream, &flag, 1, KERNEL_VECTOR));
	if (status == NN_OK)
		status = cuda_launched(
			error, kernel_find_bad(state->stream, training->array[array].f32, count, state->fed));
	if (status == NN_OK)
		status = cuda_check(error,
							cudaMemcpyAsync(&state->seen->diverged, state->fed, sizeof(uint32_t),
											cudaMemcpyDeviceToHost, state->stream),
							"give whether numbers are finite");
	if (status == NN_OK)
		status = cuda_train_drain(state, error);
	*finite = status == NN_OK && state->seen->diverged == 0;
	return status;
}

/* ---- The device ---------------------------------------------------------- */

static size_t
cuda_train_element(NnPrecision precision)
{
	return kernel_type_size(cuda_type(precision));
}

static bool
cuda_trains_in(const NnDevice *base, NnPrecision precision)
{
	const CudaDevice *device = base->state;

	return precision == NN_PRECISION_FP32 ||
		   ((precision == NN_PRECISION_BF16 || precision == NN_PRECISION_TF32) &&
			device->capability >= 80);
}

static NnPrecision
cuda_train_automatic(const NnDevice *base)
{
	const CudaDevice *device = base->state;

	return device->capability >= 80 ? NN_PRECISION_BF16 : NN_PRECISION_FP32;
}

const NnTrainDevice cuda_train_device = { .dtype = NN_F32,
										  .host = false,
										  .element = cuda_train_element,
										  .trains_in = cuda_trains_in,
										  .automatic = cuda_train_automatic,
										  .bytes = cuda_train_bytes,
										  .prepare = cuda_train_prepare,
										  .release = cuda_train_release,
										  .ops = cuda_train_operators,
										  .only_adds = false,
										  .begin = cuda_train_begin,
										  .zero = cuda_train_zero,
										  .feed = cuda_train_feed,
										  .number = cuda_train_number,
										  .follow = cuda_train_follow,
										  .update = cuda_train_update,
										  .ahead = &cuda_train_ahead,
										  .snapshots = &cuda_train_snapshots,
										  .finite = cuda_train_finite,
										  .repack = cuda_repack,
										  .get = cuda_train_get,
										  .put = cuda_train_put };
