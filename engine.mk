# bicycle-engine, its tests, benchmarks and tools; a part of the Makefile.

VARIANT ?= release
BUILD ?= build$(if $(TRACE),/trace)
B = $(BUILD)/$(VARIANT)

FREETYPE_CFLAGS ?= -I/usr/include/freetype2
FREETYPE_LIBS ?= -lfreetype
# Flags of who builds, as a distribution has them, added to ours.
ENGINE_COPT ?=
ENGINE_LDFLAGS ?=
ENGINE_CC ?= gcc
# It reads what strangers wrote. The processor's kernels read only numbers, and are left as fast.
ENGINE_HARDENING ?= -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
ENGINE_HARDENING_LDFLAGS ?= -Wl,-z,relro,-z,now
$(BUILD)/release/nn/cpu/%.o: ENGINE_HARDENING =
ENGINE_OPT_release = -O3 -g $(ENGINE_HARDENING)
ENGINE_OPT_asan = -O1 -g -DBICYCLE_CHECKS -fsanitize=address,undefined \
	-fno-sanitize-recover=undefined -fno-omit-frame-pointer
# ThreadSanitizer does not see how OpenMP's threads wait for each other: that variant computes
# without teams, and all threads it has are the engine's own.
ENGINE_OPT_tsan = -O2 -g -DBICYCLE_CHECKS -fsanitize=thread -fno-omit-frame-pointer
ENGINE_OPENMP = $(if $(filter tsan,$(VARIANT)),-Wno-unknown-pragmas -Wno-unused-variable,-fopenmp)
ENGINE_CFLAGS = -std=gnu11 $(ENGINE_OPT_$(VARIANT)) $(WARNINGS) $(ENGINE_OPENMP) -pthread \
	-fvisibility=hidden -ffp-contract=off -fno-math-errno -D_GNU_SOURCE -Isrc \
	-ffile-prefix-map=$(CURDIR)=. $(ENGINE_COPT)
NN_LIBS = $(ENGINE_LDFLAGS) $(if $(filter tsan,$(VARIANT)),-lgomp) -ljansson -lm -ldl
ENGINE_LIBS = $(NN_LIBS) -lpng -ldeflate -lz -ljpeg -lwebp -lwebpdemux -lcairo -lfontconfig -lcrypto

# A file named for an instruction set is compiled for it and called only where the processor has it;
# on a machine of another family it is empty.
AVX512 = -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mprefer-vector-width=512
ISA_x86_64_avx2 = -mavx2 -mfma
ISA_x86_64_avx512 = $(AVX512)
ISA_x86_64_avx512bf16 = $(AVX512) -mavx512bf16
ISA_x86_64_amx = -mamx-tile -mamx-bf16
# gcc for Arm moves loads so far ahead that sums are driven out of their registers
KEEP_ORDER = $(if $(findstring clang,$(ENGINE_CC)),,-fno-schedule-insns)
ISA_aarch64_neon = $(KEEP_ORDER)
ISA_aarch64_bfmmla = -march=armv8.2-a+bf16 $(KEEP_ORDER)
ENGINE_MACHINE := $(firstword $(subst -, ,$(shell $(ENGINE_CC) -dumpmachine 2>/dev/null)))
ISA_FLAGS = $(ISA_$(ENGINE_MACHINE)_$(lastword $(subst _, ,$(basename $(<F)))))

# $(call compiled,OBJECTS,SOURCES,FLAGS): all compiling there is; FLAGS is a variable's name
define compiled
$B/$1: $2
	@mkdir -p $$(@D)
	$$(ENGINE_CC) $$($3) $$(ISA_FLAGS) -MMD -MP -c $$< -o $$@
endef
# $(call linked,PROGRAMS,SOURCES,FLAGS,OBJECTS AND LIBRARIES OF OURS,LIBS): programs of one C file
define linked
$B/$1: $2 $4
	@mkdir -p $$(@D)
	$$(ENGINE_CC) $$($3) -MMD -MP $$(filter %.c %.o %.a,$$^) -o $$@ $$($5)
