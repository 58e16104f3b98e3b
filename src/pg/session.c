/*
 * session.c
 *	  This session's connections to the engines: when they are opened and
 *	  dropped, and who gets their frames.
 *
 * R1 One connection to an engine at most. It is opened when it is first needed,
 *    and kept until the session ends, the engine ends or call.c drops it.
 * R2 Nothing blocks outside socket_wait and a condition variable, and each wait
 *    checks for interrupts. An engine that does not answer a HELLO keeps nobody
 *    from another one.
 * R3 Who waits to write reads as well.
 * R4 Frames go up to who listens (session_listen); nothing here knows what they
 *    mean, but for HELLO and an ERROR of the connection itself.
 *
 * Memory is session_memory(): session_link.c.
 */
#include "pg/session.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"

#include "common/invariant.h"
#include "pg/engine_slots.h"
#include "pg/monotonic.h"
#include "pg/socket_wait.h"

#define ENGINE_WAIT (30 * 1000) /* ms that a statement waits for an engine that is not there */
#define HELLO_WAIT 200          /* ms for an answer to HELLO until other engines are tried, too */
#define RECONNECT_WAIT 20       /* ms between tries until the supervisor has seen it die */

static SessionLink links[BICYCLE_MAX_ENGINES];
static uint32 held = 0;    /* a bit for each that is open */
static uint32 greeted = 0; /* ... and whose engine has answered our HELLO */
static bool training;      /* the first one is a training engine's */
static SessionFrame take_frame = NULL;
static SessionLost tell_lost = NULL;
static uint32 wait_connect = 0;
static uint32 wait_engine = 0;

/* For each engine of a set. */
#define foreach_engine(n, set)                    \
	for (int n = 0; n < BICYCLE_MAX_ENGINES; n++) \
		if (((set) &1u << n) != 0)

bool
session_checking(void)
{
	return bicycle_debug || invariant_checking();
}

void
session_check(void)
{
	INVARIANT(take_frame != NULL && tell_lost != NULL);
	INVARIANT((greeted & ~held) == 0 && (!training || (held & ~1u) == 0));
	for (int n = 0; n < BICYCLE_MAX_ENGINES; n++)
	{
		session_link_check(&links[n]);
		INVARIANT((links[n].fd >= 0) == ((held & 1u << n) != 0));
		INVARIANT(links[n].greeted == ((greeted & 1u << n) != 0));
	}
}

bool
session_queue(int engine, BicycleFrameType type, uint64 id, const void *head, size_t head_length,
			  const void *tail, size_t tail_length)
{
	return session_link_queue(&links[engine], type, id, head, head_length, tail, tail_length);
}

size_t
session_pending(int engine)
{
	return session_link_pending(&links[engine]);
}

/* ---- Ending -------------------------------------------------------------- */

bool
session_is_open(void)
{
	return greeted != 0;
}

bool
session_has(int engine)
{
	return (greeted & 1u << engine) != 0;
}

bool
session_is_training(void)
{
	return training;
}

void
session_drop(int engine, bool died)
{
	pid_t pid = links[engine].engine;

	session_link_close(&links[engine]);
	held &= ~(1u << engine);
	greeted &= ~(1u << engine);
	if (tell_lost)
		tell_lost(engine, died ? pid : 0);
}

void
session_broken(int engine)
{
	session_drop(engine, false);
	ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION),
					errmsg("bicycle engine sent something that is not understood"),
					errhint("Restart the server if bicycle has been upgraded.")));
}

static void
close_at_exit(int code, Datum arg)
{
	foreach_engine(n, held) session_drop(n, false);
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
session_error(int engine, const char *body, size_t length, MemoryContext context, char *words[3])
{
	BicycleError error;
	size_t lengths[3];
	const char *next = body + sizeof(error);

	if (length < sizeof(error))
		session_broken(engine);
	memcpy(&error, body, sizeof(error));
	lengths[0] = error.message_length;
	lengths[1] = error.detail_length;
	lengths[2] = error.hint_length;
	if (sizeof(error) + lengths[0] + lengths[1] + lengths[2] > length ||
		memchr(error.sqlstate, '\0', sizeof(error.sqlstate)) != error.sqlstate + 5)
		session_broken(engine);
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

	foreach_engine(n, held) sent |= session_link_flush(&links[n]);
	return sent;
}

static void
take_hello(int engine, const BicycleFrame *frame, const char *body)
{
	BicycleHello hello;

	if (frame->type == BICYCLE_ERROR)
	{
		char *words[3];
		int sqlstate = session_error(engine, body, frame->length, CurrentMemoryContext, words);

		session_drop(engine, false);
		session_report(sqlstate, words);
	}
	if (frame->type != BICYCLE_HELLO || frame->length < sizeof(hello))
		session_broken(engine);
	memcpy(&hello, body, sizeof(hello));
	if (hello.magic != BICYCLE_MAGIC || hello.protocol != BICYCLE_PROTOCOL ||
		strncmp(hello.build, BICYCLE_VERSION, sizeof(hello.build)) != 0)
	{
		session_drop(engine, false);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("bicycle engine is of another version"),
				 errdetail("The library is version %s, the engine is %.32s.", BICYCLE_VERSION,
						   hello.build),
				 errhint("Restart the server after bicycle has been upgraded, and reconnect.")));
	}
	links[engine].greeted = true;
	greeted |= 1u << engine;
}

