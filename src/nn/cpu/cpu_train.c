/*
 * cpu_train.c
 *	  Training on the CPU: its table of operators, memory, primitives, and the
 *	  layout of weights.
 *
 * R1 Arena, arrays and work space belong to the NnTraining from prepare to
 *    release.
 * R2 Operators share their work among a team of the device's threads.
 */
#include "nn/cpu/cpu_train.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- Operators ----------------------------------------------------------- */

#define CPU_TRAIN_ROW(OP, name) [NN_OP_##OP] = { cpu_train_##name, cpu_train_##name##_backward },

static const NnOpImpl operators[NN_OPS] = { NN_OPERATORS(CPU_TRAIN_ROW, CPU_TRAIN_ROW,
														 NN_DECLARE_NONE) };

/* ---- Primitives ---------------------------------------------------------- */

static NnStatus
cpu_train_zero(NnDevice *device, const NnTraining *training, const NnMap *map, NnError *error)
{
	for (size_t p = 0; p < nn_map_pixels(map); p++)
		memset(map->f32 + p * map->pitch, 0, map->shape.c * sizeof(float));
	return NN_OK;
}

static NnStatus
cpu_train_feed(NnDevice *device, const NnTraining *training, const NnMap *map, const void *data,
			   NnError *error)
{
	const float *from = data;

	for (size_t p = 0; p < nn_map_pixels(map); p++, from += map->shape.c)
		memcpy(map->f32 + p * map->pitch, from, map->shape.c * sizeof(float));
	return NN_OK;
}

static NnStatus
cpu_train_number(NnDevice *device, const NnTraining *training, const NnMap *map, double *value,
				 NnError *error)
{
	*value = map->f32[0];
	return NN_OK;
}

/* Statistics, which are few. */
static NnStatus
cpu_train_follow(NnDevice *device, const NnTraining *training, NnNumbers to, NnNumbers base,
				 NnNumbers from, size_t n, double share, double numerator, double denominator,
				 NnError *error)
{
	float part = (float) share;

	for (size_t i = 0; i < n; i++)
		to.f32[i] =
			base.f32[i] + part * ((float) (from.f32[i] * numerator / denominator) - base.f32[i]);
	return NN_OK;
}

/* ---- Updates ------------------------------------------------------------- */

/* Numbers of all arrays that a thread's cache holds at once. */
#define UPDATE_STRETCH 8192

static void
update_trained(const NnTraining *training, size_t first, size_t end, const NnAdam *adam,
			   double step_, double root_)
{
	float *p = training->array[NN_ARRAY_PARAM].f32, *m = training->array[NN_ARRAY_M].f32,
		  *v = training->array[NN_ARRAY_V].f32;
	const float *g = training->array[NN_ARRAY_GRAD].f32;
	float step = (float) step_, root = (float) (1 / root_), beta1 = (float) (1 - adam->beta1),
		  beta2 = (float) adam->beta2, rest = (float) (1 - adam->beta2),
		  epsilon = (float) adam->epsilon;

	for (size_t i = first; i < end; i++)
	{
		m[i] += beta1 * (g[i] - m[i]);
		v[i] = beta2 * v[i] + rest * g[i] * g[i];
		p[i] -= step * m[i] / (sqrtf(v[i]) * root + epsilon);
	}
}

static size_t
within(size_t at, size_t first, size_t end)
{
	return at < first ? first : at > end ? end : at;
}

/* Numbers [first, end): what of each parameter is there, then the averages. */
static void
update_stretch(const NnTraining *training, size_t first, size_t end, const NnAdam *adam,
			   double step, double root)
{
	float *average = training->array[NN_ARRAY_EMA].f32, part = (float) (1 - adam->ema);
	const float *param = training->array[NN_ARRAY_PARAM].f32;

	for (int k = 0; k < training->params->n; k++)
	{
		const NnParam *p = &training->params->list[k];
		size_t from = within(p->offset, first, end), to = within(p->offset + p->count, first, end);

		if (training->schedule.trained[k])
			update_trained(training, from, to, adam, step, root);
		else if (training->schedule.running[k])
			memcpy(training->array[NN_ARRAY_PARAM].f32 + from,
				   training->array[NN_ARRAY_GRAD].f32 + from, (to - from) * sizeof(float));
	}
	for (size_t i = first; i < end && i < training->nema; i++)
		average[i] += part * (param[i] - average[i]);
}

