/*
 * test_format_memory.c
 *	  Whichever allocation fails, reading or writing a model file says so and
 *	  leaves nothing behind.
 */
#include "failing_malloc.h"
#include "format_fixture.h"

#if FAILING_MALLOC

typedef struct Input
{
	uint8_t *bytes;
	size_t length;
	FormatFile file;
} Input;

typedef FormatStatus (*Work)(const Input *input, FormatError *error);

static FormatStatus
read_file(const Input *input, FormatError *error)
{
	FormatFile file;
	FormatStatus status = format_read(input->bytes, input->length, &file, error);

	format_free(&file);
	return status;
}

static FormatStatus
write_safetensors(const Input *input, FormatError *error)
{
	uint8_t *bytes;
	size_t length;
	FormatStatus status =
		format_write_safetensors(input->file.tensors, input->file.ntensors, &bytes, &length, error);

	free(bytes);
	return status;
}

static FormatStatus
write_pth(const Input *input, FormatError *error)
{
	uint8_t *bytes;
	size_t length;
	FormatStatus status =
		format_write_pth(input->file.tensors, input->file.ntensors, &bytes, &length, error);

	free(bytes);
	return status;
}

/*
 * The JSON library's scanner takes a lack of memory for an odd character; that
 * much is let pass.
 */
static bool
is_memory_error(FormatStatus status, const FormatError *error)
{
	return error->code == status && well_formed(error->message, error->detail) &&
		   (status == FORMAT_ENOMEM || strstr(error->detail, "not valid JSON") != NULL);
}

static void
fail_each(const char *what, Work work, const Input *input)
{
	FormatStatus status = FORMAT_ENOMEM;
	bool clean = true;
	int n;

	for (n = 0; n < 2000 && status != FORMAT_OK; n++)
	{
		FormatError error = { 0 };

		allocations_begin(n);
		status = work(input, &error);
		clean &= allocations_end() == 0 && (status == FORMAT_OK || is_memory_error(status, &error));
	}
	ok(status == FORMAT_OK && clean && n > 1, "%s: each of %d allocations", what, n - 1);
}

int
main(void)
{
	static const char *const files[] = { "pth/state_legacy.pth",   "pth/windows_legacy.pth",
										 "pth/state_zip.pth",      "pth/windows_zip.pth",
										 "pth/dtypes.safetensors", "saved/gan.pth",
										 "saved/lightning.ckpt" };

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
	{
		Input input;
		FormatError error;

		input.bytes = testdata_load(files[i], &input.length);
		fail_each(files[i], read_file, &input);
		if (format_read(input.bytes, input.length, &input.file, &error) == FORMAT_OK)
		{
			fail_each("written as safetensors", write_safetensors, &input);
			fail_each("written as .pth", write_pth, &input);
		}
		format_free(&input.file);
		free(input.bytes);
	}
	return done_testing();
}

#else

int
main(void)
{
	ok(true, "not under a sanitizer # SKIP");
	return done_testing();
}

#endif
