/*
 * Proves training on the CUDA device, on the imitated GPU of test/cuda with
 * naive convolutions in place of cuDNN's: two steps compute what the official
 * code does to 1e-4 in fp32; of each method what is trained moves and what is
 * frozen stays, to the bit; iterations that are replayed are those that are
 * launched one by one, to the bit, and so is a state that is put back, here or
 * from a checkpoint of the CPU, in whatever order streams run; a loss that is
 * no number changes nothing, also where the next iteration has begun; a
 * snapshot is the state that it was taken of, to the bit, though iterations run
 * before it is read; a preview is what a model of the weights makes, to the
 * bit, and nothing but its images crosses to the card; in bf16 losses are near;
 * whatever call of CUDA fails, the error is reported and nothing is lost. Under
 * a sanitizer networks are the least there are, few of the calls fail, and
 * numbers are not compared with the official ones.
 */
#include "train_golden.h"

#include "nn/cuda/module.h"

#include "cuda_runtime_api.h"

#define SMALL "\"size\":64,\"ngf\":4,\"nef\":4,\"ndf\":4"
#define AUGMENT "\"diff_augment\":\"color,translation,cutout\""
#define LEAST "\"size\":64,\"ngf\":1,\"nef\":1,\"ndf\":1,\"num_ds\":1"

#if defined(__SANITIZE_ADDRESS__)
#define SLOW 1
#define NETS LEAST
#else
#define SLOW 0
#define NETS SMALL
#endif

extern const NnCudaModule bicycle_cuda_module;

static NnDevice *
open_cuda(void)
{
	NnDevice *device = NULL;

	(void) went_well(bicycle_cuda_module.open(0, 1, &device, &train_error));
	return device;
}

static double *
params_of(const Run *run)
{
	return array_of(run, NN_ARRAY_PARAM);
}

static bool
same_arrays(const Run *x, const Run *y)
{
	static const NnArray arrays[] = { NN_ARRAY_PARAM, NN_ARRAY_M, NN_ARRAY_V, NN_ARRAY_EMA };
	bool same = true;

	for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++)
	{
		double *a = array_of(x, arrays[i]), *b = array_of(y, arrays[i]);
		size_t n = arrays[i] == NN_ARRAY_EMA ? nn_fit_training(x->fit)->nema
											 : nn_fit_params(x->fit)->total;

		if (memcmp(a, b, n * sizeof(double)) != 0)
		{
			diag("array %d differs", (int) arrays[i]);
			same = false;
		}
		free(a);
		free(b);
	}
	return same;
}

/* ---- What is trained ----------------------------------------------------- */

static bool
is_moved(const double *before, const double *after, const NnParam *p)
{
	return memcmp(before + p->offset, after + p->offset, p->count * sizeof(double)) != 0;
}

/* As test_train_run.c has it, for the same methods. */
static void
test_moves(NnDevice *device, const char *method, const char *more)
{
	char json[256];
	Run run;
	bool good;
	int moved = 0;

	snprintf(json, sizeof(json), "{" NETS ",\"method\":\"%s\"%s}", method, more);
	good = run_open(&run, device, json, 4);
	if (good)
	{
		double *before = params_of(&run), *after;
		const NnParams *params = nn_fit_params(run.fit);
		const bool *trained = nn_fit_training(run.fit)->schedule.trained;

		good = run_step(&run);
		after = params_of(&run);
		for (int i = 0; i < params->n; i++)
		{
			const NnParam *p = &params->list[i];
			bool head = strncmp(p->name, "fcVar", 5) == 0;

			if (p->integer || head)
				continue;
			moved += is_moved(before, after, p);
			if (is_moved(before, after, p) != (trained[i] || p->buffer))
			{
				diag("%s of %s %s", p->name, nn_network_name(p->network),
					 trained[i] ? "stays" : "moves");
				good = false;
			}
		}
		free(before);
		free(after);
	}
	ok(good && moved > 0, "%s%s: %d tensors move, the others stay", method, more, moved);
	run_close(&run);
}

/* ---- Replays and states -------------------------------------------------- */

#define STEPS (SLOW ? 3 : 4) /* the second is captured, later ones replayed */
#define LAST_SEED (SLOW ? 1u : 2u)

/* Puts the state of one into the other; true if it went. */
static bool
carry(const Run *from, Run *to)
{
	NnTensor *tensors = NULL;
	int n = 0;
	bool good =
		went_well(fit_state(from->fit, &tensors, &n, &train_error)) &&
		went_well(nn_fit_restore(to->fit, tensors, n, nn_fit_iteration(from->fit), &train_error));

	free(tensors);
	to->step = from->step;
	return good;
}

