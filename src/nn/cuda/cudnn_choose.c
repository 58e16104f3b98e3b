/*
 * cudnn_choose.c
 *	  Which of cuDNN's engines runs a convolution, and how it is set.
 *
 * R1 Of the heuristic's configurations (mode A, and if there is none its
 *    fallbacks) those are considered that are deterministic, need no compiling
 *    at run time, and keep to the arithmetic asked for and to the workspace
 *    allowed. Strict fp32 has no tensor cores, no inputs of less precision, and
 *    none of Winograd's tiles that lose digits.
 * R2 Configurations of one class, that is of the same engine, tile and split of
 *    sums, are about as fast as each other: the first of each class stands for
 *    all. The heuristic's list begins with many of one class.
 * R3 Timed (cudnn_is_tuned) the fastest is taken, untimed, or if none could
 *    be timed, the first against which nothing speaks (conv_choice.c).
 * R4 So another batch size may get another engine, and an image other last
 *    bits. BICYCLE_PIN_ENGINES=N uses the engine chosen for N images, with its
 *    knobs, wherever cuDNN takes it; bench/engines.c measures what that costs.
 */
#include "nn/cuda/cudnn_private.h"

#include "nn/cuda/cuda_time.h"
#include "nn/nn_error.h"

#include <stdlib.h>
#include <string.h>

/* ---- What is allowed ----------------------------------------------------- */

