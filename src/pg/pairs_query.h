/*
 * pairs_query.h
 *	  The query that gives a job its pairs.
 */
#ifndef BICYCLE_PAIRS_QUERY_H
#define BICYCLE_PAIRS_QUERY_H

#include "postgres.h"

#include "executor/spi.h"

/* What errors call the two queries of a job. */
#define PAIRS_TRAINED "pairs"
#define PAIRS_VALIDATION "validation pairs"

/*
 * Prepares a query of a job as the current user; within SPI_connect. 42601 if
 * it is not one query that only reads; 42804 if it does not give that many
 * bytea columns, and behind them at most one named id; 0A000 if it uses
 * temporary tables.
 */
extern SPIPlanPtr pairs_prepare(const char *what, const char *query, int images);

/* A query of pairs that runs in this session, where nothing in it can write. */
typedef struct PairsCursor
{
	Portal portal;
	bool was_read_only; /* the transaction, before */
} PairsCursor;

/*
 * Begins one, as the current user; it may use temporary tables. Errors are
 * those of pairs_prepare. After an error the end of the transaction, or of a
 * part of it, lets it write again.
 */
extern PairsCursor pairs_open(const char *query, int images);
extern void pairs_close(PairsCursor cursor);

/* The option validation of a job; NULL: there is none. */
extern char *pairs_validation(const char *options);

/* Whether the weights that images are compared by decide what is kept. */
extern bool pairs_need_metric(const char *options);

/* How many images a row has, by the options of its job, as JSON. */
extern int pairs_images(const char *options);

#endif /* BICYCLE_PAIRS_QUERY_H */
