/*
 * fuzz.h
 *	  What the fuzz targets share. A target aborts where a reader breaks its
 *	  word; everything else is the sanitizers' to see.
 */
#ifndef BICYCLE_FUZZ_H
#define BICYCLE_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

extern const char *__lsan_default_suppressions(void);

/* What fontconfig keeps for the next plot. */
const char *
__lsan_default_suppressions(void)
{
	return "leak:libfontconfig\n";
}

#define DEMAND(condition)                                                   \
	do                                                                      \
	{                                                                       \
		if (!(condition))                                                   \
		{                                                                   \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                        \
		}                                                                   \
	} while (0)

/*
 * A message is lower case without a full stop, a detail is a sentence; both
 * printable ASCII.
 */
static inline void
demand_error(const char *message, const char *detail)
{
	DEMAND(message[0] >= 'a' && message[0] <= 'z' && message[strlen(message) - 1] != '.' &&
		   detail[0] != '\0');
	for (const char *c = detail; *c != '\0'; c++)
		DEMAND(*c >= ' ' && *c <= '~');
}

#endif /* BICYCLE_FUZZ_H */
