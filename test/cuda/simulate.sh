#!/bin/bash
# Tries test/cuda/run.sh where there is no GPU: on the imitated one, with stand-ins for nvidia-smi
# and PyTorch, small networks, and each part killed once in its middle, as a machine may go at any
# moment. Proves that a killed run loses no fact that was known, that the next one goes on, and
# first with what has not been tried; that a budget is kept; that the table says that all is
# simulated, and that the documents' script refuses it. Usage: test/cuda/simulate.sh [PART...]
set -eu -o pipefail
cd "$(dirname "$0")/../.."
WORK=$(mktemp -d "${TMPDIR:-/tmp}/bicycle-simulate.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
export PATH="$PWD/test/cuda/standin:$PATH" SIMULATED=1 OUT=$WORK/out
export BICYCLE_TEST_SMALL=1 BICYCLE_CUDA_PEAK=1,1
# What takes minutes on the imitation is not what is tried here.
parts=${*:-goldens bench trace eager graphs train train_eager compile train_compile
	autotune}
failures=0

check()							# check NAME COMMAND...
{
	local name=$1

	shift
	if "$@"; then echo "ok - $name"; else
		echo "not ok - $name"
		failures=$((failures + 1))
	fi
}
# facts EXPRESSION: what Python makes of the list `facts`
facts()
{
	python3 -c "
import json, sys
facts = [json.loads(line) for line in open(sys.argv[1])]
def of(kind, **wanted):
    return {f['part'] for f in facts if {'kind': kind, **wanted}.items() <= f.items()}
sys.exit(not ($1))" "$OUT/results.jsonl"
}
began() { grep -q "\"kind\": \"begun\", \"part\": \"$1\"" "$OUT/results.jsonl" 2>/dev/null; }
kill_in_part()					# kill_in_part NAME: begins a run, and kills all of it there
{
	local run

	setsid test/cuda/run.sh "$1" >"$WORK/$1.out" 2>&1 &
	run=$!
	while kill -0 $run 2>/dev/null && ! began "$1"; do sleep 0.1; done
	sleep 0.7
	kill -KILL -- -$run 2>/dev/null || true
	wait $run 2>/dev/null || true
}

for part in $parts; do
	kill_in_part "$part"
done
check "all facts of killed runs can be read" facts "len(facts) > 1"
sleep 1
all_ended() { ! env -u OUT grep -lzs "^OUT=$OUT$" /proc/[0-9]*/environ; }
check "nothing of a killed run goes on" all_ended
check "each part was begun" facts "of('begun') == set('''$parts'''.split())"
known=$(wc -l <"$OUT/results.jsonl")
set +e
SECONDS_IN_ALL=600 test/cuda/run.sh $parts >"$WORK/whole.out" 2>&1
status=$?
set -e
check "the next run goes on to its end" test $status = 0
[ $status = 0 ] || tail -40 "$WORK/whole.out"
check "it kept what was known" test "$(wc -l <"$OUT/results.jsonl")" -gt "$known"
check "all parts ended well" facts "of('ended', how='ok') == set('''$parts'''.split())"
check "the table says what it is" grep -q 'SIMULATED by stand-ins, figures mean nothing: goals' \
	"$WORK/whole.out"
check "goals have figures" grep -q 'batch 1, inside, against eager .*: *[0-9]' \
	"$WORK/whole.out"
cp doc/performance.md README.md "$WORK"
tables() { python3 bench/tables.py --document "$WORK/performance.md" --readme "$WORK/README.md" \
	"$@"; }
refused() { ! tables --gpu "$OUT/results.jsonl" 2>/dev/null; }
check "the documents' script refuses it" refused
sed 's/"simulated": true/"simulated": false/' "$OUT/results.jsonl" >"$WORK/real.jsonl"
tables --gpu "$WORK/real.jsonl"
filled() { grep -q '^| 1 |' "$WORK/performance.md"; }
check "it fills tables from what a GPU said" filled
check "and then agrees with them" tables --check --gpu "$WORK/real.jsonl"
# What such a machine lacks is what a bare one does. FreeType is the demo's.
for package in $(sed -n 's/^header .* need .* \(lib[a-z0-9]*\)-dev$/\1/p' test/install-deps.sh \
	| grep -v freetype); do
	check "get-deps.sh brings $package" grep -q "\b$package[0-9a-z-]*-dev" test/cuda/get-deps.sh
done
ended=$(wc -l <"$OUT/results.jsonl")
SECONDS_IN_ALL=600 test/cuda/run.sh $parts >"$WORK/again.out" 2>&1
check "what has ended is not done again" test "$(wc -l <"$OUT/results.jsonl")" = "$ended"
rm -f "$OUT/results.jsonl"
SECONDS_IN_ALL=12 test/cuda/run.sh bench >"$WORK/short.out" 2>&1 || true
check "a part without its time is not begun" grep -q 'bench: no time is left for it' \
	"$WORK/short.out"
[ $failures = 0 ] || exit 1
