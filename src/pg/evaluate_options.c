/*
 * evaluate_options.c
 *	  Options of bicycle_evaluate: one table, from which they are read, checked
 *	  and named.
 */
#include "pg/evaluate.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#define METRIC_KIND(ID, name, needs) { #name, needs },
const MetricKind metric_kinds[METRICS] = { EVALUATE_METRICS(METRIC_KIND) };
#undef METRIC_KIND

typedef enum OptionKind
{
	OPTION_INT,
	OPTION_LONG,
	OPTION_BOOL,
	OPTION_CHOICE, /* a string; the field is the word */
	OPTION_SWITCH, /* one of two strings; the field is whether it is the second */
	OPTION_METRICS /* an array of names */
} OptionKind;

typedef struct EvaluateOption
{
	const char *name;
	OptionKind kind;
	size_t field;
	int64 least, most, standard;
	const char *choices[3]; /* the first is the default */
} EvaluateOption;

#define FIELD(name) offsetof(EvaluateOptions, name)

static const EvaluateOption table[] = {
	{ "metrics", OPTION_METRICS },
	{ "inputs", OPTION_INT, FIELD(inputs), 1, INT_MAX, 100 },
	{ "samples", OPTION_INT, FIELD(samples), 1, INT_MAX, 20 },
	{ "seed", OPTION_LONG, FIELD(seed), PG_INT64_MIN, PG_INT64_MAX, 0 },
	{ "version", OPTION_INT, FIELD(version), 1, INT_MAX, 0 },
	{ "lpips_net", OPTION_CHOICE, FIELD(net), .choices = { "alex", "vgg" } },
	{ "lpips_version", OPTION_CHOICE, FIELD(lpips), .choices = { "0.0", "0.1" } },
	{ "bad_pairs", OPTION_SWITCH, FIELD(skip), .choices = { "error", "skip" } },
	{ "side_by_side", OPTION_BOOL, FIELD(side_by_side) },
	{ "each_number", OPTION_BOOL, FIELD(numbers) },
};

pg_noreturn static void
report_value(const EvaluateOption *option)
{
	StringInfoData must;

	initStringInfo(&must);
	switch (option->kind)
	{
		case OPTION_INT:
		case OPTION_LONG:
			appendStringInfo(&must,
							 "It must be an integer from " INT64_FORMAT " to " INT64_FORMAT ".",
							 option->least, option->most);
			break;
		case OPTION_BOOL:
			appendStringInfoString(&must, "It must be true or false.");
			break;
		case OPTION_CHOICE:
		case OPTION_SWITCH:
			appendStringInfo(&must, "It must be one of %s, %s.", option->choices[0],
							 option->choices[1]);
			break;
		case OPTION_METRICS:
			appendStringInfoString(&must, "It must be an array of one or more of");
			for (int i = 0; i < METRICS; i++)
				appendStringInfo(&must, "%s %s", i > 0 ? "," : "", metric_kinds[i].name);
			appendStringInfoChar(&must, '.');
			break;
	}
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("invalid value for option \"%s\" of an evaluation", option->name),
					errdetail_internal("%s", must.data)));
}

pg_noreturn static void
report_unknown(const char *name)
{
	StringInfoData names;

	initStringInfo(&names);
	for (size_t i = 0; i < lengthof(table); i++)
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", table[i].name);
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("unrecognized option \"%s\" of an evaluation", name),
					errhint("Options are: %s.", names.data)));
}

static int64
integer_of(const EvaluateOption *option, const JsonbValue *value)
{
	Datum number = NumericGetDatum(value->type == jbvNumeric ? value->val.numeric : NULL);
	Datum least, most;

	if (value->type != jbvNumeric ||
		DatumGetBool(DirectFunctionCall2(
			numeric_ne, number, DirectFunctionCall2(numeric_trunc, number, Int32GetDatum(0)))))
		report_value(option);
	least = NumericGetDatum(int64_to_numeric(option->least));
	most = NumericGetDatum(int64_to_numeric(option->most));
	if (DatumGetBool(DirectFunctionCall2(numeric_lt, number, least)) ||
		DatumGetBool(DirectFunctionCall2(numeric_gt, number, most)))
		report_value(option);
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, number));
}