endef
%.a:
	rm -f $@ && ar rcs $@ $^

NN_SRC = $(wildcard src/common/*.c src/nn/*.c src/nn/ref/*.c src/nn/cpu/*.c)
LIB_SRC = $(NN_SRC) $(wildcard src/image/*.c src/plot/*.c src/format/*.c)
LIB_OBJ = $(patsubst src/%.c,$B/%.o,$(LIB_SRC))
ENGINE_OBJ = $(patsubst src/%.c,$B/%.o,$(wildcard src/engine/*.c))

$(eval $(call compiled,%.o,src/%.c,ENGINE_CFLAGS))

$B/libbicycle.a: $(LIB_OBJ)
$B/libnn.a: $(patsubst src/%.c,$B/%.o,$(NN_SRC))
$B/bicycle-engine: $(ENGINE_OBJ) $B/libbicycle.a
	$(ENGINE_CC) $(ENGINE_CFLAGS) $^ -o $@ $(ENGINE_HARDENING_LDFLAGS) $(ENGINE_LIBS)

# A unit test prints TAP (test/unit/tap.h); it may use the engine's objects except its main().
UNIT_CFLAGS = $(ENGINE_CFLAGS) -Itest/unit
UNIT_TESTS = $(patsubst test/unit/%.c,$B/unit/%,$(wildcard test/unit/test_*.c))
UNIT_OBJ = $(filter-out $B/engine/main.o,$(ENGINE_OBJ)) $B/libbicycle.a
$(eval $(call linked,unit/%,test/unit/%.c,UNIT_CFLAGS,$(UNIT_OBJ),ENGINE_LIBS))

# The demo's training pairs come from a font.
TOOLS_CFLAGS = $(ENGINE_CFLAGS) -I.
$B/tools/emoji_pairs: TOOLS_CFLAGS += $(FREETYPE_CFLAGS)
$B/tools/emoji_pairs: ENGINE_LIBS += $(FREETYPE_LIBS)
$(eval $(call linked,tools/%,tools/%.c,TOOLS_CFLAGS,$B/libbicycle.a,ENGINE_LIBS))
$(eval $(call linked,bench/%,bench/%.c,ENGINE_CFLAGS,$B/libbicycle.a,ENGINE_LIBS))

engine: $B/bicycle-engine cuda devices
unit: engine $(UNIT_TESTS)
objects: $(LIB_OBJ) $(ENGINE_OBJ)
benches: $(patsubst bench/%.c,$B/bench/%,$(wildcard bench/*_bench.c))
tools: $(patsubst tools/%.c,$B/tools/%,$(wildcard tools/*.c))

# IMITATION=1 installs the imitation of the CUDA device in place of the real one, for a look at SQL
# without a GPU: IMITATION=1 BICYCLE_DEVICE=cuda test/run.sh regress
INSTALLED_MODULE = $(if $(IMITATION),$B/imitation/bicycle_cuda.so,$(CUDA_MODULE))
# Where there is no server to install for, the Makefile says so.
ifneq ($(PGXS),)
install: install-engine
uninstall: uninstall-engine
endif
install-engine: engine installed-module
	$(MKDIR_P) '$(DESTDIR)$(pkglibdir)'
	$(INSTALL_PROGRAM) $B/bicycle-engine '$(DESTDIR)$(pkglibdir)/bicycle-engine'
	$(if $(INSTALLED_MODULE),$(INSTALL_SHLIB) $(INSTALLED_MODULE),rm -f) \
		'$(DESTDIR)$(pkglibdir)/bicycle_cuda.so'
uninstall-engine:
	rm -f '$(DESTDIR)$(pkglibdir)/bicycle-engine' '$(DESTDIR)$(pkglibdir)/bicycle_cuda.so'

.PHONY: engine unit objects benches tools install-engine uninstall-engine
