/*
 * model_stream.h
 *	  Models on the wire.
 */
#ifndef BICYCLE_MODEL_STREAM_H
#define BICYCLE_MODEL_STREAM_H

#include "pg/bicycle.h"

#include "pg/call.h"
#include "pg/catalog.h"
#include "storage/buffile.h"

/*
 * Sends a version's tensors to an engine as LOAD; false if the connection was
 * lost.
 */
extern bool model_stream_load(const Model *model, int engine);

/*
 * Sends the tensors of one network as EXPORT; returns the file, palloc'ed, or
 * NULL if the connection was lost. 55000 if the version has no such network.
 */
extern bytea *model_stream_export(const Model *model, const char *network, const char *format);

/*
 * In a job worker: opens TRAIN_BEGIN and sends a version's tensors. head's
 * stream_length, options_length and start are filled here. If the connection
 * was lost meanwhile, the call says so when it is used next.
 */
typedef struct BicycleTrainBegin BicycleTrainBegin;
extern Call *model_stream_train(BicycleTrainBegin *head, const char *options, const Model *model);

/*
 * There, on the call that TRAIN_BEGIN has opened: sends a version that compares
 * images as METRIC. A connection that was lost shows likewise.
 */
extern void model_stream_metric(Call *call, const Model *model);

/*
 * Reads an answer's stream of that many bytes into a temporary file, rewound,
 * which the caller closes; NULL if the connection was lost.
 */
extern BufFile *model_stream_spool(Call *call, uint64 length);

/*
 * Writes the tensors in such a file into rows of bicycle_tensors, as the
 * caller.
 */
extern void model_stream_store(BufFile *file, int ntensors, const char *model, int version);

extern void model_stream_check_tensor(const BicycleTensor *t); /* 08P01 if its strings do not end */
extern Datum model_stream_shape(const BicycleTensor *t);       /* int[] */

#endif /* BICYCLE_MODEL_STREAM_H */
