/*
 * cuda_train_memory.c
 *	  Memory of an NnTraining on the GPU: its parts, and what it is made and
 *	  renewed by.
 *
 * R1 All memory on the card is one block, from prepare to release: arena,
 *    arrays, filters and what steps share. Addresses never change.
 */
#include "nn/cuda/cuda_train.h"

#include "common/invariant.h"

#include <stdlib.h>
#include <string.h>

/* ---- Parameters ---------------------------------------------------------- */

/* The filter of a weight, without an address. */
static void
describe_filter(const CudaTraining *state, const NnParam *p, const NnGraph *g, const NnNode *node,
				KernelFilter *filter)
{
	/*
	 * (O, I, R, S) of a convolution with its latent last, (K, C, R, S)
	 * transposed
	 */
	int inputs = (int) p->shape[1];
	int c = node->op == NN_OP_CONVT ? inputs : g->values[node->in[0]].shape.c;

	filter->taps = (int) (p->shape[2] * p->shape[3]);
	filter->inputs = inputs;
	filter->c = c;
	filter->map = kernel_map(NULL, state->type, cuda_padded(c));
}

static size_t
filter_bytes(const NnParam *p, const KernelFilter *filter)
{
	return filter->taps == 0
			   ? 0
			   : cuda_aligned(nn_mul(nn_mul(cuda_padded((int) p->shape[0]), filter->taps),
									 filter->map.pitch * kernel_type_size(filter->map.type)));
}

static int
piece_of(const KernelParam *p)
{
	return p->filter.taps > 1 ? KERNEL_PIECE / p->filter.taps * p->filter.taps : KERNEL_PIECE;
}

/* Pieces of a parameter; into `to` if there is one. */
static int
cut(const CudaTraining *state, const NnParams *params, int index, KernelPiece *to)
{
	size_t count = params->list[index].count;
	int size = piece_of(&state->params[index]), n = 0;

	for (size_t first = 0; first < count; first += size, n++)
		if (to)
			to[n] = (KernelPiece){ .param = index,
								   .count =
									   count - first < (size_t) size ? (int) (count - first) : size,
								   .first = first };
	return n;
}

/* What is known of parameters before there is memory for them. */
static NnStatus
describe_params(CudaTraining *state, const NnTraining *training, NnError *error)
{
	const NnGraph *g = training->plan.graph;
	const NnParams *params = training->params;

	state->params = calloc(params->n + 1, sizeof(KernelParam));
	if (!state->params)
		return nn_no_memory(error, params->n * sizeof(KernelParam));
	for (int i = 0; i < params->n; i++)
		state->params[i] = (KernelParam){ .first = params->list[i].offset,
										  .trained = training->schedule.trained[i],
										  .running = training->schedule.running[i] };
	for (int i = 0; i < g->nnodes; i++)
		if (nn_ops[g->nodes[i].op].filters)
			describe_filter(state, &params->list[g->nodes[i].weight], g, &g->nodes[i],
							&state->params[g->nodes[i].weight].filter);
	for (int i = 0; i < params->n; i++)
		state->npieces += cut(state, params, i, NULL);
	state->pieces = calloc(state->npieces + 1, sizeof(KernelPiece));
	if (!state->pieces)
		return nn_no_memory(error, state->npieces * sizeof(KernelPiece));
	state->npieces = 0;
	for (int i = 0; i < params->n; i++)
		state->npieces += cut(state, params, i, state->pieces + state->npieces);
	return NN_OK;
}

/* ---- Slots --------------------------------------------------------------- */

/* Feeds follow the KernelSteps of all passes. */
size_t
cuda_train_feeds_at(const NnTraining *training)
{
	return cuda_aligned(cuda_train_passes(training) * sizeof(KernelStep));
}

size_t
cuda_train_slot_bytes(const NnTraining *training)
{
	return nn_sum(cuda_train_feeds_at(training), cuda_aligned(training->feed_bytes));
}

static NnStatus
make_slots(CudaTraining *state, const NnTraining *training, NnError *error)
{
	NnStatus status = NN_OK;

	for (int i = 0; status == NN_OK && i < NN_STARTS; i++)
	{
		CudaTrainSlot *slot = &state->slots[i];

		status = cuda_check(
			error, cudaMallocHost((void **) &slot->pinned, cuda_train_slot_bytes(training)),
			"pin memory");
		if (status == NN_OK)
			status = cuda_check(error, cudaMallocHost((void **) &slot->seen, sizeof(KernelVerdict)),
								"pin memory");
		if (status == NN_OK)
			status = cuda_check(error, cudaEventCreateWithFlags(&slot->arrived, CUDA_EVENT),
								"create an event");
		if (status == NN_OK)
			status = cuda_check(error, cudaEventCreateWithFlags(&slot->done, CUDA_EVENT),
								"create an event");
	}
	return status;
}