/* Whether an engine's notes allow it (see the head); says if tensor cores. */
static bool
is_allowed(CudnnDescs *d, cudnnBackendDescriptor_t config, const CudaConvShape *s,
		   CudaConvChoice *choice)
{
	cudnnBackendDescriptor_t engine = cudnn_make(d, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
	cudnnBackendNumericalNote_t numerical[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
	cudnnBackendBehaviorNote_t behavior[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
	int64_t nnumerical = 0, nbehavior = 0, one;
	bool strict = s->type == KERNEL_F32 && !s->tf32;
	const CudnnLibrary *lib = &d->convs->lib;

	if (d->status != CUDNN_STATUS_SUCCESS ||
		lib->get(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &one,
				 &engine) != CUDNN_STATUS_SUCCESS ||
		lib->get(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
				 CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &nnumerical, numerical) != CUDNN_STATUS_SUCCESS ||
		lib->get(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
				 CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, &nbehavior, behavior) != CUDNN_STATUS_SUCCESS ||
		lib->get(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &one,
				 &choice->engine) != CUDNN_STATUS_SUCCESS)
		return false;
	/* a later cuDNN may note more: that is counted and not written */
	if (nnumerical > CUDNN_NUMERICAL_NOTE_TYPE_COUNT || nbehavior > CUDNN_BEHAVIOR_NOTE_TYPE_COUNT)
		return false;
	choice->tensor_cores = false;
	for (int64_t i = 0; i < nnumerical; i++)
	{
		choice->tensor_cores |= numerical[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
		if (numerical[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC ||
			numerical[i] == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)
			return false;
		if (strict && (numerical[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE ||
					   numerical[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS ||
					   numerical[i] == CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13))
			return false;
	}
	for (int64_t i = 0; i < nbehavior; i++)
		if (behavior[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION)
			return false;
	return true;
}

/*
 * A conv's plan from a configuration; false if it cannot be, or wants more
 * workspace than allowed. For want of memory no other can be made either.
 */
static bool
make_plan(CudnnDescs *d, cudnnBackendDescriptor_t config, CudaConv *conv)
{
	const CudaConvs *convs = d->convs;
	CudnnDescs own = { .convs = convs };
	cudnnBackendDescriptor_t plan = cudnn_make(&own, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
	int64_t one;

	cudnn_set_desc(&own, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
	cudnn_set_target(&own, plan);
	cudnn_finalize(&own, plan);
	if (own.status == CUDNN_STATUS_SUCCESS)
		own.status = convs->lib.get(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
									CUDNN_TYPE_INT64, 1, &one, &conv->choice.workspace);
	if (own.status != CUDNN_STATUS_SUCCESS || conv->choice.workspace > conv->most_workspace)
	{
		cudnn_drop_all(&own);
		d->status = cudnn_is_memory(own.status) ? own.status : d->status;
		return false;
	}
	conv->plan = cudnn_keep_last(&own);
	return true;
}

/* The configurations of a heuristic, best first; an error: an empty list. */
static int
list_configs(CudnnDescs *d, cudnnBackendDescriptor_t graph, cudnnBackendHeurMode_t mode,
			 cudnnBackendDescriptor_t configs[CUDNN_MAX_CONFIGS])
{
	cudnnBackendDescriptor_t heuristic = cudnn_make(d, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
	int64_t n = 0;

	cudnn_set_desc(d, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
	cudnn_set(d, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
	if (d->convs->device)
		cudnn_set_desc(d, heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, d->convs->device);
	cudnn_finalize(d, heuristic);
	for (int i = 0; i < CUDNN_MAX_CONFIGS; i++)
		configs[i] = cudnn_make(d, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
	if (d->status == CUDNN_STATUS_SUCCESS)
		d->status =
			d->convs->lib.get(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
							  CUDNN_TYPE_BACKEND_DESCRIPTOR, CUDNN_MAX_CONFIGS, &n, configs);
	if (d->status != CUDNN_STATUS_SUCCESS)
		return 0;
	return n < CUDNN_MAX_CONFIGS ? (int) n
								 : CUDNN_MAX_CONFIGS; /* of more it tells the number only */
}

/* ---- Recipes ------------------------------------------------------------- */

/* Knobs that say what a block of an engine makes; another engine has others. */
static const int tile_knobs[] = { CUDNN_KNOB_TYPE_TILE_SIZE, CUDNN_KNOB_TYPE_TILE_M,
								  CUDNN_KNOB_TYPE_TILE_N, CUDNN_KNOB_TYPE_KERNEL_CFG, -1 };

/* Knobs that say how many blocks share a sum. */
static const int split_knobs[] = { CUDNN_KNOB_TYPE_SPLIT_K, CUDNN_KNOB_TYPE_SPLIT_K_SLC,
								   CUDNN_KNOB_TYPE_STREAM_K, -1 };

/* The values of some knobs as one number; 0 if the engine has none of them. */
static int64_t
knob(const CudnnRecipe *r, const int *types)
{
	int64_t value = 0;

	for (; *types >= 0; types++)
		for (int i = 0; i < r->nknobs; i++)
			if ((int) r->knobs[i] == *types)
				value = value * 1000 + r->values[i];
	return value;
}

/* Fills conv->recipe, and what the choice tells of it. */
static void
read_recipe(const CudaConvs *convs, cudnnBackendDescriptor_t config, CudaConv *conv)
{
	CudnnDescs d = { .convs = convs };
	const CudnnLibrary *lib = &convs->lib;
	CudnnRecipe *r = &conv->recipe;
	cudnnBackendDescriptor_t choices[CUDNN_MAX_KNOBS];
	int64_t n = 0, one;

	*r = (CudnnRecipe){ .engine = conv->choice.engine };
	for (int i = 0; i < CUDNN_MAX_KNOBS; i++)
		choices[i] = cudnn_make(&d, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
	if (d.status == CUDNN_STATUS_SUCCESS)
		d.status = lib->get(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
							CUDNN_TYPE_BACKEND_DESCRIPTOR, CUDNN_MAX_KNOBS, &n, choices);
	for (int i = 0; i < n && i < CUDNN_MAX_KNOBS && d.status == CUDNN_STATUS_SUCCESS; i++)
	{
		d.status = lib->get(choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1,
							&one, &r->knobs[i]);
		if (d.status == CUDNN_STATUS_SUCCESS)
			d.status = lib->get(choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1,
								&one, &r->values[i]);
		r->nknobs = i + 1;
	}
	if (d.status != CUDNN_STATUS_SUCCESS || n > CUDNN_MAX_KNOBS)
		r->engine = -1;
	cudnn_drop_all(&d);
	conv->choice.tile = knob(r, tile_knobs);
	conv->choice.split = knob(r, split_knobs);
}

static cudnnBackendDescriptor_t
cudnn_config_of(CudnnDescs *d, const CudnnRecipe *r, cudnnBackendDescriptor_t graph)
{
	cudnnBackendDescriptor_t engine = cudnn_make(d, CUDNN_BACKEND_ENGINE_DESCRIPTOR),
							 choices[CUDNN_MAX_KNOBS], config;

	cudnn_set_desc(d, engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph);
	cudnn_set_ints(d, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, 1, &r->engine);
	if (d->convs->device)
		cudnn_set_desc(d, engine, CUDNN_ATTR_ENGINE_DEVICEPROP, d->convs->device);
	cudnn_finalize(d, engine);
	for (int i = 0; i < r->nknobs; i++)
	{
		choices[i] = cudnn_make(d, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
		cudnn_set(d, choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1,
				  &r->knobs[i]);
		cudnn_set_ints(d, choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, 1, &r->values[i]);
		cudnn_finalize(d, choices[i]);
	}
	config = cudnn_make(d, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
	cudnn_set_desc(d, config, CUDNN_ATTR_ENGINECFG_ENGINE, engine);
	if (r->nknobs > 0)
		cudnn_set(d, config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR,
				  r->nknobs, choices);
	return cudnn_finalize(d, config);
}

bool
cudnn_is_tuned(const CudaConvs *convs, const CudaConvShape *s)
{
	return convs->handle && convs->tune > 1 && !s->steady;
}

int
cudnn_pinned_to(const CudaConvs *convs, const CudaConvShape *s)
{
	return s->steady ? 0 : convs->pin;
}

/* ---- Candidates ---------------------------------------------------------- */

/* Convs with plans, one of each class, in the heuristic's order. */
typedef struct Candidates
{
	CudaConv *list[CUDNN_MAX_CLASSES];
	int n;
} Candidates;

static bool
is_new_class(const Candidates *c, const CudaConv *conv)
{
	for (int i = 0; i < c->n; i++)
		if (conv->recipe.engine >= 0 && c->list[i]->choice.engine == conv->choice.engine &&
			c->list[i]->choice.tile == conv->choice.tile &&
			c->list[i]->choice.split == conv->choice.split)
			return false;
	return true;
}

/* Adds what configuration `place` of heuristic `mode` makes, if it may be. */
static void
consider(CudnnDescs *d, Candidates *c, cudnnBackendDescriptor_t config, const CudaConv *wanted,
		 int mode, int place)
{
	CudaConv *conv = malloc(sizeof(CudaConv));

	if (!conv)
	{
		d->status = CUDNN_STATUS_ALLOC_FAILED;
		return;
	}
	*conv = *wanted;
	conv->choice =
		(CudaConvChoice){ .fallback = mode > 0, .place = place, .unsound = wanted->choice.unsound };
	if (!wanted->failed[mode][place] && is_allowed(d, config, &conv->shape, &conv->choice))
	{
		read_recipe(d->convs, config, conv);
		if (is_new_class(c, conv) && make_plan(d, config, conv))
		{
			c->list[c->n++] = conv;
			return;
		}
	}
	free(conv);
}

/* All but one, which the caller has taken. */
static void
free_candidates(Candidates *c, int but)
{
	for (int i = 0; i < c->n; i++)
	{
		if (i != but)
			(void) c->list[i]->convs->lib.drop(c->list[i]->plan);
		free(c->list[i]);
	}
}

/*
 * Fills a list of at most `most`, or, if it is to be `untimed`, up to the first
 * against which nothing speaks. Returns the last error met.
 */
static cudnnStatus_t
list_candidates(const CudaConv *wanted, int most, bool untimed, Candidates *c)
{
	static const cudnnBackendHeurMode_t modes[] = { CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK };
	cudnnStatus_t status = CUDNN_STATUS_SUCCESS;

	c->n = 0;
	for (int m = 0; m < 2 && c->n == 0; m++)
	{
		CudnnDescs d = { .convs = wanted->convs };
		cudnnBackendDescriptor_t configs[CUDNN_MAX_CONFIGS];
		cudnnBackendDescriptor_t graph = cudnn_operation_graph(&d, &wanted->shape);
		int n = list_configs(&d, graph, modes[m], configs);

		for (int i = 0; i < n && c->n < most; i++)
		{
			consider(&d, c, configs[i], wanted, m, i);
			if (untimed && c->n > 0 &&
				cuda_conv_faults(&wanted->shape, &c->list[c->n - 1]->choice) == 0)
				break;
		}
		status = d.status;
		cudnn_drop_all(&d);
	}
	return status;
}

/* ---- Choice -------------------------------------------------------------- */

/* Without memory for a timer none can be timed; false if memory is short. */
static bool
time_all(const Candidates *c)
{
	const CudaConv *first = c->list[0];
	size_t workspace = 0, has;
	CudaTimer *timer;
	bool enough;

	for (int i = 0; i < c->n; i++)
		nn_most(&workspace, (size_t) c->list[i]->choice.workspace);
	timer = cuda_conv_timer(first->convs->stream, &first->shape, workspace);
	for (int i = 0; i < c->n; i++)
	{
		CudaConv *conv = c->list[i];

		conv->choice.ms = timer ? cuda_timer_conv(timer, conv->convs, conv) : CUDA_TIME_NEVER;
	}
	enough = !cuda_conv_is_short(&has);
	cuda_timer_close(timer);
	return enough;
}

/* status: the last error met while they were made. */
static int
best_of(const Candidates *c, bool timed, cudnnStatus_t status)
{
	const CudaConvChoice *choices[CUDNN_MAX_CLASSES];
	const CudaConvShape *shape = &c->list[0]->shape;

	bool enough = !cudnn_is_memory(status);
	int best;

	if (timed)
		enough &= time_all(c);
	for (int i = 0; i < c->n; i++)
		choices[i] = &c->list[i]->choice;
	best = timed ? cuda_conv_fastest(shape, choices, c->n) : cuda_conv_best(shape, choices, c->n);
	c->list[best]->choice.scarce = !enough;
	return best;
}

/* By its own size. */
static cudnnStatus_t
choose_own(CudaConv *conv)
{
	bool timed = cudnn_is_tuned(conv->convs, &conv->shape);
	int most =
		timed && conv->convs->tune < CUDNN_MAX_CLASSES ? conv->convs->tune : CUDNN_MAX_CLASSES;
	Candidates c;
	cudnnStatus_t status = list_candidates(conv, most, !timed, &c);
	int best;

	if (c.n == 0)
		return status;
	best = best_of(&c, timed, status);
	*conv = *c.list[best];
	free_candidates(&c, best);
	return status;
}

/* By the engine of convs->pin images, if it may be. */
static void
follow_pin(CudaConv *conv)
{
	CudaConv model = *conv;
	CudnnDescs d = { .convs = conv->convs };

	model.shape.n = conv->convs->pin;
	(void) choose_own(&model);
	if (!model.plan)
		return;
	if (model.recipe.engine >= 0)
	{
		cudnnBackendDescriptor_t config =
			cudnn_config_of(&d, &model.recipe, cudnn_operation_graph(&d, &conv->shape));

		conv->choice = model.choice;
		conv->choice.pinned = d.status == CUDNN_STATUS_SUCCESS &&
							  is_allowed(&d, config, &conv->shape, &conv->choice) &&
							  make_plan(&d, config, conv);
	}
	cudnn_drop_all(&d);
	(void) conv->convs->lib.drop(model.plan);
}

cudnnStatus_t
cudnn_choose(CudaConv *conv)
{
	int pin = cudnn_pinned_to(conv->convs, &conv->shape);

	if (pin > 0 && pin != conv->shape.n && !conv->choice.unsound)
		follow_pin(conv);
	return conv->plan ? CUDNN_STATUS_SUCCESS : choose_own(conv);
}

/* ---- For tests ----------------------------------------------------------- */

int
cuda_conv_candidates(CudaConvs *convs, const CudaConvShape *shape,
					 CudaConvChoice choices[CUDNN_MAX_CLASSES])
{
	CudaConv conv = { .convs = convs, .shape = *shape, .most_workspace = CUDNN_MAX_WORKSPACE };
	Candidates c;

	(void) list_candidates(&conv, CUDNN_MAX_CLASSES, false, &c);
	for (int i = 0; i < c.n; i++)
		choices[i] = c.list[i]->choice;
	free_candidates(&c, -1);
	return c.n;
}
