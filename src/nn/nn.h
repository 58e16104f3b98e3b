/*
 * nn.h
 *	  The neural core: networks of BicycleGAN as static graphs, planned for one
 *	  batch size and run by a device.
 *
 * Three levels, each testable alone: a graph says what is computed (graph.c,
 * nets.c), a plan says in which order and in which memory (plan.c), a device
 * says how (ref/, cpu/, cuda/). Nothing here knows of PostgreSQL, sockets or
 * image files.
 *
 * Layout is NHWC. A value may be a slice of the channels of a wider value (its
 * pitch is then the wider one's channel count), so that concatenation along
 * channels needs no operator and no copy: the producers write their halves of
 * one buffer.
 *
 * R1 One thread owns an NnDevice and all models loaded on it. Another (the
 *    engine's loader) may call nn_model_load, and what says so below, while
 *    the owner runs other models. A device may use a team inside a call.
 * R2 Functions return NN_OK or an NN_E... code and fill an NnError. Nothing
 *    here exits or prints; only a broken INVARIANT ends the process.
 * R3 On ref and cpu the bytes of an image depend neither on its batch nor on
 *    the threads. On a GPU the last bits may depend on the batch: its size
 *    chooses cuDNN's engine, or a kernel of ours (cuda_is_streamed).
 */
#ifndef BICYCLE_NN_H
#define BICYCLE_NN_H

#include "common/layers.h"
#include "common/limits.h"
#include "common/names.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Errors -------------------------------------------------------------- */

typedef enum NnStatus
{
	NN_OK = 0,
	NN_EINVAL,       /* the caller's fault: a bad option, shape or missing tensor */
	NN_ENOMEM,       /* host or device memory is exhausted; nothing was changed */
	NN_EUNSUPPORTED, /* this device cannot do it (precision, operator) */
	NN_EDEVICE       /* the device failed; its state is not to be trusted */
} NnStatus;

typedef struct NnError
{
	NnStatus code;
	char message[256]; /* what: lower case, no full stop, as PostgreSQL's errmsg */
	char detail[1024]; /* the fact, a sentence; may be empty */
	char hint[512];    /* the way out, a sentence; may be empty */
} NnError;

/* ---- Configuration of a model -------------------------------------------- */

typedef enum NnWhereAdd
{
	NN_ADD_ALL,  /* z joins the input of every down convolution */
	NN_ADD_INPUT /* z joins the image only */
} NnWhereAdd;

typedef enum NnUpsample
{
	NN_UPSAMPLE_BASIC,   /* transposed convolution 4x4 s2 p1 */
	NN_UPSAMPLE_BILINEAR /* bilinear x2, reflection pad 1, convolution 3x3 */
} NnUpsample;

typedef enum NnNorm
{
	NN_NORM_INSTANCE,
	NN_NORM_BATCH,
	NN_NORM_NONE
} NnNorm;

typedef enum NnEncoderKind
{
	NN_ENCODER_NONE,
	NN_ENCODER_RESNET,
	NN_ENCODER_CONV
} NnEncoderKind;

typedef enum NnPrecision
{
#define ROW(id, name) NN_PRECISION_##id,
	BICYCLE_PRECISIONS(ROW)
#undef ROW
} NnPrecision;

/* What G makes of images that are not of its size. */
typedef enum NnSizing
{
	NN_SIZING_SQUARE, /* they are resized to size x size, and that is the result's size */
	NN_SIZING_INPUT   /* G runs at a size near the image's, and the result has the image's */
} NnSizing;

static inline const char *
nn_precision_name(NnPrecision precision)
{
	return bicycle_precision_names[precision];
}

/* Which network a tensor belongs to, as bicycle_tensors.network has it. */
typedef enum NnNetwork
{
#define ROW(id, name) NN_NET_##id,
	BICYCLE_NETWORKS(ROW)
#undef ROW
	NN_NETWORKS
} NnNetwork;

/* Whose U-Net a generator is. */
typedef enum NnFamily
{
	NN_FAMILY_BICYCLE, /* joins [up path, skip] */
	NN_FAMILY_PIX2PIX  /* joins [skip, up path]; no bias before a batch norm */
} NnFamily;

