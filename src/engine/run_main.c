/*
 * run_main.c
 *	  bicycle-engine --train: the I/O thread of a training engine, from its
 *	  first frame to its end.
 *
 * It is started by a job worker for one run of one job, and serves nobody else:
 * descriptor 3 is its control socket as an engine's is (control.c), descriptor
 * 4 carries what run_protocol.h describes; the rules cited here are its.
 *
 * This thread owns the state and moves it along (run_state.c). The first error
 * ends the run; it is reported, and what the job worker still sends is thrown
 * away until it goes.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/run.h"

#define STOP_MS 30000 /* for the iteration that runs */
#define TICK_MS 250

/* ---- Errors -------------------------------------------------------------- */

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

/* Ends the loop after the iteration that runs. */
static void
order_stop(Run *run)
{
	run_screen_stop(&run->screen);
	run_screen_stop(&run->validation.screen);
	run_feed_stop(&run->feed);
	pthread_mutex_lock(&run->lock);
	run->stop_wanted = true;
	pthread_cond_broadcast(&run->wake);
	pthread_mutex_unlock(&run->lock);
}

/* The run cannot go on. Called once: in RUN_ENDED nothing can fail (R9). */
static void
run_fail(Run *run, const EngineError *error)
{
	run_to(run, RUN_ENDED);
	order_stop(run);
	run_link_send_error(&run->link, error);
}

/* ---- The beginning of a run ---------------------------------------------- */

static bool
handle_begin(Run *run, const BicycleFrame *frame, const uint8_t *body, EngineError *error)
{
	BicycleTrainBegin *begin = &run->begin;
	NnError nn_error = { 0 };

	INVARIANT(frame->length >= sizeof(*begin));
	memcpy(begin, body, sizeof(*begin));
	if ((uint64_t) begin->options_length + begin->start.config_length !=
			frame->length - sizeof(*begin) ||
		begin->iteration < 0 || memchr(begin->spill, '\0', sizeof(begin->spill)) == NULL ||
		memchr(begin->platform, '\0', sizeof(begin->platform)) == NULL ||
		memchr(begin->start.model, '\0', sizeof(begin->start.model)) == NULL ||
		(begin->iteration > 0 && begin->stream_length == 0) ||
		(begin->start.config_length > 0) != (begin->iteration == 0 && begin->stream_length > 0) ||
		(begin->flags & ~BICYCLE_TRAIN_FINISHED) != 0 ||
		(run_is_finished(run) && begin->iteration == 0))
		return protocol_error(error, "The beginning of a run contradicts itself.");
	nn_config_default(&run->config);
	if (nn_train_options_parse(&run->config, &run->options, (const char *) body + sizeof(*begin),
							   begin->options_length, &nn_error) != NN_OK)
		return error_from_nn(error, &nn_error);
	if ((run->start_config = malloc(begin->start.config_length + 1)) == NULL)
		return error_memory(error, "a configuration");
	memcpy(run->start_config, body + sizeof(*begin) + begin->options_length,
		   begin->start.config_length);
	if (begin->stream_length > run->engine->memory.limit ||
		(run->stream = malloc(begin->stream_length + 1)) == NULL)
		return error_engine_memory(
			error, "The weights to start from take %llu bytes, and the engine may take %zu.",
			(unsigned long long) begin->stream_length, run->engine->memory.limit);
	run_data_begin(&run->data, begin, run->options.side_by_side);
	run->data.opaque = run->config.alpha == NN_ALPHA_DROP;
	run_validation_begin(&run->validation, begin, &run->config, &run->options);
	run_to(run, RUN_STREAM);
	return true;
}

/* How much of the stream that comes has come, and how long it is. */
static uint64_t *
stream_of(Run *run, uint64_t *length)
{
	RunMetric *metric = &run->validation.metric;

	INVARIANT(run->state == RUN_STREAM || run->state == RUN_METRIC);
	*length = run->state == RUN_METRIC ? metric->load.stream_length : run->begin.stream_length;
	return run->state == RUN_METRIC ? &metric->have : &run->stream_have;
}

