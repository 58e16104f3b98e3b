/*
 * names.c
 *	  The tables of names.h as arrays, and finding a name in one.
 */
#include "common/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME(id, name, ...) name,
#define BYTES(id, name, bytes) bytes,

const char *const bicycle_precision_names[] = { BICYCLE_PRECISIONS(NAME) NULL };
const char *const bicycle_dtype_names[] = { BICYCLE_DTYPES(NAME) NULL };
const size_t bicycle_dtype_bytes[] = { BICYCLE_DTYPES(BYTES) };
const char *const bicycle_network_names[] = { BICYCLE_NETWORKS(NAME) NULL };
const char *const bicycle_loss_names[] = { BICYCLE_LOSSES(NAME) NULL };
const char *const bicycle_measure_names[] = { BICYCLE_MEASURES(NAME) NULL };
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

/* index: below 1000 */
static void
name_gpu(char name[BICYCLE_MAX_DEVICE], int index)
{
	snprintf(name, BICYCLE_MAX_DEVICE, "cuda:%u", (unsigned) index % 1000);
}

_Static_assert(BICYCLE_MAX_ENGINES == 16, "a sentence below says so");

/* Adds cuda:N for an element of a list; NULL, or why not. */
static const char *
add_device(BicycleDevices *devices, const char *element, size_t length)
{
	char name[BICYCLE_MAX_DEVICE] = "";
	BicycleDevice device;
	int index;

	if (length < sizeof(name))
		memcpy(name, element, length);
	if (!bicycle_device_parse(name, &device, &index) || device != BICYCLE_DEVICE_CUDA)
		return "A list of devices has GPUs only, as cuda:0,cuda:1.";
	if (devices->n == BICYCLE_MAX_ENGINES)
		return "A list has 16 devices at most.";
	name_gpu(name, index);
	for (int i = 0; i < devices->n; i++)
		if (strcmp(devices->name[i], name) == 0)
			return "A list names each device once.";
	strcpy(devices->name[devices->n++], name);
	return NULL;
}

const char *
bicycle_devices_parse(const char *text, BicycleDevices *devices)
{
	BicycleDevice device;
	int index;
	const char *why = NULL;

	memset(devices, 0, sizeof(*devices));
	if (bicycle_device_parse(text, &device, &index))
	{
		strcpy(devices->name[devices->n++], text);
		return NULL;
	}
	if (strcmp(text, "cuda:all") == 0)
	{
		devices->all = true;
		for (; devices->n < BICYCLE_MAX_ENGINES; devices->n++)
			name_gpu(devices->name[devices->n], devices->n);
		return NULL;
	}
	if (strchr(text, ',') == NULL)
		return "The device is auto, cpu, cuda, cuda:N, a list of cuda:N, or cuda:all.";
	for (const char *element = text; element != NULL && why == NULL;)
	{
		const char *comma = strchr(element, ',');
		size_t length;

		element += strspn(element, " ");
		length = strcspn(element, ", ");
		if (element[length + strspn(element + length, " ")] != (comma ? ',' : '\0'))
			why = "A list of devices is separated by commas, as cuda:0,cuda:1.";
		else
			why = add_device(devices, element, length);
		element = comma ? comma + 1 : NULL;
	}
	return why;
}

void
bicycle_engine_file(char name[BICYCLE_ENGINE_FILE], int engine, const char *ending)
{
	if (engine == 0)
		snprintf(name, BICYCLE_ENGINE_FILE, "bicycle.%s", ending);
	else
		snprintf(name, BICYCLE_ENGINE_FILE, "bicycle.%d.%s", engine, ending);
}
