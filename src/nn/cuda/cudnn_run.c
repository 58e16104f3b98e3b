/*
 * cudnn_run.c
 *	  Running one of cuDNN's plans, and saying what went wrong with cuDNN.
 */
#include "nn/cuda/cudnn_private.h"

#include "nn/nn_error.h"

NnStatus
cudnn_fail(const CudaConvs *convs, NnError *error, cudnnStatus_t status, const char *what)
{
	NnStatus code = cudnn_is_memory(status) ? NN_ENOMEM : NN_EDEVICE;
	char text[512] = "";

	convs->lib.last_error(text, sizeof(text));
	nn_fail(error, code, "cuDNN could not %s", what);
	nn_detail(error, "Its status is %d: %.400s.", (int) status, text[0] ? text : "no text");
	return code;
}

size_t
cuda_conv_workspace(const CudaConv *conv)
{
	return (size_t) conv->choice.workspace;
}

NnStatus
cuda_conv_run(CudaConvs *convs, const CudaConv *conv, const void *x, void *filter, void *y,
			  void *workspace, NnError *error)
{
	CudnnDescs d = { .convs = convs };
	cudnnBackendDescriptor_t pack = cudnn_make(&d, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
	int64_t uids[] = { CUDNN_UID_X, CUDNN_UID_FILTER, CUDNN_UID_Y };
	const void *pointers[] = { x, filter, y };
	NnStatus status = NN_OK;

	cudnn_set_ints(&d, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, 3, uids);
	cudnn_set(&d, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, pointers);
	cudnn_set(&d, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
	cudnn_finalize(&d, pack);
	if (d.status == CUDNN_STATUS_SUCCESS)
		d.status = convs->lib.execute(convs->handle, conv->plan, pack);
	if (d.status != CUDNN_STATUS_SUCCESS)
		status = cudnn_fail(convs, error, d.status, "run a convolution");
	cudnn_drop_all(&d);
	return status;
}
