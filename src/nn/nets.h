/*
 * nets.h
 *	  The networks, and the official names of G's layers, which infer.c
 *	  recognises (nets.c).
 */
#ifndef BICYCLE_NN_NETS_H
#define BICYCLE_NN_NETS_H

#include "nn/graph.h"

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

/*
 * One definition of each network for inference and training, of a
 * configuration that nn_config_check accepts. Values are ids in g; sizes come
 * from the shapes of the inputs.
 */

/*
 * (N,H,W,input_nc), (N,1,1,nz) or -1 -> (N,H,W,output_nc). dropout is the
 * probability of the inner up path, in training.
 */
extern int nn_net_G(NnGraph *g, const NnConfig *config, int image, int z, float dropout);
/* -> (N,1,1,nz) twice */
extern void nn_net_E(NnGraph *g, const NnConfig *config, int image, int *mu, int *logvar);
/*
 * (N,H,W,3) -> (N,1,1,nn_metric_numbers), and (N,1,1,C) of means
 */
extern void nn_net_L(NnGraph *g, const NnConfig *config, int image, int *numbers, int *features);
/* -> config->num_ds maps (N,h,w,1) */
extern void nn_net_D(NnGraph *g, const NnConfig *config, NnNetwork which, int image, int *maps);

#endif /* BICYCLE_NN_NETS_H */
