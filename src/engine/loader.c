/*
 * loader.c
 *	  The gate of the loader: models and files, one at a time.
 *
 * I/O thread only. Requests for the loader stand in Engine.held until settle
 * comes to them. Then all of them are announced to their clients (STARTED) and
 * handed over, unless the loader rests: a request runs alone or is about to,
 * the device is being replaced, or the engine stops. While one that is to run
 * alone waits for others, the loader does not rest: they may need what a stream
 * holds.
 */
#include "engine/engine.h"

bool
loader_rests(const Engine *engine)
{
	const Request *alone = engine->alone;

	return (alone != NULL && (alone->state != REQUEST_ALONE || engine->nstarted == 0)) ||
		   engine->device.change || engine->device.busy || engine->stopping;
}

void
loader_add(Request *request, void (*run)(Request *), void (*done)(Request *))
{
	INVARIANT(request->kind->stream);
	request->run = run;
	request->done = done;
	request_to(request, REQUEST_HELD);
}

void
loader_run(Engine *engine)
{
	while (!loader_rests(engine) && !list_empty(&engine->held))
	{
		Request *request = list_member(Request, link, engine->held.next);

		if (!request->announced)
		{
			request->announced = true;
			connection_send(request->connection, BICYCLE_STARTED, request->id, NULL, 0, true, NULL);
			connection_flush(request->connection);
		}
		request_work(request, &engine->loader, REQUEST_LOADING, request->run, request->done,
					 TASK_SECOND);
	}
}
