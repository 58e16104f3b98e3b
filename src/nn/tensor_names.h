/*
 * tensor_names.h
 *	  Names of tensors as people's files have them (tensor_names.c).
 */
#ifndef BICYCLE_NN_TENSOR_NAMES_H
#define BICYCLE_NN_TENSOR_NAMES_H

#include "nn/nn.h"

/*
 * Whether the tensors of a generator (or encoder, by `network`) lie among those
 * of other networks, behind a prefix of their own; fills detail and hint.
 */
extern bool nn_names_among_others(const NnTensor *tensors, int ntensors, NnNetwork network,
								  NnError *error);

/* NN_EINVAL if a norm keeps weights in tensors that have to be multiplied. */
extern NnStatus nn_names_check_weights(const NnTensor *tensors, int ntensors, NnError *error);

#endif /* BICYCLE_NN_TENSOR_NAMES_H */
