/*
 * Proves that on the CPU an image's bits depend on nothing but the model and
 * the image: not on the batch it is in, its place there, the number of threads,
 * or which of two loads of the model computed it (design rule "bits").
 *
 * G and E at full size, in each precision the device has. Every image is
 * computed alone on one thread; then in batches of 2 and 3, and alone, on 1, 2,
 * 4 and 16 threads, and in one of 8 and at 128 one of 16, where each byte must
 * be equal. Under a sanitizer only smaller networks and batches are run; and
 * of few channels in bf16 where its products are emulated, and with
 * BICYCLE_TEST_SMALL, for slow tools.
 *
 * Nor on whether another image of the batch has numbers that are not finite.
 *
 * And that they are the bits of other machines: those written here of a small
 * G, one for all instruction sets that multiply and add by one rounding, and
 * one for each way to multiply bfloat16, here or emulated.
 */
#include "emulated.h"
#include "nn/cpu/cpu.h"
#include "nn_fixture.h"

#if defined(__SANITIZE_ADDRESS__)
#define SLOW 1
#else
#define SLOW 0
#endif

#define IMAGES 16
#define NZ 8

static bool
small(void)
{
	return getenv("BICYCLE_TEST_SMALL") != NULL;
}

typedef struct Network
{
	NnConfig config;
	NnNetwork network;
	NnPrecision precision;
	NnParams params;
	float *weights;
	void *packed;
	NnShape shape; /* of one image */
	float *images; /* (IMAGES, shape) */
	float *z;      /* (IMAGES, NZ) */
	size_t result; /* floats of an image's result */
	float *alone;  /* (IMAGES, result): what each image gives alone, on one thread */
} Network;

static float *
numbers(uint32_t seed, size_t n)
{
	double *from = malloc(n * sizeof(double));
	float *to = malloc(n * sizeof(float));

	lcg_fill(seed, 1, n, from);
	for (size_t i = 0; i < n; i++)
		to[i] = (float) from[i];
	free(from);
	return to;
}

/*
 * The network's graph for a batch; the values to bind in the order image, z,
 * results.
 */
static void
build(const Network *net, NnGraph *g, int batch, int value[3])
{
	NnShape shape = net->shape;

	shape.n = batch;
	nn_graph_init(g, &net->params);
	value[0] = nn_input(g, shape, "image");
	if (net->network == NN_NET_G)
	{
		value[1] = nn_input(g, (NnShape){ batch, 1, 1, NZ }, "z");
		value[2] = nn_net_G(g, &net->config, value[0], value[1], 0);
	}
	else
		nn_net_E(g, &net->config, value[0], &value[1], &value[2]);
}

static NnStatus
pack(NnDevice *device, const Network *net, void **packed, NnError *error)
{
	NnGraph g;
	int value[3];
	size_t bytes;
	NnStatus status;

	build(net, &g, 1, value);
	status = device->pack(device, net->precision, &g, net->weights, packed, &bytes, error);
	nn_graph_free(&g);
	return status;
}

/*
 * Runs images [first, first + batch); results as (batch, result), malloc'ed;
 * NULL after an error.
 */
static float *
run(NnDevice *device, const Network *net, const void *packed, int first, int batch, int threads)
{
	size_t pixels = (size_t) net->shape.h * net->shape.w * net->shape.c;
	float *out = calloc((size_t) batch * net->result, sizeof(float));
	NnBinding bindings[3];
	NnGraph g;
	NnPlan plan;
	NnError error = { 0 };
	NnStatus status;
	int value[3];
	bool generator = net->network == NN_NET_G;

	build(net, &g, batch, value);
	bindings[0] = (NnBinding){ value[0], net->images + first * pixels };
	bindings[1] = (NnBinding){ value[1], generator ? net->z + first * NZ : out };
	bindings[2] = (NnBinding){ value[2], generator ? out : out + (size_t) batch * NZ };
	plan = (NnPlan){ .graph = &g, .device = device, .precision = net->precision };
	device->set_threads(device, threads);
	status = nn_plan_memory(&plan, &error);
	if (status == NN_OK)
		status = device->prepare(device, &plan, packed, &error);
	if (status == NN_OK)
	{
		status = device->run(device, &plan, packed, bindings, 3, &error);
		device->release(device, &plan);
	}
	nn_plan_free(&plan);
	nn_graph_free(&g);
	if (status == NN_OK)
		return out;
	diag("%s: %s", error.message, error.detail);
	free(out);
	return NULL;
}

