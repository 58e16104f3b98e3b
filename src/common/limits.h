/*
 * limits.h
 *	  What both programs take at most, or take something for.
 *
 * CHECK constraints of the SQL scripts repeat BICYCLE_CHUNK_BYTES and
 * BICYCLE_MAX_NAME; test_common compares.
 */
#ifndef BICYCLE_LIMITS_H
#define BICYCLE_LIMITS_H

#define BICYCLE_MAX_NAME 256    /* bytes of a model's or a tensor's name, with the NUL */
#define BICYCLE_MAX_NZ 1024     /* numbers of a model's latent code */
#define BICYCLE_MAX_LATENT 4096 /* and of one that bicycle_latent draws */

/* Bytes of JSON that one request carries: a configuration, options, or both. */
#define BICYCLE_MAX_CONFIG (16 * 1024)

/*
 * Compression of PNGs, as libdeflate counts it; 0 stores. Levels from 7 on win
 * little for much time: of the largest image they would be taken to hang.
 */
#define BICYCLE_PNG_LEVEL 1
#define BICYCLE_PNG_LEVEL_MOST 6

#define BICYCLE_JOB_SLOTS 64   /* training jobs that run at once */
#define BICYCLE_MAX_ENGINES 16 /* of a server, one for each of its GPUs */

/*
 * Two samples of an input that differ by less than this, on average and of
 * values from -1 to 1, are the same to the eye: little more than one of 255
 * levels.
 */
#define BICYCLE_COLLAPSE 0.01

/* Bytes of a tensor, or of a checkpoint, in one row of a table. */
#define BICYCLE_CHUNK_BYTES (4 * 1024 * 1024)

#endif /* BICYCLE_LIMITS_H */
