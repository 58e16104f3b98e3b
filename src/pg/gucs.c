/*
 * gucs.c
 *	  All settings, in one table each for integers, booleans, enumerations and
 *	  strings.
 *
 * None is PGC_POSTMASTER, so that the library can be loaded at any time. Those
 * with an engine name are sent to the engine by the supervisor, in the units of
 * the protocol, before it starts and after each reload.
 */
#include "bicycle.h"

#include <limits.h>

#include "utils/guc.h"
#include "utils/memutils.h"

char *bicycle_device = NULL;
int bicycle_precision = 0;
int bicycle_max_model_size = 0;
int bicycle_max_image_pixels = 0;
int bicycle_max_request_size = 0;
int bicycle_debug_fault = 0;
char *bicycle_model = NULL;
int bicycle_prefetch = 0;
bool bicycle_batching = true;
int bicycle_priority = 0;
int bicycle_output_format = BICYCLE_OUTPUT_PNG;
int bicycle_jpeg_quality = 0;
int bicycle_request_timeout = 0;
int bicycle_max_training_jobs = 0;
int bicycle_train_memory = 0;
int bicycle_train_disk = 0;
int bicycle_train_checkpoint_interval = 0;
int bicycle_train_stuck_timeout = 0;

static int threads;
static int cache_size;
static int engine_memory;
static int gpu_memory;
static int max_batch;
static int queue_memory;
static int stuck_timeout;
bool bicycle_debug = false;

/*
 * What the engine multiplies by: settings with GUC_UNIT_MB reach it in bytes.
 */
#define MB (1024 * 1024)

typedef struct IntSetting
{
	const char *name;        /* after "bicycle." */
	const char *engine_name; /* NULL: the engine does not read it */
	int *value;
	int def;
	int min;
	int max;
	GucContext context;
	int flags;
	const char *help;
} IntSetting;

