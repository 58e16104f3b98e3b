/*
 * request.c
 *	  The life of a request, from its first frame to the last byte of its reply.
 *
 * I/O thread only.  Image requests (TRANSLATE, ENCODE, INFO, PLOT):
 *
 *	 RESERVE -> RESERVED -GRANT-> GRANTED -> RECEIVING -> WAITING -> QUEUED
 *	 -(ALONE)-STARTED-> DECODING -> READY -> RUNNING -> ENCODING -> DONE
 *
 * INFO and PLOT, which need no model, end after DECODING, ENCODE after RUNNING.
 * Streams (LOAD, IMPORT, CREATE, INSPECT, EXPORT):
 *
 *	 header -> RESERVED -GRANT-> GRANTED (DATA.., END) -STARTED-> LOADING ->
 *	 DONE
 *
 * A request belongs to its connection until it is withdrawn (CANCEL, close) or
 * its reply is written. Withdrawn in a state in which a thread has it, it
 * belongs to nobody (connection is NULL) and is freed when the thread gives it
 * back; request_back tells. Frames in the output queue that point into a
 * request's memory keep it; DONE requests go with their last frame, and only
 * then is their place in the queue pool free.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

#define MAX_REQUESTS 4096 /* open on one connection */

_Static_assert(sizeof(BicycleFrame) + sizeof(BicycleLoad) + BICYCLE_MAX_CONFIG <= INPUT_BUFFER,
			   "every frame that is read as a whole fits in the buffer");

static void frame_reserve(Connection *connection, const BicycleFrame *frame, const uint8_t *body);
static void frame_cancel(Connection *connection, const BicycleFrame *frame, const uint8_t *body);
static void frame_no_model(Connection *connection, const BicycleFrame *frame, const uint8_t *body);
static void frame_load(Connection *connection, const BicycleFrame *frame, const uint8_t *body);
static void frame_import(Connection *connection, const BicycleFrame *frame, const uint8_t *body);
static void frame_inspect(Connection *connection, const BicycleFrame *frame, const uint8_t *body);
static void frame_export(Connection *connection, const BicycleFrame *frame, const uint8_t *body);
static void frame_end(Connection *connection, const BicycleFrame *frame, const uint8_t *body);
static void frame_status(Connection *connection, const BicycleFrame *frame, const uint8_t *body);
static void frame_cache(Connection *connection, const BicycleFrame *frame, const uint8_t *body);

/*
 * Every frame a client may send after its hello. Those without a handler are
 * received into the memory of their request.
 */
static const struct FrameRule
{
	uint32_t type;
	size_t min, max;
	void (*handle)(Connection *connection, const BicycleFrame *frame, const uint8_t *body);
} rules[] = {
	{ BICYCLE_DATA, 0, BICYCLE_MAX_FRAME, NULL },
	{ BICYCLE_TRANSLATE, sizeof(BicycleImageRequest), UINT32_MAX, NULL },
	{ BICYCLE_ENCODE, sizeof(BicycleImageRequest), UINT32_MAX, NULL },
	{ BICYCLE_INFO, sizeof(BicycleImageRequest), UINT32_MAX, NULL },
	{ BICYCLE_PLOT, sizeof(BicycleImageRequest), UINT32_MAX, NULL },
	{ BICYCLE_END, 0, 0, frame_end },
	{ BICYCLE_RESERVE, sizeof(BicycleReserve), sizeof(BicycleReserve), frame_reserve },
	{ BICYCLE_CANCEL, 0, 0, frame_cancel },
	{ BICYCLE_NO_MODEL, sizeof(BicycleError), ERROR_PACKED_MAX + 4096, frame_no_model },
	{ BICYCLE_LOAD, sizeof(BicycleLoad), sizeof(BicycleLoad) + BICYCLE_MAX_CONFIG, frame_load },
	{ BICYCLE_IMPORT, sizeof(BicycleImport), sizeof(BicycleImport) + BICYCLE_MAX_CONFIG,
	  frame_import },
	{ BICYCLE_CREATE, sizeof(BicycleImport), sizeof(BicycleImport) + BICYCLE_MAX_CONFIG,
	  frame_import },
	{ BICYCLE_INSPECT, sizeof(BicycleImport), sizeof(BicycleImport), frame_inspect },
	{ BICYCLE_EXPORT, sizeof(BicycleExport), sizeof(BicycleExport), frame_export },
	{ BICYCLE_STATUS, 0, 0, frame_status },
	{ BICYCLE_CACHE, 0, 0, frame_cache },
	{ BICYCLE_TRAIN_CHECK, sizeof(BicycleTrainCheck),
	  sizeof(BicycleTrainCheck) + BICYCLE_MAX_CONFIG, options_check },
};

