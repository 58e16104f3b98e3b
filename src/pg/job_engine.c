/*
 * job_engine.c
 *	  The training engine of a run: its start, its settings, its pulse, its end.
 *
 * R1 It serves this process only, over two socket pairs: lines
 *    (engine_process.c) and frames (session.c).
 * R2 Nothing is sent to an engine that is not ready, or is of another version.
 * R3 A run has one engine. It is killed at the latest when the worker ends.
 */
#include "pg/job_worker.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"

#include "pg/bicycle.h"
#include "pg/engine_process.h"
#include "pg/job_card.h"
#include "pg/session.h"

/*
 * Pings without an answer: a process at idle priority may wait long on a busy
 * machine.
 */
#define PONGS_MISSED 60
#define LAST_WORDS_TIMEOUT 1000 /* ms from the end of the connection to that of the process */

static EngineProcess engine = { .control = -1 };
static char greeting[128]; /* what it was ready as */

static void
end_engine(int code, Datum arg)
{
	engine_process_end(&engine);
}

/* What ends it is told by who finds that it has ended: engine.last_words. */
static void
training_says(EngineProcess *from, EngineWord word, const char *words)
{
	if (word == ENGINE_SAYS_READY)
		strlcpy(greeting, words, sizeof(greeting));
}

/*
 * What takes a minute for a batch of large images is not stuck, nor is what
 * waits for a busy processor.
 */
void
job_engine_settings(bool go)
{
	StringInfoData more;

	initStringInfo(&more);
	job_card_lines(&more);
	appendStringInfo(&more, "set stuck_timeout " INT64_FORMAT "\n",
					 (int64) bicycle_train_stuck_timeout * 1000);
	engine_process_configure(&engine, more.data, go);
	pfree(more.data);
}

/* The connection has ended, and so must the engine: tells how. */
void
job_engine_lost(void)
{
	char *how = NULL;
	int status;

	if (engine_process_wait(&engine, LAST_WORDS_TIMEOUT, &status))
		how = wait_result_to_str(status);
	engine_process_read(&engine);
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE), errmsg("training engine ended unexpectedly"),
			 engine.last_words[0] ? errdetail("It said: %s", session_text(engine.last_words))
			 : how                ? errdetail("The process: %s.", how)
								  : 0));
}

static void
check_version(void)
{
	if (strcmp(greeting, psprintf(BICYCLE_TRAIN_GREETING, BICYCLE_VERSION, BICYCLE_PROTOCOL)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("training engine is of another version"),
				 errdetail("The library is version %s, the engine is \"%s\".", BICYCLE_VERSION,
						   session_text(greeting)),
				 errhint("Restart the server after bicycle has been upgraded, and resume the "
						 "job.")));
}

/* Nothing is sent to it before. */
static void
wait_until_ready(void)
{
	for (;;)
	{
		long timeout = engine_process_heartbeat(&engine, PONGS_MISSED);

		if (engine.ready)
			break;
		if (engine.control < 0)
			job_engine_lost();
		(void) WaitLatchOrSocket(
			MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH | WL_SOCKET_READABLE,
			engine.control, timeout, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	check_version();
}

void
job_engine_start(void (*frame)(int engine, const BicycleFrame *frame, const char *body))
{
	char *name = MemoryContextAlloc(job_worker.context, NAMEDATALEN);
	int data;

	snprintf(name, NAMEDATALEN, "bicycle training engine of job " INT64_FORMAT, job_worker.job.job);
	before_shmem_exit(end_engine, (Datum) 0);
	job_card_choose(job_worker.job.platform);
	if (!engine_process_start(&engine, name, "--train", &data, training_says))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES),
						errmsg("could not start the %s: %m", name)));
	session_adopt(data, frame);
	job_engine_settings(true);
	wait_until_ready();
}

void
job_engine_heartbeat(void)
{
	(void) engine_process_heartbeat(&engine, PONGS_MISSED);
}

/* Told when it is another than before. */
void
job_engine_yield(void)
{
	static int told = 100;
	int share = job_card_share();
	char line[32];

	if (share == told)
		return;
	told = share;
	snprintf(line, sizeof(line), "yield %d\n", share);
	engine_process_tell(&engine, line);
}

void
job_engine_order(BicycleTrainFrame type)
{
	if (session_is_open() &&
		!session_queue(JOB_ENGINE, (BicycleFrameType) type, 0, NULL, 0, NULL, 0))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}
