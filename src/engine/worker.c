/*
 * worker.c
 *	  The pool's tasks: decode an image and bring it to the model's size; encode
 *	  a result; look whether an image can be decoded; draw a plot.
 *
 * What runs on a thread of the pool touches nothing but its request, its
 * model's configuration and the decoders' budget. Encoding goes before
 * decoding: it frees memory and somebody has waited longer for it. Bulk work
 * goes behind both.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "plot/plot.h"

#define CHECK_CHANNELS 3 /* of an image that no network takes: the most that there are */

static int
request_channels(const Request *request)
{
	return request->kind->network == NN_NET_E ? request->model->config.output_nc
											  : request->model->config.input_nc;
}

static unsigned
request_flags(const Request *request)
{
	unsigned flags = request->model->config.alpha == NN_ALPHA_DROP ? IMAGE_OPAQUE : 0;

	return request->image.flags & BICYCLE_FLAG_EXIF ? flags | IMAGE_UPRIGHT : flags;
}

/* What decoding a file and resizing it takes at most. */
static size_t
decode_bytes(const ImageInfo *info, int channels, unsigned flags, NnExtent extent)
{
	size_t decode = image_decode_bytes(info, channels, flags), resize;
	int width, height;

	image_decoded_size(info, flags, &width, &height);
	resize = extent.w == 0 ? 0 : image_resize_bytes(width, height, channels, extent.w, extent.h);

	return decode > SIZE_MAX - resize ? SIZE_MAX : decode + resize;
}

static bool
decode_within(const uint8_t *file, size_t length, int channels, unsigned flags, NnExtent extent,
			  const ImageLimits *limits, uint8_t *place, Image *pixels, EngineError *error)
{
	ImageError image_error;
	Image decoded = { 0 };
	bool resized;

	if (image_decode(file, length, channels, flags, limits, &decoded, &image_error) != IMAGE_OK)
		return error_from_image(error, &image_error);
	if (extent.w == 0 || (place == NULL && decoded.width == extent.w && decoded.height == extent.h))
	{
		*pixels = decoded;
		return true;
	}
	executor_progress();
	resized = (place != NULL
				   ? image_resize_into(&decoded, extent.w, extent.h, place, pixels, &image_error)
				   : image_resize(&decoded, extent.w, extent.h, pixels, &image_error)) == IMAGE_OK;
	if (!resized)
		error_from_image(error, &image_error);
	image_free(&decoded);
	return resized;
}

static bool
decode_room(DecodeBudget *budget, const char *what, const ImageInfo *info, size_t bytes,
			EngineError *error)
{
	return decode_take(budget, bytes) ||
		   error_engine_memory(error,
							   "%s an image of %d x %d pixels takes %zu bytes, more than all "
							   "decoders together may take.",
							   what, info->width, info->height, bytes);
}

/* Beyond the user's limit image_decode refuses it: no need to wait. */
static ImageLimits
decode_limits(const ImageInfo *info, int channels, unsigned flags, NnExtent extent,
			  uint64_t max_pixels)
{
	/* A progressive JPEG of many scans takes a minute, but it ends. */
	ImageLimits limits = { .max_pixels = max_pixels, .progress = executor_progress };

	if ((uint64_t) info->width * (uint64_t) info->height <= max_pixels)
		limits.max_memory = decode_bytes(info, channels, flags, extent);
	return limits;
}

bool
worker_decode_file(DecodeBudget *budget, const uint8_t *file, size_t length, const ImageInfo *info,
				   int channels, unsigned flags, NnExtent extent, uint64_t max_pixels,
				   uint8_t *place, Image *pixels, EngineError *error)
{
	ImageLimits limits = decode_limits(info, channels, flags, extent, max_pixels);
	bool decoded;

	if (!decode_room(budget, "Decoding", info, limits.max_memory, error))
		return false;
	decoded = decode_within(file, length, channels, flags, extent, &limits, place, pixels, error);
	decode_release(budget, limits.max_memory);
	return decoded;
}

bool
worker_decode_held(const Request *request, const ImageInfo *info, int channels, unsigned flags,
				   NnExtent extent, size_t beside, Image *pixels, size_t *held, EngineError *error)
{
	DecodeBudget *budget = &request->engine->decoders;
	ImageLimits limits = decode_limits(info, channels, flags, extent, request->image.max_pixels);

	*held = limits.max_memory;
	if (*held > 0)
		*held = *held > SIZE_MAX - beside ? SIZE_MAX : *held + beside;
	if (!decode_room(budget, "Decoding and writing", info, *held, error))
		return false;
	if (decode_within(request->file, request->image.image_length, channels, flags, extent, &limits,
					  NULL, pixels, error))
		return true;
	decode_release(budget, *held);
	return false;
}

