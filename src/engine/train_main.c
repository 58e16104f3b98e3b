/*
 * train_main.c
 *	  bicycle-engine --train: the I/O thread of a training engine, from its
 *	  first frame to its end.
 *
 * It is started by a trainer for one run of one job, and serves nobody else:
 * descriptor 3 is its control socket as an engine's is (control.c), descriptor
 * 4 carries what train_protocol.h describes. It binds no socket, takes no lock,
 * and lets everything else on the machine go first. EOF on either descriptor
 * ends it; "stop" ends it after the iteration that runs.
 *
 * This thread owns the state and moves it along: TRAIN_BEGIN, pairs, opening,
 * RUN, end. The first error ends the run; it is reported, and what the trainer
 * still sends is thrown away until it goes.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/train.h"

#define MAX_OPTIONS (32 * 1024) /* bytes of JSON */
#define STOP_MS 30000           /* for the iteration that runs */
#define TICK_MS 250
#define EVENTS 16

/* ---- What may come ------------------------------------------------------- */

static bool handle_begin(Train *train, const BicycleFrame *frame, EngineError *error);
static bool handle_data(Train *train, const BicycleFrame *frame, EngineError *error);
static bool handle_end(Train *train, const BicycleFrame *frame, EngineError *error);
static bool handle_pair(Train *train, const BicycleFrame *frame, EngineError *error);
static bool handle_pairs_end(Train *train, const BicycleFrame *frame, EngineError *error);
static bool handle_run(Train *train, const BicycleFrame *frame, EngineError *error);
static bool handle_order(Train *train, const BicycleFrame *frame, EngineError *error);

/* Every frame a trainer may send, and when. */
static const struct TrainRule
{
	uint32_t type;
	TrainState first, last; /* states it is for */
	size_t min, max;
	bool (*handle)(Train *train, const BicycleFrame *frame, EngineError *error);
} rules[] = {
	{ BICYCLE_TRAIN_BEGIN, TRAIN_WAITING, TRAIN_WAITING, sizeof(BicycleTrainBegin),
	  sizeof(BicycleTrainBegin) + 2 * MAX_OPTIONS, handle_begin },
	{ BICYCLE_DATA, TRAIN_STREAM, TRAIN_STREAM, 0, BICYCLE_MAX_FRAME, handle_data },
	{ BICYCLE_END, TRAIN_STREAM, TRAIN_STREAM, 0, 0, handle_end },
	{ BICYCLE_PAIR, TRAIN_PAIRS, TRAIN_PAIRS, sizeof(BicyclePair), UINT32_MAX, handle_pair },
	{ BICYCLE_PAIRS_END, TRAIN_PAIRS, TRAIN_PAIRS, 0, 0, handle_pairs_end },
	{ BICYCLE_RUN, TRAIN_READY, TRAIN_READY, 0, 0, handle_run },
	{ BICYCLE_CHECKPOINT_NOW, TRAIN_READY, TRAIN_RUNNING, 0, 0, handle_order },
	{ BICYCLE_PAUSE, TRAIN_READY, TRAIN_RUNNING, 0, 0, handle_order },
};

static const struct TrainRule *
rule_of(uint32_t type)
{
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (rules[i].type == type)
			return &rules[i];
	return NULL;
}

static bool __attribute__((format(printf, 2, 3)))
protocol_error(EngineError *error, const char *detail, ...)
{
	va_list args;

	error_set(error, "08P01", "training engine was sent something it does not understand");
	va_start(args, detail);
	vsnprintf(error->detail, sizeof(error->detail), detail, args);
	va_end(args);
	return false;
}

/*
 * The header of a frame has come: whether it may, and where its body goes
 * (NULL: into memory of its own).
 */
bool
train_frame_begins(Train *train, const BicycleFrame *frame, uint8_t **body, EngineError *error)
{
	const struct TrainRule *rule = rule_of(frame->type);

	*body = NULL;
	if (rule == NULL || frame->id != 0 || frame->length < rule->min || frame->length > rule->max)
		return protocol_error(error, "A frame of type %u, id %llu and %u bytes came.", frame->type,
							  (unsigned long long) frame->id, frame->length);
	if (train->state < rule->first || train->state > rule->last)
		return protocol_error(error, "A frame of type %u came out of turn.", frame->type);
	if (frame->type == BICYCLE_PAIR)
		return data_check_room(&train->data, frame->length, error);
	if (frame->type == BICYCLE_DATA)
	{
		if (frame->length > train->begin.stream_length - train->stream_have)
			return protocol_error(error, "A stream of %llu bytes was announced and more came.",
								  (unsigned long long) train->begin.stream_length);
		*body = train->stream + train->stream_have;
	}
	return true;
}

/* A frame is whole; its body is in train->link.body. */
bool
train_frame(Train *train, const BicycleFrame *frame, EngineError *error)
{
	return rule_of(frame->type)->handle(train, frame, error);
}

/* Ends the loop after the iteration that runs. */
static void
order_stop(Train *train)
{
	feed_stop(&train->feed);
	pthread_mutex_lock(&train->lock);
	train->stop_wanted = true;
	pthread_cond_broadcast(&train->wake);
	pthread_mutex_unlock(&train->lock);
}

