/*
 * ref.c
 *	  The naive device: plans are run node by node through one table of
 *	  operators, in double, on one thread.
 *
 * Packed weights are the model's flat parameters as doubles; a plan's arena is
 * an array of doubles. Both are owned by whoever asked for them (pack_free,
 * release). The device itself has no state, so nothing is shared between
 * threads.
 */
#include "nn/ref/ref.h"

#include <stdlib.h>

static NnStatus
ref_pack(NnDevice *device, NnPrecision precision, const NnGraph *graph, const float *values,
		 void **packed, size_t *bytes, NnError *error)
{
	size_t total = graph->params->total;
	double *weights;

	*bytes = total * sizeof(double);
	weights = fault_point(FAULT_ALLOCATION) ? NULL : malloc(*bytes + 1);
	if (!weights)
		return nn_no_memory(error, *bytes);
	for (size_t i = 0; i < total; i++)
		weights[i] = values[i];
	*packed = weights;
	return NN_OK;
}

static size_t
ref_pack_bytes(NnDevice *device, NnPrecision precision, const NnGraph *graph)
{
	return nn_mul(graph->params->total, sizeof(double));
}

static void
ref_pack_free(NnDevice *device, void *packed)
{
	free(packed);
}

static NnStatus
ref_prepare(NnDevice *device, NnPlan *plan, const void *packed, NnError *error)
{
	size_t bytes = nn_mul(plan->arena_elements, sizeof(double));

	plan->arena = fault_point(FAULT_ALLOCATION) ? NULL : malloc(bytes);
	plan->device_bytes = 0;
	return plan->arena ? nn_fault(FAULT_CAPTURE, error) : nn_no_memory(error, bytes);
}

static void
ref_release(NnDevice *device, NnPlan *plan)
{
	free(plan->arena);
	plan->arena = NULL;
}

static void
run_bindings(const NnPlan *plan, const NnBinding *bindings, int nbindings, bool outputs)
{
	for (int i = 0; i < nbindings; i++)
	{
		int value = bindings[i].value;
		NnMap t = { .shape = plan->graph->values[value].shape,
					.pitch = plan->pitch[value],
					.data = (double *) plan->arena + plan->offset[value] };
		float *data = bindings[i].data;

		if (plan->graph->values[value].output != outputs)
			continue;
		for (size_t k = 0; k < nn_map_count(&t); k++)
		{
			if (outputs)
				data[k] = (float) *ref_number(&t, k);
			else
				*ref_number(&t, k) = data[k];
		}
	}
}

static NnStatus
ref_run(NnDevice *device, NnPlan *plan, const void *packed, const NnBinding *bindings,
		int nbindings, NnError *error)
{
	NnStatus status = nn_fault(FAULT_COPY, error);

	if (status != NN_OK)
		return status;
	run_bindings(plan, bindings, nbindings, false);
	for (int i = 0; status == NN_OK && i < plan->graph->nnodes; i++)
	{
		NnOperands op = nn_operands(plan, i, (NnNumbers){ (void *) packed },
									(NnSizes){ sizeof(double), sizeof(double) });

		if (op.node->op != NN_OP_INPUT)
			status = nn_fault(FAULT_LAUNCH, error);
		if (op.node->op != NN_OP_INPUT && status == NN_OK)
			status = ref_ops[op.node->op].forward(&op, error);
	}
	if (status == NN_OK)
		status = nn_fault(FAULT_COPY, error);
	if (status == NN_OK)
		run_bindings(plan, bindings, nbindings, true);
	return status;
}

static bool
ref_supports(const NnDevice *device, NnPrecision precision)
{
	return precision == NN_PRECISION_FP32;
}

static size_t
ref_element_bytes(const NnDevice *device, NnPrecision precision)
{
	return sizeof(double);
}

static const char *
ref_describe(const NnDevice *device)
{
	return "ref (double precision, 1 thread)";
}

static void
ref_set_threads(NnDevice *device, int threads)
{
	device->threads = 1;
}

static void
ref_close(NnDevice *device)
{
	free(device);
}

NnStatus
nn_ref_open(int threads, NnDevice **device, NnError *error)
{
	static const NnDevice ref = { .name = "ref",
								  .threads = 1,
								  .pack = ref_pack,
								  .pack_free = ref_pack_free,
								  .pack_bytes = ref_pack_bytes,
								  .prepare = ref_prepare,
								  .run = ref_run,
								  .release = ref_release,
								  .supports = ref_supports,
								  .element_bytes = ref_element_bytes,
								  .describe = ref_describe,
								  .set_threads = ref_set_threads,
								  .close = ref_close,
								  .automatic = NN_PRECISION_FP32,
								  .max_arena_bytes = NN_ARENA_BYTES,
								  .most_images = NN_MOST_IMAGES,
								  .train = &ref_train_device };

	*device = malloc(sizeof(NnDevice));
	if (!*device)
		return nn_no_memory(error, sizeof(NnDevice));
	**device = ref;
	return NN_OK;
}