static const struct FrameRule *
rule_of(uint32_t type)
{
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (rules[i].type == type)
			return &rules[i];
	return NULL;
}

bool
frame_length_fits(const BicycleFrame *frame)
{
	const struct FrameRule *rule = rule_of(frame->type);

	return rule != NULL && frame->length >= rule->min && frame->length <= rule->max;
}

bool
frame_is_direct(uint32_t type)
{
	const struct FrameRule *rule = rule_of(type);

	return rule != NULL && rule->handle == NULL;
}

bool
request_frame(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	rule_of(frame->type)->handle(connection, frame, body);
	return !connection->closing;
}

/* ---- Making, finding, freeing -------------------------------------------- */

static Request **
bucket(Connection *connection, uint64_t id)
{
	return &connection->ids[(id * UINT64_C(0x9e3779b97f4a7c15)) >> 56];
}

Request *
request_find(Connection *connection, uint64_t id)
{
	Request *request = *bucket(connection, id);

	while (request != NULL && request->id != id)
		request = request->id_next;
	return request;
}

/* A new request, or NULL after the client was answered. */
static Request *
request_new(Connection *connection, const BicycleFrame *frame)
{
	Request *request;
	EngineError error;

	if (frame->id == 0 || request_find(connection, frame->id) != NULL)
	{
		connection_protocol_error(
			connection, frame->id, "A request came under the id %llu, which is %s.",
			(unsigned long long) frame->id, frame->id == 0 ? "reserved" : "in use");
		return NULL;
	}
	if (connection->nrequests >= MAX_REQUESTS)
	{
		error_set(&error, "54000", "too many requests on one connection");
		error_detail(&error, "There are %d already.", MAX_REQUESTS);
		connection_send_error(connection, frame->id, &error, NULL);
		return NULL;
	}
	request = calloc(1, sizeof(*request));
	if (request == NULL)
	{
		error_memory(&error, "a request");
		connection_send_error(connection, frame->id, &error, NULL);
		return NULL;
	}
	request->engine = connection->engine;
	request->connection = connection;
	request->database = connection->database;
	request->id = frame->id;
	request->type = (BicycleFrameType) frame->type;
	request->state = REQUEST_RESERVED;
	list_init(&request->link);
	list_append(&connection->requests, &request->all);
	request->id_next = *bucket(connection, request->id);
	*bucket(connection, request->id) = request;
	connection->nrequests++;
	connection->engine->nrequests++;
	return request;
}

/* Takes the request from its connection. */
static void
detach(Request *request)
{
	Connection *connection = request->connection;
	Request **at = bucket(connection, request->id);

	while (*at != request)
		at = &(*at)->id_next;
	*at = request->id_next;
	list_remove(&request->all);
	connection->nrequests--;
	if (request->state != REQUEST_RESERVED)
		connection->place -= request->place;
	request->connection = NULL;
}

/* Whatever the request still holds of models and of the right to run. */
static void
let_go(Request *request)
{
	if (request->model != NULL)
		cache_unpin(request->engine, request->model);
	request->model = NULL;
	cache_forget(request);
	batcher_ended(request);
}

/* For requests that no thread has and no frame refers to. */
void
request_free(Request *request)
{
	Engine *engine = request->engine;

	if (request->connection != NULL)
		detach(request);
	if (request->state == REQUEST_RESERVED)
		request->place = request->charge = 0; /* it only waited for them */
	if (request->state != REQUEST_DONE)
		engine->nrequests--;
	list_remove(&request->link);
	let_go(request);
	if (request->work != NULL)
		request->work_free(request->work);
	image_free(&request->pixels);
	free(request->body);
	free(request->result);
	queue_release(request);
	memory_release(engine, request->charge);
	free(request);
}

/*
 * CANCEL or the end of the connection. No frame will be sent for the request
 * any more, but one whose first bytes were.
 */