/*
 * A fit's first iteration is launched kernel by kernel: so a new one for each
 * iteration never replays.
 */
static void
test_replays(NnDevice *device, const char *json)
{
	Run whole, part;
	long replayed = gpu_graphs_run(), asleep = gpu_waits(true), awake = gpu_waits(false);
	bool good = run_open(&whole, device, json, 4) && run_steps(&whole, STEPS);
	long launched = gpu_graphs_run();

	ok(good && launched - replayed == STEPS - 1,
	   "%s: all iterations but the first are replayed: %ld", json, launched - replayed);
	ok(gpu_waits(true) > asleep && gpu_waits(false) == awake, "who waits for one sleeps");
	good = run_open(&part, device, json, 4);
	for (int i = 0; good && i < STEPS; i++)
	{
		Run next;

		good =
			run_open(&next, device, json, 4) && (i == 0 || carry(&part, &next)) && run_step(&next);
		run_close(&part);
		part = next;
	}
	ok(good && gpu_graphs_run() == launched && same_arrays(&whole, &part),
	   "and they are those that are launched one by one, to the bit");
	run_close(&whole);
	run_close(&part);
}

/* Half of the steps, then the rest by another fit. */
static void
test_halves(NnDevice *device, const char *json)
{
	Run whole, first, second;
	bool good = run_open(&whole, device, json, 4) && run_steps(&whole, 10) &&
				run_open(&first, device, json, 4) && run_steps(&first, 5) &&
				run_open(&second, device, json, 4) && carry(&first, &second) &&
				run_steps(&second, 5);

	ok(good && same_arrays(&whole, &second), "5 + 5 iterations are 10, to the bit");
	run_close(&whole);
	run_close(&first);
	run_close(&second);
}

/* A checkpoint of the CPU goes on here, and back. */
static void
test_other_device(NnDevice *device, NnDevice *cpu, const char *json)
{
	Run here, there, back;
	double *x, *y, *z, worst = 0;
	bool good = run_open(&there, cpu, json, 4) && run_steps(&there, 2) &&
				run_open(&here, device, json, 4) && carry(&there, &here);

	good = good && same_arrays(&there, &here);
	ok(good, "a checkpoint of the CPU is read to the bit");
	good = good && run_step(&here) && run_step(&there) && run_open(&back, cpu, json, 4) &&
		   carry(&here, &back);
	x = params_of(&here);
	y = params_of(&there);
	z = params_of(&back);
	for (size_t i = 0; good && i < nn_fit_params(here.fit)->total; i++)
	{
		worst = fmax(worst, fabs(x[i] - y[i]));
		good = good && x[i] == z[i];
	}
	ok(good && worst < 2.5 * here.options.lr, "and goes on as there, within %g", worst);
	free(x);
	free(y);
	free(z);
	run_close(&here);
	run_close(&there);
	run_close(&back);
}

/* Streams, blocks and threads in other orders, iterations that overlap. */
static void
test_orders(const char *json)
{
	Run plain, ahead;
	NnDevice *device = open_cuda();
	bool good = run_open(&plain, device, json, 4);
	float *a, *b;
	size_t n;
	NnLosses losses;

	n = (size_t) plain.options.batch_size * plain.config.size * plain.config.size * 3;
	a = malloc(n * sizeof(float));
	b = malloc(n * sizeof(float));
	for (size_t i = 0; i < n; i++)
	{
		a[i] = (float) plain.a[i];
		b[i] = (float) plain.b[i];
	}
	for (int i = 0; good && i < STEPS; i++)
		good = went_well(nn_fit_step(plain.fit, i % 2 ? a : b, b, NULL, &losses, &train_error));
	for (unsigned seed = 1; good && seed <= LAST_SEED; seed++)
	{
		gpu_settings->chance = seed * 2654435761u;
		good = run_open(&ahead, device, json, 4) && nn_fit_ahead(ahead.fit) == 1;
		for (int i = 0; good && i < STEPS; i++)
		{
			float *into[2];

			good = nn_fit_feeds(ahead.fit, &into[0], &into[1]);
			memcpy(into[0], i % 2 ? a : b, n * sizeof(float));
			memcpy(into[1], b, n * sizeof(float));
			good = good && went_well(nn_fit_start(ahead.fit, into[0], into[1], NULL, &train_error));
			if (good && i > 0)
				good = went_well(nn_fit_finish(ahead.fit, &losses, &train_error));
			good = good && nn_fit_iteration(ahead.fit) == i;
		}
		good = good && went_well(nn_fit_finish(ahead.fit, &losses, &train_error)) &&
			   same_arrays(&plain, &ahead);
		run_close(&ahead);
	}
	gpu_settings->chance = 0;
	ok(good, "iterations that are started ahead have the same bits, in whatever order streams, "
			 "blocks and threads run");
	free(a);
	free(b);
	run_close(&plain);
	nn_device_close(device);
}