/*
 * The columns from x on, in as many channels; then side x side. Source: the
 * official data/aligned_dataset.py, which crops before it makes gray or
 * resizes.
 */
static bool
take_half(const Image *whole, int x, int width, int channels, int side, Image *half,
		  EngineError *error)
{
	ImageError image_error;
	Image cut;
	bool resized;

	if (image_columns(whole, x, width, channels, &cut, &image_error) != IMAGE_OK)
	{
		error_from_image(error, &image_error);
		return false;
	}
	if (width == side && cut.height == side)
	{
		*half = cut;
		return true;
	}
	executor_progress();
	resized = image_resize(&cut, side, side, half, &image_error) == IMAGE_OK;
	if (!resized)
		error_from_image(error, &image_error);
	image_free(&cut);
	return resized;
}

static bool
decode_halves_within(const uint8_t *file, size_t length, const int channels[2], unsigned flags,
					 int side, const ImageLimits *limits, Image images[2], EngineError *error)
{
	ImageError image_error;
	Image whole = { 0 };
	bool good;

	if (image_decode(file, length, channels[0] > channels[1] ? channels[0] : channels[1], flags,
					 limits, &whole, &image_error) != IMAGE_OK)
	{
		error_from_image(error, &image_error);
		return false;
	}
	good = take_half(&whole, 0, whole.width / 2, channels[0], side, &images[0], error) &&
		   take_half(&whole, whole.width / 2, whole.width - whole.width / 2, channels[1], side,
					 &images[1], error);
	if (!good)
		image_free(&images[0]);
	image_free(&whole);
	return good;
}

bool
worker_decode_halves(DecodeBudget *budget, const uint8_t *file, size_t length,
					 const ImageInfo *info, const int channels[2], unsigned flags, int side,
					 uint64_t max_pixels, Image images[2], EngineError *error)
{
	int most = channels[0] > channels[1] ? channels[0] : channels[1];
	ImageLimits limits = { .max_pixels = max_pixels, .progress = executor_progress };
	size_t bytes = 0;
	bool decoded;

	/* Halves take less than the whole, and are resized one after the other. */
	if ((uint64_t) info->width * (uint64_t) info->height <= max_pixels)
	{
		limits.max_memory = decode_bytes(info, most, flags, (NnExtent){ side, side });
		bytes = limits.max_memory + (size_t) info->width * (size_t) info->height * (size_t) most;
	}
	if (!decode_room(budget, "Decoding", info, bytes, error))
		return false;
	decoded = decode_halves_within(file, length, channels, flags, side, &limits, images, error);
	decode_release(budget, bytes);
	return decoded;
}

int
worker_channels(const ImageInfo *info)
{
	return info->channels > 2 ? 3 : 1;
}

static bool
decode_two_within(const Request *request, int channels, NnExtent extent, const ImageLimits *limits,
				  Image images[2], EngineError *error)
{
	if (!decode_within(request->file, request->image.image_length, channels, 0, (NnExtent){ 0 },
					   limits, NULL, &images[0], error))
		return error_of_two(error, 0);
	if (decode_within(request->second, request->image.second_length, channels, 0, extent, limits,
					  NULL, &images[1], error))
		return true;
	image_free(&images[0]);
	return error_of_two(error, 1);
}

bool
worker_decode_two(const Request *request, int channels, Image images[2], size_t *held,
				  EngineError *error)
{
	DecodeBudget *budget = &request->engine->decoders;
	ImageLimits limits = { .max_pixels = request->image.max_pixels, .progress = executor_progress };
	ImageInfo infos[2];
	ImageError image_error;
	NnExtent extent;
	size_t bytes[2] = { 0 };

	for (int i = 0; i < 2; i++)
		if (image_info(i == 0 ? request->file : request->second,
					   i == 0 ? request->image.image_length : request->image.second_length,
					   &infos[i], &image_error) != IMAGE_OK)
		{
			error_from_image(error, &image_error);
			return error_of_two(error, i);
		}
	if (channels == 0)
		channels = worker_channels(&infos[0]);
	extent = (NnExtent){ .w = infos[0].width, .h = infos[0].height };
	/* What is beyond the user's limit is refused before it takes memory. */
	for (int i = 0; i < 2; i++)
		if ((uint64_t) infos[i].width * (uint64_t) infos[i].height <= limits.max_pixels)
			bytes[i] = decode_bytes(&infos[i], channels, 0, i == 0 ? (NnExtent){ 0 } : extent);
	limits.max_memory = bytes[0] > bytes[1] ? bytes[0] : bytes[1];
	/*
	 * The first stays while the second is decoded, and takes no more than it
	 * did.
	 */
	*held = bytes[0] > SIZE_MAX - limits.max_memory ? SIZE_MAX : bytes[0] + limits.max_memory;
	if (!decode_room(budget, "Decoding", &infos[bytes[1] > bytes[0]], *held, error))
		return false;
	if (decode_two_within(request, channels, extent, &limits, images, error))
		return true;
	decode_release(budget, *held);
	return false;
}