void
request_withdraw(Request *request)
{
	Engine *engine = request->engine;

	request->frames++; /* keeps it while its frames go */
	connection_unsend(request->connection, request->id);
	request->frames--;
	detach(request);

	switch (request->state)
	{
		case REQUEST_DECODING:
		case REQUEST_RUNNING:
		case REQUEST_ENCODING:
			return; /* comes back */
		case REQUEST_LOADING:
			if (list_empty(&request->link))
				return; /* comes back; otherwise it was held from the loader */
			break;
		case REQUEST_READY:
			engine->ahead--;
			break;
		case REQUEST_DONE:
			if (request->frames > 0)
				return; /* goes with its last frame */
			break;
		default:
			break;
	}
	request_free(request);
}

/* A frame of the request has been written or dropped. */
void
request_frame_gone(Request *request)
{
	if (--request->frames == 0 && request->state == REQUEST_DONE)
		request_free(request);
}

/* Hands the request to a thread. */
void
request_work(Request *request, Executor *executor, RequestState state, void (*run)(Task *),
			 void (*done)(Engine *, Task *), bool first)
{
	request->state = state;
	request->task.run = run;
	request->task.done = done;
	executor_submit(executor, &request->task, first);
}

bool
request_back(Request *request)
{
	if (request->connection != NULL)
		return true;
	request_free(request);
	return false;
}

/* ---- Replies ------------------------------------------------------------- */

static void
finish(Request *request)
{
	Engine *engine = request->engine;

	let_go(request);
	free(request->body);
	request->body = NULL;
	request->file = request->latent = NULL;
	image_free(&request->pixels);
	request->state = REQUEST_DONE;
	engine->nrequests--;
	engine->requests_done++;
}

/*
 * The request ends with an error. A dead connection is not told; it frees its
 * requests when it goes.
 */
void
request_fail(Request *request, const EngineError *error)
{
	EngineError copy = *error; /* may be the request's own */

	if (request->state == REQUEST_RESERVED)
		request->place = request->charge = 0;
	list_remove(&request->link);
	finish(request);
	connection_send_error(request->connection, request->id, &copy, request);
}

/* The request ends with a result of one frame. */
void
request_reply(Request *request, const void *data, size_t length)
{
	finish(request);
	connection_send(request->connection, BICYCLE_RESULT, request->id, data, length, false, request);
}

/*
 * A piece of a result of several frames, of which the last is END. Data longer
 * than a frame is cut. The memory is the request's own (its work's) unless
 * copied.
 */
void
request_reply_part(Request *request, BicycleFrameType type, const void *data, size_t length,
				   bool copy)
{
	const uint8_t *bytes = length > 0 ? data : (const uint8_t *) ""; /* an END has none */

	if (type == BICYCLE_RESULT)
		finish(request);
	do
	{
		size_t n = length < BICYCLE_MAX_FRAME ? length : BICYCLE_MAX_FRAME;

		if (!connection_send(request->connection, type, request->id, bytes, n, copy, request))
			return;
		bytes += n;
		length -= n;
	} while (length > 0);
}

/* ---- Places and bodies --------------------------------------------------- */

static void
frame_reserve(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	BicycleReserve reserve;
	Request *request;
	EngineError error;

	memcpy(&reserve, body, sizeof(reserve));
	if (reserve.bytes < sizeof(BicycleImageRequest))
	{
		connection_protocol_error(connection, frame->id,
								  "A place of %llu bytes was asked for, which no request fits.",
								  (unsigned long long) reserve.bytes);
		return;
	}
	if ((request = request_new(connection, frame)) == NULL)
		return;
	if (reserve.bytes > UINT32_MAX || reserve.bytes > connection->engine->queue.limit)
	{
		error_set(&error, "54000", "request is too large");
		error_detail(&error, "It takes %llu bytes, and all requests together may take %zu.",
					 (unsigned long long) reserve.bytes, connection->engine->queue.limit);
		error_hint(&error, "Raise the setting \"bicycle.queue_memory\".");
		request_fail(request, &error);
		return;
	}
	request->body_size = reserve.bytes;
	request->place = reserve.bytes + sizeof(Request);
	list_append(&connection->engine->queue_waiting, &request->link);
	queue_admit(connection->engine);
}

/*
 * A header frame that announces a stream of `bytes`; `charge` is what it takes
 * of the engine's memory with all that is made of it.
 */
void
request_wait_memory(Request *request, uint64_t bytes, size_t charge)
{
	request->body_size = bytes;
	request->charge = charge;
	list_append(&request->engine->memory_waiting, &request->link);
	memory_admit(request->engine);
}