/* ---- Snapshots ----------------------------------------------------------- */

/* Whether a snapshot is the state of another run, to the bit. */
static bool
is_state_of(const NnFitSnapshot *snapshot, Run *run)
{
	NnTensor *state = NULL;
	int n, nstate = 0;
	const NnTensor *tensors = nn_snapshot_tensors(snapshot, &n);
	bool same = went_well(fit_state(run->fit, &state, &nstate, &train_error)) && n == nstate &&
				nn_snapshot_iteration(snapshot) == nn_fit_iteration(run->fit);

	for (int i = 0; same && i < n; i++)
	{
		void *data = malloc(tensors[i].nbytes + 1);

		same = went_well(nn_snapshot_read(snapshot, i, data, &train_error)) &&
			   strcmp(tensors[i].name, state[i].name) == 0 &&
			   tensors[i].nbytes == state[i].nbytes &&
			   memcmp(data, state[i].data, state[i].nbytes) == 0;
		if (!same)
			diag("tensor %s differs", tensors[i].name);
		free(data);
	}
	free(state);
	return same;
}

/* Read at once, and after further iterations, which it must not see. */
static void
test_snapshots(const char *json)
{
	NnDevice *device = open_cuda();
	size_t before = gpu_memory_used();
	Run still, on;
	bool good = run_open(&still, device, json, 4) && run_steps(&still, 2);

	for (unsigned seed = 0; good && seed <= LAST_SEED; seed++)
	{
		NnFitSnapshot *snapshot = NULL;
		long launched;

		gpu_settings->chance = seed * 2654435761u;
		good = run_open(&on, device, json, 4) && run_steps(&on, 2) &&
			   nn_fit_has_snapshots(on.fit) &&
			   went_well(nn_fit_snapshot(on.fit, &snapshot, &train_error));
		launched = gpu_graphs_run();
		good = good && is_state_of(snapshot, &still) && run_steps(&on, 2) &&
			   gpu_graphs_run() - launched == 2 && is_state_of(snapshot, &still);
		nn_snapshot_free(snapshot);
		gpu_settings->chance = 0;
		if (seed < LAST_SEED)
			run_close(&on);
	}
	ok(good,
	   "%s: a snapshot is the state it was taken of, though iterations ran before it was "
	   "read, in whatever order streams ran",
	   json);
	ok(good && run_steps(&still, 2) && same_arrays(&still, &on),
	   "and those are what they would be");
	run_close(&still);
	run_close(&on);
	nn_device_set_memory(device, 1);
	ok(gpu_memory_used() <= before, "nothing of it is left on the card");
	nn_device_close(device);
}

/* Numbers of the state that are none. */
static void
test_bad_snapshot(NnDevice *device)
{
	Run run;
	NnFitSnapshot *snapshot = NULL;
	const float bad = NAN;
	NnStatus status = NN_OK;
	int n = 0;
	bool good = run_open(&run, device, "{" LEAST "}", 4) && run_steps(&run, 1) &&
				went_well(device->train->put(device, nn_fit_training(run.fit), NN_ARRAY_M, 0, 1,
											 &bad, &train_error)) &&
				went_well(nn_fit_snapshot(run.fit, &snapshot, &train_error));
	const NnTensor *tensors = good ? nn_snapshot_tensors(snapshot, &n) : NULL;

	for (int i = 0; status == NN_OK && i < n; i++)
	{
		void *data = malloc(tensors[i].nbytes + 1);

		status = nn_snapshot_read(snapshot, i, data, &train_error);
		free(data);
	}
	ok(good && status == NN_EINVAL && strstr(train_error.message, "iteration 1") &&
		   strstr(train_error.detail, "\"m."),
	   "a snapshot with a number that is none is not read: %s %s", train_error.message,
	   train_error.detail);
	nn_snapshot_free(snapshot);
	run_close(&run);
}

