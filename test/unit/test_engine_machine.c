/*
 * What control groups leave the engine of the machine's memory, and which
 * processors it may use, is what settings of 0 follow from.
 */
#include <ftw.h>
#include <sched.h>
#include <sys/stat.h>

#include "engine_client.h"

#include "engine/engine.h"

static char root[64];

static void
write_file(const char *name, const char *text)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", root, name);
	for (char *slash = strchr(path + strlen(root) + 1, '/'); slash != NULL;
		 slash = strchr(slash + 1, '/'))
	{
		*slash = '\0';
		mkdir(path, 0700);
		*slash = '/';
	}
	file = fopen(path, "w");
	if (file == NULL || fputs(text, file) < 0 || fclose(file) != 0)
		bail_out("cannot write %s", path);
}

/* The limit under what /proc/self/cgroup says. */
static size_t
limit(const char *groups)
{
	char path[128];

	write_file("groups", groups);
	snprintf(path, sizeof(path), "%s/groups", root);
	return machine_memory_limit(path, root);
}

static int
remove_one(const char *path, const struct stat *stat, int type, struct FTW *walk)
{
	return remove(path);
}

int
main(void)
{
	cpu_set_t all, one;
	Settings settings;

	strcpy(root, "/tmp/bicycle-test-XXXXXX");
	if (mkdtemp(root) == NULL)
		bail_out("cannot make a directory: %s", strerror(errno));
	ok(machine_memory_limit("/nowhere/cgroup", root) == SIZE_MAX,
	   "without control groups there is no limit");
	ok(limit("0::/\n") == SIZE_MAX, "nor without a file that says so");
	write_file("memory.max", "max\n");
	ok(limit("0::/\n") == SIZE_MAX, "nor if it says none");
	write_file("memory.max", "4000000000\n");
	ok(limit("0::/\n") == 4000000000u, "the limit of a container");
	write_file("system.slice/postgresql.service/memory.max", "3000000000\n");
	ok(limit("0::/system.slice/postgresql.service\n") == 3000000000u, "that of a service");
	write_file("system.slice/memory.max", "2000000000\n");
	ok(limit("0::/system.slice/postgresql.service\n") == 2000000000u, "and of a group above it");
	ok(limit("0::/docker/0123/gone\n") == 4000000000u,
	   "a group that is not mounted here has the limits of those that are");
	write_file("memory/pod/memory.limit_in_bytes", "1000000000\n");
	ok(limit("12:cpu,cpuacct:/pod\n4:memory:/pod\n0::/\n") == 1000000000u,
	   "version 1, beside version 2");
	ok(limit("nonsense\n:\n::\n0::\n") == 4000000000u, "what is not understood is passed over");

	settings_default(&settings);
	sched_getaffinity(0, sizeof(all), &all);
	ok(machine_memory() > 0 && settings_threads(&settings) == CPU_COUNT(&all),
	   "as many threads as there are processors to run on (%d)", settings_threads(&settings));
	CPU_ZERO(&one);
	for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
		if (CPU_ISSET(i, &all))
			CPU_SET(i, &one);
	sched_setaffinity(0, sizeof(one), &one);
	ok(settings_threads(&settings) == 1, "with one of them, one");
	settings.threads = 3;
	ok(settings_threads(&settings) == 3, "unless there are to be more");
	nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	return done_testing();
}
