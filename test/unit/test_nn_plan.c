/*
 * Proves that no two buffers of a plan that are alive together overlap, for all
 * networks and for random graphs, that plans are near the least memory they
 * could take, and that a graph remembers its first error.
 *
 * The proof is by running the plan on a shadow of the arena, which records for
 * each unit of memory the buffer that wrote it last: whatever a node reads must
 * still be what was written.
 */
#include "nn/device.h"
#include "nn/nets.h"
#include "tap.h"

#include <limits.h>
#include <stdlib.h>

#define UNIT 32 /* elements; buffers are aligned to it */

typedef struct Shadow
{
	const NnPlan *plan;
	int *owner;    /* of each unit: root value + 1, 0 = nobody */
	bool *written; /* of each value that is no view: whether any of it has been */
	int bad;
} Shadow;

static int
root_of(const NnGraph *g, int value)
{
	while (g->values[value].view_of >= 0)
		value = g->values[value].view_of;
	return value;
}

static size_t
elements_of(const NnGraph *g, int value)
{
	NnShape s = g->values[value].shape;

	return (size_t) s.n * s.h * s.w * s.c;
}

static void
complain(Shadow *s, int value, const char *what)
{
	if (s->bad++ < 3)
		diag("\"%s\" %s", s->plan->graph->values[value].name, what);
}

/*
 * Reading, or writing a further slice: what was written before must still be
 * there.
 */
static void
expect_intact(Shadow *s, int value)
{
	int root = root_of(s->plan->graph, value);
	size_t first = s->plan->offset[root] / UNIT,
		   last = (s->plan->offset[root] + elements_of(s->plan->graph, root) - 1) / UNIT;

	for (size_t u = first; u <= last; u++)
		if (s->owner[u] != root + 1)
		{
			complain(s, value, "was overwritten while it was needed");
			return;
		}
}

static void
write_value(Shadow *s, int value)
{
	int root = root_of(s->plan->graph, value);
	size_t end = s->plan->offset[root] + elements_of(s->plan->graph, root);

	if (end > s->plan->arena_elements || s->plan->offset[root] % UNIT != 0)
	{
		complain(s, value, "lies outside the arena or is not aligned");
		return;
	}
	if (s->written[root])
		expect_intact(s, value);
	s->written[root] = true;
	for (size_t u = s->plan->offset[root] / UNIT; u <= (end - 1) / UNIT; u++)
		s->owner[u] = root + 1;
}

static void
expect_apart(Shadow *s, int a, int b)
{
	const NnGraph *g = s->plan->graph;
	int ra = root_of(g, a), rb = root_of(g, b);
	size_t oa = s->plan->offset[ra], ob = s->plan->offset[rb];

	if (oa < ob + elements_of(g, rb) && ob < oa + elements_of(g, ra))
		complain(s, a, "is read and written by one node");
}

static void
run_node(Shadow *s, const NnNode *node)
{
	for (int i = 0; i < 2 && node->op != NN_OP_INPUT; i++)
	{
		if (node->in[i] < 0)
			continue;
		expect_intact(s, node->in[i]);
		for (int k = 0; k < 2; k++)
			if (node->out[k] >= 0)
				expect_apart(s, node->in[i], node->out[k]);
	}
	for (int i = 0; i < 2 && node->op != NN_OP_INPUT; i++)
		if (node->out[i] >= 0)
			write_value(s, node->out[i]);
}

/* Pitch and offset of a view are those of its place in the widest parent. */
static void
expect_views(Shadow *s)
{
	const NnGraph *g = s->plan->graph;

	for (int v = 0; v < g->nvalues; v++)
	{
		int parent = g->values[v].view_of;

		if (s->plan->pitch[v] != g->values[root_of(g, v)].shape.c)
			complain(s, v, "has the wrong pitch");
		if (parent >= 0 && s->plan->offset[v] != s->plan->offset[parent] + g->values[v].view_c0)
			complain(s, v, "is not in its parent's buffer");
	}
}

