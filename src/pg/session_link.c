/*
 * session_link.c
 *	  A connection of this session to one engine: bytes in and out.
 *
 * Which engines there are, when a connection is opened and dropped, and what
 * frames mean is session.c's. The descriptor does not block; nothing here
 * waits.
 *
 * Memory is session_memory(): the queues of both directions.
 */
#include "pg/session_link.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "common/invariant.h"

#define KEEP_BUFFER (1024 * 1024) /* an empty queue larger than this is given back */

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

/* Nothing waits for a connection that is not there. */
void
session_link_check(const SessionLink *link)
{
	queue_check(&link->out);
	queue_check(&link->in);
	INVARIANT(link->fd >= 0 || (!link->greeted && link->out.end == link->out.start &&
								link->in.end == link->in.start));
}

/* ---- Bytes --------------------------------------------------------------- */

bool
session_link_queue(SessionLink *link, BicycleFrameType type, uint64 id, const void *head,
				   size_t head_length, const void *tail, size_t tail_length)
{
	BicycleFrame frame = { .length = head_length + tail_length, .type = type, .id = id };

	if (!queue_room(&link->out, sizeof(frame) + head_length + tail_length))
		return false;
	queue_append(&link->out, &frame, sizeof(frame));
	if (head_length > 0)
		queue_append(&link->out, head, head_length);
	if (tail_length > 0)
		queue_append(&link->out, tail, tail_length);
	return true;
}

size_t
session_link_pending(const SessionLink *link)
{
	return link->out.end - link->out.start;
}

bool
session_link_flush(SessionLink *link)
{
	ByteQueue *out = &link->out;
	bool sent = false;

	if (out->end == out->start)
		return false;
	while (out->end > out->start)
	{
		ssize_t n = send(link->fd, out->data + out->start, out->end - out->start,
						 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0)
		{
			out->start += n;
			sent = true;
		}
		else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return sent;
		else if (n < 0 && errno != EINTR)
			out->start = out->end; /* what it sent before it closed, perhaps why, is read first */
	}
	queue_clear(out);
	return sent;
}

pg_noreturn static void
report_no_room(void)
{
	ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory"),
					errdetail("An answer of the bicycle engine did not fit.")));
}

LinkRead
session_link_read(SessionLink *link)
{
	ByteQueue *in = &link->in;
	ssize_t n;

	if (!queue_room(in, 64 * 1024))
		report_no_room();
	do
		n = recv(link->fd, in->data + in->end, in->capacity - in->end, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n > 0)
	{
		in->end += n;
		return LINK_BYTES;
	}
	return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? LINK_NOTHING : LINK_ENDED;
}

LinkFrame
session_link_frame(SessionLink *link, BicycleFrame *frame, const char **body)
{
	ByteQueue *in = &link->in;
	size_t used = in->end - in->start;

	if (used == 0)
		queue_clear(in);
	if (used < sizeof(*frame))
		return LINK_NONE;
	memcpy(frame, in->data + in->start, sizeof(*frame));
	if (frame->length > MaxAllocSize / 2)
		return LINK_NONSENSE;
	if (used < sizeof(*frame) + frame->length)
	{
		if (!queue_room(in, sizeof(*frame) + frame->length - used))
			report_no_room();
		return LINK_NONE;
	}
	*body = in->data + in->start + sizeof(*frame);
	in->start += sizeof(*frame) + frame->length;
	return LINK_FRAME;
}

/* ---- Connecting ---------------------------------------------------------- */

/*
 * connect() to an engine's socket. It lies in the data directory, which is the
 * working directory of a server process; if something has changed that, the
 * directory's path may be too long for an address, so it is reached through a
 * descriptor.
 */
static int
connect_in_data_directory(int fd, int number)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char name[BICYCLE_ENGINE_FILE];
	int directory;
	int save_errno;
	int rc;

	bicycle_engine_file(name, number, "sock");
	strlcpy(address.sun_path, name, sizeof(address.sun_path));
	rc = connect(fd, (struct sockaddr *) &address, sizeof(address));
	if (rc == 0 || errno != ENOENT)
		return rc;
	directory = open(DataDir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0)
		return -1;
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", directory, name);
	rc = connect(fd, (struct sockaddr *) &address, sizeof(address));
	save_errno = errno;
	close(directory);
	errno = save_errno;
	return rc;
}

/* The descriptor of a new connection to a process of our user, or -1. */
static int
connect_to_engine(int number, pid_t *engine)
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
	if (fd >= 0 && connect_in_data_directory(fd, number) == 0 &&
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.uid == geteuid())
	{
		*engine = peer.pid;
		return fd;
	}
	if (fd >= 0)
		close(fd);
	ReleaseExternalFD();
	return -1;
}

bool
session_link_connect(SessionLink *link, int number)
{
	BicycleHello hello = { .magic = BICYCLE_MAGIC,
						   .protocol = BICYCLE_PROTOCOL,
						   .database = MyDatabaseId,
						   .pid = MyProcPid };

	INVARIANT(link->fd < 0);
	link->fd = connect_to_engine(number, &link->engine);
	if (link->fd < 0)
		return false;
	strlcpy(hello.build, BICYCLE_VERSION, sizeof(hello.build));
	if (session_link_queue(link, BICYCLE_HELLO, 0, &hello, sizeof(hello), NULL, 0))
		return true;
	session_link_close(link);
	return false;
}

void
session_link_close(SessionLink *link)
{
	if (link->fd >= 0)
	{
		close(link->fd);
		ReleaseExternalFD();
	}
	link->fd = -1;
	link->greeted = false;
	link->engine = 0;
	queue_clear(&link->out);
	queue_clear(&link->in);
}