static bool
is_word(const JsonbValue *value, const char *word)
{
	return value->type == jbvString && value->val.string.len == (int) strlen(word) &&
		   memcmp(value->val.string.val, word, strlen(word)) == 0;
}

static int
chosen_word(const EvaluateOption *option, const JsonbValue *value)
{
	for (int i = 0; i < 2; i++)
		if (is_word(value, option->choices[i]))
			return i;
	report_value(option);
}

static void
read_metrics(const EvaluateOption *option, JsonbValue *value, EvaluateOptions *options)
{
	JsonbIterator *iterator;
	JsonbValue element;
	JsonbIteratorToken token;
	int n = 0;

	if (value->type != jbvBinary)
		report_value(option);
	memset(options->wants, 0, sizeof(options->wants));
	options->named = true;
	iterator = JsonbIteratorInit(value->val.binary.data);
	if (JsonbIteratorNext(&iterator, &element, true) != WJB_BEGIN_ARRAY)
		report_value(option);
	while ((token = JsonbIteratorNext(&iterator, &element, true)) == WJB_ELEM)
	{
		int metric = 0;

		while (metric < METRICS && !is_word(&element, metric_kinds[metric].name))
			metric++;
		if (metric == METRICS)
			report_value(option);
		options->wants[metric] = true;
		n++;
	}
	if (n == 0)
		report_value(option);
}

static void
read_option(const EvaluateOption *option, JsonbValue *value, EvaluateOptions *options)
{
	void *field = (char *) options + option->field;

	switch (option->kind)
	{
		case OPTION_INT:
			*(int *) field = (int) integer_of(option, value);
			break;
		case OPTION_LONG:
			*(int64 *) field = integer_of(option, value);
			break;
		case OPTION_BOOL:
			if (value->type != jbvBool)
				report_value(option);
			*(bool *) field = value->val.boolean;
			break;
		case OPTION_CHOICE:
			*(const char **) field = option->choices[chosen_word(option, value)];
			break;
		case OPTION_SWITCH:
			*(bool *) field = chosen_word(option, value) == 1;
			break;
		case OPTION_METRICS:
			read_metrics(option, value, options);
			break;
	}
}

static void
set_defaults(EvaluateOptions *options)
{
	memset(options, 0, sizeof(*options));
	memset(options->wants, true, sizeof(options->wants));
	for (size_t i = 0; i < lengthof(table); i++)
	{
		void *field = (char *) options + table[i].field;

		if (table[i].kind == OPTION_INT)
			*(int *) field = (int) table[i].standard;
		else if (table[i].kind == OPTION_CHOICE)
			*(const char **) field = table[i].choices[0];
	}
}

void
evaluate_options_read(FunctionCallInfo fcinfo, int argument, EvaluateOptions *options)
{
	Jsonb *given;
	JsonbIterator *iterator;
	JsonbValue key, value;

	set_defaults(options);
	if (PG_ARGISNULL(argument))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("options of an evaluation must not be null"),
						errhint("Leave them out, or pass '{}', for all defaults.")));
	given = PG_GETARG_JSONB_P(argument);
	if (!JB_ROOT_IS_OBJECT(given))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("options of an evaluation must be a JSON object")));
	iterator = JsonbIteratorInit(&given->root);
	(void) JsonbIteratorNext(&iterator, &key, true);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		size_t i = 0;

		(void) JsonbIteratorNext(&iterator, &value, true);
		while (i < lengthof(table) && !is_word(&key, table[i].name))
			i++;
		if (i == lengthof(table))
			report_unknown(pnstrdup(key.val.string.val, key.val.string.len));
		read_option(&table[i], &value, options);
	}
	if (options->samples > bicycle_max_samples)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("too many samples"),
						errdetail("%d of each input were asked for; the limit is %d.",
								  options->samples, bicycle_max_samples),
						errhint("See the setting \"bicycle.max_samples\".")));
}