/*
 * The request has its memory: the client may send, or where it has nothing to
 * send, work begins.
 */
void
request_grant(Request *request)
{
	EngineError error;

	request->state = REQUEST_GRANTED;
	if (request->type == BICYCLE_CREATE)
	{
		import_run(request);
		return;
	}
	request->body = malloc(request->body_size);
	if (request->body == NULL)
	{
		error_memory(&error, "the body of a request");
		request_fail(request, &error);
		return;
	}
	connection_send(request->connection, BICYCLE_GRANT, request->id, NULL, 0, true, NULL);
}

static bool
is_stream(const Request *request)
{
	return request->type == BICYCLE_LOAD || request->type == BICYCLE_IMPORT ||
		   request->type == BICYCLE_INSPECT || request->type == BICYCLE_EXPORT;
}

/*
 * Where the body of a TRANSLATE, ENCODE, INFO, PLOT or DATA frame goes; false
 * after a protocol error.
 */
bool
request_target(Connection *connection, const BicycleFrame *frame, uint8_t **to)
{
	Request *request = request_find(connection, frame->id);

	if (request == NULL || request->state != REQUEST_GRANTED ||
		(frame->type == BICYCLE_DATA) != is_stream(request))
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
	request->state = REQUEST_RECEIVING;
	request->type = (BicycleFrameType) frame->type;
	*to = request->body;
	return true;
}

bool
request_uses_model(const Request *request)
{
	return request->type == BICYCLE_TRANSLATE || request->type == BICYCLE_ENCODE;
}

/*
 * Splits the body of an image request. False if its parts do not make up the
 * whole.
 */
