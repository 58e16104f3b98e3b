/*
 * cudnn_keep.c
 *	  Plans on disk, as cuDNN's JSON: what was chosen once need not be timed
 *	  again at the next start.
 *
 * R1 A file is of one problem on one card, by one version of its driver and of
 *    cuDNN: its name is a hash of all of that, its first line says it.
 * R2 Its second line is a hash of the rest. A file that is not what it was when
 *    it was written is as one that is not there, and is written anew.
 * R3 Files appear whole: engines of several cards share the directory, which is
 *    BICYCLE_PLAN_CACHE. Without it nothing is kept.
 * R4 Steady shapes are not kept: they are not timed, and there may be any
 *    number of them.
 */
#include "nn/cuda/cudnn_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct PlanFile
{
	char path[4096], key[800];
} PlanFile;

/* FNV-1a */
uint64_t
cudnn_hash_text(const char *text)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (; *text; text++)
		hash = (hash ^ (uint8_t) *text) * UINT64_C(0x100000001b3);
	return hash;
}

/* The file of a problem; false if it is not kept. */
static bool
name_file(const CudaConv *conv, PlanFile *file)
{
	const char *directory = getenv("BICYCLE_PLAN_CACHE");
	const CudaConvShape *s = &conv->shape;

	if (!directory || !*directory || s->steady)
		return false;
	snprintf(file->key, sizeof(file->key),
			 "%s %d%s (%d,%d,%d,%d) to (%d,%d,%d) kernel %d stride %d pad %d, %d timed, pinned %d, "
			 "%s, %s",
			 cudnn_kind_name(s->kind), (int) s->type, s->tf32 ? " tf32" : "", s->n, s->h, s->w,
			 s->c, s->oh, s->ow, s->k, s->kernel, s->stride, s->pad,
			 cudnn_is_tuned(conv->convs, s) ? conv->convs->tune : 0,
			 cudnn_pinned_to(conv->convs, s), conv->convs->device_name, conv->convs->name);
	return snprintf(file->path, sizeof(file->path), "%s/%016" PRIx64 ".plan", directory,
					cudnn_hash_text(file->key)) < (int) sizeof(file->path);
}

/* Reads a file as text; false if it is not there, or too long to be ours. */
static bool
read_text(const char *path, char text[CUDNN_MAX_TEXT])
{
	FILE *file = fopen(path, "re");
	size_t length;

	if (!file)
		return false;
	length = fread(text, 1, CUDNN_MAX_TEXT - 1, file);
	fclose(file);
	text[length] = '\0';
	return length < CUDNN_MAX_TEXT - 1;
}

/* The JSON of a file's text; NULL unless all of it is what was written. */
static const char *
sound_json(const char *text, const char *key)
{
	size_t length = strlen(key);
	uint64_t hash;
	int end = 0;

	if (strncmp(text, key, length) != 0 || text[length] != '\n')
		return NULL;
	text += length + 1;
	if (sscanf(text, "%16" SCNx64 "%n", &hash, &end) != 1 || end != 16 || text[end] != '\n')
		return NULL;
	text += end + 1;
	return cudnn_hash_text(text) == hash ? text : NULL;
}

static void
take_plan(CudaConv *conv, const char *json)
{
	const CudnnLibrary *lib = &conv->convs->lib;
	CudnnDescs d = { .convs = conv->convs };
	cudnnBackendDescriptor_t plan = cudnn_make(&d, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
	int64_t one;

	cudnn_set_target(&d, plan);
	cudnn_set(&d, plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
			  (int64_t) strlen(json) + 1, json);
	cudnn_finalize(&d, plan);
	if (d.status == CUDNN_STATUS_SUCCESS)
		d.status = lib->get(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
							&one, &conv->choice.workspace);
	if (d.status == CUDNN_STATUS_SUCCESS && conv->choice.workspace <= conv->most_workspace)
		conv->plan = cudnn_keep_last(&d);
	cudnn_drop_all(&d);
}

bool
cudnn_read_plan(CudaConv *conv)
{
	char *text = malloc(CUDNN_MAX_TEXT);
	const char *json = NULL;
	PlanFile file;

	if (text && name_file(conv, &file) && read_text(file.path, text))
		json = sound_json(text, file.key);
	if (json)
		take_plan(conv, json);
	free(text);
	return conv->plan != NULL;
}

/* Writes a file beside, and moves it to its place. */
static void
write_text(const PlanFile *place, const char *json)
{
	char temporary[sizeof(place->path) + 32];
	FILE *file;
	bool good;

	snprintf(temporary, sizeof(temporary), "%s.%d", place->path, (int) getpid());
	file = fopen(temporary, "we");
	if (!file && mkdir(getenv("BICYCLE_PLAN_CACHE"), 0700) == 0)
		file = fopen(temporary, "we");
	if (!file)
		return;
	good = fprintf(file, "%s\n%016" PRIx64 "\n%s", place->key, cudnn_hash_text(json), json) > 0;
	good &= fclose(file) == 0;
	if (!good || rename(temporary, place->path) != 0)
		(void) unlink(temporary);
}

void
cudnn_write_plan(const CudaConv *conv)
{
	char *json = calloc(1, CUDNN_MAX_TEXT);
	int64_t length = 0;
	PlanFile file;

	if (json && name_file(conv, &file) &&
		conv->convs->lib.get(conv->plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
							 CUDNN_TYPE_CHAR, CUDNN_MAX_TEXT - 1024, &length,
							 json) == CUDNN_STATUS_SUCCESS)
		write_text(&file, json);
	free(json);
}
