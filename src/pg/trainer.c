/*
 * trainer.c
 *	  The background worker that trains one job: one run of a training engine of its own.
 *
 * It connects as the role that started the job, so privileges and row security of the moment hold for what it reads and writes in that role's name: the
 * pairs, the version to start from, the new version.  Rows of the job itself it writes as all of the extension does (jobs_run).
 *
 * A run has three parts.  One read-only transaction reads the pairs and the weights and streams them to the engine; it ends before training starts.  Then the
 * worker waits on its latch and the engine's socket, and writes what comes (losses, previews, notes, checkpoints) in a short transaction each, so that nothing
 * holds back vacuum.  At the end it stores the new version, and its state, in one.
 *
 * An engine that dies ends the run, as does a worker that crashes: the launcher starts another one, which goes on from the last checkpoint, after a delay
 * that grows with each try.  Tries are counted at their start, before anything can go wrong, and anew at each checkpoint.
 *
 * Frames of the engine are collected in `messages` as they arrive, outside of transactions; streams go to temporary files.
 */
#include "bicycle.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "access/detoast.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "client.h"
#include "engine/train_protocol.h"
#include "executor/spi.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define PAIRS_MEMORY	((uint64) 512 * 1024 * 1024)	/* encoded pairs that an engine keeps in memory; more go to a file */
#define SPILL_DIRECTORY	"base/pgsql_tmp"
#define CHUNK_BYTES		(4 * 1024 * 1024)
#define CHECKPOINTS_KEPT 2
#define CHECKPOINT_INTERVAL	(10 * 60 * 1000)	/* ms */
#define STOP_TIMEOUT	3000	/* ms for a last checkpoint when the server stops */
#define PING_INTERVAL	1000
#define PONG_TIMEOUT	(30 * 1000)
#define TURN_TIMEOUT	1000
#define RETRY_FIRST		1000	/* ms before the second try; doubled for each further one */

/* A frame that has come, in the order of arrival. */
typedef struct Message
{
	dlist_node	node;
	uint32		type;
	size_t		length;
	BufFile    *stream;			/* of a CHECKPOINT or TRAIN_DONE; NULL for others */
	uint64		stream_length;
	bool		complete;		/* with its stream */
	char		body[FLEXIBLE_ARRAY_MEMBER];
} Message;

static dlist_head messages = DLIST_STATIC_INIT(messages);
static MemoryContext run_context;	/* lives as long as the worker: messages, the job */
static Job	job;				/* as it was when the run began */
static int64 start_iterations;	/* behind the version to start from */

static pid_t engine_pid = 0;
static int	control_fd = -1;
static StringInfoData control_in;
static TimestampTz pinged_at;
static TimestampTz ponged_at;
static TimestampTz checkpoint_at;	/* of the last checkpoint, or of the beginning */
static char last_words[512];	/* the engine's last error or fatal line */

static bool running;			/* RUN has been sent */
static bool ordered;			/* PAUSE has been sent */
static bool finished;			/* the row is in its new state: the worker ends */

/* ---- Transactions on the job's row --------------------------------------------------------------------------------------------------------- */

/* False if the extension is gone; the transaction is then over. */
static bool
begin_transaction(void)
{
	SetCurrentStatementStartTimestamp();	/* which is now() */
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	if (jobs_installed())
		return true;
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	return false;
}

static void
end_transaction(void)
{
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(false);
}

/* A statement on the job's row with $1 = job; the worker ends if there is no such row any more. */
static void
update_job(const char *statement, JobParams *p)
{
	if (jobs_run("bicycle_training_jobs", statement, SPI_OK_UPDATE, p) == 0)
		finished = true;
}

static void
first_param(JobParams *p)
{
	memset(p, 0, sizeof(*p));
	param_add(p, INT8OID, Int64GetDatum(job.job));
}

static void
append_note(const char *note)
{
	JobParams	p;

	first_param(&p);
	param_add_text(&p, note);
	update_job("UPDATE %s SET notes = concat_ws(E'\\n', notes, $2), updated_at = now() WHERE job = $1", &p);
}

/* ---- The engine ---------------------------------------------------------------------------------------------------------------------------- */

static void
kill_engine(void)
{
	if (engine_pid <= 0)
		return;
	kill(engine_pid, SIGKILL);
	while (waitpid(engine_pid, NULL, 0) < 0 && errno == EINTR)
		;
	engine_pid = 0;
}

