/*
 * fit_options.c
 *	  The options of a training run: the presets of the six methods, and what
 *	  options demand of each other.
 *
 * All methods are one computation (fit_graph.c) with two branches. The
 * encoded branch translates A with a code read from B by E, and is on if a loss
 * that needs it has a weight; the random branch translates A with a drawn code.
 * A method is a row of the table below: the options it changes, and four facts.
 * Nothing is kept between calls.
 */
#include "nn/fit_private.h"
#include "nn/config.h"
#include "nn/nn_error.h"

#include <math.h>
#include <string.h>

#define MAX_PRESET 8

typedef struct Preset
{
	NnMethodFacts facts;
	struct
	{
		NnOptionId id;
		double value;
	} set[MAX_PRESET];
	int nset;
} Preset;

/*
 * Definitions: sections 3 and 4 of the paper; for what the official code leaves
 * out, doc/training.md. Flags that its authors give for cVAE-GAN and cLR-GAN
 * (issue 29) leave E or G with losses that are not the paper's.
 */
static const Preset presets[] = {
	[NN_METHOD_BICYCLE] = { .facts = { .encoder = true, .halves = true } },
	[NN_METHOD_CVAE_GAN] = { .facts = { .encoder = true },
							 .set = { { NN_OPT_LAMBDA_GAN2, 0 }, { NN_OPT_LAMBDA_Z, 0 } },
							 .nset = 2 },
	[NN_METHOD_CVAE_GAN_PP] = { .facts = { .encoder = true, .halves = true },
								.set = { { NN_OPT_LAMBDA_Z, 0 } },
								.nset = 1 },
	[NN_METHOD_CAE_GAN] = { .facts = { .encoder = true, .deterministic = true },
							.set = { { NN_OPT_LAMBDA_GAN2, 0 },
									 { NN_OPT_LAMBDA_Z, 0 },
									 { NN_OPT_LAMBDA_KL, 0 } },
							.nset = 3 },
	[NN_METHOD_CLR_GAN] = { .facts = { .encoder = true, .latent_trains_e = true },
							.set = { { NN_OPT_LAMBDA_GAN, 0 },
									 { NN_OPT_LAMBDA_L1, 0 },
									 { NN_OPT_LAMBDA_KL, 0 } },
							.nset = 3 },
	[NN_METHOD_PIX2PIX_NOISE] = { .set = { { NN_OPT_NET_E, NN_ENCODER_NONE },
										   { NN_OPT_ENCODER_SIZE, 0 },
										   { NN_OPT_CONDITIONAL_D, 1 },
										   { NN_OPT_LAMBDA_GAN2, 0 },
										   { NN_OPT_LAMBDA_Z, 0 },
										   { NN_OPT_LAMBDA_KL, 0 } },
								  .nset = 6 },
};

const NnMethodFacts *
nn_method_facts(NnMethod method)
{
	return &presets[method].facts;
}

unsigned
nn_train_networks(const NnConfig *config, const NnTrainOptions *options)
{
	bool d = options->lambda_gan > 0 || (options->same_d && options->lambda_gan2 > 0);
	bool d2 = options->lambda_gan2 > 0 && !options->same_d;

	return 1u << NN_NET_G | (unsigned) presets[options->method].facts.encoder << NN_NET_E |
		   (unsigned) d << NN_NET_D | (unsigned) d2 << NN_NET_D2;
}

/* ---- What options demand of each other ----------------------------------- */

static const char *
method_name(const NnTrainOptions *o)
{
	return bicycle_method_names[o->method];
}

static NnStatus
check_parts(const NnTrainOptions *o, NnError *error)
{
	bool halves = presets[o->method].facts.halves;

	if (o->batch_size % o->accumulate == 0 && (!halves || o->batch_size / o->accumulate % 2 == 0))
		return NN_OK;
	nn_fail(error, NN_EINVAL, "accumulate %d does not suit batch_size %d", o->accumulate,
			o->batch_size);
	nn_detail(error, "A batch is computed in that many parts of the same size%s.",
			  halves ? ", which is even" : "");
	nn_hint(error, "Use a batch_size that is a multiple of %d.",
			halves ? 2 * o->accumulate : o->accumulate);
	return NN_EINVAL;
}

