/*
 * run_device.c
 *	  The device that a run trains on, and the fit there: which, whether there
 *	  is room, and opening both.
 *
 * Everything runs on the device thread.
 *
 * R1 The setting device says which. The job worker tells it of a job: it is
 *    what bicycle.training_device is, but for which of several GPUs it has
 *    chosen.
 * R2 auto is the GPU of the setting training_card if it is there, can train and
 *    has room, else the CPU, with a note where it is there.
 * R3 What an earlier run of the job was on it stays on, as far as it can. With
 *    auto a job that was on the CPU does not look for a GPU; and precision auto
 *    is what it was.
 * R4 What the fit takes, and what looks at it, is counted before any of it is
 *    taken, and compared with what there is. So are the weights and checkpoints
 *    on their way, which lie on the host (run_streams). A GPU may have room a
 *    moment later, as engines give back what they keep when a job begins. For
 *    that of a copy of the state as well, which checkpoints can do without, it
 *    waits no longer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/run.h"

_Static_assert(RUN_VALIDATION_SAMPLES <= RUN_PREVIEW_SAMPLES, "images of previews");

#define ROOM_TRIES 4
#define ROOM_WAIT_MS 250

#define MB(bytes) ((unsigned long long) (((bytes) + (1 << 20) - 1) >> 20))

/* How an attempt on a device went; run->error says why not. */
typedef enum RunOpening
{
	OPENED,
	OPEN_MISSING, /* there is no such device, or it cannot train */
	OPEN_NO_ROOM, /* there is one, which others fill or hold */
	OPEN_FAILED   /* no other device would do either */
} RunOpening;

/* ---- The device ---------------------------------------------------------- */

/* The neural core's hints are about the setting of inference. */
static void
hint_setting(Run *run, const char *hint)
{
	static const char inference[] = "\"bicycle.device\"";
	const char *at = strstr(hint, inference);

	if (hint[0] == '\0')
		error_hint(&run->error, "Set \"bicycle.training_device\" to auto or cpu and reload the "
								"configuration.");
	else if (at == NULL)
		error_hint(&run->error, "%s", hint);
	else
		error_hint(&run->error, "%.*s\"bicycle.training_device\"%s", (int) (at - hint), hint,
				   at + strlen(inference));
}

static RunOpening
open_device(Run *run, const char *name)
{
	Engine *engine = run->engine;
	NnError error = { 0 };

	executor_takes(DEVICE_OPEN_MS);
	if (nn_device_open(name, settings_threads(&engine->settings), &engine->device.nn, &error) ==
		NN_OK)
	{
		executor_progress();
		nn_device_watch(engine->device.nn, executor_progress);
		return OPENED;
	}
	engine->device.nn = NULL;
	if (error.code == NN_ENOMEM)
	{
		error_from_nn(&run->error, &error);
		return OPEN_NO_ROOM;
	}
	error_set(&run->error, "55000", "device \"%s\" is missing", name);
	if (error.detail[0] != '\0')
		error_detail(&run->error, "%s", error.detail);
	else
		error_detail(&run->error, "The engine reported: %s.", error.message);
	hint_setting(run, error.hint);
	return error.code == NN_EDEVICE ? OPEN_NO_ROOM : OPEN_MISSING;
}

static RunOpening
check_trains(Run *run, const char *name)
{
	if (nn_device_trains(run->engine->device.nn))
		return OPENED;
	error_set(&run->error, "55000", "device \"%s\" cannot train", name);
	hint_setting(run, "");
	return OPEN_MISSING;
}

static void
close_all(Run *run)
{
	if (run->fit != NULL)
		nn_fit_close(run->fit);
	run->fit = NULL;
	device_close(run->engine);
	nn_gpu_leave(); /* a run that has left a GPU does not come back to one */
}

/* ---- Memory -------------------------------------------------------------- */

