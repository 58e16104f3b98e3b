/*
 * cuda_train_run.c
 *	  Iterations that run beside the host: inputs copied ahead, all steps and
 *	  the update as one CUDA graph, losses that are read later.
 *
 * R1 An iteration has one of two slots, from its start to its finish: pinned
 *    memory with a KernelStep a pass and the feeds, and the same on the card.
 *    One copy brings it there beside the kernels of the iteration before;
 *    another, within the card, to where kernels read it, as their arguments
 *    never change.
 * R2 The first iteration is launched kernel by kernel, which has CUDA load
 *    them; the second is captured, and from then on one call replays it. If it
 *    cannot be captured it is launched as before, which is only slower.
 * R3 An iteration whose losses are not all finite, and any after it, updates
 *    nothing: the card knows before the host does.
 */
#include "nn/cuda/cuda_train.h"

#include "common/invariant.h"

#include <string.h>

/* ---- Launching ----------------------------------------------------------- */

typedef struct Iterating
{
	NnDevice *base;
	CudaTraining *state;
	NnTraining *training;
	const NnIterate *it;
	NnTrainWalk walk;
	NnError *error;
} Iterating;

/* A value as kernels see it. */
static KernelMap
map_of_value(const Iterating *i, int value)
{
	const NnPlan *plan = &i->training->plan;
	bool wide = nn_is_wide(plan->graph, value);

	return kernel_map((char *) plan->arena + plan->offset[value] * kernel_type_size(i->state->type),
					  wide ? KERNEL_F32 : i->state->type, plan->pitch[value]);
}

/* Inputs from where they were copied to where they are read. */
static NnStatus
spread_feeds(const Iterating *i, int pass)
{
	const CudaTraining *state = i->state;
	const char *pinned = state->slots[state->next].pinned;
	NnStatus status = NN_OK;

	for (int k = 0; status == NN_OK && k < i->it->nfeeds; k++)
	{
		const NnFeed *feed = &i->it->feeds[pass * i->it->nfeeds + k];
		size_t offset = (size_t) ((const char *) feed->data - pinned);
		NnShape s = cuda_shape(&i->training->plan, feed->value);
		size_t pixels = (size_t) s.n * s.h * s.w;
		KernelMap from = kernel_map(state->sent + offset, KERNEL_F32, s.c),
				  to = map_of_value(i, feed->value);

		INVARIANT(offset >= cuda_train_feeds_at(i->training) &&
				  offset + pixels * s.c * sizeof(float) <= cuda_train_slot_bytes(i->training));
		status =
			cuda_launched(i->error, kernel_convert(state->stream, &from, &to, pixels, s.c, s.c));
	}
	return status;
}

static NnStatus
judge_pass(const Iterating *i, int pass)
{
	KernelLosses losses = { .n = i->it->nlosses, .add = pass > 0, .verdict = i->state->verdict };

	INVARIANT(losses.n <= KERNEL_MAX_LOSSES);
	for (int k = 0; k < losses.n; k++)
	{
		KernelMap map = map_of_value(i, i->it->losses[k]);

		INVARIANT(map.type == KERNEL_F32);
		losses.losses[k] = map.data;
	}
	return cuda_launched(i->error, kernel_judge(i->state->stream, &losses));
}

/* One pass over the schedule, with its own number. */
static NnStatus
launch_pass(const Iterating *i, int pass)
{
	NnStatus status;

	i->state->step = (const KernelStep *) i->state->sent + pass;
	i->training->pass = pass;
	status = spread_feeds(i, pass);
	if (status == NN_OK)
		status = i->walk(i->base, i->training, i->error);
	return status == NN_OK ? judge_pass(i, pass) : status;
}

/* All kernels of an iteration, in order. */
static NnStatus
launch_all(const Iterating *i)
{
	KernelUpdate update;
	NnStatus status = NN_OK;

	if (i->it->passes > 1)
		status = cuda_train_clear_gradients(i->training, i->error);
	for (int pass = 0; status == NN_OK && pass < i->it->passes; pass++)
		status = launch_pass(i, pass);
	update = cuda_train_update_of(i->training, true);
	return status == NN_OK ? cuda_launched(i->error, kernel_update(i->state->stream, &update))
						   : status;
}

static NnStatus
capture_iteration(const Iterating *i)
{
	CudaTraining *state = i->state;
	cudaGraph_t graph = NULL;
	cudaError_t result = cuda_fault(FAULT_CAPTURE);
	NnStatus status;

	if (result == cudaSuccess)
		result = cudaStreamBeginCapture(state->stream, cudaStreamCaptureModeThreadLocal);
	status = cuda_check(i->error, result, "begin a capture");
	if (status != NN_OK)
		return status;
	status = launch_all(i);
	/* a capture must be ended in any case */
	result = cudaStreamEndCapture(state->stream, &graph);
	if (status == NN_OK)
		status = cuda_check(i->error, result, "capture an iteration");
	if (status == NN_OK)
		status = cuda_check(i->error, cudaGraphInstantiate(&state->graph, graph, 0),
							"make a captured iteration ready");
	if (status != NN_OK)
		state->graph = NULL;
	if (graph)
		(void) cudaGraphDestroy(graph);
	return status;
}

