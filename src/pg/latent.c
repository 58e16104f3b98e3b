/*
 * latent.c
 *	  Latent codes: drawing, interpolating and checking them.
 *
 * R1 A latent code is a one-dimensional float4[] of finite numbers. Its lower
 *    bound does not matter, and an empty array is a code of length 0.
 * R2 bicycle_latent gives the same bits everywhere: nn_normal uses no libm, and
 *    the Makefile keeps the compiler from contracting products and sums.
 */
#include "pg/latent.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "nn/nn.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(bicycle_latent);
PG_FUNCTION_INFO_V1(bicycle_interpolate);
PG_FUNCTION_INFO_V1(bicycle_mean_add);
PG_FUNCTION_INFO_V1(bicycle_mean_combine);
PG_FUNCTION_INFO_V1(bicycle_mean_final);

/* A code whose values may be any. */
static const float *
latent_elements(ArrayType *z, int *nz)
{
	if (ARR_NDIM(z) > 1)
		ereport(ERROR, (errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
						errmsg("latent code must be a one-dimensional array"),
						errdetail("It has %d dimensions.", ARR_NDIM(z)),
						errhint("Use bicycle_latent to draw one.")));
	if (array_contains_nulls(z))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("latent code must not contain nulls")));
	*nz = ArrayGetNItems(ARR_NDIM(z), ARR_DIMS(z));
	return (const float *) ARR_DATA_PTR(z);
}

const float *
latent_values(ArrayType *z, int *nz)
{
	const float *values = latent_elements(z, nz);

	for (int i = 0; i < *nz; i++)
		if (!isfinite(values[i]))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("latent code must be finite"),
					 errdetail("Value %d is %s.", i + 1,
							   isnan(values[i]) ? "NaN"
							   : values[i] > 0  ? "Infinity"
												: "-Infinity")));
	return values;
}

void
latent_check_length(int nz, const Model *model)
{
	if (nz != model->nz)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("latent code has the wrong length"),
				 errdetail("It has %d values; model \"%s\" takes %d.", nz, model->name, model->nz),
				 errhint("Use bicycle_latent(%d, seed) to draw one.", model->nz)));
}

ArrayType *
latent_array(const float *values, int nz)
{
	Size bytes = ARR_OVERHEAD_NONULLS(1) + nz * sizeof(float);
	ArrayType *array;

	if (nz == 0)
		return construct_empty_array(FLOAT4OID);
	array = palloc0(bytes);
	SET_VARSIZE(array, bytes);
	array->ndim = 1;
	array->dataoffset = 0;
	array->elemtype = FLOAT4OID;
	ARR_DIMS(array)[0] = nz;
	ARR_LBOUND(array)[0] = 1;
	memcpy(ARR_DATA_PTR(array), values, nz * sizeof(float));
	return array;
}

/* bicycle_latent(nz int, seed bigint) -> float4[] */
Datum
bicycle_latent(PG_FUNCTION_ARGS)
{
	int32 nz = PG_GETARG_INT32(0);
	int64 seed = PG_GETARG_INT64(1);
	float *values;

	if (nz < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("length of a latent code must not be negative")));
	if (nz > BICYCLE_MAX_LATENT)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("latent code is too long"),
				 errdetail("%d values were asked for; the limit is %d.", nz, BICYCLE_MAX_LATENT)));
	values = palloc(Max(nz, 1) * sizeof(float));
	nn_normal((uint64) seed, 0, nz, values);
	PG_RETURN_ARRAYTYPE_P(latent_array(values, nz));
}

static double
latent_dot(const float *a, const float *b, int n)
{
	double sum = 0;

	for (int i = 0; i < n; i++)
		sum += (double) a[i] * b[i];
	return sum;
}

/*
 * bicycle_interpolate(z0 float4[], z1 float4[], t float8) -> float4[]
 *
 * Along the great circle between the directions of z0 and z1, applied to the
 * vectors as they are; linear where they are parallel or opposite. Source:
 * BicycleGAN util.py, interp_z with mode slerp. The cosine is clamped, which
 * the source does not do.
 */
Datum
bicycle_interpolate(PG_FUNCTION_ARGS)
{
	int n0;
	int n1;
	const float *z0 = latent_values(PG_GETARG_ARRAYTYPE_P(0), &n0);
	const float *z1 = latent_values(PG_GETARG_ARRAYTYPE_P(1), &n1);
	double t = PG_GETARG_FLOAT8(2);
	double cosine;
	double omega;
	double w0 = 1 - t;
	double w1 = t;
	float *values;

	if (n0 != n1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("latent codes must have the same length"),
						errdetail("The first has %d values, the second %d.", n0, n1)));
	if (!isfinite(t))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("position between latent codes must be finite")));

	cosine = latent_dot(z0, z1, n0) /
			 ((sqrt(latent_dot(z0, z0, n0)) + 1e-10) * (sqrt(latent_dot(z1, z1, n0)) + 1e-10));
	omega = acos(Min(Max(cosine, -1.0), 1.0));
	if (fabs(sin(omega)) >= 1e-10)
	{
		w0 = sin((1 - t) * omega) / sin(omega);
		w1 = sin(t * omega) / sin(omega);
	}
	values = palloc(Max(n0, 1) * sizeof(float));
	for (int i = 0; i < n0; i++)
		values[i] = (float) (w0 * z0[i] + w1 * z1[i]);
	PG_RETURN_ARRAYTYPE_P(latent_array(values, n0));
}

