/*
 * supervisor.c
 *	  The background worker that keeps the engines running.
 *
 * R1 A server has one (bgworker.c). It has no database, and also works on a
 *    standby.
 * R2 It ends with status 1, after which the postmaster starts it again; 0 would
 *    unregister it for ever.
 * R3 There is an engine for each device that bicycle.device names. A reload
 *    starts, moves and ends engines; those whose device is still named do not
 *    notice. How many GPUs cuda:all means, an engine says that has looked.
 * R4 An engine that does not become ready in time, which is longer while it
 *    says that it opens its device, or leaves PONGS_MISSED pings
 *    in a row unanswered, is killed (engine_process.c).
 * R5 Deaths in quick succession are answered with growing delays, each engine's
 *    by its own; so are starts for which the system has no process. What
 *    happens to one engine does not end the supervisor, and so the others.
 *
 *	 ENGINE_STARTING --- "ready" ------------------> ENGINE_READY
 *	 ENGINE_STARTING <-- it ends ------------------- ENGINE_READY
 *	 ENGINE_STARTING --- "fatal", or several ends --> ENGINE_FAILED
 *	 ENGINE_FAILED ----- "ready", of a later one ---> ENGINE_READY
 *	 any of these ------ a reload ------------------> ENGINE_LEAVING
 *	 ENGINE_LEAVING ---- it ends -------------------> ENGINE_ABSENT
 */
#include "pg/bicycle.h"

#include <sys/wait.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "pg/engine_process.h"
#include "pg/engine_slots.h"
#include "pg/job_slots.h"
#include "pg/monotonic.h"
#include "pg/socket_wait.h"

#define PONGS_MISSED 15           /* pings without an answer after which the engine is killed */
#define STOP_TIMEOUT 3000         /* ms from "stop" to SIGKILL when the server stops */
#define LEAVE_TIMEOUT (15 * 1000) /* and when an engine is no longer wanted */
#define QUICK_DEATH 500           /* ms: an engine that was ready for less did not live long */
/* starts in a row without "ready" after which sessions no longer wait */
#define FAILED_STARTS 3
/* ms: longest delay after the death of an engine that had been ready */
#define RETRY_READY_MAX 500
#define RETRY_START_MAX (30 * 1000) /* ms: the same for one that had not */

extern PGDLLEXPORT void bicycle_supervisor_main(Datum arg);

/* An engine, of the slot of the same number. */
typedef struct Ward
{
	EngineProcess process;
	char name[32];                   /* in messages */
	char device[BICYCLE_MAX_DEVICE]; /* "": the slot is free */
	int64 leave_ms;  /* when it is killed, as its device is no longer wanted; 0: it is */
	bool said_fatal; /* this engine has said why it cannot run */
	int64 ready_ms;  /* when it was ready; 0: it was not yet */
	int64 next_start_ms;
	int failed_starts; /* in a row */
	int quick_deaths;  /* in a row, of engines that had been ready */
	int card;          /* the GPU of it for which requests wait, or NO_CARD */
} Ward;

static Ward wards[BICYCLE_MAX_ENGINES];
static int nwanted = 0;   /* engines of devices that are named */
static int gpus = 1;      /* that were last seen, for cuda:all */
static bool deal = false; /* perhaps other engines are wanted */

static int
ward_number(const Ward *ward)
{
	return (int) (ward - wards);
}

static bool
ward_used(const Ward *ward)
{
	return ward->device[0] != '\0';
}

static bool
ward_wanted(const Ward *ward)
{
	return ward_used(ward) && ward->leave_ms == 0;
}

/* ---- Starting and ending an engine --------------------------------------- */

static void
ward_busy(Ward *ward, int card)
{
	engine_slot_busy(ward_number(ward), card);
	job_slots_wake(ward->card);
	ward->card = card;
	job_slots_wake(card);
}

