/*
 * fit_graph.c
 *	  One iteration of any of the six methods as a graph and a schedule of
 *	  steps.
 *
 * The official step is: forward; G and E learn from the frozen discriminators;
 * then D and D2 learn from the same fakes and from real images. Nothing later
 * in the step reads an updated weight.
 *
 * R1 So all gradients are computed first and all updates made at the end,
 *    without changing a number; and a discriminator's forward pass over the
 *    fakes serves both sides.
 * R2 Two merges change the order of sums only: G translates both branches in
 *    one batch unless a batch norm must see them apart; and the gradients that
 *    D2 and the latent loss send into the random fakes are added before G.
 * R3 A batch may be computed in parts. Losses that are means are divided by
 *    their number, those that are sums over the batch are not; batch norms see
 *    a part alone.
 * R4 An iteration owns its graph and schedule; one thread builds it.
 */
#include "nn/fit_private.h"
#include "nn/nets.h"

#include "common/invariant.h"

#include <stdlib.h>
#include <string.h>

/* A stretch of nodes that is one call of a network. */
typedef struct NetCall
{
	int first, end;
} NetCall;

typedef struct Branch
{
	bool on;     /* G translates with this branch's code */
	bool judged; /* by a discriminator */
	NnNetwork judge;
	double lambda; /* of the judgement */
	NnLoss loss_g, loss_d;
	int real; /* the branch whose images are real to the judge: 0, or 1 with halves */
	NnExhibit made, true_ones;
	int a, /* values: input, code, result */
		z, fake;
	NetCall g;
	NetCall verdict; /* the judge's call on the fake */
	int maps[NN_MAX_SCALES];
} Branch;

typedef struct Build
{
	NnIteration *it;
	NnGraph *g;
	const NnConfig *config;
	const NnTrainOptions *options;
	const NnMethodFacts *facts;
	int n;         /* images of a branch in a pass */
	double share;  /* of a pass in a mean over the batch */
	float dropout; /* of G */
	Branch encoded, random;
	NetCall posterior; /* E on the target */
	NetCall reading;   /* E on the random fake */
	int mu, logvar;
	int b; /* the target, once it is an input; -1 */
} Build;

/* ---- Inputs -------------------------------------------------------------- */

static NnShape
source_shape(const Build *b, NnSource source)
{
	int size = b->config->size;

	if (source == NN_SOURCE_A)
		return (NnShape){ b->n, size, size, b->config->input_nc };
	if (source == NN_SOURCE_B)
		return (NnShape){ b->n, size, size, b->config->output_nc };
	if (source == NN_SOURCE_AUGMENT)
		return (NnShape){ b->n, 1, 1, NN_AUGMENT_NUMBERS };
	return (NnShape){ b->n, 1, 1, b->config->nz };
}

/* An input, in a value of the caller's or (-1) a new one. */
static int
feed_input(Build *b, NnSource source, int branch, int value)
{
	static const char *const names[NN_SOURCES] = { "A", "B", "eps", "z", "augment" };

	if (value < 0)
		value = nn_value(b->g, source_shape(b, source), names[source]);
	nn_input_to(b->g, value, names[source]);
	INVARIANT(b->g->failed || b->it->ninputs < NN_MAX_INPUTS);
	if (!b->g->failed)
		b->it->inputs[b->it->ninputs++] = (NnInput){ value, source, branch };
	return value;
}

static int
target(Build *b)
{
	if (b->b < 0)
		b->b = feed_input(b, NN_SOURCE_B, 0, -1);
	return b->b;
}

static void
add_term(Build *b, NnLoss loss, int value)
{
	INVARIANT(b->g->failed || b->it->nterms < NN_MAX_TERMS);
	if (!b->g->failed)
		b->it->terms[b->it->nterms++] = (NnTerm){ value, loss };
}

/* ---- Forward ------------------------------------------------------------- */

static NetCall
call_from(const Build *b, int first)
{
	return (NetCall){ first, b->g->nnodes };
}

