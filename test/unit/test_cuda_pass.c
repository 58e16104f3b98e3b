/*
 * Proves of the CUDA device, on the imitated GPU of test/cuda: two passes at
 * once, of images that lie apart, are what they are one after the other, in
 * whatever order streams run; and whatever call of CUDA fails in one of them
 * spoils nothing of the other, or of what was done.
 */
#include "cuda_fixture.h"

#define APART 20 /* images of a pass: two parts */

/*
 * Images that lie apart, some of them pinned, and their results in the same
 * places.
 */
typedef struct Apart
{
	NnPass pass;
	float z[APART * 8];
	uint8_t *each[APART];
	uint8_t *pinned, *other;
} Apart;

static void
apart_make(Apart *a, NnDevice *device, NnModel *model, int n)
{
	*a = (Apart){ .pinned = nn_device_pin(device, APART * PIXELS * 3),
				  .other = malloc(APART * PIXELS * 3) };
	for (int i = 0; i < n; i++)
	{
		/*
		 * the second half backwards, and in threes, so that runs of all kinds
		 * are met
		 */
		int at = i < n / 2 ? i : n - 1 - (i - n / 2);

		a->each[i] = (i / 3 % 2 ? a->other : a->pinned) + (size_t) at * PIXELS * 3;
		memcpy(a->each[i], images + (size_t) (i % FEW) * PIXELS * 3, PIXELS * 3);
		memcpy(a->z + 8 * i, z + 8 * (i % FEW), 8 * sizeof(float));
	}
	a->pass = (NnPass){ .model = model,
						.network = NN_NET_G,
						.extent = { SIZE, SIZE },
						.n = n,
						.images = (const uint8_t *const *) a->each,
						.z = a->z,
						.results = a->each };
}

static bool
apart_is_right(const Apart *a)
{
	bool same = a->pass.status == NN_OK && a->pass.done == a->pass.n;

	for (int i = 0; same && i < a->pass.n; i++)
		same = memcmp(a->each[i], expected + (size_t) (i % FEW) * PIXELS * 3, PIXELS * 3) == 0;
	return same;
}

/* After want of memory the rest is done as if there had been none. */
static bool
apart_goes_on(Apart *a)
{
	NnPass rest = { .model = a->pass.model,
					.network = NN_NET_G,
					.extent = { SIZE, SIZE },
					.n = a->pass.n - a->pass.done,
					.images = (const uint8_t *const *) a->each + a->pass.done,
					.z = a->z + 8 * a->pass.done,
					.results = a->each + a->pass.done };

	if (a->pass.status != NN_ENOMEM)
		return true;
	while (!nn_pass_go(&rest, true))
		;
	a->pass.done += rest.done;
	a->pass.status = rest.status;
	return apart_is_right(a);
}

static void
apart_free(Apart *a, NnDevice *device)
{
	nn_device_unpin(device, a->pinned);
	free(a->other);
}

/*
 * Two passes under way at once, of one model and of two, are the images that
 * they are one after the other; they end in their order, and nothing waits.
 */
static void
test_passes(const ModelFixture *small)
{
	NnDevice *device = open_device();
	NnModel *models[2] = { model_fixture_load(device, small, NN_PRECISION_FP32),
						   model_fixture_load(device, small, NN_PRECISION_FP32) };
	bool same = true, beside = false;
	size_t staged;

	for (unsigned round = 0; same && round < 6; round++)
	{
		Apart a, b;
		bool ended[2] = { false };

		gpu_settings->chance = round < 2 ? 0 : round * 2654435761u;
		apart_make(&a, device, models[0], APART);
		apart_make(&b, device, models[round % 2], 1 + (int) round * 3);
		for (int calls = 0; calls < 100000 && !ended[1]; calls++)
		{
			ended[0] = ended[0] || nn_pass_go(&a.pass, false);
			ended[1] = ended[1] || nn_pass_go(&b.pass, false);
			beside |= a.pass.nparts > 0 && b.pass.nparts > 0;
			same &= ended[0] || !ended[1];
		}
		same &= ended[0] && apart_is_right(&a) && apart_is_right(&b);
		apart_free(&a, device);
		apart_free(&b, device);
		if (!same)
			diag("round %u: %d of %d, %d of %d", round, a.pass.done, a.pass.n, b.pass.done,
				 b.pass.n);
	}
	gpu_settings->chance = 0;
	ok(same && beside, "two passes at once give each its images, in memory of any kind");
	staged = nn_model_host_bytes(models[0]);
	same = is_small(models[0], FEW);
	ok(same && nn_model_host_bytes(models[0]) >= staged, "and then one that waits");
	nn_model_free(models[0]);
	nn_model_free(models[1]);
	nn_device_close(device);
	ok(gpu_memory_used() == 0, "nothing of them stays");
}

/*
 * Whatever fails in one pass while another is under way is that pass's alone,
 * or the device's; what it has done is right, and where memory was short the
 * same calls do when it is there.
 */
static void
test_failing_passes(const ModelFixture *small)
{
	bool finished = false, right = true;
	int failed = 0;

	for (long i = 1; right && !finished && i < 4000; i += i < 20 ? 3 : 61)
	{
		NnDevice *device = open_device();
		NnModel *model = model_fixture_load(device, small, NN_PRECISION_FP32);
		Apart a, b;
		bool ended[2] = { false };

		right = nn_model_prepare(model, &error) == NN_OK;
		apart_make(&a, device, model, APART);
		apart_make(&b, device, model, 3);
		gpu_settings->fail_with = i % 2 ? cudaErrorMemoryAllocation : 0;
		gpu_settings->fail_in = i;
		for (int calls = 0; calls < 100000 && !(ended[0] && ended[1]); calls++)
		{
			ended[0] = ended[0] || nn_pass_go(&a.pass, false);
			ended[1] = ended[1] || nn_pass_go(&b.pass, false);
		}
		finished = gpu_settings->fail_in > 0;
		gpu_settings->fail_in = gpu_settings->fail_with = 0;
		failed += a.pass.status != NN_OK || b.pass.status != NN_OK;
		right &= ended[0] && ended[1];
		for (int k = 0; right && k < a.pass.done; k++)
			right = memcmp(a.each[k], expected + (size_t) (k % FEW) * PIXELS * 3, PIXELS * 3) == 0;
		right &= apart_goes_on(&a) && apart_goes_on(&b);
		if (i % 2)
			right &= is_small(model, 1);
		if (!right)
			diag("call %ld: %s %s", i, a.pass.error.detail, b.pass.error.detail);
		apart_free(&a, device);
		apart_free(&b, device);
		nn_model_free(model);
		nn_device_close(device);
		right &= gpu_memory_used() == 0;
	}
	ok(right && finished && failed > 8, "a pass that fails beside another spoils nothing: %d times",
	   failed);
}

int
main(void)
{
	ModelFixture f = model_fixture("{\"size\":64,\"ngf\":1,\"nef\":1}");

	ok(make_small(&f), "the least of models runs");
	test_passes(&f);
	test_failing_passes(&f);
	model_fixture_free(&f);
	return done_testing();
}
