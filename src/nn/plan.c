/*
 * plan.c
 *	  Where each value of a graph lives: one arena, in which buffers that are
 *	  never alive together share memory.
 *
 * A buffer is a value that is not a view, together with all views of it. It
 * lives from the first node that writes any of them to the last that reads any;
 * in training steps count, forward and backward ones.
 *
 * R1 Two buffers that live together share no memory. Operands and results of a
 *    node live together: no operator works in place.
 *    Where a device makes one of a convolution and the node that alone reads
 *    it, those of both.
 * R2 Inputs live from the start, as a device may copy them in before the first
 *    node; outputs to the end, as it copies them out after the last.
 *
 * Buffers are placed largest first, each at the lowest offset where it meets no
 * placed buffer of an overlapping life. A graph has some hundred values, so the
 * quadratic search costs nothing next to the preparation of its kernels.
 */
#include "common/invariant.h"
#include "nn/device.h"
#include "nn/schedule.h"

#include <stdlib.h>

#define ALIGN_ELEMENTS 32 /* 64 bytes of the smallest activation type, bfloat16 */

typedef struct Buffer
{
	int value;
	int first, /* nodes or steps between which it lives, both included */
		last;
	size_t size, /* elements, rounded up */
		offset;
} Buffer;

/* Elements that a number of the value takes. */
static size_t
width_of(const NnPlan *plan, int value)
{
	return plan->wide > 0 && nn_is_wide(plan->graph, value) ? (size_t) plan->wide : 1;
}

