/*
 * engine_client.h
 *	  The client of the engine's protocol that its tests are written with, and
 *	  the supervisor's part: starting and ending an engine in a directory of its
 *	  own.
 *
 * The engine is the program BICYCLE_ENGINE names, or the one that was built
 * with the test. Calls of the client wait, but never longer than PATIENCE_MS:
 * then the test ends with "Bail out!", as it does when anything fails that it
 * does not want to prove.
 */
#ifndef BICYCLE_ENGINE_CLIENT_H
#define BICYCLE_ENGINE_CLIENT_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/protocol.h"
#include "common/version.h"
#include "tap.h"
#include "testdata.h"

#define PATIENCE_MS 60000 /* sanitizers and a busy machine included */

__attribute__((format(printf, 1, 2), noreturn, unused)) static void
bail_out(const char *text, ...)
{
	va_list args;

	va_start(args, text);
	printf("Bail out! ");
	vprintf(text, args);
	printf("\n");
	va_end(args);
	exit(1);
}

__attribute__((unused)) static int64_t
clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- The engine as a process --------------------------------------------- */

typedef struct EngineProcess
{
	pid_t pid;
	int control; /* our end of its descriptor 3 */
	char directory[64];
	char lines[65536]; /* what it has said and we have not looked at */
	size_t length;
	bool eof;
} EngineProcess;

static const char *
engine_program(void)
{
	static char path[PATH_MAX];
	const char *named = getenv("BICYCLE_ENGINE");
	ssize_t n;

	if (named != NULL)
		return named;
	n = readlink("/proc/self/exe", path, sizeof(path) - 32);
	if (n < 0)
		bail_out("cannot find the engine: set BICYCLE_ENGINE");
	path[n] = '\0';
	*strrchr(path, '/') = '\0';
	strcpy(strrchr(path, '/'), "/bicycle-engine");
	return path;
}

/*
 * Reads what the engine says for up to `ms` and returns whether there was
 * anything.
 */
static bool
engine_listen_to(EngineProcess *engine, int ms)
{
	struct pollfd wait = { .fd = engine->control, .events = POLLIN };
	ssize_t n;

	if (engine->eof || poll(&wait, 1, ms) <= 0)
		return false;
	if (engine->length == sizeof(engine->lines) - 1)
		engine->length = 0;
	n = recv(engine->control, engine->lines + engine->length,
			 sizeof(engine->lines) - 1 - engine->length, 0);
	if (n <= 0)
	{
		engine->eof = true;
		return false;
	}
	engine->length += (size_t) n;
	engine->lines[engine->length] = '\0';
	return true;
}

__attribute__((unused)) static void
engine_tell(EngineProcess *engine, const char *line)
{
	char text[512];
	int length = snprintf(text, sizeof(text), "%s\n", line);

	if (send(engine->control, text, (size_t) length, MSG_NOSIGNAL) != length)
		diag("the engine did not take \"%s\"", line);
}

/*
 * Waits until the engine has said a line that begins so; forgets everything up
 * to it.
 */
__attribute__((unused)) static bool
engine_says(EngineProcess *engine, const char *begin, int ms)
{
	int64_t until = clock_ms() + ms;

	for (;;)
	{
		char *line = engine->lines;
		char *end;

		while ((end = memchr(line, '\n', engine->length - (size_t) (line - engine->lines))) != NULL)
		{
			bool found = strncmp(line, begin, strlen(begin)) == 0;

			line = end + 1;
			if (found)
			{
				engine->length -= (size_t) (line - engine->lines);
				memmove(engine->lines, line, engine->length + 1);
				return true;
			}
		}
		if (clock_ms() >= until || !engine_listen_to(engine, (int) (until - clock_ms())))
			return false;
	}
}

/*
 * Changes a setting and waits until the engine has it. setting: "NAME VALUE".
 */
__attribute__((unused)) static void
engine_set(EngineProcess *engine, const char *setting)
{
	char line[256];

	snprintf(line, sizeof(line), "set %s", setting);
	engine_tell(engine, line);
	engine_tell(engine, "ping set");
	if (!engine_says(engine, "pong set", PATIENCE_MS))
		bail_out("the engine does not answer its supervisor");
}

/*
 * Starts an engine as the supervisor does, in `engine->directory`. settings:
 * "NAME VALUE", ended by NULL.
 */