static void
kill_engine_at_exit(int code, Datum arg)
{
	kill_engine();
}

static void
engine_says(char *line)
{
	if (strncmp(line, "pong ", 5) == 0)
		ponged_at = GetCurrentTimestamp();
	else if (strncmp(line, "log ", 4) == 0)
	{
		char	   *word = line + 4;
		char	   *text = strchr(word, ' ');

		if (text == NULL)
			return;
		*text++ = '\0';
		ereport(engine_log_level(word), (errmsg("bicycle training engine of job " INT64_FORMAT ": %s", job.job, text)));
		if (strcmp(word, "error") == 0)
			strlcpy(last_words, text, sizeof(last_words));
	}
	else if (strncmp(line, "fatal ", 6) == 0)
		strlcpy(last_words, line + 6, sizeof(last_words));
}

static void
read_control(void)
{
	if (control_fd >= 0 && !engine_lines(control_fd, &control_in, engine_says))
	{
		close(control_fd);
		control_fd = -1;
	}
}

static void
send_settings(bool go)
{
	StringInfoData lines;

	initStringInfo(&lines);
	settings_for_engine(&lines);
	if (go)
		appendStringInfoString(&lines, "go\n");
	engine_tell(control_fd, lines.data, lines.len);
	pfree(lines.data);
}

/* Between two DATA frames of a stream nothing else comes. */
static void
take_stream(Message *m, const BicycleFrame *frame, const char *body)
{
	if (frame->type == BICYCLE_END)
	{
		m->complete = true;
		return;
	}
	if (m->stream == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(run_context);

		m->stream = BufFileCreateTemp(true);
		MemoryContextSwitchTo(old);
	}
	BufFileWrite(m->stream, unconstify(char *, body), frame->length);
	m->stream_length += frame->length;
}

static void
take_frame(const BicycleFrame *frame, const char *body)
{
	Message    *m;

	if (frame->type == BICYCLE_DATA || frame->type == BICYCLE_END)
	{
		if (dlist_is_empty(&messages))
			connection_broken();
		m = dlist_tail_element(Message, node, &messages);
		if (m->complete)
			connection_broken();
		take_stream(m, frame, body);
		return;
	}
	m = MemoryContextAllocZero(run_context, offsetof(Message, body) + frame->length + 1);
	m->type = frame->type;
	m->length = frame->length;
	memcpy(m->body, body, frame->length);
	m->complete = frame->type != BICYCLE_CHECKPOINT && frame->type != BICYCLE_TRAIN_DONE;
	dlist_push_tail(&messages, &m->node);
}

static void
free_message(Message *m)
{
	dlist_delete(&m->node);
	if (m->stream)
		BufFileClose(m->stream);
	pfree(m);
}

static void
start_engine(void)
{
	int			control[2];
	int			data[2];
	int			fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) != 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, data) != 0)
		ereport(ERROR, (errcode_for_socket_access(), errmsg("could not create socket pairs for the training engine: %m")));
	fds[0] = control[1];
	fds[1] = data[1];
	before_shmem_exit(kill_engine_at_exit, (Datum) 0);
	engine_pid = engine_fork("--train", fds, 2);
	close(control[1]);
	close(data[1]);
	if (engine_pid < 0)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES), errmsg("could not fork the training engine: %m")));
	control_fd = control[0];
	initStringInfo(&control_in);
	connection_adopt(data[0], take_frame);
	send_settings(true);
	pinged_at = ponged_at = checkpoint_at = GetCurrentTimestamp();
}

/* ---- Reading: weights and pairs ------------------------------------------------------------------------------------------------------------ */

/* The connection to the engine has ended, and so must it: tells how. */
static void
lost(void)
{
	char	   *how = NULL;
	int			status;

	read_control();				/* its last words */
	for (int tries = 0; engine_pid > 0 && how == NULL && tries < 100; tries++)
	{
		if (waitpid(engine_pid, &status, WNOHANG) == engine_pid)
		{
			engine_pid = 0;
			how = wait_result_to_str(status);
		}
		else
			pg_usleep(10000);
	}
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("training engine ended unexpectedly"),
			 last_words[0] ? errdetail("It said: %s", client_text(last_words)) : how ? errdetail("The process: %s.", how) : 0));
}

