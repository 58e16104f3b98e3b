/*
 * compare.c
 *	  Requests about two images: how much they differ, one of them as the other
 *	  is, and the two that lie side by side in one.
 *
 * On a thread of the pool, which touches nothing but the request and the
 * decoders' budget.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

static double
compare_levels(const Image *a, const Image *b)
{
	size_t count = (size_t) a->width * (size_t) a->height * (size_t) a->channels;
	uint64_t sum = 0;

	INVARIANT(a->width == b->width && a->height == b->height && a->channels == b->channels);
	for (size_t i = 0; i < count; i++)
		sum += (uint64_t) abs(a->pixels[i] - b->pixels[i]);
	return (double) sum / (double) count;
}

void
compare_images(Request *request)
{
	Image images[2];
	size_t held;
	BicycleComparison *answer;

	if (!worker_decode_two(request, 0, images, &held, &request->error))
		return;
	answer = calloc(1, sizeof(*answer));
	if (answer == NULL)
		error_memory(&request->error, "an answer");
	else
	{
		answer->l1 = compare_levels(&images[0], &images[1]);
		request->result = (uint8_t *) answer;
		request->result_length = sizeof(*answer);
	}
	image_free(&images[0]);
	image_free(&images[1]);
	decode_release(&request->engine->decoders, held);
}

/* A header may name any size: its image is not decoded. */
static bool
fits(Request *request, const ImageInfo *like)
{
	if ((uint64_t) like->width * (uint64_t) like->height <= request->image.max_pixels)
		return true;
	error_set(&request->error, "54000", "image is too large");
	error_detail(&request->error, "It is to have %d x %d pixels; the limit is %llu.", like->width,
				 like->height, (unsigned long long) request->image.max_pixels);
	error_hint(&request->error, "See the setting \"bicycle.max_image_pixels\".");
	return false;
}

/* What writing an image takes. */
static size_t
png_bytes(int width, int height, int channels)
{
	return (size_t) width * (size_t) height * (size_t) channels * WORKER_FILE_BYTES;
}

/* As images of a model are read: over white, or by their colours alone. */
static unsigned
alpha_flags(const Request *request)
{
	return request->image.flags & BICYCLE_FLAG_OPAQUE ? IMAGE_OPAQUE : 0;
}

void
match_images(Request *request)
{
	ImageInfo like;
	Image pixels;
	size_t held;
	ImageError error;

	if (image_info(request->file, request->image.image_length, &request->info, &error) !=
			IMAGE_OK ||
		image_info(request->second, request->image.second_length, &like, &error) != IMAGE_OK)
	{
		error_from_image(&request->error, &error);
		return;
	}
	if (!fits(request, &like) ||
		!worker_decode_held(request, &request->info, worker_channels(&like), alpha_flags(request),
							(NnExtent){ .w = like.width, .h = like.height },
							png_bytes(like.width, like.height, worker_channels(&like)), &pixels,
							&held, &request->error))
		return;
	executor_progress();
	if (image_encode_png(&pixels, &request->result, &request->result_length, &error) != IMAGE_OK)
	{
		request->result = NULL;
		error_from_image(&request->error, &error);
	}
	image_free(&pixels);
	decode_release(&request->engine->decoders, held);
}

/* In colour, so that nothing is lost before a network's channels are known. */
static bool
encode_half(const Image *whole, int x, int width, uint8_t **png, size_t *length, EngineError *error)
{
	ImageError image_error;
	Image half;
	bool good;

	if (image_columns(whole, x, width, whole->channels, &half, &image_error) != IMAGE_OK)
		return error_from_image(error, &image_error);
	executor_progress();
	good = image_encode_png(&half, png, length, &image_error) == IMAGE_OK;
	if (!good)
		error_from_image(error, &image_error);
	image_free(&half);
	return good;
}

static void
join_halves(Request *request, uint8_t *const png[2], const size_t length[2])
{
	BicycleHalves head = { .left_length = (uint32_t) length[0] };

	if (length[0] > UINT32_MAX || length[1] > UINT32_MAX - length[0] - sizeof(head))
		error_engine_memory(&request->error, "Halves of %zu and %zu bytes are too long.", length[0],
							length[1]);
	else if ((request->result = malloc(sizeof(head) + length[0] + length[1])) == NULL)
		error_memory(&request->error, "an answer");
	else
	{
		memcpy(request->result, &head, sizeof(head));
		memcpy(request->result + sizeof(head), png[0], length[0]);
		memcpy(request->result + sizeof(head) + length[0], png[1], length[1]);
		request->result_length = sizeof(head) + length[0] + length[1];
	}
}

/* Cut as training's are: of an odd width the right one is wider. */
void
halve_image(Request *request)
{
	Image whole;
	ImageError error;
	uint8_t *png[2] = { NULL };
	size_t length[2], held;
	int middle;

	if (image_info(request->file, request->image.image_length, &request->info, &error) != IMAGE_OK)
	{
		error_from_image(&request->error, &error);
		return;
	}
	if (request->info.width < 2)
	{
		error_set(&request->error, "22P03", "image has no two halves");
		error_detail(&request->error, "It is one pixel wide.");
		return;
	}
	/* one half of the pixels at a time, and both files */
	if (!worker_decode_held(request, &request->info, 3, alpha_flags(request), (NnExtent){ 0 },
							png_bytes(request->info.width, request->info.height, 3) +
								(size_t) request->info.width * (size_t) request->info.height * 3,
							&whole, &held, &request->error))
		return;
	middle = whole.width / 2;
	if (encode_half(&whole, 0, middle, &png[0], &length[0], &request->error) &&
		encode_half(&whole, middle, whole.width - middle, &png[1], &length[1], &request->error))
		join_halves(request, png, length);
	free(png[0]);
	free(png[1]);
	image_free(&whole);
	decode_release(&request->engine->decoders, held);
}
