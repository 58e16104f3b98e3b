/*
 * frames.h
 *	  Every frame a client may send after its hello, and what is done with it.
 *
 * I/O thread only.
 */
#ifndef BICYCLE_ENGINE_FRAMES_H
#define BICYCLE_ENGINE_FRAMES_H

#include "engine/request.h"

/* The row of a type; NULL if a client may not send it. */
extern const FrameKind *frame_kind(uint32_t type);

/*
 * Where a body goes whose kind has no `came`; false after a protocol error.
 * When it has come whole, frame_received.
 */
extern bool frame_target(Connection *connection, const BicycleFrame *frame, uint8_t **to);
extern void frame_received(Connection *connection, const BicycleFrame *frame);

/* answers.c, options_check.c */
extern void answer_status(Connection *connection, const BicycleFrame *frame, const uint8_t *body);
extern void answer_cache(Connection *connection, const BicycleFrame *frame, const uint8_t *body);
extern void options_check(Connection *connection, const BicycleFrame *frame, const uint8_t *body);

#endif /* BICYCLE_ENGINE_FRAMES_H */
