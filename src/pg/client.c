/*
 * client.c
 *	  This session's connection to the engine, and the requests on it.
 *
 * One connection a session, opened on first use and kept.  A Request is owned by the resource owner that was current when it was made: if that owner is
 * released with the request still open (an error, a rolled back savepoint, a closed portal) the request is withdrawn with CANCEL.  If cancels are still
 * unanswered at the end of the transaction the connection is closed, so that an idle session never holds a place in the engine's queue.
 *
 * Nothing here blocks outside WaitLatchOrSocket and condition variables, and each wait checks for interrupts.  The client reads whatever there is whenever
 * it waits to write, and keeps answers to requests that nobody waits for yet.
 *
 * When the connection is lost, requests whose body is in memory go back to UNSENT and are sent again once the engine is back.  One for which the engine had
 * reported STARTED has then used up one attempt and asks to be run alone; after two it fails with 58000 and its digest is refused for some minutes.
 *
 * Memory: everything lives in client_context, below TopMemoryContext, because requests are cleaned up after the memory of a failed statement is gone.
 */
#include "bicycle.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "access/xact.h"
#include "common/hashfn.h"
#include "lib/ilist.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#define ENGINE_WAIT		(30 * 1000) /* ms that a statement waits for an engine that is not there */
#define RECONNECT_WAIT	20		/* ms between tries while the supervisor has not yet seen that the engine died */
#define MAX_ATTEMPTS	2		/* starts that may end with the engine's death */
#define MAX_LOSSES		100		/* connections that one request may lose without having been started */
#define MAX_LOADS		5		/* times that one request may ask for its model without being started */
#define WRITE_AHEAD		(1024 * 1024)	/* bytes of a stream that wait in our buffer before its producer waits */
#define DATA_FRAME		(256 * 1024)
#define KEEP_BUFFER		(1024 * 1024)	/* an empty buffer larger than this is given back */

typedef enum RequestKind
{
	KIND_IMAGE,					/* takes a RESERVE; the body is kept and sent again if need be */
	KIND_PLAIN,					/* no body */
	KIND_STREAM					/* its caller writes and reads streams, and starts again if the connection is lost */
} RequestKind;

typedef enum RequestState
{
	REQUEST_UNSENT,
	REQUEST_RESERVED,			/* KIND_IMAGE: waits for its GRANT */
	REQUEST_SENT,
	REQUEST_DONE,				/* has its RESULT; a stream of DATA may still follow */
	REQUEST_FAILED,
	REQUEST_LOST				/* KIND_STREAM: the connection is gone */
} RequestState;

struct Request
{
	dlist_node	node;			/* in `requests` */
	ResourceOwner owner;
	uint64		id;
	BicycleFrameType type;
	RequestKind kind;
	RequestState state;
	bool		granted;
	bool		started;
	bool		need_model;
	int			attempts;
	int			losses;
	int			loads;
	Model	   *model;			/* NULL: none */
	char	   *body;			/* KIND_IMAGE: BicycleImageRequest, z, image */
	size_t		body_length;
	RequestDigest digest;
	char	   *result;
	size_t		result_length;
	StringInfoData stream;		/* DATA received; data is NULL until the first */
	size_t		stream_read;	/* bytes of it that were handed on */
	bool		stream_ended;
	int			sqlstate;		/* REQUEST_FAILED */
	char	   *message;
	char	   *detail;			/* "" if none */
	char	   *hint;
};

typedef struct ByteQueue
{
	char	   *data;
	size_t		start;			/* first byte in use */
	size_t		end;
	size_t		capacity;
} ByteQueue;

static MemoryContext client_context = NULL;
static dlist_head requests = DLIST_STATIC_INIT(requests);
static uint64 last_id = 0;

static int	sock = -1;
static bool greeted;			/* the engine has answered our HELLO */
static ByteQueue out;				/* whole frames, the first perhaps partly sent */
static ByteQueue in;				/* frames as they come */
static int	unacknowledged = 0; /* CANCELs without a CANCELLED */
static TimestampTz credit_clock;	/* when the wait for a GRANT began, or last saw progress */
static bool loading = false;	/* inside stream_load: models are not asked for while one is being read */
static bool lost_after_start;	/* how the last KIND_STREAM request was lost */
static uint32 wait_connect = 0;
static uint32 wait_engine = 0;

