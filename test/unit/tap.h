/*
 * tap.h
 *	  The few lines of TAP that a unit test needs. A test calls ok() for each
 *	  thing it proves and returns done_testing() from main; prove runs it.
 */
#ifndef BICYCLE_TAP_H
#define BICYCLE_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int tap_run, tap_failed;

__attribute__((format(printf, 2, 3), unused)) static bool
ok(bool passed, const char *what, ...)
{
	va_list args;

	va_start(args, what);
	printf("%sok %d - ", passed ? "" : "not ", ++tap_run);
	vprintf(what, args);
	printf("\n");
	fflush(stdout);
	va_end(args);
	if (!passed)
		tap_failed++;
	return passed;
}

__attribute__((format(printf, 1, 2), unused)) static void
diag(const char *text, ...)
{
	va_list args;

	va_start(args, text);
	printf("# ");
	vprintf(text, args);
	printf("\n");
	fflush(stdout);
	va_end(args);
}

__attribute__((unused)) static int
done_testing(void)
{
	printf("1..%d\n", tap_run);
	return tap_failed ? 1 : 0;
}

#endif /* BICYCLE_TAP_H */