static NnStatus
cpu_train_update(NnDevice *device, NnTraining *training, const NnAdam *adam, double step,
				 double root, NnError *error)
{
	const CpuTraining *state = training->plan.device_state;
	size_t total = training->params->total;

#pragma omp parallel for schedule(static) num_threads(state->team.size)
	for (size_t first = 0; first < total; first += UPDATE_STRETCH)
		update_stretch(training, first, within(first + UPDATE_STRETCH, first, total), adam, step,
					   root);
	return NN_OK;
}

/* ---- Memory -------------------------------------------------------------- */

/* Work space for each thread of the device, if there are more than before. */
static bool
ready_work(const NnDevice *device, CpuTraining *state)
{
	if (state->nwork >= device->threads)
		return true;
	free(state->work);
	state->work = cpu_alloc(nn_mul(state->memory.each, device->threads));
	state->nwork = state->work ? device->threads : 0;
	return state->work != NULL;
}

static double
seconds(clockid_t clock)
{
	struct timespec now;

	(void) clock_gettime(clock, &now);
	return (double) now.tv_sec + (double) now.tv_nsec * 1e-9;
}

static NnStatus
cpu_train_begin(NnDevice *device, NnTraining *training, NnError *error)
{
	CpuTraining *state = training->plan.device_state;

	if (!ready_work(device, state))
		return nn_no_memory(error, nn_mul(state->memory.each, device->threads));
	cpu_team_begin(&state->team, device->threads);
	state->began = seconds(CLOCK_MONOTONIC);
	state->worked = seconds(CLOCK_PROCESS_CPUTIME_ID);
	return NN_OK;
}

static void
cpu_train_end(NnDevice *device, NnTraining *training)
{
	CpuTraining *state = training->plan.device_state;

	cpu_team_end(&state->team, seconds(CLOCK_MONOTONIC) - state->began,
				 seconds(CLOCK_PROCESS_CPUTIME_ID) - state->worked);
}

static void
cpu_train_release(NnDevice *device, NnTraining *training)
{
	CpuTraining *state = training->plan.device_state;

	for (int i = 0; i < NN_ARRAYS; i++)
	{
		free(training->array[i].data);
		training->array[i].data = NULL;
	}
	if (state)
	{
		free(state->shared);
		free(state->work);
		free(state->latents);
		free(state->turned);
		free(state);
	}
	free(training->plan.arena);
	training->plan.arena = NULL;
	training->plan.device_state = NULL;
}

/* bfloat16 without hardware for it is slower than fp32: only tests use it. */
static const CpuKernel *
product_kernel(const NnDevice *device, NnPrecision precision)
{
	const CpuDevice *cpu = device->state;

	if (precision != NN_PRECISION_BF16)
		return cpu->kernels->fp32;
	return cpu->bf16 ? cpu->bf16 : cpu->kernels->bf16;
}

/* For the convolutions that need most; of what cannot be trained nothing. */
static CpuTrainMemory
memory_of(const NnDevice *device, const NnTraining *training)
{
	const CpuKernel *kernel = product_kernel(device, training->plan.precision);
	const CpuDevice *cpu = device->state;
	const NnGraph *g = training->plan.graph;
	CpuTrainMemory memory = { 0 };

	for (int i = 0; i < g->nnodes; i++)
	{
		const NnNode *node = &g->nodes[i];

		if (node->op == NN_OP_LINEAR || nn_ops[node->op].filters)
			cpu_conv_memory(cpu->kernels, kernel, g, node, &memory);
	}
	return memory;
}

