/*
 * shared.c
 *	  The few kilobytes that all processes share: shared.h.
 *
 * R1 The memory comes from ShmemInitStruct. If the library is not preloaded it
 *    comes out of the slack that PostgreSQL leaves for small extensions.
 * R2 Every process attaches for itself on first use, and the postmaster never
 *    does. After a crash the segment is made anew, and no stale pointer can be
 *    inherited.
 */
#include "pg/shared.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "common/invariant.h"
#include "pg/monotonic.h"

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
	INVARIANT(IsUnderPostmaster);
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("bicycle", sizeof(BicycleShared), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(*shared));
		shared->tranche = LWLockNewTrancheId();
		LWLockInitialize(&shared->lock, shared->tranche);
		ConditionVariableInit(&shared->changed);
	}
	LWLockRelease(AddinShmemInitLock);
	LWLockRegisterTranche(shared->tranche, "bicycle");
	return shared;
}

static bool
digest_equal(const CallDigest *a, const CallDigest *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1];
}

int
quarantine_remaining(const CallDigest *digest)
{
	BicycleShared *s = shared_attach();
	int64 now;
	int64 until = 0;

	/*
	 * Read without the lock: a crash that is being noted right now may be
	 * missed.
	 */
	if (s->nquarantined == 0)
		return 0;
	now = monotonic_ms();
	LWLockAcquire(&s->lock, LW_SHARED);
	for (int i = 0; i < QUARANTINE_SLOTS; i++)
		if (s->quarantine[i].until_ms > now && digest_equal(&s->quarantine[i].digest, digest))
			until = s->quarantine[i].until_ms;
	LWLockRelease(&s->lock);
	return until > now ? (int) ((until - now + 999) / 1000) : 0;
}

/*
 * Takes the slot of the same digest, else the one that expires first; a free
 * slot counts as expired.
 */
void
quarantine_add(const CallDigest *digest)
{
	BicycleShared *s = shared_attach();
	int64 now = monotonic_ms();
	int slot = 0;
	int used = 0;

	LWLockAcquire(&s->lock, LW_EXCLUSIVE);
	for (int i = 0; i < QUARANTINE_SLOTS; i++)
	{
		if (s->quarantine[i].until_ms != 0 && digest_equal(&s->quarantine[i].digest, digest))
		{
			slot = i;
			break;
		}
		if (s->quarantine[i].until_ms < s->quarantine[slot].until_ms)
			slot = i;
	}
	s->quarantine[slot].digest = *digest;
	s->quarantine[slot].until_ms = now + QUARANTINE_SECONDS * 1000;
	for (int i = 0; i < QUARANTINE_SLOTS; i++)
		if (s->quarantine[i].until_ms != 0)
			used++;
	s->nquarantined = used;
	LWLockRelease(&s->lock);
}
