/*
 * conv_memory.c
 *	  Memory that a library of convolutions takes by itself, and what it means
 *	  that it cannot run one.
 *
 * R1 A library loads the code of an engine when that is first run. Where the
 *    card has no room for it, its status is that of an execution that failed,
 *    as of an engine that does not suit the GPU. So the card is asked what it
 *    has left: with less than CUDA_LIBRARY_BYTES memory was what it wanted.
 * R2 Then no engine is given up, and none is chosen for later starts.
 *
 * No state. Any thread that has the GPU current and captures nothing.
 */
#include "nn/cuda/conv.h"

#include "nn/nn_error.h"

#include <cuda_runtime_api.h>

/* Of a small card, this part of it. */
#define LIBRARY_PART 32

size_t
cuda_conv_library_bytes(size_t card)
{
	return card / LIBRARY_PART < CUDA_LIBRARY_BYTES ? card / LIBRARY_PART : CUDA_LIBRARY_BYTES;
}

/* Where the GPU does not say, it is not known to be so. */
bool
cuda_conv_is_short(size_t *has)
{
	size_t card;

	if (cudaMemGetInfo(has, &card) == cudaSuccess)
		return *has < cuda_conv_library_bytes(card);
	(void) cudaGetLastError();
	return false;
}

NnStatus
cuda_conv_refuse(const CudaConvShape *s, const char *what, NnError *error)
{
	static const char *const kinds[] = { "forward", "a data gradient", "a filter gradient" };
	size_t has;

	if (cuda_conv_is_short(&has))
	{
		nn_fail(error, NN_ENOMEM, "out of GPU memory");
		nn_detail(error, "%s for a convolution, and the GPU has %zu bytes left for its code.", what,
				  has);
		nn_hint(error, "Lower the setting \"bicycle.gpu_memory\", or free memory of the GPU that "
					   "other processes hold.");
		return NN_ENOMEM;
	}
	nn_fail(error, NN_EUNSUPPORTED, "%s for a convolution", what);
	nn_detail(error, "It is %s of (%d, %d, %d, %d) to (%d, %d, %d), kernel %d, stride %d.",
			  kinds[s->kind], s->n, s->h, s->w, s->c, s->oh, s->ow, s->k, s->kernel, s->stride);
	return NN_EUNSUPPORTED;
}
