/*
 * gucs.c
 *	  All settings, of the rows of common/settings.def.
 *
 * None is PGC_POSTMASTER, so that the library can be loaded at any time. The
 * engine's are sent to it by the supervisor, in the units of the protocol,
 * before it starts and after each reload.
 */
#include "pg/bicycle.h"

#include "common/fault.h"

#include <limits.h>

#include "utils/guc.h"
#include "utils/memutils.h"

#define ENGINE_INT(name, ...) int bicycle_##name;
#define ENGINE_BOOL(name, ...) bool bicycle_##name;
#define ENGINE_CHOICE(name, ...) int bicycle_##name;
#define SESSION_INT(name, ...) int bicycle_##name;
#define SESSION_BOOL(name, ...) bool bicycle_##name;
#define SESSION_CHOICE(name, ...) int bicycle_##name;
#define SESSION_STRING(name, ...) char *bicycle_##name;
#define ENGINE_STRING(name, ...) char *bicycle_##name;
#include "common/settings.def"

/* ---- The tables ---------------------------------------------------------- */

typedef enum GucKind
{
	GUC_KIND_INT,
	GUC_KIND_BOOL,
	GUC_KIND_CHOICE,
	GUC_KIND_STRING
} GucKind;

typedef struct Guc
{
	const char *name; /* after "bicycle." */
	GucKind kind;
	bool engine; /* the engine reads it */
	GucContext context;
	int unit;                                /* INT: a flag, or 0 */
	void *value;                             /* int, bool, int, char * */
	int initial, least, most;                /* INT, BOOL */
	const char *text;                        /* CHOICE, STRING: the default */
	const struct config_enum_entry *choices; /* CHOICE */
	GucStringCheckHook check;                /* STRING */
	const char *help;
} Guc;

static const struct config_enum_entry precision_choices[] = {
	{ "auto", BICYCLE_PRECISION_AUTO, false },
	{ "fp32", BICYCLE_PRECISION_FP32, false },
	{ "bf16", BICYCLE_PRECISION_BF16, false },
	{ NULL, 0, false },
};

static const struct config_enum_entry priority_choices[] = {
	{ "interactive", 0, false },
	{ "bulk", BICYCLE_FLAG_BULK, false },
	{ NULL, 0, false },
};

static const struct config_enum_entry on_error_choices[] = {
	{ "error", BICYCLE_ON_ERROR_ERROR, false },
	{ "null", BICYCLE_ON_ERROR_NULL, false },
	{ NULL, 0, false },
};

static const struct config_enum_entry output_format_choices[] = {
	{ "png", BICYCLE_OUTPUT_PNG, false },
	{ "jpeg", BICYCLE_OUTPUT_JPEG, false },
	{ "webp", BICYCLE_OUTPUT_WEBP, false },
	{ "webp_lossless", BICYCLE_OUTPUT_WEBP_LOSSLESS, false },
	{ NULL, 0, false },
};

static const struct config_enum_entry fit_choices[] = {
	{ "model", BICYCLE_FIT_MODEL, false },
	{ "square", BICYCLE_FIT_SQUARE, false },
	{ "input", BICYCLE_FIT_INPUT, false },
	{ NULL, 0, false },
};

static bool
check_device(char **newval, void **extra, GucSource source)
{
	BicycleDevices devices;
	const char *why = bicycle_devices_parse(*newval, &devices);

	if (why == NULL)
		return true;
	GUC_check_errdetail("%s", why);
	return false;
}

static bool
check_debug_device_fault(char **newval, void **extra, GucSource source)
{
	bool trains;

	if (fault_setting(*newval, &trains) != NULL)
		return true;
	GUC_check_errdetail("It is allocation, launch, copy or capture, a colon, and a number.");
	return false;
}

static bool
check_training_device(char **newval, void **extra, GucSource source)
{
	BicycleDevice device;
	int index;

	if (bicycle_device_parse(*newval, &device, &index))
		return true;
	GUC_check_errdetail("The device is auto, cpu, cuda or cuda:N.");
	return false;
}

static bool
check_model(char **newval, void **extra, GucSource source)
{
	if (strlen(*newval) < BICYCLE_MAX_NAME)
		return true;
	GUC_check_errdetail("The name of a model is shorter than %d bytes.", BICYCLE_MAX_NAME);
	return false;
}

#define WHO_USER PGC_USERSET
#define WHO_SUPERUSER PGC_SUSET
#define WHO_RELOAD PGC_SIGHUP

#define UNIT_NONE 0
#define UNIT_KB GUC_UNIT_KB
#define UNIT_MB GUC_UNIT_MB
#define UNIT_MS GUC_UNIT_MS
#define UNIT_S GUC_UNIT_S

#define INT_ROW(n, units, first, smallest, largest, does, who, says) \
	{ .name = #n,                                                    \
	  .kind = GUC_KIND_INT,                                          \
	  .engine = does,                                                \
	  .context = who,                                                \
	  .unit = units,                                                 \
	  .value = &bicycle_##n,                                         \
	  .initial = first,                                              \
	  .least = smallest,                                             \
	  .most = largest,                                               \
	  .help = says },
