/*
 * cuda_train.h
 *	  Training on the GPU: what cuda_train.c, which owns a training's memory,
 *	  shares with the operators.
 *
 * R1 Values are of the plan's precision, wide ones in fp32, as are all arrays.
 *    Arrays lie as in a checkpoint (kernels/step.h).
 * R2 Convolutions read filters, copies of their weights in the values' type and
 *    in cuDNN's order, which every update makes anew.
 * R3 Operators launch on `stream` and never wait; what they launch may be
 *    captured and run again, so what changes between iterations is read from
 *    `step`. Buffers hold nothing between two steps.
 * R4 Every sum has an order of its own: the same bits, replayed or not.
 */
#ifndef BICYCLE_NN_CUDA_TRAIN_H
#define BICYCLE_NN_CUDA_TRAIN_H

#include "nn/cuda/cuda.h"
#include "nn/training.h"

#include "step.h"
#include "train_ops.h"

/* A node's convolutions; NULL where no step wants one. */
typedef struct CudaTrainConv
{
	CudaConv *forward, *data, *filter; /* owned by the training's list */
} CudaTrainConv;

/* One of a training's different convolutions. */
typedef struct CudaTrainPlan
{
	CudaConvShape shape;
	CudaConv *conv;
} CudaTrainPlan;

/* Of an iteration, from its start to its finish (cuda_train_run.c). */
typedef struct CudaTrainSlot
{
	char *pinned, *card; /* a KernelStep of each pass, and the feeds */
	KernelVerdict *seen; /* pinned */
	cudaEvent_t arrived, /* what was pinned is on the card */
		done;            /* and the verdict is back */
} CudaTrainSlot;

/* What belongs to an NnTraining here: its plan's device_state. */
typedef struct CudaTraining
{
	CudaDevice *device;
	void *stream;
	KernelType type;        /* of values that are not wide */
	const KernelStep *step; /* on the GPU, as all that follows: of the pass */
	char *sent;             /* what a slot holds, of the iteration that runs */
	float *work;            /* of one step: cuda_train_work() bytes at least */
	void *staged[2];        /* operands of a convolution, made dense and padded */
	void *result;           /* what it makes */
	void *workspace;        /* its own */
	void *fed;              /* an input in floats */
	void *filters;          /* of all parameters */
	KernelParam *params_on_card;
	KernelPiece *pieces_on_card;
	KernelVerdict *verdict;

	/* on the host */
	CudaBlock block;      /* all of the above, arena and arrays */
	CudaTrainConv *convs; /* one a node */
	CudaTrainPlan *plans; /* of which they are */
	int nplans;
	KernelParam *params; /* one a parameter */
	KernelPiece *pieces; /* of all parameters */
	int npieces;
	KernelStep *pinned;  /* what `step` becomes */
	KernelVerdict *seen; /* pinned: what was last read of `verdict` */
	bool stale;          /* parameters were put: filters are not theirs */
	CudaTrainSlot slots[NN_STARTS];
	int next,  /* slot of the next start */
		nopen; /* slots before it that are not finished */
	int runs;  /* iterations that were launched: 0, 1, or 2 for more */
	cudaGraphExec_t graph;
} CudaTraining;

static inline CudaTraining *
cuda_training(const NnOperands *op)
{
	return op->training->plan.device_state;
}

/* A map as kernels see it; without data if there is none. */
static inline KernelMap
cuda_train_map(const CudaTraining *state, const NnMap *map)
{
	return kernel_map(map->data, map->wide ? KERNEL_F32 : state->type, (int) map->pitch);
}

static inline KernelMap
cuda_map(const NnOperands *op, const NnMap *map)
{
	return cuda_train_map(cuda_training(op), map);
}

/* Where the gradient of input k goes. */
static inline KernelGradient
cuda_gradient(const NnOperands *op, int k)
{
	KernelGradient gradient = { .add = op->in_mode[k] == NN_GRAD_ACCUMULATE };

	if (op->in_mode[k] != NN_GRAD_IGNORE)
		gradient.map = cuda_map(op, &op->din[k]);
	return gradient;
}

static inline NnStatus
cuda_launched(NnError *error, int result)
{
	return cuda_check(error, (cudaError_t) result, "run a kernel");
}

/* ---- Convolutions (cuda_train_conv.c) ------------------------------------ */

