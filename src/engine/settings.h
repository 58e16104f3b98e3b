/*
 * settings.h
 *	  The engine's settings, and what those that are 0 follow from: the
 *	  machine's memory and processors.
 *
 * Settings belong to the I/O thread. The functions keep nothing.
 */
#ifndef BICYCLE_ENGINE_SETTINGS_H
#define BICYCLE_ENGINE_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/fault.h"
#include "nn/nn.h"

/* The engine's rows of common/settings.def: sizes in bytes, times in ms. */
typedef struct Settings
{
	char device[BICYCLE_MAX_DEVICE];
	NnPrecision precision;
	char debug_device_fault[BICYCLE_MAX_FAULT];
#define ENGINE_INT(name, ...) int64_t name;
#define ENGINE_BOOL(name, ...) int64_t name;
#define OWN_INT(name, ...) int64_t name;
#include "common/settings.def"
} Settings;

extern void settings_default(Settings *settings);

/* False, with the reason in `why`; nothing has changed then. */
extern bool settings_set(Settings *settings, const char *name, const char *value, char *why,
						 size_t why_size);
extern int settings_threads(const Settings *settings);

/*
 * Has the debug_device_fault that is set come, of an engine that trains or not.
 */
extern void settings_set_fault(const Settings *settings, bool trains);

/* What this process may have of the machine (machine.c). */
extern size_t machine_memory(void);
extern size_t machine_memory_limit(const char *groups, const char *root);
extern int machine_processors(void);

#endif /* BICYCLE_ENGINE_SETTINGS_H */