static NnStatus
check_batch(const NnTrainOptions *o, NnError *error)
{
	if (!presets[o->method].facts.halves || (o->batch_size >= 2 && o->batch_size % 2 == 0))
		return check_parts(o, error);
	nn_fail(error, NN_EINVAL, "batch_size %d does not suit method \"%s\"", o->batch_size,
			method_name(o));
	nn_detail(error,
			  "Half of a batch is encoded, the other half gives real images to the random branch.");
	nn_hint(error, "Use an even batch_size.");
	return NN_EINVAL;
}

/*
 * The hint is the nearest that can be had, which E has a size of its own for.
 */
static NnStatus
encoder_mismatch(const NnConfig *c, NnError *error)
{
	int below = 512;
	int unit = 1 << (int) nn_options[NN_OPT_LEVELS].least;

	while (below > 64 && below > c->size)
		below /= 2;
	nn_fail(error, NN_EINVAL, "size %d does not suit an encoder of size %d", c->size,
			c->encoder_size);
	nn_detail(error, "In training the encoder reads images of the generator's size, and there are "
					 "encoders for 64, 128, 256 and 512.");
	if (below == c->size)
		nn_hint(error, "Leave encoder_size out, or set it to %d.", c->size);
	else
		nn_hint(error,
				"Train at size %d, or without an encoder: method \"pix2pix_noise\" takes any "
				"multiple of %d.",
				below, unit);
	return NN_EINVAL;
}

static NnStatus
check_code(const NnConfig *c, const NnTrainOptions *o, NnError *error)
{
	bool encoder = presets[o->method].facts.encoder;

	if (encoder && c->nz == 0)
	{
		nn_fail(error, NN_EINVAL, "method \"%s\" needs a latent code", method_name(o));
		nn_detail(error, "nz is 0.");
		nn_hint(error, "Only method \"pix2pix_noise\" works without one.");
		return NN_EINVAL;
	}
	if (encoder != (c->net_e != NN_ENCODER_NONE))
	{
		nn_fail(error, NN_EINVAL, "method \"%s\" %s", method_name(o),
				encoder ? "needs an encoder" : "has no encoder");
		nn_detail(error, "net_e is %s\"none\".", encoder ? "" : "not ");
		if (encoder)
			nn_hint(error, "Leave net_e out, or choose method \"pix2pix_noise\".");
		else
			nn_hint(error, "Leave net_e out; if a model has an encoder, choose another method or "
						   "train under the name of a new model.");
		return NN_EINVAL;
	}
	return encoder && c->encoder_size != c->size ? encoder_mismatch(c, error) : NN_OK;
}

/* Losses of a method without E that only E makes, or without its branch. */
/* The official pix2pix trains otherwise: other losses, one discriminator. */
static NnStatus
check_trained_family(const NnConfig *c, NnError *error)
{
	if (c->family == NN_FAMILY_BICYCLE)
		return NN_OK;
	nn_fail(error, NN_EINVAL, "generators of family \"pix2pix\" are not trained");
	nn_detail(error, "They are imported, and translate.");
	nn_hint(error, "Train one of family \"bicycle\", by method \"pix2pix_noise\" with nz 0.");
	return NN_EINVAL;
}

static NnStatus
check_terms(const NnTrainOptions *o, NnError *error)
{
	const struct
	{
		NnOptionId id;
		double value;
	} terms[] = { { NN_OPT_LAMBDA_GAN2, o->lambda_gan2 },
				  { NN_OPT_LAMBDA_Z, o->lambda_z },
				  { NN_OPT_LAMBDA_KL, o->lambda_kl } };

	for (size_t i = 0; i < sizeof(terms) / sizeof(terms[0]); i++)
		if (!presets[o->method].facts.encoder && terms[i].value > 0)
		{
			nn_fail(error, NN_EINVAL, "method \"%s\" has no loss for %s", method_name(o),
					nn_options[terms[i].id].name);
			nn_detail(error, "It has one branch, with random codes, and no encoder.");
			nn_hint(error, "Leave the option out or set it to 0.");
			return NN_EINVAL;
		}
	return NN_OK;
}

