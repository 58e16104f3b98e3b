/*
 * hex.h
 *	  Images as psql prints them: for programs that read the results of queries.
 */
#ifndef BICYCLE_TOOLS_HEX_H
#define BICYCLE_TOOLS_HEX_H

#include <stdbool.h>
#include <stddef.h>

static inline int
hex_digit(int c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/*
 * Turns text, hexadecimal with or without a leading "\x", into bytes where it
 * stands and says how many; false if it is not hexadecimal.
 */
static inline bool
unhex(char *text, size_t length, size_t *nbytes)
{
	const char *digits = text;

	if (length >= 2 && text[0] == '\\' && text[1] == 'x')
	{
		digits += 2;
		length -= 2;
	}
	if (length % 2 != 0)
		return false;
	for (size_t i = 0; i < length / 2; i++)
	{
		int high = hex_digit(digits[2 * i]), low = hex_digit(digits[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		text[i] = (char) (high << 4 | low);
	}
	*nbytes = length / 2;
	return true;
}

#endif /* BICYCLE_TOOLS_HEX_H */