static bool
handle_data(Run *run, const BicycleFrame *frame, const uint8_t *body, EngineError *error)
{
	uint64_t length;

	*stream_of(run, &length) += frame->length;
	return true;
}

static bool
handle_end(Run *run, const BicycleFrame *frame, const uint8_t *body, EngineError *error)
{
	uint64_t length, have = *stream_of(run, &length);

	if (have != length)
		return protocol_error(error, "A stream of %llu bytes was announced and %llu came.",
							  (unsigned long long) length, (unsigned long long) have);
	run_to(run, RUN_PAIRS);
	return true;
}

static bool
handle_metric(Run *run, const BicycleFrame *frame, const uint8_t *body, EngineError *error)
{
	BicycleLoad load;

	INVARIANT(frame->length >= sizeof(load));
	memcpy(&load, body, sizeof(load));
	if (load.config_length != frame->length - sizeof(load) ||
		memchr(load.model, '\0', sizeof(load.model)) == NULL || run_is_finished(run) ||
		!run->validation.on || run_metric_is_there(&run->validation.metric) || run->data.nread > 0)
		return protocol_error(error, "Weights that compare images came out of turn.");
	if (!run_metric_begin(&run->validation.metric, &load, body + sizeof(load),
						  run->engine->memory.limit, error))
		return false;
	run_to(run, RUN_METRIC);
	return true;
}

static bool
handle_pair(Run *run, const BicycleFrame *frame, const uint8_t *body, EngineError *error)
{
	if (run_is_finished(run))
		return protocol_error(error, "A pair came for a run that is finished.");
	return run_data_add(&run->data, body, frame->length, error);
}

static bool
handle_validation_pair(Run *run, const BicycleFrame *frame, const uint8_t *body, EngineError *error)
{
	if (run_is_finished(run) || !run->validation.on)
		return protocol_error(error, "A validation pair came for a run without validation.");
	return run_data_add(&run->validation.data, body, frame->length, error);
}

/* ---- Screening, opening and running -------------------------------------- */

/* What the pairs were, and which of them are skipped, goes with it. */
static void
say_ready(Run *run)
{
	const RunData *data = &run->data;
	size_t nbad = (size_t) (data->nread - data->npairs);
	uint8_t *hashes = malloc(nbad * BICYCLE_HASH_BYTES + 1);
	EngineError error;

	if (hashes == NULL)
	{
		error_memory(&error, "a list of training pairs");
		run_fail(run, &error);
		return;
	}
	for (size_t i = 0; i < nbad; i++)
		memcpy(hashes + i * BICYCLE_HASH_BYTES, data->pairs[data->npairs + (int64_t) i].hash,
			   BICYCLE_HASH_BYTES);
	run_link_send(&run->link, BICYCLE_TRAIN_READY, &run->ready, sizeof(run->ready), hashes,
				  nbad * BICYCLE_HASH_BYTES);
	free(hashes);
}

static void
open_done(Engine *engine, Task *task)
{
	Run *run = list_member(Run, open_task, task);

	if (run->state == RUN_ENDED)
		return; /* something came meanwhile that it was not to wait for */
	if (error_is_set(&run->error))
	{
		run_fail(run, &run->error);
		return;
	}
	run_to(run, RUN_READY);
	say_ready(run);
}

static bool
check_count(const Run *run, EngineError *error)
{
	const RunData *data = &run->data;

	if (data->npairs >= run->options.batch_size || run_is_finished(run))
		return true;
	error_set(error, "22023", "there are too few pairs to train on");
	if (data->npairs == data->nread)
		error_detail(error, "The query gave %lld rows, and one batch takes %d.",
					 (long long) data->nread, run->options.batch_size);
	else
		error_detail(error,
					 "The query gave %lld rows, of which %lld can be used, and one batch takes %d.",
					 (long long) data->nread, (long long) data->npairs, run->options.batch_size);
	error_hint(error, "Run on more pairs, or with a smaller option \"batch_size\".");
	return false;
}

