/*
 * worker.c
 *	  The pool's jobs: decode an image and bring it to the model's size; encode a result.
 *
 * run functions are called on a thread of the pool and touch nothing but their request and the decoders' budget; done functions are called on the I/O
 * thread.  Encoding goes before decoding: it frees memory and somebody has waited longer for it.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

/* Side and channels of the square image that the request's network takes or makes. */
static int
input_side(const Request *request)
{
	return request->type == BICYCLE_ENCODE ? request->model->config.encoder_size : request->model->config.size;
}

static int
input_channels(const Request *request)
{
	return request->type == BICYCLE_ENCODE ? request->model->config.output_nc : request->model->config.input_nc;
}

/* Decodes request->file into request->pixels at side x side. */
static bool
decode_to_size(Request *request, size_t budget)
{
	int			side = input_side(request);
	ImageLimits limits = {.max_pixels = request->image.max_pixels, .max_memory = budget};
	ImageError	error;
	Image		decoded = {0};
	bool		resized;

	if (image_decode(request->file, request->image.image_length, input_channels(request), &limits, &decoded, &error) != IMAGE_OK)
	{
		error_from_image(&request->error, &error);
		return false;
	}
	if (decoded.width == side && decoded.height == side)
	{
		request->pixels = decoded;
		return true;
	}
	resized = image_resize(&decoded, side, side, &request->pixels, &error) == IMAGE_OK;
	if (!resized)
		error_from_image(&request->error, &error);
	image_free(&decoded);
	return resized;
}

/* What decoding and resizing this file takes at most. */
static size_t
decode_bytes(const Request *request)
{
	size_t		bytes = image_decode_bytes(&request->info, input_channels(request));
	size_t		side = (size_t) input_side(request);
	size_t		rows = (size_t) (request->info.height > request->info.width ? request->info.height : request->info.width);

	/* The first pass of the resize makes side x rows pixels. */
	return bytes + side * rows * 3 + side * side * 3;
}

static void
decode_run(Job *job)
{
	Request    *request = list_member(Request, job, job);
	DecodeBudget *budget = &request->engine->decoders;
	ImageError	error;
	size_t		bytes;

	if (image_info(request->file, request->image.image_length, &request->info, &error) != IMAGE_OK)
	{
		error_from_image(&request->error, &error);
		return;
	}
	if (request->type == BICYCLE_INFO)
		return;
	/* An image beyond the user's limit is refused by image_decode before it allocates anything: it must not wait for a budget. */
	bytes = (uint64_t) request->info.width * (uint64_t) request->info.height <= request->image.max_pixels ? decode_bytes(request) : 0;
	if (!decode_take(budget, bytes))
	{
		error_set(&request->error, "53200", "out of engine memory");
		error_detail(&request->error, "Decoding an image of %d x %d pixels takes %zu bytes, more than all decoders together may take.",
					 request->info.width, request->info.height, bytes);
		error_hint(&request->error, "Raise the setting \"bicycle.engine_memory\".");
		return;
	}
	decode_to_size(request, bytes);
	decode_release(budget, bytes);
}

static void
reply_info(Request *request)
{
	BicycleImageInfo *info = calloc(1, sizeof(*info));

	if (info == NULL)
	{
		error_memory(&request->error, "an answer");
		request_fail(request, &request->error);
		return;
	}
	strcpy(info->format, request->info.format == IMAGE_PNG ? "png" : "jpeg");
	info->width = request->info.width;
	info->height = request->info.height;
	info->channels = request->info.channels;
	info->bit_depth = request->info.bit_depth;
	request->result = (uint8_t *) info;
	request->result_length = sizeof(*info);
	request_reply(request, request->result, request->result_length);
}

static void
decode_done(Engine *engine, Job *job)
{
	Request    *request = list_member(Request, job, job);

	engine->ahead--;
	if (!request_back(request))
		return;
	if (request->error.sqlstate[0] != '\0')
		request_fail(request, &request->error);
	else if (request->type == BICYCLE_INFO)
		reply_info(request);
	else
		batcher_ready(request);
}

void
worker_decode(Request *request)
{
	request->engine->ahead++;
	request_work(request, &request->engine->pool, REQUEST_DECODING, decode_run, decode_done, false);
}

static void
encode_run(Job *job)
{
	Request    *request = list_member(Request, job, job);
	ImageError	error;
	ImageStatus status;

	if (request->image.output_format == BICYCLE_OUTPUT_JPEG)
		status = image_encode_jpeg(&request->pixels, request->image.jpeg_quality > 0 ? (int) request->image.jpeg_quality : 1, &request->result,
								   &request->result_length, &error);
	else
		status = image_encode_png(&request->pixels, &request->result, &request->result_length, &error);
	if (status != IMAGE_OK)
	{
		request->result = NULL;
		error_from_image(&request->error, &error);
	}
}

static void
encode_done(Engine *engine, Job *job)
{
	Request    *request = list_member(Request, job, job);

	if (!request_back(request))
		return;
	if (request->error.sqlstate[0] != '\0')
		request_fail(request, &request->error);
	else
		request_reply(request, request->result, request->result_length);
}

void
worker_encode(Request *request)
{
	request_work(request, &request->engine->pool, REQUEST_ENCODING, encode_run, encode_done, true);
}
