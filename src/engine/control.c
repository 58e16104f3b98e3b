/*
 * control.c
 *	  The supervisor's end of the engine: lines on descriptor 3. See the end of
 *	  protocol.h for what they say.
 *
 * I/O thread only. Output that the supervisor does not take is kept up to
 * CONTROL_OUT bytes; further lines are dropped and counted. EOF ends the
 * process at once: without its supervisor nobody would stop it.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/engine.h"

#define CONTROL_OUT (256 * 1024)

static int last_words_fd = -1; /* set before threads start */

static void
control_append(void *arg, const char *line, size_t length)
{
	Control *control = arg;

	if (control->source.fd < 0)
	{
		if (fwrite(line, 1, length, stderr) != length)
			control->out_dropped++;
		return;
	}
	if (control->out_length + length > CONTROL_OUT)
	{
		control->out_dropped++;
		return;
	}
	if (control->out_length + length > control->out_size)
	{
		size_t size = control->out_size + length + 4096;
		char *out = realloc(control->out, size);

		if (out == NULL)
		{
			control->out_dropped++;
			return;
		}
		control->out = out;
		control->out_size = size;
	}
	memcpy(control->out + control->out_length, line, length);
	control->out_length += length;
}

void
control_say(Engine *engine, const char *text, ...)
{
	char line[1024];
	va_list args;
	int length;

	va_start(args, text);
	length = vsnprintf(line, sizeof(line) - 1, text, args);
	va_end(args);
	if (length > (int) sizeof(line) - 2)
		length = sizeof(line) - 2;
	line[length++] = '\n';
	control_append(&engine->control, line, (size_t) length);
}

void
control_flush(Engine *engine)
{
	Control *control = &engine->control;

	log_take(control_append, control);
	if (control->source.fd < 0)
	{
		fflush(stderr);
		return;
	}
	while (control->out_length > 0)
	{
		ssize_t n = send(control->source.fd, control->out, control->out_length,
						 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			_exit(1); /* as for EOF */
		if (n <= 0)
			break;
		control->out_length -= (size_t) n;
		memmove(control->out, control->out + n, control->out_length);
	}
	if (control->out_length == 0 && control->out_dropped > 0)
	{
		uint64_t dropped = control->out_dropped;

		control->out_dropped = 0;
		control_say(engine, "log warning %llu lines to the supervisor were lost",
					(unsigned long long) dropped);
	}
	source_watch(engine, &control->source, control->out_length > 0 ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void
control_ready(Engine *engine, Source *source, uint32_t events)
{
	Control *control = &engine->control;
	char bytes[4096];
	ssize_t n = recv(source->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		_exit(1);
	for (ssize_t i = 0; i < n; i++)
	{
		if (bytes[i] != '\n')
		{
			if (control->line_length < sizeof(control->line) - 1)
				control->line[control->line_length++] = bytes[i];
			else
				control->line_overflow = true;
			continue;
		}
		control->line[control->line_length] = '\0';
		control->line_length = 0;
		if (control->line_overflow)
			log_write(LOG_WARNING, "a line of the supervisor was too long");
		else
			control->order(engine, control->line);
		control->line_overflow = false;
	}
	control_flush(engine);
}

bool
control_open(Engine *engine, int fd, void (*order)(Engine *engine, char *line))
{
	engine->control.source.fd = last_words_fd = fd;
	engine->control.order = order;
	if (fd < 0)
		return true;
	return source_add(engine, &engine->control.source, fd, EPOLLIN, control_ready);
}

void
control_close(Engine *engine)
{
	control_flush(engine);
	free(engine->control.out);
	engine->control.out = NULL;
	engine->control.out_length = engine->control.out_size = 0;
}

void
engine_fatal(Engine *engine, const char *text, ...)
{
	char line[512];
	va_list args;

	va_start(args, text);
	vsnprintf(line, sizeof(line), text, args);
	va_end(args);
	control_say(engine, "fatal %s", line);
	control_flush(engine);
	_exit(1);
}

void
control_last_words(const char *text)
{
	char line[1024];
	/* The newline in front ends a line of which half has been sent. */
	int length = snprintf(line, sizeof(line), "\nlog error %s\n", text);

	if (length > (int) sizeof(line) - 1)
		length = sizeof(line) - 1;
	if (last_words_fd < 0)
		fputs(line + 1, stderr);
	else
		send(last_words_fd, line, (size_t) length, MSG_NOSIGNAL | MSG_DONTWAIT);
	_exit(1);
}
