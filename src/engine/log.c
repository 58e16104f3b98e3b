/*
 * log.c
 *	  Log lines of all threads.
 *
 * A thread appends a line to a queue of bounded size and wakes the I/O thread,
 * which alone writes: to the supervisor's socket, or to stderr when
 * stand-alone. So a supervisor that does not read stops no thread. What does
 * not fit is counted and reported.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "engine/log.h"

#define LOG_QUEUE 512 /* lines */
#define LOG_LINE 2048

typedef struct LogLine
{
	struct LogLine *next;
	size_t length;
	char text[];
} LogLine;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below */
static LogLine *first, *last;
static int nlines;
static unsigned long long lost;
static int wake = -1; /* eventfd that is written to when a line is queued */

void
log_start(int wake_fd)
{
	pthread_mutex_lock(&lock);
	wake = wake_fd;
	pthread_mutex_unlock(&lock);
}

/* Queues a whole line; the lock is held. */
static void
append(const char *text, size_t length)
{
	LogLine *line = nlines < LOG_QUEUE ? malloc(sizeof(LogLine) + length) : NULL;

	if (line == NULL)
	{
		lost++;
		return;
	}
	line->next = NULL;
	line->length = length;
	memcpy(line->text, text, length);
	if (last != NULL)
		last->next = line;
	else
		first = line;
	last = line;
	nlines++;
	if (wake >= 0)
		eventfd_write(wake, 1);
}

void
log_write(LogLevel level, const char *text, ...)
{
	static const char *const names[] = { "debug", "info", "log", "warning", "error" };
	char line[LOG_LINE];
	va_list args;
	int length;

	length = snprintf(line, sizeof(line), "log %s ", names[level]);
	va_start(args, text);
	length += vsnprintf(line + length, sizeof(line) - length - 1, text, args);
	va_end(args);
	if (length > (int) sizeof(line) - 2)
		length = sizeof(line) - 2;
	for (int i = 0; i < length; i++)
		if ((unsigned char) line[i] < ' ')
			line[i] = ' ';
	line[length++] = '\n';

	pthread_mutex_lock(&lock);
	append(line, (size_t) length);
	pthread_mutex_unlock(&lock);
}

void
log_error(LogLevel level, const char *what, const EngineError *error)
{
	log_write(level, "%s: %s: %s%s%s%s%s", what, error->sqlstate, error->message,
			  error->detail[0] ? " DETAIL: " : "", error->detail, error->hint[0] ? " HINT: " : "",
			  error->hint);
}

void
log_take(void (*write)(void *arg, const char *line, size_t length), void *arg)
{
	LogLine *line;
	unsigned long long missing;

	pthread_mutex_lock(&lock);
	line = first;
	first = last = NULL;
	nlines = 0;
	missing = lost;
	lost = 0;
	pthread_mutex_unlock(&lock);

	while (line != NULL)
	{
		LogLine *next = line->next;

		write(arg, line->text, line->length);
		free(line);
		line = next;
	}
	if (missing > 0)
	{
		char text[64];
		int length =
			snprintf(text, sizeof(text), "log warning %llu log lines were lost\n", missing);

		write(arg, text, (size_t) length);
	}
}
