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

typedef struct ExportTask
{
	char format[16];
	uint8_t *file; /* malloc'ed by the writer */
	size_t file_length;
	uint64_t length; /* the same, as it is sent */
} ExportTask;

static void
export_task_free(void *arg)
{
	ExportTask *task = arg;

	free(task->file);
	free(task);
}

static void
export_job_run(Job *job)
{
	Request *request = list_member(Request, job, job);
	ExportTask *task = request->task;
	TensorStream stream;
	FormatError format;
	FormatStatus status;

	if (!stream_parse(request->body, request->body_size, &stream, &request->error))
		return;
	if (strcmp(task->format, "pth") == 0)
		status = format_write_pth(stream.tensors, stream.ntensors, &task->file, &task->file_length,
								  &format);
	else
		status = format_write_safetensors(stream.tensors, stream.ntensors, &task->file,
										  &task->file_length, &format);
	if (status != FORMAT_OK)
	{
		task->file = NULL;
		import_format_error(status, &format, &request->error);
	}
	stream_free(&stream);
}

static void
export_job_done(Engine *engine, Job *job)
{
	Request *request = list_member(Request, job, job);
	ExportTask *task = request->task;

	if (!request_back(request))
		return;
	if (request->error.sqlstate[0] != '\0')
	{
		request_fail(request, &request->error);
		return;
	}
	task->length = task->file_length;
	request_reply_part(request, BICYCLE_RESULT, &task->length, sizeof(task->length), false);
	request_reply_part(request, BICYCLE_DATA, task->file, task->file_length, false);
	request_reply_part(request, BICYCLE_END, NULL, 0, true);
}

void
export_begin(Request *request, const BicycleExport *export)
{
	ExportTask *task = calloc(1, sizeof(*task));

	if (task == NULL)
	{
		error_memory(&request->error, "a model file");
		request_fail(request, &request->error);
		return;
	}
	request->task = task;
	request->task_free = export_task_free;
	memcpy(task->format, export->format, sizeof(task->format));
	if (strcmp(task->format, "pth") != 0 && strcmp(task->format, "safetensors") != 0)
	{
		error_set(&request->error, "22023", "there is no model file format \"%s\"", task->format);
		error_hint(&request->error, "Formats are safetensors and pth.");
		request_fail(request, &request->error);
	}
}

void
export_run(Request *request)
{
	request->job.run = export_job_run;
	request->job.done = export_job_done;
	batcher_loader(request->engine, request);
}

/* ---- INSPECT ------------------------------------------------------------- */

typedef struct InspectTask
{
	BicycleInspected answer;
	BicycleTensor headers[];
} InspectTask;

static void
inspect_job_run(Job *job)
{
	Request *request = list_member(Request, job, job);
	FormatFile file;
	InspectTask *task;

	if (!import_read_file(request->body, request->body_size, &file, &request->error))
		return;
	task = calloc(1, sizeof(*task) + (size_t) file.ntensors * sizeof(BicycleTensor));
	if (task == NULL)
		error_memory(&request->error, "a list of tensors");
	else
	{
		request->task = task;
		request->task_free = free;
		task->answer.ntensors = (uint32_t) file.ntensors;
		for (int i = 0; i < file.ntensors && request->error.sqlstate[0] == '\0'; i++)
		{
			if (!stream_header(&file.tensors[i], &task->headers[i]))
			{
				error_set(&request->error, "54000", "tensor name is too long");
				error_detail(&request->error, "\"%.100s...\" has more than %d bytes.",
							 file.tensors[i].name, BICYCLE_MAX_NAME - 1);
			}
		}
	}
	format_free(&file);
}

static void
inspect_job_done(Engine *engine, Job *job)
{
	Request *request = list_member(Request, job, job);
	InspectTask *task = request->task;

	if (!request_back(request))
		return;
	if (request->error.sqlstate[0] != '\0')
	{
		request_fail(request, &request->error);
		return;
	}
	request_reply_part(request, BICYCLE_RESULT, &task->answer, sizeof(task->answer), false);
	if (task->answer.ntensors > 0)
		request_reply_part(request, BICYCLE_DATA, task->headers,
						   task->answer.ntensors * sizeof(BicycleTensor), false);
	request_reply_part(request, BICYCLE_END, NULL, 0, true);
}

void
inspect_run(Request *request)
{
	request->job.run = inspect_job_run;
	request->job.done = inspect_job_done;
	batcher_loader(request->engine, request);
}
