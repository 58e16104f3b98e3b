/*
 * test_format_saved.c
 *	  Weights are found in files as people save them, behind whatever wraps
 *	  them; files that are something else are refused with what to do.
 *
 * test/gen/saved.py made the files.
 */
#include "format_fixture.h"

#include "nn/nn.h"

/* A file's network, its names without prefixes. False: FORMAT_OK it was not. */
static bool
enter(const char *name, const char *entry, NnNetwork network, uint8_t **bytes, FormatFile *file,
	  FormatError *error)
{
	char path[128];
	size_t length;
	int prefix;

	snprintf(path, sizeof(path), "saved/%s", name);
	*bytes = testdata_load(path, &length);
	error->hint[0] = '\0';
	if (format_read(*bytes, length, file, error) != FORMAT_OK ||
		format_enter(file, entry, nn_network_name(network), error) != FORMAT_OK)
		return false;
	for (int i = 0; i < file->ntensors; i++)
		file->tensors[i].network = network;
	prefix = nn_names_prefix(file->tensors, file->ntensors, network);
	for (int i = 0; i < file->ntensors; i++)
		file->tensors[i].name += prefix;
	return true;
}

/* All of them hold the tensors of generator.pth, or of encoder.pth. */
static void
test_found(void)
{
	static const struct
	{
		const char *name, *entry;
		NnNetwork network;
	} cases[] = {
		{ "generator.pth", NULL, NN_NET_G },
		{ "lightning.ckpt", NULL, NN_NET_G },
		{ "lightning.ckpt", "state_dict", NN_NET_G },
		{ "lightning.ckpt", "state_dict.netG", NN_NET_G },
		{ "lightning.ckpt", "state_dict.netG._orig_mod.module", NN_NET_G },
		{ "averaged.pth", NULL, NN_NET_G },
		{ "averaged.pth", "module", NN_NET_G },
		{ "gan.pth", "netG", NN_NET_G },
		{ "gan.pth", "netE", NN_NET_E },
		{ "flat.pth", "netG", NN_NET_G },
		{ "flat.pth", "netE", NN_NET_E },
		{ "protocol3_legacy.pth", NULL, NN_NET_E },
		{ "protocol3_zip.pth", NULL, NN_NET_E },
		{ "protocol5_legacy.pth", NULL, NN_NET_E },
		{ "protocol5_zip.pth", NULL, NN_NET_E },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		const char *plain = cases[i].network == NN_NET_G ? "generator.pth" : "encoder.pth";
		FormatFile file, wanted;
		FormatError error = { 0 };
		uint8_t *bytes, *wanted_bytes;
		bool good = enter(plain, NULL, cases[i].network, &wanted_bytes, &wanted, &error);

		good &= enter(cases[i].name, cases[i].entry, cases[i].network, &bytes, &file, &error);
		if (!ok(good && same_tensors(file.tensors, file.ntensors, wanted.tensors, wanted.ntensors),
				"%s, entry %s", cases[i].name, cases[i].entry ? cases[i].entry : "left out"))
			diag("%s: %s", error.message, error.detail);
		format_free(&file);
		format_free(&wanted);
		free(bytes);
		free(wanted_bytes);
	}
}

