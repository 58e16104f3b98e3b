/*
 * fuzz_control.c
 *	  The supervisor's lines, to an engine before and after "go". What ends the
 *	  process on purpose is left out: EOF, and a lock that is taken.
 */
#include "fuzz_engine.h"

static char directory[] = "/tmp/bicycle-fuzz-XXXXXX";

/* An engine that was told to stop listens again when the next input comes. */
static void
clean(void)
{
	unlink(BICYCLE_SOCKET);
	unlink(BICYCLE_LOCK);
	rmdir(directory);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	static int ours = -1;
	char answer[65536];
	ssize_t n;

	if (ours < 0)
	{
		int pair[2];

		DEMAND(mkdtemp(directory) != NULL && chdir(directory) == 0 &&
			   socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
		ours = pair[0];
		DEMAND(engine_init(&engine) && control_open(&engine, pair[1], orders_line));
		DEMAND(send(ours, "set device ref\nset threads 1\ngo\n", 32, 0) == 32);
		turns(3);
		DEMAND(engine.listening);
		atexit(clean);
	}
	for (size_t at = 0; at < length; at += (size_t) n)
	{
		n = send(ours, bytes + at, length - at, MSG_NOSIGNAL | MSG_DONTWAIT);
		DEMAND(n > 0);
		turns(2);
		while (recv(ours, answer, sizeof(answer), MSG_DONTWAIT) > 0)
			turns(1);
	}
	/* whatever was said, the next line is understood */
	DEMAND(send(ours, "\nset stuck_timeout 60000\nset device ref\nping 4711\n", 50, 0) == 50);
	turns(4);
	n = recv(ours, answer, sizeof(answer) - 1, MSG_DONTWAIT);
	DEMAND(n > 0);
	answer[n] = '\0';
	DEMAND(strstr(answer, "pong 4711\n") != NULL);
	DEMAND(engine.control.line_length == 0 && engine.memory.used == 0);
	engine.stopping = false;
	return 0;
}
