/*
 * format.h
 *	  Model files: safetensors, and PyTorch's .pth in its legacy and zip
 *	  layouts. Input bytes are hostile until parsed.
 *
 * Pickles are read by a closed machine: a stack over a tagged union, an
 * allow-list of a dozen names, no imports, no calls. Every length, offset,
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
	FORMAT_ELIMIT,   /* beyond a limit (54000) */
	FORMAT_ENOMEM    /* out of memory (53200) */
} FormatStatus;

typedef struct FormatError
{
	FormatStatus code;
	char message[128]; /* "could not read model file" */
	char detail[256];  /* "Pickle names os.system, which is not allowed (offset 77)." */
} FormatError;

typedef enum FormatKind
{
	FORMAT_SAFETENSORS,
	FORMAT_PTH_LEGACY,
	FORMAT_PTH_ZIP
} FormatKind;

typedef struct FormatFile
{
	FormatKind kind;
	NnTensor *tensors; /* in the file's order; network is NN_NET_G until the caller sets it */
	int ntensors;
	void *owned; /* names and copies */
} FormatFile;

/* On failure *file is all zeros; format_free does no harm then. */
extern FormatStatus format_read(const uint8_t *bytes, size_t length, FormatFile *file,
								FormatError *error);
extern void format_free(FormatFile *file);

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
