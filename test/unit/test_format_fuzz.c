/*
 * test_format_fuzz.c
 *	  10,000 damaged model files: each is read or refused in an ordinary way,
 *	  and no tensor reaches beyond what was read.
 */
#include "format_fixture.h"

static const char *const files[] = {
	"pth/state_legacy.pth",     "pth/dtypes_legacy.pth", "pth/windows_legacy.pth",
	"pth/parameter_legacy.pth", "pth/python2.pth",       "pth/views.pth",
	"pth/state_zip.pth",        "pth/dtypes_zip.pth",    "pth/windows_zip.pth",
	"pth/protocol4.pth",        "saved/lightning.ckpt",  "saved/protocol5_legacy.pth",
	"saved/module_legacy.pth",  "saved/script.pt",
};

#define FILES (sizeof(files) / sizeof(files[0]))
#define ROUNDS 10000

static uint32_t sink;

static bool
ordinary(const uint8_t *bytes, size_t length, int *read)
{
	FormatFile file;
	FormatError error = { 0 };
	FormatStatus status = format_read(bytes, length, &file, &error);

	if (status != FORMAT_OK)
		return file.tensors == NULL && file.owned == NULL && error.code == status &&
			   (status == FORMAT_EINVALID || status == FORMAT_ELIMIT) &&
			   well_formed(error.message, error.detail);
	sink += touch_tensors(&file);
	format_free(&file);
	++*read;
	return true;
}

/* Damages bytes `rounds` times. */
static void
damage(const char *name, const uint8_t *bytes, size_t length, int rounds, uint64_t *state, int *odd,
	   int *read)
{
	for (int round = 0; round < rounds; round++)
	{
		size_t damaged_length;
		uint8_t *damaged = testdata_damage(bytes, length, state, &damaged_length);

		if (!ordinary(damaged, damaged_length, read))
		{
			++*odd;
			diag("%s, round %d", name, round);
		}
		free(damaged);
	}
}

int
main(void)
{
	uint64_t state = 20261123;
	int odd = 0, read = 0;

	for (size_t i = 0; i < FILES; i++)
	{
		size_t length, written_length;
		uint8_t *bytes = testdata_load(files[i], &length);
		uint8_t *written;
		FormatFile file;
		FormatError error;

		damage(files[i], bytes, length, ROUNDS / (int) FILES, &state, &odd, &read);
		/*
		 * most of a file is numbers; the header of the same tensors as
		 * safetensors is damaged as often again
		 */
		if (format_read(bytes, length, &file, &error) == FORMAT_OK &&
			format_write_safetensors(file.tensors, file.ntensors, &written, &written_length,
									 &error) == FORMAT_OK)
		{
			damage("the same as safetensors", written, written_length, ROUNDS / (int) FILES, &state,
				   &odd, &read);
			free(written);
		}
		format_free(&file);
		free(bytes);
	}
	ok(odd == 0, "%d of %d damaged model files had an odd outcome, %d were still read (%08x)", odd,
	   2 * ROUNDS, read, sink);
	return done_testing();
}
