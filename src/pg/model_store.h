/*
 * model_store.h
 *	  Versions of models as rows: their numbers, the current one, and new ones.
 */
#ifndef BICYCLE_MODEL_STORE_H
#define BICYCLE_MODEL_STORE_H

#include "pg/bicycle.h"

#include "storage/buffile.h"

/* Conditions on the parameters of model_run: all versions, or one. */
#define OF_MODEL "model OPERATOR(pg_catalog.=) $1 AND $2 IS NOT NULL"
#define OF_VERSION "model OPERATOR(pg_catalog.=) $1 AND version OPERATOR(pg_catalog.=) $2"

/*
 * Taken by whoever writes a model or its jobs, until the end of the
 * transaction.
 */
extern void model_lock(const char *name);

/*
 * Runs a query whose parameters are the model's name and a version, as the
 * caller; within SPI_connect. Returns the number of rows. result, if given,
 * receives the first column of the first row, an int.
 */
extern uint64 model_run(const char *query, int expected, const char *name, int version,
						int *result);

extern void model_set_current(const char *name, int version); /* within SPI_connect */

/*
 * Writes a new version as the caller and returns its number. It becomes current
 * if `replaces` is NULL or names the current version (0: there is none).
 * tensors: a stream as model_stream_spool leaves it.
 */
extern int model_store(const char *name, const char *method, int64 iterations,
					   const BicycleImported *head, const char *config, BufFile *tensors,
					   const int *replaces);

#endif /* BICYCLE_MODEL_STORE_H */
