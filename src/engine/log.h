/*
 * log.h
 *	  Log lines of all threads.
 */
#ifndef BICYCLE_ENGINE_LOG_H
#define BICYCLE_ENGINE_LOG_H

#include <stddef.h>

#include "engine/engine_error.h"

typedef enum LogLevel
{
	LOG_DEBUG,
	LOG_INFO,
	LOG_LOG,
	LOG_WARNING,
	LOG_ERROR
} LogLevel;

/* A queued line wakes whoever waits for this eventfd; -1: nobody. */
extern void log_start(int wake_fd);

/* Any thread. A line too long is cut. */
extern void log_write(LogLevel level, const char *text, ...) __attribute__((format(printf, 2, 3)));
extern void log_error(LogLevel level, const char *what, const EngineError *error);

/* I/O thread: hands over what is queued, line by line. */
extern void log_take(void (*write)(void *arg, const char *line, size_t length), void *arg);

#endif /* BICYCLE_ENGINE_LOG_H */