static void
encode_target(Build *b)
{
	int image = target(b);
	int first = b->g->nnodes;

	nn_net_E(b->g, b->config, image, &b->mu, &b->logvar);
	b->posterior = call_from(b, first);
}

/*
 * The code of the encoded branch: a sample of the posterior, or its mean, or a
 * drawn one where there is no E. z may be -1: a new value.
 */
static int
encoded_code(Build *b, int z)
{
	if (!b->facts->encoder)
		return feed_input(b, NN_SOURCE_Z, 0, z);
	if (b->facts->deterministic)
		return z < 0 ? b->mu : nn_copy(b->g, b->mu, z, "z");
	return nn_reparam(b->g, b->mu, b->logvar, feed_input(b, NN_SOURCE_EPS, 0, -1), z, "z");
}

/* Both branches in one batch. */
static void
translate_together(Build *b)
{
	NnShape a = source_shape(b, NN_SOURCE_A), z = source_shape(b, NN_SOURCE_Z);
	Branch *branches[2] = { &b->encoded, &b->random };
	int image, code, fake, first;

	a.n = z.n = 2 * b->n;
	image = nn_value(b->g, a, "A");
	code = nn_value(b->g, z, "z");
	for (int i = 0; i < 2; i++)
	{
		branches[i]->a =
			feed_input(b, NN_SOURCE_A, 0, nn_batch_view(b->g, image, i * b->n, b->n, "A"));
		branches[i]->z = nn_batch_view(b->g, code, i * b->n, b->n, "z");
	}
	encoded_code(b, b->encoded.z);
	feed_input(b, NN_SOURCE_Z, 0, b->random.z);
	first = b->g->nnodes;
	fake = nn_net_G(b->g, b->config, image, code, b->dropout);
	for (int i = 0; i < 2; i++)
	{
		branches[i]->g = call_from(b, first);
		branches[i]->fake = nn_batch_view(b->g, fake, i * b->n, b->n, "fake");
	}
}

static void
translate_branch(Build *b, Branch *branch, int z)
{
	int first;

	branch->a = feed_input(b, NN_SOURCE_A, 0, -1);
	branch->z = z;
	first = b->g->nnodes;
	branch->fake = nn_net_G(b->g, b->config, branch->a, z, b->dropout);
	branch->g = call_from(b, first);
}

static void
translate_branches(Build *b)
{
	bool coded = b->config->nz > 0;

	if (b->encoded.on && b->random.on && b->config->norm != NN_NORM_BATCH)
	{
		translate_together(b);
		return;
	}
	if (b->encoded.on)
		translate_branch(b, &b->encoded, coded ? encoded_code(b, -1) : -1);
	if (b->random.on)
		translate_branch(b, &b->random, feed_input(b, NN_SOURCE_Z, 0, -1));
}

/* The image or [A, it]; image = -1: real ones of a branch. */
static int
judged_image(Build *b, int image, int branch)
{
	int nc = b->config->input_nc;
	NnShape shape = source_shape(b, NN_SOURCE_B);
	int both, half;

	if (!b->config->conditional_d)
		return image >= 0    ? image
			   : branch == 0 ? target(b)
							 : feed_input(b, NN_SOURCE_B, branch, -1);
	shape.c += nc;
	both = nn_value(b->g, shape, "[A, B]");
	/* G translates the first images in both branches */
	feed_input(b, NN_SOURCE_A, image >= 0 ? 0 : branch, nn_view(b->g, both, 0, nc, "A"));
	half = nn_view(b->g, both, nc, b->config->output_nc, "B");
	if (image >= 0)
		nn_copy(b->g, image, half, "B");
	else
		feed_input(b, NN_SOURCE_B, branch, half);
	return both;
}

/*
 * What D sees, likewise. G gets its gradient through it, and D learns from what
 * it has seen. Colours of A are left alone.
 */