static void
send_note(Run *run, BicycleNoteCause cause, const char *text)
{
	BicycleNote head = { cause };

	run_link_send(&run->link, BICYCLE_NOTE, &head, sizeof(head), text, strlen(text));
}

static void
note_skipped(Run *run, const RunData *data, int64_t nbad, const EngineError *bad)
{
	bool training = data == &run->data;
	char text[sizeof(bad->message) + sizeof(bad->detail) + 64];

	snprintf(text, sizeof(text), "skips %lld of %lld %spairs: %s.  %s", (long long) nbad,
			 (long long) data->nread, training ? "" : "validation ", bad->message, bad->detail);
	send_note(run, training ? BICYCLE_NOTE_SKIPPED : BICYCLE_NOTE_NOT_VALIDATED, text);
}

/* Leaves bad pairs out; new: which they are has not been told before. */
static bool
leave_out_bad(Run *run, RunData *data, bool new, EngineError *error)
{
	EngineError bad;
	int64_t nbad = run_data_settle(data, &bad);

	if (nbad > 0 && run->options.bad_pairs == NN_BAD_PAIRS_ERROR)
	{
		*error = bad;
		if (error->hint[0] == '\0')
			error_hint(error,
					   "Leave such rows out of the query, or set the option \"bad_pairs\" to "
					   "\"skip\".");
		return false;
	}
	if (nbad > 0 && new)
		note_skipped(run, data, nbad, &bad);
	return true;
}

static bool
begin_opening(Run *run)
{
	run_to(run, RUN_OPENING);
	run->open_task.run = run_open;
	run->open_task.done = open_done;
	executor_submit(&run->engine->device_thread, &run->open_task, TASK_SECOND);
	return true;
}

static bool
settle_validation(Run *run, EngineError *error)
{
	RunData *data = &run->validation.data;
	int64_t overlap;
	char text[128];

	if (!leave_out_bad(run, data, true, error))
		return false;
	if (data->npairs == 0)
	{
		error_set(error, "22023", "there are no validation pairs");
		error_detail(error, "None of the %lld rows can be used.", (long long) data->nread);
		return false;
	}
	overlap = run_validation_overlap(&run->validation, &run->data);
	if (overlap > 0)
	{
		snprintf(text, sizeof(text), "%lld of %lld validation pairs are trained on, too",
				 (long long) overlap, (long long) data->npairs);
		send_note(run, BICYCLE_NOTE_OVERLAP, text);
	}
	return begin_opening(run);
}

static void
validation_screened(RunScreen *screen)
{
	Run *run = list_member(Run, validation.screen, screen);
	EngineError error;

	if (run->state == RUN_ENDED || run->stop_wanted)
		return;
	if (error_is_set(&screen->error))
		run_fail(run, &screen->error);
	else if (!settle_validation(run, &error))
		run_fail(run, &error);
}

/* Which pairs cannot be used is known; new: it has not been told before. */
static bool
settle_pairs(Run *run, bool new, EngineError *error)
{
	if (!leave_out_bad(run, &run->data, new, error) || !check_count(run, error))
		return false;
	if (run_is_finished(run) || !run->validation.on)
		return begin_opening(run);
	if (run->state == RUN_PAIRS)
		run_to(run, RUN_SCREENING);
	return run_screen_start(&run->validation.screen, &run->validation.feed, validation_screened,
							error);
}

static void
screen_done(RunScreen *screen)
{
	Run *run = list_member(Run, screen, screen);
	EngineError error;

	if (run->state == RUN_ENDED || run->stop_wanted)
		return;
	if (error_is_set(&screen->error))
		run_fail(run, &screen->error);
	else if (!settle_pairs(run, true, &error))
		run_fail(run, &error);
}

