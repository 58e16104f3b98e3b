/*
 * frames.c
 *	  Every frame a client may send after its hello, and what is done with it.
 *
 * I/O thread only. A new frame is a row of the table at the end; what it needs
 * of its own stands in a file that the row names.
 */
#include <math.h>
#include <string.h>

#include "engine/engine.h"

_Static_assert(sizeof(BicycleFrame) + sizeof(BicycleLoad) + BICYCLE_MAX_CONFIG <= INPUT_BUFFER,
			   "every frame that is read as a whole fits in the buffer");

/* ---- Places and bodies --------------------------------------------------- */

static void
frame_reserve(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	BicycleReserve reserve;
	Request *request;

	memcpy(&reserve, body, sizeof(reserve));
	if (reserve.bytes < sizeof(BicycleImageRequest))
	{
		connection_protocol_error(connection, frame->id,
								  "A place of %llu bytes was asked for, which no request fits.",
								  (unsigned long long) reserve.bytes);
		return;
	}
	if ((request = request_new(connection, frame, frame_kind(frame->type))) == NULL)
		return;
	if (reserve.bytes > UINT32_MAX || reserve.bytes > connection->engine->queue.limit)
	{
		admission_refuse_place(request, reserve.bytes);
		return;
	}
	request->body_size = reserve.bytes;
	request->place = reserve.bytes + sizeof(Request);
	request_to(request, REQUEST_RESERVED);
	connection->engine->queue.changed = true;
	admission_run(connection->engine);
}

bool
frame_target(Connection *connection, const BicycleFrame *frame, uint8_t **to)
{
	Request *request = request_find(connection, frame->id);

	if (request == NULL || request->state != REQUEST_GRANTED ||
		(frame->type == BICYCLE_DATA) != request->kind->stream)
	{
		connection_protocol_error(connection, frame->id,
								  "A frame of type %u came that was not granted.", frame->type);
		return false;
	}
	if (frame->type == BICYCLE_DATA)
	{
		if (frame->length > request->body_size - request->received)
		{
			connection_protocol_error(connection, frame->id,
									  "A stream of %llu bytes was announced and more came.",
									  (unsigned long long) request->body_size);
			return false;
		}
		*to = request->body + request->received;
		return true;
	}
	if (frame->length != request->body_size)
	{
		connection_protocol_error(connection, frame->id,
								  "A request of %llu bytes was granted and one of %u came.",
								  (unsigned long long) request->body_size, frame->length);
		return false;
	}
	request->kind = frame_kind(frame->type);
	request_to(request, REQUEST_RECEIVING);
	*to = request->body;
	return true;
}

#define FLAGS (BICYCLE_FLAG_ALONE | BICYCLE_FLAG_BULK | BICYCLE_FLAG_EXIF | BICYCLE_FLAG_OPAQUE)

/* False if the parts of an image request do not make up the whole. */
static bool
split_image_request(Request *request)
{
	BicycleImageRequest *image = &request->image;
	uint64_t latent;

	memcpy(image, request->body, sizeof(*image));
	latent = (uint64_t) image->nz * sizeof(float);
	if (image->nz > BICYCLE_MAX_NZ || (image->nz > 0 && request->kind->type != BICYCLE_TRANSLATE) ||
		(image->second_length > 0 && !request->kind->two) ||
		sizeof(*image) + latent + image->image_length + image->second_length !=
			request->body_size ||
		image->precision > NN_PRECISION_BF16 ||
		image->output_format > BICYCLE_OUTPUT_WEBP_LOSSLESS || image->jpeg_quality > 100 ||
		image->png_level > BICYCLE_PNG_LEVEL_MOST || image->fit > BICYCLE_FIT_INPUT ||
		(image->flags & ~FLAGS) != 0)
		return false;
	if (!request->engine->settings.debug)
		image->debug = 0;
	request->latent = request->body + sizeof(*image);
	request->file = request->latent + latent;
	request->second = request->file + image->image_length;
	return true;
}

/* The latent code is the user's: what is wrong with it is an ordinary error. */
static bool
check_latent(const Request *request, EngineError *error)
{
	for (uint32_t i = 0; i < request->image.nz; i++)
	{
		float value;

		memcpy(&value, request->latent + i * sizeof(float), sizeof(value));
		if (!isfinite(value))
		{
			error_set(error, "22023", "latent code must be finite");
			error_detail(error, "Element %u is %g.", i + 1, value);
			return false;
		}
	}
	return true;
}

