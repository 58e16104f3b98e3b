/*
 * cudnn.c
 *	  Convolutions by cuDNN, through the C interface of its graphs ("backend"):
 *	  forward, data gradient and filter gradient, one plain operation a graph.
 *
 * R1 Which engine runs one is cudnn_choose.c's affair, and cudnn_keep.c's if it
 *    was chosen at an earlier start.
 * R2 An engine that fails only when it is run is found by cuda_conv_prove, and
 *    another is taken, unless memory was what it wanted (conv_memory.c).
 * R3 For a device that is described by a text (cuda_convs_describe) plans can
 *    be made but not run.
 */
#include "nn/cuda/cudnn_private.h"

#include "nn/cuda/cuda_time.h"
#include "nn/nn_error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- The library and its handle ------------------------------------------ */

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
	convs->tune = tune ? atoi(tune) : CUDNN_MAX_CLASSES;
	convs->pin = pin ? atoi(pin) : 0;
	return convs;
}

NnStatus
cuda_convs_open(void *stream, CudaConvs **out, NnError *error)
{
	CudaConvs *convs = new_convs(error);
	struct cudaDeviceProp properties;
	int device, driver = 0;
	cudnnStatus_t status;
	NnStatus code;

	if (!convs)
		return error && error->code != NN_OK ? error->code : NN_EUNSUPPORTED;
	convs->stream = stream;
	(void) cudaDriverGetVersion(&driver);
	if (cudaGetDevice(&device) == cudaSuccess &&
		cudaGetDeviceProperties(&properties, device) == cudaSuccess)
		snprintf(convs->device_name, sizeof(convs->device_name), "%.200s, driver %d",
				 properties.name, driver);
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

/* ---- Convolutions -------------------------------------------------------- */

NnStatus
cuda_conv_open(CudaConvs *convs, const CudaConvShape *shape, CudaConv **out, NnError *error)
{
	CudaConv *conv = calloc(1, sizeof(CudaConv));
	cudnnStatus_t status = CUDNN_STATUS_SUCCESS;

	if (!conv)
		return nn_no_memory(error, sizeof(CudaConv));
	conv->convs = convs;
	conv->shape = *shape;
	conv->most_workspace = CUDNN_MAX_WORKSPACE;
	conv->choice.kept = cudnn_read_plan(conv);
	if (!conv->plan)
	{
		status = cudnn_choose(conv);
		if (conv->plan && cuda_conv_is_to_keep(&conv->choice))
			cudnn_write_plan(conv);
	}
	if (!conv->plan)
	{
		free(conv);
		if (cudnn_is_memory(status))
			return cudnn_fail(convs, error, status, "plan a convolution");
		return cuda_conv_refuse(shape, "cuDNN has no engine", error);
	}
	*out = conv;
	return NN_OK;
}

const CudaConvChoice *
cuda_conv_choice(const CudaConv *conv)
{
	return &conv->choice;
}

/* Another plan in place of one that cannot be run; false if there is none. */
static bool
change_plan(CudaConv *conv)
{
	CudaConv next = *conv;

	if (!conv->choice.kept && !conv->choice.pinned)
		next.failed[conv->choice.fallback][conv->choice.place] = true;
	next.plan = NULL;
	next.choice = (CudaConvChoice){ .unsound = true };
	(void) cudnn_choose(&next);
	if (!next.plan)
		return false;
	(void) conv->convs->lib.drop(conv->plan);
	*conv = next;
	return true;
}

NnStatus
cuda_conv_prove(CudaConvs *convs, CudaConv *conv, const void *x, void *filter, void *y,
				void *workspace, size_t bytes, NnError *error)
{
	const CudaConvChoice first = conv->choice;
	size_t has;

	conv->most_workspace = bytes < INT64_MAX ? (int64_t) bytes : INT64_MAX;
	for (;;)
	{
		NnStatus status = cuda_conv_run(convs, conv, x, filter, y, workspace, error);
		cudaError_t result = convs->handle ? cudaStreamSynchronize(convs->stream) : cudaSuccess;

		/* then nothing runs any more, by whatever engine */
		if (result != cudaSuccess)
		{
			nn_fail(error, NN_EDEVICE, "GPU could not run a convolution");
			nn_detail(error, "CUDA reported: %s.", cudaGetErrorString(result));
			return NN_EDEVICE;
		}
		if (status == NN_OK && memcmp(&first, &conv->choice, sizeof(first)) != 0 &&
			cuda_conv_is_to_keep(&conv->choice))
			cudnn_write_plan(conv);
		if (status == NN_OK || status == NN_ENOMEM)
			return status;
		(void) cudaGetLastError();
		if (cuda_conv_is_short(&has) || !change_plan(conv))
			return cuda_conv_refuse(&conv->shape, "cuDNN has no engine that runs", error);
	}
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
	CudnnDescs d = { .convs = convs };
	cudnnBackendDescriptor_t device;

	if (!convs)
		return error && error->code != NN_OK ? error->code : NN_EUNSUPPORTED;
	device = cudnn_make(&d, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
	cudnn_set(&d, device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
			  (int64_t) strlen(json) + 1, json);
	cudnn_finalize(&d, device);
	if (d.status != CUDNN_STATUS_SUCCESS)
	{
		NnStatus status = cudnn_fail(convs, error, d.status, "take the description of a device");

		cudnn_drop_all(&d);
		cuda_convs_close(convs);
		return status;
	}
	convs->device = cudnn_keep_last(&d);
	snprintf(convs->device_name, sizeof(convs->device_name), "a device described by %016llx",
			 (unsigned long long) cudnn_hash_text(json));
	*out = convs;
	return NN_OK;
}

char *
cuda_convs_description(CudaConvs *convs)
{
	CudnnDescs d = { .convs = convs };
	cudnnBackendDescriptor_t device = cudnn_make(&d, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
	char *text = calloc(1, CUDNN_MAX_TEXT);
	int64_t length = 0;

	cudnn_set(&d, device, CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, 1, &convs->handle);
	cudnn_finalize(&d, device);
	if (text && d.status == CUDNN_STATUS_SUCCESS)
		d.status = convs->lib.get(device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
								  CUDNN_TYPE_CHAR, CUDNN_MAX_TEXT - 1, &length, text);
	cudnn_drop_all(&d);
	if (d.status == CUDNN_STATUS_SUCCESS && text)
		return text;
	free(text);
	return NULL;
}
