/*
 * sample.c
 *	  bicycle_sample: n translations of one image, each under a latent code
 *	  drawn for it.
 *
 * R1 Sample k, from 1, under seed s has z = bicycle_latent(nz, s *
 *    6364136223846793005 + k), the sum taken modulo 2^64 and read as a signed
 *    number. The odd factor, Knuth's for a congruential generator, keeps the
 *    samples of neighbouring seeds apart.
 * R2 Without a seed each sample has a random one.
 * R3 An image that cannot be used, where that gives NULL, has its samples all
 *    the same: NULL beside z.
 * R4 Memory does not grow with n: a bounded number of calls is open, and rows
 *    go to a tuplestore, which spills to disk.
 */
#include "pg/translate.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nn/nn.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "pg/image_call.h"
#include "pg/latent.h"

#define SEED_FACTOR UINT64CONST(6364136223846793005)

PG_FUNCTION_INFO_V1(bicycle_sample);

typedef struct Sample
{
	Call *call;
	float *z; /* nz values */
} Sample;

typedef struct Sampler
{
	Model *model;
	bool versioned;
	bytea *image;      /* NULL: it cannot be used, and is counted */
	const int64 *seed; /* NULL: random */
	int n;
	int window;
	Sample *ring; /* sample k at (k - 1) % window */
} Sampler;

uint64
sample_counter(int64 seed, int k)
{
	return (uint64) seed * SEED_FACTOR + (uint64) k;
}

static void
sample_submit(Sampler *s, int k)
{
	Sample *slot = &s->ring[(k - 1) % s->window];
	uint64 counter;

	if (s->seed)
		counter = sample_counter(*s->seed, k);
	else if (!pg_strong_random(&counter, sizeof(counter)))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not draw a random seed")));
	nn_normal(counter, 0, s->model->nz, slot->z);
	if (s->image != NULL)
		slot->call = translate_submit(s->model, s->versioned, slot->z, s->image);
}

/* The answer to a sample; NULL if the image cannot be used. */
static bytea *
sample_wait(Sampler *s, Sample *slot)
{
	bytea *result = NULL;

	if (slot->call == NULL)
		return NULL;
	/* One image is counted once, whatever its other samples come to. */
	if (s->image != NULL && !image_answered(slot->call, s->versioned, NULL, NULL))
		s->image = NULL;
	if (s->image != NULL)
		result = image_wait(slot->call);
	call_free(slot->call);
	slot->call = NULL;
	return result;
}

static void
sample_all(Sampler *s, ReturnSetInfo *rsinfo)
{
	MemoryContext per_row =
		AllocSetContextCreate(CurrentMemoryContext, "bicycle sample", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;
	int submitted = 0;

	s->ring = palloc0(s->window * sizeof(Sample));
	for (int i = 0; i < s->window; i++)
		s->ring[i].z = palloc(Max(s->model->nz, 1) * sizeof(float));
	for (int k = 1; k <= s->n; k++)
	{
		Sample *slot = &s->ring[(k - 1) % s->window];
		Datum values[3];
		bool nulls[3] = { false };
		bytea *result;

		while (submitted < s->n && submitted < k - 1 + s->window)
			sample_submit(s, ++submitted);
		MemoryContextReset(per_row);
		old = MemoryContextSwitchTo(per_row);
		values[0] = Int32GetDatum(k);
		values[1] = PointerGetDatum(latent_array(slot->z, s->model->nz));
		result = sample_wait(s, slot);
		values[2] = PointerGetDatum(result);
		nulls[2] = result == NULL;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		MemoryContextSwitchTo(old);
	}
	MemoryContextDelete(per_row);
}

/*
 * bicycle_sample(image bytea, n int, seed bigint DEFAULT NULL, model text
 * DEFAULT NULL, version int DEFAULT NULL)
 *	  -> TABLE(sample int, z float4[], image bytea)
 */
Datum
bicycle_sample(PG_FUNCTION_ARGS)
{
	Sampler s = { 0 };
	int64 seed = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT64(2);
	int version = PG_ARGISNULL(4) ? 0 : PG_GETARG_INT32(4);
	Size bytes;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		return (Datum) 0;
	s.versioned = !PG_ARGISNULL(4);
	image_accept(PG_GETARG_DATUM(0), s.versioned, NULL, NULL, &s.image);
	s.n = PG_GETARG_INT32(1);
	if (s.n < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("number of samples must not be negative"), errdetail("It is %d.", s.n)));
	if (s.n > bicycle_max_samples)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("too many samples"),
						errdetail("%d were asked for; the limit is %d.", s.n, bicycle_max_samples),
						errhint("Ask for them in several calls with different seeds, or raise "
								"bicycle.max_samples.")));
	s.seed = PG_ARGISNULL(2) ? NULL : &seed;
	s.model =
		model_lookup(PG_ARGISNULL(3) ? NULL : PG_GETARG_TEXT_PP(3), s.versioned ? &version : NULL);
	bytes = s.image != NULL ? VARSIZE_ANY_EXHDR(s.image) : 0;
	s.window = Min(image_window(), Max(1, (int) (IMAGE_WINDOW_BYTES / Max(bytes, 1))));
	sample_all(&s, (ReturnSetInfo *) fcinfo->resultinfo);
	return (Datum) 0;
}
