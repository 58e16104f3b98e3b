/*
 * backward.c
 *	  From a graph, losses and the nodes to be trained to the list of steps that
 *	  computes their gradients.
 *
 * A pass walks the graph twice. Forwards, to learn which values a trained
 * parameter stands behind: only their gradients are wanted. Backwards, to
 * append a step for each node that such a gradient reaches.
 *
 * R1 Gradients are values, with the same views as the values they belong to, so
 *    the planner gives them memory while they live; each pass has its own.
 * R2 The first step that reaches a gradient overwrites it, later ones add;
 *    where the first would write a part only (a view), the whole is zeroed
 *    before.
 * R3 The schedule owns its steps, the graph the values; one thread builds both.
 */
#include "nn/schedule.h"

#include "common/invariant.h"

#include <stdlib.h>
#include <string.h>

void
nn_schedule_init(NnSchedule *s, NnGraph *graph)
{
	memset(s, 0, sizeof(*s));
	s->graph = graph;
	s->trained = calloc(graph->params->n + 1, sizeof(bool));
	s->running = calloc(graph->params->n + 1, sizeof(bool));
	if (!s->trained || !s->running)
		nn_graph_fail(graph, NN_ENOMEM, "out of memory");
}

void
nn_schedule_free(NnSchedule *s)
{
	free(s->steps);
	free(s->trained);
	free(s->running);
	memset(s, 0, sizeof(*s));
}

/* A step without gradients, valid until the next one; NULL on error. */
static NnStep *
append_step(NnSchedule *s, NnStepKind kind, int node)
{
	NnStep *step;

	if (s->graph->failed)
		return NULL;
	if (s->nsteps == s->capacity)
	{
		int wanted = s->capacity ? s->capacity * 2 : 128;
		NnStep *bigger = realloc(s->steps, wanted * sizeof(NnStep));

		if (!bigger)
		{
			nn_graph_fail(s->graph, NN_ENOMEM, "out of memory");
			return NULL;
		}
		s->steps = bigger;
		s->capacity = wanted;
	}
	step = &s->steps[s->nsteps++];
	*step = (NnStep){
		.kind = kind, .node = node, .dout = { -1, -1 }, .din = { -1, -1, -1 }, .zero = -1
	};
	return step;
}

void
nn_schedule_forward(NnSchedule *s, int first, int end)
{
	for (int i = first; i < end; i++)
	{
		INVARIANT(!nn_ops[s->graph->nodes[i].op].inference);
		if (!s->graph->failed && s->graph->nodes[i].op != NN_OP_INPUT)
			append_step(s, NN_STEP_FORWARD, i);
	}
}

void
nn_schedule_statistics(NnSchedule *s, int first, int end)
{
	for (int i = first; i < end; i++)
	{
		const NnNode *node = &s->graph->nodes[i];
		NnStep *step = !s->graph->failed && nn_norm_of(node) == NN_NORM_BATCH
						   ? append_step(s, NN_STEP_STATISTICS, i)
						   : NULL;

		if (step)
		{
			step->first = !s->running[node->norm.mean];
			s->running[node->norm.mean] = s->running[node->norm.var] = true;
		}
	}
}

/* ---- What steps read ----------------------------------------------------- */

/* Whether an operator's backward step reads its inputs again. */
static bool
rereads_inputs(const NnNode *node, const NnStep *step)
{
	switch (nn_ops[node->op].rereads)
	{
		case NN_REREADS_ALWAYS:
			return true;
		case NN_REREADS_FOR_WEIGHTS:
			return step->weight_mode != NN_GRAD_IGNORE ||
				   (node->in[1] >= 0 && step->in_mode[1] != NN_GRAD_IGNORE);
		case NN_REREADS_NOTHING:
			break;
	}
	return false;
}

