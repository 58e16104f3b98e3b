/*
 * names.h
 *	  What both programs and the neural core call the same things.
 *
 * R1 A table is a macro that calls ROW(ID, name, ...) for each of its rows.
 *    Enums and arrays are made of it where they are needed: NnPrecision of
 *    BICYCLE_PRECISIONS, and so on.
 * R2 The order of rows is that of the enum's values, which go over the wire and
 *    into files of tests. A row that joins is the last one.
 * R3 Names are in databases: they never change. CHECK constraints of the SQL
 *    scripts repeat some tables; test_common compares.
 */
#ifndef BICYCLE_NAMES_H
#define BICYCLE_NAMES_H

#include "common/limits.h"

#include <stdbool.h>
#include <stddef.h>

/* Kinds of arithmetic. The last two are of GPUs, and not for users. */
#define BICYCLE_PRECISIONS(ROW)                        \
	ROW(AUTO, "auto")                                  \
	ROW(FP32, "fp32")                                  \
	ROW(BF16, "bf16")                                  \
	ROW(FP16, "fp16") /* where there is no bfloat16 */ \
	ROW(TF32, "tf32") /* floats whose products keep 10 bits of the mantissa */

/* Types of a tensor's elements, as safetensors spells them, and their bytes. */
#define BICYCLE_DTYPES(ROW) \
	ROW(F32, "F32", 4)      \
	ROW(F64, "F64", 8)      \
	ROW(F16, "F16", 2)      \
	ROW(BF16, "BF16", 2)    \
	ROW(I64, "I64", 8)      \
	ROW(I32, "I32", 4)      \
	ROW(U8, "U8", 1)

/*
 * Networks of a model: generator, encoder, and the discriminators of training;
 * or the one that compares two images.
 */
#define BICYCLE_NETWORKS(ROW) \
	ROW(G, "G")               \
	ROW(E, "E")               \
	ROW(D, "D")               \
	ROW(D2, "D2")             \
	ROW(L, "L")

/* Losses of training, in the order in which the official code prints them. */
#define BICYCLE_LOSSES(ROW) \
	ROW(G_GAN, "G_GAN")     \
	ROW(D, "D")             \
	ROW(G_GAN2, "G_GAN2")   \
	ROW(D2, "D2")           \
	ROW(G_L1, "G_L1")       \
	ROW(Z_L1, "z_L1")       \
	ROW(KL, "kl")

/* What is measured of a run's validation pairs, beside its losses. */
#define BICYCLE_MEASURES(ROW)                                        \
	ROW(L1, "val_L1")               /* mean of |G(A, E(B)) - B| */   \
	ROW(Z_L1, "val_z_L1")           /* mean of |E(G(A, z)) - z| */   \
	ROW(DIVERSITY, "val_diversity") /* of two samples of an input */ \
	ROW(LPIPS, "val_lpips")         /* of G(A, E(B)) and B */

/* The systems of the paper that can be trained. */
#define BICYCLE_METHODS(ROW)                                                                  \
	ROW(BICYCLE, "bicycle")                                                                   \
	ROW(CVAE_GAN, "cvae_gan")                                                                 \
	ROW(CVAE_GAN_PP, "cvae_gan++")                                                            \
	ROW(CAE_GAN, "cae_gan")             /* deterministic code, no KL */                       \
	ROW(CLR_GAN, "clr_gan")             /* random codes only; the latent loss trains E too */ \
	ROW(PIX2PIX_NOISE, "pix2pix_noise") /* no E; conditional D */

#define BICYCLE_ONE(...) +1
#define BICYCLE_NDTYPES (0 BICYCLE_DTYPES(BICYCLE_ONE))
#define BICYCLE_NLOSSES (0 BICYCLE_LOSSES(BICYCLE_ONE))
#define BICYCLE_NMEASURES (0 BICYCLE_MEASURES(BICYCLE_ONE))

typedef enum BicyclePrecision
{
#define ROW(id, name) BICYCLE_PRECISION_##id,
	BICYCLE_PRECISIONS(ROW)
#undef ROW
} BicyclePrecision;

typedef enum BicycleLoss
{
#define ROW(id, name) BICYCLE_LOSS_##id,
	BICYCLE_LOSSES(ROW)
#undef ROW
} BicycleLoss;

/* Names by value; a NULL ends each. */
extern const char *const bicycle_precision_names[];
extern const char *const bicycle_dtype_names[];
extern const char *const bicycle_network_names[];
extern const char *const bicycle_loss_names[];
extern const char *const bicycle_measure_names[];
extern const char *const bicycle_method_names[];

/* The value that has the name, or -1. */
extern int bicycle_name_value(const char *const *names, const char *name);

/* Bytes of an element, by type. */
extern const size_t bicycle_dtype_bytes[];

/*
 * Devices: auto, cpu, cuda, cuda:N with N of one to three digits, and ref, the
 * slow reference of tests, which is not named to users.
 */
typedef enum BicycleDevice
{
	BICYCLE_DEVICE_AUTO,
	BICYCLE_DEVICE_CPU,
	BICYCLE_DEVICE_CUDA,
	BICYCLE_DEVICE_REF
} BicycleDevice;

#define BICYCLE_MAX_DEVICE 9 /* bytes of such a name, with the NUL */

/* False if this is no such name. *index is N, and 0 without one. */
extern bool bicycle_device_parse(const char *name, BicycleDevice *device, int *index);

/*
 * What the setting says: a device, for one engine; a list of different GPUs,
 * cuda:0,cuda:2, for an engine each; or cuda:all, for as many as there are.
 */
typedef struct BicycleDevices
{
	int n;    /* of engines, at least 1 */
	bool all; /* cuda:all; name has those of BICYCLE_MAX_ENGINES cards, and n is that */
	char name[BICYCLE_MAX_ENGINES][BICYCLE_MAX_DEVICE];
} BicycleDevices;

/* NULL; or why this is none of these, a sentence. */
extern const char *bicycle_devices_parse(const char *text, BicycleDevices *devices);

#define BICYCLE_ENGINE_FILE 32 /* bytes of such a name, with the NUL */

/*
 * The file of an engine: bicycle.sock, and bicycle.N.sock of all but the first.
 * Relative to the data directory, the working directory of both programs.
 */
extern void bicycle_engine_file(char name[BICYCLE_ENGINE_FILE], int engine, const char *ending);

#endif /* BICYCLE_NAMES_H */