static const IntSetting int_settings[] = {
	{ "threads", "threads", &threads, 0, 0, 1024, PGC_SIGHUP, 0,
	  "Threads with which the engine computes on a CPU; 0 means as many as there are processors "
	  "for it." },
	{ "cache_size", "cache_size", &cache_size, 1024, 16, INT_MAX / 2, PGC_SIGHUP, GUC_UNIT_MB,
	  "Memory for models that stay resident in the engine, on a CPU; on a GPU bicycle.gpu_memory "
	  "is." },
	{ "engine_memory", "engine_memory", &engine_memory, 0, 0, INT_MAX / 2, PGC_SIGHUP, GUC_UNIT_MB,
	  "Memory that the engine may take in all; requests beyond it fail with an error. 0 means half "
	  "of the machine's, or of what its container may have." },
	{ "gpu_memory", "gpu_memory", &gpu_memory, 0, 0, INT_MAX / 2, PGC_SIGHUP, GUC_UNIT_MB,
	  "Memory of the GPU that models may take; 0 means seven eighths of the card's." },
	{ "max_batch", "max_batch", &max_batch, 16, 1, 256, PGC_SIGHUP, 0,
	  "Most images that the engine computes at once." },
	{ "queue_memory", "queue_memory", &queue_memory, 256, 1, INT_MAX / 2, PGC_SIGHUP, GUC_UNIT_MB,
	  "Memory for requests that wait in the engine; beyond it sessions wait before they send." },
	{ "max_model_size", "max_model_size", &bicycle_max_model_size, 1024, 1, INT_MAX / 2, PGC_SIGHUP,
	  GUC_UNIT_MB, "Largest model file, and largest model, that is accepted." },
	{ "stuck_timeout", "stuck_timeout", &stuck_timeout, 60 * 1000, 100, INT_MAX, PGC_SIGHUP,
	  GUC_UNIT_MS,
	  "Time after which a computation of the engine that comes no further is taken to hang, and "
	  "the engine is restarted." },
	{ "max_training_jobs", NULL, &bicycle_max_training_jobs, 1, 0, JOB_SLOTS, PGC_SIGHUP, 0,
	  "Training jobs that run at once; others are queued." },
	{ "train_memory", NULL, &bicycle_train_memory, 512, 1, INT_MAX / 2, PGC_SIGHUP, GUC_UNIT_MB,
	  "Memory for the training pairs of one job; what does not fit goes to disk." },
	{ "train_disk", NULL, &bicycle_train_disk, 10240, 0, INT_MAX / 2, PGC_SIGHUP, GUC_UNIT_MB,
	  "Disk space for the training pairs of one job that do not fit in memory." },
	{ "train_checkpoint_interval", NULL, &bicycle_train_checkpoint_interval, 600, 1, INT_MAX / 1000,
	  PGC_SIGHUP, GUC_UNIT_S, "Time between two checkpoints of a training job." },
	{ "train_stuck_timeout", NULL, &bicycle_train_stuck_timeout, 600, 1, INT_MAX / 1000, PGC_SIGHUP,
	  GUC_UNIT_S,
	  "Time after which an iteration of training that comes no further is taken to hang, and its "
	  "engine is started anew." },
	{ "max_image_pixels", NULL, &bicycle_max_image_pixels, 64 * 1024 * 1024, 1, INT_MAX, PGC_SUSET,
	  0, "Largest image, in pixels, that is decoded." },
	{ "max_request_size", NULL, &bicycle_max_request_size, 64 * 1024, 1, 1024 * 1024 - 64,
	  PGC_SUSET, GUC_UNIT_KB, "Largest encoded image that is sent to the engine." },
	{ "debug_fault", NULL, &bicycle_debug_fault, 0, 0, 3, PGC_SUSET, GUC_NOT_IN_SAMPLE,
	  "For tests: 1 crashes the engine when a request of this session starts, 2 makes it hang, "
	  "3 spoils the session's own list of calls.  Needs bicycle.debug." },
	{ "prefetch", NULL, &bicycle_prefetch, 32, 1, 256, PGC_USERSET, 0,
	  "Requests that one statement keeps in flight." },
	{ "jpeg_quality", NULL, &bicycle_jpeg_quality, 90, 1, 100, PGC_USERSET, 0,
	  "Quality of JPEG images that are returned." },
	{ "request_timeout", NULL, &bicycle_request_timeout, 60 * 1000, 0, INT_MAX, PGC_USERSET,
	  GUC_UNIT_MS, "Longest wait for a place in the engine's queue; 0 waits without limit." },
};

typedef struct BoolSetting
{
	const char *name;
	const char *engine_name;
	bool *value;
	bool def;
	GucContext context;
	int flags;
	const char *help;
} BoolSetting;

static const BoolSetting bool_settings[] = {
	{ "debug", "debug", &bicycle_debug, false, PGC_SIGHUP, GUC_NOT_IN_SAMPLE,
	  "For tests: lets bicycle.debug_fault do harm, and sessions check their own state." },
	{ "batching", NULL, &bicycle_batching, true, PGC_USERSET, 0,
	  "Lets a statement over many images keep several requests in flight." },
};

static const struct config_enum_entry precision_options[] = {
	{ "auto", BICYCLE_PRECISION_AUTO, false },
	{ "fp32", BICYCLE_PRECISION_FP32, false },
	{ "bf16", BICYCLE_PRECISION_BF16, false },
	{ NULL, 0, false },
};
static const struct config_enum_entry priority_options[] = { { "interactive", 0, false },
															 { "bulk", BICYCLE_FLAG_BULK, false },
															 { NULL, 0, false } };
static const struct config_enum_entry output_options[] = { { "png", BICYCLE_OUTPUT_PNG, false },
														   { "jpeg", BICYCLE_OUTPUT_JPEG, false },
														   { NULL, 0, false } };

typedef struct EnumSetting
{
	const char *name;
	const char *engine_name;
	int *value;
	int def;
	const struct config_enum_entry *options;
	GucContext context;
	const char *help;
} EnumSetting;

