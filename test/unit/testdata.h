/*
 * testdata.h
 *	  Files for tests: those of test/data, and the endless small changes that
 *	  damage does to them.
 */
#ifndef BICYCLE_TESTDATA_H
#define BICYCLE_TESTDATA_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Path of a file of test/data; valid until the next call. */
__attribute__((unused)) static const char *
testdata_path(const char *name)
{
	static char path[1024];
	const char *directory = getenv("BICYCLE_TESTDATA");

	snprintf(path, sizeof(path), "%s/%s", directory != NULL ? directory : "test/data", name);
	return path;
}

/*
 * The bytes of a file of test/data, malloc'ed to their exact number so that a
 * sanitizer sees a read beyond them. A test without its data cannot prove
 * anything: it ends here.
 */
__attribute__((unused)) static uint8_t *
testdata_load(const char *name, size_t *length)
{
	FILE *file = fopen(testdata_path(name), "rb");
	long size = -1;
	uint8_t *bytes = NULL;

	if (file != NULL && fseek(file, 0, SEEK_END) == 0 && (size = ftell(file)) >= 0 &&
		fseek(file, 0, SEEK_SET) == 0)
		bytes = malloc(size > 0 ? (size_t) size : 1);
	if (bytes == NULL || fread(bytes, 1, (size_t) size, file) != (size_t) size)
	{
		printf("Bail out! cannot read %s\n", testdata_path(name));
		exit(1);
	}
	fclose(file);
	*length = (size_t) size;
	return bytes;
}

/* The same of a text, with a NUL behind it. */
__attribute__((unused)) static char *
testdata_text(const char *name, size_t *length)
{
	uint8_t *bytes = testdata_load(name, length);
	char *text = realloc(bytes, *length + 1);

	if (text == NULL)
	{
		printf("Bail out! out of memory\n");
		exit(1);
	}
	text[*length] = '\0';
	return text;
}

/* A file in the making. */
typedef struct Bytes
{
	uint8_t *at;
	size_t n;
} Bytes;

__attribute__((unused)) static void
put(Bytes *to, const void *bytes, size_t n)
{
	to->at = realloc(to->at, to->n + n + 1);
	if (n > 0)
		memcpy(to->at + to->n, bytes, n);
	to->n += n;
}

/*
 * A message is lower case without a full stop, a detail is a sentence; both
 * printable ASCII.
 */
__attribute__((unused)) static bool
well_formed(const char *message, const char *detail)
{
	size_t n = strlen(detail);

	for (const char *c = message; *c != '\0'; c++)
		if (*c < ' ' || *c > '~')
			return false;
	for (const char *c = detail; *c != '\0'; c++)
		if (*c < ' ' || *c > '~')
			return false;
	return message[0] >= 'a' && message[0] <= 'z' && message[strlen(message) - 1] != '.' && n > 1 &&
		   detail[n - 1] == '.';
}

/* xorshift64*: the same sequence from the same seed everywhere. */
__attribute__((unused)) static uint64_t
testdata_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dULL;
}

/*
 * A damaged copy of bytes, malloc'ed to its exact length: cut short, or with up
 * to 8 bits flipped, or with up to 4 bytes overwritten by numbers that lengths
 * and counts dislike.
 */
__attribute__((unused)) static uint8_t *
testdata_damage(const uint8_t *bytes, size_t length, uint64_t *state, size_t *damaged_length)
{
	static const uint8_t awkward[] = { 0x00, 0x01, 0x7f, 0x80, 0xff };
	uint64_t kind = testdata_random(state) % 4;
	size_t n = kind == 0 ? testdata_random(state) % length : length;
	uint8_t *copy = malloc(n > 0 ? n : 1);

	memcpy(copy, bytes, n);
	if (kind == 1 || kind == 2)
		for (uint64_t i = testdata_random(state) % 8 + 1; i-- > 0;)
			copy[testdata_random(state) % n] ^= (uint8_t) (1 << testdata_random(state) % 8);
	if (kind == 3)
		for (uint64_t i = testdata_random(state) % 4 + 1; i-- > 0;)
			copy[testdata_random(state) % n] = awkward[testdata_random(state) % sizeof(awkward)];
	*damaged_length = n;
	return copy;
}

#endif /* BICYCLE_TESTDATA_H */
