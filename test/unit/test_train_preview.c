/*
 * The watch speaks up, once, when samples stop varying with z, and only then; a
 * sheet shows what the networks make.
 */
#include "train_client.h"

#include "engine/run.h"
#include "nn/fit_private.h"

#include <math.h>

#define PAIRS 5

static Engine engine;
static Pair *pairs;
static RunData data;

static void
fill(void)
{
	BicycleTrainBegin begin = { .max_pixels = 1 << 20, .train_memory = 1 << 24, .spill = "/tmp" };
	EngineError error;

	run_data_init(&data);
	run_data_begin(&data, &begin, false);
	for (int i = 0; i < PAIRS; i++)
	{
		size_t length;
		uint8_t *body = pair_body(&pairs[i], &length);

		if (!run_data_add(&data, body, length, &error))
			bail_out("a pair was refused: %s", error.message);
		free(body);
	}
	if (!run_data_complete(&data, &error))
		bail_out("%s", error.message);
}

/*
 * A fit of fresh weights with the given gain: small ones ignore z, large
 * ones do not.
 */
static NnFit *
open_fit(NnConfig *config, const char *options)
{
	NnTrainOptions parsed;
	NnFit *fit;
	NnError error;

	if (nn_train_options_parse(config, &parsed, options, strlen(options), &error) != NN_OK ||
		nn_fit_open(engine.device.nn, config, &parsed, NN_PRECISION_FP32, PAIRS, NULL, 0, &fit,
					&error) != NN_OK)
		bail_out("cannot make a fit: %s", error.message);
	return fit;
}

/*
 * At which of the first 40 times 50 iterations the watch speaks up; -1: never.
 * diversity: what it found last.
 */
static int
watch(RunPreview *preview, NnFit *fit, int64_t iterations, double *diversity, int *times)
{
	EngineError error;
	int first = -1;

	*times = 0;
	*diversity = -1;
	for (int i = 50; i <= 2000; i += 50)
	{
		bool collapsed;

		if (!run_preview_watch(preview, fit, i, iterations, diversity, &collapsed, &error))
			bail_out("%s", error.message);
		*times += collapsed;
		if (collapsed && first < 0)
			first = i;
	}
	return first;
}

/*
 * The same number from the definition: all pairs of samples of the four first
 * rows, as bytes.
 */
static double
diversity_of(const NnConfig *config, NnFit *fit, const RunPreview *preview)
{
	size_t in = (size_t) config->size * config->size * config->input_nc;
	size_t count = (size_t) config->size * config->size * config->output_nc;
	float *a = malloc(in * sizeof(float)), *values = malloc(count * sizeof(float));
	uint8_t *out = malloc(RUN_PREVIEW_SAMPLES * count);
	double sum = 0;
	NnError error;

	for (int row = 0; row < RUN_PREVIEW_ROWS; row++)
	{
		nn_normalise(preview->input[row].pixels, in, a);
		for (int i = 0; i < RUN_PREVIEW_SAMPLES; i++)
		{
			nn_fit_translate(fit, 1, a, preview->z + i * config->nz, values, &error);
			nn_quantise(values, count, out + (size_t) i * count);
		}
		for (int i = 0; i < RUN_PREVIEW_SAMPLES; i++)
			for (int j = 0; j < i; j++)
				for (size_t k = 0; k < count; k++)
					sum += fabs((double) out[i * count + k] - out[j * count + k]) / 127.5 /
						   (double) count;
	}
	free(a);
	free(values);
	free(out);
	return sum / (RUN_PREVIEW_ROWS * RUN_PREVIEW_SAMPLES * (RUN_PREVIEW_SAMPLES - 1) / 2);
}

