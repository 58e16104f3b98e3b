/*
 * Proves how a run behaves, for each of the six methods: what is trained moves
 * and what is frozen stays, to the bit; losses fall; a state that is put back
 * goes on as if nothing had happened, to the bit; averages, previews, learning
 * rates and errors. Whether losses fall is not a sanitizer's to see.
 */
#include "nn/cpu/cpu_train.h"
#include "progress.h"
#include "train_fixture.h"

#define SMALL "\"size\":64,\"ngf\":4,\"nef\":4,\"ndf\":4"

#if defined(__SANITIZE_ADDRESS__)
#define SLOW 1
#else
#define SLOW 0
#endif

static NnDevice *ref, *cpu;

/* ---- What is trained ----------------------------------------------------- */

static bool
is_moved(const double *before, const double *after, const NnParam *p)
{
	return memcmp(before + p->offset, after + p->offset, p->count * sizeof(double)) != 0;
}

/*
 * Every tensor of every network of the method moves in one step, except biases
 * that a norm takes away, running statistics without batch norm and, where only
 * the posterior's mean is read, the head of its variance.
 */
static void
test_moves(const char *method, const char *more, int still)
{
	char json[256];
	Run run;
	bool good;
	int unmoved = 0, vanishing = 0;

	snprintf(json, sizeof(json), "{" SMALL ",\"method\":\"%s\"%s}", method, more);
	good = run_open(&run, ref, json, 4);
	if (good)
	{
		double *before = array_of(&run, NN_ARRAY_PARAM), *after;
		const NnParams *params = nn_fit_params(run.fit);
		const bool *trained = nn_fit_training(run.fit)->schedule.trained;

		good = run_step(&run);
		after = array_of(&run, NN_ARRAY_PARAM);
		for (int i = 0; i < params->n; i++)
		{
			const NnParam *p = &params->list[i];
			bool head = strncmp(p->name, "fcVar", 5) == 0;

			if (p->integer)
				continue;
			unmoved += head && !is_moved(before, after, p);
			vanishing += !head && !trained[i] && !p->buffer;
			if (!head && is_moved(before, after, p) != (trained[i] || p->buffer))
			{
				diag("%s of %s %s", p->name, nn_network_name(p->network),
					 trained[i] ? "stays" : "moves");
				good = false;
			}
			if (!trained[i] && !p->buffer && !head && strstr(p->name, ".bias") == NULL)
			{
				diag("%s of %s is not trained", p->name, nn_network_name(p->network));
				good = false;
			}
		}
		free(before);
		free(after);
	}
	ok(good && unmoved == still, "%s%s: all tensors move but %d, and %d biases before norms",
	   method, more, unmoved, vanishing);
	run_close(&run);
}

/* The gradients of one step; malloc'ed. */
static double *
gradients(const char *json, Run *run)
{
	if (!run_open(run, ref, json, 4) || !run_step(run))
		return NULL;
	return array_of(run, NN_ARRAY_GRAD);
}

/*
 * Whether the gradients of networks in `same` are equal to the bit with both
 * options, and those of networks in `other` are not.
 */
static void
test_passes(const char *a, const char *b, unsigned same, unsigned other, const char *what)
{
	Run one = { 0 }, two = { 0 };
	double *x = gradients(a, &one), *y = gradients(b, &two);
	bool good = x && y;

	for (int network = 0; good && network < NN_NETWORKS; network++)
	{
		const NnParams *params = nn_fit_params(one.fit);
		bool equal = true;

		for (int i = 0; i < params->n; i++)
		{
			const NnParam *p = &params->list[i];
			int j = nn_params_find(nn_fit_params(two.fit), p->network, p->name);

			if (p->network == (NnNetwork) network && j >= 0 &&
				memcmp(x + p->offset, y + nn_fit_params(two.fit)->list[j].offset,
					   p->count * sizeof(double)) != 0)
				equal = false;
		}
		if ((same >> network & 1 && !equal) || (other >> network & 1 && equal))
		{
			diag("gradients of %s are %s", nn_network_name((NnNetwork) network),
				 equal ? "the same" : "not the same");
			good = false;
		}
	}
	ok(good, "%s", what);
	free(x);
	free(y);
	run_close(&one);
	run_close(&two);
}