static size_t
memory_sum(const CpuTrainMemory *memory, int threads)
{
	return nn_sum(nn_sum(memory->shared, memory->latents), nn_mul(memory->each, threads));
}

/* By all threads: the system clears pages when they are first written. */
static void
clear_floats(float *to, size_t count, int threads)
{
	const size_t stretch = 1 << 20;

#pragma omp parallel for schedule(static) num_threads(count < 4 * stretch ? 1 : threads)
	for (size_t first = 0; first < count; first += stretch)
		memset(to + first, 0, (count - first < stretch ? count - first : stretch) * sizeof(float));
}

/*
 * What the operators can do: kernels up to a size, and maps whose pixels, and
 * numbers in vectors of CPU_NORM_CHANNELS, an int counts.
 */
static NnStatus
check_graph(const NnDevice *device, const NnGraph *g, NnError *error)
{
	for (int i = 0; i < g->nnodes; i++)
		if (nn_ops[g->nodes[i].op].filters && g->nodes[i].conv.kernel > CPU_TRAIN_KERNEL)
			return nn_fail(error, NN_EUNSUPPORTED, "device \"%s\" cannot train kernels of %d",
						   device->name, g->nodes[i].conv.kernel);
	for (int i = 0; i < g->nvalues; i++)
	{
		NnShape s = g->values[i].shape;
		size_t pixels = nn_mul(nn_mul(s.n, s.h), s.w);

		if (pixels <= INT_MAX && nn_mul(pixels, s.c) / CPU_NORM_CHANNELS <= INT_MAX)
			continue;
		nn_fail(error, NN_EINVAL, "batch is too large for device \"%s\"", device->name);
		nn_detail(error, "A map has %d images of %d x %d with %d channels.", s.n, s.h, s.w, s.c);
		nn_hint(error, "Use a smaller batch_size.");
		return NN_EINVAL;
	}
	return NN_OK;
}

static size_t
cpu_train_bytes(const NnDevice *device, const NnTraining *training)
{
	size_t floats = nn_sum(training->plan.arena_elements,
						   nn_sum(nn_mul(4, training->params->total), training->nema));
	CpuTrainMemory memory = memory_of(device, training);

	return nn_sum(nn_mul(floats, sizeof(float)), memory_sum(&memory, device->threads));
}

static NnStatus
cpu_train_prepare(NnDevice *device, NnTraining *training, NnError *error)
{
	const NnGraph *g = training->plan.graph;
	NnStatus status = check_graph(device, g, error);
	CpuTraining *state;
	bool good;

	if (status != NN_OK)
		return status;
	state = calloc(1, sizeof(CpuTraining));
	good = state != NULL;
	if (good)
	{
		state->kernels = ((const CpuDevice *) device->state)->kernels;
		state->kernel = product_kernel(device, training->plan.precision);
		state->bf16 = training->plan.precision == NN_PRECISION_BF16;
		cpu_team_begin(&state->team, device->threads);
		state->memory = memory_of(device, training);
		state->shared = cpu_alloc(state->memory.shared);
		state->latents = cpu_alloc(state->memory.latents);
	}
	training->plan.device_state = state;
	training->plan.arena = cpu_alloc(nn_mul(training->plan.arena_elements, sizeof(float)));
	good = good && training->plan.arena && state->shared && state->latents &&
		   ready_work(device, state);
	for (int i = 0; good && i < NN_ARRAYS; i++)
	{
		size_t count = i == NN_ARRAY_EMA ? training->nema : training->params->total;

		training->array[i].data = cpu_alloc(count * sizeof(float));
		good = training->array[i].data != NULL;
		if (good)
			clear_floats(training->array[i].f32, count, device->threads);
	}
	if (good)
		state->turned = calloc(training->params->n + 1, sizeof(bool));
	if (!good || !state->turned)
	{
		cpu_train_release(device, training);
		return nn_no_memory(error, nn_mul(training->plan.arena_elements, sizeof(float)));
	}
	for (int i = 0; i < g->nnodes; i++)
		if (nn_ops[g->nodes[i].op].weights > 0)
			state->turned[g->nodes[i].weight] = true;
	training->plan.device_bytes = (4 * training->params->total + training->nema) * sizeof(float) +
								  memory_sum(&state->memory, state->nwork);
	return NN_OK;
}

