/*
 * engine_error.h
 *	  The engine's errors: SQLSTATE, what, the fact, and the way out.
 *
 * No state; any thread. An error without SQLSTATE is no error.
 */
#ifndef BICYCLE_ENGINE_ERROR_H
#define BICYCLE_ENGINE_ERROR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/protocol.h"
#include "image/image.h"
#include "nn/nn.h"
#include "plot/plot.h"

typedef struct EngineError
{
	char sqlstate[6]; /* empty: no error */
	char message[256];
	char detail[1024];
	char hint[512];
} EngineError;

extern void error_clear(EngineError *error);

/* error_set begins an error; the other two add to it. */
extern void error_set(EngineError *error, const char *sqlstate, const char *message, ...)
	__attribute__((format(printf, 3, 4)));
extern void error_detail(EngineError *error, const char *detail, ...)
	__attribute__((format(printf, 2, 3)));
extern void error_hint(EngineError *error, const char *hint, ...)
	__attribute__((format(printf, 2, 3)));

/* These return false, for callers that do. */
extern bool error_memory(EngineError *error, const char *what); /* 53200: malloc failed */
extern bool error_from_nn(EngineError *error, const NnError *nn);
extern bool error_from_image(EngineError *error, const ImageError *image);
extern bool error_from_plot(EngineError *error, const PlotError *plot);

/*
 * Of a request about two images: adds which of them an error is of, 0 or 1, if
 * it is an image's own.
 */
extern bool error_of_two(EngineError *error, int which);

/* 53200: what the detail says is more than engine_memory. */
extern bool error_engine_memory(EngineError *error, const char *detail, ...)
	__attribute__((format(printf, 2, 3)));

/* Its form on the wire; body holds ERROR_PACKED_MAX; returns the length. */
#define ERROR_PACKED_MAX (sizeof(BicycleError) + sizeof(EngineError))
extern size_t error_pack(const EngineError *error, uint8_t *body);

/* False if the bytes are not well-formed. */
extern bool error_unpack(EngineError *error, const uint8_t *body, size_t length);

static inline bool
error_is_set(const EngineError *error)
{
	return error->sqlstate[0] != '\0';
}

#endif /* BICYCLE_ENGINE_ERROR_H */