/* Streams the last checkpoint. */
static Request *
send_checkpoint(BicycleTrainBegin *head)
{
	JobParams	p;
	Request    *request;
	SPITupleTable *lengths;
	bool		isnull;
	int			chunks;

	first_param(&p);
	param_add(&p, INT8OID, Int64GetDatum(job.checkpoint));
	(void) jobs_run("bicycle_training_checkpoints", "SELECT coalesce(sum(octet_length(data)), 0)::int8, count(*)::int4 FROM %s"
					" WHERE job = $1 AND iteration = $2", SPI_OK_SELECT, &p);
	lengths = SPI_tuptable;
	head->stream_length = DatumGetInt64(SPI_getbinval(lengths->vals[0], lengths->tupdesc, 1, &isnull));
	chunks = DatumGetInt32(SPI_getbinval(lengths->vals[0], lengths->tupdesc, 2, &isnull));
	if (chunks == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("checkpoint of job " INT64_FORMAT " is missing", job.job),
				 errdetail("It is that of iteration " INT64_FORMAT ".", job.checkpoint),
				 errhint("Checkpoints are not carried by pg_dump. Start a new job.")));
	head->iteration = job.checkpoint;
	head->options_length = strlen(job.options);
	request = request_train(head, sizeof(*head), job.options, head->options_length);
	param_add_null(&p, INT4OID);
	p.nulls[2] = ' ';
	for (int chunk = 0; chunk < chunks; chunk++)
	{
		bytea	   *data;

		p.values[2] = Int32GetDatum(chunk);
		if (jobs_run("bicycle_training_checkpoints", "SELECT data FROM %s WHERE job = $1 AND iteration = $2 AND chunk = $3", SPI_OK_SELECT, &p) != 1)
			ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("checkpoint of job " INT64_FORMAT " is damaged", job.job)));
		data = DatumGetByteaPP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
		if (!request_write(request, VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data)))
			lost();
		pfree(data);
		SPI_freetuptable(SPI_tuptable);
	}
	if (!request_end(request))
		lost();
	return request;
}

/* The version to start from, read as the job's owner; or nothing. */
static Request *
send_start(BicycleTrainBegin *head)
{
	Request    *request;

	if (job.start_version == 0)
	{
		head->options_length = strlen(job.options);
		request = request_train(head, sizeof(*head), job.options, head->options_length);
		if (!request_end(request))
			lost();
	}
	else
	{
		Model	   *model = model_lookup(cstring_to_text(job.model), &job.start_version);

		request = stream_train(head, job.options, model);
		if (request == NULL)
			lost();
	}
	return request;
}

static bytea *
pair_image(HeapTuple row, TupleDesc desc, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(row, desc, column, &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("an image of the pairs is null"),
				 errdetail("Column %d of the query is null.", column),
				 errhint("Leave such rows out of the query.")));
	if (toast_raw_datum_size(value) - VARHDRSZ > (Size) bicycle_max_request_size * 1024)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("an image of the pairs is too large"),
				 errdetail("It has %zu bytes; the limit is %d kB.", toast_raw_datum_size(value) - VARHDRSZ, bicycle_max_request_size),
				 errhint("Raise bicycle.max_request_size.")));
	return DatumGetByteaPP(value);
}

static void
send_pair(Request *request, HeapTuple row, TupleDesc desc)
{
	bytea	   *a = pair_image(row, desc, 1);
	bytea	   *b = pair_image(row, desc, 2);
	BicyclePair pair = {.a_length = VARSIZE_ANY_EXHDR(a), .b_length = VARSIZE_ANY_EXHDR(b)};
	size_t		length = (size_t) pair.a_length + pair.b_length;
	char	   *images = palloc_extended(length, MCXT_ALLOC_HUGE);

	memcpy(images, VARDATA_ANY(a), pair.a_length);
	memcpy(images + pair.a_length, VARDATA_ANY(b), pair.b_length);
	if (!request_send(request, (BicycleFrameType) BICYCLE_PAIR, &pair, sizeof(pair), images, length))
		lost();
}