static void
test_watch(void)
{
	static const char *const options[] = {
		"{\"size\":64,\"ngf\":4,\"nef\":4,\"ndf\":4,\"nz\":4,\"init_gain\":0.00001}",
		"{\"size\":64,\"ngf\":4,\"nef\":4,\"ndf\":4,\"nz\":4,\"init_gain\":2}",
		"{\"size\":64,\"ngf\":4,\"nef\":4,\"ndf\":4,\"nz\":0,\"method\":\"pix2pix_noise\",\"init_"
		"gain\":0.00001}"
	};
	int spoke[3], times[3];
	double found[3];

	for (int i = 0; i < 3; i++)
	{
		NnConfig config;
		NnFit *fit = open_fit(&config, options[i]);
		RunPreview preview = { 0 };
		EngineError error;

		if (!run_preview_open(&preview, &engine, &data, &config, 3, &error))
			bail_out("%s", error.message);
		spoke[i] = watch(&preview, fit, i == 0 ? 12000 : 2000, &found[i], &times[i]);
		if (i == 1)
			ok(fabs(found[1] - diversity_of(&config, fit, &preview)) < 1e-9,
			   "the mean difference of samples is %g", found[1]);
		run_preview_free(&preview);
		nn_fit_close(fit);
	}
	ok(spoke[0] == 1500 && times[0] == 1,
	   "samples that do not vary are noted at the second look after a tenth of the run, at "
	   "iteration %d, once",
	   spoke[0]);
	ok(found[1] > 0.02 && spoke[1] == -1, "samples that do are not");
	ok(spoke[2] == -1 && found[2] < 0,
	   "nor are those of a model without z, which are not looked at");
}

/*
 * The sheet has the pixels of the pairs, and of what the networks make of them.
 */
static void
test_sheet(void)
{
	NnConfig config;
	NnFit *fit =
		open_fit(&config, "{\"size\":64,\"ngf\":4,\"nef\":4,\"ndf\":4,\"nz\":4,\"init_gain\":2}");
	RunPreview preview = { 0 };
	EngineError error;
	ImageError image_error;
	NnError nn_error;
	Image sheet;
	uint8_t *png;
	size_t length;
	float a[64 * 64 * 3], out[64 * 64 * 3], codes[RUN_PREVIEW_SAMPLES * 4];
	uint8_t bytes[64 * 64 * 3];
	bool same = true;

	if (!run_preview_open(&preview, &engine, &data, &config, 3, &error) ||
		!run_preview_sheet(&preview, fit, &png, &length, &error) ||
		image_decode(png, length, 3, 0, &plenty, &sheet, &image_error) != IMAGE_OK)
		bail_out("no sheet");
	nn_train_codes(3, 0, 0, RUN_PREVIEW_SAMPLES, config.nz, codes);
	ok(memcmp(codes, preview.z, sizeof(codes)) != 0,
	   "its codes are not those that training begins with");
	nn_normalise(preview.input[2].pixels, sizeof(bytes), a);
	nn_fit_translate(fit, 1, a, preview.z + 3 * config.nz, out, &nn_error);
	nn_quantise(out, sizeof(bytes), bytes);
	for (int y = 0; y < 64; y++)
	{
		const uint8_t *row = sheet.pixels + (size_t) (2 + 2 * 66 + y) * sheet.width * 3;

		same = same && memcmp(row + 2 * 3, preview.input[2].pixels + y * 64 * 3, 64 * 3) == 0 &&
			   memcmp(row + (2 + 66) * 3, preview.truth[2].pixels + y * 64 * 3, 64 * 3) == 0 &&
			   memcmp(row + (2 + 6 * 66) * 3, bytes + y * 64 * 3, 64 * 3) == 0;
	}
	ok(same, "a row of the sheet is input, truth, reconstruction and samples");
	free(png);
	image_free(&sheet);
	run_preview_free(&preview);
	nn_fit_close(fit);
}

int
main(void)
{
	NnError error;

	if (!engine_init(&engine) || nn_device_open("ref", 1, &engine.device.nn, &error) != NN_OK)
		bail_out("cannot make an engine");
	budget_limits(&engine);
	pairs = pairs_make(PAIRS);
	fill();
	test_watch();
	test_sheet();
	run_data_free(&data);
	pairs_free(pairs, PAIRS);
	engine_free(&engine);
	return done_testing();
}