/* The precision that an earlier run has said, by BICYCLE_PLATFORM. */
static NnPrecision
precision_of_platform(const char *platform)
{
	for (int precision = 0; bicycle_precision_names[precision] != NULL; precision++)
	{
		char part[48];

		snprintf(part, sizeof(part), ", %s, bicycle ", bicycle_precision_names[precision]);
		if (strstr(platform, part) != NULL)
			return (NnPrecision) precision;
	}
	return platform[0] != '\0' ? NN_PRECISION_FP32 : NN_PRECISION_AUTO;
}

/*
 * The job's option decides, not the setting, which is inference's. What "auto"
 * was in the first run of a job it is in all: weights that were trained in one
 * precision go on in it.
 */
NnPrecision
run_precision(const Run *run)
{
	return nn_train_precision(run->engine->device.nn, &run->config,
							  precision_of_platform(run->begin.platform));
}

static size_t
and_more(size_t x, size_t y)
{
	return x <= SIZE_MAX - y ? x + y : SIZE_MAX;
}

/*
 * What weights take of the host on their way, at most. At first the stream to
 * start from is beside the fit. Then a checkpoint is, which waits to be read,
 * when the last version is packed. The best weights are kept, are in
 * checkpoints, and beside the stream of one while it is made.
 */
static size_t
run_streams(const Run *run, const NnFitNeeds *needs)
{
	bool keeps = run->validation.on && run->options.keep == NN_KEEP_BEST;
	size_t kept = keeps ? needs->version : 0;
	size_t first = and_more(run->begin.stream_length, kept),
		   later = and_more(and_more(needs->state, needs->version), and_more(kept, kept));

	return first > later ? first : later;
}

static RunOpening
check_host(Run *run, size_t bytes, const char *more)
{
	size_t limit = run->engine->memory.limit;

	if (bytes <= limit)
		return OPENED;
	error_set(&run->error, "53200", "out of engine memory");
	error_detail(&run->error, "Training this model takes %zu bytes%s, and the engine may take %zu.",
				 bytes, more, limit);
	error_hint(&run->error, "Raise the setting \"bicycle.engine_memory\", or choose a smaller "
							"batch_size, a larger accumulate or smaller networks.");
	return OPEN_FAILED;
}

/* wanted: what is missing by the neural core, where the figures do not tell. */
static RunOpening
no_gpu_room(Run *run, size_t bytes, const NnDeviceRoom *room, const NnError *wanted)
{
	error_set(&run->error, "53200", "out of GPU memory");
	if (wanted == NULL || bytes > room->free)
		error_detail(&run->error,
					 "Training this model needs %llu MB, and of %llu MB of the GPU %llu MB are "
					 "free.",
					 MB(bytes), MB(room->card), MB(room->free));
	else
		error_detail(&run->error, "%s", wanted->detail);
	error_hint(&run->error, "Choose a smaller batch_size or a larger accumulate, or set "
							"\"bicycle.training_device\" to cpu.");
	return OPEN_NO_ROOM;
}

/* Before anything is taken; *bytes: at least so many are wanted. */
static RunOpening
check_room(Run *run, size_t *bytes)
{
	NnDevice *nn = run->engine->device.nn;
	NnFitLooks looks = { .images = run_look_images(&run->config, RUN_PREVIEW_SAMPLES) };
	NnConfig metric;
	NnFitNeeds needs;
	NnDeviceRoom room;
	NnError error = { 0 };
	size_t all;

	if (!run_validation_foresee(&run->validation, &run->config, &looks, &metric, &run->error))
		return OPEN_FAILED;
	if (nn_fit_estimate(nn, &run->config, &run->options, run_precision(run), &looks, &needs,
						&error) != NN_OK)
	{
		error_from_nn(&run->error, &error);
		return OPEN_FAILED;
	}
	*bytes = needs.bytes;
	if (!nn_device_room(nn, &room))
		return check_host(run, and_more(*bytes, run_streams(run, &needs)), " or more");
	all = and_more(*bytes, needs.copy);
	for (int tries = 1; all > room.free && *bytes <= room.most && tries < ROOM_TRIES; tries++)
	{
		executor_progress();
		usleep(ROOM_WAIT_MS * 1000);
		(void) nn_device_room(nn, &room);
	}
	if (*bytes > room.free)
		return no_gpu_room(run, *bytes, &room, NULL);
	return check_host(run, run_streams(run, &needs), " of the host's memory");
}