/* Every network must get a gradient from some loss. */
static NnStatus
check_gradients(const NnTrainOptions *o, NnError *error)
{
	const NnMethodFacts *facts = &presets[o->method].facts;
	bool encoded = o->lambda_gan > 0 || o->lambda_l1 > 0;
	bool g = encoded || o->lambda_gan2 > 0 || o->lambda_z > 0;
	bool e = encoded || o->lambda_kl > 0 || (facts->latent_trains_e && o->lambda_z > 0);

	if (g && (e || !facts->encoder))
		return NN_OK;
	nn_fail(error, NN_EINVAL, "these options leave network %s without gradient", g ? "E" : "G");
	if (g)
		nn_detail(error, "lambda_l1, lambda_gan and lambda_kl are 0%s.",
				  facts->latent_trains_e ? ", and so is lambda_z"
										 : ", and the loss of lambda_z does not train E");
	else
		nn_detail(error, "lambda_l1, lambda_gan, lambda_gan2 and lambda_z are 0.");
	nn_hint(error, "Give one of them a value above 0, or choose another method.");
	return NN_EINVAL;
}

static NnStatus
check_length(const NnTrainOptions *o, NnError *error)
{
	if (o->iterations == 0 && (int64_t) o->epochs + o->epochs_decay == 0)
	{
		nn_fail(error, NN_EINVAL, "a run must have iterations");
		nn_detail(error, "iterations, epochs and epochs_decay are 0.");
		return NN_EINVAL;
	}
	if (o->lr_policy == NN_LR_COSINE && o->epochs == 0)
	{
		nn_fail(error, NN_EINVAL, "lr_policy \"cosine\" needs epochs");
		nn_detail(error, "It falls from lr to 0 in as many as epochs says, which is 0.");
		nn_hint(error,
				"Set epochs to a value above 0, and epochs_decay to 0 for a rate that only falls.");
		return NN_EINVAL;
	}
	return NN_OK;
}

bool
nn_measure_exists(const NnConfig *c, NnMeasure metric)
{
	switch (metric)
	{
		case NN_MEASURE_Z_L1:
			return c->net_e != NN_ENCODER_NONE;
		case NN_MEASURE_DIVERSITY:
			return c->nz > 0;
		default:
			return true;
	}
}

bool
nn_measure_better(NnMeasure metric, double value, double than)
{
	return metric == NN_MEASURE_DIVERSITY ? value > than : value < than;
}

/* What validation decides needs one, and something that can be measured. */
static NnStatus
check_validation(const NnConfig *c, const NnTrainOptions *o, NnError *error)
{
	bool decides = o->keep == NN_KEEP_BEST || o->patience > 0;

	if (o->validation[0] == '\0' && (decides || o->validate_every > 0))
	{
		nn_fail(error, NN_EINVAL, "option \"%s\" needs validation pairs",
				o->keep == NN_KEEP_BEST ? "keep"
				: o->patience > 0       ? "patience"
										: "validate_every");
		nn_detail(error, "There is no query that gives them.");
		nn_hint(error, "Set the option \"validation\" to one.");
		return NN_EINVAL;
	}
	if (!decides || nn_measure_exists(c, o->keep_metric))
		return NN_OK;
	nn_fail(error, NN_EINVAL, "there is no %s to be measured",
			bicycle_measure_names[o->keep_metric]);
	nn_detail(error, "The model has no %s.",
			  o->keep_metric == NN_MEASURE_Z_L1 ? "encoder" : "latent code");
	nn_hint(error, "Set the option \"keep_metric\" to \"%s\".",
			bicycle_measure_names[NN_MEASURE_L1]);
	return NN_EINVAL;
}

static NnStatus
check_data(const NnConfig *c, const NnTrainOptions *o, NnError *error)
{
	if (o->jitter_both && o->jitter == 0)
	{
		nn_fail(error, NN_EINVAL, "option \"jitter_both\" needs jitter");
		nn_detail(error, "The option \"jitter\" is 0.");
		nn_hint(error, "Set \"jitter\" to a value above 0, as 0.2.");
		return NN_EINVAL;
	}
	if (o->diff_augment != NN_DIFF_AUGMENT_NONE && o->lambda_gan == 0 && o->lambda_gan2 == 0)
	{
		nn_fail(error, NN_EINVAL, "option \"diff_augment\" needs a discriminator");
		nn_detail(error, "lambda_gan and lambda_gan2 are 0.");
		nn_hint(error, "Leave the option out, or give one of them a value above 0.");
		return NN_EINVAL;
	}
	if (o->load_size >= c->size)
		return NN_OK;
	nn_fail(error, NN_EINVAL, "load_size %d is smaller than size %d", o->load_size, c->size);
	nn_detail(error, "Images are resized to load_size and then cropped to size.");
	return NN_EINVAL;
}