/* ---- Buffers ------------------------------------------------------------------------------------------------------------------------------- */

static void
buffer_clear(ByteQueue *b)
{
	b->start = b->end = 0;
	if (b->capacity > KEEP_BUFFER)
	{
		pfree(b->data);
		b->data = NULL;
		b->capacity = 0;
	}
}

/* Makes room for `more` bytes at the end.  Returns false, with nothing changed, if there is no memory; never raises. */
static bool
buffer_room(ByteQueue *b, size_t more)
{
	size_t		used = b->end - b->start;
	size_t		capacity;
	char	   *data;

	if (b->capacity - b->end >= more)
		return true;
	if (b->capacity - used >= more && b->start >= used)
	{
		memcpy(b->data, b->data + b->start, used);
		b->start = 0;
		b->end = used;
		return true;
	}
	capacity = Max(used + more, Min(2 * b->capacity, used + more + KEEP_BUFFER));
	capacity = Max(capacity, 64 * 1024);
	data = MemoryContextAllocExtended(client_context, capacity, MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (data == NULL)
		return false;
	if (b->data)
	{
		memcpy(data, b->data + b->start, used);
		pfree(b->data);
	}
	b->data = data;
	b->capacity = capacity;
	b->start = 0;
	b->end = used;
	return true;
}

static void
buffer_append(ByteQueue *b, const void *bytes, size_t length)
{
	memcpy(b->data + b->end, bytes, length);
	b->end += length;
}

/* Queues a frame whose body is in two parts; false if there is no memory for it. */
static bool
queue_frame(BicycleFrameType type, uint64 id, const void *head, size_t head_length, const void *tail, size_t tail_length)
{
	BicycleFrame frame = {.length = head_length + tail_length, .type = type, .id = id};

	if (!buffer_room(&out, sizeof(frame) + head_length + tail_length))
		return false;
	buffer_append(&out, &frame, sizeof(frame));
	if (head_length > 0)
		buffer_append(&out, head, head_length);
	if (tail_length > 0)
		buffer_append(&out, tail, tail_length);
	return true;
}

static void
must_queue(bool queued)
{
	if (!queued)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory"), errdetail("A request to the bicycle engine did not fit.")));
}

/* ---- Requests ------------------------------------------------------------------------------------------------------------------------------ */

static Request *
request_new(BicycleFrameType type, RequestKind kind)
{
	Request    *r;

	if (client_context == NULL)
		client_context = AllocSetContextCreate(TopMemoryContext, "bicycle client", ALLOCSET_DEFAULT_SIZES);
	r = MemoryContextAllocZero(client_context, sizeof(Request));
	r->id = ++last_id;
	r->type = type;
	r->kind = kind;
	r->state = REQUEST_UNSENT;
	r->owner = CurrentResourceOwner;
	dlist_push_tail(&requests, &r->node);
	return r;
}

static void
free_if(void *p)
{
	if (p)
		pfree(p);
}

static void
request_destroy(Request *r)
{
	dlist_delete(&r->node);
	free_if(r->model);
	free_if(r->body);
	free_if(r->result);
	free_if(r->stream.data);
	free_if(r->message);
	free_if(r->detail);
	free_if(r->hint);
	pfree(r);
}

/* The engine may still send frames for it, or keep a place for it. */
static bool
request_is_open(const Request *r)
{
	switch (r->state)
	{
		case REQUEST_RESERVED:
		case REQUEST_SENT:
			return true;
		case REQUEST_DONE:
			return r->kind == KIND_STREAM && r->type != BICYCLE_LOAD && !r->stream_ended;
		default:
			return false;
	}
}

/* The open request that a frame is for; NULL if it has been withdrawn. */
static Request *
frame_request(const BicycleFrame *frame)
{
	dlist_iter	iter;

	dlist_foreach(iter, &requests)
	{
		Request    *r = dlist_container(Request, node, iter.cur);

		if (r->id == frame->id)
			return request_is_open(r) ? r : NULL;
	}
	return NULL;
}

static void
request_fail(Request *r, int sqlstate, const char *message, const char *detail, const char *hint)
{
	r->sqlstate = sqlstate;
	r->message = MemoryContextStrdup(client_context, message);
	r->detail = MemoryContextStrdup(client_context, detail);
	r->hint = MemoryContextStrdup(client_context, hint);
	r->state = REQUEST_FAILED;
}

/* Raises the error of a failed request and frees it. */
static void
request_raise(Request *r)
{
	int			sqlstate = r->sqlstate;
	char	   *message = pstrdup(r->message);
	char	   *detail = pstrdup(r->detail);
	char	   *hint = pstrdup(r->hint);

	request_destroy(r);
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg_internal("%s", message),
			 detail[0] ? errdetail_internal("%s", detail) : 0,
			 hint[0] ? errhint("%s", hint) : 0));
}

