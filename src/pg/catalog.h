/*
 * catalog.h
 *	  Models as callers name them, and the tables of the extension.
 */
#ifndef BICYCLE_CATALOG_H
#define BICYCLE_CATALOG_H

#include "pg/bicycle.h"

#include "nodes/parsenodes.h"

typedef struct Model
{
	char name[BICYCLE_MAX_NAME];
	int version;
	uint8 hash[BICYCLE_HASH_BYTES];
	int nz;
	bool has_encoder;
	bool alpha_drop;  /* images are read without their alpha */
	bool compares;    /* it is no generator, but LPIPS */
	uint32 precision; /* of its config, values of NnPrecision; fp32 if the config says auto */
} Model;

extern void catalog_init(void); /* from _PG_init: registers invalidation callbacks */

/*
 * Finds a version of a model, as the caller; palloc'ed. SELECT on both tables
 * is checked whether or not the model is resident, and row security on
 * bicycle_models applies. model NULL means bicycle.model; version NULL the
 * current one. 42501, 42704; XX001 if the row is damaged.
 */
extern Model *model_lookup(const text *model, const int *version);

/*
 * The same of the current version of a model that compares images, which
 * model_lookup refuses, as this does others: 55000. NULL if there is none.
 */
extern Model *model_lookup_comparing(const char *name);

#define RESERVED_PREFIX "lpips-"                /* of names of such models */
#define USUAL_METRIC RESERVED_PREFIX "alex-0.1" /* what bicycle_lpips takes if nothing is said */

extern char *model_name_argument(FunctionCallInfo fcinfo, int i);     /* 22004, 22023 */
extern char *model_own_name_argument(FunctionCallInfo fcinfo, int i); /* 22023 if reserved, too */
extern char *model_options_argument(FunctionCallInfo fcinfo, int i); /* jsonb as text; NULL is {} */

/*
 * The schema that CREATE EXTENSION put everything in. 42704 if there is no
 * extension here; with missing_ok, InvalidOid.
 */
extern Oid catalog_schema(bool missing_ok);

/*
 * "schema.table", quoted, for queries; and its OID. 42P01 if it is not there.
 */
extern const char *catalog_table(const char *table);
extern Oid catalog_table_oid(const char *table);
extern void catalog_check_rights(const char *table, AclMode mode); /* 42501 */

#endif /* BICYCLE_CATALOG_H */
