/*
 * session.c
 *	  This session's connection to the engine: bytes in and out, whole frames.
 *
 * R1 One connection a session. It is opened on first use, and kept until the
 *    session ends, the engine ends or call.c drops it.
 * R2 Nothing blocks outside WaitLatchOrSocket and a condition variable, and
 *    each wait checks for interrupts. The descriptor does not block.
 * R3 Who waits to write reads as well.
 * R4 Frames go up to who listens (session_listen); nothing here knows what they
 *    mean, but for HELLO and an ERROR of the connection itself.
 *
 * Memory is session_memory(): the queues of both directions.
 */
#include "pg/session.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "common/invariant.h"

#define ENGINE_WAIT (30 * 1000)   /* ms that a statement waits for an engine that is not there */
#define RECONNECT_WAIT 20         /* ms between tries until the supervisor has seen it die */
#define KEEP_BUFFER (1024 * 1024) /* an empty queue larger than this is given back */

/* Bytes are appended at `end` and taken from `start`. */
typedef struct ByteQueue
{
	char *data;
	size_t start;
	size_t end;
	size_t capacity;
} ByteQueue;

static int sock = -1;
static bool greeted;  /* the engine has answered our HELLO */
static bool training; /* it is a training engine */
static SessionFrame take_frame = NULL;
static void (*tell_lost)(bool died) = NULL;
static ByteQueue out; /* whole frames, the first perhaps partly sent */
static ByteQueue in;  /* frames as they come */
static uint32 wait_connect = 0;
static uint32 wait_engine = 0;

MemoryContext
session_memory(void)
{
	static MemoryContext context = NULL;

	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "bicycle client", ALLOCSET_DEFAULT_SIZES);
	return context;
}

/* ---- Byte queues --------------------------------------------------------- */

static void
queue_clear(ByteQueue *q)
{
	q->start = q->end = 0;
	if (q->capacity > KEEP_BUFFER)
	{
		pfree(q->data);
		q->data = NULL;
		q->capacity = 0;
	}
}

/*
 * Makes room for `more` bytes at the end. Returns false, with nothing changed,
 * if there is no memory; never raises.
 */
static bool
queue_room(ByteQueue *q, size_t more)
{
	size_t used = q->end - q->start;
	size_t capacity;
	char *data;

	if (q->capacity - q->end >= more)
		return true;
	if (q->capacity - used >= more && q->start >= used)
	{
		memcpy(q->data, q->data + q->start, used);
		q->start = 0;
		q->end = used;
		return true;
	}
	capacity = Max(used + more, Min(2 * q->capacity, used + more + KEEP_BUFFER));
	capacity = Max(capacity, 64 * 1024);
	data =
		MemoryContextAllocExtended(session_memory(), capacity, MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (data == NULL)
		return false;
	if (q->data)
	{
		memcpy(data, q->data + q->start, used);
		pfree(q->data);
	}
	q->data = data;
	q->capacity = capacity;
	q->start = 0;
	q->end = used;
	return true;
}

static void
queue_append(ByteQueue *q, const void *bytes, size_t length)
{
	INVARIANT(q->capacity - q->end >= length);
	memcpy(q->data + q->end, bytes, length);
	q->end += length;
}

static void
queue_check(const ByteQueue *q)
{
	INVARIANT(q->start <= q->end && q->end <= q->capacity);
	INVARIANT((q->data == NULL) == (q->capacity == 0));
}

bool
session_checking(void)
{
	return bicycle_debug || invariant_checking();
}

/* Nothing waits for a connection that is not there. */
void
session_check(void)
{
	queue_check(&out);
	queue_check(&in);
	INVARIANT(sock >= 0 || (!greeted && out.end == out.start && in.end == in.start));
	INVARIANT(!training || greeted || sock < 0);
	INVARIANT(take_frame != NULL && tell_lost != NULL);
}

bool
session_queue(BicycleFrameType type, uint64 id, const void *head, size_t head_length,
			  const void *tail, size_t tail_length)
{
	BicycleFrame frame = { .length = head_length + tail_length, .type = type, .id = id };

	if (!queue_room(&out, sizeof(frame) + head_length + tail_length))
		return false;
	queue_append(&out, &frame, sizeof(frame));
	if (head_length > 0)
		queue_append(&out, head, head_length);
	if (tail_length > 0)
		queue_append(&out, tail, tail_length);
	return true;
}

size_t
session_pending(void)
{
	return out.end - out.start;
}

/* ---- Ending -------------------------------------------------------------- */

bool
session_is_open(void)
{
	return sock >= 0 && greeted;
}

bool
session_is_training(void)
{
	return training;
}

void
session_drop(bool died)
{
	if (sock >= 0)
	{
		close(sock);
		ReleaseExternalFD();
	}
	sock = -1;
	greeted = false;
	queue_clear(&out);
	queue_clear(&in);
	if (tell_lost)
		tell_lost(died);
}

void
session_broken(void)
{
	session_drop(false);
	ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION),
					errmsg("bicycle engine sent something that is not understood"),
					errhint("Restart the server if bicycle has been upgraded.")));
}

