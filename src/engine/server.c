/*
 * server.c
 *	  The I/O thread: its epoll loop, the listening socket, completed tasks, the
 *	  device's opening, the ordered end.
 *
 * Everything here runs on the I/O thread but engine_complete, which any thread
 * may call, and device_open_run, device_set_run and device_try_run, which the
 * device thread runs.
 *
 * A GPU that is there but cannot be had when the engine opens it, because other
 * processes fill or hold it, is tried again, less and less often. Until it can
 * be had the CPU serves, if the setting is auto; then the device is replaced as
 * if the setting had changed.
 *
 * One turn of the loop: read and write what is ready, take back completed
 * tasks, move requests on (cache_run, batcher_run), write what has been queued
 * meanwhile, free what was closed. Timers need no more than a tick every
 * TICK_MS while something depends on time.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "engine/run.h"
#include "plot/plot.h"

#define TICK_MS 250
#define EVENTS 64
#define MAX_CONNECTIONS 8192
#define STOP_MS 10000 /* for what runs to end and replies to be read */
#define TRIES_MOST 16 /* times gpu_retry between two tries, in the end */

static void
completed_ready(Engine *engine, Source *source, uint32_t events)
{
	eventfd_t count;

	eventfd_read(source->fd, &count);
	executor_take_completed(engine, &engine->completions);
}

static void device_set(Engine *engine);

/* ---- The device ---------------------------------------------------------- */

/*
 * Opens what is not the CPU, and notes whether it is there but cannot be had:
 * other processes fill its memory, or hold it.
 */
static NnStatus
open_other(Engine *engine, const char *name, NnError *error)
{
	NnStatus status = nn_device_open(name, engine->device_threads, &engine->device, error);

	engine->device_short =
		strncmp(name, "cuda", 4) == 0 && (status == NN_ENOMEM || status == NN_EDEVICE);
	return status;
}

/*
 * The device of setting auto: a GPU, and without one the CPU, after a line that
 * says what is missing.
 */
static NnStatus
open_automatic(Engine *engine, NnError *error)
{
	if (open_other(engine, "cuda", error) == NN_OK)
		return NN_OK;
	snprintf(engine->device_lack, sizeof(engine->device_lack), "; %.70s", error->message);
	log_write(LOG_LOG, "no GPU is used: %s",
			  error->detail[0] != '\0' ? error->detail : error->message);
	return nn_device_open("cpu", engine->device_threads, &engine->device, error);
}

static void
device_open_run(Task *task)
{
	Engine *engine = list_member(Engine, device_job, task);
	NnError error = { 0 };
	NnStatus status;

	if (engine->device != NULL)
		nn_device_close(engine->device);
	engine->device = NULL;
	error_clear(&engine->device_error);
	engine->device_lack[0] = '\0';
	engine->device_short = false;
	if (strcmp(engine->device_wanted, "auto") == 0)
		status = open_automatic(engine, &error);
	else
		status = open_other(engine, engine->device_wanted, &error);
	if (status == NN_OK)
	{
		nn_device_watch(engine->device, executor_progress);
		nn_device_set_memory(engine->device, (size_t) engine->device_gpu_memory);
		return;
	}
	engine->device = NULL;
	error_set(&engine->device_error, "55000", "device \"%s\" is missing", engine->device_wanted);
	if (error.detail[0] != '\0')
		error_detail(&engine->device_error, "%s", error.detail);
	else
		error_detail(&engine->device_error, "The engine reported: %s.", error.message);
	if (error.hint[0] != '\0')
		error_hint(&engine->device_error, "%s", error.hint);
	else
		error_hint(&engine->device_error,
				   "Set \"bicycle.device\" to auto or cpu and reload the configuration.");
}

/*
 * What bicycle_engine() shows: "cpu (AVX2, oneDNN 2.6.3, 2 threads); no usable
 * NVIDIA driver".
 */