static void
test_frozen(void)
{
	const unsigned g = 1u << NN_NET_G, e = 1u << NN_NET_E, d = 1u << NN_NET_D, d2 = 1u << NN_NET_D2;

	test_passes("{" SMALL "}", "{" SMALL ",\"lambda_z\":0}", e | d | d2, g,
				"the latent loss trains G through a frozen E");
	test_passes("{" SMALL "}", "{" SMALL ",\"lambda_gan\":3}", d | d2, g | e,
				"what D says of encoded samples trains G and E, not D");
	test_passes("{" SMALL "}", "{" SMALL ",\"lambda_gan2\":3}", e | d | d2, g,
				"what D2 says of random samples trains G alone");
	test_passes("{" SMALL "}", "{" SMALL ",\"lambda_l1\":3}", d | d2, g | e,
				"the distance to the target trains G and E");
	test_passes("{" SMALL "}", "{" SMALL ",\"lambda_kl\":3}", g | d | d2, e,
				"the divergence of codes trains E alone");
	test_passes("{" SMALL "}", "{" SMALL ",\"lambda_gan2\":0}", d | e, g,
				"without lambda_gan2 the rest is as before");
	test_passes("{" SMALL ",\"method\":\"clr_gan\"}",
				"{" SMALL ",\"method\":\"clr_gan\",\"lambda_z\":2}", d2, g | e,
				"in clr_gan the latent loss trains G and E");
	test_passes("{" SMALL ",\"method\":\"clr_gan\"}",
				"{" SMALL ",\"method\":\"clr_gan\",\"lambda_gan2\":2}", d2 | e, g,
				"and its discriminator G alone");
	test_passes("{" SMALL ",\"method\":\"pix2pix_noise\"}",
				"{" SMALL ",\"method\":\"pix2pix_noise\",\"lambda_gan\":2}", d, g,
				"so does that of pix2pix_noise");
	test_passes("{" SMALL ",\"method\":\"cae_gan\"}",
				"{" SMALL ",\"method\":\"cae_gan\",\"lambda_l1\":2}", d, g | e,
				"in cae_gan the target trains G and E");
}

/* ---- Losses -------------------------------------------------------------- */

static void
test_falls(const char *method, NnLoss loss)
{
	const int steps = 30;
	char json[256];
	Run run;
	double first = 0, last = 0;
	bool good;

	snprintf(json, sizeof(json), "{" SMALL ",\"nz\":2,\"method\":\"%s\",\"lr\":0.002}", method);
	good = run_open(&run, cpu, json, 4);
	for (size_t i = 0; good && i < (size_t) run.options.batch_size * 64 * 64 * 3; i++)
		run.b[i] = i % 3 == 0 ? 0.7 : -0.4; /* targets of one colour */
	for (int i = 0; good && i < steps; i++)
	{
		run.step = i % 2; /* two codes to learn */
		good = run_step(&run);
		for (int k = 0; good && k < NN_LOSSES; k++)
			good = isfinite(run.losses.value[k]) &&
				   (run.losses.present[k] || run.losses.value[k] == 0);
		if (i < 4)
			first += run.losses.value[loss] / 4;
		if (i >= steps - 4)
			last += run.losses.value[loss] / 4;
	}
	ok(good && run.losses.present[loss] && last < 0.8 * first,
	   "%s: %s falls from %.3f to %.3f in %d steps", method, nn_loss_name(loss), first, last,
	   steps);
	run_close(&run);
}

static void
test_losses(void)
{
	test_falls("bicycle", NN_LOSS_G_L1);
	test_falls("cvae_gan", NN_LOSS_G_L1);
	test_falls("cvae_gan++", NN_LOSS_G_L1);
	test_falls("cae_gan", NN_LOSS_G_L1);
	test_falls("clr_gan", NN_LOSS_Z_L1);
	test_falls("pix2pix_noise", NN_LOSS_G_L1);
}

/*
 * Options of all kinds at once: the losses are finite, and on both devices the
 * same.
 */
static void
test_options(const char *options)
{
	char json[256];
	Run a, b;
	bool good;

	snprintf(json, sizeof(json), "{\"size\":64,\"ngf\":4,\"nef\":4,\"ndf\":8%s}", options);
	good = run_open(&a, ref, json, 7) & run_open(&b, cpu, json, 7);
	for (int step = 0; good && step < 2; step++)
	{
		good = run_step(&a) && run_step(&b);
		for (int k = 0; good && k < NN_LOSSES; k++)
			if (fabs(a.losses.value[k] - b.losses.value[k]) >
					1e-3 * fabs(a.losses.value[k]) + 1e-6 ||
				a.losses.present[k] != b.losses.present[k])
			{
				diag("step %d: %s is %.7g on ref and %.7g on cpu", step, nn_loss_name((NnLoss) k),
					 a.losses.value[k], b.losses.value[k]);
				good = false;
			}
	}
	ok(good, "it trains with %s", options);
	run_close(&a);
	run_close(&b);
}

/* ---- State --------------------------------------------------------------- */

typedef struct Saved
{
	NnTensor *tensors;
	int n;
} Saved;

