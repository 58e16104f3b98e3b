/*
 * TRAIN_CHECK gives the options of a training job in full, and refuses those
 * that are wrong or do not suit the weights there are.
 */
#include "engine_client.h"

static EngineProcess engine;

/* Sends config and options, and receives the answer. */
static bool
check(Client *client, uint64_t id, const char *config, const char *options)
{
	BicycleTrainCheck head = { .config_length = strlen(config), .options_length = strlen(options) };
	char body[4096];

	memcpy(body, &head, sizeof(head));
	memcpy(body + sizeof(head), config, head.config_length);
	memcpy(body + sizeof(head) + head.config_length, options, head.options_length);
	client_send(client, BICYCLE_TRAIN_CHECK, id, body,
				sizeof(head) + head.config_length + head.options_length);
	return client_receive(client) && client->frame.type == BICYCLE_RESULT && client->frame.id == id;
}

static bool
answer_has(const Client *client, const char *text)
{
	return memmem(client->body, client->frame.length, text, strlen(text)) != NULL;
}

int
main(void)
{
	static const char *const wrong[] = { "{\"nonsense\":1}",
										 "{\"size\":\"large\"}",
										 "{\"batch_size\":3}",
										 "{\"method\":\"pix2pix\"}",
										 "{\"lambda_l1\":-1}",
										 "{\"epochs\":0,\"epochs_decay\":0}",
										 "[]",
										 "{" };
	const char *config = "{\"size\":64,\"levels\":6,\"ngf\":4,\"nef\":4,\"nz\":8,\"net_e\":"
						 "\"resnet\",\"encoder_size\":64}";
	const char *settings[] = { "device ref", "threads 1", NULL };
	BicycleTrainCheck head = { .config_length = 5 };
	Client client;
	static char large[64 * 1024 + sizeof(BicycleTrainCheck)];

	engine_start(&engine, settings);
	client_hello(&client, &engine, 1);
	ok(check(&client, 1, "{}", "{}") && answer_has(&client, "\"size\":256") &&
		   answer_has(&client, "\"lambda_z\":0.5,") && answer_has(&client, "\"epochs\":100,"),
	   "no options are the defaults");
	ok(check(&client, 2, "{}", "{\"method\":\"cvae_gan\",\"size\":64}") &&
		   answer_has(&client, "\"lambda_z\":0,") && answer_has(&client, "\"load_size\":72") &&
		   answer_has(&client, "\"encoder_size\":64"),
	   "what is left out follows from what is given");
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		ok(!check(&client, 10 + i, "{}", wrong[i]) && client_is_error(&client, "22023"),
		   "%s is 22023", wrong[i]);
	ok(check(&client, 30, config, "{\"lr\":0.001}") && answer_has(&client, "\"ngf\":4,") &&
		   answer_has(&client, "\"lr\":0.001"),
	   "a version's configuration goes below the options");
	ok(!check(&client, 31, config, "{\"ngf\":8}") && client_is_error(&client, "22023") &&
		   answer_has(&client, "it is 4"),
	   "its weights cannot change shape");
	ok(check(&client, 32, config, "{\"ngf\":4,\"ndf\":8}") && answer_has(&client, "\"ndf\":8"),
	   "what agrees, or shapes no weights, may be said");
	ok(check(&client, 33, "{\"size\":64,\"net_e\":\"none\",\"encoder_size\":0}",
			 "{\"net_e\":\"conv\",\"encoder_size\":64}") &&
		   answer_has(&client, "\"net_e\":\"conv\""),
	   "a model without encoder may get one");
	ok(check(&client, 34, "{\"size\":64,\"net_e\":\"none\",\"encoder_size\":0,\"nef\":64}",
			 "{\"nef\":4}") &&
		   answer_has(&client, "\"net_e\":\"resnet\"") &&
		   answer_has(&client, "\"encoder_size\":64") && answer_has(&client, "\"nef\":4"),
	   "and gets the usual one if its method needs one");
	ok(check(&client, 35, "{\"size\":64,\"net_e\":\"none\",\"encoder_size\":0}",
			 "{\"method\":\"pix2pix_noise\"}") &&
		   answer_has(&client, "\"net_e\":\"none\""),
	   "but not otherwise");
	ok(check(&client, 36,
			 "{\"size\":64,\"net_e\":\"none\",\"encoder_size\":0,\"conditional_d\":false}",
			 "{\"method\":\"pix2pix_noise\"}") &&
		   answer_has(&client, "\"conditional_d\":true"),
	   "discriminators that are not there yet are those of the method");
	ok(check(&client, 37, "{\"method\":\"bicycle\",\"ndf\":4,\"conditional_d\":false}",
			 "{\"ndf\":4}") &&
		   answer_has(&client, "\"conditional_d\":false"),
	   "those that were trained stay as they are");
	ok(!check(&client, 38, "{\"method\":\"bicycle\",\"ndf\":4}", "{\"ndf\":8}") &&
		   client_is_error(&client, "22023") && answer_has(&client, "it is 4"),
	   "and cannot change shape");
	client_send(&client, BICYCLE_TRAIN_CHECK, 40, &head, sizeof(head));
	ok(client_expect_error(&client, 0, "08P01") && !client_receive(&client),
	   "lengths that do not add up end the connection");
	client_close(&client);

	client_hello(&client, &engine, 1);
	for (size_t at = 0; at < sizeof(large); at++)
		large[at] = ' ';
	memcpy(large,
		   &(BicycleTrainCheck){ .config_length = 2,
								 .options_length = sizeof(large) - sizeof(BicycleTrainCheck) - 2 },
		   sizeof(BicycleTrainCheck));
	memcpy(large + sizeof(BicycleTrainCheck), "{}{}", 4);
	client_send(&client, BICYCLE_TRAIN_CHECK, 41, large, 8 * 1024);
	ok(client_expect_error(&client, 0, "08P01"), "so do lengths that are not those of the frame");
	client_close(&client);
	client_hello(&client, &engine, 1);
	client_send(&client, BICYCLE_TRAIN_CHECK, 42, large, sizeof(large));
	ok(client_expect_error(&client, 0, "08P01"),
	   "and options longer than the engine takes: it says so before it closes");
	client_close(&client);
	ok(engine_end(&engine), "the engine ends clean");
	return done_testing();
}