__attribute__((unused)) static void
engine_start_in(EngineProcess *engine, const char *const *settings)
{
	int pair[2];

	engine->length = 0;
	engine->eof = false;
	engine->lines[0] = '\0';
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0 || (engine->pid = fork()) < 0)
		bail_out("cannot start a process: %s", strerror(errno));
	if (engine->pid == 0)
	{
		if (chdir(engine->directory) != 0)
			_exit(127);
		if (pair[1] != BICYCLE_CONTROL_FD)
			dup2(pair[1], BICYCLE_CONTROL_FD);
		close_range(BICYCLE_CONTROL_FD + 1, ~0u, 0);
		unsetenv("OMP_WAIT_POLICY"); /* which it sets by itself */
		execl(engine_program(), "bicycle-engine", (char *) NULL);
		_exit(127);
	}
	close(pair[1]);
	engine->control = fcntl(pair[0], F_DUPFD_CLOEXEC, 10);
	close(pair[0]);
	for (int i = 0; settings[i] != NULL; i++)
	{
		char line[256];

		snprintf(line, sizeof(line), "set %s", settings[i]);
		engine_tell(engine, line);
	}
	engine_tell(engine, "go");
}

/* In a directory of its own. */
__attribute__((unused)) static void
engine_begin(EngineProcess *engine, const char *const *settings)
{
	strcpy(engine->directory, "/tmp/bicycle-test-XXXXXX");
	if (mkdtemp(engine->directory) == NULL)
		bail_out("cannot make a directory: %s", strerror(errno));
	engine_start_in(engine, settings);
}

/* The same, until it is ready. */
__attribute__((unused)) static void
engine_start(EngineProcess *engine, const char *const *settings)
{
	engine_begin(engine, settings);
	if (!engine_says(engine, "ready ", PATIENCE_MS))
		bail_out("%s did not become ready: %s", engine_program(), engine->lines);
}

/* The exit status as waitpid gives it; kills the engine if it does not end. */
__attribute__((unused)) static int
engine_wait(EngineProcess *engine)
{
	int64_t until = clock_ms() + PATIENCE_MS;
	int status = -1;

	while (waitpid(engine->pid, &status, WNOHANG) == 0)
	{
		if (clock_ms() > until)
		{
			diag("the engine did not end");
			kill(engine->pid, SIGKILL);
		}
		usleep(2000);
	}
	return status;
}

static void
engine_forget(EngineProcess *engine)
{
	char path[128];

	while (engine_listen_to(engine, 0))
		;
	close(engine->control);
	snprintf(path, sizeof(path), "%s/%s", engine->directory, BICYCLE_LOCK);
	unlink(path);
	snprintf(path, sizeof(path), "%s/%s", engine->directory, BICYCLE_SOCKET);
	unlink(path);
	rmdir(engine->directory);
}

/*
 * Ordered end; true if it was clean, which under a sanitizer includes that
 * nothing leaked.
 */
__attribute__((unused)) static bool
engine_end(EngineProcess *engine)
{
	int status;

	engine_tell(engine, "stop");
	status = engine_wait(engine);
	engine_forget(engine);
	if (status != 0)
		diag("the engine's status is 0x%x", (unsigned) status);
	return status == 0;
}

/* ---- A connection -------------------------------------------------------- */

typedef struct Client
{
	int fd;
	BicycleFrame frame; /* the last one received */
	uint8_t *body;      /* of it, and a NUL */
	bool closed;        /* the engine has closed the connection */
} Client;

/* Connects without a hello. */
__attribute__((unused)) static void
client_open(Client *client, const EngineProcess *engine)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	memset(client, 0, sizeof(*client));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", engine->directory,
			 BICYCLE_SOCKET);
	client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (client->fd < 0 || connect(client->fd, (struct sockaddr *) &address, sizeof(address)) != 0)
		bail_out("cannot connect to %s: %s", address.sun_path, strerror(errno));
}

__attribute__((unused)) static void
client_close(Client *client)
{
	if (client->fd >= 0)
		close(client->fd);
	free(client->body);
	client->body = NULL;
	client->fd = -1;
}

/*
 * Sends raw bytes; false if the engine does not take them. What it sent before
 * can still be read.
 */