static void
free_slots(CudaTraining *state)
{
	if (state->graph)
		(void) cudaGraphExecDestroy(state->graph);
	for (int i = 0; i < NN_STARTS; i++)
	{
		CudaTrainSlot *slot = &state->slots[i];

		if (slot->arrived)
			(void) cudaEventDestroy(slot->arrived);
		if (slot->done)
			(void) cudaEventDestroy(slot->done);
		if (slot->pinned)
			(void) cudaFreeHost(slot->pinned);
		if (slot->seen)
			(void) cudaFreeHost(slot->seen);
	}
}

/* ---- Memory -------------------------------------------------------------- */

/* The parts of the block: their bytes, and where each begins. */
typedef struct Layout
{
	size_t arena, arrays[NN_ARRAYS], filters, fed, slot, verdict, params, pieces;
	CudaTrainBuffers buffers;
} Layout;

typedef struct Part
{
	void **at;
	size_t bytes;
} Part;

#define MAX_PARTS (NN_ARRAYS + NN_STARTS + 12)

static int
list_parts(CudaTraining *state, NnTraining *training, const Layout *l, Part parts[MAX_PARTS])
{
	Part fixed[] = { { &training->plan.arena, l->arena },
					 { &state->filters, l->filters },
					 { &state->staged[0], l->buffers.staged[0] },
					 { &state->staged[1], l->buffers.staged[1] },
					 { &state->result, l->buffers.result },
					 { &state->workspace, l->buffers.workspace },
					 { (void **) &state->work, l->buffers.work },
					 { &state->fed, l->fed },
					 { (void **) &state->sent, l->slot },
					 { (void **) &state->verdict, l->verdict },
					 { (void **) &state->params_on_card, l->params },
					 { (void **) &state->pieces_on_card, l->pieces } };
	int n = sizeof(fixed) / sizeof(fixed[0]);

	INVARIANT(n + NN_ARRAYS + NN_STARTS <= MAX_PARTS);
	memcpy(parts, fixed, sizeof(fixed));
	for (int i = 0; i < NN_ARRAYS; i++)
		parts[n++] = (Part){ &training->array[i].data, l->arrays[i] };
	for (int i = 0; i < NN_STARTS; i++)
		parts[n++] = (Part){ (void **) &state->slots[i].card, l->slot };
	return n;
}

/* Numbers of an array, rounded up to vectors. */
static size_t
array_count(const NnTraining *training, NnArray array)
{
	size_t count = array == NN_ARRAY_EMA ? training->nema : training->params->total;

	return (count + KERNEL_VECTOR - 1) / KERNEL_VECTOR * KERNEL_VECTOR;
}

static size_t
value_count(const NnGraph *g, int value)
{
	NnShape s = g->values[value].shape;

	return nn_mul(nn_mul(nn_mul(s.n, s.h), s.w), s.c);
}

/* All but the workspace of convolutions. */
static void
lay_out_training(const CudaTraining *state, const NnTraining *training, Layout *l)
{
	const NnGraph *g = training->plan.graph;

	l->arena = nn_mul(training->plan.arena_elements, kernel_type_size(state->type));
	for (int i = 0; i < NN_ARRAYS; i++)
		l->arrays[i] = nn_mul(array_count(training, i), sizeof(float));
	for (int i = 0; i < training->params->n; i++)
		l->filters += filter_bytes(&training->params->list[i], &state->params[i].filter);
	for (int i = 0; i < g->nnodes; i++)
	{
		if (g->nodes[i].op == NN_OP_INPUT)
			nn_most(&l->fed, nn_mul(value_count(g, g->nodes[i].out[0]), sizeof(float)));
		nn_most(&l->buffers.work, cuda_train_work(&training->plan, i));
	}
	l->slot = cuda_train_slot_bytes(training);
	l->verdict = sizeof(KernelVerdict);
	l->params = (training->params->n + 1) * sizeof(KernelParam);
	l->pieces = (state->npieces + 1) * sizeof(KernelPiece);
	cuda_train_want(training, &l->buffers);
}

