#!/bin/bash
# Fuzzes the readers of images and model files with libFuzzer, under AddressSanitizer and UndefinedBehaviorSanitizer.
#
#	test/fuzz/run.sh SECONDS [png|jpeg|safetensors|pth]...
#
# Each target runs for SECONDS.  Programs, corpora and whatever breaks a target stay in build/fuzz, so that a later run goes on where this one ended.  The image
# libraries themselves are the system's and not instrumented.  Needs clang with libFuzzer.
set -e -u -o pipefail

SECONDS_EACH=${1:?usage: test/fuzz/run.sh SECONDS [TARGET]...}
shift
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
OUT=$ROOT/build/fuzz
CC=${FUZZ_CC:-clang}
FLAGS="-std=gnu11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -D_GNU_SOURCE"
LIBS="-lpng -ljpeg -ljansson -lz -lcrypto -lm"

sources()						# sources TARGET: what it reads with; of the neural core only the names of dtypes, which params.c has
{
	case $1 in
		png | jpeg) echo "$ROOT"/src/image/*.c ;;
		*) echo "$ROOT"/src/format/*.c "$ROOT"/src/nn/{params,config,error}.c ;;
	esac
}

seed()							# seed TARGET: copies the samples that the tests use
{
	case $1 in
		png) cp "$ROOT"/test/data/png/*.png "$OUT/corpus/$1" ;;
		jpeg) cp "$ROOT"/test/data/jpeg/*.jpg "$OUT/corpus/$1" ;;
		safetensors) cp "$ROOT"/test/data/pth/*.safetensors "$OUT/corpus/$1" ;;
		pth) cp "$ROOT"/test/data/pth/*.pth "$OUT/corpus/$1" ;;
	esac
}

status=0
for target in "${@:-png jpeg safetensors pth}"; do
	for name in $target; do
		mkdir -p "$OUT/corpus/$name" "$OUT/found/$name"
		# shellcheck disable=SC2046,SC2086
		"$CC" $FLAGS -I"$ROOT/src" -I"$ROOT/test/fuzz" "$ROOT/test/fuzz/fuzz_$name.c" $(sources "$name") -o "$OUT/fuzz_$name" $LIBS
		seed "$name"
		dictionary=()
		[ -f "$ROOT/test/fuzz/$name.dict" ] && dictionary=(-dict="$ROOT/test/fuzz/$name.dict")
		if "$OUT/fuzz_$name" -max_total_time="$SECONDS_EACH" -max_len=16384 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
			"${dictionary[@]}" -artifact_prefix="$OUT/found/$name/" "$OUT/corpus/$name" > "$OUT/$name.log" 2>&1; then
			executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$OUT/$name.log")
			echo "ok $name: $executions executions, $(find "$OUT/corpus/$name" -type f | wc -l) files in the corpus"
		else
			echo "not ok $name: see $OUT/$name.log and $OUT/found/$name"
			status=1
		fi
	done
done
exit $status
