/*
 * params.h
 *	  Building parameter tables and matching tensors with them: what params.c
 *	  shares with nets.c and infer.c.
 */
#ifndef BICYCLE_NN_PARAMS_H
#define BICYCLE_NN_PARAMS_H

#include "nn/nn.h"

/* Its index, or -1: no memory, or overflow. The name is copied. */
extern int nn_params_add(NnParams *params, NnNetwork network, const char *name, int ndim,
						 const int64_t *shape);

/* The tensor of that parameter, or NULL. */
extern const NnTensor *nn_tensor_find(const NnTensor *tensors, int ntensors, const NnParam *param);

/* Whether the tensor has the parameter's shape and kind of number. */
extern bool nn_tensor_fits(const NnTensor *tensor, const NnParam *param);

#endif /* BICYCLE_NN_PARAMS_H */
