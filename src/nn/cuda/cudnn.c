/*
 * cudnn.c
 *	  Convolutions by cuDNN, through the C interface of its graphs ("backend"):
 *	  forward, data gradient and filter gradient, one plain operation a graph.
 *
 * R1 Of the heuristic's configurations (mode A, then its fallbacks) the first
 *    is taken that is deterministic, needs no compiling at run time, and keeps
 *    to the arithmetic asked for and to the workspace allowed. Strict fp32 has
 *    no tensor cores, no inputs of less precision, and none of Winograd's tiles
 *    that lose digits. BICYCLE_AUTOTUNE=N times the first N, and takes the
 *    fastest.
 * R2 So another batch size may get another engine, and an image other last
 *    bits. BICYCLE_PIN_ENGINES=N uses the engine chosen for N images, with its
 *    knobs, wherever cuDNN takes it; bench/engines.c measures what that costs.
 * R3 Plans are kept, as cuDNN's JSON, in the directory BICYCLE_PLAN_CACHE, in
 *    files named by a hash of problem, device and cuDNN's version; without it
 *    choosing costs some milliseconds a convolution.
 * R4 For a device that is described by a text (cuda_convs_describe) plans can
 *    be made but not run.
 * R5 A problem's descriptors are in one list (Descs), and go with it.
 */
#include "nn/cuda/cudnn.h"

#include "nn/cuda/cuda_time.h"
#include "nn/cuda/cudnn_library.h"
#include "nn/nn_error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_CONFIGS 64
#define MAX_DESCS (MAX_CONFIGS * 3 + 32)
#define MAX_KNOBS 32
#define MAX_PLAN_TEXT 65536

struct CudaConvs
{
	CudnnLibrary lib;
	cudnnHandle_t handle; /* NULL: without a GPU */
	cudaStream_t stream;
	cudnnBackendDescriptor_t device; /* description of one that is not there; NULL with a GPU */
	char device_name[256];
	char name[32];
	int tune; /* engines to time */
	int pin;  /* batch size whose engine all others use; 0: each its own */
};

/* An engine and how it is set, without the problem it is for. */
typedef struct Recipe
{
	int64_t engine;
	int nknobs;
	cudnnBackendKnobType_t knobs[MAX_KNOBS];
	int64_t values[MAX_KNOBS];
} Recipe;

struct CudaConv
{
	CudaConvs *convs;
	cudnnBackendDescriptor_t plan;
	int64_t workspace;
	CudaConvChoice choice;
	Recipe recipe; /* only where engines are pinned */
};

static bool
is_memory(cudnnStatus_t status)
{
	return status == CUDNN_STATUS_ALLOC_FAILED ||
		   status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
}

static NnStatus
cudnn_fail(const CudaConvs *convs, NnError *error, cudnnStatus_t status, const char *what)
{
	NnStatus code = is_memory(status) ? NN_ENOMEM : NN_EDEVICE;
	char text[512] = "";

	convs->lib.last_error(text, sizeof(text));
	nn_fail(error, code, "cuDNN could not %s", what);
	nn_detail(error, "Its status is %d: %.400s.", (int) status, text[0] ? text : "no text");
	return code;
}

static CudaConvs *
new_convs(NnError *error)
{
	CudaConvs *convs = calloc(1, sizeof(CudaConvs));
	const char *tune = getenv("BICYCLE_AUTOTUNE"), *pin = getenv("BICYCLE_PIN_ENGINES");
	size_t version;

	if (!convs)
	{
		nn_no_memory(error, sizeof(CudaConvs));
		return NULL;
	}
	if (cudnn_load(&convs->lib, error) != NN_OK)
	{
		free(convs);
		return NULL;
	}
	version = convs->lib.version();
	snprintf(convs->name, sizeof(convs->name), "cuDNN %zu.%zu.%zu", version / 10000,
			 version / 100 % 100, version % 100);
	convs->tune = tune ? atoi(tune) : 0;
	convs->pin = pin ? atoi(pin) : 0;
	return convs;
}

