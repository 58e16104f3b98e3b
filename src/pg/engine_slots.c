/*
 * engine_slots.c
 *	  Which engines there are, in shared memory: what the supervisor writes and
 *	  all others read.
 *
 * R1 A slot that is not absent has a device, another than each other slot that
 *    is not leaving.
 * R2 `usable` follows from the slots, and is written with them: sessions read
 *    that word alone at each call.
 * R3 An absent slot says nothing of an engine that was there: no job waits for
 *    what nobody computes.
 * R4 A load is what sessions have added. Each takes back its own before it
 *    ends; if one cannot, PostgreSQL has reset its memory.
 */
#include "pg/engine_slots.h"

#include "miscadmin.h"

#include "common/invariant.h"

/* ---- Reading ------------------------------------------------------------- */

uint32
engines_usable(void)
{
	return IsUnderPostmaster ? pg_atomic_read_u32(&shared_attach()->usable) : 0;
}

uint32
engine_load(int number)
{
	return pg_atomic_read_u32(&shared_attach()->engines[number].load);
}

void
engine_load_add(int number, int more)
{
	uint32 before = pg_atomic_fetch_add_u32(&shared_attach()->engines[number].load, more);

	INVARIANT(more >= 0 || before >= (uint32) -more);
}

EngineState
engine_slot_read(int number, EngineSlot *copy)
{
	BicycleShared *shared = shared_attach();
	EngineState state;

	LWLockAcquire(&shared->lock, LW_SHARED);
	state = shared->engines[number].state;
	if (copy != NULL)
		memcpy(copy, &shared->engines[number], sizeof(*copy));
	LWLockRelease(&shared->lock);
	return state;
}

/* How good a state is for who needs an engine. */
static int
state_rank(EngineState state)
{
	switch (state)
	{
		case ENGINE_READY:
			return 3;
		case ENGINE_STARTING:
			return 2;
		case ENGINE_FAILED:
			return 1;
		default:
			return 0;
	}
}

EngineState
engines_state(char *last_error, size_t size)
{
	BicycleShared *shared = shared_attach();
	EngineState best = ENGINE_ABSENT;

	last_error[0] = '\0';
	LWLockAcquire(&shared->lock, LW_SHARED);
	for (int i = 0; i < BICYCLE_MAX_ENGINES; i++)
	{
		const EngineSlot *slot = &shared->engines[i];

		if (state_rank(slot->state) > state_rank(best))
			best = slot->state;
		if (last_error[0] == '\0')
			strlcpy(last_error, slot->last_error, size);
	}
	LWLockRelease(&shared->lock);
	return best;
}

/* ---- Writing ------------------------------------------------------------- */

/* Under the lock: R1 and R2. */
static void
check_engines(const BicycleShared *shared)
{
	uint32 usable = pg_atomic_read_u32((pg_atomic_uint32 *) &shared->usable);

	for (int i = 0; i < BICYCLE_MAX_ENGINES; i++)
	{
		const EngineSlot *slot = &shared->engines[i];

		INVARIANT((slot->state == ENGINE_ABSENT) == (slot->device[0] == '\0'));
		INVARIANT(slot->state != ENGINE_ABSENT || (slot->busy_card == 0 && !slot->trim));
		INVARIANT((usable & 1u << i) == 0 || (slot->state == ENGINE_READY && slot->pid != 0));
		for (int j = 0; j < i && slot->state != ENGINE_ABSENT && slot->state != ENGINE_LEAVING; j++)
			INVARIANT(shared->engines[j].state == ENGINE_LEAVING ||
					  strcmp(shared->engines[j].device, slot->device) != 0);
	}
}

/* Those with a device; if there is none, and none is to come, the others. */
static uint32
count_usable(const BicycleShared *shared)
{
	uint32 ready = 0;
	uint32 missing = 0;
	bool starting = false;

	for (int i = 0; i < BICYCLE_MAX_ENGINES; i++)
	{
		const EngineSlot *slot = &shared->engines[i];

		starting |= slot->state == ENGINE_STARTING;
		if (slot->state != ENGINE_READY)
			continue;
		if (slot->missing)
			missing |= 1u << i;
		else
			ready |= 1u << i;
	}
	return ready != 0 || starting ? ready : missing;
}

