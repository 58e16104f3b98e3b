/*
 * test_format_memory.c
 *	  Whichever allocation fails, reading or writing a model file says so and
 *	  leaves nothing behind; and reading takes no more than is told beforehand.
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

/* `begin`, n times `piece`, `end`. */
static Bytes
repeated(const char *begin, Bytes piece, size_t n, const char *end)
{
	Bytes all = { malloc(strlen(begin) + n * piece.n + strlen(end)), 0 };

	memcpy(all.at, begin, all.n = strlen(begin));
	for (size_t i = 0; i < n; i++, all.n += piece.n)
		memcpy(all.at + all.n, piece.at, piece.n);
	memcpy(all.at + all.n, end, strlen(end));
	all.n += strlen(end);
	return all;
}

static void
check_peak(const char *what, Bytes file)
{
	FormatFile read;
	FormatError error;
	long before = allocated_bytes, most = (long) format_read_bytes(file.n);

	allocated_peak = allocated_bytes;
	format_read(file.at, file.n, &read, &error);
	ok(allocated_peak - before <= most, "%zu bytes, %s: reading takes %ld bytes, told are %ld",
	   file.n, what, allocated_peak - before, most);
	format_free(&read);
	free(file.at);
}

#define B(literal) ((Bytes){ (uint8_t *) literal, sizeof(literal) - 1 })

/* What makes much of little in pickles and headers, of sizes from tiny up. */
static void
test_peaks(void)
{
	static const struct
	{
		const char *begin;
		Bytes piece;
		const char *end;
	} pickles[] = {
		{ "]", { (uint8_t *) "]a", 2 }, "." },
		{ "", { (uint8_t *) "(", 1 }, "" },
		{ "", { (uint8_t *) "}\x94", 2 }, "" },
		{ ")", { (uint8_t *) "\x85", 1 }, "." },
		{ "Nr\xff\xff\3", { (uint8_t *) "\0", 1 }, "" },
		{ "](U\7storagectorch\nFloatStorage\nU\0010U\3cpuK\1tq\1a",
		  { (uint8_t *) "h\1Qa", 4 },
		  "." },
	};
	static const struct
	{
		const char *begin, *piece, *end;
	} headers[] = {
		{ "{\"__metadata__\":[", "{},", "0]}" },       { "{\"__metadata__\":[", "[],", "0]}" },
		{ "{\"__metadata__\":[", "{\"\":0},", "0]}" }, { "{\"__metadata__\":[", "\"\",", "0]}" },
		{ "{\"__metadata__\":\"", "\\\"", "\"}" },
	};

	for (size_t n = 10; n <= 3000000; n = n == 10 ? 1000 : n == 1000 ? 60000 : 4 * n)
	{
		for (size_t i = 0; i < sizeof(pickles) / sizeof(pickles[0]); i++)
		{
			Bytes object = repeated(pickles[i].begin, pickles[i].piece, n, pickles[i].end);

			check_peak("a pickle", legacy_file(object, B("]."), NULL, 0));
			check_peak("two pickles", legacy_file(object, object, NULL, 0));
			free(object.at);
		}
		for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++)
		{
			Bytes piece = { (uint8_t *) headers[i].piece, strlen(headers[i].piece) };
			Bytes header = repeated(headers[i].begin, piece, n, headers[i].end);
			Bytes file = { 0 };
			uint64_t length = header.n;

			put(&file, &length, sizeof(length));
			put(&file, header.at, header.n);
			check_peak(headers[i].piece, file);
			free(header.at);
		}
	}
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
	test_peaks();
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
