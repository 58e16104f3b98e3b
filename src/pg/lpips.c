/*
 * lpips.c
 *	  bicycle_lpips: how different two images look (Zhang and others 2018).
 */
#include "pg/lpips.h"

#include "utils/builtins.h"

#include "pg/image_call.h"

PG_FUNCTION_INFO_V1(bicycle_lpips);

/* ---- The model ----------------------------------------------------------- */

static bool
is_one_of(const char *name, const char *first, const char *second)
{
	return strcmp(name, first) == 0 || strcmp(name, second) == 0;
}

char *
lpips_name(const char *net, const char *version)
{
	if (!is_one_of(net, "alex", "vgg"))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("net \"%s\" of LPIPS is not known", net),
						errhint("The nets are alex and vgg.")));
	if (!is_one_of(version, "0.1", "0.0"))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("version \"%s\" of LPIPS is not known", version),
						errhint("The versions are 0.1 and 0.0.")));
	return psprintf(RESERVED_PREFIX "%s-%s", net, version);
}

Model *
lpips_model(const char *net, const char *version, bool missing_ok)
{
	char *name = lpips_name(net, version);
	Model *model = model_lookup_comparing(name);

	if (model == NULL && !missing_ok)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("weights of LPIPS are not imported"),
						errdetail("There is no model \"%s\" that you may see.", name),
						errhint("Import them with \"make lpips\", or with bicycle_import_lpips.")));
	return model;
}

/* ---- A pair -------------------------------------------------------------- */

Call *
lpips_submit(const Model *model, const bytea *a, const bytea *b, bool upright)
{
	return image_pair_submit(BICYCLE_LPIPS, model, a, b, upright ? BICYCLE_FLAG_EXIF : 0);
}

double
lpips_wait(Call *call, Lpips *answer)
{
	size_t length;
	const char *bytes = call_wait(call, &length);
	BicycleDistance distance;
	size_t features;

	if (length < sizeof(distance))
		elog(ERROR, "distance of %zu bytes", length);
	memcpy(&distance, bytes, sizeof(distance));
	features = distance.nfeatures * sizeof(float);
	if (length != sizeof(distance) + 2 * features)
		elog(ERROR, "distance of %zu bytes for %u features", length, distance.nfeatures);
	if (answer != NULL)
	{
		answer->distance = distance.distance;
		answer->nfeatures = (int) distance.nfeatures;
		for (int i = 0; i < 2; i++)
		{
			answer->features[i] = palloc(Max(features, 1));
			memcpy(answer->features[i], bytes + sizeof(distance) + i * features, features);
		}
	}
	return distance.distance;
}

/*
 * bicycle_lpips(a bytea, b bytea, net text DEFAULT 'alex', version text DEFAULT
 * '0.1') -> float8; strict
 */
Datum
bicycle_lpips(PG_FUNCTION_ARGS)
{
	bytea *a;
	bytea *b;
	bool usable = image_accept(PG_GETARG_DATUM(0), false, NULL, NULL, &a) &&
				  image_accept(PG_GETARG_DATUM(1), false, NULL, NULL, &b);
	Model *model = lpips_model(text_to_cstring(PG_GETARG_TEXT_PP(2)),
							   text_to_cstring(PG_GETARG_TEXT_PP(3)), false);
	bool answered;
	double distance = 0;
	Call *call;

	if (!usable)
		PG_RETURN_NULL();
	call = lpips_submit(model, a, b, bicycle_exif);
	answered = image_answered(call, false, NULL, NULL);
	if (answered)
		distance = lpips_wait(call, NULL);
	call_free(call);
	if (!answered)
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(distance);
}