/*
 * Whether image i of a batch's results equals what it gave alone. E's results
 * are mu of all images, then logvar of all.
 */
static bool
same_bits(const Network *net, const float *out, int first, int batch, int i)
{
	const float *alone = net->alone + (first + i) * net->result;

	if (net->network == NN_NET_G)
		return memcmp(out + i * net->result, alone, net->result * sizeof(float)) == 0;
	return memcmp(out + i * NZ, alone, NZ * sizeof(float)) == 0 &&
		   memcmp(out + (batch + i) * NZ, alone + NZ, NZ * sizeof(float)) == 0;
}

static void
test_batch(NnDevice *device, const Network *net, const void *packed, int first, int batch,
		   int threads, const char *what)
{
	float *out = run(device, net, packed, first, batch, threads);
	int same = 0;

	for (int i = 0; out && i < batch; i++)
		same += same_bits(net, out, first, batch, i);
	ok(out && same == batch, "%s%d %s: images %d to %d in one batch, %d thread%s%s",
	   nn_network_name(net->network), net->shape.h,
	   net->precision == NN_PRECISION_BF16 ? "bf16" : "fp32", first, first + batch - 1, threads,
	   threads == 1 ? "" : "s", what);
	free(out);
}

static bool odd_channels;

static bool
init(NnDevice *device, Network *net, NnNetwork network, int size, NnPrecision precision)
{
	NnError error = { 0 };
	double *weights;

	memset(net, 0, sizeof(*net));
	nn_config_default(&net->config);
	net->config.size = net->config.encoder_size = size;
	net->config.levels = size == 256 ? 8 : size == 128 ? 7 : 6;
	if (size == 64)
		net->config.ngf = net->config.nef = odd_channels ? 9 : 8;
	net->network = network;
	net->precision = precision;
	net->shape = (NnShape){ 1, size, size, 3 };
	net->result = network == NN_NET_G ? (size_t) size * size * 3 : 2 * NZ;
	if (nn_params_of(&net->config, 1u << network, &net->params, &error) != NN_OK)
		return false;
	weights = lcg_weights(&net->params, 1000);
	net->weights = malloc(net->params.total * sizeof(float));
	for (size_t i = 0; i < net->params.total; i++)
		net->weights[i] = (float) weights[i];
	free(weights);
	net->images = numbers(5, (size_t) IMAGES * size * size * 3);
	net->z = numbers(6, IMAGES * NZ);
	net->alone = malloc(IMAGES * net->result * sizeof(float));
	return pack(device, net, &net->packed, &error) == NN_OK;
}

static bool
compute_alone(NnDevice *device, Network *net, int images)
{
	for (int i = 0; i < images; i++)
	{
		float *out = run(device, net, net->packed, i, 1, 1);

		if (!out)
			return false;
		memcpy(net->alone + i * net->result, out, net->result * sizeof(float));
		free(out);
	}
	return true;
}

static void
free_network(NnDevice *device, Network *net)
{
	device->pack_free(device, net->packed);
	nn_params_free(&net->params);
	free(net->weights);
	free(net->images);
	free(net->z);
	free(net->alone);
}

static void
test_network(NnDevice *device, NnNetwork network, int size, NnPrecision precision)
{
	static const int batches[] = { 1, 2, 3, 8, 16 };
	static const int threads[] = { 1, 2, 4, 16 };
	Network net;
	int images = SLOW || small() ? 3 : size == 256 ? IMAGES / 2 : IMAGES;
	void *again;
	NnError error;

	if (!ok(init(device, &net, network, size, precision) && compute_alone(device, &net, images),
			"%s%d %s runs", nn_network_name(network), size,
			precision == NN_PRECISION_BF16 ? "bf16" : "fp32"))
		return;
	for (size_t b = 0; b < sizeof(batches) / sizeof(batches[0]); b++)
		for (size_t t = 0; t < sizeof(threads) / sizeof(threads[0]); t++)
		{
			/* large batches once */
			bool skip = batches[b] > images || (small() && threads[t] != 2) ||
						(batches[b] > 3 && threads[t] != (batches[b] == 8 ? 4 : 2));

			if (!skip)
				test_batch(device, &net, net.packed, batches[b] < images ? (int) t % 2 : 0,
						   batches[b], threads[t], "");
		}
	if (ok(pack(device, &net, &again, &error) == NN_OK, "the model is loaded a second time"))
	{
		test_batch(device, &net, again, 1, 2, 2, ", loaded again");
		device->pack_free(device, again);
	}
	free_network(device, &net);
}