__attribute__((unused)) static bool
client_write(Client *client, const void *bytes, size_t length)
{
	const uint8_t *at = bytes;

	while (length > 0)
	{
		struct pollfd wait = { .fd = client->fd, .events = POLLOUT };
		ssize_t n;

		if (poll(&wait, 1, PATIENCE_MS) <= 0)
			bail_out("the engine does not read");
		n = send(client->fd, at, length, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			continue;
		if (n < 0)
			return false;
		at += n;
		length -= (size_t) n;
	}
	return true;
}

__attribute__((unused)) static bool
client_send(Client *client, uint32_t type, uint64_t id, const void *body, size_t length)
{
	BicycleFrame frame = { .length = (uint32_t) length, .type = type, .id = id };

	return client_write(client, &frame, sizeof(frame)) && client_write(client, body, length);
}

static bool
client_read(Client *client, void *to, size_t length, int ms)
{
	uint8_t *at = to;

	while (length > 0)
	{
		struct pollfd wait = { .fd = client->fd, .events = POLLIN };
		ssize_t n;

		if (poll(&wait, 1, ms) <= 0)
			return false;
		n = recv(client->fd, at, length, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0)
		{
			client->closed = true;
			return false;
		}
		at += n;
		length -= (size_t) n;
		ms = PATIENCE_MS;
	}
	return true;
}

/*
 * The next frame, within `ms`; false if none came or the connection is closed.
 */
__attribute__((unused)) static bool
client_receive_within(Client *client, int ms)
{
	if (client->closed || !client_read(client, &client->frame, sizeof(client->frame), ms))
		return false;
	free(client->body);
	client->body = malloc((size_t) client->frame.length + 1);
	if (client->body == NULL)
		bail_out("out of memory");
	client->body[client->frame.length] = '\0';
	if (!client_read(client, client->body, client->frame.length, PATIENCE_MS))
		return false;
	return true;
}

/*
 * The next frame; the test cannot go on if none comes, but does if the
 * connection is closed.
 */
__attribute__((unused)) static bool
client_receive(Client *client)
{
	if (client_receive_within(client, PATIENCE_MS))
		return true;
	if (!client->closed)
		bail_out("the engine does not answer");
	return false;
}

/*
 * Reads frames until one of the type and id has come (id 0: any); STARTED and
 * GRANT of anybody may come before it, others may not.
 */
__attribute__((unused)) static bool
client_expect(Client *client, uint32_t type, uint64_t id)
{
	while (client_receive(client))
	{
		if (client->frame.type == type && (id == 0 || client->frame.id == id))
			return true;
		if (client->frame.type == BICYCLE_STARTED || client->frame.type == BICYCLE_GRANT)
			continue;
		diag("wanted frame %u of %llu, got %u of %llu%s%s", type, (unsigned long long) id,
			 client->frame.type, (unsigned long long) client->frame.id,
			 client->frame.type == BICYCLE_ERROR ? ": " : "",
			 client->frame.type == BICYCLE_ERROR ? (char *) client->body + sizeof(BicycleError)
												 : "");
		return false;
	}
	diag("wanted frame %u of %llu, but the connection is closed", type, (unsigned long long) id);
	return false;
}

/* Whether the last frame is an error of this SQLSTATE with a proper text. */
__attribute__((unused)) static bool
client_is_error(const Client *client, const char *sqlstate)
{
	BicycleError error;

	if (client->frame.type != BICYCLE_ERROR || client->frame.length < sizeof(error))
		return false;
	memcpy(&error, client->body, sizeof(error));
	if (strcmp(error.sqlstate, sqlstate) != 0)
		diag("the error is %s: %s %s", error.sqlstate, client->body + sizeof(error),
			 client->body + sizeof(error) + error.message_length);
	return strcmp(error.sqlstate, sqlstate) == 0 && error.message_length > 1 &&
		   sizeof(error) + error.message_length + error.detail_length + error.hint_length ==
			   client->frame.length;
}

__attribute__((unused)) static bool
client_expect_error(Client *client, uint64_t id, const char *sqlstate)
{
	return client_expect(client, BICYCLE_ERROR, id) && client_is_error(client, sqlstate);
}

__attribute__((unused)) static void
client_hello(Client *client, const EngineProcess *engine, uint32_t database)
{
	BicycleHello hello = { .magic = BICYCLE_MAGIC,
						   .protocol = BICYCLE_PROTOCOL,
						   .build = BICYCLE_VERSION,
						   .database = database };

	hello.pid = getpid();
	client_open(client, engine);
	client_send(client, BICYCLE_HELLO, 0, &hello, sizeof(hello));
	if (!client_receive(client) || client->frame.type != BICYCLE_HELLO)
		bail_out("the engine does not greet");
}

/* ---- Requests ------------------------------------------------------------ */

__attribute__((unused)) static BicycleStatus
client_status(Client *client)
{
	BicycleStatus status = { 0 };

	client_send(client, BICYCLE_STATUS, UINT64_MAX, NULL, 0);
	if (client_expect(client, BICYCLE_RESULT, UINT64_MAX) && client->frame.length == sizeof(status))
		memcpy(&status, client->body, sizeof(status));
	return status;
}

/* Waits until so many requests are done, of all clients; false: too long. */
__attribute__((unused)) static bool
client_sees_done(Client *client, uint64_t requests)
{
	int64_t until = clock_ms() + PATIENCE_MS;

	while (client_status(client).requests < requests)
	{
		if (clock_ms() >= until)
			return false;
		usleep(1000);
	}
	return true;
}

/*
 * Waits for the engine to hold no more than `most` bytes, which happens a
 * little after the last answer; returns what it holds.
 */
__attribute__((unused)) static uint64_t
client_memory_settles(Client *client, uint64_t most)
{
	uint64_t memory = client_status(client).memory;

	for (int i = 0; i < 400 && memory > most; i++)
	{
		usleep(5000);
		memory = client_status(client).memory;
	}
	return memory;
}

/* An image request before it is sent. */
typedef struct ImageCall
{
	uint32_t type;
	const uint8_t *hash; /* NULL: zeros */
	const uint8_t *image;
	size_t length;
	const float *z;
	uint32_t nz;
	uint32_t flags;
	uint32_t precision;
	uint32_t format;
	uint32_t debug;
	uint32_t fit;
	uint64_t max_pixels; /* 0: plenty */
	const uint8_t *second;
	size_t second_length;
} ImageCall;

__attribute__((unused)) static uint8_t *
image_call_body(const ImageCall *call, size_t *length)
{
	BicycleImageRequest request = { .flags = call->flags,
									.precision = call->precision,
									.output_format = call->format,
									.jpeg_quality = 90,
									.png_level = BICYCLE_PNG_LEVEL,
									.nz = call->nz,
									.image_length = (uint32_t) call->length,
									.max_pixels = call->max_pixels ? call->max_pixels : 64 << 20,
									.debug = call->debug,
									.fit = call->fit,
									.second_length = (uint32_t) call->second_length };
	uint8_t *body;

	*length = sizeof(request) + call->nz * sizeof(float) + call->length + call->second_length;
	body = malloc(*length);
	if (body == NULL)
		bail_out("out of memory");
	if (call->hash != NULL)
		memcpy(request.hash, call->hash, sizeof(request.hash));
	memcpy(body, &request, sizeof(request));
	if (call->nz > 0)
		memcpy(body + sizeof(request), call->z, call->nz * sizeof(float));
	memcpy(body + sizeof(request) + call->nz * sizeof(float), call->image, call->length);
	if (call->second_length > 0)
		memcpy(body + *length - call->second_length, call->second, call->second_length);
	return body;
}

__attribute__((unused)) static void
client_reserve(Client *client, uint64_t id, uint64_t bytes)
{
	BicycleReserve reserve = { .bytes = bytes };

	client_send(client, BICYCLE_RESERVE, id, &reserve, sizeof(reserve));
}

/* Asks for a place and waits for it. */
__attribute__((unused)) static bool
client_place(Client *client, uint64_t id, uint64_t bytes)
{
	client_reserve(client, id, bytes);
	while (client_receive(client))
	{
		if (client->frame.type == BICYCLE_GRANT && client->frame.id == id)
			return true;
		if (client->frame.type != BICYCLE_STARTED)
			return false;
	}
	return false;
}

/*
 * Sends a whole image request. The answer is still to come; answers of others
 * must not be outstanding, except STARTED.
 */
__attribute__((unused)) static bool
client_call(Client *client, uint64_t id, const ImageCall *call)
{
	size_t length;
	uint8_t *body = image_call_body(call, &length);
	bool placed = client_place(client, id, length);

	if (placed)
		client_send(client, call->type, id, body, length);
	free(body);
	return placed;
}

/*
 * Bytes of a stream, collected from DATA frames up to END; NULL if an error,
 * which is the last frame then, or the end of the connection took its place.
 */
__attribute__((unused)) static uint8_t *
client_stream_unless(Client *client, uint64_t id, size_t *length)
{
	uint8_t *bytes = malloc(1);

	*length = 0;
	while (client_receive(client) && client->frame.id == id && client->frame.type == BICYCLE_DATA)
	{
		uint8_t *more = realloc(bytes, *length + client->frame.length + 1);

		if (more == NULL)
			bail_out("out of memory");
		bytes = more;
		memcpy(bytes + *length, client->body, client->frame.length);
		*length += client->frame.length;
	}
	if (client->closed || client->frame.type == BICYCLE_ERROR)
	{
		free(bytes);
		return NULL;
	}
	if (client->frame.type != BICYCLE_END || client->frame.id != id)
		bail_out("a stream ended with frame %u", client->frame.type);
	return bytes;
}

__attribute__((unused)) static uint8_t *
client_stream(Client *client, uint64_t id, size_t *length)
{
	uint8_t *bytes = client_stream_unless(client, id, length);

	if (bytes == NULL)
		bail_out("a stream ended with an error or with its connection");
	return bytes;
}

__attribute__((unused)) static void
client_send_stream(Client *client, uint64_t id, const uint8_t *bytes, size_t length)
{
	for (size_t at = 0; at < length; at += BICYCLE_MAX_FRAME)
		client_send(client, BICYCLE_DATA, id, bytes + at,
					length - at < BICYCLE_MAX_FRAME ? length - at : BICYCLE_MAX_FRAME);
	client_send(client, BICYCLE_END, id, NULL, 0);
}

/* ---- Models -------------------------------------------------------------- */

/* A model as a database keeps it. */
typedef struct Model
{
	uint8_t hash[BICYCLE_HASH_BYTES];
	char *config; /* JSON */
	uint8_t *stream;
	size_t length;
} Model;

__attribute__((unused)) static void
model_free(Model *model)
{
	free(model->config);
	free(model->stream);
}

/* The answer of IMPORT or CREATE; false if it is an error. */
static bool
client_imported(Client *client, uint64_t id, Model *model)
{
	BicycleImported imported;

	do
	{
		if (!client_receive(client))
			return false;
	} while (client->frame.type == BICYCLE_STARTED);
	if (client->frame.type != BICYCLE_RESULT || client->frame.id != id)
		return false;
	memcpy(&imported, client->body, sizeof(imported));
	if (client->frame.length != sizeof(imported) + imported.config_length + imported.assumed_length)
		bail_out("an import was answered with %u bytes", client->frame.length);
	memcpy(model->hash, imported.hash, sizeof(model->hash));
	model->config = strndup((char *) client->body + sizeof(imported), imported.config_length);
	model->stream = client_stream(client, id, &model->length);
	if (model->length != imported.stream_length)
		bail_out("a model of %zu bytes was announced with %llu", model->length,
				 (unsigned long long) imported.stream_length);
	return true;
}

__attribute__((unused)) static bool
client_create(Client *client, uint64_t id, const char *config, Model *model)
{
	BicycleImport import = { .config_length = (uint32_t) strlen(config) };
	uint8_t head[sizeof(import) + 1024];

	memcpy(head, &import, sizeof(import));
	memcpy(head + sizeof(import), config, strlen(config));
	client_send(client, BICYCLE_CREATE, id, head, sizeof(import) + strlen(config));
	return client_imported(client, id, model);
}

/*
 * Creates the smallest of models with an encoder. Returns its generator as a
 * safetensors file of *length bytes, which the caller frees.
 */
__attribute__((unused)) static uint8_t *
client_small_model(EngineProcess *engine, Model *model, size_t *length)
{
	BicycleExport export = { .format = "safetensors" };
	BicycleTensor tensor;
	Client client;
	uint8_t *file;

	client_hello(&client, engine, 1);
	if (!client_create(&client, 1,
					   "{\"size\":64,\"levels\":6,\"ngf\":1,\"nef\":1,\"encoder_size\":64}", model))
		bail_out("cannot create a model");
	while (export.stream_length < model->length)
	{
		memcpy(&tensor, model->stream + export.stream_length, sizeof(tensor));
		if (strcmp(tensor.network, "G") != 0)
			break;
		export.stream_length += sizeof(tensor) + tensor.nbytes;
	}
	client_send(&client, BICYCLE_EXPORT, 2, &export, sizeof(export));
	client_expect(&client, BICYCLE_GRANT, 2);
	client_send_stream(&client, 2, model->stream, export.stream_length);
	if (!client_expect(&client, BICYCLE_RESULT, 2))
		bail_out("cannot export");
	file = client_stream(&client, 2, length);
	client_close(&client);
	return file;
}

/* Sends an IMPORT of up to two files; false if it was not granted. */
__attribute__((unused)) static bool
client_import_send(Client *client, uint64_t id, const char *config, const uint8_t *generator,
				   size_t generator_length, const uint8_t *encoder, size_t encoder_length)
{
	BicycleImport import = { .generator_length = generator_length,
							 .encoder_length = encoder_length,
							 .config_length = (uint32_t) strlen(config) };
	uint8_t head[sizeof(import) + 1024];
	uint8_t *files = malloc(generator_length + encoder_length);

	if (files == NULL)
		bail_out("out of memory");
	memcpy(files, generator, generator_length);
	if (encoder_length > 0)
		memcpy(files + generator_length, encoder, encoder_length);
	memcpy(head, &import, sizeof(import));
	memcpy(head + sizeof(import), config, strlen(config));
	client_send(client, BICYCLE_IMPORT, id, head, sizeof(import) + strlen(config));
	if (!client_receive(client) || client->frame.type != BICYCLE_GRANT)
	{
		free(files);
		return false;
	}
	client_send_stream(client, id, files, generator_length + encoder_length);
	free(files);
	return true;
}

__attribute__((unused)) static bool
client_import(Client *client, uint64_t id, const char *config, const uint8_t *generator,
			  size_t generator_length, const uint8_t *encoder, size_t encoder_length, Model *model)
{
	return client_import_send(client, id, config, generator, generator_length, encoder,
							  encoder_length) &&
		   client_imported(client, id, model);
}

__attribute__((unused)) static void
client_load_head(Client *client, uint64_t id, const Model *model, const char *name)
{
	BicycleLoad load = { .version = 1,
						 .config_length = (uint32_t) strlen(model->config),
						 .stream_length = model->length };
	uint8_t head[sizeof(load) + 4096];

	memcpy(load.hash, model->hash, sizeof(load.hash));
	snprintf(load.model, sizeof(load.model), "%s", name);
	memcpy(head, &load, sizeof(load));
	memcpy(head + sizeof(load), model->config, strlen(model->config));
	client_send(client, BICYCLE_LOAD, id, head, sizeof(load) + strlen(model->config));
}

/* Sends a LOAD; its answer is still to come.  False if it was not granted. */
__attribute__((unused)) static bool
client_load_send(Client *client, uint64_t id, const Model *model, const char *name)
{
	client_load_head(client, id, model, name);
	while (client_receive(client) && client->frame.type == BICYCLE_STARTED)
		;
	if (client->closed || client->frame.type != BICYCLE_GRANT || client->frame.id != id)
		return false;
	client_send_stream(client, id, model->stream, model->length);
	return true;
}

__attribute__((unused)) static bool
client_load(Client *client, uint64_t id, const Model *model, const char *name)
{
	if (!client_load_send(client, id, model, name))
		return false;
	while (client_receive(client) && client->frame.type == BICYCLE_STARTED)
		;
	return !client->closed && client->frame.type == BICYCLE_RESULT && client->frame.id == id;
}

/*
 * A whole image request, with the model sent if it is asked for. The result is
 * in client->body; false on an error, which is the last frame.
 */
__attribute__((unused)) static bool
client_run(Client *client, uint64_t id, const ImageCall *call, const Model *model)
{
	if (!client_call(client, id, call))
		return false;
	while (client_receive(client))
	{
		if (client->frame.type == BICYCLE_NEED_MODEL && model != NULL)
		{
			if (!client_load(client, id + (UINT64_C(1) << 62), model, "test"))
				return false;
		}
		else if (client->frame.type != BICYCLE_STARTED)
			return client->frame.type == BICYCLE_RESULT && client->frame.id == id;
	}
	return false;
}

/*
 * The models in the engine as this client's database sees them; returns their
 * number.
 */
__attribute__((unused)) static int
client_cache(Client *client, BicycleCached *cached, int most)
{
	int n;

	client_send(client, BICYCLE_CACHE, UINT64_MAX, NULL, 0);
	if (!client_expect(client, BICYCLE_RESULT, UINT64_MAX))
		return -1;
	n = (int) (client->frame.length / sizeof(BicycleCached));
	memcpy(cached, client->body, sizeof(BicycleCached) * (size_t) (n < most ? n : most));
	return n;
}

#endif /* BICYCLE_ENGINE_CLIENT_H */