static void
name_device(Engine *engine)
{
	snprintf(engine->device_name, sizeof(engine->device_name), "%s%s",
			 nn_device_describe(engine->device), engine->device_lack);
}

static void
note_device_memory(Engine *engine)
{
	NnDeviceMemory memory = { 0 };

	if (engine->device != NULL)
		nn_device_memory(engine->device, &memory);
	engine->device_memory = memory.limit;
}

static void
device_open_done(Engine *engine, Task *task)
{
	engine->device_busy = false;
	note_device_memory(engine);
	cache_limit_changed(engine);
	engine->device_automatic = NN_PRECISION_FP32;
	if (engine->device != NULL)
	{
		engine->device_automatic = nn_device_automatic(engine->device);
		name_device(engine);
	}
	else
	{
		snprintf(engine->device_name, sizeof(engine->device_name), "%s (missing)",
				 engine->device_wanted);
		log_error(LOG_WARNING, "device", &engine->device_error);
	}
	if (!engine->device_opened)
	{
		engine->device_opened = true;
		if (!engine->stopping)
			engine_listen(engine);
	}
	else
		log_write(LOG_LOG, "device is now %s", engine->device_name);
	if (engine->device_short)
	{
		log_write(LOG_LOG, "the GPU cannot be had now and is tried again, in %lld seconds at first",
				  (long long) engine->settings.gpu_retry / 1000);
		engine->try_wait = engine->settings.gpu_retry;
		engine->try_ms = now_ms() + engine->try_wait;
	}
	device_set(engine);
}

static void
device_open(Engine *engine)
{
	engine->device_busy = true;
	engine->device_change = false;
	strcpy(engine->device_wanted, engine->settings.device);
	engine->device_threads = settings_threads(&engine->settings);
	engine->device_gpu_memory = engine->settings.gpu_memory;
	engine->device_job.run = device_open_run;
	engine->device_job.done = device_open_done;
	executor_submit(&engine->device_thread, &engine->device_job, false);
}

/*
 * Nothing is started and nothing loads: models go, then the device is opened
 * anew. Freed models and the opening are tasks of one thread, in this order.
 */
void
device_replace(Engine *engine)
{
	cache_clear(engine);
	device_open(engine);
}

static void
device_set_run(Task *task)
{
	Engine *engine = list_member(Engine, settings_job, task);

	if (engine->device == NULL)
		return;
	nn_device_set_threads(engine->device, engine->device_threads);
	nn_device_set_memory(engine->device, (size_t) engine->device_gpu_memory);
}

static void
device_set_done(Engine *engine, Task *task)
{
	engine->settings_busy = false;
	if (engine->device != NULL && !engine->device_busy)
	{
		name_device(engine);
		note_device_memory(engine);
		cache_limit_changed(engine);
	}
	device_set(engine);
}

/*
 * Gives the device the number of threads and the limit of memory of the
 * settings; if it is being given some, afterwards.
 */
static void
device_set(Engine *engine)
{
	int threads = settings_threads(&engine->settings);

	if (engine->settings_busy || engine->device_busy ||
		(engine->device_threads == threads &&
		 engine->device_gpu_memory == engine->settings.gpu_memory))
		return;
	engine->settings_busy = true;
	engine->device_threads = threads;
	engine->device_gpu_memory = engine->settings.gpu_memory;
	engine->settings_job.run = device_set_run;
	engine->settings_job.done = device_set_done;
	executor_submit(&engine->device_thread, &engine->settings_job, true);
}

/* A setting has changed after "go". */
void
engine_changed(Engine *engine, const char *setting)
{
	if (engine->run != NULL)
		return; /* a run keeps what it has begun with */
	budget_limits(engine);
	if (strcmp(setting, "device") == 0)
		engine->device_change = true;
	else if (strcmp(setting, "threads") == 0)
		executor_resize(&engine->pool, settings_threads(&engine->settings));
	device_set(engine);
	cache_trim(engine);
	queue_admit(engine);
	memory_admit(engine);
}

