/*
 * inference.c
 *	  The computing of a batch, as a task of the device thread.
 *
 * The plans of a batch take memory that stays with the model; a batch says how
 * much of it they may take, and how much of plans for other sizes than the
 * model's own, and of images that were compared, may stay. If the device's own
 * memory is short, the batch comes back to have room made. Where none can be
 * made, and where the host's memory is short, it is cut in halves.
 *
 * A batch is one pass of the model, or several, one after the other, if it has
 * been cut. Where the device works beside us, two batches may be under way. An
 * image's result has the memory of the image, so what has its result is not
 * computed again.
 *
 * Everything runs on the device thread. It reads the batch's first fields and
 * the inputs of its requests, and writes results and errors.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine.h"

/* The posterior of request i of the pass becomes its result. */
static void
keep_codes(const Batch *batch, Request *request, int i)
{
	size_t nz = (size_t) batch->model->config.nz, bytes = nz * sizeof(float);

	request->result = malloc(2 * bytes + 1);
	if (request->result == NULL)
	{
		error_memory(&request->error, "a latent code");
		return;
	}
	request->result_length = 2 * bytes;
	memcpy(request->result, batch->pass.out[0] + (size_t) i * nz, bytes);
	memcpy(request->result + bytes, batch->pass.out[1] + (size_t) i * nz, bytes);
}

/* So does the distance of a pair, and the features of its images. */
static void
keep_distance(const Batch *batch, Request *request, int i)
{
	size_t n = (size_t) nn_metric_features(&batch->model->config), bytes = 2 * n * sizeof(float);
	BicycleDistance distance = { .distance = batch->pass.out[0][i], .nfeatures = (uint32_t) n };

	request->result = malloc(sizeof(distance) + bytes);
	if (request->result == NULL)
	{
		error_memory(&request->error, "a distance");
		return;
	}
	request->result_length = sizeof(distance) + bytes;
	memcpy(request->result, &distance, sizeof(distance));
	memcpy(request->result + sizeof(distance), batch->pass.out[1] + (size_t) i * 2 * n, bytes);
}

/* What the pass has made of its first images. */
static void
keep_results(Batch *batch)
{
	for (int i = 0; i < batch->pass.done; i++)
	{
		Request *request = batch->requests[batch->done++];

		if (batch->kind->network == NN_NET_E)
			keep_codes(batch, request, i);
		else if (batch->kind->network == NN_NET_L)
			keep_distance(batch, request, i);
		else
			request->pixels.channels = batch->model->config.output_nc;
	}
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

/* Those that could not be computed end so. */
static void
fail_some(Batch *batch, int n, const EngineError *error)
{
	for (int i = 0; i < n; i++)
		batch->requests[batch->done++]->error = *error;
}

/* The next images, as many as may be computed together. */
static void
begin_pass(Batch *batch)
{
	const NnConfig *config = &batch->model->config;
	size_t nz = (size_t) config->nz;
	uint8_t **images = batch->images + batch->done;
	float *codes = batch->codes + (size_t) batch->done * nz;
	size_t features;
	EngineError error;
	int rest = batch->n - batch->done;
	int n = fitting(batch, batch->small > 0 && batch->small < rest ? batch->small : rest, &error);

	if (n == 0)
	{
		fail_some(batch, 1, &error);
		return;
	}
	batch->pass = (NnPass){ .model = batch->model->model,
							.network = batch->kind->network,
							.extent = batch->extent,
							.n = n,
							.images = (const uint8_t *const *) images };
	if (batch->kind->network == NN_NET_E)
	{
		batch->pass.out[0] = codes;
		batch->pass.out[1] = codes + (size_t) batch->n * nz;
	}
	else if (batch->kind->network == NN_NET_L)
	{
		features = 2 * (size_t) nn_metric_features(config);
		batch->pass.out[0] = batch->codes + batch->done;
		batch->pass.out[1] = batch->codes + batch->n + (size_t) batch->done * features;
	}
	else
	{
		batch->pass.z = codes;
		batch->pass.results = images;
	}
	batch->going = true;
}

static void
end_pass(Batch *batch)
{
	NnStatus status = batch->pass.status;
	int rest = batch->pass.n - batch->pass.done;
	EngineError error;

	batch->going = false;
	keep_results(batch);
	if (status == NN_OK)
		return;
	error_from_nn(&error, &batch->pass.error);
	if (status == NN_EDEVICE)
		batch->device_failed = error;
	else if (status == NN_ENOMEM && batch->make_room)
		batch->short_of_room = true;
	else if (status == NN_ENOMEM && rest > 1)
		batch->small = (rest + 1) / 2; /* the budget is not all the memory there is */
	else
		fail_some(batch, rest, &error);
}

void
batch_run(Task *task)
{
	Batch *batch = list_member(Batch, task, task);

	for (int i = 0; i < batch->n; i++)
		while (batch->requests[i]->image.debug == 2)
			pause();
}

bool
batch_step(Task *task, bool wait)
{
	Batch *batch = list_member(Batch, task, task);

	while (!batch->short_of_room && !error_is_set(&batch->device_failed) && batch->done < batch->n)
	{
		if (!batch->going)
		{
			executor_progress();
			begin_pass(batch);
			continue;
		}
		if (!nn_pass_go(&batch->pass, wait))
			return false;
		end_pass(batch);
	}
	nn_model_keep_extents(batch->model->model, batch->keep);
	batch->model_extents = nn_model_extents_bytes(batch->model->model);
	batch->model_bytes = nn_model_bytes(batch->model->model);
	batch->model_host = nn_model_host_bytes(batch->model->model);
	return true;
}