static void
test_refused(void)
{
	static const struct
	{
		const char *name, *entry;
		FormatStatus code;
		const char *detail, *hint;
	} cases[] = {
		{ "gan.pth", NULL, FORMAT_ECHOICE, "\"netG\", \"netE\"", "{\"entry\": \"netG\"}" },
		{ "gan.pth", "netD", FORMAT_ECHOICE, "No tensor is in \"netD\"", "bicycle_inspect" },
		{ "gan.pth", "net", FORMAT_ECHOICE, "No tensor is in \"net\"", "bicycle_inspect" },
		{ "generator.pth", "netG", FORMAT_ECHOICE, "begins with \"netG.\"", "bicycle_inspect" },
		{ "module.pth", NULL, FORMAT_EINVALID, "whole pickled object, a __main__.Net,",
		  "state_dict()" },
		{ "module_legacy.pth", NULL, FORMAT_EINVALID,
		  "a torch.nn.parallel.data_parallel.DataParallel,", "state_dict()" },
		{ "module_in_dict.pth", NULL, FORMAT_EINVALID,
		  "Entry \"model\" is a whole pickled object, a __main__.Net,",
		  "[\"model\"].state_dict()" },
		{ "optimiser.pth", NULL, FORMAT_EINVALID, "state of an optimiser", "netG.state_dict()" },
		{ "list.pth", NULL, FORMAT_EINVALID, "holds a list", "netG.state_dict()" },
		{ "script.pt", NULL, FORMAT_EINVALID, "TorchScript", "torch.jit.load" },
		{ "plain.pkl", NULL, FORMAT_EINVALID, "torch.save has not written", "torch.save" },
		{ "graph.onnx", NULL, FORMAT_EINVALID, "ONNX", "torch.save" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		FormatFile file;
		FormatError error = { 0 };
		uint8_t *bytes;
		bool read = enter(cases[i].name, cases[i].entry, NN_NET_G, &bytes, &file, &error);

		if (!ok(!read && error.code == cases[i].code && well_formed(error.message, error.detail) &&
					strstr(error.detail, cases[i].detail) && strstr(error.hint, cases[i].hint),
				"%s, entry %s: %s", cases[i].name, cases[i].entry ? cases[i].entry : "left out",
				error.detail))
			diag("%s; %s", error.message, error.hint);
		format_free(&file);
		free(bytes);
	}
}

/* What a file holds beside weights does no harm, and takes no names. */
static void
test_names_shown(void)
{
	FormatFile file;
	FormatError error;
	size_t length;
	uint8_t *bytes = testdata_load("saved/gan.pth", &length);
	bool netG = false, netE = false, others = false;

	ok(format_read(bytes, length, &file, &error) == FORMAT_OK && file.nstates == 2,
	   "a file of two networks");
	for (int i = 0; i < file.ntensors; i++)
	{
		netG |= strcmp(file.tensors[i].name, "netG.model.down.0.weight") == 0;
		netE |= strcmp(file.tensors[i].name, "netE.module.conv.0.weight") == 0;
		others |= strncmp(file.tensors[i].name, "net", 3) != 0;
	}
	ok(netG && netE && !others, "names are the way to a tensor, and those of optimisers are not");
	format_free(&file);
	free(bytes);
}

/* First bytes of what else is taken for a model. */
static void
test_first_bytes(void)
{
	static const struct
	{
		const char *bytes;
		size_t n;
		const char *words;
	} cases[] = {
		{ "\x89HDF\r\n\x1a\n", 8, "HDF5" },
		{ "\x1f\x8b\x08\0\0\0\0\0", 8, "gzip" },
		{ "GGUF\3\0\0\0", 8, "GGUF" },
		{ "<!DOCTYPE html>", 15, "HTML" },
		{ "version https://git-lfs.github.com/spec/v1\n", 43, "Git LFS" },
		{ "\x08\x07\x12\x07pytorch", 11, "ONNX" },
		{ "\x80\x04K\1.", 5, "torch.save has not written" },
	};
	char tar[512] = "netG.pth";

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		refused("first bytes", cases[i].bytes, cases[i].n, FORMAT_EINVALID, cases[i].words);
	memcpy(tar + 257, "ustar", 5);
	refused("first bytes", tar, sizeof(tar), FORMAT_EINVALID, "tar archive");
}

/* A dictionary of dictionaries, of itself, and of many that are shared. */
static void
test_walks(void)
{
	Bytes object = { 0 }, keys = { (uint8_t *) "].", 2 }, file;

	put_string(&object, "}q");
	put(&object, "\0", 1);
	put_text(&object, "a");
	put(&object, "h\0s.", 4);
	file = legacy_file(object, keys, NULL, 0);
	refused("a dictionary that contains itself", file.at, file.n, FORMAT_EINVALID, "no dictionary");
	free(file.at);
	free(object.at);

	object = (Bytes){ 0 };
	put_string(&object, "}");
	for (int i = 0; i < 12; i++)
	{
		uint8_t slot[] = { 'q', (uint8_t) i, '0', '}', '(' };

		/* {"0": d, .. "7": d} of the dictionary d before */
		put(&object, slot, sizeof(slot));
		for (int k = 0; k < 8; k++)
		{
			char key[] = { (char) ('0' + k), '\0' };
			uint8_t get[] = { 'h', (uint8_t) i };

			put_text(&object, key);
			put(&object, get, sizeof(get));
		}
		put_string(&object, "u");
	}
	put_string(&object, ".");
	file = legacy_file(object, keys, NULL, 0);
	refused("eight times eight times eight dictionaries", file.at, file.n, FORMAT_ELIMIT,
			"too many dictionaries");
	free(file.at);
	free(object.at);
}

int
main(void)
{
	test_found();
	test_refused();
	test_names_shown();
	test_first_bytes();
	test_walks();
	return done_testing();
}