static NnStatus
compute_iteration(const Iterating *i)
{
	CudaTraining *state = i->state;
	NnError why;
	Iterating tried = *i;
	NnStatus status;

	tried.error = &why;
	if (state->runs == 1 && !state->graph && capture_iteration(&tried) != NN_OK)
		(void) cudaGetLastError();
	status = cuda_check(i->error, cuda_fault(FAULT_LAUNCH), "run a kernel");
	if (status == NN_OK)
		status = state->graph ? cuda_check(i->error, cudaGraphLaunch(state->graph, state->stream),
										   "run a captured iteration")
							  : launch_all(i);
	if (status == NN_OK && state->runs < 2)
		state->runs++;
	return status;
}

/* The slot's memory to the card, and there to where kernels read it. */
static NnStatus
send_slot(const Iterating *i, CudaTrainSlot *slot)
{
	CudaTraining *state = i->state;
	size_t bytes = cuda_train_slot_bytes(i->training);
	cudaError_t result = cuda_fault(FAULT_COPY);
	NnStatus status;

	if (result == cudaSuccess)
		result = cudaMemcpyAsync(slot->card, slot->pinned, bytes, cudaMemcpyHostToDevice,
								 state->device->in);
	status = cuda_check(i->error, result, "take inputs");
	if (status == NN_OK)
		status = cuda_check(i->error, cudaEventRecord(slot->arrived, state->device->in),
							"mark the inputs");
	if (status == NN_OK)
		status = cuda_check(i->error, cudaStreamWaitEvent(state->stream, slot->arrived, 0),
							"wait for the inputs");
	return status == NN_OK ? cuda_check(i->error,
										cudaMemcpyAsync(state->sent, slot->card, bytes,
														cudaMemcpyDeviceToDevice, state->stream),
										"take inputs")
						   : status;
}

static NnStatus
fetch_verdict(const Iterating *i, CudaTrainSlot *slot)
{
	CudaTraining *state = i->state;
	NnStatus status = cuda_check(i->error,
								 cudaMemcpyAsync(slot->seen, state->verdict, sizeof(KernelVerdict),
												 cudaMemcpyDeviceToHost, state->stream),
								 "give losses");

	return status == NN_OK ? cuda_check(i->error, cudaEventRecord(slot->done, state->stream),
										"mark an iteration")
						   : status;
}

/* ---- Start and finish ---------------------------------------------------- */

static void *
cuda_train_feeds(NnDevice *base, NnTraining *training)
{
	CudaTraining *state = training->plan.device_state;

	/* the iteration that had the slot is finished */
	INVARIANT(state->nopen < NN_STARTS);
	return state->slots[state->next].pinned + cuda_train_feeds_at(training);
}

static NnStatus
cuda_train_start(NnDevice *base, NnTraining *training, const NnIterate *it, NnTrainWalk walk,
				 NnError *error)
{
	CudaTraining *state = training->plan.device_state;
	CudaTrainSlot *slot = &state->slots[state->next];
	Iterating i = { base, state, training, it, walk, error };
	NnStatus status = cuda_use(state->device, error);

	INVARIANT(state->nopen < NN_STARTS);
	if (status != NN_OK)
		return status;
	INVARIANT(it->passes == cuda_train_passes(training));
	for (int pass = 0; pass < it->passes; pass++)
	{
		KernelStep *step = (KernelStep *) slot->pinned + pass;

		*step = cuda_train_step_of(training, &it->adam, it->step, it->root);
		step->iteration += pass;
	}
	status = cuda_train_renew_filters(state, training, error);
	if (status == NN_OK)
		status = send_slot(&i, slot);
	if (status == NN_OK)
		status = compute_iteration(&i);
	if (status == NN_OK)
		status = fetch_verdict(&i, slot);
	/* what is queued may still use the slot */
	if (status != NN_OK)
	{
		(void) cudaStreamSynchronize(state->device->in);
		(void) cudaStreamSynchronize(state->stream);
		return status;
	}
	state->next = (state->next + 1) % NN_STARTS;
	state->nopen++;
	return NN_OK;
}

static NnStatus
cuda_train_finish(NnDevice *base, NnTraining *training, int nlosses, double *values, NnError *error)
{
	CudaTraining *state = training->plan.device_state;
	CudaTrainSlot *slot = &state->slots[(state->next + NN_STARTS - state->nopen) % NN_STARTS];
	NnStatus status = cuda_use(state->device, error);

	INVARIANT(state->nopen > 0);
	state->nopen--;
	if (status == NN_OK)
		status = cuda_await(slot->done, "finish an iteration", error);
	nn_progress(base);
	for (int k = 0; status == NN_OK && k < nlosses; k++)
		values[k] = slot->seen->losses[k];
	/* the caller hears of it, and may go on from the last good state */
	if (status == NN_OK && slot->seen->diverged && state->nopen == 0)
		status = cuda_train_clear_verdict(state, error);
	return status;
}

const NnTrainAhead cuda_train_ahead = { .feeds = cuda_train_feeds,
										.start = cuda_train_start,
										.finish = cuda_train_finish };
