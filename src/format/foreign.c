/*
 * foreign.c
 *	  Files that are not read, by what people call models: what each is, and
 *	  what to do in PyTorch.
 *
 * No state, no memory of its own.
 */
#include "format/foreign.h"

#include <string.h>

/* printf("%.*s", SHORT(text)): three of them fit a detail. */
#define SHORT(text) (int) ((text).length < 50 ? (text).length : 50), (text).at

#define SAVE_STATE "torch.save(netG.state_dict(), \"netG.pth\")"

/* ---- By their first bytes ------------------------------------------------ */

static bool
starts_with(const FormatBuilder *builder, size_t at, const char *bytes, size_t n)
{
	return builder->length >= at + n && memcmp(builder->bytes + at, bytes, n) == 0;
}

/* Protocol buffers: ir_version, a small number, then producer or domain. */
static bool
is_onnx(const FormatBuilder *builder)
{
	const uint8_t *bytes = builder->bytes;

	return builder->length > 4 && bytes[0] == 0x08 && bytes[1] > 0 && bytes[1] < 64 &&
		   (bytes[2] == 0x12 || bytes[2] == 0x1a || bytes[2] == 0x22 || bytes[2] == 0x3a);
}

static FormatStatus
refuse(FormatBuilder *builder, const char *what, const char *hint)
{
	format_fail(builder->error, FORMAT_EINVALID, "It is %s.", what);
	return format_hint(builder->error, "%s", hint);
}

FormatStatus
foreign_bytes(FormatBuilder *builder)
{
	if (builder->length == 0)
		return format_fail(builder->error, FORMAT_EINVALID, "The data is empty.");
	if (is_onnx(builder))
		return refuse(builder, "an ONNX graph, which does not keep the names of weights",
					  "Save the PyTorch module that it was exported from: " SAVE_STATE ".");
	if (starts_with(builder, 0, "\x80", 1) && builder->length > 1 && builder->bytes[1] <= 5)
		return refuse(builder, "a pickle that torch.save has not written",
					  "Load it in Python, and save the network's weights: " SAVE_STATE ".");
	if (starts_with(builder, 0, "\x89HDF", 4))
		return refuse(builder, "an HDF5 file, as Keras writes it",
					  "Weights come as .pth, by " SAVE_STATE ", or as safetensors.");
	if (starts_with(builder, 0, "\x1f\x8b", 2))
		return refuse(builder, "compressed with gzip", "Decompress it first, with gunzip.");
	if (starts_with(builder, 257, "ustar", 5))
		return refuse(builder, "a tar archive",
					  "Extract the file of the network's weights, a .pth, from it.");
	if (starts_with(builder, 0, "PAR1", 4) || starts_with(builder, 0, "GGUF", 4))
		return refuse(builder, "a GGUF or Parquet file",
					  "Weights come as .pth, by " SAVE_STATE ", or as safetensors.");
	if (starts_with(builder, 0, "version https://git-lfs", 23))
		return refuse(builder, "the pointer that Git LFS leaves in place of a large file",
					  "Fetch the file itself, with git lfs pull.");
	if (starts_with(builder, 0, "<", 1))
		return refuse(builder, "HTML or XML, perhaps the page of a failed download",
					  "Download the file itself.");
	return format_fail(builder->error, FORMAT_EINVALID,
					   "The data starts like neither a safetensors nor a PyTorch (.pth) file.");
}

FormatStatus
foreign_torchscript(FormatBuilder *builder)
{
	return refuse(builder, "a TorchScript archive, a program with its weights",
				  "Save the weights alone: torch.save(torch.jit.load(\"FILE\").state_dict(), "
				  "\"netG.pth\").");
}

/* ---- By what a pickle holds ---------------------------------------------- */

static const PickleValue *
find_key(const PickleItems *items, const char *key)
{
	for (size_t i = 0; i < items->n; i += 2)
		if (items->at[i].type == PICKLE_TEXT && format_text_is(items->at[i].text, key))
			return &items->at[i + 1];
	return NULL;
}

static bool
is_optimiser(const PickleItems *items)
{
	return find_key(items, "param_groups") != NULL && find_key(items, "state") != NULL;
}

/* A whole object, under `key` (NULL: the file itself). */
static FormatStatus
refuse_object(FormatBuilder *builder, const FormatText *key, const PickleName *name)
{
	if (key == NULL)
	{
		format_fail(builder->error, FORMAT_EINVALID,
					"It is a whole pickled object, a %.*s.%.*s, and not a dictionary of tensors.",
					SHORT(name->module), SHORT(name->name));
		return format_hint(builder->error,
						   "Save the weights alone: torch.save(torch.load(\"FILE\", "
						   "weights_only=False).state_dict(), \"netG.pth\").");
	}
	format_fail(builder->error, FORMAT_EINVALID,
				"Entry \"%.*s\" is a whole pickled object, a %.*s.%.*s, and no entry is a "
				"dictionary of tensors.",
				SHORT(*key), SHORT(name->module), SHORT(name->name));
	return format_hint(builder->error,
					   "Save the weights alone: torch.save(torch.load(\"FILE\", "
					   "weights_only=False)[\"%.*s\"].state_dict(), \"netG.pth\").",
					   SHORT(*key));
}

static FormatStatus
refuse_dictionary(FormatBuilder *builder, const PickleItems *items)
{
	for (size_t i = 0; i < items->n; i += 2)
		if (items->at[i].type == PICKLE_TEXT && items->at[i + 1].type == PICKLE_OBJECT)
			return refuse_object(builder, &items->at[i].text, items->at[i + 1].name);
	for (size_t i = 0; i < items->n; i += 2)
		if (items->at[i + 1].type == PICKLE_DICT && is_optimiser(items->at[i + 1].items))
			return refuse(builder, "the state of an optimiser, and no network's weights",
						  "Give the file of the network: " SAVE_STATE ".");
	format_fail(builder->error, FORMAT_EINVALID,
				"It holds no dictionary of tensors (the state_dict of a network).");
	return format_hint(builder->error, "Save the network's weights: " SAVE_STATE ".");
}

FormatStatus
foreign_content(FormatBuilder *builder, const PickleValue *top)
{
	if (top->type == PICKLE_OBJECT)
		return refuse_object(builder, NULL, top->name);
	if (top->type == PICKLE_DICT && is_optimiser(top->items))
		return refuse(builder, "the state of an optimiser, and no network's weights",
					  "Give the file of the network: " SAVE_STATE ".");
	if (top->type == PICKLE_DICT)
		return refuse_dictionary(builder, top->items);
	format_fail(builder->error, FORMAT_EINVALID,
				"It holds %s, and not a dictionary of tensors (the state_dict of a network).",
				top->type == PICKLE_TENSOR                              ? "a single tensor"
				: top->type == PICKLE_LIST || top->type == PICKLE_TUPLE ? "a list"
																		: "a single value");
	return format_hint(builder->error, "Save the network's weights: " SAVE_STATE ".");
}
