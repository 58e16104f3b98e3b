/*
 * cudnn_library.c
 *	  Opens cuDNN with dlopen and looks its functions up.
 *
 * Its headers are needed to build, the library only to run. A minor version
 * later than the one built with will do, an earlier one is refused, as is one
 * of which a part is missing. No state.
 */
#include "nn/cuda/cudnn_library.h"

#include "nn/nn_error.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define LIBRARY "libcudnn.so.9"

static const struct
{
	const char *name;
	size_t offset;
} functions[] = {
	{ "cudnnGetVersion", offsetof(CudnnLibrary, version) },
	{ "cudnnCreate", offsetof(CudnnLibrary, create) },
	{ "cudnnDestroy", offsetof(CudnnLibrary, destroy) },
	{ "cudnnSetStream", offsetof(CudnnLibrary, set_stream) },
	{ "cudnnGetLastErrorString", offsetof(CudnnLibrary, last_error) },
	{ "cudnnBackendCreateDescriptor", offsetof(CudnnLibrary, make) },
	{ "cudnnBackendDestroyDescriptor", offsetof(CudnnLibrary, drop) },
	{ "cudnnBackendFinalize", offsetof(CudnnLibrary, finalize) },
	{ "cudnnBackendSetAttribute", offsetof(CudnnLibrary, set) },
	{ "cudnnBackendGetAttribute", offsetof(CudnnLibrary, get) },
	{ "cudnnBackendExecute", offsetof(CudnnLibrary, execute) },
};

/* That a library is missing; dlerror() says why. */
static NnStatus
no_library(NnError *error, const char *what, const char *name)
{
	const char *why = dlerror();

	nn_fail(error, NN_EUNSUPPORTED, "%s", what);
	nn_detail(error, "%s could not be loaded: %s.", name, why ? why : "unknown error");
	nn_hint(error,
			"Install all of cuDNN %d and cuBLAS for CUDA 13 where the dynamic linker finds them, "
			"or set \"bicycle.device\" to auto or cpu.",
			CUDNN_MAJOR);
	return NN_EUNSUPPORTED;
}

/*
 * Loads a library that cuDNN will look for: beside it, in the directories of
 * NVIDIA's Python packages, or wherever the linker looks.
 */
static bool
load_part(const char *directory, int cuda, const char *name)
{
	char path[4096 + 160];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	if (dlopen(path, RTLD_LAZY | RTLD_LOCAL))
		return true;
	snprintf(path, sizeof(path), "%s/../../cu%d/lib/%s", directory, cuda, name);
	if (dlopen(path, RTLD_LAZY | RTLD_LOCAL))
		return true;
	snprintf(path, sizeof(path), "%s/../../cublas/lib/%s", directory, name);
	return dlopen(path, RTLD_LAZY | RTLD_LOCAL) || dlopen(name, RTLD_LAZY | RTLD_LOCAL);
}

/*
 * cuDNN is a library that opens others when they are first needed, and ends the
 * process if one of them is missing (seen with 9.19: "Invalid handle. Cannot
 * load symbol cublasLtGetVersion", and abort). So they are loaded here
 * beforehand, and it finds them loaded. cuBLAS is that of the CUDA that cuDNN
 * was built for.
 */
static NnStatus
load_parts(void *library, NnError *error)
{
	static const char *const parts[] = { "libcudnn_graph.so.9", "libcudnn_heuristic.so.9",
										 "libcudnn_engines_precompiled.so.9",
										 "libcudnn_engines_runtime_compiled.so.9" };
	size_t (*cudart_version)(void);
	void *function = dlsym(library, "cudnnGetCudartVersion");
	Dl_info info = { 0 };
	char directory[4096], blas[40];
	int cuda;

	if (!function || dladdr(function, &info) == 0 || !info.dli_fname)
		return no_library(error, "cuDNN is not usable", LIBRARY);
	snprintf(directory, sizeof(directory), "%s", info.dli_fname);
	if (strrchr(directory, '/'))
		*strrchr(directory, '/') = '\0';
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (!load_part(directory, CUDART_VERSION / 1000, parts[i]))
			return no_library(error, "cuDNN is incomplete", parts[i]);
	memcpy(&cudart_version, &function, sizeof(function));
	cuda = (int) (cudart_version() / 1000);
	snprintf(blas, sizeof(blas), "libcublasLt.so.%d", cuda);
	return load_part(directory, cuda, blas)
			   ? NN_OK
			   : no_library(error, "no cuBLAS, which cuDNN needs", blas);
}

NnStatus
cudnn_load(CudnnLibrary *lib, NnError *error)
{
	void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	NnStatus status;

	if (!library)
		return no_library(error, "no cuDNN", LIBRARY);
	status = load_parts(library, error);
	if (status != NN_OK)
		return status;
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
	{
		void *function = dlsym(library, functions[i].name);

		if (!function)
			return nn_fail(error, NN_EUNSUPPORTED, "cuDNN has no function \"%s\"",
						   functions[i].name);
		memcpy((char *) lib + functions[i].offset, &function, sizeof(function));
	}
	if (lib->version() < CUDNN_VERSION)
	{
		nn_fail(error, NN_EUNSUPPORTED, "cuDNN is too old");
		nn_detail(error, "Its version is %zu, and the device was built with %d.", lib->version(),
				  CUDNN_VERSION);
		nn_hint(
			error,
			"Install a cuDNN as new as that, or build with the headers of the one that is there.");
		return NN_EUNSUPPORTED;
	}
	return NN_OK;
}
