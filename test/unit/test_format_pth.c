/*
 * test_format_pth.c
 *	  Files of torch.save, of today and of 2017, give the tensors that
 *	  torch.load gives; and every format survives being written as every other.
 */
#include "format_fixture.h"
#include "common/protocol.h"
#include "format/format_private.h"

_Static_assert(FORMAT_MAX_NAME + 1 == BICYCLE_MAX_NAME, "a name that is read fits the protocol");

/*
 * Writes a file's tensors with one of the writers, reads them again and
 * compares.
 */
static bool
survives(const FormatFile *file,
		 FormatStatus (*write)(const NnTensor *, int, uint8_t **, size_t *, FormatError *),
		 FormatKind kind)
{
	uint8_t *bytes;
	size_t length;
	FormatFile again;
	FormatError error;
	bool same;

	if (write(file->tensors, file->ntensors, &bytes, &length, &error) != FORMAT_OK)
	{
		diag("%s", error.detail);
		return false;
	}
	same = format_read(bytes, length, &again, &error) == FORMAT_OK && again.kind == kind &&
		   same_tensors(file->tensors, file->ntensors, again.tensors, again.ntensors);
	format_free(&again);
	free(bytes);
	return same;
}

/*
 * Compares a tensor with its line of expected.txt: name dtype dimensions
 * extent.. crc.
 */
static bool
matches(const NnTensor *tensor, char *line)
{
	char *name = strtok(line, " ");
	char *dtype = strtok(NULL, " ");
	int ndim = atoi(strtok(NULL, " "));
	bool same = strcmp(tensor->name, name) == 0 &&
				strcmp(nn_dtype_name(tensor->dtype), dtype) == 0 && tensor->ndim == ndim &&
				tensor->network == NN_NET_G;

	for (int i = 0; i < ndim; i++)
		same = atoll(strtok(NULL, " ")) == tensor->shape[i] && same;
	return same && strtoul(strtok(NULL, " "), NULL, 16) == crc32_z(0, tensor->data, tensor->nbytes);
}

static FormatKind
kind_of(const char *layout)
{
	return strcmp(layout, "zip") == 0      ? FORMAT_PTH_ZIP
		   : strcmp(layout, "legacy") == 0 ? FORMAT_PTH_LEGACY
										   : FORMAT_SAFETENSORS;
}

/*
 * One file of expected.txt; *at is behind its heading line and is moved behind
 * its tensors.
 */
static void
check_file(const char *name, const char *layout, int ntensors, char **at)
{
	size_t length;
	uint8_t *bytes = testdata_load(name, &length);
	FormatFile file;
	FormatError error;
	bool read = format_read(bytes, length, &file, &error) == FORMAT_OK;
	int same = 0;

	ok(read && file.ntensors == ntensors && file.kind == kind_of(layout),
	   "%s is a %s file of %d tensors", name, layout, ntensors);
	if (!read)
		diag("%s", error.detail);
	for (int i = 0; i < ntensors; i++)
	{
		char *end = strchr(*at, '\n');

		*end = '\0';
		same += i < file.ntensors && matches(&file.tensors[i], *at);
		*at = end + 1;
	}
	ok(same == ntensors, "%s: %d of %d tensors as torch.load reads them", name, same, ntensors);
	ok(survives(&file, format_write_safetensors, FORMAT_SAFETENSORS),
	   "%s: the same after writing safetensors", name);
	ok(survives(&file, format_write_pth, FORMAT_PTH_ZIP), "%s: the same after writing .pth", name);
	format_free(&file);
	free(bytes);
}

static void
test_files(void)
{
	size_t length;
	char *text = testdata_text("pth/expected.txt", &length);
	char *at = text;
	int nfiles = 0;

	while (*at != '\0')
	{
		char name[128], layout[16];
		int ntensors;

		if (sscanf(at, "%127s %15s %d", name, layout, &ntensors) != 3)
			break;
		at = strchr(at, '\n') + 1;
		check_file(name, layout, ntensors, &at);
		nfiles++;
	}
	ok(nfiles == 15 && *at == '\0', "all %d files were there", nfiles);
	free(text);
}

/*
 * torch writes ZIP64 records only where it must; here they are in every place.
 * Padding and data descriptors lie between the entries.
 */
static void
test_zip64(void)
{
	static const int64_t size[] = { 2, 2 }, stride[] = { 1, 2 };
	const float data[] = { 1, 2, 3, 4 }, transposed[] = { 1, 3, 2, 4 };
	Bytes pickle = { 0 };
	FormatFile file;
	FormatError error;

	put(&pickle, "\x80\x02}", 3);
	put_text(&pickle, "w");
	put_tensor(&pickle, "0", 4, 0, 2, size, stride);
	put_string(&pickle, "s.");
	for (int zip64 = 0; zip64 < 2; zip64++)
	{
		ZipPart parts[] = {
			{ .name = "net/data.pkl", .data = pickle.at, .n = pickle.n, .zip64 = zip64 },
			{ .name = "net/data/0", .data = data, .n = sizeof(data), .zip64 = zip64 },
		};
		Bytes zip = zip_file(parts, 2);

		ok(format_read(zip.at, zip.n, &file, &error) == FORMAT_OK && file.ntensors == 1 &&
			   memcmp(file.tensors[0].data, transposed, sizeof(transposed)) == 0,
		   "%s directory", zip64 ? "ZIP64" : "plain");
		format_free(&file);
		free(zip.at);
	}
	free(pickle.at);
}

