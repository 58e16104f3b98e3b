/*
 * lpips.c
 *	  Calls for the distance between two images as a trained network sees it.
 *
 * R1 What is asked for is a name of its own, lpips-NET-VERSION, and its current
 *    version. Rights and row security are those of any model.
 */
#include "pg/lpips.h"

#include "utils/builtins.h"

#include "pg/image_call.h"

static const char *const nets[] = { "alex", "vgg" };
static const char *const versions[] = { "0.0", "0.1" };

static void
check_choice(const char *what, const char *given, const char *const choices[2])
{
	if (strcmp(given, choices[0]) == 0 || strcmp(given, choices[1]) == 0)
		return;
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("LPIPS has no %s \"%s\"", what, given),
					errhint("It has %s and %s.", choices[0], choices[1])));
}

Model *
lpips_model(const char *net, const char *version, bool missing_ok)
{
	char *name;
	Model *model;

	check_choice("network", net, nets);
	check_choice("version", version, versions);
	name = psprintf("lpips-%s-%s", net, version);
	model = model_find(cstring_to_text(name));
	if (model == NULL && !missing_ok)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("weights of LPIPS are not imported"),
						errdetail("There is no model \"%s\" that you may see.", name),
						errhint("Import them with \"make lpips\", or with bicycle_import_lpips.")));
	return model;
}

Call *
lpips_submit(const Model *model, const bytea *a, const bytea *b)
{
	return image_pair_submit(BICYCLE_LPIPS, model, a, b, 0);
}

double
lpips_wait(Call *call, Lpips *answer)
{
	BicycleDistance head;
	size_t length, values;
	const char *bytes = call_wait(call, &length);

	if (length < sizeof(head))
		elog(ERROR, "distance of %zu bytes", length);
	memcpy(&head, bytes, sizeof(head));
	values = head.nfeatures * sizeof(float);
	if (length != sizeof(head) + 2 * values)
		elog(ERROR, "distance of %zu bytes for %u features", length, head.nfeatures);
	if (answer == NULL)
		return head.distance;
	answer->distance = head.distance;
	answer->nfeatures = head.nfeatures;
	for (int i = 0; i < 2; i++)
	{
		answer->features[i] = palloc(Max(values, 1));
		memcpy(answer->features[i], bytes + sizeof(head) + i * values, values);
	}
	return head.distance;
}
