/*
 * train_golden.h
 *	  Numbers printed by the official code in float64 for two steps of nine
 *	  configurations of networks of width 8 at 128 x 128: losses, sums of
 *	  gradients and of updated parameters; and a device against them.
 */
#ifndef BICYCLE_TRAIN_GOLDEN_H
#define BICYCLE_TRAIN_GOLDEN_H

#include "train_fixture.h"

#define U NAN /* unknown */

typedef struct Golden
{
	const char *name, *json;       /* besides the widths and the size */
	double losses[2][NN_LOSSES];   /* G_GAN D G_GAN2 D2 G_L1 z_L1 kl */
	double params[2][NN_NETWORKS]; /* sums of |p| after each step: G E D D2 */
	double gradients[NN_NETWORKS]; /* sums of |gradient| in the first */
} Golden;

static const Golden train_goldens[] = {
	{ "default",
	  "",
	  { { 1.761781495, 2.13422910697, 1.28734727328, 1.75370230717, 5.46740385794, 0.382046187316,
		  0.000879236112857 },
		{ 1.60631022665, 2.04499463646, 1.21573292463, 1.69524983682, 5.42529801251, 0.364205546876,
		  0.000931803097881 } },
	  { { 11913.3723126, 988.116136369, 531.023167743, 529.873420771 },
		{ 11913.7015327, 988.127857513, 531.041073122, 529.900008969 } },
	  { 3673.15353796, 31.6091199076, 540.657682636, 345.3393194 } },
	{ "where_add = input",
	  ",\"where_add\":\"input\"",
	  { { 1.71907973234, 2.18035538105, 1.30772197421, 1.77097968559, 5.46490771827, 0.38148278485,
		  U },
		{ U, U, U, U, U, U, U } },
	  { { U, U, U, U }, { U, U, U, U } },
	  { 3289.33310549, 18.580876356, U, U } },
	{ "upsample = bilinear",
	  ",\"upsample\":\"bilinear\"",
	  { { 1.74006674112, 2.18154316444, 1.36793014154, 1.72888583686, 5.53340333833, 0.382878031105,
		  U },
		{ U, U, U, U, U, U, U } },
	  { { U, U, U, U }, { U, U, U, U } },
	  { 16532.3764383, 110.403379654, U, U } },
	{ "net_e = conv",
	  ",\"net_e\":\"conv\"",
	  { { 1.77536568909, 2.15969135817, U, U, 5.48182015345, 0.389903171373, 0.00175268892549 },
		{ U, U, U, U, U, U, U } },
	  { { U, U, U, U }, { U, U, U, U } },
	  { U, 23.6045059655, U, U } },
	{ "nl = elu",
	  ",\"nl\":\"elu\"",
	  { { 1.79267538352, 2.18235129688, 1.32697812458, U, 5.6379684671, U, U },
		{ U, U, U, U, U, U, U } },
	  { { U, U, U, U }, { U, U, U, U } },
	  { U, U, U, U } },
	{ "norm = batch",
	  ",\"norm\":\"batch\"",
	  { { 2.05878560649, 2.05185345345, U, U, 5.05310014378, 0.391243254027, 0.000343832605947 },
		{ U, U, U, U, U, U, U } },
	  { { U, U, U, U }, { U, U, U, U } },
	  { 34.3531402622, U, U, U } },
	{ "gan_mode = vanilla",
	  ",\"gan_mode\":\"vanilla\"",
	  { { 1.28129622103, 2.85323735118, 1.1570530671, 2.8819681003, U, U, U },
		{ U, U, U, U, U, U, U } },
	  { { U, U, U, U }, { U, U, U, U } },
	  { 1203.46174908, 19.9977328655, 50.6607580526, U } },
	{ "conditional_d",
	  ",\"conditional_d\":true",
	  { { 1.77640514872, 2.22352459513, 1.31859388342, 1.66744148848, U, U, U },
		{ U, U, U, U, U, U, U } },
	  { { U, U, U, U }, { U, U, U, U } },
	  { 1534.09637649, U, U, U } },
	{ "same_d",
	  ",\"same_d\":true",
	  { { U, 2.13422910697, 1.73821617405, 2.18710101126, U, U, U }, { U, U, U, U, U, U, U } },
	  { { U, U, U, U }, { U, U, U, U } },
	  { 3897.23306224, U, 1037.53688933, U } },
};

__attribute__((unused)) static bool
near(double got, double expected, double tolerance, const char *what, int which)
{
	if (isnan(expected) || fabs(got - expected) <= tolerance * fabs(expected))
		return true;
	diag("%s %d is %.12g, not %.12g", what, which, got, expected);
	return false;
}

/*
 * Biases before a norm have a gradient of 0, from whose rounding noise the
 * official code makes steps of up to lr in any direction; here they stay. So
 * sums of parameters are uncertain by that much.
 */
__attribute__((unused)) static double
noise_of(const Run *run, NnNetwork network)
{
	const NnParams *params = nn_fit_params(run->fit);
	const bool *trained = nn_fit_training(run->fit)->schedule.trained;
	double count = 0;

	for (int i = 0; i < params->n; i++)
		if (params->list[i].network == network && !params->list[i].buffer && !trained[i])
			count += (double) params->list[i].count;
	return count * run->options.lr * run->step;
}

__attribute__((unused)) static void
test_golden(NnDevice *device, const Golden *t, double tolerance, double gradients)
{
	char json[256];
	Run run;
	bool good;

	snprintf(json, sizeof(json), "{\"size\":128,\"ngf\":8,\"nef\":8,\"ndf\":8%s}", t->json);
	good = run_open(&run, device, json, 2);
	for (int step = 0; good && step < 2 && (step == 0 || !isnan(t->losses[1][0])); step++)
	{
		good = run_step(&run);
		for (int i = 0; good && i < NN_LOSSES; i++)
			good = near(run.losses.value[i], t->losses[step][i], tolerance, "loss", i);
		for (int i = 0; good && i < NN_NET_L; i++)
		{
			double sum = network_sum(&run, i, NN_ARRAY_PARAM);

			good = near(sum, t->params[step][i], tolerance + noise_of(&run, i) / sum,
						"sum of parameters of network", i) &&
				   near(network_sum(&run, i, NN_ARRAY_GRAD), step == 0 ? t->gradients[i] : U,
						gradients, "sum of gradients of network", i);
		}
	}
	ok(good, "%s of %d threads: %s", device->name, device->threads, t->name);
	run_close(&run);
}

#endif /* BICYCLE_TRAIN_GOLDEN_H */
