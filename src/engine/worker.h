/*
 * worker.h
 *	  The pool's tasks: decode an image and bring it to the model's size; encode
 *	  a result; look whether an image can be decoded; draw a plot or a grid.
 */
#ifndef BICYCLE_ENGINE_WORKER_H
#define BICYCLE_ENGINE_WORKER_H

#include "engine/request.h"

/* I/O thread: hands the request to the pool, which decodes or encodes it. */
extern void worker_decode(Request *request);
extern void worker_encode(Request *request);

/* What kinds of requests decode on the pool, and answer. */
extern void worker_decode_image(Request *request);
extern void worker_read_info(Request *request);
extern void worker_reply_info(Request *request); /* I/O thread */
extern void worker_check(Request *request);
extern void worker_plot(Request *request);

/* Those that a file's pixels are told apart in: 1, gray, or 3. */
extern int worker_channels(const ImageInfo *info);

/* worker_grid.c */
extern void worker_grid(Request *request);

/*
 * Decodes a file, whose header is in *info, to a size, or with {0, 0} to its
 * own; flags: ImageFlags. place: memory for it, or NULL. Waits for its share of
 * the budget. Any thread of an executor.
 */
extern bool worker_decode_file(DecodeBudget *budget, const uint8_t *file, size_t length,
							   const ImageInfo *info, int channels, unsigned flags, NnExtent extent,
							   uint64_t max_pixels, uint8_t *place, Image *pixels,
							   EngineError *error);

/*
 * Likewise of one file with two images in it: the left half, and the right one,
 * which is a pixel wider if the width is odd, become side x side. On failure
 * nothing is left to free.
 */
extern bool worker_decode_halves(DecodeBudget *budget, const uint8_t *file, size_t length,
								 const ImageInfo *info, const int channels[2], unsigned flags,
								 int side, uint64_t max_pixels, Image images[2],
								 EngineError *error);

/*
 * For a byte of pixels, what writing a file takes that is not WebP: the file,
 * whose memory grows by doubling, and a copy.
 */
#define WORKER_FILE_BYTES 3

/*
 * Decodes the file of a request. What that took of the budget, and `beside`
 * bytes for what becomes of it, is *held until the caller releases it, with the
 * pixels. On failure nothing is.
 */
extern bool worker_decode_held(const Request *request, const ImageInfo *info, int channels,
							   unsigned flags, NnExtent extent, size_t beside, Image *pixels,
							   size_t *held, EngineError *error);

/*
 * Likewise of the two images of a request: the second is brought to the size of
 * the first, and both have `channels`, or for 0 those of the first.
 */
extern bool worker_decode_two(const Request *request, int channels, Image images[2], size_t *held,
							  EngineError *error);

/*
 * Writes an image in the format that the request asks for. *bytes is malloc'ed,
 * and NULL on failure. Any thread of an executor.
 */
extern bool worker_encode_pixels(const Request *request, const Image *image, uint8_t **bytes,
								 size_t *length, EngineError *error);

/* Likewise for a PLOT. *png is malloc'ed, and NULL on failure. */
extern bool worker_draw_plot(DecodeBudget *budget, const uint8_t *bytes, size_t length,
							 uint64_t max_pixels, uint8_t **png, size_t *png_length,
							 EngineError *error);

#endif /* BICYCLE_ENGINE_WORKER_H */