/* Runs the query as the job's owner, under the search_path of its call. */
static void
send_pairs(Request *request)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "bicycle pair", ALLOCSET_DEFAULT_SIZES);
	SPIPlanPtr	plan;
	Portal		cursor;

	SetConfigOption("search_path", job.search_path, PGC_USERSET, PGC_S_SESSION);
	plan = pairs_prepare(job.pairs);
	cursor = SPI_cursor_open(NULL, plan, NULL, NULL, true);
	for (;;)
	{
		MemoryContext old;

		SPI_cursor_fetch(cursor, true, 1);
		if (SPI_processed == 0)
			break;
		old = MemoryContextSwitchTo(context);
		send_pair(request, SPI_tuptable->vals[0], SPI_tuptable->tupdesc);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
		SPI_freetuptable(SPI_tuptable);
		CHECK_FOR_INTERRUPTS();
	}
	SPI_cursor_close(cursor);
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION);
	if (!request_send(request, (BicycleFrameType) BICYCLE_PAIRS_END, NULL, 0, NULL, 0))
		lost();
}

static int64
iterations_of(int version)
{
	Oid			types[2] = {TEXTOID, INT4OID};
	Datum		values[2] = {CStringGetTextDatum(job.model), Int32GetDatum(version)};
	bool		isnull;

	if (SPI_execute_with_args(psprintf("SELECT iterations FROM %s WHERE model = $1 AND version = $2", catalog_table("bicycle_models")),
							  2, types, values, NULL, true, 1) != SPI_OK_SELECT || SPI_processed == 0)
		return 0;
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

static bool
feed_engine(void)
{
	BicycleTrainBegin head = {.max_pixels = bicycle_max_image_pixels, .train_memory = PAIRS_MEMORY};
	Request    *request;

	if (!begin_transaction())
		return false;
	pgstat_report_activity(STATE_RUNNING, job.pairs);
	XactReadOnly = true;
	head.train_disk = (uint64) bicycle_train_disk * 1024 * 1024;
	strlcpy(head.spill, SPILL_DIRECTORY, sizeof(head.spill));
	if (job.start_version != 0)
		start_iterations = iterations_of(job.start_version);
	request = job.checkpoint > 0 ? send_checkpoint(&head) : send_start(&head);
	send_pairs(request);
	request_free(request);
	end_transaction();
	pgstat_report_activity(STATE_IDLE, NULL);
	return true;
}

/* ---- What the engine says ------------------------------------------------------------------------------------------------------------------ */

static void
send_order(BicycleTrainFrame type)
{
	if (connection_is_open() && !connection_queue((BicycleFrameType) type, 0, NULL, 0, NULL, 0))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

/* Checks the fixed part of a frame, and copies it. */
static void
message_head(const Message *m, void *head, size_t length)
{
	if (m->length < length)
		connection_broken();
	memcpy(head, m->body, length);
}

static bytea *
bytes_value(const void *bytes, size_t length)
{
	bytea	   *value = palloc(VARHDRSZ + length);

	SET_VARSIZE(value, VARHDRSZ + length);
	memcpy(VARDATA(value), bytes, length);
	return value;
}

/* Bits can be the same as without the interruption only if all of this is. */
static void
compare_ready(const BicycleTrainReady *ready, const char *platform)
{
	if (job.data_digest && (VARSIZE_ANY_EXHDR(job.data_digest) != sizeof(ready->data_digest) ||
							memcmp(VARDATA_ANY(job.data_digest), ready->data_digest, sizeof(ready->data_digest)) != 0))
		append_note(psprintf("iteration " INT64_FORMAT ": the query gives other pairs than before", ready->iteration));
	if (job.platform && strcmp(job.platform, platform) != 0)
		append_note(psprintf("iteration " INT64_FORMAT ": goes on on \"%s\", before on \"%s\"; results differ in rounding", ready->iteration, platform, job.platform));
}

static void
handle_ready(const Message *m)
{
	BicycleTrainReady ready;
	char	   *platform;
	JobParams	p;

	message_head(m, &ready, sizeof(ready));
	platform = client_text(pnstrdup(ready.platform, sizeof(ready.platform)));
	if (!begin_transaction())
	{
		finished = true;
		return;
	}
	if (job.checkpoint > 0)
		compare_ready(&ready, platform);
	first_param(&p);
	param_add(&p, INT8OID, Int64GetDatum(ready.iteration));
	(void) jobs_run("bicycle_training_losses", "DELETE FROM %s WHERE job = $1 AND iteration > $2", SPI_OK_DELETE, &p);
	(void) jobs_run("bicycle_training_previews", "DELETE FROM %s WHERE job = $1 AND iteration > $2", SPI_OK_DELETE, &p);
	param_add(&p, INT8OID, Int64GetDatum(ready.iterations));
	param_add(&p, BYTEAOID, PointerGetDatum(bytes_value(ready.data_digest, sizeof(ready.data_digest))));
	param_add_text(&p, platform);
	update_job("UPDATE %s SET iteration = $2, iterations = $3, data_digest = $4, platform = $5, updated_at = now() WHERE job = $1", &p);
	end_transaction();
	job.iterations = ready.iterations;
	send_order(BICYCLE_RUN);
	running = true;
	checkpoint_at = GetCurrentTimestamp();
}

static void
handle_losses(const Message *m)
{
	static const char *const names[BICYCLE_TRAIN_LOSSES] = {"G_GAN", "D", "G_GAN2", "D2", "G_L1", "z_L1", "kl"};
	BicycleLosses losses;
	StringInfoData json;
	JobParams	p;

	message_head(m, &losses, sizeof(losses));
	if (!begin_transaction())
	{
		finished = true;
		return;
	}
	initStringInfo(&json);
	for (int i = 0; i < BICYCLE_TRAIN_LOSSES; i++)
	{
		if (!(losses.present & (1u << i)))
			continue;
		first_param(&p);
		param_add(&p, INT8OID, Int64GetDatum(losses.iteration));
		param_add_text(&p, names[i]);
		param_add(&p, FLOAT8OID, Float8GetDatum(losses.value[i]));
		(void) jobs_run("bicycle_training_losses", "INSERT INTO %s (job, iteration, name, value) VALUES ($1, $2, $3, $4)"
						" ON CONFLICT (job, iteration, name) DO UPDATE SET value = EXCLUDED.value", SPI_OK_INSERT, &p);
		appendStringInfo(&json, "%c\"%s\": %.9g", json.len == 0 ? '{' : ',', names[i], losses.value[i]);
	}
	appendStringInfoString(&json, json.len == 0 ? "{}" : "}");
	first_param(&p);
	param_add(&p, INT8OID, Int64GetDatum(losses.iteration));
	param_add(&p, INT4OID, Int32GetDatum(losses.epoch));
	param_add(&p, INT4OID, Int32GetDatum(losses.epochs));
	param_add(&p, FLOAT8OID, Float8GetDatum(losses.images_per_second));
	param_add_text(&p, json.data);
	update_job("UPDATE %s SET iteration = greatest(iteration, $2), epoch = $3, epochs = $4, images_per_second = $5, losses = $6::jsonb, updated_at = now()"
			   " WHERE job = $1", &p);
	end_transaction();
}

static void
handle_preview(const Message *m)
{
	BicyclePreview preview;
	JobParams	p;

	message_head(m, &preview, sizeof(preview));
	if (!begin_transaction())
	{
		finished = true;
		return;
	}
	first_param(&p);
	param_add(&p, INT8OID, Int64GetDatum(preview.iteration));
	param_add(&p, BYTEAOID, PointerGetDatum(bytes_value(m->body + sizeof(preview), m->length - sizeof(preview))));
	(void) jobs_run("bicycle_training_previews", "INSERT INTO %s (job, iteration, image) VALUES ($1, $2, $3)"
					" ON CONFLICT (job, iteration) DO UPDATE SET image = EXCLUDED.image", SPI_OK_INSERT, &p);
	end_transaction();
}

static void
handle_note(const Message *m)
{
	if (!begin_transaction())
	{
		finished = true;
		return;
	}
	append_note(client_text(pnstrdup(m->body, m->length)));
	end_transaction();
}

static void
rewind_stream(BufFile *stream)
{
	if (stream == NULL)
		connection_broken();
	if (BufFileSeek(stream, 0, 0, SEEK_SET) != 0)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not rewind temporary file: %m")));
}

static void
handle_checkpoint(const Message *m)
{
	BicycleCheckpoint checkpoint;
	JobParams	p;
	bytea	   *chunk;
	uint64		left = m->stream_length;

	message_head(m, &checkpoint, sizeof(checkpoint));
	if (checkpoint.stream_length != m->stream_length || left == 0)
		connection_broken();
	rewind_stream(m->stream);
	if (!begin_transaction())
	{
		finished = true;
		return;
	}
	chunk = palloc(VARHDRSZ + CHUNK_BYTES);
	first_param(&p);
	param_add(&p, INT8OID, Int64GetDatum(checkpoint.iteration));
	(void) jobs_run("bicycle_training_checkpoints", "DELETE FROM %s WHERE job = $1 AND iteration >= $2", SPI_OK_DELETE, &p);
	param_add(&p, INT4OID, (Datum) 0);
	param_add(&p, BYTEAOID, PointerGetDatum(chunk));
	for (int number = 0; left > 0; number++)
	{
		size_t		n = Min(left, CHUNK_BYTES);

		if (BufFileRead(m->stream, VARDATA(chunk), n) != n)
			elog(ERROR, "could not read back a checkpoint");
		SET_VARSIZE(chunk, VARHDRSZ + n);
		p.values[2] = Int32GetDatum(number);
		(void) jobs_run("bicycle_training_checkpoints", "INSERT INTO %s (job, iteration, chunk, data) VALUES ($1, $2, $3, $4)", SPI_OK_INSERT, &p);
		left -= n;
	}
	p.n = 1;
	param_add(&p, INT4OID, Int32GetDatum(CHECKPOINTS_KEPT));
	(void) jobs_run("bicycle_training_checkpoints", "DELETE FROM %1$s WHERE job = $1 AND iteration NOT IN"
					" (SELECT DISTINCT iteration FROM %1$s WHERE job = $1 ORDER BY iteration DESC LIMIT $2)", SPI_OK_DELETE, &p);
	first_param(&p);
	param_add(&p, INT8OID, Int64GetDatum(checkpoint.iteration));
	update_job("UPDATE %s SET checkpoint = $2, iteration = greatest(iteration, $2), attempts = 0, error = NULL, sqlstate = NULL, updated_at = now() WHERE job = $1", &p);
	end_transaction();
	job.checkpoint = checkpoint.iteration;
	job.attempts = 0;
	checkpoint_at = GetCurrentTimestamp();
}

/* The engine has stopped, or has not begun.  Meanwhile the row may have been told otherwise: resumed, it waits for the launcher. */
static void
handle_paused(void)
{
	JobParams	p;

	finished = true;
	if (!begin_transaction())
		return;
	first_param(&p);
	update_job("UPDATE %s SET state = CASE wanted WHEN 'running' THEN 'queued' ELSE wanted END, wanted = 'running', attempts = 0, next_attempt = now(),"
			   " images_per_second = NULL, updated_at = now() WHERE job = $1", &p);
	end_transaction();
}

static char *
option_text(const char *name)
{
	Datum		options = DirectFunctionCall1(jsonb_in, CStringGetDatum(job.options));
	Datum		value = DirectFunctionCall2(jsonb_object_field_text, options, PointerGetDatum(cstring_to_text(name)));

	return TextDatumGetCString(value);
}

/* Stores the model as the job's owner; it becomes current only if the version that training started from still is. */
static void
handle_done(const Message *m)
{
	BicycleImported head;
	JobParams	p;
	int			version;

	message_head(m, &head, sizeof(head));
	if (m->length - sizeof(head) != head.config_length || head.stream_length != m->stream_length)
		connection_broken();
	rewind_stream(m->stream);
	if (!begin_transaction())
	{
		finished = true;
		return;
	}
	version = model_store(job.model, option_text("method"), start_iterations + job.iterations, &head, pnstrdup(m->body + sizeof(head), head.config_length),
						  m->stream, &job.start_version);
	first_param(&p);
	(void) jobs_run("bicycle_training_checkpoints", "DELETE FROM %s WHERE job = $1", SPI_OK_DELETE, &p);
	param_add(&p, INT4OID, Int32GetDatum(version));
	update_job("UPDATE %s SET state = 'done', wanted = 'running', version = $2, iteration = iterations, checkpoint = 0, attempts = 0, error = NULL, sqlstate = NULL,"
			   " updated_at = now() WHERE job = $1", &p);
	end_transaction();
	finished = true;
}

static void
handle(const Message *m)
{
	switch ((BicycleTrainFrame) m->type)
	{
		case BICYCLE_TRAIN_READY:
			handle_ready(m);
			break;
		case BICYCLE_LOSSES:
			handle_losses(m);
			break;
		case BICYCLE_PREVIEW:
			handle_preview(m);
			break;
		case BICYCLE_NOTE:
			handle_note(m);
			break;
		case BICYCLE_CHECKPOINT:
			handle_checkpoint(m);
			break;
		case BICYCLE_PAUSED:
			handle_paused();
			break;
		case BICYCLE_TRAIN_DONE:
			handle_done(m);
			break;
		default:
			connection_broken();
	}
}

static void
handle_messages(void)
{
	while (!finished && !dlist_is_empty(&messages))
	{
		Message    *m = dlist_head_element(Message, node, &messages);

		if (!m->complete)
			return;
		handle(m);
		free_message(m);
	}
}

/* ---- The run ------------------------------------------------------------------------------------------------------------------------------- */

/* Has the row been told to pause or to cancel? */
static void
look_at_row(void)
{
	Job			now;
	bool		stop;

	if (!begin_transaction())
	{
		finished = true;
		return;
	}
	if (!job_read(job.job, &now, false))
		finished = true;
	stop = !finished && strcmp(now.wanted, "running") != 0;
	end_transaction();
	if (!stop || ordered)
		return;
	ordered = true;
	if (running)
		send_order(BICYCLE_PAUSE);
	else
		handle_paused();		/* nothing was computed since the last checkpoint */
}

static void
heartbeat(void)
{
	TimestampTz now = GetCurrentTimestamp();
	char		ping[64];

	if (TimestampDifferenceExceeds(ponged_at, now, PONG_TIMEOUT))
	{
		strlcpy(last_words, "it did not answer and was killed", sizeof(last_words));
		kill(engine_pid, SIGKILL);
		ponged_at = now;
	}
	else if (TimestampDifferenceExceeds(pinged_at, now, PING_INTERVAL))
	{
		engine_tell(control_fd, ping, snprintf(ping, sizeof(ping), "ping " INT64_FORMAT "\n", (int64) now));
		pinged_at = now;
	}
	if (running && !ordered && TimestampDifferenceExceeds(checkpoint_at, now, CHECKPOINT_INTERVAL))
	{
		send_order(BICYCLE_CHECKPOINT_NOW);
		checkpoint_at = now;
	}
}

/* The server stops, or somebody has terminated this worker: a last checkpoint if it comes soon.  The job stays running and is resumed by the launcher. */
static void
stop_early(void)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), STOP_TIMEOUT);
	int64		before = job.checkpoint;
	JobParams	p;

	if (running)
		send_order(BICYCLE_CHECKPOINT_NOW);
	while (running && !finished && connection_is_open() && job.checkpoint == before && GetCurrentTimestamp() < deadline)
	{
		connection_flush();
		if (connection_is_open() && !connection_read())
			connection_wait(Max(1, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline)));
		handle_messages();
	}
	if (!connection_is_open())
		lost();
	if (finished || !begin_transaction())
		return;
	first_param(&p);
	update_job("UPDATE %s SET attempts = greatest(attempts - 1, 0), next_attempt = now() WHERE job = $1", &p);
	end_transaction();
}

