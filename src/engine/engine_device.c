/*
 * engine_device.c
 *	  The device that the engine computes on: opening, replacing, trying again.
 *
 * I/O thread, but for open_run, set_run, try_run and trim_run on the device
 * thread.
 * Nobody else uses `nn` until open_run has come back.
 *
 * R1 Without a usable GPU the setting auto is the CPU, after a line that says
 *    what is missing.
 * R2 A GPU that is there but cannot be had when the engine opens it, because
 *    other processes fill or hold it, is tried again, less and less often.
 *    Until it can be had the CPU serves, if the setting is auto.
 * R3 A device is replaced when all is quiet: nothing is started or waits to run
 *    alone, which has its model pinned, nothing loads, nothing is being freed.
 *    Models go first. Freed models and the opening are tasks of one thread, in
 *    this order.
 * R4 To open a GPU may take minutes, as a driver that compiles kernels does,
 *    and nothing is heard of it meanwhile. It is taken to hang after
 *    DEVICE_OPEN_MS only, and until the engine first listens the supervisor is
 *    told each second.
 */
#include <stdio.h>
#include <string.h>

#include "engine/engine.h"

#define TRIES_MOST 16 /* times gpu_retry between two tries, in the end */
#define SAY_MS 1000

/* ---- Opening ------------------------------------------------------------- */

/* `lacking`: other processes fill its memory, or hold it. */
static NnStatus
open_other(EngineDevice *device, const char *name, NnError *error)
{
	NnStatus status = nn_device_open(name, device->threads, &device->nn, error);

	device->lacking =
		strncmp(name, "cuda", 4) == 0 && (status == NN_ENOMEM || status == NN_EDEVICE);
	return status;
}

static NnStatus
open_automatic(EngineDevice *device, NnError *error)
{
	if (open_other(device, "cuda", error) == NN_OK)
		return NN_OK;
	snprintf(device->lack, sizeof(device->lack), "; %.70s", error->message);
	log_write(LOG_LOG, "no GPU is used: %s",
			  error->detail[0] != '\0' ? error->detail : error->message);
	return nn_device_open("cpu", device->threads, &device->nn, error);
}

static void
open_run(Task *task)
{
	EngineDevice *device = list_member(EngineDevice, open_task, task);
	NnError error = { 0 };
	NnStatus status;

	slab_close(&device->slabs);
	if (device->nn != NULL)
		nn_device_close(device->nn);
	device->nn = NULL;
	error_clear(&device->error);
	device->lack[0] = '\0';
	device->lacking = false;
	executor_takes(DEVICE_OPEN_MS);
	if (strcmp(device->wanted, "auto") == 0)
		status = open_automatic(device, &error);
	else
		status = open_other(device, device->wanted, &error);
	device->gpus = strncmp(device->wanted, "cuda", 4) == 0 ? nn_gpu_count() : 0;
	executor_progress();
	if (status == NN_OK)
	{
		nn_device_watch(device->nn, executor_progress);
		nn_device_set_memory(device->nn, (size_t) device->gpu_memory);
		slab_open(&device->slabs, device->nn);
		return;
	}
	device->nn = NULL;
	error_set(&device->error, "55000", "device \"%s\" is missing", device->wanted);
	if (error.detail[0] != '\0')
		error_detail(&device->error, "%s", error.detail);
	else
		error_detail(&device->error, "The engine reported: %s.", error.message);
	if (error.hint[0] != '\0')
		error_hint(&device->error, "%s", error.hint);
	else
		error_hint(&device->error,
				   "Set \"bicycle.device\" to auto or cpu and reload the configuration.");
}

/* "cpu (AVX2, arithmetic 2, 2 threads); no usable NVIDIA driver" */
static void
name_device(EngineDevice *device)
{
	snprintf(device->name, sizeof(device->name), "%s%s", nn_device_describe(device->nn),
			 device->lack);
}