/* By what a batch norm of G normalises at inference. */
typedef enum NnStatistics
{
	NN_STATISTICS_STORED,
	NN_STATISTICS_IMAGE /* the image's own, as in PyTorch's training mode */
} NnStatistics;

#define NN_MAX_SCALES 8 /* of a discriminator */

/* What becomes of the transparency of images. */
typedef enum NnAlpha
{
	NN_ALPHA_WHITE, /* it is laid over white */
	NN_ALPHA_DROP   /* colours are taken as if there were none: the official code */
} NnAlpha;

/* Of LPIPS, which compares two images: whose convolutions it has. */
typedef enum NnMetric
{
	NN_METRIC_NONE, /* the model is a generator */
	NN_METRIC_ALEX, /* AlexNet's, as torchvision has it */
	NN_METRIC_VGG   /* VGG16's */
} NnMetric;

/*
 * Everything that fixes the networks of a model. Filled from JSON by the option
 * table of config.c (defaults are the official code's), or inferred from the
 * tensors of files by nn_config_infer.
 */
typedef struct NnConfig
{
	int size;      /* images are size x size; a multiple of 2^levels */
	int levels;    /* down levels of G, 6 to 9; its nominal size is 2^levels */
	int input_nc;  /* channels of A: 1 or 3 */
	int output_nc; /* channels of B: 1 or 3 */
	int nz;        /* length of the latent code, >= 0 */
	int ngf;       /* base widths of G, E, D */
	int nef;
	int ndf;
	NnWhereAdd where_add;
	NnUpsample upsample;
	NnNorm norm;
	NnActKind nl; /* activation of G's up path: relu, lrelu or elu */
	NnEncoderKind net_e;
	/* size that E runs at, 64, 128, 256 or 512; 0 without E */
	int encoder_size;
	int num_ds;         /* scales of each discriminator */
	bool conditional_d; /* D sees [A, B] instead of B */
	NnPrecision precision;
	NnSizing fit;
	NnAlpha alpha; /* of input images */
	NnFamily family;
	NnStatistics statistics;
	int test_dropout; /* above 0: half of the inner up path is dropped, by this seed */
	/*
	 * What is no option: of a model that compares images. Its sizes are what is
	 * common, and its network is L alone.
	 */
	NnMetric metric;
	bool unscaled; /* version 0.0 of LPIPS, which does not scale the images first */
} NnConfig;

/*
 * A tensor of a file or of the database, in the checkpoint's own layout
 * (PyTorch's: OIHW for Conv2d, IOHW for ConvTranspose2d).
 */
typedef enum NnDtype
{
#define ROW(id, name, bytes) NN_##id,
	BICYCLE_DTYPES(ROW)
#undef ROW
} NnDtype;

#define NN_MAX_DIMS 8

typedef struct NnTensor
{
	const char *name; /* checkpoint name, for instance model.down.0.weight */
	NnNetwork network;
	NnDtype dtype;
	int ndim;
	int64_t shape[NN_MAX_DIMS];
	const void *data; /* row-major and contiguous; NULL where only names and shapes matter */
	size_t nbytes;
} NnTensor;

extern size_t nn_dtype_size(NnDtype dtype);
extern const char *nn_dtype_name(NnDtype dtype); /* "F32" */
extern bool nn_dtype_from_name(const char *name, NnDtype *dtype);
extern const char *nn_network_name(NnNetwork network); /* "G" */
extern bool nn_network_from_name(const char *name, NnNetwork *network);

/* Whether all elements, which must be there, are finite as floats. */
extern bool nn_tensor_is_finite(const NnTensor *tensor);

/*
 * tensor_names.c: the bytes that all names of a network's tensors have in
 * common before those of the official code, as "module." (of DataParallel),
 * "_orig_mod.", "netG.", or several of them; 0 if there are none, or the names
 * are of another network.
 */
extern int nn_names_prefix(const NnTensor *tensors, int ntensors, NnNetwork network);

/*
 * config.c: the option table. nn_config_parse reads a JSON object over the
 * values already in *config (start from nn_config_default) and rejects unknown
 * keys, wrong types and values out of range with NN_EINVAL. nn_config_print
 * writes the canonical JSON text (fixed key order, no spaces) that the model
 * hash covers; it returns a malloc'ed string or NULL.
 */
