/*
 * test_format_safetensors.c
 *	  safetensors files that obey the format are read, all others refused.
 */
#include "format_fixture.h"

#define MIB ((size_t) 1 << 20)

/*
 * A file of this header, which is said to have `claimed` bytes, and n zero
 * bytes of data.
 */
static Bytes
make_file(const char *header, uint64_t claimed, size_t n)
{
	Bytes file = { 0 };
	uint8_t *zeros = calloc(n + 1, 1);

	put(&file, &claimed, 8);
	put_string(&file, header);
	put(&file, zeros, n);
	free(zeros);
	return file;
}

static void
test_good(void)
{
	static const struct
	{
		const char *header;
		size_t data;
		int ntensors;
	} cases[] = {
		{ "{}", 0, 0 },
		{ "{\"__metadata__\":{\"format\":\"pt\"}}   ", 0, 0 },
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}", 24, 1 },
		{ "{\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[8,11]},\"a\":{\"dtype\":"
		  "\"I64\",\"shape\":[],\"data_offsets\":[0,8]}}",
		  11, 2 },
		{ "{\"a\":{\"dtype\":\"BF16\",\"shape\":[0,9],\"data_offsets\":[4,4]},\"b\":{\"dtype\":"
		  "\"F16\",\"shape\":[2],\"data_offsets\":[0,4]}}",
		  4, 2 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		Bytes bytes = make_file(cases[i].header, strlen(cases[i].header), cases[i].data);
		FormatFile file;
		FormatError error;

		ok(format_read(bytes.at, bytes.n, &file, &error) == FORMAT_OK &&
			   file.kind == FORMAT_SAFETENSORS && file.ntensors == cases[i].ntensors &&
			   touch_tensors(&file) != 1,
		   "%s", cases[i].header);
		format_free(&file);
		free(bytes.at);
	}
}

#define ENTRY(dtype, shape, offsets) \
	"{\"a\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void