/* A copy that outlives the fit. */
static Saved
save(NnFit *fit)
{
	Saved saved = { 0 };

	if (!went_well(fit_state(fit, &saved.tensors, &saved.n, &train_error)))
		return saved;
	for (int i = 0; i < saved.n; i++)
	{
		void *data = malloc(saved.tensors[i].nbytes + 1);

		memcpy(data, saved.tensors[i].data, saved.tensors[i].nbytes);
		saved.tensors[i].data = data;
		saved.tensors[i].name = strdup(saved.tensors[i].name);
	}
	return saved;
}

static void
saved_free(Saved *saved)
{
	for (int i = 0; i < saved->n; i++)
	{
		free((void *) saved->tensors[i].data);
		free((char *) saved->tensors[i].name);
	}
	free(saved->tensors);
}

static bool
same_state(const Saved *a, const Saved *b)
{
	for (int i = 0; i < a->n && a->n == b->n; i++)
		if (strcmp(a->tensors[i].name, b->tensors[i].name) != 0 ||
			a->tensors[i].nbytes != b->tensors[i].nbytes ||
			memcmp(a->tensors[i].data, b->tensors[i].data, a->tensors[i].nbytes) != 0)
		{
			diag("%s of %s differs", a->tensors[i].name, nn_network_name(a->tensors[i].network));
			return false;
		}
	return a->n == b->n && a->n > 0;
}

/*
 * Steps with codes and dropout that the fit draws, on images that change.
 */
static bool
drawn_steps(Run *run, int first, int end)
{
	size_t na = (size_t) run->options.batch_size * run->config.size * run->config.size *
				run->config.input_nc;
	size_t nb = (size_t) run->options.batch_size * run->config.size * run->config.size *
				run->config.output_nc;
	bool good = true;

	for (int i = first; good && i < end; i++)
	{
		double *values = malloc((na + nb) * sizeof(double));
		float *floats;

		lcg_fill(1000 + i, 1, na + nb, values);
		floats = floats_of(values, na + nb);
		good =
			went_well(nn_fit_step(run->fit, floats, floats + na, NULL, &run->losses, &train_error));
		free(values);
		free(floats);
	}
	return good;
}

static void
test_resume(NnDevice *device, const char *options, int stop, int steps)
{
	char json[256];
	Run whole, half, rest;
	Saved expected = { 0 }, middle = { 0 }, got = { 0 };
	bool good;

	snprintf(json, sizeof(json), "{" SMALL ",\"seed\":17,\"iterations\":%d%s}", steps, options);
	good = run_open(&whole, device, json, 5) & run_open(&half, device, json, 5) &
		   run_open(&rest, device, json, 5);
	if (good)
	{
		good = drawn_steps(&whole, 0, steps) && drawn_steps(&half, 0, stop);
		middle = save(half.fit);
		good = good && drawn_steps(&rest, 50, 53) &&
			   went_well(nn_fit_restore(rest.fit, middle.tensors, middle.n, stop, &train_error)) &&
			   nn_fit_iteration(rest.fit) == stop && drawn_steps(&rest, stop, steps);
		expected = save(whole.fit);
		got = save(rest.fit);
		good = good && same_state(&expected, &got) &&
			   memcmp(&whole.losses, &rest.losses, sizeof(NnLosses)) == 0;
	}
	ok(good, "%s: %d steps, a state put back, %d steps are %d steps to the bit%s", device->name,
	   stop, steps - stop, steps, options);
	saved_free(&expected);
	saved_free(&middle);
	saved_free(&got);
	run_close(&whole);
	run_close(&half);
	run_close(&rest);
}

/*
 * A step of training takes long on a slow machine: whoever watches hears of
 * each layer, forward and backward.
 */
static void
test_watch(NnDevice *device)
{
	Run run;
	bool stepped;

	nn_device_watch(device, on_progress);
	progress = 0;
	stepped = run_open(&run, device, "{" SMALL "}", 4) && run_step(&run);
	ok(stepped && progress > 200, "a step on %s: its watchdog hears %d times of progress",
	   device->name, progress);
	nn_device_watch(device, NULL);
	run_close(&run);
}

/* However many threads share a step, it is the same to the bit. */
static void
test_threads(void)
{
	static const int threads[] = { 1, 2, 3, 2 };
	Saved first = { 0 };
	bool good = true;

	for (size_t i = 0; good && i < sizeof(threads) / sizeof(threads[0]); i++)
	{
		NnDevice *device;
		Saved saved = { 0 };
		Run run;

		if (!went_well(nn_device_open("cpu", threads[i], &device, &train_error)))
			return;
		good = run_open(&run, device, "{" SMALL ",\"dropout\":true}", 4) && drawn_steps(&run, 0, 2);
		if (good && i == 0)
			first = save(run.fit);
		else if (good)
		{
			saved = save(run.fit);
			good = same_state(&first, &saved);
			saved_free(&saved);
		}
		run_close(&run);
		nn_device_close(device);
	}
	ok(good, "one, two and three threads give the same bits");
	saved_free(&first);
}