void
frame_received(Connection *connection, const BicycleFrame *frame)
{
	Request *request = request_find(connection, frame->id);
	EngineError error;

	INVARIANT(request->kind->stream == (frame->type == BICYCLE_DATA));
	if (frame->type == BICYCLE_DATA)
	{
		request->received += frame->length;
		if (request->kind->part != NULL)
			request->kind->part(request);
		return;
	}
	if (!split_image_request(request))
		connection_protocol_error(connection, frame->id,
								  "The parts of a request of type %u do not fit its %u bytes.",
								  frame->type, frame->length);
	else if (!request->kind->uses_model)
		request_to(request, REQUEST_QUEUED);
	else if (!check_latent(request, &error))
		request_fail(request, &error);
	else
		demand_want(request);
}

static void
frame_end(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	Request *request = request_find(connection, frame->id);

	if (request == NULL || request->state != REQUEST_GRANTED || !request->kind->stream ||
		request->received != request->body_size)
	{
		connection_protocol_error(connection, frame->id,
								  "A stream ended that was not granted, or before all of it came.");
		return;
	}
	request->kind->whole(request);
}

/* ---- Small frames -------------------------------------------------------- */

/* Unknown ids too: the request may have ended meanwhile. */
static void
frame_cancel(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	Request *request = request_find(connection, frame->id);

	if (request != NULL)
		request_withdraw(request);
	connection_send(connection, BICYCLE_CANCELLED, frame->id, NULL, 0, true, NULL);
}

/* It may have been cancelled, or the model has come from elsewhere. */
static void
frame_no_model(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	Request *request = request_find(connection, frame->id);
	EngineError error;

	if (!error_unpack(&error, body, frame->length))
		connection_protocol_error(connection, frame->id, "An error came that is not well-formed.");
	else if (request != NULL && request->state == REQUEST_WAITING && request->asked)
		request_fail(request, &error);
}

/* With all that is made of it; the client may send when it has that. */
static void
ask_for_memory(Request *request, uint64_t bytes, size_t charge)
{
	if (request->state != REQUEST_NEW)
		return; /* it has failed */
	request_wait_memory(request, bytes, charge);
	admission_run(request->engine);
}

static void
malformed_header(Connection *connection, const BicycleFrame *frame, const char *what)
{
	connection_protocol_error(connection, frame->id, "The header of %s is not well-formed.", what);
}

/* NULL after the client was answered. `limit`: the session's. */
static Request *
new_stream(Connection *connection, const BicycleFrame *frame, uint64_t bytes, uint64_t limit)
{
	Request *request = request_new(connection, frame, frame_kind(frame->type));
	EngineError error;

	if (request == NULL || request_check_model_size(connection->engine, bytes, limit, &error))
		return request;
	request_fail(request, &error);
	return NULL;
}

static void
frame_load(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	BicycleLoad load;
	Request *request;
	EngineError error;

	memcpy(&load, body, sizeof(load));
	if (load.config_length != frame->length - sizeof(load) || load.stream_length == 0 ||
		memchr(load.model, '\0', sizeof(load.model)) == NULL)
		malformed_header(connection, frame, "a model");
	else if ((request = new_stream(connection, frame, load.stream_length, 0)) == NULL)
		return;
	else if (!load_check(request, &load, &error))
		request_fail(request, &error);
	else
	{
		load_begin(request, &load, body + sizeof(load));
		ask_for_memory(request, load.stream_length, load_bytes(&load, body + sizeof(load)));
	}
}

static void
frame_import(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	BicycleImport import;
	Request *request;
	uint64_t bytes;

	memcpy(&import, body, sizeof(import));
	if (import.config_length != frame->length - sizeof(import) || import.lpips > 1 ||
		(import.lpips == 1 && import.encoder_length == 0) ||
		__builtin_add_overflow(import.generator_length, import.encoder_length, &bytes) ||
		(import.generator_length == 0) != (frame->type == BICYCLE_CREATE) ||
		(import.encoder_length > 0 && frame->type == BICYCLE_CREATE))
		malformed_header(connection, frame, "an import");
	else if ((request = new_stream(connection, frame, bytes, import.max_model_size)) != NULL)
	{
		import_begin(request, &import, body + sizeof(import));
		/* CREATE asks when its options are read. */
		if (frame->type == BICYCLE_IMPORT)
			ask_for_memory(request, bytes,
						   (size_t) bytes + format_read_bytes(import.generator_length) +
							   format_read_bytes(import.encoder_length));
	}
}

