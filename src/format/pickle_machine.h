/*
 * pickle_machine.h
 *	  The machine that reads a pickle: its stack and memory (pickle_stack.c),
 *	  and what names and calls build (pickle_build.c), for pickle.c's operators.
 *
 * Functions return false, with the error filled, when the reading must end.
 */
#ifndef BICYCLE_FORMAT_PICKLE_MACHINE_H
#define BICYCLE_FORMAT_PICKLE_MACHINE_H

#include "format/pickle.h"

typedef struct Machine
{
	const uint8_t *bytes;
	size_t length;
	size_t at;          /* next byte */
	size_t operator_at; /* of the running operator */
	size_t base;
	PickleValue *stack; /* grows; malloc'ed for the time of one reading, as is memo */
	size_t depth, stack_capacity;
	PickleValue *memo;
	uint64_t memo_size; /* slots in use or passed over; MARK in the latter */
	uint64_t memo_capacity;
	bool stopped;
	Pickle *pickle;
	FormatError *error;
} Machine;

/* ---- pickle_stack.c ------------------------------------------------------ */

/* Both return false. The detail is "Pickle WHAT (offset N)." */
extern bool pickle_fail(Machine *m, const char *what);
extern bool pickle_fail_limit(Machine *m, const char *what);
extern bool pickle_fail_memory(Machine *m, size_t bytes);

/* Lives as long as the pickle. NULL beyond a limit. */
extern void *pickle_allocate(Machine *m, size_t bytes);
extern bool pickle_append(Machine *m, PickleItems *items, PickleValue value);

extern const uint8_t *pickle_take(Machine *m, uint64_t n);
/* A little-endian unsigned number of 1, 2, 4 or 8 bytes. */
extern bool pickle_take_number(Machine *m, int width, uint64_t *value);
extern bool pickle_take_line(Machine *m, FormatText *line);

/* May move the stack: no pointer into it is to be used afterwards. */
extern bool pickle_push(Machine *m, PickleValue value);
extern bool pickle_push_simple(Machine *m, PickleType type, int64_t integer);
/* The bytes after a number of that width, which says how many. */
extern bool pickle_push_bytes(Machine *m, PickleType type, int width);

/* The topmost value, which must not hide behind a mark; NULL after an error. */
extern PickleValue *pickle_top(Machine *m);
extern bool pickle_pop(Machine *m, PickleValue *value);
/* At the last mark; the *n values above stay in place until the next push. */
extern bool pickle_pop_mark(Machine *m, PickleValue **values, size_t *n);

/* A container of n values, which may lie on the stack, at or above its top. */
extern bool pickle_push_items(Machine *m, PickleType type, const PickleValue *values, size_t n);
extern bool pickle_push_marked(Machine *m, PickleType type);
extern bool pickle_push_tuple(Machine *m, size_t n);
/* With the values above the mark, or the `single` topmost if not 0. */
extern bool pickle_extend(Machine *m, PickleType type, size_t single);

/* ---- pickle_build.c: operators ------------------------------------------- */

extern bool pickle_global(Machine *m);
extern bool pickle_stack_global(Machine *m);
extern bool pickle_persistent_id(Machine *m);
extern bool pickle_reduce(Machine *m);
extern bool pickle_new_object(Machine *m, bool keywords);
extern bool pickle_build_state(Machine *m);

#endif /* BICYCLE_FORMAT_PICKLE_MACHINE_H */
