/*
 * Proves the sizes of the official networks, and that tensors of every float
 * type become the same floats whatever their alignment and order.
 */
#include "nn_fixture.h"

/*
 * Counts of parameters that the official code's networks have (buffers left
 * out).
 */
static void
test_counts(void)
{
	static const struct
	{
		const char *json;
		NnNetwork network;
		size_t count;
	} known[] = {
		{ "{}", NN_NET_G, 54794627 },
		{ "{\"where_add\":\"input\"}", NN_NET_G, 54417795 },
		{ "{\"upsample\":\"bilinear\"}", NN_NET_G, 39538435 },
		{ "{\"size\":128}", NN_NET_G, 42145155 },
		{ "{\"size\":128,\"where_add\":\"input\"}", NN_NET_G, 41833859 },
		{ "{\"norm\":\"batch\"}", NN_NET_G, 54804483 },
		{ "{}", NN_NET_E, 2590032 },
		{ "{\"size\":128}", NN_NET_E, 1344080 },
		{ "{\"net_e\":\"conv\"}", NN_NET_E, 2760656 },
		{ "{\"size\":128,\"net_e\":\"conv\"}", NN_NET_E, 1711824 },
		{ "{\"norm\":\"batch\"}", NN_NET_E, 2592592 },
		{ "{}", NN_NET_D, 3458978 },
		{ "{\"conditional_d\":true}", NN_NET_D, 3463586 },
		{ "{\"size\":128}", NN_NET_D2, 830626 },
		{ "{\"size\":128,\"conditional_d\":true}", NN_NET_D2, 835234 },
		{ "{\"num_ds\":1}", NN_NET_D, 2764737 },
		{ "{\"num_ds\":3}", NN_NET_D, 3634067 },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
	{
		NnConfig config;
		NnParams params;
		NnError error;
		size_t count = 0;

		nn_config_default(&config);
		if (nn_config_parse(&config, known[i].json, strlen(known[i].json), &error) != NN_OK ||
			nn_params_of(&config, 1u << known[i].network, &params, &error) != NN_OK)
		{
			ok(false, "%s: %s", known[i].json, error.message);
			continue;
		}
		for (int k = 0; k < params.n; k++)
			count += params.list[k].buffer ? 0 : params.list[k].count;
		ok(count == known[i].count, "%s of %s has %zu parameters",
		   nn_network_name(known[i].network), known[i].json, count);
		nn_params_free(&params);
	}
}

static void
test_networks_together(void)
{
	NnConfig config;
	NnParams params;
	NnError error;
	bool ordered = true;

	nn_config_default(&config);
	nn_params_of(&config, 1u << NN_NET_G | 1u << NN_NET_E | 1u << NN_NET_D | 1u << NN_NET_D2,
				 &params, &error);
	ok(params.total == 54794627 + 2590032 + 2 * 3458978, "four networks in one flat array");
	for (int i = 1; i < params.n; i++)
		ordered &= params.list[i].network >= params.list[i - 1].network &&
				   params.list[i].offset == params.list[i - 1].offset + params.list[i - 1].count;
	ok(ordered, "one after the other, without gaps");
	ok(nn_params_find(&params, NN_NET_D2, "model_1.8.bias") == params.n - 3 &&
		   nn_params_find(&params, NN_NET_E, "model_1.8.bias") == -1,
	   "a parameter is found by network and name");
	nn_params_free(&params);
	config.net_e = NN_ENCODER_NONE;
	config.encoder_size = 0;
	ok(nn_params_of(&config, 1u << NN_NET_E, &params, &error) == NN_OK && params.n == 0,
	   "no encoder has no parameters");
	nn_params_free(&params);
	config.levels = 5;
	ok(nn_params_of(&config, 1u << NN_NET_G, &params, &error) == NN_EINVAL && params.n == 0,
	   "a bad configuration is refused");
}

/* ---- Filling ------------------------------------------------------------- */

/* A table of one parameter of `count` numbers. */
static NnParams
one_param(NnParam *p, size_t count)
{
	*p = (NnParam){ .name = (char *) "w", .ndim = 1, .shape = { (int64_t) count }, .count = count };
	return (NnParams){ .list = p, .n = 1, .total = count };
}

static NnStatus
fill(NnDtype dtype, const void *data, size_t count, float *out)
{
	NnParam p;
	NnParams params = one_param(&p, count);
	NnTensor t = { .name = "w",
				   .dtype = dtype,
				   .ndim = 1,
				   .shape = { (int64_t) count },
				   .data = data,
				   .nbytes = count * nn_dtype_size(dtype) };
	NnError error;

	return nn_params_fill(&params, &t, 1, out, &error);
}

/*
 * All 65536 halves: sign, 5 bits of exponent with bias 15, 10 bits of fraction.
 */
static void
test_halves(void)
{
	uint16_t *all = malloc(65536 * 2);
	float *got = malloc(65536 * 4);
	int wrong = 0;

	for (int i = 0; i < 65536; i++)
		all[i] = (uint16_t) i;
	fill(NN_F16, all, 65536, got);
	for (int i = 0; i < 65536; i++)
	{
		int exponent = i >> 10 & 31, fraction = i & 1023;
		double magnitude = exponent == 0    ? ldexp(fraction, -24)
						   : exponent == 31 ? (fraction ? NAN : INFINITY)
											: ldexp(1024 + fraction, exponent - 25);

		if (isnan(magnitude) ? !isnan(got[i])
							 : (got[i] != (float) (i & 0x8000 ? -magnitude : magnitude) ||
								!signbit(got[i]) != !(i & 0x8000)))
			wrong++;
	}
	ok(wrong == 0, "every F16 becomes its value");
	fill(NN_BF16, all, 65536, got);
	wrong = 0;
	for (int i = 0; i < 65536; i++)
	{
		uint32_t bits;

		memcpy(&bits, &got[i], 4);
		wrong += bits != (uint32_t) i << 16;
	}
	ok(wrong == 0, "every BF16 becomes its value");
	free(all);
	free(got);
}

static void
test_unaligned(void)
{
	static const double values[] = { 0.1, -1e300, 3, 1e-320 };
	char bytes[64];
	float got[4];

	memcpy(bytes + 1, values, sizeof(values));
	ok(fill(NN_F64, bytes + 1, 4, got) == NN_OK && got[0] == 0.1f && isinf(got[1]) && got[2] == 3 &&
		   got[3] == 0,
	   "F64 is rounded, from any address");
	for (int i = 0; i < 4; i++)
		memcpy(bytes + 3 + 4 * i, &(float){ (float) i + 0.5f }, 4);
	ok(fill(NN_F32, bytes + 3, 4, got) == NN_OK && got[3] == 3.5f,
	   "F32 is copied, from any address");
}

static void
test_refusals(void)
{
	static const float values[6] = { 1, 2, 3, 4, 5, 6 };
	NnParam list[] = {
		{ .name = (char *) "a", .network = NN_NET_E, .ndim = 2, .shape = { 2, 3 }, .count = 6 },
		{ .name = (char *) "n",
		  .network = NN_NET_E,
		  .count = 1,
		  .offset = 6,
		  .buffer = true,
		  .integer = true },
	};
	NnParams params = { .list = list, .n = 2, .total = 7 };
	NnTensor t = { .name = "a",
				   .network = NN_NET_E,
				   .dtype = NN_F32,
				   .ndim = 2,
				   .shape = { 2, 3 },
				   .data = values,
				   .nbytes = sizeof(values) };
	NnTensor bad;
	NnError error;
	float got[7] = { [6] = 9 };

	ok(nn_params_fill(&params, &t, 1, got, &error) == NN_OK && got[5] == 6 && got[6] == 0,
	   "a missing count of batches is 0");
	bad = t;
	bad.network = NN_NET_G;
	ok(nn_params_fill(&params, &bad, 1, got, &error) == NN_EINVAL &&
		   strstr(error.message, "\"a\" of network E is missing"),
	   "another network's tensor");
	bad = t;
	bad.shape[0] = 3, bad.shape[1] = 2;
	ok(nn_params_fill(&params, &bad, 1, got, &error) == NN_EINVAL &&
		   strstr(error.message, "wrong type or shape"),
	   "another shape");
	bad = t;
	bad.dtype = NN_I32;
	ok(nn_params_fill(&params, &bad, 1, got, &error) == NN_EINVAL &&
		   strstr(error.message, "wrong type or shape"),
	   "integers");
	bad = t;
	bad.nbytes = 23;
	ok(nn_params_fill(&params, &bad, 1, got, &error) == NN_EINVAL &&
		   strstr(error.message, "wrong length"),
	   "too few bytes");
	bad = t;
	bad.data = NULL;
	ok(nn_params_fill(&params, &bad, 1, got, &error) == NN_EINVAL &&
		   strstr(error.message, "wrong length"),
	   "no data");
}

static void
test_names(void)
{
	NnDtype dtype;
	NnNetwork network;
	bool good = true;

	for (int i = NN_F32; i <= NN_U8; i++)
		good &= nn_dtype_from_name(nn_dtype_name((NnDtype) i), &dtype) && dtype == (NnDtype) i &&
				nn_dtype_size(dtype) > 0;
	for (int i = 0; i < NN_NETWORKS; i++)
		good &= nn_network_from_name(nn_network_name((NnNetwork) i), &network) &&
				network == (NnNetwork) i;
	ok(good, "types and networks are named and found by name");
	ok(!nn_dtype_from_name("F128", &dtype) && !nn_network_from_name("g", &network) &&
		   nn_dtype_size((NnDtype) 99) == 0,
	   "others are not");
}

int
main(void)
{
	test_counts();
	test_networks_together();
	test_halves();
	test_unaligned();
	test_refusals();
	test_names();
	return done_testing();
}