static const EnumSetting enum_settings[] = {
	{ "precision", "precision", &bicycle_precision, 0, precision_options, PGC_SIGHUP,
	  "Arithmetic of the networks; auto is fp32 on a CPU and bf16 on a GPU." },
	{ "priority", NULL, &bicycle_priority, 0, priority_options, PGC_USERSET,
	  "Whether requests of this session go before bulk requests or are such." },
	{ "output_format", NULL, &bicycle_output_format, BICYCLE_OUTPUT_PNG, output_options,
	  PGC_USERSET, "Format of images that are returned by functions without a version." },
};

typedef struct StringSetting
{
	const char *name;
	const char *engine_name;
	char **value;
	const char *def;
	GucContext context;
	GucStringCheckHook check;
	const char *help;
} StringSetting;

static bool check_device(char **newval, void **extra, GucSource source);
static bool check_model(char **newval, void **extra, GucSource source);

static const StringSetting string_settings[] = {
	{ "device", "device", &bicycle_device, "auto", PGC_SIGHUP, check_device,
	  "Where the networks run: auto, cpu, cuda or cuda:N." },
	{ "model", NULL, &bicycle_model, "", PGC_USERSET, check_model,
	  "Model of calls that name none." },
};

static bool
check_device(char **newval, void **extra, GucSource source)
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

/*
 * GUC keeps the name it is given, so each is made once for the life of the
 * process.
 */
static const char *
full_name(const char *name)
{
	return MemoryContextStrdup(TopMemoryContext, psprintf("bicycle.%s", name));
}

void
settings_define(void)
{
	for (int i = 0; i < lengthof(int_settings); i++)
	{
		const IntSetting *s = &int_settings[i];

		DefineCustomIntVariable(full_name(s->name), s->help, NULL, s->value, s->def, s->min, s->max,
								s->context, s->flags, NULL, NULL, NULL);
	}
	for (int i = 0; i < lengthof(bool_settings); i++)
	{
		const BoolSetting *s = &bool_settings[i];

		DefineCustomBoolVariable(full_name(s->name), s->help, NULL, s->value, s->def, s->context,
								 s->flags, NULL, NULL, NULL);
	}
	for (int i = 0; i < lengthof(enum_settings); i++)
	{
		const EnumSetting *s = &enum_settings[i];

		DefineCustomEnumVariable(full_name(s->name), s->help, NULL, s->value, s->def, s->options,
								 s->context, 0, NULL, NULL, NULL);
	}
	for (int i = 0; i < lengthof(string_settings); i++)
	{
		const StringSetting *s = &string_settings[i];

		DefineCustomStringVariable(full_name(s->name), s->help, NULL, s->value, s->def, s->context,
								   0, s->check, NULL, NULL);
	}
	MarkGUCPrefixReserved("bicycle");
}

void
settings_for_engine(StringInfo out)
{
	for (int i = 0; i < lengthof(int_settings); i++)
	{
		const IntSetting *s = &int_settings[i];

		if (s->engine_name)
			appendStringInfo(out, "set %s " INT64_FORMAT "\n", s->engine_name,
							 (int64) *s->value * ((s->flags & GUC_UNIT) == GUC_UNIT_MB ? MB : 1));
	}
	for (int i = 0; i < lengthof(bool_settings); i++)
	{
		const BoolSetting *s = &bool_settings[i];

		if (s->engine_name)
			appendStringInfo(out, "set %s %d\n", s->engine_name, *s->value ? 1 : 0);
	}
	for (int i = 0; i < lengthof(enum_settings); i++)
	{
		const EnumSetting *s = &enum_settings[i];

		if (s->engine_name)
			for (const struct config_enum_entry *o = s->options; o->name; o++)
				if (o->val == *s->value)
					appendStringInfo(out, "set %s %s\n", s->engine_name, o->name);
	}
	for (int i = 0; i < lengthof(string_settings); i++)
	{
		const StringSetting *s = &string_settings[i];

		if (s->engine_name)
			appendStringInfo(out, "set %s %s\n", s->engine_name, *s->value);
	}
}