/* ---- Layout of weights --------------------------------------------------- */

/* numbers of each side that are turned while they are in the cache */
#define TILE 32

/* (O, C, taps) in `plain` and [tap][C][O] in `turned`, one into the other. */
static void
turn(const NnParam *p, float *plain, float *turned, bool forth, int threads)
{
	size_t o = p->shape[0], c = p->shape[1], row = p->count / o, taps = row / c;

#pragma omp parallel for schedule(static) num_threads(threads)
	for (size_t k0 = 0; k0 < row; k0 += TILE)
		for (size_t i0 = 0; i0 < o; i0 += TILE)
			for (size_t k = k0; k < k0 + TILE && k < row; k++)
			{
				float *b = &turned[(k % taps * c + k / taps) * o];

				for (size_t i = i0; i < i0 + TILE && i < o; i++)
				{
					if (forth)
						b[i] = plain[i * row + k];
					else
						plain[i * row + k] = b[i];
				}
			}
}

/* Whole parameters, between the checkpoint's layout in `data` and ours. */
static NnStatus
transfer(const NnDevice *device, NnTraining *training, NnArray array, size_t offset, size_t count,
		 float *data, bool put)
{
	const CpuTraining *state = training->plan.device_state;

	for (int i = 0; i < training->params->n; i++)
	{
		const NnParam *p = &training->params->list[i];
		float *ours = training->array[array].f32 + p->offset, *theirs = data + (p->offset - offset);

		if (p->offset < offset || p->offset + p->count > offset + count)
			continue;
		if (state->turned[i])
			turn(p, theirs, ours, put, device->threads);
		else
			memcpy(put ? ours : theirs, put ? theirs : ours, p->count * sizeof(float));
	}
	return NN_OK;
}

static NnStatus
cpu_get(NnDevice *device, NnTraining *training, NnArray array, size_t offset, size_t count,
		void *data, NnError *error)
{
	return transfer(device, training, array, offset, count, data, false);
}

static NnStatus
cpu_put(NnDevice *device, NnTraining *training, NnArray array, size_t offset, size_t count,
		const void *data, NnError *error)
{
	return transfer(device, training, array, offset, count, (float *) data, true);
}

static bool
cpu_trains_in(const NnDevice *device, NnPrecision precision)
{
	return precision == NN_PRECISION_FP32 ||
		   (precision == NN_PRECISION_BF16 && ((const CpuDevice *) device->state)->bf16 != NULL);
}

static NnPrecision
cpu_automatic(const NnDevice *device)
{
	const CpuKernel *bf16 = ((const CpuDevice *) device->state)->bf16;

	return bf16 && bf16->trains ? NN_PRECISION_BF16 : NN_PRECISION_FP32;
}

const NnTrainDevice cpu_train_device = { .dtype = NN_F32,
										 .host = false,
										 .trains_in = cpu_trains_in,
										 .automatic = cpu_automatic,
										 .bytes = cpu_train_bytes,
										 .prepare = cpu_train_prepare,
										 .release = cpu_train_release,
										 .ops = operators,
										 .only_adds = false,
										 .begin = cpu_train_begin,
										 .end = cpu_train_end,
										 .zero = cpu_train_zero,
										 .feed = cpu_train_feed,
										 .number = cpu_train_number,
										 .follow = cpu_train_follow,
										 .update = cpu_train_update,
										 .get = cpu_get,
										 .put = cpu_put };
