/*
 * settings.c
 *	  The engine's settings: names, defaults and ranges are those of
 *	  common/settings.def.
 *
 * Settings belong to the I/O thread. A size of 0 means "chosen by the engine";
 * settings_set resolves nothing, admission.c and cache.c do when limits are
 * made. gpu_memory is the device's: engine_device.c has the device thread hand
 * it over.
 */
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/invariant.h"
#include "engine/settings.h"

typedef enum SettingKind
{
	SETTING_COUNT,
	SETTING_DEVICE,
	SETTING_PRECISION,
	SETTING_FAULT
} SettingKind;

typedef struct Setting
{
	const char *name;
	SettingKind kind;
	size_t offset;
	int64_t initial, min, max;
} Setting;

/* What the engine multiplies units of common/settings.def by. */
#define UNIT_NONE INT64_C(1)
#define UNIT_MS INT64_C(1)
#define UNIT_MB INT64_C(1048576)

static const Setting table[] = {
	{ "device", SETTING_DEVICE, offsetof(Settings, device), 0, 0, 0 },
	{ "precision", SETTING_PRECISION, offsetof(Settings, precision), 0, 0, 0 },
	{ "debug_device_fault", SETTING_FAULT, offsetof(Settings, debug_device_fault), 0, 0, 0 },
#define COUNT(name, initial, min, max) \
	{ #name, SETTING_COUNT, offsetof(Settings, name), initial, min, max },
#define ENGINE_INT(name, unit, initial, least, most, engine_least, help) \
	COUNT(name, UNIT_##unit *(initial), engine_least, UNIT_##unit *(most))
#define ENGINE_BOOL(name, initial, help) COUNT(name, initial, 0, 1)
#define OWN_INT(name, unit, initial, least, most, help) \
	COUNT(name, UNIT_##unit *(initial), least, UNIT_##unit *(most))
#include "common/settings.def"
};

#define NSETTINGS ((int) (sizeof(table) / sizeof(table[0])))

void
settings_default(Settings *settings)
{
	memset(settings, 0, sizeof(*settings));
	strcpy(settings->device, "auto");
	settings->precision = NN_PRECISION_AUTO;
	for (int i = 0; i < NSETTINGS; i++)
		if (table[i].kind == SETTING_COUNT)
			*(int64_t *) ((char *) settings + table[i].offset) = table[i].initial;
}

static bool
set_count(const Setting *setting, int64_t *to, const char *value, char *why, size_t why_size)
{
	char *end;
	long long number;

	errno = 0;
	number = strtoll(value, &end, 10);
	if (end == value || *end != '\0' || errno != 0 || number < setting->min ||
		number > setting->max)
	{
		snprintf(why, why_size, "\"%s\" is not a number from %lld to %lld", value,
				 (long long) setting->min, (long long) setting->max);
		return false;
	}
	*to = number;
	return true;
}

static bool
set_precision(NnPrecision *to, const char *value, char *why, size_t why_size)
{
	int precision = bicycle_name_value(bicycle_precision_names, value);

	if (precision < 0 || precision > NN_PRECISION_BF16)
	{
		snprintf(why, why_size, "\"%s\" is not auto, fp32 or bf16", value);
		return false;
	}
	*to = (NnPrecision) precision;
	return true;
}

static bool
set_device(char *to, size_t size, const char *value, char *why, size_t why_size)
{
	BicycleDevice device;
	int index;

	if (!bicycle_device_parse(value, &device, &index))
	{
		snprintf(why, why_size, "\"%s\" is not auto, cpu, cuda, cuda:N or ref", value);
		return false;
	}
	memset(to, 0, size);
	strcpy(to, value);
	return true;
}

static bool
set_fault(char *to, size_t size, const char *value, char *why, size_t why_size)
{
	bool trains;

	if (!fault_setting(value, &trains))
	{
		snprintf(why, why_size, "\"%s\" is no fault of a device", value);
		return false;
	}
	memset(to, 0, size);
	strcpy(to, value);
	return true;
}

void
settings_set_fault(const Settings *settings, bool trains)
{
	bool of_training;
	const char *text = fault_setting(settings->debug_device_fault, &of_training);

	INVARIANT(text != NULL);
	(void) fault_set(settings->debug && of_training == trains ? text : "");
}

bool
settings_set(Settings *settings, const char *name, const char *value, char *why, size_t why_size)
{
	for (int i = 0; i < NSETTINGS; i++)
	{
		void *field = (char *) settings + table[i].offset;

		if (strcmp(table[i].name, name) != 0)
			continue;
		switch (table[i].kind)
		{
			case SETTING_COUNT:
				return set_count(&table[i], field, value, why, why_size);
			case SETTING_DEVICE:
				return set_device(field, sizeof(settings->device), value, why, why_size);
			case SETTING_PRECISION:
				return set_precision(field, value, why, why_size);
			case SETTING_FAULT:
				return set_fault(field, sizeof(settings->debug_device_fault), value, why, why_size);
		}
	}
	snprintf(why, why_size, "there is no such setting");
	return false;
}

int
settings_threads(const Settings *settings)
{
	int share = machine_processors() / (int) settings->engines;

	if (settings->threads > 0)
		return (int) settings->threads;
	return share > 0 ? share : 1;
}
