/*
 * test_format_hostile.c
 *	  .pth files that want to run something, to read beyond their end or to fill
 *	  memory are refused, in both layouts.
 */
#include "format_fixture.h"

/* A literal with zero bytes in it. */
#define P(literal) literal, sizeof(literal) - 1

/* The object pickle of a legacy file is this; keys and data are empty. */
static void
refused_object(const char *what, Bytes object, FormatStatus code, const char *words)
{
	Bytes keys = { (uint8_t *) "].", 2 };
	Bytes file = legacy_file(object, keys, NULL, 0);

	refused(what, file.at, file.n, code, words);
	free(file.at);
}

#define TEN_LETTERS "abcdefghij"
#define LONG_NAME                                                                       \
	TEN_LETTERS TEN_LETTERS TEN_LETTERS TEN_LETTERS TEN_LETTERS TEN_LETTERS TEN_LETTERS \
		TEN_LETTERS TEN_LETTERS TEN_LETTERS TEN_LETTERS

static void
test_operators(void)
{
	static const struct
	{
		const char *what;
		const char *bytes;
		size_t n;
		const char *words;
	} cases[] = {
		{ "os.system", P("cos\nsystem\nU\x02id\x85R."), "whole pickled object, a os.system," },
		{ "posix.system by STACK_GLOBAL", P("\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R."),
		  "object, a posix.system," },
		{ "builtins.eval", P("c__builtin__\neval\n."), "object, a __builtin__.eval," },
		{ "a name that begins like an allowed one", P("ctorch\nFloatStorage2\n."),
		  "object, a torch.FloatStorage2," },
		{ "a module with a NUL", P("ctorch\0\nFloatStorage\n."), "object, a torch" },
		{ "torch.load within", P("ctorch\nload\n."), "object, a torch.load," },
		{ "a long name", P("c" LONG_NAME "\n" LONG_NAME "\n."), "whole pickled object" },
		{ "a name without an end", P("ctorch\nFloat"), "ends within" },
		{ "a name made of numbers", P("K\x01K\x02\x93."), "not a text" },
		{ "REDUCE of a list", P("])R."), "calls something" },
		{ "REDUCE with a list", P("ccollections\nOrderedDict\n]R."), "calls something" },
		{ "REDUCE of a dictionary made by REDUCE", P("ccollections\nOrderedDict\n)R)R."),
		  "calls something" },
		{ "REDUCE of a storage type", P("ctorch\nFloatStorage\n)R."), "wrong arguments" },
		{ "a tensor of nothing", P("ctorch._utils\n_rebuild_tensor_v2\n)R."), "wrong arguments" },
		{ "a tensor of six numbers", P("ctorch._utils\n_rebuild_tensor_v2\n(K\1K\1K\1K\1K\1K\1tR."),
		  "tensor wrongly" },
		{ "a size of text", P("ctorch\nSize\nU\1x\x85R."), "wrong arguments" },
		{ "a parameter of None", P("ctorch._utils\n_rebuild_parameter\n(N\x89NtR."),
		  "wrong arguments" },
		{ "an OrderedDict of numbers", P("ccollections\nOrderedDict\n](K\1e\x85R."), "pairs" },
		{ "an OrderedDict of triples", P("ccollections\nOrderedDict\n]](K\1K\1K\1ea\x85R."),
		  "pairs" },
		{ "INST", P("(ios\nsystem\n."), "operator 0x69" },
		{ "OBJ", P("(o."), "operator 0x6f" },
		{ "NEWOBJ with a number", P("ccollections\nOrderedDict\nK\1\x81."), "not a name" },
		{ "EXT1", P("\x82\x01."), "operator 0x82" },
		{ "PERSID", P("Pname\n."), "operator 0x50" },
		{ "INT of protocol 0", P("I1\n."), "operator 0x49" },
		{ "LONG4", P("\x8b\xff\xff\xff\x7f"), "ends within" },
		{ "BINUNICODE8", P("\x8d\xff\xff\xff\xff\xff\xff\xff\xff"), "ends within" },
		{ "NEXT_BUFFER", P("\x97."), "operator 0x97" },
		{ "protocol 1", P("\x80\x01N."), "protocol" },
		{ "protocol 6", P("\x80\x06N."), "protocol" },
		{ "a frame beyond the end", P("\x95\xff\xff\xff\xff\xff\xff\xff\xffN."), "frame" },
		{ "BINUNICODE of 4 GB", P("X\xff\xff\xff\xff."), "ends within" },
		{ "BINSTRING of -1", P("T\xff\xff\xff\xff."), "ends within" },
		{ "a short string without its end", P("U\xff."), "ends within" },
		{ "LONG1 of 255 bytes", P("\x8a\xff."), "ends within" },
		{ "LONG1 of 9 bytes", P("\x8a\x09\1\1\1\1\1\1\1\1\1."), "single value" },
		{ "BINFLOAT without its end", P("G\0\0\0"), "ends within" },
		{ "STOP of nothing", P("."), "one value" },
		{ "STOP of two values", P("NN."), "one value" },
		{ "STOP of a mark", P("(."), "one value" },
		{ "TUPLE without a mark", P("NNt."), "mark" },
		{ "TUPLE2 across a mark", P("N(N\x86."), "empty stack" },
		{ "TUPLE3 of two values", P("NN\x87."), "empty stack" },
		{ "APPEND to a number", P("K\1Na."), "wrong kind" },
		{ "APPEND of a mark", P("](a."), "empty stack" },
		{ "APPENDS to a dictionary", P("}(Ne."), "wrong kind" },
		{ "APPENDS to a mark", P("((Ne."), "wrong kind" },
		{ "SETITEM with one value", P("}Ns."), "wrong kind" },
		{ "SETITEM of nothing", P("s."), "empty stack" },
		{ "SETITEMS with a key but no value", P("}(U\1ae."), "wrong kind" },
		{ "SETITEMS with three values", P("}(NNNu."), "no value" },
		{ "DICT with three values", P("(NNNd."), "no value" },
		{ "BUILD of a number", P("K\1Nb."), "wrong kind" },
		{ "BUILD of nothing", P("b."), "empty stack" },
		{ "BINPUT of nothing", P("q\0."), "empty stack" },
		{ "BINGET of an empty slot", P("Nq\5h\4."), "not written" },
		{ "BINGET beyond the memo", P("h\0."), "not written" },
		{ "MEMOIZE of nothing", P("\x94."), "empty stack" },
		{ "BINPERSID of None", P("NQ."), "no storage" },
		{ "BINPERSID of text", P("(U\6moduleNNNNtQ."), "no storage" },
		{ "BINPERSID of a foreign type",
		  P("(U\7storageccollections\nOrderedDict\nU\0010U\3cpuK\1tQ."), "no storage" },
		{ "BINPERSID of -1 elements",
		  P("(U\7storagectorch\nFloatStorage\nU\0010U\3cpuJ\xff\xff\xff\xfftQ."), "no storage" },
		{ "BINPERSID of -1 elements by LONG1",
		  P("(U\7storagectorch\nFloatStorage\nU\0010U\3cpu\x8a\1\xfftQ."), "no storage" },
		{ "a view beyond its storage",
		  P("(U\7storagectorch\nFloatStorage\nU\0010U\3cpuK\4(U\1vK\3K\2ttQ."),
		  "view that reaches" },
		{ "a view of text", P("(U\7storagectorch\nFloatStorage\nU\0010U\3cpuK\4U\1vtQ."),
		  "view of a storage" },
		{ "no dictionary", P("N."), "dictionary" },
		{ "a list", P("](U\1aU\1be."), "dictionary" },
		{ "a key of None", P("}NNs."), "no dictionary" },
		{ "a value of None", P("}U\1aNs."), "no dictionary" },
		{ "a dictionary of dictionaries", P("}U\5model}s."), "no dictionary" },
		{ "an object that contains itself", P("}q\0U\1ah\0s."), "no dictionary" },
		{ "a list that contains itself", P("}U\1a]q\0h\0as."), "no dictionary" },
		{ "a key of control characters", P("}X\3\0\0\0a\nb]s."), "no dictionary" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		refused_object(cases[i].what, (Bytes){ (uint8_t *) cases[i].bytes, cases[i].n },
					   FORMAT_EINVALID, cases[i].words);
}

/* begin, n times piece, end: as an object pickle. */
static void
refused_repeated(const char *what, Bytes begin, Bytes piece, size_t n, const char *end,
				 FormatStatus code, const char *words)
{
	Bytes object = { malloc(begin.n + n * piece.n + strlen(end)), 0 };

	memcpy(object.at, begin.at, begin.n);
	object.n = begin.n;
	for (size_t i = 0; i < n; i++, object.n += piece.n)
		memcpy(object.at + object.n, piece.at, piece.n);
	memcpy(object.at + object.n, end, strlen(end));
	object.n += strlen(end);
	refused_object(what, object, code, words);
	free(object.at);
}

#define B(literal) ((Bytes){ (uint8_t *) literal, sizeof(literal) - 1 })

static void
test_bombs(void)
{
	refused_repeated("a million marks", B(""), B("("), 1000000, ".", FORMAT_ELIMIT, "deep a stack");
	refused_repeated("a million values", B("("), B("N"), 1000000, "t.", FORMAT_ELIMIT,
					 "deep a stack");
	refused_repeated("a list of two million lists", B("]"), B("]a"), 2000000, ".", FORMAT_ELIMIT,
					 "too many values");
	refused_repeated("tuples a million deep", B(")"), B("\x85"), 1000000, ".", FORMAT_ELIMIT,
					 "too many values");
	refused_repeated("tuples 100,000 deep", B(")"), B("\x85"), 100000, ".", FORMAT_EINVALID,
					 "dictionary");
	refused_repeated("a list of itself, many times", B("]q\0"), B("(h\0h\0h\0h\0h\0h\0h\0h\0e"),
					 300000, ".", FORMAT_ELIMIT, "too many values");
	refused_repeated("100,000 mentions of a storage",
					 B("](U\7storagectorch\nFloatStorage\nU\0010U\3cpuK\1tq\0a"), B("h\0Qa"),
					 100000, ".", FORMAT_ELIMIT, "too many storages");
	refused_repeated("a memo index of 2^32 - 1", B("Nr\xff\xff\xff\xff"), B(""), 0, ".",
					 FORMAT_ELIMIT, "too large a memo");
	refused_repeated("a memo index beyond the file", B("Nr\xff\xff\1\0"), B(""), 0, ".",
					 FORMAT_ELIMIT, "too large a memo");
}

/* ---- Tensors and storages ------------------------------------------------ */

/* A legacy file with one tensor "w" on storage "0" of 4 floats. */
static Bytes
one_tensor(int64_t numel, int64_t offset, int ndim, const int64_t *size, const int64_t *stride)
{
	static const char data[] = "\4\0\0\0\0\0\0\0abcdefghijklmnop";
	Bytes object = { 0 }, keys = { 0 }, file;

	put_string(&object, "}");
	put_text(&object, "w");
	put_tensor(&object, "0", numel, offset, ndim, size, stride);
	put_string(&object, "s.");
	put_string(&keys, "]");
	put_text(&keys, "0");
	put_string(&keys, "a.");
	file = legacy_file(object, keys, data, sizeof(data) - 1);
	free(object.at);
	free(keys.at);
	return file;
}

static void
test_windows(void)
{
	static const int64_t big = (int64_t) 1 << 62;
	static const struct
	{
		const char *what;
		int64_t numel, offset;
		int ndim;
		int64_t size[9], stride[9];
		FormatStatus code;
		const char *words;
	} cases[] = {
		{ "one element too many", 4, 0, 1, { 5 }, { 1 }, FORMAT_EINVALID, "beyond its storage" },
		{ "an offset of one too many",
		  4,
		  1,
		  1,
		  { 4 },
		  { 1 },
		  FORMAT_EINVALID,
		  "beyond its storage" },
		{ "a stride too wide", 4, 0, 2, { 2, 2 }, { 3, 1 }, FORMAT_EINVALID, "beyond its storage" },
		{ "a scalar behind the end", 4, 4, 0, { 0 }, { 0 }, FORMAT_EINVALID, "beyond its storage" },
		{ "an offset of 2^63 - 1",
		  4,
		  INT64_MAX,
		  1,
		  { 1 },
		  { 1 },
		  FORMAT_EINVALID,
		  "beyond its storage" },
		{ "an offset that wraps",
		  4,
		  INT64_MAX,
		  1,
		  { 3 },
		  { big },
		  FORMAT_EINVALID,
		  "beyond its storage" },
		{ "a stride whose product wraps to 0",
		  4,
		  0,
		  1,
		  { 5 },
		  { big },
		  FORMAT_EINVALID,
		  "beyond its storage" },
		{ "a sum of strides that wraps",
		  4,
		  0,
		  3,
		  { 3, 3, 3 },
		  { big, big, 1 },
		  FORMAT_EINVALID,
		  "beyond its storage" },
		{ "a shape whose product wraps to 0",
		  4,
		  0,
		  2,
		  { (int64_t) 1 << 32, (int64_t) 1 << 32 },
		  { 0, 0 },
		  FORMAT_EINVALID,
		  "impossible shape" },
		{ "a shape whose bytes wrap",
		  4,
		  0,
		  1,
		  { big },
		  { 0 },
		  FORMAT_EINVALID,
		  "impossible shape" },
		{ "a negative size", 4, 0, 1, { -1 }, { 1 }, FORMAT_EINVALID, "tensor wrongly" },
		{ "a negative stride", 4, 3, 1, { 4 }, { -1 }, FORMAT_EINVALID, "tensor wrongly" },
		{ "a negative offset", 4, -1, 1, { 1 }, { 1 }, FORMAT_EINVALID, "tensor wrongly" },
		{ "nine dimensions",
		  4,
		  0,
		  9,
		  { 1, 1, 1, 1, 1, 1, 1, 1, 1 },
		  { 1, 1, 1, 1, 1, 1, 1, 1, 1 },
		  FORMAT_ELIMIT,
		  "too many dimensions" },
		{ "a terabyte out of one element",
		  4,
		  0,
		  1,
		  { (int64_t) 1 << 38 },
		  { 0 },
		  FORMAT_ELIMIT,
		  "times as large" },
		{ "two megabytes out of one element",
		  4,
		  0,
		  2,
		  { 1024, 512 },
		  { 0, 0 },
		  FORMAT_ELIMIT,
		  "times as large" },
		{ "a storage of fewer elements than announced",
		  5,
		  0,
		  1,
		  { 4 },
		  { 1 },
		  FORMAT_EINVALID,
		  "announced" },
		{ "a storage whose bytes wrap",
		  big,
		  0,
		  1,
		  { 4 },
		  { 1 },
		  FORMAT_EINVALID,
		  "impossible size" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		Bytes file = one_tensor(cases[i].numel, cases[i].offset, cases[i].ndim, cases[i].size,
								cases[i].stride);

		refused(cases[i].what, file.at, file.n, cases[i].code, cases[i].words);
		free(file.at);
	}
}

/*
 * The same builder, when it tells the truth, makes files that are read: else
 * the test above would prove little.
 */
static void
test_honest_windows(void)
{
	static const int64_t size[] = { 2, 2 }, stride[] = { 1, 2 }, none[] = { 0, 3 };
	Bytes file = one_tensor(4, 0, 2, size, stride);
	FormatFile read;
	FormatError error;

	ok(format_read(file.at, file.n, &read, &error) == FORMAT_OK && read.ntensors == 1 &&
		   memcmp(read.tensors[0].data, "abcdijklefghmnop", 16) == 0,
	   "a transposed window");
	format_free(&read);
	refused("one byte of the last storage missing", file.at, file.n - 1, FORMAT_EINVALID,
			"ends within storage");
	put(&file, "x", 1);
	refused("a byte behind the last storage", file.at, file.n, FORMAT_EINVALID, "goes on");
	free(file.at);
	file = one_tensor(4, 77, 2, none, stride);
	ok(format_read(file.at, file.n, &read, &error) == FORMAT_OK && read.tensors[0].nbytes == 0,
	   "an empty tensor, wherever it lies");
	format_free(&read);
	free(file.at);
}

/*
 * Tensors over one storage of 4 MB, each all of it: as they lie they are read
 * where they are, transposed they are copied, once.
 */
static void
test_shared(void)
{
	enum
	{
		SIDE = 1024
	};
	const int64_t size[] = { SIDE, SIDE }, rows[] = { SIDE, 1 }, columns[] = { 1, SIDE };
	static const struct
	{
		const char *what;
		int plain, transposed;
		FormatStatus code;
	} cases[] = { { "three as they lie", 3, 0, FORMAT_OK },
				  { "two as they lie, one transposed", 2, 1, FORMAT_OK },
				  { "two transposed", 0, 2, FORMAT_ELIMIT },
				  { "one as it lies, three transposed", 1, 3, FORMAT_ELIMIT } };
	Bytes data = { calloc(8 + SIDE * SIDE, 4), 8 + 4 * SIDE * SIDE }, keys = { 0 };

	data.at[2] = SIDE * SIDE >> 16;
	put_string(&keys, "]");
	put_text(&keys, "0");
	put_string(&keys, "a.");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		Bytes object = { 0 }, file;
		FormatFile read;
		FormatError error = { 0 };
		FormatStatus status;
		char name[] = "a";

		put_string(&object, "}");
		for (int n = 0; n < cases[i].plain + cases[i].transposed; n++, name[0]++)
		{
			put_text(&object, name);
			put_tensor(&object, "0", SIDE * SIDE, 0, 2, size, n < cases[i].plain ? rows : columns);
			put_string(&object, "s");
		}
		put_string(&object, ".");
		file = legacy_file(object, keys, data.at, data.n);
		status = format_read(file.at, file.n, &read, &error);
		ok(status == cases[i].code &&
			   (status == FORMAT_OK || strstr(error.detail, "not stored row by row") != NULL),
		   "%s: %s", cases[i].what, error.detail);
		format_free(&read);
		free(file.at);
		free(object.at);
	}
	free(data.at);
	free(keys.at);
}

/* Object and list of keys disagree. */
static void
test_storages(void)
{
	static const char data[] = "\1\0\0\0\0\0\0\0abcd\1\0\0\0\0\0\0\0efgh";
	static const struct
	{
		const char *what;
		const char *object;
		size_t object_n;
		const char *keys;
		size_t keys_n;
		size_t data_n;
		const char *words;
	} cases[] = {
#define STORAGE(type, key, numel) "(U\7storagectorch\n" type "\nU\001" key "U\3cpuK" numel "tQ"
#define TENSOR(type, key) "ctorch._utils\n_rebuild_tensor\n(" STORAGE(type, key, "\1") "K\0))tR"
		{ "a storage not listed", P("}U\1w" TENSOR("FloatStorage", "0") "s."), P("]."), 0,
		  "\"0\" is missing" },
		{ "a storage listed twice", P("}U\1w" TENSOR("FloatStorage", "0") "s."),
		  P("](U\0010U\0010e."), 24, "twice" },
		{ "a storage that is not used", P("}U\1w" TENSOR("FloatStorage", "0") "s."),
		  P("](U\0010U\0011e."), 24, "no tensor uses" },
		{ "a storage that is nowhere", P("}U\1w" TENSOR("FloatStorage", "0") "s."), P("](U\0010e."),
		  7, "ends before" },
		{ "half a storage", P("}U\1w" TENSOR("FloatStorage", "0") "s."), P("](U\0010e."), 10,
		  "ends within" },
		{ "a storage of two types",
		  P("}(U\1w" TENSOR("FloatStorage", "0") "U\1v" TENSOR("IntStorage", "0") "u."),
		  P("](U\0010e."), 12, "two ways" },
		{ "a storage of two sizes",
		  P("}(U\1w" TENSOR("FloatStorage", "0") "U\1v" STORAGE("FloatStorage", "0", "\2") "u."),
		  P("](U\0010e."), 12, "two ways" },
		{ "keys that are no list", P("}U\1w" TENSOR("FloatStorage", "0") "s."), P("N."), 0,
		  "no list" },
		{ "a key that is a number", P("}U\1w" TENSOR("FloatStorage", "0") "s."), P("]K\0a."), 12,
		  "no tensor uses" },
		{ "a tensor twice",
		  P("}(U\1w" TENSOR("FloatStorage", "0") "U\1w" TENSOR("FloatStorage", "1") "u."),
		  P("](U\0010U\0011e."), 24, "occurs twice" },
		{ "a tensor without a name", P("}U\0" TENSOR("FloatStorage", "0") "s."), P("](U\0010e."),
		  12, "empty name" },
		{ "a name in UTF-8", P("}U\2\xc3\xa4" TENSOR("FloatStorage", "0") "s."), P("](U\0010e."),
		  12, "printable" },
		{ "a name with a NUL", P("}U\3a\0b" TENSOR("FloatStorage", "0") "s."), P("](U\0010e."), 12,
		  "printable" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		Bytes file = legacy_file((Bytes){ (uint8_t *) cases[i].object, cases[i].object_n },
								 (Bytes){ (uint8_t *) cases[i].keys, cases[i].keys_n }, data,
								 cases[i].data_n);

		refused(cases[i].what, file.at, file.n, FORMAT_EINVALID, cases[i].words);
		free(file.at);
	}
}

/* Many tensors, long names. */
static void
test_counts(void)
{
	Bytes object = { 0 }, keys = B("](U\0010e."), file;
	char name[300];

	put_string(&object, "}(");
	for (int i = 0; i < 4097; i++)
	{
		snprintf(name, sizeof(name), "t%d", i);
		put_text(&object, name);
		if (i == 0)
			put(&object, P(TENSOR("FloatStorage", "0") "q\0"));
		else
			put(&object, P("h\0"));
		if (i % 1000 == 999)
			put_string(&object, "u(");
	}
	put_string(&object, "u.");
	file = legacy_file(object, keys, "\1\0\0\0\0\0\0\0abcd", 12);
	refused("4097 tensors", file.at, file.n, FORMAT_ELIMIT, "more than 4096");
	free(file.at);
	free(object.at);

	object = (Bytes){ 0 };
	memset(name, 'n', 256);
	put_string(&object, "}X");
	put(&object, "\0\1\0\0", 4);
	put(&object, name, 256);
	put(&object, P(TENSOR("FloatStorage", "0") "s."));
	file = legacy_file(object, keys, "\1\0\0\0\0\0\0\0abcd", 12);
	refused("a name of 256 bytes", file.at, file.n, FORMAT_ELIMIT, "256 bytes");
	free(file.at);
	free(object.at);
}

/* ---- The frame of the legacy layout -------------------------------------- */

static void
test_legacy_frame(void)
{
#define MAGIC "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19."
	refused("a magic number only half right", P("\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x18."),
			FORMAT_EINVALID, "magic number");
	refused("the magic number alone", P(MAGIC), FORMAT_EINVALID, "ends within");
	refused("version 1002", P(MAGIC "\x80\x02M\xea\x03."), FORMAT_EINVALID, "not version 1001");
	refused("a version that is text", P(MAGIC "\x80\x02U\0041001."), FORMAT_EINVALID,
			"not version 1001");
	refused("a big-endian writer", P(MAGIC "\x80\x02M\xe9\x03.\x80\x02}U\rlittle_endian\x89s."),
			FORMAT_EINVALID, "little-endian");
	refused("a writer of no known order", P(MAGIC "\x80\x02M\xe9\x03.\x80\x02}."), FORMAT_EINVALID,
			"little-endian");
	refused("nothing", P(""), FORMAT_EINVALID, "empty");
	refused("text", P("hello, world"), FORMAT_EINVALID, "neither a safetensors nor a PyTorch");
	refused("a tar file of PyTorch 0.1", P("sys_info\0\0\0\0\0\0\0\0\0\0\0\0"), FORMAT_EINVALID,
			"neither");
}

/* ---- Zip archives -------------------------------------------------------- */

static const char zip_pickle[] = "\x80\x02}U\1w" TENSOR("FloatStorage", "0") "s.";

/* The archive of three good entries, with one of them replaced. */
static void
refused_part(const char *what, int which, ZipPart part, FormatStatus code, const char *words)
{
	ZipPart parts[] = {
		{ .name = "net/data.pkl", .data = zip_pickle, .n = sizeof(zip_pickle) - 1 },
		{ .name = "net/data/0", .data = "abcd", .n = 4 },
		{ .name = "net/byteorder", .data = "little", .n = 6 },
	};
	Bytes zip;

	parts[which] = part;
	zip = zip_file(parts, 3);
	refused(what, zip.at, zip.n, code, words);
	free(zip.at);
}

static void
test_zip_entries(void)
{
#define DATA .name = "net/data/0", .data = "abcd", .n = 4
#define PICKLE .name = "net/data.pkl", .data = zip_pickle, .n = sizeof(zip_pickle) - 1
#define EVIL_PICKLE           \
	.name = "net/data.pkl",   \
	.data = "\x80\x02"        \
			"cos\nsystem\n.", \
	.n = 14
	static const struct
	{
		const char *what;
		int which;
		ZipPart part;
		const char *words;
	} cases[] = {
		{ "a compressed storage", 1, { DATA, .method = 8 }, "compressed" },
		{ "an encrypted storage", 1, { DATA, .flags = 1 }, "encrypted" },
		{ "no checksum, where others have one", 1, { DATA, .no_crc = true }, "checksum" },
		{ "a wrong checksum", 1, { DATA, .wrong_crc = true }, "checksum" },
		{ "a storage of one byte more", 1, { DATA, .add_size = 1 }, "size that its tensors say" },
		{ "a storage of too few bytes",
		  1,
		  { .name = "net/data/0", .data = "abc", .n = 3 },
		  "size that its tensors say" },
		{ "a local header elsewhere", 1, { DATA, .add_local = 1 }, "no local header" },
		{ "a local header beyond the end", 1, { DATA, .add_local = 1 << 20 }, "no local header" },
		{ "a local header at 2^63",
		  1,
		  { DATA, .zip64 = true, .add_local = INT64_MAX },
		  "no local header" },
		{ "a storage of 2^62 bytes",
		  1,
		  { DATA, .zip64 = true, .add_size = (int64_t) 1 << 62 },
		  "size that its tensors say" },
		{ "a pickle that reaches into the directory",
		  0,
		  { PICKLE, .add_size = 300 },
		  "into the directory" },
		{ "a pickle of 2^62 bytes",
		  0,
		  { PICKLE, .zip64 = true, .add_size = (int64_t) 1 << 62 },
		  "into the directory" },
		{ "a missing storage",
		  1,
		  { .name = "net/data/1", .data = "abcd", .n = 4 },
		  "\"0\" is missing" },
		{ "a missing pickle",
		  0,
		  { .name = "net/other.pkl", .data = zip_pickle, .n = sizeof(zip_pickle) - 1 },
		  "no data.pkl" },
		{ "a pickle without a folder",
		  0,
		  { .name = "data.pkl", .data = zip_pickle, .n = sizeof(zip_pickle) - 1 },
		  "no data.pkl" },
		{ "an entry twice", 2, { DATA }, "occurs twice" },
		{ "a big-endian writer",
		  2,
		  { .name = "net/byteorder", .data = "big", .n = 3 },
		  "little-endian" },
		{ "a pickle that names os.system", 0, { EVIL_PICKLE }, "os.system" },
		{ "an empty pickle", 0, { .name = "net/data.pkl" }, "ends within" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		refused_part(cases[i].what, cases[i].which, cases[i].part, FORMAT_EINVALID, cases[i].words);
}

/*
 * What torch writes after set_crc32_options(False): no entry has a checksum,
 * and torch.load does not look. One that is left of them means damage.
 */
static void
test_no_checksums(void)
{
	for (int summed = 0; summed < 2; summed++)
	{
		const ZipPart parts[] = {
			{ PICKLE, .no_crc = true },
			{ DATA, .no_crc = true },
			{ .name = "net/byteorder", .data = "little", .n = 6, .no_crc = summed == 0 }
		};
		Bytes zip = zip_file(parts, 3);
		FormatFile file;
		FormatError error = { 0 };
		FormatStatus status = format_read(zip.at, zip.n, &file, &error);

		if (summed == 0)
			ok(status == FORMAT_OK && file.ntensors == 1 &&
				   memcmp(file.tensors[0].data, "abcd", 4) == 0,
			   "an archive without checksums is read: %s", error.detail);
		else
			ok(status == FORMAT_EINVALID && strstr(error.detail, "checksum") != NULL,
			   "one that has lost two of three is not: %s", error.detail);
		format_free(&file);
		free(zip.at);
	}
}

/* Overwrites n bytes of a good archive at `from_end` bytes before its end. */
static void
refused_end(const char *what, size_t from_end, const void *bytes, size_t n, FormatStatus code,
			const char *words)
{
	size_t length;
	uint8_t *zip = testdata_load("pth/state_zip.pth", &length);

	memcpy(zip + length - from_end, bytes, n);
	refused(what, zip, length, code, words);
	free(zip);
}

static void
test_zip_end(void)
{
	Bytes zip = { 0 };
	static const char locator[] = "PK\6\7\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\1\0\0\0PK\5\6\0\0"
								  "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

	refused("only a local header", P("PK\3\4"), FORMAT_EINVALID, "no end record");
	refused("an end without an archive", P("PK\3\4PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
			FORMAT_EINVALID, "no data.pkl");
	refused_end("no end", 22, "XX", 2, FORMAT_EINVALID, "no end record");
	refused_end("a comment that is not there", 2, "\1\0", 2, FORMAT_EINVALID, "no end record");
	put_string(&zip, "PK\3\4");
	put(&zip, P("PK\5\6\0\0\0\0\0\0\xff\xff\0\0\0\0\0\0\0\0\0\0"));
	refused("65535 entries", zip.at, zip.n, FORMAT_ELIMIT, "the limit is");
	zip.n = 4;
	put(&zip, P("PK\5\6\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0"));
	refused("an entry that is not there", zip.at, zip.n, FORMAT_EINVALID, "damaged directory");
	zip.n = 4;
	put(&zip, P("PK\5\6\0\0\0\0\0\0\1\0\x20\0\0\0\xff\0\0\0\0\0"));
	refused("a directory behind the end", zip.at, zip.n, FORMAT_EINVALID, "beyond its end");
	zip.n = 4;
	put(&zip, locator, sizeof(locator) - 1);
	refused("a ZIP64 end at 2^64 - 1", zip.at, zip.n, FORMAT_EINVALID, "ZIP64 end record");
	free(zip.at);
}

/*
 * Entries over the same bytes would let a small file ask for any amount of
 * checking.
 */
static void
test_zip_overlap(void)
{
	enum
	{
		N = 100,
		SIZE = 4000
	};
	ZipPart parts[N + 1];
	char names[N][32];
	Bytes pickle = { 0 }, zip;
	uint8_t data[SIZE] = { 0 };
	int64_t one = 1;
	size_t first = 0;

	put(&pickle, "\x80\x02}(", 4);
	for (int i = 0; i < N; i++)
	{
		snprintf(names[i], sizeof(names[i]), "net/data/%d", i);
		put_text(&pickle, names[i]);
		put_tensor(&pickle, names[i] + 9, SIZE / 4, 0, 1, &one, &one);
		parts[i + 1] = (ZipPart){ .name = names[i], .data = data, .n = i == 0 ? SIZE : 0 };
	}
	put_string(&pickle, "u.");
	parts[0] = (ZipPart){ .name = "net/data.pkl", .data = pickle.at, .n = pickle.n };
	zip = zip_file(parts, N + 1);
	/*
	 * every entry of the directory gets the size, the checksum and the place of
	 * the first storage
	 */
	for (size_t i = 0; i + 46 < zip.n; i++)
		if (memcmp(zip.at + i, "PK\1\2", 4) == 0 && memcmp(zip.at + i + 46, "net/data/", 9) == 0)
		{
			if (first == 0)
				first = i;
			memcpy(zip.at + i + 16, zip.at + first + 16, 12);
			memcpy(zip.at + i + 42, zip.at + first + 42, 4);
		}
	refused("a hundred storages in one place", zip.at, zip.n, FORMAT_EINVALID, "overlaps another");
	free(zip.at);
	free(pickle.at);
}

int
main(void)
{
	test_operators();
	test_bombs();
	test_windows();
	test_honest_windows();
	test_shared();
	test_storages();
	test_counts();
	test_legacy_frame();
	test_zip_entries();
	test_no_checksums();
	test_zip_end();
	test_zip_overlap();
	return done_testing();
}
