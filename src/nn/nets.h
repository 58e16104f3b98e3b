/*
 * nets.h
 *	  The official names of G's layers, which nets.c gives and infer.c
 *	  recognises.
 */
#ifndef BICYCLE_NN_NETS_H
#define BICYCLE_NN_NETS_H

#include "nn/nn.h"

#define NN_MAX_LAYER_NAME 256

typedef enum NnPlace
{
	NN_DOWN_CONV,
	NN_DOWN_NORM,
	NN_UP_CONV,
	NN_UP_NORM
} NnPlace;

/*
 * The name of a layer of level k of G. Of the configuration it reads levels,
 * where_add, upsample and norm. name has NN_MAX_LAYER_NAME bytes.
 */
extern void nn_unet_layer_name(const NnConfig *config, int k, NnPlace place, char *name);

#endif /* BICYCLE_NN_NETS_H */