/* The run cannot go on.  Called once: in TRAIN_ENDED nothing can fail. */
void
train_fail(Train *train, const EngineError *error)
{
	train->state = TRAIN_ENDED;
	order_stop(train);
	link_send_error(train, error);
}

/* ---- The beginning of a run ---------------------------------------------- */

static bool
handle_begin(Train *train, const BicycleFrame *frame, EngineError *error)
{
	BicycleTrainBegin *begin = &train->begin;
	NnError nn_error = { 0 };

	memcpy(begin, train->link.body, sizeof(*begin));
	if ((uint64_t) begin->options_length + begin->start.config_length !=
			frame->length - sizeof(*begin) ||
		begin->iteration < 0 || memchr(begin->spill, '\0', sizeof(begin->spill)) == NULL ||
		memchr(begin->start.model, '\0', sizeof(begin->start.model)) == NULL ||
		(begin->iteration > 0 && begin->stream_length == 0) ||
		(begin->start.config_length > 0) != (begin->iteration == 0 && begin->stream_length > 0) ||
		(begin->flags & ~BICYCLE_TRAIN_FINISHED) != 0 ||
		(train_is_finished(train) && begin->iteration == 0))
		return protocol_error(error, "The beginning of a run contradicts itself.");
	nn_config_default(&train->config);
	if (nn_train_options_parse(&train->config, &train->options,
							   (const char *) train->link.body + sizeof(*begin),
							   begin->options_length, &nn_error) != NN_OK)
	{
		error_from_nn(error, &nn_error);
		return false;
	}
	if ((train->start_config = malloc(begin->start.config_length + 1)) == NULL)
	{
		error_memory(error, "a configuration");
		return false;
	}
	memcpy(train->start_config, train->link.body + sizeof(*begin) + begin->options_length,
		   begin->start.config_length);
	if (begin->stream_length > train->engine->memory.limit ||
		(train->stream = malloc(begin->stream_length + 1)) == NULL)
	{
		error_set(error, "53200", "out of engine memory");
		error_detail(error,
					 "The weights to start from take %llu bytes, and the engine may take %zu.",
					 (unsigned long long) begin->stream_length, train->engine->memory.limit);
		error_hint(error, "Raise the setting \"bicycle.engine_memory\".");
		return false;
	}
	data_begin(&train->data, begin);
	train->state = TRAIN_STREAM;
	return true;
}

static bool
handle_data(Train *train, const BicycleFrame *frame, EngineError *error)
{
	train->stream_have += frame->length;
	return true;
}

static bool
handle_end(Train *train, const BicycleFrame *frame, EngineError *error)
{
	if (train->stream_have != train->begin.stream_length)
		return protocol_error(error, "A stream of %llu bytes was announced and %llu came.",
							  (unsigned long long) train->begin.stream_length,
							  (unsigned long long) train->stream_have);
	train->state = TRAIN_PAIRS;
	return true;
}

static bool
handle_pair(Train *train, const BicycleFrame *frame, EngineError *error)
{
	if (train_is_finished(train))
		return protocol_error(error, "A pair came for a run that is finished.");
	return data_add(&train->data, train->link.body, frame->length, error);
}

/* ---- Opening and running ------------------------------------------------- */

static void
open_done(Engine *engine, Job *job)
{
	Train *train = engine->train;

	if (train->state == TRAIN_ENDED)
		return; /* something came meanwhile that it was not to wait for */
	if (train->error.sqlstate[0] != '\0')
	{
		train_fail(train, &train->error);
		return;
	}
	train->state = TRAIN_READY;
	link_send(train, BICYCLE_TRAIN_READY, &train->ready, sizeof(train->ready));
}

static bool
handle_pairs_end(Train *train, const BicycleFrame *frame, EngineError *error)
{
	if (train->data.npairs < train->options.batch_size && !train_is_finished(train))
	{
		error_set(error, "22023", "there are too few pairs to train on");
		error_detail(error, "The query gave %lld rows, and one batch takes %d.",
					 (long long) train->data.npairs, train->options.batch_size);
		error_hint(error, "Train on more pairs, or with a smaller option \"batch_size\".");
		return false;
	}
	if (!data_complete(&train->data, error))
		return false;
	train->state = TRAIN_OPENING;
	train->open_job.run = train_run_open;
	train->open_job.done = open_done;
	executor_submit(&train->engine->device_thread, &train->open_job, false);
	return true;
}

static void
run_done(Engine *engine, Job *job)
{
	Train *train = engine->train;

	if (train->state != TRAIN_ENDED && train->error.sqlstate[0] != '\0')
		train_fail(train, &train->error);
	train->state = TRAIN_ENDED;
}

static bool
handle_run(Train *train, const BicycleFrame *frame, EngineError *error)
{
	if (!train_is_finished(train) &&
		!feed_start(&train->feed, train->engine, &train->data, &train->config, &train->options,
					train->ready.iteration, train->ready.iterations, error))
		return false;
	train->state = TRAIN_RUNNING;
	train->run_job.run = train_run;
	train->run_job.done = run_done;
	executor_submit(&train->engine->device_thread, &train->run_job, false);
	return true;
}