/* ---- A GPU that comes later ---------------------------------------------- */

/*
 * Whether it can be had now: it is opened and closed again, while what serves
 * meanwhile stays.
 */
static void
device_try_run(Task *task)
{
	Engine *engine = list_member(Engine, try_job, task);
	NnDevice *device;
	NnError ignored;

	engine->device_found =
		nn_device_open(strcmp(engine->device_wanted, "auto") == 0 ? "cuda" : engine->device_wanted,
					   1, &device, &ignored) == NN_OK;
	if (engine->device_found)
		nn_device_close(device);
}

/* The device is replaced as if the setting had changed, when all is quiet. */
static void
device_try_done(Engine *engine, Task *task)
{
	engine->trying = false;
	engine->try_ms = now_ms() + engine->try_wait;
	if (engine->try_wait < TRIES_MOST * engine->settings.gpu_retry)
		engine->try_wait *= 2;
	if (engine->device_found)
		engine->device_change = true;
}

static void
device_try(Engine *engine, int64_t now)
{
	if (engine->device_busy || !engine->device_short || engine->trying || engine->device_change ||
		engine->stopping || now < engine->try_ms)
		return;
	engine->trying = true;
	engine->try_job.run = device_try_run;
	engine->try_job.done = device_try_done;
	executor_submit(&engine->device_thread, &engine->try_job, false);
}

/* ---- Listening ----------------------------------------------------------- */

static void
listener_ready(Engine *engine, Source *source, uint32_t events)
{
	for (int i = 0; i < EVENTS; i++)
	{
		int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (fd < 0)
		{
			if (errno != EAGAIN)
			{
				if (!engine->accept_failed)
					log_write(LOG_WARNING,
							  "could not accept a connection, and will go on trying: %s",
							  strerror(errno));
				engine->accept_failed = true;
				engine->accept_paused = true;
				source_watch(engine, source, 0);
			}
			return;
		}
		engine->accept_failed = false;
		if (engine->nconnections >= MAX_CONNECTIONS)
			close(fd);
		else
			connection_accept(engine, fd);
	}
}

/*
 * Takes bicycle.lock, which says that this data directory's socket is ours:
 * only its holder may unlink one that an earlier engine left. The file stays;
 * the lock goes with the process.
 */
static void
take_lock(Engine *engine)
{
	engine->lock_fd = open(BICYCLE_LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (engine->lock_fd < 0)
		engine_fatal(engine, "could not open \"%s\": %s", BICYCLE_LOCK, strerror(errno));
	if (flock(engine->lock_fd, LOCK_EX | LOCK_NB) != 0)
		engine_fatal(engine, "could not lock \"%s\", another engine may be running: %s",
					 BICYCLE_LOCK, strerror(errno));
}

void
engine_listen(Engine *engine)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = BICYCLE_SOCKET };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t mask = umask(0177);

	if (fd < 0)
		engine_fatal(engine, "could not create a socket: %s", strerror(errno));
	unlink(BICYCLE_SOCKET);
	if (bind(fd, (struct sockaddr *) &address, sizeof(address)) != 0 || listen(fd, 512) != 0)
		engine_fatal(engine, "could not listen on \"%s\": %s", BICYCLE_SOCKET, strerror(errno));
	umask(mask);
	if (!source_add(engine, &engine->listener, fd, EPOLLIN, listener_ready))
		engine_fatal(engine, "could not watch a socket: %s", strerror(errno));
	engine->listening = true;
	log_write(LOG_DEBUG, "listening, device %s", engine->device_name);
	control_say(engine, "ready %s", engine->device_name);
}

static void
stop_listening(Engine *engine)
{
	if (!engine->listening)
		return;
	engine->listening = false;
	unlink(BICYCLE_SOCKET);
	source_remove(engine, &engine->listener);
	close(engine->listener.fd);
}

/* ---- Beginning and end --------------------------------------------------- */

