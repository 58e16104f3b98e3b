/*
 * evaluate_wave.c
 *	  What is asked of the engine about some inputs at once: codes, samples, and
 *	  how far images are apart.
 *
 * R1 A wave goes through phases, as one needs the images of the one before:
 *    codes of the truths; samples and reconstructions; the truths at the size
 *    of these; distances. Within a phase as many calls are open as a statement
 *    may have.
 * R2 An image of the pairs that the engine cannot use is an error that names
 *    its row, or marks its pair, and an input's all its pairs.
 * R3 Calls ignore the session's output format and fit, as those that name a
 *    version do: an evaluation depends on its arguments.
 *
 * Images and steps lie in the wave's memory context; calls go with its resource
 * owner after an error.
 */
#include "pg/evaluate.h"

#include "miscadmin.h"

#include "nn/nn.h"
#include "pg/image_call.h"
#include "pg/lpips.h"
#include "pg/translate.h"

typedef enum StepKind
{
	STEP_ENCODE,    /* a, to the float * at `to` */
	STEP_TRANSLATE, /* a under z, to the bytea * at `to` */
	STEP_MATCH,     /* a as b is, likewise */
	STEP_COMPARE,   /* a and b, to the double at `to` */
	STEP_LPIPS
} StepKind;

typedef struct Step
{
	StepKind kind;
	Input *input;
	Truth *truth; /* NULL: it is about the input alone */
	bool given;   /* a is an image of the pairs */
	const bytea *a, *b;
	const float *z;
	void *to;
	Truth *featured; /* of LPIPS: whom its features are for */
	Call *call;
} Step;

typedef struct Steps
{
	Evaluation *e;
	Step *list;
	int n, capacity;
	const Step *at; /* that an error is about */
} Steps;

/* ---- Steps --------------------------------------------------------------- */

static Step *
plan_step(Steps *steps, StepKind kind, Input *input, const bytea *a, void *to)
{
	Step *step;

	if (steps->n == steps->capacity)
	{
		int more = Max(64, steps->capacity);

		evaluation_hold(steps->e, &steps->e->held, more * sizeof(Step));
		steps->capacity += more;
		steps->list = steps->list == NULL ? palloc(steps->capacity * sizeof(Step))
										  : repalloc(steps->list, steps->capacity * sizeof(Step));
	}
	step = &steps->list[steps->n++];
	memset(step, 0, sizeof(*step));
	step->kind = kind;
	step->input = input;
	step->a = a;
	step->to = to;
	return step;
}

static Call *
submit_step(const Evaluation *e, const Step *step)
{
	switch (step->kind)
	{
		case STEP_ENCODE:
			return encode_submit(e->model, true, step->a);
		case STEP_TRANSLATE:
			return translate_submit(e->model, true, step->z, step->a);
		case STEP_MATCH:
			return image_pair_submit(BICYCLE_MATCH, NULL, step->a, step->b,
									 e->model->alpha_drop ? BICYCLE_FLAG_OPAQUE : 0);
		case STEP_COMPARE:
			return image_pair_submit(BICYCLE_COMPARE, NULL, step->a, step->b, 0);
		case STEP_LPIPS:
			break;
	}
	return lpips_submit(e->lpips, step->a, step->b, false);
}

static void
finish_lpips(Evaluation *e, Step *step)
{
	Lpips answer;

	*(double *) step->to = lpips_wait(step->call, step->featured != NULL ? &answer : NULL);
	if (step->featured == NULL)
		return;
	step->featured->nfeatures = answer.nfeatures;
	for (int i = 0; i < 2; i++)
		step->featured->features[i] = answer.features[i];
}

static void
finish_step(Evaluation *e, Step *step)
{
	BicycleComparison comparison;
	const char *bytes;
	size_t length;

	switch (step->kind)
	{
		case STEP_ENCODE:
			*(float **) step->to = encode_wait(step->call, e->model);
			break;
		case STEP_TRANSLATE:
		case STEP_MATCH:
			*(bytea **) step->to = image_wait(step->call);
			evaluation_hold(e, &e->held, VARSIZE(*(bytea **) step->to));
			break;
		case STEP_COMPARE:
			bytes = call_wait(step->call, &length);
			if (length != sizeof(comparison))
				elog(ERROR, "comparison of %zu bytes instead of %zu", length, sizeof(comparison));
			memcpy(&comparison, bytes, sizeof(comparison));
			*(double *) step->to = comparison.l1 / 127.5;
			break;
		case STEP_LPIPS:
			finish_lpips(e, step);
			break;
	}
}

/* ---- Bad pairs ----------------------------------------------------------- */

static bool
is_left_out(const Step *step)
{
	return step->input->bad || (step->truth != NULL && step->truth->bad);
}

static void
leave_truth(Evaluation *e, Truth *truth, const char *message, const char *detail)
{
	if (!truth->bad)
		evaluation_skip(e, truth->place, message, detail);
	truth->bad = true;
}