/* ---- The connection ------------------------------------------------------------------------------------------------------------------------ */

/*
 * Forgets the connection.  `died`: it was the engine that ended it, so requests that it had started have used up an attempt.  Allocates nothing and raises
 * nothing: also called while a transaction aborts.
 */
static void
connection_drop(bool died)
{
	dlist_iter	iter;

	if (sock >= 0)
		close(sock);
	sock = -1;
	greeted = false;
	unacknowledged = 0;
	buffer_clear(&out);
	buffer_clear(&in);
	dlist_foreach(iter, &requests)
	{
		Request    *r = dlist_container(Request, node, iter.cur);

		if (!request_is_open(r))
			continue;
		if (r->kind == KIND_STREAM)
		{
			lost_after_start = died && r->started;
			r->state = REQUEST_LOST;
			continue;
		}
		if (died && r->started)
			r->attempts++;
		r->losses++;
		r->state = REQUEST_UNSENT;
		r->granted = r->started = r->need_model = false;
	}
}

/* Sends what can be sent now; returns whether anything was. */
static bool
connection_flush(void)
{
	bool		sent = false;

	while (out.end > out.start)
	{
		ssize_t		n = send(sock, out.data + out.start, out.end - out.start, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0)
		{
			out.start += n;
			sent = true;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return sent;
		/* The engine may have said why before it closed: what it sent is read first. */
		out.start = out.end;
	}
	buffer_clear(&out);
	return sent;
}


/* In place. */
static void
replace_unfit(char *text)
{
	size_t		length = strlen(text);
	bool		fits = GetDatabaseEncoding() == PG_UTF8 && pg_verify_mbstr(PG_UTF8, text, length, true);

	for (char *c = text; *c; c++)
		if ((unsigned char) *c < ' ' || *c == 0x7f || (!fits && IS_HIGHBIT_SET(*c)))
			*c = '?';
}

char *
client_text(const char *text)
{
	char	   *copy = pstrdup(text);

	replace_unfit(copy);
	return copy;
}

static char *
clean_text(const char *text, size_t length)
{
	char	   *copy = MemoryContextAlloc(client_context, length + 1);

	memcpy(copy, text, length);
	copy[length] = '\0';
	replace_unfit(copy);
	return copy;
}

static void
broken_protocol(void)
{
	connection_drop(false);
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("bicycle engine sent something that is not understood")));
}

/* Takes apart a BicycleError; the texts are in client_context. */
static int
parse_error(const char *body, size_t length, char *text[3])
{
	BicycleError error;
	size_t		lengths[3];
	const char *next = body + sizeof(error);

	if (length < sizeof(error))
		broken_protocol();
	memcpy(&error, body, sizeof(error));
	lengths[0] = error.message_length;
	lengths[1] = error.detail_length;
	lengths[2] = error.hint_length;
	if (sizeof(error) + lengths[0] + lengths[1] + lengths[2] > length || memchr(error.sqlstate, '\0', sizeof(error.sqlstate)) != error.sqlstate + 5)
		broken_protocol();
	for (int i = 0; i < 3; i++)
	{
		text[i] = clean_text(next, lengths[i] > 0 ? strnlen(next, lengths[i]) : 0);
		next += lengths[i];
	}
	return MAKE_SQLSTATE(error.sqlstate[0], error.sqlstate[1], error.sqlstate[2], error.sqlstate[3], error.sqlstate[4]);
}

