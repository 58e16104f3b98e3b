/*
 * export.c
 *	  EXPORT: tensors to a model file. INSPECT: the names, types and shapes in
 *	  one.
 *
 * Both run on the loader thread; their tasks belong to the request, as in
 * import.c.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

typedef struct ExportWork
{
	char format[16];
	uint8_t *file; /* malloc'ed by the writer */
	size_t file_length;
	uint64_t length; /* the same, as it is sent */
} ExportWork;

static void
export_work_free(void *arg)
{
	ExportWork *work = arg;

	free(work->file);
	free(work);
}

static void
export_file(Request *request)
{
	ExportWork *work = request->work;
	TensorStream stream;
	FormatError format;
	FormatStatus status;

	if (!stream_parse(request->body, request->body_size, &stream, &request->error))
		return;
	if (strcmp(work->format, "pth") == 0)
		status = format_write_pth(stream.tensors, stream.ntensors, &work->file, &work->file_length,
								  &format);
	else
		status = format_write_safetensors(stream.tensors, stream.ntensors, &work->file,
										  &work->file_length, &format);
	if (status != FORMAT_OK)
	{
		work->file = NULL;
		import_format_error(status, &format, &request->error);
	}
	stream_free(&stream);
}

static void
export_reply(Request *request)
{
	ExportWork *work = request->work;

	work->length = work->file_length;
	request_reply_part(request, BICYCLE_RESULT, &work->length, sizeof(work->length), false);
	request_reply_part(request, BICYCLE_DATA, work->file, work->file_length, false);
	request_reply_part(request, BICYCLE_END, NULL, 0, true);
}

void
export_begin(Request *request, const BicycleExport *export)
{
	ExportWork *work = calloc(1, sizeof(*work));

	if (work == NULL)
	{
		request_fail_memory(request, "a model file");
		return;
	}
	request->work = work;
	request->work_free = export_work_free;
	memcpy(work->format, export->format, sizeof(work->format));
	if (strcmp(work->format, "pth") != 0 && strcmp(work->format, "safetensors") != 0)
	{
		error_set(&request->error, "22023", "there is no model file format \"%s\"", work->format);
		error_hint(&request->error, "Formats are safetensors and pth.");
		request_fail(request, &request->error);
	}
}

void
export_run(Request *request)
{
	loader_add(request, export_file, export_reply);
}

/* ---- INSPECT ------------------------------------------------------------- */

typedef struct InspectWork
{
	BicycleInspected answer;
	BicycleTensor headers[];
} InspectWork;

static void
inspect_file(Request *request)
{
	FormatFile file;
	InspectWork *work;

	if (!import_read_file(request->body, request->body_size, &file, &request->error))
		return;
	work = calloc(1, sizeof(*work) + (size_t) file.ntensors * sizeof(BicycleTensor));
	if (work == NULL)
		error_memory(&request->error, "a list of tensors");
	else
	{
		request->work = work;
		request->work_free = free;
		work->answer.ntensors = (uint32_t) file.ntensors;
		for (int i = 0; i < file.ntensors; i++)
			if (!stream_header(&file.tensors[i], &work->headers[i], &request->error))
				break;
	}
	format_free(&file);
}

static void
inspect_reply(Request *request)
{
	InspectWork *work = request->work;

	request_reply_part(request, BICYCLE_RESULT, &work->answer, sizeof(work->answer), false);
	if (work->answer.ntensors > 0)
		request_reply_part(request, BICYCLE_DATA, work->headers,
						   work->answer.ntensors * sizeof(BicycleTensor), false);
	request_reply_part(request, BICYCLE_END, NULL, 0, true);
}

void
inspect_run(Request *request)
{
	loader_add(request, inspect_file, inspect_reply);
}
