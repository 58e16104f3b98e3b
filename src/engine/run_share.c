/*
 * run_share.c
 *	  What a run may compute beside others on its card: run_share.h.
 *
 * Arithmetic alone; the caller has a lock.
 */
#include <string.h>

#include "common/invariant.h"
#include "engine/run_share.h"

void
run_share_init(RunShare *share, int64_t now)
{
	memset(share, 0, sizeof(*share));
	share->percent = RUN_SHARE_ALL;
	share->at = now;
}

/* Counts the debt up to now. */
static void
count_debt(RunShare *share, int64_t now)
{
	int64_t elapsed = now - share->at;

	INVARIANT(elapsed >= 0 && share->debt >= 0);
	share->at = now;
	if (share->percent == RUN_SHARE_ALL)
		share->debt -= elapsed * RUN_SHARE_ALL;
	else if (share->computing)
		share->debt += elapsed * (RUN_SHARE_ALL - share->percent);
	else
		share->debt -= elapsed * share->percent;
	if (share->debt < 0)
		share->debt = 0;
}

/* What an iteration costs that is to be earned before it begins. */
static int64_t
price(const RunShare *share)
{
	return share->cost * (RUN_SHARE_ALL - share->percent);
}

void
run_share_set(RunShare *share, int percent, int64_t now)
{
	bool begins = share->percent == RUN_SHARE_ALL && percent < RUN_SHARE_ALL;

	INVARIANT(percent >= 0 && percent <= RUN_SHARE_ALL);
	count_debt(share, now);
	share->percent = percent;
	if (begins && share->debt < price(share))
		share->debt = price(share);
}

int64_t
run_share_wait(RunShare *share, int64_t now)
{
	count_debt(share, now);
	if (share->percent == RUN_SHARE_ALL)
		return 0;
	if (share->percent == 0)
		return RUN_SHARE_NEVER;
	return (share->debt + share->percent - 1) / share->percent;
}

void
run_share_begin(RunShare *share, int64_t now)
{
	INVARIANT(!share->computing);
	count_debt(share, now);
	share->computing = true;
	share->begun = now;
}

void
run_share_end(RunShare *share, int64_t now)
{
	INVARIANT(share->computing);
	count_debt(share, now);
	share->computing = false;
	share->cost = now - share->begun;
}
