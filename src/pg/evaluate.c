/*
 * evaluate.c
 *	  bicycle_evaluate: how good a model is, in numbers.
 *
 * R1 The model is looked up once, as the caller; all of it is of that version.
 * R2 Inputs go through in waves of as many images as keep the engine busy. What
 *    a wave holds goes with it; that, and what stays until the end, is counted
 *    against maintenance_work_mem.
 * R3 Equal arguments over equal data in equal order give equal rows, as far as
 *    the device's bits are equal.
 */
#include "pg/evaluate.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "pg/image_call.h"
#include "pg/lpips.h"

#define TELL_FIRST (5 * USECS_PER_SEC)
#define WAVE_WINDOWS 4 /* images of a wave, in windows of open calls */

PG_FUNCTION_INFO_V1(bicycle_evaluate);

typedef struct Progress
{
	TimestampTz began;
	TimestampTz tell_at;
} Progress;

/* ---- What can be measured ------------------------------------------------ */

/* The metrics that need this are left out; the first that was asked for. */
static const char *
leave_metrics(Evaluation *e, unsigned needs)
{
	const char *first = NULL;

	for (int i = 0; i < METRICS; i++)
		if (e->options.wants[i] && (metric_kinds[i].needs & needs) != 0)
		{
			first = first != NULL ? first : metric_kinds[i].name;
			e->options.wants[i] = false;
		}
	return e->options.named ? first : NULL;
}

static void
choose_metrics(Evaluation *e)
{
	const char *metric;

	if (!e->model->has_encoder && (metric = leave_metrics(e, NEEDS_ENCODER)) != NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("metric \"%s\" needs an encoder", metric),
						errdetail("Version %d of model \"%s\" holds a generator only.",
								  e->model->version, e->model->name)));
	if (e->model->nz == 0 && (metric = leave_metrics(e, NEEDS_CODE | NEEDS_SAMPLES)) != NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("metric \"%s\" needs a latent code", metric),
						errdetail("Version %d of model \"%s\" has none.", e->model->version,
								  e->model->name)));
	e->samples = e->model->nz > 0 ? e->options.samples : 1;
	if (e->samples < 2 && (metric = leave_metrics(e, NEEDS_SAMPLES)) != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("metric \"%s\" needs two samples of each input at least", metric),
						errhint("Raise the option \"samples\".")));
	if (!evaluation_wants(e, NEEDS_LPIPS))
		return;
	e->lpips = lpips_model(e->options.net, e->options.lpips, !e->options.named);
	if (e->lpips != NULL)
		return;
	(void) leave_metrics(e, NEEDS_LPIPS);
	ereport(NOTICE, (errmsg("LPIPS and what is made of its features are left out"),
					 errdetail("There is no model \"lpips-%s-%s\" that you may see.",
							   e->options.net, e->options.lpips),
					 errhint("Import them with \"make lpips\", or with bicycle_import_lpips.")));
}

/* ---- Telling ------------------------------------------------------------ */

static void
tell_skipped(const Evaluation *e)
{
	if (e->nskipped > 0)
		ereport(NOTICE, (errmsg("skipped " INT64_FORMAT " of " INT64_FORMAT " pairs", e->nskipped,
								e->npairs),
						 errdetail_internal("%s", e->reasons.data)));
	if (e->npairs == e->nskipped)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("there are no pairs to evaluate the model on")));
}

/* Soon at first, then more and more rarely, as bicycle_fill does. */
static void
tell_evaluated(Progress *told, int64 done, int64 all)
{
	TimestampTz now = GetCurrentTimestamp();
	int64 left;

	if (now < told->tell_at || done == 0 || done == all)
		return;
	told->tell_at = now + Min(Max((now - told->began) / 10, USECS_PER_SEC), USECS_PER_MINUTE);
	left = (int64) ((double) (now - told->began) * (all - done) / done / USECS_PER_SEC);
	ereport(NOTICE, (errmsg("evaluated " INT64_FORMAT " of " INT64_FORMAT
							" inputs, about " INT64_FORMAT ":%02d:%02d left",
							done, all, left / 3600, (int) (left / 60 % 60), (int) (left % 60))));
}

/* ---- Waves --------------------------------------------------------------- */

/* How many inputs the next wave has; 0: there are no more. */
static int
take_wave(Evaluation *e, Inputs *inputs, Input **wave, int most)
{
	int images = WAVE_WINDOWS * image_window();
	int n = 0;

	e->held = 0;
	while (n < most && images > 0 && e->kept + e->held <= e->limit / 4)
	{
		wave[n] = inputs_next(inputs);
		if (wave[n] == NULL)
			break;
		images -= e->samples + wave[n]->ntruths;
		n++;
	}
	/* Whatever it holds, one can be tried. */
	if (n == 0 && (wave[0] = inputs_next(inputs)) != NULL)
		n = 1;
	return n;
}

static void
measure_waves(Evaluation *e, Inputs *inputs, Numbers *numbers)
{
	MemoryContext memory =
		AllocSetContextCreate(CurrentMemoryContext, "bicycle evaluation", ALLOCSET_DEFAULT_SIZES);
	int most = WAVE_WINDOWS * image_window();
	Input **wave = palloc(most * sizeof(Input *));
	Progress told = { .began = GetCurrentTimestamp() };
	int64 done = 0;
	int n;

	told.tell_at = told.began + TELL_FIRST;
	for (;;)
	{
		MemoryContext old = MemoryContextSwitchTo(memory);

		n = take_wave(e, inputs, wave, most);
		wave_run(e, wave, n);
		for (int i = 0; i < n; i++)
			if (!wave[i]->bad)
				numbers_add(numbers, wave[i]);
		MemoryContextSwitchTo(old);
		MemoryContextReset(memory);
		if (n == 0)
			break;
		done += n;
		tell_evaluated(&told, done, inputs_count(inputs));
	}
	MemoryContextDelete(memory);
}

/*
 * bicycle_evaluate(model text, pairs text, options jsonb DEFAULT '{}') ->
 * TABLE(metric text, value float8, stderr float8, n bigint)
 */
Datum
bicycle_evaluate(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Evaluation e = { 0 };
	Inputs *inputs;
	Numbers *numbers;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("query of the pairs must not be null")));
	evaluate_options_read(fcinfo, 2, &e.options);
	e.model = model_lookup(PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0),
						   e.options.version > 0 ? &e.options.version : NULL);
	e.limit = (Size) maintenance_work_mem * 1024;
	initStringInfo(&e.reasons);
	choose_metrics(&e);
	inputs = inputs_open(&e, text_to_cstring(PG_GETARG_TEXT_PP(1)));
	numbers = numbers_begin(&e);
	measure_waves(&e, inputs, numbers);
	inputs_close(inputs);
	tell_skipped(&e);
	numbers_rows(numbers, rsinfo->setResult, rsinfo->setDesc);
	return (Datum) 0;
}
