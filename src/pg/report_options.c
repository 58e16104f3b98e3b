/*
 * report_options.c
 *	  Options of bicycle_report.
 */
#include "pg/report.h"

#include "pg/json_options.h"

#define FIELD(name) offsetof(ReportOptions, name)

/*
 * The evaluation of a page is to take no longer than its pictures, or little.
 */
#define EVALUATION "{\"inputs\": 20, \"samples\": 5}"

/* Whether; or an object, and with what. */
static bool
read_evaluation(JsonbValue *value, void *into)
{
	ReportOptions *options = into;
	Jsonb *given;

	options->evaluates = value->type != jbvBool || value->val.boolean;
	if (value->type == jbvBool)
		return true;
	if (value->type != jbvBinary)
		return false;
	given = JsonbValueToJsonb(value);
	options->evaluation = JsonbToCString(NULL, &given->root, VARSIZE(given));
	return JB_ROOT_IS_OBJECT(given);
}

static const char *
what_evaluation_must_be(void)
{
	return "It must be true, false, or an object of options of bicycle_evaluate.";
}

static const JsonOption table[] = {
	{ "title", JSON_TEXT, FIELD(title) },
	{ "rows", JSON_INT, FIELD(rows), 1, 1000, 8 },
	{ "samples", JSON_INT, FIELD(samples), 1, 100, 5 },
	{ "seed", JSON_LONG, FIELD(seed), PG_INT64_MIN, PG_INT64_MAX, 1 },
	{ "version", JSON_INT, FIELD(version), 1, INT_MAX, 0 },
	{ "job", JSON_LONG, FIELD(job), 1, PG_INT64_MAX, 0 },
	{ "steps", JSON_INT, FIELD(steps), 0, 100, 8 },
	{ "sweep", JSON_INT, FIELD(sweep), 0, 100, 7 },
	{ "previews", JSON_INT, FIELD(previews), 0, 100, 4 },
	{ "evaluation", JSON_OWN, .read = read_evaluation, .must = what_evaluation_must_be },
};
static const JsonOptions known = { "a report", table, lengthof(table) };

void
report_options(FunctionCallInfo fcinfo, int argument, ReportOptions *options)
{
	*options = (ReportOptions){ .evaluates = true, .evaluation = EVALUATION };
	json_options_read(fcinfo, argument, &known, options);
}