extern void nn_config_default(NnConfig *config);
extern NnStatus nn_config_parse(NnConfig *config, const char *json, size_t length, NnError *error);
extern char *nn_config_print(const NnConfig *config);

/* Checks what fields demand of each other; infers nothing. */
extern NnStatus nn_config_check(const NnConfig *config, NnError *error);

/*
 * infer.c: the configuration from the tensors of a generator (network NN_NET_G)
 * and, if present, an encoder. `json` holds what the user said (config of
 * bicycle_import) and wins where names and shapes leave a choice; a
 * contradiction is NN_EINVAL. Then verifies the whole key set: every missing,
 * extra or misshapen tensor is named in error->detail. Names are without
 * prefixes: see nn_names_prefix. Tensors that official loading drops (running
 * statistics of instance norms) are accepted: keep[i] tells whether tensor i
 * belongs to the model. *assumed becomes a JSON object,
 * malloc'ed, of the options that neither the user nor the tensors have told, or
 * NULL if there are none. keep and assumed may be NULL.
 */
extern NnStatus nn_config_infer(NnConfig *config, const char *json, size_t json_length,
								const NnTensor *tensors, int ntensors, bool *keep, char **assumed,
								NnError *error);

/*
 * metric.c: the configuration of a model that compares images, whose canonical
 * text is one of its own, {"lpips":"0.1","net":"alex"}; NN_EINVAL for other
 * names. nn_config_parse, print and check know it, too.
 */
extern NnStatus nn_metric_config(NnConfig *config, const char *net, const char *version,
								 NnError *error);
extern int nn_metric_least(const NnConfig *config);    /* side of an image */
extern int nn_metric_features(const NnConfig *config); /* channels of the last map */

/*
 * metric_infer.c: checks the tensors of its files, all of network L: weights of
 * convolutions as torchvision names them, features.0.weight, and heads as the
 * lpips package does, lin0.model.1.weight, which are not negative. What all
 * names of a file have before those is the caller's to take off. keep[i]:
 * tensor i belongs to it; of classifiers no more is wanted. What is missing,
 * misshapen or too much is named in the error.
 */
extern NnStatus nn_metric_check(const NnConfig *config, const NnTensor *tensors, int ntensors,
								bool *keep, NnError *error);

/*
 * extent.c: sizes of images other than the model's own. G runs at multiples of
 * 2^levels; L at any size, which is that of one of the two images.
 */
typedef struct NnExtent
{
	int h, w;
} NnExtent;

#define NN_MAX_EXTENTS 32     /* sizes that a model keeps plans for, besides its own */
#define NN_MAX_RATIO 8        /* of an image's longer side to the shorter */
#define NN_MAX_SIDE (1 << 20) /* of an extent */
#define NN_MAX_AREA (1 << 27) /* an answer of three channels is a frame of less than 512 MB */

/*
 * Where G runs for an image of that size: each side is the nearest multiple of
 * 2^levels, and 2^levels at least. False if the sides differ too much, or there
 * are too many pixels. L runs at the size itself, if it is not too small.
 */
extern bool nn_extent_fit(const NnConfig *config, int width, int height, NnExtent *extent);
extern bool nn_extent_suits(const NnConfig *config, NnExtent extent); /* G or L can run there */

/* metric.c: pixels of an image for L, at most. */
extern int nn_metric_most(const NnConfig *config);

/* nets.c: numbers that L makes of an image of that size, to be compared by. */
extern size_t nn_metric_numbers(const NnConfig *config, NnExtent extent);

/* ---- Parameters ---------------------------------------------------------- */

/*
 * One tensor of a network in the order of the official state_dict. The values
 * of a network lie in one flat float array at `offset`, so that the optimiser,
 * checkpoints and copies are one loop. Buffers (running statistics) follow the
 * same rule but have no gradient.
 */
typedef struct NnParam
{
	char *name; /* checkpoint name */
	NnNetwork network;
	int ndim;
	int64_t shape[4]; /* checkpoint layout */
	size_t count;     /* product of shape, 1 for a scalar */
	size_t offset;    /* in floats, within the flat array of all networks of the model */
	bool buffer;      /* running_mean, running_var, num_batches_tracked */
	bool integer;     /* num_batches_tracked: int64 in files */
} NnParam;