static void
engine_says(EngineProcess *process, EngineWord word, const char *words)
{
	Ward *ward = (Ward *) ((char *) process - offsetof(Ward, process));
	int number = ward_number(ward);

	switch (word)
	{
		case ENGINE_SAYS_DEVICE:
			engine_slot_device(number, process->missing, process->gpus);
			deal |= process->gpus > 0 && process->gpus != gpus;
			gpus = process->gpus > 0 ? process->gpus : gpus;
			break;
		case ENGINE_SAYS_READY:
			ward->failed_starts = 0;
			ward->ready_ms = monotonic_ms();
			if (ward_wanted(ward))
				engine_slot_publish(number, ENGINE_READY, NULL);
			ereport(LOG,
					(errmsg("%s (PID %d) is ready: %s", ward->name, (int) process->pid, words)));
			break;
		case ENGINE_SAYS_ERROR:
			engine_slot_error(number, words);
			break;
		case ENGINE_SAYS_BUSY:
			ward_busy(ward, atoi(words));
			break;
		case ENGINE_SAYS_IDLE:
			ward_busy(ward, NO_CARD);
			break;
		case ENGINE_SAYS_FATAL:
			ward->said_fatal = true;
			ereport(WARNING, (errmsg("%s: %s", ward->name, words)));
			if (ward_wanted(ward))
				engine_slot_publish(number, ENGINE_FAILED, words);
			break;
	}
}

static void
ward_configure(Ward *ward, bool go)
{
	char more[96];

	snprintf(more, sizeof(more), "set number %d\nset engines %d\nset device %s\n",
			 ward_number(ward), nwanted, ward->device);
	engine_process_configure(&ward->process, more, go);
}

/* Delay before the next start, in ms, by how the last engines ended. */
static int
retry_delay(const Ward *ward)
{
	if (ward->failed_starts > 0)
		return Min(RETRY_START_MAX, 250 << Min(ward->failed_starts, 10));
	if (ward->quick_deaths > 1)
		return Min(RETRY_READY_MAX, 10 << Min(ward->quick_deaths, 10));
	return 0;
}

/* It is not there, and will be started again. */
static void
ward_await(Ward *ward, const char *error)
{
	/* What it said last explains more than its exit status. */
	engine_slot_publish(ward_number(ward),
						ward->said_fatal || ward->failed_starts >= FAILED_STARTS ? ENGINE_FAILED
																				 : ENGINE_STARTING,
						ward->said_fatal ? NULL : error);
	ward->next_start_ms = monotonic_ms() + retry_delay(ward);
}

static void
ward_start(Ward *ward)
{
	char error[sizeof(((EngineSlot *) NULL)->last_error)];

	if (!engine_process_start(&ward->process, ward->name, NULL, NULL, engine_says))
	{
		snprintf(error, sizeof(error), "could not start a process: %m");
		ereport(LOG, (errmsg("%s: %s", ward->name, error)));
		ward->failed_starts++;
		ward_await(ward, error);
		return;
	}
	ward->said_fatal = false;
	ward->ready_ms = 0;
	engine_slot_started(ward_number(ward), ward->process.pid);
	ward_configure(ward, true);
}

static void
ward_free(Ward *ward)
{
	ward->device[0] = '\0';
	ward->leave_ms = 0;
	engine_slot_free(ward_number(ward));
	deal = true; /* perhaps another one waits for the slot */
}

static void
ward_ended(Ward *ward, pid_t pid, int status)
{
	int64 now = monotonic_ms();
	char *how = wait_result_to_str(status);
	char error[sizeof(((EngineSlot *) NULL)->last_error)];

	snprintf(error, sizeof(error), "engine (PID %d): %s", (int) pid, how);
	ward_busy(ward, NO_CARD);
	ereport(LOG, (errmsg("%s (PID %d): %s", ward->name, (int) pid, how)));
	pfree(how);
	if (!ward_wanted(ward))
	{
		ward_free(ward);
		return;
	}
	if (ward->ready_ms != 0)
	{
		ward->failed_starts = 0;
		ward->quick_deaths = now - ward->ready_ms >= QUICK_DEATH ? 1 : ward->quick_deaths + 1;
	}
	else
	{
		ward->failed_starts++;
		if (WIFEXITED(status) && WEXITSTATUS(status) == ENGINE_EXEC_FAILED)
		{
			snprintf(error, sizeof(error), "could not execute \"%s/bicycle-engine\"", pkglib_path);
			ward->failed_starts = Max(ward->failed_starts, FAILED_STARTS);
		}
	}
	ward_await(ward, error);
}