/* A run in bf16 is another run, but goes where that in fp32 goes. */
static void
test_bf16(NnDevice *device)
{
	static const char json[] = "{" SMALL ",\"seed\":3,\"lr\":0.001}";
	NnConfig config;
	NnTrainOptions options;
	NnFit *fits[2] = { NULL };
	double sums[2][NN_LOSSES] = { { 0 } };
	float *images = malloc(2 * 64 * 64 * 3 * sizeof(float));
	bool good = went_well(
			 nn_train_options_parse(&config, &options, json, sizeof(json) - 1, &train_error)),
		 different = false;

	for (size_t i = 0; i < 2 * 64 * 64 * 3; i++)
		images[i] = sinf(0.01f * (float) (i % 7919));
	for (int k = 0; good && k < 2; k++)
		good = went_well(nn_fit_open(device, &config, &options,
									 k ? NN_PRECISION_BF16 : NN_PRECISION_FP32, 4, NULL, 0,
									 &fits[k], &train_error));
	for (int step = 0; good && step < 12; step++)
		for (int k = 0; good && k < 2; k++)
		{
			NnLosses losses;

			good = went_well(nn_fit_step(fits[k], images, images, NULL, &losses, &train_error));
			for (int i = 0; good && i < NN_LOSSES; i++)
				sums[k][i] += losses.value[i];
		}
	for (int i = 0; good && i < NN_LOSSES; i++)
	{
		good = fabs(sums[1][i] - sums[0][i]) <= 0.05 * fabs(sums[0][i]) + 1e-3;
		different = different || sums[1][i] != sums[0][i];
		if (!good)
			diag("sum of %s is %g, in fp32 %g", nn_loss_name((NnLoss) i), sums[1][i], sums[0][i]);
	}
	ok(good && different, "%s: twelve steps in bf16 have nearly the losses of those in fp32",
	   device->name);
	for (int k = 0; k < 2; k++)
		nn_fit_close(fits[k]);
	free(images);
}

static void
test_state_errors(void)
{
	Run run;
	Saved saved = { 0 };
	bool good = run_open(&run, cpu, "{" SMALL ",\"ema\":0.9}", 4);

	if (!good)
		return;
	saved = save(run.fit);
	ok(nn_fit_restore(run.fit, saved.tensors, saved.n - 1, 0, &train_error) == NN_EINVAL &&
		   strstr(train_error.message, "ema.") != NULL &&
		   strstr(train_error.message, "is missing") != NULL,
	   "a state without its last tensor is refused");
	ok(nn_fit_restore(run.fit, saved.tensors, saved.n, -1, &train_error) == NN_EINVAL,
	   "so is one from before the start");
	saved.tensors[3].shape[0]++;
	ok(nn_fit_restore(run.fit, saved.tensors, saved.n, 0, &train_error) == NN_EINVAL &&
		   strstr(train_error.message, saved.tensors[3].name) != NULL,
	   "and one with a tensor of another shape");
	saved_free(&saved);
	run_close(&run);
}

/*
 * Losses are finite and the update is not: the state is neither stored nor made
 * a model, nor shown.
 */
static void
test_overflow(NnDevice *device)
{
	Run run;
	bool good = run_open(&run, device, "{" SMALL "}", 4);
	const double huge = INFINITY;
	const float huge_float = INFINITY;
	NnTensor *tensors = NULL;
	NnStatus stored = NN_OK, model = NN_OK, shown = NN_OK;
	int n;

	if (good)
	{
		const NnParam *p = &nn_fit_params(run.fit)
								->list[1]; /* of one dimension: the layout is that of the array */
		float *out = malloc((size_t) 64 * 64 * 3 * sizeof(float)),
			  *a = floats_of(run.a, 64 * 64 * 3), z[8] = { 0 };
		NnTraining *training = nn_fit_training(run.fit);
		size_t each = device->train->dtype == NN_F64 ? sizeof(double) : sizeof(float);
		char *moments = calloc(p->count, each);

		memcpy(moments, device->train->dtype == NN_F64 ? (const void *) &huge : &huge_float, each);
		good = p->ndim == 1 &&
			   went_well(device->train->put(device, training, NN_ARRAY_M, p->offset, p->count,
											moments, &train_error)) &&
			   run_step(&run);
		stored = fit_state(run.fit, &tensors, &n, &train_error);
		good =
			good && strstr(train_error.message, "diverged") && strstr(train_error.detail, p->name);
		model = fit_weights(run.fit, &tensors, &n, &train_error);
		shown = nn_fit_translate(run.fit, 1, a, z, out, &train_error);
		free(moments);
		free(out);
		free(a);
	}
	ok(good && stored == NN_EINVAL && model == NN_EINVAL && shown == NN_EINVAL && tensors == NULL,
	   "%s: weights that are no numbers are not given out", device->name);
	run_close(&run);
}