static void
frame_error(const BicycleFrame *frame, const char *body)
{
	char	   *text[3];
	int			sqlstate = parse_error(body, frame->length, text);
	Request    *r = frame_request(frame);

	if (r)
	{
		r->sqlstate = sqlstate;
		r->message = text[0];
		r->detail = text[1];
		r->hint = text[2];
		r->state = REQUEST_FAILED;
		return;
	}
	if (frame->id == 0)			/* the connection itself is refused */
	{
		Request    *refused = request_new(BICYCLE_HELLO, KIND_PLAIN);

		connection_drop(false);
		request_fail(refused, sqlstate, text[0], text[1], text[2]);
		request_raise(refused);
	}
	for (int i = 0; i < 3; i++)
		pfree(text[i]);
}

static void
frame_hello(const BicycleFrame *frame, const char *body)
{
	BicycleHello hello;

	if (greeted || frame->length < sizeof(hello))
		broken_protocol();
	memcpy(&hello, body, sizeof(hello));
	if (hello.magic != BICYCLE_MAGIC || hello.protocol != BICYCLE_PROTOCOL || strncmp(hello.build, BICYCLE_VERSION, sizeof(hello.build)) != 0)
	{
		connection_drop(false);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("bicycle engine is of another version"),
				 errdetail("The library is version %s, the engine is %.32s.", BICYCLE_VERSION, hello.build),
				 errhint("Restart the server after bicycle has been upgraded, and reconnect.")));
	}
	greeted = true;
}

static void
frame_data(const BicycleFrame *frame, const char *body)
{
	Request    *r = frame_request(frame);

	if (r == NULL)
		return;
	if (r->stream.data == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(client_context);

		initStringInfo(&r->stream);
		MemoryContextSwitchTo(old);
	}
	appendBinaryStringInfo(&r->stream, body, frame->length);
}

static void
frame_result(const BicycleFrame *frame, const char *body)
{
	Request    *r = frame_request(frame);

	if (r == NULL || r->state == REQUEST_DONE)
		return;
	r->result = MemoryContextAllocExtended(client_context, (Size) frame->length + 1, MCXT_ALLOC_HUGE);
	memcpy(r->result, body, frame->length);
	r->result_length = frame->length;
	r->state = REQUEST_DONE;
	credit_clock = GetCurrentTimestamp();
}

static void
frame_grant(const BicycleFrame *frame)
{
	Request    *r = frame_request(frame);

	if (r == NULL)
		return;
	credit_clock = GetCurrentTimestamp();
	r->granted = true;
	if (r->kind == KIND_IMAGE && r->state == REQUEST_RESERVED)
	{
		must_queue(queue_frame(r->type, r->id, r->body, r->body_length, NULL, 0));
		r->state = REQUEST_SENT;
	}
}

static void
dispatch(const BicycleFrame *frame, const char *body)
{
	Request    *r;

	if (!greeted && frame->type != BICYCLE_HELLO && frame->type != BICYCLE_ERROR)
		broken_protocol();
	switch (frame->type)
	{
		case BICYCLE_HELLO:
			frame_hello(frame, body);
			break;
		case BICYCLE_GRANT:
			frame_grant(frame);
			break;
		case BICYCLE_NEED_MODEL:
			if ((r = frame_request(frame)) != NULL && r->model)
				r->need_model = true;
			break;
		case BICYCLE_STARTED:
			if ((r = frame_request(frame)) != NULL)
			{
				r->started = true;
				r->loads = 0;
			}
			break;
		case BICYCLE_RESULT:
			frame_result(frame, body);
			break;
		case BICYCLE_DATA:
			frame_data(frame, body);
			break;
		case BICYCLE_END:
			if ((r = frame_request(frame)) != NULL)
				r->stream_ended = true;
			break;
		case BICYCLE_ERROR:
			frame_error(frame, body);
			break;
		case BICYCLE_CANCELLED:
			unacknowledged = Max(unacknowledged - 1, 0);
			break;
		default:
			broken_protocol();
	}
}

