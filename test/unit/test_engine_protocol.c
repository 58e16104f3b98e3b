/*
 * The engine keeps to its protocol, and ends connections that do not: hello,
 * frames, places, cancelling, closing, the control lines.
 */
#include "engine_client.h"

#include <sys/resource.h>

static EngineProcess engine;

/* A gray PNG of test/data. */
static uint8_t *png;
static size_t png_length;

/*
 * Hellos that differ in one thing from what is right are refused, with a hint
 * where a user can do something.
 */
static void
test_hello(void)
{
	BicycleHello good = { .magic = BICYCLE_MAGIC,
						  .protocol = BICYCLE_PROTOCOL,
						  .build = BICYCLE_VERSION,
						  .database = 1 };
	BicycleHello hello;
	Client client;

	client_hello(&client, &engine, 7);
	memcpy(&hello, client.body, sizeof(hello));
	ok(client.frame.length == sizeof(hello) && hello.pid == engine.pid && hello.database == 7 &&
		   strcmp(hello.build, BICYCLE_VERSION) == 0,
	   "the engine answers a hello with its own");
	client_close(&client);

	hello = good;
	hello.protocol++;
	client_open(&client, &engine);
	client_send(&client, BICYCLE_HELLO, 0, &hello, sizeof(hello));
	ok(client_expect_error(&client, 0, "55000") && !client_receive(&client),
	   "another protocol is refused");
	client_close(&client);

	hello = good;
	strcpy(hello.build, "0.0.9");
	client_open(&client, &engine);
	client_send(&client, BICYCLE_HELLO, 0, &hello, sizeof(hello));
	ok(client_expect_error(&client, 0, "55000") &&
		   strstr((char *) client.body + sizeof(BicycleError), "version") != NULL &&
		   !client_receive(&client),
	   "another build is refused");
	client_close(&client);

	hello = good;
	hello.magic = 1;
	client_open(&client, &engine);
	client_send(&client, BICYCLE_HELLO, 0, &hello, sizeof(hello));
	ok(client_expect_error(&client, 0, "08P01") && !client_receive(&client),
	   "another magic number is refused");
	client_close(&client);

	client_open(&client, &engine);
	client_send(&client, BICYCLE_STATUS, 1, NULL, 0);
	ok(client_expect_error(&client, 0, "08P01") && !client_receive(&client),
	   "a request before the hello is refused");
	client_close(&client);
}

/*
 * One wrong frame after the hello: the client is told, and the connection ends.
 */
static void
test_violation(const char *what, uint32_t type, uint64_t id, size_t length)
{
	static uint8_t zeros[2 * BICYCLE_MAX_FRAME];
	Client client;

	client_hello(&client, &engine, 1);
	client_send(&client, type, id, zeros, length);
	ok(client_expect_error(&client, 0, "08P01") && !client_receive(&client),
	   "%s is a protocol error", what);
	client_close(&client);
}