/*
 * A loss that is not finite ends the step before anything is updated, a batch
 * norm's statistics among it.
 */
static void
test_divergence(NnDevice *device, const char *json)
{
	Run run;
	Saved before = { 0 }, after = { 0 };
	NnStatus status = NN_OK;
	bool good = run_open(&run, device, json, 4);

	if (good)
	{
		size_t n = (size_t) run.options.batch_size * 64 * 64 * 3;
		float *a = floats_of(run.a, n), *b = floats_of(run.b, n);

		b[n - 1] = NAN;
		before = save(run.fit);
		status = nn_fit_step(run.fit, a, b, NULL, &run.losses, &train_error);
		after = save(run.fit);
		good = same_state(&before, &after) && nn_fit_iteration(run.fit) == 0;
		free(a);
		free(b);
	}
	ok(good && status == NN_EINVAL && strstr(train_error.message, "diverged") &&
		   strstr(train_error.detail, "D2"),
	   "%s: a loss that is no number changes nothing: %s", device->name, json);
	saved_free(&before);
	saved_free(&after);
	run_close(&run);
}

/* ---- Averages, previews, batch norm -------------------------------------- */

static void
test_averages(void)
{
	Run run;
	bool good = run_open(&run, ref, "{" SMALL ",\"ema\":0.75}", 4);
	NnTensor *weights = NULL;
	int n = 0;

	if (good)
	{
		double *before = array_of(&run, NN_ARRAY_PARAM), *after, *ema;
		size_t count = nn_fit_training(run.fit)->nema;

		good = run_step(&run);
		after = array_of(&run, NN_ARRAY_PARAM);
		ema = array_of(&run, NN_ARRAY_EMA);
		for (size_t i = 0; good && i < count; i++)
			good = fabs(ema[i] - (0.75 * before[i] + 0.25 * after[i])) < 1e-14;
		good = good && went_well(fit_weights(run.fit, &weights, &n, &train_error)) &&
			   memcmp(weights[0].data, ema, weights[0].nbytes) == 0;
		free(before);
		free(after);
		free(ema);
	}
	ok(good, "averages move by 1 - ema, and are the weights that a version gets");
	free(weights);
	run_close(&run);
}

static void
test_previews(NnDevice *device, const char *options)
{
	char json[256];
	Run run;
	NnModel *model = NULL;
	NnTensor *weights = NULL;
	int n = 0;
	float a[64 * 64 * 3], z[8] = { 0.5f, -1, 0.25f, 2, 0, 0.1f, -0.3f, 1 }, out[2][64 * 64 * 3],
						  mu[2][8], logvar[2][8];
	bool good;

	snprintf(json, sizeof(json), "{" SMALL "%s}", options);
	good = run_open(&run, device, json, 4);
	for (size_t i = 0; i < sizeof(a) / sizeof(a[0]); i++)
		a[i] = (float) ((i * 37 % 101) / 50.5 - 1);
	for (int step = 0; good && step < 2; step++)
	{
		good = run_step(&run) &&
			   went_well(nn_fit_translate(run.fit, 1, a, z, out[0], &train_error)) &&
			   went_well(nn_fit_encode(run.fit, 1, a, mu[0], logvar[0], &train_error)) &&
			   went_well(fit_weights(run.fit, &weights, &n, &train_error)) &&
			   went_well(nn_model_load(device, &run.config, NN_PRECISION_FP32, weights, n, &model,
									   &train_error)) &&
			   went_well(nn_model_translate_float(model, 1, a, z, out[1], &train_error)) &&
			   went_well(nn_model_encode_float(model, 1, a, mu[1], logvar[1], &train_error)) &&
			   memcmp(out[0], out[1], sizeof(out[0])) == 0 &&
			   memcmp(mu[0], mu[1], sizeof(mu[0])) == 0 &&
			   memcmp(logvar[0], logvar[1], sizeof(mu[0])) == 0;
		nn_model_free(model);
		model = NULL;
		free(weights);
		weights = NULL;
	}
	ok(good, "%s: previews are what a model of the current weights makes%s", device->name, options);
	run_close(&run);
}

