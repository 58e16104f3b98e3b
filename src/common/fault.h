/*
 * fault.h
 *	  Faults on demand, for tests: the n-th allocation, launch, copy or capture
 *	  that a device makes fails.
 *
 * Devices ask fault_point where the real thing may fail, in inference and in
 * training, on a CPU as on a GPU:
 *
 *	 allocation  memory that grows with the model, of the host or of a GPU
 *	 launch      a layer of a CPU; a kernel or a captured plan of a GPU
 *	 copy        inputs and outputs, parameters, on their way in or out
 *	 capture     a plan that is made ready to be run again and again
 *
 * R1 A fault is set by text, "KIND:N", counted from then on, and comes once;
 *    with ":lasting" all that any fault_point is asked after it fails, too, as
 *    of a GPU whose context is gone.
 * R2 Any thread may ask. Where nothing is set that costs one load.
 * R3 A library of its own has a state of its own, until it is given the
 *    program's (nn/cuda/module.h).
 */
#ifndef BICYCLE_FAULT_H
#define BICYCLE_FAULT_H

#include <stdatomic.h>
#include <stdbool.h>

typedef enum FaultKind
{
	FAULT_ALLOCATION,
	FAULT_LAUNCH,
	FAULT_COPY,
	FAULT_CAPTURE,
	FAULT_KINDS
} FaultKind;

#define BICYCLE_MAX_FAULT 48 /* of the setting, with its NUL */

typedef struct FaultState
{
	_Atomic bool set;
	_Atomic int kind;
	_Atomic long left; /* until the one that fails; below 1: it has been */
	_Atomic bool lasting;
} FaultState;

extern FaultState *fault_state;

/* "" is none. False: it means nothing, and nothing has changed. */
extern bool fault_set(const char *text);

/*
 * Of the setting debug_device_fault: what to set, and whether for engines that
 * train; NULL: it means nothing.
 */
extern const char *fault_setting(const char *value, bool *trains);
extern bool fault_came(void); /* the one that was set last has been */

extern bool fault_comes(FaultKind kind);

/* Whether what is to be done now fails. */
static inline bool
fault_point(FaultKind kind)
{
	return atomic_load_explicit(&fault_state->set, memory_order_relaxed) && fault_comes(kind);
}

#endif /* BICYCLE_FAULT_H */