/*
 * Runs the plan of g on a shadow arena. Inputs are written before the first
 * node, outputs read after the last.
 */
static bool
plan_is_sound(NnGraph *g, size_t *arena)
{
	NnPlan plan = { .graph = g };
	NnError error;
	Shadow s = { .plan = &plan };

	if (nn_plan_memory(&plan, &error) != NN_OK)
	{
		diag("%s", error.message);
		return false;
	}
	s.owner = calloc(plan.arena_elements / UNIT + 1, sizeof(int));
	s.written = calloc(g->nvalues + 1, sizeof(bool));
	for (int i = 0; i < g->nnodes; i++)
		if (g->nodes[i].op == NN_OP_INPUT)
			write_value(&s, g->nodes[i].out[0]);
	for (int i = 0; i < g->nnodes; i++)
		run_node(&s, &g->nodes[i]);
	for (int v = 0; v < g->nvalues; v++)
		if (g->values[v].output)
			expect_intact(&s, v);
	expect_views(&s);
	*arena = plan.arena_elements;
	free(s.owner);
	free(s.written);
	nn_plan_free(&plan);
	return s.bad == 0;
}

/* ---- Networks ------------------------------------------------------------ */

/* The most elements that must be there at once: no plan can take less. */
static size_t
least_arena(const NnGraph *g)
{
	size_t most = 0;

	for (int i = 0; i < g->nnodes; i++)
	{
		size_t now = 0;

		for (int v = 0; v < g->nvalues; v++)
		{
			int first = INT_MAX, last = g->values[v].output ? g->nnodes : -1;

			for (int k = 0; k < g->nnodes; k++)
				for (int e = 0; e < 4; e++)
				{
					int id = e < 2 ? g->nodes[k].in[e] : g->nodes[k].out[e - 2];

					if (id < 0 || root_of(g, id) != v)
						continue;
					first = k < first ? k : first;
					last = k > last ? k : last;
				}
			if (first <= i && i <= last)
				now += elements_of(g, v);
		}
		most = now > most ? now : most;
	}
	return most;
}

static void
test_network(const char *json, NnNetwork network, int batch)
{
	NnConfig config;
	NnParams params;
	NnError error;
	NnGraph g;
	int maps[NN_MAX_SCALES], size, image;
	size_t arena = 0, least;
	bool sound;

	nn_config_default(&config);
	if (nn_config_parse(&config, json, strlen(json), &error) != NN_OK ||
		nn_params_of(&config, 1u << network, &params, &error) != NN_OK)
	{
		ok(false, "%s: %s", json, error.message);
		return;
	}
	size = network == NN_NET_E ? config.encoder_size : config.size;
	nn_graph_init(&g, &params);
	image = nn_input(
		&g,
		(NnShape){ batch, size, size, network == NN_NET_G ? config.input_nc : config.output_nc },
		"image");
	if (network == NN_NET_G)
		nn_net_G(&g, &config, image,
				 config.nz > 0 ? nn_input(&g, (NnShape){ batch, 1, 1, config.nz }, "z") : -1, 0);
	else if (network == NN_NET_E)
		nn_net_E(&g, &config, image, &maps[0], &maps[1]);
	else
		nn_net_D(&g, &config, network, image, maps);
	sound = plan_is_sound(&g, &arena);
	least = least_arena(&g);
	ok(sound && arena <= least + least * 15 / 100,
	   "%s of %s, batch %d: %.1f MB in fp32, the least is %.1f", nn_network_name(network), json,
	   batch, arena * 4e-6, least * 4e-6);
	nn_graph_free(&g);
	nn_params_free(&params);
}