/* Handles the whole frames in the buffer; stops if one of them ended the connection. */
static void
dispatch_all(void)
{
	while (in.end - in.start >= sizeof(BicycleFrame))
	{
		BicycleFrame frame;
		const char *body;

		memcpy(&frame, in.data + in.start, sizeof(frame));
		if (frame.length > MaxAllocSize / 2)
			broken_protocol();
		if (in.end - in.start < sizeof(frame) + frame.length)
		{
			must_queue(buffer_room(&in, sizeof(frame) + frame.length - (in.end - in.start)));
			return;
		}
		body = in.data + in.start + sizeof(frame);
		in.start += sizeof(frame) + frame.length;
		dispatch(&frame, body);
	}
	if (in.end == in.start)
		buffer_clear(&in);
}

/* Reads what there is now, a bounded amount of it; returns whether there was anything.  The end of the connection counts as something. */
static bool
connection_read(void)
{
	ssize_t		n;

	must_queue(buffer_room(&in, 64 * 1024));
	do
		n = recv(sock, in.data + in.end, in.capacity - in.end, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n > 0)
	{
		in.end += n;
		dispatch_all();
		return true;
	}
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return false;
	connection_drop(true);
	return true;
}

static void
close_at_exit(int code, Datum arg)
{
	connection_drop(false);
}

static void
connection_wait(int more_events, long timeout)
{
	int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_SOCKET_READABLE | more_events;

	if (timeout >= 0)
		events |= WL_TIMEOUT;
	events = WaitLatchOrSocket(MyLatch, events, sock, timeout, BicycleWaitEvent(wait_engine, "BicycleEngine"));
	if (events & WL_LATCH_SET)
		ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* connect() to the engine's socket in the data directory; the descriptor, or -1 with errno set. */
static int
socket_connect(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct ucred peer;
	socklen_t	length = sizeof(peer);
	int			fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int			directory = -1;
	int			rc;

	if (fd < 0)
		return -1;
	/* The data directory is the working directory.  If something has changed that, the path may be too long for an address, so go by a descriptor. */
	strlcpy(address.sun_path, BICYCLE_SOCKET, sizeof(address.sun_path));
	rc = connect(fd, (struct sockaddr *) &address, sizeof(address));
	if (rc != 0 && errno == ENOENT && (directory = open(DataDir, O_PATH | O_DIRECTORY | O_CLOEXEC)) >= 0)
	{
		snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", directory, BICYCLE_SOCKET);
		rc = connect(fd, (struct sockaddr *) &address, sizeof(address));
	}
	if (directory >= 0)
	{
		int			save_errno = errno;

		close(directory);
		errno = save_errno;
	}
	if (rc == 0 && (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 || peer.uid != geteuid()))
	{
		rc = -1;
		errno = EACCES;
	}
	if (rc != 0)
	{
		int			save_errno = errno;

		close(fd);
		errno = save_errno;
		return -1;
	}
	return fd;
}

/* One try to connect and to exchange HELLO; false if the engine is not there or goes away. */
static bool
connection_try(TimestampTz deadline)
{
	BicycleHello hello = {.magic = BICYCLE_MAGIC, .protocol = BICYCLE_PROTOCOL, .database = MyDatabaseId, .pid = MyProcPid};

	sock = socket_connect();
	if (sock < 0)
		return false;
	strlcpy(hello.build, BICYCLE_VERSION, sizeof(hello.build));
	must_queue(queue_frame(BICYCLE_HELLO, 0, &hello, sizeof(hello), NULL, 0));
	while (sock >= 0 && !greeted)
	{
		long		left;

		connection_flush();
		if (connection_read())
			continue;
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		if (left <= 0)
			connection_drop(false);
		else
			connection_wait(out.end > out.start ? WL_SOCKET_WRITEABLE : 0, left);
	}
	return greeted;
}

static void
report_no_engine(const char *last_error)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("bicycle engine is not running"),
			 last_error[0] ? errdetail("The last error was: %s", last_error) : 0,
			 errhint("Look for lines of the bicycle engine and supervisor in the server log, and check the settings of bicycle.")));
}

/*
 * Connects, waiting for an engine that is about to come up.  Returns false only if missing_ok; otherwise raises 55000 after ENGINE_WAIT, or at once if the
 * supervisor has found that the engine cannot start.
 */