NnStatus
cuda_convs_open(void *stream, CudaConvs **out, NnError *error)
{
	CudaConvs *convs = new_convs(error);
	struct cudaDeviceProp properties;
	int device;
	cudnnStatus_t status;
	NnStatus code;

	if (!convs)
		return error && error->code != NN_OK ? error->code : NN_EUNSUPPORTED;
	convs->stream = stream;
	if (cudaGetDevice(&device) == cudaSuccess &&
		cudaGetDeviceProperties(&properties, device) == cudaSuccess)
		snprintf(convs->device_name, sizeof(convs->device_name), "%s", properties.name);
	status = convs->lib.create(&convs->handle);
	if (status == CUDNN_STATUS_SUCCESS)
		status = convs->lib.set_stream(convs->handle, stream);
	if (status != CUDNN_STATUS_SUCCESS)
	{
		code = cudnn_fail(convs, error, status, "be started");
		cuda_convs_close(convs);
		/* there are library and GPU: others may fill or hold it now */
		return code;
	}
	*out = convs;
	return NN_OK;
}

void
cuda_convs_close(CudaConvs *convs)
{
	if (!convs)
		return;
	if (convs->device)
		(void) convs->lib.drop(convs->device);
	if (convs->handle)
		(void) convs->lib.destroy(convs->handle);
	free(convs);
}

const char *
cuda_convs_name(const CudaConvs *convs)
{
	return convs->name;
}

/* ---- Descriptors --------------------------------------------------------- */

/*
 * The descriptors of one problem, and the first error in making them: after it
 * the functions do nothing, so that graphs read as the lists they are.
 */
typedef struct Descs
{
	const CudaConvs *convs;
	cudnnBackendDescriptor_t list[MAX_DESCS];
	int n;
	cudnnStatus_t status;
} Descs;

static cudnnBackendDescriptor_t
make(Descs *d, cudnnBackendDescriptorType_t type)
{
	cudnnBackendDescriptor_t desc = NULL;

	if (d->status == CUDNN_STATUS_SUCCESS && d->n == MAX_DESCS)
		d->status = CUDNN_STATUS_INTERNAL_ERROR;
	if (d->status == CUDNN_STATUS_SUCCESS)
		d->status = d->convs->lib.make(type, &desc);
	if (d->status != CUDNN_STATUS_SUCCESS)
		return NULL;
	d->list[d->n++] = desc;
	return desc;
}

static void
set(Descs *d, cudnnBackendDescriptor_t desc, cudnnBackendAttributeName_t name,
	cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
	if (d->status == CUDNN_STATUS_SUCCESS)
		d->status = d->convs->lib.set(desc, name, type, count, values);
}

