/*
 * fit_state.c
 *	  The state of a fit as tensors: to read, to put back, and as a snapshot
 *	  that another thread reads while the fit goes on.
 *
 * A snapshot owns its list of tensors, and what the device has copied for it; a
 * view has copied nothing, and reads the fit's arrays. Names are the fit's,
 * which is closed after both are freed.
 *
 * R1 The device's owner takes a snapshot. From then on it is one other
 *    thread's, which reads of the fit only what never changes.
 * R2 A view stays the owner's, and is freed before the fit's next step.
 * R3 Numbers are read one tensor at a time, into where the caller wants them:
 *    nothing here takes memory for all of them.
 */
#include "nn/fit_private.h"
#include "nn/params.h"
#include "common/invariant.h"

#include <stdlib.h>
#include <string.h>

const FitArray fit_parts[FIT_PARTS] = {
	{ "", NN_ARRAY_PARAM }, { "m.", NN_ARRAY_M }, { "v.", NN_ARRAY_V }, { "ema.", NN_ARRAY_EMA }
};

NnStatus
fit_diverged(int64_t iteration, NnError *error)
{
	nn_fail(error, NN_EINVAL, "training diverged at iteration %lld", (long long) iteration);
	nn_hint(error, "Train with a lower option \"lr\", or with \"precision\" fp32.");
	return NN_EINVAL;
}

/* ---- Reading ------------------------------------------------------------- */

/* Moments have no buffers, averages only those of G and E and no counts. */
static bool
part_has(const NnFit *t, int part, const NnParam *p)
{
	switch (fit_parts[part].array)
	{
		case NN_ARRAY_M:
		case NN_ARRAY_V:
			return !p->buffer;
		case NN_ARRAY_EMA:
			return p->offset < t->training.nema && !p->integer;
		default:
			return true;
	}
}

/* A parameter's tensor, without its numbers but those that are counted here. */
static NnTensor
describe_tensor(const NnFit *t, int index, const char *name)
{
	const NnParam *p = &t->params.list[index];
	NnTensor tensor = {
		.name = name, .network = p->network, .dtype = t->ops->dtype, .ndim = p->ndim
	};

	for (int i = 0; i < p->ndim; i++)
		tensor.shape[i] = p->shape[i];
	if (p->integer)
	{
		tensor.dtype = NN_I64;
		tensor.data = &t->tracked[index];
	}
	tensor.nbytes = p->count * nn_dtype_size(tensor.dtype);
	return tensor;
}

/*
 * Gradients may overflow though every loss is finite; the next step's losses
 * would tell, but a state that is stored or shown meanwhile must not be one
 * that nothing can go on from.
 */
static NnStatus
check_state_finite(int64_t iteration, const NnTensor *tensor, NnError *error)
{
	if (nn_tensor_is_finite(tensor))
		return NN_OK;
	fit_diverged(iteration, error);
	nn_detail(error, "Tensor \"%s\" of network %s has numbers that are not finite.", tensor->name,
			  nn_network_name(tensor->network));
	return NN_EINVAL;
}

/* ---- Snapshots and views ------------------------------------------------- */

struct NnFitSnapshot
{
	NnFit *fit;                  /* of a view: whose arrays are read */
	const NnTrainSnapshots *ops; /* NULL: it is a view */
	NnDevice *device;
	void *taken; /* the device's */
	int64_t iteration;
	NnTensor *tensors; /* data: into `counts`, or NULL */
	size_t *offsets;   /* of each, in its array */
	NnArray *arrays;   /* likewise */
	int n;
	int64_t *counts; /* the fit's, as they were */
};

bool
nn_fit_has_snapshots(const NnFit *t)
{
	return t->ops->snapshots != NULL;
}

void
nn_snapshot_free(NnFitSnapshot *s)
{
	if (!s)
		return;
	if (s->taken)
		s->ops->drop(s->device, s->taken);
	free(s->tensors);
	free(s->offsets);
	free(s->arrays);
	free(s->counts);
	free(s);
}

/* One of the table's, as a part of the state; under that name. */
static void
list_tensor(NnFitSnapshot *s, const NnFit *t, NnArray array, int index, const char *name)
{
	NnTensor *tensor = &s->tensors[s->n];

	*tensor = describe_tensor(t, index, name);
	if (tensor->data)
		tensor->data = &s->counts[index];
	s->arrays[s->n] = array;
	s->offsets[s->n++] = t->params.list[index].offset;
}

static void
list_state(NnFitSnapshot *s, const NnFit *t)
{
	for (int part = 0; part < FIT_PARTS; part++)
		for (int i = 0; i < t->params.n; i++)
			if (part_has(t, part, &t->params.list[i]))
				list_tensor(s, t, fit_parts[part].array, i, t->names[part * t->params.n + i]);
}