static void
note_memory(EngineDevice *device)
{
	NnDeviceMemory memory = { 0 };

	if (device->nn != NULL)
		nn_device_memory(device->nn, &memory);
	device->memory = memory.limit;
	device->batches = device->nn != NULL && nn_device_overlaps(device->nn) ? EXECUTOR_OPEN : 1;
	device->changed = true;
}

static void
device_opened(Engine *engine, Task *task)
{
	EngineDevice *device = &engine->device;

	device->busy = false;
	note_memory(device);
	device->automatic = NN_PRECISION_FP32;
	if (device->nn != NULL)
	{
		device->automatic = nn_device_automatic(device->nn);
		name_device(device);
	}
	else
	{
		snprintf(device->name, sizeof(device->name), "%s (missing)", device->wanted);
		log_error(LOG_WARNING, "device", &device->error);
	}
	if (device->opened)
		log_write(LOG_LOG, "device is now %s", device->name);
	device->opened = true;
	control_say(engine, "device %d %d %s", device->nn != NULL, device->gpus, device->name);
	if (device->lacking)
	{
		log_write(LOG_LOG, "the GPU cannot be had now and is tried again, in %lld seconds at first",
				  (long long) engine->settings.gpu_retry / 1000);
		device->try_wait = engine->settings.gpu_retry;
		device->try_ms = now_ms() + device->try_wait;
	}
	device_set(engine);
}

void
device_open(Engine *engine)
{
	EngineDevice *device = &engine->device;

	device->busy = true;
	device->change = false;
	strcpy(device->wanted, engine->settings.device);
	device->threads = settings_threads(&engine->settings);
	device->gpu_memory = engine->settings.gpu_memory;
	device->open_task.run = open_run;
	device->open_task.done = device_opened;
	executor_submit(&engine->device_thread, &device->open_task, TASK_SECOND);
}

void
device_change(Engine *engine)
{
	engine->device.change = true;
	engine->again = true;
}

bool
device_is_due(const Engine *engine)
{
	const EngineDevice *device = &engine->device;

	return device->change && !device->busy && !device->setting && !device->trying &&
		   !device->trimming && engine->nstarted == 0 && engine->alone == NULL &&
		   engine->loader.pending == 0 && !engine->preparing && engine->freeing == 0;
}

bool
device_is_missing(const Engine *engine)
{
	return !engine->device.busy && engine->device.nn == NULL;
}

void
device_lost(Engine *engine, const EngineError *error)
{
	log_error(LOG_ERROR, "the device failed and its state is not to be trusted: the engine ends",
			  error);
	engine->device.lost = true;
}

void
device_close(Engine *engine)
{
	slab_close(&engine->device.slabs);
	if (engine->device.nn != NULL)
		nn_device_close(engine->device.nn);
	engine->device.nn = NULL;
}

/* ---- Settings ------------------------------------------------------------ */

static void
set_run(Task *task)
{
	EngineDevice *device = list_member(EngineDevice, set_task, task);

	if (device->nn == NULL)
		return;
	nn_device_set_threads(device->nn, device->threads);
	nn_device_set_memory(device->nn, (size_t) device->gpu_memory);
}

static void
set_done(Engine *engine, Task *task)
{
	EngineDevice *device = &engine->device;

	device->setting = false;
	if (device->nn != NULL && !device->busy)
	{
		name_device(device);
		note_memory(device);
	}
	device_set(engine);
}

/* If it is being given some, the others follow. */
void
device_set(Engine *engine)
{
	EngineDevice *device = &engine->device;
	int threads = settings_threads(&engine->settings);

	if (device->setting || device->busy ||
		(device->threads == threads && device->gpu_memory == engine->settings.gpu_memory))
		return;
	device->setting = true;
	device->threads = threads;
	device->gpu_memory = engine->settings.gpu_memory;
	device->set_task.run = set_run;
	device->set_task.done = set_done;
	executor_submit(&engine->device_thread, &device->set_task, TASK_FIRST);
}

/* ---- Memory for images --------------------------------------------------- */