/* The number that a tensor of the state counts. */
static int64_t
counted(const Saved *saved, NnNetwork network)
{
	for (int i = 0; i < saved->n; i++)
		if (saved->tensors[i].network == network &&
			strstr(saved->tensors[i].name, "num_batches_tracked"))
			return *(const int64_t *) saved->tensors[i].data;
	return -1;
}

static void
test_batch_norm(void)
{
	Run run;
	Saved saved = { 0 };
	bool good = run_open(&run, cpu, "{" SMALL ",\"norm\":\"batch\"}", 4) && run_step(&run) &&
				run_step(&run);

	if (good)
		saved = save(run.fit);
	ok(good && counted(&saved, NN_NET_G) == 4 && counted(&saved, NN_NET_E) == 4 &&
		   counted(&saved, NN_NET_D) == 6 && counted(&saved, NN_NET_D2) == 6,
	   "batch norms see as many batches as in the official code: 2 of G and E, 3 of D and D2 an "
	   "iteration");
	saved_free(&saved);
	run_close(&run);
}

/* ---- Learning rate ------------------------------------------------------- */

static double
rate_at(const char *json, int64_t rows, int64_t iteration)
{
	NnConfig config;
	NnTrainOptions options;

	if (!went_well(nn_train_options_parse(&config, &options, json, strlen(json), &train_error)))
		return NAN;
	return nn_learning_rate(&options, rows, iteration) / options.lr;
}

static void
test_rates(void)
{
	static const struct
	{
		const char *json;
		int rows;
		int64_t iteration;
		double factor;
	} known[] = {
		/*
		 * 100 epochs of 5 iterations, 100 of decay: 1 - (E - 100) / 101, E from
		 * 1
		 */
		{ "{}", 11, 0, 1 },
		{ "{}", 11, 499, 1 },
		{ "{}", 11, 500, 1 - 1.0 / 101 },
		{ "{}", 11, 504, 1 - 1.0 / 101 },
		{ "{}", 11, 505, 1 - 2.0 / 101 },
		{ "{}", 11, 999, 1.0 / 101 },
		{ "{}", 11, 5000, 0 },
		{ "{\"lr_policy\":\"step\"}", 4, 199, 1 },
		{ "{\"lr_policy\":\"step\"}", 4, 200, 0.1 },
		{ "{\"lr_policy\":\"step\",\"epochs\":300}", 4, 799, 0.001 },
		{ "{\"lr_policy\":\"cosine\",\"epochs\":10}", 4, 0, 1 },
		{ "{\"lr_policy\":\"cosine\",\"epochs\":10}", 4, 10, 0.5 },
		{ "{\"lr_policy\":\"cosine\",\"epochs\":10}", 4, 20, 0 },
		/* by iterations: constant for half of them */
		{ "{\"iterations\":100}", 4, 49, 1 },
		{ "{\"iterations\":100}", 4, 50, 1 - 1.0 / 51 },
		{ "{\"iterations\":100}", 4, 99, 1.0 / 51 },
		{ "{\"iterations\":100,\"epochs_decay\":0}", 4, 99, 1 },
		{ "{\"iterations\":100,\"epochs\":0}", 4, 0, 1 - 1.0 / 101 },
		{ "{\"iterations\":49,\"epochs\":1,\"epochs_decay\":48}", 4, 0, 1 },
		{ "{\"iterations\":49,\"epochs\":1,\"epochs_decay\":48}", 4, 1, 1 - 1.0 / 49 },
		{ "{\"iterations\":100,\"lr_policy\":\"cosine\"}", 4, 25, 0.5 },
	};
	Run run;

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		ok(fabs(rate_at(known[i].json, known[i].rows, known[i].iteration) - known[i].factor) <
			   1e-12,
		   "rate of iteration %lld with %s is %.4f", (long long) known[i].iteration, known[i].json,
		   known[i].factor);
	ok(run_open(&run, cpu, "{" SMALL ",\"epochs\":2,\"epochs_decay\":1}", 5) &&
		   nn_fit_iterations(run.fit) == 6 && run_step(&run) && run_step(&run) &&
		   nn_fit_iteration(run.fit) == 2,
	   "an epoch is as many whole batches as there are");
	run_close(&run);
}

/* ---- Opening ------------------------------------------------------------- */

/* The CPU's operators count pixels in ints. */
static void
test_large_maps(void)
{
	static const NnShape large[] = { { 128, 4096, 4096, 1 }, { 1 << 12, 1 << 9, 1 << 9, 256 } };
	int refused = 0;

	for (size_t i = 0; i < sizeof(large) / sizeof(large[0]); i++)
	{
		NnParams none = { 0 };
		NnGraph g;
		NnTraining training = { .params = &none };

		nn_graph_init(&g, &none);
		nn_input(&g, large[i], "image");
		training.plan.graph = &g;
		refused += cpu->train->prepare(cpu, &training, &train_error) == NN_EINVAL &&
				   strstr(train_error.message, "too large") && train_error.hint[0];
		cpu->train->release(cpu, &training);
		nn_graph_free(&g);
	}
	ok(refused == 2, "maps with more pixels or numbers than can be counted are refused");
}