static EngineSlot *
begin_writing(int number)
{
	BicycleShared *shared = shared_attach();

	INVARIANT(0 <= number && number < BICYCLE_MAX_ENGINES);
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	return &shared->engines[number];
}

static void
end_writing(void)
{
	BicycleShared *shared = shared_attach();

	pg_atomic_write_u32(&shared->usable, count_usable(shared));
	check_engines(shared);
	LWLockRelease(&shared->lock);
	ConditionVariableBroadcast(&shared->changed);
}

/* Under the lock. */
static void
clear_slot(EngineSlot *slot)
{
	slot->state = ENGINE_ABSENT;
	slot->pid = 0;
	slot->device[0] = '\0';
	slot->busy_card = 0;
	slot->trim = false;
}

void
engine_slot_publish(int number, EngineState state, const char *error)
{
	EngineSlot *slot = begin_writing(number);

	slot->state = state;
	if (state != ENGINE_READY && state != ENGINE_LEAVING)
		slot->pid = 0;
	if (error)
		strlcpy(slot->last_error, error, sizeof(slot->last_error));
	if (state == ENGINE_ABSENT)
		clear_slot(slot);
	end_writing();
}

void
engine_slot_free(int number)
{
	EngineSlot *slot = begin_writing(number);

	clear_slot(slot);
	slot->last_error[0] = '\0';
	slot->starts = 0;
	end_writing();
}

void
engine_slot_assign(int number, const char *device)
{
	EngineSlot *slot = begin_writing(number);

	if (slot->state == ENGINE_ABSENT)
		slot->state = ENGINE_STARTING;
	strlcpy(slot->device, device, sizeof(slot->device));
	slot->missing = false;
	end_writing();
}

void
engine_slot_device(int number, bool missing, int gpus)
{
	EngineSlot *slot = begin_writing(number);

	slot->missing = missing;
	slot->gpus = gpus;
	end_writing();
}

void
engine_slot_started(int number, pid_t pid)
{
	EngineSlot *slot = begin_writing(number);

	slot->pid = pid;
	slot->starts++;
	/* After a failure sessions hear of the next one only once it is ready. */
	if (slot->state != ENGINE_FAILED)
		slot->state = ENGINE_STARTING;
	end_writing();
}

void
engine_slot_error(int number, const char *error)
{
	EngineSlot *slot = begin_writing(number);

	strlcpy(slot->last_error, error, sizeof(slot->last_error));
	end_writing();
}

/* ---- Beside jobs --------------------------------------------------------- */

int
engine_slots_used(void)
{
	BicycleShared *shared = shared_attach();
	int used = 0;

	for (int i = 0; i < BICYCLE_MAX_ENGINES; i++)
		used += shared->engines[i].state != ENGINE_ABSENT;
	return used;
}

bool
engine_slots_busy(int card)
{
	BicycleShared *shared = shared_attach();
	bool busy = false;

	for (int i = 0; i < BICYCLE_MAX_ENGINES && card >= 0; i++)
		busy |= shared->engines[i].busy_card == card + 1;
	return busy;
}

void
engine_slots_trim(void)
{
	BicycleShared *shared = shared_attach();

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < BICYCLE_MAX_ENGINES; i++)
		shared->engines[i].trim = shared->engines[i].state != ENGINE_ABSENT;
	LWLockRelease(&shared->lock);
}

void
engine_slot_busy(int number, int card)
{
	EngineSlot *slot = begin_writing(number);

	slot->busy_card = card < 0 ? 0 : card + 1;
	end_writing();
}

bool
engine_slot_take_trim(int number)
{
	BicycleShared *shared = shared_attach();
	bool trim = shared->engines[number].trim; /* one word, read without the lock */

	if (!trim)
		return false;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	shared->engines[number].trim = false;
	LWLockRelease(&shared->lock);
	return true;
}
