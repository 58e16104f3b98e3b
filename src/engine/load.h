/*
 * load.h
 *	  What is made of streams: LOAD makes a model resident, IMPORT and CREATE
 *	  make one of files or of nothing, EXPORT writes a file, INSPECT looks into
 *	  one.
 *
 * I/O thread only. X_begin may fail the request at once; then it is DONE.
 */
#ifndef BICYCLE_ENGINE_LOAD_H
#define BICYCLE_ENGINE_LOAD_H

#include "engine/request.h"
#include "format/format.h"

/* LOAD (load.c). load_check: what can be said before anything is streamed. */
extern bool load_check(Request *request, const BicycleLoad *load, EngineError *error);
extern void load_begin(Request *request, const BicycleLoad *load, const uint8_t *config);
/* What a LOAD takes in memory until the model is the cache's. */
extern size_t load_bytes(const BicycleLoad *load, const uint8_t *config);
extern void load_progress(Request *request);
extern void load_queue(Request *request);     /* the stream is complete */
extern void load_next(struct Engine *engine); /* packs what can be packed; in settle */

/* IMPORT and CREATE (import.c). */
extern void import_begin(Request *request, const BicycleImport *import, const uint8_t *config);
extern void import_run(Request *request);
extern void create_run(Request *request);
extern bool import_read_file(const uint8_t *bytes, size_t length, FormatFile *file,
							 EngineError *error);
extern void import_format_error(FormatStatus status, const FormatError *format, EngineError *error);

/* EXPORT and INSPECT (export.c). */
extern void export_begin(Request *request, const BicycleExport *export);
extern void export_run(Request *request);
extern void inspect_run(Request *request);

#endif /* BICYCLE_ENGINE_LOAD_H */