int
nn_step_touches(const NnGraph *g, const NnStep *step, int *touched)
{
	const NnNode *node = &g->nodes[step->node];
	bool forward = step->kind == NN_STEP_FORWARD, backward = step->kind == NN_STEP_BACKWARD;
	int n = 0;

	if (step->kind == NN_STEP_ZERO)
	{
		touched[n++] = step->zero;
		return n;
	}
	for (int k = 0; k < NN_MAX_IN; k++)
	{
		if (node->in[k] >= 0 && (forward || (backward && rereads_inputs(node, step))))
			touched[n++] = node->in[k];
		if (step->din[k] >= 0)
			touched[n++] = step->din[k];
	}
	for (int k = 0; k < 2; k++)
	{
		if (node->out[k] >= 0 && forward)
			touched[n++] = node->out[k];
		if (step->dout[k] >= 0)
			touched[n++] = step->dout[k];
	}
	if (node->stats >= 0)
		touched[n++] = node->stats;
	INVARIANT(n <= NN_MAX_TOUCHED);
	return n;
}

/* ---- A pass -------------------------------------------------------------- */

/* One pass in the making.  All arrays are by value of the forward graph. */
typedef struct Pass
{
	NnSchedule *s;
	int nvalues;   /* of the forward graph */
	bool *needed;  /* roots: a trained parameter stands behind it */
	bool *reached; /* roots: its gradient has been begun */
	int *gradient; /* the value that holds it, -1 = none yet */
	int *readers;  /* nodes that read the value itself, not its root or another view */
} Pass;

static bool
trains_parameters(const Pass *p, int node, const bool *trains)
{
	return trains[node] && p->s->graph->nodes[node].weight >= 0;
}

static bool
node_needed(const Pass *p, int i, const bool *trains)
{
	const NnNode *node = &p->s->graph->nodes[i];
	bool needed = trains_parameters(p, i, trains);

	for (int k = 0; k < NN_MAX_IN; k++)
		if (node->in[k] >= 0 && p->needed[nn_value_root(p->s->graph, node->in[k])])
			needed = true;
	return needed;
}

static void
find_needed(Pass *p, const bool *trains)
{
	const NnGraph *g = p->s->graph;

	for (int i = 0; i < g->nnodes; i++)
	{
		const NnNode *node = &g->nodes[i];

		for (int k = 0; k < NN_MAX_IN; k++)
			if (node->in[k] >= 0)
				p->readers[node->in[k]]++;
		if (node_needed(p, i, trains) && !nn_ops[node->op].loss)
			for (int k = 0; k < 2; k++)
				if (node->out[k] >= 0)
					p->needed[nn_value_root(g, node->out[k])] = true;
	}
}

/*
 * The value that holds the gradient of `value`, made if it is not there: a view
 * of its root's gradient, as the value is of its root.
 */
static int
gradient_of(Pass *p, int value)
{
	NnGraph *g = p->s->graph;
	NnValue v = g->values[value];
	int parent;

	if (p->gradient[value] >= 0 || g->failed)
		return p->gradient[value];
	if (v.view_of < 0)
	{
		p->gradient[value] = nn_value(g, v.shape, v.name);
		if (v.wide)
			nn_widen(g, p->gradient[value]);
	}
	else
	{
		parent = gradient_of(p, v.view_of);
		if (v.shape.n == g->values[v.view_of].shape.n)
			p->gradient[value] = nn_view(g, parent, v.view_c0, v.shape.c, v.name);
		else
			p->gradient[value] = nn_batch_view(g, parent, v.view_n0, v.shape.n, v.name);
	}
	return p->gradient[value];
}

/* How the next step writes the gradient; zeroes the whole before a part. */
static NnGradMode
next_mode(Pass *p, int value)
{
	int root = nn_value_root(p->s->graph, value);
	NnStep *zero;

	if (p->reached[root])
		return NN_GRAD_ACCUMULATE;
	p->reached[root] = true;
	if (root == value)
		return NN_GRAD_OVERWRITE;
	zero = append_step(p->s, NN_STEP_ZERO, 0);
	if (zero)
		zero->zero = gradient_of(p, root);
	return NN_GRAD_ACCUMULATE;
}