/* An input without truths is left out, too. */
static void
skip_step(Evaluation *e, const Step *step, const char *message, const char *detail)
{
	Input *input = step->input;

	input->bad = true;
	for (int i = 0; i < input->ntruths; i++)
	{
		if (step->truth == NULL || step->truth == &input->truths[i])
			leave_truth(e, &input->truths[i], message, detail);
		input->bad &= input->truths[i].bad;
	}
}

static void
step_context(void *arg)
{
	const Step *step = ((Steps *) arg)->at;

	if (step != NULL && step->given)
		errcontext("%s image of %s", step->truth != NULL ? "target" : "input",
				   step->truth != NULL ? step->truth->place : step->input->truths[0].place);
}

/* ---- A phase ------------------------------------------------------------- */

static Size
bytes_of(const Step *step)
{
	return VARSIZE_ANY(step->a) + (step->b != NULL ? VARSIZE_ANY(step->b) : 0);
}

static void
wait_for(Steps *steps, Step *step)
{
	const char *message;
	const char *detail;

	if (step->given && steps->e->options.skip && call_image_failed(step->call, &message, &detail))
		skip_step(steps->e, step, message, detail);
	else
		finish_step(steps->e, step);
	call_free(step->call);
	step->call = NULL;
}

static void
run_steps(Steps *steps)
{
	int window = image_window();
	Size bytes = 0;
	ErrorContextCallback context = { .callback = step_context,
									 .arg = steps,
									 .previous = error_context_stack };

	error_context_stack = &context;
	for (int i = 0, next = 0; i < steps->n; i++)
	{
		while (next < steps->n && next - i < window && (bytes < IMAGE_WINDOW_BYTES || next == i))
		{
			Step *step = &steps->list[next++];

			steps->at = step;
			if (is_left_out(step))
				continue;
			step->call = submit_step(steps->e, step);
			bytes += bytes_of(step);
		}
		steps->at = &steps->list[i];
		CHECK_FOR_INTERRUPTS();
		if (steps->list[i].call == NULL)
			continue;
		bytes -= bytes_of(&steps->list[i]);
		wait_for(steps, &steps->list[i]);
	}
	error_context_stack = context.previous;
	steps->n = 0;
	steps->at = NULL;
}

/* ---- What is wanted ------------------------------------------------------ */

static bool
wants(const Evaluation *e, Metric metric)
{
	return e->options.wants[metric];
}

static bool
wants_reconstruction(const Evaluation *e)
{
	return wants(e, METRIC_RECONSTRUCTION_L1) || wants(e, METRIC_RECONSTRUCTION_LPIPS);
}

static bool
wants_modes(const Evaluation *e, Measure by)
{
	return by == BY_L1 ? wants(e, METRIC_COVERAGE_L1) || wants(e, METRIC_PRECISION_L1) ||
							 wants(e, METRIC_REACHED_L1)
					   : wants(e, METRIC_COVERAGE_LPIPS) || wants(e, METRIC_PRECISION_LPIPS);
}

static bool
wants_best(const Evaluation *e, Measure by)
{
	return wants(e, by == BY_L1 ? METRIC_BEST_L1 : METRIC_BEST_LPIPS);
}

static bool
wants_steps(const Evaluation *e, Measure by)
{
	return by == BY_L1 ? wants(e, METRIC_DIVERSITY_L1) || wants(e, METRIC_COLLAPSE_SHARE)
					   : wants(e, METRIC_DIVERSITY_LPIPS);
}

static bool
wants_read(const Evaluation *e)
{
	return wants(e, METRIC_LATENT_L1) || wants(e, METRIC_LATENT_READ);
}

/* Whether truths are compared with anything. */
static bool
wants_truths(const Evaluation *e)
{
	bool any = wants_reconstruction(e) || wants(e, METRIC_MMD);

	for (int by = 0; by < MEASURES; by++)
		any |= wants_modes(e, by) || wants_best(e, by);
	return any;
}

static bool
wants_samples(const Evaluation *e)
{
	bool any = wants_read(e) || wants(e, METRIC_MMD);

	for (int by = 0; by < MEASURES; by++)
		any |= wants_modes(e, by) || wants_best(e, by) || wants_steps(e, by);
	return any;
}

/* ---- The phases ---------------------------------------------------------- */

static void
plan_codes(Steps *steps, Input *input)
{
	if (!wants_reconstruction(steps->e) && !wants(steps->e, METRIC_KL))
		return;
	for (int i = 0; i < input->ntruths; i++)
	{
		Truth *truth = &input->truths[i];
		Step *step = plan_step(steps, STEP_ENCODE, input, truth->file, &truth->posterior);

		step->truth = truth;
		step->given = true;
	}
}

