/*
 * Proves that plans of forward and backward steps are sound, for all methods
 * and options: no two buffers that live at the same time overlap, all are
 * aligned and lie in the arena, views lie in the buffers that they are views
 * of; and what is wide is what half precision would harm.
 *
 * What lives when is said here by the definitions of operators and steps, not
 * by the code that the planner asks.
 */
#include "nn_fixture.h"
#include "nn/params.h"
#include "nn/fit_private.h"

#define RANDOM_PLANS 300

static NnError error;

static size_t
count_of(const NnGraph *g, int value)
{
	NnShape s = g->values[value].shape;

	return (size_t) s.n * s.h * s.w * s.c;
}

/* Elements of a number of the value. */
static size_t
width(const NnPlan *plan, int value)
{
	return plan->wide > 0 && plan->graph->values[nn_value_root(plan->graph, value)].wide
			   ? (size_t) plan->wide
			   : 1;
}

static size_t
size_of(const NnPlan *plan, int value)
{
	return count_of(plan->graph, value) * width(plan, value);
}

/*
 * What a step reads or writes, by its definition rather than by
 * nn_step_touches: all of the node's values count in forward, and all gradients
 * in backward.
 */
static bool
touches(const NnGraph *g, const NnStep *step, int root)
{
	const NnNode *node = &g->nodes[step->node];
	int values[16];
	int n = 0;

	if (step->kind == NN_STEP_ZERO)
		values[n++] = step->zero;
	else if (step->kind == NN_STEP_FORWARD)
	{
		for (int k = 0; k < NN_MAX_IN; k++)
			values[n++] = node->in[k];
		values[n++] = node->out[0];
		values[n++] = node->out[1];
	}
	else if (step->kind == NN_STEP_BACKWARD)
	{
		for (int k = 0; k < NN_MAX_IN; k++)
			values[n++] = step->din[k];
		bool reads = node->op == NN_OP_NORM_ACT || node->op == NN_OP_REPARAM ||
					 node->op == NN_OP_GAN_LOSS || node->op == NN_OP_L1_LOSS ||
					 node->op == NN_OP_KL_LOSS || node->op == NN_OP_AUGMENT ||
					 step->weight_mode != NN_GRAD_IGNORE;

		values[n++] = step->dout[0];
		values[n++] = step->dout[1];
		for (int k = 0; reads && k < NN_MAX_IN; k++)
			values[n++] = node->in[k];
		/* a latent goes through an activation */
		if (node->op == NN_OP_CONV && step->in_mode[1] != NN_GRAD_IGNORE)
			values[n++] = node->in[1];
	}
	if (step->kind != NN_STEP_ZERO)
		values[n++] = node->stats;
	for (int k = 0; k < n; k++)
		if (values[k] >= 0 && nn_value_root(g, values[k]) == root)
			return true;
	return false;
}

/*
 * Steps from which a value is there, and to which: inputs are copied in before
 * the first and losses fetched after the last.
 */
static void
extend_by_ends(const NnPlan *plan, int *first, int *last)
{
	const NnGraph *g = plan->graph;

	for (int i = 0; i < g->nnodes; i++)
		if (g->nodes[i].op == NN_OP_INPUT)
		{
			int root = nn_value_root(g, g->nodes[i].out[0]);

			last[root] = first[root] < 0 ? 0 : last[root];
			first[root] = 0;
		}
	for (int v = 0; v < g->nvalues; v++)
		if (g->values[v].output)
			last[nn_value_root(g, v)] = plan->schedule->nsteps;
}

/* Whether buffers are aligned and in the arena, and views in their buffers. */
static bool
places_are_sound(const NnPlan *plan)
{
	const NnGraph *g = plan->graph;

	for (int v = 0; v < g->nvalues; v++)
	{
		int root = nn_value_root(g, v);
		NnShape s = g->values[v].shape;
		size_t end = plan->offset[v] +
					 (((size_t) s.n * s.h * s.w - 1) * plan->pitch[v] + s.c) * width(plan, v);

		if (plan->offset[root] % 32 == 0 && plan->offset[v] >= plan->offset[root] &&
			end <= plan->offset[root] + size_of(plan, root) &&
			plan->offset[root] + size_of(plan, root) <= plan->arena_elements)
			continue;
		diag("\"%s\" (%d) is misplaced", g->values[v].name, v);
		return false;
	}
	return true;
}

/*
 * Whether no step between a value's first and last use writes into its place;
 * values are compared pair by pair.
 */
