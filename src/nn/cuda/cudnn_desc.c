/*
 * cudnn_desc.c
 *	  Descriptors of cuDNN, of which a problem is made: a plain convolution or
 *	  one of its gradients, one operation a graph.
 *
 * A problem's descriptors are in one list (CudnnDescs), and go with it.
 */
#include "nn/cuda/cudnn_private.h"

cudnnBackendDescriptor_t
cudnn_make(CudnnDescs *d, cudnnBackendDescriptorType_t type)
{
	cudnnBackendDescriptor_t desc = NULL;

	if (d->status == CUDNN_STATUS_SUCCESS && d->n == CUDNN_MAX_DESCS)
		d->status = CUDNN_STATUS_INTERNAL_ERROR;
	if (d->status == CUDNN_STATUS_SUCCESS)
		d->status = d->convs->lib.make(type, &desc);
	if (d->status != CUDNN_STATUS_SUCCESS)
		return NULL;
	d->list[d->n++] = desc;
	return desc;
}

void
cudnn_set(CudnnDescs *d, cudnnBackendDescriptor_t desc, cudnnBackendAttributeName_t name,
		  cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
	if (d->status == CUDNN_STATUS_SUCCESS)
		d->status = d->convs->lib.set(desc, name, type, count, values);
}

void
cudnn_set_desc(CudnnDescs *d, cudnnBackendDescriptor_t desc, cudnnBackendAttributeName_t name,
			   cudnnBackendDescriptor_t value)
{
	cudnn_set(d, desc, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

void
cudnn_set_ints(CudnnDescs *d, cudnnBackendDescriptor_t desc, cudnnBackendAttributeName_t name,
			   int count, const int64_t *values)
{
	cudnn_set(d, desc, name, CUDNN_TYPE_INT64, count, values);
}

cudnnBackendDescriptor_t
cudnn_finalize(CudnnDescs *d, cudnnBackendDescriptor_t desc)
{
	if (d->status == CUDNN_STATUS_SUCCESS)
		d->status = d->convs->lib.finalize(desc);
	return desc;
}

void
cudnn_drop_all(CudnnDescs *d)
{
	while (d->n > 0)
		(void) d->convs->lib.drop(d->list[--d->n]);
}

/* Takes a descriptor off the list, to outlive it; it is the last one made. */
cudnnBackendDescriptor_t
cudnn_keep_last(CudnnDescs *d)
{
	return d->list[--d->n];
}

/* ---- Graphs -------------------------------------------------------------- */

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
tensor(CudnnDescs *d, int64_t uid, KernelType type, int64_t n, int64_t c, int64_t h, int64_t w)
{
	cudnnBackendDescriptor_t t = cudnn_make(d, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
	cudnnDataType_t cudnn_type = data_type(type);

	cudnn_set_ints(d, t, CUDNN_ATTR_TENSOR_UNIQUE_ID, 1, &uid);
	cudnn_set(d, t, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &cudnn_type);
	cudnn_set_ints(d, t, CUDNN_ATTR_TENSOR_DIMENSIONS, 4, (int64_t[]){ n, c, h, w });
	cudnn_set_ints(d, t, CUDNN_ATTR_TENSOR_STRIDES, 4, (int64_t[]){ h * w * c, 1, w * c, c });
	cudnn_set_ints(d, t, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 1, (int64_t[]){ 16 });
	return cudnn_finalize(d, t);
}

static cudnnBackendDescriptor_t
convolution(CudnnDescs *d, const CudaConvShape *s)
{
	cudnnBackendDescriptor_t conv = cudnn_make(d, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
	cudnnDataType_t sums = CUDNN_DATA_FLOAT;
	cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;

	cudnn_set(d, conv, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums);
	cudnn_set(d, conv, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
	cudnn_set_ints(d, conv, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 1, (int64_t[]){ 2 });
	cudnn_set_ints(d, conv, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, 2, (int64_t[]){ s->pad, s->pad });
	cudnn_set_ints(d, conv, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, 2, (int64_t[]){ s->pad, s->pad });
	cudnn_set_ints(d, conv, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 2,
				   (int64_t[]){ s->stride, s->stride });
	cudnn_set_ints(d, conv, CUDNN_ATTR_CONVOLUTION_DILATIONS, 2, (int64_t[]){ 1, 1 });
	return cudnn_finalize(d, conv);
}

/* How cuDNN calls the operation of a kind, and x, filter and y of it. */
static const struct OperationKind
{
	const char *name;
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
operation(CudnnDescs *d, const CudaConvShape *s)
{
	const struct OperationKind *kind = &operations[s->kind];
	bool across = s->kind == CUDA_CONV_DATA; /* from K to C */
	cudnnBackendDescriptor_t x = tensor(d, CUDNN_UID_X, s->type, s->n, s->c, s->h, s->w),
							 y = tensor(d, CUDNN_UID_Y, s->type, s->n, s->k, s->oh, s->ow),
							 filter = tensor(d, CUDNN_UID_FILTER, s->type, across ? s->c : s->k,
											 across ? s->k : s->c, s->kernel, s->kernel),
							 conv = convolution(d, s), op = cudnn_make(d, kind->type);
	double one = 1, zero = 0;

	cudnn_set_desc(d, op, kind->conv, conv);
	cudnn_set_desc(d, op, kind->x, x);
	cudnn_set_desc(d, op, kind->filter, filter);
	cudnn_set_desc(d, op, kind->y, y);
	cudnn_set(d, op, kind->alpha, CUDNN_TYPE_DOUBLE, 1, &one);
	cudnn_set(d, op, kind->beta, CUDNN_TYPE_DOUBLE, 1, &zero);
	return cudnn_finalize(d, op);
}

cudnnBackendDescriptor_t
cudnn_operation_graph(CudnnDescs *d, const CudaConvShape *s)
{
	cudnnBackendDescriptor_t op = operation(d, s),
							 graph = cudnn_make(d, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);

	cudnn_set_desc(d, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, op);
	if (d->convs->handle)
		cudnn_set(d, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1,
				  &d->convs->handle);
	return cudnn_finalize(d, graph);
}

const char *
cudnn_kind_name(CudaConvKind kind)
{
	return operations[kind].name;
}

/* What a plan is for: the GPU of our handle, or the described one. */
void
cudnn_set_target(CudnnDescs *d, cudnnBackendDescriptor_t plan)
{
	if (d->convs->handle)
		cudnn_set(d, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
				  &d->convs->handle);
	else
		cudnn_set_desc(d, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, d->convs->device);
}