static void
signals_ready(Engine *engine, Source *source, uint32_t events)
{
	struct signalfd_siginfo info;

	while (read(source->fd, &info, sizeof(info)) == sizeof(info))
		engine_stop(engine, 0);
}

/* Makes the descriptors and lists; the settings are still to come. */
bool
engine_init(Engine *engine)
{
	sigset_t stop;
	int signals, completions;

	memset(engine, 0, sizeof(*engine));
	settings_default(&engine->settings);
	engine->started_ms = now_ms();
	engine->lock_fd = -1;
	engine->control.source.fd = -1;
	pthread_mutex_init(&engine->completions.lock, NULL);
	pthread_mutex_init(&engine->decoders.lock, NULL);
	pthread_cond_init(&engine->decoders.wake, NULL);
	list_init(&engine->connections);
	list_init(&engine->timed);
	list_init(&engine->dirty);
	list_init(&engine->dead);
	for (int i = 0; i < REQUEST_CLASSES; i++)
		list_init(&engine->ring[i]);
	list_init(&engine->ready);
	list_init(&engine->held);
	list_init(&engine->entries);
	list_init(&engine->models);
	list_init(&engine->loads);
	list_init(&engine->queue_waiting);
	list_init(&engine->memory_waiting);
	engine->go = engine_go;

	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGINT);
	signals = signalfd(-1, &stop, SFD_NONBLOCK | SFD_CLOEXEC);
	completions = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	engine->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (signals < 0 || completions < 0 || engine->epoll < 0)
		return false;
	engine->completions.fd = completions;
	log_start(completions);
	return source_add(engine, &engine->signals, signals, EPOLLIN, signals_ready) &&
		   source_add(engine, &engine->completed, completions, EPOLLIN, completed_ready);
}

void
engine_go(Engine *engine)
{
	take_lock(engine);
	budget_limits(engine);
	if (!executor_start(&engine->pool, &engine->completions, "pool",
						settings_threads(&engine->settings)) ||
		!executor_start(&engine->device_thread, &engine->completions, "device", 1) ||
		!executor_start(&engine->loader, &engine->completions, "loader", 1))
		engine_fatal(engine, "could not start threads");
	device_open(engine);
}

/*
 * Ordered end: what has started ends and is answered; what has not is cut, and
 * its clients try again with the next engine.
 */
void
engine_stop(Engine *engine, int exit_code)
{
	if (engine->stopping)
		return;
	engine->stopping = true;
	engine->stop_ms = now_ms();
	engine->exit_code = exit_code;
	stop_listening(engine);
}

/*
 * What the device was given last has no result and gets no answer: its clients
 * see the connection end, as when the engine crashes, and send it to the next
 * engine, alone, once.
 */
void
device_lost(Engine *engine, const EngineError *error)
{
	log_error(LOG_ERROR, "the device failed and its state is not to be trusted: the engine ends",
			  error);
	engine_stop(engine, 1);
}

/* True if the engine is to end, and may. */
static bool
is_finished(Engine *engine)
{
	bool late;

	if (!engine->stopping)
		return false;
	late = now_ms() - engine->stop_ms > STOP_MS;
	if (engine->nstarted > 0 || engine->loader.pending > 0 || engine->device_thread.pending > 0)
	{
		if (late)
		{
			log_write(LOG_WARNING, "the engine ends although some of its work has not");
			control_flush(engine);
			_exit(1); /* a thread may hang: it cannot be joined */
		}
		return false;
	}
	if (late)
		return true;
	list_foreach(node, &engine->connections) if (!list_empty(&list_member(Connection, link, node)
																  ->out)) return false;
	return true;
}

static bool
needs_tick(Engine *engine)
{
	if (engine->stopping || engine->accept_paused ||
		(!engine->device_busy && engine->device_short) || !list_empty(&engine->loads) ||
		!list_empty(&engine->timed))
		return true;
	list_foreach(node, &engine->entries) if (!list_empty(&list_member(CacheEntry, link, node)
															  ->waiters)) return true;
	return false;
}

