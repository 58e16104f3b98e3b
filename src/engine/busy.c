/*
 * busy.c
 *	  Whether requests wait for the GPU, as the supervisor is told: a job that
 *	  trains on the same one waits between its iterations meanwhile.
 *
 * I/O thread only.
 *
 * R1 "busy" is said at once, "idle" when nothing has come for QUIET_MS: who
 *    asks for one image after the other is not to find an iteration in its way
 *    each time, nor is the supervisor to hear of each image.
 * R2 Nothing is said of a CPU, where the kernel's priorities do this.
 */
#include <stdio.h>

#include "engine/engine.h"

#define QUIET_MS 10

static bool
is_wanted(const Engine *engine)
{
	return engine->device.memory > 0 &&
		   (engine->nbatches > 0 || engine->ahead[0] + engine->ahead[1] > 0 || engine->preparing ||
			engine->alone != NULL);
}

/* N of "cuda:N (...", as the neural core describes it. */
static int
gpu_number(const Engine *engine)
{
	int number = 0;

	(void) sscanf(engine->device.name, "cuda:%d", &number);
	return number;
}

void
busy_run(Engine *engine)
{
	BusyWord *busy = &engine->busy;
	bool wanted = is_wanted(engine);

	if (wanted && !busy->said)
		control_say(engine, "busy %d", gpu_number(engine));
	else if (!wanted && busy->said && busy->until_ms == 0)
		busy->until_ms = now_ms() + QUIET_MS;
	else if (!wanted && busy->said && now_ms() >= busy->until_ms)
	{
		control_say(engine, "idle");
		busy->said = false;
	}
	if (wanted)
		*busy = (BusyWord){ .said = true };
}

int
busy_wait_ms(const Engine *engine)
{
	int64_t left;

	if (!engine->busy.said || engine->busy.until_ms == 0)
		return -1;
	left = engine->busy.until_ms - now_ms();
	return left > 0 ? (int) left : 0;
}