typedef struct NnParams
{
	NnParam *list;
	int n;
	int capacity;
	size_t total; /* floats of the flat array */
} NnParams;

/*
 * The parameters of the networks in `mask` (1 << NN_NET_G | ...), in the order
 * of the official state_dict. Free with nn_params_free.
 */
extern NnStatus nn_params_of(const NnConfig *config, unsigned mask, NnParams *params,
							 NnError *error);
/* Its index; -1 if absent. */
extern int nn_params_find(const NnParams *params, NnNetwork network, const char *name);
extern void nn_params_free(NnParams *params);

/*
 * Converts tensors (any float type) into the flat array `values` of
 * params->total floats. All of params must be there, except
 * num_batches_tracked, which files from before PyTorch 0.4.1 lack and no
 * inference reads.
 */
extern NnStatus nn_params_fill(const NnParams *params, const NnTensor *tensors, int ntensors,
							   float *values, NnError *error);

/* init.c: fresh weights, as networks.py's init_net; a function of `seed`. */
typedef enum NnInit
{
	NN_INIT_XAVIER,
	NN_INIT_NORMAL,
	NN_INIT_KAIMING,
	NN_INIT_ORTHOGONAL
} NnInit;

/*
 * How they are drawn. Threads share the work; the numbers do not depend on how
 * many. What takes seconds, of large tensors minutes, is NN_INIT_ORTHOGONAL:
 * meanwhile `wanted(arg)` is asked again and again, by all of the threads, and
 * ends it if false. NULL: nobody is asked.
 */
typedef struct NnFresh
{
	NnInit init;
	float gain;
	uint64_t seed;
	int threads;
	bool (*wanted)(void *arg);
	void *arg;
} NnFresh;

/*
 * Of the parameter `index`. values: list[index].count. NN_EINVAL: no longer
 * wanted.
 */
extern NnStatus nn_param_init(const NnParams *params, int index, const NnFresh *fresh,
							  float *values, NnError *error);

/* ---- Models on a device: what the engine calls --------------------------- */

typedef struct NnDevice NnDevice; /* device.h */
typedef struct NnModel NnModel;   /* packed for a device and a precision; with plans */

/* "ref", "cpu", "cuda", "cuda:N" (the N-th GPU). threads <= 0: all. */
extern NnStatus nn_device_open(const char *name, int threads, NnDevice **device, NnError *error);
extern void nn_device_close(NnDevice *device);
extern int nn_gpu_count(void); /* that "cuda:N" may name; 0: none can be used */
/*
 * No device of a GPU is open, and none will be in this process any more: what
 * it still holds of GPUs is given back.
 */
extern void nn_gpu_leave(void);
/* "cpu (AVX-512, arithmetic 2, 2 threads)"; the device's. */
extern const char *nn_device_describe(const NnDevice *device);
extern int nn_device_set_threads(NnDevice *device, int threads); /* returns the count in force */
extern bool nn_device_supports(const NnDevice *device, NnPrecision precision);
/* What precision auto means on it. */
extern NnPrecision nn_device_automatic(const NnDevice *device);
extern bool nn_device_overlaps(const NnDevice *device); /* it works beside the caller */

/*
 * Memory for images that such a device reads and writes without a copy; NULL:
 * there is none. Any thread, but free it before the device.
 */
extern void *nn_device_pin(NnDevice *device, size_t bytes);
extern void nn_device_unpin(NnDevice *device, void *memory);

/*
 * progress is called by whoever runs a model or trains on the device, again and
 * again while a call lasts, so that a watchdog can tell a slow machine from a
 * computation that hangs: at least once a layer. A GPU runs a plan as a whole:
 * it is called as layers are queued, and when the GPU has taken in the inputs,
 * computed, and given the outputs. It must be cheap; NULL: nobody watches.
 * Owner's thread.
 */
extern void nn_device_watch(NnDevice *device, void (*progress)(void));

/* Memory of a device that has its own, a GPU. */
typedef struct NnDeviceMemory
{
	size_t limit; /* bytes that it may take */
	size_t used;  /* that it has taken, what it keeps for the next use included */
} NnDeviceMemory;

/* False if it computes in the host's memory. Any thread; never waits. */
extern bool nn_device_memory(const NnDevice *device, NnDeviceMemory *memory);