/*
 * A constant that is the same for a whole channel vanishes in a norm over that
 * channel: the gradient of such a bias is 0, and what comes out of a sum is
 * rounding noise, from which Adam would make full steps.
 */
static bool
bias_vanishes(const Pass *p, const NnNode *node)
{
	const NnGraph *g = p->s->graph;
	int out = node->out[0];

	if (g->values[out].view_of >= 0 || p->readers[out] != 1)
		return false;
	for (int i = 0; i < g->nnodes; i++)
		if (g->nodes[i].in[0] == out)
			return nn_norm_of(&g->nodes[i]) != NN_NORM_NONE;
	return false;
}

static NnGradMode
parameter_mode(NnSchedule *s, int param)
{
	bool added;

	if (param < 0)
		return NN_GRAD_IGNORE;
	added = s->adds || s->trained[param];
	s->trained[param] = true;
	return added ? NN_GRAD_ACCUMULATE : NN_GRAD_OVERWRITE;
}

static void
append_backward(Pass *p, int i, const bool *trains)
{
	NnGraph *g = p->s->graph;
	NnStep made = { .dout = { -1, -1 }, .din = { -1, -1, -1 } };
	NnStep *step;

	for (int k = 0; k < 2; k++)
	{
		int out = g->nodes[i].out[k];

		if (out >= 0 && !nn_ops[g->nodes[i].op].loss && p->reached[nn_value_root(g, out)])
			made.dout[k] = gradient_of(p, out);
	}
	for (int k = 0; k < NN_MAX_IN; k++)
	{
		int in = g->nodes[i].in[k];

		if (in < 0 || g->failed || !p->needed[nn_value_root(g, in)])
			continue;
		made.in_mode[k] = next_mode(p, in);
		made.din[k] = gradient_of(p, in);
	}
	step = append_step(p->s, NN_STEP_BACKWARD, i);
	if (!step)
		return;
	memcpy(step->dout, made.dout, sizeof(made.dout));
	memcpy(step->din, made.din, sizeof(made.din));
	memcpy(step->in_mode, made.in_mode, sizeof(made.in_mode));
	if (trains_parameters(p, i, trains))
	{
		step->weight_mode = parameter_mode(p->s, g->nodes[i].weight);
		if (nn_ops[g->nodes[i].op].weights == 0 || !bias_vanishes(p, &g->nodes[i]))
			step->bias_mode = parameter_mode(p->s, g->nodes[i].bias);
	}
}

static bool
gradient_arrives(const Pass *p, const NnNode *node)
{
	for (int k = 0; k < 2; k++)
		if (node->out[k] >= 0 && p->reached[nn_value_root(p->s->graph, node->out[k])])
			return true;
	return false;
}

void
nn_schedule_backward(NnSchedule *s, const bool *starts, const bool *trains)
{
	NnGraph *g = s->graph;
	Pass p = { .s = s, .nvalues = g->nvalues };

	if (g->failed)
		return;
	p.needed = calloc(p.nvalues + 1, sizeof(bool));
	p.reached = calloc(p.nvalues + 1, sizeof(bool));
	p.gradient = malloc((p.nvalues + 1) * sizeof(int));
	p.readers = calloc(p.nvalues + 1, sizeof(int));
	if (p.needed && p.reached && p.gradient && p.readers)
	{
		for (int i = 0; i < p.nvalues; i++)
			p.gradient[i] = -1;
		find_needed(&p, trains);
		for (int i = g->nnodes - 1; i >= 0; i--)
		{
			bool begins =
				nn_ops[g->nodes[i].op].loss ? starts[i] : gradient_arrives(&p, &g->nodes[i]);

			if (begins && node_needed(&p, i, trains))
				append_backward(&p, i, trains);
		}
	}
	else
		nn_graph_fail(g, NN_ENOMEM, "out of memory");
	free(p.needed);
	free(p.reached);
	free(p.gradient);
	free(p.readers);
}
