/*
 * evaluate_options.c
 *	  Options of bicycle_evaluate.
 */
#include "pg/evaluate.h"

#include "pg/json_options.h"

#define METRIC_KIND(ID, name, needs) { #name, needs },
const MetricKind metric_kinds[METRICS] = { EVALUATE_METRICS(METRIC_KIND) };
#undef METRIC_KIND

#define FIELD(name) offsetof(EvaluateOptions, name)

static const char *
what_metrics_must_be(void)
{
	StringInfoData must;

	initStringInfo(&must);
	appendStringInfoString(&must, "It must be an array of one or more of");
	for (int i = 0; i < METRICS; i++)
		appendStringInfo(&must, "%s %s", i > 0 ? "," : "", metric_kinds[i].name);
	appendStringInfoChar(&must, '.');
	return must.data;
}

static bool
read_metrics(JsonbValue *value, void *into)
{
	EvaluateOptions *options = into;
	JsonbIterator *iterator;
	JsonbValue element;
	int n = 0;

	if (value->type != jbvBinary)
		return false;
	memset(options->wants, 0, sizeof(options->wants));
	options->named = true;
	iterator = JsonbIteratorInit(value->val.binary.data);
	if (JsonbIteratorNext(&iterator, &element, true) != WJB_BEGIN_ARRAY)
		return false;
	for (; JsonbIteratorNext(&iterator, &element, true) == WJB_ELEM; n++)
	{
		int metric = 0;

		while (metric < METRICS && !json_is_word(&element, metric_kinds[metric].name))
			metric++;
		if (metric == METRICS)
			return false;
		options->wants[metric] = true;
	}
	return n > 0;
}

static const JsonOption table[] = {
	{ "metrics", JSON_OWN, .read = read_metrics, .must = what_metrics_must_be },
	{ "inputs", JSON_INT, FIELD(inputs), 1, INT_MAX, 100 },
	{ "samples", JSON_INT, FIELD(samples), 1, INT_MAX, 20 },
	{ "seed", JSON_LONG, FIELD(seed), PG_INT64_MIN, PG_INT64_MAX, 0 },
	{ "version", JSON_INT, FIELD(version), 1, INT_MAX, 0 },
	{ "lpips_net", JSON_WORD, FIELD(net), .words = { "alex", "vgg" } },
	{ "lpips_version", JSON_WORD, FIELD(lpips), .words = { "0.0", "0.1" } },
	{ "bad_pairs", JSON_SWITCH, FIELD(skip), .words = { "error", "skip" } },
	{ "side_by_side", JSON_BOOL, FIELD(side_by_side) },
	{ "each_number", JSON_BOOL, FIELD(numbers) },
};
static const JsonOptions known = { "an evaluation", table, lengthof(table) };

void
evaluate_options_read(FunctionCallInfo fcinfo, int argument, EvaluateOptions *options)
{
	memset(options, 0, sizeof(*options));
	memset(options->wants, true, sizeof(options->wants));
	json_options_read(fcinfo, argument, &known, options);
	if (options->samples > bicycle_max_samples)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("too many samples"),
						errdetail("%d of each input were asked for; the limit is %d.",
								  options->samples, bicycle_max_samples),
						errhint("See the setting \"bicycle.max_samples\".")));
}