#define BOOL_ROW(n, first, does, who, says) \
	{ .name = #n,                           \
	  .kind = GUC_KIND_BOOL,                \
	  .engine = does,                       \
	  .context = who,                       \
	  .value = &bicycle_##n,                \
	  .initial = first,                     \
	  .help = says },
#define CHOICE_ROW(n, first, does, who, says) \
	{ .name = #n,                             \
	  .kind = GUC_KIND_CHOICE,                \
	  .engine = does,                         \
	  .context = who,                         \
	  .value = &bicycle_##n,                  \
	  .text = first,                          \
	  .choices = n##_choices,                 \
	  .help = says },
#define STRING_ROW(n, first, does, who, says) \
	{ .name = #n,                             \
	  .kind = GUC_KIND_STRING,                \
	  .engine = does,                         \
	  .context = who,                         \
	  .value = &bicycle_##n,                  \
	  .text = first,                          \
	  .check = check_##n,                     \
	  .help = says },

static const Guc settings[] = {
#define ENGINE_INT(name, unit, initial, least, most, engine_least, help) \
	INT_ROW(name, UNIT_##unit, initial, least, most, true, PGC_SIGHUP, help)
#define ENGINE_BOOL(name, initial, help) BOOL_ROW(name, initial, true, PGC_SIGHUP, help)
#define ENGINE_CHOICE(name, initial, help) CHOICE_ROW(name, initial, true, PGC_SIGHUP, help)
#define SESSION_INT(name, unit, initial, least, most, who, help) \
	INT_ROW(name, UNIT_##unit, initial, least, most, false, WHO_##who, help)
#define SESSION_BOOL(name, initial, who, help) BOOL_ROW(name, initial, false, WHO_##who, help)
#define SESSION_CHOICE(name, initial, who, help) CHOICE_ROW(name, initial, false, WHO_##who, help)
#define ENGINE_STRING(name, initial, help) STRING_ROW(name, initial, true, PGC_SIGHUP, help)
#define SESSION_STRING(name, initial, who, help) STRING_ROW(name, initial, false, WHO_##who, help)
#include "common/settings.def"
};

/* ---- What is made of them ------------------------------------------------ */

static int
choice_value(const Guc *s)
{
	const struct config_enum_entry *entry = s->choices;

	while (strcmp(entry->name, s->text) != 0)
		entry++;
	return entry->val;
}

static void
define(const Guc *s)
{
	/* GUC keeps the name it is given: each is made once for the process */
	char *name = MemoryContextStrdup(TopMemoryContext, psprintf("bicycle.%s", s->name));
	int flags = s->unit | (strncmp(s->help, "For tests", 9) == 0 ? GUC_NOT_IN_SAMPLE : 0);

	switch (s->kind)
	{
		case GUC_KIND_INT:
			DefineCustomIntVariable(name, s->help, NULL, s->value, s->initial, s->least, s->most,
									s->context, flags, NULL, NULL, NULL);
			break;
		case GUC_KIND_BOOL:
			DefineCustomBoolVariable(name, s->help, NULL, s->value, s->initial != 0, s->context,
									 flags, NULL, NULL, NULL);
			break;
		case GUC_KIND_CHOICE:
			DefineCustomEnumVariable(name, s->help, NULL, s->value, choice_value(s), s->choices,
									 s->context, flags, NULL, NULL, NULL);
			break;
		case GUC_KIND_STRING:
			DefineCustomStringVariable(name, s->help, NULL, s->value, s->text, s->context, flags,
									   s->check, NULL, NULL);
			break;
	}
}

void
gucs_define(void)
{
	for (int i = 0; i < lengthof(settings); i++)
		define(&settings[i]);
	MarkGUCPrefixReserved("bicycle");
}

void
gucs_for_engine(StringInfo out)
{
	for (int i = 0; i < lengthof(settings); i++)
	{
		const Guc *s = &settings[i];

		if (!s->engine)
			continue;
		appendStringInfo(out, "set %s ", s->name);
		switch (s->kind)
		{
			case GUC_KIND_INT:
				appendStringInfo(out, INT64_FORMAT,
								 (int64) * (int *) s->value *
									 (s->unit == GUC_UNIT_MB ? 1024 * 1024 : 1));
				break;
			case GUC_KIND_BOOL:
				appendStringInfo(out, "%d", *(bool *) s->value ? 1 : 0);
				break;
			case GUC_KIND_CHOICE:
				for (const struct config_enum_entry *o = s->choices; o->name; o++)
					if (o->val == *(int *) s->value)
						appendStringInfoString(out, o->name);
				break;
			case GUC_KIND_STRING:
				appendStringInfoString(out, *(char **) s->value);
				break;
		}
		appendStringInfoChar(out, '\n');
	}
}