static void
test_networks(void)
{
	static const char *const configs[] = {
		"{}",
		"{\"where_add\":\"input\"}",
		"{\"upsample\":\"bilinear\"}",
		"{\"norm\":\"batch\"}",
		"{\"norm\":\"none\",\"net_e\":\"conv\"}",
		"{\"size\":64}",
		"{\"size\":512,\"ngf\":20}",
		"{\"size\":384,\"num_ds\":3}",
		"{\"nz\":0,\"input_nc\":1}",
		"{\"size\":128,\"num_ds\":1,\"ngf\":5,\"nef\":7}",
	};

	for (size_t i = 0; i < sizeof(configs) / sizeof(configs[0]); i++)
		for (int network = NN_NET_G; network <= NN_NET_D; network++)
			if (network != NN_NET_E || !strstr(configs[i], "\"nz\":0"))
				test_network(configs[i], (NnNetwork) network, 1 + (int) i % 3);
}

/* ---- Random graphs ------------------------------------------------------- */

static uint32_t random_state;

static int
below(int n)
{
	random_state = random_state * 1664525u + 1013904223u;
	return (int) ((uint64_t) random_state * n >> 32);
}

/* Values that may be read. */
typedef struct Ready
{
	int ids[400];
	int n;
} Ready;

static void
add_ready(Ready *ready, int id)
{
	ready->ids[ready->n++] = id;
}

static int
any(const Ready *ready)
{
	return ready->ids[below(ready->n)];
}

static int
any_of_shape(const NnGraph *g, const Ready *ready, NnShape shape)
{
	int start = below(ready->n);

	for (int i = 0; i < ready->n; i++)
	{
		int id = ready->ids[(start + i) % ready->n];

		if (memcmp(&g->values[id].shape, &shape, sizeof(shape)) == 0)
			return id;
	}
	return -1;
}

static int
activation(NnGraph *g, int x, int out, int second, const char *name)
{
	static const NnNormArgs none = { .kind = NN_NORM_NONE };

	return nn_norm_act(g, x, (int[]){ out, second }, NULL, &none, name);
}

/*
 * [a, b] of two values of one shape, the second half written some nodes before
 * the first, as in a U-Net.
 */
static void
build_concatenation(NnGraph *g, Ready *ready)
{
	int x = any(ready);
	NnShape s = g->values[x].shape;
	NnShape wide = { s.n, s.h, s.w, 2 * s.c };
	int cat, halves[2];

	if (s.c > 200)
		return;
	cat = nn_value(g, wide, "concatenation");
	halves[0] = nn_view(g, cat, 0, s.c, "first half");
	halves[1] = nn_view(g, cat, s.c, s.c, "second half");
	add_ready(ready, activation(g, x, -1, halves[1], "two readers"));
	for (int k = below(4); k > 0; k--)
		add_ready(ready, activation(g, any(ready), -1, -1, "between"));
	activation(g, any_of_shape(g, ready, s), halves[0], -1, "other half");
	add_ready(ready, cat);
}

/*
 * Forty steps from an input, and from others that turn up later: sums, pools,
 * activations, concatenations, and views of what is there.
 */
static void
build_random(NnGraph *g)
{
	Ready ready = { .n = 0 };

	add_ready(&ready,
			  nn_input(g, (NnShape){ 1, 1 + below(6), 1 + below(6), 2 + below(40) }, "input"));
	for (int step = 0; step < 40; step++)
	{
		int x = any(&ready);
		NnShape s = g->values[x].shape;

		switch (below(5))
		{
			case 0:
				add_ready(&ready, nn_add(g, x, any_of_shape(g, &ready, s), "sum"));
				break;
			case 1:
				add_ready(&ready, s.h > 1 && s.w > 1 ? nn_avgpool(g, x, 2, 2, 0, "pool")
													 : nn_upsample(g, x, below(2), "upsampled"));
				break;
			case 2:
				add_ready(&ready, activation(g, x, -1, -1, "activation"));
				break;
			case 3:
				build_concatenation(g, &ready);
				break;
			default:
				if (s.c > 1)
					add_ready(&ready, nn_view(g, x, below(s.c - 1), 1, "view"));
				break;
		}
		if (below(8) == 0)
			nn_output(g, any(&ready));
		if (below(16) == 0)
			add_ready(&ready, nn_input(g, s, "further input"));
	}
	nn_output(g, any(&ready));
}

