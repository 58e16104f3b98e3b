/*
 * cpu_team.h
 *	  How many threads share a training, chosen from what passes cost.
 *
 * Beside other work that goes first, threads wait at every barrier for those
 * that have no processor, and a team is slower than one thread alone. So when
 * it got less than half of its processors, as many threads as it got are tried;
 * else some more, up to what the device allows. A size stays only if its passes
 * take less time.
 *
 * R1 Bits do not depend on the size (R2 of cpu_train.h), so it may follow the
 *    clock.
 * R2 Sizes that were tried in vain take a twentieth of the time, at most.
 * R3 Pure: whoever runs a pass measures it. The owner's thread.
 */
#ifndef BICYCLE_NN_CPU_TEAM_H
#define BICYCLE_NN_CPU_TEAM_H

typedef struct CpuTeam
{
	int most, size;     /* of the next pass; the size is 0 before the first */
	int before;         /* the size that this one is tried against; 0: none */
	double time_before; /* of a pass of that size, s */
	double patience;    /* s of passes until another size is tried */
} CpuTeam;

/* Before a pass: with at most so many. */
extern void cpu_team_begin(CpuTeam *team, int most);

/* A pass is over, which took so many seconds, and so many of all processors. */
extern void cpu_team_end(CpuTeam *team, double time, double work);

#endif /* BICYCLE_NN_CPU_TEAM_H */