static bool
connection_open(bool missing_ok)
{
	static bool at_exit_registered = false;
	BicycleShared *shared;
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ENGINE_WAIT);
	char		last_error[sizeof(shared->last_error)];
	EngineState state;

	if (client_context == NULL)
		client_context = AllocSetContextCreate(TopMemoryContext, "bicycle client", ALLOCSET_DEFAULT_SIZES);
	if (sock >= 0)
		return true;
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
		supervisor_ensure();
		LWLockAcquire(&shared->lock, LW_SHARED);
		state = shared->state;
		strlcpy(last_error, shared->last_error, sizeof(last_error));
		LWLockRelease(&shared->lock);
		if (state == ENGINE_READY && connection_try(deadline))
			break;
		if (state == ENGINE_FAILED || GetCurrentTimestamp() >= deadline)
		{
			ConditionVariableCancelSleep();
			if (missing_ok)
				return false;
			report_no_engine(last_error);
		}
		ConditionVariableTimedSleep(&shared->changed, state == ENGINE_READY ? RECONNECT_WAIT : 200, BicycleWaitEvent(wait_connect, "BicycleEngineStart"));
	}
	ConditionVariableCancelSleep();
	return true;
}

/* ---- Sending requests ---------------------------------------------------------------------------------------------------------------------- */

static bool
any_reserved(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &requests)
	{
		if (dlist_container(Request, node, iter.cur)->state == REQUEST_RESERVED)
			return true;
	}
	return false;
}

static void
send_unsent(Request *r)
{
	if (r->losses >= MAX_LOSSES)
	{
		request_fail(r, ERRCODE_SYSTEM_ERROR, "bicycle engine ends again and again", psprintf("The connection was lost %d times.", r->losses),
					 "The server log tells how the engine ended.");
		return;
	}
	if (r->attempts >= MAX_ATTEMPTS)
	{
		quarantine_add(&r->digest);
		request_fail(r, ERRCODE_SYSTEM_ERROR, "bicycle engine failed twice while it worked on this request",
					 "The engine ended unexpectedly each time.",
					 psprintf("The same request is refused for %d seconds. The server log tells how the engine ended.", QUARANTINE_SECONDS));
		return;
	}
	if (r->kind == KIND_IMAGE)
	{
		BicycleReserve reserve = {.bytes = r->body_length};

		if (r->attempts > 0)
			((BicycleImageRequest *) r->body)->flags |= BICYCLE_FLAG_ALONE;
		if (!any_reserved())
			credit_clock = GetCurrentTimestamp();
		must_queue(queue_frame(BICYCLE_RESERVE, r->id, &reserve, sizeof(reserve), NULL, 0));
		r->state = REQUEST_RESERVED;
	}
	else
	{
		must_queue(queue_frame(r->type, r->id, NULL, 0, NULL, 0));
		r->state = REQUEST_SENT;
	}
}

static void
send_all_unsent(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &requests)
	{
		Request    *r = dlist_container(Request, node, iter.cur);

		if (r->state == REQUEST_UNSENT && r->kind != KIND_STREAM)
			send_unsent(r);
	}
}

/* Sends the model that a request waits for; at most one a call, because the list may change meanwhile. */
static void
serve_models(void)
{
	dlist_iter	iter;

	if (loading)
		return;
	dlist_foreach(iter, &requests)
	{
		Request    *r = dlist_container(Request, node, iter.cur);

		if (!r->need_model || r->state != REQUEST_SENT)
			continue;
		r->need_model = false;
		if (++r->loads > MAX_LOADS)
		{
			request_fail(r, ERRCODE_SYSTEM_ERROR, "bicycle engine failed repeatedly while a model was loaded",
						 psprintf("The model is \"%s\", version %d.", r->model->name, r->model->version),
						 "The server log tells how the engine ended.");
			return;
		}
		loading = true;
		PG_TRY();
		{
			(void) stream_load(r->model);	/* if the connection was lost the engine will ask again */
		}
		PG_FINALLY();
		{
			loading = false;
		}
		PG_END_TRY();
		return;
	}
}

