/*
 * hash.c
 *	  The content hash of a model: what one resident copy is shared by, and what
 *	  a database has to show to use it. And that of a pair of images.
 *
 * SHA-256 over a tag, the canonical configuration, the number of tensors and,
 * for each in the order of stream_order, network, name, type, shape and data.
 * Every part of variable length has its length in front (64 bits, little
 * endian), so that no two models give the same bytes. Any thread.
 */
#include <endian.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "engine/executor.h"
#include "engine/stream.h"

#define TAG "bicycle model 1"

static bool
add_number(EVP_MD_CTX *context, uint64_t number)
{
	uint64_t bytes = htole64(number);

	return EVP_DigestUpdate(context, &bytes, sizeof(bytes)) == 1;
}

static bool
add_bytes(EVP_MD_CTX *context, const void *bytes, size_t length)
{
	return add_number(context, length) &&
		   (length == 0 || EVP_DigestUpdate(context, bytes, length) == 1);
}

static bool
add_tensor(EVP_MD_CTX *context, const NnTensor *tensor)
{
	const char *network = nn_network_name(tensor->network);
	const char *dtype = nn_dtype_name(tensor->dtype);

	if (!add_bytes(context, network, strlen(network)) ||
		!add_bytes(context, tensor->name, strlen(tensor->name)) ||
		!add_bytes(context, dtype, strlen(dtype)) || !add_number(context, (uint64_t) tensor->ndim))
		return false;
	for (int i = 0; i < tensor->ndim; i++)
		if (!add_number(context, (uint64_t) tensor->shape[i]))
			return false;
	executor_progress();
	return add_bytes(context, tensor->data, tensor->nbytes);
}

static EVP_MD_CTX *
hash_begin(void)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();

	if (context != NULL && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1)
		return context;
	EVP_MD_CTX_free(context);
	return NULL;
}

static bool
hash_end(EVP_MD_CTX *context, bool good, uint8_t hash[BICYCLE_HASH_BYTES], const char *what,
		 EngineError *error)
{
	good = good && EVP_DigestFinal_ex(context, hash, NULL) == 1;
	EVP_MD_CTX_free(context);
	return good || error_memory(error, what);
}

/* The text of nn_config_print, tensors in the order of stream_order. */
bool
model_hash(const char *config, const NnTensor *tensors, int ntensors,
		   uint8_t hash[BICYCLE_HASH_BYTES], EngineError *error)
{
	EVP_MD_CTX *context = hash_begin();
	bool good = context != NULL && add_bytes(context, TAG, strlen(TAG)) &&
				add_bytes(context, config, strlen(config)) &&
				add_number(context, (uint64_t) ntensors);

	for (int i = 0; i < ntensors && good; i++)
		good = add_tensor(context, &tensors[i]);
	return hash_end(context, good, hash, "the hash of a model", error);
}

/* Brings the tensors into order and compares the hash of it all. */
bool
model_verify(const BicycleLoad *load, const char *text, NnConfig *config, TensorStream *stream,
			 EngineError *error)
{
	NnError nn_error = { 0 };
	uint8_t hash[BICYCLE_HASH_BYTES];
	char *canonical;
	bool good;

	nn_config_default(config);
	if (nn_config_parse(config, text, load->config_length, &nn_error) != NN_OK ||
		nn_config_check(config, &nn_error) != NN_OK)
		return error_from_nn(error, &nn_error);
	canonical = nn_config_print(config);
	if (canonical == NULL)
		return error_memory(error, "a configuration");
	good = stream_order(config, stream->tensors, stream->ntensors, error) &&
		   model_hash(canonical, stream->tensors, stream->ntensors, hash, error);
	free(canonical);
	if (good && memcmp(hash, load->hash, sizeof(hash)) != 0)
	{
		error_set(error, "XX001", "model \"%s\" is damaged", load->model);
		error_detail(error,
					 "Its tensors or its configuration do not have the hash that was stored with "
					 "version %d.",
					 load->version);
		error_hint(error,
				   "Import it anew, or restore the tables bicycle_models and bicycle_tensors.");
		return false;
	}
	return good;
}

/* What orders training pairs, and what their digest is made of. */
bool
pair_hash(const uint8_t *a, size_t a_length, const uint8_t *b, size_t b_length,
		  uint8_t hash[BICYCLE_HASH_BYTES], EngineError *error)
{
	EVP_MD_CTX *context = hash_begin();
	bool good =
		context != NULL && add_bytes(context, a, a_length) && add_bytes(context, b, b_length);

	return hash_end(context, good, hash, "the hash of a pair", error);
}