static void
train(void)
{
	MemoryContext turn = AllocSetContextCreate(run_context, "bicycle trainer turn", ALLOCSET_DEFAULT_SIZES);

	ponged_at = GetCurrentTimestamp();
	look_at_row();
	while (!finished)
	{
		MemoryContextSwitchTo(turn);
		MemoryContextReset(turn);
		CHECK_FOR_INTERRUPTS();
		if (ShutdownRequestPending)
		{
			stop_early();
			return;
		}
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			send_settings(false);
		}
		read_control();
		handle_messages();
		if (finished)
			return;
		if (!connection_is_open())
			lost();
		if (trainer_poked())
			look_at_row();
		heartbeat();
		connection_flush();
		if (connection_is_open() && !connection_read())
			connection_wait(TURN_TIMEOUT);
	}
}

/* Reads the row and makes it running; false if there is nothing to do. */
static bool
begin_job(int64 number)
{
	MemoryContext old;
	JobParams	p;
	Job			row;
	bool		mine;

	if (!begin_transaction())
		return false;
	mine = job_read(number, &row, true) && job_is_active(&row) && row.owner == GetUserId() && strcmp(row.wanted, "running") == 0;
	if (mine)
	{
		old = MemoryContextSwitchTo(run_context);
		job = row;
		job.model = pstrdup(row.model);
		job.pairs = pstrdup(row.pairs);
		job.search_path = pstrdup(row.search_path);
		job.options = pstrdup(row.options);
		job.platform = row.platform ? pstrdup(row.platform) : NULL;
		job.data_digest = row.data_digest ? (bytea *) bytes_value(VARDATA_ANY(row.data_digest), VARSIZE_ANY_EXHDR(row.data_digest)) : NULL;
		job.state = job.wanted = job.error = NULL;
		job.attempts++;
		MemoryContextSwitchTo(old);
		first_param(&p);
		param_add(&p, INT4OID, Int32GetDatum(job.attempts));
		param_add(&p, FLOAT8OID, Float8GetDatum(RETRY_FIRST / 1000.0 * (1 << (Min(job.attempts, JOB_TRIES) - 1))));
		if (job.attempts > JOB_TRIES)
			update_job("UPDATE %s SET state = 'failed', sqlstate = coalesce(sqlstate, '58000'), error = concat(coalesce(error, 'training ended unexpectedly'),"
					   " ' (', $2 - 1, ' tries)'), updated_at = now() + $3 * interval '0' WHERE job = $1", &p);
		else
			update_job("UPDATE %s SET state = 'running', attempts = $2, next_attempt = now() + $3 * interval '1 second',"
					   " started_at = coalesce(started_at, now()), updated_at = now() WHERE job = $1", &p);
		mine = job.attempts <= JOB_TRIES && !finished;
	}
	end_transaction();
	return mine;
}