test_bad(void)
{
	static const struct
	{
		const char *header;
		size_t data;
		FormatStatus code;
		const char *words;
	} cases[] = {
		{ ENTRY("\"F32\"", "[2]", "[0,8]"), 7, FORMAT_EINVALID, "beyond the end" },
		{ ENTRY("\"F32\"", "[2]", "[0,8]"), 9, FORMAT_EINVALID, "goes on" },
		{ ENTRY("\"F32\"", "[2]", "[1,9]"), 9, FORMAT_EINVALID, "bytes of no tensor" },
		{ ENTRY("\"F32\"", "[2]", "[0,12]"), 12, FORMAT_EINVALID, "does not match" },
		{ ENTRY("\"F32\"", "[2]", "[8,0]"), 8, FORMAT_EINVALID, "rising" },
		{ ENTRY("\"F32\"", "[2]", "[-8,0]"), 8, FORMAT_EINVALID, "rising" },
		{ ENTRY("\"F32\"", "[2]", "[0]"), 8, FORMAT_EINVALID, "rising" },
		{ ENTRY("\"F32\"", "[2]", "[0,8,8]"), 8, FORMAT_EINVALID, "rising" },
		{ ENTRY("\"F32\"", "[2]", "[0,8.0]"), 8, FORMAT_EINVALID, "rising" },
		{ ENTRY("\"F32\"", "[2]", "\"0,8\""), 8, FORMAT_EINVALID, "rising" },
		{ ENTRY("\"F32\"", "[2]", "[0,99999999999999999999]"), 8, FORMAT_EINVALID,
		  "not valid JSON" },
		{ ENTRY("\"F32\"", "[-2]", "[0,8]"), 8, FORMAT_EINVALID, "impossible shape" },
		{ ENTRY("\"F32\"", "[2.0]", "[0,8]"), 8, FORMAT_EINVALID, "shape of integers" },
		{ ENTRY("\"F32\"", "2", "[0,8]"), 8, FORMAT_EINVALID, "shape of integers" },
		{ ENTRY("\"F32\"", "[4611686018427387904,4,1]", "[0,0]"), 0, FORMAT_EINVALID,
		  "impossible shape" },
		{ ENTRY("\"F32\"", "[4294967296,4294967296]", "[0,0]"), 0, FORMAT_EINVALID,
		  "impossible shape" },
		{ ENTRY("\"U8\"", "[9223372036854775807]", "[0,0]"), 0, FORMAT_ELIMIT, "times as large" },
		{ ENTRY("\"F32\"", "[0,4611686018427387904,16]", "[0,0]"), 0, FORMAT_EINVALID,
		  "impossible shape" },
		{ ENTRY("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, FORMAT_ELIMIT, "9 dimensions" },
		{ ENTRY("\"F8_E4M3\"", "[2]", "[0,2]"), 2, FORMAT_EINVALID, "F8_E4M3" },
		{ ENTRY("7", "[2]", "[0,2]"), 2, FORMAT_EINVALID, "no dtype" },
		{ "{\"a\":[]}", 0, FORMAT_EINVALID, "no dtype" },
		{ "{\"\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1, FORMAT_EINVALID,
		  "empty name" },
		{ "{\"a\\nb\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1, FORMAT_EINVALID,
		  "printable" },
		{ "{\"\\u00e4\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1,
		  FORMAT_EINVALID, "printable" },
		{ "{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1,
		  FORMAT_EINVALID, "not valid JSON" },
		{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
		  "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}",
		  6, FORMAT_EINVALID, "overlaps" },
		{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
		  "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
		  4, FORMAT_EINVALID, "overlaps" },
		{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
		  "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[5,9]}}",
		  9, FORMAT_EINVALID, "no tensor" },
		{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
		  "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
		  2, FORMAT_EINVALID, "not valid JSON" },
		{ "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
		  FORMAT_EINVALID, "not valid JSON" },
		{ "{\"a\":", 0, FORMAT_EINVALID, "not valid JSON" },
		{ "{} {}", 0, FORMAT_EINVALID, "not valid JSON" },
		{ "{\xff}", 0, FORMAT_EINVALID, "not valid JSON" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		Bytes bytes = make_file(cases[i].header, strlen(cases[i].header), cases[i].data);

		refused(cases[i].header, bytes.at, bytes.n, cases[i].code, cases[i].words);
		free(bytes.at);
	}
}

static void
test_header_length(void)
{
	static const uint64_t claims[] = { 3, 1000, UINT64_MAX, UINT64_MAX - 7, (uint64_t) 1 << 63 };

	for (size_t i = 0; i < sizeof(claims) / sizeof(claims[0]); i++)
	{
		Bytes bytes = make_file("{}", claims[i], 0);

		refused("header longer than the file", bytes.at, bytes.n, FORMAT_EINVALID,
				"more than the file");
		free(bytes.at);
	}
}

/* n times `piece` between the two ends, and a file around it. */
static void
refused_repeated(const char *what, const char *begin, const char *piece, size_t n, const char *end,
				 FormatStatus code, const char *words)
{
	Bytes header = { 0 }, file = { 0 };

	header.at = malloc(strlen(begin) + n * strlen(piece) + strlen(end) + 1);
	strcpy((char *) header.at, begin);
	header.n = strlen(begin);
	for (size_t i = 0; i < n; i++, header.n += strlen(piece))
		memcpy(header.at + header.n, piece, strlen(piece));
	strcpy((char *) header.at + header.n, end);
	file = make_file((char *) header.at, strlen((char *) header.at), 0);
	refused(what, file.at, file.n, code, words);
	free(file.at);
	free(header.at);
}

static void
test_bombs(void)
{
	Bytes header = { 0 }, file;

	refused_repeated("arrays 100,000 deep", "{\"a\":", "[", 100000, "", FORMAT_EINVALID,
					 "not valid JSON");
	refused_repeated("objects 100,000 deep", "", "{\"a\":", 60000, "", FORMAT_EINVALID,
					 "not valid JSON");
	refused_repeated("a million empty objects", "{\"__metadata__\":[", "{},", 1000000, "0]}",
					 FORMAT_ELIMIT, "more than 131072 values");
	refused_repeated("a text of a million commas", "{\"a\":\"\\\"", ",[", 500000, "\"}",
					 FORMAT_EINVALID, "has no dtype");
	refused_repeated("a header of 5 MB", "{", " ", 5 * MIB, "}", FORMAT_ELIMIT, "the limit is");
	refused_repeated("a name of 300 bytes", "{\"", "n", 300,
					 "\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", FORMAT_ELIMIT,
					 "the limit is 255");
	refused_repeated("a shape of 100,000 extents",
					 "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1],\"shape\":[", "1,", 100000,
					 "1]}}", FORMAT_ELIMIT, "dimensions");
	put_string(&header, "{");
	for (int i = 0; i < 4097; i++)
	{
		char entry[100];

		snprintf(entry, sizeof(entry),
				 "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
				 i > 0 ? "," : "", i);
		put_string(&header, entry);
	}
	put(&header, "}", 2);
	file = make_file((char *) header.at, strlen((char *) header.at), 0);
	refused("4097 tensors", file.at, file.n, FORMAT_ELIMIT, "more than 4096 tensors");
	free(file.at);
	free(header.at);
}

int
main(void)
{
	test_good();
	test_bad();
	test_header_length();
	test_bombs();
	return done_testing();
}
