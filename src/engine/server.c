/*
 * server.c
 *	  The I/O thread: its epoll loop, the listening socket, the ordered end.
 *
 * I/O thread only.
 *
 * R1 One turn of the loop: read and write what is ready, take back completed
 *    tasks, then settle: decide what follows, write what has been queued
 *    meanwhile, free what was closed.
 * R2 What is called while events are taken only moves requests to a state or
 *    marks what came free. Decisions are made in settle alone, in the order
 *    that stands there. There are two exceptions: what asks for memory gets it
 *    at once if it is free (admission.c), and for a batch that came back for
 *    room models go at once (batch_done).
 * R3 Timers need no more than a tick every TICK_MS while something depends on
 *    time.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/engine.h"
#include "plot/plot.h"

#define TICK_MS 250
#define ACCEPTS_A_TURN 64
#define MAX_CONNECTIONS 8192
#define STOP_MS 10000 /* for what runs to end and replies to be read */

static void
completed_ready(Engine *engine, Source *source, uint32_t events)
{
	eventfd_t count;

	eventfd_read(source->fd, &count);
	executor_take_completed(engine, &engine->completions);
}

void
engine_changed(Engine *engine, const char *setting)
{
	if (engine->run != NULL)
		return; /* a run keeps what it has begun with */
	budget_limits(engine);
	if (strcmp(setting, "debug_device_fault") == 0 || strcmp(setting, "debug") == 0)
		settings_set_fault(&engine->settings, false);
	if (strcmp(setting, "device") == 0)
		device_change(engine);
	else if (strcmp(setting, "threads") == 0 || strcmp(setting, "engines") == 0)
		executor_resize(&engine->pool, settings_threads(&engine->settings));
	device_set(engine);
	engine->trim = true;
}

/* ---- Listening ----------------------------------------------------------- */

static void
listener_ready(Engine *engine, Source *source, uint32_t events)
{
	for (int i = 0; i < ACCEPTS_A_TURN; i++)
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
 * Takes bicycle.lock, or that of an engine's number, which says that the socket
 * of that name is ours: only its holder may unlink one that an earlier engine
 * left. The file stays; the lock goes with the process.
 */
static void
take_lock(Engine *engine)
{
	char name[BICYCLE_ENGINE_FILE];

	bicycle_engine_file(name, (int) engine->settings.number, "lock");
	engine->lock_fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (engine->lock_fd < 0)
		engine_fatal(engine, "could not open \"%s\": %s", name, strerror(errno));
	if (flock(engine->lock_fd, LOCK_EX | LOCK_NB) != 0)
		engine_fatal(engine, "could not lock \"%s\", another engine may be running: %s", name,
					 strerror(errno));
	bicycle_engine_file(engine->socket_name, (int) engine->settings.number, "sock");
}

static void
engine_listen(Engine *engine)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t mask = umask(0177);

	if (fd < 0)
		engine_fatal(engine, "could not create a socket: %s", strerror(errno));
	strcpy(address.sun_path, engine->socket_name);
	unlink(engine->socket_name);
	if (bind(fd, (struct sockaddr *) &address, sizeof(address)) != 0 || listen(fd, 512) != 0)
		engine_fatal(engine, "could not listen on \"%s\": %s", engine->socket_name,
					 strerror(errno));
	umask(mask);
	if (!source_add(engine, &engine->listener, fd, EPOLLIN, listener_ready))
		engine_fatal(engine, "could not watch a socket: %s", strerror(errno));
	engine->listening = true;
	log_write(LOG_DEBUG, "listening, device %s", engine->device.name);
	control_say(engine, "ready %s", engine->device.name);
}

