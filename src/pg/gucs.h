/*
 * gucs.h
 *	  The settings that sessions and workers read: bicycle_NAME for each row of
 *	  common/settings.def, in the unit of the row.
 *
 * PostgreSQL changes them when it handles SET or a reload. A choice is the
 * value of its entry in gucs.c.
 */
#ifndef BICYCLE_GUCS_H
#define BICYCLE_GUCS_H

#include "postgres.h"

#include "lib/stringinfo.h"

/* bicycle_on_error */
typedef enum BicycleOnError
{
	BICYCLE_ON_ERROR_ERROR,
	BICYCLE_ON_ERROR_NULL
} BicycleOnError;

#define ENGINE_INT(name, ...) extern int bicycle_##name;
#define ENGINE_BOOL(name, ...) extern bool bicycle_##name;
#define ENGINE_CHOICE(name, ...) extern int bicycle_##name;
#define SESSION_INT(name, ...) extern int bicycle_##name;
#define SESSION_BOOL(name, ...) extern bool bicycle_##name;
#define SESSION_CHOICE(name, ...) extern int bicycle_##name;
#define SESSION_STRING(name, ...) extern char *bicycle_##name;
#include "common/settings.def"

extern void gucs_define(void);

/* Appends "set NAME VALUE\n" for each setting that the engine reads. */
extern void gucs_for_engine(StringInfo out);

#endif /* BICYCLE_GUCS_H */