static bool
split_image_request(Request *request)
{
	BicycleImageRequest *image = &request->image;
	uint64_t latent;

	memcpy(image, request->body, sizeof(*image));
	latent = (uint64_t) image->nz * sizeof(float);
	if (image->nz > BICYCLE_MAX_NZ || (image->nz > 0 && request->type != BICYCLE_TRANSLATE) ||
		sizeof(*image) + latent + image->image_length != request->body_size ||
		image->precision > NN_PRECISION_BF16 || image->output_format > BICYCLE_OUTPUT_JPEG ||
		image->jpeg_quality > 100 ||
		(image->flags & ~(BICYCLE_FLAG_ALONE | BICYCLE_FLAG_BULK)) != 0)
		return false;
	if (!request->engine->settings.debug)
		image->debug = 0;
	request->latent = request->body + sizeof(*image);
	request->file = request->latent + latent;
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

/* The body of a frame has come whole. */
void
request_received(Connection *connection, const BicycleFrame *frame)
{
	Request *request = request_find(connection, frame->id);
	EngineError error;

	if (frame->type == BICYCLE_DATA)
	{
		request->received += frame->length;
		if (request->type == BICYCLE_LOAD)
			load_progress(request);
		return;
	}
	if (!split_image_request(request))
		connection_protocol_error(connection, frame->id,
								  "The parts of a request of type %u do not fit its %u bytes.",
								  frame->type, frame->length);
	else if (!request_uses_model(request))
		batcher_add(request);
	else if (!check_latent(request, &error))
		request_fail(request, &error);
	else
		cache_want(request);
}

static void
frame_end(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	Request *request = request_find(connection, frame->id);

	if (request == NULL || request->state != REQUEST_GRANTED || !is_stream(request) ||
		request->received != request->body_size)
	{
		connection_protocol_error(connection, frame->id,
								  "A stream ended that was not granted, or before all of it came.");
		return;
	}
	if (request->type == BICYCLE_LOAD)
		load_queue(request);
	else if (request->type == BICYCLE_IMPORT)
		import_run(request);
	else if (request->type == BICYCLE_INSPECT)
		inspect_run(request);
	else
		export_run(request);
}

/* ---- Small frames -------------------------------------------------------- */

/*
 * Answered for unknown ids too: the request may have ended while this was on
 * its way.
 */
static void
frame_cancel(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	Request *request = request_find(connection, frame->id);

	if (request != NULL)
		request_withdraw(request);
	connection_send(connection, BICYCLE_CANCELLED, frame->id, NULL, 0, true, NULL);
}

/*
 * Not an error if the request is not waiting any more: it may have been
 * cancelled, or the model has come from elsewhere.
 */
static void
frame_no_model(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	Request *request = request_find(connection, frame->id);
	EngineError error;

	if (!error_unpack(&error, body, frame->length))
		connection_protocol_error(connection, frame->id, "An error came that is not well-formed.");
	else if (request != NULL && request->state == REQUEST_WAITING && request->asked)
		cache_no_model(request, &error);
}

/*
 * Checks a size the user chose against the two limits there are: the session's
 * (0: none) and the engine's.
 */
bool
request_check_model_size(const Engine *engine, uint64_t size, uint64_t session_limit,
						 EngineError *error)
{
	uint64_t limit = (uint64_t) engine->settings.max_model_size;

	if (session_limit > 0 && session_limit < limit)
		limit = session_limit;
	if (size <= limit)
		return true;
	error_set(error, "54000", "model is too large");
	error_detail(error, "It has %llu bytes, and at most %llu are allowed.",
				 (unsigned long long) size, (unsigned long long) limit);
	error_hint(error, "See the setting \"bicycle.max_model_size\".");
	return false;
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
	{
		connection_protocol_error(connection, frame->id,
								  "The header of a model is not well-formed.");
		return;
	}
	if ((request = request_new(connection, frame)) == NULL)
		return;
	if (!request_check_model_size(connection->engine, load.stream_length, 0, &error) ||
		!load_check(request, &load, &error))
	{
		request_fail(request, &error);
		return;
	}
	load_begin(request, &load, body + sizeof(load));
	/* The stream, its values as floats, and the packed weights. */
	if (request->state == REQUEST_RESERVED)
		request_wait_memory(request, load.stream_length, 3 * (size_t) load.stream_length);
}

static void
frame_import(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	BicycleImport import;
	Request *request;
	EngineError error;
	uint64_t bytes;

	memcpy(&import, body, sizeof(import));
	if (import.config_length != frame->length - sizeof(import) ||
		__builtin_add_overflow(import.generator_length, import.encoder_length, &bytes) ||
		(import.generator_length == 0) != (frame->type == BICYCLE_CREATE) ||
		(import.encoder_length > 0 && frame->type == BICYCLE_CREATE))
	{
		connection_protocol_error(connection, frame->id,
								  "The header of an import is not well-formed.");
		return;
	}
	if ((request = request_new(connection, frame)) == NULL)
		return;
	if (!request_check_model_size(connection->engine, bytes, import.max_model_size, &error))
	{
		request_fail(request, &error);
		return;
	}
	import_begin(request, &import, body + sizeof(import));
	/*
	 * The files and what format_read must copy of them. What a new model takes
	 * is not known before its configuration was read.
	 */
	if (request->state == REQUEST_RESERVED && request->type == BICYCLE_IMPORT)
		request_wait_memory(request, bytes, 2 * (size_t) bytes);
}

static void
frame_inspect(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	BicycleImport import;
	Request *request;
	EngineError error;

	memcpy(&import, body, sizeof(import));
	if (import.config_length != 0 || import.generator_length == 0 || import.encoder_length != 0)
	{
		connection_protocol_error(connection, frame->id,
								  "The header of an inspection is not well-formed.");
		return;
	}
	if ((request = request_new(connection, frame)) == NULL)
		return;
	if (!request_check_model_size(connection->engine, import.generator_length,
								  import.max_model_size, &error))
		request_fail(request, &error);
	else
		request_wait_memory(request, import.generator_length, 2 * (size_t) import.generator_length);
}

static void
frame_export(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	BicycleExport export;
	Request *request;
	EngineError error;

	memcpy(&export, body, sizeof(export));
	if (export.stream_length == 0 || memchr(export.format, '\0', sizeof(export.format)) == NULL)
	{
		connection_protocol_error(connection, frame->id,
								  "The header of an export is not well-formed.");
		return;
	}
	if ((request = request_new(connection, frame)) == NULL)
		return;
	if (!request_check_model_size(connection->engine, export.stream_length, 0, &error))
	{
		request_fail(request, &error);
		return;
	}
	export_begin(request, &export);
	if (request->state == REQUEST_RESERVED)
		request_wait_memory(request, export.stream_length, 2 * (size_t) export.stream_length);
}

static void
frame_status(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	engine_status(connection, frame->id);
}

static void
frame_cache(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	cache_answer(connection, frame->id);
}