/* ---- Numbers that are not finite ----------------------------------------- */

/*
 * An image whose numbers overflow has none; its neighbour in the batch has its
 * own. Channels are no multiple of what products pad to.
 */
static void
test_overflow(NnDevice *device, const CpuKernel *kernel)
{
	CpuDevice *cpu = device->state;
	const CpuKernel *own = cpu->bf16;
	Network net;
	float *out = NULL;
	bool finite = true;

	cpu->bf16 = kernel;
	odd_channels = true;
	if (ok(init(device, &net, NN_NET_G, 64, NN_PRECISION_BF16),
		   "G64 of odd channels is packed by %s", kernel->name))
	{
		for (int i = 0; i < NZ; i++)
			net.z[NZ + i] = 3e38f;
		if (compute_alone(device, &net, 2))
			out = run(device, &net, net.packed, 0, 2, 1);
		for (size_t i = 0; out && i < net.result; i++)
			finite = finite && isfinite(out[i]);
		ok(out && finite && !isfinite(net.alone[net.result]) && same_bits(&net, out, 0, 2, 0),
		   "its first image has its bits before one that overflows");
		free(out);
		free_network(device, &net);
	}
	odd_channels = false;
	cpu->bf16 = own;
}

/* ---- Bits of other machines ---------------------------------------------- */

static void
test_golden(NnDevice *device, NnPrecision precision, const char *name, uint64_t wanted)
{
	uint64_t hash = 14695981039346656037u;
	Network net;

	if (!ok(init(device, &net, NN_NET_G, 64, precision) && compute_alone(device, &net, 1),
			"G64 by %s runs", name))
		return;
	for (size_t i = 0; i < net.result; i++)
	{
		uint32_t bits;

		memcpy(&bits, &net.alone[i], sizeof(bits));
		hash = (hash ^ bits) * 1099511628211u;
	}
	ok(hash == wanted, "G64 by %s has everywhere the same bits (%016llx)", name,
	   (unsigned long long) hash);
	free_network(device, &net);
}

static void
test_goldens(NnDevice *device)
{
	CpuDevice *cpu = device->state;
	const CpuKernel *own = cpu->bf16;
	const struct
	{
		const CpuKernel *kernel;
		uint64_t bits;
	} bf16[] = { { &kernel_amx, 0x242cf5f7df03fe6e },
				 { &kernel_bf16, 0x3ecb9f5e220cf801 },
				 { &kernel_bfmmla, 0xdc347e0297f5faad } };

	if (cpu->kernels == &cpu_kernels_base)
	{
		test_golden(device, NN_PRECISION_FP32, "two roundings", 0x897007ac0ae3c4d8);
		return;
	}
	test_golden(device, NN_PRECISION_FP32, "one rounding", 0x215300851c757795);
	for (size_t i = 0; i < sizeof(bf16) / sizeof(bf16[0]); i++)
	{
		if (own && own->pair == bf16[i].kernel->pair && own->step == bf16[i].kernel->step)
		{
			cpu->bf16 = own;
			test_golden(device, NN_PRECISION_BF16, own->name, bf16[i].bits);
		}
		cpu->bf16 = bf16[i].kernel;
		if (!small() && !SLOW)
			test_golden(device, NN_PRECISION_BF16, bf16[i].kernel->name, bf16[i].bits);
	}
	cpu->bf16 = own;
}

int
main(void)
{
	static const NnPrecision precisions[] = { NN_PRECISION_FP32, NN_PRECISION_BF16 };
	NnDevice *device;
	NnError error;

	if (!ok(nn_device_open("cpu", 1, &device, &error) == NN_OK, "the device opens"))
		return done_testing();
	diag("%s", nn_device_describe(device));
	test_goldens(device);
	test_overflow(device, &kernel_amx);
	test_overflow(device, &kernel_bf16);
	test_overflow(device, &kernel_bfmmla);
	for (int p = 0; p < 2; p++)
	{
		if (!nn_device_supports(device, precisions[p]) || small())
		{
			if (!nn_device_supports(device, precisions[p]))
				((CpuDevice *) device->state)->bf16 = &kernel_amx;
			test_network(device, NN_NET_G, 64, precisions[p]);
			test_network(device, NN_NET_E, 64, precisions[p]);
			continue;
		}
		for (int size = 128; size <= (SLOW ? 128 : 256); size *= 2)
		{
			test_network(device, NN_NET_G, size, precisions[p]);
			test_network(device, NN_NET_E, size, precisions[p]);
		}
	}
	nn_device_close(device);
	return done_testing();
}
