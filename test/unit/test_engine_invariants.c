/*
 * What the engine keeps up to date is recounted, and each fault in it is
 * noticed: counters, lists, budgets, steps of a request. A failed invariant in
 * an engine is one line in the log, and its end.
 *
 * The first part has an engine in this process without threads: nothing is
 * computed, so requests stay where they are. Each fault is planted in a child,
 * which must abort.
 */
#include "engine_client.h"

#include "engine/engine.h"

static Engine state;
static Client client;
static Connection *connection;
static Packed *resident, *going;

/* ---- An engine with something of everything ------------------------------ */

static void
pump(void)
{
	source_wait(&state, 0);
	admission_run(&state);
	demand_run(&state);
}

static void
send_image(uint32_t type, uint64_t id, uint32_t nz)
{
	static const float z[8];
	static const uint8_t hash[BICYCLE_HASH_BYTES] = { 1 }, image[100];
	ImageCall call = {
		.type = type, .hash = hash, .image = image, .length = 100, .z = z, .nz = nz
	};
	size_t length;
	uint8_t *body = image_call_body(&call, &length);

	client_reserve(&client, id, length);
	client_send(&client, type, id, body, length);
	free(body);
	pump();
}

static Packed *
made_up(size_t bytes, size_t host)
{
	Packed *packed = calloc(1, sizeof(*packed));

	packed->precision = NN_PRECISION_FP32;
	packed->bytes = packed->least = bytes;
	packed->host = host;
	return packed;
}