static size_t
sum_of(const Part *parts, int n)
{
	size_t total = 0;

	for (int i = 0; i < n; i++)
		total = nn_sum(total, cuda_aligned(parts[i].bytes));
	return total;
}

static NnStatus
take_parts(CudaTraining *state, NnTraining *training, const Layout *l, NnError *error)
{
	Part parts[MAX_PARTS];
	int n = list_parts(state, training, l, parts);
	NnStatus status = cuda_take(state->device, sum_of(parts, n), &state->block, error);
	char *at;

	if (status != NN_OK)
		return status;
	at = state->block.data;
	for (int i = 0; i < n; i++)
	{
		*parts[i].at = at;
		at += cuda_aligned(parts[i].bytes);
	}
	at = state->filters;
	for (int i = 0; i < training->params->n; i++)
		if (state->params[i].filter.taps > 0)
		{
			state->params[i].filter.map.data = at;
			state->params[i].filter.map =
				kernel_map(at, state->type, state->params[i].filter.map.pitch);
			at += filter_bytes(&training->params->list[i], &state->params[i].filter);
		}
	training->plan.device_bytes = state->block.bytes - l->arena;
	return NN_OK;
}

static NnStatus
pin(CudaTraining *state, NnError *error)
{
	NnStatus status = cuda_check(
		error, cudaMallocHost((void **) &state->pinned, sizeof(KernelStep)), "pin memory");

	return status == NN_OK
			   ? cuda_check(error, cudaMallocHost((void **) &state->seen, sizeof(KernelVerdict)),
							"pin memory")
			   : status;
}

/* Zeroes a part of numbers in float. */
static NnStatus
clear(const CudaTraining *state, void *data, size_t bytes, NnError *error)
{
	KernelMap map = kernel_map(data, KERNEL_F32, KERNEL_VECTOR);
	size_t vectors = bytes / (KERNEL_VECTOR * sizeof(float));

	return vectors == 0
			   ? NN_OK
			   : cuda_launched(error, kernel_zero(state->stream, &map, vectors, KERNEL_VECTOR));
}

NnStatus
cuda_train_clear_verdict(const CudaTraining *state, NnError *error)
{
	return clear(state, state->verdict, cuda_aligned(sizeof(KernelVerdict)), error);
}

NnStatus
cuda_train_clear_gradients(const NnTraining *training, NnError *error)
{
	return clear(training->plan.device_state, training->array[NN_ARRAY_GRAD].data,
				 array_count(training, NN_ARRAY_GRAD) * sizeof(float), error);
}

NnStatus
cuda_train_drain(const CudaTraining *state, NnError *error)
{
	return cuda_check(error, cudaStreamSynchronize(state->stream), "finish a step");
}

/* Arrays and filters of zeros, tables, no verdict. */
static NnStatus
fill_parts(CudaTraining *state, NnTraining *training, const Layout *l, NnError *error)
{
	NnStatus status = clear(state, state->filters, cuda_aligned(l->filters), error);

	for (int i = 0; status == NN_OK && i < NN_ARRAYS; i++)
		status = clear(state, training->array[i].data, l->arrays[i], error);
	if (status == NN_OK)
		status = cuda_train_clear_verdict(state, error);
	if (status == NN_OK)
		status = cuda_check(error,
							cudaMemcpyAsync(state->params_on_card, state->params,
											training->params->n * sizeof(KernelParam),
											cudaMemcpyHostToDevice, state->stream),
							"take a table");
	if (status == NN_OK)
		status = cuda_check(error,
							cudaMemcpyAsync(state->pieces_on_card, state->pieces,
											state->npieces * sizeof(KernelPiece),
											cudaMemcpyHostToDevice, state->stream),
							"take a table");
	return status == NN_OK ? cuda_train_drain(state, error) : status;
}

/* ---- Prepare and release ------------------------------------------------- */

static NnStatus
check_operators(const NnDevice *device, const NnGraph *g, NnError *error)
{
	for (int i = 0; i < g->nnodes; i++)
		if (g->nodes[i].op != NN_OP_INPUT && !cuda_train_operators[g->nodes[i].op].forward)
			return nn_fail(error, NN_EUNSUPPORTED, "device \"%s\" cannot train operator \"%s\"",
						   device->name, nn_ops[g->nodes[i].op].name);
	return NN_OK;
}