/* What is left of such memory for its owner. */
typedef struct NnDeviceRoom
{
	size_t card; /* bytes of the GPU */
	size_t most; /* that it may take in all */
	size_t free; /* that it may take now, and that the GPU has free */
} NnDeviceRoom;

/* False if it computes in the host's memory. Owner's thread. */
extern bool nn_device_room(NnDevice *device, NnDeviceRoom *room);

/* Gives the GPU back what the device only keeps for its next use. Owner's. */
extern void nn_device_trim(NnDevice *device);

/* Whether it can train. */
extern bool nn_device_trains(const NnDevice *device);

/*
 * The most a device may take of memory of its own; 0: what the GPU has, less a
 * reserve. What is in use beyond that is kept. Owner's thread.
 */
extern void nn_device_set_memory(NnDevice *device, size_t bytes);

/*
 * Packs the weights of G (and of E, if config->net_e says so), or of L, for a
 * device.
 * precision NN_PRECISION_AUTO means config->precision, and if that is auto too,
 * what the device prefers. The tensors need not outlive the call. Weights are
 * immutable afterwards, plans come and go; the caller frees it.
 */
extern NnStatus nn_model_load(NnDevice *device, const NnConfig *config, NnPrecision precision,
							  const NnTensor *tensors, int ntensors, NnModel **model,
							  NnError *error);
extern const NnConfig *nn_model_config(const NnModel *model);
extern NnPrecision nn_model_precision(const NnModel *model);
extern void nn_model_free(NnModel *model);

/*
 * Packed weights and plans, in the memory that the device computes in, and what
 * the model takes of the host's: the same, unless the device has its own.
 */
extern size_t nn_model_bytes(const NnModel *model);
extern size_t nn_model_host_bytes(const NnModel *model);

/*
 * Of a device with memory of its own: the least that a model will take of it,
 * weights and plans for one image; 0 for other devices, and with an error. It
 * is somewhat less than what nn_model_load and nn_model_prepare take in the
 * end. Beside the owner's use of the device, as nn_model_load.
 */
extern size_t nn_model_least_bytes(NnDevice *device, const NnConfig *config, NnPrecision precision,
								   NnError *error);

/* Plans one image of each network: after that the model can always run. */
extern NnStatus nn_model_prepare(NnModel *model, NnError *error);

/*
 * Frees the plans for more images than one, and for other sizes. No pass is
 * under way.
 */
extern void nn_model_shrink(NnModel *model);

/*
 * Bytes of the host's memory that running a batch of n needs, what is planned
 * already included: the arenas of its plans, or, if the device has memory of
 * its own, what their inputs and outputs pass through. 0 if the model has no
 * such network; error may be NULL.
 */
extern size_t nn_model_batch_bytes(NnModel *model, NnNetwork network, int n, NnError *error);

/*
 * The same of G at another size, and there all that its plans take of the host.
 */
extern size_t nn_model_batch_bytes_at(NnModel *model, NnNetwork network, NnExtent extent, int n,
									  NnError *error);

/*
 * What one image takes at that size, planned or not, in the memory that the
 * device computes in; 0 with an error. Any thread.
 */
extern size_t nn_model_image_bytes(const NnModel *model, NnExtent extent, NnError *error);

/*
 * What plans for other sizes take, a part of nn_model_bytes; and, on the host,
 * what is kept of images that L has seen.
 */
extern size_t nn_model_extents_bytes(const NnModel *model);

/*
 * Frees images that L has seen, and then plans, those least recently used,
 * until they take no more, or are in use.
 */
extern void nn_model_keep_extents(NnModel *model, size_t bytes);

/* pairs.c: the same of these images alone, which are on the host. */
extern size_t nn_model_seen_bytes(const NnModel *model);
extern void nn_model_keep_seen(NnModel *model, size_t bytes);

/*
 * Images that a model works through. Where the device works beside the caller
 * (nn_device_overlaps) a pass takes several calls, and two may be under way at
 * once, of one model or of two: what was begun first is done first.
 */
typedef struct NnPassPart
{
	int n; /* images */
	struct NnPlans *plans;
} NnPassPart;