/*
 * Hands on the whole frames that have come; stops if one of them ended the
 * connection.
 */
static void
take_frames(int engine)
{
	SessionLink *link = &links[engine];
	BicycleFrame frame;
	const char *body;

	for (;;)
	{
		switch (session_link_frame(link, &frame, &body))
		{
			case LINK_NONE:
				return;
			case LINK_NONSENSE:
				session_broken(engine);
			case LINK_FRAME:
				break;
		}
		if (!link->greeted || (frame.type == BICYCLE_ERROR && frame.id == 0))
			take_hello(engine, &frame, body);
		else
			take_frame(engine, &frame, body);
	}
}

bool
session_read(void)
{
	bool any = false;

	foreach_engine(n, held)
	{
		LinkRead got = session_link_read(&links[n]);

		any |= got != LINK_NOTHING;
		if (got == LINK_BYTES)
			take_frames(n);
		else if (got == LINK_ENDED)
			session_drop(n, true);
	}
	return any;
}

void
session_wait(long timeout)
{
	SocketWait wait = { 0 };

	if (session_checking())
		session_check();
	foreach_engine(n, held)
		socket_wait_add(&wait, links[n].fd,
						WL_SOCKET_READABLE | (session_pending(n) > 0 ? WL_SOCKET_WRITEABLE : 0));
	socket_wait(&wait, timeout, BicycleWaitEvent(wait_engine, "BicycleEngine"));
	CHECK_FOR_INTERRUPTS();
}

/* ---- Connecting ---------------------------------------------------------- */

void
session_listen(SessionFrame frame, SessionLost lost)
{
	for (int n = 0; n < BICYCLE_MAX_ENGINES; n++)
		links[n].fd = -1;
	take_frame = frame;
	tell_lost = lost;
}

static void
drop_at_exit(void)
{
	static bool registered = false;

	if (!registered)
		before_shmem_exit(close_at_exit, (Datum) 0);
	registered = true;
}

void
session_adopt(int fd, SessionFrame frame)
{
	INVARIANT(held == 0);
	links[JOB_ENGINE].fd = fd;
	links[JOB_ENGINE].greeted = true;
	held = greeted = 1u << JOB_ENGINE;
	training = true;
	take_frame = frame;
	drop_at_exit();
}

/* False if it is not there. */
static bool
begin_link(int engine)
{
	drop_at_exit();
	if (!session_link_connect(&links[engine], engine))
		return false;
	held |= 1u << engine;
	session_link_flush(&links[engine]);
	return true;
}

bool
session_reach(int engine)
{
	if ((held & 1u << engine) == 0 && !training && engine_slot_read(engine, NULL) == ENGINE_READY)
		(void) begin_link(engine);
	return session_has(engine);
}

/*
 * Begins to connect to the usable engine that has the least to do, unless one
 * has been begun; or to all.
 */
static void
begin_links(bool all)
{
	uint32 usable = engines_usable();
	int best = -1;

	foreach_engine(n, usable & ~held)
	{
		if (all)
			(void) begin_link(n);
		else if (best < 0 || engine_load(n) < engine_load(best))
			best = n;
	}
	if (!all && (usable & held) == 0 && best >= 0 && !begin_link(best))
		begin_links(true);
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

/* Waits for an answer to a HELLO, or for an engine to come up. */
static void
wait_for_engine(EngineState state, long left)
{
	(void) session_flush();
	if (session_read())
		return;
	if ((held & ~greeted) != 0)
		session_wait(Min(left, HELLO_WAIT));
	else
		ConditionVariableTimedSleep(&shared_attach()->changed,
									state == ENGINE_READY ? RECONNECT_WAIT : HELLO_WAIT,
									BicycleWaitEvent(wait_connect, "BicycleEngineStart"));
}

/* True once one is there; false where session_open returns false. */
static bool
await_engine(bool missing_ok)
{
	int64 began = monotonic_ms();
	char last_error[sizeof(((EngineSlot *) NULL)->last_error)];

	for (;;)
	{
		int64 waited = monotonic_ms() - began;
		EngineState state;

		if (!supervisor_ensure(missing_ok))
			return false;
		state = engines_state(last_error, sizeof(last_error));
		begin_links(waited >= HELLO_WAIT);
		if (waited >= ENGINE_WAIT)
			foreach_engine(n, held & ~greeted) session_drop(n, false);
		if (state == ENGINE_FAILED || waited >= ENGINE_WAIT)
		{
			ConditionVariableCancelSleep();
			if (missing_ok)
				return false;
			report_no_engine(last_error);
		}
		wait_for_engine(state, ENGINE_WAIT - waited);
		if ((engines_usable() & greeted) != 0)
			return true;
	}
}

bool
session_open(bool missing_ok)
{
	bool open;

	if (training && greeted == 0)
		elog(ERROR, "a job worker has no other engine than its own");
	if (training || (engines_usable() & greeted) != 0)
		return true;
	if (!IsUnderPostmaster || IsBinaryUpgrade)
		report_no_engine("The server runs in single-user or upgrade mode.");
	ConditionVariablePrepareToSleep(&shared_attach()->changed);
	open = await_engine(missing_ok);
	ConditionVariableCancelSleep();
	return open;
}