static void
stop_listening(Engine *engine)
{
	if (!engine->listening)
		return;
	engine->listening = false;
	unlink(engine->socket_name);
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

bool
engine_init(Engine *engine)
{
	List *lists[] = { &engine->connections, &engine->timed,    &engine->dirty,
					  &engine->dead,        &engine->requests, &engine->queue_waiting,
					  &engine->sized,       &engine->ready,    &engine->memory_waiting,
					  &engine->loads,       &engine->held,     &engine->written,
					  &engine->entries,     &engine->models,   &engine->leaving,
					  &engine->batches };
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
	slab_init(&engine->device.slabs);
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		list_init(lists[i]);
	for (int i = 0; i < REQUEST_CLASSES; i++)
		list_init(&engine->ring[i]);
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
	settings_set_fault(&engine->settings, false);
	if (!executor_start(&engine->pool, &engine->completions, "pool",
						settings_threads(&engine->settings)) ||
		!executor_start(&engine->device_thread, &engine->completions, "device", 1) ||
		!executor_start(&engine->loader, &engine->completions, "loader", 1))
		engine_fatal(engine, "could not start threads");
	device_open(engine);
}

void
engine_stop(Engine *engine, int exit_code)
{
	if (engine->stopping)
		return;
	engine->stopping = true;
	engine->stop_ms = now_ms();
	engine->exit_code = exit_code;
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
	if (engine->stopping || engine->accept_paused || device_needs_tick(engine) ||
		!list_empty(&engine->loads) || !list_empty(&engine->timed) ||
		!list_empty(&engine->memory_waiting) || !list_empty(&engine->sized) ||
		!list_empty(&engine->ready))
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
	demand_tick(engine, now);
	device_tick(engine, now);
	engine->memory.changed = true; /* whose turn has come to go: room.c, R2 */
	if (engine->accept_paused && engine->listening)
	{
		engine->accept_paused = false;
		source_watch(engine, &engine->listener, EPOLLIN);
	}
}

/* What the device has marked since it was looked at. */
static void
notice_device(Engine *engine)
{
	EngineDevice *device = &engine->device;

	if (device->lost)
		engine_stop(engine, 1);
	if (device->changed)
	{
		device->changed = false;
		room_limit_changed(engine);
	}
	if (engine->stopping)
		stop_listening(engine);
	else if (device->opened && !engine->listening)
		engine_listen(engine);
	if (device_is_due(engine))
	{
		room_clear(engine);
		device_open(engine);
	}
}

/* Frees what was closed in this turn, and requests that have been answered. */
static void
free_closed(Engine *engine)
{
	while (!list_empty(&engine->dead))
		connection_free(list_member(Connection, link, engine->dead.next));
	request_free_written(engine);
}

static void
flush_dirty(Engine *engine)
{
	while (!list_empty(&engine->dirty))
	{
		Connection *connection = list_member(Connection, dirty, engine->dirty.next);

		list_remove(&connection->dirty);
		connection_flush(connection);
	}
}

/*
 * All decisions of a turn, in a fixed order. Whoever frees something or brings
 * something only marks it; what is marked on the way is decided in another
 * round. A round moves requests on or frees something, so they end.
 */
static void
settle(Engine *engine)
{
	do
	{
		engine->again = false;
		notice_device(engine);
		room_run(engine);
		room_pinned(engine);
		admission_run(engine);
		demand_run(engine);
		flush_dirty(engine); /* answers, before something starts that may kill the engine */
		batcher_run(engine);
		load_next(engine);
		loader_run(engine);
		flush_dirty(engine);
		free_closed(engine);
	} while (engine->again || engine->queue.changed || engine->memory.changed ||
			 !list_empty(&engine->dirty) || device_is_due(engine));
	busy_run(engine);
	if (invariant_checking())
		engine_check(engine);
	control_flush(engine);
}

/* ms until something is to be done, whatever comes; -1: nothing is. */
static int
next_turn(Engine *engine)
{
	int tick = needs_tick(engine) ? TICK_MS : -1, busy = busy_wait_ms(engine);

	return tick < 0 || (busy >= 0 && busy < tick) ? busy : tick;
}

void
engine_loop(Engine *engine)
{
	int64_t ticked = now_ms();

	settle(engine);
	while (!is_finished(engine))
	{
		if (!source_wait(engine, next_turn(engine)))
			engine_fatal(engine, "could not wait for events: %s", strerror(errno));
		if (now_ms() - ticked >= TICK_MS)
		{
			ticked = now_ms();
			tick(engine);
		}
		settle(engine);
	}
}

void
engine_free(Engine *engine)
{
	stop_listening(engine);
	list_foreach(node, &engine->connections) connection_close(list_member(Connection, link, node));
	free_closed(engine);
	executor_stop(&engine->pool);
	executor_stop(&engine->loader);
	executor_stop(&engine->device_thread);
	executor_take_completed(engine, &engine->completions);
	request_free_written(engine);
	cache_free(engine);
	device_close(engine);
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