/* Where a version's numbers of a parameter are: averages if there are any. */
static NnArray
version_array(const NnFit *t, const NnParam *p)
{
	return p->offset < t->training.nema ? NN_ARRAY_EMA : NN_ARRAY_PARAM;
}

static void
list_version(NnFitSnapshot *s, const NnFit *t)
{
	for (int i = 0; i < t->params.n; i++)
		list_tensor(s, t, version_array(t, &t->params.list[i]), i, t->params.list[i].name);
}

/* Nothing is listed yet. */
static NnStatus
new_snapshot(NnFit *t, NnFitSnapshot **snapshot, NnError *error)
{
	size_t most = (size_t) FIT_PARTS * t->params.n + 1;
	NnFitSnapshot *s = calloc(1, sizeof(NnFitSnapshot));

	INVARIANT(t->open == 0);
	if (!s)
		return nn_no_memory(error, sizeof(NnFitSnapshot));
	*s = (NnFitSnapshot){ .fit = t,
						  .device = t->device,
						  .iteration = t->iteration,
						  .tensors = calloc(most, sizeof(NnTensor)),
						  .offsets = calloc(most, sizeof(size_t)),
						  .arrays = calloc(most, sizeof(NnArray)),
						  .counts = calloc(most, sizeof(int64_t)) };
	if (!s->tensors || !s->offsets || !s->arrays || !s->counts)
	{
		nn_snapshot_free(s);
		return nn_no_memory(error, most * sizeof(NnTensor));
	}
	memcpy(s->counts, t->tracked, t->params.n * sizeof(int64_t));
	*snapshot = s;
	return NN_OK;
}

NnStatus
nn_fit_snapshot(NnFit *t, NnFitSnapshot **snapshot, NnError *error)
{
	NnFitSnapshot *s;
	NnStatus status = new_snapshot(t, &s, error);

	INVARIANT(t->ops->snapshots);
	if (status != NN_OK)
		return status;
	s->fit = NULL;
	s->ops = t->ops->snapshots;
	list_state(s, t);
	status = s->ops->take(s->device, &t->training, &s->taken, error);
	if (status != NN_OK)
	{
		nn_snapshot_free(s);
		return status;
	}
	*snapshot = s;
	return NN_OK;
}

NnStatus
nn_fit_view(NnFit *t, NnFitPart part, NnFitSnapshot **view, NnError *error)
{
	NnStatus status = new_snapshot(t, view, error);

	if (status != NN_OK)
		return status;
	if (part == NN_FIT_STATE)
		list_state(*view, t);
	else
		list_version(*view, t);
	return NN_OK;
}

int64_t
nn_snapshot_iteration(const NnFitSnapshot *s)
{
	return s->iteration;
}

const NnTensor *
nn_snapshot_tensors(const NnFitSnapshot *s, int *ntensors)
{
	*ntensors = s->n;
	return s->tensors;
}

static NnStatus
read_numbers(const NnFitSnapshot *s, int index, size_t count, void *data, NnError *error)
{
	NnFit *t = s->fit;

	if (s->ops)
		return s->ops->get(s->device, s->taken, s->arrays[index], s->offsets[index], count, data,
						   error);
	INVARIANT(t->open == 0 && t->iteration == s->iteration);
	return t->ops->get(t->device, &t->training, s->arrays[index], s->offsets[index], count, data,
					   error);
}

NnStatus
nn_snapshot_read(const NnFitSnapshot *s, int index, void *data, NnError *error)
{
	NnTensor tensor = s->tensors[index];
	NnStatus status = NN_OK;

	INVARIANT(index >= 0 && index < s->n);
	if (tensor.data)
		memcpy(data, tensor.data, tensor.nbytes);
	else
		status = read_numbers(s, index, tensor.nbytes / nn_dtype_size(tensor.dtype), data, error);
	tensor.data = data;
	return status == NN_OK ? check_state_finite(s->iteration, &tensor, error) : status;
}

/* ---- A model's weights --------------------------------------------------- */

/* Numbers of a parameter as floats. */
static NnStatus
get_floats(NnFit *t, NnArray array, const NnParam *p, float *values, NnError *error)
{
	void *typed;
	NnStatus status;

	if (t->ops->dtype == NN_F32)
		return t->ops->get(t->device, &t->training, array, p->offset, p->count, values, error);
	typed = malloc(p->count * nn_dtype_size(t->ops->dtype) + 1);
	if (!typed)
		return nn_no_memory(error, p->count * nn_dtype_size(t->ops->dtype));
	status = t->ops->get(t->device, &t->training, array, p->offset, p->count, typed, error);
	if (status == NN_OK)
		fit_convert_numbers(NN_F32, values, t->ops->dtype, typed, p->count);
	free(typed);
	return status;
}

