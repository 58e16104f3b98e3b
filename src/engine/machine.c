/*
 * machine.c
 *	  What there is for this process of the machine's memory and processors:
 *	  settings that are 0 follow from it.
 *
 * A container has less than the machine: its control group limits memory
 * (version 2: memory.max, version 1: memory.limit_in_bytes), its processors are
 * those that threads may run on. Limits hold for all groups below, so the path
 * is walked up to the root. Nothing is kept; any thread.
 */
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/settings.h"

/* The number in a file; SIZE_MAX if there is none, as in "max". */
static size_t
read_limit(const char *path)
{
	FILE *file = fopen(path, "re");
	unsigned long long number;
	bool there;

	if (file == NULL)
		return SIZE_MAX;
	there = fscanf(file, "%llu", &number) == 1;
	fclose(file);
	return there && number < SIZE_MAX ? (size_t) number : SIZE_MAX;
}

/* The least limit of a group and those above it.  group: "/a/b". */
static size_t
walk_up(const char *root, char *group, const char *name)
{
	size_t least = SIZE_MAX;
	char *slash;

	do
	{
		char path[4096];
		size_t limit = SIZE_MAX;

		slash = strrchr(group, '/');
		if (slash != NULL && slash[1] == '\0')
			*slash = '\0'; /* the root's name is "/" */
		if (snprintf(path, sizeof(path), "%s%s/%s", root, group, name) < (int) sizeof(path))
			limit = read_limit(path);
		least = limit < least ? limit : least;
		slash = strrchr(group, '/');
		if (slash != NULL)
			*slash = '\0';
	} while (slash != NULL);
	return least;
}

/* SIZE_MAX: all. groups: /proc/self/cgroup, root: where they are mounted. */
size_t
machine_memory_limit(const char *groups, const char *root)
{
	FILE *file = fopen(groups, "re");
	char line[4096];
	char version1[256];
	size_t least = SIZE_MAX;

	if (file == NULL)
		return SIZE_MAX;
	snprintf(version1, sizeof(version1), "%s/memory", root);
	while (fgets(line, sizeof(line), file) != NULL)
	{
		char *controllers = strchr(line, ':');
		char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
		size_t limit = SIZE_MAX;

		if (group == NULL)
			continue;
		*group++ = '\0';
		group[strcspn(group, "\n")] = '\0';
		if (controllers[1] == '\0')
			limit = walk_up(root, group, "memory.max");
		else if (strcmp(controllers + 1, "memory") == 0)
			limit = walk_up(version1, group, "memory.limit_in_bytes");
		least = limit < least ? limit : least;
	}
	fclose(file);
	return least;
}

size_t
machine_memory(void)
{
	long pages = sysconf(_SC_PHYS_PAGES);
	long page = sysconf(_SC_PAGESIZE);
	size_t bytes = pages > 0 && page > 0 ? (size_t) pages * (size_t) page : (size_t) 1 << 30;
	size_t limit = machine_memory_limit("/proc/self/cgroup", "/sys/fs/cgroup");

	return limit < bytes ? limit : bytes;
}

/* From 1 on. */
int
machine_processors(void)
{
	cpu_set_t set;
	long online;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		return CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
	online = sysconf(_SC_NPROCESSORS_ONLN); /* there are more than a set has */
	return online < 1 ? 1 : online > 1024 ? 1024 : (int) online;
}
