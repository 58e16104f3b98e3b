/*
 * call.h
 *	  The calls of this session: what it has asked the engine for.
 *
 * R1 Who opens a call frees it by call_free, whatever has become of it. After
 *    an error CurrentResourceOwner of its opening does.
 * R2 An error that the engine answers with is raised by whoever waits for the
 *    answer. The call is still there, and raises it again if it is asked again.
 * R3 Calls without streams are sent again by themselves, perhaps to another
 *    engine, when the connection was lost. For a call with streams a lost
 *    connection is a status: each function that returns bool returns false from
 *    then on, and does nothing.
 * R4 An answer's bytes belong to its call, and go with it.
 * R5 Whatever waits for a call raises what session_open does, as call_simple
 *    and call_open do. Whatever opens one raises 0A000 in the query of a
 *    training job; and, if it may need a model, in a policy or a function of
 *    one that runs while a model is read for another call.
 *
 * All of this is in the session's own process, which has one thread. Whatever
 * waits here can be cancelled, and raises what CHECK_FOR_INTERRUPTS does.
 */
#ifndef BICYCLE_CALL_H
#define BICYCLE_CALL_H

#include "pg/bicycle.h"

#include "pg/catalog.h"

typedef struct Call Call;

/*
 * From _PG_init. `load` sends a model to the engine that asks for it, as
 * model_stream_load does.
 */
extern void calls_init(bool (*load)(const Model *model, int engine));

/* ---- call.c -------------------------------------------------------------- */

/*
 * Opens a call whose body is in memory: head, z (head->nz values), image. Body
 * and model are copied; model is NULL for INFO and PLOT. 58000 if such calls
 * are refused.
 */
extern Call *call_submit(BicycleFrameType type, const Model *model, const BicycleImageRequest *head,
						 const float *z, const void *image, size_t image_length);

/*
 * Opens STATUS or CACHE, one small frame each way, of the engine of that
 * number.
 */
extern Call *call_simple(BicycleFrameType type, int engine);

/*
 * Waits for the answer, whatever it is: call_wait then returns or raises at
 * once. Neither is for calls with streams.
 */
extern void call_settle(Call *call);
extern const char *call_wait(Call *call, size_t *length);
extern const char *call_try(Call *call, size_t *length); /* NULL for an error, which stays */

/*
 * Waits as call_settle does. True if the answer is an error that is the image's
 * own, and not of a model or of the engine: 22P03, or 54000. *message and
 * *detail (NULL: none) are the call's.
 */
extern bool call_image_failed(Call *call, const char **message, const char **detail);

/* Withdraws the call if it is still open, and frees it. Raises nothing. */
extern void call_free(Call *call);

/* ---- call_stream.c: calls whose callers write and read streams ----------- */

/*
 * Opens a call, and sends its header. Its GRANT is waited for by call_granted,
 * before which nothing may be written. 54000 if the tail is too long for the
 * engine.
 */
extern Call *call_open(BicycleFrameType type, const void *head, size_t head_length,
					   const void *tail, size_t tail_length);

/* The same to that engine; if it is not connected the connection is lost. */
extern Call *call_open_at(int engine, BicycleFrameType type, const void *head, size_t head_length,
						  const void *tail, size_t tail_length);
extern bool call_granted(Call *call);
extern bool call_write(Call *call, const void *bytes, size_t length);
extern bool call_end(Call *call); /* of what is written */

/* Waits for the fixed part of the answer. */
extern bool call_result(Call *call, const char **head, size_t *length);

/* Exactly that many bytes of the answer's stream; 08P01 if it has fewer. */
extern bool call_read(Call *call, void *bytes, size_t length);
extern bool call_read_end(Call *call); /* 08P01 if there is more */

/*
 * In a job worker: opens the stream to its training engine, which starts as
 * TRAIN_BEGIN. call_write and call_end as above; call_send adds a whole frame
 * once there is room. Freeing the call ends nothing in the engine.
 */
extern Call *call_train(const void *head, size_t head_length, const void *tail, size_t tail_length);
extern bool call_send(Call *call, BicycleFrameType type, const void *head, size_t head_length,
					  const void *tail, size_t tail_length);

/*
 * Calls `attempt`, which opens a call and frees it, until it returns true: the
 * connection held. 58000 if the engine had begun and ended twice, or the
 * connection was lost too often before it began; `what` completes "bicycle
 * engine failed twice while it ...".
 */
extern void call_retry(bool (*attempt)(void *arg), void *arg, const char *what);

#endif /* BICYCLE_CALL_H */