/* CHECKPOINT_NOW and PAUSE; before RUN they wait for it. */
static bool
handle_order(Train *train, const BicycleFrame *frame, EngineError *error)
{
	pthread_mutex_lock(&train->lock);
	if (frame->type == BICYCLE_PAUSE)
		train->pause_wanted = true;
	else
		train->checkpoint_wanted = true;
	pthread_cond_broadcast(&train->wake);
	pthread_mutex_unlock(&train->lock);
	return true;
}

/* ---- The process --------------------------------------------------------- */

/*
 * Inference and everything else go first. Linux, unless told otherwise, shares
 * processors among sessions before it looks at policies within one, and every
 * server process is a session; so the session, which is ours alone, gives way,
 * too. It keeps a third of what a busy one gets, lest a job on a busy server
 * never end. The kernel takes such changes ten times a second.
 */
static void
give_way(void)
{
	struct sched_param none = { 0 };
	int fd = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);

	if (sched_setscheduler(0, SCHED_IDLE, &none) != 0)
		setpriority(PRIO_PROCESS, 0, 19);
	for (int tries = 0; fd >= 0 && tries < 20; tries++)
	{
		if (write(fd, "5", 1) == 1 || errno != EAGAIN)
			break;
		usleep(50 * 1000);
	}
	if (fd >= 0)
		close(fd);
}

/* The settings are complete. */
void
train_go(Engine *engine)
{
	budget_limits(engine);
	if (!executor_start(&engine->pool, engine, "feed", settings_threads(&engine->settings)) ||
		!executor_start(&engine->device_thread, engine, "device", 1))
		engine_fatal(engine, "could not start threads");
	if (!link_open(engine->train, BICYCLE_TRAIN_FD))
		engine_fatal(engine, "could not watch descriptor %d: %s", BICYCLE_TRAIN_FD,
					 strerror(errno));
	engine->train->state = TRAIN_WAITING;
	control_say(engine, "ready training engine %s", BICYCLE_VERSION);
}

/* Runs until "stop"; EOF has ended the process elsewhere. */
static void
train_loop(Train *train)
{
	Engine *engine = train->engine;
	bool ordered = false;

	for (;;)
	{
		struct epoll_event events[EVENTS];
		int n;

		link_flush(train);
		control_flush(engine);
		if (engine->stopping && !ordered)
		{
			order_stop(train);
			ordered = true;
		}
		if (ordered && engine->device_thread.pending == 0 && engine->pool.pending == 0)
			return;
		if (ordered && now_ms() - engine->stop_ms > STOP_MS)
		{
			log_write(LOG_WARNING, "the training engine ends in the middle of an iteration");
			control_flush(engine);
			_exit(1); /* a thread may hang: it cannot be joined */
		}
		n = epoll_wait(engine->epoll, events, EVENTS, ordered ? TICK_MS : -1);
		if (n < 0 && errno != EINTR)
			engine_fatal(engine, "could not wait for events: %s", strerror(errno));
		for (int i = 0; i < n; i++)
		{
			Source *source = events[i].data.ptr;

			source->ready(engine, source, events[i].events);
		}
	}
}

static void
train_init(Train *train, Engine *engine)
{
	memset(train, 0, sizeof(*train));
	train->engine = engine;
	engine->train = train;
	link_init(&train->link);
	data_init(&train->data);
	feed_init(&train->feed);
	pthread_mutex_init(&train->lock, NULL);
	executor_condition(&train->wake);
}

/* After the loop has ended in order: no job runs any more. */
static void
train_free(Train *train)
{
	Engine *engine = train->engine;

	executor_stop(&engine->pool);
	executor_stop(&engine->device_thread);
	if (train->trainer != NULL)
		nn_trainer_close(train->trainer);
	preview_free(&train->preview);
	feed_free(&train->feed);
	data_free(&train->data);
	link_free(&train->link);
	free(train->start_config);
	free(train->stream);
	pthread_mutex_destroy(&train->lock);
	pthread_cond_destroy(&train->wake);
}

/*
 * The process's main, once the engine's descriptors are made; returns its exit
 * code.
 */
int
train_main(Engine *engine)
{
	static Train train;

	if (fcntl(BICYCLE_CONTROL_FD, F_GETFD) < 0 || fcntl(BICYCLE_TRAIN_FD, F_GETFD) < 0)
	{
		fprintf(stderr,
				"bicycle-engine: a training engine expects its trainer on descriptors %d and %d\n",
				BICYCLE_CONTROL_FD, BICYCLE_TRAIN_FD);
		return 2;
	}
	give_way();
	train_init(&train, engine);
	if (!control_open(engine, BICYCLE_CONTROL_FD))
	{
		fprintf(stderr, "bicycle-engine: descriptor %d is not a socket: %s\n", BICYCLE_CONTROL_FD,
				strerror(errno));
		return 1;
	}
	train_loop(&train);
	train_free(&train);
	engine_free(engine);
	return engine->exit_code;
}
