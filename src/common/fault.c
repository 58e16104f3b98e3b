/*
 * fault.c
 *	  Faults on demand (fault.h).
 *
 * State is one structure of atomics, so there is no lock.
 */
#include "common/fault.h"

#include <stdlib.h>
#include <string.h>

static const char *const fault_names[FAULT_KINDS] = { [FAULT_ALLOCATION] = "allocation",
													  [FAULT_LAUNCH] = "launch",
													  [FAULT_COPY] = "copy",
													  [FAULT_CAPTURE] = "capture" };

static FaultState own_state;
FaultState *fault_state = &own_state;

static bool
fault_parse(const char *text, int *kind, long *n, bool *lasting)
{
	size_t length = strcspn(text, ":");
	char *end;

	for (*kind = 0; *kind < FAULT_KINDS; ++*kind)
		if (strlen(fault_names[*kind]) == length && strncmp(text, fault_names[*kind], length) == 0)
			break;
	if (*kind == FAULT_KINDS || text[length] != ':' || text[length + 1] < '0' ||
		text[length + 1] > '9')
		return false;
	*n = strtol(text + length + 1, &end, 10);
	*lasting = strcmp(end, ":lasting") == 0;
	return *n > 0 && *n < 1000000000 && (*end == '\0' || *lasting);
}

const char *
fault_setting(const char *value, bool *trains)
{
	static const char train[] = "train ";
	const char *text = value;
	int kind;
	long n;
	bool lasting;

	*trains = strncmp(value, train, sizeof(train) - 1) == 0;
	if (*trains)
		text += sizeof(train) - 1;
	if (strlen(value) >= BICYCLE_MAX_FAULT)
		return NULL;
	return *value == '\0' || fault_parse(text, &kind, &n, &lasting) ? text : NULL;
}

bool
fault_set(const char *text)
{
	int kind = 0;
	long n = 0;
	bool lasting = false;

	if (*text != '\0' && !fault_parse(text, &kind, &n, &lasting))
		return false;
	atomic_store(&fault_state->set, false);
	atomic_store(&fault_state->kind, kind);
	atomic_store(&fault_state->lasting, lasting);
	atomic_store(&fault_state->left, n);
	atomic_store(&fault_state->set, *text != '\0');
	return true;
}

bool
fault_came(void)
{
	return atomic_load(&fault_state->set) && atomic_load(&fault_state->left) < 1;
}

bool
fault_comes(FaultKind kind)
{
	long left;

	if (atomic_load(&fault_state->left) < 1)
		return atomic_load(&fault_state->lasting);
	if (atomic_load(&fault_state->kind) != (int) kind)
		return false;
	left = atomic_fetch_sub(&fault_state->left, 1);
	return left == 1 || (left < 1 && atomic_load(&fault_state->lasting));
}
