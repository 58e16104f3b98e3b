/*
 * report_options.c
 *	  Options of bicycle_report: one table, from which they are read, checked
 *	  and named.
 */
#include "pg/report.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

typedef enum ReportOptionKind
{
	REPORT_INT,
	REPORT_LONG,
	REPORT_TEXT,
	REPORT_EVALUATION /* whether; or an object, and with what */
} ReportOptionKind;

typedef struct ReportOption
{
	const char *name;
	ReportOptionKind kind;
	size_t field;
	int64 least, most, standard;
} ReportOption;

#define REPORT_NUMBER(name, least, most, standard)                              \
	{                                                                           \
#name, REPORT_INT, offsetof(ReportOptions, name), least, most, standard \
	}

/*
 * The evaluation of a page is to take no longer than its pictures, or little.
 */
#define EVALUATION "{\"inputs\": 20, \"samples\": 5}"

static const ReportOption report_table[] = {
	{ "title", REPORT_TEXT, offsetof(ReportOptions, title) },
	REPORT_NUMBER(rows, 1, 1000, 8),
	REPORT_NUMBER(samples, 1, 100, 5),
	{ "seed", REPORT_LONG, offsetof(ReportOptions, seed), PG_INT64_MIN, PG_INT64_MAX, 1 },
	REPORT_NUMBER(version, 1, INT_MAX, 0),
	{ "job", REPORT_LONG, offsetof(ReportOptions, job), 1, PG_INT64_MAX, 0 },
	REPORT_NUMBER(steps, 0, 100, 8),
	REPORT_NUMBER(sweep, 0, 100, 7),
	REPORT_NUMBER(previews, 0, 100, 4),
	{ "evaluation", REPORT_EVALUATION },
};

pg_noreturn static void
report_option_value(const ReportOption *option)
{
	const char *must = NULL;

	switch (option->kind)
	{
		case REPORT_INT:
		case REPORT_LONG:
			must = psprintf("It must be an integer from " INT64_FORMAT " to " INT64_FORMAT ".",
							option->least, option->most);
			break;
		case REPORT_TEXT:
			must = "It must be a string.";
			break;
		case REPORT_EVALUATION:
			must = "It must be true, false, or an object of options of bicycle_evaluate.";
			break;
	}
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("invalid value for option \"%s\" of a report", option->name),
					errdetail_internal("%s", must)));
}

static const ReportOption *
find_report_option(const JsonbValue *key)
{
	StringInfoData names;

	initStringInfo(&names);
	for (size_t i = 0; i < lengthof(report_table); i++)
	{
		const char *name = report_table[i].name;

		if (key->val.string.len == (int) strlen(name) &&
			memcmp(key->val.string.val, name, strlen(name)) == 0)
			return &report_table[i];
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", name);
	}
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("unrecognized option \"%.*s\" of a report", key->val.string.len,
						   key->val.string.val),
					errhint("Options are: %s.", names.data)));
}

static int64
report_integer(const ReportOption *option, const JsonbValue *value)
{
	Datum number, least, most;

	if (value->type != jbvNumeric)
		report_option_value(option);
	number = NumericGetDatum(value->val.numeric);
	least = NumericGetDatum(int64_to_numeric(option->least));
	most = NumericGetDatum(int64_to_numeric(option->most));
	if (DatumGetBool(DirectFunctionCall2(
			numeric_ne, number, DirectFunctionCall2(numeric_trunc, number, Int32GetDatum(0)))) ||
		DatumGetBool(DirectFunctionCall2(numeric_lt, number, least)) ||
		DatumGetBool(DirectFunctionCall2(numeric_gt, number, most)))
		report_option_value(option);
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, number));
}

static void
read_evaluation(const ReportOption *option, JsonbValue *value, ReportOptions *options)
{
	Jsonb *given;

	if (value->type == jbvBool)
	{
		options->evaluates = value->val.boolean;
		return;
	}
	if (value->type != jbvBinary)
		report_option_value(option);
	given = JsonbValueToJsonb(value);
	if (!JB_ROOT_IS_OBJECT(given))
		report_option_value(option);
	options->evaluates = true;
	options->evaluation = JsonbToCString(NULL, &given->root, VARSIZE(given));
}

static void
read_report_option(const ReportOption *option, JsonbValue *value, ReportOptions *options)
{
	void *field = (char *) options + option->field;

	switch (option->kind)
	{
		case REPORT_INT:
			*(int *) field = (int) report_integer(option, value);
			break;
		case REPORT_LONG:
			*(int64 *) field = report_integer(option, value);
			break;
		case REPORT_TEXT:
			if (value->type != jbvString)
				report_option_value(option);
			*(const char **) field = pnstrdup(value->val.string.val, value->val.string.len);
			break;
		case REPORT_EVALUATION:
			read_evaluation(option, value, options);
			break;
	}
}

void
report_options(FunctionCallInfo fcinfo, int argument, ReportOptions *options)
{
	JsonbIterator *iterator;
	JsonbValue key, value;
	Jsonb *given;

	*options = (ReportOptions){ .evaluates = true, .evaluation = EVALUATION };
	for (size_t i = 0; i < lengthof(report_table); i++)
	{
		void *field = (char *) options + report_table[i].field;

		if (report_table[i].kind == REPORT_INT)
			*(int *) field = (int) report_table[i].standard;
		else if (report_table[i].kind == REPORT_LONG)
			*(int64 *) field = report_table[i].standard;
	}
	if (PG_ARGISNULL(argument))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("options of a report must not be null"),
						errhint("Leave them out, or pass '{}', for all defaults.")));
	given = PG_GETARG_JSONB_P(argument);
	if (!JB_ROOT_IS_OBJECT(given))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("options of a report must be a JSON object")));
	iterator = JsonbIteratorInit(&given->root);
	(void) JsonbIteratorNext(&iterator, &key, false);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&iterator, &value, true);
		read_report_option(find_report_option(&key), &value, options);
	}
}
