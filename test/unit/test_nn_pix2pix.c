/*
 * Proves that generators in pix2pix's own files make here the pictures that
 * PyTorch makes of them: by stored statistics, as with --eval; by the image's
 * own and with dropout, as without; and with instance norms.
 *
 * test/gen/pix2pix.py made files and pictures.
 */
#include "format/format.h"
#include "image/image.h"
#include "nn/nn.h"
#include "tap.h"
#include "testdata.h"

#define SIZE 64

static NnError error;

static Image
read_picture(const char *name)
{
	ImageLimits limits = { 1 << 20, 1 << 26 };
	ImageError image_error;
	Image image = { 0 }, small = { 0 };
	size_t length;
	uint8_t *bytes = testdata_load(name, &length);

	if (image_decode(bytes, length, 3, 0, &limits, &image, &image_error) != IMAGE_OK)
		ok(false, "%s: %s", name, image_error.detail);
	free(bytes);
	if (image.width == SIZE)
		return image;
	if (image_resize(&image, SIZE, SIZE, &small, &image_error) != IMAGE_OK)
		ok(false, "%s: %s", name, image_error.detail);
	image_free(&image);
	return small;
}

/* The largest difference between what the model makes and the picture. */
static int
difference(NnDevice *device, const NnConfig *config, const FormatFile *file, const char *picture)
{
	Image photo = read_picture("edges2emoji/pairs/00_B.png"), wanted = read_picture(picture);
	uint8_t out[2 * SIZE * SIZE * 3];
	uint8_t *twice = malloc(sizeof(out));
	NnModel *model;
	int worst = 256;

	/* two images at once: the statistics are of each */
	memcpy(twice, photo.pixels, sizeof(out) / 2);
	memset(twice + sizeof(out) / 2, 128, sizeof(out) / 2);
	if (nn_model_load(device, config, NN_PRECISION_FP32, file->tensors, file->ntensors, &model,
					  &error) == NN_OK)
	{
		if (nn_model_translate(model, 2, twice, NULL, out, &error) == NN_OK)
			worst = 0;
		for (size_t i = 0; i < sizeof(out) / 2; i++)
			worst = abs(out[i] - wanted.pixels[i]) > worst ? abs(out[i] - wanted.pixels[i]) : worst;
		nn_model_free(model);
	}
	else
		diag("%s: %s", error.message, error.detail);
	free(twice);
	image_free(&photo);
	image_free(&wanted);
	return worst;
}

static void
test_file(const char *device_name, const char *name, const char *config_text, const char *picture)
{
	size_t length;
	uint8_t *bytes = testdata_load(name, &length);
	FormatFile file = { 0 };
	FormatError format_error;
	NnDevice *device;
	NnConfig config;
	int worst = 256;

	if (nn_device_open(device_name, 2, &device, &error) != NN_OK)
	{
		ok(false, "device %s opens", device_name);
		return;
	}
	if (format_read(bytes, length, &file, &format_error) == FORMAT_OK &&
		nn_config_infer(&config, config_text, strlen(config_text), file.tensors, file.ntensors,
						NULL, NULL, &error) == NN_OK)
		worst = difference(device, &config, &file, picture);
	else
		diag("%s: %s", error.message, error.detail);
	ok(worst <= 1, "%s, %s on %s: largest difference %d of 255", name, config_text, device_name,
	   worst);
	format_free(&file);
	free(bytes);
	nn_device_close(device);
}

int
main(void)
{
	static const char *const devices[] = { "ref", "cpu" };

	for (int i = 0; i < 2; i++)
	{
		test_file(devices[i], "saved/pix2pix.pth", "{}", "saved/pix2pix_eval.png");
		test_file(devices[i], "saved/pix2pix.pth", "{\"statistics\":\"image\",\"test_dropout\":9}",
				  "saved/pix2pix_test.png");
		test_file(devices[i], "saved/pix2pix_instance.pth", "{\"family\":\"pix2pix\"}",
				  "saved/pix2pix_instance.png");
	}
	return done_testing();
}
