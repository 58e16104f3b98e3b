/*
 * config_fixture.h
 *	  What the tests of model options share: the last error and what it says.
 */
#ifndef BICYCLE_CONFIG_FIXTURE_H
#define BICYCLE_CONFIG_FIXTURE_H

#include "nn/config.h"
#include "tap.h"

static NnError error;

/* Whether the last error's three texts hold these pieces. */
static bool
error_is(NnStatus status, const char *message, const char *detail, const char *hint)
{
	bool good = status == NN_EINVAL && strstr(error.message, message) &&
				strstr(error.detail, detail) && strstr(error.hint, hint);

	if (!good)
		diag("status %d, message \"%s\", detail \"%s\", hint \"%s\"", status, error.message,
			 error.detail, error.hint);
	return good;
}

static bool
succeeds(NnStatus status)
{
	if (status != NN_OK)
		diag("%s: %s %s", error.message, error.detail, error.hint);
	return status == NN_OK;
}

__attribute__((unused)) static NnStatus
parse(NnConfig *config, const char *json)
{
	memset(&error, 0, sizeof(error));
	return nn_config_parse(config, json, strlen(json), &error);
}

__attribute__((unused)) static bool
prints(const NnConfig *config, const char *expected)
{
	char *text = nn_config_print(config);
	bool same = strcmp(text, expected) == 0;

	if (!same)
		diag("%s", text);
	free(text);
	return same;
}

#endif /* BICYCLE_CONFIG_FIXTURE_H */