bool
worker_draw_plot(DecodeBudget *budget, const uint8_t *bytes, size_t length, uint64_t max_pixels,
				 uint8_t **png, size_t *png_length, EngineError *error)
{
	PlotError plot_error;
	Plot *plot;
	bool drawn;

	*png = NULL;
	if (plot_read(bytes, length, max_pixels, &plot, &plot_error) != PLOT_OK)
		return error_from_plot(error, &plot_error);
	if (!decode_take(budget, plot_bytes(plot)))
	{
		error_engine_memory(error,
							"A plot of %u x %u pixels takes %zu bytes, more than all decoders "
							"together may take.",
							plot_width(plot), plot_height(plot), plot_bytes(plot));
		plot_free(plot);
		return false;
	}
	drawn = plot_draw(plot, png, png_length, &plot_error) == PLOT_OK;
	decode_release(budget, plot_bytes(plot));
	if (!drawn)
		error_from_plot(error, &plot_error);
	plot_free(plot);
	return drawn;
}

static bool
read_info(Request *request)
{
	ImageError error;

	if (image_info(request->file, request->image.image_length, &request->info, &error) == IMAGE_OK)
		return true;
	return error_from_image(&request->error, &error);
}

void
worker_read_info(Request *request)
{
	read_info(request);
}

/* Where memory has room for the image alone, and not for what becomes of it. */
static bool
make_place(Request *request, size_t bytes)
{
	uint8_t *larger;

	if (request->piece != NULL)
		return true;
	larger = realloc(request->pixels.pixels, bytes);
	if (larger == NULL)
		return error_memory(&request->error, "an image");
	request->pixels.pixels = larger;
	return true;
}

/* The second image of a pair, brought to the first one's size, behind it. */
static bool
decode_other(Request *request, size_t read)
{
	ImageInfo info;
	ImageError error;
	Image pixels;

	if (image_info(request->second, request->image.second_length, &info, &error) != IMAGE_OK)
		error_from_image(&request->error, &error);
	else if (worker_decode_file(&request->engine->decoders, request->second,
								request->image.second_length, &info, request_channels(request),
								request_flags(request), request->sizing.extent,
								request->image.max_pixels, request->pixels.pixels + read, &pixels,
								&request->error))
		return true;
	return error_of_two(&request->error, 1);
}

/*
 * Twice, if the image is found to take more memory than it has been given. It
 * lies where the device can read it, if there is such memory, and its result
 * takes its place.
 */
void
worker_decode_image(Request *request)
{
	const NnConfig *config = &request->model->config;
	bool two = request->kind->network == NN_NET_L;
	size_t pixels, read, most;

	if (!request->sizing.known && !sizing_find(request))
	{
		if (two)
			(void) error_of_two(&request->error, 0);
		return;
	}
	if (sizing_wants(request) > 0)
		return;
	pixels = (size_t) request->sizing.extent.w * (size_t) request->sizing.extent.h;
	read = most = pixels * (size_t) request_channels(request);
	if (request->kind->network == NN_NET_G && config->output_nc > config->input_nc)
		most = pixels * (size_t) config->output_nc;
	if (two)
		most = 2 * read;
	request->piece = slab_take(&request->engine->device.slabs, most);
	if (worker_decode_file(&request->engine->decoders, request->file, request->image.image_length,
						   &request->info, request_channels(request), request_flags(request),
						   request->sizing.extent, request->image.max_pixels, request->piece,
						   &request->pixels, &request->error))
	{
		if ((most == read || make_place(request, most)) && two)
			decode_other(request, read);
	}
	else if (two)
		(void) error_of_two(&request->error, 0);
}

/*
 * Its limits are the user's, and errors; what else is wrong is of the image
 * alone, and the answer.
 */
static bool
is_answer(const EngineError *error, const ImageInfo *info, uint64_t max_pixels)
{
	if (strcmp(error->sqlstate, "54000") == 0)
		return info->width > 0 && (uint64_t) info->width * (uint64_t) info->height <= max_pixels;
	return strcmp(error->sqlstate, "22P03") == 0;
}