void
cuda_train_release(NnDevice *base, NnTraining *training)
{
	CudaTraining *state = training->plan.device_state;
	NnError ignored;

	for (int i = 0; i < NN_ARRAYS; i++)
		training->array[i].data = NULL;
	training->plan.arena = NULL;
	training->plan.device_state = NULL;
	if (!state)
		return;
	/* after an error something may still run */
	(void) cuda_use(state->device, &ignored);
	(void) cudaStreamSynchronize(state->stream);
	(void) cudaStreamSynchronize(state->device->in);
	free_slots(state);
	cuda_train_close_convs(state);
	cuda_give(state->device, &state->block);
	if (state->pinned)
		(void) cudaFreeHost(state->pinned);
	if (state->seen)
		(void) cudaFreeHost(state->seen);
	free(state->params);
	free(state->pieces);
	free(state);
}

size_t
cuda_train_bytes(const NnDevice *base, const NnTraining *training)
{
	CudaTraining state = { .type = cuda_type(training->plan.precision) };
	NnTraining copy = *training;
	Layout l = { .buffers.workspace = CUDA_MAX_WORKSPACE };
	Part parts[MAX_PARTS];
	size_t bytes = SIZE_MAX;
	NnError ignored;

	if (describe_params(&state, training, &ignored) == NN_OK)
	{
		lay_out_training(&state, training, &l);
		bytes = sum_of(parts, list_parts(&state, &copy, &l, parts));
	}
	free(state.params);
	free(state.pieces);
	return bytes;
}

NnStatus
cuda_train_prepare(NnDevice *base, NnTraining *training, NnError *error)
{
	CudaDevice *device = base->state;
	Layout l = { 0 };
	CudaTraining *state;
	NnStatus status = check_operators(base, training->plan.graph, error);

	if (status == NN_OK)
		status = cuda_use(device, error);
	if (status != NN_OK)
		return status;
	state = calloc(1, sizeof(CudaTraining));
	if (!state)
		return nn_no_memory(error, sizeof(CudaTraining));
	training->plan.device_state = state;
	state->device = device;
	state->stream = device->compute;
	state->type = cuda_type(training->plan.precision);
	status = describe_params(state, training, error);
	if (status == NN_OK)
		status = cuda_train_open_convs(state, training, &l.buffers, error);
	if (status == NN_OK)
	{
		lay_out_training(state, training, &l);
		status = take_parts(state, training, &l, error);
	}
	if (status == NN_OK)
		status = cuda_train_prove_convs(state, l.buffers.workspace, error);
	if (status == NN_OK)
		status = pin(state, error);
	if (status == NN_OK)
		status = make_slots(state, training, error);
	if (status == NN_OK)
		status = fill_parts(state, training, &l, error);
	if (status != NN_OK)
		cuda_train_release(base, training);
	return status;
}

/* ---- Updates ------------------------------------------------------------- */

KernelStep
cuda_train_step_of(const NnTraining *training, const NnAdam *adam, double step, double root)
{
	KernelStep s = { .seed = training->seed, .iteration = training->iteration };

	if (!adam)
		return s;
	s.first = (float) (1 - adam->beta1);
	s.second = (float) adam->beta2;
	s.rest = (float) (1 - adam->beta2);
	s.step = (float) step;
	s.root = (float) (1 / root);
	s.epsilon = (float) adam->epsilon;
	s.ema = (float) (1 - adam->ema);
	return s;
}

KernelUpdate
cuda_train_update_of(const NnTraining *training, bool step)
{
	const CudaTraining *state = training->plan.device_state;

	return (KernelUpdate){ .step = step ? state->step : NULL,
						   .verdict = state->verdict,
						   .param = training->array[NN_ARRAY_PARAM].f32,
						   .m = training->array[NN_ARRAY_M].f32,
						   .v = training->array[NN_ARRAY_V].f32,
						   .ema = training->array[NN_ARRAY_EMA].f32,
						   .gradient = training->array[NN_ARRAY_GRAD].f32,
						   .nema = training->nema,
						   .params = state->params_on_card,
						   .pieces = state->pieces_on_card,
						   .npieces = state->npieces };
}

NnStatus
cuda_train_renew_filters(CudaTraining *state, const NnTraining *training, NnError *error)
{
	KernelUpdate update = cuda_train_update_of(training, false);
	NnStatus status;

	if (!state->stale)
		return NN_OK;
	status = cuda_launched(error, kernel_update(state->stream, &update));
	state->stale = status != NN_OK;
	return status;
}
