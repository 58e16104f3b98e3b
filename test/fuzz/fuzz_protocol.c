/*
 * fuzz_protocol.c
 *	  A client's frames, against the whole engine in this process: I/O thread,
 *	  batcher, cache, loader, on the naive device.
 *
 * An input is a script, for random bytes would hardly ever be a frame: each
 * step is a type, an id, flags and a payload, of which a frame is made whose
 * lengths and hash are right or wrong as the flags say. After each the
 * connection is closed, and then the engine must hold nothing but models.
 */
#include "fuzz_engine.h"
#include "engine/run.h"

/* ---- The engine ---------------------------------------------------------- */

static uint8_t hash[BICYCLE_HASH_BYTES]; /* of a model that the scripts may name */
static char *config;
static uint8_t *model; /* its tensor stream */
static size_t model_length;

/* Bytes of the tensors of the smallest model, all 0. */
static void
make_model(void)
{
	static const char json[] =
		"{\"size\":64,\"levels\":6,\"ngf\":1,\"nef\":1,\"nz\":1,\"encoder_size\":64}";
	NnConfig parsed;
	NnParams params = { 0 };
	NnTensor *tensors;
	float *zeros;
	EngineError error;
	NnError nn_error;
	int n = 0;

	nn_config_default(&parsed);
	DEMAND(nn_config_parse(&parsed, json, sizeof(json) - 1, &nn_error) == NN_OK);
	DEMAND(nn_params_of(&parsed, 1u << NN_NET_G | 1u << NN_NET_E, &params, &nn_error) == NN_OK);
	tensors = calloc((size_t) params.n, sizeof(*tensors));
	zeros = calloc(params.total + 2, sizeof(float));
	for (int i = 0; i < params.n; i++)
	{
		const NnParam *p = &params.list[i];
		NnTensor *t = &tensors[n++];

		*t = (NnTensor){ .name = p->name,
						 .network = p->network,
						 .dtype = p->integer ? NN_I64 : NN_F32,
						 .ndim = p->ndim,
						 .data = zeros,
						 .nbytes = p->count * (p->integer ? 8 : 4) };
		memcpy(t->shape, p->shape, sizeof(p->shape));
	}
	config = nn_config_print(&parsed);
	DEMAND(run_tensors_pack(tensors, n, &model, &model_length, &error));
	DEMAND(model_hash(config, tensors, n, hash, &error));
	free(tensors);
	free(zeros);
	nn_params_free(&params);
}

static void
start(void)
{
	char why[256];
	char directory[] = "/tmp/bicycle-fuzz-XXXXXX";
	static const char *const settings[][2] = { { "device", "ref" },
											   { "threads", "1" },
											   { "max_batch", "2" },
											   { "queue_memory", "1048576" },
											   { "engine_memory", "64000000" },
											   { "max_model_size", "4000000" } };

	DEMAND(mkdtemp(directory) != NULL && chdir(directory) == 0);
	DEMAND(freopen("/dev/null", "w", stdout) != NULL);
	DEMAND(engine_init(&engine) && control_open(&engine, -1, orders_line));
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		DEMAND(settings_set(&engine.settings, settings[i][0], settings[i][1], why, sizeof(why)));
	engine.settings.debug = 0;
	engine_go(&engine);
	turns(2);
	DEMAND(engine.listening && engine.device.nn != NULL);
	unlink(BICYCLE_SOCKET);
	unlink(BICYCLE_LOCK);
	rmdir(directory);
	make_model();
}

/* ---- A script ------------------------------------------------------------ */

typedef struct Script
{
	const uint8_t *at;
	size_t left;
} Script;

static uint32_t
take(Script *script, size_t width)
{
	uint32_t value = 0;

	if (width > script->left)
		width = script->left;
	memcpy(&value, script->at, width);
	script->at += width;
	script->left -= width;
	return value;
}

/* Flags of a step. */
enum
{
	RIGHT_HASH = 1,
	WRONG_LENGTH = 2, /* a header's lengths are not those of what follows */
	NO_RESERVE = 4,   /* an image request comes without */
	WHOLE_MODEL = 8,  /* the stream is that of a model */
	CUT = 16,         /* the stream does not end */
	RAW = 32          /* the payload is the body as it is */
};