/* Bytes of buffers that steps share: the most that any of them wants. */
typedef struct CudaTrainBuffers
{
	size_t staged[2], result, workspace, work;
} CudaTrainBuffers;

/* What all steps want, but workspace, from shapes alone. */
extern void cuda_train_want(const NnTraining *training, CudaTrainBuffers *wanted);
/* Opens those of all steps; adds the workspace that they want. */
extern NnStatus cuda_train_open_convs(CudaTraining *state, const NnTraining *training,
									  CudaTrainBuffers *wanted, NnError *error);
/* Runs each once, before anything counts: cuda_conv_prove. */
extern NnStatus cuda_train_prove_convs(CudaTraining *state, size_t workspace, NnError *error);
extern void cuda_train_close_convs(CudaTraining *state);

/* ---- What convolutions have besides (cuda_train_latent.c) ---------------- */

/*
 * The result, in `made`, to where it belongs, with the latent's part and the
 * bias.
 */
extern NnStatus cuda_train_finish_conv(const NnOperands *op, const KernelMap *made, NnError *error);
/*
 * Whether a convolution adds its bias: an instance norm that alone reads the
 * result takes it away again.
 */
extern bool cuda_train_adds_bias(const NnGraph *g, int node);
/* The gradient of the bias; those of the latent and its weights; if wanted. */
extern NnStatus cuda_train_bias_backward(const NnOperands *op, NnError *error);
extern NnStatus cuda_train_latent_backward(const NnOperands *op, NnError *error);
extern size_t cuda_train_latent_work(const NnPlan *plan, const NnNode *node); /* bytes */

/* ---- Operators (cuda_train_ops.c) ---------------------------------------- */

extern const NnOpImpl cuda_train_operators[NN_OPS];

/* Bytes of `work` that a node's steps want. */
extern size_t cuda_train_work(const NnPlan *plan, int node);

#define CUDA_TRAIN_DECLARE(OP, name) \
	NN_DECLARE_STEPS(cuda_train_##name, cuda_train_##name##_backward)
NN_OPERATORS(CUDA_TRAIN_DECLARE, CUDA_TRAIN_DECLARE, NN_DECLARE_NONE)

/* ---- Memory (cuda_train_memory.c) ---------------------------------------- */

extern size_t cuda_train_bytes(const NnDevice *base, const NnTraining *training);
extern NnStatus cuda_train_prepare(NnDevice *base, NnTraining *training, NnError *error);
extern void cuda_train_release(NnDevice *base, NnTraining *training);

static inline int
cuda_train_passes(const NnTraining *training)
{
	return training->passes > 0 ? training->passes : 1;
}

extern size_t cuda_train_slot_bytes(const NnTraining *training);
extern size_t cuda_train_feeds_at(const NnTraining *training); /* in a slot */
/* What an iteration's KernelStep is; adam may be NULL. */
extern KernelStep cuda_train_step_of(const NnTraining *training, const NnAdam *adam, double step,
									 double root);
extern NnStatus cuda_train_clear_verdict(const CudaTraining *state, NnError *error);
extern NnStatus cuda_train_clear_gradients(const NnTraining *training, NnError *error);
/* Waits for all that is queued. */
extern NnStatus cuda_train_drain(const CudaTraining *state, NnError *error);
/* The arguments of the update; without a step, of the filters alone. */
extern KernelUpdate cuda_train_update_of(const NnTraining *training, bool step);
/* After weights were put: filters as they are. */
extern NnStatus cuda_train_renew_filters(CudaTraining *state, const NnTraining *training,
										 NnError *error);

/* ---- Iterations ahead (cuda_train_run.c) --------------------------------- */

extern const NnTrainAhead cuda_train_ahead;

/* ---- Weights for inference (cuda_pack.c) --------------------------------- */

extern NnStatus cuda_repack(NnDevice *base, const NnTraining *training, NnArray array,
							const NnGraph *graph, void *packed, NnError *error);

/* ---- Snapshots (cuda_train_snapshot.c) ----------------------------------- */

extern const NnTrainSnapshots cuda_train_snapshots;

/* ---- The device (cuda_train.c) ------------------------------------------- */

extern const NnTrainDevice cuda_train_device;

#endif /* BICYCLE_NN_CUDA_TRAIN_H */
