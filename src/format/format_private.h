/*
 * format_private.h
 *	  What the files of src/format share and nobody else sees.
 */
#ifndef BICYCLE_FORMAT_PRIVATE_H
#define BICYCLE_FORMAT_PRIVATE_H

#include "format/format.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "model files hold little-endian numbers, and tensors are used where they lie"
#endif

#define FORMAT_MAX_TENSORS 4096
/* bytes of a tensor's name; the protocol has room for one more, the NUL */
#define FORMAT_MAX_NAME 255
#define FORMAT_MAX_STATES 256

/*
 * Tensors may share a storage, and strides of 0 may make much of little;
 * together they may have this many times the bytes of the file, and the slack,
 * so that a tiny file cannot ask for gigabytes. Those that are copied may have
 * as many bytes as the file, and the slack.
 */
#define FORMAT_EXPANSION 4
#define FORMAT_SLACK ((uint64_t) 1 << 20)

/* Of what a file says of its tensors: bytes a byte of the file, and at most. */
#define FORMAT_PARSED_RATIO 128
#define FORMAT_PARSED_LEAST ((size_t) 256 << 10)
#define FORMAT_PARSED_MOST ((size_t) 96 << 20)

/* Returns code; the message follows from it, the detail is printable. */
typedef FormatStatus FormatFail(FormatError *error, FormatStatus code, const char *detail, ...);
__attribute__((format(printf, 3, 4))) extern FormatStatus
format_fail(FormatError *error, FormatStatus code, const char *detail, ...);
__attribute__((format(printf, 3, 4))) extern FormatStatus
format_fail_write(FormatError *error, FormatStatus code, const char *detail, ...);
/* Adds a hint to the error; returns its code. */
__attribute__((format(printf, 2, 3))) extern FormatStatus format_hint(FormatError *error,
																	  const char *hint, ...);
extern FormatStatus format_fail_memory(FormatError *error, size_t bytes);

/* A piece of text in somebody else's memory, without a NUL. */
typedef struct FormatText
{
	const char *at;
	size_t length;
} FormatText;

extern int format_text_compare(FormatText a, FormatText b);
extern bool format_text_is(FormatText text, const char *literal);

/* printf("%.*s", FORMAT_TEXT(text)): cut to what a message holds. */
#define FORMAT_TEXT(text) (int) ((text).length < 80 ? (text).length : 80), (text).at

/* Little-endian numbers that need not be aligned. */
extern uint16_t format_u16(const uint8_t *at);
extern uint32_t format_u32(const uint8_t *at);
extern uint64_t format_u64(const uint8_t *at);

/*
 * *count is the product of the shape, *bytes that times the element size; false
 * if a dimension is negative or what is not 0 of it does not fit.
 */
extern bool format_tensor_bytes(int ndim, const int64_t *shape, NnDtype dtype, uint64_t *count,
								uint64_t *bytes);

/* A FormatFile while it is read. */
typedef struct FormatBuilder
{
	const uint8_t *bytes;
	size_t length;
	FormatFile *file;
	int capacity, states_capacity;
	uint64_t total;  /* bytes of all tensors so far */
	uint64_t copied; /* of those that are copied */
	FormatError *error;
} FormatBuilder;

/* Lives as long as the file; NULL with the error filled. */
extern void *format_own(FormatBuilder *builder, size_t bytes);

/*
 * Appends a tensor after checking name, dimensions and limits. Its data is
 * still NULL and its nbytes known; NULL, with the error filled, if refused.
 */
extern NnTensor *format_add(FormatBuilder *builder, FormatText name, NnDtype dtype, int ndim,
							const int64_t *shape);

/* Memory for a copy of a tensor; NULL, with the error filled, if refused. */
extern void *format_own_copy(FormatBuilder *builder, size_t bytes);

/*
 * The tensors that follow are of a state_dict with this path; false if refused.
 */
extern bool format_add_state(FormatBuilder *builder, FormatText path);

/* *twice: a name that occurs twice, or NULL. False without memory. */
extern bool format_find_duplicate(const NnTensor *tensors, int ntensors, const char **twice);

/* Readers, called by format.c once it knows the kind. */
extern FormatStatus format_read_safetensors(FormatBuilder *builder);
extern bool format_is_legacy(const FormatBuilder *builder); /* by its first bytes */
extern FormatStatus format_read_legacy(FormatBuilder *builder);
extern FormatStatus format_read_zip(FormatBuilder *builder);

/* A growing buffer for the writers. */
typedef struct FormatOutput
{
	uint8_t *bytes;
	size_t length, capacity;
	bool failed; /* no memory; later appends do nothing */
} FormatOutput;

extern void format_put(FormatOutput *output, const void *bytes, size_t length);
extern void format_put_u8(FormatOutput *output, uint8_t value);
extern void format_put_u16(FormatOutput *output, uint16_t value);
extern void format_put_u32(FormatOutput *output, uint32_t value);
extern void format_put_u64(FormatOutput *output, uint64_t value);
/* Text of less than 64 bytes. */
extern void format_put_printed(FormatOutput *output, const char *text, ...)
	__attribute__((format(printf, 2, 3)));
extern void format_put_zeros(FormatOutput *output, size_t length);

/* What both writers ask: sane names, shapes that match nbytes, no twins. */
extern FormatStatus format_check_tensors(const NnTensor *tensors, int ntensors, FormatError *error);

/* To the caller; if it failed, frees it and leaves *bytes and *length. */
extern FormatStatus format_output_done(FormatOutput *output, uint8_t **bytes, size_t *length,
									   FormatError *error);

#endif /* BICYCLE_FORMAT_PRIVATE_H */