static void
test_violations(void)
{
	Client client;
	uint8_t zeros[4096] = { 0 };
	BicycleImageRequest request = { .nz = 3 };
	const BicycleImageRequest wrong[] = { { .precision = UINT32_MAX },
										  { .output_format = BICYCLE_OUTPUT_WEBP_LOSSLESS + 1 },
										  { .jpeg_quality = 101 },
										  { .fit = BICYCLE_FIT_INPUT + 1 },
										  { .png_level = BICYCLE_PNG_LEVEL_MOST + 1 },
										  { .flags = 1u << 31 } };

	test_violation("an unknown type", 99, 1, 0);
	test_violation("an engine's frame", BICYCLE_RESULT, 1, 0);
	test_violation("a second hello", BICYCLE_HELLO, 0, sizeof(BicycleHello));
	test_violation("a place of no bytes", BICYCLE_RESERVE, 1, sizeof(BicycleReserve));
	test_violation("a short frame", BICYCLE_RESERVE, 1, sizeof(BicycleReserve) - 1);
	test_violation("a long frame", BICYCLE_RESERVE, 1, sizeof(BicycleReserve) + 1);
	test_violation("a request that was not granted", BICYCLE_TRANSLATE, 1,
				   sizeof(BicycleImageRequest));
	test_violation("data that was not granted", BICYCLE_DATA, 1, 10);
	test_violation("an end of no stream", BICYCLE_END, 1, 0);
	test_violation("a model header without a stream", BICYCLE_LOAD, 1, sizeof(BicycleLoad));
	test_violation("an import without a file", BICYCLE_IMPORT, 1, sizeof(BicycleImport));
	test_violation("an inspection without a file", BICYCLE_INSPECT, 1, sizeof(BicycleImport));
	test_violation("an export without tensors", BICYCLE_EXPORT, 1, sizeof(BicycleExport));
	test_violation("an error that is none", BICYCLE_NO_MODEL, 1, sizeof(BicycleError));
	test_violation("a configuration without end", BICYCLE_CREATE, 1, BICYCLE_MAX_FRAME);

	client_hello(&client, &engine, 1);
	client_reserve(&client, 0, 1000);
	ok(client_expect_error(&client, 0, "08P01") && !client_receive(&client),
	   "the id 0 is a protocol error");
	client_close(&client);

	client_hello(&client, &engine, 1);
	client_place(&client, 5, 1000);
	client_reserve(&client, 5, 1000);
	ok(client_expect_error(&client, 5, "08P01") && !client_receive(&client),
	   "an id twice is a protocol error");
	client_close(&client);

	client_hello(&client, &engine, 1);
	client_place(&client, 5, 1000);
	client_send(&client, BICYCLE_INFO, 5, zeros, 999);
	ok(client_expect_error(&client, 5, "08P01") && !client_receive(&client),
	   "a request of another length than granted is a protocol error");
	client_close(&client);

	client_hello(&client, &engine, 1);
	client_place(&client, 5, sizeof(request));
	client_send(&client, BICYCLE_TRANSLATE, 5, &request, sizeof(request));
	ok(client_expect_error(&client, 5, "08P01") && !client_receive(&client),
	   "a request whose parts do not fit its length is a protocol error");
	client_close(&client);

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
	{
		client_hello(&client, &engine, 1);
		client_place(&client, 5, sizeof(wrong[i]));
		client_send(&client, BICYCLE_TRANSLATE, 5, &wrong[i], sizeof(wrong[i]));
		ok(client_expect_error(&client, 5, "08P01") && !client_receive(&client),
		   "a request that asks for what there is not is a protocol error (%zu)", i);
		client_close(&client);
	}

	client_hello(&client, &engine, 1);
	for (uint64_t id = 1; id <= 3; id++)
		client_place(&client, id, 1000);
	client_send(&client, 99, 77, NULL, 0);
	ok(client_expect_error(&client, 77, "08P01") && !client_receive(&client),
	   "a protocol error ends a connection that holds places");
	client_close(&client);
}

/*
 * The header of an image tells what it is; an image that is none is an ordinary
 * error.
 */
static void
test_info(void)
{
	Client client;
	BicycleImageInfo info = { 0 };
	ImageCall call = { .type = BICYCLE_INFO, .image = png, .length = png_length };

	client_hello(&client, &engine, 1);
	ok(client_run(&client, 1, &call, NULL) && client.frame.length == sizeof(info),
	   "an image is described");
	memcpy(&info, client.body, client.frame.length == sizeof(info) ? sizeof(info) : 0);
	ok(strcmp(info.format, "png") == 0 && info.width == 128 && info.height == 128 &&
		   info.channels == 1 && info.bit_depth == 8,
	   "it is a PNG of 128 x 128 gray pixels (%s, %d x %d, %d channels of %d bits)", info.format,
	   info.width, info.height, info.channels, info.bit_depth);
	call.image = (const uint8_t *) "GIF89a, which is another thing";
	call.length = 30;
	ok(!client_run(&client, 1, &call, NULL) && client_is_error(&client, "22P03"),
	   "what is not an image is 22P03");
	call.length = 0;
	ok(!client_run(&client, 1, &call, NULL) && client_is_error(&client, "22P03"),
	   "no bytes are 22P03");
	client_close(&client);
}

/*
 * All pixels of an image are looked at; what is wrong with it is the answer,
 * and a limit is an error.
 */
