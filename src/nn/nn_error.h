/*
 * nn_error.h
 *	  Making errors, and sizes that cannot overflow; every error of nn, image
 *	  formats' included, is made by these.
 */
#ifndef BICYCLE_NN_ERROR_H
#define BICYCLE_NN_ERROR_H

#include "common/fault.h"
#include "nn/nn.h"

/* Starts an error, returns `code`; the next two add. error may be NULL. */
extern NnStatus nn_fail(NnError *error, NnStatus code, const char *message, ...)
	__attribute__((format(printf, 3, 4)));
extern void nn_detail(NnError *error, const char *detail, ...)
	__attribute__((format(printf, 2, 3)));
extern void nn_hint(NnError *error, const char *hint, ...) __attribute__((format(printf, 2, 3)));
extern NnStatus nn_no_memory(NnError *error, size_t bytes);

/* NN_OK, but an error where a test wants what comes now to fail (fault.h). */
extern NnStatus nn_fault(FaultKind kind, NnError *error);

/* a * b, or SIZE_MAX if that overflows: no allocation of it succeeds. */
static inline size_t
nn_mul(size_t a, size_t b)
{
	size_t product;

	return __builtin_mul_overflow(a, b, &product) ? SIZE_MAX : product;
}

static inline size_t
nn_sum(size_t a, size_t b)
{
	return a > SIZE_MAX - b ? SIZE_MAX : a + b;
}

/* *most becomes n if it is less. */
static inline void
nn_most(size_t *most, size_t n)
{
	*most = n > *most ? n : *most;
}

#endif /* BICYCLE_NN_ERROR_H */
