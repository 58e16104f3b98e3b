/*
 * compare.c
 *	  Requests about two images: how much they differ, and one of them as the
 *	  other is.
 *
 * On a thread of the pool, which touches nothing but the request and the
 * decoders' budget.
 */
#include <stdlib.h>

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
	BicycleComparison *answer;

	if (!worker_decode_two(request, 0, images, &request->error))
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

/* As images of a model are read: over white, or by their colours alone. */
void
match_images(Request *request)
{
	unsigned flags = request->image.flags & BICYCLE_FLAG_OPAQUE ? IMAGE_OPAQUE : 0;
	ImageInfo like;
	ImageError error;

	if (image_info(request->file, request->image.image_length, &request->info, &error) !=
			IMAGE_OK ||
		image_info(request->second, request->image.second_length, &like, &error) != IMAGE_OK)
	{
		error_from_image(&request->error, &error);
		return;
	}
	if (!fits(request, &like) ||
		!worker_decode_file(&request->engine->decoders, request->file, request->image.image_length,
							&request->info, worker_channels(&like), flags,
							(NnExtent){ .w = like.width, .h = like.height },
							request->image.max_pixels, NULL, &request->pixels, &request->error))
		return;
	executor_progress();
	if (image_encode_png(&request->pixels, &request->result, &request->result_length, &error) !=
		IMAGE_OK)
	{
		request->result = NULL;
		error_from_image(&request->error, &error);
	}
}