static int peer;

static void
drain(void)
{
	char bytes[65536];

	while (recv(peer, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
}

static void
send_bytes(const void *bytes, size_t length)
{
	const uint8_t *at = bytes;

	while (length > 0)
	{
		ssize_t n = send(peer, at, length, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n <= 0 && errno != EAGAIN)
			return;
		turns(1);
		drain();
		if (n > 0)
		{
			at += n;
			length -= (size_t) n;
		}
	}
}

static void
send_frame(uint32_t type, uint64_t id, const void *head, size_t head_length, const void *tail,
		   size_t tail_length, bool wrong)
{
	BicycleFrame frame = { .length = (uint32_t) (head_length + tail_length) + wrong,
						   .type = type,
						   .id = id };

	send_bytes(&frame, sizeof(frame));
	send_bytes(head, head_length);
	send_bytes(tail, tail_length);
}

static void
send_image(uint32_t type, uint64_t id, unsigned flags, const uint8_t *payload, size_t length)
{
	BicycleImageRequest image = {
		.jpeg_quality = 50, .max_pixels = 1 << 16, .flags = flags >> 6, .output_format = flags >> 7
	};
	BicycleReserve reserve = { .bytes = sizeof(image) + length };

	image.nz = type == BICYCLE_TRANSLATE && length >= sizeof(float) ? 1 : 0;
	image.image_length = (uint32_t) (length - image.nz * sizeof(float)) + (flags & WRONG_LENGTH);
	if (type == BICYCLE_COMPARE || type == BICYCLE_MATCH)
	{
		image.second_length = image.image_length / 2;
		image.image_length -= image.second_length;
	}
	if (flags & RIGHT_HASH)
		memcpy(image.hash, hash, sizeof(hash));
	if (!(flags & NO_RESERVE))
		send_frame(BICYCLE_RESERVE, id, &reserve, sizeof(reserve), NULL, 0, false);
	send_frame(type, id, &image, sizeof(image), payload, length, false);
}

static void
send_stream(uint64_t id, unsigned flags, const uint8_t *bytes, size_t length)
{
	send_frame(BICYCLE_DATA, id, bytes, length / 2, NULL, 0, false);
	send_frame(BICYCLE_DATA, id, bytes + length / 2, length - length / 2, NULL, 0, false);
	if (!(flags & CUT))
		send_frame(BICYCLE_END, id, NULL, 0, NULL, 0, false);
}

static void
send_load(uint64_t id, unsigned flags, const uint8_t *payload, size_t length)
{
	BicycleLoad load = { .model = "m", .version = 1, .config_length = (uint32_t) strlen(config) };
	bool whole = flags & WHOLE_MODEL || length == 0;

	load.stream_length = (whole ? model_length : length) + (flags & WRONG_LENGTH);
	if (flags & RIGHT_HASH)
		memcpy(load.hash, hash, sizeof(hash));
	send_frame(BICYCLE_LOAD, id, &load, sizeof(load), config, strlen(config), false);
	send_stream(id, flags, whole ? model : payload, whole ? model_length : length);
}

static void
send_import(uint32_t type, uint64_t id, unsigned flags, const uint8_t *payload, size_t length)
{
	/* the payload is the configuration of CREATE, and files otherwise */
	BicycleImport import = { .max_model_size = 1 << 20 };

	if (type == BICYCLE_CREATE)
	{
		import.config_length = (uint32_t) length + (flags & WRONG_LENGTH);
		send_frame(type, id, &import, sizeof(import), payload, length, false);
		return;
	}
	import.generator_length = length - (type == BICYCLE_IMPORT && flags & CUT ? length / 2 : 0);
	import.encoder_length = length - import.generator_length;
	send_frame(type, id, &import, sizeof(import), NULL, 0, false);
	send_stream(id, flags & ~CUT, payload, length);
}

static void
send_export(uint64_t id, unsigned flags, const uint8_t *payload, size_t length)
{
	BicycleExport export = { .stream_length = flags & WHOLE_MODEL ? model_length : length };

	strcpy(export.format, flags & RIGHT_HASH ? "pth" : "safetensors");
	send_frame(BICYCLE_EXPORT, id, &export, sizeof(export), NULL, 0, false);
	send_stream(id, flags, flags & WHOLE_MODEL ? model : payload, export.stream_length);
}

static void
step(Script *script)
{
	static const uint32_t types[] = { BICYCLE_TRANSLATE, BICYCLE_ENCODE,   BICYCLE_INFO,
									  BICYCLE_PLOT,      BICYCLE_LOAD,     BICYCLE_IMPORT,
									  BICYCLE_CREATE,    BICYCLE_INSPECT,  BICYCLE_EXPORT,
									  BICYCLE_CANCEL,    BICYCLE_NO_MODEL, BICYCLE_TRAIN_CHECK,
									  BICYCLE_STATUS,    BICYCLE_CACHE,    BICYCLE_RESERVE,
									  BICYCLE_DATA,      BICYCLE_END,      BICYCLE_HELLO,
									  BICYCLE_GRANT,     BICYCLE_CHECK,    77,
									  BICYCLE_COMPARE,   BICYCLE_MATCH,    BICYCLE_HALVES,
									  BICYCLE_GRID };
	uint32_t type = types[take(script, 1) % (sizeof(types) / sizeof(types[0]))];
	uint64_t id = take(script, 1) % 8;
	unsigned flags = take(script, 1);
	size_t length = take(script, 2);
	const uint8_t *payload = script->at;

	length = length < script->left ? length : script->left;
	script->at += length;
	script->left -= length;
	if (flags & RAW)
		send_frame(type, id, payload, length, NULL, 0, flags & WRONG_LENGTH);
	else if (type == BICYCLE_TRANSLATE || type == BICYCLE_ENCODE || type == BICYCLE_INFO ||
			 type == BICYCLE_CHECK || type == BICYCLE_PLOT || type == BICYCLE_COMPARE ||
			 type == BICYCLE_MATCH || type == BICYCLE_HALVES || type == BICYCLE_GRID)
		send_image(type, id, flags, payload, length);
	else if (type == BICYCLE_LOAD)
		send_load(id, flags, payload, length);
	else if (type == BICYCLE_IMPORT || type == BICYCLE_CREATE || type == BICYCLE_INSPECT)
		send_import(type, id, flags, payload, length);
	else if (type == BICYCLE_EXPORT)
		send_export(id, flags, payload, length);
	else
		send_frame(type, id, payload, length, NULL, 0, flags & WRONG_LENGTH);
}

static size_t
held_by_models(void)
{
	size_t bytes = 0;

	list_foreach(node, &engine.models) bytes += list_member(Packed, link, node)->host;
	return bytes;
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	BicycleHello hello = { .magic = BICYCLE_MAGIC,
						   .protocol = BICYCLE_PROTOCOL,
						   .build = BICYCLE_VERSION,
						   .database = 1 };
	Script script = { bytes, length };
	int pair[2];

	if (engine.device.nn == NULL)
		start();
	DEMAND(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
	peer = pair[0];
	connection_accept(&engine, pair[1]);
	hello.database = take(&script, 1) % 2;
	send_frame(BICYCLE_HELLO, 0, &hello, sizeof(hello), NULL, 0, false);
	for (int steps = 0; script.left > 0 && steps < 32; steps++)
		step(&script);
	for (int i = 0; i < 4; i++)
	{
		turns(1);
		drain();
	}
	close(peer);
	turns(4);
	log_take(forget, NULL);
	DEMAND(list_empty(&engine.connections) && engine.nconnections == 0 && engine.nrequests == 0 &&
		   engine.nstarted == 0);
	DEMAND(engine.ahead[0] == 0 && engine.ahead[1] == 0 && engine.light == 0 &&
		   engine.nbatches == 0 && engine.load == NULL && engine.alone == NULL &&
		   engine.freeing == 0);
	DEMAND(list_empty(&engine.ready) && list_empty(&engine.held) && list_empty(&engine.loads));
	DEMAND(engine.queue.used == 0 && engine.decoders.used == 0 &&
		   engine.memory.used == held_by_models());
	/* few inputs get as far as a model, and then others should find none */
	room_clear(&engine);
	turns(2);
	DEMAND(list_empty(&engine.entries) && engine.cached.used == 0 && engine.memory.used == 0);
	return 0;
}