NnStatus
fit_fill_model(void *fit, const NnParams *params, float *values, NnError *error)
{
	NnFit *t = fit;
	NnStatus status = NN_OK;

	for (int i = 0; status == NN_OK && i < params->n; i++)
	{
		const NnParam *wanted = &params->list[i];
		int index = nn_params_find(&t->params, wanted->network, wanted->name);
		const NnParam *p = &t->params.list[index];
		float *out = values + wanted->offset;

		INVARIANT(index >= 0 && p->count == wanted->count);
		if (p->integer)
			*out = (float) t->tracked[index];
		else
			status = get_floats(t, version_array(t, p), p, out, error);
		if (status == NN_OK)
			status = check_state_finite(t->iteration,
										&(NnTensor){ .name = p->name,
													 .network = p->network,
													 .dtype = NN_F32,
													 .data = out,
													 .nbytes = p->count * sizeof(float) },
										error);
	}
	return status;
}

/* ---- Putting back -------------------------------------------------------- */

void
fit_convert_numbers(NnDtype to, void *out, NnDtype from, const void *in, size_t count)
{
	if (to == from)
		memcpy(out, in, count * nn_dtype_size(to));
	else if (to == NN_F64)
		for (size_t i = 0; i < count; i++)
			((double *) out)[i] = ((const float *) in)[i];
	else
		for (size_t i = 0; i < count; i++)
			((float *) out)[i] = (float) ((const double *) in)[i];
}

NnStatus
fit_put_floats(NnFit *t, NnArray array, size_t offset, size_t count, const float *values,
			   NnError *error)
{
	void *typed;
	NnStatus status;

	if (t->ops->dtype == NN_F32)
		return t->ops->put(t->device, &t->training, array, offset, count, values, error);
	typed = malloc(count * nn_dtype_size(t->ops->dtype) + 1);
	if (!typed)
		return nn_no_memory(error, count * nn_dtype_size(t->ops->dtype));
	fit_convert_numbers(t->ops->dtype, typed, NN_F32, values, count);
	status = t->ops->put(t->device, &t->training, array, offset, count, typed, error);
	free(typed);
	return status;
}

NnStatus
fit_restore_tensor(NnFit *t, NnArray array, int index, const char *name, const NnTensor *tensors,
				   int ntensors, NnError *error)
{
	NnParam p = t->params.list[index];
	NnParams one = { .list = &p, .n = 1 };
	const NnTensor *tensor;
	float *values;
	NnStatus status;

	p.name = (char *) name;
	p.offset = 0;
	tensor = nn_tensor_find(tensors, ntensors, &p);
	if (tensor && tensor->dtype == t->ops->dtype && nn_tensor_fits(tensor, &p) &&
		tensor->nbytes == p.count * nn_dtype_size(tensor->dtype))
		return t->ops->put(t->device, &t->training, array, t->params.list[index].offset, p.count,
						   tensor->data, error);
	values = malloc(p.count * sizeof(float) + 1);
	if (!values)
		return nn_no_memory(error, p.count * sizeof(float));
	status = nn_params_fill(&one, tensors, ntensors, values, error);
	if (status == NN_OK && p.integer && tensor && tensor->dtype == NN_I64)
		memcpy(&t->tracked[index], tensor->data, sizeof(int64_t));
	else if (status == NN_OK && p.integer)
		t->tracked[index] = (int64_t) values[0];
	else if (status == NN_OK)
		status = fit_put_floats(t, array, t->params.list[index].offset, p.count, values, error);
	free(values);
	return status;
}

NnStatus
nn_fit_restore(NnFit *t, const NnTensor *tensors, int ntensors, int64_t iteration, NnError *error)
{
	if (iteration < 0)
		return nn_fail(error, NN_EINVAL, "iteration %lld is negative", (long long) iteration);
	for (int part = 0; part < FIT_PARTS; part++)
		for (int i = 0; i < t->params.n; i++)
			if (part_has(t, part, &t->params.list[i]))
			{
				NnStatus status =
					fit_restore_tensor(t, fit_parts[part].array, i,
									   t->names[part * t->params.n + i], tensors, ntensors, error);

				if (status != NN_OK)
					return status;
			}
	t->iteration = iteration;
	nn_model_free(t->preview);
	t->preview = NULL;
	return NN_OK;
}
