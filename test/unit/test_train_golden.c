/*
 * Proves that a training step computes what the official code does, on each
 * device: losses of two steps, sums of gradients and of updated parameters, and
 * networks in training mode, against numbers printed by the official code in
 * float64 for nine configurations of networks of width 8 at 128 x 128.
 *
 * The reference device is held to 1e-8, others to 1e-4. Under a sanitizer it
 * has the first configuration only.
 */
#include "train_golden.h"

#if defined(__SANITIZE_ADDRESS__)
#define ON_REFERENCE 1
#else
#define ON_REFERENCE 9
#endif

/* ---- Networks with batch norm in training mode --------------------------- */

/*
 * One network's forward pass on one image, by the statistics of that image; the
 * sums of its first result, and that result's first element.
 */
static bool
forward(NnDevice *device, NnNetwork network, double sums[2], double *first)
{
	NnConfig config;
	NnParams params, tables[NN_NETWORKS];
	NnGraph graph;
	NnTraining training = { 0 };
	NnTensor *tensors;
	NnFeed feeds[2];
	NnShape shape = { 2, 128, 128, 3 };
	double *image = lcg_images(network == NN_NET_G ? 11 : 22, 1, shape), z[8];
	int out[NN_MAX_SCALES], n, nfeeds = 1;
	NnStatus status;
	static const char json[] = "{\"size\":128,\"ngf\":8,\"nef\":8,\"ndf\":8,\"norm\":\"batch\"}";

	nn_config_default(&config);
	status = nn_config_parse(&config, json, sizeof(json) - 1, &train_error);
	if (!went_well(status) ||
		!went_well(nn_params_of(&config, 1u << network, &params, &train_error)))
		return false;
	nn_graph_init(&graph, &params);
	graph.training = true;
	shape.n = 1;
	feeds[0] = (NnFeed){ nn_input(&graph, shape, "image"), image };
	if (network == NN_NET_G)
	{
		lcg_fill(99, 1.5, 8, z);
		feeds[nfeeds++] = (NnFeed){ nn_input(&graph, (NnShape){ 1, 1, 1, 8 }, "z"), z };
		out[0] = nn_net_G(&graph, &config, feeds[0].value, feeds[1].value, 0);
	}
	else
		nn_net_D(&graph, &config, network, feeds[0].value, out);
	nn_schedule_init(&training.schedule, &graph);
	nn_schedule_forward(&training.schedule, 0, graph.nnodes);
	training.params = &params;
	training.plan = (NnPlan){ .graph = &graph,
							  .device = device,
							  .precision = NN_PRECISION_FP32,
							  .schedule = &training.schedule };
	status = nn_training_plan(&training, &train_error);
	if (status == NN_OK)
		status = device->train->prepare(device, &training, &train_error);
	tensors = lcg_tensors(&config, 1u << network, tables, &n);
	for (int i = 0; status == NN_OK && i < n; i++)
		if (tensors[i].dtype == NN_F64)
			status = device->train->put(device, &training, NN_ARRAY_PARAM, params.list[i].offset,
										params.list[i].count, tensors[i].data, &train_error);
	if (status == NN_OK)
		status = nn_training_run(device, &training, feeds, nfeeds, NULL, 0, NULL, &train_error);
	sums[0] = sums[1] = 0;
	if (status == NN_OK)
	{
		const double *y = (const double *) training.plan.arena + training.plan.offset[out[0]];

		shape = graph.values[out[0]].shape;
		*first = y[0];
		for (int i = 0; i < shape.h * shape.w * shape.c; i++)
		{
			sums[0] += y[i];
			sums[1] += y[i] * y[i];
		}
	}
	tensors_free(tensors, n);
	for (int i = 0; i < NN_NETWORKS; i++)
		nn_params_free(&tables[i]);
	device->train->release(device, &training);
	nn_plan_free(&training.plan);
	nn_schedule_free(&training.schedule);
	nn_graph_free(&graph);
	nn_params_free(&params);
	free(image);
	return went_well(status);
}

static void
test_batch_norm(NnDevice *ref)
{
	double sums[2], first;

	ok(forward(ref, NN_NET_G, sums, &first) && near(sums[0], -1166.6085033, 1e-8, "sum", 0) &&
		   near(sums[1], 346.526461269, 1e-8, "sum of squares", 0) &&
		   near(first, 0.022579470626, 1e-8, "element", 0),
	   "G with batch norm in training mode");
	ok(forward(ref, NN_NET_D, sums, &first) && near(sums[0], -10.9837515792, 1e-8, "sum", 0),
	   "D with batch norm in training mode");
}

int
main(void)
{
	static const struct
	{
		const char *name;
		int threads;
		double tolerance, gradients; /* also of activations that round to the other side of 0 */
		size_t cases;
	} devices[] = { { "ref", 1, 1e-8, 1e-8, ON_REFERENCE },
					{ "cpu", 1, 1e-4, 1e-3, 9 },
					{ "cpu", 2, 1e-4, 1e-3, 1 } };

	for (size_t d = 0; d < sizeof(devices) / sizeof(devices[0]); d++)
	{
		NnDevice *device;

		if (!went_well(nn_device_open(devices[d].name, devices[d].threads, &device, &train_error)))
			return 1;
		for (size_t i = 0; i < devices[d].cases; i++)
			test_golden(device, &train_goldens[i], devices[d].tolerance, devices[d].gradients);
		if (device->train->dtype == NN_F64)
			test_batch_norm(device);
		nn_device_close(device);
	}
	return done_testing();
}