static void
test_opening(void)
{
	NnConfig config;
	NnTrainOptions options;
	NnFit *fit = NULL, *other = NULL;
	NnTensor *weights = NULL;
	Saved a = { 0 }, b = { 0 };
	const char *json = "{" SMALL ",\"seed\":3,\"init_gain\":0.5}";
	NnFitNeeds needs = { 0 };
	int n, same = 0, different = 0;

	(void) nn_train_options_parse(&config, &options, json, strlen(json), &train_error);
	ok(nn_fit_open(cpu, &config, &options, NN_PRECISION_FP32, 1, NULL, 0, &fit, &train_error) ==
			   NN_EINVAL &&
		   strstr(train_error.message, "1 pairs are fewer than batch_size 2"),
	   "too few pairs are refused");
	ok(nn_device_supports(cpu, NN_PRECISION_BF16) ||
		   (nn_fit_open(cpu, &config, &options, NN_PRECISION_BF16, 4, NULL, 0, &fit,
						&train_error) == NN_EUNSUPPORTED &&
			train_error.hint[0]),
	   "so is a precision that the device has no hardware for");
	options.batch_size = 3;
	ok(nn_fit_open(cpu, &config, &options, NN_PRECISION_AUTO, 4, NULL, 0, &fit, &train_error) ==
		   NN_EINVAL,
	   "and options that parse would refuse");
	options.batch_size = 2;

	/* weights of G go in, the rest is drawn from another seed */
	if (!went_well(nn_fit_open(cpu, &config, &options, NN_PRECISION_AUTO, 4, NULL, 0, &fit,
							   &train_error)) ||
		!went_well(fit_weights(fit, &weights, &n, &train_error)))
		return;
	while (n > 0 && weights[n - 1].network != NN_NET_G)
		n--;
	options.seed = 4;
	ok(went_well(nn_fit_open(cpu, &config, &options, NN_PRECISION_FP32, 4, weights, n, &other,
							 &train_error)) &&
		   nn_fit_bytes(other) > 1000000,
	   "a fit starts from weights of one network");
	ok(went_well(nn_fit_estimate(cpu, &config, &options, NN_PRECISION_FP32,
								 &(NnFitLooks){ .images = 1 }, &needs, &train_error)) &&
		   other && needs.fit == nn_fit_bytes(other),
	   "what it takes was known before");
	a = save(fit);
	b = other ? save(other) : b;
	for (int i = 0; i < a.n && i < b.n; i++)
		if (a.tensors[i].ndim > 1 && strncmp(a.tensors[i].name, "m.", 2) != 0 &&
			strncmp(a.tensors[i].name, "v.", 2) != 0)
		{
			bool equal = memcmp(a.tensors[i].data, b.tensors[i].data, a.tensors[i].nbytes) == 0;

			same += equal && a.tensors[i].network == NN_NET_G;
			different += !equal && a.tensors[i].network != NN_NET_G;
		}
	ok(same == 12 && different == 9 + 16 + 0,
	   "those are its own, all others are fresh: %d and %d tensors", same, different);
	ok(nn_fit_open(cpu, &config, &options, NN_PRECISION_FP32, 4, weights, n - 1, &fit,
				   &train_error) == NN_EINVAL &&
		   strstr(train_error.message, "is missing"),
	   "a network that lacks a tensor is refused");
	free(weights);
	saved_free(&a);
	saved_free(&b);
	nn_fit_close(fit);
	nn_fit_close(other);
}

/*
 * Auto is what is faster, by the instruction set alone, and stays what it was
 * in an earlier run.
 */
