/*
 * main.c
 *	  bicycle-engine: the process that runs the networks, started by bicycle's
 *	  supervisor or by hand.
 *
 *	 bicycle-engine
 *		by the supervisor: works in the current directory, descriptor 3 is the
 *		control socket
 *	 bicycle-engine --train
 *		by a job worker, for one run of one job: see run_main.c
 *	 bicycle-engine --directory DIR [--set NAME=VALUE]...
 *		alone, for tests and benchmarks: logs to stderr, ends on SIGTERM or
 *		SIGINT
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/protocol.h"
#include "engine/run.h"

/*
 * The OpenMP runtime reads its environment when it is loaded, before main: idle
 * teams must not spin for long on processors that PostgreSQL needs. So the
 * process starts itself once more if whoever started it has not said so.
 */
static void
wait_passively(char **argv)
{
	if (getenv("OMP_WAIT_POLICY") != NULL)
		return;
	setenv("OMP_WAIT_POLICY", "passive", 1);
	setenv("GOMP_SPINCOUNT", BICYCLE_SPIN_COUNT, 0);
	execv("/proc/self/exe", argv);
	fprintf(stderr, "bicycle-engine: could not start itself with OMP_WAIT_POLICY set: %s\n",
			strerror(errno));
}

/* They go to the I/O thread's descriptor; threads inherit the mask. */
static void
block_signals(void)
{
	sigset_t all;

	sigfillset(&all);
	/* Faults of the program itself cannot be blocked to any good. */
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGABRT);
	sigprocmask(SIG_SETMASK, &all, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* A descriptor for each session of a large server. */
static void
raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit); /* the loop gets on with fewer */
}

/* A bug of ours: nothing goes on. Any thread. */
static void
end_by_invariant(const char *condition, const char *file, int line)
{
	char text[512];

	snprintf(text, sizeof(text), "the engine ends: invariant failed at %s:%d: %s", file, line,
			 condition);
	control_last_words(text);
}

static int
usage(void)
{
	fprintf(stderr,
			"usage: bicycle-engine [--train | --directory DIR [--set NAME=VALUE]...]\n"
			"Without arguments it expects bicycle's supervisor on descriptor %d.\n",
			BICYCLE_CONTROL_FD);
	return 2;
}

/* Reads the arguments into the settings; returns 0, or an exit code. */
static int
parse_arguments(Engine *engine, int argc, char **argv, const char **directory)
{
	for (int i = 1; i < argc; i += 2)
	{
		char *value;
		char why[256];

		if (i + 1 == argc)
			return usage();
		if (strcmp(argv[i], "--directory") == 0)
		{
			*directory = argv[i + 1];
			continue;
		}
		if (strcmp(argv[i], "--set") != 0 || (value = strchr(argv[i + 1], '=')) == NULL)
			return usage();
		*value++ = '\0';
		if (!settings_set(&engine->settings, argv[i + 1], value, why, sizeof(why)))
		{
			fprintf(stderr, "bicycle-engine: setting \"%s\": %s\n", argv[i + 1], why);
			return 2;
		}
	}
	return *directory == NULL && argc > 1 ? usage() : 0;
}

int
main(int argc, char **argv)
{
	static Engine engine;
	const char *directory = NULL;
	int result;

	wait_passively(argv);
	block_signals();
	raise_descriptor_limit();
	/* A fixed threshold gives the memory of images back to the system. */
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
	mallopt(M_TRIM_THRESHOLD, 8 << 20);

	invariant_set_handler(end_by_invariant);
	if (!engine_init(&engine))
	{
		fprintf(stderr, "bicycle-engine: could not create its descriptors: %s\n", strerror(errno));
		return 1;
	}
	if (argc == 2 && strcmp(argv[1], "--train") == 0)
	{
		/* a resumed job is to compute what it would have computed */
		setenv("BICYCLE_AUTOTUNE", "0", 1);
		return run_main(&engine);
	}
	/* in the data directory, where the engine is from now on */
	setenv("BICYCLE_PLAN_CACHE", "bicycle.plans", 0);
	if ((result = parse_arguments(&engine, argc, argv, &directory)) != 0)
		return result;
	if (directory != NULL && chdir(directory) != 0)
	{
		fprintf(stderr, "bicycle-engine: could not change to directory \"%s\": %s\n", directory,
				strerror(errno));
		return 1;
	}
	if (directory == NULL && fcntl(BICYCLE_CONTROL_FD, F_GETFD) < 0)
		return usage();
	if (directory == NULL)
		fcntl(BICYCLE_CONTROL_FD, F_SETFD, FD_CLOEXEC);
	if (!control_open(&engine, directory == NULL ? BICYCLE_CONTROL_FD : -1, orders_line))
	{
		fprintf(stderr, "bicycle-engine: descriptor %d is not a socket: %s\n", BICYCLE_CONTROL_FD,
				strerror(errno));
		return 1;
	}
	if (directory != NULL)
	{
		engine.gone = true;
		engine_go(&engine);
	}
	engine_loop(&engine);
	engine_free(&engine);
	return engine.exit_code;
}