static void
test_check(void)
{
	Client client;
	ImageCall call = { .type = BICYCLE_CHECK, .image = png, .length = png_length };
	static const char none[] = "could not decode image: ";
	static const char cut[] = "could not decode PNG image: ";

	client_hello(&client, &engine, 1);
	ok(client_run(&client, 1, &call, NULL) && client.frame.length == 0,
	   "nothing is wrong with an image");
	call.length = png_length - 40;
	ok(client_run(&client, 2, &call, NULL) && client.frame.length > strlen(cut) &&
		   memcmp(client.body, cut, strlen(cut)) == 0,
	   "one that lacks its end is told of");
	call.length = 8;
	call.image = (const uint8_t *) "GIF89a, ";
	ok(client_run(&client, 3, &call, NULL) && client.frame.length > strlen(none) &&
		   memcmp(client.body, none, strlen(none)) == 0,
	   "so is what is none");
	call = (ImageCall){
		.type = BICYCLE_CHECK, .image = png, .length = png_length, .max_pixels = 128 * 128 - 1
	};
	ok(!client_run(&client, 4, &call, NULL) && client_is_error(&client, "54000"),
	   "too many pixels are 54000");
	client_close(&client);
}

/*
 * One request too many on a connection is no fault of its image, whose limits
 * are 54000.
 */
static void
test_too_many(void)
{
	enum
	{
		MOST = 4096
	};
	Client client;
	uint64_t refused = 0;

	client_hello(&client, &engine, 1);
	for (uint64_t id = 1; id <= MOST + 1; id++)
		client_reserve(&client, id, sizeof(BicycleImageRequest));
	while (refused == 0 && client_receive(&client))
		if (client.frame.type == BICYCLE_ERROR)
			refused = client.frame.id;
	ok(refused == MOST + 1 && client_is_error(&client, "53400"),
	   "after %d requests one more is 53400", MOST);
	client_close(&client);
}

/*
 * Places are given in order of arrival, as many to a connection as it leaves
 * free, and come back when the reply is read or the client goes.
 */
static void
test_places(void)
{
	const size_t pool = 1 << 20;
	Client a, b, c;
	uint64_t memory;
	ImageCall call = { .type = BICYCLE_INFO, .image = png, .length = png_length };

	client_hello(&a, &engine, 1);
	client_hello(&b, &engine, 1);
	client_hello(&c, &engine, 1);
	memory = client_memory_settles(&c, 0);
	ok(memory == 0, "an idle engine holds nothing (%llu bytes)", (unsigned long long) memory);

	client_reserve(&a, 1, pool + 1);
	ok(client_expect_error(&a, 1, "54000"), "more than the pool is 54000");
	client_reserve(&a, 1, UINT64_MAX);
	ok(client_expect_error(&a, 1, "54000"), "a place of 2^64 - 1 bytes is 54000");

	ok(client_place(&a, 1, pool / 4) && client_place(&a, 2, pool / 5), "a connection gets places");
	client_reserve(&a, 3, pool / 4);
	ok(!client_receive_within(&a, 100), "but not more than half of the pool");
	ok(client_place(&b, 1, pool / 3), "another connection passes it");
	client_reserve(&c, 1, pool / 3);
	ok(!client_receive_within(&c, 100), "and has to wait when the pool is exhausted");
	client_reserve(&c, 2, 100);
	ok(!client_receive_within(&c, 100),
	   "a small request does not pass a large one that waits longer");

	client_send(&a, BICYCLE_CANCEL, 1, NULL, 0);
	ok(client_receive(&a) && a.frame.type == BICYCLE_CANCELLED && a.frame.id == 1,
	   "who gives a place back is told");
	ok(client_receive(&c) && c.frame.type == BICYCLE_GRANT && c.frame.id == 1,
	   "it goes to the one who has none");
	ok(!client_receive_within(&a, 100) && !client_receive_within(&c, 100),
	   "and not to those who already hold more than is left");
	client_close(&b);
	ok(client_receive(&c) && c.frame.type == BICYCLE_GRANT && c.frame.id == 2,
	   "the places of a closed connection are free again");
	client_send(&c, BICYCLE_CANCEL, 1, NULL, 0);
	ok(client_receive(&a) && a.frame.type == BICYCLE_GRANT && a.frame.id == 3,
	   "and when there is more than it holds, a connection gets more");
	client_expect(&c, BICYCLE_CANCELLED, 1);
	client_send(&c, BICYCLE_CANCEL, 12345, NULL, 0);
	ok(client_expect(&c, BICYCLE_CANCELLED, 12345), "cancelling what is not there is answered");
	client_close(&a);
	client_send(&c, BICYCLE_CANCEL, 1, NULL, 0);
	client_expect(&c, BICYCLE_CANCELLED, 1);
	client_send(&c, BICYCLE_CANCEL, 2, NULL, 0);
	client_expect(&c, BICYCLE_CANCELLED, 2);

	client_hello(&a, &engine, 1);
	ok(client_place(&a, 9, pool - 4096), "a request of nearly the whole pool gets it");
	client_reserve(&a, 10, 1000);
	ok(!client_receive_within(&a, 100), "a second one of that connection waits");
	client_close(&a);
	ok(client_memory_settles(&c, 0) == 0, "nothing is held afterwards");

	for (uint64_t id = 1; id <= 200; id++)
		if (!client_run(&c, id, &call, NULL))
			break;
	ok(c.frame.id == 200 && c.frame.type == BICYCLE_RESULT,
	   "200 requests one after the other find their place");
	ok(client_memory_settles(&c, 0) == 0, "and leave nothing");
	client_close(&c);
}

