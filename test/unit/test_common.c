/*
 * Proves that names and limits of src/common are what the SQL script repeats of
 * them, that values and names find each other, which names of devices there
 * are, and that the engine takes the defaults and limits of all its settings.
 */
#include <ctype.h>
#include <limits.h>

#include "common/job_state.h"
#include "common/protocol.h"
#include "engine/settings.h"
#include "nn/config.h"
#include "tap.h"
#include "testdata.h"

/* Makes one space of what is between two words. */
static void
unwrap(char *text)
{
	char *to = text;

	for (const char *from = text; *from != '\0'; from++)
		if (!isspace((unsigned char) *from))
			*to++ = *from;
		else if (to > text && to[-1] != ' ')
			*to++ = ' ';
	*to = '\0';
}

/* How often the script has CHECK (BEFORE, the names as a list, AFTER). */
static int
checks(const char *sql, const char *column, const char *const *names)
{
	char check[512];
	int length = snprintf(check, sizeof(check), "CHECK (%s IN (", column), count = 0;

	for (int i = 0; names[i] != NULL; i++)
		length += snprintf(check + length, sizeof(check) - (size_t) length, "%s'%s'",
						   i > 0 ? ", " : "", names[i]);
	snprintf(check + length, sizeof(check) - (size_t) length, "))");
	for (const char *at = sql; (at = strstr(at, check)) != NULL; at++)
		count++;
	if (count != 1)
		diag("%s is there %d times", check, count);
	return count;
}

static int
limits(const char *sql, const char *format, int limit)
{
	char check[128];
	int count = 0;

	snprintf(check, sizeof(check), format, limit);
	for (const char *at = sql; (at = strstr(at, check)) != NULL; at++)
		count++;
	return count;
}

static void
test_script(void)
{
#define STATE_NAME(state, name) name,
	static const char *const states[] = { JOB_STATES(STATE_NAME) NULL };
	size_t length;
	char *sql = testdata_text("../../sql/bicycle.sql", &length);

	unwrap(sql);

	ok(checks(sql, "network", bicycle_network_names) == 1, "the networks are those of the script");
	ok(checks(sql, "dtype", bicycle_dtype_names) == 1, "and the types");
	ok(checks(sql, "state", states) == 1, "and the states of a job");
	ok(limits(sql, "CHECK (octet_length(model) BETWEEN 1 AND %d)", BICYCLE_MAX_NAME - 1) == 1 &&
		   limits(sql, "CHECK (octet_length(name) BETWEEN 1 AND %d)", BICYCLE_MAX_NAME - 1) == 1,
	   "and the longest names");
	ok(limits(sql, "CHECK (octet_length(data) <= %d)", BICYCLE_CHUNK_BYTES) == 1,
	   "and the largest part of a tensor");
	free(sql);
}

static void
test_names(void)
{
	static const char *const *const tables[] = { bicycle_precision_names, bicycle_dtype_names,
												 bicycle_network_names, bicycle_loss_names,
												 bicycle_method_names };
	bool good = true;

	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		for (int value = 0; tables[i][value] != NULL; value++)
			good &= bicycle_name_value(tables[i], tables[i][value]) == value;
	ok(good && bicycle_name_value(bicycle_network_names, "d") == -1 &&
		   bicycle_name_value(bicycle_network_names, "") == -1,
	   "each name has its value, and others have none");
	ok(bicycle_precision_names[NN_PRECISION_TF32 + 1] == NULL &&
		   (int) NN_PRECISION_BF16 == BICYCLE_PRECISION_BF16 &&
		   bicycle_loss_names[NN_LOSSES] == NULL && BICYCLE_NLOSSES == (int) NN_LOSSES,
	   "the neural core's values are those of the protocol");
	ok(nn_options[NN_OPT_NZ].most == BICYCLE_MAX_NZ, "so is the longest latent code of a model");
}

static void
test_devices(void)
{
	static const struct
	{
		const char *name;
		BicycleDevice device;
		int index;
	} good[] = {
		{ "auto", BICYCLE_DEVICE_AUTO, 0 },       { "cpu", BICYCLE_DEVICE_CPU, 0 },
		{ "ref", BICYCLE_DEVICE_REF, 0 },         { "cuda", BICYCLE_DEVICE_CUDA, 0 },
		{ "cuda:0", BICYCLE_DEVICE_CUDA, 0 },     { "cuda:7", BICYCLE_DEVICE_CUDA, 7 },
		{ "cuda:999", BICYCLE_DEVICE_CUDA, 999 },
	};
	static const char *const bad[] = { "",       "gpu",     "CPU",       "cpu:0",    "cuda:",
									   "cuda:x", "cuda:-1", "cuda:1000", "cuda:1 ",  "cudax",
									   "cuda 1", "ref:1",   "auto:0",    "cuda:0x1", " cpu" };
	BicycleDevice device;
	int index;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		ok(bicycle_device_parse(good[i].name, &device, &index) && device == good[i].device &&
			   index == good[i].index && strlen(good[i].name) < BICYCLE_MAX_DEVICE,
		   "\"%s\" is a device", good[i].name);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ok(!bicycle_device_parse(bad[i], &device, &index), "\"%s\" is none", bad[i]);
}