void
worker_check(Request *request)
{
	EngineError *error = &request->error;
	size_t size = sizeof(error->message) + sizeof(error->detail) + 2;

	if (read_info(request) &&
		worker_decode_file(&request->engine->decoders, request->file, request->image.image_length,
						   &request->info, CHECK_CHANNELS, 0, (NnExtent){ 0 },
						   request->image.max_pixels, NULL, &request->pixels, error))
		image_free(&request->pixels);
	if (!is_answer(error, &request->info, request->image.max_pixels))
		return;
	if ((request->result = malloc(size)) == NULL)
	{
		error_memory(error, "an answer");
		return;
	}
	request->result_length =
		(size_t) snprintf((char *) request->result, size, "%s%s%s", error->message,
						  error->detail[0] != '\0' ? ": " : "", error->detail);
	error_clear(error);
}

void
worker_plot(Request *request)
{
	worker_draw_plot(&request->engine->decoders, request->file, request->image.image_length,
					 request->image.max_pixels, &request->result, &request->result_length,
					 &request->error);
}

void
worker_reply_info(Request *request)
{
	static const char *const formats[] = {
		[IMAGE_PNG] = "png",
		[IMAGE_JPEG] = "jpeg",
		[IMAGE_WEBP] = "webp",
	};
	BicycleImageInfo *info = calloc(1, sizeof(*info));

	if (info == NULL)
	{
		request_fail_memory(request, "an answer");
		return;
	}
	strcpy(info->format, formats[request->info.format]);
	info->width = request->info.width;
	info->height = request->info.height;
	info->channels = request->info.channels;
	info->bit_depth = request->info.bit_depth;
	request->result = (uint8_t *) info;
	request->result_length = sizeof(*info);
	request_reply_result(request);
}

void
worker_decode(Request *request)
{
	request_work(request, &request->engine->pool, REQUEST_DECODING, request->kind->decode,
				 request->kind->decoded, request_is_bulk(request) ? TASK_BULK_SECOND : TASK_SECOND);
}

/* Brings the result to the answer's size. False: the request has an error. */
static bool
resize_result(Request *request)
{
	const Sizing *sizing = &request->sizing;
	Image result = request->pixels, resized = { 0 };
	size_t bytes;
	ImageError error;

	if (sizing->width == 0 || (sizing->width == result.width && sizing->height == result.height))
		return true;
	bytes = image_resize_bytes(result.width, result.height, result.channels, sizing->width,
							   sizing->height);
	if (!decode_take(&request->engine->decoders, bytes))
		return error_engine_memory(&request->error,
								   "Resizing the answer to %d x %d pixels takes %zu bytes, more "
								   "than all decoders together may take.",
								   sizing->width, sizing->height, bytes);
	if (image_resize(&result, sizing->width, sizing->height, &resized, &error) != IMAGE_OK)
		error_from_image(&request->error, &error);
	request_drop_pixels(request);
	request->pixels = resized;
	decode_release(&request->engine->decoders, bytes);
	return resized.pixels != NULL;
}

bool
worker_encode_pixels(const Request *request, const Image *image, uint8_t **bytes, size_t *length,
					 EngineError *error)
{
	const BicycleImageRequest *as = &request->image;
	const int quality = as->jpeg_quality > 0 ? (int) as->jpeg_quality : 1;
	ImageError image_error;
	ImageStatus status;

	*bytes = NULL;
	executor_progress();
	switch (as->output_format)
	{
		case BICYCLE_OUTPUT_JPEG:
			status = image_encode_jpeg(image, quality, bytes, length, &image_error);
			break;
		case BICYCLE_OUTPUT_WEBP:
			status = image_encode_webp(image, quality, bytes, length, &image_error);
			break;
		case BICYCLE_OUTPUT_WEBP_LOSSLESS:
			status = image_encode_webp(image, 0, bytes, length, &image_error);
			break;
		default:
			status = image_encode_png_at(image, (int) as->png_level, bytes, length, &image_error);
	}
	if (status == IMAGE_OK)
		return true;
	*bytes = NULL;
	return error_from_image(error, &image_error);
}

static void
encode_result(Request *request)
{
	if (resize_result(request))
		worker_encode_pixels(request, &request->pixels, &request->result, &request->result_length,
							 &request->error);
}

void
worker_encode(Request *request)
{
	request_work(request, &request->engine->pool, REQUEST_ENCODING, encode_result,
				 request_reply_result, request_is_bulk(request) ? TASK_BULK_FIRST : TASK_FIRST);
}
