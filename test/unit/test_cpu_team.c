/*
 * Proves how many threads a training on the CPU takes, by measurements that are
 * made up: all where it has the machine alone, also of work that threads share
 * badly; one where other work holds a processor and a team waits for the thread
 * that has none; as many as there are processors left of many; all again when
 * the other work ends; and that all its passes, tries in vain among them, take
 * little more time than those of the best size.
 */
#include "nn/cpu/cpu_team.h"
#include "tap.h"

/* A machine and a training on it: what a pass of a team costs there. */
typedef struct Machine
{
	int processors, busy; /* of them, with work that goes first */
	double serial;        /* s of a pass that one thread does */
	double shared;        /* and s that the team shares */
	double share;         /* of a busy processor, left to us */
} Machine;

/* Of a busy one we get `share`, and all wait for who has that. */
static double
pass_time(const Machine *m, int size)
{
	bool waits = size > m->processors - m->busy;

	return (m->serial + m->shared / size) / (waits ? m->share : 1);
}

static double
pass_work(const Machine *m)
{
	return m->serial + m->shared;
}

typedef struct Told
{
	double time, least; /* s of so many passes, and if all had had the best size */
	int last;
} Told;

static Told
run_passes(CpuTeam *team, const Machine *m, int most, int passes)
{
	Told told = { 0 };

	for (int i = 0; i < passes; i++)
	{
		double time, best;

		cpu_team_begin(team, most);
		time = best = pass_time(m, team->size);
		for (int size = 1; size <= most; size++)
			best = pass_time(m, size) < best ? pass_time(m, size) : best;
		told.last = team->size;
		told.time += time;
		told.least += best;
		cpu_team_end(team, time, pass_work(m));
	}
	return told;
}

/* Most of all passes have that size, and tries cost little. */
static void
test_machine(Machine m, int most, int expected, const char *what)
{
	CpuTeam team = { 0 };
	int right = 0;
	Told told;

	(void) run_passes(&team, &m, most, 20);
	for (int i = 0; i < 2000; i++)
		right += run_passes(&team, &m, most, 1).last == expected;
	told = run_passes(&team, &m, most, 2000);
	ok(right > 1750, "%s: %d of %d threads (%d of 2000 passes)", what, expected, most, right);
	ok(told.time < 1.15 * told.least, "%s: near the best size, with all tries (%.3f)", what,
	   told.time / told.least);
}

static void
test_change(void)
{
	Machine alone = { 8, 0, .01, 1, 1 }, beside = { 8, 5, .01, 1, .05 };
	CpuTeam team = { 0 };
	Told told;

	told = run_passes(&team, &alone, 8, 1);
	ok(told.last == 8, "a training begins with all threads");
	(void) run_passes(&team, &beside, 8, 6);
	told = run_passes(&team, &beside, 8, 1);
	ok(told.last < 4, "six passes after other work came, its team is small (%d)", told.last);
	(void) run_passes(&team, &alone, 8, 1000);
	told = run_passes(&team, &alone, 8, 1);
	ok(told.last == 8, "some time after that has gone, it is whole (%d)", told.last);
	told = run_passes(&team, &alone, 3, 1);
	ok(told.last == 3, "the setting's threads are the most (%d)", told.last);
}

int
main(void)
{
	test_machine((Machine){ 2, 0, .05, 1, 1 }, 2, 2, "alone");
	test_machine((Machine){ 16, 0, .05, 1, 1 }, 16, 16, "alone, on many processors");
	test_machine((Machine){ 16, 0, .3, .7, 1 }, 16, 16, "alone, a third of it serial");
	test_machine((Machine){ 2, 1, .02, .4, .05 }, 2, 1, "beside a busy processor of two");
	test_machine((Machine){ 2, 2, .02, .4, .3 }, 1, 1, "one thread beside two busy processors");
	test_machine((Machine){ 16, 5, .02, 1, .05 }, 16, 10, "beside five busy processors of sixteen");
	test_change();
	return done_testing();
}
