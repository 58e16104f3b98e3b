/*
 * compare.h
 *	  Requests about two images: how much they differ, one of them as the other
 *	  is, and the two that lie side by side in one.
 */
#ifndef BICYCLE_ENGINE_COMPARE_H
#define BICYCLE_ENGINE_COMPARE_H

#include "engine/request.h"

/* On the pool; they leave the answer in the request, or an error. */
extern void compare_images(Request *request);
extern void match_images(Request *request);
extern void halve_image(Request *request);

#endif /* BICYCLE_ENGINE_COMPARE_H */
