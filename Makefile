# bicycle: generative image translation in PostgreSQL.
#
#	make, make install, make installcheck     as for any PGXS extension; PG_CONFIG names the server
#	make test                                 everything, against throw-away servers of its own (test/run.sh)
#	make demo                                 the main job, with pictures in demo/ (demo/run.sh)
#	make bench                                speed, next to its peers (bench/run.sh)
#	make TRACE=1                              with what measures inside the CUDA device (src/nn/cuda/trace), into build/trace
#	make test DEVICE=cuda, make bench DEVICE=cuda    the same of a GPU that is here (test/cuda/run.sh)
#	make deps                                 installs with apt what these need and is missing; test, demo and bench do so themselves
#
# Two programs are built: the extension's library, which PostgreSQL loads, by PGXS; and bicycle-engine, which it only starts, by the rules below into
# build/$(VARIANT).  VARIANT=asan builds the second one, and the unit tests, with AddressSanitizer and UndefinedBehaviorSanitizer.  BUILD=DIRECTORY puts
# them elsewhere, so that builds with another oneDNN (DNNL_CFLAGS, DNNL_LIBS) or compiler (ENGINE_CC) live side by side.

EXTENSION = bicycle
EXTVERSION = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" bicycle.control)
MODULE_big = bicycle
OBJS = $(patsubst %.c,%.o,$(wildcard src/pg/*.c src/common/*.c)) src/nn/random.o
DATA = $(wildcard sql/bicycle--*.sql)
DATA_built = bicycle--$(EXTVERSION).sql
REGRESS = $(filter-out bicycle bicycle--%,$(patsubst sql/%.sql,%,$(wildcard sql/*.sql)))
REGRESS_OPTS = --inputdir=. --load-extension=bicycle
EXTRA_CLEAN = build bicycle--$(EXTVERSION).sql

WARNINGS ?= -Wall -Wextra -Werror -Wno-unused-parameter -Wmissing-prototypes -Wpointer-arith -Wvla -Wwrite-strings -Wno-missing-field-initializers
PG_CFLAGS = $(WARNINGS) -Wno-sign-compare
PG_CPPFLAGS = -Isrc
# bicycle_latent must give the same bits everywhere
PG_CFLAGS += -ffp-contract=off

# LLVM bitcode would demand clang of every builder and saves nothing here: no function of ours is worth inlining.
override with_llvm = no

PG_CONFIG ?= pg_config
PGXS := $(wildcard $(shell $(PG_CONFIG) --pgxs 2>/dev/null))

.DEFAULT_GOAL = all
ifneq ($(PGXS),)
include $(PGXS)

# Where installcheck finds images and models; the server must be able to read it.
export BICYCLE_TESTDATA ?= $(CURDIR)/test/data

# Objects know no headers under PGXS, nor which server they were built for: when either changes all are built anew.
BUILT_FOR := $(shell mkdir -p build; v=$$($(PG_CONFIG) --version --includedir-server | tr '\n' ' '); \
	[ "$$v" = "$$(cat build/built-for 2>/dev/null)" ] || echo "$$v" >build/built-for; echo build/built-for)
$(OBJS): $(BUILT_FOR) $(wildcard src/pg/*.h src/common/*.h) src/nn/nn.h

bicycle--$(EXTVERSION).sql: sql/bicycle.sql
	cp $< $@
all: engine
else
# A machine without PostgreSQL's headers: test, demo and bench install them first.
all install installcheck:
	@echo "no PGXS found through PG_CONFIG=$(PG_CONFIG); install PostgreSQL's server headers, or run \"make deps\"" >&2; exit 1
clean:
	rm -rf build
.PHONY: all install installcheck clean
endif

# ---- The engine ----------------------------------------------------------------------------------------------------------------------------

VARIANT ?= release
BUILD ?= build$(if $(TRACE),/trace)
B = $(BUILD)/$(VARIANT)

DNNL_CFLAGS ?=
DNNL_LIBS ?= -ldnnl
FREETYPE_CFLAGS ?= -I/usr/include/freetype2
FREETYPE_LIBS ?= -lfreetype
ENGINE_LDFLAGS ?=
ENGINE_CC ?= gcc
ENGINE_OPT_release = -O3 -g
ENGINE_OPT_asan = -O1 -g -DBICYCLE_CHECKS -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
# ThreadSanitizer does not see how OpenMP's threads wait for each other: that variant computes without teams, and all threads it has are the engine's own.
ENGINE_OPT_tsan = -O2 -g -DBICYCLE_CHECKS -fsanitize=thread -fno-omit-frame-pointer
ENGINE_OPENMP = $(if $(filter tsan,$(VARIANT)),-Wno-unknown-pragmas -Wno-unused-variable,-fopenmp)
ENGINE_CFLAGS = -std=gnu11 $(ENGINE_OPT_$(VARIANT)) $(WARNINGS) $(ENGINE_OPENMP) -pthread -fvisibility=hidden -ffp-contract=off -fno-math-errno -D_GNU_SOURCE -Isrc $(DNNL_CFLAGS)
ENGINE_LIBS = $(ENGINE_LDFLAGS) $(DNNL_LIBS) $(if $(filter tsan,$(VARIANT)),-lgomp) -lpng -lz -ljpeg -lcairo -lfontconfig -ljansson -lcrypto -lm -ldl

# The CPU device needs oneDNN; WITHOUT_CPU=1 builds without it, for tests of the GPU on a machine that has none.
NN_SRC = $(wildcard src/common/*.c src/nn/*.c src/nn/ref/*.c $(if $(WITHOUT_CPU),,src/nn/cpu/*.c))
ifneq ($(WITHOUT_CPU),)
ENGINE_CFLAGS += -DBICYCLE_WITHOUT_CPU
DNNL_LIBS =
endif
LIB_SRC = $(NN_SRC) $(wildcard src/image/*.c src/format/*.c src/plot/*.c)
ENGINE_SRC = $(wildcard src/engine/*.c)
LIB_OBJ = $(patsubst src/%.c,$B/%.o,$(LIB_SRC))
ENGINE_OBJ = $(patsubst src/%.c,$B/%.o,$(ENGINE_SRC))
UNIT_TESTS = $(patsubst test/unit/%.c,$B/unit/%,$(wildcard test/unit/test_*.c))

engine: $B/bicycle-engine cuda devices
unit: engine $(UNIT_TESTS)
objects: $(LIB_OBJ) $(ENGINE_OBJ)

# A file named for an instruction set is compiled for it and called only where the processor has it.
ISA_FLAGS = $(if $(filter %_avx512,$(basename $<)),-mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mprefer-vector-width=512) \
	$(if $(filter %_avx512bf16,$(basename $<)),-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma -mprefer-vector-width=512) \
	$(if $(filter %_avx2,$(basename $<)),-mavx2 -mfma)

$B/%.o: src/%.c
	@mkdir -p $(dir $@)
	$(ENGINE_CC) $(ENGINE_CFLAGS) $(ISA_FLAGS) -MMD -MP -c $< -o $@

$B/libbicycle.a: $(LIB_OBJ)
	rm -f $@ && ar rcs $@ $^

$B/bicycle-engine: $(ENGINE_OBJ) $B/libbicycle.a
	$(ENGINE_CC) $(ENGINE_CFLAGS) $^ -o $@ $(ENGINE_LIBS)

# A unit test is one C file that prints TAP (test/unit/tap.h); it may use the engine's objects except its main().
$B/unit/%: test/unit/%.c $(filter-out $B/engine/main.o,$(ENGINE_OBJ)) $B/libbicycle.a
	@mkdir -p $(dir $@)
	$(ENGINE_CC) $(ENGINE_CFLAGS) -Itest/unit -MMD -MP $(filter %.c %.o %.a,$^) -o $@ $(ENGINE_LIBS)

# ---- The CUDA device -----------------------------------------------------------------------------------------------------------------------

# A library of its own, which the engine opens if it finds it.  Built where nvcc and cuDNN's headers are; NVCC= builds without.  By default kernels are compiled
# to PTX only, which takes seconds, and which the driver makes into the GPU's own code when they are first loaded.  CUDA_ARCH=release compiles for all GPUs there are,
# CUDA_ARCH="80 90" for those, and to PTX for later ones.
NVCC ?= $(shell command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
CUDA_HOME ?= $(abspath $(dir $(shell readlink -f "$(NVCC)" 2>/dev/null))..)
CUDNN_INCLUDE ?= $(patsubst %/cudnn.h,%,$(firstword $(wildcard $(CUDA_HOME)/include/cudnn.h /usr/include/cudnn.h /usr/include/x86_64-linux-gnu/cudnn.h)))
CUDNN_LIB ?= $(firstword $(dir $(wildcard $(CUDA_HOME)/lib64/libcudnn.so.9)))
CUDA_ARCH ?=
CUDA_CODE = $(if $(filter release,$(CUDA_ARCH)),75 80 86 89 90 100 120,$(CUDA_ARCH))
CUDA_PTX = $(if $(CUDA_CODE),$(lastword $(CUDA_CODE)),75 80)
CUDA_LIB = $(patsubst %/libcudart_static.a,%,$(firstword $(wildcard $(addsuffix /libcudart_static.a,$(CUDA_HOME)/lib64 $(CUDA_HOME)/targets/x86_64-linux/lib \
	$(CUDA_HOME)/lib))))
NVCC_WARNINGS ?= -Werror all-warnings
CUDA_FLAGS = -O3 -lineinfo -Isrc -Ikernels -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wno-unknown-pragmas $(NVCC_WARNINGS) \
	$(foreach a,$(CUDA_CODE),-gencode arch=compute_$a,code=sm_$a) $(foreach a,$(CUDA_PTX),-gencode arch=compute_$a,code=compute_$a)
CUDA_CFLAGS = -std=gnu11 $(ENGINE_OPT_release) $(WARNINGS) $(if $(TRACE),-DBICYCLE_TRACE) -pthread -fPIC -fvisibility=hidden -D_GNU_SOURCE -Isrc -Ikernels -isystem $(CUDA_HOME)/include \
	$(addprefix -isystem ,$(filter-out $(CUDA_HOME)/include,$(CUDNN_INCLUDE)))
CUDA_OBJ = $(patsubst src/%.c,$B/cuda/%.o,$(wildcard src/nn/cuda/*.c $(if $(TRACE),src/nn/cuda/trace/*.c) src/common/*.c) src/nn/border.c src/nn/nn_error.c src/nn/graph.c src/nn/ops.c) \
	$B/cuda/kernels.o
CUDNN_RPATH = $(addprefix -Wl$(comma)-rpath$(comma),$(CUDNN_LIB))
CUDA_LACK = $(if $(NVCC),$(if $(CUDNN_INCLUDE),$(if $(CUDA_LIB),,no libcudart_static.a found),no cudnn.h found),no nvcc found)
CUDA_MODULE = $(if $(CUDA_LACK),,$B/bicycle_cuda.so)

cuda: $(CUDA_MODULE)
devices:
	@echo "devices: ref$(if $(WITHOUT_CPU),,$(comma) cpu)$(if $(CUDA_MODULE),$(comma) cuda,; no cuda: $(CUDA_LACK))"
comma = ,

$B/cuda/%.o: src/%.c
	@mkdir -p $(dir $@)
	$(ENGINE_CC) $(CUDA_CFLAGS) -MMD -MP -c $< -o $@

# All kernels in one run of nvcc: what takes its time is CUDA's headers.
$B/cuda/kernels.o: $(wildcard kernels/*)
	@mkdir -p $(dir $@)
	printf '#include "%s"\n' $(notdir $(filter %.cu,$^)) >$(@:.o=.cu)
	$(NVCC) $(CUDA_FLAGS) -c $(@:.o=.cu) -o $@

$B/bicycle_cuda.so: $(CUDA_OBJ)
	$(ENGINE_CC) -shared -pthread -Wl,-z,defs -Wl,--exclude-libs,ALL $(CUDNN_RPATH) $^ -o $@ -L$(CUDA_LIB) -lcudart_static -Wl,-Bstatic -lstdc++ -Wl,-Bdynamic -lrt -ldl -lm

# The same device and kernels for the CPU, for tests: test/cuda/gpu_on_cpu.h.
IMITATION_CFLAGS = $(ENGINE_CFLAGS) -DBICYCLE_TRACE -fPIC -Wno-unknown-pragmas -Ikernels -Itest/cuda -Itest/cuda/runtime
IMITATION_OBJ = $(patsubst kernels/%.cu,$B/imitation/%.o,$(wildcard kernels/*.cu)) $(patsubst src/nn/cuda/%.c,$B/imitation/%.o,$(filter-out \
	src/nn/cuda/cudnn%.c,$(wildcard src/nn/cuda/*.c src/nn/cuda/trace/*.c))) $(patsubst test/cuda/%.c,$B/imitation/%.o,$(wildcard test/cuda/*_on_cpu.c))

$B/imitation/%.o: kernels/%.cu
	@mkdir -p $(dir $@)
	$(ENGINE_CC) -x c $(IMITATION_CFLAGS) -MMD -MP -c $< -o $@

$B/imitation/%.o: src/nn/cuda/%.c
	@mkdir -p $(dir $@)
	$(ENGINE_CC) $(IMITATION_CFLAGS) -MMD -MP -c $< -o $@

$B/imitation/%.o: test/cuda/%.c
	@mkdir -p $(dir $@)
	$(ENGINE_CC) $(IMITATION_CFLAGS) -MMD -MP -c $< -o $@

$B/imitation/src/%.o: src/%.c
	@mkdir -p $(dir $@)
	$(ENGINE_CC) $(IMITATION_CFLAGS) -MMD -MP -c $< -o $@

# What test/structure/layers.pl looks at.
all-objects: objects $(OBJS) $(IMITATION_OBJ)

$B/libimitation.a: $(IMITATION_OBJ)
	rm -f $@ && ar rcs $@ $^

# And as a library that the engine opens, if it is started from where that lies.
$B/imitation/bicycle_cuda.so: $(IMITATION_OBJ) $(patsubst src/%.c,$B/imitation/src/%.o,$(wildcard src/common/*.c) $(patsubst %,src/nn/%.c,border nn_error graph ops))
	$(ENGINE_CC) $(IMITATION_CFLAGS) -shared $^ -o $@ -lm

$B/imitation/bicycle-engine: $B/bicycle-engine
	@mkdir -p $(dir $@)
	ln -f $< $@

$B/unit/test_engine_gpu: $B/imitation/bicycle-engine $B/imitation/bicycle_cuda.so

$B/unit/test_cuda_%: test/unit/test_cuda_%.c $B/libimitation.a $B/libbicycle.a
	@mkdir -p $(dir $@)
	$(ENGINE_CC) $(IMITATION_CFLAGS) -Itest/unit -MMD -MP $(filter %.c,$^) $B/libimitation.a $B/libbicycle.a -o $@ $(ENGINE_LIBS)

# Plans by the real cuDNN, for a GPU that is described by a file; a line that says so where there is none.
PLANS_OBJ = $(if $(CUDA_MODULE),$B/cuda/nn/cuda/cudnn.o $B/cuda/nn/cuda/cudnn_library.o $B/cuda/nn/cuda/cuda_shape.o $B/cuda/nn/cuda/cuda_time.o)
PLANS_LIBS = $(if $(CUDA_MODULE),-L$(CUDA_LIB) -lcudart_static -Wl$(comma)-Bstatic -lstdc++ -Wl$(comma)-Bdynamic $(CUDNN_RPATH) -lrt)
$B/unit/test_cuda_plans: test/unit/test_cuda_plans.c $(PLANS_OBJ) $B/libbicycle.a
	@mkdir -p $(dir $@)
	$(ENGINE_CC) $(ENGINE_CFLAGS) $(if $(CUDA_MODULE),-DHAVE_CUDNN -isystem $(CUDA_HOME)/include) -Ikernels -Itest/unit -MMD -MP $(filter %.c %.o %.a,$^) -o $@ \
		$(PLANS_LIBS) $(ENGINE_LIBS)

# What a machine with a GPU and little else builds (test/cuda/run.sh): neural core, device, and tests and benchmarks of them, which need jansson only.
GPU_PROGRAMS = $B/gpu/test_cpu_ops $B/gpu/test_nn_golden $B/gpu/test_gpu_model $B/gpu/test_cuda_plans $B/gpu/engine_bench $B/gpu/engines
NN_LIBS = $(ENGINE_LDFLAGS) $(DNNL_LIBS) -ljansson -lm -ldl
$B/libnn.a: $(patsubst src/%.c,$B/%.o,$(NN_SRC))
	rm -f $@ && ar rcs $@ $^

$B/gpu/test_cuda_plans: test/unit/test_cuda_plans.c
$B/gpu/engines: bench/engines.c
$B/gpu/test_cuda_plans $B/gpu/engines: $(PLANS_OBJ) $B/libnn.a
	@mkdir -p $(dir $@)
	$(ENGINE_CC) $(ENGINE_CFLAGS) $(if $(CUDA_MODULE),-DHAVE_CUDNN -isystem $(CUDA_HOME)/include) -Ikernels -Itest/unit $(filter %.c,$^) $(filter %.o,$^) $(filter %.a,$^) -o $@ \
		$(PLANS_LIBS) $(NN_LIBS)

$B/gpu/%: test/unit/%.c $B/libnn.a
	@mkdir -p $(dir $@)
	$(ENGINE_CC) $(ENGINE_CFLAGS) -Itest/unit $(filter %.c %.a,$^) -o $@ $(NN_LIBS)

$B/gpu/%: bench/%.c $B/libnn.a
	@mkdir -p $(dir $@)
	$(ENGINE_CC) $(ENGINE_CFLAGS) $(filter %.c %.a,$^) -o $@ $(NN_LIBS)

gpu: cuda $(GPU_PROGRAMS)

BENCHES = $(patsubst bench/%.c,$B/bench/%,$(wildcard bench/*_bench.c))
TOOLS = $(patsubst tools/%.c,$B/tools/%,$(wildcard tools/*.c))

benches: $(BENCHES)
tools: $(TOOLS)

$B/bench/%: bench/%.c $B/libbicycle.a
	@mkdir -p $(dir $@)
	$(ENGINE_CC) $(ENGINE_CFLAGS) -MMD -MP $(filter %.c %.a,$^) -o $@ $(ENGINE_LIBS)

# The demo's training pairs come from a font.
$B/tools/emoji_pairs: ENGINE_CFLAGS += $(FREETYPE_CFLAGS)
$B/tools/emoji_pairs: ENGINE_LIBS += $(FREETYPE_LIBS)

$B/tools/%: tools/%.c $B/libbicycle.a
	@mkdir -p $(dir $@)
	$(ENGINE_CC) $(ENGINE_CFLAGS) -I. -MMD -MP $(filter %.c %.a,$^) -o $@ $(ENGINE_LIBS)

-include $(shell find $B -name '*.d' 2>/dev/null)

# IMITATION=1 installs that in place of the real one, for a look at SQL without a GPU: IMITATION=1 BICYCLE_DEVICE=cuda test/run.sh regress
INSTALLED_MODULE = $(if $(IMITATION),$B/imitation/bicycle_cuda.so,$(CUDA_MODULE))
install: install-engine
install-engine: engine $(INSTALLED_MODULE)
	$(MKDIR_P) '$(DESTDIR)$(pkglibdir)'
	$(INSTALL_PROGRAM) $B/bicycle-engine '$(DESTDIR)$(pkglibdir)/bicycle-engine'
	$(if $(INSTALLED_MODULE),$(INSTALL_SHLIB) $(INSTALLED_MODULE) '$(DESTDIR)$(pkglibdir)/bicycle_cuda.so')
uninstall: uninstall-engine
uninstall-engine:
	rm -f '$(DESTDIR)$(pkglibdir)/bicycle-engine' '$(DESTDIR)$(pkglibdir)/bicycle_cuda.so'

# ---- Tests, demo, bench --------------------------------------------------------------------------------------------------------------------

# They run makes of their own; variables named on the command line go along in the environment.

test:
	$(if $(filter cuda%,$(DEVICE)),test/cuda/run.sh test sql sanitize,test/run.sh)
demo:
	demo/run.sh
bench:
	$(if $(filter cuda%,$(DEVICE)),test/cuda/run.sh bench engines sqlbench peers,bench/run.sh)
deps:
	test/install-deps.sh

.PHONY: cuda devices gpu engine unit objects all-objects benches tools install-engine uninstall-engine test demo bench deps
