/*
 * stream.h
 *	  Tensors as they cross the socket, and the hashes of their contents.
 *
 * No state; any thread.
 */
#ifndef BICYCLE_ENGINE_STREAM_H
#define BICYCLE_ENGINE_STREAM_H

#include "engine/engine_error.h"

/* Names and, where alignment allows, data point into the stream. */
typedef struct TensorStream
{
	NnTensor *tensors;
	int ntensors;
	void **copies; /* owned: data that was not aligned in the stream */
	int ncopies;
} TensorStream;

/* On failure nothing is left to free. */
extern bool stream_parse(const uint8_t *bytes, size_t length, TensorStream *stream,
						 EngineError *error);
extern void stream_free(TensorStream *stream);
extern bool stream_header(const NnTensor *tensor, BicycleTensor *header, EngineError *error);
extern bool stream_order(const NnConfig *config, NnTensor *tensors, int ntensors,
						 EngineError *error);

/* The content hash of a model, and that of a pair of images (hash.c). */
extern bool model_hash(const char *config, const NnTensor *tensors, int ntensors,
					   uint8_t hash[BICYCLE_HASH_BYTES], EngineError *error);
extern bool model_verify(const BicycleLoad *load, const char *text, NnConfig *config,
						 TensorStream *stream, EngineError *error);
extern bool pair_hash(const uint8_t *a, size_t a_length, const uint8_t *b, size_t b_length,
					  uint8_t hash[BICYCLE_HASH_BYTES], EngineError *error);

#endif /* BICYCLE_ENGINE_STREAM_H */