/* ---- bicycle_mean(z float4[]) -> float4[], an aggregate ------------------ */

/*
 * Its state is a float8[]: how many codes, then the sum of each value. NaN and
 * infinities go through it, as through avg(). Whoever calls these functions by
 * hand may pass anything.
 */
static double *
mean_state(ArrayType *state, int *nz)
{
	if (ARR_NDIM(state) != 1 || ARR_ELEMTYPE(state) != FLOAT8OID || array_contains_nulls(state))
		ereport(ERROR, (errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
						errmsg("state of a mean must be a one-dimensional array without nulls")));
	*nz = ARR_DIMS(state)[0] - 1;
	return (double *) ARR_DATA_PTR(state);
}

static ArrayType *
mean_begin(int nz)
{
	Size bytes = ARR_OVERHEAD_NONULLS(1) + (nz + 1) * sizeof(double);
	ArrayType *state = palloc0(bytes);

	SET_VARSIZE(state, bytes);
	state->ndim = 1;
	state->elemtype = FLOAT8OID;
	ARR_DIMS(state)[0] = nz + 1;
	ARR_LBOUND(state)[0] = 1;
	return state;
}

/* The first argument, which an aggregate lets be changed. */
static ArrayType *
mean_argument(FunctionCallInfo fcinfo)
{
	return AggCheckCallContext(fcinfo, NULL) ? PG_GETARG_ARRAYTYPE_P(0)
											 : PG_GETARG_ARRAYTYPE_P_COPY(0);
}

static void
mean_check_length(int nz, int expected)
{
	if (nz != expected)
		ereport(ERROR, (errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
						errmsg("latent codes must have the same length"),
						errdetail("One has %d values, those before it have %d.", nz, expected)));
}

/* bicycle_mean_add(state float8[], z float4[]) -> float8[] */
Datum
bicycle_mean_add(PG_FUNCTION_ARGS)
{
	ArrayType *state = PG_ARGISNULL(0) ? NULL : mean_argument(fcinfo);
	const float *z;
	double *sums;
	int nz;
	int n;

	if (PG_ARGISNULL(1))
	{
		if (state == NULL)
			PG_RETURN_NULL();
		PG_RETURN_ARRAYTYPE_P(state);
	}
	z = latent_elements(PG_GETARG_ARRAYTYPE_P(1), &nz);
	if (state == NULL)
		state = mean_begin(nz);
	sums = mean_state(state, &n);
	mean_check_length(nz, n);
	sums[0]++;
	for (int i = 0; i < nz; i++)
		sums[i + 1] += z[i];
	PG_RETURN_ARRAYTYPE_P(state);
}

/* bicycle_mean_combine(state float8[], other float8[]) -> float8[] */
Datum
bicycle_mean_combine(PG_FUNCTION_ARGS)
{
	ArrayType *state;
	double *sums;
	const double *more;
	int nz;
	int n;

	if (PG_ARGISNULL(1))
	{
		if (PG_ARGISNULL(0))
			PG_RETURN_NULL();
		PG_RETURN_DATUM(PG_GETARG_DATUM(0));
	}
	if (PG_ARGISNULL(0))
		PG_RETURN_ARRAYTYPE_P(PG_GETARG_ARRAYTYPE_P_COPY(1));
	state = mean_argument(fcinfo);
	sums = mean_state(state, &n);
	more = mean_state(PG_GETARG_ARRAYTYPE_P(1), &nz);
	mean_check_length(nz, n);
	for (int i = 0; i <= nz; i++)
		sums[i] += more[i];
	PG_RETURN_ARRAYTYPE_P(state);
}

/* bicycle_mean_final(state float8[]) -> float4[]; strict */
Datum
bicycle_mean_final(PG_FUNCTION_ARGS)
{
	int nz;
	const double *sums = mean_state(PG_GETARG_ARRAYTYPE_P(0), &nz);
	float *values = palloc(Max(nz, 1) * sizeof(float));

	for (int i = 0; i < nz; i++)
		values[i] = (float) (sums[i + 1] / sums[0]);
	PG_RETURN_ARRAYTYPE_P(latent_array(values, nz));
}
