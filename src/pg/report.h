/*
 * report.h
 *	  What the files of bicycle_report share.
 */
#ifndef BICYCLE_REPORT_H
#define BICYCLE_REPORT_H

#include "pg/bicycle.h"

typedef struct ReportOptions
{
	const char *title; /* NULL: made of the model's name */
	int rows, samples; /* pairs that are shown; answers to each */
	int64 seed;
	int version; /* 0: the current one */
	int64 job;   /* 0: the last one that made the version */
	int steps;   /* of the morph; 0: none */
	int sweep;   /* values of each number of z; 0: none */
	int previews;
	bool evaluates;
	const char *evaluation; /* the options of bicycle_evaluate, as JSON */
} ReportOptions;

/* Reads them from an argument of type jsonb: 22004, 22023. */
extern void report_options(FunctionCallInfo fcinfo, int argument, ReportOptions *options);

#endif /* BICYCLE_REPORT_H */