static bool
plan_is_sound(const NnPlan *plan)
{
	const NnGraph *g = plan->graph;
	const NnSchedule *s = plan->schedule;
	int *first = malloc((g->nvalues + 1) * sizeof(int)),
		*last = malloc((g->nvalues + 1) * sizeof(int));
	bool sound = places_are_sound(plan);

	for (int v = 0; v < g->nvalues; v++)
	{
		first[v] = last[v] = -1;
		for (int i = 0; g->values[v].view_of < 0 && i < s->nsteps; i++)
			if (touches(g, &s->steps[i], v))
			{
				first[v] = first[v] < 0 ? i : first[v];
				last[v] = i;
			}
	}
	extend_by_ends(plan, first, last);
	for (int v = 0; sound && v < g->nvalues; v++)
		for (int w = 0; sound && w < v; w++)
		{
			bool together =
				first[v] >= 0 && first[w] >= 0 && first[v] <= last[w] && first[w] <= last[v];

			if (together && plan->offset[v] < plan->offset[w] + size_of(plan, w) &&
				plan->offset[w] < plan->offset[v] + size_of(plan, v))
			{
				diag("\"%s\" (%d) and \"%s\" (%d) overlap", g->values[v].name, v, g->values[w].name,
					 w);
				sound = false;
			}
		}
	free(first);
	free(last);
	return sound;
}

/*
 * What half precision keeps in fp32: what few numbers are, and what a long sum
 * gives or begins with. By definitions, not by what builders have marked.
 */
static bool
is_to_be_wide(const NnGraph *g, int root)
{
	for (int i = 0; i < g->nnodes; i++)
	{
		const NnNode *node = &g->nodes[i];
		bool all =
				 node->op == NN_OP_LINEAR || node->op == NN_OP_REPARAM || node->op == NN_OP_KL_LOSS,
			 loss = node->op == NN_OP_GAN_LOSS || node->op == NN_OP_L1_LOSS;

		if (node->stats >= 0 && nn_value_root(g, node->stats) == root)
			return true;
		if ((all || loss) && nn_value_root(g, node->out[0]) == root)
			return true;
		if ((node->op == NN_OP_CONV || node->op == NN_OP_AUGMENT) && node->in[1] >= 0 &&
			nn_value_root(g, node->in[1]) == root)
			return true;
		for (int k = 0; all && k < NN_MAX_IN; k++)
			if (node->in[k] >= 0 && nn_value_root(g, node->in[k]) == root)
				return true;
	}
	return false;
}

/* Whether values are wide that are to be, and gradients as what they are of. */
static bool
widths_are_right(const NnGraph *g, const NnSchedule *s)
{
	bool right = true;

	for (int i = 0; i < g->nnodes; i++)
		for (int k = 0; k < NN_MAX_IN; k++)
			if (g->nodes[i].in[k] >= 0)
			{
				int root = nn_value_root(g, g->nodes[i].in[k]);

				right &= g->values[root].wide == is_to_be_wide(g, root);
			}
	for (int i = 0; i < s->nsteps; i++)
	{
		const NnStep *step = &s->steps[i];
		const NnNode *node = &g->nodes[step->node];

		for (int k = 0; step->kind == NN_STEP_BACKWARD && k < NN_MAX_IN; k++)
			right &= step->din[k] < 0 || nn_is_wide(g, step->din[k]) == nn_is_wide(g, node->in[k]);
		for (int k = 0; step->kind == NN_STEP_BACKWARD && k < NN_MAX_OUT; k++)
			right &=
				step->dout[k] < 0 || nn_is_wide(g, step->dout[k]) == nn_is_wide(g, node->out[k]);
	}
	if (!right)
		diag("a value is wide that should not be, or the other way round");
	return right;
}

/*
 * Whether the plan of an iteration under these options is sound, also with wide
 * values of two elements; what its values take in all, 0 if the options are
 * refused.
 */
static bool
plan_options(const char *json, size_t *arena, size_t *values)
{
	NnConfig config;
	NnTrainOptions options;
	NnParams params = { 0 };
	NnIteration it = { 0 };
	NnPlan plan = { .graph = &it.graph };
	bool good =
		nn_train_options_parse(&config, &options, json, strlen(json), &error) == NN_OK &&
		nn_params_of(&config, nn_train_networks(&config, &options), &params, &error) == NN_OK;

	*values = 0;
	if (good)
		nn_iteration_build(&it, &config, &options, &params);
	plan.schedule = &it.schedule;
	for (int v = 0; good && v < it.graph.nvalues; v++)
		if (it.graph.values[v].view_of < 0)
			*values += count_of(&it.graph, v);
	good = good && widths_are_right(&it.graph, &it.schedule);
	plan.wide = 2;
	good = good && nn_plan_memory(&plan, &error) == NN_OK && plan_is_sound(&plan);
	nn_plan_free(&plan);
	plan.wide = 0;
	good = good && nn_plan_memory(&plan, &error) == NN_OK && plan_is_sound(&plan);
	*arena = plan.arena_elements;
	nn_plan_free(&plan);
	nn_iteration_free(&it);
	nn_params_free(&params);
	return good;
}