/* ---- The fit ------------------------------------------------------------- */

/* The stream: a version's weights to start from, or a whole checkpoint. */
static RunOpening
open_fit(Run *run, const TensorStream *stream)
{
	Engine *engine = run->engine;
	int given = run->begin.iteration > 0 ? 0 : stream->ntensors;
	int64_t rows = run_is_finished(run) ? run->options.batch_size : run->data.npairs;
	NnDeviceRoom room;
	NnError error = { 0 };
	size_t bytes;
	RunOpening opening = check_room(run, &bytes);
	bool gpu = nn_device_room(engine->device.nn, &room);

	if (opening != OPENED)
		return opening;
	if (nn_fit_open(engine->device.nn, &run->config, &run->options, run_precision(run), rows,
					given > 0 ? stream->tensors : NULL, given, &run->fit, &error) != NN_OK)
	{
		run->fit = NULL;
		if (gpu && error.code == NN_ENOMEM)
			return no_gpu_room(run, bytes, &room, &error);
		error_from_nn(&run->error, &error);
		if (gpu && error.code == NN_EUNSUPPORTED)
			return OPEN_MISSING;
		return gpu && error.code == NN_EDEVICE ? OPEN_NO_ROOM : OPEN_FAILED;
	}
	if (!gpu && check_host(run, nn_fit_bytes(run->fit), "") != OPENED)
		return OPEN_FAILED;
	if (run->begin.iteration > 0 && nn_fit_restore(run->fit, stream->tensors, stream->ntensors,
												   run->begin.iteration, &error) != NN_OK)
	{
		error_from_nn(&run->error, &error);
		return OPEN_FAILED;
	}
	return OPENED;
}

static RunOpening
open_on(Run *run, const char *name, const TensorStream *stream)
{
	RunOpening opening = open_device(run, name);

	if (opening == OPENED)
		opening = check_trains(run, name);
	if (opening == OPENED)
		opening = open_fit(run, stream);
	if (opening != OPENED)
		close_all(run);
	return opening;
}

/* ---- auto ---------------------------------------------------------------- */

/* The CPU is taken, and a step there takes a thousand times as long. */
static void
note_no_gpu(Run *run, const char *name)
{
	BicycleNote head = { BICYCLE_NOTE_NO_GPU };
	const EngineError *error = &run->error;
	char text[sizeof(error->message) + sizeof(error->detail) + 64];

	snprintf(text, sizeof(text), "trains on the CPU, as %s cannot be had: %s.  %s", name,
			 error->message, error->detail);
	run_link_send(&run->link, BICYCLE_NOTE, &head, sizeof(head), text, strlen(text));
}

/* The GPU first, unless the job was on the CPU. */
static bool
open_any(Run *run, const TensorStream *stream)
{
	char name[BICYCLE_MAX_DEVICE];
	RunOpening opening;

	snprintf(name, sizeof(name), "cuda:%d", (int) run->engine->settings.training_card);
	if (strncmp(run->begin.platform, "cpu", 3) != 0)
	{
		opening = open_on(run, name, stream);
		if (opening == OPENED || opening == OPEN_FAILED)
			return opening == OPENED;
		if (opening == OPEN_NO_ROOM)
			note_no_gpu(run, name);
		else
			log_write(LOG_LOG, "no GPU is used: %s",
					  run->error.detail[0] != '\0' ? run->error.detail : run->error.message);
		error_clear(&run->error);
	}
	return open_on(run, "cpu", stream) == OPENED;
}

bool
run_device_open(Run *run, const TensorStream *stream)
{
	const char *device = run->engine->settings.device;

	if (strcmp(device, "auto") == 0)
		return open_any(run, stream);
	return open_on(run, device, stream) == OPENED;
}