/*
 * Only what is not row-major is copied: a model of the usual kind is read
 * without taking its size in memory.
 */
static void
test_copies(void)
{
	static const char *const names[] = { "edges2emoji/G.pth", "edges2emoji/E.pth",
										 "pth/windows_legacy.pth" };
	static const int copies[] = {
		0, 0, 6
		/*
	 * transposed, steps, permuted, expanded, rows, column; not odd_stride,
	 * whose odd one is of one element
	 */
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		size_t length;
		uint8_t *bytes = testdata_load(names[i], &length);
		FormatFile file;
		FormatError error;
		int copied = 0;

		if (format_read(bytes, length, &file, &error) == FORMAT_OK)
			for (int t = 0; t < file.ntensors; t++)
				copied += (const uint8_t *) file.tensors[t].data < bytes ||
						  (const uint8_t *) file.tensors[t].data >= bytes + length;
		ok(file.ntensors > 0 && copied == copies[i], "%s: %d of %d tensors are copied", names[i],
		   copied, file.ntensors);
		format_free(&file);
		free(bytes);
	}
}

/* What the writers refuse. */
static void
test_writers(void)
{
	static const float data[4];
	NnTensor good = { .name = "w",
					  .dtype = NN_F32,
					  .ndim = 1,
					  .shape = { 4 },
					  .data = data,
					  .nbytes = sizeof(data) };
	NnTensor tensors[2] = { good, good };
	char name[400];
	uint8_t *bytes;
	size_t length;
	FormatFile empty;
	FormatError error;

	ok(format_write_pth(tensors, 2, &bytes, &length, &error) == FORMAT_EINVALID && bytes == NULL &&
		   well_formed(error.message, error.detail),
	   "%s", error.detail);
	ok(format_write_safetensors(tensors, 2, &bytes, &length, &error) == FORMAT_EINVALID &&
		   well_formed(error.message, error.detail),
	   "%s", error.detail);
	tensors[0].nbytes = 15;
	ok(format_write_safetensors(tensors, 1, &bytes, &length, &error) == FORMAT_EINVALID &&
		   well_formed(error.message, error.detail),
	   "%s", error.detail);
	memset(name, 'n', sizeof(name));
	name[256] = '\0';
	tensors[0] = good;
	tensors[0].name = name;
	ok(format_write_pth(tensors, 1, &bytes, &length, &error) == FORMAT_ELIMIT &&
		   strcmp(error.message, "model file would be beyond a limit") == 0 &&
		   well_formed(error.message, error.detail),
	   "%s", error.detail);
	name[255] = '\0';
	ok(format_write_pth(tensors, 1, &bytes, &length, &error) == FORMAT_OK,
	   "a name of 255 bytes is written");
	free(bytes);
	ok(format_write_pth(NULL, 0, &bytes, &length, &error) == FORMAT_OK &&
		   format_read(bytes, length, &empty, &error) == FORMAT_OK && empty.ntensors == 0,
	   "no tensors are a file too");
	format_free(&empty);
	free(bytes);
}

/*
 * A name may have every printable character, which JSON and pickles must get
 * through.
 */
static void
test_names(void)
{
	static const float data[1] = { 1 };
	char name[] = " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
	NnTensor tensor = {
		.name = name, .dtype = NN_F32, .ndim = 0, .data = data, .nbytes = sizeof(data)
	};
	FormatFile file = { .tensors = &tensor, .ntensors = 1 };

	ok(survives(&file, format_write_safetensors, FORMAT_SAFETENSORS) &&
		   survives(&file, format_write_pth, FORMAT_PTH_ZIP),
	   "name %s", name);
}

/* The alignment that the writers promise, whatever the order of dtypes. */
static void
test_alignment(void)
{
	size_t length;
	uint8_t *bytes = testdata_load("pth/dtypes_legacy.pth", &length);
	FormatFile file, again;
	FormatError error;
	uint8_t *written;
	bool aligned = true;

	ok(format_read(bytes, length, &file, &error) == FORMAT_OK, "a file of all dtypes");
	ok(format_write_pth(file.tensors, file.ntensors, &written, &length, &error) == FORMAT_OK &&
		   format_read(written, length, &again, &error) == FORMAT_OK,
	   "rewritten");
	for (int i = 0; i < again.ntensors; i++)
		aligned = aligned && ((const uint8_t *) again.tensors[i].data - written) % 64 == 0;
	ok(aligned, ".pth: data start at multiples of 64");
	format_free(&again);
	free(written);
	ok(format_write_safetensors(file.tensors, file.ntensors, &written, &length, &error) ==
			   FORMAT_OK &&
		   format_read(written, length, &again, &error) == FORMAT_OK,
	   "rewritten");
	for (int i = 0; i < again.ntensors; i++)
		aligned = aligned && (size_t) ((const uint8_t *) again.tensors[i].data - written) %
									 nn_dtype_size(again.tensors[i].dtype) ==
								 0;
	ok(aligned, "safetensors: elements are aligned");
	format_free(&again);
	free(written);
	format_free(&file);
	free(bytes);
}

int
main(void)
{
	test_files();
	test_zip64();
	test_copies();
	test_writers();
	test_names();
	test_alignment();
	return done_testing();
}