static void
test_plan(const char *json)
{
	size_t arena, values;

	ok(plan_options(json, &arena, &values) && arena < values * 3 / 4, "the plan of %s is sound",
	   json);
	diag("arena of %.1f MB for values of %.1f MB", arena * 4e-6, values * 4e-6);
}

static int
one_of(uint32_t *state, int n)
{
	*state = *state * 1664525u + 1013904223u;
	return (int) ((uint64_t) *state * n >> 32);
}

/* Options drawn at random, as far as they suit each other. */
static void
test_random_plans(void)
{
	static const char *const methods[] = { "bicycle", "cvae_gan", "cvae_gan++",
										   "cae_gan", "clr_gan",  "pix2pix_noise" };
	static const char *const norms[] = { "instance", "batch", "none" };
	static const char *const lambdas[] = { "l1", "gan", "gan2", "z", "kl" };
	const int sizes[] = { 64, 128, 192, 256 };
	uint32_t state = 1;
	int sound = 0, refused = 0;

	for (int i = 0; i < RANDOM_PLANS; i++)
	{
		char json[1024];
		const char *method = methods[i % 6];
		bool noise = i % 6 == 5;
		size_t arena, values,
			length = snprintf(json, sizeof(json),
							  "{\"method\":\"%s\",\"size\":%d,\"batch_size\":%d,\"nz\":%d,\"ngf\":%"
							  "d,\"ndf\":%d,\"num_ds\":%d",
							  method, sizes[one_of(&state, 4)], 1 + one_of(&state, 6),
							  one_of(&state, 12), 1 + one_of(&state, 9), 1 + one_of(&state, 9),
							  1 + one_of(&state, 4));

		length +=
			snprintf(json + length, sizeof(json) - length,
					 ",\"norm\":\"%s\",\"upsample\":\"%s\",\"input_nc\":%d,\"output_nc\":%d,\"same_"
					 "d\":%s,\"dropout\":%s",
					 norms[one_of(&state, 3)], one_of(&state, 2) ? "basic" : "bilinear",
					 1 + 2 * one_of(&state, 2), 1 + 2 * one_of(&state, 2),
					 one_of(&state, 3) ? "false" : "true", one_of(&state, 2) ? "false" : "true");
		if (one_of(&state, 2))
			length += snprintf(json + length, sizeof(json) - length,
							   ",\"where_add\":\"input\",\"conditional_d\":true");
		if (!noise)
			length += snprintf(json + length, sizeof(json) - length, ",\"nef\":%d,\"net_e\":\"%s\"",
							   1 + one_of(&state, 9), one_of(&state, 2) ? "resnet" : "conv");
		for (int k = 0; k < (noise ? 2 : 5); k++)
			if (one_of(&state, 3) == 0)
				length += snprintf(json + length, sizeof(json) - length, ",\"lambda_%s\":%d",
								   lambdas[k], one_of(&state, 2));
		snprintf(json + length, sizeof(json) - length, "}");
		if (plan_options(json, &arena, &values))
			sound++;
		else if (values == 0 && error.code == NN_EINVAL)
			refused++;
		else
			diag("%s: %s", json, values > 0 ? "not sound" : error.message);
	}
	ok(sound + refused == RANDOM_PLANS && sound > RANDOM_PLANS / 3,
	   "%d plans of options drawn at random are sound, %d such options do not suit each other",
	   sound, refused);
}

int
main(void)
{
	test_plan("{}");
	test_plan("{\"size\":64,\"norm\":\"batch\",\"conditional_d\":true,\"upsample\":\"bilinear\"}");
	test_plan("{\"size\":128,\"method\":\"clr_gan\",\"net_e\":\"conv\",\"where_add\":\"input\"}");
	test_plan("{\"size\":64,\"method\":\"pix2pix_noise\",\"norm\":\"none\",\"nz\":0,\"num_ds\":1}");
	test_plan("{\"size\":64,\"batch_size\":12,\"accumulate\":3,\"norm\":\"batch\"}");
	test_random_plans();
	return done_testing();
}
