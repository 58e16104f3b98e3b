/*
 * fit_state.c
 *	  The state of a fit as tensors: to read, to put back, and as a snapshot
 *	  that another thread reads while the fit goes on.
 *
 * A fit owns copies of its device's arrays until its next step. A snapshot owns
 * its list of tensors, and what the device has copied for it; names are the
 * fit's, which is closed after its snapshots are freed.
 *
 * R1 The device's owner takes a snapshot. From then on it is one other
 *    thread's, which reads of the fit only what never changes.
 */
#include "nn/fit_private.h"
#include "nn/params.h"
#include "common/invariant.h"

#include <stdlib.h>
#include <string.h>

const FitPart fit_parts[FIT_PARTS] = {
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

/* An array in the caller's reach. */
static NnStatus
reach(NnFit *t, NnArray array, const char **data, NnError *error)
{
	size_t count = array == NN_ARRAY_EMA ? t->training.nema : t->params.total;
	size_t bytes = count * nn_dtype_size(t->ops->dtype);

	*data = t->training.array[array].data;
	if (t->ops->host)
		return NN_OK;
	if (!t->reached[array])
		t->reached[array] = malloc(bytes + 1);
	if (!t->reached[array])
		return nn_no_memory(error, bytes);
	*data = t->reached[array];
	return t->ops->get(t->device, &t->training, array, 0, count, t->reached[array], error);
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

static NnTensor
tensor_of(const NnFit *t, int index, const char *name, const char *array)
{
	NnTensor tensor = describe_tensor(t, index, name);

	if (!tensor.data)
		tensor.data = array + t->params.list[index].offset * nn_dtype_size(t->ops->dtype);
	return tensor;
}

/*
 * Gradients may overflow though every loss is finite; the next step's losses
 * would tell, but a state that is stored or shown meanwhile must not be one
 * that nothing can go on from.
 */
static NnStatus
check_state_finite(int64_t iteration, const NnTensor *tensors, int ntensors, NnError *error)
{
	for (int i = 0; i < ntensors; i++)
		if (!nn_tensor_is_finite(&tensors[i]))
		{
			fit_diverged(iteration, error);
			nn_detail(error, "Tensor \"%s\" of network %s has numbers that are not finite.",
					  tensors[i].name, nn_network_name(tensors[i].network));
			return NN_EINVAL;
		}
	return NN_OK;
}

/* Hands a list over, or frees it. */
static NnStatus
give_tensors(const NnFit *t, NnTensor *list, int n, NnTensor **tensors, int *ntensors,
			 NnError *error)
{
	NnStatus status = check_state_finite(t->iteration, list, n, error);

	if (status != NN_OK)
	{
		free(list);
		return status;
	}
	*tensors = list;
	*ntensors = n;
	return NN_OK;
}

NnStatus
nn_fit_state(NnFit *t, NnTensor **tensors, int *ntensors, NnError *error)
{
	NnTensor *list = calloc((size_t) FIT_PARTS * t->params.n + 1, sizeof(NnTensor));
	int n = 0;

	if (!list)
		return nn_no_memory(error, (size_t) FIT_PARTS * t->params.n * sizeof(NnTensor));
	for (int part = 0; part < FIT_PARTS; part++)
	{
		const char *data;
		NnStatus status = reach(t, fit_parts[part].array, &data, error);

		if (status != NN_OK)
		{
			free(list);
			return status;
		}
		for (int i = 0; i < t->params.n; i++)
			if (part_has(t, part, &t->params.list[i]))
				list[n++] = tensor_of(t, i, t->names[part * t->params.n + i], data);
	}
	return give_tensors(t, list, n, tensors, ntensors, error);
}

NnStatus
nn_fit_weights(NnFit *t, NnTensor **tensors, int *ntensors, NnError *error)
{
	NnTensor *list = calloc((size_t) t->params.n + 1, sizeof(NnTensor));
	const char *data;
	NnStatus status;
	int n = 0;

	if (!list)
		return nn_no_memory(error, (size_t) t->params.n * sizeof(NnTensor));
	status = reach(t, t->training.nema > 0 ? NN_ARRAY_EMA : NN_ARRAY_PARAM, &data, error);
	if (status != NN_OK)
	{
		free(list);
		return status;
	}
	for (int i = 0; i < t->params.n; i++)
		if (t->params.list[i].network == NN_NET_G || t->params.list[i].network == NN_NET_E)
			list[n++] = tensor_of(t, i, t->params.list[i].name, data);
	return give_tensors(t, list, n, tensors, ntensors, error);
}

/* ---- Snapshots ----------------------------------------------------------- */

struct NnFitSnapshot
{
	const NnTrainSnapshots *ops;
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

static void
list_state(NnFitSnapshot *s, const NnFit *t)
{
	for (int part = 0; part < FIT_PARTS; part++)
		for (int i = 0; i < t->params.n; i++)
		{
			NnTensor *tensor = &s->tensors[s->n];

			if (!part_has(t, part, &t->params.list[i]))
				continue;
			*tensor = describe_tensor(t, i, t->names[part * t->params.n + i]);
			if (tensor->data)
				tensor->data = &s->counts[i];
			s->arrays[s->n] = fit_parts[part].array;
			s->offsets[s->n++] = t->params.list[i].offset;
		}
}

NnStatus
nn_fit_snapshot(NnFit *t, NnFitSnapshot **snapshot, NnError *error)
{
	size_t most = (size_t) FIT_PARTS * t->params.n + 1;
	NnFitSnapshot *s = calloc(1, sizeof(NnFitSnapshot));
	NnStatus status;

	INVARIANT(t->open == 0 && t->ops->snapshots);
	if (!s)
		return nn_no_memory(error, sizeof(NnFitSnapshot));
	*s = (NnFitSnapshot){ .ops = t->ops->snapshots,
						  .device = t->device,
						  .iteration = t->iteration,
						  .tensors = calloc(most, sizeof(NnTensor)),
						  .offsets = calloc(most, sizeof(size_t)),
						  .arrays = calloc(most, sizeof(NnArray)),
						  .counts = calloc(most, sizeof(int64_t)) };
	if (s->tensors && s->offsets && s->arrays && s->counts)
	{
		memcpy(s->counts, t->tracked, t->params.n * sizeof(int64_t));
		list_state(s, t);
		status = s->ops->take(s->device, &t->training, &s->taken, error);
	}
	else
		status = nn_no_memory(error, most * sizeof(NnTensor));
	if (status != NN_OK)
	{
		nn_snapshot_free(s);
		return status;
	}
	*snapshot = s;
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

NnStatus
nn_snapshot_read(const NnFitSnapshot *s, int index, void *data, NnError *error)
{
	NnTensor tensor = s->tensors[index];
	NnStatus status = NN_OK;

	INVARIANT(index >= 0 && index < s->n);
	if (tensor.data)
		memcpy(data, tensor.data, tensor.nbytes);
	else
		status = s->ops->get(s->device, s->taken, s->arrays[index], s->offsets[index],
							 tensor.nbytes / nn_dtype_size(tensor.dtype), data, error);
	tensor.data = data;
	return status == NN_OK ? check_state_finite(s->iteration, &tensor, 1, error) : status;
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
