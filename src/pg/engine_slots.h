/*
 * engine_slots.h
 *	  Which engines there are, as all processes of the server see it.
 */
#ifndef BICYCLE_ENGINE_SLOTS_H
#define BICYCLE_ENGINE_SLOTS_H

#include "pg/shared.h"

/*
 * A bit for each engine that requests may go to. Those without a device are
 * among them only where none has one and none is about to come up: they say
 * what is missing. Reads a word, without a lock.
 */
extern uint32 engines_usable(void);

/*
 * Calls that all sessions have with that engine. Who has one adds it, and takes
 * it back. Words, without a lock.
 */
extern uint32 engine_load(int number);
extern void engine_load_add(int number, int more);

/* What is known of an engine, copied; NULL: the state alone. */
extern EngineState engine_slot_read(int number, EngineSlot *copy);

/* The state of the one that is best off, and, if there is one, an error. */
extern EngineState engines_state(char *last_error, size_t size);

/* How many there are, and whether requests wait for that GPU: words. */
extern int engine_slots_used(void);
extern bool engine_slots_busy(int card);

/* A job begins: engines are to give back what they only keep of their GPUs. */
extern void engine_slots_trim(void);

/* ---- Of the supervisor --------------------------------------------------- */

/*
 * Each wakes who waits. The state, and an error if there is a new one; what it
 * is given for a device, and what it says of it; that it was started, had an
 * error, has left.
 */
extern void engine_slot_publish(int number, EngineState state, const char *error);
extern void engine_slot_assign(int number, const char *device);
extern void engine_slot_device(int number, bool missing, int gpus);
extern void engine_slot_started(int number, pid_t pid);
extern void engine_slot_error(int number, const char *error);
extern void engine_slot_free(int number);

/* Requests wait for that GPU of it; negative: none do. */
extern void engine_slot_busy(int number, int card);
extern bool engine_slot_take_trim(int number); /* it is to be told; forgets that */

#endif /* BICYCLE_ENGINE_SLOTS_H */