NnStatus
nn_train_options_check(const NnConfig *config, const NnTrainOptions *options, NnError *error)
{
	NnStatus status = NN_OK;

	for (int id = NN_OPTIONS; status == NN_OK && id < NN_ALL_OPTIONS; id++)
		status = nn_option_check(id, config, options, error);
	if (status == NN_OK)
		status = check_batch(options, error);
	if (status == NN_OK)
		status = check_code(config, options, error);
	if (status == NN_OK)
		status = nn_config_check(config, error);
	if (status == NN_OK)
		status = check_trained_family(config, error);
	if (status == NN_OK)
		status = check_terms(options, error);
	if (status == NN_OK)
		status = check_gradients(options, error);
	if (status == NN_OK)
		status = check_length(options, error);
	if (status == NN_OK)
		status = check_data(config, options, error);
	if (status == NN_OK)
		status = check_validation(config, options, error);
	return status;
}

/* ---- Reading and printing ------------------------------------------------ */

static void
options_default(NnTrainOptions *options)
{
	memset(options, 0, sizeof(*options));
	for (int id = NN_OPTIONS; id < NN_ALL_OPTIONS; id++)
		nn_value_reset(&nn_options[id], nn_option_field(id, NULL, options));
}

/* Defaults, then the method's, then the object's, then what follows. */
static NnStatus
read_options(NnConfig *config, NnTrainOptions *options, const json_t *object, NnError *error)
{
	NnOptionSet given;
	NnTrainOptions said;
	NnStatus status;

	options_default(&said);
	nn_config_default(config);
	*options = said;
	/* once for the method and to find errors, then over its defaults */
	status = nn_options_read(object, NN_SCOPE_TRAIN, config, &said, &given, error);
	if (status != NN_OK)
		return status;
	nn_config_default(config);
	for (int i = 0; i < presets[said.method].nset; i++)
		nn_option_put(presets[said.method].set[i].id, config, options,
					  presets[said.method].set[i].value);
	status = nn_options_read(object, NN_SCOPE_TRAIN, config, options, &given, error);
	if (status != NN_OK)
		return status;
	/* without a code the method is to be named, not a missing encoder */
	if (presets[said.method].facts.encoder)
		given.has[NN_OPT_NET_E] = true;
	nn_config_follow(config, &given);
	if (!given.has[NN_OPT_LOAD_SIZE])
		options->load_size = (int) lrint(config->size * 286.0 / 256.0);
	return NN_OK;
}

NnStatus
nn_train_options_parse(NnConfig *config, NnTrainOptions *options, const char *json, size_t length,
					   NnError *error)
{
	NnConfig read;
	NnTrainOptions also;
	json_t *object;
	NnStatus status = nn_options_load(json, length, "training", &object, error);

	if (status != NN_OK)
		return status;
	status = read_options(&read, &also, object, error);
	json_decref(object);
	if (status == NN_OK)
		status = nn_train_options_check(&read, &also, error);
	if (status == NN_OK)
	{
		*config = read;
		*options = also;
	}
	return status;
}

NnStatus
nn_create_options_parse(NnConfig *config, NnTrainOptions *options, const char *json, size_t length,
						NnError *error)
{
	NnOptionSet given;
	json_t *object;
	NnStatus status = nn_options_load(json, length, "model", &object, error);

	if (status != NN_OK)
		return status;
	nn_config_default(config);
	options_default(options);
	status = nn_options_read(object, NN_SCOPE_CREATE, config, options, &given, error);
	json_decref(object);
	if (status != NN_OK)
		return status;
	nn_config_follow(config, &given);
	return nn_config_check(config, error);
}

/* Unlike that of a model, this text is in no hash: it has all options. */
char *
nn_train_options_print(const NnConfig *config, const NnTrainOptions *options)
{
	NnConfig c = *config;
	NnTrainOptions o = *options;
	NnText text = { 0 };

	for (int id = 0; id < NN_ALL_OPTIONS; id++)
	{
		nn_text_add(&text, "%c\"%s\":", id == 0 ? '{' : ',', nn_options[id].name);
		nn_value_print(&nn_options[id], nn_option_field(id, &c, &o), &text);
	}
	nn_text_add(&text, "}");
	return text.at;
}
