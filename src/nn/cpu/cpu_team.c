/*
 * cpu_team.c
 *	  The size of a team of threads (cpu_team.h).
 */
#include "nn/cpu/cpu_team.h"

/* Passes between two tries, at least. */
#define LEAST_PASSES 8

/* Time that a try in vain has lost is one part of so many of what follows. */
#define LOSS_PARTS 20

void
cpu_team_begin(CpuTeam *team, int most)
{
	if (most != team->most)
		*team = (CpuTeam){ .most = most, .size = most };
}

/* The size to try after a pass that got `work` seconds of processors. */
static int
size_to_try(const CpuTeam *team, double time, double work)
{
	int larger = team->size + 1 + team->size / 8;

	if (work < time * team->size / 2)
		return work < 2 * time ? 1 : (int) (work / time);
	return larger < team->most ? larger : team->most;
}

void
cpu_team_end(CpuTeam *team, double time, double work)
{
	int next;

	if (team->before > 0 && time >= team->time_before)
	{
		team->size = team->before;
		team->patience = LOSS_PARTS * (time - team->time_before) + LEAST_PASSES * team->time_before;
		team->before = 0;
		return;
	}
	team->before = 0;
	team->patience -= time;
	next = size_to_try(team, time, work);
	if (team->patience > 0 || next == team->size)
		return;
	team->before = team->size;
	team->time_before = time;
	team->size = next;
}