static void
close_at_exit(int code, Datum arg)
{
	session_drop(false);
}

/* ---- Errors of the engine ------------------------------------------------ */

static void
replace_unfit(char *words)
{
	size_t length = strlen(words);
	bool fits = GetDatabaseEncoding() == PG_UTF8 && pg_verify_mbstr(PG_UTF8, words, length, true);

	for (char *c = words; *c; c++)
		if ((unsigned char) *c < ' ' || *c == 0x7f || (!fits && IS_HIGHBIT_SET(*c)))
			*c = '?';
}

char *
session_text(const char *words)
{
	char *copy = pstrdup(words);

	replace_unfit(copy);
	return copy;
}

int
session_error(const char *body, size_t length, MemoryContext context, char *words[3])
{
	BicycleError error;
	size_t lengths[3];
	const char *next = body + sizeof(error);

	if (length < sizeof(error))
		session_broken();
	memcpy(&error, body, sizeof(error));
	lengths[0] = error.message_length;
	lengths[1] = error.detail_length;
	lengths[2] = error.hint_length;
	if (sizeof(error) + lengths[0] + lengths[1] + lengths[2] > length ||
		memchr(error.sqlstate, '\0', sizeof(error.sqlstate)) != error.sqlstate + 5)
		session_broken();
	for (int i = 0; i < 3; i++)
	{
		size_t n = lengths[i] > 0 ? strnlen(next, lengths[i]) : 0;

		words[i] = MemoryContextAlloc(context, n + 1);
		memcpy(words[i], next, n);
		words[i][n] = '\0';
		replace_unfit(words[i]);
		next += lengths[i];
	}
	return MAKE_SQLSTATE(error.sqlstate[0], error.sqlstate[1], error.sqlstate[2], error.sqlstate[3],
						 error.sqlstate[4]);
}

void
session_report(int sqlstate, char *const words[3])
{
	ereport(ERROR, (errcode(sqlstate), errmsg_internal("%s", words[0]),
					words[1][0] ? errdetail_internal("%s", words[1]) : 0,
					words[2][0] ? errhint("%s", words[2]) : 0));
}

/* ---- Moving bytes -------------------------------------------------------- */

bool
session_flush(void)
{
	bool sent = false;

	while (out.end > out.start)
	{
		ssize_t n =
			send(sock, out.data + out.start, out.end - out.start, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0)
		{
			out.start += n;
			sent = true;
		}
		else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return sent;
		else if (n < 0 && errno != EINTR)
			out.start = out.end; /* what it sent before it closed, perhaps why, is read first */
	}
	queue_clear(&out);
	return sent;
}

static void
take_hello(const BicycleFrame *frame, const char *body)
{
	BicycleHello hello;

	if (frame->type == BICYCLE_ERROR)
	{
		char *words[3];
		int sqlstate = session_error(body, frame->length, CurrentMemoryContext, words);

		session_drop(false);
		session_report(sqlstate, words);
	}
	if (frame->type != BICYCLE_HELLO || frame->length < sizeof(hello))
		session_broken();
	memcpy(&hello, body, sizeof(hello));
	if (hello.magic != BICYCLE_MAGIC || hello.protocol != BICYCLE_PROTOCOL ||
		strncmp(hello.build, BICYCLE_VERSION, sizeof(hello.build)) != 0)
	{
		session_drop(false);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("bicycle engine is of another version"),
				 errdetail("The library is version %s, the engine is %.32s.", BICYCLE_VERSION,
						   hello.build),
				 errhint("Restart the server after bicycle has been upgraded, and reconnect.")));
	}
	greeted = true;
}

/*
 * Hands on the whole frames in the queue; stops if one of them ended the
 * connection.
 */
static void
take_frames(void)
{
	while (in.end - in.start >= sizeof(BicycleFrame))
	{
		BicycleFrame frame;
		const char *body;

		memcpy(&frame, in.data + in.start, sizeof(frame));
		if (frame.length > MaxAllocSize / 2)
			session_broken();
		if (in.end - in.start < sizeof(frame) + frame.length)
		{
			if (!queue_room(&in, sizeof(frame) + frame.length - (in.end - in.start)))
				ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory"),
								errdetail("An answer of the bicycle engine did not fit.")));
			return;
		}
		body = in.data + in.start + sizeof(frame);
		in.start += sizeof(frame) + frame.length;
		if (!greeted || (frame.type == BICYCLE_ERROR && frame.id == 0))
			take_hello(&frame, body);
		else
			take_frame(&frame, body);
	}
	if (in.end == in.start)
		queue_clear(&in);
}

bool
session_read(void)
{
	ssize_t n;

	if (!queue_room(&in, 64 * 1024))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory"),
						errdetail("An answer of the bicycle engine did not fit.")));
	do
		n = recv(sock, in.data + in.end, in.capacity - in.end, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n > 0)
	{
		in.end += n;
		take_frames();
		return true;
	}
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return false;
	session_drop(true);
	return true;
}

