/*
 * graph.h
 *	  Graphs: what is computed.
 *
 * A graph is a list of values and a list of nodes in execution order; ids are
 * indices. It is built for one batch size, is never changed after
 * nn_plan_memory, and owns its arrays and names.
 */
#ifndef BICYCLE_NN_GRAPH_H
#define BICYCLE_NN_GRAPH_H

#include "nn/nn_error.h"
#include "nn/ops.h"

typedef struct NnValue
{
	NnShape shape;
	/* channels [view_c0, view_c0 + c) of that value; -1: an own buffer */
	int view_of;
	int view_c0;
	int view_n0; /* and images [view_n0, view_n0 + n) */
	bool input;  /* the caller's to bind */
	bool output; /* kept to the end of the plan */
	/* of an own buffer: numbers that a plan in half precision keeps in fp32 */
	bool wide;
	bool bytes;       /* an input or output that is bound as bytes, as a rule */
	const char *name; /* for errors and dumps; owned by the graph, as a node's */
} NnValue;

/* R1 `op` says what of the union is valid: who reads a member asks it. */
typedef struct NnNode
{
	NnOp op;
	int in[NN_MAX_IN];   /* value ids, -1 = none.  CONV: image, latent (N,1,1,nz) */
	int out[NN_MAX_OUT]; /* value ids, -1 = none.  NORM_ACT may have two */
	/* NORM_ACT in training: (N or 1,1,1,2C) of mean, biased variance; or -1 */
	int stats;
	int weight, bias; /* parameter indices, -1 = none */
	union
	{
		NnConvArgs conv; /* CONV, CONVT */
		NnPoolArgs pool;
		NnScaleArgs scale;
		NnUpsampleArgs upsample;
		NnNormArgs norm;
		NnLossArgs loss; /* all losses */
		NnAugmentArgs augment;
	};
	const char *name;
} NnNode;

typedef struct NnGraph
{
	NnValue *values;
	int nvalues, values_capacity;
	NnNode *nodes;
	int nnodes, nodes_capacity;
	const NnParams *params; /* not owned */
	/* norms use and keep the batch's statistics; set before building */
	bool training;
	bool failed; /* an allocation or a shape rule failed; checked once, by nn_plan_memory */
	NnError error;
} NnGraph;

static inline bool
nn_same_image(NnShape a, NnShape b)
{
	return a.h == b.h && a.w == b.w && a.c == b.c;
}

/* The norm that a node is; none of another operator. */
static inline NnNorm
nn_norm_of(const NnNode *node)
{
	return node->op == NN_OP_NORM_ACT ? node->norm.kind : NN_NORM_NONE;
}

extern void nn_graph_init(NnGraph *g, const NnParams *params);
extern void nn_graph_free(NnGraph *g);

/*
 * Builders: append a value or a node and return the id of (the first of) its
 * output value(s). They check shapes and remember the first error; after it
 * they do nothing and return -1, so that a network is written without a check
 * at each line. Names are copied.
 */
extern int nn_value(NnGraph *g, NnShape shape, const char *name);
extern int nn_view(NnGraph *g, int of, int c0, int c, const char *name);
extern int nn_batch_view(NnGraph *g, int of, int n0, int n, const char *name);

/*
 * Appends a node that has operands and parameters, and outputs where the caller
 * made them, by the facts of its operator. Returns the id of its first output.
 */
extern int nn_append_node(NnGraph *g, const NnOpInfo *info, NnNode node, const char *name);

/* Marks a value, with what it is a part of, as wide; and asks. */
extern void nn_widen(NnGraph *g, int value);
extern bool nn_is_wide(const NnGraph *g, int value);

/* The value whose buffer this one is, or is a part of. */
extern int nn_value_root(const NnGraph *g, int value);

/* Whether only the next node reads its result, which need not be a value. */
extern bool nn_read_by_next_only(const NnGraph *g, int node);

/* Marks a result: it is kept to the end of the plan and may be bound. */
extern void nn_output(NnGraph *g, int value);

/* Remembers an error in the graph unless it has one; for nets.c. */
extern void nn_graph_fail(NnGraph *g, NnStatus code, const char *message, ...)
	__attribute__((format(printf, 3, 4)));

#endif /* BICYCLE_NN_GRAPH_H */