/* ---- Previews ------------------------------------------------------------ */

#define LOOK_IMAGES 4 /* of a translation; a look of the watch has four */
#define LOOK_EVERY 250
#define LOOK_PIXELS (LOOK_IMAGES * 64 * 64 * 3)

static uint8_t look_images[LOOK_PIXELS], looked[2][LOOK_PIXELS];
static float look_codes[LOOK_IMAGES * 64];

/* Translates by a model that is made of the fit's weights, in the host. */
static bool
translate_apart(NnFit *fit, const NnConfig *config, NnDevice *device, NnPrecision precision,
				uint8_t *out)
{
	NnTensor *tensors = NULL;
	NnModel *model = NULL;
	int n = 0;
	bool good =
		went_well(fit_weights(fit, &tensors, &n, &train_error)) &&
		went_well(nn_model_load(device, config, precision, tensors, n, &model, &train_error)) &&
		went_well(
			nn_model_translate(model, LOOK_IMAGES, look_images, look_codes, out, &train_error));

	free(tensors);
	nn_model_free(model);
	return good;
}

static bool
translate_here(NnFit *fit, uint8_t *out)
{
	return went_well(
		nn_fit_translate_bytes(fit, LOOK_IMAGES, look_images, look_codes, out, &train_error));
}

/* After each of a few steps: the model is there from the first on. */
static void
test_previews(NnDevice *device, const char *json)
{
	Run run;
	GpuCounts before = { 0 }, stepped = { 0 }, after = { 0 };
	long step, look, crossed, images;
	bool good = run_open(&run, device, json, 4), same = true;

	images = LOOK_PIXELS * 2 + LOOK_IMAGES * run.config.nz * (long) sizeof(float);
	for (int i = 0; i < LOOK_PIXELS; i++)
		look_images[i] = (uint8_t) (i * 7919 % 251);
	for (int i = 0; i < LOOK_IMAGES * 64; i++)
		look_codes[i] = cosf((float) i);
	for (int i = 0; good && i < 3; i++)
	{
		before = gpu_counts();
		good = run_step(&run);
		stepped = gpu_counts();
		good = good && translate_here(run.fit, looked[0]);
		after = gpu_counts();
		good = good && translate_apart(run.fit, &run.config, device, NN_PRECISION_FP32, looked[1]);
		same = same && memcmp(looked[0], looked[1], LOOK_PIXELS) == 0;
	}
	ok(good && same, "%s: a preview is what a model of the weights makes, to the bit", json);
	step = stepped.kernels - before.kernels;
	look = 4 * (after.kernels - stepped.kernels);
	crossed = after.crossed - stepped.crossed;
	ok(crossed >= images && crossed < images + 64,
	   "no weight crosses to the card: %ld bytes of %ld of images", crossed, images);
	ok(50 * look <= step * LOOK_EVERY,
	   "four of them launch %ld kernels, of %ld iterations of %ld a fiftieth or less", look,
	   (long) LOOK_EVERY, step);
	run_close(&run);
}

/* Weights that no loss has told of yet. */
static void
test_bad_preview(NnDevice *device)
{
	const float bad = NAN;
	Run run;
	bool good = run_open(&run, device, "{" LEAST "}", 4) && run_step(&run) &&
				translate_here(run.fit, looked[0]);

	good = good && run_step(&run) &&
		   went_well(device->train->put(device, nn_fit_training(run.fit), NN_ARRAY_PARAM, 1, 1,
										&bad, &train_error));
	ok(good &&
		   nn_fit_translate_bytes(run.fit, LOOK_IMAGES, look_images, look_codes, looked[0],
								  &train_error) == NN_EINVAL &&
		   strstr(train_error.message, "iteration 2"),
	   "there is none of weights that are no numbers: %s", train_error.message);
	run_close(&run);
}

/* ---- Divergence ---------------------------------------------------------- */

