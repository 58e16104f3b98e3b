/*
 * config.c
 *	  What a model's networks are made of: defaults and the demands the fields make of each other.
 */
#include "nn/graph.h"

#include <math.h>

/* The defaults of the official code. */
void
nn_config_default(NnConfig *config)
{
	*config = (NnConfig) {
		.size = 256, .levels = 8, .input_nc = 3, .output_nc = 3, .nz = 8, .ngf = 64, .nef = 64, .ndf = 64, .where_add = NN_ADD_ALL,
		.upsample = NN_UPSAMPLE_BASIC, .norm = NN_NORM_INSTANCE, .nl = NN_ACT_RELU, .net_e = NN_ENCODER_RESNET, .encoder_size = 256, .num_ds = 2,
		.conditional_d = false, .precision = NN_PRECISION_AUTO
	};
}

/* ---- Demands ------------------------------------------------------------------------------------------------------------------------------- */

static NnStatus
check_generator(const NnConfig *c, NnError *error)
{
	int			unit = 1 << c->levels;

	if (c->size % unit != 0)
	{
		nn_fail(error, NN_EINVAL, "size %d does not suit a generator of %d levels", c->size, c->levels);
		nn_detail(error, "The image is halved %d times, so its size must be a multiple of %d.", c->levels, unit);
		nn_hint(error, "Choose size %d, or leave size out to use the generator's nominal size.", unit);
		return NN_EINVAL;
	}
	if (c->nz == 0 && c->where_add == NN_ADD_ALL)
	{
		nn_fail(error, NN_EINVAL, "where_add \"all\" needs a latent code");
		nn_detail(error, "nz is 0.");
		nn_hint(error, "Set where_add to \"input\".");
		return NN_EINVAL;
	}
	return NN_OK;
}

static NnStatus
check_encoder(const NnConfig *c, NnError *error)
{
	if (c->net_e == NN_ENCODER_NONE)
		return NN_OK;
	if (c->nz == 0)
	{
		nn_fail(error, NN_EINVAL, "an encoder needs a latent code");
		nn_detail(error, "nz is 0.");
		nn_hint(error, "Set net_e to \"none\".");
		return NN_EINVAL;
	}
	if (c->encoder_size < 64 || c->encoder_size > 512 || (c->encoder_size & (c->encoder_size - 1)) != 0)
	{
		nn_fail(error, NN_EINVAL, "encoder_size %d is out of range", c->encoder_size);
		nn_detail(error, "Encoders exist for 64, 128, 256 and 512.");
		return NN_EINVAL;
	}
	return NN_OK;
}

/* Every scale must leave a map, and a norm needs more than one element: over a single one it returns 0 whatever the input. */
static NnStatus
check_discriminator(const NnConfig *c, NnError *error)
{
	int			strided = c->size <= 128 ? 2 : 3;
	int			size = c->size;

	for (int i = 0; i < c->num_ds; i++)
	{
		int			map = size >> strided;	/* after the strided layers; each later one takes 1 off */
		bool		single = c->norm != NN_NORM_NONE && map - 1 < 2;

		if (single || map - 2 < 1 || rint(c->ndf / (double) (1 << i)) < 1)
		{
			nn_fail(error, NN_EINVAL, "num_ds %d is too large", c->num_ds);
			nn_detail(error, "Scale %d of a discriminator of width %d sees an image of %d x %d, which leaves %s.", i + 1, c->ndf, size, size,
					  single ? "a norm over a single element" : "no map");
			nn_hint(error, "Use %s.", i > 0 ? "fewer scales" : "a larger size");
			return NN_EINVAL;
		}
		size = (size + 1) / 2;
	}
	return NN_OK;
}

NnStatus
nn_config_check(const NnConfig *config, NnError *error)
{
	NnStatus	status = check_generator(config, error);

	if (status == NN_OK)
		status = check_encoder(config, error);
	if (status == NN_OK)
		status = check_discriminator(config, error);
	return status;
}
