/*
 * control.h
 *	  The supervisor's end of the engine: lines on descriptor 3.
 *
 * I/O thread only, but for control_last_words.
 */
#ifndef BICYCLE_ENGINE_CONTROL_H
#define BICYCLE_ENGINE_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/source.h"

typedef struct Control
{
	Source source; /* fd -1: stand-alone, the log goes to stderr */
	void (*order)(struct Engine *engine, char *line); /* what is done with a line */
	char line[4096];                                  /* input up to its newline */
	size_t line_length;
	bool line_overflow;
	char *out; /* what the supervisor has not taken yet */
	size_t out_length, out_size;
	uint64_t out_dropped; /* lines */
} Control;

/* fd < 0: stand-alone. False if epoll does not take the descriptor. */
extern bool control_open(struct Engine *engine, int fd,
						 void (*order)(struct Engine *engine, char *line));
extern void control_say(struct Engine *engine, const char *text, ...)
	__attribute__((format(printf, 2, 3)));

/* Takes what the log has queued and writes what the supervisor takes. */
extern void control_flush(struct Engine *engine);
extern void control_close(struct Engine *engine);

/* Tells the supervisor why and ends the process with code 1. */
extern void engine_fatal(struct Engine *engine, const char *text, ...)
	__attribute__((format(printf, 2, 3), noreturn));

/* Any thread: logs a line, past the queue; ends the process with code 1. */
extern void control_last_words(const char *text) __attribute__((noreturn));

#endif /* BICYCLE_ENGINE_CONTROL_H */
