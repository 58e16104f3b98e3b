/*
 * fuzz_options.c
 *	  Options as JSON: of a model, of a new one, and of a training job. What is
 *	  accepted obeys the table, and what is printed of it is read as the same.
 */
#include "fuzz.h"
#include "nn/nn.h"
#include "nn/fit.h"

static void
demand_nn_error(const NnError *error)
{
	DEMAND(error->code == NN_EINVAL || error->code == NN_EUNSUPPORTED);
	DEMAND(error->message[0] != '\0');
}

static void
model_options(const char *json, size_t length)
{
	NnConfig config, again;
	NnError error = { 0 };
	char *text, *same;

	nn_config_default(&config);
	if (nn_config_parse(&config, json, length, &error) != NN_OK ||
		nn_config_check(&config, &error) != NN_OK)
	{
		demand_nn_error(&error);
		return;
	}
	text = nn_config_print(&config);
	nn_config_default(&again);
	DEMAND(nn_config_parse(&again, text, strlen(text), &error) == NN_OK);
	same = nn_config_print(&again);
	DEMAND(strcmp(text, same) == 0);
	free(text);
	free(same);
}

static void
training_options(const char *json, size_t length)
{
	NnConfig config, config_again;
	NnTrainOptions options, options_again;
	NnError error = { 0 };
	char *text, *same;

	if (nn_train_options_parse(&config, &options, json, length, &error) != NN_OK)
	{
		demand_nn_error(&error);
		return;
	}
	text = nn_train_options_print(&config, &options);
	DEMAND(nn_train_options_parse(&config_again, &options_again, text, strlen(text), &error) ==
		   NN_OK);
	same = nn_train_options_print(&config_again, &options_again);
	DEMAND(strcmp(text, same) == 0);
	free(text);
	free(same);
}

/* What bicycle_create takes. */
static void
creation_options(const char *json, size_t length)
{
	NnConfig config;
	NnTrainOptions options;
	NnError error = { 0 };

	if (nn_create_options_parse(&config, &options, json, length, &error) != NN_OK)
		demand_nn_error(&error);
	else
		DEMAND(nn_config_check(&config, &error) == NN_OK && options.init_gain >= 0 &&
			   options.seed <= 1ull << 53);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	model_options((const char *) bytes, length);
	training_options((const char *) bytes, length);
	creation_options((const char *) bytes, length);
	return 0;
}