static void
set_desc(Descs *d, cudnnBackendDescriptor_t desc, cudnnBackendAttributeName_t name,
		 cudnnBackendDescriptor_t value)
{
	set(d, desc, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void
set_ints(Descs *d, cudnnBackendDescriptor_t desc, cudnnBackendAttributeName_t name, int count,
		 const int64_t *values)
{
	set(d, desc, name, CUDNN_TYPE_INT64, count, values);
}

static cudnnBackendDescriptor_t
finalize(Descs *d, cudnnBackendDescriptor_t desc)
{
	if (d->status == CUDNN_STATUS_SUCCESS)
		d->status = d->convs->lib.finalize(desc);
	return desc;
}

static void
drop_all(Descs *d)
{
	while (d->n > 0)
		(void) d->convs->lib.drop(d->list[--d->n]);
}

/* Takes a descriptor off the list, to outlive it; it is the last one made. */
static cudnnBackendDescriptor_t
keep_last(Descs *d)
{
	return d->list[--d->n];
}

/* ---- Graphs -------------------------------------------------------------- */

/* Names of tensors in graphs and at execution. */
enum
{
	UID_X = 'x',
	UID_FILTER = 'w',
	UID_Y = 'y'
};

static cudnnDataType_t
data_type(KernelType type)
{
	switch (type)
	{
		case KERNEL_F16:
			return CUDNN_DATA_HALF;
		case KERNEL_BF16:
			return CUDNN_DATA_BFLOAT16;
		case KERNEL_F32:
		case KERNEL_U8:
			break;
	}
	return CUDNN_DATA_FLOAT;
}

/* cuDNN counts dimensions as NCHW whatever the strides are. */
static cudnnBackendDescriptor_t
tensor(Descs *d, int64_t uid, KernelType type, int64_t n, int64_t c, int64_t h, int64_t w)
{
	cudnnBackendDescriptor_t t = make(d, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
	cudnnDataType_t cudnn_type = data_type(type);

	set_ints(d, t, CUDNN_ATTR_TENSOR_UNIQUE_ID, 1, &uid);
	set(d, t, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &cudnn_type);
	set_ints(d, t, CUDNN_ATTR_TENSOR_DIMENSIONS, 4, (int64_t[]){ n, c, h, w });
	set_ints(d, t, CUDNN_ATTR_TENSOR_STRIDES, 4, (int64_t[]){ h * w * c, 1, w * c, c });
	set_ints(d, t, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 1, (int64_t[]){ 16 });
	return finalize(d, t);
}

static cudnnBackendDescriptor_t
convolution(Descs *d, const CudaConvShape *s)
{
	cudnnBackendDescriptor_t conv = make(d, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
	cudnnDataType_t sums = CUDNN_DATA_FLOAT;
	cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;

	set(d, conv, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums);
	set(d, conv, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
	set_ints(d, conv, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 1, (int64_t[]){ 2 });
	set_ints(d, conv, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, 2, (int64_t[]){ s->pad, s->pad });
	set_ints(d, conv, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, 2, (int64_t[]){ s->pad, s->pad });
	set_ints(d, conv, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 2,
			 (int64_t[]){ s->stride, s->stride });
	set_ints(d, conv, CUDNN_ATTR_CONVOLUTION_DILATIONS, 2, (int64_t[]){ 1, 1 });
	return finalize(d, conv);
}

/* How cuDNN calls the operation of a kind, and x, filter and y of it. */
static const struct OperationKind
{
	const char *name; /* in kept plans */
	cudnnBackendDescriptorType_t type;
	cudnnBackendAttributeName_t conv, x, filter, y, alpha, beta;
} operations[] = {
	[CUDA_CONV_FORWARD] = { "fprop", CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
							CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
							CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
							CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
							CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
							CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
							CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA },
	[CUDA_CONV_DATA] = { "dgrad", CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
						 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
						 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
						 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
						 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
						 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
						 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA },
	[CUDA_CONV_FILTER] = { "wgrad", CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
						   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
						   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
						   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
						   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
						   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
						   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA },
};

static cudnnBackendDescriptor_t
operation(Descs *d, const CudaConvShape *s)
{
	const struct OperationKind *kind = &operations[s->kind];
	bool across = s->kind == CUDA_CONV_DATA; /* from K to C */
	cudnnBackendDescriptor_t x = tensor(d, UID_X, s->type, s->n, s->c, s->h, s->w),
							 y = tensor(d, UID_Y, s->type, s->n, s->k, s->oh, s->ow),
							 filter = tensor(d, UID_FILTER, s->type, across ? s->c : s->k,
											 across ? s->k : s->c, s->kernel, s->kernel),
							 conv = convolution(d, s), op = make(d, kind->type);
	double one = 1, zero = 0;

	set_desc(d, op, kind->conv, conv);
	set_desc(d, op, kind->x, x);
	set_desc(d, op, kind->filter, filter);
	set_desc(d, op, kind->y, y);
	set(d, op, kind->alpha, CUDNN_TYPE_DOUBLE, 1, &one);
	set(d, op, kind->beta, CUDNN_TYPE_DOUBLE, 1, &zero);
	return finalize(d, op);
}

static cudnnBackendDescriptor_t
operation_graph(Descs *d, const CudaConvShape *s)
{
	cudnnBackendDescriptor_t op = operation(d, s),
							 graph = make(d, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);

	set_desc(d, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, op);
	if (d->convs->handle)
		set(d, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &d->convs->handle);
	return finalize(d, graph);
}

/* ---- Engines ------------------------------------------------------------- */

/* Whether an engine's notes allow it (see the head); says if tensor cores. */
static bool
is_allowed(Descs *d, cudnnBackendDescriptor_t config, const CudaConvShape *s,
		   CudaConvChoice *choice)
{
	cudnnBackendDescriptor_t engine = make(d, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
	cudnnBackendNumericalNote_t numerical[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
	cudnnBackendBehaviorNote_t behavior[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
	int64_t nnumerical = 0, nbehavior = 0, one;
	bool strict = s->type == KERNEL_F32 && !s->tf32;
	const CudnnLibrary *lib = &d->convs->lib;

	if (d->status != CUDNN_STATUS_SUCCESS ||
		lib->get(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &one,
				 &engine) != CUDNN_STATUS_SUCCESS ||
		lib->get(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
				 CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &nnumerical, numerical) != CUDNN_STATUS_SUCCESS ||
		lib->get(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
				 CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, &nbehavior, behavior) != CUDNN_STATUS_SUCCESS ||
		lib->get(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &one,
				 &choice->engine) != CUDNN_STATUS_SUCCESS)
		return false;
	/* a later cuDNN may note more: that is counted and not written */
	if (nnumerical > CUDNN_NUMERICAL_NOTE_TYPE_COUNT || nbehavior > CUDNN_BEHAVIOR_NOTE_TYPE_COUNT)
		return false;
	choice->tensor_cores = false;
	for (int64_t i = 0; i < nnumerical; i++)
	{
		choice->tensor_cores |= numerical[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
		if (numerical[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC ||
			numerical[i] == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)
			return false;
		if (strict && (numerical[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE ||
					   numerical[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS ||
					   numerical[i] == CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13))
			return false;
	}
	for (int64_t i = 0; i < nbehavior; i++)
		if (behavior[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION)
			return false;
	return true;
}

/* What a plan is for: the GPU of our handle, or the described one. */
static void
set_target(Descs *d, cudnnBackendDescriptor_t plan)
{
	if (d->convs->handle)
		set(d, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &d->convs->handle);
	else
		set_desc(d, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, d->convs->device);
}

/*
 * A conv's plan from a configuration; false if it cannot be, or wants more
 * workspace than allowed. For want of memory no other can be made either.
 */
static bool
make_plan(Descs *d, cudnnBackendDescriptor_t config, CudaConv *conv)
{
	const CudaConvs *convs = d->convs;
	Descs own = { .convs = convs };
	cudnnBackendDescriptor_t plan = make(&own, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
	int64_t one;

	set_desc(&own, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
	set_target(&own, plan);
	finalize(&own, plan);
	if (own.status == CUDNN_STATUS_SUCCESS)
		own.status = convs->lib.get(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
									CUDNN_TYPE_INT64, 1, &one, &conv->workspace);
	if (own.status != CUDNN_STATUS_SUCCESS || conv->workspace > (int64_t) CUDA_MAX_WORKSPACE)
	{
		drop_all(&own);
		d->status = is_memory(own.status) ? own.status : d->status;
		return false;
	}
	conv->plan = keep_last(&own);
	return true;
}

/* The configurations of a heuristic, best first; an error: an empty list. */
static int
list_configs(Descs *d, cudnnBackendDescriptor_t graph, cudnnBackendHeurMode_t mode,
			 cudnnBackendDescriptor_t configs[MAX_CONFIGS])
{
	cudnnBackendDescriptor_t heuristic = make(d, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
	int64_t n = 0;

	set_desc(d, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
	set(d, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
	if (d->convs->device)
		set_desc(d, heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, d->convs->device);
	finalize(d, heuristic);
	for (int i = 0; i < MAX_CONFIGS; i++)
		configs[i] = make(d, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
	if (d->status == CUDNN_STATUS_SUCCESS)
		d->status = d->convs->lib.get(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
									  CUDNN_TYPE_BACKEND_DESCRIPTOR, MAX_CONFIGS, &n, configs);
	if (d->status != CUDNN_STATUS_SUCCESS)
		return 0;
	return n < MAX_CONFIGS ? (int) n : MAX_CONFIGS; /* of more it tells the number only */
}

/* ---- Recipes ------------------------------------------------------------- */

/* Fills conv->recipe; one without an engine if cuDNN does not say. */
static void
read_recipe(const CudaConvs *convs, cudnnBackendDescriptor_t config, CudaConv *conv)
{
	Descs d = { .convs = convs };
	const CudnnLibrary *lib = &convs->lib;
	Recipe *r = &conv->recipe;
	cudnnBackendDescriptor_t choices[MAX_KNOBS];
	int64_t n = 0, one;

	*r = (Recipe){ .engine = conv->choice.engine };
	for (int i = 0; i < MAX_KNOBS; i++)
		choices[i] = make(&d, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
	if (d.status == CUDNN_STATUS_SUCCESS)
		d.status = lib->get(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
							CUDNN_TYPE_BACKEND_DESCRIPTOR, MAX_KNOBS, &n, choices);
	for (int i = 0; i < n && i < MAX_KNOBS && d.status == CUDNN_STATUS_SUCCESS; i++)
	{
		d.status = lib->get(choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1,
							&one, &r->knobs[i]);
		if (d.status == CUDNN_STATUS_SUCCESS)
			d.status = lib->get(choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1,
								&one, &r->values[i]);
		r->nknobs = i + 1;
	}
	if (d.status != CUDNN_STATUS_SUCCESS || n > MAX_KNOBS)
		r->engine = -1;
	drop_all(&d);
}

static cudnnBackendDescriptor_t
cudnn_config_of(Descs *d, const Recipe *r, cudnnBackendDescriptor_t graph)
{
	cudnnBackendDescriptor_t engine = make(d, CUDNN_BACKEND_ENGINE_DESCRIPTOR), choices[MAX_KNOBS],
							 config;

	set_desc(d, engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph);
	set_ints(d, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, 1, &r->engine);
	if (d->convs->device)
		set_desc(d, engine, CUDNN_ATTR_ENGINE_DEVICEPROP, d->convs->device);
	finalize(d, engine);
	for (int i = 0; i < r->nknobs; i++)
	{
		choices[i] = make(d, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
		set(d, choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &r->knobs[i]);
		set_ints(d, choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, 1, &r->values[i]);
		finalize(d, choices[i]);
	}
	config = make(d, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
	set_desc(d, config, CUDNN_ATTR_ENGINECFG_ENGINE, engine);
	if (r->nknobs > 0)
		set(d, config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, r->nknobs,
			choices);
	return finalize(d, config);
}

/* Engines of a problem to time; 1: the first is taken. */
static int
tuned(const CudaConvs *convs, const CudaConvShape *s)
{
	return convs->tune > 1 && !s->steady ? convs->tune : 1;
}

/* The batch size whose engine a problem uses; 0: its own. */
static int
pinned_to(const CudaConvs *convs, const CudaConvShape *s)
{
	return s->steady ? 0 : convs->pin;
}

/* Keeps the better of two convs in *best; both are the caller's. */
static void
keep_faster(CudaConvs *convs, const CudaConvShape *s, CudaConv *candidate, CudaConv *best,
			float *best_ms)
{
	float ms = tuned(convs, s) > 1 ? cuda_time_conv(convs->stream, convs, candidate, s) : 0;

	if (best->plan && ms >= *best_ms)
	{
		(void) convs->lib.drop(candidate->plan);
		return;
	}
	if (best->plan)
		(void) convs->lib.drop(best->plan);
	*best = *candidate;
	*best_ms = ms;
}

/*
 * Fills conv->plan by the first engine that will do, or the fastest of the
 * first convs->tune; nothing if there is none. Returns the last error met.
 */
static cudnnStatus_t
choose_engine(CudaConvs *convs, const CudaConvShape *s, CudaConv *conv)
{
	static const cudnnBackendHeurMode_t modes[] = { CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK };
	int wanted = convs->handle ? tuned(convs, s) : 1;
	cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
	float best_ms = 0;
	int tried = 0;

	for (size_t m = 0; m < sizeof(modes) / sizeof(modes[0]) && !conv->plan; m++)
	{
		Descs d = { .convs = convs };
		cudnnBackendDescriptor_t configs[MAX_CONFIGS];
		cudnnBackendDescriptor_t graph = operation_graph(&d, s);
		int n = list_configs(&d, graph, modes[m], configs);

		for (int i = 0; i < n && tried < wanted; i++)
		{
			CudaConv candidate = { .convs = convs, .choice = { .fallback = m > 0, .place = i } };

			if (!is_allowed(&d, configs[i], s, &candidate.choice) ||
				!make_plan(&d, configs[i], &candidate))
				continue;
			tried++;
			if (pinned_to(convs, s) > 0)
				read_recipe(convs, configs[i], &candidate);
			keep_faster(convs, s, &candidate, conv, &best_ms);
		}
		status = d.status;
		drop_all(&d);
	}
	return status;
}

/* Fills conv->plan by the engine of convs->pin images, if it may be. */
static void
follow_pin(CudaConvs *convs, const CudaConvShape *s, CudaConv *conv)
{
	CudaConvShape pinned = *s;
	CudaConv model = { .convs = convs };
	Descs d = { .convs = convs };

	pinned.n = convs->pin;
	choose_engine(convs, &pinned, &model);
	if (!model.plan)
		return;
	if (model.recipe.engine >= 0)
	{
		cudnnBackendDescriptor_t config =
			cudnn_config_of(&d, &model.recipe, operation_graph(&d, s));

		conv->choice = model.choice;
		conv->choice.pinned = d.status == CUDNN_STATUS_SUCCESS &&
							  is_allowed(&d, config, s, &conv->choice) &&
							  make_plan(&d, config, conv);
	}
	drop_all(&d);
	(void) convs->lib.drop(model.plan);
}

/* ---- Plans on disk ------------------------------------------------------- */

/* FNV-1a: names a file, whose content is checked by cuDNN when it is read. */
static uint64_t
hash_text(const char *text)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (; *text; text++)
		hash = (hash ^ (uint8_t) *text) * UINT64_C(0x100000001b3);
	return hash;
}

/* The file of a problem, and its first line; false if plans are not kept. */
static bool
plan_file(const CudaConvs *convs, const CudaConvShape *s, char *path, size_t path_size, char *key,
		  size_t key_size)
{
	const char *directory = getenv("BICYCLE_PLAN_CACHE");

	if (!directory)
		return false;
	snprintf(key, key_size,
			 "%s %d%s (%d,%d,%d,%d) to (%d,%d,%d) kernel %d stride %d pad %d, tuned %d, pinned %d, "
			 "%s, %s",
			 operations[s->kind].name, (int) s->type, s->tf32 ? " tf32" : "", s->n, s->h, s->w,
			 s->c, s->oh, s->ow, s->k, s->kernel, s->stride, s->pad, tuned(convs, s),
			 pinned_to(convs, s), convs->device_name, convs->name);
	return snprintf(path, path_size, "%s/%016llx.plan", directory,
					(unsigned long long) hash_text(key)) < (int) path_size;
}

/* A kept plan for this problem; false if cuDNN takes none. */
static bool
read_plan(CudaConvs *convs, const CudaConvShape *s, CudaConv *conv)
{
	Descs d = { .convs = convs };
	char path[4096], key[640];
	char *text = malloc(MAX_PLAN_TEXT);
	FILE *file = NULL;
	size_t length = 0, key_length;
	int64_t one;

	if (text && plan_file(convs, s, path, sizeof(path), key, sizeof(key)) &&
		(file = fopen(path, "re")) != NULL)
		length = fread(text, 1, MAX_PLAN_TEXT - 1, file);
	if (file)
		fclose(file);
	key_length = length > 0 ? strlen(key) : 0;
	if (length > key_length + 1 && strncmp(text, key, key_length) == 0 && text[key_length] == '\n')
	{
		cudnnBackendDescriptor_t plan = make(&d, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);

		text[length] = '\0';
		set_target(&d, plan);
		set(&d, plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
			(int64_t) (length - key_length), text + key_length + 1);
		finalize(&d, plan);
		if (d.status == CUDNN_STATUS_SUCCESS)
			d.status = convs->lib.get(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
									  CUDNN_TYPE_INT64, 1, &one, &conv->workspace);
		if (d.status == CUDNN_STATUS_SUCCESS && conv->workspace <= (int64_t) CUDA_MAX_WORKSPACE)
			conv->plan = keep_last(&d);
		drop_all(&d);
	}
	free(text);
	return conv->plan != NULL;
}

/* Keeps a plan for the next start; that it could not be is no error. */
static void
write_plan(const CudaConvs *convs, const CudaConvShape *s, const CudaConv *conv)
{
	char path[4096], temporary[4128], key[640];
	char *text = calloc(1, MAX_PLAN_TEXT);
	int64_t length = 0;
	FILE *file = NULL;
	bool good;

	if (text && plan_file(convs, s, path, sizeof(path), key, sizeof(key)) &&
		convs->lib.get(conv->plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
					   MAX_PLAN_TEXT - 1, &length, text) == CUDNN_STATUS_SUCCESS)
	{
		snprintf(temporary, sizeof(temporary), "%s.%d", path, (int) getpid());
		file = fopen(temporary, "we");
	}
	if (file)
	{
		good = fprintf(file, "%s\n%s", key, text) > 0;
		good &= fclose(file) == 0;
		if (!good || rename(temporary, path) != 0)
			(void) unlink(temporary);
	}
	free(text);
}

/* ---- Convolutions -------------------------------------------------------- */

NnStatus
cuda_conv_open(CudaConvs *convs, const CudaConvShape *shape, CudaConv **out, NnError *error)
{
	CudaConv *conv = calloc(1, sizeof(CudaConv));
	cudnnStatus_t status = CUDNN_STATUS_SUCCESS;

	if (!conv)
		return nn_no_memory(error, sizeof(CudaConv));
	conv->convs = convs;
	conv->choice.kept = read_plan(convs, shape, conv);
	if (!conv->choice.kept)
	{
		if (pinned_to(convs, shape) > 0 && convs->pin != shape->n)
			follow_pin(convs, shape, conv);
		if (!conv->plan)
			status = choose_engine(convs, shape, conv);
		if (conv->plan)
			write_plan(convs, shape, conv);
	}
	if (!conv->plan)
	{
		free(conv);
		if (is_memory(status))
			return cudnn_fail(convs, error, status, "plan a convolution");
		nn_fail(error, NN_EUNSUPPORTED, "cuDNN has no engine for a convolution");
		nn_detail(error, "It is %s of (%d, %d, %d, %d) to (%d, %d, %d), kernel %d, stride %d.",
				  operations[shape->kind].name, shape->n, shape->h, shape->w, shape->c, shape->oh,
				  shape->ow, shape->k, shape->kernel, shape->stride);
		return NN_EUNSUPPORTED;
	}
	*out = conv;
	return NN_OK;
}

size_t
cuda_conv_workspace(const CudaConv *conv)
{
	return (size_t) conv->workspace;
}

const CudaConvChoice *
cuda_conv_choice(const CudaConv *conv)
{
	return &conv->choice;
}

NnStatus
cuda_conv_run(CudaConvs *convs, const CudaConv *conv, const void *x, void *filter, void *y,
			  void *workspace, NnError *error)
{
	Descs d = { .convs = convs };
	cudnnBackendDescriptor_t pack = make(&d, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
	int64_t uids[] = { UID_X, UID_FILTER, UID_Y };
	const void *pointers[] = { x, filter, y };
	NnStatus status = NN_OK;

	set_ints(&d, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, 3, uids);
	set(&d, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, pointers);
	set(&d, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
	finalize(&d, pack);
	if (d.status == CUDNN_STATUS_SUCCESS)
		d.status = convs->lib.execute(convs->handle, conv->plan, pack);
	if (d.status != CUDNN_STATUS_SUCCESS)
		status = cudnn_fail(convs, error, d.status, "run a convolution");
	drop_all(&d);
	return status;
}

void
cuda_conv_close(CudaConv *conv)
{
	(void) conv->convs->lib.drop(conv->plan);
	free(conv);
}

/* ---- Without a GPU ------------------------------------------------------- */

NnStatus
cuda_convs_describe(const char *json, CudaConvs **out, NnError *error)
{
	CudaConvs *convs = new_convs(error);
	Descs d = { .convs = convs };
	cudnnBackendDescriptor_t device;

	if (!convs)
		return error && error->code != NN_OK ? error->code : NN_EUNSUPPORTED;
	device = make(&d, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
	set(&d, device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
		(int64_t) strlen(json) + 1, json);
	finalize(&d, device);
	if (d.status != CUDNN_STATUS_SUCCESS)
	{
		NnStatus status = cudnn_fail(convs, error, d.status, "take the description of a device");

		drop_all(&d);
		cuda_convs_close(convs);
		return status;
	}
	convs->device = keep_last(&d);
	snprintf(convs->device_name, sizeof(convs->device_name), "a device described by %016llx",
			 (unsigned long long) hash_text(json));
	*out = convs;
	return NN_OK;
}

char *
cuda_convs_description(CudaConvs *convs)
{
	Descs d = { .convs = convs };
	cudnnBackendDescriptor_t device = make(&d, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
	char *text = calloc(1, MAX_PLAN_TEXT);
	int64_t length = 0;

	set(&d, device, CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, 1, &convs->handle);
	finalize(&d, device);
	if (text && d.status == CUDNN_STATUS_SUCCESS)
		d.status = convs->lib.get(device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
								  CUDNN_TYPE_CHAR, MAX_PLAN_TEXT - 1, &length, text);
	drop_all(&d);
	if (d.status == CUDNN_STATUS_SUCCESS && text)
		return text;
	free(text);
	return NULL;
}
