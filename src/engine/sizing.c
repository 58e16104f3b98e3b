/*
 * sizing.c
 *	  At which size the network runs for an image, and what memory that takes
 *	  (sizing.h).
 *
 * R1 An encoder runs at its own size always, a generator where fit is square;
 *    what compares images at the first one's.
 * R2 Otherwise the image says it, so its header is read before memory is asked
 *    for. What could never be had is refused there, with the figures; the rest
 *    waits (batcher.c).
 */
#include "engine/engine.h"

static bool
follows_input(const Request *request)
{
	if (request->kind->network == NN_NET_L)
		return true;
	return request->kind->network == NN_NET_G && (request->image.fit == BICYCLE_FIT_INPUT ||
												  (request->image.fit == BICYCLE_FIT_MODEL &&
												   request->model->config.fit == NN_SIZING_INPUT));
}

static size_t
area(int width, int height)
{
	return (size_t) width * (size_t) height;
}

/* Pixels in and out, then the answer's, and its file. */
static size_t
generator_work(const NnConfig *config, size_t network, size_t answer)
{
	return network * (size_t) config->input_nc +
		   (network > answer ? network : answer) * (size_t) (2 * config->output_nc) +
		   (network == answer ? 0 : answer * (size_t) config->output_nc) + 65536;
}

/* Two images, and what is answered. */
static size_t
metric_work(const NnConfig *config, size_t pixels)
{
	return 2 * pixels * (size_t) config->input_nc +
		   (1 + 4 * (size_t) nn_metric_features(config)) * sizeof(float) + sizeof(BicycleDistance);
}

size_t
sizing_own_work(const Request *request)
{
	const NnConfig *config;
	size_t pixels;

	if (request->model == NULL)
		return sizeof(BicycleImageInfo);
	config = &request->model->config;
	pixels = area(config->size, config->size);
	if (request->kind->network == NN_NET_G)
		return generator_work(config, pixels, pixels);
	if (request->kind->network == NN_NET_L)
		return metric_work(config, pixels);
	return area(config->encoder_size, config->encoder_size) * (size_t) config->output_nc +
		   (size_t) config->nz * 2 * sizeof(float);
}

void
sizing_limits(Request *request)
{
	const Engine *engine = request->engine;
	size_t gpu = engine->device.memory, host = engine->memory.limit, least;

	if (request->model == NULL)
		return;
	least = request->model->least;
	request->sizing.gpu = gpu > 0;
	request->sizing.most_host = gpu > 0 ? host : host > least ? host - least : 0;
	request->sizing.most_gpu = gpu > least ? gpu - least : 0;
}

static void
refuse_shape(Request *request)
{
	const ImageInfo *info = &request->info;
	const NnConfig *config = &request->model->config;

	error_set(&request->error, "54000", "image is of no size that the network can take");
	if (config->metric != NN_METRIC_NONE)
	{
		error_detail(&request->error,
					 "It has %d x %d pixels; sides have %d pixels at least, and %d pixels are the "
					 "most.",
					 info->width, info->height, nn_metric_least(config), nn_metric_most(config));
		return;
	}
	error_detail(&request->error,
				 "It has %d x %d pixels; one side may be at most %d times the other, and %d pixels "
				 "are the most.",
				 info->width, info->height, NN_MAX_RATIO, NN_MAX_AREA);
	error_hint(&request->error, "Cut the image, or set \"bicycle.fit\" to square.");
}

static void
refuse_size(Request *request, bool gpu, size_t bytes, size_t most)
{
	const Sizing *sizing = &request->sizing;

	error_set(&request->error, "54000", "image is too large for the network");
	error_detail(&request->error,
				 "At %d x %d pixels it takes %zu bytes beside the model, and may take %zu.",
				 sizing->extent.w, sizing->extent.h, bytes, most);
	error_hint(&request->error,
			   request->kind->network == NN_NET_L
				   ? "Use a smaller image, or raise the setting \"%s\"."
				   : "Use a smaller image, set \"bicycle.fit\" to square, or raise the setting "
					 "\"%s\".",
			   gpu ? "bicycle.gpu_memory" : "bicycle.engine_memory");
}

/* The image's size, if it is not refused for it anyway. */
static bool
find_extent(Request *request)
{
	const NnConfig *config = &request->model->config;
	Sizing *sizing = &request->sizing;
	const unsigned flags = request->image.flags & BICYCLE_FLAG_EXIF ? IMAGE_UPRIGHT : 0;
	NnError nn_error = { 0 };
	size_t host;

	image_decoded_size(&request->info, flags, &sizing->width, &sizing->height);
	if (!nn_extent_fit(config, sizing->width, sizing->height, &sizing->extent))
	{
		refuse_shape(request);
		return false;
	}
	sizing->other = sizing->extent.h != config->size || sizing->extent.w != config->size;
	sizing->work = config->metric != NN_METRIC_NONE
					   ? metric_work(config, area(sizing->extent.w, sizing->extent.h))
					   : generator_work(config, area(sizing->extent.w, sizing->extent.h),
										area(sizing->width, sizing->height));
	if (sizing->other)
		sizing->plan = nn_model_image_bytes(request->model->model, sizing->extent, &nn_error);
	host = sizing->work;
	if (!sizing->gpu && sizing->other)
		host = host > SIZE_MAX - sizing->plan ? SIZE_MAX : host + sizing->plan;
	if (nn_error.code != NN_OK)
		error_from_nn(&request->error, &nn_error);
	else if (host > sizing->most_host)
		refuse_size(request, false, host, sizing->most_host);
	else if (sizing->gpu && sizing->other && sizing->plan > sizing->most_gpu)
		refuse_size(request, true, sizing->plan, sizing->most_gpu);
	return !error_is_set(&request->error);
}

bool
sizing_find(Request *request)
{
	const NnConfig *config = &request->model->config;
	Sizing *sizing = &request->sizing;
	int side = request->kind->network == NN_NET_E ? config->encoder_size : config->size;
	ImageError error;

	if (image_info(request->file, request->image.image_length, &request->info, &error) != IMAGE_OK)
	{
		error_from_image(&request->error, &error);
		return false;
	}
	sizing->known = true;
	sizing->extent = (NnExtent){ side, side };
	sizing->work = sizing_own_work(request);
	sizing->plan = request->model->plans[request->kind->network];
	/* beyond the user's limit decoding refuses it */
	if (!follows_input(request) ||
		area(request->info.width, request->info.height) > request->image.max_pixels)
		return true;
	return find_extent(request);
}

size_t
sizing_wants(const Request *request)
{
	return request->sizing.work > request->charge ? request->sizing.work - request->charge : 0;
}