static void
test_divergence(NnDevice *device, const char *json)
{
	Run run, still;
	bool good = run_open(&run, device, json, 4) && run_open(&still, device, json, 4) &&
				run_steps(&run, 3) && run_steps(&still, 3);
	NnStatus status = NN_OK;

	if (good)
	{
		size_t n = (size_t) run.options.batch_size * 64 * 64 * 3;
		float *a = calloc(n, sizeof(float)), *b = calloc(n, sizeof(float));
		NnLosses losses;

		b[n - 1] = NAN;
		good = went_well(nn_fit_start(run.fit, a, b, NULL, &train_error));
		b[n - 1] = 0;
		good = good && went_well(nn_fit_start(run.fit, a, b, NULL, &train_error));
		status = nn_fit_finish(run.fit, &losses, &train_error);
		good = good && nn_fit_iteration(run.fit) == 3 && nn_fit_open_steps(run.fit) == 0 &&
			   same_arrays(&run, &still);
		free(a);
		free(b);
	}
	ok(good && status == NN_EINVAL && strstr(train_error.message, "iteration 4") &&
		   strstr(train_error.detail, "D2"),
	   "a loss that is no number changes nothing, nor does what was begun after it: %s",
	   train_error.message);
	good = good && run_step(&run) && run_step(&still);
	ok(good && same_arrays(&run, &still), "and what follows is what follows the last good one");
	run_close(&run);
	run_close(&still);
}

/* ---- Precision ----------------------------------------------------------- */

static void
test_precision(NnDevice *device, NnPrecision precision, int steps, double tolerance)
{
	static const char json[] = "{" NETS ",\"seed\":3,\"lr\":0.001}";
	NnConfig config;
	NnTrainOptions options;
	NnFit *fits[2] = { NULL };
	double sums[2][NN_LOSSES] = { { 0 } };
	size_t count = 2 * 64 * 64 * 3;
	float *images = malloc(count * sizeof(float));
	bool good =
		went_well(nn_train_options_parse(&config, &options, json, sizeof(json) - 1, &train_error));

	for (size_t i = 0; i < count; i++)
		images[i] = sinf(0.01f * (float) (i % 7919));
	for (int k = 0; good && k < 2; k++)
		good = went_well(nn_fit_open(device, &config, &options, k ? precision : NN_PRECISION_FP32,
									 4, NULL, 0, &fits[k], &train_error));
	for (int step = 0; good && step < steps; step++)
		for (int k = 0; good && k < 2; k++)
		{
			NnLosses losses;

			good = went_well(nn_fit_step(fits[k], images, images, NULL, &losses, &train_error));
			for (int i = 0; good && i < NN_LOSSES; i++)
				sums[k][i] += losses.value[i];
		}
	for (int i = 0; good && i < NN_LOSSES; i++)
	{
		good = fabs(sums[1][i] - sums[0][i]) <= tolerance * fabs(sums[0][i]) + 1e-3;
		if (!good)
			diag("sum of %s is %g, in fp32 %g", nn_loss_name((NnLoss) i), sums[1][i], sums[0][i]);
	}
	ok(good && translate_here(fits[1], looked[0]) &&
		   translate_apart(fits[1], &config, device, precision, looked[1]) &&
		   memcmp(looked[0], looked[1], LOOK_PIXELS) == 0,
	   "in %s a preview is what a model of that precision makes, to the bit",
	   nn_precision_name(precision));
	ok(good && nn_fit_bytes(fits[1]) <= nn_fit_bytes(fits[0]),
	   "steps in %s have nearly the losses of those in fp32", nn_precision_name(precision));
	for (int k = 0; k < 2; k++)
		nn_fit_close(fits[k]);
	free(images);
}

static void
test_old_card(void)
{
	NnDevice *device;
	Run run;

	gpu_settings->major = 7;
	gpu_settings->minor = 5;
	device = open_cuda();
	ok(nn_train_precision(device, &(NnConfig){ .precision = NN_PRECISION_AUTO },
						  NN_PRECISION_AUTO) == NN_PRECISION_FP32 &&
		   !device->train->trains_in(device, NN_PRECISION_BF16) &&
		   !device->train->trains_in(device, NN_PRECISION_TF32),
	   "before compute capability 8.0 training is in fp32");
	ok(run_open(&run, device, "{" SMALL "}", 4) && run_step(&run), "and works");
	run_close(&run);
	nn_device_close(device);
	gpu_settings->major = 9;
	gpu_settings->minor = 0;
}

/* ---- Faults -------------------------------------------------------------- */

static NnStatus
take_snapshot(NnFit *fit)
{
	NnFitSnapshot *snapshot = NULL;
	NnStatus status = nn_fit_snapshot(fit, &snapshot, &train_error);
	const NnTensor *tensors;
	void *data;

	if (status != NN_OK)
		return status;
	tensors = nn_snapshot_tensors(snapshot, &(int){ 0 });
	data = malloc(tensors[0].nbytes);
	status = nn_snapshot_read(snapshot, 0, data, &train_error);
	free(data);
	nn_snapshot_free(snapshot);
	return status;
}