static void
tick(Engine *engine)
{
	int64_t now = now_ms();

	list_foreach(node, &engine->timed) connection_tick(list_member(Connection, timed, node), now);
	cache_tick(engine, now);
	device_try(engine, now);
	if (engine->accept_paused && engine->listening)
	{
		engine->accept_paused = false;
		source_watch(engine, &engine->listener, EPOLLIN);
	}
}

/*
 * Writes what was queued in this turn and frees what was closed in it; both can
 * start new work, so it may take some rounds.
 */
static void
settle(Engine *engine)
{
	do
	{
		cache_run(engine);
		batcher_run(engine);
		while (!list_empty(&engine->dirty))
		{
			Connection *connection = list_member(Connection, dirty, engine->dirty.next);

			list_remove(&connection->dirty);
			connection_flush(connection);
		}
		while (!list_empty(&engine->dead))
			connection_free(list_member(Connection, link, engine->dead.next));
	} while (!list_empty(&engine->dirty));
	control_flush(engine);
}

void
engine_loop(Engine *engine)
{
	int64_t ticked = now_ms();

	settle(engine);
	while (!is_finished(engine))
	{
		struct epoll_event events[EVENTS];
		int n = epoll_wait(engine->epoll, events, EVENTS, needs_tick(engine) ? TICK_MS : -1);

		if (n < 0 && errno != EINTR)
			engine_fatal(engine, "could not wait for events: %s", strerror(errno));
		for (int i = 0; i < n; i++)
		{
			Source *source = events[i].data.ptr;

			source->ready(engine, source, events[i].events);
		}
		if (now_ms() - ticked >= TICK_MS)
		{
			ticked = now_ms();
			tick(engine);
		}
		settle(engine);
	}
}

/* After the loop has ended in order. */
void
engine_free(Engine *engine)
{
	stop_listening(engine);
	list_foreach(node, &engine->connections) connection_close(list_member(Connection, link, node));
	while (!list_empty(&engine->dead))
		connection_free(list_member(Connection, link, engine->dead.next));
	executor_stop(&engine->pool);
	executor_stop(&engine->loader);
	executor_stop(&engine->device_thread);
	executor_take_completed(engine, &engine->completions);
	cache_free(engine);
	if (engine->device != NULL)
		nn_device_close(engine->device);
	plot_forget();
	control_close(engine);
	log_start(-1);
	close(engine->completed.fd);
	close(engine->signals.fd);
	close(engine->epoll);
	if (engine->lock_fd >= 0)
		close(engine->lock_fd);
	pthread_mutex_destroy(&engine->completions.lock);
	pthread_mutex_destroy(&engine->decoders.lock);
	pthread_cond_destroy(&engine->decoders.wake);
}

/* ---- Status -------------------------------------------------------------- */

void
engine_status(Connection *connection, uint64_t id)
{
	Engine *engine = connection->engine;
	BicycleStatus status;
	NnDeviceMemory gpu;

	memset(&status, 0, sizeof(status));
	status.pid = getpid();
	status.protocol = BICYCLE_PROTOCOL;
	snprintf(status.device, sizeof(status.device), "%s", engine->device_name);
	snprintf(status.precision, sizeof(status.precision), "%s",
			 nn_precision_name(cache_precision(engine, NN_PRECISION_AUTO, NULL)));
	status.uptime_ms = (uint64_t) (now_ms() - engine->started_ms);
	status.requests = engine->requests_done;
	status.batches = engine->batches;
	status.batched = engine->batched;
	status.queued = engine->nrequests;
	status.memory = engine->memory.used + engine->queue.used + decode_used(&engine->decoders);
	if (!engine->device_busy && engine->device != NULL && nn_device_memory(engine->device, &gpu))
	{
		status.gpu_memory = gpu.used;
		status.gpu_memory_limit = gpu.limit;
	}
	connection_send(connection, BICYCLE_RESULT, id, &status, sizeof(status), true, NULL);
}
