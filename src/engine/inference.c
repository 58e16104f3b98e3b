/*
 * inference.c
 *	  The computing of a batch, as a task of the device thread.
 *
 * The plans of a batch take memory that stays with the model; a batch says how
 * much of it they may take, and how much of plans for other sizes than the
 * model's own may stay. If the device's own memory is short, the batch
 * comes back to have room made. Where none can be made, and where the host's
 * memory is short, it is cut in halves.
 *
 * Everything runs on the device thread. It reads the batch's first fields and
 * the inputs of its requests, and writes results and errors.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine.h"

static bool
keep_output(Request *request, const uint8_t *output, NnExtent extent, int channels)
{
	size_t bytes = (size_t) extent.w * (size_t) extent.h * (size_t) channels;
	uint8_t *pixels = malloc(bytes);

	image_free(&request->pixels);
	if (pixels == NULL)
		return false;
	memcpy(pixels, output, bytes);
	request->pixels =
		(Image){ .width = extent.w, .height = extent.h, .channels = channels, .pixels = pixels };
	return true;
}

/* One call of the model: fills n results, or returns the error of all. */
static NnStatus
translate(Batch *batch, Request **requests, int n, EngineError *error)
{
	const NnConfig *config = &batch->model->config;
	size_t pixels = (size_t) batch->extent.w * (size_t) batch->extent.h;
	size_t in = pixels * (size_t) config->input_nc;
	size_t out = pixels * (size_t) config->output_nc;
	size_t latent = (size_t) config->nz * sizeof(float);
	uint8_t *images = malloc((size_t) n * in);
	uint8_t *outputs = malloc((size_t) n * out);
	float *z = malloc((size_t) n * latent + sizeof(float));
	NnStatus status = NN_ENOMEM;
	NnError nn_error = { 0 };

	error_memory(error, "the images of a batch");
	if (images != NULL && outputs != NULL && z != NULL)
	{
		for (int i = 0; i < n; i++)
		{
			memcpy(images + (size_t) i * in, requests[i]->pixels.pixels, in);
			memcpy((uint8_t *) z + (size_t) i * latent, requests[i]->latent, latent);
		}
		status = nn_model_translate_at(batch->model->model, batch->extent, n, images, z, outputs,
									   &nn_error);
		if (status != NN_OK)
			error_from_nn(error, &nn_error);
		for (int i = 0; i < n && status == NN_OK; i++)
			if (!keep_output(requests[i], outputs + (size_t) i * out, batch->extent,
							 config->output_nc))
				error_memory(&requests[i]->error, "an image");
	}
	free(images);
	free(outputs);
	free(z);
	return status;
}

static NnStatus
encode(Batch *batch, Request **requests, int n, EngineError *error)
{
	const NnConfig *config = &batch->model->config;
	size_t in =
		(size_t) config->encoder_size * (size_t) config->encoder_size * (size_t) config->output_nc;
	size_t latent = (size_t) config->nz * sizeof(float);
	uint8_t *images = malloc((size_t) n * in);
	/* (n, nz) of mu, then of logvar */
	float *values = malloc(2 * (size_t) n * latent + sizeof(float));
	NnStatus status = NN_ENOMEM;
	NnError nn_error = { 0 };

	error_memory(error, "the images of a batch");
	if (images != NULL && values != NULL)
	{
		float *logvar = values + (size_t) n * (size_t) config->nz;

		for (int i = 0; i < n; i++)
			memcpy(images + (size_t) i * in, requests[i]->pixels.pixels, in);
		status = nn_model_encode(batch->model->model, n, images, values, logvar, &nn_error);
		if (status != NN_OK)
			error_from_nn(error, &nn_error);
		for (int i = 0; i < n && status == NN_OK; i++)
		{
			requests[i]->result = malloc(2 * latent + 1);
			if (requests[i]->result == NULL)
			{
				error_memory(&requests[i]->error, "a latent code");
				continue;
			}
			requests[i]->result_length = 2 * latent;
			memcpy(requests[i]->result, values + (size_t) i * (size_t) config->nz, latent);
			memcpy(requests[i]->result + latent, logvar + (size_t) i * (size_t) config->nz, latent);
		}
	}
	free(images);
	free(values);
	return status;
}

/*
 * Plans for other sizes go, and then those for more images, if that makes room
 * for `bytes` of another size. They are counted in what the model has, and come
 * free.
 */
static void
make_way(Batch *batch, size_t bytes)
{
	NnModel *model = batch->model->model;
	size_t had = nn_model_bytes(model);

	if (!batch->other || batch->make_room || bytes <= batch->arenas)
		return;
	nn_model_keep_extents(model, 0);
	if (bytes > batch->arenas + had - nn_model_bytes(model))
		nn_model_shrink(model);
	batch->arenas += had - nn_model_bytes(model);
}

/* The most of n that fits in the arenas; 0, with an error, if none does. */
static int
fitting(Batch *batch, int n, EngineError *error)
{
	for (;;)
	{
		NnError nn_error = { 0 };
		size_t bytes = nn_model_batch_bytes_at(batch->model->model, batch->kind->network,
											   batch->extent, n, &nn_error);

		if (nn_error.code != NN_OK && bytes == 0)
		{
			error_from_nn(error, &nn_error);
			return 0;
		}
		if (n == 1)
			make_way(batch, bytes);
		if (bytes <= (n == 1 ? batch->arenas : batch->arenas_shared))
			return n;
		if (n == 1)
		{
			error_engine_memory(error,
								"The network takes %zu bytes for one image, and %zu are free.",
								bytes, batch->arenas);
			return 0;
		}
		n = (n + 1) / 2;
	}
}

/* Returns how many are done; 0: make room first, or the device failed. */
static int
run_some(Batch *batch)
{
	Request **requests = batch->requests + batch->done;
	EngineError error;
	int rest = batch->n - batch->done;
	int n = fitting(batch, batch->small > 0 && batch->small < rest ? batch->small : rest, &error);
	NnStatus status = NN_ENOMEM;

	while (n > 0)
	{
		status = batch->kind->network == NN_NET_E ? encode(batch, requests, n, &error)
												  : translate(batch, requests, n, &error);
		if (status == NN_ENOMEM && batch->make_room)
		{
			batch->short_of_room = true;
			return 0;
		}
		if (status != NN_ENOMEM || n == 1)
			break;
		batch->small = n = (n + 1) / 2; /* the budget is not all the memory there is */
	}
	if (status == NN_EDEVICE)
	{
		batch->device_failed = error;
		return 0;
	}
	n = n > 0 ? n : 1;
	for (int i = 0; i < n && status != NN_OK; i++)
		requests[i]->error = error;
	return n;
}

void
batch_run(Task *task)
{
	Batch *batch = list_member(Batch, task, task);
	int n;

	for (int i = 0; i < batch->n; i++)
		while (batch->requests[i]->image.debug == 2)
			pause();

	do
	{
		executor_progress();
		n = run_some(batch);
		batch->done += n;
	} while (n > 0 && batch->done < batch->n);
	nn_model_keep_extents(batch->model->model, batch->keep);
	batch->model_extents = nn_model_extents_bytes(batch->model->model);
	batch->model_bytes = nn_model_bytes(batch->model->model);
	batch->model_host = nn_model_host_bytes(batch->model->model);
}
