/*
 * model_private.h
 *	  The inside of a model, for model.c, which makes it, pass.c, which runs it,
 *	  and fit.c, whose weights it may take.
 *
 * Owned by the device's owner.
 */
#ifndef BICYCLE_NN_MODEL_PRIVATE_H
#define BICYCLE_NN_MODEL_PRIVATE_H

#include "nn/training.h"

#define BUCKETS 7 /* batches of 1, 2, 4, 8, 16, 32, 64 */

/* A network planned for one batch size; floats for its inputs, outputs. */
typedef struct Bucket
{
	NnGraph graph;
	NnPlan plan;
	int image; /* value ids, -1 = none */
	int z;
	int out[2]; /* G: the image; E: mu and logvar; L: numbers and features */
	/* floats of images, (n, H, W, C), for byte calls; NULL: it takes bytes */
	float *in, *result;
	size_t float_bytes; /* of these arrays */
} Bucket;

/* The plans of a network for images of one size. */
typedef struct NnPlans
{
	NnExtent extent;
	Bucket *buckets[BUCKETS]; /* NULL until needed */
	int fits;                 /* 2^fits images are known to be within R3 */
	bool full;                /* and no more */
	unsigned open;            /* parts of passes that are started */
	uint64_t used;            /* more, the later; of other sizes */
} Plans;

typedef struct Net
{
	bool exists;
	NnParams params;
	void *packed;
	size_t packed_bytes;
	Plans own; /* at the network's own size */
} Net;

/* An image that L has been run on, and what it made of that; one allocation. */
typedef struct Seen
{
	NnExtent extent;
	uint64_t hash;   /* of the image */
	uint64_t used;   /* more, the later */
	unsigned wanted; /* by passes: it stays */
	float *numbers, *features;
	uint8_t *image;
} Seen;

typedef struct SeenImages
{
	Seen **list;
	int n, capacity;
	size_t bytes;
	uint64_t uses; /* counted */
} SeenImages;

struct NnModel
{
	NnDevice *device;
	NnConfig config;
	NnPrecision precision;
	Net nets[2];                   /* G or L, and E: model_net */
	Plans *others[NN_MAX_EXTENTS]; /* of the first; the first nothers */
	int nothers;
	uint64_t uses; /* of other sizes, counted */
	SeenImages seen;
};

/* The network that the model is for; E may be beside it. */
static inline NnNetwork
model_main(const NnModel *m)
{
	return m->config.metric != NN_METRIC_NONE ? NN_NET_L : NN_NET_G;
}

/* The network of a place in nets; and whose place is known to be there. */
static inline NnNetwork
model_network(const NnModel *m, int place)
{
	return place == 0 ? model_main(m) : NN_NET_E;
}

static inline int
model_place(NnNetwork network)
{
	return network == NN_NET_E ? 1 : 0;
}

static inline bool
model_has(const NnModel *m, NnNetwork network)
{
	return (network == NN_NET_E || network == model_main(m)) &&
		   m->nets[model_place(network)].exists;
}

static inline NnExtent
model_own_extent(const NnModel *m, NnNetwork network)
{
	int side = network == NN_NET_E ? m->config.encoder_size : m->config.size;

	return (NnExtent){ side, side };
}

static inline size_t
model_pixels(NnExtent extent)
{
	return nn_mul(extent.h, extent.w);
}

static inline int
model_channels(const NnModel *m, NnNetwork network)
{
	return network == NN_NET_E ? m->config.output_nc : m->config.input_nc;
}

/* Numbers that a network reads for an image of that size. */
static inline size_t
model_reads(const NnModel *m, NnNetwork network, NnExtent extent)
{
	return nn_mul(model_pixels(extent), (size_t) model_channels(m, network));
}

/* And those that it writes, as output i of it. */
static inline size_t
model_writes(const NnModel *m, NnNetwork network, NnExtent extent, int i)
{
	switch (network)
	{
		case NN_NET_L:
			return i == 0 ? nn_metric_numbers(&m->config, extent)
						  : (size_t) nn_metric_features(&m->config);
		case NN_NET_E:
			return (size_t) m->config.nz;
		default:
			return nn_mul(model_pixels(extent), (size_t) m->config.output_nc);
	}
}

/*
 * The plans for a size, which may be none yet. They stay while a part of a pass
 * is open.
 */
extern NnStatus model_take_plans(NnModel *m, NnNetwork network, NnExtent extent, Plans **plans,
								 NnError *error);

/* The planned bucket for the next images of a rest of n. */
extern NnStatus model_next_bucket(NnModel *m, NnNetwork network, Plans *plans, int n, Bucket **b,
								  NnError *error);

/* Fills the flat values of the network with that table. */
typedef NnStatus (*ModelFill)(void *from, const NnParams *params, float *values, NnError *error);

/* nn_model_load, of weights that need not be in memory all at once. */
extern NnStatus model_load(NnDevice *device, const NnConfig *config, NnPrecision precision,
						   ModelFill fill, void *from, NnModel **model, NnError *error);

/*
 * What a model takes of the device's memory, at most, where up to so many
 * images, or pairs, of that size are asked for at a time, and images of its
 * encoder at the encoder's; 0 on error. While it is packed it takes what the
 * plans' work space has later; where that is the host, one network's values.
 */
extern size_t model_most_bytes(NnDevice *device, const NnConfig *config, NnPrecision precision,
							   NnExtent extent, int images, NnError *error);

/*
 * Of a fit: all weights anew, of an array of its training, on a device that has
 * repack. Plans stay.
 */
extern NnStatus model_repack(NnModel *m, const NnTraining *training, NnArray array, NnError *error);

/* ---- pairs.c ------------------------------------------------------------- */

/*
 * Begins a pass over pairs: finds what of its images is new, and makes the pass
 * over these, pass->pairs->images; then makes distances of what that has made,
 * and is over.
 */
typedef struct NnPairs
{
	NnPass images;
	Seen **of;   /* of each image of the pairs */
	Seen **made; /* by the pass, which are new */
	const uint8_t **files;
} NnPairs;

extern NnStatus pairs_begin(NnPass *pass);
extern void pairs_end(NnPass *pass);

/* What n pairs take besides plans, if none of their images has been seen. */
extern size_t pairs_bytes(const NnModel *m, NnExtent extent, int n);

#endif /* BICYCLE_NN_MODEL_PRIVATE_H */