typedef struct NnPass
{
	/* The caller's. The memory is the pass's until it is over. */
	NnModel *model;
	NnNetwork network;
	NnExtent extent;
	int n;
	/* Of each image one; of L an image is a pair, (2, H, W, C): */
	const uint8_t *const *images; /* each in a place of its own, */
	const uint8_t *bytes;         /* (n, H, W, C), */
	const float *floats;          /* the same in [-1, 1] */
	const float *z;               /* (n, nz), of G */
	/* One, for G; results may have the places of images: */
	uint8_t *const *results;
	uint8_t *byte_out;
	/*
	 * the same as floats; of E, mu and logvar, (n, nz); of L, distances, (n),
	 * and features of both images, (n, 2, features)
	 */
	float *out[2];

	/* All zeros at first, then to be read */
	NnStatus status;
	NnError error;
	int done; /* images whose results are there */

	/* model.c's */
	int begun;
	NnPassPart parts[2]; /* that are started, oldest first */
	int nparts;
	bool broken;           /* one of them has failed */
	uint64_t oldest;       /* number of its start */
	struct NnPairs *pairs; /* of L */
} NnPass;

/*
 * Begins the pass or goes on with it. True: it is over, with `status` and
 * `done`, which is less than n if it has failed. wait: until something of it
 * has ended, if no other pass is before it. Owner's thread; the calls below
 * that wait are for when no pass is under way.
 */
extern bool nn_pass_go(NnPass *pass, bool wait);

/*
 * images: (n, size, size, input_nc) bytes. z: (n, nz) floats, finite. out: (n,
 * size, output_nc) bytes, round((y + 1) * 127.5) clamped; see R3. NN_ENOMEM:
 * fewer images may fit.
 */
extern NnStatus nn_model_translate(NnModel *model, int n, const uint8_t *images, const float *z,
								   uint8_t *out, NnError *error);

/* The same at another size: (n, h, w, ...). Its plans are kept. */
extern NnStatus nn_model_translate_at(NnModel *model, NnExtent extent, int n, const uint8_t *images,
									  const float *z, uint8_t *out, NnError *error);

/* images: (n, encoder_size, encoder_size, output_nc); mu, logvar: (n, nz) */
extern NnStatus nn_model_encode(NnModel *model, int n, const uint8_t *images, float *mu,
								float *logvar, NnError *error);

/*
 * pairs: (n, 2, h, w, 3) bytes. distances: (n). features: (n, 2, features), of
 * each image the means over its last map. What it makes of an image is kept, so
 * that it is not made again: the caller bounds that by nn_model_keep_seen.
 */
extern NnStatus nn_model_compare(NnModel *model, NnExtent extent, int n, const uint8_t *pairs,
								 float *distances, float *features, NnError *error);

/* On floats in [-1, 1], before quantisation; for tests and previews. */
extern NnStatus nn_model_translate_float(NnModel *model, int n, const float *images, const float *z,
										 float *out, NnError *error);
extern NnStatus nn_model_translate_float_at(NnModel *model, NnExtent extent, int n,
											const float *images, const float *z, float *out,
											NnError *error);
extern NnStatus nn_model_encode_float(NnModel *model, int n, const float *images, float *mu,
									  float *logvar, NnError *error);

/* ---- Pixels (normalise.c) ------------------------------------------------ */

/* As ToTensor and Normalize(0.5, 0.5) in float32, to [-1, 1]. */
extern void nn_normalise(const uint8_t *bytes, size_t count, float *out);

/* [-1, 1] to bytes, rounded half to even; what is no number becomes 0. */
extern void nn_quantise(const float *values, size_t count, uint8_t *out);

/* ---- Random numbers ------------------------------------------------------ */

/* random.c; no other file of nn is needed, so PostgreSQL's side links it too */

/* Philox4x32-10 (Salmon et al. 2011): 128-bit counter, 64-bit key. */
extern void nn_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/*
 * nz standard normal values from (seed, stream): the same bits on every machine
 * (Box-Muller with own polynomials, no libm, no contracted FMA).
 */
extern void nn_normal(uint64_t seed, uint64_t stream, int nz, float *z);
/* The values from `first` on, a multiple of 4. */
extern void nn_normal_from(uint64_t seed, uint64_t stream, uint32_t first, int nz, float *z);

#endif /* BICYCLE_NN_H */
