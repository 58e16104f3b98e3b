/*
 * Proves that a batch which is computed in parts gives the losses and gradients
 * of the whole one, for each of the six methods, with codes that are given and
 * with drawn ones, and takes less memory; and that batch norms, which see a
 * part alone, count the parts.
 */
#include "train_fixture.h"

#define SMALL "\"size\":64,\"ngf\":4,\"nef\":4,\"ndf\":4,\"nz\":3,\"load_size\":64"

static NnDevice *ref, *cpu;

/* ---- Equal runs ---------------------------------------------------------- */

/* The largest difference of two gradients, by the size of their tensor's. */
static double
furthest(const Run *a, const Run *b)
{
	const NnParams *params = nn_fit_params(a->fit);
	double *x = array_of(a, NN_ARRAY_GRAD), *y = array_of(b, NN_ARRAY_GRAD);
	double worst = 0;

	for (int i = 0; i < params->n; i++)
	{
		const NnParam *p = &params->list[i];
		double size = 0, apart = 0;

		for (size_t k = p->offset; !p->buffer && k < p->offset + p->count; k++)
		{
			size = fmax(size, fabs(x[k]));
			apart = fmax(apart, fabs(x[k] - y[k]));
		}
		if (size > 0 && apart / size > worst)
			worst = apart / size;
		else if (size == 0 && apart > 0)
			worst = INFINITY;
	}
	free(x);
	free(y);
	return worst;
}

static double
losses_apart(const Run *a, const Run *b)
{
	double worst = 0;

	for (int i = 0; i < NN_LOSSES; i++)
		if (a->losses.present[i] != b->losses.present[i])
			return INFINITY;
		else if (a->losses.present[i])
			worst = fmax(worst, fabs(a->losses.value[i] - b->losses.value[i]) /
									fmax(1e-300, fabs(a->losses.value[i])));
	return worst;
}

static bool
open_pair(Run *whole, Run *parts, NnDevice *device, const char *options, int batch, int accumulate)
{
	char json[512];
	bool good;

	snprintf(json, sizeof(json), "{" SMALL ",\"batch_size\":%d%s}", batch, options);
	good = run_open(whole, device, json, batch);
	snprintf(json, sizeof(json), "{" SMALL ",\"batch_size\":%d,\"accumulate\":%d%s}", batch,
			 accumulate, options);
	return good & run_open(parts, device, json, batch);
}

/*
 * The first step's losses and gradients are within `limit`; those of a second
 * one, which starts from weights that differ by rounding, near.
 */
static void
test_equal(NnDevice *device, const char *options, int batch, int accumulate, double limit)
{
	Run whole, parts;
	double losses = INFINITY, gradients = INFINITY, later = INFINITY;

	if (open_pair(&whole, &parts, device, options, batch, accumulate) && run_step(&whole) &&
		run_step(&parts))
	{
		losses = losses_apart(&whole, &parts);
		gradients = furthest(&whole, &parts);
		if (run_step(&whole) && run_step(&parts))
			later = losses_apart(&whole, &parts);
	}
	ok(losses < limit && gradients < limit && later < 1e3 * limit,
	   "%s, %s: %d pairs in %d parts are one batch: losses within %.1g, gradients within %.1g",
	   device->name, options, batch, accumulate, losses, gradients);
	run_close(&whole);
	run_close(&parts);
}

/* Codes are drawn for the places of the whole batch. */
static void
test_drawn(const char *options)
{
	Run whole, parts;
	Run *runs[2] = { &whole, &parts };
	bool good = open_pair(&whole, &parts, ref, options, 8, 2);
	double apart = INFINITY;

	for (int i = 0; good && i < 2; i++)
	{
		size_t n = (size_t) 8 * 64 * 64 * 3;
		float *a = floats_of(runs[i]->a, n), *b = floats_of(runs[i]->b, n);

		good = went_well(nn_fit_step(runs[i]->fit, a, b, NULL, &runs[i]->losses, &train_error));
		free(a);
		free(b);
	}
	if (good)
		apart = furthest(&whole, &parts);
	ok(apart < 1e-12, "%s: so do drawn codes, within %.1g", options, apart);
	run_close(&whole);
	run_close(&parts);
}

/* ---- Memory -------------------------------------------------------------- */

static void
test_memory(void)
{
	Run whole, parts;
	bool good = open_pair(&whole, &parts, cpu, "", 8, 4);
	size_t all = good ? nn_fit_training(whole.fit)->plan.arena_elements : 0;
	size_t part = good ? nn_fit_training(parts.fit)->plan.arena_elements : 0;

	ok(part > 0 && part < all / 3, "a quarter of a batch takes %.1f MB where all of it takes %.1f",
	   (double) part * 4e-6, (double) all * 4e-6);
	ok(good && nn_fit_bytes(parts.fit) < nn_fit_bytes(whole.fit), "and so says the fit");
	run_close(&whole);
	run_close(&parts);
}

/* ---- Batch norms --------------------------------------------------------- */

/* Of G's first norm: batches that were counted. */
static int64_t
batches_counted(NnFit *fit)
{
	NnTensor *tensors = NULL;
	int64_t count = -1;
	int n = 0;

	if (!went_well(fit_state(fit, &tensors, &n, &train_error)))
		return -1;
	for (int i = 0; i < n && count < 0; i++)
		if (tensors[i].network == NN_NET_G && strstr(tensors[i].name, "num_batches_tracked"))
			memcpy(&count, tensors[i].data, sizeof(count));
	free(tensors);
	return count;
}

static void
test_batch_norm(void)
{
	Run whole, parts;
	bool good = open_pair(&whole, &parts, cpu, ",\"norm\":\"batch\"", 8, 2) && run_step(&whole) &&
				run_step(&parts);
	int64_t once = good ? batches_counted(whole.fit) : 0;

	ok(once > 0 && batches_counted(parts.fit) == 2 * once, "batch norms count each part");
	ok(good && furthest(&whole, &parts) > 1e-3, "and see no more than that");
	run_close(&whole);
	run_close(&parts);
}

int
main(void)
{
	static const char *const methods[] = {
		",\"method\":\"bicycle\"", ",\"method\":\"cvae_gan\"", ",\"method\":\"cvae_gan++\"",
		",\"method\":\"cae_gan\"", ",\"method\":\"clr_gan\"",  ",\"method\":\"pix2pix_noise\""
	};

	if (nn_device_open("ref", 1, &ref, &train_error) != NN_OK ||
		nn_device_open("cpu", 1, &cpu, &train_error) != NN_OK)
		return 1;
	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
	{
		test_equal(ref, methods[i], 4, 2, 1e-12);
		test_equal(cpu, methods[i], 8, 4, 1e-4);
	}
	test_equal(cpu, ",\"method\":\"cvae_gan\"", 3, 3, 1e-4);
	test_equal(ref, ",\"num_ds\":1,\"gan_mode\":\"vanilla\",\"conditional_d\":true", 4, 2, 1e-12);
	test_drawn("");
	test_drawn(",\"method\":\"clr_gan\"");
	test_memory();
	test_batch_norm();
	nn_device_close(ref);
	nn_device_close(cpu);
	return done_testing();
}
