/*
 * pg_compat.h
 *	  What differs between PostgreSQL 15 and 18.  Each macro has a memo: which version changed what.
 */
#ifndef BICYCLE_PG_COMPAT_H
#define BICYCLE_PG_COMPAT_H

#include "utils/wait_event.h"

#if PG_VERSION_NUM < 150000
#error "bicycle needs PostgreSQL 15 or later"
#endif

/*
 * MEMO: PG 17 (c9af054653) lets an extension name its wait events; before, all of them show as "Extension" in pg_stat_activity.
 * `slot` is a static uint32 of the caller that keeps the number once it has been asked for.
 */
#if PG_VERSION_NUM >= 170000
#define BicycleWaitEvent(slot, name)	((slot) != 0 ? (slot) : ((slot) = WaitEventExtensionNew(name)))
#else
#define BicycleWaitEvent(slot, name)	((void) (slot), PG_WAIT_EXTENSION)
#endif

/*
 * MEMO: PG 18 (9324c8c580) adds PG_MODULE_MAGIC_EXT, by which pg_get_loaded_modules() shows a library's name and version.
 */
#ifdef PG_MODULE_MAGIC_EXT
#define BicycleModuleMagic(version)		PG_MODULE_MAGIC_EXT(.name = "bicycle", .version = (version))
#else
#define BicycleModuleMagic(version)		PG_MODULE_MAGIC
#endif

#endif							/* BICYCLE_PG_COMPAT_H */