/* ms until a request has waited too long for its GRANT; -1: never.  Raises 53400 if that moment has passed. */
static long
credit_timeout(void)
{
	TimestampTz deadline;
	TimestampTz now;

	if (bicycle_request_timeout == 0 || !any_reserved())
		return -1;
	now = GetCurrentTimestamp();
	deadline = TimestampTzPlusMilliseconds(credit_clock, bicycle_request_timeout);
	if (now >= deadline)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("bicycle engine did not accept the request in time"),
				 errdetail("Its queue was full for %d ms.", bicycle_request_timeout),
				 errhint("Raise bicycle.queue_memory or bicycle.request_timeout, or send fewer requests at once.")));
	return TimestampDifferenceMilliseconds(now, deadline);
}

/* One step of whatever there is to do, or one wait if there is nothing. */
static void
client_turn(void)
{
	bool		moved;

	connection_open(false);
	send_all_unsent();
	serve_models();
	if (sock < 0)
		return;
	moved = connection_flush();
	moved |= connection_read();
	if (moved)
		CHECK_FOR_INTERRUPTS();
	else
		connection_wait(out.end > out.start ? WL_SOCKET_WRITEABLE : 0, credit_timeout());
}

/* ---- Requests with a body in memory -------------------------------------------------------------------------------------------------------- */

/* Type, model and image, not the latent: if an image crashes a model it does so for every latent. */
static RequestDigest
digest_of(BicycleFrameType type, const BicycleImageRequest *head, const void *image, size_t image_length)
{
	RequestDigest digest;

	for (int i = 0; i < 2; i++)
		digest.word[i] = hash_bytes_extended(image, image_length, hash_bytes_extended(head->hash, BICYCLE_HASH_BYTES, type + 1000 * i));
	return digest;
}

Request *
request_submit(BicycleFrameType type, const Model *model, const BicycleImageRequest *head,
			   const float *z, const void *image, size_t image_length)
{
	RequestDigest digest = digest_of(type, head, image, image_length);
	int			seconds = quarantine_remaining(&digest);
	size_t		z_bytes = head->nz * sizeof(float);
	Request    *r;

	if (seconds > 0)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("request is refused"),
				 errdetail("The bicycle engine failed twice while it worked on the same request."),
				 errhint("It is refused for another %d seconds. The server log tells how the engine ended.", seconds)));
	if (loading)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot use a model while another is being read"),
				 errdetail("A row security policy of the model tables calls a function that uses a model.")));

	r = request_new(type, KIND_IMAGE);
	r->digest = digest;
	if (model)
	{
		r->model = MemoryContextAlloc(client_context, sizeof(Model));
		*r->model = *model;
	}
	r->body_length = sizeof(*head) + z_bytes + image_length;
	r->body = MemoryContextAllocExtended(client_context, r->body_length, MCXT_ALLOC_HUGE);
	memcpy(r->body, head, sizeof(*head));
	if (z_bytes > 0)
		memcpy(r->body + sizeof(*head), z, z_bytes);
	memcpy(r->body + sizeof(*head) + z_bytes, image, image_length);
	if (sock >= 0)
	{
		send_unsent(r);
		connection_flush();
	}
	return r;
}

Request *
request_simple(BicycleFrameType type, bool missing_ok)
{
	if (!connection_open(missing_ok))
		return NULL;
	return request_new(type, KIND_PLAIN);
}

const char *
request_wait(Request *r, size_t *length)
{
	while (r->state != REQUEST_DONE && r->state != REQUEST_FAILED)
		client_turn();
	if (r->state == REQUEST_FAILED)
		request_raise(r);
	*length = r->result_length;
	return r->result;
}

/* Withdraws the request if it is still open, and frees it.  Raises nothing. */
void
request_free(Request *r)
{
	if (sock >= 0 && request_is_open(r))
	{
		if (queue_frame(BICYCLE_CANCEL, r->id, NULL, 0, NULL, 0))
		{
			unacknowledged++;
			connection_flush();
		}
		else
			connection_drop(false);
	}
	request_destroy(r);
}

/* ---- Requests with streams ----------------------------------------------------------------------------------------------------------------- */

/* Raises the engine's error; false if the connection was lost, and the request is then freed. */
static bool
stream_holds(Request *r)
{
	if (r->state == REQUEST_FAILED)
		request_raise(r);
	if (r->state != REQUEST_LOST)
		return true;
	request_destroy(r);
	return false;
}