static bool
handle_pairs_end(Run *run, const BicycleFrame *frame, const uint8_t *body, EngineError *error)
{
	if (!check_count(run, error) || !run_data_complete(&run->data, error))
		return false;
	if (!run_is_finished(run) && run->validation.on &&
		!run_validation_complete(&run->validation, &run->data, run->engine, &run->config,
								 &run->options, error))
		return false;
	if (run_is_finished(run) || run_data_known(&run->data, body, frame->length))
		return settle_pairs(run, false, error);
	run_to(run, RUN_SCREENING);
	run_feed_prepare(&run->feed, run->engine, &run->data, &run->config, &run->options);
	return run_screen_start(&run->screen, &run->feed, screen_done, error);
}

static void
loop_done(Engine *engine, Task *task)
{
	Run *run = list_member(Run, run_task, task);

	INVARIANT(run->finished || run->stop_wanted || error_is_set(&run->error));
	if (run->state == RUN_ENDED)
		return; /* it has failed meanwhile */
	if (error_is_set(&run->error))
		run_fail(run, &run->error);
	else
		run_to(run, RUN_ENDED);
}

static void
save_done(Engine *engine, Task *task)
{
}

static bool
handle_run(Run *run, const BicycleFrame *frame, const uint8_t *body, EngineError *error)
{
	if (!run_is_finished(run) &&
		!run_feed_start(&run->feed, run->engine, &run->data, &run->config, &run->options,
						run->ready.iteration, run->ready.iterations, error))
		return false;
	run_to(run, RUN_RUNNING);
	if (nn_fit_has_snapshots(run->fit))
	{
		run->save_task.run = run_save;
		run->save_task.done = save_done;
		executor_submit(&run->engine->loader, &run->save_task, TASK_SECOND);
	}
	run->run_task.run = run_loop;
	run->run_task.done = loop_done;
	executor_submit(&run->engine->device_thread, &run->run_task, TASK_SECOND);
	return true;
}

/* CHECKPOINT_NOW and PAUSE; before RUN they wait for it (R5). */
static bool
handle_order(Run *run, const BicycleFrame *frame, const uint8_t *body, EngineError *error)
{
	pthread_mutex_lock(&run->lock);
	if (frame->type == BICYCLE_PAUSE)
		run->pause_wanted = true;
	else
		run->checkpoint_wanted = true;
	pthread_cond_broadcast(&run->wake);
	pthread_mutex_unlock(&run->lock);
	return true;
}

/* ---- What may come ------------------------------------------------------- */

/* Every frame a job worker may send, and when (R3). */
static const struct RunRule
{
	uint32_t type;
	RunState first, last; /* states it is for */
	size_t min, max;
	bool (*handle)(Run *run, const BicycleFrame *frame, const uint8_t *body, EngineError *error);
} run_rules[] = {
	{ BICYCLE_TRAIN_BEGIN, RUN_WAITING, RUN_WAITING, sizeof(BicycleTrainBegin),
	  sizeof(BicycleTrainBegin) + 2 * BICYCLE_MAX_CONFIG, handle_begin },
	{ BICYCLE_DATA, RUN_STREAM, RUN_METRIC, 0, BICYCLE_MAX_FRAME, handle_data },
	{ BICYCLE_END, RUN_STREAM, RUN_METRIC, 0, 0, handle_end },
	{ BICYCLE_METRIC, RUN_PAIRS, RUN_PAIRS, sizeof(BicycleLoad),
	  sizeof(BicycleLoad) + BICYCLE_MAX_CONFIG, handle_metric },
	{ BICYCLE_PAIR, RUN_PAIRS, RUN_PAIRS, sizeof(BicyclePair), UINT32_MAX, handle_pair },
	{ BICYCLE_VALIDATION_PAIR, RUN_PAIRS, RUN_PAIRS, sizeof(BicyclePair), UINT32_MAX,
	  handle_validation_pair },
	{ BICYCLE_PAIRS_END, RUN_PAIRS, RUN_PAIRS, 0, UINT32_MAX, handle_pairs_end },
	{ BICYCLE_RUN, RUN_READY, RUN_READY, 0, 0, handle_run },
	{ BICYCLE_CHECKPOINT_NOW, RUN_READY, RUN_RUNNING, 0, 0, handle_order },
	{ BICYCLE_PAUSE, RUN_READY, RUN_RUNNING, 0, 0, handle_order },
};

