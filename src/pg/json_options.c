/*
 * json_options.c
 *	  Reading, checking and naming the options of a function by its table.
 *
 * What is read lies in CurrentMemoryContext.
 */
#include "pg/json_options.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "pg/pg_compat.h"

static const char *
must_be(const JsonOption *option)
{
	switch (option->kind)
	{
		case JSON_INT:
		case JSON_LONG:
			return psprintf("It must be an integer from " INT64_FORMAT " to " INT64_FORMAT ".",
							option->least, option->most);
		case JSON_BOOL:
			return "It must be true or false.";
		case JSON_TEXT:
			return "It must be a string.";
		case JSON_WORD:
		case JSON_SWITCH:
			return psprintf("It must be one of %s, %s.", option->words[0], option->words[1]);
		case JSON_OWN:
			break;
	}
	return option->must();
}

pg_noreturn static void
report_option_value(const JsonOptions *known, const JsonOption *option)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("invalid value for option \"%s\" of %s", option->name, known->of),
					errdetail_internal("%s", must_be(option))));
}

bool
json_is_word(const JsonbValue *value, const char *word)
{
	return value->type == jbvString && value->val.string.len == (int) strlen(word) &&
		   memcmp(value->val.string.val, word, strlen(word)) == 0;
}

static const JsonOption *
find_json_option(const JsonOptions *known, const JsonbValue *key)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < known->n; i++)
	{
		if (json_is_word(key, known->table[i].name))
			return &known->table[i];
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", known->table[i].name);
	}
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("unrecognized option \"%.*s\" of %s", key->val.string.len,
						   key->val.string.val, known->of),
					errhint("Options are: %s.", names.data)));
}

/* False: it is no whole number within the option's limits. */
static bool
read_integer(const JsonOption *option, const JsonbValue *value, int64 *integer)
{
	Datum number, least, most;

	if (value->type != jbvNumeric)
		return false;
	number = NumericGetDatum(value->val.numeric);
	least = NumericGetDatum(int64_to_numeric(option->least));
	most = NumericGetDatum(int64_to_numeric(option->most));
	if (DatumGetBool(DirectFunctionCall2(
			numeric_ne, number, DirectFunctionCall2(numeric_trunc, number, Int32GetDatum(0)))) ||
		DatumGetBool(DirectFunctionCall2(numeric_lt, number, least)) ||
		DatumGetBool(DirectFunctionCall2(numeric_gt, number, most)))
		return false;
	*integer = DatumGetInt64(DirectFunctionCall1(numeric_int8, number));
	return true;
}

/* Which of the option's words it is; -1: none. */
static int
find_word(const JsonOption *option, const JsonbValue *value)
{
	for (int i = 0; i < lengthof(option->words); i++)
		if (json_is_word(value, option->words[i]))
			return i;
	return -1;
}

/* False: it is no value of the option's kind. */
static bool
read_json_option(const JsonOption *option, JsonbValue *value, void *options)
{
	void *field = (char *) options + option->field;
	int64 integer = 0;
	int word;

	switch (option->kind)
	{
		case JSON_INT:
		case JSON_LONG:
			if (!read_integer(option, value, &integer))
				return false;
			if (option->kind == JSON_INT)
				*(int *) field = (int) integer;
			else
				*(int64 *) field = integer;
			return true;
		case JSON_BOOL:
			if (value->type != jbvBool)
				return false;
			*(bool *) field = value->val.boolean;
			return true;
		case JSON_TEXT:
			if (value->type != jbvString)
				return false;
			*(char **) field = pnstrdup(value->val.string.val, value->val.string.len);
			return true;
		case JSON_WORD:
		case JSON_SWITCH:
			if ((word = find_word(option, value)) < 0)
				return false;
			if (option->kind == JSON_WORD)
				*(const char **) field = option->words[word];
			else
				*(bool *) field = word == 1;
			return true;
		case JSON_OWN:
			break;
	}
	return option->read(value, options);
}

static void
set_json_default(const JsonOption *option, void *options)
{
	void *field = (char *) options + option->field;

	if (option->kind == JSON_INT)
		*(int *) field = (int) option->standard;
	else if (option->kind == JSON_LONG)
		*(int64 *) field = option->standard;
	else if (option->kind == JSON_WORD)
		*(const char **) field = option->words[0];
}

void
json_options_read(FunctionCallInfo fcinfo, int argument, const JsonOptions *known, void *options)
{
	JsonbIterator *iterator;
	JsonbValue key, value;
	Jsonb *given;

	for (int i = 0; i < known->n; i++)
		set_json_default(&known->table[i], options);
	if (PG_ARGISNULL(argument))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("options of %s must not be null", known->of),
						errhint("Leave them out, or pass '{}', for all defaults.")));
	given = PG_GETARG_JSONB_P(argument);
	if (!JB_ROOT_IS_OBJECT(given))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("options of %s must be a JSON object", known->of)));
	iterator = JsonbIteratorInit(&given->root);
	(void) JsonbIteratorNext(&iterator, &key, false);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		const JsonOption *option = find_json_option(known, &key);

		(void) JsonbIteratorNext(&iterator, &value, true);
		if (!read_json_option(option, &value, options))
			report_option_value(known, option);
	}
}
