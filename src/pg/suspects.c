/*
 * suspects.c
 *	  Requests at which engines have died, counted for all sessions and engines,
 *	  so that no image takes one engine after the other with it.
 *
 * R1 A request is known by its digest. Sessions that send the same count
 *    together.
 * R2 An engine dies once, however many sessions tell of it: it is known by its
 *    PID.
 * R3 Who is suspected runs alone. If it is answered then it is suspected no
 *    longer: another request of its batch, or somebody with a signal, has ended
 *    the engine.
 * R4 After SUSPECT_DEATHS it is refused for SUSPECT_SECONDS; who is suspected
 *    is forgotten after the same time.
 *
 * All under the lock of shared.h, for the time that it takes to look through
 * the table. Sessions look only if something is in it.
 */
#include "pg/suspects.h"

#include "common/invariant.h"
#include "pg/monotonic.h"

static bool
digest_equal(const CallDigest *a, const CallDigest *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1];
}

/* Its slot, or NULL. Under the lock. */
static Suspect *
suspect_find(BicycleShared *s, const CallDigest *digest, int64 now)
{
	for (int i = 0; i < SUSPECTS; i++)
		if (s->suspects[i].until_ms > now && digest_equal(&s->suspects[i].digest, digest))
			return &s->suspects[i];
	return NULL;
}

/*
 * The slot that is free, or whose loss costs the least: it has expired, or is
 * not refused and expires first.
 */
static Suspect *
suspect_slot(BicycleShared *s, int64 now)
{
	Suspect *least = &s->suspects[0];

	for (int i = 0; i < SUSPECTS; i++)
	{
		Suspect *other = &s->suspects[i];

		if (other->until_ms <= now)
			return other;
		if (other->deaths < least->deaths ||
			(other->deaths == least->deaths && other->until_ms < least->until_ms))
			least = other;
	}
	return least;
}

/* Recounts. Under the lock: R2 to R4. */
static void
check_suspects(const BicycleShared *s)
{
	int used = 0;

	for (int i = 0; i < SUSPECTS; i++)
	{
		const Suspect *suspect = &s->suspects[i];

		used += suspect->until_ms != 0;
		INVARIANT(suspect->until_ms == 0 ||
				  (0 < suspect->deaths && suspect->deaths <= SUSPECT_DEATHS));
	}
	INVARIANT(used == s->nsuspects);
}

/* That of the digest, or a new one without deaths. Under the lock. */
static Suspect *
suspect_make(BicycleShared *s, const CallDigest *digest, int64 now)
{
	Suspect *suspect = suspect_find(s, digest, now);

	if (suspect == NULL)
	{
		suspect = suspect_slot(s, now);
		s->nsuspects += suspect->until_ms == 0;
		memset(suspect, 0, sizeof(*suspect));
		suspect->digest = *digest;
	}
	suspect->until_ms = now + SUSPECT_SECONDS * 1000;
	return suspect;
}

int
suspect_deaths(const CallDigest *digest, int *seconds)
{
	BicycleShared *s = shared_attach();
	int64 now;
	Suspect *suspect;
	int deaths = 0;

	*seconds = 0;
	/*
	 * Read without the lock: a death that is being noted right now may be
	 * missed.
	 */
	if (s->nsuspects == 0)
		return 0;
	now = monotonic_ms();
	LWLockAcquire(&s->lock, LW_SHARED);
	suspect = suspect_find(s, digest, now);
	if (suspect != NULL)
	{
		deaths = suspect->deaths;
		*seconds = (int) ((suspect->until_ms - now + 999) / 1000);
	}
	LWLockRelease(&s->lock);
	return deaths;
}

void
suspect_add(const CallDigest *digest, pid_t engine)
{
	BicycleShared *s = shared_attach();
	Suspect *suspect;
	bool known = false;

	LWLockAcquire(&s->lock, LW_EXCLUSIVE);
	suspect = suspect_make(s, digest, monotonic_ms());
	for (int i = 0; i < suspect->deaths; i++)
		known |= suspect->engines[i] == engine;
	if (!known && suspect->deaths < SUSPECT_DEATHS)
		suspect->engines[suspect->deaths++] = engine;
	check_suspects(s);
	LWLockRelease(&s->lock);
}

void
suspect_refuse(const CallDigest *digest)
{
	BicycleShared *s = shared_attach();

	LWLockAcquire(&s->lock, LW_EXCLUSIVE);
	suspect_make(s, digest, monotonic_ms())->deaths = SUSPECT_DEATHS;
	check_suspects(s);
	LWLockRelease(&s->lock);
}

void
suspect_clear(const CallDigest *digest)
{
	BicycleShared *s = shared_attach();
	Suspect *suspect;

	LWLockAcquire(&s->lock, LW_EXCLUSIVE);
	suspect = suspect_find(s, digest, monotonic_ms());
	if (suspect != NULL && suspect->deaths < SUSPECT_DEATHS)
	{
		suspect->until_ms = 0;
		s->nsuspects--;
	}
	check_suspects(s);
	LWLockRelease(&s->lock);
}