/* ---- Which engines there are to be --------------------------------------- */

/*
 * It takes no new requests, and ends when it has answered those it has begun.
 */
static void
ward_leave(Ward *ward)
{
	ward->leave_ms = monotonic_ms() + LEAVE_TIMEOUT;
	if (ward->process.pid == 0)
	{
		ward_free(ward);
		return;
	}
	engine_slot_publish(ward_number(ward), ENGINE_LEAVING, NULL);
	engine_process_quit(&ward->process);
}

static void
ward_assign(Ward *ward, const char *device)
{
	bool running = ward_used(ward);

	strlcpy(ward->device, device, sizeof(ward->device));
	engine_slot_assign(ward_number(ward), device);
	if (ward->process.pid != 0)
		ward_configure(ward, false);
	if (running)
		return;
	ward->failed_starts = ward->quick_deaths = 0;
	ward->next_start_ms = 0;
}

/* Takes a name off the list; false if it is not on it. */
static bool
take_name(BicycleDevices *devices, const char *name)
{
	for (int i = 0; i < devices->n; i++)
	{
		if (strcmp(devices->name[i], name) != 0)
			continue;
		devices->n--;
		memmove(devices->name[i], devices->name[i + 1],
				(devices->n - i) * sizeof(devices->name[0]));
		return true;
	}
	return false;
}

/*
 * Deals the devices of the setting out. Engines that have one of them keep it;
 * others take what is left, or go; for what is left then there are new ones.
 */
static void
deal_devices(void)
{
	BicycleDevices devices;
	bool keeps[BICYCLE_MAX_ENGINES];
	int before = nwanted;

	deal = false;
	(void) bicycle_devices_parse(bicycle_device, &devices);
	if (devices.all)
		devices.n = Min(gpus, BICYCLE_MAX_ENGINES);
	nwanted = devices.n;
	for (int i = 0; i < BICYCLE_MAX_ENGINES; i++)
		keeps[i] = ward_wanted(&wards[i]) && take_name(&devices, wards[i].device);
	for (int i = 0; i < BICYCLE_MAX_ENGINES; i++)
	{
		Ward *ward = &wards[i];
		char name[BICYCLE_MAX_DEVICE];

		if (keeps[i] || (ward_used(ward) && !ward_wanted(ward)))
			continue;
		if (devices.n > 0)
		{
			strlcpy(name, devices.name[0], sizeof(name));
			(void) take_name(&devices, name);
			ward_assign(ward, name);
		}
		else if (ward_used(ward))
			ward_leave(ward);
	}
	/* Names that are left wait for slots of engines that are leaving. */
	for (int i = 0; i < BICYCLE_MAX_ENGINES && nwanted != before; i++)
		if (ward_wanted(&wards[i]) && wards[i].process.pid != 0)
			ward_configure(&wards[i], false);
}

/* ---- The worker ---------------------------------------------------------- */

static void
supervisor_exit(int code, Datum arg)
{
	for (int i = 0; i < BICYCLE_MAX_ENGINES; i++)
	{
		if (wards[i].process.pid > 0)
			kill(wards[i].process.pid, SIGKILL);
		if (ward_used(&wards[i]))
			engine_slot_publish(i, ENGINE_ABSENT, NULL);
	}
}

static void
child_ended(SIGNAL_ARGS)
{
	int save_errno = errno;

	SetLatch(MyLatch);
	errno = save_errno;
}