static void
test_precision(void)
{
	static const CpuKernels *const sets[] = { &cpu_kernels_base, &cpu_kernels_avx2,
											  &cpu_kernels_avx512, &cpu_kernels_avx512bf16 };
	static const char tf32[] = "{" SMALL ",\"precision\":\"tf32\"}";
	const CpuKernel *bf16_products = ((const CpuDevice *) cpu->state)->bf16;
	bool amx = bf16_products && bf16_products == cpu_amx();
	NnConfig config, bf16;
	NnTrainOptions options;
	NnFit *fit;

	nn_config_default(&config);
	bf16 = config;
	bf16.precision = NN_PRECISION_BF16;
	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
		ok(!sets[i]->bf16 || !sets[i]->bf16->trains,
		   "auto trains in fp32 with instruction set %s: bf16 is slower", sets[i]->name);
	ok(nn_train_precision(cpu, &config, NN_PRECISION_AUTO) ==
			   (amx ? NN_PRECISION_BF16 : NN_PRECISION_FP32) &&
		   nn_train_precision(ref, &config, NN_PRECISION_AUTO) == NN_PRECISION_FP32 &&
		   nn_train_precision(ref, &bf16, NN_PRECISION_FP32) == NN_PRECISION_BF16,
	   "so do the devices of this machine but with AMX, unless the option says otherwise");
	ok(nn_train_precision(ref, &config, NN_PRECISION_BF16) == NN_PRECISION_BF16 &&
		   nn_train_precision(ref, &config, NN_PRECISION_FP32) == NN_PRECISION_FP32 &&
		   nn_train_precision(cpu, &config, NN_PRECISION_BF16) ==
			   (nn_device_supports(cpu, NN_PRECISION_BF16) ? NN_PRECISION_BF16 : NN_PRECISION_FP32),
	   "a job that began in bf16 goes on in it where the device can");
	ok(nn_train_options_parse(&config, &options, tf32, sizeof(tf32) - 1, &train_error) == NN_OK &&
		   nn_fit_open(cpu, &config, &options, config.precision, 4, NULL, 0, &fit, &train_error) ==
			   NN_EUNSUPPORTED &&
		   strstr(train_error.message, "cannot train in tf32") && strstr(train_error.hint, "fp32"),
	   "tf32 is a GPU's: %s", train_error.message);
}

int
main(void)
{
	if (nn_device_open("ref", 1, &ref, &train_error) != NN_OK ||
		nn_device_open("cpu", 1, &cpu, &train_error) != NN_OK)
		return 1;
	test_moves("bicycle", "", 0);
	test_moves("bicycle", ",\"norm\":\"batch\",\"conditional_d\":true", 0);
	test_moves("bicycle", ",\"same_d\":true,\"gan_mode\":\"vanilla\"", 0);
	test_moves("cvae_gan", "", 0);
	test_moves("cvae_gan++", ",\"net_e\":\"conv\"", 0);
	test_moves("cae_gan", "", 2);
	test_moves("clr_gan", "", 2);
	test_moves("pix2pix_noise", "", 0);
	test_frozen();
	if (!SLOW)
		test_losses();
	test_options(",\"method\":\"pix2pix_noise\",\"nz\":0,\"batch_size\":3,\"input_nc\":1");
	test_options(",\"nz\":256,\"output_nc\":1,\"where_add\":\"input\"");
	test_options(",\"nz\":1,\"num_ds\":1,\"batch_size\":4,\"nl\":\"elu\"");
	test_options(
		",\"method\":\"cvae_gan\",\"batch_size\":1,\"upsample\":\"bilinear\",\"norm\":\"none\"");
	test_options(",\"method\":\"clr_gan\",\"same_d\":true,\"batch_size\":3,\"norm\":\"batch\","
				 "\"dropout\":true");
	test_options(",\"method\":\"cae_gan\",\"lambda_gan2\":1,\"lambda_z\":1,\"nl\":\"lrelu\","
				 "\"dropout\":true");
	test_options(",\"lambda_gan\":0,\"lambda_kl\":0,\"conditional_d\":true,\"net_e\":\"conv\"");
	test_resume(ref, "", 3, 8); /* which is slow */
	test_resume(cpu, ",\"dropout\":true,\"ema\":0.9", 8, 20);
	test_resume(cpu, ",\"norm\":\"batch\",\"dropout\":true", 8, 20);
	test_resume(cpu, ",\"method\":\"clr_gan\"", 8, 20);
	test_resume(cpu, ",\"batch_size\":4,\"accumulate\":2,\"norm\":\"batch\",\"dropout\":true", 5,
				12);
	test_threads();
	test_watch(ref);
	test_watch(cpu);
	test_bf16(ref);
	if (nn_device_supports(cpu, NN_PRECISION_BF16))
		test_bf16(cpu);
	test_state_errors();
	test_overflow(ref);
	test_overflow(cpu);
	test_divergence(ref, "{" SMALL "}");
	test_divergence(cpu, "{" SMALL "}");
	test_divergence(ref, "{" SMALL ",\"norm\":\"batch\"}");
	test_divergence(cpu, "{" SMALL ",\"norm\":\"batch\",\"batch_size\":4,\"accumulate\":2}");
	test_averages();
	test_previews(cpu, "");
	test_previews(cpu, ",\"ema\":0.5,\"norm\":\"batch\",\"dropout\":true");
	test_batch_norm();
	test_rates();
	test_large_maps();
	test_opening();
	test_precision();
	nn_device_close(ref);
	nn_device_close(cpu);
	return done_testing();
}