/*
 * Clients that hold places and do nothing, as sessions that pause in the middle
 * of a result, leave room for one that comes later.
 */
static void
test_idle_holders(void)
{
	Client holders[4], late;
	int granted = 0;

	for (int i = 0; i < 4; i++)
	{
		client_hello(&holders[i], &engine, 1);
		for (uint64_t id = 1; id <= 8; id++)
			client_reserve(&holders[i], id, 64 * 1024);
		while (client_receive_within(&holders[i], 100))
			granted += holders[i].frame.type == BICYCLE_GRANT;
	}
	client_hello(&late, &engine, 1);
	client_reserve(&late, 1, 32 * 1024);
	ok(client_receive_within(&late, PATIENCE_MS) && late.frame.type == BICYCLE_GRANT &&
		   granted >= 4,
	   "four clients hold %d places and do nothing: there is room for a fifth", granted);
	client_close(&late);
	for (int i = 0; i < 4; i++)
		client_close(&holders[i]);
}

/*
 * Without descriptors for all, clients wait until others go; the engine says
 * so, once.
 */
static void
test_descriptors(void)
{
	enum
	{
		N = 40
	};
	const char *settings[] = { "device ref", "threads 1", NULL };
	const struct rlimit few = { 20, 20 };
	EngineProcess small;
	BicycleHello hello = { .magic = BICYCLE_MAGIC,
						   .protocol = BICYCLE_PROTOCOL,
						   .build = BICYCLE_VERSION,
						   .database = 1 };
	Client clients[N];
	int greeted = 0, said = 0, later = 0;

	engine_start(&small, settings);
	if (prlimit(small.pid, RLIMIT_NOFILE, &few, NULL) != 0)
		bail_out("cannot limit descriptors: %s", strerror(errno));
	for (int i = 0; i < N; i++)
	{
		client_open(&clients[i], &small);
		client_send(&clients[i], BICYCLE_HELLO, 0, &hello, sizeof(hello));
	}
	usleep(1200000);
	for (int i = 0; i < N; i++)
		greeted += client_receive_within(&clients[i], 0);
	while (engine_says(&small, "log warning could not accept", 300))
		said++;
	ok(greeted > 0 && greeted < N && said == 1,
	   "an engine with descriptors for %d of %d clients says so, once (%d)", greeted, N, said);
	for (int i = 0; i < N; i++)
	{
		if (i >= greeted)
			later += client_receive_within(&clients[i], PATIENCE_MS) &&
					 clients[i].frame.type == BICYCLE_HELLO;
		client_close(&clients[i]);
	}
	ok(later == N - greeted, "%d others are served as those go", later);
	ok(engine_end(&small), "and it ends clean");
}

/*
 * Many requests at once on one connection; each is answered once, whatever the
 * order.
 */
static void
test_window(void)
{
	enum
	{
		N = 600
	};
	Client client;
	ImageCall call = { .type = BICYCLE_INFO, .image = png, .length = png_length };
	size_t length;
	uint8_t *body = image_call_body(&call, &length);
	int answers[N + 1] = { 0 };
	int answered = 0;
	bool once = true;

	client_hello(&client, &engine, 1);
	for (uint64_t id = 1; id <= N; id++)
		client_reserve(&client, id, length);
	while (answered < N && client_receive(&client))
	{
		if (client.frame.type == BICYCLE_GRANT)
			client_send(&client, BICYCLE_INFO, client.frame.id, body, length);
		else if (client.frame.type == BICYCLE_RESULT)
		{
			answers[client.frame.id]++;
			answered++;
		}
	}
	for (int i = 1; i <= N; i++)
		once &= answers[i] == 1;
	ok(once, "%d requests under way at once are answered once each", N);
	free(body);
	client_close(&client);
}