static void
frame_inspect(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	BicycleImport import;
	Request *request;

	memcpy(&import, body, sizeof(import));
	if (import.config_length != 0 || import.generator_length == 0 || import.encoder_length != 0)
		malformed_header(connection, frame, "an inspection");
	else if ((request = new_stream(connection, frame, import.generator_length,
								   import.max_model_size)) != NULL)
		ask_for_memory(request, import.generator_length,
					   import.generator_length + format_read_bytes(import.generator_length));
}

static void
frame_export(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	BicycleExport export;
	Request *request;

	memcpy(&export, body, sizeof(export));
	if (export.stream_length == 0 || memchr(export.format, '\0', sizeof(export.format)) == NULL)
		malformed_header(connection, frame, "an export");
	else if ((request = new_stream(connection, frame, export.stream_length, 0)) != NULL)
	{
		export_begin(request, &export);
		ask_for_memory(request, export.stream_length, 2 * (size_t) export.stream_length);
	}
}

/* ---- The table ----------------------------------------------------------- */

#define IMAGE(NAME) .type = BICYCLE_##NAME, .min = sizeof(BicycleImageRequest), .max = UINT32_MAX
#define IMPORT(NAME)                                      \
	.type = BICYCLE_##NAME, .min = sizeof(BicycleImport), \
	.max = sizeof(BicycleImport) + BICYCLE_MAX_CONFIG, .came = frame_import, .stream = true

static const FrameKind kinds[] = {
	{ IMAGE(TRANSLATE), .uses_model = true, .network = NN_NET_G, .decode = worker_decode_image,
	  .decoded = request_decoded, .computed = worker_encode },
	{ IMAGE(ENCODE), .uses_model = true, .network = NN_NET_E, .decode = worker_decode_image,
	  .decoded = request_decoded, .computed = request_reply_result },
	{ IMAGE(LPIPS), .two = true, .uses_model = true, .network = NN_NET_L,
	  .decode = worker_decode_image, .decoded = request_decoded, .computed = request_reply_result },
	{ IMAGE(INFO), .decode = worker_read_info, .decoded = worker_reply_info },
	{ IMAGE(CHECK), .decode = worker_check, .decoded = request_reply_result },
	{ IMAGE(PLOT), .decode = worker_plot, .decoded = request_reply_result },
	{ IMAGE(COMPARE), .two = true, .decode = compare_images, .decoded = request_reply_result },
	{ IMAGE(MATCH), .two = true, .decode = match_images, .decoded = request_reply_result },
	{ IMAGE(HALVES), .decode = halve_image, .decoded = request_reply_result },
	{ IMAGE(GRID), .decode = worker_grid, .decoded = request_reply_result },

	{ .type = BICYCLE_RESERVE,
	  .min = sizeof(BicycleReserve),
	  .max = sizeof(BicycleReserve),
	  .came = frame_reserve },
	{ .type = BICYCLE_CANCEL, .came = frame_cancel },
	{ .type = BICYCLE_DATA, .max = BICYCLE_MAX_FRAME },
	{ .type = BICYCLE_END, .came = frame_end },
	{ .type = BICYCLE_NO_MODEL,
	  .min = sizeof(BicycleError),
	  .max = ERROR_PACKED_MAX + 4096,
	  .came = frame_no_model },

	{ .type = BICYCLE_LOAD,
	  .min = sizeof(BicycleLoad),
	  .max = sizeof(BicycleLoad) + BICYCLE_MAX_CONFIG,
	  .came = frame_load,
	  .stream = true,
	  .part = load_progress,
	  .whole = load_queue },
	{ IMPORT(IMPORT), .whole = import_run },
	{ IMPORT(CREATE), .whole = create_run },
	{ .type = BICYCLE_INSPECT,
	  .min = sizeof(BicycleImport),
	  .max = sizeof(BicycleImport),
	  .came = frame_inspect,
	  .stream = true,
	  .whole = inspect_run },
	{ .type = BICYCLE_EXPORT,
	  .min = sizeof(BicycleExport),
	  .max = sizeof(BicycleExport),
	  .came = frame_export,
	  .stream = true,
	  .whole = export_run },

	{ .type = BICYCLE_STATUS, .came = answer_status },
	{ .type = BICYCLE_CACHE, .came = answer_cache },
	{ .type = BICYCLE_TRAIN_CHECK,
	  .min = sizeof(BicycleTrainCheck),
	  .max = sizeof(BicycleTrainCheck) + BICYCLE_MAX_CONFIG,
	  .came = options_check },
};

const FrameKind *
frame_kind(uint32_t type)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (kinds[i].type == type)
			return &kinds[i];
	return NULL;
}