static void
plan_samples(Steps *steps, Input *input)
{
	const Evaluation *e = steps->e;
	int nz = e->model->nz;

	input->z = palloc(Max((Size) e->samples * nz, 1) * sizeof(float));
	input->samples = palloc0(e->samples * sizeof(bytea *));
	for (int i = 0; wants_samples(e) && i < e->samples; i++)
	{
		Step *step = plan_step(steps, STEP_TRANSLATE, input, input->file, &input->samples[i]);

		/* Those of bicycle_sample(input, samples, seed + number). */
		nn_normal(
			sample_counter((int64) ((uint64) e->options.seed + (uint64) input->number), i + 1), 0,
			nz, input->z + (Size) i * nz);
		step->z = input->z + (Size) i * nz;
		step->given = true;
	}
	for (int i = 0; wants_reconstruction(e) && i < input->ntruths; i++)
	{
		Truth *truth = &input->truths[i];
		Step *step;

		if (truth->bad)
			continue;
		step = plan_step(steps, STEP_TRANSLATE, input, input->file, &truth->reconstruction);
		step->z = truth->posterior;
		step->given = true;
	}
}

static void
plan_truths(Steps *steps, Input *input)
{
	for (int i = 0; wants_truths(steps->e) && i < input->ntruths; i++)
	{
		Truth *truth = &input->truths[i];
		Step *step;

		if (truth->bad)
			continue;
		step = plan_step(steps, STEP_MATCH, input, truth->file, &truth->image);
		step->b = wants_samples(steps->e) ? input->samples[0] : truth->reconstruction;
		step->truth = truth;
		step->given = true;
	}
}

static Step *
plan_distance(Steps *steps, Input *input, Measure by, const bytea *a, const bytea *b, double *to)
{
	Step *step = plan_step(steps, by == BY_L1 ? STEP_COMPARE : STEP_LPIPS, input, a, to);

	step->b = b;
	return step;
}

/* The samples take turns to stand for the truths, for MMD. */
static bool
is_featured(const Steps *steps, const Input *input, const Truth *truth, Measure by, int sample)
{
	return by == BY_LPIPS && wants(steps->e, METRIC_MMD) &&
		   sample == (truth - input->truths) % steps->e->samples;
}

static void
plan_truth(Steps *steps, Input *input, Truth *truth, Measure by)
{
	Evaluation *e = steps->e;
	bool all = wants_best(e, by) || wants_modes(e, by);

	if (wants(e, by == BY_L1 ? METRIC_RECONSTRUCTION_L1 : METRIC_RECONSTRUCTION_LPIPS))
		(void) plan_distance(steps, input, by, truth->reconstruction, truth->image,
							 &truth->apart[by]);
	evaluation_hold(e, &e->held, ((Size) e->samples + input->ntruths) * sizeof(double));
	truth->to_samples[by] = palloc0(e->samples * sizeof(double));
	for (int i = 0; i < e->samples; i++)
		if (all || is_featured(steps, input, truth, by, i))
		{
			Step *step = plan_distance(steps, input, by, input->samples[i], truth->image,
									   &truth->to_samples[by][i]);

			if (is_featured(steps, input, truth, by, i))
				step->featured = truth;
		}
	if (!wants_modes(e, by))
		return;
	truth->to_truths[by] = palloc0(input->ntruths * sizeof(double));
	for (int i = truth - input->truths + 1; i < input->ntruths; i++)
		if (!input->truths[i].bad)
			(void) plan_distance(steps, input, by, truth->image, input->truths[i].image,
								 &truth->to_truths[by][i]);
}

static void
plan_distances(Steps *steps, Input *input)
{
	const Evaluation *e = steps->e;

	input->read = palloc0(e->samples * sizeof(float *));
	for (int i = 0; wants_read(e) && i < e->samples; i++)
		(void) plan_step(steps, STEP_ENCODE, input, input->samples[i], &input->read[i]);
	for (int by = 0; by < MEASURES; by++)
	{
		input->steps[by] = palloc0(e->samples * sizeof(double));
		for (int i = 0; wants_steps(e, by) && i + 1 < e->samples; i++)
			(void) plan_distance(steps, input, by, input->samples[i], input->samples[i + 1],
								 &input->steps[by][i]);
		for (int i = 0; wants_truths(e) && i < input->ntruths; i++)
			if (!input->truths[i].bad)
				plan_truth(steps, input, &input->truths[i], by);
	}
}

void
wave_run(Evaluation *e, Input **inputs, int n)
{
	static void (*const phases[])(Steps * steps, Input * input) = { plan_codes, plan_samples,
																	plan_truths, plan_distances };
	Steps steps = { .e = e };

	for (size_t phase = 0; phase < lengthof(phases); phase++)
	{
		for (int i = 0; i < n; i++)
			if (!inputs[i]->bad)
				phases[phase](&steps, inputs[i]);
		run_steps(&steps);
	}
}
