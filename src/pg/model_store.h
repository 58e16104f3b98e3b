/*
 * model_store.h
 *	  Versions of models as rows: their numbers, the current one, and new ones.
 */
#ifndef BICYCLE_MODEL_STORE_H
#define BICYCLE_MODEL_STORE_H

#include "pg/bicycle.h"

#include "storage/buffile.h"

/*
 * Taken by whoever writes a model or its jobs, until the end of the
 * transaction.
 */
extern void model_lock(const char *name);
extern void model_unlock(const char *name); /* takes one model_lock back, where nothing was done */

/*
 * Within SPI_connect, and under model_lock: 42501 if row security keeps the
 * current version from the caller.
 */
extern void model_check_seen(const char *name);
extern void model_set_current(const char *name, int version);

/*
 * Writes a new version as the caller and returns its number. It becomes current
 * if `replaces` is NULL (or 42501, as model_set_current); otherwise if that is
 * the current version (0: there is none), and the caller may replace it.
 * tensors: a stream as model_stream_spool leaves it.
 */
extern int model_store(const char *name, const char *method, int64 iterations,
					   const BicycleImported *head, const char *config, BufFile *tensors,
					   const int *replaces);

#endif /* BICYCLE_MODEL_STORE_H */