/* Another try may help: the engine died, or the machine was short of something. */
static bool
may_try_again(const ErrorData *error)
{
	return job.attempts < JOB_TRIES &&
		(ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_TO_CATEGORY(ERRCODE_CONNECTION_FAILURE) ||
		 ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_TO_CATEGORY(ERRCODE_TRANSACTION_ROLLBACK) ||
		 ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES));
}

/* The run has failed: the real error goes to the row, and the job ends or waits for its next try. */
static void
note_failure(const ErrorData *error)
{
	StringInfoData text;
	JobParams	p;

	initStringInfo(&text);
	appendStringInfoString(&text, error->message);
	if (error->detail)
		appendStringInfo(&text, "\n%s", error->detail);
	if (error->hint)
		appendStringInfo(&text, "\n%s", error->hint);
	if (!begin_transaction())
		return;
	first_param(&p);
	param_add_text(&p, text.data);
	param_add_text(&p, unpack_sql_state(error->sqlerrcode == ERRCODE_CONNECTION_FAILURE ? ERRCODE_SYSTEM_ERROR : error->sqlerrcode));
	update_job(may_try_again(error) ?
			   "UPDATE %s SET error = $2, sqlstate = $3, updated_at = now() WHERE job = $1" :
			   "UPDATE %s SET state = 'failed', wanted = 'running', error = $2, sqlstate = $3, updated_at = now() WHERE job = $1", &p);
	end_transaction();
}