static const struct RunRule *
run_rule_of(uint32_t type)
{
	for (size_t i = 0; i < sizeof(run_rules) / sizeof(run_rules[0]); i++)
		if (run_rules[i].type == type)
			return &run_rules[i];
	return NULL;
}

static bool
frame_begins(RunLink *link, const BicycleFrame *frame, uint8_t **body, EngineError *error)
{
	Run *run = list_member(Run, link, link);
	const struct RunRule *rule = run_rule_of(frame->type);

	*body = NULL;
	if (rule == NULL || frame->id != 0 || frame->length < rule->min || frame->length > rule->max)
		return protocol_error(error, "A frame of type %u, id %llu and %u bytes came.", frame->type,
							  (unsigned long long) frame->id, frame->length);
	if (run->state < rule->first || run->state > rule->last)
		return protocol_error(error, "A frame of type %u came out of turn.", frame->type);
	if (frame->type == BICYCLE_PAIR && run->validation.data.nread > 0)
		return protocol_error(error, "A pair came behind those of validation.");
	if (frame->type == BICYCLE_PAIR)
		return run_data_check_room(&run->data, frame->length, error);
	if (frame->type == BICYCLE_VALIDATION_PAIR && run->validation.data.nread == 0)
		run_validation_share(&run->validation, &run->data);
	if (frame->type == BICYCLE_VALIDATION_PAIR)
		return run_data_check_room(&run->validation.data, frame->length, error);
	if (frame->type == BICYCLE_DATA)
	{
		uint64_t length, have = *stream_of(run, &length);

		INVARIANT(have <= length);
		if (frame->length > length - have)
			return protocol_error(error, "A stream of %llu bytes was announced and more came.",
								  (unsigned long long) length);
		*body = (run->state == RUN_METRIC ? run->validation.metric.stream : run->stream) + have;
	}
	return true;
}

static bool
frame_whole(RunLink *link, const BicycleFrame *frame, const uint8_t *body, EngineError *error)
{
	return run_rule_of(frame->type)->handle(list_member(Run, link, link), frame, body, error);
}

static void
checkpoint_gone(RunLink *link)
{
	Run *run = list_member(Run, link, link);

	pthread_mutex_lock(&run->lock);
	INVARIANT(run->checkpoint_queued);
	run->checkpoint_queued = false;
	pthread_cond_broadcast(&run->wake);
	pthread_mutex_unlock(&run->lock);
}

static void
link_fail(RunLink *link, const EngineError *error)
{
	run_fail(list_member(Run, link, link), error);
}

static const RunLinkOwner run_link_owner = { .begins = frame_begins,
											 .frame = frame_whole,
											 .fail = link_fail,
											 .checkpoint_gone = checkpoint_gone };

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

/* Requests of sessions wait for the card, or no longer. */
static void
run_yields(Engine *engine, int percent)
{
	Run *run = engine->run;

	pthread_mutex_lock(&run->lock);
	run_share_set(&run->share, percent, now_us());
	pthread_cond_broadcast(&run->wake);
	pthread_mutex_unlock(&run->lock);
}

