/*
 * pg_compat.h
 *	  What differs between PostgreSQL 15 and 18. Each macro has a memo: which
 *	  version changed what.
 */
#ifndef BICYCLE_PG_COMPAT_H
#define BICYCLE_PG_COMPAT_H

#include "catalog/pg_database.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 150000
#error "bicycle needs PostgreSQL 15 or later"
#endif

/* MEMO: PG 16 (d952373a98) moves VARDATA and its like out of postgres.h. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/*
 * MEMO: PG 17 (c9af054653) lets an extension name its wait events; before, all
 * of them show as "Extension" in pg_stat_activity. `slot` is a static uint32 of
 * the caller that keeps the number once it has been asked for.
 */
#if PG_VERSION_NUM >= 170000
#define BicycleWaitEvent(slot, name) ((slot) != 0 ? (slot) : ((slot) = WaitEventExtensionNew(name)))
#else
#define BicycleWaitEvent(slot, name) ((void) (slot), PG_WAIT_EXTENSION)
#endif

/*
 * MEMO: PG 17 (50c67c2019) has a resource owner free a set of wait events;
 * before, it is made in a memory context.
 */
#if PG_VERSION_NUM >= 170000
#define BicycleWaitEventSet(n) CreateWaitEventSet(CurrentResourceOwner, (n))
#else
#define BicycleWaitEventSet(n) CreateWaitEventSet(CurrentMemoryContext, (n))
#endif

/*
 * MEMO: PG 18 replaces pg_attribute_noreturn(), behind a declaration, by
 * pg_noreturn before it.
 */
#ifndef pg_noreturn
#define pg_noreturn __attribute__((noreturn))
#endif

/*
 * MEMO: PG 18 (9324c8c580) adds PG_MODULE_MAGIC_EXT, by which
 * pg_get_loaded_modules() shows a library's name and version.
 */
#ifdef PG_MODULE_MAGIC_EXT
#define BicycleModuleMagic(text) PG_MODULE_MAGIC_EXT(.name = "bicycle", .version = text)
#else
#define BicycleModuleMagic(text) PG_MODULE_MAGIC
#endif

/*
 * MEMO: PG 16 (c727f511bd) replaces the pg_*_aclcheck functions by
 * object_aclcheck.
 */
#if PG_VERSION_NUM >= 160000
#define bicycle_function_aclcheck(function, role) \
	object_aclcheck(ProcedureRelationId, (function), (role), ACL_EXECUTE)
#define bicycle_database_aclcheck(database, role, mode) \
	object_aclcheck(DatabaseRelationId, (database), (role), (mode))
#else
#define bicycle_function_aclcheck(function, role) pg_proc_aclcheck((function), (role), ACL_EXECUTE)
#define bicycle_database_aclcheck(database, role, mode) \
	pg_database_aclcheck((database), (role), (mode))
#endif

/*
 * MEMO: PG 18 (c65bc2e1d1, 555960a0fb) moves ExplainState and ExplainProperty*
 * out of commands/explain.h.
 */
#if PG_VERSION_NUM >= 180000
#define BICYCLE_EXPLAIN_FORMAT_H "commands/explain_format.h"
#define BICYCLE_EXPLAIN_STATE_H "commands/explain_state.h"
#else
#define BICYCLE_EXPLAIN_FORMAT_H "commands/explain.h"
#define BICYCLE_EXPLAIN_STATE_H "commands/explain.h"
#endif

/*
 * MEMO: PG 18 (3eea7a0c97) drops ExecutorRun's argument execute_once, and the
 * hook's. These are a function's further parameter, and what it passes on.
 */
#if PG_VERSION_NUM >= 180000
#define BICYCLE_EXECUTE_ONCE
#define BICYCLE_PASS_EXECUTE_ONCE
#else
#define BICYCLE_EXECUTE_ONCE , bool execute_once
#define BICYCLE_PASS_EXECUTE_ONCE , execute_once
#endif

/*
 * MEMO: PG 15.4 (c66a7d75e6) marks a database whose DROP DATABASE was
 * interrupted; nobody can connect to it any more.
 */
#ifdef DATCONNLIMIT_INVALID_DB
#define bicycle_database_is_invalid(form) ((form)->datconnlimit == DATCONNLIMIT_INVALID_DB)
#else
#define bicycle_database_is_invalid(form) false
#endif

#endif /* BICYCLE_PG_COMPAT_H */