static void
build(void)
{
	BicycleHello hello = { .magic = BICYCLE_MAGIC,
						   .protocol = BICYCLE_PROTOCOL,
						   .build = BICYCLE_VERSION,
						   .database = 1 };
	int pair[2];

	if (!engine_init(&state) || !control_open(&state, -1, orders_line) ||
		socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
		bail_out("cannot make an engine");
	state.settings.queue_memory = 65536;
	budget_limits(&state);
	state.device.busy = true; /* nothing that needs it starts or fails */
	state.device_thread.pending = 1;
	connection_accept(&state, pair[0]);
	client.fd = pair[1];
	client_send(&client, BICYCLE_HELLO, 0, &hello, sizeof(hello));
	pump();
	connection = list_member(Connection, link, state.connections.next);
	send_image(BICYCLE_TRANSLATE, 1, 8);
	send_image(BICYCLE_TRANSLATE, 2, 8);
	send_image(BICYCLE_INFO, 3, 0);
	client_reserve(&client, 4, 20000);
	client_reserve(&client, 5, 30000);
	pump();
	resident = made_up(1000, 700);
	cache_put(&state, list_member(CacheEntry, link, state.entries.next), resident);
	going = made_up(500, 300);
	cache_discard(&state, going);
	while (!list_empty(&state.dirty))
		list_remove(state.dirty.next);
}

static Request *
request(uint64_t id)
{
	return request_find(connection, id);
}

static CacheEntry *
entry(void)
{
	return resident->entry;
}

/* ---- Faults -------------------------------------------------------------- */

static void
open_too_many(void)
{
	state.nrequests++;
}
static void
started_too_many(void)
{
	state.nstarted++;
}
static void
ahead_too_many(void)
{
	state.ahead[CLASS_BULK]++;
}
static void
light_too_many(void)
{
	state.light++;
}
static void
connections_too_many(void)
{
	state.nconnections++;
}
static void
state_without_list(void)
{
	request(3)->state = REQUEST_READY;
}
static void
list_without_state(void)
{
	list_remove(&request(1)->link);
}
static void
in_the_wrong_list(void)
{
	list_remove(&request(3)->link);
	list_append(&state.held, &request(3)->link);
}
static void
no_turn(void)
{
	list_remove(&connection->ring[CLASS_LIGHT]);
}
static void
place_lost(void)
{
	connection->place--;
}
static void
request_uncounted(void)
{
	connection->nrequests--;
}
static void
output_uncounted(void)
{
	connection->out_copied++;
}
static void
alone_is_nobody(void)
{
	state.alone = request(1);
}
static void
id_lost(void)
{
	memset(connection->ids, 0, sizeof(connection->ids));
}
static void
asked_too_late(void)
{
	request(3)->asked = true;
}
static void
model_without_state(void)
{
	request(1)->model = resident;
}

static void
entry_kept(void)
{
	entry()->requests++;
}
static void
load_lost(void)
{
	entry()->loads++;
}
static void
packing_lost(void)
{
	entry()->packing++;
}
static void
asked_lost(void)
{
	entry()->asked--;
}
static void
pin_lost(void)
{
	resident->pins++;
}
static void
not_in_its_slot(void)
{
	entry()->packed[0] = NULL;
}
static void
evicted_but_there(void)
{
	resident->evicted = true;
}
static void
never_freed(void)
{
	state.freeing--;
}
static void
not_being_freed(void)
{
	going->freeing = false;
}

static void
queue_lost(void)
{
	state.queue.used--;
}
static void
memory_lost(void)
{
	state.memory.used++;
}
static void
cached_lost(void)
{
	state.cached.used++;
}
static void
charge_uncounted(void)
{
	request(4)->charge = 1;
}
static void
host_uncounted(void)
{
	going->host = 1;
}
static void
pool_lost(void)
{
	state.pool.pending++;
}
static void
loader_lost(void)
{
	state.loader.pending++;
}
static void
device_lost_task(void)
{
	state.device_thread.pending--;
}

static void
nothing(const Engine *engine)
{
}
static void
forbidden_step(void)
{
	request_to(request(1), REQUEST_RUNNING);
}
static void
gives_too_much(void)
{
	budget_give(&state.queue, state.queue.used + 1);
}
static void
in_two_lists(void)
{
	list_append(&state.held, &request(1)->link);
}
static void
next_is_removed(void)
{
	list_foreach(node, &entry()->waiters) list_remove(node->next);
}

static const struct
{
	void (*plant)(void);
	void (*checker)(const Engine *engine);
	const char *what;
} faults[] = {
	{ open_too_many, request_check, "a request too many" },
	{ started_too_many, request_check, "one that never ends" },
	{ ahead_too_many, request_check, "one too many ahead of the device" },
	{ light_too_many, request_check, "a light one too many" },
	{ connections_too_many, request_check, "a connection too many" },
	{ state_without_list, request_check, "a state without its list" },
	{ list_without_state, request_check, "a list without its request" },
	{ in_the_wrong_list, request_check, "a request in the list of another state" },
	{ no_turn, request_check, "a connection that never has its turn" },
	{ place_lost, request_check, "a place that is lost" },
	{ request_uncounted, request_check, "a request its connection does not count" },
	{ output_uncounted, request_check, "output that is not counted" },
	{ alone_is_nobody, request_check, "one that is to run alone and waits for its model" },
	{ id_lost, request_check, "a request that is not found" },
	{ asked_too_late, request_check, "one that is asked for a model and does not wait" },
	{ model_without_state, request_check, "a pin without a start" },
	{ entry_kept, cache_check, "an entry that is never dropped" },
	{ load_lost, cache_check, "a LOAD that is lost" },
	{ packing_lost, cache_check, "one that is never packed" },
	{ asked_lost, cache_check, "somebody who was asked and is not counted" },
	{ pin_lost, cache_check, "a pin that is lost" },
	{ not_in_its_slot, cache_check, "a model its entry does not know" },
	{ evicted_but_there, cache_check, "a model that is evicted and there" },
	{ never_freed, cache_check, "one that goes and is not counted" },
	{ not_being_freed, cache_check, "one without pins that nobody frees" },
	{ queue_lost, budget_check, "bytes of the queue that are lost" },
	{ memory_lost, budget_check, "bytes of memory that are lost" },
	{ cached_lost, budget_check, "bytes of the cache that are lost" },
	{ charge_uncounted, budget_check, "a request that holds what it did not take" },
	{ host_uncounted, budget_check, "a model that has grown unseen" },
	{ pool_lost, budget_check, "a task that the pool has lost" },
	{ loader_lost, budget_check, "one of the loader" },
	{ device_lost_task, budget_check, "one of the device" },
	{ forbidden_step, nothing, "a step that no request may make" },
	{ gives_too_much, nothing, "more given back than was taken" },
	{ in_two_lists, nothing, "a node in two lists" },
	{ next_is_removed, nothing, "a removal of the next while a list is walked" },
};

/* Whether a child that does this aborts because of an invariant. */
static bool
is_noticed(void (*plant)(void), void (*checker)(const Engine *engine))
{
	char text[512] = "";
	int out[2], status;
	pid_t child;

	if (pipe(out) != 0 || (child = fork()) < 0)
		bail_out("cannot start a process");
	if (child == 0)
	{
		dup2(out[1], STDERR_FILENO);
		plant();
		checker(&state);
		_exit(0);
	}
	close(out[1]);
	for (size_t have = 0; have < sizeof(text) - 1;)
	{
		ssize_t n = read(out[0], text + have, sizeof(text) - 1 - have);

		if (n <= 0)
			break;
		have += (size_t) n;
	}
	close(out[0]);
	waitpid(child, &status, 0);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT &&
		   strstr(text, "invariant failed: ") != NULL;
}

/* ---- A full socket ------------------------------------------------------- */

/*
 * STARTED finds the socket full to the byte: nothing is left to be sent, and
 * yet nothing of this client starts until it reads.
 */
static void
test_full(void)
{
	uint8_t bytes[4096];
	bool sent;

	while (connection_send(connection, BICYCLE_RESULT, 9, NULL, 0, true, NULL) &&
		   connection_flush(connection))
		;
	connection_drop_output(connection);
	sent = connection_send_now(connection, BICYCLE_STARTED, 3);
	ok(!sent && connection->jammed && list_empty(&connection->out),
	   "a client whose socket is full is told nothing, and waited for");
	pump();
	ok(connection->jammed, "also in the next turn");
	while (recv(client.fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
	pump();
	ok(!connection->jammed && connection_send_now(connection, BICYCLE_STARTED, 3),
	   "until it has read");
}

/*
 * A client that has broken the protocol while it left much unread: what it
 * still sends is thrown away, or epoll would report it at once in every turn.
 */
static void
test_closing(void)
{
	static const uint8_t bytes[65536];

	while (connection->out_copied < 8 * OUT_HIGH)
		connection_send(connection, BICYCLE_RESULT, 9, bytes, sizeof(bytes), true, NULL);
	connection_protocol_error(connection, 9, "It was a test.");
	client_send(&client, BICYCLE_STATUS, 10, NULL, 0);
	pump();
	ok(connection->closing && connection->out_copied > OUT_HIGH,
	   "a connection is closing with more unread than is read beside");
	ok(recv(connection->source.fd, &(uint8_t){ 0 }, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
		   errno == EAGAIN,
	   "and what comes is thrown away in the turn in which it comes");
}

/* ---- Last words ---------------------------------------------------------- */

/* They are a line of their own even where half of another has been sent. */
static void
test_last_words(void)
{
	static char lines[1 << 20];
	int pair[2], size = 8192, status;
	ssize_t n;
	pid_t child;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0 ||
		setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) != 0 ||
		!control_open(&state, pair[0], orders_line))
		bail_out("cannot make a supervisor");
	for (int i = 0; i < 200; i++)
		control_say(&state, "log log %0900d", i);
	control_flush(&state);
	n = recv(pair[1], lines, sizeof(lines), MSG_DONTWAIT);
	ok(n > 0 && lines[n - 1] != '\n', "the supervisor has half a line");
	if ((child = fork()) == 0)
		control_last_words("that was all");
	waitpid(child, &status, 0);
	n = recv(pair[1], lines, sizeof(lines) - 1, MSG_DONTWAIT);
	lines[n > 0 ? n : 0] = '\0';
	ok(strcmp(lines, "\nlog error that was all\n") == 0, "last words end it and are a line");
}

/* ---- An engine that finds one -------------------------------------------- */

/* Debug 3 of a request is an invariant that fails when it starts. */
static void
test_end(void)
{
	const char *settings[] = { "device ref", "threads 1", "debug 1", NULL };
	static const uint8_t image[100];
	ImageCall call = { .type = BICYCLE_INFO, .image = image, .length = 100, .debug = 3 };
	EngineProcess engine = { 0 };
	Client asking;
	int status;

	engine_start(&engine, settings);
	client_hello(&asking, &engine, 1);
	client_call(&asking, 1, &call);
#ifdef BICYCLE_CHECKS
	status = engine_wait(&engine);
	ok(WIFSIGNALED(status) || WEXITSTATUS(status) != 0, "an engine with checks aborts");
#else
	ok(engine_says(&engine, "log error the engine ends: invariant failed at ", PATIENCE_MS),
	   "a failed invariant is a line in the log");
	ok(!engine_says(&engine, "log error", PATIENCE_MS / 30), "of which there is one");
	status = engine_wait(&engine);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 1, "and the engine has ended with status 1");
#endif
	client_close(&asking);
	engine_forget(&engine);
}

int
main(void)
{
	build();
	ok(request(1)->state == REQUEST_WAITING && request(1)->asked &&
		   request(2)->state == REQUEST_WAITING && request(3)->state == REQUEST_QUEUED &&
		   request(4)->state == REQUEST_GRANTED && request(5)->state == REQUEST_RESERVED,
	   "requests wait in five states");
	engine_check(&state);
	ok(true, "and nothing is wrong with them");
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		ok(is_noticed(faults[i].plant, faults[i].checker), "noticed: %s", faults[i].what);
	test_full();
	test_closing();
	test_last_words();
	test_end();
	return done_testing();
}
