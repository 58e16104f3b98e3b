/*
 * sass.cu
 *	  The kernels that large maps meet, compiled for one path each, for sass.pl
 *	  to count: half precision in whole vectors, what the official generator's
 *	  layers do. Compiled by that alone, and never run.
 *
 * What a launch says of types and activations is fixed here, so that a compiler
 * leaves what it rules out away and what is left is what a warp executes, but
 * for the branches themselves, of which there are about eight a reader.
 */
#include "bias_act.cu"
#include "instance_norm.cu"

static __device__ __forceinline__ void
fix_map(KernelMap *map)
{
	map->type = KERNEL_BF16;
	map->vector = true;
}

/* As on the way down: leaky for the next layer, relu for the one back up. */
static __device__ __forceinline__ KernelFinish
fixed_finish(const KernelFinish &given, bool latent)
{
	KernelFinish f = given;

	fix_map(&f.x);
	for (int i = 0; i < 2; i++)
	{
		fix_map(&f.out[i].map);
		f.out[i].act.first = i == 0 ? NN_ACT_LRELU : NN_ACT_RELU;
		f.out[i].act.second = NN_ACT_NONE;
	}
	f.latent = latent ? f.latent : NULL;
	return f;
}

#define COUNTED(name, of, Args, latents, ...)                                                  \
	extern "C" __global__ void __launch_bounds__(256) name(const __grid_constant__ Args given) \
	{                                                                                          \
		Args a = given;                                                                        \
                                                                                               \
		a.f = fixed_finish(given.f, latents);                                                  \
		__VA_ARGS__;                                                                           \
		of(a, KERNEL_WHOLE_BF16);                                                              \
	}

COUNTED(counted_bias_act, bias_act_of, BiasAct, false, a.f.scale = NULL)
COUNTED(counted_bias_act_latent, bias_act_of, BiasAct, true, a.f.scale = NULL)
COUNTED(counted_norm_statistics, instance_norm_statistics_of, InstanceNorm, false, (void) 0)
COUNTED(counted_norm_statistics_latent, instance_norm_statistics_of, InstanceNorm, true, (void) 0)
COUNTED(counted_norm_apply, instance_norm_apply_of, InstanceNorm, false,
		a.f.scale = a.f.shift = NULL)
COUNTED(counted_norm_apply_latent, instance_norm_apply_of, InstanceNorm, true,
		a.f.scale = a.f.shift = NULL)
COUNTED(counted_norm_small, instance_norm_small_of, InstanceNorm, false,
		a.f.scale = a.f.shift = NULL)
