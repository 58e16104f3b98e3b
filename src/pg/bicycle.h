/*
 * bicycle.h
 *	  What nearly every file of src/pg includes.
 *
 * The library runs in backends, in parallel workers and in the supervisor. It
 * never decodes an image, reads a model file or starts a thread; all of that
 * happens in the engine (src/engine), reached over a socket by
 * common/protocol.h.
 */
#ifndef BICYCLE_PG_H
#define BICYCLE_PG_H

#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"

#include "common/protocol.h"
#include "common/version.h"

#include "pg/bgworker.h"
#include "pg/gucs.h"
#include "pg/pg_compat.h"
#include "pg/shared.h"

#endif /* BICYCLE_PG_H */