void
session_wait(long timeout)
{
	int events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_SOCKET_READABLE;

	if (session_checking())
		session_check();
	if (session_pending() > 0)
		events |= WL_SOCKET_WRITEABLE;
	if (timeout >= 0)
		events |= WL_TIMEOUT;
	events = WaitLatchOrSocket(MyLatch, events, sock, timeout,
							   BicycleWaitEvent(wait_engine, "BicycleEngine"));
	if (events & WL_LATCH_SET)
		ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* ---- Connecting ---------------------------------------------------------- */

/*
 * connect() to the engine's socket. It lies in the data directory, which is the
 * working directory of a server process; if something has changed that, the
 * directory's path may be too long for an address, so it is reached through a
 * descriptor.
 */
static int
connect_in_data_directory(int fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int directory;
	int save_errno;
	int rc;

	strlcpy(address.sun_path, BICYCLE_SOCKET, sizeof(address.sun_path));
	rc = connect(fd, (struct sockaddr *) &address, sizeof(address));
	if (rc == 0 || errno != ENOENT)
		return rc;
	directory = open(DataDir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0)
		return -1;
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", directory,
			 BICYCLE_SOCKET);
	rc = connect(fd, (struct sockaddr *) &address, sizeof(address));
	save_errno = errno;
	close(directory);
	errno = save_errno;
	return rc;
}

/*
 * The descriptor of a new connection to a process of our user, or -1. 53000 if
 * the session has too many sockets and the like already.
 */
static int
connect_to_engine(void)
{
	struct ucred peer;
	socklen_t length = sizeof(peer);
	int fd;

	if (!AcquireExternalFD())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES),
						errmsg("could not connect to the bicycle engine"),
						errdetail("This session has too many open files and connections."),
						errhint("Close connections of this session to other servers, or raise "
								"max_files_per_process.")));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect_in_data_directory(fd) == 0 &&
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.uid == geteuid())
		return fd;
	if (fd >= 0)
		close(fd);
	ReleaseExternalFD();
	return -1;
}

void
session_listen(SessionFrame frame, void (*lost)(bool died))
{
	take_frame = frame;
	tell_lost = lost;
}

void
session_adopt(int fd, SessionFrame frame)
{
	INVARIANT(sock < 0);
	sock = fd;
	greeted = true;
	training = true;
	take_frame = frame;
	before_shmem_exit(close_at_exit, (Datum) 0);
}

/*
 * One try to connect and to exchange HELLO; false if the engine is not there or
 * goes away.
 */
static bool
try_to_connect(TimestampTz deadline)
{
	BicycleHello hello = { .magic = BICYCLE_MAGIC,
						   .protocol = BICYCLE_PROTOCOL,
						   .database = MyDatabaseId,
						   .pid = MyProcPid };

	sock = connect_to_engine();
	if (sock < 0)
		return false;
	strlcpy(hello.build, BICYCLE_VERSION, sizeof(hello.build));
	if (!session_queue(BICYCLE_HELLO, 0, &hello, sizeof(hello), NULL, 0))
		session_drop(false);
	while (sock >= 0 && !greeted)
	{
		long left;

		(void) session_flush();
		if (session_read())
			continue;
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		if (left > 0)
			session_wait(left);
		else
			session_drop(false);
	}
	return greeted;
}

static void
report_no_engine(const char *last_error)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("bicycle engine is not running"),
					last_error[0] ? errdetail("The last error was: %s", last_error) : 0,
					errhint("Look for lines of the bicycle engine and supervisor in the server "
							"log, and check the settings of bicycle.")));
}

bool
session_open(bool missing_ok)
{
	static bool at_exit_registered = false;
	BicycleShared *shared;
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ENGINE_WAIT);
	char last_error[sizeof(shared->last_error)];
	EngineState state;

	if (session_is_open())
		return true;
	if (training)
		elog(ERROR, "a job worker has no other engine than its own");
	session_drop(false); /* an interrupt may have left it half open */
	if (!IsUnderPostmaster || IsBinaryUpgrade)
		report_no_engine("The server runs in single-user or upgrade mode.");
	if (!at_exit_registered)
	{
		before_shmem_exit(close_at_exit, (Datum) 0);
		at_exit_registered = true;
	}
	shared = shared_attach();
	ConditionVariablePrepareToSleep(&shared->changed);
	for (;;)
	{
		if (!supervisor_ensure(missing_ok))
		{
			ConditionVariableCancelSleep();
			return false;
		}
		LWLockAcquire(&shared->lock, LW_SHARED);
		state = shared->state;
		strlcpy(last_error, shared->last_error, sizeof(last_error));
		LWLockRelease(&shared->lock);
		if (state == ENGINE_READY && try_to_connect(deadline))
			break;
		if (state == ENGINE_FAILED || GetCurrentTimestamp() >= deadline)
		{
			ConditionVariableCancelSleep();
			if (missing_ok)
				return false;
			report_no_engine(last_error);
		}
		ConditionVariableTimedSleep(&shared->changed, state == ENGINE_READY ? RECONNECT_WAIT : 200,
									BicycleWaitEvent(wait_connect, "BicycleEngineStart"));
	}
	ConditionVariableCancelSleep();
	return true;
}
