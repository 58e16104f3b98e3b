/*
 * settings.c
 *	  The engine's settings: one table of name, kind, default and range.
 *
 * Settings belong to the I/O thread. A size of 0 means "chosen by the engine";
 * settings_set resolves nothing, budget.c and cache.c do when limits are made.
 * gpu_memory is the device's: server.c has the device thread hand it over.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/settings.h"

typedef enum SettingKind
{
	SETTING_COUNT,
	SETTING_DEVICE,
	SETTING_PRECISION
} SettingKind;

typedef struct Setting
{
	const char *name;
	SettingKind kind;
	size_t offset;
	int64_t initial, min, max;
} Setting;

#define KB INT64_C(1024)
#define MB (1024 * KB)
#define GB (1024 * MB)

static const Setting table[] = {
	{ "device", SETTING_DEVICE, offsetof(Settings, device), 0, 0, 0 },
	{ "precision", SETTING_PRECISION, offsetof(Settings, precision), 0, 0, 0 },
	{ "threads", SETTING_COUNT, offsetof(Settings, threads), 0, 0, 1024 },
	{ "cache_size", SETTING_COUNT, offsetof(Settings, cache_size), 0, 0, INT64_MAX },
	{ "engine_memory", SETTING_COUNT, offsetof(Settings, engine_memory), 0, 0, INT64_MAX },
	{ "gpu_memory", SETTING_COUNT, offsetof(Settings, gpu_memory), 0, 0, INT64_MAX },
	{ "max_batch", SETTING_COUNT, offsetof(Settings, max_batch), 16, 1, 1024 },
	{ "queue_memory", SETTING_COUNT, offsetof(Settings, queue_memory), 64 * MB, 64 * KB,
	  INT64_MAX },
	{ "max_model_size", SETTING_COUNT, offsetof(Settings, max_model_size), 1 * GB, 1, INT64_MAX },
	{ "stuck_timeout", SETTING_COUNT, offsetof(Settings, stuck_timeout), 60000, 100, INT64_MAX },
	{ "gpu_retry", SETTING_COUNT, offsetof(Settings, gpu_retry), 30000, 10, INT64_MAX / 1024 },
	{ "debug", SETTING_COUNT, offsetof(Settings, debug), 0, 0, 1 },
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

/*
 * Returns false, and says why, if there is no such setting or the value is not
 * for it; nothing has changed then.
 */
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
		}
	}
	snprintf(why, why_size, "there is no such setting");
	return false;
}

int
settings_threads(const Settings *settings)
{
	return settings->threads > 0 ? (int) settings->threads : machine_processors();
}