static void
test_random(void)
{
	int sound = 0, nodes = 0;
	NnParams none = { 0 };

	for (int i = 0; i < 2000; i++)
	{
		NnGraph g;
		size_t arena;

		random_state = i * 2654435761u;
		nn_graph_init(&g, &none);
		build_random(&g);
		if (g.failed)
			diag("graph %d: %s", i, g.error.message);
		else if (plan_is_sound(&g, &arena))
			sound++;
		else
			diag("graph %d is not sound", i);
		nodes += g.nnodes;
		nn_graph_free(&g);
	}
	ok(sound == 2000, "%d of 2000 plans of random graphs are sound (%d nodes)", sound, nodes);
}

/* ---- Errors -------------------------------------------------------------- */

static void
expect_error(NnGraph *g, NnStatus code, const char *message)
{
	NnPlan plan = { .graph = g };
	NnError error = { 0 };
	NnStatus status = nn_plan_memory(&plan, &error);

	if (!ok(status == code && error.code == code && strstr(error.message, message), "refused: %s",
			message))
		diag("status %d: %s", status, error.message);
	nn_plan_free(&plan);
	nn_graph_free(g);
}

static void
test_errors(void)
{
	NnParam weight = { .name = (char *) "w", .ndim = 4, .shape = { 8, 3, 3, 3 } };
	NnParams params = { .list = &weight, .n = 1 };
	NnGraph g;
	int x;

	nn_graph_init(&g, &params);
	x = nn_input(&g, (NnShape){ 1, 8, 8, 4 }, "image");
	nn_conv(&g, x, -1, 0, -1, (NnConvArgs){ 3, 1, 1 }, "layer");
	expect_error(&g, NN_EINVAL, "tensor \"w\" does not fit layer \"layer\"");

	nn_graph_init(&g, &params);
	x = nn_input(&g, (NnShape){ 1, 8, 8, 4 }, "image");
	x = nn_avgpool(&g, x, 9, 1, 0, "pool");
	x = nn_add(&g, x, x, "after");
	ok(x == -1 && g.nvalues == 1, "after an error nothing is built");
	expect_error(&g, NN_EINVAL, "empty shape (1, 0, 0, 4) of \"pool\"");

	nn_graph_init(&g, &params);
	x = nn_input(&g, (NnShape){ 1, 8, 8, 4 }, "image");
	nn_add(&g, x, nn_view(&g, x, 0, 2, "view"), "sum");
	expect_error(&g, NN_EINVAL, "layer \"sum\" reads maps of different shapes");

	nn_graph_init(&g, &params);
	x = nn_input(&g, (NnShape){ 1, 8, 8, 4 }, "image");
	nn_view(&g, x, 3, 2, "view");
	expect_error(&g, NN_EINVAL, "view of channels 3 to 5 of \"image\", which has 4");

	nn_graph_init(&g, &params);
	nn_input(&g, (NnShape){ INT_MAX, INT_MAX, INT_MAX, 4 }, "image");
	expect_error(&g, NN_ENOMEM, "out of memory");

	nn_graph_init(&g, &params);
	for (int i = 0; i < 2; i++)
		nn_output(&g, nn_input(&g, (NnShape){ INT_MAX, INT_MAX, 2, 1 }, "image"));
	nn_input(&g, (NnShape){ INT_MAX, INT_MAX, 2, 1 }, "image");
	expect_error(&g, NN_ENOMEM, "out of memory");
}

int
main(void)
{
	test_networks();
	test_random();
	test_errors();
	return done_testing();
}
