/*
 * engine_process.h
 *	  An engine that this process has started, and looks after: the supervisor
 *	  those of all sessions, a job's worker that of its run.
 *
 * They decide when an engine starts, how long it may be silent, and what its
 * end means. All else is here.
 */
#ifndef BICYCLE_ENGINE_PROCESS_H
#define BICYCLE_ENGINE_PROCESS_H

#include "postgres.h"

#include "lib/stringinfo.h"

/* What a line of the engine is about, to whom it matters. */
typedef enum EngineWord
{
	ENGINE_SAYS_DEVICE, /* `missing`, `gpus` are new, and what it is */
	ENGINE_SAYS_READY,  /* and what it is */
	ENGINE_SAYS_ERROR,  /* which has been logged */
	ENGINE_SAYS_FATAL,  /* why it is about to end */
	ENGINE_SAYS_BUSY,   /* requests wait for its GPU, of that number */
	ENGINE_SAYS_IDLE    /* and none do any more */
} EngineWord;

typedef struct EngineProcess EngineProcess;
typedef void (*EngineSays)(EngineProcess *engine, EngineWord word, const char *text);

struct EngineProcess
{
	pid_t pid;            /* 0: none, or its end has been seen */
	int control;          /* our end of its control socket; -1: it is closed */
	bool ready;           /* the engine has said so */
	bool missing;         /* and that it has no device */
	int gpus;             /* that it has seen; 0: none, or it has not looked */
	char last_words[512]; /* its last error, or why it was killed; "" if there was none */

	/* Of engine_process.c alone. */
	const char *name;
	EngineSays says;
	StringInfoData in;  /* bytes of an unfinished line */
	int64 turn_ms;      /* of the last turn of engine_process_heartbeat */
	int silence;        /* turns since it was started, was ready, or gave a sign of life */
	int starting;       /* turns since it was started, up to "ready" */
	uint64 ping_number; /* of the last ping */
};

#define ENGINE_TURN 1000       /* ms between pings */
#define ENGINE_EXEC_FAILED 127 /* exit status, as of a shell that does not find a command */

/*
 * Starts bicycle-engine, with an argument unless that is NULL. `name` is what
 * messages call it; it must live as long as the process. In *data, unless that
 * is NULL, it returns our end of a second socket pair, whose other end is the
 * engine's descriptor after the control socket; who closes it calls
 * ReleaseExternalFD. False, and errno says why, if there was no process to be
 * had. `engine` may be zeros, or one whose process has ended.
 */
extern bool engine_process_start(EngineProcess *engine, const char *name, const char *argument,
								 int *data, EngineSays says);

/*
 * Tells all settings, then those in `more`, lines of the same kind which count
 * instead; and that it may start.
 */
extern void engine_process_configure(EngineProcess *engine, const char *more, bool go);

/* A line to it, ended by \n. Without one it does nothing. */
extern void engine_process_tell(EngineProcess *engine, const char *line);

/*
 * Reads what the engine has said, calls `says`, and closes the control socket
 * at its end.
 */
extern void engine_process_read(EngineProcess *engine);

/*
 * Reads; pings the engine once a turn, and kills it if it has been silent for
 * that many turns, or before it is ready for those of stuck_timeout, or is not
 * ready after ten minutes. Returns the ms until the next turn.
 */
extern long engine_process_heartbeat(EngineProcess *engine, int patience);

/* Whether the engine has just been found to have ended; then *status is its. */
extern bool engine_process_reap(EngineProcess *engine, int *status);

/*
 * Waits for the end of the engine, for that many ms at most, and returns as
 * engine_process_reap.
 */
extern bool engine_process_wait(EngineProcess *engine, int ms, int *status);

extern void engine_process_quit(EngineProcess *engine); /* asks it to finish */

/* The same, and waits; what is left then is killed. */
extern void engine_process_stop(EngineProcess *engine, int ms);

/* Kills it, if there is one, and waits for its end. */
extern void engine_process_end(EngineProcess *engine);

#endif /* BICYCLE_ENGINE_PROCESS_H */
