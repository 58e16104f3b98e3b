/*
 * pairs_query.h
 *	  The query that gives a job its pairs.
 */
#ifndef BICYCLE_PAIRS_QUERY_H
#define BICYCLE_PAIRS_QUERY_H

#include "postgres.h"

#include "executor/spi.h"

/*
 * Prepares the query of a job as the current user; within SPI_connect. 42601 if
 * it is not one query that only reads, 42804 if it does not give two bytea
 * columns, 0A000 if it uses temporary tables.
 */
extern SPIPlanPtr pairs_prepare(const char *query);

#endif /* BICYCLE_PAIRS_QUERY_H */