/* The settings are complete. */
static void
run_go(Engine *engine)
{
	budget_limits(engine);
	settings_set_fault(&engine->settings, true);
	if (!executor_start(&engine->pool, &engine->completions, "feed",
						settings_threads(&engine->settings)) ||
		!executor_start(&engine->device_thread, &engine->completions, "device", 1) ||
		!executor_start(&engine->loader, &engine->completions, "saver", 1))
		engine_fatal(engine, "could not start threads");
	if (!run_link_open(&engine->run->link, BICYCLE_TRAIN_FD))
		engine_fatal(engine, "could not watch descriptor %d: %s", BICYCLE_TRAIN_FD,
					 strerror(errno));
	run_to(engine->run, RUN_WAITING);
	control_say(engine, "ready " BICYCLE_TRAIN_GREETING, BICYCLE_VERSION, BICYCLE_PROTOCOL);
}

/* Runs until "stop"; EOF has ended the process elsewhere. */
static void
run_turns(Run *run)
{
	Engine *engine = run->engine;
	bool ordered = false;

	for (;;)
	{
		if (invariant_checking())
			run_check(run);
		run_link_flush(&run->link);
		control_flush(engine);
		if (engine->stopping && !ordered)
		{
			order_stop(run);
			ordered = true;
		}
		if (ordered && engine->device_thread.pending == 0 && engine->pool.pending == 0 &&
			engine->loader.pending == 0)
			return;
		if (ordered && now_ms() - engine->stop_ms > STOP_MS)
		{
			log_write(LOG_WARNING, "the training engine ends in the middle of an iteration");
			control_flush(engine);
			_exit(1); /* a thread may hang: it cannot be joined */
		}
		if (!source_wait(engine, ordered ? TICK_MS : -1))
			engine_fatal(engine, "could not wait for events: %s", strerror(errno));
	}
}

static void
run_init(Run *run, Engine *engine)
{
	memset(run, 0, sizeof(*run));
	run->engine = engine;
	engine->run = run;
	engine->go = run_go;
	engine->yields = run_yields;
	run_link_init(&run->link, engine, &run_link_owner);
	run_data_init(&run->data);
	run_feed_init(&run->feed);
	run_screen_init(&run->screen);
	run_validation_init(&run->validation);
	run_share_init(&run->share, now_us());
	pthread_mutex_init(&run->lock, NULL);
	executor_condition(&run->wake);
}

/* After the loop has ended in order: no task runs any more. */
static void
run_free(Run *run)
{
	Engine *engine = run->engine;

	executor_stop(&engine->pool);
	executor_stop(&engine->device_thread);
	executor_stop(&engine->loader);
	nn_snapshot_free(run->snapshot);
	free(run->best);
	if (run->fit != NULL)
		nn_fit_close(run->fit);
	run_preview_free(&run->preview);
	run_validation_free(&run->validation);
	run_screen_free(&run->screen);
	run_feed_free(&run->feed);
	run_data_free(&run->data);
	run_link_free(&run->link);
	free(run->start_config);
	free(run->stream);
	pthread_mutex_destroy(&run->lock);
	pthread_cond_destroy(&run->wake);
}

int
run_main(Engine *engine)
{
	static Run run;

	if (fcntl(BICYCLE_CONTROL_FD, F_GETFD) < 0 || fcntl(BICYCLE_TRAIN_FD, F_GETFD) < 0)
	{
		fprintf(stderr,
				"bicycle-engine: a training engine expects a job worker on descriptors %d and %d\n",
				BICYCLE_CONTROL_FD, BICYCLE_TRAIN_FD);
		return 2;
	}
	give_way();
	run_init(&run, engine);
	if (!control_open(engine, BICYCLE_CONTROL_FD, orders_line))
	{
		fprintf(stderr, "bicycle-engine: descriptor %d is not a socket: %s\n", BICYCLE_CONTROL_FD,
				strerror(errno));
		return 1;
	}
	run_turns(&run);
	run_free(&run);
	engine_free(engine);
	return engine->exit_code;
}