static NnStatus
open_and_run(Run *run, NnDevice *device)
{
	NnTensor *tensors;
	NnStatus status;
	float *images = calloc(2 * 64 * 64 * 3, sizeof(float));
	int n;

	status = nn_fit_open(device, &run->config, &run->options, NN_PRECISION_FP32, 4, NULL, 0,
						 &run->fit, &train_error);
	for (int i = 0; status == NN_OK && i < 3; i++)
		status = nn_fit_step(run->fit, images, images, NULL, &run->losses, &train_error);
	if (status == NN_OK)
		status = fit_state(run->fit, &tensors, &n, &train_error);
	if (status == NN_OK)
	{
		free(tensors);
		status = take_snapshot(run->fit);
	}
	free(images);
	return status;
}

/*
 * One call of CUDA fails, each in turn: prepare, put, step, replay, get,
 * snapshot.
 */
static void
test_faults(void)
{
	static const char json[] = "{" LEAST ",\"method\":\"pix2pix_noise\",\"nz\":0,\"ema\":0.9}";
	NnDevice *device = open_cuda();
	size_t before = gpu_memory_used();
	bool finished = false;
	int reported = 0, tried = 0;

	for (long i = 1; !finished && i < 40000; i += i < 50 && !SLOW ? 1 : SLOW ? 97 : 61, tried++)
	{
		Run run = { .device = device };
		NnStatus status =
			nn_train_options_parse(&run.config, &run.options, json, sizeof(json) - 1, &train_error);

		gpu_settings->fail_in = i;
		if (status == NN_OK)
			status = open_and_run(&run, device);
		finished = gpu_settings->fail_in > 0;
		gpu_settings->fail_in = 0;
		reported += status != NN_OK && train_error.message[0] != '\0';
		if (status != NN_OK && train_error.message[0] == '\0')
			diag("call %ld failed without a message", i);
		nn_fit_close(run.fit);
	}
	nn_device_set_memory(device, 1);
	ok(finished && reported > (SLOW ? 2 : 50) && gpu_memory_used() <= before,
	   "failures of CUDA are reported and lose no memory: %d of %d", reported, tried);
	nn_device_close(device);
}

int
main(void)
{
	NnDevice *device = open_cuda(), *cpu = NULL;

	if (!device || !went_well(nn_device_open("cpu", 2, &cpu, &train_error)))
		return 1;
	test_moves(device, "bicycle", "");
	test_moves(device, "cvae_gan", "");
	test_moves(device, "cvae_gan++", "");
	test_moves(device, "cae_gan", "");
	test_moves(device, "clr_gan", "");
	test_moves(device, "pix2pix_noise", "");
	test_moves(device, "bicycle", ",\"norm\":\"batch\"");
	test_replays(device, "{" NETS ",\"ema\":0.9,\"dropout\":true," AUGMENT "}");
	if (!SLOW)
		test_halves(device, "{" LEAST ",\"norm\":\"batch\",\"ema\":0.9}");
	test_other_device(device, cpu, "{" NETS ",\"ema\":0.9,\"conditional_d\":true," AUGMENT "}");
	test_orders("{" LEAST "}");
	test_snapshots("{" LEAST ",\"norm\":\"batch\",\"ema\":0.9}");
	test_bad_snapshot(device);
	test_previews(device, "{" LEAST ",\"norm\":\"batch\",\"ema\":0.9}");
	test_previews(device, "{" LEAST ",\"where_add\":\"input\",\"upsample\":\"bilinear\"}");
	test_bad_preview(device);
	if (!SLOW)
		test_divergence(device, "{" NETS "}");
	test_divergence(device, "{" NETS ",\"norm\":\"batch\",\"ema\":0.5}");
	test_precision(device, NN_PRECISION_BF16, SLOW ? 2 : 6, 0.05);
	if (!SLOW)
		test_precision(device, NN_PRECISION_TF32, 2, 0); /* which is fp32 here */
	test_faults();
	test_old_card();
	for (size_t i = 0; !SLOW && i < sizeof(train_goldens) / sizeof(train_goldens[0]); i++)
		test_golden(device, &train_goldens[i], 1e-4, 1e-3);
	nn_device_close(device);
	ok(gpu_memory_used() == 0, "all memory of the GPU was given back");
	nn_device_close(cpu);
	return done_testing();
}
