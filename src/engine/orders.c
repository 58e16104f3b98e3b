/*
 * orders.c
 *	  What the supervisor says, line by line: settings, "go", "ping", "trim",
 *	  "stop", and what a job worker says besides, "yield". See the end of
 *	  protocol.h, and run_protocol.h.
 *
 * "pong" is the engine's sign of life, and the I/O thread would give it even if
 * every other thread hung. So it is withheld while a batch, a decoder or an
 * encoder has come no further for longer than the setting stuck_timeout, or the
 * loader for ten times that: the supervisor then kills and restarts the engine.
 * A batch that only takes long is told apart by the neural core, which reports
 * progress at every layer (nn_device_watch).
 */
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

static bool
is_stuck(Engine *engine)
{
	int64_t limit = engine->settings.stuck_timeout;

	return executor_longest(&engine->device_thread) > limit ||
		   executor_longest(&engine->pool) > limit ||
		   executor_longest(&engine->loader) / 10 > limit;
}

static void
order_set(Engine *engine, char *name)
{
	char *value = strchr(name, ' ');
	char why[256];
	Settings before = engine->settings;

	if (value == NULL)
	{
		log_write(LOG_WARNING, "setting \"%s\" came without a value", name);
		return;
	}
	*value++ = '\0';
	if (!settings_set(&engine->settings, name, value, why, sizeof(why)))
		log_write(LOG_WARNING, "setting \"%s\" was not changed: %s", name, why);
	/* a reload sends all of them */
	else if (engine->gone && memcmp(&before, &engine->settings, sizeof(before)) != 0)
		engine_changed(engine, name);
}

static void
order_yield(Engine *engine, const char *percent)
{
	char *end;
	long number = strtol(percent, &end, 10);

	if (end == percent || *end != '\0' || number < 0 || number > 100)
		log_write(LOG_WARNING, "\"%.20s\" is no part of a GPU's time", percent);
	else
		engine->yields(engine, (int) number);
}

void
orders_line(Engine *engine, char *line)
{
	if (strncmp(line, "set ", 4) == 0)
		order_set(engine, line + 4);
	else if (strcmp(line, "go") == 0)
	{
		if (!engine->gone)
		{
			engine->gone = true;
			engine->go(engine);
		}
	}
	else if (strncmp(line, "ping ", 5) == 0)
	{
		if (!is_stuck(engine))
			control_say(engine, "pong %s", line + 5);
	}
	else if (strncmp(line, "yield ", 6) == 0 && engine->yields != NULL)
		order_yield(engine, line + 6);
	else if (strcmp(line, "trim") == 0)
		device_give_back(engine);
	else if (strcmp(line, "stop") == 0)
		engine_stop(engine, 0);
	else
		log_write(LOG_WARNING, "the supervisor said \"%.100s\", which means nothing here", line);
}
