/*
 * launcher.h
 *	  The background workers that find and start jobs: the launcher, and a scan
 *	  of one database. Nobody calls them but PostgreSQL.
 */
#ifndef BICYCLE_LAUNCHER_H
#define BICYCLE_LAUNCHER_H

#include "postgres.h"

extern PGDLLEXPORT void bicycle_launcher_main(Datum arg);
extern PGDLLEXPORT void bicycle_scan_main(Datum arg); /* the OID of its database */

#endif /* BICYCLE_LAUNCHER_H */
