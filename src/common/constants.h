/*
 * constants.h
 *	  Numbers of the official networks that every device computes with; plain
 *	  constants, so that CUDA's kernels may include it, too.
 */
#ifndef BICYCLE_CONSTANTS_H
#define BICYCLE_CONSTANTS_H

#define LRELU_SLOPE 0.2    /* of LeakyReLU below zero */
#define NORM_EPSILON 1e-5  /* of instance and batch norm, PyTorch's default */
#define UNIT_EPSILON 1e-10 /* of LPIPS, added to the lengths that it divides by */

#endif /* BICYCLE_CONSTANTS_H */
