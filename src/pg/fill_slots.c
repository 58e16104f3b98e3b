/*
 * fill_slots.c
 *	  What bicycle_fills shows: how far each bicycle_fill is.
 *
 * R1 Slots are in shared memory. The process that fills takes one, keeps it up
 *    to date and gives it back, also when it is ended. All under
 *    BicycleShared.lock.
 * R2 There are FILL_SLOTS. A fill that finds none works all the same, and is
 *    not shown.
 *    So is one in single-user mode.
 * R3 Shown are fills of this database, of roles whose privileges the caller
 *    has.
 */
#include "pg/fill.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "common/invariant.h"

PG_FUNCTION_INFO_V1(bicycle_fill_slots);

static int own_slot = -1;

/* The columns of bicycle_fill_slots(), in their order. */
enum
{
	FILL_PID,
	FILL_OWNER,
	FILL_TARGET,
	FILL_TARGET_COLUMN,
	FILL_DONE,
	FILL_BAD,
	FILL_LOCKED,
	FILL_SUPPRESSED,
	FILL_STILL_NULL,
	FILL_PROGRESS,
	FILL_STARTED_AT,
	FILL_UPDATED_AT,
	FILL_ETA,
	FILL_COLUMNS
};

void
fill_slot_take(Oid relation, const char *column, uint64 blocks)
{
	static bool at_exit_registered = false;
	BicycleShared *shared;

	INVARIANT(own_slot < 0);
	if (!IsUnderPostmaster)
		return;
	shared = shared_attach();
	if (!at_exit_registered)
	{
		before_shmem_exit(fill_slot_release, (Datum) 0);
		at_exit_registered = true;
	}
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < FILL_SLOTS && own_slot < 0; i++)
	{
		FillSlot *slot = &shared->fills[i];

		if (slot->pid != 0)
			continue;
		memset(slot, 0, sizeof(*slot));
		slot->pid = MyProcPid;
		slot->database = MyDatabaseId;
		slot->owner = GetUserId();
		slot->relation = relation;
		strlcpy(slot->column, column, sizeof(slot->column));
		slot->blocks = blocks;
		slot->started_at = slot->updated_at = GetCurrentTimestamp();
		own_slot = i;
	}
	LWLockRelease(&shared->lock);
}

void
fill_slot_update(const FillCounts *counts, uint64 blocks_done)
{
	BicycleShared *shared;

	if (own_slot < 0)
		return;
	shared = shared_attach();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	INVARIANT(shared->fills[own_slot].pid == MyProcPid);
	shared->fills[own_slot].counts = *counts;
	shared->fills[own_slot].blocks_done = blocks_done;
	shared->fills[own_slot].updated_at = GetCurrentTimestamp();
	LWLockRelease(&shared->lock);
}

void
fill_slot_release(int code, Datum unused)
{
	BicycleShared *shared;

	if (own_slot < 0)
		return;
	shared = shared_attach();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	shared->fills[own_slot].pid = 0;
	LWLockRelease(&shared->lock);
	own_slot = -1;
}

int64
fill_time_left(int64 elapsed, uint64 done, uint64 all)
{
	INVARIANT(0 < done && done <= all);
	return (int64) ((double) elapsed * ((double) (all - done) / (double) done));
}

static void
put_fill(ReturnSetInfo *rsinfo, const FillSlot *slot)
{
	Datum values[FILL_COLUMNS] = { 0 };
	bool nulls[FILL_COLUMNS] = { false };
	Interval eta = { 0 };

	values[FILL_PID] = Int32GetDatum(slot->pid);
	values[FILL_OWNER] =
		DirectFunctionCall1(namein, CStringGetDatum(GetUserNameFromId(slot->owner, false)));
	values[FILL_TARGET] = ObjectIdGetDatum(slot->relation);
	values[FILL_TARGET_COLUMN] = DirectFunctionCall1(namein, CStringGetDatum(slot->column));
	values[FILL_DONE] = Int64GetDatum(slot->counts.done);
	values[FILL_BAD] = Int64GetDatum(slot->counts.bad);
	values[FILL_LOCKED] = Int64GetDatum(slot->counts.locked);
	values[FILL_SUPPRESSED] = Int64GetDatum(slot->counts.suppressed);
	values[FILL_STILL_NULL] = Int64GetDatum(slot->counts.still_null);
	values[FILL_PROGRESS] =
		Float8GetDatum(slot->blocks > 0 ? (double) slot->blocks_done / slot->blocks : 1);
	values[FILL_STARTED_AT] = TimestampTzGetDatum(slot->started_at);
	values[FILL_UPDATED_AT] = TimestampTzGetDatum(slot->updated_at);
	nulls[FILL_ETA] = slot->blocks_done == 0;
	if (slot->blocks_done > 0)
		eta.time =
			fill_time_left(slot->updated_at - slot->started_at, slot->blocks_done, slot->blocks);
	values[FILL_ETA] = IntervalPGetDatum(&eta);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * bicycle_fill_slots() -> (the columns above), which the view bicycle_fills
 * shows
 */
Datum
bicycle_fill_slots(PG_FUNCTION_ARGS)
{
	BicycleShared *shared;
	FillSlot slots[FILL_SLOTS];

	InitMaterializedSRF(fcinfo, 0);
	if (!IsUnderPostmaster)
		return (Datum) 0;
	shared = shared_attach();
	LWLockAcquire(&shared->lock, LW_SHARED);
	memcpy(slots, shared->fills, sizeof(slots));
	LWLockRelease(&shared->lock);
	for (int i = 0; i < FILL_SLOTS; i++)
		if (slots[i].pid != 0 && slots[i].database == MyDatabaseId &&
			SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(slots[i].owner)) &&
			has_privs_of_role(GetUserId(), slots[i].owner))
			put_fill((ReturnSetInfo *) fcinfo->resultinfo, &slots[i]);
	return (Datum) 0;
}
