/*
 * Proves that a model trained with the official code, in the official code's
 * own files, does here what it does there: configuration inferred, images equal
 * within one level, posterior equal; and that bfloat16, where a device has it,
 * stays within 40 dB of it.
 */
#include "format/format.h"
#include "image/image.h"
#include "nn/nn.h"
#include "tap.h"
#include "testdata.h"

#include <jansson.h>
#include <math.h>

#define EXPECTED 3 /* pairs with the official code's outputs */
#define MAX_TENSORS 128

typedef struct Model
{
	uint8_t *bytes[2]; /* of the files of G and E */
	FormatFile files[2];
	NnTensor tensors[MAX_TENSORS];
	int ntensors;
	NnConfig config;
} Model;

static NnError error;

static bool
read_model(Model *m)
{
	static const char *const names[] = { "edges2emoji/G.pth", "edges2emoji/E.pth" };
	FormatError format_error;

	m->ntensors = 0;
	for (int i = 0; i < 2; i++)
	{
		size_t length;

		m->bytes[i] = testdata_load(names[i], &length);
		if (format_read(m->bytes[i], length, &m->files[i], &format_error) != FORMAT_OK)
			return ok(false, "%s: %s", names[i], format_error.detail);
		for (int k = 0; k < m->files[i].ntensors && m->ntensors < MAX_TENSORS; k++)
		{
			m->tensors[m->ntensors] = m->files[i].tensors[k];
			m->tensors[m->ntensors++].network = i == 0 ? NN_NET_G : NN_NET_E;
		}
	}
	return true;
}

static void
drop_model(Model *m)
{
	for (int i = 0; i < 2; i++)
	{
		format_free(&m->files[i]);
		free(m->bytes[i]);
	}
}

static bool
test_inference(Model *m)
{
	static const char expected[] =
		"{\"size\":128,\"levels\":7,\"input_nc\":1,\"output_nc\":3,\"nz\":8,\"ngf\":14,\"nef\":20,"
		"\"ndf\":64,\"where_add\":\"all\",\"upsample\":\"basic\","
		"\"norm\":\"instance\",\"nl\":\"relu\",\"net_e\":\"resnet\",\"encoder_size\":128,\"num_"
		"ds\":2,\"conditional_d\":false,\"precision\":\"auto\"}";
	bool keep[MAX_TENSORS];
	char *text = NULL;
	bool good;

	good =
		nn_config_infer(&m->config, "{}", 2, m->tensors, m->ntensors, keep, NULL, &error) == NN_OK;
	if (!good)
		diag("%s: %s", error.message, error.detail);
	text = good ? nn_config_print(&m->config) : NULL;
	good = ok(text && strcmp(text, expected) == 0, "the configuration is inferred: %s",
			  text ? text : "not at all");
	free(text);
	return good;
}

static Image
read_image(const char *format, int number, int channels)
{
	ImageLimits limits = { 1 << 20, 1 << 26 };
	ImageError image_error;
	Image image = { 0 };
	char name[64];
	size_t length;
	uint8_t *bytes;

	snprintf(name, sizeof(name), format, number);
	bytes = testdata_load(name, &length);
	if (image_decode(bytes, length, channels, 0, &limits, &image, &image_error) != IMAGE_OK)
		ok(false, "%s: %s", name, image_error.detail);
	free(bytes);
	return image;
}

static void
read_floats(const json_t *array, float *out)
{
	for (size_t i = 0; i < json_array_size(array); i++)
		out[i] = (float) json_number_value(json_array_get(array, i));
}