static int
exhibit(Build *b, int image, int branch, NnExhibit which)
{
	NnDiffAugment varied = b->options->diff_augment;
	int seen = judged_image(b, image, branch);
	NnAugmentArgs args = { .colour = (varied & NN_DIFF_AUGMENT_COLOR) != 0,
						   .plain = b->config->conditional_d ? b->config->input_nc : 0,
						   .cuts = (varied & NN_DIFF_AUGMENT_CUTOUT) != 0 };

	if (varied == NN_DIFF_AUGMENT_NONE)
		return seen;
	return nn_augment(b->g, seen, feed_input(b, NN_SOURCE_AUGMENT, (int) which, -1), args, "seen");
}

/* The losses of a discriminator's maps; the caller sums over scales. */
static void
judge(Build *b, const int *maps, double target, double scale, NnLoss loss)
{
	/* with one scale the official code sums over the batch, as if scales */
	double times = b->config->num_ds == 1 ? b->n : b->share;

	for (int i = 0; i < b->config->num_ds; i++)
		add_term(b, loss,
				 nn_gan_loss(b->g, maps[i], b->options->gan_mode == NN_GAN_VANILLA, target,
							 scale * times, nn_loss_name(loss)));
}

static void
judge_fake(Build *b, Branch *branch)
{
	int image = exhibit(b, branch->fake, 0, branch->made);
	int first = b->g->nnodes;

	nn_net_D(b->g, b->config, branch->judge, image, branch->maps);
	branch->verdict = call_from(b, first);
	judge(b, branch->maps, 1, branch->lambda, branch->loss_g);
}

static void
forward_generator(Build *b)
{
	const NnTrainOptions *o = b->options;

	if (b->facts->encoder && (b->encoded.on || o->lambda_kl > 0))
		encode_target(b);
	translate_branches(b);
	if (b->encoded.judged)
		judge_fake(b, &b->encoded);
	if (b->random.judged)
		judge_fake(b, &b->random);
	if (o->lambda_l1 > 0)
		add_term(b, NN_LOSS_G_L1,
				 nn_l1_loss(b->g, b->encoded.fake, target(b), o->lambda_l1 * b->share, "G_L1"));
	if (o->lambda_kl > 0)
		add_term(b, NN_LOSS_KL, nn_kl_loss(b->g, b->mu, b->logvar, o->lambda_kl, "kl"));
	if (o->lambda_z > 0)
	{
		int mu, logvar, first = b->g->nnodes;

		nn_net_E(b->g, b->config, b->random.fake, &mu, &logvar);
		b->reading = call_from(b, first);
		add_term(b, NN_LOSS_Z_L1,
				 nn_l1_loss(b->g, mu, b->random.z, o->lambda_z * b->share, "z_L1"));
	}
}

/* ---- Schedule ------------------------------------------------------------ */

/* From the losses among nodes [from, nnodes) to the calls' parameters. */
static void
backward(Build *b, int from, const NetCall *calls, int ncalls)
{
	bool *starts, *trains;

	if (b->g->failed)
		return;
	starts = calloc(b->g->nnodes + 1, sizeof(bool));
	trains = calloc(b->g->nnodes + 1, sizeof(bool));
	if (starts && trains)
	{
		for (int i = from; i < b->g->nnodes; i++)
			starts[i] = true;
		for (int k = 0; k < ncalls; k++)
			for (int i = calls[k].first; i < calls[k].end; i++)
				trains[i] = true;
		nn_schedule_backward(&b->it->schedule, starts, trains);
	}
	else
		nn_graph_fail(b->g, NN_ENOMEM, "out of memory");
	free(starts);
	free(trains);
}

static void
statistics(Build *b, NetCall call)
{
	nn_schedule_statistics(&b->it->schedule, call.first, call.end);
}

