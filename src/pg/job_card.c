/*
 * job_card.c
 *	  The GPU of a job: which it takes, and giving way to sessions there.
 *
 * R1 bicycle.training_device says where a job trains. "cuda", and "auto" if it
 *    comes to a GPU, is any of those that bicycle.device names: the one that
 *    the fewest other jobs have; of these that of the job's earlier run, else
 *    the first.
 * R2 Slots of jobs say which card each has (job_slots.c). A card is taken
 *    before the engine starts, so two jobs do not take the same. What the run
 *    opens counts from then on.
 * R3 Engines of sessions say when requests wait for their card, the supervisor
 *    notes it, and wakes the workers of jobs there (supervisor.c). The worker
 *    tells its engine what it may have meanwhile.
 *
 * What is kept below is of this process, which has one job.
 */
#include "pg/job_card.h"

#include "common/names.h"
#include "pg/bicycle.h"
#include "pg/engine_slots.h"
#include "pg/job_slots.h"

static char device[BICYCLE_MAX_DEVICE]; /* for the engine */
static int card = 0;                    /* that was taken */

/* N of "cuda:N (...", as the neural core describes a GPU; NO_CARD: none. */
static int
card_of_platform(const char *platform)
{
	int number;
	char end;

	if (platform && sscanf(platform, "cuda:%d%c", &number, &end) == 2 && end == ' ' && number >= 0)
		return number;
	return NO_CARD;
}

/* The cards that bicycle.device names, all that are known of cuda:all. */
static int
named_cards(int cards[BICYCLE_MAX_ENGINES])
{
	BicycleDevices devices;
	int n = 0;

	(void) bicycle_devices_parse(bicycle_device, &devices);
	if (devices.all)
		devices.n = Max(engine_slots_used(), 1);
	for (int i = 0; i < devices.n; i++)
	{
		BicycleDevice kind;
		int number;

		if (bicycle_device_parse(devices.name[i], &kind, &number) && kind == BICYCLE_DEVICE_CUDA)
			cards[n++] = number;
	}
	if (n == 0)
		cards[n++] = 0;
	return n;
}

void
job_card_choose(const char *platform)
{
	int cards[BICYCLE_MAX_ENGINES] = { 0 };
	int n = 1;
	BicycleDevice kind;

	strlcpy(device, bicycle_training_device, sizeof(device));
	(void) bicycle_device_parse(device, &kind, &cards[0]);
	if (kind != BICYCLE_DEVICE_AUTO && kind != BICYCLE_DEVICE_CUDA)
		return;
	if (strchr(device, ':') == NULL)
		n = named_cards(cards);
	card = job_slot_take_card(cards, n, card_of_platform(platform));
	if (kind == BICYCLE_DEVICE_CUDA)
		snprintf(device, sizeof(device), "cuda:%d", card);
	engine_slots_trim();
}

void
job_card_lines(StringInfo lines)
{
	appendStringInfo(lines, "set device %s\nset training_card %d\n", device, card);
}

void
job_card_opened(const char *platform)
{
	job_slot_set_card(card_of_platform(platform));
}

int
job_card_share(void)
{
	return engine_slots_busy(job_slot_card()) ? bicycle_training_share : 100;
}
