/*
 * names.c
 *	  The tables of names.h as arrays, and finding a name in one.
 */
#include "common/names.h"

#include <stdlib.h>
#include <string.h>

#define NAME(id, name, ...) name,
#define BYTES(id, name, bytes) bytes,

const char *const bicycle_precision_names[] = { BICYCLE_PRECISIONS(NAME) NULL };
const char *const bicycle_dtype_names[] = { BICYCLE_DTYPES(NAME) NULL };
const size_t bicycle_dtype_bytes[] = { BICYCLE_DTYPES(BYTES) };
const char *const bicycle_network_names[] = { BICYCLE_NETWORKS(NAME) NULL };
const char *const bicycle_loss_names[] = { BICYCLE_LOSSES(NAME) NULL };
const char *const bicycle_method_names[] = { BICYCLE_METHODS(NAME) NULL };

int
bicycle_name_value(const char *const *names, const char *name)
{
	for (int i = 0; names[i] != NULL; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return -1;
}

bool
bicycle_device_parse(const char *name, BicycleDevice *device, int *index)
{
	static const char *const kinds[] = {
		[BICYCLE_DEVICE_AUTO] = "auto",
		[BICYCLE_DEVICE_CPU] = "cpu",
		[BICYCLE_DEVICE_CUDA] = "cuda",
		[BICYCLE_DEVICE_REF] = "ref",
		NULL,
	};
	bool numbered = strncmp(name, "cuda:", 5) == 0;
	int kind = bicycle_name_value(kinds, numbered ? "cuda" : name);
	const char *digits = numbered ? name + 5 : "0";

	if (kind < 0 || digits[0] == '\0' || strlen(digits) > 3 ||
		strspn(digits, "0123456789") != strlen(digits))
		return false;
	*device = (BicycleDevice) kind;
	*index = atoi(digits);
	return true;
}