static void
learn_generator(Build *b)
{
	NetCall calls[4];
	int n = 0;
	bool together = b->encoded.on && b->random.on && b->encoded.g.first == b->random.g.first;

	nn_schedule_forward(&b->it->schedule, 0, b->g->nnodes);
	statistics(b, b->posterior);
	statistics(b, b->encoded.g);
	if (!together)
		statistics(b, b->random.g);
	statistics(b, b->reading);
	statistics(b, b->encoded.verdict);
	statistics(b, b->random.verdict);
	calls[n++] = b->posterior;
	calls[n++] = b->encoded.g;
	calls[n++] = b->random.g;
	/* E is frozen for the latent loss, lest G and E hide the code in images */
	if (b->facts->latent_trains_e)
		calls[n++] = b->reading;
	backward(b, 0, calls, n);
}

/* A discriminator learns from the fakes it has judged and from real images. */
static void
learn_judge(Build *b, Branch *branch)
{
	int from = b->g->nnodes;
	int maps[NN_MAX_SCALES];
	NetCall calls[2];
	int image, first;

	if (!branch->judged)
		return;
	judge(b, branch->maps, 0, 1, branch->loss_d);
	image = exhibit(b, -1, branch->real, branch->true_ones);
	first = b->g->nnodes;
	nn_net_D(b->g, b->config, branch->judge, image, maps);
	calls[0] = branch->verdict;
	calls[1] = call_from(b, first);
	judge(b, maps, 1, 1, branch->loss_d);
	nn_schedule_forward(&b->it->schedule, from, b->g->nnodes);
	/* the official code runs the judge over the fakes a second time */
	statistics(b, branch->verdict);
	statistics(b, calls[1]);
	backward(b, from, calls, 2);
}

void
nn_iteration_build(NnIteration *it, const NnConfig *config, const NnTrainOptions *options,
				   const NnParams *params)
{
	const NnMethodFacts *facts = nn_method_facts(options->method);
	int part = options->batch_size / options->accumulate;
	int n = facts->halves ? part / 2 : part;
	Build b = { .it = it,
				.g = &it->graph,
				.config = config,
				.options = options,
				.facts = facts,
				.n = n,
				.share = 1.0 / options->accumulate,
				.mu = -1,
				.logvar = -1,
				.b = -1 };

	b.encoded = (Branch){ .on = options->lambda_gan > 0 || options->lambda_l1 > 0,
						  .judged = options->lambda_gan > 0,
						  .judge = NN_NET_D,
						  .lambda = options->lambda_gan,
						  .loss_g = NN_LOSS_G_GAN,
						  .loss_d = NN_LOSS_D,
						  .made = NN_EXHIBIT_ENCODED,
						  .true_ones = NN_EXHIBIT_ENCODED_REAL,
						  .a = -1,
						  .z = -1,
						  .fake = -1 };
	b.random = (Branch){ .on = options->lambda_gan2 > 0 || options->lambda_z > 0,
						 .judged = options->lambda_gan2 > 0,
						 .judge = options->same_d ? NN_NET_D : NN_NET_D2,
						 .lambda = options->lambda_gan2,
						 .loss_g = NN_LOSS_G_GAN2,
						 .loss_d = NN_LOSS_D2,
						 .real = facts->halves ? 1 : 0,
						 .made = NN_EXHIBIT_RANDOM,
						 .true_ones = NN_EXHIBIT_RANDOM_REAL,
						 .a = -1,
						 .z = -1,
						 .fake = -1 };
	it->passes = options->accumulate;
	it->images = n;
	nn_graph_init(&it->graph, params);
	it->graph.training = true;
	b.dropout = options->dropout ? 0.5f : 0;
	nn_schedule_init(&it->schedule, &it->graph);
	it->schedule.adds = it->passes > 1;
	forward_generator(&b);
	learn_generator(&b);
	learn_judge(&b, &b.encoded);
	learn_judge(&b, &b.random);
}

void
nn_iteration_free(NnIteration *it)
{
	nn_schedule_free(&it->schedule);
	nn_graph_free(&it->graph);
	memset(it, 0, sizeof(*it));
}