static void
test_lists(void)
{
	static const struct
	{
		const char *text;
		int n;
		const char *first, *last;
	} good[] = {
		{ "auto", 1, "auto", "auto" },
		{ "cuda", 1, "cuda", "cuda" },
		{ "cuda:3", 1, "cuda:3", "cuda:3" },
		{ "cuda:0,cuda:1", 2, "cuda:0", "cuda:1" },
		{ " cuda:2 ,  cuda:1,cuda:0 ", 3, "cuda:2", "cuda:0" },
		{ "cuda,cuda:999", 2, "cuda:0", "cuda:999" },
		{ "cuda:0,cuda:1,cuda:2,cuda:3,cuda:4,cuda:5,cuda:6,cuda:7,cuda:8,cuda:9,cuda:10,cuda:11,"
		  "cuda:12,cuda:13,cuda:14,cuda:15",
		  16, "cuda:0", "cuda:15" },
	};
	static const char *const bad[] = {
		"",
		",",
		"cuda:0,",
		",cuda:0",
		"cuda:0,,cuda:1",
		"cuda:0,cpu",
		"auto,cuda:1",
		"cuda:1,cuda:1",
		"cuda,cuda:0",
		"cuda:01,cuda:1",
		"cuda:0,cuda:all",
		"cuda:0 cuda:1",
		"cuda:0 x,cuda:1",
		"cuda:0;cuda:1",
		"cuda:0,cuda:1000",
		"cuda:0,cuda:111111111111111",
		"cuda:0,cuda:1,cuda:2,cuda:3,cuda:4,cuda:5,cuda:6,cuda:7,cuda:8,cuda:9,cuda:10,cuda:11,"
		"cuda:12,cuda:13,cuda:14,cuda:15,cuda:16",
	};
	BicycleDevices devices;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		ok(bicycle_devices_parse(good[i].text, &devices) == NULL && devices.n == good[i].n &&
			   !devices.all && strcmp(devices.name[0], good[i].first) == 0 &&
			   strcmp(devices.name[devices.n - 1], good[i].last) == 0,
		   "\"%s\" is %d devices", good[i].text, good[i].n);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ok(bicycle_devices_parse(bad[i], &devices) != NULL, "\"%s\" is no list", bad[i]);
	ok(bicycle_devices_parse("cuda:all", &devices) == NULL && devices.all &&
		   devices.n == BICYCLE_MAX_ENGINES && strcmp(devices.name[1], "cuda:1") == 0,
	   "cuda:all is all");
}

/* ---- Settings ------------------------------------------------------------ */

/* What PostgreSQL's side may send: the ends of its range, and its default. */
static bool
takes_range(const char *name, int64_t unit, int64_t initial, int64_t least, int64_t most)
{
	int64_t values[] = { initial * unit, least * unit, most * unit };
	Settings settings;
	char value[32], why[128];
	bool good = true;

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
	{
		snprintf(value, sizeof(value), "%lld", (long long) values[i]);
		settings_default(&settings);
		if (settings_set(&settings, name, value, why, sizeof(why)))
			continue;
		diag("%s = %s: %s", name, value, why);
		good = false;
	}
	return good;
}

static void
test_settings(void)
{
	Settings settings;
	bool good = true;

#define UNIT_NONE 1
#define UNIT_MS 1
#define UNIT_MB 1048576
#define ENGINE_INT(name, unit, initial, least, most, engine_least, help) \
	good &= takes_range(#name, UNIT_##unit, initial, least, most);
#define ENGINE_BOOL(name, initial, help) good &= takes_range(#name, 1, initial, 0, 1);
#include "common/settings.def"
	ok(good, "the engine takes whatever PostgreSQL's side may send");
	settings_default(&settings);
	good = true;
#define ENGINE_INT(name, unit, initial, ...) \
	good &= settings.name == (int64_t) UNIT_##unit * (initial);
#include "common/settings.def"
	ok(good, "and has its defaults until then");
}

int
main(void)
{
	test_settings();
	test_script();
	test_names();
	test_devices();
	test_lists();
	return done_testing();
}
