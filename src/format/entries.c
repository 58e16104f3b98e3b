/*
 * entries.c
 *	  The tensors of one network out of a file that may hold more.
 *
 * Works on the list of a FormatFile in place; names are shortened by pointer.
 */
#include "common/invariant.h"
#include "format/format_private.h"

#include <stdio.h>
#include <string.h>

static const char counter[] = "n_averaged"; /* torch.optim.swa_utils.AveragedModel */

/* Of a name behind `entry` and a dot the rest, else NULL. */
static const char *
behind(const char *name, const char *entry)
{
	size_t n = strlen(entry);

	if (n == 0)
		return name;
	return strncmp(name, entry, n) == 0 && name[n] == '.' && name[n + 1] != '\0' ? name + n + 1
																				 : NULL;
}

static bool
is_counter(const char *name)
{
	const char *last = strrchr(name, '.');

	return strcmp(last == NULL ? name : last + 1, counter) == 0;
}

/* "a", "b" and 3 more */
static void
list_states(const FormatFile *file, char *text, size_t size)
{
	size_t length = 0;

	text[0] = '\0';
	for (int i = 0; i < file->nstates; i++)
	{
		const char *path = file->states[i].path;

		if (length + strlen(path) + 24 > size)
		{
			snprintf(text + length, size - length, " and %d more", file->nstates - i);
			return;
		}
		length +=
			(size_t) snprintf(text + length, size - length, "%s\"%s\"", i > 0 ? ", " : "", path);
	}
}

/* One that looks like the network's, by its letter; else any. */
static const char *
likely_state(const FormatFile *file, const char *network)
{
	const char *any = "";

	for (int i = 0; i < file->nstates; i++)
	{
		const char *path = file->states[i].path;

		if (strchr(path, network[0]) != NULL)
			return path;
		any = any[0] == '\0' ? path : any;
	}
	return any;
}

static FormatStatus
fail_several(const FormatFile *file, const char *network, FormatError *error)
{
	const char *likely = likely_state(file, network);
	char states[180];

	list_states(file, states, sizeof(states));
	format_fail(error, FORMAT_ECHOICE, "Its dictionaries of tensors are %s.", states);
	if (strcmp(network, "G") == 0)
		return format_hint(
			error, "Say in config which one is meant, for example {\"entry\": \"%.80s\"}.", likely);
	return format_hint(
		error, "Say in config which one is meant, for example {\"entry\": {\"%s\": \"%.80s\"}}.",
		network, likely);
}

static FormatStatus
fail_entry(const FormatFile *file, const char *entry, FormatError *error)
{
	char states[150];

	list_states(file, states, sizeof(states));
	if (file->nstates > 1)
		format_fail(error, FORMAT_ECHOICE,
					"No tensor is in \"%.40s\"; its dictionaries of tensors are %s.", entry,
					states);
	else
		format_fail(error, FORMAT_ECHOICE, "No tensor's name begins with \"%.80s.\".", entry);
	return format_hint(error, "bicycle_inspect(file) shows the names in the file.");
}

FormatStatus
format_enter(FormatFile *file, const char *entry, const char *network, FormatError *error)
{
	int n = 0;

	INVARIANT(file->nstates > 0);

	if (entry == NULL && file->nstates > 1)
		return fail_several(file, network, error);
	for (int i = 0; i < file->ntensors; i++)
	{
		const char *name = file->tensors[i].name;
		const char *rest = behind(name, entry != NULL ? entry : file->states[0].path);

		if (rest == NULL || is_counter(rest))
			continue;
		file->tensors[n] = file->tensors[i];
		file->tensors[n++].name = rest;
	}
	if (n == 0 && entry != NULL)
		return fail_entry(file, entry, error);
	file->ntensors = n;
	file->nstates = 0;
	return FORMAT_OK;
}
