/*
 * format.h
 *	  Model files: safetensors, and PyTorch's .pth in its legacy and zip
 *	  layouts. Input bytes are hostile until parsed.
 *
 * Pickles are read by a closed machine: a stack over a tagged union, a dozen
 * names that mean something, no imports, no calls. Every length, offset,
 * product and stride is checked before it is used; counts and depths are
 * limited. A FormatFile refers to the caller's bytes, which must outlive it,
 * and owns whatever it had to copy (tensors with strides that are not
 * row-major, names). Tensors lie where the file has them and need not be
 * aligned: read elements with memcpy.
 */
#ifndef BICYCLE_FORMAT_H
#define BICYCLE_FORMAT_H

#include "nn/nn.h"

typedef enum FormatStatus
{
	FORMAT_OK = 0,
	FORMAT_EINVALID, /* not a model file, damaged, or of a kind that is not read (22P03) */
	FORMAT_ECHOICE,  /* it holds several networks: the caller has to say which (22023) */
	FORMAT_ELIMIT,   /* beyond a limit (54000) */
	FORMAT_ENOMEM    /* out of memory (53200) */
} FormatStatus;

typedef struct FormatError
{
	FormatStatus code;
	char message[128]; /* "could not read model file" */
	char detail[256];  /* "Pickle takes a value from an empty stack (offset 77)." */
	char hint[256];    /* the way out, a sentence; may be empty */
} FormatError;

typedef enum FormatKind
{
	FORMAT_SAFETENSORS,
	FORMAT_PTH_LEGACY,
	FORMAT_PTH_ZIP
} FormatKind;

/*
 * A dictionary of tensors in a file: a state_dict. A .pth may have several, in
 * dictionaries of dictionaries; `path` are the keys that lead to it, with dots
 * between them, and "" for the outermost.
 */
typedef struct FormatState
{
	const char *path;
	int first, n; /* its tensors; their names begin with the path and a dot */
} FormatState;

typedef struct FormatFile
{
	FormatKind kind;
	NnTensor *tensors; /* in the file's order; network is NN_NET_G until the caller sets it */
	int ntensors;
	FormatState *states;
	int nstates;
	void *owned; /* names and copies */
} FormatFile;

/* On failure *file is all zeros; format_free does no harm then. */
extern FormatStatus format_read(const uint8_t *bytes, size_t length, FormatFile *file,
								FormatError *error);
extern void format_free(FormatFile *file);

/* What format_read takes at most for a file of this length, besides it. */
extern size_t format_read_bytes(size_t length);

/*
 * Leaves the tensors of one network: those whose names begin with `entry` and a
 * dot, without that; or, if it is NULL, those of the only state_dict, without
 * its path. FORMAT_ECHOICE if there is no such, or are several. What counts the
 * networks that were averaged is left out. `network` is for the hint: "G".
 * Once, after format_read.
 */
extern FormatStatus format_enter(FormatFile *file, const char *entry, const char *network,
								 FormatError *error);

/*
 * Write tensors in the given order; safetensors puts wide elements first among
 * the data. *bytes is malloc'ed, and NULL on failure. format_write_pth
 * writes the zip layout that torch.load reads with weights_only.
 */
extern FormatStatus format_write_safetensors(const NnTensor *tensors, int ntensors, uint8_t **bytes,
											 size_t *length, FormatError *error);
extern FormatStatus format_write_pth(const NnTensor *tensors, int ntensors, uint8_t **bytes,
									 size_t *length, FormatError *error);

#endif /* BICYCLE_FORMAT_H */