/*
 * A client that asks and never reads is held off, and the engine stays small
 * and serves others.
 */
static void
test_deaf_client(void)
{
	Client deaf, other;
	ImageCall call = { .type = BICYCLE_INFO, .image = png, .length = png_length };
	struct pollfd wait;
	BicycleFrame status = { .type = BICYCLE_STATUS, .id = 1 };
	size_t sent = 0;

	client_hello(&deaf, &engine, 1);
	client_hello(&other, &engine, 1);
	wait = (struct pollfd){ .fd = deaf.fd, .events = POLLOUT };
	while (sent < 64 << 20 && poll(&wait, 1, 300) > 0)
	{
		ssize_t n = send(deaf.fd, &status, sizeof(status), MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < (ssize_t) sizeof(status))
			break;
		sent += (size_t) n;
	}
	ok(sent < 64 << 20,
	   "the engine stops reading from a client that does not read (after %zu bytes)", sent);
	ok(client_run(&other, 1, &call, NULL), "and serves another one meanwhile");
	client_close(&deaf);
	client_close(&other);
}

/* Several engines of one directory have files of their own. */
static void
test_number(void)
{
	static const char *const settings[] = { "device ref", "number 2", "engines 2", NULL };
	EngineProcess other;
	char path[128];

	strcpy(other.directory, engine.directory);
	engine_start_in(&other, settings);
	ok(engine_says(&other, "device 1 0 ", PATIENCE_MS), "another one has a device");
	ok(engine_says(&other, "ready ", PATIENCE_MS), "and starts beside the first");
	snprintf(path, sizeof(path), "%s/bicycle.2.sock", engine.directory);
	ok(access(path, F_OK) == 0, "with a socket of its number");
	engine_tell(&other, "stop");
	ok(engine_wait(&other) == 0 && access(path, F_OK) != 0, "which it takes away");
	close(other.control);
	snprintf(path, sizeof(path), "%s/bicycle.2.lock", engine.directory);
	ok(unlink(path) == 0, "its lock stays");
}

/* The supervisor's lines. */
static void
test_control(void)
{
	EngineProcess second;
	Client client;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *none[] = { "device ref", NULL };
	int status;

	engine_tell(&engine, "ping 42");
	ok(engine_says(&engine, "pong 42", PATIENCE_MS), "a ping is answered");
	engine_tell(&engine, "set max_batch nonsense");
	ok(engine_says(&engine, "log warning setting \"max_batch\"", PATIENCE_MS),
	   "a wrong value is reported");
	engine_tell(&engine, "set nonsense 1");
	ok(engine_says(&engine, "log warning setting \"nonsense\"", PATIENCE_MS),
	   "an unknown setting is reported");

	second = engine;
	engine_start_in(&second, none);
	ok(engine_says(&second, "fatal ", PATIENCE_MS),
	   "a second engine in the same directory does not start");
	status = engine_wait(&second);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 1, "and ends with status 1");
	close(second.control);
	test_number();
	client_hello(&client, &engine, 1);
	ok(client_status(&client).pid == engine.pid, "the first one is still there");
	client_close(&client);

	/*
	 * The supervisor is gone, and what it leaves does not keep the next from
	 * starting.
	 */
	kill(engine.pid, SIGSTOP);
	close(engine.control);
	kill(engine.pid, SIGCONT);
	status = engine_wait(&engine);
	ok(WIFEXITED(status), "without its supervisor the engine ends");
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", engine.directory, BICYCLE_SOCKET);
	ok(access(address.sun_path, F_OK) == 0, "and leaves its socket");
	engine_start_in(&engine, none);
	ok(engine_says(&engine, "ready ", PATIENCE_MS), "which the next one replaces");
	ok(engine_end(&engine), "an idle engine ends clean");
	ok(access(address.sun_path, F_OK) != 0, "and takes its socket away");
}

int
main(void)
{
	const char *settings[] = { "device ref", "queue_memory 1048576", "threads 2", NULL };

	png = testdata_load("edges2emoji/pairs/00_A.png", &png_length);
	engine_start(&engine, settings);
	test_hello();
	test_violations();
	test_info();
	test_check();
	test_too_many();
	test_places();
	test_idle_holders();
	test_descriptors();
	test_window();
	test_deaf_client();
	test_control();
	free(png);
	return done_testing();
}
