/*
 * test_nn_module.c
 *	  A CUDA module of another build is told by sizes and version, whichever
 *	  differs; of one whose structure was shorter nothing behind it is read.
 */
#include "nn/cuda/module.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

int
main(void)
{
	const NnCudaModule good = { .sizes = NN_CUDA_SIZES, .version = BICYCLE_VERSION };
	const size_t nsizes = sizeof(good.sizes) / sizeof(good.sizes[0]);
	static const char *const versions[] = { "", "0.1", BICYCLE_VERSION "1", "0123456789abcdef" };
	NnCudaModule *shorter = malloc(sizeof(good.sizes));

	ok(nn_cuda_module_fits(&good), "a module of this build");
	for (size_t i = 0; i < nsizes; i++)
	{
		NnCudaModule other = good;

		other.sizes[i] += 8;
		ok(!nn_cuda_module_fits(&other), "size %zu is another one", i);
	}
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++)
	{
		NnCudaModule other = good;

		memset(other.version, 0, sizeof(other.version));
		memcpy(other.version, versions[i], strlen(versions[i]));
		ok(!nn_cuda_module_fits(&other), "version \"%s\"", versions[i]);
	}
	memcpy(shorter, good.sizes, sizeof(good.sizes));
	memset((char *) shorter + sizeof(good.sizes) - sizeof(size_t), 0x7f, sizeof(size_t));
	ok(!nn_cuda_module_fits(shorter), "a structure without a version");
	free(shorter);
	return done_testing();
}
