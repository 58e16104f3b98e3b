/*
 * options_check.c
 *	  TRAIN_CHECK: options of a training job, checked before the job exists.
 *
 * I/O thread only; parsing a few kilobytes of JSON takes microseconds. Nothing
 * is kept.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "nn/config.h"

/* Only then is the method known and are there discriminators. */
static bool
was_trained(const json_t *config)
{
	return json_object_get(config, nn_options[NN_OPT_METHOD].name) != NULL;
}

/*
 * What the version says of networks that it does not have is not held against
 * what the method wants. Without an encoder it may get one, as a new model
 * does, or go on without. That its discriminators will be unconditional, which
 * is usual, need not be anybody's wish.
 */
static void
forget_what_is_missing(json_t *config)
{
	const char *encoder = json_string_value(json_object_get(config, nn_options[NN_OPT_NET_E].name));
	bool no_encoder = encoder != NULL && strcmp(encoder, "none") == 0;

	for (int id = 0; id < NN_OPTIONS; id++)
		if (no_encoder && strcmp(nn_options[id].part, "E") == 0)
			(void) json_object_del(config, nn_options[id].name);
	if (!was_trained(config) &&
		json_is_false(json_object_get(config, nn_options[NN_OPT_CONDITIONAL_D].name)))
		(void) json_object_del(config, nn_options[NN_OPT_CONDITIONAL_D].name);
}

static bool
may_differ(NnOptionId id, const json_t *config)
{
	return id == NN_OPT_PRECISION ||
		   (strcmp(nn_options[id].part, "D") == 0 && !was_trained(config));
}

/* What shapes weights cannot be changed once there are any. */
static bool
check_shape(const json_t *config, const json_t *options, EngineError *error)
{
	for (int id = 0; id < NN_OPTIONS; id++)
	{
		const json_t *has = json_object_get(config, nn_options[id].name);
		const json_t *wanted = json_object_get(options, nn_options[id].name);
		char *text;

		if (has == NULL || wanted == NULL || json_equal(has, wanted) || may_differ(id, config))
			continue;
		text = json_dumps(has, JSON_ENCODE_ANY);
		error_set(error, "22023", "option \"%s\" does not suit the model", nn_options[id].name);
		error_detail(error, "In the version that training would continue it is %s.",
					 text != NULL ? text : "another");
		error_hint(error, "Leave the option out, or train under the name of a new model.");
		free(text);
		return false;
	}
	return true;
}

/* Options over the configuration; malloc'ed, or NULL with *error set. */
static char *
merge(const char *config_text, size_t config_length, const char *options_text,
	  size_t options_length, EngineError *error)
{
	NnError nn_error = { 0 };
	json_t *config = NULL, *options = NULL;
	char *merged = NULL;

	if (nn_options_load(config_text, config_length, "model", &config, &nn_error) != NN_OK ||
		nn_options_load(options_text, options_length, "training", &options, &nn_error) != NN_OK)
		error_from_nn(error, &nn_error);
	else
	{
		forget_what_is_missing(config);
		if (check_shape(config, options, error))
		{
			if (json_object_update(config, options) == 0)
				merged = json_dumps(config, JSON_COMPACT);
			if (merged == NULL)
				error_memory(error, "training options");
		}
	}
	json_decref(config);
	json_decref(options);
	return merged;
}

void
options_check(Connection *connection, const BicycleFrame *frame, const uint8_t *body)
{
	const char *text = (const char *) body + sizeof(BicycleTrainCheck);
	BicycleTrainCheck check;
	NnConfig config;
	NnTrainOptions options;
	NnError nn_error = { 0 };
	EngineError error;
	char *merged;
	char *canonical = NULL;

	INVARIANT(frame->length >= sizeof(check));
	memcpy(&check, body, sizeof(check));
	if ((uint64_t) check.config_length + check.options_length != frame->length - sizeof(check))
	{
		connection_protocol_error(connection, frame->id,
								  "The parts of options to check do not make up the whole.");
		return;
	}
	merged =
		merge(text, check.config_length, text + check.config_length, check.options_length, &error);
	if (merged != NULL)
	{
		if (nn_train_options_parse(&config, &options, merged, strlen(merged), &nn_error) != NN_OK)
			error_from_nn(&error, &nn_error);
		else if ((canonical = nn_train_options_print(&config, &options)) == NULL)
			error_memory(&error, "training options");
	}
	if (canonical != NULL)
		connection_send(connection, BICYCLE_RESULT, frame->id, canonical, strlen(canonical), true,
						NULL);
	else
		connection_send_error(connection, frame->id, &error, NULL);
	free(canonical);
	free(merged);
}