/* Elements of a value, rounded up to the alignment; SIZE_MAX: overflow. */
static size_t
buffer_size(const NnPlan *plan, int value)
{
	NnShape s = plan->graph->values[value].shape;
	size_t size = nn_mul(nn_mul(nn_mul(nn_mul(s.n, s.h), s.w), s.c), width_of(plan, value));

	if (size > SIZE_MAX - ALIGN_ELEMENTS)
		return SIZE_MAX;
	return (size + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
}

static void
extend_life(const NnGraph *g, Buffer *buffers, int value, int node)
{
	Buffer *b;

	if (value < 0)
		return;
	b = &buffers[nn_value_root(g, value)];
	if (b->first < 0 || node < b->first)
		b->first = node;
	if (node > b->last)
		b->last = node;
}

/* Whether the device makes one of the node and the next. */
static bool
may_join(const NnPlan *plan, int node)
{
	const NnGraph *g = plan->graph;

	return plan->device && plan->device->joins && nn_ops[g->nodes[node].op].filters &&
		   nn_read_by_next_only(g, node) && plan->device->joins(plan, node);
}

/* The nodes in order, as inference runs them. */
static void
walk_nodes(const NnPlan *plan, Buffer *buffers)
{
	const NnGraph *g = plan->graph;

	for (int i = 0; i < g->nnodes; i++)
	{
		const NnNode *node = &g->nodes[i];

		for (int k = 0; k < NN_MAX_IN; k++)
			extend_life(g, buffers, node->in[k], may_join(plan, i) ? i + 1 : i);
		for (int k = 0; k < 2; k++)
			extend_life(g, buffers, node->out[k], i);
		extend_life(g, buffers, node->stats, i);
	}
}

/* The steps of a schedule, forward and backward, in order. */
static void
walk_steps(const NnSchedule *schedule, Buffer *buffers)
{
	for (int i = 0; i < schedule->nsteps; i++)
	{
		int touched[NN_MAX_TOUCHED];
		int n = nn_step_touches(schedule->graph, &schedule->steps[i], touched);

		for (int k = 0; k < n; k++)
			extend_life(schedule->graph, buffers, touched[k], i);
	}
}

/* One entry a value; views, and what nothing touches, keep first = -1. */
static void
find_lives(const NnPlan *plan, Buffer *buffers)
{
	const NnGraph *g = plan->graph;
	const NnSchedule *schedule = plan->schedule;

	for (int i = 0; i < g->nvalues; i++)
		buffers[i] = (Buffer){ .value = i, .first = -1, .last = -1, .size = buffer_size(plan, i) };
	if (schedule)
		walk_steps(schedule, buffers);
	else
		walk_nodes(plan, buffers);
	for (int i = 0; i < g->nvalues; i++)
	{
		if (g->values[i].input)
			extend_life(g, buffers, i, 0);
		if (g->values[i].output)
			extend_life(g, buffers, i, schedule ? schedule->nsteps : g->nnodes);
	}
}

static int
larger_first(const void *a, const void *b)
{
	const Buffer *x = a, *y = b;

	if (x->size != y->size)
		return x->size > y->size ? -1 : 1;
	return x->value - y->value;
}

static bool
alive_together(const Buffer *a, const Buffer *b)
{
	return a->first <= b->last && b->first <= a->last;
}

/* The lowest offset free of buffers that live with `b`; SIZE_MAX: none. */
static size_t
lowest_offset(const Buffer *b, const Buffer *placed, int nplaced)
{
	size_t offset = 0;
	bool moved = true;

	while (moved)
	{
		moved = false;
		for (int i = 0; i < nplaced; i++)
		{
			const Buffer *p = &placed[i];

			if (alive_together(b, p) && offset < p->offset + p->size &&
				p->offset < offset + b->size)
			{
				offset = p->offset + p->size;
				moved = true;
				if (offset > SIZE_MAX - b->size)
					return SIZE_MAX;
			}
		}
	}
	return offset;
}

/* Moves the entries of buffers that live to the front; their count. */
static int
keep_live(Buffer *buffers, int n)
{
	int live = 0;

	for (int i = 0; i < n; i++)
		if (buffers[i].first >= 0)
			buffers[live++] = buffers[i];
	return live;
}

/* R1, recounted. */
static bool
nothing_shared(const Buffer *buffers, int n)
{
	for (int i = 0; i < n; i++)
		for (int j = 0; j < i; j++)
			if (alive_together(&buffers[i], &buffers[j]) &&
				buffers[i].offset < buffers[j].offset + buffers[j].size &&
				buffers[j].offset < buffers[i].offset + buffers[i].size)
				return false;
	return true;
}

/* Returns the arena's elements, SIZE_MAX if they cannot be counted. */
static size_t
place_buffers(Buffer *buffers, int n)
{
	size_t end = 0;

	qsort(buffers, n, sizeof(Buffer), larger_first);
	for (int i = 0; i < n; i++)
	{
		Buffer *b = &buffers[i];

		b->offset = b->size == SIZE_MAX ? SIZE_MAX : lowest_offset(b, buffers, i);
		if (b->offset == SIZE_MAX)
			return SIZE_MAX;
		if (b->offset + b->size > end)
			end = b->offset + b->size;
	}
	INVARIANT(!invariant_checking() || nothing_shared(buffers, n));
	return end;
}

/* All values' offsets and pitches, from the places of the buffers. */
static void
spread_offsets(NnPlan *plan, const Buffer *buffers, int n)
{
	const NnGraph *g = plan->graph;

	for (int i = 0; i < n; i++)
		plan->offset[buffers[i].value] = buffers[i].offset;
	for (int i = 0; i < g->nvalues; i++)
	{
		int root = nn_value_root(g, i);
		NnShape shape = g->values[root].shape;
		size_t c0 = 0, n0 = 0;

		for (int v = i; v != root; v = g->values[v].view_of)
		{
			c0 += g->values[v].view_c0;
			n0 += g->values[v].view_n0;
		}
		plan->offset[i] =
			plan->offset[root] + (n0 * shape.h * shape.w * shape.c + c0) * width_of(plan, root);
		plan->pitch[i] = shape.c;
	}
}

NnStatus
nn_plan_memory(NnPlan *plan, NnError *error)
{
	const NnGraph *g = plan->graph;
	size_t n = g->nvalues > 0 ? (size_t) g->nvalues : 1;
	Buffer *buffers;
	int live;

	if (g->failed)
	{
		if (error)
			*error = g->error;
		return g->error.code;
	}
	buffers = calloc(n, sizeof(Buffer));
	plan->offset = calloc(n, sizeof(size_t));
	plan->pitch = calloc(n, sizeof(int));
	if (!buffers || !plan->offset || !plan->pitch)
	{
		free(buffers);
		nn_plan_free(plan);
		return nn_no_memory(error, n * sizeof(Buffer));
	}
	find_lives(plan, buffers);
	live = keep_live(buffers, g->nvalues);
	plan->arena_elements = place_buffers(buffers, live);
	if (plan->arena_elements == SIZE_MAX)
	{
		free(buffers);
		nn_plan_free(plan);
		return nn_no_memory(error, SIZE_MAX);
	}
	spread_offsets(plan, buffers, live);
	free(buffers);
	return NN_OK;
}

void
nn_plan_free(NnPlan *plan)
{
	free(plan->offset);
	free(plan->pitch);
	plan->offset = NULL;
	plan->pitch = NULL;
}