Request *
request_open(BicycleFrameType type, const void *head, size_t head_length, const void *tail, size_t tail_length)
{
	Request    *r;

	if (head_length + tail_length > BICYCLE_MAX_FRAME)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("configuration is too long"),
				 errdetail("It has %zu bytes.", tail_length)));
	if (loading && type != BICYCLE_LOAD)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot use a model while another is being read")));
	connection_open(false);
	r = request_new(type, KIND_STREAM);
	must_queue(queue_frame(type, r->id, head, head_length, tail, tail_length));
	r->state = REQUEST_SENT;
	return r;
}

bool
request_granted(Request *r)
{
	while (r->state == REQUEST_SENT && !r->granted)
		client_turn();
	return stream_holds(r);
}

bool
request_write(Request *r, const void *bytes, size_t length)
{
	const char *next = bytes;

	while (length > 0 && r->state == REQUEST_SENT)
	{
		size_t		n = Min(length, DATA_FRAME);

		if (out.end - out.start > WRITE_AHEAD)
		{
			client_turn();
			continue;
		}
		must_queue(queue_frame(BICYCLE_DATA, r->id, next, n, NULL, 0));
		next += n;
		length -= n;
	}
	return stream_holds(r);
}

bool
request_end(Request *r)
{
	if (r->state == REQUEST_SENT)
		must_queue(queue_frame(BICYCLE_END, r->id, NULL, 0, NULL, 0));
	return stream_holds(r);
}

bool
request_result(Request *r, const char **head, size_t *length)
{
	while (r->state == REQUEST_SENT)
		client_turn();
	if (!stream_holds(r))
		return false;
	*head = r->result;
	*length = r->result_length;
	return true;
}

bool
request_read(Request *r, void *bytes, size_t length)
{
	while (r->state == REQUEST_DONE && !r->stream_ended && (r->stream.data == NULL || r->stream.len - r->stream_read < length))
		client_turn();
	if (!stream_holds(r))
		return false;
	if (length > 0 && (r->stream.data == NULL || r->stream.len - r->stream_read < length))
		broken_protocol();
	memcpy(bytes, r->stream.data + r->stream_read, length);
	r->stream_read += length;
	if (r->stream_read == r->stream.len)
	{
		resetStringInfo(&r->stream);
		r->stream_read = 0;
	}
	else if (r->stream_read > KEEP_BUFFER)
	{
		r->stream.len -= r->stream_read;
		memmove(r->stream.data, r->stream.data + r->stream_read, r->stream.len);
		r->stream_read = 0;
	}
	return true;
}

bool
request_read_end(Request *r)
{
	while (r->state == REQUEST_DONE && !r->stream_ended)
		client_turn();
	if (!stream_holds(r))
		return false;
	if (r->stream.data != NULL && r->stream.len != r->stream_read)
		broken_protocol();
	return true;
}

void
request_retry(bool (*attempt) (void *arg), void *arg, const char *what)
{
	int			started = 0;

	for (int losses = 0; !attempt(arg); losses++)
	{
		if (lost_after_start)
			started++;
		if (started >= MAX_ATTEMPTS || losses >= MAX_LOADS)
			ereport(ERROR,
					(errcode(ERRCODE_SYSTEM_ERROR),
					 errmsg("bicycle engine failed twice while it %s", what),
					 errdetail("The engine ended unexpectedly each time."),
					 errhint("The server log tells how the engine ended.")));
	}
}

/* ---- Cleaning up --------------------------------------------------------------------------------------------------------------------------- */

static void
release_requests(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg)
{
	dlist_mutable_iter iter;

	if (phase == RESOURCE_RELEASE_BEFORE_LOCKS)
	{
		dlist_foreach_modify(iter, &requests)
		{
			Request    *r = dlist_container(Request, node, iter.cur);

			if (r->owner != CurrentResourceOwner)
				continue;
			if (is_commit)
				elog(WARNING, "bicycle request " UINT64_FORMAT " was not freed", r->id);
			request_free(r);
		}
	}
	else if (phase == RESOURCE_RELEASE_AFTER_LOCKS && is_top_level && sock >= 0 && (unacknowledged > 0 || out.end > out.start))
		connection_drop(false);
}

void
client_init(void)
{
	RegisterResourceReleaseCallback(release_requests, NULL);
}