/* The transaction that has started the job may still run.  Having waited, its row is there or never will be. */
static void
wait_for_creator(TransactionId creator)
{
	StartTransactionCommand();
	if (TransactionIdIsInProgress(creator))
		XactLockTableWait(creator, NULL, NULL, XLTW_None);
	CommitTransactionCommand();
}

static void
own_settings(void)
{
	SetConfigOption("default_transaction_read_only", "off", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_deferrable", "off", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION);
}

void
bicycle_trainer_main(Datum arg)
{
	TrainerStart start;
	ErrorData  *volatile error = NULL;

	memcpy(&start, MyBgworkerEntry->bgw_extra, sizeof(start));
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(start.database, start.owner, 0);
	run_context = AllocSetContextCreate(TopMemoryContext, "bicycle trainer", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(run_context);
	own_settings();
	if (TransactionIdIsValid(start.creator))
		wait_for_creator(start.creator);
	if (!trainer_claim(start.database, start.job))
		proc_exit(0);

	PG_TRY();
	{
		if (begin_job(start.job))
		{
			start_engine();
			if (feed_engine())
			{
				/* From here on an end waits for a checkpoint, and a cancel has nothing to cancel. */
				pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
				pqsignal(SIGINT, SIG_IGN);
				train();
			}
		}
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(run_context);
		HOLD_INTERRUPTS();
		EmitErrorReport();
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	if (error)
		note_failure(error);
	kill_engine();
	proc_exit(0);
}