static void
supervisor_begin(void)
{
	pid_t other = sole_worker_begin(WORKER_SUPERVISOR);

	if (other != 0)
	{
		ereport(LOG, (errmsg("bicycle supervisor is already running under PID %d", (int) other)));
		proc_exit(0);
	}
	for (int i = 0; i < BICYCLE_MAX_ENGINES; i++)
	{
		wards[i].process.control = -1;
		wards[i].card = NO_CARD;
		strlcpy(wards[i].name, i == 0 ? "bicycle engine" : psprintf("bicycle engine %d", i),
				sizeof(wards[i].name));
	}
	before_shmem_exit(supervisor_exit, (Datum) 0);
	deal_devices();
	/* Not preloaded, jobs go on once anybody uses the engine. */
	(void) sole_worker_ensure(WORKER_LAUNCHER);
}

/* Does what is due for one engine; returns the ms until there is something. */
static long
ward_turn(Ward *ward)
{
	pid_t pid = ward->process.pid;
	int64 now = monotonic_ms();
	int status;

	if (!ward_used(ward))
		return ENGINE_TURN;
	if (engine_process_reap(&ward->process, &status))
		ward_ended(ward, pid, status);
	else if (pid != 0 && ward->leave_ms != 0 && now >= ward->leave_ms)
	{
		ereport(LOG, (errmsg("%s (PID %d) is killed: it does not end", ward->name, (int) pid)));
		kill(pid, SIGKILL);
		ward->leave_ms = now + LEAVE_TIMEOUT;
	}
	if (ward_wanted(ward) && ward->process.pid == 0 && now >= ward->next_start_ms)
		ward_start(ward);
	if (ward_wanted(ward) && ward->process.pid == 0)
		return Max(1, ward->next_start_ms - now);
	return engine_process_heartbeat(&ward->process, PONGS_MISSED);
}

/* Does what is due; returns the ms until there is something to do. */
static long
supervise(void)
{
	long timeout = ENGINE_TURN;
	bool reload = ConfigReloadPending;

	if (reload)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	if (reload || deal)
		deal_devices();
	for (int i = 0; i < BICYCLE_MAX_ENGINES; i++)
	{
		Ward *ward = &wards[i];
		long wait;

		if (reload && ward_wanted(ward))
		{
			if (ward->process.pid != 0)
				ward_configure(ward, false);
			ward->next_start_ms = 0; /* perhaps what kept it from starting has been mended */
		}
		if (ward->process.pid != 0 && engine_slot_take_trim(i))
			engine_process_tell(&ward->process, "trim\n");
		wait = ward_turn(ward);
		timeout = Min(timeout, wait);
	}
	return deal ? 0 : timeout;
}

/* All are told first, so that they end at the same time. */
static void
stop_all(void)
{
	int64 deadline = monotonic_ms() + STOP_TIMEOUT;

	for (int i = 0; i < BICYCLE_MAX_ENGINES; i++)
		engine_process_quit(&wards[i].process);
	for (int i = 0; i < BICYCLE_MAX_ENGINES; i++)
		engine_process_stop(&wards[i].process, (int) Max(0, deadline - monotonic_ms()));
}

void
bicycle_supervisor_main(Datum arg)
{
	MemoryContext context;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGCHLD, child_ended);
	BackgroundWorkerUnblockSignals();
	context = AllocSetContextCreate(TopMemoryContext, "bicycle supervisor", ALLOCSET_DEFAULT_SIZES);
	supervisor_begin();

	for (;;)
	{
		SocketWait wait = { 0 };
		long timeout;

		MemoryContextReset(context);
		MemoryContextSwitchTo(context);
		if (ShutdownRequestPending)
		{
			stop_all();
			proc_exit(1);
		}
		timeout = supervise();
		for (int i = 0; i < BICYCLE_MAX_ENGINES; i++)
			if (wards[i].process.control >= 0)
				socket_wait_add(&wait, wards[i].process.control, WL_SOCKET_READABLE);
		socket_wait(&wait, timeout, PG_WAIT_EXTENSION);
	}
}
