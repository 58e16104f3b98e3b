/*
 * engine_error.c
 *	  The engine's errors: filling them, turning those of the libraries into
 *	  them, and their form on the wire.
 *
 * No state; any thread.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/engine_error.h"

void
error_clear(EngineError *error)
{
	error->sqlstate[0] = error->message[0] = error->detail[0] = error->hint[0] = '\0';
}

void
error_set(EngineError *error, const char *sqlstate, const char *message, ...)
{
	va_list args;

	error_clear(error);
	snprintf(error->sqlstate, sizeof(error->sqlstate), "%s", sqlstate);
	va_start(args, message);
	vsnprintf(error->message, sizeof(error->message), message, args);
	va_end(args);
}

void
error_detail(EngineError *error, const char *detail, ...)
{
	va_list args;

	va_start(args, detail);
	vsnprintf(error->detail, sizeof(error->detail), detail, args);
	va_end(args);
}

void
error_hint(EngineError *error, const char *hint, ...)
{
	va_list args;

	va_start(args, hint);
	vsnprintf(error->hint, sizeof(error->hint), hint, args);
	va_end(args);
}

bool
error_memory(EngineError *error, const char *what)
{
	error_set(error, "53200", "out of memory");
	error_detail(error, "The engine could not allocate memory for %s.", what);
	return false;
}

bool
error_engine_memory(EngineError *error, const char *detail, ...)
{
	va_list args;

	error_set(error, "53200", "out of engine memory");
	va_start(args, detail);
	vsnprintf(error->detail, sizeof(error->detail), detail, args);
	va_end(args);
	error_hint(error, "Raise the setting \"bicycle.engine_memory\".");
	return false;
}

bool
error_from_nn(EngineError *error, const NnError *nn)
{
	const char *sqlstate = "58000";

	switch (nn->code)
	{
		case NN_EINVAL:
			sqlstate = "22023";
			break;
		case NN_ENOMEM:
			sqlstate = "53200";
			break;
		case NN_EUNSUPPORTED:
			sqlstate = "55000";
			break;
		case NN_OK:
		case NN_EDEVICE:
			break;
	}
	error_set(error, sqlstate, "%s", nn->message);
	error_detail(error, "%s", nn->detail);
	error_hint(error, "%s", nn->hint);
	return false;
}

bool
error_from_image(EngineError *error, const ImageError *image)
{
	switch (image->code)
	{
		case IMAGE_OK:
		case IMAGE_EINVALID:
			error_set(error, "22P03", "%s", image->message);
			break;
		case IMAGE_ELIMIT:
			error_set(error, "54000", "%s", image->message);
			error_hint(
				error,
				"See the settings \"bicycle.max_image_pixels\" and \"bicycle.engine_memory\".");
			break;
		case IMAGE_ENOMEM:
			error_set(error, "53200", "%s", image->message);
			break;
	}
	error_detail(error, "%s", image->detail);
	if (image->hint[0] != '\0')
		error_hint(error, "%s", image->hint);
	return false;
}

bool
error_of_two(EngineError *error, int which)
{
	static const char *const names[] = { "first", "second" };
	size_t length = strlen(error->detail);

	if (strcmp(error->sqlstate, "22P03") == 0 || strcmp(error->sqlstate, "54000") == 0)
		snprintf(error->detail + length, sizeof(error->detail) - length,
				 "%sIt is the %s of two images.", length > 0 ? "  " : "", names[which]);
	return false;
}

bool
error_from_plot(EngineError *error, const PlotError *plot)
{
	static const char *const states[] = { [PLOT_EMALFORMED] = "08P01",
										  [PLOT_ESIZE] = "22023",
										  [PLOT_ELIMIT] = "54000",
										  [PLOT_ENOMEM] = "53200",
										  [PLOT_EFAILED] = "58000" };

	error_set(error, states[plot->code], "%s", plot->message);
	error_detail(error, "%s", plot->detail);
	if (plot->code == PLOT_ELIMIT)
		error_hint(error, "See the setting \"bicycle.max_image_pixels\".");
	return false;
}

size_t
error_pack(const EngineError *error, uint8_t *body)
{
	const char *texts[3] = { error->message, error->detail, error->hint };
	uint32_t lengths[3];
	BicycleError head;
	size_t at = sizeof(head);

	memset(&head, 0, sizeof(head));
	snprintf(head.sqlstate, sizeof(head.sqlstate), "%s", error->sqlstate);
	for (int i = 0; i < 3; i++)
	{
		lengths[i] = (uint32_t) strlen(texts[i]) + 1;
		memcpy(body + at, texts[i], lengths[i]);
		at += lengths[i];
	}
	head.message_length = lengths[0];
	head.detail_length = lengths[1];
	head.hint_length = lengths[2];
	memcpy(body, &head, sizeof(head));
	return at;
}

/* False if it is no string of `length` bytes with its NUL. Cut to `size`. */
static bool
unpack_text(char *to, size_t size, const uint8_t **body, size_t *left, uint32_t length)
{
	if (length == 0 || length > *left || memchr(*body, '\0', length) != *body + length - 1)
		return false;
	snprintf(to, size, "%s", (const char *) *body);
	*body += length;
	*left -= length;
	return true;
}

bool
error_unpack(EngineError *error, const uint8_t *body, size_t length)
{
	BicycleError head;

	if (length < sizeof(head))
		return false;
	memcpy(&head, body, sizeof(head));
	if (memchr(head.sqlstate, '\0', sizeof(head.sqlstate)) != head.sqlstate + 5)
		return false;
	error_clear(error);
	memcpy(error->sqlstate, head.sqlstate, 6);
	body += sizeof(head);
	length -= sizeof(head);
	return unpack_text(error->message, sizeof(error->message), &body, &length,
					   head.message_length) &&
		   unpack_text(error->detail, sizeof(error->detail), &body, &length, head.detail_length) &&
		   unpack_text(error->hint, sizeof(error->hint), &body, &length, head.hint_length) &&
		   length == 0;
}