static void
test_pair(NnModel *model, const json_t *expected, int pair, const char *device)
{
	Image a = read_image("edges2emoji/pairs/%02d_A.png", pair, 1),
		  b = read_image("edges2emoji/pairs/%02d_B.png", pair, 3),
		  wanted = read_image("edges2emoji/expected_%02d.png", pair, 3);
	size_t count = 128 * 128 * 3;
	uint8_t *out = calloc(count, 1);
	float z[8], posterior[2][8], wanted_posterior[2][8];
	int worst = 0;
	double difference = 0;

	read_floats(json_object_get(expected, "z"), z);
	read_floats(json_object_get(expected, "mu"), wanted_posterior[0]);
	read_floats(json_object_get(expected, "logvar"), wanted_posterior[1]);
	ok(nn_model_translate(model, 1, a.pixels, z, out, &error) == NN_OK &&
		   nn_model_encode(model, 1, b.pixels, posterior[0], posterior[1], &error) == NN_OK,
	   "pair %d on %s", pair, device);
	for (size_t i = 0; i < count; i++)
		worst = abs(out[i] - wanted.pixels[i]) > worst ? abs(out[i] - wanted.pixels[i]) : worst;
	for (int i = 0; i < 16; i++)
		difference =
			fmax(difference, fabsf(posterior[i / 8][i % 8] - wanted_posterior[i / 8][i % 8]));
	ok(worst <= 1, "its image is the official one, largest difference %d of 255", worst);
	ok(difference < 1e-4, "and so is its posterior, largest difference %.2g", difference);
	free(out);
	image_free(&a);
	image_free(&b);
	image_free(&wanted);
}

static void
test_device(const Model *m, const json_t *expected, const char *name)
{
	NnDevice *device;
	NnModel *model;

	if (!ok(nn_device_open(name, 2, &device, &error) == NN_OK, "device %s opens", name))
		return;
	if (ok(nn_model_load(device, &m->config, NN_PRECISION_FP32, m->tensors, m->ntensors, &model,
						 &error) == NN_OK,
		   "the model loads on %s", name))
	{
		for (int i = 0; i < EXPECTED; i++)
			test_pair(model, json_array_get(expected, i), i, name);
		nn_model_free(model);
	}
	nn_device_close(device);
}

/*
 * Peak signal to noise ratio of bfloat16 against fp32, over all the outlines.
 */
static void
test_bfloat16(const Model *m)
{
	size_t count = 128 * 128 * 3;
	uint8_t *out[2] = { calloc(count, 1), calloc(count, 1) };
	NnDevice *device;
	NnModel *models[2];
	double squares = 0;

	if (nn_device_open("cpu", 2, &device, &error) != NN_OK)
		return;
	if (!nn_device_supports(device, NN_PRECISION_BF16))
		diag("no bfloat16 on this machine: %s", nn_device_describe(device));
	else if (ok(nn_model_load(device, &m->config, NN_PRECISION_FP32, m->tensors, m->ntensors,
							  &models[0], &error) == NN_OK &&
					nn_model_load(device, &m->config, NN_PRECISION_BF16, m->tensors, m->ntensors,
								  &models[1], &error) == NN_OK,
				"the model loads in bf16"))
	{
		for (int i = 0; i < 32; i++)
		{
			Image a = read_image("edges2emoji/pairs/%02d_A.png", i, 1);
			float z[8];

			nn_normal(i, 0, 8, z);
			for (int k = 0; k < 2; k++)
				nn_model_translate(models[k], 1, a.pixels, z, out[k], &error);
			for (size_t k = 0; k < count; k++)
				squares += (out[0][k] - out[1][k]) * (out[0][k] - out[1][k]);
			image_free(&a);
		}
		ok(10 * log10(255.0 * 255.0 * count * 32 / squares) >= 40, "PSNR of bf16 is %.1f dB",
		   10 * log10(255.0 * 255.0 * count * 32 / squares));
		nn_model_free(models[0]);
		nn_model_free(models[1]);
	}
	nn_device_close(device);
	free(out[0]);
	free(out[1]);
}

int
main(void)
{
	Model m;
	json_t *expected = json_load_file(testdata_path("edges2emoji/expected.json"), 0, NULL);

	if (ok(expected != NULL, "%s can be read", testdata_path("edges2emoji/expected.json")) &&
		read_model(&m))
	{
		if (test_inference(&m))
		{
			test_device(&m, expected, "ref");
			test_device(&m, expected, "cpu");
			test_bfloat16(&m);
		}
		drop_model(&m);
	}
	json_decref(expected);
	return done_testing();
}
