#!/bin/bash
# Fuzzes everything that reads what others wrote with libFuzzer, under AddressSanitizer and
# UndefinedBehaviorSanitizer: images, model files, options, plots, control lines, and the frames of
# clients and job workers.
#
#	test/fuzz/run.sh SECONDS [png|jpeg|webp|safetensors|pth|options|plot|control|protocol|train]...
#
# Each target runs for SECONDS; with 0 it is built, and reads its corpus once. Programs, corpora and
# whatever breaks a target stay in build/fuzz, so that a later run goes on where this one ended. The
# image libraries themselves are the system's and not instrumented. Needs clang with libFuzzer.
set -e -u -o pipefail

SECONDS_EACH=${1:?usage: test/fuzz/run.sh SECONDS [TARGET]...}
shift
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
OUT=$ROOT/build/fuzz
export ROOT CC=${FUZZ_CC:-clang}
export FLAGS="-std=gnu11 -g -O1 -D_GNU_SOURCE -fno-omit-frame-pointer
	-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined"
LIBS="-lpng -ldeflate -ljpeg -lwebp -lwebpdemux -ljansson -lz -lcrypto -lcairo -lfontconfig
	-lpthread -ldl -lm"
TARGETS="png jpeg webp safetensors pth options plot control protocol train"

# sources TARGET: what it reads with; of the neural core only the names of dtypes, which params.c
# has
sources()
{
	local engine=$ROOT/src/engine
	local below=$(echo "$ROOT"/src/{common,image,plot,format,nn,nn/ref}/*.c)

	case $1 in
		png | jpeg | webp) echo "$ROOT"/src/{common,image}/*.c ;;
		safetensors | pth) echo "$ROOT"/src/{common,format}/*.c \
			"$ROOT"/src/nn/{params,config,metric,nn_error}.c ;;
		options) echo "$ROOT"/src/{common,nn,nn/ref}/*.c ;;
		plot) echo "$ROOT"/src/{common,plot,image}/*.c ;;
		train) echo $(ls "$engine"/*.c | grep -v -e /main.c -e /executor.c -e /server.c \
			-e /run_main.c) $below ;;
		# these targets have a server and an executor of their own: fuzz_engine.h
		*) echo $(ls "$engine"/*.c | grep -v -e /main.c -e /executor.c -e /server.c) $below ;;
	esac
}

# objects TARGET: compiles its sources, each once for all targets, as many at a time as there are
# processors, and all anew after a change of a header
objects()
{
	local source object all=() missing=()

	if [ ! -d "$OUT/objects" ] || [ -n "$(find "$ROOT/src" -name '*.h' -newer "$OUT/objects")" ]; \
		then
		rm -rf "$OUT/objects"
		mkdir -p "$OUT/objects"
	fi
	for source in $(sources "$1"); do
		object=$OUT/objects/${source#"$ROOT"/src/}.o
		mkdir -p "$(dirname "$object")"
		[ "$object" -nt "$source" ] || missing+=("$source" "$object")
		all+=("$object")
	done
	[ ${#missing[@]} = 0 ] || printf '%s\0' "${missing[@]}" | xargs -0 -n 2 -P "$(nproc)" sh -c \
		'exec "$CC" $FLAGS -I"$ROOT/src" -DBICYCLE_WITHOUT_CPU -c "$0" -o "$1"' || return 1
	printf '%s\n' "${all[@]}"
}

seed()							# seed TARGET: copies the samples that the tests use
{
	case $1 in
		png) cp "$ROOT"/test/data/png/*.png "$OUT/corpus/$1" ;;
		jpeg) cp "$ROOT"/test/data/{jpeg,exif}/*.jpg "$OUT/corpus/$1" ;;
		webp) cp "$ROOT"/test/data/{webp,exif}/*.webp "$OUT/corpus/$1" ;;
		safetensors) cp "$ROOT"/test/data/pth/*.safetensors "$OUT/corpus/$1" ;;
		pth) cp "$ROOT"/test/data/pth/*.pth "$OUT/corpus/$1"
			find "$ROOT/test/data/saved" -type f -size -16k -exec cp {} "$OUT/corpus/$1" \; ;;
		*) [ ! -d "$ROOT/test/fuzz/seeds/$1" ] || cp "$ROOT/test/fuzz/seeds/$1"/* \
			"$OUT/corpus/$1" ;;
	esac
}

settings()						# the engine's, as words of a dictionary
{
	sed -n 's/^\(ENGINE\|OWN\)_[A-Z]*(\([a-z_]*\),.*/"\2 "/p' "$ROOT/src/common/settings.def"
}

if [ "$SECONDS_EACH" = 0 ]; then
	limit=-runs=0
else
	limit=-max_total_time=$SECONDS_EACH
fi
status=0
for target in "${@:-$TARGETS}"; do
	for name in $target; do
		mkdir -p "$OUT/corpus/$name" "$OUT/found/$name"
		# shellcheck disable=SC2046,SC2086
		"$CC" $FLAGS -I"$ROOT/src" -I"$ROOT/test/fuzz" -DBICYCLE_WITHOUT_CPU \
			"$ROOT/test/fuzz/fuzz_$name.c" $(objects "$name") -o "$OUT/fuzz_$name" $LIBS
		seed "$name"
		dictionary=()
		if [ -f "$ROOT/test/fuzz/$name.dict" ]; then
			{
				cat "$ROOT/test/fuzz/$name.dict"
				[ "$name" != control ] || settings
			} >"$OUT/$name.dict"
			dictionary=(-dict="$OUT/$name.dict")
		fi
		if "$OUT/fuzz_$name" "$limit" -max_len=16384 -timeout=10 \
			-rss_limit_mb=2048 -print_final_stats=1 \
			"${dictionary[@]}" -artifact_prefix="$OUT/found/$name/" "$OUT/corpus/$name" > \
				"$OUT/$name.log" 2>&1; then
			executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$OUT/$name.log")
			echo "ok $name: $executions executions, $(find "$OUT/corpus/$name" -type f \
				| wc -l) files in the corpus"
		else
			echo "not ok $name: see $OUT/$name.log and $OUT/found/$name"
			status=1
		fi
	done
done
exit $status