static void
trim_run(Task *task)
{
	slab_trim(&list_member(EngineDevice, trim_task, task)->slabs);
}

static void
trim_done(Engine *engine, Task *task)
{
	engine->device.trimming = false;
	engine->again = true;
}

void
device_trim(Engine *engine)
{
	EngineDevice *device = &engine->device;

	if (device->trimming || device->busy)
		return;
	device->trimming = true;
	device->trim_task.run = trim_run;
	device->trim_task.done = trim_done;
	executor_submit(&engine->device_thread, &device->trim_task, TASK_FIRST);
}

/* ---- What is only kept --------------------------------------------------- */

static void
give_back_run(Task *task)
{
	EngineDevice *device = list_member(EngineDevice, back_task, task);

	if (device->nn != NULL)
		nn_device_trim(device->nn);
}

static void
give_back_done(Engine *engine, Task *task)
{
	EngineDevice *device = &engine->device;

	device->giving_back = false;
	if (device->back_again)
		device_give_back(engine);
}

void
device_give_back(Engine *engine)
{
	EngineDevice *device = &engine->device;

	device->back_again = device->giving_back;
	device->back_ms = 0;
	if (device->giving_back || device->memory == 0)
		return;
	device->giving_back = true;
	device->back_task.run = give_back_run;
	device->back_task.done = give_back_done;
	executor_submit(&engine->device_thread, &device->back_task, TASK_FIRST);
}

static bool
has_worked(const Engine *engine)
{
	return engine->device.memory > 0 && engine->computed + engine->freed != engine->device.work;
}

/* Some time after the last work. */
static void
give_back_idle(Engine *engine, int64_t now)
{
	EngineDevice *device = &engine->device;

	if (has_worked(engine))
	{
		device->work = engine->computed + engine->freed;
		device->back_ms = now + engine->settings.gpu_trim;
	}
	else if (device->back_ms != 0 && now >= device->back_ms)
		device_give_back(engine);
}

/* ---- A sign of life ------------------------------------------------------ */

static bool
is_opening_first(const Engine *engine)
{
	return engine->device.busy && !engine->device.opened && !engine->stopping;
}

static void
say_opening(Engine *engine, int64_t now)
{
	EngineDevice *device = &engine->device;

	if (!is_opening_first(engine) || now < device->say_ms)
		return;
	control_say(engine, "opening");
	device->say_ms = now + SAY_MS;
}

/* ---- A GPU that comes later ---------------------------------------------- */

/* Opens it and closes it again; what serves meanwhile stays. */
static void
try_run(Task *task)
{
	EngineDevice *device = list_member(EngineDevice, try_task, task);
	const char *name = strcmp(device->wanted, "auto") == 0 ? "cuda" : device->wanted;
	NnDevice *nn;
	NnError ignored;

	executor_takes(DEVICE_OPEN_MS);
	device->found = nn_device_open(name, 1, &nn, &ignored) == NN_OK;
	if (device->found)
		nn_device_close(nn);
}

/* The device is replaced as if the setting had changed. */
static void
try_done(Engine *engine, Task *task)
{
	EngineDevice *device = &engine->device;

	device->trying = false;
	device->try_ms = now_ms() + device->try_wait;
	if (device->try_wait < TRIES_MOST * engine->settings.gpu_retry)
		device->try_wait *= 2;
	if (device->found)
		device_change(engine);
}

void
device_tick(Engine *engine, int64_t now)
{
	EngineDevice *device = &engine->device;

	say_opening(engine, now);
	give_back_idle(engine, now);
	if (device->busy || !device->lacking || device->trying || device->change || engine->stopping ||
		now < device->try_ms)
		return;
	device->trying = true;
	device->try_task.run = try_run;
	device->try_task.done = try_done;
	executor_submit(&engine->device_thread, &device->try_task, TASK_SECOND);
}

bool
device_needs_tick(const Engine *engine)
{
	return is_opening_first(engine) || engine->device.back_ms != 0 || has_worked(engine) ||
		   (!engine->device.busy && engine->device.lacking);
}
