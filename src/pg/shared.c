/*
 * shared.c
 *	  The few kilobytes that all processes share: shared.h.
 *
 * R1 The memory comes from ShmemInitStruct. If the library is not preloaded it
 *    comes out of the slack that PostgreSQL leaves for small extensions.
 * R2 Every process attaches for itself on first use, and the postmaster never
 *    does. After a crash the segment is made anew, and no stale pointer can be
 *    inherited.
 * R3 In single-user mode there is none, as there is nobody to share it with:
 *    what needs it fails with 55000, and what has only to tell others does
 *    without.
 */
#include "pg/shared.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

static BicycleShared *shared = NULL;
static shmem_request_hook_type previous_shmem_request = NULL;

static void
request_memory(void)
{
	if (previous_shmem_request)
		previous_shmem_request();
	RequestAddinShmemSpace(MAXALIGN(sizeof(BicycleShared)));
}

void
shared_reserve(void)
{
	previous_shmem_request = shmem_request_hook;
	shmem_request_hook = request_memory;
}

BicycleShared *
shared_attach(void)
{
	bool found;

	if (shared)
		return shared;
	if (!IsUnderPostmaster)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("bicycle engine is not running"),
						errdetail("The server runs in single-user mode."),
						errhint("Start the server as usual.")));
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("bicycle", sizeof(BicycleShared), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(*shared));
		shared->tranche = LWLockNewTrancheId();
		LWLockInitialize(&shared->lock, shared->tranche);
		ConditionVariableInit(&shared->changed);
		pg_atomic_init_u32(&shared->usable, 0);
		for (int i = 0; i < BICYCLE_MAX_ENGINES; i++)
			pg_atomic_init_u32(&shared->engines[i].load, 0);
	}
	LWLockRelease(AddinShmemInitLock);
	LWLockRegisterTranche(shared->tranche, "bicycle");
	return shared;
}
