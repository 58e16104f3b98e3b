/*
 * tensor_names.c
 *	  Names of tensors as people's files have them: behind prefixes of whatever
 *	  wrapped the network, and of norms that keep a weight in several tensors.
 *
 * Pure functions of a list of tensors.
 */
#include "nn/tensor_names.h"
#include "nn/nn_error.h"

#include <string.h>

/* Tensors that each generator, or each encoder, has. */
static const char *const generator_anchors[] = { "model.down.0.weight", "model.model.0.weight",
												 NULL };
static const char *const encoder_anchors[] = { "fc.0.weight", NULL };
/* of its backbone and of its heads, which are files of their own */
static const char *const metric_anchors[] = { "features.0.weight", "lin0.model.1.weight", NULL };

static const char *const *
anchors_of(NnNetwork network)
{
	return network == NN_NET_E   ? encoder_anchors
		   : network == NN_NET_L ? metric_anchors
								 : generator_anchors;
}

/* Bytes before `anchor` in a name that ends in it as whole words; -1: none. */
static int
bytes_before(const char *name, const char *anchor)
{
	size_t length = strlen(name), n = strlen(anchor);

	if (length < n || strcmp(name + length - n, anchor) != 0 ||
		(length > n && name[length - n - 1] != '.'))
		return -1;
	return (int) (length - n);
}

/* The first tensor whose name does not begin so; NULL: all do. */
static const NnTensor *
find_without(const NnTensor *tensors, int ntensors, NnNetwork network, const char *prefix, int n)
{
	for (int i = 0; i < ntensors; i++)
		if (tensors[i].network == network && strncmp(tensors[i].name, prefix, (size_t) n) != 0)
			return &tensors[i];
	return NULL;
}

/* The tensor with the shortest prefix before an anchor, and that; or NULL. */
static const NnTensor *
find_anchor(const NnTensor *tensors, int ntensors, NnNetwork network, bool common, int *before)
{
	const NnTensor *found = NULL;

	for (const char *const *anchor = anchors_of(network); *anchor != NULL; anchor++)
		for (int i = 0; i < ntensors; i++)
		{
			const char *name = tensors[i].name;
			int n = tensors[i].network == network ? bytes_before(name, *anchor) : -1;

			if (n < 0 || (found != NULL && n >= *before) ||
				(common && find_without(tensors, ntensors, network, name, n) != NULL))
				continue;
			found = &tensors[i];
			*before = n;
		}
	return found;
}

int
nn_names_prefix(const NnTensor *tensors, int ntensors, NnNetwork network)
{
	int n = 0;

	return find_anchor(tensors, ntensors, network, true, &n) != NULL ? n : 0;
}

bool
nn_names_among_others(const NnTensor *tensors, int ntensors, NnNetwork network, NnError *error)
{
	int n = 0;
	const NnTensor *found = find_anchor(tensors, ntensors, network, false, &n), *other;

	if (found == NULL || n == 0)
		return false;
	other = find_without(tensors, ntensors, network, found->name, n);
	if (other == NULL)
		return false;
	nn_detail(error, "Names of one begin with \"%.*s\", but there are others, as \"%.100s\".", n,
			  found->name, other->name);
	if (network == NN_NET_G)
		nn_hint(error, "Say so in config: {\"entry\": \"%.*s\"}.", n - 1, found->name);
	else
		nn_hint(error, "Say so in config: {\"entry\": {\"%s\": \"%.*s\"}}.",
				nn_network_name(network), n - 1, found->name);
	return true;
}

/* ---- Norms of weights ---------------------------------------------------- */

/* Whether its name ends in these words, after a dot or alone. */
static bool
ends_in_words(const NnTensor *tensor, const char *words)
{
	return bytes_before(tensor->name, words) >= 0;
}

NnStatus
nn_names_check_weights(const NnTensor *tensors, int ntensors, NnError *error)
{
	for (int i = 0; i < ntensors; i++)
	{
		const NnTensor *t = &tensors[i];
		bool parametrized = strstr(t->name, "parametrizations.weight.") != NULL;
		bool weight_norm =
			ends_in_words(t, "weight_g") || (parametrized && ends_in_words(t, "original0"));
		bool spectral_norm =
			ends_in_words(t, "weight_orig") || (parametrized && ends_in_words(t, "_u"));
		const char *what = weight_norm ? "weight norm" : spectral_norm ? "spectral norm" : NULL;

		if (what == NULL)
			continue;
		nn_fail(error, NN_EINVAL, "weights are under %s, which is not read", what);
		nn_detail(error, "There is a tensor \"%.200s\".", t->name);
		if (parametrized)
			nn_hint(error,
					"In PyTorch call "
					"torch.nn.utils.parametrize.remove_parametrizations(module, \"weight\") for "
					"each module that has one, and save state_dict() again.");
		else
			nn_hint(error,
					"In PyTorch call torch.nn.utils.remove_%s(module) for each module that has "
					"one, and save state_dict() again.",
					weight_norm ? "weight_norm" : "spectral_norm");
		return NN_EINVAL;
	}
	return NN_OK;
}
