# The CUDA device, and its imitation for tests; a part of the Makefile.
#
# The device is a library of its own, which the engine opens if it finds it. Built where nvcc and
# cuDNN's headers are; NVCC= builds without. By default kernels are compiled for the GPUs that are
# here, as far as nvcc knows them, and to PTX, which the driver of any other makes into its own code
# when they are first loaded; that may take a minute. CUDA_ARCH=release compiles for all GPUs there
# are, CUDA_ARCH="80 90" for those, and to PTX for later ones.

NVCC ?= $(shell command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
CUDA_HOME ?= $(abspath $(dir $(shell readlink -f "$(NVCC)" 2>/dev/null))..)
CUDNN_INCLUDE ?= $(patsubst %/cudnn.h,%,$(firstword $(wildcard $(addsuffix /cudnn.h, \
	$(CUDA_HOME)/include /usr/include /usr/include/x86_64-linux-gnu))))
CUDNN_LIB ?= $(firstword $(dir $(wildcard $(CUDA_HOME)/lib64/libcudnn.so.9)))
comma = ,
CUDA_ARCH ?=
CUDA_HERE := $(if $(NVCC),$(if $(CUDA_ARCH),,$(filter $(subst sm_,,$(shell \
	$(NVCC) --list-gpu-code 2>/dev/null)),$(subst .,,$(shell \
	nvidia-smi --query-gpu=compute_cap --format=csv$(comma)noheader 2>/dev/null)))))
CUDA_CODE = $(if $(filter release,$(CUDA_ARCH)),75 80 86 89 90 100 120,$(sort $(CUDA_ARCH) \
	$(CUDA_HERE)))
CUDA_PTX = $(if $(CUDA_ARCH),$(lastword $(CUDA_CODE)),75 80)
CUDA_LIB = $(patsubst %/libcudart_static.a,%,$(firstword $(wildcard $(addsuffix \
	/libcudart_static.a,$(addprefix $(CUDA_HOME)/,lib64 targets/x86_64-linux/lib lib)))))
CUDA_LACK = $(if $(NVCC),$(if $(CUDNN_INCLUDE),$(if $(CUDA_LIB),,no libcudart_static.a found),$\
	no cudnn.h found),no nvcc found)
CUDA_MODULE = $(if $(CUDA_LACK),,$(CUDA_B)/bicycle_cuda.so)
# One for all variants: it is compiled without sanitizers.
CUDA_B = $(BUILD)/release

NVCC_WARNINGS ?= $(if $(WERROR),-Werror all-warnings)
CUDA_FLAGS = -O3 -lineinfo -Isrc -Ikernels \
	-Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wno-unknown-pragmas $(NVCC_WARNINGS) \
	$(foreach a,$(CUDA_CODE),-gencode arch=compute_$a,code=sm_$a) \
	$(foreach a,$(CUDA_PTX),-gencode arch=compute_$a,code=compute_$a)
CUDA_CFLAGS = -std=gnu11 $(ENGINE_OPT_release) $(WARNINGS) $(if $(TRACE),-DBICYCLE_TRACE) \
	-pthread -fPIC -fvisibility=hidden -D_GNU_SOURCE -Isrc -Ikernels \
	-ffile-prefix-map=$(CURDIR)=. $(ENGINE_COPT) \
	-isystem $(CUDA_HOME)/include \
	$(addprefix -isystem ,$(filter-out $(CUDA_HOME)/include,$(CUDNN_INCLUDE)))
# Of the neural core, what the module has a copy of.
CUDA_NN_SRC = $(wildcard src/common/*.c) $(patsubst %,src/nn/%.c,border nn_error graph ops)
CUDA_SRC = $(wildcard src/nn/cuda/*.c $(if $(TRACE),src/nn/cuda/trace/*.c)) $(CUDA_NN_SRC)
CUDA_OBJ = $(patsubst src/%.c,$(CUDA_B)/cuda/%.o,$(CUDA_SRC)) $(CUDA_B)/cuda/kernels.o
CUDNN_RPATH = $(addprefix -Wl$(comma)-rpath$(comma),$(CUDNN_LIB))
CUDART_LIBS = -L$(CUDA_LIB) -lcudart_static -Wl,-Bstatic -lstdc++ -Wl,-Bdynamic

$(foreach B,$(CUDA_B),$(eval $(call compiled,cuda/%.o,src/%.c,CUDA_CFLAGS)))

# All kernels in one run of nvcc: what takes its time is CUDA's headers.
$(CUDA_B)/cuda/kernels.o: $(wildcard kernels/* src/common/*.h)
	@mkdir -p $(@D)
	printf '#include "%s"\n' $(notdir $(filter %.cu,$^)) >$(@:.o=.cu)
	$(NVCC) $(CUDA_FLAGS) -c $(@:.o=.cu) -o $@

$(CUDA_B)/bicycle_cuda.so: $(CUDA_OBJ)
	$(ENGINE_CC) -shared -pthread -Wl,-z,defs -Wl,--exclude-libs,ALL $(CUDNN_RPATH) $^ -o $@ \
		$(CUDART_LIBS) -lrt -ldl -lm

# The same device and kernels for the CPU, for tests: test/cuda/gpu_on_cpu.h. Also as a library that
# the engine opens, if it is started from where that lies.
IMITATION_CFLAGS = $(ENGINE_CFLAGS) -DBICYCLE_TRACE -fPIC -Wno-unknown-pragmas -Ikernels \
	-Itest/cuda -Itest/cuda/runtime
IMITATION_KERNEL_CFLAGS = -x c $(IMITATION_CFLAGS)
IMITATION_TEST_CFLAGS = $(IMITATION_CFLAGS) -Itest/unit
IMITATION_SRC = $(patsubst src/nn/cuda/%,%,$(filter-out src/nn/cuda/cudnn%.c, \
	$(wildcard src/nn/cuda/*.c src/nn/cuda/trace/*.c)))
IMITATION_OBJ = $(addprefix $B/imitation/,$(patsubst %.c,%.o,$(IMITATION_SRC)) \
	$(patsubst %.cu,%.o,$(notdir $(wildcard kernels/*.cu))) \
	$(patsubst %.c,%.o,$(notdir $(wildcard test/cuda/*_on_cpu.c))))
IMITATION_NN_OBJ = $(patsubst src/%.c,$B/imitation/src/%.o,$(CUDA_NN_SRC))

$(eval $(call compiled,imitation/%.o,kernels/%.cu,IMITATION_KERNEL_CFLAGS))
$(eval $(call compiled,imitation/%.o,src/nn/cuda/%.c,IMITATION_CFLAGS))
$(eval $(call compiled,imitation/%.o,test/cuda/%.c,IMITATION_CFLAGS))
$(eval $(call compiled,imitation/src/%.o,src/%.c,IMITATION_CFLAGS))

$B/libimitation.a: $(IMITATION_OBJ)
$B/imitation/bicycle_cuda.so: $(IMITATION_OBJ) $(IMITATION_NN_OBJ)
	$(ENGINE_CC) $(IMITATION_CFLAGS) -shared $^ -o $@ -lm
$B/imitation/bicycle-engine: $B/bicycle-engine
	@mkdir -p $(@D)
	ln -f $< $@

IMITATION_LIBS = $B/libimitation.a $B/libbicycle.a
$(eval $(call linked,unit/test_cuda_%,test/unit/test_cuda_%.c,IMITATION_TEST_CFLAGS,$\
	$(IMITATION_LIBS),ENGINE_LIBS))
$B/unit/test_engine_gpu $B/unit/test_engine_walk $B/unit/test_train_gpu: \
	$B/imitation/bicycle-engine \
	$B/imitation/bicycle_cuda.so

# Plans by the real cuDNN, for a GPU that is described by a file; a line that says so where there is
# none.
PLANS_CFLAGS = $(UNIT_CFLAGS) -Ikernels \
	$(if $(CUDA_MODULE),-DHAVE_CUDNN -isystem $(CUDA_HOME)/include)
PLANS_OBJ = $(if $(CUDA_MODULE),$(patsubst %,$(CUDA_B)/cuda/nn/cuda/%.o,$\
	$(basename $(notdir $(wildcard src/nn/cuda/cudnn*.c))) conv_choice conv_memory cuda_shape \
	cuda_time))
PLANS_LIBS = $(if $(CUDA_MODULE),$(CUDART_LIBS) $(CUDNN_RPATH) -lrt) $(NN_LIBS)
$(eval $(call linked,unit/test_cuda_plans,test/unit/test_cuda_plans.c,PLANS_CFLAGS,$\
	$(PLANS_OBJ) $B/libnn.a,PLANS_LIBS))

# What a machine with a GPU and little else builds (test/cuda/run.sh): neural core, device, and
# tests and benchmarks of them, which need jansson only.
GPU_PROGRAMS = $(addprefix $B/gpu/,test_cpu_ops test_nn_golden test_gpu_model test_cuda_plans \
	test_train_backward test_train_golden engine_bench train_bench engines)
$(eval $(call linked,gpu/test_cuda_plans,test/unit/test_cuda_plans.c,PLANS_CFLAGS,$\
	$(PLANS_OBJ) $B/libnn.a,PLANS_LIBS))
$(eval $(call linked,gpu/engines,bench/engines.c,PLANS_CFLAGS,$\
	$(PLANS_OBJ) $B/libnn.a,PLANS_LIBS))
$(eval $(call linked,gpu/%,test/unit/%.c,UNIT_CFLAGS,$B/libnn.a,NN_LIBS))
$(eval $(call linked,gpu/%,bench/%.c,ENGINE_CFLAGS,$B/libnn.a,NN_LIBS))

DEVICES = ref$(comma) cpu$(if $(CUDA_MODULE),$(comma) cuda,; no cuda: $(CUDA_LACK))
cuda: $(CUDA_MODULE)
devices:
	@echo "devices: $(DEVICES)"
installed-module: $(INSTALLED_MODULE)
gpu: cuda $(GPU_PROGRAMS)
# What test/structure/layers.pl looks at.
all-objects: objects $(OBJS) $(IMITATION_OBJ)

.PHONY: cuda devices installed-module gpu all-objects
